//! A capture file as packets: reader and dissector together, with everything counted.

use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use event::{Packet, Timestamp};

use crate::file::{Damage, Interface, OpenError, Reader, Record};
use crate::packet::{Dissector, Frame, Imperfect};
use crate::skip::{Skip, Skipped};
use crate::tunnel::Tunnel;

/// What was read so far, and what became of it: `read` = `used` + `skipped.total()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets in the file.
    pub read: u64,
    pub used: u64,
    pub skipped: Skipped,
    /// Packets whose time is earlier than that of the packet before them in the file.
    pub clock_steps_back: u64,
    /// Packets without a time of their own, or beyond the years 1678 to 2262: they count at the time of the
    /// packet before them, or at the Unix epoch where none came before.
    pub untimed: u64,
    /// Used, but not read in full.
    pub imperfect: Imperfect,
}

impl fmt::Display for Counts {
    /// One line: what was read and used, then only what did occur.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets read, {} used, {} skipped", self.read, self.used, self.skipped.total())?;
        let mut separator = " (";
        for (reason, count) in self.skipped.iter() {
            write!(f, "{separator}{count} {reason}")?;
            separator = ", ";
        }
        f.write_str(if separator == ", " { ")" } else { "" })?;
        let imperfect = [
            (self.clock_steps_back, "clock steps back"),
            (self.untimed, "without a time"),
            (self.imperfect.transport_cut, "with a cut transport header"),
            (self.imperfect.transport_malformed, "with a malformed TCP header"),
            (self.imperfect.tunnels_unread, "tunnels without readable IP"),
            (self.imperfect.fragments_unmatched, "fragments without their first"),
            (self.imperfect.lengths_clamped, "longer than 4 GiB"),
        ];
        for (count, what) in imperfect.iter().filter(|(count, _)| *count > 0) {
            write!(f, "; {count} {what}")?;
        }
        Ok(())
    }
}

/// One packet of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub packet: Packet,
    /// Counted from 1 over all packets of the file, the skipped ones too. Wireshark numbers them so, but it
    /// also gives numbers to the custom blocks of pcapng files, which are not packets.
    pub number: u64,
    /// As far as captured: shorter than `packet.payload_length` where the snap length cut it.
    pub payload: &'a [u8],
}

/// Packets in the order of the file. Times may step back; whoever needs order sorts or merges.
pub struct Capture {
    reader: Reader,
    dissector: Dissector,
    counts: Counts,
    last_time: Option<Timestamp>,
}

impl Capture {
    /// A file, or standard input by the name `-`.
    pub fn open(path: &Path, tunnel: Tunnel) -> Result<Self, OpenError> {
        Ok(Self::over(Reader::open(path)?, tunnel))
    }

    /// Any stream of bytes; `name` stands for it in messages.
    pub fn new(input: Box<dyn Read + Send>, name: &str, tunnel: Tunnel) -> Result<Self, OpenError> {
        Ok(Self::over(Reader::new(input, name)?, tunnel))
    }

    fn over(reader: Reader, tunnel: Tunnel) -> Self {
        Self { reader, dissector: Dissector::new(tunnel), counts: Counts::default(), last_time: None }
    }

    /// The next packet that could be read; nothing at the end of a file that is whole. After damage there
    /// is nothing more to read.
    #[expect(clippy::should_implement_trait, reason = "an item borrows the buffer it stands in")]
    pub fn next(&mut self) -> Result<Option<Seen<'_>>, Damage> {
        let mut packet = Packet::default();
        let Some(payload) = self.find(&mut packet)? else { return Ok(None) };
        let payload = &self.reader.captured()[payload];
        Ok(Some(Seen { packet, number: self.counts.read, payload }))
    }

    /// The same into a place of the caller's, for those who want speed; gives the payload. The place holds nothing of
    /// use where there is none.
    pub fn next_into(&mut self, packet: &mut Packet) -> Result<Option<&[u8]>, Damage> {
        let payload = self.find(packet)?;
        Ok(payload.map(|payload| &self.reader.captured()[payload]))
    }

    /// Fills in the next readable packet; gives where its payload stands in the captured bytes.
    #[inline(always)]
    fn find(&mut self, packet: &mut Packet) -> Result<Option<Range<usize>>, Damage> {
        while let Some(record) = self.reader.advance()? {
            self.counts.read += 1;
            let time = self.timed(&record);
            let Some(link) = record.link else {
                self.counts.skipped.count(Skip::UnknownInterface);
                continue;
            };
            let captured = self.reader.captured();
            let frame = Frame {
                time,
                interface: record.interface,
                link,
                direction: record.direction,
                captured,
                length: record.length,
            };
            match self.dissector.dissect_into(&frame, packet) {
                Ok(payload) => {
                    self.counts.used += 1;
                    return Ok(Some(place(payload, captured)));
                }
                Err(reason) => self.counts.skipped.count(reason),
            }
        }
        Ok(None)
    }

    #[inline(always)]
    fn timed(&mut self, record: &Record) -> Timestamp {
        let Some(time) = record.time else {
            self.counts.untimed += 1;
            return self.last_time.unwrap_or(Timestamp::UNIX_EPOCH);
        };
        if self.last_time.is_some_and(|last| time < last) {
            self.counts.clock_steps_back += 1;
        }
        self.last_time = Some(time);
        time
    }

    pub fn counts(&self) -> Counts {
        Counts { imperfect: self.dissector.imperfect(), ..self.counts }
    }

    /// The interfaces met so far: a pcapng file may describe more of them at any point.
    pub fn interfaces(&self) -> &[Interface] {
        self.reader.interfaces()
    }

    /// The name that stands for this input in messages.
    pub fn name(&self) -> &str {
        self.reader.name()
    }
}

/// Where `part` stands in `whole`, which it is borrowed from; safe code has no other way to ask.
fn place(part: &[u8], whole: &[u8]) -> Range<usize> {
    if part.is_empty() {
        return 0..0;
    }
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}
