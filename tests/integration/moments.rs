//! Source times that come twice or many times over: an hour that a clock goes through twice, and
//! thousands of rows in one second, more than a page of anything.

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::exporter::numbers;
use crate::support::server::{Server, Settings, server};
use crate::support::{Database, Exporter, Row, Table, on_every_flavor};

fn database(table: &Table) -> &Database {
    match table {
        Table::Server(database) => database,
        Table::Embedded(_) => unreachable!("it lies on a server"),
    }
}

fn execute(conn: &mut Conn, sql: &str) {
    conn.query_drop(sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
}

/// A row that is written at this moment, given in UTC, with the time that its server's clock shows.
fn write(conn: &mut Conn, id: u32, moment: &str) {
    execute(conn, &format!("SET timestamp = TIMESTAMPDIFF(SECOND, '1970-01-01', '{moment}')"));
    let row = format!("({id}, '1', 'CN', '2025-10-26', 'INV{id}', 3, '{{}}', DEFAULT)");
    execute(conn, &format!("INSERT INTO t_invoice VALUES {row}"));
}

/// In Berlin, 02:00 to 03:00 came twice on 2025-10-26. What a server writes as DATETIME goes back by an
/// hour then, which the overlap covers; a TIMESTAMP does not, so it needs none.
#[test]
fn what_is_written_while_a_clock_goes_through_an_hour_again_is_exported() {
    on_every_flavor(|flavor| {
        let options = &["--default-time-zone=SYSTEM"];
        let own = Server::fresh_with(flavor, Settings { os_zone: "Europe/Berlin", options });
        for (kind, overlap, shown) in [
            ("DATETIME", "1h", "2025-10-26 02:10:30"),
            ("DATETIME(6)", "1h", "2025-10-26 02:10:30.000000"),
            ("TIMESTAMP", "0s", "2025-10-26 01:10:30"),
            ("TIMESTAMP(3)", "0s", "2025-10-26 01:10:30.000"),
        ] {
            let table = Table::on(&own);
            let mut conn = database(&table).connect();
            let now = format!("CURRENT_TIMESTAMP{}", kind.trim_start_matches(char::is_alphabetic));
            execute(&mut conn, &format!("ALTER TABLE t_invoice MODIFY fupdate_time {kind} NOT NULL DEFAULT {now}"));
            let exporter = Exporter::new(&table);
            let export = |written: u64, late: u64| {
                let args = ["run", "--mode", "incremental", "--overlap", overlap, "--format", "json"];
                let summary = exporter.run(args).expect(0).json();
                assert_eq!(numbers(&summary, ["written", "late"]), [written, late], "{kind}: {summary}");
                exporter.assert_agrees();
            };
            // 02:10 and 02:56, before the clock is put back.
            write(&mut conn, 1, "2025-10-26 00:10:00");
            export(1, 0);
            write(&mut conn, 2, "2025-10-26 00:56:00");
            export(1, 1);
            // 02:10 and 02:56 once more, and then 03:10.
            write(&mut conn, 3, "2025-10-26 01:10:30");
            write(&mut conn, 4, "2025-10-26 01:56:00");
            write(&mut conn, 5, "2025-10-26 02:10:00");
            export(3, 3);
            assert_eq!(exporter.ask_one("SELECT time FROM ledger WHERE id = '3'"), shown, "{kind}");
        }
    });
}

/// Rows from this number on, all in one second and with documents that differ.
fn write_many(conn: &mut Conn, first: u32, count: u32, time: &str) {
    for start in (first..first + count).step_by(2_000) {
        let rows: Vec<String> = (start..(start + 2_000).min(first + count))
            .map(|id| format!("({id}, '1', 'CN', '2025-11-28', 'INV{id}', 3, '[{id}]', '{time}')"))
            .collect();
        execute(conn, &format!("INSERT INTO t_invoice VALUES {}", rows.join(", ")));
    }
}

#[test]
fn more_rows_of_one_second_than_any_page_or_batch_holds_are_all_exported() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let mut conn = database(&table).connect();
        let (time, later) = ("2025-11-28 15:00:00", "2025-11-28 15:00:01");
        write_many(&mut conn, 1, 10_001, time);
        let exporter = Exporter::new(&table);
        let export = |mode| exporter.run(["run", "--mode", mode, "--format", "json"]).expect(0).json();
        let counts = |mode| numbers(&export(mode), ["written", "unchanged"]);
        assert_eq!(counts("incremental"), [10_001, 0]);
        exporter.assert_agrees();
        assert_eq!(counts("full"), [0, 10_001]);
        // More of the same second, and changes on both sides of the border between two pages of keys.
        write_many(&mut conn, 20_001, 10_000, time);
        execute(&mut conn, "UPDATE t_invoice SET fext_field = '{}', fupdate_time = fupdate_time WHERE fid = 7");
        execute(
            &mut conn,
            &format!(
                "UPDATE t_invoice SET fext_field = '[0]', fupdate_time = '{later}' WHERE fid IN (1, 9999, 10000, 10001)"
            ),
        );
        assert_eq!(numbers(&export("incremental"), ["written", "late"]), [10_004, 10_000]);
        // The one that changed without a new time is for a full run.
        assert_eq!(counts("full"), [1, 20_000]);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

/// The same row, the same second, once more: an hour later, when only the server shows an earlier time, and after the
/// clock of a machine that has both went back.
#[test]
fn a_change_with_the_old_time_in_the_hour_that_comes_again_is_exported() {
    let shows = |time: &str| chrono::NaiveDateTime::parse_from_str(time, "%F %T").unwrap().and_utc().timestamp();
    let noon = shows("2025-10-26 12:00:00");
    for (time, first, second, passed) in [
        ("2025-10-26 02:10:00", "2025-10-26 02:30:00", "2025-10-26 02:40:00", 4_200),
        ("2025-10-26 04:20:00", "2025-10-26 12:00:00", "2025-10-26 05:00:00", -7 * 3_600),
    ] {
        let table = Table::embedded();
        let mut exporter = Exporter::new(&table);
        table.insert(&Row { time, ..Row::default() });
        exporter.set_clocks(shows(first), noon);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        table.execute("UPDATE t_invoice SET fext_field = '[2]'");
        exporter.set_clocks(shows(second), noon + passed);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        exporter.assert_agrees();
    }
}
