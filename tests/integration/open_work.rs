//! What a source calls open work: every statement and transaction that may write, and no reader.

use std::thread;
use std::time::Duration;

use invoice_export::source::{self, Access, Source, TableNames, Tls};
use invoice_export::window::OpenWork;
use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::server::{Flavor, Server};
use crate::support::{Database, on_every_flavor};

fn open(url: &str) -> Box<dyn Source> {
    let access = Access {
        url: url.parse().unwrap(),
        password: None,
        names: TableNames::default(),
        time_zone: None,
        tls: Tls::default(),
        read_timeout: Duration::from_secs(60),
        max_document: 256 << 20,
    };
    source::open(&access).unwrap()
}

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
    while conn.query_first::<u8, _>(waits).unwrap().is_none() {
        thread::yield_now();
    }
}

fn wait_for_sleep(conn: &mut Conn, id: u32) {
    let sleeps = format!("SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {id} AND COMMAND = 'Sleep'");
    while conn.query_first::<u8, _>(&sleeps).unwrap().is_none() {
        thread::yield_now();
    }
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
    assert_eq!(work_during(&database, source.as_mut(), ahead, update), OpenWork::Unclear);
}
