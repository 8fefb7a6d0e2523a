//! Backups of the state: made with SQLite's own means, checked, synced, and only then given their
//! name. They lie in `backups` beside the state, are single files and open like any state.

use std::cell::Cell;
use std::cmp::Reverse;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use chrono::{DateTime, NaiveDateTime, Utc};
use rusqlite::{Connection, OpenFlags, backup};

use super::changes::ChangeKind;
use super::open::{create, remove_if_there, sync_folder_of, with_suffix};
use super::{State, explain};
use crate::refusal::{Damage, Refusal};

/// What the names of backups made by runs say.
pub const REGULAR: &str = "regular";

/// The folder's name beside the state.
const FOLDER: &str = "backups";
/// A backup in the making. It is locked while somebody is at work on it.
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
pub struct Backup {
    pub path: PathBuf,
    pub made: DateTime<Utc>,
    pub occasion: String,
    /// Bytes.
    pub size: u64,
    /// Tells backups of one second apart.
    modified: SystemTime,
}

impl State {
    /// Backs the state up into its folder of backups.
    pub fn back_up(&self, occasion: Occasion, at: DateTime<Utc>) -> anyhow::Result<PathBuf> {
        let folder = folder(&self.path);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        remove_abandoned(&folder)?;
        for n in 1.. {
            let more = if n > 1 { format!("-{n}") } else { String::new() };
            let target = folder.join(format!("{}-{}{more}.db", at.format(STAMP), occasion.name()));
            if let Some(file) = claim(&target)? {
                self.fill(file, &target)?;
                return Ok(target);
            }
        }
        bail!("there is no name left for a backup in {}", folder.display())
    }

    /// Backs the state up into a file that does not exist yet.
    pub fn back_up_to(&self, target: &Path) -> anyhow::Result<()> {
        match claim(target)? {
            Some(file) => self.fill(file, target),
            None => {
                bail!("{0} or {0}{UNFINISHED} is already there; name another file", target.display())
            }
        }
    }

    /// `unfinished` is ours alone until it has its name.
    fn fill(&self, unfinished: File, target: &Path) -> anyhow::Result<()> {
        let path = with_suffix(target, UNFINISHED);
        let result = self.copy_whole(&unfinished, &path).and_then(|()| {
            fs::rename(&path, target).with_context(|| format!("cannot rename {}", path.display()))?;
            sync_folder_of(target)
        });
        if result.is_err() {
            // What went wrong first is what counts.
            let _ = fs::remove_file(&path);
        }
        result.with_context(|| format!("cannot back the state up to {}", target.display()))
    }

    fn copy_whole(&self, file: &File, to: &Path) -> anyhow::Result<()> {
        // What no run would start with is nothing to come back to.
        self.tenants()?;
        let emptied = Cell::new(Ok(()));
        // Copied again if a run changes a state that was opened without locks.
        self.read(|conn| {
            // What a disturbed attempt left would not open.
            emptied.set(file.set_len(0));
            copy(conn, to, |_| Ok(()))
        })?;
        emptied.into_inner().with_context(|| format!("cannot empty {}", to.display()))?;
        file.sync_all().with_context(|| format!("cannot sync {}", to.display()))
    }

    /// Pages and rows as SQLite sees them: damage is a refusal.
    pub(super) fn assert_whole(&self) -> anyhow::Result<()> {
        whole(&self.conn).map_err(|error| explain(error, &self.path))
    }
}

/// A file for a backup in the making, locked; None if there is such a backup, or somebody else is making
/// it. Whoever has this file is the only one who gives it its name.
fn claim(target: &Path) -> anyhow::Result<Option<File>> {
    let path = with_suffix(target, UNFINISHED);
    let file = match create(&path) {
        Err(error)
            if error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == ErrorKind::AlreadyExists) =>
        {
            return Ok(None);
        }
        created => created?,
    };
    let locked = match file.try_lock() {
        // Somebody who removes what the dead left may have been faster.
        Ok(()) => fs::metadata(&path).is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino())),
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => {
            let _ = fs::remove_file(&path);
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    };
    if !locked {
        return Ok(None);
    }
    if target.symlink_metadata().is_ok() {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        return Ok(None);
    }
    Ok(Some(file))
}

/// The finished backups of a state, newest first.
pub fn list(state: &Path) -> anyhow::Result<Vec<Backup>> {
    let folder = folder(state);
    let mut backups: Vec<Backup> = entries(&folder)?.iter().filter_map(|path| read_name(path)).collect();
    backups.sort_by_key(|backup| Reverse((backup.made, backup.modified)));
    Ok(backups)
}

/// The newest backup, but for those of states that a restore replaced: who restores twice does not want
/// the first back.
pub fn latest(state: &Path) -> anyhow::Result<Option<PathBuf>> {
    let replaced = Occasion::Before(ChangeKind::Restore).name();
    let backup = list(state)?.into_iter().find(|backup| !backup.occasion.starts_with(&replaced));
    Ok(backup.map(|backup| backup.path))
}

/// Removes the oldest of those that runs made, and of those that were made before changes, beyond a
/// number of each; an operator's own are never removed.
pub(crate) fn prune(state: &Path, keep: usize) -> anyhow::Result<()> {
    let backups = list(state)?;
    for own in [REGULAR, "before-"] {
        for old in backups.iter().filter(|backup| backup.occasion.starts_with(own)).skip(keep) {
            fs::remove_file(&old.path)
                .with_context(|| format!("cannot remove the old backup {}", old.path.display()))?;
        }
    }
    Ok(())
}

/// Copies a whole database into an empty file, changes it there, and checks the result. The copy is
/// one file without a log beside it.
pub(super) fn copy(
    from: &Connection,
    to: &Path,
    change: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut copy =
        Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // Nobody sees the file before it is whole and synced.
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

fn folder(state: &Path) -> PathBuf {
    state.with_file_name(FOLDER)
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = || fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect();
    match read() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        result => result.with_context(|| format!("cannot list {}", folder.display())),
    }
}

/// `20251128T163000Z-before-set.db`; None for what is no backup of ours.
fn read_name(path: &Path) -> Option<Backup> {
    let (stamp, occasion) = path.file_name()?.to_str()?.strip_suffix(".db")?.split_once('-')?;
    let made = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?.and_utc();
    let data = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let (occasion, modified) = (occasion.to_owned(), data.modified().ok()?);
    Some(Backup { path: path.to_path_buf(), made, occasion, size: data.len(), modified })
}

/// What somebody left who died while making a backup.
fn remove_abandoned(folder: &Path) -> anyhow::Result<()> {
    let unfinished = |path: &&PathBuf| path.to_string_lossy().contains(&format!(".db{UNFINISHED}"));
    for path in entries(folder)?.iter().filter(unfinished) {
        // The lock is held until the file is gone: whoever has just created it must not get it meanwhile.
        let Ok(file) = File::open(path) else { continue };
        if file.try_lock().is_ok() {
            remove_if_there(path)?;
        }
    }
    Ok(())
}

/// The refusal of a backup that cannot be restored.
pub(super) fn unusable(backup: &Path, error: anyhow::Error) -> anyhow::Error {
    let damage = match error.downcast_ref() {
        Some(Refusal::StateDamaged { damage, .. }) => damage.clone(),
        Some(Refusal::StateNewer { .. }) => return error,
        _ => Damage::Other(format!("{error:#}")),
    };
    Refusal::BackupUnusable { backup: backup.to_path_buf(), damage }.into()
}
