//! The same table in an SQLite file, for the demo and for tests without a server. It is opened
//! read-only and never created; `sample.rs` writes through `write`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params_from_iter};

use super::limit;
use super::shape::changed;
use super::sql::{Bind, Cell, Each, Engine, Statements, Wording, id_column, lossy, missing, quoted};
use super::table_identity::TableIdentity;
use super::{Access, Fault, KeyCursor, Listing, Replication, Sighting, Sink, Source, SourceName, TableNames};
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
    Ok((path, identity, File { connection, layout: None }))
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

    fn table_identity(&mut self) -> Result<Option<TableIdentity>, Fault> {
        let data = std::fs::metadata(&self.path)
            .with_context(|| format!("cannot look at the source {}", self.path.display()))
            .map_err(Fault::Connection)?;
        let table = [Bind::Text(self.access.names.table.clone())];
        let sql = "SELECT s.schema_version, m.rootpage, m.sql LIKE '%AUTOINCREMENT%' \
                   FROM sqlite_master m, pragma_schema_version s WHERE m.type = 'table' AND m.name = ? COLLATE NOCASE";
        let told = self.file.all(sql, &table)?.pop().unwrap_or_default();
        let told: Vec<String> = told.into_iter().map(lossy).collect();
        let [version, root, gives_ids_once] = told.as_slice() else { return Ok(None) };
        if gives_ids_once != "1" {
            return Ok(None);
        }
        let sql = "SELECT seq + 1 FROM sqlite_sequence WHERE name = ? COLLATE NOCASE";
        let next_id = self.file.all(sql, &table)?.into_iter().flatten().next();
        let facts = format!("{} on {}:{} schema {version} page {root}", self.name().0, data.dev(), data.ino());
        Ok(Some(TableIdentity { facts, next_id: next_id.and_then(|next| lossy(next).parse().ok()) }))
    }

    fn notices(&self) -> Vec<Notice> {
        Vec::new()
    }

    fn clock(&mut self) -> Result<Clock, Fault> {
        let sql = "SELECT strftime('%Y-%m-%d %H:%M:%S', 'now'), \
                   strftime('%s', 'now') * 1000 + substr(strftime('%f', 'now'), 4)";
        let rows = self.file.all(sql, &[])?;
        let mut parts = rows.into_iter().flatten().map(lossy);
        let clock = parts.next().zip(parts.next().and_then(|unix| unix.parse().ok()));
        let (now, unix_ms) = clock.ok_or_else(|| Fault::Statement(anyhow!("sqlite did not tell the time")))?;
        Ok(Clock { now: SourceTime(now), unix_ms })
    }

    /// Whoever writes to the file holds the lock that readers wait for.
    fn open_work(&mut self) -> Result<OpenWork, Fault> {
        Ok(OpenWork::None)
    }

    fn replication(&mut self) -> Result<Option<Replication>, Fault> {
        Ok(None)
    }

    fn tenants(&mut self, upto: &SourceTime) -> Result<Listing, Fault> {
        self.statements.tenants(&mut self.file, upto)
    }

    fn tenantless(&mut self, limit: usize) -> Result<Vec<InvoiceId>, Fault> {
        self.statements.tenantless(&mut self.file, limit)
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
struct File {
    connection: Connection,
    layout: Option<Layout>,
}

/// The table that the statements are worded for.
struct Layout {
    table: String,
    columns: Vec<[String; 4]>,
    /// SQLite changes it with every change of any table.
    version: i64,
}

impl File {
    /// Looks at the table as the statement sees it that follows in the same transaction.
    fn compare_layout(connection: &Connection, layout: &mut Layout) -> Result<(), Fault> {
        let version = version(connection).map_err(fault)?;
        if version == layout.version {
            return Ok(());
        }
        let now = columns(connection, &layout.table).map_err(fault)?;
        if let Some(column) = layout.columns.iter().find(|column| !now.contains(column)) {
            return Err(changed(&layout.table, &column[0]));
        }
        layout.version = version;
        Ok(())
    }
}

/// Name, type, whether it is NOT NULL, and its place in the primary key; of generated columns too.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<[String; 4]>> {
    let sql = "SELECT name, type, CAST(\"notnull\" AS TEXT), CAST(pk AS TEXT) FROM pragma_table_xinfo(?)";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([table], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
    rows.collect()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "schema_version", |row| row.get(0))
}

impl Engine for File {
    fn query(&mut self, sql: &str, binds: &[Bind], each: &mut Each<'_>) -> Result<(), Fault> {
        effort::asked_the_source();
        let transaction = self.connection.unchecked_transaction().map_err(fault)?;
        if let Some(layout) = &mut self.layout {
            Self::compare_layout(&transaction, layout)?;
        }
        // Text finds numbers too: the column's affinity converts it.
        let binds = binds.iter().map(|bind| match bind {
            Bind::Text(text) | Bind::Id(text) => Value::Text(text.clone()),
            Bind::Count(count) => Value::Integer(i64::try_from(*count).unwrap_or(i64::MAX)),
        });
        let mut statement = transaction.prepare_cached(sql).map_err(fault)?;
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
    let transaction = file.connection.unchecked_transaction().map_err(fault)?;
    let (version, columns) =
        (version(&transaction).map_err(fault)?, columns(&transaction, &names.table).map_err(fault)?);
    let unique = unique_columns(&transaction, &names.table).map_err(fault)?;
    let encoding: String = transaction.query_row("PRAGMA encoding", [], |row| row.get(0)).map_err(fault)?;
    transaction.finish().map_err(fault)?;
    let document = limit::sqlite_columns(&names.document, &encoding, access.max_document);
    let statements = check(&columns, &unique, names, document).map_err(Fault::Statement)?;
    let read = |column: &[String; 4]| statements.reads(&column[0]);
    let columns = columns.into_iter().filter(read).collect();
    file.layout = Some(Layout { table: names.table.clone(), columns, version });
    Ok(statements)
}

/// The columns that have a unique index of their own.
fn unique_columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT (SELECT MIN(name) FROM pragma_index_info(l.name) HAVING COUNT(*) = 1) \
               FROM pragma_index_list(?) AS l WHERE l.\"unique\" = 1 AND l.partial = 0";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([table], |row| row.get::<_, Option<String>>(0))?;
    rows.filter_map(Result::transpose).collect()
}

fn check(
    columns: &[[String; 4]],
    unique: &[String],
    names: &TableNames,
    document: String,
) -> anyhow::Result<Statements> {
    ensure!(!columns.is_empty(), Refusal::TableMissing { table: names.table.clone() });
    let column = |name: &str| columns.iter().find(|column| column[0].eq_ignore_ascii_case(name));
    missing(names, |name| column(name).is_some())?;
    let primary: Vec<_> = columns.iter().filter(|column| column[3] != "0").map(|column| column[0].clone()).collect();
    let id = id_column(names, &primary)?;
    let only_key = matches!(primary.as_slice(), [key] if key.eq_ignore_ascii_case(&id));
    let strict = column(&id).is_some_and(|column| column[2] == "1");
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
        status: quoted(&names.status),
        time: text(&names.time),
        newest: format!("CAST(MAX({}) AS TEXT)", quoted(&names.time)),
        document,
        same_tenant: format!("CAST({} AS BLOB) = CAST(? AS BLOB)", quoted(&names.tenant)),
        lost: "NULL".to_owned(),
        document_measure: None,
        id_by_bytes: None,
        tenant_by_bytes: None,
        types_of_tenant: String::new(),
        types_of_id: String::new(),
        types_of_key: String::new(),
        types_of_row: String::new(),
        by_time: String::new(),
        by_id: String::new(),
    };
    let timeless = column(&names.time).is_none_or(|column| column[2] != "1");
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
