//! A source as the program itself opens it, for the tests of what it gives. Of all that tests share, this
//! alone calls the exporter's own code: the code under test.

use std::time::Duration;

use invoice_export::invoice::{Fetched, InvoiceId, Key, SourceTime, Tenant};
use invoice_export::source::{self, Access, KeyCursor, Source, TableNames, Tls};
use invoice_export::window::Span;
use mysql::prelude::Queryable;

use super::database::Database;
use super::server::Server;

/// A boundary that no source time lies above.
pub(crate) const FOREVER: &str = "9999-12-31 23:59:59.999999";

pub(crate) fn access(url: &str) -> Access {
    Access {
        max_document: 256 << 20,
        url: url.parse().unwrap(),
        password: None,
        names: TableNames::default(),
        time_zone: None,
        tls: Tls::default(),
        read_timeout: Duration::from_secs(300),
    }
}

pub(crate) fn open(url: &str) -> Box<dyn Source> {
    source::open(&access(url)).unwrap()
}

/// What stops a source from being opened.
pub(crate) fn refusal(access: &Access) -> String {
    match source::open(access) {
        Ok(_) => panic!("the source was opened"),
        Err(fault) => format!("{:#}", fault.into_error()),
    }
}

/// A database with the documented table under other column types, and one invoice per given values
/// of id and source time.
pub(crate) fn table_with(server: &Server, id_type: &str, time_type: &str, rows: &[(&str, &str)]) -> Database {
    let database = server.database();
    let mut conn = database.connect();
    let mut run = |sql: &str| conn.query_drop(sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
    run(&format!(
        "CREATE TABLE t_invoice (fid {id_type} NOT NULL PRIMARY KEY, ftenant_id VARCHAR(64), fcountry VARCHAR(8), \
         fissue_date DATE, finvoice_no VARBINARY(64), fissue_status TINYINT NOT NULL, fext_field LONGTEXT, \
         fupdate_time {time_type})"
    ));
    run("CREATE INDEX idx_incremental_export ON t_invoice (ftenant_id, fissue_status, fupdate_time)");
    run("SET sql_mode = '', time_zone = '+00:00'");
    for (id, time) in rows {
        run(&format!("INSERT INTO t_invoice VALUES ({id}, '1', 'CN', '2025-11-28', 'INV', 3, '{{}}', {time})"));
    }
    database
}

pub(crate) fn span(after: Option<&str>, upto: Option<&str>) -> Span {
    Span { after: after.map(SourceTime::from), upto: upto.map(SourceTime::from) }
}

/// All keys of the span, read in pages.
pub(crate) fn keys(source: &mut dyn Source, tenant: &str, span: &Span, limit: usize) -> Vec<Key> {
    let mut all = Vec::new();
    let mut cursor = KeyCursor::Start;
    loop {
        let page = source.keys(&Tenant::from(tenant), span, &cursor, limit).unwrap();
        assert!(page.len() <= limit);
        let Some(last) = page.last() else { return all };
        let next = KeyCursor::After(last.clone());
        assert_ne!(next, cursor, "a page ends where it began");
        cursor = next;
        all.extend(page);
    }
}

pub(crate) fn ids_of(keys: &[Key]) -> Vec<&str> {
    keys.iter().map(|key| key.id.as_str()).collect()
}

pub(crate) fn times_of(keys: &[Key]) -> Vec<Option<&str>> {
    keys.iter().map(|key| key.time.as_ref().map(SourceTime::as_str)).collect()
}

pub(crate) fn id_of(fetched: &Fetched) -> &InvoiceId {
    match fetched {
        Fetched::Row(row) => &row.invoice.id,
        Fetched::Unreadable { id, .. } => id,
    }
}

/// All invoices in id order, read in pages.
pub(crate) fn pages(source: &mut dyn Source, limit: usize) -> Vec<Fetched> {
    let mut all: Vec<Fetched> = Vec::new();
    loop {
        let after = all.last().map(|last| id_of(last).clone());
        let came = source.page(after.as_ref(), limit, &mut |fetched| {
            all.push(fetched);
            Ok(())
        });
        if came.unwrap() == 0 {
            return all;
        }
    }
}

pub(crate) fn documents(source: &mut dyn Source, ids: &[&str]) -> Vec<Fetched> {
    let ids: Vec<_> = ids.iter().copied().map(InvoiceId::from).collect();
    let mut all = Vec::new();
    source
        .documents(&ids, &mut |fetched| {
            all.push(fetched);
            Ok(())
        })
        .unwrap();
    all
}

pub(crate) fn ids(fetched: &[Fetched]) -> Vec<&str> {
    fetched.iter().map(|fetched| id_of(fetched).as_str()).collect()
}
