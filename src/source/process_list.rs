//! Owns the judgement of one row of a process list: whether the statement may still commit rows.

use std::collections::BTreeSet;

use super::engine::{RawCell, lossy};
use super::select_text::tables_read;

/// A text of this many characters was cut.
pub(super) const TEXT_AT_MOST: usize = 8_192;

/// One row of a process list.
pub(super) struct Process {
    /// `Query`, `Sleep`, …
    command: String,
    user: String,
    database: Option<String>,
    text: Option<String>,
    /// The start of the statement. None if the server cannot tell it.
    pub start: Option<String>,
}

/// The effect that a process may have on rows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// It runs no statement, or one of the server's own.
    Idle,
    /// It only reads, if each of these is a table. The names are spelled as InnoDB spells them.
    Reads(BTreeSet<String>),
    MayWrite,
}

/// Whether a list keeps the text of a procedure's statement after it has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    /// The text is that of the running statement.
    Current,
    /// The text may be that of a SELECT that a procedure has just ended, so no text proves that a process only reads.
    Stale,
}

impl Process {
    /// Columns: command, user, database, text, start.
    pub(super) fn from_row(mut row: impl Iterator<Item = RawCell>) -> Self {
        let mut next = || row.next().flatten().map(|cell| lossy(Some(cell)));
        Self {
            command: next().unwrap_or_default(),
            user: next().unwrap_or_default(),
            database: next(),
            text: next(),
            start: next(),
        }
    }

    /// The process's activity by its command and its text.
    pub(super) fn activity(&self, texts: Texts) -> Activity {
        if self.is_idle(texts) {
            return Activity::Idle;
        }
        let Some(text) = &self.text else { return Activity::MayWrite };
        // Sessions of the exporter are read-only. The list cuts their texts.
        if text.starts_with("/* invoice-export") {
            return Activity::Idle;
        }
        let cut = text.chars().count() >= TEXT_AT_MOST;
        let tables = (texts == Texts::Current && !cut).then(|| tables_read(text, self.database.as_deref())).flatten();
        tables.map_or(Activity::MayWrite, Activity::Reads)
    }

    /// Whether the process runs no statement of a client.
    fn is_idle(&self, texts: Texts) -> bool {
        let waits = matches!(self.command.as_str(), "Sleep" | "Daemon" | "Killed" | "Quit")
            || ["Binlog Dump", "Slave_", "Replica_", "Register Slave", "Register Replica", "Group Replication"]
                .iter()
                .any(|name| self.command.starts_with(name));
        let connects = self.command == "Connect";
        // A running event shows as `Connect` and has a database. A login has none, nor has a replication thread.
        let event = connects && (self.database.is_some() || self.text.is_some());
        // The performance schema does not show the user of an event.
        let servers_own = matches!(self.user.as_str(), "system user" | "event_scheduler");
        waits || connects && !event || servers_own && !(event && texts == Texts::Stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity(command: &str, user: &str, database: Option<&str>, text: Option<&str>) -> Activity {
        let cell = |text: &str| Some(text.as_bytes().to_vec());
        let row = vec![cell(command), cell(user), database.and_then(cell), text.and_then(cell), None];
        Process::from_row(row.into_iter()).activity(Texts::Current)
    }

    #[test]
    fn statements_that_may_write_are_open_work() {
        for text in [
            "UPDATE t SET a = 1",
            "  insert into t select 1",
            "COMMIT",
            "CALL close_month()",
            "SELECT close_month()",
            "/* SELECT */ DELETE FROM t",
            "/*! INSERT */ INTO t VALUES (1)",
            "/*M!100100 INSERT */ INTO t VALUES (1)",
            "/* a comment that has been cut",
            "WITH a AS (SELECT 1) UPDATE t SET b = 1",
            &format!("SELECT '{}'", "x".repeat(TEXT_AT_MOST)),
            "",
        ] {
            assert_eq!(activity("Query", "app", Some("shop"), Some(text)), Activity::MayWrite, "{text}");
        }
        assert_eq!(activity("Query", "app", None, None), Activity::MayWrite);
        assert_eq!(activity("Execute", "app", None, Some("UPDATE t SET a = ?")), Activity::MayWrite);
    }

    #[test]
    fn an_event_at_work_is_open_work_whatever_is_shown_of_it() {
        for text in [
            Some("INSERT INTO t SELECT 1"),
            Some("SELECT SLEEP(2) INTO x"),
            Some("CREATE PROCEDURE `e`() SET x = f()"),
            None,
        ] {
            assert_eq!(activity("Connect", "root", Some("shop"), text), Activity::MayWrite, "{text:?}");
            let row = [Some("Connect"), Some("system user"), Some("shop"), text, None];
            let row = row.map(|cell| cell.map(|cell| cell.as_bytes().to_vec()));
            assert_eq!(Process::from_row(row.into_iter()).activity(Texts::Stale), Activity::MayWrite, "{text:?}");
        }
    }

    #[test]
    fn readers_idlers_and_replication_are_no_open_work() {
        let tables = |names: &[&str]| Activity::Reads(names.iter().map(ToString::to_string).collect());
        for text in ["SELECT 1", "/* a */ /* b */ ((select 1) UNION (SELECT 2))", "show processlist"] {
            assert_eq!(activity("Query", "app", None, Some(text)), tables(&[]), "{text}");
        }
        assert_eq!(activity("Query", "app", Some("shop"), Some("SELECT * FROM t")), tables(&["shop/t"]));
        let update = Some("UPDATE t SET a = 1");
        for command in ["Sleep", "Daemon", "Binlog Dump", "Binlog Dump GTID", "Slave_SQL"] {
            assert_eq!(activity(command, "app", Some("shop"), update), Activity::Idle, "{command}");
        }
        assert_eq!(activity("Query", "system user", None, update), Activity::Idle);
        assert_eq!(activity("Connect", "system user", Some("shop"), update), Activity::Idle);
        for user in ["unauthenticated user", "system user", "event_scheduler"] {
            assert_eq!(activity("Connect", user, None, None), Activity::Idle, "{user}");
        }
        let ours = format!("/* invoice-export run 7 */ SELECT f({})", "?, ".repeat(TEXT_AT_MOST));
        assert_eq!(activity("Execute", "exporter", Some("shop"), Some(&ours)), Activity::Idle);
    }

    #[test]
    fn a_list_whose_texts_may_be_stale_has_no_readers() {
        let cell = |text: &str| Some(text.as_bytes().to_vec());
        let row = || vec![cell("Query"), cell("app"), None, cell("SELECT 1"), None];
        assert_eq!(Process::from_row(row().into_iter()).activity(Texts::Stale), Activity::MayWrite);
        assert_eq!(Process::from_row(row().into_iter()).activity(Texts::Current), Activity::Reads(BTreeSet::new()));
    }
}
