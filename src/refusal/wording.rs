//! What each refusal says, in both languages, and the way out of it.

use std::path::Path;

use super::{Holder, Refusal, signal_name};
use crate::lang::{Message, Text, span};

impl Refusal {
    /// The wording of this refusal. Words of a server or of the operating system stay as they are.
    #[expect(clippy::too_many_lines, reason = "a list of sentences")]
    pub fn message(&self) -> Message {
        match self {
            Self::Usage(message) => message.clone(),
            Self::UnknownTenant(tenant) => {
                text!("there is no tenant {tenant:?} in the source", "数据库中没有租户 {tenant:?}")
                    .with_hint(spelling())
            }
            Self::OptionFile { file, trouble } => trouble.message(file),
            Self::TenantNotInState(tenant) => text!(
                "the state knows no tenant {tenant:?}: nothing of it was ever exported",
                "状态文件中没有租户 {tenant:?}: 从未导出过它的数据"
            )
            .with_hint(spelling()),
            Self::Cancelled { signal } => message! {
                "cancelled by {}; what was exported until now is on record",
                "已被 {} 取消；此前导出的内容均已记录", signal_name(*signal);
                "run again: the next run goes on from there", "请直接重新运行，下次运行会从此处继续"
            },
            Self::Locked { holder, lock } => {
                let (holder, lock) = (Holder::text(holder.as_deref()), lock.display());
                message! {
                    "another run holds the lock {lock}: {holder}", "另一个导出进程正在运行，锁文件: {lock}（{holder}）";
                    "wait for it or stop it", "请等待其结束或将其停止"; holder
                }
            }
            Self::ScriptLocked { folder, age } => {
                let (age, folder) = (span(*age), folder.display());
                message! {
                    "the export script holds the lock folder {folder} (for {age})",
                    "导出脚本持有锁目录 {folder}（已持续 {age}）";
                    "if no script is running any more, remove it with: rm -r '{folder}'",
                    "如果确认没有脚本在运行，请删除它: rm -r '{folder}'"; age
                }
            }
            Self::StateMissing { state } => message! {
                "there is no state at {}, and --require-state was given",
                "已指定 --require-state，但没有状态文件 {}", state.display();
                "check --output and --state-dir, and that the volume is mounted; if the state was lost, bring a backup back with `state restore latest`; leave --require-state out only for a very first run",
                "请检查 --output 和 --state-dir，以及磁盘是否已挂载；如果状态文件丢失，请用 `state restore latest` 恢复备份；只有首次运行才可去掉 --require-state"
            },
            Self::NoState { state } => message! {
                "there is no state at {}", "没有状态文件 {}", state.display();
                "check --output and --state-dir, and that the volume is mounted; a first run makes one",
                "请检查 --output 和 --state-dir，以及磁盘是否已挂载；首次运行会创建它"
            },
            Self::TreeWithoutState { output, state } => message! {
                "{} holds exported files, but there is no state at {}",
                "{} 中已有导出文件，但没有状态文件 {}", output.display(), state.display();
                "check --state-dir, bring a backup back with `state restore latest`, go on from the script's state with `import-legacy-state`, take the tree over with `run --mode full`, or start anew with `run --fresh`",
                "请检查 --state-dir，或用 `state restore latest` 恢复备份，或用 `import-legacy-state` 接续脚本的状态文件，或用 `run --mode full` 接管这些文件，或用 `run --fresh` 重新开始"
            },
            Self::StateDamaged { state, damage } => {
                let (state, damage) = (state.display(), damage.text());
                message! {
                    "the state {state} cannot be used: {damage}; nothing was changed",
                    "状态文件 {state} 无法使用: {damage}；未做任何改动";
                    "bring the last backup back with `state restore latest`, or set the state aside and start anew with `run --fresh`",
                    "请用 `state restore latest` 恢复最近的备份，或用 `run --fresh` 将其移开并重新开始"; damage
                }
            }
            Self::BackupUnusable { backup, damage } => {
                let (backup, damage) = (backup.display(), damage.text());
                message! {
                    "the backup {backup} cannot be restored: {damage}; nothing was changed",
                    "备份 {backup} 无法恢复: {damage}；未做任何改动";
                    "choose another one from `state backups`", "请用 `state backups` 另选一个"; damage
                }
            }
            Self::StateNewer { state, version, known } => message! {
                "the state {} has schema version {version}, this program knows {known}",
                "状态文件 {} 的版本是 {version}，本程序只支持到 {known}", state.display();
                "use the newer program", "请使用新版程序"
            },
            Self::OtherSource { state, recorded, given } => message! {
                "the state {} belongs to the source {recorded}, not to {given}",
                "状态文件 {} 属于数据源 {recorded}，不属于 {given}", state.display();
                "use another --output for another source, or, if it is the same table under another name, `state adopt-source`",
                "其他数据源请使用另外的 --output；若只是同一张表换了名称，请用 `state adopt-source`"
            },
            Self::MarkMissing { output, state } => mark_missing(output, state),
            Self::MarkForeign { output, state } => message! {
                "{} carries the mark of another state than {}",
                "{} 带有另一个状态文件的标记，不属于 {}", output.display(), state.display();
                "check --output and --state-dir; if they do belong together, use `state restore FILE --adopt-tree` with a backup; or start anew with `run --fresh`",
                "请检查 --output 和 --state-dir；如果两者确实是一起的，请用备份执行 `state restore FILE --adopt-tree`；或用 `run --fresh` 重新开始"
            },
            Self::TreeRolledBack { output, tree_run, state_run } => tree_rolled_back(output, *tree_run, *state_run),
            Self::SourceOlder { source, exported } => {
                let newest =
                    source.as_ref().map_or(text!("the source has no invoices", "数据源中没有发票"), |newest| {
                        text!("the newest source time is {newest}", "数据源最新的更新时间是 {newest}")
                    });
                message! {
                    "{newest}, but {exported} was exported: this looks like a restored, an empty or another source; nothing was changed",
                    "{newest}，而已导出到 {exported}；数据源可能是恢复的旧库、空库或另一个库；未做任何改动";
                    "is --source right?", "请检查 --source"; newest
                }
            }
            Self::NetworkFileSystem { path } => message! {
                "{} lies on a network file system, on which a state is not safe",
                "{} 位于网络文件系统，状态文件放在其上不安全", path.display();
                "name a local folder with --state-dir", "请用 --state-dir 指定本地目录"
            },
            Self::PathTooLong { path, length, most } => message! {
                "the path {} is too long for SQLite: it has {length} bytes without links, and {most} are possible",
                "路径 {} 对 SQLite 来说过长: 解析链接后有 {length} 字节，最多 {most} 字节", path.display();
                "name a shorter --output, a folder with a shorter path with --state-dir, or another place for a backup",
                "请指定更短的 --output，或用 --state-dir 指定路径更短的目录；备份请放在路径更短的位置"
            },
            Self::NamesFolded { output } => message! {
                "the file system of {} does not tell upper from lower case (or normalises names), so two invoices could overwrite each other",
                "{} 所在的文件系统不区分大小写（或会规范化文件名），两张发票可能互相覆盖", output.display();
                "use another file system", "请使用其他文件系统"
            },
            Self::NotOwner { path } => message! {
                "{} belongs to another user", "{} 属于另一个用户", path.display();
                "run as that user, or give it to this one with chown; if it is only to be read, `run --state-mode 0640` by that user lets the group of its folder read it",
                "请以该用户运行，或用 chown 改为当前用户所有；如果只需读取，由该用户执行 `run --state-mode 0640` 即可让其目录的属组读取"
            },
            Self::Untrusted { path, why } => why.message(path),
            Self::NotLegacyState { file, fault } => {
                let (file, fault) = (file.display(), fault.text());
                message! {
                    "{file} is no state file of the script: {fault}; nothing was changed",
                    "{file} 不是旧脚本的状态文件: {fault}；未做任何改动";
                    "mend it and import it again", "请修正后重新导入"; fault
                }
            }
            Self::GoesBack { file, tenants, names } => {
                let (file, noun) = (file.display(), if *tenants == 1 { "tenant" } else { "tenants" });
                Text::new(
                    format!("{file} would move watermarks back, of {tenants} {noun}: {names}; nothing was changed"),
                    format!("{file} 会使 {tenants} 个租户的水位线后退: {names}；未做任何改动"),
                )
                .with_hint(text!("if that is wanted, use --overwrite", "如确需如此，请用 --overwrite"))
            }
            Self::NotMirrored { file, fault } => fault.message(file),
            Self::CannotConnect { source, obstacle, detail } => {
                let Message { what, hint } = obstacle.message(detail);
                Message {
                    what: text!("cannot connect to {source}: {what}", "无法连接 {source}: {what}"; what), hint
                }
            }
            Self::ConnectionLost { source, detail } => message! {
                "the connection to {source} was lost: {detail}", "与 {source} 的连接中断: {detail}";
                "check that the server is running", "请检查数据库服务器是否在运行"; detail
            },
            Self::Overtime { setting, detail } => message! {
                "the server ended a statement that took too long: {detail}", "语句执行时间过长，被服务器终止: {detail}";
                "let this account's statements take longer ({setting}, also in a proxy before the server)",
                "请放宽该账号的语句时限（{setting}，包括服务器前代理的设置）"
            },
            Self::TableMissing { table } => message! {
                "there is no table {table} that this account may read", "没有表 {table}，或当前账号无权读取";
                "check the database in --source and the table's name (--table), or, on a server, grant SELECT on it",
                "请检查 --source 中的数据库名和表名（--table）；若是数据库服务器，也可授予 SELECT 权限"
            },
            Self::ColumnsMissing { table, columns } => message! {
                "the table {table} has no column {columns} that this account may read",
                "表 {table} 没有列 {columns}，或当前账号无权读取";
                "if it is called otherwise, name it with --time-column and the like; otherwise grant SELECT on it",
                "如果列名不同，请用 --time-column 等选项指定，否则请授予 SELECT 权限"
            },
            Self::TableChanged { table, column } => message! {
                "the table {table} was changed while it was read: the column {column} has another type now; what was exported is on record",
                "表 {table} 在读取过程中被改动: 列 {column} 的类型已不同；已导出的内容均已记录";
                "run again once the change is through", "请在表结构变更完成后重新运行"
            },
            Self::TableUnreadable { table, detail } => message! {
                "this account may not read the table {table}: {detail}", "当前账号无权读取表 {table}: {detail}";
                "grant SELECT on it", "请授予 SELECT 权限"
            },
            Self::FewHandles { handles, inherited, least } => message! {
                "this process may have {handles} files open, of which {inherited} are inherited, and needs {least} of its own",
                "本进程最多可打开 {handles} 个文件（其中 {inherited} 个继承自父进程），自身至少需要 {least} 个";
                "raise the limit (ulimit -n, LimitNOFILE= of systemd)",
                "请调大上限（ulimit -n，或 systemd 的 LimitNOFILE=）"
            },
            Self::NoThread { detail } => message! {
                "no thread is to be had: {detail}", "无法创建线程: {detail}";
                "raise the limit of processes (ulimit -u, TasksMax= of systemd, the pids limit of a container), or take fewer --writers",
                "请调大进程数上限（ulimit -u、systemd 的 TasksMax= 或容器的 pids 限制），或减小 --writers"
            },
            Self::Panicked { place, detail } => message! {
                "this is a bug ({detail}, at {place}); what was recorded stands, and the next run goes on from there",
                "程序缺陷（{detail}，位于 {place}）；已记录的内容不受影响，下次运行会从此处继续";
                "please report it", "请向开发者报告"
            },
        }
    }
}

fn spelling() -> Text {
    text!("check the spelling, also upper and lower case", "请检查拼写和大小写")
}

fn mark_missing(output: &Path, state: &Path) -> Message {
    message! {
        "{} is not the tree that the state {} describes: its mark .export_state/lock is missing (volume not mounted, or a mistyped --output?)",
        "{} 不是状态文件 {} 所描述的目录: 缺少标记 .export_state/lock（磁盘未挂载，或 --output 写错？）", output.display(), state.display();
        "if it is that tree, brought back without its mark, use `state restore FILE --adopt-tree` with a backup; to fill this folder from the start, `run --fresh`",
        "如果就是那个目录，只是恢复时丢了标记，请用备份执行 `state restore FILE --adopt-tree`；如要从头填充此目录，请用 `run --fresh`"
    }
}

fn tree_rolled_back(output: &Path, tree_run: i64, state_run: i64) -> Message {
    let output = output.display();
    if tree_run == state_run {
        return message! {
            "{output} is a copy of the time when run {tree_run} still wrote to it",
            "{output} 是运行 {tree_run} 尚未写完时的副本";
            "bring back a tree of later on, or go on with this one: `state backup`, then `state restore latest --adopt-tree`",
            "请恢复较新的目录，或沿用此目录: 先 `state backup`，再 `state restore latest --adopt-tree`"
        };
    }
    message! {
        "{output} was last published by run {tree_run}, but the state says run {state_run}: the tree was rolled back or is a copy",
        "{output} 最后由运行 {tree_run} 写入，但状态文件已记录到运行 {state_run}: 目录被回滚，或是旧的副本";
        "restore the newer tree, or go on with this one: `state backup`, then `state restore latest --adopt-tree`",
        "请恢复较新的目录，或沿用此目录: 先 `state backup`，再 `state restore latest --adopt-tree`"
    }
}
