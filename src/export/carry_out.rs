//! The work of a run: what it reads, and the threads that read, check, decide and write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::thread::{self, Scope as Threads};

use super::commit::{Committer, Publisher};
use super::decide::{Decider, DeciderSource, Decisions, Journal, LedgerView, Tally};
use super::diff::{Compare, Scope};
use super::drive::{ReadTask, drive};
use super::gone_back;
use super::metrics::RunResult;
use super::options::{CommonOptions, SourceOptions};
use super::plan::{self, Group, HowToRead, Incremental};
use super::retry::RetryPolicy;
use super::server::{RunParameters, ServerSession, ServerSnapshot, second_source};
use super::tenant_families;
use super::writing::Writing;
use crate::event::{Event, Notice};
use crate::invoice::{InvoiceId, SourceTime};
use crate::run::Kind;
use crate::state::State;
use crate::state::dry_run_ledger::DryRunLedger;
use crate::state::tenants::KnownTenant;
use crate::state::todo::{DoubtedPath, Todo, TodoReason};
use crate::tree::Tree;
use crate::tree::name::TreePath;
use crate::window::Span;

/// Where a run exports to.
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
    /// Starts the threads that publish.
    fn open<'scope>(self, threads: &'scope Threads<'scope, '_>) -> anyhow::Result<Committer<'a>>
    where
        'a: 'scope,
    {
        match self {
            Self::Export { state, writing } => {
                let publisher = Publisher::start(threads, writing.tree, writing.stage)?;
                Ok(Committer::Export { state, writing, publisher })
            }
            Self::DryRun { state, tree } => Ok(Committer::DryRun { state, tree, dry_run_ledger: DryRunLedger::new()? }),
        }
    }
}

/// What a run reads.
struct ReadPlan {
    scope: Arc<Scope>,
    doubted: BTreeMap<TreePath, DoubtedPath>,
    todo: Vec<Todo>,
}

impl ReadPlan {
    fn of(
        options: &CommonOptions,
        snapshot: &ServerSnapshot,
        server_session: &mut ServerSession,
        state: Option<&State>,
        tell: &mut dyn FnMut(Event),
    ) -> anyhow::Result<Self> {
        let mut known = state.map_or(Ok(Vec::new()), State::tenants)?;
        if options.kind == Kind::Incremental {
            let listed = snapshot.listed.clone();
            known = server_session.ask_at_start(tell, move |source| {
                let mut known = known.clone();
                tenant_families::merge(&mut known, &listed, source).map(|()| known)
            })?;
        }
        let scope = Arc::new(scope(options, snapshot, &known));
        if options.kind == Kind::Incremental {
            say_gone_back(options, scope.groups(), &known, &snapshot.parameters.boundary, tell);
        }
        drop(known);
        if matches!(*scope, Scope::Table) {
            say_expected(state, server_session, tell)?;
        }
        let doubted = state.map_or(Ok(BTreeMap::new()), State::doubted_paths)?;
        let todo = to_read(options, snapshot, state, &doubted)?;
        Ok(Self { scope, doubted, todo })
    }
}

/// Tenants that a notice names.
const FALLEN_SHOWN: usize = 3;

/// Warns of tenants that show an older newest source time than an earlier run has seen.
fn say_gone_back(
    options: &CommonOptions,
    groups: &[Group],
    known: &[KnownTenant],
    boundary: &SourceTime,
    tell: &mut dyn FnMut(Event),
) {
    // A run for some tenants lists no others.
    let known = if options.selection.has_all_tenants() { known } else { &[] };
    let mut fallen = gone_back::fallen(groups, known, boundary);
    let tenants = fallen.len() as u64;
    fallen.truncate(FALLEN_SHOWN);
    if tenants > 0 {
        tell(Event::Notice(Notice::GoneBack { tenants, some: fallen }));
    }
}

/// Reads, checks, decides and writes, in its threads.
pub(super) fn carry_out(
    options: &CommonOptions,
    source: &SourceOptions,
    snapshot: &ServerSnapshot,
    mut server_session: ServerSession,
    destination: Destination<'_>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<RunResult> {
    thread::scope(|threads| {
        let committer = destination.open(threads)?;
        let ReadPlan { scope, doubted, todo } =
            ReadPlan::of(options, snapshot, &mut server_session, committer.state(), tell)?;
        let (lookup, entered) = committer.lookups()?;
        let checker = committer.checker(options.kind, source.access.max_document);
        let run = committer.run();
        let connect = move || second_source(&source.access, &snapshot.server, run);
        let cancel = &options.surroundings.cancel;
        let retry = || RetryPolicy::new(source.retry_for, cancel);
        let decider_source = DeciderSource::new(retry(), &connect);
        let decisions = Decisions {
            parameters: &snapshot.parameters,
            checker,
            table_no: committer.table_no(&snapshot.parameters)?,
            view: LedgerView::new(committer, entered),
            journal: Journal::new(&snapshot.parameters, options.rejects, tell),
            tally: Tally::new(options.kind, scope.groups()),
            doubted,
            retried: todo.iter().map(|todo| (todo.id.clone(), todo.why)).collect(),
            has_entered: false,
        };
        let mut decider = Decider::new(scope.groups(), decisions, decider_source);
        let (source, retry, scope) = (server_session.into_source()?, retry(), Arc::clone(&scope));
        let read_task = ReadTask { source, lookup, todo, scope, retry, ids_in_source: None };
        let driven = drive(&mut decider, checker, read_task, options.work.writers, cancel);
        // In whatever way the run ends, what is in the tree is on record if it can be.
        let recorded = decider.record_published();
        driven.and(recorded)?;
        Ok(decider.into_outcome())
    })
}

/// Says about how many invoices there are: as many as the last full run read, else what the source estimates.
fn say_expected(
    state: Option<&State>,
    server_session: &mut ServerSession,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    let before = state.map_or(Ok(None), State::last_full_count)?;
    let expected = match before.filter(|count| *count > 0) {
        None => server_session.ask_if_shown(tell, None, |source| source.estimate())?,
        known => known,
    };
    expected.into_iter().for_each(|expected| tell(Event::Expected(expected)));
    Ok(())
}

/// The rows that this run reads by primary key, whatever its window.
fn to_read(
    options: &CommonOptions,
    snapshot: &ServerSnapshot,
    state: Option<&State>,
    doubted: &BTreeMap<TreePath, DoubtedPath>,
) -> anyhow::Result<Vec<Todo>> {
    let mut todo = state.map_or(Ok(Vec::new()), State::todo)?;
    // What a dead run left in doubt is cleared up for every tenant; a verification touches nothing else.
    let chosen = |todo: &Todo| match options.kind {
        Kind::Verify => false,
        _ => todo.tenant.as_ref().is_none_or(|tenant| options.selection.has_tenant(tenant)),
    };
    todo.retain(|todo| todo.why == TodoReason::Doubt || chosen(todo));
    // The ledger may not know an invoice that a dead run wrote; the path of its file names the tenant.
    let writers: HashMap<&InvoiceId, &TreePath> =
        doubted.iter().filter_map(|(path, doubted)| Some((doubted.writer.as_ref()?, path))).collect();
    for todo in todo.iter_mut().filter(|todo| todo.tenant.is_none()) {
        todo.tenant = writers.get(&todo.id).and_then(|path| path.tenant_name());
    }
    if matches!(options.kind, Kind::Incremental | Kind::Backfill) {
        todo.extend(without_tenant(&snapshot.tenantless, &todo, state)?);
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
fn scope(options: &CommonOptions, snapshot: &ServerSnapshot, known: &[KnownTenant]) -> Scope {
    let groups = |how| plan::groups(&snapshot.listed, &options.selection.tenants, known, &how);
    let parameters = &snapshot.parameters;
    match options.kind {
        Kind::Full if options.selection.has_all_tenants() => Scope::Table,
        Kind::Full => Scope::Groups { groups: groups(HowToRead::Span(Span::default())), compare: Compare::Documents },
        Kind::Backfill => {
            let span = Span { after: parameters.since.clone(), upto: Some(parameters.boundary.clone()) };
            Scope::Groups { groups: groups(HowToRead::Span(span)), compare: Compare::Documents }
        }
        Kind::Verify => Scope::Groups { groups: Vec::new(), compare: Compare::Documents },
        Kind::Incremental => {
            let RunParameters { boundary, work, overlap, .. } = parameters;
            let how = HowToRead::Incremental(Incremental { known, boundary, work, overlap: *overlap });
            Scope::Groups { groups: groups(how), compare: Compare::Keys }
        }
    }
}
