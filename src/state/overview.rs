//! Reads how the tenants stand, for `status`: watermark, last run, and what could not be exported, all at one moment.

use std::collections::HashMap;

use rusqlite::{Connection, Row, params};

use super::State;
use super::history::{PastReject, REJECT, RunStatus};
use super::proofs::{VerifiedTenant, verified_tenants};
use super::stored::TenantNo;
use crate::invoice::{SourceTime, Tenant};
use crate::run::RunId;

/// What the state says of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantStanding {
    pub tenant: Tenant,
    /// The same number for all spellings that the source's collation calls equal.
    pub family: i64,
    pub watermark: Option<SourceTime>,
    pub last: Option<LastRun>,
    pub rejects: OpenRejects,
    /// Seconds that the latest of its late arrivals lay below the watermark, as far as was asked for.
    pub late_by: Option<u64>,
    /// What verifications say of it.
    pub verified: VerifiedTenant,
}

/// The last incremental run that dealt with a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRun {
    pub id: RunId,
    /// `Success` or `Failed`.
    pub outcome: RunStatus,
    pub started: String,
    /// None while it is at work.
    pub finished: Option<String>,
    pub written: u64,
}

/// The open rejects of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenRejects {
    pub number: u64,
    /// When the run started that opened the oldest one.
    pub oldest: Option<String>,
}

/// Everything that is known without the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    pub tenants: Vec<TenantStanding>,
    /// Those of rows that could not be read, so that their tenant is unknown.
    pub rejects_without_tenant: OpenRejects,
}

const STANDINGS: &str =
    "SELECT t.*, r.started, r.finished FROM tenant t LEFT JOIN run r ON r.id = t.last_run ORDER BY t.name";
const OPEN: &str = "SELECT j.tenant, j.number, r.started FROM
    (SELECT tenant, count(*) AS number, min(opened_run) AS oldest FROM reject WHERE closed_run IS NULL GROUP BY tenant) j
    LEFT JOIN run r ON r.id = j.oldest";
/// Runs of earlier versions called late what had only not been read yet; they have not counted what is new.
const LATE: &str = "SELECT tenant, max(late_by) AS late_by FROM run_tenant WHERE late > 0 AND new IS NOT NULL
    AND run >= (SELECT min(id) FROM run WHERE started >= ?1) GROUP BY tenant";
pub(super) const OPEN_FROM: &str = "FROM reject j LEFT JOIN run r ON r.id = j.opened_run
    WHERE j.closed_run IS NULL AND (j.opened_run, j.id) > (?1, ?2) ORDER BY j.opened_run, j.id LIMIT ?3";

impl State {
    /// How every tenant stands. Late arrivals count from `late_since` on (RFC 3339).
    pub fn overview(&self, late_since: &str) -> anyhow::Result<Overview> {
        self.read(|conn| {
            // A run at work goes on between two statements.
            let moment = conn.unchecked_transaction()?;
            let (mut rejects, late) = (open_rejects(&moment)?, lateness(&moment, late_since)?);
            let mut verified = verified_tenants(&moment)?;
            let mut query = moment.prepare(STANDINGS)?;
            let rows = query.query_map([], |row| {
                Ok(TenantStanding {
                    tenant: row.get("name")?,
                    family: row.get("family")?,
                    watermark: row.get("watermark")?,
                    last: last_run(row)?,
                    rejects: OpenRejects::default(),
                    late_by: late.get(&row.get("n")?).copied(),
                    verified: verified.remove(&row.get("n")?).unwrap_or_default(),
                })
            })?;
            let mut tenants = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            for standing in &mut tenants {
                standing.rejects = rejects.remove(&Some(standing.tenant.clone())).unwrap_or_default();
            }
            Ok(Overview { tenants, rejects_without_tenant: rejects.remove(&None).unwrap_or_default() })
        })
    }

    /// Open rejects, oldest first, from behind the given one on.
    pub fn open_rejects_from(&self, after: Option<&PastReject>, limit: usize) -> anyhow::Result<Vec<PastReject>> {
        let (run, id) = after.map_or((0, ""), |reject| (reject.opened_run, reject.id.as_str()));
        let sql = format!("SELECT {REJECT} {OPEN_FROM}");
        self.read(|conn| conn.prepare(&sql)?.query_map(params![run, id, limit as i64], PastReject::from_row)?.collect())
    }
}

/// None of a tenant with which no incremental run of this state has dealt.
fn last_run(row: &Row<'_>) -> rusqlite::Result<Option<LastRun>> {
    let (Some(id), Some(outcome), Some(started)) =
        (row.get("last_run")?, row.get("last_outcome")?, row.get("started")?)
    else {
        return Ok(None);
    };
    let (finished, written) = (row.get("finished")?, row.get("last_written")?);
    Ok(Some(LastRun { id: RunId(id), outcome, started, finished, written }))
}

/// Seconds that the latest late arrival of each tenant lay below its watermark.
fn lateness(conn: &Connection, since: &str) -> rusqlite::Result<HashMap<TenantNo, u64>> {
    let mut query = conn.prepare(LATE)?;
    query.query_map([since], |row| Ok((row.get("tenant")?, row.get("late_by")?)))?.collect()
}

/// The open rejects of each tenant.
fn open_rejects(conn: &Connection) -> rusqlite::Result<HashMap<Option<Tenant>, OpenRejects>> {
    let mut query = conn.prepare(OPEN)?;
    let rows = query.query_map([], |row| {
        Ok((row.get("tenant")?, OpenRejects { number: row.get("number")?, oldest: row.get("started")? }))
    })?;
    rows.collect()
}
