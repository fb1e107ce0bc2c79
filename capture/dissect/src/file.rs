//! Capture files as a stream of records: what the formats have in common, and how they fail.

mod buffer;
mod compression;
mod order;
mod pcap;
mod pcapng;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use event::{Direction, Timestamp};

use crate::link::LinkType;
use buffer::Buffer;
use pcap::Pcap;
use pcapng::Pcapng;

pub use compression::Compression;

/// Captured bytes that a packet may have: Wireshark's and tcpdump's own limit. More is a damaged length.
const MAX_CAPTURED: u32 = 262_144;

/// What captured packets: a line of the interface table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Empty where the file does not tell: pcap never does.
    pub name: String,
    pub link: LinkType,
    /// Bytes captured of a packet at most; 0 where there is no limit.
    pub snap_length: u32,
    /// Packets that the capturing side says it lost on this interface.
    pub lost: u64,
}

/// One packet's place in a file; its bytes are [`Reader::captured`].
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Counted from 1 over the whole file.
    pub number: u64,
    /// Index into [`Reader::interfaces`].
    pub interface: u32,
    /// Absent where the interface was never described.
    pub link: Option<LinkType>,
    /// Absent where the file has none for this packet, or one that does not fit.
    pub time: Option<Timestamp>,
    pub direction: Direction,
    /// Bytes on the wire.
    pub length: usize,
}

/// A packet as the format's own reader finds it: where its bytes stand after the read position.
struct Found {
    interface: u32,
    link: Option<LinkType>,
    time: Option<Timestamp>,
    direction: Direction,
    length: u32,
    start: usize,
    captured: usize,
    /// What stands between this record's start and the next one's.
    size: usize,
}

/// An input that holds no capture at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open {path}: {source}")]
    Open { path: String, source: io::Error },
    #[error("cannot read {name}: {source}")]
    Read { name: String, source: io::Error },
    #[error("{name} is empty: a capture starts with a header of 24 bytes or more")]
    Empty { name: String },
    #[error(
        "{name} is no pcap or pcapng file: it starts with {start}; expected is one of these two, plain, gzip or zstd"
    )]
    Unknown { name: String, start: String },
    #[error("{name} ends in its file header, after {bytes} bytes: nothing can be read")]
    CutHeader { name: String, bytes: usize },
    #[error("{name} has pcap version {major}.{minor}; 2.0 to 2.4 and 543.0 are known")]
    Version { name: String, major: u16, minor: u16 },
}

/// Where and why a file could not be read any further. Everything before it was good.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name}: {kind} (in the record at byte {offset}{}, after packet {packets}); everything before it was used",
    if *compression == Compression::None { "" } else { " of the decompressed data" },
)]
pub struct Damage {
    pub name: String,
    /// Of the record that is damaged, in the decompressed data.
    pub offset: u64,
    /// Packets before the damage.
    pub packets: u64,
    pub compression: Compression,
    pub kind: DamageKind,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum DamageKind {
    #[error("cut in mid-packet: {needed} bytes are needed, {present} are there")]
    Cut { needed: usize, present: usize },
    #[error("a length of {length} bytes cannot be: at most {limit} are possible")]
    AbsurdLength { length: u64, limit: u64 },
    #[error("a pcapng block's length of {length} bytes is too short or no multiple of 4")]
    BlockLength { length: u32 },
    #[error("a pcapng block says {first} bytes at its start and {last} at its end")]
    BlockLengths { first: u32, last: u32 },
    #[error("a pcapng section starts without a byte order mark")]
    ByteOrder,
    #[error("a pcapng section has version {0}, 1 is known")]
    SectionVersion(u16),
    #[error("more than {limit} interfaces are described")]
    TooManyInterfaces { limit: usize },
    #[error("cannot read: {0}")]
    Read(#[from] io::Error),
}

enum Format {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

/// Reads a capture file record by record, from a file or any other stream.
pub struct Reader {
    name: String,
    compression: Compression,
    buffer: Buffer,
    format: Format,
    packets: u64,
    /// The bytes of the last record, from the read position on.
    captured: std::ops::Range<usize>,
    /// Consumed with the next step, since until then the packet's bytes are borrowed.
    pending: usize,
    has_ended: bool,
}

impl Reader {
    /// A file, or standard input by the name `-`.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if path.as_os_str() == "-" {
            return Self::new(Box::new(io::stdin()), "standard input");
        }
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::new(Box::new(file), &name),
            Err(source) => Err(OpenError::Open { path: name, source }),
        }
    }

    /// Any stream of bytes; `name` stands for it in messages.
    pub fn new(input: Box<dyn Read + Send>, name: &str) -> Result<Self, OpenError> {
        let name = name.to_owned();
        let failed = |source| OpenError::Read { name: name.clone(), source };
        let (compression, input) = compression::decompress(input).map_err(failed)?;
        let mut buffer = Buffer::new(input);
        let start = buffer.up_to(4).map_err(failed)?;
        if start.is_empty() {
            return Err(OpenError::Empty { name });
        }
        let format = if start == pcapng::MAGIC {
            Format::Pcapng(Pcapng::default())
        } else {
            Format::Pcap(Pcap::open(&mut buffer, &name)?)
        };
        let (packets, pending, has_ended) = (0, 0, false);
        Ok(Self { name, compression, buffer, format, packets, captured: 0..0, pending, has_ended })
    }

    /// Steps to the next packet; nothing at the end of a file that is whole, and after damage.
    #[inline(always)]
    pub fn advance(&mut self) -> Result<Option<Record>, Damage> {
        self.buffer.consume(std::mem::take(&mut self.pending));
        self.captured = 0..0;
        if self.has_ended {
            return Ok(None);
        }
        let found = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.buffer),
            Format::Pcapng(pcapng) => pcapng.next(&mut self.buffer),
        };
        match found {
            Ok(Some(found)) => Ok(Some(self.record(&found))),
            Ok(None) => {
                self.has_ended = true;
                Ok(None)
            }
            Err(kind) => {
                self.has_ended = true;
                Err(self.damage(kind))
            }
        }
    }

    #[inline(always)]
    fn record(&mut self, found: &Found) -> Record {
        self.packets += 1;
        self.pending = found.size;
        self.captured = found.start..found.start + found.captured;
        Record {
            number: self.packets,
            interface: found.interface,
            link: found.link,
            time: found.time,
            direction: found.direction,
            // Some writers say less than they captured.
            length: (found.length as usize).max(found.captured),
        }
    }

    #[cold]
    fn damage(&self, kind: DamageKind) -> Damage {
        Damage {
            name: self.name.clone(),
            offset: self.buffer.offset(),
            packets: self.packets,
            compression: self.compression,
            kind,
        }
    }

    /// The bytes of the packet that [`Reader::advance`] stepped to.
    pub fn captured(&self) -> &[u8] {
        &self.buffer.ready()[self.captured.clone()]
    }

    /// The interfaces met so far: a pcapng file may describe more of them at any point.
    pub fn interfaces(&self) -> &[Interface] {
        match &self.format {
            Format::Pcap(pcap) => pcap.interfaces(),
            Format::Pcapng(pcapng) => pcapng.interfaces(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("name", &self.name)
            .field("packets", &self.packets)
            .finish_non_exhaustive()
    }
}
