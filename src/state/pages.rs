//! The history as a list: runs and changes merged, newest first, as far as a filter lets them through.
//!
//! Every filter is answered by an index, and the list comes in pages: it may be as long as it likes.

use std::cmp::Reverse;

use clap::builder::PossibleValue;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::State;
use super::changes::{ChangeKind, MovedWatermark};
use super::history::{CHANGE, PastChange, PastRun, RUN, RunStatus, own_watermark};
use super::stored::TenantNo;
use crate::invoice::Tenant;
use crate::lang::{Text, Word};
use crate::run::{CountName, Counts, Kind};

/// What kind of entry is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfKind {
    Run(Kind),
    Change(ChangeKind),
}

impl OfKind {
    /// Every kind that can be asked for.
    pub fn all() -> impl Iterator<Item = Self> {
        let changes = ChangeKind::WORDS.iter().map(|(kind, ..)| Self::Change(*kind));
        Kind::WORDS.iter().map(|(kind, ..)| Self::Run(*kind)).chain(changes)
    }

    /// The kind as the command line takes it.
    pub fn possible_value(self) -> Option<PossibleValue> {
        match self {
            Self::Run(kind) => kind.possible_value(),
            Self::Change(kind) => kind.possible_value(),
        }
    }
}

impl From<OfKind> for Text {
    fn from(kind: OfKind) -> Self {
        match kind {
            OfKind::Run(kind) => kind.into(),
            OfKind::Change(kind) => kind.into(),
        }
    }
}

/// Which entries are asked for. Moments are RFC 3339 in whole seconds of UTC and count as inside.
#[derive(Clone, Debug, Default)]
pub struct HistoryFilter {
    pub tenant: Option<Tenant>,
    pub kind: Option<OfKind>,
    /// Changes have none, so with a status there are only runs.
    pub status: Option<RunStatus>,
    pub since: Option<String>,
    pub until: Option<String>,
}

/// A run or a change.
#[derive(Clone, Debug)]
pub enum What {
    Run(PastRun),
    Change(PastChange),
}

/// One line of the history.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    pub what: What,
    /// Among the entries of one tenant: its watermark before and after. A run that did not move it has
    /// nothing after.
    pub watermark: Option<MovedWatermark>,
}

/// A run with what it did for one tenant in the place of its totals: of two columns with one name the first is read.
const RUN_FOR_TENANT: &str = "coalesce(t.error, r.error) AS error,
    CASE WHEN t.error IS NULL THEN r.error_zh ELSE t.error_zh END AS error_zh, 1 AS tenants, t.*, r.*";
/// Of verifications by number: those that covered the tenant ?1, and those that mended something of it.
const CONCERNS_TENANT: &str = "(t.run IS NOT NULL OR CASE v.all_tenants WHEN 1 THEN v.last_tenant >= ?1
    ELSE EXISTS (SELECT 1 FROM verification_tenant x WHERE x.run = v.run AND x.tenant = ?1) END)";

/// The entries that a filter lets through, page by page.
pub struct Pages<'a> {
    state: &'a State,
    filter: HistoryFilter,
    tenant: Option<(TenantNo, Tenant)>,
    runs: Between,
    changes: Between,
}

/// Numbers that may still come, both ends left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between {
    above: i64,
    below: i64,
}

impl Between {
    pub(super) const EVERYTHING: Self = Self { above: i64::MIN, below: i64::MAX };
    const NOTHING: Self = Self { above: 0, below: 0 };

    fn of(least: Option<i64>, greatest: Option<i64>) -> Self {
        match (least, greatest) {
            (Some(least), Some(greatest)) => Self { above: least - 1, below: greatest + 1 },
            _ => Self::NOTHING,
        }
    }
}

impl State {
    /// None where the filter names a tenant that the state does not know.
    pub fn history(&self, filter: HistoryFilter) -> anyhow::Result<Option<Pages<'_>>> {
        let tenant = match &filter.tenant {
            None => None,
            Some(tenant) => match self.read(|conn| number(conn, tenant))? {
                Some(n) => Some((n, tenant.clone())),
                None => return Ok(None),
            },
        };
        let of_runs = matches!(filter.kind, None | Some(OfKind::Run(_)));
        let of_changes = matches!(filter.kind, None | Some(OfKind::Change(_))) && filter.status.is_none();
        let bounds = |of: Dated| self.read(|conn| between(conn, of, &filter));
        let runs = if of_runs { bounds(Dated::Runs)? } else { Between::NOTHING };
        let changes = if of_changes { bounds(Dated::Changes)? } else { Between::NOTHING };
        Ok(Some(Pages { state: self, filter, tenant, runs, changes }))
    }
}

impl Pages<'_> {
    /// The next entries, newest first; none where there are no more.
    pub fn next(&mut self, at_most: usize) -> anyhow::Result<Vec<HistoryEntry>> {
        let mut runs = self.page(runs, self.runs, at_most)?;
        if let Some((tenant, _)) = &self.tenant {
            let verifications =
                |filter: &HistoryFilter, _, remaining, at_most| verifications(filter, *tenant, remaining, at_most);
            runs.extend(self.page(verifications, self.runs, at_most)?);
            runs.sort_by_key(|entry| Reverse(key(entry)));
        }
        let changes = self.page(changes, self.changes, at_most)?;
        let mut page = Vec::new();
        let (mut runs, mut changes) = (runs.into_iter().peekable(), changes.into_iter().peekable());
        while page.len() < at_most {
            // What changed after a run stands above it.
            let change_first = match (runs.peek().map(key), changes.peek().map(key)) {
                (None, None) => break,
                (run, change) => change >= run,
            };
            let Some(entry) = (if change_first { changes.next() } else { runs.next() }) else { break };
            match &entry.what {
                What::Run(run) => self.runs.below = run.id.0,
                What::Change(change) => self.changes.below = change.number,
            }
            page.push(entry);
        }
        Ok(page)
    }

    fn page(
        &self,
        ask: impl Fn(&HistoryFilter, Option<TenantNo>, Between, usize) -> Query,
        remaining: Between,
        at_most: usize,
    ) -> anyhow::Result<Vec<HistoryEntry>> {
        if remaining.below <= remaining.above.saturating_add(1) {
            return Ok(Vec::new());
        }
        let tenant = self.tenant.as_ref().map(|(n, _)| *n);
        let query = ask(&self.filter, tenant, remaining, at_most);
        self.state.read(|conn| {
            let mut statement = conn.prepare(&query.sql)?;
            let rows = statement.query_map(params_from_iter(&query.values), |row| {
                let what = match query.of {
                    Dated::Runs => What::Run(PastRun::from_row(row)?.with_verification(conn, tenant)?),
                    Dated::Changes => What::Change(PastChange::from_row(row)?),
                };
                let tenant = self.tenant.as_ref().map(|(_, tenant)| tenant.clone());
                let watermark = tenant.map(|tenant| own_watermark(row, tenant)).transpose()?;
                Ok(HistoryEntry { what, watermark })
            })?;
            rows.collect()
        })
    }
}

/// The run after which an entry stands in the list.
fn key(entry: &HistoryEntry) -> i64 {
    match &entry.what {
        What::Run(run) => run.id.0,
        What::Change(change) => change.last_run,
    }
}

/// What carries a moment of our own clock, by which it is filtered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dated {
    Runs,
    Changes,
}

/// Between which numbers everything lies that is of the wanted time. Numbers and times need not rise
/// together, since clocks are set; so this only narrows down, and the times are compared again.
fn between(conn: &Connection, of: Dated, filter: &HistoryFilter) -> rusqlite::Result<Between> {
    let [least, greatest] = bounds(of);
    let bound = |sql, moment: &Option<String>| match moment {
        None => Ok(None),
        Some(moment) => conn.query_row(sql, [moment], |row| row.get::<_, Option<i64>>(0)).map(Some),
    };
    let everything = Between::EVERYTHING;
    let above = bound(least, &filter.since)?.map_or(Some(everything.above + 1), |least| least);
    let below = bound(greatest, &filter.until)?.map_or(Some(everything.below - 1), |greatest| greatest);
    Ok(Between::of(above, below))
}

/// A plus sign keeps SQLite from walking the numbers instead of the times.
pub(super) fn bounds(of: Dated) -> [&'static str; 2] {
    match of {
        Dated::Runs => ["SELECT min(+id) FROM run WHERE started >= ?1", "SELECT max(+id) FROM run WHERE started <= ?1"],
        Dated::Changes => {
            ["SELECT min(+n) FROM state_change WHERE at >= ?1", "SELECT max(+n) FROM state_change WHERE at <= ?1"]
        }
    }
}

/// A statement with its values.
pub(super) struct Query {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
    of: Dated,
}

impl Query {
    /// Adds a condition on one value.
    fn and(&mut self, condition: &str, value: impl Into<Value>) {
        self.sql.push_str(if self.values.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(condition);
        self.values.push(value.into());
        self.sql.push_str(&format!(" ?{}", self.values.len()));
    }

    /// Leaves out the numbers that came already.
    fn and_between(&mut self, number: &str, remaining: Between) {
        self.and(&format!("{number} >"), remaining.above);
        self.and(&format!("{number} <"), remaining.below);
    }

    /// Leaves out what is of another time.
    fn and_moment(&mut self, moment: &str, filter: &HistoryFilter) {
        if let Some(since) = &filter.since {
            self.and(&format!("{moment} >="), since.clone());
        }
        if let Some(until) = &filter.until {
            self.and(&format!("{moment} <="), until.clone());
        }
    }

    /// Orders and limits the rows.
    fn newest_first(&mut self, number: &str, limit: usize) {
        self.values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        self.sql.push_str(&format!(" ORDER BY {number} DESC LIMIT ?{}", self.values.len()));
    }
}

/// Each time the most selective index has the numbers of the entries in their order; what else is asked
/// is compared row by row (the plus signs say so), until the page is full.
pub(super) fn runs(filter: &HistoryFilter, tenant: Option<TenantNo>, remaining: Between, limit: usize) -> Query {
    let mut query = Query { sql: String::new(), values: Vec::new(), of: Dated::Runs };
    let kind = match filter.kind {
        Some(OfKind::Run(kind)) => Some(kind.as_str().to_owned()),
        Some(OfKind::Change(_)) | None => None,
    };
    let status = filter.status.map(|status| status.as_str().to_owned());
    let number = match tenant {
        Some(n) => {
            query.sql = format!("SELECT {RUN_FOR_TENANT} FROM run_tenant t CROSS JOIN run r ON r.id = t.run");
            query.and("NOT EXISTS (SELECT 1 FROM verification v WHERE v.run = t.run) AND t.tenant =", n.0);
            "t.run"
        }
        None => {
            query.sql = format!("SELECT {RUN} FROM run r");
            "r.id"
        }
    };
    if let Some(status) = &status {
        query.and(if tenant.is_some() { "+r.status =" } else { "r.status =" }, status.clone());
    }
    if let Some(kind) = kind {
        query.and(if tenant.is_some() || status.is_some() { "+r.kind =" } else { "r.kind =" }, kind);
    }
    query.and_between(number, remaining);
    query.and_moment("+r.started", filter);
    query.newest_first(number, limit);
    query
}

/// As `runs`, for the verifications of one tenant.
pub(super) fn verifications(filter: &HistoryFilter, tenant: TenantNo, remaining: Between, limit: usize) -> Query {
    let counts =
        Counts::NAMES.map(|CountName { column, .. }| format!("coalesce(t.{column}, 0) AS {column}")).join(", ");
    let sql = format!(
        "SELECT coalesce(t.error, r.error) AS error, 1 AS tenants, t.old_watermark, t.new_watermark, {counts}, r.*
         FROM verification v CROSS JOIN run r ON r.id = v.run LEFT JOIN run_tenant t ON t.run = v.run AND t.tenant = ?1
         WHERE {CONCERNS_TENANT}"
    );
    let mut query = Query { sql, values: vec![tenant.0.into()], of: Dated::Runs };
    if let Some(status) = filter.status {
        query.and("+r.status =", status.as_str().to_owned());
    }
    if let Some(OfKind::Run(kind)) = filter.kind {
        query.and("+r.kind =", kind.as_str().to_owned());
    }
    query.and_between("v.run", remaining);
    query.and_moment("+r.started", filter);
    query.newest_first("v.run", limit);
    query
}

/// As `runs`, for changes.
pub(super) fn changes(filter: &HistoryFilter, tenant: Option<TenantNo>, remaining: Between, limit: usize) -> Query {
    let mut query = Query { sql: String::new(), values: Vec::new(), of: Dated::Changes };
    let number = match tenant {
        Some(n) => {
            query.sql = format!(
                "SELECT {CHANGE}, w.old AS old_watermark, w.new AS new_watermark
                 FROM watermark_change w CROSS JOIN state_change c ON c.n = w.change"
            );
            query.and("w.tenant =", n.0);
            "w.change"
        }
        None => {
            query.sql = format!("SELECT {CHANGE} FROM state_change c");
            "c.n"
        }
    };
    if let Some(OfKind::Change(kind)) = filter.kind {
        query.and(if tenant.is_some() { "+c.kind =" } else { "c.kind =" }, kind.as_str().to_owned());
    }
    query.and_between(number, remaining);
    query.and_moment("+c.at", filter);
    query.newest_first(number, limit);
    query
}

/// None for a tenant that the state does not know.
fn number(conn: &Connection, tenant: &Tenant) -> rusqlite::Result<Option<TenantNo>> {
    conn.query_row("SELECT n FROM tenant WHERE name = ?1", [tenant.as_str()], |row| row.get(0)).optional()
}
