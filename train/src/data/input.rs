//! Files of rows, one after the other, whatever their format. Every refusal names file and place and says what
//! to do.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _};
use std::path::{Path, PathBuf};

use arrow_schema::ArrowError;
use model::DataFile;
use parquet::errors::ParquetError;
use sha2::{Digest as _, Sha256};

use super::{MAX_ROWS, SpillError, Table, csv_rows, parquet_rows};

/// What stands for standard input.
const STDIN: &str = "-";
/// What a Parquet file begins with.
const PARQUET: &[u8] = b"PAR1";

/// Where in a file something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Of text, counted from 1.
    Line(u64),
    /// Of a table without lines, counted from 1.
    Row(u64),
    /// The names of a table's columns.
    Schema,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
            Self::Schema => f.write_str("the names of its columns"),
        }
    }
}

/// Why a file's rows cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open {file}")]
    Open { file: String, source: io::Error },
    #[error("cannot read {file}")]
    Read { file: String, source: io::Error },
    #[error("cannot read {file} as CSV")]
    Csv { file: String, source: csv::Error },
    #[error(
        "cannot read {file} as Parquet: it may be cut off; write it again with `replay --format parquet`"
    )]
    Parquet { file: String, source: ParquetError },
    #[error("cannot read {file} as Parquet after row {row}: it may be damaged; write it again")]
    Batch { file: String, row: u64, source: ArrowError },
    #[error(
        "standard input holds Parquet, whose table of contents stands at its end: write it to a file and name that"
    )]
    ParquetStream,
    #[error(
        "{file} has rows of schema {found}, and this release has {expected}: write it again with this release of \
         `replay`"
    )]
    Schema { file: String, found: String, expected: &'static str },
    #[error(
        "{file}, column {column} (`{name}`): it holds {found}, which is neither number, truth nor text; write the \
         file again with `replay --format parquet`"
    )]
    Type { file: String, column: usize, name: String, found: String },
    #[error("{file} is empty: it has no header line; write it with `replay --window 5 > features.csv`")]
    Empty { file: String },
    #[error(
        "{file} has a header and no rows: the recording held no flow, or `replay` was stopped; look at its summary line"
    )]
    NoRows { file: String },
    #[error(
        "{file}, {at}, column {column} (`{name}`): the schema has no such column; a column that identifies a \
         recording would make the scores look better than they are; remove it"
    )]
    UnknownColumn { file: String, at: At, column: usize, name: String },
    #[error("{file}, {at}, column {column} (`{name}`): this column stands there twice; remove one")]
    TwiceColumn { file: String, at: At, column: usize, name: String },
    #[error(
        "{file}, {at}: column `{name}` is missing; write the file again with this release of `replay` and all \
         columns"
    )]
    MissingColumn { file: String, at: At, name: &'static str },
    #[error("{file}, {at}, column {column} (`{name}`): {reason}; correct the cell or remove the row")]
    Cell { file: String, at: At, column: usize, name: &'static str, reason: String },
    #[error(
        "{file}, {at}, column {column} (`anomaly_label`): {reason}; a label is a whole number from 0 to \
         65535, 0 for normal: record with `--label`, or remove the row"
    )]
    Label { file: String, at: At, column: usize, reason: String },
    #[error(
        "{file} has the same content as {other}: the same rows would stand on both sides of the split; name it \
         once"
    )]
    SameContent { file: String, other: String },
    #[error("more than {MAX_ROWS} rows: train on fewer files")]
    TooManyRows,
    #[error(transparent)]
    Spill(#[from] SpillError),
}

/// Reads all files, one after the other: Parquet where one begins so, else CSV; `-` is standard input. At most `room`
/// bytes of inputs are held in memory. `progress` learns of every chunk of bytes.
///
/// # Errors
/// [`Error`]; nothing of a refused file is used.
pub fn read(paths: &[PathBuf], room: usize, progress: &dyn Fn(u64)) -> Result<Table, Error> {
    let mut table = Table::new(room);
    for path in paths {
        read_file(&mut table, path, progress)?;
    }
    table.cells.close()?;
    Ok(table)
}

fn read_file(table: &mut Table, path: &Path, progress: &dyn Fn(u64)) -> Result<(), Error> {
    let file = path.display().to_string();
    let failed = |source| Error::Read { file: file.clone(), source };
    let start = table.len();
    let sha256 = if path.as_os_str() == STDIN {
        let mut source = BufReader::new(Hashing::new(io::stdin().lock(), progress));
        if source.fill_buf().map_err(failed)?.starts_with(PARQUET) {
            return Err(Error::ParquetStream);
        }
        csv_rows::read(table, &mut source, &file, &display_name(path))?;
        source.into_inner().hex()
    } else {
        let opened = File::open(path).map_err(|source| Error::Open { file: file.clone(), source })?;
        let mut source = BufReader::new(Hashing::new(opened, progress));
        if source.fill_buf().map_err(failed)?.starts_with(PARQUET) {
            io::copy(&mut source, &mut io::sink()).map_err(failed)?;
            let hashed = source.into_inner();
            let mut opened = hashed.inner.try_clone().map_err(failed)?;
            opened.rewind().map_err(failed)?;
            parquet_rows::read(table, opened, &file, &display_name(path))?;
            hashed.hex()
        } else {
            csv_rows::read(table, &mut source, &file, &display_name(path))?;
            source.into_inner().hex()
        }
    };
    let rows = table.len() - start;
    if rows == 0 {
        return Err(Error::NoRows { file });
    }
    if let Some(other) = table.files.iter().find(|other| other.sha256 == sha256) {
        return Err(Error::SameContent { file, other: other.name.clone() });
    }
    table.file_starts.push(start);
    table.files.push(DataFile { name: display_name(path), sha256, rows: rows as u64 });
    Ok(())
}

/// The file's name without its folder.
fn display_name(path: &Path) -> String {
    if path.as_os_str() == STDIN {
        return "standard input".to_owned();
    }
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Passes bytes on and hashes and counts them.
struct Hashing<'a, R> {
    inner: R,
    hasher: Sha256,
    progress: &'a dyn Fn(u64),
}

impl<'a, R> Hashing<'a, R> {
    fn new(inner: R, progress: &'a dyn Fn(u64)) -> Self {
        Self { inner, hasher: Sha256::new(), progress }
    }

    /// The hash of what was read.
    fn hex(self) -> String {
        self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        (self.progress)(count as u64);
        Ok(count)
    }
}
