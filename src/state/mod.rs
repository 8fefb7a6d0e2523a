//! What we remember: one SQLite file, by default `<output>/.export_state/state.db`.
//!
//! `file.rs` finds and names the file, `open.rs` creates, opens and upgrades it, `tenants.rs` keeps watermarks,
//! `ledger.rs` says which file belongs to which invoice, `todo.rs` what is still to be done or was rejected,
//! `runs.rs` writes the history, `changes.rs` what was changed otherwise; `history.rs` and `pages.rs` read both,
//! `overview.rs` how the tenants stand. `record.rs` writes a published batch, everything of it in one transaction:
//! the file in the tree comes first, the state second. `rehearsal.rs` keeps what a dry run has decided. `legacy.rs`
//! knows the script's state file, `legacy_file.rs` puts one in place. `source_table.rs` numbers the tables that were
//! read. `visited.rs` counts the ids that a scan of the source has visited. `row.rs` reads rows by their columns' names.
//!
//! Only the holder of the lock may open a state for writing (`State::open` takes it as proof).

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use self::file::Watch;
use crate::fs::file::PrivateFile;
use crate::lang::{Explain, Text};
use crate::refusal::{Damage, Refusal};

pub mod backup;
pub mod changes;
mod file;
pub mod history;
pub mod integrity;
pub mod ledger;
pub mod legacy;
pub mod legacy_file;
pub mod open;
pub mod overview;
pub mod pages;
#[cfg(test)]
mod query_plan_tests;
pub mod record;
pub mod rehearsal;
pub mod restore;
mod row;
pub mod visited;
mod watermarks;
pub mod runs;
mod source_table;
pub mod tenants;
pub mod todo;
pub mod trace;

/// An open state.
pub struct State {
    conn: Connection,
    file: PrivateFile,
    access: open::Access,
    /// How the file was when it was opened without locks.
    unlocked: Option<open::Stamp>,
    /// Where another user could put another file in its place.
    watch: Option<Watch>,
}

impl State {
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Readers never make a writer wait, and a write that fails midway leaves nothing: every change
    /// goes through here. A deferred transaction could not wait for another writer.
    fn transaction<T>(&mut self, write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> anyhow::Result<T> {
        self.refuse_other()?;
        let path = self.file.path().to_path_buf();
        let write_all = || {
            end_moment(&self.conn)?;
            let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = write(&tx)?;
            tx.commit()?;
            Ok(result)
        };
        // A closure that is called once, so that every `?` above ends here.
        write_all()
            .map_err(|error| explain(error, &path))
            .explain(|| text!("cannot write the state {}", "无法写入状态文件 {}", path.display()))
    }

    /// For the many small questions of a run between two changes: nobody else writes, so that all of them
    /// share one moment, and SQLite's locks are taken once.
    fn glance<T>(&self, question: impl Fn(&Connection) -> rusqlite::Result<T>) -> anyhow::Result<T> {
        self.look_up(|conn| {
            if self.access == open::Access::Write && conn.is_autocommit() {
                conn.execute_batch("BEGIN")?;
            }
            question(conn)
        })
    }

    fn read<T>(&self, read: impl Fn(&Connection) -> rusqlite::Result<T>) -> anyhow::Result<T> {
        self.look_up(|conn| {
            end_moment(conn)?;
            read(conn)
        })
    }

    fn look_up<T>(&self, read: impl Fn(&Connection) -> rusqlite::Result<T>) -> anyhow::Result<T> {
        let undisturbed =
            |stamp: &Option<open::Stamp>| stamp.as_ref().is_none_or(|stamp| stamp.still_holds(&self.file));
        let mut result = read(&self.conn);
        // A run that began after the file was opened without locks may have changed it under our feet.
        let mut whole = undisturbed(&self.unlocked);
        while !whole {
            let (conn, stamp) = open::connect_read_only(&self.file)?;
            result = read(&conn);
            whole = undisturbed(&stamp);
        }
        result
            .map_err(|error| explain(error, self.path()))
            .explain(|| text!("cannot read the state {}", "无法读取状态文件 {}", self.path().display()))
    }

    /// Refuses if another user has put something else where the state was opened. What would be written then is
    /// read by no later run, and closing would remove a log that is not ours.
    fn refuse_other(&self) -> anyhow::Result<()> {
        self.watch.as_ref().map_or(Ok(()), Watch::check)
    }

    /// Leaves one file behind. SQLite does not tell when the checkpoint fails that closing makes, so it is
    /// asked for one before: where it fails, the disk may not have kept what it said it had.
    pub fn close(self) -> anyhow::Result<()> {
        self.refuse_other()?;
        let Self { conn, file, .. } = self;
        let path = file.path();
        let checkpoint = || {
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
            end_moment(&conn)?;
            conn.query_row("PRAGMA wal_checkpoint", [], |_| Ok(()))
        };
        checkpoint()
            .and_then(|()| conn.close().map_err(|(_, error)| error))
            .map_err(|error| explain(error, path))
            .explain(|| text!("cannot close the state {}", "无法关闭状态文件 {}", path.display()))
    }
}

/// Ends what `State::glance` began.
fn end_moment(conn: &Connection) -> rusqlite::Result<()> {
    if conn.is_autocommit() { Ok(()) } else { conn.execute_batch("COMMIT") }
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
            Refusal::StateDamaged { state: path.to_path_buf(), damage: Damage::Other(Text::same(error.to_string())) }
                .into()
        }
        _ if is_nonsense(&error) => {
            Refusal::StateDamaged { state: path.to_path_buf(), damage: Damage::Other(Text::same(error.to_string())) }
                .into()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::invoice::{InvoiceId, SourceTime};
    use crate::lang::Lang;
    use crate::run::{Kind, RunId, Starter};
    use crate::state::runs::Start;

    fn starter() -> Starter {
        Starter {
            user: "cron".to_owned(),
            host: "db1".to_owned(),
            pid: 1,
            command_line: "invoice-export run".to_owned(),
            at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    fn file(path: &Path) -> PrivateFile {
        PrivateFile::at(path).unwrap().unwrap()
    }

    fn begin_a_run(state: &mut State) -> RunId {
        let start = Start {
            kind: Kind::Full,
            starter: starter(),
            source: "sqlite:a".to_owned(),
            server: "a".to_owned(),
            clocks: runs::Clocks { server_ms: 0, shown_ms: 0, own_ms: 0, host: "db1".to_owned(), uptime: None },
            proof: runs::Proof::default(),
            boundary: SourceTime::from("2025-11-28 16:30:00"),
            since: None,
            doubts: Vec::new(),
            times_again: None,
            marked_run: 0,
            table: None,
        };
        state.begin(&start).unwrap().id
    }

    #[test]
    fn a_look_up_and_a_backup_of_an_idle_state_see_what_a_run_writes_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        State::create_file(&file(&path), &starter()).unwrap().close().unwrap();
        let look = State::open_read_only(&path).unwrap().unwrap();
        let lookup = look.lookup().unwrap();
        assert!(lookup.is_empty().unwrap());
        let mut state = State::open_file(&file(&path), &starter()).unwrap().unwrap();
        let row = "DROP TRIGGER entry_comes_now; INSERT INTO entry VALUES (1, 1, NULL, 1, '20251128+A', zeroblob(32), 2, 1, 1, 0, 1, 0, NULL)";
        state.transaction(|tx| tx.execute_batch(row)).unwrap();
        assert!(!lookup.is_empty().unwrap(), "while the run is at work");
        state.close().unwrap();
        assert!(!lookup.is_empty().unwrap(), "after it");
        let backup = folder.path().join("backup.db");
        look.back_up_to(&backup).unwrap();
        assert!(!State::open_read_only(&backup).unwrap().unwrap().lookup().unwrap().is_empty().unwrap());
    }

    #[test]
    fn of_more_rejects_than_a_run_reads_again_those_left_out_come_first_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::create_file(&file(&folder.path().join("state.db")), &starter()).unwrap();
        let many = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n <= ?1)
             INSERT INTO todo SELECT n, 'reject', NULL, 1 FROM n";
        state.transaction(|tx| tx.execute(many, [todo::RETRIED_AT_MOST])).unwrap();
        let ids =
            |state: &State| -> BTreeSet<InvoiceId> { state.todo().unwrap().into_iter().map(|todo| todo.id).collect() };
        let read = ids(&state);
        state
            .transaction(|tx| read.iter().try_for_each(|id| todo::put(tx, 2, id, todo::TodoReason::Reject, None)))
            .unwrap();
        assert_eq!(ids(&state).difference(&read).count(), 1);
    }

    #[test]
    fn whoever_looks_sees_what_runs_wrote_since_the_state_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        State::create_file(&file(&path), &starter()).unwrap().close().unwrap();
        let look = State::open_read_only(&path).unwrap().unwrap();
        assert_eq!(look.newest_run().unwrap(), None);
        for _ in 0..3 {
            let mut state = State::open_file(&file(&path), &starter()).unwrap().unwrap();
            let run = begin_a_run(&mut state);
            assert_eq!(look.newest_run().unwrap(), Some(run), "while the run is at work");
            state.close().unwrap();
            assert_eq!(look.newest_run().unwrap(), Some(run), "after it");
        }
        drop(look);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["state.db"]);
    }

    #[test]
    fn a_backup_and_a_check_hold_what_runs_wrote_since_the_state_was_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        State::create_file(&file(&path), &starter()).unwrap().close().unwrap();
        let look = State::open_read_only(&path).unwrap().unwrap();
        assert_eq!(look.newest_run().unwrap(), None);
        let mut state = State::open_file(&file(&path), &starter()).unwrap().unwrap();
        let run = begin_a_run(&mut state);
        state.transaction(|tx| tx.execute("UPDATE run SET seen = 1", [])).unwrap();
        state.close().unwrap();
        let target = folder.path().join("backup.db");
        look.back_up_to(&target).unwrap();
        assert_eq!(State::open_read_only(&target).unwrap().unwrap().newest_run().unwrap(), Some(run));
        let findings = look.check(integrity::Depth::Deep).unwrap();
        assert!(
            findings.iter().any(|finding| finding.what.in_lang(Lang::En).contains("do not balance: 1")),
            "{findings:?}"
        );
    }
}
