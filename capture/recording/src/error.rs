//! What can go wrong with a recording, each with the file and the place in it.

use std::io;
use std::path::PathBuf;

use crate::format::{MAX_CHUNK, VERSION, Version};
use crate::{BadMessage, Malformed};

/// Why a recording could not be opened, read on or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: cannot be opened", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{}: cannot be created", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("{}: reading at byte {offset} failed", path.display())]
    Read { path: PathBuf, offset: u64, source: io::Error },
    #[error("{}: writing at byte {offset} failed; what was written before stays readable", path.display())]
    Write { path: PathBuf, offset: u64, source: io::Error },
    #[error("{}: no space is left on the disk after byte {offset}; what was written before stays readable", path.display())]
    DiskFull { path: PathBuf, offset: u64 },
    #[error("{}: writing failed before at byte {offset}, nothing more is taken", path.display())]
    Failed { path: PathBuf, offset: u64 },
    #[error("{}: the message could not be put into a chunk: {reason}", path.display())]
    Chunk { path: PathBuf, reason: String },
    #[error("{}: not an MCAP file: it does not start with the magic bytes 89 4D 43 41 50 30 0D 0A", path.display())]
    WrongMagic { path: PathBuf },
    #[error("{}: an MCAP file, but not a Faultline recording (its profile is `{profile}`)", path.display())]
    NotARecording { path: PathBuf, profile: String },
    #[error(
        "{}: format version {found} at byte {offset} is unknown, this program reads {}.x; read it with the \
         version that wrote it or a newer one",
        path.display(), VERSION.major
    )]
    UnknownVersion { path: PathBuf, offset: u64, found: Version },
}

/// What is wrong with a stretch of a file that can otherwise be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the chunk's checksum is {found:08x}, not {stated:08x}")]
    BadCrc { stated: u32, found: u32 },
    #[error("the metadata record `{name}` does not match its checksum")]
    BadMetadata { name: String },
    #[error("the checksum over all data is {found:08x}, not {stated:08x}")]
    BadDataCrc { stated: u32, found: u32 },
    #[error(
        "a chunk of {size} bytes, more than the {MAX_CHUNK} that are unpacked: a decompression bomb or damage"
    )]
    Bomb { size: u64 },
    #[error("the chunk does not unpack to the {stated} bytes it states: {reason}")]
    Decompress { stated: u64, reason: String },
    #[error("the chunk is compressed by `{name}`; zstd and none can be read")]
    Compression { name: String },
    #[error("no record can start with {opcode:#04x} here")]
    Opcode { opcode: u8 },
    #[error("the record {opcode:#04x} states an impossible length of {length} bytes")]
    RecordLength { opcode: u8, length: u64 },
    #[error("the record {opcode:#04x} cannot be read: {reason}")]
    Record { opcode: u8, reason: String },
    #[error("the channel `{topic}` has schema `{found}`, not `{expected}`")]
    Schema { topic: String, expected: String, found: String },
    #[error("a message of the unknown channel {id}")]
    UnknownChannel { id: u16 },
    #[error("a message of the channel `{topic}` is malformed: {reason}")]
    Message { topic: &'static str, reason: BadMessage },
    #[error("a batch of the channel `{topic}` is malformed: {reason}")]
    Batch { topic: &'static str, reason: Malformed },
    #[error("the counter of the channel `{topic}` goes back from {expected} to {found}")]
    Counter { topic: &'static str, expected: u32, found: u32 },
    #[error("the header is missing")]
    NoHeader,
    #[error("the index after the data is damaged; no event is lost by that")]
    Summary,
}

/// A stretch of the file that could not be read, or not be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// First byte.
    pub offset: u64,
    /// Bytes until reading went on.
    pub length: u64,
    pub fault: Fault,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bytes {} to {}: {}", self.offset, self.offset.saturating_add(self.length), self.fault)
    }
}
