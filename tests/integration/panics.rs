//! Whatever panics below a command, in this program or in a package of it, ends in one line and an exit
//! code that is documented; what a server sent that made no sense is asked for again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::support::exporter::{Exporter, Finished, differences, run_with, table_tree};
use crate::support::proxy::{Proxy, Spoil};
use crate::support::rounds::is_campaign;
use crate::support::server::{Flavor, server};
use crate::support::table::{Row, Table, on_every_flavor};

const AT_ONCE: usize = 24;

#[track_caller]
fn assert_no_panic_in(finished: &Finished) {
    let told = &finished.stderr;
    assert!(!told.contains("panicked") && !told.contains("stack backtrace"), "{finished}");
}

#[track_caller]
fn assert_no_panic(finished: &Finished) {
    assert_no_panic_in(finished);
    assert!(matches!(finished.status.code(), Some(0 | 1 | 3)), "{finished}");
}

fn small_table(flavor: Flavor) -> Table {
    let table = Table::on(server(flavor));
    for id in 1..=4 {
        let (number, tenant) = (format!("INV{id}"), if id == 4 { "2" } else { "1" });
        table.insert(&Row { id, number: &number, tenant, ..Row::default() });
    }
    table
}

#[test]
fn a_spoiled_packet_is_asked_for_again_wherever_it_comes() {
    on_every_flavor(|flavor| {
        let table = small_table(flavor);
        let proxy = Proxy::to(&table.url());
        proxy.spoil(u64::MAX, Spoil::Empty);
        let through = |proxy: &Proxy| Exporter::in_memory(&table).env("INVOICE_EXPORT_SOURCE", proxy.url());
        through(&proxy).run(["run", "--mode", "incremental"]).expect(0);
        let packets = proxy.packets();
        let step = if is_campaign() { 1 } else { 16 };
        let spoils = [Spoil::Empty, Spoil::Cut, Spoil::Random(1), Spoil::Random(2)];
        let cases: Vec<_> =
            (0..4).flat_map(|n| (n..packets).step_by(step).map(move |at| (at, spoils[n as usize]))).collect();
        let next = AtomicUsize::new(0);
        thread::scope(|threads| {
            for _ in 0..AT_ONCE {
                threads.spawn(|| {
                    while let Some((at, how)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let proxy = Proxy::to(&table.url());
                        proxy.spoil(*at, *how);
                        let exporter = through(&proxy);
                        let run =
                            exporter.run(["run", "--mode", "incremental", "--retry-for", "5s", "--read-timeout", "1s"]);
                        assert_no_panic(&run);
                        // The run may have ended before its turn.
                        proxy.spoil(u64::MAX, Spoil::Empty);
                        let again = exporter.run(["run", "--mode", "incremental"]);
                        assert!(again.status.code() == Some(0), "{how:?} of packet {at}: {run}\n{again}");
                        let differences = differences(&table_tree(&table), &exporter.tree());
                        assert!(differences.is_empty(), "{how:?} of packet {at}: {run}\n{differences:?}");
                    }
                });
            }
        });
    });
}

#[test]
fn a_text_that_is_not_utf8_is_asked_for_again_wherever_it_comes() {
    on_every_flavor(|flavor| {
        let table = small_table(flavor);
        let proxy = Proxy::to(&table.url());
        proxy.spoil(u64::MAX, Spoil::Empty);
        let run = |proxy: &Proxy| {
            let exporter = Exporter::in_memory(&table).env("INVOICE_EXPORT_SOURCE", proxy.url());
            exporter.run(["run", "--mode", "incremental", "--retry-for", "1m", "--read-timeout", "1s"])
        };
        run(&proxy).expect(0);
        let cases: Vec<u64> = (0..proxy.packets()).step_by(if is_campaign() { 1 } else { 4 }).collect();
        let next = AtomicUsize::new(0);
        thread::scope(|threads| {
            for _ in 0..AT_ONCE {
                threads.spawn(|| {
                    while let Some(at) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let proxy = Proxy::to(&table.url());
                        proxy.spoil(*at, Spoil::NotUtf8);
                        let run = run(&proxy);
                        // A document has no other bytes than those that came.
                        let is_document = run.stderr.contains("the document is not UTF-8");
                        let expected = if is_document { 3 } else { 0 };
                        assert!(run.status.code() == Some(expected), "packet {at}: {run}");
                    }
                });
            }
        });
    });
}

#[test]
fn a_spoiled_packet_that_is_not_asked_for_again_is_one_error() {
    on_every_flavor(|flavor| {
        let table = small_table(flavor);
        let proxy = Proxy::to(&table.url());
        let exporter = Exporter::in_memory(&table).env("INVOICE_EXPORT_SOURCE", proxy.url());
        for at in [0, 1, 2, 3, 10] {
            proxy.spoil(at, Spoil::Empty);
            let run = exporter.run(["run", "--retry-for", "0s", "--format", "json", "--read-timeout", "1s"]).expect(1);
            assert_no_panic(&run);
            assert_eq!(run.json()["exit_code"], 1, "{run}");
            assert_eq!(run.stderr.matches("[ERROR]").count(), 1, "{run}");
        }
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn an_account_that_logs_in_with_ed25519_exports() {
    let table = small_table(Flavor::MariaDb);
    table.execute("INSTALL SONAME 'auth_ed25519'");
    table.execute("CREATE USER signs IDENTIFIED VIA ed25519 USING PASSWORD('secret')");
    table.execute("GRANT SELECT, PROCESS ON *.* TO signs");
    let url = table.url().replace("root@", "signs@");
    let exporter = Exporter::in_memory(&table).env("INVOICE_EXPORT_SOURCE", url).env("MYSQL_PWD", "secret");
    exporter.run(["run"]).expect(0);
    exporter.assert_agrees();
    let refused = exporter.env("MYSQL_PWD", "wrong").run(["run"]).expect(1);
    assert!(refused.stderr.contains("Access denied"), "{refused}");
    table.execute("DROP USER signs");
}

#[test]
fn threads_that_are_not_to_be_had_are_done_without_or_named() {
    on_every_flavor(|flavor| {
        let table = small_table(flavor);
        for nth in ["1", "2", "3", "4", "5", "1+", "2+", "3+", "4+", "5+"] {
            let exporter = Exporter::in_memory(&table);
            let run = run_with(&exporter, &format!("clone3:error=EAGAIN:when={nth}"), &["run", "--format", "json"]);
            assert_no_panic(&run);
            if run.status.code() == Some(1) {
                assert!(run.json()["error"].as_str().is_some_and(|text| text.contains("ulimit -u")), "{nth}: {run}");
            } else {
                exporter.assert_agrees();
            }
            exporter.run(["run"]).expect(0);
            exporter.assert_agrees();
            exporter.assert_state_is_sound();
        }
    });
}

#[test]
fn a_clock_before_1970_keeps_nothing_from_working() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let mut exporter = Exporter::in_memory(&table);
    exporter.set_clocks(1_764_347_400, -86_400);
    for args in [
        &["run"][..],
        &["run", "--mode", "incremental"],
        &["run", "--dry-run"],
        &["status"],
        &["history"],
        &["history", "last"],
        &["verify", "--against-source"],
        &["why", "INV1"],
        &["state", "backup"],
        &["state", "backups"],
        &["state", "check"],
        &["state", "set", "1", "2025-11-28", "--yes"],
        &["run", "--mode", "incremental"],
    ] {
        let finished = exporter.run(args);
        assert!(matches!(finished.status.code(), Some(0 | 6)), "{args:?}: {finished}");
        assert_no_panic_in(&finished);
    }
    exporter.assert_agrees();
}
