//! Staging: where documents are written before they are published, and the list of where they go.
//!
//! The list is durable before the first file of a batch is renamed. A run that dies leaves it behind,
//! and the next one knows from it which files and which invoices are in doubt.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde_json::Value;

use super::name::TreePath;
use super::nameless::{self, Handle, Nameless};
use super::publish::{Placement, Published, Synced, make};
use super::{Durability, PRIVATE, Tree, remove_folder};
use crate::invoice::{Digest, InvoiceId};

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
    pub(super) handle: OwnedFd,
    /// Made when they are needed, which in most runs is never.
    folders: [OnceLock<OwnedFd>; FOLDERS],
    next: AtomicU64,
    /// Found out when it is needed.
    nameless: OnceLock<Nameless>,
    /// How many this process may have.
    handles: usize,
    lists: AtomicU64,
    pub(super) durability: Durability,
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
pub struct Staged {
    number: u64,
    nameless: Option<Handle>,
}

impl Staged {
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

/// The list of a batch's targets.
#[derive(Debug)]
pub(super) struct List {
    pub file: File,
    pub name: String,
}

impl Stage {
    /// Makes an empty staging folder. What a dead run left must have been taken over before.
    pub fn create(tree: &Tree, durability: Durability) -> anyhow::Result<Self> {
        let path = folder(tree.output());
        remove(tree.output())?;
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let handle = super::open_beneath(&tree.root, &format!("{PRIVATE}/{FOLDER}"))
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self {
            handles: nameless::make_room(&handle),
            path,
            handle,
            folders: Default::default(),
            next: AtomicU64::new(0),
            nameless: OnceLock::new(),
            lists: AtomicU64::new(0),
            durability,
        })
    }

    /// Writes a document; any number of threads may do so.
    pub fn write(&self, document: &[u8], naming: Naming) -> anyhow::Result<Staged> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let write = || {
            let nameless = match naming {
                // What a sync of its own does for a file without a name was not tried.
                Naming::AtTheEnd if self.durability == Durability::Batch => {
                    self.nameless().write(&self.handle, document)?
                }
                _ => None,
            };
            let staged = Staged { number, nameless };
            if staged.nameless.is_none() {
                self.write_named(&staged, document)?;
            }
            Ok::<_, io::Error>(staged)
        };
        write().with_context(|| format!("cannot write to {}", self.path.display()))
    }

    fn write_named(&self, staged: &Staged, document: &[u8]) -> io::Result<()> {
        let file = write_new(self.folder(staged)?, &staged.file(), document)?;
        if self.durability == Durability::File {
            file.sync_all()?;
        }
        Ok(())
    }

    fn nameless(&self) -> &Nameless {
        self.nameless.get_or_init(|| Nameless::find_out(&self.handle, self.handles))
    }

    /// Puts a document where it goes, in the place of whatever file is there.
    pub(super) fn put(&self, staged: &Staged, folder: &OwnedFd, name: &str) -> io::Result<()> {
        if let Some(handle) = &staged.nameless {
            match handle.link(folder, name) {
                Err(Errno::EXIST) => handle.link(self.folder(staged)?, &staged.file())?,
                result => return Ok(result?),
            }
        }
        Ok(rustix::fs::renameat(self.folder(staged)?, staged.file(), folder, name)?)
    }

    /// The folder of a document.
    fn folder(&self, staged: &Staged) -> io::Result<&OwnedFd> {
        let n = (staged.number % FOLDERS as u64) as usize;
        if let Some(folder) = self.folders[n].get() {
            return Ok(folder);
        }
        // Another thread may have been faster.
        make(rustix::fs::mkdirat(&self.handle, n.to_string(), Mode::from_raw_mode(0o777)))?;
        let folder = super::open_beneath(&self.handle, &n.to_string())?;
        Ok(self.folders[n].get_or_init(|| folder))
    }

    /// Takes back a document that is not published after all. A file that stays is removed with the
    /// folder.
    pub fn discard(&self, staged: &Staged) {
        if staged.nameless.is_none()
            && let Ok(folder) = self.folder(staged)
        {
            let _ = rustix::fs::unlinkat(folder, staged.file(), AtFlags::empty());
        }
    }

    /// Writes the list of a batch's targets: the invoice, the path and the SHA-256 of each file. The last line says
    /// that the list is whole.
    pub(super) fn write_list<'a>(&self, targets: impl Iterator<Item = &'a Placement>) -> anyhow::Result<List> {
        let name = format!("{LIST}-{}", self.lists.fetch_add(1, Ordering::Relaxed));
        let mut text = String::new();
        for Placement { id, path, digest, .. } in targets {
            let target = (id.as_str(), path.as_str(), digest.to_string());
            text.push_str(&serde_json::to_string(&target).context("cannot write a target as JSON")?);
            text.push('\n');
        }
        text.push_str("end\n");
        let file = write_new(&self.handle, &name, text.as_bytes())
            .with_context(|| format!("cannot write {}/{name}", self.path.display()))?;
        Ok(List { file, name })
    }

    /// The batch is recorded: nothing of it is in doubt any more.
    pub fn drop_list(&self, published: &Published) -> anyhow::Result<()> {
        let Some(list) = published.list() else { return Ok(()) };
        match rustix::fs::unlinkat(&self.handle, list, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot remove {}/{list}", self.path.display())),
        }
    }

    /// Nothing of the batch was put in place, nor will be. If its list stays, the next run looks after files
    /// that nobody has touched.
    pub fn withdraw_list(&self, synced: &Synced) {
        let _ = rustix::fs::unlinkat(&self.handle, synced.list(), AtFlags::empty());
    }
}

/// Writes a file that must not be there yet.
pub(super) fn write_new(folder: &OwnedFd, name: &str, content: &[u8]) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o666))?);
    file.write_all(content)?;
    Ok(file)
}

/// What a dead run may have published without recording it. Nothing of a list that is not whole: it is
/// durable before the first file gets its place, so then there was none.
pub fn left_in_doubt(output: &Path) -> anyhow::Result<Vec<Target>> {
    let folder = folder(output);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    let entries = entries.with_context(|| format!("cannot read {}", folder.display()))?;
    let is_list =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(LIST.as_bytes()));
    let mut lists: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).filter(is_list).collect();
    // The later list knows who wrote a path last. A longer number is a greater one.
    lists.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    let mut targets = Vec::new();
    for list in lists {
        targets.extend(read_list(&list).with_context(|| format!("cannot read {}", list.display()))?);
    }
    Ok(targets)
}

fn read_list(list: &Path) -> anyhow::Result<Vec<Target>> {
    let text = fs::read(list)?;
    let text = String::from_utf8_lossy(&text);
    text.strip_suffix("end\n").map_or(Ok(Vec::new()), |lines| lines.lines().map(target).collect())
}

fn target(line: &str) -> anyhow::Result<Target> {
    let value: Value = serde_json::from_str(line)?;
    let text = |at: usize| value.get(at).and_then(Value::as_str);
    let path = text(1).and_then(TreePath::parse);
    let target = text(0).map(InvoiceId::from).zip(path);
    let (id, path) = target.with_context(|| format!("impossible line {line:?}"))?;
    Ok(Target { id, path, digest: text(2).and_then(Digest::parse) })
}

/// Removes the staging folder with everything in it.
pub fn remove(output: &Path) -> anyhow::Result<()> {
    remove_folder(&folder(output))
}

fn folder(output: &Path) -> PathBuf {
    output.join(PRIVATE).join(FOLDER)
}
