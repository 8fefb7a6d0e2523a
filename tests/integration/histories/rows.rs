//! The table of a history, and the statements that change it. Tenants and source times may be NULL, and a document
//! may be one that no run can export.

use mysql::prelude::Queryable;

use super::reference::{Invoice, Write};
use super::steps::{LARGE, Rebuild, UNMAPPABLE};
use super::world::printed;
use crate::support::Table;
use crate::support::table::quoted;

/// Less than the bytes of a large document.
pub(super) const MAX_DOCUMENT: &str = "1KiB";

const COLUMNS: &str = "fid, ftenant_id, fcountry, fissue_date, finvoice_no, fissue_status, fext_field, fupdate_time";

/// In GBK, which has characters that Unicode has not.
const ON_A_SERVER: &str = "CREATE TABLE t_invoice (
    fid BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, ftenant_id VARCHAR(64), fcountry VARCHAR(8), fissue_date DATE,
    finvoice_no VARCHAR(64), fissue_status TINYINT NOT NULL, fext_field LONGTEXT CHARACTER SET gbk,
    fupdate_time DATETIME, INDEX idx_incremental_export (ftenant_id, fissue_status, fupdate_time)
) CHARACTER SET utf8mb4";

const EMBEDDED: &str = "CREATE TABLE t_invoice (
    fid INTEGER PRIMARY KEY AUTOINCREMENT, ftenant_id TEXT, fcountry TEXT, fissue_date TEXT, finvoice_no TEXT,
    fissue_status INTEGER NOT NULL, fext_field TEXT, fupdate_time TEXT
)";

const INDEX: &str = "CREATE INDEX idx_incremental_export ON t_invoice (ftenant_id, fissue_status, fupdate_time)";

pub(super) fn create(table: &Table) {
    table.execute("DROP TABLE t_invoice");
    let statements: &[&str] = if is_embedded(table) { &[EMBEDDED, INDEX] } else { &[ON_A_SERVER] };
    statements.iter().for_each(|sql| table.execute(sql));
}

fn is_embedded(table: &Table) -> bool {
    matches!(table, Table::Embedded(_))
}

pub(super) fn rebuilding(table: &Table, rebuild: Rebuild) -> Vec<String> {
    let copy = format!("INSERT INTO t_new ({COLUMNS}) SELECT {COLUMNS} FROM t_invoice");
    let statements: Vec<&str> = match (rebuild, is_embedded(table)) {
        (Rebuild::Altered, false) => vec!["ALTER TABLE t_invoice FORCE"],
        (Rebuild::Altered, true) => vec!["VACUUM"],
        (Rebuild::Copied, false) => vec![
            "DROP TABLE IF EXISTS t_new",
            "CREATE TABLE t_new LIKE t_invoice",
            &copy,
            "RENAME TABLE t_invoice TO t_old, t_new TO t_invoice",
            "DROP TABLE t_old",
        ],
        (Rebuild::Copied, true) => {
            let new = EMBEDDED.replace("t_invoice", "t_new");
            let swap = ["DROP TABLE t_invoice", "ALTER TABLE t_new RENAME TO t_invoice", INDEX];
            return transaction([new, copy].into_iter().chain(swap.map(str::to_owned)));
        }
        (Rebuild::Renamed, false) => vec!["RENAME TABLE t_invoice TO t_away", "RENAME TABLE t_away TO t_invoice"],
        (Rebuild::Renamed, true) => {
            let renames = ["ALTER TABLE t_invoice RENAME TO t_away", "ALTER TABLE t_away RENAME TO t_invoice"];
            return transaction(renames.map(str::to_owned));
        }
    };
    statements.into_iter().map(str::to_owned).collect()
}

/// The table is emptied, and these rows come into it.
pub(super) fn refilling(table: &Table, rows: impl IntoIterator<Item = (i64, Invoice)>) -> Vec<String> {
    let rows = rows.into_iter().map(|(id, row)| statement(table, &(id, Some(row))));
    if is_embedded(table) {
        let anew = ["DROP TABLE t_invoice", EMBEDDED, INDEX].map(str::to_owned);
        transaction(anew.into_iter().chain(rows))
    } else {
        ["TRUNCATE TABLE t_invoice".to_owned()].into_iter().chain(transaction(rows)).collect()
    }
}

pub(super) fn transaction(statements: impl IntoIterator<Item = String>) -> Vec<String> {
    let (begin, commit) = (["BEGIN".to_owned()], ["COMMIT".to_owned()]);
    begin.into_iter().chain(statements).chain(commit).collect()
}

/// For servers and SQLite alike but for the documents.
pub(super) fn statement(table: &Table, (id, row): &Write) -> String {
    let Some(row) = row else { return format!("DELETE FROM t_invoice WHERE fid = {id}") };
    let Invoice { tenant, country, date, number, issued, document, time } = row;
    let null = || "NULL".to_owned();
    let (tenant, time) = (tenant.map_or_else(null, quoted), time.map_or_else(null, |time| quoted(&printed(time))));
    let [country, date, number] = [country, date, number].map(|text| quoted(text));
    let status = if *issued { 3 } else { 1 };
    let document = match *document {
        LARGE => quoted(&format!("[{}0]", "0,".repeat(1000))),
        UNMAPPABLE if is_embedded(table) => "CAST(X'5B22FF225D' AS TEXT)".to_owned(),
        UNMAPPABLE => "CONCAT(_gbk'[\"', _gbk 0xAAA1, _gbk'\"]')".to_owned(),
        document => quoted(document),
    };
    format!(
        "REPLACE INTO t_invoice ({COLUMNS})
         VALUES ({id}, {tenant}, {country}, {date}, {number}, {status}, {document}, {time})"
    )
}

/// Carries these out one after the other, and says whether all of them went through. What a run that is stopped has
/// locked is not waited for.
pub(super) fn try_each(table: &Table, statements: &[String]) -> bool {
    match table {
        Table::Server(database) => {
            let mut connection = database.connect();
            connection.query_drop("SET lock_wait_timeout = 1, innodb_lock_wait_timeout = 1").expect("set the limits");
            let locked = |error: &mysql::Error| matches!(error, mysql::Error::MySqlError(error) if error.code == 1205);
            statements.iter().all(|sql| match connection.query_drop(sql) {
                Err(error) if locked(&error) => false,
                result => result.map(|()| true).unwrap_or_else(|error| panic!("{error} in: {sql}")),
            })
        }
        Table::Embedded(embedded) => {
            let connection = embedded.connect();
            connection.busy_timeout(std::time::Duration::ZERO).expect("set the limit");
            let locked = |error: &rusqlite::Error| error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
            statements.iter().all(|sql| match connection.execute_batch(sql) {
                Err(error)
                    if locked(&error) || error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseLocked) =>
                {
                    false
                }
                result => result.map(|()| true).unwrap_or_else(|error| panic!("{error} in: {sql}")),
            })
        }
    }
}
