//! What `verify` may find, counted in full and listed as far as anybody wants to read.

use std::collections::BTreeMap;

use crate::invoice::{InvoiceId, Tenant};
use crate::run::WhyKept;
use crate::state::todo::Leftover;
use crate::tree::name::TreePath;

/// How tree, ledger and source differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Difference {
    /// An invoice that should have been exported and was not.
    Lost,
    /// The source holds another document than was exported.
    Stale,
    /// The invoice belongs to another path than its file has.
    Moved,
    /// The file is not there.
    Missing,
    /// The file is not what was written.
    Altered,
    /// Whom the file or the folder belongs to, or what it permits, is not as we make it.
    Permissions,
    /// The invoice is none any more; its file still lies there.
    Withdrawn,
    /// A file that its invoice, or an earlier one with the same id, left behind.
    Leftover,
    /// Nobody knows the file.
    Foreign,
}

impl Difference {
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Stale,
        Self::Moved,
        Self::Missing,
        Self::Altered,
        Self::Permissions,
        Self::Withdrawn,
        Self::Leftover,
        Self::Foreign,
    ];

    /// The word shown and used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Stale => "stale",
            Self::Moved => "moved",
            Self::Missing => "missing",
            Self::Altered => "altered",
            Self::Permissions => "permissions",
            Self::Withdrawn => "withdrawn",
            Self::Leftover => "leftover",
            Self::Foreign => "foreign",
        }
    }

    /// Whether exporting the invoice again mends it.
    fn is_to_be_exported(self) -> bool {
        matches!(self, Self::Lost | Self::Stale | Self::Moved | Self::Missing | Self::Altered)
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Lost | Self::Moved => "verify --against-source --repair exports it",
            Self::Stale => "verify --against-source --repair exports it; with the same source time, add --documents",
            Self::Missing | Self::Altered => "verify --repair exports it",
            Self::Permissions => "chown or chmod it",
            Self::Withdrawn => "verify --against-source --prune removes it",
            Self::Leftover => {
                "verify --against-source --prune --prune-leftovers removes it, also if it is the only file of an earlier invoice"
            }
            Self::Foreign => "it is not ours to remove",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub difference: Difference,
    pub tenant: Option<Tenant>,
    pub id: Option<InvoiceId>,
    /// Relative to the output.
    pub path: Option<String>,
    pub detail: String,
}

#[derive(Clone, Debug)]
pub struct Findings {
    shown: usize,
    listed: Vec<Finding>,
    numbers: BTreeMap<Difference, u64>,
    to_export: Vec<InvoiceId>,
    withdrawn: Vec<InvoiceId>,
    superseded: Vec<TreePath>,
    reused: Vec<TreePath>,
    /// Rows of the ledger whose files were looked at.
    pub files: u64,
    /// Invoices that the next run exports, since they are newer than what runs have read.
    pub pending: u64,
    /// Invoices known to be rejected.
    pub rejected: u64,
}

impl Finding {
    /// What makes two of them the same.
    pub fn key(&self) -> (Difference, Option<&InvoiceId>, Option<&str>) {
        (self.difference, self.id.as_ref(), self.path.as_deref())
    }
}

impl Findings {
    pub fn new(shown: usize) -> Self {
        Self {
            shown,
            listed: Vec::new(),
            numbers: BTreeMap::new(),
            to_export: Vec::new(),
            withdrawn: Vec::new(),
            superseded: Vec::new(),
            reused: Vec::new(),
            files: 0,
            pending: 0,
            rejected: 0,
        }
    }

    pub(super) fn add(&mut self, finding: Finding) {
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

    /// All of them.
    pub fn number(&self) -> u64 {
        self.numbers.values().sum()
    }

    pub fn number_of(&self, difference: Difference) -> u64 {
        self.numbers.get(&difference).copied().unwrap_or_default()
    }

    /// As many of each kind as are to be shown, the gravest kind first.
    pub fn listed(&self) -> Vec<&Finding> {
        let mut listed: Vec<&Finding> = self.listed.iter().collect();
        listed.sort_by_key(|finding| (finding.difference, &finding.path));
        listed
    }

    pub(super) fn to_export(&self) -> &[InvoiceId] {
        &self.to_export
    }

    /// Adds a file that was left where it is.
    pub(super) fn add_leftover(&mut self, leftover: &Leftover) {
        let Leftover { path, id, why, .. } = leftover;
        let of = if leftover.is_superseded() { &mut self.superseded } else { &mut self.reused };
        of.push(path.clone());
        let detail = match why {
            Some(WhyKept::NotRemoved) => format!("id {id} has another path now, and this file could not be removed"),
            Some(WhyKept::Number) => {
                format!("id {id} had this path and carries another number now, or that of another year")
            }
            Some(WhyKept::Tenant) => format!("id {id} had this path and belongs to another tenant now"),
            Some(WhyKept::Table) => {
                format!("id {id} had this path, and it is not proven that it still is that invoice's id")
            }
            None => format!("id {id} had this path and has another one now"),
        };
        let (difference, path) = (Difference::Leftover, Some(path.to_string()));
        self.add(Finding { difference, tenant: None, id: None, path, detail });
    }

    /// Leftovers that are provably superseded.
    pub(super) fn superseded(&self) -> &[TreePath] {
        &self.superseded
    }

    /// Leftovers of which that is not proven.
    pub(super) fn reused(&self) -> &[TreePath] {
        &self.reused
    }

    pub(super) fn withdrawn(&self) -> &[InvoiceId] {
        &self.withdrawn
    }
}
