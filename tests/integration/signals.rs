//! A signal stops a run at a clean checkpoint, soon, whatever it is waiting for; a second one at once.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::exporter::{Exporter, Running, numbers, under};
use crate::support::server::{Server, has_ended};
use crate::support::table::{Table, on_every_flavor, on_every_source};
use crate::support::wait_for;

const TENANTS: &str = "1:0.6,10:0.3,89:0.1";
/// When the first files are published, a run has decided 5,000 rows at most and read 5,000 more.
const MORE_THAN_IS_READ_AHEAD: u32 = 14_000;

/// Whoever runs the tests may ignore signals, as `nohup` does, and what is ignored is inherited.
const DEFAULT_SIGNALS: [&str; 2] = ["env", "--default-signal=HUP,INT,TERM"];

fn spawn(exporter: &Exporter<'_>, args: &[&str]) -> Running {
    Running::new(&mut under(exporter, Command::new(DEFAULT_SIGNALS[0]).arg(DEFAULT_SIGNALS[1]), args))
}

/// Waits until files are published: the run is in the middle of its work.
fn wait_for_files(exporter: &Exporter<'_>) {
    wait_for("a published file", || {
        let entries = std::fs::read_dir(exporter.output()).into_iter().flatten();
        entries.filter_map(Result::ok).any(|entry| entry.file_name() != ".export_state")
    });
}

#[test]
fn a_cancelled_run_ends_at_a_checkpoint_and_the_next_one_goes_on_from_there() {
    on_every_source(|table| {
        table.load_sample(4_000, 1, TENANTS);
        is_cancelled_and_goes_on(table, Signal::INT, 130, "SIGINT");
    });
}

#[test]
fn each_signal_that_cancels_has_its_exit_code() {
    let table = Table::embedded();
    table.load_sample(4_000, 1, TENANTS);
    is_cancelled_and_goes_on(&table, Signal::TERM, 143, "SIGTERM");
    is_cancelled_and_goes_on(&table, Signal::HUP, 129, "SIGHUP");
}

fn is_cancelled_and_goes_on(table: &Table, signal: Signal, code: i32, name: &str) {
    let exporter = Exporter::new(table);
    let run = spawn(&exporter, &["run", "--mode", "incremental", "--writers", "1"]);
    wait_for_files(&exporter);
    run.signal(signal);
    let cancelled = run.wait().expect(code);
    assert!(cancelled.last_error().contains(name), "{cancelled}");
    assert_eq!(exporter.ask("SELECT status FROM run"), ["cancelled"]);
    // What is on disk is on record, and nothing else is left.
    exporter.assert_state_is_sound();
    let before = exporter.stamps();
    assert!(!before.is_empty() && exporter.ask("SELECT * FROM doubt_path").is_empty());
    let summary = exporter.run(["run", "--mode", "incremental", "--format", "json"]).expect(0).json();
    assert!(numbers(&summary, ["written"])[0] > 0, "it was not cancelled in the middle: {summary}");
    let after = exporter.stamps();
    assert!(before.iter().all(|(path, stamp)| after.get(path) == Some(stamp)), "a recorded file was written again");
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

fn stopped(server: &Server, signal: Signal) {
    let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_run_that_waits_for_a_server_that_says_nothing_is_cancelled_all_the_same() {
    on_every_flavor(|flavor| {
        let server = Server::fresh(flavor);
        let table = Table::on(&server);
        table.load_sample(MORE_THAN_IS_READ_AHEAD, 1, TENANTS);
        let exporter = Exporter::new(&table);
        let run = spawn(&exporter, &["run", "--format", "json"]);
        wait_for_files(&exporter);
        stopped(&server, Signal::STOP);
        run.signal(Signal::TERM);
        let cancelled = run.wait();
        stopped(&server, Signal::CONT);
        let cancelled = cancelled.expect(143);
        assert_eq!(cancelled.json()["exit_code"], 143);
        assert_eq!(exporter.ask("SELECT status FROM run"), ["cancelled"]);
        exporter.assert_state_is_sound();
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_run_that_pauses_before_it_tries_again_is_cancelled_at_once() {
    on_every_flavor(|flavor| {
        let mut server = Server::fresh(flavor);
        let table = Table::on(&server);
        table.load_sample(MORE_THAN_IS_READ_AHEAD, 1, TENANTS);
        let exporter = Exporter::new(&table);
        let run = spawn(&exporter, &["run", "--mode", "full"]);
        wait_for_files(&exporter);
        server.kill();
        run.signal(Signal::INT);
        run.wait().expect(130);
        assert_eq!(exporter.ask("SELECT status FROM run"), ["cancelled"]);
        server.restart();
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_second_signal_ends_a_run_at_once_though_it_waits_for_the_disk() {
    let table = Table::embedded();
    table.load_sample(2_000, 1, TENANTS);
    let exporter = Exporter::new(&table);
    // -D: what is signalled and waited for is the exporter.
    let slow = ["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=syncfs", "-e", "inject=syncfs:delay_enter=60000000"];
    let run = Running::new(&mut under(&exporter, Command::new("strace").args(slow).args(DEFAULT_SIGNALS), &["run"]));
    let list = exporter.output().join(".export_state/staging/targets-0");
    wait_for("a batch to be synced", || list.exists());
    let tracer = run.tracer();
    run.signal(Signal::TERM);
    run.signal(Signal::INT);
    wait_for("the end of the run", || has_ended(run.pid()));
    // The tracer keeps the thread that it delays, and with it the process, for as long as its delay takes.
    let _ = kill_process(tracer, Signal::KILL);
    let ended = run.wait();
    assert!(matches!(ended.status.code(), Some(130 | 143)), "{ended}");
    assert_eq!(exporter.ask("SELECT status FROM run"), ["running"]);
    exporter.run(["run"]).expect(0);
    assert_eq!(exporter.ask("SELECT status FROM run ORDER BY id"), ["interrupted", "success"]);
    exporter.assert_agrees();
}

#[test]
fn a_signal_that_whoever_started_the_run_ignores_is_ignored() {
    let table = Table::embedded();
    table.load_sample(6_000, 1, TENANTS);
    let exporter = Exporter::new(&table);
    let plain = exporter.command(["run", "--format", "json"]);
    let mut nohup = Command::new("nohup");
    nohup.arg(plain.get_program()).args(plain.get_args()).env_clear();
    nohup.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let run = Running::new(&mut nohup);
    wait_for_files(&exporter);
    run.signal(Signal::HUP);
    run.wait().expect(0);
    exporter.assert_agrees();
}
