//! A batch: what is published and recorded together, and who claims which path in it.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::time::Duration;

use crate::invoice::{Digest, InvoiceId, Tenant};
use crate::run::Counts;
use crate::state::ledger::{Entry, Origin};
use crate::state::record::Record;
use crate::state::tenants::Advance;
use crate::state::todo::{Leftover, Reject};
use crate::tree::name::TreePath;
use crate::tree::publish::{Changes, Placement, Removal};
use crate::tree::stage::Staged;

/// A batch is closed when it holds so many bytes, or so many files, or after this time.
pub(super) const BATCH_BYTES: u64 = 64 << 20;
pub(super) const BATCH_TIME: Duration = Duration::from_secs(3);
/// Watermarks that move with one batch: they are kept in memory until then.
pub(super) const BATCH_ADVANCES: usize = 10_000;
/// Whoever watches a first export sees files within a second.
pub(super) const FIRST_BATCH_FILES: usize = 1_000;
const BATCH_FILES: usize = 4_000;
/// Of a long run, which takes a twelfth less time so (BENCHMARKS.md).
const LARGE_BATCH_FILES: usize = 8_000;

/// How many files the next batch may hold. Nothing is done beside the last one, so it is to be small beside all
/// that the run has written.
pub(super) fn next_limit(limit: usize, written: u64) -> usize {
    let share = usize::try_from(written / 8).unwrap_or(usize::MAX);
    (limit * 2).min(share.clamp(BATCH_FILES, LARGE_BATCH_FILES))
}

/// Everything decided since the last batch was recorded.
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: HashMap<InvoiceId, (Entry, Origin)>,
    owners: HashMap<TreePath, Vec<InvoiceId>>,
    placements: HashMap<TreePath, Placement>,
    removals: HashMap<TreePath, Removal>,
    /// Removals that came to nothing because another invoice took the path.
    taken_over: HashMap<TreePath, Removal>,
    displaced: HashSet<InvoiceId>,
    leftovers: HashMap<TreePath, Leftover>,
    cleared: Vec<TreePath>,
    /// Invoices whose file is what a dead run left.
    found: Vec<Entry>,
    rejects: HashMap<InvoiceId, Reject>,
    gone: Vec<InvoiceId>,
    pub tenants: HashMap<Tenant, Counts>,
    /// What batches before have counted, and what is counted otherwise now.
    pub taken_back: HashMap<Tenant, Counts>,
    pub advances: Vec<Advance>,
    bytes: u64,
}

impl Batch {
    /// How many decisions it holds.
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.rejects.len() + self.gone.len() + self.displaced.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
            && self.advances.is_empty()
            && self.removals.is_empty()
            && self.cleared.is_empty()
            && self.found.is_empty()
            && self.tenants.is_empty()
            && self.taken_back.is_empty()
    }

    pub(super) fn count(&mut self, tenant: Option<&Tenant>, add: impl Fn(&mut Counts)) {
        if let Some(tenant) = tenant {
            add(self.tenants.entry(tenant.clone()).or_default());
        }
    }

    /// Bytes of the staged documents.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the batch puts an invoice.
    pub(super) fn entry(&self, id: &InvoiceId) -> Option<&Entry> {
        self.entries.get(id).map(|(entry, _)| entry)
    }

    /// Whether what the ledger says of an invoice no longer holds.
    pub(super) fn overrules(&self, id: &InvoiceId) -> bool {
        self.entries.contains_key(id) || self.displaced.contains(id)
    }

    pub(super) fn owners(&self, path: &TreePath) -> impl Iterator<Item = (InvoiceId, Digest)> {
        let ids = self.owners.get(path).map(Vec::as_slice).unwrap_or_default();
        ids.iter().filter_map(|id| self.entry(id).map(|entry| (id.clone(), entry.digest)))
    }

    /// Other invoices that get the path at which this one lies, with other content.
    pub(super) fn takers(&self, entry: &Entry) -> impl Iterator<Item = InvoiceId> {
        let owners = self.owners(&entry.path);
        owners.filter(|(owner, digest)| *owner != entry.id && *digest != entry.digest).map(|(owner, _)| owner)
    }

    /// Gives an invoice its path. A path that is claimed is neither removed nor left over.
    pub(super) fn enter(&mut self, entry: Entry, origin: Origin) {
        self.forget(&entry.id);
        self.rejects.remove(&entry.id);
        if let Some(removal) = self.removals.remove(&entry.path) {
            self.taken_over.insert(entry.path.clone(), removal);
        }
        self.leftovers.remove(&entry.path);
        self.owners.entry(entry.path.clone()).or_default().push(entry.id.clone());
        self.entries.insert(entry.id.clone(), (entry, origin));
    }

    /// Puts a staged document where it goes, and returns the one that it replaces.
    pub(super) fn place(&mut self, placement: Placement, size: u64) -> Option<Staged> {
        self.bytes += size;
        self.placements.insert(placement.path.clone(), placement).map(|before| before.staged)
    }

    /// The invoice's file belongs to another one now.
    pub(super) fn displace(&mut self, id: &InvoiceId) {
        self.forget(id);
        self.displaced.insert(id.clone());
    }

    /// The invoice keeps the file that the ledger says it has.
    pub(super) fn keep(&mut self, id: &InvoiceId) {
        self.displaced.remove(id);
    }

    pub(super) fn remove(&mut self, removal: Removal) {
        self.removals.insert(removal.path.clone(), removal);
    }

    pub(super) fn leave(&mut self, leftover: Leftover) {
        self.leftovers.insert(leftover.path.clone(), leftover);
    }

    /// The invoice's file lies there with this content, whoever wrote it.
    pub(super) fn find(&mut self, entry: Entry) {
        self.found.push(entry);
    }

    pub(super) fn clear_doubt(&mut self, path: TreePath) {
        self.cleared.push(path);
    }

    /// What a dead run may have written there could not be removed.
    pub(super) fn stay_in_doubt(&mut self, path: &TreePath) {
        self.cleared.retain(|cleared| cleared != path);
    }

    pub(super) fn reject(&mut self, reject: Reject) {
        self.rejects.insert(reject.id.clone(), reject);
    }

    pub(super) fn gone(&mut self, id: InvoiceId) {
        self.gone.push(id);
    }

    pub(super) fn rejects(&self, id: &InvoiceId) -> bool {
        self.rejects.contains_key(id)
    }

    /// The file could not be put in place: takes out the invoices that it was written for.
    pub(super) fn drop_failed(&mut self, path: &TreePath) -> Vec<Entry> {
        let owners = self.owners.get(path).cloned().unwrap_or_default();
        let written = |id: &InvoiceId| self.entries.get(id).is_some_and(|(_, origin)| *origin == Origin::Written);
        let unwritten: Vec<InvoiceId> = owners.into_iter().filter(|id| written(id)).collect();
        unwritten.iter().filter_map(|id| self.forget(id)).collect()
    }

    /// Takes an invoice out again, as if it had not come yet. Returns its document if no twin needs it.
    pub(super) fn withdraw(&mut self, id: &InvoiceId) -> Option<(Entry, Origin, Option<Staged>)> {
        let (_, origin) = self.entries.get(id)?;
        let origin = *origin;
        let entry = self.forget(id)?;
        self.removals.retain(|_, removal| removal.leaver() != Some(id));
        self.taken_over.retain(|_, removal| removal.leaver() != Some(id));
        self.leftovers.retain(|_, leftover| leftover.id != *id);
        let twins = self.owners.get(&entry.path).is_some_and(|owners| !owners.is_empty());
        if twins {
            return Some((entry, origin, None));
        }
        if let Some(removal) = self.taken_over.remove(&entry.path) {
            self.removals.insert(entry.path.clone(), removal);
        }
        let staged = self.placements.remove(&entry.path).map(|placement| placement.staged);
        Some((entry, origin, staged))
    }

    /// The invoice that is about to leave this path empty.
    pub(super) fn leaver(&self, path: &TreePath) -> Option<InvoiceId> {
        self.removals.get(path).and_then(|removal| removal.leaver().cloned())
    }

    fn forget(&mut self, id: &InvoiceId) -> Option<Entry> {
        let (before, _) = self.entries.remove(id)?;
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
        let adopted = self.entries.values().filter(|(_, origin)| *origin == Origin::Adopted);
        let adopted = adopted.map(|(entry, _)| entry).chain(&self.found).map(|entry| entry.path.clone()).collect();
        self.taken_over.clear();
        Changes { placements, adopted, removals: mem::take(&mut self.removals).into_values().collect() }
    }

    /// What belongs into the state.
    pub(super) fn into_record(self, totals: Counts) -> Record {
        let batch = self;
        let mut entries: Vec<(Entry, Origin)> = batch.entries.into_values().collect();
        // In the order of the ledger's key, so that SQLite fills its pages one after the other.
        entries.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        Record {
            entries,
            displaced: batch.displaced.into_iter().collect(),
            rejects: batch.rejects.into_values().collect(),
            gone: batch.gone,
            withdrawn: Vec::new(),
            tidied: Vec::new(),
            leftovers: batch.leftovers.into_values().collect(),
            cleared: batch.cleared,
            found: batch.found,
            tenants: batch.tenants,
            taken_back: batch.taken_back,
            totals,
            advances: batch.advances,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_with_the_run_and_the_last_one_is_small_beside_it() {
        let (mut limit, mut written) = (FIRST_BATCH_FILES, 0);
        for _ in 0..200 {
            written += limit as u64;
            limit = next_limit(limit, written);
            assert!(limit <= 4_000 || limit as u64 <= written / 8, "{limit} after {written}");
        }
        assert_eq!(limit, 8_000);
    }
}
