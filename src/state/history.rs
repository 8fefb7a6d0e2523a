//! Reading the history: one run or change in full, and the files of a run. `pages.rs` reads all of it,
//! newest first.

use anyhow::Context;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::State;
use super::changes::MovedWatermark;
use super::todo::{self, LEFT_BY_RUN, Leftover};
use crate::invoice::{InvoiceId, SourceTime, Tenant};
use crate::run::{Counts, Outcome, RunId};

/// How a run ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Running,
    Success,
    Partial,
    Failed,
    /// Stopped by a signal at a clean checkpoint.
    Cancelled,
    /// It died; a later run noticed.
    Interrupted,
}

const STATUSES: [Status; 6] =
    [Status::Running, Status::Success, Status::Partial, Status::Failed, Status::Cancelled, Status::Interrupted];

impl Status {
    /// The word used in the state, in messages and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Outcome> for Status {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::Success,
            Outcome::Partial => Self::Partial,
        }
    }
}

impl FromSql for Status {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        STATUSES.into_iter().find(|status| status.as_str() == text).ok_or(FromSqlError::InvalidType)
    }
}

/// A run as it is on record. Among the entries of one tenant its counts and its error are the tenant's.
#[derive(Clone, Debug)]
pub struct PastRun {
    pub id: RunId,
    pub kind: String,
    pub status: Status,
    pub started: String,
    /// Of an interrupted run: when that was noticed.
    pub finished: Option<String>,
    pub since: Option<SourceTime>,
    pub boundary: SourceTime,
    pub user: String,
    pub host: String,
    pub pid: i64,
    pub command_line: String,
    pub version: String,
    pub tenants: u64,
    pub counts: Counts,
    pub retries: u64,
    pub error: Option<String>,
}

/// A change as it is on record.
#[derive(Clone, Debug)]
pub struct PastChange {
    pub number: i64,
    pub kind: String,
    pub at: String,
    /// It came after this run; a pull-back belongs to it.
    pub last_run: i64,
    pub user: String,
    pub host: String,
    pub command_line: Option<String>,
    pub reason: Option<String>,
    pub file: Option<String>,
    pub sha256: Option<String>,
    pub lines: Option<i64>,
    pub old: Option<String>,
    pub new: Option<String>,
    /// How many watermarks it moved.
    pub watermarks: u64,
}

/// A run with everything that hangs on it.
#[derive(Clone, Debug)]
pub struct RunInFull {
    pub run: PastRun,
    pub tenants: Vec<OfTenant>,
    /// Those that it opened, and those that no later run refused again.
    pub rejects: Vec<PastReject>,
    /// Rejects beyond the ones above.
    pub rejects_left_out: u64,
    pub pulled_back: Vec<MovedWatermark>,
    /// Files that it left where they are and that still lie there, some of them if there are many.
    pub leftovers: Vec<Leftover>,
}

/// What a run did for one tenant.
#[derive(Clone, Debug)]
pub struct OfTenant {
    pub tenant: Tenant,
    pub old_watermark: Option<SourceTime>,
    pub new_watermark: Option<SourceTime>,
    pub counts: Counts,
    pub error: Option<String>,
}

/// An invoice that could not be exported.
#[derive(Clone, Debug)]
pub struct PastReject {
    pub id: InvoiceId,
    pub tenant: Option<Tenant>,
    pub number: Option<String>,
    pub time: Option<SourceTime>,
    pub reason: String,
    pub detail: String,
    pub opened_run: i64,
    /// When that run started.
    pub opened: Option<String>,
    /// The last run that refused it.
    pub last_run: i64,
    pub closed_run: Option<i64>,
    pub closed_how: Option<String>,
}

/// A path and what a run did there: `written`, `adopted` or `removed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedFile {
    pub path: String,
    pub action: String,
}

/// Rejects that are shown with their run.
const REJECTS_SHOWN: i64 = 1_000;

pub(super) const RUN: &str =
    "r.id, r.kind, r.status, r.started, r.finished, r.since, r.boundary, r.user, r.host, r.pid,
    r.command_line, r.version, r.tenants, r.retries, r.error, r.seen, r.written, r.unchanged, r.rejected, r.gone,
    r.late, r.late_by, r.removed, r.bytes";
pub(super) const CHANGE: &str =
    "c.n, c.kind, c.at, c.last_run, c.user, c.host, c.command_line, c.reason, c.file, c.sha256,
    c.lines, c.old, c.new, (SELECT count(*) FROM watermark_change m WHERE m.change = c.n)";
pub(super) const REJECT: &str = "j.id, j.tenant, j.number, j.time, j.reason, j.detail, j.opened_run, r.started,
    j.last_run, j.closed_run, j.closed_how";

impl State {
    /// The greatest number there is.
    pub fn newest_run(&self) -> anyhow::Result<Option<RunId>> {
        self.read(|conn| {
            conn.query_row("SELECT max(id) FROM run", [], |row| Ok(row.get::<_, Option<i64>>(0)?.map(RunId)))
        })
    }

    /// The last run that ended otherwise than well.
    pub fn newest_trouble(&self) -> anyhow::Result<Option<RunId>> {
        let newest = |conn: &Connection, status: Status| {
            conn.query_row(NEWEST_OF_STATUS, [status.as_str()], |row| row.get::<_, Option<i64>>(0))
        };
        self.read(|conn| {
            let troubles = [Status::Partial, Status::Failed, Status::Cancelled, Status::Interrupted];
            let newest: rusqlite::Result<Vec<_>> = troubles.into_iter().map(|status| newest(conn, status)).collect();
            Ok(newest?.into_iter().flatten().max().map(RunId))
        })
    }

    /// The run that has no end yet, whether it is at work or died.
    pub fn unfinished_run(&self) -> anyhow::Result<Option<PastRun>> {
        let sql = format!("SELECT {RUN} {UNFINISHED}");
        self.read(|conn| conn.query_row(&sql, [], past_run).optional())
    }

    pub fn run_in_full(&self, id: RunId) -> anyhow::Result<Option<RunInFull>> {
        self.read(|conn| {
            // A run at work goes on between two statements; this is one moment of it.
            let moment = conn.unchecked_transaction()?;
            let sql = format!("SELECT {RUN} FROM run r WHERE r.id = ?1");
            let Some(run) = moment.query_row(&sql, [id.0], past_run).optional()? else { return Ok(None) };
            let rejects = rejects_of(&moment, id)?;
            let all: i64 = moment.query_row(&format!("SELECT count(*) {OF_RUN}"), [id.0], |row| row.get(0))?;
            Ok(Some(RunInFull {
                run,
                tenants: tenants_of(&moment, id)?,
                rejects_left_out: all.cast_unsigned().saturating_sub(rejects.len() as u64),
                rejects,
                pulled_back: watermarks_of_run(&moment, id)?,
                leftovers: todo::leftovers(&moment, LEFT_BY_RUN, id.0)?,
            }))
        })
    }

    /// A change and the watermarks that it moved.
    pub fn change_in_full(&self, number: i64) -> anyhow::Result<Option<(PastChange, Vec<MovedWatermark>)>> {
        self.read(|conn| {
            let sql = format!("SELECT {CHANGE} FROM state_change c WHERE c.n = ?1");
            let Some(change) = conn.query_row(&sql, [number], past_change).optional()? else { return Ok(None) };
            let mut query = conn.prepare(
                "SELECT t.name, m.old, m.new FROM watermark_change m JOIN tenant t ON t.n = m.tenant
                 WHERE m.change = ?1 ORDER BY t.name",
            )?;
            let moved: rusqlite::Result<_> = query.query_map([number], |row| moved(row, 0))?.collect();
            Ok(Some((change, moved?)))
        })
    }

    /// What a run did to files.
    pub fn files(&self, run: RunId) -> anyhow::Result<Listing> {
        self.read(|conn| Listing::of(conn, FILES, run)).context(SORTING)
    }

    /// The files that a run wrote or took over and that still belong to an invoice; of the action nothing is
    /// said.
    pub fn files_that_stayed(&self, run: RunId) -> anyhow::Result<Listing> {
        self.read(|conn| Listing::of(conn, FILES_THAT_STAYED, run)).context(SORTING)
    }
}

/// Files in the order of their paths. The state has them in another one, and there may be as many as the tree
/// has: they are sorted in a temporary file of SQLite's, which goes with this.
pub struct Listing(Connection);

impl Listing {
    fn of(conn: &Connection, files: &str, run: RunId) -> rusqlite::Result<Self> {
        let sorted = Connection::open("")?;
        sorted.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE file (path TEXT, action TEXT, PRIMARY KEY (path, action)) STRICT, WITHOUT ROWID; BEGIN",
        )?;
        {
            let mut query = conn.prepare(files)?;
            let mut rows = query.query([run.0])?;
            let mut insert = sorted.prepare("INSERT INTO file VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
            while let Some(row) = rows.next()? {
                insert.execute([row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?])?;
            }
        }
        Ok(Self(sorted))
    }

    /// Some more of it, from behind the given one on.
    pub fn page(&self, after: Option<&LoggedFile>, limit: usize) -> anyhow::Result<Vec<LoggedFile>> {
        let (path, action) = after.map_or(("", ""), |file| (&file.path, &file.action));
        let mut query = self.0.prepare_cached(
            "SELECT path, action FROM file WHERE (path, action) > (?1, ?2) ORDER BY path, action LIMIT ?3",
        )?;
        let file = |row: &Row<'_>| Ok(LoggedFile { path: row.get(0)?, action: row.get(1)? });
        let rows = query.query_map(params![path, action, limit as i64], file)?;
        rows.collect::<rusqlite::Result<_>>().context(SORTING)
    }
}

pub(super) const NEWEST_OF_STATUS: &str = "SELECT max(id) FROM run WHERE status = ?1";
pub(super) const UNFINISHED: &str = "FROM run r WHERE r.status = 'running' ORDER BY r.id DESC LIMIT 1";
pub(super) const OF_RUN: &str =
    "FROM reject j LEFT JOIN run r ON r.id = j.opened_run WHERE j.opened_run = ?1 OR j.last_run = ?1";
const SORTING: &str = "sort the files of the run in a temporary file";
/// Both begin with what the ledger says.
pub(super) const FILES: &str =
    "SELECT f.path || '/' || e.name || '.json', CASE e.adopted WHEN 1 THEN 'adopted' ELSE 'written' END
    FROM entry e JOIN folder f ON f.n = e.folder WHERE e.run = ?1 UNION ALL
    SELECT f.path || '/' || p.name || '.json', p.action
    FROM file_past p JOIN folder f ON f.n = p.folder WHERE p.run = ?1";
pub(super) const FILES_THAT_STAYED: &str = "SELECT f.path || '/' || e.name || '.json', ''
    FROM entry e JOIN folder f ON f.n = e.folder WHERE e.run = ?1 UNION ALL
    SELECT f.path || '/' || p.name || '.json', '' FROM file_past p JOIN folder f ON f.n = p.folder
    WHERE p.run = ?1 AND p.action <> 'removed'
        AND EXISTS (SELECT 1 FROM entry e WHERE e.folder = p.folder AND e.name = p.name)";

pub(super) const RUN_WIDTH: usize = 24;
pub(super) const CHANGE_WIDTH: usize = 14;

pub(super) fn past_run(row: &Row<'_>) -> rusqlite::Result<PastRun> {
    Ok(PastRun {
        id: RunId(row.get(0)?),
        kind: row.get(1)?,
        status: row.get(2)?,
        started: row.get(3)?,
        finished: row.get(4)?,
        since: row.get::<_, Option<String>>(5)?.map(SourceTime),
        boundary: SourceTime(row.get(6)?),
        user: row.get(7)?,
        host: row.get(8)?,
        pid: row.get(9)?,
        command_line: row.get(10)?,
        version: row.get(11)?,
        tenants: count(row, 12)?,
        retries: count(row, 13)?,
        error: row.get(14)?,
        counts: counts(row, 15)?,
    })
}

pub(super) fn past_change(row: &Row<'_>) -> rusqlite::Result<PastChange> {
    Ok(PastChange {
        number: row.get(0)?,
        kind: row.get(1)?,
        at: row.get(2)?,
        last_run: row.get(3)?,
        user: row.get(4)?,
        host: row.get(5)?,
        command_line: row.get(6)?,
        reason: row.get(7)?,
        file: row.get(8)?,
        sha256: row.get(9)?,
        lines: row.get(10)?,
        old: row.get(11)?,
        new: row.get(12)?,
        watermarks: count(row, 13)?,
    })
}

pub(super) fn past_reject(row: &Row<'_>) -> rusqlite::Result<PastReject> {
    Ok(PastReject {
        id: InvoiceId(row.get(0)?),
        tenant: row.get::<_, Option<String>>(1)?.map(Tenant),
        number: row.get(2)?,
        time: row.get::<_, Option<String>>(3)?.map(SourceTime),
        reason: row.get(4)?,
        detail: row.get(5)?,
        opened_run: row.get(6)?,
        opened: row.get(7)?,
        last_run: row.get(8)?,
        closed_run: row.get(9)?,
        closed_how: row.get(10)?,
    })
}

fn rejects_of(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<PastReject>> {
    let sql = format!("SELECT {REJECT} {OF_RUN} ORDER BY j.opened_run, j.id LIMIT ?2");
    conn.prepare(&sql)?.query_map([run.0, REJECTS_SHOWN], past_reject)?.collect()
}

fn tenants_of(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<OfTenant>> {
    let mut query = conn.prepare(
        "SELECT n.name, t.old_watermark, t.new_watermark, t.error, t.seen, t.written, t.unchanged, t.rejected, t.gone,
                t.late, t.late_by, t.removed, t.bytes
         FROM run_tenant t JOIN tenant n ON n.n = t.tenant WHERE t.run = ?1 ORDER BY n.name",
    )?;
    let rows = query.query_map([run.0], |row| {
        let MovedWatermark { tenant, old, new } = moved(row, 0)?;
        let counts = counts(row, 4)?;
        Ok(OfTenant { tenant, old_watermark: old, new_watermark: new, counts, error: row.get(3)? })
    })?;
    rows.collect()
}

fn watermarks_of_run(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<MovedWatermark>> {
    let mut query = conn.prepare(PULLED_BACK)?;
    query.query_map([run.0], |row| moved(row, 0))?.collect()
}

pub(super) const PULLED_BACK: &str = "SELECT t.name, m.old, m.new
    FROM state_change c CROSS JOIN watermark_change m ON m.change = c.n JOIN tenant t ON t.n = m.tenant
    WHERE c.kind = 'pull-back' AND c.last_run = ?1 ORDER BY t.name";

/// Name, old and new watermark from this column on.
fn moved(row: &Row<'_>, at: usize) -> rusqlite::Result<MovedWatermark> {
    own_watermark(row, at + 1, Tenant(row.get(at)?))
}

pub(super) fn own_watermark(row: &Row<'_>, at: usize, tenant: Tenant) -> rusqlite::Result<MovedWatermark> {
    let time = |at| Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(at)?.map(SourceTime));
    Ok(MovedWatermark { tenant, old: time(at)?, new: time(at + 1)? })
}

fn counts(row: &Row<'_>, at: usize) -> rusqlite::Result<Counts> {
    let count = |n| count(row, at + n);
    Ok(Counts {
        seen: count(0)?,
        written: count(1)?,
        unchanged: count(2)?,
        rejected: count(3)?,
        gone: count(4)?,
        late: count(5)?,
        late_by: count(6)?,
        removed: count(7)?,
        bytes: count(8)?,
    })
}

fn count(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(i64::cast_unsigned)
}
