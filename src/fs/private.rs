//! A folder for the program's own files: `.export_state` in the output, the folder of `--state-dir`, and `backups` in
//! it.
//!
//! Another user may own the output and put a symbolic link in the place of any name in it, also while a run is at
//! work. So the folder is opened once. Every name is reached relative to that handle and never through a link,
//! and a new file is one that was not there before. `route.rs` says who can change the way to the folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, RenameFlags, Stat, StatFs};
use rustix::io::Errno;

use super::identity::Identity;
pub use super::route::Exposure;
use super::route::{Route, is_trusted, others_may_write};
use super::{FOLDER_MODE, create_folder_if_missing, open_beneath};
use crate::lang::{Explain, Text};
use crate::refusal::{Distrust, Refusal};

/// The program's folder in an output. Its name is hidden from listings of the tenants.
pub const PRIVATE: &str = ".export_state";

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const PROBE: &str = "probe-owner";

/// An open folder of the program's own files.
#[derive(Debug)]
pub struct PrivateFolder {
    /// As the operator knows it.
    path: PathBuf,
    /// The same without links, for SQLite, which opens by path.
    real: PathBuf,
    handle: OwnedFd,
    exposure: Exposure,
    /// The mode of new files, where it was decided.
    file_mode: OnceLock<RawMode>,
    /// The owner that a new file gets here: FUSE, SMB and NFS may give it another one than its maker.
    new_owner: OnceLock<u32>,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAccess {
    Read,
    Write,
}

impl PrivateFolder {
    /// `.export_state` of an open output, created where it is missing.
    ///
    /// # Errors
    /// Refuses a link in its place, and an output if its path leads to another folder by now.
    pub fn create_in_output(root: &OwnedFd, output: &Path) -> anyhow::Result<Self> {
        let path = output.join(PRIVATE);
        let handle = match open_beneath(root, PRIVATE) {
            Err(Errno::NOENT) => {
                let created = create_folder_if_missing(root, PRIVATE);
                if created.as_ref().is_err_and(is_denied) && is_of_another_user(root, ".".as_ref()) {
                    return Err(Refusal::NotOwner { path: output.to_path_buf() }.into());
                }
                created.explain(|| cannot_create(&path))?;
                open_beneath(root, PRIVATE)
            }
            opened => opened,
        };
        let handle = handle.map_err(|error| cannot_open(root, PRIVATE.as_ref(), &path, error))?;
        Self::in_output(path, root, handle)
    }

    /// `.export_state` of an output, if there is one.
    fn open_in_output(path: &Path) -> anyhow::Result<Option<Self>> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let root = match rustix::fs::openat(CWD, parent(path), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            root => root.map_err(io::Error::from).explain(|| open_failed(path))?,
        };
        match open_folder(&root, PRIVATE.as_ref()) {
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(cannot_open(&root, PRIVATE.as_ref(), path, error)),
            Ok(handle) => Self::in_output(path.to_path_buf(), &root, handle).map(Some),
        }
    }

    /// The links on the way to an output may belong to any user.
    fn in_output(path: PathBuf, root: impl AsFd, handle: OwnedFd) -> anyhow::Result<Self> {
        let route = Route::to(parent(&path)).explain(|| text!("cannot look for {}", "无法查找 {}", path.display()))?;
        if Identity::at(&route.real)? != Some(Identity::of_open(root)?) {
            return Err(Refusal::Untrusted { path, why: Distrust::Replaced }.into());
        }
        Self::at_end(path, route.real.join(PRIVATE), handle, route.exposure)
    }

    /// The folder of `--state-dir`, created where it is missing. The folder of an output is recognised by its name.
    ///
    /// # Errors
    /// Refuses a folder that belongs to another user, and one that another user's link leads to.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        if is_of_an_output(path) {
            let output = parent(path);
            std::fs::create_dir_all(output).explain(|| cannot_create(path))?;
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let root = rustix::fs::openat(CWD, output, flags, Mode::empty()).map_err(io::Error::from);
            return Self::create_in_output(&root.explain(|| open_failed(output))?, output);
        }
        refuse_foreign_links(path).explain(|| cannot_create(path))?;
        std::fs::create_dir_all(path).explain(|| cannot_create(path))?;
        let folder = Self::open_existing(path)?.explain(|| is_gone(path))?;
        let owner = folder.own_stat()?.st_uid;
        if !is_trusted(owner) && !folder.is_ours(owner) {
            return Err(Refusal::NotOwner { path: path.to_path_buf() }.into());
        }
        Ok(folder)
    }

    /// The folder at a path, if there is one.
    pub fn open_existing(path: &Path) -> anyhow::Result<Option<Self>> {
        if is_of_an_output(path) {
            return Self::open_in_output(path);
        }
        let route = match Route::to(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            route => route.explain(|| open_failed(path))?,
        };
        let handle = open_folder(CWD, &route.real).map_err(io::Error::from).explain(|| open_failed(path))?;
        let owner = rustix::fs::fstat(&handle).map_err(io::Error::from).explain(|| open_failed(path))?.st_uid;
        if let Some(link) = route.link_of_another_user(owner) {
            return Err(Refusal::Untrusted { path: link.to_path_buf(), why: Distrust::Link }.into());
        }
        Self::at_end(path.to_path_buf(), route.real, handle, route.exposure).map(Some)
    }

    /// A folder in this one, if there is one.
    pub fn open_subfolder(&self, name: &str) -> anyhow::Result<Option<Self>> {
        match open_folder(&self.handle, name.as_ref()) {
            Ok(handle) => Self::at_end(self.path.join(name), self.real.join(name), handle, self.exposure).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.cannot_open(name, error)),
        }
    }

    /// A folder in this one, created where it is missing.
    pub fn create_subfolder(&self, name: &str) -> anyhow::Result<Self> {
        if let Some(folder) = self.open_subfolder(name)? {
            return Ok(folder);
        }
        create_folder_if_missing(&self.handle, name).explain(|| cannot_create(&self.path_of(name)))?;
        self.open_subfolder(name)?.explain(|| is_gone(&self.path_of(name)))
    }

    /// The folder at the end of a route, which must still be the one that was opened.
    fn at_end(path: PathBuf, real: PathBuf, handle: OwnedFd, exposure: Exposure) -> anyhow::Result<Self> {
        let folder = Self { path, real, handle, exposure, file_mode: OnceLock::new(), new_owner: OnceLock::new() };
        let opened = folder.own_stat()?;
        if Identity::at(&folder.real).explain(|| cannot_look_at(&folder.path))? != Some(Identity::of(&opened)) {
            return Err(Refusal::Untrusted { path: folder.path, why: Distrust::Replaced }.into());
        }
        let exposure = if others_may_write(&opened) { Exposure::ToOthers } else { exposure };
        Ok(Self { exposure, ..folder })
    }

    /// As an operator names the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As an operator names a file of this folder.
    pub fn path_of(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The folder's path without links, for SQLite, which opens by path. It leads to another folder as soon as another
    /// user has changed the way.
    pub fn real_path(&self) -> &Path {
        &self.real
    }

    /// Whether another user can put something else in the place of the folder or of a file in it.
    pub fn exposure(&self) -> Exposure {
        self.exposure
    }

    /// The mode that new files of the state have here; None where it was not decided.
    pub fn file_mode(&self) -> Option<RawMode> {
        self.file_mode.get().copied()
    }

    /// Decides the mode of new files, once.
    pub fn decide_file_mode(&self, mode: RawMode) {
        let _ = self.file_mode.set(mode);
    }

    /// The permission bits of the folder.
    pub(super) fn mode(&self) -> anyhow::Result<RawMode> {
        Ok(self.own_stat()?.st_mode & 0o7777)
    }

    /// The handle relative to which its names are reached.
    pub(crate) fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// Tells this folder from all others, also where two paths lead to it.
    pub fn identity(&self) -> anyhow::Result<Identity> {
        Ok(Identity::of(&self.own_stat()?))
    }

    pub(super) fn own_stat(&self) -> anyhow::Result<Stat> {
        rustix::fs::fstat(&self.handle).map_err(io::Error::from).explain(|| cannot_look_at(&self.path))
    }

    /// What the operating system says of the file system that holds the folder.
    pub fn file_system(&self) -> io::Result<StatFs> {
        Ok(rustix::fs::fstatfs(&self.handle)?)
    }

    /// The facts of what has this name, of a link itself; None where nothing has it.
    pub fn stat(&self, name: impl AsRef<Path>) -> anyhow::Result<Option<Stat>> {
        let name = name.as_ref();
        match rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            stat => stat.map(Some).explain(|| cannot_look_at(&self.path_of(name))),
        }
    }

    /// Opens an ordinary file, if there is one. Does not wait for a pipe.
    ///
    /// # Errors
    /// Refuses a link, and anything else that is no file.
    pub fn open(&self, name: impl AsRef<Path>, access: FileAccess) -> anyhow::Result<Option<File>> {
        let name = name.as_ref();
        let how = if access == FileAccess::Write { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.handle, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            // A socket.
            Err(Errno::NXIO) => return Err(self.distrust(name, Distrust::NotAFile)),
            file => File::from(file.map_err(|error| self.cannot_open(name, error))?),
        };
        if file.metadata().explain(|| cannot_look_at(&self.path_of(name)))?.is_file() {
            Ok(Some(file))
        } else {
            Err(self.distrust(name, Distrust::NotAFile))
        }
    }

    /// Creates a file that was not there before, not even as a link (`AlreadyExists`). The umask applies to `mode`.
    pub fn create_file(&self, name: impl AsRef<Path>, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.handle, name.as_ref(), flags, Mode::from_raw_mode(mode))?.into())
    }

    /// Refuses what may not be written to: a link, what is no file, what belongs to another user, and, where another
    /// user can make names, a file that has more than one.
    pub fn refuse_foreign(&self, name: impl AsRef<Path>) -> anyhow::Result<()> {
        let stat = self.stat(&name)?;
        stat.map_or(Ok(()), |stat| self.refuse_foreign_stat(name.as_ref(), &stat))
    }

    /// The same of an open file.
    pub fn refuse_foreign_file(&self, name: impl AsRef<Path>, file: &File) -> anyhow::Result<()> {
        let name = name.as_ref();
        let stat = rustix::fs::fstat(file).map_err(io::Error::from).explain(|| cannot_look_at(&self.path_of(name)))?;
        self.refuse_foreign_stat(name, &stat)
    }

    fn refuse_foreign_stat(&self, name: &Path, stat: &Stat) -> anyhow::Result<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => return Err(self.distrust(name, Distrust::Link)),
            _ => return Err(self.distrust(name, Distrust::NotAFile)),
        }
        if !self.is_ours(stat.st_uid) {
            return Err(Refusal::NotOwner { path: self.path_of(name) }.into());
        }
        if stat.st_nlink > 1 && self.exposure == Exposure::ToOthers {
            return Err(self.distrust(name, Distrust::OtherNames));
        }
        Ok(())
    }

    /// Refuses an open folder that another user has put in the place of one that was just created.
    pub(crate) fn refuse_foreign_folder(&self, name: impl AsRef<Path>, folder: &OwnedFd) -> anyhow::Result<()> {
        let path = self.path_of(name);
        let owner = rustix::fs::fstat(folder).map_err(io::Error::from).explain(|| cannot_look_at(&path))?.st_uid;
        if self.is_ours(owner) { Ok(()) } else { Err(Refusal::NotOwner { path }.into()) }
    }

    /// Whether a file of this owner may be one that this program created.
    fn is_ours(&self, owner: u32) -> bool {
        owner == rustix::process::geteuid().as_raw() || self.owner_of_new_files().is_ok_and(|ours| ours == owner)
    }

    fn owner_of_new_files(&self) -> io::Result<u32> {
        if let Some(owner) = self.new_owner.get() {
            return Ok(*owner);
        }
        self.remove(PROBE)?;
        let probe = self.create_file(PROBE, 0o600)?;
        let owner = rustix::fs::fstat(&probe).map(|stat| stat.st_uid);
        self.remove(PROBE)?;
        let owner = owner?;
        Ok(*self.new_owner.get_or_init(|| owner))
    }

    /// Creates a folder that was not there before (`AlreadyExists`).
    pub fn create_folder(&self, name: impl AsRef<Path>) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.handle, name.as_ref(), FOLDER_MODE)?)
    }

    /// Renames by another call than publishing does, so that a trace tells the two apart. What has the name `to` is
    /// replaced.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        match rustix::fs::renameat_with(&self.handle, from, &self.handle, to, RenameFlags::empty()) {
            Err(Errno::INVAL | Errno::NOSYS) => Ok(rustix::fs::renameat(&self.handle, from, &self.handle, to)?),
            result => Ok(result?),
        }
    }

    /// Renames a folder, but replaces nothing. NFS, 9p and some servers of FUSE cannot do both at once; there the name
    /// is claimed by an empty folder first, which a rename may replace. A process that dies in between leaves it
    /// behind, and it looks like the script's.
    pub fn rename_to_new(&self, folder: impl AsRef<Path>, name: impl AsRef<Path>) -> io::Result<()> {
        let (folder, name) = (folder.as_ref(), name.as_ref());
        match rustix::fs::renameat_with(&self.handle, folder, &self.handle, name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL) => {
                self.create_folder(name)?;
                self.rename(folder, name).inspect_err(|_| {
                    let _ = rustix::fs::unlinkat(&self.handle, name, AtFlags::REMOVEDIR);
                })
            }
            result => Ok(result?),
        }
    }

    /// Gives a file a second name. A link gets one itself.
    pub fn link(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        Ok(rustix::fs::linkat(&self.handle, from.as_ref(), &self.handle, to.as_ref(), AtFlags::empty())?)
    }

    /// Removes a file or a link, if it is there.
    pub fn remove(&self, name: impl AsRef<Path>) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.handle, name.as_ref(), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Removes a folder with everything in it, if it is there. Links in it are removed themselves.
    pub fn remove_folder(&self, name: &str) -> anyhow::Result<()> {
        match remove_recursively(&self.handle, name.as_ref()) {
            Err(Errno::XDEV) => Err(self.distrust(name.as_ref(), Distrust::MountPoint)),
            removed => removed
                .map_err(io::Error::from)
                .explain(|| text!("cannot remove {}", "无法删除 {}", self.path_of(name).display())),
        }
    }

    /// The names in the folder, in no order.
    pub fn names(&self) -> anyhow::Result<Vec<OsString>> {
        let names = names(&self.handle).map_err(io::Error::from);
        names.explain(|| text!("cannot list {}", "无法列出 {} 的内容", self.path.display()))
    }

    /// Makes the names in the folder durable.
    pub fn sync(&self) -> anyhow::Result<()> {
        let synced = rustix::fs::fsync(&self.handle).map_err(io::Error::from);
        synced.explain(|| text!("cannot sync {}", "无法将 {} 同步到磁盘", self.path.display()))
    }

    fn distrust(&self, name: &Path, why: Distrust) -> anyhow::Error {
        Refusal::Untrusted { path: self.path_of(name), why }.into()
    }

    /// The error of an open, or the refusal of a link.
    pub(crate) fn cannot_open(&self, name: impl AsRef<Path>, error: Errno) -> anyhow::Error {
        cannot_open(&self.handle, name.as_ref(), &self.path_of(name.as_ref()), error)
    }
}

/// Whether this is the program's folder in an output, by its name: an operator may give it as `--state-dir` too.
fn is_of_an_output(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == PRIVATE)
}

/// Refuses a link of another user on the way, as far as the way exists.
fn refuse_foreign_links(path: &Path) -> anyhow::Result<()> {
    for way in path.ancestors().map(or_current) {
        let route = match Route::to(way) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            route => route?,
        };
        let owner = rustix::fs::statat(CWD, &route.real, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?.st_uid;
        return route
            .link_of_another_user(owner)
            .map_or(Ok(()), |link| Err(Refusal::Untrusted { path: link.to_path_buf(), why: Distrust::Link }.into()));
    }
    Ok(())
}

/// The folder around a file.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().map_or(Path::new("."), or_current)
}

fn or_current(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Opens a folder that is no link. Its names may be hidden from this user.
fn open_folder(around: impl AsFd, name: &Path) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(&around, name, FOLDER | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) => rustix::fs::openat(&around, name, FOLDER | OFlags::PATH, Mode::empty()),
        opened => opened,
    }
}

/// Opening a link as a folder is refused with ENOTDIR or ELOOP, as another one is as a file; a mount point with EXDEV.
fn cannot_open(around: impl AsFd, name: &Path, path: &Path, error: Errno) -> anyhow::Error {
    let is_link = || {
        rustix::fs::statat(&around, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    };
    let why = match error {
        Errno::XDEV => Distrust::MountPoint,
        Errno::LOOP | Errno::NOTDIR if is_link() => Distrust::Link,
        Errno::ACCESS if is_of_another_user(&around, name) => {
            return Refusal::NotOwner { path: path.to_path_buf() }.into();
        }
        _ => return open_failed(path).caused_by(io::Error::from(error)),
    };
    Refusal::Untrusted { path: path.to_path_buf(), why }.into()
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Whether what has this name belongs to another user: that is why it is denied to this one.
fn is_of_another_user(around: impl AsFd, name: &Path) -> bool {
    let stat = rustix::fs::statat(around, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| stat.st_uid != rustix::process::geteuid().as_raw())
}

fn names(folder: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Removes a folder of the same file system with everything in it.
fn remove_recursively(around: &OwnedFd, name: &Path) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(around, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let folder = open_beneath(around, name)?;
    for inner in names(&folder)? {
        remove_recursively(&folder, inner.as_ref())?;
    }
    match rustix::fs::unlinkat(around, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

pub(super) fn cannot_look_at(path: &Path) -> Text {
    text!("cannot look at {}", "无法查看 {}", path.display())
}

pub(super) fn cannot_create(path: &Path) -> Text {
    text!("cannot create {}", "无法创建 {}", path.display())
}

fn open_failed(path: &Path) -> Text {
    text!("cannot open {}", "无法打开 {}", path.display())
}

fn is_gone(path: &Path) -> Text {
    text!("{} is gone again", "{} 随即又消失了", path.display())
}
