//! `capture recover`: what is left of a damaged recording.

use std::path::PathBuf;

use capture::combine::Part;
use clap::Args;
use cli::Exit;

use super::merge::write;

/// Write what can be read of a cut or damaged recording into a whole one
///
/// stderr tells what is missing, and so does the new recording's metadata. The exit code is 3 where anything is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capture recover crashed.mcap -o saved.mcap")]
pub struct Recover {
    /// The recording; - is standard input
    #[arg(value_name = "FILE")]
    input: PathBuf,

    /// The recording to write; it must not exist yet
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Recover {
    pub fn run(&self) -> anyhow::Result<Exit> {
        write(std::slice::from_ref(&self.input), &self.output, &Part::default())
    }
}
