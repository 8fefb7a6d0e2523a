//! Owns the view of invoices and paths as decided so far, over three layers: the ledger, the batch in flight, and the
//! open batch. Each overrules the one before. In a dry run what it decided (`DryRunLedger`) overrules the ledger.

use std::hash::Hash;
use std::iter;

use super::batch::Batch;
use super::bloom::BloomFilter;
use super::tally::Counted;
use crate::export::commit::{Committer, Publishing};
use crate::invoice::{Digest, InvoiceId};
use crate::state::dry_run_ledger::DryRunInvoice;
use crate::state::ledger::{Entry, Owner};
use crate::state::origin::Origin;
use crate::tree::name::TreePath;

pub(in crate::export) struct LedgerView<'a> {
    pub committer: Committer<'a>,
    /// The ids and paths that this run has entered; None unless the ledger was empty when it began.
    entered: Option<BloomFilter>,
    pub batch: Batch,
    pub(super) in_flight: Option<InFlight>,
}

/// A batch that is being published.
pub(super) struct InFlight {
    pub batch: Batch,
    pub publishing: Publishing,
}

/// The invoices of a path, as far as recorded and decided.
#[derive(Default)]
pub(in crate::export) struct PathOwners {
    now: Vec<Owner>,
    /// Those that a later decision gives another path, or none.
    before: Vec<Owner>,
}

impl PathOwners {
    fn put(&mut self, is_overruled: bool, owner: Owner) {
        if is_overruled { self.before.push(owner) } else { self.now.push(owner) }
    }

    /// Other invoices that name the path with other content.
    pub(super) fn rivals(&self, id: &InvoiceId, digest: Digest) -> Vec<InvoiceId> {
        let rivals = self.now.iter().filter(|owner| owner.id != *id && owner.digest != digest);
        rivals.map(|owner| owner.id.clone()).collect()
    }

    /// How this run came to write the file that is there, if it did.
    pub(super) fn written_as(&self) -> Option<Origin> {
        let origins = self.now.iter().chain(&self.before).filter_map(|owner| owner.origin);
        origins.into_iter().find(|origin| origin.is_written())
    }

    /// Whether another invoice has the document.
    pub(super) fn share(&self, id: &InvoiceId, digest: Digest) -> bool {
        self.now.iter().any(|owner| owner.id != *id && owner.digest == digest)
    }
}

impl<'a> LedgerView<'a> {
    pub(in crate::export) fn new(committer: Committer<'a>, entered: Option<BloomFilter>) -> Self {
        Self { committer, entered, batch: Batch::default(), in_flight: None }
    }

    /// The entry of an invoice as decided so far; None if it has no file, or lost its path.
    pub(super) fn entry(&self, id: &InvoiceId) -> anyhow::Result<Option<Entry>> {
        match self.unrecorded().find(|batch| batch.overrules(id)) {
            Some(batch) => Ok(batch.entry(id).cloned()),
            None if self.is_new(id) => Ok(None),
            None => match self.decided(id)?.filter(|decided| decided.overrules) {
                Some(decided) => Ok(decided.entry),
                None => self.recorded(id),
            },
        }
    }

    /// What the ledger itself says of an invoice.
    pub(super) fn recorded(&self, id: &InvoiceId) -> anyhow::Result<Option<Entry>> {
        self.committer.state().map_or(Ok(None), |state| state.entry(id))
    }

    fn decided(&self, id: &InvoiceId) -> anyhow::Result<Option<DryRunInvoice>> {
        match &self.committer {
            Committer::DryRun { dry_run_ledger, .. } => dry_run_ledger.of(id),
            Committer::Export { .. } => Ok(None),
        }
    }

    fn batch_in_flight(&self) -> Option<&Batch> {
        self.in_flight.as_ref().map(|in_flight| &in_flight.batch)
    }

    /// The batches that the ledger does not know of, the latest first.
    fn unrecorded(&self) -> impl Iterator<Item = &Batch> {
        iter::once(&self.batch).chain(self.batch_in_flight())
    }

    /// Whether what the ledger says of an invoice no longer holds.
    pub(super) fn is_overruled(&self, id: &InvoiceId) -> bool {
        self.unrecorded().any(|batch| batch.overrules(id))
    }

    /// Whether the ledger surely knows nothing of an id or a path.
    fn is_new(&self, key: &impl Hash) -> bool {
        self.entered.as_ref().is_some_and(|entered| !entered.may_contain(key))
    }

    /// An invoice gets an entry with the open batch.
    pub(super) fn note_entered(&mut self, entry: &Entry) {
        if let Some(entered) = &mut self.entered {
            entered.insert(&entry.id);
            entered.insert(&entry.path);
        }
    }

    /// The invoices that the ledger has at a path.
    pub(super) fn recorded_owners(&self, path: &TreePath) -> anyhow::Result<Vec<Owner>> {
        if self.is_new(path) {
            return Ok(Vec::new());
        }
        let run = self.committer.run();
        let owners = self.committer.state().map_or(Ok(Vec::new()), |state| state.owners(path, run))?;
        let Committer::DryRun { dry_run_ledger, .. } = &self.committer else { return Ok(owners) };
        let mut still = Vec::new();
        for owner in owners {
            if self.decided(&owner.id)?.is_none_or(|decided| !decided.overrules) {
                still.push(owner);
            }
        }
        still.extend(dry_run_ledger.owners(path)?);
        Ok(still)
    }

    /// The invoices that name a path, and those that named it.
    pub(super) fn path_owners(&self, path: &TreePath) -> anyhow::Result<PathOwners> {
        let mut owners = PathOwners::default();
        for owner in self.recorded_owners(path)? {
            owners.put(self.is_overruled(&owner.id), owner);
        }
        for owner in self.batch_in_flight().into_iter().flat_map(|batch| batch.owners(path)) {
            owners.put(self.batch.overrules(&owner.id), owner);
        }
        owners.now.extend(self.batch.owners(path));
        Ok(owners)
    }

    /// The invoices that name a path.
    pub(super) fn owners(&self, path: &TreePath) -> anyhow::Result<Vec<Owner>> {
        Ok(self.path_owners(path)?.now)
    }

    /// Other invoices that name a path with other content.
    pub(super) fn rivals(&self, id: &InvoiceId, path: &TreePath, digest: Digest) -> anyhow::Result<Vec<InvoiceId>> {
        Ok(self.path_owners(path)?.rivals(id, digest))
    }

    /// Whether this run has removed the file that was at a path, or would have.
    pub(super) fn has_removed(&self, path: &TreePath) -> anyhow::Result<bool> {
        match &self.committer {
            Committer::Export { state, writing, .. } => state.has_removed(writing.run.id, path),
            Committer::DryRun { dry_run_ledger, .. } => dry_run_ledger.has_removed(path),
        }
    }

    /// Where the open batch puts the invoices that shared the file at this path until now.
    pub(super) fn moved_from(&self, path: &TreePath) -> anyhow::Result<impl Iterator<Item = TreePath>> {
        let in_flight = self.batch_in_flight().into_iter().flat_map(|batch| batch.owners(path));
        let before = self.recorded_owners(path)?.into_iter().chain(in_flight);
        Ok(before.filter_map(|owner| self.batch.entry(&owner.id).map(|entry| entry.path.clone())))
    }

    /// What this run has recorded of a row so far.
    pub(super) fn counted(&self, id: &InvoiceId) -> anyhow::Result<Option<Counted>> {
        let counted = match &self.committer {
            Committer::Export { state, writing, .. } => state.counted(writing.run.id, id)?,
            Committer::DryRun { .. } => self.decided(id)?.map(|decided| (decided.tenant, decided.counted)),
        };
        Ok(counted.filter(|(_, counts)| counts.seen > 0))
    }

    /// Whether an earlier run could not export an invoice.
    pub(super) fn was_rejected(&self, id: &InvoiceId) -> anyhow::Result<bool> {
        self.committer.state().map_or(Ok(false), |state| state.was_rejected(id))
    }

    /// Whether an invoice is known to be one that cannot be exported.
    pub(super) fn is_rejected(&self, id: &InvoiceId) -> anyhow::Result<bool> {
        let run = self.committer.run();
        let is_open = self.committer.state().map_or(Ok(false), |state| state.was_open_reject(id, run))?;
        let is_decided = self.decided(id)?.is_some_and(|decided| decided.counted.rejected > 0);
        Ok(is_open || is_decided || self.unrecorded().any(|batch| batch.is_rejected(id)))
    }

    /// Whether a verification has removed this file, since the row of its invoice was gone.
    pub(super) fn was_pruned(&self, path: &TreePath) -> anyhow::Result<bool> {
        self.committer.state().map_or(Ok(false), |state| state.was_pruned(path))
    }

    /// Whether a row is known to be an invoice, exported or not.
    pub(super) fn is_on_record(&self, id: &InvoiceId) -> anyhow::Result<bool> {
        Ok(self.entry(id)?.is_some() || self.is_rejected(id)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoice::Tenant;
    use crate::state::dry_run_ledger::DryRunLedger;
    use crate::tree::publish::Published;

    fn view() -> LedgerView<'static> {
        let dry_run_ledger = DryRunLedger::new().unwrap();
        LedgerView::new(Committer::DryRun { state: None, tree: None, dry_run_ledger }, None)
    }

    fn entry(id: &str, country: &str, digest: u8) -> Entry {
        let tenant = Tenant::from("1");
        Entry {
            id: InvoiceId::from(id),
            path: TreePath::of(&tenant, Some(country), "20251128", "A"),
            tenant,
            time: None,
            digest: Digest([digest; 32]),
            size: 2,
            settled: false,
            recheck: false,
            table_no: None,
        }
    }

    #[test]
    fn a_later_batch_overrules_the_one_before_and_that_one_the_ledger() {
        let mut view = view();
        let (id, cn, de) = (InvoiceId::from("1"), entry("1", "CN", 1), entry("1", "DE", 1));
        let mut recorded = Batch::default();
        recorded.enter(entry("1", "IT", 1), Origin::New);
        view.committer.record(&Published::nothing(), &recorded.record).unwrap();
        assert_eq!(view.entry(&id).unwrap().unwrap().path.country(), "IT");
        let mut closed = Batch::default();
        closed.enter(cn.clone(), Origin::New);
        view.in_flight = Some(InFlight { batch: closed, publishing: Publishing::done(Published::nothing()) });
        assert_eq!(view.entry(&id).unwrap(), Some(cn.clone()));
        view.batch.enter(de.clone(), Origin::New);
        assert_eq!(view.entry(&id).unwrap(), Some(de.clone()));
        assert_eq!(view.moved_from(&cn.path).unwrap().collect::<Vec<_>>(), [de.path]);
        view.batch.displace(&id);
        assert_eq!(view.entry(&id).unwrap(), None);
    }

    #[test]
    fn rivals_are_the_other_owners_of_a_path_with_other_content() {
        let mut view = view();
        let mut closed = Batch::default();
        closed.enter(entry("1", "CN", 1), Origin::New);
        closed.enter(entry("2", "CN", 1), Origin::New);
        view.in_flight = Some(InFlight { batch: closed, publishing: Publishing::done(Published::nothing()) });
        view.batch.enter(entry("3", "CN", 3), Origin::New);
        // It has left the path.
        view.batch.enter(entry("2", "DE", 1), Origin::New);
        let path = entry("1", "CN", 1).path;
        assert_eq!(view.owners(&path).unwrap().len(), 2);
        let rivals = |id: &str, digest| view.rivals(&InvoiceId::from(id), &path, Digest([digest; 32])).unwrap();
        assert_eq!(rivals("1", 1), [InvoiceId::from("3")]);
        assert_eq!(rivals("9", 3), [InvoiceId::from("1")]);
    }
}
