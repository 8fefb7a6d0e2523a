//! Connections to the state.
//!
//! WAL with `synchronous=FULL` is what survives a power cut (WAL with NORMAL loses every commit since the last
//! checkpoint); both are read back. A reader takes no locks, and leaves no files, where no process has the state open.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::Backup;
use rusqlite::config::DbConfig;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, OpenFlags};

use super::damage::{explain, explain_any};
use super::{file, schema};
use crate::effort;
use crate::fs::file::PrivateFile;
use crate::fs::identity::Identity;
use crate::fs::private::Exposure;
use crate::lang::Explain;
use crate::refusal::Refusal;

/// SQLite's page cache for each of a run's two connections, in KiB.
const CACHE_KIB: i64 = 16 * 1024;

/// What may be done with an open state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateAccess {
    Write,
    /// Reads and leaves no trace, not even a file of SQLite's beside the state. Of a state with an older
    /// schema a copy in memory is read.
    ReadOnly,
}

/// The facts of the file when a reader opened it without locks. A process that writes after that changes them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileFingerprint {
    identity: Identity,
    length: u64,
    modified: (i64, i64),
}

impl FileFingerprint {
    /// None where the file is gone, or where a log lies beside it, so that it changes by other rules.
    fn of(file: &PrivateFile) -> Option<Self> {
        if file::has_log(file) {
            return None;
        }
        let data = file.stat().ok().flatten()?;
        let modified = (data.st_mtime, data.st_mtime_nsec.cast_signed());
        Some(Self { identity: Identity::of(&data), length: data.st_size.cast_unsigned(), modified })
    }

    /// Whether no process has written since.
    fn still_holds(&self, file: &PrivateFile) -> bool {
        Self::of(file).as_ref() == Some(self)
    }
}

/// Opens a database for reading and writing that lies there already.
pub(super) fn connect_to(file: &PrivateFile) -> anyhow::Result<Connection> {
    open_with(file, &file.real_path(), OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// Has SQLite open a file by its path, and refuses if that led elsewhere.
fn open_with(file: &PrivateFile, path: &Path, flags: OpenFlags) -> anyhow::Result<Connection> {
    file::refuse_unopenable(file)?;
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

/// Opens the state with the settings that this program relies on.
///
/// # Errors
/// Refuses a state of a newer version, and a file system where a commit does not last.
pub(super) fn connect(file: &PrivateFile, access: StateAccess) -> anyhow::Result<Connection> {
    let path = file.path();
    let open = || -> anyhow::Result<Connection> {
        let mut conn = match access {
            StateAccess::Write => connect_to(file)?,
            StateAccess::ReadOnly => connect_without_locks(file)?,
        };
        conn.busy_timeout(Duration::from_secs(30))?;
        harden(&conn)?;
        if access == StateAccess::Write && file.folder().exposure() == Exposure::ToOthers {
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
    let version = schema::version(&conn).map_err(explained)?;
    if version > schema::KNOWN {
        return Err(Refusal::StateNewer { state: path.to_path_buf(), version, known: schema::KNOWN }.into());
    }
    if access == StateAccess::ReadOnly && version < schema::KNOWN {
        let path = path.display();
        conn = upgraded_copy(&conn).map_err(explained).explain(|| {
            text!("cannot read the state {path}, which is of an older version", "无法读取旧版本的状态文件 {path}")
        })?;
    }
    if access == StateAccess::Write {
        make_durable(&conn)
            .map_err(|error| explain_any(error, path))
            .explain(|| text!("cannot open the state {}", "无法打开状态文件 {}", path.display()))?;
    }
    Ok(conn)
}

/// A connection for reading. Where it takes no locks it comes with the fingerprint of the file, which says whether a
/// process wrote meanwhile.
pub(super) fn connect_read_only(file: &PrivateFile) -> anyhow::Result<(Connection, Option<FileFingerprint>)> {
    // The fingerprint comes first: what is written after it is noticed.
    let fingerprint = FileFingerprint::of(file);
    Ok((connect(file, StateAccess::ReadOnly)?, fingerprint))
}

/// Whether no process has written since a connection without locks was opened. None: the connection takes locks.
pub(super) fn is_undisturbed(fingerprint: Option<&FileFingerprint>, file: &PrivateFile) -> bool {
    fingerprint.is_none_or(|fingerprint| fingerprint.still_holds(file))
}

/// The answer to a question, with the connection that gave it and its fingerprint.
pub(super) type AnswerOfNew<T> = (rusqlite::Result<T>, Connection, Option<FileFingerprint>);

/// Asks through a new connection, and again if a process wrote meanwhile.
pub(super) fn ask_anew<T>(
    file: &PrivateFile,
    question: impl Fn(&Connection) -> rusqlite::Result<T>,
) -> anyhow::Result<AnswerOfNew<T>> {
    loop {
        let (conn, fingerprint) = connect_read_only(file)?;
        let answer = question(&conn);
        if is_undisturbed(fingerprint.as_ref(), file) {
            return Ok((answer, conn, fingerprint));
        }
    }
}

/// An empty database in a temporary file of SQLite's, in one transaction that is never committed. The file goes with
/// the connection, so nothing of it need last.
pub(super) fn temporary(schema: &str) -> rusqlite::Result<Connection> {
    let conn = Connection::open("")?;
    conn.execute_batch(&format!("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {schema}; BEGIN"))?;
    Ok(conn)
}

/// Where no log lies beside the state, no process has it open, and SQLite need not lock (which would leave
/// files beside it). Where there is a log, these files are there already.
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

/// A copy in memory, so that a reader sees one schema and leaves no trace.
fn upgraded_copy(old: &Connection) -> rusqlite::Result<Connection> {
    let mut copy = Connection::open_in_memory()?;
    Backup::new(old, &mut copy)?.run_to_completion(i32::MAX, Duration::ZERO, None)?;
    schema::upgrade(&copy, None)?;
    Ok(copy)
}

/// Switches off what SQLite permits for the sake of old programs.
pub(super) fn harden(conn: &Connection) -> rusqlite::Result<()> {
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

/// Lets every commit survive a power cut, and reads back that it does.
pub(super) fn make_durable(conn: &Connection) -> anyhow::Result<()> {
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    let synchronous: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if mode != "wal" || synchronous != 2 {
        return Err(text!(
            "the state cannot be made durable here (journal_mode {mode}, synchronous {synchronous}); use another file system",
            "状态文件在此处无法可靠落盘（journal_mode {mode}，synchronous {synchronous}）；请使用其他文件系统"
        )
        .into());
    }
    Ok(())
}
