//! What a state says, asked from outside with nothing but SQLite, and what must be true of it.
//!
//! A copy is asked, because opening the original would leave files beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::Connection;
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use super::database::texts;
use super::embedded;
use super::exporter::Exporter;

/// The rows of a query. A missing state has none.
pub(crate) fn ask(state: &Path, sql: &str) -> Vec<Vec<Option<String>>> {
    if !state.exists() {
        return Vec::new();
    }
    let folder = tempfile::tempdir().expect("make a folder for the copy");
    for companion in ["", "-wal"] {
        let from = format!("{}{companion}", state.display());
        if Path::new(&from).exists() {
            fs::copy(&from, folder.path().join(format!("state.db{companion}"))).expect("copy the state");
        }
    }
    let conn = Connection::open(folder.path().join("state.db")).expect("open the copied state");
    texts(embedded::rows(&conn, sql))
}

/// Changes a state as another program would.
pub(crate) fn meddle(state: &Path, sql: &str) {
    let conn = Connection::open(state).expect("open the state");
    conn.execute_batch(sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
    conn.close().expect("close the state");
}

/// Everything below a folder, with what changes when somebody touches it. Of a lock file only the mark
/// counts: whoever asks for the lock leaves a line of its own there.
pub(crate) fn listing(folder: &Path) -> BTreeMap<String, String> {
    let entries = WalkDir::new(folder).into_iter().filter_map(Result::ok);
    entries
        .map(|entry| {
            let data = entry.metadata().expect("look at an entry");
            let what = match entry.file_type() {
                kind if kind.is_dir() => format!("folder {}", data.ino()),
                kind if kind.is_symlink() => format!("link {}", data.ino()),
                _ if entry.file_name() == "lock" => format!("lock {} {:?}", data.ino(), mark(entry.path())),
                _ => {
                    let digest = Sha256::digest(fs::read(entry.path()).expect("read a file"));
                    format!("file {} {}.{:09} {digest:x?}", data.ino(), data.mtime(), data.mtime_nsec())
                }
            };
            (entry.path().display().to_string(), what)
        })
        .collect()
}

/// The first sector of a lock file.
pub(crate) fn mark(lock: &Path) -> String {
    let bytes = fs::read(lock).expect("read the lock file");
    String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).trim_end_matches(['\n', ' ', '\0']).to_owned()
}

impl Exporter<'_> {
    /// The cells of each row on one line, with `NULL` spelled out.
    pub(crate) fn ask(&self, sql: &str) -> Vec<String> {
        let cell = |cell: Option<String>| cell.unwrap_or("NULL".into());
        let rows = ask(&self.state(), sql).into_iter();
        rows.map(|row| row.into_iter().map(cell).collect::<Vec<_>>().join(" ")).collect()
    }

    pub(crate) fn ask_rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        ask(&self.state(), sql)
    }

    /// How many runs are recorded that never ended.
    pub(crate) fn unfinished_runs(&self) -> usize {
        self.ask("SELECT id FROM run WHERE status IN ('running', 'interrupted')").len()
    }

    /// The only line that comes.
    #[track_caller]
    pub(crate) fn ask_one(&self, sql: &str) -> String {
        let lines = self.ask(sql);
        assert!(lines.len() == 1, "one line is expected of {sql}: {lines:?}");
        lines.into_iter().next().expect("there is one")
    }

    /// The state holds together, and it says of the tree what is there.
    #[track_caller]
    pub(crate) fn assert_state_is_sound(&self) {
        self.assert_ledger_matches_files();
        assert_eq!(self.ask_one("PRAGMA integrity_check"), "ok");
        let running = self.ask("SELECT id FROM run WHERE status = 'running'");
        assert!(running.is_empty(), "runs that never ended: {running:?}");
        for table in ["run", "run_tenant"] {
            let sql = format!("SELECT * FROM {table} WHERE seen <> written + unchanged + rejected + gone");
            assert!(self.ask(&sql).is_empty(), "counts of {table} that do not balance: {:?}", self.ask(&sql));
        }
        let wrong = self.ask(
            "SELECT id, r.written, r.bytes, r.late FROM run r WHERE (r.written, r.bytes, r.late) <>
             (SELECT ifnull(sum(t.written), 0), ifnull(sum(t.bytes), 0), ifnull(sum(t.late), 0)
              FROM run_tenant t WHERE t.run = r.id)",
        );
        assert!(wrong.is_empty(), "runs that are not the sum of their tenants: {wrong:?}");
    }

    /// Every file of the ledger lies there as it says, and every file there is in the ledger or listed
    /// as left over.
    #[track_caller]
    pub(crate) fn assert_ledger_matches_files(&self) {
        let tree = self.tree();
        let mut named: BTreeSet<String> = self.ask("SELECT path FROM leftover").into_iter().collect();
        for row in ask(&self.state(), "SELECT path, id || ': ' || lower(hex(sha256)) || ' ' || size, id FROM ledger") {
            let [Some(path), Some(recorded), Some(id)] = row.as_slice() else { panic!("a ledger row: {row:?}") };
            let Some(content) = tree.get(path) else { panic!("the ledger has invoice {id} at {path}: nothing there") };
            let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(format!("{id}: {digest} {}", content.len()), *recorded, "what lies at {path}");
            named.insert(path.clone());
        }
        let unnamed: Vec<_> = tree.keys().filter(|path| !named.contains(*path)).collect();
        assert!(unnamed.is_empty(), "files that the state knows nothing of: {unnamed:?}");
    }
}
