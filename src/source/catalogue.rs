//! Owns the check of a table in MySQL and MariaDB: its columns and indexes from the server's catalogue, whether it can be
//! exported, and the wording of its statements. It names no driver.

use anyhow::ensure;

use super::charset::Charset;
use super::column_types::{is_binary, is_integer, is_text, is_watched, type_of, types_of};
use super::dialect::{SqlDialect, missing};
use super::document_limit::Limit;
use super::engine::{Bind, Engine, quoted};
use super::error_codes::{ErrorClass, class};
use super::id_column::{Keys, TableKind, id_column, unfit_id};
use super::table::Layout;
use super::{SourceError, TableNames};
use crate::event::Notice;
use crate::lang::Explain;
use crate::refusal::Refusal;

/// How MariaDB's catalogue marks the column that ends a row of a table with system versioning. Unique keys of such a
/// table contain that column.
const ROW_END: &str = "ROW END";

/// The columns and indexes of the table.
pub(super) struct Catalogue {
    columns: Vec<Column>,
    indexes: Vec<Index>,
    /// Asked for where no column can be the id.
    kind: TableKind,
}

struct Column {
    name: String,
    /// `bigint`
    kind: String,
    nullable: bool,
    /// The character set of a text column that the statements read.
    charset: Option<Charset>,
}

struct Index {
    name: String,
    unique: bool,
    columns: Vec<String>,
}

/// The result of the check of a table.
pub(super) struct Inspected {
    pub layout: Layout,
    pub notices: Vec<Notice>,
    pub integer_id: bool,
    /// The session's time zone that the type of the source time demands.
    pub zone: Option<String>,
    /// Name and type of each column of which every answer shows the type.
    pub kinds: Vec<(String, String)>,
}

impl Catalogue {
    /// Reads the columns, their types and character sets, and the indexes that statements can use. A missing table
    /// has no columns.
    pub(super) fn read(engine: &mut impl Engine, names: &TableNames) -> Result<Self, SourceError> {
        let of_table = "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
        let table = [Bind::Text(names.table.clone())];
        let sql = format!(
            "SELECT COLUMN_NAME, DATA_TYPE, IS_NULLABLE, GENERATION_EXPRESSION FROM information_schema.COLUMNS {of_table}"
        );
        let mut columns = Vec::new();
        let mut row_end = None;
        for row in engine.texts(&sql, &table)? {
            let Ok([name, kind, nullable, generated]) = <[_; 4]>::try_from(row) else { continue };
            let name = name.unwrap_or_default();
            if generated.as_deref() == Some(ROW_END) {
                row_end = Some(name.clone());
            }
            let (kind, nullable) = (kind.unwrap_or_default().to_lowercase(), nullable.as_deref() != Some("NO"));
            columns.push(Column { name, kind, nullable, charset: None });
        }
        let sql = format!(
            "SELECT INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS {of_table} \
             ORDER BY INDEX_NAME, SEQ_IN_INDEX"
        );
        let mut indexes: Vec<Index> = Vec::new();
        for row in engine.texts(&sql, &table)? {
            let Ok([name, non_unique, column, prefix]) = <[_; 4]>::try_from(row) else { continue };
            // Rows of the present have one value there, so that they are unique without it.
            if column.is_some() && column == row_end {
                continue;
            }
            // An index on a prefix of a column, or on an expression, orders no column.
            let column = column.filter(|_| prefix.is_none()).unwrap_or_default();
            let name = name.unwrap_or_default();
            match indexes.last_mut().filter(|index| index.name == name) {
                Some(index) => index.columns.push(column),
                None => {
                    let unique = non_unique.as_deref() == Some("0");
                    indexes.push(Index { name, unique, columns: vec![column] });
                }
            }
        }
        let catalogue = Self { columns, indexes, kind: TableKind::Table };
        if catalogue.columns.is_empty() {
            return Ok(catalogue);
        }
        let catalogue = catalogue.probe(engine, names)?;
        if catalogue.id_index(names).is_ok() {
            return Ok(catalogue);
        }
        let sql = format!("SELECT TABLE_TYPE, CREATE_OPTIONS FROM information_schema.TABLES {of_table}");
        let facts = engine.texts(&sql, &table)?.into_iter().next().unwrap_or_default();
        let has = |nth: usize, word| facts.get(nth).and_then(Option::as_deref).is_some_and(|fact| fact.contains(word));
        let kind = match (has(0, "VIEW"), has(1, "partitioned")) {
            (true, _) => TableKind::View,
            (_, true) => TableKind::Partitioned,
            _ => TableKind::Table,
        };
        Ok(Self { kind, ..catalogue })
    }

    /// Asks the table itself. The catalogue lists tables that the account cannot read, and indexes that the optimizer
    /// ignores and that no statement can name. Any other error is returned, since it says nothing about either.
    fn probe(mut self, engine: &mut impl Engine, names: &TableNames) -> Result<Self, SourceError> {
        let table = quoted(&names.table);
        self.read_column_types(engine, names)?;
        for index in std::mem::take(&mut self.indexes) {
            match engine.all(&format!("SELECT 1 FROM {table} {} LIMIT 0", index.forced()), &[]) {
                Err(SourceError::Statement(error)) if class(&error) == ErrorClass::NoIndex => {
                    // Without a primary key no row can be read. A statement that uses the key returns its error.
                    if index.name == "PRIMARY" {
                        self.indexes.push(index);
                    }
                }
                Err(error) => return Err(error),
                Ok(_) => self.indexes.push(index),
            }
        }
        Ok(self)
    }

    /// Learns the types and character sets of the columns in one answer, as of one moment. It reads no row.
    fn read_column_types(&mut self, engine: &mut impl Engine, names: &TableNames) -> Result<(), SourceError> {
        let read: Vec<usize> = self.read_columns(names);
        let texts: Vec<usize> = read.iter().copied().filter(|n| is_text(&self.columns[*n].kind)).collect();
        let charset = |n: &usize| {
            let name = quoted(&self.columns[*n].name);
            format!(", CHARSET(MAX({name})), COLLATION(MAX({name}))")
        };
        // An answer of aggregates has one row even if no row of the table is read.
        let sql = format!(
            "SELECT COUNT(*){}{} FROM {} WHERE FALSE",
            texts.iter().map(charset).collect::<String>(),
            types_of(self.watched(&read)),
            quoted(&names.table)
        );
        let answer = engine.texts(&sql, &[]).map_err(|error| match error {
            SourceError::Statement(error) if matches!(class(&error), ErrorClass::Denied | ErrorClass::NoTable) => {
                let (table, detail) = (names.table.clone(), format!("{error:#}"));
                SourceError::Statement(Refusal::TableUnreadable { table, detail }.into())
            }
            other => other,
        })?;
        let charsets: Vec<Option<String>> = answer.into_iter().flatten().skip(1).collect();
        let mut probed: Vec<Charset> = Vec::new();
        for (n, charset) in texts.iter().zip(charsets.chunks(2)) {
            let [charset, collation] = [0, 1].map(|at| charset.get(at).cloned().flatten().unwrap_or_default());
            let charset = match probed.iter().find(|probed| probed.name == charset) {
                Some(probed) => probed.collated(collation),
                None => Charset::probe(engine, charset, collation)?,
            };
            probed.push(charset.clone());
            self.columns[*n].charset = Some(charset);
        }
        Ok(())
    }

    /// The positions of the columns that the statements read.
    fn read_columns(&self, names: &TableNames) -> Vec<usize> {
        let id = id_column(names, &self.keys()).ok();
        let TableNames { tenant, country, date, number, status, document, time, .. } = names;
        let read = [tenant, country, date, number, status, document, time].into_iter().chain(&id);
        let mut places: Vec<usize> = read.filter_map(|name| self.place(name)).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The names of those columns of which answers show the types.
    fn watched<'a>(&'a self, places: &'a [usize]) -> impl Iterator<Item = &'a str> {
        let columns = places.iter().map(|n| &self.columns[*n]);
        columns.filter(|column| is_watched(&column.kind)).map(|column| column.name.as_str())
    }

    /// The columns of the primary key.
    fn primary(&self) -> &[String] {
        self.indexes.iter().find(|index| index.name == "PRIMARY").map_or(&[], |index| &index.columns)
    }

    /// Words the statements for the table.
    ///
    /// # Errors
    /// The table is missing, lacks a column, or has one of a type that cannot be exported.
    pub(super) fn check(&self, names: &TableNames, max_document: u64) -> anyhow::Result<Inspected> {
        ensure!(!self.columns.is_empty(), Refusal::TableMissing { table: names.table.clone() });
        missing(names, |name| self.column(name).is_ok())?;
        let (id, by_id) = self.id_index(names)?;
        let zone = self.check_types(names, &id)?;
        let mut wanted = vec![names.tenant.as_str(), &names.status, &names.time];
        if by_id.name != "PRIMARY" {
            wanted.push(&id);
        }
        let by_time = self.index_on(&wanted);
        let notices = if by_time.is_some() { Vec::new() } else { vec![missing_index(names, &wanted)] };
        let dialect = SqlDialect {
            by_time: by_time.map(Index::forced).unwrap_or_default(),
            by_id: by_id.forced(),
            ..self.dialect(names, &id, max_document)?
        };
        let integer_id = is_integer(&self.column(&id)?.kind);
        let timeless = self.column(&names.time)?.nullable;
        let layout = Layout { names: names.clone(), id, timeless, dialect };
        let read = self.read_columns(names);
        let kind = |name: &str| Some((name.to_owned(), self.column(name).ok()?.kind.clone()));
        let kinds = self.watched(&read).filter_map(kind).collect();
        Ok(Inspected { layout, notices, integer_id, zone, kinds })
    }

    /// Refuses columns of types that cannot be an id, a tenant or a source time. Returns the session's time zone that the
    /// type of the source time demands.
    fn check_types(&self, names: &TableNames, id: &str) -> anyhow::Result<Option<String>> {
        let kind = self.column(id)?.kind.as_str();
        self.column(id)?.can_be_id().then_some(()).explain(|| {
            text!(
                "the id column {id} has the type {kind}; only integers and CHAR or VARCHAR columns can be ids",
                "id 列 {id} 的类型是 {kind}；只有整数列和 CHAR、VARCHAR 列可以作为 id"
            )
        })?;
        let tenant = self.column(&names.tenant)?;
        (!tenant.has_no_text()).then_some(()).explain(|| {
            let (column, kind) = (&names.tenant, &tenant.kind);
            text!(
                "the tenant column {column} has the type {kind}, which has no text; only text and numbers can name tenants",
                "租户列 {column} 的类型 {kind} 不是文本；只有文本和数字可以表示租户"
            )
        })?;
        match self.column(&names.time)?.kind.as_str() {
            "timestamp" => Ok(Some("+00:00".to_owned())),
            "datetime" => Ok(None),
            other => {
                let column = &names.time;
                Err(text!(
                    "the time column {column} has the type {other}; it must be DATETIME or TIMESTAMP",
                    "时间列 {column} 的类型是 {other}；必须是 DATETIME 或 TIMESTAMP"
                )
                .into())
            }
        }
    }

    /// The day of an invoice as a date. A TIMESTAMP falls on its day in the server's own zone, also where source times
    /// are read in UTC.
    fn issue_day(&self, names: &TableNames) -> anyhow::Result<String> {
        let date = quoted(&names.date);
        Ok(match (self.column(&names.time)?.kind.as_str(), self.column(&names.date)?.kind.as_str()) {
            ("timestamp", "timestamp") => format!("CONVERT_TZ({date}, @@SESSION.time_zone, @@GLOBAL.time_zone)"),
            _ => date,
        })
    }

    /// The expressions for the table's columns.
    fn dialect(&self, names: &TableNames, id: &str, max_document: u64) -> anyhow::Result<SqlDialect> {
        let (time, date, day) = (quoted(&names.time), quoted(&names.date), self.issue_day(names)?);
        let [tenant, country, number, document, status] =
            [&names.tenant, &names.country, &names.number, &names.document, &names.status]
                .map(|name| self.column(name));
        let (tenant, country, number, document, id) = (tenant?, country?, number?, document?, self.column(id)?);
        let same = |text: &str| format!("CAST(CONVERT({text} USING utf8mb4) AS BINARY)");
        let types = |names: &[&str]| types_of(names.iter().copied().filter(|name| self.is_watched(name)));
        let (of_id, of_tenant, of_time) =
            (id.name.as_str(), tenant.name.as_str(), self.column(&names.time)?.name.as_str());
        let (limit, text) = (document.limit(max_document), document.text());
        let only_if_sent = |measure: String| match &limit {
            Some(limit) => limit.only_if_sent(&measure),
            None => measure,
        };
        let measure = document.charset.as_ref().and_then(|charset| charset.measure(&document.name));
        Ok(SqlDialect {
            id: id.identifier(),
            tenant: tenant.identifier(),
            country: country.text(),
            date: format!("COALESCE(DATE_FORMAT({day}, '%Y%m%d'), CAST({date} AS CHAR))"),
            number: number.text(),
            status: status?.text(),
            document: limit.as_ref().map_or_else(|| format!("{text}, NULL"), |limit| limit.columns(&text)),
            time: format!("CAST({time} AS CHAR)"),
            newest: format!("CAST(MAX({time}) AS CHAR)"),
            lost: lost([tenant.unfindable(), country.lost(), number.lost()]),
            document_measure: measure.map(|measure| measure.map(only_if_sent)),
            same_tenant: format!("{} = {}", same(&tenant.identifier()), same("?")),
            holds_id: id.charset.as_ref().and_then(Charset::holds),
            holds_tenant: tenant.charset.as_ref().and_then(Charset::holds),
            holds_number: number.charset.as_ref().and_then(Charset::holds),
            id_by_bytes: id.charset.as_ref().and_then(Charset::by_bytes),
            tenant_by_bytes: tenant.charset.as_ref().and_then(Charset::by_bytes),
            types_of_tenant: types(&[of_tenant]),
            types_of_newest: types(&[of_tenant]) + &type_of(of_time, &format!("MAX({time})")),
            types_of_id: types(&[of_id]),
            types_of_key: types(&[of_id, of_tenant, of_time]),
            types_of_row: types(&[of_id, of_tenant, of_time, &country.name, &number.name, &document.name]),
            ..SqlDialect::default()
        })
    }

    /// The column of this name. Names are compared as the server does, without case.
    fn column(&self, name: &str) -> anyhow::Result<&Column> {
        let found = self.place(name).map(|place| &self.columns[place]);
        found.explain(|| text!("there is no column {}", "没有列 {}", name.to_lowercase()))
    }

    /// The position of the column of this name.
    fn place(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.columns.iter().position(|column| column.name.to_lowercase() == name)
    }

    /// Whether answers show the type of this column.
    fn is_watched(&self, name: &str) -> bool {
        self.column(name).is_ok_and(|column| is_watched(&column.kind))
    }

    /// The column of the ids, and the unique index of it alone.
    fn id_index(&self, names: &TableNames) -> anyhow::Result<(String, &Index)> {
        let id = id_column(names, &self.keys())?;
        match self.unique_index(&id) {
            Some(index) if !self.column(&id)?.nullable => Ok((id, index)),
            _ => Err(unfit_id(names, &id, &self.keys()).into()),
        }
    }

    /// The unique index of a column alone.
    fn unique_index(&self, column: &str) -> Option<&Index> {
        self.indexes.iter().find(|index| index.unique && index.covers(&[column]) && index.columns.len() == 1)
    }

    /// The keys that the choice of an id depends on.
    fn keys(&self) -> Keys<'_> {
        let fits =
            |column: &&Column| !column.nullable && column.can_be_id() && self.unique_index(&column.name).is_some();
        let unique = self.columns.iter().filter(fits).map(|column| column.name.as_str()).collect();
        Keys { primary: self.primary(), unique, kind: self.kind }
    }

    /// An index that begins with these columns.
    fn index_on(&self, columns: &[&str]) -> Option<&Index> {
        self.indexes.iter().find(|index| index.covers(columns))
    }
}

/// The notice with the statement that creates the index.
fn missing_index(names: &TableNames, columns: &[&str]) -> Notice {
    let columns: Vec<_> = columns.iter().map(|name| quoted(name)).collect();
    let statement = format!("CREATE INDEX idx_incremental_export ON {} ({})", quoted(&names.table), columns.join(", "));
    Notice::MissingIndex { statement }
}

impl Index {
    /// Names the index in a statement. Without it the server sorts documents where a table has few rows or old
    /// statistics.
    fn forced(&self) -> String {
        format!("FORCE INDEX ({})", quoted(&self.name))
    }

    /// Whether the index begins with these columns in this order.
    fn covers(&self, columns: &[&str]) -> bool {
        self.columns.len() >= columns.len()
            && columns.iter().zip(&self.columns).all(|(wanted, has)| wanted.to_lowercase() == has.to_lowercase())
    }
}

impl Column {
    /// Whether ids can have this type.
    fn can_be_id(&self) -> bool {
        is_integer(&self.kind) || matches!(self.kind.as_str(), "char" | "varchar" | "uuid")
    }

    /// Whether the column holds bytes or bits.
    fn has_no_text(&self) -> bool {
        is_binary(&self.kind) || self.kind == "bit"
    }

    /// The column as UTF-8. A CAST of a text column would replace bytes that are no characters, which must be seen.
    fn text(&self) -> String {
        match &self.charset {
            Some(charset) => charset.text(&self.name),
            None if is_text(&self.kind) || self.has_no_text() => quoted(&self.name),
            None => format!("CAST({} AS CHAR)", quoted(&self.name)),
        }
    }

    /// The limit of `--max-document` for this column.
    fn limit(&self, max_document: u64) -> Option<Limit> {
        let charset = self.charset.as_ref().map(|charset| charset.name.as_str());
        Limit::of(&self.name, &self.kind, charset, max_document)
    }

    /// The column as a text that finds its row again.
    fn identifier(&self) -> String {
        self.charset.as_ref().map_or_else(|| self.text(), |charset| charset.identifier(&self.name))
    }

    /// The column's name if its text cannot find the row.
    fn unfindable(&self) -> Option<String> {
        self.charset.as_ref()?.unfindable(&self.name)
    }

    /// The column's name if its text lost characters.
    fn lost(&self) -> Option<String> {
        self.charset.as_ref()?.lost(&self.name)
    }
}

/// The names of the columns that lost characters, with commas between them.
fn lost<const N: usize>(columns: [Option<String>; N]) -> String {
    let columns: Vec<String> = columns.into_iter().flatten().collect();
    if columns.is_empty() { "NULL".to_owned() } else { format!("CONCAT_WS(', ', {})", columns.join(", ")) }
}
