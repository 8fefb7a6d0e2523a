//! What a dry run has decided, beside the ledger that it leaves as it is. There may be as many decisions as the table
//! has rows, so they are kept in a temporary file of SQLite's, which goes with the connection.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::State;
use super::connect::temporary;
use super::history::PastReject;
use super::ledger::{Entry, Owner};
use super::origin::Origin;
use super::record::Record;
use crate::invoice::{InvoiceId, Tenant};
use crate::run::{Counts, Prospect};
use crate::tree::name::TreePath;
use crate::tree::publish::Published;

/// The ledger as far as a dry run would have changed it.
pub struct DryRunLedger(Connection);

/// What a dry run would have put on record of an invoice.
pub struct DryRunInvoice {
    /// None: its file would belong to another one, or it has none.
    pub entry: Option<Entry>,
    pub tenant: Option<Tenant>,
    pub counted: Counts,
    /// Whether the ledger's word on it no longer holds.
    pub overrules: bool,
}

/// The verdict on an invoice that cannot be exported.
const REJECTED: &str = "rejected";
/// Open rejects that are read at once.
const REJECTS_A_PAGE: usize = 1_000;
const DECIDED: &str = "SELECT id, tenant, time, path, sha256, size, settled, source_table, origin, verdict, overrules \
                       FROM decided WHERE id = ?1";
const PROSPECTS: &str = "SELECT path, origin FROM decided WHERE origin < ?1 UNION ALL
                         SELECT path, NULL FROM removed WHERE path NOT IN (SELECT path FROM decided WHERE path IS NOT NULL)
                         ORDER BY path";

impl DryRunLedger {
    /// A ledger without any decision.
    pub fn new() -> anyhow::Result<Self> {
        let conn = temporary(
            "CREATE TABLE decided (id TEXT PRIMARY KEY, tenant TEXT, time TEXT, path TEXT, sha256 BLOB, size INTEGER,
                 settled INTEGER, source_table INTEGER, origin INTEGER, verdict TEXT,
                 overrules INTEGER NOT NULL) STRICT, WITHOUT ROWID;
             CREATE INDEX decided_path ON decided (path);
             CREATE TABLE removed (path TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
        )?;
        Ok(Self(conn))
    }

    /// Takes what would have been recorded.
    pub fn record(&mut self, published: &Published, record: &Record) -> anyhow::Result<()> {
        for id in &record.displaced {
            self.0
                .prepare_cached("INSERT OR REPLACE INTO decided (id, overrules) VALUES (?1, 1)")?
                .execute([id.as_str()])?;
        }
        for (entry, origin) in record.entries.values() {
            self.0
                .prepare_cached("INSERT OR REPLACE INTO decided VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL, 1)")?
                .execute(params![
                    entry.id.as_str(),
                    entry.tenant.as_str(),
                    entry.time,
                    entry.path.as_str(),
                    entry.digest,
                    entry.size,
                    entry.settled,
                    entry.table_no,
                    origin,
                ])?;
        }
        let rejected = record.rejects.values().map(|reject| (&reject.id, &reject.tenant, REJECTED));
        for (id, tenant, verdict) in rejected.chain(record.gone.iter().map(|(id, tenant)| (id, tenant, "gone"))) {
            self.0
                .prepare_cached(
                    "INSERT INTO decided (id, tenant, verdict, overrules) VALUES (?1, ?2, ?3, 0)
                     ON CONFLICT DO UPDATE SET tenant = excluded.tenant, verdict = excluded.verdict",
                )?
                .execute(params![id.as_str(), tenant, verdict])?;
        }
        for entry in &record.recovered {
            self.0
                .prepare_cached(
                    "INSERT INTO decided (id, tenant, time, path, sha256, size, settled, overrules)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 1)
                     ON CONFLICT DO UPDATE SET time = excluded.time, path = excluded.path, sha256 = excluded.sha256,
                         size = excluded.size, settled = 0, overrules = 1",
                )?
                .execute(params![
                    entry.id.as_str(),
                    entry.tenant.as_str(),
                    entry.time,
                    entry.path.as_str(),
                    entry.digest,
                    entry.size
                ])?;
        }
        for path in published.removed() {
            self.0.prepare_cached("INSERT OR IGNORE INTO removed VALUES (?1)")?.execute([path.as_str()])?;
        }
        Ok(())
    }

    /// What was decided on one invoice.
    pub fn of(&self, id: &InvoiceId) -> anyhow::Result<Option<DryRunInvoice>> {
        Ok(self.0.prepare_cached(DECIDED)?.query_row([id.as_str()], decided_invoice).optional()?)
    }

    /// The invoices that would name a path.
    pub fn owners(&self, path: &TreePath) -> anyhow::Result<Vec<Owner>> {
        let mut query =
            self.0.prepare_cached("SELECT id, sha256, nullif(origin, ?2) AS origin FROM decided WHERE path = ?1")?;
        let owner =
            |row: &Row<'_>| Ok(Owner { id: row.get("id")?, digest: row.get("sha256")?, origin: row.get("origin")? });
        let owners = query.query_map(params![path.as_str(), Origin::Kept], owner)?;
        Ok(owners.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether the file at a path would be gone.
    pub fn has_removed(&self, path: &TreePath) -> anyhow::Result<bool> {
        Ok(self.0.prepare_cached("SELECT 1 FROM removed WHERE path = ?1")?.exists([path.as_str()])?)
    }

    /// How many open rejects would be closed, since their invoices would be exported or are gone.
    pub fn closed_rejects(&self, state: &State) -> anyhow::Result<u64> {
        let sql =
            "SELECT 1 FROM decided WHERE id = ?1 AND verdict IS NOT ?2 AND (verdict IS NOT NULL OR origin IS NOT NULL)";
        let mut closes = self.0.prepare(sql)?;
        let mut closed = 0;
        let mut last: Option<PastReject> = None;
        loop {
            let page = state.open_rejects_from(last.as_ref(), REJECTS_A_PAGE)?;
            let Some(reject) = page.last() else { return Ok(closed) };
            for reject in &page {
                closed += u64::from(closes.exists(params![reject.id, REJECTED])?);
            }
            last = Some(reject.clone());
        }
    }

    /// Says what would become of each path that does not stay as it is, in the order of paths.
    pub fn prospects(&self, mut say: impl FnMut(TreePath, Prospect)) -> anyhow::Result<()> {
        let mut query = self.0.prepare(PROSPECTS)?;
        let mut rows = query.query([Origin::Shared])?;
        while let Some(row) = rows.next()? {
            let prospect = match row.get::<_, Option<Origin>>(1)? {
                None => Prospect::Removed,
                Some(Origin::New) => Prospect::New,
                Some(Origin::Replaced) => Prospect::Replaced,
                Some(Origin::MovedToFree | Origin::MovedOver) => Prospect::Moved,
                Some(Origin::TakenOver | Origin::Shared | Origin::Kept) => Prospect::TakenOver,
            };
            say(row.get(0)?, prospect);
        }
        Ok(())
    }
}

fn decided_invoice(row: &Row<'_>) -> rusqlite::Result<DryRunInvoice> {
    let tenant: Option<Tenant> = row.get("tenant")?;
    let path: Option<TreePath> = row.get("path")?;
    let size = row.get::<_, Option<u64>>("size")?.unwrap_or_default();
    let verdict: Option<String> = row.get("verdict")?;
    let counted = match (verdict.as_deref(), row.get::<_, Option<Origin>>("origin")?) {
        (Some(REJECTED), _) => Counts { seen: 1, rejected: 1, ..Counts::default() },
        (None, Some(origin)) => origin.counts(size),
        // How it counts comes with the next record, or the run keeps it in mind.
        (Some(_), _) | (None, None) => Counts::default(),
    };
    let entry = match (path, &tenant) {
        (Some(path), Some(tenant)) => Some(Entry {
            id: row.get("id")?,
            tenant: tenant.clone(),
            time: row.get("time")?,
            path,
            digest: row.get("sha256")?,
            size,
            settled: row.get("settled")?,
            recheck: false,
            table_no: row.get("source_table")?,
        }),
        _ => None,
    };
    Ok(DryRunInvoice { entry, tenant, counted, overrules: row.get("overrules")? })
}
