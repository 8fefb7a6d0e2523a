//! What a history must come to: the table in memory, and what of it must be on disk by when.
//!
//! It says what is promised and nothing of how it is kept. An invoice that was changed is awaited until
//! a run that must see it has ended well; meanwhile nobody can say what lies at the path it claims.

use std::collections::{BTreeMap, BTreeSet};

use super::clocks::{Clocks, Records};
use super::identity::{Identity, Version};
use super::steps::{Change, Fields, Kind, Pace, SPOILED, TENANTS, What, When};

/// One row. Times are seconds since 1970 on the source's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invoice {
    pub(super) tenant: Option<&'static str>,
    pub(super) country: &'static str,
    pub(super) date: &'static str,
    pub(super) number: &'static str,
    pub(super) issued: bool,
    pub(super) document: &'static str,
    pub(super) time: Option<i64>,
}

/// What becomes of a row.
pub(super) type Write = (i64, Option<Invoice>);

/// Which runs must see a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    /// Another invoice came to or left its path: any run that may touch it.
    Turn,
    /// The next incremental run.
    Window,
    /// It came later than the overlap reaches: one that reads all keys.
    AllKeys,
    /// It may look as if it had not changed: one that reads all documents.
    Documents,
}

/// What incremental runs may have made of a tenant.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The next one need not see what comes with a source time up to here.
    upto: Option<i64>,
    /// Changes up to here are none of a later incremental run's business.
    passed: Option<i64>,
    /// Doubt was cast by a run that does not read for all that was doubted.
    doubted: bool,
}

/// One run, as far as it matters what it could see.
pub(super) struct Sight {
    pub(super) kind: Kind,
    pub(super) clocks: Clocks,
    /// Since when the oldest work that the server shows is open.
    pub(super) open_since: Option<i64>,
    /// Who was known to be rejected before. Runs read them again; a verification leaves them to runs.
    pub(super) rejects: Vec<String>,
    pub(super) ended_well: bool,
}

pub(super) struct Reference {
    pace: &'static Pace,
    pub(super) rows: BTreeMap<i64, Invoice>,
    /// Everything that every id ever was.
    past: BTreeMap<i64, Vec<Invoice>>,
    awaited: BTreeMap<i64, Awaits>,
    seen: BTreeMap<&'static str, Seen>,
    records: Records,
    pub(super) identity: Identity,
    newest_boundary: Option<i64>,
    /// A run died, and none has ended well since.
    pub(super) run_died: bool,
}

impl Invoice {
    /// Its path, if it could have a file there.
    pub(super) fn claim(&self) -> Option<String> {
        let Self { tenant, country, date, number, .. } = self;
        let tenant = tenant.filter(|_| self.issued && !self.is_spoiled())?;
        Some(format!("{tenant}/{country}/{}+{number}.json", date.replace('-', "")))
    }

    /// No run can export it, and every run says so.
    fn is_spoiled(&self) -> bool {
        self.tenant.is_none() || SPOILED.contains(&self.document)
    }
}

/// What a change would write now to these rows, if the row is there at all.
pub(super) fn writes(rows: &BTreeMap<i64, Invoice>, Change { id, what, when }: &Change, now: i64) -> Vec<Write> {
    let before = rows.get(id);
    let time = match when {
        When::Now => Some(now),
        When::Behind(by) => Some(now - by),
        When::Ahead(by) => Some(now + by),
        When::Never => None,
        When::Unmoved => before.map_or(Some(now), |row| row.time),
    };
    if let What::New(Fields { tenant, country, date, number, document }) = *what {
        return vec![(*id, Some(Invoice { tenant, country, date, number, issued: true, document, time }))];
    }
    let Some(before) = before else { return Vec::new() };
    let row = Invoice { time, ..before.clone() };
    let row = match *what {
        What::New(_) | What::Deleted => return vec![(*id, None)],
        What::Number(number) => Invoice { number, ..row },
        What::Date(date) => Invoice { date, ..row },
        What::Country(country) => Invoice { country, ..row },
        What::Tenant(tenant) => Invoice { tenant, ..row },
        What::Document(document) => Invoice { document, ..row },
        What::Withdrawn => Invoice { issued: false, ..row },
        What::Issued => Invoice { issued: true, ..row },
        What::PathSwappedWith(other) => {
            let Some(theirs) = rows.get(&other) else { return Vec::new() };
            let take_path = |row: &Invoice, from: &Invoice| {
                let Invoice { tenant, country, date, number, .. } = *from;
                Invoice { tenant, country, date, number, ..row.clone() }
            };
            let swapped = take_path(&Invoice { time, ..theirs.clone() }, before);
            return vec![(*id, Some(take_path(&row, theirs))), (other, Some(swapped))];
        }
    };
    vec![(*id, Some(row))]
}

impl Reference {
    pub(super) fn new(pace: &'static Pace) -> Self {
        Self {
            pace,
            rows: BTreeMap::new(),
            past: BTreeMap::new(),
            awaited: BTreeMap::new(),
            seen: BTreeMap::new(),
            records: Records::new(pace),
            identity: Identity::default(),
            newest_boundary: None,
            run_died: false,
        }
    }

    pub(super) fn commit(&mut self, writes: Vec<Write>) {
        for (id, row) in writes {
            let before = self.rows.remove(&id);
            let paths = [before.as_ref(), row.as_ref()].map(|row| row.and_then(Invoice::claim));
            for (other, theirs) in &self.rows {
                if theirs.claim().is_some_and(|path| paths.iter().flatten().any(|mine| *mine == path)) {
                    self.awaited.entry(*other).or_insert(Awaits::Turn);
                }
            }
            match row.as_ref().filter(|row| row.issued).map(|row| self.awaits(id, row)) {
                Some(awaits) => self.awaited.insert(id, awaits),
                None => self.awaited.remove(&id),
            };
            self.past.entry(id).or_default().extend(row.clone());
            self.rows.extend(row.map(|row| (id, row)));
        }
    }

    fn awaits(&self, id: i64, row: &Invoice) -> Awaits {
        let looks_the_same = |past: &Invoice| (past.time, past.tenant) == (row.time, row.tenant);
        // No tenant's window brings it, so that nothing but the tenant counts.
        let Some(tenant) = row.tenant else { return Awaits::Window };
        let may_be_settled = self.newest_boundary.is_some_and(|boundary| row.time < Some(boundary));
        if may_be_settled && self.past.get(&id).is_some_and(|past| past.iter().any(looks_the_same)) {
            return Awaits::Documents;
        }
        let seen = self.seen.get(tenant).copied().unwrap_or_default();
        // Without a time it is read where there is no lower bound.
        let is_below = row.time.is_none_or(|time| seen.upto.is_some_and(|upto| time <= upto));
        if is_below { Awaits::AllKeys } else { Awaits::Window }
    }

    /// A run ended, or died.
    pub(super) fn ran(&mut self, sight: &Sight) {
        if sight.kind == Kind::DryRun {
            return;
        }
        let (boundary, later) = (sight.clocks.source - self.pace.lag, sight.clocks.until - self.pace.lag);
        let doubt = self.records.met(&sight.clocks, sight.ended_well);
        let mut awaited_before = self.awaited.clone();
        for tenant in TENANTS {
            self.read(tenant, sight, [boundary, later], doubt);
        }
        if sight.ended_well && matches!(sight.kind, Kind::Incremental | Kind::Full | Kind::Backfill(_)) {
            self.awaited.retain(|id, _| self.rows.get(id).is_none_or(|row| row.tenant.is_some()));
        }
        awaited_before.retain(|id, awaits| *awaits != Awaits::Turn && !self.awaited.contains_key(id));
        let reads_anyway = sight.ended_well && sight.kind == Kind::Full;
        let read = |(id, _): &(i64, String)| reads_anyway || awaited_before.contains_key(id);
        let winners = self.claims().into_iter().filter_map(|(path, claimants)| Some((*claimants.last()?, path)));
        let settled = winners.filter(read).map(|(id, path)| Version { id, path, document: self.rows[&id].document });
        self.identity.read(settled.collect::<Vec<_>>());
        self.run_died = !sight.ended_well;
        self.newest_boundary = self.newest_boundary.max(Some(later));
    }

    /// A run begins: it may read every row as it is now.
    pub(super) fn begins(&mut self) {
        let versions = self
            .rows
            .iter()
            .filter_map(|(id, row)| Some(Version { id: *id, path: row.claim()?, document: row.document }));
        self.identity.may_read(versions);
    }

    fn read(&mut self, tenant: &'static str, sight: &Sight, [boundary, later]: [i64; 2], doubt: bool) {
        let issued = || {
            let rows = self.rows.values().filter(|row| row.issued && row.tenant == Some(tenant));
            rows.filter_map(|row| row.time)
        };
        let newest = issued().max();
        let newest_read = issued().filter(|time| *time <= later).max();
        let seen = self.seen.entry(tenant).or_default();
        let reads_all_keys = doubt || seen.doubted;
        let passed = seen.passed;
        let incremental = match sight.kind {
            Kind::Incremental => true,
            Kind::IncrementalOf(only) => only == tenant,
            Kind::Full | Kind::Backfill(_) | Kind::Repair | Kind::RepairDocuments | Kind::DryRun => false,
        };
        if incremental {
            // What lies below the overlap is looked for only where newer source times turn up. A tenant
            // without invoices is not in the source's list.
            let below = [newest_read, Some(later - self.pace.overlap), sight.open_since.map(|since| since - 1)];
            let upto = newest_read.and(below.into_iter().flatten().min());
            seen.upto = if sight.ended_well && reads_all_keys { upto } else { seen.upto.max(upto) };
            seen.doubted = false;
            if sight.ended_well {
                seen.passed = newest;
            }
        } else if sight.ended_well {
            seen.doubted |= doubt;
        }
        if matches!(sight.kind, Kind::Incremental | Kind::IncrementalOf(_)) {
            // Watermarks that lie ahead are pulled back, everybody's.
            seen.passed = seen.passed.map(|passed| passed.min(boundary));
        }
        if !sight.ended_well {
            return;
        }
        let rows = &self.rows;
        self.awaited.retain(|id, awaits| {
            let Some(row) = rows.get(id).filter(|row| row.tenant == Some(tenant)) else { return true };
            let saw = match sight.kind {
                Kind::Incremental | Kind::IncrementalOf(_) => {
                    incremental
                        && match awaits {
                            Awaits::Turn => true,
                            Awaits::Window => row.time <= Some(boundary),
                            Awaits::AllKeys => reads_all_keys && row.time <= Some(boundary),
                            Awaits::Documents => false,
                        }
                }
                Kind::Full => true,
                Kind::Backfill(back) => {
                    let (after, upto) = (Some(sight.clocks.until - back), Some(boundary));
                    *awaits == Awaits::Turn || (row.time > after && row.time <= upto)
                }
                Kind::Repair | Kind::RepairDocuments if sight.rejects.contains(&id.to_string()) => false,
                Kind::Repair => {
                    matches!(awaits, Awaits::Window | Awaits::AllKeys)
                        && passed.is_some_and(|passed| row.time <= Some(passed))
                }
                Kind::RepairDocuments => {
                    *awaits != Awaits::Turn && passed.is_some_and(|passed| row.time <= Some(passed))
                }
                Kind::DryRun => false,
            };
            !saw
        });
    }

    pub(super) fn newest_ever(&self) -> Option<i64> {
        self.past.values().flatten().filter_map(|row| row.time).max()
    }

    pub(super) fn has_tenant(&self, tenant: &str) -> bool {
        self.rows.values().any(|row| row.tenant == Some(tenant))
    }

    /// The path that this invoice wants.
    pub(super) fn claim(&self, id: i64) -> Option<String> {
        self.rows.get(&id).and_then(Invoice::claim)
    }

    /// Whether nothing is said about this invoice yet.
    pub(super) fn is_awaited(&self, id: i64) -> bool {
        self.awaited.contains_key(&id)
    }

    /// Whether incremental runs alone will export it.
    pub(super) fn is_promised_to_runs(&self, id: i64) -> bool {
        matches!(self.awaited.get(&id), None | Some(Awaits::Turn | Awaits::Window))
    }

    /// The invoices that want each path, the one that gets it last: it has the greatest (source time, id).
    pub(super) fn claims(&self) -> BTreeMap<String, Vec<i64>> {
        let mut claims: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|(id, row)| (row.time, id.to_string()));
        for (id, row) in rows {
            if let Some(path) = row.claim() {
                claims.entry(path).or_default().push(*id);
            }
        }
        claims
    }

    /// Who cannot be exported, once nothing is awaited any more.
    pub(super) fn rejects(&self) -> Vec<String> {
        let claims = self.claims();
        let document = |id: &i64| self.rows[id].document;
        let losers = claims.values().flat_map(|claimants| {
            let winner = claimants.last().map(document);
            claimants.iter().filter(move |id| Some(document(id)) != winner)
        });
        let bad = self.spoiled();
        let mut rejects: Vec<String> = losers.copied().chain(bad).map(|id| id.to_string()).collect();
        rejects.sort();
        rejects
    }

    /// The invoices that no run can export.
    pub(super) fn spoiled(&self) -> impl Iterator<Item = i64> {
        self.rows.iter().filter(|(_, row)| row.issued && row.is_spoiled()).map(|(id, _)| *id)
    }

    /// Whether an invoice with this document ever had this path: such a file may have been left.
    pub(super) fn was_ever(&self, path: &str, document: &[u8]) -> bool {
        self.past
            .values()
            .flatten()
            .any(|row| row.claim().as_deref() == Some(path) && row.document.as_bytes() == document)
    }

    /// The documents that this id ever had at this path.
    pub(super) fn was_at(&self, id: i64, path: &str) -> BTreeSet<&'static str> {
        let past = self.past.get(&id).into_iter().flatten();
        past.filter(|row| row.claim().as_deref() == Some(path)).map(|row| row.document).collect()
    }
}
