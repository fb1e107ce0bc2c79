//! Writes recordings.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use event::{Duration, Event, KernelEvent, Packet, Source, Timestamp};
use mcap::records::MessageHeader;
use mcap::write::NoSeek;

use crate::channel::{self, CHANNELS, Counts};
use crate::format::{LIBRARY, PROFILE, metadata};
use crate::header::{self, Pairs};
use crate::kernel;
use crate::message;
use crate::packets::{self, Encoder};
use crate::target::{Pending, Room, Target};
use crate::{ClockPair, Error, Header, Interface};

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// zstd's level.
    pub level: u32,
    /// A chunk ends when its first event arrived this long ago: what a crash can cost. `None` ends chunks by
    /// size alone, for captures that are already safe elsewhere.
    pub flush_after: Option<Duration>,
    /// Most packets in one message; at most 65536.
    pub batch: usize,
    /// A chunk ends when its messages reach this many bytes before compression.
    pub chunk: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { level: 6, flush_after: Some(Duration::from_secs(1)), batch: 32_768, chunk: 1 << 20 }
    }
}

/// What a finished recording holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub counts: Counts,
    /// Length of the file.
    pub bytes: u64,
}

/// Writes one recording. Dropped without [`Writer::finish`], it leaves a file that ends after its last whole
/// chunk, as after a crash.
pub struct Writer {
    path: PathBuf,
    target: Target,
    /// Bytes appended so far; all of them whole records.
    written: u64,
    failed: bool,
    /// Nothing but the reserve is left: no more events are taken, and what is there can be finished.
    is_full: bool,
    pending: Pending,
    container: Option<mcap::Writer<NoSeek<Pending>>>,
    options: Options,
    batch: Encoder,
    /// Earliest time and latest arrival in the batch.
    batch_span: (Timestamp, Timestamp),
    kernel: KernelBatch,
    counts: Counts,
    /// Packets whose batch is in a chunk.
    packets_encoded: u64,
    /// Messages in the chunk that are no batch.
    chunk_others: u64,
    /// Arrival of the first event since the last flush, and the bytes of messages since.
    chunk_start: Option<Timestamp>,
    chunk_bytes: usize,
    interfaces: usize,
}

/// The kernel events that wait for their batch to end.
#[derive(Default)]
struct KernelBatch {
    encoder: kernel::Encoder,
    /// Time and arrival of the first, and the packets before it.
    first: Option<(Timestamp, Timestamp, u64)>,
    earliest: Timestamp,
    latest_arrival: Timestamp,
    /// Events whose batch is in a chunk.
    encoded: u64,
}

impl Writer {
    /// Creates the file, which must not exist yet, and writes the header.
    ///
    /// # Errors
    /// [`Error::Create`] where it exists or cannot be made, [`Error::Write`], [`Error::DiskFull`].
    pub fn create(path: impl AsRef<Path>, header: &Header, options: Options) -> Result<Self, Error> {
        let path = path.as_ref();
        let file =
            File::create_new(path).map_err(|source| Error::Create { path: path.to_owned(), source })?;
        Self::new(Target::file(file), path, header, options)
    }

    /// Writes to a stream; `name` stands for the path in errors.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn to_stream(
        stream: Box<dyn Write + Send>,
        name: impl AsRef<Path>,
        header: &Header,
        options: Options,
    ) -> Result<Self, Error> {
        Self::new(Target::Stream(stream), name.as_ref(), header, options)
    }

    fn new(target: Target, path: &Path, header: &Header, options: Options) -> Result<Self, Error> {
        let pending = Pending::default();
        let options = Options { batch: options.batch.clamp(1, packets::MAX_BATCH), ..options };
        let container = mcap::WriteOptions::new()
            .profile(PROFILE)
            .library(LIBRARY)
            .compression(Some(mcap::Compression::Zstd))
            .compression_level(options.level)
            .compression_threads(0)
            .chunk_size(None)
            .disable_seeking(true)
            // A chunk holds a few large messages: an index of them would weigh more than it saves.
            .emit_message_indexes(false)
            .create(NoSeek::new(pending.clone()))
            .map_err(|error| chunk_error(path, error))?;
        let mut writer = Self {
            path: path.to_owned(),
            target,
            written: 0,
            failed: false,
            is_full: false,
            pending,
            container: Some(container),
            options,
            batch: Encoder::default(),
            batch_span: (Timestamp::MAX, Timestamp::MIN),
            kernel: KernelBatch::default(),
            counts: Counts::default(),
            packets_encoded: 0,
            chunk_others: 0,
            chunk_start: None,
            chunk_bytes: 0,
            interfaces: 0,
        };
        writer.write_header(header)?;
        Ok(writer)
    }

    fn write_header(&mut self, header: &Header) -> Result<(), Error> {
        self.put_metadata(metadata::HEADER, header.to_pairs())?;
        for clock in &header.clocks {
            self.put_metadata(metadata::CLOCK, clock.to_pairs())?;
        }
        for interface in &header.interfaces {
            self.put_metadata(metadata::INTERFACE, interface.to_pairs(self.interfaces))?;
            self.interfaces += 1;
        }
        if !header.metadata.is_empty() {
            self.put_metadata(metadata::EXTRA, header.metadata.clone())?;
        }
        self.declare_channels()?;
        self.append()
    }

    fn declare_channels(&mut self) -> Result<(), Error> {
        let path = self.path.clone();
        let container = self.container()?;
        for channel in &CHANNELS {
            let declared = container
                .add_schema(channel.schema, "protobuf", message::descriptors(channel.source))
                .and_then(|schema| container.add_channel(schema, channel.topic, "protobuf", &BTreeMap::new()))
                .map_err(|error| chunk_error(&path, error))?;
            debug_assert_eq!(declared, channel::id(channel.source));
        }
        container.flush().map_err(|error| chunk_error(&path, error))
    }

    /// Takes one event in. It is in the file by the next flush: at most a second later while [`Writer::tick`]
    /// is called.
    ///
    /// # Errors
    /// [`Error::DiskFull`] when nothing but the space for the end of the file is left: this event is not taken, and
    /// [`Writer::finish`] makes a whole recording of those before. [`Error::Write`] for any other reason, and
    /// [`Error::Failed`] after it.
    pub fn write(&mut self, event: &Event) -> Result<(), Error> {
        match event {
            Event::Packet(packet) => self.write_packet(packet),
            Event::Kernel(event) => self.write_kernel(event),
            event => self.write_other(event),
        }
    }

    /// [`Writer::write`] for a packet.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn write_packet(&mut self, packet: &Packet) -> Result<(), Error> {
        self.begin_event(packet.arrival)?;
        self.batch.push(packet);
        self.counts.add(Source::Packets, 1);
        let (first, last) = self.batch_span;
        self.batch_span = (first.min(packet.time), last.max(packet.arrival));
        if self.batch.len() >= self.options.batch {
            self.end_batch()?;
        }
        Ok(())
    }

    fn write_kernel(&mut self, event: &KernelEvent) -> Result<(), Error> {
        self.begin_event(event.arrival)?;
        let packets_before = self.counts.get(Source::Packets);
        let batch = &mut self.kernel;
        if batch.first.is_none() {
            batch.first = Some((event.time, event.arrival, packets_before));
            (batch.earliest, batch.latest_arrival) = (event.time, event.arrival);
        }
        batch.encoder.push(event, packets_before, self.chunk_others);
        batch.earliest = batch.earliest.min(event.time);
        batch.latest_arrival = batch.latest_arrival.max(event.arrival);
        self.counts.add(Source::Kernel, 1);
        if self.kernel.encoder.len() >= self.options.batch {
            self.end_kernel_batch()?;
        }
        Ok(())
    }

    fn write_other(&mut self, event: &Event) -> Result<(), Error> {
        self.begin_event(event.arrival())?;
        let message = message::encode(event, self.counts.get(Source::Packets));
        let source = event.source();
        let sequence = self.counts.get(source);
        self.put_message(source, sequence, event.arrival(), event.time(), &message)?;
        self.chunk_others += 1;
        self.counts.add(source, 1);
        Ok(())
    }

    /// Ends the chunk where this event is past its time or its size.
    fn begin_event(&mut self, arrival: Timestamp) -> Result<(), Error> {
        if self.failed {
            return Err(Error::Failed { path: self.path.clone(), offset: self.written });
        }
        if self.is_full {
            return Err(Error::DiskFull { path: self.path.clone(), offset: self.written });
        }
        self.tick(arrival)?;
        if self.chunk_bytes >= self.options.chunk {
            self.flush()?;
        }
        self.chunk_start.get_or_insert(arrival);
        Ok(())
    }

    /// Ends the chunk where its first event arrived [`Options::flush_after`] before `now`. To be called a few
    /// times a second while no events come.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn tick(&mut self, now: Timestamp) -> Result<(), Error> {
        match (self.chunk_start, self.options.flush_after) {
            (Some(start), Some(span)) if now - start >= span => self.flush(),
            _ => Ok(()),
        }
    }

    /// Ends the chunk and hands it to the operating system.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.end_batch()?;
        self.end_kernel_batch()?;
        let path = self.path.clone();
        self.container()?.flush().map_err(|error| chunk_error(&path, error))?;
        (self.chunk_start, self.chunk_bytes, self.chunk_others) = (None, 0, 0);
        self.append()
    }

    fn end_batch(&mut self) -> Result<(), Error> {
        let count = self.batch.len() as u64;
        if count == 0 {
            return Ok(());
        }
        let message = self.batch.take();
        let (first, last) = std::mem::replace(&mut self.batch_span, (Timestamp::MAX, Timestamp::MIN));
        self.put_message(Source::Packets, self.packets_encoded, last, first, &message)?;
        self.packets_encoded += count;
        Ok(())
    }

    fn end_kernel_batch(&mut self) -> Result<(), Error> {
        let KernelBatch { encoder, first, earliest, latest_arrival, encoded } = &mut self.kernel;
        let Some((time, arrival, packets_before)) = first.take() else { return Ok(()) };
        let (count, sequence) = (encoder.len() as u64, *encoded);
        let (logged, published) = (*latest_arrival, *earliest);
        *encoded += count;
        let message = message::encode_kernel(encoder.take(), (time, arrival), packets_before);
        self.put_message(Source::Kernel, sequence, logged, published, &message)
    }

    /// Log time is when the recorder knew all of the message, publish time when the first of it happened.
    fn put_message(
        &mut self,
        source: Source,
        sequence: u64,
        logged: Timestamp,
        published: Timestamp,
        data: &[u8],
    ) -> Result<(), Error> {
        let header = MessageHeader {
            channel_id: channel::id(source),
            // Wraps: readers take differences.
            sequence: sequence as u32,
            log_time: unsigned(logged),
            publish_time: unsigned(published),
        };
        let path = self.path.clone();
        self.container()?.write_to_known_channel(&header, data).map_err(|error| chunk_error(&path, error))?;
        self.chunk_bytes += data.len();
        Ok(())
    }

    /// Adds an interface that appeared while recording; the value is what its packets name.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn add_interface(&mut self, interface: &Interface) -> Result<u32, Error> {
        let place = self.interfaces;
        self.append_metadata(metadata::INTERFACE, interface.to_pairs(place))?;
        self.interfaces += 1;
        Ok(place as u32)
    }

    /// Adds a later reading of both clocks.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn add_clock(&mut self, clock: ClockPair) -> Result<(), Error> {
        self.append_metadata(metadata::CLOCK, clock.to_pairs())
    }

    /// Adds free pairs of key and value; a key that was there before takes the later value.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn add_metadata(&mut self, pairs: BTreeMap<String, String>) -> Result<(), Error> {
        self.append_metadata(metadata::EXTRA, pairs)
    }

    fn append_metadata(&mut self, name: &str, pairs: Pairs) -> Result<(), Error> {
        self.flush()?;
        self.put_metadata(name, pairs)?;
        self.append()
    }

    fn put_metadata(&mut self, name: &str, pairs: Pairs) -> Result<(), Error> {
        let path = self.path.clone();
        self.container()?
            .write_metadata(&header::seal(name, pairs))
            .map_err(|error| chunk_error(&path, error))
    }

    /// Writes what is left, the counts, the index and the footer.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn finish(mut self) -> Result<Summary, Error> {
        self.flush()?;
        let ends = self.counts.iter().map(|(source, count)| (source.to_string(), count.to_string()));
        self.put_metadata(metadata::END, ends.collect())?;
        let path = self.path.clone();
        self.container()?.finish().map_err(|error| chunk_error(&path, error))?;
        self.append()?;
        self.target.finish(self.written);
        Ok(Summary { counts: self.counts, bytes: self.written })
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Bytes in the file so far.
    pub fn bytes_written(&self) -> u64 {
        self.written
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands over what the container made.
    fn append(&mut self) -> Result<(), Error> {
        let bytes = self.pending.take();
        let (path, offset) = (self.path.clone(), self.written);
        let room = self.target.append(offset, &bytes).map_err(|source| {
            self.failed = true;
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path, offset },
                _ => Error::Write { path, offset, source },
            }
        })?;
        self.is_full = room == Room::Short;
        self.written += bytes.len() as u64;
        self.pending.recycle(bytes);
        Ok(())
    }

    fn container(&mut self) -> Result<&mut mcap::Writer<NoSeek<Pending>>, Error> {
        match &mut self.container {
            Some(container) if !self.failed => Ok(container),
            _ => Err(Error::Failed { path: self.path.clone(), offset: self.written }),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Finishing here would make an interrupted recording look whole.
        if let Some(container) = self.container.take() {
            container.into_inner();
        }
    }
}

/// MCAP's times are unsigned; the exact ones stand in the messages.
fn unsigned(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(0)
}

fn chunk_error(path: &Path, error: mcap::McapError) -> Error {
    Error::Chunk { path: path.to_owned(), reason: error.to_string() }
}
