//! `verify`: does the tree hold what the ledger says, and does the ledger hold what the source says?
//!
//! `task.rs` is what an operator asks for and `findings.rs` what may be found. `disk.rs` compares tree and ledger,
//! `source.rs` ledger and source by the key diff of runs without a lower bound. `--repair` puts invoices on the to-do
//! list, from which they are exported like all others; `prune.rs` removes the files of withdrawn invoices. Both
//! together are one run in the history. No watermark moves.
//!
//! A verification holds the lock: during a run, its files and its records disagree for a moment.

use std::io::ErrorKind;

use self::findings::Findings;
use super::carry_out::{Destination, carry_out};
use super::diff::Compare;
use super::metrics::{RunMetrics, RunResult, Totals};
use super::options::{CommonOptions, Paths};
use super::server::{ServerSession, unknown_tenants};
use super::session::{RunContext, Session};
use crate::event::Event;
use crate::lock::ExportLock;
use crate::refusal::Refusal;
use crate::run::{Cancel, Counts, Kind, RunId};
use crate::state::State;
use crate::state::selection::Selection;
use crate::tree::{Tree, mark};

mod disk;
pub mod findings;
mod prune;
mod source;
mod task;

pub use self::task::{Against, Confirm, ContentCheck, Leftovers, Prune, PruneOrder, Repair, Task, WithSource};

/// The result of a verification.
pub struct Verification {
    pub findings: Findings,
    pub mended: Option<RepairResult>,
    /// Why nothing was mended although the operator asked for it.
    pub refused: Option<anyhow::Error>,
}

/// What `--repair` and `--prune` did.
pub struct RepairResult {
    pub run: RunId,
    pub counts: Counts,
    /// What a second comparison found.
    pub left: Findings,
}

impl Verification {
    /// Whether anything still differs.
    pub fn differs(&self) -> bool {
        let left = self.mended.as_ref().map_or(&self.findings, |mended| &mended.left);
        left.number() > 0
    }
}

/// Compares, mends what the task asks for, and compares again.
///
/// # Errors
/// The comparison could not be made, or mending failed. A refusal to mend comes with the findings.
pub fn verify(mut task: Task, confirm: Confirm<'_>, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Verification> {
    tell(Event::Started { kind: Kind::Verify, dry_run: false });
    let metrics = RunMetrics::begin();
    let tell = &mut metrics.counting(tell);
    let Some(with) = &task.with_source else {
        task.common.selection.window = task.window.span()?;
        return with_the_ledger(&task, tell);
    };
    let mut server_session = ServerSession::open(&with.source.access, with.source.retry_for, tell)?;
    task.common.selection.window = server_session.window(&task.window, tell)?;
    with_the_source(&task, with, server_session, &metrics, confirm, tell)
}

fn with_the_ledger(task: &Task, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Verification> {
    let (tree, state, _held) = open_read_only(task, tell)?;
    refuse_tenants_not_in_state(&state, &task.common.selection)?;
    let mut findings = Findings::new(task.shown);
    disk::compare(task, &tree, &state, &Cancel::default(), &mut findings, tell)?;
    Ok(Verification { findings, mended: None, refused: None })
}

/// Opens tree and state only to be read, under the lock if the file system can be written.
fn open_read_only(task: &Task, tell: &mut dyn FnMut(Event)) -> anyhow::Result<(Tree, State, Option<ExportLock>)> {
    let Paths { output, state } = &task.common.paths;
    let open_state = || {
        let opened = State::open_read_only(state)?.ok_or_else(|| Refusal::NoState { state: state.clone() })?;
        task.common.location().judge(Some(&opened.last_time()?), mark::of_output(output)?.as_ref())?;
        Ok::<_, anyhow::Error>(opened)
    };
    // Taking the lock would make folders in a mistyped output.
    drop(open_state()?);
    let held = match task.common.lock(tell) {
        Ok((_, held)) => Some(held),
        // No run can write there.
        Err(error) if is_read_only(&error) => None,
        Err(error) => return Err(error),
    };
    Ok((Tree::open(output)?, open_state()?, held))
}

/// Where the source is not asked, a tenant that the state does not know is a mistype, and no difference would show it.
fn refuse_tenants_not_in_state(state: &State, selection: &Selection) -> anyhow::Result<()> {
    match unknown_tenants(selection, &[], Some(state))?.first() {
        Some(tenant) => Err(Refusal::TenantNotInState(tenant.to_string()).into()),
        None => Ok(()),
    }
}

/// Whether an error comes from a file system that is mounted read-only.
fn is_read_only(error: &anyhow::Error) -> bool {
    let mut errors = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    errors.any(|error| error.kind() == ErrorKind::ReadOnlyFilesystem)
}

/// A verification that asks the source, and may mend.
fn with_the_source(
    task: &Task,
    with: &WithSource,
    mut server_session: ServerSession,
    metrics: &RunMetrics,
    confirm: Confirm<'_>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Verification> {
    let (options, source) = (&task.common, &with.source);
    let mut session = Session::open(options, &mut server_session, tell)?;
    drop(server_session);
    // A signal may end the process at once as long as nothing is changed.
    let findings = examine(task, with, &session, &Cancel::default(), tell)?;
    if with.repair == Repair::No && with.prune == Prune::No {
        session.close()?;
        return Ok(Verification { findings, mended: None, refused: None });
    }
    if let Prune::Yes(prune) = with.prune
        && let Err(refused) = prune::refuse(source, &findings, &session, prune, confirm, tell)
    {
        return Ok(Verification { findings, mended: None, refused: Some(refused) });
    }
    let mend = |site: RunContext<'_>, tell: &mut dyn FnMut(Event)| mend(options, with, &findings, site, tell);
    let (run, RunResult { totals: Totals { run: counts, .. }, .. }) =
        session.on_record(options, metrics, tell, mend)?;
    let left = examine(task, with, &session, &(options.surroundings.watch)()?, tell)?;
    session.close()?;
    Ok(Verification { findings, mended: Some(RepairResult { run, counts, left }), refused: None })
}

/// Compares what the task asks for.
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
    source::compare(&with.source, &task.common, session, compare, cancel, &mut findings, tell)?;
    Ok(findings)
}

/// Removes what is withdrawn and exports what differs, as one run.
fn mend(
    options: &CommonOptions,
    with: &WithSource,
    findings: &Findings,
    site: RunContext<'_>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<RunResult> {
    let RunContext { state, snapshot, mut writing } = site;
    let mut pruned = Counts::default();
    if let Prune::Yes(PruneOrder { leftovers, .. }) = with.prune {
        pruned = prune::prune(&with.source, findings, leftovers, state, snapshot, &mut writing, tell)?;
    }
    if with.repair == Repair::Yes {
        state.put_on_todo_list(findings.to_export())?;
    }
    let server_session = ServerSession::again(&with.source, &snapshot.server, writing.run.id, tell)?;
    let mut carried_out =
        carry_out(options, &with.source, snapshot, server_session, Destination::Export { state, writing }, tell)?;
    carried_out.totals.run += pruned;
    Ok(carried_out)
}
