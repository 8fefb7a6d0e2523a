//! A server that goes away in the middle of a run.

use std::fs;
use std::path::Path;

use crate::support::exporter::Exporter;
use crate::support::server::{Flavor, Server};
use crate::support::table::Table;

const TENANTS: &str = "1:0.6,10:0.3,89:0.1";

fn wait_for_files(output: &Path) {
    let published = || {
        fs::read_dir(output).is_ok_and(|mut entries| entries.any(|entry| entry.unwrap().file_name() != ".export_state"))
    };
    while !published() {
        std::thread::yield_now();
    }
}

#[test]
fn a_server_that_is_restarted_in_the_middle_of_a_run_costs_a_pause_and_no_invoice() {
    let mut own = Server::fresh(Flavor::MariaDb);
    let table = Table::on(&own);
    table.load_sample(24_552, 1, TENANTS);
    let exporter = Exporter::new(&table);
    let run = exporter.spawn(["run", "--format", "json"]);
    wait_for_files(&exporter.output());
    own.kill();
    own.restart();
    let finished = run.wait().expect(0);
    let summary = finished.json();
    assert!(summary["retries"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(summary["written"], summary["seen"], "{summary}");
    exporter.assert_agrees();
}

#[test]
fn a_server_that_stays_away_fails_the_run_and_what_was_recorded_stands() {
    let mut own = Server::fresh(Flavor::MariaDb);
    let table = Table::on(&own);
    table.load_sample(24_552, 1, TENANTS);
    let exporter = Exporter::new(&table);
    let run = exporter.spawn(["run", "--retry-for", "1s"]);
    wait_for_files(&exporter.output());
    own.kill();
    let finished = run.wait().expect(1);
    assert!(finished.stderr.contains("trying again"), "{}", finished.stderr);
    own.restart();
    let before = exporter.stamps();
    exporter.run(["run"]).expect(0);
    exporter.assert_agrees();
    let after = exporter.stamps();
    assert!(before.iter().all(|(path, stamp)| after.get(path) == Some(stamp)), "a recorded file was written again");
}
