//! The work of a run: what it reads, and the threads that read, check, decide and write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::thread::{self, Scope as Threads};

use super::check::{Desk, Presence};
use super::commit::{Committer, Publisher};
use super::course::CarriedOut;
use super::decide::{BloomFilter, Decider, Decisions, Journal, Ledger, LedgerView, SecondSource, Tally};
use super::diff::{Compare, Scope};
use super::drive::{Errand, drive};
use super::inquiry::{Inquiry, Present, Settings, second_source};
use super::kin;
use super::order::Order;
use super::patience::Patience;
use super::plan::{self, HowToRead, Incremental};
use super::writing::Writing;
use crate::event::Event;
use crate::invoice::InvoiceId;
use crate::run::{Cancel, Kind, RunId};
use crate::state::State;
use crate::state::ledger::Lookup;
use crate::state::rehearsal::Rehearsal;
use crate::state::tenants::KnownTenant;
use crate::state::todo::{DoubtedPath, Todo, TodoReason};
use crate::tree::Tree;
use crate::tree::name::TreePath;
use crate::tree::stage::Stage;
use crate::window::Span;

/// Where the decisions of a run go.
pub(super) enum Destination<'a> {
    Export {
        state: &'a mut State,
        writing: Writing<'a>,
    },
    /// Nothing is changed. There may be no state and no tree yet.
    DryRun {
        state: Option<&'a State>,
        tree: Option<&'a Tree>,
    },
}

impl<'a> Destination<'a> {
    fn state(&self) -> Option<&State> {
        match self {
            Self::Export { state, .. } => Some(state),
            Self::DryRun { state, .. } => *state,
        }
    }

    fn tree(&self) -> Option<&'a Tree> {
        match self {
            Self::Export { writing, .. } => Some(writing.tree),
            Self::DryRun { tree, .. } => *tree,
        }
    }

    fn stage(&self) -> Option<&'a Stage> {
        match self {
            Self::Export { writing, .. } => Some(writing.stage),
            Self::DryRun { .. } => None,
        }
    }

    fn run(&self) -> Option<RunId> {
        match self {
            Self::Export { writing, .. } => Some(writing.run.id),
            Self::DryRun { .. } => None,
        }
    }

    /// The number of the source's table, if it can be told from others. A dry run gives it none.
    fn table(&self, settings: &Settings) -> anyhow::Result<Option<i64>> {
        match self {
            Self::Export { writing, .. } => Ok(writing.run.table),
            Self::DryRun { state, .. } => state.map_or(Ok(None), |state| state.source_table(settings.table.as_ref())),
        }
    }

    fn cancel(&self, order: &Order) -> anyhow::Result<Cancel> {
        match self {
            Self::Export { .. } => (order.watch)(),
            Self::DryRun { .. } => Ok(Cancel::default()),
        }
    }

    /// What the thread that reads asks the ledger with, and what the deciding one asks it with first. A ledger that was
    /// empty need not be asked for what was not entered since; beside a dry run, another run may enter more.
    fn lookups(&self) -> anyhow::Result<(Lookup, Option<BloomFilter>)> {
        let lookup = self.state().map(State::lookup).transpose()?;
        Ok(match (lookup, self) {
            (Some(lookup), Self::DryRun { .. }) => (lookup, None),
            (Some(lookup), Self::Export { .. }) if !lookup.is_empty()? => (lookup, None),
            _ => (Lookup::nothing(), Some(BloomFilter::new())),
        })
    }

    /// Starts the threads that publish.
    fn open<'scope>(self, threads: &'scope Threads<'scope, '_>) -> anyhow::Result<(Ledger<'a>, Committer<'a>)>
    where
        'a: 'scope,
    {
        match self {
            Self::Export { state, writing } => {
                let publisher = Publisher::start(threads, writing.tree, writing.stage)?;
                let ledger = Ledger::Recorded { state, run: writing.run.id };
                Ok((ledger, Committer::Export { writing, publisher }))
            }
            Self::DryRun { state, tree } => {
                let rehearsal = Rehearsal::new()?;
                Ok((Ledger::Rehearsed { state, rehearsal }, Committer::DryRun { tree }))
            }
        }
    }
}

/// Reads, checks, decides and writes, in its threads.
pub(super) fn carry_out(
    order: &Order,
    present: &Present,
    mut inquiry: Inquiry,
    destination: Destination<'_>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<CarriedOut> {
    let state = destination.state();
    let mut known = state.map_or(Ok(Vec::new()), State::tenants)?;
    if order.kind == Kind::Incremental {
        inquiry.ask(tell, |source| kin::unite(&mut known, &present.listed, source))?;
    }
    let scope = Arc::new(scope(order, present, &known));
    drop(known);
    if matches!(*scope, Scope::Table) {
        expect(state, &mut inquiry, tell)?;
    }
    let doubted = state.map_or(Ok(BTreeMap::new()), State::doubted_paths)?;
    let todo = to_read(order, present, state, &doubted)?;
    let (lookup, entered) = destination.lookups()?;
    let presence = if order.kind == Kind::Incremental { Presence::Assumed } else { Presence::Checked };
    let max_document = order.access.max_document;
    let desk = Desk { tree: destination.tree(), stage: destination.stage(), presence, max_document };
    let run = destination.run();
    let open = move || second_source(&order.access, &present.server, run);
    let cancel = destination.cancel(order)?;
    let patience = || Patience::new(order.retry_for, &cancel);
    let second = SecondSource::new(patience(), &open);
    let table = destination.table(&present.settings)?;
    thread::scope(|threads| {
        let (ledger, committer) = destination.open(threads)?;
        let decisions = Decisions {
            settings: &present.settings,
            desk,
            view: LedgerView::new(ledger, entered),
            journal: Journal::new(&present.settings, order.rejects, tell),
            tally: Tally::new(order.kind, scope.groups()),
            doubted,
            table,
            retried: todo.iter().map(|todo| (todo.id.clone(), todo.why)).collect(),
            has_entered: false,
        };
        let mut decider = Decider::new(scope.groups(), decisions, committer, second);
        let (source, patience, scope) = (inquiry.source, patience(), Arc::clone(&scope));
        let errand = Errand { source, lookup, todo, scope, patience, visited_ids: None };
        let driven = drive(&mut decider, desk, errand, order.writers, &cancel);
        // In whatever way the run ends, what is in the tree is on record if it can be.
        let landed = decider.land();
        driven.and(landed)?;
        Ok(CarriedOut::new(decider.into_journal()))
    })
}

/// Says about how many invoices there are: as many as the last full run read, else what the source estimates.
fn expect(state: Option<&State>, inquiry: &mut Inquiry, tell: &mut dyn FnMut(Event)) -> anyhow::Result<()> {
    let before = state.map_or(Ok(None), State::last_full_count)?;
    let expected = match before.filter(|count| *count > 0) {
        None => inquiry.ask_if_shown(tell, None, |source| source.estimate())?,
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
