//! Rows as Parquet: one file, or a folder of files by date and node.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use event::Timestamp;
use features::{ClosedWindow, Coverage};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::table::{About, Table, facts};

/// Rows of a row group: what is held in memory before it is written.
const ROW_GROUP: usize = 128 * 1024;
/// Level of compression.
const LEVEL: i32 = 3;

/// Writes one Parquet file to any output.
pub struct Parquet<W: Write + Send> {
    table: Table,
    writer: ArrowWriter<W>,
    /// Of the windows that are in the file.
    coverage: Coverage,
}

impl<W: Write + Send> Parquet<W> {
    pub fn new(output: W, about: &About) -> Result<Self> {
        let table = Table::new(about.clone());
        let pairs = facts(about).into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
            .set_max_row_group_row_count(Some(ROW_GROUP))
            .set_key_value_metadata(Some(pairs.collect()))
            .build();
        let writer = ArrowWriter::try_new(output, table.schema(), Some(properties))?;
        Ok(Self { table, writer, coverage: Coverage::default() })
    }

    pub fn write(&mut self, window: &ClosedWindow) -> Result<()> {
        self.coverage.add(&window.coverage());
        for row in window.rows() {
            if let Some(batch) = self.table.push(&row)? {
                self.writer.write(&batch)?;
            }
        }
        Ok(())
    }

    /// Writes what is left and the file's end; gives the output back.
    pub fn finish(mut self) -> Result<W> {
        if let Some(batch) = self.table.take()? {
            self.writer.write(&batch)?;
        }
        let Coverage { seen, .. } = self.coverage;
        for (key, count) in [("l7_seen", seen), ("l7_joined", self.coverage.joined())] {
            self.writer
                .append_key_value_metadata(KeyValue::new(format!("faultline.{key}"), count.to_string()));
        }
        Ok(self.writer.into_inner()?)
    }
}

/// The node of an input that does not tell it. (Hive's own word for nothing leaves a column without any value, whose
/// type some readers cannot guess.)
const UNKNOWN: &str = "unknown";

/// Writes files below a folder, as `date=2026-01-31/node=worker-1/NAME-0.parquet`: what Spark, DuckDB and Polars
/// read as a table with the columns `date` and `node`. A file appears under its name when it is whole. A second
/// run over the same recording replaces its files.
pub struct Partitions {
    folder: PathBuf,
    node: String,
    about: About,
    open: Option<Part>,
    /// Files written so far, by name.
    written: Vec<PathBuf>,
}

struct Part {
    date: String,
    path: PathBuf,
    unfinished: PathBuf,
    parquet: Parquet<BufWriter<File>>,
}

impl Partitions {
    /// `node` is empty where the input does not tell it.
    pub fn new(folder: &Path, node: &str, about: About) -> Self {
        let node = if node.is_empty() { UNKNOWN.to_owned() } else { encoded(node) };
        Self { folder: folder.to_owned(), node, about, open: None, written: Vec::new() }
    }

    pub fn write(&mut self, window: &ClosedWindow) -> Result<()> {
        let date = date(window.start());
        if self.open.as_ref().is_some_and(|part| part.date != date) {
            self.close()?;
        }
        if self.open.is_none() {
            self.open = Some(self.begin(date)?);
        }
        match &mut self.open {
            Some(part) => part.parquet.write(window),
            None => Ok(()),
        }
    }

    fn begin(&self, date: String) -> Result<Part> {
        let folder = self.folder.join(format!("date={date}")).join(format!("node={}", self.node));
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let stem = encoded(&self.about.recording);
        // A clock that steps back over midnight comes to a day twice.
        let mut number = 0;
        let mut path = folder.join(format!("{stem}-{number}.parquet"));
        while self.written.contains(&path) {
            number += 1;
            path = folder.join(format!("{stem}-{number}.parquet"));
        }
        // Readers of tables pass over names that begin with a dot.
        let unfinished = folder.join(format!(".{stem}-{number}.parquet.unfinished"));
        let file =
            File::create(&unfinished).with_context(|| format!("cannot create {}", unfinished.display()))?;
        let parquet = Parquet::new(BufWriter::new(file), &self.about)?;
        Ok(Part { date, path, unfinished, parquet })
    }

    fn close(&mut self) -> Result<()> {
        let Some(part) = self.open.take() else { return Ok(()) };
        let Part { path, unfinished, parquet, .. } = part;
        let mut output =
            parquet.finish().with_context(|| format!("cannot write {}", unfinished.display()))?;
        output.flush().with_context(|| format!("cannot write {}", unfinished.display()))?;
        fs::rename(&unfinished, &path).with_context(|| format!("cannot create {}", path.display()))?;
        self.written.push(path);
        Ok(())
    }

    pub fn finish(mut self) -> Result<()> {
        self.close()?;
        let files = self.written.len();
        tracing::info!("{files} files written below {}", self.folder.display());
        Ok(())
    }
}

/// The day of a window's start, in UTC.
fn date(start: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(start.as_nanos().into())
        .map_or_else(|_| UNKNOWN.to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

/// As a part of a path that every reader takes back: other bytes than letters, digits, `.`, `_` and `-` as `%XX`.
fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_parts_of_a_path() {
        assert_eq!(encoded("worker-1.example"), "worker-1.example");
        assert_eq!(encoded("a/b c=ü"), "a%2Fb%20c%3D%C3%BC");
    }

    #[test]
    fn days_are_those_of_utc() {
        assert_eq!(date(Timestamp::from_secs(1_700_006_399)), "2023-11-14");
        assert_eq!(date(Timestamp::from_secs(1_700_006_400)), "2023-11-15");
    }
}
