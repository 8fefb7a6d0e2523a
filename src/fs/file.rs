//! A file of the program's own: a name in a private folder, and how a new file takes the place of an old one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Stat;

use super::private::{FileAccess, PrivateFolder, cannot_create, parent};
use crate::lang::Explain;

/// A name in a private folder. The file need not exist.
#[derive(Clone, Debug)]
pub struct PrivateFile {
    folder: Arc<PrivateFolder>,
    name: OsString,
    path: PathBuf,
}

impl PrivateFile {
    /// A name in an open folder.
    pub fn new(folder: &Arc<PrivateFolder>, name: impl Into<OsString>) -> Self {
        let name = name.into();
        Self { folder: Arc::clone(folder), path: folder.path_of(&name), name }
    }

    /// The file at a path; None where even its folder is missing.
    pub fn at(path: &Path) -> anyhow::Result<Option<Self>> {
        let name = name_of(path)?;
        Ok(PrivateFolder::open_existing(parent(path))?.map(|folder| Self::new(&Arc::new(folder), name)))
    }

    /// As an operator names the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder around the file.
    pub fn folder(&self) -> &Arc<PrivateFolder> {
        &self.folder
    }

    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// The path without links (see [`PrivateFolder::real_path`]).
    pub fn real_path(&self) -> PathBuf {
        self.folder.real_path().join(&self.name)
    }

    /// Another file beside this one.
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let mut name = self.name.clone();
        name.push(suffix);
        Self::new(&self.folder, name)
    }

    /// The facts of what has this name, of a link itself; None where nothing has it.
    pub fn stat(&self) -> anyhow::Result<Option<Stat>> {
        self.folder.stat(&self.name)
    }

    /// Whether anything has this name.
    pub fn exists(&self) -> anyhow::Result<bool> {
        Ok(self.stat()?.is_some())
    }

    /// Opens the file for reading, if it is there.
    pub fn open(&self) -> anyhow::Result<Option<File>> {
        self.folder.open(&self.name, FileAccess::Read)
    }

    /// Creates the file, which must not be there yet (`AlreadyExists`). The umask applies to `mode`.
    pub fn create(&self, mode: u32) -> io::Result<File> {
        self.folder.create_file(&self.name, mode)
    }

    /// Renames the file within its folder. Returns whether it was there.
    pub fn rename(&self, to: &Self) -> anyhow::Result<bool> {
        match self.folder.rename(&self.name, &to.name) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            renamed => {
                let (from, to) = (self.path.display(), to.path.display());
                renamed.map(|()| true).explain(|| text!("cannot rename {from} to {to}", "无法将 {from} 改名为 {to}"))
            }
        }
    }

    /// Gives the file a second name.
    pub fn link(&self, to: &Self) -> io::Result<()> {
        self.folder.link(&self.name, &to.name)
    }

    /// Removes the file, if it is there.
    pub fn remove(&self) -> anyhow::Result<()> {
        let removed = self.folder.remove(&self.name);
        removed.explain(|| text!("cannot remove {}", "无法删除 {}", self.path.display()))
    }
}

/// The last name of a path.
pub fn name_of(path: &Path) -> anyhow::Result<&OsStr> {
    path.file_name().explain(|| text!("{} is no name of a file", "{} 不是文件名", path.display()))
}

/// A new file under another name, until it takes its own: a reader meets the old file or the new one, also after a
/// power cut. Dropped before that, it is removed.
#[derive(Debug)]
pub struct UnfinishedFile {
    file: File,
    place: PrivateFile,
    is_renamed: bool,
}

impl UnfinishedFile {
    /// Creates the file in the place of one that a dead process left. The umask applies to `mode`.
    pub fn create(place: PrivateFile, mode: u32) -> anyhow::Result<Self> {
        place.remove()?;
        let file = place.create(mode).explain(|| cannot_create(place.path()))?;
        Ok(Self::new(file, place))
    }

    /// A file that was created at this place.
    pub fn new(file: File, place: PrivateFile) -> Self {
        Self { file, place, is_renamed: false }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the file is until it takes its own name.
    pub fn place(&self) -> &PrivateFile {
        &self.place
    }

    /// Makes the content durable, then calls `before_rename`, then renames the file and makes its name durable.
    ///
    /// # Errors
    /// The file is removed, unless it has its name already.
    pub fn put_in_place(
        mut self,
        target: &PrivateFile,
        before_rename: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let synced = self.file.sync_all();
        synced.explain(|| text!("cannot sync {}", "无法将 {} 同步到磁盘", self.place.path().display()))?;
        before_rename()?;
        self.place.rename(target)?;
        self.is_renamed = true;
        target.folder().sync()
    }
}

impl Drop for UnfinishedFile {
    /// What went wrong first is what counts, so an error here is not reported.
    fn drop(&mut self) {
        if !self.is_renamed {
            let _ = self.place.remove();
        }
    }
}
