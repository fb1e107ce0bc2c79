//! `capture cut`: a part of a recording.

use std::path::PathBuf;

use capture::combine::{Flow, Instant, Part};
use clap::Args;
use cli::Exit;

use super::merge::write;

/// Write a stretch of time, or one flow, of a recording into another
///
/// Keeps the label that was in force. System snapshots, marks and losses in the stretch are kept for every flow.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capture cut day.mcap --from 2026-11-21T10:00:00Z --to 2026-11-21T10:05:00Z -o five-minutes.mcap
  capture cut day.mcap --from +90s --to +2m -o part.mcap
  capture cut day.mcap --flow '198.18.0.2:40000->198.18.1.2:80:6' -o flow.mcap
  capture cut day.mcap --flow 1a2b3c4d -o flow.mcap          by the flow_id that replay prints")]
pub struct Cut {
    /// The recording; - is standard input
    #[arg(value_name = "FILE")]
    input: PathBuf,

    /// The recording to write; it must not exist yet
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// The first instant to keep: RFC 3339, Unix seconds, or +SPAN after the first event
    #[arg(long, value_name = "TIME")]
    from: Option<Instant>,

    /// The first instant to leave out again
    #[arg(long, value_name = "TIME")]
    to: Option<Instant>,

    /// The flow to keep, in both directions: src:sport->dst:dport:protocol, or a flow_id
    #[arg(long, value_name = "FLOW")]
    flow: Option<Flow>,
}

impl Cut {
    pub fn run(&self) -> anyhow::Result<Exit> {
        let part = Part { from: self.from, to: self.to, flow: self.flow.clone() };
        write(std::slice::from_ref(&self.input), &self.output, &part)
    }
}
