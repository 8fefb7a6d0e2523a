//! What `status` says of the chosen tenants together: a line for people below the rows, and the alarms of exit 6.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::past::parsed;
use crate::cli::Status;
use crate::event::Notice;
use crate::export::lag::{LagSnapshot, TenantLag};
use crate::invoice::Tenant;
use crate::lang::{Text, span};
use crate::refusal::Refusal;
use crate::state::overview::OpenRejects;

/// The lags of the chosen tenants; of all of them, and of rejects without a known tenant, if none is chosen.
///
/// # Errors
/// A chosen tenant is unknown to the state and, if it was asked, to the source.
pub(super) fn chosen(
    tenant_lags: Vec<TenantLag>,
    tenants: &[String],
    present: Option<&LagSnapshot>,
) -> Result<Vec<TenantLag>, Refusal> {
    if tenants.is_empty() {
        return Ok(tenant_lags);
    }
    let known: HashSet<&str> =
        tenant_lags.iter().filter_map(|tenant_lag| tenant_lag.tenant.as_ref()).map(Tenant::as_str).collect();
    match tenants.iter().find(|tenant| !known.contains(tenant.as_str())) {
        Some(unknown) if present.is_some() => Err(Refusal::UnknownTenant(unknown.clone())),
        Some(unknown) => Err(Refusal::TenantNotInState(unknown.clone())),
        None => {
            Ok(tenant_lags.into_iter().filter(|tenant_lag| is_chosen(tenant_lag.tenant.as_ref(), tenants)).collect())
        }
    }
}

/// Whether the rows of a tenant are listed.
pub(super) fn is_chosen(tenant: Option<&Tenant>, tenants: &[String]) -> bool {
    tenants.is_empty() || tenant.is_some_and(|tenant| tenants.iter().any(|chosen| chosen == tenant.as_str()))
}

/// How many rows are listed at most.
pub(super) fn row_limit(args: &Status) -> usize {
    if args.limit == 0 { usize::MAX } else { args.limit }
}

/// How long the oldest open reject has been open; zero if our clock was set back since.
pub(super) fn open_for(rejects: &OpenRejects, now: DateTime<Utc>) -> Option<Duration> {
    let opened = rejects.oldest.as_deref().and_then(parsed)?;
    Some(now.signed_duration_since(opened).to_std().unwrap_or_default())
}

/// The sums of the chosen tenants.
pub(super) struct Totals {
    /// Without those that no row names.
    tenants: u64,
    stale: u64,
    rejects: u64,
    /// How long the oldest reject has been open.
    oldest: Option<Duration>,
}

impl Totals {
    pub(super) fn of(tenant_lags: &[TenantLag], now: DateTime<Utc>) -> Self {
        Self {
            tenants: tenant_lags.iter().filter(|tenant_lag| tenant_lag.tenant.is_some()).count() as u64,
            stale: tenant_lags.iter().filter(|tenant_lag| tenant_lag.stale).count() as u64,
            rejects: tenant_lags.iter().map(|tenant_lag| tenant_lag.rejects.number).sum(),
            oldest: tenant_lags.iter().filter_map(|tenant_lag| open_for(&tenant_lag.rejects, now)).max(),
        }
    }

    /// The line below the tenants.
    pub(super) fn of_tenants(&self, args: &Status) -> Text {
        let (tenants, stale, rejects) = (self.tenants, self.stale, self.of_rejects());
        let all = match tenants {
            1 => text!("1 tenant", "共 1 个租户"),
            _ => text!("{tenants} tenants", "共 {tenants} 个租户"),
        };
        match args.stale_after {
            Some(_) => text!("{all}: {stale} stale, {rejects}", "{all}: 滞后过久 {stale} 个，{rejects}"; all, rejects),
            None => text!("{all}: {rejects}", "{all}: {rejects}"; all, rejects),
        }
    }

    /// The line below the rejects.
    pub(super) fn of_rejects(&self) -> Text {
        let rejects = self.rejects;
        let open = match rejects {
            0 => return text!("no open rejects", "没有无法导出的记录"),
            1 => text!("1 open reject", "无法导出的记录 1 条"),
            _ => text!("{rejects} open rejects", "无法导出的记录 {rejects} 条"),
        };
        match self.oldest.map(span) {
            Some(oldest) => {
                text!("{open}, the oldest for {oldest}", "{open}，最早的已持续 {oldest}"; open, oldest)
            }
            None => open,
        }
    }

    /// What is beyond the limits that were given. Each alarms.
    pub(super) fn alarms(&self, args: &Status) -> Vec<Notice> {
        let (tenants, of, open) = (self.stale, self.tenants, self.rejects);
        let stale = args.stale_after.filter(|_| tenants > 0).map(|after| Notice::Stale { tenants, of, after });
        let too_many = args.max_rejects.filter(|allowed| open > *allowed);
        let too_many = too_many.map(|allowed| Notice::TooManyRejects { open, allowed });
        let old = args.reject_older_than.zip(self.oldest).filter(|(allowed, open_for)| open_for > allowed);
        let old = old.map(|(allowed, open_for)| Notice::OldReject { open_for, allowed });
        stale.into_iter().chain(too_many).chain(old).collect()
    }
}
