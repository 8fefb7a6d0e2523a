//! Which errors of SQLite mean that the file is damaged, and which that the disk is full.

use std::io::{Error as IoError, ErrorKind};
use std::os::raw::c_int;
use std::path::Path;

use rusqlite::{Error, ffi};
use rustix::process::{Resource, getrlimit};

use crate::lang::Text;
use crate::refusal::{Damage, Refusal};

/// What an error of SQLite means besides that a statement failed.
#[derive(Clone, Copy)]
enum Meaning {
    Damaged,
    DiskFull,
}

/// Result codes with a meaning (<https://sqlite.org/rescode.html>), primary or extended.
const CODES: [(c_int, Meaning); 4] = [
    (ffi::SQLITE_CORRUPT, Meaning::Damaged),
    (ffi::SQLITE_NOTADB, Meaning::Damaged),
    (ffi::SQLITE_FULL, Meaning::DiskFull),
    // No room is left for the memory that the log is shared by.
    (ffi::SQLITE_IOERR_SHMSIZE, Meaning::DiskFull),
];

/// The failed writes among the result codes.
const WRITES: [c_int; 4] =
    [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_TRUNCATE, ffi::SQLITE_IOERR_SHMSIZE];

/// Bytes that SQLite writes at once: no page is larger.
const LARGEST_WRITE: u64 = 65_536;

/// How messages begin that say that the schema lacks something. SQLite has no code for them but `SQLITE_ERROR`.
const SCHEMA_MESSAGES: [&str; 2] = ["no such table", "no such column"];

/// The error as the program reports it: a damaged file is a refusal with a way out, anything else an ordinary error.
pub(super) fn explain(error: Error, path: &Path) -> anyhow::Error {
    if is_size_limited(&error, path) {
        return IoError::from(ErrorKind::FileTooLarge).into();
    }
    match meaning(&error) {
        Some(Meaning::DiskFull) => IoError::new(ErrorKind::StorageFull, "the disk is full").into(),
        Some(Meaning::Damaged) => {
            let damage = Damage::Other(Text::same(error.to_string()));
            Refusal::StateDamaged { state: path.to_path_buf(), damage }.into()
        }
        None => error.into(),
    }
}

/// Whether a write failed because a file of the state has the size that the process's files may have. SQLite does not
/// pass on the error of the operating system.
fn is_size_limited(error: &Error, path: &Path) -> bool {
    let failed = error.sqlite_error().is_some_and(|code| WRITES.contains(&code.extended_code));
    let Some(limit) = getrlimit(Resource::Fsize).current.filter(|_| failed) else { return false };
    let is_full = |suffix: &str| {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        std::fs::metadata(&file).is_ok_and(|data| data.len() + LARGEST_WRITE > limit)
    };
    ["", "-wal", "-shm", "-journal"].into_iter().any(is_full)
}

/// The same of an error that may be of SQLite.
pub(super) fn explain_any(error: anyhow::Error, path: &Path) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(error) => explain(error, path),
        Err(error) => error,
    }
}

/// SQLite has no checksums, so flipped bytes may show only as a value that the schema rules out.
fn meaning(error: &Error) -> Option<Meaning> {
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..)
        | Error::QueryReturnedNoRows => Some(Meaning::Damaged),
        Error::SqliteFailure(code, message) => of_code(code, message.as_deref().unwrap_or_default()),
        Error::SqlInputError { error: code, msg, .. } => of_code(code, msg),
        _ => None,
    }
}

fn of_code(code: &ffi::Error, message: &str) -> Option<Meaning> {
    let (extended, primary) = (code.extended_code, code.extended_code & 0xff);
    let coded = CODES.iter().find(|(known, _)| *known == extended || *known == primary).map(|(_, meaning)| *meaning);
    let is_schema = || SCHEMA_MESSAGES.iter().any(|beginning| message.starts_with(beginning));
    coded.or_else(|| is_schema().then_some(Meaning::Damaged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_a_refusal_a_full_disk_and_a_busy_state_are_not() {
        let of = |code, message: &str| {
            let error = Error::SqliteFailure(ffi::Error::new(code), Some(message.to_owned()));
            let error = explain(error, Path::new("state.db"));
            (error.is::<Refusal>(), error.downcast_ref::<IoError>().map(IoError::kind))
        };
        let (damaged, full) = ((true, None), (false, Some(ErrorKind::StorageFull)));
        assert_eq!(of(ffi::SQLITE_CORRUPT_INDEX, ""), damaged);
        assert_eq!(of(ffi::SQLITE_NOTADB, ""), damaged);
        assert_eq!(of(ffi::SQLITE_ERROR, "no such table: run"), damaged);
        assert_eq!(of(ffi::SQLITE_FULL, ""), full);
        assert_eq!(of(ffi::SQLITE_IOERR_SHMSIZE, ""), full);
        assert_eq!(of(ffi::SQLITE_IOERR_READ, ""), (false, None));
        assert_eq!(of(ffi::SQLITE_BUSY, "no such luck"), (false, None));
    }
}
