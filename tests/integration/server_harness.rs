//! The harness itself: what the other tests take for granted.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::exporter::{Running, tracer_of};
use crate::support::{
    Exporter, Flavor, Row, Server, Settings, Table, exporter, on_every_flavor, on_every_source, server,
};

#[test]
fn a_database_is_private_to_its_test() {
    on_every_flavor(|flavor| {
        let (mine, other) = (server(flavor).database(), server(flavor).database());
        mine.execute("CREATE TABLE t (a INT)");
        assert_eq!(mine.query("SHOW TABLES"), [[Some("t".to_owned())]]);
        assert!(other.query("SHOW TABLES").is_empty());
    });
}

#[test]
fn a_database_is_gone_after_its_test() {
    on_every_flavor(|flavor| {
        let database = server(flavor).database();
        let name = database.query("SELECT DATABASE()");
        let survivor = server(flavor).database();
        drop(database);
        assert!(!survivor.query("SHOW DATABASES").contains(&name[0]));
    });
}

#[test]
fn a_server_answers_over_tcp_and_over_its_socket() {
    on_every_flavor(|flavor| {
        let database = server(flavor).database();
        for url in [database.url(), database.socket_url()] {
            let mut conn = mysql::Conn::new(url.as_str()).unwrap();
            let name: Option<String> = mysql::prelude::Queryable::query_first(&mut conn, "SELECT DATABASE()").unwrap();
            assert!(url.contains(&name.unwrap()), "{url}");
        }
    });
}

#[test]
fn a_server_of_its_own_can_be_killed_and_restarted_with_its_data() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let database = own.database();
        database.execute("CREATE TABLE t (a INT)");
        database.execute("INSERT INTO t VALUES (1)");
        let (pid, url) = (own.pid(), database.url());
        own.kill();
        assert!(mysql::Conn::new(url.as_str()).is_err());
        own.restart();
        assert_ne!(own.pid(), pid);
        assert_eq!(database.query("SELECT a FROM t"), [[Some("1".to_owned())]]);
    });
}

#[test]
fn a_server_of_its_own_lives_in_the_zone_that_it_is_given() {
    on_every_flavor(|flavor| {
        let settings = Settings { os_zone: "Asia/Tokyo", options: &["--default-time-zone=+08:00"] };
        let own = Server::fresh_with(flavor, settings);
        let zones = own.database().query("SELECT @@system_time_zone, @@time_zone");
        assert_eq!(zones, [[Some("JST".to_owned()), Some("+08:00".to_owned())]]);
    });
}

#[test]
fn a_server_is_gone_with_its_folder_when_it_is_dropped() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let (pid, dir) = (own.pid(), own.dir().to_owned());
        assert!(is_running(pid) && dir.exists());
        drop(own);
        assert!(!is_running(pid) && !dir.exists());
    });
}

const OWNER: &str = "INVOICE_EXPORT_TEST_OWNS_A_SERVER";

/// The test starts itself once more as the process that owns a server and is killed.
#[test]
fn the_watcher_stops_a_server_when_its_owner_is_killed() {
    if std::env::var_os(OWNER).is_some() {
        return own_a_server_until_killed();
    }
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server_harness::the_watcher_stops_a_server_when_its_owner_is_killed"])
        .env(OWNER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.into_iter().find(|line| line.starts_with(OWNER)).unwrap();
    let [_, pid, dir] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let pid = pid.parse().unwrap();
    assert!(is_running(pid) && Path::new(dir).exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(comes_true(|| !is_running(pid) && !Path::new(dir).exists()), "server {pid} lives on in {dir}");
}

fn own_a_server_until_killed() {
    let own = Server::fresh(Flavor::MariaDb);
    let line = format!("\n{OWNER}\t{}\t{}\n", own.pid(), own.dir().display());
    // Standard output proper: what print macros say is kept back by the test runner.
    std::io::stdout().write_all(line.as_bytes()).expect("tell the parent");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("wait for the end");
}

#[test]
fn a_row_reads_the_same_from_every_source() {
    on_every_source(|table| {
        let row = Row { document: r#"{"a": "\\ 'ä' \n"}"#, number: "INV'7", ..Row::default() };
        table.insert(&row);
        let rows = table.query("SELECT fid, fcountry, finvoice_no, fext_field, fupdate_time FROM t_invoice");
        let wanted = ["1", "CN", row.number, row.document, row.time].map(|text| Some(text.to_owned()));
        assert_eq!(rows, [wanted]);
    });
}

#[test]
fn a_source_tells_times_around_its_clock() {
    on_every_source(|table| {
        let (before, now, after) =
            (table.ago(Duration::from_secs(60)), table.now(), table.ahead(Duration::from_secs(60)));
        assert!(before < now && now < after, "{before} {now} {after}");
        assert_eq!(now.len(), "2025-11-28 16:30:00".len());
    });
}

#[test]
fn the_sample_is_the_same_in_every_source() {
    let first = std::cell::OnceCell::new();
    on_every_source(|table| {
        table.load_sample(200, 7, "1:0.6,10:0.3,89:0.1");
        let tree = exporter::table_tree(table);
        assert_eq!(exporter::differences(first.get_or_init(|| tree.clone()), &tree), Vec::<String>::new());
    });
    let tree = first.into_inner().unwrap();
    assert!(tree.len() > 150 && tree.len() < 200, "{} invoices", tree.len());
    let document = tree.values().next().unwrap();
    serde_json::from_slice::<serde_json::Value>(document).unwrap();
}

#[test]
fn a_failure_names_the_source() {
    let failed = std::panic::catch_unwind(|| {
        on_every_source(|table| assert!(table.url().starts_with("mysql:"), "no server"));
    });
    let text = failed.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(*text, "on SQLite: no server");
}

#[test]
fn a_tree_that_is_not_what_the_table_says_is_noticed() {
    let table = Table::embedded();
    let row = Row::default();
    table.insert(&row);
    let exporter = Exporter::new(&table);
    let file = exporter.output().join("1/CN/20251128+INV001.json");
    let disagrees = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| exporter.assert_agrees())).is_err();
    assert!(disagrees(), "the file is missing");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, row.document).unwrap();
    exporter.assert_agrees();
    let stamps = exporter.stamps();
    std::fs::write(&file, "{}").unwrap();
    assert!(disagrees(), "the content is another");
    assert_ne!(exporter.stamps(), stamps);
    std::fs::write(&file, row.document).unwrap();
    for stray in ["1/CN/.tmp", ".tmp", ".export_state/staging/7"] {
        let stray = exporter.output().join(stray);
        std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
        std::fs::write(&stray, "").unwrap();
        assert!(disagrees(), "{} should not be there", stray.display());
        std::fs::remove_file(stray).unwrap();
    }
    exporter.assert_agrees();
}

#[test]
fn a_process_is_waited_for_and_what_it_said_is_kept() {
    let finished =
        Running::new(Command::new("sh").args(["-c", "echo '{\"written\": 7}'; echo why >&2; exit 3"])).wait();
    let finished = finished.expect(3);
    assert_eq!(finished.json()["written"], 7);
    assert_eq!(finished.stderr, "why\n");
}

#[test]
fn a_process_can_be_killed_and_is_known_to_be() {
    let running = Running::new(Command::new("sleep").arg("600"));
    running.signal(rustix::process::Signal::KILL);
    assert!(running.wait().was_killed());
}

#[test]
fn a_process_that_its_tracer_holds_ends_with_the_test() {
    let hold = [
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=exit_group",
        "-e",
        "inject=exit_group:delay_enter=600000000",
    ];
    let running = Running::new(Command::new("strace").args(hold).args(["sh", "-c", "exit 0"]));
    let process = running.pid();
    assert!(comes_true(|| tracer_of(process).is_some()));
    let both = [process, running.tracer()].map(|pid| pid.as_raw_pid().cast_unsigned());
    drop(running);
    assert!(both.into_iter().all(|pid| comes_true(|| !is_running(pid))));
}

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn comes_true(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}
