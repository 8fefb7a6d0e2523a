//! Watermarks and look-backs, and which exported invoices count as settled: this file alone changes them.
//!
//! A watermark goes forward when a run has done with a tenant (`advance`, `advance_unchanged`), back to the boundary
//! of a run that finds it ahead (`pull_back`), and anywhere by an operator or an import (`set`, `put`). A look-back is
//! the source time from which the next run reads keys; NULL lifts the lower bound. `read_from` says which part of what
//! lies below the watermark runs have read: only there an invoice can be late. Every move is on record with its change,
//! except those of a run, which its own row holds.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::State;
use super::changes::{self, Change, Moved, MovedWatermark};
use super::stored::TenantNo;
use super::tenants::{self, Advance};
use crate::event::Doubt;
use crate::invoice::{SourceTime, Tenant};
use crate::run::RunId;

/// A watermark that lies ahead of the boundary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullBack {
    pub tenant: Tenant,
    pub from: SourceTime,
}

impl State {
    /// Moves one watermark. Everything exported above it becomes unsettled: it is fetched and compared
    /// again, as an operator who edits the script's state file expects. Keys are read from `below` on.
    pub fn set_watermark(
        &mut self,
        tenant: &Tenant,
        to: &SourceTime,
        below: Option<SourceTime>,
        change: &Change<'_>,
    ) -> anyhow::Result<Moved> {
        self.transaction(|tx| {
            let mut moved = Moved::default();
            let change = changes::note(tx, change)?;
            set(tx, change, tenant, Some(to), below, &mut moved)?;
            Ok(moved)
        })
    }

    /// Takes watermarks away.
    pub fn reset_watermarks(&mut self, of: &[Tenant], change: &Change<'_>) -> anyhow::Result<Moved> {
        self.transaction(|tx| {
            let mut moved = Moved::default();
            let change = changes::note(tx, change)?;
            of.iter().try_for_each(|tenant| set(tx, change, tenant, None, None, &mut moved))?;
            Ok(moved)
        })
    }

    /// Pulls watermarks back to the boundary of a run, on record.
    pub fn pull_back(&mut self, back: &[PullBack], to: &SourceTime, change: &Change<'_>) -> anyhow::Result<()> {
        self.transaction(|tx| {
            let change = changes::note(tx, change)?;
            for PullBack { tenant, from } in back {
                let n = tenants::get_or_insert(tx, tenant)?;
                changes::note_watermark(tx, change, n, Some(from), Some(to))?;
                put_back(tx, tenant, to)?;
            }
            Ok(())
        })
    }
}

/// Puts a watermark to the boundary. A look-back ahead of it would leave out the rows in between: it comes from an
/// imported time, not from what was read.
pub(super) fn put_back(conn: &Connection, tenant: &Tenant, to: &SourceTime) -> rusqlite::Result<()> {
    conn.execute(
        "UPDATE tenant SET watermark = ?2, look_back = CASE WHEN look_back <= ?2 THEN look_back END WHERE name = ?1",
        params![tenant, to],
    )?;
    Ok(())
}

/// Moves a watermark so that nothing above it counts as exported. Files above it that are gone are written again. An
/// ordinary incremental run leaves them out (`export::check`, `Presence::Assumed`).
pub(super) fn set(
    tx: &Connection,
    change: i64,
    tenant: &Tenant,
    to: Option<&SourceTime>,
    below: Option<SourceTime>,
    moved: &mut Moved,
) -> rusqlite::Result<()> {
    let n = tenants::get_or_insert(tx, tenant)?;
    let old: Option<String> = tx.query_row("SELECT watermark FROM tenant WHERE n = ?1", [n], |row| row.get(0))?;
    let old = old.map(SourceTime);
    put(tx, change, n, old.as_ref(), to, below)?;
    tx.execute("UPDATE tenant SET recheck = 1 WHERE n = ?1", [n])?;
    moved.unsettled += unsettle(tx, n, to)?;
    moved.watermarks.push(MovedWatermark { tenant: tenant.clone(), old, new: to.cloned() });
    Ok(())
}

/// Puts a watermark in its place. `newest` is emptied, so that the next run reads the tenant's keys even if its newest
/// source time is unchanged, and so is `read_from`: no run may have read the part between the old place and the new one.
pub(super) fn put(
    tx: &Connection,
    change: i64,
    tenant: TenantNo,
    old: Option<&SourceTime>,
    to: Option<&SourceTime>,
    below: Option<SourceTime>,
) -> rusqlite::Result<()> {
    let look_back = look_back(tx, tenant, below)?;
    changes::note_watermark(tx, change, tenant, old, to)?;
    tx.prepare_cached(
        "UPDATE tenant SET watermark = ?2, look_back = ?3, newest = NULL, read_from = NULL WHERE n = ?1",
    )?
    .execute(params![tenant, to, look_back])?;
    Ok(())
}

/// The lesser of the tenant's look-back and `below`: what is still to be read again stays so, whichever way the
/// watermark goes.
fn look_back(conn: &Connection, tenant: TenantNo, below: Option<SourceTime>) -> rusqlite::Result<Option<SourceTime>> {
    let mut query =
        conn.prepare_cached("SELECT watermark IS NOT NULL OR recheck = 1, look_back FROM tenant WHERE n = ?1")?;
    let (known, before): (bool, Option<String>) = query.query_row([tenant], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // None is less than any time, as it should be: everything.
    Ok(if known { before.map(SourceTime).min(below) } else { below })
}

/// Moves a tenant's watermark to where a run has read.
pub(super) fn advance(conn: &Connection, run: RunId, to: &Advance) -> rusqlite::Result<()> {
    let n = tenants::get_or_insert(conn, &to.tenant)?;
    if to.relative != to.tenant {
        tenants::join_families(conn, n, tenants::get_or_insert(conn, &to.relative)?)?;
    }
    conn.prepare_cached(
        "UPDATE tenant SET watermark = ?2, look_back = ?3, newest = ?4, held = ?5, recheck = 0, last_run = ?6,
                last_written = ?7, last_outcome = 'success', read_from = ?8 WHERE n = ?1",
    )?
    .execute(params![
        n,
        to.watermark,
        to.look_back,
        to.newest,
        to.work_was_open,
        run,
        to.written,
        to.read_from
    ])?;
    Ok(())
}

/// Moves the watermarks of tenants for which the run had nothing to do, in one statement. Every run moves them, and
/// there may be a hundred thousand.
pub(super) fn advance_unchanged(
    conn: &Connection,
    run: RunId,
    to: &SourceTime,
    tenants: &[TenantNo],
) -> rusqlite::Result<()> {
    let numbers: Vec<String> = tenants.iter().map(|tenant| tenant.0.to_string()).collect();
    let numbers = format!("[{}]", numbers.join(","));
    conn.prepare_cached(
        "UPDATE tenant SET watermark = ?2, recheck = 0, last_run = ?3, last_written = 0, last_outcome = 'success'
         WHERE n IN (SELECT value FROM json_each(?1))",
    )?
    .execute(params![numbers, to.as_str(), run])?;
    // Only tenants of which a row of the to-do list was read have one.
    conn.prepare_cached(
        "UPDATE run_tenant SET new_watermark = ?2 WHERE run = ?3 AND +tenant IN (SELECT value FROM json_each(?1))",
    )?
    .execute(params![numbers, to.as_str(), run])?;
    Ok(())
}

/// Makes what a run doubts at its start lasting, in the transaction that opens the run, so that a run that dies does not
/// forget it. `times_again`: source times above it may come again; None: any may.
pub(super) fn record_doubts(
    conn: &Connection,
    doubts: &[Doubt],
    times_again: Option<&SourceTime>,
) -> rusqlite::Result<()> {
    doubt_tenants(conn, doubts)?;
    // The tree may hold other versions, or nothing, also where the source has come back to what the ledger
    // knows.
    if doubts.contains(&Doubt::StateRestored) {
        conn.execute("UPDATE entry SET settled = 0, recheck = 1", [])?;
    }
    // A row that changes once more may get the very time that it had.
    if doubts.contains(&Doubt::ClockMoved) {
        conn.execute("UPDATE entry SET settled = 0 WHERE settled = 1 AND (?1 IS NULL OR time > ?1)", [times_again])?;
    }
    Ok(())
}

/// What is doubted of the tenants alone.
pub(super) fn doubt_tenants(conn: &Connection, doubts: &[Doubt]) -> rusqlite::Result<()> {
    if !doubts.is_empty() {
        forget_look_backs(conn)?;
    }
    if doubts.contains(&Doubt::StateRestored) {
        conn.execute("UPDATE tenant SET recheck = 1", [])?;
    }
    Ok(())
}

/// Lifts the lower bound of every tenant: its next run compares all keys. What it finds is caught up, and none of it
/// late: whether earlier runs have read this source, or all of its times, is in doubt.
pub(super) fn forget_look_backs(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("UPDATE tenant SET look_back = NULL, read_from = NULL", []).map(drop)
}

/// The watermarks of a state by tenant; tenants without one are left out.
pub(super) type Watermarks = BTreeMap<Tenant, SourceTime>;

/// All watermarks of a state.
pub(super) fn all(conn: &Connection) -> rusqlite::Result<Watermarks> {
    let mut query = conn.prepare("SELECT name, watermark FROM tenant WHERE watermark IS NOT NULL")?;
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Puts on record which watermarks differ from those of the state that a restore replaces. A tenant that only that state
/// knew becomes known, without a watermark.
pub(super) fn note_replaced(conn: &Connection, change: i64, before: &Watermarks) -> rusqlite::Result<()> {
    let after = all(conn)?;
    for tenant in before.keys().chain(after.keys().filter(|tenant| !before.contains_key(tenant))) {
        let (old, new) = (before.get(tenant), after.get(tenant));
        if old != new {
            let n = tenants::get_or_insert(conn, tenant)?;
            changes::note_watermark(conn, change, n, old, new)?;
        }
    }
    Ok(())
}

/// Lets the invoices above a time count as unsettled, and their files be examined; None is every invoice. Returns how
/// many they are. An invoice without a time is never settled.
fn unsettle(conn: &Connection, tenant: TenantNo, above: Option<&SourceTime>) -> rusqlite::Result<u64> {
    let changed = conn.execute(
        "UPDATE entry SET settled = 0, recheck = 1 WHERE tenant = ?1 AND (?2 IS NULL OR time > ?2)",
        params![tenant, above],
    )?;
    Ok(changed as u64)
}
