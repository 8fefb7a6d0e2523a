//! The ledger: which file belongs to which invoice, and which version of it counts as seen.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::open::{self, Stamp};
use super::{State, explain};
use crate::invoice::{Digest, InvoiceId, Key, SourceTime, Tenant};
use crate::run::RunId;
use crate::tree::name::TreePath;

/// One exported invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: InvoiceId,
    pub tenant: Tenant,
    pub time: Option<SourceTime>,
    pub path: TreePath,
    pub digest: Digest,
    pub size: u64,
    pub settled: bool,
    /// An operator asked for it again: it counts as unchanged only if its file lies there. Only read.
    pub recheck: bool,
}

/// How an entry came about, for the record of which run wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Written,
    /// The file was there with the same bytes.
    Adopted,
    /// Only what we know of the row changed, not its file.
    Kept,
}

/// Whether a version of a row was exported, and counts as settled.
#[derive(Clone, Debug)]
pub enum Seen {
    Yes,
    /// What the ledger holds of it instead.
    No(Option<Entry>),
}

/// A reading connection for the thread that compares keys with the ledger. Without a state it knows
/// nothing.
pub struct Lookup {
    state: Option<Reader>,
}

struct Reader {
    conn: RefCell<Connection>,
    /// Set where the connection takes no locks: whether somebody wrote meanwhile.
    unlocked: RefCell<Option<Stamp>>,
    path: PathBuf,
}

const FROM: &str = "FROM ledger l JOIN tenant t ON t.n = l.tenant";
const COLUMNS: &str = "l.id, t.name, l.time, l.path, l.sha256, l.size, l.settled, t.recheck AND NOT l.settled";
/// Asked for nearly every row of a run.
static ENTRY: LazyLock<String> = LazyLock::new(|| format!("SELECT {COLUMNS} {FROM} WHERE l.id = ?1"));

impl Lookup {
    /// For a dry run without a state.
    pub fn nothing() -> Self {
        Self { state: None }
    }

    /// What the ledger holds of each of these invoices, all at one moment.
    pub fn entries(&self, ids: &[&InvoiceId]) -> anyhow::Result<Vec<Option<Entry>>> {
        self.ask(vec![None; ids.len()], |conn| {
            let moment = conn.unchecked_transaction()?;
            let mut query = moment.prepare_cached(&ENTRY)?;
            ids.iter().map(|id| query.query_row([id.as_str()], from_row).optional()).collect()
        })
    }

    /// What the ledger says of each of these keys, all at one moment. Cheapest in the order of ids, in which
    /// neighbours lie on one page.
    pub fn seen(&self, keys: &[Key]) -> anyhow::Result<Vec<Seen>> {
        let sql = format!("SELECT {COLUMNS}, l.settled AND l.time IS ?2 AND t.name = ?3 {FROM} WHERE l.id = ?1");
        self.ask(keys.iter().map(|_| Seen::No(None)).collect(), |conn| {
            // Outside of a transaction each statement would take and give back SQLite's locks.
            let moment = conn.unchecked_transaction()?;
            let mut query = moment.prepare_cached(&sql)?;
            let seen = |key: &Key| {
                let time = key.time.as_ref().map(SourceTime::as_str);
                let mut rows = query.query(params![key.id.as_str(), time, key.tenant.as_str()])?;
                match rows.next()? {
                    Some(row) if row.get(8)? => Ok(Seen::Yes),
                    Some(row) => Ok(Seen::No(Some(from_row(row)?))),
                    None => Ok(Seen::No(None)),
                }
            };
            keys.iter().map(seen).collect()
        })
    }

    /// What the ledger holds after an id, in the order of ids, with the run that wrote each file or took
    /// it over.
    pub fn page(&self, after: Option<&InvoiceId>, limit: usize) -> anyhow::Result<Vec<(Entry, RunId)>> {
        let from = if after.is_some() { "WHERE l.id > ?1" } else { "" };
        let sql = format!("SELECT {COLUMNS}, l.run {FROM} {from} ORDER BY l.id LIMIT ?2");
        self.ask(Vec::new(), |conn| {
            let mut query = conn.prepare_cached(&sql)?;
            let filed = |row: &Row<'_>| Ok((from_row(row)?, RunId(row.get(8)?)));
            query.query_map(params![after.map(InvoiceId::as_str), limit as i64], filed)?.collect()
        })
    }

    pub fn is_empty(&self) -> anyhow::Result<bool> {
        self.ask(true, |conn| conn.query_row("SELECT NOT EXISTS (SELECT 1 FROM ledger)", [], |row| row.get(0)))
    }

    fn ask<T>(&self, otherwise: T, question: impl Fn(&Connection) -> rusqlite::Result<T>) -> anyhow::Result<T> {
        let Some(Reader { conn, unlocked, path }) = &self.state else { return Ok(otherwise) };
        loop {
            let answer = question(&conn.borrow());
            if unlocked.borrow().as_ref().is_none_or(|stamp| stamp.still_holds(path)) {
                return answer.map_err(|error| explain(error, path));
            }
            // A run writes beside a dry run that found nobody: from now on with locks.
            let (again, stamp) = open::connect_to_look(path)?;
            conn.replace(again);
            unlocked.replace(stamp);
        }
    }
}

impl State {
    pub fn lookup(&self) -> anyhow::Result<Lookup> {
        let (conn, unlocked) = self.reading_connection()?;
        let (conn, unlocked, path) = (RefCell::new(conn), RefCell::new(unlocked), self.path.clone());
        Ok(Lookup { state: Some(Reader { conn, unlocked, path }) })
    }

    pub fn entry(&self, id: &InvoiceId) -> anyhow::Result<Option<Entry>> {
        self.glance(|conn| entry(conn, id))
    }

    /// How many invoices it holds, and the newest source time among them.
    pub fn extent(&self) -> anyhow::Result<(u64, Option<SourceTime>)> {
        self.read(|conn| {
            conn.query_row("SELECT count(*), max(time) FROM ledger", [], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, Option<String>>(1)?.map(SourceTime)))
            })
        })
    }

    /// Those of these paths that no invoice names, all at one moment.
    pub fn unnamed(&self, mut paths: Vec<TreePath>) -> anyhow::Result<Vec<TreePath>> {
        // Neighbours lie on one page of the index.
        paths.sort();
        let named: Vec<bool> = self.read(|conn| {
            let moment = conn.unchecked_transaction()?;
            let mut query = moment.prepare_cached("SELECT 1 FROM ledger WHERE path = ?1")?;
            paths.iter().map(|path| query.exists([path.as_str()])).collect()
        })?;
        Ok(paths.into_iter().zip(named).filter_map(|(path, named)| (!named).then_some(path)).collect())
    }

    /// The invoices that name a path, with the digest of its content.
    pub fn owners(&self, path: &TreePath) -> anyhow::Result<Vec<(InvoiceId, Digest)>> {
        self.glance(|conn| {
            let mut query = conn.prepare_cached("SELECT id, sha256 FROM ledger WHERE path = ?1")?;
            let rows = query.query_map([path.as_str()], |row| Ok((InvoiceId(row.get(0)?), Digest(row.get(1)?))))?;
            rows.collect()
        })
    }
}

pub(super) fn entry(conn: &Connection, id: &InvoiceId) -> rusqlite::Result<Option<Entry>> {
    conn.prepare_cached(&ENTRY)?.query_row([id.as_str()], from_row).optional()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let path: String = row.get(3)?;
    let Some(path) = TreePath::parse(&path) else {
        let error = format!("the ledger holds the impossible path {path:?}");
        return Err(rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, error.into()));
    };
    Ok(Entry {
        id: InvoiceId(row.get(0)?),
        tenant: Tenant(row.get(1)?),
        time: row.get::<_, Option<String>>(2)?.map(SourceTime),
        path,
        digest: Digest(row.get(4)?),
        size: row.get::<_, i64>(5)?.cast_unsigned(),
        settled: row.get(6)?,
        recheck: row.get(7)?,
    })
}

/// Enters an invoice, or its new version. `first_run` stays; `run` only moves when the file does.
pub(super) fn enter(conn: &Connection, run: i64, tenant: i64, entry: &Entry, origin: Origin) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO ledger (id, tenant, time, path, sha256, size, first_run, run, settled)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)
         ON CONFLICT (id) DO UPDATE SET tenant = excluded.tenant, time = excluded.time, path = excluded.path,
             sha256 = excluded.sha256, size = excluded.size, settled = excluded.settled,
             run = CASE ?9 WHEN 'kept' THEN run ELSE excluded.run END",
    )?
    .execute(params![
        entry.id.as_str(),
        tenant,
        entry.time.as_ref().map(SourceTime::as_str),
        entry.path.as_str(),
        entry.digest.0,
        entry.size.cast_signed(),
        run,
        entry.settled,
        if origin == Origin::Kept { "kept" } else { "moved" },
    ])?;
    Ok(())
}

/// Says of an invoice what its file says.
pub(super) fn correct(conn: &Connection, run: i64, entry: &Entry) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE ledger SET path = ?2, sha256 = ?3, size = ?4, run = ?5, settled = 0 WHERE id = ?1")?
        .execute(params![entry.id.as_str(), entry.path.as_str(), entry.digest.0, entry.size.cast_signed(), run])?;
    Ok(())
}

pub(super) fn forget(conn: &Connection, id: &InvoiceId) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM ledger WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}
