//! Owns the engine of an SQLite file with the same table, for the demo and for tests without a server. The file is opened
//! for reading only and never created. `sample.rs` writes to it by [`write`].

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params_from_iter};

use super::column_types::changed;
use super::dialect::{SqlDialect, missing};
use super::document_limit;
use super::engine::{Bind, Engine, HandleRow, RawCell, lossy, quoted};
use super::id_column::{Keys, TableKind, id_column, unfit_id};
use super::rows;
use super::table::{Database, InvoiceTable, Layout};
use super::table_identity::TableIdentity;
use super::{Access, Replication, SourceError, SourceName, TableNames};
use crate::effort;
use crate::invoice::SourceTime;
use crate::lang::Explain;
use crate::refusal::{Refusal, cannot_be_read};
use crate::run::RunId;
use crate::window::{Clock, OpenWork};

const BUSY: Duration = Duration::from_secs(5);

/// Bytes of the longest path that SQLite opens: 512 (`MAX_PATHNAME` in its `os_unix.c`) less `-journal`.
const LONGEST_PATH: usize = 504;

/// Opens the file, which must exist, and reads the columns of its table.
///
/// # Errors
/// [`SourceError::Statement`] says why the table cannot be exported.
pub(super) fn open(path: &str, access: &Access) -> Result<InvoiceTable<File>, SourceError> {
    let mut database = open_file(path).map_err(SourceError::Final)?;
    let layout = catalogue(&mut database, access)?;
    Ok(InvoiceTable { layout, notices: Vec::new(), database })
}

/// Opens the file for reading only.
fn open_file(given: &str) -> anyhow::Result<File> {
    let failed = || text!("cannot open the source {given}", "无法打开数据源 {given}");
    let path = std::fs::canonicalize(given).map_err(cannot_be_read).explain(failed)?;
    let metadata = std::fs::metadata(&path).explain(failed)?;
    // SQLite would wait for a pipe.
    if !metadata.is_file() {
        return Err(anyhow::Error::from(text!("it is no regular file", "它不是普通文件"))).explain(failed);
    }
    let length = path.as_os_str().len();
    if length > LONGEST_PATH {
        return Err(Refusal::usage(message! {
            "the path of the source is too long for SQLite: {} has {length} bytes, and {LONGEST_PATH} are possible",
            "数据源的路径对 SQLite 来说过长: {} 有 {length} 字节，最多 {LONGEST_PATH} 字节", path.display();
            "move the file to a shorter path", "请将文件移到更短的路径"
        }));
    }
    // SQLite does not say why it cannot open a file.
    let mut opened = std::fs::File::open(&path).map_err(cannot_be_read).explain(failed)?;
    if !is_database(&mut opened).explain(failed)? {
        return Err(anyhow::Error::from(text!("it is no SQLite database", "它不是 SQLite 数据库"))).explain(failed);
    }
    let identity = format!("{}:{}", path.display(), metadata.ino());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).explain(failed)?;
    connection.busy_timeout(BUSY)?;
    Ok(File { path, identity, connection, columns: None })
}

/// Whether SQLite would take the file for a database, which may be empty.
fn is_database(file: &mut std::fs::File) -> std::io::Result<bool> {
    let mut head = Vec::new();
    file.take(HEADER.len() as u64).read_to_end(&mut head)?;
    Ok(head.is_empty() || head == HEADER)
}

/// The beginning of every SQLite file.
const HEADER: &[u8] = b"SQLite format 3\0";

impl Database for File {
    fn place(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    /// SQLite has no list of statements in which a comment would show.
    fn label(&mut self, _run: RunId) {}

    /// The path and the inode of the file.
    fn identity(&mut self) -> Result<String, SourceError> {
        Ok(self.identity.clone())
    }

    /// None where the table's ids are not AUTOINCREMENT.
    fn table_identity(&mut self, layout: &Layout, source: &SourceName) -> Result<Option<TableIdentity>, SourceError> {
        let data = std::fs::metadata(&self.path)
            .explain(|| text!("cannot look at the source {}", "无法查看数据源 {}", self.path.display()))
            .map_err(SourceError::Connection)?;
        let table = [Bind::Text(layout.names.table.clone())];
        let sql = "SELECT s.schema_version, m.rootpage, m.sql LIKE '%AUTOINCREMENT%' \
                   FROM sqlite_master m, pragma_schema_version s WHERE m.type = 'table' AND m.name = ? COLLATE NOCASE";
        let told = self.all(sql, &table)?.pop().unwrap_or_default();
        let told: Vec<String> = told.into_iter().map(lossy).collect();
        let [version, root, gives_ids_once] = told.as_slice() else { return Ok(None) };
        if gives_ids_once != "1" {
            return Ok(None);
        }
        let sql = "SELECT seq + 1 FROM sqlite_sequence WHERE name = ? COLLATE NOCASE";
        let next_id = self.all(sql, &table)?.into_iter().flatten().next();
        let facts = format!("{} on {}:{} schema {version} page {root}", source.0, data.dev(), data.ino());
        Ok(Some(TableIdentity { facts, next_id: next_id.and_then(|next| lossy(next).parse().ok()) }))
    }

    fn clock(&mut self) -> Result<Clock, SourceError> {
        let sql = "SELECT strftime('%Y-%m-%d %H:%M:%S', 'now'), \
                   strftime('%s', 'now') * 1000 + substr(strftime('%f', 'now'), 4)";
        let rows = self.all(sql, &[])?;
        let mut parts = rows.into_iter().flatten().map(lossy);
        let clock = parts.next().zip(parts.next().and_then(|unix| unix.parse().ok()));
        let (now, unix_ms) = clock.ok_or_else(|| {
            SourceError::Statement(text!("SQLite did not tell the time", "SQLite 没有给出时间").into())
        })?;
        Ok(Clock { now: SourceTime(now), unix_ms })
    }

    fn shown_at(&mut self, unix_seconds: i64) -> Result<Option<SourceTime>, SourceError> {
        let sql = format!("SELECT datetime({unix_seconds}, 'unixepoch')");
        Ok(self.rows(&sql, &[], rows::time_alone)?.into_iter().next().flatten())
    }

    /// None: a process that writes to the file holds a lock, for which readers wait.
    fn open_work(&mut self) -> Result<OpenWork, SourceError> {
        Ok(OpenWork::None)
    }

    fn replication(&mut self) -> Result<Option<Replication>, SourceError> {
        Ok(None)
    }

    fn estimate(&mut self, layout: &Layout) -> Result<Option<u64>, SourceError> {
        let rows = self.all(&format!("SELECT COUNT(*) FROM {}", quoted(&layout.names.table)), &[])?;
        Ok(rows.into_iter().flatten().next().and_then(|cell| lossy(cell).parse().ok()))
    }
}

/// The open file.
pub(super) struct File {
    path: PathBuf,
    identity: String,
    connection: Connection,
    columns: Option<KnownColumns>,
}

/// The columns for which the statements are worded.
struct KnownColumns {
    table: String,
    columns: Vec<[String; 4]>,
    /// The version of the schema. Each change of any table changes it.
    version: i64,
}

impl File {
    /// Checks that the columns still have their types. It runs in the transaction of the statement that follows.
    fn compare_columns(connection: &Connection, known: &mut KnownColumns) -> Result<(), SourceError> {
        let version = version(connection).map_err(statement_error)?;
        if version == known.version {
            return Ok(());
        }
        let now = columns(connection, &known.table).map_err(statement_error)?;
        if let Some(column) = known.columns.iter().find(|column| !now.contains(column)) {
            return Err(changed(&known.table, &column[0]));
        }
        known.version = version;
        Ok(())
    }
}

/// Of each column, generated ones too: name, type, whether it is NOT NULL, its place in the primary key.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<[String; 4]>> {
    let sql = "SELECT name, type, CAST(\"notnull\" AS TEXT), CAST(pk AS TEXT) FROM pragma_table_xinfo(?)";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([table], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
    rows.collect()
}

/// The version of the file's schema.
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "schema_version", |row| row.get(0))
}

impl Engine for File {
    fn query(&mut self, sql: &str, binds: &[Bind], each: &mut HandleRow<'_>) -> Result<(), SourceError> {
        effort::asked_the_source();
        let transaction = self.connection.unchecked_transaction().map_err(statement_error)?;
        if let Some(columns) = &mut self.columns {
            Self::compare_columns(&transaction, columns)?;
        }
        // A text finds numbers too, because the column's affinity converts it.
        let binds = binds.iter().map(|bind| match bind {
            Bind::Text(text) | Bind::Id(text) => Value::Text(text.clone()),
            Bind::Count(count) => Value::Integer(i64::try_from(*count).unwrap_or(i64::MAX)),
        });
        let mut statement = transaction.prepare_cached(sql).map_err(statement_error)?;
        let width = statement.column_count();
        let mut rows = statement.query(params_from_iter(binds)).map_err(statement_error)?;
        while let Some(row) = rows.next().map_err(statement_error)? {
            let cells: Result<_, _> = (0..width).map(|at| row.get_ref(at).map(cell)).collect();
            each(cells.map_err(statement_error)?)?;
        }
        Ok(())
    }
}

/// An error of SQLite counts as a refused statement.
fn statement_error(error: rusqlite::Error) -> SourceError {
    SourceError::Statement(error.into())
}

/// The bytes of a value as text. None is NULL.
fn cell(value: ValueRef<'_>) -> RawCell {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
    }
}

/// Reads the table's columns and indexes, and words the statements for them.
fn catalogue(file: &mut File, access: &Access) -> Result<Layout, SourceError> {
    let names = &access.names;
    let transaction = file.connection.unchecked_transaction().map_err(statement_error)?;
    let (version, columns) = (
        version(&transaction).map_err(statement_error)?,
        columns(&transaction, &names.table).map_err(statement_error)?,
    );
    let unique = unique_columns(&transaction, &names.table).map_err(statement_error)?;
    let kind =
        if is_view(&transaction, &names.table).map_err(statement_error)? { TableKind::View } else { TableKind::Table };
    let encoding: String = transaction.query_row("PRAGMA encoding", [], |row| row.get(0)).map_err(statement_error)?;
    transaction.finish().map_err(statement_error)?;
    let document = document_limit::sqlite_columns(&names.document, &encoding, access.max_document);
    let layout = check(&columns, &unique, kind, names, document).map_err(SourceError::Statement)?;
    let read = |column: &[String; 4]| layout.reads(&column[0]);
    let columns = columns.into_iter().filter(read).collect();
    file.columns = Some(KnownColumns { table: names.table.clone(), columns, version });
    Ok(layout)
}

/// The columns that have a unique index of their own.
fn unique_columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT (SELECT MIN(name) FROM pragma_index_info(l.name) HAVING COUNT(*) = 1) \
               FROM pragma_index_list(?) AS l WHERE l.\"unique\" = 1 AND l.partial = 0";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([table], |row| row.get::<_, Option<String>>(0))?;
    rows.filter_map(Result::transpose).collect()
}

/// Whether the name is that of a view.
fn is_view(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection.prepare("SELECT 1 FROM sqlite_master WHERE type = 'view' AND name = ? COLLATE NOCASE")?.exists([table])
}

/// Checks the table's columns, and words the statements for them.
fn check(
    columns: &[[String; 4]],
    unique: &[String],
    kind: TableKind,
    names: &TableNames,
    document: String,
) -> anyhow::Result<Layout> {
    ensure!(!columns.is_empty(), Refusal::TableMissing { table: names.table.clone() });
    let column = |name: &str| columns.iter().find(|column| column[0].eq_ignore_ascii_case(name));
    missing(names, |name| column(name).is_some())?;
    let primary: Vec<_> = columns.iter().filter(|column| column[3] != "0").map(|column| column[0].clone()).collect();
    let strict = |name: &str| column(name).is_some_and(|column| column[2] == "1");
    let unique: Vec<&str> = unique.iter().map(String::as_str).filter(|name| strict(name)).collect();
    let keys = Keys { primary: &primary, unique, kind };
    let id = id_column(names, &keys)?;
    let only_key = matches!(primary.as_slice(), [key] if key.eq_ignore_ascii_case(&id));
    let is_unique = only_key || keys.unique.iter().any(|name| name.eq_ignore_ascii_case(&id));
    is_unique.then_some(()).explain(|| unfit_id(names, &id, &keys))?;
    let text = |name: &str| format!("CAST({} AS TEXT)", quoted(name));
    let date = quoted(&names.date);
    let dialect = SqlDialect {
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
        ..SqlDialect::default()
    };
    let timeless = column(&names.time).is_none_or(|column| column[2] != "1");
    Ok(Layout { names: names.clone(), id, timeless, dialect })
}

/// Runs one statement with texts for its `?` and returns the number of rows that it changed.
pub(super) type RunStatement<'a> = dyn FnMut(&str, &[&str]) -> anyhow::Result<u64> + 'a;

/// SampleChanges a file in one transaction.
pub(super) fn write<T>(
    path: &Path,
    work: impl FnOnce(&mut RunStatement<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut connection = Connection::open(path).explain(|| text!("cannot write {}", "无法写入 {}", path.display()))?;
    connection.busy_timeout(BUSY)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&mut |sql, texts| Ok(transaction.prepare_cached(sql)?.execute(params_from_iter(texts))? as u64))?;
    transaction.commit()?;
    Ok(done)
}
