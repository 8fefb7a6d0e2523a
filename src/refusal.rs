//! Refusals that have an exit code and a remedy of their own. Everything else is an ordinary error
//! (exit 1). The English text is here, that of their parts in `parts.rs`; `report` has the Chinese one.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::invoice::SourceTime;
use crate::lang::Text;

mod parts;

pub use parts::{
    AddressFault, Damage, Distrust, Holder, LegacyFault, Misuse, Obstacle, OptionFileTrouble, Trouble, holder_text,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Wrong usage.
    Usage(Text),
    Misuse(Misuse),
    UnknownTenant(String),
    /// A file of --defaults-file.
    OptionFile {
        file: PathBuf,
        trouble: OptionFileTrouble,
    },
    /// A command that asks the state alone.
    TenantNotInState(String),
    /// A signal stopped the run at a clean checkpoint.
    Cancelled {
        signal: u8,
    },
    /// Another run of ours holds the lock.
    Locked {
        holder: Option<Holder>,
        lock: PathBuf,
    },
    /// The script holds its lock folder, or left it behind.
    ScriptLocked {
        folder: PathBuf,
        age: Duration,
    },
    StateMissing {
        state: PathBuf,
    },
    /// A command that needs a state finds none.
    NoState {
        state: PathBuf,
    },
    /// No state, but the tree holds files: an incremental run would not know what they are.
    TreeWithoutState {
        output: PathBuf,
        state: PathBuf,
    },
    StateDamaged {
        state: PathBuf,
        damage: Damage,
    },
    BackupUnusable {
        backup: PathBuf,
        damage: Damage,
    },
    StateNewer {
        state: PathBuf,
        version: i64,
        known: i64,
    },
    OtherSource {
        state: PathBuf,
        recorded: String,
        given: String,
    },
    /// The state has published into a tree, but this one does not carry its mark.
    MarkMissing {
        output: PathBuf,
        state: PathBuf,
    },
    MarkForeign {
        output: PathBuf,
        state: PathBuf,
    },
    /// The tree is older than the state says: rolled back, or another volume.
    TreeRolledBack {
        output: PathBuf,
        tree_run: i64,
        state_run: i64,
    },
    /// Removing what the source does not hold would empty the tree if it is an older copy.
    SourceOlder {
        /// The newest source time there is; None: it has no invoices.
        source: Option<SourceTime>,
        exported: SourceTime,
    },
    NetworkFileSystem {
        path: PathBuf,
    },
    NamesFolded {
        output: PathBuf,
    },
    NotOwner {
        path: PathBuf,
    },
    /// Something of ours that another user may have put there or can change.
    Untrusted {
        path: PathBuf,
        why: Distrust,
    },
    /// What an import would read is not the script's state file.
    NotLegacyState {
        file: PathBuf,
        fault: LegacyFault,
    },
    /// An import would move watermarks back and was not told to.
    GoesBack {
        file: PathBuf,
        /// How many, and the names of the first.
        tenants: usize,
        names: String,
    },
    /// The run stands, but the script's state file could not be written after it.
    NotMirrored {
        file: PathBuf,
        /// One that its lines cannot hold.
        tenant: Option<String>,
    },
    CannotConnect {
        source: String,
        obstacle: Obstacle,
        /// The words of the server or of the operating system.
        detail: String,
    },
    ConnectionLost {
        source: String,
        detail: String,
    },
    /// The server ended a statement that took too long.
    Overtime {
        /// The server's setting that limits the time.
        setting: &'static str,
        detail: String,
    },
    TableMissing {
        table: String,
    },
    ColumnsMissing {
        table: String,
        columns: String,
    },
    TableUnreadable {
        table: String,
        detail: String,
    },
    /// This process may have too few files open.
    FewHandles {
        handles: usize,
        least: usize,
    },
    /// The operating system gives no further thread.
    NoThread {
        detail: String,
    },
    /// A bug, of this program or of a package in it.
    Panicked {
        /// `src/file.rs:1:2`, or empty.
        place: String,
        detail: String,
    },
    /// A column has another type than when the statements were worded.
    TableChanged {
        table: String,
        column: String,
    },
}

impl Refusal {
    /// The process's exit code, as documented in the README.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Misuse(_)
            | Self::UnknownTenant(_)
            | Self::TenantNotInState(_)
            | Self::OptionFile { .. } => 2,
            Self::Cancelled { signal } => 128 + signal,
            Self::Locked { .. } | Self::ScriptLocked { .. } => 4,
            Self::NamesFolded { .. }
            | Self::CannotConnect { .. }
            | Self::ConnectionLost { .. }
            | Self::Overtime { .. }
            | Self::TableMissing { .. }
            | Self::ColumnsMissing { .. }
            | Self::TableUnreadable { .. }
            | Self::FewHandles { .. }
            | Self::NoThread { .. }
            | Self::Panicked { .. }
            | Self::TableChanged { .. }
            | Self::NotLegacyState { .. }
            | Self::GoesBack { .. }
            | Self::SourceOlder { .. }
            | Self::NotMirrored { .. } => 1,
            Self::StateMissing { .. }
            | Self::NoState { .. }
            | Self::TreeWithoutState { .. }
            | Self::StateDamaged { .. }
            | Self::BackupUnusable { .. }
            | Self::StateNewer { .. }
            | Self::OtherSource { .. }
            | Self::MarkMissing { .. }
            | Self::MarkForeign { .. }
            | Self::TreeRolledBack { .. }
            | Self::NetworkFileSystem { .. }
            | Self::NotOwner { .. }
            | Self::Untrusted { .. } => 5,
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    #[expect(clippy::too_many_lines, reason = "a list of sentences")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => text.fmt(f),
            Self::Misuse(misuse) => misuse.fmt(f),
            Self::UnknownTenant(tenant) => {
                write!(f, "there is no tenant {tenant:?} in the source; check the spelling, also upper and lower case")
            }
            Self::OptionFile { file, trouble } => write!(f, "the option file {}{trouble}", file.display()),
            Self::TenantNotInState(tenant) => write!(
                f,
                "the state knows no tenant {tenant:?}: nothing of it was ever exported; check the spelling, also upper and lower case"
            ),
            Self::Cancelled { signal } => write!(
                f,
                "cancelled by {}; what was exported until now is on record, and the next run goes on from there",
                signal_name(*signal)
            ),
            Self::Locked { holder, lock } => {
                let holder = holder_text(holder.as_ref());
                write!(f, "another run holds the lock {}: {holder}; wait for it or stop it", lock.display())
            }
            Self::ScriptLocked { folder, age } => write!(
                f,
                "the export script holds the lock folder {} (for {}); if no script is running any more, remove it with: rm -r '{}'",
                folder.display(),
                humantime::format_duration(*age),
                folder.display()
            ),
            Self::StateMissing { state } => write!(
                f,
                "there is no state at {}, and --require-state was given; check --output and --state-dir; if the state was lost, bring a backup back with `state restore latest`; leave --require-state out only for a very first run",
                state.display()
            ),
            Self::NoState { state } => write!(
                f,
                "there is no state at {}; check --output and --state-dir; a first run makes one",
                state.display()
            ),
            Self::TreeWithoutState { output, state } => write!(
                f,
                "{} holds exported files, but there is no state at {}; check --state-dir, bring a backup back with `state restore latest`, go on from the script's state with `import-legacy-state`, take the tree over with `run --mode full`, or start anew with `run --fresh`",
                output.display(),
                state.display()
            ),
            Self::StateDamaged { state, damage } => write!(
                f,
                "the state {} cannot be used: {damage}; nothing was changed; bring the last backup back with `state restore latest`, or set the state aside and start anew with `run --fresh`",
                state.display()
            ),
            Self::BackupUnusable { backup, damage } => write!(
                f,
                "the backup {} cannot be restored: {damage}; nothing was changed; choose another one from `state backups`",
                backup.display()
            ),
            Self::StateNewer { state, version, known } => write!(
                f,
                "the state {} has schema version {version}, this program knows {known}; use the newer program",
                state.display()
            ),
            Self::OtherSource { state, recorded, given } => write!(
                f,
                "the state {} belongs to the source {recorded}, not to {given}; use another --output for another source, or, if it is the same table under another name, `state adopt-source`",
                state.display()
            ),
            Self::MarkMissing { output, state } => write!(
                f,
                "{} is not the tree that the state {} describes: its mark .export_state/lock is missing (volume not mounted, or a mistyped --output?); if it is that tree, brought back without its mark, use `state restore FILE --adopt-tree` with a backup; to fill this folder from the start, `run --fresh`",
                output.display(),
                state.display()
            ),
            Self::MarkForeign { output, state } => write!(
                f,
                "{} carries the mark of another state than {}; check --output and --state-dir; if they do belong together, use `state restore FILE --adopt-tree` with a backup; or start anew with `run --fresh`",
                output.display(),
                state.display()
            ),
            Self::TreeRolledBack { output, tree_run, state_run } if tree_run == state_run => write!(
                f,
                "{} is a copy of the time when run {tree_run} still wrote to it; bring back a tree of later on, or go on with this one: `state backup`, then `state restore latest --adopt-tree`",
                output.display()
            ),
            Self::TreeRolledBack { output, tree_run, state_run } => write!(
                f,
                "{} was last published by run {tree_run}, but the state says run {state_run}: the tree was rolled back or is a copy; restore the newer tree, or go on with this one: `state backup`, then `state restore latest --adopt-tree`",
                output.display()
            ),
            Self::SourceOlder { source, exported } => {
                match source {
                    Some(newest) => write!(f, "the newest source time is {newest}")?,
                    None => f.write_str("the source has no invoices")?,
                }
                write!(
                    f,
                    ", but {exported} was exported: this looks like a restored, an empty or another source; nothing was changed; is --source right?"
                )
            }
            Self::NetworkFileSystem { path } => write!(
                f,
                "{} lies on a network file system, on which a state is not safe; name a local folder with --state-dir",
                path.display()
            ),
            Self::NamesFolded { output } => write!(
                f,
                "the file system of {} does not tell upper from lower case (or normalises names), so two invoices could overwrite each other; use another file system",
                output.display()
            ),
            Self::NotOwner { path } => write!(
                f,
                "{} belongs to another user; run as that user, or give it to this one with chown",
                path.display()
            ),
            Self::Untrusted { path, why } => write!(f, "{}{why}", path.display()),
            Self::NotLegacyState { file, fault } => write!(
                f,
                "{} is no state file of the script: {fault}; nothing was changed; mend it and import it again",
                file.display()
            ),
            Self::GoesBack { file, tenants, names } => {
                let (file, noun) = (file.display(), if *tenants == 1 { "tenant" } else { "tenants" });
                write!(
                    f,
                    "{file} would move watermarks back, of {tenants} {noun}: {names}; nothing was changed; if that is wanted, use --overwrite"
                )
            }
            Self::NotMirrored { file, tenant } => {
                let file = file.display();
                write!(f, "the run is done and recorded, but the script's state file {file} was not written")?;
                match tenant {
                    None => f.write_str("; mend the cause, the next run writes it"),
                    Some(tenant) => {
                        write!(f, ": its lines cannot hold the tenant {tenant:?}; run without --mirror-legacy-state")
                    }
                }
            }
            Self::CannotConnect { source, obstacle, detail } => {
                write!(f, "cannot connect to {source}: {}", obstacle.explain(detail))
            }
            Self::ConnectionLost { source, detail } => {
                write!(f, "the connection to {source} was lost: {detail}; check that the server is running")
            }
            Self::Overtime { setting, detail } => write!(
                f,
                "the server ended a statement that took too long: {detail}; let this account's statements take longer ({setting}, also in a proxy before the server)"
            ),
            Self::TableMissing { table } => write!(
                f,
                "there is no table {table} that this account may read; check the database in --source and the table's name (--table), or grant SELECT on it"
            ),
            Self::ColumnsMissing { table, columns } => write!(
                f,
                "the table {table} has no column {columns} that this account may read; if it is called otherwise, name it with --time-column and the like; otherwise grant SELECT on it"
            ),
            Self::TableChanged { table, column } => write!(
                f,
                "the table {table} was changed while it was read: the column {column} has another type now; what was exported is on record; run again once the change is through"
            ),
            Self::TableUnreadable { table, detail } => {
                write!(f, "this account may not read the table {table}: {detail}; grant SELECT on it")
            }
            Self::FewHandles { handles, least } => write!(
                f,
                "this process may have {handles} files open, and needs {least}; raise the limit (ulimit -n, LimitNOFILE= of systemd)"
            ),
            Self::NoThread { detail } => write!(
                f,
                "no thread is to be had: {detail}; raise the limit of processes (ulimit -u, TasksMax= of systemd, the pids limit of a container), or take fewer --writers"
            ),
            Self::Panicked { place, detail } => write!(
                f,
                "this is a bug ({detail}, at {place}); what was recorded stands, and the next run goes on from there; please report it"
            ),
        }
    }
}

/// A run waits for a run of the other mode, because the documented crontab starts both at 2:00.
pub fn may_wait(own: &str, holder: Option<&Holder>) -> bool {
    holder.is_none_or(|holder| holder.purpose != own)
}

/// The signals that cancel a run.
pub fn signal_name(signal: u8) -> String {
    match signal {
        1 => "SIGHUP".to_owned(),
        2 => "SIGINT".to_owned(),
        15 => "SIGTERM".to_owned(),
        other => format!("signal {other}"),
    }
}
