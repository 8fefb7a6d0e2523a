//! Texts of an operator that cannot be used: addresses of sources and option files.

use std::path::Path;

use super::TextMark;
use crate::lang::{Message, Text};

/// Why a text is not the address of a source. Nothing of the text is repeated, since any of it may be a
/// password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFault {
    /// It has none of the known forms.
    Form,
    /// A tab, a line break or the like.
    Control,
    /// A sign of the address's own in a user name, password or path.
    NotEncoded,
    /// The same in the path of a file.
    FileNotEncoded,
    NotUtf8,
    /// A sign in the user name with which a password could begin.
    User,
    Host,
    Port,
    NoDatabase,
    /// A sign in the database's name with which a password could begin.
    Database,
    /// Something else than `socket=` with a path.
    Query,
}

impl AddressFault {
    /// The wording in both languages.
    pub fn message(self) -> Message {
        match self {
            Self::Form => message! {
                "the source is not understood, and not repeated here, since it may hold a password",
                "无法识别数据源（其中可能含有密码，因此这里不显示）";
                "write mysql://user@host:3306/database, the same with ?socket=/path, or sqlite:path",
                "请写成 mysql://user@host:3306/database，可在其后加 ?socket=/path，或写成 sqlite:path"
            },
            Self::Control => message! {
                "the source has a tab, a line break or another control character in it", "数据源中有制表符、换行符或其他控制字符";
                "write it in one line, and in a password %09 for a tab and %0A for a line break",
                "请写成一行，密码中的制表符请写成 %09，换行符写成 %0A"
            },
            Self::NotEncoded => message! {
                "the source has a # or @ where none belongs", "数据源中有多余的 # 或 @";
                "in a user name, password or path, write %23 for #, %40 for @, %2F for / and %3F for ?",
                "用户名、密码和路径中的 `#` 请写成 %23，`@` 写成 %40，`/` 写成 %2F，`?` 写成 %3F"
            },
            Self::FileNotEncoded => message! {
                "the path of the sqlite: source has a ? or # in it", "sqlite: 数据源的路径中有 ? 或 #";
                "write %3F for ? and %23 for #", "? 请写成 %3F，# 写成 %23"
            },
            Self::NotUtf8 => message! {
                "a part of the source's URL is not UTF-8", "数据源的 URL 中有一部分不是 UTF-8";
                "write each byte of a UTF-8 character as %XX", "请把 UTF-8 字符的每个字节写成 %XX"
            },
            Self::User => message! {
                "the user name in the source has a sign or space in it that is not understood there",
                "数据源的用户名中有无法识别的符号或空格";
                "write mysql://user@host:3306/database, a space as %20 and @ as %40, and name a user with other signs in an option file (--defaults-file)",
                "请写成 mysql://user@host:3306/database，空格写成 %20，@ 写成 %40；含其他符号的用户名请写在选项文件中（--defaults-file）"
            },
            Self::Host => message! {
                "the host in the source is neither a name nor an address", "数据源中的主机既不是主机名也不是地址";
                "write mysql://user@host:3306/database, and an IPv6 address as [::1]",
                "请写成 mysql://user@host:3306/database，IPv6 地址写成 [::1]"
            },
            Self::Port => message! {
                "the port in the source is no number up to 65535", "数据源中的端口不是 65535 以内的数字";
                "write mysql://user@host:3306/database, with @ before the host",
                "请写成 mysql://user@host:3306/database，主机前面是 @"
            },
            Self::NoDatabase => {
                text!("the source's URL names no database", "数据源的 URL 中没有数据库名").with_hint(form())
            }
            Self::Database => text!(
                "the database in the source has a sign in its name that is not understood there",
                "数据源的数据库名中有无法识别的符号"
            )
            .with_hint(form()),
            Self::Query => message! {
                "after the ? in the source only socket=/path is known", "数据源中 ? 之后只能是 socket=/path";
                "name user and password before the host, or in an option file (--defaults-file)",
                "用户名和密码请写在主机之前，或写在选项文件中（--defaults-file）"
            },
        }
    }
}

fn form() -> Text {
    text!("write mysql://user@host:3306/database", "请写成 mysql://user@host:3306/database")
}

/// Why an option file is not used. Lines are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionFileTrouble {
    /// Every user of the machine may write to it.
    WritableByAll,
    /// An editor put a mark before the text.
    Marked(TextMark),
    /// It names other files.
    Include { line: u32 },
    /// An option before any `[group]`.
    NoGroup { line: u32 },
    /// A `[group` without its end.
    OpenGroup { line: u32 },
    /// An option without `=`.
    NoValue { line: u32, option: &'static str },
    /// A value that is not UTF-8.
    NotUtf8 { line: u32, option: &'static str },
}

impl OptionFileTrouble {
    /// The wording, which begins with the file and the line.
    pub(super) fn message(self, file: &Path) -> Message {
        let file = file.display();
        let (line, what, hint) = match self {
            Self::WritableByAll => {
                return message! {
                    "the option file {file} can be changed by every user of this machine",
                    "选项文件 {file} 可被本机所有用户修改";
                    "protect it with chmod o-w", "请用 chmod o-w 保护它"
                };
            }
            Self::Marked(mark) => {
                let mark = mark.text();
                return text!("the option file {file} cannot be read: {mark}", "选项文件 {file} 无法读取: {mark}"; mark)
                    .with_hint(TextMark::remedy());
            }
            Self::Include { line } => (
                line,
                text!("other files are not read from here", "本程序不读取其中引用的其他文件"),
                text!("name the file that holds the password itself", "请直接指定保存密码的文件"),
            ),
            Self::NoGroup { line } => (
                line,
                text!("an option before any group", "选项之前没有组名"),
                text!("write [client] above it", "请在其上方写 [client]"),
            ),
            Self::OpenGroup { line } => (
                line,
                text!("a group without its closing ]", "组名缺少右括号 ]"),
                text!("write it as [client]", "请写成 [client]"),
            ),
            Self::NoValue { line, option } => (
                line,
                text!("{option} has no value", "{option} 没有值"),
                text!("write it as {option}=...", "请写成 {option}=..."),
            ),
            Self::NotUtf8 { line, option } => (
                line,
                text!("the value of {option} is not UTF-8", "{option} 的值不是 UTF-8"),
                text!("save the file as UTF-8", "请将文件保存为 UTF-8"),
            ),
        };
        text!("the option file {file}, line {line}: {what}", "选项文件 {file} 第 {line} 行: {what}"; what)
            .with_hint(hint)
    }
}
