//! Owns the backups of the state. A backup is made by SQLite's online backup, checked, synced, and only then given its
//! name. It is a single file in `backups` beside the state, and opens as a state does.

use std::cell::Cell;
use std::cmp::Reverse;
use std::ffi::{OsStr, OsString};
use std::fs::TryLockError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use rusqlite::{Connection, backup};
use rustix::fs::FileType;

use super::changes::ChangeKind;
use super::connect::connect_to;
use super::damage::explain;
use super::{State, file};
use crate::fs::file::{PrivateFile, UnfinishedFile};
use crate::fs::identity::Identity;
use crate::fs::private::{FileAccess, PrivateFolder};
use crate::lang::{Explain, Message};
use crate::lock::ExportLock;
use crate::refusal::{Damage, Refusal};

/// The occasion in the names of backups that runs make.
pub const REGULAR: &str = "regular";

/// The folder's name beside the state.
pub(super) const FOLDER: &str = "backups";
/// A backup in the making. It is locked while a process is at work on it.
const UNFINISHED: &str = ".new";
const STAMP: &str = "%Y%m%dT%H%M%SZ";

/// Why a backup is made; a part of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// By a run, once in a while.
    Regular,
    /// By an operator.
    Manual,
    Before(ChangeKind),
}

impl Occasion {
    fn name(self) -> String {
        match self {
            Self::Regular => REGULAR.to_owned(),
            Self::Manual => "manual".to_owned(),
            Self::Before(change) => format!("before-{}", change.as_str()),
        }
    }
}

/// A finished backup in the folder, as its name and the file system tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedBackup {
    pub path: PathBuf,
    pub made: DateTime<Utc>,
    pub occasion: String,
    /// Bytes.
    pub size: u64,
    /// Tells backups of one second apart.
    modified: (i64, u64),
}

impl State {
    /// Backs the state up into its folder of backups.
    pub fn back_up(&self, occasion: Occasion, at: DateTime<Utc>) -> anyhow::Result<PathBuf> {
        let mode = file::mode_of_new(&self.file)?;
        let folder = self.file.folder().create_subfolder(FOLDER)?;
        folder.admit(mode)?;
        let folder = Arc::new(folder);
        remove_abandoned(&folder)?;
        for n in 1.. {
            let more = if n > 1 { format!("-{n}") } else { String::new() };
            let target = PrivateFile::new(&folder, format!("{}-{}{more}.db", at.format(STAMP), occasion.name()));
            if let Some(unfinished) = claim(&target, mode)? {
                self.fill(unfinished, &target)?;
                return Ok(target.path().to_path_buf());
            }
        }
        let folder = folder.path().display();
        Err(text!("there is no name left for a backup in {folder}", "{folder} 中已没有可用的备份文件名").into())
    }

    /// Backs the state up into a file that does not exist yet.
    pub fn back_up_to(&self, target: &Path) -> anyhow::Result<()> {
        let (file, target) = (PrivateFile::at(target)?, target.display());
        let file = file.ok_or_else(|| {
            let refused = text!("cannot create {target}: its folder is missing", "无法创建 {target}: 其所在目录不存在");
            Refusal::usage(refused)
        })?;
        match claim(&file, file::mode_of_new(&self.file)?)? {
            Some(unfinished) => self.fill(unfinished, &file),
            None => Err(Refusal::usage(message! {
                "{target} or {target}{UNFINISHED} is already there", "{target} 或 {target}{UNFINISHED} 已经存在";
                "name another file", "请另选文件名"
            })),
        }
    }

    /// `unfinished` is locked, so no other process touches it until it has its name.
    fn fill(&self, unfinished: UnfinishedFile, target: &PrivateFile) -> anyhow::Result<()> {
        let filled = self.copy_to(&unfinished).and_then(|()| unfinished.put_in_place(target, || Ok(())));
        let target = target.path().display();
        filled.explain(|| text!("cannot back the state up to {target}", "无法将状态文件备份到 {target}"))
    }

    fn copy_to(&self, unfinished: &UnfinishedFile) -> anyhow::Result<()> {
        // A state that no run would start with is of no use as a backup.
        self.check_tenants()?;
        let opened = Cell::new(Ok(()));
        // Copied again if a run changes a state that was opened without locks.
        self.read(|conn| {
            // What a disturbed attempt left would not open.
            let emptied = unfinished.file().set_len(0);
            let path = unfinished.place().path().display();
            let emptied = emptied.explain(|| text!("cannot empty {path}", "无法清空 {path}"));
            match emptied.and_then(|()| connect_to(unfinished.place())) {
                Ok(target) => copy(conn, target, |_| Ok(())),
                Err(error) => {
                    opened.set(Err(error));
                    Ok(())
                }
            }
        })?;
        opened.into_inner()
    }

    /// Refuses a state in which SQLite finds a damaged page or row.
    pub(super) fn assert_whole(&self) -> anyhow::Result<()> {
        whole(&self.conn).map_err(|error| explain(error, self.path()))
    }
}

/// A locked file for a backup in the making; None if there is such a backup, or if another process is making it. The
/// process that has this file is the only one that gives it its name.
fn claim(target: &PrivateFile, mode: u32) -> anyhow::Result<Option<UnfinishedFile>> {
    let place = target.with_suffix(UNFINISHED);
    let path = place.path().display().to_string();
    let file = match place.create(mode) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        created => created.explain(|| text!("cannot create {path}", "无法创建 {path}"))?,
    };
    file::set_mode(&file, mode)
        .explain(|| text!("cannot change the permissions of {path}", "无法更改 {path} 的权限"))?;
    match file.try_lock() {
        Ok(()) => {}
        // A process that removes what the dead left was faster.
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => {
            let _ = place.remove();
            return Err(text!("cannot lock {path}", "无法锁定 {path}").caused_by(error));
        }
    }
    if place.stat()?.as_ref().map(Identity::of) != Some(Identity::of_open(&file)?) {
        return Ok(None);
    }
    let unfinished = UnfinishedFile::new(file, place);
    // Dropped, the unfinished file is removed.
    Ok(if target.exists()? { None } else { Some(unfinished) })
}

/// The finished backups of a state, newest first.
pub fn list(state: &Path) -> anyhow::Result<Vec<FinishedBackup>> {
    match PrivateFile::at(state)? {
        Some(file) => finished(&file),
        None => Ok(Vec::new()),
    }
}

fn finished(state: &PrivateFile) -> anyhow::Result<Vec<FinishedBackup>> {
    let Some(folder) = state.folder().open_subfolder(FOLDER)? else { return Ok(Vec::new()) };
    let names = folder.names()?;
    let mut backups: Vec<FinishedBackup> = names.iter().filter_map(|name| read_name(&folder, name)).collect();
    backups.sort_by_key(|backup| Reverse((backup.made, backup.modified)));
    Ok(backups)
}

/// A backup that an operator names. In the state's own folder of backups, nothing is reached through a link.
pub(super) fn named(state: &PrivateFile, path: &Path) -> anyhow::Result<Option<PrivateFile>> {
    let ours = state.folder().path_of(FOLDER);
    if let (true, Some(name)) = (path.parent() == Some(ours.as_path()), path.file_name()) {
        let folder = state.folder().open_subfolder(FOLDER)?;
        return Ok(folder.map(|folder| PrivateFile::new(&Arc::new(folder), name)));
    }
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        real => PrivateFile::at(&real.explain(|| text!("cannot open {}", "无法打开 {}", path.display()))?),
    }
}

/// The newest backup, but for those of states that a restore replaced: the second of two restores must not bring back
/// what the first one replaced.
pub fn latest(state: &Path) -> anyhow::Result<Option<PathBuf>> {
    let replaced = Occasion::Before(ChangeKind::Restore).name();
    let backup = list(state)?.into_iter().find(|backup| !backup.occasion.starts_with(&replaced));
    Ok(backup.map(|backup| backup.path))
}

/// The backups of states that restores replaced, newest first.
pub(super) fn of_replaced_states(state: &PrivateFile) -> anyhow::Result<Vec<PathBuf>> {
    let replaced = Occasion::Before(ChangeKind::Restore).name();
    let made = finished(state)?.into_iter().filter(|backup| backup.occasion.starts_with(&replaced));
    Ok(made.map(|backup| backup.path).collect())
}

/// Removes the oldest of those that runs made, and of those that were made before changes, beyond a
/// number of each; an operator's own are never removed.
pub fn prune(lock: &ExportLock, keep: usize) -> anyhow::Result<()> {
    let backups = finished(lock.state())?;
    let Some(folder) = lock.state().folder().open_subfolder(FOLDER)? else { return Ok(()) };
    for own in [REGULAR, "before-"] {
        for old in backups.iter().filter(|backup| backup.occasion.starts_with(own)).skip(keep) {
            let removed = folder.remove(old.path.file_name().unwrap_or_default());
            let path = old.path.display();
            removed.explain(|| text!("cannot remove the old backup {path}", "无法删除旧备份 {path}"))?;
        }
    }
    Ok(())
}

/// Copies a whole database into an empty one, changes it there, and checks the result. The copy is
/// one file without a log beside it.
pub(super) fn copy(
    from: &Connection,
    mut copy: Connection,
    change: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    // The file gets its name after it is whole and synced, so this loses nothing.
    copy.pragma_update(None, "journal_mode", "memory")?;
    copy.pragma_update(None, "synchronous", "off")?;
    // In one step: what a run writes meanwhile does not make it start over.
    backup::Backup::new(from, &mut copy)?.run_to_completion(i32::MAX, Duration::from_millis(50), None)?;
    copy.pragma_update(None, "journal_mode", "delete")?;
    change(&copy)?;
    whole(&copy)?;
    copy.close().map_err(|(_, error)| error)
}

fn whole(conn: &Connection) -> rusqlite::Result<()> {
    let mut finding: String = conn.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
    if finding == "ok" {
        return Ok(());
    }
    finding = finding.split('\n').next_back().unwrap_or_default().to_owned();
    let damaged = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(rusqlite::Error::SqliteFailure(damaged, Some(finding)))
}

/// `20251128T163000Z-before-set.db`; None for any other file.
fn read_name(folder: &PrivateFolder, name: &OsStr) -> Option<FinishedBackup> {
    let (stamp, occasion) = name.to_str()?.strip_suffix(".db")?.split_once('-')?;
    let made = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?.and_utc();
    let data = folder.stat(name).ok().flatten()?;
    if FileType::from_raw_mode(data.st_mode) != FileType::RegularFile {
        return None;
    }
    let (size, modified) = (data.st_size.cast_unsigned(), (data.st_mtime, data.st_mtime_nsec));
    Some(FinishedBackup { path: folder.path_of(name), made, occasion: occasion.to_owned(), size, modified })
}

/// Removes the unfinished backups of processes that died.
fn remove_abandoned(folder: &PrivateFolder) -> anyhow::Result<()> {
    let unfinished = |name: &&OsString| name.to_string_lossy().contains(&format!(".db{UNFINISHED}"));
    for name in folder.names()?.iter().filter(unfinished) {
        // The lock is held until the file is gone: a process that has just created it must not get it meanwhile.
        let Ok(Some(file)) = folder.open(name, FileAccess::Read) else { continue };
        if file.try_lock().is_ok() {
            let removed = folder.remove(name);
            removed.explain(|| text!("cannot remove {}", "无法删除 {}", folder.path_of(name).display()))?;
        }
    }
    Ok(())
}

/// The refusal of a backup that cannot be restored.
pub(super) fn unusable(backup: &Path, error: anyhow::Error) -> anyhow::Error {
    let damage = match error.chain().find_map(|cause| cause.downcast_ref()) {
        Some(Refusal::StateDamaged { damage, .. }) => damage.clone(),
        Some(Refusal::StateNewer { .. }) => return error,
        _ => Damage::Other(Message::from(&error).into()),
    };
    Refusal::BackupUnusable { backup: backup.to_path_buf(), damage }.into()
}
