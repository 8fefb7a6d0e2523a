//! Owns the types of the table's columns, which come with every answer.
//!
//! Between two statements a migration tool may swap the table for its copy, or an ALTER may change it. Statements are
//! worded for the types in the catalogue: an id that has become text would be compared as a number, and rows would be
//! skipped. So each statement selects columns that are NULL in every row and show the types of the columns on which it
//! relies. An answer with other types is refused.

use std::collections::HashMap;

use super::SourceError;
use super::engine::quoted;
use crate::refusal::Refusal;

/// The names of columns that show a type and no value begin so.
const TYPE_OF: &str = "type of ";

/// The type that an answer shows for a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireType {
    Integer,
    /// With the number of digits after the second.
    DateTime(u8),
    Timestamp(u8),
    Json,
    /// Text or bytes, with the server's number of the collation.
    Text(u16),
    Other,
}

impl WireType {
    /// Whether the catalogue shows such a column with this type.
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

/// Whether the catalogue's type is one of integers.
pub(super) fn is_integer(kind: &str) -> bool {
    matches!(kind, "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
}

/// Whether the catalogue's type is one of texts.
pub(super) fn is_text(kind: &str) -> bool {
    kind.contains("char") || kind.contains("text") || kind == "enum"
}

/// Whether the catalogue's type is one of bytes.
pub(super) fn is_binary(kind: &str) -> bool {
    kind.contains("binary") || kind.contains("blob")
}

/// Whether all answers show columns of this type in one way.
pub(super) fn is_watched(kind: &str) -> bool {
    is_integer(kind) || is_text(kind) || is_binary(kind) || matches!(kind, "datetime" | "timestamp" | "json")
}

/// The columns of an answer that show the types of these columns.
pub(super) fn types_of<'a>(columns: impl IntoIterator<Item = &'a str>) -> String {
    columns.into_iter().map(|column| type_of(column, &quoted(column))).collect()
}

/// The column of an answer that shows a column's type, by an expression of that type.
pub(super) fn type_of(column: &str, expression: &str) -> String {
    format!(", IF(0, {expression}, NULL) AS {}", quoted(&format!("{TYPE_OF}{column}")))
}

/// The column of the table that this column of an answer shows the type of.
pub(super) fn subject(name: &str) -> Option<&str> {
    name.strip_prefix(TYPE_OF)
}

/// The types in the first answer that showed them.
#[derive(Debug, Default)]
pub(super) struct ColumnTypes {
    table: String,
    forms: HashMap<String, WireType>,
}

impl ColumnTypes {
    /// No types yet, for the table of this name.
    pub(super) fn of(table: &str) -> Self {
        Self { table: table.to_owned(), forms: HashMap::new() }
    }

    /// # Errors
    /// The column's type differs from the one in the first answer.
    pub(super) fn record_or_compare(&mut self, column: &str, form: WireType) -> Result<(), SourceError> {
        let first = *self.forms.entry(column.to_owned()).or_insert(form);
        if first == form { Ok(()) } else { Err(self.changed(column)) }
    }

    /// # Errors
    /// The answers show another type than the catalogue: the table was changed between the two.
    pub(super) fn compare_with_catalogue(&self, column: &str, kind: &str) -> Result<(), SourceError> {
        let agrees = self.forms.get(column).is_some_and(|form| form.is_kind(kind));
        if agrees { Ok(()) } else { Err(self.changed(column)) }
    }

    fn changed(&self, column: &str) -> SourceError {
        changed(&self.table, column)
    }
}

/// The error of a column that has another type than before. No later statement can be trusted either.
pub(super) fn changed(table: &str, column: &str) -> SourceError {
    SourceError::Final(Refusal::TableChanged { table: table.to_owned(), column: column.to_owned() }.into())
}
