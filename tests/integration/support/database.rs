//! One database of a private server, made for one test and dropped with it.

use std::fs::File;
use std::io;

use mysql::prelude::Queryable;
use mysql::{Conn, LocalInfileHandler, Value};

use super::sample::Sample;
use super::server::Address;

/// The columns of one row.
pub(crate) type Cells = Vec<Option<Vec<u8>>>;

pub(crate) struct Database {
    address: Address,
    name: String,
}

impl Database {
    pub(crate) fn create(address: Address, name: String) -> Self {
        let mut conn = address.connect(None).expect("connect to the private server");
        conn.query_drop(format!("CREATE DATABASE {name}")).expect("create the test's database");
        Self { address, name }
    }

    pub(crate) fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/{}", self.address.port, self.name)
    }

    pub(crate) fn socket_url(&self) -> String {
        format!("mysql://root@localhost/{}?socket={}", self.name, self.address.socket.display())
    }

    /// For tests that hold a transaction open or write beside a run.
    pub(crate) fn connect(&self) -> Conn {
        self.address.connect(Some(&self.name)).unwrap_or_else(|error| panic!("connect to {}: {error}", self.name))
    }

    /// One statement, on a connection of its own.
    pub(crate) fn execute(&self, sql: &str) {
        self.connect().query_drop(sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
    }

    pub(crate) fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        texts(self.query_bytes(sql))
    }

    pub(crate) fn query_bytes(&self, sql: &str) -> Vec<Cells> {
        let rows: Vec<mysql::Row> = self.connect().query(sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
        rows.into_iter().map(|row| row.unwrap().into_iter().map(bytes).collect()).collect()
    }

    /// The documented table, still without the index.
    pub(crate) fn create_table(&self) {
        self.execute(super::sample::server_table());
    }

    pub(crate) fn create_index(&self) {
        self.execute("CREATE INDEX idx_incremental_export ON t_invoice (ftenant_id, fissue_status, fupdate_time)");
        self.execute("ANALYZE TABLE t_invoice");
    }

    /// The table with sample rows and the index; `tenants` as in `1:0.6,10:0.3,89:0.1`.
    pub(crate) fn load_sample(&self, rows: u32, seed: u32, tenants: &str) {
        self.create_table();
        self.load(&Sample::new(rows, seed, tenants));
        self.create_index();
    }

    pub(crate) fn load(&self, sample: &Sample) {
        let mut conn = self.connect();
        let file = sample.file().to_owned();
        conn.set_local_infile_handler(Some(LocalInfileHandler::new(move |_, rows| {
            io::copy(&mut File::open(&file)?, rows).map(drop)
        })));
        conn.query_drop("LOAD DATA LOCAL INFILE 'sample' INTO TABLE t_invoice CHARACTER SET utf8mb4")
            .expect("load the sample rows");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server may be dead: some tests kill it.
        if let Ok(mut conn) = self.address.connect(None) {
            let _ = conn.query_drop("SET lock_wait_timeout = 1");
            let _ = conn.query_drop(format!("DROP DATABASE {}", self.name));
        }
    }
}

pub(crate) fn texts(rows: Vec<Cells>) -> Vec<Vec<Option<String>>> {
    let text = |bytes| String::from_utf8(bytes).expect("what a test asks for is UTF-8");
    rows.into_iter().map(|row| row.into_iter().map(|cell| cell.map(text)).collect()).collect()
}

/// In the text protocol every value is text or NULL.
fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(bytes),
        other => panic!("a text result holds {other:?}"),
    }
}
