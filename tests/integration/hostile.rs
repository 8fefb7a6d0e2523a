//! Hostile tenants, countries and numbers: all exported, each to a file of its own, none outside the
//! tree, none hidden. And documents that are large, deep or broken.

use std::collections::BTreeMap;

use crate::support::exporter::Exporter;
use crate::support::table::{Row, Table, on_every_source, quoted};

/// What the columns of the sample table are too small for.
fn widen(table: &Table) {
    if let Table::Server(_) = table {
        table.execute("ALTER TABLE t_invoice MODIFY finvoice_no VARCHAR(500), MODIFY fcountry VARCHAR(64), MODIFY fext_field LONGBLOB");
    }
}

fn hostile_rows() -> Vec<(String, Option<String>, String)> {
    let long = "9".repeat(399);
    let numbers = [
        format!("{long}1"),
        format!("{long}2"),
        "a|b".into(),
        "a\nb".into(),
        "%2F".into(),
        "/".into(),
        String::new(),
        "-rf".into(),
        ".hidden".into(),
        "CON".into(),
        "..".into(),
        "../../../etc/passwd".into(),
        " blank ".into(),
        "é".repeat(200),
        "\u{202e}gnj".into(),
    ];
    let tenants = ["a/b", "..", ".", "acme", "ACME", "acme ", "票据", "", ".export_state", "%"];
    let countries = [None, Some(""), Some("../.."), Some("DE"), Some("de")];
    let mut rows: Vec<(String, Option<String>, String)> =
        numbers.into_iter().map(|number| ("1".to_owned(), Some("CN".to_owned()), number)).collect();
    rows.extend(tenants.iter().map(|tenant| ((*tenant).to_owned(), Some("CN".to_owned()), "INV".to_owned())));
    rows.extend(
        countries
            .into_iter()
            .enumerate()
            .map(|(n, country)| ("2".to_owned(), country.map(str::to_owned), format!("INV{n}"))),
    );
    rows
}

#[test]
fn hostile_names_all_have_a_readable_file_of_their_own_inside_the_tree() {
    for mode in ["full", "incremental"] {
        on_every_source(|table| {
            widen(table);
            let rows = hostile_rows();
            for (id, (tenant, country, number)) in (1..).zip(&rows) {
                let document = format!("{{\"row\": {id}}}");
                let country = country.as_deref();
                table.insert(&Row { id, tenant, country, number, document: &document, ..Row::default() });
            }
            let exporter = Exporter::new(table);
            let summary = exporter.run(["run", "--mode", mode, "--format", "json"]).expect(0).json();
            assert_eq!(summary["written"], rows.len(), "{summary}");
            let tree = exporter.tree();
            let by_content: BTreeMap<&[u8], &String> = tree.iter().map(|(path, content)| (&**content, path)).collect();
            assert_eq!(by_content.len(), rows.len(), "each document has a file of its own: {:?}", tree.keys());
            for path in tree.keys() {
                let parts: Vec<&str> = path.split('/').collect();
                assert_eq!(parts.len(), 3, "{path:?}");
                assert!(parts.iter().all(|part| !part.starts_with('.') && part.len() <= 255), "{path:?}");
                assert!(!path.chars().any(char::is_control), "{path:?}");
            }
            let path_of = |row: usize| by_content[format!("{{\"row\": {row}}}").as_bytes()].as_str();
            assert_eq!(path_of(8), "1/CN/20251128+-rf.json");
            assert_eq!(path_of(10), "1/CN/20251128+CON.json");
            assert_eq!(path_of(19), "acme/CN/20251128+INV.json");
            assert_eq!(path_of(22), "票据/CN/20251128+INV.json");
            let again = exporter.run(["run", "--mode", mode, "--format", "json"]).expect(0).json();
            assert_eq!(again["written"], 0, "{again}");
            let beside: Vec<_> = std::fs::read_dir(exporter.output().parent().unwrap()).unwrap().collect();
            assert_eq!(beside.len(), 1, "nothing lies outside the output: {beside:?}");
        });
    }
}

#[test]
fn spellings_that_a_collation_calls_equal_have_their_own_watermarks_and_counts() {
    on_every_source(|table| {
        for (id, tenant, number) in [(1, "acme", "A"), (2, "ACME", "B"), (3, "acme ", "C"), (4, "other", "D")] {
            table.insert(&Row { id, tenant, number, ..Row::default() });
        }
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        let watermarks = exporter.ask("SELECT name FROM tenant WHERE watermark IS NOT NULL ORDER BY name");
        assert_eq!(watermarks, ["ACME", "acme", "acme ", "other"]);
        // A spelling that was never seen, with a row below every window, beside a new row.
        let time = table.ago(std::time::Duration::from_secs(1200));
        table.insert(&Row { id: 5, tenant: "Acme", number: "E", time: &time, ..Row::default() });
        table.insert(&Row { id: 6, tenant: "Acme", number: "F", time: "2020-01-01 00:00:00", ..Row::default() });
        let summary = exporter.run(["run", "--mode", "incremental", "--format", "json"]).expect(0).json();
        assert_eq!(summary["written"], 2, "{summary}");
        exporter.run(["run", "--mode", "incremental", "--tenant", "ACME"]).expect(0);
        exporter.run(["run", "--tenant", "acme "]).expect(0);
    });
}

#[test]
fn large_deep_and_broken_documents_are_exported_or_rejected_by_name() {
    on_every_source(|table| {
        widen(table);
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        let documents = [(1, "GOOD", "{}"), (2, "EMPTY", ""), (3, "DEEP", &deep), (4, "TEXT", "no json")];
        for (id, number, document) in documents {
            table.insert(&Row { id, number, document, ..Row::default() });
        }
        table.insert(&Row { id: 5, number: "LATIN1", ..Row::default() });
        table.execute("UPDATE t_invoice SET fext_field = X'22e922' WHERE fid = 5");
        table.insert(&Row { id: 6, number: "DATE", ..Row::default() });
        // A server stores no such day, but makes it the zero date if it may.
        let ignoring = if let Table::Server(_) = table { "IGNORE" } else { "" };
        table.execute(&format!("UPDATE {ignoring} t_invoice SET fissue_date = '2025-02-30' WHERE fid = 6"));
        let large = format!("\"{}\"", "x".repeat(2 << 20));
        table.insert(&Row { id: 7, number: "LARGE", document: "{}", ..Row::default() });
        table.execute(&format!("UPDATE t_invoice SET fext_field = {} WHERE fid = 7", quoted(&large)));
        let exporter = Exporter::new(table);
        let finished = exporter.run(["run", "--max-document", "1MiB"]).expect(3);
        let rejected = exporter.ask("SELECT number, reason FROM reject WHERE closed_run IS NULL ORDER BY id");
        let expected =
            ["EMPTY not-json", "TEXT not-json", "LATIN1 not-utf8", "DATE impossible-date", "LARGE too-large"];
        assert_eq!(rejected, expected, "{finished}");
        let exported: Vec<String> = exporter.tree().into_keys().collect();
        assert_eq!(exported, ["1/CN/20251128+DEEP.json", "1/CN/20251128+GOOD.json"]);
        exporter.run(["run", "--max-document", "1MiB"]).expect(0);
        exporter.run(["run"]).expect(0);
        assert_eq!(exporter.tree()["1/CN/20251128+LARGE.json"], large.as_bytes());
    });
}

#[test]
fn a_document_of_forty_megabytes_is_exported_whole() {
    on_every_source(|table| {
        widen(table);
        for id in 1..=3 {
            table.insert(&Row { id, number: &format!("INV{id}"), ..Row::default() });
        }
        let large = if let Table::Server(_) = table {
            "CONCAT('\"', REPEAT('x', 41943040), '\"')"
        } else {
            "'\"' || hex(zeroblob(20971520)) || '\"'"
        };
        table.execute(&format!("UPDATE t_invoice SET fext_field = {large} WHERE fid = 2"));
        let exporter = Exporter::new(table);
        exporter.run(["run"]).expect(0);
        let tree = exporter.tree();
        assert_eq!(tree.len(), 3);
        let document = &tree["1/CN/20251128+INV2.json"];
        assert_eq!((document.len(), document[0], document[41_943_041]), (41_943_042, b'"', b'"'));
        assert_eq!(exporter.run(["run", "--format", "json"]).expect(0).json()["unchanged"], 3);
    });
}
