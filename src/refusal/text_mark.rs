//! Owns the marks that editors put before a text.

use crate::lang::Text;

/// The mark before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextMark {
    /// The byte order mark of UTF-8, which most programs take for a part of the text.
    Utf8,
    /// The byte order mark of UTF-16. The text is not UTF-8.
    Utf16,
}

impl TextMark {
    /// The mark at the beginning of these bytes.
    pub fn of(content: &[u8]) -> Option<Self> {
        match content {
            [0xef, 0xbb, 0xbf, ..] => Some(Self::Utf8),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some(Self::Utf16),
            _ => None,
        }
    }

    /// The wording, as a clause about the file.
    pub fn text(self) -> Text {
        match self {
            Self::Utf8 => text!("it begins with a byte order mark (BOM)", "文件以字节顺序标记（BOM）开头"),
            Self::Utf16 => text!("it is a text in UTF-16", "文件是 UTF-16 编码"),
        }
    }

    /// What helps.
    pub fn remedy() -> Text {
        text!("save it as UTF-8 without a byte order mark", "请另存为不带 BOM 的 UTF-8")
    }
}
