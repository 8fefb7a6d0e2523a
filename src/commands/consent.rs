//! Asking before something is changed that cannot be changed back by itself.

use std::io::{self, IsTerminal};

use anyhow::{Context, bail};

use crate::cli::Changing;
use crate::refusal::Refusal;
use crate::report::Reporter;

/// Goes on with `--yes`, or if somebody at the terminal says so. Where nobody can be asked, `--yes` is
/// required: a script that was not meant to change anything does not.
pub(super) fn agreed(reporter: &Reporter, changing: &Changing, question: &str) -> anyhow::Result<()> {
    if changing.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(
            Refusal::Usage(format!("{question} there is no terminal to ask at; confirm with --yes").into()).into()
        );
    }
    ask(reporter, question)
}

/// Asks whoever sits at the terminal.
pub(super) fn ask(reporter: &Reporter, question: &str) -> anyhow::Result<()> {
    reporter.ask(&format!("{question} [y/N]"));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("aborted; nothing was changed");
    }
    Ok(())
}
