//! Asks SQLite how it would answer what `history` and `status` read: by an index each time, in the
//! order of that index, however long the history is.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::changes::ChangeKind;
use super::file_past::PRUNED;
use super::history::{FILES, FILES_THAT_STAYED, NEWEST_OF_STATUS, OF_RUN, PULLED_BACK, RunStatus, UNFINISHED};
use super::overview::OPEN_FROM;
use super::pages::{Between, Dated, HistoryFilter, OfKind, Query, bounds, changes, runs, verifications};
use super::runs::LAST_BEGUN;
use super::schema::in_memory;
use super::starts::LAST_ATTEMPT;
use super::stored::TenantNo;
use super::todo::{LEFT_BEHIND, LEFT_BY_RUN};
use super::verifications::{
    DIFFERENCES_OF_TENANT, FOUND_BY, LIMITED_TO, PENDING, PENDING_OF_TENANT, REJECTED_OF_TENANT,
};
use crate::run::Kind;

fn plan(conn: &Connection, sql: &str, values: &[Value]) -> String {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    for (n, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(n + 1, value).unwrap();
    }
    let details = statement.raw_query().mapped(|row| row.get::<_, String>("detail"));
    details.map(Result::unwrap).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn assert_by_index(sql: &str, plan: &str, index: &str) {
    assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{sql}:\n{plan}");
    assert!(plan.contains(index), "{sql} does not go by {index}:\n{plan}");
}

fn plan_of(conn: &Connection, query: &Query) -> String {
    plan(conn, &query.sql, &query.values)
}

const TIMES: [Option<&str>; 2] = [None, Some("2025-11-28T10:00:00Z")];
const TENANTS: [Option<TenantNo>; 2] = [None, Some(TenantNo(1))];

#[test]
fn every_combination_of_filters_of_runs_is_answered_by_an_index_in_its_order() {
    let conn = in_memory();
    for tenant in TENANTS {
        for status in [None, Some(RunStatus::Failed)] {
            for kind in [None, Some(OfKind::Run(Kind::Full))] {
                for time in TIMES {
                    let time = time.map(str::to_owned);
                    let filter = HistoryFilter { tenant: None, kind, status, since: time.clone(), until: time };
                    let query = runs(&filter, tenant, Between::EVERYTHING, 20);
                    let index = match (tenant, status, kind) {
                        (Some(_), ..) => "SEARCH t USING INDEX run_tenant_tenant (tenant=? AND run>? AND run<?)",
                        (None, Some(_), _) => "SEARCH r USING INDEX run_status (status=? AND id>? AND id<?)",
                        (None, None, Some(_)) => "SEARCH r USING INDEX run_kind (kind=? AND id>? AND id<?)",
                        (None, None, None) => "SEARCH r USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
                    };
                    assert_by_index(&query.sql, &plan_of(&conn, &query), index);
                }
            }
        }
    }
}

#[test]
fn every_combination_of_filters_of_a_tenants_verifications_goes_by_their_numbers() {
    let conn = in_memory();
    for status in [None, Some(RunStatus::Failed)] {
        for kind in [None, Some(OfKind::Run(Kind::Verify))] {
            for time in TIMES {
                let time = time.map(str::to_owned);
                let filter = HistoryFilter { tenant: None, kind, status, since: time.clone(), until: time };
                let query = verifications(&filter, TenantNo(1), Between::EVERYTHING, 20);
                let plan = plan_of(&conn, &query);
                assert_by_index(&query.sql, &plan, "SEARCH v USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)");
                assert_by_index(&query.sql, &plan, "SEARCH t USING PRIMARY KEY (run=? AND tenant=?)");
            }
        }
    }
}

#[test]
fn every_combination_of_filters_of_changes_is_answered_by_an_index_in_its_order() {
    let conn = in_memory();
    for tenant in TENANTS {
        for kind in [None, Some(OfKind::Change(ChangeKind::Set))] {
            for time in TIMES {
                let time = time.map(str::to_owned);
                let filter = HistoryFilter { tenant: None, kind, status: None, since: time.clone(), until: time };
                let query = changes(&filter, tenant, Between::EVERYTHING, 20);
                let index = match (tenant, kind) {
                    (Some(_), _) => "SEARCH w USING INDEX watermark_change_tenant (tenant=? AND change>? AND change<?)",
                    (None, Some(_)) => "SEARCH c USING INDEX state_change_kind (kind=? AND n>? AND n<?)",
                    (None, None) => "SEARCH c USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
                };
                assert_by_index(&query.sql, &plan_of(&conn, &query), index);
            }
        }
    }
}

#[test]
fn times_are_answered_by_the_index_of_times_alone() {
    let conn = in_memory();
    for (dated, index) in
        [(Dated::Runs, "COVERING INDEX run_started"), (Dated::Changes, "COVERING INDEX state_change_at")]
    {
        for sql in bounds(dated) {
            assert_by_index(sql, &plan(&conn, sql, &[Value::Text(String::new())]), index);
        }
    }
}

#[test]
fn what_hangs_on_one_run_is_found_by_an_index() {
    let conn = in_memory();
    for (sql, index) in [
        (FILES, "SEARCH e USING INDEX entry_run (run=?)"),
        (FILES, "SEARCH p USING PRIMARY KEY (run=?)"),
        (FILES_THAT_STAYED, "SEARCH e USING INDEX entry_run (run=?)"),
        (FILES_THAT_STAYED, "SEARCH p USING PRIMARY KEY (run=?)"),
        (FILES_THAT_STAYED, "SEARCH e EXISTS USING COVERING INDEX entry_path (folder=? AND name=?)"),
        (LEFT_BEHIND, "SEARCH leftover USING INDEX leftover_id (id=?)"),
        (LEFT_BY_RUN, "SEARCH leftover USING INDEX leftover_run (run=?)"),
        (NEWEST_OF_STATUS, "SEARCH run USING COVERING INDEX run_status (status=?)"),
        (&format!("SELECT * {UNFINISHED}"), "SEARCH r USING INDEX run_status (status=?)"),
        (&format!("SELECT count(*) {OF_RUN}"), "SEARCH j USING INDEX reject_last_run (last_run=?)"),
        (&format!("SELECT count(*) {OF_RUN}"), "SEARCH j USING INDEX reject_run (opened_run=?)"),
        (&format!("SELECT * {OPEN_FROM}"), "SEARCH j USING INDEX reject_open_since ((opened_run,id)>(?,?))"),
    ] {
        assert_by_index(sql, &plan(&conn, sql, &[]), index);
    }
    // Sorted by name, which the number of tenants bounds.
    for (sql, index) in [
        (PULLED_BACK, "INDEX state_change_kind (kind=?)"),
        (LIMITED_TO, "SEARCH v USING PRIMARY KEY (run=?)"),
        (DIFFERENCES_OF_TENANT, "SEARCH verification_finding USING PRIMARY KEY (run=? AND tenant=?)"),
        (REJECTED_OF_TENANT, "SEARCH verification_tenant USING PRIMARY KEY (run=? AND tenant=?)"),
        (PENDING_OF_TENANT, "SEARCH verification_tenant USING PRIMARY KEY (run=? AND tenant=?)"),
        (PENDING, "SEARCH v USING PRIMARY KEY (run=?)"),
        (FOUND_BY, "SEARCH f USING PRIMARY KEY (run=?)"),
    ] {
        let plan = plan(&conn, sql, &[]);
        assert!(!plan.contains("SCAN") && plan.contains(index), "{sql}:\n{plan}");
    }
}

/// Such a run is among the newest ones.
#[test]
fn the_last_run_of_a_kind_is_found_from_the_end() {
    let conn = in_memory();
    for sql in [LAST_BEGUN, &format!("SELECT * {LAST_ATTEMPT}")] {
        let plan = plan(&conn, sql, &[]);
        assert!(plan.starts_with("SCAN r") && !plan.contains("INDEX") && plan.lines().count() == 1, "{sql}:\n{plan}");
    }
}

#[test]
fn an_upgrade_compares_the_log_of_files_with_the_ledger_by_path() {
    let schema = include_str!("../../state-schema/0004_paths_once.sql");
    let delete = schema.split_once("DELETE FROM file_past").unwrap().1.split_once(';').unwrap().0;
    let plan = plan(&in_memory(), &format!("DELETE FROM file_past{delete}"), &[]);
    assert!(plan.contains("SEARCH e USING INDEX entry_path (folder=? AND name=?)"), "{plan}");
}

/// Plans do not show what triggers do, but their steps count.
#[test]
fn an_invoice_moves_on_at_the_same_cost_however_many_files_its_run_wrote() {
    let steps = |files: i64| {
        let conn = in_memory();
        conn.execute_batch(
            "INSERT INTO folder VALUES (1, '1/CN');
             INSERT INTO run (id, kind, status, started, boundary, user, host, pid, command_line, version)
             VALUES (1, 'full', 'success', '', '', '', '', 1, '', ''), (2, 'full', 'running', '', '', '', '', 1, '', '');
             DROP TRIGGER entry_comes_now",
        )
        .unwrap();
        conn.execute(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
             INSERT INTO entry SELECT n, 1, NULL, 1, n, zeroblob(32), 1, 1, 1, 0, 1, 0, NULL, NULL FROM n",
            [files],
        )
        .unwrap();
        // The last ones: a search by the run would come to them last.
        let steps = |sql: &str| {
            let mut statement = conn.prepare(&format!("{sql} WHERE id = {files}")).unwrap();
            statement.execute([]).unwrap();
            statement.get_status(rusqlite::StatementStatus::VmStep)
        };
        [steps("UPDATE entry SET name = 'moved', run = 2"), steps("DELETE FROM entry")]
    };
    assert_eq!(steps(10), steps(1_000));
}

#[test]
fn that_a_file_was_pruned_is_found_by_an_index() {
    assert_by_index(PRUNED, &plan(&in_memory(), PRUNED, &[]), "INDEX file_past_removed (name=? AND folder=?)");
}

mod the_checks_can_fail {
    use super::*;

    #[test]
    #[should_panic(expected = "SCAN")]
    fn a_scan_is_found() {
        assert_by_index("", &plan(&in_memory(), "SELECT * FROM run WHERE user = ?1 LIMIT 20", &[]), "");
    }

    #[test]
    #[should_panic(expected = "TEMP B-TREE")]
    fn a_sort_is_found() {
        let sql = "SELECT * FROM run WHERE started >= ?1 ORDER BY finished LIMIT 20";
        assert_by_index("", &plan(&in_memory(), sql, &[]), "");
    }
}
