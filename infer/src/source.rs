//! EVENTS: a recording or a capture file, told apart by its first bytes.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use anyhow::Context as _;
use dissect::{Capture, Damage, Tunnel};
use event::{Direction, Event, Packet};
use recording::Reader;

/// Packets that are handed on at once from a capture file.
const BATCH: usize = 8 * 1024;
const MCAP_MAGIC: &[u8] = b"\x89MCAP0\r\n";

/// What comes next.
#[derive(Debug)]
pub enum Item<'a> {
    Packets(&'a [Packet]),
    Event(Event),
}

/// What was read, and what could not be.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Packets and events that were handed on.
    pub packets: u64,
    pub events: u64,
    /// What was read and not used, by reason.
    pub skipped: Vec<(String, u64)>,
    /// Where and why the input is not whole.
    pub damage: Vec<String>,
}

/// A file that is read through once.
pub enum Source {
    Recording { reader: Box<Reader>, packets: u64, events: u64 },
    Capture { capture: Box<Capture>, batch: Vec<Packet>, damage: Option<Damage> },
}

impl Source {
    /// Opens a file, or standard input by the name `-`.
    ///
    /// # Errors
    /// Where it cannot be read, or is neither a recording nor a capture.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let name = if path.as_os_str() == "-" { "standard input".into() } else { path.display().to_string() };
        let mut input: Box<dyn Read + Send> = if path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).with_context(|| format!("cannot open {name}"))?)
        };
        let mut start = Vec::with_capacity(MCAP_MAGIC.len());
        (&mut input)
            .take(MCAP_MAGIC.len() as u64)
            .read_to_end(&mut start)
            .with_context(|| format!("cannot read {name}"))?;
        let is_recording = start == MCAP_MAGIC;
        let whole = Box::new(Cursor::new(start).chain(input));
        if is_recording {
            let reader = Box::new(Reader::new(whole, &name)?);
            return Ok(Self::Recording { reader, packets: 0, events: 0 });
        }
        let capture = Box::new(Capture::new(whole, &name, Tunnel::Inner)?);
        Ok(Self::Capture { capture, batch: Vec::with_capacity(BATCH), damage: None })
    }

    /// The node that was recorded; nothing where the file does not tell.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Recording { reader, .. } => {
                Some(reader.header().node.as_str()).filter(|node| !node.is_empty())
            }
            Self::Capture { .. } => None,
        }
    }

    /// The label of the whole recording, where it has one.
    pub fn label(&self) -> Option<event::Label> {
        match self {
            Self::Recording { reader, .. } => reader.header().label,
            Self::Capture { .. } => None,
        }
    }

    /// The next packets or event; nothing at the end, of which [`Source::report`] then tells.
    ///
    /// # Errors
    /// Where a recording cannot be read on. Damage is no error: it is reported.
    pub fn next(&mut self) -> anyhow::Result<Option<Item<'_>>> {
        match self {
            Self::Recording { reader, packets, events } => match reader.next_item()? {
                Some(recording::Item::Packets(run)) => {
                    *packets += run.len() as u64;
                    Ok(Some(Item::Packets(run)))
                }
                Some(recording::Item::Event(event)) => {
                    *events += 1;
                    Ok(Some(Item::Event(event)))
                }
                None => Ok(None),
            },
            Self::Capture { capture, batch, damage } => {
                fill(capture, batch, damage);
                Ok((!batch.is_empty()).then_some(Item::Packets(batch)))
            }
        }
    }

    pub fn report(&self) -> Report {
        match self {
            Self::Recording { reader, packets, events } => of_recording(reader, *packets, *events),
            Self::Capture { capture, damage, .. } => {
                let counts = capture.counts();
                let skipped = counts.skipped.iter().filter(|(_, count)| *count > 0);
                Report {
                    packets: counts.used,
                    events: 0,
                    skipped: skipped.map(|(reason, count)| (reason.to_string(), count)).collect(),
                    damage: damage.iter().map(ToString::to_string).collect(),
                }
            }
        }
    }
}

fn fill(capture: &mut Capture, batch: &mut Vec<Packet>, damage: &mut Option<Damage>) {
    batch.clear();
    while batch.len() < BATCH && damage.is_none() {
        match capture.next() {
            // A capture holds what its maker chose to capture: each packet of it counts, whatever interface and
            // direction it was seen at.
            Ok(Some(seen)) => batch.push(Packet { direction: Direction::Unknown, ..seen.packet }),
            Ok(None) => break,
            Err(found) => *damage = Some(found),
        }
    }
}

fn of_recording(reader: &Reader, packets: u64, events: u64) -> Report {
    let report = reader.report();
    let mut damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    if let Some(recording::End::Cut { offset, .. }) = report.end {
        damage
            .push(format!("it ends at byte {offset} without its footer: cut, or its writer was interrupted"));
    }
    if report.lost.total() > 0 {
        damage.push(format!("{} events could not be read", report.lost.total()));
    }
    let mut skipped = Vec::new();
    if report.unknown > 0 {
        skipped.push(("events of kinds that a newer release added".to_owned(), report.unknown));
    }
    Report { packets, events, skipped, damage }
}
