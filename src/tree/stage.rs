//! Staging: where documents are written before they are published, and the list of where they go.
//!
//! The list is durable before the first file of a batch is renamed. A run that dies leaves it behind,
//! and the next one knows from it which files and which invoices are in doubt.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde_json::Value;

use super::handles::Folders;
use super::mark;
use super::name::TreePath;
use super::output::{Durability, Tree};
use super::tmpfile::{self, UnnamedFile, UnnamedFiles};
use crate::fs::inherit::Inherited;
use crate::fs::private::{FileAccess, PRIVATE, PrivateFolder};
use crate::fs::{create_file, create_folder_if_missing, open_beneath, open_file};
use crate::invoice::{Digest, InvoiceId};
use crate::lang::Explain;

const FOLDER: &str = "staging";
/// The lists' names begin like this; there may be two, since the next batch is published while one is
/// recorded.
const LIST: &str = "targets";
/// Documents are spread over this many folders: threads that write to one would wait for each other.
const FOLDERS: usize = 16;

/// The staging folder of this run.
#[derive(Debug)]
pub struct Stage {
    path: PathBuf,
    /// The folder around it.
    pub(super) private: Arc<PrivateFolder>,
    pub(super) handle: OwnedFd,
    /// Made when they are needed, which in most runs is never.
    folders: [OnceLock<OwnedFd>; FOLDERS],
    next: AtomicU64,
    /// Found out when it is needed.
    unnamed: OnceLock<UnnamedFiles>,
    /// How many open handles this process may have.
    handles: usize,
    /// Folders of the output that are closed where no handle is left.
    output_folders: Arc<Folders>,
    lists: AtomicU64,
    pub(super) durability: Durability,
    /// What staged files have from their folder.
    inherited: Inherited,
    /// Whether a run has said that files do not get what their folders hand down.
    pub(super) has_told: AtomicBool,
}

/// When a document gets a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// In staging; then it is moved.
    AtOnce,
    /// When it is published, if that is possible here.
    AtTheEnd,
}

/// A document that lies in staging under its number, if it has a name at all.
#[derive(Debug)]
pub struct StagedDocument {
    number: u64,
    unnamed: Option<UnnamedFile>,
}

impl StagedDocument {
    /// Long, because a file system compares each name of a block, and of long ones it has fewer. What tells
    /// them apart comes first.
    fn file(&self) -> String {
        format!("{:-<48}", self.number)
    }
}

/// A file that a batch puts in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub id: InvoiceId,
    pub path: TreePath,
    /// Of its document. None in a list that was written before lists held digests.
    pub digest: Option<Digest>,
}

/// What a dead run may have done without recording it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unrecorded {
    /// Files that it may have put in place.
    pub targets: Vec<Target>,
    /// Invoices that may have lost the file that the ledger names, because they were about to leave its path.
    pub movers: Vec<InvoiceId>,
}

/// The list of a batch's targets.
#[derive(Debug)]
pub(super) struct List {
    pub file: File,
    pub name: String,
}

impl Stage {
    /// Makes an empty staging folder. What a dead run left must have been taken over before.
    pub fn create(tree: &Tree, private: &Arc<PrivateFolder>, durability: Durability) -> anyhow::Result<Self> {
        let path = private.path_of(FOLDER);
        remove(private)?;
        private.create_folder(FOLDER).explain(|| text!("cannot create {}", "无法创建 {}", path.display()))?;
        let handle = open_beneath(private.handle(), FOLDER).map_err(|error| private.cannot_open(FOLDER, error))?;
        private.refuse_foreign_folder(FOLDER, &handle)?;
        tmpfile::grow_fd_table(&handle, tree.handles);
        let inherited =
            Inherited::from_folder(&handle).explain(|| text!("cannot look at {}", "无法查看 {}", path.display()))?;
        Ok(Self {
            inherited,
            has_told: AtomicBool::new(false),
            handles: tree.handles,
            output_folders: Arc::clone(&tree.folders),
            private: Arc::clone(private),
            path,
            handle,
            folders: Default::default(),
            next: AtomicU64::new(0),
            unnamed: OnceLock::new(),
            lists: AtomicU64::new(0),
            durability,
        })
    }

    /// Writes a document; any number of threads may do so.
    pub fn write(&self, document: &[u8], naming: Naming) -> anyhow::Result<StagedDocument> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let write = || {
            let unnamed = match naming {
                // What a sync of its own does for a file without a name was not tried.
                Naming::AtTheEnd if self.durability == Durability::Batch => {
                    self.unnamed().write(&self.handle, document)?
                }
                _ => None,
            };
            let staged = StagedDocument { number, unnamed };
            if staged.unnamed.is_none() {
                self.write_named(&staged, document)?;
            }
            Ok::<_, io::Error>(staged)
        };
        write().explain(|| text!("cannot write to {}", "无法写入 {}", self.path.display()))
    }

    fn write_named(&self, staged: &StagedDocument, document: &[u8]) -> io::Result<()> {
        let folder = self.folder(staged)?;
        let mut file = self.output_folders.with_room(|| create_file(folder, staged.file()))?;
        file.write_all(document)?;
        if self.durability == Durability::File {
            file.sync_all()?;
        }
        Ok(())
    }

    fn unnamed(&self) -> &UnnamedFiles {
        self.unnamed.get_or_init(|| UnnamedFiles::probe(&self.handle, self.handles))
    }

    /// Puts a document where it goes, in the place of the file that is there.
    pub(super) fn put(&self, staged: &StagedDocument, folder: &OwnedFd, name: &str) -> io::Result<()> {
        if let Some(handle) = &staged.unnamed {
            match handle.link(folder, name) {
                Err(Errno::EXIST) => handle.link(self.folder(staged)?, &staged.file())?,
                result => return Ok(result?),
            }
        }
        Ok(rustix::fs::renameat(self.folder(staged)?, staged.file(), folder, name)?)
    }

    /// What files get in a folder, if it is something else than they have from staging.
    pub(super) fn unlike_staging(&self, folder: &OwnedFd) -> io::Result<Option<Inherited>> {
        let inherited = Inherited::from_folder(folder)?;
        Ok(Some(inherited).filter(|inherited| *inherited != self.inherited))
    }

    /// Gives a document what its folder hands down, before it is there.
    pub(super) fn give(&self, staged: &StagedDocument, inherited: &Inherited) -> io::Result<()> {
        if let Some(unnamed) = &staged.unnamed {
            return inherited.give(unnamed.file(), &self.inherited);
        }
        let file = open_file(self.folder(staged)?, staged.file())?;
        inherited.give(&file, &self.inherited)?;
        if self.durability == Durability::File { file.sync_all() } else { Ok(()) }
    }

    /// The folder of a document.
    fn folder(&self, staged: &StagedDocument) -> io::Result<&OwnedFd> {
        let n = (staged.number % FOLDERS as u64) as usize;
        if let Some(folder) = self.folders[n].get() {
            return Ok(folder);
        }
        // Another thread may have been faster.
        create_folder_if_missing(&self.handle, n.to_string())?;
        let folder = self.output_folders.with_room(|| open_beneath(&self.handle, n.to_string()))?;
        Ok(self.folders[n].get_or_init(|| folder))
    }

    /// Takes back a document that is not published after all. A file that stays is removed with the
    /// folder.
    pub fn discard(&self, staged: &StagedDocument) {
        if staged.unnamed.is_none()
            && let Ok(folder) = self.folder(staged)
        {
            let _ = rustix::fs::unlinkat(folder, staged.file(), AtFlags::empty());
        }
    }

    /// Writes the list of a batch's targets: the invoice, the path and the SHA-256 of each file, and each invoice
    /// that has a file removed, alone. The last line says that the list is whole.
    pub(super) fn write_list<'a>(
        &self,
        targets: impl Iterator<Item = (&'a InvoiceId, &'a TreePath, Digest)>,
        movers: impl Iterator<Item = &'a InvoiceId>,
    ) -> anyhow::Result<List> {
        let name = format!("{LIST}-{}", self.lists.fetch_add(1, Ordering::Relaxed));
        let mut text = String::new();
        for (id, path, digest) in targets {
            let target = (id.as_str(), path.as_str(), digest.to_string());
            text.push_str(&serde_json::to_string(&target)?);
            text.push('\n');
        }
        for id in movers {
            text.push_str(&serde_json::to_string(&[id.as_str()])?);
            text.push('\n');
        }
        text.push_str("end\n");
        let created = self.output_folders.with_room(|| create_file(&self.handle, &name)).map_err(io::Error::from);
        let written = created.and_then(|mut file| file.write_all(text.as_bytes()).map(|()| file));
        let folder = self.path.display();
        let file = written.explain(|| text!("cannot write {folder}/{name}", "无法写入 {folder}/{name}"))?;
        Ok(List { file, name })
    }

    /// Removes the list of a batch, if it is there.
    pub(super) fn remove_list(&self, list: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.handle, list, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => Ok(removed?),
        }
    }
}

/// What a dead run may have published without recording it. Nothing of a list that is not whole: it is
/// durable before the first file gets its place, so then there was none.
pub fn unrecorded(private: &PrivateFolder) -> anyhow::Result<Unrecorded> {
    let mut unrecorded = Unrecorded::default();
    let Some(folder) = private.open_subfolder(FOLDER)? else { return Ok(unrecorded) };
    let mut lists = folder.names()?;
    lists.retain(|name| name.as_encoded_bytes().starts_with(LIST.as_bytes()));
    // The later list knows who wrote a path last. A longer number is a greater one.
    lists.sort_by_key(|name| (name.len(), name.clone()));
    for list in lists {
        let Some(file) = folder.open(&list, FileAccess::Read)? else { continue };
        let path = folder.path_of(&list);
        let read = read_list(file, &mut unrecorded);
        read.explain(|| text!("cannot read {}", "无法读取 {}", path.display()))?;
    }
    Ok(unrecorded)
}

/// The run that has left the lists in staging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writer {
    #[default]
    Died,
    /// It holds the lock, and goes on.
    AtWork,
}

/// The same without the lock. Whether the run has died, its lock says.
pub fn unrecorded_without_lock(output: &Path) -> anyhow::Result<(Unrecorded, Writer)> {
    let Some(private) = PrivateFolder::open_existing(&output.join(PRIVATE))? else { return Ok(Default::default()) };
    let unrecorded = unrecorded(&private)?;
    if unrecorded == Unrecorded::default() {
        return Ok(Default::default());
    }
    let lock = private.open(mark::FILE, FileAccess::Read)?;
    let is_at_work = lock.is_some_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)));
    Ok((unrecorded, if is_at_work { Writer::AtWork } else { Writer::Died }))
}

fn read_list(mut list: File, unrecorded: &mut Unrecorded) -> anyhow::Result<()> {
    let mut text = Vec::new();
    list.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.strip_suffix("end\n").unwrap_or_default().lines();
    lines.try_for_each(|line| read_line(line, unrecorded))
}

fn read_line(line: &str, unrecorded: &mut Unrecorded) -> anyhow::Result<()> {
    let value: Value = serde_json::from_str(line)?;
    let text = |at: usize| value.get(at).and_then(Value::as_str);
    let path = text(1).map(TreePath::parse);
    match (text(0).map(InvoiceId::from), path) {
        (Some(id), Some(Some(path))) => {
            unrecorded.targets.push(Target { id, path, digest: text(2).and_then(Digest::parse) });
        }
        (Some(id), None) => unrecorded.movers.push(id),
        _ => return Err(text!("impossible line {line:?}", "无效的行 {line:?}").into()),
    }
    Ok(())
}

/// Removes the staging folder with everything in it.
pub fn remove(private: &PrivateFolder) -> anyhow::Result<()> {
    private.remove_folder(FOLDER)
}
