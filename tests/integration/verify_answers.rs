//! What the answer of `verify` says beside its findings: rejects, and only what is known of a lost invoice.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Exporter, Row, Table, on_every_source};

const HOUR: Duration = Duration::from_secs(3600);
const SOURCE: &str = "--against-source";

/// An invoice of each of two tenants, exported by an incremental run.
fn exported(table: &Table) -> Exporter<'_> {
    for (id, tenant) in [(1, "10"), (2, "1")] {
        let (number, time) = (format!("INV{id}"), table.ago(2 * HOUR));
        table.insert(&Row { id, tenant, number: &number, time: &time, ..Row::default() });
    }
    let exporter = Exporter::new(table);
    exporter.run(["run", "--mode", "incremental", "--safety-lag", "1s"]).expect(0);
    exporter
}

/// Verifies, and returns the whole answer.
#[track_caller]
fn verify(exporter: &Exporter<'_>, args: &[&str], code: i32) -> Value {
    exporter.run(["verify", "--format", "json"].iter().chain(args)).expect(code).json()
}

#[test]
fn rejects_are_no_difference_and_stand_in_the_answer() {
    on_every_source(|table| {
        let exporter = exported(table);
        let time = table.ago(HOUR);
        table.insert(&Row { id: 11, number: "INV11", document: "{", time: &time, ..Row::default() });
        exporter.run(["run", "--mode", "incremental"]).expect(3);
        for args in [&[][..], &[SOURCE]] {
            let answer = verify(&exporter, args, 0);
            let told = "nothing differs, but 1 invoice cannot be exported (`status --rejects` lists them)";
            assert_eq!((&answer["result"], &answer["known_rejects"]), (&told.into(), &1.into()), "{args:?}");
        }
        let chinese = exporter.run(["verify", "--lang", "zh"]).expect(0).stdout;
        assert!(chinese.contains("没有差异，但有 1 张发票无法导出（可用 status --rejects 查看）"), "{chinese}");
        let listed = exporter.run(["history"]).expect(0).stdout;
        let line = listed.lines().nth(1).unwrap();
        assert!(line.ends_with("2 files, nothing differs, 1 cannot be exported"), "{listed}");
        fs::remove_file(exporter.output().join("10/CN/20251128+INV1.json")).unwrap();
        let answer = verify(&exporter, &[], 6);
        assert!(answer["result"].as_str().unwrap().starts_with("1 differs, and 1 invoice cannot"), "{answer}");
    });
}

#[test]
fn of_a_lost_invoice_only_is_said_what_its_tenant_shows() {
    on_every_source(|table| {
        let exporter = exported(table);
        exporter.run(["state", "reset", "10", "--yes"]).expect(0);
        for (id, tenant) in [(11, "1"), (12, "10"), (13, "5")] {
            let (number, time) = (format!("INV{id}"), table.ago(3 * HOUR));
            table.insert(&Row { id, tenant, number: &number, time: &time, ..Row::default() });
        }
        exporter.run(["run", "--mode", "incremental", "--tenant", "1", "--overlap", "1s"]).expect(0);
        let answer = verify(&exporter, &[SOURCE], 6);
        let detail = |tenant: &str| {
            let findings = answer["findings"].as_array().unwrap();
            let lost = findings.iter().find(|finding| finding["tenant"] == tenant);
            lost.unwrap_or_else(|| panic!("nothing of {tenant} in {answer}"))["detail"].as_str().unwrap().to_owned()
        };
        assert!(detail("1").contains(" is not above the watermark ") && detail("1").ends_with(" of its tenant"));
        assert!(detail("10").contains(" of an earlier run; its tenant has no watermark"), "{answer}");
        assert!(detail("5").contains(" of an earlier run; no run has exported its tenant"), "{answer}");
    });
}
