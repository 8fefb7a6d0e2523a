//! Where source, tree and state meet, and nowhere else.
//!
//! `run` is one execution from lock to last record. `inquiry.rs` asks the server what must be known
//! first; `plan.rs` decides without I/O whether it may start and what it reads, `tie.rs` ties the tree to
//! its state, `kin.rs` finds spellings that are one tenant; `diff.rs` reads in one thread; `check.rs`
//! checks rows in several; `pipeline.rs` gives out paths, publishes and records in one, with `batch.rs`
//! (what goes together) and `contest.rs` (two invoices that want one path). `mirror.rs` writes the
//! script's state file, `patience.rs` waits for a server that went away, `budget.rs` bounds memory.
//! `lag.rs` is beside all of that: it only says how far the tenants lag behind.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use chrono::{DateTime, SecondsFormat, Utc};

use crate::event::{Event, Notice};
use crate::invoice::{SourceTime, Tenant};
use crate::lock::{self, Held};
use crate::refusal::{Refusal, Trouble};
use crate::run::{Cancel, Counts, Kind, Outcome, RunId, Starter, Summary};
use crate::source::{self, Access, Fault, Listed, Source};
use crate::state::State;
use crate::state::backup::{self, Occasion, REGULAR};
use crate::state::ledger::Lookup;
use crate::state::record::Record;
use crate::state::runs::{End, LastTime, OpenRun, PullBack, Start};
use crate::state::tenants::KnownTenant;
use crate::state::todo::{Todo, Why};
use crate::tree::mark::{self, Mark};
use crate::tree::publish::{Changes, Published};
use crate::tree::stage::{self, Stage};
use crate::tree::{Durability, Tree};
use crate::window::{Clock, OpenWork, Span, settled_below};

use self::check::{Desk, Presence};
use self::diff::{Compare, Scope};
use self::drive::{Errand, drive};
use self::inquiry::Inquiry;
pub use self::mirror::Mirror;
use self::patience::Patience;
use self::pipeline::{Clerk, Post};
use self::plan::{HowToRead, Incremental, Purpose, StatePolicy};
use self::tie::{Place, Tied};

mod batch;
mod budget;
mod check;
mod contest;
mod diff;
mod drive;
mod inquiry;
mod kin;
pub mod lag;
mod mirror;
mod patience;
mod pipeline;
pub mod plan;
pub mod tie;
pub mod why;

/// What the operator wants.
pub struct Order {
    pub kind: Kind,
    pub mode: Mode,
    /// Empty means all.
    pub tenants: Vec<Tenant>,
    /// The window of a backfill: `(since, until]`.
    pub since: Option<SourceTime>,
    pub until: Option<SourceTime>,
    pub access: Access,
    pub output: PathBuf,
    /// The state's file.
    pub state: PathBuf,
    pub policy: StatePolicy,
    pub safety_lag: Duration,
    pub overlap: Duration,
    pub lock_wait: Duration,
    /// How long a source that cannot be reached is tried again without any progress.
    pub retry_for: Duration,
    /// Threads that check and stage rows.
    pub writers: usize,
    pub durability: Durability,
    /// Bytes.
    pub max_document: u64,
    pub backups: Backups,
    /// The script's state file is written after the run too.
    pub mirror: Mirror,
    pub starter: Starter,
    /// Our own clock, for the record only.
    pub now: fn() -> DateTime<Utc>,
    /// From here on signals only ask to stop. Called when there is something to be brought to an end.
    pub watch: fn() -> anyhow::Result<Cancel>,
}

impl Order {
    fn place(&self) -> Place<'_> {
        let Self { output, state, policy, .. } = self;
        Place { output, state, policy: *policy, purpose: Purpose::Run(self.kind) }
    }
}

/// Which backups of the state incremental runs make before they move watermarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backups {
    /// None: no backups.
    pub every: Option<Duration>,
    /// How many are kept.
    pub keep: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Export,
    /// Reads and checks everything and leaves no trace.
    DryRun,
}

/// What is fixed once a run has looked at the server.
#[derive(Clone, Debug)]
struct Settings {
    kind: Kind,
    boundary: SourceTime,
    since: Option<SourceTime>,
    work: OpenWork,
    overlap: Duration,
    settled_below: SourceTime,
}

impl Settings {
    fn moves_watermarks(&self) -> bool {
        self.kind == Kind::Incremental
    }
}

/// What the server said before anything was read.
struct Present {
    clock: Clock,
    server: String,
    listed: Vec<Listed>,
    settings: Settings,
}

/// What it takes to change tree and state. A dry run has none.
struct Writing<'a> {
    tree: &'a Tree,
    stage: &'a Stage,
    held: &'a Held,
    run: &'a OpenRun,
    /// Written before the first batch is published; None afterwards.
    mark: Option<Mark>,
}

impl Writing<'_> {
    fn publish(&mut self, changes: &Changes) -> anyhow::Result<Published> {
        if let Some(mark) = self.mark.take_if(|_| !changes.is_empty()) {
            self.held.write_mark(&mark)?;
        }
        self.tree.publish(self.stage, changes)
    }

    fn record(&self, state: &mut State, published: &Published, record: &Record) -> anyhow::Result<()> {
        state.record(self.run, published, record)?;
        self.stage.drop_list()
    }
}

/// What is measured on the way.
struct Course {
    started: Instant,
    retries: Cell<u64>,
}

/// Carries out one run and says what came of it.
pub fn run(order: &Order, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Summary> {
    let course = Course { started: Instant::now(), retries: Cell::new(0) };
    let tell = &mut |event: Event| {
        // Whoever tries again says so, so that this counts them all.
        let retries = u64::from(matches!(event, Event::Notice(Notice::Retrying { .. })));
        course.retries.set(course.retries.get() + retries);
        tell(event);
    };
    tell(Event::Started { kind: order.kind, dry_run: order.mode == Mode::DryRun });
    let inquiry = Inquiry::open(order, tell)?;
    inquiry.source.notices().into_iter().for_each(|notice| tell(Event::Notice(notice)));
    match order.mode {
        Mode::DryRun => look(order, inquiry, &course, tell),
        Mode::Export => export(order, inquiry, &course, tell),
    }
}

fn export(
    order: &Order,
    mut inquiry: Inquiry,
    course: &Course,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Summary> {
    refuse_before_anything_is_made(order, &mut inquiry, tell)?;
    let (tree, held) =
        lock::acquire(&order.output, &order.state, order.kind.as_str(), &order.starter, order.lock_wait, tell)?;
    let Tied { mut state, begun, marked_run } = order.place().tie(&tree, &held, order.starter.at, tell)?;
    let last = state.last_time()?;
    refuse_other_source(&order.state, &last, inquiry.source.as_ref())?;
    let present = ask_server(order, &mut inquiry, tell)?;
    refuse_unknown_tenants(order, &present.listed, Some(&state), &mut inquiry, tell)?;
    recover(&tree, &mut state, tell)?;
    if order.kind == Kind::Incremental && last.last_run > 0 {
        back_up(order, &state, &held, tell)?;
    }
    let run = begin(order, &present, begun, &last, marked_run, inquiry.source.as_ref(), &mut state, tell)?;
    inquiry.source.label(run.id);
    let stage = Stage::create(&tree, order.durability)?;
    let mark = Mark { state_id: last.state_id, run: run.id.0 };
    let writing = Writing { tree: &tree, stage: &stage, held: &held, run: &run, mark: Some(mark) };
    let result = carry_out(order, &present, inquiry, Some(&mut state), Some(&tree), Some(writing), tell);
    let end = |outcome, error| End {
        outcome,
        at: (order.now)().to_rfc3339_opts(SecondsFormat::Secs, true),
        error,
        tenants: 0,
        retries: course.retries.get(),
        counts: None,
        failed: Vec::new(),
    };
    let carried_out = match result {
        Ok(carried_out) => carried_out,
        Err(error) => {
            // What went wrong first is what the operator must know; the next run finds this one dead.
            let cancelled = matches!(error.downcast_ref(), Some(Refusal::Cancelled { .. }));
            let outcome = if cancelled { Outcome::Cancelled } else { Outcome::Failed };
            let _ = state.finish(run, &end(outcome, Some(format!("{error:#}"))));
            let _ = mirror::mirror(order, &state);
            let _ = state.close();
            return Err(error);
        }
    };
    stage::remove(tree.output())?;
    let id = run.id;
    let outcome = carried_out.outcome();
    let open_rejects = state.open_rejects()?;
    let failed = carried_out.failed.iter().map(|(tenant, trouble)| (tenant.clone(), trouble.to_string())).collect();
    state.finish(
        run,
        &End { tenants: carried_out.tenants, counts: Some(carried_out.totals), failed, ..end(outcome, None) },
    )?;
    let mirrored = mirror::mirror(order, &state);
    state.close()?;
    let summary = carried_out.summary(order, &present.settings, Some(id), open_rejects, course);
    tell(Event::Finished(Box::new(summary.clone())));
    mirrored.map(|()| summary)
}

/// A dry run: the same reading and checking, no lock, no file, no folder, no state.
fn look(order: &Order, mut inquiry: Inquiry, course: &Course, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Summary> {
    let tree = Tree::look(&order.output)?;
    let mut state = if order.policy == StatePolicy::Fresh { None } else { State::look(&order.state)? };
    let last = state.as_ref().map(State::last_time).transpose()?;
    order.place().judge(last.as_ref(), mark::look(&order.output)?.as_ref())?;
    if let Some(last) = &last {
        refuse_other_source(&order.state, last, inquiry.source.as_ref())?;
    }
    let present = ask_server(order, &mut inquiry, tell)?;
    refuse_unknown_tenants(order, &present.listed, state.as_ref(), &mut inquiry, tell)?;
    let open_rejects = state.as_ref().map_or(Ok(0), State::open_rejects)?;
    let carried_out = carry_out(order, &present, inquiry, state.as_mut(), tree.as_ref(), None, tell)?;
    let summary = carried_out.summary(order, &present.settings, None, open_rejects, course);
    tell(Event::Finished(Box::new(summary.clone())));
    Ok(summary)
}

/// What came of reading, deciding and writing.
struct CarriedOut {
    totals: Counts,
    failed: BTreeMap<Tenant, Trouble>,
    tenants: u64,
    new_rejects: u64,
}

impl CarriedOut {
    fn outcome(&self) -> Outcome {
        if self.failed.is_empty() && self.new_rejects == 0 { Outcome::Success } else { Outcome::Partial }
    }

    fn summary(
        self,
        order: &Order,
        settings: &Settings,
        run: Option<RunId>,
        open_rejects: u64,
        course: &Course,
    ) -> Summary {
        Summary {
            run,
            kind: order.kind,
            outcome: self.outcome(),
            boundary: settings.boundary.clone(),
            since: order.since.clone(),
            tenants: self.tenants,
            failed_tenants: self.failed.into_iter().collect(),
            counts: self.totals,
            new_rejects: self.new_rejects,
            open_rejects,
            retries: course.retries.get(),
            elapsed: course.started.elapsed(),
            output: order.output.clone(),
            state: order.state.clone(),
        }
    }
}

/// Reads, checks, decides and writes, in its threads.
fn carry_out(
    order: &Order,
    present: &Present,
    mut inquiry: Inquiry,
    state: Option<&mut State>,
    tree: Option<&Tree>,
    writing: Option<Writing<'_>>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<CarriedOut> {
    let mut known = state.as_deref().map_or(Ok(Vec::new()), State::tenants)?;
    if order.kind == Kind::Incremental {
        inquiry.ask(tell, |source| kin::unite(&mut known, &present.listed, source))?;
    }
    let scope = Arc::new(scope(order, present, &known));
    if matches!(*scope, Scope::Table) {
        let before = state.as_deref().map_or(Ok(None), State::last_full_count)?;
        let expected = match before.filter(|count| *count > 0) {
            None => inquiry.ask(tell, |source| source.estimate())?,
            known => known,
        };
        if let Some(expected) = expected {
            tell(Event::Expected(expected));
        }
    }
    let mut todo = state.as_deref().map_or(Ok(Vec::new()), State::todo)?;
    if !order.tenants.is_empty() {
        // What a dead run left in doubt is cleared up whoever it belongs to.
        let chosen = |todo: &Todo| todo.tenant.as_ref().is_none_or(|tenant| order.tenants.contains(tenant));
        todo.retain(|todo| todo.why == Why::Doubt || chosen(todo));
    }
    let doubted = state.as_deref().map_or(Ok(Vec::new()), State::doubted_paths)?;
    let lookup = state.as_deref().map_or_else(|| Ok(Lookup::nothing()), State::lookup)?;
    let desk = Desk {
        tree,
        stage: writing.as_ref().map(|writing| writing.stage),
        presence: if order.kind == Kind::Incremental { Presence::Assumed } else { Presence::Checked },
        max_document: order.max_document,
    };
    let server = present.server.clone();
    let label = writing.as_ref().map(|writing| writing.run.id);
    let open_second = move || second_source(&order.access, &server, label);
    let cancel = if writing.is_some() { (order.watch)()? } else { Cancel::default() };
    let patience = || Patience::new(order.retry_for, &cancel);
    let mut clerk = Clerk::new(Post {
        settings: &present.settings,
        desk,
        state,
        writing,
        groups: scope.groups(),
        patience: patience(),
        doubted,
        retried: todo.iter().map(|todo| (todo.id.clone(), todo.why)).collect(),
        tell,
        open_second: &open_second,
    });
    let errand = Errand { source: inquiry.source, lookup, todo, scope: Arc::clone(&scope), patience: patience() };
    drive(&mut clerk, errand, order.writers, &cancel)?;
    let tenants = clerk.tenants();
    let outcome = clerk.outcome;
    let pipeline::Outcome { totals, failed, new_rejects, .. } = outcome;
    Ok(CarriedOut { totals, failed, tenants, new_rejects })
}

fn second_source(access: &Access, server: &str, label: Option<RunId>) -> Result<Box<dyn Source>, Fault> {
    let mut second = source::open(access)?;
    if second.identity()? != server {
        return Err(Fault::Final(anyhow!("another server answers than at the start of the run; run again")));
    }
    if let Some(run) = label {
        second.label(run);
    }
    Ok(second)
}

/// What the run reads.
fn scope(order: &Order, present: &Present, known: &[KnownTenant]) -> Scope {
    let groups = |how| plan::groups(&present.listed, &order.tenants, known, &how);
    let settings = &present.settings;
    match order.kind {
        Kind::Full if order.tenants.is_empty() => Scope::Table,
        Kind::Full => Scope::Groups { groups: groups(HowToRead::Span(Span::default())), compare: Compare::Documents },
        Kind::Backfill => {
            let span = Span { after: order.since.clone(), upto: Some(settings.boundary.clone()) };
            Scope::Groups { groups: groups(HowToRead::Span(span)), compare: Compare::Documents }
        }
        Kind::Verify => Scope::Groups { groups: Vec::new(), compare: Compare::Documents },
        Kind::Incremental => {
            let Settings { boundary, work, overlap, .. } = settings;
            let how = HowToRead::Incremental(Incremental { known, boundary, work, overlap: *overlap });
            Scope::Groups { groups: groups(how), compare: Compare::Keys }
        }
    }
}

/// Who answers, what time it is there, what is still open: in this order and before any row is read.
/// What was committed before the look at open work is visible to later reads, what was not is open.
fn ask_server(order: &Order, inquiry: &mut Inquiry, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Present> {
    let server = inquiry.ask(tell, |source| source.identity())?;
    let clock = inquiry.ask(tell, |source| source.clock())?;
    let work = inquiry.ask(tell, |source| source.open_work())?;
    match &work {
        OpenWork::Unknown => tell(Event::Notice(Notice::OpenWorkUnknown)),
        OpenWork::Since(since) if work.reaches_below(&clock.boundary(order.safety_lag)) => {
            tell(Event::Notice(Notice::OpenWork { since: since.clone() }));
        }
        OpenWork::Since(_) | OpenWork::None => {}
    }
    let boundary = clock.boundary(order.safety_lag);
    let boundary = order.until.clone().filter(|until| *until < boundary).unwrap_or(boundary);
    tell(Event::Boundary(boundary.clone()));
    let settings = Settings {
        kind: order.kind,
        since: order.since.clone(),
        overlap: order.overlap,
        settled_below: settled_below(&boundary, &work, order.overlap),
        boundary,
        work,
    };
    let listed = if order.kind == Kind::Full && order.tenants.is_empty() {
        Vec::new()
    } else {
        tell(Event::ListingTenants);
        inquiry.ask(tell, |source| source.tenants())?
    };
    for Listed { spelling, newest } in &listed {
        if let Some(newest) = newest.clone().filter(|newest| *newest > clock.now) {
            tell(Event::Notice(Notice::TimesAhead { tenant: spelling.clone(), newest }));
        }
    }
    Ok(Present { clock, server, listed, settings })
}

#[expect(clippy::too_many_arguments, reason = "called once; everything known at the start of a run")]
fn begin(
    order: &Order,
    present: &Present,
    begun: plan::Start,
    last: &LastTime,
    marked_run: i64,
    source: &dyn Source,
    state: &mut State,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<OpenRun> {
    let Present { clock, server, settings, .. } = present;
    let clock_offset = clock.unix - (order.now)().timestamp();
    let doubts = plan::doubts(last, begun, server, clock.unix, clock_offset, order.safety_lag);
    doubts.iter().for_each(|doubt| tell(Event::Notice(Notice::Doubt(*doubt))));
    let run = state.begin(&Start {
        kind: order.kind,
        starter: order.starter.clone(),
        source: source.name().0,
        server: server.clone(),
        server_unix: clock.unix,
        clock_offset,
        boundary: settings.boundary.clone(),
        since: settings.since.clone(),
        doubts,
        marked_run,
    })?;
    if settings.moves_watermarks() {
        let back = plan::pull_backs(&state.tenants()?, &settings.boundary);
        if !back.is_empty() {
            state.pull_back(&back, &settings.boundary, &order.starter)?;
        }
        for PullBack { tenant, from } in back {
            tell(Event::Notice(Notice::PulledBack { tenant, from, to: settings.boundary.clone() }));
        }
    }
    Ok(run)
}

/// A backup that cannot be made must not keep invoices from being exported; a state that turns out to
/// be damaged must.
fn back_up(order: &Order, state: &State, held: &Held, tell: &mut dyn FnMut(Event)) -> anyhow::Result<()> {
    let Some(every) = order.backups.every else { return Ok(()) };
    let at = order.starter.at;
    let make = || {
        let made = backup::list(state.path())?.into_iter().find(|backup| backup.occasion.starts_with(REGULAR));
        // One from the future, after a clock went wrong, counts for nothing.
        if made.is_some_and(|made| (at - made.made).to_std().is_ok_and(|age| age < every)) {
            return Ok(());
        }
        state.back_up(Occasion::Regular, at)?;
        held.prune_backups(order.backups.keep)
    };
    match make() {
        Err(error) if error.chain().any(|cause| cause.is::<Refusal>()) => Err(error),
        Err(error) => {
            tell(Event::Notice(Notice::NoBackup { error: format!("{error:#}") }));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Takes over what a dead run left: from here on the state knows what is in doubt, and staging may go.
fn recover(tree: &Tree, state: &mut State, tell: &mut dyn FnMut(Event)) -> anyhow::Result<()> {
    let targets = stage::left_in_doubt(tree.output())?;
    if !targets.is_empty() {
        tell(Event::Notice(Notice::Recovering { files: targets.len() as u64 }));
        state.doubt(&targets)?;
    }
    stage::remove(tree.output())
}

/// Where the output carries no mark nothing is created, and with `--fresh` nothing is set aside, before
/// it is clear that the run may start.
fn refuse_before_anything_is_made(
    order: &Order,
    inquiry: &mut Inquiry,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    if order.policy == StatePolicy::Fresh {
        return refuse_unknown_tenants(order, &[], None, inquiry, tell);
    }
    if mark::look(&order.output)?.is_some() {
        return Ok(());
    }
    let state = State::look(&order.state)?;
    let last = state.as_ref().map(State::last_time).transpose()?;
    order.place().judge(last.as_ref(), None)?;
    refuse_unknown_tenants(order, &[], state.as_ref(), inquiry, tell)
}

/// A state describes one source; another one's invoices must not be taken for its own.
pub fn refuse_other_source(state: &Path, last: &LastTime, source: &dyn Source) -> anyhow::Result<()> {
    let given = source.name().0;
    match &last.source {
        Some(recorded) if *recorded != given => {
            Err(Refusal::OtherSource { state: state.to_path_buf(), recorded: recorded.clone(), given }.into())
        }
        _ => Ok(()),
    }
}

fn refuse_unknown_tenants(
    order: &Order,
    listed: &[Listed],
    state: Option<&State>,
    inquiry: &mut Inquiry,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    if order.tenants.is_empty() {
        return Ok(());
    }
    let known = state.map_or(Ok(Vec::new()), State::tenants).context("look for tenants")?;
    for tenant in &order.tenants {
        let is_known = known.iter().any(|known| known.tenant == *tenant)
            || listed.iter().any(|listed| listed.spelling == *tenant)
            || inquiry.ask(tell, |source| source.has_tenant(tenant))?;
        if !is_known {
            return Err(Refusal::UnknownTenant(tenant.to_string()).into());
        }
    }
    Ok(())
}
