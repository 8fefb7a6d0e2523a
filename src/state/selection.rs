//! The invoices that an operator has selected for a run or a verification.

use super::ledger::Entry;
use crate::invoice::{SourceTime, Tenant};
use crate::window::Span;

/// Tenants, and a window of source times.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Empty means all.
    pub tenants: Vec<Tenant>,
    pub window: Span,
}

impl Selection {
    /// Whether an invoice of the ledger is selected.
    pub fn holds(&self, entry: &Entry) -> bool {
        self.has_tenant(&entry.tenant) && self.spans(entry.time.as_ref())
    }

    /// Whether a tenant is selected.
    pub fn has_tenant(&self, tenant: &Tenant) -> bool {
        self.has_all_tenants() || self.tenants.contains(tenant)
    }

    /// Whether no tenant is left out.
    pub fn has_all_tenants(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Whether a source time lies in the window. None lies in none, unless everything does.
    pub fn spans(&self, time: Option<&SourceTime>) -> bool {
        let Span { after, upto } = &self.window;
        let is_after = |bound: &SourceTime| time.is_some_and(|time| time > bound);
        let is_upto = |bound: &SourceTime| time.is_some_and(|time| time <= bound);
        after.as_ref().is_none_or(is_after) && upto.as_ref().is_none_or(is_upto)
    }

    /// Whether source times are bounded.
    pub fn has_window(&self) -> bool {
        self.window != Span::default()
    }
}
