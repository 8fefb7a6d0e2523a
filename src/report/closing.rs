//! The closing block of a run: the result that goes to stdout.

use std::time::Duration;

use super::Verbosity;
use super::lines::{Level, Line, RULE};
use super::words::{Mode, Tally, Words};
use crate::run::{Kind, Outcome, Summary};

/// What the users' documentation shows comes first and as it is there; numbers it does not know
/// follow, where they are not zero and say something about invoices; how much and how long is for
/// whoever asks, so that an ordinary run ends as documented.
pub(super) fn closing(words: &dyn Words, summary: &Summary, verbosity: Verbosity) -> Vec<Line> {
    let mode = Mode { kind: summary.kind, dry_run: summary.run.is_none() };
    let level = match summary.outcome {
        Outcome::Success => Level::Success,
        Outcome::Partial => Level::Warn,
    };
    let mut lines: Vec<Line> =
        [RULE, &words.finished(mode, summary), RULE].into_iter().map(|text| Line::new(level, text)).collect();
    lines.push(Line::info(words.tenants(mode.kind, summary.tenants)));
    lines.push(Line::info(words.exported(mode, mode.exported(&summary.counts))));
    match mode.kind {
        Kind::Full | Kind::Verify => {}
        Kind::Incremental => lines.push(Line::info(words.state(mode, &summary.state))),
        Kind::Backfill => lines.push(Line::info(words.window(summary.since.as_ref(), &summary.boundary))),
    }
    lines.extend(details(words, mode, summary));
    if verbosity == Verbosity::Verbose {
        lines.push(Line::info(words.volume(mode, summary.counts.bytes)));
        lines.push(Line::info(words.effort(summary.effort)));
        lines.push(Line::info(words.elapsed(summary.elapsed)));
    }
    lines
}

fn details(words: &dyn Words, mode: Mode, summary: &Summary) -> Vec<Line> {
    let counts = &summary.counts;
    let tallies = [
        (Tally::Unchanged, counts.unchanged),
        (Tally::Gone, counts.gone),
        (Tally::Late { by: Duration::from_secs(counts.late_by) }, counts.late),
        (Tally::Removed, counts.removed),
    ];
    let told = tallies.into_iter().filter(|(_, number)| 0 < *number);
    let mut lines: Vec<Line> = told.map(|(tally, number)| Line::info(words.tally(mode, tally, number))).collect();
    if 0 < counts.rejected.max(summary.new_rejects).max(summary.open_rejects) {
        lines.push(Line::new(Level::Warn, words.rejects(summary)));
    }
    for (tenant, trouble) in &summary.failed_tenants {
        lines.push(Line::new(Level::Warn, words.failed_tenant(tenant, &words.trouble(trouble))));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::invoice::Tenant;
    use crate::refusal::Trouble;
    use crate::report::chinese::Chinese;
    use crate::report::english::English;
    use crate::report::tests::summary;
    use crate::run::{Counts, RunId};

    fn rendered(words: &dyn Words, summary: &Summary) -> Vec<String> {
        closing(words, summary, Verbosity::Normal).iter().map(Line::render).collect()
    }

    /// Everything that can be told, told.
    fn troubled() -> Summary {
        Summary {
            outcome: Outcome::Partial,
            failed_tenants: vec![(Tenant::from("7"), Trouble::Other("connection lost".to_owned()))],
            counts: Counts {
                seen: 221,
                written: 212,
                unchanged: 4,
                rejected: 3,
                gone: 2,
                late: 1,
                late_by: 5400,
                removed: 6,
                bytes: 3 << 20,
            },
            new_rejects: 2,
            open_rejects: 5,
            elapsed: Duration::from_millis(12_345),
            ..summary(Kind::Incremental)
        }
    }

    #[test]
    fn a_partial_run_does_not_claim_success_and_names_what_is_missing() {
        let lines = rendered(&Chinese, &troubled());
        assert!(lines.iter().all(|line| !line.contains("[SUCCESS]")), "{lines:?}");
        assert_eq!(lines[1], "[WARN] 增量导出完成，但有 1 个租户失败，新增 2 条记录无法导出");
        assert_eq!(
            lines[6..],
            [
                "[INFO] 未变化: 4 条记录(文件已是最新)",
                "[INFO] 已不是发票: 2 条记录(读取前已删除或状态已变)",
                "[INFO] 迟到补导: 1 条记录(最多早于上次导出时间 1 小时 30 分)",
                "[INFO] 删除旧文件: 6 个(路径已变)",
                "[WARN] 无法导出: 3 条记录(本次新增 2 条)，待处理共 5 条",
                "[WARN] 失败租户 7: connection lost",
            ]
        );
        let verbose = closing(&Chinese, &troubled(), Verbosity::Verbose);
        let told: Vec<String> = verbose[lines.len()..].iter().map(Line::render).collect();
        let asked = "[INFO] SQL 语句: 数据源 12 条，状态文件 345 条";
        assert_eq!(told, ["[INFO] 写入: 3.0 MiB", asked, "[INFO] 耗时: 12.3 秒"]);
    }

    #[test]
    fn english_tells_the_same_lines() {
        let english = closing(&English, &troubled(), Verbosity::Normal);
        let levels = |lines: &[Line]| lines.iter().map(|line| line.level).collect::<Vec<_>>();
        assert_eq!(levels(&english), levels(&closing(&Chinese, &troubled(), Verbosity::Normal)));
        assert_eq!(
            english[1].text,
            "incremental export done, but 1 tenant failed and 2 more invoices cannot be exported"
        );
        assert_eq!(english[4].text, "exported: 212 new invoices");
        assert_eq!(english[10].text, "cannot be exported: 3 invoices (2 newly), 5 open");
    }

    #[test]
    fn the_numbers_of_a_dry_run_read_as_what_would_be() {
        let dry = Summary { run: None, ..troubled() };
        let chinese = rendered(&Chinese, &Summary { outcome: Outcome::Success, ..dry.clone() });
        assert_eq!(chinese[1], "[SUCCESS] 增量导出测试完成(未写入任何文件)!");
        assert_eq!(chinese[4], "[INFO] 将导出: 212 条新记录");
        assert_eq!(chinese[5], "[INFO] 状态文件: ../context/.export_state/.last_export_time(未改动)");
        assert_eq!(rendered(&English, &dry)[4], "[INFO] would be exported: 212 new invoices");
    }

    #[test]
    fn a_full_run_and_a_backfill_count_unchanged_invoices_as_exported() {
        let counts = Counts { seen: 10, written: 3, unchanged: 7, ..Counts::default() };
        let full = Summary { counts, run: Some(RunId(1)), ..summary(Kind::Full) };
        assert_eq!(
            rendered(&Chinese, &full)[4..],
            ["[INFO] 成功导出: 10 条记录", "[INFO] 未变化: 7 条记录(文件已是最新)"]
        );
        let backfill = Summary { kind: Kind::Backfill, since: Some("2025-11-01 00:00:00".into()), ..full };
        let lines = rendered(&Chinese, &backfill);
        assert_eq!(lines[1], "[SUCCESS] 区间导出完成!");
        assert_eq!(lines[4], "[INFO] 成功导出: 10 条记录");
        assert_eq!(lines[5], "[INFO] 时间区间: 2025-11-01 00:00:00 -> 2025-11-28 16:30:00");
    }
}
