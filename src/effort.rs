//! What this process has asked of its databases so far. `--verbose` shows it, and a test holds every
//! statement that a run costs (`tests/integration/costs.rs`).

use std::sync::atomic::{AtomicU64, Ordering};

static SOURCE: AtomicU64 = AtomicU64::new(0);
static STATE: AtomicU64 = AtomicU64::new(0);

/// Numbers of SQL statements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    pub source: u64,
    pub state: u64,
}

impl Effort {
    pub fn so_far() -> Self {
        Self { source: SOURCE.load(Ordering::Relaxed), state: STATE.load(Ordering::Relaxed) }
    }
}

pub(crate) fn asked_the_source() {
    SOURCE.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn asked_the_state() {
    STATE.fetch_add(1, Ordering::Relaxed);
}
