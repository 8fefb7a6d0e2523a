//! The deciding side of a run: one thread that gives out paths, over the ledger and the batches that it does
//! not know of yet. `flight.rs` has them published and records them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::iter;
use std::time::Instant;

use anyhow::ensure;

use super::batch::{Batch, FIRST_BATCH_FILES};
use super::check::{Candidate, Desk, FileState, Verdict};
use super::contest::{WAITING_AT_MOST, Waiting};
use super::diff::{Part, Told};
use super::drive::Decides;
use super::flight::{Flight, Publisher};
use super::given::Given;
use super::one_by_one::Asks;
use super::parts::PartState;
use super::patience::Patience;
use super::plan::Group;
use super::tally::Tally;
use super::{Rejects, Settings, Writing};
use crate::event::{Event, Notice};
use crate::invoice::{Digest, InvoiceId, SourceTime, Tenant};
use crate::refusal::Trouble;
use crate::run::{Counts, Kind, WhyKept};
use crate::source::{Fault, Source};
use crate::state::State;
use crate::state::ledger::{Entry, Origin};
use crate::state::rehearsal::{Rehearsal, Rehearsed};
use crate::state::todo::{Doubted, Leftover, Reject, Why};
use crate::tree::name::TreePath;
use crate::tree::publish::Placement;

const PROGRESS_EVERY: u64 = 100;
/// What a checked row says to the deciding thread.
pub(super) struct Checked {
    pub part: Part,
    pub late_by: Option<u64>,
    pub verdict: Verdict,
}

/// The thread that decides.
pub(super) struct Clerk<'a> {
    pub settings: &'a Settings,
    pub desk: Desk<'a>,
    pub state: Option<&'a mut State>,
    /// None in a dry run.
    pub writing: Option<Writing<'a>>,
    pub groups: &'a [Group],
    pub(super) rejects: Rejects,
    pub(super) patience: Patience,
    pub doubted: BTreeMap<TreePath, Doubted>,
    /// The number of the source's table; None: it cannot be told from others.
    pub(super) table: Option<i64>,
    pub tell: &'a mut dyn FnMut(Event),
    pub open_second: &'a dyn Fn() -> Result<Box<dyn Source>, Fault>,
    /// What a dry run would have recorded; None in any other run.
    pub(super) rehearsal: Option<Rehearsal>,
    pub(super) batch: Batch,
    /// The batch that is being published.
    pub(super) flight: Option<Flight>,
    /// None in a dry run.
    pub(super) publisher: Option<Publisher>,
    pub outcome: Outcome,
    /// None unless the ledger was empty when the run began.
    given: Option<Given>,
    second: Option<Box<dyn Source>>,
    pub(super) parts: HashMap<Part, PartState>,
    pub(super) todo_is_done: bool,
    pub(super) ready: Vec<Tenant>,
    pub(super) opened: Instant,
    pub(super) limit: usize,
    pub(super) written: HashMap<Tenant, u64>,
    pub(super) retried: HashMap<InvoiceId, Why>,
    /// Rows that wait for the batch to be recorded, to be read again with their rivals.
    pub(super) waiting: BTreeMap<InvoiceId, Waiting>,
    pub(super) tally: Tally,
    pub(super) started: HashSet<Tenant>,
    pub(super) timeless: u64,
    /// Whether this run has given out any path: until then what the reader knew of the ledger holds.
    pub(super) decided: bool,
}

/// What came of the run so far.
#[derive(Default)]
pub(super) struct Outcome {
    pub totals: Counts,
    pub tenants: BTreeMap<Tenant, Counts>,
    pub failed: BTreeMap<Tenant, Trouble>,
    pub new_rejects: u64,
    /// Invoices without a known tenant that could not be read: how many, and why.
    pub unread: Option<(u64, Trouble)>,
    /// Files that were left though no invoice names them any more: how many, and one of them.
    pub left: BTreeMap<Option<WhyKept>, (u64, TreePath)>,
}

impl Outcome {
    pub(super) fn count(&mut self, tenant: Option<&Tenant>, add: impl Fn(&mut Counts)) {
        add(&mut self.totals);
        if let Some(tenant) = tenant {
            add(self.tenants.entry(tenant.clone()).or_default());
        }
    }

    pub(super) fn leave(&mut self, leftovers: &[Leftover]) {
        for Leftover { path, why, .. } in leftovers {
            if *why != Some(WhyKept::NotRemoved) {
                self.left.entry(*why).or_insert_with(|| (0, path.clone())).0 += 1;
            }
        }
    }
}

/// Everything that a clerk does not make up by itself.
pub(super) struct Post<'a> {
    pub settings: &'a Settings,
    pub desk: Desk<'a>,
    pub state: Option<&'a mut State>,
    pub writing: Option<Writing<'a>>,
    pub publisher: Option<Publisher>,
    pub given: Option<Given>,
    pub groups: &'a [Group],
    pub patience: Patience,
    pub doubted: BTreeMap<TreePath, Doubted>,
    pub table: Option<i64>,
    pub rejects: Rejects,
    /// The ids on the to-do list, which leave it when they are exported though nothing changed.
    pub retried: HashMap<InvoiceId, Why>,
    pub tell: &'a mut dyn FnMut(Event),
    pub open_second: &'a dyn Fn() -> Result<Box<dyn Source>, Fault>,
    pub rehearsal: Option<Rehearsal>,
}

impl Decides for Clerk<'_> {
    fn take(&mut self, checked: Checked) -> anyhow::Result<()> {
        let Checked { part, late_by, verdict } = checked;
        if self.tally.comes_again(id_of(&verdict)) {
            // It was read again since, with its rivals, and dealt with.
            if let Verdict::Candidate(candidate) = &verdict {
                self.discard(candidate);
            }
            self.parts.entry(part).or_default().received += 1;
            return self.after(part);
        }
        self.meet(part, &verdict);
        self.timeless += u64::from(!has_usable_time(&verdict));
        self.count(tenant_of(&verdict), |counts| {
            counts.seen += 1;
            counts.late(late_by);
        });
        match verdict {
            Verdict::Candidate(candidate) => self.claim(candidate)?,
            other => self.decide_without_path(other)?,
        }
        self.parts.entry(part).or_default().received += 1;
        self.after(part)?;
        if self.outcome.totals.seen.is_multiple_of(PROGRESS_EVERY) {
            (self.tell)(Event::Progress { invoices: self.outcome.totals.seen });
        }
        Ok(())
    }

    fn hear(&mut self, told: Told) -> anyhow::Result<()> {
        match told {
            Told::Begun(n) => {
                self.begin(n);
                Ok(())
            }
            Told::Quiet(groups) => {
                for n in groups {
                    self.begin(n);
                    let part = Part::Group(n);
                    self.parts.entry(part).or_default().expected = Some((0, BTreeMap::new()));
                    self.after(part)?;
                }
                Ok(())
            }
            Told::Gone { part, id, .. } if self.tally.comes_again(&id) => self.after(part),
            Told::Gone { part, id, tenant, late_by } => {
                self.count(tenant.as_ref(), |counts| {
                    counts.seen += 1;
                    counts.late(late_by);
                });
                self.gone(id, tenant.as_ref());
                self.after(part)
            }
            Told::Read { part, rows, spellings } => {
                self.parts.entry(part).or_default().expected = Some((rows, spellings));
                self.after(part)
            }
            Told::Retrying { trouble, pause } => {
                (self.tell)(Event::Notice(Notice::Retrying { trouble, pause }));
                Ok(())
            }
            Told::Failed { tenants, tenantless, trouble } => {
                tenants.iter().for_each(|tenant| self.fail(tenant, trouble.clone()));
                if tenantless > 0 {
                    self.outcome.unread = Some((tenantless, trouble.clone()));
                    (self.tell)(Event::Notice(Notice::Unread { invoices: tenantless, trouble }));
                }
                Ok(())
            }
        }
    }

    fn rest(&mut self) -> anyhow::Result<()> {
        self.go_on()
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.publish_and_record()
    }

    /// Publishes and records what is left.
    fn close(&mut self) -> anyhow::Result<()> {
        self.settle()?;
        self.take_back_doubles(|_| true);
        self.publish_and_record()?;
        self.say_farewell();
        let totals = &self.outcome.totals;
        ensure!(
            totals.balances(),
            "the counts of this run do not balance, which is a bug; please report it: {totals:?}"
        );
        Ok(())
    }
}

impl<'a> Clerk<'a> {
    pub(super) fn new(post: Post<'a>) -> Self {
        let Post {
            settings,
            desk,
            state,
            writing,
            publisher,
            given,
            groups,
            patience,
            doubted,
            table,
            rejects,
            retried,
            tell,
            open_second,
            rehearsal,
        } = post;
        Self {
            settings,
            desk,
            state,
            writing,
            groups,
            rejects,
            patience,
            doubted,
            table,
            tell,
            open_second,
            rehearsal,
            retried,
            batch: Batch::default(),
            flight: None,
            publisher,
            outcome: Outcome::default(),
            given,
            second: None,
            parts: HashMap::new(),
            todo_is_done: false,
            ready: Vec::new(),
            opened: Instant::now(),
            limit: FIRST_BATCH_FILES,
            written: HashMap::new(),
            waiting: BTreeMap::new(),
            tally: Tally::default(),
            started: HashSet::new(),
            timeless: 0,
            decided: false,
        }
    }

    /// How many tenants were looked at.
    pub(super) fn tenants(&self) -> u64 {
        self.started.len() as u64
    }

    /// A tenant's first row starts it where no group did.
    fn meet(&mut self, part: Part, verdict: &Verdict) {
        let Some(tenant) = tenant_of(verdict) else { return };
        if part != Part::Todo && !self.started.contains(tenant) {
            self.start(&tenant.clone(), None);
        }
    }

    fn begin(&mut self, group: usize) {
        for member in &self.groups[group].members {
            self.start(&member.tenant, member.watermark.clone());
        }
    }

    fn start(&mut self, tenant: &Tenant, watermark: Option<SourceTime>) {
        let upto = (self.settings.kind != Kind::Full).then(|| self.settings.boundary.clone());
        let after = if self.settings.since.is_some() { self.settings.since.clone() } else { watermark };
        (self.tell)(Event::TenantStarted { tenant: tenant.clone(), after, upto });
        self.started.insert(tenant.clone());
    }

    pub(super) fn count(&mut self, tenant: Option<&Tenant>, add: impl Fn(&mut Counts)) {
        self.outcome.count(tenant, &add);
        self.batch.count(tenant, add);
    }

    /// Where an invoice lies, as far as it is decided.
    pub(super) fn current(&self, id: &InvoiceId) -> anyhow::Result<Option<Entry>> {
        match self.unrecorded().find(|batch| batch.overrules(id)) {
            Some(batch) => Ok(batch.entry(id).cloned()),
            None if self.is_new(id) => Ok(None),
            None => match self.rehearsed(id)?.filter(|rehearsed| rehearsed.overrules) {
                Some(rehearsed) => Ok(rehearsed.entry),
                None => self.recorded(id),
            },
        }
    }

    fn recorded(&self, id: &InvoiceId) -> anyhow::Result<Option<Entry>> {
        self.state.as_ref().map_or(Ok(None), |state| state.entry(id))
    }

    pub(super) fn rehearsed(&self, id: &InvoiceId) -> anyhow::Result<Option<Rehearsed>> {
        self.rehearsal.as_ref().map_or(Ok(None), |rehearsal| rehearsal.of(id))
    }

    /// The batches that the ledger does not know of, the latest first.
    fn unrecorded(&self) -> impl Iterator<Item = &Batch> {
        iter::once(&self.batch).chain(self.flight.as_ref().map(|flight| &flight.batch))
    }

    /// Whether what the ledger says of an invoice no longer holds.
    pub(super) fn is_overruled(&self, id: &InvoiceId) -> bool {
        self.unrecorded().any(|batch| batch.overrules(id))
    }

    /// Whether the ledger surely knows nothing of an id or a path.
    fn is_new(&self, key: &impl Hash) -> bool {
        self.given.as_ref().is_some_and(|given| given.surely_lacks(key))
    }

    /// The invoices that the ledger has at a path.
    pub(super) fn recorded_owners(&self, path: &TreePath) -> anyhow::Result<Vec<(InvoiceId, Digest)>> {
        if self.is_new(path) {
            return Ok(Vec::new());
        }
        let mut owners = self.state.as_ref().map_or(Ok(Vec::new()), |state| state.owners(path))?;
        if let Some(rehearsal) = &self.rehearsal {
            let mut still = Vec::new();
            for owner in owners {
                if self.rehearsed(&owner.0)?.is_none_or(|rehearsed| !rehearsed.overrules) {
                    still.push(owner);
                }
            }
            owners = still.into_iter().chain(rehearsal.owners(path)?).collect();
        }
        Ok(owners)
    }

    /// The invoices that name a path, as far as it is decided, but for one of them.
    pub(super) fn owners(
        &self,
        but_for: Option<&InvoiceId>,
        path: &TreePath,
    ) -> anyhow::Result<Vec<(InvoiceId, Digest)>> {
        let recorded = self.recorded_owners(path)?.into_iter().filter(|(owner, _)| !self.is_overruled(owner));
        let closed = self.flight.iter().flat_map(|flight| flight.batch.owners(path));
        let closed = closed.filter(|(owner, _)| !self.batch.overrules(owner));
        Ok(recorded.chain(closed).chain(self.batch.owners(path)).filter(|(owner, _)| Some(owner) != but_for).collect())
    }

    /// Other invoices that name a path with other content.
    pub(super) fn rivals(&self, id: &InvoiceId, path: &TreePath, digest: Digest) -> anyhow::Result<Vec<InvoiceId>> {
        let owners = self.owners(Some(id), path)?;
        Ok(owners.into_iter().filter(|(_, theirs)| *theirs != digest).map(|(owner, _)| owner).collect())
    }

    fn claim(&mut self, candidate: Candidate) -> anyhow::Result<()> {
        if !self.decided && candidate.is_written() && candidate.known.is_some() {
            return self.accept_unless_failed(candidate);
        }
        let rivals = self.rivals(&candidate.invoice.id, &candidate.path, candidate.digest)?;
        if rivals.is_empty() && self.still_holds(&candidate)? && !self.is_awaited(&candidate)? {
            return self.accept_unless_failed(candidate);
        }
        self.contest_later(&candidate, &rivals)?;
        if self.waiting.len() >= WAITING_AT_MOST { self.settle() } else { Ok(()) }
    }

    /// Whether the file of an invoice is as right as it was when its row was checked: what was decided
    /// since may have changed it.
    fn still_holds(&self, candidate: &Candidate) -> anyhow::Result<bool> {
        if !candidate.is_written() {
            return Ok(true);
        }
        let held = |entry: &Entry| (entry.path.clone(), entry.digest);
        if self.current(&candidate.invoice.id)?.as_ref().map(held) != candidate.known.as_ref().map(held) {
            return Ok(false);
        }
        match self.desk.tree {
            Some(tree) if self.outcome.totals.removed > 0 => Ok(tree.has_file(&candidate.path, candidate.size)?),
            _ => Ok(true),
        }
    }

    /// Rows of a tenant that has failed are left to the next run.
    pub(super) fn accept_unless_failed(&mut self, candidate: Candidate) -> anyhow::Result<()> {
        if self.outcome.failed.contains_key(&candidate.invoice.tenant) {
            self.discard(&candidate);
            self.count(Some(&candidate.invoice.tenant), |counts| counts.seen -= 1);
            return Ok(());
        }
        self.accept(candidate)
    }

    /// Gives a candidate its path.
    fn accept(&mut self, candidate: Candidate) -> anyhow::Result<()> {
        let Candidate { invoice, path, digest, size, file, known } = candidate;
        let before = if self.decided { self.current(&invoice.id)? } else { known };
        let settled = invoice.time.as_ref().is_some_and(|time| *time < self.settings.settled_below);
        let mut entry = Entry {
            id: invoice.id.clone(),
            tenant: invoice.tenant.clone(),
            time: invoice.time.clone(),
            path: path.clone(),
            digest,
            size,
            settled,
            recheck: false,
            table: None,
        };
        entry.table = self.table_of(&entry, before.as_ref());
        if let Some(before) = &before
            && before.path != path
        {
            self.supersede(before, &path, &invoice)?;
        }
        let origin = match file {
            FileState::Unchanged if before.as_ref() == Some(&entry) && !self.retried.contains_key(&entry.id) => {
                self.count(Some(&invoice.tenant), |counts| counts.unchanged += 1);
                return Ok(());
            }
            FileState::Unchanged => Origin::Kept,
            FileState::Adopted => Origin::Adopted,
            FileState::Staged(_) => Origin::Written,
        };
        self.count(Some(&invoice.tenant), |counts| match origin {
            Origin::Written => (counts.written, counts.bytes) = (counts.written + 1, counts.bytes + size),
            Origin::Adopted | Origin::Kept => counts.unchanged += 1,
        });
        self.decided |= origin != Origin::Kept;
        if let Some(given) = &mut self.given {
            given.add(&entry.id);
            given.add(&entry.path);
        }
        self.batch.enter(entry, origin);
        if let FileState::Staged(Some(staged)) = file {
            let placement = Placement { id: invoice.id, tenant: invoice.tenant, path, digest, staged };
            if let Some(replaced) = self.batch.place(placement, size)
                && let Some(stage) = self.desk.stage
            {
                stage.discard(&replaced);
            }
        }
        Ok(())
    }

    pub(super) fn decide_without_path(&mut self, verdict: Verdict) -> anyhow::Result<()> {
        match verdict {
            Verdict::Reject(reject) => self.reject(reject),
            Verdict::Trouble { invoice, trouble } => {
                self.count(Some(&invoice.tenant), |counts| counts.seen -= 1);
                self.fail(&invoice.tenant, trouble);
                Ok(())
            }
            Verdict::Candidate(candidate) => self.claim(candidate),
        }
    }

    pub(super) fn reject(&mut self, reject: Reject) -> anyhow::Result<()> {
        self.count(reject.tenant.as_ref(), |counts| counts.rejected += 1);
        let open = self.state.as_ref().map_or(Ok(false), |state| state.is_open_reject(&reject.id))?;
        let rehearsed = self.rehearsed(&reject.id)?.is_some_and(|rehearsed| rehearsed.counted.rejected > 0);
        if !open && !rehearsed && !self.unrecorded().any(|batch| batch.rejects(&reject.id)) {
            self.outcome.new_rejects += 1;
            let Reject { id, tenant, number, reason, .. } = reject.clone();
            (self.tell)(Event::Rejected { tenant, id, number, reason });
        }
        self.batch.reject(reject);
        Ok(())
    }

    pub(super) fn gone(&mut self, id: InvoiceId, tenant: Option<&Tenant>) {
        self.count(tenant, |counts| counts.gone += 1);
        self.batch.gone(id);
    }

    pub(super) fn discard(&self, candidate: &Candidate) {
        if let (FileState::Staged(Some(staged)), Some(stage)) = (&candidate.file, self.desk.stage) {
            stage.discard(staged);
        }
    }

    pub(super) fn fail(&mut self, tenant: &Tenant, trouble: Trouble) {
        if !self.outcome.failed.contains_key(tenant) {
            (self.tell)(Event::TenantFailed { tenant: tenant.clone(), trouble: trouble.clone() });
            self.outcome.failed.insert(tenant.clone(), trouble);
        }
    }
}

/// NULL is no time, nor is the zero date that MySQL may hold.
fn has_usable_time(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Candidate(Candidate { invoice, .. }) | Verdict::Trouble { invoice, .. } => {
            invoice.time.as_ref().is_some_and(|time| !time.as_str().starts_with("0000-"))
        }
        Verdict::Reject(_) => true,
    }
}

fn id_of(verdict: &Verdict) -> &InvoiceId {
    match verdict {
        Verdict::Candidate(Candidate { invoice, .. }) | Verdict::Trouble { invoice, .. } => &invoice.id,
        Verdict::Reject(reject) => &reject.id,
    }
}

pub(super) fn tenant_of(verdict: &Verdict) -> Option<&Tenant> {
    match verdict {
        Verdict::Candidate(candidate) => Some(&candidate.invoice.tenant),
        Verdict::Trouble { invoice, .. } => Some(&invoice.tenant),
        Verdict::Reject(reject) => reject.tenant.as_ref(),
    }
}

/// On a connection of its own, since the reader's is busy.
impl Asks for Clerk<'_> {
    fn ask<R>(&mut self, mut question: impl FnMut(&mut dyn Source) -> Result<R, Fault>) -> Result<R, Fault> {
        let Self { patience, tell, second, open_second, .. } = self;
        patience.insist(tell, || {
            let source = match second.take() {
                Some(source) => source,
                None => open_second()?,
            };
            question(second.insert(source).as_mut())
        })
    }
}
