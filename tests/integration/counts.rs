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
    assert_counted_with(3, exporter, args, counts);
}

#[track_caller]
fn assert_counted_with(code: i32, exporter: &Exporter<'_>, args: &[&str], counts: [u64; 6]) {
    let args: Vec<&str> = args.iter().chain(&["--format", "json"]).copied().collect();
    let dry: Vec<&str> = args.iter().chain(&["--dry-run"]).copied().collect();
    let summaries = [(dry, "dry"), (args, "real")].map(|(args, kind)| (exporter.run(&args).expect(code).json(), kind));
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
            let exporter = Exporter::in_memory(table);
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

#[test]
fn a_reject_that_another_invoice_asks_about_is_counted_once() {
    for args in [&["run", "--mode", "full"][..], &["run", "--mode", "incremental"]] {
        on_every_source(|table| {
            table.insert(&Row { time: &table.ago(50 * MINUTE), ..Row::default() });
            let exporter = Exporter::new(table);
            exporter.run(["run", "--mode", "incremental"]).expect(0);
            let time = table.ago(20 * MINUTE);
            table.execute(&format!("UPDATE t_invoice SET fext_field = 'no', fupdate_time = '{time}' WHERE fid = 1"));
            table.insert(&Row { id: 2, document: "[2]", time: &time, ..Row::default() });
            assert_counted(&exporter, args, [2, 1, 0, 1, 0, 3]);
        });
    }
}

#[test]
fn the_rival_of_a_rival_is_counted_once() {
    on_every_source(|table| {
        table.insert(&Row { id: 1, time: &table.ago(50 * MINUTE), ..Row::default() });
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        // The change of the first one lies above the boundary, so that only another invoice brings it up.
        let (time, later) = (table.ago(20 * MINUTE), table.ago(MINUTE));
        table.execute(&format!(
            "UPDATE t_invoice SET fcountry = 'DE', fext_field = '[1]', fupdate_time = '{later}' WHERE fid = 1"
        ));
        table.insert(&Row { id: 2, country: Some("DE"), document: "[2]", time: &time, ..Row::default() });
        table.insert(&Row { id: 3, document: "[3]", time: &time, ..Row::default() });
        assert_counted(&exporter, &["run", "--mode", "incremental"], [3, 2, 0, 1, 0, 6]);
    });
}

#[test]
fn a_row_that_is_gone_is_counted_once_though_another_invoice_asks_about_it() {
    for args in [&["run", "--mode", "full"][..], &["run", "--mode", "incremental"]] {
        on_every_source(|table| {
            table.insert(&Row { time: &table.ago(50 * MINUTE), ..Row::default() });
            let exporter = Exporter::new(table);
            exporter.run(["run", "--mode", "incremental"]).expect(0);
            let bad = table.ago(40 * MINUTE);
            table.execute(&format!("UPDATE t_invoice SET fext_field = 'no', fupdate_time = '{bad}' WHERE fid = 1"));
            exporter.run(["run", "--mode", "incremental"]).expect(3);
            table.execute("DELETE FROM t_invoice WHERE fid = 1");
            table.insert(&Row { id: 2, document: "[2]", time: &table.ago(20 * MINUTE), ..Row::default() });
            assert_counted_with(0, &exporter, args, [2, 1, 0, 0, 1, 3]);
        });
    }
}
