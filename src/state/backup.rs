//! Backups of the state: made with SQLite's own means, checked, synced, and only then given their
//! name. They lie in `backups` beside the state, are single files and open like any state.

use std::cell::Cell;
use std::cmp::Reverse;
use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::{DateTime, NaiveDateTime, Utc};
use rusqlite::{Connection, backup};
use rustix::fs::FileType;

use super::changes::ChangeKind;
use super::file::StateFile;
use super::open::connect_to;
use super::{State, explain};
use crate::lang::Message;
use crate::refusal::{Damage, Refusal};
use crate::tree::private::{Access, PrivateFolder};

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
    modified: (i64, u64),
}

impl State {
    /// Backs the state up into its folder of backups.
    pub fn back_up(&self, occasion: Occasion, at: DateTime<Utc>) -> anyhow::Result<PathBuf> {
        let folder = Arc::new(self.file.folder().create_within(FOLDER)?);
        remove_abandoned(&folder)?;
        for n in 1.. {
            let more = if n > 1 { format!("-{n}") } else { String::new() };
            let target = StateFile::within(&folder, format!("{}-{}{more}.db", at.format(STAMP), occasion.name()));
            if let Some(file) = claim(&target)? {
                self.fill(file, &target)?;
                return Ok(target.path().to_path_buf());
            }
        }
        bail!("there is no name left for a backup in {}", folder.path().display())
    }

    /// Backs the state up into a file that does not exist yet.
    pub fn back_up_to(&self, target: &Path) -> anyhow::Result<()> {
        let file = StateFile::look(target)?;
        let file = file.with_context(|| format!("cannot create {}: its folder is missing", target.display()))?;
        match claim(&file)? {
            Some(unfinished) => self.fill(unfinished, &file),
            None => {
                bail!("{0} or {0}{UNFINISHED} is already there; name another file", target.display())
            }
        }
    }

    /// `unfinished` is ours alone until it has its name.
    fn fill(&self, unfinished: File, target: &StateFile) -> anyhow::Result<()> {
        let file = target.with_suffix(UNFINISHED);
        let result = self.copy_whole(&unfinished, &file).and_then(|()| {
            file.rename(target)?;
            target.folder().sync()
        });
        if result.is_err() {
            // What went wrong first is what counts.
            let _ = file.remove();
        }
        result.with_context(|| format!("cannot back the state up to {}", target.path().display()))
    }

    fn copy_whole(&self, file: &File, to: &StateFile) -> anyhow::Result<()> {
        // What no run would start with is nothing to come back to.
        self.tenants()?;
        let opened = Cell::new(Ok(()));
        // Copied again if a run changes a state that was opened without locks.
        self.read(|conn| {
            // What a disturbed attempt left would not open.
            let target = file.set_len(0).with_context(|| format!("cannot empty {}", to.path().display()));
            match target.and_then(|()| connect_to(to)) {
                Ok(target) => copy(conn, target, |_| Ok(())),
                Err(error) => {
                    opened.set(Err(error));
                    Ok(())
                }
            }
        })?;
        opened.into_inner()?;
        file.sync_all().with_context(|| format!("cannot sync {}", to.path().display()))
    }

    /// Pages and rows as SQLite sees them: damage is a refusal.
    pub(super) fn assert_whole(&self) -> anyhow::Result<()> {
        whole(&self.conn).map_err(|error| explain(error, self.path()))
    }
}

/// A file for a backup in the making, locked; None if there is such a backup, or somebody else is making
/// it. Whoever has this file is the only one who gives it its name.
fn claim(target: &StateFile) -> anyhow::Result<Option<File>> {
    let unfinished = target.with_suffix(UNFINISHED);
    let file = match unfinished.create() {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        created => created.with_context(|| format!("cannot create {}", unfinished.path().display()))?,
    };
    let locked = match file.try_lock() {
        // Somebody who removes what the dead left may have been faster.
        Ok(()) => {
            let ours = file.metadata().map(|data| data.ino()).ok();
            unfinished.stat()?.map(|there| there.st_ino) == ours
        }
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => {
            let _ = unfinished.remove();
            return Err(error).with_context(|| format!("cannot lock {}", unfinished.path().display()));
        }
    };
    if !locked {
        return Ok(None);
    }
    if target.is_there()? {
        unfinished.remove()?;
        return Ok(None);
    }
    Ok(Some(file))
}

/// The finished backups of a state, newest first.
pub fn list(state: &Path) -> anyhow::Result<Vec<Backup>> {
    match StateFile::look(state)? {
        Some(file) => finished(&file),
        None => Ok(Vec::new()),
    }
}

fn finished(state: &StateFile) -> anyhow::Result<Vec<Backup>> {
    let Some(folder) = state.folder().look_within(FOLDER)? else { return Ok(Vec::new()) };
    let names = entries(&folder)?;
    let mut backups: Vec<Backup> = names.iter().filter_map(|name| read_name(&folder, name)).collect();
    backups.sort_by_key(|backup| Reverse((backup.made, backup.modified)));
    Ok(backups)
}

/// A backup that an operator names. In the folder of our own backups, nothing is reached through a link.
pub(super) fn named(state: &StateFile, path: &Path) -> anyhow::Result<Option<StateFile>> {
    let ours = state.folder().path_of(FOLDER);
    if let (true, Some(name)) = (path.parent() == Some(ours.as_path()), path.file_name()) {
        let folder = state.folder().look_within(FOLDER)?;
        return Ok(folder.map(|folder| StateFile::within(&Arc::new(folder), name)));
    }
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        real => StateFile::look(&real.with_context(|| format!("cannot open {}", path.display()))?),
    }
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
pub(crate) fn prune(state: &StateFile, keep: usize) -> anyhow::Result<()> {
    let backups = finished(state)?;
    let Some(folder) = state.folder().look_within(FOLDER)? else { return Ok(()) };
    for own in [REGULAR, "before-"] {
        for old in backups.iter().filter(|backup| backup.occasion.starts_with(own)).skip(keep) {
            let name = old.path.file_name().unwrap_or_default();
            folder.remove(name).with_context(|| format!("cannot remove the old backup {}", old.path.display()))?;
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

fn entries(folder: &PrivateFolder) -> anyhow::Result<Vec<OsString>> {
    folder.names().with_context(|| format!("cannot list {}", folder.path().display()))
}

/// `20251128T163000Z-before-set.db`; None for what is no backup of ours.
fn read_name(folder: &PrivateFolder, name: &OsStr) -> Option<Backup> {
    let (stamp, occasion) = name.to_str()?.strip_suffix(".db")?.split_once('-')?;
    let made = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?.and_utc();
    let data = folder.stat(name).ok().flatten()?;
    if FileType::from_raw_mode(data.st_mode) != FileType::RegularFile {
        return None;
    }
    let (size, modified) = (data.st_size.cast_unsigned(), (data.st_mtime, data.st_mtime_nsec));
    Some(Backup { path: folder.path_of(name), made, occasion: occasion.to_owned(), size, modified })
}

/// What somebody left who died while making a backup.
fn remove_abandoned(folder: &PrivateFolder) -> anyhow::Result<()> {
    let unfinished = |name: &&OsString| name.to_string_lossy().contains(&format!(".db{UNFINISHED}"));
    for name in entries(folder)?.iter().filter(unfinished) {
        // The lock is held until the file is gone: whoever has just created it must not get it meanwhile.
        let Ok(Some(file)) = folder.open(name, Access::Read) else { continue };
        if file.try_lock().is_ok() {
            folder.remove(name).with_context(|| format!("cannot remove {}", folder.path_of(name).display()))?;
        }
    }
    Ok(())
}

/// The refusal of a backup that cannot be restored.
pub(super) fn unusable(backup: &Path, error: anyhow::Error) -> anyhow::Error {
    let damage = match error.downcast_ref() {
        Some(Refusal::StateDamaged { damage, .. }) => damage.clone(),
        Some(Refusal::StateNewer { .. }) => return error,
        _ => Damage::Other(Message::from(&error).what),
    };
    Refusal::BackupUnusable { backup: backup.to_path_buf(), damage }.into()
}
