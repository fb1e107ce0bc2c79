//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  infer --model model.flm --from recordings/run.mcap > verdicts.jsonl
      judge a recording, or a pcap or pcapng file
  infer --model model.flm --from run.mcap --webhook http://127.0.0.1:9000/hook
      and tell a receiver when a fault begins and when it is over

Every verdict is one line of JSON on standard output: window, flow, fault, confidence, runner-up, model, and the
features that speak most for it. A webhook is a CloudEvent about an incident: a fault that several windows agree on.
";

/// Judge what a node sees, and call for repair
///
/// Each flow and window is judged by a model; where several windows agree on a fault at one target, that is an
/// incident, and receivers are told when it begins and when it is over. A receiver that is down, slow or wrong
/// delays nothing: messages wait in a queue of its own.
#[derive(Debug, Parser)]
#[command(name = "infer", version, after_long_help = format!("{EXAMPLES}\n{}", cli::EXIT_CODES))]
pub struct Cli {
    #[command(flatten)]
    pub run: Run,

    #[command(flatten)]
    pub log: cli::LogArgs,
}

/// Which verdicts are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Print {
    #[default]
    All,
    /// Those that name a fault
    Faults,
    None,
}

/// What a run is told.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Judge by this model (made by `train`)
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,

    /// Read a recording or a capture file (pcap, pcapng; `-` is standard input), and stop at its end
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,

    /// Tell this receiver of every incident (may be given several times)
    #[arg(long, value_name = "URL")]
    pub webhook: Vec<String>,

    /// Sign what is sent with the keys in this file, one `whsec_...` a line, the current one first
    #[arg(long, value_name = "FILE", requires = "webhook")]
    pub webhook_secret_file: Option<PathBuf>,

    /// Keep queues, dead letters and incidents here, so that a restart loses and repeats nothing; without it
    /// they end with the process
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Wait this long at the end for receivers that do not answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub drain: Duration,

    /// Keep a window open this long after its end for what arrives late
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub lateness: Duration,

    /// Which verdicts to print
    #[arg(long, value_enum, default_value_t)]
    pub print: Print,

    /// Explain at most so many rows of a window, the strongest of each target and fault first
    #[arg(long, value_name = "ROWS", default_value_t = 32)]
    pub explain: usize,

    /// Name of the node in what is sent; a recording knows its own
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,

    /// Remember at most so many flows; past it the least recently active are closed early, and counted
    #[arg(long, value_name = "FLOWS", default_value_t = 100_000)]
    pub max_flows: usize,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 500ms, 30s or 10m"))
}

impl Cli {
    /// Reads the command line, or ends the process with what is wrong with it.
    pub fn read() -> Self {
        Self::parse()
    }
}
