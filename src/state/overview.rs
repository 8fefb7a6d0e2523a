//! How the tenants stand: watermark, last run, and what could not be exported, all of one moment.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::State;
use super::history::{PastReject, REJECT, past_reject};
use crate::invoice::{SourceTime, Tenant};
use crate::run::RunId;

/// What the state says of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub tenant: Tenant,
    /// The same number for all spellings that the source's collation calls equal.
    pub family: i64,
    pub watermark: Option<SourceTime>,
    pub last: Option<LastRun>,
    pub rejects: OpenRejects,
    /// Seconds that the latest of its late arrivals lay below the watermark, as far as was asked for.
    pub late_by: Option<u64>,
}

/// The last incremental run that dealt with a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRun {
    pub id: RunId,
    pub outcome: String,
    pub started: String,
    /// None while it is at work.
    pub finished: Option<String>,
    pub written: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenRejects {
    pub number: u64,
    /// When the run started that opened the oldest one.
    pub oldest: Option<String>,
}

/// Everything that is known without the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    pub tenants: Vec<Standing>,
    /// Of rows that could not even be read, so that their tenant is unknown.
    pub rejects_of_nobody: OpenRejects,
}

const STANDINGS: &str =
    "SELECT t.name, t.family, t.watermark, t.last_run, t.last_outcome, t.last_written, r.started, r.finished, t.n
     FROM tenant t LEFT JOIN run r ON r.id = t.last_run ORDER BY t.name";
const OPEN: &str = "SELECT j.tenant, j.number, r.started FROM
    (SELECT tenant, count(*) AS number, min(opened_run) AS oldest FROM reject WHERE closed_run IS NULL GROUP BY tenant) j
    LEFT JOIN run r ON r.id = j.oldest";
const LATE: &str = "SELECT tenant, max(late_by) FROM run_tenant WHERE late > 0
    AND run >= (SELECT min(id) FROM run WHERE started >= ?1) GROUP BY tenant";
pub(super) const OPEN_FROM: &str = "FROM reject j LEFT JOIN run r ON r.id = j.opened_run
    WHERE j.closed_run IS NULL AND (j.opened_run, j.id) > (?1, ?2) ORDER BY j.opened_run, j.id LIMIT ?3";

impl State {
    /// Late arrivals count from this moment on (RFC 3339).
    pub fn overview(&self, late_since: &str) -> anyhow::Result<Overview> {
        self.read(|conn| {
            // A run at work goes on between two statements.
            let moment = conn.unchecked_transaction()?;
            let (mut rejects, late) = (open_rejects(&moment)?, lateness(&moment, late_since)?);
            let mut query = moment.prepare(STANDINGS)?;
            let rows = query.query_map([], |row| {
                let (run, outcome, started): (Option<i64>, Option<String>, Option<String>) =
                    (row.get(3)?, row.get(4)?, row.get(6)?);
                let last = match (run, outcome, started) {
                    (Some(id), Some(outcome), Some(started)) => Some(LastRun {
                        id: RunId(id),
                        outcome,
                        started,
                        finished: row.get(7)?,
                        written: row.get::<_, i64>(5)?.cast_unsigned(),
                    }),
                    _ => None,
                };
                Ok(Standing {
                    tenant: Tenant(row.get(0)?),
                    family: row.get(1)?,
                    watermark: row.get::<_, Option<String>>(2)?.map(SourceTime),
                    last,
                    rejects: OpenRejects::default(),
                    late_by: late.get(&row.get(8)?).copied(),
                })
            })?;
            let mut tenants = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            for standing in &mut tenants {
                standing.rejects = rejects.remove(&Some(standing.tenant.clone())).unwrap_or_default();
            }
            Ok(Overview { tenants, rejects_of_nobody: rejects.remove(&None).unwrap_or_default() })
        })
    }

    /// Open rejects, oldest first, from behind the given one on.
    pub fn open_rejects_from(&self, after: Option<&PastReject>, limit: usize) -> anyhow::Result<Vec<PastReject>> {
        let (run, id) = after.map_or((0, ""), |reject| (reject.opened_run, reject.id.as_str()));
        let sql = format!("SELECT {REJECT} {OPEN_FROM}");
        self.read(|conn| conn.prepare(&sql)?.query_map(params![run, id, limit as i64], past_reject)?.collect())
    }
}

fn lateness(conn: &Connection, since: &str) -> rusqlite::Result<HashMap<i64, u64>> {
    let mut query = conn.prepare(LATE)?;
    query.query_map([since], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?.collect()
}

fn open_rejects(conn: &Connection) -> rusqlite::Result<HashMap<Option<Tenant>, OpenRejects>> {
    let mut query = conn.prepare(OPEN)?;
    let rows = query.query_map([], |row| {
        let rejects = OpenRejects { number: row.get::<_, i64>(1)?.cast_unsigned(), oldest: row.get(2)? };
        Ok((row.get::<_, Option<String>>(0)?.map(Tenant), rejects))
    })?;
    rows.collect()
}
