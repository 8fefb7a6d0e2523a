//! The result on standard output: a part that is lost is a failure, a reader that has read enough is none, and `-q`
//! leaves out what a command says of a change that went well.

use std::fs::File;
use std::process::{Output, Stdio};

use crate::support::exporter::Exporter;
use crate::support::table::{Row, Table, on_every_source};

/// Commands that change nothing: each is a question.
const QUESTIONS: [&[&str]; 17] = [
    &["history"],
    &["history", "--limit", "0"],
    &["history", "last"],
    &["history", "1", "--files"],
    &["history", "1", "--files", "-0"],
    &["history", "c1"],
    &["status"],
    &["status", "--rejects"],
    &["why", "INV001"],
    &["verify"],
    &["verify", "--against-source"],
    &["state", "check"],
    &["state", "backups"],
    &["export-legacy-state", "-"],
    &["import-legacy-state", "--dry-run"],
    &["run", "--dry-run"],
    &["run", "--dry-run", "--mode", "incremental"],
];

/// Commands that change something, in an order in which each can.
const CHANGES: [&[&str]; 9] = [
    &["run"],
    &["run", "--mode", "incremental"],
    &["export-legacy-state"],
    &["import-legacy-state", "--yes", "--overwrite"],
    &["state", "set", "1", "2025-11-28", "--yes"],
    &["state", "backup"],
    &["state", "reset", "--all", "--yes"],
    &["state", "restore", "latest", "--yes"],
    &["run", "--since", "2025-11-01", "--until", "2025-11-30"],
];

/// An output with a run and a change on record, and a legacy state that says the same.
fn with_state(table: &Table) -> Exporter<'_> {
    table.insert(&Row::default());
    let exporter = Exporter::new(table);
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    exporter.run(["state", "set", "1", "2025-11-28 01:00:00", "--yes"]).expect(0);
    exporter.run(["export-legacy-state"]).expect(0);
    exporter
}

fn with_stdout(exporter: &Exporter<'_>, args: &[&str], stdout: impl Into<Stdio>) -> Output {
    exporter.command(args).stdin(Stdio::null()).stdout(stdout).output().unwrap()
}

/// Every device that takes nothing behaves as a disk that is full.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

fn closed() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn a_result_that_is_lost_is_a_failure_and_a_closed_pipe_is_none() {
    for format in ["text", "json", "csv"] {
        let table = Table::embedded();
        let exporter = with_state(&table);
        // As text, the closing block of a run is the end of its log, and the result is the tree.
        let is_log = |args: &[&str]| args[0] == "run" && args.get(1) != Some(&"--dry-run") && format != "json";
        for args in QUESTIONS.iter().chain(&CHANGES).filter(|args| !is_log(args)) {
            // A command without rows refuses CSV, and a result without rows is nothing, which is not lost.
            if format == "csv" {
                let asked = exporter.run([args, &["--format", format][..]].concat());
                let is_refused = asked.stderr.contains("no rows to print as CSV");
                if asked.expect(if is_refused { 2 } else { 0 }).stdout.is_empty() {
                    continue;
                }
            }
            for (lang, words) in [("en", "cannot write the result"), ("zh", "无法将结果写入")] {
                let args = [args, &["--format", format, "--lang", lang][..]].concat();
                let lost = with_stdout(&exporter, &args, full());
                let said = String::from_utf8_lossy(&lost.stderr);
                assert_eq!(lost.status.code(), Some(1), "{args:?}: {said}");
                assert_eq!(said.matches("[ERROR]").count(), 1, "{args:?}: {said}");
                assert!(said.contains(words), "{args:?}: {said}");
            }
            let args = [args, &["--format", format][..]].concat();
            let unread = with_stdout(&exporter, &args, closed());
            let said = String::from_utf8_lossy(&unread.stderr);
            assert!(unread.status.success() && !said.contains("[ERROR]"), "{args:?}: {said}");
        }
    }
}

#[test]
fn a_demo_that_nobody_sees_is_lost_and_one_that_was_seen_enough_is_not() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let demo = [exporter.home().join("demo"), exporter.home().join("demo2")];
    let [one, other] = demo.each_ref().map(|folder| folder.to_str().unwrap());
    assert_eq!(with_stdout(&exporter, &["demo", one], full()).status.code(), Some(1));
    assert!(with_stdout(&exporter, &["demo", other], closed()).status.success());
}

#[test]
fn help_and_version_that_are_lost_are_a_failure_too() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let answers: [&[&str]; 6] =
        [&["--help"], &["-h"], &["help", "run"], &["state", "set", "--help"], &["-V"], &["--version"]];
    for args in answers {
        let lost = with_stdout(&exporter, args, full());
        let said = String::from_utf8_lossy(&lost.stderr);
        assert!(lost.status.code() == Some(1) && said.contains("[ERROR] cannot write the result"), "{args:?}: {said}");
        let unread = with_stdout(&exporter, args, closed());
        assert!(unread.status.success() && unread.stderr.is_empty(), "{args:?}: {unread:?}");
    }
}

#[test]
fn a_lost_result_says_more_than_that_something_was_found() {
    let table = Table::embedded();
    let exporter = with_state(&table);
    exporter.run(["why", "INV999"]).expect(6);
    assert_eq!(with_stdout(&exporter, &["why", "INV999"], full()).status.code(), Some(1));
    assert_eq!(with_stdout(&exporter, &["why", "INV999"], closed()).status.code(), Some(6));
}

#[test]
fn a_quiet_change_that_goes_well_says_nothing_at_all_and_a_question_is_answered() {
    on_every_source(|table| {
        // A server warns of what its account may not see, and where its index is missing; neither is so here.
        let exporter = with_state(table);
        for args in QUESTIONS {
            let loud = exporter.run(args).expect(0);
            let quiet = exporter.run([args, &["-q"]].concat()).expect(0);
            assert!(!quiet.stdout.is_empty(), "{args:?}: {quiet}");
            assert_eq!(quiet.stdout.lines().count(), loud.stdout.lines().count(), "{args:?}: {quiet}");
            assert_eq!(quiet.stderr, "", "{args:?}: {quiet}");
        }
        for args in CHANGES {
            let quiet = exporter.run([args, &["-q"]].concat()).expect(0);
            assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""), "{args:?}");
            let json = exporter.run([args, &["-q", "--format", "json"]].concat()).expect(0);
            assert!(json.json().is_object() && json.stderr.is_empty(), "{args:?}: {json}");
        }
        let demo = exporter.home().join("demo");
        let quiet = exporter.run(["demo", demo.to_str().unwrap(), "-q"]).expect(0);
        assert!(quiet.stdout.is_empty() && quiet.stderr.lines().all(|line| line.starts_with("[WARN]")), "{quiet}");
    });
}

#[test]
fn a_quiet_run_says_what_is_wrong_on_stderr_alone() {
    let table = Table::embedded();
    let exporter = with_state(&table);
    table.insert(&Row { id: 2, number: "INV002", document: "{", ..Row::default() });
    let quiet = exporter.run(["run", "-q"]).expect(3);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.lines().count()), ("", 1), "{quiet}");
    assert!(quiet.stderr.contains("INV002"), "{quiet}");
    let refused = exporter.run(["state", "backup", "no/folder/x", "-q"]).expect(2);
    assert!(refused.stdout.is_empty() && refused.error().contains("no/folder"), "{refused}");
}
