//! Which ids and paths this run has surely not given out yet: a ledger that was empty when it began need not
//! be asked for them.
//!
//! A Bloom filter: it may take what is new for known, which costs a question to the ledger, and never what is
//! known for new.

use std::hash::{BuildHasher, Hash, RandomState};

/// 1 MiB. With a million invoices, which have an id and a path each, one question in seven is for nothing.
const BITS: usize = 1 << 23;

#[derive(Debug)]
pub(super) struct Given {
    bits: Vec<u64>,
    hash: RandomState,
}

impl Given {
    pub(super) fn nothing() -> Self {
        Self { bits: vec![0; BITS / 64], hash: RandomState::new() }
    }

    pub(super) fn add(&mut self, key: &impl Hash) {
        for place in self.places(key) {
            self.bits[place / 64] |= 1 << (place % 64);
        }
    }

    pub(super) fn surely_lacks(&self, key: &impl Hash) -> bool {
        self.places(key).iter().any(|place| self.bits[place / 64] & (1 << (place % 64)) == 0)
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
    fn what_was_given_out_is_never_taken_for_new_and_what_is_new_seldom_for_given_out() {
        let mut given = Given::nothing();
        let told_new = (0..1_000_000).filter(|n| {
            let new = given.surely_lacks(n);
            given.add(n);
            assert!(!given.surely_lacks(n));
            new
        });
        assert!(told_new.count() > 900_000);
        assert!((0..1_000_000).all(|n| !given.surely_lacks(&n)));
    }
}
