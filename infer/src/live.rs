//! EVENTS of this node as they happen, by capture's sources; written to a recording on the way where that is asked
//! for.

use std::path::Path;

use anyhow::Context as _;
use capture::source::{Source as _, tc};
use capture::{Clock, Selection};
use event::{Event, Timestamp};
use recording::{ClockPair, Header, Interface, Writer};
use tracing::{info, warn};

/// This node, observed.
pub struct Live {
    packets: tc::Tc,
    clock: Clock,
    writer: Option<Writer>,
    /// Interfaces that the recording knows.
    interfaces: usize,
    events: Vec<Event>,
}

impl Live {
    /// Attaches to the interfaces.
    ///
    /// # Errors
    /// Where a right, a kernel feature or an interface is missing, or the recording cannot be created.
    pub fn open(interfaces: &[String], record: Option<&Path>, node: &str) -> anyhow::Result<Self> {
        let selection = Selection::parse(interfaces)?;
        let clock = Clock::start().context("cannot read the clocks")?;
        let packets = tc::Tc::open(&selection, clock, tc::Options::default())?;
        let names: Vec<&str> = packets.interfaces().map(|interface| interface.name.as_str()).collect();
        info!(by = packets.attachment(), "watching {}", names.join(", "));
        let writer = record.map(|path| create(path, &packets, &clock, node)).transpose()?;
        let interfaces = packets.interfaces().count();
        Ok(Self { packets, clock, writer, interfaces, events: Vec::new() })
    }

    /// The time now, on the clock that events are stamped by.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The events that are there; none where the node was quiet.
    ///
    /// # Errors
    /// Where nothing more can come.
    pub fn poll(&mut self) -> anyhow::Result<&[Event]> {
        self.events.clear();
        let events = &mut self.events;
        self.packets.poll(&mut |event| events.push(event))?;
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
        self.packets.stop(&mut |event| events.push(event))?;
        self.record();
        if let Some(writer) = self.writer.take() {
            let summary = writer.finish()?;
            info!(events = summary.counts.total(), bytes = summary.bytes, "recorded");
        }
        let counters = self.packets.counters()?;
        info!(
            seen = counters.seen,
            packets = counters.packets,
            lost = counters.lost,
            not_ip = counters.not_ip,
            "watched"
        );
        Ok(&self.events)
    }

    /// Writes what was polled down. A recording that fails ends, and is said; the watch goes on.
    fn record(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        let mut write = || -> Result<(), recording::Error> {
            for interface in self.packets.interfaces().skip(self.interfaces) {
                writer.add_interface(&described(interface))?;
                self.interfaces += 1;
            }
            for event in &self.events {
                writer.write(event)?;
            }
            writer.tick(self.clock.now())
        };
        if let Err(error) = write() {
            warn!("{:#}; nothing more is recorded", anyhow::Error::new(error));
            self.writer = None;
        }
    }
}

fn create(path: &Path, packets: &tc::Tc, clock: &Clock, node: &str) -> anyhow::Result<Writer> {
    let (monotonic, wall) = clock.pair();
    let header = Header {
        node: node.to_owned(),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        tool: format!("infer {}", env!("CARGO_PKG_VERSION")),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        clocks: vec![ClockPair { monotonic, wall }],
        interfaces: packets.interfaces().map(described).collect(),
        ..Header::default()
    };
    Ok(Writer::create(path, &header, recording::Options::default())?)
}

fn described(interface: &capture::Interface) -> Interface {
    Interface {
        name: interface.name.clone(),
        index: Some(interface.index),
        link_type: interface.link_layer.map(capture::LinkLayer::link_type),
    }
}

/// The name of this node.
pub fn node() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
