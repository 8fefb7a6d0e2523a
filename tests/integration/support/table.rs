//! The table of invoices wherever it lies, and how one scenario runs on every kind of source.
//!
//! Statements must mean the same on both: standard strings (a backslash is a backslash), and every
//! update names `fupdate_time`, because only a server sets it by itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::database::{Cells, Database, texts};
use super::embedded::Embedded;
use super::sample::Sample;
use super::server::{Flavor, Server, server};

pub(crate) enum Table {
    Server(Database),
    Embedded(Embedded),
}

/// One row, with everything that a test does not care about filled in.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) id: i64,
    pub(crate) tenant: &'a str,
    pub(crate) country: Option<&'a str>,
    pub(crate) date: &'a str,
    pub(crate) number: &'a str,
    pub(crate) status: i64,
    pub(crate) document: &'a str,
    pub(crate) time: &'a str,
}

impl Default for Row<'_> {
    fn default() -> Self {
        Self {
            id: 1,
            tenant: "1",
            country: Some("CN"),
            date: "2025-11-28",
            number: "INV001",
            status: 3,
            document: r#"{"total": 0.1000, "note": "发票\n"}"#,
            time: "2025-11-28 15:00:00",
        }
    }
}

/// Runs the scenario on every kind of source, each with an empty table of its own, and says on
/// which ones it failed.
pub(crate) fn on_every_source(scenario: impl Fn(&Table)) {
    let on_mariadb: fn() -> Table = || Table::on(server(Flavor::MariaDb));
    let on_mysql: fn() -> Table = || Table::on(server(Flavor::MySql));
    let sources = [("MariaDB", on_mariadb), ("MySQL", on_mysql), ("SQLite", Table::embedded)];
    on_each(sources, |table| scenario(&table()));
}

/// Runs the scenario with every flavor of server, and says with which ones it failed.
pub(crate) fn on_every_flavor(scenario: impl Fn(Flavor)) {
    on_each([("MariaDB", Flavor::MariaDb), ("MySQL", Flavor::MySql)], scenario);
}

fn on_each<T, const N: usize>(places: [(&str, T); N], scenario: impl Fn(T)) {
    let failures: Vec<String> = places
        .into_iter()
        .filter_map(|(name, place)| {
            let panic = catch_unwind(AssertUnwindSafe(|| scenario(place))).err()?;
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Some(format!("on {name}: {}", text.unwrap_or("a panic without a message")))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

impl Table {
    /// An empty table with the index, in a new database of this server.
    pub(crate) fn on(server: &Server) -> Self {
        let database = server.database();
        database.create_table();
        database.create_index();
        Self::Server(database)
    }

    pub(crate) fn embedded() -> Self {
        Self::Embedded(Embedded::create())
    }

    /// In a folder that needs no disk.
    pub(crate) fn in_memory() -> Self {
        Self::Embedded(Embedded::in_memory())
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Server(database) => database.url(),
            Self::Embedded(embedded) => embedded.url(),
        }
    }

    /// One statement.
    pub(crate) fn execute(&self, sql: &str) {
        match self {
            Self::Server(database) => {
                let mut conn = database.connect();
                let run = |conn: &mut mysql::Conn, sql: &str| mysql::prelude::Queryable::query_drop(conn, sql);
                run(&mut conn, "SET sql_mode = CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT')")
                    .and_then(|()| run(&mut conn, sql))
                    .unwrap_or_else(|error| panic!("{error} in: {sql}"));
            }
            Self::Embedded(embedded) => embedded.execute(sql),
        }
    }

    /// The table is empty, and its ids start anew.
    pub(crate) fn empty_anew(&self) {
        match self {
            Self::Server(database) => database.execute("TRUNCATE TABLE t_invoice"),
            Self::Embedded(embedded) => embedded.create_anew(),
        }
    }

    pub(crate) fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        texts(self.query_bytes(sql))
    }

    pub(crate) fn query_bytes(&self, sql: &str) -> Vec<Cells> {
        match self {
            Self::Server(database) => database.query_bytes(sql),
            Self::Embedded(embedded) => embedded.query_bytes(sql),
        }
    }

    pub(crate) fn insert(&self, row: &Row<'_>) {
        let country = row.country.map_or("NULL".into(), quoted);
        let texts = [row.date, row.number].map(quoted).join(", ");
        let Row { id, status, .. } = row;
        let (tenant, document, time) = (quoted(row.tenant), quoted(row.document), quoted(row.time));
        self.execute(&format!(
            "INSERT INTO t_invoice VALUES ({id}, {tenant}, {country}, {texts}, {status}, {document}, {time})"
        ));
    }

    /// Sample rows beside whatever the table holds; `tenants` as in `1:0.6,10:0.3,89:0.1`. Their
    /// source times lie in November 2025.
    pub(crate) fn load_sample(&self, rows: u32, seed: u32, tenants: &str) {
        let sample = Sample::new(rows, seed, tenants);
        match self {
            Self::Server(database) => database.load(&sample),
            Self::Embedded(embedded) => embedded.load(&sample),
        }
    }

    /// The source's clock so long ago, as the source prints it.
    pub(crate) fn ago(&self, by: Duration) -> String {
        self.clock(&format!("-{}", by.as_secs()))
    }

    pub(crate) fn now(&self) -> String {
        self.ago(Duration::ZERO)
    }

    /// The source's clock in so long.
    pub(crate) fn ahead(&self, by: Duration) -> String {
        self.clock(&format!("+{}", by.as_secs()))
    }

    /// A server's clock in seconds since 1970.
    pub(crate) fn unix(&self) -> i64 {
        let now = self.query("SELECT UNIX_TIMESTAMP()").remove(0).remove(0);
        now.and_then(|now| now.parse().ok()).expect("a clock shows seconds")
    }

    fn clock(&self, seconds: &str) -> String {
        let sql = match self {
            Self::Server(_) => format!("SELECT NOW() + INTERVAL {seconds} SECOND"),
            Self::Embedded(_) => format!("SELECT datetime('now', '{seconds} seconds')"),
        };
        self.query(&sql).remove(0).remove(0).expect("a clock shows a time")
    }
}

/// A standard SQL string.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
