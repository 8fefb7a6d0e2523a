//! Source times of the future, and what the newest time of a tenant says in spite of them.

use std::collections::BTreeMap;
use std::time::Duration;

use invoice_export::invoice::SourceTime;
use invoice_export::source::Source;
use mysql::prelude::Queryable;

use crate::support::exporter::numbers;
use crate::support::reader::open;
use crate::support::{Exporter, Flavor, Row, Server, Table, on_every_flavor, on_every_source, server};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const FUTURE: &str = "2099-01-01 00:00:00";

fn incremental(exporter: &Exporter<'_>, args: &[&str]) -> serde_json::Value {
    let fixed = ["run", "--mode", "incremental", "--format", "json"];
    exporter.run(fixed.iter().chain(args)).expect(0).json()
}

/// An application that writes the time of another zone: hours behind the server's clock.
#[test]
fn rows_that_follow_one_of_the_future_are_exported_however_far_behind_the_clock() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(9 * HOUR), ..Row::default() });
        table.insert(&Row { id: 2, number: "FUTURE", time: FUTURE, ..Row::default() });
        assert_eq!(numbers(&incremental(&exporter, &[]), ["written"]), [1]);
        table.insert(&Row { id: 3, number: "NEXT", time: &table.ago(8 * HOUR), ..Row::default() });
        assert_eq!(numbers(&incremental(&exporter, &[]), ["written", "late"]), [1, 1]);
        assert_eq!(numbers(&incremental(&exporter, &[]), ["seen"]), [0]);
        assert_eq!(exporter.ask_one("SELECT count(*) FROM tenant WHERE newest > watermark"), "0");
        // The row of the future waits for its time, or for a full run.
        table.execute("DELETE FROM t_invoice WHERE finvoice_no = 'FUTURE'");
        exporter.assert_agrees();
    });
}

#[test]
fn a_row_of_the_future_is_exported_when_its_time_has_come() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(5 * HOUR), ..Row::default() });
        table.insert(&Row { id: 2, number: "AHEAD", time: &table.ago(5 * MINUTE), ..Row::default() });
        let early = ["--safety-lag", "10m"];
        assert_eq!(numbers(&incremental(&exporter, &early), ["written"]), [1]);
        assert_eq!(numbers(&incremental(&exporter, &early), ["seen"]), [0]);
        assert_eq!(numbers(&incremental(&exporter, &["--safety-lag", "1m"]), ["written"]), [1]);
        exporter.assert_agrees();
    });
}

#[test]
fn a_tenant_with_a_row_of_the_future_can_be_stale() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(HOUR), ..Row::default() });
        incremental(&exporter, &[]);
        table.insert(&Row { id: 2, tenant: "2", time: &table.ago(9 * HOUR), ..Row::default() });
        table.insert(&Row { id: 3, tenant: "2", number: "FUTURE", time: FUTURE, ..Row::default() });
        let status = exporter.run(["status", "--stale-after", "1h", "--format", "json"]).expect(6).json();
        let stale: Vec<_> = status.as_array().unwrap().iter().map(|row| (&row["tenant"], &row["stale"])).collect();
        assert!(stale.contains(&(&"2".into(), &true.into())), "{status}");
    });
}

/// Each tenant with its newest time up to the boundary, and the one above it.
fn newest(table: &Table, upto: &str) -> BTreeMap<String, [Option<String>; 2]> {
    let listed = open(&table.url()).tenants(&upto.into()).unwrap().tenants;
    let text = |time: Option<SourceTime>| time.map(|time| time.0);
    listed.into_iter().map(|listed| (listed.spelling.0, [text(listed.newest), text(listed.ahead)])).collect()
}

#[test]
fn the_newest_time_is_the_greatest_up_to_the_boundary() {
    const UPTO: &str = "2025-11-20 12:00:00";
    on_every_source(|table| {
        // A few tenants are asked one by one, many in one scan.
        for tenants in [3, 50] {
            table.execute("DELETE FROM t_invoice");
            let time = |day: i64| format!("2025-11-{day:02} 12:00:00");
            let mut wanted = BTreeMap::new();
            for tenant in 1..=tenants {
                let (id, name) = (10 * tenant, tenant.to_string());
                let days: &[i64] = [&[11, 12, 25, 26][..], &[12, 20], &[25, 28]][tenant as usize % 3];
                for (n, day) in days.iter().enumerate() {
                    let number = format!("INV{n}");
                    let row = Row { id: id + n as i64, tenant: &name, number: &number, ..Row::default() };
                    table.insert(&Row { time: &time(*day), ..row });
                }
                let below = days.iter().copied().filter(|day| *day <= 20).max().map(time);
                let above = days.iter().copied().filter(|day| *day > 20).max().map(time);
                wanted.insert(name, [below, above]);
            }
            assert_eq!(newest(table, UPTO), wanted, "{tenants} tenants");
        }
    });
}

#[test]
fn spellings_that_a_collation_folds_have_one_newest_time_in_both_scans() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.execute("ALTER TABLE t_invoice CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci");
        for tenant in 1..=30 {
            let (lower, upper) = (format!("acme{tenant}"), format!("ACME{tenant}"));
            table.insert(&Row { id: 2 * tenant, tenant: &lower, time: "2025-11-12 12:00:00", ..Row::default() });
            table.insert(&Row { id: 2 * tenant + 1, tenant: &upper, time: FUTURE, ..Row::default() });
        }
        let found = newest(&table, "2025-11-20 12:00:00");
        let wanted = [Some("2025-11-12 12:00:00".to_owned()), Some(FUTURE.to_owned())];
        assert_eq!(found.len(), 30);
        assert!(found.values().all(|newest| *newest == wanted), "{found:?}");
    });
}

/// What the server made of the statements, which are taken from its own log.
#[test]
fn tenants_with_times_ahead_are_found_through_the_index_alone() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let database = own.database();
        let shares: Vec<String> = (1..=30).map(|tenant| format!("{tenant}:3")).collect();
        database.load_sample(6_000, 7, &shares.join(","));
        database.execute("SET GLOBAL log_output = 'TABLE'");
        database.execute("SET GLOBAL general_log = 1");
        let mut source = open(&database.url());
        let plans = |source: &mut dyn Source, upto: &str| {
            database.execute("TRUNCATE mysql.general_log");
            source.tenants(&upto.into()).unwrap();
            let sent = database.query(
                "SELECT argument FROM mysql.general_log \
                 WHERE command_type = 'Execute' AND argument LIKE '%FROM `t_invoice`%'",
            );
            let mut session = database.connect();
            let explain = |sql: &Vec<Option<String>>| {
                let sql = format!("EXPLAIN FORMAT=TRADITIONAL {}", sql[0].as_deref().unwrap());
                let row: mysql::Row = session.query_first(sql).unwrap().unwrap();
                let cell = |name| row.get::<Option<String>, _>(name).flatten().unwrap_or_default();
                ["type", "key", "Extra"].map(cell).join(",")
            };
            sent.iter().map(explain).collect::<Vec<String>>()
        };
        let scan = "range,idx_incremental_export,Using where; Using index for group-by";
        assert_eq!(plans(&mut *source, "2025-11-10 00:00:00"), [scan, scan]);
        database.execute("UPDATE t_invoice SET fupdate_time = '2025-11-05' WHERE ftenant_id > '1'");
        let last = match flavor {
            Flavor::MariaDb => "range,idx_incremental_export,Using where; Using index",
            Flavor::MySql => "range,idx_incremental_export,Using where; Backward index scan; Using index",
        };
        assert_eq!(plans(&mut *source, "2025-11-10 00:00:00"), [scan, last]);
    });
}
