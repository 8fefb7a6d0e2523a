//! What goes along with a row from the thread that reads it to the one that decides.

use crate::state::ledger::Entry;

/// The part of the run that reads a row: the to-do list first, then either the groups of tenants and what the ledger
/// has beyond them, or the whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    Todo,
    Group(usize),
    Table,
    /// Invoices of the ledger that no group has shown, looked up by primary key. Only `verify` reads them.
    LedgerRest,
}

/// Whether a file that looks right is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rewrite {
    IfWrong,
    /// A run that died may have written the file: it is written again whatever it holds.
    Always,
}

/// What is known of a row when it is read, for the threads that check and decide.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub part: Part,
    /// What the ledger said of the row when it was read.
    pub known: Option<Entry>,
    pub rewrite: Rewrite,
    /// Seconds below the watermark, for a row that earlier runs did not see though they have read its source time. It
    /// is late if it turns out to need a file.
    pub late_by: Option<u64>,
}

impl Ticket {
    /// Of a row that may be compared with its file.
    pub(super) fn new(part: Part, known: Option<Entry>) -> Self {
        Self { part, known, rewrite: Rewrite::IfWrong, late_by: None }
    }
}
