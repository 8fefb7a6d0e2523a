//! `history`: runs and changes of the state, newest first; one of them in full; the files of a run.

use super::past::{FIELDS, FIELDS_OF_TENANT, SHOWN, change_in_full, fields, life, run_in_full, shown};
use crate::cli::{Common, EntryKind, History, RunStatus};
use crate::config::{self, DayEnd};
use crate::event::Life;
use crate::invoice::SourceTime;
use crate::refusal::Refusal;
use crate::report::table::Cell;
use crate::report::{Audience, Reporter};
use crate::run::{Kind, RunId};
use crate::state::State;
use crate::state::changes::{ChangeKind, MovedWatermark};
use crate::state::history::{LoggedFile, PastChange, RunInFull, Status};
use crate::state::pages::{Filter, OfKind};

/// Entries and files that are read at once.
const PAGE: usize = 1_000;

pub(super) fn run(common: &Common, args: &History, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = super::look(common)?;
    match &args.which {
        None => list(&state, args, reporter)?,
        Some(which) => match (find(&state, which)?, args.files) {
            (Found::Run(run), true) => files(&state, run.run.id, args, reporter)?,
            (Found::Change(..), true) => {
                return Err(Refusal::Usage(format!("{which} is a change, and only runs have files").into()).into());
            }
            (Found::Run(run), false) => reporter.details(&run_in_full(&run)),
            (Found::Change(change, moved), false) => reporter.details(&change_in_full(&change, &moved)),
        },
    }
    Ok(0)
}

enum Found {
    Run(Box<RunInFull>),
    Change(Box<PastChange>, Vec<MovedWatermark>),
}

fn find(state: &State, which: &str) -> anyhow::Result<Found> {
    let number = |text: &str| text.parse::<i64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    if let Some(number) = which.strip_prefix('c').and_then(number) {
        let found = state.change_in_full(number)?;
        let (change, moved) = found
            .ok_or_else(|| Refusal::Usage(format!("there is no change {which}; list them with `history`").into()))?;
        return Ok(Found::Change(Box::new(change), moved));
    }
    let id = match which {
        "last" => state.newest_run()?.ok_or_else(|| anyhow::anyhow!("there is no run yet")),
        "last-failed" => newest_trouble(state)?.ok_or_else(|| anyhow::anyhow!("no run failed, in no way")),
        _ => number(which).map(RunId).ok_or_else(|| {
            Refusal::Usage(
                format!("{which:?} is no run; give its number, `last`, `last-failed` or a change such as c3").into(),
            )
            .into()
        }),
    }?;
    let run = state
        .run_in_full(id)?
        .ok_or_else(|| Refusal::Usage(format!("there is no run {id}; list them with `history`").into()))?;
    Ok(Found::Run(Box::new(run)))
}

/// A run that died without anybody having noticed counts as well.
fn newest_trouble(state: &State) -> anyhow::Result<Option<RunId>> {
    let dead = state.unfinished_run()?.filter(|run| life(run) == Some(Life::Dead)).map(|run| run.id);
    Ok(state.newest_trouble()?.max(dead))
}

fn list(state: &State, args: &History, reporter: &Reporter) -> anyhow::Result<()> {
    let filter = filter(args)?;
    let of_tenant = filter.tenant.clone();
    let Some(mut pages) = state.history(filter)? else {
        return Err(Refusal::TenantNotInState(of_tenant.map(|tenant| tenant.0).unwrap_or_default()).into());
    };
    let mut left = if args.limit == 0 { usize::MAX } else { args.limit as usize };
    let now = super::now();
    let audience = reporter.audience();
    let columns = match (audience, &of_tenant) {
        (Audience::People, _) => SHOWN,
        (Audience::Programs, None) => FIELDS,
        (Audience::Programs, Some(_)) => FIELDS_OF_TENANT,
    };
    reporter.pages(columns, || {
        let page = pages.next(left.min(PAGE))?;
        left -= page.len();
        Ok(page
            .iter()
            .map(|entry| if audience == Audience::People { shown(entry, now) } else { fields(entry, now) })
            .collect())
    })
}

fn filter(args: &History) -> anyhow::Result<Filter> {
    let since = config::moment(args.since.as_deref(), "--since", DayEnd::First)?;
    let until = config::moment(args.until.as_deref(), "--until", DayEnd::Last)?;
    if let (Some(since), Some(until)) = (&since, &until)
        && since > until
    {
        let [since, until] = [since, until].map(|moment| SourceTime(moment.clone()));
        return Err(config::window_reversed(&since, &until));
    }
    let kind = args.kind.map(of_kind);
    if args.status.is_some() && matches!(kind, Some(OfKind::Change(_))) {
        return Err(Refusal::Usage("changes have no --status; leave it out, or name a kind of run".into()).into());
    }
    let status = args.status.map(|status| match status {
        RunStatus::Running => Status::Running,
        RunStatus::Success => Status::Success,
        RunStatus::Partial => Status::Partial,
        RunStatus::Failed => Status::Failed,
        RunStatus::Cancelled => Status::Cancelled,
        RunStatus::Interrupted => Status::Interrupted,
    });
    Ok(Filter { tenant: args.tenant.as_deref().map(Into::into), kind, status, since, until })
}

fn of_kind(kind: EntryKind) -> OfKind {
    match kind {
        EntryKind::Full => OfKind::Run(Kind::Full),
        EntryKind::Incremental => OfKind::Run(Kind::Incremental),
        EntryKind::Backfill => OfKind::Run(Kind::Backfill),
        EntryKind::Verify => OfKind::Run(Kind::Verify),
        EntryKind::Set => OfKind::Change(ChangeKind::Set),
        EntryKind::Reset => OfKind::Change(ChangeKind::Reset),
        EntryKind::Import => OfKind::Change(ChangeKind::Import),
        EntryKind::Restore => OfKind::Change(ChangeKind::Restore),
        EntryKind::AdoptSource => OfKind::Change(ChangeKind::AdoptSource),
        EntryKind::PullBack => OfKind::Change(ChangeKind::PullBack),
        EntryKind::Upgrade => OfKind::Change(ChangeKind::Upgrade),
    }
}

fn files(state: &State, run: RunId, args: &History, reporter: &Reporter) -> anyhow::Result<()> {
    let listing = if args.null { state.files_that_stayed(run)? } else { state.files(run)? };
    let mut last: Option<LoggedFile> = None;
    let mut page = || {
        let page = listing.page(last.as_ref(), PAGE)?;
        last = page.last().cloned().or(last.take());
        anyhow::Ok(page)
    };
    if args.null {
        loop {
            let page = page()?;
            if page.is_empty() {
                return Ok(());
            }
            reporter.raw(&page.iter().flat_map(|file| [file.path.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>());
        }
    }
    if reporter.audience() == Audience::Programs {
        return reporter.pages(&["action", "path"], || {
            let cells = |file: LoggedFile| vec![Cell::text(file.action), Cell::text(file.path)];
            Ok(page()?.into_iter().map(cells).collect())
        });
    }
    loop {
        // Names hold no control characters, so each stays on its line.
        let lines: Vec<String> = page()?.iter().map(|file| format!("{}  {}", file.action, file.path)).collect();
        if lines.is_empty() {
            return Ok(());
        }
        reporter.line(&lines.join("\n"));
    }
}
