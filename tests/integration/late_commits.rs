//! Rows that become visible long after the time that they carry: whatever holds them back in the server,
//! and in whichever time zone it runs, the run after their commit exports them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::server::{Flavor, Server, Settings, server};
use crate::support::{Database, Exporter, Row, Table, on_every_flavor, wait_for};

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
    /// A `SELECT` of a function that writes.
    Function,
    /// A `SELECT` of a view that calls such a function.
    View,
    /// A trigger reads before it writes, and its `SELECT` shows instead of the `INSERT` that it belongs to.
    Trigger,
    /// A procedure that has ended a `SELECT` of its own and calls such a function now.
    Procedure,
    /// A statement of the event scheduler.
    Event,
    /// An event that calls such a function between two statements of its own.
    EventsFunction,
    /// An `INSERT … SELECT` with a text in another character set than that of its session.
    Garbled,
}

/// What a transaction and a statement of a client do.
const PLAIN: [Work; 4] = [Work::Transaction, Work::LockedOut, Work::Slow, Work::Prepared];

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
fn waiting(database: &Database, statement: String, holder: Conn, release: &'static str) -> End {
    waiting_in(database, "SET NAMES utf8mb4", statement, holder, release)
}

/// The same, in a session that is set up so.
fn waiting_in(database: &Database, setting: &str, statement: String, mut holder: Conn, release: &'static str) -> End {
    let mut session = database.connect();
    execute(&mut session, &[setting]);
    let id = session.connection_id();
    let waiting = thread::spawn(move || session.query_drop(statement).expect("what waited is done"));
    let shows = format!(
        "SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {id} AND COMMAND = 'Query' AND STATE LIKE '%lock%'"
    );
    let mut looking = database.connect();
    // MySQL refuses to list a text that it cannot convert, which shows that it runs.
    wait_for("a statement that waits", || !matches!(looking.query_first::<u8, _>(&shows), Ok(None)));
    Box::new(move || {
        execute(&mut holder, &[release]);
        waiting.join().expect("it did not panic");
    })
}

/// Holds a gate that `SELECT GET_LOCK('gate', 60)` waits for.
fn gated(database: &Database) -> Conn {
    let mut holder = database.connect();
    execute(&mut holder, &["DO GET_LOCK('gate', 10)"]);
    holder
}

const OPEN_GATE: &str = "DO RELEASE_LOCK('gate')";

/// What the session executes while another one holds the gate, after it has made these.
fn behind_the_gate(database: &Database, makes: &[&str], statement: &str) -> End {
    execute(&mut database.connect(), makes);
    waiting(database, statement.to_owned(), gated(database), OPEN_GATE)
}

/// An event that is about to start, once it waits for the gate.
fn event(database: &Database, makes: &[&str], body: &str) -> End {
    let mut holder = gated(database);
    execute(&mut holder, makes);
    execute(&mut holder, &[&format!("CREATE EVENT held ON SCHEDULE AT NOW() DO {body}")]);
    let waits = "SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = 'User lock'";
    wait_for("the gate", || !database.query(waits).is_empty());
    let name = database.url().rsplit_once('/').expect("a database").1.to_owned();
    Box::new(move || {
        execute(&mut holder, &[OPEN_GATE]);
        // It is dropped when it has ended.
        let runs = format!("SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = '{name}' AND COMMAND = 'Connect'");
        wait_for("the end of the event", || holder.query_first::<u8, _>(&runs).expect("look for the event").is_none());
    })
}

fn function() -> String {
    format!(
        "CREATE FUNCTION held() RETURNS INT BEGIN DECLARE x INT; SET x = GET_LOCK('gate', 60); {HELD}; RETURN x; END"
    )
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
        Work::Slow => behind_the_gate(database, &[], &format!("{HELD} WHERE GET_LOCK('gate', 60) = 1")),
        Work::Function => behind_the_gate(database, &[&function()], "SELECT held()"),
        Work::View => {
            behind_the_gate(database, &[&function(), "CREATE VIEW v AS SELECT held() AS x"], "SELECT * FROM v")
        }
        Work::Trigger => {
            let trigger = format!(
                "CREATE TRIGGER held BEFORE INSERT ON log FOR EACH ROW \
                 BEGIN DECLARE x INT; SELECT GET_LOCK('gate', 60) INTO x; {HELD}; END"
            );
            behind_the_gate(database, &["CREATE TABLE log (x INT)", &trigger], "INSERT INTO log VALUES (1)")
        }
        Work::Procedure => {
            let procedure = "CREATE PROCEDURE p() BEGIN DECLARE x INT; SELECT 1; SET x = held(); END";
            behind_the_gate(database, &[&function(), procedure], "CALL p()")
        }
        Work::Event => event(database, &[], &format!("{HELD} WHERE GET_LOCK('gate', 60) = 1")),
        Work::EventsFunction => event(database, &[&function()], "BEGIN DECLARE x INT; SET x = held(); END"),
        Work::Garbled => {
            let text = format!("{HELD} WHERE GET_LOCK('gate', 60) = 1 /* 中国 */");
            waiting_in(database, "SET NAMES gbk", text, gated(database), OPEN_GATE)
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
    wait_for(moment, || table.now().as_str() > moment);
}

/// A monitor that reads the list of transactions so often that the server keeps showing it as it was at first.
#[test]
fn a_transaction_that_a_monitor_keeps_out_of_the_list_is_exported_after_its_commit() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let table = Table::on(&own);
        let until = prepared(&table);
        let exporter = Exporter::new(&table);
        let mut monitor = database(&table).connect();
        let over = AtomicBool::new(false);
        let reads = AtomicU32::new(0);
        let watched = thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    monitor.query_drop("SELECT * FROM information_schema.INNODB_TRX").expect("it may look");
                    reads.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(5));
                }
            });
            wait_for("thirty looks", || reads.load(Ordering::Relaxed) >= 30);
            let told = incremental(&exporter, &BARE);
            assert!(!told.contains("open"), "nothing is open: {told}");
            let end = begin(Work::Transaction, database(&table));
            wait_until(&table, &until);
            let told = incremental(&exporter, &BARE);
            over.store(true, Ordering::Relaxed);
            end();
            told
        });
        assert!(
            // On a busy machine the monitor may leave a gap.
            watched.contains("compares all keys") || watched.contains("work has been open"),
            "{watched}"
        );
        let told = incremental(&exporter, &BARE);
        assert!(!told.contains("compares all keys"), "{told}");
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

/// How long a server may take to start before summer time begins, and how long that lasts.
const WINTER: TimeDelta = TimeDelta::seconds(15);
const SUMMER: TimeDelta = TimeDelta::seconds(6);

/// A zone that is put back by so many minutes at this moment. Its summer time is UTC. A server that was started in
/// winter reads what came twice as what came later.
fn zone_that_is_put_back(minutes: i64, at: DateTime<Utc>) -> &'static str {
    let rule = |at: DateTime<Utc>| format!("{}/{}", at.ordinal0(), at.format("%H:%M:%S"));
    // The start is given by the clock of winter, the end by that of summer.
    let (start, end) = (rule(at - SUMMER - TimeDelta::minutes(minutes)), rule(at));
    let (hours, minutes) = (minutes / 60, minutes % 60);
    Box::leak(format!("WIN{hours}:{minutes:02}SUM0,{start},{end}").into_boxed_str())
}

fn assert_exported_after_the_clock_was_put_back(flavor: Flavor, minutes: i64) {
    let now = DateTime::from_timestamp(Table::on(server(flavor)).unix(), 0).expect("a moment");
    let put_back = now + WINTER + SUMMER;
    let os_zone = zone_that_is_put_back(minutes, put_back);
    let own = Server::fresh_with(flavor, Settings { os_zone, options: &[] });
    let table = Table::on(&own);
    table.insert(&Row { time: "2025-11-28 15:00:00", ..Row::default() });
    let exporter = Exporter::new(&table);
    let shown = |moment: DateTime<Utc>| moment.format("%F %T").to_string();
    wait_until(&table, &shown(put_back - SUMMER));
    let end = begin(Work::Transaction, database(&table));
    table.insert(&Row { id: 3, number: "BESIDE", time: &table.now(), ..Row::default() });
    wait_until(&table, &table.ahead(Duration::from_secs(2)).max(shown(put_back)));
    let told = incremental(&exporter, &BARE);
    assert!(told.contains("work has been open in the server since"), "{flavor:?} {minutes}: {told}");
    end();
    incremental(&exporter, &BARE);
    exporter.assert_agrees();
}

#[test]
fn a_transaction_of_the_first_pass_of_an_hour_that_comes_twice_is_exported() {
    on_every_flavor(|flavor| {
        thread::scope(|scope| {
            let sizes: &[i64] = if flavor == Flavor::MariaDb { &[60, 120, 30] } else { &[60] };
            for &minutes in sizes {
                scope.spawn(move || assert_exported_after_the_clock_was_put_back(flavor, minutes));
            }
        });
    });
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
        _ => "work has been open in the server since",
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

fn assert_exported_after_every_commit(works: &[Work], settings: Settings) {
    on_every_flavor(|flavor| {
        let own = Server::fresh_with(flavor, settings);
        for &work in works {
            assert_exported_after_the_commit(&own, work);
        }
    });
}

#[test]
fn open_work_is_exported_by_the_next_run_where_the_server_is_ahead_of_its_sessions() {
    let options = &["--default-time-zone=+05:00", "--event-scheduler=ON"];
    assert_exported_after_every_commit(&PLAIN, Settings { os_zone: "Asia/Tokyo", options });
}

#[test]
fn open_work_is_exported_by_the_next_run_where_the_server_is_behind_its_sessions() {
    let options = &["--default-time-zone=+09:30", "--event-scheduler=ON"];
    assert_exported_after_every_commit(&PLAIN, Settings { os_zone: "Europe/Berlin", options });
}

#[test]
fn a_select_that_writes_through_a_function_is_exported_after_its_commit() {
    assert_exported_after_every_commit(&[Work::Function, Work::View], Settings::default());
}

#[test]
fn writes_behind_the_select_of_a_trigger_or_procedure_are_exported_once_committed() {
    assert_exported_after_every_commit(&[Work::Trigger, Work::Procedure], Settings::default());
}

#[test]
fn what_an_event_writes_is_exported_after_its_commit() {
    let options = &["--event-scheduler=ON"];
    let settings = Settings { options, ..Settings::default() };
    assert_exported_after_every_commit(&[Work::Event, Work::EventsFunction], settings);
}

#[test]
fn a_statement_whose_text_the_server_cannot_list_is_exported_after_its_commit() {
    assert_exported_after_every_commit(&[Work::Garbled], Settings::default());
}

#[test]
fn a_prepared_transaction_that_outlives_a_restart_is_exported_once_committed() {
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
fn without_the_privilege_a_run_says_so_and_only_the_overlap_covers_late_commits() {
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
fn an_invisible_transaction_longer_than_lag_and_overlap_is_found_by_verify() {
    on_every_flavor(|flavor: Flavor| {
        let table = Table::on(server(flavor));
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", small(&table));
        let until = prepared(&table);
        let end = begin(Work::Transaction, database(&table));
        wait_until(&table, &until);
        incremental(&exporter, &BARE);
        end();
        incremental(&exporter, &BARE);
        assert_eq!(exporter.tree().len(), 2, "normal runs do not see it, as docs/guarantees.md says");
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
