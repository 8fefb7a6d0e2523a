//! A closed batch on its way: one thread syncs it while another one puts the batch before in place, and the
//! deciding thread records that one and decides the one behind. What a dead run leaves in doubt is two batches
//! at most.

use std::mem;
use std::thread::{Builder, Scope};
use std::time::Instant;

use anyhow::anyhow;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::batch::{self, Batch};
use super::drive::no_thread;
use super::pipeline::Clerk;
use crate::event::{Event, Notice};
use crate::invoice::{InvoiceId, Tenant};
use crate::panics;
use crate::refusal::Trouble;
use crate::run::{Counts, WhyKept};
use crate::state::ledger::Entry;
use crate::state::todo::Leftover;
use crate::tree::Tree;
use crate::tree::publish::{Changes, Failure, NotRemoved, NotRemovedReason, Published};
use crate::tree::stage::Stage;

/// A batch about which nothing more is decided.
pub(super) struct Flight {
    pub batch: Batch,
    /// Of the run, up to this batch.
    totals: Counts,
    /// Tenants that are done when it is on record.
    ready: Vec<Tenant>,
}

impl Flight {
    fn count(&mut self, tenant: Option<&Tenant>, add: impl Fn(&mut Counts)) {
        add(&mut self.totals);
        self.batch.count(tenant, add);
    }
}

/// The threads that publish: one waits for the disk, the other one gives files their names.
pub(super) struct Publisher {
    batches: Sender<Changes>,
    results: Receiver<anyhow::Result<Published>>,
}

impl Publisher {
    /// They end when this is dropped, or with the first batch that fails.
    pub(super) fn start<'scope>(
        threads: &'scope Scope<'scope, '_>,
        tree: &'scope Tree,
        stage: &'scope Stage,
    ) -> anyhow::Result<Self> {
        let (batches, waiting) = bounded(1);
        let (synced, in_turn) = bounded(1);
        let (done, results) = bounded(1);
        let start = |work: Box<dyn FnOnce() + Send + 'scope>| {
            Builder::new().spawn_scoped(threads, work).map_err(|error| no_thread(&error))
        };
        start(Box::new(move || hand_on(waiting.into_iter().map(Ok), synced, |changes| tree.sync(stage, changes))))?;
        start(Box::new(move || {
            hand_on(in_turn.iter(), done, |synced| tree.put_in_place(stage, synced));
            // After one that fails, nothing of the next one is in doubt.
            in_turn.into_iter().flatten().for_each(|synced| stage.withdraw_list(&synced));
        }))?;
        Ok(Self { batches, results })
    }

    /// A thread that has ended said why in the result of a batch before.
    fn send(&self, changes: Changes) {
        let _ = self.batches.send(changes);
    }

    fn wait(&self) -> anyhow::Result<Published> {
        self.results.recv().unwrap_or_else(|_| Err(anyhow!("a publishing thread has ended, which is a bug")))
    }

    fn is_done(&self) -> bool {
        !self.results.is_empty()
    }
}

/// Takes a step with one batch after the other. After one that fails nothing may be published.
fn hand_on<T, U>(
    batches: impl Iterator<Item = anyhow::Result<T>>,
    next: Sender<anyhow::Result<U>>,
    step: impl Fn(T) -> anyhow::Result<U>,
) {
    for batch in batches {
        let result = batch.and_then(|batch| panics::as_error(|| step(batch)));
        let failed = result.is_err();
        // Nobody listens only if the run has failed already.
        if next.send(result).is_err() || failed {
            return;
        }
    }
}

impl Clerk<'_> {
    /// Publishes what is decided and records it.
    pub(super) fn publish_and_record(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        self.land()
    }

    /// Closes the batch and sends it on its way, on which it gets its names once the one before has arrived.
    /// That one is recorded meanwhile.
    pub(super) fn launch(&mut self) -> anyhow::Result<()> {
        let ready = mem::take(&mut self.ready);
        if self.batch.is_empty() {
            self.land()?;
            self.say_done(ready);
            return Ok(());
        }
        // A path that is left is free before another invoice may claim it, and stays if an invoice of the batch before
        // keeps it.
        if self.batch.removes() {
            self.land()?;
        }
        let mut changes = self.batch.take_changes();
        self.keep_unless_table_lasts(&mut changes)?;
        let removes = !changes.removals.is_empty();
        let published = self.send(changes)?;
        // What became of the batch before may change what is recorded of this one.
        self.land()?;
        self.opened = Instant::now();
        self.limit = batch::next_limit(self.limit, self.outcome.totals.written);
        let flight = Flight { batch: mem::take(&mut self.batch), totals: self.outcome.totals, ready };
        if let Some(published) = published {
            return self.record(flight, published);
        }
        self.flight = Some(flight);
        if removes { self.land() } else { Ok(()) }
    }

    /// Has changes published. What comes of them is known at once if there is nothing to publish.
    fn send(&mut self, changes: Changes) -> anyhow::Result<Option<Published>> {
        match (&mut self.writing, &self.publisher, self.desk.tree) {
            (Some(writing), Some(publisher), _) if !changes.is_empty() => {
                writing.sign()?;
                publisher.send(changes);
                Ok(None)
            }
            (None, _, Some(tree)) => tree.would_remove(&changes.removals).map(Some),
            _ => Ok(Some(Published::nothing())),
        }
    }

    /// Waits until the batch on its way is published, and records it.
    pub(super) fn land(&mut self) -> anyhow::Result<()> {
        match (self.flight.take(), &self.publisher) {
            (Some(flight), Some(publisher)) => {
                let published = publisher.wait()?;
                self.record(flight, published)
            }
            _ => Ok(()),
        }
    }

    fn record(&mut self, mut flight: Flight, published: Published) -> anyhow::Result<()> {
        self.note(&mut flight, &published)?;
        let Flight { mut batch, totals, ready } = flight;
        let failed = &self.outcome.failed;
        batch.advances.retain(|advance| !failed.contains_key(&advance.tenant));
        for (tenant, added) in &batch.tenants {
            *self.written.entry(tenant.clone()).or_default() += added.written;
        }
        for (tenant, counted) in &batch.taken_back {
            let written = self.written.entry(tenant.clone()).or_default();
            *written = written.saturating_sub(counted.written);
        }
        for advance in &mut batch.advances {
            advance.written = self.written.get(&advance.tenant).copied().unwrap_or_default();
        }
        let record = batch.into_record(totals);
        self.outcome.leave(&record.leftovers);
        if let (Some(state), Some(writing)) = (self.state.as_deref_mut(), &self.writing) {
            writing.record(state, &published, &record)?;
        }
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.record(&record)?;
        }
        self.say_done(ready);
        Ok(())
    }

    /// Records the batch on its way as soon as it is published.
    pub(super) fn land_if_published(&mut self) -> anyhow::Result<()> {
        let is_published = self.flight.is_some() && self.publisher.as_ref().is_some_and(Publisher::is_done);
        if is_published { self.land() } else { Ok(()) }
    }

    /// What publishing found out: removed files, files that are not ours, tenants that are blocked.
    fn note(&mut self, flight: &mut Flight, published: &Published) -> anyhow::Result<()> {
        let mut dropped = Vec::new();
        for Failure { tenant, path, trouble } in published.failed() {
            for Entry { id, size, .. } in flight.batch.drop_failed(path) {
                dropped.push(id);
                self.recount(flight, Some(tenant), |counts| {
                    counts.seen -= 1;
                    counts.written -= 1;
                    counts.bytes -= size;
                });
            }
            for (owner, _) in self.recorded_owners(path)? {
                flight.batch.keep(&owner);
            }
            self.fail(tenant, trouble.clone());
        }
        for id in dropped {
            self.keep_old_file(flight, &id)?;
            self.displace_if_taken(flight, id)?;
        }
        for id in published.movers() {
            let tenant = flight.batch.entry(id).map(|entry| entry.tenant.clone());
            self.recount(flight, tenant.as_ref(), |counts| counts.removed += 1);
        }
        for left in published.left() {
            self.leave(flight, left);
        }
        for (path, detail) in published.in_doubt() {
            flight.batch.stay_in_doubt(path);
            (self.tell)(Event::Notice(Notice::NotRemoved { path: path.to_string(), detail: detail.clone() }));
        }
        Ok(())
    }

    fn leave(&mut self, flight: &mut Flight, left: &NotRemoved) {
        let path = left.path.to_string();
        match &left.why {
            NotRemovedReason::Foreign => (self.tell)(Event::Notice(Notice::LeftInPlace { path })),
            NotRemovedReason::Stuck(detail) => {
                if let Some(entry) = flight.batch.entry(&left.id) {
                    self.fail(&entry.tenant.clone(), Trouble::NotRemoved { path, detail: detail.clone() });
                }
            }
        }
        let (path, id, why) = (left.path.clone(), left.id.clone(), Some(WhyKept::NotRemoved));
        flight.batch.leave(Leftover { path, id, digest: left.digest, why });
    }

    /// An invoice that did not get to its new path keeps the old one. If it moves on in the next batch, that one
    /// leaves the file behind.
    fn keep_old_file(&mut self, flight: &mut Flight, id: &InvoiceId) -> anyhow::Result<()> {
        let Some(before) = self.recorded(id)? else { return Ok(()) };
        let leftover = flight.batch.keep_file(&before.path);
        if !self.batch.overrules(id) {
            self.batch.keep_file(&before.path);
        } else if let Some(leftover) = leftover {
            self.batch.leave(leftover);
        }
        Ok(())
    }

    /// An invoice that did not get to its new path may have lost the old one meanwhile.
    fn displace_if_taken(&mut self, flight: &mut Flight, id: InvoiceId) -> anyhow::Result<()> {
        if self.batch.overrules(&id) {
            return Ok(());
        }
        let Some(before) = self.current(&id)? else { return Ok(()) };
        for batch in [&mut flight.batch, &mut self.batch] {
            if batch.takers(&before).next().is_some() {
                batch.displace(&id);
            }
        }
        Ok(())
    }

    fn recount(&mut self, flight: &mut Flight, tenant: Option<&Tenant>, add: impl Fn(&mut Counts)) {
        self.outcome.count(tenant, &add);
        flight.count(tenant, add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_batch_that_fails_or_panics_no_other_one_goes_further() {
        for fails in [|| Err(anyhow!("the disk is full")), || panic!("a bug")] {
            let (next, results) = bounded(9);
            let step = |n| if n == 2 { fails() } else { Ok(n) };
            hand_on([Ok(1), Ok(2), Ok(3)].into_iter(), next, step);
            let (next, arrived) = bounded(9);
            hand_on(results.into_iter().chain([Ok(4)]), next, Ok);
            let arrived: Vec<_> = arrived.into_iter().map(Result::ok).collect();
            assert_eq!(arrived, [Some(1), None]);
        }
    }
}
