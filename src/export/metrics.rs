//! Owns what is measured of a run: its counts, its failed tenants, its retries; and makes the summary of them.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use super::options::CommonOptions;
use super::server::RunParameters;
use crate::effort::Effort;
use crate::event::{Event, Notice};
use crate::invoice::Tenant;
use crate::lang::Text;
use crate::refusal::Trouble;
use crate::run::{Counts, KeptReason, Outcome, RunId, Summary};
use crate::tree::name::TreePath;

/// What is measured on the way.
pub(super) struct RunMetrics {
    started: Instant,
    pub retries: Cell<u64>,
}

impl RunMetrics {
    pub(super) fn begin() -> Self {
        Self { started: Instant::now(), retries: Cell::new(0) }
    }

    /// Counts the retries among the events that pass: every retry is an event.
    pub(super) fn counting<'a>(&'a self, tell: &'a mut dyn FnMut(Event)) -> impl FnMut(Event) + 'a {
        move |event| {
            let retries = u64::from(matches!(event, Event::Notice(Notice::Retrying { .. })));
            self.retries.set(self.retries.get() + retries);
            tell(event);
        }
    }
}

/// The counts of everything that is on record.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub run: Counts,
    tenants: BTreeMap<Tenant, Counts>,
}

impl Totals {
    pub(super) fn add(&mut self, tenant: Option<&Tenant>, counts: Counts) {
        self.run += counts;
        if let Some(tenant) = tenant {
            *self.tenants.entry(tenant.clone()).or_default() += counts;
        }
    }

    /// The counts hold no longer: their row is decided anew.
    pub(super) fn take_back(&mut self, tenant: Option<&Tenant>, counts: Counts) {
        self.run -= counts;
        if let Some(tenant) = tenant {
            *self.tenants.entry(tenant.clone()).or_default() -= counts;
        }
    }

    /// The tenants for which anything was counted.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.iter().filter(|(_, counts)| **counts != Counts::default()).map(|(tenant, _)| tenant)
    }

    pub(super) fn of(&self, tenant: &Tenant) -> Counts {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }
}

/// What came of reading, deciding and writing so far.
#[derive(Debug, Default)]
pub(super) struct RunResult {
    pub totals: Totals,
    pub failed: BTreeMap<Tenant, Trouble>,
    /// Tenants that were looked at.
    pub tenants: HashSet<Tenant>,
    pub new_rejects: u64,
    /// Of a dry run: the open rejects that the run would close.
    pub closed_rejects: u64,
    /// Invoices without a known tenant that could not be read: how many, and why.
    pub unread: Option<(u64, Trouble)>,
    /// Files that were left though no invoice names them any more: how many, and one of them.
    pub leftovers: BTreeMap<Option<KeptReason>, (u64, TreePath)>,
}

impl RunResult {
    /// Partial if a tenant failed, or if invoices were newly rejected or not read.
    pub(super) fn outcome(&self) -> Outcome {
        let is_whole = self.failed.is_empty() && self.new_rejects == 0 && self.unread.is_none();
        if is_whole { Outcome::Success } else { Outcome::Partial }
    }

    /// How many tenants were looked at, or have something on record: the to-do list may bring rows of others.
    pub(super) fn number_of_tenants(&self) -> u64 {
        let others = self.totals.tenants().filter(|tenant| !self.tenants.contains(*tenant));
        (self.tenants.len() + others.count()) as u64
    }

    /// The error that belongs to no tenant's record.
    pub(super) fn error(&self) -> Option<Text> {
        let (invoices, trouble) = self.unread.as_ref()?;
        let trouble = Text::from(trouble.message());
        Some(text!(
            "invoices without a known tenant that could not be read: {invoices}: {trouble}",
            "有 {invoices} 条租户未知的记录无法读取: {trouble}"; trouble
        ))
    }

    /// The summary that a run ends with.
    pub(super) fn summary(
        self,
        options: &CommonOptions,
        parameters: &RunParameters,
        run: Option<RunId>,
        open_rejects: u64,
        metrics: &RunMetrics,
    ) -> Summary {
        Summary {
            run,
            kind: options.kind,
            outcome: self.outcome(),
            boundary: parameters.boundary.clone(),
            since: parameters.since.clone(),
            tenants: self.number_of_tenants(),
            failed_tenants: self.failed.into_iter().collect(),
            counts: self.totals.run,
            new_rejects: self.new_rejects,
            unread: self.unread.map_or(0, |(invoices, _)| invoices),
            leftovers: self.leftovers.values().map(|(files, _)| files).sum(),
            open_rejects,
            retries: metrics.retries.get(),
            effort: Effort::so_far(),
            elapsed: metrics.started.elapsed(),
            output: options.paths.output.clone(),
            state: options.paths.state.clone(),
        }
    }
}
