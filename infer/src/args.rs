//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use capture::watch::WatchArgs;
use clap::{Parser, Subcommand, ValueEnum};

use crate::classify::Doubts;

const EXAMPLES: &str = "\
Examples:
  infer --model model.flm --from recordings/run.mcap > verdicts.jsonl
      judge a recording, or a pcap or pcapng file
  infer --model model.flm --from run.mcap --webhook http://127.0.0.1:9000/hook
      and tell a receiver when a fault begins and when it is over
  infer --model model.flm --iface eth0 --policy policy.toml --state-dir /var/lib/faultline
      watch this node, and do what the policy says
  infer --iface all --record box.mcap --keep 10m --listen 127.0.0.1:9464
      watch this node, and keep the last ten minutes on disk
  infer policy check policy.toml
      say what is wrong with a policy before it is used

Every verdict is one line of JSON on standard output: window, flow, fault, confidence, runner-up, model, and the
features that speak most for it. A webhook is a CloudEvent about an incident: a fault that several windows agree on.
Nothing that is read from a file is ever acted on; live, nothing is unless a policy says `enforce` or `approve`.";

/// Judge what a node sees, and call for repair
///
/// Each flow and window is judged by a model; where several windows agree on a fault at one target, that is an
/// incident, and receivers are told when it begins and when it is over. A receiver that is down, slow or wrong
/// delays nothing: messages wait in a queue of its own.
#[derive(Debug, Parser)]
#[command(
    name = "infer",
    version,
    after_help = format!("{EXAMPLES}\n\n{}", cli::EXIT_CODES),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub run: Run,

    #[command(flatten)]
    pub log: cli::LogArgs,
}

/// What else can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Policies: who is told, what may be done
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Which actions a policy would have asked for, against the labels of recordings
    Backtest(Backtest),
    /// Messages that could not be delivered
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// What a receiver needs
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// The log of decisions
    #[command(subcommand)]
    Audit(AuditCommand),
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say everything that is wrong with a policy, or what it does
    Check {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// What a backtest is told.
#[derive(Debug, clap::Args)]
pub struct Backtest {
    /// The policy to try
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,

    #[command(flatten)]
    pub model: ModelArgs,

    /// One JSON object per incident instead of a table
    #[arg(long)]
    pub json: bool,

    /// Recordings, or capture files, each judged on its own
    #[arg(value_name = "RECORDING", required = true)]
    pub recordings: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Print the dead letters, one JSON object each
    List {
        #[arg(long, value_name = "DIR")]
        state_dir: PathBuf,
    },
    /// Queue dead letters again; expired actions stay dead
    Replay {
        #[arg(long, value_name = "DIR")]
        state_dir: PathBuf,
        /// Only those of this receiver, and send to it again if it had said that it is gone
        #[arg(long, value_name = "NAME")]
        receiver: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Check the signature of a message: its body on standard input, its headers as flags
    Verify {
        /// File with the signing keys, one `whsec_...` a line
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
        /// Header webhook-id
        #[arg(long)]
        id: String,
        /// Header webhook-timestamp
        #[arg(long)]
        timestamp: String,
        /// Header webhook-signature
        #[arg(long)]
        signature: String,
        /// Take this for the time, in Unix seconds, instead of now
        #[arg(long, value_name = "SECONDS")]
        now: Option<i64>,
    },
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no line of a log was changed, dropped or moved
    Verify {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
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

/// How rows are judged.
#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// Judge by this model (made by `train`) [default: the built-in one]; given several times, the first one that
    /// knows an answer decides
    #[arg(long, value_name = "FILE")]
    pub model: Vec<PathBuf>,

    /// A row is unknown where a larger share of what the model looks at lies outside what it was trained on. On a node
    /// with other memory, disks and load than those of the training set more lies outside on all rows
    #[arg(long, value_name = "SHARE", default_value_t = Doubts::default().outside, value_parser = share)]
    pub max_outside: f32,

    /// Keep a window open this long after its end for what arrives late
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub lateness: Duration,

    /// Explain at most so many rows of a window, the strongest of each target and fault first
    #[arg(long, value_name = "ROWS", default_value_t = 32)]
    pub explain: usize,

    /// Remember at most so many flows; past it the least recently active are closed early, and counted
    #[arg(long, value_name = "FLOWS", default_value_t = 100_000)]
    pub max_flows: usize,
}

impl ModelArgs {
    pub fn doubts(&self) -> Doubts {
        Doubts { outside: self.max_outside, ..Doubts::default() }
    }
}

fn share(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "from 0 to 1".to_owned())
}

/// What a run is told.
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    pub model: ModelArgs,

    /// Read a recording or a capture file (pcap, pcapng; `-` is standard input), and stop at its end
    #[arg(long, value_name = "FILE", required_unless_present = "iface", conflicts_with = "iface")]
    pub from: Option<PathBuf>,

    /// Watch these interfaces of this node: names, patterns (lxc*), or `all`; with them the kernel's events and the
    /// state of node and pods (needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and CAP_SYS_PTRACE for what pods tell;
    /// what it does not need any more it drops once it has attached)
    #[arg(long, value_name = "IFACE")]
    pub iface: Vec<String>,

    /// Write what is watched into a recording as well
    #[arg(long, value_name = "FILE", requires = "iface")]
    pub record: Option<PathBuf>,

    /// Of that recording keep only the last TIME on disk, in files FILE-00001.mcap and so on
    #[arg(long, value_name = "TIME", requires = "record", value_parser = keep)]
    pub keep: Option<Duration>,

    #[command(flatten)]
    pub watch: WatchArgs,

    /// Stop after this long
    #[arg(long, value_name = "TIME", requires = "iface", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Tell this receiver of every incident (may be given several times)
    #[arg(long, value_name = "URL", conflicts_with = "policy", help_heading = "Receivers")]
    pub webhook: Vec<String>,

    /// Sign what is sent with the keys in this file, one `whsec_...` a line, the current one first
    #[arg(long, value_name = "FILE", requires = "webhook", help_heading = "Receivers")]
    pub webhook_secret_file: Option<PathBuf>,

    /// Who is told and what may be done; read again on SIGHUP, an invalid one is refused and the old one kept
    #[arg(long, value_name = "FILE", help_heading = "Receivers")]
    pub policy: Option<PathBuf>,

    /// Keep queues, dead letters and incidents here, so that a restart loses and repeats nothing; without it
    /// they end with the process
    #[arg(long, value_name = "DIR", help_heading = "Receivers")]
    pub state_dir: Option<PathBuf>,

    /// Wait this long at the end for receivers that do not answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = "Receivers")]
    pub drain: Duration,

    /// Write every decision to this log, each line sealed with the hash of those before it
    #[arg(long, value_name = "FILE", help_heading = "Receivers")]
    pub audit: Option<PathBuf>,

    /// Serve /metrics, /healthz, /readyz, /v1/incidents and /v1/verdicts here, such as 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS", help_heading = "HTTP")]
    pub listen: Option<SocketAddr>,

    /// File with the bearer token for requests that change something: approving an action, clearing a quarantine
    #[arg(long, value_name = "FILE", requires = "listen", help_heading = "HTTP")]
    pub token_file: Option<PathBuf>,

    /// Which verdicts to print
    #[arg(long, value_enum, default_value_t)]
    pub print: Print,

    /// Name of the node in what is sent [default: what the recording says, or this host's name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 500ms, 30s or 10m"))
}

fn keep(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    if span < Duration::from_secs(10) {
        return Err("a black box holds 10 s or more".to_owned());
    }
    Ok(span)
}

impl Cli {
    /// Reads the command line, or ends the process with what is wrong with it.
    pub fn read() -> Self {
        Self::parse()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["infer"]).is_err());
        assert!(Cli::try_parse_from(["infer", "--from", "a", "--iface", "b"]).is_err());
        assert!(Cli::try_parse_from(["infer", "policy", "check", "p.toml"]).is_ok());
    }
}
