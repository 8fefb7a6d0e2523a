//! Results: rows under named columns, and facts about one thing. People get aligned text in their language,
//! programs JSON and CSV.
//!
//! The field names of JSON and CSV are an interface that others build upon. Add to them, never rename.

use std::iter;
use std::path::Path;

use serde_json::{Map, Value, json};
use unicode_width::UnicodeWidthStr;

use super::line::escaped;
use super::settings::{Locale, PrintFormat};
use crate::given_time::OwnZone;
use crate::invoice::{Digest, InvoiceId, SourceTime, Tenant};
use crate::lang::{Lang, Text, Word};
use crate::run::{Counts, PastCounts, RunId};

/// One value. People see spans and sizes in units and words in their language, programs plain numbers and English.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    None,
    Text(Text),
    Names(Vec<String>),
    Number(i64),
    /// A moment of our own clock, RFC 3339.
    Moment(String),
    /// A span; the column's name ends in `_seconds`.
    Seconds(i64),
    Bytes(u64),
    Flag(bool),
}

impl Cell {
    /// A moment of our own clock, as the state has it.
    pub fn moment<'m>(recorded: impl Into<Option<&'m String>>) -> Self {
        recorded.into().map_or(Self::None, |moment| Self::Moment(moment.clone()))
    }

    /// Numbers are aligned to the right.
    fn is_number(&self) -> bool {
        matches!(self, Self::Number(_) | Self::Seconds(_) | Self::Bytes(_))
    }

    /// As a person reads it.
    fn shown(&self, Locale { lang, zone }: Locale) -> String {
        match self {
            Self::None => "-".to_owned(),
            Self::Moment(moment) => escaped(&zone.shown_text(moment)),
            Self::Text(text) => escaped(text.in_lang(lang)),
            Self::Names(names) => escaped(&names.join(text!(", ", "、").in_lang(lang))),
            Self::Number(number) => number.to_string(),
            Self::Seconds(seconds) => span(*seconds, lang),
            Self::Bytes(bytes) => bytesize::ByteSize::b(*bytes).to_string(),
            Self::Flag(true) => Text::new("yes", "是").in_lang(lang).to_owned(),
            Self::Flag(false) => Text::new("no", "否").in_lang(lang).to_owned(),
        }
    }

    /// As for a program: nothing, plain numbers, and text as it is.
    fn plain(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Moment(moment) => moment.clone(),
            Self::Text(text) => text.in_lang(Lang::En).to_owned(),
            Self::Names(names) => names.join(", "),
            Self::Number(number) | Self::Seconds(number) => number.to_string(),
            Self::Bytes(bytes) => bytes.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Moment(moment) => json!(moment),
            Self::Text(text) => json!(text.in_lang(Lang::En)),
            Self::Names(names) => json!(names),
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

impl<W: Word> From<W> for Cell {
    fn from(word: W) -> Self {
        Self::Text(word.into())
    }
}

macro_rules! cells {
    ($($value:ident: $type:ty => $cell:expr;)+) => {$(
        impl From<$type> for Cell {
            fn from($value: $type) -> Self {
                $cell
            }
        }
    )+};
}
cells! {
    text: Text => Self::Text(text);
    text: String => Self::Text(Text::same(text));
    text: &String => Self::from(text.as_str());
    text: &str => Self::Text(Text::same(text));
    tenant: &Tenant => Self::from(tenant.as_str());
    id: &InvoiceId => Self::from(id.as_str());
    time: &SourceTime => Self::from(time.as_str());
    path: &Path => Self::from(path.display().to_string());
    digest: Digest => Self::from(digest.to_string());
    run: RunId => Self::Number(run.0);
    names: Vec<String> => Self::Names(names);
    number: i64 => Self::Number(number);
    number: u64 => Self::Number(number.cast_signed());
    number: usize => Self::from(number as u64);
}

/// The readers of a column that not all get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// Readers of text: what fits a screen.
    People,
    /// Readers of JSON and CSV.
    Programs,
}

/// The clock of a time. Its heading for people names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeBy {
    /// The clock of the machine that runs this program.
    Own,
    /// The source's clock.
    Source,
}

/// What a value is called.
#[derive(Clone, Copy, Debug)]
struct Name {
    /// In JSON and CSV.
    field: &'static str,
    /// The English title, with underscores for blanks.
    en: &'static str,
    zh: &'static str,
    only_for: Option<Audience>,
    clock: Option<TimeBy>,
}

impl Name {
    fn new(field: &'static str, zh: &'static str) -> Self {
        Self { field, en: field, zh, only_for: None, clock: None }
    }

    /// The heading in a table for people.
    fn title(&self, Locale { lang, zone }: Locale) -> String {
        let clock = match (self.clock, zone) {
            (None, _) => Text::same(""),
            (Some(TimeBy::Own), OwnZone::Local) => text!(" (local)", "（本机）"),
            (Some(TimeBy::Own), OwnZone::Utc) => Text::new(" (UTC)", "（UTC）"),
            (Some(TimeBy::Source), _) => text!(" (source)", "（数据源）"),
        };
        let title = match lang {
            Lang::En => self.en.trim_end_matches("_seconds").replace('_', " "),
            Lang::Zh => self.zh.to_owned(),
        };
        title + clock.in_lang(lang)
    }

    /// Whether this audience gets the column.
    fn is_for(&self, audience: Audience) -> bool {
        self.only_for.is_none_or(|only| only == audience)
    }
}

/// The columns of a table of `R`, each with its names and the cell that it has for a row.
pub struct Columns<'a, R> {
    columns: Vec<(Name, CellOf<'a, R>)>,
}

type CellOf<'a, R> = Box<dyn Fn(&R) -> Cell + 'a>;

impl<R> Default for Columns<'_, R> {
    fn default() -> Self {
        Self { columns: Vec::new() }
    }
}

impl<'a, R> Columns<'a, R> {
    /// A column by its name in JSON and CSV, which with blanks is its English title, and by its Chinese title.
    pub fn column(mut self, field: &'static str, zh: &'static str, cell: impl Fn(&R) -> Cell + 'a) -> Self {
        self.columns.push((Name::new(field, zh), Box::new(cell)));
        self
    }

    /// A column of text that JSON and CSV do not have.
    pub fn for_people(self, title: &'static str, zh: &'static str, cell: impl Fn(&R) -> Cell + 'a) -> Self {
        self.column(title, zh, cell).only_for(Audience::People)
    }

    /// A column of JSON and CSV that a table for people has no room for. The Chinese is its title among facts.
    pub fn for_programs(self, field: &'static str, zh: &'static str, cell: impl Fn(&R) -> Cell + 'a) -> Self {
        self.column(field, zh, cell).only_for(Audience::Programs)
    }

    fn only_for(mut self, audience: Audience) -> Self {
        self.columns.iter_mut().next_back().into_iter().for_each(|(name, _)| name.only_for = Some(audience));
        self
    }

    /// Gives the last column an English title of its own.
    pub fn titled(mut self, title: &'static str) -> Self {
        self.columns.iter_mut().next_back().into_iter().for_each(|(name, _)| name.en = title);
        self
    }

    /// Says by which clock the times of the last column go.
    pub fn by(mut self, clock: TimeBy) -> Self {
        self.columns.iter_mut().next_back().into_iter().for_each(|(name, _)| name.clock = Some(clock));
        self
    }

    /// A column for each of the counts. How late is none where nothing was.
    pub fn counts(mut self, of: impl Fn(&R) -> Option<PastCounts> + Copy + 'a) -> Self {
        for (n, name) in Counts::NAMES.iter().enumerate() {
            self = self.column(name.field, name.zh, move |row| {
                let Some((past, count)) = of(row).and_then(|past| Some((past, past.values().nth(n)?.1?))) else {
                    return Cell::None;
                };
                match name.column {
                    "late_by" if past.counts.late == 0 => Cell::None,
                    "late_by" => Cell::Seconds(count.cast_signed()),
                    "bytes" => Cell::Bytes(count),
                    _ => Cell::from(count),
                }
            });
        }
        self
    }

    /// All of these columns are for programs.
    pub fn all_for_programs(mut self) -> Self {
        self.columns.iter_mut().for_each(|(name, _)| name.only_for = Some(Audience::Programs));
        self
    }

    /// The columns of both.
    pub fn and(mut self, more: Self) -> Self {
        self.columns.extend(more.columns);
        self
    }

    /// The rows under these columns.
    pub fn table<'r>(&self, rows: impl IntoIterator<Item = &'r R>) -> Table
    where
        R: 'r,
    {
        let cells = |row: &R| self.columns.iter().map(|(_, cell)| cell(row)).collect();
        let rows = rows.into_iter().map(cells).collect();
        Table { names: self.columns.iter().map(|(name, _)| *name).collect(), rows }
    }

    /// What programs get of one row, as facts.
    pub fn facts(&self, row: &R) -> Details {
        let columns = self.columns.iter().filter(|(name, _)| name.is_for(Audience::Programs));
        Details { facts: columns.map(|(name, cell)| (*name, cell(row))).collect(), tables: Vec::new() }
    }
}

/// Rows under named columns.
#[derive(Clone, Debug, Default)]
pub struct Table {
    names: Vec<Name>,
    /// Each with as many cells as there are names.
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// The numbers of the columns that this audience gets.
    fn columns_for(&self, audience: Audience) -> Vec<usize> {
        (0..self.names.len()).filter(|column| self.names[*column].is_for(audience)).collect()
    }

    /// Aligned columns below a head.
    pub(super) fn text(&self, locale: Locale) -> String {
        let columns = self.columns_for(Audience::People);
        let heads = columns.iter().map(|column| self.names[*column].title(locale)).collect();
        let shown = |row: &Vec<Cell>| columns.iter().map(|column| row[*column].shown(locale)).collect();
        let lines: Vec<Vec<String>> = iter::once(heads).chain(self.rows.iter().map(shown)).collect();
        let width = |n: usize| lines.iter().map(|line| line[n].width()).max().unwrap_or_default();
        let layout: Vec<(usize, bool)> =
            columns.iter().enumerate().map(|(n, column)| (width(n), self.is_numeric(*column))).collect();
        lines.iter().map(|line| aligned(line, &layout)).collect()
    }

    /// Whether a column holds numbers, and nothing else.
    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().map(|row| &row[column]).filter(|cell| **cell != Cell::None).peekable();
        cells.peek().is_some() && cells.all(Cell::is_number)
    }

    /// Each row as a JSON object.
    fn objects(&self) -> Vec<Value> {
        let columns = self.columns_for(Audience::Programs);
        let field = |row: &Vec<Cell>, column: usize| (self.names[column].field.to_owned(), row[column].json());
        let object = |row: &Vec<Cell>| columns.iter().map(|column| field(row, *column)).collect::<Map<_, _>>();
        self.rows.iter().map(|row| Value::Object(object(row))).collect()
    }

    pub(super) fn json(&self) -> Value {
        Value::Array(self.objects())
    }

    pub(super) fn csv(&self) -> String {
        let columns = self.columns_for(Audience::Programs);
        let mut writer = csv::Writer::from_writer(Vec::new());
        // Writing into memory cannot fail, and every row has as many cells as the head.
        let _ = writer.write_record(columns.iter().map(|column| self.names[*column].field));
        for row in &self.rows {
            let _ = writer.write_record(columns.iter().map(|column| row[*column].plain()));
        }
        String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
    }
}

/// A line of a table. The layout says of each column how wide it is, and whether it is aligned to the right.
fn aligned(line: &[String], layout: &[(usize, bool)]) -> String {
    let mut text = String::new();
    for (cell, (width, right)) in line.iter().zip(layout) {
        let gap = " ".repeat(width - cell.width());
        let (before, after) = if *right { (gap.as_str(), "") } else { ("", gap.as_str()) };
        text.push_str(&format!("{before}{cell}{after}  "));
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// A result that comes in pages of rows, so that it may be longer than memory.
pub(super) struct Paged<'a, R> {
    columns: &'a Columns<'a, R>,
    rows: u64,
}

impl<'a, R> Paged<'a, R> {
    pub(super) fn new(columns: &'a Columns<'a, R>) -> Self {
        Self { columns, rows: 0 }
    }

    /// People see a head above the first page; columns are aligned within a page.
    pub(super) fn page(&mut self, format: PrintFormat, locale: Locale, rows: &[R]) -> String {
        let first = self.rows == 0;
        self.rows += rows.len() as u64;
        let table = self.columns.table(rows);
        match format {
            PrintFormat::Text if first => table.text(locale),
            PrintFormat::Text => behind_head(&table.text(locale)),
            PrintFormat::Csv if first => table.csv(),
            PrintFormat::Csv => behind_head(&table.csv()),
            PrintFormat::Json => {
                let rows = table.objects().into_iter().map(|object| super::json::value(&object));
                rows.enumerate()
                    .map(|(n, row)| if first && n == 0 { format!("[{row}") } else { format!(",{row}") })
                    .collect()
            }
        }
    }

    /// What stands behind the last page.
    pub(super) fn end(mut self, format: PrintFormat, locale: Locale) -> String {
        match (format, self.rows) {
            (PrintFormat::Json, 0) => "[]\n".to_owned(),
            (PrintFormat::Json, _) => "]\n".to_owned(),
            (PrintFormat::Text | PrintFormat::Csv, 0) => self.page(format, locale, &[]),
            (PrintFormat::Text | PrintFormat::Csv, _) => String::new(),
        }
    }
}

/// Without the first line.
fn behind_head(text: &str) -> String {
    text.split_once('\n').map_or(String::new(), |(_, rows)| rows.to_owned())
}

/// Everything about one thing: facts with a name each, and tables with a title each. As JSON it is
/// one object, in which a table is an array under its title.
#[derive(Clone, Debug, Default)]
pub struct Details {
    facts: Vec<(Name, Cell)>,
    tables: Vec<(Name, Table)>,
}

impl Details {
    /// A fact by its name in JSON, which with blanks is its English title, and by its Chinese title.
    pub fn fact(mut self, field: &'static str, zh: &'static str, value: impl Into<Cell>) -> Self {
        self.facts.push((Name::new(field, zh), value.into()));
        self
    }

    /// Says by which clock the last fact goes.
    pub fn by(mut self, clock: TimeBy) -> Self {
        self.facts.iter_mut().next_back().into_iter().for_each(|(name, _)| name.clock = Some(clock));
        self
    }

    /// A table, named as a fact is.
    pub fn table(mut self, field: &'static str, zh: &'static str, table: Table) -> Self {
        self.tables.push((Name::new(field, zh), table));
        self
    }

    /// What is not known and tables without rows are left out.
    pub(super) fn text(&self, locale: Locale) -> String {
        let known = self.facts.iter().filter(|(_, cell)| *cell != Cell::None);
        let lines: Vec<[String; 2]> = known.map(|(name, cell)| [name.title(locale), cell.shown(locale)]).collect();
        // A name that has no value here makes no line narrower.
        let width = self.facts.iter().map(|(name, _)| name.title(locale).width()).max().unwrap_or_default();
        let mut text: String =
            lines.iter().map(|line| aligned(line, &[(width, false), (line[1].width(), false)])).collect();
        for (name, table) in self.tables.iter().filter(|(_, table)| !table.rows.is_empty()) {
            text.push_str(&format!("\n{}\n{}", name.title(locale), table.text(locale)));
        }
        text
    }

    /// The first table.
    pub(super) fn csv(&self) -> String {
        self.tables.first().map(|(_, table)| table.csv()).unwrap_or_default()
    }

    pub(super) fn json(&self) -> Value {
        let facts = self.facts.iter().map(|(name, cell)| (name.field.to_owned(), cell.json()));
        let tables = self.tables.iter().map(|(name, table)| (name.field.to_owned(), table.json()));
        Value::Object(facts.chain(tables).collect())
    }
}

/// The two greatest units, which is what one wants to know of a lag.
fn span(seconds: i64, lang: Lang) -> String {
    let units = match lang {
        Lang::En => ["d", "h", "m", "s"],
        Lang::Zh => [" 天", " 小时", " 分钟", " 秒"],
    };
    let units = units.into_iter().zip([86_400, 3_600, 60, 1]);
    let sign = if seconds < 0 { "-" } else { "" };
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

    const ENGLISH: Locale = Locale { lang: Lang::En, zone: OwnZone::Utc };
    const CHINESE: Locale = Locale { lang: Lang::Zh, zone: OwnZone::Utc };

    type Row = (&'static str, Option<i64>, u64);

    fn columns() -> Columns<'static, Row> {
        Columns::default()
            .column("tenant", "租户", |row: &Row| row.0.into())
            .for_programs("alive", "存活", |_| Cell::Flag(true))
            .column("lag_seconds", "滞后", |row| row.1.map_or(Cell::None, Cell::Seconds))
            .column("bytes", "字节", |row| Cell::Bytes(row.2))
            .for_people("more", "更多", |_| Text::new("much", "很多").into())
    }

    const ROWS: [Row; 2] = [("票据", Some(7_265), 10), ("a,\u{9b}\"b", None, 2_048)];

    fn table() -> Table {
        columns().table(&ROWS)
    }

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let expected =
            "tenant        lag    bytes  more\n票据        2h 1m     10 B  much\na,\\u009b\"b      -  2.0 KiB  much\n";
        assert_eq!(table().text(ENGLISH), expected);
        let expected = "租户                 滞后     字节  更多\n票据        2 小时 1 分钟     10 B  很多\na,\\u009b\"b              -  2.0 KiB  很多\n";
        assert_eq!(table().text(CHINESE), expected);
    }

    #[test]
    fn programs_get_their_columns_with_plain_numbers_and_text_as_it_is() {
        assert_eq!(table().csv(), "tenant,alive,lag_seconds,bytes\n票据,true,7265,10\n\"a,\u{9b}\"\"b\",true,,2048\n");
        let expected = json!({ "tenant": "a,\u{9b}\"b", "alive": true, "lag_seconds": null, "bytes": 2048 });
        assert_eq!(table().json()[1], expected);
    }

    #[test]
    fn pages_together_are_what_one_table_is() {
        let together = |format| {
            let columns = columns();
            let mut paged = Paged::new(&columns);
            let pages: String = ROWS.iter().map(|row| paged.page(format, ENGLISH, &[*row])).collect();
            pages + &paged.end(format, ENGLISH)
        };
        assert_eq!(together(PrintFormat::Csv), table().csv());
        assert_eq!(serde_json::from_str::<Value>(&together(PrintFormat::Json)).unwrap(), table().json());
        assert_eq!(together(PrintFormat::Text).lines().count(), 3);
        let empty = |format| Paged::new(&columns()).end(format, ENGLISH);
        assert_eq!(empty(PrintFormat::Json), "[]\n");
        assert_eq!(empty(PrintFormat::Csv), "tenant,alive,lag_seconds,bytes\n");
        assert_eq!(empty(PrintFormat::Text), "tenant  lag  bytes  more\n");
    }

    #[test]
    fn a_span_shows_its_two_greatest_units() {
        let shown = [0, 59, 60, 3_599, 3_600, 90_061, -60].map(|seconds| span(seconds, Lang::En));
        assert_eq!(shown, ["0s", "59s", "1m", "59m 59s", "1h", "1d 1h", "-1m"]);
        assert_eq!(span(90_061, Lang::Zh), "1 天 1 小时");
    }

    #[test]
    fn details_leave_out_what_is_not_known_but_programs_see_it() {
        let details = Details::default().fact("run", "运行", 3_i64).fact("error", "错误", None::<&str>).table(
            "tenants",
            "租户",
            table(),
        );
        let text = details.text(ENGLISH);
        assert!(text.starts_with("run    3\n\ntenants\ntenant "), "{text}");
        assert_eq!(details.json()["error"], Value::Null);
        assert_eq!(details.json()["tenants"][0]["bytes"], 10);
    }

    #[test]
    fn headings_of_times_name_their_clock() {
        let columns = Columns::default()
            .column("started", "开始时间", |at: &String| Cell::moment(at))
            .by(TimeBy::Own)
            .column("watermark", "水位线", |_| "2026-11-30 18:00:00".into())
            .by(TimeBy::Source);
        let table = columns.table(&["2026-11-30T10:00:00Z".to_owned()]);
        let expected = "started (UTC)         watermark (source)\n2026-11-30 10:00:00Z  2026-11-30 18:00:00\n";
        assert_eq!(table.text(ENGLISH), expected);
        assert!(table.text(CHINESE).starts_with("开始时间（UTC）       水位线（数据源）\n"), "{}", table.text(CHINESE));
        assert_eq!(table.csv(), "started,watermark\n2026-11-30T10:00:00Z,2026-11-30 18:00:00\n");
    }

    #[test]
    fn the_counts_are_columns_and_none_where_they_are_not_known_or_nothing_was_late() {
        let columns = Columns::default().counts(|late: &u64| {
            let counts = Counts { seen: 2, late: *late, ..Counts::default() };
            Some(PastCounts { counts, has_recent: *late > 0 })
        });
        assert_eq!(
            columns.table(&[0, 1]).csv(),
            "seen,written,new,replaced,moved,unchanged,taken_over,rejected,gone,late,late_by_seconds,removed,bytes\n\
             2,0,,,,0,,0,0,0,,0,0\n2,0,0,0,0,0,0,0,0,1,0,0,0\n"
        );
    }
}
