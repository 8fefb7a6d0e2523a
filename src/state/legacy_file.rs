//! Puts a file of the script's form in place: whole at any moment, with the one before kept as a backup.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

use super::open::sync_folder_of;

/// How the name of a backup ends; the script's own backups have other names.
const STAMP: &str = "%Y%m%dT%H%M%SZ";
const BACKUP: &str = ".backup.";

/// Which of the files that are replaced are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    All,
    None,
    /// One in so much time, and of these the newest.
    Some {
        every: Duration,
        newest: usize,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The file said so already and was not touched.
    Same,
    Written {
        backup: Option<PathBuf>,
    },
}

/// Writes the file, unless it says this already.
pub fn replace(path: &Path, content: &[u8], keep: Keep, now: DateTime<Utc>) -> anyhow::Result<Replaced> {
    let before = match fs::read(path) {
        Ok(before) if before == content => return Ok(Replaced::Same),
        Ok(before) => Some(before),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let name = path.file_name().with_context(|| format!("{} is no name of a file", path.display()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let aside = folder.join(joined(name, &format!(".{}.new", std::process::id())));
    let written = write_aside(&aside, path, content)
        .with_context(|| format!("cannot write {}", aside.display()))
        .and_then(|()| {
            let backup =
                before.filter(|_| wanted(keep, path, now)).map(|before| back_up(path, &before, now)).transpose()?;
            fs::rename(&aside, path)
                .with_context(|| format!("cannot rename {} to {}", aside.display(), path.display()))?;
            sync_folder_of(path)?;
            Ok(backup)
        });
    if written.is_err() {
        // What went wrong first is what the operator must know.
        let _ = fs::remove_file(&aside);
    }
    let backup = written?;
    if let Keep::Some { newest, .. } = keep
        && backup.is_some()
    {
        drop_oldest(path, newest)?;
    }
    Ok(Replaced::Written { backup })
}

/// The new file may be read by whoever may read the old one.
fn write_aside(aside: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(aside)?;
    if let Ok(before) = fs::metadata(path) {
        file.set_permissions(before.permissions())?;
    }
    file.write_all(content)?;
    file.sync_all()
}

fn wanted(keep: Keep, path: &Path, now: DateTime<Utc>) -> bool {
    match keep {
        Keep::All => true,
        Keep::None => false,
        Keep::Some { every, .. } => {
            // Those of the future are from before the clock was put back.
            let past = backups(path).into_iter().filter_map(|(at, _)| (now.naive_utc() - at).to_std().ok());
            past.min().is_none_or(|age| age >= every)
        }
    }
}

/// A second name for the old file, so that its own name never lies empty.
fn back_up(path: &Path, content: &[u8], now: DateTime<Utc>) -> anyhow::Result<PathBuf> {
    // Two in one second are rare, and neither may be lost.
    for second in 0..60 {
        let backup = backup_name(path, now + TimeDelta::seconds(second));
        match fs::hard_link(path, &backup) {
            Ok(()) => return Ok(backup),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // Not every file system knows links.
            Err(_) => {
                let copied = File::create_new(&backup).and_then(|mut file| {
                    file.write_all(content)?;
                    file.sync_all()
                });
                copied.with_context(|| format!("cannot write the backup {}", backup.display()))?;
                return Ok(backup);
            }
        }
    }
    bail!("{} has a backup of every second from now on; remove some", path.display())
}

fn backup_name(path: &Path, at: DateTime<Utc>) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    path.with_file_name(joined(name, &format!("{BACKUP}{}", at.format(STAMP))))
}

fn joined(name: &OsStr, end: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(end);
    name
}

/// Our backups of this file, oldest first. A folder that cannot be listed has none.
fn backups(path: &Path) -> Vec<(NaiveDateTime, PathBuf)> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beginning = joined(path.file_name().unwrap_or_default(), BACKUP);
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<(NaiveDateTime, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let stamp =
                std::str::from_utf8(name.as_encoded_bytes().strip_prefix(beginning.as_encoded_bytes())?).ok()?;
            let at = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?;
            // chrono reads more than it writes.
            (at.format(STAMP).to_string() == stamp).then(|| (at, entry.path()))
        })
        .collect();
    found.sort();
    found
}

fn drop_oldest(path: &Path, kept: usize) -> anyhow::Result<()> {
    let backups = backups(path);
    for (_, backup) in &backups[..backups.len().saturating_sub(kept)] {
        fs::remove_file(backup).with_context(|| format!("cannot remove the backup {}", backup.display()))?;
    }
    Ok(())
}
