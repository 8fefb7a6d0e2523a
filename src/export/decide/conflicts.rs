//! Owns the rows that wait, and the rule for which invoice wins a path.
//!
//! A row waits in three cases: another invoice has or wants its path with another document; a decision since it was
//! checked has changed what the ledger says of it or removed its file; or it leaves a path that a waiting row wants. An
//! export first publishes and records the open batch, so that disk and ledger agree; a dry run has nothing to publish.
//! Then the rows that wait are read again by key, with all invoices that are linked to them by a contested path: their
//! rivals, the rivals of those, and so on (`Decider::read_with_rivals` names the bound). Of the rows that want one path
//! the greatest (source time, id) wins; a row without a source time loses. A rival that has moved elsewhere gets its
//! new path in the same batch, so that swaps and chains of moves come out right in any order.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use crate::export::check::CheckResult;
use crate::invoice::{Digest, Invoice, InvoiceId, Reason, SourceTime, Tenant};
use crate::state::todo::Reject;
use crate::tree::name::TreePath;

/// Rows that wait at the most before conflicts are resolved.
const WAITING_AT_MOST: usize = 500;

/// A row that waits, and the path that it wanted.
pub(super) struct DeferredRow {
    pub tenant: Tenant,
    pub path: TreePath,
}

#[derive(Default)]
pub(in crate::export) struct Conflicts {
    waiting: BTreeMap<InvoiceId, DeferredRow>,
}

impl Conflicts {
    /// A row waits, and wants this path.
    pub(super) fn add(&mut self, id: InvoiceId, tenant: Tenant, path: TreePath) {
        self.waiting.insert(id, DeferredRow { tenant, path });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_AT_MOST
    }

    /// Whether a row that waits wants this path.
    pub(super) fn is_wanted(&self, path: &TreePath) -> bool {
        self.waiting.values().any(|waiting| waiting.path == *path)
    }

    /// Takes out all rows that wait.
    pub(super) fn take(&mut self) -> BTreeMap<InvoiceId, DeferredRow> {
        mem::take(&mut self.waiting)
    }
}

/// Rows as they are now; None for those that are no invoice any more.
pub(super) type RereadRows = BTreeMap<InvoiceId, Option<CheckResult>>;

/// The invoice that gets a contested path.
pub(super) struct Winner {
    pub id: InvoiceId,
    pub tenant: Tenant,
    pub digest: Digest,
    time: Option<SourceTime>,
}

/// The greatest (source time, id) of each path.
pub(super) fn winners(fresh: &RereadRows) -> HashMap<TreePath, Winner> {
    let mut winners: HashMap<TreePath, Winner> = HashMap::new();
    for (id, check_result) in fresh {
        let Some(CheckResult::Candidate(candidate)) = check_result else { continue };
        let time = &candidate.invoice.time;
        if winners.get(&candidate.path).is_none_or(|winner| (&winner.time, &winner.id) < (time, id)) {
            let (tenant, digest) = (candidate.invoice.tenant.clone(), candidate.digest);
            let winner = Winner { id: id.clone(), tenant, digest, time: time.clone() };
            winners.insert(candidate.path.clone(), winner);
        }
    }
    winners
}

impl Winner {
    /// What becomes of an invoice that wanted the same path.
    pub(super) fn beats(&self, invoice: Invoice, path: &TreePath) -> Reject {
        let Invoice { id, tenant, number, time, .. } = invoice;
        let reason = Reason::PathTaken { path: path.to_string(), by: self.id.clone() };
        Reject { id, tenant: Some(tenant), number: Some(number), time, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::check::{Before, Candidate, FileState};

    fn candidate(id: &str, number: &str, time: Option<&str>) -> (InvoiceId, Option<CheckResult>) {
        let invoice = Invoice {
            id: InvoiceId::from(id),
            tenant: Tenant::from("1"),
            country: None,
            date: "20251128".to_owned(),
            number: number.to_owned(),
            time: time.map(SourceTime::from),
        };
        let path = TreePath::of(&invoice.tenant, None, &invoice.date, &invoice.number);
        let digest = Digest([id.len() as u8; 32]);
        let candidate = Candidate { invoice, path, digest, size: 2, file: FileState::Staged(None, Before::Nothing) };
        (InvoiceId::from(id), Some(CheckResult::Candidate(candidate)))
    }

    #[test]
    fn the_greatest_time_wins_a_path_then_the_greatest_id_and_no_time_loses() {
        let (early, late) = (Some("2025-11-28 10:00:00"), Some("2025-11-28 10:00:01"));
        let rows = [
            candidate("1", "A", late),
            candidate("2", "A", early),
            candidate("3", "B", early),
            candidate("4", "B", early),
            candidate("5", "C", early),
            candidate("6", "C", None),
            (InvoiceId::from("7"), None),
        ];
        let mut won: Vec<(String, InvoiceId)> = winners(&rows.into_iter().collect())
            .into_iter()
            .map(|(path, winner)| (path.to_string(), winner.id))
            .collect();
        won.sort();
        let ids: Vec<&str> = won.iter().map(|(_, id)| id.as_str()).collect();
        assert_eq!(ids, ["1", "4", "5"]);
    }

    #[test]
    fn rows_wait_until_they_are_taken_and_are_known_by_the_paths_that_they_want() {
        let path = |number: &str| TreePath::of(&Tenant::from("1"), None, "20251128", number);
        let mut conflicts = Conflicts::default();
        for n in 0..WAITING_AT_MOST {
            assert!(!conflicts.is_full());
            conflicts.add(InvoiceId(n.to_string()), Tenant::from("1"), path(&n.to_string()));
        }
        assert!(conflicts.is_full() && conflicts.is_wanted(&path("7")) && !conflicts.is_wanted(&path("A")));
        assert_eq!(conflicts.take().len(), WAITING_AT_MOST);
        assert!(conflicts.is_empty() && !conflicts.is_wanted(&path("7")));
    }
}
