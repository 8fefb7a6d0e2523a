//! Owns [`Engine`], which runs one SQL statement, and the types of its values and answers. `mysql.rs` and `sqlite.rs`
//! implement it; the other modules ask through it.

use super::SourceError;
use crate::lang::Explain;

/// One column of one row. None is NULL.
pub(super) type RawCell = Option<Vec<u8>>;

/// The value of one `?` in a statement.
pub(super) enum Bind {
    Text(String),
    /// An invoice id. The engine gives it the type of its column; with another type no index is used.
    Id(String),
    Count(u64),
}

/// Takes the rows of an answer as they arrive. Its first error ends the answer. [`SourceError::Statement`] says that a
/// row makes no sense.
pub(super) type HandleRow<'a> = dyn FnMut(Vec<RawCell>) -> Result<(), SourceError> + 'a;

/// Runs one statement at a time.
pub(super) trait Engine {
    /// Runs a statement and hands over each row of its answer.
    fn query(&mut self, sql: &str, binds: &[Bind], each: &mut HandleRow<'_>) -> Result<(), SourceError>;

    /// Runs a statement and collects the rows of its answer.
    fn all(&mut self, sql: &str, binds: &[Bind]) -> Result<Vec<Vec<RawCell>>, SourceError> {
        self.rows(sql, binds, Ok)
    }

    /// Runs a statement and collects the texts of its answer.
    fn texts(&mut self, sql: &str, binds: &[Bind]) -> Result<Vec<Vec<Option<String>>>, SourceError> {
        self.rows(sql, binds, |row| row.into_iter().map(text).collect())
    }

    /// Runs a statement and collects what `read` makes of each row. An error of `read` ends the answer.
    fn rows<T>(
        &mut self,
        sql: &str,
        binds: &[Bind],
        read: impl Fn(Vec<RawCell>) -> anyhow::Result<T>,
    ) -> Result<Vec<T>, SourceError> {
        let mut rows = Vec::new();
        self.query(sql, binds, &mut |row| {
            rows.push(read(row).map_err(SourceError::Statement)?);
            Ok(())
        })?;
        Ok(rows)
    }
}

/// A name in backticks, which both engines accept.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text that the server gives about itself. Bytes that are not UTF-8 become U+FFFD, NULL becomes empty.
pub(super) fn lossy(cell: RawCell) -> String {
    cell.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The text in a cell. Bytes that are not UTF-8 are an error.
pub(super) fn text(cell: RawCell) -> anyhow::Result<Option<String>> {
    cell.map(|bytes| String::from_utf8(bytes).explain(|| text!("a text is not UTF-8", "文本不是 UTF-8"))).transpose()
}
