//! Reads recordings, whole, cut or damaged.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use event::{Event, Packet, Source, Timestamp};
use mcap::records::{self, op};

use crate::channel::{self, CHANNELS, Counts};
use crate::format::{MAX_CHUNK, PROFILE, VERSION, metadata};
use crate::header::{self, MAX_INTERFACES};
use crate::kernel;
use crate::lengths;
use crate::message::KernelMessage;
use crate::packets::Decoder;
use crate::scan::{Record, Scan, Step};
use crate::{ClockPair, Damage, Error, Fault, Header, Interface, message};

/// How the input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its footer: the writer finished.
    Complete,
    /// Before its footer: the writer was interrupted, or the file was cut.
    Cut {
        /// Everything before this byte was read; from it on, no whole record is left.
        offset: u64,
        /// Latest arrival before the cut; absent where there is no event before it.
        time: Option<Timestamp>,
    },
}

/// What was read, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Absent until everything is read.
    pub end: Option<End>,
    pub damage: Vec<Damage>,
    /// Events read.
    pub counts: Counts,
    /// Events that were written and are not readable. Behind the last readable chunk of a cut file nothing is
    /// known, so that they are not counted there.
    pub lost: Counts,
    /// Events of kinds that a newer minor version added.
    pub unknown: u64,
    /// Bytes read.
    pub bytes: u64,
}

impl Report {
    /// Whether all that was written was read.
    pub fn is_whole(&self) -> bool {
        self.end == Some(End::Complete) && self.damage.is_empty() && self.lost.total() == 0
    }

    /// One line for everything that keeps the recording from being whole.
    pub fn complaints(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.damage.iter().map(ToString::to_string).collect();
        if let Some(End::Cut { offset, time }) = self.end {
            let time = time.map_or("no event before it".to_owned(), |time| format!("last event at {time}"));
            lines.push(format!("cut at byte {offset}, {time}: it was not finished, or is incomplete"));
        }
        if self.lost.total() > 0 {
            lines.push(format!("missing for that: {}", self.lost));
        }
        if self.unknown > 0 {
            lines.push(format!("{} events of kinds that only a newer version knows", self.unknown));
        }
        lines
    }
}

/// What comes next: packets in runs, because they are many, and other events one by one.
#[derive(Debug)]
pub enum Item<'a> {
    Packets(&'a [Packet]),
    Event(Event),
}

/// Reads one recording.
pub struct Reader {
    path: PathBuf,
    scan: Scan,
    header: Header,
    has_header: bool,
    report: Report,
    last_arrival: Option<Timestamp>,
    /// What each channel id of the file stands for.
    sources: BTreeMap<u16, Source>,
    schemas: BTreeMap<u16, String>,
    /// Per channel: events up to the end of the last message read, by the file's own count.
    counters: [u32; CHANNELS.len()],
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    /// Messages of the current chunk, and the batches of packets in them that are not yet decoded.
    chunk: Vec<u8>,
    batches: VecDeque<Batch>,
    /// Events other than packets, with the number of packets before them.
    others: VecDeque<(Event, u64)>,
    /// Of the chunk at hand: the kernel events of its batches, and its messages that are no batch, until both are
    /// put together. Those that no event came of count too.
    kernel: VecDeque<kernel::Placed>,
    rows: Vec<Option<(Event, u64)>>,
    decoder: Decoder,
    packets: Vec<Packet>,
    /// The next packet in `packets`, and its number in the file.
    next: usize,
    ordinal: u64,
    /// The packets of the last run that [`Reader::next_event`] has not handed out.
    run: std::ops::Range<usize>,
}

/// A message of packets in the chunk.
struct Batch {
    sequence: u32,
    start: usize,
    end: usize,
    /// Place of the chunk in the file.
    offset: u64,
}

impl Reader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::WrongMagic`], [`Error::NotARecording`], [`Error::UnknownVersion`],
    /// [`Error::Read`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Self::new(Box::new(file), path)
    }

    /// Reads from any input, such as a pipe; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn new(input: Box<dyn Read + Send>, name: impl AsRef<Path>) -> Result<Self, Error> {
        let mut reader = Self {
            path: name.as_ref().to_owned(),
            scan: Scan::new(input),
            header: Header::default(),
            has_header: false,
            report: Report::default(),
            last_arrival: None,
            sources: CHANNELS.iter().map(|channel| (channel::id(channel.source), channel.source)).collect(),
            schemas: BTreeMap::new(),
            counters: [0; CHANNELS.len()],
            decompressor: None,
            chunk: Vec::new(),
            batches: VecDeque::new(),
            others: VecDeque::new(),
            kernel: VecDeque::new(),
            rows: Vec::new(),
            decoder: Decoder::default(),
            packets: Vec::new(),
            next: 0,
            ordinal: 0,
            run: 0..0,
        };
        reader.read_header()?;
        Ok(reader)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn report(&self) -> &Report {
        &self.report
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next packets or the next event, in the order in which they were written; `None` at the end, of which
    /// [`Reader::report`] then tells.
    ///
    /// # Errors
    /// [`Error::Read`] where the input fails. Damage is no error: it is passed over and reported.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, Error> {
        loop {
            let left = self.packets.len() - self.next;
            let ordinal = self.ordinal;
            let gap = self.others.front().map(|(_, before)| before.saturating_sub(ordinal));
            if left == 0 && !self.batches.is_empty() && gap != Some(0) {
                self.decode_batch();
            } else if left > 0 && gap != Some(0) {
                let run = gap.map_or(left, |gap| left.min(usize::try_from(gap).unwrap_or(left)));
                let from = self.next;
                self.next += run;
                self.ordinal += run as u64;
                self.report.counts.add(Source::Packets, run as u64);
                return Ok(Some(Item::Packets(&self.packets[from..from + run])));
            } else if let Some((event, _)) = self.others.pop_front() {
                self.report.counts.add(event.source(), 1);
                return Ok(Some(Item::Event(event)));
            } else if !self.read_record()? {
                return Ok(None);
            }
        }
    }

    /// The next event, packets too. Not to be mixed with [`Reader::next_item`], which passes over the rest of a run.
    ///
    /// # Errors
    /// As [`Reader::next_item`].
    pub fn next_event(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(next) = self.run.next() {
                return Ok(Some(Event::Packet(self.packets[next])));
            }
            let run = match self.next_item()? {
                Some(Item::Packets(packets)) => packets.len(),
                Some(Item::Event(event)) => return Ok(Some(event)),
                None => return Ok(None),
            };
            self.run = self.next - run..self.next;
        }
    }

    /// All events one by one.
    pub fn events(&mut self) -> Events<'_> {
        Events(self)
    }

    /// Reads up to the first chunk that holds events, which stands after everything about the node.
    fn read_header(&mut self) -> Result<(), Error> {
        if !self.read_from(Scan::consume_magic)? {
            return Err(Error::WrongMagic { path: self.path.clone() });
        }
        while self.batches.is_empty() && self.others.is_empty() && self.read_record()? {}
        if !self.has_header {
            self.damage(0, 0, Fault::NoHeader);
        }
        Ok(())
    }

    fn read_from<T>(&mut self, read: impl FnOnce(&mut Scan) -> io::Result<T>) -> Result<T, Error> {
        read(&mut self.scan).map_err(|source| Error::Read {
            path: self.path.clone(),
            offset: self.scan.offset(),
            source,
        })
    }

    fn damage(&mut self, offset: u64, length: u64, fault: Fault) {
        self.report.damage.push(Damage { offset, length, fault });
    }

    /// Takes one record in. False at the end.
    fn read_record(&mut self) -> Result<bool, Error> {
        if self.report.end.is_some() {
            return Ok(false);
        }
        let offset = self.scan.offset();
        let fault = match self.read_from(Scan::step)? {
            Step::Record(record) => match self.take_record(record)? {
                None => return Ok(self.report.end.is_none()),
                Some(fault) if is_framed(&fault) => {
                    // Its length is sound, so that the next record stands behind it.
                    self.scan.pass(record);
                    self.damage(offset, self.scan.offset() - offset, fault);
                    return Ok(true);
                }
                Some(fault) => fault,
            },
            Step::Cut => return self.read_cut(offset),
            Step::Opcode(opcode) => Fault::Opcode { opcode },
            Step::Length(opcode, length) => Fault::RecordLength { opcode, length },
        };
        let goes_on = self.read_from(Scan::resume)?;
        self.damage(offset, self.scan.offset() - offset, fault);
        if !goes_on {
            self.end(End::Cut { offset, time: self.last_arrival });
        }
        Ok(goes_on)
    }

    /// The input ends inside the record at `offset`; unless its length is what is damaged.
    fn read_cut(&mut self, offset: u64) -> Result<bool, Error> {
        let goes_on = self.read_from(Scan::resume)?;
        if goes_on {
            let length = self.scan.offset() - offset;
            self.damage(
                offset,
                length,
                Fault::Record { opcode: 0, reason: "it reaches beyond the end".into() },
            );
        } else {
            self.end(End::Cut { offset, time: self.last_arrival });
        }
        Ok(goes_on)
    }

    fn end(&mut self, end: End) {
        self.report.end = Some(end);
        self.report.bytes = self.scan.offset();
    }

    /// Takes in what a record says and moves past it, or tells what is wrong with it.
    fn take_record(&mut self, record: Record) -> Result<Option<Fault>, Error> {
        let fault = match record.opcode {
            op::CHUNK => self.take_chunk(record),
            op::DATA_END => return self.take_data_end(record),
            op::METADATA => self.take_metadata(record)?.err(),
            op::HEADER => return self.take_mcap_header(record),
            _ => {
                let body = self.scan.body(record).to_vec();
                self.take_in(record.opcode, &body).err()
            }
        };
        if fault.is_none() {
            self.scan.pass(record);
        }
        Ok(fault)
    }

    fn take_mcap_header(&mut self, record: Record) -> Result<Option<Fault>, Error> {
        match parse(record.opcode, self.scan.body(record)) {
            Ok(records::Record::Header(header)) if header.profile == PROFILE => {
                self.scan.pass(record);
                Ok(None)
            }
            Ok(records::Record::Header(header)) => {
                Err(Error::NotARecording { path: self.path.clone(), profile: header.profile })
            }
            Ok(_) => Ok(Some(Fault::Opcode { opcode: record.opcode })),
            Err(fault) => Ok(Some(fault)),
        }
    }

    fn take_metadata(&mut self, record: Record) -> Result<Result<(), Fault>, Error> {
        let parsed = parse(record.opcode, self.scan.body(record));
        let mut metadata = match parsed {
            Ok(records::Record::Metadata(metadata)) => metadata,
            Ok(_) => return Ok(Err(Fault::Opcode { opcode: record.opcode })),
            Err(fault) => return Ok(Err(fault)),
        };
        if !metadata.name.starts_with(metadata::HEADER) {
            // Another tool's own.
            return Ok(Ok(()));
        }
        // A damaged length must not swallow what follows: the record is as long as its texts.
        if header::length(&metadata) != record.length || !header::unseal(&mut metadata) {
            return Ok(Err(Fault::BadMetadata { name: metadata.name }));
        }
        let (name, pairs) = (metadata.name, metadata.metadata);
        let taken = match name.as_str() {
            metadata::HEADER => self.header.read_pairs(&pairs),
            metadata::INTERFACE => Interface::from_pairs(&pairs)
                .filter(|(place, _)| *place < MAX_INTERFACES)
                .map(|(place, interface)| self.header.set_interface(place, interface)),
            metadata::CLOCK => ClockPair::from_pairs(&pairs).map(|clock| self.header.clocks.push(clock)),
            metadata::EXTRA => {
                self.header.metadata.extend(pairs);
                Some(())
            }
            metadata::END => self.take_end_counts(&pairs),
            // A newer minor version's own.
            _ => Some(()),
        };
        if name == metadata::HEADER {
            self.has_header = taken.is_some();
            if self.has_header && self.header.version.major != VERSION.major {
                let (path, found) = (self.path.clone(), self.header.version);
                return Err(Error::UnknownVersion { path, offset: record.offset, found });
            }
        }
        Ok(taken.ok_or(Fault::BadMetadata { name }))
    }

    /// The writer's own counts show what is missing at the end.
    fn take_end_counts(&mut self, pairs: &BTreeMap<String, String>) -> Option<()> {
        for (place, channel) in CHANNELS.iter().enumerate() {
            let written: u64 = pairs.get(channel.topic)?.parse().ok()?;
            let missing = (written as u32).wrapping_sub(self.counters[place]);
            self.report.lost.add(channel.source, missing.into());
            self.counters[place] = written as u32;
        }
        Some(())
    }

    fn take_chunk(&mut self, record: Record) -> Option<Fault> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let unpacked = unpack(self.scan.body(record), &mut self.decompressor, &mut chunk);
        if unpacked.is_ok()
            && let Err(fault) = self.take_messages(record.offset, &chunk)
        {
            self.damage(record.offset, 0, fault);
        }
        self.line_up();
        self.chunk = chunk;
        unpacked.err()
    }

    /// Puts the events of the chunk other than packets into the order in which they were written.
    fn line_up(&mut self) {
        let Self { kernel, rows, others, .. } = self;
        let kernel_event =
            |placed: kernel::Placed| placed.event.map(|event| (Event::Kernel(event), placed.packets_before));
        let mut kernel = kernel.drain(..).peekable();
        for (place, row) in (0..).zip(rows.drain(..)) {
            while let Some(placed) = kernel.next_if(|placed| placed.others_before <= place) {
                others.extend(kernel_event(placed));
            }
            others.extend(row);
        }
        others.extend(kernel.filter_map(kernel_event));
    }

    /// The records of a chunk whose checksum is right.
    fn take_messages(&mut self, offset: u64, chunk: &[u8]) -> Result<(), Fault> {
        let mut at = 0;
        while at < chunk.len() {
            let malformed = |reason: &str| Fault::Record { opcode: op::CHUNK, reason: reason.to_owned() };
            let head = chunk.get(at..at + 9).ok_or_else(|| malformed("a record in it is cut"))?;
            let length = head[1..].iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
            let start = at + 9;
            let end = usize::try_from(length)
                .ok()
                .and_then(|length| start.checked_add(length))
                .filter(|end| *end <= chunk.len())
                .ok_or_else(|| malformed("a record in it reaches beyond it"))?;
            let body = &chunk[start..end];
            if let Err(fault) = self.take_in_chunk(offset, head[0], body, start) {
                self.damage(offset, 0, fault);
            }
            at = end;
        }
        Ok(())
    }

    fn take_in_chunk(&mut self, offset: u64, opcode: u8, body: &[u8], start: usize) -> Result<(), Fault> {
        if opcode == op::MESSAGE {
            let records::Record::Message { header, data } = parse(opcode, body)? else {
                return Err(Fault::Opcode { opcode });
            };
            let start = start + (body.len() - data.len());
            return self.take_message(offset, header, &data, start);
        }
        self.take_in(opcode, body)
    }

    /// A record that may stand inside a chunk or outside, other than a message.
    fn take_in(&mut self, opcode: u8, body: &[u8]) -> Result<(), Fault> {
        match parse(opcode, body)? {
            records::Record::Schema { header, .. } => {
                self.schemas.insert(header.id, header.name);
                Ok(())
            }
            records::Record::Channel(channel) => self.take_channel(&channel),
            records::Record::MessageIndex(_) | records::Record::Attachment { .. } => Ok(()),
            _ => Err(Fault::Opcode { opcode }),
        }
    }

    /// Channels that are not ours are another tool's own.
    fn take_channel(&mut self, channel: &records::Channel) -> Result<(), Fault> {
        self.sources.remove(&channel.id);
        let Some(ours) = CHANNELS.iter().find(|ours| ours.topic == channel.topic) else { return Ok(()) };
        let found = self.schemas.get(&channel.schema_id).map_or("", String::as_str);
        if found != ours.schema || channel.message_encoding != "protobuf" {
            return Err(Fault::Schema {
                topic: channel.topic.clone(),
                expected: ours.schema.to_owned(),
                found: format!("{found} ({})", channel.message_encoding),
            });
        }
        self.sources.insert(channel.id, ours.source);
        Ok(())
    }

    fn take_message(
        &mut self,
        offset: u64,
        header: records::MessageHeader,
        data: &[u8],
        start: usize,
    ) -> Result<(), Fault> {
        let source =
            *self.sources.get(&header.channel_id).ok_or(Fault::UnknownChannel { id: header.channel_id })?;
        let arrival = i64::try_from(header.log_time).map_or(Timestamp::MAX, Timestamp::from_nanos);
        self.last_arrival = self.last_arrival.max(Some(arrival));
        let decoded = match source {
            Source::Packets => {
                let end = start + data.len();
                self.batches.push_back(Batch { sequence: header.sequence, start, end, offset });
                return Ok(());
            }
            Source::Kernel => match message::decode_kernel(data) {
                Ok(KernelMessage::Batch(batch)) => return self.take_kernel(header.sequence, &batch),
                Ok(KernelMessage::One(placed)) => Ok(placed),
                Err(error) => Err(error),
            },
            Source::L7 => message::decode_l7(data),
            Source::System => message::decode_system(data),
            Source::Marks => message::decode_mark(data),
            Source::Loss => message::decode_loss(data),
        };
        // Whatever it holds, it has a place among the others.
        self.rows.push(None);
        let (event, before) = decoded
            .map_err(|reason| Fault::Message { topic: CHANNELS[channel::place(source)].topic, reason })?;
        self.count(source, header.sequence, 1)?;
        match event {
            Some(event) => self.rows.last_mut().map_or((), |row| *row = Some((event, before))),
            None => self.report.unknown += 1,
        }
        Ok(())
    }

    fn take_kernel(&mut self, sequence: u32, batch: &kernel::Columns) -> Result<(), Fault> {
        let malformed =
            |reason| Fault::Batch { topic: CHANNELS[channel::place(Source::Kernel)].topic, reason };
        let events = kernel::decode(batch).map_err(malformed)?;
        self.count(Source::Kernel, sequence, events.len() as u32)?;
        self.report.unknown += events.iter().filter(|placed| placed.event.is_none()).count() as u64;
        self.kernel.extend(events);
        Ok(())
    }

    /// Compares the file's own counter with ours: the difference is what cannot be read.
    fn count(&mut self, source: Source, sequence: u32, events: u32) -> Result<u32, Fault> {
        let place = channel::place(source);
        let expected = self.counters[place];
        let missing = sequence.wrapping_sub(expected);
        self.counters[place] = sequence.wrapping_add(events);
        if missing > u32::MAX / 2 {
            return Err(Fault::Counter { topic: CHANNELS[place].topic, expected, found: sequence });
        }
        self.report.lost.add(source, missing.into());
        Ok(missing)
    }

    fn decode_batch(&mut self) {
        let Some(batch) = self.batches.pop_front() else { return };
        self.packets.clear();
        self.next = 0;
        let decoded = self.decoder.decode(&self.chunk[batch.start..batch.end], &mut self.packets);
        let counted = match decoded {
            Ok(()) => self.count(Source::Packets, batch.sequence, self.packets.len() as u32),
            Err(reason) => {
                Err(Fault::Batch { topic: CHANNELS[channel::place(Source::Packets)].topic, reason })
            }
        };
        match counted {
            Ok(missing) => self.ordinal += u64::from(missing),
            Err(fault) => self.damage(batch.offset, 0, fault),
        }
    }

    fn take_data_end(&mut self, record: Record) -> Result<Option<Fault>, Error> {
        let stated = self.scan.body(record).first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let found = self.scan.crc();
        let offset = record.offset;
        self.scan.pass(record);
        if stated != 0 && stated != found && self.report.damage.is_empty() {
            self.damage(0, offset, Fault::BadDataCrc { stated, found });
        }
        self.read_summary()?;
        Ok(None)
    }

    /// The index and the footer: nothing in them is needed, but their presence says that the writer finished.
    fn read_summary(&mut self) -> Result<(), Error> {
        let offset = self.scan.offset();
        let rest = self.read_from(|scan| scan.rest(MAX_CHUNK as usize).map(<[u8]>::to_vec))?;
        let end = offset + rest.len() as u64;
        if rest.ends_with(mcap::MAGIC) {
            if !is_sound_summary(&rest) {
                self.damage(offset, rest.len() as u64, Fault::Summary);
            }
            self.scan.consume(rest.len());
            self.end(End::Complete);
        } else {
            self.scan.consume(rest.len());
            self.end(End::Cut { offset: end, time: self.last_arrival });
        }
        Ok(())
    }
}

/// Faults inside a record whose boundaries are sound.
fn is_framed(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::BadCrc { .. } | Fault::Bomb { .. } | Fault::Decompress { .. } | Fault::Compression { .. }
    )
}

/// The chunk's records into `chunk`, checked.
fn unpack(
    body: &[u8],
    decompressor: &mut Option<zstd::bulk::Decompressor<'static>>,
    chunk: &mut Vec<u8>,
) -> Result<(), Fault> {
    chunk.clear();
    let records::Record::Chunk { header, data } = parse(op::CHUNK, body)? else {
        return Err(Fault::Opcode { opcode: op::CHUNK });
    };
    if header.uncompressed_size > MAX_CHUNK {
        return Err(Fault::Bomb { size: header.uncompressed_size });
    }
    let size = header.uncompressed_size as usize;
    let failed =
        |error: io::Error| Fault::Decompress { stated: header.uncompressed_size, reason: error.to_string() };
    match header.compression.as_str() {
        "" => chunk.extend_from_slice(&data),
        "zstd" => {
            let decompressor = match decompressor {
                Some(decompressor) => decompressor,
                none => none.insert(zstd::bulk::Decompressor::new().map_err(failed)?),
            };
            chunk.reserve(size);
            decompressor.decompress_to_buffer(&data, chunk).map_err(failed)?;
        }
        name => return Err(Fault::Compression { name: name.to_owned() }),
    }
    if chunk.len() != size {
        let reason = format!("it unpacks to {}", chunk.len());
        return Err(Fault::Decompress { stated: header.uncompressed_size, reason });
    }
    let found = crc32fast::hash(chunk);
    if header.uncompressed_crc != 0 && found != header.uncompressed_crc {
        return Err(Fault::BadCrc { stated: header.uncompressed_crc, found });
    }
    Ok(())
}

/// Whether summary, footer and their checksum agree.
fn is_sound_summary(rest: &[u8]) -> bool {
    // Opcode, length, two offsets and the checksum, then the magic bytes.
    const FOOTER: usize = 9 + 20;
    let Some(at) = rest.len().checked_sub(FOOTER + mcap::MAGIC.len()) else { return false };
    if rest[at] != op::FOOTER {
        return false;
    }
    match mcap::parse_record(op::FOOTER, &rest[at + 9..at + FOOTER]) {
        Ok(records::Record::Footer(footer)) => {
            footer.summary_crc == 0 || footer.summary_crc == crc32fast::hash(&rest[..at + FOOTER - 4])
        }
        _ => false,
    }
}

/// All events of a recording, one by one. Replay of many packets is faster by [`Reader::next_item`].
pub struct Events<'a>(&'a mut Reader);

impl Iterator for Events<'_> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_event().transpose()
    }
}

/// A record as the `mcap` crate tells it, where the lengths inside are true.
fn parse(opcode: u8, body: &[u8]) -> Result<records::Record<'_>, Fault> {
    if !lengths::fit(opcode, body) {
        let reason = "a length inside it goes beyond its end".to_owned();
        return Err(Fault::Record { opcode, reason });
    }
    mcap::parse_record(opcode, body).map_err(|error| Fault::Record { opcode, reason: error.to_string() })
}
