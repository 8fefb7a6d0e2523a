//! The syncs that make a batch durable: of its documents, and of their names.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::name::TreePath;
use super::output::{Durability, Tree};
use super::stage::Stage;
use crate::fs::{create_file, open_beneath, open_file};
use crate::lang::Explain;

/// The file of `sync_a_new_file`, in staging.
const LAST: &str = "last";

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
        self.sync_gate.pass(sync).explain(|| {
            text!(
                "cannot sync the staged files to disk; the run ends here, the next one writes them again",
                "无法将暂存文件同步到磁盘；本次导出到此为止，下次会重新写入"
            )
        })
    }

    /// Makes the names in these folders durable, and that the files have them: without a journal ext4 keeps the
    /// number of a file's names with the file, which a sync of the folder leaves out. One `syncfs` is also faster: with
    /// a sync of each folder a full export over 1,000 tenants took twice as long. `""` is the output itself.
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
        self.sync_gate.pass(sync).explain(|| {
            text!(
                "cannot sync the folders to disk; the run ends here, the next one writes its files again",
                "无法将目录同步到磁盘；本次导出到此为止，下次会重新写入这些文件"
            )
        })
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
