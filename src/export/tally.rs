//! Each row is counted once, as what came of it last. A row that was decided may lose its path to one that the run
//! reads later; it is read again then, as a rival, and what was counted of it before is taken back.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::check::{Candidate, Verdict};
use super::diff::Part;
use super::pipeline::{Clerk, tenant_of};
use super::plan::Group;
use crate::invoice::{InvoiceId, SourceTime, Tenant};
use crate::run::{Counts, Kind};
use crate::state::ledger::Entry;

/// Rivals remembered, so that a row that comes again is not counted again; more are counted twice.
const RIVALS_AT_MOST: usize = 100_000;

/// Rivals of earlier runs that were decided. The reader has brought them before, will yet bring them, or reads them not
/// at all: none of that is on record of a row about which nothing had to be recorded.
pub(super) struct Tally<'a> {
    groups: &'a [Group],
    /// Sorted, and made when the first rival turns up: there may be a hundred thousand tenants.
    groups_of_tenants: OnceCell<Vec<(&'a Tenant, usize)>>,
    rivals: HashMap<InvoiceId, Option<Double>>,
    /// The rivals that each part may bring.
    parts: HashMap<Part, Vec<InvoiceId>>,
    /// Rows that were counted as gone, which nothing on record says.
    gone: HashMap<InvoiceId, Option<Tenant>>,
}

/// What was counted of a row before, and the tenant that it was counted for.
pub(super) type Counted = (Option<Tenant>, Counts);

/// The part of the run that brings a rival, and the tenant for which it then counts as unchanged.
struct Double {
    part: Part,
    tenant: Tenant,
}

impl<'a> Tally<'a> {
    pub(super) fn new(groups: &'a [Group]) -> Self {
        let (groups_of_tenants, rivals, parts, gone) = Default::default();
        Self { groups, groups_of_tenants, rivals, parts, gone }
    }

    /// Remembers a rival that was decided. `part` is the part of the run that reads it, if one does.
    fn note_rival(&mut self, id: &InvoiceId, part: Option<Part>, tenant: Option<&Tenant>) {
        if self.rivals.len() >= RIVALS_AT_MOST {
            return;
        }
        let double = part.zip(tenant).map(|(part, tenant)| Double { part, tenant: tenant.clone() });
        self.rivals.insert(id.clone(), double);
        if let Some(part) = part {
            self.parts.entry(part).or_default().push(id.clone());
        }
    }

    /// The tenants of the rivals that this part should have brought, and has not.
    fn not_brought_by(&mut self, part: Part) -> Vec<Tenant> {
        let ids = self.parts.remove(&part).unwrap_or_default();
        let is_double = |double: &Option<Double>| double.as_ref().is_some_and(|double| double.part == part);
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
        own.find(|n| self.groups[*n].reading.includes(time))
    }

    /// Whether a row that comes now was decided as a rival.
    pub(super) fn comes_again(&mut self, id: &InvoiceId) -> bool {
        self.rivals.remove(id).is_some()
    }

    pub(super) fn note_gone(&mut self, id: &InvoiceId, tenant: Option<&Tenant>) {
        if self.gone.len() < RIVALS_AT_MOST {
            self.gone.insert(id.clone(), tenant.cloned());
        }
    }
}

impl Clerk<'_> {
    /// What this run has counted of a row so far. The batch of a dry run is not recorded before its rivals are read.
    pub(super) fn counted(&self, id: &InvoiceId) -> anyhow::Result<Option<Counted>> {
        if let Some(counted) = self.batch.counted(id) {
            return Ok(Some(counted));
        }
        let recorded = match (&self.state, &self.writing) {
            (Some(state), Some(writing)) => state.counted(writing.run.id, id)?,
            _ => self.rehearsed(id)?.map(|rehearsed| (rehearsed.tenant, rehearsed.counted)),
        };
        let gone = Counts { seen: 1, gone: 1, ..Counts::default() };
        let gone = || self.tally.gone.get(id).map(|tenant| (tenant.clone(), gone));
        Ok(recorded.filter(|(_, counts)| counts.seen > 0).or_else(gone))
    }

    /// Counts a rival that is decided. `entry` and `counted` are what was known of it before.
    pub(super) fn count_rival(
        &mut self,
        id: &InvoiceId,
        verdict: Option<&Verdict>,
        entry: Option<&Entry>,
        counted: Option<Counted>,
    ) {
        if let Some((tenant, counts)) = counted {
            self.tally.gone.remove(id);
            self.take_back(tenant.as_ref(), counts);
        } else {
            let part = verdict.zip(entry).and_then(|(verdict, entry)| self.part_of(verdict, entry));
            self.tally.note_rival(id, part, entry.map(|entry| &entry.tenant));
        }
        // As what comes of it is counted: a row that is there may have no tenant any more.
        let tenant = verdict.map_or(entry.map(|entry| &entry.tenant), tenant_of);
        self.count(tenant, |counts| counts.seen += 1);
    }

    fn take_back(&mut self, tenant: Option<&Tenant>, counted: Counts) {
        self.outcome.totals -= counted;
        if let Some(tenant) = tenant {
            *self.outcome.tenants.entry(tenant.clone()).or_default() -= counted;
            *self.batch.taken_back.entry(tenant.clone()).or_default() += counted;
        }
    }

    /// Rivals that this part should have brought, and has not since: they came before, and were unchanged then.
    pub(super) fn take_back_doubles(&mut self, part: Part) {
        for tenant in self.tally.not_brought_by(part) {
            let unchanged = self.outcome.tenants.get(&tenant).map_or(0, |counts| counts.unchanged);
            if unchanged > 0 {
                self.take_back(Some(&tenant), Counts { seen: 1, unchanged: 1, ..Counts::default() });
            }
        }
    }

    /// The same of all parts.
    pub(super) fn take_back_all_doubles(&mut self) {
        let parts: Vec<Part> = self.tally.parts.keys().copied().collect();
        parts.into_iter().for_each(|part| self.take_back_doubles(part));
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
        self.tally.group_of(tenant_of(verdict)?, time).map(Part::Group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::plan::{Member, Others, Reading};
    use crate::window::Span;

    fn groups(tenants: usize, reading: &Reading) -> Vec<Group> {
        let group = |n: usize| {
            let asked = Tenant(n.to_string());
            let members = vec![Member::new(asked.clone())];
            Group { asked, members, others: Others::Exported, newest: None, reading: reading.clone() }
        };
        (0..tenants).map(group).collect()
    }

    /// With 100,000 tenants this ends only if a part looks at its own rivals, and a rival at its own tenant.
    #[test]
    fn a_part_finds_the_rivals_that_it_did_not_bring_among_those_of_100_000_tenants() {
        let groups = groups(100_000, &Reading::Keys(Span::default()));
        let mut tally = Tally::new(&groups);
        for n in 0..100_000 {
            let (id, tenant) = (InvoiceId(n.to_string()), Tenant(n.to_string()));
            let group = tally.group_of(&tenant, None).unwrap();
            assert_eq!(group, n);
            tally.note_rival(&id, Some(Part::Group(group)), Some(&tenant));
        }
        assert!(tally.comes_again(&InvoiceId::from("7")));
        for n in 0..100_000 {
            let expected = if n == 7 { vec![] } else { vec![Tenant(n.to_string())] };
            assert_eq!(tally.not_brought_by(Part::Group(n)), expected);
        }
    }

    #[test]
    fn a_rival_that_no_part_reads_counts_as_it_was_decided() {
        let groups = groups(1, &Reading::Nothing);
        let mut tally = Tally::new(&groups);
        let (id, tenant) = (InvoiceId::from("1"), Tenant::from("0"));
        let part = tally.group_of(&tenant, None).map(Part::Group);
        tally.note_rival(&id, part, Some(&tenant));
        assert_eq!(tally.not_brought_by(Part::Group(0)), []);
        assert!(tally.comes_again(&id) && !tally.comes_again(&id));
    }
}
