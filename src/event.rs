//! The events of a run while it works. The export only emits these values; `report` turns them into
//! bars, lines or JSON, in English or Chinese.

use std::path::PathBuf;
use std::time::Duration;

use crate::invoice::{InvoiceId, Reason, SourceTime, Tenant};
use crate::lang::Text;
use crate::refusal::{Holder, Trouble};
use crate::run::{Counts, KeptReason, Kind, Prospect, RunId, Summary};

/// Something to show, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The run begins.
    Started { kind: Kind, dry_run: bool },
    /// Another process holds the lock and the run waits for it. The holder is None until it has said its name.
    Waiting { holder: Option<Holder>, at_most: Duration },
    /// The operator should know something, and the run goes on.
    Notice(Notice),
    /// A notice of a condition that is no news: of a level that a cron job does not mail.
    Reminder(Notice),
    /// The end of what this run reads. Not said by full runs, which read everything.
    Boundary(SourceTime),
    /// The source is asked for its tenants.
    ListingTenants,
    /// About how many invoices there are to read, where that is known.
    Expected(u64),
    /// The start of the tenant's window is None where it has no watermark, the end in a full run, which has no window.
    TenantStarted { tenant: Tenant, past: TenantPast, after: Option<SourceTime>, upto: Option<SourceTime> },
    /// Invoices dealt with so far, in all tenants.
    Progress { invoices: u64 },
    /// An invoice cannot be exported.
    Rejected { tenant: Option<Tenant>, id: InvoiceId, number: Option<String>, reason: Reason },
    /// A dry run says what would become of a path that does not stay as it is.
    Prospect { path: String, prospect: Prospect },
    /// Everything of the tenant is recorded.
    TenantDone { tenant: Tenant, counts: Counts },
    /// The tenant's export ended without its watermark; the others go on.
    TenantFailed { tenant: Tenant, trouble: Trouble },
    /// The run is over.
    Finished(Box<Summary>),
}

/// Whether an earlier run has dealt with a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantPast {
    /// The state does not know it.
    None,
    Known,
}

/// Something the operator should know though the run goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The index is missing; the statement that creates it.
    MissingIndex { statement: String },
    /// The account may not see open transactions: the overlap alone covers late commits.
    OpenWorkNotPermitted,
    /// The server's lists of open work cannot be relied on: the next run reads all keys.
    OpenWorkUnreliable,
    /// A transaction is prepared and left, and its start is not known.
    PreparedWork,
    /// Work has been open since then; keys are read again from before it.
    OpenWork { since: SourceTime },
    /// The server is a replica, so far behind its primary; None: its replication is stopped.
    Replica { behind: Option<Duration> },
    /// There is no state, but a tree with files: a full run takes it over.
    TakingOver { output: PathBuf },
    /// An old state was set aside by `--fresh`.
    SetAside { to: PathBuf },
    /// The state could not be backed up.
    NoBackup { error: Text },
    /// An earlier run died; what it left in doubt is read again.
    Recovering { files: u64 },
    /// All keys are read, without a lower bound.
    Doubt(Doubt),
    /// The watermark lay ahead of the boundary and was pulled back to it.
    PulledBack { tenant: Tenant, from: SourceTime, to: SourceTime },
    /// A superseded file was left because it is not what we wrote.
    LeftInPlace { path: String },
    /// So many files stay though no invoice names them any more; one of them. None: a run of an earlier version, which
    /// died, may have written them.
    StaysInPlace { why: Option<KeptReason>, files: u64, example: String },
    /// The source does not show which table it is, so that no file is ever superseded for certain.
    TableUnknown,
    /// Files in this folder, and perhaps in others, do not get the group or the ACL that it hands down.
    NotShared { folder: String, detail: String },
    /// The mode of the state lets a group read that not everything of it has: this file or folder, for example.
    StateNotShared { folder: PathBuf, group: u32, example: PathBuf },
    /// A file could not be removed.
    NotRemoved { path: String, detail: String },
    /// The tenant shows source times ahead of the server's clock; they wait for their window.
    TimesAhead { tenant: Tenant, newest: SourceTime },
    /// The newest source time of so many tenants is older than it was; some of them.
    GoneBack { tenants: u64, some: Vec<FallenTenant> },
    /// Late arrivals lay so far below the watermark that the overlap may soon not reach them.
    Late { by: Duration, overlap: Duration },
    /// The source cannot be reached, or the connection was lost; another attempt follows after the pause.
    Retrying { trouble: Trouble, pause: Duration },
    /// Invoices with NULL for a tenant, and some of their ids: they have no folder. More: as many as a run looks for,
    /// and there are others.
    WithoutTenant { invoices: u64, more: bool, some: Vec<InvoiceId> },
    /// Invoices without a known tenant that the server did not return.
    Unread { invoices: u64, trouble: Trouble },
    /// Invoices without a usable source time: only full runs, and runs in doubt, read them.
    WithoutTime { invoices: u64 },
    /// `status` shows no lag, because no source is given.
    NoSource,
    /// `status` shows no lag, because the source could not be asked. The error follows.
    SourceSilent,
    /// `status`: so many runs began on another host or after a restart since all keys were compared.
    TimeUnproven { runs: u64, compared: Option<String> },
    /// Without the source, `--stale-after` goes by the age of the last successful run.
    JudgedByOwnClock,
    /// A run has no end yet. That its process died is known only of runs on this machine.
    RunUnfinished {
        run: RunId,
        kind: Kind,
        host: String,
        started: String,
        /// Those on record.
        invoices: u64,
        life: Life,
        /// How many files a run that died has left in doubt; None: that cannot be read.
        in_doubt: Option<u64>,
    },
    /// Files are still in doubt though a run has ended since another one died.
    InDoubt { files: u64 },
    /// `status`: the last export there was failed.
    /// `how`: it failed or was cancelled.
    LastAttemptFailed { run: RunId, how: Text, kind: Kind, started: String, error: Text },
    /// Tenants that lag farther behind than they may.
    Stale { tenants: u64, of: u64, after: Duration },
    /// More invoices cannot be exported than may be.
    TooManyRejects { open: u64, allowed: u64 },
    /// An invoice could not be exported for longer than it may be.
    OldReject { open_for: Duration, allowed: Duration },
    /// A condition that an earlier run warned of does not hold any more.
    ConditionEnded(Condition),
}

/// A condition of the source that may hold from run to run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Open work cannot be seen, or none knows since when it has been open.
    OpenWorkUnseen,
    IndexMissing,
    ReplicationStopped,
    /// Of one tenant.
    TimesAhead(Tenant),
    /// Invoices have NULL for a tenant.
    WithoutTenant,
}

impl Notice {
    /// The condition that the notice is about, with the detail that makes it another one for the operator. A replica
    /// that is behind is no condition: it is behind for a moment after every change of its primary. How far times lie
    /// ahead is no detail: where an application writes in another zone, each row changes it.
    pub fn condition(&self) -> Option<(Condition, String)> {
        let (condition, detail) = match self {
            Self::OpenWorkNotPermitted => (Condition::OpenWorkUnseen, "not permitted".to_owned()),
            Self::OpenWorkUnreliable => (Condition::OpenWorkUnseen, "unreliable".to_owned()),
            Self::PreparedWork => (Condition::OpenWorkUnseen, "prepared".to_owned()),
            Self::MissingIndex { statement } => (Condition::IndexMissing, statement.clone()),
            Self::Replica { behind: None } => (Condition::ReplicationStopped, "stopped".to_owned()),
            Self::TimesAhead { tenant, .. } => (Condition::TimesAhead(tenant.clone()), "ahead".to_owned()),
            Self::WithoutTenant { invoices, .. } => (Condition::WithoutTenant, invoices.to_string()),
            _ => return None,
        };
        Some((condition, detail))
    }
}

/// The newest source time of a tenant, as a run has seen it and now. `to` is None if the source lists no invoice of it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallenTenant {
    pub tenant: Tenant,
    pub from: SourceTime,
    pub to: Option<SourceTime>,
}

/// Whether the process of an unfinished run is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Alive,
    Dead,
    /// The lock cannot be asked from here.
    Unknown,
}

/// Why a run reads keys without a lower bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Another server answers than last time.
    OtherServer,
    /// The server's clock moved against ours or against the time that passed, or went back.
    ClockMoved,
    /// The machine was started again, or it is another one: how much time has passed is not known.
    TimeUnproven,
    /// The tree is newer than the state: an older state was restored.
    StateRestored,
}
