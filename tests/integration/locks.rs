//! One run at a time: our own lock, the script's lock folder, and a state that two outputs share.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::exporter::{Exporter, Finished, Running, run_with};
use crate::support::table::{Row, Table};

const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];

/// A run that has its lock and waits for the state, which the test keeps for itself. It goes on as
/// soon as `state` is dropped.
struct AtWork {
    run: Running,
    state: Connection,
    owner: Value,
}

fn script_lock(output: &Path) -> PathBuf {
    output.join(".export_state/.export.lock")
}

/// An output with one invoice, exported.
fn exported(exporter: Exporter<'_>) -> Exporter<'_> {
    exporter.run(INCREMENTAL).expect(0);
    exporter
}

fn table() -> Table {
    let table = Table::embedded();
    table.insert(&Row::default());
    table
}

/// A new invoice that every later run must export.
fn arrive(table: &Table, id: i64) {
    let time = table.ago(Duration::from_secs(600));
    table.insert(&Row { id, number: &format!("INV{id}"), time: &time, ..Row::default() });
}

fn at_work(exporter: &Exporter<'_>, state: &Path) -> AtWork {
    let state = Connection::open(state).unwrap();
    state.execute_batch("BEGIN IMMEDIATE").unwrap();
    let run = exporter.spawn(INCREMENTAL);
    let owner = script_lock(&exporter.output()).join("owner");
    // The folder is moved in with its owner file; it is the last thing that a run takes.
    let owner = loop {
        if let Ok(text) = fs::read_to_string(&owner) {
            break serde_json::from_str(&text).unwrap();
        }
        assert!(run.is_alive(), "the run ended before it took its lock: {}", run.wait());
        std::thread::yield_now();
    };
    AtWork { run, state, owner }
}

impl AtWork {
    fn goes_on(self) -> Finished {
        drop(self.state);
        self.run.wait()
    }
}

#[test]
fn of_two_incremental_runs_one_works_and_the_other_says_at_once_who_holds_the_lock() {
    let table = table();
    let exporter = exported(Exporter::new(&table));
    arrive(&table, 2);
    let first = at_work(&exporter, &exporter.state());
    let second = exporter.run(INCREMENTAL).expect(4);
    assert!(first.run.is_alive(), "the second run waited for the first one");
    let lock = exporter.output().join(".export_state/lock");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let pid = first.run.pid().as_raw_pid();
    assert_eq!(first.owner["pid"], pid, "{}", first.owner);
    for fact in ["incremental", &format!("pid {pid}"), &host, &lock.display().to_string()] {
        assert!(second.error().contains(fact), "{fact} is missing: {second}");
    }
    assert!(!second.stderr.contains("waiting"), "{second}");
    first.goes_on().expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
    assert_eq!(exporter.ask_one("SELECT count(*) FROM run"), "2");
}

#[test]
fn runs_that_start_at_the_same_moment_leave_one_that_works() {
    let table = table();
    let exporter = exported(Exporter::new(&table));
    for id in 2..12 {
        arrive(&table, id);
        let runs: Vec<_> = (0..3).map(|_| exporter.spawn(INCREMENTAL)).collect();
        let mut codes: Vec<_> = runs.into_iter().map(|run| run.wait().status.code().unwrap()).collect();
        codes.sort_unstable();
        // One that comes after another has ended works too.
        assert!(codes[0] == 0 && codes.iter().all(|code| [0, 4].contains(code)), "{codes:?}");
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    }
}

#[test]
fn a_full_run_waits_for_an_incremental_one_says_so_once_and_then_works() {
    let table = table();
    let exporter = exported(Exporter::new(&table));
    let first = at_work(&exporter, &exporter.state());
    arrive(&table, 2);
    let mut full = exporter.command(["run", "--mode", "full"]);
    let mut full = full.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(full.stderr.take().unwrap()).lines().map(Result::unwrap);
    let waiting = lines.find(|line| line.contains("waiting")).expect("the full run says that it waits");
    assert!(waiting.contains(&format!("pid {}", first.run.pid().as_raw_pid())), "{waiting}");
    first.goes_on().expect(0);
    let rest: Vec<String> = lines.collect();
    assert!(full.wait().unwrap().success(), "{rest:?}");
    assert!(!rest.iter().any(|line| line.contains("waiting")), "{rest:?}");
    exporter.assert_agrees();
    assert_eq!(exporter.ask("SELECT kind, status FROM run ORDER BY id")[2], "full success");
}

#[test]
fn a_full_run_waits_no_longer_than_it_was_told() {
    let table = table();
    let exporter = exported(Exporter::new(&table));
    let first = at_work(&exporter, &exporter.state());
    let since = Instant::now();
    let full = exporter.run(["run", "--mode", "full", "--lock-wait", "1s"]).expect(4);
    assert!(since.elapsed() >= Duration::from_secs(1), "it gave up after {:?}", since.elapsed());
    assert!(first.run.is_alive() && full.error().contains("incremental"), "{full}");
    assert_eq!(full.stderr.matches("waiting").count(), 1, "{full}");
    let chinese = exporter.run(["run", "--mode", "full", "--lock-wait", "0s", "--lang", "zh"]).expect(4);
    let lock = exporter.output().join(".export_state/lock");
    let holder = format!("（增量导出，pid {}，主机 ", first.run.pid().as_raw_pid());
    for fact in ["另一个导出进程", lock.to_str().unwrap(), &holder] {
        assert!(chinese.error().contains(fact), "{fact} is missing: {chinese}");
    }
    first.goes_on().expect(0);
}

#[test]
fn nobody_is_refused_in_the_name_of_a_run_that_has_ended() {
    let table = table();
    let apart = tempfile::tempdir().unwrap();
    let exporter = exported(Exporter::new(&table).env("INVOICE_EXPORT_STATE_DIR", apart.path()));
    arrive(&table, 2);
    for folder in [exporter.output().join(".export_state"), apart.path().to_path_buf()] {
        // Of the same mode as the last run, but it has not said so yet.
        let lock = fs::File::open(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let mut run = exporter.spawn(INCREMENTAL);
        run.listen_for("waiting for another run");
        drop(lock);
        run.wait().expect(0);
    }
    exporter.assert_agrees();
}

#[test]
fn the_scripts_own_lock_folder_is_respected_and_left_as_it_is() {
    let table = table();
    let exporter = exported(Exporter::new(&table));
    let folder = script_lock(&exporter.output());
    fs::create_dir(&folder).unwrap();
    let stamp = || fs::metadata(&folder).map(|data| (data.ino(), data.mtime(), data.mtime_nsec())).unwrap();
    let (before, tree) = (stamp(), exporter.stamps());
    arrive(&table, 2);
    let shown = folder.display().to_string();
    for (lang, remedy) in [("en", "remove it"), ("zh", "请删除它")] {
        for mode in ["full", "incremental"] {
            let refused = exporter.run(["run", "--mode", mode, "--lang", lang]).expect(4);
            let text = refused.error();
            assert!(text.contains(remedy) && text.contains(&format!("rm -r '{shown}'")), "{text}");
            assert_eq!((stamp(), exporter.stamps()), (before, tree.clone()));
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        }
    }
    // As the message says.
    assert!(Command::new("sh").args(["-c", &format!("rm -r '{shown}'")]).status().unwrap().success());
    exporter.run(INCREMENTAL).expect(0);
    exporter.assert_agrees();
}

#[test]
fn the_script_cannot_make_its_lock_folder_during_a_run_and_can_afterwards() {
    let table = table();
    let exporter = exported(Exporter::new(&table));
    let folder = script_lock(&exporter.output());
    let first = at_work(&exporter, &exporter.state());
    let mkdir = || Command::new("mkdir").arg(&folder).stderr(Stdio::null()).status().unwrap().success();
    assert!(!mkdir(), "the script would have started beside the run");
    first.goes_on().expect(0);
    let private = exporter.output().join(".export_state");
    let mut left: Vec<_> = fs::read_dir(private).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["backups", "lock", "state.db"]);
    assert!(mkdir(), "the script cannot start after the run");
}

#[test]
fn a_lock_folder_that_a_killed_run_left_is_taken_back_by_the_next_run() {
    let table = table();
    let exporter = exported(Exporter::new(&table));
    let first = at_work(&exporter, &exporter.state());
    first.run.signal(Signal::KILL);
    assert!(first.goes_on().was_killed());
    assert!(script_lock(&exporter.output()).join("owner").exists());
    arrive(&table, 2);
    exporter.run(INCREMENTAL).expect(0);
    assert!(!script_lock(&exporter.output()).exists());
    exporter.assert_agrees();
}

#[test]
fn the_lock_folder_is_made_where_the_file_system_cannot_rename_without_replacing() {
    // As NFS answers.
    let cannot = "renameat2:error=EINVAL";
    let table = table();
    let exporter = Exporter::new(&table);
    let folder = script_lock(&exporter.output());
    assert!(run_with(&exporter, &format!("{cannot} linkat:signal=KILL:when=1"), &INCREMENTAL).was_killed());
    assert!(folder.join("owner").exists());
    run_with(&exporter, cannot, &INCREMENTAL).expect(0);
    exporter.assert_agrees();
    // The script's own.
    fs::create_dir(&folder).unwrap();
    run_with(&exporter, cannot, &INCREMENTAL).expect(4);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_state_that_two_outputs_share_is_locked_too() {
    let table = table();
    let folder = tempfile::tempdir().unwrap();
    let exporter = || Exporter::new(&table).env("INVOICE_EXPORT_STATE_DIR", folder.path());
    let (one, other) = (exported(exporter()), exporter());
    let state = folder.path().join("state.db");
    // With its mark, so that it passes for the tree that the state describes.
    assert!(Command::new("cp").arg("-a").args([one.output(), other.output()]).status().unwrap().success());
    let first = at_work(&one, &state);
    let lock = folder.path().join("lock").display().to_string();
    for arguments in [&INCREMENTAL[..], &["run", "--mode", "incremental", "--fresh"]] {
        let second = other.run(arguments).expect(4);
        let pid = format!("pid {}", first.run.pid().as_raw_pid());
        assert!(second.error().contains(&lock) && second.error().contains(&pid), "{second}");
        assert!(!script_lock(&other.output()).exists());
    }
    first.goes_on().expect(0);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| ["backups", "lock", "state.db"].iter().any(|ours| name == ours)), "{left:?}");
    other.run(INCREMENTAL).expect(0);
}

#[test]
fn the_time_of_the_lock_is_that_of_the_other_times() {
    let table = table();
    let exporter = exported(Exporter::new(&table).env("TZ", "Asia/Shanghai"));
    arrive(&table, 2);
    let first = at_work(&exporter, &exporter.state());
    let second = exporter.run(INCREMENTAL).expect(4);
    let utc = exporter.run([&INCREMENTAL[..], &["--utc"]].concat()).expect(4);
    let full = exporter.run(["run", "--mode", "full", "--lock-wait", "1s"]).expect(4);
    let account = first.owner["user"].as_str().unwrap().to_owned();
    first.goes_on().expect(0);
    assert!(second.error().contains(" +08:00") && !second.error().contains("Z;"), "{second}");
    assert!(second.error().contains(&format!("user {account}")), "{second}");
    assert!(!utc.error().contains("+08:00") && utc.error().contains("Z"), "{utc}");
    assert_eq!(full.stderr.matches(" +08:00").count(), 2, "in the line that it waits, and in the error: {full}");
}

#[test]
fn a_reader_that_holds_the_lock_is_named() {
    let table = table();
    let exporter = exported(Exporter::new(&table));
    let lock = exporter.output().join(".export_state/lock");
    let mut reader = std::process::Command::new("flock");
    reader.arg("-s").arg(&lock).args(["sh", "-c", "echo held; read -r _"]);
    let mut reader = reader.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(reader.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let refused = exporter.run(["run", "--mode", "incremental", "--lock-wait", "0s"]).expect(4);
    drop(reader.stdin.take());
    reader.wait().unwrap();
    let pid = format!("pid {} on ", reader.id());
    assert!(refused.error().contains(&pid) && refused.error().contains("user "), "{pid}: {refused}");
    assert!(!refused.error().contains("has not said its name"), "{refused}");
}
