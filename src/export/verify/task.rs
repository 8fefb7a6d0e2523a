//! What a verification compares, and what it may mend.

use crate::export::options::{CommonOptions, SourceOptions};
use crate::given_time::GivenWindow;
pub use crate::state::verifications::{Against, ContentCheck};

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

impl Task {
    pub(super) fn against(&self) -> Against {
        self.with_source.as_ref().map_or(Against::Ledger, |with| with.against)
    }
}

/// A comparison or a repair that needs the source.
pub struct WithSource {
    pub source: SourceOptions,
    pub against: Against,
    pub repair: Repair,
    pub prune: Prune,
}

impl WithSource {
    pub(super) fn may_mend(&self) -> bool {
        self.repair == Repair::Yes || self.prune != Prune::No
    }
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
