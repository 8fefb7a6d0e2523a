//! Who may read the program's own files: the state with its log, its backups, and the lock.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawMode};
use rustix::io::Errno;

use super::private::PrivateFolder;
use crate::lang::{Explain, Text};

words! {
    /// The mode of these files.
    pub enum StateMode {
        Owner = "0600", "0600";
        Group = "0640", "0640";
        Everyone = "0644", "0644";
    }
}

/// The mode of files that only their owner may read.
pub const OWNER_ONLY: RawMode = 0o600;
const READ_BY_OTHERS: RawMode = 0o044;
/// Of a folder: its files get its group.
const SET_GROUP_ID: RawMode = 0o2000;

impl StateMode {
    pub fn bits(self) -> RawMode {
        match self {
            Self::Owner => OWNER_ONLY,
            Self::Group => 0o640,
            Self::Everyone => 0o644,
        }
    }

    /// The mode with which files are read like one with this mode.
    pub fn like(mode: RawMode) -> RawMode {
        mode & READ_BY_OTHERS | OWNER_ONLY
    }
}

impl PrivateFolder {
    /// Lets those who may read files with this mode find the files in the folder. What others may do beyond that stays.
    pub fn admit(&self, mode: RawMode) -> anyhow::Result<()> {
        let (before, read) = (self.mode()?, mode & READ_BY_OTHERS);
        let needed = before | read | read >> 2;
        if needed == before {
            return Ok(());
        }
        let changed = rustix::fs::fchmod(self.handle(), Mode::from_raw_mode(needed)).map_err(io::Error::from);
        changed.explain(|| cannot_change(self.path()))
    }

    /// The folder's group. Its members read the files in it that have a mode for it.
    pub fn group(&self) -> anyhow::Result<u32> {
        Ok(self.own_stat()?.st_gid)
    }

    /// A file in the folder, at any depth, that has another group, or a folder that hands down another one to new files.
    /// None: all that is there has this group. Where a file system hands down the group of every folder (the mount
    /// option `grpid`), a folder without the bit for that is named all the same.
    pub fn with_another_group(&self, group: u32) -> anyhow::Result<Option<PathBuf>> {
        let own = self.own_stat()?;
        let inherits = own.st_mode & SET_GROUP_ID != 0 || rustix::process::getegid().as_raw() == group;
        if own.st_gid != group || !inherits {
            return Ok(Some(self.path().to_path_buf()));
        }
        for name in self.names()? {
            let Some(stat) = self.stat(&name)? else { continue };
            let found = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => match name.to_str().map(|name| self.open_subfolder(name)).transpose()?.flatten()
                {
                    Some(folder) => folder.with_another_group(group)?,
                    None => None,
                },
                _ => (stat.st_gid != group).then(|| self.path_of(name)),
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Gives a file this mode, if it is there and ours. It is not opened: closing it would drop SQLite's locks on it.
    pub fn set_mode(&self, name: impl AsRef<Path>, mode: RawMode) -> anyhow::Result<()> {
        let name = name.as_ref();
        let set = || -> rustix::io::Result<()> {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(self.handle(), name, flags, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(()),
                file => File::from(file?),
            };
            let is_right = rustix::fs::fstat(&file)?.st_mode & 0o777 == mode;
            if is_right || self.refuse_foreign_file(name, &file).is_err() {
                return Ok(());
            }
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
        };
        set().map_err(io::Error::from).explain(|| cannot_change(&self.path_of(name)))
    }
}

fn cannot_change(path: &Path) -> Text {
    text!("cannot change the permissions of {}", "无法更改 {} 的权限", path.display())
}
