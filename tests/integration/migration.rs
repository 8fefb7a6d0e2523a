//! The migration for MySQL and MariaDB: the index it makes, online, and once.

use std::sync::mpsc;
use std::thread;

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::sample::{Sample, server_table};
use crate::support::{Database, Flavor, on_every_flavor, server};

const MIGRATION: &str = include_str!("../../migrations/V2025112801__add_incremental_export_index.sql");
const COLUMNS: [&str; 3] = ["ftenant_id", "fissue_status", "fupdate_time"];

/// Statement by statement in one session, as Flyway does.
fn migrate(session: &mut Conn) -> mysql::Result<()> {
    let code: Vec<&str> = MIGRATION.lines().filter(|line| !line.starts_with("--")).collect();
    code.join("\n").split(';').filter(|sql| !sql.trim().is_empty()).try_for_each(|sql| session.query_drop(sql))
}

fn refused(database: &Database) -> u16 {
    match migrate(&mut database.connect()) {
        Err(mysql::Error::MySqlError(error)) => error.code,
        other => panic!("the server should refuse: {other:?}"),
    }
}

fn filled_table(flavor: Flavor) -> Database {
    let database = server(flavor).database();
    database.create_table();
    database.load(&Sample::new(5_000, 1, "1:0.6,10:0.3,89:0.1"));
    database
}

fn index_columns(database: &Database) -> Vec<String> {
    let rows = database.query(
        "SELECT column_name FROM information_schema.statistics WHERE table_schema = DATABASE()
         AND index_name = 'idx_incremental_export' ORDER BY seq_in_index",
    );
    rows.into_iter().flatten().flatten().collect()
}

/// Writes rows, and says so after each one, until nobody listens any more.
fn write_rows(mut session: Conn, wrote: &mpsc::Sender<()>) -> mysql::Result<()> {
    while wrote.send(()).is_ok() {
        session.query_drop(
            "INSERT INTO t_invoice (ftenant_id, fcountry, fissue_date, finvoice_no, fissue_status, fext_field)
             VALUES ('10', 'CN', '2025-11-28', 'NEW', 3, '{}')",
        )?;
    }
    Ok(())
}

#[test]
fn the_migration_makes_the_index_twice_while_a_writer_goes_on() {
    on_every_flavor(|flavor| {
        let database = filled_table(flavor);
        let (wrote, written) = mpsc::channel();
        let session = database.connect();
        let writer = thread::spawn(move || write_rows(session, &wrote));
        for _ in 0..2 {
            written.recv().expect("the writer goes on");
            migrate(&mut database.connect()).unwrap();
            written.try_iter().for_each(drop);
        }
        written.recv().expect("the writer goes on after the migration");
        drop(written);
        writer.join().unwrap().unwrap();
        assert_eq!(index_columns(&database), COLUMNS);
        let checked = database.query("CHECK TABLE t_invoice EXTENDED");
        assert_eq!(checked[0][3].as_deref(), Some("OK"), "{checked:?}");
    });
}

#[test]
fn the_migration_fails_rather_than_lock_the_table() {
    on_every_flavor(|flavor| {
        let database = server(flavor).database();
        // This engine cannot build an index while the table is written.
        database.execute(&format!("{} ENGINE=MyISAM", server_table()));
        assert!([1845, 1846].contains(&refused(&database)));
        assert!(index_columns(&database).is_empty());
    });
}

#[test]
fn the_migration_complains_about_an_index_of_its_name_with_other_columns() {
    on_every_flavor(|flavor| {
        let database = server(flavor).database();
        database.create_table();
        database.execute("CREATE INDEX idx_incremental_export ON t_invoice (ftenant_id, fupdate_time, fissue_status)");
        assert_eq!(refused(&database), 1061);
        assert_eq!(index_columns(&database), ["ftenant_id", "fupdate_time", "fissue_status"]);
    });
}

#[test]
fn the_migration_leaves_the_sessions_settings_as_they_were() {
    on_every_flavor(|flavor| {
        let database = server(flavor).database();
        database.create_table();
        let mut session = database.connect();
        session.query_drop("SET lock_wait_timeout = 77").unwrap();
        migrate(&mut session).unwrap();
        assert_eq!(session.query_first::<u32, _>("SELECT @@SESSION.lock_wait_timeout").unwrap(), Some(77));
    });
}

/// Without the index these queries of an export read the table; with it they read the index alone.
#[test]
fn the_migration_lets_keys_be_read_from_the_index_alone() {
    on_every_flavor(|flavor| {
        let database = filled_table(flavor);
        let explain = |sql: &str| database.query(&format!("EXPLAIN FORMAT=TRADITIONAL {sql}")).remove(0);
        let plan = |sql: &str| explain(sql).pop().flatten().unwrap_or_default();
        let newest = "SELECT ftenant_id, MAX(fupdate_time) FROM t_invoice WHERE fissue_status = 3 GROUP BY ftenant_id";
        let keys = "SELECT fid, fupdate_time FROM t_invoice WHERE ftenant_id = '10' AND fissue_status = 3
                    AND fupdate_time > '2025-11-20' ORDER BY fupdate_time, fid";
        assert!(!plan(newest).contains("Using index") && !plan(keys).contains("Using index"));
        migrate(&mut database.connect()).unwrap();
        database.execute("ANALYZE TABLE t_invoice");
        assert!(plan(newest).contains("Using index for group-by"), "{}", plan(newest));
        assert!(plan(keys).contains("Using index") && !plan(keys).contains("filesort"), "{}", plan(keys));
    });
}
