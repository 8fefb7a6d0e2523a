//! The command line, as clap sees it: flags, their variables and their help. What they mean together
//! is decided in `config.rs`.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::{BoolishValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::fs::readers::StateMode;
use crate::lang::{Lang, Word};
use crate::run::Kind;
use crate::source::TlsMode;
use crate::state::history;
use crate::state::pages::OfKind;
use crate::tree::Durability;

mod chinese;
mod configuration;
mod names;

pub use chinese::in_chinese;
pub use configuration::{ConfigCommand, Init};
pub use names::Names;

/// Export issued invoices from MySQL or MariaDB, one JSON file each, completely or only what changed.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but a tenant failed or rows were newly
/// rejected; 4 another run holds the lock; 5 the state or the configuration was refused; 6 something was found; 129, 130, 143
/// cancelled by a signal.
#[derive(Debug, Parser)]
#[command(name = "invoice-export", version = env!("INVOICE_EXPORT_VERSION"), max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Export invoices
    Run(Box<Run>),
    /// Every tenant: how far it is exported, how its last run ended, what cannot be exported
    Status(Status),
    /// Runs and changes of the state, newest first; or one of them in full
    History(History),
    /// One verdict on one invoice: is it exported, and if not, why
    Why(Why),
    /// Does the tree hold what was exported, and was everything exported? --repair mends it
    Verify(Box<Verify>),
    /// Correct, back up, restore and check the state
    #[command(subcommand)]
    State(StateCommand),
    /// Take the watermarks of the script's state file over
    ImportLegacyState(ImportLegacyState),
    /// Write the watermarks in the form of the script's state file
    ExportLegacyState(ExportLegacyState),
    /// Show, begin and check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make an embedded sample source and export it; no server needed
    Demo(Demo),
}

impl Command {
    /// Whether its result has rows, which CSV is made of.
    pub fn has_rows(&self) -> bool {
        match self {
            Self::Run(_) | Self::Why(_) | Self::Demo(_) | Self::ExportLegacyState(_) => false,
            Self::State(command) => {
                !matches!(command, StateCommand::Backup(_) | StateCommand::Restore(_) | StateCommand::AdoptSource(_))
            }
            Self::Config(command) => matches!(command, ConfigCommand::Show),
            Self::Status(_) | Self::History(_) | Self::Verify(_) | Self::ImportLegacyState(_) => true,
        }
    }

    /// How long it tries to reach the server; None of a command that asks none.
    pub fn retry_for(&self) -> Option<Duration> {
        let retries = match self {
            Self::Run(run) => return Some(run.work.retry_for),
            Self::Verify(verify) => return Some(verify.work.retry_for),
            Self::Status(status) => &status.retries,
            Self::Why(why) => &why.retries,
            Self::State(StateCommand::Set(set)) => &set.retries,
            Self::State(StateCommand::AdoptSource(adopt)) => &adopt.retries,
            Self::State(_)
            | Self::Config(_)
            | Self::History(_)
            | Self::ImportLegacyState(_)
            | Self::ExportLegacyState(_)
            | Self::Demo(_) => return None,
        };
        Some(retries.retry_for)
    }
}

#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Move a tenant's watermark; what was exported above it is compared again
    Set(Set),
    /// Take watermarks away, so that the next incremental run compares every invoice
    Reset(Reset),
    /// Copy the state, checked and whole, also while a run is at work
    Backup(Backup),
    /// List the backups, newest first
    Backups,
    /// Put a backup in the place of the state
    Restore(Restore),
    /// Is the state whole, and does it hold together?
    Check(Check),
    /// Let the state belong to the source that is given now
    AdoptSource(AdoptSource),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Common {
    /// Where invoices come from: mysql://user@host:3306/database, the same with ?socket=/path, or
    /// sqlite:path
    ///
    /// A password comes from --password-file, --password-command, --defaults-file, MYSQL_PWD or the URL in
    /// INVOICE_EXPORT_SOURCE, in this order, never from the command line.
    #[arg(long, global = true, env = "INVOICE_EXPORT_SOURCE", hide_env_values = true, value_name = "URL")]
    pub source: Option<String>,
    /// A file with the password in its first line
    #[arg(long, global = true, env = "INVOICE_EXPORT_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A command of the shell that prints the password, if there is no --password-file; it has 30 seconds
    #[arg(
        long,
        global = true,
        env = "INVOICE_EXPORT_PASSWORD_COMMAND",
        hide_env_values = true,
        value_name = "COMMAND"
    )]
    pub password_command: Option<String>,
    /// An option file of MySQL, of which user, password and server-public-key-path in `[client]` and
    /// `[invoice-export]` are taken
    #[arg(long, global = true, env = "INVOICE_EXPORT_DEFAULTS_FILE", value_name = "FILE")]
    pub defaults_file: Option<PathBuf>,
    /// How a connection by TCP is encrypted and the server checked [default: not at all to this
    /// machine, unless the server asks for the password itself; VERIFY_IDENTITY to any other]
    #[arg(long, global = true, env = "INVOICE_EXPORT_SSL_MODE", value_enum, ignore_case = true, value_name = "MODE")]
    pub ssl_mode: Option<TlsMode>,
    /// Trusted certificates (PEM) [default: the system's]
    #[arg(long, global = true, env = "INVOICE_EXPORT_SSL_CA", value_name = "FILE")]
    pub ssl_ca: Option<PathBuf>,
    /// The server's RSA key (PEM): the password may be sent encrypted for it where the connection is not
    #[arg(long, global = true, env = "INVOICE_EXPORT_SERVER_PUBLIC_KEY", value_name = "FILE")]
    pub server_public_key: Option<PathBuf>,
    /// How long the server may say nothing before the connection counts as lost
    #[arg(long, global = true, env = "INVOICE_EXPORT_READ_TIMEOUT", value_parser = humantime::parse_duration, default_value = "5m", value_name = "TIME")]
    pub read_timeout: Duration,
    /// The folder of exported files; created if missing
    #[arg(long, global = true, env = "INVOICE_EXPORT_OUTPUT", value_name = "DIR", default_value = "../context")]
    pub output: PathBuf,
    /// Where the state is kept, on a local file system [default: .export_state in the output]
    #[arg(long, global = true, env = "INVOICE_EXPORT_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Who may read the state, its log, its backups and the lock [default: those who may now; of a new state its owner
    /// alone]
    #[arg(long, global = true, env = "INVOICE_EXPORT_STATE_MODE", value_enum, value_name = "MODE")]
    pub state_mode: Option<StateMode>,
    /// A configuration file with the long names of options as keys [default: ~/.config/invoice-export/config.toml,
    /// else /etc/invoice-export/config.toml]
    #[arg(long, global = true, env = "INVOICE_EXPORT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read no configuration file
    #[arg(long, global = true, conflicts_with = "config")]
    pub no_config: bool,
    /// What the result on stdout looks like
    #[arg(long, global = true, env = "INVOICE_EXPORT_FORMAT", value_enum, default_value = "text")]
    pub format: Format,
    /// Read and show times of runs in UTC [default: the zone of this machine]
    #[arg(long, global = true)]
    pub utc: bool,
    /// Language of lines and errors [default: that of the locale]
    #[arg(long, global = true, env = "INVOICE_EXPORT_LANG", value_enum)]
    pub lang: Option<Lang>,
    /// Only warnings and errors; the answer of a question and --format json or csv are printed all the same
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// More lines
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// No bar and no progress lines
    #[arg(long, global = true)]
    pub no_progress: bool,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Everything, or what changed since the last incremental run [default: full]
    #[arg(long, env = "INVOICE_EXPORT_MODE", value_enum)]
    pub mode: Option<Mode>,
    /// Read and check everything, but write nothing at all
    #[arg(long, env = "INVOICE_EXPORT_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub dry_run: bool,
    /// Only this tenant; may be given several times
    #[arg(long, value_name = "ID")]
    pub tenant: Vec<String>,
    /// Export again what has a source time after this one, or on this day and later
    ///
    /// "2025-11-28 10:00:00" as the source shows it, "2025-11-28" (from 00:00:00 on; in --until to the end of the
    /// day), "2025-11-28T10:00:00+08:00", "today", "yesterday", or "2d" for two days ago.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// ... up to and including this one [default: the boundary]
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    #[command(flatten)]
    pub margins: Margins,
    #[command(flatten)]
    pub work: Work,
    /// A tenant with invoices that cannot be exported fails, and its watermark stays until they can
    #[arg(long, env = "INVOICE_EXPORT_STRICT", value_parser = BoolishValueParser::new())]
    pub strict: bool,
    /// Set an existing state aside (it is kept) and start anew; files that are right are kept
    #[arg(long)]
    pub fresh: bool,
    /// Fail if there is no state; recommended in crontabs once the first run is through
    #[arg(long, env = "INVOICE_EXPORT_REQUIRE_STATE", value_parser = BoolishValueParser::new(), conflicts_with = "fresh")]
    pub require_state: bool,
    /// Back the state up before an incremental run if the last such backup is older; 0s: never
    #[arg(long, env = "INVOICE_EXPORT_BACKUP_EVERY", value_parser = humantime::parse_duration, default_value = "24h", value_name = "TIME")]
    pub backup_every: Duration,
    /// How many of these backups are kept
    #[arg(long, env = "INVOICE_EXPORT_KEEP_BACKUPS", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    pub keep_backups: u16,
    /// Write the script's state file after the run, for monitoring that reads it; the file it replaces is
    /// kept as --backup-every and --keep-backups say
    #[arg(long, env = "INVOICE_EXPORT_MIRROR_LEGACY_STATE", value_parser = BoolishValueParser::new())]
    pub mirror_legacy_state: bool,
    #[command(flatten)]
    pub names: Names,
}

/// How much later than now rows may still appear, and how far back they may lie.
#[derive(Debug, Args)]
pub struct Margins {
    /// How far the boundary lies behind the server's clock
    #[arg(long, env = "INVOICE_EXPORT_SAFETY_LAG", value_parser = humantime::parse_duration, default_value = "5m", value_name = "TIME")]
    pub safety_lag: Duration,
    /// How far below a tenant's newest source time keys are read again, for transactions that commit late
    #[arg(long, env = "INVOICE_EXPORT_OVERLAP", value_parser = humantime::parse_duration, default_value = "1h", value_name = "TIME")]
    pub overlap: Duration,
}

/// Of a command that a person waits for.
#[derive(Debug, Args)]
pub struct Retries {
    /// How long to try again while the server cannot be reached or the connection breaks
    #[arg(long, env = "INVOICE_EXPORT_RETRY_FOR", value_parser = humantime::parse_duration, default_value = "10s", value_name = "TIME")]
    pub retry_for: Duration,
}

/// How the work is done, whatever it is.
#[derive(Debug, Args)]
pub struct Work {
    /// How long to wait for a run of the other mode; one of the same mode is never waited for
    #[arg(long, env = "INVOICE_EXPORT_LOCK_WAIT", value_parser = humantime::parse_duration, default_value = "10m", value_name = "TIME")]
    pub lock_wait: Duration,
    /// How long to try again while the server cannot be reached or the connection breaks
    #[arg(long, env = "INVOICE_EXPORT_RETRY_FOR", value_parser = humantime::parse_duration, default_value = "5m", value_name = "TIME")]
    pub retry_for: Duration,
    /// Threads that check and write files
    #[arg(long, env = "INVOICE_EXPORT_WRITERS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub writers: u16,
    /// One sync for many files, or one for each: slower, for mounts that pass no sync of a whole file system on and
    /// for old kernels; on ext4 without a journal only `batch` survives a power cut
    /// [default: batch; file on FUSE, SMB and 9p]
    #[arg(long, env = "INVOICE_EXPORT_DURABILITY", value_enum)]
    pub durability: Option<Durability>,
    #[command(flatten)]
    pub documents: Documents,
}

/// Which documents are read at all.
#[derive(Debug, Args)]
pub struct Documents {
    /// Larger documents are rejected
    #[arg(long, env = "INVOICE_EXPORT_MAX_DOCUMENT", default_value = "256MiB", value_name = "SIZE")]
    pub max_document: ByteSize,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// Read every file, instead of those whose size or time is suspicious
    #[arg(long)]
    pub hash: bool,
    /// Compare the ledger with the source too: what is lost, stale, moved or withdrawn?
    #[arg(long)]
    pub against_source: bool,
    /// ... and read every document, for updates that left the source time as it was
    #[arg(long, requires = "against_source")]
    pub documents: bool,
    /// Export what is missing or altered, with --against-source also what is lost, stale or moved, and touch
    /// nothing else
    #[arg(long)]
    pub repair: bool,
    /// Remove the files of withdrawn invoices, and superseded ones that could not be removed before
    #[arg(long, requires = "against_source")]
    pub prune: bool,
    /// ... and leftovers of ids that were used again, or may have been: each may be the only file of an earlier invoice
    #[arg(long, requires = "prune")]
    pub prune_leftovers: bool,
    /// So many files may be removed without a question [default: 1000, and not more than 1 % of the ledger; none with
    /// --prune-leftovers, and where the table is not provably the one of before]
    #[arg(long, requires = "prune", value_name = "N")]
    pub prune_up_to: Option<u64>,
    /// Only this tenant; may be given several times
    #[arg(long, value_name = "ID")]
    pub tenant: Vec<String>,
    /// Only invoices with a source time after this one, or on this day and later; see `run --since`
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// ... up to and including this one
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// How many findings of each kind are listed; all are counted. 0: all
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub limit: u32,
    #[command(flatten)]
    pub margins: Margins,
    #[command(flatten)]
    pub work: Work,
    #[command(flatten)]
    pub names: Names,
}

#[derive(Debug, Args)]
pub struct Status {
    /// Exit 6 if a tenant lags farther behind than this; without the source: if the last incremental run that got as far
    /// as the tenant failed or is older
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub stale_after: Option<Duration>,
    /// Exit 6 if more invoices than this cannot be exported
    #[arg(long, value_name = "N")]
    pub max_rejects: Option<u64>,
    /// Exit 6 if an invoice could not be exported for longer than this
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub reject_older_than: Option<Duration>,
    /// List the invoices that cannot be exported instead
    #[arg(long, conflicts_with = "stale_after")]
    pub rejects: bool,
    /// Only this tenant; may be given several times
    #[arg(long, value_name = "ID")]
    pub tenant: Vec<String>,
    /// How many rows are listed; all are counted and judged. 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub limit: usize,
    #[command(flatten)]
    pub margins: Margins,
    #[command(flatten)]
    pub retries: Retries,
    #[command(flatten)]
    pub names: Names,
}

#[derive(Debug, Args)]
pub struct History {
    /// A run (its number, `last` or `last-failed`) or a change (`c3`)
    #[arg(value_name = "RUN")]
    pub which: Option<String>,
    /// The paths that the run wrote, took over or removed
    #[arg(long, requires = "which")]
    pub files: bool,
    /// Only the paths that are there to be copied: written or taken over, and not removed since; each
    /// ended by a zero byte, for `rsync --from0 --files-from=-` (which cannot remove)
    #[arg(short = '0', long, requires = "files")]
    pub null: bool,
    /// Only runs that did something for this tenant, and changes of its watermark
    #[arg(long, value_name = "ID", conflicts_with = "which")]
    pub tenant: Option<String>,
    /// Only runs with this status
    #[arg(long, value_enum, value_name = "STATUS", conflicts_with = "which")]
    pub status: Option<history::RunStatus>,
    /// Only entries of this kind
    #[arg(long, value_parser = entry_kind(), value_name = "KIND", conflicts_with = "which")]
    pub kind: Option<OfKind>,
    /// Only what started at this time or later by the clock of this machine: "2025-11-28 10:00:00", "2025-11-28",
    /// "2025-11-28T10:00:00+08:00", "yesterday" or "2d" for two days ago
    #[arg(long, value_name = "TIME", conflicts_with = "which")]
    pub since: Option<String>,
    /// ... and not later than this one
    #[arg(long, value_name = "TIME", conflicts_with = "which")]
    pub until: Option<String>,
    /// How many entries; 0: all
    #[arg(long, default_value_t = 20, value_name = "N", conflicts_with = "which")]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct Why {
    /// The invoice's number, or its file: a path, absolute or relative, or a bare name
    #[arg(value_name = "NUMBER|FILE")]
    pub number: String,
    /// Only this tenant
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    #[command(flatten)]
    pub margins: Margins,
    #[command(flatten)]
    pub documents: Documents,
    #[command(flatten)]
    pub retries: Retries,
    #[command(flatten)]
    pub names: Names,
}

/// What every command that changes the state has.
#[derive(Debug, Args)]
pub struct Changing {
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// How long to wait for a run to end
    #[arg(long, env = "INVOICE_EXPORT_LOCK_WAIT", value_parser = humantime::parse_duration, default_value = "10m", value_name = "TIME")]
    pub lock_wait: Duration,
}

#[derive(Debug, Args)]
pub struct Set {
    #[arg(value_name = "TENANT")]
    pub tenant: String,
    /// By the source's clock: "2025-11-28 10:00:00", "2025-11-28" (its 00:00:00), "2025-11-28T10:00:00+08:00", "yesterday", or "2d" for two days ago
    #[arg(value_name = "TIME")]
    pub time: String,
    #[command(flatten)]
    pub changing: Changing,
    #[command(flatten)]
    pub margins: Margins,
    #[command(flatten)]
    pub retries: Retries,
    #[command(flatten)]
    pub names: Names,
}

#[derive(Debug, Args)]
pub struct Reset {
    #[arg(value_name = "TENANT")]
    pub tenant: Option<String>,
    /// Every tenant
    #[arg(long, conflicts_with = "tenant")]
    pub all: bool,
    #[command(flatten)]
    pub changing: Changing,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// Where to [default: a new file in the state folder's `backups`]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// A backup, or `latest`
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The tree is this state's, though its mark is lost or of another state: files and state were brought back
    /// apart from each other
    #[arg(long)]
    pub adopt_tree: bool,
    #[command(flatten)]
    pub changing: Changing,
}

#[derive(Debug, Args)]
pub struct Check {
    /// Read every page and every row
    #[arg(long)]
    pub deep: bool,
}

#[derive(Debug, Args)]
pub struct AdoptSource {
    #[command(flatten)]
    pub changing: Changing,
    #[command(flatten)]
    pub retries: Retries,
    #[command(flatten)]
    pub names: Names,
}

#[derive(Debug, Args)]
pub struct ImportLegacyState {
    /// [default: .export_state/.last_export_time in the output]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Show old and new watermarks, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Let watermarks go backwards
    #[arg(long)]
    pub overwrite: bool,
    /// How far below the imported time keys are read again
    #[arg(long, env = "INVOICE_EXPORT_OVERLAP", value_parser = humantime::parse_duration, default_value = "1h", value_name = "TIME")]
    pub overlap: Duration,
    #[command(flatten)]
    pub changing: Changing,
}

#[derive(Debug, Args)]
pub struct ExportLegacyState {
    /// `-` is standard output [default: .export_state/.last_export_time in the output]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// A folder that does not exist yet
    #[arg(value_name = "DIR", default_value = "invoice-export-demo")]
    pub folder: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Full,
    Incremental,
}

/// By the words of kinds of runs.
impl ValueEnum for Mode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Full, Self::Incremental]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Full => Kind::Full.possible_value(),
            Self::Incremental => Kind::Incremental.possible_value(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    /// The same as text
    Table,
    Json,
    /// For results that have rows
    Csv,
}

/// A kind of run or of change, by its word.
fn entry_kind() -> impl TypedValueParser<Value = OfKind> {
    let named = |word: &str| OfKind::all().find(|kind| kind.possible_value().is_some_and(|of| of.matches(word, false)));
    PossibleValuesParser::new(OfKind::all().filter_map(OfKind::possible_value))
        .try_map(move |word| named(&word).ok_or("no kind"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn clap_finds_no_contradiction_in_the_command_line() {
        super::Cli::command().debug_assert();
    }
}
