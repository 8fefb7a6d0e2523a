//! `state check` finds what does not hold together, and says what to do; what is sound it lets alone.

use crate::support::exporter::{Exporter, run_with};
use crate::support::listing::{Traces, everything_in};
use crate::support::state::meddle;
use crate::support::table::{Row, Table};

const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];

/// Two good invoices, and one that cannot be exported.
fn table() -> Table {
    let table = Table::embedded();
    for (id, document) in [(1, "{}"), (2, "[]"), (3, "{")] {
        table.insert(&Row { id, number: &format!("INV{id}"), document, ..Row::default() });
    }
    table
}

fn exported(table: &Table) -> Exporter<'_> {
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(3);
    exporter
}

#[test]
fn a_sound_state_has_no_findings_and_is_not_touched() {
    let table = table();
    let exporter = exported(&table);
    let before = everything_in(&[&exporter.output()], Traces::None);
    let checked = exporter.run(["state", "check", "--deep", "--format", "json"]).expect(0).json();
    assert_eq!(checked["findings"].as_array().map(Vec::len), Some(0), "{checked}");
    assert_eq!(everything_in(&[&exporter.output()], Traces::None), before);
}

#[test]
fn whatever_does_not_hold_together_is_found_with_what_to_do() {
    let triggers = "DROP TRIGGER run_is_final; DROP TRIGGER run_tenant_is_final; DROP TRIGGER entry_moves_now; DROP TRIGGER file_past_is_complete";
    let restore = "state restore latest";
    let full = "--mode full";
    let again = "run the export again";
    let table = table();
    for (args, damage, finding, remedy) in [
        ("", "UPDATE run SET seen = seen + 1", "do not balance", restore),
        ("", "UPDATE run SET bytes = bytes + 1", "differ from what they did", restore),
        ("", "UPDATE tenant SET watermark = '2031-01-01 00:00:00'", "above every boundary", "state set"),
        ("", "UPDATE tenant SET family = 9", "a family that does not exist", restore),
        ("", "DELETE FROM todo", "not on the to-do list: 3", full),
        ("", "UPDATE reject SET closed_run = 1, closed_how = 'gone'", "no reject is open: 3", again),
        ("", "INSERT INTO doubt_path (path) VALUES ('1/CN/20251128+X.json')", "left in doubt", again),
        ("", "UPDATE meta SET published_run = 9", "missing in the history", restore),
        ("--deep", "UPDATE entry SET tenant = 9 WHERE id = 2", "no tenant, no folder or no run that is known: 2", full),
        ("--deep", "UPDATE entry SET folder = 9 WHERE id = 2", "no tenant, no folder or no run that is known: 2", full),
        ("--deep", "INSERT INTO file_past VALUES (1, 9, 'x', 'removed')", "folders that are not known: 1", restore),
        ("--deep", "UPDATE entry SET time = '2031-01-01 00:00:00' WHERE id = 1", "count as seen", full),
        ("--deep", "UPDATE entry SET (folder, name) = (1, '20251128+X')", "different documents", full),
        ("--deep", "INSERT INTO todo VALUES ('1', 'displaced', 1, 1)", "in the ledger all the same: 1", again),
        ("--deep", "UPDATE entry SET name = '../../etc/passwd' WHERE id = 1", "impossible paths", restore),
    ] {
        let exporter = exported(&table);
        meddle(&exporter.state(), &format!("{triggers}; {damage}"));
        let checked = exporter.run(["state", "check", args].iter().filter(|arg| !arg.is_empty())).expect(6);
        assert!(checked.stdout.contains(finding), "{damage}: {checked}");
        assert!(checked.stdout.contains(remedy), "{damage}: {checked}");
    }
}

#[test]
fn a_run_that_died_is_unfinished_business_until_the_next_one() {
    let table = table();
    let exporter = exported(&table);
    table.insert(&Row {
        id: 4,
        number: "INV4",
        time: &table.ago(std::time::Duration::from_secs(600)),
        ..Row::default()
    });
    assert!(run_with(&exporter, "renameat:signal=KILL:when=1", &INCREMENTAL).was_killed());
    let checked = exporter.run(["state", "check"]).expect(6);
    assert!(checked.stdout.contains("run 2 (incremental) died"), "{checked}");
    exporter.run(INCREMENTAL).expect(0);
    exporter.run(["state", "check", "--deep"]).expect(0);
}

#[test]
fn a_tree_that_is_not_the_states_own_is_a_finding() {
    let table = table();
    let exporter = exported(&table);
    let lock = exporter.output().join(".export_state/lock");
    let mark = std::fs::read(&lock).unwrap();
    for (bytes, finding) in [
        (None, "its mark .export_state/lock is missing"),
        (Some(String::from_utf8_lossy(&mark).replace("\"run\":1", "\"run\":0")), "the state says run 1"),
        (Some(String::from_utf8_lossy(&mark).replace("\"state\":\"", "\"state\":\"x")), "of another state"),
    ] {
        match bytes {
            None => std::fs::remove_file(&lock).unwrap(),
            Some(bytes) => std::fs::write(&lock, bytes).unwrap(),
        }
        let checked = exporter.run(["state", "check"]).expect(6);
        assert!(checked.stdout.contains(finding), "{checked}");
    }
}
