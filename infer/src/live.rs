//! EVENTS of this node as they happen, by capture's sources; written to a recording on the way where that is asked
//! for.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use capture::output::{Bounds, Output};
use capture::rights::{self, Needs};
use capture::watch::Watch;
use capture::{Clock, Sample, Selection};
use event::{Event, Timestamp};
use tracing::{debug, info, warn};

use crate::args::Run;

/// This node, observed.
pub struct Live {
    watch: Watch,
    output: Option<Output>,
    events: Vec<Event>,
}

impl Live {
    /// Attaches to the interfaces and the kernel's tracepoints, drops the rights that this took, and starts the other
    /// sources.
    ///
    /// # Errors
    /// Where a right, a kernel feature or an interface is missing, or the recording cannot be created.
    pub fn open(args: &Run, node: &str) -> anyhow::Result<Self> {
        let selection = Selection::parse(&args.iface)?;
        let clock = Clock::start().context("cannot read the clocks")?;
        let mut watch = args.watch.attach(&selection, Sample::ALL, clock)?;
        drop_rights(args)?;
        let names: Vec<&str> =
            watch.packets().interfaces().map(|interface| interface.name.as_str()).collect();
        info!(by = watch.packets().attachment(), "watching {}", names.join(", "));
        let output = args.record.as_deref().map(|path| create(path, args, &watch, node)).transpose()?;
        args.watch.start(&mut watch)?;
        Ok(Self { watch, output, events: Vec::new() })
    }

    /// The time now, on the clock that events are stamped by.
    pub fn now(&self) -> Timestamp {
        self.watch.clock().now()
    }

    /// How to sleep between two polls.
    pub fn pace(&self) -> capture::Pace {
        self.watch.pace()
    }

    /// The recording's file that holds what was seen at a time.
    pub fn file_at(&self, time: Timestamp) -> Option<&Path> {
        self.output.as_ref().and_then(|output| output.file_at(time))
    }

    /// The events that are there; none where the node was quiet.
    ///
    /// # Errors
    /// Where nothing more can come.
    pub fn poll(&mut self) -> anyhow::Result<&[Event]> {
        self.events.clear();
        let events = &mut self.events;
        self.watch.poll(&mut |event| events.push(event))?;
        self.record();
        Ok(&self.events)
    }

    /// Stops observing, and hands over what was observed before.
    ///
    /// # Errors
    /// Where the kernel does not give it up.
    pub fn stop(&mut self) -> anyhow::Result<&[Event]> {
        self.events.clear();
        let events = &mut self.events;
        self.watch.stop(&mut |event| events.push(event))?;
        self.record();
        self.end_recording();
        let counters = self.watch.packets().counters()?;
        info!(
            seen = counters.seen,
            packets = counters.packets,
            lost = counters.lost,
            not_ip = counters.not_ip,
            "watched"
        );
        self.watch.report()?;
        Ok(&self.events)
    }

    fn end_recording(&mut self) {
        let Some(output) = self.output.take() else { return };
        match output.finish(self.now()) {
            Ok(written) => {
                let files: Vec<String> =
                    written.pieces.iter().map(|piece| piece.path.display().to_string()).collect();
                let (events, bytes, removed) = (written.events, written.bytes, written.removed);
                info!(events, bytes, files_removed = removed, "recorded {}", files.join(", "));
            }
            Err(error) => warn!("the recording has no end: {:#}", anyhow::Error::new(error)),
        }
    }

    /// Writes what was polled down. A recording that fails ends, and is said; the watch goes on.
    fn record(&mut self) {
        // Asked for in any case: snapshots name interfaces by their place among those that were told of.
        let fresh = self.watch.fresh_interfaces();
        let Some(output) = &mut self.output else { return };
        let mut write = || -> Result<(), recording::Error> {
            for event in &self.events {
                output.write(event)?;
            }
            for interface in &fresh {
                output.add_interface(interface)?;
            }
            output.tick(self.watch.clock().now())
        };
        if let Err(error) = write() {
            warn!("{:#}; nothing more is recorded", anyhow::Error::new(error));
            self.output = None;
        }
    }
}

/// Everything is attached: what is not needed any more goes, before there are threads.
fn drop_rights(args: &Run) -> anyhow::Result<()> {
    let file = args.record.as_deref().and_then(Path::parent);
    let folder = file.or(args.state_dir.as_deref()).map_or(PathBuf::new(), Path::to_owned);
    let kept = rights::keep_only(&Needs { processes: args.watch.reads_processes(), folder }, None)?;
    let names: Vec<String> = kept.iter().map(ToString::to_string).collect();
    debug!("rights kept: {}", names.join(", "));
    Ok(())
}

fn create(path: &Path, args: &Run, watch: &Watch, node: &str) -> anyhow::Result<Output> {
    let mut header = watch.header(format!("infer {}", env!("CARGO_PKG_VERSION")));
    node.clone_into(&mut header.node);
    let bounds = args.keep.map_or_else(Bounds::default, |span| {
        Bounds::black_box(event::Duration::from_nanos(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    });
    Ok(Output::create(path, header, recording::Options::default(), bounds)?)
}
