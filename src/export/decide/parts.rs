//! Owns how far each part of a run has come (the to-do list, a group of tenants, the table, the rest of the ledger),
//! and how the watermarks of a group move once its last row is decided.

use std::collections::{BTreeMap, HashMap};

use crate::export::plan::{Group, KeysToRead, Member, OtherSpellings};
use crate::export::server::RunParameters;
use crate::export::ticket::Part;
use crate::invoice::{SourceTime, Tenant};
use crate::state::tenants::Advance;
use crate::window::{self, OpenWork, ReadFrom, Span};

/// The tenants that a part has shown, each with its newest source time.
pub(super) type Spellings = BTreeMap<Tenant, Option<SourceTime>>;

/// How far a part of the run has come.
#[derive(Default)]
struct Progress {
    /// Rows that have reached the deciding thread, also those that wait for a conflict.
    arrived: u64,
    /// How many rows the reader has handed over, and their tenants; None until it is through.
    expected: Option<(u64, Spellings)>,
}

#[derive(Default)]
pub(in crate::export) struct Parts {
    open: HashMap<Part, Progress>,
    todo_is_done: bool,
}

impl Parts {
    /// One more row has arrived.
    pub(super) fn note_row(&mut self, part: Part) {
        self.open.entry(part).or_default().arrived += 1;
    }

    /// The reader has handed over so many rows, and that is all.
    pub(super) fn expect(&mut self, part: Part, rows: u64, spellings: Spellings) {
        self.open.entry(part).or_default().expected = Some((rows, spellings));
    }

    /// Whether all rows of a part have arrived. Rows of the to-do list belong to tenants too, so no other part is
    /// complete before it. The caller resolves conflicts before it closes the part: rows that wait have arrived.
    pub(super) fn is_complete(&self, part: Part) -> bool {
        let progress = self.open.get(&part);
        let expected = progress.and_then(|progress| Some((progress.arrived, progress.expected.as_ref()?.0)));
        expected.is_some_and(|(arrived, rows)| arrived == rows) && (part == Part::Todo || self.todo_is_done)
    }

    /// Takes out a part that is complete, and returns the tenants that it has shown.
    pub(super) fn close(&mut self, part: Part) -> Option<Spellings> {
        self.open.remove(&part).and_then(|progress| progress.expected).map(|(_, spellings)| spellings)
    }

    /// The to-do list is done. Returns the parts that may have waited for that.
    pub(super) fn finish_todo(&mut self) -> Vec<Part> {
        self.todo_is_done = true;
        let mut waiting: Vec<Part> = self.open.keys().copied().collect();
        waiting.sort();
        waiting
    }
}

/// The spellings that a group exports: those that are known, and those that turned up.
pub(super) fn members(group: &Group, spellings: &Spellings) -> Vec<Member> {
    let is_known = |tenant: &Tenant| group.members.iter().any(|member| member.tenant == *tenant);
    let strangers = spellings.keys().filter(|tenant| !is_known(tenant)).cloned().map(Member::new);
    group.members.iter().cloned().chain(strangers).collect()
}

/// How the watermarks of a group move with the batch that holds its last row.
pub(super) fn advances(
    group: &Group,
    members: &[Member],
    spellings: &Spellings,
    parameters: &RunParameters,
) -> impl Iterator<Item = Advance> {
    let RunParameters { boundary, work, overlap, .. } = parameters;
    members.iter().map(|member| {
        let Member { tenant, newest, .. } = member;
        // What the source lists is the newest of all spellings, also of those that `--tenant` leaves out.
        let newest = if members.len() == 1 && group.others == OtherSpellings::Exported {
            group.newest.clone()
        } else {
            let shown = newest.clone().max(spellings.get(tenant).cloned().flatten());
            if group.newest.is_some() { shown.min(group.newest.clone()) } else { shown }
        };
        let look_back = window::look_back(boundary, newest.as_ref(), work, *overlap);
        let work_was_open = *work != OpenWork::None;
        let read_from = read_from(group, member);
        let is_same = (&look_back, &newest, work_was_open, &read_from)
            == (&member.look_back, &member.newest, member.work_was_open, &member.read_from);
        Advance {
            tenant: tenant.clone(),
            relative: members[0].tenant.clone(),
            watermark: boundary.clone(),
            unchanged: member.number.filter(|_| is_same && members.len() == 1),
            look_back,
            newest,
            work_was_open,
            read_from,
            written: 0,
        }
    })
}

/// From where on the spelling is read without a gap, up to the boundary. A run begins at or below the watermark, where
/// the run before it ended.
fn read_from(group: &Group, member: &Member) -> Option<ReadFrom> {
    match &group.keys {
        KeysToRead::None => member.read_from.clone(),
        // Of a spelling that turns up the older keys are read as well.
        KeysToRead::In(Span { after: Some(after), .. }) if member.number.is_some() => {
            member.read_from.clone().or(Some(ReadFrom::After(after.clone())))
        }
        KeysToRead::In(_) => Some(ReadFrom::TheBeginning),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::decide::tests::parameters;
    use crate::run::Kind;

    #[test]
    fn no_part_is_complete_before_its_last_row_and_the_to_do_list() {
        let mut parts = Parts::default();
        parts.note_row(Part::Group(0));
        assert!(!parts.is_complete(Part::Group(0)));
        parts.expect(Part::Group(0), 1, Spellings::new());
        assert!(!parts.is_complete(Part::Group(0)), "the to-do list is not done");
        parts.expect(Part::Todo, 1, Spellings::new());
        assert!(!parts.is_complete(Part::Todo));
        parts.note_row(Part::Todo);
        assert!(parts.is_complete(Part::Todo) && parts.close(Part::Todo).is_some());
        assert_eq!(parts.finish_todo(), [Part::Group(0)]);
        assert!(parts.is_complete(Part::Group(0)));
        assert!(parts.close(Part::Group(0)).is_some() && parts.close(Part::Group(0)).is_none());
    }

    #[test]
    fn a_new_spelling_moves_with_its_group_and_shows_no_newer_time_than_is_listed() {
        let time = |minute: u32| SourceTime(format!("2025-11-28 10:{minute:02}:00"));
        let parameters = parameters(Kind::Incremental);
        let group = Group {
            asked: Tenant::from("acme"),
            members: vec![Member::new(Tenant::from("acme"))],
            others: OtherSpellings::Exported,
            newest: Some(time(20)),
            ahead: None,
            keys: KeysToRead::None,
        };
        let spellings = Spellings::from([(Tenant::from("ACME"), Some(time(25)))]);
        let members = members(&group, &spellings);
        let advances: Vec<Advance> = advances(&group, &members, &spellings, &parameters).collect();
        let moved: Vec<_> = advances.iter().map(|advance| (advance.tenant.as_str(), advance.newest.clone())).collect();
        assert_eq!(moved, [("acme", None), ("ACME", Some(time(20)))]);
        assert!(advances.iter().all(|advance| advance.watermark == time(30) && advance.relative.as_str() == "acme"));
    }
}
