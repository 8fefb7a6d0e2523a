//! A table, an exporter and their clocks, in which a history happens and is told.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use chrono::DateTime;
use mysql::prelude::Queryable;
use serde_json::Value;

use super::reference::{self, Invoice, Reference, Sight, Write};
use super::steps::{Change, Ending, Fate, Kind, Pace, Run, Step};
use crate::support::disk::Closed;
use crate::support::exporter::{Finished, run_with};
use crate::support::table::quoted;
use crate::support::{Exporter, Table};

/// Friday, 28 November 2025, 16:00.
const BEGINNING: i64 = 1_764_345_600;

pub(super) struct World<'a> {
    table: &'a Table,
    exporter: Exporter<'a>,
    pace: &'static Pace,
    /// Source and own; None where the source is a server, whose clock cannot be told anything.
    clocks: Option<(i64, i64)>,
    open: Vec<OpenTransaction>,
    pub(super) reference: Reference,
    has_state: bool,
    story: &'a Story,
}

struct OpenTransaction {
    since: i64,
    writes: Vec<Write>,
    /// The embedded source has none: its rows come with their old times when it is committed.
    connection: Option<mysql::Conn>,
}

/// What happened, for whoever must understand a failure.
#[derive(Default)]
pub(super) struct Story(RefCell<String>);

impl Story {
    fn tell(&self, time: i64, line: &str) {
        let _ = writeln!(self.0.borrow_mut(), "  {}  {line}", printed(time));
    }

    pub(super) fn told(&self) -> String {
        self.0.borrow().clone()
    }
}

fn printed(time: i64) -> String {
    let moment = DateTime::from_timestamp(time, 0).expect("a time of our days");
    moment.format("%Y-%m-%d %H:%M:%S").to_string()
}

impl<'a> World<'a> {
    pub(super) fn new(table: &'a Table, pace: &'static Pace, story: &'a Story) -> Self {
        let exporter = Exporter::in_memory(table)
            .env("INVOICE_EXPORT_SAFETY_LAG", format!("{}s", pace.lag))
            .env("INVOICE_EXPORT_OVERLAP", format!("{}s", pace.overlap))
            .env("INVOICE_EXPORT_BACKUP_EVERY", "0s");
        let clocks = matches!(table, Table::Embedded(_)).then_some((BEGINNING, BEGINNING));
        let (open, reference) = (Vec::new(), Reference::new(pace));
        Self { table, exporter, pace, clocks, open, reference, has_state: false, story }
    }

    /// The source's clock.
    fn now(&self) -> i64 {
        self.clocks.map_or_else(|| self.table.unix(), |(source, _)| source)
    }

    fn tell(&self, line: &str) {
        self.story.tell(self.now(), line);
    }

    pub(super) fn live_through(&mut self, step: &Step) {
        if !matches!(step, Step::Run(_)) {
            self.tell(&step.to_string());
        }
        match step {
            Step::Commit(changes) => self.commit(changes),
            Step::Open(changes) => self.leave_open(changes),
            Step::Close(ending) => self.close_oldest(*ending),
            Step::Pass(seconds) => self.pass(*seconds),
            Step::SetSourceClock(by) => {
                if let Some((source, _)) = &mut self.clocks {
                    *source += by;
                }
            }
            Step::RebuildTable => self.rebuild_table(),
            Step::Run(run) => self.run(run),
        }
    }

    /// A server would wait for the end of the transactions that are open.
    fn rebuild_table(&self) {
        match self.table {
            Table::Embedded(_) => self.table.execute("VACUUM"),
            Table::Server(_) if self.open.is_empty() => self.table.execute("ALTER TABLE t_invoice FORCE"),
            Table::Server(_) => {}
        }
    }

    /// Everything ends well, and everything that was promised must be there.
    pub(super) fn end(&mut self) {
        while !self.open.is_empty() {
            self.tell("committed at the end: the oldest open transaction");
            self.close_oldest(Ending::Committed);
        }
        // The newest row is one that stays: a source whose newest row is gone looks like an older one.
        let newest = self.reference.newest_ever().unwrap_or_default();
        self.pass((newest - self.now()).max(0));
        let last = Invoice {
            tenant: "1",
            country: "CN",
            date: "2025-12-31",
            number: "LAST",
            issued: true,
            document: "{}",
            time: self.now(),
        };
        self.carry_out(vec![(99, Some(last))]);
        self.pass(self.pace.lag + 1);
        for _ in 0..2 {
            self.run(&Run { kind: Kind::Incremental, fate: Fate::Lives });
        }
        let awaited: Vec<_> = self
            .reference
            .rows
            .keys()
            .filter(|id| self.reference.is_awaited(**id) && self.reference.is_promised_to_runs(**id))
            .collect();
        assert!(awaited.is_empty(), "promised to runs, but no run was to bring {awaited:?}");
        self.prune();
        self.assert_exact();
    }

    fn pass(&mut self, seconds: i64) {
        match &mut self.clocks {
            Some((source, own)) => (*source, *own) = (*source + seconds, *own + seconds),
            None => {
                let until = self.table.unix() + seconds;
                while self.table.unix() < until {
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    /// The writes of a transaction, each built upon those before. Whatever another open transaction
    /// holds is left out.
    fn writes(&self, changes: &[Change]) -> Vec<Write> {
        let now = self.now();
        let mut rows = self.reference.rows.clone();
        let mut writes = Vec::new();
        for change in changes {
            let these = reference::writes(&rows, change, now);
            let held = |id: &i64| self.open.iter().flat_map(|open| &open.writes).any(|(other, _)| other == id);
            if these.iter().any(|(id, _)| held(id)) {
                continue;
            }
            for (id, row) in &these {
                rows.remove(id);
                rows.extend(row.clone().map(|row| (*id, row)));
            }
            writes.extend(these);
        }
        writes
    }

    fn commit(&mut self, changes: &[Change]) {
        let writes = self.writes(changes);
        self.carry_out(writes);
    }

    fn carry_out(&mut self, writes: Vec<Write>) {
        match self.table {
            Table::Server(database) => {
                let mut connection = database.connect();
                connection.query_drop("BEGIN").expect("begin");
                write(&mut connection, &writes);
                connection.query_drop("COMMIT").expect("commit");
            }
            Table::Embedded(_) => writes.iter().map(statement).for_each(|sql| self.table.execute(&sql)),
        }
        self.reference.commit(writes);
    }

    fn leave_open(&mut self, changes: &[Change]) {
        let since = self.now();
        let writes = self.writes(changes);
        if writes.is_empty() {
            return;
        }
        let connection = match self.table {
            Table::Embedded(_) => None,
            Table::Server(database) => {
                let mut connection = database.connect();
                // Otherwise it would hold gaps between rows, and others could not insert there.
                connection.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").expect("set it");
                connection.query_drop("BEGIN").expect("begin");
                write(&mut connection, &writes);
                Some(connection)
            }
        };
        self.open.push(OpenTransaction { since, writes, connection });
    }

    fn close_oldest(&mut self, ending: Ending) {
        if self.open.is_empty() {
            return;
        }
        let OpenTransaction { writes, connection, .. } = self.open.remove(0);
        match (connection, ending) {
            (Some(mut connection), Ending::Committed) => {
                connection.query_drop("COMMIT").expect("commit");
                self.reference.commit(writes);
            }
            (None, Ending::Committed) => self.carry_out(writes),
            (connection, Ending::RolledBack) => drop(connection),
        }
    }

    fn run(&mut self, Run { kind, fate }: &Run) {
        let is_verify = matches!(kind, Kind::Repair | Kind::RepairDocuments);
        let is_unknown = matches!(kind, Kind::IncrementalOf(tenant) if !self.reference.has_tenant(tenant));
        // That these are refused is not what is asked here.
        if is_unknown || is_verify && !self.has_state {
            return;
        }
        let mut args = kind.args();
        if let Kind::Backfill(back) = kind {
            args.push(printed(self.now() - back));
        }
        if let Some((source, own)) = self.clocks {
            self.exporter.set_clocks(source, own);
        }
        let before = (*kind == Kind::DryRun).then(|| self.exporter.stamps());
        let rejects =
            if is_verify { self.exporter.ask("SELECT id FROM reject WHERE closed_run IS NULL") } else { Vec::new() };
        let (source_clock, open_since) = (self.now(), self.oldest_open());
        let blocked = self.block(fate);
        let finished = self.start(&mut args, fate);
        let is_blocked = blocked.is_some();
        drop(blocked);
        let died = finished.was_killed() || !matches!(fate, Fate::Lives) && finished.status.code() == Some(1);
        let own_clock = self.clocks.map_or(source_clock, |(_, own)| own);
        self.story.tell(
            source_clock,
            &format!("{}: {}", Step::Run(Run { kind: *kind, fate: fate.clone() }), finished.status),
        );
        self.has_state |= self.exporter.state().exists();
        let sight =
            Sight { kind: *kind, source_clock, own_clock, open_since, rejects, ended_well: !died && !is_blocked };
        if !sight.ended_well {
            self.reference.ran(&sight);
            // Of what is still in doubt the state says nothing, and a dry run leaves a run that died as it is.
            if !died && *kind != Kind::DryRun && self.exporter.ask("SELECT path FROM doubt_path").is_empty() {
                self.exporter.assert_state_is_sound();
            }
            return;
        }
        let expected: &[i32] = if is_verify { &[0, 6] } else { &[0, 3] };
        assert!(finished.status.code().is_some_and(|code| expected.contains(&code)), "{finished}");
        // It finds the traces of a run that died too.
        if is_verify && !self.reference.run_died {
            self.assert_reports_what_is_awaited_only(&finished.json());
        }
        self.reference.ran(&sight);
        match before {
            Some(before) => assert_eq!(self.exporter.stamps(), before, "a dry run touched files"),
            None => self.assert_right(),
        }
    }

    fn oldest_open(&self) -> Option<i64> {
        self.open.iter().filter(|open| open.connection.is_some()).map(|open| open.since).min()
    }

    fn block(&self, fate: &Fate) -> Option<Closed> {
        let Fate::Blocked(folder) = fate else { return None };
        let folder = self.exporter.output().join(folder);
        folder.is_dir().then(|| Closed::new(folder))
    }

    fn start(&self, args: &mut Vec<String>, fate: &Fate) -> Finished {
        args.extend(["--format", "json", "--no-progress"].map(str::to_owned));
        match fate {
            Fate::Lives | Fate::Blocked(_) => self.exporter.run(args),
            Fate::Dies { call, how, nth } => {
                // Calls are counted in each thread.
                args.extend(["--writers", "1"].map(str::to_owned));
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                run_with(&self.exporter, &format!("{call}:{how}:when={nth}"), &args)
            }
        }
    }

    /// `verify` names nothing that runs had to bring and brought.
    fn assert_reports_what_is_awaited_only(&self, answer: &Value) {
        for finding in answer["findings"].as_array().expect("findings are a list") {
            let difference = finding["difference"].as_str().expect("a finding says what differs");
            if matches!(difference, "withdrawn" | "leftover") {
                continue;
            }
            let id = finding["id"].as_str().and_then(|id| id.parse().ok());
            assert!(id.is_some_and(|id| self.reference.is_awaited(id)), "verify finds what is right: {finding}");
        }
    }

    /// What must be true after every run that ended.
    fn assert_right(&self) {
        self.exporter.assert_state_is_sound();
        let tree = self.exporter.tree();
        let rejects = self.exporter.ask("SELECT id FROM reject WHERE closed_run IS NULL");
        let entries = self.exporter.ask("SELECT id, path FROM ledger");
        let is_rejected = |id: i64| rejects.contains(&id.to_string());
        let claims = self.reference.claims();
        for (path, claimants) in &claims {
            if claimants.iter().any(|id| self.reference.is_awaited(*id)) {
                continue;
            }
            let (Some(winner), found) = (claimants.last(), tree.get(path)) else { continue };
            let document = |id: &i64| self.reference.rows[id].document;
            let found = found.map(|content| String::from_utf8_lossy(content));
            assert_eq!(found.as_deref(), Some(document(winner)), "what lies at {path} of invoice {winner}");
            for id in claimants {
                // Who has the winner's very document and was read before it has its turn in the next run.
                if document(id) != document(winner) {
                    assert!(is_rejected(*id), "invoice {id} lost {path} to {winner} and is not rejected");
                } else if id == winner {
                    assert!(!is_rejected(*id), "invoice {id} has {path} and is rejected");
                }
                let entered = entries.contains(&format!("{id} {path}"));
                assert!(entered || is_rejected(*id), "invoice {id} is neither at {path} nor rejected");
            }
        }
        for (path, content) in &tree {
            assert!(
                self.reference.was_ever(path, content),
                "no invoice ever had at {path} what lies there: {}",
                String::from_utf8_lossy(content)
            );
        }
    }

    /// What is exported late can leave a file of the earlier invoice behind, so that comes first.
    fn prune(&mut self) {
        let verify = ["verify", "--against-source", "--documents", "--hash"];
        let repaired = self.exporter.run(verify.iter().chain(&["--repair"]));
        assert!(matches!(repaired.status.code(), Some(0 | 6)), "{repaired}");
        self.exporter.run(verify.iter().chain(&["--prune", "--prune-leftovers", "--prune-up-to", "1000"])).expect(0);
        self.exporter.run(verify).expect(0);
    }

    /// The tree is the table: every path has the document of its winner, and else there is nothing but
    /// the last good files of those that cannot be exported now.
    fn assert_exact(&self) {
        self.exporter.assert_state_is_sound();
        let claims = self.reference.claims();
        let mut tree = self.exporter.tree();
        for (path, claimants) in &claims {
            let winner = claimants.last().map(|id| &self.reference.rows[id]);
            let found = tree.remove(path).map(|content| String::from_utf8_lossy(&content).into_owned());
            assert_eq!(found.as_deref(), winner.map(|row| row.document), "what lies at {path} at the end");
        }
        let mut rejects = self.exporter.ask("SELECT id FROM reject WHERE closed_run IS NULL");
        rejects.sort();
        assert_eq!(rejects, self.reference.rejects(), "who is rejected at the end");
        for (path, content) in tree {
            let is_last_good = |id: &String| {
                let past = id.parse().map(|id| self.reference.was_at(id, &path)).unwrap_or_default();
                past.iter().any(|document| document.as_bytes() == content)
            };
            assert!(rejects.iter().any(is_last_good), "nobody's file is left at {path}");
        }
    }
}

fn write(connection: &mut mysql::Conn, writes: &[Write]) {
    for sql in writes.iter().map(statement) {
        connection.query_drop(&sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
    }
}

/// For servers and SQLite alike.
fn statement((id, row): &Write) -> String {
    let Some(row) = row else { return format!("DELETE FROM t_invoice WHERE fid = {id}") };
    let Invoice { tenant, country, date, number, issued, document, time } = row;
    let time = printed(*time);
    let texts = [tenant, country, date, number].map(|text| quoted(text));
    let [tenant, country, date, number] = &texts;
    let status = if *issued { 3 } else { 1 };
    let (document, time) = (quoted(document), quoted(&time));
    let columns = format!("{id}, {tenant}, {country}, {date}, {number}, {status}, {document}, {time}");
    format!("REPLACE INTO t_invoice VALUES ({columns})")
}
