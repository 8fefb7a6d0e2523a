//! The only printer of the program: events become bars, lines or JSON, errors become one line.
//!
//! It knows the vocabulary and nothing else: never the source, the tree or the state. Results go to
//! stdout; progress, log lines and errors to stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::event::{Event, Notice};
use crate::lang::{Explained, Lang, Text};
use crate::refusal::Refusal;
use crate::run::Summary;

mod bars;
mod chinese;
mod chinese_refusals;
mod closing;
mod english;
mod json;
mod lines;
pub mod table;
mod words;

use bars::Bars;
use lines::{Level, Line, Lines};
use table::{Columns, Details, Paged, Table};
use words::Words;

/// Between two lines of progress where there is no bar.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

fn words(lang: Lang) -> &'static dyn Words {
    match lang {
        Lang::En => &english::English,
        Lang::Zh => &chinese::Chinese,
    }
}

/// The form of what goes to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings, errors and the closing block.
    Quiet,
    Normal,
    /// Also every reject and every number of a tenant.
    Verbose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A bar on a terminal, a line every few seconds elsewhere.
    Auto,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub lang: Lang,
    pub format: Format,
    pub verbosity: Verbosity,
    pub progress: Progress,
}

/// May be shared by threads; what one call prints stays together.
pub struct Reporter {
    printer: Mutex<Printer>,
}

struct Printer {
    lang: Lang,
    words: &'static dyn Words,
    format: Format,
    verbosity: Verbosity,
    lines: Lines,
    bars: Option<Bars>,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// With JSON there is exactly one object on stdout, also when a run that was summed up fails.
    object_printed: bool,
}

impl Reporter {
    /// Prints to the process's stdout and stderr.
    pub fn new(settings: Settings) -> Self {
        let words = words(settings.lang);
        let wanted = settings.progress == Progress::Auto && settings.verbosity != Verbosity::Quiet;
        let bars = (wanted && io::stderr().is_terminal()).then(|| Bars::on_stderr(words));
        Self::build(settings, bars, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// Prints to these writers as to files, without a bar.
    pub fn to_writers(settings: Settings, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self::build(settings, None, out, err)
    }

    fn build(settings: Settings, bars: Option<Bars>, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        let words = words(settings.lang);
        let as_lines = settings.progress == Progress::Auto && bars.is_none();
        let lines = Lines::new(words, settings.verbosity, as_lines.then_some(PROGRESS_EVERY));
        let Settings { lang, format, verbosity, .. } = settings;
        let printer = Printer { lang, words, format, verbosity, lines, bars, out, err, object_printed: false };
        Self { printer: Mutex::new(printer) }
    }

    pub fn event(&self, event: &Event) {
        self.printer().event(event, Instant::now());
    }

    /// Says what ended the command.
    pub fn error(&self, error: &anyhow::Error) {
        self.printer().error(error);
    }

    /// One of several things that are wrong; what ends the command is said by `error`.
    pub fn problem(&self, text: &Text) {
        self.printer().log(Level::Error, text);
    }

    /// A result in plain words, without a prefix. With JSON it goes to stderr, because stdout
    /// belongs to the one object.
    pub fn line(&self, text: &Text) {
        let mut printer = self.printer();
        let text: String = text.in_lang(printer.lang).split('\n').map(|line| lines::escaped(line) + "\n").collect();
        match printer.format {
            Format::Text => printer.print_out(&text),
            Format::Json | Format::Csv => printer.print_err(&text),
        }
    }

    /// A result with rows.
    pub fn table(&self, table: &Table) {
        let mut printer = self.printer();
        let text = match printer.format {
            Format::Text => table.text(printer.lang),
            Format::Json => json::value(&table.json()) + "\n",
            Format::Csv => table.csv(),
        };
        printer.object_printed = true;
        printer.print_out(&text);
    }

    /// A result with more rows than memory may hold: asks for page after page until one is empty.
    pub fn pages<R>(
        &self,
        columns: &Columns<'_, R>,
        mut next: impl FnMut() -> anyhow::Result<Vec<R>>,
    ) -> anyhow::Result<()> {
        let mut paged = Paged::new(columns);
        loop {
            let rows = next()?;
            let mut printer = self.printer();
            let Printer { format, lang, .. } = *printer;
            printer.object_printed = true;
            if rows.is_empty() {
                printer.print_out(&paged.end(format, lang));
                return Ok(());
            }
            printer.print_out(&paged.page(format, lang, &rows));
        }
    }

    /// Whether stdout is text for people, not JSON or CSV for programs.
    pub fn prints_text(&self) -> bool {
        self.printer().format == Format::Text
    }

    /// A line of the log with what led to it.
    pub fn notice(&self, notice: &Notice, cause: &anyhow::Error) {
        let mut printer = self.printer();
        let text = format!("{}: {}", printer.words.notice(notice), chain_text(cause, printer.lang));
        printer.print_err(&block(&[Line::new(Level::Warn, text)]));
    }

    /// A result about one thing. As CSV it is its first table.
    pub fn details(&self, details: &Details) {
        let mut printer = self.printer();
        let text = match printer.format {
            Format::Text => details.text(printer.lang),
            Format::Json => json::value(&details.json()) + "\n",
            Format::Csv => details.csv(),
        };
        printer.object_printed = true;
        printer.print_out(&text);
    }

    /// Results about several things, with a blank line between them; as JSON an array.
    pub fn each(&self, results: &[Details]) {
        let mut printer = self.printer();
        let text = match printer.format {
            Format::Text | Format::Csv => {
                results.iter().map(|result| result.text(printer.lang)).collect::<Vec<_>>().join("\n")
            }
            Format::Json => json::value(&results.iter().map(Details::json).collect()) + "\n",
        };
        printer.object_printed = true;
        printer.print_out(&text);
    }

    /// A question at the terminal; the answer follows on the same line.
    pub fn ask(&self, question: &Text) {
        let mut printer = self.printer();
        let question = lines::escaped(question.in_lang(printer.lang));
        printer.print_err(&format!("{question} "));
    }

    /// Something the operator should know, though the command goes on.
    pub fn warn(&self, text: &Text) {
        self.printer().log(Level::Warn, text);
    }

    /// Bytes for another program, as they are: paths that end in a zero byte.
    pub fn raw(&self, bytes: &[u8]) {
        self.printer().print_bytes(bytes);
    }

    /// A thread that panicked while printing leaves nothing half that the next line could break.
    fn printer(&self) -> MutexGuard<'_, Printer> {
        self.printer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Printer {
    fn event(&mut self, event: &Event, now: Instant) {
        let lines = self.lines.event(event, now);
        if let Some(bars) = &self.bars {
            bars.event(event);
        }
        self.print_err(&block(&lines));
        if let Event::Finished(summary) = event {
            self.finished(summary);
        }
    }

    fn finished(&mut self, summary: &Summary) {
        let text = match self.format {
            Format::Text | Format::Csv => block(&closing::closing(self.words, summary, self.verbosity)),
            Format::Json => {
                self.object_printed = true;
                json::finished(summary) + "\n"
            }
        };
        self.print_out(&text);
    }

    fn error(&mut self, error: &anyhow::Error) {
        if let Some(bars) = &self.bars {
            bars.clear();
        }
        let mut lines = self.lines.remaining();
        lines.push(Line::new(Level::Error, chain_text(error, self.lang)));
        self.print_err(&block(&lines));
        if self.format == Format::Json && !self.object_printed {
            self.object_printed = true;
            let object = json::failed(&chain_text(error, Lang::En), exit_code(error));
            self.print_out(&(object + "\n"));
        }
    }

    fn log(&mut self, level: Level, text: &Text) {
        self.print_err(&block(&[Line::new(level, text.in_lang(self.lang))]));
    }

    fn print_out(&mut self, text: &str) {
        self.print_bytes(text.as_bytes());
    }

    fn print_bytes(&mut self, bytes: &[u8]) {
        let Self { bars, out, err, .. } = self;
        above(bars.as_ref(), || {
            let written = out.write_all(bytes).and_then(|()| out.flush());
            // Whoever closed the pipe has read enough; a full disk is worth a word.
            if let Err(error) = written
                && error.kind() != io::ErrorKind::BrokenPipe
            {
                let line = Line::new(Level::Warn, format!("cannot write to standard output: {error}"));
                put(err, &block(&[line]));
            }
        });
    }

    fn print_err(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let Self { bars, err, .. } = self;
        above(bars.as_ref(), || put(err, text));
    }
}

fn above(bars: Option<&Bars>, print: impl FnOnce()) {
    match bars {
        Some(bars) => bars.above(print),
        None => print(),
    }
}

/// When the log itself cannot be written, there is nowhere left to say so, and an export must not
/// end because nobody listens.
fn put(err: &mut impl Write, text: &str) {
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

fn block(lines: &[Line]) -> String {
    lines.iter().map(|line| line.render() + "\n").collect()
}

/// The exit code of a command that ended with this error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    refusal(error).map_or(1, Refusal::exit_code)
}

/// A refusal may be the error, the context of one, or the cause of one.
fn refusal(error: &anyhow::Error) -> Option<&Refusal> {
    error.downcast_ref().or_else(|| error.chain().find_map(|cause| cause.downcast_ref()))
}

/// An error with what led to it, as part of a result.
pub fn error_text(error: &anyhow::Error) -> Text {
    Text::new(format!("{error:#}"), chain_text(error, Lang::Zh))
}

fn chain_text(error: &anyhow::Error, lang: Lang) -> String {
    let words = words(lang);
    let refusal = refusal(error).map(|refusal| (refusal.to_string(), words.refusal(refusal)));
    let mut told: Vec<String> = Vec::new();
    let worded = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<Explained>() {
        Some(explained) => explained.text().in_lang(lang).to_owned(),
        None => cause.to_string(),
    };
    for cause in error.chain().map(worded) {
        // Some errors quote their cause themselves.
        if told.last().is_some_and(|before| before.ends_with(&cause)) {
            continue;
        }
        told.push(cause);
    }
    for text in &mut told {
        // It may stand behind the place that it is about.
        if let Some((english, translated)) = &refusal {
            *text = text.replace(english, translated);
        }
    }
    told.extend(kind(error).and_then(|kind| words.remedy(kind)).map(str::to_owned));
    told.join(": ")
}

/// What the operating system objected to, whoever reported it.
fn kind(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error.chain().find_map(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        io.or_else(|| cause.downcast_ref::<rustix::io::Errno>().map(|errno| errno.kind()))
    })
}

#[cfg(test)]
mod tests;
