//! What a source promises about the rows, the keys and the documents that it gives, on real servers and files.

use invoice_export::invoice::{Fetched, InvoiceId, Reason, Tenant};
use invoice_export::lang::Lang;
use invoice_export::source::{self, Access, ListedTenant, TableNames, sample};
use invoice_export::window::Span;
use mysql::prelude::Queryable;

use crate::support::reader::{FOREVER, access, documents, ids, ids_of, keys, open, pages, span, table_with, times_of};
use crate::support::{Flavor, Row, Server, Settings, Table, on_every_flavor, on_every_source, server};

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
                    (tenant.as_ref().map(Tenant::as_str), number.as_deref(), detail.in_lang(Lang::En))
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
