//! The subcommands: open, call, report. `surroundings.rs` has clocks, account and state, `past.rs` the tables of runs and
//! changes, `consent.rs` the questions, `signals.rs` the signals, `redaction.rs` secrets in messages of usage.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::cli::{self, Cli, Command};
use crate::config;
use crate::lang;
use crate::panics;
use crate::refusal::Refusal;
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
mod totals;
mod verify;
mod why;

/// Runs the program. Everything that goes wrong ends here, in one line.
pub fn main() -> ExitCode {
    panics::hush(config::variable);
    signals::survive_size_limit();
    let (cli, matches) = match parse() {
        Ok(parsed) => parsed,
        Err(error) => return ExitCode::from(refused(redaction::redacted(error))),
    };
    let reporter = Reporter::new(report_settings(&cli));
    config::unknown_variables(&Cli::command()).into_iter().for_each(|unknown| reporter.warn(unknown));
    match panics::as_error(|| dispatch(&cli, &matches, &reporter)) {
        Ok(code) => ExitCode::from(reporter.exit_code(code)),
        Err(error) => {
            reporter.error(&error);
            ExitCode::from(report::exit_code(&error))
        }
    }
}

/// The command line, with the variables that are set.
fn parse() -> Result<(Cli, ArgMatches), clap::Error> {
    let parsed = config::without_empty_variables(Cli::command()).try_get_matches();
    let matches = parsed.map_err(|error| match error.kind() {
        // Help names the empty variables too.
        ErrorKind::DisplayHelp => Cli::command().try_get_matches().err().unwrap_or(error),
        _ => error,
    })?;
    let cli = Cli::from_arg_matches(&matches)?;
    Ok((cli, matches))
}

/// Says what clap refuses, or the help that it was asked for, and returns the exit code.
fn refused(error: clap::Error) -> u8 {
    let lang = config::language().unwrap_or_else(locale);
    let Some(message) = config::wrong_value(&error) else { return report::print_answer(&error, lang) };
    let error = Refusal::usage(message);
    Reporter::new(report::PrintSettings::plain(lang)).error(&error);
    report::exit_code(&error)
}

/// The language of the locale.
fn locale() -> lang::Lang {
    let variable = |name| config::variable(name);
    lang::Lang::from_locale(
        variable("LC_ALL").as_deref(),
        variable("LC_MESSAGES").as_deref(),
        variable("LANG").as_deref(),
    )
}

/// Runs the subcommand and returns its exit code.
fn dispatch(cli: &Cli, matches: &ArgMatches, reporter: &Reporter) -> anyhow::Result<u8> {
    // clap hands the flags that every command knows down to the command's own matches.
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    config::refuse_password_on_command_line(&cli.common, matches)?;
    config::refuse_other_than_folders(&cli.common, matches)?;
    match &cli.command {
        Command::Run(args) => run::run(&cli.common, args, matches, reporter),
        Command::Status(args) => status::run(&cli.common, args, matches, reporter),
        Command::History(args) => history::run(&cli.common, args, reporter),
        Command::Why(args) => why::run(&cli.common, args, matches, reporter),
        Command::Verify(args) => verify::run(&cli.common, args, matches, reporter),
        Command::State(command) => state::run(&cli.common, command, matches, reporter),
        Command::ImportLegacyState(args) => legacy::import(&cli.common, args, reporter),
        Command::ExportLegacyState(args) => legacy::export(&cli.common, args, reporter),
        Command::Demo(args) => demo::run(&cli.common, args, reporter),
    }
}

/// How to print, as flags and locale say.
fn report_settings(cli: &Cli) -> report::PrintSettings {
    let common = &cli.common;
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
        patience: cli.command.retry_for(),
    }
}
