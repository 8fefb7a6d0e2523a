//! What the operator wants of a run or a verification, in parts.

use std::path::PathBuf;
use std::time::Duration;

use super::attach::Location;
use super::plan::{Purpose, StatePolicy};
use crate::event::Event;
use crate::fs::readers::StateMode;
use crate::given_time::GivenWindow;
use crate::lock::{self, ExportLock, Patience};
use crate::run::{Cancel, Kind, OwnClocks, Starter};
use crate::source::{Access, SourceName};
use crate::state::selection::Selection;
use crate::tree::{Durability, Tree};

/// What the operator wants of an export.
pub struct ExportOptions {
    pub common: CommonOptions,
    /// The window of a backfill. The selection has it once the source's clock is known.
    pub window: GivenWindow,
    pub source: SourceOptions,
    pub mode: Mode,
    pub backups: Backups,
    /// Whether the script's state file is written after the run too.
    pub mirror: Mirror,
}

/// What exports and verifications have in common.
pub struct CommonOptions {
    pub kind: Kind,
    pub paths: Paths,
    /// The source by the address that the operator gave; None: none is asked.
    pub source: Option<SourceName>,
    pub policy: StatePolicy,
    pub selection: Selection,
    pub margins: Margins,
    pub work: WorkOptions,
    pub rejects: Rejects,
    pub surroundings: Surroundings,
}

impl CommonOptions {
    /// The tree and the state of this kind of run.
    pub(super) fn location(&self) -> Location<'_> {
        let Paths { output, state, .. } = &self.paths;
        Location { output, state, policy: self.policy, purpose: Purpose::Run(self.kind) }
    }

    /// Opens the tree and takes its lock for this kind of run.
    pub(super) fn lock(&self, tell: &mut dyn FnMut(Event)) -> anyhow::Result<(Tree, ExportLock)> {
        let (Paths { output, state, mode }, purpose) = (&self.paths, self.kind.as_str());
        let Surroundings { starter, cancel, .. } = &self.surroundings;
        let patience = Patience { time: self.work.lock_wait, cancel: Some(cancel) };
        lock::acquire(output, state, purpose, starter, patience, *mode, tell)
    }
}

/// The source, and the patience with it.
pub struct SourceOptions {
    pub access: Access,
    /// How long a source that cannot be reached is tried again without any progress.
    pub retry_for: Duration,
}

/// Where the tree and its state are.
#[derive(Clone, Debug)]
pub struct Paths {
    pub output: PathBuf,
    /// The state's file.
    pub state: PathBuf,
    /// Who may read it; None: those who may now.
    pub mode: Option<StateMode>,
}

/// How late rows may still appear.
#[derive(Clone, Copy, Debug)]
pub struct Margins {
    /// How far the boundary lies behind the server's clock.
    pub safety_lag: Duration,
    /// How far below a tenant's newest source time its keys are read again.
    pub overlap: Duration,
}

/// How the work is done.
#[derive(Clone, Copy, Debug)]
pub struct WorkOptions {
    /// How long a lock that is held for another purpose is waited for.
    pub lock_wait: Duration,
    /// Threads that check and stage rows.
    pub writers: usize,
    /// None: the file system of the output decides.
    pub durability: Option<Durability>,
}

/// The process that works, and its machine.
pub struct Surroundings {
    pub starter: Starter,
    /// For the record, and to find out whether the server's clock was set.
    pub clocks: OwnClocks,
    /// Set when a signal asks to stop.
    pub cancel: Cancel,
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
