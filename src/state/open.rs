//! Creating, opening and upgrading the state.
//!
//! A wrong path must never make an empty state, so opening and creating are two functions. A new
//! state is built under another name, synced and renamed: it is there whole or not at all. WAL with
//! `synchronous=FULL` is what survives a power cut (WAL with NORMAL loses every commit since the last
//! checkpoint); both are read back.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::backup::Backup;
use rusqlite::config::DbConfig;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, OpenFlags};

use super::backup::Occasion;
use super::changes::{Change, ChangeKind, note};
use super::file::{self, Watch};
use super::{State, explain};
use crate::effort;
use crate::fs::file::{PrivateFile, UnfinishedFile};
use crate::fs::kind;
use crate::fs::private::Exposure;
use crate::lang::Explain;
use crate::lock::ExportLock;
use crate::refusal::{Damage, Refusal};
use crate::run::Starter;

/// "ivex" in ASCII, at byte 68 of the file.
const APPLICATION_ID: i32 = 0x6976_6578;

/// The schema's history: appended to, never edited.
const SCHEMA: [&str; 6] = [
    include_str!("../../state-schema/0001_state.sql"),
    include_str!("../../state-schema/0002_changes.sql"),
    include_str!("../../state-schema/0003_verify.sql"),
    include_str!("../../state-schema/0004_paths_once.sql"),
    include_str!("../../state-schema/0005_recheck.sql"),
    include_str!("../../state-schema/0006_identity.sql"),
];

/// The version of the schema that this program knows.
const KNOWN: i64 = SCHEMA.len() as i64;

/// SQLite's page cache for each of a run's two connections, in KiB.
const CACHE_KIB: i64 = 16 * 1024;

/// What may be done with an open state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    /// Reads and leaves no trace, not even a file of SQLite's beside the state. Of a state with an older
    /// schema a copy in memory is read.
    ReadOnly,
}

/// The file as a reader found it that opened it without locks: whoever writes after that changes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// None where the file is gone, or where a log lies beside it, so that it changes by other rules.
    fn of(file: &PrivateFile) -> Option<Self> {
        if file::has_log(file) {
            return None;
        }
        let data = file.stat().ok().flatten()?;
        let modified = (data.st_mtime, data.st_mtime_nsec.cast_signed());
        Some(Self { inode: data.st_ino, length: data.st_size.cast_unsigned(), modified })
    }

    pub(super) fn still_holds(&self, file: &PrivateFile) -> bool {
        Self::of(file).as_ref() == Some(self)
    }
}

impl State {
    /// Opens the state for writing; None where there is none. An older one is backed up and upgraded.
    pub fn open(lock: &ExportLock) -> anyhow::Result<Option<Self>> {
        Self::open_file(lock.state(), lock.starter())
    }

    /// Creates a state where there is none.
    pub fn create(lock: &ExportLock) -> anyhow::Result<Self> {
        Self::create_file(lock.state(), lock.starter())
    }

    pub(super) fn open_file(file: &PrivateFile, starter: &Starter) -> anyhow::Result<Option<Self>> {
        if !is_state(file)? {
            return Ok(None);
        }
        refuse_unfit(file)?;
        let state = Self::open_as_it_is(file)?;
        let explained = |error| explain(error, file.path());
        if version(&state.conn).map_err(explained)? < KNOWN {
            state.back_up(Occasion::Before(ChangeKind::Upgrade), starter.at)?;
            upgrade(&state.conn, Some(starter))
                .map_err(explained)
                .explain(|| text!("cannot upgrade the state's schema", "无法升级状态文件的结构"))?;
        }
        Ok(Some(state))
    }

    /// Opens one for writing that is known to be there, without an upgrade.
    pub(super) fn open_as_it_is(file: &PrivateFile) -> anyhow::Result<Self> {
        let conn = connect(file, Access::Write)?;
        let watch = Watch::begin(file)?;
        Ok(Self { conn, file: file.clone(), access: Access::Write, unlocked: None, watch })
    }

    /// Opens an existing state for reading; None where there is none.
    pub fn open_read_only(path: &Path) -> anyhow::Result<Option<Self>> {
        let Some(file) = PrivateFile::at(path)? else { return Ok(None) };
        if !is_state(&file)? {
            return Ok(None);
        }
        let (conn, unlocked) = connect_read_only(&file)?;
        Ok(Some(Self { conn, file, access: Access::ReadOnly, unlocked, watch: None }))
    }

    pub(super) fn create_file(file: &PrivateFile, starter: &Starter) -> anyhow::Result<Self> {
        refuse_network(file)?;
        let unfinished = begin_beside(file)?;
        build(unfinished.place()).map_err(|error| explain_any(error, unfinished.place().path())).explain(|| {
            text!("cannot create the state {}", "无法创建状态文件 {}", unfinished.place().path().display())
        })?;
        // SQLite would play a log that a lost or moved state left behind back into the new one.
        let move_log = || file::move_companions(file, &file.with_suffix(".orphaned")).map(drop);
        unfinished.put_in_place(file, move_log)?;
        Self::open_file(file, starter)?.explain(|| text!("the new state is not there", "新建的状态文件不存在"))
    }

    /// A second connection for another thread that only reads.
    pub(super) fn reading_connection(&self) -> anyhow::Result<(Connection, Option<Stamp>)> {
        let (conn, unlocked) = match self.access {
            Access::Write => (connect(&self.file, Access::Write)?, None),
            Access::ReadOnly => connect_read_only(&self.file)?,
        };
        conn.pragma_update(None, "query_only", true)?;
        Ok((conn, unlocked))
    }
}

/// A copy in memory, so that whoever only looks sees one schema and leaves no trace.
fn upgraded_copy(old: &Connection) -> rusqlite::Result<Connection> {
    let mut copy = Connection::open_in_memory()?;
    Backup::new(old, &mut copy)?.run_to_completion(i32::MAX, Duration::ZERO, None)?;
    upgrade(&copy, None)?;
    Ok(copy)
}

/// A new database beside the one whose place it takes.
pub(super) fn begin_beside(state: &PrivateFile) -> anyhow::Result<UnfinishedFile> {
    let place = state.with_suffix(".new");
    file::remove_companions(&place)?;
    UnfinishedFile::create(place, file::MODE)
}

/// The name of a state that was set aside at a moment.
pub(super) fn aside(file: &PrivateFile, at: DateTime<Utc>) -> PrivateFile {
    file.with_suffix(&format!(".aside-{}", at.format("%Y%m%dT%H%M%SZ")))
}

/// Moves the state aside, with everything that belongs to it, and returns its new path; None where there was nothing.
/// It is never deleted.
pub fn set_aside(lock: &ExportLock) -> anyhow::Result<Option<PathBuf>> {
    let (file, target) = (lock.state(), aside(lock.state(), lock.starter().at));
    if target.exists()? {
        return Err(text!("{} is already there", "{} 已经存在", target.path().display()).into());
    }
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
    let path = file.path();
    let damaged = |damage| Err(Refusal::StateDamaged { state: path.to_path_buf(), damage }.into());
    let Some(mut file) = file.open()? else { return Ok(false) };
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
    Ok(true)
}

/// Opens a database for reading and writing that lies there already.
pub(super) fn connect_to(file: &PrivateFile) -> anyhow::Result<Connection> {
    open_with(file, &file.real_path(), OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// Has SQLite open a file by its path, and refuses if that led elsewhere.
fn open_with(file: &PrivateFile, path: &Path, flags: OpenFlags) -> anyhow::Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let before = file::before_open(file);
    match Connection::open_with_flags(path, flags) {
        Ok(conn) => {
            file::refuse_other(file, before.as_ref())?;
            Ok(conn)
        }
        Err(error) => {
            file::refuse_moved(file)?;
            Err(error.into())
        }
    }
}

pub(super) fn connect(file: &PrivateFile, access: Access) -> anyhow::Result<Connection> {
    let path = file.path();
    let open = || -> anyhow::Result<Connection> {
        let mut conn = match access {
            Access::Write => connect_to(file)?,
            Access::ReadOnly => connect_without_locks(file)?,
        };
        conn.busy_timeout(Duration::from_secs(30))?;
        harden(&conn)?;
        if access == Access::Write && file.folder().exposure() == Exposure::ToOthers {
            // Closing removes the log by its path, which `State::close` allows once it has looked.
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        }
        conn.trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(count))?;
        Ok(conn)
    };
    let explained = |error| explain(error, path);
    let mut conn = open()
        .map_err(|error| explain_any(error, path))
        .explain(|| text!("cannot open the state {}", "无法打开状态文件 {}", path.display()))?;
    let version = version(&conn).map_err(explained)?;
    if version > KNOWN {
        return Err(Refusal::StateNewer { state: path.to_path_buf(), version, known: KNOWN }.into());
    }
    if access == Access::ReadOnly && version < KNOWN {
        let path = path.display();
        conn = upgraded_copy(&conn).map_err(explained).explain(|| {
            text!("cannot read the state {path}, which is of an older version", "无法读取旧版本的状态文件 {path}")
        })?;
    }
    if access == Access::Write {
        make_durable(&conn)
            .map_err(|error| explain_any(error, path))
            .explain(|| text!("cannot open the state {}", "无法打开状态文件 {}", path.display()))?;
    }
    Ok(conn)
}

/// A connection that only looks, with the stamp of the file if nothing but the stamp says whether
/// somebody wrote meanwhile.
pub(super) fn connect_read_only(file: &PrivateFile) -> anyhow::Result<(Connection, Option<Stamp>)> {
    // The stamp comes first: what is written after it is noticed.
    let stamp = Stamp::of(file);
    Ok((connect(file, Access::ReadOnly)?, stamp))
}

/// Where no log lies beside the state nobody has it open, and SQLite need not lock (which would leave
/// files beside it). Where one lies, they are there already.
fn connect_without_locks(file: &PrivateFile) -> anyhow::Result<Connection> {
    file::refuse_links(file)?;
    let path = file.real_path();
    let uri = if file::has_log(file) { None } else { url::Url::from_file_path(&path).ok() };
    match uri {
        Some(mut uri) => {
            uri.set_query(Some("immutable=1"));
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            open_with(file, Path::new(uri.as_str()), flags)
        }
        None => open_with(file, &path, OpenFlags::SQLITE_OPEN_READ_ONLY),
    }
}

/// Each statement when it is through, since the event of its beginning would copy its text each time. A
/// trigger's belong to the one that set it off.
fn count(event: TraceEvent<'_>) {
    if matches!(event, TraceEvent::Profile(..)) {
        effort::asked_the_state();
    }
}

fn explain_any(error: anyhow::Error, path: &Path) -> anyhow::Error {
    match error.downcast::<rusqlite::Error>() {
        Ok(error) => explain(error, path),
        Err(error) => error,
    }
}

fn harden(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // Otherwise the planner looks at each value, and a statement is prepared again for each row.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    // Ids come in the order of the source's key, which is not the order of text: with SQLite's 2 MiB
    // a ledger of a million rows is read from disk again and again.
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn make_durable(conn: &Connection) -> anyhow::Result<()> {
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    let synchronous: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if mode != "wal" || synchronous != 2 {
        return Err(message! {
            "the state cannot be made durable here (journal_mode {mode}, synchronous {synchronous})",
            "状态文件在此处无法可靠落盘（journal_mode {mode}, synchronous {synchronous}）";
            "use another file system", "请使用其他文件系统"
        }
        .into());
    }
    Ok(())
}

fn build(file: &PrivateFile) -> anyhow::Result<()> {
    let conn = connect_to(file)?;
    harden(&conn)?;
    // Nobody else sees the file before it is whole and synced.
    conn.pragma_update_and_check(None, "journal_mode", "memory", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    upgrade(&conn, None)?;
    conn.execute("INSERT INTO meta (only_row, state_id) VALUES (1, lower(hex(randomblob(16))))", [])?;
    make_durable(&conn)?;
    Watch::begin(file)?;
    conn.close().map_err(|(_, error)| error.into())
}

/// What the log says counts too: a process may have died before its upgrade reached the file's head.
fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// One transaction for all that is missing, on record where somebody is to be named.
pub(super) fn upgrade(conn: &Connection, starter: Option<&Starter>) -> rusqlite::Result<()> {
    let tx = rusqlite::Transaction::new_unchecked(conn, rusqlite::TransactionBehavior::Immediate)?;
    let version = version(&tx)?;
    let missing = usize::try_from(version).map_or(&SCHEMA[..], |applied| &SCHEMA[applied.min(SCHEMA.len())..]);
    if missing.is_empty() {
        return Ok(());
    }
    for step in missing {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "user_version", KNOWN)?;
    if let Some(starter) = starter {
        let change = Change::new(ChangeKind::Upgrade, starter, None);
        note(&tx, &Change { old: Some(version.to_string()), new: Some(KNOWN.to_string()), ..change })?;
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

/// Refuses a state that this user may not write to, or that SQLite cannot keep where it is.
pub(super) fn refuse_unfit(file: &PrivateFile) -> anyhow::Result<()> {
    file::refuse_foreign(file)?;
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
