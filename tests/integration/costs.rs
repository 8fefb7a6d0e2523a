//! What an invoice costs, counted and not timed, so that a change that makes runs dearer is seen whatever
//! the mood of the machine. A price may fall: then the table below says so, and BENCHMARKS.md why.

use std::time::Duration;

use crate::support::exporter::{Exporter, all_calls, numbers};
use crate::support::scene::{FULL, INCREMENTAL};
use crate::support::table::{Row, Table};

/// Two tables, both smaller than a first batch: what their runs cost alike is the price of a run, the
/// rest that of so many invoices.
const FEW: i64 = 64;
const MANY: i64 = FEW + 128;

/// A debug build of the standard library looks at each file that it closes.
const CLOSED: i64 = if cfg!(debug_assertions) { 128 } else { 0 };

/// Calls and statements for 128 more invoices in packets of 32, by one writer on an embedded source: of a
/// first full run, of one that finds nothing changed, and of an incremental run that finds nothing new.
#[rustfmt::skip]
const PRICES: [(&str, [i64; 3]); 14] = [
    // In a new folder: make it, write it, give it its name. Or else: is the file there?
    ("openat2",                  [0, 0, 0]),
    ("openat",                   [128, 0, 0]),
    ("write",                    [128, 0, 0]),
    ("linkat",                   [128, 0, 0]),
    ("close",                    [128, 0, 0]),
    ("renameat",                 [0, 0, 0]),
    ("newfstatat",               [0, 128, 0]),
    ("unlinkat",                 [0, 0, 0]),
    ("mkdirat",                  [0, 0, 0]),
    // Syncs and SQLite's locks are paid by the batch and by the packet.
    ("fsync",                    [0, 0, 0]),
    ("syncfs",                   [0, 0, 0]),
    ("fcntl",                    [CLOSED, 8, 0]),
    ("statements to the source", [0, 0, 0]),
    // By invoice: what the ledger has; enter it. By packet: begin, commit. A first run asks a ledger that was
    // empty nothing of what it has not given out itself.
    ("statements to the state",  [128, 136, 128]),
];

fn costs(rows: i64, before: &[&str], args: &[&str]) -> Vec<i64> {
    let table = Table::embedded();
    let time = table.ago(Duration::from_secs(3_000));
    for id in 1..=rows {
        let (country, number) = (["CN", "DE"][id as usize % 2], format!("INV{id:03}"));
        table.insert(&Row { id, country: Some(country), number: &number, time: &time, ..Row::default() });
    }
    let exporter = Exporter::new(&table);
    if !before.is_empty() {
        exporter.run(before).expect(0);
        // The second is the first that finds no new folder, tenant or window.
        exporter.run(before).expect(0);
    }
    let calls: Vec<&str> = PRICES.iter().map(|(what, _)| *what).filter(|what| !what.contains(' ')).collect();
    let args: Vec<&str> = args.iter().chain(&["--format", "json"]).copied().collect();
    let (calls, finished) = all_calls(&exporter, &calls, &args);
    let [source, state] = numbers(&finished.expect(0).json(), ["source_statements", "state_statements"]);
    let statements = [("statements to the source", source as u32), ("statements to the state", state as u32)];
    let counts: Vec<(&str, u32)> = calls.into_iter().chain(statements).collect();
    let count = |what| counts.iter().find(|(counted, _)| *counted == what).map(|(_, count)| i64::from(*count));
    PRICES.iter().map(|(what, _)| count(*what).expect("it was counted")).collect()
}

#[test]
fn an_invoice_costs_what_it_did() {
    let runs: [(&[&str], &[&str]); 3] = [(&[], &FULL), (&FULL, &FULL), (&INCREMENTAL, &INCREMENTAL)];
    let [full, unchanged, empty] = runs.map(|(before, args)| {
        let (few, many) = (costs(FEW, before, args), costs(MANY, before, args));
        many.into_iter().zip(few).map(|(many, few)| many - few).collect::<Vec<i64>>()
    });
    let now: Vec<(&str, [i64; 3])> =
        PRICES.iter().enumerate().map(|(n, (what, _))| (*what, [full[n], unchanged[n], empty[n]])).collect();
    assert_eq!(now, PRICES);
}
