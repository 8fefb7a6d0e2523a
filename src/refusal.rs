//! Refusals that have an exit code and a remedy of their own. Everything else is an ordinary error (exit 1).
//!
//! `wording.rs` words each of them in both languages, `parts.rs` and `usage.rs` what differs from case to case, and
//! `chain.rs` an error with its causes.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::invoice::SourceTime;
use crate::lang::Message;

mod chain;
mod parts;
#[cfg(test)]
mod tests;
mod usage;
mod wording;

pub use parts::{Damage, Distrust, Holder, LegacyFault, MirrorFault, Obstacle, Trouble};
pub use usage::{AddressFault, OptionFileTrouble};

/// Why a command does not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Wrong usage.
    Usage(Message),
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
        fault: MirrorFault,
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
            Self::Usage(_) | Self::UnknownTenant(_) | Self::TenantNotInState(_) | Self::OptionFile { .. } => 2,
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

/// One line of English, for records and JSON.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message().fmt(f)
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
