//! A state of every earlier schema is opened, after a backup, in one transaction and on record; one of
//! a later schema is refused, untouched.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::json;

use crate::history::{files, runs_with_files};
use crate::support::exporter::{Exporter, numbers, run_with};
use crate::support::listing::{Traces, everything_in};
use crate::support::state::ask;
use crate::support::table::{Row, Table};

const INCREMENTAL: [&str; 5] = ["run", "--mode", "incremental", "--format", "json"];

/// The schema's files in their order.
fn steps() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("state-schema");
    let mut steps: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    steps.sort();
    steps
}

fn table() -> Table {
    let table = Table::embedded();
    for (id, tenant) in [(1, "1"), (2, "10")] {
        table.insert(&Row { id, tenant, number: &format!("INV{id}"), ..Row::default() });
    }
    table
}

/// Replaces the state by one that a program of that version would have left after the same runs.
fn take_back(exporter: &Exporter<'_>, version: usize) {
    let (now, old) = (exporter.state(), exporter.output().join("old.db"));
    let conn = Connection::open(&old).unwrap();
    for step in &steps()[..version] {
        conn.execute_batch(&fs::read_to_string(step).unwrap()).unwrap();
    }
    conn.execute_batch(&format!("PRAGMA application_id = {}; PRAGMA user_version = {version}", 0x6976_6578)).unwrap();
    conn.execute("ATTACH ?1 AS now", [now.to_str().unwrap()]).unwrap();
    let tables: Vec<String> = conn
        .prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name <> 'run_tenant'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    // Rows of finished runs cannot be added, so the trigger goes while history is copied.
    let triggers: Vec<(String, String)> = conn
        .prepare("SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    triggers.iter().for_each(|(name, _)| conn.execute_batch(&format!("DROP TRIGGER {name}")).unwrap());
    for table in tables.iter().map(String::as_str).chain(["run_tenant"]) {
        let columns: Vec<String> = conn
            .prepare(&format!("SELECT name FROM pragma_table_info('{table}', 'main')"))
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let there = |column: &String| {
            conn.prepare("SELECT 1 FROM pragma_table_info(?1, 'now') WHERE name = ?2")
                .unwrap()
                .exists([table, column])
                .unwrap()
        };
        let columns = columns.into_iter().filter(there).collect::<Vec<_>>().join(", ");
        conn.execute_batch(&format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM now.{table}"))
            .unwrap_or_else(|error| panic!("copy {table}: {error}"));
    }
    triggers.iter().for_each(|(_, sql)| conn.execute_batch(sql).unwrap());
    if version == 1 {
        conn.execute_batch(
            "INSERT INTO watermark_change (at, run, tenant, old, new, why, user, host)
             VALUES ('2025-11-28T00:00:00Z', 1, 1, 'x', 'y', 'it lay ahead of the boundary', 'ada', 'host'),
                    ('2025-11-28T00:00:00Z', 1, 2, 'x', 'y', 'it lay ahead of the boundary', 'ada', 'host')",
        )
        .unwrap();
    }
    conn.execute_batch("DETACH now; PRAGMA journal_mode = WAL").unwrap();
    conn.close().unwrap();
    fs::rename(old, now).unwrap();
}

/// What `history` shows of a run, as far as every schema has it.
fn shown(exporter: &Exporter<'_>, run: &str) -> Vec<String> {
    let shown = exporter.run(["history", run, "--format", "json"]).expect(0).json();
    let fields =
        ["kind", "status", "boundary", "since", "started", "finished", "user", "tenants", "seen", "written", "error"];
    fields.map(|field| shown[field].to_string()).into()
}

fn version(state: &Path) -> String {
    ask(state, "PRAGMA user_version")[0][0].clone().unwrap()
}

#[test]
fn a_state_of_every_earlier_schema_goes_on_where_it_was() {
    let last = steps().len();
    assert!(last > 1, "the folder of schemas is somewhere else");
    for earlier in 1..last {
        let table = table();
        let exporter = Exporter::new(&table);
        exporter.run(INCREMENTAL).expect(0);
        let first_run = shown(&exporter, "1");
        take_back(&exporter, earlier);
        let before = everything_in(&[&exporter.output()], Traces::None);

        // Whoever only looks leaves it as it is.
        exporter.run(["run", "--mode", "incremental", "--dry-run"]).expect(0);
        exporter.run(["state", "check", "--deep"]).expect(0);
        exporter.run(["why", "INV1"]).expect(0);
        assert_eq!(shown(&exporter, "1"), first_run, "from schema {earlier}");
        assert_eq!(everything_in(&[&exporter.output()], Traces::None), before);

        let stamps = exporter.stamps();
        let time = table.ago(std::time::Duration::from_secs(600));
        table.insert(&Row { id: 3, tenant: "10", number: "INV3", time: &time, ..Row::default() });
        let summary = exporter.run(INCREMENTAL).expect(0).json();
        assert_eq!(numbers(&summary, ["run", "seen", "written"]), [2, 1, 1], "from schema {earlier}");
        assert_eq!(shown(&exporter, "1"), first_run, "from schema {earlier}");
        exporter.run(["verify"]).expect(0);
        assert_eq!(shown(&exporter, "3")[..3], ["\"verify\"", "\"success\"", "null"]);
        let after = exporter.stamps();
        assert!(stamps.iter().all(|(path, stamp)| after.get(path) == Some(stamp)));
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        exporter.run(["state", "check", "--deep"]).expect(0);

        assert_eq!(version(&exporter.state()), last.to_string());
        let record = exporter.ask("SELECT old, new FROM state_change WHERE kind = 'upgrade'");
        assert_eq!(record, [format!("{earlier} {last}")]);
        let backups = exporter.run(["state", "backups", "--format", "json"]).expect(0).json();
        let backup = backups.as_array().unwrap().iter().find(|backup| backup["occasion"] == "before-upgrade").unwrap();
        let file = Path::new(backup["file"].as_str().unwrap());
        assert_eq!(version(file), earlier.to_string());

        exporter.run(["state", "restore", file.to_str().unwrap(), "--yes"]).expect(0);
        assert_eq!(version(&exporter.state()), last.to_string(), "an old backup is upgraded as it is restored");
        exporter.run(INCREMENTAL).expect(0);
        exporter.assert_state_is_sound();
    }
}

#[test]
fn what_runs_did_to_files_under_every_earlier_schema_stays_on_record() {
    for earlier in 1..steps().len() {
        let table = Table::embedded();
        let exporter = Exporter::new(&table);
        let told = runs_with_files(&table, &exporter);
        let ledger =
            || exporter.ask("SELECT id, tenant, time, path, hex(sha256), size, first_run, run, settled FROM ledger");
        let before = ledger();
        take_back(&exporter, earlier);

        let now = |run: usize| files(&exporter, &run.to_string());
        assert_eq!((1..=told.len()).map(now).collect::<Vec<_>>(), told, "from schema {earlier}");
        exporter.run(INCREMENTAL).expect(0);
        assert_eq!(version(&exporter.state()), steps().len().to_string());
        assert_eq!((1..=told.len()).map(now).collect::<Vec<_>>(), told, "from schema {earlier}");
        assert_eq!(ledger(), before, "from schema {earlier}");
    }
}

#[test]
fn watermarks_that_runs_pulled_back_under_the_first_schema_stay_on_record() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    take_back(&exporter, 1);
    exporter.run(INCREMENTAL).expect(0);
    let changes = exporter.ask("SELECT kind, last_run, user, reason FROM state_change WHERE kind = 'pull-back'");
    assert_eq!(changes, ["pull-back 1 ada it lay ahead of the boundary"]);
    let moved = exporter.ask("SELECT tenant, old, new FROM watermark_change ORDER BY tenant");
    assert_eq!(moved, ["1 x y", "2 x y"]);
}

#[test]
fn a_state_of_a_later_schema_is_refused_untouched() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    Connection::open(exporter.state()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = everything_in(&[&exporter.output()], Traces::OfTheLock);
    for args in [&INCREMENTAL[..], &["state", "check"], &["state", "backup"], &["why", "INV1"]] {
        let refused = exporter.run(args).expect(5);
        assert!(refused.stderr.contains("schema version 99"), "{refused}");
    }
    assert_eq!(everything_in(&[&exporter.output()], Traces::OfTheLock), before);
}

#[test]
fn an_upgrade_that_dies_anywhere_leaves_the_old_schema_or_the_new_one() {
    for call in ["pwrite64", "fsync", "renameat2", "unlink", "ftruncate"] {
        let mut deaths = 0;
        // The first calls are those of backup and upgrade; the run's own are killed elsewhere.
        for nth in 1..=40 {
            let table = table();
            let exporter = Exporter::new(&table);
            exporter.run(INCREMENTAL).expect(0);
            take_back(&exporter, 1);
            let died = run_with(&exporter, &format!("{call}:signal=KILL:when={nth}"), &INCREMENTAL).was_killed();
            let version = version(&exporter.state());
            assert!(version == "1" || version == steps().len().to_string(), "{call} {nth}: version {version}");
            exporter.run(INCREMENTAL).expect(0);
            exporter.run(["state", "check", "--deep"]).expect(0);
            exporter.assert_agrees();
            exporter.assert_state_is_sound();
            let upgrades = exporter.ask_one("SELECT count(*) FROM state_change WHERE kind = 'upgrade'");
            assert_eq!(upgrades, "1", "{call} {nth}");
            if !died {
                break;
            }
            deaths += 1;
        }
        assert!(deaths > 0, "{call} is never called");
    }
}

#[test]
fn rows_of_an_earlier_schema_move_as_before_once_a_full_run_has_read_them() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    take_back(&exporter, 5);
    let move_to = |date: &str, minutes: u64| {
        let time = table.ago(std::time::Duration::from_secs(60 * minutes));
        table.execute(&format!("UPDATE t_invoice SET fissue_date = '{date}', fupdate_time = '{time}' WHERE fid = 1"));
    };
    move_to("2025-11-29", 40);
    let summary = exporter.run(INCREMENTAL).expect(0).json();
    assert_eq!(numbers(&summary, ["written", "removed", "leftovers"]), [1, 0, 1]);
    exporter.run(["run", "--mode", "full"]).expect(0);
    assert_eq!(exporter.ask("SELECT DISTINCT source_table FROM entry"), ["1"]);
    move_to("2025-11-30", 20);
    let summary = exporter.run(INCREMENTAL).expect(0).json();
    assert_eq!(numbers(&summary, ["written", "removed", "leftovers"]), [1, 1, 0]);
    exporter.assert_state_is_sound();
}

#[test]
fn what_an_earlier_schema_has_read_without_a_gap_is_known_after_the_upgrade() {
    let table = table();
    table.insert(&Row { id: 3, tenant: "89", number: "INV3", ..Row::default() });
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    exporter.run(["state", "set", "10", "2025-11-28", "--yes"]).expect(0);
    Connection::open(exporter.state()).unwrap().execute("UPDATE tenant SET look_back = NULL WHERE n = 3", []).unwrap();
    take_back(&exporter, 6);
    // A command that upgrades the state, and then takes away what is known of one tenant.
    exporter.run(["state", "set", "89", "2025-11-28", "--yes"]).expect(0);
    let known = exporter.ask("SELECT name, read_from IS NULL, coalesce(read_from, '-') FROM tenant ORDER BY n");
    assert_eq!(known, ["1 0 ", "10 1 -", "89 1 -"]);
    let counts = exporter.run(["history", "1", "--format", "json"]).expect(0).json();
    assert_eq!((&counts["new"], &counts["taken_over"], &counts["written"]), (&json!(null), &json!(null), &json!(3)));
    assert_eq!((&counts["per_tenant"][0]["new"], &counts["per_tenant"][0]["written"]), (&json!(null), &json!(1)));
    exporter.run(["state", "check", "--deep"]).expect(0);
}

/// A list of targets as versions wrote it that did not say the digests.
fn forget_digests(exporter: &Exporter<'_>) {
    let list = exporter.output().join(".export_state/staging/targets-0");
    let text = fs::read_to_string(&list).unwrap();
    let without = |line: &str| match serde_json::from_str::<Vec<String>>(line) {
        Ok(target) => serde_json::to_string(&target[..2]).unwrap() + "\n",
        Err(_) => format!("{line}\n"),
    };
    fs::write(list, text.lines().map(without).collect::<String>()).unwrap();
}

#[test]
fn a_file_that_a_dead_run_of_an_earlier_version_may_have_written_is_a_leftover() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    let stamp = |minutes: u64| table.ago(std::time::Duration::from_secs(60 * minutes));
    // One file is written anew, one for the first time, which the dead run comes near to; nothing is recorded.
    table.execute(&format!("UPDATE t_invoice SET fext_field = '[2]', fupdate_time = '{}' WHERE fid = 1", stamp(50)));
    table.insert(&Row { id: 3, tenant: "10", number: "INV3", time: &stamp(50), ..Row::default() });
    assert!(run_with(&exporter, "renameat:signal=KILL:when=2", &INCREMENTAL).was_killed());
    fs::write(exporter.output().join("10/CN/20251128+INV3.json"), "[3]").unwrap();
    forget_digests(&exporter);
    // Earlier still, only the state said so.
    fs::write(exporter.output().join("1/CN/20251128+INV4.json"), "[4]").unwrap();
    let conn = Connection::open(exporter.state()).unwrap();
    conn.execute("INSERT INTO doubt_path (path, id) VALUES ('1/CN/20251128+INV4.json', '4')", []).unwrap();
    conn.close().unwrap();
    table.execute(&format!("UPDATE t_invoice SET fcountry = 'IT', fupdate_time = '{}' WHERE fid = 1", stamp(40)));
    table.execute("DELETE FROM t_invoice WHERE fid = 3");

    let before = exporter.tree();
    let finished = exporter.run(INCREMENTAL).expect(0);
    let said = "a run of an earlier version died before it had recorded what it wrote there";
    assert!(finished.stderr.contains(said), "{finished}");
    let left = ["1/CN/20251128+INV1.json", "1/CN/20251128+INV4.json", "10/CN/20251128+INV3.json"];
    assert_eq!(exporter.ask("SELECT path FROM leftover ORDER BY path"), left, "{finished}");
    assert_eq!(numbers(&finished.json(), ["removed", "leftovers"]), [0, 3]);
    assert!(before.iter().all(|(path, content)| exporter.tree().get(path) == Some(content)));
    let verified = exporter.run(["verify", "--format", "json"]).expect(6).json();
    let found = verified["findings"].as_array().unwrap().iter();
    let found: Vec<_> = found.map(|found| (found["difference"].as_str(), found["path"].as_str())).collect();
    assert_eq!(found, left.map(|path| (Some("leftover"), Some(path))));
    let history = exporter.run(["history", "3"]).expect(0);
    assert!(left.iter().all(|path| history.stdout.contains(path)), "{history}");
    exporter.assert_state_is_sound();

    // Only with consent.
    exporter.run(["verify", "--against-source", "--prune"]).expect(6);
    assert_eq!(exporter.ask("SELECT path FROM leftover ORDER BY path"), left);
    exporter.run(["verify", "--against-source", "--prune", "--prune-leftovers"]).expect(2);
    exporter.run(["verify", "--against-source", "--prune", "--prune-leftovers", "--prune-up-to", "3"]).expect(0);
    exporter.assert_agrees();
}

#[test]
fn which_watermarks_a_restore_moved_under_an_earlier_schema_is_not_known() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    exporter.run(["state", "backup"]).expect(0);
    exporter.run(["state", "set", "10", "2025-11-28", "--yes"]).expect(0);
    exporter.run(["state", "restore", "latest", "--yes"]).expect(0);
    let moved = || {
        let changes = exporter.run(["history", "--kind", "restore", "--format", "json"]).expect(0).json();
        changes.as_array().unwrap().iter().map(|change| change["tenants"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(moved(), [json!(1)]);
    take_back(&exporter, 6);
    assert_eq!(moved(), [json!(null)]);
    let backup = exporter.home().join("backup.db");
    exporter.run(["state", "backup", backup.to_str().unwrap()]).expect(0);
    exporter.run(["state", "restore", backup.to_str().unwrap(), "--yes"]).expect(0);
    assert_eq!(moved(), [json!(0), json!(null)]);
    exporter.run(["state", "check", "--deep"]).expect(0);
}

#[test]
fn a_start_that_fails_does_not_upgrade_the_state_and_says_it_is_not_on_record() {
    for earlier in 1..steps().len() {
        let (table, other) = (table(), self::table());
        let mut exporter = Exporter::new(&table);
        exporter.run(INCREMENTAL).expect(0);
        take_back(&exporter, earlier);
        let before = everything_in(&[&exporter.output()], Traces::OfTheLock);
        let version = format!("schema version {earlier}");
        for args in [
            &["run", "--tenant", "Nobody"][..],
            &["verify", "--tenant", "Nobody"],
            &["verify", "--against-source", "--tenant", "Nobody"],
        ] {
            let failed = exporter.run(args).expect(2);
            let error = failed.error();
            assert!(error.contains("this start is not on record") && error.contains(&version), "{failed}");
        }
        let chinese = exporter.run(["run", "--tenant", "Nobody", "--lang", "zh"]).expect(2);
        assert!(
            chinese.error().contains(&format!("本次启动未能记入历史（状态文件的结构版本为 {earlier}")),
            "{chinese}"
        );
        exporter.run(["run", "--table", "t_other"]).expect(1);
        exporter.set("INVOICE_EXPORT_SOURCE", other.url());
        exporter.run(INCREMENTAL).expect(5);
        exporter.run(["verify", "--against-source"]).expect(5);
        exporter.set("INVOICE_EXPORT_SOURCE", table.url());
        assert_eq!(everything_in(&[&exporter.output()], Traces::OfTheLock), before, "schema {earlier}");
        exporter.run(INCREMENTAL).expect(0);
        exporter.run(["run", "--tenant", "Nobody"]).expect(2);
        assert_eq!(exporter.ask("SELECT status FROM run ORDER BY id DESC LIMIT 2"), ["failed", "success"]);
        exporter.assert_agrees();
    }
}
