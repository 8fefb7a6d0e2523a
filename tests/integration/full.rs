//! Full runs: the tree is what the table says, and nothing is touched that is right already.

use std::fs;

use crate::support::exporter::numbers;
use crate::support::{Exporter, Row, on_every_source};

const SAMPLE: &str = "1:0.6,10:0.3,89:0.1";

#[test]
fn a_full_run_makes_the_tree_that_the_table_says() {
    on_every_source(|table| {
        table.load_sample(400, 3, SAMPLE);
        let exporter = Exporter::new(table);
        let summary = exporter.run(["run", "--format", "json"]).expect(0).json();
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        let files = exporter.tree().len();
        assert!(files > 350, "{files} files");
        assert_eq!(numbers(&summary, ["seen", "written"]), [files as u64, files as u64]);
        let bytes: usize = exporter.tree().values().map(Vec::len).sum();
        assert_eq!(numbers(&summary, ["bytes", "tenants"]), [bytes as u64, 3]);
        assert_eq!(exporter.ask_one("SELECT count(*) FROM ledger"), files.to_string());
        assert_eq!(exporter.ask_one("SELECT count(*) FROM file_log WHERE action = 'written'"), files.to_string());
    });
}

#[test]
fn a_second_full_run_touches_nothing_and_reports_unchanged() {
    on_every_source(|table| {
        table.load_sample(400, 3, SAMPLE);
        let exporter = Exporter::new(table);
        exporter.run(["run"]).expect(0);
        let before = exporter.stamps();
        let ledger =
            || exporter.ask("SELECT id, time, path, hex(sha256), size, first_run, run FROM ledger ORDER BY id");
        let recorded = ledger();
        let summary = exporter.run(["run", "--format", "json"]).expect(0).json();
        assert_eq!(exporter.stamps(), before);
        assert_eq!(numbers(&summary, ["written", "bytes"]), [0, 0]);
        assert_eq!(summary["unchanged"], before.len());
        assert_eq!(ledger(), recorded);
        assert_eq!(exporter.ask("SELECT path FROM file_log WHERE run = 2"), [""; 0]);
    });
}

#[test]
fn a_document_is_written_byte_for_byte() {
    let long = format!("{{\"text\": \"{}\"}}", "发票0.1000".repeat(50_000));
    let documents = [
        "{\"total\": 0.1000, \"big\": 123456789012345678901234567890, \"e\": 1e400, \"minus\": -0}",
        " \t{\"space\"  : [ 1 ,2 ]}\r\n\n",
        "{\"b\": 1, \"a\": 2, \"b\": 3}",
        r#"{"escapes": "\u00e4 \/ \\ \" \ud83d\ude00 \n", "percent": "%s %% %20"}"#,
        "{\"text\": \"发票 コンサルティング Büro \u{1f600} e\u{301} \u{feff}\", \"quote\": \"'--;\"}",
        "\"a text alone\"",
        "null",
        "[]",
        &long,
    ];
    on_every_source(|table| {
        for (id, document) in (1..).zip(documents) {
            table.insert(&Row { id, number: &format!("INV{id}"), document, ..Row::default() });
        }
        let exporter = Exporter::new(table);
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
        let tree = exporter.tree();
        for (id, document) in (1..).zip(documents) {
            let file = &tree[&format!("1/CN/20251128+INV{id}.json")];
            assert_eq!(String::from_utf8_lossy(file), document);
        }
    });
}

#[test]
fn a_file_that_somebody_removed_or_cut_is_put_back_by_a_full_run() {
    on_every_source(|table| {
        table.load_sample(60, 3, SAMPLE);
        let exporter = Exporter::new(table);
        exporter.run(["run"]).expect(0);
        let before = exporter.stamps();
        let victims: Vec<&String> = before.keys().step_by(20).collect();
        fs::remove_file(exporter.output().join(victims[0])).unwrap();
        fs::write(exporter.output().join(victims[1]), "{").unwrap();
        fs::remove_dir_all(exporter.output().join("89")).unwrap();
        let summary = exporter.run(["run", "--format", "json"]).expect(0).json();
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        let after = exporter.stamps();
        let touched: Vec<&String> = after.keys().filter(|path| after[*path] != before[*path]).collect();
        let lost = |path: &&String| path.starts_with("89/") || victims[..2].contains(path);
        assert_eq!(touched, before.keys().filter(lost).collect::<Vec<_>>());
        assert_eq!(summary["written"], touched.len());
    });
}

#[test]
fn an_incremental_run_does_not_give_back_what_a_consumer_took_away() {
    on_every_source(|table| {
        table.load_sample(60, 3, SAMPLE);
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        let taken = exporter.tree().into_keys().next().unwrap();
        fs::remove_file(exporter.output().join(&taken)).unwrap();
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        assert!(!exporter.tree().contains_key(&taken));
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_changed_document_replaces_its_file_and_no_other_even_if_its_time_stayed() {
    on_every_source(|table| {
        table.load_sample(60, 3, SAMPLE);
        let row = Row { id: 1000, ..Row::default() };
        table.insert(&row);
        let exporter = Exporter::new(table);
        exporter.run(["run"]).expect(0);
        let before = exporter.stamps();
        table.execute(
            "UPDATE t_invoice SET fext_field = '{\"total\": 0.10000}', fupdate_time = fupdate_time WHERE fid = 1000",
        );
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        let after = exporter.stamps();
        let touched: Vec<_> = after.iter().filter(|(path, stamp)| before[*path] != **stamp).collect();
        assert_eq!(touched.len(), 1, "{touched:?}");
        assert_eq!(exporter.ask_one("SELECT first_run, run FROM ledger WHERE id = '1000'"), "1 2");
    });
}

#[test]
fn a_row_that_is_no_invoice_has_no_file() {
    on_every_source(|table| {
        for id in 1..=5 {
            table.insert(&Row { id, number: &format!("INV{id}"), ..Row::default() });
        }
        for (id, change) in
            [(1, "fissue_status = 2"), (2, "fext_field = NULL"), (3, "finvoice_no = NULL"), (4, "fissue_date = NULL")]
        {
            table.execute(&format!("UPDATE t_invoice SET {change}, fupdate_time = fupdate_time WHERE fid = {id}"));
        }
        for mode in ["full", "incremental"] {
            let exporter = Exporter::new(table);
            exporter.run(["run", "--mode", mode]).expect(0);
            assert_eq!(exporter.tree().into_keys().collect::<Vec<_>>(), ["1/CN/20251128+INV5.json"]);
        }
    });
}

#[test]
fn a_missing_and_an_empty_country_are_unknown() {
    on_every_source(|table| {
        table.insert(&Row { country: None, ..Row::default() });
        table.insert(&Row { id: 2, country: Some(""), number: "INV002", ..Row::default() });
        let exporter = Exporter::new(table);
        exporter.run(["run"]).expect(0);
        let files = ["1/UNKNOWN/20251128+INV001.json", "1/UNKNOWN/20251128+INV002.json"];
        assert_eq!(exporter.tree().into_keys().collect::<Vec<_>>(), files);
    });
}

#[test]
fn hostile_names_stay_inside_the_tree() {
    on_every_source(|table| {
        let names = [("..", "../../x"), ("a/b", "%2F"), (".hidden", "a|b"), ("1 ", " a"), ("%_", ".")];
        for (id, (tenant, number)) in (1..).zip(names) {
            table.insert(&Row { id, tenant, number, ..Row::default() });
        }
        let exporter = Exporter::new(table);
        exporter.run(["run"]).expect(0);
        let files = [
            "%25_/CN/20251128+%2E.json",
            "%2E./CN/20251128+%2E.%2F..%2Fx.json",
            "%2Ehidden/CN/20251128+a%7Cb.json",
            "1%20/CN/20251128+%20a.json",
            "a%2Fb/CN/20251128+%252F.json",
        ];
        assert_eq!(exporter.tree().into_keys().collect::<Vec<_>>(), files);
        exporter.assert_state_is_sound();
        let before = exporter.stamps();
        exporter.run(["run"]).expect(0);
        assert_eq!(exporter.stamps(), before);
    });
}

#[test]
fn a_full_run_moves_no_watermark() {
    on_every_source(|table| {
        table.load_sample(60, 3, SAMPLE);
        let exporter = Exporter::new(table);
        let marks = || exporter.ask("SELECT name, watermark, look_back, newest FROM tenant ORDER BY name");
        exporter.run(["run"]).expect(0);
        assert_eq!(marks(), ["1 NULL NULL NULL", "10 NULL NULL NULL", "89 NULL NULL NULL"]);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        let before = marks();
        assert!(before.iter().all(|mark| !mark.contains("NULL")), "{before:?}");
        table.execute("UPDATE t_invoice SET fext_field = '{}', fupdate_time = fupdate_time WHERE fid < 10");
        exporter.run(["run"]).expect(0);
        assert_eq!(marks(), before);
        exporter.assert_agrees();
    });
}

#[test]
fn one_sync_for_each_file_makes_the_same_tree() {
    on_every_source(|table| {
        table.load_sample(60, 3, SAMPLE);
        let exporter = Exporter::new(table);
        exporter.run(["run", "--durability", "file", "--writers", "4"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}
