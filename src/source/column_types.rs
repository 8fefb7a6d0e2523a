//! The types of the table's columns, which come with every answer.
//!
//! A table can be another one between two statements: a migration tool swaps it for its copy, or an ALTER
//! changes it. Statements are worded for the types that the catalogue showed; an id that has become text
//! would be compared as a number, and rows would be skipped. So each statement asks for the types of the
//! columns that it relies on, as columns that are NULL in every row, and an answer with other types is not
//! taken.

use std::collections::HashMap;

use super::SourceError;
use super::engine::quoted;
use crate::refusal::Refusal;

/// The name of a column of an answer that tells a type and no value begins so.
const TYPE_OF: &str = "type of ";

/// What an answer says of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireType {
    Integer,
    /// With the digits after the second.
    DateTime(u8),
    Timestamp(u8),
    Json,
    /// Text or bytes, with the server's number of the collation.
    Text(u16),
    Other,
}

impl WireType {
    /// Whether the catalogue shows such a column as one of this type.
    pub(super) fn is_kind(self, kind: &str) -> bool {
        match self {
            Self::Integer => is_integer(kind),
            Self::DateTime(_) => kind == "datetime",
            Self::Timestamp(_) => kind == "timestamp",
            Self::Json => kind == "json",
            Self::Text(_) => is_text(kind) || is_binary(kind),
            Self::Other => false,
        }
    }
}

pub(super) fn is_integer(kind: &str) -> bool {
    matches!(kind, "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
}

pub(super) fn is_text(kind: &str) -> bool {
    kind.contains("char") || kind.contains("text") || kind == "enum"
}

pub(super) fn is_binary(kind: &str) -> bool {
    kind.contains("binary") || kind.contains("blob")
}

/// Whether answers show columns of this type in one way.
pub(super) fn is_watched(kind: &str) -> bool {
    is_integer(kind) || is_text(kind) || is_binary(kind) || matches!(kind, "datetime" | "timestamp" | "json")
}

/// Asks for the types of these columns, after what else is selected.
pub(super) fn types_of<'a>(columns: impl IntoIterator<Item = &'a str>) -> String {
    columns.into_iter().map(|column| type_of(column, &quoted(column))).collect()
}

/// Asks for the type of a column by an expression of that type.
pub(super) fn type_of(column: &str, expression: &str) -> String {
    format!(", IF(0, {expression}, NULL) AS {}", quoted(&format!("{TYPE_OF}{column}")))
}

/// The column of which this column of an answer tells the type.
pub(super) fn subject(name: &str) -> Option<&str> {
    name.strip_prefix(TYPE_OF)
}

/// The types that the first answer showed.
#[derive(Debug, Default)]
pub(super) struct ColumnTypes {
    table: String,
    forms: HashMap<String, WireType>,
}

impl ColumnTypes {
    pub(super) fn of(table: &str) -> Self {
        Self { table: table.to_owned(), forms: HashMap::new() }
    }

    /// An error if the column does not have the type that it had in the first answer.
    pub(super) fn compare(&mut self, column: &str, form: WireType) -> Result<(), SourceError> {
        let first = *self.forms.entry(column.to_owned()).or_insert(form);
        if first == form { Ok(()) } else { Err(self.changed(column)) }
    }

    /// An error if the answers do not show the column as the catalogue does: the table was changed between the two.
    pub(super) fn agree(&self, column: &str, kind: &str) -> Result<(), SourceError> {
        let agrees = self.forms.get(column).is_some_and(|form| form.is_kind(kind));
        if agrees { Ok(()) } else { Err(self.changed(column)) }
    }

    fn changed(&self, column: &str) -> SourceError {
        changed(&self.table, column)
    }
}

/// Neither this statement nor the next one can be believed.
pub(super) fn changed(table: &str, column: &str) -> SourceError {
    SourceError::Final(Refusal::TableChanged { table: table.to_owned(), column: column.to_owned() }.into())
}
