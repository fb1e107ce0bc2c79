//! Packets as a pcapng file that Wireshark reads: the headers that are known, made anew, and no payload.
//!
//! Link type raw IP. Known and written are times, interfaces, directions, addresses, ports, lengths, TTL and of TCP
//! sequence numbers, flags, window, window scale and timestamps. A packet's original length is that of the real
//! packet from the IP header on; captured are the headers alone. Not known, and therefore 0: IP identification,
//! checksums of TCP and UDP, urgent pointers; the checksum of the IPv4 header fits what is written. Options that
//! are not known are no-operations, so that lengths agree. Where even the header is not known (ICMP, SCTP, others)
//! the captured bytes end before it.

use std::io::{self, Write};
use std::net::IpAddr;

use event::{Direction, Fragment, Packet, Protocol, Tcp, TcpFlags};

/// Link type of packets that begin with their IP header.
const RAW_IP: u16 = 101;
/// Interfaces that are told apart; a packet of a later one is written as of the last.
const MAX_INTERFACES: u32 = 4096;

/// Writes a pcapng file.
pub struct Pcapng<W> {
    output: W,
    /// Names of the input's interfaces, where they are known.
    names: Vec<String>,
    interfaces: u32,
    pub packets: u64,
    bytes: Vec<u8>,
}

impl<W: Write> Pcapng<W> {
    pub fn new(mut output: W, names: Vec<String>) -> io::Result<Self> {
        const SECTION: u32 = 0x0a0d_0d0a;
        let mut body = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
        body.extend([1, 0, 0, 0]);
        // The section's length is not told.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, 4, concat!("replay ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(
            &mut body,
            1,
            b"Headers made from metadata: payload, IP identification, TCP and UDP checksums and some options are not the originals'",
        );
        option(&mut body, 0, &[]);
        block(&mut output, SECTION, &body)?;
        Ok(Self { output, names, interfaces: 0, packets: 0, bytes: Vec::new() })
    }

    pub fn write(&mut self, packet: &Packet) -> io::Result<()> {
        const ENHANCED_PACKET: u32 = 6;
        let interface = packet.interface.min(MAX_INTERFACES - 1);
        while self.interfaces <= interface {
            self.describe(self.interfaces)?;
            self.interfaces += 1;
        }
        self.bytes.clear();
        headers(&mut self.bytes, packet);
        let captured = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let time = packet.time.as_nanos().cast_unsigned();
        let mut body = Vec::with_capacity(64 + self.bytes.len());
        body.extend(interface.to_le_bytes());
        #[allow(clippy::cast_possible_truncation, reason = "the two halves of it")]
        for word in [(time >> 32) as u32, time as u32, captured, packet.l3_length.max(captured)] {
            body.extend(word.to_le_bytes());
        }
        body.extend(&self.bytes);
        pad(&mut body);
        let direction: u32 = match packet.direction {
            Direction::Unknown => 0,
            Direction::Ingress => 1,
            Direction::Egress => 2,
        };
        if direction > 0 {
            option(&mut body, 2, &direction.to_le_bytes());
            option(&mut body, 0, &[]);
        }
        self.packets += 1;
        block(&mut self.output, ENHANCED_PACKET, &body)
    }

    fn describe(&mut self, interface: u32) -> io::Result<()> {
        const INTERFACE: u32 = 1;
        let mut body = RAW_IP.to_le_bytes().to_vec();
        body.extend([0; 6]);
        if let Some(name) = self.names.get(interface as usize).filter(|name| !name.is_empty()) {
            option(&mut body, 2, name.as_bytes());
        }
        // Times in nanoseconds.
        option(&mut body, 9, &[9]);
        option(&mut body, 0, &[]);
        block(&mut self.output, INTERFACE, &body)
    }

    pub fn finish(mut self) -> io::Result<u64> {
        self.output.flush()?;
        Ok(self.packets)
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(u16::MAX.into())];
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn block(output: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 12).map_err(io::Error::other)?.to_le_bytes();
    output.write_all(&kind.to_le_bytes())?;
    output.write_all(&length)?;
    output.write_all(body)?;
    output.write_all(&length)
}

/// IP and transport headers, as far as they are known.
fn headers(bytes: &mut Vec<u8>, packet: &Packet) {
    let mut transport = Vec::with_capacity(60);
    let is_whole = transport_header(&mut transport, packet);
    // Bytes of headers that nothing is known of: options of IPv4, extension headers of IPv6.
    let base = if packet.five_tuple.source.address.is_ipv4() { 20 } else { 40 };
    let known = base + transport.len();
    let rest = if is_whole { (packet.header_length() as usize).saturating_sub(known) } else { 0 };
    match (packet.five_tuple.source.address, packet.five_tuple.destination.address) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(bytes, packet, from.octets(), to.octets(), rest),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(bytes, packet, from.octets(), to.octets(), rest),
        // A packet has one family.
        _ => {}
    }
    bytes.extend(transport);
}

fn ipv4(bytes: &mut Vec<u8>, packet: &Packet, from: [u8; 4], to: [u8; 4], rest: usize) {
    const NO_OPERATION: u8 = 1;
    let start = bytes.len();
    let options = rest.min(40) / 4 * 4;
    let words = u8::try_from(5 + options / 4).unwrap_or(5);
    // A super-packet may be longer than the field: 0, as segmentation offload leaves it.
    let length = u16::try_from(packet.l3_length).unwrap_or(0);
    let fragment: u16 = match packet.fragment {
        Fragment::Whole => 0,
        Fragment::First => 0x2000,
        // Where in the datagram is not known; the first place that is not the first.
        Fragment::Later => 1,
    };
    bytes.extend([0x40 | words, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([packet.ttl, packet.five_tuple.protocol.0, 0, 0]);
    bytes.extend(from);
    bytes.extend(to);
    bytes.resize(bytes.len() + options, NO_OPERATION);
    let sum = checksum(&bytes[start..]);
    bytes[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(0)
}

fn ipv6(bytes: &mut Vec<u8>, packet: &Packet, from: [u8; 16], to: [u8; 16], rest: usize) {
    const FRAGMENT: u8 = 44;
    const DESTINATION_OPTIONS: u8 = 60;
    let protocol = packet.five_tuple.protocol.0;
    let is_fragment = packet.fragment != Fragment::Whole;
    // Whole extension headers have multiples of eight bytes, up to 2048.
    let options = if is_fragment { 0 } else { rest.min(2048) / 8 * 8 };
    let next = match (is_fragment, options) {
        (true, _) => FRAGMENT,
        (_, 0) => protocol,
        _ => DESTINATION_OPTIONS,
    };
    let length = u16::try_from(packet.l3_length.saturating_sub(40)).unwrap_or(0);
    bytes.extend([0x60, 0, 0, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend([next, packet.ttl]);
    bytes.extend(from);
    bytes.extend(to);
    if is_fragment {
        let place: u16 = if packet.fragment == Fragment::First { 1 } else { 8 };
        bytes.extend([protocol, 0]);
        bytes.extend(place.to_be_bytes());
        bytes.extend([0; 4]);
    } else if options > 0 {
        bytes.extend([protocol, u8::try_from(options / 8 - 1).unwrap_or(0)]);
        // Padding of one byte each.
        bytes.resize(bytes.len() + options - 2, 0);
    }
}

/// Whether the header that is written is whole.
fn transport_header(bytes: &mut Vec<u8>, packet: &Packet) -> bool {
    if packet.fragment == Fragment::Later {
        return false;
    }
    let tuple = packet.five_tuple;
    let mut ports = tuple.source.port.to_be_bytes().to_vec();
    ports.extend(tuple.destination.port.to_be_bytes());
    match (tuple.protocol, packet.tcp) {
        (Protocol::TCP, Some(tcp)) => {
            bytes.extend(ports);
            tcp_header(bytes, packet, &tcp);
            true
        }
        (Protocol::UDP, _) => {
            bytes.extend(ports);
            let length = packet.payload_length.saturating_add(8);
            bytes.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
            bytes.extend([0, 0]);
            true
        }
        (Protocol::TCP | Protocol::SCTP, _) => {
            bytes.extend(ports);
            false
        }
        _ => false,
    }
}

fn tcp_header(bytes: &mut Vec<u8>, packet: &Packet, tcp: &Tcp) {
    const NO_OPERATION: u8 = 1;
    let mut options = Vec::with_capacity(40);
    if let Some(shift) = tcp.window_scale {
        options.extend([NO_OPERATION, 3, 3, shift]);
    }
    if let Some((value, echo)) = tcp.timestamps {
        options.extend([NO_OPERATION, NO_OPERATION, 8, 10]);
        options.extend(value.to_be_bytes());
        options.extend(echo.to_be_bytes());
    }
    let base = if packet.five_tuple.source.address.is_ipv4() { 40 } else { 60 };
    let room = (packet.header_length() as usize).saturating_sub(base).min(40) / 4 * 4;
    // Every option that is known was in the real header: there is room, unless the lengths are damaged.
    options.resize(room.max(options.len()), NO_OPERATION);
    let words = u16::try_from(5 + options.len() / 4).unwrap_or(5);
    bytes.extend(tcp.sequence.to_be_bytes());
    bytes.extend(tcp.acknowledgement.to_be_bytes());
    bytes.extend((words << 12 | tcp.flags.0 & KNOWN_FLAGS.0).to_be_bytes());
    bytes.extend(tcp.window.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(options);
}

/// The nine bits of the header.
const KNOWN_FLAGS: TcpFlags = TcpFlags(0x1ff);
