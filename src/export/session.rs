//! A run from the lock to its last record: what must hold before anything is made, tree and state under
//! the lock, and an end on record in whatever way the work ends.

use chrono::SecondsFormat;

use super::attach::Attached;
use super::doubts::{self, Doubts};
use super::metrics::{RunMetrics, RunResult};
use super::mirror;
use super::options::ExportOptions;
use super::plan::{self, StatePolicy};
use super::server::{ServerSession, ServerSnapshot, Settings, ask_server, refuse_other_source, refuse_unknown_tenants};
use super::writing::Writing;
use crate::event::{Event, Notice};
use crate::fs::private::PrivateFolder;
use crate::lang::Message;
use crate::lock::{self, ExportLock};
use crate::panics;
use crate::refusal::Refusal;
use crate::run::RunId;
use crate::source::SourceName;
use crate::state::State;
use crate::state::backup::{self, Occasion, REGULAR};
use crate::state::history::Status;
use crate::state::runs::{End, LastKnownState, OpenRun, Start};
use crate::state::watermarks::PullBack;
use crate::tree::Tree;
use crate::tree::mark::{self, Mark, Written};
use crate::tree::stage::{self, Stage};

/// Tree and state, held against others, and what the server said.
pub(super) struct Session {
    pub tree: Tree,
    pub state: State,
    pub snapshot: ServerSnapshot,
    lock: ExportLock,
    source: SourceName,
    begun: plan::StartMode,
    last: LastKnownState,
    marked_run: i64,
}

/// What a run that has begun works with.
pub(super) struct RunContext<'a> {
    pub state: &'a mut State,
    pub snapshot: &'a ServerSnapshot,
    pub writing: Writing<'a>,
}

impl Session {
    pub(super) fn open(
        options: &ExportOptions,
        server_session: &mut ServerSession,
        tell: &mut dyn FnMut(Event),
    ) -> anyhow::Result<Self> {
        refuse_before_anything_is_made(options, server_session, tell)?;
        let (tree, lock) = lock::acquire(
            &options.output,
            &options.state,
            options.kind.as_str(),
            &options.starter,
            options.lock_wait,
            tell,
        )?;
        let Attached { mut state, begun, marked_run } = options.location().attach(&tree, &lock, tell)?;
        let last = state.last_time()?;
        refuse_other_source(&options.state, &last, server_session.source.as_ref())?;
        let snapshot = ask_server(options, server_session, tell)?;
        refuse_unknown_tenants(options, &snapshot.listed, Some(&state), server_session, tell)?;
        recover(lock.private(), &mut state, tell)?;
        let source = server_session.source.name();
        Ok(Self { tree, state, snapshot, lock, source, begun, last, marked_run })
    }

    /// Opens a run, has it carried out and ends it, on record.
    pub(super) fn on_record(
        &mut self,
        options: &ExportOptions,
        metrics: &RunMetrics,
        tell: &mut dyn FnMut(Event),
        work: impl FnOnce(RunContext<'_>, &mut dyn FnMut(Event)) -> anyhow::Result<RunResult>,
    ) -> anyhow::Result<(RunId, RunResult)> {
        let durability = options.durability.map_or_else(|| self.tree.durability(), Ok)?;
        let run = self.begin(options, tell)?;
        let Self { tree, state, snapshot, lock, last, .. } = self;
        let id = run.id;
        // From here on every error is on record as the run's.
        let result = panics::as_error(|| {
            pull_back(options, &snapshot.settings, state, tell)?;
            let stage = Stage::create(tree, lock.private(), durability)?;
            let mark = Mark { state_id: last.state_id.clone(), run: id.0, written: Written::InPart };
            let writing = Writing { tree, stage: &stage, lock, run: &run, mark: Some(mark) };
            let carried_out = work(RunContext { state: &mut *state, snapshot, writing }, tell)?;
            stage::remove(lock.private())?;
            say_whole(lock, id)?;
            Ok(carried_out)
        });
        let end = |status, error| End {
            status,
            at: (options.clocks.now)().to_rfc3339_opts(SecondsFormat::Secs, true),
            error,
            tenants: 0,
            retries: metrics.retries.get(),
            counts: None,
            failed: Vec::new(),
        };
        let carried_out = match result {
            Ok(carried_out) => carried_out,
            Err(error) => {
                // The operator must know the first error; if it cannot be recorded, the next run finds this one dead.
                let cancelled = matches!(error.downcast_ref(), Some(Refusal::Cancelled { .. }));
                let cancelled = cancelled && say_whole(lock, id).is_ok();
                let status = if cancelled { Status::Cancelled } else { Status::Failed };
                let _ = state.finish(run, &end(status, Some(Message::from(&error).to_string())));
                let _ = mirror::mirror(options, lock.private(), state);
                return Err(error);
            }
        };
        let failed = carried_out.failed.iter().map(|(tenant, trouble)| (tenant.clone(), trouble.to_string())).collect();
        let ended = end(carried_out.outcome().into(), carried_out.error());
        state.finish(
            run,
            &End { tenants: carried_out.tenants.len() as u64, counts: Some(carried_out.totals.run), failed, ..ended },
        )?;
        Ok((id, carried_out))
    }

    fn begin(&mut self, options: &ExportOptions, tell: &mut dyn FnMut(Event)) -> anyhow::Result<OpenRun> {
        let ServerSnapshot { clock, clocks, server, settings, .. } = &self.snapshot;
        let found = doubts::StartFacts { start: self.begun, server, clocks, at: options.starter.at };
        let Doubts { doubts, proof } = doubts::doubts(&self.last, &found, options.safety_lag);
        doubts.iter().for_each(|doubt| tell(Event::Notice(Notice::Doubt(*doubt))));
        self.state.begin(&Start {
            kind: options.kind,
            starter: options.starter.clone(),
            source: self.source.0.clone(),
            server: server.clone(),
            clocks: clocks.clone(),
            boundary: settings.boundary.clone(),
            since: settings.since.clone(),
            doubts,
            proof,
            times_again: doubts::times_again(&self.last, clock, clocks, options.safety_lag),
            marked_run: self.marked_run,
            table: settings.table.clone(),
        })
    }

    /// A backup that cannot be made must not keep invoices from being exported; a state that turns out to
    /// be damaged must.
    pub(super) fn back_up(&self, options: &ExportOptions, tell: &mut dyn FnMut(Event)) -> anyhow::Result<()> {
        let Some(every) = options.backups.every.filter(|_| self.last.last_run > 0) else { return Ok(()) };
        let at = options.starter.at;
        let make = || {
            let made = backup::list(self.state.path())?.into_iter().find(|backup| backup.occasion.starts_with(REGULAR));
            // One from the future, after a clock went wrong, counts for nothing.
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

    /// Writes the script's file, then closes the state and frees the lock.
    pub(super) fn close(self, options: &ExportOptions) -> anyhow::Result<()> {
        let mirrored = mirror::mirror(options, self.lock.private(), &self.state);
        self.state.close()?;
        mirrored
    }
}

/// Watermarks that lie ahead of the boundary are pulled back to it.
fn pull_back(
    options: &ExportOptions,
    settings: &Settings,
    state: &mut State,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    let Settings { boundary, .. } = settings;
    if !settings.moves_watermarks() {
        return Ok(());
    }
    let back = plan::pull_backs(&state.tenants_ahead_of(Some(boundary))?, boundary);
    if !back.is_empty() {
        state.pull_back(&back, boundary, &options.starter)?;
    }
    for PullBack { tenant, from } in back {
        tell(Event::Notice(Notice::PulledBack { tenant, from, to: boundary.clone() }));
    }
    Ok(())
}

/// Says in the tree, if the run has published, that it holds all of that. It stays said if the end cannot be put
/// on record: an error of the last sync does not mean that the end is not there, and a tree in part would be refused.
fn say_whole(lock: &ExportLock, run: RunId) -> anyhow::Result<()> {
    match lock.mark()?.filter(|mark| mark.run == run.0) {
        Some(mark) => lock.write_mark(&Mark { written: Written::Whole, ..mark }),
        None => Ok(()),
    }
}

/// Takes over what a dead run left: from here on the state knows what is in doubt, and staging may go.
fn recover(private: &PrivateFolder, state: &mut State, tell: &mut dyn FnMut(Event)) -> anyhow::Result<()> {
    let targets = stage::unrecorded_targets(private)?;
    if !targets.is_empty() {
        tell(Event::Notice(Notice::Recovering { files: targets.len() as u64 }));
        state.doubt(&targets)?;
    }
    stage::remove(private)
}

/// Where the output carries no mark nothing is created, and with `--fresh` nothing is set aside, before
/// it is clear that the run may start.
fn refuse_before_anything_is_made(
    options: &ExportOptions,
    server_session: &mut ServerSession,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    if options.policy == StatePolicy::Fresh {
        return refuse_unknown_tenants(options, &[], None, server_session, tell);
    }
    if mark::of_output(&options.output)?.is_some() {
        return Ok(());
    }
    let state = State::open_read_only(&options.state)?;
    let last = state.as_ref().map(State::last_time).transpose()?;
    options.location().judge(last.as_ref(), None)?;
    refuse_unknown_tenants(options, &[], state.as_ref(), server_session, tell)
}
