//! The script's state file, written after a run for whoever still reads it.

use std::sync::Arc;

use super::{Backups, Order};
use crate::fs::file::PrivateFile;
use crate::fs::private::PrivateFolder;
use crate::refusal::Refusal;
use crate::state::State;
use crate::state::legacy::{self, UnwritableTenant};
use crate::state::legacy_file::{self, BackupPolicy};

/// Whether the script's state file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirror {
    Off,
    On,
}

/// Called while the lock is held: the script cannot write its file at the same time.
pub(super) fn mirror(order: &Order, private: &Arc<PrivateFolder>, state: &State) -> anyhow::Result<()> {
    if order.mirror == Mirror::Off {
        return Ok(());
    }
    let mirrored = PrivateFile::new(private, legacy::FILE);
    let write = || {
        let entries = state.legacy_entries()?;
        // The script's own file, before it was imported, says more than nothing.
        if entries.is_empty() {
            return Ok(());
        }
        let Backups { every, keep } = order.backups;
        let keep = every.map_or(BackupPolicy::None, |every| BackupPolicy::Spaced { every, newest: keep });
        legacy_file::replace(&mirrored, legacy::render(&entries)?.as_bytes(), keep, (order.clocks.now)()).map(drop)
    };
    let file = mirrored.path().to_path_buf();
    write().map_err(|error: anyhow::Error| match error.downcast::<UnwritableTenant>() {
        Ok(UnwritableTenant(tenant)) => Refusal::NotMirrored { file, tenant: Some(tenant.0) }.into(),
        Err(error) => error.context(Refusal::NotMirrored { file, tenant: None }),
    })
}
