//! How far each tenant lags behind: what the state says of it beside what the source has now. It only
//! reads; `status` shows it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::server::{ServerSession, refuse_other_source};
use crate::event::Event;
use crate::invoice::{SourceTime, Tenant};
use crate::source::{KeyCursor, ListedTenant, Source};
use crate::state::history::RunStatus;
use crate::state::overview::{LastRun, OpenRejects, Overview, TenantStanding};
use crate::state::proofs::VerifiedTenant;
use crate::state::runs::LastKnownState;
use crate::window::{Span, seconds_between};

/// What the source says now.
#[derive(Clone, Debug)]
pub struct LagSnapshot {
    pub boundary: SourceTime,
    pub listed: Vec<ListedTenant>,
    /// Known tenants that are listed under another spelling only.
    pub folded: HashSet<Tenant>,
}

/// By what a tenant counts as stale.
pub enum Yardstick<'a> {
    Source(&'a LagSnapshot),
    /// The source cannot be asked; this is our own clock.
    OwnClock(DateTime<Utc>),
}

/// How far one tenant lags behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantLag {
    /// None for rejects of an unknown tenant.
    pub tenant: Option<Tenant>,
    pub watermark: Option<SourceTime>,
    /// Seconds from the watermark to the boundary.
    pub lag: Option<i64>,
    pub last: Option<LastRun>,
    pub rejects: OpenRejects,
    /// Seconds that its latest late arrival lay below the watermark.
    pub late_by: Option<u64>,
    /// What verifications say of it.
    pub verified: VerifiedTenant,
    pub remark: Option<Remark>,
    pub stale: bool,
}

words! {
    /// Why a tenant has no lag though the source was asked.
    pub enum Remark {
        /// The state does not know it, the source has rows of it.
        NeverExported = "never exported", "从未导出";
        /// Full runs only so far, or its watermark was taken away.
        NoWatermark = "no watermark", "没有水位线";
        /// The source has no issued rows of it any more.
        Absent = "absent", "数据源中已不存在";
    }
}

/// Asks the source for its clock and its tenants. Chosen tenants may hide behind another spelling in its list.
pub fn ask(
    server_session: &mut ServerSession,
    state: &Path,
    last: &LastKnownState,
    overview: &Overview,
    chosen: &[Tenant],
    safety_lag: Duration,
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<LagSnapshot> {
    refuse_other_source(state, last, server_session.name())?;
    let boundary = server_session.ask(tell, |source| source.clock())?.boundary(safety_lag);
    let mut listed = server_session.ask(tell, |source| source.tenants(&boundary))?.tenants;
    let known = known_spellings(overview);
    for tenant in chosen {
        let is_met = known.contains_key(tenant) || listed.iter().any(|listed| listed.spelling == *tenant);
        if !is_met && server_session.ask(tell, |source| source.has_tenant(tenant))? {
            listed.push(ListedTenant::unlisted(tenant));
        }
    }
    let mut folded = HashSet::new();
    // Only behind a spelling that we do not know can one hide that we know.
    if listed.iter().any(|listed| !known.contains_key(&listed.spelling)) {
        let families = newest_by_family(overview, &listed);
        for standing in overview.tenants.iter().filter(|standing| !families.contains_key(&standing.family)) {
            let first = |source: &mut dyn Source| source.keys(&standing.tenant, &Span::default(), &KeyCursor::Start, 1);
            if !server_session.ask(tell, first)?.is_empty() {
                folded.insert(standing.tenant.clone());
            }
        }
    }
    Ok(LagSnapshot { boundary, listed, folded })
}

/// The tenants of the state with their families.
fn known_spellings(overview: &Overview) -> HashMap<&Tenant, i64> {
    overview.tenants.iter().map(|standing| (&standing.tenant, standing.family)).collect()
}

/// The newest source time of every family that the source lists under a known spelling.
fn newest_by_family<'a>(overview: &Overview, listed: &'a [ListedTenant]) -> HashMap<i64, Option<&'a SourceTime>> {
    let known = known_spellings(overview);
    let mut families: HashMap<i64, Option<&SourceTime>> = HashMap::new();
    for ListedTenant { spelling, newest, .. } in listed {
        if let Some(family) = known.get(spelling) {
            let of_family = families.entry(*family).or_default();
            *of_family = (*of_family).max(newest.as_ref());
        }
    }
    families
}

/// Every tenant of state and source, the one that lags most first.
pub fn tenant_lags(overview: &Overview, by: &Yardstick<'_>, stale_after: Option<Duration>) -> Vec<TenantLag> {
    let stale_after = stale_after.map(|after| i64::try_from(after.as_secs()).unwrap_or(i64::MAX));
    let mut tenant_lags: Vec<TenantLag> = match by {
        Yardstick::OwnClock(now) => {
            overview.tenants.iter().map(|standing| lag_by_clock(standing, *now, stale_after)).collect()
        }
        Yardstick::Source(present) => {
            let families = newest_by_family(overview, &present.listed);
            let known =
                overview.tenants.iter().map(|standing| lag_by_source(standing, present, &families, stale_after));
            let spellings = known_spellings(overview);
            let new = present.listed.iter().filter(|listed| !spellings.contains_key(&listed.spelling));
            known.chain(new.map(|listed| never_exported(listed, &present.boundary, stale_after))).collect()
        }
    };
    if overview.rejects_without_tenant.number > 0 {
        tenant_lags.push(TenantLag { rejects: overview.rejects_without_tenant.clone(), ..TenantLag::default() });
    }
    tenant_lags.sort_by(|one, other| rank(one).cmp(&rank(other)));
    tenant_lags
}

/// First those without a watermark, then by watermark, which is by lag too; last what has no lag to
/// speak of.
fn rank(tenant_lag: &TenantLag) -> (u8, Option<&SourceTime>, Option<&Tenant>) {
    let group = match (&tenant_lag.tenant, tenant_lag.remark) {
        (None, _) => 3,
        (_, Some(Remark::Absent)) => 2,
        (_, Some(Remark::NeverExported)) => 0,
        (_, Some(Remark::NoWatermark) | None) => 1,
    };
    (group, tenant_lag.watermark.as_ref(), tenant_lag.tenant.as_ref())
}

/// What the state alone says of a tenant.
fn without_lag(standing: &TenantStanding) -> TenantLag {
    TenantLag {
        tenant: Some(standing.tenant.clone()),
        watermark: standing.watermark.clone(),
        last: standing.last.clone(),
        rejects: standing.rejects.clone(),
        late_by: standing.late_by,
        verified: standing.verified.clone(),
        remark: standing.watermark.is_none().then_some(Remark::NoWatermark),
        ..TenantLag::default()
    }
}

/// Judged by the age of the last success.
fn lag_by_clock(standing: &TenantStanding, now: DateTime<Utc>, stale_after: Option<i64>) -> TenantLag {
    let success = standing.last.as_ref().filter(|last| last.outcome == RunStatus::Success);
    let age = success.and_then(|last| age(last, now));
    let stale = stale_after.is_some_and(|after| age.is_none_or(|age| age > after));
    TenantLag { stale, ..without_lag(standing) }
}

/// Judged by what the source has.
fn lag_by_source(
    standing: &TenantStanding,
    present: &LagSnapshot,
    families: &HashMap<i64, Option<&SourceTime>>,
    stale_after: Option<i64>,
) -> TenantLag {
    let tenant_lag = without_lag(standing);
    let newest = families.get(&standing.family);
    if newest.is_none() && !present.folded.contains(&standing.tenant) {
        return TenantLag { remark: Some(Remark::Absent), ..tenant_lag };
    }
    let behind = |time: &SourceTime| seconds_between(time, &present.boundary);
    let lag = standing.watermark.as_ref().and_then(behind);
    let waiting = match standing.watermark {
        Some(_) => lag,
        None => newest.copied().flatten().and_then(behind),
    };
    TenantLag { lag, stale: is_more(waiting, stale_after), ..tenant_lag }
}

/// Of a tenant that only the source knows.
fn never_exported(listed: &ListedTenant, boundary: &SourceTime, stale_after: Option<i64>) -> TenantLag {
    let waiting = listed.newest.as_ref().and_then(|newest| seconds_between(newest, boundary));
    TenantLag {
        tenant: Some(listed.spelling.clone()),
        remark: Some(Remark::NeverExported),
        stale: is_more(waiting, stale_after),
        ..TenantLag::default()
    }
}

fn is_more(seconds: Option<i64>, than: Option<i64>) -> bool {
    seconds.zip(than).is_some_and(|(seconds, than)| seconds > than)
}

/// Seconds since a run started.
fn age(run: &LastRun, now: DateTime<Utc>) -> Option<i64> {
    let started = DateTime::parse_from_rfc3339(&run.started).ok()?;
    Some(now.signed_duration_since(started).num_seconds())
}
