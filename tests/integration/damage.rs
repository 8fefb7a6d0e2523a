//! A damaged state: never a panic, never a silent start from the beginning, always a way out that works.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::exporter::{Exporter, Finished, numbers, run_with};
use crate::support::rounds::Dice;
use crate::support::table::{Row, Table};

const INCREMENTAL: [&str; 5] = ["run", "--mode", "incremental", "--format", "json"];

fn table() -> Table {
    let table = Table::embedded();
    for id in 1..=200 {
        let (tenant, number) = (if id % 3 == 0 { "10" } else { "1" }, format!("INV{id}"));
        table.insert(&Row { id, tenant, number: &number, ..Row::default() });
    }
    table
}

/// Exported, with a backup.
fn exported(table: &Table) -> Exporter<'_> {
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(0);
    exporter.run(["state", "backup"]).expect(0);
    exporter
}

type Damage = Box<dyn Fn(&Path)>;

/// It ended as a program does that knows what it is doing.
#[track_caller]
fn assert_orderly(finished: &Finished, what: &str) {
    assert!(matches!(finished.status.code(), Some(0 | 1 | 3 | 5 | 6)), "{what}: {finished}");
    for word in ["panicked", "RUST_BACKTRACE", "unwrap"] {
        assert!(!finished.stderr.contains(word), "{what}: {finished}");
    }
}

/// `state restore latest` brings it back, and the tree is right after the next run.
#[track_caller]
fn assert_way_out(exporter: &Exporter<'_>, what: &str) {
    let restored = exporter.run(["state", "restore", "latest", "--yes"]);
    assert!(restored.status.success(), "{what}: {restored}");
    exporter.run(INCREMENTAL).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
    exporter.run(["state", "check", "--deep"]).expect(0);
}

#[test]
fn flipped_bytes_anywhere_are_noticed_or_do_no_harm() {
    let table = table();
    // The run's own backup would be the latest, of a state in which a byte may have flipped unseen.
    let exporter = exported(&table).env("INVOICE_EXPORT_BACKUP_EVERY", "0s");
    let (state, mut sound) = (exporter.state(), fs::read(exporter.state()).unwrap());
    let mut dice = Dice::new(42);
    let (mut noticed, mut harmless) = (0, 0);
    for round in 0..60 {
        let mut bytes = sound.clone();
        // One byte, a few, a stretch as a torn sector leaves it.
        let (count, stretch) = [(1, 1), (8, 1), (1, 512), (64, 1)][round % 4];
        for _ in 0..count {
            let at = usize::try_from(dice.below((bytes.len() - stretch) as u64)).unwrap();
            let mask = 1 + dice.below(255) as u8;
            bytes[at..at + stretch].iter_mut().for_each(|byte| *byte ^= mask);
        }
        fs::write(&state, &bytes).unwrap();
        let what = format!("round {round}");
        let checked = exporter.run(["state", "check", "--deep"]);
        assert_orderly(&checked, &what);
        let time = table.ago(std::time::Duration::from_secs(600));
        let id = 1000 + round as i64;
        table.insert(&Row { id, number: &format!("INV{id}"), time: &time, ..Row::default() });
        let run = exporter.run(INCREMENTAL);
        assert_orderly(&run, &what);
        if run.status.success() {
            harmless += 1;
            assert!(exporter.tree().contains_key(&format!("1/CN/20251128+INV{id}.json")), "{what}: {run}");
        } else {
            noticed += 1;
            assert!(run.stderr.contains("state"), "{what}: {run}");
        }
        // The log that the damaged state left must not reach the restored one.
        assert_way_out(&exporter, &what);
        sound = fs::read(&state).unwrap();
    }
    assert!(noticed > 5 && harmless > 5, "{noticed} noticed, {harmless} harmless: too one-sided a die");
}

#[test]
fn what_is_no_state_of_ours_is_refused_and_the_last_backup_brought_back() {
    let table = table();
    let of_another_program = |path: &Path| {
        fs::remove_file(path).unwrap();
        rusqlite::Connection::open(path).unwrap().execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    };
    let damages: [(&str, Damage); 7] = [
        ("empty", Box::new(|path| fs::write(path, "").unwrap())),
        ("of another program", Box::new(of_another_program)),
        ("text", Box::new(|path| fs::write(path, "tenant|time|count|status\n".repeat(20)).unwrap())),
        ("zeroes", Box::new(|path| fs::write(path, vec![0; 65_536]).unwrap())),
        ("cut", Box::new(|path| fs::File::options().write(true).open(path).unwrap().set_len(20_000).unwrap())),
        (
            "cut in the first page",
            Box::new(|path| fs::File::options().write(true).open(path).unwrap().set_len(700).unwrap()),
        ),
        ("gone", Box::new(|path| fs::remove_file(path).unwrap())),
    ];
    for (what, damage) in damages {
        let exporter = exported(&table);
        let stamps = exporter.stamps();
        damage(&exporter.state());
        let refused = exporter.run(INCREMENTAL).expect(5);
        let named = ["restore latest", "--mode full", "state restore"].iter().any(|way| refused.stderr.contains(way));
        assert!(named, "{what}: no way out is named: {refused}");
        for args in [&["state", "check"][..], &["state", "backup"], &["why", "INV1"]] {
            let finished = exporter.run(args);
            assert_orderly(&finished, what);
            assert_ne!(finished.status.code(), Some(0), "{what}: {args:?}: {finished}");
        }
        assert_way_out(&exporter, what);
        assert_eq!(exporter.stamps(), stamps, "{what}: nothing in the tree was touched");
    }
}

#[test]
fn a_log_that_is_cut_or_lost_costs_a_reading_at_most() {
    for (what, cut) in
        [("lost", None), ("cut to nothing", Some(0)), ("cut in a frame", Some(5000)), ("cut in its head", Some(20))]
    {
        for nth in [1, 3, 5] {
            let table = table();
            let exporter = exported(&table);
            let time = table.ago(std::time::Duration::from_secs(600));
            (301..=340)
                .for_each(|id| table.insert(&Row { id, number: &format!("INV{id}"), time: &time, ..Row::default() }));
            // Dies with a log that holds transactions.
            let died = run_with(&exporter, &format!("fsync:signal=KILL:when={nth}"), &INCREMENTAL).was_killed();
            let log = PathBuf::from(format!("{}-wal", exporter.state().display()));
            if !died || !log.exists() {
                continue;
            }
            match cut {
                None => fs::remove_file(&log).unwrap(),
                Some(length) => fs::File::options().write(true).open(&log).unwrap().set_len(length).unwrap(),
            }
            exporter.run(["state", "check", "--deep"]);
            let summary = exporter.run(INCREMENTAL).expect(0).json();
            assert!(numbers(&summary, ["seen"])[0] <= 240, "{what} {nth}: {summary}");
            exporter.assert_agrees();
            exporter.assert_state_is_sound();
        }
    }
}

#[test]
fn times_that_cannot_be_are_not_believed() {
    let table = table();
    for (what, sql) in [
        ("a watermark that is no time", "UPDATE tenant SET watermark = '20\u{7f}5-11-28 15:00:00'"),
        ("a look-back above the watermark", "UPDATE tenant SET look_back = '2029-11-28 15:00:00'"),
        ("a look-back that is no time", "UPDATE tenant SET look_back = ''"),
    ] {
        let exporter = exported(&table);
        crate::support::state::meddle(&exporter.state(), sql);
        let found = exporter.run(["state", "check"]).expect(6);
        assert!(found.stdout.contains("state restore latest"), "{what}: {found}");
        let refused = exporter.run(INCREMENTAL).expect(5);
        assert!(refused.stderr.contains("tenant"), "{what}: {refused}");
        assert_way_out(&exporter, what);
    }
}
