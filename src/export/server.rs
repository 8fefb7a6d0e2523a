//! The session with the server, and the snapshot that a run takes of it before it reads rows. Each question is tried
//! again while the server restarts or takes no further connection.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use chrono::TimeDelta;

use super::abandon::{answer_until, given_up};
use super::conditions::{FoundConditions, TenantQuestions};
use super::options::{CommonOptions, SourceOptions};
use super::retry::RetryPolicy;
use crate::event::{Event, Notice};
use crate::given_time::{self, GivenTime, GivenWindow};
use crate::invoice::{InvoiceId, SourceTime, Tenant};
use crate::refusal::Refusal;
use crate::run::{Cancel, Kind, RunId, Uptime};
use crate::source::{
    self, Access, ListedTenant, Replication, Source, SourceError, SourceName, TableIdentity, TenantList,
};
use crate::state::State;
use crate::state::runs::{Clocks, LastKnownState};
use crate::state::selection::Selection;
use crate::window::{Clock, OpenWork, Span, earlier, settled_below};

/// A connection that is made again when it is lost.
pub struct ServerSession {
    name: SourceName,
    /// None once a question was given up: the thread that waits for its answer has the connection.
    source: Option<Box<dyn Source>>,
    retry: RetryPolicy,
    /// None where a signal ends the process.
    cancel: Option<Cancel>,
}

impl ServerSession {
    /// Connects. The connection and each later question are tried again for `retry_for` at most.
    pub fn open(access: &Access, retry_for: Duration, tell: &mut dyn FnMut(Event)) -> Result<Self, SourceError> {
        Self::open_until(access, retry_for, None, tell)
    }

    /// Connects as `open` does, until a signal asks to stop.
    fn open_until(
        access: &Access,
        retry_for: Duration,
        cancel: Option<&Cancel>,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Self, SourceError> {
        let mut retry = RetryPolicy::new(retry_for, &cancel.cloned().unwrap_or_default());
        let source = retry.run(tell, || {
            let access = access.clone();
            answer_until(cancel, move || source::open(&access))
        })?;
        Ok(Self { name: source.name(), source: Some(source), retry, cancel: cancel.cloned() })
    }

    /// The source by its address.
    pub fn name(&self) -> &SourceName {
        &self.name
    }

    /// Puts a comment with the number of this run into every later statement.
    pub(super) fn label(&mut self, run: RunId) {
        if let Some(source) = &mut self.source {
            source.label(run);
        }
    }

    /// The connection alone.
    pub(super) fn into_source(self) -> Result<Box<dyn Source>, SourceError> {
        self.source.ok_or_else(|| given_up(self.cancel.as_ref()))
    }

    /// One more connection to the same server, tried again as `open` does.
    ///
    /// # Errors
    /// Another server answers than `server`.
    pub(super) fn again(
        options: &SourceOptions,
        server: &str,
        run: RunId,
        cancel: &Cancel,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Self, SourceError> {
        let mut retry = RetryPolicy::new(options.retry_for, cancel);
        let source = retry.run(tell, || second_source_until(cancel, &options.access, server, Some(run)))?;
        Ok(Self { name: source.name(), source: Some(source), retry, cancel: Some(cancel.clone()) })
    }

    /// Connects, and asks for the window of source times that an operator means.
    pub(super) fn open_with_window(
        source: &SourceOptions,
        given: &GivenWindow,
        cancel: &Cancel,
        tell: &mut dyn FnMut(Event),
    ) -> anyhow::Result<(Self, Span)> {
        let mut server_session = Self::open_until(&source.access, source.retry_for, Some(cancel), tell)?;
        let window = server_session.window(given, tell)?;
        Ok((server_session, window))
    }

    /// The window of source times that an operator means, by the source's clock.
    fn window(&mut self, given: &GivenWindow, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Span> {
        if !given.needs_clock() {
            return given.span();
        }
        let clock = self.ask_at_start(tell, |source| source.clock())?;
        given.span_by(&clock, |seconds| Ok(self.ask_at_start(tell, move |source| source.shown_at(seconds))?))
    }

    /// The source time that an operator means, and the one that the source's clock shows now.
    pub fn point(
        &mut self,
        given: &GivenTime,
        tell: &mut dyn FnMut(Event),
    ) -> anyhow::Result<(SourceTime, SourceTime)> {
        let clock = self.ask(tell, |source| source.clock())?;
        let point = given.point(&clock, |seconds| self.ask(tell, |source| source.shown_at(seconds)))?;
        Ok((point.ok_or_else(|| given_time::beyond_calendar_of("TIME"))?, clock.now))
    }

    /// Asks until there is an answer.
    ///
    /// # Errors
    /// An error that no further attempt would change, or one that has lasted for too long.
    pub fn ask<R>(
        &mut self,
        tell: &mut dyn FnMut(Event),
        mut question: impl FnMut(&mut dyn Source) -> Result<R, SourceError>,
    ) -> Result<R, SourceError> {
        let Self { source, retry, cancel, .. } = self;
        retry.run(tell, || question(source.as_mut().ok_or_else(|| given_up(cancel.as_ref()))?.as_mut()))
    }

    /// Asks as `ask` does, and gives up soon after a signal asks to stop, whatever the server does: a thread of its own
    /// waits for the answer.
    pub(super) fn ask_at_start<R: Send + 'static>(
        &mut self,
        tell: &mut dyn FnMut(Event),
        question: impl FnMut(&mut dyn Source) -> Result<R, SourceError> + Clone + Send + 'static,
    ) -> Result<R, SourceError> {
        let Self { source, retry, cancel, .. } = self;
        retry.run(tell, || {
            let mut asked = source.take().ok_or_else(|| given_up(cancel.as_ref()))?;
            let mut question = question.clone();
            let (back, answer) = answer_until(cancel.as_ref(), move || {
                let answer = question(asked.as_mut());
                Ok((asked, answer))
            })?;
            *source = Some(back);
            answer
        })
    }

    /// Asks for what a run can do without. The answer is `otherwise` if the server refuses the statement, or takes too
    /// long for it every time.
    pub(super) fn ask_if_shown<R: Send + 'static>(
        &mut self,
        tell: &mut dyn FnMut(Event),
        otherwise: R,
        question: impl FnMut(&mut dyn Source) -> Result<R, SourceError> + Clone + Send + 'static,
    ) -> Result<R, SourceError> {
        match self.ask_at_start(tell, question) {
            Err(SourceError::Statement(_)) => Ok(otherwise),
            result => result,
        }
    }
}

/// One more connection, until a signal asks to stop.
pub(super) fn second_source_until(
    cancel: &Cancel,
    access: &Access,
    server: &str,
    label: Option<RunId>,
) -> Result<Box<dyn Source>, SourceError> {
    let (access, server) = (access.clone(), server.to_owned());
    answer_until(Some(cancel), move || second_source(&access, &server, label))
}

/// One more connection to the server that answered at the start of the run.
pub(super) fn second_source(
    access: &Access,
    server: &str,
    label: Option<RunId>,
) -> Result<Box<dyn Source>, SourceError> {
    let mut second = source::open(access)?;
    if second.identity()? != server {
        let other = text!(
            "another server answers than at the start of the run; run again",
            "应答的服务器与运行开始时不是同一台，请重新运行"
        );
        return Err(SourceError::Final(other.into()));
    }
    if let Some(run) = label {
        second.label(run);
    }
    Ok(second)
}

/// The parameters of a run that are fixed once it has asked the server.
#[derive(Clone, Debug)]
pub(super) struct RunParameters {
    pub kind: Kind,
    pub boundary: SourceTime,
    pub since: Option<SourceTime>,
    pub work: OpenWork,
    pub overlap: Duration,
    pub settled_below: SourceTime,
    /// The identity of the source's table before any row was read. None: the server does not show it.
    pub table: Option<TableIdentity>,
}

impl RunParameters {
    pub(super) fn moves_watermarks(&self) -> bool {
        self.kind == Kind::Incremental
    }
}

/// The answers of the server before any row is read.
pub(super) struct ServerSnapshot {
    pub clock: Clock,
    /// All clocks at that moment.
    pub clocks: Clocks,
    pub server: String,
    pub listed: Vec<ListedTenant>,
    /// Invoices with NULL for a tenant, if the run reads them by primary key.
    pub tenantless: Vec<InvoiceId>,
    pub parameters: RunParameters,
    /// The conditions that were found; None: they were said.
    pub conditions: Option<FoundConditions>,
}

impl ServerSnapshot {
    /// Says the conditions of a source that is only read.
    pub(super) fn remind(&mut self, tell: &mut dyn FnMut(Event)) {
        if let Some(conditions) = self.conditions.take() {
            conditions.remind(tell);
        }
    }
}

/// Takes a snapshot of the source that the state describes.
///
/// # Errors
/// It is another source, or neither it nor the state has a selected tenant.
pub(super) fn take_snapshot(
    options: &CommonOptions,
    server_session: &mut ServerSession,
    state: Option<(&State, &LastKnownState)>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<ServerSnapshot> {
    if let Some((_, last)) = state {
        refuse_other_source(&options.paths.state, last, server_session.name())?;
    }
    let mut conditions = FoundConditions::default();
    let asked = ask_server(options, server_session, &mut conditions, tell);
    let snapshot = match asked {
        Ok(snapshot) => ServerSnapshot { conditions: Some(conditions), ..snapshot },
        Err(error) => {
            conditions.warn(tell);
            return Err(error);
        }
    };
    let state = state.map(|(state, _)| state);
    refuse_unknown_tenants(&options.selection, &snapshot.listed, state, server_session, tell)?;
    Ok(snapshot)
}

/// A row of the present may be this far ahead of a clock that was asked before it.
const AHEAD_BY_CHANCE: Duration = Duration::from_secs(60);

/// Whether a source time lies ahead of the server's clock, which shows whole seconds and was asked before the times were.
fn is_ahead(time: &SourceTime, now: &SourceTime) -> bool {
    earlier(time, AHEAD_BY_CHANCE).is_none_or(|time| time > *now)
}

/// Asks for the server's identity, its clock and its open work, in this order and before any row is read. So a
/// transaction is either committed, and visible to later reads, or listed as open work.
fn ask_server(
    options: &CommonOptions,
    server_session: &mut ServerSession,
    conditions: &mut FoundConditions,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<ServerSnapshot> {
    let notices = server_session.ask_at_start(tell, |source| Ok(source.notices()))?;
    notices.into_iter().for_each(|notice| conditions.sort(notice, tell));
    let server = server_session.ask_at_start(tell, |source| source.identity())?;
    let table = server_session.ask_if_shown(tell, None, |source| source.table_identity())?;
    let (clock, clocks) = read_clocks(options, server_session, tell)?;
    let work = server_session.ask_if_shown(tell, OpenWork::Unreliable, |source| source.open_work())?;
    let of_work = open_work_notice(&work, &clock.boundary(options.margins.safety_lag));
    let of_replication = replication_notice(server_session.ask_if_shown(tell, None, |source| source.replication())?);
    of_work.into_iter().chain(of_replication).for_each(|notice| conditions.sort(notice, tell));
    let boundary = clock.boundary(options.margins.safety_lag);
    // The window of a verification bounds what it compares, and not the run that mends.
    let window = if options.kind == Kind::Backfill { options.selection.window.clone() } else { Span::default() };
    if let Some(since) = window.after.as_ref().filter(|since| **since >= boundary) {
        return Err(Refusal::usage(message! {
            "--since {since} is not before the boundary {boundary}, up to which a run reads: there is nothing to read",
            "--since {since} 不早于时间边界 {boundary}（运行只读到此处）: 没有可读取的数据";
            "name an earlier time, or a shorter --safety-lag", "请指定更早的时间，或缩短 --safety-lag"
        }));
    }
    let boundary = window.upto.filter(|until| *until < boundary).unwrap_or(boundary);
    tell(Event::Boundary(boundary.clone()));
    let (listed, tenantless) = list_tenants(options, &boundary, server_session, conditions, tell)?;
    for ListedTenant { spelling, ahead, .. } in &listed {
        if let Some(newest) = ahead.clone().filter(|ahead| is_ahead(ahead, &clock.now)) {
            conditions.sort(Notice::TimesAhead { tenant: spelling.clone(), newest }, tell);
        }
    }
    let parameters = RunParameters {
        kind: options.kind,
        since: window.after,
        overlap: options.margins.overlap,
        settled_below: settled_below(&boundary, &work, options.margins.overlap),
        boundary,
        work,
        table,
    };
    Ok(ServerSnapshot { clock, clocks, server, listed, tenantless, parameters, conditions: None })
}

/// The tenants of the source and the invoices without one, as far as the run needs them.
fn list_tenants(
    options: &CommonOptions,
    boundary: &SourceTime,
    server_session: &mut ServerSession,
    conditions: &mut FoundConditions,
    tell: &mut dyn FnMut(Event),
) -> Result<(Vec<ListedTenant>, Vec<InvoiceId>), SourceError> {
    let has_all_tenants = options.selection.has_all_tenants();
    // A full run of all tenants reads the whole table.
    if options.kind == Kind::Full && has_all_tenants {
        return Ok((Vec::new(), Vec::new()));
    }
    tell(Event::ListingTenants);
    let upto = boundary.clone();
    let TenantList { tenants, has_tenantless } =
        server_session.ask_at_start(tell, move |source| source.tenants(&upto))?;
    conditions.asked = if has_all_tenants { TenantQuestions::TimesAndTenantless } else { TenantQuestions::Times };
    let is_asked = has_tenantless && has_all_tenants;
    let tenantless = if is_asked { find_tenantless(server_session, conditions, tell)? } else { Vec::new() };
    Ok((tenants, tenantless))
}

/// What the operator should know of a replica that has not applied everything yet.
fn replication_notice(replication: Option<Replication>) -> Option<Notice> {
    match replication? {
        Replication::Behind(behind) => (!behind.is_zero()).then_some(Notice::Replica { behind: Some(behind) }),
        Replication::Stopped => Some(Notice::Replica { behind: None }),
    }
}

/// What the operator should know of open work that keeps rows below the boundary out of sight, or that cannot be seen.
fn open_work_notice(work: &OpenWork, boundary: &SourceTime) -> Option<Notice> {
    match work {
        OpenWork::NotPermitted => Some(Notice::OpenWorkNotPermitted),
        OpenWork::Unreliable => Some(Notice::OpenWorkUnreliable),
        OpenWork::Prepared => Some(Notice::PreparedWork),
        OpenWork::Since(since) => work.reaches_below(boundary).then(|| Notice::OpenWork { since: since.clone() }),
        OpenWork::None => None,
    }
}

/// How many invoices without a tenant a run reads by primary key at most, so that they are rejects on record. A full run
/// of all tenants reads every row anyway.
const TENANTLESS_AT_MOST: usize = 1_000;

/// Finds the invoices without a tenant, which no tenant's keys bring, and names some to the operator.
fn find_tenantless(
    server_session: &mut ServerSession,
    conditions: &mut FoundConditions,
    tell: &mut dyn FnMut(Event),
) -> Result<Vec<InvoiceId>, SourceError> {
    let mut found = server_session.ask_at_start(tell, |source| source.tenantless(TENANTLESS_AT_MOST + 1))?;
    let more = found.len() > TENANTLESS_AT_MOST;
    found.truncate(TENANTLESS_AT_MOST);
    if !found.is_empty() {
        let some = found.iter().take(SHOWN).cloned().collect();
        conditions.sort(Notice::WithoutTenant { invoices: found.len() as u64, more, some }, tell);
    }
    Ok(found)
}

/// How many ids are shown in one line.
const SHOWN: usize = 5;

/// An answer that took longer than this does not tell precisely enough what our own clocks showed when it was given:
/// clocks that differ by half a second may count as set (`--safety-lag 0s`).
const PRECISE_ENOUGH: TimeDelta = TimeDelta::milliseconds(100);
/// How often a slow server is asked for its clock at most. The quickest answer counts.
const READ_AT_MOST: usize = 5;

/// Reads the server's clock, and our own clocks as of the middle between question and answer.
fn read_clocks(
    options: &CommonOptions,
    server_session: &mut ServerSession,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<(Clock, Clocks)> {
    let own = options.surroundings.clocks;
    let mut quickest: Option<(TimeDelta, Clock, Clocks)> = None;
    for _ in 0..READ_AT_MOST {
        let (clock, [before, after], uptime) = server_session.ask_at_start(tell, move |source| {
            let before = (own.now)();
            let clock = source.clock()?;
            let uptime = (own.uptime)();
            Ok((clock, [before, (own.now)()], uptime))
        })?;
        let took = after.signed_duration_since(before);
        if quickest.as_ref().is_none_or(|(least, ..)| took < *least) {
            let half_ms = took.num_milliseconds().max(0) / 2;
            let clocks = Clocks {
                server_ms: clock.unix_ms,
                shown_ms: clock.shown_ms(),
                own_ms: before.timestamp_millis() + half_ms,
                host: options.surroundings.starter.host.clone(),
                uptime: uptime.map(|uptime| Uptime { ms: uptime.ms - half_ms, ..uptime }),
            };
            quickest = Some((took, clock, clocks));
        }
        if took <= PRECISE_ENOUGH {
            break;
        }
    }
    let (_, clock, clocks) = quickest.context("the server was not asked for its clock")?;
    Ok((clock, clocks))
}

/// Refuses a source that is not the one of the state: its invoices are others, though ids may be the same.
pub fn refuse_other_source(state: &Path, last: &LastKnownState, SourceName(given): &SourceName) -> anyhow::Result<()> {
    match &last.source {
        Some(recorded) if recorded != given => {
            let (recorded, given) = (recorded.clone(), given.clone());
            Err(Refusal::OtherSource { state: state.to_path_buf(), recorded, given }.into())
        }
        _ => Ok(()),
    }
}

/// Refuses what is not meant for this state: another source, or a tenant that neither has.
pub(super) fn refuse_other_use(
    options: &CommonOptions,
    state: &State,
    server_session: &mut ServerSession,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    refuse_other_source(&options.paths.state, &state.last_time()?, server_session.name())?;
    refuse_unknown_tenants(&options.selection, &[], Some(state), server_session, tell)
}

/// Refuses a selected tenant that neither the state nor the source has. The server is asked for those that it has not
/// listed.
pub(super) fn refuse_unknown_tenants(
    selection: &Selection,
    listed: &[ListedTenant],
    state: Option<&State>,
    server_session: &mut ServerSession,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    for tenant in unknown_tenants(selection, listed, state)? {
        let asked = tenant.clone();
        if !server_session.ask_at_start(tell, move |source| source.has_tenant(&asked))? {
            return Err(Refusal::UnknownTenant(tenant.to_string()).into());
        }
    }
    Ok(())
}

/// The selected tenants that neither the state has nor the server has listed.
pub(super) fn unknown_tenants<'a>(
    selection: &'a Selection,
    listed: &[ListedTenant],
    state: Option<&State>,
) -> anyhow::Result<Vec<&'a Tenant>> {
    if selection.has_all_tenants() {
        return Ok(Vec::new());
    }
    let known = state.map_or(Ok(Vec::new()), State::tenants)?;
    let known = known.iter().map(|known| &known.tenant).chain(listed.iter().map(|listed| &listed.spelling));
    let known: HashSet<&Tenant> = known.collect();
    Ok(selection.tenants.iter().filter(|tenant| !known.contains(tenant)).collect())
}
