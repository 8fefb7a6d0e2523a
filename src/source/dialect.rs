//! Owns [`SqlDialect`], the parts of statements that differ by engine, and the rule for the columns that a table must
//! have.

use super::TableNames;
use crate::refusal::Refusal;

/// The expressions that depend on the engine and on the types of the table's columns.
#[derive(Default)]
pub(super) struct SqlDialect {
    pub id: String,
    pub tenant: String,
    pub country: String,
    pub date: String,
    pub number: String,
    pub status: String,
    /// Two columns: the document or NULL, and the length in bytes of a document that is too long or NULL.
    pub document: String,
    pub time: String,
    pub newest: String,
    /// The names of the columns that lost characters in the conversion to UTF-8, with commas between them.
    /// Empty or NULL for a whole row.
    pub lost: String,
    /// The number of question marks and of characters in the document. None if its conversion loses nothing.
    pub document_measure: Option<[String; 2]>,
    /// True if the tenant has exactly the bytes of the bound value.
    pub same_tenant: String,
    /// Takes the place of a `?` for an id or a tenant that is spelled as its bytes in hex.
    pub id_by_bytes: Option<String>,
    pub tenant_by_bytes: Option<String>,
    /// True if the column can hold the text with the bound hex, twice. None if it can hold every text.
    pub holds_id: Option<String>,
    pub holds_tenant: Option<String>,
    pub holds_number: Option<String>,
    /// Each follows the selected columns and shows the types of the columns that the statement relies on.
    pub types_of_tenant: String,
    /// For the tenant and the greatest time. With the column of the time itself no server would skip through the
    /// index.
    pub types_of_newest: String,
    pub types_of_id: String,
    pub types_of_key: String,
    pub types_of_row: String,
    /// Each follows the table's name: `by_time` in statements for keys and tenants, `by_id` in those for documents.
    pub by_time: String,
    pub by_id: String,
}

/// Refuses a table that lacks a column. `has` compares names as the engine does.
pub(super) fn missing(names: &TableNames, has: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let needed =
        [&names.tenant, &names.country, &names.date, &names.number, &names.status, &names.document, &names.time];
    let missing: Vec<_> = needed.into_iter().chain(&names.id).filter(|name| !has(name)).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Refusal::ColumnsMissing { table: names.table.clone(), columns: missing.join(", ") }.into())
}
