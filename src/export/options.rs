//! What the operator wants of a run.

use std::path::PathBuf;
use std::time::Duration;

use super::attach::Location;
use super::plan::{Purpose, StatePolicy};
use crate::invoice::{SourceTime, Tenant};
use crate::run::{Cancel, Kind, OwnClocks, Starter};
use crate::source::Access;
use crate::tree::Durability;

/// What the operator wants.
pub struct ExportOptions {
    pub kind: Kind,
    pub mode: Mode,
    /// Empty means all.
    pub tenants: Vec<Tenant>,
    /// The window of a backfill: `(since, until]`.
    pub since: Option<SourceTime>,
    pub until: Option<SourceTime>,
    pub access: Access,
    pub output: PathBuf,
    /// The state's file.
    pub state: PathBuf,
    pub policy: StatePolicy,
    pub safety_lag: Duration,
    pub overlap: Duration,
    pub lock_wait: Duration,
    /// How long a source that cannot be reached is tried again without any progress.
    pub retry_for: Duration,
    /// Threads that check and stage rows.
    pub writers: usize,
    /// None for what the output needs where it lies.
    pub durability: Option<Durability>,
    pub rejects: Rejects,
    pub backups: Backups,
    /// The script's state file is written after the run too.
    pub mirror: Mirror,
    pub starter: Starter,
    /// For the record, and to find out whether the server's clock was set.
    pub clocks: OwnClocks,
    /// From here on signals only ask to stop. Called when there is something to be brought to an end.
    pub watch: fn() -> anyhow::Result<Cancel>,
}

impl ExportOptions {
    pub(super) fn location(&self) -> Location<'_> {
        let Self { output, state, policy, .. } = self;
        Location { output, state, policy: *policy, purpose: Purpose::Run(self.kind) }
    }
}

/// What invoices that cannot be exported mean for their tenant. They are kept on record in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejects {
    Kept,
    /// `--strict`: the tenant fails and its watermark stays.
    FailTheirTenant,
}

/// Which backups of the state incremental runs make before they move watermarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backups {
    /// None: no backups.
    pub every: Option<Duration>,
    /// How many are kept.
    pub keep: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Export,
    /// Reads and checks everything and leaves no trace.
    DryRun,
}

/// Whether the script's state file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirror {
    Off,
    On,
}
