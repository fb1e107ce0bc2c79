//! The command line of `lab`.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use cli::{Exit, Interrupt};
use event::{Fault, Label};

use crate::campaign::{self, Campaign};
use crate::check;
use crate::doctor;
use crate::fault::{Recipe, Severity};
use crate::load::Workload;
use crate::manifest::Manifest;
use crate::run::{Destination, Plan, Witnesses};
use crate::service;
use crate::topology::Congestion;

/// Make real faults between network namespaces, prove them, and record them
///
/// Client, router and server are three sets of namespaces on this machine, joined by virtual Ethernet devices;
/// nothing outside them and the run's own control groups is touched, and nothing is left behind.
#[derive(Debug, Parser)]
#[command(version, after_help = format!("{EXAMPLES}\n{}", cli::EXIT_CODES))]
pub struct Lab {
    #[command(flatten)]
    pub log: cli::LogArgs,
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = r#"Examples:
  lab doctor
  sudo lab run --fault packet-loss --severity medium --seed 7 --duration 30 -o loss.mcap
  sudo lab run --fault syn-flood --mechanism no-cookies     # make and prove it, record nothing
  sudo lab run --fault packet-loss --severity high --duration 15 \
      --with "infer --iface server0 --webhook http://127.0.0.1:9000/"   # watch it live
  sudo lab campaign --runs 10 -o campaign                   # about an hour
  sudo lab campaign --repeat datasets/recordings/manifest.toml -o again
"#;

#[derive(Debug, Subcommand)]
enum Task {
    /// Run one fault and record it; a run whose counters do not prove the fault is discarded and repeated
    Run(RunArgs),
    /// Run every fault several times, with all severities, mechanisms and workloads, into one folder
    ///
    /// A campaign that was interrupted goes on where it was: a run whose recording is there is not repeated.
    Campaign(CampaignArgs),
    /// Compare labels with rows: every labelled window must show its class, and no normal row a fault
    ///
    /// One line a recording on stdout, the contradictions on stderr, and exit code 1 where there are any.
    Check {
        /// Recordings that lab made
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Write the manifest of a folder of recordings, from what they say of themselves, and print a table of its classes
    Manifest {
        /// The folder; its manifest.toml is replaced
        folder: PathBuf,
    },
    /// The server's application; the lab starts it in the pod and gives it orders on stdin
    #[command(hide = true)]
    Application {
        /// Ends by itself after so many seconds
        limit: u64,
    },
    /// Say what this machine lacks for the lab, and the one command that installs it
    Doctor(CaptureArgs),
}

#[derive(Debug, Args)]
struct CaptureArgs {
    /// The `capture` program that records [default: the one beside `lab`]
    #[arg(long, value_name = "PATH")]
    capture: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The fault, by name or number (`normal` or 0 for none)
    #[arg(long, value_name = "NAME", value_parser = fault)]
    fault: Fault,

    /// How bad it gets
    #[arg(long, value_enum, default_value = "medium")]
    severity: Severity,

    /// What causes it [default: the fault's first mechanism; a wrong one lists them]
    #[arg(long, value_name = "NAME")]
    mechanism: Option<String>,

    /// Decides load and fault: the same seed plans the same run
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,

    /// The mix of clients in the background
    #[arg(long, value_enum, default_value = "web")]
    workload: Workload,

    /// How TCP of both ends answers loss
    #[arg(long, value_enum, default_value_t)]
    congestion: Congestion,

    /// Seconds that the fault lasts; some 3 to 8 s of normal load are recorded before it
    #[arg(long, default_value_t = 30, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    duration: u64,

    /// The recording to write; without it the fault is made and proved, and nothing recorded
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Run this shell command where recordings are made, from the start of the load to the end of the fault
    ///
    /// That is the router, the node whose pod the server is: its interface server0 leads to the server. The
    /// command sees that node's processes, the server's among them, and its loopback; it prints to where lab
    /// prints, and is sent SIGINT at the end (and killed 20 s later). A run that does not take is repeated, and
    /// so is it.
    #[arg(long = "with", value_name = "COMMAND")]
    command: Option<String>,

    /// Seconds that load and command go on when the fault has ended, to see how it watches things get well
    #[arg(long, default_value_t = 0, value_name = "S", requires = "command", value_parser = clap::value_parser!(u64).range(..=3600))]
    after: u64,

    #[command(flatten)]
    capture: CaptureArgs,
}

#[derive(Debug, Args)]
struct CampaignArgs {
    /// Runs of each fault
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,

    /// Seconds that each fault lasts
    #[arg(long, default_value_t = 20, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    duration: u64,

    /// The first seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,

    /// These faults only, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = fault)]
    faults: Vec<Fault>,

    /// Make the runs of this manifest again, instead of new ones
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["runs", "duration", "seed", "faults"])]
    repeat: Option<PathBuf>,

    /// Where the recordings and their manifest go
    #[arg(short, long, value_name = "FOLDER", default_value = "campaign")]
    output: PathBuf,

    #[command(flatten)]
    capture: CaptureArgs,
}

impl Lab {
    pub fn run(self) -> Result<Exit> {
        match self.task {
            Task::Run(args) => args.run(),
            Task::Campaign(args) => args.run(),
            Task::Check { files } => check_all(&files),
            Task::Manifest { folder } => {
                let manifest = Manifest::of(&folder)?;
                manifest.write(&folder)?;
                std::io::stdout().write_all(manifest.table().as_bytes())?;
                Ok(Exit::Done)
            }
            Task::Application { limit } => {
                service::serve_until_told(Duration::from_secs(limit))?;
                Ok(Exit::Done)
            }
            Task::Doctor(args) => {
                let diagnosis = doctor::diagnose(args.find().ok().as_deref());
                std::io::stdout().write_all(diagnosis.text().as_bytes())?;
                if !diagnosis.is_healthy() {
                    bail!("the lab cannot make every fault on this machine");
                }
                Ok(Exit::Done)
            }
        }
    }
}

fn check_all(files: &[PathBuf]) -> Result<Exit> {
    let mut contradictions = 0;
    for file in files {
        let findings = check::check(file)?;
        writeln!(std::io::stdout(), "{findings}")?;
        for contradiction in &findings.contradictions {
            tracing::warn!("{}: {contradiction}", file.display());
        }
        contradictions += findings.contradictions.len();
    }
    if contradictions > 0 {
        bail!("{contradictions} contradictions between labels and rows");
    }
    Ok(Exit::Done)
}

impl RunArgs {
    fn run(self) -> Result<Exit> {
        let interrupt = Interrupt::install().context("cannot listen to signals")?;
        let plan = Plan {
            fault: self.fault,
            severity: self.severity,
            mechanism: Recipe::of(self.fault).mechanism(self.mechanism.as_deref())?,
            seed: self.seed,
            workload: self.workload,
            congestion: self.congestion,
            duration: Duration::from_secs(self.duration),
        };
        let destination = match self.output {
            Some(file) => Some(Destination { file, capture: self.capture.find()? }),
            None => None,
        };
        // A command that watches has stdout to itself.
        let watched = self.command.is_some();
        let after = Duration::from_secs(self.after);
        let witnesses = Witnesses { recording: destination, command: self.command, after };
        let outcome = plan.run(&witnesses, &interrupt)?;
        let (fault, attempts, evidence) = (self.fault, outcome.attempts, outcome.evidence);
        if watched {
            tracing::info!("{fault} took (attempt {attempts}): {evidence}");
        } else {
            writeln!(std::io::stdout(), "{evidence}")?;
        }
        Ok(Exit::Done)
    }
}

impl CampaignArgs {
    fn run(self) -> Result<Exit> {
        let interrupt = Interrupt::install().context("cannot listen to signals")?;
        let capture = self.capture.find()?;
        let tally = match self.repeat {
            Some(manifest) => campaign::repeat(&manifest, &self.output, &capture, &interrupt)?,
            None => {
                let faults = if self.faults.is_empty() { Fault::ALL.to_vec() } else { self.faults };
                let duration = Duration::from_secs(self.duration);
                let (runs, seed, folder) = (self.runs, self.seed, self.output.clone());
                Campaign { faults, runs, duration, seed, folder, capture }.run(&interrupt)?
            }
        };
        for reason in &tally.failed {
            tracing::error!("not made: {reason}");
        }
        let (made, kept, failed) = (tally.made, tally.kept, tally.failed.len());
        writeln!(
            std::io::stdout(),
            "{made} made, {kept} were there, {failed} not made: {}",
            self.output.display()
        )?;
        if failed > 0 {
            bail!("{failed} runs did not take");
        }
        Ok(Exit::Done)
    }
}

impl CaptureArgs {
    fn find(&self) -> Result<PathBuf> {
        let path = match &self.capture {
            Some(path) => path.clone(),
            None => std::env::current_exe()
                .context("cannot find this program's own path")?
                .with_file_name("capture"),
        };
        // Absolute: the recorder is started from another mount namespace's view of the same files.
        std::path::absolute(&path).ok().filter(|path| path.is_file()).with_context(|| {
            format!(
                "there is no `capture` at {}: build it (cargo build), or name it by --capture",
                path.display()
            )
        })
    }
}

fn fault(text: &str) -> Result<Fault, String> {
    let label: Label = text.parse().map_err(|error| format!("{error}"))?;
    label
        .fault()
        .ok_or_else(|| format!("{text} is the number of no fault; the last is {}", Fault::ALL.len() - 1))
}
