//! Backups of the state: made while others write, whole or not there, and brought back without a loss.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::exporter::{Exporter, numbers, run_with, spawn_held};
use crate::support::state::{ask, meddle};
use crate::support::table::{Row, Table, on_every_source};
use crate::support::wait_for;

const INCREMENTAL: [&str; 5] = ["run", "--mode", "incremental", "--format", "json"];
const MINUTE: Duration = Duration::from_secs(60);

fn arrive(table: &Table, id: i64, minutes: u32) {
    let time = table.ago(MINUTE * minutes);
    table.insert(&Row { id, number: &format!("INV{id}"), time: &time, ..Row::default() });
}

fn exported(table: &Table) -> Exporter<'_> {
    exported_by(Exporter::new(table))
}

fn exported_by(exporter: Exporter<'_>) -> Exporter<'_> {
    (1..=20).for_each(|id| arrive(exporter.table(), id, 300));
    exporter.run(INCREMENTAL).expect(0);
    exporter
}

fn folder(exporter: &Exporter<'_>) -> PathBuf {
    exporter.output().join(".export_state/backups")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The end of a backup's name says why it was made.
fn occasions(exporter: &Exporter<'_>) -> Vec<String> {
    names(&folder(exporter)).iter().map(|name| name[17..].trim_end_matches(".db").to_owned()).collect()
}

fn whole(backup: &Path) {
    assert_eq!(ask(backup, "PRAGMA integrity_check"), [[Some("ok".to_owned())]], "{}", backup.display());
}

#[test]
fn an_incremental_run_backs_the_state_up_once_a_day_before_it_moves_anything() {
    let table = Table::embedded();
    let exporter = exported(&table);
    assert_eq!(occasions(&exporter), [""; 0], "there was nothing to back up");
    let before = exporter.ask_one("SELECT watermark FROM tenant");
    exporter.run(["run", "--mode", "full"]).expect(0);
    assert_eq!(occasions(&exporter), [""; 0], "a full run moves no watermark");
    exporter.run(INCREMENTAL).expect(0);
    exporter.run(INCREMENTAL).expect(0);
    assert_eq!(occasions(&exporter), ["regular"]);
    let backup = folder(&exporter).join(&names(&folder(&exporter))[0]);
    whole(&backup);
    assert_eq!(ask(&backup, "SELECT watermark FROM tenant"), [[Some(before)]]);
    // A day later.
    fs::rename(&backup, folder(&exporter).join("20251121T000000Z-regular.db")).unwrap();
    exporter.run(INCREMENTAL).expect(0);
    assert_eq!(occasions(&exporter), ["regular", "regular"]);
    exporter.run(["run", "--mode", "incremental", "--backup-every", "0s"]).expect(0);
    assert_eq!(occasions(&exporter).len(), 2);
}

#[test]
fn old_backups_make_room_but_never_those_of_an_operator() {
    let table = Table::embedded();
    let exporter = exported(&table);
    exporter.run(["state", "backup"]).expect(0);
    let manual = names(&folder(&exporter)).remove(0);
    for day in 1..=9 {
        for occasion in ["regular", "manual", "before-set"] {
            let copy = folder(&exporter).join(format!("2025110{day}T000000Z-{occasion}.db"));
            fs::copy(folder(&exporter).join(&manual), copy).unwrap();
        }
    }
    fs::write(folder(&exporter).join("20251101T000000Z-regular.db.orig"), "not ours").unwrap();
    exporter.run(["run", "--mode", "incremental", "--keep-backups", "3"]).expect(0);
    let left = names(&folder(&exporter));
    let count = |occasion: &str| left.iter().filter(|name| name.ends_with(&format!("-{occasion}.db"))).count();
    assert_eq!((count("regular"), count("manual"), count("before-set")), (3, 10, 3), "{left:?}");
    assert!(
        left.contains(&"20251108T000000Z-regular.db".to_owned()) && left.iter().any(|name| name.ends_with(".orig"))
    );
}

#[test]
fn a_backup_is_made_while_a_run_writes_and_holds_what_was_recorded() {
    let table = Table::embedded();
    let exporter = exported(&table);
    // A run that is at work has a log beside the state and a transaction of its own.
    let writer = rusqlite::Connection::open(exporter.state()).unwrap();
    writer.execute_batch("UPDATE meta SET server_ms = 7; BEGIN IMMEDIATE; UPDATE meta SET server_ms = 8").unwrap();
    let file = exporter.output().parent().unwrap().join("copy.db");
    exporter.run(["state", "backup", file.to_str().unwrap()]).expect(0);
    whole(&file);
    assert_eq!(ask(&file, "SELECT server_ms FROM meta"), [[Some("7".to_owned())]]);
    let again = exporter.run(["state", "backup", file.to_str().unwrap()]).expect(2);
    assert!(again.stderr.contains("already there"), "{again}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "it holds as much as the state does");
}

#[test]
fn after_a_restore_a_file_of_a_version_that_the_source_has_left_since_is_put_right() {
    let modes: [&[&str]; 2] = [&["run", "--mode", "full"], &["run", "--mode", "incremental"]];
    on_every_source(|table| {
        for (mode, back) in modes.into_iter().flat_map(|mode| [(mode, 200), (mode, 80)]) {
            table.execute("DELETE FROM t_invoice");
            let exporter = exported(table);
            let becomes = |document: &str, minutes: u32| {
                let time = table.ago(MINUTE * minutes);
                let change = format!("SET fext_field = '{document}', fupdate_time = '{time}' WHERE fid = 3");
                table.execute(&format!("UPDATE t_invoice {change}"));
            };
            becomes("{}", 200);
            exporter.run(INCREMENTAL).expect(0);
            let seventh = table.query("SELECT fupdate_time FROM t_invoice WHERE fid = 7")[0][0].clone().unwrap();
            exporter.run(["state", "backup"]).expect(0);
            // As long as what the ledger of the backup knows, to which the source comes back.
            becomes("[]", 90);
            // What is not there any more was removed by a run of the time that was lost.
            let moves = |country: &str, time: &str| {
                let change = format!("SET fcountry = '{country}', fupdate_time = '{time}' WHERE fid = 7");
                table.execute(&format!("UPDATE t_invoice {change}"));
            };
            moves("DE", &table.ago(MINUTE * 90));
            exporter.run(INCREMENTAL).expect(0);
            becomes("{}", back);
            moves("CN", &seventh);
            assert!(!exporter.tree().contains_key("1/CN/20251128+INV7.json"));
            exporter.run(["state", "restore", "latest", "--yes"]).expect(0);
            let manual = names(&folder(&exporter)).into_iter().find(|name| name.ends_with("manual.db")).unwrap();
            exporter.run(["state", "restore", folder(&exporter).join(&manual).to_str().unwrap(), "--yes"]).expect(0);
            exporter.run(mode).expect(0);
            let file = fs::read_to_string(exporter.output().join("1/CN/20251128+INV3.json")).unwrap();
            assert_eq!(file, "{}", "{mode:?}, {back}");
            assert!(exporter.tree().contains_key("1/CN/20251128+INV7.json"), "{mode:?}");
        }
    });
}

#[test]
fn restoring_costs_a_reading_and_no_invoice_whatever_happened_since() {
    on_every_source(|table| {
        let exporter = exported(table);
        exporter.run(["state", "backup"]).expect(0);
        arrive(table, 101, 100);
        exporter.run(INCREMENTAL).expect(0);
        table.execute(&format!(
            "UPDATE t_invoice SET fcountry = 'DE', fupdate_time = '{}' WHERE fid = 3",
            table.ago(MINUTE * 60)
        ));
        exporter.run(INCREMENTAL).expect(0);
        arrive(table, 102, 90);
        // Below everything that a look-back would reach.
        table.insert(&Row { id: 103, number: "OLD", time: "2001-01-01 00:00:00", ..Row::default() });
        let stamps = exporter.stamps();

        let restored = exporter.run(["state", "restore", "latest", "--yes", "--reason", "try"]).expect(0);
        assert!(restored.stdout.contains("-regular.db"), "the newest is the day's own: {restored}");
        let manual = names(&folder(&exporter)).into_iter().find(|name| name.ends_with("manual.db")).unwrap();
        exporter.run(["state", "restore", folder(&exporter).join(&manual).to_str().unwrap(), "--yes"]).expect(0);
        assert_eq!(exporter.ask("SELECT count(*) FROM ledger WHERE id = '101'"), ["0"]);
        let record = exporter.ask("SELECT kind, reason, length(sha256), file LIKE '%manual.db', old LIKE '%before-restore%' FROM state_change");
        assert_eq!(record, ["restore NULL 64 1 1"], "the first restore is in the state that was replaced");

        exporter.run(["state", "check", "--deep"]).expect(0);
        let summary = exporter.run(INCREMENTAL).expect(0).json();
        assert_eq!(numbers(&summary, ["written"]), [2], "102 and OLD; the others lie there already: {summary}");
        assert!(summary["run"].as_i64().unwrap() > 3, "no number of a run is given twice: {summary}");
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        let after = exporter.stamps();
        assert!(stamps.iter().all(|(path, stamp)| after.get(path) == Some(stamp)));
    });
}

#[test]
fn a_backup_of_another_tree_a_newer_one_and_what_is_no_backup_are_refused() {
    let table = Table::embedded();
    let (exporter, other) = (exported(&table), exported(table_of_its_own()));
    let path = |name: &str| exporter.output().parent().unwrap().join(name);
    other.run(["state", "backup", path("other.db").to_str().unwrap()]).expect(0);
    exporter.run(["state", "backup", path("damaged.db").to_str().unwrap()]).expect(0);
    fs::copy(path("damaged.db"), path("newer.db")).unwrap();
    meddle(&path("newer.db"), "PRAGMA user_version = 99");
    let mut bytes = fs::read(path("damaged.db")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xA5);
    fs::write(path("damaged.db"), bytes).unwrap();
    fs::write(path("text.db"), "no state at all").unwrap();
    fs::write(path("empty.db"), "").unwrap();
    let state = fs::read(exporter.state()).unwrap();
    for (name, fact) in [
        ("other.db", "mark of another state"),
        ("newer.db", "schema version 99"),
        ("damaged.db", "cannot be restored"),
        ("text.db", "cannot be restored"),
        ("empty.db", "cannot be restored"),
    ] {
        let refused = exporter.run(["state", "restore", path(name).to_str().unwrap(), "--yes"]).expect(5);
        assert!(refused.stderr.contains(fact), "{name}: {refused}");
        assert_eq!(fs::read(exporter.state()).unwrap(), state, "{name}");
    }
    assert_eq!(numbers(&exporter.run(INCREMENTAL).expect(0).json(), ["written"]), [0]);
}

#[test]
fn a_watermark_set_after_a_restore_does_not_end_the_comparison_of_all_keys() {
    on_every_source(|table| {
        arrive(table, 1, 300);
        table.insert(&Row { id: 2, tenant: "10", time: &table.ago(MINUTE * 300), ..Row::default() });
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "full"]).expect(0);
        exporter.run(["state", "backup"]).expect(0);
        arrive(table, 3, 300);
        exporter.run(["run", "--mode", "full"]).expect(0);
        exporter.run(["state", "restore", "latest", "--yes"]).expect(0);
        fs::remove_file(exporter.output().join("1/CN/20251128+INV1.json")).unwrap();
        // The restore is noticed by a run that has nothing to do with tenant 1.
        exporter.run(["run", "--mode", "incremental", "--tenant", "10"]).expect(0);
        exporter.run(["state", "set", "1", &table.ago(MINUTE * 90), "--yes"]).expect(0);
        exporter.run(INCREMENTAL).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_refused_restore_names_the_tree_also_where_the_state_does_not_lie_in_it() {
    let table = Table::embedded();
    let (exporter, other) = (exported(&table), exported(table_of_its_own()));
    let [backup, elsewhere] = ["other.db", "var/lib/state"].map(|name| exporter.home().join(name));
    let (backup, elsewhere) = (backup.to_str().unwrap(), elsewhere.to_str().unwrap());
    other.run(["state", "backup", backup]).expect(0);
    let refused = exporter.run(["state", "restore", backup, "--yes", "--state-dir", elsewhere]).expect(5);
    let fact = format!("{} carries the mark", exporter.output().display());
    assert!(refused.stderr.contains(&fact), "{refused}");
}

#[test]
fn a_backup_from_the_middle_of_a_run_is_known_for_one_after_that_run_has_ended() {
    let table = Table::embedded();
    table.load_sample(1_500, 6, "1:1.0");
    let exporter = Exporter::new(&table);
    // In the second batch, while the first one is on record.
    let run = spawn_held(&exporter, "linkat", 1050, &["run", "--mode", "full"]);
    wait_for("the second batch", || {
        exporter.tree().len() >= 1_040 && !exporter.ask("SELECT 1 FROM ledger LIMIT 1").is_empty()
    });
    let backup = exporter.home().join("middle.db");
    exporter.run(["state", "backup", backup.to_str().unwrap()]).expect(0);
    run.go_on();
    run.wait().expect(0);
    let path = ask(&backup, "SELECT path FROM ledger LIMIT 1").remove(0).remove(0).unwrap();
    fs::remove_file(exporter.output().join(path)).unwrap();
    exporter.run(["state", "restore", backup.to_str().unwrap(), "--yes"]).expect(0);
    // An incremental run gives nothing back of what the state has as exported, unless it is a restored one.
    exporter.run(INCREMENTAL).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn files_and_state_that_were_brought_back_apart_are_put_together_again() {
    on_every_source(|table| {
        for marks in ["none", "another state's"] {
            table.execute("DELETE FROM t_invoice");
            let exporter = exported(table);
            let elsewhere = tempfile::tempdir().unwrap();
            let file = elsewhere.path().join("offsite.db");
            let file = file.to_str().unwrap();
            exporter.run(["state", "backup", file]).expect(0);
            arrive(table, 21, 90);
            exporter.run(INCREMENTAL).expect(0);
            // What came back is a little older here and there, and not all of it.
            fs::remove_dir_all(exporter.output().join(".export_state")).unwrap();
            let path = |id: i64| exporter.output().join(format!("1/CN/20251128+INV{id}.json"));
            fs::remove_file(path(3)).unwrap();
            let other = fs::read_to_string(path(4)).unwrap().replace('0', "9");
            fs::write(path(4), other).unwrap();
            if marks != "none" {
                exporter.run(["run", "--mode", "full"]).expect(0);
                fs::remove_file(path(3)).unwrap();
            }
            let refused = exporter.run(["state", "restore", file, "--yes"]).expect(5);
            assert!(refused.stderr.contains("--adopt-tree"), "{refused}");
            exporter.run(["state", "restore", file, "--yes", "--adopt-tree"]).expect(0);
            exporter.run(["run", "--mode", "full"]).expect(0);
            exporter.assert_agrees();
            exporter.run(["verify", "--hash", "--against-source"]).expect(0);
            let runs = exporter.ask("SELECT kind FROM run WHERE kind <> 'verify' ORDER BY id");
            assert_eq!(runs, ["incremental", "full"], "the history of before is there");
        }
    });
}

#[test]
fn where_there_is_no_folder_no_tree_is_adopted_and_none_is_made() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let file = exporter.home().join("offsite.db");
    let file = file.to_str().unwrap();
    exporter.run(["state", "backup", file]).expect(0);
    let mistyped = exporter.home().join("contxt");
    let args = ["state", "restore", file, "--yes", "--adopt-tree", "--output", mistyped.to_str().unwrap()];
    let refused = exporter.run(args).expect(2);
    assert!(refused.stderr.contains("--output") && !mistyped.exists(), "{refused}");
}

fn table_of_its_own() -> &'static Table {
    Box::leak(Box::new(Table::embedded()))
}

/// Kills the command at every n-th of these calls, until it is through. Each time what is left must be
/// the old state or the new one, whole, and the next run must work.
fn dies_at_every(calls: &[&str], scene: impl Fn(&Exporter<'_>) -> Vec<String>, is_sound: impl Fn(&Exporter<'_>)) {
    for call in calls {
        let mut deaths = 0;
        for nth in 1.. {
            let table = Table::embedded();
            // A process that dies loses the same in memory.
            let exporter = exported_by(Exporter::in_memory(&table));
            let args = scene(&exporter);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let finished = run_with(&exporter, &format!("{call}:signal=KILL:when={nth}"), &args);
            if !finished.was_killed() {
                finished.expect(0);
                break;
            }
            deaths += 1;
            let checked = exporter.run(["state", "check", "--deep"]);
            assert!(checked.status.success(), "killed at {call} {nth}: {checked}");
            is_sound(&exporter);
            arrive(&table, 200, 10);
            exporter.run(INCREMENTAL).expect(0);
            exporter.assert_agrees();
            exporter.assert_state_is_sound();
            let unfinished: Vec<_> =
                names(&folder(&exporter)).into_iter().filter(|name| !name.ends_with(".db")).collect();
            exporter.run(["state", "backup"]).expect(0);
            assert!(
                !names(&folder(&exporter)).iter().any(|name| unfinished.contains(name)),
                "{call} {nth}: {unfinished:?} is never cleaned up"
            );
        }
        assert!(deaths > 0, "{call} is never called");
    }
}

#[test]
fn a_backup_that_dies_anywhere_leaves_none_or_a_whole_one() {
    dies_at_every(
        &["pwrite64", "fsync", "renameat2"],
        |_| ["state", "backup"].map(str::to_owned).to_vec(),
        |exporter| {
            for name in names(&folder(exporter)).iter().filter(|name| name.ends_with(".db")) {
                whole(&folder(exporter).join(name));
            }
        },
    );
}

#[test]
fn a_restore_that_dies_anywhere_leaves_the_old_state_or_the_new_one() {
    dies_at_every(
        &["pwrite64", "fsync", "renameat2", "unlink", "unlinkat", "ftruncate"],
        |exporter| {
            let backup = exporter.output().parent().unwrap().join("backup.db");
            exporter.run(["state", "backup", backup.to_str().unwrap()]).expect(0);
            exporter.run(["state", "set", "1", "2025-11-28", "--yes"]).expect(0);
            vec!["state".into(), "restore".into(), backup.to_str().unwrap().to_owned(), "--yes".into()]
        },
        |exporter| {
            let changes = exporter.ask("SELECT group_concat(kind) FROM state_change");
            let watermark = exporter.ask_one("SELECT watermark = '2025-11-28 00:00:00' FROM tenant");
            assert!(
                matches!((changes[0].as_str(), watermark.as_str()), ("set", "1") | ("restore", "0")),
                "neither old nor new: {changes:?} {watermark}"
            );
        },
    );
}

#[test]
fn a_change_that_dies_anywhere_is_made_whole_or_not_at_all() {
    dies_at_every(
        &["pwrite64", "fsync", "renameat2"],
        |_| ["state", "reset", "--all", "--yes"].map(str::to_owned).to_vec(),
        |exporter| {
            let counts = exporter.ask_one(
                "SELECT (SELECT count(*) FROM state_change), (SELECT count(*) FROM watermark_change),
                        (SELECT count(*) FROM tenant WHERE watermark IS NULL), (SELECT count(*) FROM ledger WHERE settled = 0)",
            );
            assert!(matches!(counts.as_str(), "0 0 0 0" | "1 1 1 20"), "{counts}");
        },
    );
}

#[test]
fn backups_of_one_moment_do_not_touch_each_other() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let running: Vec<_> = (0..12).map(|_| exporter.spawn(["state", "backup"])).collect();
    running.into_iter().for_each(|running| drop(running.wait().expect(0)));
    let names = names(&folder(&exporter));
    assert_eq!(names.len(), 12, "{names:?}");
    names.iter().for_each(|name| whole(&folder(&exporter).join(name)));
}

#[test]
fn a_backup_removes_no_file_but_its_own() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let target = exporter.output().parent().unwrap().join("copy.db");
    let beside = target.with_file_name("copy.db.new");
    fs::write(&beside, "somebody's").unwrap();
    let refused = exporter.run(["state", "backup", target.to_str().unwrap()]).expect(2);
    assert!(refused.stderr.contains("copy.db.new is already there"), "{refused}");
    assert_eq!(fs::read_to_string(&beside).unwrap(), "somebody's");
    assert!(!target.exists());
}

#[test]
fn invoices_are_exported_though_the_backups_cannot_be_listed() {
    let table = Table::embedded();
    let exporter = exported(&table);
    fs::write(folder(&exporter), "no folder").unwrap();
    arrive(&table, 101, 10);
    let run = exporter.run(INCREMENTAL).expect(0);
    assert!(run.stderr.contains("Not a directory"), "{run}");
    assert_eq!(numbers(&run.json(), ["written"]), [1]);
}

#[test]
fn restoring_twice_gives_no_number_of_a_run_twice() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let backup = exporter.output().parent().unwrap().join("backup.db");
    let backup = backup.to_str().unwrap();
    exporter.run(["state", "backup", backup]).expect(0);
    // Nothing to do: the mark in the tree stays behind.
    (0..3).for_each(|_| drop(exporter.run(INCREMENTAL).expect(0)));
    exporter.run(["state", "restore", backup, "--yes"]).expect(0);
    exporter.run(["state", "restore", backup, "--yes"]).expect(0);
    assert_eq!(exporter.run(INCREMENTAL).expect(0).json()["run"], 5);
}

#[test]
fn a_restore_does_not_take_the_state_from_its_owner() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let table = Table::embedded();
    let exporter = exported(&table);
    exporter.run(["state", "backup"]).expect(0);
    std::os::unix::fs::chown(exporter.state(), Some(65_534), None).unwrap();
    let refused = exporter.run(["state", "restore", "latest", "--yes"]).expect(5);
    assert!(refused.stderr.contains("belongs to another user"), "{refused}");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(exporter.state()).unwrap()), 65_534);
}

#[test]
fn a_full_disk_is_not_blamed_on_the_backup_and_does_not_stay_full() {
    let table = Table::embedded();
    let exporter = exported(&table);
    exporter.run(["state", "backup"]).expect(0);
    let full_while_building = (1..400).step_by(10).find_map(|nth| {
        let inject = format!("pwrite64:error=ENOSPC:when={nth}+");
        let failed = run_with(&exporter, &inject, &["state", "restore", "latest", "--yes"]);
        failed.stderr.contains("restore ").then_some(failed)
    });
    let failed = full_while_building.expect("the disk is full before, or not at all").expect(1);
    assert!(failed.stderr.contains("the disk is full") && !failed.stderr.contains("choose another"), "{failed}");
    assert!(!exporter.state().with_file_name("state.db.new").exists());
    exporter.run(["state", "check", "--deep"]).expect(0);
}
