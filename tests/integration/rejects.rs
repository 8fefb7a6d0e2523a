//! Rows that cannot be exported: named, kept, read again by every run, and never in the way of others.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::support::state::meddle;
use crate::support::{Exporter, Row, Table, on_every_source, wait_for};

const MINUTE: Duration = Duration::from_secs(60);
const FILE: &str = "1/CN/20251128+INV001.json";

fn update(table: &Table, minutes: u32, change: &str) {
    let time = table.ago(minutes * MINUTE);
    table.execute(&format!("UPDATE t_invoice SET {change}, fupdate_time = '{time}' WHERE fid = 1"));
}

/// Runs of this mode, with the table's row 1 gone bad by this change, and good again by that one.
fn goes_bad_and_heals(reason: &str, bad: &str, good: &str, args: &[&str]) {
    for mode in ["incremental", "full"] {
        on_every_source(|table| {
            let exporter = Exporter::new(table);
            let run = |code| exporter.run(["run", "--mode", mode].iter().chain(args)).expect(code);
            for (id, number) in [(1, "INV001"), (2, "GOOD")] {
                table.insert(&Row { id, number, time: &table.ago(50 * MINUTE), ..Row::default() });
            }
            run(0);
            let stamps = exporter.stamps();
            update(table, 40, bad);
            table.insert(&Row { id: 3, number: "NEXT", time: &table.ago(40 * MINUTE), ..Row::default() });
            let finished = run(3);
            assert!(finished.stderr.contains("INV001") && finished.stderr.contains("tenant 1"), "{finished}");
            assert!(!finished.to_string().contains("secret"), "no content of a document is told: {finished}");
            let open = || exporter.ask("SELECT id, number, reason FROM reject WHERE closed_run IS NULL");
            assert_eq!(open(), [format!("1 INV001 {reason}")]);
            assert_eq!(exporter.stamps()[FILE], stamps[FILE], "the last good file is kept");
            assert_eq!(exporter.tree().len(), 3, "the others are exported");
            let finished = run(0);
            assert!(finished.stdout.contains("1 open"), "{finished}");
            assert_eq!(open().len(), 1);
            exporter.assert_state_is_sound();
            update(table, 30, good);
            run(0);
            exporter.assert_agrees();
            exporter.assert_state_is_sound();
            assert_eq!(exporter.ask("SELECT opened_run, closed_run, closed_how FROM reject"), ["2 4 exported"]);
        });
    }
}

#[test]
fn a_document_that_is_no_json_keeps_its_last_good_file_until_it_heals() {
    for bad in ["{\"secret\": ", "", "{'secret': 1}", "{\"secret\": 1} {}", "NaN"] {
        goes_bad_and_heals(
            "not-json",
            &format!("fext_field = '{}'", bad.replace('\'', "''")),
            "fext_field = '{}'",
            &[],
        );
    }
}

#[test]
fn a_document_that_is_too_large_keeps_its_last_good_file_until_it_heals() {
    let bad = format!("fext_field = '[\"{}\"]'", "secret".repeat(400));
    goes_bad_and_heals("too-large", &bad, "fext_field = '[]'", &["--max-document", "1KiB"]);
}

#[test]
fn an_impossible_date_is_a_reject() {
    let table = Table::embedded();
    table.insert(&Row { date: "2025-11-31", ..Row::default() });
    let exporter = Exporter::new(&table);
    exporter.run(["run"]).expect(3);
    assert_eq!(exporter.ask("SELECT id, reason FROM reject"), ["1 impossible-date"]);
    update(&table, 30, "fissue_date = '2025-11-30'");
    exporter.run(["run"]).expect(0);
    exporter.assert_agrees();
}

#[test]
fn a_document_that_is_no_utf8_is_a_reject() {
    let table = Table::embedded();
    table.insert(&Row::default());
    update(&table, 30, "fext_field = CAST(x'7B2261223A2022FF227D' AS TEXT)");
    let exporter = Exporter::new(&table);
    exporter.run(["run"]).expect(3);
    assert_eq!(exporter.ask("SELECT id, reason FROM reject"), ["1 not-utf8"]);
    assert!(exporter.tree().is_empty());
}

#[test]
fn a_reject_whose_row_is_no_invoice_any_more_is_closed_and_its_file_stays() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(50 * MINUTE), ..Row::default() });
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        update(table, 40, "fext_field = '{'");
        exporter.run(["run", "--mode", "incremental"]).expect(3);
        update(table, 30, "fissue_status = 4");
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        assert_eq!(exporter.ask("SELECT closed_run, closed_how FROM reject"), ["3 gone"]);
        assert!(exporter.tree().contains_key(FILE));
    });
}

#[test]
fn many_rejects_are_counted_and_only_the_first_are_told() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.load_sample(100, 4, "1:1");
        table.execute("UPDATE t_invoice SET fext_field = 'x', fupdate_time = fupdate_time");
        let finished = exporter.run(["run"]).expect(3);
        let told = finished.stderr.lines().filter(|line| line.contains("cannot be exported:")).count();
        assert_eq!(told, 20);
        let issued = table.query("SELECT count(*) FROM t_invoice WHERE fissue_status = 3")[0][0].clone().unwrap();
        assert!(finished.stdout.contains(&format!("{issued} invoices ({issued} newly), {issued} open")), "{finished}");
        assert!(exporter.tree().is_empty());
        exporter.assert_state_is_sound();
    });
}

#[test]
fn a_strict_run_holds_a_tenants_watermark_until_its_rejects_are_mended() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        let run = |code| exporter.run(["run", "--mode", "incremental", "--strict"]).expect(code);
        let insert = |id: i64, tenant: &str, document: &str, minutes: u32| {
            let (number, time) = (format!("INV{id}"), table.ago(minutes * MINUTE));
            table.insert(&Row { id, tenant, number: &number, document, time: &time, ..Row::default() });
        };
        let watermark =
            |tenant: &str| exporter.ask_one(&format!("SELECT watermark FROM tenant WHERE name = '{tenant}'"));
        insert(1, "1", "{}", 50);
        insert(2, "10", "{}", 50);
        run(0);
        let before = watermark("1");
        insert(3, "1", "{", 10);
        insert(4, "1", "{}", 10);
        insert(5, "10", "{}", 10);
        let later = table.now();
        // Only then does the boundary lie behind that of the run before.
        wait_for("the next second", || table.now() != later);
        for _ in 0..2 {
            let finished = run(3);
            assert!(finished.stderr.contains("tenant 1: failed: 1 of its invoices cannot be exported"), "{finished}");
            assert_eq!(exporter.tree().len(), 4, "the others are exported");
            assert_eq!(watermark("1"), before);
            assert!(watermark("10") > before);
            exporter.assert_state_is_sound();
        }
        table.execute("UPDATE t_invoice SET fext_field = '[]', fupdate_time = fupdate_time WHERE fid = 3");
        run(0);
        assert!(watermark("1") > before);
        exporter.assert_agrees();
        table.execute("UPDATE t_invoice SET fext_field = '{', fupdate_time = fupdate_time WHERE fid = 3");
        let full = exporter.run(["run", "--strict"]).expect(3);
        assert!(full.stderr.contains("tenant 1: failed: 1 of its invoices"), "{full}");
        exporter.run(["run"]).expect(0);
    });
}

/// What a dead run left is on record by its file, unseen; whoever edited that file meanwhile decided what the
/// ledger says of it.
#[test]
fn a_document_that_is_on_record_without_having_been_seen_is_checked_like_any_other() {
    let table = Table::embedded();
    table.insert(&Row { time: &table.ago(50 * MINUTE), ..Row::default() });
    let exporter = Exporter::new(&table);
    exporter.run(["run"]).expect(0);
    let bad = "no json";
    std::fs::write(exporter.output().join(FILE), bad).unwrap();
    update(&table, 40, &format!("fext_field = '{bad}'"));
    let digest: String = Sha256::digest(bad).iter().map(|byte| format!("{byte:02x}")).collect();
    meddle(&exporter.state(), &format!("UPDATE entry SET sha256 = x'{digest}', size = {}, settled = 0", bad.len()));
    let finished = exporter.run(["run"]).expect(3);
    assert!(finished.stderr.contains("is not JSON"), "{finished}");
}
