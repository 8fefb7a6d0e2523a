//! Creating, opening and upgrading the state.
//!
//! A wrong path must never make an empty state, so opening and creating are two functions. A new
//! state is built under another name, synced and renamed: it is there whole or not at all. WAL with
//! `synchronous=FULL` is what survives a power cut (WAL with NORMAL loses every commit since the last
//! checkpoint); both are read back.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, Utc};
use rusqlite::backup::Backup;
use rusqlite::config::DbConfig;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, OpenFlags};

use super::backup::Occasion;
use super::changes::{Change, ChangeKind, note};
use super::{State, explain};
use crate::effort;
use crate::refusal::{Damage, Refusal};
use crate::run::Starter;
use crate::tree::magic;

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

/// What SQLite keeps beside a state that is open or was not closed.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// What may be done with an open state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    /// Reads and leaves no trace, not even a file of SQLite's beside the state. Of a state with an older
    /// schema a copy in memory is read.
    Look,
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
    fn of(path: &Path) -> Option<Self> {
        if has_log(path) {
            return None;
        }
        let data = fs::metadata(path).ok()?;
        Some(Self { inode: data.ino(), length: data.len(), modified: (data.mtime(), data.mtime_nsec()) })
    }

    pub(super) fn still_holds(&self, path: &Path) -> bool {
        Self::of(path).as_ref() == Some(self)
    }
}

/// What lies where the state should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    State,
}

impl State {
    /// Opens an existing state for writing, or says that there is none. Upgrades an older one, which is
    /// backed up first.
    pub(crate) fn open(path: &Path, starter: &Starter) -> anyhow::Result<Option<Self>> {
        if inspect(path)? == Found::Nothing {
            return Ok(None);
        }
        refuse_what_we_cannot_keep(path)?;
        let state = Self {
            conn: connect(path, Access::Write)?,
            path: path.to_path_buf(),
            access: Access::Write,
            unlocked: None,
        };
        let explained = |error| explain(error, path);
        if version(&state.conn).map_err(explained)? < KNOWN {
            state.back_up(Occasion::Before(ChangeKind::Upgrade), starter.at)?;
            upgrade(&state.conn, Some(starter)).map_err(explained).context("cannot upgrade the state's schema")?;
        }
        Ok(Some(state))
    }

    /// Opens an existing state only to look at it.
    pub fn look(path: &Path) -> anyhow::Result<Option<Self>> {
        if inspect(path)? == Found::Nothing {
            return Ok(None);
        }
        let (conn, unlocked) = connect_to_look(path)?;
        Ok(Some(Self { conn, path: path.to_path_buf(), access: Access::Look, unlocked }))
    }

    /// Creates a state where there is none.
    pub(crate) fn create(path: &Path, starter: &Starter) -> anyhow::Result<Self> {
        let folder = path.parent().context("the state's path has no folder")?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        refuse_network(folder)?;
        let aside = path.with_extension("db.new");
        remove_with_companions(&aside)?;
        build(&aside)
            .map_err(|error| explain_any(error, &aside))
            .with_context(|| format!("cannot create the state {}", aside.display()))?;
        // SQLite would play a log that a lost or moved state left behind back into the new one.
        move_companions(path, &with_suffix(path, ".orphaned"))?;
        fs::rename(&aside, path).with_context(|| format!("cannot rename {} to {}", aside.display(), path.display()))?;
        sync_folder_of(path)?;
        Self::open(path, starter)?.context("the new state is not there")
    }

    /// A second connection for another thread that only reads.
    pub(super) fn reading_connection(&self) -> anyhow::Result<(Connection, Option<Stamp>)> {
        let (conn, unlocked) = match self.access {
            Access::Write => (connect(&self.path, Access::Write)?, None),
            Access::Look => connect_to_look(&self.path)?,
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

/// Where a state lies once it is set aside.
pub(super) fn aside(path: &Path, at: DateTime<Utc>) -> PathBuf {
    with_suffix(path, &format!(".aside-{}", at.format("%Y%m%dT%H%M%SZ")))
}

/// Moves a state aside, with everything that belongs to it, and returns where to. It is never
/// deleted.
pub(crate) fn set_aside(path: &Path, at: DateTime<Utc>) -> anyhow::Result<Option<PathBuf>> {
    let target = aside(path, at);
    ensure!(!target.exists(), "{} is already there", target.display());
    let state = rename_if_there(path, &target)?;
    let companions = move_companions(path, &target)?;
    Ok((state || companions).then_some(target))
}

/// Moves what SQLite keeps beside a state to beside another name of it. Returns whether there was
/// anything.
pub(super) fn move_companions(path: &Path, target: &Path) -> anyhow::Result<bool> {
    let mut moved = false;
    for companion in COMPANIONS {
        moved |= rename_if_there(&with_suffix(path, companion), &with_suffix(target, companion))?;
    }
    Ok(moved)
}

fn rename_if_there(from: &Path, to: &Path) -> anyhow::Result<bool> {
    match fs::rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot rename {} to {}", from.display(), to.display())),
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn remove_with_companions(path: &Path) -> anyhow::Result<()> {
    remove_if_there(path)?;
    remove_companions(path)
}

pub(super) fn remove_companions(path: &Path) -> anyhow::Result<()> {
    COMPANIONS.iter().try_for_each(|companion| remove_if_there(&with_suffix(path, companion)))
}

pub(super) fn remove_if_there(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Mode and existence by ourselves; SQLite gives its log the same mode.
pub(super) fn create(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path).with_context(|| format!("cannot create {}", path.display()))
}

pub(super) fn sync_folder_of(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| format!("cannot sync {}", folder.display()))
}

/// Reads the header by ourselves: SQLite would take an empty file for a new database. This happens
/// before SQLite has the file open; closing it later would drop SQLite's locks.
pub(super) fn inspect(path: &Path) -> anyhow::Result<Found> {
    let damaged = |damage| Err(Refusal::StateDamaged { state: path.to_path_buf(), damage }.into());
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error).with_context(|| format!("cannot open the state {}", path.display())),
    };
    let length = file.metadata().with_context(|| format!("cannot look at the state {}", path.display()))?.len();
    let mut header = [0; 100];
    if length < header.len() as u64 {
        return damaged(Damage::TooShort { bytes: length });
    }
    file.read_exact(&mut header).with_context(|| format!("cannot read the state {}", path.display()))?;
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
    Ok(Found::State)
}

pub(super) fn connect(path: &Path, access: Access) -> anyhow::Result<Connection> {
    let open = || {
        let mut conn = match access {
            Access::Write => {
                Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?
            }
            Access::Look => look_at(path)?,
        };
        conn.busy_timeout(Duration::from_secs(30))?;
        harden(&conn)?;
        conn.trace_v2(TraceEventCodes::SQLITE_TRACE_PROFILE, Some(count))?;
        Ok(conn)
    };
    let explained = |error| explain(error, path);
    let mut conn = open().map_err(explained).with_context(|| format!("cannot open the state {}", path.display()))?;
    let version = version(&conn).map_err(explained)?;
    if version > KNOWN {
        return Err(Refusal::StateNewer { state: path.to_path_buf(), version, known: KNOWN }.into());
    }
    if access == Access::Look && version < KNOWN {
        let older = || format!("read the state {}, which is of an older version", path.display());
        conn = upgraded_copy(&conn).map_err(explained).with_context(older)?;
    }
    if access == Access::Write {
        make_durable(&conn)
            .map_err(|error| explain_any(error, path))
            .with_context(|| format!("cannot open the state {}", path.display()))?;
    }
    Ok(conn)
}

/// A connection that only looks, with the stamp of the file if nothing but the stamp says whether
/// somebody wrote meanwhile.
pub(super) fn connect_to_look(path: &Path) -> anyhow::Result<(Connection, Option<Stamp>)> {
    // The stamp comes first: what is written after it is noticed.
    let stamp = Stamp::of(path);
    Ok((connect(path, Access::Look)?, stamp))
}

/// Where no log lies beside the state nobody has it open, and SQLite need not lock (which would leave
/// files beside it). Where one lies, they are there already.
fn look_at(path: &Path) -> rusqlite::Result<Connection> {
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if has_log(path) {
        return Connection::open_with_flags(path, read_only);
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    match url::Url::from_file_path(absolute) {
        Ok(mut uri) => {
            uri.set_query(Some("immutable=1"));
            Connection::open_with_flags(uri.as_str(), read_only | OpenFlags::SQLITE_OPEN_URI)
        }
        Err(()) => Connection::open_with_flags(path, read_only),
    }
}

/// SQLite follows a link before it names its log.
fn has_log(path: &Path) -> bool {
    let real = fs::canonicalize(path);
    with_suffix(real.as_deref().unwrap_or(path), "-wal").exists()
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
        bail!(
            "the state cannot be made durable here (journal_mode {mode}, synchronous {synchronous}); use another file system"
        );
    }
    Ok(())
}

fn build(path: &Path) -> anyhow::Result<()> {
    create(path)?;
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    harden(&conn)?;
    // Nobody else sees the file before it is whole and synced.
    conn.pragma_update_and_check(None, "journal_mode", "memory", |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    upgrade(&conn, None)?;
    conn.execute("INSERT INTO meta (only_row, state_id) VALUES (1, lower(hex(randomblob(16))))", [])?;
    make_durable(&conn)?;
    conn.close().map_err(|(_, error)| error)?;
    File::open(path)?.sync_all()?;
    Ok(())
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

pub(super) fn refuse_what_we_cannot_keep(path: &Path) -> anyhow::Result<()> {
    let owner = fs::metadata(path).with_context(|| format!("cannot look at the state {}", path.display()))?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(Refusal::NotOwner { path: path.to_path_buf() }.into());
    }
    refuse_network(path)
}

/// WAL needs shared memory and honest locks, which network file systems do not give.
fn refuse_network(path: &Path) -> anyhow::Result<()> {
    const NETWORKS: [u32; 7] =
        [magic::NFS, magic::SMB, magic::CIFS, magic::SMB2, magic::NINE_P, magic::AFS, magic::CEPH];
    let file_system =
        rustix::fs::statfs(path).with_context(|| format!("cannot look at the file system of {}", path.display()))?;
    if NETWORKS.contains(&magic::of(&file_system)) {
        return Err(Refusal::NetworkFileSystem { path: path.to_path_buf() }.into());
    }
    Ok(())
}
