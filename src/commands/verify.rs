//! `verify`: does the tree hold what was exported, and was everything exported?

use std::collections::HashSet;
use std::path::Path;

use clap::ArgMatches;

use super::{consent, signals, surroundings};
use crate::cli::{Common, Verify};
use crate::config;
use crate::export::verify::findings::{Difference, Finding, Findings};
use crate::export::verify::{self, RepairResult, Verification};
use crate::lang::{Message, Text, Word};
use crate::report::counts::{count, differ};
use crate::report::table::{Columns, Details, Table, TimeBy};
use crate::report::{Reporter, error_text};
use crate::run::Cancel;
use crate::window::Span;

/// Something differs, or still does after it was to be mended.
const FOUND: u8 = 6;

/// Compares, repairs and prunes if asked, and shows the findings.
pub(super) fn run(common: &Common, args: &Verify, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    let mut task = config::verification(common, args, matches, surroundings::current(surroundings::own_zone(common)))?;
    let cancel = signals::watch()?;
    task.common.surroundings.cancel = cancel.clone();
    let confirm = |files, invoices| confirm(reporter, &cancel, files, invoices);
    let verified = verify::verify(task, &confirm, &mut |event| reporter.event(&event))?;
    reporter.details(&details(&verified));
    if reporter.prints_text()
        && verified.refused.is_none()
        && let Some(alarm) = alarm(&verified, &common.output)
    {
        reporter.warn(alarm);
    }
    let differs = verified.differs();
    match verified.refused {
        Some(refused) => Err(refused),
        None => Ok(if differs { FOUND } else { 0 }),
    }
}

/// What is wrong, for the mail of a timer that drops the answer; None: nothing is.
fn alarm(verified: &Verification, output: &Path) -> Option<Message> {
    let Verification { findings, mended, run, .. } = verified;
    let left = mended.as_ref().map(|mended| &mended.left);
    let now = left.unwrap_or(findings);
    if now.number() == 0 && now.rejected() == 0 {
        return None;
    }
    let (output, result) = (output.display(), result(findings, left));
    let what = text!("{output}: {result}", "{output}: {result}"; result);
    let hint = run.map(|run| text!("history {run} shows the differences by tenant", "history {run} 按租户列出差异"));
    Some(Message { what, hint: hint.filter(|_| now.number() > 0) })
}

/// Asks before files are removed.
fn confirm(reporter: &Reporter, cancel: &Cancel, files: u64, invoices: u64) -> anyhow::Result<()> {
    let (counted, known) = (count(files, "file"), count(invoices, "invoice"));
    let question =
        text!("remove {counted} (the ledger has {known})?", "删除 {files} 个文件（台账中共有 {invoices} 张发票）？");
    consent::ask(reporter, &question, &format!("--prune-up-to {files}"), Some(cancel))
}

/// The whole answer.
fn details(verified: &Verification) -> Details {
    let Verification { findings, mended, refused, run, unrecorded, .. } = verified;
    let left = mended.as_ref().map(|mended| &mended.left);
    let mut details = Details::default()
        .fact("result", "结果", result(findings, left))
        .fact("files_looked_at", "检查的文件", findings.files)
        .fact("differences", "差异", findings.number())
        .fact("pending", "等待导出", findings.pending())
        .fact("known_rejects", "已知无法导出", findings.rejected())
        .fact("run", "运行", *run)
        .fact("not_recorded", "未记入历史的原因", unrecorded.as_ref().map(error_text));
    details = scope(details, verified);
    if let Some(RepairResult { counts, left }) = mended {
        details = details
            .fact("written", "写入", counts.written)
            .fact("removed", "删除", counts.removed)
            .fact("rejected", "无法导出", counts.rejected)
            .fact("left", "剩余差异", left.number());
    }
    if let Some(refused) = refused {
        details = details.fact("refused", "未执行的原因", error_text(refused));
    }
    details.table("findings", "差异明细", listed(findings, left)).table("kinds", "差异类型", kinds(findings, left))
}

/// What was compared.
fn scope(details: Details, verified: &Verification) -> Details {
    let Verification { selection, against, content, source, .. } = verified;
    let tenants: Vec<String> = selection.tenants.iter().map(ToString::to_string).collect();
    let Span { after, upto } = &selection.window;
    details
        .fact("against", "比对对象", *against)
        .fact("content", "文件比对方式", *content)
        .fact("source", "数据源", source.as_ref())
        .fact("tenants", "租户", Some(tenants).filter(|_| !selection.has_all_tenants()))
        .fact("since", "区间起点", after.as_ref())
        .by(TimeBy::Source)
        .fact("until", "区间终点", upto.as_ref())
        .by(TimeBy::Source)
}

/// The answer in one sentence. A reject is on record and no difference, but it is not exported either.
fn result(findings: &Findings, left: Option<&Findings>) -> Text {
    let compared = match (findings.number(), left.map(Findings::number)) {
        (0, _) => text!("nothing differs", "没有差异"),
        (found, None) => differ(found),
        (found, Some(left)) => {
            let still = if left == 1 { "does" } else { "do" };
            text!("{found} differed, {left} still {still}", "原有 {found} 处差异，还剩 {left} 处")
        }
    };
    let now = left.unwrap_or(findings);
    let join = if now.number() == 0 { text!("but", "但") } else { text!("and", "另") };
    let compared = match now.in_doubt() {
        0 => compared,
        in_doubt => {
            let files = count(in_doubt, "file");
            text!(
                "{compared}, {join} {files} left in doubt by a run that died could not be judged (the next run settles that)",
                "{compared}，{join}有 {in_doubt} 个文件因运行意外终止而待确认，未能比对（下次运行会确认）";
                compared, join
            )
        }
    };
    match now.rejected() {
        0 => compared,
        rejected => {
            let cannot = count(rejected, "invoice");
            text!(
                "{compared}, {join} {cannot} cannot be exported (`status --rejects` lists them)",
                "{compared}，{join}有 {rejected} 张发票无法导出（可用 status --rejects 查看）";
                compared, join
            )
        }
    }
}

/// How often each difference was found, and what to do about it.
fn kinds(findings: &Findings, left: Option<&Findings>) -> Table {
    let found: Vec<Difference> =
        Difference::WORDS.iter().map(|(kind, ..)| *kind).filter(|kind| findings.number_of(*kind) > 0).collect();
    Columns::default()
        .column("difference", "差异", |kind: &Difference| (*kind).into())
        .column("found", "发现", |kind| findings.number_of(*kind).into())
        .column("left", "剩余", |kind| left.map(|left| left.number_of(*kind)).into())
        .column("what_to_do", "处理办法", |kind| findings.remedy(*kind).into())
        .table(&found)
}

/// The findings one by one.
fn listed(findings: &Findings, left: Option<&Findings>) -> Table {
    let still = left.map(|left| left.listed().into_iter().map(Finding::key).collect::<HashSet<_>>());
    let outcome = |finding: &Finding| match still.as_ref()?.contains(&finding.key()) {
        true => Some(text!("left", "仍有差异")),
        false if findings.is_unexportable(finding) => Some(text!("rejected", "已登记为无法导出")),
        false => Some(text!("mended", "已修复")),
    };
    Columns::default()
        .column("difference", "差异", |finding: &Finding| finding.difference.into())
        .column("tenant", "租户", |finding| finding.tenant.as_ref().into())
        .column("id", "id", |finding| finding.id.as_ref().into())
        .column("path", "路径", |finding| finding.path.as_ref().into())
        .column("detail", "详情", |finding| finding.detail.clone().into())
        .column("outcome", "结果", |finding| outcome(finding).into())
        .table(findings.listed())
}
