//! What makes a batch durable, one sync after the other.
//!
//! A disk that fails to keep something says so once, and two batches are on their way at a time: the sync of
//! one may be told what befell the other. So syncs take turns, and after one that failed none succeeds.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;

use anyhow::Context;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::name::TreePath;
use super::stage::Stage;
use super::{Durability, Tree};
use crate::fs::{create_file, open_beneath, open_file};

/// The file of `sync_a_new_file`, in staging.
const LAST: &str = "last";

/// What the first sync that failed was told.
#[derive(Debug, Default)]
pub(super) struct SyncGate(Mutex<Option<(ErrorKind, String)>>);

impl SyncGate {
    fn pass(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let panicked = |_| io::Error::other("another sync ended in a panic, which is a bug");
        let mut failed = self.0.lock().map_err(panicked)?;
        if let Some((kind, error)) = &*failed {
            return Err(io::Error::new(*kind, format!("another sync failed: {error}")));
        }
        let result = sync();
        *failed = result.as_ref().err().map(|error| (error.kind(), error.to_string()));
        result
    }
}

impl Tree {
    /// Makes staged documents, their list and adopted files durable.
    pub(super) fn sync_staged(&self, stage: &Stage, list: &File, adopted: &[TreePath]) -> anyhow::Result<()> {
        let sync = || match stage.durability {
            Durability::Batch => self.sync_file_system(list),
            Durability::File => {
                for path in adopted {
                    self.sync_file(path).map_err(|error| at(path, &error))?;
                }
                sync_if_known(&stage.handle)?;
                sync_if_known(stage.private.handle())?;
                list.sync_all()
            }
        };
        self.sync_gate
            .pass(sync)
            .context("cannot sync the staged files to disk; the run ends here, the next one writes them again")
    }

    /// Makes the names in these folders durable, and that the files have them: without a journal ext4 keeps the
    /// number of a file's names with the file, which a sync of the folder leaves out. `""` is the output itself.
    pub(super) fn sync_names(&self, stage: &Stage, list: &File, touched: &BTreeSet<String>) -> anyhow::Result<()> {
        let sync = || match stage.durability {
            Durability::Batch => self.sync_file_system(list),
            // Each of these files has had a name since it was made.
            Durability::File => {
                for folder in touched {
                    self.sync_folder(folder).map_err(|error| at(self.output.join(folder).display(), &error))?;
                }
                stage.sync_a_new_file()
            }
        };
        self.sync_gate
            .pass(sync)
            .context("cannot sync the folders to disk; the run ends here, the next one writes its files again")
    }

    /// The list is a witness. Before Linux 5.17 `syncfs` keeps some errors to itself, and on a file system that
    /// has turned read-only it always does; and without a journal ext4 empties the cache of the disk before it
    /// has written everything. The sync of a file, unlike that of a folder on XFS, tells, and empties it once more.
    fn sync_file_system(&self, list: &File) -> io::Result<()> {
        rustix::fs::syncfs(&self.root)?;
        list.sync_all()
    }

    fn sync_file(&self, path: &TreePath) -> io::Result<()> {
        let folder = self.folder(path.folder())?.ok_or(Errno::NOENT)?;
        self.folders.with_room(|| open_file(&folder, path.file()))?.sync_all()
    }

    /// A folder that is gone has no names to keep.
    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        match folder {
            "" => sync_if_known(&self.root),
            tenant if !tenant.contains('/') => match self.folders.with_room(|| open_beneath(&self.root, tenant)) {
                Err(Errno::NOENT) => Ok(()),
                tenant => sync_if_known(tenant?),
            },
            folder => self.folder(folder)?.map_or(Ok(()), |folder| sync_if_known(&*folder)),
        }
    }
}

impl Stage {
    /// Stands for folders that cannot be synced. A new file gets into the log of a file system after all that was
    /// named and removed before it, and its sync writes the log up to there.
    fn sync_a_new_file(&self) -> io::Result<()> {
        let mut file = create_file(&self.handle, LAST)?;
        file.write_all(b"all names of the batch are given\n")?;
        file.sync_all()?;
        Ok(rustix::fs::unlinkat(&self.handle, LAST, AtFlags::empty())?)
    }
}

/// Many servers of FUSE, and some of others, do not know the sync of a folder. Most say that all is well.
fn sync_if_known(folder: impl AsFd) -> io::Result<()> {
    match rustix::fs::fsync(folder) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        result => Ok(result?),
    }
}

/// The kind stays, since what to do about it depends on that.
fn at(place: impl Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{place}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_sync_that_failed_nobody_is_told_that_all_is_well() {
        let sync_gate = SyncGate::default();
        sync_gate.pass(|| Ok(())).unwrap();
        let error = sync_gate.pass(|| Err(Errno::NOSPC.into())).unwrap_err();
        let refused = sync_gate.pass(|| Ok(())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
        assert_eq!(refused.to_string(), format!("another sync failed: {error}"));
    }
}
