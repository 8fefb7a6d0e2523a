//! How text comes to us in UTF-8, and what of it cannot come.
//!
//! A column in another character set is converted by the server. It puts a `?` for each character that has
//! no Unicode of its own, as the user-defined ones of gbk and big5, and for bytes that are no character.
//! Two numbers can become one that way, and a document another. So every row of such a column comes with
//! the names of its columns that lost something, and an id or tenant that would not lead back to its row
//! comes as its bytes in hex.

use super::SourceError;
use super::engine::{Bind, Engine, lossy, quoted};

/// These come as they are: UTF-8, parts of it, or bytes that are checked later.
const UTF8: [&str; 5] = ["utf8mb4", "utf8mb3", "utf8", "ascii", "binary"];

/// Stands before the bytes in hex of a text that the connection cannot carry. No character set of one or two bytes has
/// this character, so no text is taken for such a spelling.
const HEX_PREFIX: char = '\u{fffd}';

/// Bytes. MariaDB's REPLACE takes 0.04 s for the question marks of such a document, of which every third byte is one.
const LONG_DOCUMENT: usize = 65_536;

/// A column's character set, as far as reading it goes.
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
    /// The server converts each of its characters to one of UTF-8.
    Lossless,
    /// Some of its characters, or none of its broken bytes, have a place in UTF-8.
    Lossy,
}

impl Charset {
    /// Asks the server, for a character set of one byte, what becomes of its 256 codes.
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

    /// The same character set under another collation.
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

    /// The column as a text by which its row is found again.
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

    /// What stands for a `?` where such a text came as bytes.
    pub(super) fn by_bytes(&self) -> Option<String> {
        let Self { name, collation, .. } = self;
        (self.conversion == Conversion::Lossy).then(|| format!("CONVERT(UNHEX(?) USING {name}) COLLATE {collation}"))
    }

    /// Gives the column's name where it cannot be an identifier as text, and NULL otherwise.
    pub(super) fn unfindable(&self, column: &str) -> Option<String> {
        let (name, named) = (quoted(column), literal(column));
        (self.conversion == Conversion::Lossy)
            .then(|| format!("IF({name} IS NULL OR {}, NULL, {named})", self.finds_its_row(column)))
    }

    /// Gives the column's name where its UTF-8 is not what the column holds, and NULL otherwise. What comes back in
    /// another code has lost nothing: cp932, eucjpms and big5 have several codes for one character.
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

    /// The question marks of a document and its characters, for a comparison on our side: the server would convert
    /// the document there and back for one, which takes three times as long. A long document is converted all the same,
    /// since MariaDB's REPLACE moves the rest of the text for each question mark that it takes out: 3,000,000 of them
    /// take minutes, in which no KILL ends the statement. Only one that does not come back as it is has its question
    /// marks counted. REPLACE gives NULL beyond `max_allowed_packet`, which limits neither conversion nor LENGTH.
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

    /// True where the text, converted back, has the same codes.
    fn converts_back(&self, column: &str) -> String {
        let Self { name: charset, .. } = self;
        format!("CONVERT({} USING {charset}) = {} COLLATE {charset}_bin", self.text(column), quoted(column))
    }

    /// True where the text, converted back, finds the row. A text that begins as the spelling in hex does is
    /// spelled so too.
    fn finds_its_row(&self, column: &str) -> String {
        let (name, text) = (quoted(column), self.text(column));
        let Self { name: charset, collation, .. } = self;
        format!(
            "{name} = CONVERT({text} USING {charset}) COLLATE {collation} \
             AND LEFT({text}, 1) <> _utf8mb4 X'EFBFBD' COLLATE utf8mb4_bin"
        )
    }
}

/// How many question marks there are in a column of this character set, in which they may have several bytes.
fn marks(charset: &str, column: &str) -> String {
    format!("(LENGTH({column}) - LENGTH(REPLACE({column}, '?', ''))) DIV LENGTH(CONVERT('?' USING {charset}))")
}

/// Whether a text in UTF-8 has no more question marks than this, and as many characters.
pub(super) fn is_whole(text: &[u8], marks: usize, characters: usize) -> bool {
    let count = |wanted: fn(u8) -> bool| text.iter().filter(|byte| wanted(**byte)).count();
    count(|byte| byte == b'?') <= marks && count(|byte| byte & 0xc0 != 0x80) == characters
}

/// Only a character set of one byte makes 256 characters out of these.
fn converts_every_byte(engine: &mut impl Engine, charset: &str) -> Result<bool, SourceError> {
    let bytes: String = (0..=u8::MAX).map(|byte| format!("{byte:02X}")).collect();
    let sql = format!("SELECT CONVERT(CONVERT(UNHEX(?) USING {charset}) USING utf8mb4)");
    let answer = engine.all(&sql, &[Bind::Text(bytes)])?.into_iter().flatten().next().map(lossy).unwrap_or_default();
    let mut characters: Vec<char> = answer.chars().collect();
    characters.sort_unstable();
    characters.dedup();
    Ok(characters.len() == 256)
}

/// The bytes in hex of an identifier that came so.
pub(super) fn bytes_in_hex(identifier: &str) -> Option<&str> {
    identifier.strip_prefix(HEX_PREFIX)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
