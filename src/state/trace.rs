//! Everything that the state knows of one invoice.

use rusqlite::{Connection, OptionalExtension, Row};

use super::State;
use super::history::FileAction;
use super::ledger::{Entry, entry};
use super::stored::{LedgerKey, account, text};
use crate::invoice::{InvoiceId, ReasonCode, Tenant};
use crate::lang::Text;
use crate::run::{Account, Kind, RunId};
use crate::tree::name::TreePath;

/// A run as far as an invoice's story needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunNote {
    pub id: RunId,
    pub kind: Kind,
    /// RFC 3339, UTC.
    pub started: String,
    pub account: Account,
    pub host: String,
}

/// A run that has an invoice on record, and what it did to the file then; None: that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOnFile {
    pub run: RunNote,
    pub action: Option<FileAction>,
}

/// Why an invoice could not be exported, since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReject {
    pub tenant: Option<Tenant>,
    pub number: Option<String>,
    pub reason: ReasonCode,
    /// Why it cannot be exported.
    pub detail: Text,
    pub opened: RunNote,
    pub last_run: RunId,
}

/// What the state knows of one invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub id: InvoiceId,
    pub entry: Option<Entry>,
    /// The run that entered the invoice, and the run that wrote its file or took it over.
    pub first_run: Option<RunOnFile>,
    pub last_run: Option<RunOnFile>,
    pub reject: Option<OpenReject>,
    /// The next run reads it again, whatever its window.
    pub on_todo_list: bool,
}

impl State {
    /// The ids that the state knows under an invoice number, also those that left a file with it. Reads the whole
    /// index of paths.
    pub fn ids_of(&self, number: &str) -> anyhow::Result<Vec<InvoiceId>> {
        let ending = TreePath::ending_of(number);
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

    /// Everything that the state knows of this invoice.
    pub fn trace(&self, id: &InvoiceId) -> anyhow::Result<Trace> {
        self.read(|conn| {
            let run = |which: &str| {
                let sql = format!(
                    "SELECT r.*, ({ACTION}) AS action FROM entry e JOIN run r ON r.id = e.{which} WHERE e.id = ?1"
                );
                conn.query_row(&sql, [LedgerKey(id)], RunOnFile::from_row).optional()
            };
            Ok(Trace {
                id: id.clone(),
                entry: entry(conn, id)?,
                first_run: run("first_run")?,
                last_run: run("run")?,
                reject: open_reject(conn, id)?,
                on_todo_list: conn.prepare("SELECT 1 FROM todo WHERE id = ?1")?.exists([id.as_str()])?,
            })
        })
    }
}

/// What the run `r` did to the file of the entry `e`. The ledger says it of the last run. Of an earlier run a log does,
/// by the number in the file's name: the invoice may have moved since.
const ACTION: &str = "CASE WHEN r.id <> e.run THEN
        (SELECT max(p.action) FROM file_past p
         WHERE p.run = r.id AND p.action <> 'removed' AND substr(p.name, 9) = substr(e.name, 9))
    WHEN e.adopted = 1 THEN 'adopted' ELSE 'written' END";

impl RunOnFile {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { run: RunNote::from_row(row)?, action: row.get("action")? })
    }

    /// The run, if it did this to the file.
    pub fn that(&self, action: FileAction) -> Option<&RunNote> {
        (self.action == Some(action)).then_some(&self.run)
    }
}

impl RunNote {
    /// From a row with the columns of `run`.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            kind: row.get("kind")?,
            started: row.get("started")?,
            account: account(row)?,
            host: row.get("host")?,
        })
    }
}

/// The reject of an invoice, if one is open.
fn open_reject(conn: &Connection, id: &InvoiceId) -> rusqlite::Result<Option<OpenReject>> {
    conn.query_row(
        "SELECT r.*, j.tenant, j.number, j.reason, j.detail, j.detail_zh, j.last_run FROM reject j JOIN run r ON r.id = j.opened_run
         WHERE j.id = ?1 AND j.closed_run IS NULL",
        [id.as_str()],
        |row| {
            Ok(OpenReject {
                tenant: row.get("tenant")?,
                number: row.get("number")?,
                reason: row.get("reason")?,
                detail: text(row, "detail")?.unwrap_or_else(|| Text::same("")),
                opened: RunNote::from_row(row)?,
                last_run: row.get("last_run")?,
            })
        },
    )
    .optional()
}
