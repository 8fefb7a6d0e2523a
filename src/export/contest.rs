//! Two invoices want one path with different documents, or what was found out about a row no longer
//! holds because of what was decided since. Nobody is believed then: such rows wait until the batch is
//! published and recorded, so that disk and ledger tell the truth. Then they are read again by key, with
//! their rivals, and the rivals' rivals. The greater (source time, id) gets the path; a rival that moved
//! off gets its new one in the same batch, which is how swaps and chains of moves come out right in any
//! order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;

use anyhow::bail;

use super::check::{Candidate, Trust, Verdict};
use super::one_by_one::{self, Asks};
use super::pipeline::Clerk;
use crate::invoice::{Digest, InvoiceId, Reason, SourceTime, Tenant};
use crate::refusal::Trouble;
use crate::source::SourceError;
use crate::state::ledger::{Entry, Origin};
use crate::state::todo::{Reject, Why};
use crate::tree::name::TreePath;

/// Rows that wait at the most before they are settled.
pub(super) const WAITING_AT_MOST: usize = 500;
/// Rows read for one settlement at the most, with rivals. Rivals beyond that lose their path if it is
/// taken, and are read by the next run.
const READ_AT_MOST: usize = 5_000;
/// Documents asked for in one statement.
const DOCUMENTS_A_PAGE: usize = 100;

/// A row that waits, and what it wanted.
pub(super) struct Waiting {
    tenant: Tenant,
    path: TreePath,
}

/// Who gets a contested path.
struct Winner {
    id: InvoiceId,
    tenant: Tenant,
    time: Option<SourceTime>,
    digest: Digest,
}

/// Rows as they are now; None for those that are no invoice any more.
type Fresh = BTreeMap<InvoiceId, Option<Verdict>>;

impl Clerk<'_> {
    /// Puts a row aside until the batch is recorded, and with it the rivals that the batch holds, those
    /// that are about to leave its path, and those that were to have the path that one of them leaves, for
    /// it may come to stay: what may be overruled is better not published first, and a path that somebody
    /// wants never lies empty. They count as seen once they are settled.
    pub(super) fn contest_later(&mut self, candidate: &Candidate, rivals: &[InvoiceId]) -> anyhow::Result<()> {
        self.discard(candidate);
        let mut aside: Vec<InvoiceId> = rivals.to_vec();
        aside.extend(self.batch.leaver(&candidate.path));
        while let Some(id) = aside.pop() {
            let Some((entry, origin, staged)) = self.batch.withdraw(&id) else { continue };
            aside.extend(self.batch.leaver(&entry.path));
            if let Some(before) = self.current(&id)? {
                aside.extend(self.batch.takers(&before));
            }
            if let (Some(staged), Some(stage)) = (&staged, self.desk.stage) {
                stage.discard(staged);
            }
            self.count(Some(&entry.tenant), |counts| {
                counts.seen -= 1;
                match origin {
                    Origin::Written => (counts.written, counts.bytes) = (counts.written - 1, counts.bytes - entry.size),
                    Origin::Adopted | Origin::Kept => counts.unchanged -= 1,
                }
            });
            self.waiting.insert(entry.id, Waiting { tenant: entry.tenant, path: entry.path });
        }
        let Candidate { invoice, path, .. } = candidate;
        self.count(Some(&invoice.tenant), |counts| counts.seen -= 1);
        self.waiting.insert(invoice.id.clone(), Waiting { tenant: invoice.tenant.clone(), path: path.clone() });
        Ok(())
    }

    /// Whether a row that waits wants the path that this one is about to leave: then they are settled
    /// together, and the path never lies empty.
    pub(super) fn is_awaited(&self, candidate: &Candidate) -> anyhow::Result<bool> {
        if self.waiting.is_empty() {
            return Ok(false);
        }
        let current = self.current(&candidate.invoice.id)?;
        Ok(current.is_some_and(|entry| {
            entry.path != candidate.path && self.waiting.values().any(|waiting| waiting.path == entry.path)
        }))
    }

    /// Settles what waits.
    pub(super) fn settle(&mut self) -> anyhow::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        // A dry run changes neither disk nor ledger, so its batch is all that knows of its decisions.
        if self.writing.is_some() {
            self.publish_and_record()?;
        }
        self.decided = true;
        let waiting = mem::take(&mut self.waiting);
        let fresh = match self.read_with_rivals(&waiting) {
            // The rows that wait are left to the next run.
            Err(SourceError::Statement(error)) => {
                let trouble = Trouble::from(&error);
                waiting.into_values().for_each(|Waiting { tenant, .. }| self.fail(&tenant, trouble.clone()));
                return Ok(());
            }
            result => result.map_err(SourceError::into_error)?,
        };
        let rivals = fresh.keys().filter(|id| !waiting.contains_key(*id));
        let before: HashMap<InvoiceId, Option<Entry>> =
            rivals.map(|id| Ok((id.clone(), self.current(id)?))).collect::<anyhow::Result<_>>()?;
        let winners = winners(&fresh);
        for (path, winner) in &winners {
            // Of a tenant that has failed nothing is accepted.
            if self.outcome.failed.contains_key(&winner.tenant) {
                continue;
            }
            // Whoever has the path with other content loses it, and is on the to-do list until it has
            // a new one.
            for rival in self.rivals(&winner.id, path, winner.digest)? {
                self.batch.displace(&rival);
            }
        }
        for (id, verdict) in fresh {
            let tenant = waiting.get(&id).map(|waiting| &waiting.tenant);
            if tenant.is_none() && !self.is_news(verdict.as_ref())? {
                continue;
            }
            let entry = before.get(&id).and_then(Option::as_ref);
            match tenant {
                Some(tenant) => self.count(Some(tenant), |counts| counts.seen += 1),
                None => self.count_rival(&id, verdict.as_ref(), entry)?,
            }
            match verdict {
                Some(verdict) => self.award(verdict, &winners)?,
                None => self.gone(id, tenant.or(entry.map(|entry| &entry.tenant))),
            }
        }
        Ok(())
    }

    /// The rows that wait, their rivals, and the rivals' rivals.
    fn read_with_rivals(&mut self, waiting: &BTreeMap<InvoiceId, Waiting>) -> Result<Fresh, SourceError> {
        let mut fresh = Fresh::new();
        let mut ask: BTreeSet<InvoiceId> = waiting.keys().cloned().collect();
        while !ask.is_empty() && fresh.len() < READ_AT_MOST {
            let ids: Vec<InvoiceId> = mem::take(&mut ask).into_iter().collect();
            for page in ids.chunks(DOCUMENTS_A_PAGE) {
                self.read_again(page, waiting, &mut fresh)?;
            }
            for id in &ids {
                if let Some(Some(Verdict::Candidate(candidate))) = fresh.get(id) {
                    let rivals = self.rivals(id, &candidate.path, candidate.digest).map_err(SourceError::Consumer)?;
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
        waiting: &BTreeMap<InvoiceId, Waiting>,
        fresh: &mut Fresh,
    ) -> Result<(), SourceError> {
        let mut known: HashMap<&InvoiceId, (Option<Entry>, Trust)> = HashMap::new();
        for id in ids {
            let doubted = self.retried.get(id) == Some(&Why::Doubt);
            let entry = self.current(id).map_err(SourceError::Consumer)?;
            known.insert(id, (entry, if doubted { Trust::Nothing } else { Trust::Ledger }));
        }
        let desk = self.desk;
        let refused = one_by_one::read(ids, |ids| {
            self.ask(|source| {
                let missing: Vec<InvoiceId> = ids.iter().filter(|id| !fresh.contains_key(*id)).cloned().collect();
                source.documents(&missing, &mut |fetched| {
                    let id = fetched.id().clone();
                    if let Some((known, trust)) = known.get(&id) {
                        let verdict = desk.check(fetched, known.as_ref(), *trust)?;
                        fresh.insert(id, Some(verdict));
                    }
                    Ok(())
                })
            })
        })?;
        let came: Vec<InvoiceId> = ids.iter().filter(|id| fresh.contains_key(*id)).cloned().collect();
        for (id, error) in one_by_one::blame(self, refused, &came)? {
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

    /// Whether anything about a rival that was only asked for its opinion is to be decided.
    fn is_news(&self, verdict: Option<&Verdict>) -> anyhow::Result<bool> {
        let Some(Verdict::Candidate(candidate)) = verdict else { return Ok(true) };
        Ok(!candidate.is_written() || self.current(&candidate.invoice.id)?.is_none())
    }

    fn award(&mut self, verdict: Verdict, winners: &HashMap<TreePath, Winner>) -> anyhow::Result<()> {
        let Verdict::Candidate(candidate) = verdict else { return self.decide_without_path(verdict) };
        let Some(winner) = winners.get(&candidate.path) else { bail!("nobody won {}", candidate.path) };
        if winner.digest == candidate.digest {
            return self.accept_unless_failed(candidate);
        }
        self.discard(&candidate);
        let Candidate { invoice, path, .. } = candidate;
        let reason = Reason::PathTaken { path: path.to_string(), by: winner.id.clone() };
        self.reject(Reject {
            id: invoice.id,
            tenant: Some(invoice.tenant),
            number: Some(invoice.number),
            time: invoice.time,
            reason,
        })
    }
}

/// The greatest (source time, id) of each path.
fn winners(fresh: &Fresh) -> HashMap<TreePath, Winner> {
    let mut winners: HashMap<TreePath, Winner> = HashMap::new();
    for (id, verdict) in fresh {
        let Some(Verdict::Candidate(candidate)) = verdict else { continue };
        let time = &candidate.invoice.time;
        if winners.get(&candidate.path).is_none_or(|winner| (&winner.time, &winner.id) < (time, id)) {
            let (tenant, digest) = (candidate.invoice.tenant.clone(), candidate.digest);
            let winner = Winner { id: id.clone(), tenant, time: time.clone(), digest };
            winners.insert(candidate.path.clone(), winner);
        }
    }
    winners
}
