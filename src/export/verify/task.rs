//! What a verification compares, and what it may mend.

use crate::export::options::{CommonOptions, SourceOptions};
use crate::given_time::GivenWindow;

/// Asks the operator before more files are removed than is harmless. The arguments are the number of files and of
/// invoices in the ledger. An error stops the removal.
pub type Confirm<'a> = &'a dyn Fn(u64, u64) -> anyhow::Result<()>;

/// The comparison, and what may be mended.
pub struct Task {
    /// Of kind `Verify`. Its selection bounds what is compared.
    pub common: CommonOptions,
    /// The selection has it once the source's clock is known, or no source is asked.
    pub window: GivenWindow,
    pub content: ContentCheck,
    /// Findings that are shown of each kind; all are counted.
    pub shown: usize,
    /// None: only tree and ledger are compared.
    pub with_source: Option<WithSource>,
}

/// How a file is compared with what was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCheck {
    /// By its size, and by its content only if it was modified after the run that wrote it.
    BySize,
    ByHash,
}

/// A comparison or a repair that needs the source.
pub struct WithSource {
    pub source: SourceOptions,
    pub against: Against,
    pub repair: Repair,
    pub prune: Prune,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    Ledger,
    /// The source's keys, and the documents of those that the ledger does not hold.
    Keys,
    /// Every document.
    Documents,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    No,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    No,
    Yes(PruneOrder),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneOrder {
    /// How many files are removed at most without asking the operator. None: as many as are always harmless.
    pub at_most: Option<u64>,
    pub leftovers: Leftovers,
}

/// Leftovers that are not provably superseded: each may be the only file of an earlier invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    Kept,
    Removed,
}
