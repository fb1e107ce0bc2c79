//! `--coverage`: what became of the application and kernel events, window by window, as CSV.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use event::Timestamp;
use features::Coverage;

const HEADER: &str = "timestamp,l7_seen,l7_joined,by_five_tuple,by_translated_source,by_client,l7_unjoined,\
                      l7_repeated,kernel_joined,kernel_unjoined";

/// The file, open from the start so that a wrong path is known before the work is done.
pub struct CoverageFile {
    output: BufWriter<File>,
    path: String,
}

impl CoverageFile {
    /// Creates the file and writes its header.
    pub fn create(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::create(path).with_context(|| format!("cannot create {name}"))?;
        let mut created = Self { output: BufWriter::new(file), path: name };
        created.line(HEADER)?;
        Ok(created)
    }

    /// A line for each window of which something was told.
    pub fn write(&mut self, windows: &[(Timestamp, Coverage)]) -> Result<()> {
        for (start, coverage) in windows {
            let seconds = start.as_nanos() as f64 / 1e9;
            let Coverage { seen, by_five_tuple, by_translated_source, by_client, unjoined, .. } = coverage;
            let Coverage { repeated, kernel_joined, kernel_unjoined, .. } = coverage;
            let joined = coverage.joined();
            self.line(&format!(
                "{seconds},{seen},{joined},{by_five_tuple},{by_translated_source},{by_client},{unjoined},{repeated},\
                 {kernel_joined},{kernel_unjoined}"
            ))?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.output, "{line}").with_context(|| format!("cannot write {}", self.path))
    }

    /// Hands on what was written so far.
    pub fn flush(&mut self) -> Result<()> {
        self.output.flush().with_context(|| format!("cannot write {}", self.path))
    }
}
