//! A server that is not there yet, goes away, or takes nobody in for a moment: it costs a pause, and
//! what would not change by waiting costs none.

use std::fs::{self, File};
use std::path::Path;

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::exporter::Exporter;
use crate::support::server::{Server, Settings, server};
use crate::support::table::{Row, Table, on_every_flavor};

const TENANTS: &str = "1:0.6,10:0.3,89:0.1";

fn wait_for_files(output: &Path) {
    let published = || {
        fs::read_dir(output).is_ok_and(|mut entries| entries.any(|entry| entry.unwrap().file_name() != ".export_state"))
    };
    while !published() {
        std::thread::yield_now();
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
        table.load_sample(24_552, 1, TENANTS);
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
        table.load_sample(24_552, 1, TENANTS);
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
        let Table::Server(database) = &table else { unreachable!("it lies on a server") };
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
    let Table::Server(database) = table else { unreachable!("it lies on a server") };
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
        run.listen_for("max_connections; trying again");
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
        run.listen_for("max_connections；0.");
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
        run.listen_for("max_connections; trying again");
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
        let Table::Server(database) = &table else { unreachable!("it lies on a server") };
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
