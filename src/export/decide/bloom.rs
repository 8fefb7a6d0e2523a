//! A Bloom filter: it may take what is new for known, which costs a question to the ledger, and never what is known
//! for new.
//!
//! A first run begins with an empty ledger, and asks it nothing about ids and paths that the filter does not contain:
//! the run has not given them out. That spares two of three statements for each file.

use std::hash::{BuildHasher, Hash, RandomState};

/// 1 MiB. With a million invoices, which have an id and a path each, one question in seven is for nothing.
const BITS: usize = 1 << 23;

#[derive(Debug)]
pub(in crate::export) struct BloomFilter {
    bits: Vec<u64>,
    hash: RandomState,
}

impl BloomFilter {
    pub(in crate::export) fn new() -> Self {
        Self { bits: vec![0; BITS / 64], hash: RandomState::new() }
    }

    /// From here on the key may be contained.
    pub(super) fn insert(&mut self, key: &impl Hash) {
        for place in self.places(key) {
            self.bits[place / 64] |= 1 << (place % 64);
        }
    }

    /// False only if the key was never inserted.
    pub(super) fn may_contain(&self, key: &impl Hash) -> bool {
        self.places(key).iter().all(|place| self.bits[place / 64] & (1 << (place % 64)) != 0)
    }

    fn places(&self, key: &impl Hash) -> [usize; 2] {
        let hash = self.hash.hash_one(key);
        [hash as usize % BITS, (hash >> 32) as usize % BITS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_never_taken_for_new_and_what_is_new_seldom_for_inserted() {
        let mut filter = BloomFilter::new();
        let taken_for_new = (0..1_000_000).filter(|n| {
            let is_new = !filter.may_contain(n);
            filter.insert(n);
            assert!(filter.may_contain(n));
            is_new
        });
        assert!(taken_for_new.count() > 900_000);
        assert!((0..1_000_000).all(|n| filter.may_contain(&n)));
    }
}
