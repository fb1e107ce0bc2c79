//! The model file: what a trained model is, how it is stored and checked, and how it predicts.
//!
//! This crate knows nothing of packets or features: the schema is a fingerprint, an input a name with a kind.
//! `MODEL.md` beside this crate describes the bytes.

mod error;
mod forest;
mod format;
mod meta;
mod profile;
pub mod vote;

use std::path::Path;

use sha2::{Digest as _, Sha256};

pub use error::{FormatError, LoadError, MismatchError};
pub use forest::{Forest, ForestBuilder, MAX_DEPTH, MAX_TREE_NODES, MAX_TREES, Node, Tree, TreeSizeError};
pub use format::{MAJOR, MAX_FILE_BYTES, MINOR};
pub use meta::{
    Baseline, Calibration, ClassInfo, ClassScore, DataFile, Evaluation, Importance, Input, InputKind, Kind,
    MAX_CLASSES, MAX_INPUTS, Meta, OutOfBag, RunScore, TargetScore, Training,
};
pub use profile::{Profile, QUANTILES};

/// SHA-256 of a model file: its integrity check and its name in verdicts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// A model that was checked and can predict.
#[derive(Clone, Debug)]
pub struct Model {
    meta: Meta,
    forest: Forest,
    profile: Vec<Profile>,
    hash: Hash,
}

/// Two models are equal where their files are.
impl PartialEq for Model {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Model {
    /// Puts a model together from what training found. It passes the same checks as a file that is loaded.
    ///
    /// # Errors
    /// What would make the file unreadable: see [`FormatError`].
    pub fn new(meta: &Meta, forest: &Forest, profile: &[Profile]) -> Result<Self, FormatError> {
        Self::from_bytes(&format::encode(meta, forest, profile)?)
    }

    /// Reads and checks a model file.
    ///
    /// # Errors
    /// [`LoadError`], which names the path and says what to do.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let bytes = format::read(path)?;
        Self::from_bytes(&bytes).map_err(|source| LoadError::Format { path: path.to_owned(), source })
    }

    /// Checks a model file that is in memory.
    ///
    /// # Errors
    /// [`FormatError`]; whatever the bytes are, this neither panics nor lets a changed file pass.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        format::decode(bytes)
    }

    /// The bytes of the model file; the same model always has the same bytes.
    ///
    /// # Panics
    /// Never: a model that exists has passed the checks of the encoder.
    #[allow(clippy::expect_used)]
    pub fn to_bytes(&self) -> Vec<u8> {
        format::encode(&self.meta, &self.forest, &self.profile).expect("a checked model encodes")
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Fingerprint of the schema that its rows have.
    pub fn schema_fingerprint(&self) -> &str {
        &self.meta.schema
    }

    /// The classes, in the order of the probabilities.
    pub fn classes(&self) -> &[ClassInfo] {
        &self.meta.classes
    }

    /// The inputs, in the order of a row.
    pub fn inputs(&self) -> &[Input] {
        &self.meta.inputs
    }

    pub fn forest(&self) -> &Forest {
        &self.forest
    }

    /// What the training data looked like, input by input.
    pub fn profile(&self) -> &[Profile] {
        &self.profile
    }

    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Whether rows of the schema with this fingerprint and these input names fit the model.
    ///
    /// # Errors
    /// [`MismatchError`], with the first difference and the remedy.
    pub fn check_schema<'a>(
        &self,
        fingerprint: &str,
        inputs: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), MismatchError> {
        let here: Vec<&str> = inputs.into_iter().collect();
        let trained = &self.meta.inputs;
        if here.len() != trained.len() {
            return Err(MismatchError::Count { model: trained.len(), here: here.len() });
        }
        for (position, (input, name)) in trained.iter().zip(&here).enumerate() {
            if input.name != *name {
                let (model, here) = (input.name.clone(), (*name).to_owned());
                return Err(MismatchError::Name { position, model, here });
            }
        }
        if self.meta.schema != fingerprint {
            return Err(MismatchError::Fingerprint {
                model: self.meta.schema.clone(),
                here: fingerprint.to_owned(),
            });
        }
        Ok(())
    }

    /// The probability of every class, in the order of [`Meta::classes`]; they sum to 1. An input that was not
    /// measured is NaN.
    ///
    /// # Panics
    /// Where `row` has not one value per input or `probabilities` not one place per class.
    pub fn predict(&self, row: &[f32], probabilities: &mut [f32]) {
        assert_eq!(row.len(), self.meta.inputs.len(), "one value per input");
        self.forest.predict(row, probabilities);
        if let Some(calibration) = self.meta.calibration {
            calibration.apply(probabilities);
        }
    }

    /// [`Self::predict`] for many rows, laid out one after the other, as are their probabilities.
    ///
    /// # Panics
    /// Where the lengths do not fit together.
    pub fn predict_batch(&self, rows: &[f32], probabilities: &mut [f32]) {
        self.forest.predict_batch(rows, self.meta.inputs.len(), probabilities);
        if let Some(calibration) = self.meta.calibration {
            probabilities.chunks_exact_mut(self.meta.classes.len()).for_each(|row| calibration.apply(row));
        }
    }

    /// How much each input speaks for class `class` in this row: the loss of its probability where that input
    /// alone had its usual value ([`Profile::usual`]). The strongest first, ties by position, at most `limit`,
    /// and none that does not speak for it.
    ///
    /// # Panics
    /// As [`Self::predict`].
    pub fn evidence(&self, row: &[f32], class: usize, limit: usize) -> Vec<Evidence> {
        let differs = |input: &usize| {
            row[*input].to_bits() != self.profile[*input].usual.to_bits() && self.forest.uses(*input)
        };
        let inputs: Vec<usize> = (0..row.len()).filter(differs).collect();
        // The row as it is, and with each of the inputs changed: one pass over the trees.
        let mut rows = row.repeat(inputs.len() + 1);
        for (changed, input) in rows.chunks_exact_mut(row.len()).skip(1).zip(&inputs) {
            changed[*input] = self.profile[*input].usual;
        }
        let classes = self.meta.classes.len();
        let mut probabilities = vec![0.0; classes * (inputs.len() + 1)];
        self.predict_batch(&rows, &mut probabilities);
        let of_class = |row: usize| probabilities[row * classes + class];
        let mut found: Vec<Evidence> = inputs
            .iter()
            .enumerate()
            .map(|(place, input)| Evidence {
                input: *input,
                value: row[*input],
                usual: self.profile[*input].usual,
                threshold: None,
                weight: of_class(0) - of_class(place + 1),
            })
            .filter(|evidence| evidence.weight > 0.0)
            .collect();
        found.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.input.cmp(&b.input)));
        found.truncate(limit);
        for evidence in &mut found {
            evidence.threshold = self.forest.threshold(row, evidence.input, evidence.usual);
        }
        found
    }
}

/// One input's part in a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Index into [`Meta::inputs`].
    pub input: usize,
    pub value: f32,
    /// The value that is usual without a fault.
    pub usual: f32,
    /// Where the model draws the line between the two ([`Forest::threshold`]).
    pub threshold: Option<f32>,
    /// Probability that the class loses with the usual value.
    pub weight: f32,
}

/// SHA-256 of a file's bytes, its own hash field left out.
fn hash_of(bytes: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(&bytes[..format::HASH.start]);
    hasher.update(&bytes[format::HASH.end..]);
    Hash(hasher.finalize().into())
}
