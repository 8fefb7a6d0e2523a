//! Tree, state and source for a verification that mends nothing. It holds the lock: while a run is at work, its files
//! and its records disagree for a moment. Where it may not write it shares the lock with other readers.

use std::io::ErrorKind;

use super::task::Task;
use crate::event::Event;
use crate::export::options::{Paths, Surroundings};
use crate::export::server::{ServerSession, ServerSnapshot, refuse_other_use, take_snapshot, unknown_tenants};
use crate::lock::{self, ExportLock, Patience, SharedLock};
use crate::refusal::Refusal;
use crate::run::RunId;
use crate::state::selection::Selection;
use crate::state::{State, numbers};
use crate::tree::{Tree, mark};

/// What a comparison looks at.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub tree: &'a Tree,
    pub state: &'a State,
    /// None where only tree and ledger are compared.
    pub snapshot: Option<&'a ServerSnapshot>,
    /// The verification, if it is on record.
    pub run: Option<RunId>,
}

/// Tree, state and lock of a verification that mends nothing. One that mends has `export::session::Session`.
pub(super) struct VerifySession {
    pub tree: Tree,
    pub state: State,
    /// None where only tree and ledger are compared.
    pub snapshot: Option<ServerSnapshot>,
    /// Why nothing can be put on record; None: it can.
    pub unwritable: Option<anyhow::Error>,
    /// Freed last.
    pub held: Held,
}

/// The lock, as far as it can be had.
pub(super) enum Held {
    Alone(Box<ExportLock>),
    Shared { _lock: Option<SharedLock> },
}

impl VerifySession {
    /// The session with the server is None where the source is not asked.
    pub(super) fn open(
        task: &Task,
        mut server_session: Option<ServerSession>,
        tell: &mut dyn FnMut(Event),
    ) -> anyhow::Result<Self> {
        let options = &task.common;
        // Taking the lock would make folders in a mistyped output, and opening the state would upgrade it.
        let opened = open_read_only(task)?;
        match &mut server_session {
            Some(server_session) => refuse_other_use(options, &opened, server_session, tell)?,
            None => refuse_tenants_not_in_state(&opened, &options.selection)?,
        }
        drop(opened);
        let (held, unwritable) = hold(task, tell)?;
        let (state, unwritable) = open_state(task, &held, unwritable)?;
        let (last, mark) = (state.last_time()?, mark::of_output(&options.paths.output)?);
        options.location().judge(Some(&last), mark.as_ref())?;
        let mut snapshot = match server_session {
            Some(mut server_session) => Some(take_snapshot(options, &mut server_session, Some((&state, &last)), tell)?),
            None => {
                refuse_tenants_not_in_state(&state, &options.selection)?;
                None
            }
        };
        snapshot.iter_mut().for_each(|snapshot: &mut ServerSnapshot| snapshot.remind(tell));
        Ok(Self { tree: Tree::open(&options.paths.output)?, state, snapshot, unwritable, held })
    }

    /// Closes the state and frees the lock.
    pub(super) fn close(self) -> anyhow::Result<()> {
        match &self.held {
            Held::Alone(lock) => numbers::close(self.state, lock),
            Held::Shared { .. } => self.state.close(),
        }
    }
}

fn open_read_only(task: &Task) -> anyhow::Result<State> {
    let Paths { output, state, .. } = &task.common.paths;
    let opened = State::open_read_only(state)?.ok_or_else(|| Refusal::NoState { state: state.clone() })?;
    task.common.location().judge(Some(&opened.last_time()?), mark::of_output(output)?.as_ref())?;
    Ok(opened)
}

/// Locks out runs: alone, or with other readers and the reason for that.
fn hold(task: &Task, tell: &mut dyn FnMut(Event)) -> anyhow::Result<(Held, Option<anyhow::Error>)> {
    let options = &task.common;
    match options.lock(tell) {
        Ok((_, lock)) => Ok((Held::Alone(Box::new(lock)), None)),
        Err(why) if may_only_read(&why) => {
            let (output, purpose) = (&options.paths.output, options.kind.as_str());
            let Surroundings { starter, cancel, .. } = &options.surroundings;
            let patience = Patience { time: options.work.lock_wait, cancel: Some(cancel) };
            let lock = lock::share(output, purpose, starter, patience, tell)?;
            Ok((Held::Shared { _lock: lock }, Some(not_on_record(why))))
        }
        Err(error) => Err(error),
    }
}

/// The state, and why nothing can be put on record in it.
fn open_state(
    task: &Task,
    held: &Held,
    unwritable: Option<anyhow::Error>,
) -> anyhow::Result<(State, Option<anyhow::Error>)> {
    let why = match held {
        Held::Shared { .. } => unwritable,
        Held::Alone(lock) => match State::open(lock) {
            Ok(Some(state)) => return Ok((state, None)),
            Ok(None) => return Err(Refusal::NoState { state: task.common.paths.state.clone() }.into()),
            Err(error) if is_refused(&error) && !may_only_read(&error) => return Err(error),
            Err(error) if may_only_read(&error) => Some(not_on_record(error)),
            Err(error) => Some(error),
        },
    };
    Ok((open_read_only(task)?, why))
}

/// Where the source is not asked, a tenant that the state does not know is a mistype, and no difference would show it.
fn refuse_tenants_not_in_state(state: &State, selection: &Selection) -> anyhow::Result<()> {
    match unknown_tenants(selection, &[], Some(state))?.first() {
        Some(tenant) => Err(Refusal::TenantNotInState(tenant.to_string()).into()),
        None => Ok(()),
    }
}

/// Whether a command refuses to go on.
pub(super) fn is_refused(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Refusal>())
}

/// A reader needs no permission to write, so the remedy of the error itself would be wrong.
fn not_on_record(why: anyhow::Error) -> anyhow::Error {
    let what = text!(
        "a verification without permission to write the state is not put on record",
        "对状态文件没有写权限时，核对不记入历史"
    );
    let hint = text!(
        "its answer holds all the same; the owner of the state puts one on record",
        "其结果同样有效；由状态文件的所有者运行 verify 即可记入历史"
    );
    what.with_hint(hint).caused_by(why)
}

/// Whether tree or state can be read and not changed: they are another user's, or the file system is read-only.
fn may_only_read(error: &anyhow::Error) -> bool {
    let may = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(io, Some(ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied))
            || matches!(cause.downcast_ref(), Some(Refusal::NotOwner { .. }))
    };
    error.chain().any(may)
}
