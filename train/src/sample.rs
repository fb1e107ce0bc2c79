//! Which rows of a large class are fitted on: the same number of each recording, as far as it has them.

use std::collections::BTreeMap;

use tracing::info;

use crate::forest::random::Random;
use crate::set::LabelledSet;

/// At most `most` of these rows of every class, in their order, spread over the class's recordings by the seed.
pub fn sample(set: &LabelledSet, rows: &[u32], most: usize, seed: u64) -> Vec<u32> {
    let mut of_class: BTreeMap<u8, BTreeMap<u32, Vec<u32>>> = BTreeMap::new();
    for row in rows {
        let (class, group) = (set.of_row[*row as usize], set.table.groups[*row as usize]);
        of_class.entry(class).or_default().entry(group).or_default().push(*row);
    }
    let mut kept = Vec::new();
    for (class, recordings) in of_class {
        let sizes: Vec<usize> = recordings.values().map(Vec::len).collect();
        for ((group, mut rows), share) in recordings.into_iter().zip(shares(&sizes, most)) {
            let mut random = Random::new("sample", seed, u64::from(class) << 32 | u64::from(group));
            // The first places of a shuffle are a sample without replacement.
            for place in 0..share {
                let pick = place + random.below(rows.len() - place);
                rows.swap(place, pick);
            }
            kept.extend_from_slice(&rows[..share]);
        }
    }
    kept.sort_unstable();
    kept
}

/// How many of each recording's rows: all of the small ones, and of the others the same number, but for one.
fn shares(sizes: &[usize], most: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|recording| (sizes[*recording], *recording));
    let mut shares = vec![0; sizes.len()];
    let mut left = most;
    for (done, recording) in order.into_iter().enumerate() {
        shares[recording] = sizes[recording].min(left / (sizes.len() - done));
        left -= shares[recording];
    }
    shares
}

/// Says how many rows of each class are left out.
pub fn tell(set: &LabelledSet, rows: &[u32], kept: &[u32]) {
    let classes = set.classes_in(rows);
    let left_out: Vec<String> = classes
        .iter()
        .zip(set.classes_in(kept))
        .filter(|(all, kept)| all.rows > kept.rows)
        .map(|(all, kept)| format!("{} {} of {}", all.name, all.rows - kept.rows, all.rows))
        .collect();
    info!(
        "fitting on {} of {} rows; left out to balance the classes: {}; scores are over all held-out rows",
        kept.len(),
        rows.len(),
        if left_out.is_empty() { "none".to_owned() } else { left_out.join(", ") }
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_recordings_are_kept_whole_and_large_ones_share_the_rest() {
        assert_eq!(shares(&[5, 100, 7, 100], 40), [5, 14, 7, 14]);
        assert_eq!(shares(&[100, 100, 100], 11), [3, 4, 4]);
        assert_eq!(shares(&[3, 4], 100), [3, 4]);
        assert_eq!(shares(&[9, 9, 9], 2), [0, 1, 1]);
        assert_eq!(shares(&[5, 37, 37], 78), [5, 36, 37]);
    }

    proptest! {
        #[test]
        fn shares_fill_what_there_is(sizes in prop::collection::vec(1usize..50, 1..20), most in 1usize..400) {
            let shares = shares(&sizes, most);
            prop_assert_eq!(shares.iter().sum::<usize>(), most.min(sizes.iter().sum()));
            prop_assert!(shares.iter().zip(&sizes).all(|(share, size)| share <= size));
            let cut: Vec<usize> =
                shares.iter().zip(&sizes).filter(|(share, size)| share < size).map(|(share, _)| *share).collect();
            let (low, high) = (cut.iter().min().unwrap_or(&0), cut.iter().max().unwrap_or(&0));
            prop_assert!(high - low <= 1, "{:?}", cut);
            // One that is whole has the one row more at most.
            prop_assert!(shares.iter().all(|share| *share <= low + 1 || cut.is_empty()));
        }
    }
}
