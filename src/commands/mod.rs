//! The subcommands: open, call, report. `arguments.rs` reads what must be known before clap does, `surroundings.rs` has clocks, account and state, `past.rs` the tables of runs and
//! changes, `consent.rs` the questions, `signals.rs` the signals, `redaction.rs` secrets in messages of usage.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::cli::{self, Cli, Command};
use crate::config::{self, ConfigFile};
use crate::lang::Lang;
use crate::panics;
use crate::refusal::Refusal;
use crate::report::{self, PrintFormat, Reporter};

mod arguments;
mod configuration;
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
mod usage;
mod verify;
mod why;

/// Runs the program. Everything that goes wrong ends here, in one line.
pub fn main() -> ExitCode {
    panics::hush(config::variable);
    signals::survive_size_limit();
    let arguments: Vec<String> = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let (command, file) = match configured(&arguments) {
        Ok(configured) => configured,
        Err(error) => return ExitCode::from(refused_configuration(&error, &arguments)),
    };
    let (cli, matches) = match parse(command) {
        Ok(parsed) => parsed,
        Err(error) => return ExitCode::from(refused(error, &arguments, file.as_ref())),
    };
    let reporter = Reporter::new(report_settings(&cli));
    config::unknown_variables(&Cli::command()).into_iter().for_each(|unknown| reporter.warn(unknown));
    match panics::as_error(|| dispatch(&cli, &matches, file.as_ref(), &reporter)) {
        Ok(code) => ExitCode::from(reporter.exit_code(code)),
        Err(error) => {
            reporter.error(&error);
            ExitCode::from(report::exit_code(&error))
        }
    }
}

/// The command line with the settings of its configuration.
fn configured(arguments: &[String]) -> anyhow::Result<(clap::Command, Option<ConfigFile>)> {
    let file = arguments::configuration(arguments)?;
    let command = match &file {
        Some(file) => config::with_settings(Cli::command(), file)?,
        None => Cli::command(),
    };
    Ok((command, file))
}

/// Says what is wrong with the configuration, unless help was asked for, and returns the exit code.
fn refused_configuration(error: &anyhow::Error, arguments: &[String]) -> u8 {
    match parse(Cli::command()) {
        Err(help) if !help.use_stderr() => return refused(help, arguments, None),
        _ => {}
    }
    let (lang, format) = (arguments::lang(arguments, None), arguments::format(arguments, None));
    Reporter::new(report::PrintSettings { format, ..report::PrintSettings::plain(lang) }).error(error);
    report::exit_code(error)
}

/// The command line, with the variables that are set.
fn parse(command: clap::Command) -> Result<(Cli, ArgMatches), clap::Error> {
    let matches = config::without_empty_variables(command).try_get_matches()?;
    let cli = Cli::from_arg_matches(&matches)?;
    Ok((cli, matches))
}

/// The help of the language, which names the empty variables too; another error as it is.
fn in_lang(error: clap::Error, lang: Lang) -> clap::Error {
    if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
        return error;
    }
    let help = match lang {
        Lang::En => Cli::command().try_get_matches().err(),
        Lang::Zh => cli::in_chinese(Cli::command()).try_get_matches_from(by_flag(env::args_os().collect())).err(),
    };
    help.filter(|help| help.kind() == error.kind()).unwrap_or(error)
}

/// `help state set` as `state set --help`.
fn by_flag(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if let Some(help) = arguments.iter().position(|argument| argument == "help") {
        arguments.remove(help);
        arguments.push("--help".into());
    }
    arguments
}

/// Says what clap refuses, or the help that it was asked for, and returns the exit code. With JSON a refusal is one
/// object, too.
fn refused(error: clap::Error, arguments: &[String], file: Option<&ConfigFile>) -> u8 {
    let (lang, format) = (arguments::lang(arguments, file), arguments::format(arguments, file));
    let error = redaction::redacted(in_lang(error, lang), lang);
    let is_help = !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let worded = format == PrintFormat::Json && error.use_stderr() || lang == Lang::Zh && !is_help;
    let message = config::wrong_value(&error).or_else(|| worded.then(|| usage::message(&error)));
    let Some(message) = message else { return report::print_answer(&error, lang) };
    let error = Refusal::usage(message);
    Reporter::new(report::PrintSettings { format, ..report::PrintSettings::plain(lang) }).error(&error);
    report::exit_code(&error)
}

/// Runs the subcommand and returns its exit code.
fn dispatch(cli: &Cli, matches: &ArgMatches, file: Option<&ConfigFile>, reporter: &Reporter) -> anyhow::Result<u8> {
    // clap hands the flags that every command knows down to the command's own matches.
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    config::refuse_password_on_command_line(&cli.common, matches)?;
    config::refuse_other_than_folders(&cli.common, matches)?;
    refuse_csv_of_no_rows(cli)?;
    match &cli.command {
        Command::Run(args) => run::run(&cli.common, args, matches, reporter),
        Command::Status(args) => status::run(&cli.common, args, matches, reporter),
        Command::History(args) => history::run(&cli.common, args, reporter),
        Command::Why(args) => why::run(&cli.common, args, matches, reporter),
        Command::Verify(args) => verify::run(&cli.common, args, matches, reporter),
        Command::State(command) => state::run(&cli.common, command, matches, reporter),
        Command::ImportLegacyState(args) => legacy::import(&cli.common, args, reporter),
        Command::ExportLegacyState(args) => legacy::export(&cli.common, args, reporter),
        Command::Config(command) => {
            let lang = cli.common.lang.unwrap_or_else(arguments::locale);
            configuration::run(command, file, matches, lang, reporter)
        }
        Command::Demo(args) => demo::run(&cli.common, args, reporter),
    }
}

/// Refuses CSV of a command with an answer without rows.
fn refuse_csv_of_no_rows(cli: &Cli) -> anyhow::Result<()> {
    if cli.common.format != cli::Format::Csv || cli.command.has_rows() {
        return Ok(());
    }
    Err(Refusal::usage(message! {
        "this command has no rows to print as CSV", "此命令的结果没有行，不支持 CSV 格式";
        "use --format text (or table) or --format json", "请用 --format text（或 table）或 --format json"
    }))
}

/// How to print, as flags and locale say.
fn report_settings(cli: &Cli) -> report::PrintSettings {
    let common = &cli.common;
    report::PrintSettings {
        lang: common.lang.unwrap_or_else(arguments::locale),
        zone: surroundings::own_zone(common),
        format: match common.format {
            cli::Format::Text | cli::Format::Table => report::PrintFormat::Text,
            cli::Format::Json => report::PrintFormat::Json,
            cli::Format::Csv => report::PrintFormat::Csv,
        },
        verbosity: match (common.quiet, common.verbose) {
            // The flags exclude each other: then the file says the other one.
            (_, true) => report::Verbosity::Verbose,
            (true, _) => report::Verbosity::Quiet,
            _ => report::Verbosity::Normal,
        },
        progress: if common.no_progress { report::ProgressDisplay::Never } else { report::ProgressDisplay::Auto },
        patience: cli.command.retry_for(),
    }
}
