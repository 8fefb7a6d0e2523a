//! The history of runs. A run is opened once, brought forward by its batches and finished once;
//! triggers in the schema refuse any change after that.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::changes::Change;
use super::conditions::{self, ConditionChanges};
use super::history::RunStatus;
use super::{State, changes, source_table, tenants, watermarks};
use crate::event::Doubt;
use crate::invoice::{SourceTime, Tenant};
use crate::lang::{Lang, Text};
use crate::refusal::Refusal;
use crate::run::{CountName, Counts, Kind, RunId, Starter, Uptime, rfc3339};
use crate::source::TableIdentity;
use crate::tree::mark::{Mark, Written};
use crate::window::Span;

/// The clocks at the start of a run. Milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The server's, since 1970.
    pub server_ms: i64,
    /// What the server's shows, its zone included, as if that were UTC.
    pub shown_ms: i64,
    /// Of the machine that runs this program, since 1970.
    pub own_ms: i64,
    /// The name of the machine that this runs on.
    pub host: String,
    /// None where it is not known.
    pub uptime: Option<Uptime>,
}

/// Whether the time that passed between runs is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockContinuity {
    /// Runs that began on another host, or after a restart, than the run before, since the keys were last
    /// compared without a lower bound. What the clocks did in between is not known.
    pub unproven: u64,
    /// When a run last began to compare all keys, RFC 3339.
    pub compared: Option<String>,
}

/// What was true when the state was last used, to be compared with now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastKnownState {
    pub state_id: String,
    pub source: Option<String>,
    pub server: Option<String>,
    /// What the clocks said then. None: no run has read them.
    pub clocks: Option<Clocks>,
    pub proof: ClockContinuity,
    /// The last run that changed the tree.
    pub published_run: i64,
    /// Whether it came to its end: then the tree's mark says so too.
    pub published_wholly: bool,
    /// The last run that began. Starts that failed and verifications, which change nothing, do not count.
    pub last_run: i64,
    pub last_run_is_open: bool,
}

impl LastKnownState {
    /// Refuses a tree that is not the one which this describes. `state` is the file that it was read from: a state
    /// or a backup.
    pub fn refuse_other_tree(&self, mark: Option<&Mark>, output: &Path, state: &Path) -> Result<(), Refusal> {
        let (output, state) = (output.to_path_buf(), state.to_path_buf());
        match mark {
            None => Err(Refusal::MarkMissing { output, state }),
            Some(mark) if mark.state_id != self.state_id => Err(Refusal::MarkForeign { output, state }),
            Some(mark) if self.is_ahead_of(mark) => {
                Err(Refusal::TreeRolledBack { output, tree_run: mark.run, state_run: self.published_run })
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether the tree lacks what was published when this was written.
    fn is_ahead_of(&self, mark: &Mark) -> bool {
        let in_part = mark.written == Written::InPart && self.published_wholly;
        mark.run < self.published_run || mark.run == self.published_run && in_part
    }

    /// Whether the tree has seen more than this: it comes from a backup.
    pub fn is_behind(&self, mark: &Mark) -> bool {
        let ended = mark.written == Written::Whole && self.last_run_is_open;
        mark.run > self.last_run || mark.run == self.last_run && ended
    }
}

/// What was true when this state, or the state of this backup, was last used.
pub(super) fn last_time(conn: &Connection) -> rusqlite::Result<LastKnownState> {
    conn.query_row(
        &format!(
            "SELECT state_id, source, server, published_run, coalesce(({LAST_BEGUN}), 0),
                EXISTS (SELECT 1 FROM run WHERE id = published_run AND status IN ('success', 'partial', 'cancelled')),
                EXISTS (SELECT 1 FROM run WHERE id = ({LAST_BEGUN}) AND status = 'running'),
                server_ms, shown_ms, own_ms, host, boot, uptime_ms, unproven_runs, compared FROM meta"
        ),
        [],
        |row| {
            Ok(LastKnownState {
                state_id: row.get(0)?,
                source: row.get(1)?,
                server: row.get(2)?,
                published_run: row.get(3)?,
                published_wholly: row.get(5)?,
                last_run: row.get(4)?,
                last_run_is_open: row.get(6)?,
                clocks: clocks(row)?,
                proof: ClockContinuity { unproven: row.get("unproven_runs")?, compared: row.get("compared")? },
            })
        },
    )
}

/// The last run that began, 0 where none has. A start that failed and a verification have no boundary.
pub(super) fn last_begun(conn: &Connection) -> rusqlite::Result<RunId> {
    Ok(conn.prepare_cached(LAST_BEGUN)?.query_row([], |row| row.get(0)).optional()?.unwrap_or(RunId(0)))
}

pub(super) const LAST_BEGUN: &str = "SELECT id FROM run WHERE boundary IS NOT NULL ORDER BY id DESC LIMIT 1";

fn clocks(row: &Row<'_>) -> rusqlite::Result<Option<Clocks>> {
    let (Some(server_ms), Some(shown_ms), Some(own_ms)) =
        (row.get("server_ms")?, row.get("shown_ms")?, row.get("own_ms")?)
    else {
        return Ok(None);
    };
    let uptime = row.get::<_, Option<String>>("boot")?.zip(row.get("uptime_ms")?);
    let host = row.get::<_, Option<String>>("host")?.unwrap_or_default();
    Ok(Some(Clocks { server_ms, shown_ms, own_ms, host, uptime: uptime.map(|(boot, ms)| Uptime { boot, ms }) }))
}

/// Everything that is known at the start of a run.
#[derive(Clone, Debug)]
pub struct Start {
    pub kind: Kind,
    pub starter: Starter,
    pub source: String,
    pub server: String,
    pub clocks: Clocks,
    pub boundary: SourceTime,
    /// The window that was asked for.
    pub window: Span,
    pub doubts: Vec<Doubt>,
    pub proof: ClockContinuity,
    /// Source times above this may come again if the clock went back; None: any may.
    pub times_again: Option<SourceTime>,
    /// The last number that a run got; new runs have greater ones, also after a restore.
    pub last_number: i64,
    /// The source's table, if it shows which one it is.
    pub table: Option<TableIdentity>,
    pub conditions: ConditionChanges,
    /// The verification that goes on as this run, to mend what it found.
    pub verification: Option<RunId>,
}

/// A run in progress. It ends in `State::finish`, which takes it.
#[derive(Debug)]
pub struct OpenRun {
    pub id: RunId,
    /// The number of the source's table; None: it cannot be told from others.
    pub table_no: Option<i64>,
}

/// The end of a run, with its final counts.
#[derive(Clone, Debug)]
pub struct End {
    pub status: RunStatus,
    /// RFC 3339, UTC.
    pub at: String,
    /// None: those that have something on record.
    pub tenants: Option<u64>,
    pub retries: u64,
    /// None leaves what the last batch recorded.
    pub counts: Option<Counts>,
    /// The tenants that failed, each with its error.
    pub failed: Vec<(Tenant, Text)>,
    /// The error that ended the run.
    pub error: Option<Text>,
}

impl State {
    /// What was true when the state was last used.
    pub fn last_time(&self) -> anyhow::Result<LastKnownState> {
        self.read(last_time)
    }

    /// The name of the source that the state belongs to, also in a state of an older version; None: no run has begun.
    pub fn source(&self) -> anyhow::Result<Option<String>> {
        self.read(|conn| conn.query_row("SELECT source FROM meta", [], |row| row.get(0)))
    }

    /// When a run ended; None while it has not, or if it is not known.
    pub fn end_of(&self, run: RunId) -> anyhow::Result<Option<String>> {
        self.read(|conn| conn.query_row("SELECT finished FROM run WHERE id = ?1", [run.0], |row| row.get(0)).optional())
            .map(Option::flatten)
    }

    /// Up to where runs have read, for tenants without a watermark. Runs limited to other tenants are not told apart.
    pub fn newest_boundary(&self) -> anyhow::Result<Option<SourceTime>> {
        self.read(|conn| {
            conn.query_row(
                "SELECT max(boundary) FROM run WHERE status IN ('success', 'partial') AND kind IN ('full', 'incremental')",
                [],
                |row| row.get(0),
            )
        })
    }

    /// How many invoices the last full run read, to show how far the next one has come.
    pub fn last_full_count(&self) -> anyhow::Result<Option<u64>> {
        self.read(|conn| {
            conn.query_row(
                "SELECT seen FROM run WHERE status IN ('success', 'partial') AND kind = 'full' ORDER BY id DESC LIMIT 1",
                [],
                |row| row.get::<_, i64>(0),
            )
            .optional()
        })
        .map(|seen| seen.map(i64::cast_unsigned))
    }

    /// Opens a run. Runs still called running are dead, since this process holds the lock. Doubt is made lasting
    /// here: it empties every look-back, so a run that dies does not forget it.
    pub fn begin(&mut self, start: &Start) -> anyhow::Result<OpenRun> {
        self.transaction(|tx| {
            let at = rfc3339(start.starter.at);
            tx.execute(
                "UPDATE run SET status = 'interrupted', finished = ?1,
                     tenants = (SELECT count(*) FROM run_tenant t WHERE t.run = run.id) WHERE status = 'running' AND id IS NOT ?2",
                params![at, start.verification],
            )?;
            put_clocks(tx, start)?;
            conditions::record(tx, &start.conditions, &at)?;
            watermarks::record_doubts(tx, &start.doubts, start.times_again.as_ref())?;
            let id = match start.verification {
                None => insert(tx, &NewRun::of(start))?,
                Some(id) => {
                    tx.execute("UPDATE run SET boundary = ?2 WHERE id = ?1", params![id, start.boundary])?;
                    id
                }
            };
            let table = start.table.as_ref().map(|table| source_table::get_or_insert(tx, id, table)).transpose()?;
            if table.is_some() {
                tx.execute("UPDATE run SET source_table = ?2 WHERE id = ?1", params![id, table])?;
            }
            Ok(OpenRun { id, table_no: table })
        })
    }

    /// Lets the state belong to another source. All keys are compared by the next run, whichever server answers.
    pub fn adopt_source(&mut self, name: &str, change: &Change<'_>) -> anyhow::Result<()> {
        self.transaction(|tx| {
            let old = tx.query_row("SELECT source FROM meta", [], |row| row.get(0))?;
            changes::note(tx, &Change { old, new: Some(name.to_owned()), ..change.clone() })?;
            tx.execute("UPDATE meta SET source = ?1", [name])?;
            conditions::forget(tx)?;
            watermarks::forget_look_backs(tx)
        })
    }

    /// Ends a run for good.
    pub fn finish(&mut self, run: OpenRun, end: &End) -> anyhow::Result<()> {
        self.transaction(|tx| {
            for (tenant, error) in &end.failed {
                tenants::record_failure(tx, run.id, tenant)?;
                put_tenant(tx, run.id, tenant, &Counts::default())?;
                tx.execute(
                    "UPDATE run_tenant SET error = ?3, error_zh = ?4 WHERE run = ?1 AND tenant = ?2",
                    params![
                        run.id,
                        tenants::get_or_insert(tx, tenant)?,
                        error.in_lang(Lang::En),
                        error.in_lang(Lang::Zh)
                    ],
                )?;
            }
            if let Some(counts) = &end.counts {
                put_counts(tx, run.id, counts)?;
            }
            let [error, error_zh] = [Lang::En, Lang::Zh].map(|lang| end.error.as_ref().map(|text| text.in_lang(lang)));
            tx.execute(
                "UPDATE run SET status = ?2, finished = ?3, tenants = coalesce(?4, (SELECT count(*) FROM run_tenant t WHERE t.run = run.id)), retries = ?5, error = ?6, error_zh = ?7
                 WHERE id = ?1",
                params![run.id, end.status, end.at, end.tenants, end.retries, error, error_zh],
            )?;
            Ok(())
        })
    }
}

fn put_clocks(tx: &Connection, start: &Start) -> rusqlite::Result<()> {
    let Start { source, server, clocks, proof, .. } = start;
    let (boot, uptime_ms) = clocks.uptime.as_ref().map(|uptime| (&uptime.boot, uptime.ms)).unzip();
    tx.execute(
        "UPDATE meta SET source = ?1, server = ?2, server_ms = ?3, shown_ms = ?4, own_ms = ?5, host = ?6, boot = ?7,
                uptime_ms = ?8, unproven_runs = ?9, compared = ?10",
        params![
            source,
            server,
            clocks.server_ms,
            clocks.shown_ms,
            clocks.own_ms,
            clocks.host,
            boot,
            uptime_ms,
            proof.unproven,
            proof.compared
        ],
    )?;
    Ok(())
}

/// A run that is not on record yet.
pub(super) struct NewRun<'a> {
    pub kind: Kind,
    pub starter: &'a Starter,
    /// The window of source times that was asked for, as far as it is known.
    pub window: &'a Span,
    pub boundary: Option<&'a SourceTime>,
    /// The last number that a run got.
    pub last_number: i64,
}

impl<'a> NewRun<'a> {
    fn of(start: &'a Start) -> Self {
        let Start { kind, starter, window, boundary, last_number, .. } = start;
        Self { kind: *kind, starter, window, boundary: Some(boundary), last_number: *last_number }
    }
}

/// Enters a run that is at work. Its number is greater than that of every run that the state or the tree knows.
pub(super) fn insert(tx: &Connection, new: &NewRun<'_>) -> rusqlite::Result<RunId> {
    let NewRun { kind, starter, window, boundary, last_number } = new;
    tx.query_row(
        "INSERT INTO run (id, kind, status, started, since, until, boundary, user, uid, sudo_user, host, pid, command_line, version)
         VALUES (1 + max(?1, (SELECT coalesce(max(id), 0) FROM run), (SELECT coalesce(max(last_run), 0) FROM state_change)),
             ?2, 'running', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         RETURNING id",
        params![
            last_number,
            kind,
            rfc3339(starter.at),
            window.after,
            window.upto,
            boundary,
            starter.account.name,
            starter.account.uid,
            starter.account.sudo_user,
            starter.host,
            starter.pid,
            starter.command_line,
            env!("CARGO_PKG_VERSION"),
        ],
        |row| row.get(0),
    )
}

/// A term for each of the counts, made of its column and the number of its parameter, with commas between them.
fn counts_sql(first: usize, term: impl Fn(&CountName, usize) -> String) -> String {
    let terms: Vec<String> = Counts::NAMES.iter().zip(first..).map(|(name, n)| term(name, n)).collect();
    terms.join(", ")
}

/// Brings the totals of a running run forward.
pub(super) fn put_counts(conn: &Connection, run: RunId, counts: &Counts) -> rusqlite::Result<()> {
    let set = counts_sql(2, |CountName { column, .. }, n| format!("{column} = ?{n}"));
    let values = [run.0].into_iter().chain(counts.values().map(u64::cast_signed));
    conn.prepare_cached(&format!("UPDATE run SET {set} WHERE id = ?1"))?.execute(params_from_iter(values))?;
    Ok(())
}

/// Takes back what was counted for a tenant in earlier records of the run. How late the latest arrival was stays.
pub(super) fn take_back(conn: &Connection, run: RunId, tenant: &Tenant, counted: &Counts) -> rusqlite::Result<()> {
    let set = counts_sql(3, |CountName { column, .. }, n| format!("{column} = {column} - ?{n}"));
    let counted = Counts { late_by: 0, ..*counted };
    let values =
        [run.0, tenants::get_or_insert(conn, tenant)?.0].into_iter().chain(counted.values().map(u64::cast_signed));
    conn.prepare_cached(&format!("UPDATE run_tenant SET {set} WHERE run = ?1 AND tenant = ?2"))?
        .execute(params_from_iter(values))?;
    Ok(())
}

/// Adds to what a run did for one tenant. Called before the watermark moves: the row keeps the old one.
pub(super) fn put_tenant(conn: &Connection, run: RunId, tenant: &Tenant, added: &Counts) -> rusqlite::Result<()> {
    let columns = counts_sql(3, |name, _| name.column.to_owned());
    let values = counts_sql(3, |_, n| format!("?{n}"));
    let set = counts_sql(3, |name, _| match (name.is_maximum(), name.column) {
        (true, column) => format!("{column} = max({column}, excluded.{column})"),
        (false, column) => format!("{column} = {column} + excluded.{column}"),
    });
    let sql = format!(
        "INSERT INTO run_tenant (run, tenant, old_watermark, {columns})
         VALUES (?1, ?2, (SELECT watermark FROM tenant WHERE n = ?2), {values}) ON CONFLICT (run, tenant) DO UPDATE SET {set}"
    );
    let values =
        [run.0, tenants::get_or_insert(conn, tenant)?.0].into_iter().chain(added.values().map(u64::cast_signed));
    conn.prepare_cached(&sql)?.execute(params_from_iter(values))?;
    Ok(())
}
