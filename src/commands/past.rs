//! How runs, changes and rejects of the past look: as rows of `history` and `status`, and one in full.

use chrono::{DateTime, Utc};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::event::Life;
use crate::report::table::{Cell, Details, Table};
use crate::run::{Counts, WhyKept};
use crate::state::changes::MovedWatermark;
use crate::state::history::{PastChange, PastReject, PastRun, RunInFull, Status};
use crate::state::pages::{Entry, What};
use crate::state::todo::Leftover;

/// Whether the process of a run without an end is there; None for runs that ended.
pub(super) fn life(run: &PastRun) -> Option<Life> {
    if run.status != Status::Running {
        return None;
    }
    let pid = i32::try_from(run.pid).ok().and_then(Pid::from_raw);
    Some(match pid.filter(|_| run.host == super::host()) {
        None => Life::Unknown,
        Some(pid) => match test_kill_process(pid) {
            Err(Errno::SRCH) => Life::Dead,
            // Another user's process may not be sent signals, but it is there.
            Ok(()) | Err(_) => Life::Alive,
        },
    })
}

/// What fits a screen; the rest is in `history RUN`, and in JSON and CSV.
pub(super) const SHOWN: &[&str] = &["id", "kind", "status", "started", "duration_seconds", "by", "window", "result"];

pub(super) fn shown(entry: &Entry, now: DateTime<Utc>) -> Vec<Cell> {
    match &entry.what {
        What::Run(run) => vec![
            Cell::text(run.id.to_string()),
            Cell::text(&run.kind),
            Cell::text(match life(run) {
                Some(Life::Dead) => "running (dead)",
                _ => run.status.as_str(),
            }),
            Cell::text(&run.started),
            duration(run, now),
            Cell::text(format!("{}@{}", run.user, run.host)),
            Cell::text(match &entry.watermark {
                Some(MovedWatermark { old, new: Some(new), .. }) => {
                    arrow(old.as_ref().map(|old| old.as_str()), Some(new.as_str()))
                }
                Some(_) | None => window(run),
            }),
            Cell::text(result(run)),
        ],
        What::Change(change) => vec![
            Cell::text(format!("c{}", change.number)),
            Cell::text(&change.kind),
            Cell::None,
            Cell::text(&change.at),
            Cell::None,
            Cell::text(format!("{}@{}", change.user, change.host)),
            entry.watermark.as_ref().map_or(Cell::None, |moved| {
                Cell::text(arrow(
                    moved.old.as_ref().map(|old| old.as_str()),
                    moved.new.as_ref().map(|new| new.as_str()),
                ))
            }),
            Cell::text(shortened(&remark(change))),
        ],
    }
}

fn window(run: &PastRun) -> String {
    match &run.since {
        Some(since) => arrow(Some(since.as_str()), Some(run.boundary.as_str())),
        None => format!("-> {}", run.boundary),
    }
}

fn arrow(from: Option<&str>, to: Option<&str>) -> String {
    format!("{} -> {}", from.unwrap_or("none"), to.unwrap_or("none"))
}

/// The counts that are not zero, and the error.
fn result(run: &PastRun) -> String {
    let Counts { seen: _, written, unchanged, rejected, gone, late, late_by: _, removed, bytes: _ } = run.counts;
    let counts = [
        (written, "written"),
        (unchanged, "unchanged"),
        (rejected, "rejected"),
        (gone, "gone"),
        (late, "late"),
        (removed, "removed"),
    ];
    let told: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let told = if told.is_empty() { "nothing new".to_owned() } else { told.join(", ") };
    match &run.error {
        Some(error) => format!("{told}; {}", shortened(error)),
        None => told,
    }
}

/// What a change was about, in words.
fn remark(change: &PastChange) -> String {
    let mut parts = Vec::new();
    if change.watermarks > 0 {
        parts.push(format!("{} watermark{}", change.watermarks, if change.watermarks == 1 { "" } else { "s" }));
    }
    parts.extend(change.file.clone());
    if change.old.is_some() || change.new.is_some() {
        parts.push(arrow(change.old.as_deref(), change.new.as_deref()));
    }
    parts.extend(change.reason.clone());
    parts.join("; ")
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 100;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// None where nobody knows when the run ended.
fn duration(run: &PastRun, now: DateTime<Utc>) -> Cell {
    let end = match (run.status, life(run)) {
        (Status::Interrupted, _) | (_, Some(Life::Dead | Life::Unknown)) => None,
        (_, Some(Life::Alive)) => Some(now),
        (_, None) => run.finished.as_deref().and_then(parsed),
    };
    let start = parsed(&run.started);
    start.zip(end).map_or(Cell::None, |(start, end)| Cell::Seconds(end.signed_duration_since(start).num_seconds()))
}

pub(super) fn parsed(moment: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(moment).ok().map(|moment| moment.to_utc())
}

/// What the field `n` of `counted` is called.
const COUNTED: [&str; 9] =
    ["seen", "written", "unchanged", "rejected", "gone", "late", "late_by_seconds", "removed", "bytes"];

/// The field names are an interface that others build upon. Add to them, never rename.
pub(super) const FIELDS: &[&str] = &joined::<24>([
    &[
        "id",
        "kind",
        "status",
        "alive",
        "started",
        "finished",
        "duration_seconds",
        "user",
        "host",
        "since",
        "boundary",
        "tenants",
    ],
    &COUNTED,
    &["retries", "error", "remark"],
]);
pub(super) const FIELDS_OF_TENANT: &[&str] =
    &joined::<27>([FIELDS, &["tenant", "old_watermark", "new_watermark"], &[]]);
const PER_TENANT: &[&str] = &joined::<13>([&["tenant", "old_watermark", "new_watermark"], &COUNTED, &["error"]]);

const fn joined<const N: usize>(parts: [&[&'static str]; 3]) -> [&'static str; N] {
    let mut all = [""; N];
    let (mut part, mut at, mut n) = (0, 0, 0);
    while n < N {
        if at == parts[part].len() {
            (part, at) = (part + 1, 0);
        } else {
            all[n] = parts[part][at];
            (at, n) = (at + 1, n + 1);
        }
    }
    all
}

pub(super) fn fields(entry: &Entry, now: DateTime<Utc>) -> Vec<Cell> {
    let mut cells = match &entry.what {
        What::Run(run) => run_fields(run, now),
        What::Change(change) => change_fields(change),
    };
    if let Some(MovedWatermark { tenant, old, new }) = &entry.watermark {
        let time = |time: &Option<_>| Cell::from(time.as_ref().map(ToString::to_string));
        cells.extend([Cell::text(tenant.as_str()), time(old), time(new)]);
    }
    cells
}

fn run_fields(run: &PastRun, now: DateTime<Utc>) -> Vec<Cell> {
    let mut cells = vec![
        Cell::text(run.id.to_string()),
        Cell::text(&run.kind),
        Cell::text(run.status.as_str()),
        alive(run),
        Cell::text(&run.started),
        run.finished.clone().into(),
        duration(run, now),
        Cell::text(&run.user),
        Cell::text(&run.host),
        run.since.as_ref().map(ToString::to_string).into(),
        Cell::text(run.boundary.as_str()),
        number(run.tenants),
    ];
    cells.extend(counted(&run.counts));
    cells.extend([number(run.retries), run.error.clone().into(), Cell::None]);
    cells
}

fn change_fields(change: &PastChange) -> Vec<Cell> {
    let mut cells = vec![
        Cell::text(format!("c{}", change.number)),
        Cell::text(&change.kind),
        Cell::None,
        Cell::None,
        Cell::text(&change.at),
        Cell::None,
        Cell::None,
        Cell::text(&change.user),
        Cell::text(&change.host),
        Cell::None,
        Cell::None,
        number(change.watermarks),
    ];
    cells.resize(FIELDS.len() - 1, Cell::None);
    cells.push(Cell::text(remark(change)));
    cells
}

fn counted(counts: &Counts) -> [Cell; COUNTED.len()] {
    let Counts { seen, written, unchanged, rejected, gone, late, late_by, removed, bytes } = *counts;
    let late_by = if late == 0 { Cell::None } else { Cell::Seconds(late_by.cast_signed()) };
    let [seen, written, unchanged, rejected, gone, late, removed] =
        [seen, written, unchanged, rejected, gone, late, removed].map(number);
    [seen, written, unchanged, rejected, gone, late, late_by, removed, Cell::Bytes(bytes)]
}

fn number(number: u64) -> Cell {
    Cell::Number(number.cast_signed())
}

fn alive(run: &PastRun) -> Cell {
    match life(run) {
        Some(Life::Alive) => Cell::Flag(true),
        Some(Life::Dead) => Cell::Flag(false),
        Some(Life::Unknown) | None => Cell::None,
    }
}

pub(super) fn run_in_full(full: &RunInFull) -> Details {
    let run = &full.run;
    let mut facts: Vec<(&'static str, Cell)> = FIELDS.iter().copied().zip(run_fields(run, super::now())).collect();
    facts.retain(|(name, _)| *name != "remark");
    facts.extend([
        ("pid", Cell::Number(run.pid)),
        ("version", Cell::text(&run.version)),
        ("command_line", Cell::text(&run.command_line)),
        ("rejects_left_out", if full.rejects_left_out == 0 { Cell::None } else { number(full.rejects_left_out) }),
    ]);
    let tenants = full.tenants.iter().map(|of| {
        let mut row = vec![
            Cell::text(of.tenant.as_str()),
            of.old_watermark.as_ref().map(ToString::to_string).into(),
            of.new_watermark.as_ref().map(ToString::to_string).into(),
        ];
        row.extend(counted(&of.counts));
        row.push(of.error.clone().into());
        row
    });
    let tenants = Table { columns: PER_TENANT, rows: tenants.collect() };
    let rejects = Table { columns: REJECT, rows: full.rejects.iter().map(reject).collect() };
    let leftover = |leftover: &Leftover| {
        let why = leftover.why.map(WhyKept::as_str);
        vec![Cell::text(leftover.path.to_string()), Cell::text(leftover.id.as_str()), why.map(str::to_owned).into()]
    };
    let leftovers = Table { columns: &["path", "id", "why"], rows: full.leftovers.iter().map(leftover).collect() };
    let pulled_back = moves(&full.pulled_back);
    let tables =
        vec![("per_tenant", tenants), ("rejects", rejects), ("pulled_back", pulled_back), ("leftovers", leftovers)];
    Details { facts, tables }
}

pub(super) fn change_in_full(change: &PastChange, moved: &[MovedWatermark]) -> Details {
    let facts = vec![
        ("id", Cell::text(format!("c{}", change.number))),
        ("kind", Cell::text(&change.kind)),
        ("started", Cell::text(&change.at)),
        ("user", Cell::text(&change.user)),
        ("host", Cell::text(&change.host)),
        ("after_run", Cell::Number(change.last_run)),
        ("tenants", number(change.watermarks)),
        ("reason", change.reason.clone().into()),
        ("file", change.file.clone().into()),
        ("sha256", change.sha256.clone().into()),
        ("lines", change.lines.into()),
        ("old", change.old.clone().into()),
        ("new", change.new.clone().into()),
        ("command_line", change.command_line.clone().into()),
    ];
    Details { facts, tables: vec![("watermarks", moves(moved))] }
}

pub(super) fn moves(moved: &[MovedWatermark]) -> Table {
    let time = |time: &Option<_>| Cell::from(time.as_ref().map(ToString::to_string));
    let rows = moved.iter().map(|moved| vec![Cell::text(moved.tenant.as_str()), time(&moved.old), time(&moved.new)]);
    Table { columns: &["tenant", "old_watermark", "new_watermark"], rows: rows.collect() }
}

/// The columns of rejects, here and in `status --rejects`.
pub(super) const REJECT: &[&str] = &[
    "tenant",
    "number",
    "id",
    "time",
    "reason",
    "first_run",
    "since",
    "last_run",
    "detail",
    "closed_run",
    "closed_how",
];

pub(super) fn reject(reject: &PastReject) -> Vec<Cell> {
    vec![
        reject.tenant.as_ref().map(ToString::to_string).into(),
        reject.number.clone().into(),
        Cell::text(reject.id.as_str()),
        reject.time.as_ref().map(ToString::to_string).into(),
        Cell::text(&reject.reason),
        Cell::Number(reject.opened_run),
        reject.opened.clone().into(),
        Cell::Number(reject.last_run),
        Cell::text(&reject.detail),
        reject.closed_run.into(),
        reject.closed_how.clone().into(),
    ]
}
