//! What tree, lock and state share of the file system.
//!
//! `identity.rs` says whether two handles, paths or names are one file, `kind.rs` which file systems lack a feature
//! that the program relies on. `private.rs` is the folder of the program's own files, `readers.rs` says who may read them,
//! and `route.rs` is the way to it;
//! `file.rs` is a file in such a folder, and how a new file takes the place of an old one; `inherit.rs` says what a new
//! file gets from its folder. Below an open folder everything is reached relative to its handle, and no symbolic link is
//! followed. `input.rs` reads files that an operator names.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::invoice::Digest;

pub mod file;
pub mod identity;
pub(crate) mod inherit;
pub mod input;
pub mod kind;
pub mod private;
pub mod readers;
pub mod route;

/// The mode of a new folder, less the umask.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);
/// The mode of a new file that other users may read, less the umask.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

/// Opens a folder below another one: no symbolic link is followed, and no path leads out of the folder or onto
/// another file system, which the `syncfs` of the output would not reach.
///
/// # Errors
/// `ELOOP` or `ENOTDIR` for a link, `EXDEV` for a mount point.
pub(crate) fn open_beneath(root: &OwnedFd, path: impl AsRef<Path>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let path = path.as_ref();
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        // Kernels before 5.6, and containers with a filter that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_step_by_step(root, path, flags),
        result => result,
    }
}

fn open_step_by_step(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let device = rustix::fs::fstat(root)?.st_dev;
    let mut handle: Option<OwnedFd> = None;
    for component in path {
        let next = rustix::fs::openat(handle.as_ref().unwrap_or(root), component, flags, Mode::empty())?;
        if rustix::fs::fstat(&next)?.st_dev != device {
            return Err(Errno::XDEV);
        }
        handle = Some(next);
    }
    handle.ok_or(Errno::INVAL)
}

/// Opens a file for reading. A symbolic link is not followed (`ELOOP`), a pipe is not waited for.
pub(crate) fn open_file(folder: &OwnedFd, name: impl AsRef<Path>) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(folder, name.as_ref(), flags, Mode::empty())?))
}

/// Creates a file for writing that must not be there yet, not even as a link (`EEXIST`).
pub(crate) fn create_file(folder: &OwnedFd, name: impl AsRef<Path>) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name.as_ref(), flags, FILE_MODE).map(File::from)
}

/// Creates a folder where there is none. Returns whether it was missing.
pub(crate) fn create_folder_if_missing(around: &OwnedFd, name: impl AsRef<Path>) -> io::Result<bool> {
    match rustix::fs::mkdirat(around, name.as_ref(), FOLDER_MODE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The SHA-256 of everything that an open file holds from its position on.
pub fn digest_of(mut content: File) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    io::copy(&mut content, &mut Hashing(&mut hasher))?;
    Ok(Digest(hasher.finalize().into()))
}

struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
