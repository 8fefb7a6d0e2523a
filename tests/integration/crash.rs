//! Runs that die, at any moment and at every step of publishing, and what the next one makes of it.

use std::cell::Cell;
use std::fs;
use std::iter::successors;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::disk::Closed;
use crate::support::exporter::{Finished, numbers, run_with, run_with_at};
use crate::support::invariants::Witness;
use crate::support::rounds::{attempt, is_campaign, tell, with_seeds};
use crate::support::scene::{
    CALLS, FULL, INCREMENTAL, Kept, change, change_again, change_at_random, changed, filled, update_all,
};
use crate::support::state::meddle;
use crate::support::{Exporter, Row, Table, on_every_flavor, on_every_source, server};

const MINUTE: Duration = Duration::from_secs(60);

/// For every call and every number: the run dies there, the source may change, and a plain run makes
/// everything good. The numbers rise until a run completes; without the campaign most are left out.
fn dies_everywhere(exporter: &Exporter<'_>, args: &[&str], meanwhile: fn(&Exporter<'_>)) {
    let kept = Kept::of(exporter);
    let mut failures = Vec::new();
    for call in CALLS {
        let mut deaths = 0;
        for nth in successors(Some(1_u32), |nth| Some(if is_campaign() { nth + 1 } else { nth * 3 })) {
            kept.restore();
            let inject = format!("{call}:signal=KILL:when={nth}");
            match attempt(&inject, || dies_and_recovers(exporter, args, &inject, meanwhile)) {
                Ok(true) => deaths += 1,
                Ok(false) => break,
                Err(failure) => failures.push(failure),
            }
            assert!(failures.len() < 10, "{}", failures.join("\n"));
        }
        tell(&format!("{}, killed at {call}: {deaths} times", args.join(" ")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Says whether the run died.
fn dies_and_recovers(exporter: &Exporter<'_>, args: &[&str], inject: &str, meanwhile: fn(&Exporter<'_>)) -> bool {
    let mut witness = Witness::new(exporter);
    let faulty = run_with(exporter, inject, args);
    witness.assert_bearable(&faulty);
    if !faulty.was_killed() {
        assert!(matches!(faulty.status.code(), Some(0 | 3)), "{faulty}");
        return false;
    }
    let unfinished = exporter.unfinished_runs();
    meanwhile(exporter);
    witness.source_changed();
    exporter.run_plainly(args);
    witness.assert_made_good();
    witness.assert_recovered(unfinished);
    true
}

fn nothing(_: &Exporter<'_>) {}

/// What the dead run was about to publish is changed again, and one row that it did not record is gone.
fn changes_again(exporter: &Exporter<'_>) {
    change_again(exporter.table());
    if exporter.ask("SELECT id FROM ledger WHERE id = '101'").is_empty() {
        exporter.table().execute("DELETE FROM t_invoice WHERE fid = 101");
    }
}

#[test]
fn the_first_incremental_run_may_die_at_any_step() {
    dies_everywhere(&Exporter::new(&filled()), &INCREMENTAL, nothing);
}

#[test]
fn the_first_full_run_may_die_at_any_step_and_the_source_change() {
    dies_everywhere(&Exporter::new(&filled()), &FULL, |exporter| change(exporter.table()));
}

#[test]
fn an_incremental_run_may_die_at_any_step_and_the_source_change_again() {
    dies_everywhere(&changed(&filled()), &INCREMENTAL, changes_again);
}

#[test]
fn a_full_run_may_die_at_any_step_and_the_source_change_again() {
    dies_everywhere(&changed(&filled()), &FULL, changes_again);
}

#[test]
fn runs_may_die_while_they_recover_from_runs_that_died() {
    let table = filled();
    let exporter = changed(&table);
    let kept = Kept::of(&exporter);
    let deaths = Cell::new(0);
    with_seeds(12, 200, |dice| {
        kept.restore();
        let mut witness = Witness::new(&exporter);
        for minutes in [35, 30, 25] {
            let args = if dice.below(3) == 0 { FULL } else { INCREMENTAL };
            let inject = format!("{}:signal=KILL:when={}", dice.one_of(&CALLS), 1 + dice.below(30));
            let faulty = run_with(&exporter, &inject, &args);
            witness.assert_bearable(&faulty);
            deaths.set(deaths.get() + u32::from(faulty.was_killed()));
            if dice.below(2) == 0 {
                change_at_random(&table, dice, minutes);
                witness.source_changed();
            }
        }
        let unfinished = exporter.unfinished_runs();
        exporter.run_plainly(&INCREMENTAL);
        witness.assert_made_good();
        witness.assert_recovered(unfinished);
    });
    tell(&format!("killed while runs recover: {} times", deaths.get()));
    assert!(deaths.get() > 0, "no run died");
}

#[test]
fn what_a_dead_run_wrote_for_a_row_that_is_gone_is_removed() {
    let table = filled();
    let exporter = Exporter::new(&table);
    exporter.run(FULL).expect(3);
    let mut witness = Witness::new(&exporter);
    for id in [101, 102] {
        table.insert(&Row { id, tenant: "new", number: &format!("INV{id}"), ..Row::default() });
    }
    // One of the two files is in place, nothing is recorded.
    assert!(run_with(&exporter, "linkat:signal=KILL:when=2", &["run"]).was_killed());
    let orphan = "new/CN/20251128+INV101.json";
    assert!(exporter.tree().contains_key(orphan));
    table.execute("DELETE FROM t_invoice WHERE fid = 101");
    let finished = exporter.run(["run", "--mode", "incremental", "--tenant", "1"]).expect(0);
    assert!(!exporter.tree().contains_key(orphan), "{finished}");
    exporter.run(FULL).expect(0);
    witness.source_changed();
    witness.assert_made_good();
    witness.assert_recovered(1);
}

#[test]
fn a_file_in_doubt_that_cannot_be_removed_stops_no_run_and_goes_once_it_can() {
    let table = filled();
    let exporter = Exporter::new(&table);
    exporter.run(FULL).expect(3);
    let mut witness = Witness::new(&exporter);
    for id in [101, 102] {
        table.insert(&Row { id, tenant: "new", number: &format!("INV{id}"), ..Row::default() });
    }
    assert!(run_with(&exporter, "linkat:signal=KILL:when=2", &["run"]).was_killed());
    let orphan = "new/CN/20251128+INV101.json";
    assert!(exporter.tree().contains_key(orphan));
    table.execute("DELETE FROM t_invoice WHERE fid > 100");
    update_all(&table, 40, &["fext_field = '{\"version\": 2}' WHERE fid = 1"]);
    witness.source_changed();
    let closed = Closed::new(exporter.output().join("new/CN"));
    for _ in 0..2 {
        let finished = exporter.run(INCREMENTAL).expect(0);
        assert!(finished.stderr.contains(&format!("cannot remove {orphan}")), "{finished}");
        assert_eq!(exporter.tree()["10/DE/20251128+INV1.json"], b"{\"version\": 2}");
        assert_eq!(exporter.ask("SELECT path FROM doubt_path"), [orphan]);
    }
    drop(closed);
    exporter.run(INCREMENTAL).expect(0);
    assert!(!exporter.tree().contains_key(orphan));
    witness.assert_made_good();
    witness.assert_recovered(1);
}

#[test]
fn what_a_dead_run_wrote_for_an_invoice_withdrawn_or_spoiled_since_is_on_record() {
    for spoils in ["fissue_status = 4", "fext_field = 'not json'"] {
        for (change, at) in [("fext_field = '{\"version\": 2}'", "renameat"), ("fcountry = 'IT'", "unlinkat")] {
            for nth in 1..6 {
                let table = filled();
                let exporter = Exporter::new(&table);
                exporter.run(FULL).expect(3);
                let files = exporter.tree().len();
                let update = |set: &str| update_all(&table, 40, &[&format!("{set} WHERE fid IN (1, 2, 3)")]);
                update(change);
                if !run_with(&exporter, &format!("{at}:signal=KILL:when={nth}"), &INCREMENTAL).was_killed() {
                    assert!(nth > 3, "{at} is called {nth} times");
                    break;
                }
                update(spoils);
                exporter.run(INCREMENTAL);
                // Also each of the three, wherever the run died.
                assert_eq!(exporter.tree().len(), files, "{spoils}, {change}, {at} {nth}");
                exporter.assert_state_is_sound();
                exporter.run(["verify", "--hash"]).expect(0);
            }
        }
    }
}

#[test]
fn a_file_that_a_dead_run_rewrote_is_removed_once_its_invoice_has_moved() {
    let table = filled();
    let exporter = Exporter::new(&table);
    exporter.run(FULL).expect(3);
    let mut witness = Witness::new(&exporter);
    let update = |set: &str| update_all(&table, 40, &[set]);
    update("fext_field = '{\"version\": 2}' WHERE fid IN (1, 2, 8)");
    witness.source_changed();
    // The file of invoice 1 is rewritten, nothing is recorded.
    assert!(run_with(&exporter, "renameat:signal=KILL:when=2", &FULL).was_killed());
    update("fcountry = 'IT' WHERE fid = 1");
    // Two that want each other's path are decided when everything before them is published.
    update("finvoice_no = 'INV' || (10 - fid) WHERE fid IN (2, 8)");
    witness.source_changed();
    let finished = exporter.run(INCREMENTAL).expect(0);
    assert!(
        !finished.stderr.contains("INV1.json") && !exporter.tree().contains_key("10/DE/20251128+INV1.json"),
        "{finished}"
    );
    witness.assert_recovered(1);
    witness.assert_made_good();
}

#[test]
fn a_run_that_dies_with_all_in_the_tree_and_no_end_on_record_is_made_good() {
    for mode in [FULL, INCREMENTAL] {
        let table = filled();
        let exporter = changed(&table);
        let witness = Witness::new(&exporter);
        // The second sync keeps the mark that says that the tree is whole.
        let lock = ".export_state/lock";
        assert!(run_with_at(&exporter, lock, "fsync:signal=KILL:when=2", &mode).was_killed());
        let mark = fs::read_to_string(exporter.output().join(lock)).unwrap();
        assert!(mark.contains("whole"), "{mark}");
        assert_eq!(exporter.unfinished_runs(), 1);
        exporter.run_plainly(&mode);
        witness.assert_made_good();
        witness.assert_recovered(1);
    }
}

#[test]
fn a_file_that_a_dead_run_rewrote_is_left_over_once_its_id_has_another_number() {
    for (mode, closes) in [(FULL, false), (INCREMENTAL, false), (INCREMENTAL, true)] {
        let table = filled();
        let exporter = Exporter::new(&table);
        exporter.run(FULL).expect(3);
        let update = |set: &str| update_all(&table, 40, &[set]);
        update("fext_field = '{\"version\": 2}' WHERE fid IN (1, 2)");
        // The file of invoice 1 is rewritten, nothing is recorded.
        assert!(run_with(&exporter, "renameat:signal=KILL:when=2", &FULL).was_killed());
        update("finvoice_no = 'NEW1' WHERE fid = 1");
        // Another tenant that fails puts off what is done about doubt.
        update("fcountry = 'IT' WHERE fid = 3");
        let closed = closes.then(|| Closed::new(exporter.output().join("1/IT")));
        exporter.run(mode).expect(if closes { 3 } else { 0 });
        drop(closed);
        exporter.run(mode).expect(0);
        let tree = exporter.tree();
        assert_eq!(tree["10/DE/20251128+INV1.json"], b"{\"version\": 2}");
        assert!(tree.contains_key("10/DE/20251128+NEW1.json"), "{mode:?}");
        assert_eq!(exporter.ask("SELECT path FROM leftover"), ["10/DE/20251128+INV1.json"]);
        assert_eq!(exporter.ask("SELECT path FROM doubt_path"), [""; 0]);
        exporter.assert_state_is_sound();
    }
}

#[test]
fn a_file_in_doubt_stays_while_its_invoice_cannot_get_to_its_new_place() {
    let table = filled();
    let exporter = Exporter::new(&table);
    exporter.run(FULL).expect(3);
    let mut witness = Witness::new(&exporter);
    let update = |set: &str| update_all(&table, 40, &[set]);
    update("fext_field = '{\"version\": 2}' WHERE fid IN (1, 2)");
    witness.source_changed();
    // The file of invoice 1 is rewritten, nothing is recorded.
    assert!(run_with(&exporter, "renameat:signal=KILL:when=2", &FULL).was_killed());
    update("fcountry = 'IT' WHERE fid = 1");
    witness.source_changed();
    let closed = Closed::new(exporter.output().join("10/IT"));
    let finished = exporter.run(INCREMENTAL);
    drop(closed);
    assert!(exporter.tree().contains_key("10/DE/20251128+INV1.json"), "{finished}");
    assert_eq!(finished.status.code(), Some(3), "{finished}");
    exporter.run(INCREMENTAL).expect(0);
    witness.assert_made_good();
    witness.assert_recovered(1);
}

#[test]
fn a_sync_that_fails_ends_the_run_and_the_next_one_writes_again() {
    for inject in ["syncfs:error=EIO:when=1", "renameat:error=ENOSPC:when=5", "renameat:error=EIO:when=8"] {
        assert_written_again_after(inject, |exporter| run_with(exporter, inject, &FULL));
    }
    let one_by_one = ["run", "--mode", "full", "--durability", "file"];
    assert_written_again_after("a folder", |exporter| {
        let failed = run_with_at(exporter, "1/DE", "fsync:error=ENOSPC:when=1", &one_by_one);
        assert!(failed.stderr.contains("/1/DE: No space left on device"), "{failed}");
        assert!(failed.stderr.contains("free some space"), "{failed}");
        failed
    });
}

#[track_caller]
fn assert_written_again_after(fault: &str, run: impl Fn(&Exporter<'_>) -> Finished) {
    let table = filled();
    let exporter = changed(&table);
    let failed = run(&exporter).expect(1);
    failed.last_error();
    assert_eq!(exporter.ask("SELECT path FROM file_log WHERE run = 2"), [""; 0], "{fault}");
    let changed = numbers(&exporter.run(["run", "--format", "json"]).expect(0).json(), ["written"]);
    assert_eq!(changed, [14], "nothing on disk is trusted after {fault}");
    let witness = Witness::new(&exporter);
    witness.assert_made_good();
    witness.assert_recovered(0);
}

#[test]
fn a_sync_that_fails_when_the_state_is_closed_fails_the_run() {
    let table = filled();
    // A run goes on without a backup.
    let exporter = Exporter::new(&table).env("INVOICE_EXPORT_BACKUP_EVERY", "0s");
    exporter.run(INCREMENTAL).expect(3);
    let told = (1..10).any(|nth| {
        let finished = run_with(&exporter, &format!("fsync:error=EROFS:when={nth}"), &INCREMENTAL);
        finished.stderr.contains("close the state") && finished.status.code() == Some(1)
    });
    assert!(told, "no run failed when the state was closed");
    exporter.run(INCREMENTAL).expect(0);
    Witness::new(&exporter).assert_made_good();
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
    let witness = Witness::new(&exporter);
    witness.assert_made_good();
    witness.assert_recovered(1);
}

#[test]
fn a_run_may_die_while_one_batch_is_recorded_and_the_next_one_published() {
    let table = Table::embedded();
    table.load_sample(5_000, 6, "1:0.6,10:0.3,89:0.1");
    let exporter = Exporter::new(&table);
    let mut witness = Witness::new(&exporter);
    // By then the second batch is closed, since it is full or old.
    let slow = "syncfs:delay_exit=6000000:when=1";
    // Its twelfth is the list of the first batch, which is on record then: before it come eleven that remove two
    // probes, or what a dead run might have left.
    let slower = "unlinkat:delay_enter=8000000:when=12";
    let died = run_with(&exporter, &format!("{slow} {slower} linkat:signal=KILL:when=1100"), &FULL);
    assert!(died.was_killed(), "{died}");
    assert_eq!(exporter.tree().len(), 1_099);
    let lists = lists_of_targets(&exporter);
    assert_eq!(lists.len(), 2);
    let in_doubt = lists.iter().map(|list| list.lines().count() - 1).sum::<usize>();
    table.execute("UPDATE t_invoice SET fext_field = '[1]' WHERE fid % 3 = 0");
    witness.source_changed();
    let finished = exporter.run(INCREMENTAL).expect(0);
    assert!(finished.stderr.contains(&format!(" {in_doubt} files it left in doubt")), "{finished}");
    witness.assert_made_good();
    witness.assert_recovered(1);
}

#[test]
fn an_invoice_with_its_old_path_taken_and_its_new_one_blocked_is_on_no_record() {
    let table = Table::embedded();
    table.insert(&Row { id: 0, time: &table.ago(180 * MINUTE), ..Row::default() });
    let exporter = Exporter::new(&table);
    exporter.run(FULL).expect(0);
    // With another number it leaves its old file behind, so that its batch goes on its way like any other.
    update_all(&table, 40, &["finvoice_no = 'INV002', fcountry = 'DE' WHERE fid = 0"]);
    table.load_sample(1_200, 6, "2:1.0");
    table.insert(&Row { id: 1_000_000, document: "[2]", time: &table.ago(30 * MINUTE), ..Row::default() });
    let closed = Closed::new(exporter.output().join("1/DE"));
    // By then the second batch is closed.
    run_with(&exporter, "syncfs:delay_exit=4000000:when=1", &FULL).expect(3);
    assert_eq!(exporter.ask("SELECT id FROM ledger WHERE path = '1/CN/20251128+INV001.json'"), ["1000000"]);
    drop(closed);
    exporter.run(INCREMENTAL).expect(0);
    Witness::new(&exporter).assert_made_good();
}

#[test]
fn where_nothing_of_a_batch_was_put_in_place_nothing_of_it_is_in_doubt() {
    // By then the second batch is synced.
    let in_the_first_batch = "linkat:error=EIO:delay_enter=4000000:when=3";
    for (inject, in_doubt) in [(in_the_first_batch, vec![1_000]), ("syncfs:error=EIO:when=1", vec![])] {
        let table = Table::embedded();
        table.load_sample(1_500, 6, "1:0.6,10:0.3,89:0.1");
        let exporter = Exporter::new(&table);
        run_with(&exporter, inject, &FULL).expect(1);
        let files: Vec<usize> = lists_of_targets(&exporter).iter().map(|list| list.lines().count() - 1).collect();
        assert_eq!(files, in_doubt, "{inject}");
        exporter.run(INCREMENTAL).expect(0);
        let witness = Witness::new(&exporter);
        witness.assert_made_good();
        witness.assert_recovered(0);
    }
}

/// What lies in staging, but for the documents.
fn lists_of_targets(exporter: &Exporter<'_>) -> Vec<String> {
    let staging = fs::read_dir(exporter.output().join(".export_state/staging")).unwrap();
    staging.filter_map(|list| fs::read_to_string(list.unwrap().path()).ok()).collect()
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
            ("full", 0, 300),
            ("incremental", 0, 60),
            ("incremental", 0, 200),
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

#[test]
fn a_file_in_doubt_of_the_invoice_with_the_empty_id_is_its_own() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.execute("ALTER TABLE t_invoice MODIFY fid VARCHAR(40) NOT NULL");
        for (id, number) in [(1, "INV1"), (2, "INV2")] {
            table.insert(&Row { id, number, ..Row::default() });
        }
        table.execute("UPDATE t_invoice SET fid = '', fupdate_time = fupdate_time WHERE fid = '1'");
        for mode in [FULL, INCREMENTAL] {
            let exporter = Exporter::new(&table);
            exporter.run(FULL).expect(0);
            table.execute("UPDATE t_invoice SET fext_field = '[2]', fupdate_time = fupdate_time");
            assert!(run_with(&exporter, "renameat:signal=KILL:when=2", &FULL).was_killed());
            exporter.run(mode).expect(0);
            exporter.assert_agrees();
            assert_eq!(exporter.ask("SELECT path FROM leftover"), [""; 0]);
            exporter.assert_state_is_sound();
            table.execute("UPDATE t_invoice SET fext_field = '{}', fupdate_time = fupdate_time");
        }
    });
}

/// Invoice 1 has left its path for one where its document lies already: beside the file of an invoice that it shares
/// from then on.
fn moved_to_a_shared_file() -> Table {
    let table = Table::embedded();
    for (id, date) in [(1, "2025-11-28"), (2, "2025-11-29")] {
        table.insert(&Row { id, date, document: r#"{"same": 1}"#, ..Row::default() });
    }
    table
}

#[test]
fn an_invoice_that_comes_back_to_a_path_that_a_dead_run_emptied_gets_its_file() {
    let table = moved_to_a_shared_file();
    let exporter = Exporter::new(&table);
    exporter.run(FULL).expect(0);
    table
        .execute("UPDATE t_invoice SET fissue_date = '2025-11-29', fupdate_time = '2025-11-28 15:01:00' WHERE fid = 1");
    dies_everywhere(&exporter, &INCREMENTAL, |exporter| {
        exporter.table().execute(
            "UPDATE t_invoice SET fissue_date = '2025-11-28', fupdate_time = '2025-11-28 15:02:00' WHERE fid = 1",
        );
    });
}

#[test]
fn an_invoice_that_is_issued_again_after_a_prune_that_died_gets_its_file() {
    let table = Table::embedded();
    table.insert(&Row::default());
    table.insert(&Row { id: 2, tenant: "2", time: "2025-11-28 16:00:00", ..Row::default() });
    let exporter = Exporter::new(&table);
    exporter.run(FULL).expect(0);
    table.execute("UPDATE t_invoice SET fissue_status = '9' WHERE fid = 1");
    let kept = Kept::of(&exporter);
    let prune = ["verify", "--against-source", "--prune", "--prune-up-to", "10"];
    for call in ["unlinkat", "fsync", "pwrite64"] {
        let deaths = (1..).take_while(|nth| {
            kept.restore();
            let died = run_with(&exporter, &format!("{call}:signal=KILL:when={nth}"), &prune).was_killed();
            table.execute(
                "UPDATE t_invoice SET fissue_status = '3', fupdate_time = '2025-11-28 15:01:00' WHERE fid = 1",
            );
            exporter.run(INCREMENTAL).expect(0);
            exporter.assert_agrees();
            died
        });
        assert!(deaths.count() > 0, "no prune died at {call}");
    }
}
