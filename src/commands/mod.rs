//! One short file per subcommand: open, call, report. Here also the few things that come from outside:
//! the clock, and who we are.

use std::process::ExitCode;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use rustix::time::{ClockId, clock_gettime};

use crate::cli::{self, Cli, Command, Common};
use crate::config;
use crate::lang;
use crate::panics;
use crate::refusal::Refusal;
use crate::report::{self, Reporter};
use crate::run::{OwnClocks, Starter, Uptime};
use crate::state::State;

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
fn report_settings(common: &Common) -> report::Settings {
    let locale = || {
        let variable = |name| config::variable(name);
        lang::Lang::from_locale(
            variable("LC_ALL").as_deref(),
            variable("LC_MESSAGES").as_deref(),
            variable("LANG").as_deref(),
        )
    };
    report::Settings {
        lang: common.lang.unwrap_or_else(locale),
        format: match common.format {
            cli::Format::Text | cli::Format::Table => report::Format::Text,
            cli::Format::Json => report::Format::Json,
            cli::Format::Csv => report::Format::Csv,
        },
        verbosity: match (common.quiet, common.verbose) {
            (true, _) => report::Verbosity::Quiet,
            (_, true) => report::Verbosity::Verbose,
            _ => report::Verbosity::Normal,
        },
        progress: if common.no_progress { report::Progress::Never } else { report::Progress::Auto },
    }
}

/// The clock of this machine.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
fn now() -> DateTime<Utc> {
    // `Utc::now` panics where the clock shows a time before 1970.
    SystemTime::now().into()
}

const OWN_CLOCKS: OwnClocks = OwnClocks { now, uptime };

/// How long this machine has been up.
fn uptime() -> Option<Uptime> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let since = clock_gettime(ClockId::Boottime);
    (!boot.is_empty()).then_some(Uptime { boot, ms: since.tv_sec * 1000 + since.tv_nsec / 1_000_000 })
}

/// Who runs this. Cron sets LOGNAME; where nothing is set the number of the user is better than
/// nothing.
fn starter() -> Starter {
    let user = ["LOGNAME", "USER"].into_iter().find_map(config::variable);
    Starter {
        user: user.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string()),
        host: host(),
        pid: std::process::id(),
        command_line: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "),
        at: now(),
    }
}

/// The name of this machine.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The state, only to be read.
fn open_read_only(common: &Common) -> anyhow::Result<State> {
    let path = config::state_path(common);
    State::open_read_only(&path)?.ok_or_else(|| Refusal::NoState { state: path }.into())
}
