//! The to-do list and the rejects: the rows that the next run reads by primary key, also outside its window.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::ledger::AT_PATH;
use super::runs::last_begun;
use super::stored::TenantNo;
use super::{State, ledger, tenants};
use crate::invoice::{Digest, InvoiceId, Reason, SourceTime, Tenant};
use crate::lang::Lang;
use crate::run::{Counts, KeptReason, RunId};
use crate::tree::name::TreePath;
use crate::tree::stage::{Target, Unrecorded};

words! {
    /// Why an id is on the to-do list.
    pub enum TodoReason {
        /// It could not be exported; the reject stays open until it can.
        Reject = "reject", "无法导出";
        /// Another invoice took its path.
        Displaced = "displaced", "路径被占用";
        /// A run died that may have touched its file: nothing on disk is trusted.
        Doubt = "doubt", "待确认";
    }
}

words! {
    /// How a reject was closed.
    pub enum Closing {
        Exported = "exported", "已导出";
        /// Its row is no invoice any more.
        Gone = "gone", "已不是发票";
    }
}

stored_words!(TodoReason Closing);

/// One row of the to-do list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Todo {
    pub id: InvoiceId,
    pub why: TodoReason,
    /// None: it is not known.
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

/// A file that was left where it is, though no invoice names it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub path: TreePath,
    /// The invoice that had it.
    pub id: InvoiceId,
    /// Of what this program wrote there.
    pub digest: Digest,
    /// None of those that were left before this was recorded, and of files that a run of an earlier version may have
    /// written when it died.
    pub why: Option<KeptReason>,
}

impl Leftover {
    /// Whether the file is provably superseded. If not, it may be the only one of another invoice.
    pub fn is_superseded(&self) -> bool {
        self.why == Some(KeptReason::NotRemoved)
    }
}

/// A document that may lie at a path in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoubtedContent {
    pub digest: Digest,
    pub id: InvoiceId,
    /// The number of the source's table in which its row was read; None: it is not known.
    pub table_no: Option<i64>,
}

/// What is known of a path at which a run that died may have written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoubtedPath {
    /// The invoice that it wrote there.
    pub writer: Option<InvoiceId>,
    /// Another file there was not written by this program, if the dead run has said what it was to write.
    pub contents: Vec<DoubtedContent>,
}

impl DoubtedPath {
    /// Whether the dead run has said what it was to write. Earlier versions did not.
    pub fn is_content_known(&self) -> bool {
        !self.contents.is_empty() && self.contents.iter().all(|content| content.digest != Digest::UNKNOWN)
    }
}

/// Open rejects and displaced invoices that one run reads again at the most, those that were read the longest ago
/// first: the list may be as long as the table, memory may not. Ids in doubt after a crash are always read; there are
/// as many as two batches hold.
pub(super) const RETRIED_AT_MOST: i64 = 50_000;

impl State {
    /// The rows that the next run reads by primary key, with no more rejects than one run reads.
    pub fn todo(&self) -> anyhow::Result<Vec<Todo>> {
        self.read(|conn| {
            let mut query = conn.prepare(
                "SELECT d.id, d.why, t.name FROM todo d LEFT JOIN tenant t ON t.n = d.tenant WHERE d.why = 'doubt'
                 UNION ALL SELECT * FROM (
                     SELECT d.id, d.why, t.name FROM todo d LEFT JOIN tenant t ON t.n = d.tenant
                     WHERE d.why <> 'doubt' ORDER BY d.run, d.id LIMIT ?1)",
            )?;
            let rows = query.query_map([RETRIED_AT_MOST], |row| {
                Ok(Todo { id: row.get("id")?, why: row.get("why")?, tenant: row.get("name")? })
            })?;
            rows.collect()
        })
    }

    /// The paths at which a run that died may have written.
    pub fn doubted_paths(&self) -> anyhow::Result<BTreeMap<TreePath, DoubtedPath>> {
        self.read(|conn| {
            let mut query = conn.prepare("SELECT path, id FROM doubt_path")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let mut paths = BTreeMap::new();
            for row in rows {
                let (path, writer) = row?;
                let contents = contents(conn, &path)?;
                paths.insert(path, DoubtedPath { writer, contents });
            }
            Ok(paths)
        })
    }

    /// The last run that died and left a path in doubt; None: it is not known, or nothing is in doubt.
    pub fn run_that_left_doubt(&self) -> anyhow::Result<Option<RunId>> {
        let sql = "SELECT max(r.id) FROM doubt_path p CROSS JOIN todo d ON d.id = p.id AND d.why = 'doubt'
                   CROSS JOIN run r ON r.id = d.run AND r.status = 'interrupted'";
        self.read(|conn| conn.query_row(sql, [], |row| row.get(0)))
    }

    /// How many invoices cannot be exported.
    pub fn open_rejects(&self) -> anyhow::Result<u64> {
        self.read(|conn| conn.query_row("SELECT count(*) FROM reject WHERE closed_run IS NULL", [], |row| row.get(0)))
    }

    /// What this run has recorded of an invoice so far: its tenant, and how it was counted. None: nothing.
    pub fn counted(&self, run: RunId, id: &InvoiceId) -> anyhow::Result<Option<(Option<Tenant>, Counts)>> {
        self.read_at_one_moment(|conn| {
            let rejected = conn
                .prepare_cached("SELECT tenant FROM reject WHERE id = ?1 AND closed_run IS NULL AND last_run = ?2")?
                .query_row(params![id, run], |row| row.get(0))
                .optional()?;
            match rejected {
                Some(tenant) => Ok(Some((tenant, Counts { seen: 1, rejected: 1, ..Counts::default() }))),
                None => ledger::counted(conn, run, id),
            }
        })
    }

    /// Whether this invoice could not be exported the last time.
    pub fn is_open_reject(&self, id: &InvoiceId) -> anyhow::Result<bool> {
        self.read_at_one_moment(|conn| is_open(conn, id))
    }

    /// Whether this invoice could not be exported the last time, or before the run at work, which may have closed that.
    pub fn was_open_reject(&self, id: &InvoiceId, run: Option<RunId>) -> anyhow::Result<bool> {
        let sql = "SELECT 1 FROM reject WHERE id = ?1 AND (closed_run IS NULL OR closed_run = ?2)";
        self.read_at_one_moment(|conn| conn.prepare_cached(sql)?.exists(params![id, run]))
    }

    /// Whether this invoice could not be exported some time.
    pub fn was_rejected(&self, id: &InvoiceId) -> anyhow::Result<bool> {
        self.read_at_one_moment(|conn| conn.prepare_cached("SELECT 1 FROM reject WHERE id = ?1")?.exists([id]))
    }

    /// Has these invoices written anew, whatever files they have: by the run at work if there is one, else by the next.
    pub fn put_on_todo_list(&mut self, ids: &[InvoiceId]) -> anyhow::Result<()> {
        self.transaction(|tx| {
            let run = last_begun(tx)?;
            ids.iter().try_for_each(|id| put(tx, run, id, TodoReason::Doubt, None))
        })
    }

    /// The file that was left at this path though its invoice names it no more.
    pub fn leftover(&self, path: &TreePath) -> anyhow::Result<Option<Leftover>> {
        self.read(|conn| {
            let mut query = conn.prepare_cached("SELECT path, id, sha256, why FROM leftover WHERE path = ?1")?;
            query.query_row([path.as_str()], leftover).optional()
        })
    }

    /// The files that were left where this invoice, or an earlier one with its id, was.
    pub fn leftovers_of(&self, id: &InvoiceId) -> anyhow::Result<Vec<Leftover>> {
        self.read(|conn| leftovers(conn, LEFT_BEHIND, id.as_str()))
    }

    /// Records what a dead run left in doubt: its targets, the invoices it wrote there and those that
    /// the ledger says lie there. The dead run is the last one that began.
    pub fn record_doubt(&mut self, unrecorded: &Unrecorded) -> anyhow::Result<()> {
        self.transaction(|tx| put_doubt(tx, unrecorded))
    }
}

/// Puts what a dead run left in doubt on the lists.
pub(super) fn put_doubt(conn: &Connection, Unrecorded { targets, movers }: &Unrecorded) -> rusqlite::Result<()> {
    let run = last_begun(conn)?;
    for id in movers {
        put(conn, run, id, TodoReason::Doubt, None)?;
    }
    for Target { id, path, digest } in targets {
        put(conn, run, id, TodoReason::Doubt, None)?;
        conn.prepare_cached(&format!(
            "INSERT INTO todo (id, why, tenant, run) SELECT CAST(id AS TEXT), 'doubt', tenant, ?3
                 FROM entry WHERE {AT_PATH} ON CONFLICT (id) DO UPDATE SET why = 'doubt'"
        ))?
        .execute(params![path.folder(), path.stem(), run])?;
        conn.prepare_cached(
            "INSERT INTO doubt_path (path, id) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET id = excluded.id",
        )?
        .execute([path.as_str(), id.as_str()])?;
        put_contents(conn, run, path, id, *digest)?;
    }
    Ok(())
}

/// Leftovers that are shown of one run, or of one id.
const LEFTOVERS_SHOWN: i64 = 100;
pub(super) const LEFT_BEHIND: &str = "SELECT path, id, sha256, why FROM leftover WHERE id = ?1 ORDER BY path LIMIT ?2";
pub(super) const LEFT_BY_RUN: &str = "SELECT path, id, sha256, why FROM leftover WHERE run = ?1 ORDER BY path LIMIT ?2";

/// Files that were left, of one run or of one id, as the statement says.
pub(super) fn leftovers(conn: &Connection, sql: &str, of: impl ToSql) -> rusqlite::Result<Vec<Leftover>> {
    conn.prepare_cached(sql)?.query_map(params![of, LEFTOVERS_SHOWN], leftover)?.collect()
}

fn leftover(row: &Row<'_>) -> rusqlite::Result<Leftover> {
    Ok(Leftover { path: row.get(0)?, id: row.get(1)?, digest: row.get(2)?, why: row.get(3)? })
}

fn contents(conn: &Connection, path: &TreePath) -> rusqlite::Result<Vec<DoubtedContent>> {
    let mut query = conn.prepare_cached("SELECT sha256, id, source_table FROM doubt_content WHERE path = ?1")?;
    let content = |row: &Row<'_>| Ok(DoubtedContent { digest: row.get(0)?, id: row.get(1)?, table_no: row.get(2)? });
    query.query_map([path.as_str()], content)?.collect()
}

/// What the ledger has at a path may lie there yet, unless the dead run has put its document there.
fn put_contents(
    conn: &Connection,
    run: RunId,
    path: &TreePath,
    id: &InvoiceId,
    digest: Option<Digest>,
) -> rusqlite::Result<()> {
    conn.prepare_cached(&format!(
        "INSERT INTO doubt_content (path, sha256, id, source_table)
         SELECT ?3, sha256, CAST(id AS TEXT), source_table FROM entry WHERE {AT_PATH}
         ON CONFLICT DO NOTHING"
    ))?
    .execute([path.folder(), path.stem(), path.as_str()])?;
    let digest = digest.unwrap_or(Digest::UNKNOWN);
    conn.prepare_cached(
        "INSERT INTO doubt_content (path, sha256, id, source_table)
             VALUES (?1, ?2, ?3, (SELECT source_table FROM run WHERE id = ?4))
             ON CONFLICT DO UPDATE SET id = excluded.id, source_table = excluded.source_table",
    )?
    .execute(params![path.as_str(), digest, id, run])?;
    Ok(())
}

/// Takes a path off the list of those in doubt.
pub(super) fn clear_doubt(conn: &Connection, path: &TreePath) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM doubt_path WHERE path = ?1")?.execute([path.as_str()])?;
    conn.prepare_cached("DELETE FROM doubt_content WHERE path = ?1")?.execute([path.as_str()])?;
    Ok(())
}

/// Records a file that stays though no invoice names it.
pub(super) fn add_leftover(conn: &Connection, run: RunId, leftover: &Leftover) -> rusqlite::Result<()> {
    let Leftover { path, id, digest, why } = leftover;
    conn.prepare_cached(
        "INSERT INTO leftover (path, id, sha256, run, why) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (path) DO UPDATE SET id = excluded.id, sha256 = excluded.sha256, run = excluded.run,
             why = excluded.why",
    )?
    .execute(params![path.as_str(), id.as_str(), digest, run, why])?;
    Ok(())
}

/// Whether an invoice is an open reject.
pub(super) fn is_open(conn: &Connection, id: &InvoiceId) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM reject WHERE id = ?1 AND closed_run IS NULL")?.exists([id.as_str()])
}

/// Puts an id on the to-do list. The reason replaces an earlier one: a decision of this run on the id came first.
pub(super) fn put(
    conn: &Connection,
    run: RunId,
    id: &InvoiceId,
    why: TodoReason,
    tenant: Option<TenantNo>,
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO todo (id, why, tenant, run) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET why = excluded.why, tenant = coalesce(excluded.tenant, tenant),
             run = excluded.run",
    )?
    .execute(params![id.as_str(), why, tenant, run])?;
    Ok(())
}

/// Opens a reject, or keeps the open one with what is wrong now.
pub(super) fn open_reject(conn: &Connection, run: RunId, reject: &Reject) -> rusqlite::Result<()> {
    let tenant = reject.tenant.as_ref().map(|tenant| tenants::get_or_insert(conn, tenant)).transpose()?;
    put(conn, run, &reject.id, TodoReason::Reject, tenant)?;
    let opened: Option<RunId> = conn
        .prepare_cached("SELECT opened_run FROM reject WHERE id = ?1 AND closed_run IS NULL")?
        .query_row([reject.id.as_str()], |row| row.get(0))
        .optional()?;
    let detail = reject.reason.text();
    conn.prepare_cached(
        "INSERT INTO reject (id, opened_run, tenant, number, time, reason, detail, detail_zh, last_run)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (id, opened_run) DO UPDATE SET tenant = excluded.tenant, number = excluded.number,
             time = excluded.time, reason = excluded.reason, detail = excluded.detail, detail_zh = excluded.detail_zh,
             last_run = excluded.last_run, closed_run = NULL, closed_how = NULL",
    )?
    .execute(params![
        reject.id.as_str(),
        opened.unwrap_or(run),
        reject.tenant,
        reject.number,
        reject.time,
        reject.reason.code(),
        detail.in_lang(Lang::En),
        detail.in_lang(Lang::Zh),
        run,
    ])?;
    Ok(())
}

/// Takes an id off the list and closes its reject.
pub(super) fn close(conn: &Connection, run: RunId, id: &InvoiceId, how: Closing) -> rusqlite::Result<()> {
    if conn.prepare_cached("DELETE FROM todo WHERE id = ?1")?.execute([id.as_str()])? == 1 {
        conn.prepare_cached("UPDATE reject SET closed_run = ?2, closed_how = ?3 WHERE id = ?1 AND closed_run IS NULL")?
            .execute(params![id.as_str(), run, how])?;
    }
    Ok(())
}
