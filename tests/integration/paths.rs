//! Who gets which path: moves, swaps, duplicates and ids that are used again, in every kind of run.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::disk::Closed;
use crate::support::exporter::{Finished, Tree, numbers, table_tree};
use crate::support::{Exporter, Row, Table, on_every_source};

const MINUTE: Duration = Duration::from_secs(60);
const CN: &str = "1/CN/20251128+INV001.json";

/// A table, its exporter and the kind of run under test.
struct Scene<'a> {
    table: &'a Table,
    exporter: Exporter<'a>,
    mode: &'static str,
}

/// With incremental runs on every source, and with full ones, which decide in the same way.
fn in_every_run(scenario: impl Fn(&Scene<'_>)) {
    on_every_source(|table| scenario(&Scene { table, exporter: Exporter::new(table), mode: "incremental" }));
    let table = Table::embedded();
    scenario(&Scene { table: &table, exporter: Exporter::new(&table), mode: "full" });
}

impl Scene<'_> {
    fn start(&self) -> Finished {
        self.exporter.run(["run", "--safety-lag", "1s", "--format", "json", "--mode", self.mode])
    }

    /// Runs, and checks what must be true after every run.
    #[track_caller]
    fn run(&self, code: i32) -> Value {
        let finished = self.start().expect(code);
        self.exporter.assert_state_is_sound();
        finished.json()
    }

    /// Runs, and the tree is what the table says.
    #[track_caller]
    fn agree(&self) -> Value {
        let summary = self.run(0);
        self.exporter.assert_agrees();
        assert_eq!(self.exporter.ask("SELECT id FROM reject WHERE closed_run IS NULL"), [""; 0]);
        summary
    }

    /// A row that came so many minutes ago.
    fn insert(&self, minutes: u32, row: &Row<'_>) {
        self.table.insert(&Row { time: &self.table.ago(minutes * MINUTE), ..*row });
    }

    /// Changes rows so many minutes ago.
    fn update(&self, minutes: u32, change: &str) {
        let (set, rows) = change.split_once(" WHERE ").expect("a change names its rows");
        let time = self.table.ago(minutes * MINUTE);
        self.table.execute(&format!("UPDATE t_invoice SET {set}, fupdate_time = '{time}' WHERE {rows}"));
    }

    fn files(&self) -> Vec<String> {
        self.exporter.tree().into_keys().collect()
    }

    fn ledger(&self) -> Vec<String> {
        self.exporter.ask("SELECT id, path FROM ledger ORDER BY CAST(id AS INTEGER)")
    }

    fn open_rejects(&self) -> Vec<String> {
        self.exporter.ask("SELECT id, reason FROM reject WHERE closed_run IS NULL ORDER BY id")
    }

    #[track_caller]
    fn assert_content(&self, path: &str, document: &str) {
        let tree = self.exporter.tree();
        let content = tree.get(path).unwrap_or_else(|| panic!("{path} is missing"));
        assert_eq!(String::from_utf8_lossy(content), document, "what lies at {path}");
    }
}

#[test]
fn an_invoice_that_changes_country_or_date_takes_its_file_along() {
    in_every_run(|scene| {
        scene.insert(50, &Row::default());
        scene.insert(50, &Row { id: 2, number: "STAYS", ..Row::default() });
        scene.agree();
        let stamp = scene.exporter.stamps()["1/CN/20251128+STAYS.json"];
        for (minutes, change) in [(40, "fcountry = 'DE'"), (30, "fissue_date = '2025-02-28'"), (10, "fcountry = NULL")]
        {
            scene.update(minutes, &format!("{change} WHERE fid = 1"));
            let summary = scene.agree();
            assert_eq!(numbers(&summary, ["written", "removed"]), [1, 1], "{change}");
        }
        assert_eq!(scene.exporter.stamps()["1/CN/20251128+STAYS.json"], stamp);
        assert_eq!(scene.exporter.ask_one("SELECT count(*) FROM file_log WHERE action = 'removed'"), "3");
    });
}

#[test]
fn two_invoices_that_swap_their_numbers_swap_their_files() {
    for documents in [[r#"{"a": 1}"#, r#"{"b": 2}"#], ["{}", "{}"]] {
        in_every_run(|scene| {
            for (id, number) in [(1, "A"), (2, "B")] {
                scene.insert(
                    50,
                    &Row { id, number, document: documents[usize::try_from(id).unwrap() - 1], ..Row::default() },
                );
            }
            scene.agree();
            scene.update(20, "finvoice_no = CASE fid WHEN 1 THEN 'B' ELSE 'A' END WHERE fid IN (1, 2)");
            let summary = scene.agree();
            assert_eq!(
                numbers(&summary, ["written", "rejected", "gone"]),
                [if documents[0] == "{}" { 0 } else { 2 }, 0, 0]
            );
            assert_eq!(scene.ledger(), ["1 1/CN/20251128+B.json", "2 1/CN/20251128+A.json"]);
            assert_eq!(scene.exporter.ask("SELECT path FROM leftover"), [""; 0]);
        });
    }
}

#[test]
fn invoices_that_move_up_one_after_the_other_end_where_they_belong() {
    in_every_run(|scene| {
        for (id, date) in [(1, "2025-11-01"), (2, "2025-11-02"), (3, "2025-11-03")] {
            scene.insert(50, &Row { id, date, document: &format!("{{\"id\": {id}}}"), ..Row::default() });
        }
        scene.agree();
        // 1 goes where 2 was and so on; then all the way back, so that both orders of ids are met.
        let up = "CASE fid WHEN 1 THEN '2025-11-02' WHEN 2 THEN '2025-11-03' ELSE '2025-11-04' END";
        let down = "CASE fid WHEN 1 THEN '2025-11-01' WHEN 2 THEN '2025-11-02' ELSE '2025-11-03' END";
        let round = "CASE fid WHEN 1 THEN '2025-11-02' WHEN 2 THEN '2025-11-03' ELSE '2025-11-01' END";
        for (minutes, dates, removed) in [(30, up, 1), (20, down, 1), (10, round, 0)] {
            scene.update(minutes, &format!("fissue_date = {dates} WHERE fid IN (1, 2, 3)"));
            let summary = scene.agree();
            assert_eq!(summary["removed"], removed);
        }
    });
}

#[test]
fn an_invoice_may_take_a_path_that_another_one_left_in_the_same_run() {
    for (taker, leaver) in [(1, 2), (2, 1)] {
        in_every_run(|scene| {
            scene.insert(50, &Row { id: leaver, document: r#"{"old": 1}"#, ..Row::default() });
            scene.insert(50, &Row { id: taker, number: "OTHER", ..Row::default() });
            scene.agree();
            scene.update(20, &format!("fissue_date = '2025-12-01' WHERE fid = {leaver}"));
            scene.update(20, &format!("finvoice_no = 'INV001' WHERE fid = {taker}"));
            scene.run(0);
            assert_eq!(scene.ledger().len(), 2);
            assert_eq!(scene.open_rejects(), [""; 0]);
            scene.assert_content(CN, Row::default().document);
            scene.assert_content("1/CN/20251201+INV001.json", r#"{"old": 1}"#);
            // Its number changed, so this may be another invoice's file.
            assert_eq!(scene.exporter.ask("SELECT path FROM leftover"), ["1/CN/20251128+OTHER.json"]);
        });
    }
}

#[test]
fn whose_old_path_is_taken_while_it_loses_its_new_one_is_on_record_nowhere() {
    in_every_run(|scene| {
        scene.insert(50, &Row { id: 1, date: "2025-11-01", ..Row::default() });
        scene.agree();
        let time = scene.table.ago(20 * MINUTE);
        scene.table.execute(&format!(
            "UPDATE t_invoice SET fissue_date = '2025-11-02', fupdate_time = '{time}' WHERE fid = 1"
        ));
        for (id, date, document) in [(2, "2025-11-01", "[1]"), (3, "2025-11-02", "[2]")] {
            scene.table.insert(&Row { id, date, document, time: &time, ..Row::default() });
        }
        scene.run(3);
        assert_eq!(scene.ledger(), ["2 1/CN/20251101+INV001.json", "3 1/CN/20251102+INV001.json"]);
        assert_eq!(scene.open_rejects(), ["1 path-taken"]);
        scene.assert_content("1/CN/20251101+INV001.json", "[1]");
        scene.update(10, "fissue_date = '2025-11-03' WHERE fid = 3");
        scene.agree();
    });
}

#[test]
fn whose_old_path_is_taken_while_its_new_one_is_blocked_is_on_record_nowhere() {
    in_every_run(|scene| {
        scene.insert(50, &Row::default());
        scene.agree();
        scene.update(20, "fcountry = 'DE' WHERE fid = 1");
        scene.insert(20, &Row { id: 2, document: "[2]", ..Row::default() });
        let closed = Closed::new(scene.exporter.output().join("1/DE"));
        scene.run(3);
        scene.assert_content(CN, "[2]");
        assert_eq!(scene.ledger(), [format!("2 {CN}")]);
        drop(closed);
        scene.agree();
    });
}

#[test]
fn a_claimant_of_a_path_that_a_first_run_recorded_is_told_apart_from_its_owner() {
    let table = Table::embedded();
    let (older, newer) = (table.ago(50 * MINUTE), table.ago(40 * MINUTE));
    table.insert(&Row { id: 0, time: &newer, ..Row::default() });
    // The second batch ends before the last invoice, and the first one is on record by then.
    table.load_sample(3_300, 6, "2:1.0");
    table.insert(&Row { id: 1_000_000, time: &older, document: "[2]", ..Row::default() });
    let exporter = Exporter::new(&table);
    exporter.run(["run", "--mode", "full"]).expect(3);
    assert_eq!(exporter.ask(&format!("SELECT id FROM ledger WHERE path = '{CN}'")), ["0"]);
    assert_eq!(fs::read_to_string(exporter.output().join(CN)).unwrap(), Row::default().document);
}

#[test]
fn two_that_move_to_one_blocked_path_both_keep_their_old_files() {
    in_every_run(|scene| {
        for (id, country) in [(1, "CN"), (2, "FR")] {
            scene.insert(50, &Row { id, country: Some(country), ..Row::default() });
        }
        scene.agree();
        let files = scene.files();
        scene.update(20, "fcountry = 'DE' WHERE fid IN (1, 2)");
        let closed = Closed::new(scene.exporter.output().join("1/DE"));
        scene.run(3);
        assert_eq!(scene.files(), files);
        drop(closed);
        scene.agree();
    });
}

#[test]
fn an_invoice_that_keeps_its_file_as_its_new_path_is_blocked_leaves_no_leftover() {
    in_every_run(|scene| {
        scene.insert(50, &Row::default());
        scene.agree();
        // With another number, the old file would stay as a leftover.
        scene.update(20, "finvoice_no = 'OTHER', fcountry = 'DE' WHERE fid = 1");
        let closed = Closed::new(scene.exporter.output().join("1/DE"));
        let summary = scene.run(3);
        assert_eq!(summary["leftovers"], 0, "{summary}");
        assert_eq!(scene.exporter.ask("SELECT path FROM leftover"), [""; 0]);
        assert_eq!(scene.ledger(), [format!("1 {CN}")]);
        drop(closed);
        assert_eq!(scene.run(0)["leftovers"], 1);
        assert_eq!(scene.exporter.ask("SELECT path FROM leftover"), [CN]);
    });
}

#[test]
fn of_two_that_share_a_file_the_one_whose_new_path_is_blocked_keeps_it() {
    for (stays, moves) in [(1, 2), (2, 1)] {
        in_every_run(|scene| {
            for id in [1, 2] {
                scene.insert(50, &Row { id, ..Row::default() });
            }
            scene.agree();
            scene.update(20, &format!("fcountry = 'DE' WHERE fid = {stays}"));
            scene.update(20, &format!("fcountry = 'FR' WHERE fid = {moves}"));
            let closed = Closed::new(scene.exporter.output().join("1/DE"));
            let summary = scene.run(3);
            assert_eq!(numbers(&summary, ["written", "removed"]), [1, 0], "{summary}");
            scene.assert_content(CN, Row::default().document);
            assert!(scene.ledger().contains(&format!("{stays} {CN}")), "{:?}", scene.ledger());
            drop(closed);
            scene.run(0);
            assert!(!scene.files().contains(&CN.to_owned()));
            scene.exporter.assert_agrees();
        });
    }
}

#[test]
fn of_two_that_share_a_file_the_one_that_loses_its_new_path_keeps_it() {
    for (loses, moves) in [(1, 2), (2, 1)] {
        in_every_run(|scene| {
            for id in [1, 2] {
                scene.insert(50, &Row { id, ..Row::default() });
            }
            scene.agree();
            scene.update(30, &format!("fcountry = 'DE' WHERE fid = {loses}"));
            scene.update(30, &format!("fcountry = 'FR' WHERE fid = {moves}"));
            scene.insert(20, &Row { id: 3, country: Some("DE"), document: "[3]", ..Row::default() });
            scene.run(3);
            assert_eq!(scene.open_rejects(), [format!("{loses} path-taken")]);
            scene.assert_content(CN, Row::default().document);
            assert!(scene.ledger().contains(&format!("{loses} {CN}")), "{:?}", scene.ledger());
        });
    }
}

#[test]
fn an_old_file_that_cannot_be_removed_fails_its_tenant_and_goes_when_pruned_next() {
    in_every_run(|scene| {
        scene.insert(50, &Row::default());
        scene.agree();
        scene.update(20, "fcountry = 'DE' WHERE fid = 1");
        scene.insert(20, &Row { id: 2, tenant: "89", ..Row::default() });
        let closed = Closed::new(scene.exporter.output().join("1/CN"));
        let summary = scene.run(3);
        assert_eq!(summary["failed_tenants"].as_array().unwrap().len(), 1, "{summary}");
        let error = summary["failed_tenants"][0]["error"].as_str().unwrap();
        assert!(error.starts_with(&format!("cannot remove {CN}: ")) && error.contains("--prune"), "{summary}");
        assert_eq!(numbers(&summary, ["written", "removed"]), [2, 0]);
        assert_eq!(scene.exporter.ask("SELECT id, path FROM leftover"), [format!("1 {CN}")]);
        let prune = || scene.exporter.run(["verify", "--against-source", "--prune", "--prune-up-to", "1"]);
        let stuck = prune().expect(6);
        assert!(stuck.stderr.contains(&format!("cannot remove {CN}: ")), "{stuck}");
        drop(closed);
        prune();
        scene.agree();
    });
}

#[test]
fn who_would_have_lost_a_path_keeps_it_while_the_winner_cannot_have_it() {
    for closed in ["1/CN", "1/DE"] {
        in_every_run(|scene| {
            scene.insert(50, &Row::default());
            scene.insert(50, &Row { id: 9, country: Some("FR"), ..Row::default() });
            scene.agree();
            scene.insert(20, &Row { id: 2, document: "[2]", ..Row::default() });
            scene.update(20, "fcountry = 'DE' WHERE fid = 9");
            // Either the winner's own folder, or another one of its tenant.
            let closed = Closed::new(scene.exporter.output().join(closed));
            scene.run(3);
            scene.assert_content(CN, Row::default().document);
            assert!(scene.ledger().contains(&format!("1 {CN}")), "{:?}", scene.ledger());
            drop(closed);
            scene.start();
            scene.exporter.assert_state_is_sound();
            scene.assert_content(CN, "[2]");
            assert_eq!(scene.open_rejects(), ["1 path-taken"]);
        });
    }
}

#[test]
fn of_two_documents_for_one_path_the_newer_wins_and_the_other_is_a_reject() {
    in_every_run(|scene| {
        scene.insert(40, &Row { id: 2, document: r#"{"of": 2}"#, ..Row::default() });
        scene.insert(30, &Row { id: 1, document: r#"{"of": 1}"#, ..Row::default() });
        let summary = scene.run(3);
        assert_eq!(
            [&summary["new_rejects"], &summary["open_rejects"], &summary["outcome"]],
            [&1.into(), &1.into(), &Value::from("partial")]
        );
        scene.assert_content(CN, r#"{"of": 1}"#);
        assert_eq!(scene.open_rejects(), ["2 path-taken"]);
        let stamps = scene.exporter.stamps();

        let summary = scene.run(0);
        assert_eq!(numbers(&summary, ["new_rejects", "open_rejects"]), [0, 1]);
        assert_eq!(scene.exporter.stamps(), stamps);
        assert_eq!(scene.open_rejects(), ["2 path-taken"]);

        scene.update(10, "fcountry = 'DE' WHERE fid = 1");
        scene.agree();
        assert_eq!(
            scene.exporter.ask_one("SELECT id, opened_run, closed_run, closed_how FROM reject"),
            "2 1 3 exported"
        );
    });
}

#[test]
fn of_two_documents_with_one_source_time_the_greater_id_wins() {
    in_every_run(|scene| {
        let time = scene.table.ago(30 * MINUTE);
        for id in [9, 10] {
            scene.table.insert(&Row { id, time: &time, document: &format!("{{\"of\": {id}}}"), ..Row::default() });
        }
        scene.run(3);
        scene.assert_content(CN, r#"{"of": 10}"#);
        assert_eq!(scene.open_rejects(), ["9 path-taken"]);
    });
}

#[test]
fn the_winner_of_a_path_keeps_a_file_that_was_right_already() {
    in_every_run(|scene| {
        scene.insert(50, &Row { id: 9, document: "[1]", ..Row::default() });
        scene.agree();
        scene.update(40, "finvoice_no = 'OTHER' WHERE fid = 9");
        scene.run(0);
        let stamp = scene.exporter.stamps()[CN];
        let time = scene.table.ago(20 * MINUTE);
        for (id, document) in [(1, "[2]"), (2, "[1]")] {
            scene.table.insert(&Row { id, document, time: &time, ..Row::default() });
        }
        scene.exporter.run(["run", "--mode", scene.mode, "--writers", "1"]).expect(3);
        scene.assert_content(CN, "[1]");
        scene.exporter.assert_state_is_sound();
        assert_eq!(scene.exporter.stamps()[CN], stamp, "nobody touched it");
    });
}

#[test]
fn a_newer_document_takes_a_path_from_its_holder_and_an_older_one_does_not() {
    in_every_run(|scene| {
        scene.insert(30, &Row { id: 5, document: r#"{"of": 5}"#, ..Row::default() });
        scene.agree();
        let stamps = scene.exporter.stamps();
        scene.insert(40, &Row { id: 6, document: r#"{"of": 6}"#, ..Row::default() });
        scene.run(3);
        assert_eq!(scene.exporter.stamps(), stamps, "the holder has the greater time");
        scene.insert(20, &Row { id: 4, document: r#"{"of": 4}"#, ..Row::default() });
        scene.run(3);
        scene.assert_content(CN, r#"{"of": 4}"#);
        assert_eq!(scene.ledger(), [format!("4 {CN}")]);
        assert_eq!(scene.open_rejects(), ["5 path-taken", "6 path-taken"]);
        // The next best gets it when the winner is gone.
        scene.table.execute("DELETE FROM t_invoice WHERE fid = 4");
        scene.run(0);
        scene.assert_content(CN, r#"{"of": 5}"#);
        assert_eq!(scene.open_rejects(), ["6 path-taken"]);
    });
}

#[test]
fn a_reject_whose_row_is_gone_is_closed() {
    in_every_run(|scene| {
        scene.insert(40, &Row { id: 1, document: "{\"of\": 1}", ..Row::default() });
        scene.insert(30, &Row { id: 2, document: "{\"of\": 2}", ..Row::default() });
        scene.run(3);
        scene.table.execute("DELETE FROM t_invoice WHERE fid = 1");
        scene.agree();
        assert_eq!(scene.exporter.ask_one("SELECT id, closed_run, closed_how FROM reject"), "1 2 gone");
        assert_eq!(scene.exporter.ask("SELECT id FROM todo"), [""; 0]);
    });
}

#[test]
fn two_rows_with_one_path_and_the_same_bytes_share_the_file_until_both_have_left() {
    in_every_run(|scene| {
        scene.insert(50, &Row { id: 1, ..Row::default() });
        scene.insert(40, &Row { id: 2, ..Row::default() });
        scene.agree();
        assert_eq!(scene.ledger(), [format!("1 {CN}"), format!("2 {CN}")]);
        let stamp = scene.exporter.stamps()[CN];
        scene.agree();
        scene.update(30, "fcountry = 'DE' WHERE fid = 2");
        let summary = scene.agree();
        assert_eq!(summary["removed"], 0);
        assert_eq!(scene.exporter.stamps()[CN], stamp, "the first still has it");
        scene.update(20, "fcountry = 'DE' WHERE fid = 1");
        let summary = scene.agree();
        assert_eq!(summary["removed"], 1);
        assert_eq!(scene.files(), ["1/DE/20251128+INV001.json"]);
    });
}

#[test]
fn of_two_rows_that_share_a_file_one_may_change_its_document() {
    in_every_run(|scene| {
        scene.insert(50, &Row { id: 1, ..Row::default() });
        scene.insert(50, &Row { id: 2, ..Row::default() });
        scene.agree();
        scene.update(30, "fext_field = '{\"newer\": 1}' WHERE fid = 1");
        scene.run(3);
        scene.assert_content(CN, r#"{"newer": 1}"#);
        assert_eq!(scene.ledger(), [format!("1 {CN}")]);
        assert_eq!(scene.open_rejects(), ["2 path-taken"]);
        scene.update(20, "fext_field = '{\"newer\": 1}' WHERE fid = 2");
        scene.agree();
        assert_eq!(scene.ledger(), [format!("1 {CN}"), format!("2 {CN}")]);
    });
}

#[test]
fn ids_that_are_used_again_leave_the_archived_invoices_their_files() {
    in_every_run(|scene| {
        for (id, number) in [(1, "OLD1"), (2, "OLD2")] {
            scene.insert(50, &Row { id, number, document: &format!("\"{number}\""), ..Row::default() });
        }
        scene.agree();
        let archived: Tree = scene.exporter.tree();
        let stamps = scene.exporter.stamps();
        scene.table.execute("DELETE FROM t_invoice");
        for (id, number) in [(1, "NEW1"), (2, "NEW2")] {
            scene.insert(20, &Row { id, number, document: &format!("\"{number}\""), ..Row::default() });
        }
        let summary = scene.run(0);
        assert_eq!(numbers(&summary, ["written", "removed"]), [2, 0]);
        let wanted: Tree = archived.clone().into_iter().chain(table_tree(scene.table)).collect();
        assert_eq!(scene.exporter.tree(), wanted);
        assert!(stamps.iter().all(|(path, stamp)| scene.exporter.stamps()[path] == *stamp));
        assert_eq!(
            scene.exporter.ask("SELECT path FROM leftover ORDER BY path"),
            archived.keys().cloned().collect::<Vec<_>>()
        );
        // When the invoice comes back under another id it takes its file up again.
        scene.insert(10, &Row { id: 7, number: "OLD1", document: "\"OLD1\"", ..Row::default() });
        let summary = scene.run(0);
        assert_eq!(summary["written"], 0);
        assert_eq!(scene.exporter.ask("SELECT path FROM leftover"), ["1/CN/20251128+OLD2.json"]);
        assert_eq!(scene.exporter.stamps()["1/CN/20251128+OLD1.json"], stamps["1/CN/20251128+OLD1.json"]);
    });
}

#[test]
fn a_number_that_only_changes_its_spelling_is_the_same_invoice() {
    in_every_run(|scene| {
        scene.insert(50, &Row { number: "inv-7", ..Row::default() });
        scene.agree();
        scene.update(20, "finvoice_no = 'INV-7' WHERE fid = 1");
        let summary = scene.agree();
        assert_eq!(summary["removed"], 1);
    });
}

#[test]
fn a_renamed_tenant_that_keeps_its_times_gets_its_files_and_the_old_ones_stay() {
    in_every_run(|scene| {
        scene.table.load_sample(60, 9, "1:0.5,10:0.5");
        scene.agree();
        let before = scene.exporter.tree();
        scene
            .table
            .execute("UPDATE t_invoice SET ftenant_id = 'new', fupdate_time = fupdate_time WHERE ftenant_id = '10'");
        let summary = scene.run(0);
        let moved = before.keys().filter(|path| path.starts_with("10/")).count();
        assert_eq!(numbers(&summary, ["written", "removed", "leftovers"]), [moved as u64, 0, moved as u64]);
        let wanted: Tree = before.into_iter().chain(table_tree(scene.table)).collect();
        assert_eq!(scene.exporter.tree(), wanted);
        assert_eq!(scene.exporter.ask("SELECT DISTINCT why FROM leftover"), ["tenant"]);
    });
}

#[test]
fn a_superseded_file_that_somebody_edited_is_left_with_a_notice() {
    in_every_run(|scene| {
        scene.insert(50, &Row::default());
        scene.agree();
        let file = scene.exporter.output().join(CN);
        fs::write(&file, "{\"edited\": \"by hand\"}").unwrap();
        scene.update(20, "fcountry = 'DE' WHERE fid = 1");
        let finished = scene.start().expect(0);
        scene.exporter.assert_state_is_sound();
        assert!(finished.stderr.contains(CN), "{finished}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "{\"edited\": \"by hand\"}");
        assert_eq!(scene.exporter.ask("SELECT path FROM leftover"), [CN]);
        scene.assert_content("1/DE/20251128+INV001.json", Row::default().document);
    });
}

#[test]
fn a_superseded_file_that_is_gone_already_is_no_trouble() {
    in_every_run(|scene| {
        scene.insert(50, &Row::default());
        scene.agree();
        fs::remove_dir_all(scene.exporter.output().join("1")).unwrap();
        scene.update(20, "fcountry = 'DE' WHERE fid = 1");
        let summary = scene.agree();
        assert_eq!(numbers(&summary, ["written", "removed"]), [1, 0]);
    });
}

#[test]
fn a_folder_in_the_place_of_a_file_makes_a_reject_that_heals() {
    in_every_run(|scene| {
        let blocked = scene.exporter.output().join(CN);
        fs::create_dir_all(&blocked).unwrap();
        scene.insert(50, &Row::default());
        scene.insert(50, &Row { id: 2, number: "FREE", ..Row::default() });
        scene.run(3);
        assert_eq!(scene.open_rejects(), ["1 path-blocked"]);
        assert_eq!(scene.files(), ["1/CN/20251128+FREE.json"]);
        fs::remove_dir(blocked).unwrap();
        scene.agree();
    });
}

#[test]
fn a_link_in_the_place_of_a_file_is_replaced_and_never_followed() {
    in_every_run(|scene| {
        let precious = scene.exporter.output().with_file_name("precious");
        fs::write(&precious, "keep me").unwrap();
        let link = scene.exporter.output().join(CN);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        scene.insert(50, &Row::default());
        scene.agree();
        assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(precious).unwrap(), "keep me");
    });
}
