//! The way from files of rows to a model file and its scores.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use cli::Exit;
use features::schema::{self, Input as Encoding};
use model::{ClassInfo, Evaluation, Forest, Input, InputKind, Kind, Meta, Model, Profile, Training};
use rayon::prelude::*;
use tracing::{info, warn};

use crate::args::{Args, ModelKind};
use crate::data::{self, Table, csv};
use crate::forest::{self, ClassWeight, FeaturesPerNode, Rows, Settings};
use crate::score;
use crate::split::{Split, Unjudged, hold_out};

const NANOSECONDS: f64 = 1e9;
/// The label of rows without a fault.
const NORMAL: u16 = 0;

/// Trains as the command line says.
///
/// # Errors
/// Whatever keeps the model from being written; an older model file is then untouched.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads.map_or(0, usize::from))
        .build()
        .context("cannot start the threads to fit with")?;
    pool.install(|| train(args))
}

fn train(args: &Args) -> anyhow::Result<Exit> {
    let (table, window) = read(args)?;
    let set = LabelledSet::new(table)?;
    let settings = settings(args);
    let (split, unjudged) = hold_out(&set.of_row, &set.table.groups, args.hold_out, args.seed);
    unjudged.iter().for_each(|class| warn_unjudged(&set, *class));

    let mut judged = None;
    let mut evaluation = None;
    if split.held_out.is_empty() {
        warn!(
            "no recording can be held out, so this model is not judged: its quality is unknown; record every \
             class at least twice"
        );
    } else {
        let forest = set.fit(&split.fit, &settings, "judging")?;
        let scores = set.judge(&forest, &split, args);
        info!("on recordings that the model has not seen ({}):\n{}", scores.split, score::table(&scores));
        evaluation = Some(scores);
        judged = Some(forest);
    }
    let all: Vec<u32> = (0..u32::try_from(set.table.len())?).collect();
    let (forest, rows) = match judged {
        Some(forest) if args.keep_held_out => (forest, split.fit),
        _ => (set.fit(&all, &settings, "fitting")?, all),
    };
    let model = set.model(forest, &rows, args, &settings, window, evaluation)?;
    write_metrics(args, &model)?;
    save(&model, &args.output)?;
    info!(
        rows = rows.len(),
        recordings = set.table.group_names.len(),
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

/// All rows with their groups, and the windows' length in nanoseconds.
fn read(args: &Args) -> anyhow::Result<(Table, i64)> {
    let sizes = args.inputs.iter().map(|path| std::fs::metadata(path).map_or(0, |file| file.len()));
    let progress = cli::of_bytes(sizes.sum(), "reading");
    let mut table = csv::read(&args.inputs, &|bytes| progress.inc(bytes))?;
    progress.finish_and_clear();
    #[allow(clippy::cast_possible_truncation)] // at most a day
    let given = args.window.map(|seconds| (seconds * NANOSECONDS).round() as i64);
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
    Ok((table, window))
}

fn settings(args: &Args) -> Settings {
    let forest = Settings {
        trees: usize::from(args.trees),
        max_depth: usize::from(args.max_depth),
        min_leaf: args.min_leaf as usize,
        features: FeaturesPerNode::Sqrt,
        bootstrap: true,
        class_weight: args.class_weight,
        seed: args.seed,
    };
    match args.model {
        ModelKind::Rf => forest,
        ModelKind::Tree => Settings { trees: 1, features: FeaturesPerNode::All, bootstrap: false, ..forest },
    }
}

fn warn_unjudged(set: &LabelledSet, class: Unjudged) {
    let name = &set.classes[class.class].name;
    warn!(
        "class {name} is not judged: {} recording{} hold{} it, and none can be held out without leaving another \
         class nothing to learn from; record it again",
        class.groups,
        if class.groups == 1 { "" } else { "s" },
        if class.groups == 1 { "s" } else { "" },
    );
}

/// Rows whose labels have become classes.
struct LabelledSet {
    table: Table,
    classes: Vec<ClassInfo>,
    /// Class index of every row.
    of_row: Vec<u8>,
}

impl LabelledSet {
    fn new(table: Table) -> anyhow::Result<Self> {
        let mut labels = table.labels.clone();
        labels.sort_unstable();
        labels.dedup();
        if let [only] = labels[..] {
            bail!(
                "all {} rows have label {only} ({}): a model needs at least two classes; add recordings with \
                 another label",
                table.len(),
                event::Label(only)
            );
        }
        if labels.len() > model::MAX_CLASSES {
            bail!("{} labels, and at most {} classes are fitted", labels.len(), model::MAX_CLASSES);
        }
        #[allow(clippy::cast_possible_truncation)] // at most 256 classes
        let index = |label: &u16| labels.partition_point(|known| known < label) as u8;
        let of_row: Vec<u8> = table.labels.iter().map(index).collect();
        let groups = groups_per_class(&of_row, &table.groups, 0..table.len(), labels.len());
        let class = |(k, label): (usize, &u16)| ClassInfo {
            label: *label,
            name: event::Label(*label).to_string(),
            rows: of_row.iter().filter(|class| usize::from(**class) == k).count() as u64,
            groups: groups[k],
        };
        let classes = labels.iter().enumerate().map(class).collect();
        Ok(Self { table, classes, of_row })
    }

    fn fit(&self, chosen: &[u32], settings: &Settings, what: &str) -> anyhow::Result<Forest> {
        let progress = cli::counter(settings.trees as u64, what);
        let (columns, classes) = (&self.table.columns, &self.of_row);
        let rows = Rows { columns, classes, number_of_classes: self.classes.len(), chosen };
        let forest = forest::fit(rows, settings, || progress.inc(1))?;
        progress.finish_and_clear();
        Ok(forest)
    }

    fn judge(&self, forest: &Forest, split: &Split, args: &Args) -> Evaluation {
        let predicted: Vec<u8> =
            split.held_out.par_chunks(4096).flat_map_iter(|rows| self.predict(forest, rows)).collect();
        let actual: Vec<u8> = split.held_out.iter().map(|row| self.of_row[*row as usize]).collect();
        let rows = split.held_out.iter().map(|row| *row as usize);
        let groups = groups_per_class(&self.of_row, &self.table.groups, rows, self.classes.len());
        let rule = format!(
            "{} of {} recordings held out, {} of every class, seed {}",
            split.groups,
            self.table.group_names.len(),
            args.hold_out,
            args.seed
        );
        score::score(&self.classes, &actual, &predicted, &groups, split.groups, rule)
    }

    /// The likeliest class of every row; the first of equals.
    fn predict(&self, forest: &Forest, rows: &[u32]) -> Vec<u8> {
        let inputs = self.table.columns.len();
        let values: Vec<f32> = rows.iter().flat_map(|row| self.table.row(*row as usize)).collect();
        let mut probabilities = vec![0.0; rows.len() * self.classes.len()];
        forest.predict_batch(&values, inputs, &mut probabilities);
        probabilities.chunks_exact(self.classes.len()).map(likeliest).collect()
    }

    fn model(
        &self,
        forest: Forest,
        rows: &[u32],
        args: &Args,
        settings: &Settings,
        window: i64,
        evaluation: Option<Evaluation>,
    ) -> anyhow::Result<Model> {
        let profile: Vec<Profile> = self
            .table
            .columns
            .par_iter()
            .map(|column| {
                let column: Vec<f32> = rows.iter().map(|row| column[*row as usize]).collect();
                Profile::of(&column, |row| self.table.labels[rows[row] as usize] == NORMAL)
            })
            .collect();
        let meta = Meta {
            kind: match args.model {
                ModelKind::Rf => Kind::RandomForest,
                ModelKind::Tree => Kind::DecisionTree,
            },
            schema: schema::fingerprint().to_owned(),
            window_ns: u64::try_from(window)?,
            inputs: inputs(),
            classes: self.classes.clone(),
            training: Training {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                seed: args.seed,
                rng: forest::random::NAME.to_owned(),
                settings: described(settings, args),
                data: self.table.files.clone(),
            },
            evaluation,
        };
        Ok(Model::new(&meta, &forest, &profile)?)
    }
}

#[allow(clippy::cast_possible_truncation)] // at most 256 classes
fn likeliest(probabilities: &[f32]) -> u8 {
    let best = (0..probabilities.len()).rev().max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
    best.unwrap_or(0) as u8
}

/// How many groups hold each class.
fn groups_per_class(
    classes: &[u8],
    groups: &[u32],
    rows: impl Iterator<Item = usize>,
    number: usize,
) -> Vec<u64> {
    let mut seen: Vec<(u8, u32)> = rows.map(|row| (classes[row], groups[row])).collect();
    seen.sort_unstable();
    seen.dedup();
    let mut counts = vec![0; number];
    seen.iter().for_each(|(class, _)| counts[usize::from(*class)] += 1);
    counts
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

fn described(settings: &Settings, args: &Args) -> std::collections::BTreeMap<String, String> {
    let weight = match settings.class_weight {
        ClassWeight::None => "none",
        ClassWeight::Balanced => "balanced",
        ClassWeight::BalancedSubsample => "balanced-subsample",
    };
    let features = match settings.features {
        FeaturesPerNode::Sqrt => "sqrt",
        FeaturesPerNode::All => "all",
    };
    let entries = [
        ("trees", settings.trees.to_string()),
        ("max-depth", settings.max_depth.to_string()),
        ("min-leaf", settings.min_leaf.to_string()),
        ("features-per-node", features.to_owned()),
        ("bootstrap", settings.bootstrap.to_string()),
        ("class-weight", weight.to_owned()),
        ("hold-out", args.hold_out.to_string()),
        ("fitted-on", if args.keep_held_out { "the rows not held out" } else { "all rows" }.to_owned()),
    ];
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn write_metrics(args: &Args, model: &Model) -> anyhow::Result<()> {
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

fn save(model: &Model, path: &Path) -> anyhow::Result<()> {
    replace(path, &model.to_bytes())
}

/// Writes a file beside its place and moves it there when it is complete.
fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
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
