//! The parts of a run (groups of tenants, the to-do list, the table): how far each has come, and what is
//! done when the last row of one is decided. Watermarks move here, with the batch that holds that row.

use std::collections::BTreeMap;
use std::time::Duration;

use super::batch::{BATCH_ADVANCES, BATCH_BYTES, BATCH_TIME};
use super::diff::Part;
use super::pipeline::Clerk;
use super::plan::{Group, Member, Others};
use super::{Rejects, Settings};
use crate::event::{Event, Notice};
use crate::invoice::{InvoiceId, SourceTime, Tenant};
use crate::refusal::Trouble;
use crate::run::WhyKept;
use crate::state::ledger::Entry;
use crate::state::tenants::Advance;
use crate::state::todo::{Doubted, Leftover};
use crate::tree::name::TreePath;
use crate::tree::publish::concerns_one_tenant;
use crate::window::{self, OpenWork};

/// How far a part of the run has come.
#[derive(Default)]
pub(super) struct PartState {
    pub received: u64,
    /// How many rows there are, once the reader is through, and whose they are.
    pub expected: Option<(u64, BTreeMap<Tenant, Option<SourceTime>>)>,
}

impl Clerk<'_> {
    /// Closes what is complete.
    pub(super) fn after(&mut self, part: Part) -> anyhow::Result<()> {
        self.complete(part)?;
        self.go_on()
    }

    /// Sends the batch on its way if it is time, and records the one that is published.
    pub(super) fn go_on(&mut self) -> anyhow::Result<()> {
        let old = self.opened.elapsed() >= BATCH_TIME;
        let full = self.batch.len() >= self.limit || self.batch.advances.len() >= BATCH_ADVANCES;
        if full || self.batch.bytes() >= BATCH_BYTES || (old && !self.batch.is_empty()) {
            self.launch()?;
        }
        self.land_if_published()
    }

    /// Closes a part if all its rows are decided. Rows of the to-do list belong to tenants too, so no other
    /// part is closed before it.
    fn complete(&mut self, part: Part) -> anyhow::Result<()> {
        let state = self.parts.entry(part).or_default();
        let is_complete = state.expected.as_ref().is_some_and(|(rows, _)| *rows == state.received);
        if !is_complete || (part != Part::Todo && !self.todo_is_done) {
            return Ok(());
        }
        self.settle()?;
        self.take_back_doubles(|of| of == part);
        let Some((_, spellings)) = self.parts.remove(&part).and_then(|state| state.expected) else { return Ok(()) };
        match part {
            Part::Todo => {
                self.clear_doubt()?;
                self.todo_is_done = true;
                let mut waiting: Vec<Part> = self.parts.keys().copied().collect();
                waiting.sort();
                waiting.into_iter().try_for_each(|part| self.complete(part))
            }
            Part::Group(n) => {
                self.move_on(&self.groups[n], &spellings);
                Ok(())
            }
            Part::Table | Part::Unmet => Ok(()),
        }
    }

    /// All rows of a group are decided: its watermarks move with the batch that holds the last one.
    fn move_on(&mut self, group: &Group, spellings: &BTreeMap<Tenant, Option<SourceTime>>) {
        let is_member = |tenant: &Tenant| group.members.iter().any(|member| member.tenant == *tenant);
        let strangers: Vec<Member> =
            spellings.keys().filter(|tenant| !is_member(tenant)).cloned().map(Member::new).collect();
        let members: Vec<&Member> = group.members.iter().chain(&strangers).collect();
        for member in &members {
            let Member { tenant, newest, .. } = member;
            self.fail_if_rejected(tenant);
            self.ready.push(tenant.clone());
            if !self.settings.moves_watermarks() {
                continue;
            }
            // What the source lists is the newest of all spellings, also of those that `--tenant` leaves out.
            let newest = if members.len() == 1 && group.others == Others::Exported {
                group.newest.clone()
            } else {
                let shown = newest.clone().max(spellings.get(tenant).cloned().flatten());
                if group.newest.is_some() { shown.min(group.newest.clone()) } else { shown }
            };
            let Settings { boundary, work, overlap, .. } = self.settings;
            let look_back = window::look_back(boundary, newest.as_ref(), work, *overlap);
            let held = *work != OpenWork::None;
            let is_same = (&look_back, &newest, held) == (&member.look_back, &member.newest, member.held);
            self.batch.advances.push(Advance {
                tenant: tenant.clone(),
                relative: members[0].tenant.clone(),
                watermark: boundary.clone(),
                unchanged: member.number.filter(|_| is_same && members.len() == 1),
                look_back,
                newest,
                held,
                written: 0,
            });
        }
    }

    /// Everything in doubt was read again: files that nobody names now stem from a run that died.
    fn clear_doubt(&mut self) -> anyhow::Result<()> {
        // What is still on its way may fail, or be what lies there in a moment.
        if self.writing.is_some() && !self.doubted.is_empty() {
            self.publish_and_record()?;
        }
        if !self.outcome.failed.is_empty() {
            return Ok(());
        }
        for (path, doubted) in std::mem::take(&mut self.doubted) {
            match self.clear_up(&path, &doubted) {
                Ok(()) => self.batch.clear_doubt(path),
                // A folder that is not ours to read holds nobody else up.
                Err(error) if error.downcast_ref().is_some_and(concerns_one_tenant) => {
                    let (path, detail) = (path.to_string(), format!("{error:#}"));
                    (self.tell)(Event::Notice(Notice::NotRemoved { path, detail }));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn clear_up(&mut self, path: &TreePath, doubted: &Doubted) -> anyhow::Result<()> {
        let Doubted { writer, contents } = doubted;
        let owners = self.owners(None, path)?;
        for (owner, _) in &owners {
            self.believe_the_file(owner, path)?;
        }
        let is_kept = match writer {
            Some(writer) if owners.is_empty() => self.lost_its_file(writer)? && self.believe_the_file(writer, path)?,
            _ => !owners.is_empty(),
        };
        let Some(tree) = self.desk.tree.filter(|_| !is_kept) else { return Ok(()) };
        if tree.inspect(path)?.is_none_or(|facts| !facts.is_file) {
            return Ok(());
        }
        let there = tree.digest(path)?;
        match (contents.iter().find(|content| Some(content.digest) == there), there, writer) {
            (Some(content), ..) => self.clear_unnamed(path, content),
            (None, Some(digest), Some(writer)) if !doubted.is_content_known() => {
                self.batch.leave(Leftover { path: path.clone(), id: writer.clone(), digest, why: None });
                Ok(())
            }
            _ => {
                (self.tell)(Event::Notice(Notice::LeftInPlace { path: path.to_string() }));
                Ok(())
            }
        }
    }

    /// Whether an invoice that was withdrawn, or cannot be exported any more, after the dead run had moved its
    /// file, has none where the ledger says.
    fn lost_its_file(&self, id: &InvoiceId) -> anyhow::Result<bool> {
        let (Some(tree), Some(entry)) = (self.desk.tree, self.left_alone(id)?) else { return Ok(false) };
        Ok(tree.inspect(&entry.path)?.is_none())
    }

    /// An invoice whose row could not be read again keeps the file that the dead run wrote for it: what lies
    /// there is what the ledger has to say. Returns whether there is such a file.
    fn believe_the_file(&mut self, id: &InvoiceId, path: &TreePath) -> anyhow::Result<bool> {
        let (Some(tree), Some(entry)) = (self.desk.tree, self.left_alone(id)?) else { return Ok(false) };
        let Some(facts) = tree.inspect(path)?.filter(|facts| facts.is_file) else { return Ok(false) };
        let Some(digest) = tree.digest(path)? else { return Ok(false) };
        if (&entry.path, entry.digest) != (path, digest) {
            let entry = Entry { path: path.clone(), digest, size: facts.size, settled: false, ..entry };
            self.batch.find(entry);
        }
        Ok(true)
    }

    /// What the ledger says of an invoice about which nothing was decided since.
    fn left_alone(&self, id: &InvoiceId) -> anyhow::Result<Option<Entry>> {
        if self.is_overruled(id) { Ok(None) } else { self.current(id) }
    }

    pub(super) fn say_done(&mut self, ready: Vec<Tenant>) {
        for tenant in ready {
            if !self.outcome.failed.contains_key(&tenant) {
                let counts = self.outcome.tenants.get(&tenant).copied().unwrap_or_default();
                (self.tell)(Event::TenantDone { tenant, counts });
            }
        }
    }

    /// Says what only shows at the end: what came of tenants that no group stands for.
    pub(super) fn say_farewell(&mut self) {
        let (by, overlap) = (Duration::from_secs(self.outcome.totals.late_by), self.settings.overlap);
        if self.outcome.totals.late > 0 && by * 2 > overlap {
            (self.tell)(Event::Notice(Notice::Late { by, overlap }));
        }
        if self.timeless > 0 {
            (self.tell)(Event::Notice(Notice::WithoutTime { invoices: self.timeless }));
        }
        self.say_what_stays();
        if self.groups.is_empty() {
            let mut ready: Vec<Tenant> = self.started.iter().cloned().collect();
            ready.sort();
            ready.iter().for_each(|tenant| self.fail_if_rejected(tenant));
            self.say_done(ready);
        }
    }

    fn say_what_stays(&mut self) {
        for (why, (files, path)) in &self.outcome.left {
            let (why, files, example) = (*why, *files, path.to_string());
            (self.tell)(Event::Notice(Notice::StaysInPlace { why, files, example }));
        }
        if self.outcome.left.contains_key(&Some(WhyKept::Table)) && self.settings.table.is_none() {
            (self.tell)(Event::Notice(Notice::TableUnknown));
        }
    }

    /// Called when all rows of the tenant are decided, so that the others are exported.
    fn fail_if_rejected(&mut self, tenant: &Tenant) {
        let invoices = self.outcome.tenants.get(tenant).map_or(0, |counts| counts.rejected);
        if self.rejects == Rejects::FailTheirTenant && invoices > 0 {
            self.fail(tenant, Trouble::Rejects { invoices });
        }
    }
}
