//! Starts that fail, on record: what an operator looks for in the history after a night without exports.
//!
//! Only a state that is there, sound and this user's says anything about a start. Nothing is made.

use std::time::{Duration, Instant};

use super::options::{CommonOptions, Paths, Surroundings};
use crate::lang::{Explain, Message};
use crate::lock::{self, Patience};
use crate::panics;
use crate::refusal::Refusal;
use crate::run::rfc3339;
use crate::state::State;
use crate::state::history::RunStatus;
use crate::state::starts::FailedStart;
use crate::tree::mark;

/// How long a record waits for the lock of the state, and for a process that has SQLite's own.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts a run or a verification. If that fails, it is on record as a run that failed; if a signal ends it, as one that
/// was cancelled.
///
/// # Errors
/// Those of the start, each once. If the start should be on record and cannot be, the error says so.
pub fn on_record<T>(options: &CommonOptions, start: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let error = match panics::as_error(start) {
        Ok(started) => return Ok(started),
        Err(error) => error,
    };
    if !belongs_on_record(&error) {
        return Err(error);
    }
    match record(options, &error) {
        Ok(()) => Err(error),
        // Whose state it is, or that it is damaged, is for a command to say that needs it.
        Err(unrecorded) if refusal(&unrecorded).is_some_and(|refusal| refusal.exit_code() == STATE_REFUSED) => {
            Err(error)
        }
        Err(unrecorded) => {
            let why = Message::from(&unrecorded).what;
            Err(error).explain(|| text!("this start is not on record ({why})", "本次启动未能记入历史（{why}）"; why))
        }
    }
}

const STATE_REFUSED: u8 = 5;

fn refusal(error: &anyhow::Error) -> Option<&Refusal> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

/// How a run ended that ended with this error.
pub(super) fn status_after(error: &anyhow::Error) -> RunStatus {
    match refusal(error) {
        Some(Refusal::Cancelled { .. }) => RunStatus::Cancelled,
        _ => RunStatus::Failed,
    }
}

/// Whether a start that failed like this is a run that failed. A run that makes way for another one did not fail, and
/// a state that was refused says nothing about this start.
fn belongs_on_record(error: &anyhow::Error) -> bool {
    !matches!(
        refusal(error),
        Some(
            Refusal::Locked { .. }
                | Refusal::ScriptLocked { .. }
                | Refusal::StateDamaged { .. }
                | Refusal::StateNewer { .. }
                | Refusal::OtherSource { .. }
        )
    )
}

/// Puts the start on record, if there is a state for it. The address that the operator gave says which source it is: the
/// source may not have answered.
fn record(options: &CommonOptions, error: &anyhow::Error) -> anyhow::Result<()> {
    let CommonOptions {
        kind,
        paths: Paths { output, state, .. },
        source,
        surroundings: Surroundings { starter, clocks, .. },
        ..
    } = options;
    let since = Instant::now();
    let Some(lock) = lock::acquire_state(state, starter, Patience::of(PATIENCE))? else { return Ok(()) };
    let Some(mut state) = State::open_for_record(&lock, PATIENCE.saturating_sub(since.elapsed()))? else {
        return Ok(());
    };
    if let (Some(recorded), Some(given)) = (state.source()?, source)
        && recorded != given.0
    {
        return Ok(());
    }
    state.refuse_older()?;
    // A tree that cannot be looked at, or that another state describes, has nothing to say about numbers.
    let state_id = state.last_time()?.state_id;
    let mark = mark::of_output(output).ok().flatten().filter(|mark| mark.state_id == state_id);
    let marked = mark.map_or(0, |mark| mark.run);
    let run = state.record_failed_start(&FailedStart {
        kind: *kind,
        starter,
        window: &options.selection.window,
        at: &rfc3339((clocks.now)()),
        status: status_after(error),
        error: &Message::from(error).into(),
        last_number: lock.last_number()?.max(marked),
    })?;
    lock.note_number(run)?;
    state.close()
}
