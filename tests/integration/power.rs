//! Power cuts on real ext4, with and without a journal, and XFS: what was not synced is gone, what was recorded must be there.
//!
//! Tree and state share a disk, or each has its own: a sync of the state makes everything else on its
//! disk durable too, which would hide that the tree forgot a sync of its own.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::disk::{Disk, FORMATS, Format, Fuse};
use crate::support::exporter::{Finished, run_with, table_tree};
use crate::support::invariants::Witness;
use crate::support::rounds::{Dice, assert_all_hold, tell, with_seeds};
use crate::support::scene::{CALLS, FULL, INCREMENTAL, change, change_again, change_at_random, filled};
use crate::support::{Exporter, Table};

/// Where tree and state lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    OneDisk,
    TwoDisks,
    /// And the tree is reached by FUSE.
    TwoDisksAndFuse,
}

/// The durability that the exporter takes unless it is told another one.
const BY_ITSELF: &str = "by itself";

const LAYOUTS: [Layout; 2] = [Layout::OneDisk, Layout::TwoDisks];

/// The disks of an exporter, the state's first: what a dead disk lets pass is recorded nowhere then.
struct Machine {
    fuse: Option<Fuse>,
    disks: Vec<Disk>,
    folders: Vec<TempDir>,
}

impl Machine {
    fn cut(&self) {
        self.disks.iter().for_each(Disk::cut);
    }

    fn restart(&mut self) {
        self.fuse.iter_mut().for_each(Fuse::unmount);
        self.disks.iter_mut().for_each(Disk::restart);
        self.fuse.iter_mut().for_each(Fuse::mount);
    }

    /// Where it is mounted.
    fn add_disk(&mut self, format: Format) -> PathBuf {
        let folder = TempDir::new().unwrap();
        let at = folder.path().to_owned();
        self.disks.push(Disk::new(format, &at));
        self.folders.push(folder);
        at
    }

    fn lose_power(&mut self) {
        self.cut();
        self.restart();
    }
}

/// Plays a scenario with tree and state on disks of their own.
fn on_disks(format: Format, layout: Layout, durability: &str, scenario: impl FnOnce(&Exporter<'_>, &mut Machine)) {
    let table = filled();
    let mut exporter = Exporter::new(&table);
    if durability != BY_ITSELF {
        exporter.set("INVOICE_EXPORT_DURABILITY", durability);
    }
    let mut machine = Machine { fuse: None, disks: Vec::new(), folders: Vec::new() };
    if layout != Layout::OneDisk {
        exporter.set("INVOICE_EXPORT_STATE_DIR", machine.add_disk(format).join("state"));
    }
    if layout == Layout::TwoDisksAndFuse {
        let served = machine.add_disk(format);
        machine.fuse = Some(Fuse::new(&served, exporter.home()));
    } else {
        machine.disks.push(Disk::new(format, exporter.home()));
    }
    scenario(&exporter, &mut machine);
}

/// The same on every kind of disk, with every kind of durability that is promised there.
fn on_all_disks(scenario: impl Fn(&Exporter<'_>, &mut Machine)) {
    let kinds = FORMATS.iter().flat_map(|format| ["batch", "file"].map(|durability| (*format, durability)));
    // Without a journal `file` does not hold (tests/FAULTS.md).
    let kinds = kinds.chain([(Format::Ext4WithoutJournal, "batch")]);
    let kinds = kinds.flat_map(|(format, durability)| LAYOUTS.map(|layout| (format, layout, durability)));
    // There `batch` does not hold.
    let kinds = kinds.chain(FORMATS.map(|format| (format, Layout::TwoDisksAndFuse, BY_ITSELF)));
    assert_all_hold(kinds.map(|kind| (format!("{kind:?}"), kind)), |(format, layout, durability)| {
        on_disks(format, layout, durability, &scenario);
    });
}

#[test]
fn what_a_finished_run_says_it_did_is_there_after_a_power_cut() {
    on_all_disks(|exporter, machine| {
        let mut witness = Witness::new(exporter);
        exporter.run(INCREMENTAL).expect(3);
        machine.lose_power();
        witness.assert_complete();
        for (changes, args) in [(change as fn(&Table), INCREMENTAL), (change_again, FULL)] {
            changes(exporter.table());
            witness.source_changed();
            exporter.run(args).expect(0);
            machine.lose_power();
            witness.assert_complete();
        }
        exporter.run(INCREMENTAL).expect(0);
        witness.assert_made_good();
    });
}

#[test]
fn what_a_run_has_recorded_is_there_after_a_power_cut_in_its_middle() {
    on_all_disks(|exporter, machine| {
        exporter.run(INCREMENTAL).expect(3);
        change(exporter.table());
        let mut witness = Witness::new(exporter);
        // The list of a batch is removed when the batch is recorded.
        assert!(run_with(exporter, "unlink:signal=KILL:when=1", &FULL).was_killed());
        let recorded = remembered(exporter);
        assert_ne!(exporter.ask("SELECT path FROM file_log WHERE run = 2"), [""; 0], "nothing is recorded yet");
        machine.lose_power();
        assert_eq!(remembered(exporter), recorded);
        exporter.assert_ledger_matches_files();
        change_again(exporter.table());
        witness.source_changed();
        exporter.run(INCREMENTAL).expect(0);
        witness.assert_made_good();
    });
}

/// What another program on the same disk does all the time, and what writes names to the disk whose files
/// may not be there yet.
fn a_neighbour_syncs(exporter: &Exporter<'_>) {
    let mut file = File::create(exporter.home().join("neighbour")).unwrap();
    file.write_all(b"a neighbour").and_then(|()| file.sync_all()).unwrap();
}

#[test]
fn no_half_file_is_seen_where_a_neighbour_syncs_in_mid_batch_and_the_power_fails() {
    on_all_disks(|exporter, machine| {
        let mut witness = Witness::new(exporter);
        for (nth, meanwhile) in [(3, change as fn(&Table)), (7, change_again)] {
            let inject = ["linkat", "renameat"].map(|call| format!("{call}:signal=KILL:when={nth}")).join(" ");
            assert!(run_with(exporter, &inject, &INCREMENTAL).was_killed());
            a_neighbour_syncs(exporter);
            machine.lose_power();
            witness.assert_nothing_is_half();
            meanwhile(exporter.table());
            witness.source_changed();
        }
        exporter.run_plainly(&INCREMENTAL);
        witness.assert_made_good();
    });
}

#[test]
fn a_file_that_is_taken_over_is_as_durable_as_one_that_is_written() {
    on_all_disks(|exporter, machine| {
        for (path, content) in table_tree(exporter.table()) {
            let file = exporter.output().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        let taken_over = exporter.run(FULL).expect(3);
        assert!(taken_over.stdout.contains("unchanged: 60"), "{taken_over}");
        machine.lose_power();
        let witness = Witness::new(exporter);
        witness.assert_complete();
        exporter.run(INCREMENTAL).expect(0);
        witness.assert_made_good();
    });
}

/// The ledger, the watermarks and the runs.
fn remembered(exporter: &Exporter<'_>) -> Vec<String> {
    let ledger = exporter.ask("SELECT id, time, path, hex(sha256), run, settled FROM ledger ORDER BY id");
    let tenants = exporter.ask("SELECT name, watermark, look_back, newest, last_run FROM tenant ORDER BY name");
    let runs = exporter.ask("SELECT id, status, seen, written FROM run ORDER BY id");
    [ledger, tenants, runs].concat()
}

/// The power ends in the middle of a run. Most runs end with it: at one system call, or some milliseconds
/// after the start. None if the run went on without its disks: Linux may answer a sync that is under way
/// in that moment with success, so that its last word counts for nothing.
fn run_into_a_cut(exporter: &Exporter<'_>, machine: &mut Machine, dice: &mut Dice) -> Option<Finished> {
    let args = dice.one_of(&[INCREMENTAL, INCREMENTAL, FULL]);
    let way = dice.below(4);
    let finished = if way < 2 {
        let inject = format!("{}:signal=KILL:when={}", dice.one_of(&CALLS), 1 + dice.below(40));
        Some(run_with(exporter, &inject, &args))
    } else {
        let running = exporter.spawn(args);
        thread::sleep(Duration::from_micros(dice.below(60_000)));
        if way == 2 {
            running.signal(Signal::KILL);
            Some(running.wait())
        } else {
            machine.cut();
            running.wait();
            None
        }
    };
    if finished.is_some() {
        if dice.below(2) == 0 {
            a_neighbour_syncs(exporter);
        }
        machine.cut();
    }
    machine.restart();
    finished
}

#[test]
fn the_power_may_fail_at_any_moment() {
    let (cuts, in_runs) = (Cell::new(0), Cell::new(0));
    with_seeds(4, 150, |dice| {
        let format = dice.one_of(&FORMATS);
        let kinds = LAYOUTS.into_iter().flat_map(|layout| ["batch", "batch", "file"].map(|kind| (layout, kind)));
        let kinds: Vec<_> = kinds.chain([(Layout::TwoDisksAndFuse, BY_ITSELF)]).collect();
        let (layout, durability) = dice.one_of(&kinds);
        on_disks(format, layout, durability, |exporter, machine| {
            let mut witness = Witness::new(exporter);
            for minutes in [40, 35, 30] {
                let faulty = run_into_a_cut(exporter, machine, dice);
                witness.assert_nothing_is_half();
                faulty.iter().for_each(|faulty| witness.assert_bearable(faulty));
                cuts.set(cuts.get() + 1);
                in_runs.set(in_runs.get() + u32::from(faulty.is_none_or(|faulty| faulty.was_killed())));
                // Every other one meets what the cut before it has left.
                if dice.below(2) == 0 {
                    change_at_random(exporter.table(), dice, minutes);
                    witness.source_changed();
                }
                if dice.below(2) == 0 {
                    exporter.run_plainly(&INCREMENTAL);
                    witness.assert_made_good();
                }
            }
            exporter.run_plainly(&INCREMENTAL);
            machine.lose_power();
            witness.assert_complete();
            exporter.run(INCREMENTAL).expect(0);
            witness.assert_made_good();
            cuts.set(cuts.get() + 1);
        });
    });
    tell(&format!("power cuts at random moments: {}, of these in the middle of a run: {}", cuts.get(), in_runs.get()));
}
