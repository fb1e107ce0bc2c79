//! The metadata of one packet, or of one super-packet before segmentation; never its payload.

use std::net::{IpAddr, Ipv4Addr};

use crate::{Endpoint, FiveTuple, Protocol, Timestamp};

/// Which way a packet crossed the interface it was seen on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// A capture file that does not say.
    #[default]
    Unknown,
    Ingress,
    Egress,
}

/// Whether a packet was seen where the packets of its flow, in its direction, are counted. A node sees one packet
/// at every interface that it passes; the primary tap of a flow's direction is the interface, and the way across it,
/// that saw the flow first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tap {
    /// A source with a single observation point, or one that does not say.
    #[default]
    Unknown,
    Primary,
    /// The same packet was or will be seen at the primary tap.
    Secondary,
}

/// Where a packet stands in a fragmented datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fragment {
    #[default]
    Whole,
    /// Offset 0 with more to follow: holds the transport header.
    First,
    /// Has no transport header of its own: its ports are those of the first fragment, or 0 where unseen.
    Later,
}

/// TCP header flags in wire order, FIN lowest; bit 8 is AE (formerly NS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u16);

impl TcpFlags {
    pub const FIN: Self = Self(0x001);
    pub const SYN: Self = Self(0x002);
    pub const RST: Self = Self(0x004);
    pub const PSH: Self = Self(0x008);
    pub const ACK: Self = Self(0x010);
    pub const URG: Self = Self(0x020);
    pub const ECE: Self = Self(0x040);
    pub const CWR: Self = Self(0x080);
    pub const AE: Self = Self(0x100);

    /// Whether every flag of `flags` is set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether any flag of `flags` is set.
    pub const fn intersects(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a TCP header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    pub sequence: u32,
    /// 0 where the ACK flag is not set.
    pub acknowledgement: u32,
    /// As in the header, not scaled.
    pub window: u16,
    pub flags: TcpFlags,
    /// The shift count of the window scale option; only a segment with SYN carries it.
    pub window_scale: Option<u8>,
    /// TSval and TSecr of the timestamps option.
    pub timestamps: Option<(u32, u32)>,
}

/// One packet as it passed an observation point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub time: Timestamp,
    pub arrival: Timestamp,
    /// Index into the interface table of the input it came from.
    pub interface: u32,
    pub direction: Direction,
    pub tap: Tap,
    pub five_tuple: FiveTuple,
    /// Bytes from the IP header on, by the IP header (Ethernet padding does not count). For a super-packet
    /// this is the length of the whole, with one set of headers.
    pub l3_length: u32,
    /// Bytes after the transport header, by the IP header's length and not by the bytes captured.
    pub payload_length: u32,
    /// Time to live, or hop limit.
    pub ttl: u8,
    pub fragment: Fragment,
    /// Wire packets that this packet stands for: 1, or the segments of a GSO or GRO super-packet.
    pub gso_segments: u16,
    /// Payload bytes of each segment but the last; 0 where `gso_segments` is 1.
    pub gso_size: u16,
    pub tcp: Option<Tcp>,
}

impl Default for Packet {
    /// Of which nothing is known, to be filled in.
    fn default() -> Self {
        const NOWHERE: Endpoint = Endpoint::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self {
            time: Timestamp::UNIX_EPOCH,
            arrival: Timestamp::UNIX_EPOCH,
            interface: 0,
            direction: Direction::Unknown,
            tap: Tap::Unknown,
            five_tuple: FiveTuple::new(NOWHERE, NOWHERE, Protocol(0)),
            l3_length: 0,
            payload_length: 0,
            ttl: 0,
            fragment: Fragment::Whole,
            gso_segments: 1,
            gso_size: 0,
            tcp: None,
        }
    }
}

impl Packet {
    /// Bytes of IP and transport headers; what each further segment of a super-packet adds on the wire.
    pub fn header_length(&self) -> u32 {
        self.l3_length.saturating_sub(self.payload_length)
    }

    /// Layer 3 bytes on the wire, the headers of all its segments included.
    pub fn wire_length(&self) -> u64 {
        let extra = u64::from(self.gso_segments.max(1) - 1);
        u64::from(self.l3_length) + extra * u64::from(self.header_length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_packet_counts_the_headers_of_all_its_segments() {
        let end = Endpoint::new("198.18.0.2".parse().unwrap(), 1);
        let packet = Packet {
            time: Timestamp::UNIX_EPOCH,
            arrival: Timestamp::UNIX_EPOCH,
            interface: 0,
            direction: Direction::Egress,
            tap: Tap::Unknown,
            five_tuple: FiveTuple::new(end, end, Protocol::TCP),
            l3_length: 52 + 3000,
            payload_length: 3000,
            ttl: 64,
            fragment: Fragment::Whole,
            gso_segments: 3,
            gso_size: 1448,
            tcp: Some(Tcp::default()),
        };
        assert_eq!(packet.header_length(), 52);
        assert_eq!(packet.wire_length(), 3 * 52 + 3000);
    }
}
