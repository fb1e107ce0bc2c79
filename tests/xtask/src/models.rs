//! `cargo xtask models`: fits the committed models again, from the committed recordings, byte for byte.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use cli::Exit;
use serde::Deserialize;

use crate::workspace::{cargo, root, succeed};

/// The workload whose recordings are for testing alone.
const TEST_WORKLOAD: &str = "batch";

/// A committed model: the name of its files in models/, and how it is fitted.
const MODELS: [(&str, &[&str]); 1] =
    [("default", &["--model", "rf", "--trees", "200", "--min-leaf", "5", "--seed", "1"])];

/// Fits the models of models/ on the recordings of datasets/recordings, with their cards. Recordings of the
/// test workload judge them and are never fitted on.
#[derive(clap::Args)]
pub struct Args {
    /// Change nothing; fail where a committed model or card is not what the recordings give
    #[arg(long)]
    check: bool,
}

#[derive(Deserialize)]
struct Manifest {
    recording: Vec<Recording>,
}

#[derive(Deserialize)]
struct Recording {
    file: String,
    workload: String,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let work = root().join("target/xtask/models");
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let (fit, test) = rows(&work)?;
    let output = if args.check { work } else { root().join("models") };
    for (name, settings) in MODELS {
        let model = output.join(format!("{name}.flm"));
        let card = output.join(format!("{name}.md"));
        let mut train = program("train");
        train.args(&fit).arg("--test").args(&test).args(settings);
        train.arg("--output").arg(&model).arg("--card").arg(&card);
        succeed(&mut train)?;
    }
    if args.check { compare(&output) } else { Ok(Exit::Done) }
}

/// Rows of every committed recording: those to fit on, and those to test on.
fn rows(work: &Path) -> anyhow::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let recordings = root().join("datasets/recordings");
    let path = recordings.join("manifest.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Manifest =
        toml::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut fit, mut test) = (Vec::new(), Vec::new());
    for recording in manifest.recording {
        let rows = work.join(&recording.file).with_extension("csv");
        let output = File::create(&rows).with_context(|| format!("cannot create {}", rows.display()))?;
        let mut replay = program("replay");
        replay.args(["--window", "5", "-q"]).arg(recordings.join(&recording.file)).stdout(output);
        succeed(&mut replay)?;
        if recording.workload == TEST_WORKLOAD { test.push(rows) } else { fit.push(rows) }
    }
    ensure!(!test.is_empty(), "{} has no recording of the workload {TEST_WORKLOAD}", path.display());
    Ok((fit, test))
}

/// One of our programs, built as it is now.
fn program(name: &str) -> Command {
    let mut command = cargo();
    command.args(["run", "--quiet", "--locked", "--package", name, "--"]);
    command
}

/// Whether the committed files are those that were just made.
fn compare(made: &Path) -> anyhow::Result<Exit> {
    let names = MODELS.iter().flat_map(|(name, _)| ["flm", "md"].map(|kind| format!("{name}.{kind}")));
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    for name in names {
        if read(made.join(&name))? != read(root().join("models").join(&name))? {
            bail!("models/{name} is not what the committed recordings give: run `cargo xtask models`");
        }
    }
    Ok(Exit::Done)
}
