//! What is refused: one line that says what to do, the documented exit code, and nothing changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::disk::Mount;
use crate::support::exporter::{Exporter, Running, run_with_at, spawn_held};
use crate::support::listing::{Traces, everything_in};
use crate::support::state::meddle;
use crate::support::table::{Row, Table};
use crate::support::wait_for;

const FULL: [&str; 3] = ["run", "--mode", "full"];
const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];

/// An exporter whose state lies in a folder of its own.
struct Apart<'a> {
    exporter: Exporter<'a>,
    folder: TempDir,
}

impl<'a> Apart<'a> {
    fn new(table: &'a Table) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let exporter = Exporter::new(table).env("INVOICE_EXPORT_STATE_DIR", folder.path());
        Self { exporter, folder }
    }

    fn exported(table: &'a Table) -> Self {
        let apart = Self::new(table);
        apart.exporter.run(INCREMENTAL).expect(0);
        apart
    }

    /// Both modes refuse with exit code 5, on record, since the state is sound.
    #[track_caller]
    fn refuses(&self, facts: &[&str]) {
        let output = self.exporter.output();
        for arguments in [FULL, INCREMENTAL] {
            assert_refused_on_record(&self.exporter, &arguments, &[&output, self.folder.path()], 5, facts);
        }
    }
}

fn table() -> Table {
    let table = Table::embedded();
    table.insert(&Row::default());
    table.insert(&Row { id: 2, tenant: "10", ..Row::default() });
    table
}

fn exported(table: &Table) -> Exporter<'_> {
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(0);
    exporter
}

/// In English with all these facts, in Chinese with the first one, which is where it happened; and in
/// neither case anything in these folders is touched.
#[track_caller]
fn assert_refused(exporter: &Exporter<'_>, arguments: &[&str], folders: &[&Path], code: i32, facts: &[&str]) {
    refused(exporter, arguments, folders, code, facts, Traces::OfTheLock);
}

/// As `assert_refused`, and nothing in these folders is touched but for two runs more in the history, with the error.
#[track_caller]
fn assert_refused_on_record(exporter: &Exporter<'_>, arguments: &[&str], folders: &[&Path], code: i32, facts: &[&str]) {
    let runs = exporter.ask("SELECT id FROM run").len();
    refused(exporter, arguments, folders, code, facts, Traces::OfARecord);
    let failed =
        exporter.ask("SELECT error FROM run WHERE status = 'failed' AND boundary IS NULL ORDER BY id DESC LIMIT 2");
    assert_eq!(exporter.ask("SELECT id FROM run").len(), runs + 2, "{failed:?}");
    assert!(failed.iter().all(|error| facts.iter().all(|fact| error.contains(fact))), "{failed:?}");
}

#[track_caller]
fn refused(exporter: &Exporter<'_>, arguments: &[&str], folders: &[&Path], code: i32, facts: &[&str], allowed: Traces) {
    let before = everything_in(folders, allowed);
    let english = exporter.run(arguments.iter().chain(&["--lang", "en"])).expect(code);
    for fact in facts {
        assert!(english.error().contains(fact), "{fact:?} is missing: {english}");
    }
    assert_eq!(english.stdout, "", "{english}");
    assert_eq!(everything_in(folders, allowed), before, "{english}");
    let chinese = exporter.run(arguments.iter().chain(&["--lang", "zh"])).expect(code);
    let is_chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    assert!(chinese.error().contains(facts[0]) && chinese.error().contains(is_chinese), "{chinese}");
    assert_eq!(everything_in(folders, allowed), before, "{chinese}");
}

/// As `assert_refused`, for an output beside its state.
#[track_caller]
fn assert_state_refused(exporter: &Exporter<'_>, arguments: &[&str], facts: &[&str]) {
    let state = exporter.state().display().to_string();
    let facts: Vec<&str> = [state.as_str()].into_iter().chain(facts.iter().copied()).collect();
    assert_refused(exporter, arguments, &[&exporter.output()], 5, &facts);
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn an_empty_folder_in_place_of_the_output_is_not_filled() {
    let table = table();
    let apart = Apart::exported(&table);
    let output = apart.exporter.output();
    fs::remove_dir_all(&output).unwrap();
    fs::create_dir(&output).unwrap();
    apart.refuses(&[&shown(&output), "not mounted", "--output", "run --fresh"]);
    // Nor is one made where there is none.
    fs::remove_dir(&output).unwrap();
    apart.refuses(&[&shown(&output), "not mounted", "--output", "run --fresh"]);
    assert!(!output.exists());
}

#[test]
fn a_tree_with_the_mark_of_another_state_is_left_alone() {
    let table = table();
    let (one, other) = (Apart::exported(&table), Apart::exported(&table));
    fs::remove_dir_all(other.exporter.output()).unwrap();
    copy(&one.exporter.output(), &other.exporter.output());
    other.refuses(&[&shown(&other.exporter.output()), "another state", "--state-dir", "run --fresh"]);
}

#[test]
fn a_tree_that_was_rolled_back_is_left_alone() {
    let table = table();
    let apart = Apart::exported(&table);
    let output = apart.exporter.output();
    let backup = tempfile::tempdir().unwrap();
    copy(&output, &backup.path().join("older"));
    table.execute("UPDATE t_invoice SET fext_field = '{}' WHERE fid = 1");
    apart.exporter.run(FULL).expect(0);
    fs::remove_dir_all(&output).unwrap();
    copy(&backup.path().join("older"), &output);
    apart.refuses(&[&shown(&output), "run 1", "run 2", "restore the newer tree", "--adopt-tree"]);
    // As the message says; the tree of before is left for the other way.
    apart.exporter.run(["state", "backup"]).expect(0);
    apart.exporter.run(["state", "restore", "latest", "--adopt-tree", "--yes"]).expect(0);
    apart.exporter.run(INCREMENTAL).expect(0);
    apart.exporter.assert_agrees();
    let runs = apart.exporter.ask("SELECT id FROM run ORDER BY id");
    assert!(runs.len() >= 2 && runs[0] == "1", "{runs:?}");
    apart.exporter.run(["run", "--fresh"]).expect(0);
    apart.exporter.assert_agrees();
}

#[test]
fn a_tree_that_was_copied_in_mid_run_is_left_alone_once_that_run_has_ended() {
    let table = Table::embedded();
    table.load_sample(1_500, 1, "1:1.0");
    let apart = Apart::new(&table);
    let output = apart.exporter.output();
    let backup = tempfile::tempdir().unwrap();
    // In the second batch, the first one is recorded meanwhile.
    let run = spawn_held(&apart.exporter, "linkat", 1100, &FULL);
    let state = apart.folder.path().join("state.db");
    wait_for("a recorded batch", || state.exists() && !apart.exporter.ask("SELECT id FROM ledger").is_empty());
    copy(&output, &backup.path().join("part"));
    run.go_on();
    run.wait().expect(0);
    let whole = apart.exporter.tree();
    copy(&output, &backup.path().join("whole"));
    fs::remove_dir_all(&output).unwrap();
    copy(&backup.path().join("part"), &output);
    assert!(apart.exporter.tree().len() < whole.len());
    for mode in [FULL, INCREMENTAL] {
        let refused = apart.exporter.run(mode).expect(5);
        assert!(refused.stderr.contains("run 1 still wrote to it\n[HINT] bring back"), "{refused}");
    }
    let found = apart.exporter.run(["state", "check"]).expect(6);
    assert!(found.stdout.contains("run 1 still wrote to it"), "{found}");
    fs::remove_dir_all(&output).unwrap();
    copy(&backup.path().join("whole"), &output);
    apart.exporter.run(INCREMENTAL).expect(0);
    apart.exporter.assert_agrees();
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn what_is_no_state_is_neither_used_nor_overwritten() {
    let table = table();
    let text = "1|2025-11-28 16:30:00\n".repeat(20);
    let cases: [(&str, &str, &str); 3] = [
        ("", "0 bytes", "只有 0 字节"),
        ("1|2025-11-28 16:30:00\n", "22 bytes", "只有 22 字节"),
        (&text, "not an SQLite file", "不是 SQLite 文件"),
    ];
    for (content, why, in_chinese) in cases {
        let exporter = exported(&table);
        fs::write(exporter.state(), content).unwrap();
        for arguments in [FULL, INCREMENTAL] {
            assert_state_refused(&exporter, &arguments, &[why, "nothing was changed", "backup", "run --fresh"]);
        }
        let chinese = exporter.run(["run", "--lang", "zh"]).expect(5);
        assert!(chinese.error().contains(in_chinese), "{chinese}");
    }
    let exporter = exported(&table);
    fs::remove_file(exporter.state()).unwrap();
    meddle(&exporter.state(), "CREATE TABLE notes (text); PRAGMA user_version = 1;");
    for arguments in [FULL, INCREMENTAL] {
        assert_state_refused(&exporter, &arguments, &["another program", "backup", "run --fresh"]);
    }
}

#[test]
fn the_state_of_a_newer_program_is_left_to_it() {
    let table = table();
    let exporter = exported(&table);
    meddle(&exporter.state(), "PRAGMA user_version = 4711");
    assert_state_refused(&exporter, &FULL, &["4711", "use the newer program"]);
    assert_state_refused(&exporter, &["run", "--dry-run"], &["4711", "use the newer program"]);
}

#[test]
fn another_source_does_not_get_into_the_same_tree() {
    let (table, other) = (table(), self::table());
    let exporter = exported(&table).env("INVOICE_EXPORT_SOURCE", other.url());
    let facts = [&table.url() as &str, &other.url(), "--output"];
    assert_state_refused(&exporter, &FULL, &facts);
    assert_state_refused(&exporter, &INCREMENTAL, &facts);
}

#[test]
fn an_incremental_run_does_not_guess_what_a_tree_without_a_state_holds() {
    let table = table();
    let exporter = Exporter::new(&table);
    let folder = exporter.output().join("1/CN");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("20251128+INV001.json"), "{}").unwrap();
    let facts = [shown(&exporter.output()), "run --mode full".to_owned(), "run --fresh".to_owned()];
    let facts: Vec<&str> = facts.iter().map(String::as_str).collect();
    assert_state_refused(&exporter, &INCREMENTAL, &facts);
    assert_state_refused(&exporter, &["run", "--since", "2025-11-01"], &facts);
    assert!(!exporter.output().join(".export_state").exists());
    // As the message says.
    exporter.run(FULL).expect(0);
    exporter.assert_agrees();
}

#[test]
fn an_incremental_run_does_not_start_anew_where_the_state_was_deleted() {
    let table = table();
    let exporter = exported(&table);
    fs::remove_file(exporter.state()).unwrap();
    assert_state_refused(&exporter, &INCREMENTAL, &["there is no state", "run --mode full", "run --fresh"]);
    // The mark alone is enough.
    for tenant in ["1", "10"] {
        fs::remove_dir_all(exporter.output().join(tenant)).unwrap();
    }
    assert_state_refused(&exporter, &INCREMENTAL, &["there is no state", "run --mode full", "run --fresh"]);
}

#[test]
fn a_state_that_must_be_there_is_not_made() {
    let table = table();
    let exporter = Exporter::new(&table);
    for mode in ["full", "incremental"] {
        assert_state_refused(&exporter, &["run", "--mode", mode, "--require-state"], &["--require-state", "--output"]);
        assert!(!exporter.output().exists());
    }
    let apart = Apart::new(&table);
    let output = apart.exporter.output();
    let folders: [&Path; 2] = [&output, apart.folder.path()];
    let state = shown(&apart.folder.path().join("state.db"));
    assert_refused(&apart.exporter, &["run", "--require-state"], &folders, 5, &[&state, "--state-dir"]);
    assert!(!output.exists() && fs::read_dir(apart.folder.path()).unwrap().next().is_none());
}

#[test]
fn wrong_usage_is_said_before_anything_is_done() {
    let table = table();
    let exporter = exported(&table);
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--since", "2025-11-01", "--mode", "full"], &["--since", "--mode"]),
        (&["--until", "2025-11-01", "--mode", "incremental"], &["--until", "--mode"]),
        (&["--since", "2025-11-02", "--until", "2025-11-01"], &["--since", "--until", "not before"]),
        (&["--since", "tomorrow"], &["\"tomorrow\"", "2025-11-28 10:00:00"]),
        (&["--until", "2025-02-30"], &["\"2025-02-30\"", "2025-11-28 10:00:00"]),
    ];
    for (arguments, facts) in cases {
        let arguments: Vec<&str> = ["run"].iter().chain(arguments).copied().collect();
        assert_refused(&exporter, &arguments, &[&exporter.output()], 2, facts);
        let nowhere = Exporter::new(&table);
        assert_refused(&nowhere, &arguments, &[&nowhere.output()], 2, facts);
        assert!(!nowhere.output().exists(), "{arguments:?} made an output");
    }
}

#[test]
fn an_unknown_tenant_is_refused_on_record() {
    let table = table();
    let (exporter, nowhere) = (exported(&table), Exporter::new(&table));
    let (unknown, facts) = (["run", "--tenant", "Nobody"], ["\"Nobody\"", "check the spelling"]);
    assert_refused_on_record(&exporter, &unknown, &[&exporter.output()], 2, &facts);
    assert_refused(&nowhere, &unknown, &[&nowhere.output()], 2, &facts);
    assert!(!nowhere.output().exists());
}

#[test]
fn a_password_on_the_command_line_is_refused_where_no_source_is_asked_too() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    exporter.run(["run"]).expect(0);
    exporter.run(["state", "backup"]).expect(0);
    let source = "mysql://reader:S3cret@127.0.0.1:1/invoices";
    for args in [&["state", "reset", "--all", "--yes"][..], &["state", "restore", "latest", "--yes"]] {
        let refused = exporter.run(args.iter().copied().chain(["--source", source])).expect(2);
        assert!(!refused.stderr.contains("S3cret"), "{refused}");
        assert_eq!(exporter.ask("SELECT command_line FROM state_change"), [""; 0]);
    }
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    let table = table();
    let exporter = Exporter::new(&table);
    for lang in ["en", "zh"] {
        let source = "mysql://root:s3cr%40t@127.0.0.1:1/shop";
        let refused = exporter.run(["run", "--lang", lang, "--source", source]).expect(2);
        assert!(refused.error().contains("--password-file") && refused.error().contains("MYSQL_PWD"), "{refused}");
        assert!(!format!("{refused}").contains("s3cr"), "{refused}");
        assert!(!exporter.output().exists());
    }
}

#[test]
fn a_password_with_a_sign_that_ends_it_early_is_refused_and_not_repeated() {
    let table = table();
    for password in ["12#s3cret", "s3cr#et", "12/s3cret", "12?s3cret", "12#s3cret@"] {
        let source = format!("mysql://reader:{password}@127.0.0.1:1/shop");
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", &source);
        for lang in ["en", "zh"] {
            let refused = exporter.run(["run", "--lang", lang]).expect(2);
            assert!(refused.error().contains("%23") && refused.error().contains("%2F"), "{refused}");
            assert!(!format!("{refused}").contains("s3cr"), "{refused}");
            assert!(!exporter.output().exists());
        }
    }
}

#[test]
fn a_run_without_a_source_says_how_to_name_one() {
    let table = table();
    let exporter = Exporter::new(&table);
    for lang in ["en", "zh"] {
        let mut command = exporter.command(["run", "--lang", lang]);
        let refused = Running::new(command.env_remove("INVOICE_EXPORT_SOURCE")).wait().expect(2);
        assert!(refused.error().contains("--source") && refused.error().contains("mysql://"), "{refused}");
        assert!(!exporter.output().exists());
    }
}

#[test]
fn a_read_only_output_fails_the_run_with_a_remedy_and_can_still_be_looked_at() {
    let table = table();
    let exporter = Exporter::new(&table);
    let mount = Mount::memory(&exporter.output(), "size=16m");
    exporter.run(FULL).expect(0);
    table.insert(&Row { id: 3, number: "INV003", ..Row::default() });
    mount.again("ro");
    let output = shown(&exporter.output());
    for arguments in [FULL, INCREMENTAL] {
        assert_refused(&exporter, &arguments, &[&exporter.output()], 1, &[&output, "mount it writable"]);
    }
    exporter.run(["run", "--dry-run"]).expect(0);
    mount.again("rw");
    exporter.run(FULL).expect(0);
    exporter.assert_agrees();
}

#[test]
fn a_full_disk_fails_the_run_with_a_remedy_and_a_larger_one_makes_it_good() {
    let table = Table::embedded();
    table.load_sample(600, 1, "1:0.6,10:0.4");
    // It is full while the state is made or opened, when the run is entered, and while files are staged.
    for size in ["60k", "110k", "120k", "132k", "200k", "450k", "900k"] {
        let exporter = Exporter::new(&table);
        let mount = Mount::memory(&exporter.output(), &format!("size={size}"));
        for (lang, remedy) in [("en", "free some space"), ("zh", "请释放磁盘空间")] {
            let failed = exporter.run(["run", "--lang", lang]).expect(1);
            assert!(failed.error().contains(remedy), "with {size}: {failed}");
        }
        mount.again("size=64m");
        exporter.run(FULL).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    }
}

#[test]
fn the_state_of_another_user_is_left_to_that_user() {
    let table = table();
    let exporter = exported(&table);
    std::os::unix::fs::chown(exporter.state(), Some(65_534), None)
        .expect("this test gives a file to another user, which needs root");
    assert_state_refused(&exporter, &FULL, &["another user", "chown"]);
    assert_state_refused(&exporter, &INCREMENTAL, &["another user", "chown"]);
    assert_eq!(fs::metadata(exporter.state()).unwrap().uid(), 65_534);
}

#[test]
fn a_state_on_a_network_file_system_is_refused_and_a_local_folder_is_the_way_out() {
    let table = table();
    let exporter = Exporter::new(&table);
    // The folder of the state is said to lie on NFS.
    let run = |exporter: &Exporter<'_>| run_with_at(exporter, ".export_state", "fstatfs:poke_exit=@arg2=6969", &FULL);
    let refused = run(&exporter).expect(5);
    assert!(refused.stderr.contains("a network file system") && refused.stderr.contains("--state-dir"), "{refused}");
    assert!(!exporter.state().exists() && exporter.tree().is_empty());
    let local = tempfile::tempdir().unwrap();
    let exporter = exporter.env("INVOICE_EXPORT_STATE_DIR", local.path());
    run(&exporter).expect(0);
    exporter.assert_agrees();
}

#[test]
fn a_fresh_start_keeps_the_old_state_under_another_name_and_the_files_as_they_are() {
    let table = table();
    let exporter = exported(&table);
    let before = exporter.stamps();
    fs::write(exporter.state(), "").unwrap();
    let inode = fs::metadata(exporter.state()).unwrap().ino();
    exporter.run(INCREMENTAL).expect(5);
    let fresh = exporter.run(["run", "--mode", "incremental", "--fresh"]).expect(0);
    let folder = fs::read_dir(exporter.output().join(".export_state")).unwrap();
    let aside: Vec<PathBuf> =
        folder.map(|entry| entry.unwrap().path()).filter(|path| shown(path).contains("state.db.")).collect();
    assert!(matches!(&aside[..], [path] if fresh.stderr.contains(&shown(path))), "{aside:?}: {fresh}");
    let kept = fs::metadata(&aside[0]).unwrap();
    assert_eq!((kept.ino(), kept.len()), (inode, 0));
    assert_eq!(exporter.stamps(), before);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
    assert_eq!(exporter.ask("SELECT written, unchanged FROM run"), ["0 2"]);
    Connection::open(exporter.state()).unwrap();
}
