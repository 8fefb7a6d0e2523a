//! Owns the right to change tree and state: its holder has the lock, a stage and an open run.

use crate::lock::ExportLock;
use crate::state::State;
use crate::state::record::Record;
use crate::state::runs::OpenRun;
use crate::tree::Tree;
use crate::tree::mark::Mark;
use crate::tree::publish::{Changes, Published};
use crate::tree::stage::Stage;

/// The right to write, for one run.
pub(super) struct Writing<'a> {
    pub tree: &'a Tree,
    pub stage: &'a Stage,
    pub lock: &'a ExportLock,
    pub run: &'a OpenRun,
    /// Written before the first batch is published; None afterwards.
    pub mark: Option<Mark>,
}

impl Writing<'_> {
    /// Says in the tree that this run writes to it, once.
    pub(super) fn write_mark_once(&mut self) -> anyhow::Result<()> {
        self.mark.take().map_or(Ok(()), |mark| self.lock.write_mark(&mark))
    }

    pub(super) fn publish(&mut self, changes: Changes) -> anyhow::Result<Published> {
        if !changes.is_empty() {
            self.write_mark_once()?;
        }
        self.tree.publish(self.stage, changes)
    }

    pub(super) fn record(&self, state: &mut State, published: &Published, record: &Record) -> anyhow::Result<()> {
        state.record(self.run, published, record)?;
        self.stage.drop_list(published)
    }
}
