//! What a forest says of its own training rows: each row is judged by the trees whose samples left it out.

use model::Forest;
use rayon::prelude::*;

use super::{Rows, Settings, stream, tree};
use crate::data::SpillError;

/// Trees whose draws share a byte per row.
const OCTET: usize = 8;

/// The likeliest class of every chosen row, in their order, the first of equals; `None` where every tree drew
/// the row. The samples are drawn again from the seeds. Votes are whole numbers, so that no order of summing
/// can change a class.
///
/// # Errors
/// Where the rows cannot be read.
///
/// # Panics
/// Where the forest was not fitted on these rows by these settings, or drew no samples.
pub fn out_of_bag(
    rows: Rows<'_>,
    settings: &Settings,
    forest: &Forest,
) -> Result<Vec<Option<u8>>, SpillError> {
    assert!(settings.bootstrap && forest.trees() == settings.trees, "a forest whose trees drew samples");
    let drawn: Vec<Vec<u8>> = (0..settings.trees.div_ceil(OCTET))
        .into_par_iter()
        .map(|octet| drawn(rows.chosen.len(), settings, octet))
        .collect();
    rows.cells.map_rows(rows.chosen, 1, |part, values, classes| {
        let mut votes = vec![0u32; rows.number_of_classes];
        let first = rows.chosen.partition_point(|row| *row < part[0]);
        let values = values.chunks_exact(rows.cells.inputs());
        for (place, (values, class)) in (first..).zip(values.zip(classes)) {
            votes.fill(0);
            let left_out = |tree: &usize| drawn[tree / OCTET][place] >> (tree % OCTET) & 1 == 0;
            forest.add_votes((0..settings.trees).filter(left_out), values, &mut votes);
            *class = winner(&votes);
        }
    })
}

/// Which trees of an octet drew each row: a bit per tree.
fn drawn(rows: usize, settings: &Settings, octet: usize) -> Vec<u8> {
    let mut drawn = vec![0; rows];
    let first = octet * OCTET;
    for (bit, index) in (first..settings.trees.min(first + OCTET)).enumerate() {
        tree::sample(rows, &mut stream(settings.seed, index), |row| drawn[row] |= 1 << bit);
    }
    drawn
}

#[allow(clippy::cast_possible_truncation)] // at most 256 classes
fn winner(votes: &[u32]) -> Option<u8> {
    let best = (0..votes.len()).rev().max_by_key(|class| votes[*class])?;
    (votes[best] > 0).then_some(best as u8)
}
