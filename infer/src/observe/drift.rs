//! Drift: how far what is judged lies from what a model was trained on, input by input, as the population stability
//! index: the sum over bins of (now - then) * ln(now / then). Below 0.1 nothing moved; above 0.25 the model is to be
//! looked at.

use model::{Profile, QUANTILES};

/// Rows that an index is computed over: with fewer, chance alone moves it.
pub const ROWS: u64 = 1_000;
/// A share that is smaller counts as this, so that an empty bin does not make the index infinite.
const LEAST: f64 = 1e-4;

/// One input's bins: between the quantiles of the training rows, and one for what was not measured.
struct Bins {
    input: usize,
    /// The upper ends of all bins but the last two.
    ends: Vec<f32>,
    expected: Vec<f64>,
    counts: Vec<u64>,
}

impl Bins {
    fn new(input: usize, profile: &Profile) -> Self {
        let quantiles = &profile.quantiles;
        let mut ends: Vec<f32> = Vec::new();
        if !quantiles[0].is_nan() {
            ends.extend(&quantiles[1..QUANTILES - 1]);
            ends.dedup();
        }
        // The share of the measured training values up to here.
        let share = |end: &f32| {
            let last = quantiles.iter().rposition(|quantile| quantile <= end).unwrap_or(0);
            last as f64 / (QUANTILES - 1) as f64
        };
        let measured = 1.0 - f64::from(profile.missing);
        let mut before = 0.0;
        let mut expected: Vec<f64> = Vec::new();
        for upto in ends.iter().map(share).chain([1.0]) {
            expected.push((upto - before) * measured);
            before = upto;
        }
        expected.push(f64::from(profile.missing));
        let counts = vec![0; expected.len()];
        Self { input, ends, expected, counts }
    }

    fn add(&mut self, value: f32) {
        let bin = if value.is_nan() {
            self.counts.len() - 1
        } else {
            self.ends.partition_point(|end| *end < value)
        };
        self.counts[bin] += 1;
    }

    fn index(&self, rows: u64) -> f64 {
        let share = |count: &u64| (*count as f64 / rows as f64).max(LEAST);
        let each = self.counts.iter().map(share).zip(self.expected.iter().map(|then| then.max(LEAST)));
        each.map(|(now, then)| (now - then) * (now / then).ln()).sum()
    }
}

/// The drift of the inputs that one model looks at.
pub struct Drift {
    width: usize,
    inputs: Vec<Bins>,
    rows: u64,
}

impl Drift {
    /// `uses` tells which inputs the model looks at.
    pub fn new(profile: &[Profile], uses: impl Fn(usize) -> bool) -> Self {
        let used = profile.iter().enumerate().filter(|(input, _)| uses(*input));
        let inputs = used.map(|(input, profile)| Bins::new(input, profile)).collect();
        Self { width: profile.len(), inputs, rows: 0 }
    }

    /// Counts rows, laid out one after the other. Once there are enough, the index of each input, and the count
    /// begins again.
    pub fn add(&mut self, rows: &[f32]) -> Option<Vec<(usize, f64)>> {
        for row in rows.chunks_exact(self.width) {
            self.rows += 1;
            for bins in &mut self.inputs {
                bins.add(row[bins.input]);
            }
        }
        if self.rows < ROWS {
            return None;
        }
        let found = self.inputs.iter().map(|bins| (bins.input, bins.index(self.rows))).collect();
        self.inputs.iter_mut().for_each(|bins| bins.counts.fill(0));
        self.rows = 0;
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half of the values are 0, every tenth is missing, the rest is even from 0 to 100.
    fn draw(count: u16, shift: f32) -> Vec<f32> {
        let value = |place: u16| match place % 10 {
            0 => f32::NAN,
            1..=5 => 0.0,
            _ => f32::from(place / 10 % 100) + shift,
        };
        (0..count).map(value).collect()
    }

    fn index(trained: &[f32], seen: &[f32]) -> f64 {
        let mut drift = Drift::new(&[Profile::of(trained, |_| true)], |_| true);
        drift.add(seen).unwrap()[0].1
    }

    #[test]
    fn the_same_distribution_has_not_drifted() {
        let found = index(&draw(20_000, 0.0), &draw(3_000, 0.0));
        assert!((0.0..0.02).contains(&found), "{found}");
    }

    #[test]
    fn what_moved_or_was_measured_no_more_has_drifted() {
        let trained = draw(20_000, 0.0);
        assert!(index(&trained, &draw(3_000, 50.0)) > 0.25);
        let blind: Vec<f32> = vec![f32::NAN; 2_000];
        assert!(index(&trained, &blind) > 0.25);
        // An input that training never measured.
        assert!(index(&blind, &trained) > 0.25 && index(&blind, &blind) < 0.01);
    }

    #[test]
    fn a_constant_that_stays_has_not_drifted_and_one_that_moves_has() {
        let (one, two) = (vec![1.0; 2_000], vec![2.0; 2_000]);
        assert!(index(&one, &one) < 0.01 && index(&one, &two) > 0.25);
    }

    #[test]
    fn an_index_waits_for_enough_rows_and_forgets_the_rows_before() {
        let trained = draw(20_000, 0.0);
        let mut drift = Drift::new(&[Profile::of(&trained, |_| true); 2], |input| input == 1);
        let row = |value: f32| [f32::NAN, value];
        assert!(drift.add(&row(500.0).repeat(999)).is_none());
        let first = drift.add(&row(500.0)).unwrap();
        assert!(first.len() == 1 && first[0].0 == 1 && first[0].1 > 1.0);
        let same: Vec<f32> = draw(3_000, 0.0).into_iter().flat_map(row).collect();
        assert!(drift.add(&same).unwrap()[0].1 < 0.02);
    }
}
