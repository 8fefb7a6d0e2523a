//! `why`: one verdict on one invoice, asked for by its number or its file.

use std::path::Path;

use clap::ArgMatches;

use super::surroundings;
use crate::cli::{Common, Why};
use crate::event::Event;
use crate::export::ServerSession;
use crate::export::in_doubt::InDoubt;
use crate::export::why::{self, Answer, Case, Evidence, InvoiceStatus, SourceSnapshot};
use crate::given_time::OwnZone;
use crate::invoice::{SourceTime, Tenant};
use crate::lang::{Message, Text};
use crate::report::Reporter;
use crate::report::table::{Details, TimeBy};
use crate::source::{Access, RowSummary};
use crate::state::State;
use crate::state::file_past::FilePast;
use crate::state::history::FileAction;
use crate::state::trace::{OpenReject, RunNote, RunOnFile};
use crate::tree::asked::AskedFiles;
use crate::tree::name::TreePath;
use crate::tree::stage::{Unrecorded, Writer};
use crate::{config, export};

/// Something is not exported as it is in the source.
const FOUND: u8 = 6;

/// Gives a verdict on each invoice with this number.
pub(super) fn run(common: &Common, args: &Why, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let state = surroundings::open_read_only(common)?;
    let tenant = args.tenant.clone().map(Tenant);
    let tell = &mut |event| reporter.event(&event);
    let mut now = match ask_source(common, args, matches, &state, tell) {
        Ok(now) => Some(now),
        Err(error) if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(refusal) if is_final(refusal))) => {
            return Err(error);
        }
        Err(error) => {
            let Message { what, hint } = Message::from(&error);
            let what = text!("only what the state knows is shown: {what}", "以下仅为状态文件所知: {what}"; what);
            reporter.warn(Message { what, hint });
            None
        }
    };
    let asked = AskedFiles::read(&args.number, &common.output);
    let in_doubt = in_doubt(common, &state, reporter)?;
    let evidence = Evidence { state: &state, in_doubt: &in_doubt, output: &common.output };
    let answer = why::why(&args.number, &asked, tenant.as_ref(), evidence, now.as_mut())?;
    let question = Question { text: &args.number, files: &asked, tenant: tenant.as_ref(), output: &common.output };
    let (boundary, zone) = (now.map(|now| now.boundary), surroundings::own_zone(common));
    reporter.each(&question.answers(&answer, boundary.as_ref(), zone));
    let Answer { cases, strays, .. } = answer;
    let is_exported = !cases.is_empty() && cases.iter().all(|case| case.verdict.status == InvoiceStatus::Exported);
    Ok(if is_exported && strays.is_empty() { 0 } else { FOUND })
}

/// What a run that died left in doubt. Another user may be kept from reading its lists, and gets an answer all the same.
fn in_doubt(common: &Common, state: &State, reporter: &Reporter) -> anyhow::Result<InDoubt> {
    InDoubt::read(&common.output, state).or_else(|error| {
        let Message { what, hint } = Message::from(&error);
        let what = text!(
            "what runs may have left in doubt is not known: {what}",
            "无法得知是否有待确认的文件: {what}"; what
        );
        reporter.warn(Message { what, hint });
        InDoubt::of(Unrecorded::default(), Writer::Died, state)
    })
}

/// What was asked.
struct Question<'a> {
    text: &'a str,
    files: &'a AskedFiles,
    tenant: Option<&'a Tenant>,
    output: &'a Path,
}

impl Question<'_> {
    /// Files first, since the question was about them; where there is nothing, the one answer that says so. The boundary
    /// is None where the source was not asked.
    fn answers(&self, answer: &Answer, boundary: Option<&SourceTime>, zone: OwnZone) -> Vec<Details> {
        let Answer { cases, past, is_number_known_from_past, strays, elsewhere } = answer;
        let no_number = || self.no_number(boundary);
        let strays = strays.iter().map(|path| stray_file(path, cases.is_empty().then(no_number)));
        let cases = cases.iter().map(|case| details(self.text, self.files, case, boundary, zone));
        let without_row = is_number_known_from_past.then_some(boundary.is_some());
        let past = past.iter().map(|past| {
            let is_there = self.output.join(past.path.as_str()).exists();
            past_file(past, zone, is_there, without_row)
        });
        let answers: Vec<Details> = strays.chain(cases).chain(past).collect();
        if answers.is_empty() { vec![self.unknown(*elsewhere, no_number())] } else { answers }
    }

    /// No invoice has the number. The boundary is None where the source was not asked.
    fn no_number(&self, boundary: Option<&SourceTime>) -> Text {
        let of = match self.tenant {
            None => Text::same(""),
            Some(tenant) => text!(" of tenant {tenant}", "租户 {tenant} 的"),
        };
        match boundary {
            Some(_) => text!(
                "no row{of} has this number, and the state knows none",
                "{of}数据中没有此发票号，状态文件中也没有";
                of
            ),
            None => text!(
                "the state knows no invoice{of} with this number, and the source was not asked",
                "状态文件中没有{of}此发票号，且没有查询数据源";
                of
            ),
        }
    }

    /// The answer for what neither source nor state has.
    fn unknown(&self, elsewhere: usize, no_number: Text) -> Details {
        let (asked, output) = (self.files, self.output.display());
        let no_file = || text!("no run has exported a file of this name", "没有任何运行导出过这个文件");
        let because = match (asked.outside, asked.is_named(), elsewhere) {
            (true, ..) => text!("it lies outside the output {output}", "它不在导出目录 {output} 之下"),
            (_, true, 0) => no_file().then(&no_number),
            (_, true, elsewhere) => {
                let others = match elsewhere {
                    1 => text!("1 invoice has its number and another file", "有 1 张发票使用此发票号，但文件不同"),
                    n => {
                        text!("{n} invoices have its number and another file", "有 {n} 张发票使用此发票号，但文件不同")
                    }
                };
                no_file().then(&others)
            }
            _ => no_number,
        };
        let spelling =
            text!("check the spelling, also upper and lower case, and blanks", "请检查拼写，包括大小写和空格");
        let next = match asked.number() {
            _ if asked.outside => text!("check --output", "请检查 --output"),
            Some(number) => text!("ask by its number: why {number:?}", "请按发票号查询: why {number:?}"),
            None => spelling,
        };
        Details::default()
            .fact("number", "发票号", if asked.is_named() { asked.number() } else { Some(self.text.to_owned()) })
            .fact("verdict", "结论", InvoiceStatus::NotExported)
            .fact("because", "原因", because)
            .fact("next", "下一步", next)
    }
}

/// Wrong usage, and a source that is not the state's, are no reason to go on without one.
fn is_final(refusal: &crate::refusal::Refusal) -> bool {
    matches!(refusal.exit_code(), 2 | 5)
}

fn ask_source<'a>(
    common: &Common,
    args: &Why,
    matches: &ArgMatches,
    state: &State,
    tell: &'a mut dyn FnMut(Event),
) -> anyhow::Result<SourceSnapshot<'a>> {
    let max_document = args.documents.max_document.as_u64();
    let access = Access { max_document, ..config::access(common, &args.names, matches)? };
    let server_session = ServerSession::open(&access, args.retries.retry_for, tell)?;
    export::refuse_other_source(state.path(), &state.last_time()?, server_session.name())?;
    SourceSnapshot::of(server_session, args.margins.safety_lag, args.margins.overlap, max_document, tell)
}

/// The answer for a file that is there and that is not on record. `no_number`: nor is an invoice with its number.
fn stray_file(path: &TreePath, no_number: Option<Text>) -> Details {
    let stray = text!("a file lies there, and no run on record wrote it", "该处有一个文件，但没有任何运行记录写入过它");
    let next = match no_number {
        Some(_) => text!(
            "`verify` lists all such files; they are never removed",
            "verify 会列出所有这类文件；程序不会删除它们"
        ),
        None => text!("the verdict on its number follows", "其发票号的结论见下"),
    };
    let because = no_number.map_or(stray.clone(), |no_number| stray.then(&no_number));
    Details::default()
        .fact("number", "发票号", path.number())
        .fact("verdict", "结论", InvoiceStatus::NotExported)
        .fact("because", "原因", because)
        .fact("next", "下一步", next)
        .fact("tenant", "租户", path.tenant_name().as_ref())
        .fact("file", "文件", path.to_string())
}

/// As many of the acts on a file are told.
const ACTS_AT_MOST: usize = 20;

/// What runs did to a file.
fn acts_of(acts: &[(RunNote, FileAction)], zone: OwnZone) -> Vec<Text> {
    let act = |(run, action): &(RunNote, FileAction)| {
        let (run, action) = (run_text(run, zone), *action);
        text!("{action} by {run}", "{run}: {action}"; run, action)
    };
    acts.iter().skip(acts.len().saturating_sub(ACTS_AT_MOST)).map(act).collect()
}

/// The answer for a file that no invoice has any more. `without_row`: no invoice has its number, as the source says if it
/// was asked.
fn past_file(past: &FilePast, zone: OwnZone, is_there: bool, without_row: Option<bool>) -> Details {
    let FilePast { path, acts } = past;
    let acts = acts_of(acts, zone);
    let last = acts.last().cloned().unwrap_or_else(|| Text::same("-"));
    let gone = text!("no invoice has this file any more: {last}", "已没有发票对应这个文件: {last}"; last);
    let because = if is_there { gone.then(&text!("a file lies there", "该处有一个文件")) } else { gone };
    let number = path.number();
    let because = match without_row {
        Some(true) => because.then(&text!("no row has its number now", "数据中现在没有此发票号")),
        Some(false) => because.then(&text!("the source was not asked", "没有查询数据源")),
        None => because,
    };
    let next = match (&number, without_row) {
        (_, Some(true)) => text!(
            "look for its row in the source if the invoice should be there",
            "如果这张发票应当存在，请在数据源中查找它的记录"
        ),
        (Some(number), None) => {
            text!("ask where its invoice is now: why {number:?}", "查询这张发票现在的位置: why {number:?}")
        }
        _ => text!(
            "history and the number of a run show what else it did",
            "用 history 加运行编号可查看该次运行的其他操作"
        ),
    };
    Details::default()
        .fact("number", "发票号", number)
        .fact("verdict", "结论", InvoiceStatus::NotExported)
        .fact("because", "原因", because)
        .fact("next", "下一步", next)
        .fact("tenant", "租户", path.tenant_name().as_ref())
        .fact("file", "文件", path.to_string())
        .fact("past", "文件历史", Text::join(&acts, "; ", "；"))
}

/// The verdict, and everything that led to it. The number is the one that was asked for, or that of the file.
fn details(asked: &str, files: &AskedFiles, case: &Case, boundary: Option<&SourceTime>, zone: OwnZone) -> Details {
    let run_text = |run: RunNote| run_text(&run, zone);
    let Case { row, trace, tenant, path, file, past, last_good, left_behind, verdict } = case;
    let left_behind: Vec<&str> = left_behind.iter().map(|leftover| leftover.path.as_str()).collect();
    let (row, entry, reject, known) = (row.as_ref(), trace.entry.as_ref(), trace.reject.as_ref(), tenant.as_ref());
    let tenant = known.map(|known| &known.tenant).or_else(|| row.and_then(|row| row.tenant.as_ref()));
    let path = path.as_ref();
    let has_number = number_of(row) == Some(asked) || path.is_some_and(|path| path.same_number(asked));
    let number = match files.is_named() && !has_number {
        true => path.and_then(TreePath::number).or_else(|| files.number()),
        false => Some(asked.to_owned()),
    };
    let by = |run: &Option<RunOnFile>, action| run.as_ref().and_then(|run| run.that(action)).cloned();
    let (first, last) = (&trace.first_run, &trace.last_run);
    let taken_over_by = by(last, FileAction::Adopted).or_else(|| by(first, FileAction::Adopted));
    let on_record = entry.map(|entry| &entry.path).filter(|on_record| Some(*on_record) != path);
    let reason = |reject: &OpenReject| {
        let (code, detail) = (reject.reason, reject.detail.clone());
        text!("{code}: {detail}", "{code}: {detail}"; code, detail)
    };
    // The ledger forgets a withdrawn invoice, the history does not.
    let first_written = match past.first() {
        Some((run, action)) => (*action == FileAction::Written).then(|| run.clone()),
        None => by(first, FileAction::Written),
    };
    let details = Details::default()
        .fact("number", "发票号", number.as_ref())
        .fact("verdict", "结论", verdict.status)
        .fact("because", "原因", verdict.because.clone())
        .fact("next", "下一步", verdict.next.clone())
        .fact("tenant", "租户", tenant)
        .fact("id", "id", &trace.id)
        .fact("status", "状态", row.and_then(|row| row.status.as_ref()))
        .fact(
            "number_now",
            "现发票号",
            row.and_then(|row| row.number.as_ref()).filter(|now| Some(*now) != number.as_ref()),
        )
        .fact("source_time", "更新时间", row.and_then(|row| row.time.as_ref()))
        .by(TimeBy::Source)
        .fact("watermark", "水位线", known.and_then(|known| known.watermark.as_ref()))
        .by(TimeBy::Source)
        .fact("look_back", "回看起点", known.and_then(|known| known.look_back.as_ref()))
        .by(TimeBy::Source)
        .fact("boundary", "导出时间边界", boundary)
        .by(TimeBy::Source)
        .fact("file", "文件", path.map(TreePath::to_string))
        .fact("file_is", "文件状态", *file)
        .fact("left_behind", "遗留文件", (!left_behind.is_empty()).then(|| left_behind.join(", ")))
        .fact("file_on_record", "登记的文件", on_record.map(TreePath::to_string))
        .fact("exported_version", "导出版本", entry.and_then(|entry| entry.time.as_ref()))
        .by(TimeBy::Source)
        .fact("sha256", "SHA-256", entry.map(|entry| entry.digest))
        .fact("first_exported_by", "首次导出", first_written.map(run_text))
        .fact("written_by", "文件写入", by(last, FileAction::Written).map(run_text))
        .fact("taken_over_by", "文件接管", taken_over_by.map(run_text))
        .fact("rejected_since", "无法导出始于", reject.map(|reject| run_text(reject.opened.clone())))
        .fact("reject", "无法导出的原因", reject.map(reason))
        .fact("last_refused_by_run", "最近一次拒绝的运行", reject.map(|reject| reject.last_run));
    let details = match last_good.iter().map(TreePath::as_str).collect::<Vec<_>>().join(", ") {
        files if files.is_empty() => details,
        files => details.fact(
            "not_on_record",
            "未登记的文件",
            text!("{files}: may be its last good file; keep it", "{files}: 可能是其最后一个正确文件，请保留"),
        ),
    };
    if past.is_empty() {
        return details;
    }
    details.fact("past", "文件历史", Text::join(&acts_of(past, zone), "; ", "；"))
}

fn number_of(row: Option<&RowSummary>) -> Option<&str> {
    row?.number.as_deref()
}

/// A run in one phrase.
fn run_text(run: &RunNote, zone: OwnZone) -> Text {
    let RunNote { id, kind, started, account, host } = run;
    let user = account.at("");
    let started = zone.shown_text(started);
    text!("run {id} ({kind}), {started} by {user} on {host}", "运行 {id}（{kind}），{started}，由 {user} 在 {host} 上执行"; kind)
}
