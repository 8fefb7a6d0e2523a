//! What may happen: the steps of a history, how they are drawn and how they read.

use std::fmt::{self, Display, Formatter};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

pub(super) const TENANTS: &[&str] = &["1", "10"];
const IDS: i64 = 6;
const COUNTRIES: &[&str] = &["CN", "DE"];
const DATES: &[&str] = &["2025-11-01", "2025-11-02"];
const NEXT_MONTH: &[&str] = &["2025-12-01", "2025-12-02"];
const NEXT_YEAR: &[&str] = &["2026-11-01", "2026-11-02"];
const NUMBERS: &[&str] = &["A", "B", "C"];
/// What no run can export: the file of an earlier document stays. `rows.rs` says how each is written.
pub(super) const SPOILED: &[&str] = &["not json", LARGE, UNMAPPABLE];
/// It has more bytes than `--max-document`.
pub(super) const LARGE: &str = "large";
/// It has a character that is none in UTF-8.
pub(super) const UNMAPPABLE: &str = "unmappable";
const DOCUMENTS: &[&str] = &["{}", "[1]", "[2]", "[3]"];

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
    /// After how many bytes from a server its connection may break; none where there is no server.
    breaks: &'static [u64],
}

/// With clocks that the test sets.
pub(super) const TOLD: Pace = Pace {
    lag: 300,
    overlap: 3600,
    passes: &[1, 60, 299, 300, 301, 900, 4000, 40_000],
    behind: &[1, 200, 3000, 3299, 3600, 3900, 10_000, 90_000],
    // The last one is ten years.
    ahead: &[1, 200, 1000, 10_000, 315_360_000],
    clock_steps: &[-10_000, -1000, -200, -140, 140, 200, 1000, 10_000],
    breaks: &[],
};

/// With the clock of a real server. It cannot be told, so that time has to be waited for.
pub(super) const REAL: Pace = Pace {
    lag: 1,
    overlap: 0,
    passes: &[1, 2, 2],
    behind: &[1, 2, 50],
    ahead: &[1],
    clock_steps: &[],
    breaks: &[50, 300, 1000, 2500, 4000, 5500, 7000],
};

/// All changes of a step are one transaction.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Commit(Vec<Change>),
    /// A transaction that is not over yet.
    Open(Vec<Change>, Holder),
    /// The oldest open one.
    Close(Ending),
    Pass(i64),
    SetSourceClock(i64),
    /// The source's and the exporter's together, while no more time passes than before.
    SetBothClocks(i64),
    /// What the machine says of the time since its start proves nothing from here on.
    Move(Machine),
    Rebuild(Rebuild),
    Refill(Refill),
    /// A dry run, and what it rehearses.
    Rehearsed(Kind),
    Aside(Aside),
    Run(Run),
}

/// What is on record as a run and changes nothing that a later run goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aside {
    /// The password cannot be read.
    FailedStart,
    Verified,
    VerifiedAgainstSource,
}

impl Aside {
    pub(super) fn args(self) -> &'static [&'static str] {
        match self {
            Self::FailedStart => &["run", "--mode", "incremental", "--password-file", "/nowhere/password"],
            Self::Verified => &["verify", "--hash"],
            Self::VerifiedAgainstSource => &["verify", "--against-source", "--documents"],
        }
    }
}

/// What keeps a transaction open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Connection,
    /// `XA PREPARE`, by a client that is gone.
    Prepared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    Restarted,
    Another,
}

/// The same rows, in what looks like another table or may be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rebuild {
    /// `ALTER TABLE … FORCE`, or `VACUUM`.
    Altered,
    /// As gh-ost and pt-osc do: a copy takes its place.
    Copied,
    Renamed,
}

/// The table is emptied, and its ids start anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refill {
    /// But for the first row.
    Nothing,
    SameRows,
    /// The ids, tenants and numbers of before, with dates of another year.
    NextYear,
    /// The same, with dates of another month.
    NextMonth,
}

impl Refill {
    /// The date in the new table of a row that had this one. A date of the new month or year turns into one of the first.
    pub(super) fn date(self, date: &'static str) -> &'static str {
        let new = if self == Self::NextMonth { NEXT_MONTH } else { NEXT_YEAR };
        let place = [DATES, NEXT_MONTH, NEXT_YEAR].iter().find_map(|dates| dates.iter().position(|one| *one == date));
        place.map_or(date, |place| if new[place] == date { DATES[place] } else { new[place] })
    }
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
    Tenant(Option<&'static str>),
    Document(&'static str),
    Withdrawn,
    Issued,
    Deleted,
    /// Tenant, country, date and number.
    PathSwappedWith(i64),
}

#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) tenant: Option<&'static str>,
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
    /// NULL.
    Never,
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

/// A run may not live to its end: the nth call of a thread kills it, or fails. Or something happens to the tree, the
/// table or the connection while it is at work.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    Lives,
    /// A folder of the tree, if it is there, takes and gives nothing.
    Blocked(&'static str),
    /// A link that leads outside is in the place of a name in the output, if it is there.
    Planted(&'static str),
    Dies {
        call: &'static str,
        how: &'static str,
        nth: u32,
    },
    /// There is no handle for a file of the tree, once.
    ShortOfHandles {
        nth: u32,
    },
    /// The run is stopped at its nth such call, and goes on when this is done.
    Overtaken {
        call: &'static str,
        nth: u32,
        deed: Deed,
    },
    /// The connection to the server, after so many bytes.
    Broken {
        after: u64,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Deed {
    Commit(Vec<Change>),
    Refill(Refill),
    Rebuild(Rebuild),
}

pub(super) fn histories(pace: &'static Pace) -> impl Strategy<Value = Vec<Step>> {
    let changes = || vec(changes(pace), 1..=4);
    let clocks = u32::from(!pace.clock_steps.is_empty());
    let clock_steps = || select(if pace.clock_steps.is_empty() { pace.passes } else { pace.clock_steps });
    let step = prop_oneof![
        8 => changes().prop_map(Step::Commit),
        2 => (changes(), holder()).prop_map(|(changes, holder)| Step::Open(changes, holder)),
        2 => prop_oneof![4 => Just(Ending::Committed), 1 => Just(Ending::RolledBack)].prop_map(Step::Close),
        5 => select(pace.passes).prop_map(Step::Pass),
        2 * clocks => prop_oneof![
            clock_steps().prop_map(Step::SetSourceClock),
            clock_steps().prop_map(Step::SetBothClocks),
        ],
        1 => select(&[Machine::Restarted, Machine::Another][..]).prop_map(Step::Move),
        1 => rebuild().prop_map(Step::Rebuild),
        1 => refill().prop_map(Step::Refill),
        // Of more than ten kinds none may weigh nothing.
        3 => prop_oneof![1 => rehearsed().prop_map(Step::Rehearsed), 2 => asides().prop_map(Step::Aside)],
        7 => runs(pace).prop_map(Step::Run),
    ];
    vec(step, 4..28)
}

fn holder() -> impl Strategy<Value = Holder> {
    prop_oneof![2 => Just(Holder::Connection), 1 => Just(Holder::Prepared)]
}

fn rebuild() -> impl Strategy<Value = Rebuild> {
    select(&[Rebuild::Altered, Rebuild::Copied, Rebuild::Renamed][..])
}

fn refill() -> impl Strategy<Value = Refill> {
    prop_oneof![1 => Just(Refill::Nothing), 2 => Just(Refill::SameRows), 2 => Just(Refill::NextYear), 3 => Just(Refill::NextMonth)]
}

fn changes(pace: &'static Pace) -> impl Strategy<Value = Change> {
    let when = prop_oneof![
        16 => Just(When::Now),
        6 => select(pace.behind).prop_map(When::Behind),
        2 => select(pace.ahead).prop_map(When::Ahead),
        1 => Just(When::Never),
        2 => Just(When::Unmoved),
    ];
    (1..=IDS, what(), when).prop_map(|(id, what, when)| Change { id, what, when })
}

fn what() -> impl Strategy<Value = What> {
    let fields = (tenant(), select(COUNTRIES), select(DATES), select(NUMBERS), document())
        .prop_map(|(tenant, country, date, number, document)| Fields { tenant, country, date, number, document });
    prop_oneof![
        8 => fields.prop_map(What::New),
        2 => select(NUMBERS).prop_map(What::Number),
        2 => select(DATES).prop_map(What::Date),
        1 => select(COUNTRIES).prop_map(What::Country),
        1 => tenant().prop_map(What::Tenant),
        4 => document().prop_map(What::Document),
        1 => Just(What::Withdrawn),
        1 => Just(What::Issued),
        1 => Just(What::Deleted),
        2 => (1..=IDS).prop_map(What::PathSwappedWith),
    ]
}

fn tenant() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![12 => select(TENANTS).prop_map(Some), 1 => Just(None)]
}

fn document() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => select(DOCUMENTS), 1 => select(SPOILED)]
}

const CALLS: &[&str] =
    &["linkat", "renameat", "renameat2", "unlinkat", "unlink", "write", "pwrite64", "syncfs", "fsync", "openat"];
const FOLDERS: &[&str] = &["1", "1/CN", "1/DE", "10", "10/CN", "10/DE"];
/// Calls whose failure a run must survive to say so.
const FAILING: &[&str] = &["linkat", "renameat", "syncfs", "fsync", "unlinkat"];
/// Names whose link every run refuses before it does anything.
pub(super) const OURS: &[&str] =
    &[".export_state", ".export_state/lock", ".export_state/state.db", ".export_state/backups"];
/// Early and late in a run: before it reads rows, and while it puts files in place.
const STOPS: &[&str] = &["mkdirat", "linkat", "renameat", "syncfs"];

fn asides() -> impl Strategy<Value = Aside> {
    select(&[Aside::FailedStart, Aside::Verified, Aside::VerifiedAgainstSource][..])
}

fn rehearsed() -> impl Strategy<Value = Kind> {
    prop_oneof![3 => Just(Kind::Incremental), 2 => Just(Kind::Full), 1 => backfill()]
}

fn backfill() -> impl Strategy<Value = Kind> {
    select(&[400, 4000, 100_000][..]).prop_map(Kind::Backfill)
}

fn runs(pace: &'static Pace) -> impl Strategy<Value = Run> {
    let kind = prop_oneof![
        8 => Just(Kind::Incremental),
        1 => select(TENANTS).prop_map(Kind::IncrementalOf),
        2 => Just(Kind::Full),
        1 => backfill(),
        1 => Just(Kind::Repair),
        1 => Just(Kind::RepairDocuments),
        1 => Just(Kind::DryRun),
    ];
    let dies = |calls, how: &'static [&'static str]| {
        (select(calls), select(how), 1..12_u32).prop_map(|(call, how, nth)| Fate::Dies { call, how, nth })
    };
    let planted = prop_oneof![select(OURS), select(FOLDERS)];
    let overtaken = (select(STOPS), 1..4_u32, deeds(pace));
    let server = u32::from(!pace.breaks.is_empty());
    let breaks = select(if pace.breaks.is_empty() { &[0] } else { pace.breaks });
    let fate = prop_oneof![
        25 => Just(Fate::Lives),
        7 => dies(CALLS, &["signal=KILL"]),
        2 => dies(FAILING, &["error=EIO", "error=ENOSPC"]),
        2 => select(FOLDERS).prop_map(Fate::Blocked),
        2 => planted.prop_map(Fate::Planted),
        1 => (3..12_u32).prop_map(|nth| Fate::ShortOfHandles { nth }),
        3 => overtaken.prop_map(|(call, nth, deed)| Fate::Overtaken { call, nth, deed }),
        6 * server => breaks.prop_map(|after| Fate::Broken { after }),
    ];
    (kind, fate).prop_map(|(kind, fate)| Run { kind, fate })
}

fn deeds(pace: &'static Pace) -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => vec(changes(pace), 1..=4).prop_map(Deed::Commit),
        2 => refill().prop_map(Deed::Refill),
        1 => rebuild().prop_map(Deed::Rebuild),
    ]
}

fn list(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(changes) => write!(f, "commits {}", list(changes)),
            Self::Open(changes, Holder::Connection) => write!(f, "leaves open {}", list(changes)),
            Self::Open(changes, Holder::Prepared) => write!(f, "leaves prepared {}", list(changes)),
            Self::Close(Ending::Committed) => write!(f, "the oldest open transaction is committed"),
            Self::Close(Ending::RolledBack) => write!(f, "the oldest open transaction is rolled back"),
            Self::Pass(seconds) => write!(f, "{seconds} s pass"),
            Self::SetSourceClock(by) => write!(f, "the source's clock is set by {by:+} s"),
            Self::SetBothClocks(by) => write!(f, "both clocks are set by {by:+} s"),
            Self::Move(Machine::Restarted) => write!(f, "the machine is restarted"),
            Self::Move(Machine::Another) => write!(f, "another machine takes its place"),
            Self::Rebuild(rebuild) => write!(f, "the table is {rebuild:?}"),
            Self::Refill(refill) => write!(f, "the table is emptied and gets {refill:?}"),
            Self::Rehearsed(kind) => write!(f, "rehearsed: {}", kind.args().join(" ")),
            Self::Aside(aside) => write!(f, "aside: {}", aside.args().join(" ")),
            Self::Run(Run { kind, fate }) => write!(f, "{}{fate}", kind.args().join(" ")),
        }
    }
}

impl Display for Fate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lives => Ok(()),
            Self::Blocked(folder) => write!(f, ", {folder} blocked"),
            Self::Planted(name) => write!(f, ", a link at {name}"),
            Self::Dies { call, how, nth } => write!(f, ", {how} at {call} {nth}"),
            Self::ShortOfHandles { nth } => write!(f, ", no handle at openat2 {nth}"),
            Self::Overtaken { call, nth, deed } => match deed {
                Deed::Commit(changes) => write!(f, ", at {call} {nth} committed: {}", list(changes)),
                Deed::Refill(refill) => write!(f, ", at {call} {nth} the table is emptied and gets {refill:?}"),
                Deed::Rebuild(rebuild) => write!(f, ", at {call} {nth} the table is {rebuild:?}"),
            },
            Self::Broken { after } => write!(f, ", the connection breaks after {after} bytes"),
        }
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.id)?;
        match &self.what {
            What::New(Fields { tenant, country, date, number, document }) => {
                let tenant = tenant.unwrap_or("NULL");
                write!(f, "new, {tenant}/{country}/{date}+{number} {document}")
            }
            What::Number(number) => write!(f, "number {number}"),
            What::Date(date) => write!(f, "date {date}"),
            What::Country(country) => write!(f, "country {country}"),
            What::Tenant(tenant) => write!(f, "tenant {}", tenant.unwrap_or("NULL")),
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
            When::Never => write!(f, " (its time NULL)"),
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
