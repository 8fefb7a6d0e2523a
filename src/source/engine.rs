//! Running one SQL statement: what is bound to it, and how its rows come. The two engines (`mysql.rs`, `sqlite.rs`)
//! implement it, and every other module of a source asks through it.

use super::SourceError;

/// One column of one row: None is NULL.
pub(super) type Cell = Option<Vec<u8>>;

/// What stands for a `?`.
pub(super) enum Bind {
    Text(String),
    /// An invoice id; the engine gives it the type of its column, without which an index is of no use.
    Id(String),
    Count(u64),
}

/// Takes the rows of an answer as they arrive; the first fault ends the answer.
pub(super) type HandleRow<'a> = dyn FnMut(Vec<Cell>) -> Result<(), SourceError> + 'a;

/// Whoever can run one statement.
pub(super) trait Engine {
    fn query(&mut self, sql: &str, binds: &[Bind], each: &mut HandleRow<'_>) -> Result<(), SourceError>;

    fn all(&mut self, sql: &str, binds: &[Bind]) -> Result<Vec<Vec<Cell>>, SourceError> {
        let mut rows = Vec::new();
        self.query(sql, binds, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }
}

/// Both engines accept backticks.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// For what a server says about itself.
pub(super) fn lossy(cell: Cell) -> String {
    cell.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
