//! Attaches a state to its tree: judges whether they belong to each other, makes a state where that is harmless, and
//! marks the tree.

use std::path::Path;

use super::plan::{self, Purpose, SiteFacts, StartMode, StatePolicy, TreeUse};
use crate::event::{Event, Notice};
use crate::lock::ExportLock;
use crate::state::runs::LastKnownState;
use crate::state::{State, numbers, open};
use crate::tree::mark::{self, Mark, Written};
use crate::tree::{Tree, walk};

/// Where a tree and its state are, and the purpose that they are opened for.
#[derive(Clone, Copy, Debug)]
pub struct Location<'a> {
    pub output: &'a Path,
    /// The state's file.
    pub state: &'a Path,
    pub policy: StatePolicy,
    pub purpose: Purpose,
}

/// A state that belongs to its tree.
pub struct Attached {
    pub state: State,
    pub begun: StartMode,
    /// The last number that a run got, in this state or in one before it.
    pub last_number: i64,
}

impl Location<'_> {
    pub fn judge(&self, last: Option<&LastKnownState>, mark: Option<&Mark>) -> anyhow::Result<StartMode> {
        let known = last.is_some_and(|last| last.published_run > 0);
        // Looking for files costs a walk, which only matters where the state knows of none.
        let tree = if !known && walk::has_files(self.output)? { TreeUse::HasFiles } else { TreeUse::Empty };
        let found = SiteFacts { output: self.output, state: self.state, last, mark, tree };
        Ok(plan::start_mode(&found, self.purpose, self.policy)?)
    }

    /// Opens the state only to be read, and judges whether it belongs to the tree. There may be none yet, and with
    /// `--fresh` none counts.
    pub fn open_read_only(&self) -> anyhow::Result<Option<(State, LastKnownState, StartMode)>> {
        let state = if self.policy == StatePolicy::Fresh { None } else { State::open_read_only(self.state)? };
        let last = state.as_ref().map(State::last_time).transpose()?;
        let begun = self.judge(last.as_ref(), mark::of_output(self.output)?.as_ref())?;
        Ok(state.zip(last).map(|(state, last)| (state, last, begun)))
    }

    /// Opens the state, or makes one where that is harmless, and marks the tree as its own.
    pub fn attach(&self, tree: &Tree, lock: &ExportLock, tell: &mut dyn FnMut(Event)) -> anyhow::Result<Attached> {
        if self.policy == StatePolicy::Fresh
            && let Some(to) = open::set_aside(lock)?
        {
            tell(Event::Notice(Notice::SetAside { to }));
        }
        let state = State::open(lock)?;
        let last = state.as_ref().map(State::last_time).transpose()?;
        let mark = lock.mark()?;
        let marked_run = mark.as_ref().map_or(0, |mark| mark.run);
        let begun = self.judge(last.as_ref(), mark.as_ref())?;
        if begun == StartMode::TakeOver {
            tell(Event::Notice(Notice::TakingOver { output: self.output.to_path_buf() }));
        }
        let state = state.map_or_else(|| State::create(lock), Ok)?;
        if matches!(begun, StartMode::New | StartMode::TakeOver) {
            mark::refuse_folded_names(lock.private(), tree.output())?;
            let state_id = state.last_time()?.state_id;
            lock.write_mark(&Mark { state_id, run: marked_run, written: Written::Whole })?;
        }
        if last.is_none_or(|last| last.last_run == 0) {
            lock.note_numbers(numbers::beside(lock.state())?)?;
        }
        Ok(Attached { state, begun, last_number: lock.last_numbers()?.run })
    }
}
