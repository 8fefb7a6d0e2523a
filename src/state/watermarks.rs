//! Watermarks and look-backs.

use rusqlite::Connection;

/// Lifts the lower bound of every tenant: its next run compares all keys.
pub(super) fn forget_look_backs(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("UPDATE tenant SET look_back = NULL", []).map(drop)
}
