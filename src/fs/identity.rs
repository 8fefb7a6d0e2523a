//! Whether two handles, paths or names are one file.

use std::fs::Metadata;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Stat};
use rustix::io::Errno;

/// Tells a file or folder that exists from all others of this machine. The number is given out again once the file
/// is gone and no handle of it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The identity in facts that the operating system gave.
    pub fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }

    /// The identity of an open file or folder.
    pub fn of_open(handle: impl AsFd) -> io::Result<Self> {
        Ok(Self::of(&rustix::fs::fstat(handle)?))
    }

    /// What has this name in a folder now, a link itself; None where nothing has it.
    pub fn in_folder(folder: impl AsFd, name: impl AsRef<Path>) -> io::Result<Option<Self>> {
        match rustix::fs::statat(folder, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Self::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an open file or folder still has this name in a folder.
    pub fn is_named(handle: impl AsFd, folder: impl AsFd, name: impl AsRef<Path>) -> io::Result<bool> {
        Ok(Self::in_folder(folder, name)? == Some(Self::of_open(handle)?))
    }

    /// What has this path now, a link at its end itself; None where the path leads to nothing that this user reaches.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match Self::in_folder(CWD, path).map_err(|error| (Errno::from_io_error(&error), error)) {
            Err((Some(Errno::NOTDIR | Errno::LOOP | Errno::ACCESS), _)) => Ok(None),
            Err((_, error)) => Err(error),
            Ok(identity) => Ok(identity),
        }
    }
}

impl From<&Metadata> for Identity {
    fn from(data: &Metadata) -> Self {
        Self { device: data.dev(), inode: data.ino() }
    }
}
