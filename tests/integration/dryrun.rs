//! A dry run: it says what the real run will do, and leaves no trace.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::exporter::{Exporter, Finished, numbers};
use crate::support::listing::{Traces, everything_in};
use crate::support::table::{Row, Table, on_every_source};

const COUNTS: [&str; 4] = ["seen", "written", "unchanged", "rejected"];

/// The same run, dry and real: the dry one touches nothing and counts what the real one will.
#[track_caller]
fn dry_then_real(exporter: &Exporter<'_>, arguments: &[&str], code: i32) -> [u64; 4] {
    let arguments: Vec<&str> = ["run", "--format", "json"].iter().chain(arguments).copied().collect();
    let output = exporter.output();
    let folder = output.parent().unwrap();
    let before = everything_in(&[folder], Traces::None);
    let dry = exporter.run(arguments.iter().chain(&["--dry-run"])).expect(code);
    assert_eq!(everything_in(&[folder], Traces::None), before, "{dry}");
    let [dry, real] = [dry, exporter.run(&arguments).expect(code)].map(|finished| finished.json());
    assert_eq!((&dry["dry_run"], &dry["run"]), (&Value::Bool(true), &Value::Null));
    let all = ["gone", "late", "bytes", "new_rejects", "tenants"];
    assert_eq!((numbers(&dry, COUNTS), numbers(&dry, all)), (numbers(&real, COUNTS), numbers(&real, all)));
    assert_eq!(dry["kind"], real["kind"]);
    numbers(&real, COUNTS)
}

fn fill(table: &Table) {
    for (id, tenant) in [(1, "1"), (2, "1"), (3, "10"), (4, "89")] {
        table.insert(&Row { id, tenant, number: &format!("INV{id}"), ..Row::default() });
    }
}

/// One invoice is new, one changed, one moved to another path, one cannot be exported.
fn change(table: &Table) {
    let time = table.ago(Duration::from_secs(600));
    table.insert(&Row { id: 5, tenant: "10", number: "INV5", time: &time, ..Row::default() });
    table.insert(&Row { id: 6, tenant: "10", number: "INV6", time: &time, document: "no json", ..Row::default() });
    table.execute(&format!("UPDATE t_invoice SET fext_field = '[1]', fupdate_time = '{time}' WHERE fid = 1"));
    table.execute(&format!("UPDATE t_invoice SET fcountry = 'DE', fupdate_time = '{time}' WHERE fid = 2"));
}

#[test]
fn a_dry_run_into_nowhere_makes_nothing_and_counts_what_the_first_run_will_export() {
    for mode in ["full", "incremental"] {
        on_every_source(|table| {
            fill(table);
            let exporter = Exporter::new(table);
            exporter.run(["run", "--dry-run", "--mode", mode]).expect(0);
            assert!(!exporter.output().exists());
            assert_eq!(dry_then_real(&exporter, &["--mode", mode], 0), [4, 4, 0, 0]);
        });
    }
}

#[test]
fn a_dry_run_counts_what_a_later_run_will_change() {
    for (mode, counts) in [("full", [6, 3, 2, 1]), ("incremental", [4, 3, 0, 1])] {
        on_every_source(|table| {
            fill(table);
            let exporter = Exporter::new(table);
            exporter.run(["run", "--mode", mode]).expect(0);
            change(table);
            assert_eq!(dry_then_real(&exporter, &["--mode", mode], 3), counts, "{mode}");
            // What was rejected before is no news.
            let [_, written, _, rejected] = dry_then_real(&exporter, &["--mode", mode], 0);
            assert_eq!([written, rejected], [0, 1], "{mode}");
        });
    }
}

#[test]
fn a_dry_run_of_a_backfill_or_of_some_tenants_counts_only_them() {
    on_every_source(|table| {
        fill(table);
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        change(table);
        let since = table.ago(Duration::from_secs(3_600));
        assert_eq!(dry_then_real(&exporter, &["--since", &since, "--tenant", "1"], 0), [2, 2, 0, 0]);
        assert_eq!(dry_then_real(&exporter, &["--mode", "full", "--tenant", "10"], 3), [3, 1, 1, 1]);
    });
}

#[test]
fn a_dry_run_over_a_tree_without_a_state_counts_files_that_need_no_writing() {
    let table = Table::embedded();
    fill(&table);
    let exporter = Exporter::new(&table);
    exporter.run(["run"]).expect(0);
    fs::remove_dir_all(exporter.output().join(".export_state")).unwrap();
    table.execute("UPDATE t_invoice SET fext_field = '[1]' WHERE fid = 1");
    assert_eq!(dry_then_real(&exporter, &["--mode", "full"], 0), [4, 1, 3, 0]);
}

#[test]
fn a_dry_run_leaves_the_log_of_a_killed_run_where_it_is() {
    let table = Table::embedded();
    fill(&table);
    let exporter = Exporter::new(&table);
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    let state = rusqlite::Connection::open(exporter.state()).unwrap();
    state.execute_batch("PRAGMA wal_autocheckpoint = 0; UPDATE meta SET only_row = only_row;").unwrap();
    // As a killed run leaves it: nobody closes the state and puts its log away.
    let log = exporter.state().with_extension("db-wal");
    let [content, main] = [&log, &exporter.state()].map(|file| fs::read(file).unwrap());
    drop(state);
    assert!(!content.is_empty());
    fs::write(exporter.state(), main).unwrap();
    fs::write(&log, &content).unwrap();
    let finished = exporter.run(["run", "--mode", "incremental", "--dry-run"]).expect(0);
    assert_eq!(fs::read(&log).unwrap(), content, "{finished}");
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    exporter.assert_state_is_sound();
}

#[test]
fn a_dry_run_needs_no_lock() {
    let table = Table::embedded();
    fill(&table);
    let exporter = Exporter::new(&table);
    exporter.run(["run"]).expect(0);
    let lock = fs::File::open(exporter.output().join(".export_state/lock")).unwrap();
    lock.lock().unwrap();
    fs::create_dir(exporter.output().join(".export_state/.export.lock")).unwrap();
    let before = everything_in(&[&exporter.output()], Traces::None);
    for mode in ["full", "incremental"] {
        let dry: Finished = exporter.run(["run", "--dry-run", "--mode", mode]).expect(0);
        assert!(!dry.stderr.contains("waiting"), "{dry}");
        exporter.run(["run", "--mode", mode, "--lock-wait", "0s"]).expect(4);
    }
    let after = everything_in(&[&exporter.output()], Traces::None);
    assert_eq!(after, before);
}
