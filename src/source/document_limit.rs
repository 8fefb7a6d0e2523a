//! Owns the limit of `--max-document`: the server sends the length of a longer document instead of the document. A check
//! on arrival would need the memory for it first.

use super::engine::quoted;

/// Bytes of text for one byte of MySQL's binary JSON, at most. A control character becomes `\u0001`. Quotes and
/// commas of very small values are within that factor.
const JSON_TEXT_GROWTH: u64 = 8;

/// The limit for one column of documents.
pub(super) struct Limit {
    /// A condition that holds for documents that may be sent.
    fits: String,
    /// An expression for the length in bytes of one that may not.
    length: String,
}

impl Limit {
    /// The limit in bytes for a column of this type and character set. None where no value can be too long.
    pub(super) fn of(name: &str, kind: &str, charset: Option<&str>, max_document: u64) -> Option<Self> {
        let column = quoted(name);
        let length = format!("OCTET_LENGTH({column})");
        let fits = match (kind, charset) {
            // The server makes the text of a JSON column for each use, also for its length.
            ("json", _) => format!(
                "(/*!50722 JSON_STORAGE_SIZE({column}) <= {} OR */ {length} <= {max_document})",
                max_document / JSON_TEXT_GROWTH
            ),
            (kind, _) if kind.contains("blob") => format!("{length} <= {max_document}"),
            (kind, Some("utf8mb4" | "utf8mb3" | "utf8" | "ascii" | "binary")) if kind.contains("text") => {
                format!("{length} <= {max_document}")
            }
            // A character becomes one to four bytes of UTF-8. A document that is too long by its bytes is found on arrival.
            (kind, _) if kind.contains("text") => format!("CHAR_LENGTH({column}) <= {max_document}"),
            // No other type holds more than 64 KiB.
            _ => return None,
        };
        Some(Self { fits, length })
    }

    /// Two columns for a document that is sent as `text`: the document or NULL, and the length in bytes of a document
    /// that is too long or NULL.
    pub(super) fn columns(&self, text: &str) -> String {
        let Self { fits, length } = self;
        format!("{}, CASE WHEN {fits} THEN NULL ELSE {length} END", self.only_if_sent(text))
    }

    /// The expression, or NULL for a document that is not sent. The server works nothing out for such a document.
    pub(super) fn only_if_sent(&self, expression: &str) -> String {
        format!("CASE WHEN {} THEN {expression} END", self.fits)
    }
}

/// The two columns of [`Limit::columns`] for a column of SQLite. The length of a text in UTF-16 is not that of the
/// UTF-8 that arrives.
pub(super) fn sqlite_columns(name: &str, encoding: &str, max_document: u64) -> String {
    let column = quoted(name);
    let length = format!("octet_length({column})");
    let measured = if encoding == "UTF-8" { length.clone() } else { format!("length({column})") };
    let fits = format!("{measured} <= {}", i64::try_from(max_document).unwrap_or(i64::MAX));
    Limit { fits, length }.columns(&column)
}
