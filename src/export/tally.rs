//! Each row is counted once, as what came of it last. A row that was decided may lose its path to one that the run
//! reads later; it is read again then, as a rival, and what was counted of it before is taken back.

use std::collections::HashMap;

use super::check::{Candidate, Verdict};
use super::diff::Part;
use super::pipeline::{Clerk, tenant_of};
use super::plan::Reading;
use crate::invoice::{InvoiceId, SourceTime, Tenant};
use crate::run::{Counts, Kind};
use crate::state::ledger::Entry;

/// Rivals remembered, so that a row that comes again is not counted again; more are counted twice.
const RIVALS_AT_MOST: usize = 100_000;

/// Rivals of earlier runs that were decided. The reader has brought them before, will yet bring them, or reads them not
/// at all: none of that is on record of a row about which nothing had to be recorded.
#[derive(Default)]
pub(super) struct Tally(HashMap<InvoiceId, Option<Double>>);

/// The part of the run that brings a rival, and the tenant for which it then counts as unchanged.
struct Double {
    part: Part,
    tenant: Tenant,
}

impl Tally {
    /// Whether a row that comes now was decided as a rival.
    pub(super) fn comes_again(&mut self, id: &InvoiceId) -> bool {
        self.0.remove(id).is_some()
    }
}

impl Clerk<'_> {
    /// Counts a rival that is decided. `entry` is what the ledger said of it.
    pub(super) fn count_rival(
        &mut self,
        id: &InvoiceId,
        verdict: Option<&Verdict>,
        entry: Option<&Entry>,
    ) -> anyhow::Result<()> {
        let counted = match (&self.state, &self.writing) {
            (Some(state), Some(writing)) => state.counted(writing.run.id, id)?,
            _ => self.rehearsed(id)?.map(|rehearsed| (rehearsed.tenant, rehearsed.counted)),
        };
        if let Some((tenant, counts)) = counted.filter(|(_, counts)| counts.seen > 0) {
            self.take_back(tenant.as_ref(), counts);
        } else if self.tally.0.len() < RIVALS_AT_MOST {
            let double = verdict.zip(entry).and_then(|(verdict, entry)| {
                Some(Double { part: self.part_of(verdict, entry)?, tenant: entry.tenant.clone() })
            });
            self.tally.0.insert(id.clone(), double);
        }
        // As what comes of it is counted: a row that is there may have no tenant any more.
        let tenant = verdict.map_or(entry.map(|entry| &entry.tenant), tenant_of);
        self.count(tenant, |counts| counts.seen += 1);
        Ok(())
    }

    fn take_back(&mut self, tenant: Option<&Tenant>, counted: Counts) {
        self.outcome.totals -= counted;
        if let Some(tenant) = tenant {
            *self.outcome.tenants.entry(tenant.clone()).or_default() -= counted;
            *self.batch.taken_back.entry(tenant.clone()).or_default() += counted;
        }
    }

    /// Rivals that these parts should have brought, and have not since: they came before, and were unchanged then.
    pub(super) fn take_back_doubles(&mut self, parts: impl Fn(Part) -> bool) {
        let is_double = |_: &InvoiceId, double: &mut Option<Double>| double.as_ref().is_some_and(|d| parts(d.part));
        let doubles: Vec<Double> = self.tally.0.extract_if(is_double).filter_map(|(_, double)| double).collect();
        for Double { tenant, .. } in doubles {
            let unchanged = self.outcome.tenants.get(&tenant).map_or(0, |counts| counts.unchanged);
            if unchanged > 0 {
                self.take_back(Some(&tenant), Counts { seen: 1, unchanged: 1, ..Counts::default() });
            }
        }
    }

    /// The part of the run that reads this row, which the ledger knows from an earlier run.
    fn part_of(&self, verdict: &Verdict, entry: &Entry) -> Option<Part> {
        if self.retried.contains_key(&entry.id) {
            return Some(Part::Todo);
        }
        if self.groups.is_empty() {
            return (self.settings.kind == Kind::Full).then_some(Part::Table);
        }
        let time = match verdict {
            Verdict::Candidate(Candidate { invoice, .. }) | Verdict::Trouble { invoice, .. } => invoice.time.as_ref(),
            Verdict::Reject(reject) => reject.time.as_ref().or(entry.time.as_ref()),
        };
        let is_seen = entry.settled && entry.time.as_ref() == time;
        if self.settings.kind == Kind::Incremental && is_seen {
            return None;
        }
        let tenant = tenant_of(verdict)?;
        let is_read = |reading: &Reading| match reading {
            Reading::Keys(span) => {
                let after = |after: &SourceTime| time.is_some_and(|time| time > after);
                let upto = |upto: &SourceTime| time.is_none_or(|time| time <= upto);
                span.after.as_ref().is_none_or(after) && span.upto.as_ref().is_none_or(upto)
            }
            Reading::Nothing => false,
        };
        let group = self
            .groups
            .iter()
            .position(|group| group.members.iter().any(|member| member.tenant == *tenant) && is_read(&group.reading));
        group.map(Part::Group)
    }
}
