//! The way from files of rows to a model file and its scores.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use cli::Exit;
use event::Fault;
use features::schema::{self, Input as Encoding};
use model::{Calibration, Evaluation, Forest, Input, InputKind, Meta, Model, Profile, Training};
use rayon::prelude::*;
use tracing::{info, warn};

use crate::args::{Args, Command, ExportArgs, FitArgs, ModelKind};
use crate::compare;
use crate::data::runs::{self, Runs};
use crate::data::{self, SpillError, Table, input};
use crate::evaluate::{self, Judged, Procedure, Split};
use crate::forest::{self, FeaturesPerNode, Settings};
use crate::inspect;
use crate::isolation::{self, ANOMALY};
use crate::onnx;
use crate::plan::Plan;
use crate::report;
use crate::sample;
use crate::search::{Budget, search};
use crate::set::{LabelledSet, NORMAL};

const NANOSECONDS: f64 = 1e9;
const MIB: usize = 1 << 20;

/// Does what the command line says.
///
/// # Errors
/// Whatever keeps a file from being written; an older one is then untouched.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Some(Command::Inspect(args)) => inspect::run(args),
        Some(Command::Compare(args)) => compare::run(args),
        Some(Command::Export(args)) => export(args),
        None => {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(args.fit.threads.map_or(0, usize::from))
                .build()
                .context("cannot start the threads to fit with")?;
            pool.install(|| train(&args.fit))
        }
    }
}

fn export(args: &ExportArgs) -> anyhow::Result<Exit> {
    let model = Model::load(&args.model)?;
    replace(&args.onnx, &onnx::encode(&model))?;
    info!("wrote {}: {} trees of {}", args.onnx.display(), model.forest().trees(), args.model.display());
    Ok(Exit::Done)
}

fn train(args: &FitArgs) -> anyhow::Result<Exit> {
    let inputs = [&args.inputs[..], &args.test[..]].concat();
    let (table, window) = read(&inputs, args.memory, args.window)?;
    let runs = args.runs.as_deref().map(|path| runs_of(path, &table)).transpose()?;
    let mut set = labelled(table, window, args.model)?;
    set.runs = runs;
    set.most_of_class = args.sample.map(|most| most as usize);
    let procedure = Procedure { hold_out: args.hold_out, folds: usize::from(args.folds), seed: args.seed };
    let split = split(&set, args, procedure)?;
    let plan = searched(&set, plan(args), split.as_ref(), args)?;
    if set.most_of_class.is_some() {
        ensure!(
            matches!(plan, Plan::Forest(_) | Plan::Tree(_)),
            "--sample balances the classes that rf and tree tell apart: leave it out"
        );
        let rows = split.as_ref().map_or_else(|| set.all(), |split| split.fit.clone());
        sample::tell(&set, &rows, &plan.sampled(&set, &rows));
    }
    let judged = split.map(|split| evaluate::judge(&set, &plan, split, procedure)).transpose()?;
    if let Some(judged) = &judged {
        evaluate::tell(&judged.evaluation);
    }
    let fitted = match &judged {
        Some(judged) if args.keeps_judged() => Fitted {
            forest: judged.forest.clone(),
            calibration: judged.calibration,
            rows: judged.fitted.clone(),
        },
        _ => {
            let rows = set.all();
            let (forest, own) = plan.fit(&set, &rows, "fitting")?;
            if judged.is_none()
                && let Some(score) = plan.out_of_bag(&set, &rows, &forest)?
            {
                info!("{}", evaluate::score::out_of_bag_in_words(&score));
            }
            let calibration = own.or(judged.as_ref().and_then(|judged| judged.calibration));
            Fitted { forest, calibration, rows }
        }
    };
    let evaluation = judged.as_ref().map(|judged| judged.evaluation.clone());
    let model = assemble(&set, &plan, fitted, evaluation, args)?;
    write_reports(args, &set, judged.as_ref(), &model)?;
    write_metrics(args, &model)?;
    replace(&args.output, &model.to_bytes())?;
    info!(
        trees = model.forest().trees(),
        depth = model.forest().depth(),
        bytes = model.to_bytes().len(),
        "wrote {} ({}), sha256 {}",
        args.output.display(),
        model.meta().kind.name(),
        model.hash()
    );
    Ok(Exit::Done)
}

/// The manifest's runs, with a word on recordings that it does not have.
fn runs_of(path: &Path, table: &Table) -> anyhow::Result<Runs> {
    let runs = Runs::read(path, table)?;
    let unknown = runs.unknown(table);
    if let Some(first) = unknown.first() {
        warn!(
            "{} does not have {} of {} recordings (such as {first}): how they were made is not known",
            path.display(),
            unknown.len(),
            table.recordings.len()
        );
    }
    Ok(runs)
}

/// What is fitted on and what judges; `None` where nothing can be held out.
fn split(set: &LabelledSet, args: &FitArgs, procedure: Procedure) -> anyhow::Result<Option<Split>> {
    if let Some(runs) = set.runs.as_ref().filter(|_| !args.test_where.is_empty()) {
        let held = runs.matching(&set.table, &args.test_where)?;
        return evaluate::these_groups(set, &held, &args.test_where).map(Some);
    }
    match args.test.len() {
        0 => Ok(evaluate::set_aside(set, procedure)),
        files => evaluate::last_files(set, files).map(Some),
    }
}

/// The plan with the settings that a search found, where one was asked for.
fn searched(set: &LabelledSet, plan: Plan, split: Option<&Split>, args: &FitArgs) -> anyhow::Result<Plan> {
    let (Some(seconds), Plan::Forest(base)) = (args.search, &plan) else { return Ok(plan) };
    let split = split.context("a search needs recordings that can be held out: record every class twice")?;
    let budget = Budget {
        time: Duration::from_secs(seconds),
        log: args.search_log.as_deref(),
        folds: usize::from(args.folds).max(2),
    };
    Ok(Plan::Forest(search(set, &split.fit, base, budget)?))
}

/// A model's numbers, and what is known of them.
struct Fitted {
    forest: Forest,
    calibration: Option<Calibration>,
    rows: Vec<u32>,
}

/// The classes that a kind of model tells apart.
fn labelled(mut table: Table, window: i64, kind: ModelKind) -> anyhow::Result<LabelledSet> {
    match kind {
        ModelKind::Rf | ModelKind::Tree => LabelledSet::new(table, window, &[]),
        ModelKind::Iforest => {
            table.labels.iter_mut().filter(|label| **label != NORMAL).for_each(|label| *label = ANOMALY);
            LabelledSet::new(table, window, &[NORMAL, ANOMALY])
        }
        ModelKind::Rules => {
            let known = Fault::ALL.map(|fault| event::Label::from(fault).0);
            if let Some(label) = table.labels.iter().find(|label| !known.contains(label)) {
                bail!(
                    "the rules tell faults 0 to {} apart, and some rows have label {label}",
                    known.len() - 1
                );
            }
            LabelledSet::new(table, window, &known)
        }
    }
}

/// All rows with their groups, and the windows' length in nanoseconds.
/// `memory` is in MiB.
pub fn read(inputs: &[PathBuf], memory: u32, window: Option<f64>) -> anyhow::Result<(Table, i64)> {
    let sizes = inputs.iter().map(|path| std::fs::metadata(path).map_or(0, |file| file.len()));
    let progress = cli::of_bytes(sizes.sum(), "reading");
    let mut table = input::read(inputs, memory as usize * MIB, &|bytes| progress.inc(bytes))?;
    progress.finish_and_clear();
    #[allow(clippy::cast_possible_truncation)] // at most a day
    let given = window.map(|seconds| (seconds * NANOSECONDS).round() as i64);
    let window = given.or_else(|| data::window_of(&table)).context(
        "every file holds one window alone, so the windows' length cannot be told: give it by --window SECONDS",
    )?;
    table.assign_groups(window);
    info!(
        "read {} rows in windows of {} s from {} recordings in {} files; 0 rows skipped",
        table.len(),
        window as f64 / NANOSECONDS,
        table.group_names.len(),
        table.files.len()
    );
    if table.cells.written() > 0 {
        info!(
            "{} MB of them stand in a temporary file in {}, because memory is to hold {memory} MiB at most (--memory)",
            table.cells.written() / 1_000_000,
            std::env::temp_dir().display()
        );
    }
    Ok((table, window))
}

fn plan(args: &FitArgs) -> Plan {
    let trees = usize::from(args.trees);
    match args.model {
        ModelKind::Rf => Plan::Forest(Settings {
            trees,
            max_depth: usize::from(args.max_depth),
            min_leaf: args.min_leaf as usize,
            features: FeaturesPerNode::Sqrt,
            bootstrap: true,
            class_weight: args.class_weight,
            seed: args.seed,
        }),
        ModelKind::Tree => Plan::Tree(evaluate::single_tree(args.seed)),
        ModelKind::Rules => Plan::Rules,
        ModelKind::Iforest => {
            let false_alarms = args.false_alarms;
            let sample = args.rows_per_tree as usize;
            Plan::Isolation(isolation::Settings { trees, sample, false_alarms, seed: args.seed })
        }
    }
}

fn assemble(
    set: &LabelledSet,
    plan: &Plan,
    fitted: Fitted,
    evaluation: Option<Evaluation>,
    args: &FitArgs,
) -> anyhow::Result<Model> {
    let cells = &set.table.cells;
    let profile: Result<Vec<Profile>, SpillError> = (0..cells.inputs())
        .into_par_iter()
        .map(|input| {
            let column = cells.column(input, &fitted.rows)?;
            Ok(Profile::of(&column, |row| set.table.labels[fitted.rows[row] as usize] == NORMAL))
        })
        .collect();
    let meta = Meta {
        kind: plan.kind(),
        schema: schema::fingerprint().to_owned(),
        window_ns: u64::try_from(set.window)?,
        inputs: inputs(),
        classes: set.classes_in(&plan.sampled(set, &fitted.rows)),
        training: Training {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: args.seed,
            rng: forest::random::NAME.to_owned(),
            settings: described(plan, args),
            data: set.table.files_of(&fitted.rows),
        },
        calibration: fitted.calibration,
        evaluation,
    };
    Ok(Model::new(&meta, &fitted.forest, &profile?)?)
}

/// The schema's inputs as the model file tells them.
fn inputs() -> Vec<Input> {
    let kind = |column: &schema::Column| match column.input {
        Encoding::Bool => InputKind::Bool,
        Encoding::Category(names) => {
            InputKind::Categorical(names.iter().map(|name| (*name).to_owned()).collect())
        }
        Encoding::Number | Encoding::Never => InputKind::Numeric,
    };
    schema::inputs().map(|column| Input { name: column.name.to_owned(), kind: kind(column) }).collect()
}

/// The settings that a model came from, as the model file tells them.
fn described(plan: &Plan, args: &FitArgs) -> BTreeMap<String, String> {
    let fitted_on = if args.keeps_judged() { "the recordings not held out" } else { "all recordings" };
    let mut entries = vec![
        ("hold-out", held_out(args)),
        ("folds", args.folds.to_string()),
        ("fitted-on", fitted_on.to_owned()),
    ];
    if let Some(most) = args.sample {
        entries.push(("sample", most.to_string()));
    }
    match plan {
        Plan::Forest(settings) | Plan::Tree(settings) => entries.extend([
            ("trees", settings.trees.to_string()),
            ("max-depth", settings.max_depth.to_string()),
            ("min-leaf", settings.min_leaf.to_string()),
            ("features-per-node", settings.features.name().to_owned()),
            ("bootstrap", settings.bootstrap.to_string()),
            ("class-weight", settings.class_weight.name().to_owned()),
        ]),
        Plan::Isolation(settings) => entries.extend([
            ("trees", settings.trees.to_string()),
            ("rows-per-tree", settings.sample.to_string()),
            ("false-alarms", settings.false_alarms.to_string()),
        ]),
        Plan::Rules => {}
    }
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// How the judging rows were chosen.
fn held_out(args: &FitArgs) -> String {
    match &args.test_where[..] {
        [] if args.test.is_empty() => args.hold_out.to_string(),
        [] => "test files".to_owned(),
        conditions => runs::any_of(conditions),
    }
}

fn write_reports(
    args: &FitArgs,
    set: &LabelledSet,
    judged: Option<&Judged>,
    model: &Model,
) -> anyhow::Result<()> {
    let name = args.output.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    if let Some(path) = &args.card {
        replace(path, report::card(&name, model).as_bytes())?;
    }
    if let Some(path) = &args.report {
        replace(path, report::html(&name, model, set, judged).as_bytes())?;
    }
    Ok(())
}

fn write_metrics(args: &FitArgs, model: &Model) -> anyhow::Result<()> {
    let Some(path) = &args.metrics_json else { return Ok(()) };
    let metrics = serde_json::json!({
        "model": args.output.file_name().map(|name| name.to_string_lossy()),
        "sha256": model.hash().to_string(),
        "kind": model.meta().kind,
        "classes": model.meta().classes,
        "training": model.meta().training,
        "evaluation": model.meta().evaluation,
    });
    let mut text = serde_json::to_vec_pretty(&metrics)?;
    text.push(b'\n');
    if path.as_os_str() == "-" {
        return std::io::stdout().write_all(&text).context("cannot write the scores to standard output");
    }
    replace(path, &text)
}

/// Writes a file beside its place and moves it there when it is complete.
pub fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let what = || format!("cannot write {}", path.display());
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(what)?;
    file.write_all(content).with_context(what)?;
    file.as_file().sync_all().with_context(what)?;
    file.persist(path).with_context(what)?;
    Ok(())
}
