//! Walks the MCAP records of a file or a pipe, and finds the next sound one behind damage.

use std::io::{self, Read};

use mcap::MAGIC;
use mcap::records::op;

use crate::format::MAX_CHUNK;

/// Opcode and length.
const PREFIX: usize = 9;
/// Bytes of a chunk record that stand around its data when it is compressed by zstd: times, sizes, checksum and
/// the name of the compression.
const CHUNK_HEAD: u64 = 44;
/// Bytes that it takes to tell a record's start from other bytes.
const SIGNATURE: usize = PREFIX + CHUNK_HEAD as usize;
const READ: usize = 256 << 10;

/// A record by its place: the body stands in the window until the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub offset: u64,
    pub opcode: u8,
    /// Bytes of the body.
    pub length: usize,
}

/// What stands at the current place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Record(Record),
    /// The input ends inside this record, or before it.
    Cut,
    /// No record can start so.
    Opcode(u8),
    Length(u8, u64),
}

/// A window over the input.
pub(crate) struct Scan {
    input: Box<dyn Read + Send>,
    window: Vec<u8>,
    /// Start of what was not consumed, and end of what was read, in the window.
    start: usize,
    end: usize,
    /// Place of the window's start in the input.
    offset: u64,
    at_end: bool,
    /// Over all bytes consumed.
    crc: crc32fast::Hasher,
}

impl Scan {
    pub fn new(input: Box<dyn Read + Send>) -> Self {
        let crc = crc32fast::Hasher::new();
        Self { input, window: Vec::new(), start: 0, end: 0, offset: 0, at_end: false, crc }
    }

    /// Where the next step looks.
    pub fn offset(&self) -> u64 {
        self.offset + self.start as u64
    }

    /// CRC-32 of everything before.
    pub fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// Up to `count` bytes from the current place; fewer only where the input ends.
    pub fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.end - self.start < count && !self.at_end {
            self.fill(count)?;
        }
        Ok(&self.window[self.start..self.end.min(self.start + count)])
    }

    fn fill(&mut self, count: usize) -> io::Result<()> {
        if self.start > 0 {
            self.window.copy_within(self.start..self.end, 0);
            self.offset += self.start as u64;
            self.end -= self.start;
            self.start = 0;
        }
        // Grows by what arrives and not by what a record promises.
        let room = (count - self.end).clamp(READ / 4, READ);
        if self.window.len() < self.end + room {
            self.window.resize(self.end + room, 0);
        }
        match self.input.read(&mut self.window[self.end..]) {
            Ok(0) => self.at_end = true,
            Ok(read) => self.end += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Moves on over bytes that were peeked.
    pub fn consume(&mut self, count: usize) {
        self.crc.update(&self.window[self.start..self.start + count]);
        self.start += count;
    }

    /// Whether the input starts as an MCAP file; moves past it.
    pub fn consume_magic(&mut self) -> io::Result<bool> {
        let is_there = self.peek(MAGIC.len())? == MAGIC;
        if is_there {
            self.consume(MAGIC.len());
        }
        Ok(is_there)
    }

    /// Looks at the record that starts here, without moving on.
    pub fn step(&mut self) -> io::Result<Step> {
        let offset = self.offset();
        let head = self.peek(SIGNATURE)?;
        let Some((opcode, length)) = prefix(head) else { return Ok(Step::Cut) };
        if !is_data_record(opcode) {
            return Ok(Step::Opcode(opcode));
        }
        if length > MAX_CHUNK || (opcode == op::DATA_END && length != 4) {
            return Ok(Step::Length(opcode, length));
        }
        if opcode == op::CHUNK && !chunk_lengths_agree(head, length) {
            return Ok(if head.len() < SIGNATURE { Step::Cut } else { Step::Length(opcode, length) });
        }
        let whole = PREFIX + length as usize;
        if self.peek(whole)?.len() < whole {
            return Ok(Step::Cut);
        }
        Ok(Step::Record(Record { offset, opcode, length: length as usize }))
    }

    /// The body of the record that [`Scan::step`] found here.
    pub fn body(&self, record: Record) -> &[u8] {
        &self.window[self.start + PREFIX..self.start + PREFIX + record.length]
    }

    /// Moves past that record.
    pub fn pass(&mut self, record: Record) {
        self.consume(PREFIX + record.length);
    }

    /// Moves on to the next place where a record can start, beyond the current one. False where there is none:
    /// then nothing is left.
    pub fn resume(&mut self) -> io::Result<bool> {
        let mut skip = 1;
        loop {
            let window = self.peek(READ)?;
            if window.len() <= skip {
                let rest = window.len();
                self.consume(rest);
                return Ok(false);
            }
            let is_last = window.len() < READ;
            let found = (skip..window.len()).find(|&at| starts_record(&window[at..]));
            // A record may start in the last bytes of a window and show only with the next.
            let stop = found.unwrap_or(if is_last { window.len() } else { window.len() - SIGNATURE });
            self.consume(stop);
            if found.is_some() {
                return Ok(true);
            }
            skip = 0;
        }
    }

    /// Everything that is left, up to `limit` bytes.
    pub fn rest(&mut self, limit: usize) -> io::Result<&[u8]> {
        self.peek(limit)
    }
}

fn prefix(head: &[u8]) -> Option<(u8, u64)> {
    let (opcode, rest) = head.split_first()?;
    let length = u64::from_le_bytes(*rest.first_chunk()?);
    Some((*opcode, length))
}

/// Records that stand before the end of the data. What we never write but other tools may: attachments, and the
/// indexes of messages.
fn is_data_record(opcode: u8) -> bool {
    matches!(
        opcode,
        op::HEADER
            | op::SCHEMA
            | op::CHANNEL
            | op::MESSAGE
            | op::CHUNK
            | op::MESSAGE_INDEX
            | op::ATTACHMENT
            | op::METADATA
            | op::DATA_END
    )
}

/// A chunk states the length of its data twice.
fn chunk_lengths_agree(head: &[u8], length: u64) -> bool {
    let number = |at: usize, bytes: usize| {
        let mut number = [0; 8];
        head.get(at..at + bytes).map(|slice| {
            number[..bytes].copy_from_slice(slice);
            u64::from_le_bytes(number)
        })
    };
    let Some(name) = number(PREFIX + 28, 4) else { return false };
    let Some(data) =
        usize::try_from(name).ok().filter(|name| *name <= 16).and_then(|name| number(PREFIX + 32 + name, 8))
    else {
        return false;
    };
    data.checked_add(40 + name) == Some(length)
}

/// Whether these bytes start a chunk, one of our metadata records, or the end of the data. False alarms take
/// nine agreeing bytes at the least.
fn starts_record(bytes: &[u8]) -> bool {
    let Some((opcode, length)) = prefix(bytes) else { return false };
    match opcode {
        op::CHUNK => length <= MAX_CHUNK && chunk_lengths_agree(bytes, length),
        op::METADATA => {
            length <= MAX_CHUNK && bytes.get(PREFIX + 4..).is_some_and(|name| name.starts_with(b"faultline"))
        }
        // A checksum of four bytes, and a record of the index or the footer.
        op::DATA_END => {
            length == 4
                && bytes
                    .get(PREFIX + 4..)
                    .and_then(prefix)
                    .is_some_and(|(opcode, length)| length <= MAX_CHUNK && is_summary_record(opcode))
        }
        _ => false,
    }
}

/// Records that stand behind the end of the data.
fn is_summary_record(opcode: u8) -> bool {
    matches!(
        opcode,
        op::FOOTER
            | op::SCHEMA
            | op::CHANNEL
            | op::CHUNK_INDEX
            | op::ATTACHMENT_INDEX
            | op::STATISTICS
            | op::METADATA_INDEX
            | op::SUMMARY_OFFSET
    )
}
