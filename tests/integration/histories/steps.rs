//! What may happen: the steps of a history, how they are drawn and how they read.

use std::fmt::{self, Display, Formatter};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

pub(super) const TENANTS: &[&str] = &["1", "10"];
const IDS: i64 = 6;
const COUNTRIES: &[&str] = &["CN", "DE"];
const DATES: &[&str] = &["2025-11-01", "2025-11-02"];
const NUMBERS: &[&str] = &["A", "B", "C"];
pub(super) const BAD: &str = "not json";
const DOCUMENTS: &[&str] = &["{}", "[1]", "[2]", "[3]", BAD];

/// How fast a history goes, in seconds.
pub(super) struct Pace {
    pub(super) lag: i64,
    pub(super) overlap: i64,
    passes: &'static [i64],
    /// Of source times that an application sets.
    behind: &'static [i64],
    ahead: &'static [i64],
    /// How far the source's clock may be set; none where it cannot be.
    clock_steps: &'static [i64],
}

/// With clocks that the test sets.
pub(super) const TOLD: Pace = Pace {
    lag: 300,
    overlap: 3600,
    passes: &[1, 60, 299, 300, 301, 900, 4000, 40_000],
    behind: &[1, 200, 3000, 3299, 3600, 3900, 10_000, 90_000],
    ahead: &[1, 200, 1000, 10_000],
    clock_steps: &[-10_000, -1000, -200, -140, 140, 200, 1000, 10_000],
};

/// With the clock of a real server. It cannot be told, so that time has to be waited for.
pub(super) const REAL: Pace =
    Pace { lag: 1, overlap: 0, passes: &[1, 2, 2], behind: &[1, 2, 50], ahead: &[1], clock_steps: &[] };

/// All changes of a step are one transaction.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Commit(Vec<Change>),
    /// A transaction that is not over yet.
    Open(Vec<Change>),
    /// The oldest open one.
    Close(Ending),
    Pass(i64),
    SetSourceClock(i64),
    /// The same rows in what looks like another table.
    RebuildTable,
    Run(Run),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Committed,
    RolledBack,
}

#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) id: i64,
    pub(super) what: What,
    pub(super) when: When,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    New(Fields),
    Number(&'static str),
    Date(&'static str),
    Country(&'static str),
    Tenant(&'static str),
    Document(&'static str),
    Withdrawn,
    Issued,
    Deleted,
    /// Tenant, country, date and number.
    PathSwappedWith(i64),
}

#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) tenant: &'static str,
    pub(super) country: &'static str,
    pub(super) date: &'static str,
    pub(super) number: &'static str,
    pub(super) document: &'static str,
}

/// The source time of a change.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Now,
    Behind(i64),
    Ahead(i64),
    /// The row keeps the one it has, which nobody promises to notice but `verify --documents`.
    Unmoved,
}

#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) kind: Kind,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Incremental,
    IncrementalOf(&'static str),
    Full,
    /// So many seconds back.
    Backfill(i64),
    Repair,
    RepairDocuments,
    DryRun,
}

/// A run may not live to its end: the nth call of a thread kills it, or fails. Or a folder of the tree, if
/// it is there, takes and gives nothing while it is at work.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    Lives,
    Blocked(&'static str),
    Dies { call: &'static str, how: &'static str, nth: u32 },
}

pub(super) fn histories(pace: &'static Pace) -> impl Strategy<Value = Vec<Step>> {
    let changes = || vec(changes(pace), 1..=4);
    let clock_steps = if pace.clock_steps.is_empty() { pace.passes } else { pace.clock_steps };
    let step = prop_oneof![
        8 => changes().prop_map(Step::Commit),
        2 => changes().prop_map(Step::Open),
        2 => prop_oneof![4 => Just(Ending::Committed), 1 => Just(Ending::RolledBack)].prop_map(Step::Close),
        5 => select(pace.passes).prop_map(Step::Pass),
        u32::from(!pace.clock_steps.is_empty()) => select(clock_steps).prop_map(Step::SetSourceClock),
        1 => Just(Step::RebuildTable),
        8 => runs().prop_map(Step::Run),
    ];
    vec(step, 4..28)
}

fn changes(pace: &'static Pace) -> impl Strategy<Value = Change> {
    let when = prop_oneof![
        8 => Just(When::Now),
        3 => select(pace.behind).prop_map(When::Behind),
        1 => select(pace.ahead).prop_map(When::Ahead),
        1 => Just(When::Unmoved),
    ];
    (1..=IDS, what(), when).prop_map(|(id, what, when)| Change { id, what, when })
}

fn what() -> impl Strategy<Value = What> {
    let fields = (select(TENANTS), select(COUNTRIES), select(DATES), select(NUMBERS), select(DOCUMENTS))
        .prop_map(|(tenant, country, date, number, document)| Fields { tenant, country, date, number, document });
    prop_oneof![
        8 => fields.prop_map(What::New),
        2 => select(NUMBERS).prop_map(What::Number),
        2 => select(DATES).prop_map(What::Date),
        1 => select(COUNTRIES).prop_map(What::Country),
        1 => select(TENANTS).prop_map(What::Tenant),
        4 => select(DOCUMENTS).prop_map(What::Document),
        1 => Just(What::Withdrawn),
        1 => Just(What::Issued),
        1 => Just(What::Deleted),
        2 => (1..=IDS).prop_map(What::PathSwappedWith),
    ]
}

const CALLS: &[&str] =
    &["linkat", "renameat", "renameat2", "unlinkat", "unlink", "write", "pwrite64", "syncfs", "fsync", "openat"];
const FOLDERS: &[&str] = &["1", "1/CN", "1/DE", "10", "10/CN", "10/DE"];
/// Calls whose failure a run must survive to say so.
const FAILING: &[&str] = &["linkat", "renameat", "syncfs", "fsync", "unlinkat"];

fn runs() -> impl Strategy<Value = Run> {
    let kind = prop_oneof![
        8 => Just(Kind::Incremental),
        1 => select(TENANTS).prop_map(Kind::IncrementalOf),
        2 => Just(Kind::Full),
        1 => select(&[400, 4000, 100_000][..]).prop_map(Kind::Backfill),
        1 => Just(Kind::Repair),
        1 => Just(Kind::RepairDocuments),
        1 => Just(Kind::DryRun),
    ];
    let dies = |calls, how: &'static [&'static str]| {
        (select(calls), select(how), 1..12_u32).prop_map(|(call, how, nth)| Fate::Dies { call, how, nth })
    };
    let fate = prop_oneof![
        26 => Just(Fate::Lives),
        9 => dies(CALLS, &["signal=KILL"]),
        3 => dies(FAILING, &["error=EIO", "error=ENOSPC"]),
        2 => select(FOLDERS).prop_map(Fate::Blocked),
    ];
    (kind, fate).prop_map(|(kind, fate)| Run { kind, fate })
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let list = |changes: &[Change]| changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        match self {
            Self::Commit(changes) => write!(f, "commits {}", list(changes)),
            Self::Open(changes) => write!(f, "leaves open {}", list(changes)),
            Self::Close(Ending::Committed) => write!(f, "the oldest open transaction is committed"),
            Self::Close(Ending::RolledBack) => write!(f, "the oldest open transaction is rolled back"),
            Self::Pass(seconds) => write!(f, "{seconds} s pass"),
            Self::SetSourceClock(by) => write!(f, "the source's clock is set by {by:+} s"),
            Self::RebuildTable => write!(f, "the table is rebuilt"),
            Self::Run(Run { kind, fate: Fate::Lives }) => write!(f, "{}", kind.args().join(" ")),
            Self::Run(Run { kind, fate: Fate::Blocked(folder) }) => {
                write!(f, "{}, {folder} blocked", kind.args().join(" "))
            }
            Self::Run(Run { kind, fate: Fate::Dies { call, how, nth } }) => {
                write!(f, "{}, {how} at {call} {nth}", kind.args().join(" "))
            }
        }
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.id)?;
        match &self.what {
            What::New(Fields { tenant, country, date, number, document }) => {
                write!(f, "new, {tenant}/{country}/{date}+{number} {document}")
            }
            What::Number(number) => write!(f, "number {number}"),
            What::Date(date) => write!(f, "date {date}"),
            What::Country(country) => write!(f, "country {country}"),
            What::Tenant(tenant) => write!(f, "tenant {tenant}"),
            What::Document(document) => write!(f, "document {document}"),
            What::Withdrawn => write!(f, "withdrawn"),
            What::Issued => write!(f, "issued"),
            What::Deleted => write!(f, "deleted"),
            What::PathSwappedWith(other) => write!(f, "path swapped with {other}"),
        }?;
        match self.when {
            When::Now => Ok(()),
            When::Behind(by) => write!(f, " ({by} s ago)"),
            When::Ahead(by) => write!(f, " (in {by} s)"),
            When::Unmoved => write!(f, " (its time unmoved)"),
        }
    }
}

impl Kind {
    pub(super) fn args(self) -> Vec<String> {
        let words = match self {
            Self::Incremental => "run --mode incremental".to_owned(),
            Self::IncrementalOf(tenant) => format!("run --mode incremental --tenant {tenant}"),
            Self::Full => "run --mode full".to_owned(),
            Self::Backfill(_) => "run --since".to_owned(),
            Self::Repair => "verify --against-source --hash --repair --limit 0".to_owned(),
            Self::RepairDocuments => "verify --against-source --documents --hash --repair --limit 0".to_owned(),
            Self::DryRun => "run --mode incremental --dry-run".to_owned(),
        };
        words.split(' ').map(str::to_owned).collect()
    }
}
