//! Owns the search for rows that a server cannot return. A page that the server refuses is read row by row. A row that
//! fails alone is to blame, unless no other row can be read either: then the table is to blame.

use std::slice;

use anyhow::Error;

use crate::invoice::{Fetched, InvoiceId, Reason, Tenant};
use crate::lang::Message;
use crate::source::{Source, SourceError};

/// How many other rows are tried, in each place, before the table is blamed instead of a row.
const OTHERS: usize = 10;

/// Rows that the server refused to return, each alone, and what it said.
pub(super) type Refused = Vec<(InvoiceId, Error)>;

/// A connection that is made again when it is lost.
pub(super) trait RetryingSource {
    fn ask<R>(&mut self, question: impl FnMut(&mut dyn Source) -> Result<R, SourceError>) -> Result<R, SourceError>;
}

/// Reads these rows, one by one if the server refuses them together. Rows that have come need not be read again.
pub(super) fn read(
    ids: &[InvoiceId],
    mut read: impl FnMut(&[InvoiceId]) -> Result<(), SourceError>,
) -> Result<Refused, SourceError> {
    match read(ids) {
        Err(SourceError::Statement(_)) => {}
        result => return result.map(|()| Refused::new()),
    }
    let mut refused = Refused::new();
    for id in ids {
        match read(slice::from_ref(id)) {
            Err(SourceError::Statement(error)) => refused.push((id.clone(), error)),
            result => result?,
        }
    }
    Ok(refused)
}

/// The refused rows, if they are to blame; else the error of the first one. `readable` are rows that came with them.
pub(super) fn blame(
    asks: &mut impl RetryingSource,
    refused: Refused,
    readable: &[InvoiceId],
) -> Result<Refused, SourceError> {
    if refused.is_empty() || others_can_be_read(asks, &refused, readable)? {
        return Ok(refused);
    }
    refused.into_iter().next().map_or(Ok(Refused::new()), |(_, error)| Err(SourceError::Statement(error)))
}

/// Tries rows of the same page, the first rows of the table, and those behind the refused ones.
fn others_can_be_read(
    asks: &mut impl RetryingSource,
    refused: &Refused,
    readable: &[InvoiceId],
) -> Result<bool, SourceError> {
    let is_other = |id: &InvoiceId| refused.iter().all(|(refused, _)| refused != id);
    let readable: Vec<InvoiceId> = readable.iter().take(OTHERS).cloned().collect();
    if any_can_be_read(asks, &readable)? {
        return Ok(true);
    }
    let last = refused.last().map(|(id, _)| id);
    for (after, limit) in [(None, refused.len() + OTHERS), (last, OTHERS)] {
        let ids = match asks.ask(|source| source.ids(after, limit)) {
            Err(SourceError::Statement(_)) => return Ok(false),
            result => result?,
        };
        let others: Vec<InvoiceId> = ids.into_iter().filter(is_other).take(OTHERS).collect();
        if any_can_be_read(asks, &others)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A row that the server does not return, with the server's error as the reason.
pub(super) fn unreadable(id: InvoiceId, tenant: Option<Tenant>, error: &Error) -> Fetched {
    let reason = Reason::Unreadable { detail: Message::from(error).what };
    Fetched::Unreadable { id, tenant, number: None, time: None, reason }
}

fn any_can_be_read(asks: &mut impl RetryingSource, ids: &[InvoiceId]) -> Result<bool, SourceError> {
    for id in ids {
        match asks.ask(|source| source.documents(slice::from_ref(id), &mut |_| Ok(()))) {
            Err(SourceError::Statement(_)) => {}
            result => return result.map(|()| true),
        }
    }
    Ok(false)
}
