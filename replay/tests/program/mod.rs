//! Runs the real `replay` and reads its rows.

#![allow(clippy::unwrap_used, dead_code, reason = "each test file uses a part of it")]

use std::path::Path;
use std::process::Command;

/// What a run gave.
pub struct Run {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    header: csv::StringRecord,
    rows: Vec<csv::StringRecord>,
}

impl Run {
    pub fn rows(&self) -> impl Iterator<Item = &csv::StringRecord> {
        self.rows.iter()
    }

    /// The cells of a column.
    pub fn column(&self, name: &str) -> impl Iterator<Item = &str> {
        let place = self.header.iter().position(|column| column == name).expect("a known column");
        self.rows.iter().map(move |row| &row[place])
    }

    /// Sum of a column; an empty cell adds nothing.
    pub fn sum(&self, name: &str) -> f64 {
        self.column(name).filter(|cell| !cell.is_empty()).map(|cell| cell.parse::<f64>().unwrap()).sum()
    }
}

/// Runs the program with these arguments.
pub fn replay(args: &[&str]) -> Run {
    replay_in(Path::new("."), args)
}

/// The same, in a directory.
pub fn replay_in(directory: &Path, args: &[&str]) -> Run {
    let output =
        Command::new(env!("CARGO_BIN_EXE_replay")).args(args).current_dir(directory).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let (header, rows) = cells(&output.stdout).unwrap_or_default();
    Run { code: output.status.code().unwrap_or(-1), stdout: output.stdout, stderr, header, rows }
}

/// Header and rows, where the output is CSV.
fn cells(stdout: &[u8]) -> Result<(csv::StringRecord, Vec<csv::StringRecord>), csv::Error> {
    let mut reader = csv::Reader::from_reader(stdout);
    let header = reader.headers()?.clone();
    Ok((header, reader.records().collect::<Result<_, _>>()?))
}
