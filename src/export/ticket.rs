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

/// What may be believed about a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Ledger,
    /// A run died that may have written it: it is written again.
    Nothing,
}

#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub part: Part,
    /// What the ledger said of the row when it was read.
    pub known: Option<Entry>,
    pub trust: Trust,
    /// Seconds below the watermark, for a row that earlier runs could not see.
    pub late_by: Option<u64>,
}

impl Ticket {
    /// Of a row that may be compared with its file.
    pub(super) fn new(part: Part, known: Option<Entry>) -> Self {
        Self { part, known, trust: Trust::Ledger, late_by: None }
    }
}
