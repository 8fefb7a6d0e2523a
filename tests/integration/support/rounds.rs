//! How often a fault is tried: a little in every test run, much more with `scripts/test --faults`, and with
//! seeds, so that a failure can be repeated.

use std::any::Any;
use std::collections::hash_map::RandomState;
use std::env;
use std::fmt::Display;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Set by `scripts/test --faults`.
const CAMPAIGN: &str = "INVOICE_EXPORT_FAULTS";
/// Tries this seed and no other.
const SEED: &str = "INVOICE_EXPORT_SEED";

pub(crate) fn is_campaign() -> bool {
    env::var_os(CAMPAIGN).is_some_and(|value| !value.is_empty())
}

/// A small generator with a seed, so that a failure can be repeated.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).expect("a small number")]
    }
}

/// Plays a scenario with so many seeds: the same few every time, or many new ones in the campaign. Says
/// which ones failed.
#[track_caller]
pub(crate) fn with_seeds(plain: u64, campaign: u64, scenario: impl Fn(&mut Dice)) {
    let cases = seeds(plain, campaign).map(|seed| (named(seed), Dice::new(seed)));
    assert_all_hold(cases, |mut dice| scenario(&mut dice));
}

/// The seeds to be tried.
pub(crate) fn seeds(plain: u64, campaign: u64) -> Range<u64> {
    let given = env::var_os(SEED).filter(|seed| !seed.is_empty());
    let given = given.map(|seed| seed.to_str().and_then(|seed| seed.parse().ok()).expect("a seed"));
    let (first, rounds) = match given {
        Some(seed) => (seed, 1),
        None if is_campaign() => (RandomState::new().build_hasher().finish() >> 16, campaign),
        None => (0, plain),
    };
    first..first + rounds
}

/// How a seed is tried again.
pub(crate) fn named(seed: u64) -> String {
    format!("{SEED}={seed}")
}

/// Tries every case though some fail, and says which ones did.
#[track_caller]
pub(crate) fn assert_all_hold<T>(cases: impl IntoIterator<Item = (impl Display, T)>, check: impl Fn(T)) {
    let failures: Vec<String> =
        cases.into_iter().filter_map(|(name, case)| attempt(&name, || check(case)).err()).collect();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}

/// What a check returns, or its name and how it failed.
pub(crate) fn attempt<T>(name: &impl Display, check: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(check)).map_err(|panic| format!("{name}: {}", said(panic.as_ref())))
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message")
}

/// One line about how often a fault was tried, past the test harness, which shows only what failed.
pub(crate) fn tell(what: &str) {
    if is_campaign() {
        let _ = writeln!(std::io::stderr(), "[faults] {what}");
    }
}
