//! Judges one invoice as a run would, from its row, the state and its file.

use std::slice;
use std::time::Duration;

use crate::event::Event;
use crate::export::check::{Before, Candidate, CheckResult, Checker, FileState, Presence};
use crate::export::in_doubt::InDoubt;
use crate::export::plan::{self, HowToRead, Incremental, KeysToRead};
use crate::export::server::ServerSession;
use crate::export::ticket::Rewrite;
use crate::invoice::{InvoiceId, Reason, ReasonCode, SourceTime, Tenant};
use crate::lang::Text;
use crate::source::{ListedTenant, RowSummary, Source, SourceError};
use crate::state::tenants::KnownTenant;
use crate::state::trace::Trace;
use crate::tree::Tree;
use crate::tree::name::TreePath;
use crate::window::{OpenWork, Span};

/// The answer to "why is it (not) there?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub status: InvoiceStatus,
    pub because: Text,
    pub next: Option<Text>,
    /// Where a run would put its file now; None: that is not known.
    pub due: Option<TreePath>,
}

words! {
    /// How an invoice stands.
    pub enum InvoiceStatus {
        /// The tree holds it as it is in the source.
        Exported = "exported", "已导出";
        /// The tree holds an older version of it.
        Stale = "stale", "文件已过时";
        /// A run will export it.
        Waiting = "waiting", "等待导出";
        NotExported = "not exported", "未导出";
        /// The tree holds it, but the source does not (any more).
        Orphaned = "orphaned", "数据源中已不存在";
    }
}

words! {
    /// The file that the ledger names, against what the ledger says of it.
    pub enum FileNow {
        Intact = "intact", "完好";
        Missing = "missing", "缺失";
        Altered = "altered", "内容被改动";
        /// It is not as the ledger says, and a run that died, or is at work, may be the cause.
        InDoubt = "in doubt", "待确认";
    }
}

/// What the source says now; without it only the state is asked.
pub struct SourceSnapshot<'a> {
    pub server_session: ServerSession,
    pub tell: &'a mut dyn FnMut(Event),
    pub boundary: SourceTime,
    pub work: OpenWork,
    pub listed: Vec<ListedTenant>,
    pub overlap: Duration,
    /// Bytes.
    pub max_document: u64,
}

impl<'a> SourceSnapshot<'a> {
    /// In the order of a run.
    pub fn of(
        mut server_session: ServerSession,
        lag: Duration,
        overlap: Duration,
        max_document: u64,
        tell: &'a mut dyn FnMut(Event),
    ) -> anyhow::Result<Self> {
        let boundary = server_session.ask(tell, |source| source.clock())?.boundary(lag);
        let work = server_session.ask_if_shown(tell, OpenWork::Unreliable, |source| source.open_work())?;
        let listed = server_session.ask(tell, |source| source.tenants(&boundary))?.tenants;
        Ok(Self { server_session, tell, boundary, work, listed, overlap, max_document })
    }

    pub(super) fn ask<R>(
        &mut self,
        question: impl FnMut(&mut dyn Source) -> Result<R, SourceError>,
    ) -> Result<R, SourceError> {
        self.server_session.ask(self.tell, question)
    }
}

/// What is known of an invoice, apart from its row.
pub(super) struct Clues<'a> {
    pub trace: &'a Trace,
    /// None where the ledger names no file, and no run that died may have written one.
    pub file: Option<FileNow>,
    pub in_doubt: &'a InDoubt,
    pub tenant: Option<&'a KnownTenant>,
    pub known: &'a [KnownTenant],
    pub tree: Option<&'a Tree>,
}

impl Clues<'_> {
    /// Adds to a reason that the file is in doubt, if it is.
    fn with_doubt(&self, because: Text) -> Text {
        if self.file == Some(FileNow::InDoubt) { because.then(&self.in_doubt.cause()) } else { because }
    }

    /// Of a file that is not as it should be.
    fn wrong_file(&self, file: FileNow) -> Verdict {
        match file {
            FileNow::InDoubt => verdict(InvoiceStatus::Waiting, self.in_doubt.cause(), Some(self.in_doubt.remedy())),
            _ => {
                verdict(InvoiceStatus::NotExported, text!("its file is {file}", "文件{file}"; file), Some(repair(file)))
            }
        }
    }

    /// Of an exported invoice that is none any more, and why.
    fn withdrawn(&self, because: Text) -> Verdict {
        let next = text!("verify --against-source lists such invoices", "verify --against-source 可列出这类发票");
        match self.file {
            Some(FileNow::Missing) => {
                let because = because.then(&text!("its file is missing too", "其文件也已缺失"));
                verdict(InvoiceStatus::NotExported, because, Some(next))
            }
            Some(FileNow::InDoubt) => verdict(InvoiceStatus::Orphaned, self.with_doubt(because), Some(next)),
            Some(FileNow::Intact | FileNow::Altered) | None => {
                verdict(InvoiceStatus::Orphaned, because.then(&text!("the file stays", "文件保留")), Some(next))
            }
        }
    }
}

/// Judges an invoice. None for the source: it was not asked. None for the row: the source has none.
pub(super) fn judge(
    row: Option<&RowSummary>,
    clues: &Clues<'_>,
    now: Option<&mut SourceSnapshot<'_>>,
) -> anyhow::Result<Verdict> {
    match (now, row) {
        (None, _) => Ok(judge_without_source(clues)),
        (Some(_), None) => Ok(judge_gone(clues)),
        (Some(now), Some(row)) => judge_row(row, clues, now),
    }
}

fn verdict(status: InvoiceStatus, because: Text, next: Option<Text>) -> Verdict {
    Verdict { status, because, next, due: None }
}

fn full_run() -> Text {
    text!("a full run (run --mode full) writes it again", "全量导出（run --mode full）会重新写入")
}

/// What writes a file again. A full run looks for a file of the exported size and does not read it.
fn repair(file: FileNow) -> Text {
    match file {
        FileNow::Altered => text!("verify --hash --repair writes it again", "verify --hash --repair 会重新写入"),
        FileNow::Intact | FileNow::Missing | FileNow::InDoubt => full_run(),
    }
}

/// What a run will say again until the reject is mended.
fn rejected(trace: &Trace, code: ReasonCode, detail: Text) -> Verdict {
    let status = if trace.entry.is_some() { InvoiceStatus::Stale } else { InvoiceStatus::NotExported };
    verdict(status, detail, Some(mend_elsewhere(code).unwrap_or_else(mend_row)))
}

fn mend_row() -> Text {
    text!("mend the row; every run reads it again until then", "请修正这条记录；在此之前每次运行都会重新读取")
}

/// The remedy for a reject that was found just now.
fn mend(reason: &Reason) -> Text {
    match reason {
        Reason::PathBlocked { path } => text!(
            "move away what lies at {path}; every run tries again until then",
            "请移走 {path} 处的东西；在此之前每次运行都会重试"
        ),
        _ => mend_elsewhere(reason.code()).unwrap_or_else(mend_row),
    }
}

/// What can be said from the state alone.
fn judge_without_source(clues: &Clues<'_>) -> Verdict {
    if let Some(reject) = &clues.trace.reject {
        return rejected(clues.trace, reject.reason, clues.with_doubt(reject.detail.clone()));
    }
    let next = text!(
        "the source was not asked: whether the row changed since is not known",
        "没有查询数据源，不知道这条记录此后是否有变化"
    );
    match clues.file {
        Some(FileNow::Intact) => {
            verdict(InvoiceStatus::Exported, text!("its file is as it was exported", "文件与导出时相同"), Some(next))
        }
        Some(file) => clues.wrong_file(file),
        None => verdict(
            InvoiceStatus::NotExported,
            text!("the state knows nothing of it", "状态文件中没有它的记录"),
            Some(next),
        ),
    }
}

/// Of an id that has no row any more.
fn judge_gone(clues: &Clues<'_>) -> Verdict {
    match (&clues.trace.entry, &clues.trace.reject) {
        (Some(_), _) => clues.withdrawn(text!("its row is not in the source any more", "数据源中已没有这条记录")),
        (None, Some(reject)) => {
            let gone = text!("its row is not in the source any more", "数据源中已没有这条记录");
            let next = text!("the next run closes the reject", "下次运行会关闭这条问题记录");
            verdict(InvoiceStatus::NotExported, clues.with_doubt(reject.detail.clone().then(&gone)), Some(next))
        }
        (None, None) if clues.file == Some(FileNow::InDoubt) => {
            let gone = text!("its row is not in the source any more", "数据源中已没有这条记录");
            let next = clues.in_doubt.remedy();
            verdict(InvoiceStatus::NotExported, clues.with_doubt(gone), Some(next))
        }
        (None, None) => verdict(InvoiceStatus::NotExported, text!("there is no such row", "没有这条记录"), None),
    }
}

/// Decides as the next run would.
fn judge_row(row: &RowSummary, clues: &Clues<'_>, now: &mut SourceSnapshot<'_>) -> anyhow::Result<Verdict> {
    if let Some(lacking) = lacking(row) {
        return Ok(judge_no_invoice(clues, lacking));
    }
    let (document, due) = document_now(&row.id, clues, now)?;
    Ok(Verdict { due, ..judge_document(row, clues, document, now) })
}

fn judge_document(row: &RowSummary, clues: &Clues<'_>, document: Document, now: &SourceSnapshot<'_>) -> Verdict {
    let Clues { trace, file, .. } = clues;
    let waits = |first| judge_waiting(row, clues, now, first);
    match (document, *file) {
        (Document::Gone, _) => {
            let next = text!("ask again", "请稍后重新查询");
            verdict(InvoiceStatus::Waiting, text!("its row is changing right now", "这条记录正在变化"), Some(next))
        }
        (Document::Rejected(reason), _) => {
            Verdict { next: Some(mend(&reason)), ..rejected(trace, reason.code(), clues.with_doubt(reason.text())) }
        }
        (_, Some(file @ FileNow::InDoubt)) => clues.wrong_file(file),
        (Document::Same, Some(FileNow::Intact)) => settled(trace),
        (Document::Same, Some(file)) => clues.wrong_file(file),
        (Document::Same, None) => {
            waits(Some(text!("its file is right already, but not on record", "文件已正确，但没有登记")))
        }
        (Document::Other(Before::AFile), None) => {
            waits(Some(text!("another file lies at its path", "该路径上是另一个文件")))
        }
        (Document::Other(_), None) => waits(None),
        (Document::Other(_), Some(file @ FileNow::Missing)) => clues.wrong_file(file),
        (Document::Other(_), Some(_)) => {
            waits(Some(text!("the row changed after it was exported", "导出之后这条记录有变化")))
        }
    }
}

/// Of a row that is no invoice, and what it lacks.
fn judge_no_invoice(clues: &Clues<'_>, lacking: Text) -> Verdict {
    if clues.trace.entry.is_some() {
        return clues.withdrawn(text!("it was exported, but now {lacking}", "曾经导出，但现在{lacking}"; lacking));
    }
    let next = text!(
        "it is exported once that is mended and its source time has moved",
        "修正之后，并且更新时间变化后，会被导出"
    );
    verdict(InvoiceStatus::NotExported, clues.with_doubt(lacking), Some(next))
}

/// Of a file that holds the document of the source.
fn settled(trace: &Trace) -> Verdict {
    if let Some(reject) = &trace.reject {
        let because = reject.detail.clone().then(&text!("the row has been mended", "这条记录已修正"));
        return verdict(InvoiceStatus::Stale, because, Some(text!("the next run exports it", "下次运行会导出")));
    }
    let because =
        text!("its file is intact and holds the document as it is in the source", "文件完好，内容与数据源一致");
    verdict(InvoiceStatus::Exported, because, None)
}

/// What keeps a row from being an invoice.
fn lacking(row: &RowSummary) -> Option<Text> {
    let status = row.status.as_deref().unwrap_or("NULL");
    let parts = [
        (row.issued, text!("its status is {status}, so it is not issued", "状态为 {status}，不是已开票")),
        (row.has_document, text!("it has no document", "没有发票内容")),
        (row.has_date, text!("it has no issue date", "没有开票日期")),
        (row.number.is_some(), text!("it has no number", "没有发票号")),
        (row.tenant.is_some(), text!("it has no tenant", "没有租户")),
    ];
    let lacking = parts.into_iter().filter(|(there, _)| !there).map(|(_, lacking)| lacking);
    lacking.reduce(|all, next| text!("{all} and {next}", "{all}，且{next}"; all, next))
}

/// The document as it is now, against the file and the ledger.
enum Document {
    /// Not an invoice any more, since the row was looked at.
    Gone,
    Rejected(Reason),
    Same,
    /// With the file that is at its path now.
    Other(Before),
}

/// The document, and the path where a run would put it.
fn document_now(
    id: &InvoiceId,
    clues: &Clues<'_>,
    now: &mut SourceSnapshot<'_>,
) -> anyhow::Result<(Document, Option<TreePath>)> {
    let Clues { trace, tree, .. } = *clues;
    let checker = Checker { tree, stage: None, presence: Presence::Checked, max_document: now.max_document };
    let (mut found, mut due) = (Document::Gone, None);
    let mut compare = |fetched| {
        found = match checker.check(fetched, trace.entry.as_ref(), Rewrite::IfWrong)? {
            CheckResult::Reject(reject) => Document::Rejected(reject.reason),
            CheckResult::Trouble { trouble, .. } => return Err(trouble.message().into()),
            CheckResult::Candidate(candidate) => {
                due = Some(candidate.path.clone());
                against_ledger(&candidate, trace)
            }
        };
        Ok(())
    };
    now.ask(|source| source.documents(slice::from_ref(id), &mut compare))?;
    Ok((found, due))
}

fn against_ledger(candidate: &Candidate, trace: &Trace) -> Document {
    match (&candidate.file, &trace.entry) {
        (FileState::Unchanged | FileState::Adopted, _) => Document::Same,
        (FileState::Staged(..), Some(entry)) if entry.path == candidate.path && entry.digest == candidate.digest => {
            Document::Same
        }
        (FileState::Staged(_, before), _) => Document::Other(*before),
    }
}

/// The remedy for a reject that is not to be mended in the row itself.
fn mend_elsewhere(reason: ReasonCode) -> Option<Text> {
    match reason {
        ReasonCode::PathTaken => Some(text!(
            "every run reads it again until the other invoice has another path",
            "在另一张发票换用其他路径之前，每次运行都会重新读取"
        )),
        ReasonCode::PathBlocked => Some(text!(
            "move away what lies in the place of its file; every run tries again until then",
            "请移走占用其文件路径的东西；在此之前每次运行都会重试"
        )),
        ReasonCode::TooLarge => Some(text!(
            "run with a greater --max-document; every run reads it again until then",
            "请用更大的 --max-document 运行；在此之前每次运行都会重新读取"
        )),
        _ => None,
    }
}

/// Which run will take it, decided as the next incremental run would. `first` is what else there is to say.
fn judge_waiting(row: &RowSummary, clues: &Clues<'_>, now: &SourceSnapshot<'_>, first: Option<Text>) -> Verdict {
    let trace = clues.trace;
    if let Some(reject) = trace.reject.as_ref().filter(|reject| mend_elsewhere(reject.reason).is_some()) {
        return rejected(trace, reject.reason, reject.detail.clone());
    }
    let status = if trace.entry.is_some() { InvoiceStatus::Stale } else { InvoiceStatus::Waiting };
    let (because, next) = if trace.reject.is_some() || trace.on_todo_list {
        let listed = text!("it is on the to-do list", "它在待处理列表中");
        (listed, text!("the next run reads it, whatever its window", "下次运行会读取它，不论时间区间"))
    } else {
        when_read(row, clues, now)
    };
    let because = first.map_or_else(|| because.clone(), |first| first.then(&because));
    verdict(status, because, Some(next))
}

/// Where the source time of a row lies, and which run reads it there.
fn when_read(row: &RowSummary, clues: &Clues<'_>, now: &SourceSnapshot<'_>) -> (Text, Text) {
    let Clues { trace, tenant, known, .. } = clues;
    let Some(time) = row.time.as_ref().filter(|time| crate::window::earlier(time, Duration::ZERO).is_some()) else {
        return (
            text!("it has no usable source time", "没有可用的更新时间"),
            text!("only a full run (run --mode full) exports it", "只有全量导出（run --mode full）会导出"),
        );
    };
    let boundary = &now.boundary;
    if time > boundary {
        return ahead(time, boundary);
    }
    let watermark = tenant.and_then(|tenant| tenant.watermark.as_ref());
    if watermark.is_none_or(|watermark| time > watermark) {
        return in_next_window(time, watermark, boundary);
    }
    if trace.entry.as_ref().is_some_and(|entry| entry.settled && entry.time.as_ref() == Some(time)) {
        let unmoved = text!(
            "its source time {time} did not move, so incremental runs do not see the change",
            "更新时间 {time} 没有变化，增量导出看不到这次改动"
        );
        return (unmoved, full_run());
    }
    late(time, keys_to_read(row, known, now))
}

/// Of a row after the boundary.
fn ahead(time: &SourceTime, boundary: &SourceTime) -> (Text, Text) {
    (
        text!(
            "its source time {time} lies after the boundary {boundary}",
            "更新时间 {time} 晚于导出时间边界 {boundary}"
        ),
        text!(
            "an incremental run exports it once the boundary has passed that time",
            "导出时间边界越过该时间后，由增量导出处理"
        ),
    )
}

/// Of a row between watermark and boundary.
fn in_next_window(time: &SourceTime, watermark: Option<&SourceTime>, boundary: &SourceTime) -> (Text, Text) {
    let from = watermark.map_or_else(|| text!("the beginning", "最早"), |from| Text::same(from.as_str()));
    (
        text!(
            "its source time {time} lies in the next window ({from} to {boundary})",
            "更新时间 {time} 在下次导出的区间内（{from} 至 {boundary}）";
            from
        ),
        text!("the next incremental run exports it", "下次增量导出会导出"),
    )
}

/// Of a row at or below the watermark.
fn late(time: &SourceTime, keys: KeysToRead) -> (Text, Text) {
    let late = text!(
        "its source time {time} lies below the watermark: it was committed late, or its time set by hand",
        "更新时间 {time} 早于水位线: 延迟提交，或时间是手工设置的"
    );
    match keys {
        KeysToRead::In(Span { after, .. }) if after.as_ref().is_none_or(|after| time > after) => (
            late,
            text!(
                "the next incremental run exports it: it reads keys from before that time",
                "下次增量导出会导出: 它从该时间之前开始读取"
            ),
        ),
        KeysToRead::In(_) | KeysToRead::None => (
            text!("{late}, and below what the next incremental run reads", "{late}，且早于下次增量导出的读取范围"; late),
            text!(
                "export it with run --mode full, or with run --since and a time before it",
                "请用 run --mode full 导出，或用 run --since 加一个更早的时间"
            ),
        ),
    }
}

/// What the next incremental run reads of the tenant.
fn keys_to_read(row: &RowSummary, known: &[KnownTenant], now: &SourceSnapshot<'_>) -> KeysToRead {
    let SourceSnapshot { boundary, work, overlap, listed, .. } = now;
    let how = HowToRead::Incremental(Incremental { known, boundary, work, overlap: *overlap });
    let chosen: Vec<Tenant> = row.tenant.iter().cloned().collect();
    let groups = plan::groups(listed, &chosen, known, &how);
    groups.into_iter().next().map_or(KeysToRead::None, |group| group.keys)
}
