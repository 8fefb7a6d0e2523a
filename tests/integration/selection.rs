//! One tenant's trouble is not another's, and a run may be limited to tenants or to a window.

use std::fs;
use std::time::Duration;

use crate::support::disk::{Closed, Mount};
use crate::support::exporter::{Exporter, numbers};
use crate::support::table::{Row, Table, on_every_source};

const MINUTE: Duration = Duration::from_secs(60);

fn three_tenants(table: &Table) {
    for (id, tenant) in [(1, "1"), (2, "10"), (3, "89")] {
        table.insert(&Row { id, tenant, time: &table.ago(60 * MINUTE), ..Row::default() });
    }
}

fn paths(exporter: &Exporter<'_>) -> Vec<String> {
    exporter.tree().into_keys().collect()
}

#[test]
fn a_tenant_with_a_blocked_folder_fails_alone_and_is_exported_once_it_is_free() {
    for mode in ["incremental", "full"] {
        on_every_source(|table| {
            three_tenants(table);
            let exporter = Exporter::new(table);
            fs::create_dir_all(exporter.output()).unwrap();
            fs::write(exporter.output().join("10"), "a file where a folder should be").unwrap();
            let finished = exporter.run(["run", "--mode", mode, "--format", "json"]).expect(3);
            let summary = finished.json();
            assert_eq!(summary["failed_tenants"][0]["tenant"], "10", "{summary}");
            assert_eq!((&summary["seen"], &summary["written"]), (&2.into(), &2.into()), "{summary}");
            assert!(finished.stderr.contains("tenant 10"), "{finished}");
            let moved = exporter.ask("SELECT name FROM tenant WHERE watermark IS NOT NULL ORDER BY name");
            assert_eq!(moved, if mode == "full" { vec![] } else { vec!["1", "89"] });
            let error = exporter.ask("SELECT count(*) FROM run_tenant WHERE error LIKE '%10/CN/%'");
            assert_eq!(error, ["1"]);
            fs::remove_file(exporter.output().join("10")).unwrap();
            exporter.run(["run", "--mode", mode]).expect(0);
            exporter.assert_agrees();
            exporter.assert_state_is_sound();
        });
    }
}

#[test]
fn a_run_for_one_tenant_exports_it_alone_and_moves_no_other_watermark() {
    on_every_source(|table| {
        three_tenants(table);
        let exporter = Exporter::new(table);
        exporter.run(["run", "--tenant", "89"]).expect(0);
        assert_eq!(paths(&exporter), ["89/CN/20251128+INV001.json"]);
        exporter.run(["run", "--mode", "incremental", "--tenant", "10", "--tenant", "89"]).expect(0);
        assert_eq!(paths(&exporter), ["10/CN/20251128+INV001.json", "89/CN/20251128+INV001.json"]);
        assert_eq!(exporter.ask("SELECT name FROM tenant WHERE watermark IS NOT NULL ORDER BY name"), ["10", "89"]);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_window_is_open_at_the_left_and_closed_at_the_right_and_puts_back_what_differs() {
    on_every_source(|table| {
        let times = ["2025-11-01 00:00:00", "2025-11-02 00:00:00", "2025-11-03 00:00:00", "2025-11-03 00:00:01"];
        for (id, time) in (1..).zip(times) {
            table.insert(&Row { id, number: &format!("INV{id}"), time, ..Row::default() });
        }
        let exporter = Exporter::new(table);
        let window = ["run", "--since", "2025-11-01 00:00:00", "--until", "2025-11-03 00:00:00"];
        exporter.run(window).expect(0);
        assert_eq!(paths(&exporter), ["1/CN/20251128+INV2.json", "1/CN/20251128+INV3.json"]);
        assert_eq!(exporter.ask("SELECT count(*) FROM tenant WHERE watermark IS NOT NULL"), ["0"]);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        let watermark = exporter.ask("SELECT watermark FROM tenant");
        // A fix that left the source time as it was, and a file that was lost.
        table.execute(
            "UPDATE t_invoice SET fext_field = '{\"fixed\": 1}', fupdate_time = '2025-11-02 00:00:00' WHERE fid = 2",
        );
        fs::remove_file(exporter.output().join("1/CN/20251128+INV3.json")).unwrap();
        let before = exporter.stamps();
        let summary = exporter.run(window.iter().chain(&["--format", "json"])).expect(0).json();
        assert_eq!((&summary["kind"], &summary["written"]), (&"backfill".into(), &2.into()), "{summary}");
        exporter.assert_agrees();
        let untouched = ["1/CN/20251128+INV1.json", "1/CN/20251128+INV4.json"];
        assert!(untouched.iter().all(|path| exporter.stamps()[*path] == before[*path]));
        assert_eq!(exporter.ask("SELECT watermark FROM tenant"), watermark, "a window moves no watermark");
    });
}

#[test]
fn a_tenant_that_fails_keeps_the_watermark_that_it_had() {
    on_every_source(|table| {
        three_tenants(table);
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "incremental", "--safety-lag", "10m"]).expect(0);
        let marks = || exporter.ask("SELECT watermark FROM tenant ORDER BY name");
        let before = marks();
        for (id, tenant) in [(11, "1"), (12, "10"), (13, "89")] {
            table.insert(&Row { id, tenant, number: "NEW", time: &table.ago(30 * MINUTE), ..Row::default() });
        }
        let (folder, aside) = (exporter.output().join("10"), exporter.output().with_file_name("aside"));
        fs::rename(&folder, &aside).unwrap();
        fs::write(&folder, "in the way").unwrap();
        exporter.run(["run", "--mode", "incremental"]).expect(3);
        assert_eq!([0, 1, 2].map(|n| marks()[n] == before[n]), [false, true, false]);
        let outcomes = exporter.ask("SELECT name, last_outcome FROM tenant ORDER BY name");
        assert_eq!(outcomes, ["1 success", "10 failed", "89 success"]);
        fs::remove_file(&folder).unwrap();
        fs::rename(aside, folder).unwrap();
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

#[test]
fn a_link_in_the_place_of_a_tenants_folder_is_not_followed() {
    on_every_source(|table| {
        three_tenants(table);
        let exporter = Exporter::new(table);
        let elsewhere = exporter.output().with_file_name("elsewhere");
        fs::create_dir_all(exporter.output()).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, exporter.output().join("10")).unwrap();
        exporter.run(["run"]).expect(3);
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        fs::remove_file(exporter.output().join("10")).unwrap();
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_folder_that_is_a_mount_point_or_a_link_fails_with_the_rule_and_remedy() {
    let table = Table::embedded();
    three_tenants(&table);
    let exporter = Exporter::new(&table);
    let folder = exporter.output().join("10");
    fs::create_dir_all(&folder).unwrap();
    let assert_told = || {
        for mode in ["full", "incremental"] {
            for (lang, rule) in [("en", "no mount points or links"), ("zh", "不能是挂载点或符号链接")] {
                let finished = exporter.run(["run", "--mode", mode, "--lang", lang]).expect(3);
                assert!(finished.stderr.contains(rule), "{finished}");
            }
        }
    };
    let mount = Mount::memory(&folder, "size=1m");
    assert_told();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    drop(mount);
    fs::remove_dir(&folder).unwrap();
    std::os::unix::fs::symlink(exporter.home(), &folder).unwrap();
    assert_told();
    fs::remove_file(&folder).unwrap();
    exporter.run(["run"]).expect(0);
    exporter.assert_agrees();
}

#[test]
fn an_obstacle_in_one_country_fails_its_tenant_only() {
    on_every_source(|table| {
        three_tenants(table);
        table.insert(&Row { id: 7, tenant: "10", country: Some("DE"), ..Row::default() });
        let exporter = Exporter::new(table);
        fs::create_dir_all(exporter.output().join("10")).unwrap();
        fs::write(exporter.output().join("10/DE"), "in the way").unwrap();
        let summary = exporter.run(["run", "--mode", "incremental", "--format", "json"]).expect(3).json();
        assert_eq!(summary["failed_tenants"].as_array().unwrap().len(), 1, "{summary}");
        fs::remove_file(exporter.output().join("10/DE")).unwrap();
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

#[test]
fn a_tenant_that_fails_in_one_batch_gets_no_watermark_with_the_next() {
    let table = Table::embedded();
    let time = table.ago(60 * MINUTE);
    // The first thousand are a batch of their own.
    for id in 1..=1_300 {
        let country = Some(if id <= 1_000 { "DE" } else { "CN" });
        table.insert(&Row { id, tenant: "10", number: &format!("INV{id}"), country, time: &time, ..Row::default() });
    }
    table.insert(&Row { id: 2_000, tenant: "89", time: &time, ..Row::default() });
    let exporter = Exporter::new(&table);
    let closed = Closed::new(exporter.output().join("10/DE"));
    let incremental = ["run", "--mode", "incremental", "--format", "json"];
    let summary = exporter.run(incremental).expect(3).json();
    assert_eq!(summary["failed_tenants"].as_array().unwrap().len(), 1, "{summary}");
    assert_eq!(numbers(&summary, ["seen", "written"]), [301, 301], "{summary}");
    assert_eq!(exporter.ask("SELECT name FROM tenant WHERE watermark IS NOT NULL"), ["89"]);
    exporter.assert_state_is_sound();
    drop(closed);
    let summary = exporter.run(incremental).expect(0).json();
    assert_eq!(numbers(&summary, ["written", "unchanged"]), [1_000, 0], "{summary}");
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn a_full_run_of_one_tenant_mends_it_alone() {
    on_every_source(|table| {
        three_tenants(table);
        let exporter = Exporter::new(table);
        exporter.run(["run"]).expect(0);
        for tenant in ["1", "10"] {
            fs::remove_dir_all(exporter.output().join(tenant)).unwrap();
        }
        exporter.run(["run", "--tenant", "10"]).expect(0);
        assert_eq!(paths(&exporter), ["10/CN/20251128+INV001.json", "89/CN/20251128+INV001.json"]);
    });
}

#[test]
fn a_chosen_tenant_is_meant_with_its_very_spelling() {
    on_every_source(|table| {
        for (id, tenant) in (1..).zip(["acme", "ACME"]) {
            table.insert(&Row { id, tenant, time: &table.ago(50 * MINUTE), ..Row::default() });
        }
        for mode in ["incremental", "full"] {
            let exporter = Exporter::new(table);
            exporter.run(["run", "--mode", mode, "--tenant", "ACME"]).expect(0);
            assert_eq!(exporter.tree().into_keys().collect::<Vec<_>>(), ["ACME/CN/20251128+INV001.json"]);
            exporter.run(["run", "--mode", "incremental"]).expect(0);
            exporter.assert_agrees();
        }
    });
}

#[test]
fn a_run_for_one_spelling_does_not_take_the_times_of_another_one_for_its_own() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        let insert = |id, tenant, number, minutes| {
            table.insert(&Row { id, tenant, number, time: &table.ago(MINUTE * minutes), ..Row::default() });
        };
        let run = |args: &[&str]| exporter.run(["run", "--mode", "incremental"].iter().chain(args)).expect(0);
        // Whoever writes for acme has a clock that is eight hours behind.
        insert(1, "acme", "INV1", 490);
        insert(2, "ACME", "INV2", 50);
        run(&[]);
        run(&["--tenant", "acme"]);
        insert(3, "acme", "INV3", 480);
        run(&[]);
        exporter.assert_agrees();
    });
}

#[test]
fn a_tenant_that_is_always_chosen_forgets_a_time_ahead_once_it_is_put_right() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        let insert = |id, number, time: &str| table.insert(&Row { id, number, time, ..Row::default() });
        let run = |args: &[&str]| exporter.run(["run", "--mode"].iter().chain(args)).expect(0);
        insert(1, "INV1", &table.ago(MINUTE * 490));
        insert(2, "INV2", &table.ahead(MINUTE * 490));
        run(&["incremental"]);
        table.execute(&format!("UPDATE t_invoice SET fupdate_time = '{}' WHERE fid = 2", table.ago(MINUTE * 485)));
        run(&["full"]);
        run(&["incremental", "--tenant", "1"]);
        insert(3, "INV3", &table.ago(MINUTE * 480));
        run(&["incremental", "--tenant", "1"]);
        exporter.assert_agrees();
    });
}

#[test]
fn rejects_of_other_tenants_are_not_read_again() {
    on_every_source(|table| {
        three_tenants(table);
        let document = |document: &str| {
            table.execute(&format!(
                "UPDATE t_invoice SET fext_field = '{document}', fupdate_time = fupdate_time WHERE fid = 1"
            ));
        };
        document("{");
        let exporter = Exporter::new(table);
        let run = |code, tenant: &[&str]| {
            let args = ["run", "--mode", "incremental", "--format", "json"];
            numbers(
                &exporter.run(args.iter().chain(tenant)).expect(code).json(),
                ["rejected", "written", "open_rejects"],
            )
        };
        assert_eq!(run(3, &[]), [1, 2, 1]);
        document("{}");
        assert_eq!(run(0, &["--tenant", "10"]), [0, 0, 1]);
        assert_eq!(run(0, &["--tenant", "1"]), [0, 1, 0]);
        exporter.assert_agrees();
    });
}

#[test]
fn a_window_ends_at_the_boundary_whatever_it_was_told() {
    on_every_source(|table| {
        for (id, number, time) in [
            (1, "PAST", table.ago(60 * MINUTE)),
            (2, "RECENT", table.ago(MINUTE)),
            (3, "AHEAD", table.ahead(60 * MINUTE)),
        ] {
            table.insert(&Row { id, number, time: &time, ..Row::default() });
        }
        // A mode that the environment names for other runs is no obstacle.
        let exporter = Exporter::new(table).env("EXPORT_MODE", "incremental");
        exporter.run(["run", "--since", "2025-11-28", "--until", "2999-01-01"]).expect(0);
        assert_eq!(paths(&exporter), ["1/CN/20251128+PAST.json"]);
    });
}
