//! How a source uses its session: the statements that it sends, the server's habits that it does not take, and
//! a connection that breaks.

use std::thread;
use std::time::{Duration, Instant};

use invoice_export::invoice::{Fetched, Key};
use invoice_export::run::RunId;
use invoice_export::source::{self, Access, KeyCursor, Source, SourceError};
use mysql::prelude::Queryable;

use crate::support::reader::{FOREVER, access, documents, open, refusal, span, table_with};
use crate::support::{Database, Flavor, Proxy, Server, Settings, on_every_flavor, on_every_source, server};

type Step<'a> = &'a dyn Fn(&mut dyn Source);

/// The statements that a source sends are taken from the server's own log and explained there.
#[test]
fn every_statement_reads_through_its_index() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let database = own.database();
        database.load_sample(24_552, 7, "1:40,10:40,89:20");
        database.execute("SET GLOBAL log_output = 'TABLE'");
        database.execute("SET GLOBAL general_log = 1");
        let mut source = open(&database.url());
        // The plans depend on the session.
        let mut session = database.connect();
        for set in database.query("SELECT argument FROM mysql.general_log WHERE argument LIKE 'SET SESSION %'") {
            session.query_drop(set[0].as_deref().unwrap()).unwrap();
        }
        let window = span(Some("2025-11-20 00:00:00"), Some("2025-11-28 00:00:00"));
        let many: Vec<String> = (1..=2000).map(|id| (id * 7).to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let steps: [(&str, Step<'_>); 6] = [
            ("range,idx_incremental_export,Using where; Using index for group-by", &|source| {
                source.tenants(&FOREVER.into()).unwrap();
            }),
            ("range,idx_incremental_export,Using where; Using index", &|source| {
                source.keys(&"10".into(), &window, &KeyCursor::Start, 500).unwrap();
            }),
            ("range,idx_incremental_export,Using where; Using index", &|source| {
                let key = Key { id: "17000".into(), tenant: "10".into(), time: Some("2025-11-20 12:00:00".into()) };
                source.keys(&"10".into(), &window, &KeyCursor::After(key), 500).unwrap();
            }),
            ("range,PRIMARY,Using where", &|source| {
                documents(source, &many);
            }),
            ("index,PRIMARY,Using where", &|source| {
                source.page(None, 10, &mut |_| Ok(())).unwrap();
            }),
            ("range,PRIMARY,Using where", &|source| {
                source.page(Some(&"500".into()), 10, &mut |_| Ok(())).unwrap();
            }),
        ];
        for (plan, step) in steps {
            database.execute("TRUNCATE mysql.general_log");
            step(&mut *source);
            let sent = database.query(
                "SELECT argument FROM mysql.general_log \
                 WHERE command_type = 'Execute' AND argument LIKE '%FROM `t_invoice`%'",
            );
            let [sent] = sent.as_slice() else { panic!("{sent:?}") };
            let sql = sent[0].as_deref().unwrap();
            let explained: Vec<mysql::Row> = session.query(format!("EXPLAIN FORMAT=TRADITIONAL {sql}")).unwrap();
            let [row] = explained.as_slice() else { panic!("{explained:?}") };
            let found = ["type", "key", "Extra"].map(|name| row.get::<Option<String>, _>(name).unwrap());
            let found = found.map(Option::unwrap_or_default).join(",");
            assert_eq!(found, plan, "{row:?} for {:.300}", sql);
        }
    });
}

/// What a plan does not show: a bound value of another type or character set than its column's.
#[test]
fn a_statement_reads_no_more_rows_than_it_needs_whatever_the_types() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let database = own.database();
        database.load_sample(6_000, 7, "1:40,10:40,89:20");
        for (tenant, time) in [
            ("VARCHAR(64) CHARACTER SET utf8mb3", "DATETIME"),
            ("CHAR(9) CHARACTER SET latin1", "TIMESTAMP(3)"),
            ("INT", "DATETIME(6)"),
        ] {
            database.execute(&format!("ALTER TABLE t_invoice MODIFY ftenant_id {tenant}, MODIFY fupdate_time {time}"));
            let rows_read = || -> u64 {
                let counts = database.query("SHOW GLOBAL STATUS LIKE 'Handler_read%'");
                counts.iter().map(|row| row[1].as_ref().unwrap().parse::<u64>().unwrap()).sum()
            };
            let mut source = open(&database.url());
            let asking = {
                let before = rows_read();
                rows_read() - before
            };
            let window = span(Some("2025-11-20 00:00:00"), Some("2025-11-28 00:00:00"));
            let first = source.keys(&"10".into(), &window, &KeyCursor::Start, 20).unwrap();
            let after = KeyCursor::After(first[19].clone());
            let steps: [(&str, Step<'_>); 5] = [
                ("tenants", &|source| assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 3)),
                ("one tenant", &|source| assert!(source.has_tenant(&"89".into()).unwrap())),
                ("keys", &|source| assert_eq!(source.keys(&"10".into(), &window, &after, 20).unwrap().len(), 20)),
                ("a page", &|source| assert_eq!(source.page(Some(&"5000".into()), 20, &mut |_| Ok(())).unwrap(), 20)),
                ("documents", &|source| assert!(documents(source, &["7", "70", "700", "1400"]).len() > 2)),
            ];
            for (name, step) in steps {
                let before = rows_read();
                step(&mut *source);
                let read = rows_read() - before - asking;
                assert!(read < 40, "{name} read {read} rows where the tenant is {tenant} and the time {time}");
            }
        }
    });
}

#[test]
fn a_server_that_limits_the_time_of_statements_does_not_limit_ours() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let database = own.database();
        database.load_sample(12_000, 7, "1:40,10:40,89:20");
        database.execute(match flavor {
            Flavor::MariaDb => "SET GLOBAL max_statement_time = 0.2",
            Flavor::MySql => "SET GLOBAL max_execution_time = 200",
        });
        let mut came = 0;
        let page = open(&database.url()).page(None, 12_000, &mut |_| {
            came += 1;
            if came == 1 {
                // Whoever takes the rows is slow, and the server waits with the rest of them.
                thread::sleep(Duration::from_millis(600));
            }
            Ok(())
        });
        assert_eq!(page.unwrap(), came);
        assert!(came > 11_000, "{came}");
    });
}

#[test]
fn every_statement_carries_the_run() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let database = table_with(&own, "INT", "DATETIME", &[("1", "NOW()")]);
        let mut source = open(&database.url());
        database.execute("SET GLOBAL log_output = 'TABLE'");
        database.execute("SET GLOBAL general_log = 1");
        source.label(RunId(42));
        source.clock().unwrap();
        source.tenants(&FOREVER.into()).unwrap();
        database.execute("SET GLOBAL general_log = 0");
        let sent = database.query("SELECT argument FROM mysql.general_log WHERE command_type = 'Execute'");
        let labelled =
            sent.iter().filter(|row| row[0].as_ref().unwrap().starts_with("/* invoice-export run 42 */ SELECT"));
        assert_eq!(labelled.count(), 2, "{sent:?}");
    });
}

#[test]
fn a_session_does_not_take_the_servers_habits() {
    on_every_flavor(|flavor| {
        let options = &[
            "--autocommit=0",
            "--transaction-isolation=READ-UNCOMMITTED",
            "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,PIPES_AS_CONCAT",
            "--init-connect=SET sql_select_limit = 2",
            "--character-set-server=latin1",
            "--collation-server=latin1_swedish_ci",
        ];
        let own = Server::fresh_with(flavor, Settings { options, ..Settings::default() });
        let database = table_with(&own, "INT", "DATETIME", &[]);
        let mut conn = database.connect();
        conn.query_drop("CREATE USER reader@'%'").unwrap();
        conn.query_drop("GRANT SELECT ON *.* TO reader@'%'").unwrap();
        for id in 1..=5 {
            let sql = "INSERT INTO t_invoice VALUES (?, 'Ä', 'CN', '2025-11-28', ?, 3, '{}', '2025-11-28 15:00:00')";
            conn.exec_drop(sql, (id, "Ü")).unwrap();
        }
        conn.query_drop("COMMIT").unwrap();
        let url = database.url().replace("root@", "reader@");
        let mut source = open(&url);
        let rows = documents(&mut *source, &["1", "2", "3", "4", "5"]);
        assert_eq!(rows.len(), 5);
        let Fetched::Row(row) = &rows[0] else { panic!("{rows:?}") };
        assert_eq!((row.invoice.tenant.as_str(), row.invoice.number.as_str()), ("Ä", "Ü"));
        // Neither what is not committed nor a frozen view of the past.
        conn.query_drop("UPDATE t_invoice SET fext_field = '{\"a\": 1}'").unwrap();
        let document = |source: &mut dyn Source| match documents(source, &["1"]).remove(0) {
            Fetched::Row(row) => String::from_utf8(row.document).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(document(&mut *source), "{}");
        conn.query_drop("COMMIT").unwrap();
        assert_eq!(document(&mut *source), "{\"a\": 1}");
    });
}

#[test]
fn the_clock_is_that_of_the_zone_in_which_times_are_read() {
    on_every_flavor(|flavor| {
        let settings = Settings { os_zone: "Asia/Tokyo", options: &["--default-time-zone=+05:00"] };
        let own = Server::fresh_with(flavor, settings);
        let datetimes = table_with(&own, "INT", "DATETIME", &[]);
        let timestamps = table_with(&own, "INT", "TIMESTAMP", &[]);
        let hour_of = |access: Access| {
            let clock = source::open(&access).unwrap().clock().unwrap();
            let zoneless = clock.now.as_str().replace(' ', "T");
            let shown: i64 = own.database().query(&format!("SELECT TIMESTAMPDIFF(SECOND, '1970-01-01', '{zoneless}')"))
                [0][0]
                .as_ref()
                .unwrap()
                .parse()
                .unwrap();
            (shown - clock.unix_ms / 1000) / 3600
        };
        assert_eq!(hour_of(access(&datetimes.url())), 5);
        assert_eq!(hour_of(access(&timestamps.url())), 0);
        assert_eq!(hour_of(Access { time_zone: Some("+08:00".into()), ..access(&datetimes.url()) }), 8);
        assert_eq!(hour_of(Access { time_zone: Some("+08:00".into()), ..access(&timestamps.url()) }), 0);
        let unknown = refusal(&Access { time_zone: Some("Mars/Olympus".into()), ..access(&datetimes.url()) });
        assert!(unknown.contains("does not know the time zone Mars/Olympus"), "{unknown}");
    });
}

#[test]
fn a_server_that_dies_within_a_page_breaks_the_connection_and_is_found_again() {
    on_every_flavor(|flavor| {
        let mut own = Server::fresh(flavor);
        let database = own.database();
        // Some fifty megabytes: far more than the buffers of a connection hold.
        database.load_sample(10_000, 7, "1:40,10:40,89:20");
        let mut source = open(&database.url());
        let mut came = 0;
        let fault = source.page(None, 30_000, &mut |_| {
            came += 1;
            if came == 10 {
                own.kill();
            }
            Ok(())
        });
        assert!(matches!(fault, Err(SourceError::Connection(_))), "{fault:?}");
        assert!((10..9_000).contains(&came), "{came} rows came");
        assert!(matches!(source.clock(), Err(SourceError::Connection(_))));
        own.restart();
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 3);
        assert_eq!(source.page(None, 100, &mut |_| Ok(())).unwrap(), 100);
    });
}

#[test]
fn a_source_is_good_after_somebody_wanted_no_more_rows() {
    on_every_source(|table| {
        table.load_sample(900, 7, "1:40,10:40,89:20");
        let mut source = open(&table.url());
        let mut came = 0;
        let fault = source.page(None, 900, &mut |_| {
            came += 1;
            if came == 10 { Err(anyhow::anyhow!("enough")) } else { Ok(()) }
        });
        assert!(matches!(&fault, Err(SourceError::Consumer(error)) if error.to_string() == "enough"), "{fault:?}");
        assert_eq!(came, 10);
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 3);
        assert_eq!(source.page(None, 5, &mut |_| Ok(())).unwrap(), 5);
    });
}

/// The server's number of the only connection to the database beside the one that asks.
fn connection(database: &Database) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    let sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()";
    loop {
        // Connections that were closed a moment ago may still show.
        match database.query(sql).as_slice() {
            [only] => return only[0].clone().unwrap(),
            several => assert!(Instant::now() < deadline, "{several:?}"),
        }
    }
}

#[test]
fn a_statement_that_the_server_refuses_leaves_the_connection_good() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        let mut source = open(&database.url());
        let before = connection(&database);
        database.execute("RENAME TABLE t_invoice TO t_other");
        assert!(matches!(source.tenants(&FOREVER.into()), Err(SourceError::Statement(_))));
        database.execute("RENAME TABLE t_other TO t_invoice");
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 1);
        assert_eq!(connection(&database), before);
    });
}

#[test]
fn a_connection_that_is_killed_is_made_again() {
    on_every_flavor(|flavor| {
        let database = table_with(server(flavor), "INT", "DATETIME", &[("1", "NOW()")]);
        let mut source = open(&database.url());
        database.execute(&format!("KILL {}", connection(&database)));
        assert!(matches!(source.tenants(&FOREVER.into()), Err(SourceError::Connection(_))));
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 1);
    });
}

#[test]
fn whoever_wants_no_more_rows_does_not_make_the_server_send_the_rest() {
    on_every_flavor(|flavor| {
        let database = server(flavor).database();
        database.load_sample(24_552, 7, "1:40,10:40,89:20");
        let proxy = Proxy::to(&database.url());
        let mut source = open(&proxy.url());
        let enough = || Err(anyhow::anyhow!("enough"));
        assert!(matches!(source.page(None, 30_000, &mut |_| enough()), Err(SourceError::Consumer(_))));
        assert_eq!(source.tenants(&FOREVER.into()).unwrap().tenants.len(), 3);
        let sent = proxy.sent();
        assert!(sent < 30_000_000, "{sent} bytes of more than 60 million were sent");
    });
}

#[test]
fn another_server_behind_the_same_address_is_not_taken_for_the_first() {
    on_every_flavor(|flavor| {
        let mut first = Server::fresh(flavor);
        let database = table_with(&first, "INT", "DATETIME", &[("1", "NOW()")]);
        let url = database.url();
        let (_, name) = url.rsplit_once('/').unwrap();
        let second = server(flavor).database();
        second.execute(&format!("CREATE DATABASE {name}"));
        let proxy = Proxy::to(&url);
        let mut source = open(&proxy.url());
        let identity = source.identity().unwrap();
        assert_ne!(identity, open(&table_with(server(flavor), "INT", "DATETIME", &[]).url()).identity().unwrap());
        first.kill();
        proxy.aim(&second.url());
        assert!(matches!(source.clock(), Err(SourceError::Connection(_))));
        let fault = source.clock().unwrap_err();
        second.execute(&format!("DROP DATABASE {name}"));
        assert!(
            matches!(&fault, SourceError::Final(error) if error.to_string().contains("another server")),
            "{fault:?}"
        );
        first.restart();
        proxy.aim(&url);
        assert_eq!(source.identity().unwrap(), identity);
    });
}
