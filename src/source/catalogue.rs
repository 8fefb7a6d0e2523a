//! What the catalogue of MySQL and MariaDB says about the table, whether it can be exported, and how
//! the statements are worded for it. It names no driver.

use anyhow::{Context, bail, ensure};

use super::limit;
use super::sql::{Bind, Engine, Statements, Wording, id_column, lossy, missing, quoted};
use super::{Fault, TableNames};
use crate::event::Notice;
use crate::refusal::Refusal;

/// The table's columns and indexes.
pub(super) struct Catalogue {
    columns: Vec<Column>,
    indexes: Vec<Index>,
}

struct Column {
    name: String,
    /// `bigint`
    kind: String,
    /// None where it holds no text.
    charset: Option<String>,
    nullable: bool,
}

struct Index {
    name: String,
    unique: bool,
    columns: Vec<String>,
}

/// What follows from it.
pub(super) struct Table {
    pub statements: Statements,
    pub notices: Vec<Notice>,
    pub integer_id: bool,
    /// The zone that the source time's type demands.
    pub zone: Option<String>,
}

impl Catalogue {
    pub(super) fn read(engine: &mut impl Engine, names: &TableNames) -> Result<Self, Fault> {
        let of_table = "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
        let table = [Bind::Text(names.table.clone())];
        let sql = format!(
            "SELECT COLUMN_NAME, DATA_TYPE, IS_NULLABLE, CHARACTER_SET_NAME FROM information_schema.COLUMNS {of_table}"
        );
        let mut columns = Vec::new();
        for row in engine.all(&sql, &table)? {
            let [name, kind, nullable, charset] = row.as_slice() else { continue };
            let [name, kind, nullable] = [name, kind, nullable].map(|cell| lossy(cell.clone()));
            let charset = charset.clone().map(|charset| lossy(Some(charset)));
            columns.push(Column { name, kind: kind.to_lowercase(), charset, nullable: nullable != "NO" });
        }
        let sql = format!(
            "SELECT INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS {of_table} \
             ORDER BY INDEX_NAME, SEQ_IN_INDEX"
        );
        let mut indexes: Vec<Index> = Vec::new();
        for row in engine.all(&sql, &table)? {
            let [name, non_unique, column, prefix] = row.as_slice() else { continue };
            // An index over the beginning of a column or over an expression orders no column.
            let column = if prefix.is_none() { lossy(column.clone()) } else { String::new() };
            let name = lossy(name.clone());
            match indexes.last_mut().filter(|index| index.name == name) {
                Some(index) => index.columns.push(column),
                None => {
                    let unique = non_unique.as_deref() == Some(b"0");
                    indexes.push(Index { name, unique, columns: vec![column] });
                }
            }
        }
        let catalogue = Self { columns, indexes };
        if catalogue.columns.is_empty() { Ok(catalogue) } else { catalogue.tried_out(engine, names) }
    }

    /// A table may be listed that the account cannot read, and an index that the optimizer was told to
    /// ignore, which cannot be asked for.
    fn tried_out(mut self, engine: &mut impl Engine, names: &TableNames) -> Result<Self, Fault> {
        let table = quoted(&names.table);
        engine.all(&format!("SELECT 1 FROM {table} LIMIT 0"), &[]).map_err(|fault| match fault {
            Fault::Statement(error) => {
                let (table, detail) = (names.table.clone(), format!("{error:#}"));
                Fault::Statement(Refusal::TableUnreadable { table, detail }.into())
            }
            other => other,
        })?;
        for index in std::mem::take(&mut self.indexes) {
            match engine.all(&format!("SELECT 1 FROM {table} {} LIMIT 0", index.forced()), &[]) {
                Err(Fault::Statement(_)) if index.name != "PRIMARY" => {}
                Ok(_) | Err(Fault::Statement(_)) => self.indexes.push(index),
                Err(fault) => return Err(fault),
            }
        }
        Ok(self)
    }

    pub(super) fn check(&self, names: &TableNames, max_document: u64) -> anyhow::Result<Table> {
        ensure!(!self.columns.is_empty(), Refusal::TableMissing { table: names.table.clone() });
        missing(names, |name| self.column(name).is_ok())?;
        let primary = self.indexes.iter().find(|index| index.name == "PRIMARY");
        let id = id_column(names, primary.map_or(&[], |index| &index.columns))?;
        let by_id = self.unique_index(names, &id)?;
        let integer_id = self.column(&id)?.is_integer();
        ensure!(
            integer_id || matches!(self.column(&id)?.kind.as_str(), "char" | "varchar" | "uuid"),
            "the id column {id} has the type {}; only integers and CHAR or VARCHAR columns can be ids",
            self.column(&id)?.kind
        );
        let tenant = self.column(&names.tenant)?;
        ensure!(
            !tenant.is_binary(),
            "the tenant column {} has the type {}, which has no text; only text and numbers can name tenants",
            names.tenant,
            tenant.kind
        );
        let time = self.column(&names.time)?;
        let zone = match time.kind.as_str() {
            "timestamp" => Some("+00:00".to_owned()),
            "datetime" => None,
            other => bail!("the time column {} has the type {other}; it must be DATETIME or TIMESTAMP", names.time),
        };
        let mut wanted = vec![names.tenant.as_str(), &names.status, &names.time];
        if by_id.name != "PRIMARY" {
            wanted.push(&id);
        }
        let by_time = self.index_on(&wanted);
        let notices = if by_time.is_some() { Vec::new() } else { vec![missing_index(names, &wanted)] };
        let wording = Wording {
            by_time: by_time.map(Index::forced).unwrap_or_default(),
            by_id: by_id.forced(),
            ..self.wording(names, &id, max_document)?
        };
        let statements = Statements { names: names.clone(), id, timeless: time.nullable, wording };
        Ok(Table { statements, notices, integer_id, zone })
    }

    fn wording(&self, names: &TableNames, id: &str, max_document: u64) -> anyhow::Result<Wording> {
        let document = self.column(&names.document)?;
        let (time, date, tenant) = (quoted(&names.time), quoted(&names.date), quoted(&names.tenant));
        // An issue date that is a moment falls on the day that the server's own zone gives it, also
        // where source times are read in UTC.
        let day = match (self.column(&names.time)?.kind.as_str(), self.column(&names.date)?.kind.as_str()) {
            ("timestamp", "timestamp") => format!("CONVERT_TZ({date}, @@SESSION.time_zone, @@GLOBAL.time_zone)"),
            _ => date.clone(),
        };
        Ok(Wording {
            id: self.column(id)?.text(),
            tenant: self.column(&names.tenant)?.text(),
            country: self.column(&names.country)?.text(),
            date: format!("COALESCE(DATE_FORMAT({day}, '%Y%m%d'), CAST({date} AS CHAR))"),
            number: self.column(&names.number)?.text(),
            time: format!("CAST({time} AS CHAR)"),
            newest: format!("CAST(MAX({time}) AS CHAR)"),
            document: limit::columns(&names.document, &document.kind, document.charset.as_deref(), max_document),
            same_tenant: format!(
                "CAST(CONVERT({tenant} USING utf8mb4) AS BINARY) = CAST(CONVERT(? USING utf8mb4) AS BINARY)"
            ),
            by_time: String::new(),
            by_id: String::new(),
        })
    }

    /// Column names are compared as the server does.
    fn column(&self, name: &str) -> anyhow::Result<&Column> {
        let name = name.to_lowercase();
        let found = self.columns.iter().find(|column| column.name.to_lowercase() == name);
        found.with_context(|| format!("there is no column {name}"))
    }

    fn unique_index(&self, names: &TableNames, id: &str) -> anyhow::Result<&Index> {
        let index = self.indexes.iter().find(|index| index.unique && index.covers(&[id]) && index.columns.len() == 1);
        match index {
            Some(index) if !self.column(id)?.nullable => Ok(index),
            _ => bail!(
                "the column {id} of the table {} cannot be the id: it must be NOT NULL and have a unique index of its own",
                names.table
            ),
        }
    }

    fn index_on(&self, columns: &[&str]) -> Option<&Index> {
        self.indexes.iter().find(|index| index.covers(columns))
    }
}

fn missing_index(names: &TableNames, columns: &[&str]) -> Notice {
    let columns: Vec<_> = columns.iter().map(|name| quoted(name)).collect();
    let statement = format!("CREATE INDEX idx_incremental_export ON {} ({})", quoted(&names.table), columns.join(", "));
    Notice::MissingIndex { statement }
}

impl Index {
    /// Without it a table of few rows, or old statistics, would have documents sorted.
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
    fn is_integer(&self) -> bool {
        matches!(self.kind.as_str(), "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
    }

    fn is_binary(&self) -> bool {
        self.kind.contains("binary") || self.kind.contains("blob") || self.kind == "bit"
    }

    /// Texts come as they are: a CAST would replace bytes that are no text instead of showing them.
    fn text(&self) -> String {
        let name = quoted(&self.name);
        let is_text = self.kind.contains("char") || self.kind.contains("text") || self.kind == "enum";
        if is_text || self.is_binary() { name } else { format!("CAST({name} AS CHAR)") }
    }
}
