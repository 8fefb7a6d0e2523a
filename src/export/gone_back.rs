//! Tenants that show an older newest source time than a run has seen: their newest rows were deleted or
//! are no invoices any more, or the source is an older copy. Without I/O, from what every incremental run asks anyway.

use std::collections::HashSet;

use super::plan::Group;
use crate::event::FallenTenant;
use crate::invoice::{SourceTime, Tenant};
use crate::state::tenants::KnownTenant;

/// The tenants that show an older newest time than before. A known tenant that no group has is not in the source any
/// more; it counts if the last run met it, which its watermark shows.
pub(super) fn fallen(groups: &[Group], known: &[KnownTenant], boundary: &SourceTime) -> Vec<FallenTenant> {
    let mut fallen: Vec<FallenTenant> = groups.iter().filter_map(|group| fallen_group(group, boundary)).collect();
    // All spellings of a family are members of its group.
    let members: usize =
        groups.iter().map(|group| group.members.iter().filter(|member| member.number.is_some()).count()).sum();
    if members < known.len() {
        let listed: HashSet<&Tenant> =
            groups.iter().flat_map(|group| &group.members).map(|member| &member.tenant).collect();
        let last = known.iter().map(|tenant| &tenant.watermark).max();
        let vanished =
            known.iter().filter(|tenant| !listed.contains(&tenant.tenant) && Some(&tenant.watermark) == last);
        fallen.extend(vanished.filter_map(|tenant| {
            Some(FallenTenant { tenant: tenant.tenant.clone(), from: tenant.newest.clone()?, to: None })
        }));
    }
    fallen
}

/// A tenant with a time above the boundary has not gone back: its newest row was updated within the safety lag. A time
/// that a run has seen above the boundary says nothing either: the clock, or the lag, is another one.
fn fallen_group(group: &Group, boundary: &SourceTime) -> Option<FallenTenant> {
    let member = group.members.iter().max_by_key(|member| &member.newest)?;
    let from = member.newest.clone().filter(|newest| newest <= boundary)?;
    let has_fallen = group.ahead.is_none() && group.newest.as_ref().is_none_or(|newest| *newest < from);
    has_fallen.then(|| FallenTenant { tenant: member.tenant.clone(), from, to: group.newest.clone() })
}
