//! What we remember: one SQLite file, by default `<output>/.export_state/state.db`.
//!
//! `open.rs` creates, opens and upgrades it, `tenants.rs` keeps watermarks, `ledger.rs` says which
//! file belongs to which invoice, `todo.rs` what is still to be done or was rejected, `runs.rs` the
//! history, `changes.rs` what was changed otherwise. `record.rs` writes a published batch, everything of
//! it in one transaction: the file in the tree comes first, the state second. `legacy.rs` knows the
//! script's state file, `legacy_file.rs` puts one in place.
//!
//! Only whoever holds the lock may open a state for writing (`lock::Held::open_state`).

use std::path::{Path, PathBuf};

use anyhow::Context;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::refusal::{Damage, Refusal};

pub mod backup;
pub mod changes;
pub mod integrity;
pub mod ledger;
pub mod legacy;
pub mod legacy_file;
pub mod open;
pub mod record;
pub mod restore;
pub mod runs;
pub mod tenants;
pub mod todo;
pub mod trace;

/// An open state.
pub struct State {
    conn: Connection,
    path: PathBuf,
    access: open::Access,
}

impl State {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Readers never make a writer wait, and a write that fails midway leaves nothing: every change
    /// goes through here. A deferred transaction could not wait for another writer.
    fn transaction<T>(&mut self, write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> anyhow::Result<T> {
        let path = self.path.clone();
        let write_all = || {
            let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = write(&tx)?;
            tx.commit()?;
            Ok(result)
        };
        // A closure that is called once, so that every `?` above ends here.
        write_all()
            .map_err(|error| explain(error, &path))
            .with_context(|| format!("write the state {}", path.display()))
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> anyhow::Result<T> {
        read(&self.conn)
            .map_err(|error| explain(error, &self.path))
            .with_context(|| format!("read the state {}", self.path.display()))
    }

    /// Leaves one file behind. Errors while closing are errors: the last checkpoint may have failed.
    pub fn close(self) -> anyhow::Result<()> {
        let Self { conn, path, .. } = self;
        conn.close()
            .map_err(|(_, error)| explain(error, &path))
            .with_context(|| format!("close the state {}", path.display()))
    }
}

/// A damaged file is a refusal with a way out, anything else an ordinary error.
fn explain(error: rusqlite::Error, path: &Path) -> anyhow::Error {
    use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
    // SQLite has a code of its own where no room is left for the memory that its log is shared by.
    let no_room = |error: &rusqlite::ffi::Error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    match error.sqlite_error_code() {
        Some(code) if code == DiskFull || error.sqlite_error().is_some_and(no_room) => {
            std::io::Error::new(std::io::ErrorKind::StorageFull, "the disk is full").into()
        }
        Some(DatabaseCorrupt | NotADatabase) => {
            Refusal::StateDamaged { state: path.to_path_buf(), damage: Damage::Other(error.to_string()) }.into()
        }
        _ if is_nonsense(&error) => {
            Refusal::StateDamaged { state: path.to_path_buf(), damage: Damage::Other(error.to_string()) }.into()
        }
        _ => error.into(),
    }
}

/// What the schema rules out: SQLite has no checksums, so flipped bytes may show only as a value that
/// cannot be, or as a table that is missing.
fn is_nonsense(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    match error {
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..) => true,
        rusqlite::Error::QueryReturnedNoRows => true,
        rusqlite::Error::SqlInputError { msg, .. } | rusqlite::Error::SqliteFailure(_, Some(msg)) => {
            msg.starts_with("no such table") || msg.starts_with("no such column") || msg.contains("malformed")
        }
        _ => false,
    }
}
