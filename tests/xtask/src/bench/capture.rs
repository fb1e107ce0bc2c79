//! `cargo xtask bench capture`: what recording costs a node.

use std::io::Write as _;

use cli::Exit;

use super::measure::machine;
use crate::workspace::{cargo, succeed};

/// Prints the tables of docs/src/capture-cost.md. Needs root: the programs run in the kernel.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> anyhow::Result<Exit> {
    writeln!(std::io::stdout(), "{}\n", machine()?)?;
    // The kernel's time by BPF_PROG_TEST_RUN.
    succeed(cargo().args(["bench", "--locked", "--quiet", "--package", "capture", "--bench", "tc"]))?;
    Ok(Exit::Done)
}
