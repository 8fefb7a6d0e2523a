//! What makes a batch durable, one sync after the other.
//!
//! A disk that fails to keep something says so once, to whoever asks first, and two batches are on their way
//! at a time: the sync of one may be told what befell the other. So syncs take turns, and after one that
//! failed none succeeds. Kernels before 5.17 report some errors of `syncfs` only to a `fsync` after it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use rustix::io::Errno;

use super::name::TreePath;
use super::stage::Stage;
use super::{Durability, PRIVATE, Tree, open_beneath, open_file};

/// Up to so many folders are synced one by one, which leaves alone what other programs have not written back
/// yet. Each waits for the journal, and where there is none for the disk itself: a full export over 1,000
/// tenants took twice as long so (BENCHMARKS.md).
const FOLDERS_ONE_BY_ONE: usize = 8;

const WRITTEN_AGAIN: &str = "the run ends here, the next one writes its files again";

/// What the first sync that failed was told.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Option<Errno>>);

impl Turns {
    fn take(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        // A thread that panicked ends the run.
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(errno) = *failed {
            return Err(errno.into());
        }
        let result = sync();
        *failed = result.as_ref().err().map(|error| Errno::from_io_error(error).unwrap_or(Errno::IO));
        result
    }
}

impl Tree {
    /// Makes staged documents, their list and adopted files durable.
    pub(super) fn sync_staged(&self, stage: &Stage, list: &File, adopted: &[TreePath]) -> anyhow::Result<()> {
        let sync = || {
            match stage.durability {
                Durability::Batch => rustix::fs::syncfs(&self.root)?,
                Durability::File => {
                    for path in adopted {
                        let folder = self.folder(path.folder())?.ok_or(Errno::NOENT)?;
                        open_file(&folder, path.file())?.sync_all()?;
                    }
                    rustix::fs::fsync(&stage.handle)?;
                    rustix::fs::fsync(open_beneath(&self.root, PRIVATE)?)?;
                }
            }
            list.sync_all()
        };
        self.turns
            .take(sync)
            .context("sync the staged files to disk; the run ends here, the next one writes them again")
    }

    /// Makes the names in folders durable. `""` is the output itself.
    pub(super) fn sync_folders(&self, touched: &BTreeSet<String>, durability: Durability) -> anyhow::Result<()> {
        if durability == Durability::Batch && touched.len() > FOLDERS_ONE_BY_ONE {
            let sync = || {
                rustix::fs::syncfs(&self.root)?;
                Ok(rustix::fs::fsync(&self.root)?)
            };
            let what = || format!("sync {} folders to disk; {WRITTEN_AGAIN}", touched.len());
            return self.turns.take(sync).with_context(what);
        }
        for folder in touched {
            let what = || format!("sync the folder {folder:?} to disk; {WRITTEN_AGAIN}");
            self.turns.take(|| self.sync_folder(folder)).with_context(what)?;
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        match folder {
            "" => rustix::fs::fsync(&self.root)?,
            tenant if !tenant.contains('/') => rustix::fs::fsync(open_beneath(&self.root, tenant)?)?,
            folder => rustix::fs::fsync(&*self.folder(folder)?.ok_or(Errno::NOENT)?)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_sync_that_failed_nobody_is_told_that_all_is_well() {
        let turns = Turns::default();
        turns.take(|| Ok(())).unwrap();
        turns.take(|| Err(Errno::NOSPC.into())).unwrap_err();
        let refused = turns.take(|| Ok(())).unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::NOSPC));
    }
}
