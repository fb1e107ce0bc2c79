//! Feature rows in memory: inputs column by column, label, time and group of every row.

mod cells;
mod columns;
mod csv_rows;
mod group;
pub mod input;
mod parquet_rows;
pub mod runs;

use std::collections::HashMap;
use std::num::NonZeroU64;

pub use cells::{Cells, SpillError};
pub use group::window_of;

use model::DataFile;

/// At most so many rows, because a row's number is a u32.
pub const MAX_ROWS: usize = u32::MAX as usize;

/// All rows of all files.
#[derive(Debug)]
pub struct Table {
    /// The inputs of the schema.
    pub cells: Cells,
    pub labels: Vec<u16>,
    /// Window starts in nanoseconds of Unix time.
    pub times: Vec<i64>,
    /// Stands for the server of the row (address, port, protocol); never an input, only to put rows together.
    /// `None` where the file does not tell it.
    pub targets: Vec<Option<NonZeroU64>>,
    /// Rows of one group are never parted: see [`Table::assign_groups`]. Before that, the number of the row's
    /// recording.
    pub groups: Vec<u32>,
    /// Every group's name: its recording and, where it has more than one, which stretch of it.
    pub group_names: Vec<String>,
    /// The number of every group's recording.
    pub group_recordings: Vec<u32>,
    /// Names of the recordings.
    pub recordings: Vec<String>,
    /// Numbers of the recordings that a column named: rows of several files may be of one.
    named: HashMap<String, u32>,
    pub files: Vec<DataFile>,
    /// Where each file's rows begin.
    pub file_starts: Vec<usize>,
}

impl Table {
    /// No rows yet; of the inputs of those to come, at most `room` bytes are held in memory.
    pub fn new(room: usize) -> Self {
        Self {
            cells: Cells::new(features::schema::inputs().count(), room),
            labels: Vec::new(),
            times: Vec::new(),
            targets: Vec::new(),
            groups: Vec::new(),
            group_names: Vec::new(),
            group_recordings: Vec::new(),
            recordings: Vec::new(),
            named: HashMap::new(),
            files: Vec::new(),
            file_starts: Vec::new(),
        }
    }

    /// The number of a recording that was not there before.
    #[allow(clippy::cast_possible_truncation)] // fewer recordings than rows
    fn new_recording(&mut self, name: &str) -> u32 {
        self.recordings.push(name.to_owned());
        (self.recordings.len() - 1) as u32
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The rows of each file.
    pub fn file_rows(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let ends = self.file_starts.iter().skip(1).copied().chain([self.len()]);
        self.file_starts.iter().zip(ends).map(|(start, end)| *start..end)
    }

    /// The files that some of these ascending rows are of.
    pub fn files_of(&self, rows: &[u32]) -> Vec<DataFile> {
        let has = |range: &std::ops::Range<usize>| {
            let first = rows.partition_point(|row| (*row as usize) < range.start);
            rows.get(first).is_some_and(|row| (*row as usize) < range.end)
        };
        self.file_rows()
            .zip(&self.files)
            .filter(|(range, _)| has(range))
            .map(|(_, file)| file.clone())
            .collect()
    }
}
