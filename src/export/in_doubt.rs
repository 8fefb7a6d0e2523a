//! Owns what a run that died left in doubt: the paths at which it may have written, and the invoices that may have lost
//! their file. Its lists in staging say so, and later the state does. The next run settles it. Of a run at work the same
//! is in doubt until it has recorded its batch.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::invoice::{Digest, InvoiceId};
use crate::lang::Text;
use crate::run::RunId;
use crate::state::State;
use crate::state::ledger::Entry;
use crate::tree::Tree;
use crate::tree::name::TreePath;
use crate::tree::stage::{self, Unrecorded, Writer};

/// Everything that is in doubt.
#[derive(Clone, Debug, Default)]
pub struct InDoubt {
    paths: HashMap<TreePath, DoubtedFile>,
    movers: HashSet<InvoiceId>,
    writer: Writer,
    /// The run that died, or is at work; None: it is not known which.
    run: Option<RunId>,
}

/// A path at which a dead run may have written.
#[derive(Clone, Debug, Default)]
struct DoubtedFile {
    /// The invoices that it may have written there.
    writers: Vec<InvoiceId>,
    /// Of the documents that may lie there.
    digests: Vec<Digest>,
}

/// Whether the run in doubt is to blame for a file that differs from the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    NotTheRun,
    Perhaps,
    /// The file holds the document that the run was to write.
    ItsDocument,
}

impl InDoubt {
    /// What the lists in staging say, and what the state has on record.
    pub fn of(unrecorded: Unrecorded, writer: Writer, state: &State) -> anyhow::Result<Self> {
        let last = state.last_time()?;
        let has_lists = unrecorded != Unrecorded::default();
        let unfinished = Some(RunId(last.last_run)).filter(|_| has_lists && last.last_run_is_open);
        let run = unfinished.map_or_else(|| state.run_that_left_doubt(), |run| Ok(Some(run)))?;
        let mut paths: HashMap<TreePath, DoubtedFile> = HashMap::new();
        for (path, doubted) in state.doubted_paths()? {
            let file = paths.entry(path).or_default();
            file.writers.extend(doubted.writer);
            file.digests.extend(doubted.contents.iter().map(|content| content.digest));
        }
        let Unrecorded { targets, movers } = unrecorded;
        for target in targets {
            let file = paths.entry(target.path).or_default();
            file.writers.push(target.id);
            file.digests.extend(target.digest);
        }
        Ok(Self { paths, movers: movers.into_iter().collect(), writer, run })
    }

    /// The same for a command that does not hold the lock.
    pub fn read(output: &Path, state: &State) -> anyhow::Result<Self> {
        let (unrecorded, writer) = stage::unrecorded_without_lock(output)?;
        Self::of(unrecorded, writer, state)
    }

    pub fn judge(&self, entry: &Entry, tree: &Tree) -> Blame {
        match self.paths.get(&entry.path) {
            Some(file) => match tree.digest(&entry.path) {
                Ok(Some(digest)) if file.digests.contains(&digest) => Blame::ItsDocument,
                _ => Blame::Perhaps,
            },
            None if self.movers.contains(&entry.id) => Blame::Perhaps,
            None => Blame::NotTheRun,
        }
    }

    /// The invoices that may have been written to a path; None: it is not in doubt.
    pub fn writers_at(&self, path: &TreePath) -> Option<&[InvoiceId]> {
        self.paths.get(path).map(|file| file.writers.as_slice())
    }

    /// All invoices that may have been written or may have lost their file.
    pub fn invoices(&self) -> HashSet<InvoiceId> {
        let writers = self.paths.values().flat_map(|file| &file.writers);
        writers.chain(&self.movers).cloned().collect()
    }

    /// How many files a run that died has left in doubt.
    pub fn files(&self) -> u64 {
        match self.writer {
            Writer::Died => self.paths.len() as u64 + self.movers.len() as u64,
            Writer::AtWork => 0,
        }
    }

    /// The invoices that the dead run may have written to such paths.
    pub fn writers(&self, is_asked: impl Fn(&TreePath) -> bool) -> Vec<InvoiceId> {
        let asked = self.paths.iter().filter(|(path, _)| is_asked(path));
        asked.flat_map(|(_, file)| file.writers.iter().cloned()).collect()
    }

    /// The path at which the dead run may have written this invoice.
    pub fn path_of(&self, id: &InvoiceId) -> Option<&TreePath> {
        self.paths.iter().find(|(_, file)| file.writers.contains(id)).map(|(path, _)| path)
    }

    /// Added to what differs, so that it is not taken for tampering.
    pub fn excuse(&self) -> Text {
        let run = self.dead_run();
        text!("{run} may have changed it, and the next run settles it", "可能是{run}所为，下次运行会重新确认"; run)
    }

    /// Why a file is in doubt.
    pub fn cause(&self) -> Text {
        let run = match self.writer {
            Writer::Died => self.dead_run(),
            Writer::AtWork => self.run.map_or_else(
                || text!("a run at work", "正在进行的运行"),
                |run| text!("run {run}, which is at work,", "正在进行的运行 {run} "),
            ),
        };
        text!(
            "its file is in doubt: {run} may have written or removed it and has not recorded that",
            "文件待确认: {run}可能已写入或删除它，但尚未登记"; run
        )
    }

    /// When it is settled.
    pub fn remedy(&self) -> Text {
        match self.writer {
            Writer::Died => text!(
                "the next run settles it: it reads the invoice again, whatever its window",
                "下次运行会重新读取这张发票并确认，不论时间区间"
            ),
            Writer::AtWork => text!("ask again when the run has ended", "请在该运行结束后重新查询"),
        }
    }

    fn dead_run(&self) -> Text {
        match self.run {
            Some(run) => text!("run {run}, which died,", "意外终止的运行 {run} "),
            None => text!("a run that died", "意外终止的运行"),
        }
    }
}
