//! Columns as bytes: every value by the number of the bin it falls into.

use rayon::prelude::*;

use crate::data::{Cells, SpillError};

/// The bin of a value that was not measured.
pub const MISSING: u8 = u8::MAX;

/// Bins of measured values; one byte holds them and [`MISSING`].
const MAX_BINS: usize = 255;

/// One input's training values.
pub struct Column {
    /// Bin b holds the values in `(edges[b - 1], edges[b]]`; the last bin has no upper edge.
    pub edges: Vec<f32>,
    /// One bin per training row.
    pub bins: Vec<u8>,
    /// Whether all rows have the same bin: such a column cannot split.
    pub constant: bool,
}

/// The training rows, column by column.
pub struct Bins {
    pub columns: Vec<Column>,
}

impl Bins {
    /// Bins those ascending rows. Edges are chosen from these rows alone.
    pub fn new(cells: &Cells, rows: &[u32]) -> Result<Self, SpillError> {
        let columns = (0..cells.inputs()).into_par_iter();
        let columns: Result<_, SpillError> =
            columns.map(|input| cells.column(input, rows).map(|values| Column::new(&values))).collect();
        Ok(Self { columns: columns? })
    }
}

impl Column {
    fn new(values: &[f32]) -> Self {
        let mut measured: Vec<f32> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        measured.sort_unstable_by(f32::total_cmp);
        let edges = edges(&measured);
        let bins: Vec<u8> = values.iter().map(|value| bin_of(&edges, *value)).collect();
        let constant = bins.windows(2).all(|pair| pair[0] == pair[1]);
        Self { edges, bins, constant }
    }

    /// The f32 that divides bin `bin` from the next: values up to it go left.
    pub fn threshold(&self, bin: u8) -> f32 {
        // Behind the last bin stand the missing values alone: every number goes left.
        self.edges.get(usize::from(bin)).copied().unwrap_or(f32::MAX)
    }
}

#[allow(clippy::cast_possible_truncation)] // at most MAX_BINS - 1 edges
fn bin_of(edges: &[f32], value: f32) -> u8 {
    if value.is_nan() { MISSING } else { edges.partition_point(|edge| *edge < value) as u8 }
}

/// Edges between sorted values: one bin per distinct value where they are few, else bins of about equal
/// weight, in which a value that is heavier than its share has a bin of its own.
fn edges(sorted: &[f32]) -> Vec<f32> {
    let distinct = || sorted.chunk_by(|a, b| a == b);
    let mut values_left = distinct().count();
    let mut edges = Vec::new();
    let mut left = sorted.len();
    let mut in_bin = 0;
    for (run, next) in distinct().zip(distinct().skip(1)) {
        in_bin += run.len();
        let bins_left = MAX_BINS - edges.len();
        let share = left / bins_left;
        let full = in_bin >= share.max(1) || next.len() > share;
        if values_left <= bins_left || (full && bins_left > 1) {
            edges.push(between(run[0], next[0]));
            left -= in_bin;
            in_bin = 0;
        }
        values_left -= 1;
    }
    edges
}

/// A number in `[low, high)`, in the middle where there is one.
fn between(low: f32, high: f32) -> f32 {
    let middle = low / 2.0 + high / 2.0;
    if low <= middle && middle < high { middle } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn few_values_have_a_bin_each() {
        let column = Column::new(&[3.0, 1.0, f32::NAN, 1.0, 2.0]);
        assert_eq!(column.edges, [1.5, 2.5]);
        assert_eq!(column.bins, [2, 0, MISSING, 0, 1]);
        assert_eq!(column.threshold(2), f32::MAX);
        assert!(!column.constant);
        assert!(Column::new(&[f32::NAN, f32::NAN]).constant);
    }

    #[test]
    fn many_values_share_bins_evenly_and_heavy_ones_stand_alone() {
        let values: Vec<f32> = [0.0; 5000].into_iter().chain((1..=5000u16).map(f32::from)).collect();
        let column = Column::new(&values);
        assert!(column.edges.len() > 240 && column.edges.len() < MAX_BINS, "{}", column.edges.len());
        let mut counts = [0; 256];
        column.bins.iter().for_each(|bin| counts[usize::from(*bin)] += 1);
        assert_eq!(counts[0], 5000);
        assert!(counts[1..=column.edges.len()].iter().all(|count| (1..=60).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn bins_keep_the_order_of_values(
            values in prop::collection::vec(prop_oneof![any::<f32>(), -4.0f32..4.0, Just(f32::NAN)], 1..900),
        ) {
            let values: Vec<f32> = values.into_iter().filter(|value| !value.is_infinite()).collect();
            let column = Column::new(&values);
            prop_assert!(column.edges.len() < MAX_BINS);
            prop_assert!(column.edges.windows(2).all(|pair| pair[0] < pair[1]));
            for (value, bin) in values.iter().zip(&column.bins) {
                prop_assert_eq!(value.is_nan(), *bin == MISSING);
                if *bin != MISSING {
                    for split in 0..=column.edges.len() {
                        let split = u8::try_from(split).unwrap();
                        prop_assert_eq!(*bin <= split, *value <= column.threshold(split));
                    }
                }
            }
        }
    }
}
