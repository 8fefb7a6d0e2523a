//! What a dry run foresees comes true: the same figures and the same paths as the run that follows it, whatever lies in
//! tree and state, over any number of batches.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::support::exporter::{Exporter, numbers, run_with};
use crate::support::listing::{Traces, everything_in};
use crate::support::rounds::{Dice, with_seeds};
use crate::support::table::{Row, Table};

const MINUTE: Duration = Duration::from_secs(60);
/// What one of the runs alone can say of itself.
const OF_ONE_RUN: [&str; 7] =
    ["run", "dry_run", "boundary", "seconds", "source_statements", "state_statements", "retries"];
const COUNTRIES: [&str; 3] = ["CN", "DE", "US"];

/// Invoices come in, change, move, are spoilt and taken away; some want the path of another one.
fn change_rows(table: &Table, dice: &mut Dice, next: &mut u64) {
    let time = table.ago(MINUTE * u32::try_from(10 + dice.below(300)).unwrap());
    let some = format!("fid % {} = {}", 2 + dice.below(4), dice.below(2));
    match dice.below(9) {
        0 => table.execute(&format!(
            "UPDATE t_invoice SET fext_field = '[' || fid || ', {next}]', fupdate_time = '{time}' WHERE {some}"
        )),
        1 => {
            let country = dice.one_of(&COUNTRIES);
            table
                .execute(&format!("UPDATE t_invoice SET fcountry = '{country}', fupdate_time = '{time}' WHERE {some}"));
        }
        2 => table.execute(&format!("UPDATE t_invoice SET fext_field = 'no', fupdate_time = '{time}' WHERE {some}")),
        3 => table.execute(&format!("UPDATE t_invoice SET fissue_status = 4, fupdate_time = '{time}' WHERE {some}")),
        4 => table.execute(&format!("DELETE FROM t_invoice WHERE {some}")),
        // The path of another invoice, with another document.
        5 => table.execute(&format!(
            "INSERT INTO t_invoice SELECT fid + {next} * 100000, ftenant_id, fcountry, fissue_date, finvoice_no, 3, \
             '[\"' || fid || '\", {next}]', '{time}' FROM t_invoice WHERE {some}"
        )),
        _ => {}
    }
    for _ in 0..dice.below(5) {
        *next += 1;
        let (number, document) = (format!("INV{}", dice.below(40)), format!("[{next}]"));
        let (tenant, country) = (dice.one_of(&["1", "10"]), Some(dice.one_of(&COUNTRIES)));
        let id = i64::try_from(*next).unwrap();
        table.insert(&Row { id, tenant, country, number: &number, document: &document, time: &time, ..Row::default() });
    }
}

/// Files go, change, or stand where an invoice will want to have one.
fn change_files(exporter: &Exporter<'_>, dice: &mut Dice) {
    let paths: Vec<String> = exporter.tree().into_keys().collect();
    for path in paths {
        let file = exporter.output().join(&path);
        match dice.below(12) {
            0 => fs::remove_file(file).unwrap(),
            1 => fs::write(file, "[]").unwrap(),
            _ => {}
        }
    }
    for _ in 0..dice.below(3) {
        let (tenant, country) = (dice.one_of(&["1", "10"]), dice.one_of(&COUNTRIES));
        let folder = exporter.output().join(tenant).join(country);
        fs::create_dir_all(&folder).unwrap();
        let document = format!("[{}]", dice.below(20));
        fs::write(folder.join(format!("20251128+INV{}.json", dice.below(40))), document).unwrap();
    }
}

fn arguments(dice: &mut Dice, table: &Table) -> Vec<String> {
    let since = table.ago(MINUTE * 200);
    let args: &[&str] = match dice.below(6) {
        0 | 1 => &["--mode", "full"],
        2 => &["--mode", "full", "--tenant", "1"],
        3 => &["--since", &since],
        _ => &["--mode", "incremental"],
    };
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// Something happens to the state, or a run dies.
fn trouble(exporter: &Exporter<'_>, dice: &mut Dice, table: &Table) {
    match dice.below(8) {
        0 => {
            let nth = 1 + dice.below(6);
            let args = ["run", "--mode", dice.one_of(&["full", "incremental"])];
            run_with(exporter, &format!("renameat,linkat:signal=KILL:when={nth}"), &args);
        }
        1 => drop(exporter.run(["state", "set", "1", &table.ago(MINUTE * 100), "--yes"])),
        2 => drop(exporter.run(["state", "reset", "--all", "--yes"])),
        3 => drop(exporter.run(["state", "backup"])),
        4 => drop(exporter.run(["state", "restore", "latest", "--yes"])),
        // The script's tree, or a lost state.
        5 if dice.below(2) == 0 => fs::remove_dir_all(exporter.output().join(".export_state")).unwrap_or_default(),
        _ => {}
    }
}

/// The files with their inodes and contents.
fn files(exporter: &Exporter<'_>) -> BTreeSet<(String, u64, i128)> {
    exporter.stamps().into_iter().map(|(path, (inode, modified))| (path, inode, modified)).collect()
}

/// The paths that the lines of a verbose dry run name with one of these words.
fn foretold(lines: &str, words: &[&str]) -> BTreeSet<String> {
    let named =
        |line: &str| words.iter().find_map(|word| line.strip_prefix(&format!("[INFO] {word}: ")).map(str::to_owned));
    lines.lines().filter_map(named).filter(|path| path.ends_with(".json")).collect()
}

/// The same run, dry and real.
fn assert_comes_true(exporter: &Exporter<'_>, arguments: &[String]) {
    let args = || ["run", "--format", "json", "-v"].into_iter().chain(arguments.iter().map(String::as_str));
    let before = everything_in(&[&exporter.output()], Traces::None);
    let dry = exporter.run(args().chain(["--dry-run"]));
    // SQLite makes the index of a log that a dead run has left anew.
    let now =
        everything_in(&[&exporter.output()], Traces::None).into_iter().filter(|(path, _)| !path.ends_with("-shm"));
    for (path, found) in now {
        assert_eq!(before.get(&path), Some(&found), "{path}\n{dry}");
    }
    let before = files(exporter);
    let real = exporter.run(args());
    assert_eq!(dry.status.code(), real.status.code(), "{arguments:?}\n{dry}\n{real}");
    if !matches!(real.status.code(), Some(0 | 3)) {
        return;
    }
    let (foreseen, came) = (dry.json(), real.json());
    for (name, value) in came.as_object().unwrap().iter().filter(|(name, _)| !OF_ONE_RUN.contains(&name.as_str())) {
        assert_eq!(&foreseen[name], value, "{name} of {arguments:?}\n{dry}\n{real}");
    }
    let [seen, written, new, replaced, moved, unchanged, taken_over] =
        numbers(&came, ["seen", "written", "new", "replaced", "moved", "unchanged", "taken_over"]);
    let [rejected, gone] = numbers(&came, ["rejected", "gone"]);
    assert_eq!([written, seen], [new + replaced + moved, written + unchanged + rejected + gone], "{came}");
    assert!(taken_over <= unchanged, "{came}");

    let after = files(exporter);
    let paths =
        |files: &BTreeSet<(String, u64, i128)>| files.iter().map(|file| file.0.clone()).collect::<BTreeSet<_>>();
    let touched: BTreeSet<String> = after.difference(&before).map(|file| file.0.clone()).collect();
    assert_eq!(foretold(&dry.stderr, &["new", "replaced", "moved"]), touched, "{arguments:?}\n{dry}\n{real}");
    let (had, has) = (paths(&before), paths(&after));
    let removed: BTreeSet<String> = had.difference(&has).cloned().collect();
    assert_eq!(foretold(&dry.stderr, &["removed"]), removed, "{arguments:?}\n{dry}\n{real}");
    // What a dead run has put there counts as new.
    let died = dry.stderr.contains("an earlier run died");
    for path in foretold(&dry.stderr, &["new"]).into_iter().filter(|_| !died) {
        assert!(!had.contains(&path), "{path} was there\n{dry}");
    }
    for path in foretold(&dry.stderr, &["replaced", "taken over"]) {
        assert!(had.contains(&path), "{path} was not there\n{dry}");
    }
}

#[test]
fn a_dry_run_says_what_the_run_after_it_does_whatever_lies_there() {
    with_seeds(25, 1_000, |dice| {
        let table = Table::in_memory();
        let exporter = Exporter::in_memory(&table);
        let mut next = 0;
        for _ in 0..5 {
            change_rows(&table, dice, &mut next);
            trouble(&exporter, dice, &table);
            change_rows(&table, dice, &mut next);
            if dice.below(3) == 0 {
                change_files(&exporter, dice);
            }
            assert_comes_true(&exporter, &arguments(dice, &table));
        }
    });
}

#[test]
fn a_dry_run_over_many_batches_says_what_the_run_after_it_does() {
    with_seeds(2, 40, |dice| {
        let table = Table::in_memory();
        table.load_sample(3_000, 7, "1:0.6,10:0.4");
        let exporter = Exporter::in_memory(&table);
        if dice.below(2) == 0 {
            exporter.run(["run", "--mode", "incremental"]).expect(0);
        }
        let mut next = 900_000;
        for _ in 0..2 {
            change_rows(&table, dice, &mut next);
            change_rows(&table, dice, &mut next);
            change_files(&exporter, dice);
            assert_comes_true(&exporter, &arguments(dice, &table));
        }
    });
}
