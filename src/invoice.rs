//! What is exported: an invoice, its key and its document.
//!
//! Pure types. An id, a tenant and a number are kept exactly as the server prints them and are
//! compared as bytes: `acme` and `ACME` are two tenants, whatever the column's collation says.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::lang::{Lang, Text};

/// The row's primary key, as the server prints it. One that the connection cannot carry is U+FFFD and its bytes
/// in hex.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct InvoiceId(pub String);

/// The row's `ftenant_id`, as the server prints it. One that the connection cannot carry, of which nothing can be
/// exported, is U+FFFD and its bytes in hex.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub String);

/// The row's `fupdate_time` as the server prints it, with all its decimals. It is compared by the
/// server or as text and never converted: within one column all values have the same length, and a
/// whole second sorts before its own fractions.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceTime(pub String);

/// SHA-256 of a document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// In the place of a digest that is not known. No file has it.
    pub const UNKNOWN: Self = Self([0; 32]);

    pub fn of(document: &[u8]) -> Self {
        Self(Sha256::digest(document).into())
    }

    /// Reads what `Display` writes.
    pub fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if hex.len() != 2 * bytes.len() || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// What the index alone tells about a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: InvoiceId,
    pub tenant: Tenant,
    /// None where the column is NULL.
    pub time: Option<SourceTime>,
}

/// One exportable row without its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    pub id: InvoiceId,
    pub tenant: Tenant,
    pub country: Option<String>,
    /// `yyyymmdd`; whatever the server made of an impossible date otherwise, which is then rejected.
    pub date: String,
    pub number: String,
    pub time: Option<SourceTime>,
}

/// An invoice and the bytes of its document.
#[derive(Clone, Debug)]
pub struct Row {
    pub invoice: Invoice,
    pub document: Vec<u8>,
}

/// What came of reading one row.
#[derive(Clone, Debug)]
pub enum Fetched {
    Row(Row),
    /// The row is an invoice, but it could not be turned into one.
    Unreadable {
        id: InvoiceId,
        tenant: Option<Tenant>,
        number: Option<String>,
        time: Option<SourceTime>,
        reason: Reason,
    },
}

impl Fetched {
    pub fn id(&self) -> &InvoiceId {
        match self {
            Self::Row(row) => &row.invoice.id,
            Self::Unreadable { id, .. } => id,
        }
    }
}

/// Why an invoice cannot be exported. The cause lies in the data; trouble on our side (disk,
/// permission, sync) is never a reject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The document is not UTF-8; offset of the first bad byte.
    NotUtf8 { offset: usize },
    /// The document is not JSON; what the parser says, without any of the document.
    NotJson { detail: String },
    /// The document begins with a byte order mark (BOM), which JSON does not allow.
    ByteOrderMark,
    /// `fissue_date` is not a day of the calendar.
    ImpossibleDate { date: String },
    /// The document is larger than `--max-document`.
    TooLarge { bytes: u64 },
    /// Another invoice with the greater (source time, id) has the same path.
    PathTaken { path: String, by: InvoiceId },
    /// Something that is not a file lies where the file should go.
    PathBlocked { path: String },
    /// These columns, with commas between them, hold characters that the server cannot convert to UTF-8.
    Unmappable { columns: String },
    /// The server cannot return this row, though it returns others.
    Unreadable { detail: Text },
}

words! {
    /// The kind of a reason.
    pub enum ReasonCode {
        NotUtf8 = "not-utf8", "不是 UTF-8";
        NotJson = "not-json", "不是 JSON";
        ImpossibleDate = "impossible-date", "日期不存在";
        TooLarge = "too-large", "内容过大";
        PathTaken = "path-taken", "路径已被占用";
        PathBlocked = "path-blocked", "路径无法使用";
        Unmappable = "unmappable", "字符无法转换";
        Unreadable = "unreadable", "无法读取";
    }
}

impl Reason {
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::NotUtf8 { .. } => ReasonCode::NotUtf8,
            Self::NotJson { .. } | Self::ByteOrderMark => ReasonCode::NotJson,
            Self::ImpossibleDate { .. } => ReasonCode::ImpossibleDate,
            Self::TooLarge { .. } => ReasonCode::TooLarge,
            Self::PathTaken { .. } => ReasonCode::PathTaken,
            Self::PathBlocked { .. } => ReasonCode::PathBlocked,
            Self::Unmappable { .. } => ReasonCode::Unmappable,
            Self::Unreadable { .. } => ReasonCode::Unreadable,
        }
    }

    /// The wording, as a clause about the invoice.
    pub fn text(&self) -> Text {
        match self {
            Self::NotUtf8 { offset } => {
                text!("the document is not UTF-8 at byte {offset}", "发票内容在第 {offset} 字节处不是 UTF-8")
            }
            Self::NotJson { detail } => text!("the document is not JSON: {detail}", "发票内容不是 JSON: {detail}"),
            Self::ByteOrderMark => text!(
                "the document begins with a byte order mark (BOM), with which it is not JSON",
                "发票内容以字节顺序标记（BOM）开头，因此不是合法的 JSON"
            ),
            Self::ImpossibleDate { date } => {
                text!("the issue date {date:?} is not a day of the calendar", "开票日期 {date:?} 不存在")
            }
            Self::TooLarge { bytes } => text!(
                "the document has {bytes} bytes, more than --max-document allows",
                "发票内容有 {bytes} 字节，超过 --max-document 的上限"
            ),
            Self::PathTaken { path, by } => {
                text!("its path {path} belongs to invoice id {by}", "文件路径 {path} 已属于另一张发票（id {by}）")
            }
            Self::PathBlocked { path } => {
                text!("something that is not a file lies at {path}", "{path} 处已有一个不是普通文件的东西")
            }
            Self::Unmappable { columns } => text!(
                "{columns}: a character that the server cannot convert to UTF-8, or bytes that are none",
                "{columns} 列含有数据库无法转换为 UTF-8 的字符（或无效字节）"
            ),
            Self::Unreadable { detail } => {
                text!("the server cannot return the row: {detail}", "数据库无法返回这条记录: {detail}"; detail)
            }
        }
    }
}

/// The English wording, which the state keeps.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().in_lang(Lang::En))
    }
}

impl InvoiceId {
    /// Whether this is how a server prints a whole number.
    pub fn is_whole_number(&self) -> bool {
        let digits = self.0.strip_prefix('-').unwrap_or(&self.0);
        self.0 == "0" || digits.starts_with(|first| first != '0') && digits.bytes().all(|byte| byte.is_ascii_digit())
    }

    fn rank(&self) -> Rank<'_> {
        let text = self.as_str();
        match (self.is_whole_number(), text.starts_with('-')) {
            (true, true) => Rank::Negative(Reverse((text.len(), text))),
            (true, false) => Rank::Positive(text.len(), text),
            (false, _) => Rank::Text(text),
        }
    }
}

/// Of numbers of one sign the longer one is farther from zero.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank<'a> {
    Negative(Reverse<(usize, &'a str)>),
    Positive(usize, &'a str),
    Text(&'a str),
}

/// Whole numbers by value, then everything else by its bytes: what decides between two invoices of one path
/// and one source time.
impl Ord for InvoiceId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for InvoiceId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! newtype {
    ($($name:ident)*) => {$(
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    )*};
}
newtype!(InvoiceId Tenant SourceTime);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_ordered_by_value_and_everything_else_follows_in_byte_order() {
        let numbers = ["-10", "-5", "0", "9", "10", "77", "9223372036854775807", "18446744073709551615"];
        let texts = ["", "+5", "-0", "-a", "007", "1A", "77A", "a10", "a9"];
        let all: Vec<InvoiceId> = numbers.iter().chain(&texts).map(|text| InvoiceId::from(*text)).collect();
        for (n, one) in all.iter().enumerate() {
            for (m, other) in all.iter().enumerate() {
                assert_eq!(one.cmp(other), n.cmp(&m), "{one} and {other}");
            }
        }
    }
}
