//! `cargo xtask bench train`: what fitting and predicting cost beside scikit-learn.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use cli::Exit;

use super::measure::machine;
use crate::workspace::{cargo, root, succeed};

/// What a fresh environment gets from PyPI.
const PEERS: [&str; 1] = ["scikit-learn"];

/// Prints the table of docs/src/train-speed.md. scikit-learn comes from PyPI into an environment of its own below
/// target/; where that cannot be made, its column is left out, and the table says so.
#[derive(clap::Args)]
pub struct Args {
    /// Leave 100,000 rows out: a minute instead of ten
    #[arg(long)]
    small: bool,

    /// Measure instead what memory training takes on so many rows from Parquet and from CSV: 10000000 are written below
    /// target/ first (7 GB), and take a quarter of an hour
    #[arg(long, value_name = "ROWS", num_args = 0..=1, default_missing_value = "10000000")]
    memory: Option<u32>,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    if let Some(rows) = args.memory {
        writeln!(std::io::stdout(), "{}\n", machine()?)?;
        succeed(bench("memory").env("FAULTLINE_BENCH_ROWS", rows.to_string()))?;
        return Ok(Exit::Done);
    }
    let mut bench = bench("forest");
    match environment(&root().join("target/xtask/bench-train")) {
        Ok(python) => {
            bench.env("FAULTLINE_PYTHON", python);
        }
        Err(error) => eprintln!("skipped: scikit-learn beside ours: {error:#}"),
    }
    if args.small {
        bench.env("FAULTLINE_BENCH_SMALL", "1");
    }
    writeln!(std::io::stdout(), "{}\n", machine()?)?;
    succeed(&mut bench)?;
    Ok(Exit::Done)
}

/// One of the benches of `train`.
fn bench(name: &str) -> Command {
    let mut command = cargo();
    command.args(["bench", "--locked", "--quiet", "--package", "train", "--bench", name]);
    command
}

/// The Python of an environment that has the peers; made where it is not there yet.
fn environment(folder: &Path) -> anyhow::Result<PathBuf> {
    let python = folder.join("bin/python");
    let has = |python: &Path| {
        let found = Command::new(python).args(["-c", "import sklearn"]).output();
        found.is_ok_and(|output| output.status.success())
    };
    if !has(&python) {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(folder))
            .context("an environment of Python")?;
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PEERS);
        succeed(&mut install).context("its packages from PyPI")?;
    }
    Ok(python)
}
