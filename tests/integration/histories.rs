//! Random histories of a few invoices that fight for a few paths, with runs that die in between. After
//! each plain run the tree must be what the rules say; a seed that fails is told and can be tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::exporter::run_with;
use crate::support::rounds::{Dice, assert_all_hold, with_seeds};
use crate::support::{Exporter, Row, Table};

const SECOND: Duration = Duration::from_secs(1);
const STEPS: u32 = 12;
const IDS: i64 = 7;

/// Changes one invoice, or makes or deletes one. Rows changed in one step share a source time.
fn change(table: &Table, dice: &mut Dice, time: &str) {
    let id = 1 + i64::try_from(dice.below(IDS as u64)).expect("a small number");
    let [number, date, document] =
        [&["A", "B", "C"][..], &["2025-11-01", "2025-11-02"], &["{}", "[1]", "[2]", "not json"]]
            .map(|all| dice.one_of(all));
    let set = match dice.below(8) {
        0 | 1 => {
            table.execute(&format!("DELETE FROM t_invoice WHERE fid = {id}"));
            if dice.below(2) == 0 {
                table.insert(&Row { id, number, date, document, time, ..Row::default() });
            }
            return;
        }
        2 | 3 => format!("finvoice_no = '{number}'"),
        4 | 5 => format!("fissue_date = '{date}'"),
        _ => format!("fext_field = '{document}'"),
    };
    table.execute(&format!("UPDATE t_invoice SET {set}, fupdate_time = '{time}' WHERE fid = {id}"));
}

/// The newest exportable invoice of each path that one claims, and its document.
fn winners(table: &Table) -> BTreeMap<String, (String, String)> {
    let rows = table.query(
        "SELECT fid, fissue_date, finvoice_no, fext_field FROM t_invoice WHERE fext_field <> 'not json'
         ORDER BY fupdate_time, fid",
    );
    // Later rows replace earlier ones.
    rows.iter().map(|row| parts(row)).map(|[id, path, document]| (path, (id, document))).collect()
}

/// Id, path and document of a row.
fn parts(row: &[Option<String>]) -> [String; 3] {
    let [Some(id), Some(date), Some(number), Some(document)] = row else { panic!("{row:?}") };
    [id.clone(), format!("1/CN/{}+{number}.json", date.replace('-', "")), document.clone()]
}

/// When those who have the winner's very document must have entered it too: a rival that was read
/// before the winner has its turn in the next run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Twins {
    Now,
    NextRun,
}

/// Everything that must be true after a run that ended.
fn assert_right(table: &Table, exporter: &Exporter<'_>, twins: Twins) {
    exporter.assert_state_is_sound();
    let (winners, tree) = (winners(table), exporter.tree());
    for (path, (_, document)) in &winners {
        let found = tree.get(path).map(|content| String::from_utf8_lossy(content));
        assert_eq!(found.as_deref(), Some(document.as_str()), "what lies at {path}");
    }
    for row in table.query("SELECT fid, fissue_date, finvoice_no, fext_field FROM t_invoice") {
        let [id, path, document] = parts(&row);
        let winner = winners.get(&path);
        let has_file = winner.is_some_and(|(_, winning)| *winning == document);
        let entered = exporter.ask(&format!("SELECT path FROM ledger WHERE id = '{id}'")) == [path.as_str()];
        let open = !exporter.ask(&format!("SELECT id FROM reject WHERE id = '{id}' AND closed_run IS NULL")).is_empty();
        let is_twin = has_file && winner.is_some_and(|(winner, _)| *winner != id);
        if !is_twin || twins == Twins::Now {
            assert_eq!(open, !has_file, "whether invoice {id} is rejected for {path}");
        }
        assert!(open || entered, "invoice {id} is neither at {path} nor rejected");
    }
}

/// So many of a hundred runs are killed.
fn live_through(dice: &mut Dice, deaths: u64) {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let calls = ["renameat", "unlinkat", "unlink", "write", "pwrite64", "syncfs", "fsync"];
    for step in 0..STEPS {
        let time = table.ago((1800 - step) * SECOND);
        for _ in 0..=dice.below(6) {
            change(&table, dice, &time);
        }
        let mode = dice.one_of(&["incremental", "incremental", "full"]);
        let args = ["run", "--mode", mode, "--writers", "1"];
        if dice.below(100) < deaths {
            let inject = format!("{}:signal=KILL:when={}", dice.one_of(&calls), 1 + dice.below(6));
            if run_with(&exporter, &inject, &args).was_killed() {
                continue;
            }
        } else {
            let finished = exporter.run(args);
            assert!(matches!(finished.status.code(), Some(0 | 3)), "step {step}: {finished}");
        }
        assert_right(&table, &exporter, Twins::NextRun);
    }
    for _ in 0..2 {
        let finished = exporter.run(["run"]);
        assert!(matches!(finished.status.code(), Some(0 | 3)), "{finished}");
    }
    assert_right(&table, &exporter, Twins::Now);
}

/// The last ones found mistakes.
const SEEDS: [u64; 10] = [0, 1, 2, 3, 4, 5, 6, 24, 27, 62];

fn live_through_all(deaths: u64) {
    let seeds = SEEDS.map(|seed| (format!("seed {seed}"), Dice::new(seed)));
    assert_all_hold(seeds, |mut dice| live_through(&mut dice, deaths));
    with_seeds(0, 300, |dice| live_through(dice, deaths));
}

#[test]
fn invoices_that_fight_for_paths_end_where_the_rules_say() {
    live_through_all(0);
}

#[test]
fn invoices_that_fight_for_paths_end_where_the_rules_say_though_runs_die() {
    live_through_all(50);
}
