//! One row, one outcome: whatever happens to a row within a run, it is counted once, as what came of it last, in the
//! summary, in the history and for its tenant.

use std::time::Duration;

use crate::support::exporter::numbers;
use crate::support::{Exporter, Row, Table, on_every_source};

const MINUTE: Duration = Duration::from_secs(60);
const COUNTS: [&str; 6] = ["seen", "written", "unchanged", "rejected", "gone", "bytes"];

/// What a dry run says, then what a run says, and what the history says of it.
#[track_caller]
fn assert_counted(exporter: &Exporter<'_>, args: &[&str], counts: [u64; 6]) {
    let args: Vec<&str> = args.iter().chain(&["--format", "json"]).copied().collect();
    let dry: Vec<&str> = args.iter().chain(&["--dry-run"]).copied().collect();
    let summaries = [(dry, "dry"), (args, "real")].map(|(args, kind)| (exporter.run(&args).expect(3).json(), kind));
    for (summary, kind) in &summaries {
        assert_eq!(numbers(summary, COUNTS), counts, "{kind}: {summary}");
    }
    let counts = counts.map(|count| count.to_string()).join(" ");
    let columns = COUNTS.join(", ");
    assert_eq!(exporter.ask_one(&format!("SELECT {columns} FROM run ORDER BY id DESC LIMIT 1")), counts);
    let of_tenant = format!("SELECT {columns} FROM run_tenant ORDER BY run DESC LIMIT 1");
    assert_eq!(exporter.ask_one(&of_tenant), counts);
    exporter.assert_state_is_sound();
}

/// Newer rows of the same paths with another document of three bytes.
fn add_rivals(table: &Table, id: &str, time: &str) {
    table.execute(&format!(
        "INSERT INTO t_invoice SELECT {id}, ftenant_id, fcountry, fissue_date, finvoice_no, 3, '[2]', '{time}' FROM t_invoice"
    ));
}

#[test]
fn rows_that_lose_their_path_in_a_later_batch_of_the_run_are_rejected_and_no_more() {
    for mode in ["full", "incremental"] {
        on_every_source(|table| {
            table.load_sample(3_000, 7, "1:1");
            table.execute("UPDATE t_invoice SET fissue_status = 3, fupdate_time = fupdate_time");
            add_rivals(table, "fid + 1000000", "2025-12-15 10:00:00");
            let exporter = Exporter::new(table);
            assert_counted(&exporter, &["run", "--mode", mode], [6_000, 3_000, 0, 3_000, 0, 9_000]);
            assert!(exporter.tree().into_values().all(|document| document == b"[2]"));
        });
    }
}

#[test]
fn rows_that_were_unchanged_until_they_lose_their_path_are_rejected_and_no_more() {
    for args in [
        &["run", "--mode", "full"][..],
        &["run", "--mode", "full", "--tenant", "1"],
        &["run", "--since", "2000-01-01"],
        &["run", "--mode", "incremental"],
    ] {
        // The rivals come before or after them.
        for id in ["fid + 1000", "fid - 1000"] {
            on_every_source(|table| {
                for (id, number) in (1..).zip(["A", "B", "C", "D"]) {
                    table.insert(&Row { id, number, time: &table.ago(50 * MINUTE), ..Row::default() });
                }
                let exporter = Exporter::new(table);
                exporter.run(["run", "--mode", "incremental"]).expect(0);
                add_rivals(table, id, &table.ago(20 * MINUTE));
                assert_counted(&exporter, args, [8, 4, 0, 4, 0, 12]);
            });
        }
    }
}
