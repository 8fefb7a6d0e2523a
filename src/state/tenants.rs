//! The rows of tenants, one per spelling. `watermarks.rs` changes their watermarks.

use rusqlite::{Connection, params};

use super::State;
use super::stored::{self, TenantNo};
use crate::invoice::{SourceTime, Tenant};
use crate::run::RunId;
use crate::window::{ReadFrom, is_time};

/// What the state knows of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTenant {
    /// Its row in the state.
    pub number: TenantNo,
    pub tenant: Tenant,
    /// The same number for all spellings that the source's collation calls equal.
    pub family: i64,
    pub watermark: Option<SourceTime>,
    /// Where the next run starts reading keys; None: from the beginning.
    pub look_back: Option<SourceTime>,
    /// The newest source time that the tenant has shown.
    pub newest: Option<SourceTime>,
    /// Work was open when its keys were read last: it may have committed older rows since.
    pub work_was_open: bool,
    /// None: no run of this state has read up to the watermark.
    pub read_from: Option<ReadFrom>,
}

/// A watermark at its new place, with what the next run needs to know.
#[derive(Clone, Debug)]
pub struct Advance {
    pub tenant: Tenant,
    /// A spelling of the same family that may be known already.
    pub relative: Tenant,
    pub watermark: SourceTime,
    pub look_back: Option<SourceTime>,
    pub newest: Option<SourceTime>,
    pub work_was_open: bool,
    pub read_from: Option<ReadFrom>,
    pub written: u64,
    /// The number of a tenant of which only the watermark changes.
    pub unchanged: Option<TenantNo>,
}

impl State {
    /// All tenants, in the order in which they became known.
    pub fn tenants(&self) -> anyhow::Result<Vec<KnownTenant>> {
        self.tenants_ahead_of(None)
    }

    /// The tenants with a watermark above this time; None: all tenants.
    pub fn tenants_ahead_of(&self, time: Option<&SourceTime>) -> anyhow::Result<Vec<KnownTenant>> {
        self.read(|conn| {
            let mut query = conn.prepare(
                "SELECT name, family, watermark, look_back, newest, held, n, read_from FROM tenant
                 WHERE ?1 IS NULL OR watermark > ?1 ORDER BY n",
            )?;
            let rows = query.query_map([time], |row| {
                Ok(KnownTenant {
                    number: row.get(6)?,
                    tenant: row.get(0)?,
                    family: row.get(1)?,
                    watermark: row.get(2)?,
                    look_back: row.get(3)?,
                    newest: row.get(4)?,
                    work_was_open: row.get(5)?,
                    read_from: row.get(7)?,
                })
            })?;
            let tenants: Vec<KnownTenant> = rows.collect::<rusqlite::Result<_>>()?;
            let times =
                |known: &KnownTenant| plausible(&known.tenant, [known.watermark.as_ref(), known.look_back.as_ref()]);
            tenants.iter().try_for_each(times)?;
            Ok(tenants)
        })
    }

    /// Whether a run would start with these tenants, also in a state of an older schema.
    ///
    /// # Errors
    /// A tenant has times that no run can have left.
    pub(super) fn check_tenants(&self) -> anyhow::Result<()> {
        self.read(|conn| {
            let mut query = conn.prepare("SELECT name, watermark, look_back FROM tenant")?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let times: [Option<SourceTime>; 2] = [row.get(1)?, row.get(2)?];
                plausible(&row.get(0)?, [times[0].as_ref(), times[1].as_ref()])?;
            }
            Ok(())
        })
    }
}

/// Times that no run can have left, such as a look-back above its watermark, are damage. SQLite has no checksums: a
/// flipped byte here could make a run start later than it should, and rows would be lost without a word.
fn plausible(tenant: &Tenant, times: [Option<&SourceTime>; 2]) -> rusqlite::Result<()> {
    let [watermark, look_back] = times;
    let ordered = look_back.is_none() || look_back <= watermark;
    if times.into_iter().flatten().all(is_time) && ordered {
        return Ok(());
    }
    let [watermark, look_back] = times.map(|time| time.map_or("none", SourceTime::as_str));
    let detail = format!("tenant {tenant} cannot have the watermark {watermark} and the look-back {look_back}");
    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(detail)))
}

/// The number of a tenant, which is entered if it is new.
pub(super) fn get_or_insert(conn: &Connection, tenant: &Tenant) -> rusqlite::Result<TenantNo> {
    const INSERT: &str =
        "INSERT INTO tenant (name, family) VALUES (?1, 1 + (SELECT coalesce(max(n), 0) FROM tenant)) RETURNING n";
    stored::get_or_insert(conn, tenant.as_str(), ["SELECT n FROM tenant WHERE name = ?1", INSERT])
}

/// Joins the families of two spellings that one scan returned.
pub(super) fn join_families(conn: &Connection, a: TenantNo, b: TenantNo) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "UPDATE tenant SET family = (SELECT min(family) FROM tenant WHERE n IN (?1, ?2))
         WHERE family IN (SELECT family FROM tenant WHERE n IN (?1, ?2))
           AND (SELECT count(DISTINCT family) FROM tenant WHERE n IN (?1, ?2)) = 2",
    )?
    .execute([a, b])?;
    Ok(())
}

/// Records beside the watermark that an incremental run failed for this tenant. Other runs move no watermarks, so they
/// leave no outcome there.
pub(super) fn record_failure(conn: &Connection, run: RunId, tenant: &Tenant) -> rusqlite::Result<()> {
    let n = get_or_insert(conn, tenant)?;
    conn.prepare_cached(
        "UPDATE tenant SET last_run = ?2, last_written = 0, last_outcome = 'failed'
         WHERE n = ?1 AND (SELECT kind FROM run WHERE id = ?2) = 'incremental'",
    )?
    .execute(params![n, run])?;
    Ok(())
}
