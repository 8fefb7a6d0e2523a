//! Incremental runs: what changed since the watermark, what came late, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::exporter::{Finished, numbers};
use crate::support::state::meddle;
use crate::support::{Exporter, Flavor, Row, Server, Table, on_every_flavor, on_every_source, wait_for};

const SAMPLE: &str = "1:0.6,10:0.3,89:0.1";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn incremental(exporter: &Exporter<'_>, args: &[&str]) -> serde_json::Value {
    let fixed = ["run", "--mode", "incremental", "--format", "json"];
    exporter.run(fixed.iter().chain(args)).expect(0).json()
}

/// The paths that are new, gone or touched.
fn touched(before: &BTreeMap<String, (u64, i128)>, after: &BTreeMap<String, (u64, i128)>) -> Vec<String> {
    let all = before.keys().chain(after.keys().filter(|path| !before.contains_key(*path)));
    let mut touched: Vec<String> = all.filter(|path| before.get(*path) != after.get(*path)).cloned().collect();
    touched.sort();
    touched
}

/// The path of a row that is there.
fn path_of(table: &Table, id: &str) -> String {
    let row =
        table.query(&format!("SELECT ftenant_id, fcountry, fissue_date, finvoice_no FROM t_invoice WHERE fid = {id}"));
    let [Some(tenant), Some(country), Some(date), Some(number)] = row[0].as_slice() else { panic!("{row:?}") };
    format!("{tenant}/{country}/{}+{number}.json", date.replace('-', ""))
}

#[test]
fn the_first_run_reads_everything_and_the_next_ones_only_what_changed() {
    on_every_source(|table| {
        table.load_sample(300, 5, SAMPLE);
        let exporter = Exporter::new(table);
        let first = incremental(&exporter, &["--safety-lag", "10m"]);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        assert_eq!(numbers(&first, ["written", "late"]), [exporter.tree().len() as u64, 0]);
        let watermarks = || exporter.ask("SELECT DISTINCT watermark FROM tenant");
        assert_eq!(watermarks(), [first["boundary"].as_str().unwrap()]);

        let before = exporter.stamps();
        let ids = table.query("SELECT fid FROM t_invoice WHERE fissue_status = 3 AND ftenant_id = '1' ORDER BY fid");
        let [updated, moved] = [&ids[0][0], &ids[1][0]].map(|id| id.clone().unwrap());
        let old_path = path_of(table, &moved);
        let time = table.ago(8 * MINUTE);
        table.execute(&format!(
            "UPDATE t_invoice SET fext_field = '{{}}', fupdate_time = '{time}' WHERE fid = {updated}"
        ));
        table.execute(&format!("UPDATE t_invoice SET fcountry = 'IT', fupdate_time = '{time}' WHERE fid = {moved}"));
        table.insert(&Row { id: 1001, tenant: "10", time: &time, ..Row::default() });
        let second = incremental(&exporter, &["--safety-lag", "5m"]);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        let mut changed = vec![path_of(table, &updated), old_path, path_of(table, &moved), path_of(table, "1001")];
        changed.sort();
        assert_eq!(touched(&before, &exporter.stamps()), changed);
        let counts = ["written", "removed", "rejected", "gone", "late"].map(|name| second[name].as_u64().unwrap());
        assert_eq!(counts, [3, 1, 0, 0, 0]);
        assert_eq!(watermarks(), [second["boundary"].as_str().unwrap()]);
    });
}

#[test]
fn a_full_run_spares_the_first_incremental_one_the_documents() {
    on_every_source(|table| {
        table.load_sample(60, 5, SAMPLE);
        let exporter = Exporter::new(table);
        exporter.run(["run"]).expect(0);
        let before = exporter.stamps();
        let summary = incremental(&exporter, &[]);
        assert_eq!(numbers(&summary, ["seen", "tenants"]), [0, 3]);
        assert_eq!(exporter.stamps(), before);
        assert_eq!(exporter.ask("SELECT name FROM tenant WHERE watermark IS NULL"), [""; 0]);
    });
}

#[test]
fn a_row_below_the_watermark_but_inside_the_overlap_is_exported_and_counted_late() {
    on_every_source(|table| {
        table.insert(&Row { time: &table.ago(5 * MINUTE), ..Row::default() });
        let exporter = Exporter::new(table);
        incremental(&exporter, &["--safety-lag", "1s"]);
        table.insert(&Row { id: 2, number: "LATE", time: &table.ago(30 * MINUTE), ..Row::default() });
        let summary = incremental(&exporter, &["--safety-lag", "1s"]);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        assert_eq!(numbers(&summary, ["written", "late"]), [1, 1]);
        assert_eq!(exporter.ask_one("SELECT written, late FROM run_tenant WHERE run = 2"), "1 1");
    });
}

#[test]
fn lateness_is_measured_and_told_with_advice_where_the_overlap_is_nearly_too_short() {
    on_every_source(|table| {
        table.insert(&Row { time: &table.ago(MINUTE), ..Row::default() });
        table.insert(&Row { id: 2, tenant: "2", number: "INV2", time: &table.ago(MINUTE), ..Row::default() });
        let exporter = Exporter::new(table);
        incremental(&exporter, &["--safety-lag", "1s"]);
        let late_by = |minutes: u32, id: i64| {
            let number = format!("LATE{id}");
            table.insert(&Row { id, number: &number, time: &table.ago(minutes * MINUTE), ..Row::default() });
            exporter.run(["run", "--mode", "incremental", "--safety-lag", "1s"]).expect(0)
        };
        let [little, much] = [late_by(20, 3), late_by(40, 4)];
        assert!(little.stdout.contains("late: 1 invoice, up to ") && !little.stderr.contains("--overlap"), "{little}");
        assert!(much.stdout.contains("late: 1 invoice, up to ") && much.stderr.contains("--overlap is 1h"), "{much}");

        let recorded: Vec<i64> = exporter
            .ask("SELECT r.late_by FROM run r JOIN run_tenant t ON t.run = r.id AND t.late_by = r.late_by WHERE r.late = 1")
            .iter()
            .map(|seconds| seconds.parse().unwrap())
            .collect();
        // Time passes between the runs, and the watermark with it.
        let about = |minutes: i64, seconds: i64| ((minutes - 5) * 60..(minutes + 5) * 60).contains(&seconds);
        assert!(matches!(recorded[..], [a, b] if about(20, a) && about(40, b)), "{recorded:?}");
        let told = exporter.run(["history", "last", "--format", "json"]).expect(0).json();
        assert_eq!(told["late_by_seconds"], recorded[1]);
        assert_eq!(told["per_tenant"][0]["late_by_seconds"], recorded[1]);

        let status = exporter.run(["status", "--format", "json"]).expect(0).json();
        let of = |tenant: &str| status.as_array().unwrap().iter().find(|row| row["tenant"] == tenant).unwrap().clone();
        assert_eq!(of("1")["late_by_seconds"], recorded[1]);
        assert_eq!(of("2")["late_by_seconds"], serde_json::Value::Null);
        let [short, long] =
            [["status", "--overlap", "1h"], ["status", "--overlap", "4h"]].map(|args| exporter.run(args));
        assert!(short.stdout.contains("make it longer") && !long.stdout.contains("make it longer"), "{short}{long}");

        // What lies longer ago than a month is history.
        meddle(&exporter.state(), "DROP TRIGGER run_is_final; UPDATE run SET started = '2020-01-01T00:00:00Z'");
        let status = exporter.run(["status", "--format", "json"]).expect(0).json();
        assert!(status.as_array().unwrap().iter().all(|row| row["late_by_seconds"].is_null()), "{status}");
    });
}

#[test]
fn a_row_below_the_overlap_of_a_quiet_tenant_is_found_by_a_full_run_only() {
    on_every_source(|table| {
        table.insert(&Row { time: &table.ago(3 * HOUR), ..Row::default() });
        let exporter = Exporter::new(table);
        incremental(&exporter, &[]);
        table.insert(&Row { id: 2, number: "OLD", time: &table.ago(5 * HOUR), ..Row::default() });
        assert_eq!(incremental(&exporter, &[])["written"], 0);
        table.insert(&Row { id: 3, number: "NEW", time: &table.ago(2 * HOUR), ..Row::default() });
        assert_eq!(incremental(&exporter, &[])["written"], 1);
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn rows_eight_hours_behind_the_servers_clock_are_not_lost() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        let behind = |minutes: u32| table.ago(8 * HOUR - minutes * MINUTE);
        for (id, time) in [(1, behind(0)), (2, behind(1)), (3, behind(2)), (4, behind(3))] {
            table.insert(&Row { id, number: &format!("INV{id}"), time: &time, ..Row::default() });
            let summary = incremental(&exporter, &[]);
            assert_eq!(summary["written"], 1, "row {id}");
            exporter.assert_agrees();
        }
        // One that committed late, found as soon as the tenant shows something newer.
        table.insert(&Row { id: 5, number: "LATE", time: &table.ago(8 * HOUR + 50 * MINUTE), ..Row::default() });
        table.insert(&Row { id: 6, number: "INV6", time: &behind(200), ..Row::default() });
        incremental(&exporter, &[]);
        exporter.assert_agrees();
    });
}

#[test]
fn a_row_ahead_of_the_boundary_waits_for_its_window() {
    on_every_source(|table| {
        table.insert(&Row { number: "DUE", time: &table.ago(6 * MINUTE), ..Row::default() });
        table.insert(&Row { id: 2, number: "RECENT", time: &table.ago(2 * MINUTE), ..Row::default() });
        table.insert(&Row { id: 3, number: "AHEAD", time: &table.ahead(HOUR), ..Row::default() });
        let exporter = Exporter::new(table);
        let files =
            || exporter.tree().into_keys().map(|path| path["1/CN/20251128+".len()..].to_owned()).collect::<Vec<_>>();
        incremental(&exporter, &[]);
        assert_eq!(files(), ["DUE.json"]);
        incremental(&exporter, &["--safety-lag", "30s"]);
        assert_eq!(files(), ["DUE.json", "RECENT.json"]);
        incremental(&exporter, &["--safety-lag", "30s"]);
        assert_eq!(files(), ["DUE.json", "RECENT.json"]);
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
        // Exported ahead of its time, it is seen again in its window, and not written.
        let before = exporter.stamps();
        incremental(&exporter, &["--safety-lag", "30s"]);
        assert_eq!(exporter.stamps(), before);
    });
}

#[test]
fn a_version_that_a_full_run_exported_before_its_window_is_seen_again_in_it() {
    on_every_source(|table| {
        let time = table.ago(2 * MINUTE);
        table.insert(&Row { time: &time, ..Row::default() });
        let exporter = Exporter::new(table);
        incremental(&exporter, &[]);
        exporter.run(["run"]).expect(0);
        assert_eq!(exporter.ask_one("SELECT settled FROM ledger"), "0");
        // The same second once more, which no comparison of keys can tell.
        table.execute(&format!("UPDATE t_invoice SET fext_field = '{{}}', fupdate_time = '{time}'"));
        incremental(&exporter, &["--safety-lag", "30s"]);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

#[test]
fn a_tenant_with_nothing_new_leaves_no_row_in_the_history() {
    on_every_source(|table| {
        table.load_sample(60, 5, SAMPLE);
        let exporter = Exporter::new(table);
        incremental(&exporter, &[]);
        assert_eq!(exporter.ask_one("SELECT count(*) FROM run_tenant WHERE run = 1"), "3");
        let ledger =
            || exporter.ask("SELECT id, tenant, time, path, hex(sha256), size, first_run, run, settled FROM ledger");
        let (recorded, before) = (ledger(), exporter.stamps());
        let summary = incremental(&exporter, &[]);
        assert_eq!(numbers(&summary, ["seen", "tenants"]), [0, 3]);
        assert_eq!(exporter.ask("SELECT * FROM run_tenant WHERE run = 2"), [""; 0]);
        assert_eq!((ledger(), exporter.stamps()), (recorded, before));
        table.insert(&Row { id: 1001, tenant: "89", time: &table.ago(10 * MINUTE), ..Row::default() });
        incremental(&exporter, &[]);
        let told = exporter.ask("SELECT name, written FROM run_tenant t JOIN tenant ON n = tenant WHERE run = 3");
        assert_eq!(told, ["89 1"]);
    });
}

#[test]
fn every_tenant_has_a_window_of_its_own() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.insert(&Row { tenant: "old", time: &table.ago(3 * HOUR), ..Row::default() });
        incremental(&exporter, &["--safety-lag", "10m"]);
        // A tenant that turns up later has no lower bound, however old its rows are.
        table.insert(&Row { id: 2, tenant: "new", time: "2001-01-01 00:00:00", ..Row::default() });
        table.insert(&Row { id: 3, tenant: "new", number: "INV3", time: "1970-01-01 00:00:00", ..Row::default() });
        let summary = incremental(&exporter, &[]);
        assert_eq!(numbers(&summary, ["written", "late"]), [2, 0]);
        exporter.assert_agrees();
    });
}

#[test]
fn spellings_that_a_collation_folds_are_tenants_of_their_own() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        let insert = |id, tenant, time: &str| table.insert(&Row { id, tenant, time, ..Row::default() });
        insert(1, "acme", &table.ago(3 * HOUR));
        insert(2, "ACME", &table.ago(2 * HOUR));
        incremental(&exporter, &["--safety-lag", "10m"]);
        exporter.assert_agrees();
        // A new spelling comes with its older rows too.
        insert(3, "Acme", &table.ago(9 * MINUTE));
        table.insert(&Row { id: 4, tenant: "Acme", number: "INV4", time: "2001-01-01 00:00:00", ..Row::default() });
        incremental(&exporter, &[]);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        let told = exporter.ask("SELECT name, written FROM run_tenant t JOIN tenant ON n = tenant WHERE run = 2");
        assert_eq!(told, ["Acme 2"]);
        assert_eq!(exporter.ask_one("SELECT count(*) FROM tenant WHERE watermark IS NOT NULL"), "3");
    });
}

#[test]
fn a_tenant_without_invoices_when_first_asked_for_gets_all_that_come_later() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.insert(&Row { status: 1, time: &table.ago(5 * HOUR), ..Row::default() });
        incremental(&exporter, &["--tenant", "1"]);
        table.insert(&Row { id: 2, number: "LATE", time: &table.ago(5 * HOUR), ..Row::default() });
        incremental(&exporter, &[]);
        exporter.assert_agrees();
        assert_eq!(exporter.ask("SELECT name FROM tenant WHERE look_back IS NULL"), [""; 0]);
    });
}

#[test]
fn a_watermark_ahead_of_the_boundary_is_pulled_back_on_record() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(20 * MINUTE), ..Row::default() });
        let ahead = incremental(&exporter, &["--safety-lag", "1s"]);
        table.insert(&Row { id: 2, number: "INV2", time: &table.ago(11 * MINUTE), ..Row::default() });
        let pulled = incremental(&exporter, &["--safety-lag", "10m"]);
        exporter.assert_agrees();
        let [from, to] = [&ahead, &pulled].map(|summary| summary["boundary"].as_str().unwrap());
        assert!(from > to);
        assert_eq!(
            exporter.ask_one(
                "SELECT c.last_run, w.old, w.new FROM watermark_change w JOIN state_change c ON c.n = w.change"
            ),
            format!("2 {from} {to}")
        );
        assert_eq!(exporter.ask_one("SELECT watermark FROM tenant"), to);
    });
}

/// What makes a run doubt that keys below the look-back are known, and a row that lies there.
fn doubted(table: &Table, doubt: impl Fn(&Exporter<'_>)) -> Finished {
    table.insert(&Row { time: &table.ago(3 * HOUR), ..Row::default() });
    let exporter = Exporter::new(table);
    incremental(&exporter, &[]);
    table.insert(&Row { id: 2, number: "OLD", time: "2001-01-01 00:00:00", ..Row::default() });
    doubt(&exporter);
    let finished = exporter.run(["run", "--mode", "incremental"]).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
    assert_eq!(exporter.ask("SELECT name FROM tenant WHERE look_back IS NULL"), [""; 0]);
    finished
}

#[test]
fn a_clock_that_moved_makes_a_run_read_all_keys() {
    on_every_source(|table| {
        let moved = doubted(table, |exporter| {
            meddle(&exporter.state(), "UPDATE meta SET own_ms = own_ms + 3600000");
        });
        assert!(moved.stderr.contains("clock"), "{moved}");
    });
}

#[test]
fn a_clock_that_went_back_makes_a_run_read_all_keys() {
    on_every_source(|table| {
        let back = doubted(table, |exporter| {
            meddle(&exporter.state(), "UPDATE meta SET server_ms = server_ms + 3600000");
        });
        assert!(back.stderr.contains("clock"), "{back}");
    });
}

#[test]
fn a_server_that_shows_the_time_of_another_zone_makes_a_run_read_all_keys() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let table = Table::on(&own);
        // What it shows from now on lies above all that runs have read, as it does a day after a zone went back.
        let moved = doubted(&table, |_| table.execute("SET GLOBAL time_zone = '+05:00'"));
        assert!(moved.stderr.contains("clock"), "{moved}");
    });
}

#[test]
fn another_server_makes_a_run_read_all_keys() {
    on_every_source(|table| {
        let other = doubted(table, |exporter| {
            meddle(&exporter.state(), "UPDATE meta SET server = 'another'");
        });
        assert!(other.stderr.contains("server"), "{other}");
    });
}

#[test]
fn a_restored_older_state_makes_a_run_read_all_keys() {
    on_every_source(|table| {
        let restored = doubted(table, |exporter| {
            let backup = exporter.output().with_file_name("backup.db");
            std::fs::copy(exporter.state(), &backup).unwrap();
            table.insert(&Row { id: 3, number: "INV3", time: &table.ago(2 * HOUR), ..Row::default() });
            incremental(exporter, &[]);
            std::fs::rename(&backup, exporter.state()).unwrap();
        });
        assert!(restored.stderr.contains("restored"), "{restored}");
    });
}

/// Waits until the server's clock has passed a moment.
fn wait_until(table: &Table, moment: &str) {
    wait_for(moment, || table.now().as_str() > moment);
}

/// A table on a server where nobody else works, and a session that holds a row uncommitted.
fn holding(flavor: Flavor, time: &str) -> (Server, Table, Conn) {
    let own = Server::fresh(flavor);
    let database = own.database();
    database.create_table();
    database.create_index();
    let mut session = database.connect();
    let row = format!("INSERT INTO t_invoice VALUES (2, '1', 'CN', '2025-11-28', 'HELD', 3, '{{}}', {time})");
    session.query_drop("BEGIN").and_then(|()| session.query_drop(row)).expect("hold a row");
    (own, Table::Server(database), session)
}

/// Ends the transaction, and returns when the server no longer shows it: it brings the list up to date
/// only if nobody has asked for a tenth of a second.
fn end(mut session: Conn, how: &str, table: &Table) {
    session.query_drop(how).expect("end the transaction");
    while !table.query("SELECT trx_id FROM information_schema.INNODB_TRX").is_empty() {
        std::thread::sleep(Duration::from_millis(150));
    }
}

#[test]
fn a_transaction_that_commits_after_the_run_is_exported_by_the_next_one() {
    on_every_flavor(|flavor| {
        let (_own, table, held) = holding(flavor, "NOW()");
        let exporter = Exporter::new(&table);
        let opened = table.now();
        table.insert(&Row { time: &table.ago(HOUR), ..Row::default() });
        table.insert(&Row { id: 3, number: "BESIDE", time: &table.ahead(Duration::from_secs(1)), ..Row::default() });
        wait_until(&table, &table.ahead(Duration::from_secs(5)));

        // The row lies below the overlap: only the look at open work keeps it from being lost.
        let args = ["--safety-lag", "1s", "--overlap", "2s"];
        let summary = incremental(&exporter, &args);
        assert_eq!(summary["written"], 2);
        assert_eq!(exporter.ask("SELECT id, settled FROM ledger ORDER BY id"), ["1 1", "3 0"]);
        let look_back = exporter.ask_one("SELECT look_back FROM tenant");
        assert!(look_back <= opened, "keys are read again from {look_back}, but the row has {opened}");

        end(held, "COMMIT", &table);
        let summary = incremental(&exporter, &args);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        assert_eq!(numbers(&summary, ["written", "late"]), [1, 1]);
        assert_eq!(exporter.ask("SELECT id, settled FROM ledger ORDER BY id"), ["1 1", "2 1", "3 1"]);
    });
}

#[test]
fn a_late_commit_is_exported_also_where_source_times_lie_behind_the_clock() {
    on_every_flavor(|flavor| {
        let (_own, table, held) = holding(flavor, "NOW() - INTERVAL 485 MINUTE");
        let exporter = Exporter::new(&table);
        table.insert(&Row { time: &table.ago(8 * HOUR), ..Row::default() });
        assert_eq!(incremental(&exporter, &[])["written"], 1);
        end(held, "COMMIT", &table);
        incremental(&exporter, &[]);
        exporter.assert_agrees();
    });
}

#[test]
fn a_transaction_that_is_rolled_back_leaves_nothing() {
    on_every_flavor(|flavor| {
        let (_own, table, held) = holding(flavor, "NOW() - INTERVAL 6 MINUTE");
        let exporter = Exporter::new(&table);
        incremental(&exporter, &[]);
        end(held, "ROLLBACK", &table);
        incremental(&exporter, &[]);
        exporter.run(["run"]).expect(0);
        assert_eq!(exporter.tree().into_keys().collect::<Vec<_>>(), [""; 0]);
        exporter.assert_agrees();
    });
}
