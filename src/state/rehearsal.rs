//! What a dry run has decided, beside the ledger that it leaves as it is. There may be as many decisions as the table
//! has rows, so they are kept in a temporary file of SQLite's, which goes with the connection.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::connect::temporary;
use super::ledger::{Entry, Origin};
use super::record::Record;
use super::todo::Reject;
use crate::invoice::{Digest, InvoiceId, Tenant};
use crate::run::Counts;
use crate::tree::name::TreePath;

/// The ledger as far as a dry run would have changed it.
pub struct Rehearsal(Connection);

/// What a dry run would have put on record of an invoice.
pub struct RehearsedInvoice {
    /// None: its file would belong to another one, or it has none.
    pub entry: Option<Entry>,
    pub tenant: Option<Tenant>,
    pub counted: Counts,
    /// Whether the ledger's word on it no longer holds.
    pub overrules: bool,
}

impl Rehearsal {
    /// A ledger without any decision.
    pub fn new() -> anyhow::Result<Self> {
        let conn = temporary(
            "CREATE TABLE decided (id TEXT PRIMARY KEY, tenant TEXT, time TEXT, path TEXT, sha256 BLOB, size INTEGER,
                 settled INTEGER, outcome TEXT, overrules INTEGER NOT NULL, source_table INTEGER) STRICT, WITHOUT ROWID;
             CREATE INDEX decided_path ON decided (path)",
        )?;
        Ok(Self(conn))
    }

    /// Takes what would have been recorded.
    pub fn record(&mut self, record: &Record) -> anyhow::Result<()> {
        for id in &record.displaced {
            self.0
                .prepare_cached("INSERT OR REPLACE INTO decided (id, overrules) VALUES (?1, 1)")?
                .execute([id.as_str()])?;
        }
        for (entry, origin) in record.entries.values() {
            let outcome = match origin {
                Origin::Written => "written",
                Origin::Adopted | Origin::Kept => "unchanged",
            };
            self.0
                .prepare_cached("INSERT OR REPLACE INTO decided VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9)")?
                .execute(params![
                    entry.id.as_str(),
                    entry.tenant.as_str(),
                    entry.time,
                    entry.path.as_str(),
                    entry.digest,
                    entry.size,
                    entry.settled,
                    outcome,
                    entry.table_no
                ])?;
        }
        for Reject { id, tenant, .. } in record.rejects.values() {
            self.0
                .prepare_cached(
                    "INSERT INTO decided (id, tenant, outcome, overrules) VALUES (?1, ?2, 'rejected', 0)
                     ON CONFLICT DO UPDATE SET tenant = excluded.tenant, outcome = excluded.outcome",
                )?
                .execute(params![id.as_str(), tenant])?;
        }
        Ok(())
    }

    /// What was decided on one invoice.
    pub fn of(&self, id: &InvoiceId) -> anyhow::Result<Option<RehearsedInvoice>> {
        let sql = "SELECT id, tenant, time, path, sha256, size, settled, outcome, overrules, source_table FROM decided \
                   WHERE id = ?1";
        Ok(self.0.prepare_cached(sql)?.query_row([id.as_str()], rehearsed).optional()?)
    }

    /// The invoices that would name a path, with the digest of its content.
    pub fn owners(&self, path: &TreePath) -> anyhow::Result<Vec<(InvoiceId, Digest)>> {
        let mut query = self.0.prepare_cached("SELECT id, sha256 FROM decided WHERE path = ?1")?;
        let owners = query.query_map([path.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(owners.collect::<rusqlite::Result<_>>()?)
    }
}

fn rehearsed(row: &Row<'_>) -> rusqlite::Result<RehearsedInvoice> {
    let tenant: Option<Tenant> = row.get(1)?;
    let path = row.get::<_, Option<String>>(3)?.and_then(|path| TreePath::parse(&path));
    let size = row.get::<_, Option<u64>>(5)?.unwrap_or_default();
    let one = Counts { seen: 1, ..Counts::default() };
    let counted = match row.get::<_, Option<String>>(7)?.as_deref() {
        Some("written") => Counts { written: 1, bytes: size, ..one },
        Some("unchanged") => Counts { unchanged: 1, ..one },
        Some(_) => Counts { rejected: 1, ..one },
        // Its outcome comes with the next record.
        None => Counts::default(),
    };
    let entry = match (path, &tenant) {
        (Some(path), Some(tenant)) => Some(Entry {
            id: row.get(0)?,
            tenant: tenant.clone(),
            time: row.get(2)?,
            path,
            digest: row.get(4)?,
            size,
            settled: row.get(6)?,
            recheck: false,
            table_no: row.get(9)?,
        }),
        _ => None,
    };
    Ok(RehearsedInvoice { entry, tenant, counted, overrules: row.get(8)? })
}
