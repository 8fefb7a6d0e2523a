//! An open output: what its paths hold, and the folders in it that are kept open.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::handles::{self, Folders};
use super::name::TreePath;
use super::sync_gate::SyncGate;
use crate::fs::inherit::{Acl, Inherited};
use crate::fs::private::{PRIVATE, PrivateFolder};
use crate::fs::{digest_of, kind, open_beneath, open_file};
use crate::invoice::Digest;
use crate::lang::Explain;

words! {
    /// How a published file is made to survive a power cut.
    pub enum Durability {
        /// One `syncfs` for a batch of files, and one for their names.
        Batch = "batch", "批量";
        /// One `fsync` for each file and each folder, and one for a new file after them: for old kernels and foreign
        /// mounts.
        File = "file", "逐个文件";
    }
}

/// An open output folder.
#[derive(Debug)]
pub struct Tree {
    pub(super) output: PathBuf,
    /// Opened once: it is also the handle of `syncfs`, which reports an error once per handle.
    pub(super) root: OwnedFd,
    pub(super) sync_gate: SyncGate,
    /// How many handles this process may have.
    pub(super) handles: usize,
    pub(super) folders: Arc<Folders>,
    /// Folders that were not there when they were first looked for.
    new_folders: RwLock<HashMap<String, NewFolder>>,
}

/// A folder that holds only what this run puts into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewFolder {
    /// It was missing when it was looked for.
    Missing,
    /// This run created it.
    Made,
}

/// What a path holds, compared with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileComparison {
    Nothing,
    /// A file with exactly these bytes.
    Same,
    /// A file with other bytes, or a symlink, which is replaced and never followed.
    Other,
    /// A folder, a device, a pipe: not to be replaced.
    Blocked,
}

/// What a path holds, without its content.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub is_file: bool,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
    /// Permission bits.
    pub mode: u32,
    pub owner: u32,
    pub group: u32,
    /// What a new file would have got from the folder.
    pub due: Due,
}

/// The group and the permissions that a file is due for its folder.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// None where that of the process counts.
    pub group: Option<u32>,
    /// Permission bits.
    pub mode: u32,
    /// Whether its access control list is the due one, as far as it can be read.
    pub has_acl: bool,
}

impl Tree {
    /// Opens the output, which must exist.
    pub fn open(output: &Path) -> anyhow::Result<Self> {
        let handles = handles::claim()?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, output, flags, Mode::empty()).map_err(io::Error::from);
        let root = root.explain(|| text!("cannot open the output {}", "无法打开输出目录 {}", output.display()))?;
        Ok(Self {
            output: output.to_path_buf(),
            root,
            sync_gate: SyncGate::default(),
            handles,
            folders: Arc::new(Folders::within(handles)),
            new_folders: RwLock::default(),
        })
    }

    /// Opens the output, if there is one.
    pub fn open_existing(output: &Path) -> anyhow::Result<Option<Self>> {
        let exists = output.try_exists();
        if exists.explain(|| text!("cannot look for the output {}", "无法查找输出目录 {}", output.display()))? {
            Self::open(output).map(Some)
        } else {
            Ok(None)
        }
    }

    /// How files are made durable on this file system.
    pub fn durability(&self) -> anyhow::Result<Durability> {
        let output = self.output.display();
        let file_system = rustix::fs::fstatfs(&self.root)
            .map_err(io::Error::from)
            .explain(|| text!("cannot look at the file system of {output}", "无法查看 {output} 所在的文件系统"))?;
        Ok(if kind::has_syncfs(&file_system) { Durability::Batch } else { Durability::File })
    }

    /// `.export_state` of this output, created where it is missing.
    pub fn create_private_folder(&self) -> anyhow::Result<PrivateFolder> {
        PrivateFolder::create_in_output(&self.root, &self.output)
    }

    /// How many threads may look at files and write them at a time, for lack of handles.
    pub fn most_writers(&self) -> usize {
        handles::writers(self.handles)
    }

    /// The path of the output, as the operator named it.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// Whether a regular file of this size lies at the path.
    pub fn has_file(&self, path: &TreePath, size: u64) -> io::Result<bool> {
        let Some(folder) = self.folder(path.folder())? else { return Ok(false) };
        match rustix::fs::statat(&*folder, path.file(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_size.cast_unsigned() == size),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What can be told of a path without reading the file; None if nothing lies there.
    pub fn inspect(&self, path: &TreePath) -> io::Result<Option<Facts>> {
        let Some(folder) = self.folder(path.folder())? else { return Ok(None) };
        match rustix::fs::statat(&*folder, path.file(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Facts {
                is_file: FileType::from_raw_mode(stat.st_mode).is_file(),
                size: stat.st_size.cast_unsigned(),
                modified: stat.st_mtime,
                mode: stat.st_mode & 0o7777,
                owner: stat.st_uid,
                group: stat.st_gid,
                due: self.due(&folder, path)?,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Files and folders are made under one umask, so a file permits others what its folder does, or its ACL says.
    fn due(&self, folder: &OwnedFd, path: &TreePath) -> io::Result<Due> {
        let Inherited { group, acl } = Inherited::from_folder(folder)?;
        let Some(acl) = acl else {
            let mode = rustix::fs::fstat(folder)?.st_mode & 0o066 | 0o600;
            return Ok(Due { group, mode, has_acl: true });
        };
        let file = self.folders.with_room(|| open_file(folder, path.file()));
        let found = file.ok().and_then(|file| Acl::of_file(&file).ok());
        let (mode, acl) = (acl.mode(), Some(acl).filter(|acl| !acl.is_mode()));
        Ok(Due { group, mode, has_acl: found.is_none_or(|found| found == acl) })
    }

    /// The user who exports into this tree. The output itself may have been made by another one.
    pub fn owner(&self) -> io::Result<u32> {
        match rustix::fs::statat(&self.root, PRIVATE, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(rustix::fs::fstat(&self.root)?.st_uid),
            stat => Ok(stat?.st_uid),
        }
    }

    /// Whether the folder of a path was missing, so that only this run has put files into it.
    pub fn is_in_new_folder(&self, path: &TreePath) -> bool {
        self.new_folders().contains_key(path.folder())
    }

    pub(super) fn new_folders(&self) -> RwLockReadGuard<'_, HashMap<String, NewFolder>> {
        // The map is whole after every statement, so a thread that panicked leaves it usable.
        self.new_folders.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new_folders_mut(&self) -> RwLockWriteGuard<'_, HashMap<String, NewFolder>> {
        self.new_folders.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares the file at a path with a document. A folder that is missing is looked for once.
    pub fn compare(&self, path: &TreePath, document: &[u8]) -> io::Result<FileComparison> {
        if self.is_in_new_folder(path) {
            return Ok(FileComparison::Nothing);
        }
        let Some(folder) = self.folder(path.folder())? else {
            self.new_folders_mut().entry(path.folder().to_owned()).or_insert(NewFolder::Missing);
            return Ok(FileComparison::Nothing);
        };
        let mut file = match self.folders.with_room(|| open_file(&folder, path.file())) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(FileComparison::Nothing),
            Err(Errno::LOOP) => return Ok(FileComparison::Other),
            // A socket, or a device without a driver.
            Err(Errno::NXIO) => return Ok(FileComparison::Blocked),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(FileComparison::Blocked);
        }
        if metadata.len() != document.len() as u64 {
            return Ok(FileComparison::Other);
        }
        let mut present = Vec::with_capacity(document.len());
        file.read_to_end(&mut present)?;
        Ok(if present == document { FileComparison::Same } else { FileComparison::Other })
    }

    /// The digest of the file at a path; None where there is none.
    ///
    /// # Errors
    /// Anything else than a file is an error.
    pub fn digest(&self, path: &TreePath) -> io::Result<Option<Digest>> {
        let Some(folder) = self.folder(path.folder())? else { return Ok(None) };
        match self.folders.with_room(|| open_file(&folder, path.file())) {
            Ok(file) => digest_of(file).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// An open handle of `tenant/country`; None if there is no such folder.
    pub(super) fn folder(&self, folder: &str) -> io::Result<Option<Arc<OwnedFd>>> {
        if let Some(open) = self.folders.get(folder) {
            return Ok(Some(open));
        }
        let handle = match self.folders.with_room(|| open_beneath(&self.root, folder)) {
            Ok(handle) => Arc::new(handle),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.folders.keep(folder, &handle);
        Ok(Some(handle))
    }

    /// Forgets a folder that was moved away or replaced.
    pub(super) fn forget_folder(&self, folder: &str) {
        self.folders.forget(folder);
        self.new_folders_mut().remove(folder);
    }
}
