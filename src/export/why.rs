//! One verdict on one invoice, from everything we know: the row as it is now, what the state says, and
//! the file. It asks what a run would ask and decides as a run would.

use std::path::Path;
use std::slice;
use std::time::Duration;

use crate::event::Event;
use crate::invoice::{InvoiceId, Reason, ReasonCode, SourceTime, Tenant};
use crate::lang::Text;
use crate::refusal::Refusal;
use crate::source::{ListedTenant, RowSummary, Source, SourceError};
use crate::state::State;
use crate::state::file_past::FilePast;
use crate::state::ledger::Entry;
use crate::state::tenants::KnownTenant;
use crate::state::todo::Leftover;
use crate::state::trace::Trace;
use crate::tree::Tree;
use crate::tree::asked::AskedFiles;
use crate::window::{OpenWork, Span};

use super::check::{CheckResult, Checker, FileState, Presence};
use super::plan::{self, HowToRead, Incremental, KeysToRead};
use super::server::ServerSession;
use super::ticket::Rewrite;

/// The answer to "why is it (not) there?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub status: InvoiceStatus,
    pub because: Text,
    pub next: Option<Text>,
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

/// Everything that is known of one invoice.
#[derive(Clone, Debug)]
pub struct Case {
    /// None: no row with this id or number.
    pub row: Option<RowSummary>,
    pub trace: Trace,
    pub tenant: Option<KnownTenant>,
    pub file: Option<FileNow>,
    /// Files that were left where the id was before.
    pub left_behind: Vec<Leftover>,
    pub verdict: Verdict,
}

words! {
    /// The file that the ledger names, against what the ledger says of it.
    pub enum FileNow {
        Intact = "intact", "完好";
        Missing = "missing", "缺失";
        Altered = "altered", "内容被改动";
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

    fn ask<R>(&mut self, question: impl FnMut(&mut dyn Source) -> Result<R, SourceError>) -> Result<R, SourceError> {
        self.server_session.ask(self.tell, question)
    }
}

/// The answer to a question by a number or by the path of a file.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub cases: Vec<Case>,
    /// Files that were asked for and that no invoice has any more.
    pub past: Vec<FilePast>,
}

/// Every invoice that has, or had when it was exported, this number, and those of these files.
pub fn why(
    number: &str,
    asked: &AskedFiles,
    tenant: Option<&Tenant>,
    state: &State,
    output: &Path,
    mut now: Option<&mut SourceSnapshot<'_>>,
) -> anyhow::Result<Answer> {
    let known = state.tenants()?;
    let mut ids = state.ids_of(number)?;
    let by_file = state.ids_with_files(asked)?;
    ids.extend(by_file.into_iter().filter(|id| !ids.contains(id)).collect::<Vec<_>>());
    let rows = match now.as_deref_mut() {
        Some(now) => now.ask(|source| source.find(number, &ids))?,
        None => Vec::new(),
    };
    ids.extend(rows.iter().filter(|row| !ids.contains(&row.id)).map(|row| row.id.clone()).collect::<Vec<_>>());
    let tree = Tree::open_existing(output)?;
    let mut cases = Vec::new();
    for id in ids {
        let row = rows.iter().find(|row| row.id == id).cloned();
        let trace = state.trace(&id)?;
        let whose = tenant_of(row.as_ref(), &trace);
        if tenant.is_some_and(|tenant| whose.as_ref() != Some(tenant)) {
            continue;
        }
        let file = trace.entry.as_ref().map(|entry| file_now(tree.as_ref(), entry)).transpose()?;
        let tenant = known.iter().find(|known| Some(&known.tenant) == whose.as_ref()).cloned();
        let verdict = match now.as_deref_mut() {
            None => judge_without_source(&trace, file),
            Some(now) => match &row {
                None => judge_gone(&trace),
                Some(row) => judge_row(row, &trace, file, tenant.as_ref(), &known, tree.as_ref(), now)?,
            },
        };
        let left_behind = state.leftovers_of(&trace.id)?;
        cases.push(Case { row, trace, tenant, file, left_behind, verdict });
    }
    let is_wanted = |past: &FilePast| tenant.is_none() || past.path.tenant_name().as_ref() == tenant;
    let past: Vec<FilePast> = state.past_of_files(asked)?.into_iter().filter(is_wanted).collect();
    if let Some(tenant) = tenant.filter(|_| cases.is_empty() && past.is_empty()) {
        refuse_unknown_tenant(tenant, &known, now)?;
    }
    Ok(Answer { cases, past })
}

/// Where there is no answer, a tenant that neither the state nor the source knows is a mistype.
fn refuse_unknown_tenant(
    tenant: &Tenant,
    known: &[KnownTenant],
    now: Option<&mut SourceSnapshot<'_>>,
) -> anyhow::Result<()> {
    if known.iter().any(|known| known.tenant == *tenant) {
        return Ok(());
    }
    let Some(now) = now else { return Err(Refusal::TenantNotInState(tenant.to_string()).into()) };
    let is_there = now.ask(|source| source.has_tenant(tenant))?;
    if is_there { Ok(()) } else { Err(Refusal::UnknownTenant(tenant.to_string()).into()) }
}

/// The tenant of the row, else of the ledger, else of the reject.
fn tenant_of(row: Option<&RowSummary>, trace: &Trace) -> Option<Tenant> {
    let rejected = || trace.reject.as_ref().and_then(|reject| reject.tenant.clone());
    let exported = || trace.entry.as_ref().map(|entry| entry.tenant.clone());
    row.and_then(|row| row.tenant.clone()).or_else(exported).or_else(rejected)
}

/// Compares the file with what the ledger says of it.
fn file_now(tree: Option<&Tree>, entry: &Entry) -> anyhow::Result<FileNow> {
    let digest = tree.map_or(Ok(None), |tree| tree.digest(&entry.path))?;
    Ok(match digest {
        None => FileNow::Missing,
        Some(digest) if digest == entry.digest => FileNow::Intact,
        Some(_) => FileNow::Altered,
    })
}

fn verdict(status: InvoiceStatus, because: Text, next: Option<Text>) -> Verdict {
    Verdict { status, because, next }
}

fn full_run() -> Text {
    text!("a full run (run --mode full) writes it again", "全量导出（run --mode full）会重新写入")
}

/// What a run will say again until the reject is mended.
fn rejected(trace: &Trace, code: ReasonCode, detail: Text) -> Verdict {
    let status = if trace.entry.is_some() { InvoiceStatus::Stale } else { InvoiceStatus::NotExported };
    let mend =
        || text!("mend the row; every run reads it again until then", "请修正这条记录；在此之前每次运行都会重新读取");
    verdict(status, detail, Some(mend_elsewhere(code).unwrap_or_else(mend)))
}

/// Of a file that is missing or altered.
fn wrong_file(file: FileNow) -> Verdict {
    verdict(InvoiceStatus::NotExported, text!("its file is {file}", "文件{file}"; file), Some(full_run()))
}

/// What can be said from the state alone.
fn judge_without_source(trace: &Trace, file: Option<FileNow>) -> Verdict {
    if let Some(reject) = &trace.reject {
        return rejected(trace, reject.reason, reject.detail.clone());
    }
    let next = text!(
        "the source was not asked: whether the row changed since is not known",
        "没有查询数据源，不知道这条记录此后是否有变化"
    );
    match file {
        Some(FileNow::Intact) => {
            verdict(InvoiceStatus::Exported, text!("its file is as it was exported", "文件与导出时相同"), Some(next))
        }
        Some(file) => wrong_file(file),
        None => verdict(
            InvoiceStatus::NotExported,
            text!("the state knows nothing of it", "状态文件中没有它的记录"),
            Some(next),
        ),
    }
}

fn orphaned(because: Text) -> Verdict {
    let next = text!("verify --against-source lists such files", "verify --against-source 可列出这类文件");
    verdict(InvoiceStatus::Orphaned, because, Some(next))
}

/// Of an id that has no row any more.
fn judge_gone(trace: &Trace) -> Verdict {
    match (&trace.entry, &trace.reject) {
        (Some(_), _) => {
            orphaned(text!("its row is not in the source any more; the file stays", "数据源中已没有这条记录；文件保留"))
        }
        (None, Some(reject)) => {
            let gone = text!("its row is not in the source any more", "数据源中已没有这条记录");
            let next = text!("the next run closes the reject", "下次运行会关闭这条问题记录");
            verdict(InvoiceStatus::NotExported, reject.detail.clone().then(&gone), Some(next))
        }
        (None, None) => verdict(InvoiceStatus::NotExported, text!("there is no such row", "没有这条记录"), None),
    }
}

/// Decides as the next run would.
fn judge_row(
    row: &RowSummary,
    trace: &Trace,
    file: Option<FileNow>,
    tenant: Option<&KnownTenant>,
    known: &[KnownTenant],
    tree: Option<&Tree>,
    now: &mut SourceSnapshot<'_>,
) -> anyhow::Result<Verdict> {
    if let Some(lacking) = lacking(row) {
        return Ok(judge_no_invoice(trace, lacking));
    }
    let document = document_now(&row.id, trace, tree, now)?;
    let waits = |first| judge_waiting(row, trace, tenant, known, now, first);
    Ok(match document {
        Document::Gone => {
            let next = text!("ask again", "请稍后重新查询");
            verdict(InvoiceStatus::Waiting, text!("its row is changing right now", "这条记录正在变化"), Some(next))
        }
        Document::Rejected(reason) => rejected(trace, reason.code(), reason.text()),
        Document::Same if file == Some(FileNow::Intact) => settled(trace),
        Document::Same => match file {
            Some(file) => wrong_file(file),
            None => waits(Some(text!("its file is right already, but not on record", "文件已正确，但没有登记"))),
        },
        Document::Other if trace.entry.is_none() => waits(None),
        Document::Other if file == Some(FileNow::Missing) => wrong_file(FileNow::Missing),
        Document::Other => waits(Some(text!("the row changed after it was exported", "导出之后这条记录有变化"))),
    })
}

/// Of a row that is no invoice, and what it lacks.
fn judge_no_invoice(trace: &Trace, lacking: Text) -> Verdict {
    if trace.entry.is_some() {
        return orphaned(text!(
            "it was exported, but now {lacking}; the file stays",
            "曾经导出，但现在{lacking}；文件保留"; lacking));
    }
    let next = text!(
        "it is exported once that is mended and its source time has moved",
        "修正之后，并且更新时间变化后，会被导出"
    );
    verdict(InvoiceStatus::NotExported, lacking, Some(next))
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
    Other,
}

fn document_now(
    id: &InvoiceId,
    trace: &Trace,
    tree: Option<&Tree>,
    now: &mut SourceSnapshot<'_>,
) -> anyhow::Result<Document> {
    let checker = Checker { tree, stage: None, presence: Presence::Checked, max_document: now.max_document };
    let mut found = Document::Gone;
    let mut compare = |fetched| {
        found = match checker.check(fetched, trace.entry.as_ref(), Rewrite::IfWrong)? {
            CheckResult::Reject(reject) => Document::Rejected(reject.reason),
            CheckResult::Trouble { trouble, .. } => return Err(trouble.message().into()),
            CheckResult::Candidate(candidate) => match candidate.file {
                FileState::Unchanged | FileState::Adopted => Document::Same,
                FileState::Staged(..) => match &trace.entry {
                    Some(entry) if entry.path == candidate.path && entry.digest == candidate.digest => Document::Same,
                    _ => Document::Other,
                },
            },
        };
        Ok(())
    };
    now.ask(|source| source.documents(slice::from_ref(id), &mut compare))?;
    Ok(found)
}

/// The remedy for a reject that is not to be mended in the row itself.
fn mend_elsewhere(reason: ReasonCode) -> Option<Text> {
    match reason {
        ReasonCode::PathTaken => Some(text!(
            "every run reads it again until the other invoice has another path",
            "在另一张发票换用其他路径之前，每次运行都会重新读取"
        )),
        ReasonCode::TooLarge => Some(text!(
            "run with a greater --max-document; every run reads it again until then",
            "请用更大的 --max-document 运行；在此之前每次运行都会重新读取"
        )),
        _ => None,
    }
}

/// Which run will take it, decided as the next incremental run would. `first` is what else there is to say.
fn judge_waiting(
    row: &RowSummary,
    trace: &Trace,
    tenant: Option<&KnownTenant>,
    known: &[KnownTenant],
    now: &SourceSnapshot<'_>,
    first: Option<Text>,
) -> Verdict {
    if let Some(reject) = trace.reject.as_ref().filter(|reject| mend_elsewhere(reject.reason).is_some()) {
        return rejected(trace, reject.reason, reject.detail.clone());
    }
    let status = if trace.entry.is_some() { InvoiceStatus::Stale } else { InvoiceStatus::Waiting };
    let (because, next) = if trace.reject.is_some() || trace.on_todo_list {
        let listed = text!("it is on the to-do list", "它在待处理列表中");
        (listed, text!("the next run reads it, whatever its window", "下次运行会读取它，不论时间区间"))
    } else {
        when_read(row, trace, tenant, known, now)
    };
    let because = first.map_or_else(|| because.clone(), |first| first.then(&because));
    verdict(status, because, Some(next))
}

/// Where the source time of a row lies, and which run reads it there.
fn when_read(
    row: &RowSummary,
    trace: &Trace,
    tenant: Option<&KnownTenant>,
    known: &[KnownTenant],
    now: &SourceSnapshot,
) -> (Text, Text) {
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
