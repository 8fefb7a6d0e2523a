//! The differences that `verify` finds. All are counted, and of each kind the first ones are listed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::invoice::{InvoiceId, Tenant};
use crate::lang::Text;
use crate::run::KeptReason;
use crate::state::ledger::Entry;
use crate::state::todo::Leftover;
use crate::tree::name::TreePath;

words! {
    /// How tree, ledger and source differ, the gravest kind first.
    pub enum Difference {
        /// An invoice that should have been exported and was not.
        Lost = "lost", "漏导";
        /// The source holds another document than was exported.
        Stale = "stale", "内容过时";
        /// The path of the invoice has changed.
        Moved = "moved", "路径已变";
        /// The file is not there.
        Missing = "missing", "文件缺失";
        /// The file is not what was written.
        Altered = "altered", "文件被改动";
        /// The owner of the file or folder, or its mode, is not as this program makes it.
        Permissions = "permissions", "权限不符";
        /// The row of the invoice is deleted or is no invoice any more; its file is still there.
        Withdrawn = "withdrawn", "发票已撤销";
        /// A file that its invoice, or an earlier one with the same id, left behind.
        Leftover = "leftover", "遗留文件";
        /// No invoice is known to have the file, but a rejected one of its tenant has the number in its name.
        LastGood = "last-good", "可能的最后版本";
        /// No invoice is known to have the file.
        Foreign = "foreign", "来历不明";
        /// The server did not return some rows, so that they are not compared.
        Unread = "unread", "未能读取";
    }
}

impl Difference {
    /// Whether exporting the invoice again mends it.
    fn is_to_be_exported(self) -> bool {
        matches!(self, Self::Lost | Self::Stale | Self::Moved | Self::Missing | Self::Altered)
    }

    /// What to do about it.
    fn remedy(self) -> Text {
        match self {
            Self::Lost | Self::Moved => {
                text!("verify --against-source --repair exports it", "用 verify --against-source --repair 导出")
            }
            Self::Stale => text!(
                "verify --against-source --repair exports it; with the same source time, add --documents",
                "用 verify --against-source --repair 导出；若更新时间相同，再加 --documents"
            ),
            Self::Missing | Self::Altered => text!("verify --repair exports it", "用 verify --repair 导出"),
            Self::Permissions => text!("chown, chgrp, chmod or setfacl it", "用 chown、chgrp、chmod 或 setfacl 修正"),
            Self::Withdrawn => {
                text!("verify --against-source --prune removes it", "用 verify --against-source --prune 删除")
            }
            Self::Leftover => text!(
                "verify --against-source --prune --prune-leftovers removes it, also if it is the only file of an earlier invoice",
                "用 verify --against-source --prune --prune-leftovers 删除，即使它是之前某张发票仅存的文件"
            ),
            Self::LastGood => text!(
                "keep it: it may be the last good file of a rejected invoice; mend the row, then run exports it again",
                "请保留: 可能是无法导出的发票的最后一个正确文件；修正数据源中的记录后会重新导出"
            ),
            Self::Foreign => text!("it is not ours to remove", "不是本程序的文件，不会删除"),
            Self::Unread => {
                text!("mend what the server says, then verify again", "请先解决服务器报告的问题，再重新核对")
            }
        }
    }
}

/// What to do about an invoice that cannot be exported as its row is.
fn mend_first() -> Text {
    text!(
        "mend the row in the source, since it cannot be exported as it is (see its details)",
        "请先在数据源中修正这条记录，否则无法导出（见差异明细）"
    )
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub difference: Difference,
    pub tenant: Option<Tenant>,
    pub id: Option<InvoiceId>,
    /// Relative to the output.
    pub path: Option<String>,
    pub detail: Text,
}

/// The tenant of a finding, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Tenant(Tenant),
    /// The folder of a tenant, by its name in the output.
    Folder(String),
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Findings {
    shown: usize,
    listed: Vec<Finding>,
    numbers: BTreeMap<Difference, u64>,
    by_place: BTreeMap<(Place, Difference), u64>,
    to_export: Vec<InvoiceId>,
    /// Of these, the ones that cannot be exported as their rows are.
    unexportable: BTreeSet<(Difference, InvoiceId)>,
    withdrawn: Vec<InvoiceId>,
    superseded: Vec<TreePath>,
    reused: Vec<TreePath>,
    /// How many rows of the ledger were compared with their files.
    pub files: u64,
    pending: BTreeMap<Place, u64>,
    /// Of these, what a dead run left in doubt.
    in_doubt: BTreeMap<Place, u64>,
    /// The invoices in doubt that are counted already, here or among the findings.
    doubted: HashSet<InvoiceId>,
    /// Invoices known to be rejected that were met; where the source is not asked, all of the selection.
    rejected: BTreeMap<Place, u64>,
}

impl Place {
    /// The folder of a path below the output.
    pub(super) fn of_path(path: &str) -> Self {
        path.split('/').next().map_or(Self::Unknown, |folder| Self::Folder(folder.to_owned()))
    }

    pub(super) fn of_tenant(tenant: Option<&Tenant>) -> Self {
        tenant.cloned().map_or(Self::Unknown, Self::Tenant)
    }
}

impl Finding {
    /// Two findings with the same key are one.
    pub fn key(&self) -> (Difference, Option<&InvoiceId>, Option<&str>) {
        (self.difference, self.id.as_ref(), self.path.as_deref())
    }

    fn place(&self) -> Place {
        let folder = || self.path.as_deref().map_or(Place::Unknown, Place::of_path);
        self.tenant.clone().map_or_else(folder, Place::Tenant)
    }
}

impl Findings {
    pub fn new(shown: usize) -> Self {
        Self {
            shown,
            listed: Vec::new(),
            numbers: BTreeMap::new(),
            by_place: BTreeMap::new(),
            to_export: Vec::new(),
            unexportable: BTreeSet::new(),
            withdrawn: Vec::new(),
            superseded: Vec::new(),
            reused: Vec::new(),
            files: 0,
            pending: BTreeMap::new(),
            in_doubt: BTreeMap::new(),
            doubted: HashSet::new(),
            rejected: BTreeMap::new(),
        }
    }

    /// A row of the ledger that differs from its file or from the source.
    pub(super) fn record_entry(&mut self, difference: Difference, entry: &Entry, detail: Text) {
        let (tenant, id, path) = (entry.tenant.clone(), entry.id.clone(), entry.path.to_string());
        self.record(Finding { difference, tenant: Some(tenant), id: Some(id), path: Some(path), detail });
    }

    /// A file or folder that belongs to no invoice.
    pub(super) fn record_path(&mut self, difference: Difference, path: impl ToString, detail: Text) {
        self.record(Finding { difference, tenant: None, id: None, path: Some(path.to_string()), detail });
    }

    /// The tenant that an invoice has moved to lacks it, as the one that it left has it too much. Counted is one
    /// difference.
    pub(super) fn note_in_tenant(&mut self, difference: Difference, tenant: &Tenant) {
        *self.by_place.entry((Place::Tenant(tenant.clone()), difference)).or_default() += 1;
    }

    /// How often each difference was found where. One between two tenants counts in both.
    pub(super) fn by_place(&self) -> &BTreeMap<(Place, Difference), u64> {
        &self.by_place
    }

    /// Counts a finding, and lists it unless enough of its kind are listed.
    pub(super) fn record(&mut self, finding: Finding) {
        *self.by_place.entry((finding.place(), finding.difference)).or_default() += 1;
        let number = self.numbers.entry(finding.difference).or_default();
        *number += 1;
        if let Some(id) = &finding.id {
            if finding.difference.is_to_be_exported() {
                self.to_export.push(id.clone());
            }
            if finding.difference == Difference::Withdrawn {
                self.withdrawn.push(id.clone());
            }
        }
        if *number <= self.shown as u64 {
            self.listed.push(finding);
        }
    }

    /// The row of a difference of this kind cannot be exported as it is.
    pub(super) fn mark_unexportable(&mut self, difference: Difference, id: &InvoiceId) {
        self.unexportable.insert((difference, id.clone()));
    }

    /// Whether exporting the invoice again would not mend this difference.
    pub fn is_unexportable(&self, finding: &Finding) -> bool {
        finding.id.as_ref().is_some_and(|id| self.unexportable.contains(&(finding.difference, id.clone())))
    }

    /// What to do about the differences of one kind.
    pub fn remedy(&self, difference: Difference) -> Text {
        let unexportable = self.unexportable.iter().filter(|(kind, _)| *kind == difference).count() as u64;
        let (found, remedy) = (self.number_of(difference), difference.remedy());
        match unexportable {
            0 => remedy,
            all if all == found => mend_first(),
            some => {
                let mend = mend_first();
                text!("{remedy}; but {some} of {found}: {mend}", "{remedy}；其中 {some} 条: {mend}"; remedy, mend)
            }
        }
    }

    /// The next run exports an invoice of this place: no run has read so far yet.
    pub(super) fn note_pending(&mut self, place: Place) {
        *self.pending.entry(place).or_default() += 1;
    }

    /// The next run settles a file or an invoice of this place that a dead run left in doubt. Tree and source both show
    /// it, and it counts once.
    pub(super) fn note_in_doubt(&mut self, place: Place, invoices: &[InvoiceId]) {
        let is_new = invoices.iter().filter(|id| self.doubted.insert((*id).clone())).count() > 0;
        if is_new || invoices.is_empty() {
            *self.in_doubt.entry(place.clone()).or_default() += 1;
            self.note_pending(place);
        }
    }

    /// An invoice in doubt is a finding already.
    pub(super) fn note_found_in_doubt(&mut self, id: &InvoiceId) {
        self.doubted.insert(id.clone());
    }

    /// How many files or invoices are in doubt, so that they were not compared.
    pub fn in_doubt(&self) -> u64 {
        self.in_doubt.values().sum()
    }

    /// The same by place.
    pub(super) fn in_doubt_by_place(&self) -> &BTreeMap<Place, u64> {
        &self.in_doubt
    }

    /// An invoice of this place is known to be one that cannot be exported.
    pub(super) fn note_rejected(&mut self, place: Place) {
        *self.rejected.entry(place).or_default() += 1;
    }

    /// How many are known to be rejected.
    pub fn rejected(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// The same by place.
    pub(super) fn rejected_by_place(&self) -> &BTreeMap<Place, u64> {
        &self.rejected
    }

    /// How many invoices and files the next run takes care of.
    pub fn pending(&self) -> u64 {
        self.pending.values().sum()
    }

    /// The same by place.
    pub(super) fn pending_by_place(&self) -> &BTreeMap<Place, u64> {
        &self.pending
    }

    /// How many were found.
    pub fn number(&self) -> u64 {
        self.numbers.values().sum()
    }

    pub fn number_of(&self, difference: Difference) -> u64 {
        self.numbers.get(&difference).copied().unwrap_or_default()
    }

    /// The findings to be shown, the gravest kind first.
    pub fn listed(&self) -> Vec<&Finding> {
        let mut listed: Vec<&Finding> = self.listed.iter().collect();
        listed.sort_by_key(|finding| (finding.difference, &finding.path));
        listed
    }

    pub(super) fn to_export(&self) -> &[InvoiceId] {
        &self.to_export
    }

    /// A file that was left where it is.
    pub(super) fn record_leftover(&mut self, leftover: &Leftover) {
        let Leftover { path, id, why, .. } = leftover;
        let of = if leftover.is_superseded() { &mut self.superseded } else { &mut self.reused };
        of.push(path.clone());
        let detail = match why {
            Some(KeptReason::NotRemoved) => text!(
                "id {id} has another path now, and this file could not be removed",
                "id {id} 现在是另一个路径，而这个文件当时无法删除"
            ),
            Some(KeptReason::Number) => text!(
                "id {id} had this path and carries another number now, or that of another year",
                "id {id} 曾用此路径，现在是另一个发票号，或另一年的同一发票号"
            ),
            Some(KeptReason::Tenant) => text!(
                "id {id} had this path and belongs to another tenant now",
                "id {id} 曾用此路径，现在属于另一个租户"
            ),
            Some(KeptReason::Table) => text!(
                "id {id} had this path, and it is not proven that it still is that invoice's id",
                "id {id} 曾用此路径，无法证明它仍是那张发票的 id"
            ),
            None => text!("id {id} had this path and has another one now", "id {id} 曾用此路径，现在是另一个路径"),
        };
        self.record_path(Difference::Leftover, path, detail);
    }

    /// Leftovers that are provably superseded.
    pub(super) fn superseded(&self) -> &[TreePath] {
        &self.superseded
    }

    /// Leftovers that are not provably superseded.
    pub(super) fn reused(&self) -> &[TreePath] {
        &self.reused
    }

    pub(super) fn withdrawn(&self) -> &[InvoiceId] {
        &self.withdrawn
    }
}
