//! The same table in an SQLite file, for scenarios that must hold without a server too.

use std::io::{BufRead, BufReader};

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use tempfile::TempDir;

use super::database::Cells;
use super::sample::Sample;

const TABLE: &str = "
CREATE TABLE t_invoice (
  fid INTEGER PRIMARY KEY AUTOINCREMENT, ftenant_id TEXT NOT NULL, fcountry TEXT, fissue_date TEXT, finvoice_no TEXT,
  fissue_status INTEGER NOT NULL, fext_field TEXT, fupdate_time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX idx_incremental_export ON t_invoice (ftenant_id, fissue_status, fupdate_time);";

pub(crate) struct Embedded {
    folder: TempDir,
}

impl Embedded {
    pub(crate) fn create() -> Self {
        Self::within(tempfile::tempdir().expect("make a folder for the SQLite file"))
    }

    pub(crate) fn in_memory() -> Self {
        Self::within(super::folder_in_memory())
    }

    fn within(folder: TempDir) -> Self {
        let embedded = Self { folder };
        embedded.connect().execute_batch(TABLE).expect("create the embedded table");
        embedded
    }

    /// SQLite has no TRUNCATE.
    pub(crate) fn create_anew(&self) {
        let anew = format!("BEGIN; DROP TABLE t_invoice; {TABLE} COMMIT");
        self.connect().execute_batch(&anew).expect("create the embedded table anew");
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite:{}", self.folder.path().join("source.db").display())
    }

    pub(crate) fn connect(&self) -> Connection {
        let conn = Connection::open(self.folder.path().join("source.db")).expect("open the embedded source");
        // A killed process loses nothing that it has given to the kernel; only power cuts need syncs.
        conn.pragma_update(None, "synchronous", "OFF").expect("leave out the syncs");
        conn
    }

    pub(crate) fn execute(&self, sql: &str) {
        self.connect().execute(sql, []).unwrap_or_else(|error| panic!("{error} in: {sql}"));
    }

    pub(crate) fn query_bytes(&self, sql: &str) -> Vec<Cells> {
        rows(&self.connect(), sql)
    }

    pub(crate) fn load(&self, sample: &Sample) {
        let mut conn = self.connect();
        let transaction = conn.transaction().expect("begin");
        let file = std::fs::File::open(sample.file()).expect("open the sample rows");
        for line in BufReader::new(file).lines() {
            // The file is made for LOAD DATA, which takes a backslash for an escape.
            let line = line.expect("read a sample row").replace(r"\\", r"\");
            transaction
                .prepare_cached("INSERT INTO t_invoice VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
                .and_then(|mut insert| insert.execute(rusqlite::params_from_iter(line.split('\t'))))
                .expect("insert a sample row");
        }
        transaction.commit().expect("commit the sample rows");
    }
}

pub(crate) fn rows(conn: &Connection, sql: &str) -> Vec<Cells> {
    let mut statement = conn.prepare(sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|at| row.get_ref(at).map(bytes)).collect());
    rows.and_then(Iterator::collect).unwrap_or_else(|error| panic!("{error} in: {sql}"))
}

fn bytes(value: ValueRef<'_>) -> Option<Vec<u8>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
    }
}
