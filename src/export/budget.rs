//! Owns the bound in bytes on the documents in flight, so that memory grows neither with the number of rows nor with a
//! slow disk.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct Budget {
    pub limit: usize,
    used: Mutex<Used>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Used {
    bytes: usize,
    /// Threads that wait. Waking costs a system call even where none waits.
    waiting: usize,
}

/// Bytes in use until this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::default(), freed: Condvar::new() })
    }

    /// Waits until there is room. A document larger than the whole budget gets it all.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Permit {
        let bytes = bytes.min(self.limit);
        let mut used = self.used();
        while used.bytes + bytes > self.limit {
            used.waiting += 1;
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
            used.waiting -= 1;
        }
        used.bytes += bytes;
        Permit { budget: Arc::clone(self), bytes }
    }

    /// The same, or nothing where it would have to wait.
    pub(super) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let bytes = bytes.min(self.limit);
        let mut used = self.used();
        (used.bytes + bytes <= self.limit).then(|| {
            used.bytes += bytes;
            Permit { budget: Arc::clone(self), bytes }
        })
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        // The numbers are right after every statement, so a thread that panicked leaves it usable.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.budget.used();
        used.bytes -= self.bytes;
        if used.waiting > 0 {
            self.budget.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_larger_than_the_budget_waits_for_all_of_it_and_then_passes() {
        let budget = Budget::new(10);
        let small = budget.take(4);
        assert!(budget.try_take(40).is_none() && budget.try_take(6).is_some());
        std::thread::scope(|scope| {
            let large = scope.spawn(|| budget.take(40).bytes);
            drop(small);
            assert_eq!(large.join().unwrap(), 10);
        });
        assert_eq!(budget.used().bytes, 0);
    }
}
