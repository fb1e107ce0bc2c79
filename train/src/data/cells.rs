//! The inputs of all rows, in blocks of rows. Blocks for which memory has no room stand in a temporary file; where a
//! value stands changes no result.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rayon::prelude::*;

/// Rows after which a block is closed: a column of it is then a read of 32 KiB, and all of it 3 MB.
const BLOCK: usize = 8192;

/// Bytes of a value.
const VALUE: usize = size_of::<f32>();

/// The temporary file of rows could not be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {doing} the temporary file of rows in {}: name a folder with room by TMPDIR, or give more --memory",
    folder.display()
)]
pub struct SpillError {
    doing: &'static str,
    folder: PathBuf,
    source: io::Error,
}

/// Values of inputs, NaN where not measured.
#[derive(Debug)]
pub struct Cells {
    inputs: usize,
    /// Bytes of closed blocks that memory still has room for.
    room: usize,
    blocks: Vec<Block>,
    /// The first row of every block, and behind them the number of rows in blocks.
    starts: Vec<usize>,
    /// The block that is being filled, one column per input.
    open: Vec<Vec<f32>>,
    /// Without a name, so that it is gone with the program, whatever ends it.
    file: Option<File>,
    written: u64,
}

/// Where the values of a block stand, input after input.
#[derive(Debug)]
enum Block {
    Held(Vec<f32>),
    /// From this byte of the file on.
    Written(u64),
}

impl Cells {
    /// No rows yet; of those to come, at most `room` bytes are held in memory.
    pub fn new(inputs: usize, room: usize) -> Self {
        Self {
            inputs,
            room,
            blocks: Vec::new(),
            starts: vec![0],
            open: vec![Vec::new(); inputs],
            file: None,
            written: 0,
        }
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes of values that stand in the temporary file.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Adds one input's value of the row that is being read.
    pub fn push(&mut self, input: usize, value: f32) {
        self.open[input].push(value);
    }

    /// To be called where every input has the same number of values; may put them away.
    ///
    /// # Errors
    /// Where the temporary file cannot be written.
    pub fn end_rows(&mut self) -> Result<(), SpillError> {
        if self.open.first().is_some_and(|column| column.len() >= BLOCK) { self.close() } else { Ok(()) }
    }

    /// To be called behind the last row.
    ///
    /// # Errors
    /// Where the temporary file cannot be written.
    ///
    /// # Panics
    /// Where some row lacks an input.
    pub fn close(&mut self) -> Result<(), SpillError> {
        let rows = self.open.first().map_or(0, Vec::len);
        assert!(self.open.iter().all(|column| column.len() == rows), "whole rows");
        if rows == 0 {
            return Ok(());
        }
        let bytes = rows * self.inputs * VALUE;
        let block = if bytes <= self.room {
            self.room -= bytes;
            Block::Held(self.open.concat())
        } else {
            Block::Written(self.write()?)
        };
        self.blocks.push(block);
        self.starts.push(self.starts[self.starts.len() - 1] + rows);
        self.open.iter_mut().for_each(Vec::clear);
        Ok(())
    }

    /// Appends the open block to the file; returns where it begins.
    fn write(&mut self) -> Result<u64, SpillError> {
        let bytes: Vec<u8> = self.open.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        let mut file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile().map_err(|source| failed("create", source))?,
        };
        file.write_all(&bytes).map_err(|source| failed("write", source))?;
        self.file = Some(file);
        let at = self.written;
        self.written += bytes.len() as u64;
        Ok(at)
    }

    /// Some ascending rows, divided by the blocks that hold them.
    fn parts<'a>(&'a self, rows: &'a [u32]) -> impl Iterator<Item = (usize, &'a [u32])> + 'a {
        let mut rest = rows;
        std::iter::from_fn(move || {
            let first = *rest.first()? as usize;
            let block = self.starts.partition_point(|start| *start <= first) - 1;
            let end = self.starts[block + 1];
            let (part, others) = rest.split_at(rest.partition_point(|row| (*row as usize) < end));
            rest = others;
            Some((block, part))
        })
    }

    /// Some of a block's values.
    fn piece(&self, block: usize, values: Range<usize>) -> Result<Cow<'_, [f32]>, SpillError> {
        let (at, file) = match (&self.blocks[block], &self.file) {
            (Block::Held(held), _) => return Ok(Cow::Borrowed(&held[values])),
            (Block::Written(at), Some(file)) => (*at, file),
            (Block::Written(_), None) => unreachable!("a block is written to the file"),
        };
        let mut bytes = vec![0; values.len() * VALUE];
        file.read_exact_at(&mut bytes, at + (values.start * VALUE) as u64)
            .map_err(|source| failed("read", source))?;
        let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Ok(Cow::Owned(bytes.chunks_exact(VALUE).map(value).collect()))
    }

    /// One input's values of some ascending rows, in their order.
    ///
    /// # Errors
    /// Where the temporary file cannot be read.
    pub fn column(&self, input: usize, rows: &[u32]) -> Result<Vec<f32>, SpillError> {
        let mut values = Vec::with_capacity(rows.len());
        for (block, part) in self.parts(rows) {
            let start = self.starts[block];
            let length = self.starts[block + 1] - start;
            let column = self.piece(block, input * length..(input + 1) * length)?;
            values.extend(part.iter().map(|row| column[*row as usize - start]));
        }
        Ok(values)
    }

    /// All inputs of some ascending rows, row after row.
    ///
    /// # Errors
    /// Where the temporary file cannot be read.
    pub fn rows(&self, rows: &[u32]) -> Result<Vec<f32>, SpillError> {
        let mut values = Vec::with_capacity(rows.len() * self.inputs);
        for (block, part) in self.parts(rows) {
            let start = self.starts[block];
            let length = self.starts[block + 1] - start;
            let cells = self.piece(block, 0..self.inputs * length)?;
            for row in part {
                let place = *row as usize - start;
                values.extend((0..self.inputs).map(|input| cells[input * length + place]));
            }
        }
        Ok(values)
    }

    /// Makes `width` numbers of every one of some ascending rows, in the current rayon pool: `make` gets rows of
    /// inputs and as many places of that width.
    ///
    /// # Errors
    /// Where the temporary file cannot be read.
    pub fn map_rows<T: Clone + Default + Send>(
        &self,
        rows: &[u32],
        width: usize,
        make: impl Fn(&[u32], &[f32], &mut [T]) + Sync,
    ) -> Result<Vec<T>, SpillError> {
        let mut made = vec![T::default(); rows.len() * width];
        let mut rest = &mut made[..];
        let mut work = Vec::new();
        for (_, part) in self.parts(rows) {
            let (places, others) = std::mem::take(&mut rest).split_at_mut(part.len() * width);
            rest = others;
            work.push((part, places));
        }
        work.into_par_iter().try_for_each(|(part, places)| {
            make(part, &self.rows(part)?, places);
            Ok(())
        })?;
        Ok(made)
    }
}

/// Columns that are in memory already.
impl From<Vec<Vec<f32>>> for Cells {
    fn from(columns: Vec<Vec<f32>>) -> Self {
        let rows = columns.first().map_or(0, Vec::len);
        let mut cells = Self::new(columns.len(), usize::MAX);
        for start in (0..rows).step_by(BLOCK) {
            let end = rows.min(start + BLOCK);
            cells
                .blocks
                .push(Block::Held(columns.iter().flat_map(|column| &column[start..end]).copied().collect()));
            cells.starts.push(end);
        }
        cells
    }
}

fn failed(doing: &'static str, source: io::Error) -> SpillError {
    SpillError { doing, folder: std::env::temp_dir(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Three inputs that tell their row.
    #[allow(clippy::cast_precision_loss)]
    fn value(row: usize, input: usize) -> f32 {
        (row * 10 + input) as f32
    }

    fn cells(rows: usize, room: usize) -> Cells {
        let mut cells = Cells::new(3, room);
        for row in 0..rows {
            (0..3).for_each(|input| cells.push(input, value(row, input)));
            cells.end_rows().unwrap();
        }
        cells.close().unwrap();
        cells
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn values_are_the_same_wherever_they_stand(
            rows in 1usize..3 * BLOCK,
            blocks_in_memory in 0usize..4,
            step in 1usize..2000,
        ) {
            let spilled = cells(rows, blocks_in_memory * BLOCK * 3 * VALUE);
            let held: Cells = (0..3).map(|input| (0..rows).map(|row| value(row, input)).collect()).collect::<Vec<_>>().into();
            prop_assert_eq!(held.written(), 0);
            prop_assert_eq!(spilled.written() > 0, rows > blocks_in_memory * BLOCK);
            let chosen: Vec<u32> = (0..rows).step_by(step).map(|row| u32::try_from(row).unwrap()).collect();
            let expected: Vec<f32> =
                chosen.iter().flat_map(|row| (0..3).map(|input| value(*row as usize, input))).collect();
            for cells in [&spilled, &held] {
                prop_assert_eq!(&cells.rows(&chosen).unwrap(), &expected);
                let column: Vec<f32> = expected.iter().copied().skip(1).step_by(3).collect();
                prop_assert_eq!(&cells.column(1, &chosen).unwrap(), &column);
                let sums = cells.map_rows(&chosen, 1, |part, values, sums: &mut [f32]| {
                    assert_eq!(part.len(), sums.len());
                    values.chunks_exact(3).zip(sums).for_each(|(row, sum)| *sum = row.iter().sum());
                });
                let sum = |row: &[f32]| row.iter().sum::<f32>();
                prop_assert_eq!(sums.unwrap(), expected.chunks_exact(3).map(sum).collect::<Vec<f32>>());
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let mut cells = cells(10, 0);
        cells.blocks[0] = Block::Written(8);
        let error = cells.rows(&[0, 9]).unwrap_err();
        assert!(error.to_string().contains("TMPDIR"), "{error}");
    }
}
