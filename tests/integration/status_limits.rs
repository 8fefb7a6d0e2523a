//! `status` for one who watches many tenants: alarms of old and of many rejects, some tenants only, some rows only, and
//! one line about all of them.

use std::time::Duration;

use serde_json::Value;

use crate::support::exporter::Finished;
use crate::support::state::meddle;
use crate::support::{Exporter, Row, Table, on_every_flavor, on_every_source, server};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];

/// An exporter of tenants 1, 2 and 3, with a reject of tenant 1 that is two hours old and two new ones of tenant 2.
fn exported(table: &Table) -> Exporter<'_> {
    let insert = |id: i64, tenant: &str, document: &str| {
        // Each is newer than those before it.
        let (number, time) = (format!("INV{id}"), table.ago(3 * HOUR - id as u32 * MINUTE));
        table.insert(&Row { id, tenant, number: &number, document, time: &time, ..Row::default() });
    };
    for (id, tenant) in [(1, "1"), (2, "2"), (3, "3")] {
        insert(id, tenant, "{}");
    }
    insert(4, "1", "?");
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(3);
    // A finished run is history: only another program can make it older.
    meddle(
        &exporter.state(),
        "DROP TRIGGER run_is_final; UPDATE run SET started = strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-2 hours')",
    );
    insert(5, "2", "?");
    insert(6, "2", "?");
    exporter.run(INCREMENTAL).expect(3);
    exporter
}

fn status(exporter: &Exporter<'_>, args: &[&str], code: i32) -> Finished {
    exporter.run(["status"].iter().chain(args)).expect(code)
}

fn rows(exporter: &Exporter<'_>, args: &[&str], code: i32) -> Vec<Value> {
    status(exporter, &[&["--format", "json"], args].concat(), code).json().as_array().expect("rows").clone()
}

fn tenants(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["tenant"].as_str().expect("a tenant")).collect()
}

fn warnings(finished: &Finished) -> Vec<&str> {
    finished.stderr.lines().filter(|line| line.starts_with("[WARN]")).collect()
}

#[test]
fn more_rejects_than_allowed_and_older_ones_make_exit_6() {
    on_every_source(|table| {
        let exporter = exported(table);
        let quiet = ["--max-rejects", "3", "--reject-older-than", "3h"];
        for of_rejects in [&[][..], &["--rejects"]] {
            let within = status(&exporter, &[&quiet, of_rejects].concat(), 0);
            assert!(warnings(&within).is_empty(), "{within}");
            let many = status(&exporter, &[&["--max-rejects", "2", "-q"], of_rejects].concat(), 6);
            assert_eq!(warnings(&many), ["[WARN] 3 invoices cannot be exported (--max-rejects 2)"]);
            let old = status(&exporter, &[&["--reject-older-than", "1h"], of_rejects].concat(), 6);
            let said = "[WARN] an invoice could not be exported for 2h";
            assert!(matches!(warnings(&old)[..], [line] if line.starts_with(said)), "{old}");
        }
        let both = status(&exporter, &["--max-rejects", "0", "--reject-older-than", "1h", "--lang", "zh"], 6);
        let [many, old] = warnings(&both)[..] else { panic!("two warnings are expected: {both}") };
        assert!(many.contains("无法导出的记录有 3 条") && old.contains("有记录无法导出已持续 2 小时"), "{both}");
    });
}

#[test]
fn alarms_are_those_of_the_chosen_tenants() {
    on_every_source(|table| {
        let exporter = exported(table);
        let limits = ["--max-rejects", "1", "--reject-older-than", "1h"];
        let of = |tenant, code| status(&exporter, &[&limits[..], &["--tenant", tenant]].concat(), code);
        assert!(matches!(warnings(&of("1", 6))[..], [line] if line.contains("--reject-older-than")));
        assert!(matches!(warnings(&of("2", 6))[..], [line] if line.contains("--max-rejects")));
        assert!(warnings(&of("3", 0)).is_empty());
        let stale =
            |tenant, code| status(&exporter, &["--stale-after", "1h", "--safety-lag", "1s", "--tenant", tenant], code);
        meddle(&exporter.state(), "UPDATE tenant SET watermark = '2025-11-01 00:00:00' WHERE name = '3'");
        assert!(stale("3", 6).stderr.contains("stale: 1 of 1 tenant ("));
        stale("1", 0);
    });
}

#[test]
fn some_tenants_and_some_rows_are_listed_where_that_is_asked_for() {
    on_every_source(|table| {
        let exporter = exported(table);
        assert_eq!(rows(&exporter, &[], 0).len(), 3);
        assert_eq!(tenants(&rows(&exporter, &["--tenant", "3", "--tenant", "1"], 0)), ["1", "3"]);
        assert_eq!(tenants(&rows(&exporter, &["--limit", "2"], 0)), ["1", "2"]);
        assert_eq!(rows(&exporter, &["--limit", "0"], 0).len(), 3);
        let csv = status(&exporter, &["--format", "csv", "--tenant", "2", "--limit", "5"], 0).stdout;
        assert!(csv.lines().count() == 2 && csv.lines().nth(1).is_some_and(|line| line.starts_with("2,")), "{csv}");

        let rejects = |args: &[&str]| {
            let rows = rows(&exporter, &[&["--rejects"], args].concat(), 0);
            rows.iter().map(|row| row["number"].as_str().expect("a number").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(rejects(&[]), ["INV4", "INV5", "INV6"]);
        assert_eq!(rejects(&["--limit", "2"]), ["INV4", "INV5"]);
        assert_eq!(rejects(&["--tenant", "2"]), ["INV5", "INV6"]);
        assert_eq!(rejects(&["--tenant", "2", "--limit", "1"]), ["INV5"]);
        assert_eq!(rejects(&["--tenant", "3"]), [""; 0]);
        // What is not listed alarms all the same.
        assert_eq!(rows(&exporter, &["--limit", "1", "--max-rejects", "2"], 6).len(), 1);
        assert_eq!(rows(&exporter, &["--rejects", "--limit", "1", "--max-rejects", "2"], 6).len(), 1);
    });
}

#[test]
fn an_unknown_tenant_is_a_mistype_and_not_a_tenant_without_rejects() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let exporter = exported(&table);
        for args in [&["--tenant", "one"][..], &["--tenant", "1", "--tenant", "one"], &["--tenant", "one", "--rejects"]]
        {
            let refused = status(&exporter, args, 2);
            assert!(refused.stdout.is_empty() && refused.stderr.contains("no tenant \"one\""), "{refused}");
        }
        // The source has it, the state does not know it yet; the list of tenants shows the second under the first.
        for (id, tenant) in [(7, "new"), (8, "NEW")] {
            let time = table.ago(HOUR);
            table.insert(&Row { id, tenant, number: &format!("INV{id}"), time: &time, ..Row::default() });
        }
        for tenant in ["new", "NEW"] {
            assert_eq!(rows(&exporter, &["--tenant", tenant], 0)[0]["note"], "never exported");
        }
        let without = status(&exporter, &["--tenant", "new", "--source", ""], 2);
        assert!(without.stderr.contains("the state knows no tenant"), "{without}");
    });
}

#[test]
fn a_line_below_the_rows_says_how_all_of_them_stand() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let last = |args: &[&str], code| {
        let text = status(&exporter, args, code).stdout;
        text.lines().last().expect("a line").to_owned()
    };
    let starts = |line: String, with: &str| assert!(line.starts_with(with), "{line}");
    starts(last(&[], 0), "3 tenants: 3 open rejects, the oldest for 2h");
    starts(last(&["--limit", "1", "--stale-after", "5h"], 0), "3 tenants: 0 stale, 3 open rejects, the oldest for 2h");
    assert_eq!(last(&["--tenant", "3"], 0), "1 tenant: no open rejects");
    starts(last(&["--rejects", "--tenant", "1"], 0), "1 open reject, the oldest for 2h");
    starts(
        last(&["--lang", "zh", "--stale-after", "5h"], 0),
        "共 3 个租户: 滞后过久 0 个，无法导出的记录 3 条，最早的已持续 2 小时",
    );
    assert_eq!(last(&["--rejects", "--tenant", "3"], 0), "no open rejects");
}
