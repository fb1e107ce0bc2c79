//! Rows from Parquet, as `replay --format parquet` writes it: typed columns, and one that names each row's
//! recording.

use std::fs::File;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use features::Value;
use features::schema::{self, Column, Input};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaData;

use super::columns::{TIME, Use, label, nanoseconds, target, uses_of};
use super::input::{At, Error};
use super::{MAX_ROWS, Table};

/// Names each row's recording.
const RECORDING: &str = "recording";
/// The key under which a file tells the schema of its rows.
const FINGERPRINT: &str = "faultline.schema_fingerprint";
/// Rows that are decoded at a time.
const BATCH: usize = 8192;

/// Adds the rows of a file. Where it has no column `recording`, it is one recording of that name.
pub fn read(table: &mut Table, source: File, file: &str, name: &str) -> Result<(), Error> {
    let failed = |source| Error::Parquet { file: file.to_owned(), source };
    let builder = ParquetRecordBatchReaderBuilder::try_new(source).map_err(failed)?.with_batch_size(BATCH);
    check_schema(builder.metadata(), file)?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let uses = uses_of(names.iter().map(|name| name.as_bytes()), Some(RECORDING), file, At::Schema)?;
    let whole =
        (!uses.iter().any(|usage| matches!(usage, Use::Recording))).then(|| table.new_recording(name));
    let mut first = 1;
    for batch in builder.build().map_err(failed)? {
        let batch = batch.map_err(|source| Error::Batch { file: file.to_owned(), row: first - 1, source })?;
        if table.len() + batch.num_rows() > MAX_ROWS {
            return Err(Error::TooManyRows);
        }
        Rows { file, names: &names, uses: &uses, batch: &batch, first }.add(table, whole)?;
        first += batch.num_rows() as u64;
    }
    Ok(())
}

/// A file that tells its schema has to have this release's; one of another program is judged by its columns.
fn check_schema(metadata: &ParquetMetaData, file: &str) -> Result<(), Error> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let told = pairs.into_iter().flatten().find(|pair| pair.key == FINGERPRINT);
    match told.and_then(|pair| pair.value.as_deref()) {
        Some(found) if found != schema::fingerprint() => Err(Error::Schema {
            file: file.to_owned(),
            found: found.to_owned(),
            expected: schema::fingerprint(),
        }),
        _ => Ok(()),
    }
}

/// A batch of a file's rows.
struct Rows<'a> {
    file: &'a str,
    names: &'a [String],
    uses: &'a [Use],
    batch: &'a RecordBatch,
    /// The number of its first row in the file, counted from 1.
    first: u64,
}

impl Rows<'_> {
    /// `whole` is the recording of all rows, where no column tells it.
    fn add(&self, table: &mut Table, whole: Option<u32>) -> Result<(), Error> {
        let rows = self.batch.num_rows();
        let mut servers: Vec<Vec<Vec<u8>>> = vec![Vec::new(); rows];
        if let Some(recording) = whole {
            table.groups.resize(table.groups.len() + rows, recording);
        }
        for (place, (usage, array)) in self.uses.iter().zip(self.batch.columns()).enumerate() {
            if matches!(usage, Use::Ignored) {
                continue;
            }
            let values = self.values(place, array)?;
            match usage {
                Use::Ignored => {}
                Use::Target => {
                    servers.iter_mut().zip(&values).for_each(|(cells, value)| {
                        cells.push(value.to_string().into_bytes());
                    });
                }
                Use::Recording => self.recordings(table, place, &values)?,
                Use::Label => {
                    for (row, value) in values.iter().enumerate() {
                        let found = label(value.to_string().as_bytes());
                        table.labels.push(found.map_err(|reason| Error::Label {
                            file: self.file.to_owned(),
                            at: self.at(row),
                            column: place + 1,
                            reason,
                        })?);
                    }
                }
                Use::Time => {
                    for (row, value) in values.iter().enumerate() {
                        let time = nanoseconds(value.to_string().as_bytes());
                        table.times.push(time.map_err(|reason| self.bad(row, place, TIME, reason))?);
                    }
                }
                Use::Input(index, column) => {
                    for (row, value) in values.iter().enumerate() {
                        let input = input(column, value);
                        let input = input.map_err(|reason| self.bad(row, place, column.name, reason))?;
                        table.cells.push(*index, input);
                    }
                }
            }
        }
        table.targets.extend(servers.iter().map(|cells| target(cells.iter().map(Vec::as_slice))));
        table.cells.end_rows()?;
        Ok(())
    }

    fn recordings(&self, table: &mut Table, place: usize, values: &[Value]) -> Result<(), Error> {
        for (row, value) in values.iter().enumerate() {
            let name = value.to_string();
            if name.is_empty() {
                let reason = "the row has no recording".to_owned();
                return Err(self.bad(row, place, RECORDING, reason));
            }
            let recording = match table.named.get(&name) {
                Some(recording) => *recording,
                None => {
                    let recording = table.new_recording(&name);
                    table.named.insert(name, recording);
                    recording
                }
            };
            table.groups.push(recording);
        }
        Ok(())
    }

    fn at(&self, row: usize) -> At {
        At::Row(self.first + row as u64)
    }

    fn bad(&self, row: usize, place: usize, name: &'static str, reason: String) -> Error {
        Error::Cell { file: self.file.to_owned(), at: self.at(row), column: place + 1, name, reason }
    }

    fn values(&self, place: usize, array: &ArrayRef) -> Result<Vec<Value>, Error> {
        values(array).ok_or_else(|| Error::Type {
            file: self.file.to_owned(),
            column: place + 1,
            name: self.names[place].clone(),
            found: array.data_type().to_string(),
        })
    }
}

/// The cells of a column; `None` where it is of no type that rows have.
fn values(array: &ArrayRef) -> Option<Vec<Value>> {
    Some(match array.data_type() {
        DataType::UInt8 => numbers::<UInt8Type>(array, |n| Value::Unsigned(n.into())),
        DataType::UInt16 => numbers::<UInt16Type>(array, |n| Value::Unsigned(n.into())),
        DataType::UInt32 => numbers::<UInt32Type>(array, |n| Value::Unsigned(n.into())),
        DataType::UInt64 => numbers::<UInt64Type>(array, Value::Unsigned),
        DataType::Int8 => numbers::<Int8Type>(array, |n| Value::Signed(n.into())),
        DataType::Int16 => numbers::<Int16Type>(array, |n| Value::Signed(n.into())),
        DataType::Int32 => numbers::<Int32Type>(array, |n| Value::Signed(n.into())),
        DataType::Int64 => numbers::<Int64Type>(array, Value::Signed),
        DataType::Float32 => numbers::<Float32Type>(array, |n| Value::Float(n.into())),
        DataType::Float64 => numbers::<Float64Type>(array, Value::Float),
        DataType::Boolean => {
            array.as_boolean().iter().map(|cell| cell.map_or(Value::Empty, Value::Bool)).collect()
        }
        DataType::Utf8 => texts(array.as_string::<i32>().iter()),
        DataType::LargeUtf8 => texts(array.as_string::<i64>().iter()),
        DataType::Utf8View => texts(array.as_string_view().iter()),
        DataType::Null => vec![Value::Empty; array.len()],
        _ => return None,
    })
}

fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef, value: impl Fn(T::Native) -> Value) -> Vec<Value> {
    array.as_primitive::<T>().iter().map(|cell| cell.map_or(Value::Empty, &value)).collect()
}

fn texts<'a>(cells: impl Iterator<Item = Option<&'a str>>) -> Vec<Value> {
    cells.map(|cell| cell.map_or(Value::Empty, |text| Value::Text(text.into()))).collect()
}

/// The model's input, equal to what [`Column::encode_text`] makes of the printed value.
fn input(column: &Column, value: &Value) -> Result<f32, String> {
    let refused = |expected: &str| Err(format!("`{value}` is not {expected}"));
    match (column.input, value) {
        (_, Value::Empty) => Ok(f32::NAN),
        (Input::Number, Value::Float(number)) if !number.is_finite() => refused("a finite number"),
        (Input::Number, Value::Float(_) | Value::Unsigned(_) | Value::Signed(_)) => Ok(column.encode(value)),
        (Input::Number, _) => refused("a finite number"),
        (Input::Bool, Value::Bool(_)) => Ok(column.encode(value)),
        // Data frames know 0 and 1 as numbers where a column had a gap.
        (Input::Bool, value) => match value.to_string().as_str() {
            "0" => Ok(0.0),
            "1" => Ok(1.0),
            _ => refused("0 or 1"),
        },
        (Input::Category(_), Value::Text(_)) => Ok(column.encode(value)),
        (Input::Category(_) | Input::Never, _) => refused("text"),
    }
}
