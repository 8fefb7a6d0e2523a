//! Late arrivals and those that are none: late is an invoice whose time earlier runs have read and whose id was not
//! there then. What a run finds after an import, an operator's change or a doubt is caught up.

use std::fs;
use std::time::Duration;

use rusqlite::Connection;

use crate::support::exporter::numbers;
use crate::support::{Exporter, Row, Table, on_every_source};

const MINUTE: Duration = Duration::from_secs(60);
const INCREMENTAL: [&str; 5] = ["run", "--mode", "incremental", "--format", "json"];

fn insert(table: &Table, id: i64, minutes: u32) {
    let (number, document) = (format!("INV{id}"), format!("[{id}]"));
    table.insert(&Row {
        id,
        number: &number,
        document: &document,
        time: &table.ago(minutes * MINUTE),
        ..Row::default()
    });
}

#[track_caller]
fn assert_written_and_late(exporter: &Exporter<'_>, counts: [u64; 2]) {
    let summary = exporter.run(INCREMENTAL).expect(0).json();
    assert_eq!(numbers(&summary, ["written", "late"]), counts, "{summary}");
}

/// A row that is below the watermark and in the overlap, and then one that is late indeed.
#[track_caller]
fn assert_caught_up_then_late(exporter: &Exporter<'_>, caught_up: u64) {
    assert_written_and_late(exporter, [caught_up, 0]);
    insert(exporter.table(), 900, 130);
    assert_written_and_late(exporter, [1, 1]);
    let status = exporter.run(["status", "--format", "json"]).expect(0).json();
    let by = status[0]["late_by_seconds"].as_u64().unwrap();
    assert!((7_000..8_000).contains(&by), "{status}");
}

#[test]
fn what_the_first_run_after_an_import_finds_in_the_overlap_is_not_late() {
    on_every_source(|table| {
        insert(table, 1, 140);
        insert(table, 2, 150);
        let exporter = Exporter::new(table);
        let state = exporter.output().join(".export_state");
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join(".last_export_time"), format!("1|{}|9|SUCCESS\n", table.ago(120 * MINUTE))).unwrap();
        exporter.run(["import-legacy-state"]).expect(0);
        assert_caught_up_then_late(&exporter, 2);
    });
}

#[test]
fn what_an_operator_had_skipped_is_not_late() {
    on_every_source(|table| {
        insert(table, 1, 300);
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "incremental", "--safety-lag", "4h"]).expect(0);
        insert(table, 2, 140);
        exporter.run(["state", "set", "1", &table.ago(120 * MINUTE), "--yes"]).expect(0);
        assert_caught_up_then_late(&exporter, 1);
    });
}

#[test]
fn what_another_server_has_is_not_late_however_old() {
    on_every_source(|table| {
        insert(table, 1, 140);
        let exporter = Exporter::new(table);
        assert_written_and_late(&exporter, [1, 0]);
        let state = Connection::open(exporter.state()).unwrap();
        state.execute("UPDATE meta SET server = 'another one'", []).unwrap();
        state.close().unwrap();
        insert(table, 2, 26 * 24 * 60);
        assert_caught_up_then_late(&exporter, 1);
    });
}

#[test]
fn what_a_restored_state_does_not_know_is_not_late() {
    on_every_source(|table| {
        insert(table, 1, 140);
        let exporter = Exporter::new(table);
        assert_written_and_late(&exporter, [1, 0]);
        exporter.run(["state", "backup"]).expect(0);
        insert(table, 2, 130);
        assert_written_and_late(&exporter, [1, 1]);
        exporter.run(["state", "restore", "latest", "--yes"]).expect(0);
        insert(table, 3, 160);
        let summary = exporter.run(INCREMENTAL).expect(0).json();
        assert_eq!(numbers(&summary, ["written", "taken_over", "late"]), [1, 1, 0], "{summary}");
        // A run of the state that was replaced had put it on record.
        exporter.run(["state", "restore", "latest", "--yes"]).expect(0);
        let told = exporter.run(["run"]).expect(0);
        assert!(
            told.stdout.contains("- taken over: 2 files that were right already and not on record as they were\n"),
            "{told}"
        );
    });
}

#[test]
fn what_comes_after_a_full_run_is_late_also_where_the_watermark_was_imported() {
    on_every_source(|table| {
        insert(table, 1, 140);
        let exporter = Exporter::new(table);
        let state = exporter.output().join(".export_state");
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join(".last_export_time"), format!("1|{}|9|SUCCESS\n", table.ago(120 * MINUTE))).unwrap();
        exporter.run(["import-legacy-state"]).expect(0);
        exporter.run(["run"]).expect(0);
        insert(table, 2, 150);
        assert_written_and_late(&exporter, [1, 1]);
        exporter.assert_state_is_sound();
    });
}

#[test]
fn an_invoice_with_a_right_file_or_another_version_of_a_known_one_is_not_late() {
    on_every_source(|table| {
        insert(table, 1, 100);
        let exporter = Exporter::new(table);
        assert_written_and_late(&exporter, [1, 0]);
        insert(table, 2, 130);
        fs::write(exporter.output().join("1/CN/20251128+INV2.json"), "[2]").unwrap();
        let time = table.ago(120 * MINUTE);
        table.execute(&format!("UPDATE t_invoice SET fext_field = '[0]', fupdate_time = '{time}' WHERE fid = 1"));
        let summary = exporter.run(INCREMENTAL).expect(0).json();
        assert_eq!(numbers(&summary, ["replaced", "taken_over", "late"]), [1, 1, 0], "{summary}");
    });
}

#[test]
fn a_source_that_went_back_is_warned_of_once_with_its_tenants() {
    on_every_source(|table| {
        for (id, tenant, minutes) in [(1, "1", 50), (2, "1", 40), (3, "2", 50), (4, "3", 50)] {
            let (number, time) = (format!("INV{id}"), table.ago(minutes * MINUTE));
            table.insert(&Row { id, tenant, number: &number, time: &time, ..Row::default() });
        }
        let exporter = Exporter::new(table);
        let warning = |args: &[&str]| {
            let finished = exporter.run(["run", "--mode", "incremental"].iter().chain(args)).expect(0);
            finished.stderr.lines().find(|line| line.contains("is older than before")).map(str::to_owned)
        };
        assert_eq!(warning(&[]), None);
        // What lies above the boundary is not gone.
        assert_eq!((warning(&["--safety-lag", "45m"]), warning(&[])), (None, None));
        // A row that was updated within the safety lag is above the boundary now.
        let time = table.ago(MINUTE);
        table.execute(&format!("UPDATE t_invoice SET fupdate_time = '{time}' WHERE fid IN (2, 3)"));
        assert_eq!((warning(&["--dry-run"]), warning(&["--dry-run", "--tenant", "2"])), (None, None));
        table.execute("DELETE FROM t_invoice WHERE fid IN (2, 3)");
        for _ in 0..2 {
            let said = warning(&["--dry-run"]).expect("a warning");
            assert!(said.contains("of 2 tenants") && said.contains("2 20") && said.contains("-> no invoice"), "{said}");
        }
        assert_eq!(warning(&["--tenant", "3"]), None);
        assert!(warning(&["--tenant", "1"]).expect("a warning").contains("of 1 tenant is"));
        assert_eq!(warning(&["--tenant", "1"]), None);
    });
}
