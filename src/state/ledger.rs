//! The ledger: which file belongs to which invoice, and which version of it is settled.
//!
//! It also says which run wrote a file or took it over. `file_past` keeps only what the ledger says no more; triggers of
//! the schema put it there. A path is stored as the number of its folder and the name of the file, and an id that is a
//! whole number as a number. That saves a third of the state, and a statement for each file. The views `ledger` and
//! `file_log` are for readers without this program.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::State;
use super::connect::{FileFingerprint, ask_anew, is_undisturbed};
use super::damage::explain;
use super::origin::Origin;
use super::stored::{self, FolderNo, LedgerKey, TenantNo};
use super::supposition::Supposition;
use crate::fs::file::PrivateFile;
use crate::invoice::{Digest, InvoiceId, Key, SourceTime, Tenant};
use crate::run::{Counts, RunId};
use crate::tree::name::TreePath;

/// One exported invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: InvoiceId,
    pub tenant: Tenant,
    /// The source time when its document was read; None is a row without one.
    pub time: Option<SourceTime>,
    pub path: TreePath,
    /// Of the document.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Its source time lay below the boundary and below the oldest open work when its document was read. The next
    /// incremental run does not read it again.
    pub settled: bool,
    /// An operator asked for it again, or the state was restored: it counts as unchanged only if its file is there with
    /// the same content. This is kept for each invoice until it is done, because a run may move the tenant's watermark
    /// before it reads the row. A batch does not write this field.
    pub recheck: bool,
    /// The number of the source's table in which the row held this document at this path; None: it is not known.
    pub table_no: Option<i64>,
}

/// An invoice that names a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub id: InvoiceId,
    /// Of its document.
    pub digest: Digest,
    /// How this run has given it the file; None: an earlier run did.
    pub origin: Option<Origin>,
}

/// Whether a version of a row was exported, and counts as settled.
#[derive(Clone, Debug)]
pub enum LedgerMatch {
    Settled,
    /// What the ledger holds of it instead.
    Unsettled(Option<Entry>),
}

/// A connection of its own to the ledger, for the thread that compares keys. Without a state it answers as an empty
/// ledger does.
pub struct LedgerReader {
    state: Option<LedgerConnection>,
}

struct LedgerConnection {
    conn: RefCell<Connection>,
    /// Set where the connection takes no locks: it says whether a process wrote meanwhile.
    unlocked: RefCell<Option<FileFingerprint>>,
    file: PrivateFile,
    supposition: Option<Arc<Supposition>>,
}

const FROM: &str = "FROM entry e JOIN tenant t ON t.n = e.tenant LEFT JOIN folder f ON f.n = e.folder";
const COLUMNS: &str = "e.id, t.name, e.time, f.path, e.name, e.sha256, e.size, e.settled, e.recheck, e.source_table";
/// The first of the columns that are asked for besides.
const NEXT_COLUMN: usize = 10;
/// Asked for nearly every row of a run.
static ENTRY: LazyLock<String> = LazyLock::new(|| format!("SELECT {COLUMNS} {FROM} WHERE e.id = ?1"));
static OWNERS: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT id, sha256, CASE WHEN run = ?3 THEN counted END AS origin FROM entry WHERE {AT_PATH}")
});
/// The entries at a path, which is a folder and a stem.
pub(super) const AT_PATH: &str = "folder = (SELECT n FROM folder WHERE path = ?1) AND name = ?2";

impl LedgerReader {
    /// The reader where there is no ledger, or an empty one.
    pub fn nothing() -> Self {
        Self { state: None }
    }

    /// What the ledger holds of each of these invoices, all at one moment.
    pub fn entries(&self, ids: &[&InvoiceId]) -> anyhow::Result<Vec<Option<Entry>>> {
        self.ask(vec![None; ids.len()], |conn| {
            let moment = conn.unchecked_transaction()?;
            let mut query = moment.prepare_cached(&ENTRY)?;
            ids.iter().map(|id| query.query_row([LedgerKey(id)], from_row).optional()).collect()
        })
    }

    /// What the ledger says of each of these keys, all at one moment. Cheapest in the order of ids, in which
    /// neighbours lie on one page.
    pub fn match_keys(&self, keys: &[Key]) -> anyhow::Result<Vec<LedgerMatch>> {
        let sql = format!("SELECT {COLUMNS}, e.settled AND e.time IS ?2 AND t.name = ?3 {FROM} WHERE e.id = ?1");
        self.ask(keys.iter().map(|_| LedgerMatch::Unsettled(None)).collect(), |conn| {
            // Outside of a transaction each statement would take and give back SQLite's locks.
            let moment = conn.unchecked_transaction()?;
            let mut query = moment.prepare_cached(&sql)?;
            let matched = |key: &Key| {
                let mut rows = query.query(params![LedgerKey(&key.id), key.time, key.tenant])?;
                match rows.next()? {
                    Some(row) if row.get(NEXT_COLUMN)? => Ok(LedgerMatch::Settled),
                    Some(row) => Ok(LedgerMatch::Unsettled(Some(from_row(row)?))),
                    None => Ok(LedgerMatch::Unsettled(None)),
                }
            };
            keys.iter().map(matched).collect()
        })
    }

    /// What the ledger holds after an id, in the order of ids, with the run that wrote each file or took
    /// it over.
    pub fn page(&self, after: Option<&InvoiceId>, limit: usize) -> anyhow::Result<Vec<(Entry, RunId)>> {
        let from = if after.is_some() { "WHERE e.id > ?1" } else { "" };
        let sql = format!("SELECT {COLUMNS}, e.run {FROM} {from} ORDER BY e.id LIMIT ?2");
        self.ask(Vec::new(), |conn| {
            let mut query = conn.prepare_cached(&sql)?;
            let filed = |row: &Row<'_>| Ok((from_row(row)?, row.get(NEXT_COLUMN)?));
            query.query_map(params![after.map(LedgerKey), limit as i64], filed)?.collect()
        })
    }

    /// Whether the ledger holds no invoice.
    pub fn is_empty(&self) -> anyhow::Result<bool> {
        self.ask(true, |conn| conn.query_row("SELECT NOT EXISTS (SELECT 1 FROM entry)", [], |row| row.get(0)))
    }

    fn ask<T>(&self, otherwise: T, question: impl Fn(&Connection) -> rusqlite::Result<T>) -> anyhow::Result<T> {
        let Some(LedgerConnection { conn, unlocked, file, supposition }) = &self.state else { return Ok(otherwise) };
        let mut answer = question(&conn.borrow());
        // A run writes beside a dry run that found no process at work. From then on the reader takes locks.
        if !is_undisturbed(unlocked.borrow().as_ref(), file) {
            let (answer_now, conn_now, fingerprint) = ask_anew(file, |conn| {
                supposition.iter().try_for_each(|supposition| supposition.apply_to_ledger(conn))?;
                question(conn)
            })?;
            conn.replace(conn_now);
            unlocked.replace(fingerprint);
            answer = answer_now;
        }
        answer.map_err(|error| explain(error, file.path()))
    }
}

impl State {
    /// A connection of its own for another thread.
    pub fn lookup(&self) -> anyhow::Result<LedgerReader> {
        let (conn, unlocked) = self.reading_connection()?;
        let (conn, unlocked, file) = (RefCell::new(conn), RefCell::new(unlocked), self.file.clone());
        let supposition = self.supposition.clone();
        Ok(LedgerReader { state: Some(LedgerConnection { conn, unlocked, file, supposition }) })
    }

    /// What the ledger holds of one invoice.
    pub fn entry(&self, id: &InvoiceId) -> anyhow::Result<Option<Entry>> {
        self.read_at_one_moment(|conn| entry(conn, id))
    }

    /// How many invoices the ledger holds, and the newest source time among them.
    pub fn extent(&self) -> anyhow::Result<(u64, Option<SourceTime>)> {
        self.read(|conn| {
            conn.query_row("SELECT count(*), max(time) FROM entry", [], |row| Ok((row.get(0)?, row.get(1)?)))
        })
    }

    /// Those of these paths that no invoice names, all at one moment.
    pub fn without_invoice(&self, mut paths: Vec<TreePath>) -> anyhow::Result<Vec<TreePath>> {
        // Neighbours lie on one page of the index.
        paths.sort();
        let named: Vec<bool> = self.read(|conn| {
            let moment = conn.unchecked_transaction()?;
            let mut query = moment.prepare_cached(&format!("SELECT 1 FROM entry WHERE {AT_PATH}"))?;
            paths.iter().map(|path| query.exists([path.folder(), path.stem()])).collect()
        })?;
        Ok(paths.into_iter().zip(named).filter_map(|(path, named)| (!named).then_some(path)).collect())
    }

    /// The invoices that name a path. `run`: the one at work.
    pub fn owners(&self, path: &TreePath, run: Option<RunId>) -> anyhow::Result<Vec<Owner>> {
        self.read_at_one_moment(|conn| {
            let mut query = conn.prepare_cached(&OWNERS)?;
            let owner = |row: &Row<'_>| {
                Ok(Owner { id: row.get("id")?, digest: row.get("sha256")?, origin: row.get("origin")? })
            };
            let rows = query.query_map(params![path.folder(), path.stem(), run], owner)?;
            rows.collect()
        })
    }

    /// Whether this run has removed the file that was at a path.
    pub fn has_removed(&self, run: RunId, path: &TreePath) -> anyhow::Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM file_past WHERE run = ?3 AND action = 'removed' \
                   AND folder = (SELECT n FROM folder WHERE path = ?1) AND name = ?2)";
        self.read_at_one_moment(|conn| {
            conn.prepare_cached(sql)?.query_row(params![path.folder(), path.stem(), run], |row| row.get(0))
        })
    }
}

/// The entry of an invoice, read through this connection.
pub(super) fn entry(conn: &Connection, id: &InvoiceId) -> rusqlite::Result<Option<Entry>> {
    conn.prepare_cached(&ENTRY)?.query_row([LedgerKey(id)], from_row).optional()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let [folder, stem] = [row.get_ref(3)?.as_str()?, row.get_ref(4)?.as_str()?];
    let Some(path) = TreePath::join(folder, stem) else {
        let error = format!("the ledger holds the impossible path {:?}", format!("{folder}/{stem}"));
        return Err(rusqlite::Error::FromSqlConversionFailure(4, rusqlite::types::Type::Text, error.into()));
    };
    Ok(Entry {
        id: row.get(0)?,
        tenant: row.get(1)?,
        time: row.get(2)?,
        path,
        digest: row.get(5)?,
        size: row.get(6)?,
        settled: row.get(7)?,
        recheck: row.get(8)?,
        table_no: row.get(9)?,
    })
}

/// Enters invoices, or their new versions.
pub(super) struct EntryWriter<'a> {
    statement: CachedStatement<'a>,
    run: RunId,
}

impl<'a> EntryWriter<'a> {
    /// `first_run` stays; `run` only moves when the file does. What is kept is in the ledger already.
    pub(super) fn begin(conn: &'a Connection, run: RunId) -> rusqlite::Result<Self> {
        let statement = conn.prepare_cached(
            "INSERT INTO entry (id, tenant, time, folder, name, sha256, size, first_run, run, adopted, settled, source_table, counted)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, coalesce(?9, 1), ?10, ?11, ?12)
             ON CONFLICT (id) DO UPDATE SET tenant = excluded.tenant, time = excluded.time, folder = excluded.folder,
                 name = excluded.name, sha256 = excluded.sha256, size = excluded.size, settled = excluded.settled,
                 recheck = 0, source_table = excluded.source_table, run = CASE WHEN ?9 IS NULL THEN run ELSE ?8 END,
                 adopted = coalesce(?9, adopted), counted = coalesce(?12, counted)",
        )?;
        Ok(Self { statement, run })
    }

    /// Enters an invoice, or its new version.
    pub(super) fn enter(
        &mut self,
        tenant: TenantNo,
        folder: FolderNo,
        entry: &Entry,
        origin: Origin,
    ) -> rusqlite::Result<()> {
        let changed = (origin != Origin::Kept).then_some(origin);
        self.statement.execute(params![
            LedgerKey(&entry.id),
            tenant,
            entry.time,
            folder,
            entry.path.stem(),
            entry.digest,
            entry.size,
            self.run,
            changed.map(Origin::is_adopted),
            entry.settled,
            entry.table_no,
            changed,
        ])?;
        Ok(())
    }
}

/// Corrects the entry of an invoice to what its file holds: path, digest and size. The entry is unsettled by
/// that, and its source table is unknown.
pub(super) fn correct(conn: &Connection, run: RunId, entry: &Entry) -> rusqlite::Result<()> {
    let folder = get_or_insert_folder(conn, &entry.path)?;
    conn.prepare_cached(
        "UPDATE entry SET folder = ?2, name = ?3, sha256 = ?4, size = ?5, run = ?6, adopted = 1, settled = 0,
             source_table = NULL, counted = NULL
         WHERE id = ?1",
    )?
    .execute(params![LedgerKey(&entry.id), folder, entry.path.stem(), entry.digest, entry.size, run])?;
    Ok(())
}

/// How a run has counted an invoice that it entered.
pub(super) fn counted(
    conn: &Connection,
    run: RunId,
    id: &InvoiceId,
) -> rusqlite::Result<Option<(Option<Tenant>, Counts)>> {
    let counted = |row: &Row<'_>| {
        let origin: Origin = row.get(1)?;
        Ok((Some(row.get(0)?), origin.counts(row.get(2)?)))
    };
    conn.prepare_cached(
        "SELECT t.name, e.counted, e.size FROM entry e JOIN tenant t ON t.n = e.tenant
         WHERE e.id = ?1 AND e.run = ?2 AND e.counted IS NOT NULL",
    )?
    .query_row(params![LedgerKey(id), run], counted)
    .optional()
}

/// The number of the tenant that an invoice is filed under.
pub(super) fn tenant(conn: &Connection, id: &InvoiceId) -> rusqlite::Result<Option<TenantNo>> {
    conn.prepare_cached("SELECT tenant FROM entry WHERE id = ?1")?
        .query_row([LedgerKey(id)], |row| row.get(0))
        .optional()
}

/// Takes an invoice out of the ledger.
pub(super) fn forget(conn: &Connection, id: &InvoiceId) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM entry WHERE id = ?1")?.execute([LedgerKey(id)])?;
    Ok(())
}

/// The number of a path's folder, which gets one if it has none.
pub(super) fn get_or_insert_folder(conn: &Connection, path: &TreePath) -> rusqlite::Result<FolderNo> {
    const INSERT: &str = "INSERT INTO folder (path) VALUES (?1) RETURNING n";
    stored::get_or_insert(conn, path.folder(), ["SELECT n FROM folder WHERE path = ?1", INSERT])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_read_back_as_it_came_and_whole_numbers_stand_in_their_order() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (id ANY PRIMARY KEY) STRICT, WITHOUT ROWID").unwrap();
        let numbers = ["-9223372036854775808", "-5", "0", "9", "10", "9223372036854775807"];
        let texts = ["", " 5", "+5", "-0", "007", "1.0", "1e3", "9223372036854775808", "A", "a", "七"];
        for id in texts.iter().chain(&numbers) {
            conn.execute("INSERT INTO t VALUES (?1)", [LedgerKey(&InvoiceId::from(*id))]).unwrap();
        }
        let mut query = conn.prepare("SELECT id, typeof(id) FROM t ORDER BY id").unwrap();
        let kept = query.query_map([], |row| Ok((row.get::<_, InvoiceId>(0)?.0, row.get::<_, String>(1)?)));
        let (as_numbers, as_texts): (Vec<_>, Vec<_>) =
            kept.unwrap().map(Result::unwrap).partition(|(_, of)| of == "integer");
        assert_eq!(as_numbers.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), numbers);
        assert_eq!(as_texts.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), texts);
    }
}
