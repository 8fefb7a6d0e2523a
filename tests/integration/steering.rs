//! An operator moves watermarks and gives the state another source: on record, and never at the price
//! of an invoice.

use std::time::Duration;

use rusqlite::Connection;

use crate::support::exporter::{Exporter, numbers};
use crate::support::listing::{Traces, everything_in};
use crate::support::table::{Row, Table, on_every_source};

const INCREMENTAL: [&str; 5] = ["run", "--mode", "incremental", "--format", "json"];
const HOUR: Duration = Duration::from_secs(3600);

/// Two tenants with an invoice in each of the last five hours, exported.
fn exported(table: &Table) -> Exporter<'_> {
    for hour in 1..=5_u32 {
        for (tenant, id) in [("1", i64::from(hour)), ("10", i64::from(10 + hour))] {
            let time = table.ago(HOUR * hour);
            table.insert(&Row { id, tenant, number: &format!("INV{id}"), time: &time, ..Row::default() });
        }
    }
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(0);
    exporter
}

#[test]
fn a_watermark_that_is_set_back_really_exports_the_period_again() {
    on_every_source(|table| {
        let exporter = exported(table);
        // What no normal run sees: the files are lost, and a row changed without a new source time.
        std::fs::remove_dir_all(exporter.output().join("1")).unwrap();
        table.execute(&format!(
            "UPDATE t_invoice SET fext_field = '[2]', fupdate_time = '{}' WHERE fid = 2",
            table.query("SELECT CAST(fupdate_time AS CHAR) FROM t_invoice WHERE fid = 2")[0][0].clone().unwrap()
        ));
        assert_eq!(numbers(&exporter.run(INCREMENTAL).expect(0).json(), ["written"]), [0]);

        let to = table.ago(HOUR * 7 / 2);
        let set = exporter.run(["state", "set", "1", &to, "--yes", "--reason", "files lost"]).expect(0);
        assert!(set.stdout.contains("compared again by the next incremental run  3\n"), "{set}");
        let summary = exporter.run(INCREMENTAL).expect(0).json();
        assert_eq!(numbers(&summary, ["seen", "written"]), [3, 3], "the three above, nothing of the other tenant");
        let tree = exporter.tree();
        assert_eq!(tree["1/CN/20251128+INV2.json"], b"[2]");
        assert!(tree.contains_key("1/CN/20251128+INV3.json") && !tree.contains_key("1/CN/20251128+INV4.json"));

        exporter.run(["state", "reset", "1", "--yes"]).expect(0);
        assert_eq!(numbers(&exporter.run(INCREMENTAL).expect(0).json(), ["seen", "written"]), [5, 2]);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        assert_eq!(numbers(&exporter.run(INCREMENTAL).expect(0).json(), ["seen"]), [0]);
    });
}

#[test]
fn a_file_to_be_exported_again_is_so_though_its_row_is_touched_before_the_read() {
    on_every_source(|table| {
        let exporter = exported(table);
        std::fs::remove_file(exporter.output().join("1/CN/20251128+INV2.json")).unwrap();
        exporter.run(["state", "set", "1", &table.ago(HOUR * 7 / 2), "--yes"]).expect(0);
        // The next run leaves it to the one after.
        let now = table.ago(HOUR / 60);
        table.execute(&format!("UPDATE t_invoice SET fupdate_time = '{now}' WHERE fid = 2"));
        assert_eq!(numbers(&exporter.run(INCREMENTAL).expect(0).json(), ["seen", "written"]), [2, 0]);
        let args = INCREMENTAL.iter().chain(&["--safety-lag", "0s"]);
        assert_eq!(numbers(&exporter.run(args).expect(0).json(), ["seen", "written"]), [1, 1]);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

#[test]
fn a_watermark_that_is_moved_leaves_what_must_still_be_read_to_be_read() {
    let table = Table::embedded();
    let exporter = exported(&table);
    // A tenant that was quiet for long: its next run reads from far below its watermark.
    let before = exporter.ask_one("SELECT look_back FROM tenant WHERE name = '1'");
    exporter.run(["state", "set", "1", &table.ago(HOUR / 2), "--yes"]).expect(0);
    assert_eq!(exporter.ask_one("SELECT look_back FROM tenant WHERE name = '1'"), before);
    crate::support::state::meddle(&exporter.state(), "UPDATE tenant SET look_back = NULL");
    exporter.run(["state", "set", "1", &table.ago(HOUR / 3), "--yes"]).expect(0);
    assert_eq!(exporter.ask_one("SELECT look_back FROM tenant WHERE name = '1'"), "NULL");
}

#[test]
fn every_change_is_on_record_with_who_when_why_and_what_was_before() {
    let table = Table::embedded();
    let exporter = exported(&table).env("SUDO_USER", "ada");
    let before = exporter.ask_one("SELECT watermark FROM tenant WHERE name = '10'");
    exporter.run(["state", "set", "10", "2025-11-28", "--yes", "--reason", "audit 7"]).expect(0);
    exporter.run(["state", "reset", "--all", "--yes"]).expect(0);
    let changes = exporter
        .ask("SELECT kind, sudo_user, reason, last_run, command_line LIKE '%state%10%--yes%' FROM state_change");
    assert_eq!(changes, ["set ada audit 7 1 1", "reset ada NULL 1 0"]);
    let at: Vec<String> = exporter.ask("SELECT at FROM state_change");
    assert!(at.iter().all(|at| chrono_like(at)), "{at:?}");
    let moved = exporter.ask(
        "SELECT w.change, t.name, w.old, w.new FROM watermark_change w JOIN tenant t ON t.n = w.tenant ORDER BY 1, 2",
    );
    assert_eq!(moved[0], format!("1 10 {before} 2025-11-28 00:00:00"));
    assert_eq!(moved[1], format!("2 1 {before} NULL"));
    assert_eq!(moved[2], "2 10 2025-11-28 00:00:00 NULL");
    let backups: Vec<String> =
        exporter.run(["state", "backups", "--format", "csv"]).expect(0).stdout.lines().map(str::to_owned).collect();
    assert!(backups[1].contains(",before-reset,") && backups[2].contains(",before-set,"), "{backups:?}");
}

fn chrono_like(at: &str) -> bool {
    at.len() == 20 && at.ends_with('Z') && &at[10..11] == "T"
}

#[test]
fn nothing_is_changed_without_consent_nor_by_a_mistype() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let ahead = table.ahead(HOUR);
    let before = everything_in(&[&exporter.output()], Traces::OfTheLock);
    for (code, args, facts) in [
        (2, vec!["state", "set", "1", "2025-11-28"], vec!["--yes", "tenant 1"]),
        (2, vec!["state", "reset", "1"], vec!["--yes"]),
        (2, vec!["state", "reset"], vec!["--all"]),
        (2, vec!["state", "reset", "11", "--yes"], vec!["no tenant \"11\""]),
        (2, vec!["state", "set", "11", "2025-11-28", "--yes"], vec!["no tenant \"11\""]),
        (2, vec!["state", "set", "1", "tomorrow", "--yes"], vec!["\"tomorrow\""]),
        (2, vec!["state", "set", "1", &ahead, "--yes"], vec!["ahead of the server's clock", &ahead]),
        (1, vec!["state", "adopt-source", "--yes"], vec!["belongs to", "already"]),
        (2, vec!["state", "restore", "nothing.db", "--yes"], vec!["no backup nothing.db"]),
    ] {
        let finished = exporter.run(&args).expect(code);
        let line = finished.stderr.lines().last().unwrap_or_default().to_owned();
        assert!(facts.iter().all(|fact| finished.stderr.contains(fact)), "{args:?}: {line}");
    }
    assert_eq!(everything_in(&[&exporter.output()], Traces::OfTheLock), before);
}

#[test]
fn without_a_state_nothing_is_made() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    for args in [
        &["state", "set", "1", "2025-11-28", "--yes"][..],
        &["state", "reset", "--all", "--yes"],
        &["state", "backup"],
        &["state", "check"],
        &["state", "adopt-source", "--yes"],
        &["state", "restore", "latest", "--yes"],
    ] {
        let finished = exporter.run(args);
        assert!(matches!(finished.status.code(), Some(2 | 5)), "{args:?}: {finished}");
        assert!(!exporter.output().exists(), "{args:?} made something");
    }
}

#[test]
fn another_name_of_the_same_table_is_adopted_on_record_and_all_keys_are_compared() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let old = table.url();
    let file = old.trim_start_matches("sqlite:").to_owned();
    let moved = format!("{file}.moved");
    std::fs::rename(&file, &moved).unwrap();
    let time = "2001-01-01 00:00:00";
    Connection::open(&moved)
        .unwrap()
        .execute("INSERT INTO t_invoice VALUES (99, '1', 'CN', '2025-11-28', 'OLD', 3, '{}', ?1)", [time])
        .unwrap();
    let new = format!("sqlite:{moved}");
    let exporter = exporter.env("INVOICE_EXPORT_SOURCE", &new);
    let refused = exporter.run(INCREMENTAL).expect(5);
    assert!(refused.stderr.contains("state adopt-source"), "{refused}");
    exporter.run(["state", "adopt-source", "--yes", "--reason", "moved house"]).expect(0);
    assert_eq!(
        exporter.ask("SELECT kind, reason, old, new FROM state_change"),
        [format!("adopt-source moved house {old}.t_invoice {new}.t_invoice")]
    );
    assert_eq!(numbers(&exporter.run(INCREMENTAL).expect(0).json(), ["seen", "written"]), [1, 1]);
    std::fs::rename(&moved, &file).unwrap();
    exporter.assert_state_is_sound();
}

#[test]
fn a_change_waits_for_a_run_and_a_run_for_a_change() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let lock = std::fs::File::open(exporter.output().join(".export_state/lock")).unwrap();
    lock.lock().unwrap();
    let refused = exporter.run(["state", "reset", "--all", "--yes", "--lock-wait", "0s"]).expect(4);
    assert!(refused.stderr.contains("holds the lock"), "{refused}");
    let waiting = exporter.spawn(["state", "reset", "--all", "--yes"]);
    drop(lock);
    waiting.wait().expect(0);
    assert_eq!(exporter.ask("SELECT count(watermark) FROM tenant"), ["0"]);
}

#[test]
fn what_a_reset_left_to_be_read_is_read_though_a_time_is_set_or_imported_after_it() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let file = exporter.output().parent().unwrap().join("script");
    let look_back = || exporter.ask_one("SELECT look_back FROM tenant WHERE name = '1'");
    exporter.run(["state", "reset", "1", "--yes"]).expect(0);
    exporter.run(["state", "set", "1", &table.ago(HOUR), "--yes"]).expect(0);
    assert_eq!(look_back(), "NULL");
    exporter.run(["state", "reset", "1", "--yes"]).expect(0);
    std::fs::write(&file, format!("1|{}|1|SUCCESS\n", table.ago(HOUR))).unwrap();
    exporter.run(["import-legacy-state", file.to_str().unwrap()]).expect(0);
    assert_eq!(look_back(), "NULL");
    assert_eq!(numbers(&exporter.run(INCREMENTAL).expect(0).json(), ["seen"]), [5]);
}

#[test]
fn a_time_that_the_state_could_not_compare_is_refused() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let watermark = || exporter.ask_one("SELECT watermark FROM tenant WHERE name = '1'");
    let before = watermark();
    for time in ["2025-1-2 10:00:00.5", "2025-11-28  10:00:00", "+2025-01-02 10:00:00", "0000-01-01 00:00:00"] {
        exporter.run(["state", "set", "1", time, "--yes"]).expect(2);
        assert_eq!(watermark(), before, "{time}");
    }
}
