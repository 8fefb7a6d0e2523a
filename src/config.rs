//! The options of a command: flags come before variables, variables before defaults, and all are checked together.
//! This is the only reader of the environment (`variables.rs`).
//!
//! A password never comes from the command line, where every user of the machine can read it.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use clap::ArgMatches;
use clap::parser::ValueSource;

use self::option_file::Login;
use self::wrong_values::given_as;
use crate::cli::{self, Common, Mode, Names, Run, Verify, Work};
use crate::export::plan::StatePolicy;
use crate::export::verify::{Against, ContentCheck, Leftovers, Prune, PruneOrder, Repair, Task, WithSource};
use crate::export::{
    self, Backups, CommonOptions, ExportOptions, Margins, Mirror, Paths, Rejects, SourceOptions, Surroundings,
    WorkOptions, starts,
};
use crate::fs::private::PRIVATE;
use crate::given_time::GivenWindow;
use crate::invoice::Tenant;
use crate::lang::Message;
use crate::refusal::{AddressFault, Refusal};
use crate::run::Kind;
use crate::source::{self, Access, Address, SourceName, TableNames, Tls};
use crate::state::legacy;
use crate::state::selection::Selection;
use crate::window::Span;

mod file;
mod layer;
mod option_file;
mod origin;
mod password;
mod variables;
mod wrong_values;

pub use self::file::{COLUMN_SUFFIX, ConfigFile, places};
pub use self::layer::with_settings;
pub use self::origin::{EffectiveSetting, Origin, effective_settings, setting_options};
pub use self::variables::{set_variables, unknown_variables, variable, without_empty_variables};
pub use self::wrong_values::wrong_value;

/// The name of the state's file in the state folder.
const STATE_FILE: &str = "state.db";

/// The options of one `run`. Wrong usage that the command line alone shows is not on record; a start that fails when the
/// files of the password are read is.
pub fn export_options(
    common: &Common,
    run: &Run,
    matches: &ArgMatches,
    surroundings: Surroundings,
) -> anyhow::Result<ExportOptions> {
    let window = GivenWindow::of_source_times(run.since.as_deref(), run.until.as_deref())?;
    let selection = selection(&run.tenant, &window)?;
    let kind = kind(run, matches, &window)?;
    let mode = if run.dry_run || dry_run_variable()? { export::Mode::DryRun } else { export::Mode::Export };
    let (address, _) = source_address(common, matches)?;
    let options = CommonOptions {
        kind,
        paths: paths(common),
        source: Some(SourceName::new(&address, &run.names.table)),
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
    };
    let source = || source_options(common, &run.names, &run.work, matches);
    Ok(ExportOptions {
        window,
        source: match mode {
            export::Mode::Export => starts::on_record(&options, source)?,
            export::Mode::DryRun => source()?,
        },
        common: options,
        mode,
        backups: Backups {
            every: Some(run.backup_every).filter(|every| !every.is_zero()),
            keep: usize::from(run.keep_backups),
        },
        mirror: if run.mirror_legacy_state { Mirror::On } else { Mirror::Off },
    })
}

/// What one `verify` compares and mends. A start that fails is on record as that of a run is.
pub fn verification(
    common: &Common,
    args: &Verify,
    matches: &ArgMatches,
    surroundings: Surroundings,
) -> anyhow::Result<Task> {
    let window = GivenWindow::of_source_times(args.since.as_deref(), args.until.as_deref())?;
    let selection = selection(&args.tenant, &window)?;
    let against = match (args.against_source, args.documents) {
        (_, true) => Against::Documents,
        (true, _) => Against::Keys,
        _ => Against::Ledger,
    };
    let repair = if args.repair { Repair::Yes } else { Repair::No };
    let leftovers = if args.prune_leftovers { Leftovers::Removed } else { Leftovers::Kept };
    let prune = if args.prune { Prune::Yes(PruneOrder { at_most: args.prune_up_to, leftovers }) } else { Prune::No };
    let needs_source = against != Against::Ledger || repair == Repair::Yes;
    let address = needs_source.then(|| source_address(common, matches)).transpose()?;
    let options = CommonOptions {
        kind: Kind::Verify,
        paths: paths(common),
        source: address.map(|(address, _)| SourceName::new(&address, &args.names.table)),
        policy: StatePolicy::Required,
        selection,
        margins: margins(&args.margins),
        work: work_options(&args.work),
        rejects: Rejects::Kept,
        surroundings,
    };
    let source = || source_options(common, &args.names, &args.work, matches);
    let source = needs_source.then(|| starts::on_record(&options, source)).transpose()?;
    Ok(Task {
        window,
        common: options,
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
    Paths { output: common.output.clone(), state: state_path(common), mode: common.state_mode }
}

fn margins(given: &cli::Margins) -> Margins {
    Margins { safety_lag: given.safety_lag, overlap: given.overlap }
}

fn work_options(work: &Work) -> WorkOptions {
    let Work { lock_wait, writers, durability, .. } = *work;
    WorkOptions { lock_wait, writers: usize::from(writers), durability }
}

/// The tenants and the window that the command line names. A window by the source's clock is open until that is known.
fn selection(tenants: &[String], window: &GivenWindow) -> anyhow::Result<Selection> {
    let window = if window.needs_clock() { Span::default() } else { window.span()? };
    Ok(Selection { tenants: tenants.iter().cloned().map(Tenant).collect(), window })
}

/// Where the script kept its state file.
pub fn legacy_path(common: &Common) -> PathBuf {
    common.output.join(PRIVATE).join(legacy::FILE)
}

/// Refuses an output or a state folder that is something else than a folder.
pub fn refuse_other_than_folders(common: &Common, matches: &ArgMatches) -> anyhow::Result<()> {
    let given = [("output", Some(&common.output)), ("state_dir", common.state_dir.as_ref())];
    for (id, path) in given.into_iter().filter_map(|(id, path)| Some((id, path?))) {
        let is_other = match fs::metadata(path) {
            Ok(found) => !found.is_dir(),
            Err(error) => error.kind() == ErrorKind::NotADirectory,
        };
        if is_other {
            let name = given_as(matches, id);
            return Err(Refusal::usage(message! {
                "{name} is {path:?}, which is not a folder", "{name} 的值 {path:?} 不是目录";
                "name a folder, for example /srv/context; one that is missing is created",
                "请指定目录，例如 /srv/context；不存在时会自动创建"
            }));
        }
    }
    Ok(())
}

/// Where the state is: in `--state-dir`, otherwise in the output.
pub fn state_path(common: &Common) -> PathBuf {
    let folder = common.state_dir.clone().unwrap_or_else(|| common.output.join(PRIVATE));
    folder.join(STATE_FILE)
}

/// The kind of a run. A window makes it a backfill, which has no mode: one on the command line is refused, one in a
/// variable of a crontab is ignored. `EXPORT_MODE` is the script's variable.
fn kind(run: &Run, matches: &ArgMatches, window: &GivenWindow) -> anyhow::Result<Kind> {
    if !window.is_empty() {
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

/// Whether `DRY_RUN`, the script's variable, asks for a dry run.
fn dry_run_variable() -> anyhow::Result<bool> {
    match variable("DRY_RUN").as_deref() {
        None | Some("false" | "0" | "no") => Ok(false),
        Some("true" | "1" | "yes") => Ok(true),
        Some(other) => Err(wrong_variable("DRY_RUN", other, ["true", "false"])),
    }
}

/// The source that the command line or its variable names. An empty variable counts as unset.
pub fn given_source(common: &Common) -> Option<&str> {
    common.source.as_deref().filter(|source| !source.is_empty())
}

/// Refuses a password on the command line, which is recorded, also for a command that asks no source. A source that
/// cannot be parsed is refused too, since it may hold one.
pub fn refuse_password_on_command_line(common: &Common, matches: &ArgMatches) -> anyhow::Result<()> {
    if std::env::args_os().any(|argument| source::holds_password(&argument.to_string_lossy())) {
        return Err(password_on_command_line());
    }
    if matches.value_source("source") != Some(ValueSource::CommandLine) {
        return Ok(());
    }
    let Some(text) = given_source(common) else { return Ok(()) };
    match address(text, matches)? {
        (_, Some(_)) => Err(password_on_command_line()),
        _ => Ok(()),
    }
}

/// The refusal of a password on the command line.
fn password_on_command_line() -> anyhow::Error {
    Refusal::usage(message! {
        "a password on the command line can be read by every user of this machine", "命令行上的密码会被本机所有用户看到";
        "use --password-file, --defaults-file or MYSQL_PWD",
        "请使用 --password-file、--defaults-file 或 MYSQL_PWD"
    })
}

/// The address in the source that was given, and the password if it holds one.
fn address(text: &str, matches: &ArgMatches) -> anyhow::Result<(Address, Option<String>)> {
    Address::parse(text).map_err(|fault: AddressFault| {
        let (name, Message { what, hint }) = (given_as(matches, "source"), fault.message());
        Refusal::usage(Message { what: text!("{name}: {what}", "{name}: {what}"; what), hint })
    })
}

/// The address of the source that the command line or its variable names, and the password if it holds one.
fn source_address(common: &Common, matches: &ArgMatches) -> anyhow::Result<(Address, Option<String>)> {
    given_source(common).map(|text| address(text, matches)).unwrap_or_else(|| {
        Err(Refusal::usage(message! {
            "no source given", "没有指定数据源";
            "name it with --source or INVOICE_EXPORT_SOURCE, for example mysql://user@host:3306/database",
            "请用 --source 或 INVOICE_EXPORT_SOURCE 指定，例如 mysql://user@host:3306/database"
        }))
    })
}

/// How to reach the source that the command line names, to read no documents.
pub fn access(common: &Common, names: &Names, matches: &ArgMatches) -> anyhow::Result<Access> {
    refuse_password_on_command_line(common, matches)?;
    let (mut url, from_url) = source_address(common, matches)?;
    let login = common.defaults_file.as_deref().map(Login::read).transpose()?.unwrap_or_default();
    if let Some(user) = login.user {
        url.set_missing_user(user);
    }
    let password = match (&common.password_file, &common.password_command) {
        (Some(file), _) => Some(password::of_file(file)?),
        (None, Some(command)) => Some(password::of_command(command)?),
        (None, None) => login.password.or_else(|| variable("MYSQL_PWD")).or(from_url),
    };
    let tls = Tls {
        mode: common.ssl_mode,
        ca: common.ssl_ca.clone(),
        server_key: common.server_public_key.clone().or(login.server_public_key.map(PathBuf::from)),
    };
    let (names, time_zone) = (table_names(names), names.time_zone.clone());
    Ok(Access { url, password, names, time_zone, tls, read_timeout: common.read_timeout, max_document: 0 })
}

/// The variable of the password, if it is set: its value is a secret.
pub fn password_variable() -> Option<EffectiveSetting> {
    variable("MYSQL_PWD")?;
    Some(EffectiveSetting {
        name: "password".to_owned(),
        value: Some("set".to_owned()),
        origin: Origin::Variable("MYSQL_PWD".to_owned()),
    })
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

/// The refusal of a value that a variable cannot have.
fn wrong_variable(name: &str, value: &str, [one, other]: [&str; 2]) -> anyhow::Error {
    Refusal::usage(message! {
        "{name} cannot be {value:?}", "{name} 的值不能是 {value:?}"; "write {one} or {other}", "请写 {one} 或 {other}"
    })
}
