//! Where a state or a backup lies: a name in a folder of ours.
//!
//! SQLite opens by path. Where another user can change the way to the folder (`tree::route`), a path may lead to
//! another file from one moment to the next. So the files that SQLite has open are compared with those in our open
//! folder: after they were opened, and before everything that is written.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustix::fs::{FileType, Stat};

use crate::refusal::{Distrust, Refusal};
use crate::tree::private::{Access, Exposure, Identity, PrivateFolder};

/// What SQLite keeps beside a state that is open or was not closed.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A state, a backup, or one of either in the making. It need not be there.
#[derive(Clone, Debug)]
pub struct StateFile {
    folder: Arc<PrivateFolder>,
    name: OsString,
    path: PathBuf,
}

impl StateFile {
    pub fn within(folder: &Arc<PrivateFolder>, name: impl Into<OsString>) -> Self {
        let name = name.into();
        Self { folder: Arc::clone(folder), path: folder.path_of(&name), name }
    }

    /// None where even its folder is missing.
    pub fn at(path: &Path) -> anyhow::Result<Option<Self>> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = name_of(path)?;
        Ok(PrivateFolder::open_existing(folder)?.map(|folder| Self::within(&Arc::new(folder), name)))
    }

    /// As an operator knows it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn folder(&self) -> &Arc<PrivateFolder> {
        &self.folder
    }

    /// The path for SQLite.
    pub(super) fn real_path(&self) -> PathBuf {
        self.folder.real_path_of(&self.name)
    }

    /// Another file beside this one.
    pub(super) fn with_suffix(&self, suffix: &str) -> Self {
        Self::within(&self.folder, with_suffix(&self.name, suffix))
    }

    pub(super) fn stat(&self) -> anyhow::Result<Option<Stat>> {
        self.folder.stat(&self.name).with_context(|| format!("cannot look at {}", self.path.display()))
    }

    pub fn is_there(&self) -> anyhow::Result<bool> {
        Ok(self.stat()?.is_some())
    }

    pub(super) fn open(&self) -> anyhow::Result<Option<File>> {
        self.folder.open(&self.name, Access::Read)
    }

    /// Makes the file by ourselves, because of its mode, which SQLite gives its log too.
    pub(super) fn create(&self) -> io::Result<File> {
        self.folder.create_file(&self.name, 0o600)
    }

    /// Refuses a state that is not ours to write, also for what SQLite would read with it.
    pub(super) fn refuse_foreign(&self) -> anyhow::Result<()> {
        self.folder.refuse_foreign(&self.name)?;
        COMPANIONS.iter().try_for_each(|companion| self.folder.refuse_foreign(with_suffix(&self.name, companion)))
    }

    /// Refuses links in the place of what SQLite would read with a state.
    pub(super) fn refuse_links(&self) -> anyhow::Result<()> {
        for companion in COMPANIONS {
            let companion = self.with_suffix(companion);
            let is_link = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
            if companion.stat()?.is_some_and(is_link) {
                return Err(Refusal::Untrusted { path: companion.path, why: Distrust::Link }.into());
            }
        }
        Ok(())
    }

    pub(super) fn has_log(&self) -> bool {
        self.folder.stat(with_suffix(&self.name, "-wal")).is_ok_and(|there| there.is_some())
    }

    /// Renames a file within its folder. Returns whether it was there.
    pub(super) fn rename(&self, to: &Self) -> anyhow::Result<bool> {
        match self.folder.rename(&self.name, &to.name) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("cannot rename {} to {}", self.path.display(), to.path.display()))
            }
        }
    }

    pub(super) fn link(&self, to: &Self) -> io::Result<()> {
        self.folder.link(&self.name, &to.name)
    }

    /// Moves what SQLite keeps beside a state to beside another name of it. Returns whether there was
    /// anything.
    pub(super) fn move_companions(&self, to: &Self) -> anyhow::Result<bool> {
        let mut moved = false;
        for companion in COMPANIONS {
            moved |= self.with_suffix(companion).rename(&to.with_suffix(companion))?;
        }
        Ok(moved)
    }

    pub(super) fn remove(&self) -> anyhow::Result<()> {
        self.folder.remove(&self.name).with_context(|| format!("cannot remove {}", self.path.display()))
    }

    pub(super) fn remove_companions(&self) -> anyhow::Result<()> {
        COMPANIONS.iter().try_for_each(|companion| self.with_suffix(companion).remove())
    }

    pub(super) fn remove_with_companions(&self) -> anyhow::Result<()> {
        self.remove()?;
        self.remove_companions()
    }

    /// What this process has open before SQLite opens the file; None where that does not matter or cannot be found
    /// out.
    pub(super) fn before_open(&self) -> Option<BTreeSet<Handle>> {
        if self.folder.exposure() == Exposure::None {
            return None;
        }
        handles()
    }

    /// Refuses if SQLite, which has just opened the file, was led to another one. SQLite may also take up a handle of
    /// an earlier connection again.
    pub(super) fn refuse_other(&self, before: Option<&BTreeSet<Handle>>) -> anyhow::Result<()> {
        let (Some(before), Some(now)) = (before, handles()) else { return Ok(()) };
        let ours = self.stat()?.as_ref().map(Identity::of);
        let is_ours = |(_, identity): &Handle| Some(*identity) == ours;
        let mut opened = now.difference(before).peekable();
        let is_right = if opened.peek().is_some() { opened.any(is_ours) } else { now.iter().any(is_ours) };
        if is_right { Ok(()) } else { Err(self.replaced()) }
    }

    /// Refuses if the path for SQLite leads elsewhere.
    pub(super) fn refuse_moved(&self) -> anyhow::Result<()> {
        let there = Identity::at(&self.real_path()).ok().flatten();
        if there == self.stat()?.as_ref().map(Identity::of) && self.is_folder_in_place() {
            return Ok(());
        }
        Err(self.replaced())
    }

    fn is_folder_in_place(&self) -> bool {
        let there = Identity::at(self.folder.real_path()).ok().flatten();
        there.is_some() && there == self.folder.identity().ok()
    }

    fn replaced(&self) -> anyhow::Error {
        Refusal::Untrusted { path: self.path.clone(), why: Distrust::Replaced }.into()
    }
}

/// The files that SQLite has open, where another user may put others in their place.
#[derive(Debug)]
pub(super) struct Watch {
    /// With the folder itself, by the paths that SQLite knows.
    files: BTreeMap<PathBuf, (PathBuf, Identity)>,
}

impl Watch {
    /// None where root and we alone can change anything. Refuses if SQLite has other files open than those in our
    /// folder.
    pub(super) fn begin(file: &StateFile) -> anyhow::Result<Option<Self>> {
        let folder = &file.folder;
        if folder.exposure() == Exposure::None {
            return Ok(None);
        }
        let (mut files, open) = (BTreeMap::new(), handles());
        for name in [file.clone(), file.with_suffix("-wal"), file.with_suffix("-shm")] {
            let Some(stat) = name.stat()? else { continue };
            let identity = Identity::of(&stat);
            if open.as_ref().is_some_and(|open| open.iter().all(|(_, other)| *other != identity)) {
                return Err(name.replaced());
            }
            files.insert(name.real_path(), (name.path, identity));
        }
        files.insert(folder.real_path().to_path_buf(), (folder.path().to_path_buf(), folder.identity()?));
        let watch = Self { files };
        watch.check()?;
        Ok(Some(watch))
    }

    /// Refuses if a path leads elsewhere by now.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (real, (path, identity)) in &self.files {
            let now = Identity::at(real).with_context(|| format!("cannot look at {}", path.display()))?;
            if now != Some(*identity) {
                return Err(Refusal::Untrusted { path: path.clone(), why: Distrust::Replaced }.into());
            }
        }
        Ok(())
    }
}

/// The number of an open file, and which it is.
pub(super) type Handle = (OsString, Identity);

/// Everything that this process has open; None where there is no `/proc`.
fn handles() -> Option<BTreeSet<Handle>> {
    let handles = fs::read_dir("/proc/self/fd").ok()?.filter_map(Result::ok);
    let named = handles.filter_map(|handle| {
        let data = fs::metadata(handle.path()).ok().filter(fs::Metadata::is_file)?;
        Some((handle.file_name(), Identity::new(data.dev(), data.ino())))
    });
    Some(named.collect())
}

pub(super) fn with_suffix(name: &OsStr, suffix: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(suffix);
    name
}

fn name_of(path: &Path) -> anyhow::Result<&OsStr> {
    path.file_name().with_context(|| format!("{} is no name of a file", path.display()))
}
