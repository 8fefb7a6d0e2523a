//! Files that get their only name when they are published: where that is done, and what happens where it
//! cannot be done.

use std::process::Command;

use crate::support::exporter::{Running, all_calls, log_of_calls, run_with, under};
use crate::support::scene::FULL;
use crate::support::{Exporter, Row, Table};

fn table(rows: i64) -> Table {
    let table = Table::embedded();
    for id in 1..=rows {
        table.insert(&Row { id, number: &format!("INV{id}"), ..Row::default() });
    }
    table
}

#[test]
fn files_are_named_once_in_new_folders_and_moved_into_those_that_may_be_watched() {
    let table = table(3);
    let exporter = Exporter::new(&table);
    let names = |links: u32, moves: u32| {
        let (calls, finished) = all_calls(&exporter, &["linkat", "renameat"], &FULL);
        finished.expect(0);
        // One more finds out how it is done here.
        assert_eq!(calls, [("linkat", links + 1), ("renameat", moves)]);
        exporter.assert_agrees();
    };
    names(3, 0);
    table.insert(&Row { id: 4, number: "INV4", ..Row::default() });
    table.insert(&Row { id: 5, number: "INV5", country: Some("DE"), ..Row::default() });
    names(1, 1);
}

#[test]
fn a_file_is_named_by_its_handle_else_by_its_number_else_at_once() {
    for (inject, moves) in [("linkat:error=ENOENT:when=1", 0), ("linkat:error=EOPNOTSUPP", 3)] {
        let table = table(3);
        let exporter = Exporter::new(&table);
        // One move more would fail the run.
        run_with(&exporter, &format!("{inject} renameat:error=EIO:when={}", moves + 1), &FULL).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    }
}

#[test]
fn room_for_open_files_is_made_before_there_are_threads_which_would_wait_for_it() {
    let table = table(3);
    let (log, finished) = log_of_calls(&Exporter::new(&table), &["fcntl", "clone", "clone3"], &FULL);
    finished.expect(0);
    let (before, _) = log.split_once("clone").expect("a run has threads");
    let room =
        before.lines().filter_map(|line| line.split_once("F_DUPFD_CLOEXEC, ")?.1.split(')').next()?.parse().ok());
    assert!(room.max() > Some(1_000), "{log}");
}

#[test]
fn a_run_with_few_handles_needs_no_more() {
    for limit in ["300:300", "600:600", "256:1024"] {
        let table = table(700);
        let exporter = Exporter::new(&table);
        let mut limited = under(&exporter, Command::new("prlimit").arg(format!("--nofile={limit}")), &FULL);
        Running::new(&mut limited).wait().expect(0);
        exporter.assert_agrees();
    }
}

#[test]
fn a_twin_that_comes_batches_later_takes_the_place_of_the_file_that_is_there() {
    let table = table(1_100);
    table.insert(&Row { id: 1_101, number: "INV1", ..Row::default() });
    let exporter = Exporter::new(&table);
    exporter.run(FULL).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
    assert_eq!(exporter.ask_one("SELECT count(*) FROM ledger WHERE path LIKE '%+INV1.json'"), "2");
}
