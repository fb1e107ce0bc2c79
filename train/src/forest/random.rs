//! The random numbers of one tree: Xoshiro256++, seeded by SHA-256 over the forest's seed and the tree's
//! number, so that a tree does not depend on the trees before it or on the thread that grows it.

use rand_core::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;
use sha2::{Digest as _, Sha256};

/// What the model file says of it.
pub const NAME: &str = "xoshiro256++, seeded by SHA-256 of purpose, seed and index";

/// A stream of random numbers.
pub struct Random(Xoshiro256PlusPlus);

impl Random {
    /// One stream per purpose and index.
    pub fn new(purpose: &str, seed: u64, index: u64) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(purpose.as_bytes());
        hasher.update(seed.to_le_bytes());
        hasher.update(index.to_le_bytes());
        Self(Xoshiro256PlusPlus::from_seed(hasher.finalize().into()))
    }

    /// A number below `limit`: the high half of a 64 x 64 bit product. Its bias is below `limit` / 2^64.
    #[allow(clippy::cast_possible_truncation)] // below limit
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.0.next_u64()) * limit as u128) >> 64) as usize
    }

    /// Shuffles by Fisher and Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_and_differ() {
        let draw = |purpose, seed, index| {
            let mut random = Random::new(purpose, seed, index);
            [random.below(1000), random.below(1000), random.below(1000)]
        };
        assert_eq!(draw("tree", 1, 0), draw("tree", 1, 0));
        assert_ne!(draw("tree", 1, 0), draw("tree", 1, 1));
        assert_ne!(draw("tree", 1, 0), draw("tree", 2, 0));
        assert_ne!(draw("tree", 1, 0), draw("split", 1, 0));
        // A model must come out the same with every release of the library. These numbers come from another
        // implementation of Xoshiro256++ and SHA-256 (in Python).
        assert_eq!(draw("tree", 42, 7), FIRST_DRAWS);
    }

    const FIRST_DRAWS: [usize; 3] = [167, 632, 849];
}
