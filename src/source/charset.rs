//! Owns the conversion of text columns to UTF-8, and the detection of characters that it loses.
//!
//! The server converts a column in another character set. It puts a `?` in the place of each character that Unicode does
//! not have, such as the user-defined ones of gbk and big5, and of bytes that are no characters. Two numbers may become
//! one, and a document another one. So each row names its columns that lost characters, and an id or a tenant that would
//! not find its row again is sent as its bytes in hex.

use super::SourceError;
use super::engine::{Bind, Engine, lossy, quoted};

/// Character sets that arrive as they are: UTF-8, parts of it, or bytes that are checked later.
const UTF8: [&str; 5] = ["utf8mb4", "utf8mb3", "utf8", "ascii", "binary"];

/// Stands before the bytes in hex of a text that has no UTF-8. Character sets of one or two bytes do not contain this
/// character, so no text of theirs is taken for hex.
const HEX_PREFIX: char = '\u{fffd}';

/// Bytes. MariaDB's REPLACE takes 0.04 s for the question marks of such a document, of which every third byte is one.
const LONG_DOCUMENT: usize = 65_536;

/// The character set of a column, and how its text becomes UTF-8.
#[derive(Clone, Debug)]
pub(super) struct Charset {
    /// `gbk`
    pub name: String,
    /// `gbk_chinese_ci`
    collation: String,
    conversion: Conversion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conversion {
    Identity,
    /// The server converts each character to one of UTF-8.
    Lossless,
    /// Some characters, or some bytes that are no characters, have no UTF-8.
    Lossy,
}

impl Charset {
    /// Asks the server to convert all 256 codes, which tells whether a character set of one byte is converted without
    /// loss.
    pub(super) fn probe(engine: &mut impl Engine, name: String, collation: String) -> Result<Self, SourceError> {
        let conversion = if UTF8.contains(&name.as_str()) {
            Conversion::Identity
        } else if converts_every_byte(engine, &name)? {
            Conversion::Lossless
        } else {
            Conversion::Lossy
        };
        Ok(Self { name, collation, conversion })
    }

    /// The same character set with another collation.
    pub(super) fn collated(&self, collation: String) -> Self {
        Self { collation, ..self.clone() }
    }

    /// The column as UTF-8.
    pub(super) fn text(&self, column: &str) -> String {
        match self.conversion {
            Conversion::Identity => quoted(column),
            Conversion::Lossless | Conversion::Lossy => format!("CONVERT({} USING utf8mb4)", quoted(column)),
        }
    }

    /// The column as a text that finds its row again: UTF-8, or the bytes in hex.
    pub(super) fn identifier(&self, column: &str) -> String {
        let text = self.text(column);
        match self.conversion {
            Conversion::Identity | Conversion::Lossless => text,
            Conversion::Lossy => {
                format!(
                    "IF({}, {text}, CONCAT(_utf8mb4 X'EFBFBD', HEX({})))",
                    self.finds_its_row(column),
                    quoted(column)
                )
            }
        }
    }

    /// True if the character set has every character of a text. The hex of its UTF-8 stands for both `?`, since MySQL
    /// refuses the text itself. None where it has all characters. The server refuses to compare a column with a text
    /// that the column cannot hold.
    pub(super) fn holds(&self) -> Option<String> {
        let Self { name, .. } = self;
        let there_and_back = format!("CONVERT(CONVERT(CONVERT(UNHEX(?) USING utf8mb4) USING {name}) USING utf8mb4)");
        (!matches!(name.as_str(), "utf8mb4" | "binary")).then(|| format!("HEX({there_and_back}) = ?"))
    }

    /// Takes the place of a `?` for a text in hex.
    pub(super) fn by_bytes(&self) -> Option<String> {
        let Self { name, collation, .. } = self;
        (self.conversion == Conversion::Lossy).then(|| format!("CONVERT(UNHEX(?) USING {name}) COLLATE {collation}"))
    }

    /// The column's name if its UTF-8 does not find the row, and NULL otherwise.
    pub(super) fn unfindable(&self, column: &str) -> Option<String> {
        let (name, named) = (quoted(column), literal(column));
        (self.conversion == Conversion::Lossy)
            .then(|| format!("IF({name} IS NULL OR {}, NULL, {named})", self.finds_its_row(column)))
    }

    /// The column's name if its UTF-8 differs from its text, and NULL otherwise. A text that converts back to other
    /// codes of the same characters is no loss: cp932, eucjpms and big5 have several codes for one character.
    pub(super) fn lost(&self, column: &str) -> Option<String> {
        let Self { name: charset, .. } = self;
        let (name, named, text) = (quoted(column), literal(column), self.text(column));
        (self.conversion == Conversion::Lossy).then(|| {
            format!(
                "IF({name} IS NULL OR {}, NULL, \
                 IF(LENGTH({text}) - LENGTH(REPLACE({text}, '?', '')) <= {} AND CHAR_LENGTH({text}) = CHAR_LENGTH({name}), \
                 NULL, {named}))",
                self.converts_back(column),
                marks(charset, &name)
            )
        })
    }

    /// Two numbers of a document, which the exporter compares with those of the UTF-8: its question marks and its
    /// characters. The server would take three times as long if it converted each document there and back.
    ///
    /// A long document is converted there and back all the same, because MariaDB's REPLACE moves the rest of the text
    /// for each question mark: 3,000,000 of them take minutes, and KILL does not end the statement. Question marks
    /// are counted only in a long document that does not convert back. REPLACE gives NULL above `max_allowed_packet`.
    /// Conversions and LENGTH have no such limit.
    pub(super) fn measure(&self, column: &str) -> Option<[String; 2]> {
        let name = quoted(column);
        let marks = marks(&self.name, &name);
        let is_long = format!("LENGTH({name}) > {LONG_DOCUMENT}");
        let converts_back = self.converts_back(column);
        (self.conversion == Conversion::Lossy).then(|| {
            let marks =
                format!("CASE WHEN {is_long} AND {converts_back} THEN LENGTH({name}) ELSE COALESCE({marks}, 0) END");
            [marks, format!("CHAR_LENGTH({name})")]
        })
    }

    /// True if the UTF-8 of the column converts back to the same codes.
    fn converts_back(&self, column: &str) -> String {
        let Self { name: charset, .. } = self;
        format!("CONVERT({} USING {charset}) = {} COLLATE {charset}_bin", self.text(column), quoted(column))
    }

    /// True if the UTF-8 of the column converts back to a text that finds the row. A text that begins with the prefix
    /// of hex is sent as hex too.
    fn finds_its_row(&self, column: &str) -> String {
        let (name, text) = (quoted(column), self.text(column));
        let Self { name: charset, collation, .. } = self;
        format!(
            "{name} = CONVERT({text} USING {charset}) COLLATE {collation} \
             AND LEFT({text}, 1) <> _utf8mb4 X'EFBFBD' COLLATE utf8mb4_bin"
        )
    }
}

/// The number of question marks in a column. A question mark may have several bytes in the character set.
fn marks(charset: &str, column: &str) -> String {
    format!("(LENGTH({column}) - LENGTH(REPLACE({column}, '?', ''))) DIV LENGTH(CONVERT('?' USING {charset}))")
}

/// Whether a UTF-8 text has at most this many question marks, and exactly this many characters.
pub(super) fn is_whole(text: &[u8], marks: usize, characters: usize) -> bool {
    let count = |wanted: fn(u8) -> bool| text.iter().filter(|byte| wanted(**byte)).count();
    count(|byte| byte == b'?') <= marks && count(|byte| byte & 0xc0 != 0x80) == characters
}

/// Whether the 256 codes of one byte become 256 characters.
fn converts_every_byte(engine: &mut impl Engine, charset: &str) -> Result<bool, SourceError> {
    let bytes: String = (0..=u8::MAX).map(|byte| format!("{byte:02X}")).collect();
    let sql = format!("SELECT CONVERT(CONVERT(UNHEX(?) USING {charset}) USING utf8mb4)");
    let answer = engine.all(&sql, &[Bind::Text(bytes)])?.into_iter().flatten().next().map(lossy).unwrap_or_default();
    let mut characters: Vec<char> = answer.chars().collect();
    characters.sort_unstable();
    characters.dedup();
    Ok(characters.len() == 256)
}

/// The hex of an identifier that is spelled as its bytes.
pub(super) fn bytes_in_hex(identifier: &str) -> Option<&str> {
    identifier.strip_prefix(HEX_PREFIX)
}

/// An SQL string.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
