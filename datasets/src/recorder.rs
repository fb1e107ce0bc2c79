//! The recording of a run: the real `capture record` on the router, at the server's interface, and what the lab adds to it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use event::{Event, Fault, KernelEvent, KernelEventKind, Label, Mark, Timestamp};
use nix::sys::signal::Signal;
use recording::{Header, Item, Options, Reader, Writer};
use tempfile::TempDir;

use crate::fault::Recipe;
use crate::node::Node;
use crate::process::Process;
use crate::proof::Proof;
use crate::run::Destination;
use crate::topology::SERVER_INTERFACE;

/// Loading kernel programs takes a fraction of a second; a busy machine takes longer.
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(20);

pub struct Recorder {
    process: Process,
    raw: PathBuf,
    file: PathBuf,
    /// Holds `raw`; removed when this is dropped.
    _directory: TempDir,
}

impl Recorder {
    /// Records into a file beside the destination until [`Recorder::keep`] makes it the destination.
    pub fn start(router: &Node, to: &Destination) -> Result<Self> {
        let folder = folder_of(&to.file);
        let directory = tempfile::Builder::new()
            .prefix(".lab-")
            .tempdir_in(folder)
            .with_context(|| format!("cannot write to {}", folder.display()))?;
        let raw = directory.path().join("raw.mcap");
        let mut capture = Command::new(&to.capture);
        // With the codes of DNS and HTTP, which two of the faults show themselves by.
        capture
            .args(["record", SERVER_INTERFACE, "--duration", "0", "--l7", "dns,http", "--quiet", "-o"])
            .arg(&raw);
        capture.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = router.spawn("capture record", capture)?;
        await_header(&mut process, &raw)?;
        Ok(Self { process, raw, file: to.file.clone(), _directory: directory })
    }

    /// Ends the recording in order.
    pub fn stop(&mut self) -> Result<()> {
        self.process.expect_running()?;
        let status = self.process.stop(Signal::SIGINT, STOP_LIMIT)?;
        if !status.success() {
            bail!("`capture record` ended with {status}");
        }
        Ok(())
    }

    /// Writes the recording to its destination, with the label's mark and the proof of the fault
    /// inside. It ends with the labelled stretch.
    pub fn keep(self, mut proof: Proof, labelled: Range<Timestamp>) -> Result<()> {
        let mut reader = Reader::open(&self.raw)?;
        let mut events = Vec::new();
        while let Some(item) = reader.next_item()? {
            match item {
                Item::Packets(packets) => events.extend(packets.iter().map(|packet| Event::Packet(*packet))),
                Item::Event(event) => events.push(event),
            }
        }
        let report = reader.report();
        if !report.is_whole() {
            bail!("`capture record` left a damaged recording: {:?}, {:?}", report.end, report.damage);
        }
        // Until the recorder had stopped, some ms after the fault's planned end.
        events.retain(|event| event.time() < labelled.end);
        leave_out_own_drops(&mut events, &mut proof);
        place_mark(&mut events, labelled.start, proof.fault);
        let header = Header {
            command: proof.command(),
            // Which machine it was does not matter to anyone, and may to its owner.
            boot_id: String::new(),
            label: Some(Label::NORMAL),
            metadata: proof.to_pairs(),
            ..reader.header().clone()
        };
        self.write(&header, &events)
    }

    fn write(&self, header: &Header, events: &[Event]) -> Result<()> {
        // Chunks end by size: the capture is over, and large chunks compress better.
        let options = Options { flush_after: None, level: 19, ..Options::default() };
        let folder = tempfile::tempdir_in(folder_of(&self.file)).context("cannot create a directory")?;
        let whole = folder.path().join("whole.mcap");
        let mut writer = Writer::create(&whole, header, options)?;
        for event in events {
            writer.write(event)?;
        }
        writer.finish()?;
        std::fs::rename(&whole, &self.file).with_context(|| format!("cannot write {}", self.file.display()))
    }
}

/// See [`Recipe::own_drops`].
fn leave_out_own_drops(events: &mut Vec<Event>, proof: &mut Proof) {
    let recipe = Recipe::of(proof.fault);
    if recipe.own_drops.is_empty() {
        return;
    }
    let before = events.len();
    events.retain(|event| match event {
        Event::Kernel(KernelEvent { kind: KernelEventKind::Drop { reason }, .. }) => {
            !recipe.own_drops.contains(&reason.as_str())
        }
        _ => true,
    });
    proof.counters.insert("own_drops_left_out".to_owned(), (before - events.len()) as u64);
}

/// From `time` on the fault's label holds. The mark stands before everything that arrived later.
fn place_mark(events: &mut Vec<Event>, time: Timestamp, fault: Fault) {
    let place = events.iter().position(|event| event.arrival() >= time).unwrap_or(events.len());
    let note = format!("lab: {fault} begins");
    events.insert(place, Event::Mark(Mark { time, arrival: time, label: Some(fault.into()), note }));
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The recorder is at work as soon as its file has a beginning.
fn await_header(process: &mut Process, raw: &Path) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        process.expect_running()?;
        if std::fs::metadata(raw).is_ok_and(|file| file.len() > 0) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("`capture record` wrote nothing within {START_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
