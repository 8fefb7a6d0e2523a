//! A run from the lock to its last record: the checks before anything is created, tree and state under the lock, and
//! the record of how the work ended.

use chrono::SecondsFormat;

use super::attach::Attached;
use super::conditions::ConditionNews;
use super::doubts::{self, Doubts};
use super::metrics::{RunMetrics, RunResult};
use super::mirror;
use super::options::{CommonOptions, ExportOptions};
use super::plan::{self, StatePolicy};
use super::server::{
    RunParameters, ServerSession, ServerSnapshot, refuse_other_use, refuse_unknown_tenants, take_snapshot,
};
use super::starts;
use super::writing::Writing;
use crate::event::{Event, Notice};
use crate::fs::private::PrivateFolder;
use crate::lang::{Message, Text};
use crate::lock::ExportLock;
use crate::panics;
use crate::refusal::Refusal;
use crate::run::{Kind, LastNumbers, RunId};
use crate::source::SourceName;
use crate::state::backup::{self, Occasion, REGULAR};
use crate::state::changes::{Change, ChangeKind};
use crate::state::conditions::ConditionChanges;
use crate::state::history::RunStatus;
use crate::state::runs::{End, LastKnownState, OpenRun, Start};
use crate::state::watermarks::PullBack;
use crate::state::{State, numbers};
use crate::tree::Tree;
use crate::tree::mark::{self, Mark, Written};
use crate::tree::stage::{self, Stage};

/// Tree and state under the lock, and the snapshot of the server.
pub(super) struct Session {
    pub tree: Tree,
    pub state: State,
    pub snapshot: ServerSnapshot,
    pub lock: ExportLock,
    source: SourceName,
    begun: plan::StartMode,
    last: LastKnownState,
    last_number: i64,
}

/// What a run that has begun works with.
pub(super) struct RunContext<'a> {
    pub state: &'a mut State,
    pub snapshot: &'a ServerSnapshot,
    pub writing: Writing<'a>,
}

impl Session {
    /// Checks, takes the lock, attaches the state to the tree and takes the snapshot of the server.
    ///
    /// # Errors
    /// A refusal of what the operator asks for comes before anything is created where no run has been yet.
    pub(super) fn open(
        options: &CommonOptions,
        server_session: &mut ServerSession,
        tell: &mut dyn FnMut(Event),
    ) -> anyhow::Result<Self> {
        refuse_before_anything_is_made(options, server_session, tell)?;
        let (tree, lock) = options.lock(tell)?;
        let Attached { mut state, begun, last_number } = options.location().attach(&tree, &lock, tell)?;
        let last = state.last_time()?;
        let mut snapshot = take_snapshot(options, server_session, Some((&state, &last)), tell)?;
        if options.kind == Kind::Verify {
            snapshot.remind(tell);
        }
        recover(lock.private(), &mut state, tell)?;
        let source = server_session.name().clone();
        Ok(Self { tree, state, snapshot, lock, source, begun, last, last_number })
    }

    /// Does the work of a run that has begun and ends it, on record in every case.
    pub(super) fn on_record(
        &mut self,
        options: &CommonOptions,
        run: OpenRun,
        metrics: &RunMetrics,
        tell: &mut dyn FnMut(Event),
        work: impl FnOnce(RunContext<'_>, &mut dyn FnMut(Event)) -> anyhow::Result<RunResult>,
    ) -> anyhow::Result<(RunId, RunResult)> {
        let id = run.id;
        match panics::as_error(|| self.in_stage(options, &run, tell, work)) {
            Ok(result) => {
                self.state.finish(run, &end_of(&result, options, metrics))?;
                Ok((id, result))
            }
            Err(error) => {
                let (status, message) = (self.status_after(&error, id), Message::from(&error).into());
                // The operator must know the first error; if it cannot be recorded, the next run finds this one dead.
                let _ = self.state.finish(run, &end(options, metrics, status, Some(message)));
                Err(error)
            }
        }
    }

    /// Does the work of a run in a stage of its own. An error leaves the stage for the next run to clear up.
    fn in_stage(
        &mut self,
        options: &CommonOptions,
        run: &OpenRun,
        tell: &mut dyn FnMut(Event),
        work: impl FnOnce(RunContext<'_>, &mut dyn FnMut(Event)) -> anyhow::Result<RunResult>,
    ) -> anyhow::Result<RunResult> {
        let Self { tree, state, snapshot, lock, last, .. } = self;
        lock.note_numbers(LastNumbers { run: run.id.0, change: 0 })?;
        let durability = options.work.durability.map_or_else(|| tree.durability(), Ok)?;
        pull_back(&snapshot.parameters, lock, state, tell)?;
        let stage = Stage::create(tree, lock.private(), durability)?;
        let mark = Mark { state_id: last.state_id.clone(), run: run.id.0, written: Written::InPart };
        let writing = Writing { tree, stage: &stage, lock, run, mark: Some(mark) };
        let result = work(RunContext { state: &mut *state, snapshot, writing }, tell)?;
        stage::remove(lock.private())?;
        say_whole(lock, run.id)?;
        Ok(result)
    }

    /// A run counts as cancelled only if the mark of the tree could be made whole.
    fn status_after(&self, error: &anyhow::Error, run: RunId) -> RunStatus {
        match starts::status_after(error) {
            RunStatus::Cancelled if say_whole(&self.lock, run).is_err() => RunStatus::Failed,
            status => status,
        }
    }

    /// Puts the beginning of a run on record, with its doubts about clocks and server. From here on every error is the
    /// run's. A verification goes on as this run.
    pub(super) fn begin(
        &mut self,
        options: &CommonOptions,
        verification: Option<RunId>,
        tell: &mut dyn FnMut(Event),
    ) -> anyhow::Result<OpenRun> {
        let conditions = self.say_news(options, tell)?;
        let ServerSnapshot { clock, clocks, server, parameters, .. } = &self.snapshot;
        let found = doubts::StartFacts { start: self.begun, server, clocks, at: options.surroundings.starter.at };
        let Doubts { doubts, proof } = doubts::doubts(&self.last, &found, options.margins.safety_lag);
        doubts.iter().for_each(|doubt| tell(Event::Notice(Notice::Doubt(*doubt))));
        self.state.begin(&Start {
            kind: options.kind,
            starter: options.surroundings.starter.clone(),
            source: self.source.0.clone(),
            server: server.clone(),
            clocks: clocks.clone(),
            boundary: parameters.boundary.clone(),
            window: options.selection.window.clone(),
            doubts,
            proof,
            times_again: doubts::times_again(&self.last, clock, clocks, options.margins.safety_lag),
            last_number: self.last_number,
            table: parameters.table.clone(),
            verification,
            conditions,
        })
    }

    /// Says what is news of the conditions that were found, and the rest without a warning.
    fn say_news(&mut self, options: &CommonOptions, tell: &mut dyn FnMut(Event)) -> anyhow::Result<ConditionChanges> {
        let Some(found) = self.snapshot.conditions.take() else { return Ok(ConditionChanges::default()) };
        let ConditionNews { events, changes } =
            found.news(&self.state.known_conditions()?, options.surroundings.starter.at);
        events.into_iter().for_each(tell);
        Ok(changes)
    }

    /// Backs the state up if the last backup is old enough. An error of it does not keep invoices from being exported,
    /// unless the state turns out to be damaged.
    pub(super) fn back_up(&self, options: &ExportOptions, tell: &mut dyn FnMut(Event)) -> anyhow::Result<()> {
        let Some(every) = options.backups.every.filter(|_| self.last.last_run > 0) else { return Ok(()) };
        let at = options.common.surroundings.starter.at;
        let make = || {
            let made = backup::list(self.state.path())?.into_iter().find(|backup| backup.occasion.starts_with(REGULAR));
            // A backup from the future, made while the clock was wrong, does not count.
            if made.is_some_and(|made| (at - made.made).to_std().is_ok_and(|age| age < every)) {
                return Ok(());
            }
            self.state.back_up(Occasion::Regular, at)?;
            backup::prune(&self.lock, options.backups.keep)
        };
        match make() {
            Err(error) if error.chain().any(|cause| cause.is::<Refusal>()) => Err(error),
            Err(error) => {
                tell(Event::Notice(Notice::NoBackup { error: Message::from(&error).what }));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Writes the script's file if the operator wants it.
    pub(super) fn mirror(&self, options: &ExportOptions) -> anyhow::Result<()> {
        mirror::mirror(options, self.lock.private(), &self.state)
    }

    /// Closes the state and frees the lock.
    pub(super) fn close(self) -> anyhow::Result<()> {
        numbers::close(self.state, &self.lock)
    }
}

/// The end of a run that has done its work, with its counts and its failed tenants.
fn end_of(result: &RunResult, options: &CommonOptions, metrics: &RunMetrics) -> End {
    End {
        tenants: Some(result.number_of_tenants()),
        counts: Some(result.totals.run),
        failed: result.failed.iter().map(|(tenant, trouble)| (tenant.clone(), trouble.message().into())).collect(),
        ..end(options, metrics, result.outcome().into(), result.error())
    }
}

/// An end without counts.
pub(super) fn end(options: &CommonOptions, metrics: &RunMetrics, status: RunStatus, error: Option<Text>) -> End {
    End {
        status,
        at: (options.surroundings.clocks.now)().to_rfc3339_opts(SecondsFormat::Secs, true),
        error,
        tenants: None,
        retries: metrics.retries.get(),
        counts: None,
        failed: Vec::new(),
    }
}

/// Pulls watermarks that lie ahead of the boundary back to it.
fn pull_back(
    parameters: &RunParameters,
    lock: &ExportLock,
    state: &mut State,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    if !parameters.moves_watermarks() {
        return Ok(());
    }
    let boundary = &parameters.boundary;
    let back = plan::pull_backs(&state.tenants_ahead_of(Some(boundary))?, boundary);
    if !back.is_empty() {
        let change = Change::under(lock, ChangeKind::PullBack, Some("it lay ahead of the boundary"))?;
        state.pull_back(&back, boundary, &change)?;
    }
    for PullBack { tenant, from } in back {
        tell(Event::Notice(Notice::PulledBack { tenant, from, to: boundary.clone() }));
    }
    Ok(())
}

/// Marks the tree as whole if the run has published. The mark stays if the end of the run cannot be put on record:
/// after an error of the last sync the end may be on disk all the same, and a tree marked as partial would be refused.
fn say_whole(lock: &ExportLock, run: RunId) -> anyhow::Result<()> {
    match lock.mark()?.filter(|mark| mark.run == run.0) {
        Some(mark) => lock.write_mark(&Mark { written: Written::Whole, ..mark }),
        None => Ok(()),
    }
}

/// Takes over what a dead run left: the paths that it may have written go into the state, then its stage is removed.
fn recover(private: &PrivateFolder, state: &mut State, tell: &mut dyn FnMut(Event)) -> anyhow::Result<()> {
    let unrecorded = stage::unrecorded(private)?;
    let files = unrecorded.targets.len() + unrecorded.movers.len();
    if files > 0 {
        tell(Event::Notice(Notice::Recovering { files: files as u64 }));
        state.record_doubt(&unrecorded)?;
    }
    stage::remove(private)
}

/// Refuses a run that may not start before it creates anything in an output without a mark, or sets a state aside for
/// `--fresh`.
fn refuse_before_anything_is_made(
    options: &CommonOptions,
    server_session: &mut ServerSession,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    if options.policy == StatePolicy::Fresh {
        return refuse_unknown_tenants(&options.selection, &[], None, server_session, tell);
    }
    if mark::of_output(&options.paths.output)?.is_some() {
        return refuse_before_an_upgrade(options, server_session, tell);
    }
    let state = options.location().open_read_only()?.map(|(state, ..)| state);
    refuse_unknown_tenants(&options.selection, &[], state.as_ref(), server_session, tell)
}

/// Opening the state of an older version upgrades it, which a run that may not start has no business to do.
fn refuse_before_an_upgrade(
    options: &CommonOptions,
    server_session: &mut ServerSession,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    if !State::is_older(&options.paths.state)? {
        return Ok(());
    }
    match options.location().open_read_only()? {
        Some((state, ..)) => refuse_other_use(options, &state, server_session, tell),
        None => Ok(()),
    }
}
