//! Rows as Arrow record batches: what Parquet and Arrow IPC have in common.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int16Builder, StringBuilder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use event::Duration;
use features::schema::{COLUMNS, Column, Profile, Type, fingerprint};
use features::{Row, Value};

/// Rows of a record batch.
const BATCH: usize = 16 * 1024;

/// The column that tells which recording a row is of. Text; not one of the schema's.
pub const RECORDING: &str = "recording";

/// What every file says of its rows.
#[derive(Clone, Debug)]
pub struct About {
    pub profile: Profile,
    /// The name of the input, which stands in the column `recording`.
    pub recording: String,
    /// Length of a window.
    pub window: Duration,
}

/// Builds one column.
enum Cells {
    U64(UInt64Builder),
    U32(UInt32Builder),
    U16(UInt16Builder),
    I16(Int16Builder),
    F64(Float64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
}

impl Cells {
    fn new(kind: Type) -> Self {
        match kind {
            Type::U64 => Self::U64(UInt64Builder::new()),
            Type::U32 => Self::U32(UInt32Builder::new()),
            Type::U16 => Self::U16(UInt16Builder::new()),
            Type::I16 => Self::I16(Int16Builder::new()),
            Type::F64 => Self::F64(Float64Builder::new()),
            Type::Bool => Self::Bool(BooleanBuilder::new()),
            Type::Str | Type::Enum => Self::Text(StringBuilder::new()),
        }
    }

    /// A value that does not fit its column's type would be a mistake of ours: it becomes a null, which a test
    /// on every column rules out.
    fn push(&mut self, value: &Value) {
        match (self, value) {
            (Self::U64(cells), value) => cells.append_option(unsigned(value)),
            (Self::U32(cells), value) => {
                cells.append_option(unsigned(value).and_then(|n| u32::try_from(n).ok()));
            }
            (Self::U16(cells), value) => {
                cells.append_option(unsigned(value).and_then(|n| u16::try_from(n).ok()));
            }
            (Self::I16(cells), Value::Signed(number)) => cells.append_option(i16::try_from(*number).ok()),
            (Self::I16(cells), value) => {
                cells.append_option(unsigned(value).and_then(|n| i16::try_from(n).ok()));
            }
            (Self::F64(cells), Value::Float(number)) => cells.append_value(*number),
            (Self::F64(cells), _) => cells.append_null(),
            (Self::Bool(cells), Value::Bool(truth)) => cells.append_value(*truth),
            (Self::Bool(cells), _) => cells.append_null(),
            (Self::Text(cells), Value::Name(name)) => cells.append_value(name),
            (Self::Text(cells), Value::Text(text)) => cells.append_value(text),
            (Self::Text(cells), _) => cells.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::U64(cells) => Arc::new(cells.finish()),
            Self::U32(cells) => Arc::new(cells.finish()),
            Self::U16(cells) => Arc::new(cells.finish()),
            Self::I16(cells) => Arc::new(cells.finish()),
            Self::F64(cells) => Arc::new(cells.finish()),
            Self::Bool(cells) => Arc::new(cells.finish()),
            Self::Text(cells) => Arc::new(cells.finish()),
        }
    }
}

fn unsigned(value: &Value) -> Option<u64> {
    match value {
        Value::Unsigned(number) => Some(*number),
        Value::Signed(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn data_type(kind: Type) -> DataType {
    match kind {
        Type::U64 => DataType::UInt64,
        Type::U32 => DataType::UInt32,
        Type::U16 => DataType::UInt16,
        Type::I16 => DataType::Int16,
        Type::F64 => DataType::Float64,
        Type::Bool => DataType::Boolean,
        Type::Str | Type::Enum => DataType::Utf8,
    }
}

/// Unit, scope and definition travel with each column.
fn field(column: &Column) -> Field {
    let metadata = [
        ("unit", column.unit),
        ("scope", column.scope.name()),
        ("group", column.group.name()),
        ("empty_when", column.empty_when),
        ("definition", column.definition),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Field::new(column.name, data_type(column.kind), true).with_metadata(HashMap::from(metadata))
}

/// Collects rows into record batches.
pub struct Table {
    schema: SchemaRef,
    places: &'static [usize],
    cells: Vec<Cells>,
    recording: StringBuilder,
    about: About,
    rows: usize,
}

impl Table {
    pub fn new(about: About) -> Self {
        let places = about.profile.places();
        let columns = || places.iter().map(|place| &COLUMNS[*place]);
        let mut fields: Vec<Field> = columns().map(field).collect();
        let definition = [("definition".to_owned(), "name of the input that the row is of".to_owned())];
        fields.push(Field::new(RECORDING, DataType::Utf8, false).with_metadata(HashMap::from(definition)));
        let metadata = facts(&about).into_iter().map(|(key, value)| (key.to_owned(), value));
        Self {
            schema: Arc::new(Schema::new_with_metadata(fields, metadata.collect::<HashMap<_, _>>())),
            places,
            cells: columns().map(|column| Cells::new(column.kind)).collect(),
            recording: StringBuilder::new(),
            about,
            rows: 0,
        }
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Adds a row; gives a batch where that fills one.
    pub fn push(&mut self, row: &Row) -> Result<Option<RecordBatch>, ArrowError> {
        for (cells, place) in self.cells.iter_mut().zip(self.places) {
            cells.push(&row.cell(*place));
        }
        self.recording.append_value(&self.about.recording);
        self.rows += 1;
        if self.rows == BATCH { self.take() } else { Ok(None) }
    }

    /// The rows since the last batch, where there are any.
    pub fn take(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if std::mem::take(&mut self.rows) == 0 {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = self.cells.iter_mut().map(Cells::finish).collect();
        columns.push(Arc::new(self.recording.finish()));
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map(Some)
    }
}

/// What the file's own metadata say, for readers of every kind.
pub fn facts(about: &About) -> Vec<(&'static str, String)> {
    let seconds = about.window.as_nanos() as f64 / 1e9;
    vec![
        ("faultline.schema_fingerprint", fingerprint().to_owned()),
        ("faultline.window_s", seconds.to_string()),
        ("faultline.version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
}
