//! Every table that a t_invoice may be: each type of key with each type of time, tenant and document,
//! on both servers. One test for each type of key, so that they can run side by side.

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::exporter::Exporter;
use crate::support::server::server;
use crate::support::table::{Table, on_every_flavor};

const TIMES: [&str; 6] = [
    "DATETIME NULL",
    "DATETIME(3) NOT NULL",
    "DATETIME(6) NULL",
    "TIMESTAMP NULL",
    "TIMESTAMP(3) NULL",
    "TIMESTAMP(6) NULL",
];
const TENANTS: [&str; 2] = ["VARCHAR(64) NOT NULL", "BIGINT NOT NULL"];
const DOCUMENTS: [&str; 5] = ["LONGTEXT", "TEXT", "BLOB", "LONGBLOB", "JSON"];

fn execute(conn: &mut Conn, sql: &str) {
    conn.query_drop(sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
}

fn create(conn: &mut Conn, id: &str, time: &str, tenant: &str, document: &str) {
    execute(conn, "DROP TABLE IF EXISTS t_invoice");
    execute(
        conn,
        &format!(
            "CREATE TABLE t_invoice (fid {id} NOT NULL PRIMARY KEY, ftenant_id {tenant}, fcountry VARCHAR(8),
             fissue_date DATE, finvoice_no VARCHAR(64), fissue_status TINYINT NOT NULL, fext_field {document},
             fupdate_time {time}, INDEX idx_incremental_export (ftenant_id, fissue_status, fupdate_time))
             CHARACTER SET utf8mb4"
        ),
    );
}

/// A dozen rows from this number on, at this time.
fn insert(conn: &mut Conn, first: u32, id: &str, time: &str) {
    let rows: Vec<String> = (first..first + 12)
        .map(|n| {
            let id = if id.starts_with('\'') { format!("CONCAT({id}, {n})") } else { format!("{id} + {n}") };
            let (tenant, document) = (n % 3 + 7, format!("{{\"row\": {n}, \"text\": \"发票\"}}"));
            format!("({id}, '{tenant}', 'CN', '2025-11-28', 'INV{n}', 3, '{document}', {time})")
        })
        .collect();
    execute(conn, &format!("INSERT INTO t_invoice VALUES {}", rows.join(", ")));
}

/// Every table with this type of id, whose values begin with `first`.
fn assert_exported(id: &str, first: &str) {
    on_every_flavor(|flavor| {
        let database = server(flavor).database();
        let mut conn = database.connect();
        let table = Table::Server(database);
        for time in TIMES {
            for tenant in TENANTS {
                for document in DOCUMENTS {
                    create(&mut conn, id, time, tenant, document);
                    let combination = format!("{id}, {tenant}, {document}, {time}");
                    assert_exported_twice(&table, &mut conn, first, &combination);
                }
            }
        }
    });
}

/// What is there at first, and then what changed.
fn assert_exported_twice(table: &Table, conn: &mut Conn, id: &str, combination: &str) {
    insert(conn, 0, id, "NOW() - INTERVAL 2 HOUR");
    if !combination.ends_with("NOT NULL") {
        insert(conn, 20, id, "NULL");
    }
    let exporter = Exporter::new(table);
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    exporter.assert_agrees();
    let before = exporter.stamps();
    insert(conn, 40, id, "NOW() - INTERVAL 10 MINUTE");
    let moved = "fissue_date = '2025-12-01', fupdate_time = NOW() - INTERVAL 9 MINUTE";
    execute(conn, &format!("UPDATE t_invoice SET {moved} WHERE finvoice_no = 'INV7'"));
    let summary = exporter.run(["run", "--mode", "incremental", "--format", "json"]).expect(0).json();
    assert_eq!((&summary["written"], &summary["removed"]), (&13.into(), &1.into()), "{combination}: {summary}");
    exporter.assert_agrees();
    let kept = exporter.stamps().into_iter().filter(|(path, stamp)| before.get(path) == Some(stamp));
    assert_eq!(kept.count(), before.len() - 1, "{combination}");
    let summary = exporter.run(["run", "--format", "json"]).expect(0).json();
    assert_eq!(summary["written"], 0, "{combination}: {summary}");
}

#[test]
fn a_table_with_a_signed_id_is_exported_whatever_its_other_columns_are() {
    assert_exported("BIGINT", "-50");
}

#[test]
fn a_table_with_an_unsigned_id_is_exported_whatever_its_other_columns_are() {
    assert_exported("BIGINT UNSIGNED", "18446744073709551300");
}

#[test]
fn a_table_with_a_textual_id_is_exported_whatever_its_other_columns_are() {
    assert_exported("VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", "'id-'");
}

/// Numbers and texts in one column: every order in which they can be sorted has to hold for all of them.
#[test]
fn ids_that_are_numbers_here_and_texts_there_are_exported_by_every_kind_of_run() {
    on_every_flavor(|flavor| {
        let database = server(flavor).database();
        let mut conn = database.connect();
        let table = Table::Server(database);
        create(&mut conn, "VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", TIMES[0], TENANTS[0], DOCUMENTS[0]);
        let id = |n: u32| match n % 4 {
            0 => format!("{}", n * 7919 % 1_009),
            1 => format!("{}A{n}", n * 104_729 % 97),
            2 => format!("-{n}"),
            _ => format!("0{n}"),
        };
        let add = |conn: &mut Conn, numbers: std::ops::Range<u32>| {
            let row =
                |n| format!("('{}', '1', 'CN', '2025-11-28', 'INV{n}', 3, '{{}}', NOW() - INTERVAL 1 HOUR)", id(n));
            execute(conn, &format!("INSERT INTO t_invoice VALUES {}", numbers.map(row).collect::<Vec<_>>().join(", ")));
        };
        let exporter = Exporter::new(&table);
        add(&mut conn, 0..800);
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        add(&mut conn, 800..1_000);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
        exporter.run(["verify", "--hash", "--against-source"]).expect(0);
    });
}

/// SQLite lists such columns elsewhere than the others.
#[test]
fn a_document_that_an_sqlite_table_works_out_is_exported() {
    let table = Table::embedded();
    table.execute("ALTER TABLE t_invoice RENAME COLUMN fext_field TO content");
    table.execute("ALTER TABLE t_invoice ADD COLUMN fext_field TEXT AS ('[' || content || ']') VIRTUAL");
    table.execute(
        "INSERT INTO t_invoice (fid, ftenant_id, fcountry, fissue_date, finvoice_no, fissue_status, content, fupdate_time)
         VALUES (1, '1', 'CN', '2025-11-28', 'INV1', 3, '1', '2025-11-28 15:00:00')",
    );
    let exporter = Exporter::new(&table);
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    exporter.assert_agrees();
}
