//! Whether a run without an end is at work: the lock says so, in any container, and not the process id.

use std::fs::{self, File};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::history::{history, table};
use crate::support::disk::Fuse;
use crate::support::exporter::{Exporter, Finished, Running, run_with, spawn_held, under};
use crate::support::scene::{FULL, INCREMENTAL};
use crate::support::state::meddle;
use crate::support::table::Table;
use crate::support::wait_for;

const KILLED: &str = "renameat:signal=KILL:when=1";

/// An export, and a change that the next run publishes.
fn exported(table: &Table) -> Exporter<'_> {
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(0);
    change(table, "{}");
    exporter
}

fn change(table: &Table, document: &str) {
    let time = table.ago(Duration::from_secs(600));
    table.execute(&format!("UPDATE t_invoice SET fext_field = '{document}', fupdate_time = '{time}'"));
}

/// In a container of its own: with other process ids, and under another name of the machine.
fn contained(exporter: &Exporter<'_>, program: &[&str], args: &[&str]) -> Finished {
    let container = ["--pid", "--fork", "--mount-proc", "--uts", "sh", "-c", "hostname inside; exec \"$@\"", "-"];
    Running::new(&mut under(exporter, Command::new("unshare").args(container).args(program), args)).wait()
}

fn newest(listed: &Finished) -> Value {
    listed.json()[0].clone()
}

fn at_work(exporter: &Exporter<'_>) -> Running {
    let run = spawn_held(exporter, "renameat", 1, &FULL);
    wait_for("a run on record", || exporter.ask_one("SELECT status FROM run ORDER BY id DESC LIMIT 1") == "running");
    run
}

#[test]
fn a_run_that_died_in_a_container_is_dead_also_where_its_process_id_lives() {
    let table = table();
    let exporter = exported(&table);
    let inject = format!("inject={KILLED}");
    contained(&exporter, &["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat", "-e", &inject], &FULL);
    // A container names its first process 1, which lives on every machine; some have the name of the machine too.
    meddle(&exporter.state(), "UPDATE run SET pid = 1, host = '' WHERE id = 2");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    meddle(&exporter.state(), &format!("UPDATE run SET host = '{host}' WHERE id = 2"));
    let entry = &history(&exporter, &[])[0];
    assert_eq!((&entry["id"], &entry["status"], &entry["alive"]), (&json!("2"), &json!("running"), &json!(false)));
    let status = exporter.run(["status"]).expect(0);
    assert!(status.stderr.contains("[WARN] run 2 (full)") && status.stderr.contains("died"), "{status}");
    assert_eq!(history(&exporter, &["last-failed"])["id"], "2");
    assert!(exporter.run(["state", "check"]).expect(6).stdout.contains("run 2 (full) died"));
}

#[test]
fn a_run_at_work_is_alive_seen_from_any_container() {
    let table = table();
    let exporter = exported(&table);
    let run = at_work(&exporter);
    for entry in [
        newest(&exporter.run(["history", "--format", "json"])),
        newest(&contained(&exporter, &[], &["history", "--format", "json"])),
    ] {
        assert_eq!((&entry["id"], &entry["alive"]), (&json!("2"), &json!(true)), "{entry}");
        assert!(entry["duration_seconds"].is_number(), "{entry}");
    }
    let status = contained(&exporter, &[], &["status"]).expect(0);
    assert!(status.stderr.contains("is at work"), "{status}");
    exporter.run(["state", "check"]).expect(0);
    run.go_on();
    run.wait().expect(0);
    assert_eq!(history(&exporter, &[])[0]["alive"], Value::Null);
}

#[test]
fn a_run_that_died_stays_dead_while_another_command_holds_the_lock() {
    let table = table();
    let exporter = exported(&table);
    assert!(run_with(&exporter, KILLED, &FULL).was_killed());
    let reset = spawn_held(&exporter, "fsync", 1, &["state", "reset", "--all", "--yes"]);
    let owner = exporter.output().join(".export_state/.export.lock/owner");
    let is_its = || fs::read_to_string(&owner).is_ok_and(|owner| owner.contains("reset"));
    wait_for("the other command has the lock", is_its);
    assert_eq!(history(&exporter, &[])[0]["alive"], false);
    reset.go_on();
    reset.wait().expect(0);
}

#[test]
fn where_the_lock_cannot_be_asked_it_is_not_known_whether_a_run_is_alive() {
    let table = table();
    let exporter = exported(&table);
    assert!(run_with(&exporter, KILLED, &FULL).was_killed());
    let lock = exporter.output().join(".export_state/lock");
    let assert_unknown = |listed: &Exporter<'_>| {
        let entry = &history(listed, &[])[0];
        assert_eq!((&entry["id"], &entry["alive"]), (&json!("2"), &Value::Null));
        let status = listed.run(["status"]).expect(0);
        assert!(status.stderr.contains("has not ended, and its lock cannot be asked"), "{status}");
    };
    // As another machine sees it, or one that serves files by FUSE: there the lock may be another one.
    let seen = tempfile::tempdir().unwrap();
    let _fuse = Fuse::new(&exporter.output(), seen.path());
    assert_unknown(&Exporter::new(&table).env("INVOICE_EXPORT_OUTPUT", seen.path()));
    fs::rename(&lock, lock.with_extension("away")).unwrap();
    assert_unknown(&exporter);
}

#[test]
fn to_ask_the_lock_keeps_no_run_from_it() {
    let table = table();
    let exporter = exported(&table);
    let lock = exporter.output().join(".export_state/lock");
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let file = File::open(&lock).unwrap();
                let _asked = file.lock_shared();
                thread::sleep(Duration::from_millis(3));
                drop(file);
                thread::sleep(Duration::from_millis(3));
            }
        });
        for n in 0..10 {
            change(&table, &n.to_string());
            let run = exporter.run(INCREMENTAL);
            let is_right = run.status.code() == Some(0) && !run.stderr.contains("waiting");
            is_done.store(!is_right, Ordering::Relaxed);
            assert!(is_right, "{run}");
        }
        is_done.store(true, Ordering::Relaxed);
    });
    // Who reads for longer is waited for.
    let reader = File::open(&lock).unwrap();
    reader.lock_shared().unwrap();
    let mut run = exporter.spawn(INCREMENTAL);
    run.listen_for("waiting for another run");
    drop(reader);
    run.wait().expect(0);
    exporter.run(["run", "--lock-wait", "0s"]).expect(0);
}
