//! A server that is not there yet, goes away, or takes nobody in for a moment: it costs a pause, and
//! what would not change by waiting costs none.

use std::fs::{self, File};
use std::path::Path;

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::exporter::Exporter;
use crate::support::server::{Flavor, Server, Settings, server};
use crate::support::table::{Row, Table, on_every_flavor};
use crate::support::{Database, Proxy, wait_for};

const TENANTS: &str = "1:0.6,10:0.3,89:0.1";
/// When the first files are published, a run has decided 5,000 rows at most and read 5,000 more.
const MORE_THAN_IS_READ_AHEAD: u32 = 14_000;

fn wait_for_files(output: &Path) {
    let published = || {
        fs::read_dir(output).is_ok_and(|mut entries| entries.any(|entry| entry.unwrap().file_name() != ".export_state"))
    };
    wait_for("a published file", published);
}

fn database(table: &Table) -> &Database {
    match table {
        Table::Server(database) => database,
        Table::Embedded(_) => unreachable!("it lies on a server"),
    }
}

#[track_caller]
fn assert_retried(summary: &serde_json::Value) {
    assert!(summary["retries"].as_u64().unwrap() > 0, "{summary}");
}

#[test]
fn a_server_that_is_restarted_in_the_middle_of_a_run_costs_a_pause_and_no_invoice() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let table = Table::on(&own);
        table.load_sample(MORE_THAN_IS_READ_AHEAD, 1, TENANTS);
        let exporter = Exporter::new(&table);
        let run = exporter.spawn(["run", "--format", "json"]);
        wait_for_files(&exporter.output());
        own.kill();
        own.restart();
        let summary = run.wait().expect(0).json();
        assert_retried(&summary);
        assert_eq!(summary["written"], summary["seen"], "{summary}");
        exporter.assert_agrees();
    });
}

#[test]
fn a_server_that_stays_away_fails_the_run_and_what_was_recorded_stands() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let table = Table::on(&own);
        table.load_sample(MORE_THAN_IS_READ_AHEAD, 1, TENANTS);
        let exporter = Exporter::new(&table);
        let run = exporter.spawn(["run", "--retry-for", "1s"]);
        wait_for_files(&exporter.output());
        own.kill();
        let finished = run.wait().expect(1);
        assert!(finished.stderr.contains("trying again"), "{}", finished.stderr);
        assert_ne!(exporter.ask_one("SELECT retries FROM run"), "0");
        own.restart();
        let before = exporter.stamps();
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
        let after = exporter.stamps();
        assert!(before.iter().all(|(path, stamp)| after.get(path) == Some(stamp)), "a recorded file was written again");
    });
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for_without_holding_the_lock() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let table = Table::on(&own);
        table.insert(&Row::default());
        let database = database(&table);
        for url in [database.url(), database.socket_url()] {
            let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", &url);
            own.kill();
            // A server that is told to stop takes it away; one that is killed leaves it behind.
            let _ = fs::remove_file(own.dir().join("socket"));
            let runs = [&["run", "--dry-run"][..], &["run"], &["run", "--mode", "incremental"]].map(|arguments| {
                let mut run = exporter.spawn(arguments.iter().chain(&["--lock-wait", "10m"]));
                run.listen_for("; trying again in 0.");
                run
            });
            assert!(!exporter.output().exists(), "it made something while it waited for the server");
            own.restart();
            for run in runs {
                run.wait().expect(0);
            }
            exporter.assert_agrees();
            let recorded = exporter.ask("SELECT kind, retries FROM run ORDER BY kind");
            let waited = |kind: &str, line: &str| {
                line.strip_prefix(kind).is_some_and(|retries| retries.trim().parse::<u64>().unwrap() > 0)
            };
            assert!(
                matches!(&recorded[..], [full, incremental] if waited("full", full) && waited("incremental", incremental)),
                "{recorded:?}"
            );
        }
    });
}

#[test]
fn a_server_that_is_restarted_while_a_run_waits_for_the_lock_costs_a_pause() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let table = Table::on(&own);
        table.insert(&Row::default());
        let exporter = Exporter::new(&table);
        exporter.run(["run"]).expect(0);
        let lock = File::open(exporter.output().join(".export_state/lock")).unwrap();
        lock.lock().unwrap();
        let mut run = exporter.spawn(["run", "--mode", "incremental", "--format", "json"]);
        run.listen_for("waiting for another run");
        own.kill();
        own.restart();
        drop(lock);
        assert_retried(&run.wait().expect(0).json());
        exporter.assert_agrees();
    });
}

/// A user of this server who has this many connections at most, and the URL by which that user comes.
fn limited(table: &Table, connections: u32) -> (String, String) {
    let database = database(table);
    let url = database.url();
    let name = format!("limited_{}", url.rsplit_once('/').unwrap().1);
    database.execute(&format!("CREATE USER {name} WITH MAX_USER_CONNECTIONS {connections}"));
    database.execute(&format!("GRANT SELECT ON *.* TO {name}"));
    let url = url.replace("root@", &format!("{name}@"));
    (name, url)
}

fn connect(url: &str) -> mysql::Result<Conn> {
    Conn::new(mysql::Opts::from_url(&format!("{url}?prefer_socket=false")).unwrap())
}

#[test]
fn a_server_without_a_free_connection_is_tried_again_until_it_has_one() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.insert(&Row::default());
        let (name, url) = limited(&table, 1);
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", &url);
        let taken = connect(&url).unwrap();
        let mut run = exporter.spawn(["run", "--format", "json"]);
        run.listen_for("; trying again in ");
        drop(taken);
        assert_retried(&run.wait().expect(0).json());
        exporter.assert_agrees();
        table.execute(&format!("DROP USER {name}"));

        let own = Server::fresh_with(flavor, Settings { options: &["--max-connections=10"], ..Settings::default() });
        let table = Table::on(&own);
        let (_, url) = limited(&table, 0);
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", &url);
        // The harness may hold one too.
        let mut taken: Vec<Conn> = (0..10).map_while(|_| connect(&url).ok()).collect();
        let mut run = exporter.spawn(["run", "--lang", "zh"]);
        run.listen_for("秒后重试");
        taken.clear();
        run.wait().expect(0);
    });
}

#[test]
fn a_second_connection_that_is_not_to_be_had_at_once_costs_a_pause() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let (name, url) = limited(&table, 3);
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", &url);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        // They want one path, so both are read again, on a connection of their own.
        table.insert(&Row { id: 1, document: "[1]", ..Row::default() });
        table.insert(&Row { id: 2, document: "[2]", ..Row::default() });
        let lock = File::open(exporter.output().join(".export_state/lock")).unwrap();
        lock.lock().unwrap();
        let mut run = exporter.spawn(["run", "--format", "json"]);
        run.listen_for("waiting for another run");
        // It has its first connection; none is left for a second one, even if the first is closed by then.
        let taken = [connect(&url).unwrap(), connect(&url).unwrap()];
        table.execute(&format!("ALTER USER {name} WITH MAX_USER_CONNECTIONS 2"));
        drop(lock);
        run.listen_for("; trying again in ");
        drop(taken);
        let summary = run.wait().expect(3).json();
        assert_retried(&summary);
        assert_eq!(summary["rejected"], 1, "{summary}");
        table.execute(&format!("DROP USER {name}"));
    });
}

#[test]
fn a_query_that_is_killed_at_the_start_of_a_run_is_asked_again() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let table = Table::on(&own);
        table.insert(&Row::default());
        let exporter = Exporter::new(&table);
        let database = database(&table);
        let mut holder = database.connect();
        holder.query_drop("LOCK TABLES t_invoice WRITE").unwrap();
        let mut run = exporter.spawn(["run", "--format", "json"]);
        let waiting = "SELECT ID FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for table%'";
        let id = loop {
            if let Some(id) = database.query(waiting).into_iter().flatten().flatten().next() {
                break id;
            }
            assert!(run.is_alive(), "it ended without asking the table: {}", run.wait());
        };
        database.execute(&format!("KILL {id}"));
        run.listen_for("; trying again in 0.");
        holder.query_drop("UNLOCK TABLES").unwrap();
        assert_retried(&run.wait().expect(0).json());
        exporter.assert_agrees();
    });
}

#[test]
fn a_server_that_is_shut_down_in_order_in_mid_run_costs_a_pause_and_no_invoice() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let table = Table::on(&own);
        table.load_sample(MORE_THAN_IS_READ_AHEAD, 1, TENANTS);
        let exporter = Exporter::new(&table);
        let mut run = exporter.spawn(["run", "--mode", "incremental", "--format", "json"]);
        wait_for_files(&exporter.output());
        database(&table).execute("SHUTDOWN");
        run.listen_for("; trying again in ");
        own.restart();
        let summary = run.wait().expect(0).json();
        assert_retried(&summary);
        assert_eq!(summary["written"], summary["seen"], "{summary}");
        exporter.assert_agrees();
    });
}

/// An account's exports by way of a proxy.
fn through<'a>(proxy: &Proxy, table: &'a Table) -> Exporter<'a> {
    Exporter::new(table).env("INVOICE_EXPORT_SOURCE", proxy.url())
}

#[test]
fn a_table_that_stays_locked_is_asked_again_until_it_is_free() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.load_sample(30, 1, TENANTS);
        let proxy = Proxy::to(&table.url());
        // Ten seconds otherwise.
        proxy.change(&[("lock_wait_timeout = 10", "lock_wait_timeout = 01")]);
        let exporter = through(&proxy, &table);
        let mut holder = database(&table).connect();
        holder.query_drop("LOCK TABLES t_invoice WRITE").unwrap();
        let mut run = exporter.spawn(["run", "--format", "json"]);
        for _ in 0..2 {
            run.listen_for("Lock wait timeout exceeded");
        }
        holder.query_drop("UNLOCK TABLES").unwrap();
        assert_retried(&run.wait().expect(0).json());
        exporter.assert_agrees();
    });
}

/// An expression for a document that takes far longer than the limit to be worked out for the rows that are marked
/// as slow. `rest` goes before its end.
pub(crate) fn documents_worked_out(rest: &str) -> String {
    let hashes =
        ('a'..='h').map(|letter| format!("SHA2(REPEAT('{letter}', slow), 512)")).collect::<Vec<_>>().join(", ");
    format!("CONCAT('{{\"hashed\": ', LENGTH(CONCAT({hashes})), {rest}, '}}')")
}

fn table_of_slow_documents(flavor: Flavor) -> Table {
    let table = Table::on(server(flavor));
    table.execute("ALTER TABLE t_invoice DROP COLUMN fext_field, ADD slow INT NOT NULL DEFAULT 0");
    let document = documents_worked_out("''");
    table.execute(&format!("ALTER TABLE t_invoice ADD fext_field LONGTEXT AS ({document}) VIRTUAL"));
    for id in 1..=20 {
        table.execute(&format!(
            "INSERT INTO t_invoice (fid, ftenant_id, fcountry, fissue_date, finvoice_no, fissue_status, fupdate_time)
             VALUES ({id}, '1', 'CN', '2025-11-28', 'INV{id}', 3, '2025-11-28 15:00:00')"
        ));
    }
    table
}

pub(crate) fn set_slow(table: &Table, which: &str, slow: bool) {
    set_size(table, which, if slow { 20_000_000 } else { 0 });
}

/// How many bytes of each letter are worked out for a document.
fn set_size(table: &Table, which: &str, size: u32) {
    table.execute(&format!("UPDATE t_invoice SET slow = {size}, fupdate_time = fupdate_time WHERE {which}"));
}

/// As a proxy or an administrator would: the session says that there is no limit.
pub(crate) fn limit_time(proxy: &Proxy) {
    proxy.change(&[
        ("max_execution_time = 0", "max_execution_time=200"),
        ("max_statement_time = 0", "max_statement_time=0.2"),
    ]);
}

fn limit_of(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MariaDb => "max_statement_time",
        Flavor::MySql => "max_execution_time",
    }
}

#[test]
fn a_row_that_no_time_limit_lets_through_is_a_reject_and_keeps_no_other_row_back() {
    for mode in ["full", "incremental"] {
        on_every_flavor(|flavor| {
            let table = table_of_slow_documents(flavor);
            let proxy = Proxy::to(&table.url());
            limit_time(&proxy);
            // The first row of the table is also the first that comes to mind when others are tried.
            set_slow(&table, "fid IN (1, 7)", true);
            let exporter = through(&proxy, &table);
            let run = |code, patience| exporter.run(["run", "--mode", mode, "--retry-for", patience]).expect(code);
            let finished = run(3, "1s");
            assert!(finished.stderr.contains("trying again"), "{finished}");
            assert!(finished.stderr.contains(limit_of(flavor)), "{finished}");
            assert_eq!(exporter.tree().len(), 18);
            let open = || exporter.ask("SELECT id, reason FROM reject WHERE closed_run IS NULL ORDER BY id");
            assert_eq!(open(), ["1 unreadable", "7 unreadable"]);
            run(0, "0s");
            assert_eq!(open().len(), 2);
            set_slow(&table, "fid = 1", false);
            run(0, "0s");
            assert_eq!(open(), ["7 unreadable"]);
            set_slow(&table, "fid = 7", false);
            run(0, "0s");
            exporter.assert_agrees();
            exporter.assert_state_is_sound();
        });
    }
}

#[test]
fn a_time_limit_that_lets_nothing_through_fails_the_run_and_rejects_nothing() {
    on_every_flavor(|flavor| {
        let table = table_of_slow_documents(flavor);
        table.execute("DELETE FROM t_invoice WHERE fid > 2");
        let proxy = Proxy::to(&table.url());
        limit_time(&proxy);
        set_slow(&table, "1 = 1", true);
        let exporter = through(&proxy, &table);
        for (mode, code) in [("full", 1), ("incremental", 3)] {
            let finished = exporter.run(["run", "--mode", mode, "--retry-for", "1s"]).expect(code);
            let told = finished.to_string();
            assert!(told.contains("took too long") && told.contains(limit_of(flavor)), "{finished}");
            assert_eq!(exporter.ask("SELECT id FROM reject"), [""; 0]);
        }
        set_slow(&table, "1 = 1", false);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_statement_that_was_too_slow_for_a_moment_is_asked_again_and_rejects_nothing() {
    on_every_flavor(|flavor| {
        let table = table_of_slow_documents(flavor);
        let proxy = Proxy::to(&table.url());
        limit_time(&proxy);
        set_slow(&table, "fid > 10", true);
        let exporter = through(&proxy, &table);
        let mut run = exporter.spawn(["run", "--format", "json"]);
        run.listen_for("trying again");
        set_slow(&table, "1 = 1", false);
        assert_retried(&run.wait().expect(0).json());
        exporter.assert_agrees();
        assert_eq!(exporter.ask("SELECT id FROM reject"), [""; 0]);
    });
}

#[test]
fn queries_on_healthy_rows_that_are_killed_are_asked_again_and_rejected_never() {
    on_every_flavor(|flavor| {
        let table = table_of_slow_documents(flavor);
        let mut killer = database(&table).connect();
        for (mode, kill) in [("full", "KILL QUERY"), ("incremental", "KILL QUERY"), ("incremental", "KILL")] {
            // No limit is to be reached here: long enough to be seen in the list of processes.
            set_size(&table, "fid <= 4", 5_000_000);
            let exporter = Exporter::new(&table);
            let run = exporter.spawn(["run", "--mode", mode, "--format", "json"]);
            let mut kills = 0;
            while kills < 3 && run.is_alive() {
                let reading = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() \
                               AND COMMAND IN ('Execute', 'Query') AND INFO LIKE '%fext_field%' AND ID <> CONNECTION_ID()";
                let Some(id) = killer.query_first::<u64, _>(reading).unwrap() else { continue };
                // It may have ended since.
                kills += u32::from(killer.query_drop(format!("{kill} {id}")).is_ok());
            }
            let summary = run.wait().expect(0).json();
            assert_retried(&summary);
            set_slow(&table, "1 = 1", false);
            exporter.assert_agrees();
            assert_eq!(exporter.ask("SELECT id FROM reject"), [""; 0]);
        }
    });
}

#[test]
fn a_command_that_a_person_waits_for_waits_for_a_server_that_starts() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let table = Table::on(&own);
        table.insert(&Row::default());
        let exporter = Exporter::new(&table);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        let url = database(&table).url();
        own.kill();
        let commands: [(&[&str], i32); 4] = [
            (&["status", "--format", "json"], 0),
            (&["why", "INV001", "--format", "json"], 0),
            (&["state", "set", "1", "2025-11-28", "--yes", "--reason", "a test"], 0),
            (&["state", "adopt-source", "--yes", "--reason", "a test"], 1),
        ];
        // Without patience, the two that can do without the server say what the state knows.
        for ((arguments, _), told) in commands.iter().zip([
            "no lag is shown: cannot connect",
            "only what the state knows is shown: cannot connect",
            "cannot connect",
            "cannot connect",
        ]) {
            let finished = exporter.run(arguments.iter().chain(&["--retry-for", "0s"]));
            assert!(finished.stderr.contains(told) && !finished.stderr.contains("trying again"), "{finished}");
        }
        let running = commands.map(|(arguments, code)| {
            let mut command = exporter.spawn(arguments.iter().chain(&["--retry-for", "2m"]));
            command.listen_for("; trying again in 0.");
            (command, code)
        });
        own.restart();
        for (command, code) in running {
            let finished = command.wait().expect(code);
            let told = finished.to_string();
            assert!(!told.contains("only what the state knows") && !told.contains("no lag is shown"), "{finished}");
        }
        assert_eq!(url, database(&table).url());
        assert_eq!(exporter.ask_one("SELECT watermark FROM tenant"), "2025-11-28 00:00:00");
    });
}
