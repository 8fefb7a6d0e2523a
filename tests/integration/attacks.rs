//! Somebody who may write into the tree plants links, pipes and folders in it, also while a run is at work:
//! nothing outside is ever touched, nothing hangs, and a plain run makes everything good.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::exporter::{spawn_held, table_tree};
use crate::support::listing::{Traces, everything_in};
use crate::support::{Exporter, Row, Table, wait_for};

const ROWS: i64 = 400;

/// Invoices of one folder, with a source time so long ago that every run may read them.
fn fill(table: &Table, document: &str) {
    let rows: Vec<String> = (1..=ROWS)
        .map(|id| format!("({id}, '1', 'CN', '2025-11-28', 'INV{id}', 3, '{document}', '2025-11-28 15:00:00')"))
        .collect();
    table.execute("DELETE FROM t_invoice");
    table.execute(&format!("INSERT INTO t_invoice VALUES {}", rows.join(", ")));
}

/// A folder with something precious in it, and how it looks.
fn outside(exporter: &Exporter<'_>) -> std::path::PathBuf {
    let outside = exporter.output().parent().unwrap().join("outside");
    fs::create_dir_all(outside.join("CN")).unwrap();
    for id in 1..=ROWS {
        fs::write(outside.join(format!("CN/20251128+INV{id}.json")), "precious").unwrap();
    }
    outside
}

/// Puts a link in the place of a folder and the folder back, as fast as it goes.
fn flip(folder: &Path, to: &Path, stop: &AtomicBool) {
    let aside = folder.with_extension("aside");
    while !stop.load(Ordering::Relaxed) {
        // The run makes and removes things there too, so any step may fail.
        if fs::rename(folder, &aside).is_ok() {
            let _ = symlink(to, folder);
            thread::yield_now();
            let _ = fs::remove_file(folder);
            if fs::rename(&aside, folder).is_err() {
                // The run has made the folder anew.
                let _ = fs::remove_dir_all(&aside);
            }
        }
    }
    let _ = fs::rename(&aside, folder);
}

#[test]
fn a_link_that_is_swapped_for_a_folder_while_a_run_is_at_work_leads_nowhere() {
    for (folder, target) in [("1", ""), ("1/CN", "CN"), (".export_state/staging", "CN")] {
        let table = Table::embedded();
        let exporter = Exporter::new(&table);
        fill(&table, "{}");
        exporter.run(["run"]).expect(0);
        let outside = outside(&exporter);
        let before = everything_in(&[&outside], Traces::None);
        for round in 0..6 {
            fill(&table, &format!("[{round}]"));
            let stop = AtomicBool::new(false);
            let (folder, target) = (exporter.output().join(folder), outside.join(target));
            thread::scope(|threads| {
                threads.spawn(|| flip(&folder, &target, &stop));
                // It may fail, it may fail its tenant, and it may refuse the link.
                let finished = exporter.run(["run", "--writers", "2"]);
                stop.store(true, Ordering::Relaxed);
                assert!(matches!(finished.status.code(), Some(0 | 1 | 3 | 5)), "{finished}");
            });
            let untouched = everything_in(&[&outside], Traces::None) == before;
            assert!(untouched, "a link in the place of {} led outside in round {round}", folder.display());
            for left in ["1.aside", "1/CN.aside", ".export_state/staging.aside"] {
                let _ = fs::remove_dir_all(exporter.output().join(left));
            }
        }
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        assert!(everything_in(&[&outside], Traces::None) == before, "the last run left the tree");
    }
}

#[test]
fn a_folder_that_goes_away_in_mid_run_takes_nothing_along_that_counts_as_exported() {
    let with_names = ["--durability", "file"];
    for (way, call, options) in [
        ("moved", "linkat", &[][..]),
        ("removed", "linkat", &[]),
        ("moved", "renameat", &with_names),
        ("removed", "renameat", &with_names),
    ] {
        let table = Table::embedded();
        table.load_sample(1_500, 6, "1:1.0");
        // So many that not all can be kept open.
        table.execute("UPDATE t_invoice SET ftenant_id = 't' || fid WHERE fid > 1100");
        let exporter = Exporter::new(&table);
        // In the second batch, after fifty files, which come by their paths; the first one is recorded meanwhile.
        let run = spawn_held(&exporter, call, 1050, &[&["run", "--mode", "full"], options].concat());
        let on_record = || exporter.ask("SELECT path FROM ledger WHERE path LIKE '1/%'");
        wait_for("the second batch", || exporter.tree().len() >= 1_040 && !on_record().is_empty());
        let folder = exporter.output().join("1");
        match way {
            "moved" => fs::rename(&folder, exporter.home().join("archive")).unwrap(),
            _ => fs::remove_dir_all(&folder).unwrap(),
        }
        let gone = on_record();
        run.go_on();
        let ended = run.wait().expect(3);
        assert!(ended.stderr.contains("cannot put 1/") && ended.stderr.contains("moved away"), "{way}: {ended}");
        let tree = exporter.tree();
        assert!(on_record().iter().all(|path| tree.contains_key(path) != gone.contains(path)), "{way}");
        assert!(tree.keys().any(|path| path.starts_with('t')), "{way}: the others are exported");
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        let tree = exporter.tree();
        assert!(table_tree(&table).keys().all(|path| tree.contains_key(path) != gone.contains(path)), "{way}");
        exporter.run(["run", "--mode", "full"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    }
}

#[test]
fn a_file_moved_away_with_its_folder_is_not_removed_when_its_invoice_moves() {
    let table = Table::embedded();
    table.load_sample(40, 6, "1:1.0");
    table.execute("UPDATE t_invoice SET fcountry = CASE WHEN fid = 1 THEN 'DE' ELSE 'CN' END");
    let exporter = Exporter::new(&table);
    exporter.run(["run", "--mode", "full"]).expect(0);
    table.execute("UPDATE t_invoice SET fcountry = 'DE' WHERE fid = 2");
    // All others are compared, so the folder is open by the time that the one file is put into the other folder.
    let run = spawn_held(&exporter, "renameat", 1, &["run", "--mode", "full"]);
    let staging = exporter.output().join(".export_state/staging");
    wait_for("a batch", || staging.join("targets-0").exists());
    let archive = exporter.home().join("archive");
    fs::rename(exporter.output().join("1/CN"), &archive).unwrap();
    let taken = everything_in(&[&archive], Traces::None);
    let still_waits = staging.exists() && exporter.tree().len() == 1;
    run.go_on();
    run.wait().expect(0);
    assert!(still_waits, "the folder was moved too late");
    assert!(everything_in(&[&archive], Traces::None) == taken, "a file of the archive is gone");
    exporter.run(["run", "--mode", "full"]).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn a_pipe_or_a_folder_in_the_place_of_a_file_holds_nobody_up_and_is_left_alone() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    for id in 1..=3 {
        table.insert(&Row { id, number: &format!("INV{id}"), ..Row::default() });
    }
    let folder = exporter.output().join("1/CN");
    fs::create_dir_all(folder.join("20251128+INV2.json")).unwrap();
    let pipe = folder.join("20251128+INV1.json");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    for (mode, code) in [("full", 3), ("incremental", 0), ("full", 0)] {
        exporter.run(["run", "--mode", mode]).expect(code);
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(exporter.ask("SELECT id, reason FROM reject ORDER BY id"), ["1 path-blocked", "2 path-blocked"]);
        assert_eq!(fs::read(folder.join("20251128+INV3.json")).unwrap(), Row::default().document.as_bytes());
    }
    fs::remove_file(&pipe).unwrap();
    fs::remove_dir(folder.join("20251128+INV2.json")).unwrap();
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}
