//! The handles that this process may have (`ulimit -n`), and the folders of the output that are kept open.
//!
//! A folder that is kept open spares a search for each file in it. All other handles are needed, so folders
//! get what is left of them, and give it back where none is left after all.

use std::collections::HashMap;
use std::fs::{self, DirEntry};
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::tmpfile;
use crate::refusal::Refusal;

/// Kept for everything but folders of the output and files without a name: standard streams, locks, staging (20),
/// three connections to the state and a backup (13), two to the source, files under way. A run with two writers
/// had 35 open at once, 4 of them folders of the output.
const RESERVED: usize = 48;
/// The same without what writers take.
const WITHOUT_WRITERS: usize = 40;
/// A folder and a file that are looked at or written.
const A_WRITER: usize = 2;
/// Folders kept open at a time. More bring nothing that was measured, and 1,024 is a usual limit.
const MOST_FOLDERS: usize = 256;
/// With fewer handles than this no folder could be kept open.
const LEAST: usize = RESERVED + 8;

/// How many handles this process may have of its own, after it has asked for all that it may ask for: the usual 1,024
/// are meant for programs that use `select`.
pub(super) fn claim() -> Result<usize, Refusal> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(u64::MAX).min(tmpfile::WANTED_FDS as u64);
    if getrlimit(Resource::Nofile).current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
    let handles = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |current| current as usize);
    let inherited = inherited();
    match handles.saturating_sub(inherited) {
        own if own < LEAST => Err(Refusal::FewHandles { handles, inherited, least: LEAST }),
        own => Ok(own),
    }
}

/// Makes room for open files before the first thread asks the source: see `tmpfile::grow_fd_table`. A limit that is too
/// low is refused when the output is opened.
pub fn make_room() {
    if let Ok(handles) = claim() {
        tmpfile::grow_fd_table(std::io::stdin(), handles);
    }
}

/// How many handles the program that started this one has left open, beside the standard streams. The kernel closes a
/// handle with `O_CLOEXEC` when a program starts, and this program opens all of its own with that flag. Where `/proc` is
/// missing, none is known.
fn inherited() -> usize {
    const CLOEXEC: u32 = OFlags::CLOEXEC.bits();
    let is_inherited = |entry: &DirEntry| {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        // A handle may be closed by now.
        let facts = fs::read_to_string(entry.path()).unwrap_or_default();
        let flags = facts.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        number.is_some_and(|number| number > 2) && flags.is_some_and(|flags| flags & CLOEXEC == 0)
    };
    fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten().filter(is_inherited).count()
}

/// How many writers these handles are enough for.
pub(super) fn writers(handles: usize) -> usize {
    handles.saturating_sub(WITHOUT_WRITERS) / A_WRITER
}

/// Open handles of folders `tenant/country`.
#[derive(Debug)]
pub(super) struct Folders {
    open: RwLock<HashMap<String, Arc<OwnedFd>>>,
    /// Of these, and as many again in the batch that is being put in place.
    pub(super) at_most: usize,
}

impl Folders {
    /// Folders for a process that may have this many handles.
    pub(super) fn within(handles: usize) -> Self {
        Self { open: RwLock::default(), at_most: (handles.saturating_sub(RESERVED) / 2).clamp(1, MOST_FOLDERS) }
    }

    /// The open handle of a folder, if there is one.
    pub(super) fn get(&self, folder: &str) -> Option<Arc<OwnedFd>> {
        // The map is whole after every statement, so a thread that panicked leaves it usable.
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(folder).map(Arc::clone)
    }

    /// Keeps a handle open. Where there are too many, all others are closed.
    pub(super) fn keep(&self, folder: &str, handle: &Arc<OwnedFd>) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= self.at_most {
            open.clear();
        }
        open.insert(folder.to_owned(), Arc::clone(handle));
    }

    /// Closes the handle of a folder.
    pub(super) fn forget(&self, folder: &str) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(folder);
    }

    /// Takes a handle. Where none is left, for this process or on the whole machine, the folders are closed first.
    pub(super) fn with_room<T>(&self, take: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        match take() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.open.write().unwrap_or_else(PoisonError::into_inner).clear();
                take()
            }
            result => result,
        }
    }
}

/// Whether an error is that no handle is left.
pub(super) fn is_out_of_handles(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
