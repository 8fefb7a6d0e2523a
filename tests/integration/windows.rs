//! A window as an operator writes it: whole days, moments with an offset, times before now. For source times the
//! server's clock counts, for runs our own.

use crate::support::exporter::Exporter;
use crate::support::table::{Row, Table, on_every_source};

const JSON: [&str; 2] = ["--format", "json"];

/// One invoice at each time, with the number `INV` and its position from 1 on.
fn rows_at(table: &Table, times: &[&str]) {
    for (id, time) in (1..).zip(times) {
        table.insert(&Row { id, number: &format!("INV{id}"), time, ..Row::default() });
    }
}

/// The positions of the invoices in the tree.
fn exported(exporter: &Exporter<'_>) -> Vec<String> {
    let number = |path: String| path.trim_end_matches(".json").rsplit_once("INV").unwrap().1.to_owned();
    exporter.tree().into_keys().map(number).collect()
}

#[test]
fn days_of_a_window_are_whole_days_in_every_command() {
    on_every_source(|table| {
        let times = [
            "2025-10-31 23:59:59",
            "2025-11-01 00:00:00",
            "2025-11-29 12:00:00",
            "2025-11-30 00:00:00",
            "2025-11-30 23:59:59",
            "2025-12-01 00:00:00",
        ];
        rows_at(table, &times);
        let exporter = Exporter::new(table);
        let november = ["--since", "2025-11-01", "--until", "2025-11-30"];
        let summary = exporter.run(["run"].iter().chain(&november).chain(&JSON)).expect(0).json();
        assert_eq!(exported(&exporter), ["2", "3", "4", "5"]);
        assert_eq!(summary["since"], "2025-10-31 23:59:59.999999", "{summary}");
        assert_eq!(summary["boundary"], "2025-11-30 23:59:59.999999", "{summary}");

        exporter.run(["run"]).expect(0);
        std::fs::remove_file(exporter.output().join("1/CN/20251128+INV5.json")).unwrap();
        for asked in [&[][..], &["--against-source"], &["--against-source", "--documents"]] {
            let differs = |window: &[&str]| {
                let answer = exporter.run(["verify"].iter().chain(asked).chain(window).chain(&JSON));
                let expected = if answer.json()["differences"] == 0 { 0 } else { 6 };
                answer.expect(expected).json()["differences"].as_u64().unwrap()
            };
            assert_eq!(differs(&november), 1, "{asked:?}");
            assert_eq!(differs(&["--since", "2025-11-30", "--until", "2025-11-30"]), 1, "{asked:?}");
            assert_eq!(differs(&["--since", "2025-12-01"]), 0, "{asked:?}");
            assert_eq!(differs(&["--until", "2025-11-29"]), 0, "{asked:?}");
        }
        let repair = ["verify", "--against-source", "--repair", "--since", "2025-11-30", "--until", "2025-11-30"];
        exporter.run(repair).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn decimals_of_a_day_belong_to_it() {
    on_every_source(|table| {
        if table.url().starts_with("mysql") {
            table.execute("ALTER TABLE t_invoice MODIFY fupdate_time DATETIME(6)");
        }
        let times = ["2025-11-30 23:59:59.999999", "2025-12-01 00:00:00.000000", "2025-12-01 23:59:59.999999"];
        rows_at(table, &times);
        let exporter = Exporter::new(table);
        exporter.run(["run", "--since", "2025-12-01", "--until", "2025-12-01"]).expect(0);
        assert_eq!(exported(&exporter), ["2", "3"]);
    });
}

#[test]
fn moments_with_an_offset_and_before_now_go_by_the_servers_clock() {
    on_every_source(|table| {
        let hour = std::time::Duration::from_secs(3600);
        rows_at(table, &[&table.ago(72 * hour), &table.ago(30 * hour), &table.ago(2 * hour)]);
        // The servers of the tests show UTC.
        let instant = format!("{}+00:00", table.ago(60 * hour).replace(' ', "T"));
        for (since, expected) in [("2d", &["2", "3"][..]), ("3h", &["3"]), (&instant, &["2", "3"])] {
            let exporter = Exporter::new(table);
            exporter.run(["run", "--since", since]).expect(0);
            assert_eq!(exported(&exporter), expected, "{since}");
            let verified = exporter.run(["verify", "--against-source", "--since", since]).expect(0);
            assert!(verified.stdout.contains("nothing differs"), "{verified}");
            // Without a source there is no clock to go by.
            let refused = exporter.run(["verify", "--since", since]).expect(2);
            assert!(refused.last_error().contains("source's clock"), "{refused}");
        }
        let exporter = Exporter::new(table);
        exporter.run(["run", "--until", "yesterday"]).expect(0);
        assert!(exported(&exporter).contains(&"1".to_owned()));
        assert!(!exported(&exporter).contains(&"3".to_owned()) || table.now()[11..13] < *"02");
    });
}

#[test]
fn a_server_in_another_zone_shows_a_moment_in_its_own() {
    crate::support::table::on_every_flavor(|flavor| {
        let server = crate::support::server::Server::fresh(flavor);
        server.database().execute("SET GLOBAL time_zone = '+08:00'");
        let table = Table::on(&server);
        rows_at(&table, &["2025-11-28 09:59:59", "2025-11-28 10:00:00", "2025-11-28 10:00:01"]);
        let exporter = Exporter::new(&table);
        exporter.run(["run", "--since", "2025-11-28T02:00:00Z"]).expect(0);
        assert_eq!(exported(&exporter), ["3"]);
        exporter.run(["run", "--until", "2025-11-28T03:00:00+09:00"]).expect(0);
        assert_eq!(exported(&exporter), ["3"]);
        exporter.run(["run", "--until", "2025-11-28T11:00:00+09:00"]).expect(0);
        assert_eq!(exported(&exporter), ["1", "2", "3"]);
    });
}

#[test]
fn the_history_goes_by_the_zone_of_this_machine_unless_utc_is_asked_for() {
    let table = Table::embedded();
    rows_at(&table, &["2025-11-28 10:00:00"]);
    let exporter = Exporter::new(&table).env("TZ", "Asia/Shanghai");
    exporter.run(["run"]).expect(0);
    let started = exporter.ask("SELECT started FROM run")[0].clone();
    let started = chrono::DateTime::parse_from_rfc3339(&started).unwrap();
    let ids = |args: &[&str]| {
        let entries = exporter.run(["history", "--format", "json"].iter().chain(args)).expect(0).json();
        entries.as_array().unwrap().len()
    };
    let shown = |hours: i32| {
        let zone = chrono::FixedOffset::east_opt(hours * 3600).unwrap();
        started.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S").to_string()
    };
    assert_eq!(ids(&["--since", &shown(8), "--until", &shown(8)]), 1);
    assert_eq!(ids(&["--since", &shown(0), "--until", &shown(0)]), 0);
    assert_eq!(ids(&["--utc", "--since", &shown(0), "--until", &shown(0)]), 1);
    assert_eq!(ids(&["--since", &shown(8)[..10], "--until", &shown(8)[..10]]), 1);
    assert_eq!(ids(&["--since", "1h"]), 1);
    assert_eq!(ids(&["--until", "1h"]), 0);
    let instant = format!("{}+08:00", shown(8).replace(' ', "T"));
    assert_eq!(ids(&["--since", &instant, "--until", &instant]), 1);
}

#[test]
fn every_heading_of_a_time_names_its_clock() {
    let table = Table::embedded();
    rows_at(&table, &["2025-11-28 10:00:00"]);
    let exporter = Exporter::new(&table).env("TZ", "Asia/Shanghai");
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    let started = exporter.ask("SELECT started FROM run")[0].clone();
    let started = chrono::DateTime::parse_from_rfc3339(&started).unwrap();
    let zone = chrono::FixedOffset::east_opt(8 * 3600).unwrap();
    let local = started.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S %:z").to_string();
    let utc = started.format("%Y-%m-%d %H:%M:%SZ").to_string();
    for (args, facts) in [
        (&["history"][..], &["started (local)", "window (source)", &local][..]),
        (&["history", "--utc"], &["started (UTC)", &utc]),
        (&["history", "1"], &["started (local)", "boundary (source)", &local]),
        (&["history", "--lang", "zh"], &["开始时间（本机）", "时间区间（数据源）", &local]),
        (&["status"], &["watermark (source)", "at (local)"]),
        (&["status", "--utc"], &["watermark (source)", "at (UTC)"]),
        (&["why", "INV1"], &[&local]),
        (&["why", "INV1", "--utc"], &[&utc]),
        (&["state", "backups"], &["made (local)"]),
    ] {
        let answer = exporter.run(args).expect(0);
        assert!(facts.iter().all(|fact| answer.stdout.contains(fact)), "{args:?}: {answer}");
    }
    // Programs get the same in every zone.
    let json = exporter.run(["history", "1", "--format", "json"]).expect(0).json();
    assert_eq!(json["started"], started.format("%Y-%m-%dT%H:%M:%SZ").to_string());
}

#[test]
fn a_window_that_ends_before_it_begins_is_refused_in_the_words_that_were_typed() {
    let table = Table::embedded();
    rows_at(&table, &["2025-11-28 10:00:00"]);
    let exporter = Exporter::new(&table);
    exporter.run(["run"]).expect(0);
    for command in ["run", "verify", "history"] {
        let refused = exporter.run([command, "--since", "2026-11-30", "--until", "2026-11-29"]).expect(2);
        assert!(refused.last_error().contains("--since 2026-11-30 is not before --until 2026-11-29"), "{refused}");
    }
}

#[test]
fn the_start_of_a_backfill_stands_in_the_history() {
    let table = Table::embedded();
    rows_at(&table, &["2025-11-28 10:00:00"]);
    let exporter = Exporter::new(&table);
    exporter.run(["run", "--since", "2025-11-28 09:00:00"]).expect(0);
    let list = exporter.run(["history", "--format", "json"]).expect(0).json();
    let one = exporter.run(["history", "1", "--format", "json"]).expect(0).json();
    assert_eq!([&list[0]["since"], &one["since"]], ["2025-11-28 09:00:00"; 2], "{list}");
}
