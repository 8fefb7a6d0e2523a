//! What is measured of a run, and what came of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Instant;

use super::decide::{Journal, Outcome as Decided};
use super::inquiry::Settings;
use super::order::Order;
use crate::effort::Effort;
use crate::event::{Event, Notice};
use crate::invoice::Tenant;
use crate::refusal::Trouble;
use crate::run::{Counts, Outcome, RunId, Summary};

/// What is measured on the way.
pub(super) struct Course {
    started: Instant,
    pub retries: Cell<u64>,
}

impl Course {
    pub(super) fn begin() -> Self {
        Self { started: Instant::now(), retries: Cell::new(0) }
    }

    /// Each retry is said, so that this counts them all.
    pub(super) fn counting<'a>(&'a self, tell: &'a mut dyn FnMut(Event)) -> impl FnMut(Event) + 'a {
        move |event| {
            let retries = u64::from(matches!(event, Event::Notice(Notice::Retrying { .. })));
            self.retries.set(self.retries.get() + retries);
            tell(event);
        }
    }
}

/// What came of reading, deciding and writing.
pub(super) struct CarriedOut {
    pub totals: Counts,
    pub failed: BTreeMap<Tenant, Trouble>,
    pub tenants: u64,
    new_rejects: u64,
    /// Invoices without a known tenant that could not be read: how many, and why.
    unread: Option<(u64, Trouble)>,
    leftovers: u64,
}

impl CarriedOut {
    pub(super) fn new(journal: Journal<'_>) -> Self {
        let tenants = journal.tenants();
        let Decided { totals, failed, new_rejects, unread, left } = journal.outcome;
        let leftovers = left.values().map(|(files, _)| files).sum();
        Self { totals: totals.run, failed, tenants, new_rejects, unread, leftovers }
    }

    pub(super) fn outcome(&self) -> Outcome {
        let is_whole = self.failed.is_empty() && self.new_rejects == 0 && self.unread.is_none();
        if is_whole { Outcome::Success } else { Outcome::Partial }
    }

    /// The error that belongs to no tenant's record.
    pub(super) fn error(&self) -> Option<String> {
        let (invoices, trouble) = self.unread.as_ref()?;
        Some(format!("invoices without a known tenant that could not be read: {invoices}: {trouble}"))
    }

    pub(super) fn summary(
        self,
        order: &Order,
        settings: &Settings,
        run: Option<RunId>,
        open_rejects: u64,
        course: &Course,
    ) -> Summary {
        Summary {
            run,
            kind: order.kind,
            outcome: self.outcome(),
            boundary: settings.boundary.clone(),
            since: order.since.clone(),
            tenants: self.tenants,
            failed_tenants: self.failed.into_iter().collect(),
            counts: self.totals,
            new_rejects: self.new_rejects,
            unread: self.unread.map_or(0, |(invoices, _)| invoices),
            leftovers: self.leftovers,
            open_rejects,
            retries: course.retries.get(),
            effort: Effort::so_far(),
            elapsed: course.started.elapsed(),
            output: order.output.clone(),
            state: order.state.clone(),
        }
    }
}
