//! Reading rows of the state by the names of their columns.

use rusqlite::types::Type;
use rusqlite::{Error, Result, Row};

use crate::invoice::{SourceTime, Tenant};
use crate::lang::Word;
use crate::run::Counts;

/// A word of the state.
///
/// # Errors
/// A text that is none of the words is damage.
pub(super) fn word<W: Word>(row: &Row<'_>, column: &str) -> Result<W> {
    optional_word(row, column)?.ok_or_else(|| Error::InvalidColumnType(0, column.to_owned(), Type::Null))
}

/// A word of the state, or none where the column is NULL.
///
/// # Errors
/// A text that is none of the words is damage.
pub(super) fn optional_word<W: Word>(row: &Row<'_>, column: &str) -> Result<Option<W>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    W::parse(&text).map(Some).ok_or_else(|| Error::InvalidColumnType(0, format!("{column} {text:?}"), Type::Text))
}

/// SQLite's integers are signed; no count of ours comes near the difference.
pub(super) fn number(row: &Row<'_>, column: &str) -> Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

pub(super) fn time(row: &Row<'_>, column: &str) -> Result<Option<SourceTime>> {
    Ok(row.get::<_, Option<String>>(column)?.map(SourceTime))
}

pub(super) fn tenant(row: &Row<'_>, column: &str) -> Result<Option<Tenant>> {
    Ok(row.get::<_, Option<String>>(column)?.map(Tenant))
}

/// The counts of a run, or of a tenant in it.
pub(super) fn counts(row: &Row<'_>) -> Result<Counts> {
    let mut counts = Counts::default();
    for (name, value) in Counts::NAMES.iter().zip(counts.values_mut()) {
        *value = number(row, name.column)?;
    }
    Ok(counts)
}
