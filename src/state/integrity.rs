//! Does the state hold together? SQLite's own checks, totals against their parts, the ledger against
//! watermarks and the to-do list. Nothing is changed.

use std::borrow::Cow;

use rusqlite::Connection;

use super::{State, explain};
use crate::lang::Message;
use crate::refusal::Refusal;
use crate::tree::name::TreePath;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Everything but the ledger's rows.
    Quick,
    /// Every row and every index entry.
    Deep,
}

/// Something that should not be, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    pub remedy: Cow<'static, str>,
}

impl Finding {
    pub fn new(what: impl Into<String>, remedy: &'static str) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl From<&Refusal> for Finding {
    fn from(refusal: &Refusal) -> Self {
        let Message { what, hint } = refusal.message();
        Self { what: what.to_string(), remedy: hint.map_or_else(String::new, |hint| hint.to_string()).into() }
    }
}

const RESTORE: &str = "bring the last backup back: state restore latest";
pub const RUN_AGAIN: &str = "run the export again: it makes good what a run that died left";
const RUN_FULL: &str = "a full run (run --mode full) compares every invoice and corrects the ledger";
const SET: &str = "set it to a time you trust: state set TENANT TIME";

/// What a query finds is wrong: its first column says where. At most some of it is shown.
struct Rule {
    depth: Depth,
    what: &'static str,
    remedy: &'static str,
    sql: &'static str,
}

const SHOWN: usize = 5;

const RULES: [Rule; 15] = [
    Rule {
        depth: Depth::Quick,
        what: "the counts of these runs do not balance",
        remedy: RESTORE,
        sql: "SELECT id FROM run WHERE seen <> written + unchanged + rejected + gone",
    },
    Rule {
        depth: Depth::Quick,
        what: "the totals of these runs differ from what they did for their tenants",
        remedy: RESTORE,
        sql: "SELECT r.id FROM run r LEFT JOIN (
                SELECT run, sum(seen) AS seen, sum(written) AS written, sum(bytes) AS bytes FROM run_tenant GROUP BY run
              ) t ON t.run = r.id
              WHERE (r.written, r.bytes) <> (coalesce(t.written, 0), coalesce(t.bytes, 0)) OR r.seen < coalesce(t.seen, 0)",
    },
    Rule {
        depth: Depth::Quick,
        what: "watermarks or look-backs of these tenants are no times",
        remedy: RESTORE,
        sql: "SELECT name FROM tenant WHERE (watermark IS NOT NULL AND datetime(watermark) IS NULL)
                 OR (look_back IS NOT NULL AND datetime(look_back) IS NULL)",
    },
    Rule {
        depth: Depth::Quick,
        what: "the look-backs of these tenants lie above their watermarks",
        remedy: RESTORE,
        sql: "SELECT name FROM tenant WHERE look_back > coalesce(watermark, '')",
    },
    Rule {
        depth: Depth::Quick,
        what: "the watermarks of these tenants lie above every boundary that runs had and every time that was set",
        remedy: SET,
        sql: "SELECT name FROM tenant WHERE watermark > max(
                coalesce((SELECT max(boundary) FROM run), ''), coalesce((SELECT max(new) FROM watermark_change), ''))",
    },
    Rule {
        depth: Depth::Quick,
        what: "these tenants belong to a family that does not exist",
        remedy: RESTORE,
        sql: "SELECT name FROM tenant WHERE family NOT IN (SELECT n FROM tenant)",
    },
    Rule {
        depth: Depth::Quick,
        what: "these open rejects are not on the to-do list",
        remedy: RUN_FULL,
        sql: "SELECT id FROM reject WHERE closed_run IS NULL AND id NOT IN (SELECT id FROM todo)",
    },
    Rule {
        depth: Depth::Quick,
        what: "these ids are on the to-do list as rejects, but no reject is open",
        remedy: RUN_AGAIN,
        sql: "SELECT id FROM todo d WHERE why = 'reject'
              AND NOT EXISTS (SELECT 1 FROM reject r WHERE r.id = d.id AND closed_run IS NULL)",
    },
    Rule {
        depth: Depth::Quick,
        what: "these files were left in doubt by a run that died",
        remedy: RUN_AGAIN,
        sql: "SELECT path FROM doubt_path",
    },
    Rule {
        depth: Depth::Quick,
        what: "the last run that changed the tree is missing in the history",
        remedy: RESTORE,
        sql: "SELECT published_run FROM meta WHERE published_run > (SELECT coalesce(max(id), 0) FROM run)",
    },
    Rule {
        depth: Depth::Deep,
        what: "these invoices in the ledger belong to no tenant, no folder or no run that is known",
        remedy: RUN_FULL,
        sql: "SELECT id FROM entry WHERE tenant NOT IN (SELECT n FROM tenant) OR folder NOT IN (SELECT n FROM folder)
                 OR run NOT IN (SELECT id FROM run) OR first_run NOT IN (SELECT id FROM run)",
    },
    Rule {
        depth: Depth::Deep,
        what: "the log of files of these runs names folders that are not known",
        remedy: RESTORE,
        sql: "SELECT DISTINCT run FROM file_past WHERE folder NOT IN (SELECT n FROM folder)",
    },
    Rule {
        depth: Depth::Deep,
        what: "these invoices count as seen, though they lie above every boundary that runs had",
        remedy: RUN_FULL,
        sql: "SELECT id FROM entry WHERE settled AND time > (SELECT coalesce(max(boundary), '') FROM run)",
    },
    Rule {
        depth: Depth::Deep,
        what: "these paths belong to invoices with different documents",
        remedy: RUN_FULL,
        sql: "SELECT f.path || '/' || e.name || '.json' FROM entry e JOIN folder f ON f.n = e.folder
              GROUP BY e.folder, e.name HAVING min(e.sha256) <> max(e.sha256)",
    },
    Rule {
        depth: Depth::Deep,
        what: "these invoices gave their paths to others, and are in the ledger all the same",
        remedy: RUN_AGAIN,
        sql: "SELECT id FROM todo WHERE why = 'displaced' AND id IN (SELECT CAST(id AS TEXT) FROM entry)",
    },
];

impl State {
    /// Everything that should not be. Damage that keeps SQLite from reading is a finding too.
    pub fn check(&self, depth: Depth) -> anyhow::Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let pragma = if depth == Depth::Deep { "integrity_check" } else { "quick_check" };
        let said =
            self.ask(|conn| texts(conn, &format!("PRAGMA {pragma}({SHOWN})")))?.unwrap_or_else(|damage| vec![damage]);
        for what in said.into_iter().filter(|said| said != "ok") {
            findings.push(Finding::new(what.replace('\n', "; "), RESTORE));
        }
        for rule in RULES.iter().filter(|rule| depth == Depth::Deep || rule.depth == Depth::Quick) {
            match self.ask(|conn| texts(conn, rule.sql))? {
                Ok(found) if found.is_empty() => {}
                Ok(found) => {
                    findings.push(Finding::new(format!("{}: {}", rule.what, shown(&found)), rule.remedy));
                }
                Err(damage) => findings.push(Finding::new(damage, RESTORE)),
            }
        }
        if depth == Depth::Deep {
            findings.extend(self.impossible_paths()?);
        }
        findings.dedup();
        Ok(findings)
    }

    fn impossible_paths(&self) -> anyhow::Result<Option<Finding>> {
        let found = self.ask(|conn| {
            let mut query = conn.prepare("SELECT path FROM ledger WHERE path IS NOT NULL")?;
            let paths = query.query_map([], |row| row.get::<_, String>(0))?;
            let wrong = paths.filter(|path| path.as_ref().map_or(true, |path| TreePath::parse(path).is_none()));
            wrong.take(SHOWN + 1).collect::<rusqlite::Result<Vec<String>>>()
        })?;
        Ok(match found {
            Ok(wrong) if wrong.is_empty() => None,
            Ok(wrong) => Some(Finding::new(format!("the ledger holds impossible paths: {}", shown(&wrong)), RESTORE)),
            Err(damage) => Some(Finding::new(damage, RESTORE)),
        })
    }

    /// The answer, or what damage keeps SQLite from giving it.
    fn ask<T>(&self, question: impl Fn(&Connection) -> rusqlite::Result<T>) -> anyhow::Result<Result<T, String>> {
        match self.read(|conn| Ok(question(conn)))? {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) => {
                let detail = error.to_string();
                let error = explain(error, self.path());
                if error.is::<Refusal>() { Ok(Err(detail)) } else { Err(error) }
            }
        }
    }
}

fn texts(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = conn.prepare(sql)?;
    let rows = query.query_map([], |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => other.as_i64().map(|number| number.to_string()).unwrap_or_default(),
        })
    })?;
    rows.collect()
}

fn shown(found: &[String]) -> String {
    let first = found.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if found.len() > SHOWN { format!("{first}, and {} more", found.len() - SHOWN) } else { first }
}
