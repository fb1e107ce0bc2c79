//! Capture files for the tests, byte by byte, in every form.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Cursor;

use dissect::{Capture, OpenError, Tunnel};
use etherparse::PacketBuilder;

/// The byte order of the machine that "wrote" a file.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    Little,
    Big,
}

impl Order {
    pub fn u16(self, value: u16) -> Vec<u8> {
        match self {
            Self::Little => value.to_le_bytes().to_vec(),
            Self::Big => value.to_be_bytes().to_vec(),
        }
    }

    pub fn u32(self, value: u32) -> Vec<u8> {
        match self {
            Self::Little => value.to_le_bytes().to_vec(),
            Self::Big => value.to_be_bytes().to_vec(),
        }
    }

    fn words<const N: usize>(self, values: [u32; N]) -> Vec<u8> {
        values.into_iter().flat_map(|value| self.u32(value)).collect()
    }
}

pub fn pcap_header(order: Order, magic: u32, version: (u16, u16), link: u32) -> Vec<u8> {
    [order.u32(magic), order.u16(version.0), order.u16(version.1), order.words([0, 0, 65_535, link])].concat()
}

/// A record whose packet has the given length on the wire.
pub fn pcap_record(order: Order, seconds: u32, fraction: u32, length: usize, bytes: &[u8]) -> Vec<u8> {
    let header = order.words([seconds, fraction, size(bytes.len()), size(length)]);
    [header, bytes.to_vec()].concat()
}

/// A little-endian microsecond file of one packet a millisecond.
pub fn pcap(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = pcap_header(Order::Little, 0xa1b2_c3d4, (2, 4), link);
    for (number, bytes) in packets.iter().enumerate() {
        file.extend(pcap_record(Order::Little, 1000, size(number) * 1000, bytes.len(), bytes));
    }
    file
}

pub fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = size(body.len() + 12);
    [order.u32(kind), order.u32(length), body, order.u32(length)].concat()
}

pub fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let mut padded = value.to_vec();
    padded.resize(value.len().next_multiple_of(4), 0);
    [order.u16(code), order.u16(u16::try_from(value.len()).unwrap()), padded].concat()
}

pub fn section(order: Order) -> Vec<u8> {
    let version = [order.u16(1), order.u16(0)].concat();
    block(order, 0x0a0d_0d0a, &[order.u32(0x1a2b_3c4d), version, vec![0xff; 8]].concat())
}

pub fn interface(order: Order, link: u16, snap_length: u32, options: &[u8]) -> Vec<u8> {
    let fixed = [order.u16(link), order.u16(0), order.u32(snap_length)].concat();
    block(order, 1, &[fixed, options.to_vec()].concat())
}

pub fn enhanced(order: Order, interface: u32, units: u64, bytes: &[u8], options: &[u8]) -> Vec<u8> {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of one number")]
    let halves = [(units >> 32) as u32, units as u32];
    let fixed = order.words([interface, halves[0], halves[1], size(bytes.len()), size(bytes.len())]);
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    block(order, 6, &[fixed, padded, options.to_vec()].concat())
}

pub fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap()
}

/// Ethernet, IPv4, TCP with `payload` bytes of data.
pub fn tcp_frame(port: u16, payload: usize) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([198, 18, 0, 1], [198, 18, 0, 2], 64)
        .tcp(port, 80, 7, 1000)
        .ack(9);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vec![b'x'; payload]).unwrap();
    bytes
}

pub fn open(bytes: &[u8]) -> Result<Capture, OpenError> {
    Capture::new(Box::new(Cursor::new(bytes.to_vec())), "test input", Tunnel::Inner)
}
