//! `status`: how every tenant stands, and what cannot be exported.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::ArgMatches;

use super::past::{REJECT, life, parsed, reject};
use crate::cli::{Common, Status};
use crate::config;
use crate::event::{Event, Notice};
use crate::export::Inquiry;
use crate::export::lag::{self, Place, Present, Yardstick};
use crate::refusal::Refusal;
use crate::report::table::{Cell, Table};
use crate::report::{Audience, Reporter};
use crate::state::State;
use crate::state::history::PastReject;
use crate::state::overview::Overview;
use crate::state::runs::LastTime;

/// A tenant is stale.
const FOUND: u8 = 6;
/// Rejects that are read at once.
const PAGE: usize = 1_000;
/// How long a late arrival is shown.
const LATE_DAYS: i64 = 30;

pub(super) fn run(common: &Common, args: &Status, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = super::look(common)?;
    if args.rejects {
        rejects(&state, reporter)?;
        return Ok(0);
    }
    let (last, overview) = (state.last_time()?, state.overview(&late_since())?);
    mention_unfinished(&state, reporter)?;
    if last.proof.unproven > 0 {
        say(reporter, Notice::TimeUnproven { runs: last.proof.unproven, compared: last.proof.compared.clone() });
    }
    // The server may take its time; nothing of the state is needed any more.
    drop(state);
    let present = ask(common, args, matches, &last, &overview, reporter)?;
    let now = super::now();
    if present.is_none() && args.stale_after.is_some() {
        say(reporter, Notice::JudgedByOwnClock);
    }
    let by = present.as_ref().map_or(Yardstick::OwnClock(now), Yardstick::Source);
    let places = lag::places(&overview, &by, args.stale_after);
    reporter.table(&match reporter.audience() {
        Audience::People => {
            Table { columns: SHOWN, rows: places.iter().map(|place| shown(place, args.margins.overlap, now)).collect() }
        }
        Audience::Programs => {
            let judged = args.stale_after.is_some();
            Table { columns: FIELDS, rows: places.iter().map(|place| fields(place, judged, now)).collect() }
        }
    });
    let stale = places.iter().filter(|place| place.stale).count() as u64;
    match args.stale_after {
        Some(after) if stale > 0 => {
            let of = places.iter().filter(|place| place.tenant.is_some()).count() as u64;
            say(reporter, Notice::Stale { tenants: stale, of, after });
            Ok(FOUND)
        }
        _ => Ok(0),
    }
}

/// From when on late arrivals are shown.
fn late_since() -> String {
    (super::now() - TimeDelta::days(LATE_DAYS)).to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn say(reporter: &Reporter, notice: Notice) {
    reporter.event(&Event::Notice(notice));
}

/// None where the source cannot be asked, which is told. Another source than the state's is refused.
fn ask(
    common: &Common,
    args: &Status,
    matches: &ArgMatches,
    last: &LastTime,
    overview: &Overview,
    reporter: &Reporter,
) -> anyhow::Result<Option<Present>> {
    if config::given_source(common).is_none() {
        say(reporter, Notice::NoSource);
        return Ok(None);
    }
    let access = config::access(common, &args.names, matches)?;
    let path = config::state_path(common);
    let tell = &mut |event| reporter.event(&event);
    let present = Inquiry::open(&access, args.retries.retry_for, tell)
        .map_err(anyhow::Error::from)
        .and_then(|mut inquiry| lag::ask(&mut inquiry, &path, last, overview, args.margins.safety_lag, tell));
    match present {
        Ok(present) => Ok(Some(present)),
        Err(error) if matches!(error.downcast_ref(), Some(Refusal::OtherSource { .. })) => Err(error),
        Err(error) => {
            reporter.notice(&Notice::SourceSilent, &error);
            Ok(None)
        }
    }
}

fn mention_unfinished(state: &State, reporter: &Reporter) -> anyhow::Result<()> {
    if let Some(run) = state.unfinished_run()?
        && let Some(life) = life(&run)
    {
        let (invoices, kind, host, started) = (run.counts.seen, run.kind, run.host, run.started);
        say(reporter, Notice::RunUnfinished { run: run.id, kind, host, started, invoices, life });
    }
    Ok(())
}

/// The field names are an interface that others build upon. Add to them, never rename.
const FIELDS: &[&str] = &[
    "tenant",
    "watermark",
    "lag_seconds",
    "stale",
    "last_outcome",
    "last_run",
    "last_time",
    "last_written",
    "open_rejects",
    "oldest_reject",
    "oldest_reject_seconds",
    "late_by_seconds",
    "note",
];
const SHOWN: &[&str] = &[
    "tenant",
    "watermark",
    "lag_seconds",
    "outcome",
    "run",
    "at",
    "written",
    "rejects",
    "open_for_seconds",
    "late_by_seconds",
    "note",
];

fn fields(place: &Place, judged: bool, now: DateTime<Utc>) -> Vec<Cell> {
    let [tenant, watermark, lag, outcome, run, at, written, rejects] = known(place);
    let stale = if judged && place.tenant.is_some() { Cell::Flag(place.stale) } else { Cell::None };
    let oldest = place.rejects.oldest.clone().into();
    let note = place.remark.map(|remark| remark.as_str()).into();
    vec![
        tenant,
        watermark,
        lag,
        stale,
        outcome,
        run,
        at,
        written,
        rejects,
        oldest,
        open_for(place, now),
        late_by(place),
        note,
    ]
}

fn shown(place: &Place, overlap: Duration, now: DateTime<Utc>) -> Vec<Cell> {
    let mut cells = known(place).to_vec();
    let nobody = place.tenant.is_none().then_some("rejects whose tenant cannot be read");
    let near = place.late_by.is_some_and(|by| Duration::from_secs(by) * 2 > overlap);
    let near = near.then_some("late arrivals come near --overlap: make it longer");
    let notes = [place.stale.then_some("stale"), place.remark.map(|remark| remark.as_str()), nobody, near];
    let notes: Vec<&str> = notes.into_iter().flatten().collect();
    cells.extend([open_for(place, now), late_by(place)]);
    cells.push(if notes.is_empty() { Cell::None } else { Cell::text(notes.join(", ")) });
    cells
}

/// From the tenant to the number of its open rejects.
fn known(place: &Place) -> [Cell; 8] {
    let last = place.last.as_ref();
    [
        place.tenant.as_ref().map(ToString::to_string).into(),
        place.watermark.as_ref().map(ToString::to_string).into(),
        place.lag.map_or(Cell::None, Cell::Seconds),
        last.map(|last| last.outcome.clone()).into(),
        last.map(|last| last.id.0).into(),
        last.map(|last| last.finished.clone().unwrap_or_else(|| last.started.clone())).into(),
        last.map(|last| last.written.cast_signed()).into(),
        Cell::Number(place.rejects.number.cast_signed()),
    ]
}

/// Of the last month.
fn late_by(place: &Place) -> Cell {
    place.late_by.map_or(Cell::None, |by| Cell::Seconds(by.cast_signed()))
}

/// How long the oldest open reject has been open.
fn open_for(place: &Place, now: DateTime<Utc>) -> Cell {
    let opened = place.rejects.oldest.as_deref().and_then(parsed);
    opened.map_or(Cell::None, |opened| Cell::Seconds(now.signed_duration_since(opened).num_seconds()))
}

fn rejects(state: &State, reporter: &Reporter) -> anyhow::Result<()> {
    let mut last: Option<PastReject> = None;
    reporter.pages(OPEN_REJECT, || {
        let page = state.open_rejects_from(last.as_ref(), PAGE)?;
        let mut rows: Vec<_> = page.iter().map(reject).collect();
        rows.iter_mut().for_each(|cells| cells.truncate(OPEN_REJECT.len()));
        last = page.into_iter().next_back().or(last.take());
        Ok(rows)
    })
}

/// Without the columns of how it was closed.
const OPEN_REJECT: &[&str] = REJECT.split_at(9).0;
