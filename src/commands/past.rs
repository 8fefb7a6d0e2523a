//! How runs, changes and rejects of the past look: as rows of `history` and `status`, and one in full.
//!
//! A new column of the history is a line in `columns` here. `docs/CONTRIBUTING.md` says where the rest of it goes.

use chrono::{DateTime, Utc};
use std::cell::Cell as Remembered;

use super::surroundings;
use crate::event::Life;
use crate::export::verify::findings::Difference;
use crate::invoice::{SourceTime, Tenant};
use crate::lang::{Lang, Text, Word, shortened};
use crate::lock::{self, LockState};
use crate::refusal::Holder;
use crate::report::counts::{self, differ};
use crate::report::table::{Cell, Columns, Details, Table, TimeBy};
use crate::run::{Account, CountName, Counts, PastCounts, RunId};
use crate::state::State;
use crate::state::changes::{ChangeKind, MovedWatermark};
use crate::state::history::{OfTenant, PastChange, PastReject, PastRun, RunInFull, RunStatus};
use crate::state::pages::{HistoryEntry, What};
use crate::state::todo::Leftover;
use crate::state::verifications::{PastFinding, PastPending, PastVerification};
use crate::window::Span;

/// Characters of a remark or an error that fit a line of the list.
const SHOWN_OF_A_TEXT: usize = 100;

/// Tenants of a verification that the list names; more are counted.
const NAMED_TENANTS: usize = 3;

/// Which runs without an end are at work.
pub(super) struct Lives<'a> {
    state: &'a State,
    /// Asked once, so that the columns of a run say the same.
    known: Remembered<Option<(RunId, Life)>>,
}

impl<'a> Lives<'a> {
    pub(super) fn of_state(state: &'a State) -> Self {
        Self { state, known: Remembered::new(None) }
    }

    /// Whether a run is at work; None for runs that ended.
    pub(super) fn of(&self, run: &PastRun) -> Option<Life> {
        if run.status != RunStatus::Running {
            return None;
        }
        let known = self.known.get().filter(|(id, _)| *id == run.id);
        let (_, life) = known.unwrap_or_else(|| (run.id, self.ask(run)));
        self.known.set(Some((run.id, life)));
        Some(life)
    }

    /// A run holds the lock from before it is on record until after its end is. So one that is on record without an
    /// end is dead if the lock was free, or held by another process, at any time before.
    fn ask(&self, run: &PastRun) -> Life {
        match lock::ask(self.state.path()) {
            LockState::Unknown | LockState::Held(None) => Life::Unknown,
            LockState::Held(Some(holder)) if is_of(&holder, run) => Life::Alive,
            // It may have ended since its row was read.
            LockState::Free | LockState::Held(Some(_)) => match self.state.end_of(run.id) {
                Ok(None) => Life::Dead,
                Ok(Some(_)) => Life::Alive,
                Err(_) => Life::Unknown,
            },
        }
    }
}

fn is_of(holder: &Holder, run: &PastRun) -> bool {
    i64::try_from(holder.pid) == Ok(run.pid) && holder.host == run.host && holder.since.as_ref() == Some(&run.started)
}

/// The columns of the list of runs and changes.
pub(super) fn entry_columns<'a>(lives: &'a Lives<'a>, now: DateTime<Utc>) -> Columns<'a, HistoryEntry> {
    columns(lives, now)
        .for_programs("remark", "备注", |entry| match &entry.what {
            What::Run(_) => Cell::None,
            What::Change(change) => remark(change).into(),
        })
        .and(verification_columns())
}

/// The further columns of the list of one tenant.
pub(super) fn tenant_columns() -> Columns<'static, HistoryEntry> {
    let of_moved = |cell: fn(&MovedWatermark) -> Cell| {
        move |entry: &HistoryEntry| entry.watermark.as_ref().map_or(Cell::None, cell)
    };
    Columns::default()
        .column("tenant", "租户", of_moved(|moved| (&moved.tenant).into()))
        .column("old_watermark", "原水位线", of_moved(|moved| moved.old.as_ref().into()))
        .by(TimeBy::Source)
        .column("new_watermark", "新水位线", of_moved(|moved| moved.new.as_ref().into()))
        .by(TimeBy::Source)
        .all_for_programs()
}

/// The columns of the list but for the remark: those that a single run has too.
fn columns<'a>(lives: &'a Lives<'a>, now: DateTime<Utc>) -> Columns<'a, HistoryEntry> {
    Columns::default()
        .column("id", "编号", |entry: &HistoryEntry| match &entry.what {
            What::Run(run) => run.id.to_string().into(),
            What::Change(change) => change_id(change).into(),
        })
        .column("kind", "类型", |entry| match &entry.what {
            What::Run(run) => run.kind.into(),
            What::Change(change) => change.kind.into(),
        })
        .for_programs("status", "状态", of_run(|run| run.status.into()))
        .for_people("status", "状态", of_run(|run| status(lives, run).into()))
        .for_programs("alive", "存活", of_run(|run| alive(lives, run)))
        .column("started", "开始时间", |entry| match &entry.what {
            What::Run(run) => Cell::moment(&run.started),
            What::Change(change) => Cell::moment(&change.at),
        })
        .by(TimeBy::Own)
        .for_programs("finished", "结束时间", of_run(|run| Cell::moment(run.finished.as_ref())))
        .by(TimeBy::Own)
        .column("duration_seconds", "耗时", of_run(move |run| duration(lives, run, now)))
        .for_people("by", "执行者", |entry| {
            let (account, host) = starter(entry);
            account.at(&format!("@{host}")).into()
        })
        .for_people("window", "时间区间", window)
        .by(TimeBy::Source)
        .for_people("result", "结果", |entry| match &entry.what {
            What::Run(run) => result(lives, run).into(),
            What::Change(change) => short_remark(change).into(),
        })
        .for_programs("user", "用户", |entry| (&starter(entry).0.name).into())
        .for_programs("uid", "用户号", |entry| starter(entry).0.uid.map(i64::from).into())
        .for_programs("sudo_user", "sudo 用户", |entry| starter(entry).0.sudo_user.as_ref().into())
        .for_programs("host", "主机", |entry| starter(entry).1.into())
        .for_programs("since", "区间起点", of_run(|run| run.window.after.as_ref().into()))
        .by(TimeBy::Source)
        .for_programs("boundary", "导出时间边界", of_run(|run| run.boundary.as_ref().into()))
        .by(TimeBy::Source)
        .for_programs("tenants", "租户数", |entry| match &entry.what {
            What::Run(PastRun { verification: Some(verification), .. }) => verification.tenants.into(),
            What::Run(run) => run.tenants.into(),
            What::Change(change) => change.watermarks.into(),
        })
        .and(Columns::default().counts(counts).all_for_programs())
        .for_programs("retries", "重试次数", of_run(|run| run.retries.into()))
        .for_programs("error", "错误", of_run(|run| run.error.clone().into()))
}

/// What a verification compared, and what it found.
fn verification_columns() -> Columns<'static, HistoryEntry> {
    let of =
        |cell: fn(&PastVerification) -> Cell| of_run(move |run| run.verification.as_deref().map_or(Cell::None, cell));
    Columns::default()
        .column("until", "区间终点", of_run(|run| run.window.upto.as_ref().into()))
        .by(TimeBy::Source)
        .column("against", "比对对象", of(|verification| verification.against.into()))
        .column("content", "文件比对方式", of(|verification| verification.content.into()))
        .column("files_looked_at", "检查的文件", of(|verification| verification.files.into()))
        .column("differences", "差异", of(|verification| verification.differences.into()))
        .column("pending", "等待导出", of(|verification| verification.pending.into()))
        .column("known_rejects", "已知无法导出", of(|verification| verification.rejected.into()))
        .all_for_programs()
}

fn counts(entry: &HistoryEntry) -> Option<PastCounts> {
    match &entry.what {
        What::Run(run) => Some(run.counts),
        What::Change(_) => None,
    }
}

/// A cell that changes have nothing for.
fn of_run(cell: impl Fn(&PastRun) -> Cell) -> impl Fn(&HistoryEntry) -> Cell {
    move |entry| match &entry.what {
        What::Run(run) => cell(run),
        What::Change(_) => Cell::None,
    }
}

pub(super) fn change_id(change: &PastChange) -> String {
    format!("c{}", change.number)
}

fn status(lives: &Lives<'_>, run: &PastRun) -> Text {
    match lives.of(run) {
        Some(Life::Dead) => text!("running (dead)", "运行中（进程已不存在）"),
        _ => run.status.into(),
    }
}

/// Account and host.
fn starter(entry: &HistoryEntry) -> (&Account, &str) {
    match &entry.what {
        What::Run(run) => (&run.account, &run.host),
        What::Change(change) => (&change.account, &change.host),
    }
}

/// Between which source times a run read, or from where to where the watermark of the tenant went.
fn window(entry: &HistoryEntry) -> Cell {
    match (&entry.what, &entry.watermark) {
        (What::Run(_), Some(MovedWatermark { old, new: Some(new), .. })) => arrow(old.as_ref(), Some(new)).into(),
        (What::Run(PastRun { verification: Some(verification), window, .. }), _) => extent(verification, window).into(),
        (What::Run(PastRun { boundary, window: Span { after, upto }, .. }), _) => {
            span(after.as_ref(), boundary.as_ref().or(upto.as_ref())).into()
        }
        (What::Change(_), moved) => {
            moved.as_ref().map(|MovedWatermark { old, new, .. }| arrow(old.as_ref(), new.as_ref())).into()
        }
    }
}

/// Which tenants and source times a verification compared.
fn extent(verification: &PastVerification, Span { after, upto }: &Span) -> Text {
    let window = span(after.as_ref(), upto.as_ref());
    let tenants = verification.limited_to.as_ref().map(|tenants| match tenants.len() {
        1..=NAMED_TENANTS => {
            let names = tenants.iter().map(Tenant::as_str).collect::<Vec<_>>().join(", ");
            text!("tenant {names}", "租户 {names}")
        }
        n => text!("{n} tenants", "{n} 个租户"),
    });
    let parts = [tenants, window].into_iter().flatten();
    let extent = parts.reduce(|all, part| text!("{all}, {part}", "{all}，{part}"; all, part));
    extent.unwrap_or_else(|| text!("everything", "全部"))
}

/// A window of source times, each end of which may be open; None if both are.
pub(super) fn span(since: Option<&SourceTime>, until: Option<&SourceTime>) -> Option<Text> {
    let until = until.map(|until| format!("-> {until}"));
    let span = match (since, until) {
        (None, until) => until?,
        (Some(since), until) => format!("{since} {}", until.as_deref().unwrap_or("->")),
    };
    Some(Text::same(span))
}

/// From one value to the other, each of which may be missing.
fn arrow<T: ToString>(from: Option<T>, to: Option<T>) -> Text {
    let shown = |end: Option<T>| end.map_or_else(|| text!("none", "无"), |end| Text::same(end.to_string()));
    let (from, to) = (shown(from), shown(to));
    text!("{from} -> {to}", "{from} -> {to}"; from, to)
}

/// The counts of rows and files that are not zero, and the error.
fn result(lives: &Lives<'_>, run: &PastRun) -> Text {
    let Counts { written, new, .. } = run.counts.counts;
    let told = run.counts.values().filter_map(|(name, n)| Some((name, n.filter(|n| *n > 0)?)));
    let told = told.filter(|(CountName { column, .. }, _)| match *column {
        "seen" | "late_by" | "bytes" => false,
        "new" => new < written,
        _ => true,
    });
    let told = run.verification.as_deref().into_iter().map(compared).chain(counts::listed(told));
    let told = told.reduce(|all, one| text!("{all}, {one}", "{all}，{one}"; all, one));
    let error = run.error.as_ref().map(short);
    match (told, error) {
        (Some(told), Some(error)) => told.then(&error),
        (None, None) => match run.status {
            RunStatus::Running if lives.of(run) != Some(Life::Dead) => text!("nothing recorded yet", "尚无记录"),
            RunStatus::Running | RunStatus::Interrupted => text!("nothing recorded", "未记录任何结果"),
            _ => text!("nothing new", "无变化"),
        },
        (told, error) => told.or(error).unwrap_or_else(|| Text::same("")),
    }
}

/// What a verification came to.
fn compared(verification: &PastVerification) -> Text {
    let PastVerification { files, differences, rejected, .. } = verification;
    let compared = match differences {
        0 => text!("nothing differs", "没有差异"),
        _ => differ(*differences),
    };
    let compared = match files {
        Some(files) => {
            let counted = counts::count(*files, "file");
            text!("{counted}, {compared}", "{files} 个文件，{compared}"; compared)
        }
        None => compared,
    };
    match rejected {
        0 => compared,
        rejected => {
            text!("{compared}, {rejected} cannot be exported", "{compared}，{rejected} 张无法导出"; compared)
        }
    }
}

/// What a change was about, in words.
fn remark(change: &PastChange) -> Text {
    let watermarks = match change.watermarks {
        None => Some(text!("not known which watermarks moved", "无法得知移动了哪些水位线")),
        Some(0) => None,
        Some(1) => Some(text!("1 watermark", "1 个水位线")),
        Some(n) => Some(text!("{n} watermarks", "{n} 个水位线")),
    };
    let parts = [watermarks, change.file.as_ref().map(Text::same), before_and_after(change), reason(change)];
    parts.into_iter().flatten().reduce(|all, part| all.then(&part)).unwrap_or_else(|| Text::same(""))
}

/// The replaced state of a restore; of other changes the value before and after.
fn before_and_after(change: &PastChange) -> Option<Text> {
    match (change.kind, &change.old, &change.new) {
        (_, None, None) => None,
        (ChangeKind::Restore, Some(replaced), None) => {
            Some(text!("the state before is {replaced}", "原状态文件保留为 {replaced}"))
        }
        (_, old, new) => Some(arrow(old.as_ref(), new.as_ref())),
    }
}

/// As much of the remark as fits a line of the list.
fn short_remark(change: &PastChange) -> Text {
    short(&remark(change))
}

fn short(text: &Text) -> Text {
    let [en, zh] = [Lang::En, Lang::Zh].map(|lang| shortened(text.in_lang(lang), SHOWN_OF_A_TEXT));
    Text::new(en, zh)
}

/// What the operator said, or what made a run pull a watermark back.
fn reason(change: &PastChange) -> Option<Text> {
    let reason = change.reason.as_ref()?;
    Some(match change.kind {
        ChangeKind::PullBack => Text::new(reason, "它晚于导出时间边界"),
        _ => Text::same(reason),
    })
}

/// None where it is not known when the run ended.
fn duration(lives: &Lives<'_>, run: &PastRun, now: DateTime<Utc>) -> Cell {
    let end = match (run.status, lives.of(run)) {
        (RunStatus::Interrupted, _) | (_, Some(Life::Dead | Life::Unknown)) => None,
        (_, Some(Life::Alive)) => Some(now),
        (_, None) => run.finished.as_deref().and_then(parsed),
    };
    let start = parsed(&run.started);
    start.zip(end).map_or(Cell::None, |(start, end)| Cell::Seconds(end.signed_duration_since(start).num_seconds()))
}

/// A moment of the state, which keeps RFC 3339.
pub(super) fn parsed(moment: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(moment).ok().map(|moment| moment.to_utc())
}

/// Whether an unfinished run is at work, where that can be told.
fn alive(lives: &Lives<'_>, run: &PastRun) -> Cell {
    match lives.of(run) {
        Some(Life::Alive) => Cell::Flag(true),
        Some(Life::Dead) => Cell::Flag(false),
        Some(Life::Unknown) | None => Cell::None,
    }
}

/// A run with everything that belongs to it.
pub(super) fn run_details(full: RunInFull, lives: &Lives<'_>) -> Details {
    let RunInFull { run, tenants, rejects, rejects_left_out, pulled_back, leftovers, pending, findings } = full;
    let verified = run.verification.as_ref().and_then(|of| of.limited_to.clone()).unwrap_or_default();
    let (pid, version, command_line) = (run.pid, run.version.clone(), run.command_line.clone());
    let per_tenant = Columns::default()
        .column("tenant", "租户", |of: &OfTenant| (&of.watermark.tenant).into())
        .column("old_watermark", "原水位线", |of| of.watermark.old.as_ref().into())
        .by(TimeBy::Source)
        .column("new_watermark", "新水位线", |of| of.watermark.new.as_ref().into())
        .by(TimeBy::Source)
        .counts(|of| Some(of.counts))
        .column("error", "错误", |of| of.error.clone().into());
    let left = Columns::default()
        .column("path", "路径", |leftover: &Leftover| leftover.path.to_string().into())
        .column("id", "id", |leftover| (&leftover.id).into())
        .column("why", "原因", |leftover| leftover.why.into());
    let rejected = reject_columns()
        .column("closed_run", "关闭时的运行", |reject: &PastReject| reject.closed_run.into())
        .column("closed_how", "关闭方式", |reject| reject.closed_how.into());
    columns(lives, surroundings::now())
        .and(verification_columns())
        .facts(&HistoryEntry { what: What::Run(run), watermark: None })
        .fact("pid", "进程号", pid)
        .fact("version", "版本", version)
        .fact("command_line", "命令行", command_line)
        .fact("rejects_left_out", "未列出的问题记录", Some(rejects_left_out).filter(|number| *number > 0))
        .table("per_tenant", "各租户", per_tenant.table(&tenants))
        .table("rejects", "无法导出的发票", rejected.table(&rejects))
        .table("pulled_back", "退回的水位线", moves(&pulled_back))
        .table("leftovers", "遗留文件", left.table(&leftovers))
        .table("verified_tenants", "核对的租户", verified_tenants(&verified))
        .table("pending_tenants", "等待导出的租户", pending_tenants(&pending))
        .table("findings", "差异", found(&findings))
}

/// The tenants that a verification was limited to.
fn verified_tenants(tenants: &[Tenant]) -> Table {
    Columns::default().column("tenant", "租户", |tenant: &Tenant| tenant.into()).table(tenants)
}

/// The tenants with invoices that were pending at a verification.
fn pending_tenants(pending: &[PastPending]) -> Table {
    Columns::default()
        .column("tenant", "租户", |pending: &PastPending| pending.tenant.as_ref().into())
        .column("number", "数量", |pending| pending.number.into())
        .column("watermark", "当时的水位线", |pending| pending.watermark.as_ref().into())
        .by(TimeBy::Source)
        .table(pending)
}

/// What a verification found.
fn found(findings: &[PastFinding]) -> Table {
    Columns::default()
        .column("tenant", "租户", |finding: &PastFinding| finding.tenant.as_ref().into())
        .column("difference", "差异", |finding| difference(&finding.difference).into())
        .column("number", "数量", |finding| finding.number.into())
        .table(findings)
}

/// A difference by its word; one that a newer version found stays as it is.
fn difference(word: &str) -> Text {
    Difference::parse(word).map_or_else(|| Text::same(word), Text::from)
}

/// A change with the watermarks that it moved.
pub(super) fn change_details(change: &PastChange, moved: &[MovedWatermark]) -> Details {
    Details::default()
        .fact("id", "编号", change_id(change))
        .fact("kind", "类型", change.kind)
        .fact("started", "时间", Cell::moment(&change.at))
        .by(TimeBy::Own)
        .fact("user", "用户", &change.account.name)
        .fact("uid", "用户号", change.account.uid.map(i64::from))
        .fact("sudo_user", "sudo 用户", change.account.sudo_user.as_ref())
        .fact("host", "主机", &change.host)
        .fact("after_run", "此前最后一次运行", change.last_run)
        .fact("tenants", "租户数", change.watermarks)
        .fact("reason", "原因", reason(change))
        .fact("file", "文件", change.file.as_ref())
        .fact("sha256", "SHA-256", change.sha256.as_ref())
        .fact("lines", "行数", change.lines)
        .fact("old", "原值", change.old.as_ref())
        .fact("new", "新值", change.new.as_ref())
        .fact("command_line", "命令行", change.command_line.as_ref())
        .table("watermarks", "水位线", moves(moved))
}

/// From where to where watermarks went.
pub(super) fn moves(moved: &[MovedWatermark]) -> Table {
    Columns::default()
        .column("tenant", "租户", |moved: &MovedWatermark| (&moved.tenant).into())
        .column("old_watermark", "原水位线", |moved| moved.old.as_ref().into())
        .by(TimeBy::Source)
        .column("new_watermark", "新水位线", |moved| moved.new.as_ref().into())
        .by(TimeBy::Source)
        .table(moved)
}

/// The columns of open rejects, in `status --rejects` and with their run.
pub(super) fn reject_columns() -> Columns<'static, PastReject> {
    Columns::default()
        .column("tenant", "租户", |reject: &PastReject| reject.tenant.as_ref().into())
        .column("number", "发票号", |reject| reject.number.as_ref().into())
        .column("id", "id", |reject| (&reject.id).into())
        .column("time", "更新时间", |reject| reject.time.as_ref().into())
        .by(TimeBy::Source)
        .column("reason", "原因", |reject| reject.reason.into())
        .column("first_run", "首次运行", |reject| reject.opened_run.into())
        .column("since", "始于", |reject| Cell::moment(reject.opened.as_ref()))
        .by(TimeBy::Own)
        .column("last_run", "最近运行", |reject| reject.last_run.into())
        .column("detail", "详情", |reject| reject.detail.clone().into())
}
