//! The report's plots as inline SVG: no script, no font and no file of elsewhere.

use std::fmt::Write as _;

use super::html::escape;
use crate::evaluate::calibrate::Bin;
use crate::evaluate::score::Point;

/// Side of a square plot's drawing area in SVG units.
const SIDE: f64 = 200.0;
/// Width of the names beside a row of bars, and of the longest bar.
const NAMES: f64 = 210.0;
const LONGEST: f64 = 340.0;
/// Height of one row of a plot with names.
const ROW: usize = 22;
const INK: &str = "#1f61ab";
/// From the mildest severity to the hardest.
pub const SHADES: [&str; 4] = ["#9cc3e8", "#4f8fce", "#1f4f8a", "#6b7785"];

/// A plot whose axes go from 0 to 1; `marks` is what is drawn inside.
fn square(kind: &str, caption: &str, x: &str, y: &str, marks: &str) -> String {
    let (wide, high, middle) = (SIDE + 60.0, SIDE + 40.0, SIDE / 2.0);
    let mut grid = String::new();
    for part in 1..=4 {
        let at = SIDE - f64::from(part) * SIDE / 4.0;
        let _ = write!(grid, "M0 {at}H{SIDE}");
    }
    format!(
        "<figure><svg class=\"{kind}\" role=\"img\" aria-label=\"{caption}\" viewBox=\"0 0 {wide} {high}\" width=\"270\">\
         <g transform=\"translate(36,10)\"><path d=\"{grid}\" stroke=\"#eef1f5\"/>\
         <path d=\"M0 0V{SIDE}H{SIDE}\" fill=\"none\" stroke=\"#8794a1\"/>{marks}\
         <text x=\"-6\" y=\"4\" text-anchor=\"end\">1</text><text x=\"-6\" y=\"{SIDE}\" text-anchor=\"end\">0</text>\
         <text x=\"{SIDE}\" y=\"{}\" text-anchor=\"end\">1</text>\
         <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{x}</text>\
         <text x=\"-{middle}\" y=\"-10\" transform=\"rotate(-90)\" text-anchor=\"middle\">{y}</text></g></svg>\
         <figcaption>{caption}</figcaption></figure>\n",
        SIDE + 14.0,
        SIDE + 26.0,
    )
}

/// A precision-recall curve as steps: precision holds back to the recall before. `share` is the precision of
/// calling every row so, which is what a curve has to beat.
pub fn precision_recall(caption: &str, points: &[Point], share: f64) -> String {
    let mut path = String::new();
    let mut last = 0.0;
    for (number, point) in points.iter().enumerate() {
        let (x, y) = (point.recall * SIDE, (1.0 - point.precision) * SIDE);
        let _ = if number == 0 { write!(path, "M{last:.1} {y:.1}") } else { write!(path, "V{y:.1}") };
        let _ = write!(path, "H{x:.1}");
        last = x;
    }
    let base = (1.0 - share) * SIDE;
    let marks = format!(
        "<path d=\"M0 {base:.1}H{SIDE}\" stroke=\"#c3ccd5\" stroke-dasharray=\"4 3\"/>\
         <path d=\"{path}\" fill=\"none\" stroke=\"{INK}\" stroke-width=\"2\"/>"
    );
    square("pr-curve", caption, "recall", "precision", &marks)
}

/// How often the winner was right at each probability; the area of a dot grows with the rows behind it.
pub fn reliability(caption: &str, bins: &[Bin]) -> String {
    let mut marks = format!("<path d=\"M0 {SIDE}L{SIDE} 0\" stroke=\"#c3ccd5\" stroke-dasharray=\"4 3\"/>");
    let rows: u64 = bins.iter().map(|bin| bin.rows).sum();
    let filled: Vec<&Bin> = bins.iter().filter(|bin| bin.rows > 0).collect();
    let at = |bin: &Bin| (bin.confidence * SIDE, (1.0 - bin.accuracy) * SIDE);
    let line: Vec<String> = filled.iter().map(|bin| at(bin)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(
        marks,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{INK}\" stroke-opacity=\".5\"/>",
        line.join(" ")
    );
    for bin in filled {
        let (x, y) = at(bin);
        let radius = 2.5 + 9.0 * (bin.rows as f64 / rows as f64).sqrt();
        let _ = write!(
            marks,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{INK}\" fill-opacity=\".7\">\
             <title>{} rows, probability {:.3}, right {:.3}</title></circle>",
            bin.rows, bin.confidence, bin.accuracy
        );
    }
    square("reliability-plot", caption, "probability of the winner", "share that was right", &marks)
}

/// One bar per name; the longest stands for `most`.
pub fn bars(kind: &str, label: &str, rows: &[(&str, f64)], most: f64, digits: usize) -> String {
    let mut marks = String::new();
    for (number, (name, value)) in rows.iter().enumerate() {
        let (y, width) = (number * ROW + 2, (value.max(0.0) / most * LONGEST).min(LONGEST));
        let _ = write!(
            marks,
            "{}<rect x=\"{NAMES}\" y=\"{y}\" width=\"{width:.1}\" height=\"15\" fill=\"{INK}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{value:.digits$}</text>",
            name_at(name, y),
            NAMES + 6.0 + width,
            y + 12
        );
    }
    rows_of(kind, label, rows.len(), &marks)
}

/// One class's values, one per shade, absent where no row tells.
pub type Shaded<'a> = (&'a str, Vec<Option<f64>>);

/// For each class a dot per severity on a line from 0 to 1, and what each shade stands for.
pub fn dots(kind: &str, label: &str, shades: &[&str], classes: &[Shaded<'_>]) -> String {
    let at = |share: f64| NAMES + share * LONGEST;
    let mut marks = String::new();
    for (number, name) in shades.iter().enumerate() {
        let x = NAMES + number as f64 * 80.0;
        let _ = write!(
            marks,
            "<circle cx=\"{x}\" cy=\"9\" r=\"5\" fill=\"{}\"/><text x=\"{}\" y=\"13\">{}</text>",
            shade(number),
            x + 9.0,
            escape(name)
        );
    }
    for (number, (name, values)) in classes.iter().enumerate() {
        let y = (number + 1) * ROW + 2;
        let middle = y + 8;
        let _ = write!(
            marks,
            "{}<path d=\"M{NAMES} {middle}H{}\" stroke=\"#dde3ea\"/>",
            name_at(name, y),
            at(1.0)
        );
        // The mildest is drawn last, so that equal dots show the hardest finding.
        for (number, value) in values.iter().enumerate().rev() {
            let Some(value) = value else { continue };
            let _ = write!(
                marks,
                "<circle cx=\"{:.1}\" cy=\"{middle}\" r=\"5\" fill=\"{}\"><title>{}: {value:.3}</title></circle>",
                at(*value),
                shade(number),
                escape(shades[number])
            );
        }
    }
    let below = (classes.len() + 1) * ROW + 14;
    for (share, text) in [(0.0, "0"), (0.5, "0.5"), (1.0, "1")] {
        let _ = write!(marks, "<text x=\"{}\" y=\"{below}\" text-anchor=\"middle\">{text}</text>", at(share));
    }
    rows_of(kind, label, classes.len() + 2, &marks)
}

fn shade(number: usize) -> &'static str {
    SHADES[number.min(SHADES.len() - 1)]
}

/// What the training rows had of one input: minimum, 5 %, median, 95 %, maximum, and what is usual.
pub struct Spread<'a> {
    pub name: &'a str,
    pub quantiles: [f32; 5],
    pub usual: f32,
}

/// For each input a line from its minimum to its maximum, a box from 5 to 95 %, a stroke at the median and a dot
/// at the usual value. Every line has a scale of its own: the inverse hyperbolic sine, because counts have long
/// tails.
pub fn spreads(kind: &str, label: &str, inputs: &[Spread<'_>]) -> String {
    let mut marks = String::new();
    for (number, input) in inputs.iter().enumerate() {
        let y = number * ROW + 2;
        let scaled = |value: f32| f64::from(value).asinh();
        let (low, high) = (scaled(input.quantiles[0]), scaled(input.quantiles[4]));
        let at = |value: f32| NAMES + (scaled(value) - low) / (high - low).max(1e-9) * LONGEST;
        let [_, five, median, ninety_five, _] = input.quantiles;
        let middle = y + 8;
        let _ = write!(
            marks,
            "{}<path d=\"M{NAMES} {middle}H{:.1}\" stroke=\"#8794a1\"/><rect x=\"{:.1}\" y=\"{}\" width=\"{:.1}\" \
             height=\"11\" fill=\"#cfe0f3\" stroke=\"{INK}\"/><path d=\"M{:.1} {}V{}\" stroke=\"{INK}\" stroke-width=\"2\"/>",
            name_at(input.name, y),
            NAMES + LONGEST,
            at(five),
            y + 3,
            (at(ninety_five) - at(five)).max(1.0),
            at(median),
            y + 1,
            y + 16
        );
        if !input.usual.is_nan() {
            let _ = write!(
                marks,
                "<circle cx=\"{:.1}\" cy=\"{middle}\" r=\"4\" fill=\"#d9730d\"/>",
                at(input.usual.clamp(input.quantiles[0], input.quantiles[4]))
            );
        }
    }
    rows_of(kind, label, inputs.len(), &marks)
}

fn name_at(name: &str, y: usize) -> String {
    format!("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", NAMES - 8.0, y + 12, escape(name))
}

fn rows_of(kind: &str, label: &str, rows: usize, marks: &str) -> String {
    let (wide, high) = (NAMES + LONGEST + 70.0, rows * ROW + 6);
    format!(
        "<svg class=\"{kind}\" role=\"img\" aria-label=\"{label}\" viewBox=\"0 0 {wide} {high}\" width=\"{wide}\">{marks}</svg>\n"
    )
}
