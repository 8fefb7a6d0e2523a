//! The Chinese of refusals and of what they are made of. What a server, SQLite or the operating system
//! said stays as it was said.

use std::path::Path;
use std::time::Duration;

use super::chinese::{name, span};
use crate::refusal::{
    AddressFault, Damage, Distrust, Holder, LegacyFault, Misuse, Obstacle, OptionFileTrouble, Refusal, signal_name,
};
use crate::run::Kind;

#[expect(clippy::too_many_lines, reason = "a list of sentences")]
pub(super) fn refusal_text(refusal: &Refusal) -> String {
    let at = |path: &Path| path.display().to_string();
    match refusal {
        Refusal::Usage(text) => format!("用法错误: {text}"),
        Refusal::Misuse(misuse) => format!("用法错误: {}", misuse_text(misuse)),
        Refusal::UnknownTenant(tenant) => format!("数据库中没有租户 \"{tenant}\"；请检查拼写和大小写"),
        Refusal::TenantNotInState(tenant) => {
            format!("状态文件中没有租户 \"{tenant}\": 从未导出过它的数据；请检查拼写和大小写")
        }
        Refusal::OptionFile { file, trouble } => option_file(file, *trouble),
        Refusal::Cancelled { signal } => {
            format!("已被 {} 取消；此前导出的内容均已记录，下次运行会从此处继续，请直接重新运行", signal_name(*signal))
        }
        Refusal::Locked { holder, lock } => {
            let holder = holder_text(holder.as_ref());
            format!("另一个导出进程正在运行，锁文件: {} ({holder})；请等待其结束或将其停止", at(lock))
        }
        Refusal::ScriptLocked { folder, age } => script_locked(folder, *age),
        Refusal::StateMissing { state } => {
            let state = at(state);
            format!(
                "已指定 --require-state，但没有状态文件 {state}；请检查 --output 和 --state-dir；如果状态文件丢失，请用 `state restore latest` 恢复备份；只有首次运行才可去掉 --require-state"
            )
        }
        Refusal::NoState { state } => {
            let state = at(state);
            format!("没有状态文件 {state}；请检查 --output 和 --state-dir；首次运行会创建它")
        }
        Refusal::TreeWithoutState { output, state } => tree_without_state(output, state),
        Refusal::StateDamaged { state, damage } => format!(
            "状态文件 {} 无法使用: {}；未做任何改动；请用 `state restore latest` 恢复最近的备份，或用 `run --fresh` 将其移开并重新开始",
            at(state),
            damage_text(damage)
        ),
        Refusal::BackupUnusable { backup, damage } => {
            let damage = damage_text(damage);
            format!("备份 {} 无法恢复: {damage}；未做任何改动；请用 `state backups` 另选一个", at(backup))
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
            "{} 带有另一个状态文件的标记，不属于 {}；请检查 --output 和 --state-dir；如果两者确实是一起的，请用备份执行 `state restore FILE --adopt-tree`；或用 `run --fresh` 重新开始",
            at(output),
            at(state)
        ),
        Refusal::TreeRolledBack { output, tree_run, state_run } if tree_run == state_run => format!(
            "{} 是第 {tree_run} 次运行尚未写完时的副本；请恢复较新的目录，或沿用此目录: 先 `state backup`，再 `state restore latest --adopt-tree`",
            at(output)
        ),
        Refusal::TreeRolledBack { output, tree_run, state_run } => format!(
            "{} 最后由第 {tree_run} 次运行写入，但状态文件记录到第 {state_run} 次: 目录被回滚或是副本；请恢复较新的目录，或沿用此目录: 先 `state backup`，再 `state restore latest --adopt-tree`",
            at(output)
        ),
        Refusal::SourceOlder { source, exported } => {
            let newest = source
                .as_ref()
                .map_or("数据源中没有发票".to_owned(), |newest| format!("数据源最新的更新时间是 {newest}"));
            format!(
                "{newest}，而已导出到 {exported}；数据源可能是恢复的旧库、空库或另一个库；未做任何改动；请检查 --source"
            )
        }
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
        Refusal::Untrusted { path, why } => untrusted(path, *why),
        Refusal::NotLegacyState { file, fault } => not_legacy_state(file, fault),
        Refusal::GoesBack { file, tenants, names } => format!(
            "{} 会使 {tenants} 个租户的上次导出时间倒退: {names}；未做任何改动；如确需如此，请用 --overwrite",
            at(file)
        ),
        Refusal::NotMirrored { file, tenant } => not_mirrored(file, tenant.as_deref()),
        Refusal::CannotConnect { source, obstacle, detail } => cannot_connect(source, *obstacle, detail),
        Refusal::ConnectionLost { source, detail } => {
            format!("与 {source} 的连接中断: {detail}；请检查数据库服务器是否在运行")
        }
        Refusal::Overtime { setting, detail } => format!(
            "语句执行时间过长，被服务器终止: {detail}；请放宽该账号的语句时限({setting}，包括服务器前代理的设置)"
        ),
        Refusal::TableMissing { table } => {
            format!(
                "没有表 {table}，或当前账号无权读取；请检查 --source 中的数据库名和表名(--table)，或授予 SELECT 权限"
            )
        }
        Refusal::ColumnsMissing { table, columns } => format!(
            "表 {table} 没有列 {columns}，或当前账号无权读取；如果列名不同，请用 --time-column 等参数指定，否则请授予 SELECT 权限"
        ),
        Refusal::TableChanged { table, column } => format!(
            "表 {table} 在读取过程中被改动: 列 {column} 的类型已不同；已导出的内容均已记录；请在表结构变更完成后重新运行"
        ),
        Refusal::TableUnreadable { table, detail } => {
            format!("当前账号无权读取表 {table}: {detail}；请授予 SELECT 权限")
        }
        Refusal::FewHandles { handles, least } => format!(
            "本进程最多可打开 {handles} 个文件，至少需要 {least} 个；请调大上限(ulimit -n，或 systemd 的 LimitNOFILE=)"
        ),
        Refusal::NoThread { detail } => format!(
            "无法创建线程: {detail}；请调大进程数上限(ulimit -u、systemd 的 TasksMax= 或容器的 pids 限制)，或减小 --writers"
        ),
        Refusal::Panicked { place, detail } => {
            format!("程序缺陷({detail}，位于 {place})；已记录的内容不受影响，下次运行会从此处继续；请向开发者报告")
        }
    }
}

fn untrusted(path: &Path, why: Distrust) -> String {
    let path = path.display();
    match why {
        Distrust::Link => format!(
            "{path} 是符号链接，本程序不跟随此处的链接；请将其删除，或换成它所指向的内容；如需将状态放在其他目录，请用 --state-dir"
        ),
        Distrust::NotAFile => format!("{path} 不是普通文件；请将其删除"),
        Distrust::OtherNames => {
            format!("{path} 有多个名称(硬链接)，且其他用户可以在其目录中创建文件；请用它的一份副本替换它")
        }
        Distrust::MountPoint => format!(
            "{path} 是挂载点，其中的文件无法移入输出目录；请将其卸载；如需将状态放在其他文件系统，请用 --state-dir"
        ),
        Distrust::Replaced => format!(
            "{path} 在命令执行期间被移走或替换，因此不再写入；请将其放回原处并重新运行；请用 --state-dir 将状态放在其他用户无法修改的目录中"
        ),
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
    let user = "请检查 --source 中的用户名和密码(--password-file、--defaults-file 或 MYSQL_PWD)";
    let why = match obstacle {
        Obstacle::Unreachable => format!("{detail}；请检查 --source 中的主机和端口，以及数据库服务器是否在运行"),
        Obstacle::Login => format!("{detail}；{user}"),
        Obstacle::LoginWithKey => format!(
            "{detail}；{user}，并确认 --server-public-key 指定的文件就是这台服务器的公钥(其数据目录中的 public_key.pem)"
        ),
        Obstacle::PasswordInTheClear => {
            "服务器要求提供密码本身(MySQL 在重启之后、以及密码错误时会这样要求)，而密码不会通过未加密的连接发送；请用 --ssl-mode VERIFY_CA 和 --ssl-ca 加密连接，至少用 --ssl-mode REQUIRED；或通过服务器的套接字连接(--source 中的 ?socket=/path)；或从服务器的数据目录复制 public_key.pem，并用 --server-public-key 指定"
                .to_owned()
        }
        Obstacle::ServerKeyUnusable => format!(
            "服务器公钥无法使用: {detail}；它必须是 PEM 格式的 RSA 公钥，且长度足以加密该密码，如服务器数据目录中的 public_key.pem；请用 --server-public-key 指定"
        ),
        Obstacle::LoginUnknown => {
            format!("服务器要求以 {detail} 方式登录，本程序不支持(用户不存在时 MySQL 也会如此要求)；{user}")
        }
        Obstacle::Database => format!("{detail}；请检查 --source 中的数据库名，以及该用户是否有权使用它"),
        Obstacle::Full => {
            format!("{detail}；请关闭其他连接，或调大上限(max_connections，或该用户的 max_user_connections)")
        }
        Obstacle::NoTls => "服务器不支持 TLS；请让管理员启用 TLS，或用 --ssl-mode DISABLED 接受不加密的连接".to_owned(),
        Obstacle::Certificate => format!(
            "服务器证书不被接受({detail})；请用 --ssl-ca 指定其 CA，或用 --ssl-mode REQUIRED 只加密而不检查对方身份"
        ),
        Obstacle::TrustedUnreadable => format!("无法读取受信任的证书 {detail}；请用 --ssl-ca 指定证书文件"),
        Obstacle::Other => detail.to_owned(),
    };
    format!("无法连接 {source}: {why}")
}

pub(super) fn holder_text(holder: Option<&Holder>) -> String {
    let Some(Holder { purpose, pid, host, since }) = holder else { return "持有者尚未留下信息".to_owned() };
    let runs = [Kind::Full, Kind::Incremental, Kind::Backfill, Kind::Verify];
    let what = runs
        .into_iter()
        .find(|kind| kind.as_str() == purpose)
        .map_or_else(|| purpose.clone(), |kind| name(kind).to_owned());
    format!("{what}，pid {pid}，主机 {host}，开始于 {since}")
}

fn damage_text(damage: &Damage) -> String {
    match damage {
        Damage::TooShort { bytes } => format!("文件只有 {bytes} 字节"),
        Damage::NotSqlite => "它不是 SQLite 文件".to_owned(),
        Damage::OtherProgram => "它是其他程序的 SQLite 文件".to_owned(),
        Damage::Other(text) => text.clone(),
    }
}

fn misuse_text(misuse: &Misuse) -> String {
    match misuse {
        Misuse::WindowReversed { since, until } => format!("--since {since} 不早于 --until {until}"),
        Misuse::WindowWithMode => "--since 和 --until 用于重新导出一个区间，不能与 --mode 同时使用".to_owned(),
        Misuse::Variable { name, value, allowed: [one, other] } => {
            format!("{name} 的值是 {value:?}，只能是 {one} 或 {other}")
        }
        Misuse::NotATime { given_as, text } => {
            format!("{given_as} {text:?} 不是时间；请写成 \"2025-11-28 10:00:00\" 或 \"2025-11-28\"")
        }
        Misuse::NoSource => {
            "没有指定数据源；请用 --source 或 INVOICE_EXPORT_SOURCE 指定，例如 mysql://user@host:3306/database"
                .to_owned()
        }
        Misuse::Address(fault) => address_fault(*fault).to_owned(),
        Misuse::PasswordOnCommandLine => {
            "命令行上的密码会被本机所有用户看到；请使用 --password-file、--defaults-file 或 MYSQL_PWD".to_owned()
        }
    }
}

fn address_fault(fault: AddressFault) -> &'static str {
    match fault {
        AddressFault::Form => {
            "无法识别数据源(其中可能含有密码，因此这里不显示)；请写成 mysql://user@host:3306/database，可在其后加 ?socket=/path，或写成 sqlite:path"
        }
        AddressFault::Control => {
            "数据源中有制表符、换行符或其他控制字符；请写成一行，密码中的制表符请写成 %09，换行符写成 %0A"
        }
        AddressFault::NotEncoded => {
            "数据源中有多余的 # 或 @；用户名、密码和路径中的 # 请写成 %23，@ 写成 %40，/ 写成 %2F，? 写成 %3F"
        }
        AddressFault::FileNotEncoded => "sqlite: 数据源的路径中，? 请写成 %3F，# 写成 %23",
        AddressFault::NotUtf8 => "数据源的 URL 中有一部分不是 UTF-8；请把 UTF-8 字符的每个字节写成 %XX",
        AddressFault::User => {
            "数据源的用户名中有无法识别的符号或空格；请写成 mysql://user@host:3306/database，空格写成 %20，@ 写成 %40；含其他符号的用户名请写在选项文件中(--defaults-file)"
        }
        AddressFault::Host => {
            "数据源中的主机既不是主机名也不是地址；请写成 mysql://user@host:3306/database，IPv6 地址写成 [::1]"
        }
        AddressFault::Port => {
            "数据源中的端口不是 65535 以内的数字；请写成 mysql://user@host:3306/database，主机前面是 @"
        }
        AddressFault::NoDatabase => "数据源的 URL 中没有数据库名；请写成 mysql://user@host:3306/database",
        AddressFault::Database => "数据源的数据库名中有无法识别的符号；请写成 mysql://user@host:3306/database",
        AddressFault::Query => {
            "数据源中 ? 之后只能是 socket=/path；用户名和密码写在主机之前，或写在选项文件中(--defaults-file)"
        }
    }
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

fn not_legacy_state(file: &Path, fault: &LegacyFault) -> String {
    let fault = match fault {
        LegacyFault::WrongLines { lines, numbers } => format!("有 {lines} 行不合格式 (第 {numbers} 行)"),
        LegacyFault::NoTenant => "其中没有任何租户".to_owned(),
    };
    format!("{} 不是旧脚本的状态文件: {fault}；未做任何改动；请修正后重新导入", file.display())
}

fn not_mirrored(file: &Path, tenant: Option<&str>) -> String {
    let why = match tenant {
        None => "；请排除原因，下次运行会写入".to_owned(),
        Some(tenant) => format!(": 其格式无法容纳租户 {tenant:?}；请去掉 --mirror-legacy-state"),
    };
    format!("运行已完成并已记录，但未能写入旧脚本的状态文件 {}{why}", file.display())
}

fn mark_missing(output: &Path, state: &Path) -> String {
    format!(
        "{} 不是状态文件 {} 所描述的目录: 缺少标记 .export_state/lock (磁盘未挂载，或 --output 写错?)；如果就是那个目录，只是恢复时丢了标记，请用备份执行 `state restore FILE --adopt-tree`；如要从头填充此目录，请用 `run --fresh`",
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

    fn holder() -> Holder {
        let [purpose, host, since] = ["full", "db7", "2025-11-28T02:00:00Z"].map(str::to_owned);
        Holder { purpose, pid: 7, host, since }
    }

    fn every_refusal() -> Vec<Refusal> {
        let output = PathBuf::from("/srv/tree");
        let state = PathBuf::from("/var/state.db");
        vec![
            Refusal::Usage("--since needs --until".to_owned()),
            Refusal::Misuse(Misuse::NoSource),
            Refusal::UnknownTenant("acme".to_owned()),
            Refusal::TenantNotInState("acme".to_owned()),
            Refusal::OptionFile {
                file: "/etc/my.cnf".into(),
                trouble: OptionFileTrouble::NoValue { line: 3, option: "password" },
            },
            Refusal::Cancelled { signal: 15 },
            Refusal::Locked { holder: Some(holder()), lock: "/srv/tree/lock".into() },
            Refusal::ScriptLocked { folder: "/srv/tree/.export.lock".into(), age: Duration::from_secs(90) },
            Refusal::StateMissing { state: state.clone() },
            Refusal::NoState { state: state.clone() },
            Refusal::TreeWithoutState { output: output.clone(), state: state.clone() },
            Refusal::StateDamaged { state: state.clone(), damage: Damage::Other("page 3".to_owned()) },
            Refusal::BackupUnusable { backup: state.clone(), damage: Damage::Other("page 3".to_owned()) },
            Refusal::StateNewer { state: state.clone(), version: 9, known: 1 },
            Refusal::OtherSource {
                state: state.clone(),
                recorded: "mysql://a/".to_owned(),
                given: "sqlite:b".to_owned(),
            },
            Refusal::MarkMissing { output: output.clone(), state: state.clone() },
            Refusal::MarkForeign { output: output.clone(), state: state.clone() },
            Refusal::TreeRolledBack { output: output.clone(), tree_run: 4, state_run: 6 },
            Refusal::SourceOlder { source: None, exported: "2025-11-28 16:30:00".into() },
            Refusal::NetworkFileSystem { path: state.clone() },
            Refusal::NamesFolded { output },
            Refusal::NotOwner { path: state.clone() },
            Refusal::Untrusted { path: state.clone(), why: Distrust::Link },
            Refusal::NotLegacyState {
                file: state.clone(),
                fault: LegacyFault::WrongLines { lines: 2, numbers: "3, 7".to_owned() },
            },
            Refusal::GoesBack { file: state.clone(), tenants: 2, names: "1, 10".to_owned() },
            Refusal::NotMirrored { file: state, tenant: None },
            Refusal::CannotConnect {
                source: "mysql://db:3306/shop".to_owned(),
                obstacle: Obstacle::Login,
                detail: "ERROR 1045".to_owned(),
            },
            Refusal::ConnectionLost { source: "mysql://db:3306/shop".to_owned(), detail: "errno 104".to_owned() },
            Refusal::Overtime { setting: "max_statement_time", detail: "ERROR 1969".to_owned() },
            Refusal::TableMissing { table: "t_invoice".to_owned() },
            Refusal::ColumnsMissing { table: "t_invoice".to_owned(), columns: "fid2".to_owned() },
            Refusal::TableUnreadable { table: "t_invoice".to_owned(), detail: "ERROR 1142".to_owned() },
            Refusal::TableChanged { table: "t_invoice".to_owned(), column: "fid".to_owned() },
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
        let copy = Refusal::TreeRolledBack { output: "/srv/f".into(), tree_run: 6, state_run: 6 };
        let import = Refusal::NotLegacyState { file: "/srv/f".into(), fault: LegacyFault::NoTenant };
        let mirror = Refusal::NotMirrored { file: "/srv/f".into(), tenant: Some("a|b".to_owned()) };
        let option_files = troubles.map(|trouble| Refusal::OptionFile { file: "/etc/my.cnf".into(), trouble });
        let obstacles = [
            Obstacle::Unreachable,
            Obstacle::LoginWithKey,
            Obstacle::PasswordInTheClear,
            Obstacle::ServerKeyUnusable,
            Obstacle::LoginUnknown,
            Obstacle::Database,
            Obstacle::Full,
            Obstacle::NoTls,
            Obstacle::Certificate,
            Obstacle::TrustedUnreadable,
        ];
        let unconnected = obstacles.map(|obstacle| {
            let is_bare = matches!(obstacle, Obstacle::NoTls | Obstacle::PasswordInTheClear);
            let detail = if is_bare { "" } else { "ERROR 7" }.to_owned();
            Refusal::CannotConnect { source: "mysql://db:3306/shop".to_owned(), obstacle, detail }
        });
        let distrusts = [Distrust::NotAFile, Distrust::OtherNames, Distrust::Replaced, Distrust::MountPoint];
        let untrusted = distrusts.map(|why| Refusal::Untrusted { path: "/var/lock".into(), why });
        let damages = [Damage::TooShort { bytes: 9 }, Damage::NotSqlite, Damage::OtherProgram];
        let damaged = damages.map(|damage| Refusal::StateDamaged { state: "/var/state.db".into(), damage });
        let locked = Refusal::Locked { holder: None, lock: "/srv/tree/lock".into() };
        option_files
            .into_iter()
            .chain(unconnected)
            .chain(damaged)
            .chain(untrusted)
            .chain([locked, copy, import, mirror])
            .collect()
    }

    const ADDRESS_FAULTS: [AddressFault; 11] = [
        AddressFault::Form,
        AddressFault::Control,
        AddressFault::NotEncoded,
        AddressFault::FileNotEncoded,
        AddressFault::NotUtf8,
        AddressFault::User,
        AddressFault::Host,
        AddressFault::Port,
        AddressFault::NoDatabase,
        AddressFault::Database,
        AddressFault::Query,
    ];

    fn every_misuse() -> Vec<Misuse> {
        [
            Misuse::WindowReversed { since: "2025-11-28".into(), until: "2025-11-27".into() },
            Misuse::WindowWithMode,
            Misuse::Variable { name: "DRY_RUN", value: "v7".to_owned(), allowed: ["true", "false"] },
            Misuse::NotATime { given_as: "--since", text: "day1".to_owned() },
            Misuse::NoSource,
            Misuse::PasswordOnCommandLine,
        ]
        .into_iter()
        .chain(ADDRESS_FAULTS.map(Misuse::Address))
        .collect()
    }

    /// What must survive translation: paths, options, commands, numbers and names, which are the
    /// runs of ASCII that hold something else than the letters of a sentence.
    fn facts(english: &str) -> Vec<&str> {
        let pieces = english.split(|c: char| c.is_whitespace() || ":;?,()`'\"".contains(c));
        pieces.filter(|piece| piece.starts_with(['-', '/', '.']) || piece.chars().any(|c| c.is_ascii_digit())).collect()
    }

    #[test]
    fn every_refusal_keeps_its_paths_options_and_numbers_in_chinese() {
        let misuses = every_misuse().into_iter().map(Refusal::Misuse);
        for refusal in every_refusal().into_iter().chain(further_wordings()).chain(misuses) {
            let chinese = refusal_text(&refusal);
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
        for refusal in refusals
            .into_iter()
            .chain(further_wordings())
            .filter(|refusal| !matches!(refusal, Refusal::Usage(_) | Refusal::Misuse(_)))
        {
            let chinese = refusal_text(&refusal);
            assert!(chinese.contains('请'), "{chinese} names no remedy");
        }
    }

    #[test]
    fn what_holds_the_lock_and_what_is_damaged_is_told_in_chinese_throughout() {
        assert_eq!(holder_text(Some(&holder())), "全量导出，pid 7，主机 db7，开始于 2025-11-28T02:00:00Z");
        let other = Holder { purpose: "state set".to_owned(), ..holder() };
        assert!(holder_text(Some(&other)).starts_with("state set，"));
        assert!(!holder_text(None).is_ascii());
        let words =
            ["bytes", "SQLite file", "offers", "asks for", "cannot read", "not accepted", "--since is", "is no"];
        let misuses = every_misuse().into_iter().map(Refusal::Misuse);
        for refusal in every_refusal().into_iter().chain(further_wordings()).chain(misuses) {
            let chinese = refusal_text(&refusal);
            assert!(!words.iter().any(|word| chinese.contains(word)), "English in {chinese}");
        }
    }
}
