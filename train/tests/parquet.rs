//! Parquet rows give the model that CSV rows give, and are refused as those are.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod noise;
mod rows;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use features::schema::{COLUMNS, Type, fingerprint};
use model::Model;
use noise::Noise;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use rows::recording;
use tempfile::TempDir;

fn train(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_train")).current_dir(folder).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Cells of one column in the type that `replay` gives it; an empty cell is null.
fn column(kind: Type, cells: &[&str]) -> ArrayRef {
    let told = |cell: &&str| (!cell.is_empty()).then(|| (*cell).to_owned());
    let cells = cells.iter().map(told);
    match kind {
        Type::U64 | Type::U32 | Type::U16 | Type::I16 => {
            Arc::new(cells.map(|cell| cell.map(|cell| cell.parse::<u64>().unwrap())).collect::<UInt64Array>())
        }
        Type::F64 => Arc::new(
            cells.map(|cell| cell.map(|cell| cell.parse::<f64>().unwrap())).collect::<Float64Array>(),
        ),
        Type::Bool => Arc::new(cells.map(|cell| cell.map(|cell| cell == "1")).collect::<BooleanArray>()),
        Type::Str | Type::Enum => Arc::new(cells.collect::<StringArray>()),
    }
}

/// The rows of some CSV texts as one table, with the column that names their recordings.
fn table(recordings: &[(String, String)]) -> Vec<(String, ArrayRef)> {
    let mut cells: Vec<Vec<&str>> = vec![Vec::new(); COLUMNS.len()];
    let mut names = Vec::new();
    for (name, text) in recordings {
        for line in text.lines().skip(1) {
            line.split(',').zip(&mut cells).for_each(|(cell, column)| column.push(cell));
            names.push(name.as_str());
        }
    }
    let mut columns: Vec<(String, ArrayRef)> = COLUMNS
        .iter()
        .zip(&cells)
        .map(|(schema, cells)| (schema.name.to_owned(), column(schema.kind, cells)))
        .collect();
    columns.push(("recording".to_owned(), Arc::new(StringArray::from(names))));
    columns
}

fn write(path: &Path, columns: &[(String, ArrayRef)], schema: &str) {
    let fields = columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true));
    let schema_of = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
    let arrays = columns.iter().map(|(_, array)| Arc::clone(array)).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema_of), arrays).unwrap();
    let pair = KeyValue::new("faultline.schema_fingerprint".to_owned(), schema.to_owned());
    let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![pair])).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema_of, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Twelve recordings of three classes, by the names that `replay` reads them by.
fn recordings() -> Vec<(String, String)> {
    let mut noise = Noise(7);
    let runs = [0, 2, 4].into_iter().flat_map(|label| (0..4).map(move |run| (label, run)));
    runs.map(|(label, run)| (format!("run-{label}-{run}.mcap"), recording(label, 1_000_000, 12, &mut noise)))
        .collect()
}

#[test]
fn parquet_rows_give_the_model_of_the_same_rows_in_csv() {
    let folder = TempDir::new().unwrap();
    let recordings = recordings();
    let mut args = Vec::new();
    for (name, text) in &recordings {
        let name = name.replace(".mcap", ".csv");
        std::fs::write(folder.path().join(&name), text).unwrap();
        args.push(name);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--trees", "10", "-o", "csv.flm"]).collect();
    let output = train(folder.path(), &args);
    assert!(output.status.success(), "{}", stderr(&output));
    // Two files, and the second recording goes on in the second one.
    let columns = table(&recordings);
    let part = |from: usize, rows: usize| -> Vec<(String, ArrayRef)> {
        columns.iter().map(|(name, array)| (name.clone(), array.slice(from, rows))).collect()
    };
    let rows = columns[0].1.len();
    write(&folder.path().join("a.parquet"), &part(0, 150), fingerprint());
    write(&folder.path().join("b.parquet"), &part(150, rows - 150), fingerprint());
    let output = train(folder.path(), &["a.parquet", "b.parquet", "--trees", "10", "-o", "parquet.flm"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("from 12 recordings in 2 files"), "{}", stderr(&output));
    let load = |name: &str| Model::load(&folder.path().join(name)).unwrap();
    let (csv, parquet) = (load("csv.flm"), load("parquet.flm"));
    assert_eq!(csv.forest(), parquet.forest());
    assert_eq!(csv.meta().evaluation, parquet.meta().evaluation);
    assert_eq!(parquet.meta().training.data.len(), 2);
}

#[test]
fn parquet_that_does_not_fit_is_refused_with_its_place_and_a_remedy() {
    let folder = TempDir::new().unwrap();
    let good = table(&recordings());
    let path = folder.path().join("x.parquet");
    let refused = |expected: &str| {
        let output = train(folder.path(), &["x.parquet"]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let text = stderr(&output);
        assert!(text.contains("x.parquet") && text.contains(expected), "{expected} is not in {text}");
    };
    let with = |name: &str, array: ArrayRef| -> Vec<(String, ArrayRef)> {
        let mut columns = good.clone();
        columns.iter_mut().find(|(other, _)| other == name).unwrap().1 = array;
        columns
    };
    let rows = good[0].1.len();
    let numbers = |bad: f64| -> ArrayRef {
        Arc::new((0..rows).map(|row| if row == 4 { bad } else { 1.0 }).collect::<Float64Array>())
    };
    write(&path, &with("packet_count", numbers(f64::INFINITY)), fingerprint());
    refused("row 5, column 9 (`packet_count`): `inf` is not a finite number");
    write(&path, &with("anomaly_label", numbers(0.5)), fingerprint());
    refused("row 5, column 103 (`anomaly_label`): `0.5` is not a label");
    write(&path, &with("is_blocked_flow", numbers(2.0)), fingerprint());
    refused("(`is_blocked_flow`): `2` is not 0 or 1");
    let unnamed = (0..rows).map(|row| (row != 2).then_some("run")).collect::<StringArray>();
    write(&path, &with("recording", Arc::new(unnamed)), fingerprint());
    refused("row 3, column 104 (`recording`): the row has no recording");
    let mut more = good.clone();
    more.push(("recording_id".to_owned(), numbers(1.0)));
    write(&path, &more, fingerprint());
    refused("column 105 (`recording_id`): the schema has no such column");
    write(&path, &good[1..], fingerprint());
    refused("column `timestamp` is missing");
    write(&path, &good, "0123");
    refused("has rows of schema 0123");
    let dates = arrow_array::new_null_array(&DataType::Date32, rows);
    write(&path, &with("packet_count", dates), fingerprint());
    refused("column 9 (`packet_count`): it holds Date32");
    write(&path, &good, fingerprint());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    refused("it may be cut off");
    std::fs::write(&path, &whole).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_train"));
    child.current_dir(folder.path()).arg("-").stdin(File::open(&path).unwrap()).stderr(Stdio::piped());
    let output = child.output().unwrap();
    assert!(stderr(&output).contains("write it to a file and name that"), "{}", stderr(&output));
}
