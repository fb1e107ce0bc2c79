//! What a model file holds, in words or as JSON.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context as _, bail};
use cli::Exit;
use features::schema;
use model::{Calibration, Model};

use crate::args::InspectArgs;
use crate::evaluate::score;

const NANOSECONDS: f64 = 1e9;

/// Prints what was asked for on standard output.
///
/// # Errors
/// Where the model cannot be loaded or there is no such tree.
pub fn run(args: &InspectArgs) -> anyhow::Result<Exit> {
    let model = Model::load(&args.model)?;
    let text = match args.tree {
        _ if args.json => serde_json::to_string_pretty(&serde_json::json!({
            "sha256": model.hash().to_string(),
            "meta": model.meta(),
            "trees": model.forest().trees(),
            "depth": model.forest().depth(),
        }))?,
        None => description(&model),
        Some(tree) if tree < model.forest().trees() => questions(&model, tree),
        Some(tree) => {
            bail!("there is no tree {tree}: the model has {}, counted from 0", model.forest().trees())
        }
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end()).context("cannot write to standard output")?;
    Ok(Exit::Done)
}

fn description(model: &Model) -> String {
    let meta = model.meta();
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("kind", meta.kind.name().to_owned());
    line("sha256", model.hash().to_string());
    line("trained by", format!("train {}, seed {}", meta.training.version, meta.training.seed));
    line("random", meta.training.rng.clone());
    line("windows", format!("{} s", meta.window_ns as f64 / NANOSECONDS));
    let fits = if meta.schema == schema::fingerprint() { "this release's" } else { "NOT this release's" };
    line("schema", format!("{} ({fits})", meta.schema));
    line("inputs", meta.inputs.len().to_string());
    let forest = model.forest();
    let nodes: usize = (0..forest.trees()).map(|tree| forest.tree(tree).len()).sum();
    line("trees", format!("{}, {nodes} nodes, depth {}", forest.trees(), forest.depth()));
    if let Some(calibration) = meta.calibration {
        line(
            "calibration",
            match calibration {
                Calibration::Temperature { temperature, .. } => format!("temperature {temperature:.3}"),
                Calibration::Threshold { threshold } => format!("threshold {threshold:.4}"),
            },
        );
    }
    let settings = meta.training.settings.iter().map(|(name, value)| format!("{name} {value}"));
    line("settings", settings.collect::<Vec<_>>().join(", "));
    for (number, file) in meta.training.data.iter().enumerate() {
        let name = if number == 0 { "data" } else { "" };
        line(name, format!("{} ({} rows, sha256 {})", file.name, file.rows, file.sha256));
    }
    for (number, class) in meta.classes.iter().enumerate() {
        let name = if number == 0 { "classes" } else { "" };
        let (rows, groups) = (class.rows, class.groups);
        line(name, format!("{} {} ({rows} rows of {groups} recordings)", class.label, class.name));
    }
    match &meta.evaluation {
        None => text += "\nnot judged: no recording could be held out\n",
        Some(evaluation) => {
            let _ = write!(text, "\non {}:\n{}", evaluation.split, score::table(evaluation));
        }
    }
    text
}

/// A tree as indented questions, the way a row goes first.
fn questions(model: &Model, tree: usize) -> String {
    let nodes = model.forest().tree(tree);
    let mut text = String::new();
    let mut open = vec![(0, 0, String::new())];
    while let Some((at, depth, question)) = open.pop() {
        let node = nodes[at];
        let indent = "  ".repeat(depth);
        if node.is_leaf() {
            let _ = writeln!(text, "{indent}{question}{}", leaf(model, node.leaf_index()));
            continue;
        }
        if !question.is_empty() {
            let _ = writeln!(text, "{indent}{question}");
        }
        let name = &model.inputs()[node.feature()].name;
        let (value, left) = (node.threshold(), at + node.ahead());
        let (missing_left, missing_right) =
            if node.missing_right() { ("", " or not measured") } else { (" or not measured", "") };
        let below = depth + usize::from(!question.is_empty());
        if value == f32::MAX {
            open.push((left + 1, below, format!("{name} not measured: ")));
            open.push((left, below, format!("{name} measured: ")));
        } else {
            open.push((left + 1, below, format!("{name} > {value}{missing_right}: ")));
            open.push((left, below, format!("{name} <= {value}{missing_left}: ")));
        }
    }
    text
}

fn leaf(model: &Model, index: u32) -> String {
    let shares = model.forest().leaf(index).iter().zip(model.classes()).filter(|(share, _)| **share > 0);
    let mut shares: Vec<(u16, &str)> = shares.map(|(share, class)| (*share, class.name.as_str())).collect();
    shares.sort_by_key(|(share, _)| std::cmp::Reverse(*share));
    let shares = shares.iter().map(|(share, name)| format!("{name} {:.3}", f64::from(*share) / 65535.0));
    shares.collect::<Vec<_>>().join(", ")
}
