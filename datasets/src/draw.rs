//! Numbers drawn from a run's seed: the same seed gives the same plan, whatever the machine does with it.

use std::time::Duration;

use rand_core::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A stream of numbers. Every client and every fault has one of its own, told apart by a name, so that a new
/// one does not change what the others draw.
pub struct Draw(Xoshiro256PlusPlus);

impl Draw {
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a: a named, stable hash, which std's is not.
        let hash = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self(Xoshiro256PlusPlus::seed_from_u64(seed ^ hash))
    }

    /// In `[0, 1)`, with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// In `[low, high)`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// In `low..=high`; the bias of the remainder is below 2^-32 for the small ranges drawn here.
    pub fn integer(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high.saturating_sub(low)) + 1;
        low + u32::try_from(self.0.next_u64() % span).unwrap_or(0)
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub fn choice<T: Copy>(&mut self, of: &[T]) -> T {
        let last = u32::try_from(of.len()).unwrap_or(u32::MAX) - 1;
        of[self.integer(0, last) as usize]
    }

    /// Exponentially distributed, as the gaps between independent arrivals are, and cut off at five means.
    pub fn pause(&mut self, mean: Duration) -> Duration {
        mean.mul_f64((-(1.0 - self.unit()).ln()).min(5.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_a_purpose_its_own() {
        let of =
            |seed, purpose| (0..4).map(|_| 0).scan(Draw::new(seed, purpose), |d, _| Some(d.integer(0, 999)));
        let first: Vec<u32> = of(7, "load").collect();
        assert_eq!(first, of(7, "load").collect::<Vec<_>>());
        assert_ne!(first, of(7, "fault").collect::<Vec<_>>());
        assert_ne!(first, of(8, "load").collect::<Vec<_>>());
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut draw = Draw::new(1, "range");
        for _ in 0..10_000 {
            assert!((3..=5).contains(&draw.integer(3, 5)));
            assert!((0.5..2.0).contains(&draw.between(0.5, 2.0)));
            assert!(draw.pause(Duration::from_millis(10)) <= Duration::from_millis(50));
        }
    }
}
