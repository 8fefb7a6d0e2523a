//! Sees to it that each row counts once, as what was decided of it last. A row that was decided may lose its path to
//! one that the run reads later. It is read again then, as a rival, and what was counted of it before is taken back.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use crate::export::check::CheckResult;
use crate::export::plan::Group;
use crate::export::ticket::Part;
use crate::invoice::{InvoiceId, SourceTime, Tenant};
use crate::run::{Counts, Kind};
use crate::state::ledger::Entry;
use crate::state::todo::TodoReason;

/// Rivals remembered, so that a row that comes again is not counted again; more are counted twice.
const RIVALS_AT_MOST: usize = 100_000;

/// Rivals of earlier runs that were decided. The reader has brought them before, will yet bring them, or reads them not
/// at all: none of that is on record of a row about which nothing had to be recorded.
pub(in crate::export) struct Tally<'a> {
    kind: Kind,
    groups: &'a [Group],
    /// Sorted, and made when the first rival turns up: there may be a hundred thousand tenants.
    groups_of_tenants: OnceCell<Vec<(&'a Tenant, usize)>>,
    rivals: HashMap<InvoiceId, Option<PendingDuplicate>>,
    /// The rivals that each part may bring.
    parts: HashMap<Part, Vec<InvoiceId>>,
    /// Rows that were counted as gone, which nothing on record says.
    gone: HashMap<InvoiceId, Option<Tenant>>,
    /// Rows that were counted as unchanged and entered, of which the ledger does not say so: their file stays with the
    /// run that wrote it.
    kept: HashSet<InvoiceId>,
}

/// What was counted of a row before, and the tenant that it was counted for.
pub(super) type Counted = (Option<Tenant>, Counts);

/// The part of the run that brings a rival, and the tenant for which it then counts as unchanged.
struct PendingDuplicate {
    part: Part,
    tenant: Tenant,
}

impl<'a> Tally<'a> {
    pub(in crate::export) fn new(kind: Kind, groups: &'a [Group]) -> Self {
        let (groups_of_tenants, rivals, parts, gone, kept) = Default::default();
        Self { kind, groups, groups_of_tenants, rivals, parts, gone, kept }
    }

    /// Remembers a rival that is decided. `entry` is what the ledger said of it before.
    pub(super) fn note_rival(
        &mut self,
        id: &InvoiceId,
        check_result: Option<&CheckResult>,
        entry: Option<&Entry>,
        retried: &HashMap<InvoiceId, TodoReason>,
    ) {
        let part = check_result.zip(entry).and_then(|(check_result, entry)| {
            if retried.contains_key(id) { Some(Part::Todo) } else { self.part_of(check_result, entry) }
        });
        let double = part.zip(entry).map(|(part, entry)| PendingDuplicate { part, tenant: entry.tenant.clone() });
        self.remember(id, double);
    }

    fn remember(&mut self, id: &InvoiceId, double: Option<PendingDuplicate>) {
        if self.rivals.len() >= RIVALS_AT_MOST {
            return;
        }
        if let Some(PendingDuplicate { part, .. }) = &double {
            self.parts.entry(*part).or_default().push(id.clone());
        }
        self.rivals.insert(id.clone(), double);
    }

    /// Forgets that a row counted as gone, since it is decided anew, and returns what was counted of it.
    pub(super) fn take_gone_count(&mut self, id: &InvoiceId) -> Option<Counted> {
        let tenant = self.gone.remove(id)?;
        Some((tenant, Counts { seen: 1, gone: 1, ..Counts::default() }))
    }

    /// Whether this run has entered the row as unchanged. It is decided anew.
    pub(super) fn take_kept(&mut self, id: &InvoiceId) -> bool {
        self.kept.remove(id)
    }

    pub(super) fn note_kept(&mut self, id: &InvoiceId) {
        if self.kept.len() < RIVALS_AT_MOST {
            self.kept.insert(id.clone());
        }
    }

    /// The parts that were to bring rivals and have not come to their end.
    pub(super) fn open_parts(&self) -> Vec<Part> {
        self.parts.keys().copied().collect()
    }

    /// Forgets the rivals that this part should have brought and has not, and returns their tenants.
    pub(super) fn take_missing_rivals(&mut self, part: Part) -> Vec<Tenant> {
        let ids = self.parts.remove(&part).unwrap_or_default();
        let is_double = |double: &Option<PendingDuplicate>| double.as_ref().is_some_and(|double| double.part == part);
        let mut missing = Vec::new();
        for id in ids {
            if self.rivals.get(&id).is_some_and(is_double) {
                missing.extend(self.rivals.remove(&id).flatten().map(|double| double.tenant));
            }
        }
        missing
    }

    /// The group that reads a row of this tenant and time.
    fn group_of(&self, tenant: &Tenant, time: Option<&SourceTime>) -> Option<usize> {
        let groups = self.groups_of_tenants.get_or_init(|| {
            let members = |(n, group): (usize, &'a Group)| group.members.iter().map(move |member| (&member.tenant, n));
            let mut groups: Vec<_> = self.groups.iter().enumerate().flat_map(members).collect();
            groups.sort();
            groups
        });
        let first = groups.partition_point(|(member, _)| *member < tenant);
        let mut own = groups[first..].iter().take_while(|(member, _)| *member == tenant).map(|(_, n)| *n);
        own.find(|n| self.groups[*n].keys.includes(time))
    }

    /// The part of the run that reads this row, which the ledger knows from an earlier run.
    fn part_of(&self, check_result: &CheckResult, entry: &Entry) -> Option<Part> {
        if self.groups.is_empty() {
            return (self.kind == Kind::Full).then_some(Part::Table);
        }
        let time = match check_result {
            CheckResult::Reject(reject) => reject.time.as_ref().or(entry.time.as_ref()),
            other => other.time(),
        };
        let is_settled = entry.settled && entry.time.as_ref() == time;
        if self.kind == Kind::Incremental && is_settled {
            return None;
        }
        self.group_of(check_result.tenant()?, time).map(Part::Group)
    }

    /// Forgets a rival when its row arrives, and returns whether it was one: then it is decided and counted
    /// already.
    pub(super) fn remove_rival(&mut self, id: &InvoiceId) -> bool {
        self.rivals.remove(id).is_some()
    }

    pub(super) fn note_gone(&mut self, id: &InvoiceId, tenant: Option<&Tenant>) {
        if self.gone.len() < RIVALS_AT_MOST {
            self.gone.insert(id.clone(), tenant.cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::plan::{KeysToRead, Member, OtherSpellings};
    use crate::window::Span;

    fn groups(tenants: usize, reading: &KeysToRead) -> Vec<Group> {
        let group = |n: usize| {
            let asked = Tenant(n.to_string());
            let members = vec![Member::new(asked.clone())];
            Group { asked, members, others: OtherSpellings::Exported, newest: None, ahead: None, keys: reading.clone() }
        };
        (0..tenants).map(group).collect()
    }

    /// With 100,000 tenants this ends only if a part looks at its own rivals, and a rival at its own tenant.
    #[test]
    fn a_part_finds_the_rivals_that_it_did_not_bring_among_those_of_100_000_tenants() {
        let groups = groups(100_000, &KeysToRead::In(Span::default()));
        let mut tally = Tally::new(Kind::Incremental, &groups);
        for n in 0..100_000 {
            let (id, tenant) = (InvoiceId(n.to_string()), Tenant(n.to_string()));
            let group = tally.group_of(&tenant, None).unwrap();
            assert_eq!(group, n);
            tally.remember(&id, Some(PendingDuplicate { part: Part::Group(group), tenant }));
        }
        assert!(tally.remove_rival(&InvoiceId::from("7")));
        for n in 0..100_000 {
            let expected = if n == 7 { vec![] } else { vec![Tenant(n.to_string())] };
            assert_eq!(tally.take_missing_rivals(Part::Group(n)), expected);
        }
    }

    #[test]
    fn a_rival_that_no_part_reads_counts_as_it_was_decided() {
        let groups = groups(1, &KeysToRead::None);
        let mut tally = Tally::new(Kind::Incremental, &groups);
        let (id, tenant) = (InvoiceId::from("1"), Tenant::from("0"));
        assert_eq!(tally.group_of(&tenant, None), None);
        tally.remember(&id, None);
        assert_eq!(tally.take_missing_rivals(Part::Group(0)), []);
        assert!(tally.remove_rival(&id) && !tally.remove_rival(&id));
    }
}
