//! The help in Chinese: what each command and each flag is for. The English help stands beside the flags in `cli.rs`;
//! a test asks for the Chinese of each.

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command};

/// The same command line with its help in Chinese.
pub fn in_chinese(command: Command) -> Command {
    let name = command.get_name().to_owned();
    let is_top = command.get_subcommands().any(|command| command.get_name() == "run");
    let mut command = command
        .help_template("{about-with-newline}\n用法: {usage}\n\n{all-args}{after-help}")
        .subcommand_help_heading("命令")
        .disable_help_flag(true)
        .arg(Arg::new("help").short('h').long("help").action(ArgAction::Help).help("显示帮助（--help 显示全部说明）"))
        .mut_args(|flag| flag_in_chinese(&name, flag))
        .mut_subcommands(in_chinese);
    if name == "config" {
        // The state has a command of the same name.
        let about = "检查配置文件是否正确；有误或没有配置文件时，退出码为 2";
        command = command.mut_subcommand("check", |check| check.about(about));
    }
    if let Some(about) = about(&name).filter(|_| !is_top) {
        command = command.about(about);
    }
    if is_top {
        command = command
            .about("从 MySQL 或 MariaDB 导出已开具的发票，每张一个 JSON 文件；可全量导出，也可只导出有变化的发票")
            .long_about(EXIT_CODES)
            .disable_version_flag(true)
            .arg(
                Arg::new("version")
                    .short('V')
                    .long("version")
                    .action(ArgAction::Version)
                    .help("显示版本")
                    .help_heading("选项"),
            );
    }
    let has_commands = command.has_subcommands();
    if !has_commands { command } else { command.disable_help_subcommand(true).subcommand(help_command()) }
}

const EXIT_CODES: &str = "从 MySQL 或 MariaDB 导出已开具的发票，每张一个 JSON 文件；可全量导出，也可只导出有变化的发票

退出码: 0 完成；1 失败；2 用法错误；3 已完成，但有租户失败或有发票新近无法导出；4 另一个进程持有锁；5 状态文件或配置文件被拒绝；6 发现问题；129、130、143 被信号取消。";

/// It is only shown: `commands` asks for the help of a subcommand by `--help`.
fn help_command() -> Command {
    Command::new("help").about("显示帮助，或指定子命令的帮助")
}

fn flag_in_chinese(command: &str, flag: Arg) -> Arg {
    let heading = match flag.get_help_heading() {
        Some("Options of every command") => "所有命令的选项",
        Some("Names in the source") => "数据源中的名称",
        _ if flag.is_positional() => "参数",
        _ => "选项",
    };
    let id = flag.get_id().as_str().to_owned();
    let said = [help(command, &id).map(str::to_owned), values(&flag), default(&flag), variable(&flag)];
    let said = said.into_iter().flatten();
    let Some(help) = said.reduce(|all, next| format!("{all} {next}")) else { return flag.help_heading(heading) };
    let has_values = takes_value(&flag);
    let flag = flag.help(help).long_help(None::<&'static str>).help_heading(heading);
    flag.hide_possible_values(has_values).hide_default_value(has_values).hide_env(true)
}

/// What the flag may be set to.
fn values(flag: &Arg) -> Option<String> {
    let values: Vec<PossibleValue> = if takes_value(flag) { flag.get_possible_values() } else { Vec::new() };
    let values: Vec<&str> = values.iter().map(PossibleValue::get_name).collect();
    (!values.is_empty()).then(|| format!("[可选值: {}]", values.join(", ")))
}

fn default(flag: &Arg) -> Option<String> {
    let default = flag.get_default_values().first().filter(|_| takes_value(flag))?;
    Some(format!("[默认: {}]", default.to_string_lossy()))
}

fn variable(flag: &Arg) -> Option<String> {
    flag.get_env().map(|name| format!("[环境变量: {}]", name.to_string_lossy()))
}

fn takes_value(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::Set | ArgAction::Append)
}

/// What a command is for.
fn about(command: &str) -> Option<&'static str> {
    Some(match command {
        "run" => "导出发票",
        "status" => "各租户的状态: 已导出到哪里，上次运行结果如何，哪些发票无法导出",
        "history" => "运行和状态文件变更的历史，最新的在前；也可查看其中一条的全部内容",
        "why" => "查询一张发票: 是否已导出；如果没有，原因是什么",
        "verify" => "核对: 文件与已导出的内容是否一致，是否全部导出；--repair 可修复",
        "state" => "修正、备份、恢复和检查状态文件",
        "set" => "移动某个租户的水位线；其后导出的内容会重新比对",
        "reset" => "清除水位线，使下次增量导出比对所有发票",
        "backup" => "备份状态文件（经过检查的完整副本），运行期间也可使用",
        "backups" => "列出备份，最新的在前",
        "restore" => "用备份替换当前状态文件",
        "check" => "检查状态文件是否完整、内容是否一致",
        "adopt-source" => "把状态文件改为属于当前指定的数据源",
        "import-legacy-state" => "导入旧脚本状态文件中的水位线",
        "export-legacy-state" => "按旧脚本状态文件的格式写出水位线",
        "config" => "查看、生成和检查配置",
        "show" => "每个设置的值及其来源",
        "init" => "生成配置文件，其中所有设置都是注释",
        "demo" => "生成内置的示例数据源并导出，不需要数据库服务器",
        _ => return None,
    })
}

/// What a flag of a command is for. The same flag may mean something else in another command.
fn help(command: &str, id: &str) -> Option<&'static str> {
    let of_init = || {
        (command == "init" && id == "file")
            .then_some("尚不存在的文件 [默认: root 为 /etc/invoice-export/config.toml，其他用户为 ~/.config 下的文件]")
    };
    of_command(command, id)
        .or_else(|| of_history(command, id))
        .or_else(|| of_every_command(id))
        .or_else(|| of_work(id))
        .or_else(|| of_names(id))
        .or_else(of_init)
}

/// Flags of `history`.
fn of_history(command: &str, id: &str) -> Option<&'static str> {
    Some(match (command, id) {
        ("history", "which") => "一次运行（编号、`last` 或 `last-failed`）或一次变更（如 `c3`）",
        ("history", "files") => "该次运行写入、接管或删除的文件路径",
        ("history", "null") => {
            "只输出可供复制的路径: 写入或接管、且之后未被删除的；每个以零字节结尾，供 `rsync --from0 --files-from=-` 使用（rsync 不会据此删除文件）"
        }
        ("history", "tenant") => "只列出处理过该租户的运行，以及其水位线的变更",
        ("history", "status") => "只列出此状态的运行",
        ("history", "kind") => "只列出此类型的记录",
        ("history", "since") => {
            "只列出此时间起（按本机时钟）开始的记录: \"2025-11-28 10:00:00\"、\"2025-11-28\"、\"2025-11-28T10:00:00+08:00\"、yesterday，或 2d（两天前）"
        }
        ("history", "until") => "到此时间为止",
        ("history", "limit") => "最多列出多少条；0 表示全部",
        _ => return None,
    })
}

/// Flags of one command.
fn of_command(command: &str, id: &str) -> Option<&'static str> {
    Some(match (command, id) {
        ("run", "mode") => "全量导出，或只导出上次增量导出之后有变化的发票 [默认: full]",
        ("run", "dry_run") => "读取并检查全部内容，但不写入任何文件",
        ("run", "since") => {
            "重新导出更新时间晚于此时间（或从这一天起）的发票: \"2025-11-28 10:00:00\"（按数据源显示的时间）、\"2025-11-28\"（从 00:00:00 起；用于 --until 时到当天结束）、\"2025-11-28T10:00:00+08:00\"、today、yesterday，或 2d（两天前）"
        }
        ("run", "until") => "到此时间为止（含）[默认: 导出时间边界]",
        ("run", "strict") => "租户只要有发票无法导出就算失败，水位线不动，直到可以导出",
        ("run", "fresh") => "把已有的状态文件放到一旁（不会删除），从头开始；内容正确的文件保留不动",
        ("run", "require_state") => "没有状态文件时报错；首次运行之后建议写入 crontab",
        ("run", "backup_every") => "增量导出前，若上次自动备份早于此时长则备份状态文件；0s 表示从不",
        ("run", "keep_backups") => "保留多少份自动备份",
        ("run", "mirror_legacy_state") => {
            "运行结束后写出旧脚本的状态文件，供读取该文件的监控使用；被替换的文件按 --backup-every 和 --keep-backups 保留"
        }
        ("verify", "hash") => "读取每个文件，而不仅是大小或时间可疑的文件",
        ("verify", "against_source") => "同时将台账与数据源比对: 有无漏导、内容过时、路径已变或已撤销的发票",
        ("verify", "documents") => "还读取全部发票内容，以发现没有改变更新时间的修改",
        ("verify", "repair") => {
            "导出缺失或被改动的文件；加 --against-source 时还包括漏导、内容过时或路径已变的；其他一概不动"
        }
        ("verify", "prune") => "删除已撤销发票的文件，以及之前未能删除的旧文件",
        ("verify", "prune_leftovers") => {
            "还删除因 id 被（或可能被）重复使用而遗留的文件；每个都可能是早先那张发票的唯一文件"
        }
        ("verify", "prune_up_to") => {
            "最多删除多少个文件而不询问 [默认: 1000，且不超过台账的 1 %；使用 --prune-leftovers 时，或无法证明仍是原来的表时为 0]"
        }
        ("verify", "since") => "只核对更新时间晚于此时间（或从这一天起）的发票；写法见 `run --since`",
        ("verify", "until") => "到此时间为止（含）",
        ("verify", "limit") => "每种差异最多列出多少条；计数始终完整。0 表示全部",
        ("status", "stale_after") => {
            "租户滞后超过此时长则退出码为 6；不提供数据源时，看处理到该租户的最近一次增量导出是否失败或过旧"
        }
        ("status", "max_rejects") => "无法导出的发票多于此数则退出码为 6",
        ("status", "reject_older_than") => "有发票无法导出的时间超过此时长则退出码为 6",
        ("status", "rejects") => "改为列出无法导出的发票",
        ("status", "limit") => "最多列出多少行；计数和判断始终完整。0 表示全部",
        ("why", "number") => "发票号，或其文件: 绝对路径、相对路径或文件名",
        ("why", "tenant") => "只查询此租户",
        ("set", "tenant") => "租户",
        ("set", "time") => {
            "按数据源的时钟: \"2025-11-28 10:00:00\"、\"2025-11-28\"（当天 00:00:00）、\"2025-11-28T10:00:00+08:00\"、yesterday，或 2d（两天前）"
        }
        ("reset", "tenant") => "租户",
        ("reset", "all") => "所有租户",
        ("backup", "file") => "备份到哪里 [默认: 状态目录下 `backups` 中的新文件]",
        ("restore", "file") => "备份文件，或 `latest`",
        ("restore", "adopt_tree") => {
            "导出目录属于此状态文件，尽管其标记已丢失或属于另一个状态文件: 导出文件和状态文件是分别恢复的"
        }
        ("check", "deep") => "读取每一页和每一行",
        ("import-legacy-state" | "export-legacy-state", "file") => {
            "旧脚本的状态文件（导出时 `-` 表示标准输出）[默认: 导出目录下的 .export_state/.last_export_time]"
        }
        ("import-legacy-state", "dry_run") => "只显示新旧水位线，不做任何更改",
        ("import-legacy-state", "overwrite") => "允许水位线后退",
        ("import-legacy-state", "overlap") => "从导入的时间往前多久重新读取键",
        ("demo", "folder") => "尚不存在的目录",
        _ => return None,
    })
}

/// Flags of every command.
fn of_every_command(id: &str) -> Option<&'static str> {
    Some(match id {
        "source" => {
            "数据源: mysql://user@host:3306/database（可加 ?socket=/path），或 sqlite:path。密码依次取自 --password-file、--defaults-file、MYSQL_PWD、INVOICE_EXPORT_SOURCE 中的 URL，不能写在命令行上"
        }
        "password_file" => "第一行为密码的文件",
        "password_command" => "没有 --password-file 时，用于输出密码的 shell 命令，限时 30 秒",
        "defaults_file" => {
            "MySQL 选项文件，取其中 `[client]` 和 `[invoice-export]` 的 user、password 和 server-public-key-path"
        }
        "ssl_mode" => {
            "TCP 连接如何加密和验证服务器 [默认: 连接本机时不加密，除非服务器要求发送密码原文；连接其他主机时为 VERIFY_IDENTITY]"
        }
        "ssl_ca" => "受信任的证书（PEM）[默认: 系统证书]",
        "server_public_key" => "服务器的 RSA 公钥（PEM）: 连接未加密时，可用它加密发送密码",
        "read_timeout" => "服务器多久没有应答就视为连接中断",
        "config" => {
            "配置文件，键为选项的长名称 [默认: ~/.config/invoice-export/config.toml，没有则用 /etc/invoice-export/config.toml]"
        }
        "no_config" => "不读取配置文件",
        "output" => "导出目录；不存在时自动创建",
        "state_dir" => "状态文件存放的目录，须在本地文件系统上 [默认: 导出目录下的 .export_state]",
        "state_mode" => "谁可以读取状态文件及其日志、备份和锁 [默认: 保持现有权限；新建的状态文件仅限所有者]",
        "format" => "标准输出上结果的格式",
        "utc" => "运行时间按 UTC 读取和显示 [默认: 本机时区]",
        "lang" => "提示和错误的语言 [默认: 由 locale 决定]",
        "quiet" => "只输出警告和错误；查询的结果以及 --format json、csv 照常输出",
        "verbose" => "输出更多信息",
        "no_progress" => "不显示进度条和进度信息",
        _ => return None,
    })
}

/// Flags that several commands share.
fn of_work(id: &str) -> Option<&'static str> {
    Some(match id {
        "tenant" => "只处理此租户；可重复使用",
        "safety_lag" => "导出时间边界比服务器时钟早多久",
        "overlap" => "从租户最新更新时间往前多久重新读取键，以覆盖延迟提交的事务",
        "retry_for" => "服务器无法连接或连接中断时，最多重试多久",
        "lock_wait" => "等待另一个进程释放锁的最长时间；同一模式的运行从不等待",
        "writers" => "检查和写入文件的线程数",
        "durability" => {
            "多个文件一次同步（batch），或逐个文件同步（file，较慢）: 用于不传递整个文件系统同步的挂载和旧内核；在没有日志的 ext4 上只有 batch 能经受断电 [默认: batch；FUSE、SMB 和 9p 上为 file]"
        }
        "max_document" => "超过此大小的发票内容不导出",
        "reason" => "变更原因，记入历史",
        "yes" => "不询问",
        _ => return None,
    })
}

/// What the table and its columns are called.
fn of_names(id: &str) -> Option<&'static str> {
    Some(match id {
        "table" => "发票表",
        "id_column" => "NOT NULL 的唯一列 [默认: 主键]",
        "tenant_column" => "租户列",
        "country_column" => "国家列",
        "date_column" => "开票日期列",
        "number_column" => "发票号列",
        "status_column" => "状态列",
        "document_column" => "发票内容列",
        "time_column" => "更新时间列",
        "issued_status" => "表示已开具的状态值",
        "time_zone" => "写入 DATETIME 列时所用的时区: 时区偏移（+08:00），或服务器认识的名称 [默认: 服务器自己的时区]",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn assert_complete(command: &Command) {
        for flag in command.get_arguments() {
            assert!(help(command.get_name(), flag.get_id().as_str()).is_some(), "{} {flag}", command.get_name());
        }
        for command in command.get_subcommands() {
            assert!(about(command.get_name()).is_some(), "{}", command.get_name());
            assert_complete(command);
        }
    }

    #[test]
    fn every_command_and_flag_has_its_help_in_chinese() {
        assert_complete(&Cli::command());
        in_chinese(Cli::command()).debug_assert();
    }
}
