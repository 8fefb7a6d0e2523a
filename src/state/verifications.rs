//! Verifications: runs on record that compare, and what they found. Such a run has no boundary, so that no later run
//! goes by it, until it goes on to mend what it found.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::State;
use super::runs::{NewRun, insert};
use super::selection::Selection;
use super::stored::TenantNo;
use crate::invoice::{SourceTime, Tenant};
use crate::run::{Kind, RunId, Starter, rfc3339};
use crate::window::Span;

words! {
    /// What the tree is compared with.
    pub enum Against {
        Ledger = "ledger", "台账";
        /// With the ledger, and the ledger with the source's keys and the documents of those that it does not hold.
        Keys = "keys", "台账和数据源的键";
        /// With the ledger, and the ledger with every document.
        Documents = "documents", "台账和数据源的全部内容";
    }
}

words! {
    /// How a file is compared with what was exported.
    pub enum ContentCheck {
        /// By its size, and by its content only if it was modified after the run that wrote it.
        BySize = "size", "大小";
        ByHash = "hash", "哈希";
    }
}

stored_words!(Against ContentCheck);

/// A comparison that is done.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    pub against: Against,
    pub content: ContentCheck,
    pub selection: &'a Selection,
    /// Rows of the ledger that were compared with their files.
    pub files: u64,
    /// Invoices that the next run exports, by tenant, which is None where it is not known.
    pub pending: BTreeMap<Option<Tenant>, u64>,
    /// Of these, what a dead run left in doubt, so that it was not compared.
    pub in_doubt: BTreeMap<Option<Tenant>, u64>,
    /// Invoices with an open reject by tenant; where the source is not asked, those of the selection.
    pub rejected: BTreeMap<Option<Tenant>, u64>,
    /// How many differences were found.
    pub differences: u64,
    /// How often each difference was found in a tenant, which is None where it is not known. One between two tenants
    /// counts in both.
    pub found: BTreeMap<(Option<Tenant>, &'static str), u64>,
}

/// What a verification compared, and what it found in total. Among the entries of one tenant the figures are the
/// tenant's, and None where only the total is on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastVerification {
    pub against: Against,
    pub content: ContentCheck,
    /// The tenants that it was limited to, by name; None: all.
    pub limited_to: Option<Vec<Tenant>>,
    /// How many tenants of the state it covered.
    pub tenants: u64,
    pub files: Option<u64>,
    pub pending: u64,
    pub rejected: u64,
    pub differences: u64,
}

/// What differed in one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastFinding {
    /// None where it is not known.
    pub tenant: Option<Tenant>,
    /// The word of the difference.
    pub difference: String,
    pub number: u64,
}

/// The invoices of one tenant that the run after a verification was to export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastPending {
    /// None where it is not known.
    pub tenant: Option<Tenant>,
    pub number: u64,
    /// Up to where runs had exported the tenant then; None: it had no watermark, or is not known.
    pub watermark: Option<SourceTime>,
}

impl PastVerification {
    /// Puts the figures of one tenant in the place of the totals.
    pub(super) fn narrow_to(&mut self, conn: &Connection, run: RunId, tenant: TenantNo) -> rusqlite::Result<()> {
        let figure = |sql: &str| conn.prepare_cached(sql)?.query_row(params![run, tenant], |row| row.get(0));
        self.differences = figure(DIFFERENCES_OF_TENANT)?;
        self.pending = figure(PENDING_OF_TENANT)?;
        self.rejected = figure(REJECTED_OF_TENANT)?;
        self.files = self.files.filter(|_| self.limited_to.as_ref().is_some_and(|tenants| tenants.len() == 1));
        self.tenants = 1;
        Ok(())
    }
}

impl State {
    /// Opens a verification. Earlier ones that are still called running are dead, since this process holds the lock.
    /// Dead runs that could change the tree are left to the next run.
    pub fn begin_verification(&mut self, starter: &Starter, window: &Span, last_number: i64) -> anyhow::Result<RunId> {
        self.transaction(|tx| {
            tx.execute(
                "UPDATE run SET status = 'interrupted', finished = ?1 WHERE status = 'running' AND boundary IS NULL",
                [rfc3339(starter.at)],
            )?;
            insert(tx, &NewRun { kind: Kind::Verify, starter, window, boundary: None, last_number })
        })
    }

    /// Puts on record what an open verification has found.
    pub fn record_comparison(&mut self, run: RunId, comparison: &Comparison<'_>) -> anyhow::Result<()> {
        let Comparison { against, content, selection, files, pending, rejected, differences, found, .. } = comparison;
        self.transaction(|tx| {
            tx.execute(
                "INSERT INTO verification (run, against, content, all_tenants, last_tenant, files, pending, rejected,
                                           differences)
                 VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(n), 0) FROM tenant), ?5, ?6, ?7, ?8)",
                params![
                    run,
                    against,
                    content,
                    selection.tenants.is_empty(),
                    files.cast_signed(),
                    pending.values().sum::<u64>().cast_signed(),
                    rejected.values().sum::<u64>().cast_signed(),
                    differences.cast_signed()
                ],
            )?;
            record_tenants(tx, run, comparison)?;
            record_findings(tx, run, found)
        })
    }
}

/// Enters the tenants that the verification was limited to, and those with pending or rejected invoices. Tenants that the
/// state does not know share a row.
fn record_tenants(tx: &Connection, run: RunId, comparison: &Comparison<'_>) -> rusqlite::Result<()> {
    let mut by_number: BTreeMap<i64, ([u64; 3], Option<SourceTime>)> = BTreeMap::new();
    let mut known = tx.prepare("SELECT n, watermark FROM tenant WHERE name = ?1")?;
    let mut known = |tenant| known.query_row([tenant], |row| Ok((row.get(0)?, row.get(1)?))).optional();
    for tenant in &comparison.selection.tenants {
        if let Some((n, watermark)) = known(Some(tenant))? {
            by_number.insert(n, ([0; 3], watermark));
        }
    }
    for (column, figures) in [&comparison.pending, &comparison.in_doubt, &comparison.rejected].into_iter().enumerate() {
        for (tenant, number) in figures {
            let (n, watermark) = known(tenant.as_ref())?.unwrap_or((0, None));
            by_number.entry(n).or_insert(([0; 3], watermark)).0[column] += number;
        }
    }
    let mut insert = tx.prepare(
        "INSERT INTO verification_tenant (run, tenant, pending, in_doubt, rejected, watermark)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for (tenant, (figures, watermark)) in by_number {
        let [pending, in_doubt, rejected] = figures.map(u64::cast_signed);
        insert.execute(params![run, tenant, pending, in_doubt, rejected, watermark])?;
    }
    Ok(())
}

/// Adds up what was found in tenants that the state does not know: they share a row, which cannot be changed later.
fn record_findings(
    tx: &Connection,
    run: RunId,
    found: &BTreeMap<(Option<Tenant>, &'static str), u64>,
) -> rusqlite::Result<()> {
    let mut by_number: BTreeMap<(i64, &str), u64> = BTreeMap::new();
    let mut number_of = tx.prepare("SELECT coalesce((SELECT n FROM tenant WHERE name = ?1), 0)")?;
    for ((tenant, difference), number) in found {
        *by_number.entry((number_of.query_row([tenant], |row| row.get(0))?, difference)).or_default() += number;
    }
    let mut insert =
        tx.prepare("INSERT INTO verification_finding (run, tenant, difference, number) VALUES (?1, ?2, ?3, ?4)")?;
    for ((tenant, difference), number) in by_number {
        insert.execute(params![run, tenant, difference, number.cast_signed()])?;
    }
    Ok(())
}

/// What the verification of this number compared; None if it came to no end, or is none.
pub(super) fn of_run(conn: &Connection, run: RunId) -> rusqlite::Result<Option<PastVerification>> {
    let verification = |row: &Row<'_>| {
        let limited_to = if row.get("all_tenants")? { None } else { Some(tenants_of(conn, run)?) };
        let all = |last: i64| conn.query_row("SELECT count(*) FROM tenant WHERE n <= ?1", [last], |row| row.get(0));
        Ok(PastVerification {
            tenants: limited_to.as_ref().map_or_else(|| all(row.get("last_tenant")?), |of| Ok(of.len() as u64))?,
            limited_to,
            against: row.get("against")?,
            content: row.get("content")?,
            files: row.get("files")?,
            pending: row.get("pending")?,
            rejected: row.get("rejected")?,
            differences: row.get("differences")?,
        })
    };
    conn.prepare_cached("SELECT * FROM verification WHERE run = ?1")?.query_row([run], verification).optional()
}

/// The tenants that a verification was limited to, by name.
fn tenants_of(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<Tenant>> {
    let mut query = conn.prepare(LIMITED_TO)?;
    query.query_map([run], |row| row.get(0))?.collect()
}

/// What was pending at a verification, by tenant.
pub(super) fn pending_of(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<PastPending>> {
    let mut query = conn.prepare(PENDING)?;
    let pending = |row: &Row<'_>| {
        Ok(PastPending { tenant: row.get("name")?, number: row.get("pending")?, watermark: row.get("watermark")? })
    };
    query.query_map([run], pending)?.collect()
}

/// What a verification found, by tenant.
pub(super) fn findings_of(conn: &Connection, run: RunId) -> rusqlite::Result<Vec<PastFinding>> {
    let mut query = conn.prepare(FOUND_BY)?;
    let finding = |row: &Row<'_>| {
        Ok(PastFinding { tenant: row.get("name")?, difference: row.get("difference")?, number: row.get("number")? })
    };
    query.query_map([run], finding)?.collect()
}

pub(super) const DIFFERENCES_OF_TENANT: &str =
    "SELECT coalesce(sum(number), 0) FROM verification_finding WHERE run = ?1 AND tenant = ?2";
pub(super) const PENDING_OF_TENANT: &str =
    "SELECT coalesce(sum(pending), 0) FROM verification_tenant WHERE run = ?1 AND tenant = ?2";
pub(super) const REJECTED_OF_TENANT: &str =
    "SELECT coalesce(sum(rejected), 0) FROM verification_tenant WHERE run = ?1 AND tenant = ?2";
pub(super) const LIMITED_TO: &str = "SELECT t.name FROM verification_tenant v CROSS JOIN tenant t ON t.n = v.tenant
    WHERE v.run = ?1 ORDER BY t.name";
pub(super) const PENDING: &str = "SELECT t.name, v.pending, v.watermark FROM verification_tenant v
    LEFT JOIN tenant t ON t.n = v.tenant WHERE v.run = ?1 AND v.pending > 0 ORDER BY t.name";
pub(super) const FOUND_BY: &str = "SELECT t.name, f.difference, f.number FROM verification_finding f
    LEFT JOIN tenant t ON t.n = f.tenant WHERE f.run = ?1 ORDER BY t.name, f.difference";
