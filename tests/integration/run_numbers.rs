//! No number is given to two runs or to two changes, whatever becomes of the state.

use std::fs;
use std::path::PathBuf;

use crate::support::exporter::Exporter;
use crate::support::scene::INCREMENTAL;
use crate::support::table::{Row, Table};

/// Three runs, of which the first changed the tree: its mark knows no later one.
fn exported(table: &Table) -> Exporter<'_> {
    table.insert(&Row::default());
    let exporter = Exporter::new(table);
    run(&exporter, &[1]);
    exporter.run(["state", "backup", backup(&exporter).to_str().unwrap()]).expect(0);
    run(&exporter, &[2, 3]);
    exporter
}

fn backup(exporter: &Exporter<'_>) -> PathBuf {
    exporter.home().join("backup.db")
}

/// Runs that get these numbers.
#[track_caller]
fn run(exporter: &Exporter<'_>, numbers: &[i64]) {
    for number in numbers {
        let json = exporter.run([&INCREMENTAL[..], &["--format", "json"]].concat()).expect(0).json();
        assert_eq!(json["run"], *number, "{json}");
    }
}

fn restore(exporter: &Exporter<'_>) {
    exporter.run(["state", "restore", backup(exporter).to_str().unwrap(), "--yes"]).expect(0);
}

#[test]
fn numbers_go_on_after_restore_fresh_and_restore_again() {
    let table = Table::embedded();
    let exporter = exported(&table);
    restore(&exporter);
    run(&exporter, &[4, 5]);
    let fresh = exporter.run([&INCREMENTAL[..], &["--fresh", "--format", "json"]].concat()).expect(0).json();
    assert_eq!(fresh["run"], 6);
    run(&exporter, &[7]);
    exporter.run(["state", "restore", backup(&exporter).to_str().unwrap(), "--yes", "--adopt-tree"]).expect(0);
    run(&exporter, &[8]);
}

#[test]
fn numbers_go_on_where_the_state_was_damaged_lost_or_replaced_by_hand() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let state = exporter.state();
    let damaged = |state: &PathBuf| {
        let mut bytes = fs::read(state).unwrap();
        bytes.truncate(20_000);
        fs::write(state, bytes).unwrap();
    };
    damaged(&state);
    restore(&exporter);
    run(&exporter, &[4, 5]);
    fs::remove_file(&state).unwrap();
    restore(&exporter);
    run(&exporter, &[6, 7]);
    fs::copy(backup(&exporter), &state).unwrap();
    run(&exporter, &[8, 9]);
    fs::remove_file(&state).unwrap();
    let full = exporter.run(["run", "--mode", "full", "--format", "json"]).expect(0).json();
    assert_eq!(full["run"], 10);
}

#[test]
fn numbers_go_on_from_a_state_that_was_set_aside_where_the_lock_was_lost_too() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let private = exporter.output().join(".export_state");
    // As a version that kept no number in the lock left it.
    fs::rename(exporter.state(), private.join("state.db.aside-20251128T163000Z")).unwrap();
    fs::write(private.join("state.db.aside-nothing"), "no state").unwrap();
    fs::write(private.join("state.db.aside-20251128T163001Z"), "damaged").unwrap();
    fs::remove_file(private.join("lock")).unwrap();
    let fresh = exporter.run([&INCREMENTAL[..], &["--fresh", "--format", "json"]].concat()).expect(0).json();
    assert_eq!(fresh["run"], 4);
    restore_elsewhere(&exporter);
}

/// A folder of its own for the state knows the numbers as well.
fn restore_elsewhere(exporter: &Exporter<'_>) {
    let folder = exporter.home().join("elsewhere");
    let folder = folder.to_str().unwrap();
    let backup = backup(exporter);
    exporter
        .run(["state", "restore", backup.to_str().unwrap(), "--yes", "--adopt-tree", "--state-dir", folder])
        .expect(0);
    let args = [&INCREMENTAL[..], &["--state-dir", folder, "--format", "json"]].concat();
    assert_eq!(exporter.run(&args).expect(0).json()["run"], 6);
    assert_eq!(exporter.run(&args).expect(0).json()["run"], 7);
    let lock = exporter.output().join(".export_state/lock");
    fs::remove_file(&lock).unwrap();
    exporter
        .run(["state", "restore", backup.to_str().unwrap(), "--yes", "--adopt-tree", "--state-dir", folder])
        .expect(0);
    let next = exporter.run(&args).expect(0).json()["run"].as_i64().unwrap();
    assert!(next > 7, "{next}");
}

#[test]
fn a_restore_gives_no_number_of_a_change_twice() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let set = ["state", "set", "1", "2025-11-27", "--yes", "--reason", "before the restore"];
    exporter.run(set).expect(0);
    exporter.run(set).expect(0);
    let changes = || exporter.ask("SELECT n, kind FROM state_change ORDER BY n");
    assert_eq!(changes(), ["1 set", "2 set"]);
    restore(&exporter);
    exporter.run(set).expect(0);
    assert_eq!(changes(), ["3 restore", "4 set"]);
}

#[test]
fn no_number_of_a_change_is_given_twice_where_the_state_began_anew() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let set = || exporter.run(["state", "set", "1", "2025-11-27", "--yes"]).expect(0);
    let changes = || exporter.ask("SELECT n, kind FROM state_change ORDER BY n");
    set();
    exporter.run([&INCREMENTAL[..], &["--fresh"]].concat()).expect(0);
    set();
    assert_eq!(changes(), ["2 set"]);
    let first = exporter.run(["history", "c1"]).expect(2);
    assert!(first.stderr.contains("state.db.aside-"), "{first}");
    fs::remove_file(exporter.state()).unwrap();
    exporter.run(["run", "--mode", "full"]).expect(0);
    set();
    assert_eq!(changes(), ["3 set"]);
    fs::copy(backup(&exporter), exporter.state()).unwrap();
    set();
    assert_eq!(changes(), ["4 set"]);
    // Two states are set aside in one second.
    exporter.run([&INCREMENTAL[..], &["--fresh"]].concat()).expect(0);
    exporter.run([&INCREMENTAL[..], &["--fresh"]].concat()).expect(0);
    // As a version that kept no numbers of changes in the lock left it.
    fs::remove_file(exporter.output().join(".export_state/lock")).unwrap();
    exporter.run([&INCREMENTAL[..], &["--fresh"]].concat()).expect(0);
    set();
    assert_eq!(changes(), ["5 set"]);
}
