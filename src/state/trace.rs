//! Everything that the state knows of one invoice.

use rusqlite::{Connection, OptionalExtension};

use super::State;
use super::ledger::{Entry, StoredId, entry};
use crate::invoice::{InvoiceId, Tenant};
use crate::run::RunId;
use crate::tree::name::TreePath;

/// A run as far as an invoice's story needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunNote {
    pub id: RunId,
    pub kind: String,
    /// RFC 3339, UTC.
    pub started: String,
    pub user: String,
    pub host: String,
}

/// Why an invoice could not be exported, since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReject {
    pub tenant: Option<Tenant>,
    pub reason: String,
    pub detail: String,
    pub opened: RunNote,
    pub last_run: RunId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub id: InvoiceId,
    pub entry: Option<Entry>,
    /// The run that entered the invoice, and the run that wrote its file or took it over.
    pub first_run: Option<RunNote>,
    pub last_run: Option<RunNote>,
    pub reject: Option<OpenReject>,
    /// The next run reads it again, whatever its window.
    pub on_todo_list: bool,
}

impl State {
    /// The ids that the state knows under an invoice number, also those that left a file with it. Reads the whole
    /// index of paths.
    pub fn ids_of(&self, number: &str) -> anyhow::Result<Vec<InvoiceId>> {
        // The file's name but for the date, which no path lacks.
        let name = TreePath::of(&Tenant("-".into()), None, "19700101", number);
        let ending = name.stem().get("19700101".len()..).unwrap_or_default().to_owned();
        self.read(|conn| {
            let mut query = conn.prepare(
                "SELECT CAST(id AS TEXT) FROM entry WHERE substr(name, 9) = ?1
                 UNION SELECT id FROM reject WHERE number = ?2 AND closed_run IS NULL
                 UNION SELECT id FROM leftover
                     WHERE substr(path, -length(?3)) = ?3 AND substr(path, -length(?3) - 9, 1) = '/' LIMIT 1000",
            )?;
            let file = format!("{ending}.json");
            let ids = query.query_map([ending.as_str(), number, &file], |row| row.get(0).map(InvoiceId))?;
            ids.collect()
        })
    }

    pub fn trace(&self, id: &InvoiceId) -> anyhow::Result<Trace> {
        self.read(|conn| {
            let runs = conn
                .query_row("SELECT first_run, run FROM entry WHERE id = ?1", [StoredId(id)], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })
                .optional()?;
            let note = |n: Option<i64>| n.map_or(Ok(None), |n| run_note(conn, n));
            Ok(Trace {
                id: id.clone(),
                entry: entry(conn, id)?,
                first_run: note(runs.map(|(first, _)| first))?,
                last_run: note(runs.map(|(_, last)| last))?,
                reject: open_reject(conn, id)?,
                on_todo_list: conn.prepare("SELECT 1 FROM todo WHERE id = ?1")?.exists([id.as_str()])?,
            })
        })
    }
}

fn run_note(conn: &Connection, run: i64) -> rusqlite::Result<Option<RunNote>> {
    conn.query_row("SELECT id, kind, started, user, host FROM run WHERE id = ?1", [run], |row| {
        Ok(RunNote {
            id: RunId(row.get(0)?),
            kind: row.get(1)?,
            started: row.get(2)?,
            user: row.get(3)?,
            host: row.get(4)?,
        })
    })
    .optional()
}

fn open_reject(conn: &Connection, id: &InvoiceId) -> rusqlite::Result<Option<OpenReject>> {
    let row = conn
        .query_row(
            "SELECT opened_run, last_run, tenant, reason, detail FROM reject
             WHERE id = ?1 AND closed_run IS NULL",
            [id.as_str()],
            |row| {
                let tenant: Option<String> = row.get(2)?;
                Ok((row.get(0)?, RunId(row.get(1)?), tenant.map(Tenant), row.get(3)?, row.get(4)?))
            },
        )
        .optional()?;
    let Some((opened, last_run, tenant, reason, detail)) = row else { return Ok(None) };
    let opened = run_note(conn, opened)?;
    Ok(opened.map(|opened| OpenReject { tenant, reason, detail, opened, last_run }))
}
