//! Which settings do best on the folds: every combination of the few that matter is tried, in an order that
//! the seed shuffles, until all are done or the time is over. What was tried is kept, so that a search goes
//! on where it stopped.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing::info;

use crate::evaluate::{Split, folds, score};
use crate::forest::random::Random;
use crate::forest::{ClassWeight, Settings};
use crate::plan::Plan;
use crate::set::{LabelledSet, winners};

const CLASS_WEIGHTS: [ClassWeight; 3] =
    [ClassWeight::None, ClassWeight::Balanced, ClassWeight::BalancedSubsample];
const MIN_LEAVES: [usize; 5] = [1, 2, 5, 10, 20];
const MAX_DEPTHS: [usize; 3] = [8, 16, 64];
/// Trees while searching: settings that do better with these do better with more.
const TREES: usize = 60;

/// How long to search, and where to keep what was found.
#[derive(Clone, Copy)]
pub struct Budget<'a> {
    pub time: Duration,
    pub log: Option<&'a Path>,
    pub folds: usize,
}

/// One combination's score, as a line of the log.
#[derive(serde::Serialize, serde::Deserialize)]
struct Line {
    /// What else the score depends on: data, folds, seed.
    basis: String,
    settings: String,
    macro_f1: f64,
}

/// The settings with the best mean macro F1 over folds of the rows in `fit`; the final set is not looked at.
///
/// # Errors
/// Where fitting fails or the log cannot be read or written.
pub fn search(
    set: &LabelledSet,
    fit: &[u32],
    base: &Settings,
    budget: Budget<'_>,
) -> anyhow::Result<Settings> {
    let parts = folds(&set.of_row, &set.table.groups, fit, budget.folds, base.seed);
    anyhow::ensure!(
        !parts.is_empty(),
        "a search compares settings on folds, and there are fewer recordings than {} folds: give --folds",
        budget.folds
    );
    let basis = basis(set, fit, base.seed, parts.len());
    let mut known = read_log(budget.log, &basis)?;
    let mut order = combinations(base);
    Random::new("search", base.seed, 0).shuffle(&mut order);
    let start = Instant::now();
    let progress = cli::counter(order.len() as u64, "searching");
    let mut best: Option<(f64, Settings)> = None;
    let (mut tried, mut reused) = (0, 0);
    for settings in &order {
        let name = name(settings);
        let macro_f1 = match known.remove(&name) {
            Some(macro_f1) => {
                reused += 1;
                macro_f1
            }
            None if start.elapsed() >= budget.time && best.is_some() => continue,
            None => {
                let macro_f1 = mean_macro_f1(set, &parts, settings)?;
                append(budget.log, &Line { basis: basis.clone(), settings: name, macro_f1 })?;
                tried += 1;
                macro_f1
            }
        };
        progress.inc(1);
        if best.as_ref().is_none_or(|(best, _)| macro_f1 > *best) {
            best = Some((macro_f1, settings.clone()));
        }
    }
    progress.finish_and_clear();
    let (macro_f1, found) = best.context("no combination was tried")?;
    info!(
        "searched {} of {} combinations ({reused} known from before), {} left out for want of time; best on the \
         folds, macro F1 {macro_f1:.3}: {}",
        tried + reused,
        order.len(),
        order.len() - tried - reused,
        name(&found)
    );
    Ok(Settings { trees: base.trees, ..found })
}

fn combinations(base: &Settings) -> Vec<Settings> {
    let mut all = Vec::new();
    for class_weight in CLASS_WEIGHTS {
        for min_leaf in MIN_LEAVES {
            for max_depth in MAX_DEPTHS {
                all.push(Settings { trees: TREES, class_weight, min_leaf, max_depth, ..base.clone() });
            }
        }
    }
    all
}

fn name(settings: &Settings) -> String {
    let (weight, leaf, depth) = (settings.class_weight.name(), settings.min_leaf, settings.max_depth);
    format!("class-weight {weight}, min-leaf {leaf}, max-depth {depth}")
}

fn mean_macro_f1(set: &LabelledSet, parts: &[Split], settings: &Settings) -> anyhow::Result<f64> {
    let plan = Plan::Forest(settings.clone());
    let classes = set.classes.len();
    let mut sum = 0.0;
    for part in parts {
        let (forest, _) = plan.fit(set, &part.fit, "")?;
        let predicted = winners(&set.shares(&forest, &part.held_out)?, classes);
        sum += score::macro_f1(&set.classes_of(&part.held_out), &predicted, classes);
    }
    Ok(sum / parts.len() as f64)
}

fn basis(set: &LabelledSet, fit: &[u32], seed: u64, folds: usize) -> String {
    let files: Vec<&str> = set.table.files.iter().map(|file| file.sha256.get(..12).unwrap_or("")).collect();
    let version = env!("CARGO_PKG_VERSION");
    let most = set.most_of_class.map_or_else(String::new, |most| format!(" (at most {most} of a class)"));
    format!(
        "train {version}, {} rows{most} of {}, {folds} folds, {TREES} trees, seed {seed}",
        fit.len(),
        files.join(" ")
    )
}

fn read_log(path: Option<&Path>, basis: &str) -> anyhow::Result<HashMap<String, f64>> {
    let Some(path) = path.filter(|path| path.exists()) else { return Ok(HashMap::new()) };
    let what = || format!("cannot read the search log {}", path.display());
    let text = std::fs::read_to_string(path).with_context(what)?;
    let mut known = HashMap::new();
    // A last line without its end is one that a stop cut: it is tried again.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (number, line) in whole.lines().enumerate() {
        let line: Line =
            serde_json::from_str(line).with_context(|| format!("{}, line {}", what(), number + 1))?;
        if line.basis == basis {
            known.insert(line.settings, line.macro_f1);
        }
    }
    Ok(known)
}

fn append(path: Option<&Path>, line: &Line) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let what = || format!("cannot write the search log {}", path.display());
    cut_half_line(path).with_context(what)?;
    let mut file = OpenOptions::new().create(true).append(true).open(path).with_context(what)?;
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    file.write_all(text.as_bytes()).with_context(what)
}

/// Takes away a last line that a stop cut.
fn cut_half_line(path: &Path) -> std::io::Result<()> {
    let Ok(bytes) = std::fs::read(path) else { return Ok(()) };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < bytes.len() {
        OpenOptions::new().write(true).open(path)?.set_len(whole as u64)?;
    }
    Ok(())
}
