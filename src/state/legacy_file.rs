//! Replaces the script's state file, or another of its form: whole at any moment, with the one before kept as a backup.

use std::ffi::OsString;
use std::fs::Permissions;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

use crate::fs::file::{PrivateFile, UnfinishedFile};
use crate::lang::Explain;

/// How the name of a backup ends; the script's own backups have other names.
const STAMP: &str = "%Y%m%dT%H%M%SZ";
const BACKUP: &str = ".backup.";

/// Which of the replaced files are kept.
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

/// The content of a file, if it is there.
pub fn read(file: &PrivateFile) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(mut opened) = file.open()? else { return Ok(None) };
    let mut text = Vec::new();
    opened.read_to_end(&mut text).explain(|| text!("cannot read {}", "无法读取 {}", file.path().display()))?;
    Ok(Some(text))
}

/// Writes the file, unless it has this content already.
pub fn replace(
    file: &PrivateFile,
    content: &[u8],
    policy: BackupPolicy,
    now: DateTime<Utc>,
) -> anyhow::Result<Replacement> {
    let before = match read(file)? {
        Some(before) if before == content => return Ok(Replacement::Same),
        before => before,
    };
    // Another process may be at work on such a file: `export-legacy-state` takes no lock.
    let unfinished = UnfinishedFile::create(file.with_suffix(&format!(".{}.new", std::process::id())), 0o666)?;
    write(&unfinished, content, file)?;
    let mut backup = None;
    unfinished.put_in_place(file, || {
        let kept = before.filter(|_| is_due(policy, file, now));
        backup = kept.map(|before| back_up(file, &before, now)).transpose()?;
        Ok(())
    })?;
    if let BackupPolicy::Spaced { newest, .. } = policy
        && backup.is_some()
    {
        remove_oldest(file, newest)?;
    }
    Ok(Replacement::Written { backup })
}

/// The new file gets the permissions of the old one, so that the same users may read it.
fn write(unfinished: &UnfinishedFile, content: &[u8], old: &PrivateFile) -> anyhow::Result<()> {
    let (mut file, before) = (unfinished.file(), old.stat()?);
    let permitted = before.map_or(Ok(()), |old| file.set_permissions(Permissions::from_mode(old.st_mode & 0o777)));
    let written = permitted.and_then(|()| file.write_all(content));
    written.explain(|| text!("cannot write {}", "无法写入 {}", unfinished.place().path().display()))
}

/// Whether the file that is replaced is kept.
fn is_due(policy: BackupPolicy, file: &PrivateFile, now: DateTime<Utc>) -> bool {
    match policy {
        BackupPolicy::All => true,
        BackupPolicy::None => false,
        BackupPolicy::Spaced { every, .. } => {
            // Those of the future are from before the clock was put back.
            let past = backups(file).into_iter().filter_map(|(at, _)| (now.naive_utc() - at).to_std().ok());
            past.min().is_none_or(|age| age >= every)
        }
    }
}

/// A second name for the old file, so that its own name never lies empty.
fn back_up(file: &PrivateFile, content: &[u8], now: DateTime<Utc>) -> anyhow::Result<PathBuf> {
    // Two in one second are rare, and neither may be lost.
    for second in 0..60 {
        let stamp = (now + TimeDelta::seconds(second)).format(STAMP);
        let backup = file.with_suffix(&format!("{BACKUP}{stamp}"));
        match file.link(&backup) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            linked => {
                // Not every file system knows links.
                let kept = linked.or_else(|_| copy(content, &backup));
                kept.explain(|| text!("cannot write the backup {}", "无法写入备份 {}", backup.path().display()))?;
                return Ok(backup.path().to_path_buf());
            }
        }
    }
    let file = file.path().display();
    Err(message! {
        "{file} has a backup of every second from now on", "{file} 在此后每一秒都已有备份";
        "remove some", "请删除一些"
    }
    .into())
}

fn copy(content: &[u8], to: &PrivateFile) -> io::Result<()> {
    let mut copy = to.create(0o666)?;
    copy.write_all(content)?;
    copy.sync_all()
}

/// The backups of this file, oldest first. A folder that cannot be listed has none.
fn backups(file: &PrivateFile) -> Vec<(NaiveDateTime, OsString)> {
    let beginning = file.with_suffix(BACKUP);
    let beginning = beginning.name().as_encoded_bytes();
    let names = file.folder().names().unwrap_or_default();
    let mut found: Vec<(NaiveDateTime, OsString)> = names
        .into_iter()
        .filter_map(|name| {
            let stamp = std::str::from_utf8(name.as_encoded_bytes().strip_prefix(beginning)?).ok()?;
            let at = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?;
            // chrono reads more than it writes.
            (at.format(STAMP).to_string() == stamp).then_some((at, name))
        })
        .collect();
    found.sort();
    found
}

fn remove_oldest(file: &PrivateFile, kept: usize) -> anyhow::Result<()> {
    let backups = backups(file);
    let oldest = &backups[..backups.len().saturating_sub(kept)];
    oldest.iter().try_for_each(|(_, name)| PrivateFile::new(file.folder(), name).remove())
}
