//! What a source calls open work: every statement and transaction that may write, and no reader.

use std::thread;
use std::time::Duration;

use invoice_export::invoice::SourceTime;
use invoice_export::source::{self, Access, Source};
use invoice_export::window::OpenWork;
use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::reader::{FOREVER, access, open, table_with};
use crate::support::{Database, Flavor, Server, Settings, on_every_flavor, wait_for};

/// A server of our own, since others' statements are work as well, with the table and a view of it.
fn database(own: &Server) -> Database {
    let database = own.database();
    database.create_table();
    database.create_index();
    database.execute("INSERT INTO t_invoice VALUES (1, '1', 'CN', '2025-11-28', 'INV1', 3, '{}', NOW())");
    database.execute("CREATE VIEW v AS SELECT * FROM t_invoice");
    database.execute("CREATE TABLE other (a INT) ENGINE = InnoDB");
    database.execute("INSERT INTO other VALUES (1)");
    database
}

/// What a source finds while another session executes this, which waits for a lock named `gate`.
fn work_during(database: &Database, source: &mut dyn Source, setting: &str, statement: &str) -> OpenWork {
    let mut holder = database.connect();
    holder.query_drop("DO GET_LOCK('gate', 10)").unwrap();
    let mut session = database.connect();
    session.query_drop(setting).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || session.query_drop(statement));
        wait_for_gate(&mut holder);
        let found = source.open_work().unwrap();
        holder.query_drop("DO RELEASE_LOCK('gate')").unwrap();
        waiting.join().unwrap().unwrap();
        found
    })
}

fn wait_for_gate(conn: &mut Conn) {
    let waits = "SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = 'User lock'";
    wait_for("the gate", || conn.query_first::<u8, _>(waits).unwrap().is_some());
}

fn wait_for_sleep(conn: &mut Conn, id: u32) {
    let sleeps = format!("SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {id} AND COMMAND = 'Sleep'");
    wait_for("the end of a statement", || conn.query_first::<u8, _>(&sleeps).unwrap().is_some());
}

const NOTHING: &str = "DO 0";

#[test]
fn a_select_is_a_reader_where_it_reads_tables_with_the_servers_functions() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let database = database(&own);
        // It may read one table. Which of the other names are tables, it sees without a right to them.
        for sql in
            ["CREATE USER small@'%'", "GRANT SELECT ON t_invoice TO small@'%'", "GRANT PROCESS ON *.* TO small@'%'"]
        {
            database.execute(sql);
        }
        let mut source = open(&database.url().replace("root@", "small@"));
        let name = database.url().rsplit_once('/').unwrap().1.to_owned();
        for reader in [
            "SELECT GET_LOCK('gate', 60)".to_owned(),
            // As `mysqldump` reads a table.
            "SELECT /*!40001 SQL_NO_CACHE */ *, GET_LOCK('gate', 60) FROM `other`".to_owned(),
            format!(
                "/* report */ (SELECT COUNT(*), MAX(GET_LOCK('gate', 60)) FROM {name}.other o, t_invoice WHERE a = 1)"
            ),
        ] {
            let found = work_during(&database, source.as_mut(), NOTHING, &reader);
            assert_eq!(found, OpenWork::None, "{reader}");
        }
        for other in ["SELECT GET_LOCK('gate', 60) FROM v", "SELECT GET_LOCK('gate', 60) FROM other, v"] {
            let found = work_during(&database, source.as_mut(), NOTHING, other);
            assert!(matches!(found, OpenWork::Since(_)), "{other}: {found:?}");
        }
    });
}

/// The server keeps its list of transactions for a tenth of a second after each look at it.
#[test]
fn each_of_many_looks_in_a_row_sees_what_has_just_begun_and_ended() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let database = database(&own);
        let mut source = open(&database.url());
        let (mut writer, mut monitor) = (database.connect(), database.connect());
        let see = |monitor: &mut Conn| monitor.query_drop("SELECT * FROM information_schema.INNODB_TRX").unwrap();
        for _ in 0..5 {
            see(&mut monitor);
            writer.query_drop("BEGIN").unwrap();
            writer.query_drop("UPDATE t_invoice SET fext_field = '[]'").unwrap();
            let found = source.open_work().unwrap();
            assert!(matches!(found, OpenWork::Since(_)), "{found:?}");
            see(&mut monitor);
            writer.query_drop("ROLLBACK").unwrap();
            // A server lists a statement for a moment after its client has the answer.
            wait_for_sleep(&mut monitor, writer.connection_id());
            assert_eq!(source.open_work().unwrap(), OpenWork::None);
        }
    });
}

/// MySQL counts the age of a statement from the time that its session has set, which here has not come yet.
#[test]
fn a_statement_whose_age_is_below_zero_may_be_of_any_age() {
    let own = Server::fresh(Flavor::MySql);
    let database = database(&own);
    let mut source = open(&database.url());
    let ahead = "SET timestamp = UNIX_TIMESTAMP() + 3600";
    let update = "UPDATE t_invoice SET fupdate_time = '2025-11-28 15:00:00' WHERE GET_LOCK('gate', 60) = 1";
    assert_eq!(work_during(&database, source.as_mut(), ahead, update), OpenWork::Unreliable);
}

const ZONES_APART: Settings = Settings { os_zone: "Asia/Tokyo", options: &["--default-time-zone=+05:00"] };

/// A server whose operating system, default and session zones all differ, with one invoice.
fn server_for_open_work(flavor: Flavor) -> (Server, Database) {
    let own = Server::fresh_with(flavor, ZONES_APART);
    let database = table_with(&own, "INT", "TIMESTAMP NOT NULL", &[("1", "NOW()")]);
    (own, database)
}

/// The database's clock in the zone of the source's session.
fn utc_now(conn: &mut Conn) -> SourceTime {
    let now: String = conn.query_first("SELECT CAST(UTC_TIMESTAMP() AS CHAR)").unwrap().unwrap();
    SourceTime(now)
}

/// Waits until another connection's statement shows in the server.
fn wait_for_statement(database: &Database, like: &str) {
    let sql = format!(
        "SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE '{like}' AND `TIME` >= 1 AND ID <> CONNECTION_ID()"
    );
    wait_for(like, || !database.query(&sql).is_empty());
}

#[test]
fn idle_connections_and_readers_are_no_open_work() {
    on_every_flavor(|flavor| {
        let (_own, database) = server_for_open_work(flavor);
        let mut source = open(&database.url());
        let mut second = open(&database.url());
        second.tenants(&FOREVER.into()).unwrap();
        assert_eq!(source.open_work().unwrap(), OpenWork::None);
        let mut reader = database.connect();
        reader.query_drop("START TRANSACTION READ ONLY").unwrap();
        reader.query_drop("SELECT * FROM t_invoice").unwrap();
        let url = database.url();
        let report =
            thread::spawn(move || Conn::new(url.as_str()).unwrap().query_drop("/* report */ (SELECT SLEEP(2))"));
        wait_for_statement(&database, "/* report */%");
        assert_eq!(source.open_work().unwrap(), OpenWork::None);
        report.join().unwrap().unwrap();
    });
}

#[test]
fn a_source_that_is_reading_is_no_open_work() {
    on_every_flavor(|flavor| {
        let (_own, database) = server_for_open_work(flavor);
        let mut writer = database.connect();
        for id in 2..200 {
            writer
                .exec_drop(
                    "INSERT INTO t_invoice VALUES (?, '1', 'CN', '2025-11-28', 'INV', 3, ?, NOW())",
                    (id, "x".repeat(100_000)),
                )
                .unwrap();
        }
        let mut source = open(&database.url());
        let mut second = open(&database.url());
        let mut seen = Vec::new();
        second
            .page(None, 500, &mut |_| {
                if seen.is_empty() {
                    seen.push(source.open_work().unwrap());
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [OpenWork::None]);
    });
}

#[test]
fn an_open_transaction_is_open_work_since_its_start() {
    on_every_flavor(|flavor| {
        let (_own, database) = server_for_open_work(flavor);
        let mut source = open(&database.url());
        let mut writer = database.connect();
        let before = utc_now(&mut writer);
        writer.query_drop("BEGIN").unwrap();
        writer.query_drop("UPDATE t_invoice SET fext_field = '[]'").unwrap();
        let after = utc_now(&mut writer);
        // InnoDB takes the time from time(), which may show the last second for some milliseconds longer than NOW().
        let least = invoice_export::window::earlier(&before, Duration::from_secs(1)).unwrap();
        for _ in 0..2 {
            match source.open_work().unwrap() {
                OpenWork::Since(start) => assert!(least <= start && start <= after, "{before} {start} {after}"),
                other => panic!("{other:?}"),
            }
        }
        // Looking into the server's zone has left the session's as it was.
        assert!(source.clock().unwrap().now >= after);
        writer.query_drop("COMMIT").unwrap();
        // A server lists a transaction for a moment after its client has the answer.
        wait_for("the end of the transaction", || source.open_work().unwrap() == OpenWork::None);
    });
}

#[test]
fn a_statement_that_waits_for_a_table_is_open_work_since_its_start() {
    on_every_flavor(|flavor| {
        let (_own, database) = server_for_open_work(flavor);
        let mut source = open(&database.url());
        let mut holder = database.connect();
        holder.query_drop("LOCK TABLES t_invoice WRITE").unwrap();
        let before = utc_now(&mut holder);
        let url = database.url();
        let waiting = thread::spawn(move || {
            Conn::new(url.as_str()).unwrap().query_drop("UPDATE t_invoice SET fext_field = '[]'")
        });
        wait_for_statement(&database, "UPDATE t_invoice%");
        match source.open_work().unwrap() {
            OpenWork::Since(start) => {
                let margin = invoice_export::window::earlier(&before, Duration::from_secs(2)).unwrap();
                assert!(margin <= start && start < source.clock().unwrap().now, "{before} {start}");
            }
            other => panic!("{other:?}"),
        }
        holder.query_drop("UNLOCK TABLES").unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn open_work_is_known_without_the_performance_schema() {
    let settings = Settings { options: &["--performance-schema=OFF"], ..Settings::default() };
    let own = Server::fresh_with(Flavor::MySql, settings);
    let database = table_with(&own, "INT", "DATETIME", &[]);
    let mut source = open(&database.url());
    assert_eq!(source.open_work().unwrap(), OpenWork::None);
    let mut holder = database.connect();
    holder.query_drop("LOCK TABLES t_invoice WRITE").unwrap();
    let url = database.url();
    let waiting = thread::spawn(move || Conn::new(url.as_str()).unwrap().query_drop("DELETE FROM t_invoice"));
    wait_for_statement(&database, "DELETE%");
    assert!(matches!(source.open_work().unwrap(), OpenWork::Since(_)));
    holder.query_drop("UNLOCK TABLES").unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn open_work_takes_the_process_privilege_and_no_other() {
    on_every_flavor(|flavor| {
        let (_own, database) = server_for_open_work(flavor);
        let mut writer = database.connect();
        writer.query_drop("CREATE USER small@'%' IDENTIFIED BY 'klein'").unwrap();
        writer.query_drop("GRANT SELECT ON t_invoice TO small@'%'").unwrap();
        let small = access(&database.url().replace("root@", "small@"));
        let small = Access { password: Some("klein".into()), ..small };
        let mut source = source::open(&small).unwrap();
        assert_eq!(source.open_work().unwrap(), OpenWork::NotPermitted);
        source.tenants(&FOREVER.into()).unwrap();
        writer.query_drop("GRANT PROCESS ON *.* TO small@'%'").unwrap();
        let mut source = source::open(&small).unwrap();
        assert_eq!(source.open_work().unwrap(), OpenWork::None);
        writer.query_drop("BEGIN").unwrap();
        writer.query_drop("UPDATE t_invoice SET fext_field = '[]'").unwrap();
        assert!(matches!(source.open_work().unwrap(), OpenWork::Since(_)));
        assert_eq!((source.estimate().unwrap(), source.tenants(&FOREVER.into()).unwrap().tenants.len()), (Some(1), 1));
    });
}
