//! Owns the record of changes that are no ordinary progress of a run. Each says who made it, when and why, and what was
//! there before.

use rusqlite::{Connection, params};

use super::stored::TenantNo;
use crate::invoice::{SourceTime, Tenant};
use crate::lock::ExportLock;
use crate::run::{LastNumbers, Starter, rfc3339};

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

stored_words!(ChangeKind);

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
    /// Restore: the watermarks of the replaced state could be read, so that those which moved are on record.
    pub watermarks_known: bool,
    /// The last numbers that were given, also by states before this one. Later runs and changes have greater ones.
    pub last: LastNumbers,
}

impl<'a> Change<'a> {
    /// A change by the process that holds the lock.
    pub fn under(lock: &'a ExportLock, kind: ChangeKind, reason: Option<&'a str>) -> anyhow::Result<Self> {
        Ok(Self::new(kind, lock.starter(), reason, lock.last_numbers()?))
    }

    pub(super) fn new(kind: ChangeKind, starter: &'a Starter, reason: Option<&'a str>, last: LastNumbers) -> Self {
        let (file, old, new) = (None, None, None);
        Self { kind, starter, reason, file, old, new, watermarks_known: false, last }
    }
}

/// A file that was read, as the record names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    pub path: String,
    /// In hex.
    pub sha256: String,
    /// None for a backup, which has no lines.
    pub lines: Option<u64>,
}

/// The result of a change that moves watermarks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub watermarks: Vec<MovedWatermark>,
    /// Exported invoices of which the next incremental run fetches and compares the documents.
    pub unsettled: u64,
}

/// The watermark of one tenant before and after a change; None is no watermark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedWatermark {
    pub tenant: Tenant,
    pub old: Option<SourceTime>,
    pub new: Option<SourceTime>,
}

/// Puts a change on record and returns its number.
pub(super) fn note(tx: &Connection, change: &Change<'_>) -> rusqlite::Result<i64> {
    let Change { kind, starter, reason, file, old, new, watermarks_known, last } = change;
    // The others come after the last run of this state.
    let last_run = if *kind == ChangeKind::Restore { last.run } else { 0 };
    tx.query_row(
        "INSERT INTO state_change (n, kind, at, last_run, user, uid, sudo_user, host, command_line, reason, file, sha256, lines, old, new,
                                   watermarks_known)
         VALUES (1 + max(?15, (SELECT coalesce(max(n), 0) FROM state_change)), ?1, ?2, max(?14, (SELECT coalesce(max(id), 0) FROM run)), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?16) RETURNING n",
        params![
            kind,
            rfc3339(starter.at),
            starter.account.name,
            starter.account.uid,
            starter.account.sudo_user,
            starter.host,
            starter.command_line,
            reason,
            file.map(|file| file.path.as_str()),
            file.map(|file| file.sha256.as_str()),
            file.and_then(|file| file.lines).map(u64::cast_signed),
            old,
            new,
            last_run,
            last.change,
            watermarks_known.then_some(true),
        ],
        |row| row.get(0),
    )
}

/// The move of a watermark, as part of a change.
pub(super) fn note_watermark(
    tx: &Connection,
    change: i64,
    tenant: TenantNo,
    old: Option<&SourceTime>,
    new: Option<&SourceTime>,
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO watermark_change (change, tenant, old, new) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![change, tenant, old, new])?;
    Ok(())
}
