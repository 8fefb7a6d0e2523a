//! A whole error, cause by cause, as one message in both languages.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};

use super::Refusal;
use crate::lang::{ExplainedError, Lang, Message, Text};

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
            "make it writable for the user who runs this, or name another folder",
            "请给运行本程序的用户写权限，或指定其他目录"
        ),
        ErrorKind::ReadOnlyFilesystem => {
            text!("mount it writable, or name another folder", "请以可写方式挂载，或指定其他目录")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            text!("free some space; the next run goes on from here", "请释放磁盘空间；下次运行会从此处继续")
        }
        _ => return None,
    })
}
