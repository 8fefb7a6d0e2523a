//! What a language must be able to say. A language only words things: which line is said, with
//! which level, in which order and where is decided in `lines.rs` and `closing.rs`.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use crate::effort::Effort;
use crate::event::Notice;
use crate::invoice::{InvoiceId, Reason, SourceTime, Tenant};
use crate::refusal::{Holder, Refusal, Trouble};
use crate::run::{Counts, Kind, Summary};

/// What colours every sentence of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    pub kind: Kind,
    pub dry_run: bool,
}

impl Mode {
    /// How many invoices count as exported. An incremental run speaks of what is new; the others
    /// promise that everything they read is there now.
    pub(super) fn exported(self, counts: &Counts) -> u64 {
        match self.kind {
            Kind::Incremental => counts.written,
            Kind::Full | Kind::Backfill | Kind::Verify => counts.written + counts.unchanged,
        }
    }
}

/// Numbers of the closing block that are told only when they are not zero.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tally {
    Unchanged,
    Gone,
    Late { by: Duration },
    Removed,
}

/// The first of so many ids.
pub(super) fn ids(of: u64, some: &[InvoiceId]) -> String {
    let some_text = some.iter().map(InvoiceId::as_str).collect::<Vec<_>>().join(", ");
    if of > some.len() as u64 { format!("{some_text}, …") } else { some_text }
}

pub(super) trait Words: Sync {
    fn dry_run(&self) -> String;
    fn mode(&self, kind: Kind) -> String;
    fn title(&self, kind: Kind) -> String;
    fn waiting(&self, holder: Option<&Holder>, at_most: Duration) -> String;
    fn boundary(&self, boundary: &SourceTime) -> String;
    fn listing_tenants(&self) -> String;
    fn progress(&self, mode: Mode, invoices: u64) -> String;
    fn notice(&self, notice: &Notice) -> String;

    fn tenant_started(
        &self,
        kind: Kind,
        tenant: &Tenant,
        after: Option<&SourceTime>,
        upto: Option<&SourceTime>,
    ) -> String;
    fn tenant_done(&self, mode: Mode, tenant: &Tenant, counts: &Counts) -> String;
    /// All the numbers of a tenant, for `-v`.
    fn tenant_counts(&self, tenant: &Tenant, counts: &Counts) -> String;
    fn tenant_failed(&self, tenant: &Tenant, error: &str) -> String;
    fn rejected(&self, tenant: Option<&Tenant>, id: &InvoiceId, number: Option<&str>, reason: &Reason) -> String;
    fn more_rejected(&self, more: u64) -> String;

    /// The headline of the closing block. It claims success only where the outcome is one.
    fn finished(&self, mode: Mode, summary: &Summary) -> String;
    fn tenants(&self, kind: Kind, tenants: u64) -> String;
    fn exported(&self, mode: Mode, invoices: u64) -> String;
    fn state(&self, mode: Mode, state: &Path) -> String;
    fn window(&self, since: Option<&SourceTime>, boundary: &SourceTime) -> String;
    fn tally(&self, mode: Mode, tally: Tally, number: u64) -> String;
    fn rejects(&self, summary: &Summary) -> String;
    fn failed_tenant(&self, tenant: &Tenant, error: &str) -> String;
    fn volume(&self, mode: Mode, bytes: u64) -> String;
    fn effort(&self, effort: Effort) -> String;
    fn elapsed(&self, elapsed: Duration) -> String;

    fn refusal(&self, refusal: &Refusal) -> String;
    fn trouble(&self, trouble: &Trouble) -> String;
    /// What to do about an error of the operating system, where something can be done.
    fn remedy(&self, kind: ErrorKind) -> Option<&'static str>;

    /// The tenant at work, beside the bar.
    fn at_work(&self, tenant: &Tenant) -> String;
    /// `indicatif` templates: with a known total, and without.
    fn bar(&self) -> &'static str;
    fn spinner(&self) -> &'static str;
}
