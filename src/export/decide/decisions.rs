//! What becomes of one row: it gets its path, is rejected, or is gone. What was decided of it before is overruled, and
//! the file that it leaves behind is removed or listed.

use std::collections::{BTreeMap, HashMap};

use super::batch::Batch;
use super::journal::Journal;
use super::ledger_view::{LedgerView, PathOwners};
use super::tally::{Counted, Tally};
use crate::event::Notice;
use crate::export::check::{Before, Candidate, CheckResult, Checker, FileState};
use crate::export::server::RunParameters;
use crate::export::ticket::Part;
use crate::invoice::{Invoice, InvoiceId, Tenant};
use crate::refusal::Trouble;
use crate::run::{Counts, KeptReason};
use crate::state::ledger::Entry;
use crate::state::origin::Origin;
use crate::state::todo::{DoubtedPath, Leftover, Reject, TodoReason};
use crate::tree::name::TreePath;
use crate::tree::publish::{Failure, NotRemoved, NotRemovedReason, Placement, Published};

pub(in crate::export) struct Decisions<'a> {
    pub parameters: &'a RunParameters,
    pub checker: Checker<'a>,
    pub view: LedgerView<'a>,
    pub journal: Journal<'a>,
    pub tally: Tally<'a>,
    /// The paths at which a dead run may have written, until everything in doubt was read again.
    pub doubted: BTreeMap<TreePath, DoubtedPath>,
    /// The number of the source's table; None: it cannot be told from others.
    pub table_no: Option<i64>,
    /// The ids on the to-do list, which leave it when they are exported though nothing changed.
    pub retried: HashMap<InvoiceId, TodoReason>,
    /// Whether this run has given out any path: until then what the reader knew of the ledger holds.
    pub has_entered: bool,
}

/// What was known of a row before it was read again as a rival.
#[derive(Default)]
pub(super) struct Rival {
    pub entry: Option<Entry>,
    counted: Option<Counted>,
    /// The open batch decides it, and counts it as what it comes to in the end. Only of a dry run, which records no
    /// batch before rivals are read.
    is_in_batch: bool,
}

impl Decisions<'_> {
    /// Whether the file of an invoice is as right as it was when its row was checked: what was decided
    /// since may have changed it.
    pub(super) fn still_holds(&self, candidate: &Candidate, known: Option<&Entry>) -> anyhow::Result<bool> {
        if !candidate.has_right_file() {
            return Ok(true);
        }
        let file_of = |entry: &Entry| (entry.path.clone(), entry.digest);
        if self.view.entry(&candidate.invoice.id)?.as_ref().map(file_of) != known.map(file_of) {
            return Ok(false);
        }
        match self.checker.tree {
            Some(tree) if self.journal.outcome.totals.run.removed > 0 => {
                Ok(tree.has_file(&candidate.path, candidate.size)?)
            }
            _ => Ok(true),
        }
    }

    /// Gives a candidate its path. Rows of a tenant that has failed are left to the next run. `known` is what the ledger
    /// said when the row was read.
    pub(super) fn accept(
        &mut self,
        candidate: Candidate,
        known: Option<Entry>,
        owners: &PathOwners,
    ) -> anyhow::Result<()> {
        if self.journal.has_failed(&candidate.invoice.tenant) {
            self.discard(&candidate);
            return Ok(());
        }
        let before = if self.has_entered { self.view.entry(&candidate.invoice.id)? } else { known };
        let entry = self.entry_of(&candidate, before.as_ref());
        let origin = self.origin(&candidate, before.as_ref(), owners)?;
        let Candidate { invoice, path, digest, size, file } = candidate;
        if let Some(before) = &before
            && before.path != path
        {
            self.supersede(before, &path, &invoice)?;
        }
        let is_same = origin == Origin::Kept && before.as_ref() == Some(&entry);
        if is_same && !self.retried.contains_key(&entry.id) {
            self.view.batch.count(Some(&invoice.tenant), |counts| *counts += Origin::Kept.counts(size));
            return Ok(());
        }
        if origin == Origin::Kept {
            self.tally.note_kept(&entry.id);
        }
        self.has_entered |= origin != Origin::Kept;
        self.view.note_entered(&entry);
        self.view.batch.enter(entry, origin);
        if let FileState::Staged(Some(staged), _) = file {
            let placement = Placement { id: invoice.id, tenant: invoice.tenant, path, digest, staged };
            let replaced = self.view.batch.place(placement, size);
            replaced.iter().for_each(|replaced| self.checker.discard(replaced));
        }
        Ok(())
    }

    /// How the invoice gets its file. What this run has written or removed at the path is no state of before the run.
    fn origin(&mut self, candidate: &Candidate, before: Option<&Entry>, owners: &PathOwners) -> anyhow::Result<Origin> {
        let Candidate { invoice: Invoice { id, .. }, path, digest, file, .. } = candidate;
        let is_over = match (owners.written_as(), file) {
            (Some(origin), _) => origin.is_over(),
            (None, FileState::Unchanged) => return Ok(Origin::Kept),
            (None, FileState::Adopted) if owners.share(id, *digest) => return Ok(Origin::Shared),
            (None, FileState::Adopted) => return Ok(Origin::TakenOver),
            (None, FileState::Staged(..)) if self.was_removed(path)? => {
                self.view.batch.refill(path.clone());
                true
            }
            (None, FileState::Staged(_, before)) => *before == Before::AFile,
        };
        let recorded = if self.view.is_overruled(id) { self.view.recorded(id)? } else { before.cloned() };
        let has_moved = recorded.is_some_and(|entry| entry.path != *path);
        Ok(Origin::written(has_moved, is_over))
    }

    /// Whether an earlier batch of this run has removed the file that was at a path.
    fn was_removed(&self, path: &TreePath) -> anyhow::Result<bool> {
        Ok(self.journal.outcome.totals.run.removed > 0 && self.view.has_removed(path)?)
    }

    fn entry_of(&self, candidate: &Candidate, before: Option<&Entry>) -> Entry {
        let Candidate { invoice, path, digest, size, .. } = candidate;
        let settled = invoice.time.as_ref().is_some_and(|time| *time < self.parameters.settled_below);
        Entry {
            id: invoice.id.clone(),
            tenant: invoice.tenant.clone(),
            time: invoice.time.clone(),
            path: path.clone(),
            digest: *digest,
            size: *size,
            settled,
            recheck: false,
            table_no: self.table_no_of(path, *digest, before),
        }
    }

    /// The invoice cannot be exported. It is said once, when it is news.
    pub(super) fn reject(&mut self, reject: Reject) -> anyhow::Result<()> {
        if !self.view.is_rejected(&reject.id)? {
            self.journal.reject(&reject);
        }
        self.view.batch.reject(reject);
        Ok(())
    }

    /// The row is no invoice any more; its tenant is known as far as the to-do list or the ledger knows it.
    pub(super) fn record_gone(&mut self, id: InvoiceId, tenant: Option<&Tenant>) {
        self.tally.note_gone(&id, tenant);
        self.view.batch.record_gone(id, tenant.cloned());
    }

    /// Removes the staged document of a candidate that is not accepted.
    pub(super) fn discard(&self, candidate: &Candidate) {
        if let FileState::Staged(Some(staged), _) = &candidate.file {
            self.checker.discard(staged);
        }
    }

    /// What is known of a rival that was read again.
    pub(super) fn take_rival(&mut self, id: &InvoiceId) -> anyhow::Result<Rival> {
        let entry = self.view.entry(id)?;
        let kept = self.tally.take_kept(id).then_some(entry.as_ref()).flatten();
        let kept = kept.map(|entry| (Some(entry.tenant.clone()), Origin::Kept.counts(entry.size)));
        let counted = self.view.counted(id)?.or_else(|| self.tally.take_gone_count(id)).or(kept);
        Ok(Rival { entry, counted, is_in_batch: self.view.batch.decides(id) })
    }

    /// Sees to it that a rival which is about to be decided counts once.
    pub(super) fn recount(&mut self, id: &InvoiceId, check_result: Option<&CheckResult>, rival: &Rival) {
        match &rival.counted {
            _ if rival.is_in_batch => {}
            Some((tenant, counts)) => self.view.batch.take_back(tenant.clone(), *counts),
            None => self.tally.note_rival(id, check_result, rival.entry.as_ref(), &self.retried),
        }
    }

    /// Rivals that this part should have brought, and has not since: they came before, and were unchanged then.
    pub(super) fn take_back_doubles(&mut self, part: Part) {
        for tenant in self.tally.take_missing_rivals(part) {
            self.view.batch.take_back(Some(tenant), Counts { seen: 1, unchanged: 1, ..Counts::default() });
        }
    }

    /// Completes a batch with what publishing found out, and counts it: from here on it is only recorded.
    pub(super) fn close(&mut self, batch: &mut Batch, published: &Published) -> anyhow::Result<()> {
        self.note_published(batch, published)?;
        let totals = &mut self.journal.outcome.totals;
        batch.close(totals);
        self.journal.fail_if_rejected(&batch.ready);
        batch.record.advances.retain(|advance| !self.journal.has_failed(&advance.tenant));
        for advance in &mut batch.record.advances {
            advance.written = self.journal.outcome.totals.of(&advance.tenant).written;
        }
        self.journal.count_leftovers(batch.record.leftovers.values());
        Ok(())
    }

    /// Removed files, files that are not ours, tenants that are blocked.
    fn note_published(&mut self, batch: &mut Batch, published: &Published) -> anyhow::Result<()> {
        let mut dropped = Vec::new();
        for Failure { tenant, path, trouble } in published.failed() {
            dropped.extend(batch.drop_failed(path));
            for owner in self.view.recorded_owners(path)? {
                batch.cancel_displacement(&owner.id);
            }
            self.journal.fail(tenant, trouble.clone());
        }
        for id in dropped {
            self.keep_old_file(batch, &id)?;
            self.displace_if_taken(batch, &id)?;
        }
        for id in published.movers() {
            let tenant = batch.entry(id).map(|entry| entry.tenant.clone());
            batch.count(tenant.as_ref(), |counts| counts.removed += 1);
        }
        for left in published.not_removed() {
            self.note_not_removed(batch, left);
        }
        if let Some((folder, detail)) = published.ungiven() {
            self.journal.notice(Notice::NotShared { folder: folder.to_owned(), detail: detail.to_owned() });
        }
        for (path, detail) in published.in_doubt() {
            batch.keep_in_doubt(path);
            self.journal.notice(Notice::NotRemoved { path: path.to_string(), detail: detail.clone() });
        }
        Ok(())
    }

    /// A superseded file could not be removed, or is not what this program wrote: it is listed for `verify --prune`. A
    /// folder that is stuck fails its tenant alone. The invoice is on record at its new path either way.
    fn note_not_removed(&mut self, batch: &mut Batch, left: &NotRemoved) {
        let path = left.path.to_string();
        match &left.why {
            NotRemovedReason::Foreign => self.journal.notice(Notice::LeftInPlace { path }),
            NotRemovedReason::Stuck(detail) => {
                if let Some(entry) = batch.entry(&left.id) {
                    self.journal.fail(&entry.tenant, Trouble::NotRemoved { path, detail: detail.clone() });
                }
            }
        }
        let (path, id, why) = (left.path.clone(), left.id.clone(), Some(KeptReason::NotRemoved));
        batch.add_leftover(Leftover { path, id, digest: left.digest, why });
    }

    /// An invoice that did not get to its new path keeps the old one. If it moves on in the next batch, that one
    /// leaves the file behind.
    fn keep_old_file(&mut self, batch: &mut Batch, id: &InvoiceId) -> anyhow::Result<()> {
        let Some(before) = self.view.recorded(id)? else { return Ok(()) };
        let leftover = batch.keep_file(&before.path);
        if !self.view.batch.overrules(id) {
            self.view.batch.keep_file(&before.path);
        } else if let Some(leftover) = leftover {
            self.view.batch.add_leftover(leftover);
        }
        Ok(())
    }

    /// An invoice that did not get to its new path may have lost the old one meanwhile.
    fn displace_if_taken(&mut self, batch: &mut Batch, id: &InvoiceId) -> anyhow::Result<()> {
        if self.view.batch.overrules(id) {
            return Ok(());
        }
        let Some(before) = self.view.entry(id)? else { return Ok(()) };
        for batch in [batch, &mut self.view.batch] {
            if batch.takers(&before).next().is_some() {
                batch.displace(id);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::export::check::Presence;
    use crate::export::commit::Committer;
    use crate::export::decide::tests::parameters;
    use crate::export::options::Rejects;
    use crate::invoice::{Digest, SourceTime};
    use crate::run::Kind;
    use crate::state::dry_run_ledger::DryRunLedger;

    fn decisions<'a>(parameters: &'a RunParameters, tell: &'a mut dyn FnMut(Event)) -> Decisions<'a> {
        let dry_run_ledger = DryRunLedger::new().unwrap();
        Decisions {
            parameters,
            checker: Checker { tree: None, stage: None, presence: Presence::Checked, max_document: 9 },
            view: LedgerView::new(Committer::DryRun { state: None, tree: None, dry_run_ledger }, None),
            journal: Journal::new(parameters, Rejects::Kept, tell),
            tally: Tally::new(Kind::Full, &[]),
            doubted: BTreeMap::new(),
            table_no: None,
            retried: HashMap::new(),
            has_entered: false,
        }
    }

    fn candidate(country: &str, file: FileState) -> Candidate {
        let invoice = Invoice {
            id: InvoiceId::from("1"),
            tenant: Tenant::from("1"),
            country: Some(country.to_owned()),
            date: "20251128".to_owned(),
            number: "A".to_owned(),
            time: Some(SourceTime::from("2025-11-28 10:00:00")),
        };
        let path = TreePath::of(&invoice.tenant, Some(country), &invoice.date, &invoice.number);
        Candidate { invoice, path, digest: Digest([1; 32]), size: 2, file }
    }

    /// What the open batch comes to.
    fn closed(decisions: &mut Decisions<'_>) -> Counts {
        let mut batch = std::mem::take(&mut decisions.view.batch);
        decisions.close(&mut batch, &Published::nothing()).unwrap();
        batch.record.totals
    }

    #[test]
    fn an_invoice_that_is_as_the_ledger_says_counts_and_changes_nothing() {
        let (parameters, mut tell) = (parameters(Kind::Full), |_| {});
        let mut decisions = decisions(&parameters, &mut tell);
        let known = decisions.entry_of(&candidate("CN", FileState::Unchanged), None);
        assert!(known.settled);
        decisions.accept(candidate("CN", FileState::Unchanged), Some(known.clone()), &PathOwners::default()).unwrap();
        assert!(!decisions.view.batch.decides(&known.id) && !decisions.has_entered);
        // One on the to-do list leaves it.
        decisions.retried.insert(known.id.clone(), TodoReason::Reject);
        decisions.accept(candidate("CN", FileState::Unchanged), Some(known.clone()), &PathOwners::default()).unwrap();
        assert!(decisions.view.batch.decides(&known.id));
        assert_eq!(closed(&mut decisions), Counts { seen: 2, unchanged: 2, ..Counts::default() });
    }

    #[test]
    fn nothing_is_accepted_of_a_tenant_that_has_failed() {
        let (parameters, mut tell) = (parameters(Kind::Full), |_| {});
        let mut decisions = decisions(&parameters, &mut tell);
        decisions.journal.fail(&Tenant::from("1"), Trouble::Rejects { invoices: 1, kind: Kind::Incremental });
        decisions
            .accept(candidate("CN", FileState::Staged(None, Before::Nothing)), None, &PathOwners::default())
            .unwrap();
        assert_eq!(closed(&mut decisions), Counts::default());
    }

    #[test]
    fn a_row_that_is_decided_anew_as_a_rival_counts_once() {
        let (parameters, mut tell) = (parameters(Kind::Full), |_| {});
        let mut decisions = decisions(&parameters, &mut tell);
        let id = InvoiceId::from("1");
        decisions.record_gone(id.clone(), Some(&Tenant::from("1")));
        assert_eq!(closed(&mut decisions), Counts { seen: 1, gone: 1, ..Counts::default() });
        let rival = decisions.take_rival(&id).unwrap();
        decisions.recount(&id, None, &rival);
        decisions
            .accept(candidate("CN", FileState::Staged(None, Before::Nothing)), None, &PathOwners::default())
            .unwrap();
        // In the batch that is open it counts as what it comes to in the end.
        let rival = decisions.take_rival(&id).unwrap();
        decisions.recount(&id, None, &rival);
        decisions
            .accept(candidate("DE", FileState::Staged(None, Before::Nothing)), None, &PathOwners::default())
            .unwrap();
        assert_eq!(closed(&mut decisions), Counts { seen: 1, written: 1, new: 1, bytes: 2, ..Counts::default() });
    }
}
