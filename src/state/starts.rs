//! Starts that failed: runs on record that never had a boundary. No later run goes by them.

use rusqlite::{OptionalExtension, params};

use super::State;
use super::history::{PastRun, RUN, RunStatus};
use super::runs::{NewRun, insert};
use crate::lang::{Lang, Text};
use crate::run::{Kind, RunId, Starter};
use crate::window::Span;

/// A run that came to its end before it had begun.
#[derive(Clone, Debug)]
pub struct FailedStart<'a> {
    pub kind: Kind,
    pub starter: &'a Starter,
    /// The window of source times that was asked for, as far as it is known.
    pub window: &'a Span,
    /// When it failed, RFC 3339.
    pub at: &'a str,
    /// Failed or cancelled.
    pub status: RunStatus,
    pub error: &'a Text,
    /// The last number that a run got, 0 if none is known.
    pub last_number: i64,
}

impl State {
    /// Puts a start that failed on record. Whether a run that has no end died is left to the next run to say: the
    /// tree is compared with what the state says of that run.
    pub fn record_failed_start(&mut self, start: &FailedStart<'_>) -> anyhow::Result<RunId> {
        let FailedStart { kind, starter, window, at, status, error, last_number } = *start;
        self.transaction(|tx| {
            let id = insert(tx, &NewRun { kind, starter, window, boundary: None, last_number })?;
            tx.execute(
                "UPDATE run SET status = ?5, finished = ?2, error = ?3, error_zh = ?4 WHERE id = ?1",
                params![id, at, error.in_lang(Lang::En), error.in_lang(Lang::Zh), status.as_str()],
            )?;
            Ok(id)
        })
    }

    /// The last export that began, if it failed or was cancelled: at its start or later. One without an end is at work
    /// or died, and does not count as failed.
    pub fn last_attempt_failed(&self) -> anyhow::Result<Option<PastRun>> {
        let sql = format!("SELECT {RUN} {LAST_ATTEMPT}");
        let last = self.read(|conn| conn.query_row(&sql, [], PastRun::from_row).optional())?;
        Ok(last.filter(|run| matches!(run.status, RunStatus::Failed | RunStatus::Cancelled)))
    }
}

pub(super) const LAST_ATTEMPT: &str = "FROM run r WHERE +r.kind <> 'verify' ORDER BY r.id DESC LIMIT 1";
