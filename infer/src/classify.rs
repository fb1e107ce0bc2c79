//! The model at work: rows in, verdicts out, and what speaks for them.

use std::sync::Arc;

use event::{Duration, Label};
use features::schema::{self, Column, Input};
use features::{Feature, Row, Value};
use model::{MismatchError, Model};

use crate::verdict::{Answer, Doubt, Evidence, Judge, Reading, Verdict};

/// Features that are named as speaking for a verdict.
const EVIDENCE: usize = 5;
/// Bytes of a namespace or a pod's name that are kept: Kubernetes allows no more.
const NAME_BYTES: usize = 253;

/// When an answer is not taken for one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Doubts {
    /// A smaller lead over the runner-up makes the answer unknown, 0 to 1.
    pub margin: f32,
    /// A larger share of the inputs that the model looks at, outside what training saw, makes it unknown.
    pub outside: f32,
}

impl Default for Doubts {
    fn default() -> Self {
        Self { margin: model::vote::MARGIN, outside: 0.1 }
    }
}

/// A model that fits the features of this program.
pub struct Classifier {
    model: Model,
    judge: Arc<Judge>,
    labels: Vec<Label>,
    /// The inputs, in the model's order: which feature, and how its cell is encoded.
    columns: Vec<(Feature, &'static Column)>,
    /// Inputs that the model looks at.
    used: Vec<usize>,
    doubts: Doubts,
}

impl Classifier {
    /// # Errors
    /// Where the model was trained on another schema.
    pub fn new(model: Model, doubts: Doubts) -> Result<Self, MismatchError> {
        let fits = |column: &&(Feature, &'static Column)| column.1.input != Input::Never;
        let all: Vec<(Feature, &'static Column)> =
            Feature::ALL.into_iter().map(|feature| (feature, feature.column())).collect();
        let columns: Vec<(Feature, &'static Column)> = all.iter().filter(fits).copied().collect();
        model.check_schema(schema::fingerprint(), columns.iter().map(|(_, column)| column.name))?;
        let judge = Judge { name: model.meta().kind.name().to_owned(), hash: model.hash().to_string() };
        let labels = model.classes().iter().map(|class| Label(class.label)).collect();
        let used = (0..columns.len()).filter(|input| model.forest().uses(*input)).collect();
        Ok(Self { model, judge: Arc::new(judge), labels, columns, used, doubts })
    }

    /// Who judges.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// Length of the windows that the model was trained on.
    pub fn window(&self) -> Duration {
        Duration::from_nanos(i64::try_from(self.model.meta().window_ns).unwrap_or(i64::MAX))
    }

    /// Adds a row's inputs, in the order in which every model of this schema has them.
    pub fn encode(&self, row: &Row, inputs: &mut Vec<f32>) {
        inputs.extend(self.columns.iter().map(|(feature, column)| column.encode(&row[*feature])));
    }

    /// Inputs of a row.
    pub const fn width(&self) -> usize {
        self.columns.len()
    }

    /// Judges rows by their inputs, laid out one after the other.
    pub fn judge_rows(&self, rows: &[&Row], inputs: &[f32]) -> Vec<Verdict> {
        let classes = self.labels.len();
        let mut probabilities = vec![0.0; rows.len() * classes];
        self.model.predict_batch(inputs, &mut probabilities);
        let each = probabilities.chunks_exact(classes).zip(inputs.chunks_exact(self.width()));
        rows.iter()
            .zip(each)
            .map(|(row, (probabilities, inputs))| self.verdict(row, inputs, probabilities))
            .collect()
    }

    fn verdict(&self, row: &Row, inputs: &[f32], probabilities: &[f32]) -> Verdict {
        let (first, second) = two_largest(probabilities);
        let label = self.labels[first];
        let doubt = self.doubt(probabilities[first] - probabilities[second], inputs);
        Verdict {
            window: row.window,
            length: self.window(),
            flow_id: String::from_utf8_lossy(&row.flow_id).into_owned(),
            five_tuple: row.five_tuple,
            workload: workload(row),
            answer: match doubt {
                Some(doubt) => Answer::Unknown(doubt),
                None if label == Label::NORMAL => Answer::Normal,
                None => Answer::Fault,
            },
            label,
            confidence: probabilities[first],
            runner_up: self.labels[second],
            runner_up_confidence: probabilities[second],
            judge: Arc::clone(&self.judge),
            evidence: Vec::new(),
        }
    }

    fn doubt(&self, margin: f32, inputs: &[f32]) -> Option<Doubt> {
        if margin < self.doubts.margin {
            return Some(Doubt::Margin);
        }
        let profile = self.model.profile();
        let outside = self.used.iter().filter(|input| !profile[**input].covers(inputs[**input])).count();
        #[allow(clippy::cast_precision_loss, reason = "at most 1024 inputs")]
        let share = outside as f32 / self.used.len().max(1) as f32;
        (share > self.doubts.outside).then_some(Doubt::Range)
    }

    /// The features of a row that speak most for a verdict on it, the strongest first.
    pub fn explain(&self, verdict: &Verdict, row: &Row) -> Vec<Evidence> {
        let Some(class) = self.labels.iter().position(|label| *label == verdict.label) else {
            return Vec::new();
        };
        let mut inputs = Vec::with_capacity(self.width());
        self.encode(row, &mut inputs);
        let evidence = self.model.evidence(&inputs, class, EVIDENCE).into_iter();
        evidence
            .map(|part| {
                let column = self.columns[part.input].1;
                Evidence {
                    feature: column.name.to_owned(),
                    value: reading(column, part.value),
                    baseline: reading(column, part.usual),
                    threshold: part.threshold.filter(|_| !matches!(column.input, Input::Category(_))),
                    weight: part.weight,
                }
            })
            .collect()
    }
}

/// An encoded cell as a person reads it; nothing where it was not measured.
fn reading(column: &Column, value: f32) -> Option<Reading> {
    if value.is_nan() {
        return None;
    }
    let Input::Category(names) = column.input else { return Some(Reading::Number(value)) };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a code of a few names")]
    let name = (value as usize).checked_sub(1).and_then(|place| names.get(place));
    Some(Reading::Name(name.map_or_else(|| "another".to_owned(), |name| (*name).to_owned())))
}

/// The places of the largest and the second largest, the first of equals.
fn two_largest(probabilities: &[f32]) -> (usize, usize) {
    let (mut first, mut second) = (0, 1);
    if probabilities[second] > probabilities[first] {
        (first, second) = (second, first);
    }
    for place in 2..probabilities.len() {
        if probabilities[place] > probabilities[first] {
            (first, second) = (place, first);
        } else if probabilities[place] > probabilities[second] {
            second = place;
        }
    }
    (first, second)
}

fn workload(row: &Row) -> Option<(Arc<str>, Arc<str>)> {
    match (&row[Feature::Namespace], &row[Feature::PodName]) {
        (Value::Text(namespace), Value::Text(pod)) => Some((capped(namespace), capped(pod))),
        _ => None,
    }
}

/// Names come from outside: what Kubernetes would not allow is cut.
fn capped(name: &Arc<str>) -> Arc<str> {
    if name.len() <= NAME_BYTES {
        return Arc::clone(name);
    }
    let end = (0..=NAME_BYTES).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
    Arc::from(&name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_largest_are_found_and_the_first_of_equals_wins() {
        assert_eq!(two_largest(&[0.1, 0.2, 0.7]), (2, 1));
        assert_eq!(two_largest(&[0.5, 0.5]), (0, 1));
        assert_eq!(two_largest(&[0.2, 0.4, 0.4]), (1, 2));
        assert_eq!(two_largest(&[0.6, 0.1, 0.3]), (0, 2));
    }
}
