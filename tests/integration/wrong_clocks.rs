//! Clocks that were set between two runs: the server's, the exporter's, or both together.

use std::time::Duration;

use crate::support::exporter::{Finished, run_with_at};
use crate::support::state::meddle;
use crate::support::{Exporter, Row, Table, on_every_source};

const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];
const HOUR: i64 = 3_600;
/// Some noon, in seconds since 1970.
const NOON: i64 = 1_764_331_200;

fn shown(unix: i64) -> String {
    chrono::DateTime::from_timestamp(unix, 0).unwrap().format("%F %T").to_string()
}

/// One machine with both clocks, or one time server for two machines.
#[test]
fn rows_written_after_clocks_that_were_ahead_together_were_put_right_are_exported() {
    let table = Table::embedded();
    let mut exporter = Exporter::new(&table);
    table.insert(&Row { time: &shown(NOON - 600), ..Row::default() });
    exporter.set_clocks(NOON, NOON);
    exporter.run(INCREMENTAL).expect(0);

    let ahead = NOON + 4 * HOUR;
    table.insert(&Row { id: 2, number: "AHEAD", time: &shown(ahead - 600), ..Row::default() });
    exporter.set_clocks_though(ahead, ahead, HOUR);
    let moved = exporter.run(INCREMENTAL).expect(0);

    table.insert(&Row { id: 3, number: "RIGHT", time: &shown(NOON + 2 * HOUR), ..Row::default() });
    table.execute(&format!(
        "UPDATE t_invoice SET fext_field = '[2]', fupdate_time = '{}' WHERE fid = 2",
        shown(ahead - 600)
    ));
    let right = NOON + 5 * HOUR;
    exporter.set_clocks_though(right, right, 4 * HOUR);
    exporter.run(INCREMENTAL).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
    assert!(moved.stderr.contains("the time that passed"), "{moved}");

    exporter.set_clocks(right + HOUR, right + HOUR);
    let quiet = exporter.run(INCREMENTAL).expect(0);
    assert!(!quiet.stderr.contains("clock"), "{quiet}");
}

/// The second that comes again holds another version of a row that was read.
#[test]
fn a_second_that_comes_again_is_noticed_whatever_the_safety_lag() {
    for together in [false, true] {
        let table = Table::embedded();
        let mut exporter = Exporter::new(&table);
        let run = ["run", "--mode", "incremental", "--safety-lag", "0s"];
        table.insert(&Row { time: &shown(NOON - 2), ..Row::default() });
        exporter.set_clocks(NOON, NOON);
        exporter.run(run).expect(0);
        table.execute("UPDATE t_invoice SET fext_field = '[2]'");
        // Five seconds later the clock shows one more than it did.
        if together {
            exporter.set_clocks_though(NOON + 1, NOON + 1, 5);
        } else {
            exporter.set_clocks(NOON + 1, NOON + 5);
        }
        exporter.run(run).expect(0);
        exporter.assert_agrees();
    }
}

#[test]
fn runs_back_to_back_without_a_safety_lag_raise_no_doubt() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(Duration::from_secs(60)), ..Row::default() });
        for _ in 0..4 {
            let run = exporter.run(["run", "--mode", "incremental", "--safety-lag", "0s"]).expect(0);
            assert!(!run.stderr.contains("clock"), "{run}");
        }
    });
}

/// A row that only a comparison of all keys finds, and whether the run made one.
fn finds_old_row(exporter: &Exporter<'_>, id: i64, run: impl Fn() -> Finished) -> bool {
    let number = format!("OLD{id}");
    exporter.table().insert(&Row { id, number: &number, time: "2001-01-01 00:00:00", ..Row::default() });
    let before = exporter.tree().len();
    let run = run().expect(0);
    let compares = run.stderr.contains("may have been set unnoticed");
    assert_eq!(exporter.tree().len() > before, compares, "{run}");
    compares
}

#[test]
fn elsewhere_or_after_a_restart_all_keys_are_compared_daily_and_status_says_so() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(Duration::from_secs(3 * 3_600)), ..Row::default() });
        let plain = || exporter.run(INCREMENTAL);
        let doubts = |id| finds_old_row(&exporter, id, plain);
        let said = || exporter.run(["status"]).expect(0).stderr.contains("compared once a day");
        plain().expect(0);
        assert!(!doubts(2) && !said(), "the same machine");
        meddle(&exporter.state(), "UPDATE meta SET boot = 'another'");
        assert!(doubts(3) && !said(), "after a restart");
        meddle(&exporter.state(), "UPDATE meta SET host = 'another'");
        assert!(!doubts(4) && said(), "on another host, the same day");
        assert!(!doubts(5) && said(), "what happened in between is still not known");
        meddle(&exporter.state(), "UPDATE meta SET compared = '2025-01-01T00:00:00Z'");
        assert!(doubts(6) && !said(), "a day later");
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

#[test]
fn a_kernel_that_does_not_name_its_start_counts_as_another_one() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    table.insert(&Row { time: &table.ago(Duration::from_secs(3 * 3_600)), ..Row::default() });
    let unnamed = || run_with_at(&exporter, "/proc/sys/kernel/random/boot_id", "openat:error=EACCES", &INCREMENTAL);
    unnamed().expect(0);
    assert!(finds_old_row(&exporter, 2, unnamed));
    assert!(!finds_old_row(&exporter, 3, unnamed));
    let said = exporter.run(["--lang", "zh", "status"]).expect(0);
    assert!(said.stderr.contains("每天核对一次全部记录"), "{said}");
    assert_eq!(exporter.ask_one("SELECT count(*) FROM meta WHERE boot IS NULL"), "1");
}
