//! The command line of `replay`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use dissect::Tunnel;
use event::{Duration, Label, Timestamp};

use crate::filter::Filter;
use crate::schema::SchemaArgs;

/// Turn recordings and captures into features: one row per flow and window, on stdout
///
/// The same input gives the same bytes, for any number of threads. What was read, used and skipped, and why,
/// is said on stderr.
#[derive(Clone, Debug, Parser)]
#[command(version, after_help = after_help(), args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Recordings, or pcap and pcapng files (plain, gzip or zstd); - is stdin
    ///
    /// Several inputs are merged by time. Default: the newest file in recordings/.
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,

    /// Hubble's flows as JSON lines (`hubble observe -o json`, or the agent's export), joined with the INPUTs
    ///
    /// May be given several times. Lines that are no flows are counted, bad ones named by their number.
    #[arg(long, value_name = "FILE")]
    pub hubble: Vec<PathBuf>,

    /// Names of addresses, for flows that nothing else names: lines of `ADDRESS[/BITS] namespace=N pod=P service=S`
    ///
    /// Overrides the names that a recording was made with.
    #[arg(long, value_name = "FILE")]
    pub names: Option<PathBuf>,

    /// Write what became of application and kernel events to FILE, as CSV: a line for each window with how many were
    /// seen and how many joined a flow, by which rule
    ///
    /// A window has a line more where something was told of it after it had been closed.
    #[arg(long, value_name = "FILE", conflicts_with = "to_pcapng")]
    pub coverage: Option<PathBuf>,

    /// Length of a window, in seconds; windows start at its multiples in Unix time
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    pub window: Duration,

    /// Label of the time that no mark in the recording covers: a number or a fault's name
    ///
    /// Overrides the label that the recording was made with. Without either the label's cell is empty.
    #[arg(long, value_name = "LABEL")]
    pub label: Option<Label>,

    /// Which rows of a faulty stretch carry its label, in a recording that says which flows the fault affects
    #[arg(long, value_enum, default_value_t)]
    pub labels: Labels,

    /// Leave out what happened before this time: Unix seconds, or as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_negative_numbers = true)]
    pub from: Option<Timestamp>,

    /// Leave out what happened at this time or later
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_negative_numbers = true)]
    pub to: Option<Timestamp>,

    /// Use flows that match, in the words of tcpdump: "host 10.0.0.1 and port 443"
    ///
    /// A flow passes whole, both directions: src and dst match whichever way a packet runs.
    #[arg(long, value_name = "EXPRESSION")]
    pub filter: Option<Filter>,

    /// Which packet counts where one is inside another (GRE, VXLAN, Geneve, IP in IP)
    #[arg(long, value_enum, default_value_t)]
    pub tunnel: Tunnel,

    /// Which columns to write: full (all), or 72 (those of the 72-column ancestor, l7_protocol and label)
    #[arg(long, value_enum, default_value_t)]
    pub profile: Profile,

    /// How rows are written: CSV, Parquet with units and definitions in its metadata, or an Arrow IPC stream
    ///
    /// Parquet and Arrow have one column more: recording, the input's name.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Write Parquet files below DIR instead, as date=2026-01-31/node=NAME/INPUT-0.parquet (dates in UTC)
    ///
    /// Spark, DuckDB and Polars read DIR as one table. A second run over the same input replaces its files.
    #[arg(long, value_name = "DIR", conflicts_with = "to_pcapng")]
    pub out: Option<PathBuf>,

    /// Write the packets instead of rows, as a pcapng file for Wireshark: headers alone; - is stdout
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "profile", "as_live"])]
    pub to_pcapng: Option<PathBuf>,

    /// The file named is still being written: wait at its end for more, and print rows as windows close
    ///
    /// Ends with the recording, or with Ctrl-C. The rows are those of --as-live, byte for byte.
    #[arg(long, conflicts_with = "to_pcapng")]
    pub follow: bool,

    /// Close windows as a live run does, by the recorded arrivals: gives that run's rows byte for byte
    ///
    /// Without it every event finds its window, however late it was told of.
    #[arg(long)]
    pub as_live: bool,

    /// With --as-live and --follow: seconds after its end at which a window is closed
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = parse_lateness)]
    pub lateness: Duration,

    /// Do not read application messages (DNS, HTTP, gRPC, Kafka, TLS) from the payload of captures
    #[arg(long)]
    pub no_l7: bool,

    /// Leave names and paths out of application messages
    #[arg(long)]
    pub redact: bool,

    /// Flows remembered at once; past it the least recently active one is closed early, and counted
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_flows: u32,

    /// Processors to keep busy; the rows do not depend on it [default: the cores there are]
    ///
    /// 1: one thread does everything. From 2 on reading and writing have threads of their own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,

    #[command(flatten)]
    pub log: cli::LogArgs,
}

/// What else `replay` does.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print the columns: names, units, types and definitions
    Schema(SchemaArgs),
    /// Sum up what a recording or capture holds: flows, talkers, retransmissions, application codes
    Stats(StatsArgs),
}

/// Arguments of `replay stats`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatsArgs {
    /// Recordings, or pcap and pcapng files; - is stdin [default: the newest file in recordings/]
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// Talkers to list
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: u16,

    /// Length of a window, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    pub window: Duration,

    /// Leave out what happened before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_negative_numbers = true)]
    pub from: Option<Timestamp>,

    /// Leave out what happened at this time or later
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_negative_numbers = true)]
    pub to: Option<Timestamp>,

    /// Use flows that match, in the words of tcpdump
    #[arg(long, value_name = "EXPRESSION")]
    pub filter: Option<Filter>,
}

impl StatsArgs {
    /// The run that the summary is made from: everything else as by default.
    pub fn reading(&self) -> Args {
        Args {
            inputs: self.inputs.clone(),
            window: self.window,
            from: self.from,
            to: self.to,
            filter: self.filter.clone(),
            ..Args::parse_from(["replay"])
        }
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Csv,
    Parquet,
    /// As an IPC stream
    Arrow,
}

/// Which rows of a faulty stretch carry its label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Labels {
    /// Those of the flows that the fault affects; all others are normal (0)
    #[default]
    Affected,
    /// All
    All,
}

fn after_help() -> String {
    format!("{EXAMPLES}\n{}", cli::EXIT_CODES)
}

/// Which columns are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    #[default]
    Full,
    #[value(name = "72")]
    Ancestor72,
}

impl From<Profile> for features::schema::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Full => Self::Full,
            Profile::Ancestor72 => Self::Ancestor72,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  replay --window 5 > features.csv
      rows of 5 seconds of the newest recording
  replay trace.pcapng --window 1 --label packet-loss > features.csv
      of a capture made elsewhere, labelled
  tcpdump -w - -c 1000 | replay -
      of a pipe
  replay node.pcap --hubble flows.jsonl > features.csv
      joined with what Hubble saw meanwhile
  replay --out features/ recordings/*.mcap
      Parquet files by day and node
  replay --follow recordings/today.mcap
      rows of a recording that is being made, as its windows close
  replay trace.mcap --to-pcapng - | wireshark -k -i -
      look at a recording's packets in Wireshark
  replay stats trace.mcap
      what is in it
  replay schema
      what the columns mean
";

/// Longest window: a day.
const MAX_WINDOW_S: f64 = 86_400.0;

fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        if !seconds.is_finite() || seconds.abs() > 9e9 {
            return Err("not a time between the years 1684 and 2255".to_owned());
        }
        #[allow(clippy::cast_possible_truncation, reason = "checked to fit")]
        return Ok(Timestamp::from_nanos((seconds * 1e9).round() as i64));
    }
    let time: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    i64::try_from(time.as_nanosecond())
        .map(Timestamp::from_nanos)
        .map_err(|_| "not a time between the years 1678 and 2262".to_owned())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    parse_within(text, 0.001, MAX_WINDOW_S)
}

fn parse_lateness(text: &str) -> Result<Duration, String> {
    parse_within(text, 0.0, MAX_WINDOW_S)
}

fn parse_within(text: &str, least: f64, most: f64) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(least..=most).contains(&seconds) {
        return Err(format!("from {least} to {most} seconds are possible"));
    }
    #[allow(clippy::cast_possible_truncation, reason = "at most a day of nanoseconds")]
    Ok(Duration::from_nanos((seconds * 1e9).round() as i64))
}
