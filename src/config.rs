//! Settings: flags over variables over defaults, checked together. The only reader of the
//! environment.
//!
//! A password never comes from the command line, where every user of the machine can read it.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use clap::parser::ValueSource;

use self::option_file::Login;
use crate::cli::{self, Common, Mode, Names, Run, Verify, Work};
use crate::export::plan::StatePolicy;
use crate::export::verify::{Against, ContentCheck, Leftovers, Prune, PruneOrder, Repair, Task, WithSource};
use crate::export::{
    self, Backups, CommonOptions, ExportOptions, Margins, Mirror, Paths, Rejects, SourceOptions, Surroundings,
    WorkOptions,
};
use crate::fs::input::read_input;
use crate::fs::private::PRIVATE;
use crate::invoice::{SourceTime, Tenant};
use crate::lang::Explain;
use crate::refusal::{AddressFault, Refusal};
use crate::run::Kind;
use crate::source::{self, Access, Address, TableNames, Tls};
use crate::state::legacy;
use crate::state::selection::Selection;
use crate::window::moment as real_moment;

mod option_file;

/// The name of the state's file in the state folder.
const STATE_FILE: &str = "state.db";

/// A variable of the environment; None if it is unset, empty or not UTF-8.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The options of one `run`.
pub fn export_options(
    common: &Common,
    run: &Run,
    matches: &ArgMatches,
    surroundings: Surroundings,
) -> anyhow::Result<ExportOptions> {
    let selection = selection(&run.tenant, &run.since, &run.until)?;
    let kind = kind(run, matches, &selection)?;
    let mode = if run.dry_run || dry_run_variable()? { export::Mode::DryRun } else { export::Mode::Export };
    Ok(ExportOptions {
        source: source_options(common, &run.names, &run.work, matches)?,
        common: CommonOptions {
            kind,
            paths: paths(common),
            policy: match (run.fresh, run.require_state) {
                (true, _) => StatePolicy::Fresh,
                (_, true) => StatePolicy::Required,
                _ => StatePolicy::Ordinary,
            },
            selection,
            margins: margins(&run.margins),
            work: work_options(&run.work),
            rejects: if run.strict { Rejects::FailTheirTenant } else { Rejects::Kept },
            surroundings,
        },
        mode,
        backups: Backups {
            every: Some(run.backup_every).filter(|every| !every.is_zero()),
            keep: usize::from(run.keep_backups),
        },
        mirror: if run.mirror_legacy_state { Mirror::On } else { Mirror::Off },
    })
}

/// What one `verify` compares and mends.
pub fn verification(
    common: &Common,
    args: &Verify,
    matches: &ArgMatches,
    surroundings: Surroundings,
) -> anyhow::Result<Task> {
    let selection = selection(&args.tenant, &args.since, &args.until)?;
    let against = match (args.against_source, args.documents) {
        (_, true) => Against::Documents,
        (true, _) => Against::Keys,
        _ => Against::Ledger,
    };
    let repair = if args.repair { Repair::Yes } else { Repair::No };
    let leftovers = if args.prune_leftovers { Leftovers::Removed } else { Leftovers::Kept };
    let prune = if args.prune { Prune::Yes(PruneOrder { at_most: args.prune_up_to, leftovers }) } else { Prune::No };
    let needs_source = against != Against::Ledger || repair == Repair::Yes;
    let source = needs_source.then(|| source_options(common, &args.names, &args.work, matches)).transpose()?;
    Ok(Task {
        common: CommonOptions {
            kind: Kind::Verify,
            paths: paths(common),
            policy: StatePolicy::Required,
            selection,
            margins: margins(&args.margins),
            work: work_options(&args.work),
            rejects: Rejects::Kept,
            surroundings,
        },
        content: if args.hash { ContentCheck::ByHash } else { ContentCheck::BySize },
        shown: if args.limit == 0 { usize::MAX } else { args.limit as usize },
        with_source: source.map(|source| WithSource { source, against, repair, prune }),
    })
}

/// The source of a command that reads documents.
fn source_options(common: &Common, names: &Names, work: &Work, matches: &ArgMatches) -> anyhow::Result<SourceOptions> {
    let access = access(common, names, matches)?;
    let access = Access { max_document: work.documents.max_document.as_u64(), ..access };
    Ok(SourceOptions { access, retry_for: work.retry_for })
}

fn paths(common: &Common) -> Paths {
    Paths { output: common.output.clone(), state: state_path(common) }
}

fn margins(given: &cli::Margins) -> Margins {
    Margins { safety_lag: given.safety_lag, overlap: given.overlap }
}

fn work_options(work: &Work) -> WorkOptions {
    let Work { lock_wait, writers, durability, .. } = *work;
    WorkOptions { lock_wait, writers: usize::from(writers), durability }
}

/// The tenants and the window `(since, until]` that the command line names.
fn selection(tenants: &[String], since: &Option<String>, until: &Option<String>) -> anyhow::Result<Selection> {
    let time = |text: &Option<String>, flag| text.as_deref().map(|text| parsed_time(text, flag)).transpose();
    let (since, until) = (time(since, "--since")?, time(until, "--until")?);
    match (&since, &until) {
        (Some(since), Some(until)) if since >= until => Err(window_reversed(since, until)),
        _ => Ok(Selection { tenants: tenants.iter().cloned().map(Tenant).collect(), since, until }),
    }
}

/// The refusal of a window that ends before it begins.
pub fn window_reversed(since: &SourceTime, until: &SourceTime) -> anyhow::Error {
    Refusal::usage(text!("--since {since} is not before --until {until}", "--since {since} 不早于 --until {until}"))
}

/// Where the script kept its state file.
pub fn legacy_path(common: &Common) -> PathBuf {
    common.output.join(PRIVATE).join(legacy::FILE)
}

/// Where the state is: in `--state-dir`, otherwise in the output.
pub fn state_path(common: &Common) -> PathBuf {
    let folder = common.state_dir.clone().unwrap_or_else(|| common.output.join(PRIVATE));
    folder.join(STATE_FILE)
}

/// `EXPORT_MODE` is the script's variable. A window makes a backfill, which has no mode; a mode that
/// only a crontab's variable names does not stand in its way.
fn kind(run: &Run, matches: &ArgMatches, selection: &Selection) -> anyhow::Result<Kind> {
    if selection.has_window() {
        if matches.value_source("mode") == Some(ValueSource::CommandLine) {
            return Err(Refusal::usage(text!(
                "--since and --until export a window again and have no --mode",
                "--since 和 --until 用于重新导出一个区间，不能与 --mode 同时使用"
            )));
        }
        return Ok(Kind::Backfill);
    }
    let of_script = || match variable("EXPORT_MODE").as_deref() {
        None | Some("full") => Ok(Mode::Full),
        Some("incremental") => Ok(Mode::Incremental),
        Some(other) => Err(wrong_variable("EXPORT_MODE", other, ["full", "incremental"])),
    };
    Ok(match run.mode.map_or_else(of_script, Ok)? {
        Mode::Full => Kind::Full,
        Mode::Incremental => Kind::Incremental,
    })
}

/// `DRY_RUN` is the script's variable.
fn dry_run_variable() -> anyhow::Result<bool> {
    match variable("DRY_RUN").as_deref() {
        None | Some("false" | "0" | "no") => Ok(false),
        Some("true" | "1" | "yes") => Ok(true),
        Some(other) => Err(wrong_variable("DRY_RUN", other, ["true", "false"])),
    }
}

/// The time that a command requires.
pub fn required_time(text: &str) -> anyhow::Result<SourceTime> {
    parsed_time(text, "TIME")
}

/// A time as the server prints it, in whole seconds or with decimals; a day alone is its midnight.
fn parsed_time(text: &str, given_as: &'static str) -> anyhow::Result<SourceTime> {
    let spaced = text.replacen('T', " ", 1);
    let spaced = if spaced.len() == 10 { spaced + " 00:00:00" } else { spaced };
    Some(SourceTime(spaced)).filter(|time| real_moment(time).is_some()).ok_or_else(|| {
        Refusal::usage(message! {
            "{given_as} {text:?} is no time", "{given_as} {text:?} 不是时间";
            "write \"2025-11-28 10:00:00\" or \"2025-11-28\"", "请写成 \"2025-11-28 10:00:00\" 或 \"2025-11-28\""
        })
    })
}

/// Which end of a day a day alone stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DayEnd {
    First,
    Last,
}

/// A moment of our own clock in the format of the state: RFC 3339, UTC, whole seconds. The format of the history is
/// accepted too.
pub fn moment(text: Option<&str>, given_as: &'static str, day: DayEnd) -> anyhow::Result<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    let plain = text.strip_suffix('Z').unwrap_or(text);
    let SourceTime(time) = parsed_time(plain, given_as)?;
    Ok(Some(match day {
        DayEnd::Last if plain.len() == 10 => format!("{plain}T23:59:59Z"),
        DayEnd::First | DayEnd::Last => format!("{}Z", time[..19].replacen(' ', "T", 1)),
    }))
}

/// An empty variable counts as unset, as everywhere.
pub fn given_source(common: &Common) -> Option<&str> {
    common.source.as_deref().filter(|source| !source.is_empty())
}

/// Refuses a password on the command line, also for a command that asks no source: the command line is
/// recorded. A text that is not understood may hold one.
pub fn refuse_password_on_command_line(common: &Common, matches: &ArgMatches) -> anyhow::Result<()> {
    if std::env::args_os().any(|argument| source::holds_password(&argument.to_string_lossy())) {
        return Err(password_on_command_line());
    }
    if matches.value_source("source") != Some(ValueSource::CommandLine) {
        return Ok(());
    }
    let Some(text) = given_source(common) else { return Ok(()) };
    match address(text)? {
        (_, Some(_)) => Err(password_on_command_line()),
        _ => Ok(()),
    }
}

fn password_on_command_line() -> anyhow::Error {
    Refusal::usage(message! {
        "a password on the command line can be read by every user of this machine", "命令行上的密码会被本机所有用户看到";
        "use --password-file, --defaults-file or MYSQL_PWD",
        "请使用 --password-file、--defaults-file 或 MYSQL_PWD"
    })
}

/// The address in a text, and the password if it holds one.
fn address(text: &str) -> anyhow::Result<(Address, Option<String>)> {
    Address::parse(text).map_err(|fault: AddressFault| Refusal::usage(fault.message()))
}

/// How to reach the source that the command line names, to read no documents.
pub fn access(common: &Common, names: &Names, matches: &ArgMatches) -> anyhow::Result<Access> {
    let Some(text) = given_source(common) else {
        return Err(Refusal::usage(message! {
            "no source given", "没有指定数据源";
            "name it with --source or INVOICE_EXPORT_SOURCE, for example mysql://user@host:3306/database",
            "请用 --source 或 INVOICE_EXPORT_SOURCE 指定，例如 mysql://user@host:3306/database"
        }));
    };
    refuse_password_on_command_line(common, matches)?;
    let (mut url, from_url) = address(text)?;
    let login = common.defaults_file.as_deref().map(Login::read).transpose()?.unwrap_or_default();
    if let Some(user) = login.user {
        url.set_missing_user(user);
    }
    let password = match &common.password_file {
        Some(file) => Some(first_line(file)?),
        None => login.password.or_else(|| variable("MYSQL_PWD")).or(from_url),
    };
    let tls = Tls {
        mode: common.ssl_mode,
        ca: common.ssl_ca.clone(),
        server_key: common.server_public_key.clone().or(login.server_public_key.map(PathBuf::from)),
    };
    let (names, time_zone) = (table_names(names), names.time_zone.clone());
    Ok(Access { url, password, names, time_zone, tls, read_timeout: common.read_timeout, max_document: 0 })
}

fn table_names(names: &Names) -> TableNames {
    TableNames {
        table: names.table.clone(),
        tenant: names.tenant_column.clone(),
        country: names.country_column.clone(),
        date: names.date_column.clone(),
        number: names.number_column.clone(),
        status: names.status_column.clone(),
        document: names.document_column.clone(),
        time: names.time_column.clone(),
        id: names.id_column.clone(),
        issued: names.issued_status.clone(),
    }
}

/// The password in a file is its first line.
fn first_line(file: &Path) -> anyhow::Result<String> {
    // A password may have been given in the place of its file.
    let cannot = || {
        text!(
            "cannot read the file that --password-file or INVOICE_EXPORT_PASSWORD_FILE names",
            "无法读取 --password-file 或 INVOICE_EXPORT_PASSWORD_FILE 指定的文件"
        )
    };
    let text = String::from_utf8(read_input(file).explain(cannot)?).explain(cannot)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn wrong_variable(name: &str, value: &str, [one, other]: [&str; 2]) -> anyhow::Error {
    Refusal::usage(text!(
        "{name} is {value:?}; it can be {one} or {other}",
        "{name} 的值是 {value:?}，只能是 {one} 或 {other}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_its_midnight_and_decimals_are_kept() {
        let parsed = |text| parsed_time(text, "--since").unwrap().0;
        assert_eq!(parsed("2025-11-28"), "2025-11-28 00:00:00");
        assert_eq!(parsed("2025-11-28T10:00:00.125"), "2025-11-28 10:00:00.125");
        for wrong in [
            "yesterday",
            "2025-13-01",
            "2025-11-28 10",
            "2025-11-28 25:00:00",
            "2025-1-2",
            // chrono takes all of these, and the state cannot compare them.
            "2025-1-2 10:00:00.5",
            "2025-11-28  10:00:00",
            "+2025-01-02 10:00:00",
            "0000-01-01 00:00:00",
            "2025-11-28 10:00:60",
        ] {
            assert!(parsed_time(wrong, "--since").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_moment_is_what_the_state_has() {
        let of = |text, day| moment(Some(text), "--until", day).unwrap().unwrap();
        assert_eq!(of("2025-11-28", DayEnd::First), "2025-11-28T00:00:00Z");
        assert_eq!(of("2025-11-28", DayEnd::Last), "2025-11-28T23:59:59Z");
        for text in ["2025-11-28 10:00:00", "2025-11-28T10:00:00Z", "2025-11-28 10:00:00.999"] {
            assert_eq!(of(text, DayEnd::Last), "2025-11-28T10:00:00Z");
        }
        assert!(moment(Some("Z"), "--until", DayEnd::Last).is_err());
    }
}
