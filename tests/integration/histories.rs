//! Random histories: whatever happens to invoices, transactions, clocks and runs, nothing is lost.
//!
//! `steps.rs` is what may happen, `world.rs` where it happens: `rows.rs` in the table, `faults.rs` around a run.
//! `reference.rs` is what it must come to, with what `clocks.rs` makes of the time and `identity.rs` of old files;
//! `verdict.rs` looks whether it has come to that.

use std::sync::Mutex;
use std::thread;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::steps::{Pace, REAL, Step, TOLD};
use self::world::{Story, World};
use crate::support::rounds::{attempt, named, seeds, tell};
use crate::support::{Flavor, Server, Table};

mod clocks;
mod faults;
mod identity;
mod reference;
mod rows;
mod steps;
mod verdict;
mod world;

/// A history starts a dozen processes, so what failed is made shorter with patience but not for ever.
const SHRINK_AT_MOST: u32 = 200;

#[test]
fn whatever_happens_nothing_is_lost() {
    survive("embedded source", &TOLD, 100, 4000, Table::in_memory);
}

#[test]
fn whatever_happens_on_mariadb_nothing_is_lost() {
    survive_on_a_server(Flavor::MariaDb);
}

#[test]
fn whatever_happens_on_mysql_nothing_is_lost() {
    survive_on_a_server(Flavor::MySql);
}

/// On a server of their own: transactions that histories leave open, and looks at them by many runs at once, would
/// have the runs of other tests read rows again.
fn survive_on_a_server(flavor: Flavor) {
    let server = Server::fresh(flavor);
    survive(&format!("{flavor:?}"), &REAL, 3, 60, || Table::on(&server));
}

/// As many at once as there are processors: most of the time goes into waiting for processes.
fn survive(place: &str, pace: &'static Pace, plain: u64, campaign: u64, table: impl Fn() -> Table + Sync) {
    let seeds = seeds(plain, campaign);
    tell(&format!("{} histories on {place}", seeds.end - seeds.start));
    let (seeds, failures) = (Mutex::new(seeds), Mutex::new(Vec::new()));
    // What is broken in one is broken in many, and each takes its time to be made short.
    let next = || failures.lock().unwrap().is_empty().then(|| seeds.lock().unwrap().next()).flatten();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    let failure = failure(seed, pace, &table);
                    failures.lock().unwrap().extend(failure);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// What goes wrong in the history of this seed, and in the shortest one found that is like it.
fn failure(seed: u64, pace: &'static Pace, table: &impl Fn() -> Table) -> Option<String> {
    let config = Config { cases: 1, max_shrink_iters: SHRINK_AT_MOST, failure_persistence: None, ..Config::default() };
    let bytes = [seed.to_le_bytes(); 4].concat();
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let result = runner.run(&steps::histories(pace), |history| {
        let story = Story::default();
        attempt(&named(seed), || live_through(&table(), pace, &history, &story))
            .map_err(|what| TestCaseError::fail(format!("{what}\nafter this history:\n{}", story.told())))
    });
    match result {
        Ok(()) => None,
        Err(TestError::Fail(why, _) | TestError::Abort(why)) => Some(why.message().to_owned()),
    }
}

fn live_through(table: &Table, pace: &'static Pace, history: &[Step], story: &Story) {
    let mut world = World::new(table, pace, story);
    for step in history {
        world.live_through(step);
    }
    world.end();
}
