//! `status`: how every tenant stands, with the source and without it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::disk::Closed;
use crate::support::exporter::{Exporter, Finished, run_with};
use crate::support::server::{Server, server};
use crate::support::state::meddle;
use crate::support::table::{Row, Table, on_every_flavor, on_every_source};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];

/// As documented.
const FIELDS: [&str; 29] = [
    "tenant",
    "watermark",
    "lag_seconds",
    "stale",
    "last_outcome",
    "last_run",
    "last_time",
    "last_written",
    "open_rejects",
    "oldest_reject",
    "oldest_reject_seconds",
    "late_by_seconds",
    "note",
    "verified_run",
    "verified_time",
    "verified_against",
    "verified_content",
    "verified_since",
    "verified_until",
    "proven_ledger_time",
    "proven_keys_time",
    "proven_documents_time",
    "newest_verification_run",
    "newest_verification_time",
    "newest_verification_against",
    "newest_verification_differences",
    "failed_run",
    "failed_time",
    "failed_error",
];
const REJECT: [&str; 9] = ["tenant", "number", "id", "time", "reason", "first_run", "since", "last_run", "detail"];

fn insert(table: &Table, id: i64, tenant: &str, time: &str) {
    table.insert(&Row { id, tenant, number: &format!("INV{id}"), time, ..Row::default() });
}

/// An exporter that has exported tenants 1 and 10.
fn exported(table: &Table) -> Exporter<'_> {
    insert(table, 1, "1", &table.ago(3 * HOUR));
    insert(table, 2, "10", &table.ago(3 * HOUR));
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(0);
    exporter
}

fn set_watermark(exporter: &Exporter<'_>, tenant: &str, time: &str) {
    meddle(&exporter.state(), &format!("UPDATE tenant SET watermark = '{time}' WHERE name = '{tenant}'"));
}

fn status(exporter: &Exporter<'_>, args: &[&str], code: i32) -> (Vec<Value>, Finished) {
    let finished = exporter.run(["status", "--format", "json"].iter().chain(args)).expect(code);
    (finished.json().as_array().unwrap().clone(), finished)
}

fn tenants(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["tenant"].as_str().unwrap()).collect()
}

fn of<'a>(rows: &'a [Value], tenant: &str) -> &'a Value {
    rows.iter().find(|row| row["tenant"] == tenant).unwrap_or_else(|| panic!("no tenant {tenant} in {rows:?}"))
}

fn warnings(finished: &Finished) -> Vec<&str> {
    finished.stderr.lines().filter(|line| line.starts_with("[WARN]")).collect()
}

#[test]
fn every_tenant_is_told_with_its_lag_the_greatest_first() {
    on_every_source(|table| {
        let exporter = exported(table);
        insert(table, 3, "2", &table.ago(2 * HOUR));
        set_watermark(&exporter, "10", &table.ago(2 * HOUR));
        let (rows, finished) = status(&exporter, &["--safety-lag", "10m"], 0);
        assert!(finished.stderr.is_empty(), "{finished}");
        assert_eq!(tenants(&rows), ["2", "10", "1"]);
        for row in &rows {
            let mut documented = FIELDS.map(str::to_owned);
            documented.sort();
            assert_eq!(row.as_object().unwrap().keys().cloned().collect::<Vec<_>>(), documented);
        }
        let new = of(&rows, "2");
        assert_eq!(
            (&new["note"], &new["lag_seconds"], &new["watermark"]),
            (&json!("never exported"), &Value::Null, &Value::Null)
        );
        let lag = of(&rows, "10")["lag_seconds"].as_i64().unwrap();
        assert!((6600..6600 + 300).contains(&lag), "a lag of {lag} s");
        let late = of(&rows, "1");
        // Its watermark is five minutes old, the boundary of this look ten.
        assert!((-300..0).contains(&late["lag_seconds"].as_i64().unwrap()), "{late}");
        let [watermark, finished_at] = ["SELECT watermark FROM tenant WHERE name = '1'", "SELECT finished FROM run"]
            .map(|sql| exporter.ask_one(sql));
        assert_eq!((&late["watermark"], &late["last_time"]), (&json!(watermark), &json!(finished_at)));
        assert_eq!(
            (&late["last_outcome"], &late["last_run"], &late["last_written"]),
            (&json!("success"), &json!(1), &json!(1))
        );
        assert_eq!((&late["open_rejects"], &late["stale"], &late["note"]), (&json!(0), &Value::Null, &Value::Null));
        let text = exporter.run(["status"]).expect(0).stdout;
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 5 && lines[1].starts_with("2 ") && lines[1].ends_with("never exported"), "{text}");
        assert!(lines[2].contains("  1h 5") && lines[3].contains(&watermark), "{text}");
        let csv = exporter.run(["status", "--format", "csv"]).expect(0).stdout;
        assert_eq!(csv.lines().next().unwrap(), FIELDS.join(","));
    });
}

#[test]
fn how_the_last_incremental_run_went_stands_also_after_a_failed_run() {
    let table = Table::embedded();
    let exporter = exported(&table);
    table.execute("UPDATE t_invoice SET fcountry = 'IT' WHERE fid = 1");
    let closed = Closed::new(exporter.output().join("1/IT"));
    exporter.run(["run", "--mode", "full"]).expect(3);
    drop(closed);
    let (rows, _) = status(&exporter, &[], 0);
    let row = of(&rows, "1");
    assert_eq!(
        (&row["last_outcome"], &row["last_run"], &row["last_written"]),
        (&json!("success"), &json!(1), &json!(1))
    );
}

#[test]
fn a_tenant_without_rows_is_absent_and_last_and_never_stale() {
    on_every_source(|table| {
        let exporter = exported(table);
        table.execute("DELETE FROM t_invoice WHERE fid = 1");
        table.execute("UPDATE t_invoice SET fissue_status = 4 WHERE fid = 2");
        insert(table, 3, "89", &table.ago(10 * MINUTE));
        exporter.run(INCREMENTAL).expect(0);
        set_watermark(&exporter, "1", "2020-01-01 00:00:00");
        let (rows, _) = status(&exporter, &["--stale-after", "1h"], 0);
        assert_eq!(tenants(&rows), ["89", "1", "10"]);
        for tenant in ["1", "10"] {
            let row = of(&rows, tenant);
            assert_eq!(
                (&row["note"], &row["lag_seconds"], &row["stale"]),
                (&json!("absent"), &Value::Null, &json!(false))
            );
        }
    });
}

#[test]
fn a_tenant_that_lags_too_far_makes_exit_6() {
    on_every_source(|table| {
        let exporter = exported(table);
        set_watermark(&exporter, "10", &table.ago(2 * HOUR));
        status(&exporter, &["--stale-after", "3h"], 0);
        let (rows, finished) = status(&exporter, &["--stale-after", "1h"], 6);
        assert_eq!((&of(&rows, "10")["stale"], &of(&rows, "1")["stale"]), (&json!(true), &json!(false)));
        assert_eq!(warnings(&finished), ["[WARN] stale: 1 of 2 tenants (--stale-after 1h)"]);
        // What was never exported is judged by its newest row.
        set_watermark(&exporter, "10", &table.ago(10 * MINUTE));
        insert(table, 3, "new", &table.ago(30 * MINUTE));
        let (rows, _) = status(&exporter, &["--stale-after", "1h"], 0);
        assert_eq!((tenants(&rows)[0], &rows[0]["stale"]), ("new", &json!(false)));
        let (rows, _) = status(&exporter, &["--stale-after", "20m"], 6);
        assert_eq!((tenants(&rows)[0], &rows[0]["stale"]), ("new", &json!(true)));
        let text = exporter.run(["status", "--stale-after", "20m", "-q", "--lang", "zh"]).expect(6);
        assert!(text.stdout.lines().nth(1).unwrap().ends_with("滞后过久，从未导出"), "{text}");
        assert_eq!(warnings(&text), ["[WARN] 3 个租户中有 1 个滞后超过 20 分钟（--stale-after）"]);
    });
}

#[test]
fn a_tenant_that_only_full_runs_exported_has_no_watermark() {
    let table = Table::embedded();
    insert(&table, 1, "1", &table.ago(HOUR));
    let exporter = Exporter::new(&table);
    exporter.run(["run"]).expect(0);
    let (rows, _) = status(&exporter, &["--stale-after", "2h"], 0);
    assert_eq!((&rows[0]["note"], &rows[0]["last_run"]), (&json!("no watermark"), &Value::Null));
    status(&exporter, &["--stale-after", "30m"], 6);
}

/// Without the server there is no lag, and what counts is when a run succeeded last.
#[test]
fn without_the_server_the_age_of_the_last_success_counts() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let table = Table::on(&own);
        let exporter = exported(&table);
        own.kill();
        let (rows, finished) = status(&exporter, &["--retry-for", "0s"], 0);
        assert_eq!(tenants(&rows), ["1", "10"]);
        assert!(rows.iter().all(|row| row["lag_seconds"].is_null() && row["watermark"].is_string()), "{rows:?}");
        let [warning] = warnings(&finished)[..] else { panic!("one warning is expected: {finished}") };
        assert!(warning.contains("no lag is shown") && warning.contains("cannot connect to mysql://"), "{warning}");
        let (_, finished) = status(&exporter, &["--stale-after", "1h", "--retry-for", "0s"], 0);
        assert!(finished.stderr.contains("this machine's clock"), "{finished}");
        meddle(
            &exporter.state(),
            "INSERT INTO run (id, kind, status, started, boundary, user, host, pid, command_line, version)
             VALUES (0, 'incremental', 'success', strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-2 hours'), '', '', '', 1, '', '');
             UPDATE tenant SET last_run = 0 WHERE name = '10'",
        );
        let (rows, _) = status(&exporter, &["--stale-after", "1h", "--retry-for", "0s"], 6);
        assert_eq!((&of(&rows, "10")["stale"], &of(&rows, "1")["stale"]), (&json!(true), &json!(false)));
        status(&exporter, &["--stale-after", "3h", "--retry-for", "0s"], 0);
        meddle(&exporter.state(), "UPDATE tenant SET last_outcome = 'failed' WHERE name = '1'");
        let (rows, _) = status(&exporter, &["--stale-after", "3h", "--retry-for", "0s"], 6);
        assert_eq!(of(&rows, "1")["stale"], true);
        own.restart();
        let (rows, finished) = status(&exporter, &["--stale-after", "3h"], 0);
        assert!(warnings(&finished).is_empty() && rows[0]["lag_seconds"].is_i64(), "{finished}");
    });
}

#[test]
fn without_a_source_everything_but_the_lag_is_told() {
    let table = Table::embedded();
    let exporter = exported(&table).env("INVOICE_EXPORT_SOURCE", "");
    let (rows, finished) = status(&exporter, &[], 0);
    assert_eq!((rows.len(), &rows[0]["lag_seconds"]), (2, &Value::Null));
    assert_eq!(warnings(&finished).len(), 1, "{finished}");
    assert!(finished.stderr.contains("no source is given"), "{finished}");
}

#[test]
fn another_source_and_a_wrong_one_are_refused() {
    let (table, other) = (Table::embedded(), Table::embedded());
    let exporter = exported(&table);
    let elsewhere = exporter.run(["status", "--source", &other.url()]).expect(5);
    assert!(elsewhere.stdout.is_empty() && elsewhere.stderr.contains("belongs to the source"), "{elsewhere}");
    exporter.run(["status", "--source", "no url"]).expect(2);
    exporter.run(["status", "--source", "mysql://root:secret@127.0.0.1/x"]).expect(2);
    let nothing = Exporter::new(&table).run(["status"]).expect(5);
    assert!(nothing.stderr.contains("there is no state at"), "{nothing}");
}

#[test]
fn a_known_tenant_that_is_listed_under_another_spelling_is_not_absent() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        insert(&table, 1, "acme", &table.ago(3 * HOUR));
        let exporter = Exporter::new(&table);
        exporter.run(INCREMENTAL).expect(0);
        // The list of tenants has one spelling for both; make it the unknown one.
        table.execute("UPDATE t_invoice SET ftenant_id = 'ACME', fupdate_time = fupdate_time");
        let (rows, _) = status(&exporter, &[], 0);
        assert_eq!(tenants(&rows), ["ACME", "acme"]);
        assert_eq!(of(&rows, "ACME")["note"], "never exported");
        assert!(of(&rows, "acme")["note"].is_null() && of(&rows, "acme")["lag_seconds"].is_i64(), "{rows:?}");
    });
}

#[test]
fn open_rejects_are_counted_with_their_age_and_listed() {
    on_every_source(|table| {
        let exporter = exported(table);
        for id in [3, 4] {
            let row = Row { id, number: &format!("BAD{id}"), document: "?", time: &table.ago(HOUR), ..Row::default() };
            table.insert(&row);
        }
        exporter.run(INCREMENTAL).expect(3);
        exporter.run(INCREMENTAL).expect(0);
        let (rows, _) = status(&exporter, &[], 0);
        let started = exporter.ask_one("SELECT started FROM run WHERE id = 2");
        let row = of(&rows, "1");
        assert_eq!((&row["open_rejects"], &row["oldest_reject"]), (&json!(2), &json!(started)));
        assert!(row["oldest_reject_seconds"].is_i64() && of(&rows, "10")["open_rejects"] == 0, "{rows:?}");
        let (rejects, _) = status(&exporter, &["--rejects"], 0);
        let mut documented = REJECT.map(str::to_owned);
        documented.sort();
        assert_eq!(rejects[0].as_object().unwrap().keys().cloned().collect::<Vec<_>>(), documented);
        let numbers: Vec<_> = rejects.iter().map(|reject| reject["number"].as_str().unwrap()).collect();
        assert_eq!(numbers, ["BAD3", "BAD4"]);
        assert_eq!(
            (&rejects[0]["since"], &rejects[0]["first_run"], &rejects[0]["last_run"]),
            (&json!(started), &json!(2), &json!(3))
        );
        assert_eq!((&rejects[0]["reason"], &rejects[0]["tenant"]), (&json!("not-json"), &json!("1")));
        table.execute(&format!(
            "UPDATE t_invoice SET fext_field = '1', fupdate_time = '{}' WHERE fid = 3",
            table.ago(30 * MINUTE)
        ));
        exporter.run(INCREMENTAL).expect(0);
        let csv = exporter.run(["status", "--rejects", "--format", "csv"]).expect(0).stdout;
        let lines: Vec<&str> = csv.lines().collect();
        assert!(lines.len() == 2 && lines[0] == REJECT.join(",") && lines[1].starts_with("1,BAD4,4,"), "{csv}");
        exporter.run(["status", "--rejects", "--stale-after", "1h"]).expect(2);
    });
}

#[test]
fn many_open_rejects_are_listed_oldest_first_and_those_of_nobody_are_counted_too() {
    let table = Table::embedded();
    let exporter = exported(&table);
    meddle(
        &exporter.state(),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2300)
         INSERT INTO reject (id, opened_run, reason, detail, last_run)
         SELECT printf('%05d', i), 3 - i % 3, 'unreadable', 'because', 3 FROM n",
    );
    let (rejects, _) = status(&exporter, &["--rejects"], 0);
    let key = |reject: &Value| (reject["first_run"].as_i64().unwrap(), reject["id"].as_str().unwrap().to_owned());
    let keys: Vec<_> = rejects.iter().map(key).collect();
    assert!(keys.len() == 2300 && keys.is_sorted(), "{} rejects", keys.len());
    let (rows, _) = status(&exporter, &["--stale-after", "1h"], 0);
    let nobody = rows.last().unwrap();
    assert_eq!(
        (&nobody["tenant"], &nobody["open_rejects"], &nobody["stale"]),
        (&Value::Null, &json!(2300), &Value::Null)
    );
    assert_eq!(nobody["oldest_reject"], exporter.ask_one("SELECT started FROM run WHERE id = 1").as_str());
    let text = exporter.run(["status"]).expect(0).stdout;
    assert!(text.lines().nth_back(1).unwrap().ends_with("rejects whose tenant cannot be read"), "{text}");
}

#[test]
fn files_that_stay_in_doubt_after_the_next_run_are_still_told() {
    on_every_source(|table| {
        let exporter = exported(table);
        insert(table, 3, "1", &table.ago(2 * HOUR));
        assert!(run_with(&exporter, "renameat:signal=KILL:when=1", &INCREMENTAL).was_killed());
        table.execute("UPDATE t_invoice SET fcountry = 'IT' WHERE fid = 3");
        let closed = Closed::new(exporter.output().join("1/IT"));
        exporter.run(INCREMENTAL).expect(3);
        let (english, chinese) =
            (exporter.run(["status"]).expect(0), exporter.run(["status", "--lang", "zh"]).expect(0));
        drop(closed);
        assert!(
            english.stderr.contains("[WARN] 1 file in doubt since a run died; the next run settles it\n"),
            "{english}"
        );
        assert!(chinese.stderr.contains("[WARN] 有 1 个文件因运行意外终止而待确认；下次运行会重新确认\n"), "{chinese}");
        exporter.run(INCREMENTAL).expect(0);
        assert!(exporter.run(["status"]).expect(0).stderr.is_empty());
    });
}
