//! The thread that decides. Rows that no other invoice stands against get their paths one by one, conflicts are resolved
//! once the batch is on record, watermarks move with the last row of their group.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::time::Instant;

use anyhow::{bail, ensure};

use super::batch::{BATCH_TIME, Batch, FIRST_BATCH_FILES, next_limit};
use super::conflicts::{Conflicts, DeferredRow, RereadRows, Winner, winners};
use super::decisions::{Decisions, Rival};
use super::doubted;
use super::ledger_view::PathOwners;
use super::parts::{Parts, advances, members};
use super::second::SecondSource;
use crate::event::Notice;
use crate::export::check::{Candidate, FileState, Verdict};
use crate::export::commit::Committer;
use crate::export::diff::ReaderEvent;
use crate::export::drive::{Checked, RowHandler};
use crate::export::metrics::RunResult;
use crate::export::one_by_one::{self, RetryingSource};
use crate::export::plan::Group;
use crate::export::ticket::{Part, Ticket, Trust};
use crate::invoice::{InvoiceId, Reason, Tenant};
use crate::lang::Explain;
use crate::refusal::Trouble;
use crate::run::KeptReason;
use crate::source::SourceError;
use crate::state::ledger::Entry;
use crate::state::todo::{Leftover, Reject, TodoReason};
use crate::tree::name::TreePath;
use crate::tree::publish::{Cause, Changes, Published, Removal};

/// Rows read to resolve conflicts at the most, with rivals. Rivals beyond that lose their path if it is taken, and are
/// read by the next run.
const READ_AT_MOST: usize = 5_000;
/// Documents asked for in one statement.
const DOCUMENTS_A_PAGE: usize = 100;

pub(in crate::export) struct Decider<'a> {
    groups: &'a [Group],
    decisions: Decisions<'a>,
    second: SecondSource<'a>,
    conflicts: Conflicts,
    parts: Parts,
    /// When the first row of the open batch may have come.
    opened: Instant,
    /// How many decisions the open batch may hold.
    limit: usize,
}

impl RowHandler for Decider<'_> {
    fn on_row(&mut self, checked: Checked) -> anyhow::Result<()> {
        let Checked { ticket: Ticket { part, known, late_by, .. }, verdict } = checked;
        self.parts.note_row(part);
        if self.decisions.tally.comes_again(verdict.id()) {
            // It was read again since, with its rivals, and dealt with.
            if let Verdict::Candidate(candidate) = &verdict {
                self.decisions.discard(candidate);
            }
            return self.after(part);
        }
        self.decisions.journal.meet(part, &verdict);
        self.count_late(verdict.tenant(), late_by);
        self.decide(verdict, known)?;
        self.after(part)?;
        self.decisions.journal.say_progress();
        Ok(())
    }

    fn on_reader_event(&mut self, told: ReaderEvent) -> anyhow::Result<()> {
        match told {
            ReaderEvent::Begun(n) => self.begin(n),
            ReaderEvent::Quiet(groups) => {
                for n in groups {
                    self.begin(n);
                    self.parts.expect(Part::Group(n), 0, BTreeMap::new());
                    self.after(Part::Group(n))?;
                }
            }
            ReaderEvent::Gone { part, id, .. } if self.decisions.tally.comes_again(&id) => self.after(part)?,
            ReaderEvent::Gone { part, id, tenant, late_by } => {
                self.decisions.journal.meet_gone();
                self.count_late(tenant.as_ref(), late_by);
                self.decisions.gone(id, tenant.as_ref());
                self.after(part)?;
            }
            ReaderEvent::Read { part, rows, spellings } => {
                self.parts.expect(part, rows, spellings);
                self.after(part)?;
            }
            ReaderEvent::Retrying { trouble, pause } => {
                self.decisions.journal.notice(Notice::Retrying { trouble, pause });
            }
            ReaderEvent::Failed { tenants, tenantless, trouble } => {
                tenants.iter().for_each(|tenant| self.decisions.journal.fail(tenant, trouble.clone()));
                self.decisions.journal.leave_unread(tenantless, trouble);
            }
        }
        Ok(())
    }

    fn on_idle(&mut self) -> anyhow::Result<()> {
        self.go_on()
    }

    fn checkpoint(&mut self) -> anyhow::Result<()> {
        self.publish_and_record()
    }

    /// Publishes and records what is left.
    fn finish(&mut self) -> anyhow::Result<()> {
        self.resolve_conflicts()?;
        let parts = self.decisions.tally.open_parts();
        parts.into_iter().for_each(|part| self.decisions.take_back_doubles(part));
        self.publish_and_record()?;
        self.decisions.journal.say_farewell(self.groups.len());
        if let Committer::DryRun { state, rehearsal, .. } = &self.decisions.view.committer {
            self.decisions.journal.say_prospects(*state, rehearsal)?;
        }
        let totals = &self.decisions.journal.outcome.totals.run;
        ensure!(
            totals.balances(),
            "the counts of this run do not balance, which is a bug; please report it: {totals:?}"
        );
        Ok(())
    }
}

impl<'a> Decider<'a> {
    pub(in crate::export) fn new(groups: &'a [Group], decisions: Decisions<'a>, second: SecondSource<'a>) -> Self {
        let (conflicts, parts) = Default::default();
        let (opened, limit) = (Instant::now(), FIRST_BATCH_FILES);
        Self { groups, decisions, second, conflicts, parts, opened, limit }
    }

    pub(in crate::export) fn into_outcome(self) -> RunResult {
        self.decisions.journal.outcome
    }

    /// The reader has begun a group: its tenants are started.
    fn begin(&mut self, group: usize) {
        for member in &self.groups[group].members {
            self.decisions.journal.start(&member.tenant, member.watermark.clone());
        }
    }

    /// Counts a row that earlier runs could not see, by so many seconds.
    fn count_late(&mut self, tenant: Option<&Tenant>, late_by: Option<u64>) {
        if late_by.is_some() {
            self.decisions.view.batch.count(tenant, |counts| counts.late(late_by));
        }
    }

    /// `known` is what the ledger said when the row was read.
    fn decide(&mut self, verdict: Verdict, known: Option<Entry>) -> anyhow::Result<()> {
        match verdict {
            Verdict::Candidate(candidate) => self.claim(candidate, known),
            Verdict::Reject(reject) => self.decisions.reject(reject),
            // The row is left to the next run.
            Verdict::Trouble { invoice, trouble } => {
                self.decisions.journal.fail(&invoice.tenant, trouble);
                Ok(())
            }
        }
    }

    /// Gives a candidate its path, or puts it aside until conflicts are resolved.
    fn claim(&mut self, candidate: Candidate, known: Option<Entry>) -> anyhow::Result<()> {
        if !self.decisions.has_entered && matches!(candidate.file, FileState::Unchanged) && known.is_some() {
            return self.decisions.accept(candidate, known, &PathOwners::default());
        }
        let owners = self.decisions.view.path_owners(&candidate.path)?;
        let rivals = owners.rivals(&candidate.invoice.id, candidate.digest);
        if rivals.is_empty()
            && self.decisions.still_holds(&candidate, known.as_ref())?
            && !self.is_awaited(&candidate)?
        {
            return self.decisions.accept(candidate, known, &owners);
        }
        self.put_aside(&candidate, rivals)?;
        if self.conflicts.is_full() { self.resolve_conflicts() } else { Ok(()) }
    }

    /// Whether a row that waits wants the path that this one is about to leave: then their conflicts are resolved
    /// together, and the path never lies empty.
    fn is_awaited(&self, candidate: &Candidate) -> anyhow::Result<bool> {
        if self.conflicts.is_empty() {
            return Ok(false);
        }
        let current = self.decisions.view.entry(&candidate.invoice.id)?;
        Ok(current.is_some_and(|entry| entry.path != candidate.path && self.conflicts.want(&entry.path)))
    }

    /// Puts a row aside until the batch is recorded, and with it the rivals that the batch holds, those that are about to
    /// leave its path, and those that were to have the path that one of them leaves, for it may come to stay: a decision
    /// that may be overruled is better not published first, and a path that an invoice wants never lies empty.
    fn put_aside(&mut self, candidate: &Candidate, rivals: Vec<InvoiceId>) -> anyhow::Result<()> {
        self.decisions.discard(candidate);
        let mut aside = rivals;
        aside.extend(self.decisions.view.batch.leaver(&candidate.path));
        while let Some(id) = aside.pop() {
            let Some((entry, staged)) = self.decisions.view.batch.withdraw(&id) else { continue };
            aside.extend(self.decisions.view.batch.leaver(&entry.path));
            if let Some(before) = self.decisions.view.entry(&id)? {
                self.decisions.view.batch.keep_file(&before.path);
                aside.extend(self.decisions.view.batch.takers(&before));
            }
            staged.iter().for_each(|staged| self.decisions.checker.discard(staged));
            self.conflicts.add(entry.id, entry.tenant, entry.path);
        }
        let Candidate { invoice, path, .. } = candidate;
        self.conflicts.add(invoice.id.clone(), invoice.tenant.clone(), path.clone());
        Ok(())
    }

    /// Reads the rows that wait again, with their rivals, and decides them together.
    fn resolve_conflicts(&mut self) -> anyhow::Result<()> {
        if self.conflicts.is_empty() {
            return Ok(());
        }
        if self.decisions.view.committer.changes_the_tree() {
            self.publish_and_record()?;
        }
        self.decisions.has_entered = true;
        let waiting = self.conflicts.take();
        let fresh = match self.read_with_rivals(&waiting) {
            // The rows that wait are left to the next run.
            Err(SourceError::Statement(error)) => {
                let trouble = Trouble::from(&error);
                let tenants = waiting.values().map(|waiting| &waiting.tenant);
                tenants.for_each(|tenant| self.decisions.journal.fail(tenant, trouble.clone()));
                return Ok(());
            }
            result => result.map_err(SourceError::into_error)?,
        };
        let rivals = fresh.keys().filter(|id| !waiting.contains_key(*id));
        let mut rivals: HashMap<InvoiceId, Rival> =
            rivals.map(|id| Ok((id.clone(), self.decisions.rival(id)?))).collect::<anyhow::Result<_>>()?;
        let winners = winners(&fresh);
        self.displace_losers(&winners)?;
        for (id, verdict) in fresh {
            let of_waiting = waiting.get(&id).map(|waiting| &waiting.tenant);
            if of_waiting.is_none() && !self.is_news(verdict.as_ref())? {
                continue;
            }
            let rival = rivals.remove(&id).unwrap_or_default();
            if of_waiting.is_none() {
                self.decisions.recount(&id, verdict.as_ref(), &rival);
            }
            match verdict {
                Some(verdict) => self.award(verdict, &winners)?,
                None => self.decisions.gone(id, of_waiting.or(rival.entry.as_ref().map(|entry| &entry.tenant))),
            }
        }
        Ok(())
    }

    /// An invoice that has a path with other content than the winner loses it, and is on the to-do list until it has a
    /// new one. Of a tenant that has failed nothing is accepted.
    fn displace_losers(&mut self, winners: &HashMap<TreePath, Winner>) -> anyhow::Result<()> {
        let Decisions { view, journal, .. } = &mut self.decisions;
        for (path, winner) in winners.iter().filter(|(_, winner)| !journal.has_failed(&winner.tenant)) {
            for rival in view.rivals(&winner.id, path, winner.digest)? {
                view.batch.displace(&rival);
            }
        }
        Ok(())
    }

    /// The rows that wait, their rivals, and the rivals' rivals.
    fn read_with_rivals(&mut self, waiting: &BTreeMap<InvoiceId, DeferredRow>) -> Result<RereadRows, SourceError> {
        let mut fresh = RereadRows::new();
        let mut ask: BTreeSet<InvoiceId> = waiting.keys().cloned().collect();
        while !ask.is_empty() && fresh.len() < READ_AT_MOST {
            let ids: Vec<InvoiceId> = mem::take(&mut ask).into_iter().collect();
            for page in ids.chunks(DOCUMENTS_A_PAGE) {
                self.read_again(page, waiting, &mut fresh)?;
            }
            for id in &ids {
                if let Some(Some(Verdict::Candidate(candidate))) = fresh.get(id) {
                    let rivals = self.decisions.view.rivals(id, &candidate.path, candidate.digest);
                    let rivals = rivals.map_err(SourceError::Consumer)?;
                    ask.extend(rivals.into_iter().filter(|rival| !fresh.contains_key(rival)));
                }
            }
        }
        Ok(fresh)
    }

    /// Reads rows by key. One that the server does not return is a reject, as in a page.
    fn read_again(
        &mut self,
        ids: &[InvoiceId],
        waiting: &BTreeMap<InvoiceId, DeferredRow>,
        fresh: &mut RereadRows,
    ) -> Result<(), SourceError> {
        let mut known: HashMap<&InvoiceId, (Option<Entry>, Trust)> = HashMap::new();
        for id in ids {
            let is_doubted = self.decisions.retried.get(id) == Some(&TodoReason::Doubt);
            let entry = self.decisions.view.entry(id).map_err(SourceError::Consumer)?;
            known.insert(id, (entry, if is_doubted { Trust::Nothing } else { Trust::Ledger }));
        }
        let checker = self.decisions.checker;
        let mut asks = self.second.telling(self.decisions.journal.tell);
        let refused = one_by_one::read(ids, |ids| {
            asks.ask(|source| {
                let missing: Vec<InvoiceId> = ids.iter().filter(|id| !fresh.contains_key(*id)).cloned().collect();
                source.documents(&missing, &mut |fetched| {
                    let id = fetched.id().clone();
                    if let Some((known, trust)) = known.get(&id) {
                        let verdict = checker.check(fetched, known.as_ref(), *trust)?;
                        fresh.insert(id, Some(verdict));
                    }
                    Ok(())
                })
            })
        })?;
        let came: Vec<InvoiceId> = ids.iter().filter(|id| fresh.contains_key(*id)).cloned().collect();
        for (id, error) in one_by_one::blame(&mut asks, refused, &came)? {
            let of_ledger = known.get(&id).and_then(|(known, _)| known.as_ref()).map(|known| &known.tenant);
            let tenant = waiting.get(&id).map(|waiting| &waiting.tenant).or(of_ledger).cloned();
            let reason = Reason::Unreadable { detail: format!("{error:#}") };
            let reject = Reject { id: id.clone(), tenant, number: None, time: None, reason };
            fresh.insert(id, Some(Verdict::Reject(reject)));
        }
        for id in ids {
            fresh.entry(id.clone()).or_insert(None);
        }
        Ok(())
    }

    /// Whether anything about a rival is to be decided, which was read only because another invoice wants its path.
    fn is_news(&self, verdict: Option<&Verdict>) -> anyhow::Result<bool> {
        let Some(Verdict::Candidate(candidate)) = verdict else { return Ok(true) };
        Ok(!candidate.is_written() || self.decisions.view.entry(&candidate.invoice.id)?.is_none())
    }

    /// The winner of a path gets it, with the invoices that have the same document; others are rejected.
    fn award(&mut self, verdict: Verdict, winners: &HashMap<TreePath, Winner>) -> anyhow::Result<()> {
        let Verdict::Candidate(candidate) = verdict else { return self.decide(verdict, None) };
        let Some(winner) = winners.get(&candidate.path) else { bail!("no invoice won {}", candidate.path) };
        if winner.digest == candidate.digest {
            let owners = self.decisions.view.path_owners(&candidate.path)?;
            return self.decisions.accept(candidate, None, &owners);
        }
        self.decisions.discard(&candidate);
        self.decisions.reject(winner.beats(candidate.invoice, &candidate.path))
    }

    /// Closes what is complete.
    fn after(&mut self, part: Part) -> anyhow::Result<()> {
        self.complete(part)?;
        self.go_on()
    }

    /// Closes a part if all its rows are decided.
    fn complete(&mut self, part: Part) -> anyhow::Result<()> {
        if !self.parts.is_complete(part) {
            return Ok(());
        }
        self.resolve_conflicts()?;
        self.decisions.take_back_doubles(part);
        let Some(spellings) = self.parts.close(part) else { return Ok(()) };
        match part {
            Part::Todo => {
                self.clear_doubt()?;
                self.parts.finish_todo().into_iter().try_for_each(|part| self.complete(part))
            }
            Part::Group(n) => {
                let members = members(&self.groups[n], &spellings);
                let Decisions { view, parameters, .. } = &mut self.decisions;
                view.batch.ready.extend(members.iter().map(|member| member.tenant.clone()));
                if parameters.moves_watermarks() {
                    let advances = advances(&self.groups[n], &members, &spellings, parameters);
                    view.batch.record.advances.extend(advances);
                }
                Ok(())
            }
            Part::Table | Part::Unmet => Ok(()),
        }
    }

    /// Called when the to-do list is done, and everything in doubt was read again with it.
    fn clear_doubt(&mut self) -> anyhow::Result<()> {
        if self.decisions.view.committer.changes_the_tree() && !self.decisions.doubted.is_empty() {
            self.publish_and_record()?;
        }
        doubted::clear_doubt(&mut self.decisions)
    }

    /// Sends the batch on its way if it is time, and records the one that is published.
    fn go_on(&mut self) -> anyhow::Result<()> {
        let batch = &self.decisions.view.batch;
        let is_old = self.opened.elapsed() >= BATCH_TIME && !batch.is_empty();
        if is_old || batch.is_full(self.limit) {
            self.submit_batch()?;
        }
        let is_published = self.decisions.view.in_flight.is_some() && self.decisions.view.committer.is_published();
        if is_published { self.record_published() } else { Ok(()) }
    }

    /// Returns when everything decided so far is on record.
    fn publish_and_record(&mut self) -> anyhow::Result<()> {
        self.submit_batch()?;
        self.record_published()
    }

    /// Closes the batch and sends it on its way, on which it gets its names once the one before has arrived.
    /// That one is recorded meanwhile.
    fn submit_batch(&mut self) -> anyhow::Result<()> {
        if self.decisions.view.batch.is_empty() {
            let ready = mem::take(&mut self.decisions.view.batch.ready);
            self.record_published()?;
            self.decisions.journal.fail_if_rejected(&ready);
            self.decisions.journal.say_done(ready);
            return Ok(());
        }
        // A path that is left is free before another invoice may claim it, and stays if an invoice of the batch before
        // keeps it.
        if self.decisions.view.batch.removes() {
            self.record_published()?;
        }
        let mut changes = self.decisions.view.batch.take_changes();
        self.keep_unless_table_lasts(&mut changes)?;
        let removes = !changes.removals.is_empty();
        let published = self.decisions.view.committer.submit(changes)?;
        // What became of the batch before may change what is recorded of this one.
        self.record_published()?;
        self.opened = Instant::now();
        let batch = mem::take(&mut self.decisions.view.batch);
        self.limit = next_limit(self.limit, self.decisions.journal.outcome.totals.run.written + batch.written());
        if let Some(published) = published {
            return self.record(batch, &published);
        }
        self.decisions.view.in_flight = Some(batch);
        if removes { self.record_published() } else { Ok(()) }
    }

    /// Waits until the batch on its way is published, and records it.
    pub(in crate::export) fn record_published(&mut self) -> anyhow::Result<()> {
        let Some(batch) = self.decisions.view.in_flight.take() else { return Ok(()) };
        let published = self.decisions.view.committer.wait_published()?;
        self.record(batch, &published)
    }

    /// Records a batch that is published, and says which tenants are done.
    fn record(&mut self, mut batch: Batch, published: &Published) -> anyhow::Result<()> {
        self.decisions.close(&mut batch, published)?;
        self.decisions.view.committer.record(published, &batch.record)?;
        self.decisions.journal.say_done(batch.ready);
        Ok(())
    }

    /// A table may be emptied or exchanged while it is read. The rows of a batch were read before this asks, so that
    /// they are of the table of the run's start if it is still there. If not, the batch removes nothing.
    fn keep_unless_table_lasts(&mut self, changes: &mut Changes) -> anyhow::Result<()> {
        if changes.removals.is_empty() || self.table_lasts()? {
            return Ok(());
        }
        self.decisions.table = None;
        for Removal { path, digest, cause, .. } in mem::take(&mut changes.removals) {
            let (Cause::Superseded(id) | Cause::InDoubt(id)) = cause;
            self.decisions.leave_if_there(Leftover { path, id, digest, why: Some(KeptReason::Table) });
        }
        Ok(())
    }

    /// A server that refuses to show the table, or takes too long for it, proves nothing.
    fn table_lasts(&mut self) -> anyhow::Result<bool> {
        let Some(before) = &self.decisions.parameters.table else { return Ok(false) };
        let mut asks = self.second.telling(self.decisions.journal.tell);
        match asks.ask(|source| source.table_identity()) {
            Ok(now) => Ok(now.is_some_and(|now| before.lasts(&now))),
            Err(SourceError::Statement(_)) => Ok(false),
            Err(fault) => Err(fault).explain(|| {
                text!("cannot see whether the table is still the same", "无法确认数据表是否仍是原来的那张")
            }),
        }
    }
}
