//! What goes wrong with the source: one line that says what, where and what to do next, in both
//! languages, and nothing on disk where the run had not begun.

use std::net::TcpListener;

use mysql::prelude::Queryable;
use rusqlite::Connection;

use crate::support::exporter::Exporter;
use crate::support::server::{Flavor, Server, server};
use crate::support::table::{Row, Table, on_every_flavor};
use crate::support::{Database, names_of_this_machine, wait_for};

const SECRET: &str = "s3cr3t-p4ss";

/// The line holds the facts, and the remedy in English or Chinese; it comes at once, nothing was made,
/// and no password is shown.
#[track_caller]
fn assert_told(url: &str, facts: &[&str], remedies: [&str; 2]) {
    assert_told_with("5m", url, facts, remedies);
}

/// The same without patience for what may pass.
#[track_caller]
fn assert_told_impatiently(url: &str, facts: &[&str], remedies: [&str; 2]) {
    assert_told_with("0s", url, facts, remedies);
}

#[track_caller]
fn assert_told_with(retry_for: &str, url: &str, facts: &[&str], remedies: [&str; 2]) {
    let table = Table::embedded();
    let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", url).env("MYSQL_PWD", SECRET);
    let exporter = exporter.env("INVOICE_EXPORT_RETRY_FOR", retry_for);
    for (lang, remedy) in ["en", "zh"].into_iter().zip(remedies) {
        for mode in ["full", "incremental"] {
            let failed = exporter.run(["run", "--mode", mode, "--lang", lang]).expect(1);
            for fact in facts.iter().chain([&remedy]) {
                assert!(failed.error().contains(fact), "{fact:?} is missing: {failed}");
            }
            assert!(!failed.to_string().contains(SECRET), "a password is shown: {failed}");
            assert!(
                !["trying again", "后重试"].iter().any(|words| failed.stderr.contains(words)),
                "it was tried again: {failed}"
            );
            assert!(!exporter.output().exists(), "something was made: {failed}");
        }
    }
}

/// A database with a table, and a user of the database's name who may do what is granted.
struct Place {
    database: Database,
    name: String,
    /// As messages show it.
    shown: String,
}

impl Place {
    fn new(flavor: Flavor) -> Self {
        let table = Table::on(server(flavor));
        table.insert(&Row::default());
        let Table::Server(database) = table else { unreachable!("it lies on a server") };
        let url = database.url();
        let name = url.rsplit_once('/').unwrap().1.to_owned();
        database.execute(&format!("CREATE USER {name}@'%' IDENTIFIED BY '{SECRET}'"));
        Self { name, shown: url.replace("root@", ""), database }
    }

    fn grant(&self, privileges: &str) {
        self.database.execute(&format!("GRANT {privileges} TO {}@'%'", self.name));
    }

    fn url(&self) -> String {
        self.database.url().replace("root@", &format!("{}@", self.name))
    }
}

#[test]
fn a_wrong_password_or_user_is_named_and_not_shown() {
    let remedies = [
        "check the user in --source and the password (--password-file, --defaults-file or MYSQL_PWD)",
        "请检查 --source 中的用户名和密码（--password-file、--defaults-file 或 MYSQL_PWD）",
    ];
    on_every_flavor(|flavor| {
        let place = Place::new(flavor);
        place.grant("SELECT ON *.*");
        place.database.execute(&format!("ALTER USER {}@'%' IDENTIFIED BY 'another'", place.name));
        assert_told(&place.url(), &[&place.shown, &place.name, "Access denied"], remedies);
        let nobody = place.database.url().replace("root@", "nobody_at_all@");
        // MySQL asks somebody it does not know for a login that it makes up.
        let facts: &[&str] = if flavor == Flavor::MySql { &[] } else { &["nobody_at_all", "Access denied"] };
        assert_told(&nobody, &[&[&*place.shown], facts].concat(), remedies);
    });
}

#[test]
fn a_host_that_does_not_exist_and_a_port_on_which_nobody_listens_are_named() {
    let remedies = ["check the host and the port in --source", "请检查 --source 中的主机和端口"];
    let nowhere = "mysql://root@no-such-host.invalid:3307/shop";
    assert_told_impatiently(nowhere, &["mysql://no-such-host.invalid:3307/shop"], remedies);
    // Freed again at once; nobody listens there now.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for host in names_of_this_machine() {
        let place = format!("{host}:{port}/shop");
        let facts = [&*format!("mysql://{place}"), "refused"];
        assert_told_impatiently(&format!("mysql://root@{place}"), &facts, remedies);
    }
    let nothing = "mysql://root@localhost/shop?socket=/no/such/socket";
    assert_told_impatiently(nothing, &["/no/such/socket"], remedies);
}

#[test]
fn a_database_that_is_missing_or_forbidden_is_named() {
    let remedies = ["check the database in --source", "请检查 --source 中的数据库名"];
    on_every_flavor(|flavor| {
        let place = Place::new(flavor);
        let other = |url: &str, name: &str| format!("{}/{name}", url.rsplit_once('/').unwrap().0);
        assert_told(&other(&place.url(), "mysql"), &[&other(&place.shown, "mysql"), "Access denied"], remedies);
        place.grant("SELECT ON *.*");
        let missing = other(&place.shown, "no_such_shop");
        assert_told(&other(&place.url(), "no_such_shop"), &[&missing, "Unknown database"], remedies);
    });
}

#[test]
fn a_missing_table_is_named_with_its_database() {
    on_every_flavor(|flavor| {
        let place = Place::new(flavor);
        place.grant("SELECT ON *.*");
        place.database.execute("RENAME TABLE t_invoice TO t_other");
        let remedies = ["and the table's name (--table)", "和表名（--table）"];
        assert_told(&place.url(), &[&place.shown, "t_invoice", "--source"], remedies);
    });
}

#[test]
fn missing_columns_are_named_with_their_table() {
    on_every_flavor(|flavor| {
        let place = Place::new(flavor);
        place.grant("SELECT ON *.*");
        place.database.execute("ALTER TABLE t_invoice DROP COLUMN fcountry, CHANGE fext_field fdocument TEXT");
        let facts = [place.shown.as_str(), "t_invoice", "fcountry, fext_field", "--time-column"];
        assert_told(&place.url(), &facts, ["name it with", "选项指定"]);
    });
}

#[test]
fn a_missing_privilege_is_named_with_the_grant_that_mends_it() {
    on_every_flavor(|flavor| {
        let columns = "fid, ftenant_id, fcountry, fissue_date, finvoice_no, fissue_status, fupdate_time";
        // The table is not to be seen, it is to be seen and not to be read, one column is not to be seen.
        let cases = [
            ("SELECT ON {name}.t_other".to_owned(), "t_invoice"),
            ("INSERT ON {name}.t_invoice".to_owned(), "t_invoice"),
            (format!("SELECT ({columns}) ON {{name}}.t_invoice"), "fext_field"),
        ];
        for (privileges, fact) in cases {
            let place = Place::new(flavor);
            place.database.execute("CREATE TABLE t_other (a INT)");
            place.grant(&privileges.replace("{name}", &place.name));
            assert_told(&place.url(), &[&place.shown, fact], ["grant SELECT on it", "授予 SELECT 权限"]);
            // As the message says.
            place.grant(&format!("SELECT ON {}.t_invoice", place.name));
            let url = place.url();
            let table = Table::Server(place.database);
            let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", url).env("MYSQL_PWD", SECRET);
            exporter.run(["run"]).expect(0);
            exporter.assert_agrees();
        }
    });
}

#[test]
fn a_table_that_is_locked_is_not_taken_for_one_without_an_index() {
    on_every_flavor(|flavor| {
        let place = Place::new(flavor);
        let mut conn = place.database.connect();
        conn.query_drop("LOCK TABLES t_invoice WRITE").unwrap();
        let table = Table::embedded();
        let exporter = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", place.database.url());
        let failed = exporter.run(["run", "--retry-for", "0s"]).expect(1);
        assert!(failed.error().contains("Lock wait timeout") && !failed.stderr.contains("CREATE INDEX"), "{failed}");
        assert!(!exporter.output().exists());
    });
}

#[test]
fn a_server_that_stops_in_the_middle_and_stays_away_is_named() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let table = Table::on(&own);
        table.insert(&Row::default());
        let exporter = Exporter::new(&table);
        exporter.run(["run"]).expect(0);
        for (lang, remedy) in [("en", "that the server is running"), ("zh", "数据库服务器是否在运行")] {
            // A run that waits for its state has its lock and has read no row yet.
            let state = Connection::open(exporter.state()).unwrap();
            state.execute_batch("BEGIN IMMEDIATE").unwrap();
            let run = exporter.spawn(["run", "--retry-for", "1s", "--lang", lang]);
            wait_for("its lock", || {
                assert!(run.is_alive(), "it ended before the server did");
                exporter.output().join(".export_state/.export.lock/owner").exists()
            });
            own.kill();
            drop(state);
            let failed = run.wait().expect(1);
            let place = table.url().replace("root@", "");
            assert!(failed.error().contains(&place) && failed.error().contains(remedy), "{failed}");
            own.restart();
            table.execute("UPDATE t_invoice SET fext_field = '[]'");
            exporter.run(["run"]).expect(0);
            exporter.assert_agrees();
            exporter.assert_state_is_sound();
        }
    });
}
