//! The Chinese of runs: the lines that the users' documentation shows, to the letter, and the rest
//! in the same style (half-width colons and brackets, full-width commas).

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;

use super::words::{Mode, Tally, Words};
use crate::event::{Doubt, Notice};
use crate::invoice::{InvoiceId, Reason, SourceTime, Tenant};
use crate::refusal::{Obstacle, OptionFileTrouble, Refusal};
use crate::run::{Counts, Kind, Outcome, Summary};
use crate::window::BASELINE;

pub(super) struct Chinese;

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Full => "全量导出",
        Kind::Incremental => "增量导出",
        Kind::Backfill => "区间导出",
    }
}

fn records(kind: Kind) -> &'static str {
    match kind {
        Kind::Incremental => "条新记录",
        Kind::Full | Kind::Backfill => "条记录",
    }
}

fn span(duration: Duration) -> String {
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
        Doubt::ClockMoved => "数据库服务器时钟相对本机发生偏移或回退",
        Doubt::StateRestored => "导出目录比状态文件新(状态文件是从备份恢复的)",
    }
}

fn reason_text(reason: &Reason) -> String {
    match reason {
        Reason::NotUtf8 { offset } => format!("发票内容在第 {offset} 字节处不是 UTF-8"),
        Reason::NotJson { detail } => format!("发票内容不是 JSON: {detail}"),
        Reason::ImpossibleDate { date } => format!("开票日期 \"{date}\" 不存在"),
        Reason::TooLarge { bytes } => format!("发票内容有 {bytes} 字节，超过 --max-document 的上限"),
        Reason::PathTaken { path, by } => format!("文件路径 {path} 已属于另一张发票(id {by})"),
        Reason::PathBlocked { path } => format!("{path} 处已有一个不是普通文件的东西"),
        Reason::Unreadable { detail } => format!("数据库无法返回这条记录: {detail}"),
    }
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

    fn waiting(&self, holder: &str, at_most: Duration) -> String {
        format!("另一个导出进程正在运行，最多等待 {}: {holder}", span(at_most))
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

    fn notice(&self, notice: &Notice) -> String {
        match notice {
            Notice::MissingIndex { statement } => format!("缺少增量导出所需的索引，查询会很慢；请执行: {statement}"),
            Notice::OpenWorkUnknown => {
                "数据库账号没有 PROCESS 权限，看不到未结束的事务；迟提交的数据只能靠 --overlap 补上".to_owned()
            }
            Notice::OpenWork { since } => {
                format!("数据库中有自 {since} 起尚未结束的事务；下次运行会从更早的时间重新读取")
            }
            Notice::TakingOver { output } => {
                format!("没有状态文件，但 {} 中已有导出文件；本次运行将接管这些文件", output.display())
            }
            Notice::SetAside { to } => format!("旧的状态文件已移到 {}，没有删除", to.display()),
            Notice::NoBackup { error } => format!("运行继续，但状态文件未能备份: {error}"),
            Notice::Recovering { files } => format!("之前的运行意外终止；将重新读取其未确认的 {files} 个文件"),
            Notice::Doubt(reason) => format!("{}；本次不设时间下限，核对全部记录", doubt(*reason)),
            Notice::PulledBack { tenant, from, to } => {
                format!("租户 {tenant}: 上次导出时间 {from} 晚于导出时间边界，已退回到 {to}")
            }
            Notice::LeftInPlace { path } => format!("旧文件 {path} 的内容不是本程序导出的，保留不动"),
            Notice::TimesAhead { tenant, newest } => {
                format!("租户 {tenant}: 更新时间晚于数据库时钟(最晚 {newest})，到时或由全量导出处理")
            }
            Notice::Retrying { trouble, pause } => {
                format!("{}；{:.1} 秒后重试", self.trouble(trouble), pause.as_secs_f64())
            }
            Notice::WithoutTime { invoices } => {
                format!("{invoices} 条记录没有可用的更新时间，其变化只有全量导出能发现")
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
            (Kind::Backfill, None) => format!("租户 {tenant}: {BASELINE} -> {upto}"),
            (Kind::Incremental | Kind::Backfill, Some(after)) => format!("租户 {tenant}: {after} -> {upto}"),
        }
    }

    fn tenant_done(&self, mode: Mode, tenant: &Tenant, counts: &Counts) -> String {
        let exported = mode.exported(counts);
        let verb = if mode.dry_run { "将导出" } else { "导出" };
        let what = match mode.kind {
            Kind::Full if mode.dry_run => format!("租户 {tenant} 检查完成"),
            Kind::Full => format!("租户 {tenant} 处理完成"),
            Kind::Incremental if exported == 0 => format!("租户 {tenant}: 无新增数据"),
            Kind::Backfill if exported == 0 => format!("租户 {tenant}: 区间内无数据"),
            Kind::Incremental | Kind::Backfill => format!("租户 {tenant}: {verb} {exported} {}", records(mode.kind)),
        };
        match counts.rejected {
            0 => what,
            rejected => format!("{what}，{rejected} 条无法导出"),
        }
    }

    fn tenant_counts(&self, tenant: &Tenant, counts: &Counts) -> String {
        let Counts { seen, written, unchanged, rejected, gone, late, removed, bytes } = counts;
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
        format!("{tenant}: {invoice} 无法导出: {}", reason_text(reason))
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
        ];
        let troubles: Vec<_> = troubles.into_iter().filter(|(number, _)| 0 < *number).map(|(_, text)| text).collect();
        match summary.outcome {
            Outcome::Success if mode.dry_run => format!("{what}完成(未写入任何文件)!"),
            Outcome::Success => format!("{what}完成!"),
            Outcome::Partial if troubles.is_empty() => format!("{what}仅部分完成"),
            Outcome::Partial => format!("{what}完成，但{}", troubles.join("，")),
            Outcome::Failed => format!("{what}失败；此前已记录的结果仍然有效"),
        }
    }

    fn tenants(&self, kind: Kind, tenants: u64) -> String {
        match kind {
            Kind::Full => format!("租户数量: {tenants}"),
            Kind::Incremental | Kind::Backfill => format!("处理租户数: {tenants}"),
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
            Tally::Late => format!("迟到补导: {number} 条记录(早于上次导出时间)"),
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

    fn elapsed(&self, elapsed: Duration) -> String {
        format!("耗时: {}", span(elapsed))
    }

    fn refusal(&self, refusal: &Refusal) -> String {
        refusal_text(refusal)
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

fn refusal_text(refusal: &Refusal) -> String {
    let at = |path: &Path| path.display().to_string();
    match refusal {
        Refusal::Usage(text) => format!("用法错误: {text}"),
        Refusal::UnknownTenant(tenant) => format!("数据库中没有租户 \"{tenant}\"；请检查拼写和大小写"),
        Refusal::OptionFile { file, trouble } => option_file(file, *trouble),
        Refusal::Locked { holder, lock } => {
            format!("另一个导出进程正在运行，锁文件: {} ({holder})；请等待其结束或将其停止", at(lock))
        }
        Refusal::ScriptLocked { folder, age } => script_locked(folder, *age),
        Refusal::StateMissing { state } => {
            let state = at(state);
            format!(
                "已指定 --require-state，但没有状态文件 {state}；请检查 --output 和 --state-dir，或不带该参数运行一次"
            )
        }
        Refusal::NoState { state } => {
            format!("没有状态文件 {}；请检查 --output 和 --state-dir；首次运行会创建它", at(state))
        }
        Refusal::TreeWithoutState { output, state } => tree_without_state(output, state),
        Refusal::StateDamaged { state, detail } => format!(
            "状态文件 {} 无法使用: {detail}；未做任何改动；请用 `state restore latest` 恢复最近的备份，或用 `run --fresh` 将其移开并重新开始",
            at(state)
        ),
        Refusal::BackupUnusable { backup, detail } => {
            format!("备份 {} 无法恢复: {detail}；未做任何改动；请用 `state backups` 另选一个", at(backup))
        }
        Refusal::StateNewer { state, version, known } => {
            format!("状态文件 {} 的版本是 {version}，本程序只支持到 {known}；请使用新版程序", at(state))
        }
        Refusal::OtherSource { state, recorded, given } => {
            format!(
                "状态文件 {} 属于数据源 {recorded}，不属于 {given}；其他数据源请使用另外的 --output；若只是同一张表换了名称，请用 `state adopt-source`",
                at(state)
            )
        }
        Refusal::MarkMissing { output, state } => mark_missing(output, state),
        Refusal::MarkForeign { output, state } => format!(
            "{} 带有另一个状态文件的标记，不属于 {}；请检查 --output 和 --state-dir，或用 `run --fresh` 重新开始",
            at(output),
            at(state)
        ),
        Refusal::TreeRolledBack { output, tree_run, state_run } => format!(
            "{} 最后由第 {tree_run} 次运行写入，但状态文件记录到第 {state_run} 次: 目录被回滚或是副本；请恢复较新的目录，或用 `run --fresh` 重新开始",
            at(output)
        ),
        Refusal::NetworkFileSystem { path } => {
            format!("{} 位于网络文件系统，状态文件放在其上不安全；请用 --state-dir 指定本地目录", at(path))
        }
        Refusal::NamesFolded { output } => {
            let output = at(output);
            format!("{output} 所在的文件系统不区分大小写(或会规范化文件名)，两张发票可能互相覆盖；请使用其他文件系统")
        }
        Refusal::NotOwner { path } => {
            format!("{} 属于另一个用户；请以该用户运行，或用 chown 改为当前用户所有", at(path))
        }
        Refusal::CannotConnect { source, obstacle, detail } => cannot_connect(source, *obstacle, detail),
        Refusal::ConnectionLost { source, detail } => {
            format!("与 {source} 的连接中断: {detail}；请检查数据库服务器是否在运行")
        }
        Refusal::TableMissing { table } => {
            format!(
                "没有表 {table}，或当前账号无权读取；请检查 --source 中的数据库名和表名(--table)，或授予 SELECT 权限"
            )
        }
        Refusal::ColumnsMissing { table, columns } => format!(
            "表 {table} 没有列 {columns}，或当前账号无权读取；如果列名不同，请用 --time-column 等参数指定，否则请授予 SELECT 权限"
        ),
        Refusal::TableUnreadable { table, detail } => {
            format!("当前账号无权读取表 {table}: {detail}；请授予 SELECT 权限")
        }
    }
}

fn option_file(file: &Path, trouble: OptionFileTrouble) -> String {
    let file = file.display();
    match trouble {
        OptionFileTrouble::WritableByAll => {
            format!("选项文件 {file} 可被本机所有用户修改；请用 chmod o-w 保护它")
        }
        OptionFileTrouble::Include { line } => {
            format!("选项文件 {file} 第 {line} 行: 本程序不读取其中引用的其他文件；请直接指定保存密码的文件")
        }
        OptionFileTrouble::NoGroup { line } => {
            format!("选项文件 {file} 第 {line} 行: 选项之前没有组名；请在其上方写 [client]")
        }
        OptionFileTrouble::OpenGroup { line } => {
            format!("选项文件 {file} 第 {line} 行: 组名缺少右括号 ]；请写成 [client]")
        }
        OptionFileTrouble::NoValue { line, option } => {
            format!("选项文件 {file} 第 {line} 行: {option} 没有值；请写成 {option}=...")
        }
        OptionFileTrouble::NotUtf8 { line, option } => {
            format!("选项文件 {file} 第 {line} 行: {option} 的值不是 UTF-8；请将文件保存为 UTF-8")
        }
    }
}

fn cannot_connect(source: &str, obstacle: Obstacle, detail: &str) -> String {
    let remedy = match obstacle {
        Obstacle::Unreachable => "；请检查 --source 中的主机和端口，以及数据库服务器是否在运行",
        Obstacle::Login => "；请检查 --source 中的用户名和密码(--password-file、--defaults-file 或 MYSQL_PWD)",
        Obstacle::Database => "；请检查 --source 中的数据库名，以及该用户是否有权使用它",
        Obstacle::Full => "；请等待其他连接结束，或调大数据库服务器的 max_connections",
        Obstacle::Other => "",
    };
    format!("无法连接 {source}: {detail}{remedy}")
}

fn script_locked(folder: &Path, age: Duration) -> String {
    let folder = folder.display();
    let age = span(age);
    format!("导出脚本持有锁目录 {folder} (已 {age})；如果确认没有脚本在运行，请删除它: rm -r '{folder}'")
}

fn tree_without_state(output: &Path, state: &Path) -> String {
    format!(
        "{} 中已有导出文件，但没有状态文件 {}；请检查 --state-dir，或用 `state restore latest` 恢复备份，或用 `import-legacy-state` 接续脚本的状态，或用 `run --mode full` 接管这些文件，或用 `run --fresh` 重新开始",
        output.display(),
        state.display()
    )
}

fn mark_missing(output: &Path, state: &Path) -> String {
    format!(
        "{} 不是状态文件 {} 所描述的目录: 缺少标记 .export_state/lock (磁盘未挂载，或 --output 写错?)；如要从头填充此目录，请用 `run --fresh`",
        output.display(),
        state.display()
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::mem::discriminant;
    use std::path::PathBuf;

    use super::*;

    fn every_refusal() -> Vec<Refusal> {
        let output = PathBuf::from("/srv/tree");
        let state = PathBuf::from("/var/state.db");
        vec![
            Refusal::Usage("--since needs --until".to_owned()),
            Refusal::UnknownTenant("acme".to_owned()),
            Refusal::OptionFile {
                file: "/etc/my.cnf".into(),
                trouble: OptionFileTrouble::NoValue { line: 3, option: "password" },
            },
            Refusal::Locked { holder: "pid 7".to_owned(), lock: "/srv/tree/lock".into() },
            Refusal::ScriptLocked { folder: "/srv/tree/.export.lock".into(), age: Duration::from_secs(90) },
            Refusal::StateMissing { state: state.clone() },
            Refusal::NoState { state: state.clone() },
            Refusal::TreeWithoutState { output: output.clone(), state: state.clone() },
            Refusal::StateDamaged { state: state.clone(), detail: "page 3".to_owned() },
            Refusal::BackupUnusable { backup: state.clone(), detail: "page 3".to_owned() },
            Refusal::StateNewer { state: state.clone(), version: 9, known: 1 },
            Refusal::OtherSource {
                state: state.clone(),
                recorded: "mysql://a/".to_owned(),
                given: "sqlite:b".to_owned(),
            },
            Refusal::MarkMissing { output: output.clone(), state: state.clone() },
            Refusal::MarkForeign { output: output.clone(), state: state.clone() },
            Refusal::TreeRolledBack { output: output.clone(), tree_run: 4, state_run: 6 },
            Refusal::NetworkFileSystem { path: state.clone() },
            Refusal::NamesFolded { output },
            Refusal::NotOwner { path: state },
            Refusal::CannotConnect {
                source: "mysql://db:3306/shop".to_owned(),
                obstacle: Obstacle::Login,
                detail: "ERROR 1045".to_owned(),
            },
            Refusal::ConnectionLost { source: "mysql://db:3306/shop".to_owned(), detail: "errno 104".to_owned() },
            Refusal::TableMissing { table: "t_invoice".to_owned() },
            Refusal::ColumnsMissing { table: "t_invoice".to_owned(), columns: "fid2".to_owned() },
            Refusal::TableUnreadable { table: "t_invoice".to_owned(), detail: "ERROR 1142".to_owned() },
        ]
    }

    /// Further wordings of some of them.
    fn further_wordings() -> Vec<Refusal> {
        use OptionFileTrouble::{Include, NoGroup, NotUtf8, OpenGroup, WritableByAll};
        let option = "password";
        let troubles = [
            WritableByAll,
            Include { line: 4 },
            NoGroup { line: 5 },
            OpenGroup { line: 6 },
            NotUtf8 { line: 7, option },
        ];
        troubles.map(|trouble| Refusal::OptionFile { file: "/etc/my.cnf".into(), trouble }).into()
    }

    /// What must survive translation: paths, options, commands, numbers and names, which are the
    /// runs of ASCII that hold something else than the letters of a sentence.
    fn facts(english: &str) -> Vec<&str> {
        let pieces = english.split(|c: char| c.is_whitespace() || ":;?,()`'\"".contains(c));
        pieces.filter(|piece| piece.starts_with(['-', '/', '.']) || piece.chars().any(|c| c.is_ascii_digit())).collect()
    }

    #[test]
    fn every_refusal_keeps_its_paths_options_and_numbers_in_chinese() {
        for refusal in every_refusal().into_iter().chain(further_wordings()) {
            let chinese = Chinese.refusal(&refusal);
            assert!(!chinese.is_ascii(), "{chinese}");
            for fact in facts(&refusal.to_string()) {
                // The age is worded in the language itself.
                let duration = fact == "1m" || fact == "30s";
                assert!(duration || chinese.contains(fact), "{fact:?} is missing in {chinese}");
            }
        }
    }

    #[test]
    fn every_refusal_of_state_or_tree_says_what_to_do_in_chinese() {
        let refusals = every_refusal();
        assert_eq!(refusals.iter().map(discriminant).collect::<HashSet<_>>().len(), refusals.len());
        for refusal in
            refusals.into_iter().chain(further_wordings()).filter(|refusal| !matches!(refusal, Refusal::Usage(_)))
        {
            let chinese = Chinese.refusal(&refusal);
            assert!(chinese.contains('请'), "{chinese} names no remedy");
        }
    }

    #[test]
    fn durations_are_told_in_the_units_that_count() {
        assert_eq!(span(Duration::from_millis(40)), "40 毫秒");
        assert_eq!(span(Duration::from_millis(12_345)), "12.3 秒");
        assert_eq!(span(Duration::from_secs(90_005)), "1 天 1 小时 5 秒");
    }
}
