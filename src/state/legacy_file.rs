//! Puts a file of the script's form in place: whole at any moment, with the one before kept as a backup.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

use super::file::with_suffix as joined;
use crate::tree::private::{Access, PrivateFolder};

/// How the name of a backup ends; the script's own backups have other names.
const STAMP: &str = "%Y%m%dT%H%M%SZ";
const BACKUP: &str = ".backup.";

/// Which of the files that are replaced are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupPolicy {
    All,
    None,
    /// One in so much time, and of these the newest.
    Spaced {
        every: Duration,
        newest: usize,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// The file said so already and was not touched.
    Same,
    Written {
        backup: Option<PathBuf>,
    },
}

/// A file of the script's form, which need not be there.
pub struct LegacyFile<'a> {
    pub folder: &'a PrivateFolder,
    pub name: &'a OsStr,
}

impl LegacyFile<'_> {
    /// What it says, if it is there.
    pub fn read(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(mut file) = self.folder.open(self.name, Access::Read)? else { return Ok(None) };
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(|| format!("cannot read {}", self.path().display()))?;
        Ok(Some(text))
    }

    /// Writes the file, unless it says this already.
    pub fn replace(&self, content: &[u8], keep: BackupPolicy, now: DateTime<Utc>) -> anyhow::Result<Replacement> {
        let before = match self.read()? {
            Some(before) if before == content => return Ok(Replacement::Same),
            before => before,
        };
        let aside = joined(self.name, &format!(".{}.new", std::process::id()));
        let written = self
            .write_aside(&aside, content)
            .with_context(|| format!("cannot write {}", self.folder.path_of(&aside).display()))
            .and_then(|()| {
                let backup = before.filter(|_| self.wanted(keep, now)).map(|before| self.back_up(&before, now));
                let backup = backup.transpose()?;
                self.folder.rename(&aside, self.name).with_context(|| {
                    format!("cannot rename {} to {}", self.folder.path_of(&aside).display(), self.path().display())
                })?;
                self.folder.sync()?;
                Ok(backup)
            });
        if written.is_err() {
            // What went wrong first is what the operator must know.
            let _ = self.folder.remove(&aside);
        }
        let backup = written?;
        if let BackupPolicy::Spaced { newest, .. } = keep
            && backup.is_some()
        {
            self.drop_oldest(newest)?;
        }
        Ok(Replacement::Written { backup })
    }

    fn path(&self) -> PathBuf {
        self.folder.path_of(self.name)
    }

    /// The new file gets the permissions of the old one, so that the same users may read it.
    fn write_aside(&self, aside: &OsStr, content: &[u8]) -> std::io::Result<()> {
        // A process of the same number may have died.
        self.folder.remove(aside)?;
        let mut file = self.folder.create_file(aside, 0o666)?;
        if let Some(before) = self.folder.stat(self.name)? {
            file.set_permissions(Permissions::from_mode(before.st_mode & 0o777))?;
        }
        file.write_all(content)?;
        file.sync_all()
    }

    fn wanted(&self, keep: BackupPolicy, now: DateTime<Utc>) -> bool {
        match keep {
            BackupPolicy::All => true,
            BackupPolicy::None => false,
            BackupPolicy::Spaced { every, .. } => {
                // Those of the future are from before the clock was put back.
                let past = self.backups().into_iter().filter_map(|(at, _)| (now.naive_utc() - at).to_std().ok());
                past.min().is_none_or(|age| age >= every)
            }
        }
    }

    /// A second name for the old file, so that its own name never lies empty.
    fn back_up(&self, content: &[u8], now: DateTime<Utc>) -> anyhow::Result<PathBuf> {
        // Two in one second are rare, and neither may be lost.
        for second in 0..60 {
            let stamp = (now + TimeDelta::seconds(second)).format(STAMP);
            let name = joined(self.name, &format!("{BACKUP}{stamp}"));
            let backup = self.folder.path_of(&name);
            match self.folder.link(self.name, &name) {
                Ok(()) => return Ok(backup),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                // Not every file system knows links.
                Err(_) => {
                    let copied = self.folder.create_file(&name, 0o666).and_then(|mut file: File| {
                        file.write_all(content)?;
                        file.sync_all()
                    });
                    copied.with_context(|| format!("cannot write the backup {}", backup.display()))?;
                    return Ok(backup);
                }
            }
        }
        bail!("{} has a backup of every second from now on; remove some", self.path().display())
    }

    /// Our backups of this file, oldest first. A folder that cannot be listed has none.
    fn backups(&self) -> Vec<(NaiveDateTime, OsString)> {
        let beginning = joined(self.name, BACKUP);
        let names = self.folder.names().unwrap_or_default();
        let mut found: Vec<(NaiveDateTime, OsString)> = names
            .into_iter()
            .filter_map(|name| {
                let stamp =
                    std::str::from_utf8(name.as_encoded_bytes().strip_prefix(beginning.as_encoded_bytes())?).ok()?;
                let at = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?;
                // chrono reads more than it writes.
                (at.format(STAMP).to_string() == stamp).then_some((at, name))
            })
            .collect();
        found.sort();
        found
    }

    fn drop_oldest(&self, kept: usize) -> anyhow::Result<()> {
        let backups = self.backups();
        for (_, backup) in &backups[..backups.len().saturating_sub(kept)] {
            self.folder
                .remove(backup)
                .with_context(|| format!("cannot remove the backup {}", self.folder.path_of(backup).display()))?;
        }
        Ok(())
    }
}
