//! Rows whose labels have become classes: what models are fitted and judged on.

use anyhow::bail;
use model::{ClassInfo, Forest};

use crate::data::runs::Runs;
use crate::data::{SpillError, Table};
use crate::isolation::ANOMALY;

/// The label of rows without a fault.
pub const NORMAL: u16 = 0;

/// A table with the class of every row.
pub struct LabelledSet {
    pub table: Table,
    pub classes: Vec<ClassInfo>,
    /// Class index of every row.
    pub of_row: Vec<u8>,
    /// Length of the windows in nanoseconds.
    pub window: i64,
    /// At most so many rows of every class are fitted on; all are judged.
    pub most_of_class: Option<usize>,
    /// How the recordings were made, where that is known.
    pub runs: Option<Runs>,
}

impl LabelledSet {
    /// Makes a class of every label that the rows have, and of the labels `also`.
    ///
    /// # Errors
    /// Where that makes fewer than two classes, or more than a model may have.
    pub fn new(table: Table, window: i64, also: &[u16]) -> anyhow::Result<Self> {
        let mut labels = [&table.labels, also].concat();
        labels.sort_unstable();
        labels.dedup();
        if let [only] = labels[..] {
            bail!(
                "all {} rows have label {only} ({}): a model needs at least two classes; add recordings with \
                 another label",
                table.len(),
                event::Label(only)
            );
        }
        if labels.len() > model::MAX_CLASSES {
            bail!("{} labels, and at most {} classes are fitted", labels.len(), model::MAX_CLASSES);
        }
        #[allow(clippy::cast_possible_truncation)] // at most 256 classes
        let index = |label: &u16| labels.partition_point(|known| known < label) as u8;
        let of_row: Vec<u8> = table.labels.iter().map(index).collect();
        let groups = groups_per_class(&of_row, &table.groups, 0..table.len(), labels.len());
        let mut rows = vec![0; labels.len()];
        of_row.iter().for_each(|class| rows[usize::from(*class)] += 1);
        let class = |(k, label): (usize, &u16)| ClassInfo {
            label: *label,
            name: if *label == ANOMALY { "anomaly".to_owned() } else { event::Label(*label).to_string() },
            rows: rows[k],
            groups: groups[k],
        };
        let classes = labels.iter().enumerate().map(class).collect();
        Ok(Self { table, classes, of_row, window, most_of_class: None, runs: None })
    }

    /// All rows' numbers.
    #[allow(clippy::cast_possible_truncation)] // rows are counted in u32
    pub fn all(&self) -> Vec<u32> {
        (0..self.table.len() as u32).collect()
    }

    /// The classes, with the rows and groups that they have among some rows.
    pub fn classes_in(&self, rows: &[u32]) -> Vec<ClassInfo> {
        let mut counts = vec![0; self.classes.len()];
        rows.iter().for_each(|row| counts[usize::from(self.of_row[*row as usize])] += 1);
        let found = self.classes.iter().zip(counts).zip(self.groups_of(rows));
        found.map(|((class, rows), groups)| ClassInfo { rows, groups, ..class.clone() }).collect()
    }

    /// Class indices of some rows.
    pub fn classes_of(&self, rows: &[u32]) -> Vec<u8> {
        rows.iter().map(|row| self.of_row[*row as usize]).collect()
    }

    /// In how many groups some rows show each class.
    pub fn groups_of(&self, rows: &[u32]) -> Vec<u64> {
        let rows = rows.iter().map(|row| *row as usize);
        groups_per_class(&self.of_row, &self.table.groups, rows, self.classes.len())
    }

    /// A forest's shares of its classes for some ascending rows, row after row, in the current rayon pool.
    ///
    /// # Errors
    /// Where the rows cannot be read.
    pub fn shares(&self, forest: &Forest, rows: &[u32]) -> Result<Vec<f32>, SpillError> {
        let cells = &self.table.cells;
        cells.map_rows(rows, forest.classes(), |_, values, shares| {
            forest.predict_batch(values, cells.inputs(), shares);
        })
    }
}

/// The likeliest class of every row of shares; the first of equals.
pub fn winners(shares: &[f32], classes: usize) -> Vec<u8> {
    #[allow(clippy::cast_possible_truncation)] // at most 256 classes
    let winner =
        |row: &[f32]| (0..classes).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0) as u8;
    shares.chunks_exact(classes).map(winner).collect()
}

fn groups_per_class(
    classes: &[u8],
    groups: &[u32],
    rows: impl Iterator<Item = usize>,
    number: usize,
) -> Vec<u64> {
    let mut seen: Vec<(u8, u32)> = rows.map(|row| (classes[row], groups[row])).collect();
    seen.sort_unstable();
    seen.dedup();
    let mut counts = vec![0; number];
    seen.iter().for_each(|(class, _)| counts[usize::from(*class)] += 1);
    counts
}
