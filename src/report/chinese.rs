//! The Chinese of runs: the lines that the users' documentation shows, to the letter, and the rest
//! in the same style (half-width colons and brackets, full-width commas).

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;

use super::chinese_refusals::{holder_text, refusal_text};
use super::words::{Mode, Tally, Words, ids};
use crate::effort::Effort;
use crate::event::{Doubt, Life, Notice};
use crate::invoice::{InvoiceId, Reason, SourceTime, Tenant};
use crate::lang::Lang;
use crate::refusal::{Holder, Refusal, Trouble};
use crate::run::{Counts, Kind, Outcome, Summary, WhyKept};
use crate::window::BASELINE;

pub(super) struct Chinese;

pub(super) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Full => "全量导出",
        Kind::Incremental => "增量导出",
        Kind::Backfill => "区间导出",
        Kind::Verify => "核对",
    }
}

fn records(kind: Kind) -> &'static str {
    match kind {
        Kind::Incremental => "条新记录",
        Kind::Full | Kind::Backfill | Kind::Verify => "条记录",
    }
}

pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        return format!("{} 毫秒", duration.as_millis().max(1));
    }
    if seconds < 60 {
        return format!("{:.1} 秒", duration.as_secs_f64());
    }
    let units =
        [(seconds / 86_400, "天"), (seconds / 3_600 % 24, "小时"), (seconds / 60 % 60, "分"), (seconds % 60, "秒")];
    let told: Vec<_> = units.iter().filter(|(n, _)| 0 < *n).map(|(n, unit)| format!("{n} {unit}")).collect();
    told.join(" ")
}

fn doubt(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::OtherServer => "数据库服务器与上次不同",
        Doubt::ClockMoved => "数据库服务器的时钟或时区相对本机或实际经过的时间发生变化，或时钟回退",
        Doubt::TimeUnproven => "自上次核对全部记录以来本机曾重启，或换了主机，无法确认时钟是否被调整过",
        Doubt::StateRestored => "导出目录比状态文件新(状态文件是从备份恢复的)",
    }
}

fn without_tenant(invoices: u64, more: bool, ids: &str) -> String {
    let (over, all) = if more { ("超过 ", "；全量导出会列出全部") } else { ("", "") };
    format!("{over}{invoices} 张发票的租户为空(id {ids})，没有可写入的目录；请补上租户{all}")
}

impl Words for Chinese {
    fn dry_run(&self) -> String {
        "测试模式(DRY_RUN): 只读取和检查，不写入任何文件".to_owned()
    }

    fn mode(&self, kind: Kind) -> String {
        format!("运行模式: {}", kind.as_str())
    }

    fn title(&self, kind: Kind) -> String {
        format!("执行{}", name(kind))
    }

    fn waiting(&self, holder: Option<&Holder>, at_most: Duration) -> String {
        format!("另一个导出进程正在运行，最多等待 {}: {}", span(at_most), holder_text(holder))
    }

    fn boundary(&self, boundary: &SourceTime) -> String {
        format!("导出时间边界: {boundary}")
    }

    fn listing_tenants(&self) -> String {
        "获取租户列表...".to_owned()
    }

    fn progress(&self, mode: Mode, invoices: u64) -> String {
        let verb = if mode.dry_run { "已检查" } else { "已导出" };
        format!("{verb} {invoices} 条记录...")
    }

    #[expect(clippy::too_many_lines, reason = "a list of sentences")]
    fn notice(&self, notice: &Notice) -> String {
        match notice {
            Notice::MissingIndex { statement } => format!("缺少增量导出所需的索引，查询会很慢；请执行: {statement}"),
            Notice::OpenWorkUnknown => {
                "数据库账号没有 PROCESS 权限，看不到未结束的事务；迟提交的数据只能靠 --overlap 补上".to_owned()
            }
            Notice::OpenWorkUnclear => {
                "无法从数据库可靠得知哪些事务尚未结束，下次运行会核对全部记录；若持续出现，请检查是否有监控程序每秒多次查询 information_schema.INNODB_TRX，或手工查询该表和 information_schema.PROCESSLIST 查看报错".to_owned()
            }
            Notice::PreparedWork => {
                "数据库中有已准备但客户端已断开的事务；在其结束之前(用 XA RECOVER 查看，用 XA COMMIT 或 XA ROLLBACK 结束)，每次运行都会核对全部记录".to_owned()
            }
            Notice::OpenWork { since } => {
                format!("数据库中有自 {since} 起尚未结束的事务；下次运行会从更早的时间重新读取")
            }
            Notice::Replica { behind: Some(behind) } => {
                format!("数据库服务器是从库，落后主库 {}；尚未同步的数据由以后的运行导出", span(*behind))
            }
            Notice::Replica { behind: None } => {
                "数据库服务器是从库，且复制已停止；恢复之前不会有更新的数据可导出".to_owned()
            }
            Notice::TakingOver { output } => {
                format!("没有状态文件，但 {} 中已有导出文件；本次运行将接管这些文件", output.display())
            }
            Notice::SetAside { to } => format!("旧的状态文件已移到 {}，没有删除", to.display()),
            Notice::NoBackup { error } => format!("运行继续，但状态文件未能备份: {error}"),
            Notice::Recovering { files } => format!("之前的运行意外终止；将重新读取其未确认的 {files} 个文件"),
            Notice::Doubt(Doubt::StateRestored) => {
                format!("{}；每张发票都与其文件比较", doubt(Doubt::StateRestored))
            }
            Notice::Doubt(reason) => format!("{}；本次不设时间下限，核对全部记录", doubt(*reason)),
            Notice::PulledBack { tenant, from, to } => {
                format!("租户 {tenant}: 上次导出时间 {from} 晚于导出时间边界，已退回到 {to}")
            }
            Notice::NotRemoved { path, detail } => format!("文件 {path} 无法删除: {detail}"),
            Notice::LeftInPlace { path } => format!("文件 {path} 已不属于任何发票，但内容不是本程序导出的，保留不动"),
            Notice::StaysInPlace { why, files, example } => {
                let because = match why {
                    Some(WhyKept::Number) => "其 id 现在是另一个发票号(例如 id 被重新使用)",
                    Some(WhyKept::Tenant) => "其 id 现在属于另一个租户",
                    Some(WhyKept::Table) => {
                        "无法证明数据表仍是导出时的那张表(表或服务器可能被恢复、清空、修改或重启过)；全量导出会重新读取每一行，之后的移动又能确认"
                    }
                    None => "旧版本的运行意外终止，没有留下其写入内容的记录",
                    Some(WhyKept::NotRemoved) => "当时无法删除",
                };
                format!(
                    "保留了 {files} 个已不属于任何发票的文件(例如 {example})：{because}；可用 verify 查看，用 --prune-leftovers 删除"
                )
            }
            Notice::TableUnknown => {
                "数据源没有说明数据表是否仍是原来的那张(MySQL/MariaDB 需要 PROCESS 权限和 InnoDB 表)，因此移动过的发票的旧文件一律保留".to_owned()
            }
            Notice::TimesAhead { tenant, newest } => {
                format!("租户 {tenant}: 更新时间晚于数据库时钟(最晚 {newest})，到时或由全量导出处理；如果应用写入的时区与服务器不同，请用 --time-zone 指定，例如 +08:00")
            }
            Notice::Late { by, overlap } => format!(
                "有记录比上次导出时间最多早 {}，而 --overlap 为 {}；请把它设为前者的两倍以上，或查明为何提交这么晚(长事务、应用时钟偏慢、应用时区与服务器不同: --time-zone)",
                span(*by),
                span(*overlap)
            ),
            Notice::Retrying { trouble, pause } => {
                format!("{}；{:.1} 秒后重试", self.trouble(trouble), pause.as_secs_f64())
            }
            Notice::Unread { invoices, trouble } => {
                format!("{invoices} 张租户不明的发票未能读取: {}；下次运行会重新读取", self.trouble(trouble))
            }
            Notice::WithoutTime { invoices } => {
                format!("{invoices} 条记录没有可用的更新时间，其变化只有全量导出能发现")
            }
            Notice::WithoutTenant { invoices, more, some } => without_tenant(*invoices, *more, &ids(*invoices, some)),
            Notice::TimeUnproven { runs, compared } => format!(
                "自 {} 以来有 {runs} 次运行与前一次不在同一主机或中间曾重启，无法确认时钟是否被调整过；因此每天核对一次全部记录",
                compared.as_deref().unwrap_or("建立状态文件")
            ),
            Notice::NoSource => {
                "没有指定数据源，无法显示滞后时间；请用 --source 或 INVOICE_EXPORT_SOURCE 指定".to_owned()
            }
            Notice::SourceSilent => "数据源没有应答，无法显示滞后时间".to_owned(),
            Notice::JudgedByOwnClock => "--stale-after 改按本机时钟判断: 最近一次增量导出失败或过早的租户视为滞后".to_owned(),
            Notice::RunUnfinished { run, kind, host, started, invoices, life } => {
                let who = format!("第 {run} 次运行({kind}，开始于 {started})");
                match life {
                    Life::Alive => format!("{who}正在进行: 已处理 {invoices} 条记录"),
                    Life::Unknown => format!("{who}在 {host} 上尚未结束: 已处理 {invoices} 条记录"),
                    Life::Dead => format!("{who}在处理 {invoices} 条记录后意外终止；下次运行会补上"),
                }
            }
            Notice::Stale { tenants, of, after } => {
                format!("{of} 个租户中有 {tenants} 个滞后超过 {} (--stale-after)", span(*after))
            }
        }
    }

    fn tenant_started(
        &self,
        kind: Kind,
        tenant: &Tenant,
        after: Option<&SourceTime>,
        upto: Option<&SourceTime>,
    ) -> String {
        let upto = upto.map_or("...", SourceTime::as_str);
        match (kind, after) {
            (Kind::Full, _) => format!("开始处理租户: {tenant}"),
            (Kind::Incremental, None) => format!("租户 {tenant}: 首次导出，基线时间: {BASELINE}"),
            (Kind::Backfill | Kind::Verify, None) => format!("租户 {tenant}: {BASELINE} -> {upto}"),
            (Kind::Incremental | Kind::Backfill | Kind::Verify, Some(after)) => {
                format!("租户 {tenant}: {after} -> {upto}")
            }
        }
    }

    fn tenant_done(&self, mode: Mode, tenant: &Tenant, counts: &Counts) -> String {
        let exported = mode.exported(counts);
        let verb = if mode.dry_run { "将导出" } else { "导出" };
        let what = match mode.kind {
            Kind::Full if mode.dry_run => format!("租户 {tenant} 检查完成"),
            Kind::Full => format!("租户 {tenant} 处理完成"),
            Kind::Incremental if exported == 0 => format!("租户 {tenant}: 无新增数据"),
            Kind::Backfill | Kind::Verify if exported == 0 => format!("租户 {tenant}: 区间内无数据"),
            Kind::Incremental | Kind::Backfill | Kind::Verify => {
                format!("租户 {tenant}: {verb} {exported} {}", records(mode.kind))
            }
        };
        match counts.rejected {
            0 => what,
            rejected => format!("{what}，{rejected} 条无法导出"),
        }
    }

    fn tenant_counts(&self, tenant: &Tenant, counts: &Counts) -> String {
        let Counts { seen, written, unchanged, rejected, gone, late, late_by: _, removed, bytes } = counts;
        format!(
            "租户 {tenant}: 读取 {seen}，写入 {written}，未变化 {unchanged}，无法导出 {rejected}，已不是发票 {gone}，迟到 {late}，删除旧文件 {removed}，{}",
            ByteSize::b(*bytes)
        )
    }

    fn tenant_failed(&self, tenant: &Tenant, error: &str) -> String {
        format!("租户 {tenant}: 导出失败: {error}")
    }

    fn rejected(&self, tenant: Option<&Tenant>, id: &InvoiceId, number: Option<&str>, reason: &Reason) -> String {
        let tenant = tenant.map_or("租户未知".to_owned(), |tenant| format!("租户 {tenant}"));
        let invoice = number.map_or(format!("发票 id {id}"), |number| format!("发票 {number} (id {id})"));
        format!("{tenant}: {invoice} 无法导出: {}", reason.text().in_lang(Lang::Zh))
    }

    fn more_rejected(&self, more: u64) -> String {
        format!("... 另有 {more} 条无法导出")
    }

    fn finished(&self, mode: Mode, summary: &Summary) -> String {
        let test = if mode.dry_run { "测试" } else { "" };
        let what = format!("{}{test}", name(mode.kind));
        let failed = summary.failed_tenants.len() as u64;
        let troubles = [
            (failed, format!("有 {failed} 个租户失败")),
            (summary.new_rejects, format!("新增 {} 条记录无法导出", summary.new_rejects)),
            (summary.unread, format!("有 {} 张发票未能读取", summary.unread)),
        ];
        let troubles: Vec<_> = troubles.into_iter().filter(|(number, _)| 0 < *number).map(|(_, text)| text).collect();
        match summary.outcome {
            Outcome::Success if mode.dry_run => format!("{what}完成(未写入任何文件)!"),
            Outcome::Success => format!("{what}完成!"),
            Outcome::Partial => format!("{what}完成，但{}", troubles.join("，")),
        }
    }

    fn tenants(&self, kind: Kind, tenants: u64) -> String {
        match kind {
            Kind::Full => format!("租户数量: {tenants}"),
            Kind::Incremental | Kind::Backfill | Kind::Verify => format!("处理租户数: {tenants}"),
        }
    }

    fn exported(&self, mode: Mode, invoices: u64) -> String {
        let verb = if mode.dry_run { "将导出" } else { "成功导出" };
        format!("{verb}: {invoices} {}", records(mode.kind))
    }

    fn state(&self, mode: Mode, state: &Path) -> String {
        let untouched = if mode.dry_run { "(未改动)" } else { "" };
        format!("状态文件: {}{untouched}", state.display())
    }

    fn window(&self, since: Option<&SourceTime>, boundary: &SourceTime) -> String {
        format!("时间区间: {} -> {boundary}", since.map_or(BASELINE, SourceTime::as_str))
    }

    fn tally(&self, mode: Mode, tally: Tally, number: u64) -> String {
        match tally {
            Tally::Unchanged => format!("未变化: {number} 条记录(文件已是最新)"),
            Tally::Gone => format!("已不是发票: {number} 条记录(读取前已删除或状态已变)"),
            Tally::Late { by } => format!("迟到补导: {number} 条记录(最多早于上次导出时间 {})", span(by)),
            Tally::Removed if mode.dry_run => format!("将删除旧文件: {number} 个(路径已变)"),
            Tally::Removed => format!("删除旧文件: {number} 个(路径已变)"),
        }
    }

    fn rejects(&self, summary: &Summary) -> String {
        let rejected = summary.counts.rejected;
        format!(
            "无法导出: {rejected} 条记录(本次新增 {} 条)，待处理共 {} 条",
            summary.new_rejects, summary.open_rejects
        )
    }

    fn failed_tenant(&self, tenant: &Tenant, error: &str) -> String {
        format!("失败租户 {tenant}: {error}")
    }

    fn volume(&self, mode: Mode, bytes: u64) -> String {
        let verb = if mode.dry_run { "将写入" } else { "写入" };
        format!("{verb}: {}", ByteSize::b(bytes))
    }

    fn effort(&self, Effort { source, state }: Effort) -> String {
        format!("SQL 语句: 数据源 {source} 条，状态文件 {state} 条")
    }

    fn elapsed(&self, elapsed: Duration) -> String {
        format!("耗时: {}", span(elapsed))
    }

    fn refusal(&self, refusal: &Refusal) -> String {
        refusal_text(refusal)
    }

    fn trouble(&self, trouble: &Trouble) -> String {
        match trouble {
            Trouble::Refusal(refusal) => refusal_text(refusal),
            Trouble::NotInPlace { path, detail } => format!("文件 {path} 无法就位: {detail}"),
            Trouble::Rejects { invoices } => {
                format!(
                    "有 {invoices} 条记录无法导出，--strict 使上次导出时间停住，直到可以导出为止；见 status --rejects"
                )
            }
            Trouble::NotRemoved { path, detail } => {
                format!("旧文件 {path} 无法删除: {detail}；排除原因后可用 verify --against-source --prune 删除")
            }
            Trouble::NotSeen { path, detail } => format!("文件 {path} 无法查看: {detail}"),
            Trouble::Other(text) => text.clone(),
        }
    }

    fn remedy(&self, kind: ErrorKind) -> Option<&'static str> {
        match kind {
            ErrorKind::PermissionDenied => Some("请给运行本程序的用户写权限，或指定其他目录"),
            ErrorKind::ReadOnlyFilesystem => Some("请以可写方式挂载，或指定其他目录"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some("请释放磁盘空间；下次运行会从此处继续"),
            _ => None,
        }
    }

    fn at_work(&self, tenant: &Tenant) -> String {
        format!("租户 {tenant}")
    }

    fn bar(&self) -> &'static str {
        "{bar:30} {pos}/{len} 条记录，{rate}，剩余 {eta} {wide_msg}"
    }

    fn spinner(&self) -> &'static str {
        "{spinner} {pos} 条记录，{rate}，{elapsed} {wide_msg}"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_the_units_that_count() {
        assert_eq!(span(Duration::from_millis(40)), "40 毫秒");
        assert_eq!(span(Duration::from_millis(12_345)), "12.3 秒");
        assert_eq!(span(Duration::from_secs(90_005)), "1 天 1 小时 5 秒");
    }
}
