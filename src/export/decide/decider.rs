//! Owns the order of steps in the deciding thread. A row gets its path at once if no other invoice has or wants that
//! path with another document; otherwise it waits until the batch is on record and the conflict is resolved. The
//! watermarks of a group move with its last row.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::time::Instant;

use anyhow::{bail, ensure};

use super::batch::{BATCH_TIME, Batch, FIRST_BATCH_DECISIONS, next_limit};
use super::conflicts::{Conflicts, DeferredRow, RereadRows, Winner, winners};
use super::decider_source::DeciderSource;
use super::decisions::{Decisions, Rival};
use super::doubted;
use super::ledger_view::{InFlight, PathOwners};
use super::parts::{Parts, advances, members};
use crate::event::Notice;
use crate::export::check::{Candidate, CheckResult, FileState};
use crate::export::commit::Committer;
use crate::export::diff::ReaderEvent;
use crate::export::drive::{Checked, RowHandler};
use crate::export::metrics::RunResult;
use crate::export::one_by_one::{self, RetryingSource};
use crate::export::plan::Group;
use crate::export::ticket::{Part, Rewrite, Ticket};
use crate::invoice::InvoiceId;
use crate::lang::Explain;
use crate::refusal::Trouble;
use crate::run::KeptReason;
use crate::source::SourceError;
use crate::state::ledger::Entry;
use crate::state::todo::{Leftover, TodoReason};
use crate::tree::name::TreePath;
use crate::tree::publish::{Cause, Changes, Published, Removal};

/// Once so many rows were read to resolve conflicts, no further round of rivals is read. Rivals beyond that lose their
/// path if it is taken, and are read by the next run.
const REREAD_AT_MOST: usize = 5_000;
/// Rows read again in one statement. They are fewer than in a page of the reader, because the deciding thread reads
/// them one by one if the server refuses the statement.
const REREAD_A_PAGE: usize = 100;

pub(in crate::export) struct Decider<'a> {
    groups: &'a [Group],
    decisions: Decisions<'a>,
    source: DeciderSource<'a>,
    conflicts: Conflicts,
    parts: Parts,
    /// When the open batch was begun: no row of it came earlier.
    opened: Instant,
    /// How many decisions the open batch may hold.
    limit: usize,
}

impl RowHandler for Decider<'_> {
    fn on_row(&mut self, checked: Checked) -> anyhow::Result<()> {
        let Checked { ticket: Ticket { part, known, late_by, .. }, check_result } = checked;
        self.parts.note_row(part);
        if self.decisions.tally.remove_rival(check_result.id()) {
            // It was read again since, with its rivals, and dealt with.
            if let CheckResult::Candidate(candidate) = &check_result {
                self.decisions.discard(candidate);
            }
            return self.close_and_submit(part);
        }
        self.decisions.journal.note_row(part, &check_result);
        if let Some(late_by) = late_by {
            self.count_late(&check_result, late_by)?;
        }
        self.decide(check_result, known)?;
        self.close_and_submit(part)?;
        self.decisions.journal.say_progress();
        Ok(())
    }

    fn on_reader_event(&mut self, event: ReaderEvent) -> anyhow::Result<()> {
        match event {
            ReaderEvent::Begun(n) => self.begin(n),
            ReaderEvent::Quiet(groups) => {
                for n in groups {
                    self.begin(n);
                    self.parts.expect(Part::Group(n), 0, BTreeMap::new());
                    self.close_and_submit(Part::Group(n))?;
                }
            }
            ReaderEvent::Gone { part, id, tenant } => {
                // What the index shows need not be an invoice: of a row that was on no record it is not known that it was.
                let was_invoice = part == Part::Todo || self.decisions.view.is_on_record(&id)?;
                if !self.decisions.tally.remove_rival(&id) && was_invoice {
                    self.decisions.journal.note_gone_row();
                    self.decisions.record_gone(id, tenant.as_ref());
                }
                self.close_and_submit(part)?;
            }
            ReaderEvent::Read { part, rows, spellings } => {
                self.parts.expect(part, rows, spellings);
                self.close_and_submit(part)?;
            }
            ReaderEvent::Retrying { trouble, pause } => {
                self.decisions.journal.notice(Notice::Retrying { trouble, pause });
            }
            ReaderEvent::Failed { tenants, tenantless, trouble } => {
                tenants.iter().for_each(|tenant| self.decisions.journal.fail(tenant, trouble.clone()));
                self.decisions.journal.report_unread(tenantless, trouble);
            }
        }
        Ok(())
    }

    fn on_idle(&mut self) -> anyhow::Result<()> {
        self.submit_if_due()
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
        self.decisions.journal.finish(self.groups.len());
        if let Committer::DryRun { state, dry_run_ledger, .. } = &self.decisions.view.committer {
            self.decisions.journal.say_prospects(*state, dry_run_ledger)?;
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
    pub(in crate::export) fn new(groups: &'a [Group], decisions: Decisions<'a>, source: DeciderSource<'a>) -> Self {
        let (conflicts, parts) = Default::default();
        let (opened, limit) = (Instant::now(), FIRST_BATCH_DECISIONS);
        Self { groups, decisions, source, conflicts, parts, opened, limit }
    }

    pub(in crate::export) fn into_outcome(self) -> RunResult {
        self.decisions.journal.outcome
    }

    /// The reader has begun a group: its tenants are started.
    fn begin(&mut self, group: usize) {
        for member in &self.groups[group].members {
            self.decisions.journal.start(member);
        }
    }

    /// Counts a late arrival, by so many seconds. None is an invoice with a file that is right already, nor one that
    /// earlier runs have seen: they have rejected it, or exported it and removed its file when its row was gone.
    fn count_late(&mut self, check_result: &CheckResult, late_by: u64) -> anyhow::Result<()> {
        let Decisions { view, .. } = &mut self.decisions;
        let may_be_new = match check_result {
            CheckResult::Candidate(candidate) => !candidate.has_right_file() && !view.was_pruned(&candidate.path)?,
            CheckResult::Reject(_) => true,
            CheckResult::Trouble { .. } => false,
        };
        if may_be_new && !view.was_rejected(check_result.id())? {
            view.batch.count(check_result.tenant(), |counts| counts.count_late_arrival(late_by));
        }
        Ok(())
    }

    /// `known` is what the ledger said when the row was read.
    fn decide(&mut self, check_result: CheckResult, known: Option<Entry>) -> anyhow::Result<()> {
        match check_result {
            CheckResult::Candidate(candidate) => self.claim(candidate, known),
            CheckResult::Reject(reject) => self.decisions.reject(reject),
            // The row is left to the next run.
            CheckResult::Trouble { invoice, trouble } => {
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

    /// Whether a waiting row wants the path that this candidate leaves. Such rows are decided together, so that the
    /// path is never empty in between.
    fn is_awaited(&self, candidate: &Candidate) -> anyhow::Result<bool> {
        if self.conflicts.is_empty() {
            return Ok(false);
        }
        let current = self.decisions.view.entry(&candidate.invoice.id)?;
        Ok(current.is_some_and(|entry| entry.path != candidate.path && self.conflicts.is_wanted(&entry.path)))
    }

    /// Puts a row aside until the batch is recorded, and with it the rivals that the batch holds, those that are about
    /// to leave its path, and those that were to have the path that one of them leaves, for it may come to stay: a
    /// decision that may be overruled is better not published first, and a path that an invoice wants never lies empty.
    fn put_aside(&mut self, candidate: &Candidate, rivals: Vec<InvoiceId>) -> anyhow::Result<()> {
        self.decisions.discard(candidate);
        let mut aside = rivals;
        aside.extend(self.decisions.view.batch.mover(&candidate.path));
        while let Some(id) = aside.pop() {
            let Some((entry, staged)) = self.decisions.view.batch.withdraw(&id) else { continue };
            self.decisions.tally.take_kept(&id);
            aside.extend(self.decisions.view.batch.mover(&entry.path));
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
        match self.read_with_rivals(&waiting) {
            Ok(fresh) => self.decide_together(&waiting, fresh),
            // The rows that wait are left to the next run.
            Err(SourceError::Statement(error)) => {
                let trouble = Trouble::from(&error);
                let tenants = waiting.values().map(|waiting| &waiting.tenant);
                tenants.for_each(|tenant| self.decisions.journal.fail(tenant, trouble.clone()));
                Ok(())
            }
            Err(fault) => Err(fault.into_error()),
        }
    }

    /// Decides rows that were read again. A rival about which there is nothing new stays as it was decided before.
    fn decide_together(&mut self, waiting: &BTreeMap<InvoiceId, DeferredRow>, fresh: RereadRows) -> anyhow::Result<()> {
        let rivals = fresh.keys().filter(|id| !waiting.contains_key(*id));
        let mut rivals: HashMap<InvoiceId, Rival> =
            rivals.map(|id| Ok((id.clone(), self.decisions.take_rival(id)?))).collect::<anyhow::Result<_>>()?;
        let winners = winners(&fresh);
        self.displace_losers(&winners)?;
        for (id, check_result) in fresh {
            let of_waiting = waiting.get(&id).map(|waiting| &waiting.tenant);
            if of_waiting.is_none() && !self.is_news(check_result.as_ref())? {
                continue;
            }
            let rival = rivals.remove(&id).unwrap_or_default();
            if of_waiting.is_none() {
                self.decisions.recount(&id, check_result.as_ref(), &rival);
            }
            match check_result {
                Some(check_result) => self.decide_contender(check_result, &winners)?,
                None => self.decisions.record_gone(id, of_waiting.or(rival.entry.as_ref().map(|entry| &entry.tenant))),
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

    /// Reads the rows that wait, then round by round the rivals of what was read, until no row has a rival that is not
    /// read yet (the transitive closure) or `REREAD_AT_MOST` rows are.
    fn read_with_rivals(&mut self, waiting: &BTreeMap<InvoiceId, DeferredRow>) -> Result<RereadRows, SourceError> {
        let mut fresh = RereadRows::new();
        let mut ask: BTreeSet<InvoiceId> = waiting.keys().cloned().collect();
        while !ask.is_empty() && fresh.len() < REREAD_AT_MOST {
            let ids: Vec<InvoiceId> = mem::take(&mut ask).into_iter().collect();
            for page in ids.chunks(REREAD_A_PAGE) {
                self.read_again(page, waiting, &mut fresh)?;
            }
            for id in &ids {
                if let Some(Some(CheckResult::Candidate(candidate))) = fresh.get(id) {
                    let rivals = self.decisions.view.rivals(id, &candidate.path, candidate.digest);
                    let rivals = rivals.map_err(SourceError::Consumer)?;
                    ask.extend(rivals.into_iter().filter(|rival| !fresh.contains_key(rival)));
                }
            }
        }
        Ok(fresh)
    }

    /// What is known of each row before it is read again, and whether its file is written in any case.
    fn known_of<'i>(&self, ids: &'i [InvoiceId]) -> anyhow::Result<HashMap<&'i InvoiceId, (Option<Entry>, Rewrite)>> {
        let known = ids.iter().map(|id| {
            let is_doubted = self.decisions.retried.get(id) == Some(&TodoReason::Doubt);
            let rewrite = if is_doubted { Rewrite::Always } else { Rewrite::IfWrong };
            Ok((id, (self.decisions.view.entry(id)?, rewrite)))
        });
        known.collect()
    }

    /// Reads rows by key. One that the server does not return is a reject, as in a page.
    fn read_again(
        &mut self,
        ids: &[InvoiceId],
        waiting: &BTreeMap<InvoiceId, DeferredRow>,
        fresh: &mut RereadRows,
    ) -> Result<(), SourceError> {
        let known = self.known_of(ids).map_err(SourceError::Consumer)?;
        let checker = self.decisions.checker;
        let mut asks = self.source.telling(self.decisions.journal.tell);
        let refused = one_by_one::read(ids, |ids| {
            asks.ask(|source| {
                let missing: Vec<InvoiceId> = ids.iter().filter(|id| !fresh.contains_key(*id)).cloned().collect();
                source.documents(&missing, &mut |fetched| {
                    let id = fetched.id().clone();
                    if let Some((known, rewrite)) = known.get(&id) {
                        let check_result = checker.check(fetched, known.as_ref(), *rewrite)?;
                        fresh.insert(id, Some(check_result));
                    }
                    Ok(())
                })
            })
        })?;
        let readable: Vec<InvoiceId> = ids.iter().filter(|id| fresh.contains_key(*id)).cloned().collect();
        for (id, error) in one_by_one::blame(&mut asks, refused, &readable)? {
            let of_ledger = known.get(&id).and_then(|(known, _)| known.as_ref()).map(|known| &known.tenant);
            let tenant = waiting.get(&id).map(|waiting| &waiting.tenant).or(of_ledger).cloned();
            let unreadable = one_by_one::unreadable(id.clone(), tenant, &error);
            let reject = checker.check(unreadable, None, Rewrite::IfWrong).map_err(SourceError::Consumer)?;
            fresh.insert(id, Some(reject));
        }
        for id in ids {
            fresh.entry(id.clone()).or_insert(None);
        }
        Ok(())
    }

    /// Whether anything about a rival is to be decided, which was read only because another invoice wants its path.
    fn is_news(&self, check_result: Option<&CheckResult>) -> anyhow::Result<bool> {
        let Some(CheckResult::Candidate(candidate)) = check_result else { return Ok(true) };
        Ok(!candidate.has_right_file() || self.decisions.view.entry(&candidate.invoice.id)?.is_none())
    }

    /// The winner of a path gets it, with the invoices that have the same document; others are rejected.
    fn decide_contender(&mut self, checked: CheckResult, winners: &HashMap<TreePath, Winner>) -> anyhow::Result<()> {
        let CheckResult::Candidate(candidate) = checked else { return self.decide(checked, None) };
        let Some(winner) = winners.get(&candidate.path) else { bail!("no invoice won {}", candidate.path) };
        if winner.digest == candidate.digest {
            let owners = self.decisions.view.path_owners(&candidate.path)?;
            return self.decisions.accept(candidate, None, &owners);
        }
        self.decisions.discard(&candidate);
        self.decisions.reject(winner.beats(candidate.invoice, &candidate.path))
    }

    /// Called after each row and when the reader is through with a part: closes the part if it is complete, then
    /// submits the batch if it is due.
    fn close_and_submit(&mut self, part: Part) -> anyhow::Result<()> {
        self.close_if_complete(part)?;
        self.submit_if_due()
    }

    /// Closes a part if all its rows have arrived: resolves conflicts, then moves the watermarks of its group, or
    /// clears the paths in doubt after the to-do list.
    fn close_if_complete(&mut self, part: Part) -> anyhow::Result<()> {
        if !self.parts.is_complete(part) {
            return Ok(());
        }
        self.resolve_conflicts()?;
        self.decisions.take_back_doubles(part);
        let Some(spellings) = self.parts.close(part) else { return Ok(()) };
        match part {
            Part::Todo => {
                self.clear_doubt()?;
                self.parts.finish_todo().into_iter().try_for_each(|part| self.close_if_complete(part))
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
            Part::Table | Part::LedgerRest => Ok(()),
        }
    }

    /// Called when the to-do list is done, and everything in doubt was read again with it.
    fn clear_doubt(&mut self) -> anyhow::Result<()> {
        if self.decisions.view.committer.changes_the_tree() && !self.decisions.doubted.is_empty() {
            self.publish_and_record()?;
        }
        doubted::clear_doubt(&mut self.decisions)
    }

    /// Submits the open batch if it is full or old, and records the batch in flight if that is published.
    fn submit_if_due(&mut self) -> anyhow::Result<()> {
        let batch = &self.decisions.view.batch;
        let is_old = self.opened.elapsed() >= BATCH_TIME && !batch.is_empty();
        if is_old || batch.is_full(self.limit) {
            self.submit_batch()?;
        }
        let is_published = self.decisions.view.in_flight.as_ref().is_some_and(|sent| sent.publishing.is_done());
        if is_published { self.record_published() } else { Ok(()) }
    }

    /// Returns when everything decided so far is on record.
    fn publish_and_record(&mut self) -> anyhow::Result<()> {
        self.submit_batch()?;
        self.record_published()
    }

    /// Closes the open batch and submits it, then waits for the batch before and records that. A batch with files stays
    /// in flight while the next one is decided. One without files is recorded at once, and one that removes files is
    /// waited for: another invoice may claim the paths that it frees. An empty batch is not submitted; its tenants are
    /// done once the batch before is recorded.
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
        if self.decisions.view.batch.has_removals() {
            self.record_published()?;
        }
        let mut changes = self.decisions.view.batch.take_changes();
        self.keep_files_unless_table_lasts(&mut changes)?;
        let removes = !changes.removals.is_empty();
        let publishing = self.decisions.view.committer.submit(changes)?;
        // What became of the batch before may change what is recorded of this one.
        self.record_published()?;
        self.opened = Instant::now();
        let batch = mem::take(&mut self.decisions.view.batch);
        self.limit = next_limit(self.limit, self.decisions.journal.outcome.totals.run.written + batch.written());
        let must_wait = removes || publishing.is_done();
        self.decisions.view.in_flight = Some(InFlight { batch, publishing });
        if must_wait { self.record_published() } else { Ok(()) }
    }

    /// Waits until the batch in flight is published, and records it.
    pub(in crate::export) fn record_published(&mut self) -> anyhow::Result<()> {
        let Some(InFlight { batch, publishing }) = self.decisions.view.in_flight.take() else { return Ok(()) };
        self.record(batch, &publishing.wait()?)
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
    fn keep_files_unless_table_lasts(&mut self, changes: &mut Changes) -> anyhow::Result<()> {
        if changes.removals.is_empty() || self.table_lasts()? {
            return Ok(());
        }
        self.decisions.table_no = None;
        for Removal { path, digest, cause, .. } in mem::take(&mut changes.removals) {
            let (Cause::Superseded(id) | Cause::InDoubt(id)) = cause;
            self.decisions.add_leftover_if_there(Leftover { path, id, digest, why: Some(KeptReason::Table) });
        }
        Ok(())
    }

    /// A server that refuses to show the table, or takes too long for it, proves nothing.
    fn table_lasts(&mut self) -> anyhow::Result<bool> {
        let Some(before) = &self.decisions.parameters.table else { return Ok(false) };
        let mut asks = self.source.telling(self.decisions.journal.tell);
        match asks.ask(|source| source.table_identity()) {
            Ok(now) => Ok(now.is_some_and(|now| before.lasts(&now))),
            Err(SourceError::Statement(_)) => Ok(false),
            Err(fault) => Err(fault).explain(|| {
                text!("cannot see whether the table is still the same", "无法确认数据表是否仍是原来的那张")
            }),
        }
    }
}
