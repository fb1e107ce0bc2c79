//! Everything that a node tells, watched together: packets, kernel events, system snapshots, application messages.

mod arguments;

use std::collections::BTreeMap;

use event::Event;
use recording::{ClockPair, Header, Interface};

use crate::source::{Error, Source, hubble, kernel, kubernetes, system, tc};
use crate::{Clock, LinkLayer, Pace};

pub use arguments::WatchArgs;

/// The sources of a node. Made by [`WatchArgs::attach`].
pub struct Watch {
    packets: tc::Tc,
    kernel: Option<kernel::Kernel>,
    system: Option<system::System>,
    hubble: Option<hubble::Hubble>,
    kubernetes: Option<kubernetes::Kubernetes>,
    clock: Clock,
    /// Interfaces that were told of.
    told: usize,
}

impl Watch {
    fn new(packets: tc::Tc, kernel: Option<kernel::Kernel>, clock: Clock) -> Self {
        let told = packets.interfaces().count();
        Self { packets, kernel, system: None, hubble: None, kubernetes: None, clock, told }
    }

    fn add(
        &mut self,
        system: Option<system::System>,
        hubble: Option<hubble::Hubble>,
        kubernetes: Option<kubernetes::Kubernetes>,
    ) {
        (self.system, self.hubble, self.kubernetes) = (system, hubble, kubernetes);
        self.place_interfaces();
    }

    /// The source of packets.
    pub const fn packets(&self) -> &tc::Tc {
        &self.packets
    }

    /// How to sleep between two polls.
    pub fn pace(&self) -> Pace {
        self.packets.pace()
    }

    /// The clock that events are stamped by.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What a recording of this watch says of itself.
    pub fn header(&self, tool: String) -> Header {
        let (monotonic, wall) = self.clock.pair();
        let system = nix::sys::utsname::uname().ok();
        let release = system.as_ref().map(|system| system.release().to_string_lossy().into_owned());
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Header {
            node: host(),
            boot_id: boot_id.trim().to_owned(),
            kernel: release.unwrap_or_default(),
            tool,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            clocks: vec![ClockPair { monotonic, wall }],
            interfaces: self.packets.interfaces().map(described).collect(),
            metadata: BTreeMap::from([("attachment".to_owned(), self.packets.attachment().to_owned())]),
            ..Header::default()
        }
    }

    /// Hands over the events that every source has; how many it was. None arrives before the poll that hands it
    /// over: who goes by the arrivals may act at the time of a poll on everything that the poll did not bring.
    ///
    /// # Errors
    /// Where nothing more can come.
    pub fn poll(&mut self, take: &mut dyn FnMut(Event)) -> Result<usize, Error> {
        self.ask(take, |source, take| source.poll(take))
    }

    /// Stops every source, and hands over what it had.
    ///
    /// # Errors
    /// As [`Watch::poll`].
    pub fn stop(&mut self, take: &mut dyn FnMut(Event)) -> Result<(), Error> {
        self.ask(take, |source, take| source.stop(take).map(|()| 0)).map(drop)
    }

    fn ask(
        &mut self,
        take: &mut dyn FnMut(Event),
        ask: impl Fn(&mut dyn Source, &mut dyn FnMut(Event)) -> Result<usize, Error>,
    ) -> Result<usize, Error> {
        let now = self.clock.now();
        let mut count = ask(&mut self.packets, take)?;
        let mut take = |mut event: Event| {
            event.arrive_after(now);
            take(event);
        };
        let Self { kernel, system, hubble, kubernetes, .. } = self;
        let others = [
            kernel.as_mut().map(|kernel| kernel as &mut dyn Source),
            system.as_mut().map(|system| system as &mut dyn Source),
            hubble.as_mut().map(|hubble| hubble as &mut dyn Source),
            kubernetes.as_mut().map(|kubernetes| kubernetes as &mut dyn Source),
        ];
        for source in others.into_iter().flatten() {
            count += ask(source, &mut take)?;
        }
        Ok(count)
    }

    /// Interfaces that appeared since this was last asked, or since the header: a recording needs them before the
    /// events of the next poll.
    pub fn fresh_interfaces(&mut self) -> Vec<Interface> {
        let fresh: Vec<Interface> = self.packets.interfaces().skip(self.told).map(described).collect();
        self.told += fresh.len();
        if !fresh.is_empty() {
            self.place_interfaces();
        }
        fresh
    }

    fn place_interfaces(&mut self) {
        if let Some(system) = &mut self.system {
            system.set_places(self.packets.interfaces().map(|interface| interface.index).zip(0..));
        }
    }

    /// Says what became of everything but packets, as lines of a summary.
    ///
    /// # Errors
    /// Where the kernel's counters cannot be read.
    pub fn report(&self) -> Result<(), Error> {
        if let Some(tc::PayloadCounters { snapshots, lost, messages }) = self.packets.payload_counters()? {
            tracing::info!(snapshots, lost, "application messages: {messages}");
            if lost > 0 {
                tracing::warn!(lost, "payload came faster than it was read: messages are missing");
            }
        }
        if let Some(kernel) = &self.kernel {
            let kernel::Counters { seen, events, lost, filtered, unreadable } = kernel.counters()?;
            tracing::info!(seen, events, lost, filtered, unreadable, "kernel events");
        }
        if let Some(kubernetes) = &self.kubernetes {
            let kubernetes::Counters { pods, services, addresses, shared, host_network, names, lists } =
                kubernetes.counters();
            tracing::info!(pods, services, addresses, shared, host_network, names, lists, "Kubernetes");
        }
        let Some(hubble) = &self.hubble else { return Ok(()) };
        let counters = hubble.counters();
        tracing::info!(
            connections = counters.connections,
            received = counters.received,
            undecodable = counters.undecodable,
            repeated = counters.repeated,
            events = counters.events,
            dropped = counters.dropped,
            "Hubble: {}",
            counters.messages
        );
        if counters.dropped > 0 {
            tracing::warn!(dropped = counters.dropped, "Hubble's flows came faster than they could be taken");
        }
        Ok(())
    }
}

fn described(interface: &crate::Interface) -> Interface {
    Interface {
        name: interface.name.clone(),
        index: Some(interface.index),
        link_type: interface.link_layer.map(LinkLayer::link_type),
    }
}

/// The name of this node.
pub fn host() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
