//! The gate that syncs pass one after the other.
//!
//! A disk that fails to keep something says so once, and two batches are on their way at a time: the sync of
//! one may be told what befell the other. So syncs take turns, and after one that failed none succeeds.

use std::io::{self, ErrorKind};
use std::sync::Mutex;

/// What the first sync that failed was told.
#[derive(Debug, Default)]
pub(super) struct SyncGate(Mutex<Option<(ErrorKind, String)>>);

impl SyncGate {
    /// Lets one sync through.
    ///
    /// # Errors
    /// After a sync that failed each later one fails too, without being tried.
    pub(super) fn pass(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let panicked = |_| io::Error::other("another sync ended in a panic, which is a bug");
        let mut failed = self.0.lock().map_err(panicked)?;
        if let Some((kind, error)) = &*failed {
            return Err(io::Error::new(*kind, format!("another sync failed: {error}")));
        }
        let result = sync();
        *failed = result.as_ref().err().map(|error| (error.kind(), error.to_string()));
        result
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn after_a_sync_that_failed_no_later_sync_succeeds() {
        let sync_gate = SyncGate::default();
        sync_gate.pass(|| Ok(())).unwrap();
        let error = sync_gate.pass(|| Err(Errno::NOSPC.into())).unwrap_err();
        let refused = sync_gate.pass(|| Ok(())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
        assert_eq!(refused.to_string(), format!("another sync failed: {error}"));
    }
}
