//! A whole error, cause by cause, as one message in both languages.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};

use rustix::process::Resource;

use super::Refusal;
use crate::lang::{ExplainedError, Lang, Message, Text};

/// The error of a file that is only to be read: permission to write would not be needed.
pub fn cannot_be_read(error: io::Error) -> anyhow::Error {
    if error.kind() != ErrorKind::PermissionDenied {
        return error.into();
    }
    let hint = text!(
        "make it readable for the user who runs this, or name another file",
        "请给运行本程序的用户读权限，或指定其他文件"
    );
    Text::same(error.to_string()).with_hint(hint).into()
}

/// What happened and what led to it; the hint is the first one of the chain, or what helps against the error of the
/// operating system in it.
impl From<&anyhow::Error> for Message {
    fn from(error: &anyhow::Error) -> Self {
        let mut whats: Vec<Text> = Vec::new();
        let mut hint = None;
        for cause in error.chain() {
            let message = message(cause);
            hint = hint.or(message.hint);
            // Some errors of packages quote their cause themselves.
            let is_quoted = |before: &Text| before.in_lang(Lang::En).ends_with(message.what.in_lang(Lang::En));
            if !whats.last().is_some_and(is_quoted) {
                whats.push(message.what);
            }
        }
        let what = Text::join(&whats, ": ", ": ");
        Self { what, hint: hint.or_else(|| error.chain().find_map(system_error).and_then(remedy)) }
    }
}

/// One error of a chain, without its cause.
fn message(error: &(dyn StdError + 'static)) -> Message {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return refusal.message();
    }
    match error.downcast_ref::<ExplainedError>() {
        Some(explained) => explained.message().clone(),
        None => Text::same(error.to_string()).into(),
    }
}

/// The kind of an error of the operating system.
fn system_error(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    let io = error.downcast_ref::<io::Error>().map(io::Error::kind);
    io.or_else(|| error.downcast_ref::<rustix::io::Errno>().map(|errno| errno.kind()))
}

/// What helps against an error of the operating system.
fn remedy(kind: ErrorKind) -> Option<Text> {
    Some(match kind {
        ErrorKind::PermissionDenied => text!(
            "let the user who runs this read it, and write to it where it is to be changed, or name another path",
            "请给运行本程序的用户读权限（需要改动时还要写权限），或指定其他路径"
        ),
        ErrorKind::ReadOnlyFilesystem => {
            text!("mount it writable, or name another folder", "请以可写方式挂载，或指定其他目录")
        }
        ErrorKind::FileTooLarge => match rustix::process::getrlimit(Resource::Fsize).current {
            Some(limit) => text!(
                "files of this process may have {limit} bytes; raise the limit (ulimit -f, LimitFSIZE= of systemd)",
                "本进程的文件最多 {limit} 字节；请调大上限（ulimit -f，或 systemd 的 LimitFSIZE=）"
            ),
            None => text!(
                "the file system takes no file of this size; use another one",
                "文件系统不支持这么大的文件；请使用其他文件系统"
            ),
        },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            text!("free some space; the next run goes on from here", "请释放磁盘空间；下次运行会从此处继续")
        }
        _ => return None,
    })
}
