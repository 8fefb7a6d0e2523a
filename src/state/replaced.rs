//! Finds the runs and changes of states that this one has replaced: states that lie aside beside it, and the backups that
//! restores made of them. They are only read.

use std::path::PathBuf;

use rusqlite::Connection;

use super::State;
use super::backup;
use super::changes::ChangeKind;
use super::connect::{StateAccess, connect};
use super::open;
use crate::fs::file::PrivateFile;

/// What is looked for in a replaced state, by its number.
#[derive(Clone, Copy, Debug)]
pub enum PastNumber {
    Run(i64),
    Change(i64),
}

/// Where a number may belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// This file has it.
    In(PathBuf),
    /// It is one of the numbers from the first to the last that this state skipped, and these files cannot be read.
    Unreadable { first: i64, last: i64, files: Vec<PathBuf> },
    /// It is one of the numbers that this state skipped, and no replaced state is there any more.
    Skipped { first: i64, last: i64 },
}

impl State {
    /// Where a number belongs that this state does not have. None: no state that this one replaced had it.
    pub fn whereabouts(&self, number: PastNumber) -> anyhow::Result<Option<Whereabouts>> {
        let mut unreadable = Vec::new();
        for file in self.replaced_states()? {
            match has(&file, number) {
                Ok(true) => return Ok(Some(Whereabouts::In(file.path().to_path_buf()))),
                Ok(false) => {}
                Err(_) => unreadable.push(file.path().to_path_buf()),
            }
        }
        let Some((first, last)) = self.gap(number)? else { return Ok(None) };
        Ok(Some(match unreadable.is_empty() {
            true => Whereabouts::Skipped { first, last },
            false => Whereabouts::Unreadable { first, last, files: unreadable },
        }))
    }

    /// The files that may hold replaced states, the newest first. A backup that was made before a restore counts also
    /// where the restore itself is not on record here, since a later one went back to before it.
    fn replaced_states(&self) -> anyhow::Result<Vec<PrivateFile>> {
        let folder = self.file.folder();
        let mut aside = folder.names()?;
        aside.retain(|name| open::is_aside(&self.file, name));
        aside.sort();
        let aside = aside.into_iter().rev().map(|name| PrivateFile::new(folder, name));
        let mut files: Vec<PrivateFile> = aside.collect();
        for path in self.replaced_on_record()?.into_iter().chain(backup::of_replaced_states(&self.file)?) {
            files.extend(backup::named(&self.file, &path).ok().flatten());
        }
        Ok(files)
    }

    /// The files that restores named.
    fn replaced_on_record(&self) -> anyhow::Result<Vec<PathBuf>> {
        self.read(|conn| {
            let mut query = conn.prepare(REPLACED)?;
            query.query_map([ChangeKind::Restore], |row| row.get::<_, String>(0).map(PathBuf::from))?.collect()
        })
    }

    /// The first and the last of the numbers around this one that the state skipped; None where it skipped none here.
    fn gap(&self, number: PastNumber) -> anyhow::Result<Option<(i64, i64)>> {
        let ([below, above], number) = match number {
            PastNumber::Run(number) => (RUNS_AROUND, number),
            PastNumber::Change(number) => (CHANGES_AROUND, number),
        };
        let around = |sql| self.read(|conn| conn.query_row(sql, [number], |row| row.get::<_, Option<i64>>(0)));
        let (below, above) = (around(below)?.unwrap_or(0), around(above)?);
        Ok(above.filter(|above| *above > number && number > below).map(|above| (below + 1, above - 1)))
    }
}

/// Whether the state in this file has the number.
fn has(file: &PrivateFile, number: PastNumber) -> anyhow::Result<bool> {
    let conn: Connection = connect(file, StateAccess::ReadOnly)?;
    let (sql, number) = match number {
        PastNumber::Run(number) => ("SELECT EXISTS (SELECT 1 FROM run WHERE id = ?1)", number),
        PastNumber::Change(number) => ("SELECT EXISTS (SELECT 1 FROM state_change WHERE n = ?1)", number),
    };
    Ok(conn.query_row(sql, [number], |row| row.get(0))?)
}

const REPLACED: &str = "SELECT old FROM state_change WHERE kind = ?1 AND old IS NOT NULL ORDER BY n DESC";
/// A restore says which run was the last one of the replaced state.
const RUNS_AROUND: [&str; 2] = [
    "SELECT max(id) FROM run WHERE id < ?1",
    "SELECT min(id) FROM (SELECT min(id) AS id FROM run WHERE id > ?1
         UNION ALL SELECT min(last_run) + 1 FROM state_change WHERE kind = 'restore' AND last_run >= ?1)",
];
const CHANGES_AROUND: [&str; 2] =
    ["SELECT max(n) FROM state_change WHERE n < ?1", "SELECT min(n) FROM state_change WHERE n > ?1"];
