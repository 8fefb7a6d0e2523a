//! What a verification compares, and what it may mend.

use crate::export::options::{CommonOptions, SourceOptions};

/// Asked before more files are removed than is harmless: how many, and out of how many. An error stops it.
pub type Confirm<'a> = &'a dyn Fn(u64, u64) -> anyhow::Result<()>;

/// What is to be compared, and what is to be done about it.
pub struct Task {
    /// Of kind `Verify`. Its selection bounds what is compared.
    pub common: CommonOptions,
    pub content: ContentCheck,
    /// Findings that are shown of each kind; all are counted.
    pub shown: usize,
    /// None: only tree and ledger are looked at.
    pub with_source: Option<WithSource>,
}

/// How a file is compared with what was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCheck {
    /// By its size, and by its content only if it was modified after the run that wrote it.
    BySize,
    ByHash,
}

/// What the source is asked for.
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
    /// So many files at the most without a word of the operator's; None is what is always harmless.
    pub at_most: Option<u64>,
    pub leftovers: Leftovers,
}

/// What becomes of leftovers that are not provably superseded: each may be the only file of an earlier invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    Kept,
    Removed,
}
