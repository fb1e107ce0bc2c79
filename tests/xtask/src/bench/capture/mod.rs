//! `cargo xtask bench capture`: what recording costs a node, beside tcpdump.

mod disk;
mod flood;
mod recorder;
mod throughput;

use std::path::{Path, PathBuf};

use anyhow::ensure;
use cli::Exit;

use super::measure::{Programs, machine, scratch};
use crate::workspace::{cargo, say, succeed};
pub use flood::{Flood, flood};

/// Prints the tables of docs/src/capture-cost.md. Needs root, tcpdump, iperf3, zstd, ip, ethtool and nsenter. Traffic
/// stays between two network namespaces that are made for it and removed after it.
#[derive(clap::Args)]
pub struct Args {
    /// Only these parts
    #[arg(value_enum)]
    parts: Vec<Part>,

    #[command(flatten)]
    programs: Programs,

    /// Rounds of each measurement; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..100))]
    rounds: u32,

    /// Seconds of traffic in each run
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..600))]
    seconds: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The TC programs by BPF_PROG_TEST_RUN
    Kernel,
    /// TCP at full speed, with and without a recorder
    Throughput,
    /// Packets of 64 bytes at the highest rate that can be sent
    Flood,
    /// Bytes on disk of the lab's mixed traffic
    Disk,
}

/// Where the programs are, and where they may write.
struct Stage {
    programs: PathBuf,
    folder: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let is_wanted = |part| args.parts.is_empty() || args.parts.contains(&part);
    ensure!(Path::new("/proc/self/ns/net").exists(), "needs Linux");
    let stage = Stage { programs: args.programs.folder(&["capture", "lab"])?, folder: scratch()? };
    say(&format!("On {}.\n", machine()?))?;
    if is_wanted(Part::Kernel) {
        // The kernel's time by BPF_PROG_TEST_RUN.
        succeed(cargo().args(["bench", "--locked", "--quiet", "--package", "capture", "--bench", "tc"]))?;
    }
    if is_wanted(Part::Throughput) {
        throughput::run(&stage, args)?;
    }
    if is_wanted(Part::Flood) {
        flood::run(&stage, args)?;
    }
    if is_wanted(Part::Disk) {
        disk::run(&stage, args)?;
    }
    Ok(Exit::Done)
}
