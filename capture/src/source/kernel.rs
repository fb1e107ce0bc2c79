//! Kernel events, by tracepoints: retransmissions, resets, drops with their reason, socket states, listen
//! overflows, victims of the OOM killer, smoothed round-trip times.

mod btf;
mod storm;
mod tracefs;

use aya::Ebpf;
use aya::EbpfLoader;
use aya::maps::{MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{RawTracePoint, TracePoint};
use decode::tracepoint::{self, Decoder, Format};
use event::{Duration, Event, Loss, LossCause, Timestamp};
use wire::{Traced, Tracepoint};

use crate::source::{Error, Source};
use crate::{Clock, object};
use storm::Storm;

/// How to observe the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of the ring buffer between kernel and reader; a power of two, at least a page.
    pub ring_size: u32,
    /// Least time between two round-trip times of one connection.
    pub probe_interval: Duration,
}

impl Default for Options {
    /// 20,164 events between two polls, and ten round-trip times a second of each connection.
    fn default() -> Self {
        Self { ring_size: 4 << 20, probe_interval: Duration::from_millis(100) }
    }
}

/// A tracepoint: the program of the same name observes it.
struct Probe {
    tracepoint: Tracepoint,
    group: &'static str,
    name: &'static str,
    /// What is not known without it.
    tells: &'static str,
}

const PROBES: [Probe; 7] = [
    Probe {
        tracepoint: Tracepoint::RetransmitSkb,
        group: "tcp",
        name: "tcp_retransmit_skb",
        tells: "retransmissions",
    },
    Probe { tracepoint: Tracepoint::SendReset, group: "tcp", name: "tcp_send_reset", tells: "resets sent" },
    Probe {
        tracepoint: Tracepoint::ReceiveReset,
        group: "tcp",
        name: "tcp_receive_reset",
        tells: "resets received",
    },
    Probe {
        tracepoint: Tracepoint::KfreeSkb,
        group: "skb",
        name: "kfree_skb",
        tells: "drops and listen overflows",
    },
    Probe {
        tracepoint: Tracepoint::SetState,
        group: "sock",
        name: "inet_sock_set_state",
        tells: "socket states",
    },
    Probe {
        tracepoint: Tracepoint::MarkVictim,
        group: "oom",
        name: "mark_victim",
        tells: "victims of the OOM killer",
    },
    Probe {
        tracepoint: Tracepoint::Probe,
        group: "tcp",
        name: "tcp_probe",
        tells: "smoothed round-trip times",
    },
];

/// Reasons for which packets are dropped on a healthy node all the time, each without loss to anybody.
const NORMAL: [&str; 12] = [
    // No reason is given, or none that the kernel's authors have looked at.
    "NOT_SPECIFIED",
    // The end of a socket with something in its queue.
    "SOCKET_CLOSE",
    "TCP_CLOSE",
    "QUEUE_PURGE",
    "UNIX_DISCONNECT",
    "UNIX_SKIP_OOB",
    // A reset that was obeyed: tcp_receive_reset tells of it.
    "TCP_RESET",
    // What it brought was taken: a segment that another covers, an acknowledgement that a later one overtook, a
    // handshake's data.
    "TCP_OFOMERGE",
    "TCP_OLD_ACK",
    "TCP_FASTOPEN",
    // Packets of other hosts that a promiscuous interface sees, and protocols that nobody here speaks.
    "OTHERHOST",
    "UNHANDLED_PROTO",
];

/// A tracepoint that is not observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub tracepoint: &'static str,
    /// What is not known without it.
    pub tells: &'static str,
    pub reason: String,
}

/// What became of the events that the programs saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub seen: u64,
    /// Handed over, each for itself or together with others of its flow.
    pub events: u64,
    /// The ring buffer had no room.
    pub lost: u64,
    /// Left out by rule, in the kernel.
    pub filtered: u64,
    /// Records that do not say what their tracepoint is for.
    pub unreadable: u64,
}

/// How often losses are asked for.
const LOSS_INTERVAL: Duration = Duration::from_millis(200);
/// Most events handed over by one poll.
const MAX_BATCH: usize = 1 << 14;

/// The programs, and what they told.
pub struct Kernel {
    /// Keeps the programs attached; `None` once stopped.
    ebpf: Option<Ebpf>,
    ring: RingBuf<MapData>,
    traced: PerCpuArray<MapData, PerCpu>,
    decoder: Decoder,
    storm: Storm,
    clock: Clock,
    missing: Vec<Missing>,
    events: u64,
    unreadable: u64,
    told_lost: u64,
    told_at: Timestamp,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PerCpu(Traced);

#[expect(unsafe_code, reason = "aya asks for it to read a map's values")]
// SAFETY: `repr(C)`, without padding, valid for any bytes.
unsafe impl aya::Pod for PerCpu {}

impl Kernel {
    /// Attaches to every tracepoint that this kernel has; [`Kernel::missing`] tells of the others.
    ///
    /// # Errors
    /// [`Error::Lack`] where rights or kernel do not suffice for any of it.
    pub fn open(clock: Clock, options: Options) -> Result<Self, Error> {
        tracefs::with_tracefs(|folder| Self::open_at(folder, clock, options)).map_err(Error::Tracefs)?
    }

    fn open_at(tracefs: &std::path::Path, clock: Clock, options: Options) -> Result<Self, Error> {
        let mut decoder = Decoder::default();
        let mut missing = Vec::new();
        let mut found = Vec::new();
        for probe in PROBES {
            let path = tracefs.join("events").join(probe.group).join(probe.name).join("format");
            match std::fs::read_to_string(&path) {
                Ok(text) => found.push((probe, Format::parse(&text))),
                Err(error) => missing.push(probe.missing(format!("{}: {error}", path.display()))),
            }
        }
        let structures = Structures::of_kernel();
        let mut ebpf = load(&found, options, &structures)?;
        for (probe, format) in found {
            if probe.tracepoint == Tracepoint::Probe && structures.socket.is_some() {
                match attach_raw(&mut ebpf, &probe) {
                    Ok(()) => {
                        decoder.learn(probe.tracepoint, Format::probed());
                        continue;
                    }
                    Err(error) => tracing::debug!("{:#}", anyhow::Error::from(error)),
                }
            }
            match attach(&mut ebpf, &probe) {
                Ok(()) => {
                    missing.extend(lacking(&probe, &format));
                    decoder.learn(probe.tracepoint, format);
                }
                Err(error) => missing.push(probe.missing(format!("{:#}", anyhow::Error::from(error)))),
            }
        }
        let ring = object::map(&mut ebpf, "EVENTS", RingBuf::try_from)?;
        let traced = object::map(&mut ebpf, "TRACED", PerCpuArray::try_from)?;
        Ok(Self {
            ebpf: Some(ebpf),
            ring,
            traced,
            decoder,
            storm: Storm::default(),
            clock,
            missing,
            events: 0,
            unreadable: 0,
            told_lost: 0,
            told_at: clock.now(),
        })
    }

    /// The tracepoints that are not observed, and why.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Whether this kernel names a drop for a full listen queue, as Linux 6.14 does.
    pub fn names_listen_overflows(&self) -> bool {
        self.decoder.names_listen_overflows()
    }

    /// What became of the events seen until now. Exact once [`Source::stop`] has returned.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn counters(&self) -> Result<Counters, Error> {
        let mut counters =
            Counters { events: self.events, unreadable: self.unreadable, ..Counters::default() };
        for index in 0..self.traced.len() {
            let values = self.traced.get(&index, 0).map_err(map_error)?;
            for PerCpu(Traced { seen, lost, filtered }) in values.iter() {
                counters.seen += seen;
                counters.lost += lost;
                counters.filtered += filtered;
            }
        }
        Ok(counters)
    }

    fn hand_over(&mut self, take: &mut dyn FnMut(Event)) -> Result<usize, Error> {
        let arrival = self.clock.now();
        let mut count = 0;
        while count < MAX_BATCH {
            let Some(bytes) = self.ring.next() else { break };
            let record = tracepoint::record(&bytes)?;
            drop(bytes);
            count += 1;
            match self.decoder.event(&record, &self.clock, arrival) {
                Some(event) => {
                    self.events += 1;
                    self.storm.take(event, |event| take(Event::Kernel(event)));
                }
                None => self.unreadable += 1,
            }
        }
        if count == 0 {
            self.storm.tick(arrival, |event| take(Event::Kernel(event)));
        }
        Ok(count)
    }

    fn tell_losses(&mut self, now: Timestamp, take: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let lost = self.counters()?.lost;
        if lost > self.told_lost {
            take(Event::Loss(Loss {
                first: self.told_at,
                last: now,
                arrival: now,
                source: event::Source::Kernel,
                cause: LossCause::RingFull,
                interface: None,
                count: lost - self.told_lost,
            }));
        }
        (self.told_lost, self.told_at) = (lost, now);
        Ok(())
    }
}

impl Source for Kernel {
    fn poll(&mut self, take: &mut dyn FnMut(Event)) -> Result<usize, Error> {
        let count = self.hand_over(take)?;
        let now = self.clock.now();
        if now - self.told_at >= LOSS_INTERVAL {
            self.tell_losses(now, take)?;
        }
        Ok(count)
    }

    fn stop(&mut self, take: &mut dyn FnMut(Event)) -> Result<(), Error> {
        // Detaches every program, and waits for those that run.
        self.ebpf = None;
        while self.hand_over(take)? > 0 {}
        let now = self.clock.now();
        self.storm.end(now, |event| take(Event::Kernel(event)));
        self.tell_losses(now, take)
    }
}

impl Probe {
    const fn missing(&self, reason: String) -> Missing {
        Missing { tracepoint: self.name, tells: self.tells, reason }
    }
}

/// What a tracepoint does not tell on this kernel though it is there.
fn lacking(probe: &Probe, format: &Format) -> Option<Missing> {
    // Both came with Linux 6.10.
    let is_older = probe.tracepoint == Tracepoint::SendReset && format.offset("reason").is_none();
    is_older.then(|| Missing {
        tracepoint: probe.name,
        tells: "why a reset was sent, and resets that no socket sends (to refused connections)",
        reason: "it tells them since Linux 6.10".to_owned(),
    })
}

fn map_error(source: MapError) -> Error {
    Error::Map { name: "TRACED", source }
}

/// The object, with what the programs have to know of this kernel's records.
fn load(found: &[(Probe, Format)], options: Options, structures: &Structures) -> Result<Ebpf, Error> {
    let format =
        |tracepoint| found.iter().find(|(probe, _)| probe.tracepoint == tracepoint).map(|(_, format)| format);
    let offset = |tracepoint, field: &str| {
        format(tracepoint)
            .and_then(|format| format.offset(field))
            .and_then(|offset| u32::try_from(offset).ok())
    };
    let reason_offset = offset(Tracepoint::KfreeSkb, "reason").unwrap_or(0);
    let cookie_offset = offset(Tracepoint::Probe, "sock_cookie").unwrap_or(0);
    let skb = offset(Tracepoint::KfreeSkb, "skbaddr").zip(structures.packet);
    let (skb_offset, [head, network_header, tail]) = skb.unwrap_or_default();
    let socket = structures.socket.unwrap_or_default();
    let interval = options.probe_interval.as_nanos().unsigned_abs();
    let mut normal = [0_u64; wire::MAX_REASONS / 64];
    for name in NORMAL {
        let number = format(Tracepoint::KfreeSkb).and_then(|format| format.reason_number(name));
        if let Some(number) = number.and_then(|number| usize::try_from(number).ok())
            && let Some(word) = normal.get_mut(number / 64)
        {
            *word |= 1 << (number % 64);
        }
    }
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries("EVENTS", options.ring_size)
        .override_global("REASON_OFFSET", &reason_offset, true)
        .override_global("SKB_OFFSET", &skb_offset, true)
        .override_global("SKB_HEAD", &head, true)
        .override_global("SKB_NETWORK_HEADER", &network_header, true)
        .override_global("SKB_TAIL", &tail, true)
        .override_global("COOKIE_OFFSET", &cookie_offset, true)
        .override_global("SOCK", &socket[..], true)
        .override_global("PROBE_INTERVAL", &interval, true)
        .override_global("NORMAL_REASONS", &normal[..], true);
    Ok(object::load(&mut loader)?)
}

/// Where members of the kernel's own structures stand, as far as it describes them.
#[derive(Default)]
struct Structures {
    /// Of a packet (`sk_buff`): `head`, `network_header`, `tail`.
    packet: Option<[u32; 3]>,
    /// Of a TCP socket, in the order of the program's `SOCK`.
    socket: Option<[u32; 8]>,
}

impl Structures {
    fn of_kernel() -> Self {
        let Ok(bytes) = std::fs::read(btf::KERNEL) else { return Self::default() };
        let Some(btf) = btf::Btf::parse(&bytes) else { return Self::default() };
        let common = [
            "skc_family",
            "skc_num",
            "skc_dport",
            "skc_rcv_saddr",
            "skc_daddr",
            "skc_v6_rcv_saddr",
            "skc_v6_daddr",
        ];
        // A socket's structures begin with each other: `tcp_sock` with `inet_sock`, and so on to `sock_common`.
        let socket = offsets(&btf, "sock_common", common).zip(offsets(&btf, "tcp_sock", ["srtt_us"]));
        let socket = socket.map(|([family, own_port, port, own_v4, v4, own_v6, v6], [srtt])| {
            [family, own_port, port, own_v4, v4, own_v6, v6, srtt]
        });
        Self { packet: offsets(&btf, "sk_buff", ["head", "network_header", "tail"]), socket }
    }
}

/// Offsets of these members, where the structure has all of them.
fn offsets<const N: usize>(btf: &btf::Btf<'_>, structure: &str, names: [&str; N]) -> Option<[u32; N]> {
    let members = btf.members(structure)?;
    let found: Option<Vec<u32>> = names.iter().map(|name| members.get(name).copied()).collect();
    found?.try_into().ok()
}

/// Whether drops are told with the five-tuple of their packet.
pub fn knows_dropped_packets() -> bool {
    Structures::of_kernel().packet.is_some()
}

/// Attaches the program that is given the kernel's own structures instead of a record of them.
fn attach_raw(ebpf: &mut Ebpf, probe: &Probe) -> Result<(), Error> {
    const PROGRAM: &str = "tcp_probe_raw";
    let error = |source| Error::Program { name: PROGRAM, source };
    let program = ebpf.program_mut(PROGRAM).ok_or(Error::Object { name: PROGRAM })?;
    let program: &mut RawTracePoint = program.try_into().map_err(error)?;
    program.load().map_err(|error| object::not_loaded(PROGRAM, error))?;
    program.attach(probe.name).map_err(error)?;
    Ok(())
}

fn attach(ebpf: &mut Ebpf, probe: &Probe) -> Result<(), Error> {
    let error = |source| Error::Program { name: probe.name, source };
    let program = ebpf.program_mut(probe.name).ok_or(Error::Object { name: probe.name })?;
    let program: &mut TracePoint = program.try_into().map_err(error)?;
    program.load().map_err(|error| object::not_loaded(probe.name, error))?;
    program.attach(probe.group, probe.name).map_err(error)?;
    Ok(())
}
