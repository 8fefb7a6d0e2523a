//! The history of runs and changes: append-only in the state, and shown by `history`.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::accounts::id;
use crate::support::exporter::{Exporter, run_with};
use crate::support::state::meddle;
use crate::support::table::{Row, Table, on_every_source, quoted};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];

/// As documented.
const FIELDS: [&str; 37] = [
    "id",
    "kind",
    "status",
    "alive",
    "started",
    "finished",
    "duration_seconds",
    "user",
    "uid",
    "sudo_user",
    "host",
    "since",
    "boundary",
    "tenants",
    "seen",
    "written",
    "new",
    "replaced",
    "moved",
    "unchanged",
    "taken_over",
    "rejected",
    "gone",
    "late",
    "late_by_seconds",
    "removed",
    "bytes",
    "retries",
    "error",
    "remark",
    "until",
    "against",
    "content",
    "files_looked_at",
    "differences",
    "pending",
    "known_rejects",
];
const REJECT: [&str; 11] = [
    "tenant",
    "number",
    "id",
    "time",
    "reason",
    "first_run",
    "since",
    "last_run",
    "detail",
    "closed_run",
    "closed_how",
];

fn sqlite3(state: &std::path::Path, sql: &str) -> (bool, String) {
    let output =
        Command::new("sqlite3").arg(state).arg(sql).output().expect("sqlite3 is missing: apt-get install sqlite3");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

#[test]
fn debians_own_sqlite3_reads_the_state_and_cannot_change_finished_history() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let exporter = Exporter::new(&table);
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    let state = exporter.state();
    let (read, text) = sqlite3(&state, "SELECT kind, status, written FROM run; SELECT action FROM file_log");
    assert!(read && text == "incremental|success|1\nwritten\n", "{text}");
    for change in [
        "UPDATE run SET written = 2",
        "UPDATE run SET status = 'running'",
        "DELETE FROM run",
        "UPDATE run_tenant SET written = 2",
        "DELETE FROM run_tenant",
        "INSERT INTO run_tenant SELECT run, tenant + 1, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0, 0, 0 FROM run_tenant",
        "UPDATE entry SET run = 2",
        "UPDATE entry SET name = 'x'",
        "UPDATE entry SET adopted = 1",
        "INSERT INTO entry SELECT 9, tenant, time, folder, 'x', sha256, size, 1, 1, 0, 1, 0, NULL, NULL FROM entry",
        "INSERT OR REPLACE INTO entry SELECT id, tenant, time, folder, 'x', sha256, size, 1, 1, 0, 1, 0, NULL, NULL FROM entry",
        "DELETE FROM entry; UPDATE file_past SET name = 'y'",
        "DELETE FROM file_past",
        "UPDATE folder SET path = 'x'",
        "DELETE FROM folder",
        "INSERT OR REPLACE INTO folder VALUES (1, 'x')",
        "INSERT INTO watermark_change VALUES (1, 1, NULL, NULL); DELETE FROM watermark_change",
        "INSERT INTO watermark_change VALUES (2, 1, NULL, NULL); UPDATE watermark_change SET new = old",
        "INSERT INTO state_change (kind, at, last_run, user, host) VALUES ('set', '', 1, '', ''); DELETE FROM state_change",
        "INSERT INTO state_change (kind, at, last_run, user, host) VALUES ('set', '', 1, '', ''); UPDATE state_change SET user = 'x'",
        "INSERT OR REPLACE INTO run SELECT * FROM run",
        "INSERT OR REPLACE INTO run_tenant SELECT * FROM run_tenant",
        "INSERT INTO file_past VALUES (1, 1, 'z', 'written')",
        "INSERT INTO file_past SELECT run, folder, name, 'adopted' FROM file_past",
        "INSERT OR REPLACE INTO state_change SELECT * FROM state_change",
        "INSERT OR REPLACE INTO watermark_change SELECT * FROM watermark_change",
    ] {
        let (changed, text) = sqlite3(&state, change);
        assert!(!changed && (text.contains("history") || text.contains("History")), "{change}: {text}");
    }
}

/// A source with an embedded table that holds one invoice of tenant 1.
pub(crate) fn table() -> Table {
    let table = Table::embedded();
    table.insert(&Row::default());
    table
}

pub(crate) fn history(exporter: &Exporter<'_>, args: &[&str]) -> Value {
    exporter.run(["history", "--format", "json"].iter().chain(args)).expect(0).json()
}

/// What the entries are called, in their order.
pub(crate) fn ids(exporter: &Exporter<'_>, args: &[&str]) -> Vec<String> {
    let entries = history(exporter, args);
    entries.as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

/// A run as another program would enter it.
pub(crate) fn enter(exporter: &Exporter<'_>, id: i64, values: &[(&str, &str)]) {
    let mut all = vec![
        ("kind", "incremental"),
        ("status", "success"),
        ("started", "2025-11-28T10:00:00Z"),
        ("finished", "2025-11-28T10:00:05Z"),
        ("boundary", "2025-11-28 09:55:00"),
        ("user", "cron"),
        ("host", "db1"),
        ("pid", "1"),
        ("command_line", "invoice-export run"),
        ("version", "0.1.0"),
    ];
    for (name, value) in values {
        all.retain(|(known, _)| known != name);
        all.push((name, value));
    }
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let texts: Vec<String> = all.iter().map(|(_, value)| quoted(value)).collect();
    let (names, texts) = (names.join(", "), texts.join(", "));
    meddle(&exporter.state(), &format!("INSERT INTO run (id, {names}) VALUES ({id}, {texts})"));
}

pub(crate) fn change(exporter: &Exporter<'_>, kind: &str, at: &str, last_run: i64, moves: &[(&str, &str)]) {
    let sql = format!(
        "INSERT INTO state_change (kind, at, last_run, user, host, reason) VALUES ('{kind}', '{at}', {last_run}, 'root', 'db1', 'because')"
    );
    meddle(&exporter.state(), &sql);
    for (tenant, new) in moves {
        let of = format!("(SELECT n FROM tenant WHERE name = {})", quoted(tenant));
        let sql =
            format!("INSERT INTO watermark_change VALUES ((SELECT max(n) FROM state_change), {of}, NULL, '{new}')");
        meddle(&exporter.state(), &sql);
    }
}

#[test]
fn runs_are_listed_newest_first_with_everything_they_did() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(50 * MINUTE), ..Row::default() });
        exporter.run(["run"]).expect(0);
        table.insert(&Row {
            id: 2,
            number: "BAD",
            document: "no json",
            time: &table.ago(40 * MINUTE),
            ..Row::default()
        });
        exporter.run(INCREMENTAL).expect(3);
        let entries = history(&exporter, &[]);
        let [second, first] = entries.as_array().unwrap().as_slice() else { panic!("{entries}") };
        for entry in [first, second] {
            let fields: Vec<_> = entry.as_object().unwrap().keys().cloned().collect();
            let mut documented = FIELDS.map(str::to_owned);
            documented.sort();
            assert_eq!(fields, documented);
            assert_eq!(
                (&entry["user"], &entry["alive"], &entry["error"]),
                (&json!(id("-un")), &Value::Null, &Value::Null)
            );
            assert!(entry["duration_seconds"].as_i64().unwrap() >= 0);
        }
        let numbers =
            |entry: &Value| ["seen", "written", "rejected", "tenants"].map(|name| entry[name].as_i64().unwrap());
        assert_eq!((&first["id"], &first["kind"], &first["status"]), (&json!("1"), &json!("full"), &json!("success")));
        assert_eq!((&second["id"], &second["kind"]), (&json!("2"), &json!("incremental")));
        assert_eq!(second["status"], "partial");
        assert_eq!((numbers(first), numbers(second)), ([1, 1, 0, 1], [1, 0, 1, 1]));
        let boundary = exporter.ask_one("SELECT boundary FROM run WHERE id = 2");
        assert_eq!(second["boundary"], boundary.as_str());
        let text = exporter.run(["history"]).expect(0);
        let lines: Vec<&str> = text.stdout.lines().collect();
        assert!(lines.len() == 3 && lines[1].starts_with("2   incremental  partial"), "{text}");
        assert!(lines[1].contains(&format!("-> {boundary}")) && lines[1].contains("1 rejected"), "{text}");
        assert!(lines[2].contains(&format!("{}@", id("-un"))) && lines[2].ends_with("1 written"), "{text}");
        assert!(lines.iter().all(|line| line.len() <= 120), "{text}");
    });
}

#[test]
fn csv_has_the_documented_fields() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    let of_tenant = FIELDS.iter().chain(&["tenant", "old_watermark", "new_watermark"]).copied().collect();
    for (args, fields) in [(&[][..], FIELDS.to_vec()), (&["--tenant", "1"], of_tenant)] {
        let csv = exporter.run(["history", "--format", "csv"].iter().chain(args)).expect(0).stdout;
        let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(rows[0], fields);
        assert!(rows.len() == 2 && rows[1].len() == fields.len() && rows[1][0] == "1", "{csv}");
    }
}

#[test]
fn a_change_stands_above_the_run_it_followed_and_a_pull_back_above_its_own() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    change(&exporter, "set", "2025-11-28T10:00:00Z", 1, &[("1", "2099-01-01 00:00:00")]);
    meddle(&exporter.state(), "UPDATE tenant SET watermark = '2099-01-01 00:00:00'");
    exporter.run(INCREMENTAL).expect(0);
    exporter.run(["run"]).expect(0);
    assert_eq!(ids(&exporter, &[]), ["3", "c2", "2", "c1", "1"]);
    // However the list is cut.
    for limit in 1..=5 {
        assert_eq!(ids(&exporter, &["--limit", &limit.to_string()]), ["3", "c2", "2", "c1", "1"][..limit]);
    }
    let pulled_back = &history(&exporter, &["--kind", "pull-back"])[0];
    assert_eq!((&pulled_back["tenants"], &pulled_back["status"]), (&json!(1), &Value::Null));
    assert!(pulled_back["remark"].as_str().unwrap().contains("ahead of the boundary"), "{pulled_back}");
    let run = history(&exporter, &["2"]);
    let boundary = exporter.ask_one("SELECT boundary FROM run WHERE id = 2");
    let moved = json!([{ "tenant": "1", "old_watermark": "2099-01-01 00:00:00", "new_watermark": boundary }]);
    assert_eq!(run["pulled_back"], moved);
    assert_eq!(history(&exporter, &["c2"])["watermarks"], moved);
    assert_eq!(history(&exporter, &["1"])["pulled_back"], json!([]));
    let text = exporter.run(["history", "--tenant", "1"]).expect(0).stdout;
    assert!(
        text.contains("none -> 2099-01-01 00:00:00") && text.contains(&format!("2099-01-01 00:00:00 -> {boundary}"))
    );
}

#[test]
fn each_filter_lets_through_what_it_names() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    enter(&exporter, 10, &[("kind", "full"), ("started", "2020-01-01T00:00:00Z")]);
    enter(&exporter, 11, &[("kind", "backfill"), ("status", "failed"), ("started", "2020-01-02T23:59:59Z")]);
    // The clock went back.
    enter(&exporter, 12, &[("kind", "full"), ("status", "failed"), ("started", "2020-01-01T12:00:00Z")]);
    enter(&exporter, 13, &[("status", "partial"), ("started", "2020-01-03T00:00:00Z")]);
    change(&exporter, "reset", "2020-01-02T12:00:00Z", 11, &[]);
    change(&exporter, "set", "2020-01-03T00:00:00Z", 13, &[("1", "2020-01-01 00:00:00")]);
    change(&exporter, "import", "2020-01-01T06:00:00Z", 13, &[]);
    for (args, expected) in [
        (&[][..], &["c3", "c2", "13", "12", "c1", "11", "10", "1"][..]),
        (&["--kind", "full"], &["12", "10"]),
        (&["--kind", "reset"], &["c1"]),
        (&["--status", "failed"], &["12", "11"]),
        (&["--status", "failed", "--kind", "full"], &["12"]),
        (&["--status", "cancelled"], &[]),
        (&["--tenant", "1"], &["c2", "1"]),
        (&["--tenant", "1", "--kind", "set"], &["c2"]),
        (&["--tenant", "1", "--status", "failed"], &[]),
        (&["--tenant", "1", "--until", "2020-12-31"], &["c2"]),
        (&["--until", "2020-01-01"], &["c3", "12", "10"]),
        (&["--until", "2020-01-01 12:00:00"], &["c3", "12", "10"]),
        (&["--until", "2020-01-01T11:59:59Z"], &["c3", "10"]),
        (&["--since", "2020-01-02", "--until", "2020-01-02"], &["c1", "11"]),
        (&["--since", "2020-01-03"], &["c2", "13", "1"]),
        (&["--since", "2020-01-01", "--until", "2020-01-03 00:00:00", "--kind", "full"], &["12", "10"]),
        (&["--since", "2019-01-01", "--until", "2019-12-31"], &[]),
        (&["--limit", "2"], &["c3", "c2"]),
        (&["--since", "2020-01-01 00:00:00", "--limit", "1", "--status", "failed"], &["12"]),
    ] {
        assert_eq!(ids(&exporter, args), expected, "{args:?}");
    }
}

#[test]
fn a_tenants_history_has_its_own_numbers_and_watermarks() {
    let table = Table::embedded();
    for (id, tenant) in [(1, "a"), (2, "b"), (3, "b")] {
        let number = id.to_string();
        table.insert(&Row { id, tenant, number: &number, time: &table.ago(50 * MINUTE), ..Row::default() });
    }
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    table.insert(&Row { id: 4, tenant: "a", number: "4", time: &table.ago(40 * MINUTE), ..Row::default() });
    exporter.run(INCREMENTAL).expect(0);
    let numbers = |tenant: &str| -> Vec<Value> {
        let entries = history(&exporter, &["--tenant", tenant]);
        let entries = entries.as_array().unwrap().iter();
        entries.map(|entry| json!([entry["id"], entry["tenant"], entry["tenants"], entry["written"]])).collect()
    };
    assert_eq!(numbers("a"), [json!(["2", "a", 1, 1]), json!(["1", "a", 1, 1])]);
    // Nothing of it was new in the second run.
    assert_eq!(numbers("b"), [json!(["1", "b", 1, 2])]);
    let boundary = |run: i64| exporter.ask_one(&format!("SELECT boundary FROM run WHERE id = {run}"));
    let entries = history(&exporter, &["--tenant", "a"]);
    assert_eq!(entries[0]["old_watermark"], boundary(1).as_str());
    assert_eq!(entries[0]["new_watermark"], boundary(2).as_str());
    assert_eq!(entries[1]["old_watermark"], Value::Null);
}

#[test]
fn a_history_of_many_pages_is_told_whole_and_in_order() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    meddle(
        &exporter.state(),
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 1300)
         INSERT INTO run (id, kind, status, started, boundary, user, host, pid, command_line, version)
         SELECT i, 'full', 'success', '2025-11-28T10:00:00Z', '2025-11-28 09:55:00', 'u', 'h', 1, '', '' FROM n;
         INSERT INTO state_change (kind, at, last_run, user, host)
         SELECT 'reset', '2025-11-28T10:00:00Z', id, 'u', 'h' FROM run WHERE id % 2 = 0",
    );
    let expected: Vec<String> = (1..=1300)
        .rev()
        .flat_map(|run| {
            let change = (run % 2 == 0).then(|| format!("c{}", run / 2));
            change.into_iter().chain([run.to_string()])
        })
        .collect();
    assert_eq!(ids(&exporter, &["--limit", "0"]), expected);
    for format in ["text", "csv"] {
        let listed = exporter.run(["history", "--limit", "0", "--format", format]).expect(0).stdout;
        let first = |line: &str| line.split([' ', ',']).next().unwrap().to_owned();
        assert_eq!(listed.lines().skip(1).map(first).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn one_run_is_shown_with_its_tenants_rejects_and_command_line() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(50 * MINUTE), ..Row::default() });
        table.insert(&Row {
            id: 2,
            tenant: "2",
            number: "BAD",
            document: "?",
            time: &table.ago(50 * MINUTE),
            ..Row::default()
        });
        exporter.run(INCREMENTAL).expect(3);
        exporter.run(INCREMENTAL).expect(0);
        let first = history(&exporter, &["1"]);
        let refused = json!({
            "tenant": "2", "number": "BAD", "id": "2", "reason": "not-json", "first_run": 1, "last_run": 2,
            "closed_run": null, "closed_how": null,
        });
        for (name, value) in refused.as_object().unwrap() {
            assert_eq!(&first["rejects"][0][name], value, "{name}");
        }
        let mut documented = REJECT.map(str::to_owned);
        documented.sort();
        assert_eq!(first["rejects"][0].as_object().unwrap().keys().cloned().collect::<Vec<_>>(), documented);
        let written = |tenant: usize| &first["per_tenant"][tenant]["written"];
        assert_eq!((written(0), written(1)), (&json!(1), &json!(0)));
        let line = first["command_line"].as_str().unwrap();
        assert!(line.ends_with("invoice-export run --mode incremental"), "{line}");
        assert_eq!(first["seen"], 2);
        assert_eq!((&first["pid"], first["version"].as_str()), (&json!(first["pid"].as_i64()), Some("0.1.0")));
        // The second refused it again, and its row is still bad.
        assert_eq!(history(&exporter, &["last"])["rejects"][0]["id"], "2");
        assert_eq!(history(&exporter, &["last-failed"])["id"], "1");
        table.execute(&format!(
            "UPDATE t_invoice SET fext_field = '{{}}', fupdate_time = '{}' WHERE fid = 2",
            table.ago(30 * MINUTE)
        ));
        exporter.run(INCREMENTAL).expect(0);
        let healed = &history(&exporter, &["1"])["rejects"][0];
        assert_eq!((&healed["closed_run"], &healed["closed_how"]), (&json!(3), &json!("exported")));
        assert_eq!(history(&exporter, &["3"])["rejects"], json!([]));
        let text = exporter.run(["history", "1"]).expect(0).stdout;
        for part in ["\nper tenant\ntenant ", "\nrejects\ntenant ", "\ncommand line "] {
            assert!(text.contains(part), "{part:?} is missing:\n{text}");
        }
        let csv = exporter.run(["history", "1", "--format", "csv"]).expect(0).stdout;
        assert!(
            csv.starts_with("tenant,old_watermark,new_watermark,seen,written,") && csv.lines().count() == 3,
            "{csv}"
        );
    });
}

#[test]
fn a_password_is_in_no_command_line() {
    let table = table();
    let exporter = Exporter::new(&table).env("MYSQL_PWD", "hush-1");
    let file = exporter.output().with_file_name("password");
    fs::write(&file, "hush-2\n").unwrap();
    exporter
        .run(
            INCREMENTAL
                .iter()
                .map(|arg| (*arg).to_owned())
                .chain(["--password-file".to_owned(), file.display().to_string()]),
        )
        .expect(0);
    let shown = exporter.run(["history", "last"]).expect(0).to_string();
    assert!(shown.contains("--password-file") && !shown.contains("hush"), "{shown}");
}

#[test]
fn what_is_not_there_is_said_and_what_is_no_run_is_wrong_usage() {
    let table = table();
    let exporter = Exporter::new(&table);
    let missing = exporter.run(["history"]).expect(5);
    assert!(missing.error().contains("there is no state at"), "{missing}");
    exporter.run(INCREMENTAL).expect(0);
    change(&exporter, "reset", "2025-11-28T10:00:00Z", 1, &[]);
    for (args, code, fact) in [
        (&["2"][..], 2, "no run 2"),
        (&["c2"], 2, "no change c2"),
        (&["last-failed"], 1, "no run failed"),
        (&["99999999999999999999"], 2, "c3"),
        (&["-1"], 2, ""),
        (&["first"], 2, "last-failed"),
        (&["c"], 2, "c3"),
        (&["c1", "--files"], 2, "only runs have files"),
        (&["--files"], 2, ""),
        (&["last", "-0"], 2, ""),
        (&["last", "--status", "failed"], 2, ""),
        (&["--kind", "set", "--status", "failed"], 2, "no --status"),
        (&["--since", "tomorrow"], 2, "--since"),
        (&["--since", "2025-11-29", "--until", "2025-11-28"], 2, "--until"),
        (&["--tenant", "2"], 2, "the state knows no tenant \"2\""),
    ] {
        let finished = exporter.run(["history"].iter().chain(args)).expect(code);
        assert!(finished.stdout.is_empty() && finished.stderr.contains(fact), "{args:?}: {finished}");
    }
    let chinese = exporter.run(["history", "--tenant", "2", "--lang", "zh"]).expect(2);
    assert!(chinese.error().contains("状态文件中没有租户 \"2\""), "{chinese}");
    let object = exporter.run(["history", "7", "--format", "json"]).expect(2).json();
    assert_eq!((&object["exit_code"], object["error"].as_str().unwrap().contains("no run 7")), (&json!(2), true));
}

#[test]
fn the_files_of_a_run_are_listed_and_those_that_are_there_can_be_given_to_rsync() {
    let table = Table::embedded();
    for id in 1..=3 {
        table.insert(&Row { id, number: &format!("N {id}"), time: &table.ago(50 * MINUTE), ..Row::default() });
    }
    let exporter = Exporter::new(&table);
    let taken_over = exporter.output().join("1/CN/20251128+N 3.json");
    fs::create_dir_all(taken_over.parent().unwrap()).unwrap();
    fs::write(&taken_over, Row::default().document).unwrap();
    exporter.run(["run"]).expect(0);
    table.execute(&format!(
        "UPDATE t_invoice SET finvoice_no = 'N 1', fissue_date = '2025-11-27', fupdate_time = '{}' WHERE fid = 1",
        table.ago(40 * MINUTE)
    ));
    exporter.run(INCREMENTAL).expect(0);
    let files = |run: &str, arg: &str| exporter.run(["history", run, "--files", arg]).expect(0).stdout;
    let all = "written  1/CN/20251128+N 1.json\nwritten  1/CN/20251128+N 2.json\nadopted  1/CN/20251128+N 3.json\n";
    assert_eq!(files("1", "--no-progress"), all);
    assert_eq!(files("2", "--no-progress"), "written  1/CN/20251127+N 1.json\nremoved  1/CN/20251128+N 1.json\n");
    // Of the first run's files the second one removed one.
    assert_eq!(files("1", "-0"), "1/CN/20251128+N 2.json\0".to_owned() + "1/CN/20251128+N 3.json\0");
    assert_eq!(files("last", "-0"), "1/CN/20251127+N 1.json\0");
    let list = exporter.run(["history"]).expect(0).stdout;
    let results: Vec<&str> = list.lines().skip(1).map(|line| line.rsplit("  ").next().unwrap()).collect();
    assert_eq!(results, ["1 written (1 moved), 1 removed", "2 written, 1 unchanged (1 taken over)"], "{list}");
    let listed: Value = serde_json::from_str(&files("2", "--format=json")).unwrap();
    let removed = json!({ "action": "removed", "path": "1/CN/20251128+N 1.json" });
    assert!(listed.as_array().unwrap().contains(&removed), "{listed}");
    assert!(files("2", "--format=csv").starts_with("action,path\nwritten,1/CN/20251127+N 1.json\n"));
    exporter.run(INCREMENTAL).expect(0);
    assert_eq!(files("last", "-0") + &files("last", "--no-progress"), "");
}

/// Runs of all that can happen to a file: written, taken over, written again, left for another path, shared
/// and lost to another invoice. After each of them, what it and all before it did is told.
pub(crate) fn runs_with_files(table: &Table, exporter: &Exporter<'_>) -> Vec<String> {
    let change = |minutes: u32, change: &str| {
        let time = table.ago(minutes * MINUTE);
        table.execute(&format!("UPDATE t_invoice SET {change}, fupdate_time = '{time}' WHERE fid = 1"));
    };
    let add = |id: i64, number: &str, document: &str, minutes: u32| {
        table.insert(&Row { id, number, document, time: &table.ago(minutes * MINUTE), ..Row::default() });
    };
    add(1, "A", "{}", 50);
    add(2, "B", "{}", 50);
    fs::create_dir_all(exporter.output().join("1/CN")).unwrap();
    fs::write(exporter.output().join("1/CN/20251128+B.json"), "{}").unwrap();
    exporter.run(["run"]).expect(0);
    change(40, "fext_field = '[]'");
    exporter.run(INCREMENTAL).expect(0);
    change(30, "finvoice_no = 'a'");
    add(3, "B", "{}", 30);
    exporter.run(INCREMENTAL).expect(0);
    add(4, "a", "[4]", 20);
    exporter.run(INCREMENTAL).expect(3);
    (1..=4).map(|run: u32| files(exporter, &run.to_string())).collect()
}

pub(crate) fn files(exporter: &Exporter<'_>, run: &str) -> String {
    exporter.run(["history", run, "--files"]).expect(0).stdout
}

#[test]
fn what_a_run_did_to_files_is_told_whatever_later_runs_do() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let told = runs_with_files(&table, &exporter);
    let [a, lower, b] = ["A", "a", "B"].map(|number| format!("1/CN/20251128+{number}.json"));
    assert_eq!(told[0], format!("written  {a}\nadopted  {b}\n"));
    assert_eq!(told[1], format!("written  {a}\n"));
    assert_eq!(told[2], format!("removed  {a}\nadopted  {b}\nwritten  {lower}\n"));
    assert_eq!(told[3], format!("written  {lower}\n"));
    assert_eq!(exporter.ask("SELECT CAST(id AS TEXT), run, adopted FROM entry"), ["2 1 1", "3 3 1", "4 4 0"]);
    let rsync = |run: &str| exporter.run(["history", run, "--files", "-0"]).expect(0).stdout;
    assert_eq!(
        ["1", "2", "3", "4"].map(rsync),
        [format!("{b}\0"), String::new(), format!("{b}\0{lower}\0"), format!("{lower}\0")]
    );
}

#[test]
fn many_files_are_told_whole_and_in_order() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    enter(&exporter, 2, &[("status", "running")]);
    meddle(
        &exporter.state(),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
         INSERT INTO file_past SELECT 2, 1, printf('%05d', i), a FROM n JOIN (SELECT 'written' AS a UNION SELECT 'removed');
         DROP TRIGGER entry_comes_now;
         INSERT INTO entry SELECT name, 1, NULL, 1, name, zeroblob(32), 1, 1, 1, 0, 1, 0, NULL, NULL FROM file_past WHERE action = 'written'",
    );
    let paths: Vec<String> = (1..=2500).map(|i| format!("1/CN/{i:05}.json")).collect();
    let whole: String = paths.iter().map(|path| format!("removed  {path}\nwritten  {path}\n")).collect();
    assert_eq!(exporter.run(["history", "2", "--files"]).expect(0).stdout, whole);
    let nul: String = paths.iter().map(|path| format!("{path}\0")).collect();
    assert_eq!(exporter.run(["history", "2", "--files", "-0"]).expect(0).stdout, nul);
}

#[test]
fn a_run_that_died_is_told_from_one_that_ended() {
    let table = table();
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    table.insert(&Row { id: 2, number: "INV002", time: &table.ago(40 * MINUTE), ..Row::default() });
    assert!(run_with(&exporter, "renameat:signal=KILL:when=1", &["run"]).was_killed());
    assert_eq!(exporter.ask_one("SELECT status FROM run WHERE id = 2"), "running");
    let entry = &history(&exporter, &[])[0];
    assert_eq!((&entry["status"], &entry["alive"]), (&json!("running"), &json!(false)));
    assert_eq!(entry["duration_seconds"], Value::Null);
    let text = exporter.run(["history"]).expect(0).stdout;
    assert!(text.lines().nth(1).unwrap().contains("running (dead)"), "{text}");
    assert_eq!(history(&exporter, &["last-failed"])["id"], "2");
    let status = exporter.run(["status", "-q"]).expect(0);
    assert!(status.stderr.contains("[WARN] run 2 (full)") && status.stderr.contains("died"), "{status}");
    assert_eq!(exporter.ask_one("SELECT status FROM run WHERE id = 2"), "running", "the state is left as it was");
    exporter.run(INCREMENTAL).expect(0);
    let entries = history(&exporter, &["--status", "interrupted"]);
    assert_eq!((&entries[0]["id"], &entries[0]["duration_seconds"]), (&json!("2"), &Value::Null));
}
