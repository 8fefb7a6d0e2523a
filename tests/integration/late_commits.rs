//! Rows that become visible long after the time that they carry: whatever holds them back in the server,
//! and in whichever time zone it runs, the run after their commit exports them.

use std::thread;
use std::time::Duration;

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::server::{Flavor, Server, Settings, server};
use crate::support::{Database, Exporter, Row, Table, on_every_flavor};

/// So little that nothing is covered by margins.
const BARE: [&str; 4] = ["--safety-lag", "1s", "--overlap", "0s"];
const HALF_AN_HOUR: Duration = Duration::from_secs(1800);
const HELD: &str = "INSERT INTO t_invoice SELECT 2, '1', 'CN', '2025-11-28', 'HELD', 3, '{}', NOW() FROM DUAL";

/// What keeps a row from being seen.
#[derive(Clone, Copy, Debug)]
enum Work {
    Transaction,
    /// An update waits for a lock on the table, and is no transaction yet.
    LockedOut,
    /// An `INSERT … SELECT` that takes long before it comes to its first row.
    Slow,
    /// Prepared by a client that has gone since.
    Prepared,
}

/// Ends the work so that its row is committed.
type End = Box<dyn FnOnce()>;

fn database(table: &Table) -> &Database {
    match table {
        Table::Server(database) => database,
        Table::Embedded(_) => unreachable!("it lies on a server"),
    }
}

fn execute(conn: &mut Conn, statements: &[&str]) {
    for sql in statements {
        conn.query_drop(sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
    }
}

/// A statement that waits for another session, once it is seen to wait.
fn waiting(database: &Database, statement: String, mut holder: Conn, release: &'static str) -> End {
    let mut session = database.connect();
    let id = session.connection_id();
    let waiting = thread::spawn(move || session.query_drop(statement).expect("what waited is done"));
    let shows = format!("SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {id} AND INFO IS NOT NULL");
    while database.query(&shows).is_empty() {
        thread::yield_now();
    }
    Box::new(move || {
        execute(&mut holder, &[release]);
        waiting.join().expect("it did not panic");
    })
}

fn begin(work: Work, database: &Database) -> End {
    let mut session = database.connect();
    match work {
        Work::Transaction => {
            execute(&mut session, &["BEGIN", HELD]);
            Box::new(move || execute(&mut session, &["COMMIT"]))
        }
        Work::LockedOut => {
            execute(&mut session, &["LOCK TABLES t_invoice READ"]);
            let update = "UPDATE t_invoice SET fext_field = '[]', fupdate_time = NOW() WHERE fid = 1";
            waiting(database, update.to_owned(), session, "UNLOCK TABLES")
        }
        Work::Slow => {
            execute(&mut session, &["DO GET_LOCK('gate', 10)"]);
            waiting(database, format!("{HELD} WHERE GET_LOCK('gate', 60) = 1"), session, "DO RELEASE_LOCK('gate')")
        }
        Work::Prepared => {
            execute(&mut session, &["XA START 'held'", HELD, "XA END 'held'", "XA PREPARE 'held'"]);
            drop(session);
            let mut another = database.connect();
            Box::new(move || execute(&mut another, &["XA COMMIT 'held'"]))
        }
    }
}

/// Waits until the server's clock has passed a moment.
fn wait_until(table: &Table, moment: &str) {
    while table.now().as_str() <= moment {
        thread::sleep(Duration::from_millis(50));
    }
}

fn incremental(exporter: &Exporter<'_>, margins: &[&str]) -> String {
    exporter.run(["run", "--mode", "incremental"].iter().chain(margins)).expect(0).stderr
}

/// One row in the tree, and another one whose time lies behind that of the work that is about to begin.
fn prepared(table: &Table) -> String {
    table.insert(&Row { time: "2025-11-28 15:00:00", ..Row::default() });
    let beside = table.ahead(Duration::from_secs(3));
    table.insert(&Row { id: 3, number: "BESIDE", time: &beside, ..Row::default() });
    // The second of the boundary must be over too.
    let until = table.ahead(Duration::from_secs(4));
    assert!(until > beside);
    until
}

fn assert_exported_after_the_commit(own: &Server, work: Work) {
    let table = Table::on(own);
    let until = prepared(&table);
    let exporter = Exporter::new(&table);
    let end = begin(work, database(&table));
    wait_until(&table, &until);
    let told = incremental(&exporter, &BARE);
    let words = match work {
        Work::Prepared => "XA RECOVER",
        Work::Transaction | Work::LockedOut | Work::Slow => "work has been open in the server since",
    };
    assert!(told.contains(words), "{work:?}: {told}");
    assert_eq!(exporter.tree().len(), 2, "{work:?}");
    end();
    incremental(&exporter, &BARE);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
    // And no longer than the work is open.
    while incremental(&exporter, &BARE).contains(words) {
        thread::sleep(Duration::from_millis(150));
    }
}

fn assert_exported_after_every_commit(settings: Settings) {
    on_every_flavor(|flavor| {
        let own = Server::fresh_with(flavor, settings);
        for work in [Work::Transaction, Work::LockedOut, Work::Slow, Work::Prepared] {
            assert_exported_after_the_commit(&own, work);
        }
    });
}

#[test]
fn what_was_open_during_a_run_is_exported_by_the_next_one_also_where_the_server_is_ahead_of_its_sessions() {
    let options = &["--default-time-zone=+05:00", "--event-scheduler=ON"];
    assert_exported_after_every_commit(Settings { os_zone: "Asia/Tokyo", options });
}

#[test]
fn what_was_open_during_a_run_is_exported_by_the_next_one_also_where_the_server_is_behind_its_sessions() {
    assert_exported_after_every_commit(Settings {
        os_zone: "Europe/Berlin",
        options: &["--default-time-zone=+09:30", "--event-scheduler=ON"],
    });
}

#[test]
fn a_prepared_transaction_that_outlives_a_restart_is_still_exported_after_its_commit() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let table = Table::on(&own);
        table.insert(&Row { time: &table.ago(HALF_AN_HOUR), ..Row::default() });
        let exporter = Exporter::new(&table);
        let mut session = database(&table).connect();
        // As if an hour had passed between this and the restart, from which the server dates it then.
        execute(&mut session, &["SET timestamp = UNIX_TIMESTAMP() - 3600", "XA START 'held'", HELD]);
        execute(&mut session, &["XA END 'held'", "XA PREPARE 'held'"]);
        drop(session);
        own.restart();
        assert!(incremental(&exporter, &BARE).contains("XA RECOVER"));
        assert_eq!(exporter.tree().len(), 1);
        execute(&mut database(&table).connect(), &["XA COMMIT 'held'"]);
        incremental(&exporter, &BARE);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

/// An account that may not see what others do.
fn small(table: &Table) -> String {
    let database = database(table);
    let url = database.url();
    let name = url.rsplit_once('/').expect("a database").1;
    database.execute(&format!("CREATE USER small_{name}@'%'"));
    database.execute(&format!("GRANT SELECT ON {name}.* TO small_{name}@'%'"));
    url.replace("root@", &format!("small_{name}@"))
}

#[test]
fn without_the_privilege_the_run_says_so_once_and_the_overlap_alone_covers_late_commits() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", small(&table));
        let until = prepared(&table);
        let end = begin(Work::Transaction, database(&table));
        wait_until(&table, &until);
        let margins = ["--safety-lag", "1s", "--overlap", "1m"];
        let told = incremental(&exporter, &margins);
        assert_eq!(told.matches("PROCESS privilege").count(), 1, "{told}");
        assert_eq!(exporter.tree().len(), 2);
        end();
        incremental(&exporter, &margins);
        exporter.assert_agrees();
    });
}

#[test]
fn a_transaction_longer_than_lag_and_overlap_that_nobody_may_see_is_found_by_verify() {
    on_every_flavor(|flavor: Flavor| {
        let table = Table::on(server(flavor));
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", small(&table));
        let until = prepared(&table);
        let end = begin(Work::Transaction, database(&table));
        wait_until(&table, &until);
        incremental(&exporter, &BARE);
        end();
        incremental(&exporter, &BARE);
        assert_eq!(exporter.tree().len(), 2, "normal runs do not see it, as the README says");
        let verify = |args: &[&str], code| {
            let fixed = ["verify", "--against-source", "--format", "json"];
            exporter.run(fixed.iter().chain(args)).expect(code).json()
        };
        let found = verify(&[], 6);
        assert_eq!(found["findings"][0]["difference"], "lost", "{found}");
        verify(&["--repair"], 0);
        exporter.assert_agrees();
        verify(&[], 0);
    });
}
