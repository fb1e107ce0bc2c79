//! Fits random forests and single trees: histogram trees over binned columns, the same bytes for any number
//! of threads.

mod bins;
mod out_of_bag;
pub mod random;
mod tree;

use model::{Forest, ForestBuilder, Tree, TreeSizeError};
use rayon::prelude::*;

pub use out_of_bag::out_of_bag;

use crate::data::{Cells, SpillError};
use bins::Bins;
use random::Random;

/// Why no forest could be fitted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    TreeSize(#[from] TreeSizeError),
    #[error(transparent)]
    Spill(#[from] SpillError),
}

/// How much the rows of a class count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ClassWeight {
    /// Every row counts the same
    None,
    /// Every class counts the same, by its rows in the training part
    Balanced,
    /// Every class counts the same, by its rows in each tree's sample
    BalancedSubsample,
}

impl ClassWeight {
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Balanced => "balanced",
            Self::BalancedSubsample => "balanced-subsample",
        }
    }
}

/// How many inputs a node looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeaturesPerNode {
    /// The rounded square root of the number of inputs that vary.
    Sqrt,
    All,
}

impl FeaturesPerNode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqrt => "sqrt",
            Self::All => "all",
        }
    }
}

/// How a forest is grown.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub trees: usize,
    /// Levels below the root.
    pub max_depth: usize,
    /// Rows in a leaf, each counted as often as the tree's sample drew it.
    pub min_leaf: usize,
    pub features: FeaturesPerNode,
    /// Whether every tree sees a sample drawn with replacement.
    pub bootstrap: bool,
    pub class_weight: ClassWeight,
    pub seed: u64,
}

/// Training rows: the inputs of all rows, those to fit on, and the class index of every row.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub cells: &'a Cells,
    pub classes: &'a [u8],
    pub number_of_classes: usize,
    /// The rows to use, ascending.
    pub chosen: &'a [u32],
}

/// Fits a forest in the current rayon pool.
///
/// # Errors
/// Where a tree outgrows the model format, or the rows cannot be read.
///
/// # Panics
/// Where no row was chosen.
pub fn fit(rows: Rows<'_>, settings: &Settings, done: impl Fn() + Sync) -> Result<Forest, Error> {
    assert!(!rows.chosen.is_empty(), "rows to fit on");
    let bins = Bins::new(rows.cells, rows.chosen)?;
    let classes: Vec<u8> = rows.chosen.iter().map(|row| rows.classes[*row as usize]).collect();
    let varying: Vec<usize> =
        (0..bins.columns.len()).filter(|input| !bins.columns[*input].constant).collect();
    let sample =
        tree::Sample { bins: &bins, classes: &classes, number: rows.number_of_classes, varying: &varying };
    let trees: Result<Vec<Tree>, TreeSizeError> = (0..settings.trees)
        .into_par_iter()
        .map(|index| {
            let tree = tree::grow(&sample, settings, stream(settings.seed, index));
            done();
            tree
        })
        .collect();
    let mut builder = ForestBuilder::new(rows.number_of_classes);
    trees?.iter().for_each(|tree| builder.push(tree));
    Ok(builder.finish())
}

/// The random numbers of a tree.
fn stream(seed: u64, tree: usize) -> Random {
    Random::new("tree", seed, tree as u64)
}
