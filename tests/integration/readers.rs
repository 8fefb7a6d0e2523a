//! Another user may look: a member of the group, where `--state-mode` says so, at rest, during a run and after a crash.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::history::INCREMENTAL;
use crate::support::exporter::{Exporter, Finished, Running, run_with, spawn_held};
use crate::support::listing::{Traces, everything_in};
use crate::support::scene::FULL;
use crate::support::table::{Row, Table};
use crate::support::wait_for;

const COUNT_RUNS: &str = "SELECT COUNT(*) FROM run";
const READER: u32 = 1_234;
const GROUP: u32 = 4_242;
const ROOT_ONLY: &str = "this test needs root, who acts for both users";

/// All that only looks.
const LOOKS: [&[&str]; 6] = [
    &["status"],
    &["history"],
    &["history", "1"],
    &["why", "INV1"],
    &["state", "check", "--deep"],
    &["state", "backups"],
];
const VERIFICATIONS: [&[&str]; 3] =
    [&["verify"], &["verify", "--hash"], &["verify", "--against-source", "--documents"]];

fn table() -> Table {
    let table = Table::embedded();
    table.insert(&Row { number: "INV1", ..Row::default() });
    table
}

/// The folder of the state belongs to the readers' group and hands it down.
fn with_group(exporter: Exporter<'_>) -> Exporter<'_> {
    let private = exporter.output().join(".export_state");
    fs::create_dir_all(&private).unwrap();
    chown(&private, None, Some(GROUP)).expect(ROOT_ONLY);
    fs::set_permissions(&private, Permissions::from_mode(0o2700)).unwrap();
    exporter
}

fn shared(table: &Table) -> Exporter<'_> {
    let exporter = with_group(Exporter::new(table));
    exporter.run(["run", "--mode", "incremental", "--state-mode", "0640"]).expect(0);
    exporter.run(["state", "backup"]).expect(0);
    exporter
}

fn by_reader(exporter: &Exporter<'_>, args: &[&str]) -> Finished {
    exporter.spawn_as(READER, GROUP, args).wait()
}

fn change(table: &Table) {
    table.execute("UPDATE t_invoice SET fext_field = '{\"version\": 2}'");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o777
}

/// Everything of the state: its files, and the folders in which they are.
fn modes(exporter: &Exporter<'_>) -> [Vec<u32>; 2] {
    let private = exporter.output().join(".export_state");
    let backups = private.join("backups");
    let mut files = vec![mode(&private.join("state.db")), mode(&private.join("lock"))];
    let entries = fs::read_dir(&backups).unwrap().map(|entry| mode(&entry.unwrap().path()));
    files.extend(entries);
    files.dedup();
    [files, vec![mode(&private), mode(&backups)]]
}

#[test]
fn a_member_of_the_group_looks_at_everything_and_leaves_no_trace() {
    let table = table();
    let exporter = shared(&table);
    let before = everything_in(&[&exporter.output()], Traces::None);
    for args in LOOKS {
        by_reader(&exporter, args).expect(0);
    }
    for args in VERIFICATIONS {
        let args = [args, &["--format", "json"]].concat();
        let verified = by_reader(&exporter, &args).expect(0).json();
        assert_eq!((&verified["differences"], &verified["run"]), (&json!(0), &Value::Null), "{verified}");
        let why = verified["not_recorded"].as_str().unwrap();
        assert!(why.contains("belongs to another user") && why.contains("its answer holds all the same"), "{why}");
        assert!(!why.contains("write to it"), "a reader is not to write: {why}");
    }
    let after = everything_in(&[&exporter.output()], Traces::None);
    assert_eq!(before, after);
    // The script at work makes files disagree as well.
    let script = exporter.output().join(".export_state/.export.lock");
    fs::create_dir(&script).unwrap();
    by_reader(&exporter, &["verify"]).expect(4);
    fs::remove_dir(script).unwrap();
    // What changes something is refused, and says which file it may not write.
    let refused = by_reader(&exporter, &["state", "reset", "--all", "--yes"]);
    assert!(refused.status.code() != Some(0) && refused.stderr.contains(".export_state"), "{refused}");
}

/// Debian's own, as the member of the group.
fn sqlite3_by_reader(arguments: &[&str]) -> Finished {
    Running::new(Command::new("sqlite3").args(arguments).uid(READER).gid(GROUP).env("HOME", "/")).wait()
}

/// Makes a copy of the state as a member of the group, and counts its runs.
fn count_runs_in_a_copy(exporter: &Exporter<'_>, name: &str) -> String {
    let own = exporter.home().join(name);
    fs::create_dir(&own).unwrap();
    chown(&own, Some(READER), None).unwrap();
    let copy = own.join("copy.db").display().to_string();
    by_reader(exporter, &["state", "backup", &copy]).expect(0);
    sqlite3_by_reader(&["-readonly", &copy, COUNT_RUNS]).expect(0).stdout
}

#[test]
fn a_member_of_the_group_asks_with_sqlite3_too_and_leaves_no_trace() {
    let table = table();
    let exporter = shared(&table);
    let everything = || everything_in(&[&exporter.output()], Traces::None);
    let (before, state) = (everything(), exporter.state().display().to_string());
    assert_eq!(count_runs_in_a_copy(&exporter, "at_rest"), "1\n");
    let uri = format!("file:{state}?immutable=1");
    assert_eq!(sqlite3_by_reader(&[&uri, COUNT_RUNS]).expect(0).stdout, "1\n");
    let plain = sqlite3_by_reader(&["-readonly", &state, COUNT_RUNS]);
    assert!(plain.stderr.contains("readonly"), "the documents say that this fails at rest: {plain}");
    let backup = by_reader(&exporter, &["state", "backups", "--format", "json"]).expect(0).json();
    let backup = backup[0]["file"].as_str().unwrap();
    assert_eq!(sqlite3_by_reader(&["-readonly", backup, COUNT_RUNS]).expect(0).stdout, "1\n");
    assert_eq!(everything(), before);

    change(&table);
    let run = spawn_held(&exporter, "renameat", 1, &FULL);
    wait_for("a run on record", || exporter.ask_one("SELECT status FROM run ORDER BY id DESC LIMIT 1") == "running");
    assert_eq!(count_runs_in_a_copy(&exporter, "during"), "2\n");
    run.go_on();
    run.wait().expect(0);
}

/// What the documents tell an operator to do, once as the output is made and once with backups in it.
const RECIPE: &str = "mkdir -p $0 && chgrp -R 4242 $0 && find $0 -type d -exec chmod g+s {} +";

fn follow(recipe: &str, private: &Path) {
    Running::new(Command::new("sh").args(["-c", recipe]).arg(private)).wait().expect(0);
}

#[test]
fn a_folder_of_another_group_than_its_files_is_told_and_the_recipe_mends_it() {
    let table = table();
    let exporter = Exporter::new(&table);
    let private = exporter.output().join(".export_state");
    exporter.run(INCREMENTAL).expect(0);
    let share = || exporter.run(["run", "--mode", "incremental", "--state-mode", "0640"]).expect(0);
    assert!(!share().stderr.contains("[WARN]"), "all of one group");
    chown(&private, None, Some(GROUP)).expect(ROOT_ONLY);
    for (lang, words) in [("en", "members of group 4242 cannot read all"), ("zh", "属组 4242 的成员无法读取")]
    {
        exporter.run(["state", "backup"]).expect(0);
        let told = exporter.run(["run", "--mode", "incremental", "--state-mode", "0640", "--lang", lang]).expect(0);
        assert!(told.stderr.contains(words), "{told}");
        by_reader(&exporter, &["status"]).expect(5);
        let (_, command) = told.stderr.split_once("[HINT] ").unwrap();
        assert_eq!(
            command.lines().next(),
            Some(&*RECIPE[RECIPE.find("chgrp").unwrap()..].replace("$0", private.to_str().unwrap()))
        );
    }
    // New files would get the group of the user who exports.
    follow("chgrp -R 4242 $0", &private);
    assert!(share().stderr.contains("4242"), "new files");
    follow(RECIPE, &private);
    for _ in 0..2 {
        assert!(!share().stderr.contains("[WARN]"), "after the recipe");
        exporter.run(["state", "backup"]).expect(0);
        LOOKS.iter().for_each(|args| drop(by_reader(&exporter, args).expect(0)));
    }

    let fresh = Exporter::new(&table);
    follow(RECIPE, &fresh.output().join(".export_state"));
    let first = fresh.run(["run", "--state-mode", "0640"]).expect(0);
    assert!(!first.stderr.contains("[WARN]"), "{first}");
    fresh.run(["state", "backup"]).expect(0);
    LOOKS.iter().for_each(|args| drop(by_reader(&fresh, args).expect(0)));
    let file = fresh.output().join(fresh.tree().keys().next().unwrap());
    assert_eq!(
        fs::metadata(file).unwrap().gid(),
        fs::metadata(fresh.output()).unwrap().gid(),
        "the export has its own"
    );
}

#[test]
fn during_a_run_and_after_its_death_the_group_looks_too() {
    let table = table();
    let exporter = shared(&table);
    change(&table);
    let run = spawn_held(&exporter, "renameat", 1, &FULL);
    wait_for("a run on record", || exporter.ask_one("SELECT status FROM run ORDER BY id DESC LIMIT 1") == "running");
    assert_eq!(mode(&exporter.output().join(".export_state/state.db-wal")), 0o640);
    // What was exported before is not what the source holds now.
    let assert_looks = |unsound: i32| {
        for args in LOOKS {
            let code = by_reader(&exporter, args);
            let wanted = match args[0] {
                "why" => 6,
                "state" if args[1] == "check" => unsound,
                _ => 0,
            };
            code.expect(wanted);
        }
    };
    assert_looks(0);
    let newest = |exporter| by_reader(exporter, &["history", "--format", "json"]).expect(0).json()[0].clone();
    let entry = newest(&exporter);
    assert_eq!((&entry["status"], &entry["alive"]), (&json!("running"), &json!(true)));
    // Its files and its records disagree now.
    let refused = by_reader(&exporter, &["verify", "--lock-wait", "1s"]).expect(4);
    assert!(refused.stderr.contains("full run, pid"), "{refused}");
    run.go_on();
    run.wait().expect(0);

    table.execute("UPDATE t_invoice SET fext_field = '{\"version\": 3}'");
    assert!(run_with(&exporter, "renameat:signal=KILL:when=1", &FULL).was_killed());
    let entry = newest(&exporter);
    assert_eq!((&entry["status"], &entry["alive"]), (&json!("running"), &json!(false)));
    assert_looks(6);
    by_reader(&exporter, &["verify"]).expect(0);
    exporter.run(FULL).expect(0);
    exporter.assert_agrees();
}

#[test]
fn the_mode_is_that_of_state_log_backups_and_lock_and_stays() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    exporter.run(["state", "backup"]).expect(0);
    assert_eq!(modes(&exporter)[0], [0o600], "by default the owner alone");
    let private = exporter.output().join(".export_state");
    for folder in [private.clone(), private.join("backups")] {
        fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
    }
    exporter.run(["run", "--state-mode", "0640"]).expect(0);
    let shared = [vec![0o640], vec![0o750, 0o750]];
    assert_eq!(modes(&exporter), shared);
    // Later commands do not say it, whatever their umask.
    let backup = fs::read_dir(private.join("backups")).unwrap().next().unwrap().unwrap().path();
    for args in [
        &["state", "backup"][..],
        &["state", "reset", "--all", "--yes"],
        &["state", "restore", backup.to_str().unwrap(), "--yes"],
        &INCREMENTAL,
        &["verify"],
    ] {
        let script = format!("umask 077; exec {} \"$@\"", env!("CARGO_BIN_EXE_invoice-export"));
        let plain = exporter.command(args);
        let mut command = Command::new("sh");
        command.args(["-c", &script, "-"]).args(plain.get_args()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Running::new(&mut command).wait().expect(0);
        assert_eq!(modes(&exporter), shared, "{args:?}");
    }
    // A state that is set aside or lost takes nothing with it.
    exporter.run(["run", "--fresh"]).expect(0);
    assert_eq!(modes(&exporter), shared, "--fresh");
    fs::remove_file(exporter.state()).unwrap();
    exporter.run(FULL).expect(0);
    assert_eq!(modes(&exporter), shared, "a state that was lost");
    exporter.run(["run", "--state-mode", "0600"]).expect(0);
    assert_eq!(modes(&exporter)[0], [0o600]);
    let wrong = exporter.run(["run", "--state-mode", "0660"]).expect(2);
    assert!(wrong.stderr.contains("0640"), "{wrong}");
}

#[test]
fn by_default_no_other_user_looks_or_keeps_a_run_from_its_lock() {
    let table = table();
    let exporter = with_group(Exporter::new(&table));
    let private = exporter.output().join(".export_state");
    fs::set_permissions(&private, Permissions::from_mode(0o2755)).unwrap();
    exporter.run(INCREMENTAL).expect(0);
    for args in LOOKS.into_iter().filter(|args| args[1..] != ["backups"]).chain(VERIFICATIONS) {
        let refused = by_reader(&exporter, args);
        assert!(refused.status.code() != Some(0) && refused.stderr.contains("belongs to another user"), "{refused}");
        let hint = refused.last_error();
        assert!(
            hint.contains("--state-mode 0640") && !hint.contains("write to it"),
            "a reader is not to write: {refused}"
        );
    }
    assert_eq!(mode(&private.join("lock")), 0o600, "whoever may open it may share it, and runs wait");
}
