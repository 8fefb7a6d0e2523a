//! The files of a state: what SQLite keeps beside it, and whether another user has put others in their place.
//!
//! SQLite opens by path. Where another user can change the way to the folder (`fs::route`), a path may lead to
//! another file from one moment to the next. So the files that SQLite has open are compared with those in the open
//! folder: after they were opened, and before everything that is written. After an error none is removed by its path,
//! only by its name in the open folder.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::fs::FileType;

use crate::fs::file::PrivateFile;
use crate::fs::identity::Identity;
use crate::fs::private::Exposure;
use crate::fs::readers::{OWNER_ONLY, StateMode};
use crate::lang::Explain;
use crate::refusal::{Distrust, Refusal};
use crate::tree::mark;

/// The mode of a new state beside this one, and of its backups: what was asked for, or that of this one, or of the lock
/// beside it if the state was lost or set aside. SQLite gives it to their logs too.
pub(super) fn mode_of_new(state: &PrivateFile) -> anyhow::Result<u32> {
    if let Some(mode) = state.folder().file_mode() {
        return Ok(mode);
    }
    let stat = match state.stat()? {
        None => state.folder().stat(mark::FILE)?,
        stat => stat,
    };
    Ok(stat.map_or(OWNER_ONLY, |stat| StateMode::like(stat.st_mode)))
}

/// Gives a new file its mode, of which the umask may have taken something.
pub(super) fn set_mode(file: &fs::File, mode: u32) -> io::Result<()> {
    if mode == OWNER_ONLY { Ok(()) } else { file.set_permissions(Permissions::from_mode(mode)) }
}

/// What SQLite keeps beside a state that is open or was not closed.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Bytes of the longest path that SQLite opens: 512 (`MAX_PATHNAME` in its `os_unix.c`) less `-journal`.
const LONGEST_PATH: usize = 504;

/// Bytes of the longest path that SQLite is given below the state's folder, with a slash before it: that of a backup
/// which is not finished.
const LONGEST_NAME: usize = "/backups/20251128T163000Z-before-restore-999.db.new".len();

/// Refuses a state with a path that SQLite does not open, or that leaves no room for backups beside it.
pub(super) fn refuse_long(state: &PrivateFile) -> anyhow::Result<()> {
    refuse_longer(state, LONGEST_PATH - LONGEST_NAME + state.name().len())
}

/// Refuses a file with a path that SQLite does not open.
pub(super) fn refuse_unopenable(file: &PrivateFile) -> anyhow::Result<()> {
    refuse_longer(file, LONGEST_PATH)
}

fn refuse_longer(file: &PrivateFile, most: usize) -> anyhow::Result<()> {
    let length = file.real_path().as_os_str().len();
    if length <= most {
        return Ok(());
    }
    Err(Refusal::PathTooLong { path: file.path().to_path_buf(), length, most }.into())
}

fn companions(state: &PrivateFile) -> impl Iterator<Item = PrivateFile> {
    COMPANIONS.iter().map(|suffix| state.with_suffix(suffix))
}

/// Refuses a state that this user may not write to, also for what SQLite would read with it.
pub(super) fn refuse_foreign(state: &PrivateFile) -> anyhow::Result<()> {
    let folder = state.folder();
    folder.refuse_foreign(state.name())?;
    companions(state).try_for_each(|companion| folder.refuse_foreign(companion.name()))
}

/// Refuses links in the place of what SQLite would read with a state.
pub(super) fn refuse_links(state: &PrivateFile) -> anyhow::Result<()> {
    for companion in companions(state) {
        let stat = companion.stat()?;
        if stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink) {
            return Err(Refusal::Untrusted { path: companion.path().to_path_buf(), why: Distrust::Link }.into());
        }
    }
    Ok(())
}

/// Whether a log lies beside the state: a process has it open or did not close it.
pub(super) fn has_log(state: &PrivateFile) -> bool {
    state.with_suffix("-wal").exists().is_ok_and(|exists| exists)
}

/// Moves what SQLite keeps beside a state to beside another name of it. Returns whether there was anything.
pub(super) fn move_companions(from: &PrivateFile, to: &PrivateFile) -> anyhow::Result<bool> {
    let mut moved = false;
    for (from, to) in companions(from).zip(companions(to)) {
        moved |= from.rename(&to)?;
    }
    Ok(moved)
}

/// Removes what SQLite keeps beside a state.
pub(super) fn remove_companions(state: &PrivateFile) -> anyhow::Result<()> {
    companions(state).try_for_each(|companion| companion.remove())
}

/// What this process has open before SQLite opens a file; None where that does not matter or cannot be found out.
pub(super) fn before_open(state: &PrivateFile) -> Option<BTreeSet<OpenHandle>> {
    if state.folder().exposure() == Exposure::None { None } else { open_handles() }
}

/// Refuses if SQLite, which has just opened the file, was led to another one. SQLite may also take up a handle of
/// an earlier connection again.
pub(super) fn refuse_other(state: &PrivateFile, before: Option<&BTreeSet<OpenHandle>>) -> anyhow::Result<()> {
    let (Some(before), Some(now)) = (before, open_handles()) else { return Ok(()) };
    let ours = state.stat()?.as_ref().map(Identity::of);
    let is_ours = |(_, identity): &OpenHandle| Some(*identity) == ours;
    let mut opened = now.difference(before).peekable();
    let is_right = if opened.peek().is_some() { opened.any(is_ours) } else { now.iter().any(is_ours) };
    if is_right { Ok(()) } else { Err(replaced(state.path())) }
}

/// Refuses if the path for SQLite leads elsewhere.
pub(super) fn refuse_moved(state: &PrivateFile) -> anyhow::Result<()> {
    let there = Identity::at(&state.real_path()).ok().flatten();
    if there == state.stat()?.as_ref().map(Identity::of) && is_folder_in_place(state) {
        return Ok(());
    }
    Err(replaced(state.path()))
}

fn is_folder_in_place(state: &PrivateFile) -> bool {
    let there = Identity::at(state.folder().real_path()).ok().flatten();
    there.is_some() && there == state.folder().identity().ok()
}

fn replaced(path: &std::path::Path) -> anyhow::Error {
    Refusal::Untrusted { path: path.to_path_buf(), why: Distrust::Replaced }.into()
}

/// The files that SQLite has open, where another user may put others in their place.
#[derive(Debug)]
pub(super) struct Watch {
    /// With the folder itself: the paths that SQLite knows, the operator's names and the identities.
    files: BTreeMap<PathBuf, (PathBuf, Identity)>,
}

impl Watch {
    /// None where only root and this user can change anything.
    ///
    /// # Errors
    /// Refuses if SQLite has other files open than those in the folder.
    pub(super) fn begin(state: &PrivateFile) -> anyhow::Result<Option<Self>> {
        let folder = state.folder();
        if folder.exposure() == Exposure::None {
            return Ok(None);
        }
        let (mut files, open) = (BTreeMap::new(), open_handles());
        for file in [state.clone(), state.with_suffix("-wal"), state.with_suffix("-shm")] {
            let Some(stat) = file.stat()? else { continue };
            let identity = Identity::of(&stat);
            if open.as_ref().is_some_and(|open| open.iter().all(|(_, other)| *other != identity)) {
                return Err(replaced(file.path()));
            }
            files.insert(file.real_path(), (file.path().to_path_buf(), identity));
        }
        files.insert(folder.real_path().to_path_buf(), (folder.path().to_path_buf(), folder.identity()?));
        let watch = Self { files };
        watch.check()?;
        Ok(Some(watch))
    }

    /// Refuses if a path leads elsewhere by now.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (real, (path, identity)) in &self.files {
            let now = Identity::at(real).explain(|| text!("cannot look at {}", "无法查看 {}", path.display()))?;
            if now != Some(*identity) {
                return Err(replaced(path));
            }
        }
        Ok(())
    }
}

/// The number of an open file, and which file it is.
pub(super) type OpenHandle = (OsString, Identity);

/// All files that this process has open; None where there is no `/proc`.
fn open_handles() -> Option<BTreeSet<OpenHandle>> {
    let handles = fs::read_dir("/proc/self/fd").ok()?.filter_map(Result::ok);
    let files = handles.filter_map(|handle| {
        let data = fs::metadata(handle.path()).ok().filter(fs::Metadata::is_file)?;
        Some((handle.file_name(), Identity::from(&data)))
    });
    Some(files.collect())
}
