//! Finds out which of the known spellings are one tenant to the source.
//!
//! Where the column's collation folds spellings, the source lists one of them for all. Spellings that
//! one scan returned are known to belong together, but what an import or an operator entered has not
//! been met by any scan. Unless its family is found before the groups are made, it would be read from
//! the look-back of the listed spelling, which may lie above its own.

use std::collections::{HashMap, HashSet};

use super::diff::KEYS_A_PAGE;
use crate::invoice::Tenant;
use crate::source::{KeyCursor, ListedTenant, Source, SourceError};
use crate::state::tenants::KnownTenant;
use crate::window::Span;

/// Puts spellings that no run has met into the family of the listed spelling that the source calls
/// equal. Costs nothing where there are none.
pub(super) fn merge(
    known: &mut [KnownTenant],
    listed: &[ListedTenant],
    source: &mut dyn Source,
) -> Result<(), SourceError> {
    let listed: HashSet<&Tenant> = listed.iter().map(|listed| &listed.spelling).collect();
    let families: HashMap<Tenant, i64> = known
        .iter()
        .filter(|known| listed.contains(&known.tenant))
        .map(|known| (known.tenant.clone(), known.family))
        .collect();
    let listed_families: HashSet<i64> = families.values().copied().collect();
    let mut joined: HashMap<i64, i64> = HashMap::new();
    for KnownTenant { tenant, family, watermark, newest, .. } in known.iter() {
        let was_met = watermark.is_none() || newest.is_some();
        if was_met || listed_families.contains(family) || joined.contains_key(family) {
            continue;
        }
        let equal = listed_as(tenant, &listed, source)?;
        if let Some(theirs) = equal.and_then(|equal| families.get(&equal)) {
            joined.insert(*family, *theirs);
        }
    }
    for known in known {
        known.family = joined.get(&known.family).copied().unwrap_or(known.family);
    }
    Ok(())
}

/// The listed spelling among those that the source takes for this tenant. There is one, unless the
/// tenant has no rows.
fn listed_as(
    tenant: &Tenant,
    listed: &HashSet<&Tenant>,
    source: &mut dyn Source,
) -> Result<Option<Tenant>, SourceError> {
    let mut cursor = KeyCursor::Start;
    loop {
        let mut keys = source.keys(tenant, &Span::default(), &cursor, KEYS_A_PAGE)?;
        if let Some(key) = keys.iter().find(|key| listed.contains(&key.tenant)) {
            return Ok(Some(key.tenant.clone()));
        }
        let is_full = keys.len() >= KEYS_A_PAGE;
        match keys.pop() {
            Some(last) if is_full => cursor = KeyCursor::After(last),
            _ => return Ok(None),
        }
    }
}
