//! The threads of a run: one reads, some check, the calling one decides. When one of them fails the
//! channels close and the others end.

use std::thread;

use anyhow::anyhow;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::budget::Budget;
use super::check::Desk;
use super::diff::{Job, Reader, Scope, Told};
use super::patience::Patience;
use super::pipeline::{Checked, Clerk};
use super::plan::Group;
use crate::source::Source;
use crate::state::ledger::Lookup;
use crate::state::todo::Todo;

/// Bytes of documents between reading and staging.
const DOCUMENTS_IN_FLIGHT: usize = 16 << 20;
/// Rows waiting to be checked.
const JOBS_IN_FLIGHT: usize = 512;
/// Decisions waiting to be made, each some hundred bytes: room to go on staging while a batch is
/// published.
const MESSAGES_IN_FLIGHT: usize = 8_192;

#[expect(clippy::large_enum_variant, reason = "most messages are of the large kind, and a box for each is dearer")]
enum Message {
    Checked(Checked),
    Told(Told),
    Broken(anyhow::Error),
}

impl Scope {
    pub(super) fn groups(&self) -> &[Group] {
        match self {
            Self::Table => &[],
            Self::Groups { groups, .. } => groups,
        }
    }
}

/// Reads everything in scope and carries out what the clerk decides.
pub(super) fn drive(
    clerk: &mut Clerk<'_>,
    source: Box<dyn Source>,
    lookup: Lookup,
    todo: Vec<Todo>,
    scope: &Scope,
    writers: usize,
    patience: Patience,
) -> anyhow::Result<()> {
    let budget = Budget::new(DOCUMENTS_IN_FLIGHT);
    let (jobs, waiting) = bounded::<Job>(JOBS_IN_FLIGHT);
    let (messages, inbox) = bounded::<Message>(MESSAGES_IN_FLIGHT);
    let desk = clerk.desk;
    thread::scope(|threads| {
        for _ in 0..writers.max(1) {
            let (waiting, messages) = (waiting.clone(), messages.clone());
            threads.spawn(move || check_all(desk, &waiting, &messages));
        }
        // Ours would keep the reader waiting for writers that are gone.
        drop(waiting);
        let budget = &budget;
        threads.spawn(move || {
            let tell = |told| messages.send(Message::Told(told)).map_err(|_| anyhow!("the run has ended"));
            let mut reader = Reader { source, lookup, jobs, tell, budget, visited: Default::default(), patience };
            if let Err(fault) = reader.read(todo, scope) {
                // Nobody listens only if the run has failed already.
                let _ = messages.send(Message::Broken(fault.into_error()));
            }
        });
        // Dropping the inbox ends the threads, also when a decision fails.
        decide_all(clerk, inbox)
    })
}

fn check_all(desk: Desk<'_>, waiting: &Receiver<Job>, messages: &Sender<Message>) {
    for Job { part, fetched, known, trust, late, permit } in waiting {
        let message = match desk.check(fetched, known.as_ref(), trust) {
            Ok(verdict) => Message::Checked(Checked { part, late, verdict }),
            Err(error) => Message::Broken(error),
        };
        drop(permit);
        if messages.send(message).is_err() {
            return;
        }
    }
}

fn decide_all(clerk: &mut Clerk<'_>, inbox: Receiver<Message>) -> anyhow::Result<()> {
    for message in inbox {
        match message {
            Message::Checked(checked) => clerk.take(checked)?,
            Message::Told(told) => clerk.hear(told)?,
            Message::Broken(error) => return Err(error),
        }
    }
    clerk.close()?;
    clerk.say_farewell();
    Ok(())
}
