//! The threads of a run: one reads, some check, the calling one decides. When one of them fails, the channels close and
//! the other threads end.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use super::budget::Budget;
use super::check::{CheckResult, Checker};
use super::diff::{MetIds, Reader, ReaderEvent, Scope};
use super::outbox::{Job, Outbox, ROWS_A_PACKET};
use super::retry::RetryPolicy;
use super::ticket::{Part, Ticket};
use crate::panics;
use crate::refusal::Refusal;
use crate::run::{CANCEL_CHECK_INTERVAL, Cancel};
use crate::source::{Source, SourceError};
use crate::state::ledger::LedgerReader;
use crate::state::todo::Todo;
use crate::state::visited::VisitedIds;

/// Bytes of documents between reading and staging.
const DOCUMENTS_IN_FLIGHT: usize = 16 << 20;
/// Packets of rows waiting to be checked.
const PACKETS_IN_FLIGHT: usize = 512 / ROWS_A_PACKET;
/// Packets of checked rows waiting for a decision, some hundred bytes a row: room to go on staging while a batch is
/// published.
const MESSAGES_IN_FLIGHT: usize = 4_096 / ROWS_A_PACKET;

/// A checked row on its way to the deciding thread.
pub(super) struct Checked {
    pub ticket: Ticket,
    pub check_result: CheckResult,
}

enum WorkerMessage {
    Checked(Vec<Checked>),
    Reader(ReaderEvent),
    Failed(anyhow::Error),
}

/// Decides what becomes of the rows, in the calling thread.
pub(super) trait RowHandler {
    fn on_row(&mut self, checked: Checked) -> anyhow::Result<()>;
    fn on_reader_event(&mut self, event: ReaderEvent) -> anyhow::Result<()>;
    /// Puts the decisions on record before the run ends early: it is cancelled, or rows did not arrive.
    fn checkpoint(&mut self) -> anyhow::Result<()>;
    /// No message has come for a moment.
    fn on_idle(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
    /// The last message has come.
    fn finish(&mut self) -> anyhow::Result<()>;
}

/// What the reading thread works with.
pub(super) struct ReadTask {
    pub source: Box<dyn Source>,
    pub lookup: LedgerReader,
    pub todo: Vec<Todo>,
    pub scope: Arc<Scope>,
    pub retry: RetryPolicy,
    /// The ids that the scan has visited: the rest of the ledger is looked up by primary key afterwards.
    pub ids_in_source: Option<VisitedIds>,
}

/// How long a cancelled run waits for its reader, which may itself be waiting for the server.
const READER_EXIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Reads everything in scope, has it checked and hands it over.
pub(super) fn drive(
    handler: &mut dyn RowHandler,
    checker: Checker<'_>,
    read_task: ReadTask,
    writers: usize,
    cancel: &Cancel,
) -> anyhow::Result<()> {
    let (jobs, waiting) = bounded::<Vec<Job>>(PACKETS_IN_FLIGHT);
    let (messages, inbox) = bounded::<WorkerMessage>(MESSAGES_IN_FLIGHT);
    let (reading, result) = thread::scope(|threads| {
        let (open, closing) = bounded::<()>(0);
        start_checkers(threads, checker, writers, &waiting, &closing, &messages)?;
        let reading = {
            let messages = messages.clone();
            let read = move || read_all(read_task, jobs, &messages);
            thread::Builder::new().spawn(read).map_err(|error| no_thread(&error))?
        };
        // Drop our own channel ends; otherwise the threads never see that the others are gone.
        drop((waiting, messages));
        // Dropping the inbox ends the threads, also when a decision fails.
        let result = decide_all(handler, inbox, cancel);
        drop(open);
        anyhow::Ok((reading, result))
    })?;
    if cancel.signal().is_some() {
        // A reader that waits for the server ends with the process.
        let since = Instant::now();
        while !reading.is_finished() && since.elapsed() < READER_EXIT_TIMEOUT {
            thread::sleep(Duration::from_millis(10));
        }
        return result;
    }
    // A panic of the reader comes as a message.
    let _ = reading.join();
    result
}

/// At least one thread; of those that are asked for, as many as there are to be had.
fn start_checkers<'scope>(
    threads: &'scope thread::Scope<'scope, '_>,
    checker: Checker<'scope>,
    writers: usize,
    waiting: &Receiver<Vec<Job>>,
    closing: &Receiver<()>,
    messages: &Sender<WorkerMessage>,
) -> anyhow::Result<()> {
    let writers = checker.tree.map_or(writers, |tree| writers.min(tree.most_writers()));
    for n in 0..writers.max(1) {
        let (waiting, messages, closing) = (waiting.clone(), messages.clone(), closing.clone());
        let check = move || check_all(checker, &waiting, &closing, &messages);
        match thread::Builder::new().spawn_scoped(threads, check) {
            Err(error) if n == 0 => return Err(no_thread(&error)),
            Err(_) => break,
            Ok(_) => {}
        }
    }
    Ok(())
}

/// What a thread that could not be started means.
pub(super) fn no_thread(error: &io::Error) -> anyhow::Error {
    Refusal::NoThread { detail: error.to_string() }.into()
}

fn read_all(read_task: ReadTask, jobs: Sender<Vec<Job>>, messages: &Sender<WorkerMessage>) {
    let ReadTask { source, lookup, todo, scope, retry, ids_in_source } = read_task;
    let budget = &Budget::new(DOCUMENTS_IN_FLIGHT);
    let tell = |event| messages.send(WorkerMessage::Reader(event)).map_err(|_| anyhow!("the run has ended"));
    let ids = MetIds::new(ids_in_source);
    let outbox = Outbox::new(jobs, budget);
    let mut reader = Reader { source, lookup, outbox, tell, ids, retry, handed_over: 0 };
    if let Err(error) = panics::as_error(|| reader.read(todo, &scope).map_err(SourceError::into_error)) {
        // The receiver is gone only if the run has failed already.
        let _ = messages.send(WorkerMessage::Failed(error));
    }
}

/// Ends when there are no more jobs, or when the run has ended.
fn check_all(
    checker: Checker<'_>,
    waiting: &Receiver<Vec<Job>>,
    closing: &Receiver<()>,
    messages: &Sender<WorkerMessage>,
) {
    loop {
        let packet = select! {
            recv(waiting) -> packet => packet,
            recv(closing) -> _ => return,
        };
        let Ok(packet) = packet else { return };
        let mut checked = Vec::with_capacity(packet.len());
        let mut broken = None;
        for Job { fetched, ticket, permit } in packet {
            match panics::as_error(|| checker.check(fetched, ticket.known.as_ref(), ticket.rewrite)) {
                Ok(check_result) => checked.push(Checked { ticket, check_result }),
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
            drop(permit);
        }
        let sent = messages.send(WorkerMessage::Checked(checked));
        if sent.is_err() || broken.is_some_and(|error| messages.send(WorkerMessage::Failed(error)).is_err()) {
            return;
        }
    }
}

/// The rows that arrived, and those that the reader says it handed over. No other part of the program would miss a row
/// that got lost in between: a full run moves no watermark that shows it, and a run that moves one would step over it.
#[derive(Default)]
struct Arrivals(HashMap<Part, (u64, Option<u64>)>);

impl Arrivals {
    fn note(&mut self, message: &WorkerMessage) {
        match message {
            WorkerMessage::Checked(packet) => {
                packet.iter().for_each(|checked| self.0.entry(checked.ticket.part).or_default().0 += 1);
            }
            WorkerMessage::Reader(ReaderEvent::Read { part, rows, .. }) => {
                self.0.entry(*part).or_default().1 = Some(*rows);
            }
            WorkerMessage::Reader(_) | WorkerMessage::Failed(_) => {}
        }
    }

    /// Fails if rows of a finished part are missing.
    fn assert_complete(&self) -> anyhow::Result<()> {
        for (part, (arrived, sent)) in &self.0 {
            if let Some(sent) = sent.filter(|sent| sent != arrived) {
                bail!("{arrived} of {sent} rows of {part:?} arrived, which is a bug; please report it");
            }
        }
        Ok(())
    }
}

/// Hands each message to the handler, until the last thread has ended. Every decision is on record when this returns
/// Ok, when the run was cancelled, and when rows did not arrive. After an error of a thread or of the handler the open
/// batch is given up, and the next run decides its rows again.
fn decide_all(handler: &mut dyn RowHandler, inbox: Receiver<WorkerMessage>, cancel: &Cancel) -> anyhow::Result<()> {
    let mut arrivals = Arrivals::default();
    loop {
        if let Some(signal) = cancel.signal() {
            handler.checkpoint()?;
            return Err(Refusal::Cancelled { signal }.into());
        }
        let message = inbox.recv_timeout(CANCEL_CHECK_INTERVAL);
        if let Ok(message) = &message {
            arrivals.note(message);
        }
        match message {
            Ok(WorkerMessage::Checked(packet)) => packet.into_iter().try_for_each(|checked| handler.on_row(checked))?,
            Ok(WorkerMessage::Reader(event)) => handler.on_reader_event(event)?,
            // A cancelled run ends above, at its checkpoint, whatever its threads say.
            Ok(WorkerMessage::Failed(error)) if cancel.signal().is_none() => return Err(error),
            Ok(WorkerMessage::Failed(_)) => {}
            Err(RecvTimeoutError::Timeout) => handler.on_idle()?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Err(error) = arrivals.assert_complete() {
        handler.checkpoint()?;
        return Err(error);
    }
    handler.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoice::{InvoiceId, Reason};
    use crate::state::todo::Reject;

    /// Keeps the calls that it gets.
    #[derive(Default)]
    struct Witness(Vec<&'static str>);

    impl RowHandler for Witness {
        fn on_row(&mut self, _: Checked) -> anyhow::Result<()> {
            self.0.push("row");
            Ok(())
        }

        fn on_reader_event(&mut self, _: ReaderEvent) -> anyhow::Result<()> {
            Ok(())
        }

        fn checkpoint(&mut self) -> anyhow::Result<()> {
            self.0.push("checkpoint");
            Ok(())
        }

        fn finish(&mut self) -> anyhow::Result<()> {
            self.0.push("finish");
            Ok(())
        }
    }

    fn row() -> Checked {
        let reason = Reason::TooLarge { bytes: 1 };
        let reject = Reject { id: InvoiceId::from("1"), tenant: None, number: None, time: None, reason };
        Checked { ticket: Ticket::new(Part::Table, None), check_result: CheckResult::Reject(reject) }
    }

    fn decide(packets: Vec<Vec<Checked>>, rows: u64) -> (anyhow::Result<()>, Vec<&'static str>) {
        let (messages, inbox) = bounded(packets.len() + 1);
        // The reader may be through before the last row is checked.
        messages
            .send(WorkerMessage::Reader(ReaderEvent::Read { part: Part::Table, rows, spellings: Default::default() }))
            .unwrap();
        packets.into_iter().for_each(|packet| messages.send(WorkerMessage::Checked(packet)).unwrap());
        drop(messages);
        let mut witness = Witness::default();
        (decide_all(&mut witness, inbox, &Cancel::default()), witness.0)
    }

    #[test]
    fn a_row_that_does_not_arrive_fails_the_run_and_what_is_decided_is_kept() {
        let (result, done) = decide(vec![vec![row(), row()], vec![row()]], 3);
        result.unwrap();
        assert_eq!(done, ["row", "row", "row", "finish"]);
        let (result, done) = decide(vec![vec![row()], vec![row()]], 3);
        assert!(result.unwrap_err().to_string().starts_with("2 of 3 rows of Table arrived"));
        assert_eq!(done, ["row", "row", "checkpoint"]);
    }
}
