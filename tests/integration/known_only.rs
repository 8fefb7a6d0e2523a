//! Words and figures that claim no more than is known: of rows that were no invoice, of rejects, of what a dead run left
//! in doubt, of files that were removed, and of files from before the state.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::exporter::{numbers, run_with};
use crate::support::{Exporter, Row, Table, on_every_source};

const MINUTE: Duration = Duration::from_secs(60);
const INCREMENTAL: [&str; 5] = ["run", "--mode", "incremental", "--format", "json"];
const VERIFY: [&str; 4] = ["verify", "--format", "json", "--against-source"];

fn insert(table: &Table, id: i64, minutes: u32, document: &str) {
    let (number, time) = (format!("INV{id}"), table.ago(minutes * MINUTE));
    table.insert(&Row { id, number: &number, document, time: &time, ..Row::default() });
}

/// An invoice of tenant 1, exported by an incremental run.
fn exported(table: &Table) -> Exporter<'_> {
    insert(table, 1, 30, "[1]");
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(0);
    exporter
}

fn json(exporter: &Exporter<'_>, args: &[&str], code: i32) -> Value {
    exporter.run(args).expect(code).json()
}

#[test]
fn rows_that_never_were_an_invoice_are_not_gone() {
    on_every_source(|table| {
        let exporter = exported(table);
        for id in [2, 3, 4] {
            insert(table, id, 20, "[2]");
        }
        table.execute("UPDATE t_invoice SET fext_field = NULL WHERE fid = 2");
        table.execute("UPDATE t_invoice SET finvoice_no = NULL WHERE fid = 3");
        for (args, seen) in
            [(&INCREMENTAL[..], 1), (&INCREMENTAL, 0), (&["run", "--tenant", "1", "--format", "json"], 2)]
        {
            let summary = json(&exporter, args, 0);
            assert_eq!(numbers(&summary, ["seen", "gone"]), [seen, 0], "{args:?}: {summary}");
        }
        // What was on record is gone indeed.
        table.execute(&format!(
            "UPDATE t_invoice SET fext_field = NULL, fupdate_time = '{}' WHERE fid = 4",
            table.ago(10 * MINUTE)
        ));
        let summary = json(&exporter, &INCREMENTAL, 0);
        assert_eq!(numbers(&summary, ["seen", "gone"]), [1, 1], "{summary}");
    });
}

#[test]
fn an_open_reject_is_not_pending_wherever_the_watermark_lies() {
    on_every_source(|table| {
        insert(table, 1, 30, "[1]");
        insert(table, 2, 120, "{");
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(3);
        exporter.run(["state", "set", "1", "2025-11-28", "--yes"]).expect(0);
        for depth in [&[][..], &["--documents"]] {
            let answer = json(&exporter, &[&VERIFY[..], depth].concat(), 0);
            assert_eq!(numbers(&answer, ["pending", "known_rejects"]), [0, 1], "{answer}");
        }
        let listed = json(&exporter, &["history", "--tenant", "1", "--kind", "verify", "--format", "json"], 0);
        assert_eq!(listed[0]["known_rejects"], 1, "{listed}");
        let listed = exporter.run(["history", "--tenant", "1", "--kind", "verify"]).expect(0);
        assert!(listed.stdout.lines().nth(1).unwrap().ends_with("nothing differs, 1 cannot be exported"), "{listed}");
    });
}

#[test]
fn files_in_doubt_count_once_and_prove_nothing() {
    on_every_source(|table| {
        let exporter = exported(table);
        for id in [2, 3] {
            insert(table, id, 20, "[2]");
        }
        assert!(run_with(&exporter, "renameat:signal=KILL:when=2", &["run", "--mode", "incremental"]).was_killed());
        for args in [&VERIFY[..], &[&VERIFY[..], &["--documents", "--hash"]].concat()] {
            let answer = json(&exporter, args, 0);
            assert_eq!(numbers(&answer, ["pending", "differences"]), [2, 0], "{answer}");
            let said = answer["result"].as_str().unwrap();
            assert!(said.contains("2 files left in doubt by a run that died could not be judged"), "{said}");
        }
        let status = json(&exporter, &["status", "--format", "json"], 0);
        assert!(status[0]["verified_run"].is_null(), "{status}");
        // A watermark that a full run leaves behind does not make them lost.
        exporter.run(["state", "set", "1", &table.now(), "--yes"]).expect(0);
        let answer = json(&exporter, &VERIFY, 0);
        assert_eq!(numbers(&answer, ["pending", "differences"]), [2, 0], "{answer}");
        exporter.run(INCREMENTAL).expect(0);
        let answer = json(&exporter, &VERIFY, 0);
        assert_eq!((&answer["result"], &answer["pending"]), (&"nothing differs".into(), &0.into()), "{answer}");
    });
}

#[test]
fn a_pruned_invoice_that_comes_back_is_not_late_and_keeps_its_past() {
    on_every_source(|table| {
        let exporter = exported(table);
        insert(table, 9, 30, "[9]");
        exporter.run(["run", "--mode", "full"]).expect(0);
        table.execute("DELETE FROM t_invoice WHERE fid = 1");
        exporter.run(["verify", "--against-source", "--prune", "--prune-up-to", "1"]).expect(0);
        let gone = exporter.run(["why", "INV1"]).expect(6);
        assert!(
            gone.stdout.contains("removed by run 3") && gone.stdout.contains("no row has its number now"),
            "{gone}"
        );
        assert!(!gone.stdout.contains("why \"INV1\"") && !gone.stdout.contains("spelling"), "{gone}");
        let listed = exporter.run(["history", "--lang", "zh"]).expect(0);
        assert!(listed.stdout.contains("删除文件 1") && !listed.stdout.contains("删除旧文件"), "{listed}");
        insert(table, 1, 30, "[1]");
        let summary = json(&exporter, &INCREMENTAL, 0);
        assert_eq!(numbers(&summary, ["written", "late"]), [1, 0], "{summary}");
        let why = json(&exporter, &["why", "INV1", "--format", "json"], 0);
        assert!(why[0]["first_exported_by"].as_str().unwrap().starts_with("run 1 "), "{why}");
        let past = why[0]["past"].as_str().unwrap();
        assert!(past.starts_with("written by run 1 ") && past.contains("removed by run 3 "), "{why}");
        // Another invoice is late all the same.
        insert(table, 5, 32, "[5]");
        assert_eq!(numbers(&json(&exporter, &INCREMENTAL, 0), ["written", "late"]), [1, 1]);
    });
}

#[test]
fn verify_warns_on_stderr_exactly_when_something_is_wrong() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let said =
        |lang: &str, code: i32| exporter.run(["verify", "--against-source", "-q", "--lang", lang]).expect(code).stderr;
    assert_eq!(said("en", 0), "");
    fs::remove_file(exporter.output().join("1/CN/20251128+INV1.json")).unwrap();
    let lines = said("en", 6);
    assert!(lines.starts_with("[WARN] ") && lines.contains(": 1 differs\n"), "{lines}");
    assert_eq!(lines.lines().filter(|line| line.starts_with("[WARN]")).count(), 1, "{lines}");
    assert!(said("zh", 6).contains(": 有 1 处差异\n"));
    exporter.run(["run", "--mode", "full"]).expect(0);
    insert(&table, 2, 20, "{");
    exporter.run(INCREMENTAL).expect(3);
    assert!(said("en", 0).contains("1 invoice cannot be exported"));
    assert_eq!(exporter.run(["verify", "--format", "json"]).expect(0).stderr, "");
}

#[test]
fn a_file_that_may_be_the_last_good_one_of_a_reject_is_to_be_kept() {
    on_every_source(|table| {
        let exporter = exported(table);
        let old = "1/DE/20251127+INV2.json";
        fs::create_dir_all(exporter.output().join("1/DE")).unwrap();
        for file in [old, "1/DE/20251127+INV3.json"] {
            fs::write(exporter.output().join(file), "{}").unwrap();
        }
        insert(table, 2, 20, "{");
        exporter.run(INCREMENTAL).expect(3);
        let answer = json(&exporter, &["verify", "--format", "json"], 6);
        let findings = answer["findings"].as_array().unwrap();
        let of = |file: &str| findings.iter().find(|finding| finding["path"] == file).unwrap();
        assert_eq!(of(old)["difference"], "last-good", "{answer}");
        assert_eq!(of(old)["detail"], "it may be the last good file of the rejected invoice INV2; keep it");
        assert_eq!(of("1/DE/20251127+INV3.json")["difference"], "foreign");
        let why = json(&exporter, &["why", "INV2", "--format", "json"], 6);
        assert!(why[0]["not_on_record"].as_str().unwrap().starts_with(old), "{why}");
    });
}
