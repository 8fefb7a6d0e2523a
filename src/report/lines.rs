//! From events to log lines: which are said, with which level and in which order.
//!
//! Nothing is printed here and no clock is read; lines are returned, moments come in as values.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Verbosity;
use super::words::{Mode, Words};
use crate::event::{Event, Life, Notice};
use crate::invoice::Tenant;
use crate::run::{Counts, Kind};

pub(super) const RULE: &str = "==========================================";

/// A tree of broken documents must not bury everything else that a run says.
const REJECTS_SHOWN: u64 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Info,
    Success,
    Warn,
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub level: Level,
    pub text: String,
}

impl Line {
    pub(super) fn new(level: Level, text: impl Into<String>) -> Self {
        Self { level, text: text.into() }
    }

    pub(super) fn info(text: impl Into<String>) -> Self {
        Self::new(Level::Info, text)
    }

    pub(super) fn render(&self) -> String {
        let prefix = match self.level {
            Level::Info => "INFO",
            Level::Success => "SUCCESS",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        };
        format!("[{prefix}] {}", escaped(&self.text))
    }
}

/// Data must not steer the terminal or forge a line of the log: control characters, line separators
/// and marks that turn the direction of writing are shown, in a form that JSON reads as well.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                safe.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c if c.is_control() => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

/// A tenant whose outcome has not been printed, with what is to be said about it when its turn
/// comes. The tenant in front has its turn, so it holds nothing.
struct Open {
    tenant: Tenant,
    held: Vec<Line>,
    done: bool,
}

pub(super) struct Lines {
    words: &'static dyn Words,
    verbosity: Verbosity,
    /// None where nobody wants lines of progress, because there is a bar or because of a flag.
    progress_every: Option<Duration>,
    progress_due: Option<Instant>,
    mode: Mode,
    open: VecDeque<Open>,
    rejects: u64,
}

impl Lines {
    pub(super) fn new(words: &'static dyn Words, verbosity: Verbosity, progress_every: Option<Duration>) -> Self {
        let mode = Mode { kind: Kind::Full, dry_run: false };
        Self { words, verbosity, progress_every, progress_due: None, mode, open: VecDeque::new(), rejects: 0 }
    }

    pub(super) fn event(&mut self, event: &Event, now: Instant) -> Vec<Line> {
        let lines = match event {
            Event::Started { kind, dry_run } => self.started(Mode { kind: *kind, dry_run: *dry_run }, now),
            Event::Waiting { holder, at_most } => vec![Line::info(self.words.waiting(holder.as_ref(), *at_most))],
            Event::Notice(notice) => vec![Line::new(notice_level(notice), self.words.notice(notice))],
            // A full run has no window, and its log never spoke of one.
            Event::Boundary(_) | Event::ListingTenants if matches!(self.mode.kind, Kind::Full | Kind::Verify) => {
                Vec::new()
            }
            Event::Boundary(boundary) => vec![Line::info(self.words.boundary(boundary))],
            Event::ListingTenants => vec![Line::info(self.words.listing_tenants())],
            Event::Expected(_) => Vec::new(),
            Event::TenantStarted { tenant, after, upto } => {
                let text = self.words.tenant_started(self.mode.kind, tenant, after.as_ref(), upto.as_ref());
                self.tenant_started(tenant, Line::info(text))
            }
            Event::Progress { invoices } => self.progress(*invoices, now),
            Event::Rejected { tenant, id, number, reason } => {
                let text = self.words.rejected(tenant.as_ref(), id, number.as_deref(), reason);
                self.rejected(tenant.as_ref(), Line::new(Level::Warn, text))
            }
            Event::TenantDone { tenant, counts } => {
                let lines = self.outcome(tenant, counts);
                self.tenant_ended(tenant, lines)
            }
            Event::TenantFailed { tenant, trouble } => {
                let text = self.words.tenant_failed(tenant, &self.words.trouble(trouble));
                self.tenant_ended(tenant, vec![Line::new(Level::Error, text)])
            }
            Event::Finished(_) => return self.remaining(),
        };
        self.audible(lines)
    }

    /// What is still held back when the run ends, in whichever way.
    pub(super) fn remaining(&mut self) -> Vec<Line> {
        let mut lines: Vec<Line> = self.open.drain(..).flat_map(|open| open.held).collect();
        let unshown = match self.verbosity {
            Verbosity::Verbose => 0,
            Verbosity::Quiet | Verbosity::Normal => self.rejects.saturating_sub(REJECTS_SHOWN),
        };
        self.rejects = 0;
        if 0 < unshown {
            lines.push(Line::new(Level::Warn, self.words.more_rejected(unshown)));
        }
        self.audible(lines)
    }

    fn audible(&self, mut lines: Vec<Line>) -> Vec<Line> {
        if self.verbosity == Verbosity::Quiet {
            lines.retain(|line| Level::Warn <= line.level);
        }
        lines
    }

    fn started(&mut self, mode: Mode, now: Instant) -> Vec<Line> {
        self.mode = mode;
        self.progress_due = self.progress_every.map(|every| now + every);
        let mut lines = Vec::new();
        // No export, so none is announced.
        if mode.kind == Kind::Verify {
            return lines;
        }
        if mode.dry_run {
            lines.push(Line::info(self.words.dry_run()));
        }
        lines.push(Line::info(self.words.mode(mode.kind)));
        lines.extend([RULE, &self.words.title(mode.kind), RULE].map(Line::info));
        lines
    }

    fn progress(&mut self, invoices: u64, now: Instant) -> Vec<Line> {
        match (self.progress_every, self.progress_due) {
            (Some(every), Some(due)) if due <= now => {
                self.progress_due = Some(now + every);
                vec![Line::info(self.words.progress(self.mode, invoices))]
            }
            _ => Vec::new(),
        }
    }

    fn rejected(&mut self, tenant: Option<&Tenant>, line: Line) -> Vec<Line> {
        self.rejects += 1;
        if self.verbosity != Verbosity::Verbose && REJECTS_SHOWN < self.rejects {
            return Vec::new();
        }
        match tenant.and_then(|tenant| self.find(tenant)) {
            Some(open) => {
                open.held.push(line);
                self.in_turn()
            }
            None => vec![line],
        }
    }

    fn outcome(&self, tenant: &Tenant, counts: &Counts) -> Vec<Line> {
        let level = match self.mode.kind {
            Kind::Incremental | Kind::Backfill | Kind::Verify if self.mode.exported(counts) == 0 => Level::Info,
            Kind::Full | Kind::Incremental | Kind::Backfill | Kind::Verify => Level::Success,
        };
        let mut lines = vec![Line::new(level, self.words.tenant_done(self.mode, tenant, counts))];
        if self.verbosity == Verbosity::Verbose {
            lines.push(Line::info(self.words.tenant_counts(tenant, counts)));
        }
        lines
    }

    /// Rows of a full run come in primary-key order, so its tenants are open all at once and none
    /// waits for another.
    fn tenant_started(&mut self, tenant: &Tenant, line: Line) -> Vec<Line> {
        if self.mode.kind == Kind::Full {
            return vec![line];
        }
        self.open.push_back(Open { tenant: tenant.clone(), held: vec![line], done: false });
        self.in_turn()
    }

    fn tenant_ended(&mut self, tenant: &Tenant, lines: Vec<Line>) -> Vec<Line> {
        match self.find(tenant) {
            Some(open) => {
                open.held.extend(lines);
                open.done = true;
            }
            None => self.open.push_back(Open { tenant: tenant.clone(), held: lines, done: true }),
        }
        self.in_turn()
    }

    fn find(&mut self, tenant: &Tenant) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.tenant == *tenant && !open.done)
    }

    /// What may be said now: everything of the tenants in front that are done, and of the first
    /// that is not.
    fn in_turn(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(front) = self.open.front_mut() {
            lines.append(&mut front.held);
            if !front.done {
                break;
            }
            self.open.pop_front();
        }
        lines
    }
}

/// A warning is what the operator can or should do something about.
fn notice_level(notice: &Notice) -> Level {
    match notice {
        Notice::OpenWork { .. }
        | Notice::Replica { behind: Some(_) }
        | Notice::SetAside { .. }
        | Notice::TimeUnproven { .. }
        | Notice::RunUnfinished { life: Life::Alive | Life::Unknown, .. } => Level::Info,
        Notice::MissingIndex { .. }
        | Notice::OpenWorkUnknown
        | Notice::OpenWorkUnclear
        | Notice::PreparedWork
        | Notice::Replica { behind: None }
        | Notice::TakingOver { .. }
        | Notice::NoBackup { .. }
        | Notice::Recovering { .. }
        | Notice::Doubt(_)
        | Notice::PulledBack { .. }
        | Notice::LeftInPlace { .. }
        | Notice::StaysInPlace { .. }
        | Notice::TableUnknown
        | Notice::NotRemoved { .. }
        | Notice::TimesAhead { .. }
        | Notice::Late { .. }
        | Notice::Retrying { .. }
        | Notice::WithoutTime { .. }
        | Notice::Unread { .. }
        | Notice::WithoutTenant { .. }
        | Notice::NoSource
        | Notice::SourceSilent
        | Notice::JudgedByOwnClock
        | Notice::RunUnfinished { life: Life::Dead, .. }
        | Notice::Stale { .. } => Level::Warn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoice::{InvoiceId, Reason, SourceTime};
    use crate::refusal::Trouble;
    use crate::report::english::English;

    fn lines(verbosity: Verbosity, kind: Kind) -> (Lines, Instant) {
        let start = Instant::now();
        let mut lines = Lines::new(&English, verbosity, Some(Duration::from_secs(5)));
        lines.event(&Event::Started { kind, dry_run: false }, start);
        (lines, start)
    }

    fn started(tenant: &str) -> Event {
        let time = |text| Some(SourceTime::from(text));
        Event::TenantStarted { tenant: tenant.into(), after: time("a"), upto: time("b") }
    }

    fn done(tenant: &str, written: u64) -> Event {
        Event::TenantDone { tenant: tenant.into(), counts: Counts { seen: written, written, ..Counts::default() } }
    }

    fn rejected(tenant: &str) -> Event {
        let reason = Reason::NotUtf8 { offset: 3 };
        Event::Rejected { tenant: Some(tenant.into()), id: InvoiceId::from("7"), number: None, reason }
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn a_tenants_lines_wait_until_the_tenants_before_it_are_done() {
        let (mut lines, now) = lines(Verbosity::Normal, Kind::Incremental);
        let mut said = |event| lines.event(&event, now);
        assert_eq!(texts(&said(started("1"))), ["tenant 1: a -> b"]);
        assert_eq!(texts(&said(started("2"))), [""; 0]);
        assert_eq!(texts(&said(rejected("2"))), [""; 0]);
        assert_eq!(texts(&said(started("3"))), [""; 0]);
        assert_eq!(texts(&said(done("2", 5))), [""; 0]);
        assert_eq!(
            texts(&said(done("1", 1))),
            [
                "tenant 1: 1 new invoice exported",
                "tenant 2: a -> b",
                "tenant 2: invoice id 7 cannot be exported: the document is not UTF-8 at byte 3",
                "tenant 2: 5 new invoices exported",
                "tenant 3: a -> b",
            ]
        );
        assert_eq!(texts(&said(done("3", 0))), ["tenant 3: nothing new"]);
    }

    #[test]
    fn what_is_held_back_is_said_when_the_run_ends() {
        let (mut lines, now) = lines(Verbosity::Normal, Kind::Incremental);
        for event in [started("1"), started("2"), done("2", 5)] {
            lines.event(&event, now);
        }
        assert_eq!(texts(&lines.remaining()), ["tenant 2: a -> b", "tenant 2: 5 new invoices exported"]);
        assert_eq!(lines.remaining(), []);
    }

    #[test]
    fn the_tenants_of_a_full_run_do_not_wait_for_each_other() {
        let (mut lines, now) = lines(Verbosity::Normal, Kind::Full);
        assert_eq!(texts(&lines.event(&started("1"), now)), ["tenant 1: started"]);
        assert_eq!(texts(&lines.event(&started("2"), now)), ["tenant 2: started"]);
        assert_eq!(texts(&lines.event(&done("2", 1), now)), ["tenant 2: done"]);
    }

    #[test]
    fn progress_is_told_at_most_once_in_five_seconds() {
        let (mut lines, start) = lines(Verbosity::Normal, Kind::Full);
        let mut at = |milliseconds, invoices| {
            let event = Event::Progress { invoices };
            lines.event(&event, start + Duration::from_millis(milliseconds)).len()
        };
        assert_eq!([at(10, 1), at(4999, 2), at(5000, 3), at(9999, 4), at(10_000, 5)], [0, 0, 1, 0, 1]);
    }

    #[test]
    fn after_twenty_rejects_the_rest_is_only_counted() {
        let (mut lines, now) = lines(Verbosity::Normal, Kind::Full);
        let shown: usize = (0..25).map(|_| lines.event(&rejected("1"), now).len()).sum();
        assert_eq!(shown, 20);
        assert_eq!(texts(&lines.remaining()), ["... and 5 more that cannot be exported"]);
    }

    #[test]
    fn a_verbose_run_shows_every_reject_and_every_number() {
        let (mut lines, now) = lines(Verbosity::Verbose, Kind::Full);
        let shown: usize = (0..25).map(|_| lines.event(&rejected("1"), now).len()).sum();
        assert_eq!(shown, 25);
        let outcome = lines.event(&done("1", 2), now);
        assert!(outcome[1].text.starts_with("tenant 1: seen 2, written 2, unchanged 0"), "{outcome:?}");
        assert_eq!(lines.remaining(), []);
    }

    #[test]
    fn a_quiet_run_says_only_warnings_and_errors() {
        let (mut lines, now) = lines(Verbosity::Quiet, Kind::Incremental);
        let failed = Event::TenantFailed { tenant: "1".into(), trouble: Trouble::Other("no disk".to_owned()) };
        let late = now + Duration::from_secs(60);
        assert_eq!(lines.event(&started("1"), now), []);
        assert_eq!(texts(&lines.event(&rejected("1"), now)).len(), 1);
        assert_eq!(lines.event(&Event::ListingTenants, now), []);
        assert_eq!(lines.event(&Event::Progress { invoices: 1 }, late), []);
        assert_eq!(texts(&lines.event(&failed, now)), ["tenant 1: failed: no disk"]);
        assert_eq!(lines.event(&done("2", 9), now), []);
        assert_eq!(lines.event(&Event::Notice(Notice::OpenWorkUnknown), now).len(), 1);
    }

    #[test]
    fn data_cannot_steer_the_terminal_or_forge_a_line() {
        let line = Line::info("a\u{1b}[2Jb\nc\u{9b}d\u{7f}e\u{202e}f 租户");
        assert_eq!(line.render(), "[INFO] a\\u001b[2Jb\\nc\\u009bd\\u007fe\\u202ef 租户");
    }
}
