//! Asking before something is changed that cannot be changed back by itself.

use std::io::{self, IsTerminal};
use std::thread;

use crossbeam_channel::bounded;

use crate::cli::Changing;
use crate::lang::{Explain, Lang, Text};
use crate::refusal::Refusal;
use crate::report::Reporter;
use crate::run::{CANCEL_CHECK_INTERVAL, Cancel};

/// Asks an operator at a terminal, unless `--yes` has answered already.
///
/// # Errors
/// The answer is no, or there is no terminal: a script that was not meant to change anything does not.
pub(super) fn ask_unless_agreed(reporter: &Reporter, changing: &Changing, question: &Text) -> anyhow::Result<()> {
    if changing.yes { Ok(()) } else { ask(reporter, question, "--yes", None) }
}

/// Asks an operator at a terminal. `flag` is what answers the question elsewhere.
///
/// # Errors
/// The answer is no, there is no terminal, or a signal came that asks to stop.
pub(super) fn ask(reporter: &Reporter, question: &Text, flag: &str, cancel: Option<&Cancel>) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        let asked = Text::new(
            question.in_lang(Lang::En).trim_end_matches('?'),
            question.in_lang(Lang::Zh).trim_end_matches('？'),
        );
        return Err(Refusal::usage(message! {
            "to {asked} needs a yes, and there is no terminal to ask at", "{asked}需要确认，但当前没有终端，无法询问";
            "add {flag}", "请加上 {flag}"; asked
        }));
    }
    reporter.ask(&text!("{question} [y/N]", "{question}[是（y）/否（N）]"; question));
    let answer = match cancel {
        Some(cancel) => read_line_until(cancel)?,
        None => read_line(),
    };
    let answer = answer.explain(|| text!("cannot read the answer", "无法读取回答"))?;
    if !matches!(answer.trim(), "y" | "Y" | "yes" | "是") {
        return Err(text!("aborted; nothing was changed", "已取消，没有做任何更改").into());
    }
    Ok(())
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).map(|_| line)
}

/// The line, which a thread of its own waits for: nothing wakes a read from a terminal.
fn read_line_until(cancel: &Cancel) -> anyhow::Result<io::Result<String>> {
    let (sender, lines) = bounded(1);
    thread::Builder::new()
        .spawn(move || sender.send(read_line()))
        .explain(|| text!("cannot read the answer", "无法读取回答"))?;
    loop {
        if let Ok(line) = lines.recv_timeout(CANCEL_CHECK_INTERVAL) {
            return Ok(line);
        }
        if let Some(signal) = cancel.signal() {
            return Err(Refusal::Cancelled { signal }.into());
        }
    }
}
