//! A bound in bytes on the documents in flight: memory does not grow with rows, nor with how slow
//! the disk is.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

/// Bytes in use until this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::new(0), freed: Condvar::new() })
    }

    /// Waits until there is room. A document larger than the whole budget gets it all.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Permit {
        let bytes = bytes.min(self.limit);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while *used + bytes > self.limit {
            used = self.freed.wait(used).unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
        Permit { budget: Arc::clone(self), bytes }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.budget.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_larger_than_the_budget_waits_for_all_of_it_and_then_passes() {
        let budget = Budget::new(10);
        let small = budget.take(4);
        std::thread::scope(|scope| {
            let large = scope.spawn(|| budget.take(40).bytes);
            drop(small);
            assert_eq!(large.join().unwrap(), 10);
        });
        assert_eq!(*budget.used.lock().unwrap(), 0);
    }
}
