//! Records of the TC programs to packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dissect::{FragmentKey, Fragments};
use event::{Direction, Endpoint, FiveTuple, Fragment, Packet, Protocol, Tap, Tcp, TcpFlags, Timestamp};
use wire::{NO_WINDOW_SCALE, PacketMarks, PacketRecord};

use crate::Clock;

/// Reads records one by one; remembers only what fragments need.
pub struct Decoder {
    clock: Clock,
    fragments: Fragments,
    /// Later fragments whose first fragment was not seen: ports 0.
    pub fragments_unmatched: u64,
}

impl Decoder {
    pub fn new(clock: Clock) -> Self {
        Self { clock, fragments: Fragments::default(), fragments_unmatched: 0 }
    }

    /// The packet of a record. `interface` is the place of the record's interface in the table, and `arrival` when
    /// the record was read.
    pub fn packet(&mut self, record: &PacketRecord, interface: u32, arrival: Timestamp) -> Packet {
        let marks = record.marks;
        let time = self.clock.at(record.time);
        let (gso_segments, gso_size) = segments(record);
        Packet {
            time,
            arrival: arrival.max(time),
            interface,
            direction: if marks.contains(PacketMarks::EGRESS) {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            tap: Tap::Unknown,
            five_tuple: self.five_tuple(record),
            l3_length: record.l3_length,
            payload_length: record.payload_length,
            ttl: record.ttl,
            fragment: fragment(marks),
            gso_segments,
            gso_size,
            tcp: marks.contains(PacketMarks::TCP).then(|| tcp(record)),
        }
    }

    fn five_tuple(&mut self, record: &PacketRecord) -> FiveTuple {
        let is_ipv6 = record.marks.contains(PacketMarks::IPV6);
        let (source, destination) = (address(record.source, is_ipv6), address(record.destination, is_ipv6));
        let protocol = Protocol(record.protocol);
        let mut ports = (record.source_port, record.destination_port);
        let kind = fragment(record.marks);
        if kind != Fragment::Whole {
            let key = FragmentKey { source, destination, protocol, identification: record.fragment_id };
            if kind == Fragment::First {
                self.fragments.remember(key, ports);
            } else if let Some(first) = self.fragments.ports(key) {
                ports = first;
            } else {
                self.fragments_unmatched += 1;
            }
        }
        FiveTuple::new(Endpoint::new(source, ports.0), Endpoint::new(destination, ports.1), protocol)
    }
}

fn address([low, high]: wire::Address, is_ipv6: bool) -> IpAddr {
    let (low, high) = (low.to_ne_bytes(), high.to_ne_bytes());
    if !is_ipv6 {
        return Ipv4Addr::new(low[0], low[1], low[2], low[3]).into();
    }
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low);
    bytes[8..].copy_from_slice(&high);
    Ipv6Addr::from(bytes).into()
}

const fn fragment(marks: PacketMarks) -> Fragment {
    if marks.contains(PacketMarks::LATER_FRAGMENT) {
        Fragment::Later
    } else if marks.contains(PacketMarks::FIRST_FRAGMENT) {
        Fragment::First
    } else {
        Fragment::Whole
    }
}

fn tcp(record: &PacketRecord) -> Tcp {
    let flags = TcpFlags(record.tcp_flags);
    let scale = (record.window_scale != NO_WINDOW_SCALE).then_some(record.window_scale);
    let timestamps = record.marks.contains(PacketMarks::TIMESTAMPS);
    Tcp {
        sequence: record.sequence,
        acknowledgement: if flags.contains(TcpFlags::ACK) { record.acknowledgement } else { 0 },
        window: record.window,
        flags,
        window_scale: scale.filter(|_| flags.contains(TcpFlags::SYN)),
        timestamps: timestamps.then_some((record.timestamp, record.timestamp_echo)),
    }
}

/// Segments of a packet, and the payload bytes of each.
fn segments(record: &PacketRecord) -> (u16, u16) {
    let size = record.gso_size;
    if size == 0 {
        return (1, 0);
    }
    // A device that hands over super-packets of untrusted make (virtio, tun) leaves the count to whoever cuts them.
    let counted = match record.gso_segments {
        0 => u16::try_from(record.payload_length.div_ceil(u32::from(size))).unwrap_or(u16::MAX),
        count => count,
    };
    if counted <= 1 { (1, 0) } else { (counted, size) }
}
