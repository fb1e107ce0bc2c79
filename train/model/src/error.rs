//! What can be wrong with a model file, and what to do about it.

use std::path::PathBuf;

use crate::format::{MAJOR, MAX_FILE_BYTES};

/// Why bytes are not a model that can be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    #[error("not a Faultline model: it does not begin with the model file's magic bytes")]
    Magic,
    #[error(
        "model format version {found}.x, and this program reads {MAJOR}.x: train the model again, or use the \
         Faultline release that wrote it"
    )]
    Version { found: u16 },
    #[error("the file has {found} bytes and says it has {stated}: it was cut or added to; copy it again")]
    Length { stated: u64, found: u64 },
    #[error("the SHA-256 does not match: the file was changed after it was written; copy it again")]
    Checksum,
    #[error("the header cannot be read")]
    Header(#[source] serde_json::Error),
    #[error("{what} is {found}, and at most {limit} is allowed")]
    Bound { what: &'static str, found: u64, limit: u64 },
    #[error("section `{section}`: {reason}")]
    Section { section: &'static str, reason: String },
    #[error("tree {tree}, node {node}: {reason}")]
    Node { tree: usize, node: usize, reason: &'static str },
    #[error("leaf {leaf}: its probabilities do not sum to one")]
    Leaf { leaf: usize },
    #[error("the header contradicts itself: {reason}")]
    Meta { reason: String },
}

/// Why a model file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the model {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the model {} has {bytes} bytes, and at most {MAX_FILE_BYTES} are read", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("cannot use the model {}", path.display())]
    Format { path: PathBuf, source: FormatError },
}

/// Why a model does not fit the features that this program makes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MismatchError {
    #[error(
        "the model was trained on {model} inputs, and this program makes {here}: train it again on features \
         made by this release"
    )]
    Count { model: usize, here: usize },
    #[error(
        "input {position} of the model is `{model}`, and here it is `{here}`: train it again on features made \
         by this release"
    )]
    Name { position: usize, model: String, here: String },
    #[error(
        "the model was trained on schema {model}, and this program makes {here} (a unit or a definition \
         differs): train it again on features made by this release"
    )]
    Fingerprint { model: String, here: String },
}
