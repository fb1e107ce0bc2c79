//! What the training data looked like, input by input: for drift, for the range check, for explanations.

/// Quantiles kept per input: minimum, every 5 %, maximum.
pub const QUANTILES: usize = 21;

/// f32 values of one input in the file: the quantiles, the missing share, the usual value.
pub(crate) const VALUES: usize = QUANTILES + 2;

/// One input's distribution over the training rows.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Of the measured values, nearest rank; all NaN where none was measured.
    pub quantiles: [f32; QUANTILES],
    /// Share of the rows that did not measure it, 0 to 1.
    pub missing: f32,
    /// The median over the rows without a fault; NaN where most of them did not measure it.
    pub usual: f32,
}

impl Profile {
    /// Describes a column of training values, NaN where not measured. `normal` tells whether a row is without
    /// a fault; where none is, every row counts as usual.
    pub fn of(column: &[f32], normal: impl Fn(usize) -> bool) -> Self {
        let mut measured: Vec<f32> = column.iter().copied().filter(|value| !value.is_nan()).collect();
        measured.sort_unstable_by(f32::total_cmp);
        let mut quantiles = [f32::NAN; QUANTILES];
        if !measured.is_empty() {
            for (position, quantile) in quantiles.iter_mut().enumerate() {
                *quantile = measured[position * (measured.len() - 1) / (QUANTILES - 1)];
            }
        }
        let missing = (column.len() - measured.len()) as f64 / column.len().max(1) as f64;
        let mut usual: Vec<f32> =
            (0..column.len()).filter(|row| normal(*row)).map(|row| column[row]).collect();
        if usual.is_empty() {
            usual = column.to_vec();
        }
        #[allow(clippy::cast_possible_truncation)] // a share between 0 and 1
        Self { quantiles, missing: missing as f32, usual: median(usual) }
    }

    /// Whether a value lies within what training saw; a missing one does where some were missing.
    pub fn covers(&self, value: f32) -> bool {
        if value.is_nan() {
            return self.missing > 0.0;
        }
        self.quantiles[0] <= value && value <= self.quantiles[QUANTILES - 1]
    }

    pub(crate) fn values(&self) -> [f32; VALUES] {
        let mut values = [0.0; VALUES];
        values[..QUANTILES].copy_from_slice(&self.quantiles);
        values[QUANTILES] = self.missing;
        values[QUANTILES + 1] = self.usual;
        values
    }

    pub(crate) fn from_values(values: [f32; VALUES]) -> Self {
        let mut quantiles = [0.0; QUANTILES];
        quantiles.copy_from_slice(&values[..QUANTILES]);
        Self { quantiles, missing: values[QUANTILES], usual: values[QUANTILES + 1] }
    }
}

/// The lower median, with NaN above every number.
fn median(mut values: Vec<f32>) -> f32 {
    values.sort_unstable_by(|a, b| a.is_nan().cmp(&b.is_nan()).then(a.total_cmp(b)));
    match values.len() {
        0 => f32::NAN,
        n if values[(n - 1) / 2].is_nan() => f32::NAN,
        n => values[(n - 1) / 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_tells_quantiles_missing_and_usual() {
        let column: Vec<f32> = (0..=100u8).map(f32::from).chain([f32::NAN; 25]).collect();
        let profile = Profile::of(&column, |row| row < 11);
        assert_eq!(profile.quantiles[0], 0.0);
        assert_eq!(profile.quantiles[10], 50.0);
        assert_eq!(profile.quantiles[20], 100.0);
        assert_eq!(profile.usual, 5.0);
        assert!((profile.missing - 25.0 / 126.0).abs() < 1e-6);
        assert!(profile.covers(100.0) && profile.covers(f32::NAN) && !profile.covers(101.0));
        assert!(Profile::of(&[f32::NAN, f32::NAN, 1.0], |_| true).usual.is_nan());
    }
}
