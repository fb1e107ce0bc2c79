//! Makes a forest's shares mean what they say: temperature scaling on rows that the forest has not seen.

use model::Calibration;

/// Smallest and largest temperature tried, and the step between two, as powers of 2.
const EXPONENTS: std::ops::RangeInclusive<i32> = -24..=24;
const STEPS_PER_DOUBLING: f64 = 8.0;
/// Bins of the reliability diagram.
pub const BINS: usize = 15;

/// The temperature under which the true classes are likeliest, among steps of an eighth of a doubling from
/// 1/8 to 8: a fixed grid has no stopping rule that a last bit could change. `trees` sets the floor: half a
/// vote, so that a class without votes is unlikely, and not impossible.
pub fn temperature(shares: &[f32], actual: &[u8], classes: usize, trees: usize) -> Calibration {
    let floor = 0.5 / trees.max(1) as f64;
    let at = |exponent: i32| Calibration::Temperature {
        temperature: (f64::from(exponent) / STEPS_PER_DOUBLING).exp2(),
        floor,
    };
    let loss = |exponent: &i32| {
        let calibration = at(*exponent);
        let mut row = vec![0.0; classes];
        let rows = shares.chunks_exact(classes).zip(actual);
        rows.map(|(shares, class)| {
            row.copy_from_slice(shares);
            calibration.apply(&mut row);
            -f64::from(row[usize::from(*class)]).max(f64::MIN_POSITIVE).ln()
        })
        .sum::<f64>()
    };
    let losses: Vec<(i32, f64)> = EXPONENTS.map(|exponent| (exponent, loss(&exponent))).collect();
    let best = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1).then(a.0.abs().cmp(&b.0.abs())));
    at(best.map_or(0, |(exponent, _)| *exponent))
}

/// One bin of the reliability diagram: rows, their mean confidence, and the share of them that was right.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    pub rows: u64,
    pub confidence: f64,
    pub accuracy: f64,
}

/// The winner's probability against how often the winner was right, over bins of equal width.
pub fn reliability(shares: &[f32], actual: &[u8], winners: &[u8], classes: usize) -> Vec<Bin> {
    let mut bins = vec![Bin::default(); BINS];
    for ((shares, actual), winner) in shares.chunks_exact(classes).zip(actual).zip(winners) {
        let confidence = f64::from(shares[usize::from(*winner)]);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of BINS
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.rows += 1;
        bin.confidence += confidence;
        bin.accuracy += f64::from(u8::from(actual == winner));
    }
    for bin in bins.iter_mut().filter(|bin| bin.rows > 0) {
        bin.confidence /= bin.rows as f64;
        bin.accuracy /= bin.rows as f64;
    }
    bins
}

/// Expected calibration error: the mean distance of confidence from accuracy, weighted by rows.
pub fn ece(bins: &[Bin]) -> f64 {
    let rows: u64 = bins.iter().map(|bin| bin.rows).sum();
    let distance: f64 = bins.iter().map(|bin| bin.rows as f64 * (bin.confidence - bin.accuracy).abs()).sum();
    distance / rows.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_too_sure_is_cooled() {
        // Says 0.95 and is right 7 times of 10.
        let shares = [0.95, 0.05].repeat(10);
        let actual = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1];
        let before = ece(&reliability(&shares, &actual, &[0; 10], 2));
        assert!((before - 0.25).abs() < 1e-6);
        let calibration = temperature(&shares, &actual, 2, 300);
        let mut calibrated = shares.clone();
        calibrated.chunks_exact_mut(2).for_each(|row| calibration.apply(row));
        let after = ece(&reliability(&calibrated, &actual, &[0; 10], 2));
        assert!(after < 0.05, "{before} -> {after} by {calibration:?}");
        assert!((calibrated[0] + calibrated[1] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_calibrated_model_is_left_alone() {
        let shares = [0.7, 0.3].repeat(10);
        let actual = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1];
        let Calibration::Temperature { temperature, .. } = temperature(&shares, &actual, 2, 10_000) else {
            panic!("a temperature");
        };
        assert_eq!(temperature, 1.0);
    }
}
