//! `capture merge`: several recordings into one.

use std::path::{Path, PathBuf};

use capture::combine::{Part, combine};
use clap::Args;
use cli::Exit;

use super::verify::{open, tell};

/// Merge recordings into one, ordered by arrival
///
/// Pieces of one recorder come together again; recordings of several nodes keep apart by the names of their
/// interfaces (node/interface).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capture merge day-*.mcap -o day.mcap
  capture merge node-a.mcap node-b.mcap -o both.mcap")]
pub struct Merge {
    /// Recordings to merge; - is standard input
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,

    /// The recording to write; it must not exist yet
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Merge {
    pub fn run(&self) -> anyhow::Result<Exit> {
        write(&self.inputs, &self.output, &Part::default())
    }
}

/// Writes a part of the inputs, and says what was read, left out and missing.
pub fn write(inputs: &[PathBuf], output: &Path, part: &Part) -> anyhow::Result<Exit> {
    let mut readers = inputs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let combined = combine(&mut readers, output, part)?;
    let mut exit = Exit::Done;
    for reader in &readers {
        exit = exit.max(tell(reader));
        tracing::info!("{}: read {}", reader.path().display(), reader.report().counts);
    }
    let (summary, left_out) = (combined.summary, combined.left_out);
    tracing::info!(
        "{}: {} in {} bytes; {left_out} events left out",
        output.display(),
        summary.counts,
        summary.bytes
    );
    Ok(exit)
}
