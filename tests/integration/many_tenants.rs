//! What a run costs where there are many tenants and nothing is new, counted and not timed.

use std::time::Duration;

use crate::support::exporter::numbers;
use crate::support::{Exporter, Row, Table, on_every_source};

const INCREMENTAL: [&str; 5] = ["run", "--mode", "incremental", "--format", "json"];

/// Statements of a run that finds nothing new for so many tenants: to the source, and to the state.
fn statements(tenants: u32) -> [u64; 2] {
    let table = Table::embedded();
    table.execute(&format!(
        "INSERT INTO t_invoice WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {tenants})
         SELECT n, 'T' || n, 'CN', '2025-11-28', 'INV', 3, '{{}}', '2025-11-20 12:00:00' FROM n"
    ));
    let exporter = Exporter::new(&table);
    exporter.run(INCREMENTAL).expect(0);
    let summary = exporter.run(INCREMENTAL).expect(0).json();
    assert_eq!(numbers(&summary, ["tenants", "seen"]), [u64::from(tenants), 0]);
    let boundary = summary["boundary"].as_str().unwrap();
    let moved = format!("SELECT count(*) FROM tenant WHERE watermark = '{boundary}' AND last_run = 2");
    assert_eq!(exporter.ask_one(&moved), tenants.to_string());
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
    numbers(&summary, ["source_statements", "state_statements"])
}

#[test]
fn a_tenant_with_nothing_new_costs_no_statement_of_its_own() {
    assert_eq!(statements(500), statements(20));
}

#[test]
fn a_quiet_tenant_whose_reject_is_read_again_has_its_watermark_in_the_history() {
    on_every_source(|table| {
        let exporter = Exporter::new(table);
        let time = table.ago(Duration::from_secs(5 * 3_600));
        table.insert(&Row { time: &time, ..Row::default() });
        table.insert(&Row { id: 2, number: "BAD", document: "no JSON", time: &time, ..Row::default() });
        exporter.run(INCREMENTAL).expect(3);
        for run in [2, 3] {
            let summary = exporter.run(INCREMENTAL).expect(0).json();
            assert_eq!(numbers(&summary, ["run", "seen", "rejected"]), [run, 1, 1]);
            let boundary = summary["boundary"].as_str().unwrap();
            let moved = exporter.ask_one(&format!("SELECT new_watermark FROM run_tenant WHERE run = {run}"));
            assert_eq!(moved, boundary);
        }
        exporter.assert_state_is_sound();
    });
}
