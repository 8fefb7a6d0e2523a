//! The subcommands: open, call, report. `surroundings.rs` has clocks, account and state, `past.rs` the tables of runs and
//! changes, `consent.rs` the questions, `signals.rs` the signals, `redaction.rs` secrets in messages of usage.

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::cli::{self, Cli, Command, Common};
use crate::config;
use crate::lang;
use crate::panics;
use crate::report::{self, Reporter};

mod consent;
mod demo;
mod history;
mod legacy;
mod past;
mod redaction;
mod run;
mod signals;
mod state;
mod status;
mod surroundings;
mod verify;
mod why;

/// Runs the program. Everything that goes wrong ends here, in one line.
pub fn main() -> ExitCode {
    panics::hush(config::variable);
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, matches))
    });
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are "errors" too. If even they cannot be printed, nothing can.
            let error = redaction::redacted(error);
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let reporter = Reporter::new(report_settings(&cli.common));
    match panics::as_error(|| dispatch(&cli, &matches, &reporter)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            reporter.error(&error);
            ExitCode::from(report::exit_code(&error))
        }
    }
}

/// Runs the subcommand and returns its exit code.
fn dispatch(cli: &Cli, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    // clap hands the flags that every command knows down to the command's own matches.
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    config::refuse_password_on_command_line(&cli.common, matches)?;
    match &cli.command {
        Command::Run(args) => run::run(&cli.common, args, matches, reporter),
        Command::Status(args) => status::run(&cli.common, args, matches, reporter),
        Command::History(args) => history::run(&cli.common, args, reporter),
        Command::Why(args) => why::run(&cli.common, args, matches, reporter),
        Command::Verify(args) => verify::run(&cli.common, args, matches, reporter),
        Command::State(command) => state::run(&cli.common, command, matches, reporter),
        Command::ImportLegacyState(args) => legacy::import(&cli.common, args, reporter),
        Command::ExportLegacyState(args) => legacy::export(&cli.common, args, reporter),
        Command::Demo(args) => demo::run(args, reporter),
    }
}

/// How to print, as flags and locale say.
fn report_settings(common: &Common) -> report::PrintSettings {
    let locale = || {
        let variable = |name| config::variable(name);
        lang::Lang::from_locale(
            variable("LC_ALL").as_deref(),
            variable("LC_MESSAGES").as_deref(),
            variable("LANG").as_deref(),
        )
    };
    report::PrintSettings {
        lang: common.lang.unwrap_or_else(locale),
        zone: surroundings::own_zone(common),
        format: match common.format {
            cli::Format::Text | cli::Format::Table => report::PrintFormat::Text,
            cli::Format::Json => report::PrintFormat::Json,
            cli::Format::Csv => report::PrintFormat::Csv,
        },
        verbosity: match (common.quiet, common.verbose) {
            (true, _) => report::Verbosity::Quiet,
            (_, true) => report::Verbosity::Verbose,
            _ => report::Verbosity::Normal,
        },
        progress: if common.no_progress { report::ProgressDisplay::Never } else { report::ProgressDisplay::Auto },
    }
}
