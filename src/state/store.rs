//! An open state: its transactions, its readers and its end.

use std::path::Path;
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::connect::{FileFingerprint, StateAccess, ask_anew, is_undisturbed};
use super::damage::explain;
use super::file::Watch;
use super::supposition::Supposition;
use crate::fs::file::PrivateFile;
use crate::lang::Explain;

/// An open state.
pub struct State {
    pub(super) conn: Connection,
    pub(super) file: PrivateFile,
    pub(super) access: StateAccess,
    /// How the file was when it was opened without locks.
    pub(super) unlocked: Option<FileFingerprint>,
    /// Where another user could put another file in its place.
    pub(super) watch: Option<Watch>,
    /// What a dry run supposes.
    pub(super) supposition: Option<Arc<Supposition>>,
}

impl State {
    /// The file of the state, as the operator named it.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Readers never make a writer wait, and a write that fails midway leaves nothing: every change
    /// goes through here. A deferred transaction could not wait for another writer.
    pub(super) fn transaction<T>(
        &mut self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> anyhow::Result<T> {
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

    /// For the many small questions of a run between two changes: no other process writes, so that all of them
    /// share one moment, and SQLite's locks are taken once.
    pub(super) fn read_at_one_moment<T>(
        &self,
        question: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> anyhow::Result<T> {
        self.ask(|conn| {
            if self.access == StateAccess::Write && conn.is_autocommit() {
                conn.execute_batch("BEGIN")?;
            }
            question(conn)
        })
    }

    /// Answers a question from what is on record now.
    pub(super) fn read<T>(&self, read: impl Fn(&Connection) -> rusqlite::Result<T>) -> anyhow::Result<T> {
        self.ask(|conn| {
            end_moment(conn)?;
            read(conn)
        })
    }

    fn ask<T>(&self, read: impl Fn(&Connection) -> rusqlite::Result<T>) -> anyhow::Result<T> {
        let mut result = read(&self.conn);
        // A run that began after the file was opened without locks may have changed it meanwhile.
        if !is_undisturbed(self.unlocked.as_ref(), &self.file) {
            (result, ..) = ask_anew(&self.file, |conn| {
                self.supposition.iter().try_for_each(|supposition| supposition.apply(conn))?;
                read(conn)
            })?;
        }
        result
            .map_err(|error| explain(error, self.path()))
            .explain(|| text!("cannot read the state {}", "无法读取状态文件 {}", self.path().display()))
    }

    /// Refuses if another user has put something else where the state was opened. What would be written then is
    /// read by no later run, and closing would remove a log of another user.
    fn refuse_other(&self) -> anyhow::Result<()> {
        self.watch.as_ref().map_or(Ok(()), Watch::check)
    }

    /// Answers every further question as if a run had begun so.
    pub fn suppose(&mut self, supposition: Supposition) -> anyhow::Result<()> {
        if !supposition.is_empty() {
            self.ask(|conn| supposition.apply(conn))?;
            self.supposition = Some(Arc::new(supposition));
        }
        Ok(())
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

/// Ends what `State::read_at_one_moment` began.
fn end_moment(conn: &Connection) -> rusqlite::Result<()> {
    if conn.is_autocommit() { Ok(()) } else { conn.execute_batch("COMMIT") }
}
