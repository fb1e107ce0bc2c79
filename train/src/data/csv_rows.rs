//! Rows from CSV text, as `replay` writes it.

use std::io::Read;

use csv::ByteRecord;

use super::columns::{TIME, Use, label, nanoseconds, reason, target, uses_of};
use super::input::{At, Error};
use super::{MAX_ROWS, Table};

/// Adds the rows of a file, which is one recording of that name.
pub fn read(table: &mut Table, source: impl Read, file: &str, name: &str) -> Result<(), Error> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).buffer_capacity(1 << 18).from_reader(source);
    let failed = |source| Error::Csv { file: file.to_owned(), source };
    let mut record = ByteRecord::new();
    if !reader.read_byte_record(&mut record).map_err(failed)? {
        return Err(Error::Empty { file: file.to_owned() });
    }
    let uses = uses_of(record.iter(), None, file, At::Line(1))?;
    let recording = table.new_recording(name);
    while reader.read_byte_record(&mut record).map_err(failed)? {
        if table.len() == MAX_ROWS {
            return Err(Error::TooManyRows);
        }
        let line = record.position().map_or(0, csv::Position::line);
        add_row(table, &uses, &record, file, At::Line(line))?;
        table.groups.push(recording);
        table.cells.end_rows()?;
    }
    Ok(())
}

fn add_row(table: &mut Table, uses: &[Use], record: &ByteRecord, file: &str, at: At) -> Result<(), Error> {
    let target_cells = record.iter().zip(uses).filter(|(_, usage)| matches!(usage, Use::Target));
    table.targets.push(target(target_cells.map(|(cell, _)| cell)));
    for (position, (cell, usage)) in record.iter().zip(uses).enumerate() {
        let column = position + 1;
        let bad = |name, reason| Error::Cell { file: file.to_owned(), at, column, name, reason };
        match usage {
            Use::Ignored | Use::Target | Use::Recording => {}
            Use::Label => {
                let label = label(cell);
                let label =
                    label.map_err(|reason| Error::Label { file: file.to_owned(), at, column, reason })?;
                table.labels.push(label);
            }
            Use::Time => table.times.push(nanoseconds(cell).map_err(|reason| bad(TIME, reason))?),
            Use::Input(index, column) => {
                let value = std::str::from_utf8(cell)
                    .map_err(|_| "is not UTF-8".to_owned())
                    .and_then(|cell| column.encode_text(cell).map_err(|error| reason(&error)));
                table.cells.push(*index, value.map_err(|reason| bad(column.name, reason))?);
            }
        }
    }
    Ok(())
}
