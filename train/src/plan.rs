//! Which model is fitted, and how.

use std::borrow::Cow;

use model::{Calibration, Forest, Kind, OutOfBag};

use crate::data::SpillError;
use crate::evaluate::{folds, score};
use crate::forest::{self, Rows, Settings};
use crate::isolation;
use crate::rules;
use crate::sample;
use crate::set::LabelledSet;

/// A kind of model with its settings.
#[derive(Clone, Debug)]
pub enum Plan {
    Forest(Settings),
    Tree(Settings),
    /// Nothing is fitted.
    Rules,
    Isolation(isolation::Settings),
}

impl Plan {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Forest(_) => Kind::RandomForest,
            Self::Tree(_) => Kind::DecisionTree,
            Self::Rules => Kind::Rules,
            Self::Isolation(_) => Kind::IsolationForest,
        }
    }

    pub fn seed(&self) -> u64 {
        match self {
            Self::Forest(settings) | Self::Tree(settings) => settings.seed,
            Self::Rules => 0,
            Self::Isolation(settings) => settings.seed,
        }
    }

    /// Which of these rows are fitted on: all, or some of each class where the set has a bound.
    pub fn sampled<'a>(&self, set: &LabelledSet, rows: &'a [u32]) -> Cow<'a, [u32]> {
        match (self, set.most_of_class) {
            (Self::Forest(_) | Self::Tree(_), Some(most)) => {
                Cow::Owned(sample::sample(set, rows, most, self.seed()))
            }
            _ => Cow::Borrowed(rows),
        }
    }

    /// Fits on some rows of the set; the calibration is there where fitting itself finds one.
    ///
    /// # Errors
    /// Where the rows do not do for this kind, or a tree outgrows the format.
    pub fn fit(
        &self,
        set: &LabelledSet,
        rows: &[u32],
        what: &str,
    ) -> anyhow::Result<(Forest, Option<Calibration>)> {
        match self {
            Self::Forest(settings) | Self::Tree(settings) => {
                let progress = cli::counter(settings.trees as u64, what);
                let rows = self.sampled(set, rows);
                let forest = forest::fit(chosen(set, &rows), settings, || progress.inc(1))?;
                progress.finish_and_clear();
                Ok((forest, None))
            }
            Self::Rules => Ok((rules::forest(), None)),
            Self::Isolation(settings) => {
                let normal: Vec<u32> =
                    rows.iter().copied().filter(|row| set.of_row[*row as usize] == 0).collect();
                let parts = folds(&set.of_row, &set.table.groups, &normal, 4, settings.seed);
                isolation::fit(&set.table.cells, &normal, &parts, settings)
                    .map(|(forest, calibration)| (forest, Some(calibration)))
            }
        }
    }

    /// How well the trees of a forest that was fitted on these rows judge those that they did not draw; `None`
    /// where the kind draws no samples of all rows.
    ///
    /// # Errors
    /// Where the rows cannot be read.
    pub fn out_of_bag(
        &self,
        set: &LabelledSet,
        rows: &[u32],
        forest: &Forest,
    ) -> Result<Option<OutOfBag>, SpillError> {
        let Self::Forest(settings) = self else { return Ok(None) };
        let rows = self.sampled(set, rows);
        let predicted = forest::out_of_bag(chosen(set, &rows), settings, forest)?;
        Ok(Some(score::out_of_bag(&set.classes_of(&rows), &predicted, set.classes.len())))
    }
}

fn chosen<'a>(set: &'a LabelledSet, rows: &'a [u32]) -> Rows<'a> {
    Rows { cells: &set.table.cells, classes: &set.of_row, number_of_classes: set.classes.len(), chosen: rows }
}
