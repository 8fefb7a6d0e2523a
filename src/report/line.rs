//! One entry of the log: its level, its message, and how both look as text.

use crate::lang::{Lang, Message};

/// How loud a line is, the loudest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Info,
    Success,
    Warn,
    Error,
}

/// A message with its level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub level: Level,
    pub message: Message,
}

impl Line {
    /// A message at this level.
    pub(super) fn new(level: Level, message: impl Into<Message>) -> Self {
        Self { level, message: message.into() }
    }

    pub(super) fn info(message: impl Into<Message>) -> Self {
        Self::new(Level::Info, message)
    }

    pub(super) fn warn(message: impl Into<Message>) -> Self {
        Self::new(Level::Warn, message)
    }

    /// The entry with its line breaks. A hint is a line of its own with a prefix of its own, so that the lines of a
    /// level can be counted.
    pub(super) fn render(&self, lang: Lang) -> String {
        let prefix = match self.level {
            Level::Info => "INFO",
            Level::Success => "SUCCESS",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        };
        let mut text = format!("[{prefix}] {}\n", escaped(self.message.what.in_lang(lang)));
        if let Some(hint) = &self.message.hint {
            text += &format!("[HINT] {}\n", escaped(hint.in_lang(lang)));
        }
        text
    }
}

/// Data must not steer the terminal or forge a line of the log: control characters, line separators
/// and marks that turn the direction of writing are shown, in a form that JSON reads as well.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                safe.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c if c.is_control() => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_steer_the_terminal_or_forge_a_line() {
        let line = Line::info(text!("a\u{1b}[2Jb\nc\u{9b}d\u{7f}e\u{202e}f", "租户"));
        assert_eq!(line.render(Lang::En), "[INFO] a\\u001b[2Jb\\nc\\u009bd\\u007fe\\u202ef\n");
        assert_eq!(line.render(Lang::Zh), "[INFO] 租户\n");
    }

    #[test]
    fn a_hint_is_a_line_of_its_own() {
        let line = Line::warn(text!("no index", "缺少索引").with_hint(text!("create\nit", "请创建")));
        assert_eq!(line.render(Lang::En), "[WARN] no index\n[HINT] create\\nit\n");
        assert_eq!(line.render(Lang::Zh), "[WARN] 缺少索引\n[HINT] 请创建\n");
    }
}
