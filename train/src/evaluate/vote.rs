//! What the rows of one server and window say together, by the rule that `infer` goes by: a fault that a tenth of the
//! rows name is there, though most flows were not touched by it.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use model::TargetScore;
use model::vote::{CONFIDENCE, MARGIN, QUORUM};

use super::score::{PerClass, confusion, macro_f1};
use crate::set::{LabelledSet, NORMAL};

/// A row's class with its probability; nothing where the row is not sure.
pub type Answer = Option<(u8, f32)>;

/// What one row of shares answers: the first of equals, and only where it leads enough.
pub fn answer(shares: &[f32]) -> Answer {
    let best = (0..shares.len()).rev().max_by(|a, b| shares[*a].total_cmp(&shares[*b]))?;
    let next =
        (0..shares.len()).filter(|class| *class != best).map(|class| shares[class]).fold(0.0, f32::max);
    #[allow(clippy::cast_possible_truncation)] // at most 256 classes
    let answer = (best as u8, shares[best]);
    (shares[best] - next >= MARGIN).then_some(answer)
}

/// One server's rows in one window.
struct Tally {
    answered: u32,
    /// By class: rows that name it, and the sum of their probabilities.
    named: Vec<(u32, f64)>,
    /// Rows by what they really were.
    labels: Vec<u32>,
}

/// Scores of the verdicts; `None` where the rows tell no server. `classes` counts those of the answers, which may be
/// more than the set has.
pub fn targets(
    set: &LabelledSet,
    rows: &[u32],
    answers: impl Iterator<Item = Answer>,
    classes: usize,
) -> Option<TargetScore> {
    type GroupWindowTarget = (u32, i64, NonZeroU64);
    let mut tallies: BTreeMap<GroupWindowTarget, Tally> = BTreeMap::new();
    for (row, answer) in rows.iter().zip(answers) {
        let row = *row as usize;
        let key = (set.table.groups[row], set.table.times[row], set.table.targets[row]?);
        let tally = tallies.entry(key).or_insert_with(|| Tally {
            answered: 0,
            named: vec![(0, 0.0); classes],
            labels: vec![0; classes],
        });
        tally.labels[usize::from(set.of_row[row])] += 1;
        if let Some((class, confidence)) = answer {
            let (rows, sum) = &mut tally.named[usize::from(class)];
            *rows += 1;
            *sum += f64::from(confidence);
            tally.answered += 1;
        }
    }
    let normal = set.classes.iter().position(|class| class.label == NORMAL);
    let actual: Vec<u8> = tallies.values().map(|tally| tally.actual(normal)).collect();
    let predicted: Vec<u8> = tallies.values().map(|tally| tally.verdict(normal)).collect();
    let confusion = confusion(&actual, &predicted, classes);
    Some(TargetScore {
        verdicts: actual.len() as u64,
        macro_f1: macro_f1(&actual, &predicted, classes),
        f1: (0..set.classes.len()).map(|k| PerClass::new(k, &confusion).f1()).collect(),
        false_alarms_per_hour: false_alarms(set, tallies.keys(), &actual, &predicted, normal),
        confusion,
    })
}

impl Tally {
    /// The fault that most of its affected rows have, normal where none has one; the first of equals.
    fn actual(&self, normal: Option<usize>) -> u8 {
        let faults = self.faults(normal).filter(|class| self.labels[*class] > 0);
        index(faults.max_by_key(|class| self.labels[*class]).or(normal))
    }

    /// The fault that enough rows name with enough confidence, normal where none is.
    fn verdict(&self, normal: Option<usize>) -> u8 {
        let enough = |class: &usize| {
            let (rows, sum) = self.named[*class];
            rows > 0
                && f64::from(rows) >= QUORUM * f64::from(self.answered)
                && sum / f64::from(rows) >= CONFIDENCE
        };
        let faults = self.faults(normal).filter(enough);
        index(faults.max_by(|a, b| self.named[*a].1.total_cmp(&self.named[*b].1)).or(normal))
    }

    /// The classes but the normal one, the last first, so that `max_by` returns the first of equals.
    fn faults(&self, normal: Option<usize>) -> impl Iterator<Item = usize> + '_ {
        (0..self.labels.len()).rev().filter(move |class| Some(*class) != normal)
    }
}

#[allow(clippy::cast_possible_truncation)] // at most 256 classes
fn index(class: Option<usize>) -> u8 {
    class.unwrap_or(0) as u8
}

/// How often in an hour of windows some server without a fault is said to have one, each fault for itself.
fn false_alarms<'a>(
    set: &LabelledSet,
    keys: impl Iterator<Item = &'a (u32, i64, NonZeroU64)>,
    actual: &[u8],
    predicted: &[u8],
    normal: Option<usize>,
) -> Option<f64> {
    const NANOSECONDS_PER_HOUR: f64 = 3.6e12;
    let normal = index(Some(normal?));
    let mut windows = Vec::new();
    let mut alarms = 0u64;
    for ((group, time, _), (actual, predicted)) in keys.zip(actual.iter().zip(predicted)) {
        if *actual == normal {
            windows.push((*group, *time));
            alarms += u64::from(predicted != actual);
        }
    }
    windows.dedup(); // the keys ascend
    let hours = windows.len() as f64 * set.window as f64 / NANOSECONDS_PER_HOUR;
    (hours > 0.0).then(|| alarms as f64 / hours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_answers_where_it_is_sure() {
        assert_eq!(answer(&[0.55, 0.3, 0.15]), Some((0, 0.55)));
        assert_eq!(answer(&[0.5, 0.35, 0.15]), None);
        assert_eq!(answer(&[0.1, 0.1, 0.8]), Some((2, 0.8)));
    }

    #[test]
    fn a_tenth_of_the_rows_is_enough_and_less_is_not() {
        let tally = |named: [(u32, f64); 3], answered| Tally {
            answered,
            named: named.to_vec(),
            labels: vec![9, 1, 1],
        };
        assert_eq!(tally([(9, 9.0), (1, 0.6), (0, 0.0)], 10).verdict(Some(0)), 1);
        assert_eq!(tally([(10, 9.0), (1, 0.6), (0, 0.0)], 11).verdict(Some(0)), 0, "below a tenth");
        assert_eq!(tally([(9, 9.0), (1, 0.4), (0, 0.0)], 10).verdict(Some(0)), 0, "not sure");
        assert_eq!(tally([(4, 4.0), (3, 2.0), (3, 2.5)], 10).verdict(Some(0)), 2, "the surer one");
        assert_eq!(tally([(0, 0.0); 3], 0).verdict(Some(0)), 0, "no answer");
        assert_eq!(tally([(0, 0.0); 3], 0).actual(Some(0)), 1, "the first of equals");
    }
}
