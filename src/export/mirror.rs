//! Writes the script's state file after a run, for programs that still read it.

use std::sync::Arc;

use super::options::{Backups, ExportOptions, Mirror};
use crate::fs::file::PrivateFile;
use crate::fs::private::PrivateFolder;
use crate::lang::Message;
use crate::refusal::{MirrorFault, Refusal};
use crate::state::State;
use crate::state::legacy::{self, UnwritableTenant};
use crate::state::legacy_file::{self, BackupPolicy};

/// Called while the lock is held: the script cannot write its file at the same time.
pub(super) fn mirror(options: &ExportOptions, private: &Arc<PrivateFolder>, state: &State) -> anyhow::Result<()> {
    if options.mirror == Mirror::Off {
        return Ok(());
    }
    let mirrored = PrivateFile::new(private, legacy::FILE);
    let write = || {
        let entries = state.legacy_entries()?;
        // The script's own file, before it was imported, says more than nothing.
        if entries.is_empty() {
            return Ok(());
        }
        let Backups { every, keep } = options.backups;
        let keep = every.map_or(BackupPolicy::None, |every| BackupPolicy::Spaced { every, newest: keep });
        legacy_file::replace(
            &mirrored,
            legacy::render(&entries)?.as_bytes(),
            keep,
            (options.common.surroundings.clocks.now)(),
        )
        .map(drop)
    };
    let file = mirrored.path().to_path_buf();
    write().map_err(|error: anyhow::Error| match error.downcast::<UnwritableTenant>() {
        Ok(UnwritableTenant(tenant)) => Refusal::NotMirrored { file, fault: MirrorFault::Tenant(tenant.0) }.into(),
        Err(error) => {
            let fault = MirrorFault::Unwritten(Message::from(&error).into());
            Refusal::NotMirrored { file, fault }.into()
        }
    })
}
