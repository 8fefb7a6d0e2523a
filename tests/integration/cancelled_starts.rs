//! Starts and verifications that a signal ends: on record as cancelled, and with an error that says so.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::history::{INCREMENTAL, MINUTE};
use crate::support::exporter::{Exporter, Finished, Running, spawn_held, spawn_held_at};
use crate::support::server::Server;
use crate::support::state::meddle;
use crate::support::table::{Row, Table, on_every_flavor};
use crate::support::wait_for;

const JSON: [&str; 2] = ["--format", "json"];

/// An exporter that has exported one invoice.
fn exported(table: &Table) -> Exporter<'_> {
    table.insert(&Row { time: &table.ago(50 * MINUTE), ..Row::default() });
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(0);
    exporter
}

/// Waits until it asks a server.
fn wait_for_connection(run: &Running) {
    wait_for("a connection to the server", || {
        let open = fs::read_dir(format!("/proc/{}/fd", run.pid().as_raw_pid())).into_iter().flatten().flatten();
        let mut targets = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        targets.any(|target| target.to_string_lossy().starts_with("socket:"))
    });
}

/// The newest run is this one, was cancelled, and whatever tells of runs says so.
#[track_caller]
fn assert_cancelled(exporter: &Exporter<'_>, ended: &Finished, kind: &str) {
    assert_eq!(ended.status.code(), Some(143), "{ended}");
    assert_eq!(ended.json()["exit_code"], 143, "{ended}");
    let newest = exporter.run([&["history", "last"][..], &JSON].concat()).expect(0).json();
    assert_eq!(
        (&newest["kind"], &newest["status"], &newest["seen"]),
        (&json!(kind), &json!("cancelled"), &json!(0)),
        "{newest}"
    );
    assert!(newest["error"].as_str().unwrap().contains("SIGTERM") && newest["finished"].is_string(), "{newest}");
    if kind != "verify" {
        for (lang, words) in [("en", "last attempt was cancelled: run "), ("zh", "最近一次导出被取消: 运行 ")]
        {
            let status = exporter.run(["status", "--source", "", "--lang", lang]).expect(0);
            assert!(status.stderr.contains(words), "{status}");
        }
    }
}

#[test]
fn a_start_that_is_cancelled_while_the_server_is_down_is_on_record() {
    let table = Table::embedded();
    let mut exporter = exported(&table);
    meddle(&exporter.state(), "UPDATE meta SET source = 'mysql://127.0.0.1:1/down.t_invoice'");
    exporter.set("INVOICE_EXPORT_SOURCE", "mysql://reader@127.0.0.1:1/down");
    for (args, kind) in [(&INCREMENTAL[..], "incremental"), (&["verify", "--against-source"], "verify")] {
        let mut run = exporter.spawn([args, &JSON].concat());
        run.listen_for("again");
        run.signal(Signal::TERM);
        let ended = run.wait();
        assert_cancelled(&exporter, &ended, kind);
        assert!(ended.error().contains("SIGTERM"), "{ended}");
    }
}

#[test]
fn a_start_that_is_cancelled_while_the_server_says_nothing_is_on_record() {
    on_every_flavor(|flavor| {
        let server = Server::fresh(flavor);
        let table = Table::on(&server);
        let exporter = exported(&table);
        let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).unwrap();
        for (args, kind) in [
            (&INCREMENTAL[..], "incremental"),
            (&["run", "--since", "2d"], "backfill"),
            (&["verify", "--against-source"], "verify"),
        ] {
            kill_process(pid, Signal::STOP).unwrap();
            let run = exporter.spawn([args, &JSON].concat());
            wait_for_connection(&run);
            run.signal(Signal::TERM);
            let ended = run.wait();
            kill_process(pid, Signal::CONT).unwrap();
            assert_cancelled(&exporter, &ended, kind);
        }
        exporter.run(INCREMENTAL).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

#[test]
fn a_start_that_is_cancelled_while_the_table_is_locked_is_on_record() {
    on_every_flavor(|flavor| {
        let server = Server::fresh(flavor);
        let table = Table::on(&server);
        let exporter = exported(&table);
        let mut holder = mysql::Conn::new(table.url().as_str()).unwrap();
        mysql::prelude::Queryable::query_drop(&mut holder, "LOCK TABLES t_invoice WRITE").unwrap();
        let run = exporter.spawn([&INCREMENTAL[..], &JSON].concat());
        wait_for("a statement that waits for the table", || {
            let list =
                table.query("SELECT state FROM information_schema.processlist WHERE state LIKE '%metadata lock'");
            !list.is_empty()
        });
        run.signal(Signal::TERM);
        let ended = run.wait();
        drop(holder);
        assert_cancelled(&exporter, &ended, "incremental");
        exporter.run(INCREMENTAL).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_start_that_is_cancelled_while_it_waits_for_the_lock_says_that_it_is_not_on_record() {
    let table = Table::embedded();
    let exporter = exported(&table);
    table.insert(&Row { id: 2, number: "INV2", time: &table.ago(20 * MINUTE), ..Row::default() });
    let at_work = spawn_held(&exporter, "renameat", 1, &["run", "--mode", "full"]);
    wait_for("a run at work", || exporter.ask("SELECT id FROM run WHERE status = 'running'") == ["2"]);
    let mut waiting = exporter.spawn([&INCREMENTAL[..], &["--lock-wait", "1h"], &JSON].concat());
    waiting.listen_for("waiting");
    waiting.signal(Signal::TERM);
    let ended = waiting.wait();
    at_work.go_on();
    at_work.wait().expect(0);
    assert_eq!(ended.status.code(), Some(143), "{ended}");
    assert!(ended.error().contains("this start is not on record") && ended.error().contains("SIGTERM"), "{ended}");
    assert_eq!(ended.json()["exit_code"], 143, "{ended}");
}

#[test]
fn a_verification_that_is_cancelled_is_on_record_as_such() {
    let table = Table::embedded();
    let exporter = exported(&table);
    table.insert(&Row { id: 2, number: "INV2", time: &table.ago(20 * MINUTE), ..Row::default() });
    exporter.run(INCREMENTAL).expect(0);
    let names = exporter.stamps().into_keys();
    let cancelled = names.map(|path| {
        let name = path.rsplit('/').next().unwrap().to_owned();
        let run = spawn_held_at(&exporter, &name, "openat", &[&["verify", "--hash"][..], &JSON].concat());
        wait_for("a verification at work", || !exporter.ask("SELECT 1 FROM run WHERE status = 'running'").is_empty());
        run.signal(Signal::TERM);
        run.go_on();
        let ended = run.wait();
        let is_cancelled = ended.status.code() == Some(143);
        if is_cancelled {
            assert_cancelled(&exporter, &ended, "verify");
        }
        is_cancelled
    });
    // One that has looked at its last file is not cancelled.
    assert!(cancelled.collect::<Vec<_>>().contains(&true));
}

#[test]
fn a_record_of_a_start_waits_for_the_lock_of_sqlite_for_five_seconds_at_most() {
    let table = Table::embedded();
    let mut exporter = exported(&table).env("INVOICE_EXPORT_RETRY_FOR", "0s");
    exporter.set("INVOICE_EXPORT_SOURCE", table.url() + ".missing");
    meddle(&exporter.state(), &format!("UPDATE meta SET source = '{}.missing.t_invoice'", table.url()));
    let mut holder = Command::new("sqlite3")
        .arg(exporter.state())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sqlite3 is there");
    let mut orders = holder.stdin.take().unwrap();
    std::io::Write::write_all(&mut orders, b"BEGIN IMMEDIATE;\nSELECT 'held';\n").unwrap();
    let mut held = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.take().unwrap()), &mut held).unwrap();
    let start = exporter.spawn(INCREMENTAL);
    let since = Instant::now();
    // A start that goes on waiting is let go, and then is on record.
    while start.is_alive() && since.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(orders);
    holder.wait().unwrap();
    let failed = start.wait();
    let failed = failed.expect(1);
    assert!(failed.error().contains("this start is not on record"), "{failed}");
}
