//! `capture info`: what a recording holds.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use cli::Exit;
use event::{Event, Label, Loss, Mark, Source, Timestamp};
use recording::{Header, Item, Reader};
use serde::Serialize;

use super::verify::{open, tell};

/// Show what a recording holds
///
/// Node, clocks, interfaces, events per channel with their times, bytes per packet, losses, marks, and whether
/// it is whole. Reads all of it. A recording that is cut or damaged is shown as far as it goes, and the exit
/// code is 3.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  capture info recordings/20261121T090000Z-node1.mcap
  capture info --json trace.mcap | jq '.channels[] | select(.name == \"packets\").events'")]
pub struct Info {
    /// The recording; - is standard input
    #[arg(value_name = "FILE")]
    input: PathBuf,

    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Info {
    pub fn run(&self) -> anyhow::Result<Exit> {
        let mut reader = open(&self.input)?;
        let content = Content::read(&mut reader)?;
        let exit = tell(&reader);
        let overview = Overview::new(&reader, content);
        let mut stdout = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut stdout, &overview).map_err(std::io::Error::from)?;
            writeln!(stdout)?;
        } else {
            write!(stdout, "{overview}")?;
        }
        stdout.flush()?;
        Ok(exit)
    }
}

/// What has to be read through to be known.
#[derive(Default)]
struct Content {
    spans: Vec<(Source, Timestamp, Timestamp)>,
    losses: Vec<Loss>,
    marks: Vec<Mark>,
}

impl Content {
    fn read(reader: &mut Reader) -> Result<Self, recording::Error> {
        let mut content = Self::default();
        while let Some(item) = reader.next_item()? {
            match item {
                Item::Packets(packets) => {
                    for packet in packets {
                        content.extend(Source::Packets, packet.time);
                    }
                }
                Item::Event(event) => content.take(event),
            }
        }
        Ok(content)
    }

    fn take(&mut self, event: Event) {
        self.extend(event.source(), event.time());
        match event {
            Event::Mark(mark) => self.marks.push(mark),
            Event::Loss(loss) => self.add_loss(loss),
            _ => {}
        }
    }

    fn extend(&mut self, source: Source, time: Timestamp) {
        match self.spans.iter_mut().find(|(other, ..)| *other == source) {
            Some((_, first, last)) => (*first, *last) = (time.min(*first), time.max(*last)),
            None => self.spans.push((source, time, time)),
        }
    }

    /// Sums up per source, cause and interface.
    fn add_loss(&mut self, loss: Loss) {
        let same = |other: &&mut Loss| {
            (other.source, other.cause, other.interface) == (loss.source, loss.cause, loss.interface)
        };
        match self.losses.iter_mut().find(same) {
            Some(sum) => {
                sum.count = sum.count.saturating_add(loss.count);
                (sum.first, sum.last) = (sum.first.min(loss.first), sum.last.max(loss.last));
            }
            None => self.losses.push(loss),
        }
    }
}

/// The overview; its fields are those of the JSON. Times are text in UTC.
#[derive(Serialize)]
struct Overview {
    file: String,
    format_version: String,
    tool: String,
    command: String,
    node: String,
    kernel: String,
    boot_id: String,
    label: Option<LabelText>,
    /// N: packets of one in N flows.
    sample: Option<u32>,
    anonymized: bool,
    bytes: u64,
    bytes_per_packet: Option<f64>,
    first: Option<String>,
    last: Option<String>,
    seconds: Option<f64>,
    channels: Vec<ChannelText>,
    interfaces: Vec<InterfaceText>,
    losses: Vec<LossText>,
    marks: Vec<MarkText>,
    clocks: Vec<ClockText>,
    metadata: std::collections::BTreeMap<String, String>,
    is_whole: bool,
    complaints: Vec<String>,
}

#[derive(Serialize)]
struct LabelText {
    number: u16,
    name: String,
}

#[derive(Serialize)]
struct ChannelText {
    name: String,
    events: u64,
    /// Events that were written and cannot be read.
    missing: u64,
    first: Option<String>,
    last: Option<String>,
}

#[derive(Serialize)]
struct InterfaceText {
    place: usize,
    name: String,
    index: Option<u32>,
    link_type: Option<u16>,
}

#[derive(Serialize)]
struct LossText {
    source: String,
    cause: String,
    interface: Option<String>,
    count: u64,
    first: String,
    last: String,
}

#[derive(Serialize)]
struct MarkText {
    time: String,
    label: Option<LabelText>,
    note: String,
}

#[derive(Serialize)]
struct ClockText {
    monotonic_nanoseconds: i64,
    wall: String,
}

impl Overview {
    fn new(reader: &Reader, content: Content) -> Self {
        let (header, report) = (reader.header().clone(), reader.report());
        let first = content.spans.iter().map(|(_, first, _)| *first).min();
        let last = content.spans.iter().map(|(.., last)| *last).max();
        let packets = report.counts.get(Source::Packets);
        Self {
            file: reader.path().display().to_string(),
            format_version: header.version.to_string(),
            label: header.label.map(label),
            sample: header.sample,
            anonymized: header.anonymized,
            bytes: report.bytes,
            bytes_per_packet: (packets > 0).then(|| report.bytes as f64 / packets as f64),
            first: first.map(utc),
            last: last.map(utc),
            seconds: first.zip(last).map(|(first, last)| (last - first).as_secs_f64()),
            channels: channels(reader, &content),
            losses: content.losses.iter().map(|found| loss(found, &header)).collect(),
            marks: content.marks.into_iter().map(mark).collect(),
            clocks: header
                .clocks
                .iter()
                .map(|clock| ClockText {
                    monotonic_nanoseconds: clock.monotonic.as_nanos(),
                    wall: utc(clock.wall),
                })
                .collect(),
            interfaces: interfaces(&header),
            tool: header.tool,
            command: header.command,
            node: header.node,
            kernel: header.kernel,
            boot_id: header.boot_id,
            metadata: header.metadata,
            is_whole: report.is_whole(),
            complaints: report.complaints(),
        }
    }
}

fn channels(reader: &Reader, content: &Content) -> Vec<ChannelText> {
    let report = reader.report();
    let text = |(source, events): (Source, u64)| {
        let span = content.spans.iter().find(|(other, ..)| *other == source);
        ChannelText {
            name: source.to_string(),
            events,
            missing: report.lost.get(source),
            first: span.map(|(_, first, _)| utc(*first)),
            last: span.map(|(.., last)| utc(*last)),
        }
    };
    report.counts.iter().map(text).collect()
}

fn interfaces(header: &Header) -> Vec<InterfaceText> {
    let text = |(place, interface): (usize, &recording::Interface)| InterfaceText {
        place,
        name: interface.name.clone(),
        index: interface.index,
        link_type: interface.link_type,
    };
    header.interfaces.iter().enumerate().map(text).collect()
}

fn loss(loss: &Loss, header: &Header) -> LossText {
    let interface = |place: u32| match header.interfaces.get(place as usize) {
        Some(interface) => interface.name.clone(),
        None => format!("number {place}"),
    };
    LossText {
        source: loss.source.to_string(),
        cause: loss.cause.to_string(),
        interface: loss.interface.map(interface),
        count: loss.count,
        first: utc(loss.first),
        last: utc(loss.last),
    }
}

fn mark(mark: Mark) -> MarkText {
    MarkText { time: utc(mark.time), label: mark.label.map(label), note: mark.note }
}

fn label(label: Label) -> LabelText {
    LabelText { number: label.0, name: label.to_string() }
}

/// RFC 3339 in UTC; Unix seconds where a year has more than four digits.
fn utc(time: Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(time.as_nanos().into()) {
        Ok(utc) => format!("{utc:.6}"),
        Err(_) => time.to_string(),
    }
}

impl fmt::Display for LabelText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name == self.number.to_string() {
            f.write_str(&self.name)
        } else {
            write!(f, "{} ({})", self.name, self.number)
        }
    }
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_head(f)?;
        writeln!(f, "\n{:<10} {:>12}  {:<27}  last", "channel", "events", "first")?;
        for channel in &self.channels {
            let text = |time: &Option<String>| time.clone().unwrap_or_default();
            write!(
                f,
                "{:<10} {:>12}  {:<27}  {}",
                channel.name,
                channel.events,
                text(&channel.first),
                text(&channel.last)
            )?;
            if channel.missing > 0 {
                write!(f, "  {} missing", channel.missing)?;
            }
            writeln!(f)?;
        }
        self.fmt_lists(f)
    }
}

impl Overview {
    fn fmt_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &str| {
            if value.is_empty() { Ok(()) } else { writeln!(f, "{name:<11} {value}") }
        };
        line("file", &self.file)?;
        line("format", &self.format_version)?;
        line("tool", &self.tool)?;
        line("command", &self.command)?;
        line("node", &self.node)?;
        line("kernel", &self.kernel)?;
        line("boot", &self.boot_id)?;
        line("label", &self.label.as_ref().map(ToString::to_string).unwrap_or_default())?;
        line("sample", &self.sample.map(|sample| format!("1/{sample} of the flows")).unwrap_or_default())?;
        line("anonymized", if self.anonymized { "yes, addresses by Crypto-PAn" } else { "" })?;
        if let (Some(first), Some(last), Some(seconds)) = (&self.first, &self.last, self.seconds) {
            line("time", &format!("{first} to {last}, {seconds:.3} s"))?;
        }
        let per_packet = self.bytes_per_packet.map(|bytes| format!(", {bytes:.2} per packet"));
        line("bytes", &format!("{}{}", self.bytes, per_packet.unwrap_or_default()))?;
        line("whole", if self.is_whole { "yes" } else { "no: stderr says what is missing" })
    }

    fn fmt_lists(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, "interfaces", self.interfaces.iter().map(ToString::to_string))?;
        list(f, "losses", self.losses.iter().map(ToString::to_string))?;
        list(f, "marks", self.marks.iter().map(ToString::to_string))?;
        let clock =
            |clock: &ClockText| format!("{} at {} ns since boot", clock.wall, clock.monotonic_nanoseconds);
        list(f, "clocks", self.clocks.iter().map(clock))?;
        list(f, "metadata", self.metadata.iter().map(|(key, value)| format!("{key} = {value}")))
    }
}

impl fmt::Display for InterfaceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.name)?;
        if let Some(index) = self.index {
            write!(f, ", index {index}")?;
        }
        self.link_type.map_or(Ok(()), |link_type| write!(f, ", link type {link_type}"))
    }
}

impl fmt::Display for LossText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, {}", self.count, self.source, self.cause)?;
        if let Some(interface) = &self.interface {
            write!(f, " at {interface}")?;
        }
        write!(f, ", {} to {}", self.first, self.last)
    }
}

impl fmt::Display for MarkText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.time)?;
        if let Some(label) = &self.label {
            write!(f, " {label}")?;
        }
        if self.note.is_empty() { Ok(()) } else { write!(f, " {}", self.note) }
    }
}

/// Lines below a title; nothing where there are none.
fn list(f: &mut fmt::Formatter<'_>, title: &str, lines: impl Iterator<Item = String>) -> fmt::Result {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        writeln!(f, "\n{title}")?;
    }
    lines.try_for_each(|line| writeln!(f, "  {line}"))
}
