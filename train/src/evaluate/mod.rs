//! How well a model does on recordings that it has not seen. Every figure comes from whole recordings that
//! the judged model was not fitted on.

pub mod calibrate;
mod importance;
pub mod score;
mod split;
mod vote;

use anyhow::Context as _;
use event::Fault;
use model::{Baseline, Calibration, Evaluation, Forest, Kind};
use tracing::{info, warn};

pub use split::{Split, Unjudged, folds, hold_out};

use crate::data::SpillError;
use crate::data::runs::{Condition, any_of};
use crate::forest::{ClassWeight, FeaturesPerNode, Settings};
use crate::plan::Plan;
use crate::rules;
use crate::set::{LabelledSet, winners};

/// How to judge.
#[derive(Clone, Copy, Debug)]
pub struct Procedure {
    /// Share of every class's recordings in the final set, which nothing but the scores ever sees.
    pub hold_out: f64,
    /// Parts that the other recordings are dealt into, each judged once by a model fitted on the others;
    /// below 2, none.
    pub folds: usize,
    pub seed: u64,
}

/// A model that was judged, with what the scores were made from.
pub struct Judged {
    pub forest: Forest,
    pub calibration: Option<Calibration>,
    /// The rows it was fitted on.
    pub fitted: Vec<u32>,
    pub evaluation: Evaluation,
    pub held_out: Vec<u32>,
    /// Calibrated shares of the held-out rows.
    pub shares: Vec<f32>,
}

/// Sets recordings aside; `None` where none can be.
pub fn set_aside(set: &LabelledSet, procedure: Procedure) -> Option<Split> {
    let (split, unjudged) = hold_out(&set.of_row, &set.table.groups, procedure.hold_out, procedure.seed);
    unjudged.iter().for_each(|class| warn_unjudged(set, *class));
    if split.held_out.is_empty() {
        warn!(
            "no recording can be held out, so this model is not judged: its quality is unknown; record every \
             class at least twice"
        );
        return None;
    }
    Some(split)
}

/// Holds out the rows of the last `files` files.
///
/// # Errors
/// Where a class would have nothing to fit on.
#[allow(clippy::cast_possible_truncation)] // rows are counted in u32
pub fn last_files(set: &LabelledSet, files: usize) -> anyhow::Result<Split> {
    let table = &set.table;
    let first = table.files.len() - files;
    let (fit, held_out): (Vec<u32>, Vec<u32>) =
        (0..table.len() as u32).partition(|row| (*row as usize) < table.file_starts[first]);
    ensure_known(set, &fit, "stands in the test files alone")?;
    let mut groups: Vec<u32> = held_out.iter().map(|row| table.groups[*row as usize]).collect();
    groups.sort_unstable();
    groups.dedup();
    let names: Vec<&str> = table.files[first..].iter().map(|file| file.name.as_str()).collect();
    Ok(Split { fit, held_out, groups: groups.len(), rule: format!("test files {}", names.join(", ")) })
}

/// Holds out the groups that are marked, which are those of runs under one of the conditions.
///
/// # Errors
/// Where a class would have nothing to fit on.
pub fn these_groups(set: &LabelledSet, held: &[bool], conditions: &[Condition]) -> anyhow::Result<Split> {
    let mut split = split::divide(&set.table.groups, held);
    let conditions = any_of(conditions);
    ensure_known(set, &split.fit, &format!("stands in the runs with {conditions} alone"))?;
    split.rule = format!("the {} of {} recordings with {conditions}", split.groups, held.len());
    Ok(split)
}

fn ensure_known(set: &LabelledSet, fit: &[u32], why: &str) -> anyhow::Result<()> {
    for (class, groups) in set.classes.iter().zip(set.groups_of(fit)) {
        anyhow::ensure!(
            groups > 0 || class.rows == 0,
            "label {} ({}) {why}: a model cannot know it; add a recording of it",
            class.label,
            class.name
        );
    }
    Ok(())
}

/// Fits on one part and judges on the other.
///
/// # Errors
/// Where fitting fails.
pub fn judge(set: &LabelledSet, plan: &Plan, split: Split, procedure: Procedure) -> anyhow::Result<Judged> {
    let folded = judge_folds(set, plan, &split, procedure)?;
    let (forest, own) = plan.fit(set, &split.fit, "judging")?;
    let calibration = own.or(folded.calibration);
    let mut shares = set.shares(&forest, &split.held_out)?;
    if let Some(calibration) = calibration {
        shares.chunks_exact_mut(set.classes.len()).for_each(|row| calibration.apply(row));
    }
    let mut evaluation = score::score(set, &split.held_out, &shares, split.groups, split.rule.clone());
    evaluation.out_of_bag = plan.out_of_bag(set, &split.fit, &forest)?;
    evaluation.folds = folded.macro_f1;
    evaluation.baselines = baselines(set, plan, &split)?;
    evaluation.importance = importance::importance(set, &forest, &split.held_out, procedure.seed)?;
    Ok(Judged { forest, calibration, fitted: split.fit, evaluation, held_out: split.held_out, shares })
}

fn warn_unjudged(set: &LabelledSet, class: Unjudged) {
    let name = &set.classes[class.class].name;
    let (recordings, hold) = if class.groups == 1 { ("recording", "holds") } else { ("recordings", "hold") };
    warn!(
        "class {name} is not judged: {} {recordings} {hold} it, and none can be held out without leaving some \
         class nothing to learn from; record it again",
        class.groups,
    );
}

/// Rows that the temperature is fitted on, about: one number needs no more.
const CALIBRATION_ROWS: usize = 200_000;

/// What the folds tell.
#[derive(Default)]
struct Folded {
    macro_f1: Vec<f64>,
    calibration: Option<Calibration>,
}

fn judge_folds(
    set: &LabelledSet,
    plan: &Plan,
    split: &Split,
    procedure: Procedure,
) -> anyhow::Result<Folded> {
    let (Plan::Forest(settings) | Plan::Tree(settings)) = plan else { return Ok(Folded::default()) };
    if procedure.folds < 2 {
        return Ok(Folded::default());
    }
    let parts = folds(&set.of_row, &set.table.groups, &split.fit, procedure.folds, procedure.seed);
    if parts.is_empty() {
        warn!(
            "fewer recordings than {} folds: no spread is known, and the probabilities are not calibrated",
            procedure.folds
        );
        return Ok(Folded::default());
    }
    let classes = set.classes.len();
    let mut folded = Folded::default();
    let step = split.fit.len().div_ceil(CALIBRATION_ROWS).max(1);
    let (mut shares, mut actual) = (Vec::new(), Vec::new());
    for (number, part) in parts.iter().enumerate() {
        let (forest, _) = plan.fit(set, &part.fit, &format!("fold {} of {}", number + 1, parts.len()))?;
        let part_shares = set.shares(&forest, &part.held_out)?;
        let part_actual = set.classes_of(&part.held_out);
        folded.macro_f1.push(score::macro_f1(&part_actual, &winners(&part_shares, classes), classes));
        part_shares.chunks_exact(classes).step_by(step).for_each(|row| shares.extend_from_slice(row));
        actual.extend(part_actual.iter().step_by(step));
    }
    folded.calibration = Some(calibrate::temperature(&shares, &actual, classes, settings.trees));
    Ok(folded)
}

/// Simpler models on the same rows: the commonest class, the rules, a single tree.
fn baselines(set: &LabelledSet, plan: &Plan, split: &Split) -> anyhow::Result<Vec<Baseline>> {
    let actual = set.classes_of(&split.held_out);
    let mut found = Vec::new();
    if plan.kind() == Kind::IsolationForest {
        return Ok(found);
    }
    let mut add = |name: &str, predicted: &[u8], answers: Option<Vec<vote::Answer>>, classes: usize| {
        let (macro_f1, mcc) = (
            score::macro_f1(&actual, predicted, classes),
            score::mcc(&score::confusion(&actual, predicted, classes)),
        );
        // What tells no probabilities is sure.
        let answers = answers.unwrap_or_else(|| predicted.iter().map(|class| Some((*class, 1.0))).collect());
        let verdicts = vote::targets(set, &split.held_out, answers.into_iter(), classes);
        let verdicts_macro_f1 = verdicts.map(|verdicts| verdicts.macro_f1);
        found.push(Baseline { name: name.to_owned(), macro_f1, mcc, verdicts_macro_f1 });
    };
    let mut counts = vec![0u64; set.classes.len()];
    split.fit.iter().for_each(|row| counts[usize::from(set.of_row[*row as usize])] += 1);
    let commonest = (0..counts.len()).rev().max_by_key(|class| counts[*class]).unwrap_or(0);
    add("commonest class", &vec![u8::try_from(commonest)?; actual.len()], None, counts.len());
    if plan.kind() != Kind::Rules {
        let (predicted, classes) = by_rules(set, &split.held_out)?.context("too many classes")?;
        add("rules", &predicted, None, classes);
    }
    if plan.kind() != Kind::DecisionTree {
        let plan = Plan::Tree(single_tree(plan.seed()));
        let (tree, _) = plan.fit(set, &split.fit, "single tree")?;
        let (shares, classes) = (set.shares(&tree, &split.held_out)?, set.classes.len());
        let answers = shares.chunks_exact(classes).map(vote::answer).collect();
        add("single tree", &winners(&shares, classes), Some(answers), classes);
    }
    Ok(found)
}

/// The settings of a tree that a person can read.
pub fn single_tree(seed: u64) -> Settings {
    Settings {
        trees: 1,
        max_depth: 8,
        min_leaf: 5,
        features: FeaturesPerNode::All,
        bootstrap: false,
        class_weight: ClassWeight::Balanced,
        seed,
    }
}

/// What the rules say of some rows, as class indices of the set; a fault that the set does not have gets an
/// index behind them. Also returns how many indices there are; `None` where they do not fit.
fn by_rules(set: &LabelledSet, rows: &[u32]) -> Result<Option<(Vec<u8>, usize)>, SpillError> {
    let mut indices = Vec::new();
    let mut classes = set.classes.len();
    for fault in Fault::ALL {
        let label = event::Label::from(fault).0;
        let known = set.classes.iter().position(|class| class.label == label);
        let Ok(index) = u8::try_from(known.unwrap_or(classes)) else { return Ok(None) };
        indices.push(index);
        classes += usize::from(known.is_none());
    }
    let faults = winners(&set.shares(&rules::forest(), rows)?, Fault::ALL.len());
    Ok(Some((faults.into_iter().map(|fault| indices[usize::from(fault)]).collect(), classes)))
}

/// Says the scores in words.
pub fn tell(evaluation: &Evaluation) {
    info!("on recordings that the model has not seen ({}):\n{}", evaluation.split, score::table(evaluation));
}
