//! `capture verify`: whether a recording is whole.

use std::path::PathBuf;

use clap::Args;
use cli::Exit;
use recording::Reader;

/// Check that recordings are whole: every checksum, every message, every count
///
/// Says nothing about a recording that is whole. Otherwise stderr tells the bytes that are damaged, where it is
/// cut and how many events are missing, and the exit code is 3. `capture recover` saves what is left.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capture verify recordings/*.mcap
  ssh node cat /var/lib/capture/now.mcap | capture verify -")]
pub struct Verify {
    /// Recordings to check; - is standard input
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,
}

impl Verify {
    pub fn run(&self) -> anyhow::Result<Exit> {
        let mut exit = Exit::Done;
        for path in &self.inputs {
            let mut reader = open(path)?;
            while reader.next_item()?.is_some() {}
            exit = exit.max(tell(&reader));
            tracing::info!("{}: read {}", path.display(), reader.report().counts);
        }
        Ok(exit)
    }
}

/// A recording by its path, or from standard input by the name `-`.
pub fn open(path: &PathBuf) -> Result<Reader, recording::Error> {
    if path.as_os_str() == "-" {
        return Reader::new(Box::new(std::io::stdin()), "standard input");
    }
    Reader::open(path)
}

/// Says what is missing of a recording that was read to its end.
pub fn tell(reader: &Reader) -> Exit {
    for complaint in reader.report().complaints() {
        tracing::warn!("{}: {complaint}", reader.path().display());
    }
    if reader.report().is_whole() { Exit::Done } else { Exit::Damaged }
}
