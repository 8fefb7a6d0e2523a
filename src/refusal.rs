//! Refusals that have an exit code and a remedy of their own. Everything else is an ordinary error (exit 1).
//!
//! `wording.rs` words each of them in both languages, `parts.rs` and `usage.rs` what differs from case to case, and
//! `chain.rs` an error with its causes.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::invoice::SourceTime;
use crate::lang::{Message, Text};

mod chain;
mod connect_error;
mod parts;
#[cfg(test)]
mod tests;
mod text_mark;
mod usage;
mod wording;

pub use chain::cannot_be_read;
pub use connect_error::{ConnectErrorKind, KeyUse};
pub use parts::{Damage, Distrust, Holder, LegacyFault, MirrorFault, Trouble};
pub use text_mark::TextMark;
pub use usage::{AddressFault, OptionFileTrouble};

/// Why a command does not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Wrong usage: what was typed, or stands in a variable, is malformed, contradicts itself or names what is not there.
    Usage(Message),
    /// The source has no row of this tenant.
    UnknownTenant(String),
    /// The file that `--defaults-file` names.
    OptionFile { file: PathBuf, trouble: OptionFileTrouble },
    /// The state has no such tenant, and the command asks the state alone.
    TenantNotInState(String),
    /// A signal stopped the run at a clean checkpoint.
    Cancelled { signal: u8 },
    /// Another run of ours holds the lock.
    Locked { holder: Option<Box<Holder>>, lock: PathBuf },
    /// The script holds its lock folder, or left it behind.
    ScriptLocked { folder: PathBuf, age: Duration },
    /// `--require-state` was given.
    StateMissing { state: PathBuf },
    /// A command that needs a state finds none.
    NoState { state: PathBuf },
    /// No state, but the tree holds files: an incremental run would not know what they are.
    TreeWithoutState { output: PathBuf, state: PathBuf },
    /// The file of the state cannot be read as one.
    StateDamaged { state: PathBuf, damage: Damage },
    /// The backup cannot be read as a state.
    BackupUnusable { backup: PathBuf, damage: Damage },
    /// A newer program has upgraded the state's schema.
    StateNewer { state: PathBuf, version: i64, known: i64 },
    /// The state was made for another table.
    OtherSource { state: PathBuf, recorded: String, given: String },
    /// The state has published into a tree, but this one does not carry its mark.
    MarkMissing { output: PathBuf, state: PathBuf },
    /// The tree carries the mark of another state.
    MarkForeign { output: PathBuf, state: PathBuf },
    /// The tree is older than the state says: rolled back, or another volume.
    TreeRolledBack { output: PathBuf, tree_run: i64, state_run: i64 },
    /// Removing what the source does not hold would empty the tree if it is an older copy. Its newest source time is
    /// None if it has no invoices.
    SourceOlder { source: Option<SourceTime>, exported: SourceTime },
    /// SQLite's locks cannot be relied on there.
    NetworkFileSystem { path: PathBuf },
    /// The path of a state, with the longest name that is needed beside it, or of a backup exceeds what SQLite opens.
    /// Lengths in bytes.
    PathTooLong { path: PathBuf, length: usize, most: usize },
    /// The file system takes two names for one.
    NamesFolded { output: PathBuf },
    /// A file or folder belongs to another user.
    NotOwner { path: PathBuf },
    /// Something of ours that another user may have put there or can change.
    Untrusted { path: PathBuf, why: Distrust },
    /// What an import would read is not the script's state file.
    NotLegacyState { file: PathBuf, fault: LegacyFault },
    /// An import without `--overwrite` would move watermarks back: of so many tenants, and the names of the first.
    GoesBack { file: PathBuf, tenants: usize, names: String },
    /// The run stands, but the script's state file could not be written after it.
    NotMirrored { file: PathBuf, fault: MirrorFault },
    /// No connection was made. The words of a server or of the operating system in the detail are the same in both
    /// languages.
    CannotConnect { source: String, obstacle: ConnectErrorKind, detail: Text },
    /// The connection broke.
    ConnectionLost { source: String, detail: Text },
    /// The server ended a statement that took longer than this setting of it allows.
    Overtime { setting: &'static str, detail: String },
    /// The account may read no table of this name.
    TableMissing { table: String },
    /// The account may not read these columns, or there are none of these names.
    ColumnsMissing { table: String, columns: String },
    /// The server does not let the account read the table.
    TableUnreadable { table: String, detail: String },
    /// This process may have too few files open, of which it inherited some.
    FewHandles { handles: usize, inherited: usize, least: usize },
    /// The operating system gives no further thread.
    NoThread { detail: String },
    /// A bug, of this program or of a package in it. The place is `src/file.rs:1:2`, or empty.
    Panicked { place: String, detail: String },
    /// A column has another type than when the statements were worded.
    TableChanged { table: String, column: String },
}

impl Refusal {
    /// An error of wrong usage.
    pub fn usage(message: impl Into<Message>) -> anyhow::Error {
        Self::Usage(message.into()).into()
    }

    /// The same, with the error that shows it. A refusal that led to it keeps its own exit code.
    pub fn usage_because(what: Text, error: anyhow::Error) -> anyhow::Error {
        if error.chain().any(|cause| cause.is::<Self>()) {
            return what.caused_by(error);
        }
        let Message { what: cause, hint } = (&error).into();
        Self::usage(Message { what: text!("{what}: {cause}", "{what}: {cause}"; what, cause), hint })
    }

    /// The process's exit code, as documented in `docs/operations.md`.
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
            | Self::PathTooLong { .. }
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
