//! The bytes of a model file. `MODEL.md` describes them; the version history stands here.
//!
//! | version | change |
//! |---|---|
//! | 1.0 | random forests, decision trees, rules and isolation forests |
//!
//! A reader accepts its own major version alone. A minor version adds header fields and sections, which an
//! older reader passes over; what an older reader would get wrong makes a new major version.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::forest::{Forest, Node};
use crate::meta::{Meta, bound};
use crate::profile::{Profile, VALUES};
use crate::{FormatError, Hash, LoadError, Model, hash_of};

pub const MAJOR: u16 = 1;
pub const MINOR: u16 = 0;

/// A high bit, line ends of two kinds and an end-of-file: what a transfer as text would change.
const MAGIC: [u8; 8] = *b"\x89FLM\r\n\x1a\n";
const PRELUDE_BYTES: usize = 64;
/// Where the prelude holds the SHA-256 of everything else.
pub(crate) const HASH: Range<usize> = 32..64;
const ALIGNMENT: usize = 8;

/// 10,000 deep trees on a million rows stay below it.
pub const MAX_FILE_BYTES: u64 = 1 << 30;
const MAX_HEADER_BYTES: usize = 16 << 20;
const MAX_SECTIONS: usize = 64;

/// The JSON after the prelude.
#[derive(Serialize, Deserialize)]
struct Header {
    meta: Meta,
    sections: Vec<Section>,
}

#[derive(Serialize, Deserialize)]
struct Section {
    name: String,
    /// From the end of the padded header, in bytes; a multiple of 8.
    offset: u64,
    length: u64,
}

/// The whole file, never more than its bound.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned(), bytes });
    }
    let mut content = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned(), bytes: content.len() as u64 });
    }
    Ok(content)
}

pub(crate) fn encode(meta: &Meta, forest: &Forest, profile: &[Profile]) -> Result<Vec<u8>, FormatError> {
    let mut body = Body::default();
    #[allow(clippy::cast_possible_truncation)] // a tree has at most MAX_TREE_NODES
    body.add("trees", (0..forest.trees()).flat_map(|tree| (forest.tree(tree).len() as u32).to_le_bytes()));
    body.add("nodes", forest.nodes().iter().flat_map(|node| node.to_le_bytes()));
    body.add("leaves", forest.leaves().iter().flat_map(|share| share.to_le_bytes()));
    body.add("profile", profile.iter().flat_map(Profile::values).flat_map(f32::to_le_bytes));
    let header = Header { meta: meta.clone(), sections: body.sections };
    let mut json = serde_json::to_vec(&header).map_err(FormatError::Header)?;
    json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
    bound("the header's length", json.len(), MAX_HEADER_BYTES)?;

    let length = PRELUDE_BYTES + json.len() + body.bytes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&MAJOR.to_le_bytes());
    bytes.extend_from_slice(&MINOR.to_le_bytes());
    #[allow(clippy::cast_possible_truncation)] // bounded above
    bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
    bytes.resize(PRELUDE_BYTES, 0);
    bytes.extend_from_slice(&json);
    bytes.extend_from_slice(&body.bytes);
    let hash = hash_of(&bytes);
    bytes[HASH].copy_from_slice(&hash.0);
    Ok(bytes)
}

#[derive(Default)]
struct Body {
    sections: Vec<Section>,
    bytes: Vec<u8>,
}

impl Body {
    fn add(&mut self, name: &str, content: impl Iterator<Item = u8>) {
        let offset = self.bytes.len();
        self.bytes.extend(content);
        let length = self.bytes.len() - offset;
        self.sections.push(Section { name: name.to_owned(), offset: offset as u64, length: length as u64 });
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Model, FormatError> {
    let (header_bytes, hash) = check_prelude(bytes)?;
    let (header, body) = bytes[PRELUDE_BYTES..].split_at(header_bytes);
    let header: Header = serde_json::from_slice(header).map_err(FormatError::Header)?;
    bound("the number of sections", header.sections.len(), MAX_SECTIONS)?;
    header.meta.check()?;

    let sizes = values(section(&header, body, "trees")?, "trees", u32::from_le_bytes)?;
    let nodes = values(section(&header, body, "nodes")?, "nodes", Node::from_le_bytes)?;
    let leaves = values(section(&header, body, "leaves")?, "leaves", u16::from_le_bytes)?;
    let floats = values(section(&header, body, "profile")?, "profile", f32::from_le_bytes)?;
    let inputs = header.meta.inputs.len();
    let (profile, rest) = floats.as_chunks::<VALUES>();
    if !rest.is_empty() || profile.len() != inputs {
        let reason = format!("{} values are not {VALUES} for each of {inputs} inputs", floats.len());
        return Err(FormatError::Section { section: "profile", reason });
    }
    let profile = profile.iter().copied().map(Profile::from_values).collect();
    let forest = Forest::checked(header.meta.classes.len(), inputs, &sizes, nodes, leaves)?;
    Ok(Model { meta: header.meta, forest, profile, hash })
}

/// The header's length, and the file's hash. Integrity comes first: nothing else is looked at before it holds.
fn check_prelude(bytes: &[u8]) -> Result<(usize, Hash), FormatError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(FormatError::Magic);
    }
    let found = bytes.len() as u64;
    let Some(prelude) = bytes.first_chunk::<PRELUDE_BYTES>() else {
        return Err(FormatError::Length { stated: PRELUDE_BYTES as u64, found });
    };
    let number =
        |range: Range<usize>| prelude[range].iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    #[allow(clippy::cast_possible_truncation)] // two bytes
    let major = number(8..10) as u16;
    if major != MAJOR {
        return Err(FormatError::Version { found: major });
    }
    let stated = number(16..24);
    if stated != found {
        return Err(FormatError::Length { stated, found });
    }
    let hash = hash_of(bytes);
    if hash.0 != prelude[HASH] {
        return Err(FormatError::Checksum);
    }
    let header = number(12..16);
    let limit = (found - PRELUDE_BYTES as u64).min(MAX_HEADER_BYTES as u64);
    if header > limit {
        return Err(FormatError::Bound { what: "the header's length", found: header, limit });
    }
    #[allow(clippy::cast_possible_truncation)] // bounded above
    Ok((header as usize, hash))
}

fn section<'a>(header: &Header, body: &'a [u8], name: &'static str) -> Result<&'a [u8], FormatError> {
    let wrong = |reason: String| FormatError::Section { section: name, reason };
    let mut found = header.sections.iter().filter(|section| section.name == name);
    let section = found.next().ok_or_else(|| wrong("is missing".to_owned()))?;
    if found.next().is_some() {
        return Err(wrong("is there twice".to_owned()));
    }
    let end = section.offset.checked_add(section.length).filter(|end| *end <= body.len() as u64);
    let end = end.ok_or_else(|| wrong("reaches beyond the file".to_owned()))?;
    if !section.offset.is_multiple_of(ALIGNMENT as u64) {
        return Err(wrong("does not begin at a multiple of 8".to_owned()));
    }
    #[allow(clippy::cast_possible_truncation)] // both lie within a slice
    Ok(&body[section.offset as usize..end as usize])
}

fn values<const N: usize, T>(
    bytes: &[u8],
    section: &'static str,
    value: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, FormatError> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        let reason = format!("{} bytes are not a multiple of {N}", bytes.len());
        return Err(FormatError::Section { section, reason });
    }
    Ok(chunks.iter().copied().map(value).collect())
}
