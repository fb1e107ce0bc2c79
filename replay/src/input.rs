//! What `replay` reads: each input is told by its first bytes, and several are merged by time.

mod ahead;
mod batch;
mod capture;
mod follow;
mod hubble;
mod merge;
mod recording;

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use event::{Event, Label, NameMap, Timestamp};
use features::Affected;

pub use ahead::Ahead;
pub use batch::{Batch, Packets};
pub use merge::Merge;

use cli::Interrupt;
use follow::Follow;

use crate::args::{Args, Labels};
use capture::CaptureInput;
use hubble::HubbleInput;
use recording::{RecordingInput, Told};

/// Packets read at a time from one input: few enough to stay in the second-level cache until they are used.
pub const BATCH: usize = 2 * 1024;

/// What comes next in an input.
#[derive(Debug)]
pub enum Item<'a> {
    /// In the order of the input.
    Packets(Packets<'a>),
    /// The same, given away.
    Taken(Batch),
    Event(Event),
    /// From this time on everything carries this label, until a mark says otherwise.
    Label(Timestamp, Option<Label>),
    /// From this time on labels are for these flows; for all where none are given.
    Affected(Timestamp, Option<Affected>),
}

impl Item<'_> {
    /// Given away: packets that are lent are copied into `room`.
    fn taken(self, room: &mut Batch) -> Item<'static> {
        match self {
            Self::Packets(packets) => {
                room.copy_from(packets);
                Item::Taken(std::mem::take(room))
            }
            Self::Taken(batch) => Item::Taken(batch),
            Self::Event(event) => Item::Event(event),
            Self::Label(time, label) => Item::Label(time, label),
            Self::Affected(time, affected) => Item::Affected(time, affected),
        }
    }
}

/// The first bytes of every MCAP file.
const MCAP_MAGIC: [u8; 8] = *b"\x89MCAP0\r\n";

/// What was read of one input and what became of it; a line of the summary.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub name: String,
    /// What the counts below count.
    pub read: u64,
    pub used: u64,
    pub skipped: Vec<(String, u64)>,
    pub remarks: Vec<String>,
    /// Where and why the input could not be read any further.
    pub damage: Vec<String>,
}

/// One open input.
pub enum Input {
    Capture(Box<CaptureInput>),
    Recording(Box<RecordingInput>),
    Hubble(Box<HubbleInput>),
}

impl Input {
    /// Opens a file, or standard input by the name `-`.
    pub fn open(path: &Path, args: &Args, interrupt: &Interrupt) -> Result<Self> {
        let path = if args.follow { &follow::first(path) } else { path };
        let (name, mut source) = if args.follow {
            let file = Follow::open(path, interrupt.clone());
            let file = file.with_context(|| format!("cannot open {}", path.display()))?;
            (path.display().to_string(), Box::new(file) as Box<dyn Read + Send>)
        } else {
            source(path)?
        };
        let start = read_start(&mut source).with_context(|| format!("cannot read {name}"))?;
        let is_recording = start == MCAP_MAGIC;
        let source = Box::new(Cursor::new(start).chain(source));
        Ok(if is_recording {
            let told = Told {
                label: args.label.is_none(),
                affected: args.labels == Labels::Affected,
                follow: args.follow.then(|| interrupt.clone()),
            };
            Self::Recording(Box::new(RecordingInput::open(source, &name, args.window, told)?))
        } else {
            let (with_payload, tunnel) = (!args.no_l7, args.tunnel);
            Self::Capture(Box::new(CaptureInput::open(source, &name, tunnel, with_payload, args.follow)?))
        })
    }

    /// Opens a file of Hubble's flows.
    pub fn open_hubble(path: &Path, args: &Args) -> Result<Self> {
        let (name, source) = source(path)?;
        Ok(Self::Hubble(Box::new(HubbleInput::new(source, &name, args.redact))))
    }

    /// The next packets or event; nothing at the end.
    pub fn next(&mut self) -> Result<Option<Item<'_>>> {
        match self {
            Self::Capture(capture) => Ok(capture.next()),
            Self::Recording(recording) => recording.next(),
            Self::Hubble(hubble) => hubble.next(),
        }
    }

    /// The same, given away; `room` is an emptied batch whose memory may be used again.
    pub fn next_taken(&mut self, room: &mut Batch) -> Result<Option<Item<'static>>> {
        match self {
            Self::Capture(capture) => Ok(capture.next_taken(room)),
            other => Ok(other.next()?.map(|item| item.taken(room))),
        }
    }

    /// The node that it is of; empty where it does not tell.
    pub fn node(&self) -> &str {
        match self {
            Self::Capture(_) | Self::Hubble(_) => "",
            Self::Recording(recording) => recording.node(),
        }
    }

    /// Names of the interfaces, as far as they are known at its beginning.
    pub fn interfaces(&self) -> Vec<String> {
        match self {
            Self::Capture(_) | Self::Hubble(_) => Vec::new(),
            Self::Recording(recording) => recording.interfaces(),
        }
    }

    /// The names of addresses that a recording was made with.
    pub fn names(&self) -> Result<Option<NameMap>> {
        match self {
            Self::Recording(recording) => recording.names(),
            Self::Capture(_) | Self::Hubble(_) => Ok(None),
        }
    }

    /// What became of it: one report for each file.
    pub fn reports(&self) -> Vec<Report> {
        match self {
            Self::Capture(capture) => vec![capture.report()],
            Self::Recording(recording) => recording.reports(),
            Self::Hubble(hubble) => vec![hubble.report()],
        }
    }
}

/// A file, or standard input by the name `-`.
fn source(path: &Path) -> Result<(String, Box<dyn Read + Send>)> {
    Ok(if path.as_os_str() == "-" {
        ("standard input".to_owned(), Box::new(io::stdin()))
    } else {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        (path.display().to_string(), Box::new(file))
    })
}

/// As many of the first bytes as tell the format.
fn read_start(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(8);
    source.take(8).read_to_end(&mut start)?;
    Ok(start)
}

/// Where recordings are kept unless something else is said.
const RECORDINGS: &str = "recordings";

/// The inputs that were named, or the newest recording.
pub fn choose(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let folder = std::fs::read_dir(RECORDINGS).with_context(|| {
        format!("no INPUT was named and {RECORDINGS}/ cannot be read; name a recording or a capture")
    })?;
    let mut newest = None;
    for entry in folder {
        let entry = entry.with_context(|| format!("cannot read {RECORDINGS}/"))?;
        let metadata = entry.metadata().with_context(|| format!("cannot read {}", entry.path().display()))?;
        if metadata.is_file() {
            let modified = metadata.modified().with_context(|| format!("cannot read {RECORDINGS}/"))?;
            newest = newest.max(Some((modified, entry.path())));
        }
    }
    let Some((_, path)) = newest else {
        bail!("{RECORDINGS}/ is empty; make a recording with `capture record`, or name an INPUT");
    };
    tracing::info!("reading the newest recording, {}", path.display());
    Ok(vec![path])
}
