//! The model card: what the model is for, where it comes from, how good it is and where it fails.

use std::fmt::Write as _;

use features::schema::{self, Input};
use model::{Evaluation, Model};

use super::{capitalized, number};
use crate::data::runs::KEYS;
use crate::evaluate::score::{
    ALARM, SEVERITY, mean_and_deviation, out_of_bag_in_words, recall_at, values_of,
};

/// Below this F1 a class is named as one that the model does not know well.
const WEAK: f64 = 0.8;

/// The card of the model in the file of that name. No clock and no path: the same model has the same card.
pub fn card(name: &str, model: &Model) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = head(&mut text, name, model);
    let _ = data(&mut text, model);
    match &model.meta().evaluation {
        None => {
            text += "\n## Scores\n\nNot judged: no recording could be held out. Its quality is unknown.\n"
        }
        Some(evaluation) => {
            let _ = scores(&mut text, evaluation);
            let _ = weaknesses(&mut text, evaluation);
        }
    }
    text
}

fn head(text: &mut String, name: &str, model: &Model) -> std::fmt::Result {
    let meta = model.meta();
    let forest = model.forest();
    writeln!(text, "# {name}\n")?;
    writeln!(
        text,
        "A {} that tells {} classes apart, from {} inputs per flow and window of {} s. It is made for \
         Faultline's `infer`.\n",
        meta.kind.name().replace('-', " "),
        meta.classes.len(),
        meta.inputs.len(),
        meta.window_ns as f64 / 1e9
    )?;
    writeln!(text, "| | |\n|---|---|")?;
    writeln!(text, "| SHA-256 | `{}` |", model.hash())?;
    writeln!(text, "| schema | `{}` |", meta.schema)?;
    writeln!(
        text,
        "| size | {} trees, depth {}, {} bytes |",
        forest.trees(),
        forest.depth(),
        model.to_bytes().len()
    )?;
    writeln!(text, "| trained by | train {}, seed {} |", meta.training.version, meta.training.seed)?;
    writeln!(text, "| random numbers | {} |", meta.training.rng)?;
    let settings: Vec<String> =
        meta.training.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    writeln!(text, "| settings | {} |", settings.join(", "))
}

fn data(text: &mut String, model: &Model) -> std::fmt::Result {
    let meta = model.meta();
    writeln!(text, "\n## Data\n\n| label | class | rows | recordings |\n|---|---|---|---|")?;
    for class in &meta.classes {
        writeln!(text, "| {} | {} | {} | {} |", class.label, class.name, class.rows, class.groups)?;
    }
    writeln!(text, "\n| file | rows | SHA-256 |\n|---|---|---|")?;
    for file in &meta.training.data {
        writeln!(text, "| {} | {} | `{}` |", file.name, file.rows, file.sha256)?;
    }
    let never = schema::COLUMNS.iter().filter(|column| column.input == Input::Never);
    let never: Vec<&str> = never.map(|column| column.name).collect();
    writeln!(
        text,
        "\nNever an input, because they identify a recording or are free text: {}.",
        never.join(", ")
    )
}

fn scores(text: &mut String, evaluation: &Evaluation) -> std::fmt::Result {
    writeln!(
        text,
        "\n## Scores\n\nOn recordings that the judged model had not seen: {}.\n",
        evaluation.split
    )?;
    writeln!(
        text,
        "| class | precision | recall | F1 | PR-AUC | F1 of verdicts | rows | recordings |\n\
         |---|---|---|---|---|---|---|---|"
    )?;
    for (k, class) in evaluation.classes.iter().enumerate() {
        let verdicts = evaluation.targets.as_ref().and_then(|targets| *targets.f1.get(k)?);
        let values = [class.precision, class.recall, class.f1, class.pr_auc, verdicts].map(number);
        writeln!(text, "| {} | {} | {} | {} |", class.name, values.join(" | "), class.rows, class.groups)?;
    }
    runs(text, evaluation)?;
    writeln!(text, "\n| | macro F1 | MCC | macro F1 of verdicts |\n|---|---|---|---|")?;
    let verdicts = evaluation.targets.as_ref().map(|targets| targets.macro_f1);
    let (macro_f1, mcc) = (evaluation.macro_f1, evaluation.mcc);
    writeln!(text, "| this model | {macro_f1:.3} | {mcc:.3} | {} |", number(verdicts))?;
    for baseline in &evaluation.baselines {
        let (name, macro_f1, mcc) = (&baseline.name, baseline.macro_f1, baseline.mcc);
        writeln!(text, "| {name} | {macro_f1:.3} | {mcc:.3} | {} |", number(baseline.verdicts_macro_f1))?;
    }
    writeln!(text, "\nCalibration error {:.3}.", evaluation.ece)?;
    if let Some(alarms) = evaluation.false_alarms_per_hour {
        writeln!(text, "{alarms:.1} false alarms per hour of normal windows, at a probability of {ALARM}.")?;
    }
    if let Some(targets) = &evaluation.targets {
        let (verdicts, macro_f1) = (targets.verdicts, targets.macro_f1);
        writeln!(
            text,
            "Macro F1 of {verdicts} verdicts on a server and window, by the rule that `infer` goes by: {macro_f1:.3}; \
             {} false alarms per hour.",
            number(targets.false_alarms_per_hour)
        )?;
    }
    if let Some(score) = &evaluation.out_of_bag {
        writeln!(text, "{}.", capitalized(&out_of_bag_in_words(score)))?;
    }
    if !evaluation.folds.is_empty() {
        let (mean, deviation) = mean_and_deviation(&evaluation.folds);
        let folds = evaluation.folds.len();
        writeln!(
            text,
            "Macro F1 over {folds} folds of the other recordings: {mean:.3}, standard deviation {deviation:.3}."
        )?;
    }
    Ok(())
}

/// Recall by how the runs were made: a table for each thing that is known of them and that differs.
fn runs(text: &mut String, evaluation: &Evaluation) -> std::fmt::Result {
    for key in KEYS {
        let values = values_of(&evaluation.runs, key);
        if values.len() < 2 && key != SEVERITY || values.is_empty() {
            continue;
        }
        writeln!(text, "\nRecall by {key} of the run:\n\n| class | {} |", values.join(" | "))?;
        writeln!(text, "|---|{}", "---|".repeat(values.len()))?;
        for class in evaluation.classes.iter().filter(|class| class.rows > 0) {
            let cell = |value: &&str| number(recall_at(evaluation, class.label, key, value));
            let cells: Vec<String> = values.iter().map(cell).collect();
            writeln!(text, "| {} | {} |", class.name, cells.join(" | "))?;
        }
    }
    Ok(())
}

fn weaknesses(text: &mut String, evaluation: &Evaluation) -> std::fmt::Result {
    writeln!(text, "\n## Known failures\n")?;
    let mut none = true;
    for (k, class) in evaluation.classes.iter().enumerate() {
        let taken_for =
            evaluation.confusion[k].iter().enumerate().filter(|(other, rows)| *other != k && **rows > 0);
        let most = taken_for.max_by_key(|(other, rows)| (**rows, std::cmp::Reverse(*other)));
        match class.f1 {
            None => writeln!(text, "- {}: no held-out recording shows it, so nothing is known.", class.name)?,
            Some(f1) if f1 < WEAK => {
                write!(text, "- {}: F1 {f1:.3}", class.name)?;
                if let Some((other, rows)) = most {
                    let name = &evaluation.classes[other].name;
                    write!(text, "; most often taken for {name} ({rows} of {} rows)", class.rows)?;
                }
                writeln!(text, ".")?;
            }
            Some(_) => continue,
        }
        none = false;
    }
    if none {
        writeln!(
            text,
            "No class has an F1 below {WEAK} on the held-out recordings; other workloads may differ."
        )?;
    }
    Ok(())
}
