//! A folder for our own files: `.export_state` in the output, the folder of `--state-dir`, and `backups` in it.
//!
//! Another user may own the output and put a symbolic link in the place of any name in it, also while a run is at
//! work. So the folder is opened once. Every name is reached relative to that handle and never through a link,
//! and a new file is one that was not there before. `route.rs` says who can change the way to the folder.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, StatFs};
use rustix::io::Errno;

use super::publish::make;
pub use super::route::Exposure;
use super::route::{Route, is_trusted, others_may_write};
use super::{PRIVATE, Tree, open_beneath};
use crate::refusal::{Distrust, Refusal};

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const PROBE: &str = "probe-owner";

/// An open folder of ours.
#[derive(Debug)]
pub struct PrivateFolder {
    /// As the operator knows it.
    path: PathBuf,
    /// The same without links, for SQLite, which opens by path.
    real: PathBuf,
    handle: OwnedFd,
    exposure: Exposure,
    /// The owner that a new file gets here: FUSE, SMB and NFS may give it another one than its maker.
    new_owner: OnceLock<u32>,
}

/// What tells a file or folder from all others of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub fn new(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }

    pub fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }

    /// What has this path now, without following a link at its end; None if we reach nothing
    /// there.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Self::of(&stat))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

impl PrivateFolder {
    /// `.export_state` of an open output. It is made where it is missing.
    pub fn create_in(tree: &Tree) -> anyhow::Result<Self> {
        let path = tree.output().join(PRIVATE);
        let handle = match open_beneath(&tree.root, PRIVATE) {
            Err(Errno::NOENT) => {
                make(rustix::fs::mkdirat(&tree.root, PRIVATE, Mode::from_raw_mode(0o777)))
                    .with_context(|| format!("cannot create {}", path.display()))?;
                open_beneath(&tree.root, PRIVATE)
            }
            opened => opened,
        };
        let handle = handle.map_err(|error| cannot_open(&tree.root, PRIVATE.as_ref(), &path, error))?;
        Self::hidden(path, &tree.root, handle)
    }

    /// The folder at a path, which is made where it is missing.
    ///
    /// Refuses a folder of `--state-dir` that belongs to another user.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot create {}", path.display());
        if path.file_name().is_some_and(|name| name == PRIVATE) {
            std::fs::create_dir_all(parent(path)).with_context(cannot)?;
            return Self::create_in(&Tree::open(parent(path))?);
        }
        refuse_foreign_links(path).with_context(cannot)?;
        std::fs::create_dir_all(path).with_context(cannot)?;
        let folder = Self::look(path)?.context("it is gone again").with_context(cannot)?;
        let owner = rustix::fs::fstat(&folder.handle).map_err(io::Error::from).with_context(cannot)?.st_uid;
        if !is_trusted(owner) && !folder.is_ours(owner) {
            return Err(Refusal::NotOwner { path: path.to_path_buf() }.into());
        }
        Ok(folder)
    }

    /// The folder at a path, if there is one.
    pub fn look(path: &Path) -> anyhow::Result<Option<Self>> {
        let cannot = || format!("cannot open {}", path.display());
        if path.file_name().is_some_and(|name| name == PRIVATE) {
            let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
            let root = match rustix::fs::openat(CWD, parent(path), flags, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(None),
                root => root.map_err(io::Error::from).with_context(cannot)?,
            };
            return match open_folder(&root, PRIVATE.as_ref()) {
                Err(Errno::NOENT) => Ok(None),
                Err(error) => Err(cannot_open(&root, PRIVATE.as_ref(), path, error)),
                Ok(handle) => Self::hidden(path.to_path_buf(), &root, handle).map(Some),
            };
        }
        let route = match Route::to(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            route => route.with_context(cannot)?,
        };
        let handle = open_folder(CWD, &route.real).map_err(io::Error::from).with_context(cannot)?;
        let owner = rustix::fs::fstat(&handle).map_err(io::Error::from).with_context(cannot)?.st_uid;
        if let Some(link) = route.link_of_another_user(owner) {
            return Err(Refusal::Untrusted { path: link.to_path_buf(), why: Distrust::Link }.into());
        }
        Self::at(path.to_path_buf(), route.real, handle, route.exposure).map(Some)
    }

    /// A folder in this one, if there is one.
    pub fn look_within(&self, name: &str) -> anyhow::Result<Option<Self>> {
        match open_folder(&self.handle, name.as_ref()) {
            Ok(handle) => Self::at(self.path.join(name), self.real.join(name), handle, self.exposure).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.cannot_open(name, error)),
        }
    }

    /// A folder in this one, which is made where it is missing.
    pub fn create_within(&self, name: &str) -> anyhow::Result<Self> {
        if let Some(there) = self.look_within(name)? {
            return Ok(there);
        }
        make(rustix::fs::mkdirat(&self.handle, name, Mode::from_raw_mode(0o777)))
            .with_context(|| format!("cannot create {}", self.path_of(name).display()))?;
        self.look_within(name)?.with_context(|| format!("{} is gone again", self.path_of(name).display()))
    }

    fn hidden(path: PathBuf, output: impl AsFd, handle: OwnedFd) -> anyhow::Result<Self> {
        // The links on the way to an output may belong to any user.
        let route = Route::to(parent(&path)).with_context(|| format!("cannot look for {}", path.display()))?;
        let opened = rustix::fs::fstat(output).map_err(io::Error::from)?;
        if Identity::at(&route.real)? != Some(Identity::of(&opened)) {
            return Err(Refusal::Untrusted { path, why: Distrust::Replaced }.into());
        }
        Self::at(path, route.real.join(PRIVATE), handle, route.exposure)
    }

    fn at(path: PathBuf, real: PathBuf, handle: OwnedFd, exposure: Exposure) -> anyhow::Result<Self> {
        let opened = rustix::fs::fstat(&handle).map_err(io::Error::from);
        let opened = opened.with_context(|| format!("cannot look at {}", path.display()))?;
        if Identity::at(&real).with_context(|| format!("cannot look at {}", path.display()))?
            != Some(Identity::of(&opened))
        {
            return Err(Refusal::Untrusted { path, why: Distrust::Replaced }.into());
        }
        let exposure = if others_may_write(&opened) { Exposure::ToOthers } else { exposure };
        Ok(Self { path, real, handle, exposure, new_owner: OnceLock::new() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What an operator calls a file of this folder.
    pub fn path_of(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// A path without links. It leads to another file as soon as another user has changed the way to the
    /// folder.
    pub fn real_path_of(&self, name: impl AsRef<Path>) -> PathBuf {
        self.real.join(name)
    }

    /// The folder's own path without links.
    pub fn real_path(&self) -> &Path {
        &self.real
    }

    /// Whether another user can put something else in the place of the folder or of a file in it.
    pub fn exposure(&self) -> Exposure {
        self.exposure
    }

    pub(super) fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    pub fn identity(&self) -> anyhow::Result<Identity> {
        let stat = rustix::fs::fstat(&self.handle).map_err(io::Error::from);
        Ok(Identity::of(&stat.with_context(|| format!("cannot look at {}", self.path.display()))?))
    }

    pub fn file_system(&self) -> io::Result<StatFs> {
        Ok(rustix::fs::fstatfs(&self.handle)?)
    }

    /// What has this name; a link counts as itself.
    pub fn stat(&self, name: impl AsRef<Path>) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.handle, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens an ordinary file, if there is one. Does not wait for a pipe.
    pub fn open(&self, name: impl AsRef<Path>, access: Access) -> anyhow::Result<Option<File>> {
        let name = name.as_ref();
        let how = if access == Access::Write { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.handle, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            // A socket.
            Err(Errno::NXIO) => return Err(self.distrust(name, Distrust::NotAFile)),
            file => File::from(file.map_err(|error| self.cannot_open(name, error))?),
        };
        let is_file = file.metadata().map(|data| data.is_file());
        if !is_file.with_context(|| format!("cannot look at {}", self.path_of(name).display()))? {
            return Err(self.distrust(name, Distrust::NotAFile));
        }
        Ok(Some(file))
    }

    /// Makes a file that was not there before, also not as a link.
    pub fn create_file(&self, name: impl AsRef<Path>, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.handle, name.as_ref(), flags, Mode::from_raw_mode(mode))?.into())
    }

    /// Refuses what may not be written to: a link, what is no file, what belongs to another user, and, where another
    /// user can make names, a file that has more than one.
    pub fn refuse_foreign(&self, name: impl AsRef<Path>) -> anyhow::Result<()> {
        let name = name.as_ref();
        let stat = self.stat(name).with_context(|| format!("cannot look at {}", self.path_of(name).display()))?;
        stat.map_or(Ok(()), |stat| self.refuse_foreign_stat(name, &stat))
    }

    /// The same of an open file.
    pub fn refuse_foreign_file(&self, name: impl AsRef<Path>, file: &File) -> anyhow::Result<()> {
        let name = name.as_ref();
        let stat = rustix::fs::fstat(file).map_err(io::Error::from);
        self.refuse_foreign_stat(
            name,
            &stat.with_context(|| format!("cannot look at {}", self.path_of(name).display()))?,
        )
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

    /// Refuses a folder that another user has put in the place of one that was just made.
    pub(super) fn refuse_foreign_folder(&self, name: impl AsRef<Path>, folder: &OwnedFd) -> anyhow::Result<()> {
        let path = self.path_of(name);
        let stat = rustix::fs::fstat(folder).map_err(io::Error::from);
        let owner = stat.with_context(|| format!("cannot look at {}", path.display()))?.st_uid;
        if self.is_ours(owner) { Ok(()) } else { Err(Refusal::NotOwner { path }.into()) }
    }

    /// Whether a file of this owner may have been made by us.
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

    pub fn make_folder(&self, name: impl AsRef<Path>) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.handle, name.as_ref(), Mode::from_raw_mode(0o777))?)
    }

    /// Renames by another call than publishing does, so that a trace tells the two apart.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        match rustix::fs::renameat_with(&self.handle, from, &self.handle, to, RenameFlags::empty()) {
            Err(Errno::INVAL | Errno::NOSYS) => Ok(rustix::fs::renameat(&self.handle, from, &self.handle, to)?),
            result => Ok(result?),
        }
    }

    /// Renames a folder, but replaces nothing. NFS, 9p and some servers of FUSE cannot do both at once; there the name is
    /// claimed by a folder of ours first, which a rename may replace since it is empty. A process that dies in between
    /// leaves it behind, and it looks like the script's.
    pub fn rename_to_new(&self, folder: impl AsRef<Path>, name: impl AsRef<Path>) -> io::Result<()> {
        let (folder, name) = (folder.as_ref(), name.as_ref());
        match rustix::fs::renameat_with(&self.handle, folder, &self.handle, name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL) => {
                self.make_folder(name)?;
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

    /// Removes a folder with everything in it, if it is there.
    pub fn remove_folder(&self, name: &str) -> anyhow::Result<()> {
        match remove_whole(&self.handle, name.as_ref()) {
            Err(Errno::XDEV) => Err(self.distrust(name.as_ref(), Distrust::MountPoint)),
            removed => removed
                .map_err(io::Error::from)
                .with_context(|| format!("cannot remove {}", self.path_of(name).display())),
        }
    }

    /// The names in the folder, in no order.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        Ok(names(&self.handle)?)
    }

    /// Makes the names in the folder durable.
    pub fn sync(&self) -> anyhow::Result<()> {
        let synced = rustix::fs::fsync(&self.handle).map_err(io::Error::from);
        synced.with_context(|| format!("cannot sync {}", self.path.display()))
    }

    fn distrust(&self, name: &Path, why: Distrust) -> anyhow::Error {
        Refusal::Untrusted { path: self.path_of(name), why }.into()
    }

    /// The error of an open, or the refusal of a link.
    pub(super) fn cannot_open(&self, name: impl AsRef<Path>, error: Errno) -> anyhow::Error {
        cannot_open(&self.handle, name.as_ref(), &self.path_of(name.as_ref()), error)
    }
}

/// Refuses a link of another user on the way, as far as the way is there.
fn refuse_foreign_links(path: &Path) -> anyhow::Result<()> {
    for way in path.ancestors().map(|way| if way.as_os_str().is_empty() { Path::new(".") } else { way }) {
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

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens a folder that is no link. Its names may be hidden from us.
fn open_folder(around: impl AsFd, name: &Path) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(&around, name, FOLDER | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) => rustix::fs::openat(&around, name, FOLDER | OFlags::PATH, Mode::empty()),
        opened => opened,
    }
}

/// Opening a link as a folder is refused with ENOTDIR or ELOOP, as another one is as a file; a mount point with EXDEV.
fn cannot_open(around: impl AsFd, name: &Path, path: &Path, error: Errno) -> anyhow::Error {
    let is_link = matches!(error, Errno::LOOP | Errno::NOTDIR)
        && rustix::fs::statat(around, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
    if error == Errno::XDEV {
        return Refusal::Untrusted { path: path.to_path_buf(), why: Distrust::MountPoint }.into();
    }
    if is_link {
        return Refusal::Untrusted { path: path.to_path_buf(), why: Distrust::Link }.into();
    }
    anyhow::Error::from(io::Error::from(error)).context(format!("cannot open {}", path.display()))
}

fn names(folder: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// A folder that is removed in another one of the same file system. Links go themselves.
fn remove_whole(around: &OwnedFd, name: &Path) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(around, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let folder = open_beneath(around, name)?;
    for inner in names(&folder)? {
        remove_whole(&folder, inner.as_ref())?;
    }
    match rustix::fs::unlinkat(around, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}
