//! Owns the events of a run while it decides, and its result so far: the counts, the tenants that it has started, and
//! those that have failed.

use std::time::Duration;

use crate::event::{Event, Notice, TenantPast};
use crate::export::check::CheckResult;
use crate::export::metrics::RunResult;
use crate::export::options::Rejects;
use crate::export::plan::Member;
use crate::export::server::RunParameters;
use crate::export::ticket::Part;
use crate::invoice::Tenant;
use crate::refusal::Trouble;
use crate::run::{KeptReason, Kind};
use crate::state::State;
use crate::state::dry_run_ledger::DryRunLedger;
use crate::state::todo::{Leftover, Reject};

const PROGRESS_EVERY: u64 = 100;

pub(in crate::export) struct Journal<'a> {
    parameters: &'a RunParameters,
    rejects: Rejects,
    pub tell: &'a mut dyn FnMut(Event),
    pub outcome: RunResult,
    /// Rows that have arrived.
    rows: u64,
    /// Those of them without a usable source time.
    timeless: u64,
}

impl<'a> Journal<'a> {
    pub(in crate::export) fn new(
        parameters: &'a RunParameters,
        rejects: Rejects,
        tell: &'a mut dyn FnMut(Event),
    ) -> Self {
        Self { parameters, rejects, tell, outcome: RunResult::default(), rows: 0, timeless: 0 }
    }

    pub(super) fn has_failed(&self, tenant: &Tenant) -> bool {
        self.outcome.failed.contains_key(tenant)
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        (self.tell)(Event::Notice(notice));
    }

    /// Says that a tenant is read, and from where on. Rows of the to-do list may have started it already.
    pub(super) fn start(&mut self, Member { tenant, watermark, number, .. }: &Member) {
        if !self.outcome.tenants.insert(tenant.clone()) {
            return;
        }
        let upto = (self.parameters.kind != Kind::Full).then(|| self.parameters.boundary.clone());
        let after = if self.parameters.since.is_some() { self.parameters.since.clone() } else { watermark.clone() };
        let past = if number.is_some() { TenantPast::Known } else { TenantPast::None };
        (self.tell)(Event::TenantStarted { tenant: tenant.clone(), past, after, upto });
    }

    /// Counts a row that has arrived. The first one of a tenant starts that tenant where no group did.
    pub(super) fn note_row(&mut self, part: Part, check_result: &CheckResult) {
        // The to-do list of an incremental run may bring rows of a tenant before its group begins.
        let starts = part != Part::Todo || self.parameters.kind == Kind::Full;
        if let Some(tenant) = check_result.tenant().filter(|tenant| starts && !self.outcome.tenants.contains(*tenant)) {
            self.start(&Member::new(tenant.clone()));
        }
        self.rows += 1;
        self.timeless += u64::from(check_result.is_timeless());
    }

    /// Counts a row that is no invoice any more.
    pub(super) fn note_gone_row(&mut self) {
        self.rows += 1;
    }

    /// Says every now and then how many rows have come.
    pub(super) fn say_progress(&mut self) {
        if self.rows.is_multiple_of(PROGRESS_EVERY) {
            (self.tell)(Event::Progress { invoices: self.rows });
        }
    }

    /// Says that an invoice cannot be exported, which was not known before.
    pub(super) fn reject(&mut self, reject: &Reject) {
        self.outcome.new_rejects += 1;
        let Reject { id, tenant, number, reason, .. } = reject.clone();
        (self.tell)(Event::Rejected { tenant, id, number, reason });
    }

    /// The tenant fails, for the first trouble; the others are exported.
    pub(super) fn fail(&mut self, tenant: &Tenant, trouble: Trouble) {
        if !self.has_failed(tenant) {
            (self.tell)(Event::TenantFailed { tenant: tenant.clone(), trouble: trouble.clone() });
            self.outcome.failed.insert(tenant.clone(), trouble);
        }
    }

    /// Invoices without a known tenant could not be read.
    pub(super) fn report_unread(&mut self, invoices: u64, trouble: Trouble) {
        if invoices > 0 {
            self.outcome.unread = Some((invoices, trouble.clone()));
            self.notice(Notice::Unread { invoices, trouble });
        }
    }

    /// Called when all rows of these tenants are decided and counted, so that those that can be exported are.
    pub(super) fn fail_if_rejected(&mut self, tenants: &[Tenant]) {
        if self.rejects == Rejects::Kept {
            return;
        }
        for tenant in tenants {
            let invoices = self.outcome.totals.of(tenant).rejected;
            if invoices > 0 {
                let kind = self.parameters.kind;
                self.fail(tenant, Trouble::Rejects { invoices, kind });
            }
        }
    }

    /// Remembers how many files stay, and one of them for each reason.
    pub(super) fn count_leftovers<'l>(&mut self, leftovers: impl Iterator<Item = &'l Leftover>) {
        for Leftover { path, why, .. } in leftovers {
            if *why != Some(KeptReason::NotRemoved) {
                self.outcome.leftovers.entry(*why).or_insert_with(|| (0, path.clone())).0 += 1;
            }
        }
    }

    /// Says what came of these tenants, unless they have failed.
    pub(super) fn say_done(&mut self, ready: Vec<Tenant>) {
        for tenant in ready {
            if !self.has_failed(&tenant) {
                let counts = self.outcome.totals.of(&tenant);
                (self.tell)(Event::TenantDone { tenant, counts });
            }
        }
    }

    /// Says at the end of a run what shows only once every row is on record: late rows, rows without a time, files that
    /// stay, and the tenants of a full run.
    pub(super) fn finish(&mut self, groups: usize) {
        let (by, overlap) = (Duration::from_secs(self.outcome.totals.run.late_by), self.parameters.overlap);
        if self.outcome.totals.run.late > 0 && by * 2 > overlap {
            self.notice(Notice::Late { by, overlap });
        }
        if self.timeless > 0 {
            self.notice(Notice::WithoutTime { invoices: self.timeless });
        }
        self.say_what_stays();
        // Otherwise each tenant was done with its group.
        if groups == 0 {
            let mut ready: Vec<Tenant> = self.outcome.tenants.iter().cloned().collect();
            ready.sort();
            self.fail_if_rejected(&ready);
            self.say_done(ready);
        }
        let others = self.outcome.totals.tenants().filter(|tenant| !self.outcome.tenants.contains(*tenant));
        self.say_done(others.cloned().collect());
    }

    /// Says what would become of each path that a dry run would touch, and notes how many rejects it would close.
    pub(super) fn say_prospects(&mut self, state: Option<&State>, dry_run_ledger: &DryRunLedger) -> anyhow::Result<()> {
        self.outcome.closed_rejects = state.map_or(Ok(0), |state| dry_run_ledger.closed_rejects(state))?;
        dry_run_ledger.prospects(|path, prospect| (self.tell)(Event::Prospect { path: path.to_string(), prospect }))
    }

    fn say_what_stays(&mut self) {
        for (why, (files, path)) in &self.outcome.leftovers {
            let (why, files, example) = (*why, *files, path.to_string());
            (self.tell)(Event::Notice(Notice::StaysInPlace { why, files, example }));
        }
        if self.outcome.leftovers.contains_key(&Some(KeptReason::Table)) && self.parameters.table.is_none() {
            self.notice(Notice::TableUnknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::decide::tests::parameters;
    use crate::run::Counts;

    #[test]
    fn a_tenant_with_rejects_fails_where_that_is_asked_for_and_is_not_said_to_be_done() {
        let (good, bad) = (Tenant::from("1"), Tenant::from("2"));
        for (rejects, expected) in [(Rejects::Kept, "done 1, done 2"), (Rejects::FailTheirTenant, "failed 2, done 1")] {
            let mut said = Vec::new();
            let mut tell = |event| match event {
                Event::TenantFailed { tenant, .. } => said.push(format!("failed {tenant}")),
                Event::TenantDone { tenant, .. } => said.push(format!("done {tenant}")),
                _ => {}
            };
            let parameters = parameters(Kind::Incremental);
            let mut journal = Journal::new(&parameters, rejects, &mut tell);
            journal.outcome.totals.add(Some(&bad), Counts { seen: 1, rejected: 1, ..Counts::default() });
            let ready = vec![good.clone(), bad.clone()];
            journal.fail_if_rejected(&ready);
            journal.say_done(ready);
            assert_eq!(said.join(", "), expected);
        }
    }

    #[test]
    fn a_tenant_fails_for_its_first_trouble_only() {
        let mut said = 0;
        let mut tell = |_| said += 1;
        let parameters = parameters(Kind::Incremental);
        let mut journal = Journal::new(&parameters, Rejects::Kept, &mut tell);
        for invoices in [1, 2] {
            journal.fail(&Tenant::from("1"), Trouble::Rejects { invoices, kind: Kind::Incremental });
        }
        let failed: Vec<_> = journal.outcome.failed.values().cloned().collect();
        assert_eq!(failed, [Trouble::Rejects { invoices: 1, kind: Kind::Incremental }]);
        assert_eq!(said, 1);
    }
}
