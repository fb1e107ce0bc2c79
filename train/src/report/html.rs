//! The report with plots: one HTML file of tables and inline SVG, without script and without network.

use std::fmt::{Result, Write as _};

use model::{Evaluation, Model, QUANTILES};

use super::{capitalized, number, plot};
use crate::data::runs::KEYS;
use crate::evaluate::Judged;
use crate::evaluate::calibrate::reliability;
use crate::evaluate::score::{
    ALARM, SEVERITY, curve, mean_and_deviation, out_of_bag_in_words, recall_at, values_of,
};
use crate::set::{LabelledSet, winners};

/// Inputs that the plots of inputs show.
const INPUTS: usize = 20;
/// Minimum, 5 %, median, 95 % and maximum among the quantiles of a profile.
const SHOWN_QUANTILES: [usize; 5] = [0, 1, 10, 19, 20];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;\
color:#1c2733;background:#fff}h1{font-size:1.7rem;margin-bottom:.2rem}\
h2{font-size:1.2rem;margin-top:2.4rem;padding-top:.6rem;border-top:1px solid #dde3ea}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{padding:.2rem .6rem;border-bottom:1px solid #e6ebf0;text-align:right}\
td:first-child,th:first-child{text-align:left;white-space:nowrap}.plots{display:flex;flex-wrap:wrap;gap:1rem}\
figure{margin:0}figcaption{font-size:.85rem;text-align:center}.wide{overflow-x:auto}\
.matrix td{border:1px solid #fff;text-align:center;min-width:2.6rem}.matrix td:first-child{text-align:right}\
.matrix th{font-weight:500;font-size:.8rem;vertical-align:bottom}\
.hash{font-family:monospace;font-size:.8rem;color:#6b7785;word-break:break-all}\
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}\
.tile{border:1px solid #dde3ea;border-radius:.5rem;padding:.6rem 1rem;max-width:13rem}\
.tile b{display:block;font-size:1.6rem;font-weight:600;color:#1f61ab}.tile span{font-size:.82rem;color:#46535f}\
details{margin:.4rem 0}summary{cursor:pointer;color:#46535f}\
svg{max-width:100%}svg text{font:11px system-ui,sans-serif;fill:#46535f}";

/// The report of the model in the file of that name.
pub fn html(name: &str, model: &Model, set: &LabelledSet, judged: Option<&Judged>) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, name, model, set, judged);
    page
}

fn write(page: &mut String, name: &str, model: &Model, set: &LabelledSet, judged: Option<&Judged>) -> Result {
    let name = escape(name);
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{name}</title><style>{STYLE}</style></head><body>\n<h1>{name}</h1>\n"
    )?;
    writeln!(
        page,
        "<p>A {} of {} trees over {} inputs per flow and window of {} s.<br><span class=\"hash\">SHA-256 {}</span></p>",
        model.meta().kind.name().replace('-', " "),
        model.forest().trees(),
        model.inputs().len(),
        model.meta().window_ns as f64 / 1e9,
        model.hash()
    )?;
    match judged {
        None => writeln!(page, "<p>Not judged: no recording could be held out.</p>")?,
        Some(judged) => scores(page, set, judged)?,
    }
    drift(page, model)?;
    writeln!(page, "</body></html>")
}

fn scores(page: &mut String, set: &LabelledSet, judged: &Judged) -> Result {
    let evaluation = &judged.evaluation;
    let classes = set.classes.len();
    let actual = set.classes_of(&judged.held_out);
    writeln!(
        page,
        "<p>Scores on recordings that the judged model had not seen: {}.</p>",
        escape(&evaluation.split)
    )?;
    comparison(page, evaluation)?;
    per_class(page, evaluation)?;
    matrix(page, evaluation)?;
    by_run(page, evaluation)?;
    writeln!(page, "<h2 id=\"pr\">Precision over recall</h2><div class=\"plots\">")?;
    for (k, class) in evaluation.classes.iter().enumerate().filter(|(_, class)| class.rows > 0) {
        let points = curve(&judged.shares, &actual, classes, k);
        let caption = format!("{}, area {}", escape(&class.name), number(class.pr_auc));
        let share = class.rows as f64 / evaluation.rows.max(1) as f64;
        page.push_str(&plot::precision_recall(&caption, &points, share));
    }
    writeln!(page, "</div><h2 id=\"reliability\">Reliability</h2><div class=\"plots\">")?;
    let bins = reliability(&judged.shares, &actual, &winners(&judged.shares, classes), classes);
    let caption = format!("expected calibration error {:.3}", evaluation.ece);
    page.push_str(&plot::reliability(&caption, &bins));
    writeln!(page, "</div>")?;
    importance(page, evaluation)
}

/// The figures that people look for first.
fn tiles(page: &mut String, evaluation: &Evaluation) -> Result {
    let mut tile = |value: String, name: &str| {
        writeln!(page, "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>")
    };
    tile(format!("{:.3}", evaluation.macro_f1), "macro F1 of rows")?;
    if let Some(targets) = &evaluation.targets {
        tile(format!("{:.3}", targets.macro_f1), "macro F1 of verdicts on a server and window")?;
    }
    tile(format!("{:.3}", evaluation.mcc), "Matthews correlation")?;
    tile(format!("{:.3}", evaluation.ece), "calibration error")?;
    if let Some(alarms) = evaluation.false_alarms_per_hour {
        tile(format!("{alarms:.1}"), &format!("false alarms per hour at a probability of {ALARM}"))?;
    }
    Ok(())
}

fn comparison(page: &mut String, evaluation: &Evaluation) -> Result {
    writeln!(page, "<div class=\"tiles\">")?;
    tiles(page, evaluation)?;
    writeln!(page, "</div><h2 id=\"scores\">Beside simpler models</h2><p>Macro F1 on the same rows.</p>")?;
    let mut rows = vec![("this model", evaluation.macro_f1)];
    rows.extend(evaluation.baselines.iter().map(|baseline| (baseline.name.as_str(), baseline.macro_f1)));
    page.push_str(&plot::bars("baseline-plot", "macro F1 beside simpler models", &rows, 1.0, 3));
    if !evaluation.folds.is_empty() {
        let (mean, deviation) = mean_and_deviation(&evaluation.folds);
        let folds = evaluation.folds.len();
        writeln!(
            page,
            "<p>Macro F1 over {folds} folds of the other recordings: {mean:.3} &plusmn; {deviation:.3}.</p>"
        )?;
    }
    match &evaluation.out_of_bag {
        None => Ok(()),
        Some(score) => writeln!(page, "<p>{}.</p>", capitalized(&out_of_bag_in_words(score))),
    }
}

fn per_class(page: &mut String, evaluation: &Evaluation) -> Result {
    writeln!(
        page,
        "<h2 id=\"classes\">Per class</h2><table><tr><th>class</th><th>precision</th><th>recall</th><th>F1</th>\
         <th>PR-AUC</th><th>F1 of verdicts</th><th>rows</th><th>recordings</th></tr>"
    )?;
    for (k, class) in evaluation.classes.iter().enumerate() {
        let verdicts = evaluation.targets.as_ref().and_then(|targets| *targets.f1.get(k)?);
        let values =
            [class.precision, class.recall, class.f1, class.pr_auc, verdicts].map(number).join("</td><td>");
        let (name, rows, groups) = (escape(&class.name), class.rows, class.groups);
        writeln!(page, "<tr><td>{name}</td><td>{values}</td><td>{rows}</td><td>{groups}</td></tr>")?;
    }
    writeln!(page, "</table>")
}

/// Each row shaded by the share of its own class.
fn matrix(page: &mut String, evaluation: &Evaluation) -> Result {
    writeln!(
        page,
        "<h2 id=\"confusion\">Confusion matrix</h2><p>Rows are what it was, columns what was predicted.</p>\
         <div class=\"wide\"><table class=\"matrix\"><tr><th></th>"
    )?;
    for class in &evaluation.classes {
        write!(page, "<th>{}</th>", escape(&class.name))?;
    }
    writeln!(page, "</tr>")?;
    for (class, row) in evaluation.classes.iter().zip(&evaluation.confusion) {
        write!(page, "<tr><td>{}</td>", escape(&class.name))?;
        for count in row {
            let share = *count as f64 / class.rows.max(1) as f64;
            let ink = if share > 0.5 { "#fff" } else { "#1c2733" };
            write!(page, "<td style=\"background:rgba(31,97,171,{share:.2});color:{ink}\">{count}</td>")?;
        }
        writeln!(page, "</tr>")?;
    }
    writeln!(page, "</table></div>")
}

/// How much of every class is found in runs of each severity, and in those that differ otherwise.
fn by_run(page: &mut String, evaluation: &Evaluation) -> Result {
    for key in KEYS {
        let values = values_of(&evaluation.runs, key);
        if values.is_empty() || values.len() < 2 && key != SEVERITY {
            continue;
        }
        let judged = evaluation.classes.iter().filter(|class| class.rows > 0);
        let recalls = |label: u16| {
            values.iter().map(|value| recall_at(evaluation, label, key, value)).collect::<Vec<_>>()
        };
        let classes: Vec<plot::Shaded<'_>> =
            judged.map(|class| (class.name.as_str(), recalls(class.label))).collect();
        writeln!(page, "<h2 id=\"{key}\">Recall by {key} of the run</h2>")?;
        let kind = if key == SEVERITY { "severity-plot" } else { "run-plot" };
        // More values than shades are told as numbers.
        if values.len() <= plot::SHADES.len() {
            page.push_str(&plot::dots(kind, &format!("recall by {key}"), &values, &classes));
        }
        recall_table(page, &values, &classes)?;
    }
    Ok(())
}

fn recall_table(page: &mut String, values: &[&str], classes: &[plot::Shaded<'_>]) -> Result {
    let heads: String = values.iter().map(|value| format!("<th>{}</th>", escape(value))).collect();
    writeln!(
        page,
        "<details><summary>as numbers</summary><div class=\"wide\"><table><tr><th>class</th>{heads}</tr>"
    )?;
    for (name, recalls) in classes {
        let cells: String = recalls.iter().map(|recall| format!("<td>{}</td>", number(*recall))).collect();
        writeln!(page, "<tr><td>{}</td>{cells}</tr>", escape(name))?;
    }
    writeln!(page, "</table></div></details>")
}

fn importance(page: &mut String, evaluation: &Evaluation) -> Result {
    let shown = &evaluation.importance[..evaluation.importance.len().min(INPUTS)];
    let Some(most) = shown.first() else { return Ok(()) };
    writeln!(
        page,
        "<h2 id=\"importance\">What matters</h2><p>Loss of macro F1 where an input's values are shuffled among the \
         held-out rows.</p>"
    )?;
    let rows: Vec<(&str, f64)> =
        shown.iter().map(|importance| (importance.input.as_str(), importance.loss)).collect();
    page.push_str(&plot::bars("importance-plot", "importance", &rows, most.loss, 4));
    Ok(())
}

/// What the training rows looked like: where live rows differ from it, the model is out of its depth.
fn drift(page: &mut String, model: &Model) -> Result {
    writeln!(
        page,
        "<h2 id=\"drift\">Training distribution</h2><p>The baseline against which drift is measured: for each input \
         the range, the middle nine tenths, the median and, as a dot, what is usual without a fault. Every line has its \
         own scale.</p>"
    )?;
    let mut spreads: Vec<plot::Spread<'_>> = Vec::new();
    for name in drift_inputs(model) {
        let at = model.inputs().iter().position(|input| input.name == name);
        let Some((input, profile)) = at.map(|at| (&model.inputs()[at], &model.profile()[at])) else {
            continue;
        };
        if profile.quantiles[0] < profile.quantiles[QUANTILES - 1] {
            let quantiles = SHOWN_QUANTILES.map(|at| profile.quantiles[at]);
            spreads.push(plot::Spread { name: &input.name, quantiles, usual: profile.usual });
        }
    }
    page.push_str(&plot::spreads("drift-plot", "training distribution", &spreads));
    writeln!(
        page,
        "<details><summary>all inputs as numbers</summary><div class=\"wide\"><table><tr><th>input</th><th>usual</th>\
         <th>minimum</th><th>5 %</th><th>median</th><th>95 %</th><th>maximum</th><th>not measured</th></tr>"
    )?;
    for (input, profile) in model.inputs().iter().zip(model.profile()) {
        let value = |value: f32| if value.is_nan() { "-".to_owned() } else { format!("{value}") };
        let quantiles = SHOWN_QUANTILES.map(|at| value(profile.quantiles[at])).join("</td><td>");
        writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{quantiles}</td><td>{:.1} %</td></tr>",
            escape(&input.name),
            value(profile.usual),
            f64::from(profile.missing) * 100.0
        )?;
    }
    writeln!(page, "</table></div></details>")
}

/// The inputs that the drift plot shows: those that matter most, or the first that the model looks at.
fn drift_inputs(model: &Model) -> Vec<&str> {
    let important = model.meta().evaluation.iter().flat_map(|evaluation| &evaluation.importance);
    let mut names: Vec<&str> = important.map(|importance| importance.input.as_str()).take(INPUTS).collect();
    if names.is_empty() {
        let inputs = model.inputs().iter().enumerate();
        names = inputs
            .filter(|(at, _)| model.forest().uses(*at))
            .map(|(_, input)| input.name.as_str())
            .take(INPUTS)
            .collect();
    }
    names
}

/// Text as it stands between tags or in an attribute.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
