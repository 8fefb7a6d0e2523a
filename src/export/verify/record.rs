//! A verification on record: opened before anything is compared, and ended in whatever way the comparison ends. An
//! answer does not wait for its record: where there can be none, it says why.

use std::collections::{BTreeMap, HashMap};

use super::disk::folder_of;
use super::findings::{Findings, Place};
use super::session::is_refused;
use super::task::Task;
use crate::export::metrics::RunMetrics;
use crate::export::options::CommonOptions;
use crate::export::session::end;
use crate::export::starts;
use crate::invoice::Tenant;
use crate::lang::Message;
use crate::lock::ExportLock;
use crate::run::{LastNumbers, RunId};
use crate::state::State;
use crate::state::runs::{End, OpenRun};
use crate::state::verifications::Comparison;

/// The record of one verification.
pub(super) struct Record {
    /// None: there is none.
    pub run: Option<RunId>,
    /// Why there is none.
    pub missing: Option<anyhow::Error>,
}

impl Record {
    /// Opens it.
    ///
    /// # Errors
    /// A state that is refused answers nothing either.
    pub(super) fn begin(state: &mut State, task: &Task, lock: &ExportLock) -> anyhow::Result<Self> {
        let mut record = Self { run: None, missing: None };
        let CommonOptions { surroundings, selection, .. } = &task.common;
        let begun = state.begin_verification(&surroundings.starter, &selection.window, lock.last_numbers()?.run);
        record.run = record.kept(begun)?;
        record.run.map_or(Ok(()), |run| lock.note_numbers(LastNumbers { run: run.0, change: 0 }))?;
        Ok(record)
    }

    /// Enters what a comparison has found, or the error that ended it.
    pub(super) fn examined(
        &mut self,
        state: &mut State,
        task: &Task,
        metrics: &RunMetrics,
        examined: anyhow::Result<Findings>,
    ) -> anyhow::Result<Findings> {
        match examined {
            Ok(findings) => {
                self.enter(state, task, metrics, &findings)?;
                Ok(findings)
            }
            Err(error) => {
                self.fail(state, task, metrics, &error);
                Err(error)
            }
        }
    }

    fn enter(
        &mut self,
        state: &mut State,
        task: &Task,
        metrics: &RunMetrics,
        findings: &Findings,
    ) -> anyhow::Result<()> {
        let Some(run) = self.run else { return Ok(()) };
        let entered = comparison(state, task, findings).and_then(|found| state.record_comparison(run, &found));
        if let Err(error) = &entered {
            self.fail(state, task, metrics, error);
        }
        self.kept(entered).map(drop)
    }

    /// Ends it with an error. The operator must know this one, not what ending it may meet.
    fn fail(&mut self, state: &mut State, task: &Task, metrics: &RunMetrics, error: &anyhow::Error) {
        let text = Message::from(error).into();
        let _ = self.end(state, &end(&task.common, metrics, starts::status_after(error), Some(text)));
    }

    /// Ends it.
    pub(super) fn end(&mut self, state: &mut State, end: &End) -> anyhow::Result<()> {
        let Some(id) = self.run else { return Ok(()) };
        let ended = state.finish(OpenRun { id, table_no: None }, end);
        self.kept(ended).map(drop)
    }

    /// What was put on record; None if it could not be.
    fn kept<T>(&mut self, recorded: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        match recorded {
            Ok(kept) => Ok(Some(kept)),
            Err(error) if is_refused(&error) => Err(error),
            Err(error) => {
                *self = Self { run: None, missing: Some(error) };
                Ok(None)
            }
        }
    }
}

fn comparison<'a>(state: &State, task: &'a Task, findings: &Findings) -> anyhow::Result<Comparison<'a>> {
    let known = state.tenants()?.into_iter().map(|known| (folder_of(&known.tenant), known.tenant));
    let known: HashMap<String, Tenant> = known.collect();
    let tenant = |place: &Place| match place {
        Place::Tenant(tenant) => Some(tenant.clone()),
        Place::Folder(folder) => known.get(folder).cloned(),
        Place::Unknown => None,
    };
    let mut found = BTreeMap::new();
    let by_tenant = |by_place: &BTreeMap<Place, u64>| {
        let mut by_tenant = BTreeMap::new();
        by_place.iter().for_each(|(place, number)| *by_tenant.entry(tenant(place)).or_default() += number);
        by_tenant
    };
    for ((place, difference), number) in findings.by_place() {
        *found.entry((tenant(place), difference.as_str())).or_default() += number;
    }
    Ok(Comparison {
        against: task.against(),
        content: task.content,
        selection: &task.common.selection,
        files: findings.files,
        pending: by_tenant(findings.pending_by_place()),
        in_doubt: by_tenant(findings.in_doubt_by_place()),
        rejected: by_tenant(findings.rejected_by_place()),
        differences: findings.number(),
        found,
    })
}
