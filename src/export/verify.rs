//! `verify`: does the tree hold what the ledger says, and does the ledger hold what the source says?
//!
//! `findings.rs` is what it may find, `disk.rs` compares tree and ledger, `source.rs` ledger and source
//! by the same key diff that runs use, without a lower bound. What `--repair` exports goes over the
//! to-do list and from there the way of every invoice; `prune.rs` removes the files of
//! withdrawn invoices. Both are one run in the history. No watermark moves.
//!
//! It holds the lock: while a run is at work, its files and its records disagree for a moment.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use self::findings::{Difference, Finding, Findings};
use super::attach::Location;
use super::carry_out::{Destination, carry_out};
use super::course::{CarriedOut, Course, Totals};
use super::diff::Compare;
use super::order::Order;
use super::plan::{Purpose, StatePolicy};
use super::server::ServerSession;
use super::session::{Session, Site};
use crate::event::Event;
use crate::invoice::Tenant;
use crate::lock::{self, ExportLock};
use crate::refusal::Refusal;
use crate::run::{Cancel, Counts, Kind, RunId, Starter};
use crate::state::State;
use crate::state::visited::Selection;
use crate::tree::{Tree, mark};

mod disk;
pub mod findings;
mod prune;
mod source;

/// What is to be compared, and what is to be done about it.
pub struct Task {
    pub output: PathBuf,
    /// The state's file.
    pub state: PathBuf,
    pub starter: Starter,
    pub lock_wait: Duration,
    pub selection: Selection,
    pub content: Content,
    /// Findings that are shown of each kind; all are counted.
    pub shown: usize,
    /// None: only tree and ledger are looked at.
    pub with_source: Option<WithSource>,
}

/// How a file is compared with what was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// By its size, and by its content only if it was modified after the run that wrote it.
    BySize,
    ByHash,
}

/// What the source is asked for.
pub struct WithSource {
    /// Of kind `Verify`.
    pub order: Order,
    pub against: Against,
    pub repair: Repair,
    pub prune: Prune,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    Ledger,
    /// The source's keys, and the documents of those that the ledger does not hold.
    Keys,
    /// Every document.
    Documents,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    No,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    No,
    Yes(PruneOrder),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneOrder {
    /// So many files at the most without a word of the operator's; None is what is always harmless.
    pub at_most: Option<u64>,
    pub leftovers: Leftovers,
}

/// What becomes of leftovers that are not provably superseded: each may be the only file of an earlier invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    Kept,
    Removed,
}

/// What came of it.
pub struct Verified {
    pub findings: Findings,
    pub mended: Option<Mended>,
    /// Why nothing was mended though it should have been.
    pub refused: Option<anyhow::Error>,
}

/// What `--repair` and `--prune` did.
pub struct Mended {
    pub run: RunId,
    pub counts: Counts,
    /// What a second look found.
    pub left: Findings,
}

impl Verified {
    pub fn differs(&self) -> bool {
        let left = self.mended.as_ref().map_or(&self.findings, |mended| &mended.left);
        left.number() > 0
    }
}

/// Asked before more files are removed than is harmless: how many, and out of how many. An error stops it.
pub type Confirm<'a> = &'a dyn Fn(u64, u64) -> anyhow::Result<()>;

pub fn verify(task: &Task, confirm: Confirm<'_>, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Verified> {
    tell(Event::Started { kind: Kind::Verify, dry_run: false });
    match &task.with_source {
        Some(with_source) => with_the_source(task, with_source, confirm, tell),
        None => {
            let (tree, state, _held) = look(task, tell)?;
            refuse_unknown_tenants(&state, &task.selection)?;
            let mut findings = Findings::new(task.shown);
            disk::compare(task, &tree, &state, &Cancel::default(), &mut findings, tell)?;
            Ok(Verified { findings, mended: None, refused: None })
        }
    }
}

/// Tree and state, only to be looked at.
fn look(task: &Task, tell: &mut dyn FnMut(Event)) -> anyhow::Result<(Tree, State, Option<ExportLock>)> {
    let look_at_state = || {
        let state =
            State::open_read_only(&task.state)?.ok_or_else(|| Refusal::NoState { state: task.state.clone() })?;
        let place = Location {
            output: &task.output,
            state: &task.state,
            policy: StatePolicy::Required,
            purpose: Purpose::Run(Kind::Verify),
        };
        place.judge(Some(&state.last_time()?), mark::of_output(&task.output)?.as_ref())?;
        Ok::<_, anyhow::Error>(state)
    };
    // Taking the lock would make folders in a mistyped output.
    drop(look_at_state()?);
    let held =
        match lock::acquire(&task.output, &task.state, Kind::Verify.as_str(), &task.starter, task.lock_wait, tell) {
            Ok((_, held)) => Some(held),
            // No run can be at work there.
            Err(error) if is_read_only(&error) => None,
            Err(error) => return Err(error),
        };
    Ok((Tree::open(&task.output)?, look_at_state()?, held))
}

/// Where the source is not asked, a tenant that the state does not know is a mistype, and no difference would show it.
fn refuse_unknown_tenants(state: &State, selection: &Selection) -> anyhow::Result<()> {
    let known: HashSet<Tenant> = state.tenants()?.into_iter().map(|known| known.tenant).collect();
    let unknown = selection.tenants.iter().find(|tenant| !known.contains(tenant));
    unknown.map_or(Ok(()), |tenant| Err(Refusal::TenantNotInState(tenant.to_string()).into()))
}

fn is_read_only(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.into_iter().any(|kind| kind == ErrorKind::ReadOnlyFilesystem)
}

fn with_the_source(
    task: &Task,
    with: &WithSource,
    confirm: Confirm<'_>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Verified> {
    let order = &with.order;
    let course = Course::begin();
    let tell = &mut course.counting(tell);
    let mut server_session = ServerSession::open(&order.access, order.retry_for, tell)?;
    let mut session = Session::open(order, &mut server_session, tell)?;
    drop(server_session);
    // Nothing is under way yet that a signal could not end at once.
    let findings = examine(task, with, &session, &Cancel::default(), tell)?;
    if with.repair == Repair::No && with.prune == Prune::No {
        session.close(order)?;
        return Ok(Verified { findings, mended: None, refused: None });
    }
    if let Prune::Yes(prune) = with.prune
        && let Err(refused) = prune::refuse(order, &findings, &session, prune, confirm, tell)
    {
        return Ok(Verified { findings, mended: None, refused: Some(refused) });
    }
    let mend = |site: Site<'_>, tell: &mut dyn FnMut(Event)| mend(with, &findings, site, tell);
    let (run, CarriedOut { totals: Totals { run: counts, .. }, .. }) = session.on_record(order, &course, tell, mend)?;
    let left = examine(task, with, &session, &(order.watch)()?, tell)?;
    session.close(order)?;
    Ok(Verified { findings, mended: Some(Mended { run, counts, left }), refused: None })
}

fn examine(
    task: &Task,
    with: &WithSource,
    session: &Session,
    cancel: &Cancel,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Findings> {
    let mut findings = Findings::new(task.shown);
    disk::compare(task, &session.tree, &session.state, cancel, &mut findings, tell)?;
    let compare = match with.against {
        Against::Ledger => return Ok(findings),
        Against::Keys => Compare::Keys,
        Against::Documents => Compare::Documents,
    };
    source::compare(&with.order, session, &task.selection, compare, cancel, &mut findings, tell)?;
    Ok(findings)
}

/// Removes what is withdrawn and exports what differs, as one run.
fn mend(
    with: &WithSource,
    findings: &Findings,
    site: Site<'_>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<CarriedOut> {
    let Site { state, snapshot, mut writing } = site;
    let mut pruned = Counts::default();
    if let Prune::Yes(PruneOrder { leftovers, .. }) = with.prune {
        pruned = prune::prune(&with.order, findings, leftovers, state, snapshot, &mut writing, tell)?;
    }
    if with.repair == Repair::Yes {
        state.put_on_todo_list(findings.to_export())?;
    }
    let server_session = ServerSession::again(&with.order, &snapshot.server, writing.run.id, tell)?;
    let mut carried_out =
        carry_out(&with.order, snapshot, server_session, Destination::Export { state, writing }, tell)?;
    carried_out.totals.run += pruned;
    Ok(carried_out)
}
