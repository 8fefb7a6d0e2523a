//! Disks that run full, turn read-only, or take what is written and fail to keep it.

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::disk::{Ballast, Disk, FORMATS, Format, Mount};
use crate::support::exporter::Finished;
use crate::support::invariants::Witness;
use crate::support::rounds::{tell, with_seeds};
use crate::support::scene::{FULL, INCREMENTAL, change, filled};
use crate::support::{Exporter, Table};

/// It ended with a word about what went wrong, or nothing did.
#[track_caller]
fn assert_told(faulty: &Finished) {
    let told = faulty.stderr.lines().any(|line| line.starts_with("[ERROR]"));
    let code = faulty.status.code();
    assert!(matches!(code, Some(0 | 3)) || (told && matches!(code, Some(1 | 5))), "{faulty}");
}

#[test]
fn a_disk_without_room_or_inodes_ends_the_run_and_a_larger_one_makes_it_good() {
    let failed = Cell::new(0);
    with_seeds(10, 300, |dice| {
        let table = filled();
        let elsewhere = TempDir::new().unwrap();
        let exporter = Exporter::new(&table);
        let apart = || elsewhere.path().join("state");
        // The tree, the state, or both lie on a small disk.
        let (exporter, small) = match dice.below(3) {
            0 => (exporter, true),
            1 => (exporter.env("INVOICE_EXPORT_STATE_DIR", apart()), true),
            _ => (exporter.env("INVOICE_EXPORT_STATE_DIR", apart()), false),
        };
        let at = if small { exporter.home() } else { elsewhere.path() };
        let _mount = Mount::memory(at, "size=8m,nr_inodes=600");
        if dice.below(2) == 0 {
            exporter.run_plainly(&INCREMENTAL);
            change(&table);
        }
        let witness = Witness::new(&exporter);
        let ballast = match dice.below(2) {
            0 => Ballast::leaving_bytes(at, 4096 * dice.below(160)),
            _ => Ballast::leaving_inodes(at, dice.below(90)),
        };
        let args = dice.one_of(&[INCREMENTAL, FULL]);
        for _ in 0..=dice.below(2) {
            let faulty = exporter.run(args);
            assert_told(&faulty);
            witness.assert_bearable(&faulty);
            failed.set(failed.get() + u32::from(faulty.status.code() == Some(1)));
        }
        drop(ballast);
        exporter.run_plainly(&args);
        witness.assert_made_good();
    });
    tell(&format!("disks or inodes ran out: {} times", failed.get()));
    assert!(failed.get() > 0, "no disk was full");
}

#[test]
fn a_disk_that_turns_read_only_ends_the_run_and_the_next_one_makes_it_good() {
    let failed = Cell::new(0);
    with_seeds(4, 100, |dice| {
        let table = filled();
        let exporter = Exporter::new(&table);
        let mut disk = Disk::new(Format::Ext4, exporter.home());
        exporter.run_plainly(&INCREMENTAL);
        change(&table);
        let witness = Witness::new(&exporter);
        let args = dice.one_of(&[INCREMENTAL, FULL]);
        let running = exporter.spawn(args);
        thread::sleep(Duration::from_micros(dice.below(40_000)));
        disk.give_up();
        let faulty = running.wait();
        assert_told(&faulty);
        failed.set(failed.get() + u32::from(!faulty.status.success()));
        disk.restart();
        witness.assert_bearable(&faulty);
        exporter.run_plainly(&args);
        witness.assert_made_good();
    });
    tell(&format!("read-only in the middle of a run: {} times", failed.get()));
}

/// Documents of some size, more than fit on a disk that has too little behind it.
fn large(table: &Table) {
    table.execute(
        "WITH RECURSIVE n (id) AS (VALUES (1001) UNION ALL SELECT id + 1 FROM n WHERE id < 1600)
         INSERT INTO t_invoice SELECT id, '1', 'CN', '2025-11-28', 'INV' || id, 3,
         '\"' || hex(randomblob(5000)) || '\"', datetime('now', '-2000 seconds') FROM n",
    );
}

#[test]
fn a_disk_that_takes_files_and_cannot_keep_them_ends_the_run_untrusted() {
    let failed = Cell::new(0);
    with_seeds(4, 60, |dice| {
        let (format, table, elsewhere) = (dice.one_of(&FORMATS), filled(), TempDir::new().unwrap());
        let exporter = Exporter::new(&table);
        let exporter = match dice.below(2) {
            0 => exporter,
            _ => exporter.env("INVOICE_EXPORT_STATE_DIR", elsewhere.path().join("state")),
        };
        let exporter = exporter.env("INVOICE_EXPORT_DURABILITY", dice.one_of(&["batch", "batch", "file"]));
        let behind = TempDir::new().unwrap();
        let _memory = Mount::memory(behind.path(), "size=200m");
        let mut disk = Disk::with_image_in(behind.path(), format, 200, exporter.home());
        exporter.run_plainly(&INCREMENTAL);
        large(&table);
        let witness = Witness::new(&exporter);
        let ballast = Ballast::leaving_bytes(behind.path(), 4096 * dice.below(1400));
        let args = dice.one_of(&[INCREMENTAL, FULL]);
        let faulty = exporter.run(args);
        assert_told(&faulty);
        if !faulty.status.success() {
            // The kernel tells of a lost write once; what is there by now is not on the disk.
            let again = exporter.run(args);
            assert!(!again.status.success(), "{faulty}\n{again}");
            failed.set(failed.get() + 1);
        }
        drop(ballast);
        disk.restart();
        witness.assert_bearable(&faulty);
        exporter.run_plainly(&args);
        disk.restart();
        witness.assert_made_good();
    });
    tell(&format!("writes that the disk did not keep: {} times", failed.get()));
    assert!(failed.get() > 0, "the disk kept everything");
}
