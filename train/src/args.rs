//! The command line of `train`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::data::runs::Condition;
use crate::forest::ClassWeight;

const EXAMPLES: &str = "\
Examples:
  replay --window 5 a.mcap > a.csv; replay --window 5 b.mcap > b.csv
  train a.csv b.csv --model rf -o model.flm
  train runs/*.csv --class-weight balanced --min-leaf 5 --metrics-json metrics.json
  train runs/*.csv --test other-workload/*.csv --search 600 --search-log search.jsonl
  train runs/*.csv --report model-report.html --card model.md
  train rows/*.csv --runs datasets/recordings/manifest.toml --test-where workload=batch
  zstdcat rows.csv.zst | train - --seed 7
  train inspect model.flm

A CSV file of rows is one recording; in Parquet the column `recording` tells them apart. Inside a recording, rows that
more than 10 empty windows set apart count as different recordings. Scores come from recordings that the judged
model has not seen.";

/// MiB; 3 million rows.
pub const DEFAULT_MEMORY: u32 = 1024;

/// The kinds of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModelKind {
    /// Random forest
    Rf,
    /// Isolation forest: fitted on normal rows alone, tells normal from unusual
    Iforest,
    /// The threshold rules that operators use: nothing is fitted, but judged all the same
    Rules,
    /// A single decision tree of eight levels, which a person can read
    Tree,
}

/// Fit a model on labelled feature rows and say how well it does on recordings it has not seen
///
/// The same rows, settings and seed give the same bytes of model, whatever the number of threads.
#[derive(Clone, Debug, Parser)]
#[command(name = "train", version, after_help = format!("{EXAMPLES}\n\n{}", cli::EXIT_CODES),
          args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub fit: FitArgs,

    #[command(flatten)]
    pub log: cli::LogArgs,
}

/// What else can be done with models.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    Inspect(InspectArgs),
    Compare(CompareArgs),
    Export(ExportArgs),
}

/// Say what a model file holds
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  train inspect model.flm\n  train inspect model.flm --json | jq .evaluation\n  \
                        train inspect tree.flm --tree 0"
)]
pub struct InspectArgs {
    #[arg(value_name = "MODEL.flm")]
    pub model: PathBuf,

    /// The file's header as JSON
    #[arg(long, conflicts_with = "tree")]
    pub json: bool,

    /// Print this tree, counted from 0, as indented questions
    #[arg(long, value_name = "N")]
    pub tree: Option<usize>,
}

/// Judge two models on the same rows
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  train compare old.flm new.flm --data fresh-1.csv fresh-2.csv")]
pub struct CompareArgs {
    #[arg(value_name = "A.flm")]
    pub a: PathBuf,

    #[arg(value_name = "B.flm")]
    pub b: PathBuf,

    /// Labelled rows; a file that a model was trained on is said to be one
    #[arg(long, value_name = "FEATURES.csv", required = true, num_args = 1..)]
    pub data: Vec<PathBuf>,
}

/// Write a model for other programs
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  train export model.flm --onnx model.onnx")]
pub struct ExportArgs {
    #[arg(value_name = "MODEL.flm")]
    pub model: PathBuf,

    /// As ONNX (ai.onnx.ml 3): input `features` of float32, outputs `label` and `probabilities`
    #[arg(long, value_name = "FILE")]
    pub onnx: PathBuf,
}

/// What to fit, on what, and how to judge it
#[derive(Clone, Debug, clap::Args)]
pub struct FitArgs {
    /// Feature rows as `replay` writes them, CSV or Parquet; `-` is standard input (CSV)
    #[arg(value_name = "FEATURES", default_value = "features.csv")]
    pub inputs: Vec<PathBuf>,

    /// The kind of model
    #[arg(long, value_enum, default_value = "rf")]
    pub model: ModelKind,

    /// Where the model goes; an older file is replaced only when the new one is complete
    #[arg(short, long, value_name = "FILE", default_value = "model.flm")]
    pub output: PathBuf,

    /// Also write the scores as JSON; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub metrics_json: Option<PathBuf>,

    /// Also write a model card in Markdown
    #[arg(long, value_name = "FILE")]
    pub card: Option<PathBuf>,

    /// Also write a report with plots: one HTML file that needs no network
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Threads to fit with; never changes the model [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,

    /// MiB of rows that are held in memory; what is beyond stands in a temporary file in TMPDIR. Changes no byte of
    /// the model. Fitting takes a quarter of all rows' size besides
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_MEMORY)]
    pub memory: u32,

    /// Length of the windows in seconds [default: the smallest step between two windows of one file]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub window: Option<f64>,

    /// Trees of a forest
    #[arg(long, value_name = "N", default_value_t = 300, help_heading = "Forest",
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub trees: u16,

    /// Levels of a tree below its root
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Forest",
          value_parser = clap::value_parser!(u8).range(1..))]
    pub max_depth: u8,

    /// Rows that a leaf holds at least, as often as the tree's sample drew them
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "Forest",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub min_leaf: u32,

    /// How much the rows of a class count
    #[arg(long, value_enum, default_value = "balanced-subsample", help_heading = "Forest")]
    pub class_weight: ClassWeight,

    /// Fit on at most so many rows of each class, spread over its recordings; all held-out rows are judged
    #[arg(long, value_name = "N", help_heading = "Forest", value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: Option<u32>,

    /// Search the forest's settings (class weight, min leaf, max depth) on the folds for at most so many
    /// seconds; a search that ends for want of time may find other settings the next time
    #[arg(long, value_name = "SECONDS", help_heading = "Forest")]
    pub search: Option<u64>,

    /// Keep what a search has tried in this file, and go on from it
    #[arg(long, value_name = "FILE", requires = "search", help_heading = "Forest")]
    pub search_log: Option<PathBuf>,

    /// Share of normal rows that an isolation forest may call unusual
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, help_heading = "Isolation forest",
          value_parser = share)]
    pub false_alarms: f64,

    /// Normal rows that a tree of an isolation forest draws
    #[arg(long, value_name = "N", default_value_t = 1024, help_heading = "Isolation forest",
          value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    pub rows_per_tree: u32,

    /// Share of every class's recordings that is held out to judge on
    #[arg(long, value_name = "SHARE", default_value_t = 0.25, help_heading = "Evaluation", value_parser = share)]
    pub hold_out: f64,

    /// Judge on these rows instead of on held-out recordings; no model is ever fitted on them
    #[arg(long, value_name = "FEATURES.csv", num_args = 1.., conflicts_with = "hold_out",
          help_heading = "Evaluation")]
    pub test: Vec<PathBuf>,

    /// What is known of the recordings: the manifest that `lab` writes beside them. Rows belong to the run whose
    /// file has the same name but for its extension; scores are then told by severity and mechanism too
    #[arg(long, value_name = "MANIFEST.toml", help_heading = "Evaluation")]
    pub runs: Option<PathBuf>,

    /// Judge on the recordings of the runs that were made so; no model is ever fitted on them. KEY is fault,
    /// severity, mechanism, workload or congestion; several pairs divided by commas must hold together, and of
    /// several flags any
    #[arg(long, value_name = "KEY=VALUE", requires = "runs", conflicts_with_all = ["hold_out", "test"],
          help_heading = "Evaluation")]
    pub test_where: Vec<Condition>,

    /// Parts that the other recordings are dealt into, to know the spread of the scores and to calibrate the
    /// probabilities; below 2 for neither
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Evaluation")]
    pub folds: u8,

    /// Save the model that was judged, fitted without the held-out recordings, instead of one fitted on all
    #[arg(long, help_heading = "Evaluation")]
    pub keep_held_out: bool,
}

impl FitArgs {
    /// Whether the judged model is the one that is saved.
    pub fn keeps_judged(&self) -> bool {
        self.keep_held_out || self.names_test_rows()
    }

    /// Whether the command line says which rows judge.
    pub fn names_test_rows(&self) -> bool {
        !self.test.is_empty() || !self.test_where.is_empty()
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("a window is 0.001 to 86400 seconds long".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("a share is above 0 and below 1".to_owned()),
    }
}
