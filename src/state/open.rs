//! Creating, opening and setting aside the state.
//!
//! A wrong path must never make an empty state, so opening and creating are two functions. A new
//! state is built under another name, synced and renamed: it is there whole or not at all.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::Connection;

use super::State;
use super::backup::Occasion;
use super::changes::{Change, ChangeKind};
use super::connect::{FileFingerprint, StateAccess, connect, connect_read_only, connect_to, harden, make_durable};
use super::damage::{explain, explain_any};
use super::file::{self, Watch};
use super::readers;
use super::schema::{self, APPLICATION_ID, KNOWN};
use crate::fs::file::{PrivateFile, UnfinishedFile};
use crate::fs::kind;
use crate::lang::Explain;
use crate::lock::{ExportLock, StateLock};
use crate::refusal::{Damage, Refusal};
use crate::run::{LastNumbers, Starter};

/// In the name of a state that was set aside, before the moment.
const ASIDE: &str = ".aside-";

impl State {
    /// Opens the state for writing; None where there is none. An older one is backed up and upgraded.
    pub fn open(lock: &ExportLock) -> anyhow::Result<Option<Self>> {
        readers::admit(lock)?;
        Self::open_file(lock.state(), lock.starter(), lock.last_numbers()?)
    }

    /// Opens the state for a record. An older one is not upgraded, and takes none: `refuse_older` says so.
    /// It waits for another writer for `patience` at most.
    pub fn open_for_record(lock: &StateLock, patience: Duration) -> anyhow::Result<Option<Self>> {
        if !is_state(lock.state())? {
            return Ok(None);
        }
        refuse_unfit(lock.state())?;
        let state = Self::open_as_it_is(lock.state())?;
        state.conn.busy_timeout(patience).map_err(|error| explain(error, state.path()))?;
        Ok(Some(state))
    }

    /// Refuses a state of an older version.
    pub fn refuse_older(&self) -> anyhow::Result<()> {
        let version = self.read(schema::version)?;
        if version == KNOWN {
            return Ok(());
        }
        Err(text!(
            "the state has schema version {version}, which the next run upgrades to {KNOWN}",
            "状态文件的结构版本为 {version}，下次运行会升级到 {KNOWN}"
        )
        .into())
    }

    /// Whether the head of the state is of an older version; false where there is no state.
    pub fn is_older(path: &Path) -> anyhow::Result<bool> {
        let Some(file) = PrivateFile::at(path)? else { return Ok(false) };
        Ok(version_of(&file)?.is_some_and(|version| version < KNOWN))
    }

    /// Creates a state where there is none.
    pub fn create(lock: &ExportLock) -> anyhow::Result<Self> {
        Self::create_file(lock.state(), lock.starter())
    }

    /// Opens a state for writing, which is backed up and upgraded if it is older.
    pub(super) fn open_file(file: &PrivateFile, starter: &Starter, last: LastNumbers) -> anyhow::Result<Option<Self>> {
        if !is_state(file)? {
            return Ok(None);
        }
        refuse_unfit(file)?;
        let state = Self::open_as_it_is(file)?;
        let explained = |error| explain(error, file.path());
        if schema::version(&state.conn).map_err(explained)? < KNOWN {
            state.back_up(Occasion::Before(ChangeKind::Upgrade), starter.at)?;
            let change = Change::new(ChangeKind::Upgrade, starter, None, last);
            schema::upgrade(&state.conn, Some(&change))
                .map_err(explained)
                .explain(|| text!("cannot upgrade the state's schema", "无法升级状态文件的结构"))?;
        }
        Ok(Some(state))
    }

    /// Opens one for writing that is known to be there, without an upgrade.
    pub(super) fn open_as_it_is(file: &PrivateFile) -> anyhow::Result<Self> {
        let conn = connect(file, StateAccess::Write)?;
        let watch = Watch::begin(file)?;
        Ok(Self { conn, file: file.clone(), access: StateAccess::Write, unlocked: None, watch, supposition: None })
    }

    /// Opens an existing state for reading; None where there is none.
    pub fn open_read_only(path: &Path) -> anyhow::Result<Option<Self>> {
        let Some(file) = PrivateFile::at(path)? else { return Ok(None) };
        if !is_state(&file)? {
            return Ok(None);
        }
        let (conn, unlocked) = connect_read_only(&file)?;
        Ok(Some(Self { conn, file, access: StateAccess::ReadOnly, unlocked, watch: None, supposition: None }))
    }

    /// Creates a state and opens it.
    pub(super) fn create_file(file: &PrivateFile, starter: &Starter) -> anyhow::Result<Self> {
        file::refuse_long(file)?;
        refuse_network(file)?;
        let unfinished = begin_beside(file)?;
        build(unfinished.place()).map_err(|error| explain_any(error, unfinished.place().path())).explain(|| {
            text!("cannot create the state {}", "无法创建状态文件 {}", unfinished.place().path().display())
        })?;
        // SQLite would play a log that a lost or moved state left behind back into the new one.
        let move_log = || file::move_companions(file, &file.with_suffix(".orphaned")).map(drop);
        unfinished.put_in_place(file, move_log)?;
        Self::open_file(file, starter, LastNumbers::default())?
            .explain(|| text!("the new state is not there", "新建的状态文件不存在"))
    }

    /// A second connection for another thread that only reads.
    pub(super) fn reading_connection(&self) -> anyhow::Result<(Connection, Option<FileFingerprint>)> {
        let (conn, unlocked) = match self.access {
            StateAccess::Write => (connect(&self.file, StateAccess::Write)?, None),
            StateAccess::ReadOnly => connect_read_only(&self.file)?,
        };
        self.supposition
            .iter()
            .try_for_each(|supposition| supposition.apply_to_ledger(&conn))
            .map_err(|error| explain(error, self.path()))?;
        conn.pragma_update(None, "query_only", true)?;
        Ok((conn, unlocked))
    }
}

/// A new database beside the one that it will replace.
pub(super) fn begin_beside(state: &PrivateFile) -> anyhow::Result<UnfinishedFile> {
    let place = state.with_suffix(".new");
    file::remove_companions(&place)?;
    let mode = file::mode_of_new(state)?;
    let unfinished = UnfinishedFile::create(place, mode)?;
    let path = unfinished.place().path().display();
    file::set_mode(unfinished.file(), mode)
        .explain(|| text!("cannot change the permissions of {path}", "无法更改 {path} 的权限"))?;
    Ok(unfinished)
}

/// The name of a state that was set aside at a moment.
pub(super) fn aside(file: &PrivateFile, at: DateTime<Utc>) -> PrivateFile {
    file.with_suffix(&format!("{ASIDE}{}", at.format("%Y%m%dT%H%M%SZ")))
}

/// A name like that which no file has yet: two commands may set a state aside in one second.
pub(super) fn free_aside(file: &PrivateFile, at: DateTime<Utc>) -> anyhow::Result<PrivateFile> {
    let mut seconds = (0..).map(TimeDelta::seconds);
    loop {
        let candidate = aside(file, at + seconds.next().unwrap_or_default());
        if !candidate.exists()? {
            return Ok(candidate);
        }
    }
}

/// Whether a name is that of a state which was set aside, and not of what SQLite keeps beside it.
pub(super) fn is_aside(file: &PrivateFile, name: &OsStr) -> bool {
    let start = [file.name().as_encoded_bytes(), ASIDE.as_bytes()].concat();
    name.as_encoded_bytes().strip_prefix(start.as_slice()).is_some_and(|stamp| stamp.ends_with(b"Z"))
}

/// Moves the state aside, with everything that belongs to it, and returns its new path; None where there was nothing.
/// It is never deleted.
pub fn set_aside(lock: &ExportLock) -> anyhow::Result<Option<PathBuf>> {
    let (file, target) = (lock.state(), free_aside(lock.state(), lock.starter().at)?);
    let state = file.rename(&target)?;
    let companions = file::move_companions(file, &target)?;
    Ok((state || companions).then(|| target.path().to_path_buf()))
}

/// Whether there is a state of this program. The header is read without SQLite, which would take an empty file for a
/// new database, and before SQLite has the file open: closing it later would drop SQLite's locks.
///
/// # Errors
/// Refuses any other file, and a state of a newer version.
pub(super) fn is_state(file: &PrivateFile) -> anyhow::Result<bool> {
    version_of(file).map(|version| version.is_some())
}

/// The version of the schema in the head of a state; None where there is no state.
fn version_of(file: &PrivateFile) -> anyhow::Result<Option<i64>> {
    let path = file.path();
    let damaged = |damage| Err(Refusal::StateDamaged { state: path.to_path_buf(), damage }.into());
    let Some(mut file) = file.open()? else { return Ok(None) };
    let (shown, mut header) = (path.display(), [0; 100]);
    let length =
        file.metadata().explain(|| text!("cannot look at the state {shown}", "无法查看状态文件 {shown}"))?.len();
    if length < header.len() as u64 {
        return damaged(Damage::TooShort { bytes: length });
    }
    file.read_exact(&mut header).explain(|| text!("cannot read the state {shown}", "无法读取状态文件 {shown}"))?;
    let number = |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if !header.starts_with(b"SQLite format 3\0") {
        return damaged(Damage::NotSqlite);
    }
    if number(68) != APPLICATION_ID {
        return damaged(Damage::OtherProgram);
    }
    let version = i64::from(number(60));
    if version > KNOWN {
        return Err(Refusal::StateNewer { state: path.to_path_buf(), version, known: KNOWN }.into());
    }
    Ok(Some(version))
}

fn build(file: &PrivateFile) -> anyhow::Result<()> {
    let conn = connect_to(file)?;
    harden(&conn)?;
    // The file gets its name after it is whole and synced, so this loses nothing.
    conn.pragma_update_and_check(None, "journal_mode", "memory", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    schema::upgrade(&conn, None)?;
    conn.execute("INSERT INTO meta (only_row, state_id) VALUES (1, lower(hex(randomblob(16))))", [])?;
    make_durable(&conn)?;
    Watch::begin(file)?;
    conn.close().map_err(|(_, error)| error.into())
}

/// Refuses a state that this user may not write to, or that SQLite cannot keep where it is.
pub(super) fn refuse_unfit(file: &PrivateFile) -> anyhow::Result<()> {
    file::refuse_foreign(file)?;
    file::refuse_long(file)?;
    refuse_network(file)
}

fn refuse_network(file: &PrivateFile) -> anyhow::Result<()> {
    let folder = file.folder();
    let file_system = folder.file_system().explain(|| {
        let path = folder.path().display();
        text!("cannot look at the file system of {path}", "无法查看 {path} 所在的文件系统")
    })?;
    if kind::has_wal(&file_system) {
        return Ok(());
    }
    Err(Refusal::NetworkFileSystem { path: file.path().to_path_buf() }.into())
}
