//! A batch: the decisions that are published and recorded together, and the paths that they claim.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::time::Duration;

use crate::export::metrics::Totals;
use crate::invoice::{InvoiceId, Tenant};
use crate::run::Counts;
use crate::state::ledger::{Entry, Owner};
use crate::state::origin::Origin;
use crate::state::record::Record;
use crate::state::todo::{Leftover, Reject};
use crate::tree::name::TreePath;
use crate::tree::publish::{Changes, Placement, Removal};
use crate::tree::stage::StagedDocument;

/// A batch is closed when its staged documents have so many bytes, when it holds as many decisions or moves of
/// watermarks as the constants below say, or after BATCH_TIME.
const BATCH_BYTES: u64 = 64 << 20;
pub(super) const BATCH_TIME: Duration = Duration::from_secs(3);
/// Watermarks that move with one batch: they are kept in memory until then.
const BATCH_ADVANCES: usize = 10_000;
/// Decisions in the first batch of a run, so that a first export shows files within a second.
pub(super) const FIRST_BATCH_DECISIONS: usize = 1_000;
const BATCH_DECISIONS: usize = 4_000;
/// Decisions in a batch of a long run, which takes a twelfth less time so (BENCHMARKS.md).
const LARGE_BATCH_DECISIONS: usize = 8_000;

/// How many decisions the next batch may hold: twice as many as the one before, up to `BATCH_DECISIONS`, and up to
/// `LARGE_BATCH_DECISIONS` once that is an eighth of the files that the run has written. The run has nothing to decide any
/// more while its final batch is published, so that batch is to be small beside the whole.
pub(super) fn next_limit(limit: usize, written: u64) -> usize {
    let share = usize::try_from(written / 8).unwrap_or(usize::MAX);
    (limit * 2).min(share.clamp(BATCH_DECISIONS, LARGE_BATCH_DECISIONS))
}

/// Everything decided since the last batch was closed.
#[derive(Debug, Default)]
pub(in crate::export) struct Batch {
    /// What belongs into the state. Its counts are complete once the batch is closed.
    pub record: Record,
    owners: HashMap<TreePath, Vec<InvoiceId>>,
    placements: HashMap<TreePath, Placement>,
    removals: HashMap<TreePath, Removal>,
    /// Removals that came to nothing because another invoice took the path.
    taken_over: HashMap<TreePath, Removal>,
    /// Counts of rows without a tenant.
    tenantless: Counts,
    /// What batches before have counted of rows that this one decides anew.
    corrections: Vec<(Option<Tenant>, Counts)>,
    /// Paths that an earlier batch has removed the file of, and that get one again.
    refilled: BTreeSet<TreePath>,
    /// Tenants that are done once the batch is on record.
    pub ready: Vec<Tenant>,
    /// Bytes of the staged documents.
    bytes: u64,
}

impl Batch {
    /// How many decisions it holds: invoices with a file, rejects, rows that are gone, invoices that lost their path.
    fn len(&self) -> usize {
        let Record { entries, rejects, gone, displaced, .. } = &self.record;
        entries.len() + rejects.len() + gone.len() + displaced.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        let Record { advances, resolved_doubts, recovered, tenants, .. } = &self.record;
        self.len() == 0
            && advances.is_empty()
            && self.removals.is_empty()
            && resolved_doubts.is_empty()
            && recovered.is_empty()
            && tenants.is_empty()
            && self.tenantless == Counts::default()
            && self.corrections.is_empty()
    }

    /// Whether it holds as much as one batch may, with `limit` decisions at the most.
    pub(super) fn is_full(&self, limit: usize) -> bool {
        self.len() >= limit || self.record.advances.len() >= BATCH_ADVANCES || self.bytes >= BATCH_BYTES
    }

    /// How many invoices get a new file, not counting those with a file that is right already.
    pub(super) fn written(&self) -> u64 {
        self.record.entries.values().filter(|(_, origin)| origin.is_written()).count() as u64
    }

    /// Counts what no decision of the batch stands for.
    pub(super) fn count(&mut self, tenant: Option<&Tenant>, add: impl FnOnce(&mut Counts)) {
        match tenant {
            Some(tenant) => add(self.record.tenants.entry(tenant.clone()).or_default()),
            None => add(&mut self.tenantless),
        }
    }

    /// Where the batch puts an invoice.
    pub(super) fn entry(&self, id: &InvoiceId) -> Option<&Entry> {
        self.record.entries.get(id).map(|(entry, _)| entry)
    }

    /// Whether what the ledger says of an invoice no longer holds.
    pub(super) fn overrules(&self, id: &InvoiceId) -> bool {
        self.record.entries.contains_key(id) || self.record.displaced.contains(id)
    }

    /// Whether the batch says what came of a row.
    pub(super) fn decides(&self, id: &InvoiceId) -> bool {
        let Record { entries, rejects, gone, .. } = &self.record;
        entries.contains_key(id) || rejects.contains_key(id) || gone.contains_key(id)
    }

    /// The invoices that get this path.
    pub(super) fn owners(&self, path: &TreePath) -> impl Iterator<Item = Owner> {
        let ids = self.owners.get(path).map(Vec::as_slice).unwrap_or_default();
        ids.iter().filter_map(|id| {
            let (entry, origin) = self.record.entries.get(id)?;
            let origin = Some(*origin).filter(|origin| *origin != Origin::Kept);
            Some(Owner { id: id.clone(), digest: entry.digest, origin })
        })
    }

    /// Other invoices that get the path at which this one lies, with other content.
    pub(super) fn takers(&self, entry: &Entry) -> impl Iterator<Item = InvoiceId> {
        let owners = self.owners(&entry.path);
        owners.filter(|owner| owner.id != entry.id && owner.digest != entry.digest).map(|owner| owner.id)
    }

    /// Gives an invoice its path. A path that is claimed is neither removed nor left over.
    pub(super) fn enter(&mut self, entry: Entry, origin: Origin) {
        self.forget(&entry.id);
        self.record.rejects.remove(&entry.id);
        self.record.gone.remove(&entry.id);
        if let Some(removal) = self.removals.remove(&entry.path) {
            self.taken_over.insert(entry.path.clone(), removal);
        }
        self.record.leftovers.remove(&entry.path);
        self.owners.entry(entry.path.clone()).or_default().push(entry.id.clone());
        self.record.entries.insert(entry.id.clone(), (entry, origin));
    }

    /// Puts a staged document where it goes, and returns the one that it replaces.
    pub(super) fn place(&mut self, placement: Placement, size: u64) -> Option<StagedDocument> {
        self.bytes += size;
        self.placements.insert(placement.path.clone(), placement).map(|before| before.staged)
    }

    /// The invoice's file belongs to another one now.
    pub(super) fn displace(&mut self, id: &InvoiceId) {
        self.forget(id);
        self.record.displaced.insert(id.clone());
    }

    /// The invoice keeps the file that the ledger says it has: a batch that wanted to take it has failed to.
    pub(super) fn cancel_displacement(&mut self, id: &InvoiceId) {
        self.record.displaced.remove(id);
    }

    /// A file that its invoice leaves is removed with the batch.
    pub(super) fn remove(&mut self, removal: Removal) {
        self.removals.insert(removal.path.clone(), removal);
    }

    pub(super) fn has_removals(&self) -> bool {
        !self.removals.is_empty()
    }

    /// An invoice keeps the file at this path after all: it is neither removed nor left over.
    pub(super) fn keep_file(&mut self, path: &TreePath) -> Option<Leftover> {
        self.removals.remove(path);
        self.taken_over.remove(path);
        self.record.leftovers.remove(path)
    }

    /// A file that no invoice names stays, on record.
    pub(super) fn add_leftover(&mut self, leftover: Leftover) {
        self.record.leftovers.insert(leftover.path.clone(), leftover);
    }

    /// What a dead run may have written there could not be removed.
    pub(super) fn keep_in_doubt(&mut self, path: &TreePath) {
        self.record.resolved_doubts.retain(|resolved| resolved != path);
    }

    /// The invoice cannot be exported. It keeps the file that it has.
    pub(super) fn reject(&mut self, reject: Reject) {
        self.record.gone.remove(&reject.id);
        self.record.rejects.insert(reject.id.clone(), reject);
    }

    /// The row is no invoice any more.
    pub(super) fn record_gone(&mut self, id: InvoiceId, tenant: Option<Tenant>) {
        self.record.rejects.remove(&id);
        self.record.gone.insert(id, tenant);
    }

    pub(super) fn is_rejected(&self, id: &InvoiceId) -> bool {
        self.record.rejects.contains_key(id)
    }

    /// The row is decided anew, or comes again: what a batch before has counted of it holds no longer.
    pub(super) fn take_back(&mut self, tenant: Option<Tenant>, counted: Counts) {
        self.corrections.push((tenant, counted));
    }

    /// The path gets a file again: it counts as replaced and not as removed, as if all had come in one batch.
    pub(super) fn refill(&mut self, path: TreePath) {
        self.refilled.insert(path);
    }

    /// The file could not be put in place: takes out the invoices that it was written for.
    pub(super) fn drop_failed(&mut self, path: &TreePath) -> Vec<InvoiceId> {
        let owners = self.owners.get(path).cloned().unwrap_or_default();
        let entries = &self.record.entries;
        let written = |id: &InvoiceId| entries.get(id).is_some_and(|(_, origin)| origin.is_written());
        let unwritten: Vec<InvoiceId> = owners.into_iter().filter(written).collect();
        unwritten.iter().for_each(|id| drop(self.forget(id)));
        unwritten
    }

    /// Takes an invoice out again, as if it had not come yet. Returns its document if no twin needs it.
    pub(super) fn withdraw(&mut self, id: &InvoiceId) -> Option<(Entry, Option<StagedDocument>)> {
        let entry = self.forget(id)?;
        self.removals.retain(|_, removal| removal.mover() != Some(id));
        self.taken_over.retain(|_, removal| removal.mover() != Some(id));
        self.record.leftovers.retain(|_, leftover| leftover.id != *id);
        let twins = self.owners.get(&entry.path).is_some_and(|owners| !owners.is_empty());
        if twins {
            return Some((entry, None));
        }
        if let Some(removal) = self.taken_over.remove(&entry.path) {
            self.removals.insert(entry.path.clone(), removal);
        }
        let staged = self.placements.remove(&entry.path).map(|placement| placement.staged);
        Some((entry, staged))
    }

    /// The invoice that is about to leave this path empty.
    pub(super) fn mover(&self, path: &TreePath) -> Option<InvoiceId> {
        self.removals.get(path).and_then(|removal| removal.mover().cloned())
    }

    /// Takes out an entry, but not its document.
    fn forget(&mut self, id: &InvoiceId) -> Option<Entry> {
        let (before, _) = self.record.entries.remove(id)?;
        if let Some(owners) = self.owners.get_mut(&before.path) {
            owners.retain(|owner| owner != id);
        }
        Some(before)
    }

    /// Takes out what belongs into the tree.
    pub(super) fn take_changes(&mut self) -> Changes {
        let mut placements: Vec<Placement> = mem::take(&mut self.placements).into_values().collect();
        // Neighbours in a folder are put there one after the other.
        placements.sort_by(|a, b| a.path.cmp(&b.path));
        let Record { entries, recovered, .. } = &self.record;
        let adopted = entries.values().filter(|(_, origin)| origin.is_adopted()).map(|(entry, _)| entry);
        let adopted = adopted.chain(recovered).map(|entry| entry.path.clone()).collect();
        self.taken_over.clear();
        Changes { placements, adopted, removals: mem::take(&mut self.removals).into_values().collect() }
    }

    /// Counts its rows, each once, and adds them to what the run has on record. What batches before have counted of
    /// them is taken back.
    pub(super) fn close(&mut self, totals: &mut Totals) {
        let mut tenants = mem::take(&mut self.record.tenants);
        let mut tenantless = self.tenantless;
        for (tenant, counts) in self.rows() {
            match tenant {
                Some(tenant) => *tenants.entry(tenant.clone()).or_default() += counts,
                None => tenantless += counts,
            }
        }
        totals.add(None, tenantless);
        tenants.iter().for_each(|(tenant, counts)| totals.add(Some(tenant), *counts));
        for path in mem::take(&mut self.refilled) {
            let owner = self.owners.get(&path).and_then(|owners| self.entry(owners.first()?));
            let tenant = owner.map(|entry| entry.tenant.clone());
            let removed = Counts { removed: 1, ..Counts::default() };
            self.corrections.extend(tenant.map(|tenant| (Some(tenant), removed)));
        }
        for (tenant, counted) in mem::take(&mut self.corrections) {
            let is_counted = tenant.as_ref().is_none_or(|tenant| totals.of(tenant).unchanged >= counted.unchanged);
            if is_counted {
                totals.take_back(tenant.as_ref(), counted);
                tenant.into_iter().for_each(|tenant| *self.record.taken_back.entry(tenant).or_default() += counted);
            }
        }
        self.record.tenants = tenants;
        self.record.totals = totals.run;
    }

    /// The rows that it decides, each with what it counts. One that is rejected or gone may keep the file that an
    /// earlier decision of the batch gave it.
    fn rows(&self) -> impl Iterator<Item = (Option<&Tenant>, Counts)> {
        let Record { entries, rejects, gone, .. } = &self.record;
        let one = Counts { seen: 1, ..Counts::default() };
        let entered = entries.iter().filter(|(id, _)| !rejects.contains_key(*id) && !gone.contains_key(*id));
        let entered = entered.map(|(_, (entry, origin))| (Some(&entry.tenant), origin.counts(entry.size)));
        let rejected = rejects.values().map(move |reject| (reject.tenant.as_ref(), Counts { rejected: 1, ..one }));
        let gone = gone.values().map(move |tenant| (tenant.as_ref(), Counts { gone: 1, ..one }));
        entered.chain(rejected).chain(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoice::{Digest, Reason};
    use crate::tree::publish::Cause;

    fn path(name: &str) -> TreePath {
        TreePath::of(&Tenant::from("1"), Some(name), "20251128", "A")
    }

    fn entry(id: &str, at: &str, digest: u8) -> Entry {
        Entry {
            id: InvoiceId::from(id),
            tenant: Tenant::from("1"),
            time: None,
            path: path(at),
            digest: Digest([digest; 32]),
            size: 5,
            settled: true,
            recheck: false,
            table_no: None,
        }
    }

    fn reject(id: &str) -> Reject {
        let reason = Reason::TooLarge { bytes: 1 };
        Reject { id: InvoiceId::from(id), tenant: Some(Tenant::from("1")), number: None, time: None, reason }
    }

    fn removal(id: &str, at: &str) -> Removal {
        let cause = Cause::Superseded(InvoiceId::from(id));
        Removal { path: path(at), instead: Vec::new(), digest: Digest([0; 32]), cause }
    }

    #[test]
    fn batches_grow_with_the_run_and_the_last_one_is_small_beside_it() {
        let (mut limit, mut written) = (FIRST_BATCH_DECISIONS, 0);
        for _ in 0..200 {
            written += limit as u64;
            limit = next_limit(limit, written);
            assert!(limit <= 4_000 || limit as u64 <= written / 8, "{limit} after {written}");
        }
        assert_eq!(limit, 8_000);
    }

    #[test]
    fn a_row_counts_once_as_what_was_decided_last() {
        let mut batch = Batch::default();
        batch.enter(entry("1", "CN", 1), Origin::New);
        batch.enter(entry("1", "DE", 1), Origin::New);
        batch.enter(entry("2", "FR", 1), Origin::TakenOver);
        batch.reject(reject("2"));
        batch.reject(reject("3"));
        batch.enter(entry("3", "IT", 1), Origin::Kept);
        batch.reject(reject("4"));
        batch.record_gone(InvoiceId::from("4"), None);
        let mut totals = Totals::default();
        batch.close(&mut totals);
        let expected =
            Counts { seen: 4, written: 1, new: 1, unchanged: 1, rejected: 1, gone: 1, bytes: 5, ..Counts::default() };
        assert_eq!((totals.run, batch.record.totals), (expected, expected));
        assert_eq!(totals.of(&Tenant::from("1")), Counts { seen: 3, gone: 0, ..expected });
    }

    #[test]
    fn what_a_batch_before_has_counted_is_taken_back_and_no_more_than_that() {
        let tenant = Tenant::from("1");
        let mut totals = Totals::default();
        let mut batch = Batch::default();
        batch.enter(entry("1", "CN", 1), Origin::New);
        batch.close(&mut totals);
        let mut next = Batch::default();
        next.reject(reject("1"));
        next.take_back(Some(tenant.clone()), Origin::New.counts(5));
        // Of a row that its tenant has never counted as unchanged there is nothing to take back.
        next.take_back(Some(tenant.clone()), Origin::Kept.counts(5));
        next.close(&mut totals);
        assert_eq!(totals.run, Counts { seen: 1, rejected: 1, ..Counts::default() });
        assert_eq!(next.record.taken_back[&tenant], Origin::New.counts(5));
    }

    #[test]
    fn an_invoice_that_is_withdrawn_gives_back_the_path_that_it_took() {
        let mut batch = Batch::default();
        batch.remove(removal("1", "CN"));
        batch.enter(entry("2", "CN", 2), Origin::New);
        assert_eq!(batch.mover(&path("CN")), None);
        assert!(batch.withdraw(&InvoiceId::from("2")).is_some());
        assert_eq!(batch.mover(&path("CN")), Some(InvoiceId::from("1")));
        assert!(batch.withdraw(&InvoiceId::from("2")).is_none());
        batch.keep_file(&path("CN"));
        assert!(batch.is_empty());
    }

    #[test]
    fn an_invoice_that_a_failed_file_was_not_written_for_stays() {
        let mut batch = Batch::default();
        batch.enter(entry("1", "CN", 1), Origin::New);
        batch.enter(entry("2", "CN", 1), Origin::TakenOver);
        assert_eq!(batch.drop_failed(&path("CN")), [InvoiceId::from("1")]);
        assert!(batch.entry(&InvoiceId::from("2")).is_some());
        assert_eq!(batch.takers(&entry("3", "CN", 9)).collect::<Vec<_>>(), [InvoiceId::from("2")]);
    }
}
