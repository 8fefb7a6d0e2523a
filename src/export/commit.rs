//! Batches on their way into tree and state. One thread syncs the documents of a batch, a second thread puts the batch
//! in place, and the deciding thread records it. Each may work on another batch. A dead run leaves two batches in doubt
//! at most, each with its list: one that is synced or being put in place, and one that is in place and not on record. A
//! batch that removes files has no other one beside it.

use std::thread::{Builder, Scope};

use anyhow::anyhow;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::check::{Checker, Presence};
use super::decide::BloomFilter;
use super::drive::no_thread;
use super::server::RunParameters;
use super::writing::Writing;
use crate::panics;
use crate::run::{Kind, RunId};
use crate::state::State;
use crate::state::dry_run_ledger::DryRunLedger;
use crate::state::ledger::LedgerReader;
use crate::state::record::Record;
use crate::tree::Tree;
use crate::tree::publish::{Changes, Published};
use crate::tree::stage::Stage;

/// Where the decisions of a run go, and what they are made against.
pub(super) enum Committer<'a> {
    Export {
        state: &'a mut State,
        writing: Writing<'a>,
        publisher: Publisher,
    },
    /// Nothing is changed. There may be no state and no tree yet; decisions are kept beside them.
    DryRun {
        state: Option<&'a State>,
        tree: Option<&'a Tree>,
        dry_run_ledger: DryRunLedger,
    },
}

impl<'a> Committer<'a> {
    pub(super) fn state(&self) -> Option<&State> {
        match self {
            Self::Export { state, .. } => Some(state),
            Self::DryRun { state, .. } => *state,
        }
    }

    pub(super) fn checker(&self, kind: Kind, max_document: u64) -> Checker<'a> {
        let (tree, stage) = match self {
            Self::Export { writing, .. } => (Some(writing.tree), Some(writing.stage)),
            Self::DryRun { tree, .. } => (*tree, None),
        };
        let presence = if kind == Kind::Incremental { Presence::Assumed } else { Presence::Checked };
        Checker { tree, stage, presence, max_document }
    }

    pub(super) fn run(&self) -> Option<RunId> {
        match self {
            Self::Export { writing, .. } => Some(writing.run.id),
            Self::DryRun { .. } => None,
        }
    }

    /// The number of the source's table, if it can be told from others. A dry run gives it none.
    pub(super) fn table_no(&self, parameters: &RunParameters) -> anyhow::Result<Option<i64>> {
        match self {
            Self::Export { writing, .. } => Ok(writing.run.table_no),
            Self::DryRun { state, .. } => state.map_or(Ok(None), |state| state.source_table(parameters.table.as_ref())),
        }
    }

    /// What the thread that reads asks the ledger with, and what the deciding one asks it with first. A ledger that was
    /// empty need not be asked for what was not entered since; beside a dry run, another run may enter more.
    pub(super) fn lookups(&self) -> anyhow::Result<(LedgerReader, Option<BloomFilter>)> {
        let lookup = self.state().map(State::lookup).transpose()?;
        Ok(match (lookup, self) {
            (Some(lookup), Self::DryRun { .. }) => (lookup, None),
            (Some(lookup), Self::Export { .. }) if !lookup.is_empty()? => (lookup, None),
            _ => (LedgerReader::nothing(), Some(BloomFilter::new())),
        })
    }

    /// Has changes published. A batch without files is done at once, and so is that of a dry run, which only
    /// looks which files it would remove.
    pub(super) fn submit(&mut self, changes: Changes) -> anyhow::Result<Publishing> {
        match self {
            Self::Export { writing, publisher, .. } if !changes.is_empty() => {
                writing.write_mark_once()?;
                Ok(publisher.submit(changes))
            }
            Self::DryRun { tree: Some(tree), .. } => tree.would_remove(&changes.removals).map(Publishing::done),
            Self::Export { .. } | Self::DryRun { tree: None, .. } => Ok(Publishing::done(Published::nothing())),
        }
    }

    /// Puts a batch on record that is published.
    pub(super) fn record(&mut self, published: &Published, record: &Record) -> anyhow::Result<()> {
        match self {
            Self::Export { state, writing, .. } => writing.record(state, published, record),
            Self::DryRun { dry_run_ledger, .. } => dry_run_ledger.record(published, record),
        }
    }

    /// Whether decisions change disk and ledger. If so, the open batch is put on record before rows are read again and
    /// before paths in doubt are cleared. A dry run changes neither: its decisions are known from its open batch and
    /// its `DryRunLedger` alone.
    pub(super) fn changes_the_tree(&self) -> bool {
        matches!(self, Self::Export { .. })
    }
}

/// The threads that publish: one waits for the disk, the other one gives files their names.
pub(super) struct Publisher {
    batches: Sender<Changes>,
    results: Receiver<anyhow::Result<Published>>,
}

impl Publisher {
    /// They end when this is dropped, or with the first batch that fails.
    pub(super) fn start<'scope>(
        threads: &'scope Scope<'scope, '_>,
        tree: &'scope Tree,
        stage: &'scope Stage,
    ) -> anyhow::Result<Self> {
        let (batches, waiting) = bounded(1);
        let (synced, in_turn) = bounded(1);
        let (done, results) = bounded(1);
        let start = |work: Box<dyn FnOnce() + Send + 'scope>| {
            Builder::new().spawn_scoped(threads, work).map_err(|error| no_thread(&error))
        };
        start(Box::new(move || run_stage(waiting.into_iter().map(Ok), synced, |changes| tree.sync(stage, changes))))?;
        start(Box::new(move || {
            run_stage(in_turn.iter(), done, |synced| tree.put_in_place(stage, synced));
            // After one that fails, nothing of the next one is in doubt.
            in_turn.into_iter().flatten().for_each(|synced| stage.withdraw_list(&synced));
        }))?;
        Ok(Self { batches, results })
    }

    /// A thread that has ended said why in the result of a batch before.
    fn submit(&self, changes: Changes) -> Publishing {
        let _ = self.batches.send(changes);
        Publishing(self.results.clone())
    }
}

/// A batch on its way into the tree. The batch before it was waited for.
pub(super) struct Publishing(Receiver<anyhow::Result<Published>>);

impl Publishing {
    pub(super) fn done(published: Published) -> Self {
        let (done, result) = bounded(1);
        let _ = done.send(Ok(published));
        Self(result)
    }

    /// Whether the result is there, a failure included.
    pub(super) fn is_done(&self) -> bool {
        !self.0.is_empty()
    }

    /// # Errors
    /// The batch could not be published, or a publishing thread has ended.
    pub(super) fn wait(self) -> anyhow::Result<Published> {
        self.0.recv().unwrap_or_else(|_| Err(anyhow!("a publishing thread has ended, which is a bug")))
    }
}

/// Takes a step with one batch after the other. After one that fails nothing may be published.
fn run_stage<T, U>(
    batches: impl Iterator<Item = anyhow::Result<T>>,
    next: Sender<anyhow::Result<U>>,
    step: impl Fn(T) -> anyhow::Result<U>,
) {
    for batch in batches {
        let result = batch.and_then(|batch| panics::as_error(|| step(batch)));
        let failed = result.is_err();
        // The receiver is gone only if the run has failed already.
        if next.send(result).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_batch_that_fails_or_panics_no_other_one_goes_further() {
        for fails in [|| Err(anyhow!("the disk is full")), || panic!("a bug")] {
            let (next, results) = bounded(9);
            let step = |n| if n == 2 { fails() } else { Ok(n) };
            run_stage([Ok(1), Ok(2), Ok(3)].into_iter(), next, step);
            let (next, arrived) = bounded(9);
            run_stage(results.into_iter().chain([Ok(4)]), next, Ok);
            let arrived: Vec<_> = arrived.into_iter().map(Result::ok).collect();
            assert_eq!(arrived, [Some(1), None]);
        }
    }
}
