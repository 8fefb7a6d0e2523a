//! The same table in an SQLite file, for the demo and for tests without a server. It is opened
//! read-only and never created; `sample.rs` writes through `write`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params_from_iter};

use super::limit;
use super::sql::{Bind, Cell, Each, Engine, Statements, Wording, id_column, lossy, missing, quoted};
use super::{Access, Fault, KeyCursor, Listed, Replication, Sighting, Sink, Source, SourceName, TableNames};
use crate::effort;
use crate::event::Notice;
use crate::invoice::{InvoiceId, Key, SourceTime, Tenant};
use crate::refusal::Refusal;
use crate::run::RunId;
use crate::window::{Clock, OpenWork, Span};

const BUSY: Duration = Duration::from_secs(5);

/// One connection to the table.
pub struct Sqlite {
    access: Access,
    path: PathBuf,
    identity: String,
    statements: Statements,
    file: File,
}

impl Sqlite {
    pub fn open(path: &str, access: &Access) -> Result<Self, Fault> {
        let (path, identity, mut file) = open(path).map_err(Fault::Final)?;
        let statements = catalogue(&mut file, access)?;
        Ok(Self { access: access.clone(), path, identity, statements, file })
    }
}

fn open(given: &str) -> anyhow::Result<(PathBuf, String, File)> {
    let path = std::fs::canonicalize(given).with_context(|| format!("cannot open the source {given}"))?;
    let inode = std::fs::metadata(&path).with_context(|| format!("cannot open the source {given}"))?.ino();
    let identity = format!("{}:{inode}", path.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(&path, flags).with_context(|| format!("cannot open the source {given}"))?;
    connection.busy_timeout(BUSY)?;
    Ok((path, identity, File(connection)))
}

impl Source for Sqlite {
    fn name(&self) -> SourceName {
        SourceName(format!("sqlite:{}.{}", self.path.display(), self.statements.names.table))
    }

    /// SQLite shows nobody what it runs.
    fn label(&mut self, _run: RunId) {}

    fn identity(&mut self) -> Result<String, Fault> {
        Ok(self.identity.clone())
    }

    fn notices(&self) -> Vec<Notice> {
        Vec::new()
    }

    fn clock(&mut self) -> Result<Clock, Fault> {
        let rows = self.file.all("SELECT strftime('%Y-%m-%d %H:%M:%S', 'now'), strftime('%s', 'now')", &[])?;
        let mut parts = rows.into_iter().flatten().map(lossy);
        let clock = parts.next().zip(parts.next().and_then(|unix| unix.parse().ok()));
        let (now, unix) = clock.ok_or_else(|| Fault::Statement(anyhow!("sqlite did not tell the time")))?;
        Ok(Clock { now: SourceTime(now), unix })
    }

    /// Whoever writes to the file holds the lock that readers wait for.
    fn open_work(&mut self) -> Result<OpenWork, Fault> {
        Ok(OpenWork::None)
    }

    fn replication(&mut self) -> Result<Option<Replication>, Fault> {
        Ok(None)
    }

    fn tenants(&mut self) -> Result<Vec<Listed>, Fault> {
        self.statements.tenants(&mut self.file)
    }

    fn has_tenant(&mut self, tenant: &Tenant) -> Result<bool, Fault> {
        self.statements.has_tenant(&mut self.file, tenant)
    }

    fn estimate(&mut self) -> Result<Option<u64>, Fault> {
        let rows = self.file.all(&format!("SELECT COUNT(*) FROM {}", quoted(&self.access.names.table)), &[])?;
        Ok(rows.into_iter().flatten().next().and_then(|cell| lossy(cell).parse().ok()))
    }

    fn keys(&mut self, tenant: &Tenant, span: &Span, from: &KeyCursor, limit: usize) -> Result<Vec<Key>, Fault> {
        self.statements.keys(&mut self.file, tenant, span, from, limit)
    }

    fn documents(&mut self, ids: &[InvoiceId], sink: &mut Sink<'_>) -> Result<(), Fault> {
        self.statements.documents(&mut self.file, ids, sink)
    }

    fn page(&mut self, after: Option<&InvoiceId>, limit: usize, sink: &mut Sink<'_>) -> Result<usize, Fault> {
        self.statements.page(&mut self.file, after, limit, sink)
    }

    fn find(&mut self, number: &str, ids: &[InvoiceId]) -> Result<Vec<Sighting>, Fault> {
        self.statements.find(&mut self.file, number, ids)
    }

    fn ids(&mut self, after: Option<&InvoiceId>, limit: usize) -> Result<Vec<InvoiceId>, Fault> {
        self.statements.ids(&mut self.file, after, limit)
    }
}

/// The open file.
struct File(Connection);

impl Engine for File {
    fn query(&mut self, sql: &str, binds: &[Bind], each: &mut Each<'_>) -> Result<(), Fault> {
        effort::asked_the_source();
        // Text finds numbers too: the column's affinity converts it.
        let binds = binds.iter().map(|bind| match bind {
            Bind::Text(text) | Bind::Id(text) => Value::Text(text.clone()),
            Bind::Count(count) => Value::Integer(i64::try_from(*count).unwrap_or(i64::MAX)),
        });
        let mut statement = self.0.prepare_cached(sql).map_err(fault)?;
        let width = statement.column_count();
        let mut rows = statement.query(params_from_iter(binds)).map_err(fault)?;
        while let Some(row) = rows.next().map_err(fault)? {
            let cells: Result<_, _> = (0..width).map(|at| row.get_ref(at).map(cell)).collect();
            each(cells.map_err(fault)?)?;
        }
        Ok(())
    }
}

fn fault(error: rusqlite::Error) -> Fault {
    Fault::Statement(error.into())
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
    }
}

fn catalogue(file: &mut File, access: &Access) -> Result<Statements, Fault> {
    let names = &access.names;
    let columns: Vec<Vec<String>> = file
        .all("SELECT name, \"notnull\", pk FROM pragma_table_info(?)", &[Bind::Text(names.table.clone())])?
        .into_iter()
        .map(|row| row.into_iter().map(lossy).collect())
        .collect();
    let unique = file.all(
        "SELECT (SELECT MIN(name) FROM pragma_index_info(l.name) HAVING COUNT(*) = 1) \
         FROM pragma_index_list(?) AS l WHERE l.\"unique\" = 1 AND l.partial = 0",
        &[Bind::Text(names.table.clone())],
    )?;
    let unique: Vec<_> = unique.into_iter().flatten().map(lossy).collect();
    let encoding = file.all("PRAGMA encoding", &[])?.into_iter().flatten().map(lossy).next().unwrap_or_default();
    let document = limit::sqlite_columns(&names.document, &encoding, access.max_document);
    check(&columns, &unique, names, document).map_err(Fault::Statement)
}

/// A column is its name, whether it is NOT NULL, and its place in the primary key.
fn check(
    columns: &[Vec<String>],
    unique: &[String],
    names: &TableNames,
    document: String,
) -> anyhow::Result<Statements> {
    ensure!(!columns.is_empty(), Refusal::TableMissing { table: names.table.clone() });
    let column = |name: &str| columns.iter().find(|column| column[0].eq_ignore_ascii_case(name));
    missing(names, |name| column(name).is_some())?;
    let primary: Vec<_> = columns.iter().filter(|column| column[2] != "0").map(|column| column[0].clone()).collect();
    let id = id_column(names, &primary)?;
    let only_key = matches!(primary.as_slice(), [key] if key.eq_ignore_ascii_case(&id));
    let strict = column(&id).is_some_and(|column| column[1] == "1");
    ensure!(
        only_key || strict && unique.iter().any(|name| name.eq_ignore_ascii_case(&id)),
        "the column {id} of the table {} cannot be the id: it must be NOT NULL and have a unique index of its own",
        names.table
    );
    let text = |name: &str| format!("CAST({} AS TEXT)", quoted(name));
    let date = quoted(&names.date);
    let wording = Wording {
        id: text(&id),
        tenant: text(&names.tenant),
        country: text(&names.country),
        // SQLite would quietly turn the 31st of November into the 1st of December.
        date: format!(
            "CASE WHEN date({date}) = substr({date}, 1, 10) THEN strftime('%Y%m%d', {date}) ELSE {} END",
            text(&names.date)
        ),
        number: text(&names.number),
        time: text(&names.time),
        newest: format!("CAST(MAX({}) AS TEXT)", quoted(&names.time)),
        document,
        same_tenant: format!("CAST({} AS BLOB) = CAST(? AS BLOB)", quoted(&names.tenant)),
        by_time: String::new(),
        by_id: String::new(),
    };
    let timeless = column(&names.time).is_none_or(|column| column[1] != "1");
    Ok(Statements { names: names.clone(), id, timeless, wording })
}

/// Runs one statement with texts for its `?` and returns how many rows it changed.
pub(super) type Run<'a> = dyn FnMut(&str, &[&str]) -> anyhow::Result<u64> + 'a;

/// Changes a file in one transaction.
pub(super) fn write<T>(path: &Path, work: impl FnOnce(&mut Run<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut connection = Connection::open(path).with_context(|| format!("cannot write {}", path.display()))?;
    connection.busy_timeout(BUSY)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&mut |sql, texts| Ok(transaction.prepare_cached(sql)?.execute(params_from_iter(texts))? as u64))?;
    transaction.commit()?;
    Ok(done)
}
