//! What lies in folders, with everything that changes when somebody touches it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use super::state::{ask, mark};

/// What a command may leave behind though it changed nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traces {
    None,
    /// Whoever asks for the lock leaves a line about itself behind the mark, and lock and state lie in
    /// folders in which other files came and went.
    OfTheLock,
    /// Besides, a run that changed nothing is on record: of the state all else counts.
    OfARecord,
}

/// Kind, inode, owner, mode, time and content of everything in these folders; nothing of a missing
/// one.
pub(crate) fn everything_in(folders: &[&Path], allowed: Traces) -> BTreeMap<String, String> {
    let entries = folders.iter().flat_map(WalkDir::new).filter_map(Result::ok);
    entries.map(|entry| (entry.path().display().to_string(), describe(entry.path(), allowed))).collect()
}

fn describe(path: &Path, allowed: Traces) -> String {
    let data = fs::symlink_metadata(path).expect("look at an entry");
    let is_lock = data.is_file() && path.file_name().is_some_and(|name| name == "lock");
    let is_state = data.is_file() && path.file_name().is_some_and(|name| name == "state.db");
    let content = match () {
        () if is_lock && allowed != Traces::None => mark(path),
        () if is_state && allowed == Traces::OfARecord => all_but_runs(path),
        () if data.is_file() => format!("{:x?}", Sha256::digest(fs::read(path).expect("read a file"))),
        () => String::new(),
    };
    let has_lock = data.is_dir() && path.join("lock").exists();
    let time = match allowed {
        Traces::OfARecord if is_state => String::new(),
        Traces::OfTheLock | Traces::OfARecord if is_lock || has_lock => String::new(),
        Traces::OfTheLock | Traces::OfARecord | Traces::None => format!("{}.{:09}", data.mtime(), data.mtime_nsec()),
    };
    format!("{:o} of {} inode {} at {time}: {content}", data.mode(), data.uid(), data.ino())
}

/// What a state says besides its runs and verifications.
pub(crate) fn all_but_runs(state: &Path) -> String {
    let tables =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'run' AND name NOT LIKE 'verification%'";
    let tables = ask(state, tables).into_iter().flatten().flatten();
    let rows = |table: &str| {
        let columns =
            ask(state, &format!("SELECT name FROM pragma_table_info('{table}')")).into_iter().flatten().flatten();
        let quoted: Vec<String> = columns.map(|column| format!("quote({column})")).collect();
        ask(state, &format!("SELECT {} FROM {table}", quoted.join(", ")))
    };
    tables.map(|table| format!("{table}: {:?}\n", rows(&table))).collect()
}
