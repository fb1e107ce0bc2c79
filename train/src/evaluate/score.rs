//! How well predictions fit: confusion matrix, curves and what follows from them.

use std::collections::{BTreeMap, BTreeSet};

use model::{ClassScore, Evaluation, OutOfBag, RunScore};

use super::{calibrate, vote};
use crate::data::runs::KEYS;
use crate::isolation::ANOMALY;
use crate::set::{LabelledSet, winners};

/// The key of the severity.
pub const SEVERITY: &str = "severity";
/// The key of the fault.
const FAULT: &str = "fault";

/// From the mildest on; other values of a key stand in the order of letters.
const SEVERITIES: [&str; 3] = ["low", "medium", "high"];

/// From this probability on a verdict counts as an alarm: what `infer` asks of one by default.
pub const ALARM: f32 = 0.8;

/// Scores of the shares that a model gave to some rows of the set.
pub fn score(set: &LabelledSet, rows: &[u32], shares: &[f32], groups: usize, split: String) -> Evaluation {
    let classes = set.classes.len();
    let (actual, predicted) = (set.classes_of(rows), winners(shares, classes));
    let confusion = confusion(&actual, &predicted, classes);
    let groups_of = set.groups_of(rows);
    let of_class = |k: usize| {
        let class = &set.classes[k];
        let scores = PerClass::new(k, &confusion);
        ClassScore {
            label: class.label,
            name: class.name.clone(),
            rows: scores.rows,
            groups: groups_of[k],
            precision: scores.precision(),
            recall: scores.recall(),
            f1: scores.f1(),
            pr_auc: average_precision(&curve(shares, &actual, classes, k)),
        }
    };
    let right: u64 = (0..classes).map(|k| confusion[k][k]).sum();
    Evaluation {
        split,
        rows: rows.len() as u64,
        groups: groups as u64,
        accuracy: right as f64 / rows.len().max(1) as f64,
        macro_f1: macro_f1(&actual, &predicted, classes),
        mcc: mcc(&confusion),
        ece: calibrate::ece(&calibrate::reliability(shares, &actual, &predicted, classes)),
        false_alarms_per_hour: false_alarms(set, rows, shares, &predicted),
        targets: vote::targets(set, rows, shares.chunks_exact(classes).map(vote::answer), classes),
        classes: (0..classes).map(of_class).collect(),
        confusion,
        out_of_bag: None,
        runs: by_run(set, rows, &predicted),
        folds: Vec::new(),
        baselines: Vec::new(),
        importance: Vec::new(),
    }
}

/// Scores of the rows for which there is a prediction.
pub fn out_of_bag(actual: &[u8], predicted: &[Option<u8>], classes: usize) -> OutOfBag {
    let judged =
        actual.iter().zip(predicted).filter_map(|(actual, predicted)| Some((*actual, (*predicted)?)));
    let (actual, predicted): (Vec<u8>, Vec<u8>) = judged.unzip();
    let confusion = confusion(&actual, &predicted, classes);
    let right: u64 = (0..classes).map(|k| confusion[k][k]).sum();
    OutOfBag {
        rows: actual.len() as u64,
        accuracy: right as f64 / actual.len().max(1) as f64,
        macro_f1: macro_f1(&actual, &predicted, classes),
        mcc: mcc(&confusion),
    }
}

/// The out-of-bag score in a sentence.
pub fn out_of_bag_in_words(score: &OutOfBag) -> String {
    format!(
        "out of bag, on {} rows that were fitted on, each judged by the trees that did not draw it: macro F1 {:.3}, \
         MCC {:.3}; too good for a new recording, because those trees know other rows of the same recording",
        score.rows, score.macro_f1, score.mcc
    )
}

/// `[actual][predicted]` in rows.
pub fn confusion(actual: &[u8], predicted: &[u8], classes: usize) -> Vec<Vec<u64>> {
    let mut confusion = vec![vec![0; classes]; classes];
    for (actual, predicted) in actual.iter().zip(predicted) {
        confusion[usize::from(*actual)][usize::from(*predicted)] += 1;
    }
    confusion
}

/// The mean F1 of the classes that have rows.
pub fn macro_f1(actual: &[u8], predicted: &[u8], classes: usize) -> f64 {
    let confusion = confusion(actual, predicted, classes);
    let judged: Vec<f64> = (0..classes).filter_map(|k| PerClass::new(k, &confusion).f1()).collect();
    judged.iter().sum::<f64>() / judged.len().max(1) as f64
}

/// One class's counts of a confusion matrix.
pub struct PerClass {
    pub hits: u64,
    pub rows: u64,
    pub predicted: u64,
}

impl PerClass {
    pub fn new(k: usize, confusion: &[Vec<u64>]) -> Self {
        let predicted = confusion.iter().map(|row| row[k]).sum();
        Self { hits: confusion[k][k], rows: confusion[k].iter().sum(), predicted }
    }

    pub fn precision(&self) -> Option<f64> {
        (self.predicted > 0).then(|| self.hits as f64 / self.predicted as f64)
    }

    pub fn recall(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.hits as f64 / self.rows as f64)
    }

    /// 2 TP / (2 TP + FP + FN): defined wherever the class has rows.
    pub fn f1(&self) -> Option<f64> {
        (self.rows > 0).then(|| 2.0 * self.hits as f64 / (self.predicted + self.rows) as f64)
    }
}

/// One point of a precision-recall curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub recall: f64,
    pub precision: f64,
}

/// Precision and recall of a class at every share that occurs, the highest first; empty where no row has it.
pub fn curve(shares: &[f32], actual: &[u8], classes: usize, class: usize) -> Vec<Point> {
    let mut ranked: Vec<(f32, bool)> = shares
        .iter()
        .skip(class)
        .step_by(classes)
        .zip(actual)
        .map(|(share, actual)| (*share, usize::from(*actual) == class))
        .collect();
    let all = ranked.iter().filter(|(_, is)| *is).count();
    if all == 0 {
        return Vec::new();
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut taken) = (0, 0);
    ranked
        .chunk_by(|a, b| a.0 == b.0)
        .map(|equal| {
            taken += equal.len();
            hits += equal.iter().filter(|(_, is)| *is).count();
            Point { recall: hits as f64 / all as f64, precision: hits as f64 / taken as f64 }
        })
        .collect()
}

/// The area under the curve without interpolation, as scikit-learn's average_precision_score.
fn average_precision(curve: &[Point]) -> Option<f64> {
    let before = [0.0].into_iter().chain(curve.iter().map(|point| point.recall));
    let area =
        curve.iter().zip(before).map(|(point, before)| (point.recall - before) * point.precision).sum();
    (!curve.is_empty()).then_some(area)
}

/// Recall of every class by how the runs were made: by every key of the manifest but the fault itself where
/// the class tells it.
fn by_run(set: &LabelledSet, rows: &[u32], predicted: &[u8]) -> Vec<RunScore> {
    let Some(runs) = &set.runs else { return Vec::new() };
    // Rows and hits of every class in every group.
    let mut counts: BTreeMap<(u8, u32), (u64, u64)> = BTreeMap::new();
    for (row, predicted) in rows.iter().zip(predicted) {
        let actual = set.of_row[*row as usize];
        let (rows, hits) = counts.entry((actual, set.table.groups[*row as usize])).or_default();
        *rows += 1;
        *hits += u64::from(*predicted == actual);
    }
    let mut found: BTreeMap<(usize, u8, &str), (u64, u64, u64)> = BTreeMap::new();
    for ((class, group), (rows, hits)) in &counts {
        let Some(run) = runs.of_group(&set.table, *group) else { continue };
        let told = |key: &str| key != FAULT || set.classes[usize::from(*class)].label == ANOMALY;
        for (place, key) in KEYS.iter().enumerate().filter(|(_, key)| told(key)) {
            let Some(value) = run.get(key) else { continue };
            let sums = found.entry((place, *class, value)).or_default();
            *sums = (sums.0 + rows, sums.1 + hits, sums.2 + 1);
        }
    }
    let score = |((place, class, value), (rows, hits, groups)): ((usize, u8, &str), (u64, u64, u64))| {
        let info = &set.classes[usize::from(class)];
        let (key, value, name) = (KEYS[place].to_owned(), value.to_owned(), info.name.clone());
        RunScore { key, value, label: info.label, name, rows, groups, recall: hits as f64 / rows as f64 }
    };
    let mut scores: Vec<RunScore> = found.into_iter().map(score).collect();
    let order = |score: &RunScore| SEVERITIES.iter().position(|severity| *severity == score.value);
    scores.sort_by_key(|score| (KEYS.iter().position(|key| *key == score.key), score.label, order(score)));
    scores
}

/// The values of one key that occur, in the order of the scores.
pub fn values_of<'a>(scores: &'a [RunScore], key: &str) -> Vec<&'a str> {
    let mut values: Vec<&str> = Vec::new();
    for score in scores.iter().filter(|score| score.key == key) {
        if !values.contains(&score.value.as_str()) {
            values.push(&score.value);
        }
    }
    values.sort_by_key(|value| (SEVERITIES.iter().position(|severity| severity == value), *value));
    values
}

/// For each hour of normal windows: how often a window had some normal row that was called a given fault
/// with a probability of at least [`ALARM`].
fn false_alarms(set: &LabelledSet, rows: &[u32], shares: &[f32], predicted: &[u8]) -> Option<f64> {
    let mut windows = BTreeSet::new();
    let mut alarms = BTreeSet::new();
    for (row, (shares, predicted)) in rows.iter().zip(shares.chunks_exact(set.classes.len()).zip(predicted)) {
        let row = *row as usize;
        if set.table.labels[row] != crate::set::NORMAL {
            continue;
        }
        let window = (set.table.groups[row], set.table.times[row]);
        windows.insert(window);
        let winner = usize::from(*predicted);
        if set.classes[winner].label != crate::set::NORMAL && shares[winner] >= ALARM {
            alarms.insert((window, winner));
        }
    }
    const NANOSECONDS_PER_HOUR: f64 = 3.6e12;
    let hours = windows.len() as f64 * set.window as f64 / NANOSECONDS_PER_HOUR;
    (hours > 0.0).then(|| alarms.len() as f64 / hours)
}

/// Matthews' correlation for many classes (Gorodkin 2004), 0 where it is not defined.
pub fn mcc(confusion: &[Vec<u64>]) -> f64 {
    let sum_of = |counts: &[f64]| counts.iter().map(|count| count * count).sum::<f64>();
    let actual: Vec<f64> = confusion.iter().map(|row| row.iter().sum::<u64>() as f64).collect();
    let predicted: Vec<f64> =
        (0..confusion.len()).map(|k| confusion.iter().map(|row| row[k]).sum::<u64>() as f64).collect();
    let total: f64 = actual.iter().sum();
    let right: f64 = (0..confusion.len()).map(|k| confusion[k][k] as f64).sum();
    let expected: f64 = actual.iter().zip(&predicted).map(|(a, p)| a * p).sum();
    let spread = ((total * total - sum_of(&predicted)) * (total * total - sum_of(&actual))).sqrt();
    if spread > 0.0 { (right * total - expected) / spread } else { 0.0 }
}

/// The scores as a table for people.
pub fn table(evaluation: &Evaluation) -> String {
    let width = evaluation.classes.iter().map(|class| class.name.len()).max().unwrap_or(0).max(5);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let mut text = format!(
        "{:width$}  {:>9}  {:>6}  {:>6}  {:>6}  {:>11}  {:>8}  {:>10}\n",
        "class", "precision", "recall", "F1", "PR-AUC", "verdicts F1", "rows", "recordings"
    );
    for (k, class) in evaluation.classes.iter().enumerate() {
        let verdicts = evaluation.targets.as_ref().and_then(|targets| *targets.f1.get(k)?);
        text += &format!(
            "{:width$}  {:>9}  {:>6}  {:>6}  {:>6}  {:>11}  {:>8}  {:>10}\n",
            class.name,
            number(class.precision),
            number(class.recall),
            number(class.f1),
            number(class.pr_auc),
            number(verdicts),
            class.rows,
            class.groups
        );
    }
    text += &by_severity(evaluation, width);
    text += &by_fault(evaluation);
    text += &summary(evaluation);
    text += "\nconfusion matrix: rows are what it was, columns what was predicted\n";
    let cell = evaluation.confusion.iter().flatten().max().map_or(1, |most| most.to_string().len());
    let cell =
        cell.max(evaluation.classes.iter().map(|class| class.label.to_string().len()).max().unwrap_or(1));
    let line = |head: &str, cells: &mut dyn Iterator<Item = String>| {
        let cells: String = cells.map(|text| format!("  {text:>cell$}")).collect();
        format!("{head:width$}{cells}\n")
    };
    text += &line("", &mut evaluation.classes.iter().map(|class| class.label.to_string()));
    for (class, row) in evaluation.classes.iter().zip(&evaluation.confusion) {
        text += &line(&class.name, &mut row.iter().map(u64::to_string));
    }
    text.truncate(text.trim_end().len());
    text
}

/// What an isolation forest, which knows no faults, finds of each; nothing for other models.
fn by_fault(evaluation: &Evaluation) -> String {
    let line =
        |score: &RunScore| format!("{:18}  {:>8.3}  {:>8} rows\n", score.value, score.recall, score.rows);
    let faults: String = evaluation.runs.iter().filter(|score| score.key == FAULT).map(line).collect();
    if faults.is_empty() { faults } else { format!("share called unusual, by fault\n{faults}") }
}

/// Recall of every class at each severity; nothing where the runs are not known.
fn by_severity(evaluation: &Evaluation, width: usize) -> String {
    let severities = values_of(&evaluation.runs, SEVERITY);
    if severities.is_empty() {
        return String::new();
    }
    let cells: String = severities.iter().map(|severity| format!("  {severity:>8}")).collect();
    let mut text = format!("recall by severity of the run\n{:width$}{cells}\n", "class");
    for class in evaluation.classes.iter().filter(|class| class.rows > 0) {
        let recall = |severity: &&str| recall_at(evaluation, class.label, SEVERITY, severity);
        let cells: String = severities
            .iter()
            .map(|severity| recall(severity).map_or_else(|| "-".to_owned(), |recall| format!("{recall:.3}")))
            .map(|cell| format!("  {cell:>8}"))
            .collect();
        text += &format!("{:width$}{cells}\n", class.name);
    }
    text
}

/// The recall of a class in the held-out runs of that kind.
pub fn recall_at(evaluation: &Evaluation, label: u16, key: &str, value: &str) -> Option<f64> {
    let same = |score: &&RunScore| score.label == label && score.key == key && score.value == value;
    evaluation.runs.iter().find(same).map(|score| score.recall)
}

/// The figures that hold for all classes together.
fn summary(evaluation: &Evaluation) -> String {
    let mut text = format!(
        "macro F1 {:.3}, accuracy {:.3}, MCC {:.3}, calibration error {:.3}",
        evaluation.macro_f1, evaluation.accuracy, evaluation.mcc, evaluation.ece
    );
    if let Some(alarms) = evaluation.false_alarms_per_hour {
        text += &format!(", {alarms:.1} false alarms per hour at a probability of {ALARM}");
    }
    text += "\n";
    if let Some(targets) = &evaluation.targets {
        text += &format!(
            "verdicts on a server and window, as `infer` lets its rows vote: macro F1 of {} verdicts {:.3}{}\n",
            targets.verdicts,
            targets.macro_f1,
            targets
                .false_alarms_per_hour
                .map_or_else(String::new, |alarms| format!(", {alarms:.1} false alarms per hour"))
        );
    }
    if let Some(score) = &evaluation.out_of_bag {
        text += &format!("{}\n", out_of_bag_in_words(score));
    }
    if !evaluation.folds.is_empty() {
        let (mean, deviation) = mean_and_deviation(&evaluation.folds);
        text += &format!(
            "macro F1 over {} folds of the other recordings: {mean:.3}, standard deviation {deviation:.3}\n",
            evaluation.folds.len()
        );
    }
    for baseline in &evaluation.baselines {
        text += &format!(
            "for comparison, {}: macro F1 {:.3}, MCC {:.3}, macro F1 of verdicts {}\n",
            baseline.name,
            baseline.macro_f1,
            baseline.mcc,
            baseline.verdicts_macro_f1.map_or_else(|| "-".to_owned(), |macro_f1| format!("{macro_f1:.3}"))
        );
    }
    let matters: Vec<String> = evaluation
        .importance
        .iter()
        .take(8)
        .map(|importance| format!("{} {:.3}", importance.input, importance.loss))
        .collect();
    if !matters.is_empty() {
        text += &format!("loss of macro F1 where an input is shuffled: {}\n", matters.join(", "));
    }
    text
}

/// Mean and sample standard deviation.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / values.len().saturating_sub(1).max(1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_textbook() {
        // scikit-learn 1.9: f1_score(average="macro") 0.80556, matthews_corrcoef 0.57895
        let actual = [0, 0, 0, 0, 1, 1, 1, 2];
        let predicted = [0, 0, 0, 1, 1, 1, 0, 2];
        let confusion = confusion(&actual, &predicted, 3);
        assert_eq!(confusion, [[3, 1, 0], [1, 2, 0], [0, 0, 1]]);
        assert_eq!(PerClass::new(0, &confusion).precision(), Some(0.75));
        assert_eq!(PerClass::new(1, &confusion).recall(), Some(2.0 / 3.0));
        assert!((macro_f1(&actual, &predicted, 3) - (0.75 + 2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
        assert!((mcc(&confusion) - 0.578_947_368_421).abs() < 1e-9);
    }

    #[test]
    fn a_class_without_rows_is_not_scored() {
        let confusion = confusion(&[0, 0], &[0, 1], 3);
        assert_eq!(PerClass::new(2, &confusion).f1(), None);
        assert_eq!(PerClass::new(1, &confusion).recall(), None);
        assert_eq!(PerClass::new(1, &confusion).precision(), Some(0.0));
        assert!((macro_f1(&[0, 0], &[0, 1], 3) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(mcc(&confusion), 0.0);
    }

    #[test]
    fn the_area_is_scikit_learns_average_precision() {
        // average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) = 0.8333...
        let shares = [0.9, 0.1, 0.6, 0.4, 0.65, 0.35, 0.2, 0.8];
        let area = average_precision(&curve(&shares, &[0, 0, 1, 1], 2, 1)).unwrap();
        assert!((area - 5.0 / 6.0).abs() < 1e-12, "{area}");
        // Equal shares are one point: average_precision_score([1, 0, 1], [0.5, 0.5, 0.5]) = 0.6667
        let area = average_precision(&curve(&[0.5; 6], &[1, 0, 1], 2, 1)).unwrap();
        assert!((area - 2.0 / 3.0).abs() < 1e-12, "{area}");
        assert_eq!(average_precision(&curve(&[0.5; 2], &[0], 2, 1)), None);
    }
}
