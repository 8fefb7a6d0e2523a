//! A closed batch on its way: one thread puts it into the tree while another one records the batch before
//! and decides the one behind. What a dead run leaves in doubt is two batches at most.

use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::thread::Scope;
use std::time::Instant;

use anyhow::anyhow;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::batch::Batch;
use super::pipeline::{BATCH_FILES, Clerk};
use crate::event::{Event, Notice};
use crate::invoice::{InvoiceId, Tenant};
use crate::refusal::Trouble;
use crate::run::Counts;
use crate::state::ledger::Entry;
use crate::tree::Tree;
use crate::tree::publish::{Changes, Failure, Left, Published, WhyLeft};
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

/// The thread that publishes.
pub(super) struct Publisher {
    batches: Sender<Changes>,
    results: Receiver<anyhow::Result<Published>>,
}

impl Publisher {
    /// It ends when this is dropped.
    pub(super) fn start<'scope>(threads: &'scope Scope<'scope, '_>, tree: &'scope Tree, stage: &'scope Stage) -> Self {
        let (batches, waiting) = bounded::<Changes>(1);
        let (done, results) = bounded(1);
        threads.spawn(move || {
            let publish = |changes| {
                let result = panic::catch_unwind(AssertUnwindSafe(|| tree.publish(stage, &changes)));
                done.send(result.unwrap_or_else(|_| Err(it_panicked())))
            };
            // Nobody listens only if the run has failed already.
            let _ = waiting.into_iter().try_for_each(publish);
        });
        Self { batches, results }
    }

    fn send(&self, changes: Changes) -> anyhow::Result<()> {
        self.batches.send(changes).map_err(|_| it_panicked())
    }

    fn wait(&self) -> anyhow::Result<Published> {
        self.results.recv().map_err(|_| it_panicked())?
    }

    fn is_done(&self) -> bool {
        !self.results.is_empty()
    }
}

fn it_panicked() -> anyhow::Error {
    anyhow!("the publishing thread ended in a panic, which is a bug")
}

impl Clerk<'_> {
    /// Publishes what is decided and records it.
    pub(super) fn publish_and_record(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        self.land()
    }

    /// Closes the batch and sends it on its way, once the one before has arrived. That one is recorded
    /// meanwhile.
    pub(super) fn launch(&mut self) -> anyhow::Result<()> {
        let mut arrived = self.arrive()?;
        self.opened = Instant::now();
        self.limit = BATCH_FILES.min(self.limit * 2);
        let ready = mem::take(&mut self.ready);
        if self.batch.is_empty() {
            self.record(arrived)?;
            self.say_done(ready);
            return Ok(());
        }
        let mut batch = mem::take(&mut self.batch);
        let changes = batch.take_changes();
        // A path that is left is free before anybody may claim it.
        let removes = !changes.removals.is_empty();
        if removes {
            self.record(arrived.take())?;
        }
        let published = self.send(changes)?;
        self.record(arrived)?;
        let flight = Flight { batch, totals: self.outcome.totals, ready };
        if let Some(published) = published {
            return self.record(Some((flight, published)));
        }
        self.flight = Some(flight);
        if removes { self.land() } else { Ok(()) }
    }

    /// Has changes published. What comes of them is known at once if there is nothing to publish.
    fn send(&mut self, changes: Changes) -> anyhow::Result<Option<Published>> {
        match (&mut self.writing, &self.publisher, self.desk.tree) {
            (Some(writing), Some(publisher), _) if !changes.is_empty() => {
                writing.sign()?;
                publisher.send(changes)?;
                Ok(None)
            }
            (None, _, Some(tree)) => tree.would_remove(&changes.removals).map(Some),
            _ => Ok(Some(Published::nothing())),
        }
    }

    /// Waits until the batch on its way is published, and records it.
    pub(super) fn land(&mut self) -> anyhow::Result<()> {
        let arrived = self.arrive()?;
        self.record(arrived)
    }

    /// Waits until the batch on its way is published.
    fn arrive(&mut self) -> anyhow::Result<Option<(Flight, Published)>> {
        match (self.flight.take(), &self.publisher) {
            (Some(flight), Some(publisher)) => Ok(Some((flight, publisher.wait()?))),
            _ => Ok(None),
        }
    }

    fn record(&mut self, arrived: Option<(Flight, Published)>) -> anyhow::Result<()> {
        let Some((mut flight, published)) = arrived else { return Ok(()) };
        self.note(&mut flight, &published)?;
        let Flight { mut batch, totals, ready } = flight;
        let failed = &self.outcome.failed;
        batch.advances.retain(|advance| !failed.contains_key(&advance.tenant));
        for (tenant, added) in &batch.tenants {
            *self.written.entry(tenant.clone()).or_default() += added.written;
        }
        for advance in &mut batch.advances {
            advance.written = self.written.get(&advance.tenant).copied().unwrap_or_default();
        }
        let record = batch.into_record(totals);
        if let (Some(state), Some(writing)) = (self.state.as_deref_mut(), &self.writing) {
            writing.record(state, &published, &record)?;
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
            self.displace_if_taken(flight, id)?;
        }
        for id in published.movers() {
            let tenant = flight.batch.entry(id).map(|entry| entry.tenant.clone());
            self.recount(flight, tenant.as_ref(), |counts| counts.removed += 1);
        }
        for left in published.left() {
            self.leave(flight, left);
        }
        Ok(())
    }

    fn leave(&mut self, flight: &mut Flight, left: &Left) {
        let path = left.path.to_string();
        match &left.why {
            WhyLeft::Foreign => (self.tell)(Event::Notice(Notice::LeftInPlace { path })),
            WhyLeft::Stuck(detail) => {
                if let Some(entry) = flight.batch.entry(&left.id) {
                    self.fail(&entry.tenant.clone(), Trouble::NotRemoved { path, detail: detail.clone() });
                }
            }
        }
        flight.batch.leave(left.path.clone(), left.id.clone(), left.digest);
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
