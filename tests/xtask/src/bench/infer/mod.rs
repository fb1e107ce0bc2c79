//! `cargo xtask bench infer`: how soon a fault is told of, how often one is that is not there, and what it costs.

mod calm;
mod load;
mod timeline;
mod watch;

use std::path::PathBuf;

use anyhow::Context as _;
use cli::Exit;

use super::measure::{Programs, machine, scratch};
use crate::workspace::{cargo, say, succeed};

/// Prints the tables of docs/src/infer-speed.md. Needs root and what `lab doctor` names. Traffic stays between
/// network namespaces that are made for it and removed after it.
#[derive(clap::Args)]
pub struct Args {
    /// Only these parts
    #[arg(value_enum)]
    parts: Vec<Part>,

    #[command(flatten)]
    programs: Programs,

    /// Judge by this model instead of the built-in one
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,

    /// Only these faults have a timeline
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    faults: Vec<String>,

    /// Seconds of normal traffic in which there should be no alarm
    #[arg(long, value_name = "S", default_value_t = 600)]
    calm: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// From a window's end to its verdicts, by rows a window
    Window,
    /// Processor and memory at 10,000 packets a second
    Load,
    /// Each fault of the lab: its beginning, the first vote, the webhook, its end, and the webhook that says so
    Timeline,
    /// Alarms in normal traffic of the lab
    Calm,
}

/// What the parts need.
struct Stage {
    programs: PathBuf,
    folder: PathBuf,
    model: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let is_wanted = |part| args.parts.is_empty() || args.parts.contains(&part);
    let absolute = |path: &PathBuf| path.canonicalize().with_context(|| format!("no {}", path.display()));
    let programs = args.programs.folder(&["capture", "infer", "lab"])?;
    let model = args.model.as_ref().map(absolute).transpose()?;
    let stage = Stage { programs, folder: scratch()?, model };
    say(&format!("On {}.\n", machine()?))?;
    if is_wanted(Part::Window) {
        succeed(cargo().args(["bench", "--locked", "--quiet", "--package", "infer", "--bench", "window"]))?;
    }
    if is_wanted(Part::Load) {
        load::run(&stage)?;
    }
    if is_wanted(Part::Timeline) {
        timeline::run(&stage, &args.faults)?;
    }
    if is_wanted(Part::Calm) {
        calm::run(&stage, args.calm)?;
    }
    Ok(Exit::Done)
}
