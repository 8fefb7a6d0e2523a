//! What a source promises to whoever reads from it, on real servers and files.
#![allow(clippy::unwrap_used, reason = "the helpers of tests may panic as the tests do")]

use std::thread;
use std::time::{Duration, Instant};

use invoice_export::event::Notice;
use invoice_export::invoice::{Fetched, InvoiceId, Key, Reason, SourceTime, Tenant};
use invoice_export::run::RunId;
use invoice_export::source::{self, Access, KeyCursor, ListedTenant, Source, SourceError, TableNames, Tls, sample};
use invoice_export::window::{OpenWork, Span};
use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::database::Database;
use crate::support::{Flavor, Proxy, Row, Server, Settings, Table, on_every_flavor, on_every_source, server};

/// A boundary that no source time lies above.
const FOREVER: &str = "9999-12-31 23:59:59.999999";

fn access(url: &str) -> Access {
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
fn refusal(access: &Access) -> String {
    match source::open(access) {
        Ok(_) => panic!("the source was opened"),
        Err(fault) => fault.to_string(),
    }
}

/// A database with the documented table under other column types, and one invoice per given values
/// of id and source time.
fn table_with(server: &Server, id_type: &str, time_type: &str, rows: &[(&str, &str)]) -> Database {
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

fn span(after: Option<&str>, upto: Option<&str>) -> Span {
    Span { after: after.map(SourceTime::from), upto: upto.map(SourceTime::from) }
}

/// All keys of the span, read in pages.
fn keys(source: &mut dyn Source, tenant: &str, span: &Span, limit: usize) -> Vec<Key> {
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

fn ids_of(keys: &[Key]) -> Vec<&str> {
    keys.iter().map(|key| key.id.as_str()).collect()
}

fn times_of(keys: &[Key]) -> Vec<Option<&str>> {
    keys.iter().map(|key| key.time.as_ref().map(SourceTime::as_str)).collect()
}

fn id_of(fetched: &Fetched) -> &InvoiceId {
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

fn ids(fetched: &[Fetched]) -> Vec<&str> {
    fetched.iter().map(|fetched| id_of(fetched).as_str()).collect()
}

#[test]
fn pages_keys_and_documents_tell_of_the_same_invoices() {
    on_every_source(|table| {
        table.load_sample(900, 7, "1:40,10:40,89:20");
        let mut source = open(&table.url());
        let issued = table.query("SELECT fid FROM t_invoice WHERE fissue_status = 3 ORDER BY fid");
        let issued: Vec<_> = issued.iter().map(|row| row[0].as_deref().unwrap()).collect();
        assert_eq!(ids(&pages(&mut *source, 100)), issued);
        assert_eq!(ids(&documents(&mut *source, &issued)), issued);
        let tenants = source.tenants(&FOREVER.into()).unwrap().tenants;
        let mut found = Vec::new();
        for ListedTenant { spelling, newest, .. } in &tenants {
            let keys = keys(&mut *source, spelling.as_str(), &Span::default(), 50);
            assert_eq!(&keys.last().unwrap().time, newest);
            assert!(keys.is_sorted_by_key(|key| (&key.time, &key.id)));
            found.extend(keys.into_iter().map(|key| key.id));
        }
        found.sort();
        assert_eq!(found.iter().map(InvoiceId::as_str).collect::<Vec<_>>(), issued);
        assert_eq!(tenants.len(), 3);
        assert!(source.estimate().unwrap().unwrap() > 400);
    });
}

#[test]
fn a_row_comes_with_all_its_columns_and_its_document_as_it_is() {
    on_every_source(|table| {
        let document = "{\"total\": 0.1000, \"text\": \"发票 \\\\ 'ä' \\n\"}";
        table.insert(&Row { id: 7, tenant: "acme", country: None, document, ..Row::default() });
        let rows = pages(&mut *open(&table.url()), 10);
        let [Fetched::Row(row)] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(row.document, document.as_bytes());
        let invoice = &row.invoice;
        assert_eq!((invoice.tenant.as_str(), &invoice.country, invoice.date.as_str()), ("acme", &None, "20251128"));
        assert_eq!((invoice.number.as_str(), invoice.time.as_ref()), ("INV001", Some(&"2025-11-28 15:00:00".into())));
    });
}

#[test]
fn rows_that_are_no_invoices_do_not_come() {
    on_every_source(|table| {
        for id in 1..=5 {
            table.insert(&Row { id, ..Row::default() });
        }
        for (id, change) in
            [(1, "fissue_status = 2"), (2, "fext_field = NULL"), (3, "finvoice_no = NULL"), (4, "fissue_date = NULL")]
        {
            table.execute(&format!("UPDATE t_invoice SET {change}, fupdate_time = fupdate_time WHERE fid = {id}"));
        }
        let mut source = open(&table.url());
        assert_eq!(ids(&pages(&mut *source, 10)), ["5"]);
        assert_eq!(ids(&documents(&mut *source, &["1", "2", "3", "4", "5", "6"])), ["5"]);
        assert!(documents(&mut *source, &[]).is_empty());
    });
}

#[test]
fn a_span_is_open_at_the_left_and_closed_at_the_right() {
    on_every_source(|table| {
        for (id, second) in (1..).zip(["00", "01", "02", "03"]) {
            table.insert(&Row { id, time: &format!("2025-11-28 15:00:{second}"), ..Row::default() });
        }
        let mut source = open(&table.url());
        let span = span(Some("2025-11-28 15:00:00"), Some("2025-11-28 15:00:02"));
        assert_eq!(ids_of(&keys(&mut *source, "1", &span, 1)), ["2", "3"]);
    });
}

#[test]
fn pages_of_keys_may_end_within_one_source_time() {
    on_every_source(|table| {
        for id in 1..=7 {
            table.insert(&Row { id, ..Row::default() });
        }
        let mut source = open(&table.url());
        assert_eq!(ids_of(&keys(&mut *source, "1", &Span::default(), 2)), ["1", "2", "3", "4", "5", "6", "7"]);
    });
}

#[test]
fn spellings_that_a_collation_folds_come_together_and_with_their_own_bytes() {
    on_every_flavor(|flavor| {
        let table = tenants_under(flavor, "utf8mb4_general_ci");
        let mut source = open(&table.url());
        let listed = source.tenants(&FOREVER.into()).unwrap().tenants;
        assert_eq!(listed.len(), 2, "{listed:?}");
        let keys = keys(&mut *source, "Acme", &Span::default(), 2);
        assert_eq!(keys.iter().map(|key| key.tenant.as_str()).collect::<Vec<_>>(), ["acme", "ACME", "acme "]);
        for (tenant, there) in [("acme", true), ("ACME", true), ("acme ", true), ("Acme", false), ("other ", false)] {
            assert_eq!(source.has_tenant(&tenant.into()).unwrap(), there, "{tenant:?}");
        }
    });
}

/// MySQL's own collation, which a table has that names none.
#[test]
fn a_space_at_the_end_makes_another_tenant_where_the_collation_says_so() {
    let table = tenants_under(Flavor::MySql, "utf8mb4_0900_ai_ci");
    let mut source = open(&table.url());
    assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 3);
    for (tenant, spellings) in [("Acme", &["acme", "ACME"][..]), ("ACME ", &["acme "])] {
        let keys = keys(&mut *source, tenant, &Span::default(), 1);
        assert_eq!(keys.iter().map(|key| key.tenant.as_str()).collect::<Vec<_>>(), spellings);
        assert!(!source.has_tenant(&tenant.into()).unwrap(), "{tenant:?} is not spelt so");
    }
}

/// Four spellings of tenants, at one time.
fn tenants_under(flavor: Flavor, collation: &str) -> Table {
    let table = Table::on(server(flavor));
    table.execute(&format!("ALTER TABLE t_invoice CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation}"));
    for (id, tenant) in (1..).zip(["acme", "ACME", "acme ", "other"]) {
        table.insert(&Row { id, tenant, ..Row::default() });
    }
    table
}

#[test]
fn numbers_as_tenants_are_asked_for_by_their_bytes() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "BIGINT", "DATETIME", &[("1", "NOW()")]);
        database.execute("ALTER TABLE t_invoice MODIFY ftenant_id BIGINT NOT NULL");
        let mut source = open(&database.url());
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants[0].spelling, Tenant::from("1"));
        for (tenant, there) in [("1", true), ("01", false), ("1x", false), ("x", false)] {
            assert_eq!(source.has_tenant(&tenant.into()).unwrap(), there, "{tenant}");
        }
    });
}

#[test]
fn ids_above_the_signed_range_keep_their_value_and_order() {
    on_every_flavor(|flavor| {
        let high = ["9223372036854775807", "9223372036854775808", "18446744073709551615"];
        let rows: Vec<_> = ["1"].into_iter().chain(high).map(|id| (id, "'2025-11-28 15:00:00'")).collect();
        let database = table_with(server(flavor), "BIGINT UNSIGNED", "DATETIME", &rows);
        let mut source = open(&database.url());
        assert_eq!(ids(&pages(&mut *source, 1))[1..], high);
        assert_eq!(ids_of(&keys(&mut *source, "1", &Span::default(), 1))[1..], high);
        assert_eq!(ids(&documents(&mut *source, &high)), high);
    });
}

#[test]
fn negative_ids_come_first() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "BIGINT", "DATETIME", &[("-5", "NOW()"), ("3", "NOW()")]);
        let mut source = open(&database.url());
        assert_eq!(ids(&pages(&mut *source, 1)), ["-5", "3"]);
        assert_eq!(ids(&documents(&mut *source, &["-5"])), ["-5"]);
    });
}

#[test]
fn ids_are_answered_by_their_bytes_where_the_collation_folds_them() {
    on_every_flavor(|flavor| {
        let at = "'2025-11-28 15:00:00'";
        let database =
            table_with(server(flavor), "VARCHAR(20)", "DATETIME", &[("'ABC'", at), ("'b'", at), ("'a'", at)]);
        let mut source = open(&database.url());
        assert_eq!(ids(&pages(&mut *source, 1)), ["a", "ABC", "b"]);
        assert_eq!(ids_of(&keys(&mut *source, "1", &Span::default(), 1)), ["a", "ABC", "b"]);
        assert!(documents(&mut *source, &["abc", "B"]).is_empty());
        assert_eq!(ids(&documents(&mut *source, &["b", "ABC", "A"])), ["ABC", "b"]);
    });
}

#[test]
fn source_times_come_with_all_their_decimals_in_every_type() {
    on_every_flavor(|flavor| {
        let rows =
            [("1", "'2025-11-28 15:00:00'"), ("2", "'2025-11-28 15:00:00.123456'"), ("3", "'2025-11-28 15:00:01'")];
        for (kind, decimals) in
            [("DATETIME", ""), ("DATETIME(3)", ".123"), ("DATETIME(6)", ".123456"), ("TIMESTAMP(6)", ".123456")]
        {
            let database = table_with(server(flavor), "INT", &format!("{kind} NOT NULL"), &rows);
            let mut source = open(&database.url());
            let keys = keys(&mut *source, "1", &Span::default(), 1);
            assert_eq!(ids_of(&keys), ["1", "2", "3"], "{kind}");
            assert_eq!(times_of(&keys)[1], Some(format!("2025-11-28 15:00:00{decimals}").as_str()), "{kind}");
            let Fetched::Row(row) = &documents(&mut *source, &["2"])[0] else { panic!("{kind}") };
            assert_eq!(row.invoice.time, keys[1].time, "{kind}");
            let newest = source.tenants(&FOREVER.into()).unwrap().tenants.remove(0).newest.unwrap();
            assert!(newest.as_str().starts_with("2025-11-28 15:00:01"), "{kind}");
        }
    });
}

#[test]
fn a_page_of_timestamps_skips_nothing_where_the_clock_was_put_back() {
    on_every_flavor(|flavor| {
        let settings = Settings { os_zone: "Europe/Berlin", options: &["--default-time-zone=SYSTEM"] };
        let own = Server::fresh_with(flavor, settings);
        // 02:10 and 02:56 of the first pass, 02:10 of the second.
        let rows = [("1", "'2025-10-26 00:10:00'"), ("2", "'2025-10-26 00:56:00'"), ("3", "'2025-10-26 01:10:00'")];
        let database = table_with(&own, "INT", "TIMESTAMP NOT NULL", &rows);
        let keys = keys(&mut *open(&database.url()), "1", &Span::default(), 1);
        assert_eq!(ids_of(&keys), ["1", "2", "3"]);
        assert_eq!(times_of(&keys)[2], Some("2025-10-26 01:10:00"));
    });
}

#[test]
fn issue_dates_stay_those_of_the_server_where_timestamps_are_read_in_another_zone() {
    on_every_flavor(|flavor| {
        let own =
            Server::fresh_with(flavor, Settings { options: &["--default-time-zone=+08:00"], ..Settings::default() });
        let database = table_with(&own, "INT", "TIMESTAMP NOT NULL", &[("1", "'2025-11-28 15:00:00'")]);
        let mut conn = database.connect();
        conn.query_drop("ALTER TABLE t_invoice MODIFY fissue_date TIMESTAMP NULL").unwrap();
        conn.query_drop("UPDATE t_invoice SET fissue_date = '2025-11-28 02:00:00'").unwrap();
        let rows = pages(&mut *open(&database.url()), 1);
        let [Fetched::Row(row)] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(row.invoice.date, "20251128");
    });
}

#[test]
fn rows_without_a_source_time_come_first_and_only_without_a_lower_bound() {
    on_every_flavor(|flavor| {
        let at = "'2025-11-28 15:00:00'";
        let rows = [("1", at), ("2", "NULL"), ("3", "'0000-00-00 00:00:00'"), ("4", "NULL"), ("5", at)];
        let database = table_with(server(flavor), "INT", "DATETIME NULL", &rows);
        let mut source = open(&database.url());
        for upto in [None, Some("2025-11-28 15:00:00")] {
            for limit in [1, 2, 3, 10] {
                let keys = keys(&mut *source, "1", &span(None, upto), limit);
                assert_eq!(ids_of(&keys), ["2", "4", "3", "1", "5"], "pages of {limit}");
                assert_eq!(times_of(&keys)[1..3], [None, Some("0000-00-00 00:00:00")]);
            }
        }
        assert_eq!(ids_of(&keys(&mut *source, "1", &span(Some("1970-01-01 00:00:00"), None), 1)), ["1", "5"]);
    });
}

#[test]
fn a_row_whose_texts_cannot_be_read_is_named_with_what_is_known_of_it() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()"), ("2", "NOW()")]);
        database.execute("UPDATE t_invoice SET finvoice_no = X'FF41' WHERE fid = 1");
        database.execute("UPDATE t_invoice SET ftenant_id = NULL WHERE fid = 2");
        let rows = pages(&mut *open(&database.url()), 10);
        let reasons: Vec<_> = rows
            .iter()
            .map(|fetched| match fetched {
                Fetched::Unreadable { tenant, number, reason: Reason::Unreadable { detail }, .. } => {
                    (tenant.as_ref().map(Tenant::as_str), number.as_deref(), detail.as_str())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            reasons,
            [
                (Some("1"), None, "the column finvoice_no is not UTF-8"),
                (None, Some("INV"), "the column ftenant_id is NULL")
            ]
        );
    });
}

#[test]
fn a_date_that_is_no_day_comes_as_the_source_has_it() {
    on_every_source(|table| {
        for (id, date) in (1..).zip(["0000-00-00", "2025-00-00"]) {
            table.insert(&Row { id, ..Row::default() });
            let sql =
                format!("UPDATE t_invoice SET fissue_date = '{date}', fupdate_time = fupdate_time WHERE fid = {id}");
            match table {
                Table::Server(database) => {
                    let mut conn = database.connect();
                    conn.query_drop("SET sql_mode = ''").unwrap();
                    conn.query_drop(&sql).unwrap();
                }
                Table::Embedded(_) => table.execute(&sql),
            }
        }
        let rows = pages(&mut *open(&table.url()), 10);
        let dates = rows.iter().map(|fetched| match fetched {
            Fetched::Row(row) => row.invoice.date.replace('-', ""),
            other => panic!("{other:?}"),
        });
        assert_eq!(dates.collect::<Vec<_>>(), ["00000000", "20250000"]);
    });
}

#[test]
fn sqlite_does_not_mend_a_date() {
    let table = Table::embedded();
    table.insert(&Row { date: "2025-11-31", ..Row::default() });
    let rows = pages(&mut *open(&table.url()), 10);
    let [Fetched::Row(row)] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row.invoice.date, "2025-11-31");
}

#[test]
fn sqlite_reads_any_storage_class_as_text() {
    let table = Table::embedded();
    table.execute(
        "INSERT INTO t_invoice VALUES (1, 10, 'CN', '2025-11-28', X'494E56', '3', X'7B7D', '2025-11-28 15:00:00')",
    );
    let mut source = open(&table.url());
    let keys = keys(&mut *source, "10", &Span::default(), 10);
    assert_eq!(ids_of(&keys), ["1"]);
    let rows = documents(&mut *source, &["1"]);
    let [Fetched::Row(row)] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((row.invoice.number.as_str(), row.document.as_slice()), ("INV", b"{}".as_slice()));
}

type Step<'a> = &'a dyn Fn(&mut dyn Source);

/// The statements that a source sends are taken from the server's own log and explained there.
#[test]
fn every_statement_reads_through_its_index() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let database = own.database();
        database.load_sample(24_552, 7, "1:40,10:40,89:20");
        database.execute("SET GLOBAL log_output = 'TABLE'");
        database.execute("SET GLOBAL general_log = 1");
        let mut source = open(&database.url());
        // The plans depend on the session.
        let mut session = database.connect();
        for set in database.query("SELECT argument FROM mysql.general_log WHERE argument LIKE 'SET SESSION %'") {
            session.query_drop(set[0].as_deref().unwrap()).unwrap();
        }
        let window = span(Some("2025-11-20 00:00:00"), Some("2025-11-28 00:00:00"));
        let many: Vec<String> = (1..=2000).map(|id| (id * 7).to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let steps: [(&str, Step<'_>); 6] = [
            ("range,idx_incremental_export,Using where; Using index for group-by", &|source| {
                source.tenants(&FOREVER.into()).unwrap();
            }),
            ("range,idx_incremental_export,Using where; Using index", &|source| {
                source.keys(&"10".into(), &window, &KeyCursor::Start, 500).unwrap();
            }),
            ("range,idx_incremental_export,Using where; Using index", &|source| {
                let key = Key { id: "17000".into(), tenant: "10".into(), time: Some("2025-11-20 12:00:00".into()) };
                source.keys(&"10".into(), &window, &KeyCursor::After(key), 500).unwrap();
            }),
            ("range,PRIMARY,Using where", &|source| {
                documents(source, &many);
            }),
            ("index,PRIMARY,Using where", &|source| {
                source.page(None, 10, &mut |_| Ok(())).unwrap();
            }),
            ("range,PRIMARY,Using where", &|source| {
                source.page(Some(&"500".into()), 10, &mut |_| Ok(())).unwrap();
            }),
        ];
        for (plan, step) in steps {
            database.execute("TRUNCATE mysql.general_log");
            step(&mut *source);
            let sent = database.query(
                "SELECT argument FROM mysql.general_log \
                 WHERE command_type = 'Execute' AND argument LIKE '%FROM `t_invoice`%'",
            );
            let [sent] = sent.as_slice() else { panic!("{sent:?}") };
            let sql = sent[0].as_deref().unwrap();
            let explained: Vec<mysql::Row> = session.query(format!("EXPLAIN FORMAT=TRADITIONAL {sql}")).unwrap();
            let [row] = explained.as_slice() else { panic!("{explained:?}") };
            let found = ["type", "key", "Extra"].map(|name| row.get::<Option<String>, _>(name).unwrap());
            let found = found.map(Option::unwrap_or_default).join(",");
            assert_eq!(found, plan, "{row:?} for {:.300}", sql);
        }
    });
}

/// What a plan does not show: a bound value of another type or character set than its column's.
#[test]
fn a_statement_reads_no_more_rows_than_it_needs_whatever_the_types() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let database = own.database();
        database.load_sample(6_000, 7, "1:40,10:40,89:20");
        for (tenant, time) in [
            ("VARCHAR(64) CHARACTER SET utf8mb3", "DATETIME"),
            ("CHAR(9) CHARACTER SET latin1", "TIMESTAMP(3)"),
            ("INT", "DATETIME(6)"),
        ] {
            database.execute(&format!("ALTER TABLE t_invoice MODIFY ftenant_id {tenant}, MODIFY fupdate_time {time}"));
            let rows_read = || -> u64 {
                let counts = database.query("SHOW GLOBAL STATUS LIKE 'Handler_read%'");
                counts.iter().map(|row| row[1].as_ref().unwrap().parse::<u64>().unwrap()).sum()
            };
            let mut source = open(&database.url());
            let asking = {
                let before = rows_read();
                rows_read() - before
            };
            let window = span(Some("2025-11-20 00:00:00"), Some("2025-11-28 00:00:00"));
            let first = source.keys(&"10".into(), &window, &KeyCursor::Start, 20).unwrap();
            let after = KeyCursor::After(first[19].clone());
            let steps: [(&str, Step<'_>); 5] = [
                ("tenants", &|source| assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 3)),
                ("one tenant", &|source| assert!(source.has_tenant(&"89".into()).unwrap())),
                ("keys", &|source| assert_eq!(source.keys(&"10".into(), &window, &after, 20).unwrap().len(), 20)),
                ("a page", &|source| assert_eq!(source.page(Some(&"5000".into()), 20, &mut |_| Ok(())).unwrap(), 20)),
                ("documents", &|source| assert!(documents(source, &["7", "70", "700", "1400"]).len() > 2)),
            ];
            for (name, step) in steps {
                let before = rows_read();
                step(&mut *source);
                let read = rows_read() - before - asking;
                assert!(read < 40, "{name} read {read} rows where the tenant is {tenant} and the time {time}");
            }
        }
    });
}

#[test]
fn a_document_of_the_type_json_comes_as_the_server_prints_it() {
    on_every_flavor(|flavor| {
        let rows = [("1", "'2025-11-28 15:00:00'"), ("2", "'2025-11-28 15:00:00'")];
        let database = table_with(server(flavor), "INT", "DATETIME", &rows);
        database
            .execute("ALTER TABLE t_invoice MODIFY fext_field JSON, ADD code INT NOT NULL UNIQUE DEFAULT (10 - fid)");
        database.execute("UPDATE t_invoice SET fext_field = '{\"b\": 0.1000, \"a\": \"发票\"}' WHERE fid = 1");
        // MySQL cannot sort rows with such a document in the memory that it allows for that by default.
        database.execute("UPDATE t_invoice SET fext_field = CONCAT('[\"', REPEAT('x', 1000000), '\"]') WHERE fid = 2");
        let printed = database.query("SELECT fext_field FROM t_invoice ORDER BY fid");
        let printed: Vec<_> = printed.iter().map(|row| row[0].as_deref().unwrap().as_bytes()).collect();
        let documents_of = |rows: Vec<Fetched>| -> Vec<Vec<u8>> {
            rows.into_iter()
                .map(|fetched| match fetched {
                    Fetched::Row(row) => row.document,
                    Fetched::Unreadable { reason, .. } => panic!("{reason:?}"),
                })
                .collect()
        };
        let mut source = open(&database.url());
        assert_eq!(documents_of(pages(&mut *source, 10)), printed);
        assert_eq!(documents_of(documents(&mut *source, &["2", "1"])), printed);
        let names = TableNames { id: Some("code".into()), ..TableNames::default() };
        let mut source = source::open(&Access { names, ..access(&database.url()) }).unwrap();
        assert_eq!(documents_of(documents(&mut *source, &["8", "9"])), [printed[1], printed[0]]);
    });
}

#[test]
fn a_server_that_limits_the_time_of_statements_does_not_limit_ours() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let database = own.database();
        database.load_sample(12_000, 7, "1:40,10:40,89:20");
        database.execute(match flavor {
            Flavor::MariaDb => "SET GLOBAL max_statement_time = 0.2",
            Flavor::MySql => "SET GLOBAL max_execution_time = 200",
        });
        let mut came = 0;
        let page = open(&database.url()).page(None, 12_000, &mut |_| {
            came += 1;
            if came == 1 {
                // Whoever takes the rows is slow, and the server waits with the rest of them.
                thread::sleep(Duration::from_millis(600));
            }
            Ok(())
        });
        assert_eq!(page.unwrap(), came);
        assert!(came > 11_000, "{came}");
    });
}

#[test]
fn every_statement_carries_the_run() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let database = table_with(&own, "INT", "DATETIME", &[("1", "NOW()")]);
        let mut source = open(&database.url());
        database.execute("SET GLOBAL log_output = 'TABLE'");
        database.execute("SET GLOBAL general_log = 1");
        source.label(RunId(42));
        source.clock().unwrap();
        source.tenants(&FOREVER.into()).unwrap();
        database.execute("SET GLOBAL general_log = 0");
        let sent = database.query("SELECT argument FROM mysql.general_log WHERE command_type = 'Execute'");
        let labelled =
            sent.iter().filter(|row| row[0].as_ref().unwrap().starts_with("/* invoice-export run 42 */ SELECT"));
        assert_eq!(labelled.count(), 2, "{sent:?}");
    });
}

#[test]
fn a_session_does_not_take_the_servers_habits() {
    on_every_flavor(|flavor| {
        let options = &[
            "--autocommit=0",
            "--transaction-isolation=READ-UNCOMMITTED",
            "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,PIPES_AS_CONCAT",
            "--init-connect=SET sql_select_limit = 2",
            "--character-set-server=latin1",
            "--collation-server=latin1_swedish_ci",
        ];
        let own = Server::fresh_with(flavor, Settings { options, ..Settings::default() });
        let database = table_with(&own, "INT", "DATETIME", &[]);
        let mut conn = database.connect();
        conn.query_drop("CREATE USER reader@'%'").unwrap();
        conn.query_drop("GRANT SELECT ON *.* TO reader@'%'").unwrap();
        for id in 1..=5 {
            let sql = "INSERT INTO t_invoice VALUES (?, 'Ä', 'CN', '2025-11-28', ?, 3, '{}', '2025-11-28 15:00:00')";
            conn.exec_drop(sql, (id, "Ü")).unwrap();
        }
        conn.query_drop("COMMIT").unwrap();
        let url = database.url().replace("root@", "reader@");
        let mut source = open(&url);
        let rows = documents(&mut *source, &["1", "2", "3", "4", "5"]);
        assert_eq!(rows.len(), 5);
        let Fetched::Row(row) = &rows[0] else { panic!("{rows:?}") };
        assert_eq!((row.invoice.tenant.as_str(), row.invoice.number.as_str()), ("Ä", "Ü"));
        // Neither what is not committed nor a frozen view of the past.
        conn.query_drop("UPDATE t_invoice SET fext_field = '{\"a\": 1}'").unwrap();
        let document = |source: &mut dyn Source| match documents(source, &["1"]).remove(0) {
            Fetched::Row(row) => String::from_utf8(row.document).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(document(&mut *source), "{}");
        conn.query_drop("COMMIT").unwrap();
        assert_eq!(document(&mut *source), "{\"a\": 1}");
    });
}

#[test]
fn the_clock_is_that_of_the_zone_in_which_times_are_read() {
    on_every_flavor(|flavor| {
        let settings = Settings { os_zone: "Asia/Tokyo", options: &["--default-time-zone=+05:00"] };
        let own = Server::fresh_with(flavor, settings);
        let datetimes = table_with(&own, "INT", "DATETIME", &[]);
        let timestamps = table_with(&own, "INT", "TIMESTAMP", &[]);
        let hour_of = |access: Access| {
            let clock = source::open(&access).unwrap().clock().unwrap();
            let zoneless = clock.now.as_str().replace(' ', "T");
            let shown: i64 = own.database().query(&format!("SELECT TIMESTAMPDIFF(SECOND, '1970-01-01', '{zoneless}')"))
                [0][0]
                .as_ref()
                .unwrap()
                .parse()
                .unwrap();
            (shown - clock.unix_ms / 1000) / 3600
        };
        assert_eq!(hour_of(access(&datetimes.url())), 5);
        assert_eq!(hour_of(access(&timestamps.url())), 0);
        assert_eq!(hour_of(Access { time_zone: Some("+08:00".into()), ..access(&datetimes.url()) }), 8);
        assert_eq!(hour_of(Access { time_zone: Some("+08:00".into()), ..access(&timestamps.url()) }), 0);
        let unknown = refusal(&Access { time_zone: Some("Mars/Olympus".into()), ..access(&datetimes.url()) });
        assert!(unknown.contains("does not know the time zone Mars/Olympus"), "{unknown}");
    });
}

const ZONES_APART: Settings = Settings { os_zone: "Asia/Tokyo", options: &["--default-time-zone=+05:00"] };

/// A server whose operating system, default and session zones all differ, with one invoice.
fn server_for_open_work(flavor: Flavor) -> (Server, Database) {
    let own = Server::fresh_with(flavor, ZONES_APART);
    let database = table_with(&own, "INT", "TIMESTAMP NOT NULL", &[("1", "NOW()")]);
    (own, database)
}

/// The database's clock in the zone of the source's session.
fn utc_now(conn: &mut Conn) -> SourceTime {
    let now: String = conn.query_first("SELECT CAST(UTC_TIMESTAMP() AS CHAR)").unwrap().unwrap();
    SourceTime(now)
}

/// A server lists a statement for a moment after its client has the answer.
fn comes_true(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until another connection's statement shows in the server.
fn wait_for_statement(database: &Database, like: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let sql = format!(
        "SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE '{like}' AND `TIME` >= 1 AND ID <> CONNECTION_ID()"
    );
    while database.query(&sql).is_empty() {
        assert!(Instant::now() < deadline, "{like} does not show");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn idle_connections_and_readers_are_no_open_work() {
    on_every_flavor(|flavor| {
        let (_own, database) = server_for_open_work(flavor);
        let mut source = open(&database.url());
        let mut second = open(&database.url());
        second.tenants(&FOREVER.into()).unwrap();
        assert_eq!(source.open_work().unwrap(), OpenWork::None);
        let mut reader = database.connect();
        reader.query_drop("START TRANSACTION READ ONLY").unwrap();
        reader.query_drop("SELECT * FROM t_invoice").unwrap();
        let url = database.url();
        let report =
            thread::spawn(move || Conn::new(url.as_str()).unwrap().query_drop("/* report */ (SELECT SLEEP(2))"));
        wait_for_statement(&database, "/* report */%");
        assert_eq!(source.open_work().unwrap(), OpenWork::None);
        report.join().unwrap().unwrap();
    });
}

#[test]
fn a_source_that_is_reading_is_no_open_work() {
    on_every_flavor(|flavor| {
        let (_own, database) = server_for_open_work(flavor);
        let mut writer = database.connect();
        for id in 2..200 {
            writer
                .exec_drop(
                    "INSERT INTO t_invoice VALUES (?, '1', 'CN', '2025-11-28', 'INV', 3, ?, NOW())",
                    (id, "x".repeat(100_000)),
                )
                .unwrap();
        }
        let mut source = open(&database.url());
        let mut second = open(&database.url());
        let mut seen = Vec::new();
        second
            .page(None, 500, &mut |_| {
                if seen.is_empty() {
                    seen.push(source.open_work().unwrap());
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [OpenWork::None]);
    });
}

#[test]
fn an_open_transaction_is_open_work_since_its_start() {
    on_every_flavor(|flavor| {
        let (_own, database) = server_for_open_work(flavor);
        let mut source = open(&database.url());
        let mut writer = database.connect();
        let before = utc_now(&mut writer);
        writer.query_drop("BEGIN").unwrap();
        writer.query_drop("UPDATE t_invoice SET fext_field = '[]'").unwrap();
        let after = utc_now(&mut writer);
        for _ in 0..2 {
            match source.open_work().unwrap() {
                OpenWork::Since(start) => assert!(before <= start && start <= after, "{before} {start} {after}"),
                other => panic!("{other:?}"),
            }
        }
        // Looking into the server's zone has left the session's as it was.
        assert!(source.clock().unwrap().now >= after);
        writer.query_drop("COMMIT").unwrap();
        comes_true("the transaction is over", || source.open_work().unwrap() == OpenWork::None);
    });
}

#[test]
fn a_statement_that_waits_for_a_table_is_open_work_since_its_start() {
    on_every_flavor(|flavor| {
        let (_own, database) = server_for_open_work(flavor);
        let mut source = open(&database.url());
        let mut holder = database.connect();
        holder.query_drop("LOCK TABLES t_invoice WRITE").unwrap();
        let before = utc_now(&mut holder);
        let url = database.url();
        let waiting = thread::spawn(move || {
            Conn::new(url.as_str()).unwrap().query_drop("UPDATE t_invoice SET fext_field = '[]'")
        });
        wait_for_statement(&database, "UPDATE t_invoice%");
        match source.open_work().unwrap() {
            OpenWork::Since(start) => {
                let margin = invoice_export::window::earlier(&before, Duration::from_secs(2)).unwrap();
                assert!(margin <= start && start < source.clock().unwrap().now, "{before} {start}");
            }
            other => panic!("{other:?}"),
        }
        holder.query_drop("UNLOCK TABLES").unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn open_work_is_known_without_the_performance_schema() {
    let settings = Settings { options: &["--performance-schema=OFF"], ..Settings::default() };
    let own = Server::fresh_with(Flavor::MySql, settings);
    let database = table_with(&own, "INT", "DATETIME", &[]);
    let mut source = open(&database.url());
    assert_eq!(source.open_work().unwrap(), OpenWork::None);
    let mut holder = database.connect();
    holder.query_drop("LOCK TABLES t_invoice WRITE").unwrap();
    let url = database.url();
    let waiting = thread::spawn(move || Conn::new(url.as_str()).unwrap().query_drop("DELETE FROM t_invoice"));
    wait_for_statement(&database, "DELETE%");
    assert!(matches!(source.open_work().unwrap(), OpenWork::Since(_)));
    holder.query_drop("UNLOCK TABLES").unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn open_work_takes_the_process_privilege_and_no_other() {
    on_every_flavor(|flavor| {
        let (_own, database) = server_for_open_work(flavor);
        let mut writer = database.connect();
        writer.query_drop("CREATE USER small@'%' IDENTIFIED BY 'klein'").unwrap();
        writer.query_drop("GRANT SELECT ON t_invoice TO small@'%'").unwrap();
        let small = access(&database.url().replace("root@", "small@"));
        let small = Access { password: Some("klein".into()), ..small };
        let mut source = source::open(&small).unwrap();
        assert_eq!(source.open_work().unwrap(), OpenWork::Unknown);
        source.tenants(&FOREVER.into()).unwrap();
        writer.query_drop("GRANT PROCESS ON *.* TO small@'%'").unwrap();
        let mut source = source::open(&small).unwrap();
        assert_eq!(source.open_work().unwrap(), OpenWork::None);
        writer.query_drop("BEGIN").unwrap();
        writer.query_drop("UPDATE t_invoice SET fext_field = '[]'").unwrap();
        assert!(matches!(source.open_work().unwrap(), OpenWork::Since(_)));
        assert_eq!((source.estimate().unwrap(), source.tenants(&FOREVER.into()).unwrap().tenants.len()), (Some(1), 1));
    });
}

#[test]
fn a_server_that_dies_within_a_page_breaks_the_connection_and_is_found_again() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let database = own.database();
        database.load_sample(24_552, 7, "1:40,10:40,89:20");
        let mut source = open(&database.url());
        let mut came = 0;
        let fault = source.page(None, 30_000, &mut |_| {
            came += 1;
            if came == 10 {
                own.kill();
            }
            Ok(())
        });
        assert!(matches!(fault, Err(SourceError::Connection(_))), "{fault:?}");
        assert!((10..23_000).contains(&came), "{came} rows came");
        assert!(matches!(source.clock(), Err(SourceError::Connection(_))));
        own.restart();
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 3);
        assert_eq!(source.page(None, 100, &mut |_| Ok(())).unwrap(), 100);
    });
}

#[test]
fn a_source_is_good_after_somebody_wanted_no_more_rows() {
    on_every_source(|table| {
        table.load_sample(900, 7, "1:40,10:40,89:20");
        let mut source = open(&table.url());
        let mut came = 0;
        let fault = source.page(None, 900, &mut |_| {
            came += 1;
            if came == 10 { Err(anyhow::anyhow!("enough")) } else { Ok(()) }
        });
        assert!(matches!(&fault, Err(SourceError::Consumer(error)) if error.to_string() == "enough"), "{fault:?}");
        assert_eq!(came, 10);
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 3);
        assert_eq!(source.page(None, 5, &mut |_| Ok(())).unwrap(), 5);
    });
}

/// The server's number of the only connection to the database beside the one that asks.
fn connection(database: &Database) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    let sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()";
    loop {
        // Connections that were closed a moment ago may still show.
        match database.query(sql).as_slice() {
            [only] => return only[0].clone().unwrap(),
            several => assert!(Instant::now() < deadline, "{several:?}"),
        }
    }
}

#[test]
fn a_statement_that_the_server_refuses_leaves_the_connection_good() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        let mut source = open(&database.url());
        let before = connection(&database);
        database.execute("RENAME TABLE t_invoice TO t_other");
        assert!(matches!(source.tenants(&FOREVER.into()), Err(SourceError::Statement(_))));
        database.execute("RENAME TABLE t_other TO t_invoice");
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 1);
        assert_eq!(connection(&database), before);
    });
}

#[test]
fn a_connection_that_is_killed_is_made_again() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        let mut source = open(&database.url());
        database.execute(&format!("KILL {}", connection(&database)));
        assert!(matches!(source.tenants(&FOREVER.into()), Err(SourceError::Connection(_))));
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 1);
    });
}

#[test]
fn whoever_wants_no_more_rows_does_not_make_the_server_send_the_rest() {
    on_every_flavor(|flavor| {
        let database = server(flavor).database();
        database.load_sample(24_552, 7, "1:40,10:40,89:20");
        let proxy = Proxy::to(&database.url());
        let mut source = open(&proxy.url());
        let enough = || Err(anyhow::anyhow!("enough"));
        assert!(matches!(source.page(None, 30_000, &mut |_| enough()), Err(SourceError::Consumer(_))));
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 3);
        let sent = proxy.sent();
        assert!(sent < 30_000_000, "{sent} bytes of more than 60 million were sent");
    });
}

#[test]
fn another_server_behind_the_same_address_is_not_taken_for_the_first() {
    on_every_flavor(|flavor| {
        let mut first = Server::fresh(flavor);
        let database = table_with(&first, "INT", "DATETIME", &[("1", "NOW()")]);
        let url = database.url();
        let (_, name) = url.rsplit_once('/').unwrap();
        let second = server(flavor).database();
        second.execute(&format!("CREATE DATABASE {name}"));
        let proxy = Proxy::to(&url);
        let mut source = open(&proxy.url());
        let identity = source.identity().unwrap();
        assert_ne!(identity, open(&table_with(server(flavor), "INT", "DATETIME", &[]).url()).identity().unwrap());
        first.kill();
        proxy.aim(&second.url());
        assert!(matches!(source.clock(), Err(SourceError::Connection(_))));
        let fault = source.clock().unwrap_err();
        second.execute(&format!("DROP DATABASE {name}"));
        assert!(matches!(&fault, SourceError::Final(error) if error.to_string().contains("another server")), "{fault}");
        first.restart();
        proxy.aim(&url);
        assert_eq!(source.identity().unwrap(), identity);
    });
}

#[test]
fn a_source_is_reached_by_address_by_name_and_by_socket() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        for url in [database.url(), database.url().replace("127.0.0.1", "localhost"), database.socket_url()] {
            assert_eq!(open(&url).tenants(&FOREVER.into()).unwrap().tenants.len(), 1, "{url}");
        }
        assert!(open(&database.url()).name().0.ends_with(".t_invoice"));
    });
}

#[test]
fn a_password_in_the_url_is_neither_used_nor_told() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[]);
        database.execute("CREATE USER 'us er'@'%' IDENTIFIED BY 'geheim'");
        database.execute("GRANT SELECT ON *.* TO 'us er'@'%'");
        let url = database.url().replace("root@", "us%20er:geheim@");
        let refused = refusal(&access(&url));
        assert!(refused.contains("Access denied") && !refused.contains("geheim"), "{refused}");
        let given = Access { password: Some("geheim".into()), ..access(&url.replace(":geheim", ":falsch")) };
        let source = source::open(&given).unwrap();
        assert!(!source.name().0.contains("falsch") && !source.name().0.contains("us"), "{}", source.name().0);
        let wrong = refusal(&Access { password: Some("verkehrt".into()), ..access(&url) });
        assert!(wrong.contains("Access denied") && !wrong.contains("verkehrt"), "{wrong}");
    });
}

#[test]
fn a_source_that_cannot_be_used_says_why_in_one_line() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[]);
        let url = database.url();
        let (base, _) = url.rsplit_once('/').unwrap();
        let folder = tempfile::tempdir().unwrap();
        let missing = format!("sqlite:{}/none.db", folder.path().display());
        for (url, text) in [
            (&*format!("{base}/no_such_database"), "Unknown database"),
            ("mysql://root@127.0.0.1:1/x", "cannot connect to mysql://127.0.0.1:1/x"),
            ("mysql://root@no-such-host.invalid/x", "cannot connect to mysql://no-such-host.invalid:3306/x"),
            (&missing, "cannot open the source"),
        ] {
            let refused = refusal(&access(url));
            assert!(refused.contains(text) && !refused.contains('\n'), "{url}: {refused}");
        }
        assert!(!folder.path().join("none.db").exists());
    });
}

#[test]
fn a_table_that_cannot_be_exported_is_refused_with_the_remedy() {
    on_every_flavor(|flavor| {
        let cases: [(&str, &str); 9] = [
            ("RENAME TABLE t_invoice TO t_other", "there is no table t_invoice"),
            (
                "ALTER TABLE t_invoice DROP COLUMN fcountry, DROP COLUMN finvoice_no",
                "no column fcountry, finvoice_no that",
            ),
            ("ALTER TABLE t_invoice DROP PRIMARY KEY", "has no primary key"),
            (
                "ALTER TABLE t_invoice DROP PRIMARY KEY, ADD PRIMARY KEY (ftenant_id, fid)",
                "has 2 columns (ftenant_id, fid)",
            ),
            ("ALTER TABLE t_invoice MODIFY fid BINARY(16) NOT NULL", "the id column fid has the type binary"),
            ("ALTER TABLE t_invoice MODIFY fid DECIMAL(30) NOT NULL", "the id column fid has the type decimal"),
            (
                "ALTER TABLE t_invoice MODIFY ftenant_id VARBINARY(20)",
                "the tenant column ftenant_id has the type varbinary",
            ),
            ("ALTER TABLE t_invoice MODIFY fupdate_time BIGINT", "the time column fupdate_time has the type bigint"),
            ("ALTER TABLE t_invoice MODIFY fupdate_time VARCHAR(30)", "it must be DATETIME or TIMESTAMP"),
        ];
        for (change, text) in cases {
            let database = table_with(server(flavor), "INT", "DATETIME", &[]);
            database.execute(change);
            let refused = refusal(&access(&database.url()));
            assert!(refused.contains(text) && !refused.contains('\n'), "{change}: {refused}");
        }
    });
}

#[test]
fn a_named_id_must_be_unique_and_never_null() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()"), ("2", "NOW()")]);
        database.execute("ALTER TABLE t_invoice ADD code VARCHAR(10), ADD UNIQUE KEY by_code (code)");
        let named = Access {
            names: TableNames { id: Some("code".into()), ..TableNames::default() },
            ..access(&database.url())
        };
        let refused = refusal(&named);
        assert!(refused.contains("the column code of the table t_invoice cannot be the id"), "{refused}");
        database.execute("UPDATE t_invoice SET code = CONCAT('n', 3 - fid)");
        database.execute("ALTER TABLE t_invoice MODIFY code VARCHAR(10) NOT NULL");
        let mut source = source::open(&named).unwrap();
        assert_eq!(ids(&pages(&mut *source, 1)), ["n1", "n2"]);
        let [Notice::MissingIndex { statement }] = &source.notices()[..] else { panic!("{:?}", source.notices()) };
        assert!(statement.contains("`fupdate_time`, `code`)"), "{statement}");
    });
}

#[test]
fn a_missing_index_is_noticed_with_the_statement_that_makes_it() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        assert_eq!(open(&database.url()).notices(), []);
        database.execute("DROP INDEX idx_incremental_export ON t_invoice");
        database.execute("CREATE INDEX other ON t_invoice (ftenant_id, fupdate_time, fissue_status)");
        let mut source = open(&database.url());
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 1);
        assert_eq!(keys(&mut *source, "1", &Span::default(), 1).len(), 1);
        let [Notice::MissingIndex { statement }] = &source.notices()[..] else { panic!("{:?}", source.notices()) };
        assert!(statement.starts_with("CREATE INDEX idx_incremental_export ON "), "{statement}");
        database.execute(statement);
        assert_eq!(open(&database.url()).notices(), []);
    });
}

#[test]
fn an_index_that_the_server_ignores_is_missing() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        let ignored = match flavor {
            Flavor::MariaDb => "IGNORED",
            Flavor::MySql => "INVISIBLE",
        };
        database.execute(&format!("ALTER TABLE t_invoice ALTER INDEX idx_incremental_export {ignored}"));
        let mut source = open(&database.url());
        assert!(matches!(source.notices()[..], [Notice::MissingIndex { .. }]));
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 1);
    });
}

#[test]
fn names_that_need_quotes_are_quoted() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        database.execute("ALTER TABLE t_invoice RENAME COLUMN fupdate_time TO `up``date ? :time`");
        database.execute("RENAME TABLE t_invoice TO `order`");
        let names = TableNames { table: "order".into(), time: "up`date ? :time".into(), ..TableNames::default() };
        let mut source = source::open(&Access { names, ..access(&database.url()) }).unwrap();
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 1);
        assert_eq!(ids(&pages(&mut *source, 1)), ["1"]);
    });
}

#[test]
fn a_status_may_be_a_word() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        database.execute("ALTER TABLE t_invoice MODIFY fissue_status VARCHAR(10) NOT NULL");
        database.execute("UPDATE t_invoice SET fissue_status = 'issued'");
        let names = TableNames { issued: "issued".into(), ..TableNames::default() };
        let mut source = source::open(&Access { names, ..access(&database.url()) }).unwrap();
        assert_eq!(keys(&mut *source, "1", &Span::default(), 1).len(), 1);
    });
}

#[test]
fn the_sample_is_a_source_and_its_changes_are_as_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("样本 source.db");
    sample::create(&path, "2025-11-28 16:30:00").unwrap();
    assert!(sample::create(&path, "2025-11-28 16:30:00").is_err());
    let mut source = open(&format!("sqlite:{}", path.display()));
    let before = pages(&mut *source, 1000);
    let tenants: Vec<_> =
        source.tenants(&FOREVER.into()).unwrap().tenants.into_iter().map(|listed| listed.spelling.0).collect();
    assert_eq!(tenants, ["1", "10", "89"]);
    assert!((280..300).contains(&before.len()), "{}", before.len());
    let at = "2025-11-29 10:00:00";
    let changes = sample::change(&path, at).unwrap();
    let mut changed = Vec::new();
    for tenant in &tenants {
        changed.extend(keys(&mut *source, tenant, &span(Some("2025-11-28 16:30:00"), None), 10));
    }
    assert!(times_of(&changed).iter().all(|time| *time == Some(at)));
    let all = changes.updated + changes.inserted + changes.moved + changes.spoiled;
    assert_eq!(changed.len() as u64, all, "{changes:?}");
    let spoiled = pages(&mut *source, 1000).into_iter().filter(|fetched| match fetched {
        Fetched::Row(row) => serde_json::from_slice::<serde_json::Value>(&row.document).is_err(),
        Fetched::Unreadable { .. } => true,
    });
    assert_eq!(spoiled.count() as u64, changes.spoiled);
}
