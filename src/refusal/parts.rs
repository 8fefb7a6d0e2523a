//! What refusals are made of, as far as it differs from case to case.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::TextMark;
use crate::lang::{Message, Text};
use crate::run::Kind;

/// What went wrong with one tenant while the run goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A file could not be put where it belongs.
    NotInPlace { path: String, detail: Message },
    /// A file could not be removed after its invoice had moved to another one.
    NotRemoved { path: String, detail: String },
    /// A file could not be looked at.
    NotSeen { path: String, detail: Message },
    /// `--strict` lets no tenant pass that has any, in a run of this kind.
    Rejects { invoices: u64, kind: Kind },
    /// An error with its causes.
    Error(Message),
}

impl Trouble {
    /// An error of the operating system at a path of the tree, with the rule that the tree breaks there.
    pub fn detail(error: &io::Error) -> Message {
        let what = Text::same(error.to_string());
        match Errno::from_io_error(error) {
            Some(Errno::XDEV | Errno::LOOP) => what.with_hint(text!(
                "the folders of tenants and countries must be ordinary folders on the file system of the output, and no mount points or links, because whole files are moved into them; replace this one, or mount or link the output as a whole",
                "租户和国家目录必须是输出目录所在文件系统上的普通目录，不能是挂载点或符号链接，因为文件写完后会整个移入其中；请换成普通目录，或者改为挂载或链接整个输出目录"
            )),
            _ => what.into(),
        }
    }

    /// The wording in both languages.
    pub fn message(&self) -> Message {
        match self {
            Self::NotInPlace { path, detail: Message { what, hint } } => Message {
                what: text!("cannot put {path} in place: {what}", "无法将文件 {path} 放到目标位置: {what}"; what),
                hint: hint.clone(),
            },
            Self::NotRemoved { path, detail } => message! {
                "cannot remove {path}: {detail}", "旧文件 {path} 无法删除: {detail}";
                "verify --against-source --prune removes it once that is possible",
                "排除原因后可用 verify --against-source --prune 删除"
            },
            Self::NotSeen { path, detail: Message { what, hint } } => Message {
                what: text!("cannot look at {path}: {what}", "文件 {path} 无法查看: {what}"; what),
                hint: hint.clone(),
            },
            Self::Rejects { invoices, kind } => strict(*invoices, *kind),
            Self::Error(message) => message.clone(),
        }
    }
}

/// Only incremental runs move watermarks, so that no other run can hold one.
fn strict(invoices: u64, kind: Kind) -> Message {
    let what = match kind {
        Kind::Incremental => text!(
            "{invoices} of its invoices cannot be exported, and --strict holds its watermark until they can",
            "有 {invoices} 条记录无法导出，--strict 使水位线停住，直到可以导出为止"
        ),
        Kind::Full | Kind::Backfill | Kind::Verify => text!(
            "{invoices} of its invoices cannot be exported, and with --strict it has failed for that",
            "有 {invoices} 条记录无法导出，因 --strict 视为失败"
        ),
    };
    what.with_hint(text!("see status --rejects", "见 status --rejects"))
}

impl From<&anyhow::Error> for Trouble {
    fn from(error: &anyhow::Error) -> Self {
        Self::Error(error.into())
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.message().fmt(f)
    }
}

/// The process that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The mode of a run, the name of another command.
    pub purpose: String,
    pub pid: u64,
    pub host: String,
    /// None: not known.
    pub user: Option<String>,
    /// RFC 3339, or as people read it; None: not known.
    pub since: Option<String>,
}

impl Holder {
    /// The wording; None is one that only reads, or has just taken the lock and not left its name yet.
    pub fn text(holder: Option<&Self>) -> Text {
        let Some(Self { purpose, pid, host, user, since }) = holder else {
            return text!("it only reads, or has not said its name", "持有者只读取数据，或尚未留下信息");
        };
        let purpose = match purpose.as_str() {
            "full" => text!("full run", "全量导出"),
            "incremental" => text!("incremental run", "增量导出"),
            "backfill" => text!("backfill run", "区间导出"),
            "verify" => text!("verify", "核对"),
            "record" => text!("the record of a failed start", "记录一次失败的启动"),
            other => Text::same(other),
        };
        let user = user.as_ref().map(|user| text!("user {user}", "用户 {user}"));
        let since = since.as_ref().map(|since| text!("since {since}", "开始于 {since}"));
        let parts = [purpose, text!("pid {pid} on {host}", "pid {pid}，主机 {host}")].into_iter();
        let parts: Vec<Text> = parts.chain(user).chain(since).collect();
        Text::join(&parts, ", ", "，")
    }
}

/// What is wrong with a file that should be a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Shorter than the header of an SQLite file.
    TooShort { bytes: u64 },
    /// Without the header of an SQLite file.
    NotSqlite,
    /// With the application id of another program.
    OtherProgram,
    /// The words of SQLite or of the operating system, with what led to them.
    Other(Text),
}

impl Damage {
    /// The wording, as a clause about the file.
    pub fn text(&self) -> Text {
        match self {
            Self::TooShort { bytes } => text!("it has only {bytes} bytes", "文件只有 {bytes} 字节"),
            Self::NotSqlite => text!("it is not an SQLite file", "它不是 SQLite 文件"),
            Self::OtherProgram => text!("it is an SQLite file of another program", "它是其他程序的 SQLite 文件"),
            Self::Other(text) => text.clone(),
        }
    }
}

/// Why a file or folder of ours is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// A symbolic link.
    Link,
    NotAFile,
    /// Hard links, in a folder where another user can make them.
    OtherNames,
    /// Something else has its name since the command began.
    Replaced,
    /// The folder is on another file system than the output.
    MountPoint,
    /// A configuration that another user can change.
    Configuration,
}

impl Distrust {
    /// The wording, which begins with the path.
    pub(super) fn message(self, path: &Path) -> Message {
        let path = path.display();
        match self {
            Self::Link => message! {
                "{path} is a symbolic link, and none is followed there", "{path} 是符号链接，本程序不跟随此处的链接";
                "remove it, or put in its place what it leads to; to keep the state in another folder, use --state-dir",
                "请将其删除，或换成它所指向的内容；如需将状态文件放在其他目录，请用 --state-dir"
            },
            Self::Configuration => message! {
                "another user can change the configuration {path}, or put another file in its place",
                "其他用户可以修改或替换配置文件 {path}";
                "let it and its folder belong to root or to the user who runs this program: chmod go-w '{path}'",
                "请让该文件及其目录属于 root 或运行本程序的用户: chmod go-w '{path}'"
            },
            Self::NotAFile => message! {
                "{path} is no ordinary file", "{path} 不是普通文件";
                "an ordinary file is needed there: name another path, or put a file in its place",
                "此处需要普通文件: 请指定其他路径，或换成普通文件"
            },
            Self::OtherNames => message! {
                "{path} has more than one name (hard links), and another user can make names in its folder",
                "{path} 有多个名称（硬链接），且其他用户可以在其目录中创建文件";
                "put a copy of it in its place", "请用它的一份副本替换它"
            },
            Self::MountPoint => message! {
                "{path} is a mount point, and files cannot be moved from it into the output",
                "{path} 是挂载点，其中的文件无法移入输出目录";
                "unmount it; to keep the state on another file system, use --state-dir",
                "请将其卸载；如需将状态文件放在其他文件系统，请用 --state-dir"
            },
            Self::Replaced => message! {
                "{path} was moved or replaced while this command was at work, so nothing more is written",
                "{path} 在命令执行期间被移走或替换，因此不再写入";
                "put it back and run again; keep the state with --state-dir in a folder that no other user can change",
                "请将其放回原处并重新运行；请用 --state-dir 将状态文件放在其他用户无法修改的目录中"
            },
        }
    }
}

/// Why a file is not the script's state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LegacyFault {
    /// So many lines cannot be read; the numbers of the first.
    WrongLines { lines: usize, numbers: String },
    /// Not even one line.
    NoTenant,
    /// It is no text in UTF-8.
    Marked(TextMark),
}

impl LegacyFault {
    /// The wording, as a clause about the file.
    pub(super) fn text(&self) -> Text {
        match self {
            Self::WrongLines { lines, numbers } => {
                let noun = if *lines == 1 { "line" } else { "lines" };
                Text::new(
                    format!("{lines} wrong {noun} ({numbers})"),
                    format!("有 {lines} 行格式不正确（第 {numbers} 行）"),
                )
            }
            Self::Marked(mark) => mark.text(),
            Self::NoTenant => text!("it names no tenant", "其中没有任何租户"),
        }
    }
}

/// Why the script's state file was not written after a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorFault {
    /// The lines of the file cannot hold this tenant.
    Tenant(String),
    /// The file could not be written.
    Unwritten(Text),
}

impl MirrorFault {
    /// The wording, with the file that was not written.
    pub(super) fn message(&self, file: &Path) -> Message {
        let what = text!(
            "the run is done and recorded, but the script's state file {} was not written",
            "运行已完成并已记录，但未能写入旧脚本的状态文件 {}",
            file.display()
        );
        match self {
            Self::Tenant(tenant) => message! {
                "{what}: its lines cannot hold the tenant {tenant:?}", "{what}: 其格式无法容纳租户 {tenant:?}";
                "run without --mirror-legacy-state", "请去掉 --mirror-legacy-state"; what
            },
            Self::Unwritten(detail) => message! {
                "{what}: {detail}", "{what}: {detail}";
                "mend the cause, the next run writes it", "请排除原因，下次运行会写入"; what, detail
            },
        }
    }
}
