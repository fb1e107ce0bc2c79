//! Rows from CSV text, as `replay` writes it. Every refusal names file, line and column and says what to do.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use csv::ByteRecord;
use features::schema::{self, CellError, Column, Input};
use model::DataFile;
use sha2::{Digest as _, Sha256};

use super::{MAX_ROWS, Table};

/// What stands for standard input.
const STDIN: &str = "-";
const TIME: &str = "timestamp";
const LABEL: &str = "anomaly_label";
/// What tells a row's server.
const TARGET: [&str; 3] = ["dst_ip", "dst_port", "protocol"];

/// Why a file's rows cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open {file}")]
    Open { file: String, source: io::Error },
    #[error("cannot read {file}")]
    Read { file: String, source: csv::Error },
    #[error("{file} is empty: it has no header line; write it with `replay --window 5 > features.csv`")]
    Empty { file: String },
    #[error(
        "{file} has a header and no rows: the recording held no flow, or `replay` was stopped; look at its summary line"
    )]
    NoRows { file: String },
    #[error(
        "{file}, line 1, column {column} (`{name}`): the schema has no such column; a column that identifies a \
         recording would make the scores look better than they are; remove it"
    )]
    UnknownColumn { file: String, column: usize, name: String },
    #[error("{file}, line 1, column {column} (`{name}`): this column stands there twice; remove one")]
    TwiceColumn { file: String, column: usize, name: String },
    #[error(
        "{file}, line 1: column `{name}` is missing; write the file again with this release of `replay` and all \
         columns"
    )]
    MissingColumn { file: String, name: &'static str },
    #[error("{file}, line {line}, column {column} (`{name}`): {reason}; correct the cell or remove the row")]
    Cell { file: String, line: u64, column: usize, name: &'static str, reason: String },
    #[error(
        "{file}, line {line}, column {column} (`anomaly_label`): {reason}; a label is a whole number from 0 to \
         65535, 0 for normal: record with `--label`, or remove the row"
    )]
    Label { file: String, line: u64, column: usize, reason: String },
    #[error(
        "{file} has the same content as {other}: the same rows would stand on both sides of the split; name it \
         once"
    )]
    SameContent { file: String, other: String },
    #[error("more than {MAX_ROWS} rows: train on fewer files")]
    TooManyRows,
}

/// What a column of the file is read as.
enum Use {
    Time,
    Label,
    /// Index into the table's columns.
    Input(usize, &'static Column),
    /// A part of the server's identity: only to put rows together.
    Target,
    /// Identity and text: never an input.
    Ignored,
}

/// Reads all files, one after the other; `-` is standard input. `progress` learns of every chunk of bytes.
///
/// # Errors
/// [`Error`]; nothing of a refused file is used.
pub fn read(paths: &[PathBuf], progress: &dyn Fn(u64)) -> Result<Table, Error> {
    let mut table = Table::new();
    for path in paths {
        let name = display_name(path);
        let source: Box<dyn Read> = if path.as_os_str() == STDIN {
            Box::new(io::stdin().lock())
        } else {
            let opened = File::open(path);
            Box::new(opened.map_err(|source| Error::Open { file: path.display().to_string(), source })?)
        };
        read_file(&mut table, source, &path.display().to_string(), name, progress)?;
    }
    Ok(table)
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

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        (self.progress)(count as u64);
        Ok(count)
    }
}

fn read_file(
    table: &mut Table,
    source: impl Read,
    file: &str,
    name: String,
    progress: &dyn Fn(u64),
) -> Result<(), Error> {
    let source = Hashing { inner: source, hasher: Sha256::new(), progress };
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).buffer_capacity(1 << 18).from_reader(source);
    let failed = |source| Error::Read { file: file.to_owned(), source };
    let mut record = ByteRecord::new();
    if !reader.read_byte_record(&mut record).map_err(failed)? {
        return Err(Error::Empty { file: file.to_owned() });
    }
    let uses = uses_of(&record, file)?;
    let start = table.len();
    while reader.read_byte_record(&mut record).map_err(failed)? {
        if table.len() == MAX_ROWS {
            return Err(Error::TooManyRows);
        }
        let line = record.position().map_or(0, csv::Position::line);
        add_row(table, &uses, &record, file, line)?;
    }
    let rows = table.len() - start;
    if rows == 0 {
        return Err(Error::NoRows { file: file.to_owned() });
    }
    let sha256: String =
        reader.into_inner().hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(other) = table.files.iter().find(|other| other.sha256 == sha256) {
        return Err(Error::SameContent { file: file.to_owned(), other: other.name.clone() });
    }
    #[allow(clippy::cast_possible_truncation)] // fewer recordings than rows
    let recording = table.recordings.len() as u32;
    table.recordings.push(name.clone());
    table.groups.resize(table.len(), recording);
    table.file_starts.push(start);
    table.files.push(DataFile { name, sha256, rows: rows as u64 });
    Ok(())
}

/// What every column of the file is for. Columns may stand in any order; identity columns may be left out.
fn uses_of(header: &ByteRecord, file: &str) -> Result<Vec<Use>, Error> {
    let inputs: Vec<&'static Column> = schema::inputs().collect();
    let mut seen = vec![false; schema::WIDTH];
    let mut uses = Vec::with_capacity(header.len());
    for (position, name) in header.iter().enumerate() {
        // Spreadsheets begin a file with a byte order mark.
        let name = if position == 0 { name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name) } else { name };
        let name = String::from_utf8_lossy(name).into_owned();
        let (file, column) = (file.to_owned(), position + 1);
        let Some(place) = schema::position(&name) else {
            return Err(Error::UnknownColumn { file, column, name });
        };
        if std::mem::replace(&mut seen[place], true) {
            return Err(Error::TwiceColumn { file, column, name });
        }
        let input = inputs.iter().position(|input| input.name == name);
        uses.push(match (name.as_str(), input) {
            (TIME, _) => Use::Time,
            (LABEL, _) => Use::Label,
            (name, _) if TARGET.contains(&name) => Use::Target,
            (_, Some(index)) => Use::Input(index, inputs[index]),
            (_, None) => Use::Ignored,
        });
    }
    let needed = schema::COLUMNS
        .iter()
        .zip(seen)
        .filter(|(column, _)| column.input != Input::Never || column.name == TIME || column.name == LABEL);
    match needed.into_iter().find(|(_, seen)| !seen) {
        Some((column, _)) => Err(Error::MissingColumn { file: file.to_owned(), name: column.name }),
        None => Ok(uses),
    }
}

fn add_row(table: &mut Table, uses: &[Use], record: &ByteRecord, file: &str, line: u64) -> Result<(), Error> {
    table.targets.push(target(uses, record));
    for (position, (cell, usage)) in record.iter().zip(uses).enumerate() {
        let column = position + 1;
        let bad = |name, reason| Error::Cell { file: file.to_owned(), line, column, name, reason };
        match usage {
            Use::Ignored | Use::Target => {}
            Use::Label => {
                let label = label(cell);
                let label =
                    label.map_err(|reason| Error::Label { file: file.to_owned(), line, column, reason })?;
                table.labels.push(label);
            }
            Use::Time => table.times.push(nanoseconds(cell).map_err(|reason| bad(TIME, reason))?),
            Use::Input(index, column) => {
                let value = std::str::from_utf8(cell)
                    .map_err(|_| "is not UTF-8".to_owned())
                    .and_then(|cell| column.encode_text(cell).map_err(|error| reason(&error)));
                table.columns[*index].push(value.map_err(|reason| bad(column.name, reason))?);
            }
        }
    }
    Ok(())
}

/// The first bytes of a hash over the server's identity; `None` where the file does not tell it.
fn target(uses: &[Use], record: &ByteRecord) -> Option<NonZeroU64> {
    let mut hasher = Sha256::new();
    let mut parts = 0;
    for (cell, _) in record.iter().zip(uses).filter(|(_, usage)| matches!(usage, Use::Target)) {
        hasher.update(cell);
        hasher.update([0]);
        parts += 1;
    }
    let hash = hasher.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    NonZeroU64::new(hash).filter(|_| parts == TARGET.len())
}

fn reason(error: &CellError) -> String {
    format!("`{}` is not {}", error.cell, error.expected)
}

/// Window starts are Unix seconds, with decimals where a window is shorter.
#[allow(clippy::cast_possible_truncation)] // within the bound, checked
fn nanoseconds(cell: &[u8]) -> Result<i64, String> {
    // Half of what 64 bits of nanoseconds hold, so that differences cannot overflow.
    const LIMIT: f64 = 4e9;
    match fast_float2::parse::<f64, _>(cell) {
        Ok(seconds) if seconds.abs() <= LIMIT => Ok((seconds * 1e9).round() as i64),
        _ => Err(format!("`{}` is not a time in Unix seconds", String::from_utf8_lossy(cell))),
    }
}

fn label(cell: &[u8]) -> Result<u16, String> {
    if cell.is_empty() {
        return Err("the row has no label".to_owned());
    }
    let text = String::from_utf8_lossy(cell);
    if let Ok(label) = text.parse() {
        return Ok(label);
    }
    // Data frames write whole numbers as floats where a column had a gap.
    text.strip_suffix(".0").and_then(|whole| whole.parse().ok()).ok_or(format!("`{text}` is not a label"))
}
