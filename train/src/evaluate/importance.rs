//! Permutation importance: what a model loses where one input's values are shuffled among the held-out rows.

use model::{Forest, Importance};
use rayon::prelude::*;

use super::score::macro_f1;
use crate::data::SpillError;
use crate::forest::random::Random;
use crate::set::{LabelledSet, winners};

/// Held-out rows that are shuffled at most: enough for two digits, and cheap beside fitting.
const MOST_ROWS: usize = 2000;
const REPEATS: u64 = 3;

/// The inputs that lose something, the largest loss of macro F1 first.
///
/// # Errors
/// Where the rows cannot be read.
pub fn importance(
    set: &LabelledSet,
    forest: &Forest,
    rows: &[u32],
    seed: u64,
) -> Result<Vec<Importance>, SpillError> {
    let step = rows.len().div_ceil(MOST_ROWS).max(1);
    let rows: Vec<u32> = rows.iter().copied().step_by(step).collect();
    let (inputs, classes) = (set.table.cells.inputs(), set.classes.len());
    let actual = set.classes_of(&rows);
    let values = set.table.cells.rows(&rows)?;
    let judged = |values: &[f32]| {
        let mut shares = vec![0.0; rows.len() * classes];
        forest.predict_batch(values, inputs, &mut shares);
        macro_f1(&actual, &winners(&shares, classes), classes)
    };
    let whole = judged(&values);
    let names: Vec<&str> = features::schema::inputs().map(|column| column.name).collect();
    let mut losses: Vec<(usize, f64)> = (0..inputs)
        .into_par_iter()
        .filter(|input| forest.uses(*input))
        .map(|input| {
            let loss = |repeat| whole - judged(&shuffled(&values, inputs, input, seed, repeat));
            (input, (0..REPEATS).map(loss).sum::<f64>() / REPEATS as f64)
        })
        .filter(|(_, loss)| *loss > 0.0)
        .collect();
    losses.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let importance = |(input, loss): (usize, f64)| Importance { input: names[input].to_owned(), loss };
    Ok(losses.into_iter().map(importance).collect())
}

fn shuffled(values: &[f32], inputs: usize, input: usize, seed: u64, repeat: u64) -> Vec<f32> {
    let mut column: Vec<f32> = values.iter().copied().skip(input).step_by(inputs).collect();
    Random::new("importance", seed, input as u64 * REPEATS + repeat).shuffle(&mut column);
    let mut values = values.to_vec();
    values.iter_mut().skip(input).step_by(inputs).zip(column).for_each(|(place, value)| *place = value);
    values
}
