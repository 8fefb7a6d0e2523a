//! Every table that a t_invoice may be: types of key, time, tenant and document, on both servers.

use std::time::Duration;

use crate::support::exporter::Exporter;
use crate::support::server::server;
use crate::support::table::{Table, on_every_flavor};

const MINUTE: Duration = Duration::from_secs(60);

/// The type of the id column, and what its values begin with.
const IDS: [(&str, &str); 3] = [
    ("BIGINT", "-50"),
    ("BIGINT UNSIGNED", "18446744073709551300"),
    ("VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", "'id-'"),
];
const TIMES: [&str; 6] =
    ["DATETIME NULL", "DATETIME(3)", "DATETIME(6) NULL", "TIMESTAMP NULL", "TIMESTAMP(3) NULL", "TIMESTAMP(6) NULL"];
const TENANTS: [&str; 2] = ["VARCHAR(64) NOT NULL", "BIGINT NOT NULL"];
const DOCUMENTS: [&str; 5] = ["LONGTEXT", "TEXT", "BLOB", "LONGBLOB", "JSON"];

fn create(table: &Table, id: &str, time: &str, tenant: &str, document: &str) {
    table.execute("DROP TABLE IF EXISTS t_invoice");
    table.execute(&format!(
        "CREATE TABLE t_invoice (fid {id} NOT NULL PRIMARY KEY, ftenant_id {tenant}, fcountry VARCHAR(8), fissue_date DATE,
         finvoice_no VARCHAR(64), fissue_status TINYINT NOT NULL, fext_field {document}, fupdate_time {time})
         CHARACTER SET utf8mb4"
    ));
    table.execute("CREATE INDEX idx_incremental_export ON t_invoice (ftenant_id, fissue_status, fupdate_time)");
}

/// Forty rows from this number on, at this time.
fn insert(table: &Table, first: u32, id: &str, time: &str) {
    let rows: Vec<String> = (first..first + 40)
        .map(|n| {
            let id = if id.starts_with('\'') { format!("CONCAT({id}, {n})") } else { format!("{id} + {n}") };
            let (tenant, document) = (n % 3 + 7, format!("{{\"row\": {n}, \"text\": \"发票\"}}"));
            format!("({id}, '{tenant}', 'CN', '2025-11-28', 'INV{n}', 3, '{document}', {time})")
        })
        .collect();
    table.execute(&format!("INSERT INTO t_invoice VALUES {}", rows.join(", ")));
}

#[test]
fn every_type_of_column_that_a_table_of_invoices_may_have_is_exported_completely_and_incrementally() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let mut documents = DOCUMENTS.iter().cycle();
        for (id, first) in IDS {
            for time in TIMES {
                for tenant in TENANTS {
                    let document = documents.next().unwrap();
                    let combination = format!("{id}, {time}, {tenant}, {document}");
                    create(&table, id, time, tenant, document);
                    insert(&table, 0, first, &format!("'{}'", table.ago(120 * MINUTE)));
                    if time.ends_with(" NULL") {
                        insert(&table, 200, first, "NULL");
                    }
                    let exporter = Exporter::new(&table);
                    exporter.run(["run", "--mode", "incremental"]).expect(0);
                    exporter.assert_agrees();
                    let before = exporter.stamps();
                    insert(&table, 50, first, &format!("'{}'", table.ago(10 * MINUTE)));
                    table.execute(&format!(
                        "UPDATE t_invoice SET fissue_date = '2025-12-01', fupdate_time = '{}' WHERE finvoice_no = 'INV7'",
                        table.ago(9 * MINUTE)
                    ));
                    let args = ["run", "--mode", "incremental", "--format", "json"];
                    let summary = exporter.run(args).expect(0).json();
                    assert_eq!(
                        (&summary["written"], &summary["removed"]),
                        (&41.into(), &1.into()),
                        "{combination}: {summary}"
                    );
                    exporter.assert_agrees();
                    let kept = exporter.stamps().into_iter().filter(|(path, stamp)| before.get(path) == Some(stamp));
                    assert_eq!(kept.count(), before.len() - 1, "{combination}");
                    let summary = exporter.run(["run", "--format", "json"]).expect(0).json();
                    assert_eq!(summary["written"], 0, "{combination}: {summary}");
                }
            }
        }
    });
}
