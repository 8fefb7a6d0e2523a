//! The only printer of the program: events become bars, lines or JSON, errors a line and a hint.
//!
//! It knows the vocabulary and nothing else: never the source, the tree or the state. Results go to
//! stdout; progress, log lines and errors to stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::event::{Event, Notice};
use crate::lang::{Lang, Message, Text};
use crate::refusal::Refusal;
use crate::run::Summary;

mod bars;
mod closing;
pub mod counts;
mod json;
mod line;
mod lines;
mod notices;
mod settings;
pub mod table;

pub use settings::{Locale, PrintFormat, PrintSettings, ProgressDisplay, Verbosity};

use bars::Bars;
use line::{Level, Line, escaped};
use lines::Lines;
use table::{Columns, Details, Paged, Table};

/// The exit code of a command with a result that could not be written.
const RESULT_LOST: u8 = 1;

/// Between two lines of progress where there is no bar.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// The printer. Threads may share it; what one call prints stays together.
pub struct Reporter {
    printer: Mutex<Printer>,
}

struct Printer {
    lang: Lang,
    locale: Locale,
    format: PrintFormat,
    verbosity: Verbosity,
    lines: Lines,
    bars: Option<Bars>,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// With JSON there is exactly one object on stdout, also when a run that was summed up fails.
    object_printed: bool,
    result: ResultStream,
}

/// What has become of stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResultStream {
    Open,
    /// A reader that closed the pipe has read enough.
    Closed,
    /// A part of the result is lost.
    Failed,
}

impl Reporter {
    /// Prints to the process's stdout and stderr.
    pub fn new(settings: PrintSettings) -> Self {
        let is_watched = io::stderr().is_terminal();
        let settings = PrintSettings { patience: settings.patience.filter(|_| is_watched), ..settings };
        let wanted = settings.progress == ProgressDisplay::Auto && settings.verbosity != Verbosity::Quiet;
        let bars = (wanted && is_watched).then(|| Bars::on_stderr(settings.lang));
        Self::build(settings, bars, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// Prints to these writers as to files, without a bar.
    pub fn to_writers(settings: PrintSettings, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self::build(settings, None, out, err)
    }

    /// `bars` is None where lines of progress take its place.
    fn build(
        settings: PrintSettings,
        bars: Option<Bars>,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
    ) -> Self {
        let as_lines = settings.progress == ProgressDisplay::Auto && bars.is_none();
        let lines = Lines::new(settings.verbosity, as_lines.then_some(PROGRESS_EVERY), settings.patience);
        let (PrintSettings { lang, format, verbosity, .. }, locale) = (settings, settings.locale());
        let printer = Printer {
            lang,
            locale,
            format,
            verbosity,
            lines,
            bars,
            out,
            err,
            object_printed: false,
            result: ResultStream::Open,
        };
        Self { printer: Mutex::new(printer) }
    }

    /// Prints what an event says; with the last one of a run also the closing block.
    pub fn event(&self, event: &Event) {
        self.printer().event(event, Instant::now());
    }

    /// Prints the error that ended the command, after the lines that were still held back.
    pub fn error(&self, error: &anyhow::Error) {
        self.printer().error(error);
    }

    /// Prints one of several things that are wrong; the one that ends the command goes to `error`.
    pub fn problem(&self, message: impl Into<Message>) {
        self.printer().log(&[Line::new(Level::Error, message)]);
    }

    /// A result in plain words, without a prefix. With JSON it goes to stderr, because stdout
    /// belongs to the one object.
    pub fn line(&self, text: &Text) {
        let mut printer = self.printer();
        let text: String = text.in_lang(printer.lang).split('\n').map(|line| escaped(line) + "\n").collect();
        match printer.format {
            PrintFormat::Text => printer.print_out(&text),
            PrintFormat::Json | PrintFormat::Csv => printer.print_err(&text),
        }
    }

    /// The exit code of a command that ends with this one: a result that is lost is a failure.
    pub fn exit_code(&self, code: u8) -> u8 {
        if self.printer().result == ResultStream::Failed { RESULT_LOST } else { code }
    }

    /// Whether more of the result would still be read.
    pub fn is_read(&self) -> bool {
        self.printer().result == ResultStream::Open
    }

    /// What a command says of a change that it made: with `-q` it says it to programs alone.
    pub fn changed(&self, details: &Details) {
        if !self.is_quiet() || !self.prints_text() {
            self.details(details);
        }
    }

    /// The same in plain words, for people.
    pub fn remark(&self, text: &Text) {
        if !self.is_quiet() {
            self.line(text);
        }
    }

    fn is_quiet(&self) -> bool {
        self.printer().verbosity == Verbosity::Quiet
    }

    /// A result with rows.
    pub fn table(&self, table: &Table) {
        let mut printer = self.printer();
        let text = match printer.format {
            PrintFormat::Text => table.text(printer.locale),
            PrintFormat::Json => json::value(&table.json()) + "\n",
            PrintFormat::Csv => table.csv(),
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
            let Printer { format, locale, .. } = *printer;
            printer.object_printed = true;
            if rows.is_empty() || printer.result != ResultStream::Open {
                printer.print_out(&paged.end(format, locale));
                return Ok(());
            }
            printer.print_out(&paged.page(format, locale, &rows));
        }
    }

    /// Whether stdout is text for people, not JSON or CSV for programs.
    pub fn prints_text(&self) -> bool {
        self.printer().format == PrintFormat::Text
    }

    /// A line of the log with what led to it.
    pub fn notice(&self, notice: &Notice, cause: &anyhow::Error) {
        let Line { level, message: Message { what: text, .. } } = notices::line(notice);
        let Message { what, hint } = Message::from(cause);
        let what = text!("{text}: {what}", "{text}: {what}"; text, what);
        self.printer().log(&[Line::new(level, Message { what, hint })]);
    }

    /// A result about one thing. As CSV it is its first table.
    pub fn details(&self, details: &Details) {
        let mut printer = self.printer();
        let text = match printer.format {
            PrintFormat::Text => details.text(printer.locale),
            PrintFormat::Json => json::value(&details.json()) + "\n",
            PrintFormat::Csv => details.csv(),
        };
        printer.object_printed = true;
        printer.print_out(&text);
    }

    /// Results about several things, with a blank line between them; as JSON an array.
    pub fn each(&self, results: &[Details]) {
        let mut printer = self.printer();
        let text = match printer.format {
            PrintFormat::Text | PrintFormat::Csv => {
                results.iter().map(|result| result.text(printer.locale)).collect::<Vec<_>>().join("\n")
            }
            PrintFormat::Json => json::value(&results.iter().map(Details::json).collect()) + "\n",
        };
        printer.object_printed = true;
        printer.print_out(&text);
    }

    /// A question at the terminal; the answer follows on the same line.
    pub fn ask(&self, question: &Text) {
        let mut printer = self.printer();
        let question = escaped(question.in_lang(printer.lang));
        printer.print_err(&format!("{question} "));
    }

    /// Something the operator should know, though the command goes on.
    pub fn warn(&self, message: impl Into<Message>) {
        self.printer().log(&[Line::warn(message)]);
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
    /// Moves the bar before it prints, so that the bar is redrawn below the lines.
    fn event(&mut self, event: &Event, now: Instant) {
        let lines = self.lines.event(event, now);
        if let Some(bars) = &self.bars {
            bars.event(event);
        }
        self.log(&lines);
        if let Event::Finished(summary) = event {
            self.finished(summary);
        }
    }

    /// Prints the result of a run to stdout. All that is wrong was said before. As text it is the end of the log: a run
    /// that nobody reads of is done all the same.
    fn finished(&mut self, summary: &Summary) {
        let changed = summary.run.is_some();
        match self.format {
            PrintFormat::Json => {
                self.object_printed = true;
                self.print_out(&(json::finished(summary) + "\n"));
            }
            PrintFormat::Text if changed && self.verbosity == Verbosity::Quiet => {}
            PrintFormat::Text | PrintFormat::Csv => {
                let text = block(&closing::closing(summary, self.verbosity), self.lang);
                // What a run has changed stands; a dry run has nothing but its answer.
                if !changed {
                    self.print_out(&text);
                } else if let Err(error) = self.write_out(text.as_bytes()) {
                    let text = text!("cannot write to standard output: {error}", "无法写入标准输出: {error}");
                    self.log(&[Line::warn(text)]);
                }
            }
        }
    }

    fn error(&mut self, error: &anyhow::Error) {
        if let Some(bars) = &self.bars {
            bars.clear();
        }
        let message = Message::from(error);
        let mut lines = self.lines.remaining();
        lines.push(Line::new(Level::Error, message.clone()));
        self.log(&lines);
        if self.format == PrintFormat::Json && !self.object_printed {
            self.object_printed = true;
            self.print_out(&(json::failed(&message, exit_code(error)) + "\n"));
        }
    }

    /// Prints lines of the log to stderr.
    fn log(&mut self, lines: &[Line]) {
        self.print_err(&block(lines, self.lang));
    }

    fn print_out(&mut self, text: &str) {
        self.print_bytes(text.as_bytes());
    }

    /// Prints to stdout at once, and says on stderr if that is not possible.
    fn print_bytes(&mut self, bytes: &[u8]) {
        if let Err(error) = self.write_out(bytes) {
            self.result_lost(&error);
        }
    }

    /// Writes to stdout until that fails, or is not read any more.
    fn write_out(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.result != ResultStream::Open {
            return Ok(());
        }
        let Self { bars, out, .. } = self;
        let mut written = Ok(());
        above(bars.as_ref(), || written = out.write_all(bytes).and_then(|()| out.flush()));
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.result = ResultStream::Closed;
                Ok(())
            }
            written => written,
        }
    }

    fn result_lost(&mut self, error: &io::Error) {
        self.result = ResultStream::Failed;
        let lost = message! {
            "cannot write the result to standard output: {error}", "无法将结果写入标准输出: {error}";
            "ask again with another place for it; a change that was made stands",
            "请换一个输出位置重新查询；已做的更改仍然有效"
        };
        self.log(&[Line::new(Level::Error, lost)]);
    }

    fn print_err(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let Self { bars, err, .. } = self;
        above(bars.as_ref(), || put(err, text));
    }
}

/// Prints while the bar is out of the way.
fn above(bars: Option<&Bars>, print: impl FnOnce()) {
    match bars {
        Some(bars) => bars.above(print),
        None => print(),
    }
}

/// When the log itself cannot be written, there is nowhere left to say so, and an export must not
/// end for want of a reader.
fn put(err: &mut impl Write, text: &str) {
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Prints clap's answer, which is help, the version or an error, and returns the exit code.
pub fn print_answer(answer: &clap::Error, lang: Lang) -> u8 {
    let code = u8::try_from(answer.exit_code()).unwrap_or(2);
    match answer.print().and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe && !answer.use_stderr() => {
            let reporter = Reporter::new(PrintSettings::plain(lang));
            reporter.printer().result_lost(&error);
            reporter.exit_code(code)
        }
        _ => code,
    }
}

/// The lines as text, each with its line break.
fn block(lines: &[Line], lang: Lang) -> String {
    lines.iter().map(|line| line.render(lang)).collect()
}

/// The exit code of a command that ended with this error: that of the first refusal in its chain, else 1.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(|cause| cause.downcast_ref::<Refusal>()).map_or(1, Refusal::exit_code)
}

/// An error with what led to it, as part of a result.
pub fn error_text(error: &anyhow::Error) -> Text {
    Message::from(error).into()
}

#[cfg(test)]
mod tests;
