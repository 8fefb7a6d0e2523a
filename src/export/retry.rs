//! When a question to a server is asked again. A lost connection is made again, with pauses that grow, until it has
//! failed for `--retry-for` without any progress. A statement that the server ended because it took too long is tried
//! again a few times only: then the statement is to blame.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use crate::event::{Event, Notice};
use crate::refusal::{Refusal, Trouble};
use crate::run::Cancel;
use crate::source::SourceError;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often a statement may take too long, without any progress, before it counts as refused.
const OVERTIMES: u32 = 3;

#[derive(Debug)]
pub(super) struct RetryPolicy {
    retry_for: Duration,
    cancel: Cancel,
    /// Since when nothing has come, and how long the last pause was.
    failing: Option<(Instant, Duration)>,
    overtimes: u32,
}

impl RetryPolicy {
    pub(super) fn new(retry_for: Duration, cancel: &Cancel) -> Self {
        Self { retry_for, cancel: cancel.clone(), failing: None, overtimes: 0 }
    }

    /// An answer or a row came: the next failure starts counting anew.
    pub(super) fn progress(&mut self) {
        (self.failing, self.overtimes) = (None, 0);
    }

    /// Judges an attempt. Returns its answer, or None after the pause before the next attempt.
    pub(super) fn judge<R>(
        &mut self,
        attempt: Result<R, SourceError>,
        say: impl FnOnce(Trouble, Duration) -> anyhow::Result<()>,
    ) -> Result<Option<R>, SourceError> {
        match attempt {
            Ok(done) => {
                self.progress();
                Ok(Some(done))
            }
            Err(fault) => self.wait(fault, say).map(|()| None),
        }
    }

    /// Waits before the next attempt, after having said so; gives the fault back if waiting is of no
    /// use, or if it has lasted too long. A statement that always takes too long counts as refused.
    fn wait(
        &mut self,
        fault: SourceError,
        say: impl FnOnce(Trouble, Duration) -> anyhow::Result<()>,
    ) -> Result<(), SourceError> {
        let (error, give_up): (_, fn(_) -> SourceError) = match fault {
            SourceError::Connection(error) => (error, SourceError::Connection),
            SourceError::Exhausted(error) => {
                self.overtimes += 1;
                (error, SourceError::Statement)
            }
            other => {
                self.progress();
                return Err(other);
            }
        };
        let (since, last) = self.failing.unwrap_or((Instant::now(), FIRST_PAUSE / 2));
        let pause = jittered((last * 2).min(LONGEST_PAUSE));
        if self.overtimes > OVERTIMES || since.elapsed() + pause > self.retry_for {
            self.progress();
            return Err(give_up(error));
        }
        self.failing = Some((since, (last * 2).min(LONGEST_PAUSE)));
        say(Trouble::from(&error), pause).map_err(SourceError::Consumer)?;
        self.cancel.sleep(pause);
        match self.cancel.signal() {
            Some(signal) => Err(SourceError::Consumer(Refusal::Cancelled { signal }.into())),
            None => Ok(()),
        }
    }

    /// Repeats the attempt until it succeeds or `wait` gives up, and tells of each pause.
    pub(super) fn run<R>(
        &mut self,
        tell: &mut dyn FnMut(Event),
        mut attempt: impl FnMut() -> Result<R, SourceError>,
    ) -> Result<R, SourceError> {
        loop {
            let say = |trouble, pause| {
                tell(Event::Notice(Notice::Retrying { trouble, pause }));
                Ok(())
            };
            if let Some(done) = self.judge(attempt(), say)? {
                return Ok(done);
            }
        }
    }
}

/// Between half of it and all of it, so that many clients of one server do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1000;
    pause / 2 + pause.mul_f64(random as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn lost() -> SourceError {
        SourceError::Connection(anyhow!("lost"))
    }

    #[test]
    fn only_a_lost_connection_is_waited_for() {
        let mut retry = RetryPolicy::new(Duration::from_secs(60), &Cancel::default());
        let refused = retry.wait(SourceError::Statement(anyhow!("no such table")), |_, _| panic!("it must not wait"));
        assert!(matches!(refused, Err(SourceError::Statement(_))));
        let refused = retry.wait(SourceError::Final(anyhow!("wrong password")), |_, _| panic!("it must not wait"));
        assert!(matches!(refused, Err(SourceError::Final(_))));
    }

    #[test]
    fn a_statement_that_always_takes_too_long_counts_as_refused_after_some_attempts() {
        let mut retry = RetryPolicy::new(Duration::from_secs(60), &Cancel::default());
        // The run is cancelled, so that no pause is waited for.
        let cancelled = Cancel::default();
        cancelled.0.store(15, std::sync::atomic::Ordering::Relaxed);
        retry.cancel = cancelled;
        let mut attempts = 0;
        while let Err(SourceError::Consumer(_)) = retry.wait(SourceError::Exhausted(anyhow!("too long")), |_, _| Ok(()))
        {
            attempts += 1;
        }
        assert_eq!(attempts, OVERTIMES);
        let again = retry.wait(SourceError::Exhausted(anyhow!("too long")), |_, _| Ok(()));
        assert!(matches!(again, Err(SourceError::Consumer(_))), "the next statement is tried again too");
    }

    #[test]
    fn it_insists_until_it_is_done_and_says_each_pause() {
        let mut pauses = 0;
        let mut tell = |event| {
            assert!(matches!(event, Event::Notice(Notice::Retrying { .. })));
            pauses += 1;
        };
        let mut answers = vec![Ok(7), Err(lost())];
        let done =
            RetryPolicy::new(Duration::from_secs(60), &Cancel::default()).run(&mut tell, || answers.pop().unwrap());
        assert!(matches!(done, Ok(7)) && pauses == 1);
    }

    #[test]
    fn patience_ends_when_the_next_pause_would_outlast_it() {
        let mut retry = RetryPolicy::new(Duration::from_millis(100), &Cancel::default());
        assert!(matches!(retry.wait(lost(), |_, _| panic!("it must not wait")), Err(SourceError::Connection(_))));
    }

    #[test]
    fn a_pause_is_jittered_but_never_longer_than_it_should_be() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(4));
            assert!((Duration::from_secs(2)..=Duration::from_secs(4)).contains(&pause), "{pause:?}");
        }
    }
}
