//! What memory it takes to train on ten million rows, from Parquet and from CSV, as a Markdown table. The program may
//! map 4 GiB at most (`ulimit -v`): a run that wants more fails. FAULTLINE_BENCH_ROWS asks for another number of rows.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{Field, Schema};
use features::schema::{COLUMNS, Column, Input, Profile, Type};
use parquet::arrow::ArrowWriter;

type Failure = Box<dyn std::error::Error>;

const ROWS: u64 = 10_000_000;
/// KiB that the program may map.
const LIMIT: u64 = 4 << 20;
const CLASSES: u64 = 12;
const RECORDINGS: u64 = 200;
const ROWS_PER_WINDOW: u64 = 500;
/// Rows of a batch of Parquet.
const BATCH: u64 = 65_536;

/// What one row holds, without a memory of the others, so that both formats hold the same.
#[derive(Clone, Copy)]
struct Row {
    number: u64,
    rows: u64,
}

impl Row {
    fn recording(self) -> u64 {
        self.number * RECORDINGS / self.rows
    }

    fn class(self) -> u64 {
        self.recording() % CLASSES
    }

    /// Seconds; recordings are an hour apart.
    fn time(self) -> u64 {
        let first = self.recording() * self.rows / RECORDINGS;
        1_700_000_000 + self.recording() * 100_000 + (self.number - first) / ROWS_PER_WINDOW * 5
    }

    /// A whole number up to 500 that a few classes move; one in 16 is not measured.
    fn value(self, column: usize) -> Option<u64> {
        let noise = mixed(self.number << 8 | column as u64);
        let moved = mixed(self.class() << 8 | column as u64).is_multiple_of(8);
        (noise & 15 != 0).then_some((noise >> 32) % 400 + if moved { 100 } else { 0 })
    }
}

/// SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

fn write_csv(path: &Path, rows: u64) -> Result<(), Failure> {
    let mut file = BufWriter::new(File::create(path)?);
    write!(file, "{}", Profile::Full.header())?;
    for number in 0..rows {
        let row = Row { number, rows };
        for (place, column) in COLUMNS.iter().enumerate() {
            file.write_all(if place == 0 { b"\n" } else { b"," })?;
            match (column.name, column.input) {
                ("timestamp", _) => write!(file, "{}", row.time())?,
                ("anomaly_label", _) => write!(file, "{}", row.class())?,
                ("dst_ip", _) => file.write_all(b"198.18.1.2")?,
                ("dst_port", _) => file.write_all(b"80")?,
                ("protocol", _) => file.write_all(b"6")?,
                (_, Input::Number) => {
                    if let Some(value) = row.value(place) {
                        write!(file, "{value}")?;
                    }
                }
                (_, Input::Bool) => file.write_all(b"0")?,
                (_, Input::Category(_) | Input::Never) => {}
            }
        }
    }
    file.write_all(b"\n")?;
    Ok(file.flush()?)
}

/// A column of some rows, in the type that `replay` gives it.
#[allow(clippy::cast_precision_loss)] // small whole numbers
fn cells(place: usize, column: &Column, rows: impl Iterator<Item = Row>) -> ArrayRef {
    let number = |row: Row| match (column.name, column.input) {
        ("timestamp", _) => Some(row.time()),
        ("anomaly_label", _) => Some(row.class()),
        ("dst_port", _) => Some(80),
        ("protocol", _) => Some(6),
        (_, Input::Number) => row.value(place),
        _ => None,
    };
    match column.kind {
        Type::U64 | Type::U32 | Type::U16 | Type::I16 => Arc::new(rows.map(number).collect::<UInt64Array>()),
        Type::F64 => {
            Arc::new(rows.map(|row| number(row).map(|value| value as f64)).collect::<Float64Array>())
        }
        Type::Bool => Arc::new(rows.map(|_| Some(false)).collect::<BooleanArray>()),
        Type::Str | Type::Enum => {
            let text = (column.name == "dst_ip").then_some("198.18.1.2");
            Arc::new(rows.map(|_| text).collect::<StringArray>())
        }
    }
}

fn write_parquet(path: &Path, rows: u64) -> Result<(), Failure> {
    let batch = |first: u64| -> Result<RecordBatch, Failure> {
        let some = || (first..rows.min(first + BATCH)).map(|number| Row { number, rows });
        let names = COLUMNS.iter().map(|column| column.name).chain(["recording"]);
        let mut arrays: Vec<ArrayRef> =
            COLUMNS.iter().enumerate().map(|(place, column)| cells(place, column, some())).collect();
        arrays.push(Arc::new(
            some().map(|row| Some(format!("run-{}", row.recording()))).collect::<StringArray>(),
        ));
        let fields: Vec<Field> = names
            .zip(&arrays)
            .map(|(name, array)| Field::new(name, array.data_type().clone(), true))
            .collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
    };
    let first = batch(0)?;
    let mut writer = ArrowWriter::try_new(File::create(path)?, first.schema(), None)?;
    writer.write(&first)?;
    for start in (BATCH..rows).step_by(usize::try_from(BATCH)?) {
        writer.write(&batch(start)?)?;
    }
    writer.close()?;
    Ok(())
}

/// Waits for a program; its largest resident memory in KiB, as the kernel last told it.
fn peak(mut child: Child) -> Result<u64, Failure> {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Ok(status) = std::fs::read_to_string(&path) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
            peak = kib.unwrap_or(peak);
        }
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(peak),
            Some(status) => return Err(format!("train ended with {status}; see what it said above").into()),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn line(
    folder: &Path,
    name: &str,
    write: fn(&Path, u64) -> Result<(), Failure>,
    rows: u64,
) -> Result<String, Failure> {
    let file = folder.join(name);
    write(&file, rows)?;
    let gigabytes = std::fs::metadata(&file)?.len() as f64 / 1e9;
    let start = Instant::now();
    let child = Command::new("sh")
        .args(["-c", &format!("ulimit -v {LIMIT}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_train")])
        .arg(&file)
        .args(["--trees", "10", "--min-leaf", "20", "--folds", "0", "-o"])
        .arg(folder.join("model.flm"))
        .stdout(Stdio::null())
        .spawn()?;
    let peak = peak(child);
    std::fs::remove_file(&file)?;
    let (seconds, mib) = (start.elapsed().as_secs_f64(), peak? / 1024);
    Ok(format!("| {rows} rows of {name}, {gigabytes:.1} GB | {mib} | {seconds:.0} |"))
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Failure> {
    // `cargo test` runs benches too, to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let rows = std::env::var("FAULTLINE_BENCH_ROWS").ok().map_or(Ok(ROWS), |rows| rows.parse())?;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    println!(
        "| fitted and judged, 10 trees, at most 4096 MiB mapped | peak of resident memory, MiB | wall s |\n|---|--:|--:|"
    );
    println!("{}", line(folder.path(), "features.parquet", write_parquet, rows)?);
    println!("{}", line(folder.path(), "features.csv", write_csv, rows)?);
    Ok(())
}
