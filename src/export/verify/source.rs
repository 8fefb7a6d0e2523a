//! Compares ledger and source: the key diff without a lower bound, then a look by primary key for the invoices of the
//! ledger that the scan has not visited. The same threads read and check as in a run; nothing is written.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::findings::{Difference, Finding, Findings, Place};
use super::session::Sight;
use crate::event::{Event, Notice};
use crate::export::check::{Candidate, CheckResult, Checker, Presence};
use crate::export::diff::{Compare, ReaderEvent, Scope};
use crate::export::drive::{Checked, ReadTask, RowHandler, drive};
use crate::export::in_doubt::InDoubt;
use crate::export::options::{CommonOptions, SourceOptions};
use crate::export::plan::{self, HowToRead};
use crate::export::retry::RetryPolicy;
use crate::export::server::second_source_until;
use crate::export::ticket::Part;
use crate::invoice::{InvoiceId, SourceTime, Tenant};
use crate::lang::Text;
use crate::refusal::Trouble;
use crate::run::Cancel;
use crate::state::State;
use crate::state::history::PastReject;
use crate::state::ledger::Entry;
use crate::state::selection::Selection;
use crate::state::todo::{Reject, Todo, TodoReason};
use crate::state::visited::VisitedIds;

const REJECTS_A_PAGE: usize = 1_000;

/// Compares the selected part of the ledger with the source.
pub(super) fn compare(
    from: &SourceOptions,
    options: &CommonOptions,
    Sight { state, snapshot, run, .. }: Sight<'_>,
    compare: Compare,
    cancel: &Cancel,
    findings: &mut Findings,
    in_doubt: &InDoubt,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<()> {
    let Some(snapshot) = snapshot else { return Ok(()) };
    let selection = &options.selection;
    let known = state.tenants()?;
    let groups = plan::groups(&snapshot.listed, &selection.tenants, &known, &HowToRead::Span(selection.window.clone()));
    let mut retry = RetryPolicy::new(from.retry_for, cancel);
    let read_task = ReadTask {
        source: retry.run(tell, || second_source_until(cancel, &from.access, &snapshot.server, run))?,
        lookup: state.lookup()?,
        todo: snapshot.tenantless.iter().map(tenantless).collect(),
        scope: Arc::new(Scope::Groups { groups, compare }),
        retry,
        ids_in_source: Some(VisitedIds::new(selection.clone())?),
    };
    let max_document = from.access.max_document;
    let checker = Checker { tree: None, stage: None, presence: Presence::Assumed, max_document };
    let read_upto = known.into_iter().map(|known| (known.tenant, known.watermark)).collect();
    let otherwise = state.newest_boundary()?;
    let (in_doubt, unread) = (in_doubt.invoices(), HashSet::new());
    let mut examiner = Examiner { selection, state, read_upto, otherwise, in_doubt, unread, findings, tell };
    drive(&mut examiner, checker, read_task, options.work.writers, cancel)
}

/// Notes the open rejects that are selected, where the source is not asked. Those without a tenant are selected always.
pub(super) fn note_rejects_on_record(
    state: &State,
    selection: &Selection,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let mut last = None;
    loop {
        let page = state.open_rejects_from(last.as_ref(), REJECTS_A_PAGE)?;
        let is_selected = |reject: &&PastReject| {
            reject.tenant.as_ref().is_none_or(|tenant| selection.has_tenant(tenant))
                && selection.spans(reject.time.as_ref())
        };
        for reject in page.iter().filter(is_selected) {
            findings.note_rejected(Place::of_tenant(reject.tenant.as_ref()));
        }
        match page.into_iter().next_back() {
            Some(end) => last = Some(end),
            None => return Ok(()),
        }
    }
}

/// An invoice without a tenant is read by primary key, since no tenant's keys bring it.
fn tenantless(id: &InvoiceId) -> Todo {
    Todo { id: id.clone(), why: TodoReason::Reject, tenant: None }
}

/// Judges the rows that the threads have read and checked.
struct Examiner<'a> {
    selection: &'a Selection,
    state: &'a State,
    /// Up to where the rows of each tenant that the state knows should have been exported; None: it has no watermark.
    read_upto: HashMap<Tenant, Option<SourceTime>>,
    /// The same for tenants without a watermark.
    otherwise: Option<SourceTime>,
    /// Invoices that the next run reads again, since a dead run may have written them.
    in_doubt: HashSet<InvoiceId>,
    /// Tenants with rows that could not be read.
    unread: HashSet<Tenant>,
    findings: &'a mut Findings,
    tell: &'a mut dyn FnMut(Event),
}

impl RowHandler for Examiner<'_> {
    fn on_row(&mut self, checked: Checked) -> anyhow::Result<()> {
        match checked.check_result {
            CheckResult::Candidate(candidate) => self.judge(&candidate, checked.ticket.known.as_ref()),
            CheckResult::Reject(reject) => self.judge_reject(&reject),
            CheckResult::Trouble { trouble, .. } => Err(trouble.message().into()),
        }
    }

    fn on_reader_event(&mut self, event: ReaderEvent) -> anyhow::Result<()> {
        match event {
            ReaderEvent::Gone { part: Part::LedgerRest, id, .. } => {
                if let Some(entry) = self.state.entry(&id)? {
                    let detail = text!("the source has no such invoice any more", "数据源中已没有这张发票");
                    self.findings.record_entry(Difference::Withdrawn, &entry, detail);
                }
            }
            ReaderEvent::Retrying { trouble, pause } => (self.tell)(Event::Notice(Notice::Retrying { trouble, pause })),
            ReaderEvent::Failed { tenants, tenantless, trouble } => self.unread(tenants, tenantless, &trouble),
            // A row that left the index during the scan is asked for again after it.
            ReaderEvent::Gone { .. } | ReaderEvent::Begun(_) | ReaderEvent::Quiet(_) | ReaderEvent::Read { .. } => {}
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Examiner<'_> {
    /// Compares an invoice of the source with its row in the ledger.
    fn judge(&mut self, candidate: &Candidate, known: Option<&Entry>) -> anyhow::Result<()> {
        let Candidate { invoice, path, digest, .. } = candidate;
        let Some(entry) = known else {
            if self.is_on_todo_list(&invoice.id, Some(&invoice.tenant))?
                || self.is_pending(&invoice.tenant, invoice.time.as_ref())
            {
                return Ok(());
            }
            let detail = self.lateness(&invoice.tenant, invoice.time.as_ref());
            self.lost(&invoice.id, Some(&invoice.tenant), Some(path.to_string()), detail);
            return Ok(());
        };
        if (&entry.path, &entry.digest) == (path, digest) {
            return Ok(());
        }
        // A newer version that cannot get its path keeps its last good file.
        if self.is_on_todo_list(&invoice.id, Some(&invoice.tenant))? {
            return Ok(());
        }
        if invoice.time != entry.time && self.is_pending(&invoice.tenant, invoice.time.as_ref()) {
            return Ok(());
        }
        if entry.path == *path {
            let detail = match invoice.time == entry.time {
                true => text!(
                    "the source holds another document, with the same source time",
                    "数据源中的内容不同，但更新时间相同"
                ),
                false => text!("the source holds another document", "数据源中的内容不同"),
            };
            self.findings.record_entry(Difference::Stale, entry, detail);
        } else {
            self.findings.record_entry(Difference::Moved, entry, text!("it belongs at {path}", "应位于 {path}"));
            self.note_other_tenant(Difference::Moved, entry, &invoice.tenant);
        }
        Ok(())
    }

    /// Of an invoice that has changed its tenant, neither tenant is right.
    fn note_other_tenant(&mut self, difference: Difference, entry: &Entry, tenant: &Tenant) {
        if entry.tenant != *tenant {
            self.findings.note_in_tenant(difference, tenant);
        }
    }

    /// A row that cannot be exported is a finding unless it is a known reject.
    fn judge_reject(&mut self, reject: &Reject) -> anyhow::Result<()> {
        let Reject { id, tenant, time, reason, .. } = reject;
        // Rows without a tenant are read whatever their time.
        if tenant.is_none() && !self.selection.spans(time.as_ref()) {
            return Ok(());
        }
        if self.is_on_todo_list(id, tenant.as_ref())?
            || tenant.as_ref().is_some_and(|tenant| self.is_pending(tenant, time.as_ref()))
        {
            return Ok(());
        }
        let entry = self.state.entry(id)?;
        let difference = if entry.is_some() { Difference::Stale } else { Difference::Lost };
        self.findings.mark_unexportable(difference, id);
        match entry {
            Some(entry) => {
                self.findings.record_entry(difference, &entry, reason.text());
                tenant.iter().for_each(|tenant| self.note_other_tenant(difference, &entry, tenant));
            }
            None => self.lost(id, tenant.as_ref(), None, reason.text()),
        }
        Ok(())
    }

    /// Why no normal run exports an invoice any more. What runs have read of a tenant without a watermark is not known:
    /// the boundary may be that of a run of other tenants only.
    fn lateness(&self, tenant: &Tenant, time: Option<&SourceTime>) -> Text {
        let Some(time) = time else {
            return text!("it has no source time, so only full runs read it", "没有更新时间，只有全量导出会读取");
        };
        let boundary = self.otherwise.as_ref().map_or("-", SourceTime::as_str);
        match self.read_upto.get(tenant) {
            Some(Some(watermark)) => text!(
                "its source time {time} is not above the watermark {watermark} of its tenant",
                "更新时间 {time} 不晚于该租户的水位线 {watermark}"
            ),
            Some(None) => text!(
                "its source time {time} is not above the boundary {boundary} of an earlier run; its tenant has no watermark",
                "更新时间 {time} 不晚于之前一次运行的导出时间边界 {boundary}；该租户没有水位线"
            ),
            None => text!(
                "its source time {time} is not above the boundary {boundary} of an earlier run; no run has exported its tenant",
                "更新时间 {time} 不晚于之前一次运行的导出时间边界 {boundary}；该租户从未导出"
            ),
        }
    }

    /// Whether the next run exports the invoice anyway: it lies above the tenant's watermark, so no run has read so far
    /// yet. Counts it if so. At or below the watermark, or without a time, an invoice that is not exported is lost.
    fn is_pending(&mut self, tenant: &Tenant, time: Option<&SourceTime>) -> bool {
        let read_upto = self.read_upto.get(tenant).and_then(Option::as_ref).or(self.otherwise.as_ref());
        let pending = time.is_some_and(|time| read_upto.is_none_or(|upto| time > upto));
        if pending {
            self.findings.note_pending(Place::Tenant(tenant.clone()));
        }
        pending
    }

    /// Whether the next run reads the invoice whatever its time, since it is in doubt or a known reject. Counts it if
    /// so. It says nothing of a reject that its time lies above the watermark: runs have refused it.
    fn is_on_todo_list(&mut self, id: &InvoiceId, tenant: Option<&Tenant>) -> anyhow::Result<bool> {
        let place = Place::of_tenant(tenant);
        if self.in_doubt.contains(id) {
            self.findings.note_in_doubt(place, std::slice::from_ref(id));
            return Ok(true);
        }
        let is_rejected = self.state.is_open_reject(id)?;
        if is_rejected {
            self.findings.note_rejected(place);
        }
        Ok(is_rejected)
    }

    /// Records rows that the server did not return. The others are compared.
    fn unread(&mut self, tenants: Vec<Tenant>, tenantless: u64, trouble: &Trouble) {
        let trouble = Text::from(trouble.message());
        let mut record = |tenant, detail| {
            self.findings.record(Finding { difference: Difference::Unread, tenant, id: None, path: None, detail });
        };
        for tenant in tenants.into_iter().filter(|tenant| self.unread.insert(tenant.clone())) {
            record(
                Some(tenant),
                text!("not all rows could be compared: {trouble}", "部分记录未能比对: {trouble}"; trouble),
            );
        }
        if tenantless > 0 {
            let detail = text!(
                "invoices without a known tenant that could not be compared: {tenantless}: {trouble}",
                "{tenantless} 张租户未知的发票未能比对: {trouble}";
                trouble
            );
            record(None, detail);
        }
    }

    /// Records an invoice that the ledger does not hold.
    fn lost(&mut self, id: &InvoiceId, tenant: Option<&Tenant>, path: Option<String>, detail: Text) {
        let (tenant, id) = (tenant.cloned(), Some(id.clone()));
        self.findings.record(Finding { difference: Difference::Lost, tenant, id, path, detail });
    }
}
