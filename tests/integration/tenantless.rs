//! Invoices with NULL for a tenant: no tenant's scan brings them, and they have no folder to go to.

use std::time::Duration;

use crate::support::exporter::{Finished, numbers};
use crate::support::{Exporter, Row, Table, on_every_source};

const MINUTE: Duration = Duration::from_secs(60);

/// The table, with a column of tenants that may be NULL.
pub(crate) fn nullable(table: &Table) {
    match table {
        Table::Server(_) => table.execute("ALTER TABLE t_invoice MODIFY ftenant_id VARCHAR(64) NULL"),
        Table::Embedded(_) => {
            table.execute("DROP TABLE t_invoice");
            table.execute(
                "CREATE TABLE t_invoice (fid INTEGER PRIMARY KEY, ftenant_id TEXT, fcountry TEXT, fissue_date TEXT,
                 finvoice_no TEXT, fissue_status INTEGER NOT NULL, fext_field TEXT, fupdate_time TEXT NOT NULL)",
            );
            table.execute("CREATE INDEX i ON t_invoice (ftenant_id, fissue_status, fupdate_time)");
        }
    }
}

/// A row that lies far below what runs have read, without a tenant.
fn without_tenant(table: &Table, id: i64, status: i64) {
    let number = format!("INV{id}");
    table.insert(&Row { id, number: &number, status, time: "2025-11-20 12:00:00", ..Row::default() });
    table.execute(&format!(
        "UPDATE t_invoice SET ftenant_id = NULL, fupdate_time = '2025-11-20 12:00:00' WHERE fid = {id}"
    ));
}

fn run(exporter: &Exporter<'_>, mode: &str, code: i32) -> Finished {
    exporter.run(["run", "--mode", mode, "--format", "json"]).expect(code)
}

#[test]
fn an_incremental_run_names_invoices_without_a_tenant_until_they_have_one() {
    on_every_source(|table| {
        nullable(table);
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(30 * MINUTE), ..Row::default() });
        run(&exporter, "incremental", 0);

        without_tenant(table, 2, 3);
        without_tenant(table, 3, 1);
        let found = run(&exporter, "incremental", 3);
        assert_eq!(numbers(&found.json(), ["seen", "rejected", "new_rejects"]), [1, 1, 1]);
        assert!(found.stderr.contains("1 invoice has no tenant (ids 2)"), "{found}");
        let again = run(&exporter, "incremental", 0);
        assert_eq!(numbers(&again.json(), ["seen", "rejected", "new_rejects"]), [1, 1, 0]);
        let rejects = exporter.run(["status", "--rejects"]).expect(0);
        assert!(rejects.stdout.contains("the column ftenant_id is NULL"), "{rejects}");
        let said = exporter.run(["--lang", "zh", "run", "--mode", "incremental", "--dry-run"]).expect(0);
        assert!(said.stderr.contains("1 张发票的租户为空（id 2）"), "{said}");

        let time = table.ago(20 * MINUTE);
        table.execute(&format!("UPDATE t_invoice SET ftenant_id = '1', fupdate_time = '{time}' WHERE fid = 2"));
        assert_eq!(numbers(&run(&exporter, "incremental", 0).json(), ["written", "rejected"]), [1, 0]);
        table.execute("DELETE FROM t_invoice WHERE fid = 3");
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

#[test]
fn a_backfill_names_invoices_without_a_tenant() {
    on_every_source(|table| {
        nullable(table);
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(30 * MINUTE), ..Row::default() });
        run(&exporter, "incremental", 0);
        without_tenant(table, 2, 3);
        let backfill = ["run", "--since", "2025-11-01 00:00:00", "--format", "json"];
        let found = exporter.run(backfill).expect(3);
        assert_eq!(numbers(&found.json(), ["rejected", "new_rejects"]), [1, 1]);
    });
}

#[test]
fn a_verification_against_the_source_names_invoices_without_a_tenant() {
    on_every_source(|table| {
        nullable(table);
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(30 * MINUTE), ..Row::default() });
        run(&exporter, "incremental", 0);
        without_tenant(table, 2, 3);
        let verify = |args: &[&str], code| exporter.run(["verify", "--against-source"].iter().chain(args)).expect(code);
        let found = verify(&[], 6);
        assert!(found.stdout.contains("the column ftenant_id is NULL"), "{found}");
        verify(&["--since", "2025-11-25 00:00:00"], 0);
        verify(&["--since", "2025-11-19 00:00:00", "--until", "2025-11-21 00:00:00"], 6);
        // What a full run has put on record is no news.
        run(&exporter, "full", 3);
        verify(&[], 0);
    });
}

#[test]
fn of_more_invoices_without_a_tenant_than_one_run_names_it_says_so() {
    let table = Table::embedded();
    nullable(&table);
    let exporter = Exporter::new(&table);
    table.execute(
        "INSERT INTO t_invoice WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1001)
         SELECT n, NULL, 'CN', '2025-11-28', 'INV' || n, 3, '{}', '2025-11-20 12:00:00' FROM n",
    );
    let found = run(&exporter, "incremental", 3);
    assert_eq!(numbers(&found.json(), ["rejected"]), [1_000]);
    assert!(found.stderr.contains("more than 1000 invoices have no tenant (ids 1, 2, 3, 4, 5, …)"), "{found}");
    run(&exporter, "full", 3);
    assert_eq!(exporter.ask_one("SELECT count(*) FROM reject WHERE closed_run IS NULL"), "1001");
}

#[test]
fn a_row_that_lost_its_tenant_and_then_its_path_counts_for_no_tenant() {
    on_every_source(|table| {
        nullable(table);
        let exporter = Exporter::new(table);
        table.insert(&Row { time: &table.ago(30 * MINUTE), ..Row::default() });
        run(&exporter, "incremental", 0);
        let time = table.ago(25 * MINUTE);
        table.execute(&format!("UPDATE t_invoice SET ftenant_id = NULL, fupdate_time = '{time}'"));
        table.insert(&Row { id: 2, document: "[2]", time: &table.ago(20 * MINUTE), ..Row::default() });
        let found = run(&exporter, "incremental", 3);
        assert_eq!(numbers(&found.json(), ["seen", "written", "rejected"]), [2, 1, 1], "{found}");
        assert_eq!(exporter.ask("SELECT seen, written, rejected FROM run_tenant ORDER BY run DESC LIMIT 1"), ["1 1 0"]);
        exporter.assert_state_is_sound();
    });
}
