//! From events to log lines: which are said, with which level and in which order.
//!
//! Nothing is printed here and no clock is read; lines are returned, moments come in as values.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::counts::{count, listed};
use super::line::{Level, Line};
use super::notices;
use super::settings::Verbosity;
use crate::event::{Event, Notice, TenantPast};
use crate::invoice::{InvoiceId, Reason, SourceTime, Tenant};
use crate::lang::{Message, Text, span};
use crate::refusal::{Holder, Trouble};
use crate::run::{Counts, Kind};
use crate::window::BASELINE;

pub(super) const RULE: &str = "==========================================";

/// A tree of broken documents must not bury everything else that a run says.
const REJECTS_SHOWN: u64 = 20;

/// The mode of a run, which changes the wording of most lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunMode {
    pub kind: Kind,
    pub dry_run: bool,
}

/// What a run of this kind is called.
pub(super) fn title(kind: Kind) -> Text {
    match kind {
        Kind::Full => text!("full export", "全量导出"),
        Kind::Incremental => text!("incremental export", "增量导出"),
        Kind::Backfill => text!("backfill export", "区间导出"),
        Kind::Verify => text!("verification", "核对"),
    }
}

/// What a run of this kind counts, in Chinese, with its classifier.
pub(super) fn records(kind: Kind) -> &'static str {
    match kind {
        Kind::Incremental => "条新记录",
        Kind::Full | Kind::Backfill | Kind::Verify => "条记录",
    }
}

/// The line at the beginning of a tenant.
fn tenant_started(
    kind: Kind,
    tenant: &Tenant,
    past: TenantPast,
    after: Option<&SourceTime>,
    upto: Option<&SourceTime>,
) -> Text {
    let upto = upto.map_or("...", SourceTime::as_str);
    let after = match (kind, past, after) {
        (Kind::Full, ..) => return text!("tenant {tenant}: started", "开始处理租户: {tenant}"),
        (Kind::Incremental, TenantPast::None, None) => {
            return text!(
                "tenant {tenant}: first export, from the baseline {BASELINE}",
                "租户 {tenant}: 首次导出，基线时间: {BASELINE}"
            );
        }
        // Full runs move no watermark, and `state reset` takes it away.
        (Kind::Incremental, TenantPast::Known, None) => {
            return text!(
                "tenant {tenant}: no watermark, from the baseline {BASELINE}",
                "租户 {tenant}: 没有水位线，基线时间: {BASELINE}"
            );
        }
        (.., after) => after.map_or(BASELINE, SourceTime::as_str),
    };
    text!("tenant {tenant}: {after} -> {upto}", "租户 {tenant}: {after} -> {upto}")
}

/// What came of a tenant.
fn tenant_done(mode: RunMode, tenant: &Tenant, counts: &Counts) -> Text {
    let Counts { written, unchanged, rejected, .. } = *counts;
    let (records, would, verb) = match mode.dry_run {
        true => (records(mode.kind), "would be exported", "将导出"),
        false => (records(mode.kind), "exported", "导出"),
    };
    let exported = count(written, "invoice");
    let right = count(unchanged, "invoice");
    let outcome = match mode.kind {
        Kind::Full if mode.dry_run => text!("tenant {tenant}: checked", "租户 {tenant} 检查完成"),
        Kind::Full => text!("tenant {tenant}: done", "租户 {tenant} 处理完成"),
        Kind::Incremental if written == 0 => text!("tenant {tenant}: nothing new", "租户 {tenant}: 无新增数据"),
        Kind::Backfill | Kind::Verify if written + unchanged == 0 => {
            text!("tenant {tenant}: nothing in this window", "租户 {tenant}: 区间内无数据")
        }
        Kind::Backfill | Kind::Verify if written == 0 => {
            text!("tenant {tenant}: {right} unchanged", "租户 {tenant}: {unchanged} 条记录未变化")
        }
        Kind::Incremental | Kind::Backfill | Kind::Verify => {
            text!("tenant {tenant}: {exported} {would}", "租户 {tenant}: {verb} {written} {records}")
        }
    };
    match rejected {
        0 => outcome,
        rejected => text!("{outcome}, {rejected} cannot be exported", "{outcome}，{rejected} 条无法导出"; outcome),
    }
}

/// All the numbers of a tenant, for `--verbose`.
fn tenant_counts(tenant: &Tenant, counts: &Counts) -> Text {
    let shown = Counts::NAMES.iter().zip(counts.values()).filter(|(name, _)| name.column != "late_by");
    let shown = listed(shown).unwrap_or_else(|| Text::same(""));
    text!("tenant {tenant}: {shown}", "租户 {tenant}: {shown}"; shown)
}

/// The error that ended the export of a tenant.
fn tenant_failed(tenant: &Tenant, trouble: &Trouble) -> Message {
    let Message { what, hint } = trouble.message();
    Message { what: text!("tenant {tenant}: failed: {what}", "租户 {tenant}: 导出失败: {what}"; what), hint }
}

/// The line of an invoice that cannot be exported.
fn rejected(tenant: Option<&Tenant>, id: &InvoiceId, number: Option<&str>, reason: &Reason) -> Text {
    let tenant =
        tenant.map_or(text!("unknown tenant", "租户未知"), |tenant| text!("tenant {tenant}", "租户 {tenant}"));
    let invoice = match number {
        Some(number) => text!("invoice {number} (id {id})", "发票 {number}（id {id}）"),
        None => text!("invoice id {id}", "发票 id {id} "),
    };
    let reason = reason.text();
    text!(
        "{tenant}: {invoice} cannot be exported: {reason}",
        "{tenant}: {invoice}无法导出: {reason}"; tenant, invoice, reason
    )
}

/// The line of a run that waits for the lock.
fn waiting(holder: Option<&Holder>, at_most: Duration) -> Text {
    let (holder, at_most) = (Holder::text(holder), span(at_most));
    text!(
        "waiting for another run to end, at most {at_most}: {holder}",
        "另一个导出进程正在运行，最多等待 {at_most}: {holder}"; holder, at_most
    )
}

/// The line of a command that waits for the server, on a terminal with how long it does.
fn retrying(trouble: &Trouble, pause: Duration, patience: Option<Duration>) -> Message {
    let Message { what, hint } = notices::retrying(trouble, pause);
    let Some(patience) = patience else { return Message { what, hint } };
    let patience = span(patience);
    let until = text!(
        "if it does not answer, it is tried again for {patience} (--retry-for); Ctrl-C ends that",
        "如果仍无应答，将在 {patience} 内不断重试（--retry-for），可用 Ctrl-C 结束"; patience
    );
    Message { what, hint: Some(hint.map_or(until.clone(), |hint| hint.then(&until))) }
}

/// A tenant without a printed outcome, with the lines that are due when its turn comes. The tenant in front has its
/// turn, so it holds back no lines.
struct OpenTenant {
    tenant: Tenant,
    held_back: Vec<Line>,
    done: bool,
}

/// The log of one run, line by line.
pub(super) struct Lines {
    verbosity: Verbosity,
    /// None where no line of progress is wanted, because there is a bar or because of a flag.
    progress_every: Option<Duration>,
    progress_due: Option<Instant>,
    /// None where it is not said, or was said of the server that is being waited for.
    patience: Option<Duration>,
    mode: RunMode,
    open: VecDeque<OpenTenant>,
    rejects: u64,
}

impl Lines {
    pub(super) fn new(verbosity: Verbosity, progress_every: Option<Duration>, patience: Option<Duration>) -> Self {
        let mode = RunMode { kind: Kind::Full, dry_run: false };
        Self { verbosity, progress_every, progress_due: None, patience, mode, open: VecDeque::new(), rejects: 0 }
    }

    /// The lines that an event brings out, some of which may be about events before it.
    pub(super) fn event(&mut self, event: &Event, now: Instant) -> Vec<Line> {
        let lines = match event {
            Event::Started { kind, dry_run } => self.started(RunMode { kind: *kind, dry_run: *dry_run }, now),
            Event::Waiting { holder, at_most } => vec![Line::info(waiting(holder.as_ref(), *at_most))],
            Event::Notice(Notice::Retrying { trouble, pause }) => {
                vec![Line::warn(retrying(trouble, *pause, self.patience.take()))]
            }
            // A warning that was mailed is not taken back in silence, so `--quiet` says it too.
            Event::Notice(notice @ Notice::ConditionEnded(_)) => return vec![notices::line(notice)],
            Event::Notice(notice) => vec![notices::line(notice)],
            Event::Reminder(notice) => vec![Line { level: Level::Info, ..notices::line(notice) }],
            // A full run has no window, and its log never spoke of one.
            Event::Boundary(_) | Event::ListingTenants if matches!(self.mode.kind, Kind::Full | Kind::Verify) => {
                Vec::new()
            }
            Event::Boundary(boundary) => {
                vec![Line::info(text!("boundary: {boundary}", "导出时间边界: {boundary}"))]
            }
            Event::ListingTenants => vec![Line::info(text!("listing tenants...", "获取租户列表..."))],
            Event::Expected(_) => Vec::new(),
            Event::TenantStarted { tenant, past, after, upto } => {
                let text = tenant_started(self.mode.kind, tenant, *past, after.as_ref(), upto.as_ref());
                self.tenant_started(tenant, Line::info(text))
            }
            Event::Progress { invoices } => self.progress(*invoices, now),
            Event::Rejected { tenant, id, number, reason } => {
                let line = || Line::warn(rejected(tenant.as_ref(), id, number.as_deref(), reason));
                self.rejected(tenant.as_ref(), line)
            }
            Event::Prospect { path, prospect } if self.verbosity == Verbosity::Verbose => {
                let prospect = Text::from(*prospect);
                vec![Line::info(text!("{prospect}: {path}", "{prospect}: {path}"; prospect))]
            }
            Event::Prospect { .. } => Vec::new(),
            Event::TenantDone { tenant, counts } => {
                let lines = self.outcome(tenant, counts);
                self.tenant_ended(tenant, lines)
            }
            Event::TenantFailed { tenant, trouble } => {
                self.tenant_ended(tenant, vec![Line::new(Level::Error, tenant_failed(tenant, trouble))])
            }
            Event::Finished(_) => return self.remaining(),
        };
        self.audible(lines)
    }

    /// The lines that are still held back when the run ends, whatever its outcome.
    pub(super) fn remaining(&mut self) -> Vec<Line> {
        let mut lines: Vec<Line> = self.open.drain(..).flat_map(|open| open.held_back).collect();
        let unshown = match self.verbosity {
            Verbosity::Verbose => 0,
            Verbosity::Quiet | Verbosity::Normal => self.rejects.saturating_sub(REJECTS_SHOWN),
        };
        self.rejects = 0;
        if unshown > 0 {
            lines.push(Line::warn(text!(
                "... and {unshown} more that cannot be exported",
                "... 另有 {unshown} 条无法导出"
            )));
        }
        self.audible(lines)
    }

    /// Without the lines that `--quiet` leaves out.
    fn audible(&self, mut lines: Vec<Line>) -> Vec<Line> {
        if self.verbosity == Verbosity::Quiet {
            lines.retain(|line| line.level >= Level::Warn);
        }
        lines
    }

    /// The head of the log.
    fn started(&mut self, mode: RunMode, now: Instant) -> Vec<Line> {
        self.mode = mode;
        self.progress_due = self.progress_every.map(|every| now + every);
        let mut lines = Vec::new();
        // No export, so none is announced.
        if mode.kind == Kind::Verify {
            return lines;
        }
        if mode.dry_run {
            lines.push(Line::info(text!(
                "dry run: everything is read and checked, nothing is written",
                "测试模式（DRY_RUN）: 只读取和检查，不写入任何文件"
            )));
        }
        let (kind, title) = (mode.kind.as_str(), title(mode.kind));
        lines.push(Line::info(text!("mode: {kind}", "运行模式: {kind}")));
        let title = text!("{title}", "执行{title}"; title);
        lines.extend([Text::same(RULE), title, Text::same(RULE)].map(Line::info));
        lines
    }

    /// A line of progress, if one is due.
    fn progress(&mut self, invoices: u64, now: Instant) -> Vec<Line> {
        match (self.progress_every, self.progress_due) {
            (Some(every), Some(due)) if due <= now => {
                self.progress_due = Some(now + every);
                let so_far = count(invoices, "invoice");
                vec![Line::info(match self.mode.dry_run {
                    true => text!("{so_far} checked so far...", "已检查 {invoices} 条记录..."),
                    false => text!("{so_far} exported so far...", "已导出 {invoices} 条记录..."),
                })]
            }
            _ => Vec::new(),
        }
    }

    /// The first rejects are shown, the rest only counted.
    fn rejected(&mut self, tenant: Option<&Tenant>, line: impl FnOnce() -> Line) -> Vec<Line> {
        self.rejects += 1;
        if self.verbosity != Verbosity::Verbose && self.rejects > REJECTS_SHOWN {
            return Vec::new();
        }
        let line = line();
        match tenant.and_then(|tenant| self.find(tenant)) {
            Some(open) => {
                open.held_back.push(line);
                self.in_turn()
            }
            None => vec![line],
        }
    }

    fn outcome(&self, tenant: &Tenant, counts: &Counts) -> Vec<Line> {
        let level = match self.mode.kind {
            Kind::Incremental | Kind::Backfill | Kind::Verify if counts.written == 0 => Level::Info,
            Kind::Full | Kind::Incremental | Kind::Backfill | Kind::Verify => Level::Success,
        };
        let mut lines = vec![Line::new(level, tenant_done(self.mode, tenant, counts))];
        if self.verbosity == Verbosity::Verbose {
            lines.push(Line::info(tenant_counts(tenant, counts)));
        }
        lines
    }

    /// Rows of a full run come in primary-key order, so its tenants are open all at once and none
    /// waits for another.
    fn tenant_started(&mut self, tenant: &Tenant, line: Line) -> Vec<Line> {
        if self.mode.kind == Kind::Full {
            return vec![line];
        }
        self.open.push_back(OpenTenant { tenant: tenant.clone(), held_back: vec![line], done: false });
        self.in_turn()
    }

    /// Puts the outcome behind everything that the tenant has said before.
    fn tenant_ended(&mut self, tenant: &Tenant, lines: Vec<Line>) -> Vec<Line> {
        match self.find(tenant) {
            Some(open) => {
                open.held_back.extend(lines);
                open.done = true;
            }
            None => self.open.push_back(OpenTenant { tenant: tenant.clone(), held_back: lines, done: true }),
        }
        self.in_turn()
    }

    fn find(&mut self, tenant: &Tenant) -> Option<&mut OpenTenant> {
        self.open.iter_mut().find(|open| open.tenant == *tenant && !open.done)
    }

    /// The lines that may be said now: everything of the tenants in front that are done, and of the first
    /// that is not.
    fn in_turn(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(front) = self.open.front_mut() {
            lines.append(&mut front.held_back);
            if !front.done {
                break;
            }
            self.open.pop_front();
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Condition;
    use crate::lang::Lang;

    fn lines(verbosity: Verbosity, kind: Kind) -> (Lines, Instant) {
        let start = Instant::now();
        let mut lines = Lines::new(verbosity, Some(Duration::from_secs(5)), None);
        lines.event(&Event::Started { kind, dry_run: false }, start);
        (lines, start)
    }

    fn started(tenant: &str) -> Event {
        let time = |text| Some(SourceTime::from(text));
        Event::TenantStarted { tenant: tenant.into(), past: TenantPast::Known, after: time("a"), upto: time("b") }
    }

    fn done(tenant: &str, written: u64) -> Event {
        let counts = Counts { seen: written, written, new: written, ..Counts::default() };
        Event::TenantDone { tenant: tenant.into(), counts }
    }

    fn rejected(tenant: &str) -> Event {
        let reason = Reason::NotUtf8 { offset: 3 };
        Event::Rejected { tenant: Some(tenant.into()), id: InvoiceId::from("7"), number: None, reason }
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.message.what.in_lang(Lang::En)).collect()
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
                "tenant 1: 1 invoice exported",
                "tenant 2: a -> b",
                "tenant 2: invoice id 7 cannot be exported: the document is not UTF-8 at byte 3",
                "tenant 2: 5 invoices exported",
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
        assert_eq!(texts(&lines.remaining()), ["tenant 2: a -> b", "tenant 2: 5 invoices exported"]);
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
        assert!(
            texts(&outcome)[1]
                .starts_with("tenant 1: 2 seen, 2 written (2 new, 0 replaced, 0 moved), 0 unchanged (0 taken over)"),
            "{outcome:?}"
        );
        assert_eq!(lines.remaining(), []);
    }

    #[test]
    fn a_quiet_run_says_only_warnings_and_errors() {
        let (mut lines, now) = lines(Verbosity::Quiet, Kind::Incremental);
        let failed = Event::TenantFailed { tenant: "1".into(), trouble: Trouble::from(&anyhow::anyhow!("no disk")) };
        let late = now + Duration::from_secs(60);
        assert_eq!(lines.event(&started("1"), now), []);
        assert_eq!(texts(&lines.event(&rejected("1"), now)).len(), 1);
        assert_eq!(lines.event(&Event::ListingTenants, now), []);
        assert_eq!(lines.event(&Event::Progress { invoices: 1 }, late), []);
        assert_eq!(texts(&lines.event(&failed, now)), ["tenant 1: failed: no disk"]);
        assert_eq!(lines.event(&done("2", 9), now), []);
        assert_eq!(lines.event(&Event::Notice(Notice::OpenWorkNotPermitted), now).len(), 1);
        let ended = lines.event(&Event::Notice(Notice::ConditionEnded(Condition::IndexMissing)), now);
        assert_eq!(ended.iter().map(|line| line.level).collect::<Vec<_>>(), [Level::Success]);
    }

    #[test]
    fn one_is_not_plural() {
        assert_eq!(count(1, "invoice"), "1 invoice");
        assert_eq!(count(0, "invoice"), "0 invoices");
    }
}
