//! Files that have no name until they are published: the one that they get then is their only one, which
//! spares the file system a name in staging and the search for it. The calls that write and name a file took a fourth
//! less system time for that. A process that dies leaves nothing.
//!
//! A program that watches a folder sees such a file created and not moved in, and may be waiting for the latter.
//! So this is for folders that this run made itself.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::fs::create_file;

/// Each is an open handle. These are two batches and what is staged ahead of them, but for a few, which are
/// given names.
const MAX_OPEN_UNNAMED: usize = 20_000;
/// Handles that are left to everything else: folders, the state, connections.
const RESERVED_FDS: usize = 768;
/// Handles that are of use.
pub(super) const WANTED_FDS: usize = MAX_OPEN_UNNAMED + RESERVED_FDS;
const TRIAL: &str = "trial";

#[derive(Debug)]
pub(super) struct UnnamedFiles {
    open: Arc<AtomicUsize>,
    /// 0 where this file system has no such files, or there is no way to name them.
    at_most: usize,
}

/// A file without a name. It is gone when this is dropped, unless it was linked.
#[derive(Debug)]
pub(super) struct UnnamedFile {
    file: File,
    open: Arc<AtomicUsize>,
}

impl UnnamedFile {
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name.
    pub(super) fn link(&self, folder: &OwnedFd, name: &str) -> rustix::io::Result<()> {
        link(&self.file, folder, name)
    }
}

impl Drop for UnnamedFile {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl UnnamedFiles {
    /// Tries out in an empty folder whether the file system has such files and lets them be named.
    pub(super) fn probe(folder: &OwnedFd, handles: usize) -> Self {
        let at_most =
            if works(folder).unwrap_or(false) { MAX_OPEN_UNNAMED.min(handles.saturating_sub(RESERVED_FDS)) } else { 0 };
        Self { open: Arc::default(), at_most }
    }

    /// Writes a document; None where it needs a name.
    pub(super) fn write(&self, folder: &OwnedFd, document: &[u8]) -> io::Result<Option<UnnamedFile>> {
        if self.open.load(Ordering::Relaxed) >= self.at_most {
            return Ok(None);
        }
        let mut file = match create(folder) {
            // The whole machine may run out of handles before this process does.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => return Ok(None),
            file => file?,
        };
        file.write_all(document)?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Some(UnnamedFile { file, open: Arc::clone(&self.open) }))
    }
}

fn create(folder: &OwnedFd) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::openat(folder, ".", flags, Mode::from_raw_mode(0o666)).map(File::from)
}

/// Whether such a file can be made and named, and is as private as one that has had a name all the time:
/// before Linux 6.0 it could escape the umask (its commit ac6800e279a2).
fn works(folder: &OwnedFd) -> rustix::io::Result<bool> {
    let file = create(folder)?;
    link(&file, folder, TRIAL)?;
    rustix::fs::unlinkat(folder, TRIAL, AtFlags::empty())?;
    let ordinary = create_file(folder, TRIAL)?;
    rustix::fs::unlinkat(folder, TRIAL, AtFlags::empty())?;
    Ok(rustix::fs::fstat(&file)?.st_mode == rustix::fs::fstat(&ordinary)?.st_mode)
}

/// By the handle alone takes Linux 6.10 or CAP_DAC_READ_SEARCH (linkat(2), `AT_EMPTY_PATH`), by its number
/// takes `/proc`.
fn link(file: &File, folder: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    match rustix::fs::linkat(file, "", folder, name, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT) => {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, path, folder, name, AtFlags::SYMLINK_FOLLOW)
        }
        result => result,
    }
}

/// Makes room for so many handles while there is one thread only. With more
/// threads, all that open a file wait each time the kernel's table of handles doubles, for up to 20 ms
/// (`synchronize_rcu` in its `expand_fdtable`). If this fails, the table grows then as before. On a terminal
/// there is a second thread by now, which draws, and this one waits once.
pub(super) fn grow_fd_table(handle: impl AsFd, handles: usize) {
    if let Ok(last) = i32::try_from(handles.min(WANTED_FDS)) {
        let _ = rustix::io::fcntl_dupfd_cloexec(handle, last - 1);
    }
}
