//! What goes along with a row from the thread that reads it to the one that decides.

use crate::state::ledger::Entry;

/// What a row belongs to: a group of tenants, the to-do list or a full scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    Todo,
    Group(usize),
    Table,
    /// Invoices of the ledger that the groups did not bring.
    LedgerRest,
}

/// Whether a file that looks right is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rewrite {
    IfWrong,
    /// A run that died may have written the file: it is written again whatever it holds.
    Always,
}

#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub part: Part,
    /// What the ledger said of the row when it was read.
    pub known: Option<Entry>,
    pub rewrite: Rewrite,
    /// Seconds below the watermark, for a row that earlier runs could not see.
    pub late_by: Option<u64>,
}

impl Ticket {
    /// Of a row that may be compared with its file.
    pub(super) fn new(part: Part, known: Option<Entry>) -> Self {
        Self { part, known, rewrite: Rewrite::IfWrong, late_by: None }
    }
}
