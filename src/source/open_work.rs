//! Owns the search for open work in MySQL and MariaDB: running statements and open transactions that may still commit rows.
//!
//! The statements are read first, so that one that ends in between still shows as a transaction.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use super::SourceError;
use super::engine::{Bind, Engine, RawCell, lossy};
use super::error_codes::{ErrorClass, class};
use super::mysql::ServerConnection;
use super::process_list::{Activity, Process, TEXT_AT_MOST, Texts};
use super::session::Flavour;
use crate::invoice::SourceTime;
use crate::window::OpenWork;

/// InnoDB keeps its list of transactions until no session has read it for a tenth of a second. The pauses grow, because
/// several runs that ask at the same moment keep the list old for each other. Without a new list a run compares all keys,
/// which costs far more than these two seconds.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(110),
    Duration::from_millis(170),
    Duration::from_millis(290),
    Duration::from_millis(530),
    Duration::from_millis(1010),
];

/// Added to each pause, so that runs that began together do not keep step. Below a tenth of a second.
fn jitter() -> Duration {
    Duration::from_millis(u64::from(std::process::id() % 97))
}

impl ServerConnection {
    /// The oldest of running statements and open transactions.
    pub(super) fn oldest_open_work(&mut self) -> Result<OpenWork, SourceError> {
        let answers = self.running_statements().and_then(|running| Ok((running, self.open_transactions()?)));
        match answers {
            Ok((running, transactions)) => Ok(oldest(running, transactions)),
            Err(SourceError::Statement(error)) if class(&error) == ErrorClass::Denied => Ok(OpenWork::NotPermitted),
            Err(SourceError::Statement(_)) => Ok(OpenWork::Unreliable),
            Err(fault) => Err(fault),
        }
    }

    /// The oldest running statement that may write.
    fn running_statements(&mut self) -> Result<OpenWork, SourceError> {
        let (processes, texts) = self.processes()?;
        let mut writers = Vec::new();
        let mut readers = Vec::new();
        for process in processes {
            match process.activity(texts) {
                Activity::Idle => {}
                Activity::Reads(tables) if tables.is_empty() => {}
                Activity::Reads(tables) => readers.push((process.start, tables)),
                Activity::MayWrite => writers.push(process.start),
            }
        }
        let wanted: BTreeSet<&String> = readers.iter().flat_map(|(_, tables)| tables).collect();
        let known = if wanted.is_empty() { BTreeSet::new() } else { self.tables_among(&wanted)? };
        writers.extend(readers.into_iter().filter(|(_, tables)| !tables.is_subset(&known)).map(|(start, _)| start));
        Ok(writers.into_iter().map(since).fold(OpenWork::None, oldest))
    }

    /// The process list without this session. A start is one second early, because ages are whole seconds. A session
    /// that set its clock ahead shows an age below zero, and its start is unknown.
    fn processes(&mut self) -> Result<(Vec<Process>, Texts), SourceError> {
        let mut refused = None;
        for &(list, texts) in self.flavour().process_lists() {
            let sql = format!(
                "SELECT ID = CONNECTION_ID(), COMMAND, USER, DB, LEFT(INFO, {TEXT_AT_MOST}), \
                 CAST(IF(`TIME` < 0, NULL, FROM_UNIXTIME(UNIX_TIMESTAMP() - `TIME` - 1)) AS CHAR) FROM {list}"
            );
            match self.all(&sql, &[]) {
                Ok(rows) => {
                    let (own, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| is_true(row.first()));
                    // Where the performance schema is off, its list is empty.
                    if !own.is_empty() {
                        let others = others.into_iter().map(|row| Process::from_row(row.into_iter().skip(1)));
                        return Ok((others.collect(), texts));
                    }
                }
                Err(SourceError::Statement(error)) => refused = Some(error),
                Err(fault) => return Err(fault),
            }
        }
        let empty =
            || text!("the server's list of processes does not show this session", "服务器的进程列表中没有本会话");
        Err(SourceError::Statement(refused.unwrap_or_else(|| empty().into())))
    }

    /// The names among these that are tables of InnoDB. The list takes the PROCESS privilege and no right to the
    /// tables.
    fn tables_among(&mut self, names: &BTreeSet<&String>) -> Result<BTreeSet<String>, SourceError> {
        let places = vec!["?"; names.len()].join(", ");
        let sql = format!("SELECT NAME FROM {} WHERE NAME IN ({places})", self.flavour().innodb_tables());
        let binds: Vec<Bind> = names.iter().map(|name| Bind::Text((*name).clone())).collect();
        match self.texts(&sql, &binds) {
            Ok(rows) => Ok(rows.into_iter().flatten().flatten().collect()),
            Err(SourceError::Statement(_)) => Ok(BTreeSet::new()),
            Err(fault) => Err(fault),
        }
    }

    /// The oldest transaction that can write. InnoDB does not renew its list while sessions keep reading it, so the
    /// list counts only if it shows a transaction of our own with this query. READ COMMITTED takes no snapshot for
    /// that transaction.
    fn open_transactions(&mut self) -> Result<OpenWork, SourceError> {
        self.command("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")?;
        let found = self.fresh_transactions();
        if matches!(found, Ok(_) | Err(SourceError::Statement(_))) {
            self.command("COMMIT")?;
        }
        found
    }

    /// Reads the list until it is a new one.
    fn fresh_transactions(&mut self) -> Result<OpenWork, SourceError> {
        let mut pauses = PAUSES.iter();
        loop {
            let number = self.next_query_number();
            let row = self.all(&transactions(number), &[])?.into_iter().next().unwrap_or_default();
            let [start, client, fresh, own] = row.as_slice() else { return Ok(OpenWork::Unreliable) };
            if is_true(Some(fresh)) {
                return Ok(match client.as_deref() {
                    None => OpenWork::None,
                    // No client has the thread number 0.
                    Some(b"0") => OpenWork::Prepared,
                    Some(_) => since(start.clone().map(|start| lossy(Some(start)))),
                });
            }
            // A run right after another one finds that one's list. Mostly no transaction is open.
            if self.monitor_shows_none(&lossy(own.clone()))? {
                return Ok(OpenWork::None);
            }
            let Some(pause) = pauses.next() else { return Ok(OpenWork::Unreliable) };
            thread::sleep(*pause + jitter());
        }
    }

    /// Whether InnoDB's monitor, which is always up to date, shows that no transaction is open. It says too little
    /// about open ones.
    fn monitor_shows_none(&mut self, own: &str) -> Result<bool, SourceError> {
        match self.unprepared_texts("SHOW ENGINE INNODB STATUS") {
            Ok(texts) => Ok(texts.last().is_some_and(|status| shows_none(status, own))),
            Err(SourceError::Statement(_)) => Ok(false),
            Err(fault) => Err(fault),
        }
    }
}

/// Whether the monitor's output is whole and each of its transactions is not started, or is that of our own thread.
fn shows_none(status: &str, own: &str) -> bool {
    let whole = status.contains("LIST OF TRANSACTIONS FOR EACH SESSION:")
        && status.contains("END OF INNODB MONITOR OUTPUT")
        && !status.contains("... truncated");
    let mut transactions = status.split("\n---TRANSACTION ").skip(1);
    let thread = format!(" thread id {own},");
    whole
        && transactions.all(|shown| {
            let (first, details) = shown.split_once('\n').unwrap_or((shown, ""));
            first.ends_with("not started") || details.lines().nth(1).is_some_and(|line| line.contains(&thread))
        })
}

/// Columns: the start of the oldest transaction of others that can write, the least number of their clients, whether
/// the list is new, our own thread. The server prints the start in the zone of its operating system, whatever the
/// session's zone is. An hour that came twice (by two hours, one, or half an hour) counts as the earlier one.
fn transactions(number: u64) -> String {
    let before = |minutes| {
        format!("WHEN CONVERT_TZ(utc - INTERVAL {minutes} MINUTE, '+00:00', 'SYSTEM') = started THEN {minutes}")
    };
    let again = [120, 60, 30].map(before).join(" ");
    format!(
        "/* query {number} */ SELECT CAST(CONVERT_TZ(utc - INTERVAL (CASE {again} ELSE 0 END) MINUTE, '+00:00', \
         @@SESSION.time_zone) AS CHAR), CAST(client AS CHAR), fresh, CAST(CONNECTION_ID() AS CHAR) \
         FROM (SELECT started, client, fresh, CONVERT_TZ(started, 'SYSTEM', '+00:00') AS utc \
         FROM (SELECT MIN(IF(writes, trx_started, NULL)) AS started, MIN(IF(writes, client, NULL)) AS client, \
         MAX(own AND trx_query LIKE '%query {number} %') AS fresh \
         FROM (SELECT trx_started, trx_query, trx_mysql_thread_id AS client, \
         trx_mysql_thread_id = CONNECTION_ID() AS own, \
         trx_mysql_thread_id <> CONNECTION_ID() AND trx_is_read_only = 0 AND trx_autocommit_non_locking = 0 AS writes \
         FROM information_schema.INNODB_TRX) AS listed) AS oldest) AS dated"
    )
}

/// Work without a known start may be of any age.
fn since(start: Option<String>) -> OpenWork {
    start.map_or(OpenWork::Unreliable, |start| OpenWork::Since(SourceTime(start)))
}

/// What two answers mean together: work of any age counts first, then the lack of a privilege, then the earlier start.
fn oldest(one: OpenWork, other: OpenWork) -> OpenWork {
    use OpenWork::{None, NotPermitted, Prepared, Since, Unreliable};
    match (one, other) {
        (Prepared, _) | (_, Prepared) => Prepared,
        (Unreliable, _) | (_, Unreliable) => Unreliable,
        (NotPermitted, _) | (_, NotPermitted) => NotPermitted,
        (None, work) | (work, None) => work,
        (Since(one), Since(other)) => Since(one.min(other)),
    }
}

/// A flag of an answer.
fn is_true(cell: Option<&RawCell>) -> bool {
    cell.is_some_and(|cell| cell.as_deref() == Some(b"1"))
}

impl Flavour {
    /// The process lists of the server, in the order in which they are tried. MySQL will remove the first one. The
    /// second one shows the last statement of a procedure until the next one begins.
    fn process_lists(self) -> &'static [(&'static str, Texts)] {
        const FIRST: (&str, Texts) = ("information_schema.PROCESSLIST", Texts::Current);
        match self {
            Self::MySql => &[FIRST, ("performance_schema.processlist", Texts::Stale)],
            Self::MariaDb => &[FIRST],
        }
    }

    /// InnoDB's list of tables.
    fn innodb_tables(self) -> &'static str {
        match self {
            Self::MySql => "information_schema.INNODB_TABLES",
            Self::MariaDb => "information_schema.INNODB_SYS_TABLES",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(transactions: &str) -> String {
        format!("LIST OF TRANSACTIONS FOR EACH SESSION:\n{transactions}--------\nEND OF INNODB MONITOR OUTPUT\n")
    }

    #[test]
    fn a_monitor_shows_that_nothing_is_open_only_if_it_is_whole() {
        let idle = "---TRANSACTION 375300340492704, not started\n0 lock struct(s)\n";
        let ours = "---TRANSACTION (0x7f), ACTIVE 0 sec\n0 lock struct(s)\nMariaDB thread id 93, OS thread handle 1\n";
        let theirs = ours.replace("93", "193");
        let prepared = "---TRANSACTION 75, ACTIVE (PREPARED) 9 sec recovered trx\n1 lock struct(s)\n";
        assert!(shows_none(&status(""), "93") && shows_none(&status(&format!("{idle}{ours}{idle}")), "93"));
        assert!(!shows_none(&status(&theirs), "93") && !shows_none(&status(&format!("{ours}{prepared}")), "93"));
        assert!(!shows_none(&status("... truncated...\n"), "93") && !shows_none("", "93"));
    }

    #[test]
    fn of_two_works_the_one_that_says_less_or_is_older_counts() {
        let at = |text: &str| OpenWork::Since(SourceTime::from(text));
        let (early, late) = (at("2025-11-28 16:29:00"), at("2025-11-28 16:30:00"));
        assert_eq!(oldest(late.clone(), early.clone()), early);
        assert_eq!(oldest(OpenWork::None, late.clone()), late);
        assert_eq!(oldest(late.clone(), OpenWork::Unreliable), OpenWork::Unreliable);
        assert_eq!(oldest(OpenWork::Unreliable, OpenWork::Prepared), OpenWork::Prepared);
        assert_eq!(since(None), OpenWork::Unreliable);
    }
}
