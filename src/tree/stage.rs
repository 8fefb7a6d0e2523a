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
use serde_json::{Value, json};

use super::name::TreePath;
use super::publish::make;
use super::{Durability, PRIVATE, Tree};
use crate::invoice::InvoiceId;

const FOLDER: &str = "staging";
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
    pub(super) durability: Durability,
}

/// A document that lies in staging under a number.
#[derive(Debug)]
pub struct Staged(u64);

impl Staged {
    /// Long, because a file system compares each name of a block, and of long ones it has fewer.
    pub(super) fn file(&self) -> String {
        format!("{:0>48}", self.0)
    }
}

impl Stage {
    /// Makes an empty staging folder. What a dead run left must have been taken over before.
    pub fn create(tree: &Tree, durability: Durability) -> anyhow::Result<Self> {
        let path = folder(tree.output());
        remove(tree.output())?;
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        let handle = super::open_beneath(&tree.root, &format!("{PRIVATE}/{FOLDER}"))
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Self { path, handle, folders: Default::default(), next: AtomicU64::new(0), durability })
    }

    /// Writes a document under the next number; any number of threads may do so.
    pub fn write(&self, document: &[u8]) -> anyhow::Result<Staged> {
        let staged = Staged(self.next.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || {
            let folder = self.folder(&staged)?;
            let mut file = File::from(rustix::fs::openat(folder, staged.file(), flags, Mode::from_raw_mode(0o666))?);
            file.write_all(document)?;
            if self.durability == Durability::File {
                file.sync_all()?;
            }
            Ok::<_, std::io::Error>(())
        };
        write().with_context(|| format!("write {}/{}", self.path.display(), staged.file()))?;
        Ok(staged)
    }

    /// The folder of a document.
    pub(super) fn folder(&self, staged: &Staged) -> io::Result<&OwnedFd> {
        let n = (staged.0 % FOLDERS as u64) as usize;
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
        if let Ok(folder) = self.folder(staged) {
            let _ = rustix::fs::unlinkat(folder, staged.file(), AtFlags::empty());
        }
    }

    /// Writes the list of a batch's targets: the invoice and the path of each file. The last line says
    /// that the list is whole.
    pub(super) fn write_list<'a>(
        &self,
        targets: impl Iterator<Item = (&'a InvoiceId, &'a TreePath)>,
    ) -> anyhow::Result<File> {
        let mut text = String::new();
        for (id, path) in targets {
            text.push_str(&json!([id.as_str(), path.as_str()]).to_string());
            text.push('\n');
        }
        text.push_str("end\n");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || {
            let mut file = File::from(rustix::fs::openat(&self.handle, LIST, flags, Mode::from_raw_mode(0o666))?);
            file.write_all(text.as_bytes())?;
            Ok::<_, std::io::Error>(file)
        };
        write().with_context(|| format!("write {}/{LIST}", self.path.display()))
    }

    /// The batch is recorded: nothing of it is in doubt any more.
    pub fn drop_list(&self) -> anyhow::Result<()> {
        match rustix::fs::unlinkat(&self.handle, LIST, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("remove {}/{LIST}", self.path.display())),
        }
    }
}

/// What a dead run may have published without recording it. Empty if its list is not whole: it is
/// durable before the first rename, so then there was none.
pub fn left_in_doubt(output: &Path) -> anyhow::Result<Vec<(InvoiceId, TreePath)>> {
    let list = folder(output).join(LIST);
    let text = match fs::read(&list) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", list.display())),
    };
    let text = String::from_utf8_lossy(&text);
    match text.strip_suffix("end\n") {
        Some(lines) => {
            lines.lines().map(|line| target(line).with_context(|| format!("read {}", list.display()))).collect()
        }
        None => Ok(Vec::new()),
    }
}

fn target(line: &str) -> anyhow::Result<(InvoiceId, TreePath)> {
    let value: Value = serde_json::from_str(line)?;
    let text = |at: usize| value.get(at).and_then(Value::as_str);
    let path = text(1).and_then(TreePath::parse);
    text(0).map(InvoiceId::from).zip(path).with_context(|| format!("impossible line {line:?}"))
}

/// Removes the staging folder with everything in it.
pub fn remove(output: &Path) -> anyhow::Result<()> {
    let path = folder(output);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn folder(output: &Path) -> PathBuf {
    output.join(PRIVATE).join(FOLDER)
}
