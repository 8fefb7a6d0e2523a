//! Owns the questions by file: which invoices have it, and which runs once wrote or removed it.

use rusqlite::{Connection, Row, ToSql, params};

use super::State;
use super::history::FileAction;
use super::trace::RunNote;
use crate::invoice::InvoiceId;
use crate::run::Kind;
use crate::tree::asked::AskedFiles;
use crate::tree::name::TreePath;

/// A condition: no invoice has the file.
const ORPHANED: &str = "NOT EXISTS (SELECT 1 FROM entry e WHERE e.folder = p.folder AND e.name = p.name)";
pub(super) const PRUNED: &str = "SELECT 1 FROM file_past p CROSS JOIN run r ON r.id = p.run
    WHERE p.action = 'removed' AND p.name = ?2 AND p.folder = (SELECT n FROM folder WHERE path = ?1) AND r.kind = 'verify'";
/// As many answers are given to one question.
const AT_MOST: usize = 1_000;

/// What runs did to a file that belongs to no invoice any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePast {
    pub path: TreePath,
    /// The oldest first.
    pub acts: Vec<(RunNote, FileAction)>,
}

impl State {
    /// The ids of the invoices that have one of these files, and of those that left one behind.
    pub fn ids_with_files(&self, asked: &AskedFiles) -> anyhow::Result<Vec<InvoiceId>> {
        self.read(|conn| {
            let mut ids = Vec::new();
            for path in &asked.paths {
                ids.extend(matching_ids(
                    conn,
                    "SELECT CAST(id AS TEXT) FROM entry WHERE folder = (SELECT n FROM folder WHERE path = ?1) AND name = ?2
                     UNION SELECT id FROM leftover WHERE path = ?3 LIMIT ?4",
                    &[&path.folder(), &path.stem(), &path.as_str()],
                )?);
            }
            if let Some(stem) = &asked.stem {
                ids.extend(matching_ids(
                    conn,
                    "SELECT CAST(id AS TEXT) FROM entry WHERE name = ?1
                     UNION SELECT id FROM leftover WHERE substr(path, -length(?2)) = ?2 LIMIT ?3",
                    &[stem, &format!("/{stem}.json")],
                )?);
            }
            ids.sort();
            ids.dedup();
            Ok(ids)
        })
    }

    /// What runs did to those of these files that no invoice has now.
    pub fn past_of_files(&self, asked: &AskedFiles) -> anyhow::Result<Vec<FilePast>> {
        self.read(|conn| {
            let mut found = Vec::new();
            for path in &asked.paths {
                let values = params![path.folder(), path.stem(), AT_MOST];
                collect(conn, &format!("f.path = ?1 AND p.name = ?2 AND {ORPHANED}"), values, &mut found)?;
            }
            if let Some(stem) = &asked.stem {
                let values = params![stem, "", AT_MOST];
                collect(conn, &format!("p.name = ?1 AND ?2 = '' AND {ORPHANED}"), values, &mut found)?;
            }
            Ok(found)
        })
    }

    /// What runs did to the files that spell a number and that no invoice has now. Reads all that is on record of files.
    pub fn past_of_number(&self, number: &str) -> anyhow::Result<Vec<FilePast>> {
        self.read(|conn| {
            let mut found = Vec::new();
            let values = params![TreePath::ending_of(number), "", AT_MOST];
            collect(conn, &format!("substr(p.name, 9) = ?1 AND ?2 = '' AND {ORPHANED}"), values, &mut found)?;
            Ok(found)
        })
    }

    /// What runs did to the file of an invoice before it was written or taken over as it is now. Empty where no
    /// verification removed it as that of a withdrawn invoice: then the ledger knows all of it.
    pub fn removed_past(&self, path: &TreePath) -> anyhow::Result<Vec<(RunNote, FileAction)>> {
        self.read(|conn| {
            let mut found = Vec::new();
            collect(conn, "f.path = ?1 AND p.name = ?2", params![path.folder(), path.stem(), AT_MOST], &mut found)?;
            let acts = found.pop().map(|past| past.acts).unwrap_or_default();
            let removed = acts.iter().any(|(run, action)| *action == FileAction::Removed && run.kind == Kind::Verify);
            Ok(if removed { acts } else { Vec::new() })
        })
    }

    /// Whether a verification has removed this file: the invoice that gets it was there before.
    pub fn was_pruned(&self, path: &TreePath) -> anyhow::Result<bool> {
        self.read_at_one_moment(|conn| conn.prepare_cached(PRUNED)?.exists([path.folder(), path.stem()]))
    }
}

fn matching_ids(conn: &Connection, sql: &str, texts: &[&dyn ToSql]) -> rusqlite::Result<Vec<InvoiceId>> {
    let mut query = conn.prepare(sql)?;
    let values: Vec<&dyn ToSql> = texts.iter().copied().chain([&AT_MOST as &dyn ToSql]).collect();
    query.query_map(values.as_slice(), |row| row.get(0).map(InvoiceId))?.collect()
}

/// Adds what runs did to files under a condition. The files of one path come one behind the other.
fn collect(
    conn: &Connection,
    condition: &str,
    values: &[&dyn ToSql],
    found: &mut Vec<FilePast>,
) -> rusqlite::Result<()> {
    let mut query = conn.prepare(&format!(
        "SELECT f.path AS folder, p.name AS stem, p.action AS action, r.* FROM file_past p
         JOIN folder f ON f.n = p.folder JOIN run r ON r.id = p.run
         WHERE {condition}
         ORDER BY f.path, p.run, p.action = 'removed' LIMIT ?3"
    ))?;
    let act = |row: &Row<'_>| {
        let (folder, stem): (String, String) = (row.get("folder")?, row.get("stem")?);
        Ok((TreePath::join(&folder, &stem), (RunNote::from_row(row)?, row.get("action")?)))
    };
    for row in query.query_map(values, act)? {
        let (Some(path), act) = row? else { continue };
        match found.last_mut().filter(|last| last.path == path) {
            Some(last) => last.acts.push(act),
            None => found.push(FilePast { path, acts: vec![act] }),
        }
    }
    Ok(())
}
