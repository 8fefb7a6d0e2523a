//! Lets other users read the state, with all that belongs to it.

use super::backup;
use crate::fs::readers::StateMode;
use crate::lock::ExportLock;

/// Lets those who may read the lock read the state, what SQLite keeps beside it, the states that were set aside, and
/// all backups; if an operator asked for it.
pub(super) fn admit(lock: &ExportLock) -> anyhow::Result<()> {
    let Some(mode) = lock.mode().map(StateMode::bits) else { return Ok(()) };
    let (state, folder) = (lock.state(), lock.state().folder());
    folder.admit(mode)?;
    let start = state.name().as_encoded_bytes();
    for name in folder.names()?.iter().filter(|name| name.as_encoded_bytes().starts_with(start)) {
        folder.set_mode(name, mode)?;
    }
    let Some(backups) = folder.open_subfolder(backup::FOLDER)? else { return Ok(()) };
    backups.admit(mode)?;
    backups.names()?.iter().try_for_each(|name| backups.set_mode(name, mode))
}
