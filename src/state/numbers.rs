//! Owns the numbers of runs and changes: none is given twice, whatever becomes of a state, as long as the lock's file or a
//! replaced state beside it tells which were given.

use rusqlite::Connection;

use super::State;
use super::connect::{StateAccess, connect};
use super::open;
use crate::fs::file::PrivateFile;
use crate::lock::ExportLock;
use crate::run::LastNumbers;

/// Those of the states that were set aside beside this one: a new state goes on with greater numbers.
pub fn beside(state: &PrivateFile) -> anyhow::Result<LastNumbers> {
    let names = state.folder().names()?.into_iter().filter(|name| open::is_aside(state, name));
    let beside = names.map(|name| of_file(&PrivateFile::new(state.folder(), name)));
    Ok(beside.fold(LastNumbers::default(), LastNumbers::max))
}

/// As far as the file can be read, which may be damaged.
pub(super) fn of_file(state: &PrivateFile) -> LastNumbers {
    let read = connect(state, StateAccess::ReadOnly).and_then(|conn| Ok(of_state(&conn)?));
    read.unwrap_or_default()
}

/// Also of the states that this one replaced.
pub(super) fn of_state(conn: &Connection) -> rusqlite::Result<LastNumbers> {
    conn.query_row(
        "SELECT max((SELECT coalesce(max(id), 0) FROM run), coalesce(max(last_run), 0)), coalesce(max(n), 0)
         FROM state_change",
        [],
        |row| Ok(LastNumbers { run: row.get(0)?, change: row.get(1)? }),
    )
}

/// Closes a state, and keeps its last numbers in the lock's file for the state that may once replace it.
pub fn close(state: State, lock: &ExportLock) -> anyhow::Result<()> {
    let given = state.read(of_state)?;
    state.close()?;
    lock.note_numbers(given)
}
