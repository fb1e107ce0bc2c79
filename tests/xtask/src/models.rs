//! `cargo xtask models`: fits the committed models again, from the committed recordings, byte for byte.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use cli::Exit;
use serde::Deserialize;

use crate::workspace::{programs, root, succeed};

/// The workload whose recordings are for testing alone.
const TEST_WORKLOAD: &str = "batch";

/// A committed model: the name of its files in models/, and how it is fitted.
const MODELS: [(&str, &[&str]); 2] = [
    ("default", &["--model", "rf", "--trees", "200", "--min-leaf", "5", "--seed", "1"]),
    ("iforest", &["--model", "iforest", "--trees", "100", "--seed", "1"]),
];

/// Fits the models of models/ on the recordings of datasets/recordings, with their cards. Where there are
/// recordings of the test workload, those judge the models and are never fitted on; else a quarter does.
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
    let manifest = root().join("datasets/recordings/manifest.toml");
    let text =
        fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let recordings: Manifest =
        toml::from_str(&text).with_context(|| format!("cannot read {}", manifest.display()))?;
    let programs = programs()?;
    let rows = rows(&programs, &work, &recordings.recording)?;
    let output = if args.check { work } else { root().join("models") };
    for (name, settings) in MODELS {
        let mut train = Command::new(programs.join("train"));
        train.args(&rows).args(settings).arg("--runs").arg(&manifest);
        if recordings.recording.iter().any(|recording| recording.workload == TEST_WORKLOAD) {
            train.args(["--test-where", &format!("workload={TEST_WORKLOAD}")]);
        } else {
            train.arg("--keep-held-out");
        }
        train.arg("--output").arg(output.join(format!("{name}.flm")));
        train.arg("--card").arg(output.join(format!("{name}.md")));
        succeed(&mut train)?;
    }
    if args.check { compare(&output) } else { Ok(Exit::Done) }
}

/// Rows of every committed recording.
fn rows(programs: &Path, work: &Path, recordings: &[Recording]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::with_capacity(recordings.len());
    for recording in recordings {
        let rows = work.join(&recording.file).with_extension("csv");
        let output = File::create(&rows).with_context(|| format!("cannot create {}", rows.display()))?;
        let mut replay = Command::new(programs.join("replay"));
        let input = root().join("datasets/recordings").join(&recording.file);
        replay.args(["--window", "5", "-q"]).arg(input).stdout(output);
        succeed(&mut replay)?;
        files.push(rows);
    }
    Ok(files)
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
