//! Which servers get the password. On a connection that is not encrypted, any program that took the
//! server's port can pass for it, so the password is not sent there, nor encrypted for a key that comes from
//! that connection.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::exporter::{Exporter, Finished};
use crate::support::impostor::{Impostor, switch_to};
use crate::support::server::{Flavor, Server, Settings};
use crate::support::table::{Row, Table};
use crate::tls::Certificates;

const SECRET: &str = "Hush1-longer-than-a-name";
/// The server does not remember this login and wants the password itself.
const FULL: [u8; 2] = [1, 4];
const CLEAR_MODES: [Option<&str>; 3] = [None, Some("DISABLED"), Some("PREFERRED")];

/// The public half of an RSA key that this test makes.
fn public_key() -> Vec<u8> {
    let script = "openssl genrsa 2048 2>/dev/null | openssl rsa -pubout 2>/dev/null";
    let made = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(made.stdout.starts_with(b"-----BEGIN PUBLIC KEY-----"), "openssl is missing: apt-get install openssl");
    made.stdout
}

fn exporter<'a>(table: &'a Table, url: &str) -> Exporter<'a> {
    Exporter::new(table).env("INVOICE_EXPORT_SOURCE", url).env("MYSQL_PWD", SECRET)
}

#[track_caller]
fn assert_refused(finished: Finished, facts: &[&str]) {
    let finished = finished.expect(1);
    assert!(facts.iter().all(|fact| finished.error().contains(fact)), "{facts:?}: {finished}");
    assert!(!finished.to_string().contains(SECRET), "{finished}");
}

#[test]
fn an_impostor_on_the_servers_port_is_not_given_the_password() {
    let table = Table::embedded();
    let key = public_key();
    let again = switch_to("caching_sha2_password");
    for answers in [vec![FULL.to_vec()], vec![again, FULL.to_vec()]] {
        for mode in CLEAR_MODES {
            let logins = answers.len();
            let impostor = Impostor::new(answers.clone(), key.clone());
            let mut exporter = exporter(&table, &impostor.url());
            if let Some(mode) = mode {
                exporter.set("INVOICE_EXPORT_SSL_MODE", mode);
            }
            let ways_out = ["--ssl-mode REQUIRED", "?socket=/path", "--server-public-key", "public_key.pem"];
            for lang in ["en", "zh"] {
                assert_refused(exporter.run(["run", "--lang", lang]), &ways_out);
            }
            // Two runs, each of which says once more that it knows the password where it is asked for that.
            let heard = impostor.heard();
            assert_eq!(heard.len(), 2 * (logins - 1), "{mode:?}: {heard:?}");
            assert!(heard.iter().all(|packet| packet.len() == 32), "{mode:?}: {heard:?}");
        }
    }
}

#[test]
fn a_login_that_would_show_the_password_is_refused() {
    let table = Table::embedded();
    let of = |plugin| switch_to(plugin);
    let asked = [of("mysql_clear_password"), of("mysql_old_password"), of("sha256_password"), of("dialog"), vec![0xfe]];
    for answer in asked {
        for mode in CLEAR_MODES {
            let impostor = Impostor::new(vec![answer.clone(), FULL.to_vec()], public_key());
            let mut exporter = exporter(&table, &impostor.url());
            if let Some(mode) = mode {
                exporter.set("INVOICE_EXPORT_SSL_MODE", mode);
            }
            exporter.set("INVOICE_EXPORT_RETRY_FOR", "0s");
            assert_refused(exporter.run(["run"]), &[]);
            assert!(impostor.heard().iter().all(Vec::is_empty), "{answer:?}, {mode:?}: {:?}", impostor.heard());
        }
    }
}

#[test]
fn an_impostor_gets_the_password_encrypted_for_the_real_servers_key_only() {
    let table = Table::embedded();
    let impostor = Impostor::new(vec![FULL.to_vec()], public_key());
    let exporter = exporter(&table, &impostor.url());
    let key = exporter.home().join("key.pem");
    fs::write(&key, public_key()).unwrap();
    let refused = exporter.run([Path::new("run"), Path::new("--server-public-key"), &key]);
    assert_refused(refused, &["Access denied", "--server-public-key"]);
    // It asked for no key, and the block is as long as the key of 2048 bits.
    assert!(matches!(&impostor.heard()[..], [block] if block.len() == 256), "{:?}", impostor.heard());
}

/// A MySQL with a user who logs in by `caching_sha2_password`.
struct Place {
    server: Server,
    table: Table,
    url: String,
}

impl Place {
    fn new(server: Server) -> Self {
        let table = Table::on(&server);
        table.insert(&Row::default());
        table.execute(&format!("CREATE USER reader@'%' IDENTIFIED WITH caching_sha2_password BY '{SECRET}'"));
        table.execute("GRANT SELECT, PROCESS ON *.* TO reader@'%'");
        let url = table.url().replace("root@", "reader@");
        Self { server, table, url }
    }

    fn with(options: &'static [&'static str]) -> Self {
        Self::new(Server::fresh_with(Flavor::MySql, Settings { options, ..Settings::default() }))
    }
}

/// Has the server forget all logins that it remembers.
fn forget(table: &Table) {
    table.execute("FLUSH PRIVILEGES");
}

/// How the user's connections came in since the last look, as the server's log says.
fn ways(table: &Table) -> Vec<String> {
    let log = table.query(
        "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log
         WHERE command_type = 'Connect' AND argument LIKE 'reader@%' ORDER BY event_time",
    );
    table.execute("TRUNCATE mysql.general_log");
    let way = |line: &str| line.rsplit_once(" using ").map_or(line.to_owned(), |(_, way)| way.to_owned());
    log.iter().map(|row| way(row[0].as_deref().unwrap_or_default())).collect()
}

#[test]
fn a_login_that_the_server_does_not_remember_is_made_by_tls() {
    let Place { mut server, table, url } = Place::with(&["--general-log=ON", "--log-output=TABLE"]);
    let exporter = exporter(&table, &url);
    let assert_connects = |expected: &[&str]| {
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        assert_eq!(ways(&table), expected);
    };
    for cause in ["first login", "FLUSH PRIVILEGES", "restart"] {
        match cause {
            "FLUSH PRIVILEGES" => forget(&table),
            "restart" => server.restart(),
            _ => {}
        }
        // The server logs the first attempt too, which ends when it asks for the password.
        assert_connects(&["TCP/IP", "SSL/TLS"]);
        assert_connects(&["TCP/IP"]);
        assert_connects(&["TCP/IP"]);
    }
    // The certificate that MySQL made for itself names no host.
    let ca = server.dir().join("data/ca.pem").display().to_string();
    for mode in [&[][..], &["--ssl-mode", "VERIFY_CA"]] {
        forget(&table);
        exporter.run(["run", "--ssl-ca", &ca].iter().chain(mode)).expect(0);
    }
    forget(&table);
    assert_refused(exporter.run(["run", "--ssl-mode", "DISABLED"]), &["--ssl-mode REQUIRED"]);
    for value in ["wrong", ""] {
        let denied = exporter.command(["run"]).env("MYSQL_PWD", value).output().unwrap();
        assert!(String::from_utf8_lossy(&denied.stderr).contains("Access denied"), "{value:?}: {denied:?}");
    }
}

#[test]
fn a_login_by_tls_on_this_machine_believes_the_named_ca_only() {
    let ours = Certificates::new("DNS:db.example", 2);
    let place = Place::new(ours.server(Flavor::MySql));
    let exporter = exporter(&place.table, &place.url);
    let other = Certificates::new("IP:127.0.0.1", 2);
    assert_refused(exporter.run(["run", "--ssl-ca", &other.ca()]), &["certificate", "--ssl-ca"]);
    exporter.run(["run", "--ssl-ca", &ours.ca()]).expect(0);
    forget(&place.table);
    exporter.run(["run"]).expect(0);
}

/// What a server's administrator hands out.
fn key_of(server: &Server) -> PathBuf {
    server.dir().join("data/public_key.pem")
}

#[test]
fn without_tls_the_password_is_sent_for_the_servers_own_key_only() {
    let place = Place::with(&["--tls-version="]);
    let (exporter, key) = (exporter(&place.table, &place.url), key_of(&place.server));
    let flag = Path::new("--server-public-key");
    let folder = TempDir::new().unwrap();
    let file = |name: &str, content: &[u8]| {
        fs::write(folder.path().join(name), content).unwrap();
        folder.path().join(name)
    };
    for mode in CLEAR_MODES {
        let arguments: Vec<&str> =
            ["run"].into_iter().chain(mode.into_iter().flat_map(|mode| ["--ssl-mode", mode])).collect();
        let with = |flags: &[&Path]| {
            forget(&place.table);
            exporter.run(arguments.iter().map(Path::new).chain(flags.iter().copied()))
        };
        assert_refused(with(&[]), &["the password itself", "--server-public-key"]);
        with(&[flag, &key]).expect(0);
        // The server remembers the login now.
        exporter.run(&arguments).expect(0);
        let options = file("my.cnf", format!("[client]\nserver-public-key-path={}\n", key.display()).as_bytes());
        with(&[Path::new("--defaults-file"), &options]).expect(0);
        let other = file("other.pem", &public_key());
        assert_refused(with(&[flag, &other]), &["Access denied", "--server-public-key"]);
        let spoiled = file("spoiled.pem", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
        for unusable in [&spoiled, Path::new("no-such-file.pem"), folder.path()] {
            assert_refused(with(&[flag, unusable]), &[unusable.to_str().unwrap(), "--server-public-key"]);
        }
    }
    let socket =
        place.url.replace("127.0.0.1", "localhost") + "?socket=" + place.server.dir().join("socket").to_str().unwrap();
    forget(&place.table);
    exporter.run(["run", "--source", &socket, "--output", folder.path().join("other").to_str().unwrap()]).expect(0);
}
