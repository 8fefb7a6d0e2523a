//! One tenant's trouble is not another's, and a run may be limited to tenants or to a window.

use std::fs;
use std::time::Duration;

use crate::support::exporter::Exporter;
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
fn a_tenant_whose_folder_is_blocked_fails_alone_and_is_exported_once_the_way_is_free() {
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
        let window = ["run", "--since", "2025-11-01", "--until", "2025-11-03 00:00:00"];
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
