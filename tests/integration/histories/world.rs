//! A table, an exporter and their clocks, in which a history happens and is told.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use chrono::DateTime;
use mysql::prelude::Queryable;

use super::clocks::Clocks;
use super::faults::{Obstacle, overtake};
use super::reference::{self, Invoice, Reference, Sight, Write};
use super::rows;
use super::steps::{Aside, Change, Deed, Ending, Fate, Holder, Kind, Machine, Pace, Rebuild, Refill, Run, Step};
use super::verdict::{Before, Recorded};
use crate::support::exporter::{Finished, run_with};
use crate::support::listing::all_but_runs;
use crate::support::state::meddle;
use crate::support::{Break, Exporter, Proxy, Table};

/// Friday, 28 November 2025, 16:00.
const BEGINNING: i64 = 1_764_345_600;
/// A row that no change concerns.
const FIRST: i64 = 7;

pub(super) struct World<'a> {
    table: &'a Table,
    pub(super) exporter: Exporter<'a>,
    pace: &'static Pace,
    /// Between the exporter and its server, if there is one.
    proxy: Option<Proxy>,
    /// None where the source is a server, whose clock cannot be told anything.
    clocks: Option<Clocks>,
    /// How much time had passed when a run recorded its clocks.
    recorded: i64,
    /// How many transactions were prepared.
    prepared: u32,
    machine: u32,
    open: Vec<OpenTransaction>,
    pub(super) reference: Reference,
    has_state: bool,
    story: &'a Story,
}

struct OpenTransaction {
    since: i64,
    writes: Vec<Write>,
    held: Held,
}

enum Held {
    /// By the story alone: of the embedded source, rows come with their old times when it is committed.
    Nowhere,
    ByConnection(mysql::Conn),
    Prepared(String),
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

pub(super) fn printed(time: i64) -> String {
    let moment = DateTime::from_timestamp(time, 0).expect("a time of our days");
    moment.format("%Y-%m-%d %H:%M:%S").to_string()
}

impl<'a> World<'a> {
    pub(super) fn new(table: &'a Table, pace: &'static Pace, story: &'a Story) -> Self {
        rows::create(table);
        let mut exporter = Exporter::in_memory(table)
            .env("INVOICE_EXPORT_SAFETY_LAG", format!("{}s", pace.lag))
            .env("INVOICE_EXPORT_OVERLAP", format!("{}s", pace.overlap))
            .env("INVOICE_EXPORT_MAX_DOCUMENT", rows::MAX_DOCUMENT)
            .env("INVOICE_EXPORT_BACKUP_EVERY", "0s");
        let proxy = matches!(table, Table::Server(_)).then(|| Proxy::to(&table.url()));
        if let Some(proxy) = &proxy {
            exporter.set("INVOICE_EXPORT_SOURCE", proxy.url());
        }
        let clocks = Clocks { source: BEGINNING, until: BEGINNING, own: BEGINNING, up: Some(0), machine: 0 };
        let clocks = matches!(table, Table::Embedded(_)).then_some(clocks);
        let (open, reference) = (Vec::new(), Reference::new(pace));
        let mut world = Self {
            table,
            exporter,
            pace,
            proxy,
            clocks,
            recorded: 0,
            prepared: 0,
            machine: 0,
            open,
            reference,
            has_state: false,
            story,
        };
        world.carry_out(vec![(FIRST, Some(world.certain("FIRST", "2025-11-01")))]);
        world
    }

    fn certain(&self, number: &'static str, date: &'static str) -> Invoice {
        let time = Some(self.now());
        Invoice { tenant: Some("1"), country: "CN", date, number, issued: true, document: "{}", time }
    }

    /// The source's clock.
    fn now(&self) -> i64 {
        self.clocks.map_or_else(|| self.table.unix(), |clocks| clocks.source)
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
            Step::Open(changes, holder) => self.leave_open(changes, *holder),
            Step::Close(ending) => self.close_oldest(*ending),
            Step::Pass(seconds) => self.pass(*seconds),
            Step::SetSourceClock(by) => self.set_clocks(*by, 0),
            Step::SetBothClocks(by) => self.set_clocks(*by, *by),
            Step::Move(machine) => self.change_machine(*machine),
            Step::Rebuild(rebuild) => _ = self.rebuild(*rebuild),
            Step::Refill(refill) => _ = self.refill(*refill),
            Step::Rehearsed(kind) => self.rehearse(*kind),
            Step::Aside(aside) => self.stand_aside(*aside),
            Step::Run(run) => _ = self.run(run),
        }
    }

    fn set_clocks(&mut self, source: i64, own: i64) {
        if let Some(clocks) = &mut self.clocks {
            (clocks.source, clocks.own) = (clocks.source + source, clocks.own + own);
        }
    }

    /// Not while a log lies beside the state, which is for the next run to find.
    fn change_machine(&mut self, machine: Machine) {
        let state = self.exporter.state();
        if state.exists() && !self.has_log() {
            let column = if machine == Machine::Restarted { "boot" } else { "host" };
            meddle(&state, &format!("UPDATE meta SET {column} = 'another' WHERE {column} IS NOT NULL"));
            self.machine += 1;
        }
    }

    fn has_log(&self) -> bool {
        self.exporter.state().with_extension("db-wal").exists()
    }

    /// A server would wait for the end of the transactions that are open.
    fn can_be_exchanged(&self) -> bool {
        matches!(self.table, Table::Embedded(_)) || self.open.is_empty()
    }

    fn rebuild(&mut self, rebuild: Rebuild) -> bool {
        if !self.can_be_exchanged() || !rows::try_each(self.table, &rows::rebuilding(self.table, rebuild)) {
            return false;
        }
        match rebuild {
            Rebuild::Altered | Rebuild::Copied => self.reference.identity.is_another(),
            Rebuild::Renamed => self.reference.identity.may_be_another(),
        }
        true
    }

    fn refill(&mut self, refill: Refill) -> bool {
        let now = self.now();
        let mut after = self.reference.rows.clone();
        match refill {
            Refill::Nothing => after.retain(|id, _| *id == FIRST),
            Refill::SameRows => {}
            Refill::NextYear | Refill::NextMonth => {
                for row in after.values_mut() {
                    (row.date, row.time) = (refill.date(row.date), Some(now));
                }
            }
        }
        if !self.can_be_exchanged() || !rows::try_each(self.table, &rows::refilling(self.table, after.clone())) {
            return false;
        }
        self.reference.identity.is_another();
        let before = self.reference.rows.clone();
        let changed = before.into_iter().filter(|(id, row)| after.get(id) != Some(row));
        self.reference.commit(changed.map(|(id, _)| (id, after.get(&id).cloned())).collect());
        true
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
        self.carry_out(vec![(99, Some(self.certain("LAST", "2025-12-31")))]);
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
            Some(Clocks { source, own, up, .. }) => {
                (*source, *own, *up) = (*source + seconds, *own + seconds, up.map(|up| up + seconds));
            }
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
        assert!(self.try_to_carry_out(writes), "nothing keeps the test from writing");
    }

    /// Whether no run that is stopped has locked what is to be written.
    fn try_to_carry_out(&mut self, writes: Vec<Write>) -> bool {
        let statements = writes.iter().map(|write| rows::statement(self.table, write));
        let done = rows::try_each(self.table, &rows::transaction(statements));
        if done {
            self.reference.commit(writes);
        }
        done
    }

    fn leave_open(&mut self, changes: &[Change], holder: Holder) {
        let since = self.now();
        let writes = self.writes(changes);
        if writes.is_empty() {
            return;
        }
        let held = match self.table {
            Table::Embedded(_) => Held::Nowhere,
            Table::Server(database) => {
                let mut connection = database.connect();
                let mut say =
                    |sql: &str| connection.query_drop(sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
                // Otherwise it would hold gaps between rows, and others could not insert there.
                say("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
                let name = format!("'{}-{}'", database.url().rsplit('/').next().unwrap_or_default(), self.prepared);
                match holder {
                    Holder::Connection => say("BEGIN"),
                    Holder::Prepared => say(&format!("XA START {name}")),
                }
                writes.iter().for_each(|write| say(&rows::statement(self.table, write)));
                match holder {
                    Holder::Connection => Held::ByConnection(connection),
                    Holder::Prepared => {
                        [format!("XA END {name}"), format!("XA PREPARE {name}")].iter().for_each(|sql| say(sql));
                        self.prepared += 1;
                        Held::Prepared(name)
                    }
                }
            }
        };
        self.open.push(OpenTransaction { since, writes, held });
    }

    fn close_oldest(&mut self, ending: Ending) {
        if self.open.is_empty() {
            return;
        }
        let OpenTransaction { writes, held, .. } = self.open.remove(0);
        let end = if ending == Ending::Committed { "COMMIT" } else { "ROLLBACK" };
        match held {
            Held::Nowhere if ending == Ending::Committed => return self.carry_out(writes),
            Held::Nowhere => {}
            Held::ByConnection(mut connection) => connection.query_drop(end).expect("end a transaction"),
            Held::Prepared(name) => self.table.execute(&format!("XA {end} {name}")),
        }
        if ending == Ending::Committed {
            self.reference.commit(writes);
        }
    }

    /// What it said, if it ended well.
    fn run(&mut self, Run { kind, fate }: &Run) -> Option<Finished> {
        let is_verify = matches!(kind, Kind::Repair | Kind::RepairDocuments);
        let is_unknown = matches!(kind, Kind::IncrementalOf(tenant) if !self.reference.has_tenant(tenant));
        // That these are refused is not what is asked here.
        if is_unknown || is_verify && !self.has_state {
            return None;
        }
        let clocks = self.show_clocks();
        let before = Before::look(&self.exporter);
        let sight = Sight {
            kind: *kind,
            clocks,
            open_since: self.oldest_open(),
            rejects: before.recorded.rejects.clone(),
            ended_well: false,
        };
        let obstacle = Obstacle::put(&self.exporter, fate);
        let died_before = self.reference.run_died;
        self.reference.begins();
        let identity = self.reference.identity.clone();
        let finished = self.start(kind, fate, &sight);
        let is_disturbed = obstacle.is_some() || matches!(fate, Fate::Overtaken { .. });
        let is_refused = obstacle.is_some_and(Obstacle::take_away);
        let may_fail = matches!(fate, Fate::Dies { .. } | Fate::Blocked(_) | Fate::Overtaken { .. });
        // Only the folders of the tree can be opened in another's place.
        let lacks = matches!(fate, Fate::ShortOfHandles { .. }) && finished.stderr.contains("/.export_state");
        let died = finished.was_killed() || (may_fail || lacks) && finished.status.code() == Some(1);
        let step = Step::Run(Run { kind: *kind, fate: fate.clone() });
        self.story.tell(clocks.source, &format!("{step}: {}", finished.status));
        self.has_state |= self.exporter.state().exists();
        let recorded = Recorded::look(&self.exporter);
        if let Some(Clocks { up: Some(up), .. }) = self.clocks
            && recorded.uptime != before.recorded.uptime
        {
            self.recorded = up;
        }
        if is_refused {
            assert_eq!(finished.status.code(), Some(5), "a link is not refused: {finished}");
            assert_eq!(self.exporter.stamps(), before.stamps, "a refused run touched files");
            return None;
        }
        let clocks = Clocks { until: self.now(), ..clocks };
        let sight = Sight { clocks, ended_well: !died && !is_disturbed, ..sight };
        self.assert_removed_rightly(&before, &identity, died_before || !sight.ended_well);
        if !sight.ended_well {
            self.reference.ran(&sight);
            // Of what is still in doubt the state says nothing, and a dry run leaves a run that died as it is.
            if !died && *kind != Kind::DryRun && recorded.doubts == 0 {
                self.exporter.assert_state_is_sound();
            }
            return None;
        }
        let expected: &[i32] = if is_verify { &[0, 6] } else { &[0, 3] };
        assert!(finished.status.code().is_some_and(|code| expected.contains(&code)), "{finished}");
        // It finds the traces of a run that died too.
        if is_verify && !self.reference.run_died {
            self.assert_reports_what_is_awaited_only(&finished.json());
        }
        self.reference.ran(&sight);
        if *kind == Kind::DryRun {
            assert_eq!(self.exporter.stamps(), before.stamps, "a dry run touched files");
        } else {
            self.assert_left_rightly(&before, &recorded, &identity);
            self.assert_right(&recorded);
        }
        Some(finished)
    }

    /// Where a log that a killed run left is not to be touched, nothing can be said of the time that passed.
    fn show_clocks(&mut self) -> Clocks {
        let now = self.now();
        let Some(clocks) = self.clocks else {
            return Clocks { source: now, until: now, own: now, up: Some(now), machine: self.machine };
        };
        let passed = clocks.up.unwrap_or_default() - self.recorded;
        self.exporter.set_clocks_though(clocks.source, clocks.own, passed);
        let up = clocks.up.filter(|_| !self.has_log());
        Clocks { up, machine: self.machine, until: now, ..clocks }
    }

    /// What a dry run says, a run does.
    fn rehearse(&mut self, kind: Kind) {
        let is_unknown = matches!(kind, Kind::IncrementalOf(tenant) if !self.reference.has_tenant(tenant));
        if self.clocks.is_none() || is_unknown {
            self.run(&Run { kind, fate: Fate::Lives });
            return;
        }
        self.show_clocks();
        let stamps = self.exporter.stamps();
        let mut args = self.args(kind);
        args.push("--dry-run".to_owned());
        let said = self.exporter.run(&args);
        assert!(matches!(said.status.code(), Some(0 | 3)), "{said}");
        assert_eq!(self.exporter.stamps(), stamps, "a dry run touched files");
        // What a dead run left is cleared up by the run alone.
        let is_known = !self.reference.run_died;
        if let Some(done) = self.run(&Run { kind, fate: Fate::Lives })
            && is_known
        {
            let counts = |finished: &Finished| {
                ["seen", "written", "unchanged", "rejected", "gone"].map(|name| finished.json()[name].clone())
            };
            assert_eq!(counts(&said), counts(&done), "a dry run said {said}, and the run {done}");
        }
    }

    /// It is on record, and everything else stays as it is.
    fn stand_aside(&mut self, aside: Aside) {
        if !self.has_state {
            return;
        }
        self.show_clocks();
        let look = |exporter: &Exporter<'_>| (exporter.stamps(), all_but_runs(&exporter.state()));
        let before = look(&self.exporter);
        let runs = self.exporter.ask("SELECT id FROM run").len();
        let done = self.exporter.run(aside.args());
        self.story.tell(self.now(), &format!("{aside:?}: {}", done.status));
        assert!(matches!(done.status.code(), Some(0 | 2 | 5 | 6)), "{done}");
        assert!(look(&self.exporter) == before, "{aside:?} changed more than the history: {done}");
        let recorded = self.exporter.ask("SELECT id FROM run").len() - runs;
        assert_eq!(recorded, 1, "{done}");
    }

    fn oldest_open(&self) -> Option<i64> {
        self.open.iter().filter(|open| !matches!(open.held, Held::Nowhere)).map(|open| open.since).min()
    }

    fn args(&self, kind: Kind) -> Vec<String> {
        let mut args = kind.args();
        if let Kind::Backfill(back) = kind {
            args.push(printed(self.now() - back));
        }
        args.extend(["--format", "json", "--no-progress"].map(str::to_owned));
        args
    }

    fn start(&mut self, kind: &Kind, fate: &Fate, sight: &Sight) -> Finished {
        let mut args = self.args(*kind);
        if !matches!(fate, Fate::Lives | Fate::Blocked(_) | Fate::Planted(_)) {
            // Calls are counted in each thread.
            args.extend(["--writers", "1"].map(str::to_owned));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match fate {
            Fate::Lives | Fate::Blocked(_) | Fate::Planted(_) => self.exporter.run(&args),
            Fate::Dies { call, how, nth } => run_with(&self.exporter, &format!("{call}:{how}:when={nth}"), &args),
            Fate::ShortOfHandles { nth } => {
                run_with(&self.exporter, &format!("openat2:error=EMFILE:when={nth}"), &args)
            }
            Fate::Overtaken { call, nth, deed } => {
                let run = overtake(&self.exporter, call, *nth, &args);
                let is_stopped = run.is_stopped();
                // It may have read what was there before, and what is there then.
                let clocks = Clocks { until: self.now(), ..sight.clocks };
                self.reference.ran(&Sight { clocks, rejects: Vec::new(), ..*sight });
                let done = is_stopped && self.carry_out_deed(deed);
                self.tell(if done {
                    "done while the run is stopped"
                } else {
                    "the run is not stopped, or has locked it"
                });
                self.reference.begins();
                run.go_on()
            }
            Fate::Broken { after } => {
                let proxy = self.proxy.as_ref().expect("a server is behind a proxy");
                proxy.break_once(*after, Break::Close);
                let finished = self.exporter.run(&args);
                proxy.break_no_more();
                finished
            }
        }
    }

    fn carry_out_deed(&mut self, deed: &Deed) -> bool {
        match deed {
            Deed::Commit(changes) => {
                let writes = self.writes(changes);
                self.try_to_carry_out(writes)
            }
            Deed::Refill(refill) => self.refill(*refill),
            Deed::Rebuild(rebuild) => self.rebuild(*rebuild),
        }
    }
}
