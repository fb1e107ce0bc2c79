//! Two models on the same rows.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context as _, bail};
use cli::Exit;
use features::schema;
use model::{MAX_CLASSES, Model};
use tracing::warn;

use crate::args::{CompareArgs, DEFAULT_MEMORY};
use crate::data::Table;
use crate::evaluate::score::{PerClass, confusion, macro_f1, mcc};
use crate::run::read;
use crate::set::winners;

/// Prints per-class F1 of both models on standard output, and where they differ.
///
/// # Errors
/// Where a model or the rows cannot be read, or a model does not fit the schema.
pub fn run(args: &CompareArgs) -> anyhow::Result<Exit> {
    let models = [Model::load(&args.a)?, Model::load(&args.b)?];
    for (model, path) in models.iter().zip([&args.a, &args.b]) {
        let inputs = schema::inputs().map(|column| column.name);
        model.check_schema(schema::fingerprint(), inputs).with_context(|| path.display().to_string())?;
    }
    let (table, window) = read(&args.data, DEFAULT_MEMORY, Some(models[0].meta().window_ns as f64 / 1e9))?;
    let windows = models.each_ref().map(|model| model.meta().window_ns);
    if windows[0] != windows[1] {
        bail!("A was trained on windows of {} ns, and B of {} ns: no rows suit both", windows[0], windows[1]);
    }
    if crate::data::window_of(&table).is_some_and(|found| found < window) {
        bail!("the rows have shorter windows than the {} ns that the models were trained on", windows[0]);
    }
    models.iter().zip(["A", "B"]).for_each(|(model, name)| warn_of_training_rows(model, name, &table));
    let text = compared(&models, &table)?;
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(Exit::Done)
}

fn warn_of_training_rows(model: &Model, name: &str, table: &Table) {
    let known = |sha256: &str| model.meta().training.data.iter().any(|file| file.sha256 == sha256);
    for file in table.files.iter().filter(|file| known(&file.sha256)) {
        warn!("{name} was trained on {}: its scores on these rows say nothing of new ones", file.name);
    }
}

fn compared(models: &[Model; 2], table: &Table) -> anyhow::Result<String> {
    let mut labels: Vec<u16> = models
        .iter()
        .flat_map(Model::classes)
        .map(|class| class.label)
        .chain(table.labels.iter().copied())
        .collect();
    labels.sort_unstable();
    labels.dedup();
    if labels.len() > MAX_CLASSES {
        bail!(
            "models and rows have {} labels together, and at most {MAX_CLASSES} are compared",
            labels.len()
        );
    }
    #[allow(clippy::cast_possible_truncation)] // at most 256 classes
    let index = |label: u16| labels.partition_point(|known| *known < label) as u8;
    let actual: Vec<u8> = table.labels.iter().map(|label| index(*label)).collect();
    #[allow(clippy::cast_possible_truncation)] // rows are counted in u32
    let rows: Vec<u32> = (0..table.len() as u32).collect();
    let winners_of = |model: &Model| -> anyhow::Result<Vec<u8>> {
        let shares = table.cells.map_rows(&rows, model.classes().len(), |_, values, shares| {
            model.predict_batch(values, shares);
        })?;
        let winners = winners(&shares, model.classes().len());
        Ok(winners.iter().map(|class| index(model.classes()[usize::from(*class)].label)).collect())
    };
    let predicted = [winners_of(&models[0])?, winners_of(&models[1])?];
    let classes = labels.len();
    let matrices = predicted.each_ref().map(|predicted| confusion(&actual, predicted, classes));
    let mut text =
        format!("{:<18} {:>8} {:>8} {:>8} {:>8}\n", "class", "rows", "F1 of A", "F1 of B", "B - A");
    for (k, label) in labels.iter().enumerate() {
        let scores = matrices.each_ref().map(|matrix| PerClass::new(k, matrix));
        let rows = scores[0].rows;
        let (Some(a), Some(b)) = (scores[0].f1(), scores[1].f1()) else { continue };
        let name = event::Label(*label).to_string();
        let _ = writeln!(text, "{name:<18} {rows:>8} {a:>8.3} {b:>8.3} {:>+8.3}", b - a);
    }
    let f1 = predicted.each_ref().map(|predicted| macro_f1(&actual, predicted, classes));
    let correlation = matrices.each_ref().map(|matrix| mcc(matrix));
    let mut line = |name: &str, [a, b]: [f64; 2]| {
        let _ = writeln!(text, "{name:<18} {:>8} {a:>8.3} {b:>8.3} {:>+8.3}", "", b - a);
    };
    line("macro F1", f1);
    line("MCC", correlation);
    let right = |k: usize, row: usize| predicted[k][row] == actual[row];
    let count = |wanted: &dyn Fn(usize) -> bool| (0..actual.len()).filter(|row| wanted(*row)).count();
    let _ = writeln!(
        text,
        "of {} rows: both right {}, only A {}, only B {}, both wrong {}",
        actual.len(),
        count(&|row| right(0, row) && right(1, row)),
        count(&|row| right(0, row) && !right(1, row)),
        count(&|row| !right(0, row) && right(1, row)),
        count(&|row| !right(0, row) && !right(1, row)),
    );
    Ok(text)
}
