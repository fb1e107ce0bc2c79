//! Sums over samples in whole nanoseconds, so that neither order nor threads can change a digit, and the
//! samples themselves for percentiles.

use sketches_ddsketch::{Config, DDSketch};

use crate::prefetch::bring;

/// Count, sum and sum of squares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    squares: u128,
    sum: u64,
    pub count: u32,
}

impl Moments {
    pub fn add(&mut self, sample: u64) {
        self.squares = self.squares.saturating_add(u128::from(sample) * u128::from(sample));
        self.sum = self.sum.saturating_add(sample);
        self.count = self.count.saturating_add(1);
    }

    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / f64::from(self.count))
    }

    /// With n-1 in the denominator.
    pub fn sample_variance(&self) -> Option<f64> {
        let n = u128::from(self.count);
        (n > 1).then(|| {
            let spread = (n * self.squares).saturating_sub(u128::from(self.sum) * u128::from(self.sum));
            spread as f64 / (n * (n - 1)) as f64
        })
    }
}

/// Samples kept as they are per flow and window; further ones turn them into a sketch.
pub const EXACT: u32 = 511;
/// Relative error of a sketch's percentiles.
pub const SKETCH_ERROR: f64 = 0.005;
/// Buckets of a sketch. At [`SKETCH_ERROR`] they span nine decades; below, the smallest samples are merged.
const SKETCH_BUCKETS: u32 = 2048;

const NONE: u32 = u32::MAX;
const SKETCH: u32 = 1 << 31;
const CHUNK: usize = 7;

/// Where the samples of one flow and window stand in a [`SampleStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Samples {
    /// The last chunk, or a sketch where the high bit is set.
    place: u32,
    count: u32,
}

impl Default for Samples {
    fn default() -> Self {
        Self { place: NONE, count: 0 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    samples: [u64; CHUNK],
    previous: u32,
}

/// The samples of all flows of one window.
#[derive(Default)]
pub struct SampleStore {
    chunks: Vec<Chunk>,
    sketches: Vec<DDSketch>,
}

impl SampleStore {
    pub fn add(&mut self, samples: &mut Samples, sample: u64) {
        if samples.place != NONE && samples.place & SKETCH != 0 {
            self.sketches[(samples.place & !SKETCH) as usize].add(sample as f64);
        } else if samples.count == EXACT {
            let mut sketch = DDSketch::new(Config::new(SKETCH_ERROR, SKETCH_BUCKETS, 1.0));
            for kept in self.exact(*samples) {
                sketch.add(kept as f64);
            }
            sketch.add(sample as f64);
            samples.place = SKETCH | index(self.sketches.len());
            self.sketches.push(sketch);
        } else {
            let place = samples.count as usize % CHUNK;
            if place == 0 {
                self.chunks.push(Chunk { samples: [0; CHUNK], previous: samples.place });
                samples.place = index(self.chunks.len() - 1);
            }
            self.chunks[samples.place as usize].samples[place] = sample;
        }
        samples.count = samples.count.saturating_add(1);
    }

    /// Brings the place of the next sample into the cache.
    pub fn bring(&self, samples: Samples) {
        if let Some(chunk) = self.chunks.get(samples.place as usize) {
            bring(chunk);
        }
    }

    fn exact(&self, samples: Samples) -> Vec<u64> {
        let mut all = Vec::with_capacity(samples.count as usize);
        let (mut place, mut last) = (samples.place, (samples.count as usize + CHUNK - 1) % CHUNK + 1);
        while place != NONE {
            let chunk = &self.chunks[place as usize];
            all.extend_from_slice(&chunk.samples[..last]);
            (place, last) = (chunk.previous, CHUNK);
        }
        all
    }

    /// The nearest-rank percentiles, ascending, in the samples' unit; `None` without samples. Exact for up to
    /// [`EXACT`] samples, else within [`SKETCH_ERROR`] of the sample at that rank.
    pub fn percentiles<const N: usize>(&self, samples: Samples, percents: [u64; N]) -> Option<[f64; N]> {
        if samples.count == 0 {
            return None;
        }
        if samples.place & SKETCH != 0 {
            let sketch = &self.sketches[(samples.place & !SKETCH) as usize];
            let quantile = |percent| sketch.quantile(percent as f64 / 100.0).ok().flatten().unwrap_or(0.0);
            return Some(percents.map(quantile));
        }
        let mut all = self.exact(samples);
        all.sort_unstable();
        Some(percents.map(|percent| {
            let rank = (u64::from(samples.count) * percent).div_ceil(100).max(1);
            all[usize::try_from(rank).unwrap_or(all.len()).min(all.len()) - 1] as f64
        }))
    }
}

fn index(length: usize) -> u32 {
    u32::try_from(length)
        .ok()
        .filter(|index| index & SKETCH == 0)
        .expect("fewer than 2^31 chunks in a window")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rank(samples: usize, percent: usize) -> usize {
        (samples * percent).div_ceil(100).max(1) - 1
    }

    proptest! {
        #[test]
        fn moments_are_the_textbook_ones(samples in prop::collection::vec(0..10_000_000_000u64, 2..100)) {
            let mut moments = Moments::default();
            samples.iter().for_each(|sample| moments.add(*sample));
            let n = samples.len() as f64;
            let mean = samples.iter().map(|s| *s as f64).sum::<f64>() / n;
            let variance = samples.iter().map(|s| (*s as f64 - mean).powi(2)).sum::<f64>() / (n - 1.0);
            prop_assert!((moments.mean().unwrap() - mean).abs() <= mean * 1e-12 + 1e-9);
            prop_assert!((moments.sample_variance().unwrap() - variance).abs() <= variance * 1e-9 + 1e-6);
        }

        #[test]
        fn percentiles_are_exact_then_within_the_error(
            samples in prop::collection::vec(1_000..5_000_000_000u64, 1..2000),
        ) {
            let (mut store, mut ours, mut other) = (SampleStore::default(), Samples::default(), Samples::default());
            for sample in &samples {
                store.add(&mut ours, *sample);
                store.add(&mut other, 7);
            }
            let mut sorted = samples.clone();
            sorted.sort_unstable();
            let got = store.percentiles(ours, [50, 95, 99]).unwrap();
            for (got, percent) in got.into_iter().zip([50, 95, 99]) {
                let rank = rank(sorted.len(), percent);
                if samples.len() <= EXACT as usize {
                    prop_assert_eq!(got, sorted[rank] as f64);
                } else {
                    // The sketch's rank may differ by one sample from the nearest rank.
                    let low = sorted[rank.saturating_sub(1)] as f64 * (1.0 - 1.01 * SKETCH_ERROR);
                    let high = sorted[(rank + 1).min(sorted.len() - 1)] as f64 * (1.0 + 1.01 * SKETCH_ERROR);
                    prop_assert!(low <= got && got <= high, "p{} {} of [{}, {}]", percent, got, low, high);
                }
            }
        }
    }

    #[test]
    fn one_sample_is_every_percentile() {
        let (mut store, mut samples) = (SampleStore::default(), Samples::default());
        assert_eq!(store.percentiles(samples, [50]), None);
        store.add(&mut samples, 5);
        assert_eq!(store.percentiles(samples, [50, 99]), Some([5.0, 5.0]));
    }
}
