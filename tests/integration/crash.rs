//! Runs that die, at any moment and at every step of publishing, and what the next one makes of it.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::exporter::{numbers, run_with};
use crate::support::state::meddle;
use crate::support::{Exporter, Row, Table, on_every_source};

const MINUTE: Duration = Duration::from_secs(60);
const ROWS: i64 = 60;

/// Everything is as if nobody had died.
#[track_caller]
fn assert_recovered(exporter: &Exporter<'_>, killed: usize) {
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
    let interrupted = exporter.ask("SELECT id FROM run WHERE status = 'interrupted' AND finished IS NOT NULL");
    assert_eq!(interrupted.len(), killed, "interrupted runs: {interrupted:?}");
    for table in ["todo", "doubt_path", "leftover"] {
        assert_eq!(exporter.ask(&format!("SELECT * FROM {table}")), [""; 0], "{table}");
    }
    let before = exporter.stamps();
    let summary = exporter.run(["run", "--format", "json"]).expect(0).json();
    assert_eq!(numbers(&summary, ["written", "removed"]), [0, 0]);
    assert_eq!(exporter.stamps(), before);
}

/// Invoices in some folders, all of half an hour ago.
fn fill(table: &Table) {
    let time = table.ago(50 * MINUTE);
    for id in 1..=ROWS {
        let (tenant, country) = (["1", "10", "89"][id as usize % 3], ["CN", "DE"][id as usize % 2]);
        let document = format!("{{\"id\": {id}}}");
        table.insert(&Row {
            id,
            tenant,
            country: Some(country),
            number: &format!("INV{id}"),
            document: &document,
            time: &time,
            ..Row::default()
        });
    }
}

/// Updates, moves, a swap, new rows: what a run is about to publish when it dies.
fn change(table: &Table) {
    let time = table.ago(40 * MINUTE);
    for change in [
        "fext_field = '{\"version\": 2}', fupdate_time = '@' WHERE fid IN (1, 2, 3, 4)",
        "fissue_date = '2025-12-01', fupdate_time = '@' WHERE fid IN (5, 6, 7, 8)",
        "fcountry = 'IT', fupdate_time = '@' WHERE fid IN (9, 10)",
        "finvoice_no = CASE fid WHEN 12 THEN 'INV18' ELSE 'INV12' END, fupdate_time = '@' WHERE fid IN (12, 18)",
    ] {
        table.execute(&format!("UPDATE t_invoice SET {}", change.replace('@', &time)));
    }
    for id in [101, 102] {
        table.insert(&Row { id, tenant: "new", number: &format!("INV{id}"), time: &time, ..Row::default() });
    }
}

/// Back to earlier documents, on to third paths, away altogether: nothing that the dead run wrote is
/// right now.
fn change_again(table: &Table) {
    let time = table.ago(30 * MINUTE);
    for change in [
        "fext_field = '{\"id\": ' || fid || '}', fupdate_time = '@' WHERE fid IN (1, 2)",
        "fissue_date = '2025-12-02', fupdate_time = '@' WHERE fid IN (5, 6)",
        "fissue_date = '2025-11-28', fupdate_time = '@' WHERE fid IN (7, 8)",
        "fcountry = 'FR', fupdate_time = '@' WHERE fid IN (9)",
        "finvoice_no = 'INV' || fid, fupdate_time = '@' WHERE fid IN (12, 18)",
    ] {
        table.execute(&format!("UPDATE t_invoice SET {}", change.replace('@', &time)));
    }
}

/// Some numbers, ever farther apart: what is counted can be dozens.
const NTH: [u32; 7] = [1, 2, 3, 5, 9, 17, 33];

/// For every step: the run dies there, the source changes, and a plain run makes everything good.
fn dies_everywhere(mode: &str, calls: &[&str]) {
    let mut failures = Vec::new();
    for call in calls {
        let deaths = NTH.into_iter().take_while(|nth| {
            let inject = format!("{call}:signal=KILL:when={nth}");
            catch_unwind(|| dies_and_recovers(mode, &inject)).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                failures.push(format!("{inject}: {text}"));
                true
            })
        });
        assert!(deaths.count() > 0, "{call} is never called");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Says whether the run died.
fn dies_and_recovers(mode: &str, inject: &str) -> bool {
    let table = Table::embedded();
    fill(&table);
    let exporter = Exporter::new(&table);
    let args = ["run", "--mode", mode, "--writers", "1"];
    exporter.run(args).expect(0);
    change(&table);
    if !run_with(&exporter, inject, &args).was_killed() {
        return false;
    }
    let unfinished = exporter.ask("SELECT id FROM run WHERE status = 'running'").len();
    change_again(&table);
    if exporter.ask("SELECT id FROM ledger WHERE id = '101'").is_empty() {
        table.execute("DELETE FROM t_invoice WHERE fid = 101");
    }
    exporter.run(args).expect(0);
    assert_recovered(&exporter, unfinished);
    true
}

#[test]
fn an_incremental_run_may_die_at_any_step() {
    let calls = ["renameat", "renameat2", "syncfs", "fsync", "mkdirat", "unlinkat", "unlink", "pwrite64", "write"];
    dies_everywhere("incremental", &calls);
}

#[test]
fn a_full_run_may_die_at_any_step() {
    dies_everywhere("full", &["renameat", "unlink", "write"]);
}

#[test]
fn the_first_run_may_die_at_any_step() {
    for call in ["mkdir", "rename", "pwrite64", "write", "fsync", "renameat", "openat"] {
        for nth in [1, 2, 4, 8, 16, 32, 64] {
            let table = Table::embedded();
            fill(&table);
            let exporter = Exporter::new(&table);
            let args = ["run", "--mode", if nth % 3 == 1 { "full" } else { "incremental" }];
            let died = run_with(&exporter, &format!("{call}:signal=KILL:when={nth}"), &args);
            if !died.was_killed() {
                break;
            }
            let unfinished = exporter.ask("SELECT id FROM run WHERE status = 'running'").len();
            exporter.run(args).expect(0);
            assert_recovered(&exporter, unfinished);
        }
    }
}

#[test]
fn a_run_may_die_while_it_recovers_from_one_that_died() {
    for (first, second) in
        [("renameat:5", "renameat"), ("unlink:1", "renameat"), ("unlinkat:3", "unlink"), ("renameat:12", "write")]
    {
        for nth in [1, 3, 7] {
            let table = Table::embedded();
            fill(&table);
            let exporter = Exporter::new(&table);
            let args = ["run", "--mode", "incremental", "--writers", "1"];
            exporter.run(args).expect(0);
            change(&table);
            run_with(&exporter, &first.replace(':', ":signal=KILL:when="), &args);
            run_with(&exporter, &format!("{second}:signal=KILL:when={nth}"), &args);
            change_again(&table);
            let unfinished = exporter.ask("SELECT id FROM run WHERE status IN ('running', 'interrupted')").len();
            assert!(unfinished > 0, "{first} {second}");
            exporter.run(args).expect(0);
            assert_recovered(&exporter, unfinished);
        }
    }
}

#[test]
fn what_a_dead_run_wrote_for_a_row_that_is_gone_is_removed() {
    let table = Table::embedded();
    fill(&table);
    let exporter = Exporter::new(&table);
    exporter.run(["run"]).expect(0);
    for id in [101, 102] {
        table.insert(&Row { id, tenant: "new", number: &format!("INV{id}"), ..Row::default() });
    }
    // One of the two files is in place, nothing is recorded.
    assert!(run_with(&exporter, "renameat:signal=KILL:when=2", &["run"]).was_killed());
    let orphan = "new/CN/20251128+INV101.json";
    assert!(exporter.tree().contains_key(orphan));
    table.execute("DELETE FROM t_invoice WHERE fid = 101");
    let finished = exporter.run(["run", "--mode", "incremental", "--tenant", "1"]).expect(0);
    assert!(!exporter.tree().contains_key(orphan), "{finished}");
    exporter.run(["run"]).expect(0);
    assert_recovered(&exporter, 1);
}

#[test]
fn a_sync_that_fails_ends_the_run_and_the_next_one_writes_again() {
    for inject in [
        "syncfs:error=EIO:when=1",
        "fsync:error=EIO:when=5",
        "renameat:error=ENOSPC:when=5",
        "renameat:error=EIO:when=9",
    ] {
        let table = Table::embedded();
        fill(&table);
        let exporter = Exporter::new(&table);
        exporter.run(["run"]).expect(0);
        change(&table);
        let failed = run_with(&exporter, inject, &["run"]).expect(1);
        assert!(failed.stderr.lines().last().is_some_and(|line| line.starts_with("[ERROR]")), "{failed}");
        assert_eq!(exporter.ask("SELECT path FROM file_log WHERE run = 2"), [""; 0], "{inject}");
        let changed = numbers(&exporter.run(["run", "--format", "json"]).expect(0).json(), ["written"]);
        assert_eq!(changed, [14], "nothing on disk is trusted after {inject}");
        assert_recovered(&exporter, 0);
    }
}

#[test]
fn doubt_outlives_a_run_that_dies() {
    let table = Table::embedded();
    table.insert(&Row { time: &table.ago(180 * MINUTE), ..Row::default() });
    let exporter = Exporter::new(&table);
    let args = ["run", "--mode", "incremental"];
    exporter.run(args).expect(0);
    table.insert(&Row { id: 2, number: "OLD", time: "2001-01-01 00:00:00", ..Row::default() });
    meddle(&exporter.state(), "UPDATE meta SET server = 'another'");
    assert!(run_with(&exporter, "renameat:signal=KILL:when=1", &args).was_killed());
    exporter.run(args).expect(0);
    assert_recovered(&exporter, 1);
}

/// Kills a run as soon as this is true, or says that it ended before.
fn kill_when(exporter: &Exporter<'_>, args: &[&str], moment: impl Fn() -> bool) -> bool {
    let running = exporter.spawn(args);
    let deadline = Instant::now() + MINUTE;
    while !moment() && running.is_alive() {
        assert!(Instant::now() < deadline, "the moment never comes");
    }
    running.signal(Signal::KILL);
    running.wait().was_killed()
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).map(Iterator::count).unwrap_or_default()
}

#[test]
fn a_run_that_is_killed_is_made_good_by_running_again() {
    on_every_source(|table| {
        table.load_sample(1500, 6, "1:0.6,10:0.3,89:0.1");
        let exporter = Exporter::new(table);
        let (staging, folder) = (exporter.output().join(".export_state/staging"), exporter.output().join("1/CN"));
        let mut killed = 0;
        for (mode, staged, published) in [
            ("full", 1, 0),
            ("full", 0, 1),
            ("full", 200, 0),
            ("incremental", 0, 60),
            ("incremental", 300, 0),
            ("full", 0, 100),
        ] {
            let args = ["run", "--mode", mode];
            let killed_now = kill_when(&exporter, &args, || {
                (staged > 0 && entries(&staging) >= staged) || (published > 0 && entries(&folder) >= published)
            });
            killed += usize::from(killed_now);
        }
        assert!(killed > 2, "killed {killed} times only");
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        let updated = table.ago(20 * MINUTE);
        table.execute(&format!(
            "UPDATE t_invoice SET fext_field = '[]', fcountry = 'XX', fupdate_time = '{updated}' WHERE fid % 2 = 0"
        ));
        let moved = exporter.output().join("1/XX");
        for published in [1, 50, 200] {
            kill_when(&exporter, &["run", "--mode", "incremental"], || entries(&moved) >= published);
        }
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        assert_eq!(exporter.ask("SELECT id FROM run WHERE status NOT IN ('interrupted', 'success')"), [""; 0]);
    });
}
