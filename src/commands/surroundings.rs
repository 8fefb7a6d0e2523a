//! The surroundings of a command: the clocks, the account that runs it, and its state.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use rustix::time::{ClockId, clock_gettime};

use crate::cli::Common;
use crate::config;
use crate::export::Surroundings;
use crate::given_time::OwnZone;
use crate::refusal::Refusal;
use crate::run::{Account, Cancel, OwnClocks, Starter, Uptime};
use crate::state::State;

/// The clock of this machine.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub(super) fn now() -> DateTime<Utc> {
    // `Utc::now` panics where the clock shows a time before 1970.
    SystemTime::now().into()
}

/// The surroundings of a run that starts now.
pub(super) fn current(zone: OwnZone) -> Surroundings {
    Surroundings { starter: starter(zone), clocks: OwnClocks { now, uptime }, cancel: Cancel::default() }
}

/// How long this machine has been up.
fn uptime() -> Option<Uptime> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
    let since = clock_gettime(ClockId::Boottime);
    (!boot.is_empty()).then_some(Uptime { boot, ms: since.tv_sec * 1000 + since.tv_nsec / 1_000_000 })
}

/// The account, machine and command line that start a run.
pub(super) fn starter(zone: OwnZone) -> Starter {
    Starter {
        account: account(),
        host: host(),
        pid: std::process::id(),
        command_line: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "),
        at: now(),
        zone,
    }
}

/// The account of this process. USER and LOGNAME are what the caller says, so the database of accounts is asked; a
/// container may run under a number that has no entry there, and a directory service may not answer.
fn account() -> Account {
    let uid = nix::unistd::getuid();
    let name = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    Account {
        name: name.unwrap_or_else(|| uid.to_string()),
        uid: Some(uid.as_raw()),
        sudo_user: ["SUDO_USER", "DOAS_USER"].into_iter().find_map(config::variable),
    }
}

/// The name of this machine.
pub(super) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The zone of our own times.
pub(super) fn own_zone(common: &Common) -> OwnZone {
    if common.utc { OwnZone::Utc } else { OwnZone::Local }
}

/// The state, only to be read.
pub(super) fn open_read_only(common: &Common) -> anyhow::Result<State> {
    let path = config::state_path(common);
    State::open_read_only(&path)?.ok_or_else(|| Refusal::NoState { state: path }.into())
}
