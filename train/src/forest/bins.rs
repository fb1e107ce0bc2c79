//! Columns as bytes: every value by the number of the bin it falls into.

use rayon::prelude::*;

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
    /// Bins those `rows` of the columns. Edges are chosen from these rows alone.
    pub fn new(columns: &[Vec<f32>], rows: &[u32]) -> Self {
        Self { columns: columns.par_iter().map(|values| Column::new(values, rows)).collect() }
    }
}

impl Column {
    fn new(values: &[f32], rows: &[u32]) -> Self {
        let value = |row: &u32| values[*row as usize];
        let mut measured: Vec<f32> = rows.iter().map(value).filter(|value| !value.is_nan()).collect();
        measured.sort_unstable_by(f32::total_cmp);
        let edges = edges(&measured);
        let bin = |value: f32| bin_of(&edges, value);
        let bins: Vec<u8> = rows.iter().map(|row| bin(value(row))).collect();
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
    let distinct: Vec<(f32, usize)> = sorted.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
    let mut edges = Vec::new();
    let mut left = sorted.len();
    let mut in_bin = 0;
    for (position, (value, count)) in distinct.iter().enumerate() {
        let Some((next, next_count)) = distinct.get(position + 1) else { break };
        in_bin += count;
        let bins_left = MAX_BINS - edges.len();
        let values_left = distinct.len() - position;
        let share = left / bins_left;
        let full = in_bin >= share.max(1) || *next_count > share;
        if values_left <= bins_left || (full && bins_left > 1) {
            edges.push(between(*value, *next));
            left -= in_bin;
            in_bin = 0;
        }
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
        let column = Column::new(&[3.0, 1.0, f32::NAN, 1.0, 2.0], &[0, 1, 2, 3, 4]);
        assert_eq!(column.edges, [1.5, 2.5]);
        assert_eq!(column.bins, [2, 0, MISSING, 0, 1]);
        assert_eq!(column.threshold(2), f32::MAX);
        assert!(!column.constant);
        assert!(Column::new(&[f32::NAN, f32::NAN], &[0, 1]).constant);
    }

    #[test]
    fn many_values_share_bins_evenly_and_heavy_ones_stand_alone() {
        let values: Vec<f32> = [0.0; 5000].into_iter().chain((1..=5000u16).map(f32::from)).collect();
        let rows: Vec<u32> = (0..10_000).collect();
        let column = Column::new(&values, &rows);
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
            let rows: Vec<u32> = (0..u32::try_from(values.len()).unwrap()).collect();
            let column = Column::new(&values, &rows);
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
