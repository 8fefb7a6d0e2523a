//! What each notice says, and how loud. A warning is what the operator can or should do something about.

use std::time::Duration;

use super::counts::count;
use super::line::{Level, Line};
use crate::event::{Condition, Doubt, FallenTenant, Life, Notice};
use crate::invoice::InvoiceId;
use crate::lang::{Message, Text, span};
use crate::refusal::Trouble;
use crate::run::KeptReason;

/// The wording of a notice, as a line of the log.
#[expect(clippy::too_many_lines, reason = "a list of sentences")]
pub(super) fn line(notice: &Notice) -> Line {
    match notice {
        Notice::OpenWork { since } => Line::info(text!(
            "work has been open in the server since {since}; the next run reads again from before it",
            "数据库中有自 {since} 起尚未结束的事务；下次运行会从更早的时间重新读取"
        )),
        Notice::Replica { behind: Some(behind) } => {
            let behind = span(*behind);
            Line::info(text!(
                "the server is a replica, {behind} behind its primary; later runs export what it has not yet",
                "数据库服务器是从库，落后主库 {behind}；尚未同步的数据由以后的运行导出"; behind
            ))
        }
        Notice::SetAside { to } => Line::info(text!(
            "the old state was set aside to {}, not deleted",
            "旧的状态文件已移到 {}，没有删除",
            to.display()
        )),
        Notice::TimeUnproven { runs, compared } => {
            let earlier = count(*runs, "run");
            let since = compared.as_ref().map_or(text!("the state was made", "建立状态文件"), Text::same);
            Line::info(text!(
                "{earlier} since {since} began on another host or after a restart than the run before; the clocks may have been set unnoticed, so all keys are compared once a day",
                "自 {since} 以来，有 {runs} 次运行与前一次运行不在同一主机，或两次之间主机曾重启，无法确认时钟是否被调整过；因此每天核对一次全部记录"; since
            ))
        }
        Notice::InDoubt { files } => {
            let files_in_doubt = count(*files, "file");
            Line::warn(text!(
                "{files_in_doubt} in doubt since a run died; the next run settles it",
                "有 {files} 个文件因运行意外终止而待确认；下次运行会重新确认"
            ))
        }
        Notice::RunUnfinished { run, kind, host, started, invoices, life, in_doubt } => {
            let come = count(*invoices, "invoice");
            let run = text!("run {run} ({kind}), started {started}", "运行 {run}（{kind}，开始于 {started}）"; kind);
            match life {
                Life::Alive => Line::info(text!(
                    "{run}, is at work: {come} so far",
                    "{run}正在进行: 已处理 {invoices} 条记录"; run
                )),
                Life::Unknown => Line::info(text!(
                    "{run} on {host}, has not ended, and its lock cannot be asked from here: {come} so far",
                    "{run}在 {host} 上尚未结束，且此处无法查询其锁: 已处理 {invoices} 条记录"; run
                )),
                Life::Dead => Line::warn({
                    let doubt = doubted_files(*in_doubt);
                    text!(
                        "{run}, died with {come} on record{doubt}; the next run makes it good",
                        "{run}意外终止，已登记 {invoices} 条记录{doubt}；下次运行会补上"; run, doubt
                    )
                }),
            }
        }
        Notice::LastAttemptFailed { run, how, kind, started, error } => {
            let run = text!("run {run} ({kind}), started {started}", "运行 {run}（{kind}，开始于 {started}）"; kind);
            Line::warn(
                text!("last attempt {how}: {run}: {error}", "最近一次导出{how}: {run}: {error}"; run, how, error),
            )
        }
        Notice::MissingIndex { statement } => Line::warn(message! {
            "the index for incremental runs is missing, so they are slow", "缺少增量导出所需的索引，查询会很慢";
            "create it with: {statement}", "请执行: {statement}"
        }),
        Notice::OpenWorkNotPermitted => Line::warn(message! {
            "the account lacks the PROCESS privilege and cannot see open transactions: only --overlap covers late commits",
            "数据库账号没有 PROCESS 权限，看不到未结束的事务；延迟提交的数据只能靠 --overlap 补上";
            "to let it see them: GRANT PROCESS ON *.* TO the account", "如需查看，请执行 GRANT PROCESS ON *.* TO 该账号"
        }),
        Notice::OpenWorkUnreliable => Line::warn(message! {
            "the server does not say reliably which transactions are open, so the next run compares all keys",
            "无法从数据库可靠得知哪些事务尚未结束，下次运行会核对全部记录";
            "if this goes on, look for a monitor that reads information_schema.INNODB_TRX many times a second, or query it and information_schema.PROCESSLIST to see what fails",
            "若持续出现，请检查是否有监控程序每秒多次查询 information_schema.INNODB_TRX，或手工查询该表和 information_schema.PROCESSLIST 查看报错"
        }),
        Notice::PreparedWork => Line::warn(message! {
            "a transaction is prepared in the server and no client holds it: until it ends, every run compares all keys",
            "数据库中有 PREPARED 状态的 XA 事务，其客户端已断开；在其结束之前，每次运行都会核对全部记录";
            "XA RECOVER lists it; XA COMMIT or XA ROLLBACK ends it",
            "请用 XA RECOVER 查看，用 XA COMMIT 或 XA ROLLBACK 结束"
        }),
        Notice::Replica { behind: None } => Line::warn(text!(
            "the server is a replica whose replication is stopped: nothing newer is exported until it goes on",
            "数据库服务器是从库，且复制已停止；恢复之前不会有更新的数据可导出"
        )),
        Notice::TakingOver { output } => Line::warn(text!(
            "there is no state, but {} holds exported files: this run takes them over",
            "没有状态文件，但 {} 中已有导出文件；本次运行将接管这些文件",
            output.display()
        )),
        Notice::NoBackup { error } => Line::warn(text!(
            "the run goes on, but the state could not be backed up: {error}",
            "运行继续，但状态文件未能备份: {error}"; error
        )),
        Notice::Recovering { files } => {
            let again = count(*files, "file");
            Line::warn(text!(
                "an earlier run died; {again} it left in doubt are read again",
                "之前的运行意外终止；将重新读取其留下的 {files} 个待确认文件"
            ))
        }
        Notice::Doubt(reason) => Line::warn(doubt(*reason)),
        Notice::PulledBack { tenant, from, to } => Line::warn(text!(
            "tenant {tenant}: its watermark {from} lay ahead of the boundary and is pulled back to {to}",
            "租户 {tenant}: 水位线 {from} 晚于导出时间边界，已退回到 {to}"
        )),
        Notice::NotShared { folder, detail } => Line::warn(message! {
            "files in {folder} do not get the group or ACL that the folder hands down, so that others may not be able to read them: {detail}",
            "{folder} 中的文件无法获得该目录传递的属组或 ACL，其他用户可能无法读取: {detail}";
            "make the user who exports a member of the group; `verify` lists these files and those in other folders",
            "请将导出用户加入该组；verify 会列出这些文件以及其他目录中的此类文件"
        }),
        Notice::StateNotShared { folder, group, example } => {
            let (folder, example) = (folder.display(), example.display());
            Line::warn(message! {
                "members of group {group} cannot read all of the state in {folder}: {example} has, or hands down to new files, another group",
                "属组 {group} 的成员无法读取 {folder} 中的全部状态文件: {example} 的属组不同，或不会把该属组传给新文件";
                "chgrp -R {group} {folder} && find {folder} -type d -exec chmod g+s {{}} +",
                "chgrp -R {group} {folder} && find {folder} -type d -exec chmod g+s {{}} +"
            })
        }
        Notice::NotRemoved { path, detail } => {
            Line::warn(text!("cannot remove {path}: {detail}", "文件 {path} 无法删除: {detail}"))
        }
        Notice::LeftInPlace { path } => Line::warn(text!(
            "the file {path} stays though no invoice names it, because its content is not what was exported",
            "文件 {path} 已不属于任何发票，但内容不是本程序导出的，保留不动"
        )),
        Notice::StaysInPlace { why, files, example } => {
            let (kept, because) = (count(*files, "file"), why_kept(*why));
            Line::warn(message! {
                "{kept} kept that no invoice names any more ({example}): {because}",
                "保留了 {files} 个已不属于任何发票的文件（例如 {example}）: {because}";
                "`verify` lists them, `verify --against-source --prune --prune-leftovers` removes them",
                "可用 verify 查看，用 verify --against-source --prune --prune-leftovers 删除"; because
            })
        }
        Notice::TableUnknown => Line::warn(text!(
            "the source does not show whether its table is the one of before (on a server that takes the PROCESS privilege, and InnoDB), so files of moved invoices are always kept",
            "无法从数据源确认数据表是否仍是原来的那张（MySQL/MariaDB 需要 PROCESS 权限和 InnoDB 表），因此移动过的发票的旧文件一律保留"
        )),
        Notice::TimesAhead { tenant, newest } => Line::warn(message! {
            "tenant {tenant} has source times ahead of the server's clock (up to {newest}); they are exported when their time has come, or by a full run",
            "租户 {tenant}: 更新时间晚于数据库时钟（最晚 {newest}），到时或由全量导出处理";
            "if the application writes in another time zone than the server's, name it with --time-zone, for example +08:00",
            "如果应用写入的时区与服务器不同，请用 --time-zone 指定，例如 +08:00"
        }),
        Notice::GoneBack { tenants, some } => Line::warn(gone_back(*tenants, some)),
        Notice::Late { by, overlap } => Line::warn(late(*by, *overlap)),
        Notice::Retrying { trouble, pause } => Line::warn(retrying(trouble, *pause)),
        Notice::Unread { invoices, trouble } => {
            let (counted, Message { what, hint }) = (count(*invoices, "invoice"), trouble.message());
            let what = text!(
                "{counted} without a known tenant could not be read: {what}; the next run reads them again",
                "{invoices} 张租户不明的发票未能读取: {what}；下次运行会重新读取"; what
            );
            Line::warn(Message { what, hint })
        }
        Notice::WithoutTime { invoices } => {
            let have = have(*invoices);
            Line::warn(text!(
                "{have} no usable source time; changes to such rows are seen by full runs only",
                "{invoices} 条记录没有可用的更新时间，其变化只有全量导出能发现"
            ))
        }
        Notice::WithoutTenant { invoices, more, some } => {
            Line::warn(without_tenant(*invoices, *more, &ids(*invoices, some)))
        }
        Notice::NoSource => Line::warn(message! {
            "no lag is shown, because no source is given", "没有指定数据源，无法显示滞后时间";
            "name it with --source or INVOICE_EXPORT_SOURCE", "请用 --source 或 INVOICE_EXPORT_SOURCE 指定"
        }),
        Notice::SourceSilent => Line::warn(text!("no lag is shown", "无法显示滞后时间")),
        Notice::JudgedByOwnClock => Line::warn(text!(
            "--stale-after goes by this machine's clock: a tenant is stale if the last incremental run that got as far as the tenant failed or is older",
            "--stale-after 改按本机时钟判断: 最近一次处理到该租户的增量导出若失败或已过时，即视为滞后"
        )),
        Notice::Stale { tenants, of, after } => {
            let (all, after) = (count(*of, "tenant"), span(*after));
            Line::warn(text!(
                "stale: {tenants} of {all} (--stale-after {after})",
                "{of} 个租户中有 {tenants} 个滞后超过 {after}（--stale-after）"; after
            ))
        }
        Notice::TooManyRejects { open, allowed } => {
            let cannot = count(*open, "invoice");
            Line::warn(message! {
                "{cannot} cannot be exported (--max-rejects {allowed})",
                "无法导出的记录有 {open} 条（--max-rejects {allowed}）";
                "`status --rejects` lists them", "可用 status --rejects 查看"
            })
        }
        Notice::OldReject { open_for, allowed } => {
            let (open_for, allowed) = (span(*open_for), span(*allowed));
            Line::warn(message! {
                "an invoice could not be exported for {open_for} (--reject-older-than {allowed})",
                "有记录无法导出已持续 {open_for}（--reject-older-than {allowed}）";
                "`status --rejects` lists it first", "status --rejects 中的第一条即是"; open_for, allowed
            })
        }
        Notice::ConditionEnded(condition) => Line::new(Level::Success, ended(condition)),
    }
}

/// What a dead run has left in doubt, behind what it has recorded.
fn doubted_files(in_doubt: Option<u64>) -> Text {
    match in_doubt {
        Some(0) => Text::same(""),
        Some(number) => {
            let files = count(number, "file");
            text!(" and {files} in doubt", "，另有 {number} 个文件待确认")
        }
        None => text!("; which files are in doubt cannot be read", "；无法读取哪些文件待确认"),
    }
}

/// What the end of a condition means.
fn ended(condition: &Condition) -> Text {
    match condition {
        Condition::OpenWorkUnseen => text!(
            "the server's open transactions can be seen now, and none is left prepared",
            "现在能看到数据库中未结束的事务，也没有 PREPARED 状态的 XA 事务"
        ),
        Condition::IndexMissing => {
            text!("the index for incremental runs is there now", "增量导出所需的索引已经存在")
        }
        Condition::ReplicationStopped => {
            text!("the server shows no stopped replication any more", "数据库服务器的复制已不处于停止状态")
        }
        Condition::TimesAhead(tenant) => text!(
            "tenant {tenant}: no source time lies ahead of the server's clock any more",
            "租户 {tenant}: 已没有晚于数据库时钟的更新时间"
        ),
        Condition::WithoutTenant => {
            text!("no invoice is without a tenant any more", "已没有租户为空的发票")
        }
    }
}

pub(super) fn retrying(trouble: &Trouble, pause: Duration) -> Message {
    let (Message { what, hint }, pause) = (trouble.message(), pause.as_secs_f64());
    let what = text!("{what}; trying again in {pause:.1} s", "{what}；{pause:.1} 秒后重试"; what);
    Message { what, hint }
}

/// Why all keys are read.
fn doubt(reason: Doubt) -> Text {
    let because = match reason {
        Doubt::StateRestored => {
            return text!(
                "the tree is newer than the state, which was restored from a backup: every invoice is compared with its file",
                "导出目录比状态文件新（状态文件是从备份恢复的）；每张发票都与其文件比较"
            );
        }
        Doubt::OtherServer => text!("another server answers than last time", "数据库服务器与上次不同"),
        Doubt::ClockMoved => text!(
            "the server's clock or its time zone moved against ours or the time that passed, or went back",
            "数据库服务器的时钟或时区相对本机或实际经过的时间发生变化，或时钟回退"
        ),
        Doubt::TimeUnproven => text!(
            "this machine was restarted since all keys were last compared, or it is another one, so that the clocks may have been set unnoticed",
            "自上次核对全部记录以来本机曾重启，或换了主机，无法确认时钟是否被调整过"
        ),
    };
    text!(
        "{because}: all keys are compared, without a lower bound",
        "{because}；本次不设时间下限，核对全部记录"; because
    )
}

/// Why files stay that no invoice names. None: a run of an earlier version may have written them.
fn why_kept(why: Option<KeptReason>) -> Text {
    match why {
        Some(KeptReason::Number) => text!(
            "their ids carry other numbers now, or those of another year, as when ids are used again",
            "其 id 现在是另一个发票号，或另一年的同一发票号（例如 id 被重新使用）"
        ),
        Some(KeptReason::Tenant) => text!("their ids belong to other tenants now", "其 id 现在属于另一个租户"),
        Some(KeptReason::Table) => text!(
            "it is not proven that the table is the one they came from (it, or the server, may have been restored, emptied, altered or restarted); a full run reads every row anew, and later moves are believed again",
            "无法证明数据表仍是导出时的那张表（表或服务器可能被恢复、清空、修改或重启过）；全量导出会重新读取每一行，之后的移动又能确认"
        ),
        Some(KeptReason::NotRemoved) => text!("they could not be removed", "当时无法删除"),
        None => text!(
            "a run of an earlier version died before it had recorded what it wrote there",
            "旧版本的运行意外终止，没有留下其写入内容的记录"
        ),
    }
}

fn gone_back(tenants: u64, some: &[FallenTenant]) -> Message {
    let shown = some.iter().map(|FallenTenant { tenant, from, to }| match to {
        Some(to) => text!("{tenant} {from} -> {to}", "租户 {tenant}: {from} -> {to}"),
        None => text!("{tenant} {from} -> no invoice", "租户 {tenant}: {from} -> 没有发票"),
    });
    let shown = Text::join(&shown.collect::<Vec<_>>(), ", ", "，");
    let rest = if tenants > some.len() as u64 { text!(", ...", "，等等") } else { Text::same("") };
    let of = count(tenants, "tenant");
    message! {
        "the newest source time of {of} is older than before ({shown}{rest}): the newest row was deleted or is no invoice any more, or the source is an older copy",
        "有 {tenants} 个租户的最新更新时间早于此前（{shown}{rest}）: 最新的记录已删除或不再是发票，或数据源是较旧的副本";
        "verify --against-source shows what is missing in the source",
        "verify --against-source 会列出数据源中缺少的发票"; shown, rest
    }
}

fn late(by: Duration, overlap: Duration) -> Message {
    let (by, overlap) = (span(by), span(overlap));
    message! {
        "invoices arrived up to {by} below the watermark, and --overlap is {overlap}",
        "迟到数据最多比水位线早 {by}，而 --overlap 为 {overlap}";
        "make it at least twice as long as that, or find what commits so late (transactions that stay open, a clock that is behind, an application in another time zone: --time-zone)",
        "请把 --overlap 设为该时长的两倍以上，或查明为何延迟提交（长事务、应用时钟偏慢、应用时区与服务器不同: --time-zone）"; by, overlap
    }
}

fn have(invoices: u64) -> String {
    if invoices == 1 { "1 invoice has".to_owned() } else { format!("{invoices} invoices have") }
}

fn without_tenant(invoices: u64, more: bool, ids: &str) -> Message {
    let have = have(invoices);
    let (over, rest) = match more {
        true => (text!("more than ", "超过 "), text!("; a full run names all of them", "；全量导出会列出全部")),
        false => (Text::same(""), Text::same("")),
    };
    message! {
        "{over}{have} no tenant (ids {ids}) and so no folder to go to",
        "{over}{invoices} 张发票的租户为空（id {ids}），没有可写入的目录";
        "set the tenant{rest}", "请补上租户{rest}"; over, rest
    }
}

/// The first of so many ids.
fn ids(of: u64, some: &[InvoiceId]) -> String {
    let some_text = some.iter().map(InvoiceId::as_str).collect::<Vec<_>>().join(", ");
    if of > some.len() as u64 { format!("{some_text}, …") } else { some_text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoice::Tenant;
    use crate::lang::Lang;
    use crate::refusal::Trouble;
    use crate::run::{Kind, RunId};

    fn gone_back() -> Notice {
        Notice::GoneBack {
            tenants: 3,
            some: vec![
                FallenTenant { tenant: "1".into(), from: "2025-11-28 16:30:00".into(), to: None },
                FallenTenant {
                    tenant: "2".into(),
                    from: "2025-11-28 16:30:00".into(),
                    to: Some("2025-11-27 16:30:00".into()),
                },
            ],
        }
    }

    fn ended() -> impl Iterator<Item = Notice> {
        let conditions = [
            Condition::OpenWorkUnseen,
            Condition::IndexMissing,
            Condition::ReplicationStopped,
            Condition::TimesAhead(Tenant::from("acme7")),
            Condition::WithoutTenant,
        ];
        conditions.into_iter().map(Notice::ConditionEnded)
    }

    /// Every notice, with every part of it that changes the wording.
    fn every_notice() -> Vec<Notice> {
        let (tenant, time) = (Tenant::from("acme7"), "2025-11-28 16:30:00");
        let (path, detail) = ("1/CN/a7.json".to_owned(), "errno 13".to_owned());
        let lives = [(Life::Alive, 0), (Life::Dead, 4), (Life::Dead, 0), (Life::Unknown, 0)];
        let unfinished = lives.map(|(life, files)| {
            let [host, started] = ["db7", time].map(str::to_owned);
            let in_doubt = Some(files);
            Notice::RunUnfinished { run: RunId(3), kind: Kind::Full, host, started, invoices: 9, life, in_doubt }
        });
        let doubts = [Doubt::OtherServer, Doubt::ClockMoved, Doubt::TimeUnproven, Doubt::StateRestored];
        let reasons = [KeptReason::Number, KeptReason::Tenant, KeptReason::Table, KeptReason::NotRemoved].map(Some);
        let kept =
            reasons.into_iter().chain([None]).map(|why| Notice::StaysInPlace { why, files: 5, example: path.clone() });
        let nameless = [true, false].map(|more| Notice::WithoutTenant { invoices: 1, more, some: vec!["12".into()] });
        let others = [
            Notice::MissingIndex { statement: "CREATE INDEX i1 ON t (a)".to_owned() },
            Notice::OpenWorkNotPermitted,
            Notice::OpenWorkUnreliable,
            Notice::PreparedWork,
            Notice::OpenWork { since: time.into() },
            Notice::Replica { behind: Some(Duration::from_secs(45)) },
            Notice::Replica { behind: None },
            Notice::TakingOver { output: "/srv/tree".into() },
            Notice::SetAside { to: "/srv/state.1".into() },
            Notice::NoBackup { error: Text::same("errno 28") },
            Notice::Recovering { files: 4 },
            Notice::InDoubt { files: 4 },
            Notice::PulledBack { tenant: tenant.clone(), from: time.into(), to: "2025-11-27".into() },
            Notice::LeftInPlace { path: path.clone() },
            Notice::TableUnknown,
            Notice::NotRemoved { path: path.clone(), detail: detail.clone() },
            Notice::NotShared { folder: path.clone(), detail },
            Notice::TimesAhead { tenant: tenant.clone(), newest: time.into() },
            Notice::TooManyRejects { open: 3, allowed: 2 },
            Notice::OldReject { open_for: Duration::from_secs(45), allowed: Duration::from_secs(44) },
            Notice::Late { by: Duration::from_secs(45), overlap: Duration::from_secs(50) },
            gone_back(),
            Notice::Retrying { trouble: Trouble::Rejects { invoices: 3 }, pause: Duration::from_millis(1500) },
            Notice::Unread { invoices: 6, trouble: Trouble::Rejects { invoices: 3 } },
            Notice::WithoutTime { invoices: 8 },
            Notice::NoSource,
            Notice::SourceSilent,
            Notice::TimeUnproven { runs: 2, compared: Some("2025-11-27T00:00:00Z".to_owned()) },
            Notice::TimeUnproven { runs: 1, compared: None },
            Notice::JudgedByOwnClock,
            Notice::Stale { tenants: 2, of: 3, after: Duration::from_secs(45) },
            Notice::LastAttemptFailed {
                run: RunId(3),
                how: text!("failed", "失败"),
                kind: Kind::Full,
                started: time.into(),
                error: Text::same("errno 13"),
            },
        ];
        others
            .into_iter()
            .chain(unfinished)
            .chain(doubts.map(Notice::Doubt))
            .chain(kept)
            .chain(nameless)
            .chain(ended())
            .collect()
    }

    fn numbers(text: &str) -> Vec<&str> {
        text.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty()).collect()
    }

    #[test]
    fn every_notice_is_worded_in_both_languages_with_the_same_numbers() {
        for notice in every_notice() {
            let Message { what, hint } = line(&notice).message;
            for text in std::iter::once(&what).chain(&hint) {
                let [english, chinese] = [Lang::En, Lang::Zh].map(|lang| text.in_lang(lang));
                assert!(chinese.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)), "{chinese}");
                assert!(!english.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)), "{english}");
                let [mut here, mut there] = [english, chinese].map(numbers);
                here.sort_unstable();
                there.sort_unstable();
                assert_eq!(here, there, "{english} {chinese}");
            }
        }
    }
}
