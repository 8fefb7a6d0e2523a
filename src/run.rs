//! One execution: its kind, its outcome, its counts, who started it.

use std::fmt;
use std::ops::{AddAssign, SubAssign};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::effort::Effort;
use crate::invoice::{SourceTime, Tenant};
use crate::refusal::Trouble;

/// The number of a run; greater is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub i64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a run reads, and whether it moves watermarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every invoice; moves no watermark.
    Full,
    /// What changed since the watermark; moves it.
    Incremental,
    /// Every invoice of a given window; moves no watermark.
    Backfill,
    /// `verify --repair` and `--prune`: what was found to differ; moves no watermark.
    Verify,
}

impl Kind {
    /// The word used in the state, in messages and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
            Self::Backfill => "backfill",
            Self::Verify => "verify",
        }
    }
}

/// What came of a run that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Done, but a tenant failed or rows were newly rejected.
    Partial,
}

impl Outcome {
    /// The word used in the state and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Partial => "partial",
        }
    }
}

/// Every row read is accounted for: written + unchanged + rejected + gone = seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Invoices whose document was asked for.
    pub seen: u64,
    /// Files written, new or changed.
    pub written: u64,
    /// Invoices whose file was right already.
    pub unchanged: u64,
    /// Invoices that cannot be exported, newly or still.
    pub rejected: u64,
    /// Rows that were no invoice any more when their document was asked for.
    pub gone: u64,
    /// Of the seen ones: those below the watermark that earlier runs could not see.
    pub late: u64,
    /// Seconds that the latest of them lay below the watermark.
    pub late_by: u64,
    /// Files removed because their invoice has a new path.
    pub removed: u64,
    /// Bytes of the written files.
    pub bytes: u64,
}

impl Counts {
    pub fn balances(&self) -> bool {
        self.written + self.unchanged + self.rejected + self.gone == self.seen
    }

    /// Counts a late arrival, if it is one: by so many seconds.
    pub fn late(&mut self, by: Option<u64>) {
        self.late += u64::from(by.is_some());
        self.late_by = self.late_by.max(by.unwrap_or_default());
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.seen += other.seen;
        self.written += other.written;
        self.unchanged += other.unchanged;
        self.rejected += other.rejected;
        self.gone += other.gone;
        self.late += other.late;
        self.late_by = self.late_by.max(other.late_by);
        self.removed += other.removed;
        self.bytes += other.bytes;
    }
}

/// Why a file stays though its invoice has another path: that it is the same invoice is not proven, or the file could
/// not be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WhyKept {
    /// The id carries another number now, or the same number of another year.
    Number,
    /// The id belongs to another tenant now.
    Tenant,
    /// The table is not provably the one in which the row was read.
    Table,
    /// It is provably superseded, but is not what we wrote, or its folder is not ours to change.
    NotRemoved,
}

impl WhyKept {
    /// The word in the state and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Tenant => "tenant",
            Self::Table => "table",
            Self::NotRemoved => "not-removed",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        [Self::Number, Self::Tenant, Self::Table, Self::NotRemoved].into_iter().find(|why| why.as_str() == word)
    }
}

/// Takes back what was counted. How late the latest arrival was stays known.
impl SubAssign for Counts {
    fn sub_assign(&mut self, other: Self) {
        let take = |from: &mut u64, back: u64| *from = from.saturating_sub(back);
        take(&mut self.seen, other.seen);
        take(&mut self.written, other.written);
        take(&mut self.unchanged, other.unchanged);
        take(&mut self.rejected, other.rejected);
        take(&mut self.gone, other.gone);
        take(&mut self.late, other.late);
        take(&mut self.removed, other.removed);
        take(&mut self.bytes, other.bytes);
    }
}

/// Set from outside when a run is to stop at its next checkpoint: the number of a signal, 0 before.
#[derive(Clone, Debug, Default)]
pub struct Cancel(pub Arc<AtomicUsize>);

/// How often somebody who waits looks whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Cancel {
    /// The signal that asks to stop, if one did.
    pub fn signal(&self) -> Option<u8> {
        u8::try_from(self.0.load(Ordering::Relaxed)).ok().filter(|signal| *signal > 0)
    }

    /// Waits, unless it is to stop.
    pub fn sleep(&self, span: Duration) {
        let since = Instant::now();
        while self.signal().is_none()
            && let Some(rest) = span.checked_sub(since.elapsed())
        {
            thread::sleep(rest.min(LOOK_EVERY));
        }
    }
}

/// How long a machine has been up, sleep included. Setting its clock does not change that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uptime {
    /// The kernel's name for the time since it was started.
    pub boot: String,
    /// Milliseconds of `CLOCK_BOOTTIME`.
    pub ms: i64,
}

/// Our own clocks, which come in from outside.
#[derive(Clone, Copy)]
pub struct OwnClocks {
    pub now: fn() -> DateTime<Utc>,
    /// None where the kernel does not say which start it counts from.
    pub uptime: fn() -> Option<Uptime>,
}

/// Who started a run, for the record.
#[derive(Clone, Debug)]
pub struct Starter {
    pub user: String,
    pub host: String,
    pub pid: u32,
    /// The command line; it never holds a secret, passwords on it are refused.
    pub command_line: String,
    pub at: DateTime<Utc>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// None for a dry run, which is not recorded.
    pub run: Option<RunId>,
    pub kind: Kind,
    pub outcome: Outcome,
    pub boundary: SourceTime,
    pub since: Option<SourceTime>,
    /// How many tenants were looked at.
    pub tenants: u64,
    pub failed_tenants: Vec<(Tenant, Trouble)>,
    pub counts: Counts,
    pub new_rejects: u64,
    pub open_rejects: u64,
    /// Files that were left, since it is not proven that they are superseded.
    pub leftovers: u64,
    /// Attempts after a lost connection.
    pub retries: u64,
    /// What it asked of source and state.
    pub effort: Effort,
    pub elapsed: Duration,
    pub output: PathBuf,
    pub state: PathBuf,
}
