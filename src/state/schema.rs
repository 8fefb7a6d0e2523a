//! The schema of the state: its versions and the way from one to the next.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::changes::{Change, note};

/// "ivex" in ASCII, at byte 68 of the file.
pub(super) const APPLICATION_ID: i32 = 0x6976_6578;

/// The schema's history: appended to, never edited.
const SCHEMA: [&str; 7] = [
    include_str!("../../state-schema/0001_state.sql"),
    include_str!("../../state-schema/0002_changes.sql"),
    include_str!("../../state-schema/0003_verify.sql"),
    include_str!("../../state-schema/0004_paths_once.sql"),
    include_str!("../../state-schema/0005_recheck.sql"),
    include_str!("../../state-schema/0006_identity.sql"),
    include_str!("../../state-schema/0007_true_words.sql"),
];

/// The version of the schema that this program knows.
pub(super) const KNOWN: i64 = SCHEMA.len() as i64;

/// The version of an open state. What its log says counts too: a process may have died before its upgrade reached the
/// head of the file.
pub(super) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings a state up to date in one transaction, on record as this change.
pub(super) fn upgrade(conn: &Connection, change: Option<&Change<'_>>) -> rusqlite::Result<()> {
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let version = version(&tx)?;
    let missing = usize::try_from(version).map_or(&SCHEMA[..], |applied| &SCHEMA[applied.min(SCHEMA.len())..]);
    if missing.is_empty() {
        return Ok(());
    }
    for step in missing {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "user_version", KNOWN)?;
    if let Some(change) = change {
        note(&tx, &Change { old: Some(version.to_string()), new: Some(KNOWN.to_string()), ..change.clone() })?;
    }
    tx.commit()
}

/// An empty state for tests that ask what SQLite makes of a statement.
#[cfg(test)]
pub(super) fn in_memory() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    upgrade(&conn, None).unwrap();
    conn
}
