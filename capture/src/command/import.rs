//! `capture import`: captures made elsewhere become a recording.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use capture::anonymize::Anonymizer;
use capture::protocols::{self, Protocol};
use clap::Args;
use cli::{Exit, Interrupt};
use dissect::{Capture, L7, Tunnel};
use event::{Event, L7Flow, Label, Loss, LossCause, Source, Timestamp};
use hubble::{Converter, JsonReader};
use recording::{Header, Interface, Options, Writer};

/// Turn pcap and pcapng files, and Hubble's flows, into a recording
///
/// Several files become one recording, merged by time. Captures may be packed with gzip or zstd. Payload is not
/// kept: of application messages (DNS, HTTP, gRPC, Kafka, TLS hellos) the method, path, names and status are,
/// never header values, query strings or bodies. What cannot be used is counted by reason on stderr.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capture import trace.pcap -o trace.mcap
  tcpdump -w - port 80 | capture import - -o trace.mcap
  capture import eth0.pcapng.gz eth1.pcapng.gz --label packet-loss -o both.mcap
  capture import node.pcap --hubble flows.jsonl -o node.mcap
  capture import trace.pcap --anonymize key -o share.mcap")]
pub struct Import {
    /// Captures to read; - is standard input
    #[arg(required_unless_present = "hubble", value_name = "FILE")]
    inputs: Vec<PathBuf>,

    /// Hubble's flows as JSON lines (`hubble observe -o json`, or the agent's export)
    #[arg(long, value_name = "FILE")]
    hubble: Vec<PathBuf>,

    /// The recording to write; it must not exist yet
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// The label of all that is in it: a number, or a fault's name
    #[arg(short, long, value_name = "LABEL")]
    label: Option<Label>,

    /// Which packet of a tunnel (VXLAN, Geneve, GRE, IP in IP) counts
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    tunnel: Tunnel,

    /// Which application messages to read from the captures' payload
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PROTOCOLS",
          default_values_t = [Protocol::Dns, Protocol::Http, Protocol::Kafka, Protocol::Tls])]
    l7: Vec<Protocol>,

    /// Leave the names and paths out of application messages
    #[arg(long)]
    redact: bool,

    /// Replace addresses by others that share prefixes as they do (Crypto-PAn), also in names; KEYFILE has 32 bytes or
    /// 64 hexadecimal digits
    #[arg(long, value_name = "KEYFILE")]
    anonymize: Option<PathBuf>,
}

impl Import {
    pub fn run(&self) -> anyhow::Result<Exit> {
        let interrupt = Interrupt::install().context("cannot listen for signals")?;
        let mut inputs = self.open()?;
        let mut to = self.create(&mut inputs)?;
        let mut is_interrupted = false;
        while let Some(input) = earliest(&mut inputs) {
            if interrupt.is_raised() {
                is_interrupted = true;
                break;
            }
            input.pass_on(&mut to)?;
        }
        for input in &mut inputs {
            input.end(&mut to)?;
        }
        let summary = to.writer.finish()?;
        let of = |source| summary.counts.get(source);
        tracing::info!(
            "{}: {} packets and {} L7 events in {} bytes",
            self.output.display(),
            of(Source::Packets),
            of(Source::L7),
            summary.bytes
        );
        if is_interrupted {
            bail!("interrupted: {} holds the packets up to here and is whole", self.output.display());
        }
        Ok(if inputs.iter().any(|input| input.is_damaged) { Exit::Damaged } else { Exit::Done })
    }

    /// Opens all before anything is written, each at its first event.
    fn open(&self) -> anyhow::Result<Vec<Input>> {
        let mut inputs = Vec::new();
        for path in &self.inputs {
            let capture = Capture::open(path, self.tunnel)?;
            let packets = Packets {
                capture,
                l7: L7::new(protocols::options(&self.l7, self.redact)),
                interfaces: Vec::new(),
            };
            inputs.push(Input::new(Origin::Packets(Box::new(packets))));
        }
        for path in &self.hubble {
            inputs.push(Input::new(Origin::Flows(Box::new(Flows::open(path, self.redact)?))));
        }
        for input in &mut inputs {
            input.fill()?;
        }
        Ok(inputs)
    }

    fn create(&self, inputs: &mut [Input]) -> anyhow::Result<Destination> {
        let mut anonymizer = self.anonymize.as_deref().map(Anonymizer::of_key_file).transpose()?;
        let names: Vec<&str> = inputs.iter().map(|input| input.name()).collect();
        let mut header = Header {
            tool: concat!("capture ", env!("CARGO_PKG_VERSION")).to_owned(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            label: self.label,
            metadata: [("imported_from".to_owned(), names.join(" "))].into(),
            ..Header::default()
        };
        if let Some(anonymizer) = &mut anonymizer {
            anonymizer.header(&mut header);
        }
        // What is imported is safe elsewhere: chunks need not end early.
        let options = Options { flush_after: None, ..Options::default() };
        let mut to = Destination { writer: Writer::create(&self.output, &header, options)?, anonymizer };
        for input in inputs {
            input.add_interfaces(&mut to)?;
        }
        Ok(to)
    }
}

/// The recording, and what becomes of addresses on the way into it.
struct Destination {
    writer: Writer,
    anonymizer: Option<Anonymizer>,
}

impl Destination {
    fn write(&mut self, mut event: Event) -> anyhow::Result<()> {
        if let Some(anonymizer) = &mut self.anonymizer {
            anonymizer.event(&mut event);
        }
        Ok(self.writer.write(&event)?)
    }
}

/// The input whose next event is the earliest, the first named of equals.
fn earliest(inputs: &mut [Input]) -> Option<&mut Input> {
    let waiting = inputs.iter_mut().filter(|input| !input.queue.is_empty());
    waiting.min_by_key(|input| input.queue.front().map(Event::time))
}

/// One file, and what of it waits to be written.
struct Input {
    origin: Origin,
    queue: VecDeque<Event>,
    is_damaged: bool,
}

enum Origin {
    Packets(Box<Packets>),
    Flows(Box<Flows>),
}

impl Input {
    fn new(origin: Origin) -> Self {
        Self { origin, queue: VecDeque::new(), is_damaged: false }
    }

    fn name(&self) -> &str {
        match &self.origin {
            Origin::Packets(packets) => packets.capture.name(),
            Origin::Flows(flows) => &flows.name,
        }
    }

    /// Reads until there is something to write, or the end.
    fn fill(&mut self) -> anyhow::Result<()> {
        self.is_damaged |= match &mut self.origin {
            Origin::Packets(packets) => packets.fill(&mut self.queue),
            Origin::Flows(flows) => flows.fill(&mut self.queue)?,
        };
        Ok(())
    }

    fn pass_on(&mut self, to: &mut Destination) -> anyhow::Result<()> {
        let Some(mut event) = self.queue.pop_front() else { return Ok(()) };
        if let (Origin::Packets(packets), Event::Packet(packet)) = (&mut self.origin, &mut event) {
            packets.add_interfaces(to)?;
            packets.translate(packet);
        }
        to.write(event)?;
        if self.queue.is_empty() {
            self.fill()?;
        }
        Ok(())
    }

    fn add_interfaces(&mut self, to: &mut Destination) -> anyhow::Result<()> {
        match &mut self.origin {
            Origin::Packets(packets) => packets.add_interfaces(to),
            Origin::Flows(_) => Ok(()),
        }
    }

    fn end(&mut self, to: &mut Destination) -> anyhow::Result<()> {
        match &self.origin {
            Origin::Packets(packets) => packets.end(to),
            Origin::Flows(flows) => {
                flows.end();
                Ok(())
            }
        }
    }
}

/// A capture file.
struct Packets {
    capture: Capture,
    l7: L7,
    /// The recording's interface for each of the capture's, with the times of its first and last packet.
    interfaces: Vec<(u32, Option<(Timestamp, Timestamp)>)>,
}

impl Packets {
    /// The next packet and the messages it completes. Whether the file is damaged.
    fn fill(&mut self, queue: &mut VecDeque<Event>) -> bool {
        let mut found: Vec<L7Flow> = Vec::new();
        let is_damaged = match self.capture.next() {
            Ok(Some(seen)) => {
                queue.push_back(Event::Packet(seen.packet));
                self.l7.observe(&seen.packet, seen.payload, &mut found);
                false
            }
            Ok(None) => {
                self.l7.finish(&mut found);
                false
            }
            Err(damage) => {
                tracing::error!("{damage}");
                self.l7.finish(&mut found);
                true
            }
        };
        queue.extend(found.into_iter().map(|flow| Event::L7(Box::new(flow))));
        is_damaged
    }

    /// From the capture's interface to the recording's.
    fn translate(&mut self, packet: &mut event::Packet) {
        if let Some((place, span)) = self.interfaces.get_mut(packet.interface as usize) {
            packet.interface = *place;
            let (first, last) = span.unwrap_or((packet.time, packet.time));
            *span = Some((first.min(packet.time), last.max(packet.time)));
        }
    }

    /// A pcapng file may describe interfaces at any point.
    fn add_interfaces(&mut self, to: &mut Destination) -> anyhow::Result<()> {
        for found in self.capture.interfaces().iter().skip(self.interfaces.len()) {
            let (name, link_type) = (found.name.clone(), Some(found.link.0));
            let place = to.writer.add_interface(&Interface { name, index: None, link_type })?;
            self.interfaces.push((place, None));
        }
        Ok(())
    }

    /// What the capturing side says it lost, and what became of the packets.
    fn end(&self, to: &mut Destination) -> anyhow::Result<()> {
        for (found, (place, span)) in self.capture.interfaces().iter().zip(&self.interfaces) {
            let Some((first, last)) = *span else { continue };
            if found.lost > 0 {
                to.write(Event::Loss(Loss {
                    first,
                    last,
                    arrival: last,
                    source: Source::Packets,
                    cause: LossCause::Upstream,
                    interface: Some(*place),
                    count: found.lost,
                }))?;
            }
        }
        tracing::info!("{}: {}", self.capture.name(), self.capture.counts());
        let l7 = self.l7.counts();
        if l7 != dissect::L7Counts::default() {
            tracing::info!("{}: {l7}", self.capture.name());
        }
        Ok(())
    }
}

/// A file of Hubble's flows.
struct Flows {
    name: String,
    reader: JsonReader<BufReader<File>>,
    converter: Converter,
    redact: bool,
    bad_lines: u64,
}

impl Flows {
    /// Bad lines that are told one by one; the others are counted.
    const TOLD: u64 = 10;

    fn open(path: &Path, redact: bool) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let (name, reader) = (path.display().to_string(), JsonReader::new(BufReader::new(file)));
        Ok(Self { name, reader, converter: Converter::default(), redact, bad_lines: 0 })
    }

    /// The next event. Whether lines before it were bad.
    fn fill(&mut self, queue: &mut VecDeque<Event>) -> anyhow::Result<bool> {
        let bad_before = self.bad_lines;
        while queue.is_empty() {
            let read: io::Result<_> = self.reader.next();
            match read.with_context(|| format!("cannot read {}", self.name))? {
                None => break,
                Some(Ok(message)) => {
                    queue.extend(self.converter.json_event(&message).map(|event| self.redacted(event)))
                }
                Some(Err(bad)) => {
                    self.bad_lines += 1;
                    if self.bad_lines <= Self::TOLD {
                        tracing::error!("{}: line {}: {}", self.name, bad.number, bad.reason);
                    }
                }
            }
        }
        Ok(self.bad_lines > bad_before)
    }

    fn redacted(&self, mut event: Event) -> Event {
        if let Event::L7(flow) = &mut event
            && self.redact
        {
            flow.message.redact();
        }
        event
    }

    fn end(&self) {
        let (name, counts) = (&self.name, self.converter.counts());
        let (lines, others) = (self.reader.lines(), self.reader.other_lines());
        tracing::info!("{name}: {lines} lines, {} bad, {others} of other kinds; {counts}", self.bad_lines);
    }
}
