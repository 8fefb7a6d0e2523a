//! Where source, tree and state meet, and nowhere else.
//!
//! `run` is one execution, `session.rs` leads it from the lock to its last record. `inquiry.rs` asks the
//! server what must be known first; `plan.rs` decides without I/O whether it may start and what it reads,
//! `doubts.rs` whether the clocks and the server are those of the last run; `tie.rs` ties the tree to its state,
//! `kin.rs` finds spellings that are one tenant; `diff.rs` reads in one thread, with `one_by_one.rs` around rows that a
//! server does not return; `check.rs` checks rows in several; `pipeline.rs` gives out paths in one, with `batch.rs`
//! (what goes together), `contest.rs` (two invoices that want one path), `given.rs` (what an empty ledger need not be
//! asked), `parts.rs` (whether all rows of a part are decided), `standing.rs` (whether a row is the one that was
//! exported) and `tally.rs` (each row is counted once); `flight.rs` has batches published in two more, and
//! records them. `mirror.rs` writes the script's state file, `patience.rs` waits for a server that went away,
//! `budget.rs` bounds memory.
//! `verify.rs` compares tree, ledger and source with the same parts. `lag.rs` is beside all of that: it only
//! says how far the tenants lag behind, as `why.rs` does of one invoice.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::effort::Effort;
use crate::event::{Event, Notice};
use crate::invoice::{InvoiceId, SourceTime, Tenant};
use crate::lock::ExportLock;
use crate::refusal::Trouble;
use crate::run::{Cancel, Counts, Kind, Outcome, OwnClocks, RunId, Starter, Summary};
use crate::source::{self, Access, Fault, Source};
use crate::state::State;
use crate::state::ledger::Lookup;
use crate::state::record::Record;
use crate::state::rehearsal::Rehearsal;
use crate::state::runs::OpenRun;
use crate::state::tenants::KnownTenant;
use crate::state::todo::{DoubtedPath, Todo, TodoReason};
use crate::tree::mark::{self, Mark};
use crate::tree::name::TreePath;
use crate::tree::publish::{Changes, Published};
use crate::tree::stage::Stage;
use crate::tree::{Durability, Tree};
use crate::window::Span;

use self::check::{Desk, Presence};
use self::diff::{Compare, Scope};
use self::drive::{Errand, drive};
use self::flight::Publisher;
use self::given::Given;
pub use self::inquiry::refuse_other_source;
use self::inquiry::{Inquiry, Present, Settings, ask_server, refuse_unknown_tenants};
pub use self::mirror::Mirror;
use self::patience::Patience;
use self::pipeline::{Clerk, Post};
use self::plan::{HowToRead, Incremental, Purpose, StatePolicy};
use self::session::{Session, Site};
use self::tie::Place;

mod batch;
mod budget;
mod check;
mod contest;
mod diff;
mod doubts;
mod drive;
mod flight;
mod given;
mod inquiry;
mod kin;
pub mod lag;
mod mirror;
mod one_by_one;
mod outbox;
mod parts;
mod patience;
mod pipeline;
pub mod plan;
mod session;
mod standing;
mod tally;
pub mod tie;
pub mod verify;
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
    /// None for what the output needs where it lies.
    pub durability: Option<Durability>,
    pub rejects: Rejects,
    pub backups: Backups,
    /// The script's state file is written after the run too.
    pub mirror: Mirror,
    pub starter: Starter,
    /// For the record, and to find out whether the server's clock was set.
    pub clocks: OwnClocks,
    /// From here on signals only ask to stop. Called when there is something to be brought to an end.
    pub watch: fn() -> anyhow::Result<Cancel>,
}

impl Order {
    fn place(&self) -> Place<'_> {
        let Self { output, state, policy, .. } = self;
        Place { output, state, policy: *policy, purpose: Purpose::Run(self.kind) }
    }
}

/// What invoices that cannot be exported mean for their tenant. They are kept on record in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejects {
    Kept,
    /// `--strict`: the tenant fails and its watermark stays.
    FailTheirTenant,
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

/// What it takes to change tree and state. A dry run has none.
struct Writing<'a> {
    tree: &'a Tree,
    stage: &'a Stage,
    held: &'a ExportLock,
    run: &'a OpenRun,
    /// Written before the first batch is published; None afterwards.
    mark: Option<Mark>,
}

impl Writing<'_> {
    /// Says in the tree that this run writes to it, once.
    fn sign(&mut self) -> anyhow::Result<()> {
        self.mark.take().map_or(Ok(()), |mark| self.held.write_mark(&mark))
    }

    fn publish(&mut self, changes: Changes) -> anyhow::Result<Published> {
        if !changes.is_empty() {
            self.sign()?;
        }
        self.tree.publish(self.stage, changes)
    }

    fn record(&self, state: &mut State, published: &Published, record: &Record) -> anyhow::Result<()> {
        state.record(self.run, published, record)?;
        self.stage.drop_list(published)
    }
}

/// What is measured on the way.
struct Course {
    started: Instant,
    retries: Cell<u64>,
}

impl Course {
    fn begin() -> Self {
        Self { started: Instant::now(), retries: Cell::new(0) }
    }

    /// Whoever tries again says so, so that this counts them all.
    fn counting<'a>(&'a self, tell: &'a mut dyn FnMut(Event)) -> impl FnMut(Event) + 'a {
        move |event| {
            let retries = u64::from(matches!(event, Event::Notice(Notice::Retrying { .. })));
            self.retries.set(self.retries.get() + retries);
            tell(event);
        }
    }
}

/// Carries out one run and says what came of it.
pub fn run(order: &Order, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Summary> {
    let course = Course::begin();
    let tell = &mut course.counting(tell);
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
    let mut session = Session::open(order, &mut inquiry, tell)?;
    if order.kind == Kind::Incremental {
        session.back_up(order, tell)?;
    }
    let (run, carried_out) = session.on_record(order, course, tell, |site, tell| {
        let Site { state, tree, present, writing } = site;
        inquiry.source.label(writing.run.id);
        carry_out(order, present, inquiry, Some(state), Some(tree), Some(writing), tell)
    })?;
    let Session { state, present, .. } = &session;
    let summary = carried_out.summary(order, &present.settings, Some(run), state.open_rejects()?, course);
    let closed = session.close(order);
    tell(Event::Finished(Box::new(summary.clone())));
    closed.map(|()| summary)
}

/// A dry run: the same reading and checking, no lock, no file, no folder, no state.
fn look(order: &Order, mut inquiry: Inquiry, course: &Course, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Summary> {
    let tree = Tree::open_existing(&order.output)?;
    let mut state = if order.policy == StatePolicy::Fresh { None } else { State::open_read_only(&order.state)? };
    let last = state.as_ref().map(State::last_time).transpose()?;
    order.place().judge(last.as_ref(), mark::of_output(&order.output)?.as_ref())?;
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
    /// Invoices without a known tenant that could not be read: how many, and why.
    unread: Option<(u64, Trouble)>,
    leftovers: u64,
}

impl CarriedOut {
    fn outcome(&self) -> Outcome {
        let is_whole = self.failed.is_empty() && self.new_rejects == 0 && self.unread.is_none();
        if is_whole { Outcome::Success } else { Outcome::Partial }
    }

    /// What no tenant's record says.
    fn error(&self) -> Option<String> {
        let (invoices, trouble) = self.unread.as_ref()?;
        Some(format!("invoices without a known tenant that could not be read: {invoices}: {trouble}"))
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
            unread: self.unread.map_or(0, |(invoices, _)| invoices),
            leftovers: self.leftovers,
            open_rejects,
            retries: course.retries.get(),
            effort: Effort::so_far(),
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
    drop(known);
    if matches!(*scope, Scope::Table) {
        expect(state.as_deref(), &mut inquiry, tell)?;
    }
    let doubted = state.as_deref().map_or(Ok(BTreeMap::new()), State::doubted_paths)?;
    let todo = to_read(order, present, state.as_deref(), &doubted)?;
    let table = table_number(present, state.as_deref(), writing.as_ref())?;
    let (lookup, given) = acquaintance(state.as_deref(), writing.as_ref())?;
    let desk = Desk {
        tree,
        stage: writing.as_ref().map(|writing| writing.stage),
        presence: if order.kind == Kind::Incremental { Presence::Assumed } else { Presence::Checked },
        max_document: order.access.max_document,
    };
    let server = present.server.clone();
    let label = writing.as_ref().map(|writing| writing.run.id);
    let open_second = move || second_source(&order.access, &server, label);
    let cancel = if writing.is_some() { (order.watch)()? } else { Cancel::default() };
    let patience = || Patience::new(order.retry_for, &cancel);
    let rehearsal = if writing.is_none() { Some(Rehearsal::new()?) } else { None };
    thread::scope(|threads| {
        let publisher = match &writing {
            Some(Writing { tree, stage, .. }) => Some(Publisher::start(threads, tree, stage)?),
            None => None,
        };
        let mut clerk = Clerk::new(Post {
            settings: &present.settings,
            desk,
            state,
            writing,
            publisher,
            given,
            groups: scope.groups(),
            patience: patience(),
            doubted,
            table,
            rejects: order.rejects,
            retried: todo.iter().map(|todo| (todo.id.clone(), todo.why)).collect(),
            tell,
            open_second: &open_second,
            rehearsal,
        });
        let errand = Errand {
            source: inquiry.source,
            lookup,
            todo,
            scope: Arc::clone(&scope),
            patience: patience(),
            visited_ids: None,
        };
        let driven = drive(&mut clerk, desk, errand, order.writers, &cancel);
        // In whatever way the run ends, what is in the tree is on record if it can be.
        let landed = clerk.land();
        driven.and(landed)?;
        let tenants = clerk.tenants();
        let outcome = clerk.outcome;
        let pipeline::Outcome { totals, failed, new_rejects, unread, left, .. } = outcome;
        let leftovers = left.values().map(|(files, _)| files).sum();
        Ok(CarriedOut { totals, failed, tenants, new_rejects, unread, leftovers })
    })
}

/// Says about how many invoices there are: as many as the last full run read, else what the source estimates.
fn expect(state: Option<&State>, inquiry: &mut Inquiry, tell: &mut dyn FnMut(Event)) -> anyhow::Result<()> {
    let before = state.map_or(Ok(None), State::last_full_count)?;
    let expected = match before.filter(|count| *count > 0) {
        None => inquiry.ask(tell, |source| source.estimate())?,
        known => known,
    };
    expected.into_iter().for_each(|expected| tell(Event::Expected(expected)));
    Ok(())
}

/// The rows that this run reads by primary key, whatever its window.
fn to_read(
    order: &Order,
    present: &Present,
    state: Option<&State>,
    doubted: &BTreeMap<TreePath, DoubtedPath>,
) -> anyhow::Result<Vec<Todo>> {
    let mut todo = state.map_or(Ok(Vec::new()), State::todo)?;
    // What a dead run left in doubt is cleared up for every tenant; a verification touches nothing else.
    let chosen = |todo: &Todo| match order.kind {
        Kind::Verify => false,
        _ => order.tenants.is_empty() || todo.tenant.as_ref().is_none_or(|tenant| order.tenants.contains(tenant)),
    };
    todo.retain(|todo| todo.why == TodoReason::Doubt || chosen(todo));
    // The ledger may not know an invoice that a dead run wrote; the path of its file names the tenant.
    let writers: HashMap<&InvoiceId, &TreePath> =
        doubted.iter().filter_map(|(path, doubted)| Some((doubted.writer.as_ref()?, path))).collect();
    for todo in todo.iter_mut().filter(|todo| todo.tenant.is_none()) {
        todo.tenant = writers.get(&todo.id).and_then(|path| path.tenant_name());
    }
    if matches!(order.kind, Kind::Incremental | Kind::Backfill) {
        todo.extend(without_tenant(&present.tenantless, &todo, state)?);
    }
    Ok(todo)
}

/// Invoices without a tenant, which no window brings: they are read by primary key, and rejected. Those that are
/// rejects already have their turn.
fn without_tenant(found: &[InvoiceId], todo: &[Todo], state: Option<&State>) -> anyhow::Result<Vec<Todo>> {
    let listed: HashSet<&InvoiceId> = todo.iter().map(|todo| &todo.id).collect();
    let mut new = Vec::new();
    for id in found.iter().filter(|id| !listed.contains(id)) {
        if !state.map_or(Ok(false), |state| state.is_open_reject(id))? {
            new.push(Todo { id: id.clone(), why: TodoReason::Reject, tenant: None });
        }
    }
    Ok(new)
}

/// The number of the source's table, if it can be told from others. A dry run gives it none.
fn table_number(
    present: &Present,
    state: Option<&State>,
    writing: Option<&Writing<'_>>,
) -> anyhow::Result<Option<i64>> {
    match (writing, state) {
        (Some(writing), _) => Ok(writing.run.table),
        (None, Some(state)) => state.source_table(present.settings.table.as_ref()),
        (None, None) => Ok(None),
    }
}

/// What the ledger is asked by the thread that reads, and need not be asked by the one that decides.
fn acquaintance(state: Option<&State>, writing: Option<&Writing<'_>>) -> anyhow::Result<(Lookup, Option<Given>)> {
    Ok(match state.map(State::lookup).transpose()? {
        // Beside a dry run, another one may enter more.
        Some(lookup) if writing.is_none() || !lookup.is_empty()? => (lookup, None),
        _ => (Lookup::nothing(), Some(Given::nothing())),
    })
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
