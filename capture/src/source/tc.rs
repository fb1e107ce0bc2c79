//! Packets, by TC programs on the interfaces that were chosen.
//!
//! What the programs saw is accounted for exactly: `seen = packets + lost + unreadable + not_ip +
//! not_sampled`.

mod payload;
mod rings;
mod taps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{MapData, MapError, PerCpuHashMap};
use aya::programs::links::LinkOrder;
use aya::programs::tc::{NlOptions, SchedClassifierLinkId, TcAttachOptions};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, TestRun as _, TestRunOptions, tc};
use aya::{Ebpf, EbpfLoader};
use decode::packet::Decoder;
use event::{Duration, Event, Loss, LossCause, Timestamp};
use wire::Unrecorded;

use crate::link::{self, Change, Interface, LinkLayer, Watch};
use crate::source::{Error, Source};
use crate::{Clock, Pace, Selection, object};
use payload::{Globals, Payloads};
pub use payload::{PayloadCounters, PayloadOptions};
use rings::{Layout, Rings};
use taps::Taps;

/// How to observe packets.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of room between kernel and reader, shared among the processors; 4095 packets for each at least.
    pub ring_size: u32,
    /// Packets of one flow in so many are recorded, both directions; 1 is every flow.
    pub sample: u32,
    /// Application messages, where they are to be read from payload.
    pub payload: Option<PayloadOptions>,
}

impl Default for Options {
    /// 65,536 packets between two polls on one or two processors.
    fn default() -> Self {
        Self { ring_size: 8 << 20, sample: 1, payload: None }
    }
}

/// What became of the packets that the programs saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By the programs, of IP or not.
    pub seen: u64,
    /// Handed over.
    pub packets: u64,
    /// The ring buffer had no room.
    pub lost: u64,
    /// IP headers that are cut or contradict themselves.
    pub unreadable: u64,
    /// ARP, LLDP and the like.
    pub not_ip: u64,
    /// Of flows that the sample leaves out.
    pub not_sampled: u64,
    /// Of the packets, later fragments whose first fragment was not seen: their ports are 0.
    pub fragments_unmatched: u64,
}

/// What passed one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    pub interface: String,
    /// Handed over.
    pub packets: u64,
    pub lost: u64,
    pub unreadable: u64,
}

/// Most packets handed over by one poll, so that a flood does not keep the reader from everything else.
const MAX_BATCH: usize = 1 << 16;
/// Records between two readings of the clock that says when they arrived.
const CLOCK_INTERVAL: usize = 256;
/// How often losses are asked for, and interfaces that came or went.
const ROUND_INTERVAL: Duration = Duration::from_millis(100);
/// Polls after the programs were detached, until those still running on other processors have ended.
const MAX_DRAINS: usize = 100;

/// The programs, and what they are attached to.
pub struct Tc {
    ebpf: Ebpf,
    records: Records,
    unrecorded: PerCpuHashMap<MapData, u32, PerCpu>,
    clock: Clock,
    by_tcx: bool,
    selection: Selection,
    watch: Watch,
    taps: Vec<Tap>,
    /// Indices of interfaces that could not be attached to: it was said once.
    refused: BTreeSet<u32>,
    /// What was counted of each interface when it was last asked for.
    told: BTreeMap<u32, Unrecorded>,
    told_at: Timestamp,
}

/// An interface that is observed; its place is what packets name.
struct Tap {
    interface: Interface,
    links: Vec<(&'static str, SchedClassifierLinkId)>,
}

/// The reader of what the programs recorded.
struct Records {
    rings: Rings,
    decoder: Decoder,
    /// Once there are two interfaces: a single one sees every packet once.
    taps: Option<Taps>,
    /// Interface index to place in the table.
    places: BTreeMap<u32, u32>,
    clock: Clock,
    packets: u64,
    payloads: Option<Payloads>,
    /// Of them, those of each interface.
    by_place: Vec<u64>,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PerCpu(Unrecorded);

#[expect(unsafe_code, reason = "aya asks for it to read a map's values")]
// SAFETY: `repr(C)`, without padding, valid for any bytes.
unsafe impl aya::Pod for PerCpu {}

impl Tc {
    /// Attaches to the interfaces chosen, in the calling thread's network namespace: those that are there now, and
    /// each that appears later and fits a pattern or `all`.
    ///
    /// # Errors
    /// [`Error::Lack`] where rights or kernel do not suffice, [`Error::NoSuchInterface`], [`Error::NoInterface`],
    /// [`Error::LinkLayer`], [`Error::Attach`].
    pub fn open(selection: &Selection, clock: Clock, options: Options) -> Result<Self, Error> {
        let mut source = Self::without_interfaces(selection, clock, options)?;
        for interface in chosen(selection)? {
            source.attach(interface)?;
        }
        Ok(source)
    }

    fn without_interfaces(selection: &Selection, clock: Clock, options: Options) -> Result<Self, Error> {
        let layout = Layout::of(options.ring_size)?;
        let capacity = layout.capacity();
        // What x86 guarantees of every store, other machines do for an instruction that the program has for them.
        let in_order = u32::from(cfg!(target_arch = "x86_64"));
        let mut loader = EbpfLoader::new();
        let globals = Globals::new(options.payload.as_ref());
        globals.set(&mut loader);
        loader
            .map_max_entries("RINGS", layout.rings())
            .map_max_entries("SLOTS", layout.slots())
            .override_global("CAPACITY", &capacity, true)
            .override_global("IN_ORDER", &in_order, true)
            .override_global("SAMPLE", &options.sample, true);
        let mut ebpf = object::load(&mut loader)?;
        // All of them now, while the rights for it are there: an interface of the other kind may appear later.
        for name in ETHERNET_PROGRAMS.into_iter().chain(IP_PROGRAMS) {
            program(&mut ebpf, name)?;
        }
        let rings = Rings::map(&mut ebpf, layout)?;
        let unrecorded = object::map(&mut ebpf, "UNRECORDED", PerCpuHashMap::try_from)?;
        let payloads =
            options.payload.as_ref().map(|options| Payloads::new(&mut ebpf, options)).transpose()?;
        let records = Records {
            rings,
            payloads,
            decoder: Decoder::new(clock),
            taps: None,
            places: BTreeMap::new(),
            clock,
            packets: 0,
            by_place: Vec::new(),
        };
        let mut source = Self {
            ebpf,
            records,
            unrecorded,
            clock,
            by_tcx: true,
            selection: selection.clone(),
            // Before the interfaces are listed, so that none is missed.
            watch: Watch::start().map_err(Error::Links)?,
            taps: Vec::new(),
            refused: BTreeSet::new(),
            told: BTreeMap::new(),
            told_at: clock.now(),
        };
        // Takes what has no entry of its own.
        source.make_entry(0)?;
        Ok(source)
    }

    /// The interfaces observed, those included that are gone, in the order of the numbers that packets name. New
    /// ones are added at the end of a poll, before the first of their packets is handed over.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.taps.iter().map(|tap| &tap.interface)
    }

    /// How to sleep between two polls: as long as the rings allow.
    pub fn pace(&self) -> Pace {
        Pace::of_rings(self.records.rings.capacity())
    }

    /// How the programs are attached: `tcx` (Linux 6.6) or `clsact`.
    pub const fn attachment(&self) -> &'static str {
        if self.by_tcx { "tcx" } else { "clsact" }
    }

    /// What became of the packets seen until now. Exact once [`Source::stop`] has returned.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<Counters, Error> {
        let mut counters = Counters {
            seen: self.records.rings.seen(),
            not_sampled: self.records.rings.not_sampled(),
            packets: self.records.packets,
            fragments_unmatched: self.records.decoder.fragments_unmatched,
            ..Counters::default()
        };
        for entry in self.unrecorded.keys() {
            let total = self.unrecorded_of(entry.map_err(map_error("UNRECORDED"))?)?;
            counters.lost += total.lost;
            counters.unreadable += total.unreadable;
            counters.not_ip += total.not_ip;
        }
        Ok(counters)
    }

    /// What became of payload, where messages are read from it.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn payload_counters(&self) -> Result<Option<PayloadCounters>, Error> {
        self.records.payloads.as_ref().map(Payloads::counters).transpose()
    }

    /// What passed each interface until now, in the order of [`Tc::interfaces`].
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn passed(&self) -> Result<Vec<Passed>, Error> {
        let passed = |(tap, packets): (&Tap, &u64)| {
            let Unrecorded { lost, unreadable, .. } = self.unrecorded_of(tap.interface.index)?;
            Ok(Passed { interface: tap.interface.name.clone(), packets: *packets, lost, unreadable })
        };
        self.taps.iter().zip(&self.records.by_place).map(passed).collect()
    }

    /// What a small packet costs here, by running the program on one many times; `None` where the kernel does not
    /// let it. What it records is no packet that was seen.
    pub fn cost(&mut self) -> Option<std::time::Duration> {
        /// Fewer than there is room for in any case, so that each gives a record.
        const TIMES: u32 = 4000;
        // Ethernet, IPv4, UDP, and 18 bytes; what does not matter is 0.
        let mut frame = [0_u8; 60];
        frame[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
        frame[17] = 46;
        frame[22..24].copy_from_slice(&[64, 17]);
        frame[26..34].copy_from_slice(&[198, 18, 0, 1, 198, 18, 0, 2]);
        frame[39] = 26;
        let options = TestRunOptions { data_in: Some(&frame), repeat: TIMES, ..TestRunOptions::default() };
        let [ingress, _] = ETHERNET_PROGRAMS;
        Some(program(&mut self.ebpf, ingress).ok()?.test_run(options).ok()?.duration)
    }

    fn unrecorded_of(&self, index: u32) -> Result<Unrecorded, Error> {
        let values = self.unrecorded.get(&index, 0).map_err(map_error("UNRECORDED"))?;
        Ok(values.iter().fold(Unrecorded::default(), |sum, PerCpu(one)| Unrecorded {
            lost: sum.lost + one.lost,
            unreadable: sum.unreadable + one.unreadable,
            not_ip: sum.not_ip + one.not_ip,
        }))
    }

    /// An entry of zeros for an interface, where it has none.
    fn make_entry(&mut self, index: u32) -> Result<(), Error> {
        let processors = aya::util::nr_cpus().map_err(|(_, error)| Error::Links(error))?;
        let zeros = vec![PerCpu(Unrecorded::default()); processors];
        let zeros = aya::maps::PerCpuValues::try_from(zeros).map_err(Error::Links)?;
        match self.unrecorded.insert(index, zeros, BPF_NOEXIST) {
            // It was observed before: its counts go on.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(EEXIST) => Ok(()),
            done => done.map_err(map_error("UNRECORDED")),
        }
    }

    fn attach(&mut self, interface: Interface) -> Result<(), Error> {
        let programs = match interface.link_layer {
            Some(LinkLayer::Ethernet) => ETHERNET_PROGRAMS,
            Some(LinkLayer::Ip) => IP_PROGRAMS,
            None => return Err(Error::LinkLayer { name: interface.name }),
        };
        self.make_entry(interface.index)?;
        // A record may come the moment a program is attached.
        let place = u32::try_from(self.taps.len()).unwrap_or(u32::MAX);
        self.records.places.insert(interface.index, place);
        self.records.by_place.resize(self.taps.len() + 1, 0);
        let mut links = Vec::new();
        for (name, direction) in programs.into_iter().zip([TcAttachType::Ingress, TcAttachType::Egress]) {
            links.push((name, self.attach_program(name, &interface.name, direction)?));
        }
        self.taps.push(Tap { interface, links });
        if self.taps.len() > 1 {
            self.records.taps.get_or_insert_default();
        }
        Ok(())
    }

    fn attach_program(
        &mut self,
        name: &'static str,
        interface: &str,
        direction: TcAttachType,
    ) -> Result<SchedClassifierLinkId, Error> {
        let by_tcx = self.by_tcx;
        let program = program(&mut self.ebpf, name)?;
        // First of all programs: one that redirects or accepts a packet ends its way through the others.
        let tcx = || TcAttachOptions::TcxOrder(LinkOrder::first());
        let clsact = || TcAttachOptions::Netlink(NlOptions { priority: 1, ..NlOptions::default() });
        let attach_error = |source| Error::Attach { name: interface.to_owned(), source };
        if by_tcx {
            match program.attach_with_options(interface, direction, tcx()) {
                // Before Linux 6.6 the kernel knows no such link.
                Err(ProgramError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(EINVAL) && self.taps.is_empty() => {}
                done => return done.map_err(attach_error),
            }
        }
        self.by_tcx = false;
        // It is there already where somebody else uses it; attaching tells where it could not be made.
        let _ = tc::qdisc_add_clsact(interface);
        program.attach_with_options(interface, direction, clsact()).map_err(attach_error)
    }

    fn detach(&mut self, place: usize) -> Result<(), Error> {
        let Some(tap) = self.taps.get_mut(place) else { return Ok(()) };
        for (name, link) in tap.links.drain(..) {
            // Where the interface went away its links went with it.
            if let Err(error) = program(&mut self.ebpf, name)?.detach(link) {
                tracing::debug!(interface = tap.interface.name, %error, "detaching");
            }
        }
        Ok(())
    }

    /// Attaches to interfaces that came, and reports those that went.
    fn follow_interfaces(&mut self, now: Timestamp, take: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let changes = match self.watch.changes() {
            // More happened than the socket holds: what is there now is all that can be known.
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => {
                link::interfaces().map_err(Error::Links)?.into_iter().map(Change::There).collect()
            }
            changes => changes.map_err(Error::Links)?,
        };
        for change in changes {
            match change {
                Change::There(interface) => self.consider(interface)?,
                Change::Gone { index, name } => {
                    let Some(place) = self.place_of(index) else { continue };
                    tracing::info!("{name} is gone");
                    self.detach(place)?;
                    let place = u32::try_from(place).unwrap_or(u32::MAX);
                    if let Some(taps) = &mut self.records.taps {
                        taps.forget(place);
                    }
                    take(Event::Loss(Loss {
                        first: now,
                        last: now,
                        arrival: now,
                        source: event::Source::Packets,
                        cause: LossCause::InterfaceGone,
                        interface: Some(place),
                        // Nothing that passed it is missing; nothing passes it any more.
                        count: 0,
                    }));
                }
            }
        }
        Ok(())
    }

    /// The place of an interface that is attached to.
    fn place_of(&self, index: u32) -> Option<usize> {
        self.taps.iter().position(|tap| tap.interface.index == index && !tap.links.is_empty())
    }

    fn consider(&mut self, interface: Interface) -> Result<(), Error> {
        let index = interface.index;
        if self.place_of(index).is_some() || self.refused.contains(&index) {
            return Ok(());
        }
        if !self.selection.takes(&interface, &link::uplinks().map_err(Error::Links)?) {
            return Ok(());
        }
        let name = interface.name.clone();
        match self.attach(interface) {
            Ok(()) => tracing::info!("{name} appeared"),
            Err(error) => {
                // It may have gone again. The others are recorded on.
                tracing::warn!("{name} appeared and is not recorded: {:#}", anyhow::Error::from(error));
                self.refused.insert(index);
            }
        }
        Ok(())
    }

    /// Hands over what was lost since the last time.
    fn tell_losses(&mut self, now: Timestamp, take: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let indices: Vec<u32> =
            self.unrecorded.keys().collect::<Result<_, _>>().map_err(map_error("UNRECORDED"))?;
        for index in indices {
            let total = self.unrecorded_of(index)?;
            let before = self.told.insert(index, total).unwrap_or_default();
            let counts = [
                (LossCause::RingFull, total.lost - before.lost),
                (LossCause::Unreadable, total.unreadable - before.unreadable),
            ];
            for (cause, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
                take(Event::Loss(Loss {
                    first: self.told_at,
                    last: now,
                    arrival: now,
                    source: event::Source::Packets,
                    cause,
                    interface: self.records.places.get(&index).copied(),
                    count,
                }));
            }
        }
        if let Some(payloads) = &mut self.records.payloads {
            payloads.tell_loss(self.told_at, now, take)?;
        }
        self.told_at = now;
        Ok(())
    }
}

/// By what packets start with; for ingress and egress.
const ETHERNET_PROGRAMS: [&str; 2] = ["tc_ingress", "tc_egress"];
const IP_PROGRAMS: [&str; 2] = ["tc_ingress_ip", "tc_egress_ip"];

const BPF_NOEXIST: u64 = 1;
const ENOBUFS: i32 = nix::errno::Errno::ENOBUFS as i32;
const EEXIST: i32 = nix::errno::Errno::EEXIST as i32;
const EINVAL: i32 = nix::errno::Errno::EINVAL as i32;

impl Source for Tc {
    fn poll(&mut self, take: &mut dyn FnMut(Event)) -> Result<usize, Error> {
        let count = self.records.hand_over(take)?;
        let now = self.clock.now();
        if now - self.told_at >= ROUND_INTERVAL {
            self.tell_losses(now, take)?;
            self.follow_interfaces(now, take)?;
        }
        Ok(count)
    }

    fn stop(&mut self, take: &mut dyn FnMut(Event)) -> Result<(), Error> {
        for place in 0..self.taps.len() {
            self.detach(place)?;
        }
        for _ in 0..MAX_DRAINS {
            while self.records.hand_over(take)? > 0 {}
            let Counters { seen, packets, lost, unreadable, not_ip, not_sampled, .. } = self.counters()?;
            if seen == packets + lost + unreadable + not_ip + not_sampled {
                break;
            }
            // A program that was running when it was detached has not submitted its record yet.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let now = self.clock.now();
        if let Some(payloads) = &mut self.records.payloads {
            payloads.finish(now, take);
        }
        self.tell_losses(now, take)
    }
}

impl Records {
    fn hand_over(&mut self, take: &mut dyn FnMut(Event)) -> Result<usize, Error> {
        let Self { rings, decoder, taps, places, clock, packets, by_place, payloads } = self;
        let mut arrival = Timestamp::MIN;
        let mut until_clock = 0;
        let count = rings.read(MAX_BATCH, |record| {
            if until_clock == 0 {
                (arrival, until_clock) = (clock.now(), CLOCK_INTERVAL);
            }
            until_clock -= 1;
            let place = places.get(&record.interface).copied().unwrap_or(u32::MAX);
            if let Some(count) = by_place.get_mut(place as usize) {
                *count += 1;
            }
            let mut packet = decoder.packet(record, place, arrival);
            if let Some(taps) = taps {
                packet.tap = taps.judge(&packet);
            }
            take(Event::Packet(packet));
        });
        *packets += count as u64;
        // Behind the packets, so that a flow's tap is known by them.
        let Some(payloads) = payloads else { return Ok(count) };
        Ok(count + payloads.hand_over(decoder, taps, places, clock.now(), take)?)
    }
}

/// The interfaces that are asked for and there.
fn chosen(selection: &Selection) -> Result<Vec<Interface>, Error> {
    let there = link::interfaces().map_err(Error::Links)?;
    let uplinks = link::uplinks().map_err(Error::Links)?;
    let names = || there.iter().map(|interface| interface.name.clone()).collect();
    if let Some(name) = selection.names().find(|name| there.iter().all(|interface| interface.name != *name)) {
        return Err(Error::NoSuchInterface { name: name.to_owned(), there: names() });
    }
    let chosen: Vec<Interface> = selection.of(&there, &uplinks).into_iter().cloned().collect();
    if chosen.is_empty() {
        return Err(Error::NoInterface { selection: selection.to_string(), there: names() });
    }
    Ok(chosen)
}

fn map_error(name: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { name, source }
}

/// A program of the object, loaded.
fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, Error> {
    let program = ebpf.program_mut(name).ok_or(Error::Object { name })?;
    let program: &mut SchedClassifier =
        program.try_into().map_err(|source| Error::Program { name, source })?;
    if program.fd().is_err() {
        program.load().map_err(|error| object::not_loaded(name, error))?;
    }
    Ok(program)
}
