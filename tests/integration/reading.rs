//! What `history` and `status` must not do: change anything, wait for anybody, or let data speak for them.

use std::fs;

use serde_json::Value;

use crate::history::{INCREMENTAL, MINUTE, change, enter, history, ids, table};
use crate::support::exporter::{Exporter, run_with};
use crate::support::state::{listing, meddle};
use crate::support::table::{Row, Table, quoted};

#[test]
fn what_others_named_cannot_forge_lines() {
    let hostile = "x\n9   full  success\u{1b}[2J\u{202e}";
    let table = Table::embedded();
    table.insert(&Row { tenant: hostile, time: &table.ago(50 * MINUTE), ..Row::default() });
    table.insert(&Row {
        id: 2,
        tenant: hostile,
        number: hostile,
        document: "?",
        time: &table.ago(50 * MINUTE),
        ..Row::default()
    });
    let exporter = Exporter::new(&table).env("SUDO_USER", hostile);
    exporter.run(INCREMENTAL).expect(3);
    enter(&exporter, 2, &[("status", "failed"), ("error", hostile), ("command_line", hostile)]);
    meddle(
        &exporter.state(),
        &format!(
            "INSERT INTO state_change (kind, at, last_run, user, host, reason) VALUES ('set', '2025', 2, 'a', 'b', {})",
            quoted(hostile)
        ),
    );
    meddle(&exporter.state(), "INSERT INTO watermark_change VALUES (1, 1, NULL, NULL)");
    for args in [
        &["history"][..],
        &["history", "--tenant", hostile],
        &["history", "1"],
        &["history", "2"],
        &["history", "c1"],
        &["history", "1", "--files"],
        &["status"],
        &["status", "--rejects"],
    ] {
        let stdout = exporter.run(args).expect(0).stdout;
        let steers = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!stdout.contains(steers) && stdout.contains("success"), "{args:?}: {stdout:?}");
        assert!(!stdout.lines().any(|line| line.starts_with('9')), "{args:?} has a forged line:\n{stdout}");
    }
    assert_eq!(history(&exporter, &["--limit", "2"])[1]["error"], hostile);
}

#[test]
fn whoever_only_reads_leaves_no_trace() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    change(&exporter, "reset", "2025-11-28T10:00:00Z", 1, &[]);
    let read_everything = || {
        for args in [
            &["history"][..],
            &["history", "--limit", "0", "--format", "csv"],
            &["history", "--tenant", "1"],
            &["history", "last"],
            &["history", "c1"],
            &["history", "last", "--files"],
            &["history", "last", "--files", "-0"],
            &["status"],
            &["status", "--rejects"],
            &["status", "--stale-after", "1h", "--format", "json"],
        ] {
            exporter.run(args).expect(0);
        }
        exporter.run(["history", "77"]).expect(2);
    };
    let private = exporter.output().join(".export_state");
    let before = listing(&private);
    read_everything();
    assert_eq!(listing(&private), before);
    // The log of a run that was killed stays for the next run, too.
    table.insert(&Row { id: 2, number: "INV002", time: &table.ago(40 * MINUTE), ..Row::default() });
    assert!(run_with(&exporter, "renameat:signal=KILL:when=1", &["run"]).was_killed());
    let without_shared_memory = || {
        let mut all = listing(&private);
        let shared = all.iter_mut().find(|(path, _)| path.ends_with("-shm"));
        shared.expect("a killed run leaves it").1.clear();
        all
    };
    let before = without_shared_memory();
    read_everything();
    assert_eq!(without_shared_memory(), before);
    exporter.run(["run"]).expect(0);
    exporter.assert_state_is_sound();
}

#[test]
fn reading_needs_no_lock_and_waits_for_no_writer() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    let lock = fs::File::open(exporter.output().join(".export_state/lock")).unwrap();
    lock.lock().unwrap();
    let writer = rusqlite::Connection::open(exporter.state()).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE; UPDATE tenant SET watermark = NULL").unwrap();
    assert_eq!(ids(&exporter, &[]), ["1"]);
    assert_ne!(exporter.run(["status", "--format", "json"]).expect(0).json()[0]["watermark"], Value::Null);
    writer.execute_batch("COMMIT").unwrap();
    assert_eq!(exporter.run(["status", "--format", "json"]).expect(0).json()[0]["watermark"], Value::Null);
}
