//! The history of runs is append-only: SQLite itself refuses changes, whoever asks.

use std::process::Command;

use crate::support::exporter::Exporter;
use crate::support::table::{Row, Table};

fn sqlite3(state: &std::path::Path, sql: &str) -> (bool, String) {
    let output =
        Command::new("sqlite3").arg(state).arg(sql).output().expect("sqlite3 is missing: apt-get install sqlite3");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

#[test]
fn debians_own_sqlite3_reads_the_state_and_cannot_change_finished_history() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let exporter = Exporter::new(&table);
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    let state = exporter.state();
    let (read, text) = sqlite3(&state, "SELECT kind, status, written FROM run; SELECT action FROM file_log");
    assert!(read && text == "incremental|success|1\nwritten\n", "{text}");
    for change in [
        "UPDATE run SET written = 2",
        "UPDATE run SET status = 'running'",
        "DELETE FROM run",
        "UPDATE run_tenant SET written = 2",
        "DELETE FROM run_tenant",
        "INSERT INTO run_tenant SELECT run, tenant + 1, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, NULL FROM run_tenant",
        "UPDATE file_log SET path = 'x'",
        "DELETE FROM file_log",
        "INSERT INTO watermark_change VALUES (1, 1, NULL, NULL); DELETE FROM watermark_change",
        "INSERT INTO watermark_change VALUES (2, 1, NULL, NULL); UPDATE watermark_change SET new = old",
        "INSERT INTO state_change (kind, at, last_run, user, host) VALUES ('set', '', 1, '', ''); DELETE FROM state_change",
        "INSERT INTO state_change (kind, at, last_run, user, host) VALUES ('set', '', 1, '', ''); UPDATE state_change SET user = 'x'",
        "INSERT OR REPLACE INTO run SELECT * FROM run",
        "INSERT OR REPLACE INTO run_tenant SELECT * FROM run_tenant",
        "INSERT INTO file_log VALUES (1, 'x', 'written')",
        "INSERT OR REPLACE INTO state_change SELECT * FROM state_change",
        "INSERT OR REPLACE INTO watermark_change SELECT * FROM watermark_change",
    ] {
        let (changed, text) = sqlite3(&state, change);
        assert!(!changed && (text.contains("history") || text.contains("History")), "{change}: {text}");
    }
}
