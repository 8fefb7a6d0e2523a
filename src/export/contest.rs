//! Two invoices want one path with different documents. Nobody is believed on what was read before:
//! all rivals are read again by key, and their rivals, until everybody who may be concerned is known.
//! Then the greater (source time, id) gets the path; a rival that moved off gets its new one in the
//! same batch, which is how swaps and chains of moves come out right in any order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::bail;

use super::check::{Candidate, Trust, Verdict};
use super::diff::id_of;
use super::pipeline::Clerk;
use crate::invoice::{Digest, Fetched, InvoiceId, Reason, SourceTime};
use crate::state::todo::{Reject, Why};
use crate::tree::name::TreePath;

/// Rivals read for one contest at the most. A longer chain is left to the next run, which goes on
/// from its losers.
const RIVALS_AT_MOST: usize = 1_000;

/// Who gets a contested path.
struct Winner {
    id: InvoiceId,
    time: Option<SourceTime>,
    digest: Digest,
}

impl Clerk<'_> {
    /// Settles the contest that this candidate began. Its own document is read again too.
    pub(super) fn contest(&mut self, candidate: Candidate) -> anyhow::Result<()> {
        self.discard(&candidate);
        let (claimant, tenant) = (candidate.invoice.id.clone(), candidate.invoice.tenant.clone());
        let fresh = self.read_rivals(&candidate)?;
        let winners = winners(&fresh);
        for id in fresh.keys() {
            self.clear_way(id, &winners)?;
        }
        for (id, verdict) in fresh {
            // The claimant was counted as seen by whoever handed it over.
            let counted = (id == claimant).then_some(&tenant);
            if counted.is_none() {
                self.count_rival(&id, verdict.as_ref());
            }
            match verdict {
                Some(verdict) => self.settle(verdict, &winners)?,
                None => self.gone(id, counted),
            }
        }
        Ok(())
    }

    /// Everybody who may be concerned, as they are now; None for rows that are no invoice any more.
    fn read_rivals(&mut self, candidate: &Candidate) -> anyhow::Result<BTreeMap<InvoiceId, Option<Verdict>>> {
        let mut fresh: BTreeMap<InvoiceId, Option<Verdict>> = BTreeMap::new();
        let mut ask: BTreeSet<InvoiceId> = BTreeSet::from([candidate.invoice.id.clone()]);
        ask.extend(self.rivals(&candidate.invoice.id, &candidate.path, candidate.digest)?);
        while !ask.is_empty() {
            let ids: Vec<InvoiceId> = std::mem::take(&mut ask).into_iter().collect();
            for (id, verdict) in self.read_again(&ids)? {
                if let Some(Verdict::Candidate(rival)) = &verdict {
                    let more = self.rivals(&id, &rival.path, rival.digest)?;
                    ask.extend(more.into_iter().filter(|id| !ids.contains(id) && !fresh.contains_key(id)));
                }
                fresh.insert(id, verdict);
            }
            if fresh.len() > RIVALS_AT_MOST {
                break;
            }
        }
        Ok(fresh)
    }

    /// Reads rows by key on a connection of our own, since the reader's is busy.
    fn read_again(&mut self, ids: &[InvoiceId]) -> anyhow::Result<Vec<(InvoiceId, Option<Verdict>)>> {
        let mut rows: HashMap<InvoiceId, Fetched> = HashMap::new();
        while let Err(fault) = self.second_source()?.documents(ids, &mut |fetched| {
            rows.insert(id_of(&fetched).clone(), fetched);
            Ok(())
        }) {
            let mut paused = None;
            self.patience.wait(fault, |error, pause| {
                paused = Some((format!("{error:#}"), pause));
                Ok(())
            })?;
            if let Some((error, pause)) = paused {
                self.retrying(error, pause);
            }
        }
        self.patience.progress();
        let mut verdicts = Vec::new();
        for id in ids {
            let verdict = match rows.remove(id) {
                Some(fetched) => {
                    let known = self.current(id)?;
                    let doubted = self.retried.get(id) == Some(&Why::Doubt);
                    let trust = if doubted { Trust::Nothing } else { Trust::Ledger };
                    Some(self.desk.check(fetched, known.as_ref(), trust)?)
                }
                None => None,
            };
            verdicts.push((id.clone(), verdict));
        }
        Ok(verdicts)
    }

    /// An invoice whose file is about to hold another document loses its ledger row, and is on the
    /// to-do list until it has a new one.
    fn clear_way(&mut self, id: &InvoiceId, winners: &HashMap<TreePath, Winner>) -> anyhow::Result<()> {
        if let Some(current) = self.current(id)?
            && let Some(winner) = winners.get(&current.path)
            && winner.digest != current.digest
        {
            self.batch.displace(id);
        }
        Ok(())
    }

    fn settle(&mut self, verdict: Verdict, winners: &HashMap<TreePath, Winner>) -> anyhow::Result<()> {
        let Verdict::Candidate(candidate) = verdict else { return self.decide_without_path(verdict) };
        let Some(winner) = winners.get(&candidate.path) else { bail!("nobody won {}", candidate.path) };
        if winner.digest == candidate.digest {
            return self.accept(candidate);
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
fn winners(fresh: &BTreeMap<InvoiceId, Option<Verdict>>) -> HashMap<TreePath, Winner> {
    let mut winners: HashMap<TreePath, Winner> = HashMap::new();
    for (id, verdict) in fresh {
        let Some(Verdict::Candidate(candidate)) = verdict else { continue };
        let time = &candidate.invoice.time;
        if winners.get(&candidate.path).is_none_or(|winner| (&winner.time, &winner.id) < (time, id)) {
            let winner = Winner { id: id.clone(), time: time.clone(), digest: candidate.digest };
            winners.insert(candidate.path.clone(), winner);
        }
    }
    winners
}
