//! Results that have rows: aligned columns for people, JSON and CSV for programs.
//!
//! The column names are the field names of JSON and CSV, an interface that others build upon. Add to
//! them, never rename.

use serde_json::{Map, Value, json};
use unicode_width::UnicodeWidthStr;

use super::Format;
use super::line::escaped;

/// One value. People see spans and sizes in units, programs as plain numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    None,
    Text(String),
    Number(i64),
    /// A span; the column's name ends in `_seconds`.
    Seconds(i64),
    Bytes(u64),
    Flag(bool),
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Seconds(_) | Self::Bytes(_))
    }

    fn shown(&self) -> String {
        match self {
            Self::None => "-".to_owned(),
            Self::Text(text) => escaped(text),
            Self::Number(number) => number.to_string(),
            Self::Seconds(seconds) => span(*seconds),
            Self::Bytes(bytes) => bytesize::ByteSize::b(*bytes).to_string(),
            Self::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        }
    }

    /// As for a program: nothing, plain numbers, and text as it is.
    fn plain(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Text(text) => text.clone(),
            Self::Number(number) | Self::Seconds(number) => number.to_string(),
            Self::Bytes(bytes) => bytes.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Text(text) => json!(text),
            Self::Number(number) | Self::Seconds(number) => json!(number),
            Self::Bytes(bytes) => json!(bytes),
            Self::Flag(flag) => json!(flag),
        }
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// Rows under named columns; every row has as many cells as there are columns.
#[derive(Clone, Debug)]
pub struct Table {
    pub columns: &'static [&'static str],
    pub rows: Vec<Vec<Cell>>,
}

/// A result whose rows come in pages, so that it may be longer than memory.
pub(super) struct Paged {
    columns: &'static [&'static str],
    rows: u64,
}

impl Paged {
    pub(super) fn new(columns: &'static [&'static str]) -> Self {
        Self { columns, rows: 0 }
    }

    /// People see a head above the first page; columns are aligned within a page.
    pub(super) fn page(&mut self, format: Format, rows: Vec<Vec<Cell>>) -> String {
        let first = self.rows == 0;
        self.rows += rows.len() as u64;
        let table = Table { columns: self.columns, rows };
        match format {
            Format::Text if first => table.text(),
            Format::Text => behind_head(&table.text()),
            Format::Csv if first => table.csv(),
            Format::Csv => behind_head(&table.csv()),
            Format::Json => {
                let rows = table.objects().into_iter().map(|object| super::json::value(&object));
                rows.enumerate()
                    .map(|(n, row)| if first && n == 0 { format!("[{row}") } else { format!(",{row}") })
                    .collect()
            }
        }
    }

    /// What stands behind the last page.
    pub(super) fn end(mut self, format: Format) -> String {
        match (format, self.rows) {
            (Format::Json, 0) => "[]\n".to_owned(),
            (Format::Json, _) => "]\n".to_owned(),
            (Format::Text | Format::Csv, 0) => self.page(format, Vec::new()),
            (Format::Text | Format::Csv, _) => String::new(),
        }
    }
}

fn behind_head(text: &str) -> String {
    text.split_once('\n').map_or(String::new(), |(_, rows)| rows.to_owned())
}

/// Everything about one thing: facts with a name each, and tables with a title each. As JSON it is
/// one object, in which a table is an array under its title.
#[derive(Clone, Debug, Default)]
pub struct Details {
    pub facts: Vec<(&'static str, Cell)>,
    pub tables: Vec<(&'static str, Table)>,
}

impl Table {
    pub(super) fn text(&self) -> String {
        let heads = self.columns.iter().map(|name| name.trim_end_matches("_seconds").replace('_', " "));
        let lines: Vec<Vec<String>> = std::iter::once(heads.collect())
            .chain(self.rows.iter().map(|row| row.iter().map(Cell::shown).collect()))
            .collect();
        let widest = |column: usize| lines.iter().map(|line| line[column].width()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..self.columns.len()).map(widest).collect();
        let numbers: Vec<bool> = (0..self.columns.len())
            .map(|column| {
                self.rows.iter().any(|row| row[column].is_number())
                    && self.rows.iter().all(|row| row[column].is_number() || row[column] == Cell::None)
            })
            .collect();
        let mut text = String::new();
        for line in lines {
            let mut row = String::new();
            for (column, cell) in line.iter().enumerate() {
                let gap = " ".repeat(widths[column] - cell.width());
                let (before, after) = if numbers[column] { (gap.as_str(), "") } else { ("", gap.as_str()) };
                row.push_str(&format!("{before}{cell}{after}  "));
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        Value::Array(self.objects())
    }

    fn objects(&self) -> Vec<Value> {
        let object = |row: &Vec<Cell>| -> Map<String, Value> {
            self.columns.iter().map(|name| (*name).to_owned()).zip(row.iter().map(Cell::json)).collect()
        };
        self.rows.iter().map(|row| Value::Object(object(row))).collect()
    }

    pub(super) fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        // Writing into memory cannot fail, and every row has as many cells as the head.
        let _ = writer.write_record(self.columns);
        for row in &self.rows {
            let _ = writer.write_record(row.iter().map(Cell::plain));
        }
        String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
    }
}

impl Details {
    pub(super) fn text(&self) -> String {
        let width = self.facts.iter().map(|(name, _)| label(name).width()).max().unwrap_or_default();
        let mut text = String::new();
        for (name, cell) in &self.facts {
            if *cell != Cell::None {
                text.push_str(format!("{:<width$}  {}", label(name), cell.shown()).trim_end());
                text.push('\n');
            }
        }
        for (title, table) in self.tables.iter().filter(|(_, table)| !table.rows.is_empty()) {
            text.push_str(&format!("\n{}\n{}", label(title), table.text()));
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let facts = self.facts.iter().map(|(name, cell)| ((*name).to_owned(), cell.json()));
        let tables = self.tables.iter().map(|(title, table)| ((*title).to_owned(), table.json()));
        Value::Object(facts.chain(tables).collect())
    }
}

fn label(name: &str) -> String {
    name.trim_end_matches("_seconds").replace('_', " ")
}

/// The two greatest units, which is what one wants to know of a lag.
fn span(seconds: i64) -> String {
    let sign = if seconds < 0 { "-" } else { "" };
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut rest = seconds.unsigned_abs();
    let mut parts = Vec::new();
    for (name, size) in units {
        if rest >= size || (size == 1 && parts.is_empty()) {
            parts.push(format!("{}{name}", rest / size));
            rest %= size;
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    format!("{sign}{}", parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let row = |tenant: &str, lag, bytes| vec![Cell::text(tenant), lag, Cell::Bytes(bytes)];
        Table {
            columns: &["tenant", "lag_seconds", "bytes"],
            rows: vec![row("票据", Cell::Seconds(7_265), 10), row("a,\u{9b}\"b", Cell::None, 2_048)],
        }
    }

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let text = table().text();
        assert_eq!(text, "tenant        lag    bytes\n票据        2h 1m     10 B\na,\\u009b\"b      -  2.0 KiB\n");
    }

    #[test]
    fn programs_get_plain_numbers_and_text_as_it_is() {
        assert_eq!(table().csv(), "tenant,lag_seconds,bytes\n票据,7265,10\n\"a,\u{9b}\"\"b\",,2048\n");
        assert_eq!(table().json()[1], json!({ "tenant": "a,\u{9b}\"b", "lag_seconds": null, "bytes": 2048 }));
    }

    #[test]
    fn pages_together_are_what_one_table_is() {
        let together = |format| {
            let mut paged = Paged::new(table().columns);
            let pages: String = table().rows.into_iter().map(|row| paged.page(format, vec![row])).collect();
            pages + &paged.end(format)
        };
        assert_eq!(together(Format::Csv), table().csv());
        assert_eq!(serde_json::from_str::<Value>(&together(Format::Json)).unwrap(), table().json());
        assert_eq!(together(Format::Text).lines().count(), 3);
        let empty = |format| Paged::new(table().columns).end(format);
        assert_eq!(empty(Format::Json), "[]\n");
        assert_eq!(empty(Format::Csv), "tenant,lag_seconds,bytes\n");
        assert_eq!(empty(Format::Text), "tenant  lag  bytes\n");
    }

    #[test]
    fn a_span_shows_its_two_greatest_units() {
        let shown = [0, 59, 60, 3_599, 3_600, 90_061, -60].map(span);
        assert_eq!(shown, ["0s", "59s", "1m", "59m 59s", "1h", "1d 1h", "-1m"]);
    }

    #[test]
    fn details_leave_out_what_is_not_known_but_programs_see_it() {
        let details = Details {
            facts: vec![("run", Cell::Number(3)), ("error", Cell::None)],
            tables: vec![("tenants", table())],
        };
        assert!(details.text().starts_with("run    3\n\ntenants\ntenant "), "{}", details.text());
        assert_eq!(details.json()["error"], Value::Null);
        assert_eq!(details.json()["tenants"][0]["bytes"], 10);
    }
}
