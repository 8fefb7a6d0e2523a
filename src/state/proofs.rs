//! What verifications say of each tenant: when nothing differed in it, at each depth, and what the newest one found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, Row, params_from_iter};

use super::stored::TenantNo;
use super::verifications::{Against, ContentCheck};
use crate::run::RunId;
use crate::window::Span;

/// What verifications say of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifiedTenant {
    /// At most one of each depth, the deepest first: the newest without a window, or else the newest within one.
    pub proofs: Vec<Arc<Proof>>,
    /// The newest verification that covered it, whatever that found.
    pub newest: Option<NewestVerification>,
}

/// A verification that covered a tenant and found no difference in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    pub run: RunId,
    /// When it began, RFC 3339. What changed later is not proven.
    pub at: String,
    pub against: Against,
    pub content: ContentCheck,
    /// The source times that it compared.
    pub window: Span,
}

/// The newest verification of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewestVerification {
    pub run: RunId,
    /// When it began, RFC 3339.
    pub at: String,
    pub against: Against,
    /// How many it found in the tenant.
    pub differences: u64,
}

/// The depths of a comparison, the deepest first. Each compares what the next one does.
const DEPTHS: [Against; 3] = [Against::Documents, Against::Keys, Against::Ledger];

impl VerifiedTenant {
    /// The best proof: without a window before within one, then by depth. A weaker one says nothing that the stronger one
    /// does not say, but for what came in between.
    pub fn best(&self) -> Option<&Proof> {
        self.proofs.iter().find(|proof| proof.is_whole()).or(self.proofs.first()).map(Arc::as_ref)
    }

    /// When the whole tenant was last proven at this depth or a greater one.
    pub fn proven_at(&self, depth: Against) -> Option<&String> {
        let deep = self.proofs.iter().filter(|proof| proof.is_whole() && proof.depth() <= depth_of(depth));
        deep.map(|proof| &proof.at).max()
    }

    /// The proofs, without those that a deeper one has made worthless since.
    pub fn telling(&self) -> Vec<&Proof> {
        let is_outdone = |proof: &Proof| {
            self.proofs.iter().any(|other| {
                other.depth() < proof.depth()
                    && other.run > proof.run
                    && (other.is_whole() || other.window == proof.window)
            })
        };
        self.proofs.iter().map(Arc::as_ref).filter(|proof| !is_outdone(proof)).collect()
    }
}

impl Proof {
    fn is_whole(&self) -> bool {
        self.window == Span::default()
    }

    fn depth(&self) -> usize {
        depth_of(self.against)
    }
}

/// The place of a depth; 0 is the deepest.
fn depth_of(against: Against) -> usize {
    DEPTHS.iter().position(|depth| *depth == against).unwrap_or(DEPTHS.len())
}

/// What verifications say of the tenants that any has covered. They are read, newest first, until all is known of every
/// tenant.
pub(super) fn verified_tenants(conn: &Connection) -> rusqlite::Result<HashMap<TenantNo, VerifiedTenant>> {
    let tenants = numbers(conn, "SELECT n FROM tenant", &[])?;
    let mut verified: HashMap<TenantNo, VerifiedTenant> = HashMap::new();
    for depth in DEPTHS {
        let mut left = tenants.clone();
        let mut query = conn.prepare(BEST_FIRST)?;
        let mut rows = query.query([depth])?;
        while !left.is_empty()
            && let Some(row) = rows.next()?
        {
            let run: RunId = row.get("run")?;
            let unproven = numbers(conn, UNPROVEN, &[run])?;
            let proof = Arc::new(proof(row)?);
            for tenant in covered(conn, row, &left)?.difference(&unproven) {
                left.remove(tenant);
                verified.entry(TenantNo(*tenant)).or_default().proofs.push(Arc::clone(&proof));
            }
        }
    }
    add_newest(conn, tenants, &mut verified)?;
    Ok(verified)
}

/// Adds the newest verification of each tenant.
fn add_newest(
    conn: &Connection,
    mut left: BTreeSet<i64>,
    verified: &mut HashMap<TenantNo, VerifiedTenant>,
) -> rusqlite::Result<()> {
    let mut query = conn.prepare(NEWEST_FIRST)?;
    let mut rows = query.query([])?;
    while !left.is_empty()
        && let Some(row) = rows.next()?
    {
        let run: RunId = row.get("run")?;
        let (at, against): (String, Against) = (row.get("started")?, row.get("against")?);
        let mut found = conn.prepare_cached(DIFFERENCES)?;
        let found: BTreeMap<i64, u64> =
            found.query_map([run], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        for tenant in covered(conn, row, &left)? {
            left.remove(&tenant);
            let differences = found.get(&tenant).copied().unwrap_or_default();
            let newest = NewestVerification { run, at: at.clone(), against, differences };
            verified.entry(TenantNo(tenant)).or_default().newest = Some(newest);
        }
    }
    Ok(())
}

/// Those of the tenants that the verification in this row covered.
fn covered(conn: &Connection, row: &Row<'_>, tenants: &BTreeSet<i64>) -> rusqlite::Result<BTreeSet<i64>> {
    if row.get("all_tenants")? {
        return Ok(tenants.range(..=row.get::<_, i64>("last_tenant")?).copied().collect());
    }
    let limited_to = numbers(conn, "SELECT tenant FROM verification_tenant WHERE run = ?1", &[row.get("run")?])?;
    Ok(limited_to.intersection(tenants).copied().collect())
}

fn proof(row: &Row<'_>) -> rusqlite::Result<Proof> {
    Ok(Proof {
        run: row.get("run")?,
        at: row.get("started")?,
        against: row.get("against")?,
        content: row.get("content")?,
        window: Span { after: row.get("since")?, upto: row.get("until")? },
    })
}

fn numbers(conn: &Connection, sql: &str, of: &[RunId]) -> rusqlite::Result<BTreeSet<i64>> {
    conn.prepare_cached(sql)?.query_map(params_from_iter(of), |row| row.get(0))?.collect()
}

/// Of one depth, without those that compared no file, which proves nothing.
const BEST_FIRST: &str = "SELECT v.*, r.started, r.since, r.until FROM verification v CROSS JOIN run r ON r.id = v.run
    WHERE v.files > 0 AND v.against = ?1 ORDER BY r.since IS NOT NULL OR r.until IS NOT NULL, v.run DESC";
const NEWEST_FIRST: &str =
    "SELECT v.*, r.started FROM verification v CROSS JOIN run r ON r.id = v.run ORDER BY v.run DESC";
const DIFFERENCES: &str = "SELECT tenant, sum(number) FROM verification_finding WHERE run = ?1 GROUP BY tenant";
/// The tenants with differences, those with files in doubt, which were not compared, and those that had no watermark and
/// may have consisted of pending invoices alone.
const UNPROVEN: &str = "SELECT tenant FROM verification_finding WHERE run = ?1 UNION ALL
    SELECT tenant FROM verification_tenant WHERE run = ?1 AND (in_doubt > 0 OR pending > 0 AND watermark IS NULL)";
