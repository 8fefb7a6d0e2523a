//! Changes of the state that are no ordinary progress of a run, each on record: who, when, why, and
//! what was there before.

use rusqlite::{Connection, Transaction, params};

use super::{State, tenants};
use crate::invoice::{SourceTime, Tenant};
use crate::run::Starter;

words! {
    /// What was done.
    pub enum ChangeKind {
        Set = "set", "设置水位线";
        Reset = "reset", "清除水位线";
        Import = "import", "导入";
        Restore = "restore", "恢复备份";
        AdoptSource = "adopt-source", "更换数据源";
        /// A run found a watermark ahead of its boundary.
        PullBack = "pull-back", "退回水位线";
        /// The schema was brought up to date.
        Upgrade = "upgrade", "升级";
    }
}

/// A change for the record.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    pub kind: ChangeKind,
    pub starter: &'a Starter,
    pub reason: Option<&'a str>,
    /// What was imported or restored.
    pub file: Option<&'a ReadFile>,
    /// Adopted source: its name; upgrade: the schema's version; restore: where the replaced state lies.
    pub old: Option<String>,
    pub new: Option<String>,
    /// Restore: the last run of the replaced state. Later runs have greater numbers.
    pub last_run: i64,
}

impl<'a> Change<'a> {
    pub fn new(kind: ChangeKind, starter: &'a Starter, reason: Option<&'a str>) -> Self {
        Self { kind, starter, reason, file: None, old: None, new: None, last_run: 0 }
    }
}

/// A file that was read, as the record names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    pub path: String,
    /// In hex.
    pub sha256: String,
    pub lines: Option<u64>,
}

/// What moving watermarks came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub watermarks: Vec<MovedWatermark>,
    /// Exported invoices whose documents the next incremental run fetches and compares.
    pub unsettled: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedWatermark {
    pub tenant: Tenant,
    pub old: Option<SourceTime>,
    pub new: Option<SourceTime>,
}

impl State {
    /// Moves one watermark. Everything exported above it becomes unsettled: it is fetched and compared
    /// again, as somebody who edits the script's state file expects. Keys are read from `below` on.
    pub fn set_watermark(
        &mut self,
        tenant: &Tenant,
        to: &SourceTime,
        below: Option<SourceTime>,
        change: &Change<'_>,
    ) -> anyhow::Result<Moved> {
        self.transaction(|tx| {
            let mut moved = Moved::default();
            let n = note(tx, change)?;
            move_one(tx, n, tenant, Some(to), below, &mut moved)?;
            Ok(moved)
        })
    }

    /// Takes watermarks away.
    pub fn reset_watermarks(&mut self, of: &[Tenant], change: &Change<'_>) -> anyhow::Result<Moved> {
        self.transaction(|tx| {
            let mut moved = Moved::default();
            let n = note(tx, change)?;
            for tenant in of {
                move_one(tx, n, tenant, None, None, &mut moved)?;
            }
            Ok(moved)
        })
    }

    /// Lets the state belong to another source. All keys are compared by the next run, whoever answers.
    pub fn adopt_source(&mut self, name: &str, change: &Change<'_>) -> anyhow::Result<()> {
        self.transaction(|tx| {
            let old = tx.query_row("SELECT source FROM meta", [], |row| row.get(0))?;
            note(tx, &Change { old, new: Some(name.to_owned()), ..change.clone() })?;
            tx.execute("UPDATE meta SET source = ?1", [name])?;
            tx.execute("UPDATE tenant SET look_back = NULL", [])?;
            Ok(())
        })
    }
}

/// Puts a change on record and returns its number.
pub(super) fn note(tx: &Connection, change: &Change<'_>) -> rusqlite::Result<i64> {
    let Change { kind, starter, reason, file, old, new, last_run } = change;
    tx.query_row(
        "INSERT INTO state_change (kind, at, last_run, user, host, command_line, reason, file, sha256, lines, old, new)
         VALUES (?1, ?2, max(?12, (SELECT coalesce(max(id), 0) FROM run)), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) RETURNING n",
        params![
            kind.as_str(),
            starter.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            starter.user,
            starter.host,
            starter.command_line,
            reason,
            file.map(|file| file.path.as_str()),
            file.map(|file| file.sha256.as_str()),
            file.and_then(|file| file.lines).map(u64::cast_signed),
            old,
            new,
            last_run,
        ],
        |row| row.get(0),
    )
}

/// The move of a watermark, as part of a change.
pub(super) fn note_watermark(
    tx: &Connection,
    change: i64,
    tenant: i64,
    old: Option<&SourceTime>,
    new: Option<&SourceTime>,
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO watermark_change (change, tenant, old, new) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![change, tenant, old.map(SourceTime::as_str), new.map(SourceTime::as_str)])?;
    Ok(())
}

/// Puts a watermark in its place. Without `newest` the tenant does not count as quiet, so the next run does
/// look at it.
pub(super) fn put_watermark(
    tx: &Transaction<'_>,
    change: i64,
    tenant: i64,
    old: Option<&SourceTime>,
    to: Option<&SourceTime>,
    below: Option<SourceTime>,
) -> rusqlite::Result<()> {
    let look_back = look_back(tx, tenant, below)?;
    note_watermark(tx, change, tenant, old, to)?;
    tx.prepare_cached("UPDATE tenant SET watermark = ?2, look_back = ?3, newest = NULL WHERE n = ?1")?
        .execute(params![tenant, to.map(SourceTime::as_str), look_back.as_ref().map(SourceTime::as_str)])?;
    Ok(())
}

/// Moves a watermark to where nothing above it counts as exported.
pub(super) fn move_one(
    tx: &Transaction<'_>,
    change: i64,
    tenant: &Tenant,
    to: Option<&SourceTime>,
    below: Option<SourceTime>,
    moved: &mut Moved,
) -> rusqlite::Result<()> {
    let n = tenants::number(tx, tenant)?;
    let old: Option<String> = tx.query_row("SELECT watermark FROM tenant WHERE n = ?1", [n], |row| row.get(0))?;
    let old = old.map(SourceTime);
    put_watermark(tx, change, n, old.as_ref(), to, below)?;
    tx.execute("UPDATE tenant SET recheck = 1 WHERE n = ?1", [n])?;
    moved.unsettled += unsettle(tx, n, to)?;
    moved.watermarks.push(MovedWatermark { tenant: tenant.clone(), old, new: to.cloned() });
    Ok(())
}

/// What a known tenant still has to read again stays to be read again, whichever way its watermark goes.
fn look_back(conn: &Connection, tenant: i64, below: Option<SourceTime>) -> rusqlite::Result<Option<SourceTime>> {
    let mut query =
        conn.prepare_cached("SELECT watermark IS NOT NULL OR recheck = 1, look_back FROM tenant WHERE n = ?1")?;
    let (known, before): (bool, Option<String>) = query.query_row([tenant], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // None is less than any time, as it should be: everything.
    Ok(if known { before.map(SourceTime).min(below) } else { below })
}

/// What lies above a time counts as seen no longer, and its files must be looked at; None is everything. Returns how
/// much that is. What has no time never counts as seen.
fn unsettle(tx: &Connection, tenant: i64, above: Option<&SourceTime>) -> rusqlite::Result<u64> {
    let changed = tx.execute(
        "UPDATE entry SET settled = 0, recheck = 1 WHERE tenant = ?1 AND (?2 IS NULL OR time > ?2)",
        params![tenant, above.map(SourceTime::as_str)],
    )?;
    Ok(changed as u64)
}
