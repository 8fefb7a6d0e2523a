//! The state as it would be once a run has begun, for a dry run: what is in doubt then, and what a dead run has left.
//! Temporary tables and a view of the ledger, which SQLite finds before those of the state, stand on each connection
//! that reads.

use rusqlite::Connection;

use super::todo;
use super::watermarks::{self, PullBack};
use crate::event::Doubt;
use crate::invoice::SourceTime;
use crate::tree::stage::Unrecorded;

/// What a run changes when it begins.
#[derive(Clone, Debug)]
pub struct Supposition {
    /// What a dead run may have done without recording it.
    pub unrecorded: Unrecorded,
    pub doubts: Vec<Doubt>,
    /// Source times above this may come again if the clock went back; None: any may.
    pub times_again: Option<SourceTime>,
    /// The watermarks that lie ahead of the boundary.
    pub pull_backs: Vec<PullBack>,
    pub boundary: SourceTime,
}

/// The lists that a run changes when it begins.
const LISTS: [&str; 4] = ["tenant", "todo", "doubt_path", "doubt_content"];

impl Supposition {
    pub(super) fn is_empty(&self) -> bool {
        let Self { unrecorded, doubts, pull_backs, .. } = self;
        *unrecorded == Unrecorded::default() && doubts.is_empty() && pull_backs.is_empty()
    }

    /// Puts it before what the connection reads.
    pub(super) fn apply(&self, conn: &Connection) -> rusqlite::Result<()> {
        LISTS.into_iter().try_for_each(|list| copy(conn, list))?;
        // The dead run comes first: the view of the ledger cannot be changed.
        todo::put_doubt(conn, &self.unrecorded)?;
        watermarks::doubt_tenants(conn, &self.doubts)?;
        for PullBack { tenant, .. } in &self.pull_backs {
            watermarks::put_back(conn, tenant, &self.boundary)?;
        }
        self.apply_to_ledger(conn)
    }

    /// The same for a connection that asks the ledger alone. As `watermarks::doubt` changes it.
    pub(super) fn apply_to_ledger(&self, conn: &Connection) -> rusqlite::Result<()> {
        let is_restored = self.doubts.contains(&Doubt::StateRestored);
        let has_moved = self.doubts.contains(&Doubt::ClockMoved);
        let above = self
            .times_again
            .as_ref()
            .map_or("NULL".to_owned(), |time| format!("'{}'", time.as_str().replace('\'', "''")));
        let (settled, recheck) = match (is_restored, has_moved) {
            (false, false) => return Ok(()),
            (true, _) => ("0".to_owned(), "1"),
            (false, true) => (format!("settled AND NOT ({above} IS NULL OR time > {above})"), "recheck"),
        };
        conn.execute_batch(&format!(
            "CREATE TEMP VIEW entry AS SELECT id, tenant, time, folder, name, sha256, size, first_run, run, adopted,
                 {settled} AS settled, {recheck} AS recheck, source_table, counted FROM main.entry"
        ))
    }
}

/// Puts a copy of a list before it, with its keys.
fn copy(conn: &Connection, list: &str) -> rusqlite::Result<()> {
    let sql: String =
        conn.query_row("SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1", [list], |row| {
            row.get(0)
        })?;
    let sql = sql.replacen("CREATE TABLE", "CREATE TEMP TABLE", 1);
    conn.execute_batch(&format!("{sql}; INSERT INTO temp.{list} SELECT * FROM main.{list}"))
}
