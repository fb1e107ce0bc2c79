//! Fits isolation forests (Liu, Ting, Zhou 2008) on normal rows: what few random cuts set apart is unusual.
//! Axis-parallel, because cuts across unscaled heavy tails were measured to be worse.

use std::collections::HashMap;

use anyhow::bail;
use model::{Calibration, Forest, ForestBuilder, Node, Tree, TreeSizeError};
use rayon::prelude::*;
use tracing::warn;

use crate::data::{Cells, SpillError};
use crate::evaluate::Split;
use crate::forest::random::Random;

/// The label of an anomaly of no known kind.
pub const ANOMALY: u16 = u16::MAX;

/// How an isolation forest is grown.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub trees: usize,
    /// Rows of a tree.
    pub sample: usize,
    /// Share of normal validation rows that may be called anomalies.
    pub false_alarms: f64,
    pub seed: u64,
}

/// Fits on normal rows and sets the threshold on others of them: `parts` holds both, or is `None` where there
/// are too few recordings to set some aside.
///
/// # Errors
/// Where there are fewer than two normal rows, or they cannot be read.
pub fn fit(
    cells: &Cells,
    normal: &[u32],
    parts: Option<&Split>,
    settings: &Settings,
) -> anyhow::Result<(Forest, Calibration)> {
    if normal.len() < 2 {
        bail!("an isolation forest is fitted on normal rows (label 0), and there are {}", normal.len());
    }
    if parts.is_none() {
        warn!("fewer than four normal recordings: the threshold is set on the rows that were fitted on");
    }
    let (fitted, validation) = parts.map_or((normal, normal), |split| (&split.fit[..], &split.held_out[..]));
    let height = height_limit(settings.sample.min(fitted.len()));
    let mut builder = ForestBuilder::new(2);
    for first in (0..settings.trees).step_by(TREES_AT_ONCE) {
        let samples: Vec<Sample> = (first..settings.trees.min(first + TREES_AT_ONCE))
            .into_par_iter()
            .map(|index| Sample::draw(fitted, settings, index))
            .collect();
        let drawn = Drawn::read(cells, &samples)?;
        let trees: Result<Vec<Tree>, TreeSizeError> = samples
            .into_par_iter()
            .map(|Sample { random, rows }| {
                let tree = Tree::default();
                Grower { drawn: &drawn, random, height, longest: longest(settings.sample), tree }.grow(rows)
            })
            .collect();
        trees?.iter().for_each(|tree| builder.push(tree));
    }
    let forest = builder.finish();
    let threshold = threshold(&forest, cells, validation, settings.false_alarms)?;
    Ok((forest, Calibration::Threshold { threshold }))
}

/// Trees whose samples are read together: one way through the rows serves them all.
const TREES_AT_ONCE: usize = 256;

/// The rows of a tree, and its random numbers behind the draw.
struct Sample {
    random: Random,
    rows: Vec<u32>,
}

impl Sample {
    /// The first places of a shuffle of all rows, which are a sample without replacement; only places that the shuffle
    /// has changed are kept.
    fn draw(from: &[u32], settings: &Settings, index: usize) -> Self {
        let mut random = Random::new("isolation", settings.seed, index as u64);
        let mut moved: HashMap<usize, u32> = HashMap::new();
        let rows = (0..settings.sample.min(from.len()))
            .map(|place| {
                let pick = place + random.below(from.len() - place);
                let here = moved.get(&place).copied().unwrap_or(from[place]);
                let picked = moved.get(&pick).copied().unwrap_or(from[pick]);
                moved.insert(pick, here);
                picked
            })
            .collect();
        Self { random, rows }
    }
}

/// The inputs of all rows that some trees drew.
struct Drawn {
    /// Ascending.
    rows: Vec<u32>,
    inputs: usize,
    /// Row after row.
    values: Vec<f32>,
}

impl Drawn {
    fn read(cells: &Cells, samples: &[Sample]) -> Result<Self, SpillError> {
        let mut rows: Vec<u32> = samples.iter().flat_map(|sample| &sample.rows).copied().collect();
        rows.sort_unstable();
        rows.dedup();
        Ok(Self { inputs: cells.inputs(), values: cells.rows(&rows)?, rows })
    }

    fn value(&self, place: usize, input: usize) -> f32 {
        self.values[place * self.inputs + input]
    }
}

/// The anomaly share that no more than `budget` of the rows exceed.
fn threshold(forest: &Forest, cells: &Cells, rows: &[u32], budget: f64) -> Result<f64, SpillError> {
    let shares = cells.map_rows(rows, 2, |_, values, shares| {
        forest.predict_batch(values, cells.inputs(), shares);
    })?;
    let mut shares: Vec<f32> = shares.into_iter().skip(1).step_by(2).collect();
    shares.sort_unstable_by(f32::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of a count
    let allowed = (shares.len() as f64 * budget) as usize;
    let at = shares.len().saturating_sub(allowed + 1);
    Ok(f64::from(shares[at].next_up()).clamp(1e-6, 1.0 - 1e-6))
}

/// Levels after which a row counts as usual: those of a balanced tree.
fn height_limit(sample: usize) -> usize {
    sample.next_power_of_two().trailing_zeros() as usize
}

/// Mean length of an unsuccessful search in a binary tree of `n` rows, which a node that was not divided
/// further stands for: 2 H(n - 1) - 2 (n - 1) / n.
fn unsuccessful(n: usize) -> f64 {
    if n < 2 {
        return 0.0;
    }
    let harmonic: f64 = (1..n).map(|k| 1.0 / k as f64).sum();
    2.0 * harmonic - 2.0 * (n - 1) as f64 / n as f64
}

/// No path is longer.
fn longest(sample: usize) -> f64 {
    height_limit(sample) as f64 + unsuccessful(sample)
}

struct Grower<'a> {
    drawn: &'a Drawn,
    random: Random,
    height: usize,
    longest: f64,
    tree: Tree,
}

/// A cut: values up to the threshold go left.
struct Cut {
    input: usize,
    threshold: f32,
    missing_right: bool,
}

impl Grower<'_> {
    fn grow(mut self, rows: Vec<u32>) -> Result<Tree, TreeSizeError> {
        self.tree.nodes.push(Node::leaf(0));
        let place = |row: &u32| self.drawn.rows.partition_point(|drawn| drawn < row);
        let places: Vec<usize> = rows.iter().map(place).collect();
        let mut open = vec![(0, places, 0)];
        while let Some((node, rows, depth)) = open.pop() {
            let cut = if depth < self.height && rows.len() > 1 { self.cut(&rows) } else { None };
            let Some(cut) = cut else {
                self.tree.nodes[node] = self.leaf(depth as f64 + unsuccessful(rows.len()));
                continue;
            };
            let (right, left_rows): (Vec<usize>, Vec<usize>) = rows.into_iter().partition(|place| {
                let value = self.drawn.value(*place, cut.input);
                if value.is_nan() { cut.missing_right } else { value > cut.threshold }
            });
            let left = self.tree.nodes.len();
            self.tree.nodes[node] = Node::split(cut.input, cut.threshold, cut.missing_right, left - node)?;
            self.tree.nodes.extend([Node::leaf(0); 2]);
            open.push((left + 1, right, depth + 1));
            open.push((left, left_rows, depth + 1));
        }
        Ok(self.tree)
    }

    /// A random input that varies here, cut at a random place between its smallest and largest value. Where
    /// some rows did not measure it, that is cut off as often as such rows are; else they go with the many.
    fn cut(&mut self, rows: &[usize]) -> Option<Cut> {
        let mut inputs: Vec<usize> = (0..self.drawn.inputs).collect();
        for place in 0..inputs.len() {
            let pick = place + self.random.below(inputs.len() - place);
            inputs.swap(place, pick);
            let input = inputs[place];
            let value = |place: &usize| self.drawn.value(*place, input);
            let values = || rows.iter().map(value).filter(|value| !value.is_nan());
            let (low, high) =
                values().fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(value), high.max(value)));
            let measured = values().count();
            let missing = rows.len() - measured;
            if missing > 0 && measured > 0 && (low >= high || self.random.below(rows.len()) < missing) {
                return Some(Cut { input, threshold: f32::MAX, missing_right: true });
            }
            if low < high {
                let threshold = between(low, high, self.random.below(1 << 24));
                let right = values().filter(|value| *value > threshold).count();
                return Some(Cut { input, threshold, missing_right: 2 * right > measured });
            }
        }
        None
    }

    /// The longer the path, the smaller the second share.
    fn leaf(&mut self, path: f64) -> Node {
        let share = (1.0 - path / self.longest).clamp(0.0, 1.0) * f64::from(u16::MAX);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 65535
        let share = share.round() as u16;
        #[allow(clippy::cast_possible_truncation)] // a few hundred leaves
        let index = (self.tree.leaves.len() / 2) as u32;
        self.tree.leaves.extend([u16::MAX - share, share]);
        Node::leaf(index)
    }
}

/// A number in `[low, high)`, `part` of 2^24 of the way.
#[allow(clippy::cast_possible_truncation)] // between two f32
fn between(low: f32, high: f32, part: usize) -> f32 {
    let way = part as f64 / f64::from(1 << 24);
    let value = (f64::from(low) + way * (f64::from(high) - f64::from(low))) as f32;
    if value < high { value.max(low) } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_rows_are_anomalies_and_the_budget_is_kept() {
        let mut random = Random::new("test", 1, 0);
        #[allow(clippy::cast_precision_loss)]
        let mut draw = || (0..12).map(|_| random.below(1000) as f32).sum::<f32>() / 1000.0 - 6.0;
        let mut columns: Vec<Vec<f32>> = (0..4).map(|_| (0..2000).map(|_| draw()).collect()).collect();
        for (column, far) in columns.iter_mut().zip([8.0, -8.0, 8.0, f32::NAN]) {
            column.push(far);
        }
        let normal: Vec<u32> = (0..2000).collect();
        let split = Split {
            fit: (0..1000).collect(),
            held_out: (1000..2000).collect(),
            groups: 1,
            rule: String::new(),
        };
        let settings = Settings { trees: 100, sample: 256, false_alarms: 0.01, seed: 1 };
        let cells = Cells::from(columns.clone());
        let (forest, calibration) = fit(&cells, &normal, Some(&split), &settings).unwrap();
        let judge = |row: usize| {
            let values: Vec<f32> = columns.iter().map(|column| column[row]).collect();
            let mut shares = [0.0; 2];
            forest.predict(&values, &mut shares);
            calibration.apply(&mut shares);
            shares[1]
        };
        let alarms = (1000..2000).filter(|row| judge(*row) >= 0.5).count();
        assert!(alarms <= 10, "{alarms} of 1000 validation rows, and 10 are allowed");
        assert!(judge(2000) > 0.5, "{}", judge(2000));
        assert_eq!(fit(&cells, &normal, Some(&split), &settings).unwrap().0, forest);
        assert!(fit(&cells, &[1], None, &settings).is_err());
    }

    #[test]
    fn the_expected_path_is_the_papers() {
        assert_eq!(unsuccessful(1), 0.0);
        assert_eq!(unsuccessful(2), 1.0);
        // The paper's estimate of the harmonic number, ln(255) + 0.5772, gives 10.2448.
        assert!((unsuccessful(256) - 10.248_69).abs() < 1e-5, "{}", unsuccessful(256));
        assert_eq!(height_limit(256), 8);
    }
}
