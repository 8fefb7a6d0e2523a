//! The ids that a scan of the source has visited. There are as many as the table has rows, so they are
//! kept in a temporary file of SQLite's, which goes with the connection.

use rusqlite::Connection;

use super::connect::temporary;
use super::ledger::Entry;
use super::selection::Selection;
use crate::invoice::InvoiceId;

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
