//! Starts that fail: on record as runs that failed, and never the run that a later one goes by.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::history::{INCREMENTAL, MINUTE};
use crate::support::exporter::{Exporter, Finished, run_with, spawn_held};
use crate::support::listing::{Traces, everything_in};
use crate::support::server::server;
use crate::support::state::meddle;
use crate::support::table::{Row, Table, on_every_flavor};
use crate::support::wait_for;

const FULL: [&str; 3] = ["run", "--mode", "full"];

/// An exporter that has exported one invoice and gives up at once where the source does not answer.
fn exported(table: &Table) -> Exporter<'_> {
    table.insert(&Row { time: &table.ago(50 * MINUTE), ..Row::default() });
    let exporter = Exporter::new(table).env("INVOICE_EXPORT_RETRY_FOR", "0s");
    exporter.run(INCREMENTAL).expect(0);
    exporter
}

/// Lets the state belong to the source at this URL, as if its runs had been there.
fn belongs_to(exporter: &Exporter<'_>, url: &str) {
    let name = url.replace("root@", "").replace("nobody@", "");
    meddle(&exporter.state(), &format!("UPDATE meta SET source = '{name}.t_invoice'"));
}

/// The file of a source, which is not there while it has another name.
struct Hidden(String);

impl Hidden {
    fn new(table: &Table) -> Self {
        let path = table.url().strip_prefix("sqlite:").unwrap().to_owned();
        fs::rename(&path, format!("{path}.hidden")).unwrap();
        Self(path)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        fs::rename(format!("{}.hidden", self.0), &self.0).unwrap();
    }
}

/// An invoice that came later.
fn arrive(table: &Table, id: i64) {
    table.insert(&Row { id, number: &format!("INV{id}"), time: &table.ago(20 * MINUTE), ..Row::default() });
}

fn status(exporter: &Exporter<'_>) -> (Value, Finished) {
    // What the server says now does not matter here.
    let status = exporter.run(["status", "--format", "json", "--source", ""]).expect(0);
    (status.json(), status)
}

/// The newest run is this start, with the error that was said, and whatever tells of runs says so.
#[track_caller]
fn assert_on_record(exporter: &Exporter<'_>, kind: &str, failed: &Finished, fact: &str) {
    assert!(failed.error().contains(fact), "{fact}: {failed}");
    let newest = exporter.run(["history", "last-failed", "--format", "json"]).expect(0).json();
    assert_eq!(newest["id"], exporter.ask_one("SELECT max(id) FROM run").as_str(), "{newest}");
    assert_eq!(
        (&newest["kind"], &newest["status"], &newest["boundary"], &newest["seen"]),
        (&json!(kind), &json!("failed"), &Value::Null, &json!(0))
    );
    let error = newest["error"].as_str().unwrap();
    assert!(error.contains(fact) && newest["finished"].is_string(), "{newest}");
    let listed = exporter.run(["history", "--status", "failed", "--limit", "1", "--format", "json"]).expect(0).json();
    assert_eq!(listed[0]["id"], newest["id"]);
    let text = exporter.run(["history", "--limit", "1"]).expect(0);
    assert!(text.stdout.contains("failed") && !text.stdout.contains("nothing new"), "{text}");
    if kind != "verify" {
        let (rows, said) = status(exporter);
        assert!(said.stderr.contains("last attempt failed: run ") && said.stderr.contains(fact), "{said}");
        let row = &rows[0];
        assert_eq!(
            (&row["failed_run"].to_string(), &row["failed_time"], &row["failed_error"]),
            (&newest["id"].as_str().unwrap().to_owned(), &newest["started"], &newest["error"])
        );
        let chinese = exporter.run(["status", "--source", "", "--lang", "zh"]).expect(0);
        assert!(chinese.stderr.contains("最近一次导出失败: 运行 "), "{chinese}");
    }
}

#[test]
fn a_start_that_the_server_refuses_is_on_record_and_status_says_so() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let mut exporter = exported(&table);
        let url = table.url();
        let (place, database) = url.rsplit_once('/').unwrap();
        let nobody = url.replace("root@", "nobody@");
        let refused = format!("mysql://root@127.0.0.1:1/{database}");
        let missing = format!("{place}/no_such_database");
        let cases: [(&[&str], &str, &str, &str); 5] = [
            (&INCREMENTAL, "incremental", &nobody, "cannot connect"),
            (&FULL, "full", &refused, "127.0.0.1:1"),
            (&["run", "--since", "2025-11-01"], "backfill", &missing, "no_such_database"),
            (&["run", "--tenant", "Nobody"], "full", &url, "\"Nobody\""),
            (&["verify", "--against-source"], "verify", &nobody, "cannot connect"),
        ];
        for (args, kind, source, fact) in cases {
            exporter.set("INVOICE_EXPORT_SOURCE", source);
            belongs_to(&exporter, source);
            let code = if fact == "\"Nobody\"" { 2 } else { 1 };
            assert_on_record(&exporter, kind, &exporter.run(args).expect(code), fact);
        }
        let of_backfill = exporter.ask_one("SELECT since, until, boundary FROM run WHERE kind = 'backfill'");
        assert!(of_backfill.ends_with(" NULL NULL") && of_backfill.starts_with("2025-1"), "{of_backfill}");
        exporter.set("INVOICE_EXPORT_SOURCE", url.as_str());
        belongs_to(&exporter, &url);
        table.execute("ALTER TABLE t_invoice RENAME TO t_elsewhere");
        assert_on_record(&exporter, "incremental", &exporter.run(INCREMENTAL).expect(1), "t_invoice");
        table.execute("ALTER TABLE t_elsewhere RENAME TO t_invoice");

        arrive(&table, 2);
        let run = exporter.run(INCREMENTAL).expect(0);
        assert!(run.stderr.lines().all(|line| !line.contains("compared, without")), "{run}");
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        let (rows, said) = status(&exporter);
        assert!(rows[0]["failed_run"].is_null() && !said.stderr.contains("last attempt"), "{said}");
        exporter.run(["state", "check", "--deep"]).expect(0);
    });
}

#[test]
fn a_start_without_a_source_or_its_password_is_on_record() {
    let table = Table::embedded();
    let mut exporter = exported(&table);
    exporter.set("INVOICE_EXPORT_PASSWORD_FILE", "/nowhere/password");
    assert_on_record(&exporter, "incremental", &exporter.run(INCREMENTAL).expect(2), "--password-file");
    assert_on_record(&exporter, "verify", &exporter.run(["verify", "--against-source"]).expect(2), "--password-file");
    let missing = table.url().replace("sqlite:", "");
    let password = exporter.home().join("password");
    fs::write(&password, "unused").unwrap();
    exporter.set("INVOICE_EXPORT_PASSWORD_FILE", password);
    let hidden = Hidden::new(&table);
    assert_on_record(&exporter, "full", &exporter.run(FULL).expect(1), &missing);
    drop(hidden);
    let unknown = exporter.run(["verify", "--tenant", "Nobody"]).expect(2);
    assert_on_record(&exporter, "verify", &unknown, "\"Nobody\"");
}

#[test]
fn a_run_that_failed_after_its_start_is_the_last_attempt_too() {
    let table = Table::embedded();
    let exporter = exported(&table);
    arrive(&table, 2);
    let failed = run_with(&exporter, "syncfs:error=EIO", &INCREMENTAL).expect(1);
    let (rows, said) = status(&exporter);
    assert!(said.stderr.contains("last attempt failed: run 2 (incremental)"), "{failed}{said}");
    assert_eq!(rows[0]["failed_run"], 2);
    let at_work = spawn_held(&exporter, "renameat", 1, &INCREMENTAL);
    wait_for("a run at work", || exporter.ask("SELECT id FROM run WHERE status = 'running'") == ["3"]);
    let assert_unfinished = |words: &str| {
        let (rows, said) = status(&exporter);
        assert!(said.stderr.contains(words), "{said}");
        assert!(!said.stderr.contains("last attempt") && rows[0]["failed_run"].is_null(), "{said}");
    };
    assert_unfinished("run 3 (incremental)");
    at_work.go_on();
    at_work.wait().expect(0);
    arrive(&table, 3);
    run_with(&exporter, "syncfs:error=EIO", &INCREMENTAL).expect(1);
    assert!(run_with(&exporter, "renameat:signal=KILL:when=1", &INCREMENTAL).was_killed());
    assert_unfinished("run 5 (incremental)");
    exporter.run(INCREMENTAL).expect(0);
    assert!(!status(&exporter).1.stderr.contains("last attempt"));
}

#[test]
fn what_is_no_start_of_this_state_leaves_no_record() {
    let table = Table::embedded();
    let mut exporter = exported(&table);
    let (before, other) = (everything_in(&[&exporter.output()], Traces::OfTheLock), Table::embedded());
    let missing = format!("sqlite:{}", exporter.home().join("missing.db").display());
    exporter.set("INVOICE_EXPORT_SOURCE", other.url());
    exporter.run(INCREMENTAL).expect(5);
    exporter.set("INVOICE_EXPORT_SOURCE", &missing);
    exporter.run(["run", "--dry-run"]).expect(1);
    exporter.run(["status"]).expect(0);
    exporter.run(["run", "--since", "2025-11-02", "--until", "2025-11-01"]).expect(2);
    assert_eq!(everything_in(&[&exporter.output()], Traces::OfTheLock), before);

    let nowhere = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", &missing).env("INVOICE_EXPORT_RETRY_FOR", "0s");
    nowhere.run(INCREMENTAL).expect(1);
    assert!(!nowhere.output().exists(), "a first start that fails makes nothing");
}

#[test]
fn a_start_against_another_source_leaves_no_record_though_that_does_not_answer() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let mut exporter = exported(&table);
        let before = everything_in(&[&exporter.output()], Traces::OfTheLock);
        let url = table.url();
        let (place, database) = url.rsplit_once('/').unwrap();
        let others = [
            format!("mysql://root@127.0.0.1:1/{database}"),
            format!("{place}/no_such_database"),
            format!("mysql://root@no-such-host.invalid:3306/{database}"),
            format!("sqlite:{}", exporter.home().join("missing.db").display()),
        ];
        for other in &others {
            exporter.set("INVOICE_EXPORT_SOURCE", other);
            for args in [&INCREMENTAL[..], &["verify", "--against-source"]] {
                let failed = exporter.run(args).expect(1);
                assert!(!failed.error().contains("on record"), "{failed}");
            }
        }
        exporter.set("INVOICE_EXPORT_SOURCE", url);
        exporter.run([&INCREMENTAL[..], &["--table", "t_other"]].concat()).expect(1);
        assert_eq!(everything_in(&[&exporter.output()], Traces::OfTheLock), before);
        exporter.run(["run", "--tenant", "Nobody"]).expect(2);
        assert_eq!(exporter.ask("SELECT id FROM run WHERE status = 'failed'"), ["2"]);
    });
}

#[test]
fn wrong_usage_is_on_record_where_state_or_source_had_to_be_asked() {
    let table = Table::embedded();
    let mut exporter = exported(&table);
    let before = everything_in(&[&exporter.output()], Traces::OfTheLock);
    let reversed = ["--since", "2025-11-02", "--until", "2025-11-01"];
    for args in [
        &["run", "--mode", "sideways"][..],
        &["run", "--no-such-option"],
        &["run", "--mode", "full", "--since", "2025-11-01"],
        &["run", "--since", "some day"],
        &["verify", "--since", "some day"],
        &[&["run"][..], &reversed].concat(),
        &[&["verify"][..], &reversed].concat(),
        &["run", "--source", ""],
        &["verify", "--against-source", "--source", ""],
        &["run", "--source", "no address"],
    ] {
        exporter.run(args).expect(2);
    }
    exporter.set("EXPORT_MODE", "sideways");
    exporter.run(["run"]).expect(2);
    assert_eq!(everything_in(&[&exporter.output()], Traces::OfTheLock), before);
    exporter.set("EXPORT_MODE", "");
    for (args, kind, fact) in [
        (&["run", "--tenant", "Nobody"][..], "full", "\"Nobody\""),
        (&["verify", "--tenant", "Nobody"], "verify", "\"Nobody\""),
        (&["verify", "--since", "2d"], "verify", "2d"),
        (&["run", "--since", "2d", "--until", "3d"], "backfill", "3d"),
    ] {
        let failed = exporter.run(args).expect(2);
        assert_on_record(&exporter, kind, &failed, if fact == "2d" { "no source is asked" } else { fact });
    }
    exporter.set("INVOICE_EXPORT_PASSWORD_FILE", "/nowhere/password");
    assert_on_record(&exporter, "full", &exporter.run(FULL).expect(2), "--password-file");
}

#[test]
fn a_start_that_failed_keeps_the_window_that_was_asked_for() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let _hidden = Hidden::new(&table);
    let (day, end) = (["--since", "2025-11-02 10:00:00"], ["--until", "2025-11-03 10:00:00"]);
    let (from, to) = ("2025-11-02 10:00:00 ->", "-> 2025-11-03 10:00:00");
    let both = "2025-11-02 10:00:00 -> 2025-11-03 10:00:00";
    for command in [&["run"][..], &["verify", "--against-source"]] {
        for (window, shown) in [(&day[..], from), (&end[..], to), (&[day, end].concat(), both)] {
            exporter.run([command, window].concat()).expect(1);
            let listed = exporter.run(["history", "--limit", "1"]).expect(0);
            assert!(listed.stdout.contains(shown) && !listed.stdout.contains("none"), "{listed}");
            let run = exporter.run(["history", "last", "--format", "json"]).expect(0).json();
            let asked = |flag: &str| window.iter().skip_while(|word| **word != flag).nth(1).copied();
            assert_eq!((&run["since"], &run["until"]), (&json!(asked("--since")), &json!(asked("--until"))), "{run}");
        }
    }
}

#[test]
fn a_start_that_cannot_be_put_on_record_says_so_after_five_seconds() {
    let table = Table::embedded();
    let exporter = exported(&table);
    arrive(&table, 2);
    let at_work = spawn_held(&exporter, "renameat", 1, &FULL);
    wait_for("a run at work", || exporter.ask("SELECT id FROM run WHERE status = 'running'") == ["2"]);
    let hidden = Hidden::new(&table);
    for (lang, unrecorded) in [("en", "this start is not on record"), ("zh", "本次启动未能记入历史")] {
        let since = Instant::now();
        let failed = exporter.run(["run", "--mode", "incremental", "--lang", lang, "--format", "json"]).expect(1);
        assert!(since.elapsed() >= Duration::from_secs(5), "it did not wait");
        assert!(failed.error().contains(unrecorded) && failed.error().contains(&hidden.0), "{failed}");
        assert!(failed.json()["error"].as_str().unwrap().contains("not on record"), "{failed}");
    }
    drop(hidden);
    at_work.go_on();
    at_work.wait().expect(0);
    assert_eq!(exporter.ask("SELECT id FROM run WHERE status = 'failed'"), [""; 0]);
    exporter.run(INCREMENTAL).expect(0);
    exporter.assert_agrees();
}

#[test]
fn a_start_that_failed_does_not_hide_that_an_older_state_was_restored() {
    let table = Table::embedded();
    let exporter = exported(&table);
    exporter.run(["state", "backup"]).expect(0);
    arrive(&table, 2);
    exporter.run(INCREMENTAL).expect(0);
    exporter.run(["state", "restore", "latest", "--yes"]).expect(0);
    let hidden = Hidden::new(&table);
    exporter.run(INCREMENTAL).expect(1);
    drop(hidden);
    exporter.run(["verify"]).expect(6);
    assert_eq!(exporter.ask("SELECT id, status FROM run ORDER BY id"), ["1 success", "3 failed", "4 success"]);
    let run = exporter.run(INCREMENTAL).expect(0);
    assert!(run.stderr.contains("the tree is newer than the state"), "{run}");
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn a_start_that_failed_takes_no_number_from_the_tree_of_another_state() {
    let table = Table::embedded();
    let (exporter, other) = (exported(&table), Exporter::new(&table));
    for id in 2..5 {
        arrive(&table, id);
        other.run(INCREMENTAL).expect(0);
    }
    let [folder, foreign] =
        [exporter.state().parent().unwrap(), &other.output()].map(|path| path.display().to_string());
    let there = [&INCREMENTAL[..], &["--output", &foreign, "--state-dir", &folder]].concat();
    exporter.run(&there).expect(5);
    let hidden = Hidden::new(&table);
    exporter.run(&there).expect(1);
    drop(hidden);
    assert_eq!(exporter.ask("SELECT id, status FROM run ORDER BY id"), ["1 success", "2 failed", "3 failed"]);
}

#[test]
fn a_start_that_failed_after_a_run_had_died_leaves_its_doubts_to_the_next_run() {
    let table = Table::embedded();
    let exporter = exported(&table);
    arrive(&table, 2);
    assert!(run_with(&exporter, "renameat:signal=KILL:when=1", &INCREMENTAL).was_killed());
    let hidden = Hidden::new(&table);
    exporter.run(INCREMENTAL).expect(1);
    drop(hidden);
    exporter.run(["verify"]);
    assert_eq!(
        exporter.ask("SELECT id, status FROM run WHERE id < 4 ORDER BY id"),
        ["1 success", "2 running", "3 failed"]
    );
    let (_, said) = status(&exporter);
    assert!(said.stderr.contains("run 2 (incremental)") && said.stderr.contains("died"), "{said}");
    exporter.run(INCREMENTAL).expect(0);
    assert_eq!(exporter.ask_one("SELECT status FROM run WHERE id = 2"), "interrupted");
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn a_state_of_another_user_or_of_a_newer_program_is_left_alone_by_a_failed_start() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let hidden = Hidden::new(&table);
    std::os::unix::fs::chown(exporter.state(), Some(65_534), None)
        .expect("this test gives a file to another user, which needs root");
    let before = everything_in(&[&exporter.output()], Traces::OfTheLock);
    let failed = exporter.run(INCREMENTAL).expect(1);
    assert!(failed.error().contains(&hidden.0) && !failed.error().contains("on record"), "{failed}");
    assert_eq!(everything_in(&[&exporter.output()], Traces::OfTheLock), before);
    std::os::unix::fs::chown(exporter.state(), Some(0), None).unwrap();
    meddle(&exporter.state(), "PRAGMA user_version = 4711");
    let before = everything_in(&[&exporter.output()], Traces::OfTheLock);
    exporter.run(INCREMENTAL).expect(1);
    assert_eq!(everything_in(&[&exporter.output()], Traces::OfTheLock), before);
    fs::write(exporter.state(), "no state").unwrap();
    exporter.run(INCREMENTAL).expect(1);
    assert_eq!(fs::read_to_string(exporter.state()).unwrap(), "no state");
}

#[test]
fn a_run_that_died_before_it_recorded_anything_has_not_found_nothing_new() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let exporter = Exporter::new(&table);
    assert!(run_with(&exporter, "linkat:signal=KILL:when=1", &["run"]).was_killed());
    let result = |words: &str| {
        let list = exporter.run(["history"]).expect(0);
        assert!(list.stdout.lines().any(|line| line.ends_with(words)), "{list}");
    };
    result("nothing recorded");
    exporter.run(["run"]).expect(0);
    result("nothing recorded");
}
