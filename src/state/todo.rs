//! The to-do list and the rejects: what the next run reads by primary key, whatever its window.

use std::collections::BTreeMap;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::ledger::AT_PATH;
use super::{State, ledger, tenants};
use crate::invoice::{Digest, InvoiceId, Reason, SourceTime, Tenant};
use crate::run::{Counts, RunId};
use crate::tree::name::TreePath;

/// Why an id is on the to-do list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It could not be exported; the reject stays open until it can.
    Reject,
    /// Another invoice took its path.
    Displaced,
    /// A run died that may have touched its file: nothing on disk is trusted.
    Doubt,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Todo {
    pub id: InvoiceId,
    pub why: Why,
    pub tenant: Option<Tenant>,
}

/// An invoice that could not be exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub id: InvoiceId,
    pub tenant: Option<Tenant>,
    pub number: Option<String>,
    pub time: Option<SourceTime>,
    pub reason: Reason,
}

/// A file that was left where it is, because its id carries another invoice now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub path: TreePath,
    pub id: InvoiceId,
    /// Of what we wrote there.
    pub digest: Digest,
}

/// Open rejects that one run reads again at the most, those that were read the longest ago first: the list may be
/// as long as the table, memory may not. What is in doubt after a crash is always read; a batch bounds it.
pub(super) const RETRIED_AT_MOST: i64 = 50_000;

impl State {
    pub fn todo(&self) -> anyhow::Result<Vec<Todo>> {
        self.read(|conn| {
            let mut query = conn.prepare(
                "SELECT d.id, d.why, t.name FROM todo d LEFT JOIN tenant t ON t.n = d.tenant WHERE d.why = 'doubt'
                 UNION ALL SELECT * FROM (
                     SELECT d.id, d.why, t.name FROM todo d LEFT JOIN tenant t ON t.n = d.tenant
                     WHERE d.why <> 'doubt' ORDER BY d.run, d.id LIMIT ?1)",
            )?;
            let rows = query.query_map([RETRIED_AT_MOST], |row| {
                let why = match row.get::<_, String>(1)?.as_str() {
                    "doubt" => Why::Doubt,
                    "displaced" => Why::Displaced,
                    _ => Why::Reject,
                };
                Ok(Todo { id: InvoiceId(row.get(0)?), why, tenant: row.get::<_, Option<String>>(2)?.map(Tenant) })
            })?;
            rows.collect()
        })
    }

    /// Files that a run which died may have written, and the invoices it wrote them for.
    pub fn doubted_paths(&self) -> anyhow::Result<BTreeMap<TreePath, Option<InvoiceId>>> {
        self.read(|conn| {
            let mut query = conn.prepare("SELECT path, id FROM doubt_path")?;
            let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)))?;
            let doubted = |(path, id): (String, Option<String>)| Some((TreePath::parse(&path)?, id.map(InvoiceId)));
            rows.filter_map(|row| row.map(doubted).transpose()).collect()
        })
    }

    pub fn open_rejects(&self) -> anyhow::Result<u64> {
        self.read(|conn| {
            conn.query_row("SELECT count(*) FROM reject WHERE closed_run IS NULL", [], |row| row.get::<_, i64>(0))
        })
        .map(i64::cast_unsigned)
    }

    /// What a run has put on record of an invoice so far: its tenant then, and how it was counted.
    pub fn counted(&self, run: RunId, id: &InvoiceId) -> anyhow::Result<Option<(Option<Tenant>, Counts)>> {
        self.glance(|conn| {
            let rejected = conn
                .prepare_cached("SELECT tenant FROM reject WHERE id = ?1 AND closed_run IS NULL AND last_run = ?2")?
                .query_row(params![id.as_str(), run.0], |row| row.get::<_, Option<String>>(0))
                .optional()?;
            match rejected {
                Some(tenant) => Ok(Some((tenant.map(Tenant), Counts { seen: 1, rejected: 1, ..Counts::default() }))),
                None => ledger::counted(conn, run, id),
            }
        })
    }

    pub fn is_open_reject(&self, id: &InvoiceId) -> anyhow::Result<bool> {
        self.glance(|conn| is_open(conn, id))
    }

    /// Lets the next run, also one that is open, write these invoices whatever lies there.
    pub fn want(&mut self, ids: &[InvoiceId]) -> anyhow::Result<()> {
        self.transaction(|tx| {
            let run: i64 = tx.query_row("SELECT coalesce(max(id), 0) FROM run", [], |row| row.get(0))?;
            ids.iter().try_for_each(|id| put(tx, run, id, Why::Doubt, None))
        })
    }

    /// The invoice whose file was left at this path though it names it no more.
    pub fn leftover(&self, path: &TreePath) -> anyhow::Result<Option<Leftover>> {
        self.read(|conn| {
            let mut query = conn.prepare_cached("SELECT path, id, sha256 FROM leftover WHERE path = ?1")?;
            query.query_row([path.as_str()], leftover).optional()
        })
    }

    /// Records what a dead run left in doubt: its targets, the invoices it wrote there and those that
    /// the ledger says lie there.
    pub fn doubt(&mut self, targets: &[(InvoiceId, TreePath)]) -> anyhow::Result<()> {
        self.transaction(|tx| {
            let run: i64 = tx.query_row("SELECT coalesce(max(id), 0) FROM run", [], |row| row.get(0))?;
            for (id, path) in targets {
                put(tx, run, id, Why::Doubt, None)?;
                tx.prepare_cached(&format!(
                    "INSERT INTO todo (id, why, tenant, run) SELECT CAST(id AS TEXT), 'doubt', tenant, ?3
                         FROM entry WHERE {AT_PATH} ON CONFLICT (id) DO UPDATE SET why = 'doubt'"
                ))?
                .execute(params![path.folder(), path.stem(), run])?;
                tx.prepare_cached(
                    "INSERT INTO doubt_path (path, id) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET id = excluded.id",
                )?
                .execute([path.as_str(), id.as_str()])?;
            }
            Ok(())
        })
    }
}

fn leftover(row: &Row<'_>) -> rusqlite::Result<Leftover> {
    let path: String = row.get(0)?;
    let parsed = TreePath::parse(&path).ok_or(rusqlite::Error::InvalidColumnType(0, path, Type::Text))?;
    Ok(Leftover { path: parsed, id: InvoiceId(row.get(1)?), digest: Digest(row.get(2)?) })
}

pub(super) fn is_open(conn: &Connection, id: &InvoiceId) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM reject WHERE id = ?1 AND closed_run IS NULL")?.exists([id.as_str()])
}

/// An id stays in doubt until it is dealt with, whatever else happens to it.
pub(super) fn put(conn: &Connection, run: i64, id: &InvoiceId, why: Why, tenant: Option<i64>) -> rusqlite::Result<()> {
    let why = match why {
        Why::Reject => "reject",
        Why::Displaced => "displaced",
        Why::Doubt => "doubt",
    };
    conn.prepare_cached(
        "INSERT INTO todo (id, why, tenant, run) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET why = excluded.why, tenant = coalesce(excluded.tenant, tenant),
             run = excluded.run",
    )?
    .execute(params![id.as_str(), why, tenant, run])?;
    Ok(())
}

/// Opens a reject, or keeps the open one with what is wrong now.
pub(super) fn refuse(conn: &Connection, run: i64, reject: &Reject) -> rusqlite::Result<()> {
    let tenant = reject.tenant.as_ref().map(|tenant| tenants::number(conn, tenant)).transpose()?;
    put(conn, run, &reject.id, Why::Reject, tenant)?;
    let opened: Option<i64> = conn
        .prepare_cached("SELECT opened_run FROM reject WHERE id = ?1 AND closed_run IS NULL")?
        .query_row([reject.id.as_str()], |row| row.get(0))
        .optional()?;
    conn.prepare_cached(
        "INSERT INTO reject (id, opened_run, tenant, number, time, reason, detail, last_run)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (id, opened_run) DO UPDATE SET tenant = excluded.tenant, number = excluded.number,
             time = excluded.time, reason = excluded.reason, detail = excluded.detail, last_run = excluded.last_run,
             closed_run = NULL, closed_how = NULL",
    )?
    .execute(params![
        reject.id.as_str(),
        opened.unwrap_or(run),
        reject.tenant.as_ref().map(Tenant::as_str),
        reject.number,
        reject.time.as_ref().map(SourceTime::as_str),
        reject.reason.code(),
        reject.reason.to_string(),
        run,
    ])?;
    Ok(())
}

/// Takes an id off the list and closes its reject.
pub(super) fn done(conn: &Connection, run: i64, id: &InvoiceId, how: &str) -> rusqlite::Result<()> {
    if conn.prepare_cached("DELETE FROM todo WHERE id = ?1")?.execute([id.as_str()])? == 1 {
        conn.prepare_cached("UPDATE reject SET closed_run = ?2, closed_how = ?3 WHERE id = ?1 AND closed_run IS NULL")?
            .execute(params![id.as_str(), run, how])?;
    }
    Ok(())
}
