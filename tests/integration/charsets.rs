//! Columns in other character sets than UTF-8: what the server converts arrives, what it cannot convert is
//! rejected by name.

use invoice_export::invoice::{Fetched, InvoiceId};
use invoice_export::source::{KeyCursor, Source};
use invoice_export::window::Span;

use crate::support::exporter::Exporter;
use crate::support::reader::{documents, open, pages};
use crate::support::server::{Flavor, server};
use crate::support::table::{Table, on_every_flavor};
use crate::support::{Database, Row};

const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];

fn database(table: &Table) -> &Database {
    match table {
        Table::Server(database) => database,
        Table::Embedded(_) => unreachable!("it lies on a server"),
    }
}

/// An empty table, all texts of which have this character set.
fn table_in(flavor: Flavor, charset: &str) -> Table {
    let table = Table::on(server(flavor));
    table.execute(&format!("ALTER TABLE t_invoice CONVERT TO CHARACTER SET {charset}"));
    table
}

/// One invoice; its texts are SQL.
fn insert(table: &Table, id: &str, [tenant, country, number, document]: [&str; 4]) {
    table.execute(&format!(
        "INSERT INTO t_invoice VALUES \
         ({id}, {tenant}, {country}, '2025-11-28', {number}, 3, {document}, NOW() - INTERVAL 50 MINUTE)"
    ));
}

fn rejects(exporter: &Exporter<'_>) -> Vec<String> {
    exporter.ask("SELECT id, tenant, reason, detail FROM reject WHERE closed_run IS NULL ORDER BY id")
}

fn document(fetched: &Fetched) -> &str {
    match fetched {
        Fetched::Row(row) => std::str::from_utf8(&row.document).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Of each row its text, or the columns that lost something.
fn told(rows: &[Fetched]) -> Vec<String> {
    let told = |fetched: &Fetched| match fetched {
        Fetched::Row(row) => String::from_utf8_lossy(&row.document).into_owned(),
        Fetched::Unreadable { reason, .. } => format!("{reason:?}"),
    };
    rows.iter().map(told).collect()
}

#[test]
fn characters_that_gbk_has_and_unicode_has_not_are_rejected_until_they_are_mended() {
    on_every_flavor(|flavor| {
        for arguments in [&["run"][..], &INCREMENTAL] {
            let table = table_in(flavor, "gbk");
            let rows = [
                ["'票据'", "'CN'", "'A?'", "'{\"a\": \"发票?\"}'"],
                ["'1'", "'CN'", "_gbk 0x42AAA1", "'{}'"],
                ["'1'", "'CN'", "_gbk 0x42AAA2", "'{\"b\": 2}'"],
                ["'1'", "'CN'", "'C'", "CONCAT(_gbk'{\"?\": \"', _gbk 0xAAA1, _gbk'\"}')"],
                ["'1'", "_gbk 0xAAA1", "'D'", "'{}'"],
                ["_gbk 0xAAA1", "'CN'", "'E'", "'{}'"],
                ["_gbk 0xAAA2", "'CN'", "'F'", "'{}'"],
                ["'1'", "NULL", "'G'", "'{}'"],
            ];
            (1..).zip(rows).for_each(|(id, row)| insert(&table, &format!("{id}"), row));
            let exporter = Exporter::new(&table);
            let finished = exporter.run(arguments).expect(3);
            let reason = "a character that the server cannot convert to UTF-8, or bytes that are none";
            let expected = [
                format!("2 1 unmappable finvoice_no: {reason}"),
                format!("3 1 unmappable finvoice_no: {reason}"),
                format!("4 1 unmappable fext_field: {reason}"),
                format!("5 1 unmappable fcountry: {reason}"),
                format!("6 \u{fffd}AAA1 unmappable ftenant_id: {reason}"),
                format!("7 \u{fffd}AAA2 unmappable ftenant_id: {reason}"),
            ];
            assert_eq!(rejects(&exporter), expected, "{finished}");
            let files: Vec<String> = exporter.tree().into_keys().collect();
            assert_eq!(files, ["1/UNKNOWN/20251128+G.json", "票据/CN/20251128+A?.json"]);
            assert_eq!(exporter.tree()["票据/CN/20251128+A?.json"], "{\"a\": \"发票?\"}".as_bytes());
            let why = exporter.run(["why", "C"]).expect(6);
            assert!(why.stdout.contains("fext_field: a character that the server cannot convert"), "{why}");
            for again in [&["run"][..], &INCREMENTAL] {
                let summary = exporter.run(again.iter().chain(&["--format", "json"])).expect(0).json();
                assert_eq!((&summary["written"], &summary["open_rejects"]), (&0.into(), &6.into()), "{summary}");
            }
            let verify = exporter.run(["verify", "--against-source", "--documents", "--format", "json"]);
            assert_eq!(verify.expect(0).json()["known_rejects"], 6);
            exporter.assert_state_is_sound();
            table.execute("UPDATE t_invoice SET finvoice_no = CONCAT('B', fid) WHERE fid IN (2, 3)");
            table.execute("UPDATE t_invoice SET fext_field = '{\"?\": \"\"}' WHERE fid = 4");
            table.execute("UPDATE t_invoice SET fcountry = 'IT' WHERE fid = 5");
            table.execute("UPDATE t_invoice SET ftenant_id = '一' WHERE fid IN (6, 7)");
            exporter.run(arguments).expect(0);
            assert_eq!(rejects(&exporter), [""; 0]);
            assert_eq!(exporter.tree().len(), 8);
            exporter.run(["verify", "--hash", "--against-source", "--documents"]).expect(0);
        }
    });
}

#[test]
fn a_reject_heals_when_its_column_is_converted_to_utf8mb4() {
    on_every_flavor(|flavor| {
        let table = table_in(flavor, "gbk");
        insert(&table, "1", ["'1'", "'CN'", "'A'", "CONCAT(_gbk'\"', _gbk 0xAAA1, _gbk'\"')"]);
        insert(&table, "2", ["'1'", "'CN'", "'B'", "'\"票\"'"]);
        let exporter = Exporter::new(&table);
        exporter.run(["run"]).expect(3);
        // What conversion of the column does: this character becomes another one, of the private use area.
        table.execute("ALTER TABLE t_invoice ADD new LONGTEXT CHARACTER SET utf8mb4");
        table.execute("UPDATE t_invoice SET new = fext_field, fupdate_time = fupdate_time WHERE fid = 2");
        table.execute("UPDATE t_invoice SET new = '\"\u{e000}\"', fupdate_time = fupdate_time WHERE fid = 1");
        table.execute("ALTER TABLE t_invoice DROP fext_field, CHANGE new fext_field LONGTEXT CHARACTER SET utf8mb4");
        exporter.run(INCREMENTAL).expect(0);
        assert_eq!(rejects(&exporter), [""; 0]);
        let tree = exporter.tree();
        let content = |number: &str| std::str::from_utf8(&tree[&format!("1/CN/20251128+{number}.json")]).unwrap();
        assert_eq!((content("A"), content("B")), ("\"\u{e000}\"", "\"票\""));
    });
}

/// NEC's and IBM's codes of one character, and those of Taiwan's makers.
#[test]
fn a_character_that_comes_back_in_another_code_is_not_lost() {
    on_every_flavor(|flavor| {
        for (charset, codes, character) in [
            ("cp932", ["EEEF", "FA40"], "ⅰ"),
            ("cp932", ["81E6", "879A"], "∵"),
            ("eucjpms", ["A2E8", "ADFA"], "∵"),
            ("big5", ["A1C3", "A1C5"], ""),
        ] {
            let table = table_in(flavor, charset);
            for (id, code) in (1..).zip(codes) {
                let text = format!("CONCAT(_{charset}'\"a?', _{charset} 0x{code}, _{charset}'?\"')");
                insert(&table, &format!("{id}"), ["'1'", "'CN'", &format!("'A{id}'"), &text]);
            }
            let rows = pages(&mut *open(&table.url()), 10);
            for row in &rows {
                let document = document(row);
                assert!(document.starts_with("\"a?") && document.ends_with("?\""), "{charset}: {document}");
                assert_eq!(document.matches('?').count(), 2, "{charset}: {document}");
                assert!(document.contains(character), "{charset}: {document}");
            }
            assert_eq!(rows.len(), codes.len(), "{charset}");
            Exporter::new(&table).run(["run"]).expect(0);
        }
    });
}

#[test]
fn character_sets_of_one_byte_are_carried_as_far_as_their_codes_are_characters() {
    on_every_flavor(|flavor| {
        for (charset, carried, lost) in [
            ("latin1", &["E4", "81", "9D", "80"][..], &[][..]),
            ("cp1251", &["E4", "CF"], &[]),
            ("hebrew", &["E0"], &["A1", "FF"]),
            ("greek", &["E1"], &["FF"]),
        ] {
            let table = table_in(flavor, charset);
            for (id, code) in (1..).zip(carried.iter().chain(lost)) {
                let document = format!("CONCAT(_{charset}'\"??', _{charset} 0x{code}, _{charset}'\"')");
                insert(&table, &format!("{id}"), ["'1'", "'CN'", &format!("'A{id}'"), &document]);
            }
            let rows = pages(&mut *open(&table.url()), 10);
            let (good, bad) = rows.split_at(carried.len());
            good.iter().for_each(|row| assert_eq!(document(row).matches('?').count(), 2, "{charset}: {row:?}"));
            let expected = vec!["Unmappable { columns: \"fext_field\" }"; lost.len()];
            assert_eq!(told(bad), expected, "{charset}");
        }
    });
}

#[test]
fn wide_character_sets_are_carried_but_for_half_characters() {
    on_every_flavor(|flavor| {
        for charset in ["ucs2", "utf16", "utf16le", "utf32"] {
            let table = table_in(flavor, charset);
            insert(&table, "1", ["'票'", "'CN'", "'A?'", "'\"?票據?\"'"]);
            if charset == "ucs2" {
                insert(&table, "2", ["'票'", "'CN'", "'B'", "_ucs2 0x0022003FD8000022"]);
            } else {
                insert(&table, "2", ["'票'", "'CN'", "'\u{1f9fe}'", "'\"\u{1f9fe}\"'"]);
            }
            let mut source = open(&table.url());
            let rows = told(&pages(&mut *source, 10));
            let second = match (charset, flavor) {
                // MariaDB makes bytes of it that are not UTF-8, which is found later.
                ("ucs2", Flavor::MariaDb) => "\"?\u{fffd}\u{fffd}\u{fffd}\"",
                ("ucs2", Flavor::MySql) => "Unmappable { columns: \"fext_field\" }",
                _ => "\"\u{1f9fe}\"",
            };
            assert_eq!(rows, ["\"?票據?\"", second], "{charset}");
            let keys = source.keys(&"票".into(), &Span::default(), &KeyCursor::Start, 10).unwrap();
            assert_eq!(keys.len(), 2, "{charset}");
        }
    });
}

/// It has a place for every character of Unicode, and Unicode for all of its own.
#[test]
fn a_table_in_gb18030_is_carried_whole() {
    let table = table_in(Flavor::MySql, "gb18030");
    insert(&table, "1", ["'票'", "'CN'", "_gb18030 0xAAA1", "CONCAT('\"?', _gb18030 0xAAA1, '\u{1f9fe}\"')"]);
    insert(&table, "2", ["_gb18030 0xAAA1", "'CN'", "_gb18030 0xAAA2", "'\"票\"'"]);
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    let tree = exporter.tree();
    assert_eq!(tree.len(), 2);
    assert!(tree.values().any(|content| content == "\"?\u{e000}\u{1f9fe}\"".as_bytes()), "{tree:?}");
}

/// An id is in no file, so none is rejected for it; but rows must be found by it again.
#[test]
fn ids_that_unicode_cannot_hold_are_read_in_pages_and_by_key() {
    on_every_flavor(|flavor| {
        let ids = ["'a'", "_gbk 0xAAA1", "_gbk 0xAAA2", "'b?'", "_gbk 0x63AAA1", "'票'", "'票据'"];
        for collation in ["gbk_chinese_ci", "gbk_bin"] {
            let table = table_in(flavor, "gbk");
            table.execute(&format!(
                "ALTER TABLE t_invoice MODIFY fid VARCHAR(20) CHARACTER SET gbk COLLATE {collation} NOT NULL, \
                 MODIFY ftenant_id VARCHAR(20) CHARACTER SET gbk COLLATE {collation} NOT NULL"
            ));
            for (n, id) in ids.iter().enumerate() {
                insert(&table, id, ["_gbk 0xAAA1", "'CN'", &format!("'N{n}'"), &format!("'{{\"n\": {n}}}'")]);
            }
            let mut source = open(&table.url());
            for limit in [1, 2, 100] {
                assert_eq!(pages(&mut *source, limit).len(), ids.len(), "{limit}");
            }
            let listed = source.tenants(&"9999-12-31 23:59:59".into()).unwrap().tenants;
            assert_eq!(listed.iter().map(|listed| listed.spelling.as_str()).collect::<Vec<_>>(), ["\u{fffd}AAA1"]);
            assert!(source.has_tenant(&listed[0].spelling).unwrap());
            assert!(!source.has_tenant(&"?".into()).unwrap());
            let keys = all_keys(&mut *source, &listed[0].spelling, 2);
            assert_eq!(keys.len(), ids.len(), "{keys:?}");
            let keys: Vec<&str> = keys.iter().map(InvoiceId::as_str).collect();
            assert_eq!(documents(&mut *source, &keys).len(), ids.len(), "{keys:?}");
            assert_eq!(
                source.find("N1", &keys.iter().map(|id| (*id).into()).collect::<Vec<_>>()).unwrap().len(),
                ids.len()
            );
            table.execute("UPDATE t_invoice SET ftenant_id = '1', fupdate_time = fupdate_time");
            for arguments in [&["run"][..], &INCREMENTAL] {
                let exporter = Exporter::new(&table);
                exporter.run(arguments).expect(0);
                assert_eq!(exporter.tree().len(), ids.len());
                let again = exporter.run(arguments.iter().chain(&["--format", "json"])).expect(0).json();
                assert_eq!(again["written"], 0, "{again}");
                exporter.run(["verify", "--against-source", "--documents"]).expect(0);
            }
        }
    });
}

fn all_keys(source: &mut dyn Source, tenant: &invoice_export::invoice::Tenant, limit: usize) -> Vec<InvoiceId> {
    let (mut cursor, mut ids) = (KeyCursor::Start, Vec::new());
    loop {
        let page = source.keys(tenant, &Span::default(), &cursor, limit).unwrap();
        let Some(last) = page.last().cloned() else { return ids };
        ids.extend(page.into_iter().map(|key| key.id));
        assert!(ids.len() <= 100, "the pages come again: {ids:?}");
        cursor = KeyCursor::After(last);
    }
}

#[test]
fn a_document_longer_than_the_servers_packets_is_converted_whole() {
    on_every_flavor(|flavor| {
        let own = crate::support::Server::fresh(flavor);
        let table = Table::on(&own);
        table.execute("ALTER TABLE t_invoice CONVERT TO CHARACTER SET gbk");
        table.insert(&Row { document: "{}", ..Row::default() });
        table.execute("UPDATE t_invoice SET fext_field = CONCAT('\"', REPEAT('票?', 3000000), '\"')");
        database(&table).execute("SET GLOBAL max_allowed_packet = 1048576");
        let rows = pages(&mut *open(&table.url()), 10);
        assert_eq!(document(&rows[0]).len(), 12_000_002);
    });
}

/// MariaDB takes question marks out of a text one by one, which would take minutes here.
#[test]
fn a_long_document_of_question_marks_keeps_no_server_busy() {
    on_every_flavor(|flavor| {
        let table = table_in(flavor, "gbk");
        let many = "REPEAT(CONVERT('票?' USING gbk), 3000000)";
        insert(&table, "1", ["'1'", "'CN'", "'A'", &format!("CONCAT('\"', {many}, '\"')")]);
        let exporter = Exporter::new(&table);
        exporter.run(["run"]).expect(0);
        assert_eq!(exporter.tree()["1/CN/20251128+A.json"].len(), 12_000_002);
        // Too long to be sent, and so too long to be measured, with a character that does not come back.
        insert(&table, "2", ["'1'", "'CN'", "'B'", &format!("CONCAT(_gbk'\"', _gbk 0xAAA1, {many}, _gbk'\"')")]);
        exporter.run(["run", "--max-document", "1MiB"]).expect(3);
        let reasons = exporter.ask("SELECT id, reason FROM reject WHERE closed_run IS NULL ORDER BY id");
        assert_eq!(reasons, ["1 too-large", "2 too-large"]);
    });
}

#[test]
fn a_question_that_a_column_cannot_hold_is_answered_with_not_there() {
    on_every_flavor(|flavor| {
        for (charset, held) in [("latin1", "é"), ("gbk", "票"), ("utf8mb3", "票"), ("ascii", "a"), ("utf8mb4", "😀")]
        {
            let table = table_in(flavor, charset);
            table.execute("ALTER TABLE t_invoice MODIFY fid VARCHAR(50) NOT NULL");
            insert(&table, "'1'", [&format!("'{held}'"), "'CN'", &format!("'{held}'"), "'{}'"]);
            let exporter = Exporter::new(&table);
            exporter.run(INCREMENTAL).expect(0);
            exporter.run(["why", held, "--tenant", held]).expect(0);
            exporter.run(["run", "--tenant", held]).expect(0);
            for other in ["😀票é", "\u{fffd}"] {
                let why = exporter.run(["why", other]).expect(6);
                assert!(why.stdout.contains("has this number"), "{charset}: {why}");
                assert!(!why.stderr.contains("[WARN]"), "{charset}: {why}");
                for arguments in [
                    &["why", other, "--tenant", other][..],
                    &["run", "--tenant", other],
                    &["run", "--mode", "incremental", "--tenant", other],
                    &["run", "--dry-run", "--tenant", other],
                    &["verify", "--tenant", other],
                    &["verify", "--against-source", "--tenant", other],
                    &["state", "set", other, "2025-01-01", "--yes"],
                ] {
                    let refused = exporter.run(arguments).expect(2);
                    assert!(refused.error().contains("no tenant"), "{charset}, {arguments:?}: {refused}");
                }
            }
        }
    });
}
