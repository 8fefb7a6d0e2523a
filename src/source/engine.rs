//! Owns [`Engine`], which runs one SQL statement, and the types of its values and answers. `mysql.rs` and `sqlite.rs`
//! implement it; the other modules ask through it.

use super::SourceError;

/// One column of one row. None is NULL.
pub(super) type Cell = Option<Vec<u8>>;

/// The value of one `?` in a statement.
pub(super) enum Bind {
    Text(String),
    /// An invoice id. The engine gives it the type of its column; with another type no index is used.
    Id(String),
    Count(u64),
}

/// Takes the rows of an answer as they arrive. Its first error ends the answer.
pub(super) type HandleRow<'a> = dyn FnMut(Vec<Cell>) -> Result<(), SourceError> + 'a;

/// Runs one statement at a time.
pub(super) trait Engine {
    /// Runs a statement and hands over each row of its answer.
    fn query(&mut self, sql: &str, binds: &[Bind], each: &mut HandleRow<'_>) -> Result<(), SourceError>;

    /// Runs a statement and collects the rows of its answer.
    fn all(&mut self, sql: &str, binds: &[Bind]) -> Result<Vec<Vec<Cell>>, SourceError> {
        let mut rows = Vec::new();
        self.query(sql, binds, &mut |row| {
            rows.push(row);
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
pub(super) fn lossy(cell: Cell) -> String {
    cell.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
