//! The header of a model file: what the model is, what it wants and where it comes from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::FormatError;

/// Node links hold an input's index in 10 bits.
pub const MAX_INPUTS: usize = 1 << 10;

/// Class indices are packed into 8 bits while a tree grows.
pub const MAX_CLASSES: usize = 256;

/// The kinds of model that share the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    RandomForest,
    /// One tree, fitted on all rows and inputs.
    DecisionTree,
    /// Thresholds that people chose, as a tree.
    Rules,
    /// Normal or not, learned from normal rows alone.
    IsolationForest,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::RandomForest => "random-forest",
            Self::DecisionTree => "decision-tree",
            Self::Rules => "rules",
            Self::IsolationForest => "isolation-forest",
        }
    }
}

/// How a cell becomes a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputKind {
    Numeric,
    /// 0 or 1.
    Bool,
    /// Code k stands for the k-th of these values, counted from 1; 0 for any other value.
    Categorical(Vec<String>),
}

/// One input, in the order of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub name: String,
    pub kind: InputKind,
}

/// One class, in the order of the probabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassInfo {
    /// The number in the `anomaly_label` column.
    pub label: u16,
    /// The fault's name, or the number where it has none.
    pub name: String,
    /// Training rows.
    pub rows: u64,
    /// Groups of rows (recordings, or stretches of one) that held it.
    pub groups: u64,
}

/// One input file of the training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Without its folder, so that a model does not depend on where it was trained.
    pub name: String,
    pub sha256: String,
    pub rows: u64,
}

/// How the model came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Training {
    /// Version of the program.
    pub version: String,
    pub seed: u64,
    /// Algorithm and seeding of the random numbers.
    pub rng: String,
    pub settings: BTreeMap<String, String>,
    pub data: Vec<DataFile>,
}

/// How votes become probabilities that mean what they say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Calibration {
    /// Every share p becomes (p + floor)^(1 / temperature), and all are scaled to sum to 1. Above 1, a
    /// temperature makes the model less sure of itself.
    Temperature { temperature: f64, floor: f64 },
    /// Of two classes, the second one's share `threshold` becomes one half, and shares on either side are
    /// stretched evenly to 0 and 1.
    Threshold { threshold: f64 },
}

impl Calibration {
    fn check(self) -> Result<(), FormatError> {
        let sound = match self {
            Self::Temperature { temperature, floor } => {
                (0.01..=100.0).contains(&temperature) && (1e-9..=1.0).contains(&floor)
            }
            Self::Threshold { threshold } => 0.0 < threshold && threshold < 1.0,
        };
        if sound {
            Ok(())
        } else {
            Err(FormatError::Meta { reason: "the calibration is out of range".to_owned() })
        }
    }

    /// Calibrates the shares of one row in place.
    #[allow(clippy::cast_possible_truncation)] // the nearest f32 of a share
    pub fn apply(self, shares: &mut [f32]) {
        match self {
            Self::Temperature { temperature, floor } => {
                let raised = |share: f32| (f64::from(share) + floor).powf(1.0 / temperature);
                let total: f64 = shares.iter().map(|share| raised(*share)).sum();
                shares.iter_mut().for_each(|share| *share = (raised(*share) / total) as f32);
            }
            Self::Threshold { threshold } => {
                let [normal, other] = shares else { return };
                let share = f64::from(*other);
                let stretched = if share <= threshold {
                    share / threshold / 2.0
                } else {
                    0.5 + (share - threshold) / (1.0 - threshold) / 2.0
                };
                *other = stretched as f32;
                *normal = 1.0 - *other;
            }
        }
    }
}

/// Scores of one class on rows that the judged model had not seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    pub label: u16,
    pub name: String,
    pub rows: u64,
    pub groups: u64,
    /// Absent where the class was never predicted.
    pub precision: Option<f64>,
    /// Absent where no held-out row had the class.
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    /// Area under the precision-recall curve (average precision).
    pub pr_auc: Option<f64>,
}

/// What a simpler model reached on the same rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    pub name: String,
    pub macro_f1: f64,
    pub mcc: f64,
    /// Of verdicts on a server and window; absent where the rows tell no server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdicts_macro_f1: Option<f64>,
}

/// Scores of verdicts on a server and a window, by the rule of [`crate::vote`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetScore {
    pub verdicts: u64,
    pub macro_f1: f64,
    /// F1 of every class, in the order of the classes; absent where no verdict should have it.
    pub f1: Vec<Option<f64>>,
    /// False verdicts on servers without a fault, per hour of windows; absent without such windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_alarms_per_hour: Option<f64>,
    /// `confusion[actual][predicted]` in verdicts, both in the order of the classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Vec<u64>>,
}

/// How much of one class was found in the held-out runs that have something in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunScore {
    /// What they have in common, such as `severity` and `low`.
    pub key: String,
    pub value: String,
    pub label: u16,
    pub name: String,
    pub rows: u64,
    pub groups: u64,
    pub recall: f64,
}

/// Scores of the rows that were fitted on, each judged by the trees whose samples left it out. Those trees know
/// other rows of the same recording, so these scores are too good for a new recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutOfBag {
    /// Rows that some tree left out.
    pub rows: u64,
    pub accuracy: f64,
    pub macro_f1: f64,
    pub mcc: f64,
}

/// How well a model of these settings did on groups of rows that it had not seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How the rows were set apart.
    pub split: String,
    pub rows: u64,
    pub groups: u64,
    pub accuracy: f64,
    /// Over the classes that have held-out rows.
    pub macro_f1: f64,
    pub mcc: f64,
    /// Expected calibration error over 15 bins of the winner's probability.
    pub ece: f64,
    /// Windows of normal rows in which some row was called a fault with a probability of at least 0.8, for
    /// each such fault; absent without normal rows.
    pub false_alarms_per_hour: Option<f64>,
    /// The rows' votes for each server and window, as `infer` counts them; absent where the rows tell no server.
    #[serde(default)]
    pub targets: Option<TargetScore>,
    pub classes: Vec<ClassScore>,
    /// `confusion[actual][predicted]` in rows, both in the order of the classes.
    pub confusion: Vec<Vec<u64>>,
    /// What the trees say of the rows they were fitted on; absent where they drew no samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_bag: Option<OutOfBag>,
    /// Recall by how the held-out runs were made; empty where that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunScore>,
    /// Macro F1 of every fold over the rows that were fitted on; empty where there were too few groups.
    #[serde(default)]
    pub folds: Vec<f64>,
    #[serde(default)]
    pub baselines: Vec<Baseline>,
    /// Loss of macro F1 where an input's values are shuffled among the held-out rows, the largest first;
    /// inputs that lose nothing are left out.
    #[serde(default)]
    pub importance: Vec<Importance>,
}

/// How much an input matters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    pub input: String,
    pub loss: f64,
}

/// Everything about a model but its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    pub kind: Kind,
    /// Fingerprint of the feature schema that the rows had.
    pub schema: String,
    /// Length of the windows it was trained on, in nanoseconds.
    pub window_ns: u64,
    pub inputs: Vec<Input>,
    pub classes: Vec<ClassInfo>,
    pub training: Training,
    /// Absent where the shares of the votes are taken as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
}

impl Meta {
    pub(crate) fn check(&self) -> Result<(), FormatError> {
        bound("the number of inputs", self.inputs.len(), MAX_INPUTS)?;
        bound("the number of classes", self.classes.len(), MAX_CLASSES)?;
        let names: BTreeSet<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
        if self.inputs.is_empty() || names.len() != self.inputs.len() {
            return Err(FormatError::Meta { reason: "inputs are missing or named twice".to_owned() });
        }
        if self.classes.len() < 2 || !self.classes.windows(2).all(|pair| pair[0].label < pair[1].label) {
            let reason = "classes are fewer than two or not in the order of their labels".to_owned();
            return Err(FormatError::Meta { reason });
        }
        if self.window_ns == 0 {
            return Err(FormatError::Meta { reason: "the window's length is zero".to_owned() });
        }
        self.calibration.map_or(Ok(()), Calibration::check)
    }
}

pub(crate) fn bound(what: &'static str, found: usize, limit: usize) -> Result<(), FormatError> {
    if found > limit {
        return Err(FormatError::Bound { what, found: found as u64, limit: limit as u64 });
    }
    Ok(())
}
