//! The report with plots: one HTML file of tables and inline SVG, without script and without network.

use std::fmt::{Result, Write as _};

use model::{Evaluation, Model};

use super::{capitalized, number};
use crate::evaluate::Judged;
use crate::evaluate::calibrate::{Bin, reliability};
use crate::evaluate::score::{ALARM, Point, curve, mean_and_deviation, out_of_bag_in_words};
use crate::set::{LabelledSet, winners};

/// Side of a plot's drawing area in SVG units.
const SIDE: f64 = 200.0;
/// Inputs that the importance plot shows.
const INPUTS: usize = 20;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;\
color:#1c2733;background:#fff}h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{padding:.2rem .6rem;border-bottom:1px solid #dde3ea;text-align:right}\
td:first-child,th:first-child{text-align:left}.plots{display:flex;flex-wrap:wrap;gap:1rem}\
figure{margin:0}figcaption{font-size:.85rem;text-align:center}.wide{overflow-x:auto}\
.matrix th{font-weight:500;font-size:.8rem}.hash{font-family:monospace;font-size:.85rem;word-break:break-all}\
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
    writeln!(page, "<h2 id=\"pr\">Precision over recall</h2><div class=\"plots\">")?;
    for (k, class) in evaluation.classes.iter().enumerate().filter(|(_, class)| class.rows > 0) {
        let points = curve(&judged.shares, &actual, classes, k);
        let caption = format!("{}, area {}", escape(&class.name), number(class.pr_auc));
        plot(page, "pr-curve", &caption, "recall", "precision", &steps(&points))?;
    }
    writeln!(page, "</div><h2 id=\"reliability\">Reliability</h2><div class=\"plots\">")?;
    let bins = reliability(&judged.shares, &actual, &winners(&judged.shares, classes), classes);
    let caption = format!("expected calibration error {:.3}", evaluation.ece);
    plot(
        page,
        "reliability-plot",
        &caption,
        "probability of the winner",
        "share that was right",
        &bars(&bins),
    )?;
    writeln!(page, "</div>")?;
    importance(page, evaluation)
}

fn comparison(page: &mut String, evaluation: &Evaluation) -> Result {
    writeln!(page, "<h2 id=\"scores\">Beside simpler models</h2>")?;
    writeln!(page, "<table><tr><th>model</th><th>macro F1</th><th>MCC</th></tr>")?;
    let mut row = |name: &str, macro_f1: f64, mcc: f64| {
        writeln!(page, "<tr><td>{}</td><td>{macro_f1:.3}</td><td>{mcc:.3}</td></tr>", escape(name))
    };
    row("this model", evaluation.macro_f1, evaluation.mcc)?;
    for baseline in &evaluation.baselines {
        row(&baseline.name, baseline.macro_f1, baseline.mcc)?;
    }
    writeln!(page, "</table>")?;
    if !evaluation.folds.is_empty() {
        let (mean, deviation) = mean_and_deviation(&evaluation.folds);
        let folds = evaluation.folds.len();
        writeln!(
            page,
            "<p>Macro F1 over {folds} folds of the other recordings: {mean:.3} &plusmn; {deviation:.3}.</p>"
        )?;
    }
    if let Some(score) = &evaluation.out_of_bag {
        writeln!(page, "<p>{}.</p>", capitalized(&out_of_bag_in_words(score)))?;
    }
    if let Some(targets) = &evaluation.targets {
        let (verdicts, macro_f1) = (targets.verdicts, targets.macro_f1);
        writeln!(
            page,
            "<p>Macro F1 of {verdicts} verdicts on a server and window (mean of its rows): {macro_f1:.3}.</p>"
        )?;
    }
    match evaluation.false_alarms_per_hour {
        None => Ok(()),
        Some(alarms) => {
            writeln!(
                page,
                "<p>{alarms:.1} false alarms per hour of normal windows, at a probability of {ALARM}.</p>"
            )
        }
    }
}

fn per_class(page: &mut String, evaluation: &Evaluation) -> Result {
    writeln!(
        page,
        "<h2 id=\"classes\">Per class</h2><table><tr><th>class</th><th>precision</th><th>recall</th><th>F1</th>\
         <th>PR-AUC</th><th>rows</th><th>recordings</th></tr>"
    )?;
    for class in &evaluation.classes {
        let values = [class.precision, class.recall, class.f1, class.pr_auc].map(number).join("</td><td>");
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

/// Both axes from 0 to 1; `marks` is what is drawn inside.
fn plot(page: &mut String, kind: &str, caption: &str, x: &str, y: &str, marks: &str) -> Result {
    let (left, top) = (36.0, 10.0);
    writeln!(
        page,
        "<figure><svg class=\"{kind}\" role=\"img\" aria-label=\"{caption}\" viewBox=\"0 0 {} {}\" width=\"270\">\
         <g transform=\"translate({left},{top})\"><path d=\"M0 0V{SIDE}H{SIDE}\" fill=\"none\" stroke=\"#8794a1\"/>\
         {marks}<text x=\"-6\" y=\"4\" text-anchor=\"end\">1</text><text x=\"-6\" y=\"{SIDE}\" text-anchor=\"end\">0</text>\
         <text x=\"{SIDE}\" y=\"{}\" text-anchor=\"end\">1</text><text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{x}</text>\
         <text x=\"-{}\" y=\"-10\" transform=\"rotate(-90)\" text-anchor=\"middle\">{y}</text></g></svg>\
         <figcaption>{caption}</figcaption></figure>",
        SIDE + 60.0,
        SIDE + 40.0,
        SIDE + 14.0,
        SIDE / 2.0,
        SIDE + 26.0,
        SIDE / 2.0
    )
}

/// A curve of steps: precision holds back to the recall before.
fn steps(points: &[Point]) -> String {
    let mut path = String::new();
    let mut last = 0.0;
    for (number, point) in points.iter().enumerate() {
        let (x, y) = (point.recall * SIDE, (1.0 - point.precision) * SIDE);
        let _ = if number == 0 { write!(path, "M{last:.1} {y:.1}") } else { write!(path, "V{y:.1}") };
        let _ = write!(path, "H{x:.1}");
        last = x;
    }
    format!("<path d=\"{path}\" fill=\"none\" stroke=\"#1f61ab\" stroke-width=\"2\"/>")
}

fn bars(bins: &[Bin]) -> String {
    let mut marks = format!("<path d=\"M0 {SIDE}L{SIDE} 0\" stroke=\"#c3ccd5\" stroke-dasharray=\"4 3\"/>");
    let width = SIDE / bins.len() as f64;
    for (number, bin) in bins.iter().enumerate().filter(|(_, bin)| bin.rows > 0) {
        let height = bin.accuracy * SIDE;
        let _ = write!(
            marks,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#1f61ab\" fill-opacity=\".6\">\
             <title>{} rows, confidence {:.3}, right {:.3}</title></rect>",
            number as f64 * width,
            SIDE - height,
            width - 1.0,
            bin.rows,
            bin.confidence,
            bin.accuracy
        );
    }
    marks
}

fn importance(page: &mut String, evaluation: &Evaluation) -> Result {
    let shown = &evaluation.importance[..evaluation.importance.len().min(INPUTS)];
    let Some(most) = shown.first() else { return Ok(()) };
    writeln!(
        page,
        "<h2 id=\"importance\">What matters</h2><p>Loss of macro F1 where an input's values are shuffled among the \
         held-out rows.</p><svg class=\"importance-plot\" role=\"img\" aria-label=\"importance\" \
         viewBox=\"0 0 620 {}\" width=\"620\">",
        shown.len() * 20 + 4
    )?;
    for (number, importance) in shown.iter().enumerate() {
        let (y, width) = (number * 20 + 2, importance.loss / most.loss * 330.0);
        write!(
            page,
            "<text x=\"200\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"206\" y=\"{y}\" width=\"{width:.1}\" \
             height=\"15\" fill=\"#1f61ab\"/><text x=\"{:.1}\" y=\"{}\">{:.4}</text>",
            y + 12,
            escape(&importance.input),
            212.0 + width,
            y + 12,
            importance.loss
        )?;
    }
    writeln!(page, "</svg>")
}

/// What the training rows looked like: where live rows differ from it, the model is out of its depth.
fn drift(page: &mut String, model: &Model) -> Result {
    writeln!(
        page,
        "<h2 id=\"drift\">Training distribution</h2><p>The baseline against which drift is measured.</p><div \
         class=\"wide\"><table><tr><th>input</th><th>usual</th><th>minimum</th><th>5 %</th><th>median</th><th>95 %</th>\
         <th>maximum</th><th>not measured</th></tr>"
    )?;
    for (input, profile) in model.inputs().iter().zip(model.profile()) {
        let value = |value: f32| if value.is_nan() { "-".to_owned() } else { format!("{value}") };
        let quantiles = [0, 1, 10, 19, 20].map(|at| value(profile.quantiles[at])).join("</td><td>");
        writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{quantiles}</td><td>{:.1} %</td></tr>",
            escape(&input.name),
            value(profile.usual),
            f64::from(profile.missing) * 100.0
        )?;
    }
    writeln!(page, "</table></div>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
