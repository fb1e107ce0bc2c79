//! How well predictions fit: confusion matrix and what follows from it.

use model::{ClassInfo, ClassScore, Evaluation};

/// Scores of predictions by class index. `groups_of` counts the held-out groups of each class.
pub fn score(
    classes: &[ClassInfo],
    actual: &[u8],
    predicted: &[u8],
    groups_of: &[u64],
    groups: usize,
    split: String,
) -> Evaluation {
    let mut confusion = vec![vec![0u64; classes.len()]; classes.len()];
    for (actual, predicted) in actual.iter().zip(predicted) {
        confusion[usize::from(*actual)][usize::from(*predicted)] += 1;
    }
    let scores: Vec<ClassScore> =
        classes.iter().enumerate().map(|(k, class)| of_class(class, k, &confusion, groups_of[k])).collect();
    let judged: Vec<f64> = scores.iter().filter_map(|score| score.f1).collect();
    let right: u64 = (0..classes.len()).map(|k| confusion[k][k]).sum();
    Evaluation {
        split,
        rows: actual.len() as u64,
        groups: groups as u64,
        accuracy: right as f64 / actual.len().max(1) as f64,
        macro_f1: judged.iter().sum::<f64>() / judged.len().max(1) as f64,
        mcc: mcc(&confusion),
        classes: scores,
        confusion,
    }
}

fn of_class(class: &ClassInfo, k: usize, confusion: &[Vec<u64>], groups: u64) -> ClassScore {
    let hits = confusion[k][k] as f64;
    let rows: u64 = confusion[k].iter().sum();
    let predicted: u64 = confusion.iter().map(|row| row[k]).sum();
    let precision = (predicted > 0).then(|| hits / predicted as f64);
    let recall = (rows > 0).then(|| hits / rows as f64);
    // 2 TP / (2 TP + FP + FN): defined wherever the class has rows.
    let f1 = (rows > 0).then(|| 2.0 * hits / (predicted + rows) as f64);
    ClassScore { label: class.label, name: class.name.clone(), rows, groups, precision, recall, f1 }
}

/// Matthews' correlation for many classes (Gorodkin 2004), 0 where it is not defined.
fn mcc(confusion: &[Vec<u64>]) -> f64 {
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
        "{:width$}  {:>9}  {:>6}  {:>6}  {:>8}  {:>6}\n",
        "class", "precision", "recall", "F1", "rows", "groups"
    );
    for class in &evaluation.classes {
        text += &format!(
            "{:width$}  {:>9}  {:>6}  {:>6}  {:>8}  {:>6}\n",
            class.name,
            number(class.precision),
            number(class.recall),
            number(class.f1),
            class.rows,
            class.groups
        );
    }
    text += &format!(
        "macro F1 {:.3}, accuracy {:.3}, MCC {:.3}\n\nconfusion matrix: rows are what it was, columns what was predicted\n",
        evaluation.macro_f1, evaluation.accuracy, evaluation.mcc
    );
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

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(count: u16) -> Vec<ClassInfo> {
        (0..count).map(|label| ClassInfo { label, name: label.to_string(), rows: 0, groups: 0 }).collect()
    }

    #[test]
    fn scores_are_those_of_the_textbook() {
        // scikit-learn 1.9: f1_score(average="macro") 0.80556, matthews_corrcoef 0.57895
        let actual = [0, 0, 0, 0, 1, 1, 1, 2];
        let predicted = [0, 0, 0, 1, 1, 1, 0, 2];
        let found = score(&classes(3), &actual, &predicted, &[2, 1, 1], 2, String::new());
        assert_eq!(found.confusion, [[3, 1, 0], [1, 2, 0], [0, 0, 1]]);
        assert_eq!(found.classes[0].precision, Some(0.75));
        assert_eq!(found.classes[1].recall, Some(2.0 / 3.0));
        assert!((found.macro_f1 - (0.75 + 2.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
        assert_eq!(found.accuracy, 0.75);
        assert!((found.mcc - 0.578_947_368_421).abs() < 1e-9, "{}", found.mcc);
    }

    #[test]
    fn a_class_without_rows_is_not_scored() {
        let found = score(&classes(3), &[0, 0], &[0, 1], &[1, 0, 0], 1, String::new());
        assert_eq!(found.classes[2].f1, None);
        assert_eq!(found.classes[1].recall, None);
        assert_eq!(found.classes[1].precision, Some(0.0));
        assert!((found.macro_f1 - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(found.mcc, 0.0);
        let table = table(&found);
        assert!(table.contains("macro F1 0.667") && table.contains(" - "), "{table}");
    }
}
