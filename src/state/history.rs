//! Reading the history: one run or change in full, and the files of a run. `pages.rs` reads all of it,
//! newest first.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::State;
use super::changes::{ChangeKind, MovedWatermark};
use super::connect::temporary;
use super::stored::{TenantNo, account, counts, text};
use super::todo::{self, Closing, LEFT_BY_RUN, Leftover};
use super::verifications::{self, PastFinding, PastPending, PastVerification};
use crate::invoice::{InvoiceId, ReasonCode, SourceTime, Tenant};
use crate::lang::{Explain, Text};
use crate::run::{Account, Kind, Outcome, PastCounts, RunId};
use crate::window::Span;

words! {
    /// How a run ended, or that it has not.
    pub enum RunStatus {
        Running = "running", "运行中";
        Success = "success", "成功";
        Partial = "partial", "部分成功";
        Failed = "failed", "失败";
        /// Stopped by a signal at a clean checkpoint.
        Cancelled = "cancelled", "已取消";
        /// It died; a later run noticed.
        Interrupted = "interrupted", "意外终止";
    }
}

impl From<Outcome> for RunStatus {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::Success,
            Outcome::Partial => Self::Partial,
        }
    }
}

words! {
    /// What a run did to a file.
    pub enum FileAction {
        Written = "written", "写入";
        /// It was right already and was taken over.
        Adopted = "adopted", "接管";
        Removed = "removed", "删除";
    }
}

stored_words!(RunStatus FileAction);

/// A run as it is on record. Among the entries of one tenant its counts and its error are the tenant's.
#[derive(Clone, Debug)]
pub struct PastRun {
    pub id: RunId,
    pub kind: Kind,
    pub status: RunStatus,
    pub started: String,
    /// Of an interrupted run: when that was noticed.
    pub finished: Option<String>,
    /// The window that was asked for, as far as it is known.
    pub window: Span,
    /// None: the start failed before there was one, or the run is a verification.
    pub boundary: Option<SourceTime>,
    pub account: Account,
    pub host: String,
    pub pid: i64,
    pub command_line: String,
    pub version: String,
    pub tenants: u64,
    pub counts: PastCounts,
    pub retries: u64,
    pub error: Option<Text>,
    /// Of a verification that compared to the end.
    pub verification: Option<Box<PastVerification>>,
}

/// A change as it is on record.
#[derive(Clone, Debug)]
pub struct PastChange {
    pub number: i64,
    pub kind: ChangeKind,
    pub at: String,
    /// It came after this run; a pull-back belongs to it.
    pub last_run: i64,
    pub account: Account,
    pub host: String,
    pub command_line: Option<String>,
    pub reason: Option<String>,
    pub file: Option<String>,
    pub sha256: Option<String>,
    pub lines: Option<i64>,
    pub old: Option<String>,
    pub new: Option<String>,
    /// How many watermarks it moved; None: not known.
    pub watermarks: Option<u64>,
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
    /// Of a verification: the invoices that were pending then, and what it found.
    pub pending: Vec<PastPending>,
    pub findings: Vec<PastFinding>,
}

/// What a run did for one tenant.
#[derive(Clone, Debug)]
pub struct OfTenant {
    /// It has no new value where the run did not move it.
    pub watermark: MovedWatermark,
    pub counts: PastCounts,
    pub error: Option<Text>,
}

/// An invoice that could not be exported.
#[derive(Clone, Debug)]
pub struct PastReject {
    pub id: InvoiceId,
    pub tenant: Option<Tenant>,
    pub number: Option<String>,
    pub time: Option<SourceTime>,
    pub reason: ReasonCode,
    pub detail: Text,
    pub opened_run: i64,
    /// When that run started.
    pub opened: Option<String>,
    /// The last run that refused it.
    pub last_run: i64,
    pub closed_run: Option<i64>,
    pub closed_how: Option<Closing>,
}

/// A path and what a run did there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedFile {
    pub path: String,
    pub action: FileAction,
}

/// Rejects that are shown with their run.
const REJECTS_SHOWN: i64 = 1_000;

pub(super) const RUN: &str = "r.*";
pub(super) const CHANGE: &str = "c.*, CASE WHEN c.kind <> 'restore' OR c.watermarks_known = 1
    THEN (SELECT count(*) FROM watermark_change m WHERE m.change = c.n) END AS watermarks";
pub(super) const REJECT: &str = "j.*, r.started AS opened";

impl State {
    /// The greatest number there is.
    pub fn newest_run(&self) -> anyhow::Result<Option<RunId>> {
        self.read(|conn| {
            conn.query_row("SELECT max(id) FROM run", [], |row| Ok(row.get::<_, Option<i64>>(0)?.map(RunId)))
        })
    }

    /// The last run that ended otherwise than well.
    pub fn newest_trouble(&self) -> anyhow::Result<Option<RunId>> {
        let newest = |conn: &Connection, status: RunStatus| {
            conn.query_row(NEWEST_OF_STATUS, [status.as_str()], |row| row.get::<_, Option<i64>>(0))
        };
        self.read(|conn| {
            let troubles = [RunStatus::Partial, RunStatus::Failed, RunStatus::Cancelled, RunStatus::Interrupted];
            let newest: rusqlite::Result<Vec<_>> = troubles.into_iter().map(|status| newest(conn, status)).collect();
            Ok(newest?.into_iter().flatten().max().map(RunId))
        })
    }

    /// The run that has no end yet, whether it is at work or died. One that may have changed the tree comes before a
    /// verification, which has changed nothing.
    pub fn unfinished_run(&self) -> anyhow::Result<Option<PastRun>> {
        let sql = format!("SELECT {RUN} {UNFINISHED}");
        let unfinished: Vec<PastRun> =
            self.read(|conn| conn.prepare(&sql)?.query_map([], PastRun::from_row)?.collect())?;
        Ok(unfinished.iter().find(|run| run.boundary.is_some()).or(unfinished.first()).cloned())
    }

    /// A run with everything that belongs to it; None if there is no such run.
    pub fn run_in_full(&self, id: RunId) -> anyhow::Result<Option<RunInFull>> {
        self.read(|conn| {
            // A run at work goes on between two statements; this is one moment of it.
            let moment = conn.unchecked_transaction()?;
            let sql = format!("SELECT {RUN} FROM run r WHERE r.id = ?1");
            let Some(run) = moment.query_row(&sql, [id.0], PastRun::from_row).optional()? else { return Ok(None) };
            let run = run.with_verification(&moment, None)?;
            let rejects = rejects_of(&moment, id)?;
            let all: i64 = moment.query_row(&format!("SELECT count(*) {OF_RUN}"), [id.0], |row| row.get(0))?;
            Ok(Some(RunInFull {
                run,
                tenants: tenants_of(&moment, id)?,
                rejects_left_out: all.cast_unsigned().saturating_sub(rejects.len() as u64),
                rejects,
                pulled_back: watermarks_of_run(&moment, id)?,
                leftovers: todo::leftovers(&moment, LEFT_BY_RUN, id.0)?,
                pending: verifications::pending_of(&moment, id)?,
                findings: verifications::findings_of(&moment, id)?,
            }))
        })
    }

    /// A change and the watermarks that it moved.
    pub fn change_in_full(&self, number: i64) -> anyhow::Result<Option<(PastChange, Vec<MovedWatermark>)>> {
        self.read(|conn| {
            let sql = format!("SELECT {CHANGE} FROM state_change c WHERE c.n = ?1");
            let Some(change) = conn.query_row(&sql, [number], PastChange::from_row).optional()? else {
                return Ok(None);
            };
            let mut query = conn.prepare(
                "SELECT t.name, m.old AS old_watermark, m.new AS new_watermark
                 FROM watermark_change m JOIN tenant t ON t.n = m.tenant WHERE m.change = ?1 ORDER BY t.name",
            )?;
            let moved: rusqlite::Result<_> = query.query_map([number], moved)?.collect();
            Ok(Some((change, moved?)))
        })
    }

    /// The last change that is on record, with the watermarks that it moved.
    pub fn newest_change(&self) -> anyhow::Result<Option<(PastChange, Vec<MovedWatermark>)>> {
        let newest: Option<i64> =
            self.read(|conn| conn.query_row("SELECT max(n) FROM state_change", [], |row| row.get(0)))?;
        newest.map_or(Ok(None), |newest| self.change_in_full(newest))
    }

    /// What a run did to files.
    pub fn files(&self, run: RunId) -> anyhow::Result<Listing> {
        self.read(|conn| Listing::of(conn, FILES, run)).explain(sorting)
    }

    /// The files that a run wrote or took over and that still belong to an invoice, each once, as `Written`.
    pub fn files_that_stayed(&self, run: RunId) -> anyhow::Result<Listing> {
        self.read(|conn| Listing::of(conn, FILES_THAT_STAYED, run)).explain(sorting)
    }
}

/// Files in the order of their paths. The state has them in another one, and there may be as many as the tree
/// has: they are sorted in a temporary file of SQLite's, which goes with this.
pub struct Listing(Connection);

impl Listing {
    fn of(conn: &Connection, files: &str, run: RunId) -> rusqlite::Result<Self> {
        let sorted =
            temporary("CREATE TABLE file (path TEXT, action TEXT, PRIMARY KEY (path, action)) STRICT, WITHOUT ROWID")?;
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
        let (path, action) = after.map_or(("", ""), |file| (&file.path, file.action.as_str()));
        let mut query = self.0.prepare_cached(
            "SELECT path, action FROM file WHERE (path, action) > (?1, ?2) ORDER BY path, action LIMIT ?3",
        )?;
        let file = |row: &Row<'_>| Ok(LoggedFile { path: row.get("path")?, action: row.get("action")? });
        let rows = query.query_map(params![path, action, limit as i64], file)?;
        rows.collect::<rusqlite::Result<_>>().explain(sorting)
    }
}

pub(super) const NEWEST_OF_STATUS: &str = "SELECT max(id) FROM run WHERE status = ?1";
pub(super) const UNFINISHED: &str = "FROM run r WHERE r.status = 'running' ORDER BY r.id DESC";
pub(super) const OF_RUN: &str =
    "FROM reject j LEFT JOIN run r ON r.id = j.opened_run WHERE j.opened_run = ?1 OR j.last_run = ?1";
/// Both begin with what the ledger says.
pub(super) const FILES: &str =
    "SELECT f.path || '/' || e.name || '.json', CASE e.adopted WHEN 1 THEN 'adopted' ELSE 'written' END
    FROM entry e JOIN folder f ON f.n = e.folder WHERE e.run = ?1 UNION ALL
    SELECT f.path || '/' || p.name || '.json', p.action
    FROM file_past p JOIN folder f ON f.n = p.folder WHERE p.run = ?1";
pub(super) const FILES_THAT_STAYED: &str = "SELECT f.path || '/' || e.name || '.json', 'written'
    FROM entry e JOIN folder f ON f.n = e.folder WHERE e.run = ?1 UNION ALL
    SELECT f.path || '/' || p.name || '.json', 'written' FROM file_past p JOIN folder f ON f.n = p.folder
    WHERE p.run = ?1 AND p.action <> 'removed'
        AND EXISTS (SELECT 1 FROM entry e WHERE e.folder = p.folder AND e.name = p.name)";

fn sorting() -> Text {
    text!("sort the files of the run in a temporary file", "用临时文件对本次运行的文件排序")
}

impl PastRun {
    /// From a row with the columns of `RUN`.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            kind: row.get("kind")?,
            status: row.get("status")?,
            started: row.get("started")?,
            finished: row.get("finished")?,
            window: Span { after: row.get("since")?, upto: row.get("until")? },
            boundary: row.get("boundary")?,
            account: account(row)?,
            host: row.get("host")?,
            pid: row.get("pid")?,
            command_line: row.get("command_line")?,
            version: row.get("version")?,
            tenants: row.get("tenants")?,
            retries: row.get("retries")?,
            error: text(row, "error")?,
            counts: counts(row)?,
            verification: None,
        })
    }

    /// With what it compared, if it is a verification; with the figures of one tenant, if one is named.
    pub(super) fn with_verification(self, conn: &Connection, tenant: Option<TenantNo>) -> rusqlite::Result<Self> {
        let mut verification = if self.kind == Kind::Verify { verifications::of_run(conn, self.id)? } else { None };
        if let (Some(verification), Some(tenant)) = (&mut verification, tenant) {
            verification.narrow_to(conn, self.id, tenant)?;
        }
        Ok(Self { verification: verification.map(Box::new), ..self })
    }
}

impl PastChange {
    /// From a row with the columns of `CHANGE`.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get("n")?,
            kind: row.get("kind")?,
            at: row.get("at")?,
            last_run: row.get("last_run")?,
            account: account(row)?,
            host: row.get("host")?,
            command_line: row.get("command_line")?,
            reason: row.get("reason")?,
            file: row.get("file")?,
            sha256: row.get("sha256")?,
            lines: row.get("lines")?,
            old: row.get("old")?,
            new: row.get("new")?,
            watermarks: row.get("watermarks")?,
        })
    }
}

impl PastReject {
    /// From a row with the columns of `REJECT`.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            tenant: row.get("tenant")?,
            number: row.get("number")?,
            time: row.get("time")?,
            reason: row.get("reason")?,
            detail: text(row, "detail")?.unwrap_or_else(|| Text::same("")),
            opened_run: row.get("opened_run")?,
            opened: row.get("opened")?,
            last_run: row.get("last_run")?,
            closed_run: row.get("closed_run")?,
            closed_how: row.get("closed_how")?,
        })
    }
}

/// The rejects that a run opened, or was the last to refuse.
fn rejects_of(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<PastReject>> {
    let sql = format!("SELECT {REJECT} {OF_RUN} ORDER BY j.opened_run, j.id LIMIT ?2");
    conn.prepare(&sql)?.query_map([run.0, REJECTS_SHOWN], PastReject::from_row)?.collect()
}

/// What a run did for each tenant.
fn tenants_of(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<OfTenant>> {
    let mut query = conn.prepare(
        "SELECT t.*, n.name FROM run_tenant t JOIN tenant n ON n.n = t.tenant WHERE t.run = ?1 ORDER BY n.name",
    )?;
    let of_tenant =
        |row: &Row<'_>| Ok(OfTenant { watermark: moved(row)?, counts: counts(row)?, error: text(row, "error")? });
    query.query_map([run.0], of_tenant)?.collect()
}

/// The watermarks that a run pulled back.
fn watermarks_of_run(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<MovedWatermark>> {
    let mut query = conn.prepare(PULLED_BACK)?;
    query.query_map([run.0], moved)?.collect()
}

pub(super) const PULLED_BACK: &str = "SELECT t.name, m.old AS old_watermark, m.new AS new_watermark
    FROM state_change c CROSS JOIN watermark_change m ON m.change = c.n JOIN tenant t ON t.n = m.tenant
    WHERE c.kind = 'pull-back' AND c.last_run = ?1 ORDER BY t.name";

/// Of the tenant that the row names.
fn moved(row: &Row<'_>) -> rusqlite::Result<MovedWatermark> {
    own_watermark(row, row.get("name")?)
}

/// Of a known tenant.
pub(super) fn own_watermark(row: &Row<'_>, tenant: Tenant) -> rusqlite::Result<MovedWatermark> {
    Ok(MovedWatermark { tenant, old: row.get("old_watermark")?, new: row.get("new_watermark")? })
}
