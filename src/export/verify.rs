//! `verify`: does the tree hold what the ledger says, and does the ledger hold what the source says?
//!
//! `task.rs` is what an operator asks for and `findings.rs` what may be found. `disk.rs` compares tree and ledger,
//! `source.rs` ledger and source by the key diff of runs without a lower bound. `--repair` puts invoices on the to-do
//! list, from which they are exported like all others; `prune.rs` removes the files of withdrawn invoices. Both
//! together go on as the run in the history that every verification is (`record.rs`). No watermark moves.

use self::findings::{Difference, Findings};
use self::record::Record;
use self::session::{Held, Sight, VerifySession};
use super::carry_out::{Destination, carry_out};
use super::diff::Compare;
use super::metrics::{RunMetrics, RunResult, Totals};
use super::options::CommonOptions;
use super::server::ServerSession;
use super::session::{RunContext, Session, end};
use super::starts;
use crate::event::Event;
use crate::lang::Message;
use crate::panics;
use crate::run::{Cancel, Counts, Kind, RunId};
use crate::state::history::RunStatus;
use crate::state::runs::End;
use crate::state::selection::Selection;

mod disk;
pub mod findings;
mod session;
mod prune;
mod record;
mod source;
mod task;

pub use self::task::{Against, Confirm, ContentCheck, Leftovers, Prune, PruneOrder, Repair, Task, WithSource};

/// The result of a verification.
pub struct Verification {
    /// What was selected, with the window that holds.
    pub selection: Selection,
    pub against: Against,
    pub content: ContentCheck,
    /// The source that was asked; None: none was.
    pub source: Option<String>,
    /// The run in the history; None where nothing could be put on record.
    pub run: Option<RunId>,
    /// Why it is not on record.
    pub unrecorded: Option<anyhow::Error>,
    pub findings: Findings,
    pub mended: Option<RepairResult>,
    /// Why nothing was mended although the operator asked for it.
    pub refused: Option<anyhow::Error>,
}

/// What `--repair` and `--prune` did.
pub struct RepairResult {
    pub counts: Counts,
    /// What a second comparison found.
    pub left: Findings,
}

impl Verification {
    fn new(task: &Task, source: Option<String>, record: Record, findings: Findings) -> Self {
        let Record { run, missing } = record;
        Self {
            selection: task.common.selection.clone(),
            against: task.against(),
            content: task.content,
            source,
            run,
            unrecorded: missing,
            findings,
            mended: None,
            refused: None,
        }
    }

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
    let Task { common, window, with_source, .. } = &task;
    let (server_session, window) = match with_source {
        None if window.needs_clock() => (None, starts::on_record(common, || window.span())?),
        None => (None, common.selection.window.clone()),
        Some(WithSource { source, .. }) => {
            let connect = || ServerSession::open_with_window(source, window, &common.surroundings.cancel, tell);
            let (server_session, window) = starts::on_record(common, connect)?;
            (Some(server_session), window)
        }
    };
    task.common.selection.window = window;
    match (&task.with_source, server_session) {
        (Some(with), Some(server_session)) if with.may_mend() => {
            compare_and_mend(&task, with, server_session, &metrics, confirm, tell)
        }
        (_, server_session) => compare(&task, server_session, &metrics, tell),
    }
}

/// A verification that mends nothing.
fn compare(
    task: &Task,
    server_session: Option<ServerSession>,
    metrics: &RunMetrics,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Verification> {
    let source = server_session.as_ref().map(|server_session| server_session.name().0.clone());
    let mut session = starts::on_record(&task.common, || VerifySession::open(task, server_session, tell))?;
    let mut record = match (session.unwritable.take(), &session.held) {
        (None, Held::Alone(lock)) => Record::begin(&mut session.state, task, lock)?,
        (missing, _) => Record { run: None, missing },
    };
    let run = record.run;
    let sight = Sight { tree: &session.tree, state: &session.state, snapshot: session.snapshot.as_ref(), run };
    let examined = panics::as_error(|| examine(task, sight, &task.common.surroundings.cancel, tell));
    let findings = record.examined(&mut session.state, task, metrics, examined)?;
    record.end(&mut session.state, &outcome(task, metrics, &findings, None))?;
    if record.run.is_some() {
        session.close()?;
    }
    Ok(Verification::new(task, source, record, findings))
}

/// A verification that mends what it finds: the same run goes on.
fn compare_and_mend(
    task: &Task,
    with: &WithSource,
    mut server_session: ServerSession,
    metrics: &RunMetrics,
    confirm: Confirm<'_>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Verification> {
    let (options, source) = (&task.common, &with.source);
    let mut session = starts::on_record(options, || Session::open(options, &mut server_session, tell))?;
    let name = Some(server_session.name().0.clone());
    drop(server_session);
    let mut record = Record::begin(&mut session.state, task, &session.lock)?;
    let examined =
        panics::as_error(|| examine(task, sight(&session, record.run), &task.common.surroundings.cancel, tell));
    let findings = record.examined(&mut session.state, task, metrics, examined)?;
    if let Prune::Yes(prune) = with.prune
        && let Err(refused) =
            prune::refuse(source, &findings, &session, prune, confirm, &options.surroundings.cancel, tell)
    {
        record.end(&mut session.state, &outcome(task, metrics, &findings, Some(&refused)))?;
        session.close()?;
        return Ok(Verification { refused: Some(refused), ..Verification::new(task, name, record, findings) });
    }
    let run = match session.begin(options, record.run, tell) {
        Ok(run) => run,
        Err(error) => {
            record.end(&mut session.state, &outcome(task, metrics, &findings, Some(&error)))?;
            return Err(error);
        }
    };
    record.run = Some(run.id);
    let mend = |context: RunContext<'_>, tell: &mut dyn FnMut(Event)| mend(options, with, &findings, context, tell);
    let (_, RunResult { totals: Totals { run: counts, .. }, .. }) =
        session.on_record(options, run, metrics, tell, mend)?;
    let left = examine(task, sight(&session, record.run), &options.surroundings.cancel, tell)?;
    session.close()?;
    let mended = Some(RepairResult { counts, left });
    Ok(Verification { mended, ..Verification::new(task, name, record, findings) })
}

fn sight(session: &Session, run: Option<RunId>) -> Sight<'_> {
    Sight { tree: &session.tree, state: &session.state, snapshot: Some(&session.snapshot), run }
}

/// The end of a verification that has changed nothing.
fn outcome(task: &Task, metrics: &RunMetrics, findings: &Findings, refused: Option<&anyhow::Error>) -> End {
    let status = match refused {
        Some(refused) => starts::status_after(refused),
        // Rows that the server does not return are not compared.
        None if findings.number_of(Difference::Unread) > 0 => RunStatus::Partial,
        None => RunStatus::Success,
    };
    end(&task.common, metrics, status, refused.map(|refused| Message::from(refused).into()))
}

/// Compares what the task asks for.
fn examine(task: &Task, sight: Sight<'_>, cancel: &Cancel, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Findings> {
    let mut findings = Findings::new(task.shown);
    let in_doubt = disk::in_doubt(sight.tree, sight.state)?;
    disk::compare(task, sight, &in_doubt, cancel, &mut findings, tell)?;
    let compare = match task.against() {
        Against::Ledger => {
            source::note_rejects_on_record(sight.state, &task.common.selection, &mut findings)?;
            return Ok(findings);
        }
        Against::Keys => Compare::Keys,
        Against::Documents => Compare::Documents,
    };
    if let Some(with) = &task.with_source {
        source::compare(&with.source, &task.common, sight, compare, cancel, &mut findings, &in_doubt, tell)?;
    }
    Ok(findings)
}

/// Removes what is withdrawn and exports what differs, as one run.
fn mend(
    options: &CommonOptions,
    with: &WithSource,
    findings: &Findings,
    context: RunContext<'_>,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<RunResult> {
    let RunContext { state, snapshot, mut writing } = context;
    let mut pruned = Counts::default();
    let cancel = &options.surroundings.cancel;
    let run = writing.run.id;
    if let Prune::Yes(PruneOrder { leftovers, .. }) = with.prune {
        let server_session = ServerSession::again(&with.source, &snapshot.server, run, cancel, tell)?;
        pruned = prune::prune(server_session, findings, leftovers, state, &mut writing, tell)?;
    }
    if with.repair == Repair::Yes {
        state.put_on_todo_list(findings.to_export())?;
    }
    let server_session = ServerSession::again(&with.source, &snapshot.server, run, cancel, tell)?;
    let mut carried_out =
        carry_out(options, &with.source, snapshot, server_session, Destination::Export { state, writing }, tell)?;
    carried_out.totals.run += pruned;
    Ok(carried_out)
}
