//! `verify`: every way in which tree, ledger and source may differ is found, and nothing that does not;
//! what is to be mended is mended, and nothing else is touched.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::exporter::{Finished, Running, run_with, run_with_at};
use crate::support::listing::{Traces, everything_in};
use crate::support::{Exporter, Row, Table, on_every_source};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const SOURCE: &str = "--against-source";

/// Ten invoices of two tenants, exported by an incremental run.
fn exported(table: &Table) -> Exporter<'_> {
    for id in 1..=10 {
        let (tenant, number) = (["1", "10"][id as usize % 2], format!("INV{id}"));
        let (document, time) = (format!("{{\"id\": {id}}}"), table.ago(2 * HOUR + 10 * MINUTE));
        table.insert(&Row { id, tenant, number: &number, document: &document, time: &time, ..Row::default() });
    }
    let exporter = Exporter::new(table);
    exporter.run(["run", "--mode", "incremental", "--safety-lag", "1s"]).expect(0);
    exporter
}

fn file(exporter: &Exporter<'_>, id: u32) -> PathBuf {
    exporter.output().join(path(id))
}

fn path(id: u32) -> String {
    format!("{}/CN/20251128+INV{id}.json", ["1", "10"][id as usize % 2])
}

/// Verifies, and returns the whole answer.
#[track_caller]
fn verify(exporter: &Exporter<'_>, args: &[&str], code: i32) -> Value {
    exporter.run(["verify", "--format", "json"].iter().chain(args)).expect(code).json()
}

/// What was found: difference, id and path of each.
fn found(answer: &Value) -> Vec<String> {
    let word = |finding: &Value, field: &str| finding[field].as_str().unwrap_or("-").to_owned();
    let line = |finding: &Value| ["difference", "id", "path"].map(|field| word(finding, field)).join(" ");
    answer["findings"].as_array().unwrap().iter().map(line).collect()
}

#[track_caller]
fn assert_finds(exporter: &Exporter<'_>, args: &[&str], wanted: &[&str]) -> Value {
    let answer = verify(exporter, args, if wanted.is_empty() { 0 } else { 6 });
    assert_eq!(found(&answer), wanted, "{args:?}");
    assert_eq!(answer["differences"], wanted.len());
    answer
}

/// Watermarks, look-backs and what else a tenant's row says.
fn tenants(exporter: &Exporter<'_>) -> Vec<String> {
    exporter.ask("SELECT * FROM tenant ORDER BY n")
}

/// Other content of the same size, with the time of modification that the file had before.
fn forge(file: &PathBuf) {
    let (content, modified) = (fs::read(file).unwrap(), fs::metadata(file).unwrap().modified().unwrap());
    fs::write(file, vec![b'1'; content.len()]).unwrap();
    File::options().write(true).open(file).unwrap().set_modified(modified).unwrap();
}

#[test]
fn where_nothing_differs_it_says_so_and_changes_nothing_but_the_history() {
    on_every_source(|table| {
        let exporter = exported(table);
        let before = everything_in(&[&exporter.output()], Traces::OfARecord);
        let tenants_before = tenants(&exporter);
        for args in [&[][..], &["--hash"], &[SOURCE], &[SOURCE, "--documents", "--hash"]] {
            let answer = assert_finds(&exporter, args, &[]);
            assert_eq!((&answer["result"], &answer["files_looked_at"]), (&"nothing differs".into(), &10.into()));
        }
        assert_eq!(everything_in(&[&exporter.output()], Traces::OfARecord), before);
        assert_eq!(tenants(&exporter), tenants_before);
        let text = exporter.run(["verify"]).expect(0);
        assert!(text.stdout.starts_with("result           nothing differs\n") && text.stderr.is_empty(), "{text}");
    });
}

#[test]
fn whatever_happened_to_a_file_is_found() {
    let table = Table::embedded();
    let exporter = exported(&table);
    fs::remove_file(file(&exporter, 1)).unwrap();
    fs::write(file(&exporter, 2), "{}").unwrap();
    let later = fs::metadata(file(&exporter, 3)).unwrap().modified().unwrap() + HOUR;
    fs::write(file(&exporter, 3), vec![b'1'; fs::read(file(&exporter, 3)).unwrap().len()]).unwrap();
    File::options().write(true).open(file(&exporter, 3)).unwrap().set_modified(later).unwrap();
    fs::set_permissions(file(&exporter, 5), Permissions::from_mode(0o600)).unwrap();
    fs::rename(file(&exporter, 6), exporter.output().join("1/CN/20251128+INV66.json")).unwrap();
    symlink("20251128+INV9.json", file(&exporter, 6)).unwrap();
    fs::remove_file(file(&exporter, 8)).unwrap();
    fs::create_dir(file(&exporter, 8)).unwrap();
    fs::write(exporter.output().join("10/CN/notes.txt"), "").unwrap();
    fs::write(exporter.output().join("README"), "beside the tenants nothing is ours").unwrap();
    fs::write(exporter.output().join("10/CN/.rsync-tmp"), "").unwrap();
    // Touched, but with the same content.
    File::options().write(true).open(file(&exporter, 9)).unwrap().set_modified(later).unwrap();
    let wanted = [
        "missing 1 10/CN/20251128+INV1.json",
        "altered 2 1/CN/20251128+INV2.json",
        "altered 6 1/CN/20251128+INV6.json",
        "altered 8 1/CN/20251128+INV8.json",
        "altered 3 10/CN/20251128+INV3.json",
        "permissions 5 10/CN/20251128+INV5.json",
        "foreign - 1/CN/20251128+INV66.json",
        "foreign - 10/CN/notes.txt",
    ];
    let answer = assert_finds(&exporter, &[], &wanted);
    let details: Vec<&str> =
        answer["findings"].as_array().unwrap().iter().map(|f| f["detail"].as_str().unwrap()).collect();
    assert_eq!(details[1], "it has 2 bytes, 9 were exported");
    assert_eq!(details[5], "its mode is 0600, its folder's asks for 0644");
    fs::set_permissions(exporter.output().join("1/CN"), Permissions::from_mode(0o555)).unwrap();
    assert!(found(&verify(&exporter, &[], 6)).contains(&"permissions - 1/CN".to_owned()));
    let few = verify(&exporter, &["--limit", "1"], 6);
    assert_eq!((few["differences"].as_u64(), found(&few).len()), (Some(9), 4));
}

#[test]
fn content_that_was_forged_behind_size_and_time_is_found_by_its_hash() {
    let table = Table::embedded();
    let exporter = exported(&table);
    forge(&file(&exporter, 4));
    assert_finds(&exporter, &[], &[]);
    assert_finds(&exporter, &["--hash"], &["altered 4 1/CN/20251128+INV4.json"]);
}

#[test]
fn everything_in_which_the_source_differs_is_found_and_what_is_on_its_way_is_not() {
    on_every_source(|table| {
        let exporter = exported(table);
        // Below everything that later runs read.
        table.insert(&Row { id: 11, number: "INV11", time: &table.ago(2 * DAY), ..Row::default() });
        let set = |change: &str, id: i64| table.execute(&format!("UPDATE t_invoice SET {change} WHERE fid = {id}"));
        set(&format!("fext_field = '[2]', fupdate_time = '{}'", table.ago(DAY)), 2);
        set(&format!("fissue_date = '2025-12-01', fupdate_time = '{}'", table.ago(DAY)), 3);
        set("fissue_status = 2, fupdate_time = fupdate_time", 4);
        table.execute("DELETE FROM t_invoice WHERE fid = 5");
        // The next run's business.
        table.insert(&Row { id: 12, number: "INV12", time: &table.ahead(2 * MINUTE), ..Row::default() });
        set(&format!("fext_field = '[6]', fupdate_time = '{}'", table.ahead(2 * MINUTE)), 6);
        table.insert(&Row { id: 13, tenant: "new", number: "INV13", time: &table.ahead(2 * MINUTE), ..Row::default() });
        let wanted = [
            "lost 11 1/CN/20251128+INV11.json",
            "stale 2 1/CN/20251128+INV2.json",
            "moved 3 10/CN/20251128+INV3.json",
            "withdrawn 4 1/CN/20251128+INV4.json",
            "withdrawn 5 10/CN/20251128+INV5.json",
        ];
        let answer = assert_finds(&exporter, &[SOURCE], &wanted);
        assert_eq!(answer["pending"], 3);
        // Nor does it change with the next runs, which do not read so far back.
        exporter.run(["run", "--mode", "incremental", "--safety-lag", "1s"]).expect(0);
        assert_finds(&exporter, &[SOURCE], &wanted);
    });
}

#[test]
fn an_update_that_left_the_source_time_as_it_was_is_found_by_its_document() {
    on_every_source(|table| {
        let exporter = exported(table);
        table.execute("UPDATE t_invoice SET fext_field = '[7]', fupdate_time = fupdate_time WHERE fid = 7");
        table.execute("UPDATE t_invoice SET fcountry = 'DE', fupdate_time = fupdate_time WHERE fid = 8");
        assert_finds(&exporter, &[SOURCE], &[]);
        let wanted = ["stale 7 10/CN/20251128+INV7.json", "moved 8 1/CN/20251128+INV8.json"];
        assert_finds(&exporter, &[SOURCE, "--documents"], &wanted);
        verify(&exporter, &[SOURCE, "--documents", "--repair"], 0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_row_that_belongs_to_another_tenant_now_is_moved_and_its_old_file_left_over() {
    on_every_source(|table| {
        let exporter = exported(table);
        table.execute(&format!(
            "UPDATE t_invoice SET ftenant_id = 'other', fupdate_time = '{}' WHERE fid = 1",
            table.ago(DAY)
        ));
        // The scan of the tenant does not meet it; its primary key does.
        let wanted = ["moved 1 10/CN/20251128+INV1.json"];
        assert_finds(&exporter, &[SOURCE, "--tenant", "10"], &wanted);
        let answer = verify(&exporter, &[SOURCE, "--tenant", "10", "--repair", "--prune"], 6);
        assert_eq!((&answer["written"], &answer["removed"]), (&1.into(), &0.into()));
        assert_finds(&exporter, &[SOURCE], &["leftover - 10/CN/20251128+INV1.json"]);
        verify(&exporter, &[SOURCE, "--prune", "--prune-leftovers", "--prune-up-to", "1"], 0);
        exporter.assert_agrees();
    });
}

#[test]
fn invoices_that_are_rejected_on_record_are_no_news_and_new_ones_are() {
    on_every_source(|table| {
        let exporter = exported(table);
        let bad = |id: i64, time: &str| {
            table.insert(&Row { id, number: &format!("INV{id}"), document: "{", time, ..Row::default() });
        };
        bad(11, &table.ago(30 * MINUTE));
        exporter.run(["run", "--mode", "incremental", "--safety-lag", "1s"]).expect(3);
        let answer = assert_finds(&exporter, &[SOURCE, "--documents"], &[]);
        assert_eq!(answer["known_rejects"], 1);
        bad(12, &table.ago(2 * DAY));
        assert_finds(&exporter, &[SOURCE], &["lost 12 -"]);
        // It cannot be exported, but from now on it is on record.
        let answer = verify(&exporter, &[SOURCE, "--repair"], 0);
        assert_eq!((&answer["rejected"], &answer["left"]), (&1.into(), &0.into()));
        assert_eq!(exporter.ask("SELECT id FROM reject WHERE closed_run IS NULL ORDER BY id"), ["11", "12"]);
    });
}

#[test]
fn repair_exports_what_differs_and_touches_nothing_else() {
    on_every_source(|table| {
        let exporter = exported(table);
        fs::remove_file(file(&exporter, 1)).unwrap();
        forge(&file(&exporter, 2));
        fs::set_permissions(file(&exporter, 9), Permissions::from_mode(0o600)).unwrap();
        fs::write(exporter.output().join("1/CN/foreign.json"), "").unwrap();
        table.insert(&Row { id: 11, number: "INV11", time: &table.ago(2 * DAY), ..Row::default() });
        table.execute(&format!(
            "UPDATE t_invoice SET fext_field = '[3]', fupdate_time = '{}' WHERE fid = 3",
            table.ago(DAY)
        ));
        table.execute("DELETE FROM t_invoice WHERE fid = 4");
        let (stamps, before) = (exporter.stamps(), tenants(&exporter));

        let answer = verify(&exporter, &["--hash", SOURCE, "--repair"], 6);
        assert_eq!((&answer["written"], &answer["removed"], &answer["left"]), (&4.into(), &0.into(), &3.into()));
        let left: Vec<_> = answer["findings"].as_array().unwrap().iter().filter(|f| f["outcome"] == "left").collect();
        let left: Vec<_> = left.iter().map(|finding| finding["difference"].as_str().unwrap()).collect();
        assert_eq!(left, ["permissions", "withdrawn", "foreign"]);
        let touched: Vec<_> =
            exporter.stamps().into_iter().filter(|(path, now)| stamps.get(path) != Some(now)).collect();
        let touched: Vec<_> = touched.into_iter().map(|(path, _)| path).collect();
        assert_eq!(
            touched,
            [&*path(2), "1/CN/20251128+INV11.json", &path(1), &path(3)]
                .map(str::to_owned)
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );

        assert_eq!(tenants(&exporter), before, "no watermark moves");
        let run = exporter.ask("SELECT kind, status, written, removed FROM run ORDER BY id");
        assert_eq!(run, ["incremental success 10 0", "verify success 4 0"]);
        let files = exporter.run(["history", "last", "--files", "--format", "csv"]).expect(0).stdout;
        assert_eq!(files.lines().filter(|line| line.contains("written")).count(), 4, "{files}");
        fs::remove_file(exporter.output().join("1/CN/foreign.json")).unwrap();
        exporter.assert_state_is_sound();
        exporter.run(["state", "check", "--deep"]).expect(0);
    });
}

#[test]
fn prune_removes_what_is_withdrawn_and_still_ours_and_nothing_else() {
    on_every_source(|table| {
        let exporter = exported(table);
        // A twin shares the file of number 6.
        let twin = Row { id: 11, number: "INV6", document: "{\"id\": 6}", ..Row::default() };
        table.insert(&Row { time: &table.ago(HOUR), ..twin });
        exporter.run(["run", "--mode", "incremental", "--safety-lag", "1s"]).expect(0);
        table.execute("UPDATE t_invoice SET fissue_status = 4, fupdate_time = fupdate_time WHERE fid IN (1, 2, 6)");
        table.execute("UPDATE t_invoice SET fext_field = NULL, fupdate_time = fupdate_time WHERE fid = 3");
        fs::write(file(&exporter, 2), "somebody's own").unwrap();
        let before = (tenants(&exporter), exporter.stamps());

        let all = [
            "withdrawn 2 1/CN/20251128+INV2.json",
            "withdrawn 6 1/CN/20251128+INV6.json",
            "withdrawn 1 10/CN/20251128+INV1.json",
            "withdrawn 3 10/CN/20251128+INV3.json",
        ];
        // A row that lost its document is no invoice any more, which its key does not tell.
        let answer = verify(&exporter, &[SOURCE, "--documents"], 6);
        let withdrawn: Vec<_> = found(&answer).into_iter().filter(|line| line.starts_with("withdrawn")).collect();
        assert_eq!(withdrawn, all);

        let answer =
            exporter.run(["verify", SOURCE, "--documents", "--prune", "--prune-up-to", "4", "--format", "json"]);
        let answer = answer.expect(6).json();
        assert_eq!(answer["removed"], 2, "{answer}");
        let still: Vec<_> = before.1.keys().filter(|path| !exporter.stamps().contains_key(*path)).collect();
        assert_eq!(still, [&path(1), &path(3)]);
        assert_eq!(fs::read(file(&exporter, 2)).unwrap(), b"somebody's own");
        assert_eq!(exporter.ask("SELECT id FROM ledger WHERE id IN (1, 2, 3, 6, 11) ORDER BY id"), ["11", "2"]);
        assert_eq!(tenants(&exporter), before.0, "no watermark moves");
        assert_eq!(
            exporter.ask("SELECT path FROM file_log WHERE action = 'removed' ORDER BY path"),
            [path(1), path(3)]
        );
        fs::remove_file(file(&exporter, 2)).unwrap();
        verify(&exporter, &[SOURCE, "--documents", "--prune", "--prune-up-to", "4"], 0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

#[test]
fn leftovers_of_ids_that_were_used_again_are_listed_and_pruned() {
    let table = Table::embedded();
    let exporter = exported(&table);
    table.execute(&format!(
        "UPDATE t_invoice SET finvoice_no = 'NEW', fupdate_time = '{}' WHERE fid = 1",
        table.ago(MINUTE)
    ));
    exporter.run(["run", "--mode", "incremental", "--safety-lag", "1s"]).expect(0);
    assert_finds(&exporter, &[], &["leftover - 10/CN/20251128+INV1.json"]);
    verify(&exporter, &[SOURCE, "--prune", "--prune-up-to", "1"], 6);
    assert!(file(&exporter, 1).exists());
    verify(&exporter, &[SOURCE, "--prune", "--prune-leftovers", "--prune-up-to", "1"], 0);
    assert!(!file(&exporter, 1).exists());
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

/// What was asked for did not happen, for this reason.
#[track_caller]
fn assert_refused(exporter: &Exporter<'_>, args: &[&str], code: i32, reason: &str) -> Finished {
    let before = (exporter.tree(), tenants(exporter), exporter.ask("SELECT id, path FROM ledger"));
    let refused = exporter.run(args).expect(code);
    assert!(refused.stderr.contains(reason), "{refused}");
    assert_eq!((exporter.tree(), tenants(exporter), exporter.ask("SELECT id, path FROM ledger")), before);
    refused
}

#[test]
fn prune_does_not_empty_the_tree_for_a_restored_an_empty_or_a_shrunken_source() {
    on_every_source(|table| {
        let exporter = exported(table);
        let prune = ["verify", SOURCE, "--prune"];
        table.execute("DELETE FROM t_invoice WHERE fid = 1");
        let refused = assert_refused(&exporter, &prune, 2, "remove 1 file (the ledger has 10 invoices)");
        assert!(refused.stdout.contains("withdrawn") && refused.stderr.contains("--prune-up-to 1"), "{refused}");
        let answer = exporter.run(prune.iter().chain(&["--format", "json"])).expect(2).json();
        assert!(answer["refused"].as_str().unwrap().contains("--prune-up-to 1"), "{answer}");
        table.execute("UPDATE t_invoice SET fupdate_time = '2025-11-01 00:00:00'");
        let everything = ["verify", SOURCE, "--prune", "--prune-up-to", "100"];
        assert_refused(&exporter, &everything, 1, "this looks like a restored, an empty or another source");
        table.execute("DELETE FROM t_invoice");
        assert_refused(&exporter, &everything, 1, "the source has no invoices, but ");
        assert_eq!(exporter.tree().len(), 10);
    });
}

#[test]
fn a_part_of_the_invoices_may_be_chosen_by_tenant_and_window() {
    on_every_source(|table| {
        let exporter = exported(table);
        let old = table.ago(2 * DAY);
        table.insert(&Row { id: 11, tenant: "1", number: "OLD", time: &old, ..Row::default() });
        exporter.run(["run"]).expect(0);
        for id in [1, 2] {
            fs::remove_file(file(&exporter, id)).unwrap();
        }
        fs::remove_file(exporter.output().join("1/CN/20251128+OLD.json")).unwrap();
        fs::write(exporter.output().join("10/CN/foreign.json"), "").unwrap();
        let [one, two, older] = [
            "missing 1 10/CN/20251128+INV1.json",
            "missing 2 1/CN/20251128+INV2.json",
            "missing 11 1/CN/20251128+OLD.json",
        ];
        let foreign = "foreign - 10/CN/foreign.json";
        assert_finds(&exporter, &[SOURCE, "--tenant", "10"], &[one, foreign]);
        assert_finds(&exporter, &[SOURCE, "--tenant", "1"], &[two, older]);
        let between = table.ago(DAY);
        assert_finds(&exporter, &[SOURCE, "--since", &between], &[two, one]);
        assert_finds(&exporter, &[SOURCE, "--until", &between], &[older]);
        verify(&exporter, &[SOURCE, "--until", &between, "--repair"], 0);
        // The window bounds the comparison; the run that repairs has the boundary of every run.
        let boundary = exporter.ask_one("SELECT boundary FROM run WHERE kind = 'verify' ORDER BY id DESC LIMIT 1");
        assert!(boundary > between, "{boundary}");
        assert_finds(&exporter, &[], &[two, one, foreign]);
        let unknown = exporter.run(["verify", SOURCE, "--tenant", "100"]).expect(2);
        assert!(unknown.stderr.contains("100"), "{unknown}");
    });
}

#[test]
fn who_lost_a_path_on_record_is_no_news_and_one_who_would_contest_it_is() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let rival = |id: i64, time: &str| {
        let document = format!("{{\"rival\": {id}}}");
        table.insert(&Row { id, tenant: "10", number: "INV1", document: &document, time, ..Row::default() });
    };
    rival(11, &table.ago(2 * HOUR + 20 * MINUTE));
    exporter.run(["run"]).expect(3);
    let answer = assert_finds(&exporter, &[SOURCE, "--documents"], &[]);
    assert_eq!(answer["known_rejects"], 1);
    rival(12, &table.ago(DAY));
    assert_finds(&exporter, &[SOURCE], &["lost 12 10/CN/20251128+INV1.json"]);
    let before = exporter.stamps();
    let answer = verify(&exporter, &[SOURCE, "--repair"], 0);
    assert_eq!((&answer["rejected"], &answer["known_rejects"]), (&1.into(), &1.into()));
    assert_eq!(exporter.stamps(), before);
}

#[test]
fn repair_leaves_what_is_on_the_to_do_list_to_the_next_run() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let time = table.ago(30 * MINUTE);
    table.insert(&Row { id: 11, number: "INV11", document: "{", time: &time, ..Row::default() });
    exporter.run(["run", "--mode", "incremental", "--safety-lag", "1s"]).expect(3);
    table.execute("UPDATE t_invoice SET fext_field = '{}', fupdate_time = fupdate_time WHERE fid = 11");
    fs::remove_file(file(&exporter, 1)).unwrap();
    let answer = verify(&exporter, &["--repair"], 0);
    assert_eq!(answer["written"], 1);
    assert_eq!(exporter.ask("SELECT id FROM todo"), ["11"]);
    assert_eq!(exporter.tree().len(), 10);
    exporter.run(["run", "--mode", "incremental", "--safety-lag", "1s"]).expect(0);
    exporter.assert_agrees();
}

#[test]
fn a_tenant_that_the_state_does_not_know_is_a_mistype_and_not_without_differences() {
    let table = Table::embedded();
    let exporter = exported(&table);
    for args in [&["verify", "--tenant", "100"][..], &["verify", "--tenant", "1", "--tenant", "01"]] {
        let unknown = exporter.run(args).expect(2);
        assert!(unknown.stderr.contains("the state knows no tenant") && unknown.stdout.is_empty(), "{unknown}");
    }
}

#[test]
fn an_output_that_somebody_else_made_for_the_exporter_is_no_finding() {
    let table = Table::embedded();
    let exporter = exported(&table);
    chown(exporter.output(), Some(1234), None).expect("this test needs root");
    assert_finds(&exporter, &[], &[]);
    chown(file(&exporter, 1), Some(1234), None).unwrap();
    chown(exporter.output().join("1/CN"), Some(1234), None).unwrap();
    assert_finds(&exporter, &[], &["permissions - 1/CN", "permissions 1 10/CN/20251128+INV1.json"]);
}

#[test]
fn a_folder_that_cannot_be_read_is_found_and_everything_else_is_looked_at() {
    const NOBODY: u32 = 65_534;
    let table = Table::embedded();
    let exporter = exported(&table);
    fs::create_dir(exporter.output().join("1/CN/deeper")).unwrap();
    fs::write(exporter.output().join("1/CN/deeper/notes.txt"), "").unwrap();
    fs::remove_file(file(&exporter, 2)).unwrap();
    for entry in walkdir::WalkDir::new(exporter.home()) {
        chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).expect("this test needs root");
    }
    let close = |folder: &str| {
        fs::set_permissions(exporter.output().join(folder), Permissions::from_mode(0o000)).unwrap();
    };
    let found_by_nobody = || {
        let mut command = exporter.command(["verify", "--format", "json"]);
        found(&Running::new(command.uid(NOBODY).gid(NOBODY)).wait().expect(6).json())
    };
    close("1/CN/deeper");
    let missing = "missing 2 1/CN/20251128+INV2.json";
    assert_eq!(found_by_nobody(), [missing, "permissions - 1/CN/deeper"]);
    close("10/CN");
    let all = found_by_nobody();
    let altered = all.iter().filter(|line| line.starts_with("altered")).count();
    assert_eq!((altered, all.contains(&missing.to_owned())), (5, true), "{all:?}");
    assert_eq!(all.iter().filter(|line| *line == "permissions - 10/CN").count(), 1, "{all:?}");
}

#[test]
fn what_a_restored_state_does_not_know_is_found() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let run = ["run", "--mode", "incremental", "--safety-lag", "1s"];
    let moves = |country: &str, minutes: u32| {
        let time = table.ago(minutes * MINUTE);
        table.execute(&format!("UPDATE t_invoice SET fcountry = '{country}', fupdate_time = '{time}' WHERE fid = 1"));
    };
    exporter.run(["state", "backup", "saved.db"]).expect(0);
    moves("DE", 2);
    exporter.run(run).expect(0);
    moves("FR", 1);
    exporter.run(["state", "restore", "saved.db", "--yes"]).expect(0);
    exporter.run(run).expect(0);
    assert_finds(&exporter, &[], &["foreign - 10/DE/20251128+INV1.json"]);
}

#[test]
fn another_tree_or_no_state_is_refused_and_nothing_is_made() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let elsewhere = exporter.output().parent().unwrap().join("elsewhere");
    let elsewhere = elsewhere.to_str().unwrap();
    let state = exporter.output().join(".export_state");
    let state = state.to_str().unwrap();
    exporter.run(["verify", "--output", elsewhere]).expect(5);
    exporter.run(["verify", "--output", elsewhere, "--state-dir", state]).expect(5);
    exporter.run(["verify", SOURCE, "--repair", "--output", elsewhere, "--state-dir", state]).expect(5);
    assert!(!PathBuf::from(elsewhere).exists());
}

#[test]
fn a_repair_that_dies_at_any_step_is_made_good_by_the_next_run() {
    for call in ["renameat", "unlinkat", "syncfs", "fsync", "pwrite64"] {
        let mut deaths = 0;
        for nth in [1, 2, 3, 5, 8, 13] {
            let table = Table::embedded();
            let exporter = exported(&table);
            fs::remove_file(file(&exporter, 1)).unwrap();
            fs::write(file(&exporter, 2), "{}").unwrap();
            table.execute("DELETE FROM t_invoice WHERE fid IN (3, 4)");
            table.insert(&Row { id: 11, number: "INV11", time: &table.ago(2 * DAY), ..Row::default() });
            let args = ["verify", SOURCE, "--repair", "--prune", "--prune-up-to", "5", "--writers", "1"];
            if !run_with(&exporter, &format!("{call}:signal=KILL:when={nth}"), &args).was_killed() {
                break;
            }
            deaths += 1;
            verify(&exporter, &args[1..6], 0);
            exporter.assert_agrees();
            exporter.assert_state_is_sound();
            exporter.run(["state", "check", "--deep"]).expect(0);
        }
        assert!(deaths > 0, "{call} is never called");
    }
}

#[test]
fn removals_that_are_not_on_disk_are_not_on_record() {
    let table = Table::embedded();
    let exporter = exported(&table);
    table.execute("DELETE FROM t_invoice WHERE fid IN (3, 4)");
    let prune = ["verify", SOURCE, "--prune", "--prune-up-to", "5"];
    let known = "SELECT count(*) FROM ledger WHERE id IN (3, 4)";
    // Everything is published by one thread here: the second sync is the one of the names.
    run_with(&exporter, "syncfs:error=EIO:when=2", &prune).expect(1);
    assert_eq!(exporter.ask(known), ["2"]);
    verify(&exporter, &prune[1..], 0);
    assert_eq!(exporter.ask(known), ["0"]);
    exporter.assert_agrees();
}

#[test]
fn what_a_dead_run_left_is_the_next_runs_business_and_no_finding() {
    let table = Table::embedded();
    let exporter = exported(&table);
    for id in [11, 12] {
        table.insert(&Row { id, number: &format!("INV{id}"), time: &table.ago(HOUR), ..Row::default() });
    }
    // One of the two files is in place, nothing is recorded.
    assert!(run_with(&exporter, "renameat:signal=KILL:when=2", &["run"]).was_killed());
    assert_eq!(exporter.tree().len(), 11);
    let answer = assert_finds(&exporter, &[], &[]);
    assert_eq!(answer["pending"], 1);
    exporter.run(["run"]).expect(0);
    assert_finds(&exporter, &[SOURCE], &[]);
    // A document that the dead run has renewed is its own, and no alteration.
    table.execute("UPDATE t_invoice SET fext_field = '{\"renewed\": true}' WHERE fid > 10");
    assert!(run_with(&exporter, "renameat:signal=KILL:when=2", &["run"]).was_killed());
    let answer = assert_finds(&exporter, &["--hash"], &[]);
    assert_eq!(answer["pending"], 1, "{answer}");
    fs::write(exporter.output().join("1/CN/20251128+INV11.json"), "{}").unwrap();
    let answer = exporter.run(["verify", "--format", "json"]).expect(6).json();
    let detail = answer["findings"][0]["detail"].as_str().unwrap();
    assert!(detail.ends_with("run 6, which died, may have changed it, and the next run settles it"), "{answer}");
    exporter.run(["run"]).expect(0);
    assert_finds(&exporter, &[SOURCE], &[]);
}

#[test]
fn the_time_that_an_examination_takes_does_not_count_as_a_clock_that_moved() {
    let table = Table::embedded();
    let exporter = exported(&table);
    fs::remove_file(file(&exporter, 1)).unwrap();
    let slow = "newfstatat:delay_enter=8000000:when=1";
    run_with_at(&exporter, "10/CN", slow, &["verify", SOURCE, "--repair"]).expect(0);
    let offset: i64 = exporter.ask_one("SELECT (shown_ms - own_ms) / 1000 FROM meta").parse().unwrap();
    assert!(offset.abs() < 5, "{offset}");
    exporter.assert_agrees();
}
