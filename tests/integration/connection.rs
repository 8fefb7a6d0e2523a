//! The connection to the server closed, reset or silent after every byte that may matter: logging in,
//! setting up the session, keys, documents. The run heals it or says what is wrong, and what it leaves
//! is whole: a plain rerun makes tree and table agree.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use mysql::Conn;
use mysql::prelude::Queryable;
use rustix::process::Signal;

use crate::support::exporter::{Finished, Running, numbers};
use crate::support::rounds::is_campaign;
use crate::support::server::{Flavor, Server, Settings, server};
use crate::support::{Break, Exporter, Proxy, Row, Table, on_every_flavor};

const TENANTS: &str = "1:0.6,10:0.3,89:0.1";
/// Up to here it is said who talks to whom, and how.
const PRELUDE: u64 = 2_048;
/// A server does not always say the same number of bytes: it lists what others ask it.
const SURPLUS: u64 = 4_000;
/// Runs beside each other; they mostly wait.
const RUNS_AT_ONCE: usize = 4;

fn table(server: &Server) -> Table {
    let table = Table::on(server);
    table.load_sample(60, 3, TENANTS);
    let large = format!(r#"["{}"]"#, "x".repeat(300_000));
    table.insert(&Row { id: 1000, number: "LARGE", document: &large, ..Row::default() });
    table
}

fn through<'a>(proxy: &Proxy, table: &'a Table) -> Exporter<'a> {
    Exporter::new(table).env("INVOICE_EXPORT_SOURCE", proxy.url())
}

/// Every so many bytes of the prelude, and then ever farther apart.
fn points(all: u64) -> Vec<u64> {
    let (step, factor) = if is_campaign() { (16, 1.1) } else { (331, 3.0) };
    // Within the first packet, and between it and the second one.
    let mut points = vec![3, 40];
    points.extend((0..PRELUDE).step_by(step));
    let mut at = PRELUDE as f64;
    while (at as u64) < all {
        points.push(at as u64);
        at *= factor;
    }
    points.retain(|at| *at < all - SURPLUS);
    points.push(all - SURPLUS);
    points
}

/// Runs with the connection broken once at each of these points. Each run must heal it.
fn break_at_every_point(mode: &str, how: Break, options: &[&str], points: impl Fn(u64) -> Vec<u64>) {
    on_every_flavor(|flavor| {
        // The processes of other tests would make answers longer or shorter.
        let own = Server::fresh(flavor);
        let table = table(&own);
        let proxy = Proxy::to(&table.url());
        through(&proxy, &table).run(["run", "--mode", mode]).expect(0);
        let points = points(proxy.sent());
        let next = AtomicUsize::new(0);
        thread::scope(|threads| {
            for _ in 0..RUNS_AT_ONCE {
                threads.spawn(|| {
                    let proxy = Proxy::to(&table.url());
                    while let Some(&at) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let exporter = through(&proxy, &table);
                        proxy.break_once(at, how);
                        let finished = exporter.run(["run", "--mode", mode].iter().chain(options));
                        let place = format!("{mode}, {how:?} after {at} bytes");
                        assert_eq!(finished.status.code(), Some(0), "{place}: {finished}");
                        assert!(finished.stderr.contains("; trying again in "), "{place}: {finished}");
                        assert_eq!(exporter.ask_one("SELECT retries FROM run"), "1", "{place}: {finished}");
                        exporter.assert_agrees();
                        exporter.assert_state_is_sound();
                    }
                });
            }
        });
    });
}

#[test]
fn a_full_run_heals_a_connection_that_is_closed_at_any_byte() {
    break_at_every_point("full", Break::Close, &[], points);
}

#[test]
fn an_incremental_run_heals_a_connection_that_is_closed_at_any_byte() {
    break_at_every_point("incremental", Break::Close, &[], points);
}

#[test]
fn a_full_run_heals_a_connection_that_is_reset_at_any_byte() {
    break_at_every_point("full", Break::Reset, &[], points);
}

#[test]
fn an_incremental_run_heals_a_connection_that_is_reset_at_any_byte() {
    break_at_every_point("incremental", Break::Reset, &[], points);
}

#[test]
fn a_run_gives_a_silent_server_up_and_asks_it_again() {
    let few = |all| {
        let points = points(all);
        let every = if is_campaign() { 4 } else { 3 };
        points.into_iter().step_by(every).collect()
    };
    break_at_every_point("incremental", Break::Stall, &["--read-timeout", "2s"], few);
}

/// More rows than are asked for at once, and how many bytes a run gets that reads them all.
fn pages_of_rows(flavor: Flavor) -> (Table, Proxy, u64) {
    let table = Table::on(server(flavor));
    table.load_sample(2_000, 3, TENANTS);
    let proxy = Proxy::to(&table.url());
    let before = proxy.sent();
    through(&proxy, &table).run(["run"]).expect(0);
    let bytes = proxy.sent() - before;
    (table, proxy, bytes)
}

#[test]
fn what_has_come_is_published_and_on_record_while_the_server_says_nothing() {
    on_every_flavor(|flavor| {
        let (table, proxy, bytes) = pages_of_rows(flavor);
        let exporter = through(&proxy, &table);
        proxy.break_once(bytes / 2, Break::Stall);
        let run = exporter.spawn(["run", "--read-timeout", "1m", "--retry-for", "0s"]);
        let on_record = || {
            let shown = exporter.run(["history", "last", "--format", "json"]);
            if shown.status.success() { numbers(&shown.json(), ["written"])[0] } else { 0 }
        };
        // A packet of rows that is not full waits for more.
        while on_record() < 900 {
            assert!(run.is_alive(), "it ended with {} files on record", on_record());
        }
        assert!(exporter.tree().len() >= 900);
        run.signal(Signal::TERM);
        run.wait().expect(143);
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

/// One clear line about the connection, and no success.
#[track_caller]
fn assert_fails_clearly(finished: &Finished, place: &str) {
    assert_eq!(finished.status.code(), Some(1), "{place}: {finished}");
    let error = finished.error();
    assert!(error.contains("connect") && error.contains("check "), "{place}: {finished}");
}

#[test]
fn a_run_without_retries_fails_clearly_at_any_byte_and_the_next_one_goes_on() {
    on_every_flavor(|flavor| {
        let table = table(server(flavor));
        let proxy = Proxy::to(&table.url());
        for mode in ["full", "incremental"] {
            proxy.break_no_more();
            let before = proxy.sent();
            through(&proxy, &table).run(["run", "--mode", mode]).expect(0);
            for at in points(proxy.sent() - before) {
                let exporter = through(&proxy, &table);
                proxy.break_once(at, if at % 2 == 0 { Break::Close } else { Break::Reset });
                let finished = exporter.run(["run", "--mode", mode, "--retry-for", "0s"]);
                let place = format!("{mode}, broken after {at} bytes");
                assert_fails_clearly(&finished, &place);
                exporter.run(["run", "--mode", mode]).expect(0);
                exporter.assert_agrees();
                exporter.assert_state_is_sound();
            }
        }
    });
}

#[test]
fn a_line_that_breaks_again_and_again_still_brings_every_page_to_its_end() {
    on_every_flavor(|flavor| {
        let (table, proxy, bytes) = pages_of_rows(flavor);
        // Less than one page of rows passes before the line breaks.
        proxy.break_each(bytes / 6, Break::Reset);
        for mode in ["full", "incremental"] {
            let exporter = through(&proxy, &table);
            // Rows that come are progress: without them it would give up long before the end.
            let finished = exporter.run(["run", "--mode", mode, "--retry-for", "1s"]).expect(0);
            assert!(finished.stderr.matches("; trying again in ").count() > 3, "{finished}");
            exporter.assert_agrees();
            exporter.assert_state_is_sound();
        }
        // Nothing comes through a line like that, however often it is tried.
        proxy.break_each(1_500, Break::Close);
        let exporter = through(&proxy, &table);
        let finished = exporter.run(["run", "--mode", "incremental", "--retry-for", "1s"]);
        assert_fails_clearly(&finished, "broken for ever");
        proxy.break_no_more();
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        exporter.assert_agrees();
    });
}

/// How long the server has tried to hand rows to the exporter, in seconds.
fn writing_for(conn: &mut Conn) -> Option<u64> {
    conn.query_first(
        "SELECT `TIME` FROM information_schema.PROCESSLIST WHERE COMMAND = 'Execute' AND INFO LIKE '%fext_field%'",
    )
    .expect("ask for processes")
}

/// Stops the exporter while the server hands it rows, until this is met.
fn stop_until(run: &Running, conn: &mut Conn, mut met: impl FnMut(&mut Conn, Option<u64>) -> bool) {
    loop {
        assert!(run.is_alive(), "it ended before it could be stopped");
        run.signal(Signal::STOP);
        let is_met = loop {
            let waits = writing_for(conn);
            let is_met = met(conn, waits);
            if is_met || waits.is_none() {
                break is_met;
            }
        };
        run.signal(Signal::CONT);
        if is_met {
            return;
        }
    }
}

/// How many connections the server has given up.
fn given_up(conn: &mut Conn) -> u64 {
    let status: Option<(String, u64)> = conn.query_first("SHOW GLOBAL STATUS LIKE 'Aborted_clients'").expect("ask");
    status.expect("a server counts them").1
}

#[test]
fn a_server_that_soon_loses_patience_with_slow_readers_has_some_with_this_one() {
    on_every_flavor(|flavor| {
        let settings = Settings { options: &["--net-write-timeout=1", "--net-retry-count=1"], ..Settings::default() };
        let own = Server::fresh_with(flavor, settings);
        let table = Table::on(&own);
        let document = format!(r#"["{}"]"#, "x".repeat(60_000));
        for id in 1..=900 {
            table.insert(&Row { id, number: &format!("INV{id}"), document: &document, ..Row::default() });
        }
        let Table::Server(database) = &table else { unreachable!("it lies on a server") };
        let mut conn = database.connect();
        for mode in ["full", "incremental"] {
            let exporter = Exporter::new(&table);
            let run = exporter.spawn(["run", "--mode", mode, "--format", "json"]);
            let before = given_up(&mut conn);
            stop_until(&run, &mut conn, |conn, waits| {
                waits.is_some_and(|seconds| seconds >= 4) || given_up(conn) > before
            });
            assert_eq!(run.wait().expect(0).json()["retries"], 0);
            exporter.assert_agrees();

            // The same with a server that keeps to its second whatever the session asks for.
            let proxy = Proxy::to(&table.url());
            proxy.change(&[(".net_write_timeout, 600)", ".net_write_timeout, 001)")]);
            let exporter = through(&proxy, &table);
            let run = exporter.spawn(["run", "--mode", mode, "--format", "json"]);
            let before = given_up(&mut conn);
            stop_until(&run, &mut conn, |conn, _| given_up(conn) > before);
            let summary = run.wait().expect(0).json();
            assert!(summary["retries"].as_u64() > Some(0), "{summary}");
            assert_eq!(summary["written"], 900, "{summary}");
            exporter.assert_agrees();
        }
    });
}
