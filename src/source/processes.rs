//! Which running statements may still commit rows, judged by what a process list shows of them.

use super::sql::{Cell, lossy};

/// The start of a process's statement if it may change rows; a row is command, user, text, start.
pub(super) fn running_since(row: Vec<Cell>) -> Option<String> {
    let mut row = row.into_iter();
    let (command, user, text, start) = (lossy(row.next()?), lossy(row.next()?), row.next()?, lossy(row.next()?));
    let idle = matches!(command.as_str(), "Sleep" | "Daemon" | "Connect" | "Killed" | "Quit")
        || ["Binlog Dump", "Slave_", "Replica_", "Register Slave", "Register Replica", "Group Replication"]
            .iter()
            .any(|name| command.starts_with(name))
        || matches!(user.as_str(), "system user" | "event_scheduler");
    let reads = text.is_some_and(|text| only_reads(&lossy(Some(text))));
    (!idle && !reads).then_some(start)
}

/// Whether a statement is a plain SELECT or SHOW. Ours are, and so need no rule of their own.
fn only_reads(statement: &str) -> bool {
    let mut rest = statement.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    // The server executes what stands in `/*! */` and `/*M! */`.
    while let Some(comment) = rest.strip_prefix("/*").filter(|text| !text.starts_with(['!', 'M'])) {
        let Some((_, after)) = comment.split_once("*/") else { return false };
        rest = after.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    }
    let word = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    word.eq_ignore_ascii_case("SELECT") || word.eq_ignore_ascii_case("SHOW")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(command: &str, user: &str, text: Option<&str>) -> bool {
        let cell = |text: &str| Some(text.as_bytes().to_vec());
        running_since(vec![cell(command), cell(user), text.and_then(cell), cell("2025-11-28 16:30:00")]).is_some()
    }

    #[test]
    fn statements_that_may_write_are_open_work() {
        for text in [
            "UPDATE t SET a = 1",
            "  insert into t select 1",
            "COMMIT",
            "CALL close_month()",
            "/* SELECT */ DELETE FROM t",
            "/*! INSERT */ INTO t VALUES (1)",
            "/*M!100100 INSERT */ INTO t VALUES (1)",
            "/* a comment that has been cut",
            "WITH a AS (SELECT 1) UPDATE t SET b = 1",
            "",
        ] {
            assert!(shows("Query", "app", Some(text)), "{text}");
        }
        assert!(shows("Query", "app", None) && shows("Execute", "app", Some("UPDATE t SET a = ?")));
    }

    #[test]
    fn readers_idlers_and_replication_are_no_open_work() {
        for text in ["SELECT 1", "/* a */ /* b */ ((select 1) UNION (SELECT 2))", "show processlist"] {
            assert!(!shows("Query", "app", Some(text)), "{text}");
        }
        let update = Some("UPDATE t SET a = 1");
        for command in ["Sleep", "Daemon", "Binlog Dump", "Binlog Dump GTID", "Slave_SQL", "Connect"] {
            assert!(!shows(command, "app", update), "{command}");
        }
        assert!(!shows("Query", "system user", update) && !shows("Query", "event_scheduler", None));
    }
}
