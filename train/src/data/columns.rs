//! What each column of a file of rows is for, and what its cells say.

use std::num::NonZeroU64;

use features::schema::{self, CellError, Column, Input};
use sha2::{Digest as _, Sha256};

use super::input::{At, Error};

pub const TIME: &str = "timestamp";
pub const LABEL: &str = "anomaly_label";
/// What tells a row's server.
const TARGET: [&str; 3] = ["dst_ip", "dst_port", "protocol"];

/// What a column of the file is read as.
pub enum Use {
    Time,
    Label,
    /// Index into the table's columns.
    Input(usize, &'static Column),
    /// A part of the server's identity: only to put rows together.
    Target,
    /// The name of the row's recording.
    Recording,
    /// Identity and text: never an input.
    Ignored,
}

/// What every column of the file is for. Columns may stand in any order; identity columns may be left out.
/// `recording` names the column that tells the recordings apart, where the format has one.
pub fn uses_of<'a>(
    header: impl Iterator<Item = &'a [u8]>,
    recording: Option<&str>,
    file: &str,
    at: At,
) -> Result<Vec<Use>, Error> {
    let inputs: Vec<&'static Column> = schema::inputs().collect();
    let mut seen = vec![false; schema::WIDTH];
    let mut uses = Vec::new();
    for (position, name) in header.enumerate() {
        // Spreadsheets begin a file with a byte order mark.
        let name = if position == 0 { name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name) } else { name };
        let name = String::from_utf8_lossy(name).into_owned();
        let (file, column) = (file.to_owned(), position + 1);
        if recording == Some(name.as_str()) {
            uses.push(Use::Recording);
            continue;
        }
        let Some(place) = schema::position(&name) else {
            return Err(Error::UnknownColumn { file, at, column, name });
        };
        if std::mem::replace(&mut seen[place], true) {
            return Err(Error::TwiceColumn { file, at, column, name });
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
        Some((column, _)) => Err(Error::MissingColumn { file: file.to_owned(), at, name: column.name }),
        None => Ok(uses),
    }
}

/// The first bytes of a hash over the cells that tell the server; `None` where some are not told.
pub fn target<'a>(cells: impl Iterator<Item = &'a [u8]>) -> Option<NonZeroU64> {
    let mut hasher = Sha256::new();
    let mut parts = 0;
    for cell in cells {
        hasher.update(cell);
        hasher.update([0]);
        parts += 1;
    }
    let hash = hasher.finalize().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    NonZeroU64::new(hash).filter(|_| parts == TARGET.len())
}

pub fn reason(error: &CellError) -> String {
    format!("`{}` is not {}", error.cell, error.expected)
}

/// Window starts are Unix seconds, with decimals where a window is shorter.
#[allow(clippy::cast_possible_truncation)] // within the bound, checked
pub fn nanoseconds(cell: &[u8]) -> Result<i64, String> {
    // Half of what 64 bits of nanoseconds hold, so that differences cannot overflow.
    const LIMIT: f64 = 4e9;
    match fast_float2::parse::<f64, _>(cell) {
        Ok(seconds) if seconds.abs() <= LIMIT => Ok((seconds * 1e9).round() as i64),
        _ => Err(format!("`{}` is not a time in Unix seconds", String::from_utf8_lossy(cell))),
    }
}

pub fn label(cell: &[u8]) -> Result<u16, String> {
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
