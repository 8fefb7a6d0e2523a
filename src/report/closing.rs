//! The closing block of a run: the result that goes to stdout.

use std::time::Duration;

use bytesize::ByteSize;

use super::counts::count;
use super::line::{Level, Line};
use super::lines::{RULE, RunMode, records, title};
use super::settings::Verbosity;
use crate::effort::Effort;
use crate::lang::{Message, Text, span};
use crate::run::{Counts, Kind, Outcome, Summary};
use crate::window::BASELINE;

/// The lines of the block. Those that the users' documentation shows come first and as they are there. Further numbers
/// about invoices follow where they are not zero. `--verbose` alone shows bytes, statements and time, so that an
/// ordinary run ends as documented.
pub(super) fn closing(summary: &Summary, verbosity: Verbosity) -> Vec<Line> {
    let mode = RunMode { kind: summary.kind, dry_run: summary.run.is_none() };
    let level = match summary.outcome {
        Outcome::Success => Level::Success,
        Outcome::Partial => Level::Warn,
    };
    let headline = [Text::same(RULE), finished(mode, summary), Text::same(RULE)];
    let mut lines: Vec<Line> = headline.into_iter().map(|text| Line::new(level, text)).collect();
    lines.extend(documented(mode, summary).into_iter().map(Line::info));
    lines.extend(tallies(mode, summary).into_iter().map(Line::info));
    lines.extend(failures(summary));
    if verbosity == Verbosity::Verbose {
        lines.extend(effort(mode, summary).map(Line::info));
    }
    lines
}

/// The headline. It claims success only where the outcome is one.
fn finished(mode: RunMode, summary: &Summary) -> Text {
    let (kind, title) = (mode.kind.as_str(), title(mode.kind));
    let what = match mode.dry_run {
        true => text!("{kind} dry run", "{title}试运行"; title),
        false => text!("{kind} export", "{title}"; title),
    };
    match summary.outcome {
        Outcome::Success if mode.dry_run => {
            text!("{what} complete, nothing was written!", "{what}完成（未写入任何文件）!"; what)
        }
        Outcome::Success => text!("{what} complete!", "{what}完成!"; what),
        Outcome::Partial => {
            let (failed, rejects) = (summary.failed_tenants.len() as u64, summary.new_rejects);
            let unread = summary.unread;
            let (tenants, invoices) = (count(failed, "tenant"), count(rejects, "more invoice"));
            let unread_invoices = count(unread, "invoice");
            let troubles = [
                (failed, text!("{tenants} failed", "有 {failed} 个租户失败")),
                (rejects, text!("{invoices} cannot be exported", "新增 {rejects} 条记录无法导出")),
                (unread, text!("{unread_invoices} could not be read", "有 {unread} 张发票未能读取")),
            ];
            let troubles: Vec<Text> =
                troubles.into_iter().filter(|(number, _)| *number > 0).map(|(_, text)| text).collect();
            let troubles = Text::join(&troubles, " and ", "，");
            match mode.dry_run {
                true => text!(
                    "{what} done, nothing was written, but {troubles}",
                    "{what}完成（未写入任何文件），但{troubles}"; what, troubles
                ),
                false => text!("{what} done, but {troubles}", "{what}完成，但{troubles}"; what, troubles),
            }
        }
    }
}

/// The lines of the users' documentation.
fn documented(mode: RunMode, summary: &Summary) -> Vec<Text> {
    let tenants = summary.tenants;
    let exported = summary.counts.written;
    let records = records(mode.kind);
    let invoices = count(exported, "invoice");
    let mut lines = vec![
        match mode.kind {
            Kind::Full => text!("tenants: {tenants}", "租户数量: {tenants}"),
            Kind::Incremental | Kind::Backfill | Kind::Verify => text!("tenants: {tenants}", "处理租户数: {tenants}"),
        },
        match mode.dry_run {
            true => text!("would be exported: {invoices}", "将导出: {exported} {records}"),
            false => text!("exported: {invoices}", "成功导出: {exported} {records}"),
        },
    ];
    match mode.kind {
        Kind::Full | Kind::Verify => {}
        Kind::Incremental => {
            let state = summary.state.display();
            lines.push(match mode.dry_run {
                true => text!("state: {state} (untouched)", "状态文件: {state}（未改动）"),
                false => text!("state: {state}", "状态文件: {state}"),
            });
        }
        Kind::Backfill => {
            let (since, boundary) =
                (summary.since.as_ref().map_or(BASELINE, |since| since.as_str()), &summary.boundary);
            lines.push(text!("window: {since} -> {boundary}", "时间区间: {since} -> {boundary}"));
        }
    }
    lines
}

/// Numbers that are shown only when they are not zero.
fn tallies(mode: RunMode, summary: &Summary) -> Vec<Text> {
    let Counts { written, new, replaced, moved, unchanged, taken_over, gone, late, late_by, removed, .. } =
        summary.counts;
    // An export of new invoices alone says so already.
    let new = if new == written { 0 } else { new };
    let [added, others, movers, invoices, files, rows, arrivals, old] = [
        (new, "invoice"),
        (replaced, "invoice"),
        (moved, "invoice"),
        (unchanged, "invoice"),
        (taken_over, "file"),
        (gone, "row"),
        (late, "invoice"),
        (removed, "superseded file"),
    ]
    .map(|(number, noun)| count(number, noun));
    let by = span(Duration::from_secs(late_by));
    let all = [
        (new, text!("- new: {added} without a file before", "- 新增: {new} 条记录（此前没有文件）")),
        (
            replaced,
            text!("- replaced: {others} whose file had other content", "- 替换: {replaced} 条记录（原文件内容不同）"),
        ),
        (moved, text!("- moved: {movers} with a new path", "- 移动: {moved} 条记录（路径已变）")),
        (
            unchanged,
            text!(
                "unchanged: {invoices} with the document and the file of before",
                "未变化: {unchanged} 条记录（内容未变，文件仍在）"
            ),
        ),
        (
            taken_over,
            match mode.dry_run {
                // After a restore, the ledger may know such a file with the content of before.
                true => text!(
                    "- would be taken over: {files} that are right already and not on record as they are",
                    "- 将接管: {taken_over} 个内容已正确、但状态文件中没有相应记录的文件"
                ),
                false => text!(
                    "- taken over: {files} that were right already and not on record as they were",
                    "- 接管: {taken_over} 个内容已正确、但状态文件中没有相应记录的文件"
                ),
            },
        ),
        (
            gone,
            text!(
                "gone: {rows} that ceased to be an invoice before it was read",
                "已不是发票: {gone} 条记录（读取前已删除或状态已变）"
            ),
        ),
        (
            late,
            text!(
                "late: {arrivals}, up to {by} below the watermark, unseen until now",
                "迟到数据补导: {late} 条记录（最多比水位线早 {by}）"; by
            ),
        ),
        (
            removed,
            match mode.dry_run {
                true => text!("would be removed: {old}", "将删除旧文件: {removed} 个（路径已变）"),
                false => text!("removed: {old}", "删除旧文件: {removed} 个（路径已变）"),
            },
        ),
    ];
    all.into_iter().filter(|(number, _)| *number > 0).map(|(_, text)| text).collect()
}

/// Rejected invoices and failed tenants.
fn failures(summary: &Summary) -> Vec<Line> {
    let (rejected, new, open) = (summary.counts.rejected, summary.new_rejects, summary.open_rejects);
    let mut lines = Vec::new();
    if rejected.max(new).max(open) > 0 {
        let invoices = count(rejected, "invoice");
        lines.push(Line::warn(text!(
            "cannot be exported: {invoices} ({new} newly), {open} open",
            "无法导出: {rejected} 条记录（本次新增 {new} 条），待处理共 {open} 条"
        )));
    }
    for (tenant, trouble) in &summary.failed_tenants {
        let Message { what, hint } = trouble.message();
        let what = text!("failed tenant {tenant}: {what}", "失败租户 {tenant}: {what}"; what);
        lines.push(Line::warn(Message { what, hint }));
    }
    lines
}

/// How much was written, asked and waited for.
fn effort(mode: RunMode, summary: &Summary) -> [Text; 3] {
    let bytes = ByteSize::b(summary.counts.bytes);
    let (Effort { source, state }, elapsed) = (summary.effort, span(summary.elapsed));
    [
        match mode.dry_run {
            true => text!("would be written: {bytes}", "将写入: {bytes}"),
            false => text!("written: {bytes}", "写入: {bytes}"),
        },
        text!(
            "statements: {source} to the source, {state} to the state",
            "SQL 语句: 数据源 {source} 条，状态文件 {state} 条"
        ),
        text!("took: {elapsed}", "耗时: {elapsed}"; elapsed),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::invoice::Tenant;
    use crate::lang::Lang;
    use crate::refusal::Trouble;
    use crate::report::tests::summary;
    use crate::run::RunId;

    fn rendered(lang: Lang, verbosity: Verbosity, summary: &Summary) -> Vec<String> {
        let text: String = closing(summary, verbosity).iter().map(|line| line.render(lang)).collect();
        text.lines().map(str::to_owned).collect()
    }

    fn chinese(summary: &Summary) -> Vec<String> {
        rendered(Lang::Zh, Verbosity::Normal, summary)
    }

    fn english(summary: &Summary) -> Vec<String> {
        rendered(Lang::En, Verbosity::Normal, summary)
    }

    /// Everything that can be told, told.
    fn troubled() -> Summary {
        Summary {
            outcome: Outcome::Partial,
            failed_tenants: vec![(
                Tenant::from("7"),
                Trouble::Error(text!("connection lost", "连接中断").with_hint(text!("run again", "请重新运行"))),
            )],
            counts: Counts {
                seen: 221,
                written: 212,
                new: 212,
                replaced: 0,
                moved: 0,
                unchanged: 4,
                taken_over: 0,
                rejected: 3,
                gone: 2,
                late: 1,
                late_by: 5400,
                removed: 6,
                bytes: 3 << 20,
            },
            new_rejects: 2,
            unread: 0,
            open_rejects: 5,
            elapsed: Duration::from_millis(12_345),
            ..summary(Kind::Incremental)
        }
    }

    #[test]
    fn a_partial_run_does_not_claim_success_and_names_what_is_missing() {
        let lines = chinese(&troubled());
        assert!(lines.iter().all(|line| !line.contains("[SUCCESS]")), "{lines:?}");
        assert_eq!(lines[1], "[WARN] 增量导出完成，但有 1 个租户失败，新增 2 条记录无法导出");
        assert_eq!(
            lines[6..],
            [
                "[INFO] 未变化: 4 条记录（内容未变，文件仍在）",
                "[INFO] 已不是发票: 2 条记录（读取前已删除或状态已变）",
                "[INFO] 迟到数据补导: 1 条记录（最多比水位线早 1 小时 30 分钟）",
                "[INFO] 删除旧文件: 6 个（路径已变）",
                "[WARN] 无法导出: 3 条记录（本次新增 2 条），待处理共 5 条",
                "[WARN] 失败租户 7: 连接中断",
                "[HINT] 请重新运行",
            ]
        );
        let verbose = rendered(Lang::Zh, Verbosity::Verbose, &troubled());
        let asked = "[INFO] SQL 语句: 数据源 12 条，状态文件 345 条";
        assert_eq!(verbose[lines.len()..], ["[INFO] 写入: 3.0 MiB", asked, "[INFO] 耗时: 12.3 秒"]);
    }

    #[test]
    fn english_has_the_same_lines() {
        let lines = english(&troubled());
        let prefixes =
            |lines: &[String]| lines.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(prefixes(&lines), prefixes(&chinese(&troubled())));
        let headline = "incremental export done, but 1 tenant failed and 2 more invoices cannot be exported";
        assert_eq!(lines[1], format!("[WARN] {headline}"));
        assert_eq!(lines[4], "[INFO] exported: 212 invoices");
        assert_eq!(lines[10], "[WARN] cannot be exported: 3 invoices (2 newly), 5 open");
    }

    #[test]
    fn the_numbers_of_a_dry_run_read_as_what_would_be() {
        let dry = Summary { run: None, ..troubled() };
        let lines = chinese(&Summary { outcome: Outcome::Success, ..dry.clone() });
        assert_eq!(lines[1], "[SUCCESS] 增量导出试运行完成（未写入任何文件）!");
        assert_eq!(lines[4], "[INFO] 将导出: 212 条新记录");
        assert_eq!(lines[5], "[INFO] 状态文件: ../context/.export_state/.last_export_time（未改动）");
        assert_eq!(english(&dry)[4], "[INFO] would be exported: 212 invoices");
        let troubled = chinese(&dry)[1].clone();
        assert_eq!(troubled, "[WARN] 增量导出试运行完成（未写入任何文件），但有 1 个租户失败，新增 2 条记录无法导出");
        assert!(
            english(&dry)[1].starts_with("[WARN] incremental dry run done, nothing was written, but 1 tenant failed")
        );
    }

    #[test]
    fn what_is_unchanged_is_not_exported_and_a_take_over_says_what_it_replaced() {
        let counts = Counts { seen: 10, unchanged: 10, ..Counts::default() };
        let full = Summary { counts, run: Some(RunId(1)), ..summary(Kind::Full) };
        assert_eq!(
            chinese(&full)[4..],
            ["[INFO] 成功导出: 0 条记录", "[INFO] 未变化: 10 条记录（内容未变，文件仍在）"]
        );
        let counts = Counts { written: 6, new: 1, replaced: 3, moved: 2, unchanged: 4, taken_over: 3, ..counts };
        let full = Summary { counts, ..full };
        assert_eq!(
            english(&full)[4..],
            [
                "[INFO] exported: 6 invoices",
                "[INFO] - new: 1 invoice without a file before",
                "[INFO] - replaced: 3 invoices whose file had other content",
                "[INFO] - moved: 2 invoices with a new path",
                "[INFO] unchanged: 4 invoices with the document and the file of before",
                "[INFO] - taken over: 3 files that were right already and not on record as they were",
            ]
        );
        let backfill = Summary { kind: Kind::Backfill, since: Some("2025-11-01 00:00:00".into()), ..full };
        let lines = chinese(&backfill);
        assert_eq!(lines[1], "[SUCCESS] 区间导出完成!");
        assert_eq!(lines[4], "[INFO] 成功导出: 6 条记录");
        assert_eq!(lines[5], "[INFO] 时间区间: 2025-11-01 00:00:00 -> 2025-11-28 16:30:00");
    }
}
