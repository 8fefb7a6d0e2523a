//! The ids that a scan of the source has visited. There are as many as the table has rows, so they are
//! kept in a temporary file of SQLite's, which goes with the connection.

use rusqlite::Connection;

use super::connect::temporary;
use super::ledger::Entry;
use crate::invoice::{InvoiceId, SourceTime, Tenant};

/// A part of the ledger.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Empty means all.
    pub tenants: Vec<Tenant>,
    /// Source times `(since, until]`.
    pub since: Option<SourceTime>,
    pub until: Option<SourceTime>,
}

impl Selection {
    /// Whether an invoice of the ledger belongs to this part.
    pub fn holds(&self, entry: &Entry) -> bool {
        (self.tenants.is_empty() || self.tenants.contains(&entry.tenant)) && self.spans(entry.time.as_ref())
    }

    /// Whether a source time lies in the window. No source time lies in a window only if the window has no bounds.
    pub fn spans(&self, time: Option<&SourceTime>) -> bool {
        let after = |since: &SourceTime| time.is_some_and(|time| time > since);
        let upto = |until: &SourceTime| time.is_some_and(|time| time <= until);
        self.since.as_ref().is_none_or(after) && self.until.as_ref().is_none_or(upto)
    }

    /// Whether source times are bounded.
    pub fn has_window(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }
}

/// A set of ids, and the part of the ledger that the scan covers.
pub struct VisitedIds {
    ids: Connection,
    selection: Selection,
}

impl VisitedIds {
    /// An empty set.
    pub fn new(selection: Selection) -> anyhow::Result<Self> {
        let ids = temporary("CREATE TABLE visited (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID")?;
        Ok(Self { ids, selection })
    }

    /// Adds an id, which may be in the set already.
    pub fn insert(&mut self, id: &InvoiceId) -> anyhow::Result<()> {
        self.ids.prepare_cached("INSERT INTO visited VALUES (?1) ON CONFLICT DO NOTHING")?.execute([id.as_str()])?;
        Ok(())
    }

    /// Whether an invoice of the ledger should have been visited and was not.
    pub fn is_missing(&self, entry: &Entry) -> anyhow::Result<bool> {
        let is_visited = || self.ids.prepare_cached("SELECT 1 FROM visited WHERE id = ?1")?.exists([entry.id.as_str()]);
        Ok(self.selection.holds(entry) && !is_visited()?)
    }
}
