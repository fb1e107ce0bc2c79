//! What a forest says of its own training rows: each row is judged by the trees whose samples left it out.

use model::Forest;
use rayon::prelude::*;

use super::{Rows, Settings, stream, tree};

/// Trees whose draws share a byte per row.
const OCTET: usize = 8;
/// Rows whose inputs one thread holds at a time.
const BLOCK: usize = 256;

/// The likeliest class of every chosen row, in their order, the first of equals; `None` where every tree drew
/// the row. The samples are drawn again from the seeds. Votes are whole numbers, so that no order of summing
/// can change a class.
///
/// # Panics
/// Where the forest was not fitted on these rows by these settings, or drew no samples.
pub fn out_of_bag(rows: Rows<'_>, settings: &Settings, forest: &Forest) -> Vec<Option<u8>> {
    assert!(settings.bootstrap && forest.trees() == settings.trees, "a forest whose trees drew samples");
    let drawn: Vec<Vec<u8>> = (0..settings.trees.div_ceil(OCTET))
        .into_par_iter()
        .map(|octet| drawn(rows.chosen.len(), settings, octet))
        .collect();
    let mut classes = vec![None; rows.chosen.len()];
    classes.par_chunks_mut(BLOCK).enumerate().for_each(|(block, classes)| {
        let mut values = vec![0.0; rows.columns.len()];
        let mut votes = vec![0u32; rows.number_of_classes];
        for (index, class) in classes.iter_mut().enumerate() {
            let place = block * BLOCK + index;
            let row = rows.chosen[place] as usize;
            values.iter_mut().zip(rows.columns).for_each(|(value, column)| *value = column[row]);
            votes.fill(0);
            let left_out = |tree: &usize| drawn[tree / OCTET][place] >> (tree % OCTET) & 1 == 0;
            forest.add_votes((0..settings.trees).filter(left_out), &values, &mut votes);
            *class = winner(&votes);
        }
    });
    classes
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
