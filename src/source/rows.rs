//! Owns the reading of answers: the cells of a row become a key, an invoice, or the summary of a row.

use super::charset::is_whole;
use super::engine::{RawCell, lossy, text};
use super::{ListedTenant, RowSummary, SourceError, TableNames};
use crate::invoice::{Fetched, Invoice, InvoiceId, Key, Reason, Row, SourceTime, Tenant};
use crate::lang::Explain;
use crate::window::Clock;

/// Columns: tenant, greatest source time.
pub(super) fn listed(row: Vec<RawCell>) -> Result<ListedTenant, SourceError> {
    let [spelling, newest] = cells(row).map_err(SourceError::Statement)?;
    let spelling = needed(spelling, "tenant").map_err(SourceError::Statement)?;
    let newest = text(newest).map_err(SourceError::Statement)?;
    Ok(ListedTenant { spelling: Tenant(spelling), newest: newest.map(SourceTime), ahead: None })
}

/// Columns: id.
pub(super) fn id_alone(row: Vec<RawCell>) -> anyhow::Result<InvoiceId> {
    let [id] = cells(row)?;
    needed(id, "id").map(InvoiceId)
}

/// Columns: source time.
pub(super) fn time_alone(row: Vec<RawCell>) -> anyhow::Result<Option<SourceTime>> {
    let [time] = cells(row)?;
    Ok(text(time)?.map(SourceTime))
}

/// Columns: the time that the server's clock shows, and its milliseconds since 1970.
pub(super) fn clock(row: Vec<RawCell>) -> anyhow::Result<Clock> {
    let [now, unix_ms] = cells(row)?;
    let unix_ms = needed(unix_ms, "time")?;
    Ok(Clock {
        now: SourceTime(needed(now, "time")?),
        unix_ms: unix_ms.parse().explain(|| text!("the server's time is no number", "服务器的时间不是数字"))?,
    })
}

/// Columns: id, tenant, source time.
pub(super) fn key(row: Vec<RawCell>) -> anyhow::Result<Key> {
    let [id, tenant, time] = cells(row)?;
    Ok(Key {
        id: InvoiceId(needed(id, "id")?),
        tenant: Tenant(needed(tenant, "tenant")?),
        time: text(time)?.map(SourceTime),
    })
}

/// Columns: id, tenant, number, source time, status, then three flags: issued, has a document, has a date.
pub(super) fn row_summary(row: Vec<RawCell>) -> anyhow::Result<RowSummary> {
    let [id, tenant, number, time, status, issued, has_document, has_date] = cells(row)?;
    let readable = |cell: RawCell| cell.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let is_true = |cell: RawCell| lossy(cell) == "1";
    Ok(RowSummary {
        id: InvoiceId(needed(id, "id")?),
        tenant: readable(tenant).map(Tenant),
        number: readable(number),
        time: readable(time).map(SourceTime),
        status: readable(status),
        issued: is_true(issued),
        has_document: is_true(has_document),
        has_date: is_true(has_date),
    })
}

/// Columns: id, tenant, country, date, number, source time, document, length of one that is too long, names of
/// columns that lost characters, question marks and characters of the document. A row with unusable texts
/// becomes [`Fetched::Unreadable`].
pub(super) fn fetched(row: Vec<RawCell>, names: &TableNames) -> anyhow::Result<Fetched> {
    let [id, tenant, country, date, number, time, document, too_long, lost, marks, characters] = cells(row)?;
    let id = InvoiceId(needed(id, "id")?);
    let too_long = too_long
        .map(|bytes| lossy(Some(bytes)).parse())
        .transpose()
        .explain(|| text!("a length is no number", "长度不是数字"))?;
    let mut trouble = None;
    let mut readable = |cell: RawCell, name: &str| {
        text(cell).unwrap_or_else(|_| {
            trouble.get_or_insert_with(|| text!("the column {name} is not UTF-8", "{name} 列不是 UTF-8"));
            None
        })
    };
    let tenant = readable(tenant, &names.tenant).map(Tenant);
    let country = readable(country, &names.country);
    let date = readable(date, &names.date);
    let number = readable(number, &names.number);
    let time = readable(time, &names.time).map(SourceTime);
    let document_lost = document.as_deref().is_some_and(|document| has_lost(document, marks, characters));
    let columns = [lossy(lost), if document_lost { names.document.clone() } else { String::new() }];
    let columns = columns.iter().map(String::as_str).filter(|names| !names.is_empty()).collect::<Vec<_>>().join(", ");
    if !columns.is_empty() {
        return Ok(Fetched::Unreadable { id, tenant, number, time, reason: Reason::Unmappable { columns } });
    }
    Ok(match (trouble, tenant, date, number, document) {
        (None, Some(tenant), Some(date), Some(number), Some(document)) => {
            Fetched::Row(Row { invoice: Invoice { id, tenant, country, date, number, time }, document })
        }
        (trouble, tenant, _, number, _) => {
            let reason = match (trouble, &tenant, too_long) {
                (Some(detail), ..) => Reason::Unreadable { detail },
                (None, Some(_), Some(bytes)) => Reason::TooLarge { bytes },
                _ => Reason::Unreadable { detail: text!("the column {} is NULL", "{} 列为 NULL", names.tenant) },
            };
            Fetched::Unreadable { id, tenant, number, time, reason }
        }
    })
}

/// Whether the document differs from the one that the server has measured.
fn has_lost(document: &[u8], marks: RawCell, characters: RawCell) -> bool {
    let number = |cell: RawCell| lossy(cell).parse().ok();
    number(marks).zip(number(characters)).is_some_and(|(marks, characters)| !is_whole(document, marks, characters))
}

/// The cells of a row with exactly this many columns.
fn cells<const N: usize>(row: Vec<RawCell>) -> anyhow::Result<[RawCell; N]> {
    let columns = row.len();
    row.try_into().map_err(|_| {
        text!("a row came with {columns} columns, not {N}", "收到的一行有 {columns} 列，而不是 {N} 列").into()
    })
}

/// The text in a cell that must not be NULL.
fn needed(cell: RawCell, what: &str) -> anyhow::Result<String> {
    text(cell)?.explain(|| text!("a row came without its {what}", "收到的一行缺少 {what}"))
}
