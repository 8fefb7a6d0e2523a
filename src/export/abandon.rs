//! Questions that are given up when a signal asks to stop, though the source has not answered yet.
//!
//! The driver waits for a server as long as its timeouts say, and nothing wakes it. So a thread of its own asks, and is
//! left to its wait; it ends with the process.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::panics;
use crate::refusal::Refusal;
use crate::run::{CANCEL_CHECK_INTERVAL, Cancel};
use crate::source::SourceError;

/// How long an answer is waited for once a signal has come.
const GRACE: Duration = Duration::from_millis(500);

/// The answer, unless a signal comes first.
///
/// # Errors
/// Those of the question, or the cancellation.
pub(super) fn answer_until<R: Send + 'static>(
    cancel: Option<&Cancel>,
    question: impl FnOnce() -> Result<R, SourceError> + Send + 'static,
) -> Result<R, SourceError> {
    // Where no signal is watched for, one ends the process.
    let Some(cancel) = cancel else { return question() };
    if cancel.signal().is_some() {
        return Err(given_up(Some(cancel)));
    }
    let (sender, answers) = bounded(1);
    let ask = move || {
        let answer = panics::caught(question).unwrap_or_else(|panic| {
            let refusal: Refusal = panic.into();
            Err(SourceError::Consumer(refusal.into()))
        });
        // The receiver is gone if the question was given up.
        let _ = sender.send(answer);
    };
    if let Err(error) = thread::Builder::new().spawn(ask) {
        return Err(SourceError::Consumer(Refusal::NoThread { detail: error.to_string() }.into()));
    }
    let mut asked_to_stop: Option<Instant> = None;
    loop {
        match answers.recv_timeout(CANCEL_CHECK_INTERVAL) {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Disconnected) => return Err(given_up(Some(cancel))),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if cancel.signal().is_some() && asked_to_stop.get_or_insert_with(Instant::now).elapsed() >= GRACE {
            return Err(given_up(Some(cancel)));
        }
    }
}

/// The error of a question that is not asked, or not waited for, any more.
pub(super) fn given_up(cancel: Option<&Cancel>) -> SourceError {
    let signal = cancel.and_then(Cancel::signal).unwrap_or_default();
    SourceError::Consumer(Refusal::Cancelled { signal }.into())
}
