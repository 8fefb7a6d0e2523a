//! One execution: its kind, its outcome, its counts, who started it.

use std::fmt;
use std::ops::{AddAssign, SubAssign};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};

use crate::effort::Effort;
use crate::given_time::OwnZone;
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

/// The last numbers that were given to a run and to a change, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastNumbers {
    pub run: i64,
    pub change: i64,
}

impl LastNumbers {
    /// The greater of each.
    pub fn max(self, other: Self) -> Self {
        Self { run: self.run.max(other.run), change: self.change.max(other.change) }
    }
}

/// A moment as the state and JSON have it: UTC in whole seconds, `2025-11-28T16:30:00Z`.
pub fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

words! {
    /// What a run reads, and whether it moves watermarks.
    pub enum Kind {
        /// Every invoice; moves no watermark.
        Full = "full", "全量";
        /// What changed since the watermark; moves it.
        Incremental = "incremental", "增量";
        /// Every invoice of a given window; moves no watermark.
        Backfill = "backfill", "区间";
        /// `verify --repair` and `--prune`: what was found to differ; moves no watermark.
        Verify = "verify", "核对";
    }
}

words! {
    /// What came of a run that was carried out.
    pub enum Outcome {
        Success = "success", "成功";
        /// Done, but a tenant failed, rows were newly rejected, or some could not be read.
        Partial = "partial", "部分成功";
    }
}

/// Every row read is accounted for: written + unchanged + rejected + gone = seen, and written = new + replaced + moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Invoices that a run asked the document of.
    pub seen: u64,
    /// Invoices with a file that the run wrote.
    pub written: u64,
    /// Of the written ones: there was no file at their path before the run.
    pub new: u64,
    /// Of the written ones: a file with other content was.
    pub replaced: u64,
    /// Of the written ones: their file was at another path.
    pub moved: u64,
    /// Invoices with a file that was right already.
    pub unchanged: u64,
    /// Of the unchanged ones: this state knew nothing of the file, which is an invoice's from now on.
    pub taken_over: u64,
    /// Invoices that cannot be exported, newly or still.
    pub rejected: u64,
    /// Rows that were no invoice any more when their document was asked for.
    pub gone: u64,
    /// Of the seen ones: those that needed a file and that earlier runs did not see, though they had read their time.
    pub late: u64,
    /// Seconds that the latest of them lay below the watermark.
    pub late_by: u64,
    /// Files removed because their invoice has a new path.
    pub removed: u64,
    /// Bytes of the written files.
    pub bytes: u64,
}

/// What one of the counts is called.
#[derive(Clone, Copy, Debug)]
pub struct CountName {
    /// The column in the state.
    pub column: &'static str,
    /// The field of JSON and CSV.
    pub field: &'static str,
    /// The column's title in Chinese.
    pub zh: &'static str,
}

impl CountName {
    /// The count of several tenants or batches is their greatest one, not their sum.
    pub fn is_maximum(&self) -> bool {
        self.column == "late_by"
    }

    /// The column of the count that this one is a part of.
    pub fn part_of(&self) -> Option<&'static str> {
        match self.column {
            "new" | "replaced" | "moved" => Some("written"),
            "taken_over" => Some("unchanged"),
            _ => None,
        }
    }

    /// Runs of versions up to schema 6 have not counted it.
    pub fn is_recent(&self) -> bool {
        matches!(self.column, "new" | "replaced" | "moved" | "taken_over")
    }
}

/// How many counts there are.
const COUNTED: usize = 13;

impl Counts {
    /// In the order of `values`.
    pub const NAMES: [CountName; COUNTED] = [
        CountName { column: "seen", field: "seen", zh: "读取" },
        CountName { column: "written", field: "written", zh: "写入" },
        CountName { column: "new", field: "new", zh: "新增" },
        CountName { column: "replaced", field: "replaced", zh: "替换" },
        CountName { column: "moved", field: "moved", zh: "移动" },
        CountName { column: "unchanged", field: "unchanged", zh: "未变化" },
        CountName { column: "taken_over", field: "taken_over", zh: "接管" },
        CountName { column: "rejected", field: "rejected", zh: "无法导出" },
        CountName { column: "gone", field: "gone", zh: "已不是发票" },
        CountName { column: "late", field: "late", zh: "迟到" },
        CountName { column: "late_by", field: "late_by_seconds", zh: "最多迟到" },
        CountName { column: "removed", field: "removed", zh: "删除文件" },
        CountName { column: "bytes", field: "bytes", zh: "字节" },
    ];

    /// The counts in the order of `NAMES`.
    pub fn values(mut self) -> [u64; COUNTED] {
        self.values_mut().map(|value| *value)
    }

    /// The counts in the order of `NAMES`, to be changed.
    pub fn values_mut(&mut self) -> [&mut u64; COUNTED] {
        let Self { seen, written, new, replaced, moved, unchanged, taken_over, .. } = self;
        let Self { rejected, gone, late, late_by, removed, bytes, .. } = self;
        [seen, written, new, replaced, moved, unchanged, taken_over, rejected, gone, late, late_by, removed, bytes]
    }

    /// Whether every row that was seen is accounted for.
    pub fn balances(&self) -> bool {
        self.written + self.unchanged + self.rejected + self.gone == self.seen
            && self.new + self.replaced + self.moved == self.written
            && self.taken_over <= self.unchanged
    }

    /// Counts an invoice that arrived late by so many seconds.
    pub fn count_late_arrival(&mut self, by: u64) {
        self.late += 1;
        self.late_by = self.late_by.max(by);
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        for (name, (own, other)) in Self::NAMES.iter().zip(self.values_mut().into_iter().zip(other.values())) {
            *own = if name.is_maximum() { other.max(*own) } else { *own + other };
        }
    }
}

/// Takes back what was counted. How late the latest arrival was stays known.
impl SubAssign for Counts {
    fn sub_assign(&mut self, other: Self) {
        let other = Self { late_by: 0, ..other };
        self.values_mut().into_iter().zip(other.values()).for_each(|(own, back)| *own = own.saturating_sub(back));
    }
}

/// Counts that are on record. Those of earlier versions lack some.
#[derive(Clone, Copy, Debug)]
pub struct PastCounts {
    pub counts: Counts,
    /// Whether the recent ones are known.
    pub has_recent: bool,
}

impl From<Counts> for PastCounts {
    fn from(counts: Counts) -> Self {
        Self { counts, has_recent: true }
    }
}

impl PastCounts {
    /// In the order of `Counts::NAMES`; None for those that the run has not counted.
    pub fn values(self) -> impl Iterator<Item = (&'static CountName, Option<u64>)> {
        let known = move |name: &CountName| self.has_recent || !name.is_recent();
        Counts::NAMES.iter().zip(self.counts.values()).map(move |(name, n)| (name, known(name).then_some(n)))
    }
}

words! {
    /// What a dry run says would become of a path.
    pub enum Prospect {
        New = "new", "新增";
        /// The file gets other content.
        Replaced = "replaced", "替换";
        /// The file of an invoice that lies elsewhere now.
        Moved = "moved", "移动";
        TakenOver = "taken over", "接管";
        Removed = "removed", "删除";
    }
}

words! {
    /// Why a file stays though its invoice has another path: that it is the same invoice is not proven, or the file
    /// could not be removed.
    pub enum KeptReason {
        /// The id carries another number now, or the same number of another year.
        Number = "number", "发票号或年份已变";
        /// The id belongs to another tenant now.
        Tenant = "tenant", "租户已变";
        /// The table is not provably the one in which the row was read.
        Table = "table", "数据表无法确认";
        /// It is provably superseded, but is not what we wrote, or its folder is not ours to change.
        NotRemoved = "not-removed", "未能删除";
    }
}

/// Set from outside when a run is to stop at its next checkpoint: the number of a signal, 0 before.
#[derive(Clone, Debug, Default)]
pub struct Cancel(pub Arc<AtomicUsize>);

/// How often a waiting thread looks whether the run is cancelled.
pub const CANCEL_CHECK_INTERVAL: Duration = Duration::from_millis(100);

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
            thread::sleep(rest.min(CANCEL_CHECK_INTERVAL));
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

/// An account, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// From the account database; where that has none, the number. On record up to schema 6: a variable.
    pub name: String,
    /// None on record up to schema 6.
    pub uid: Option<u32>,
    /// The account behind sudo or doas. The environment claims it, and proves nothing.
    pub sudo_user: Option<String>,
}

impl Account {
    /// The account at a place, which may be empty, with the claim behind it.
    pub fn at(&self, place: &str) -> String {
        let Self { name, sudo_user, .. } = self;
        let claim = sudo_user.as_ref().map(|user| format!(" (sudo: {user})"));
        format!("{name}{place}{}", claim.unwrap_or_default())
    }
}

/// Who started a run, for the record.
#[derive(Clone, Debug)]
pub struct Starter {
    pub account: Account,
    pub host: String,
    pub pid: u32,
    /// The command line; it never holds a secret, passwords on it are refused.
    pub command_line: String,
    pub at: DateTime<Utc>,
    /// In which times of our own clock are said.
    pub zone: OwnZone,
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
    /// Invoices without a known tenant that could not be read.
    pub unread: u64,
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
