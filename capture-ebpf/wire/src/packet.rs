//! What the TC programs say of one packet, and what they count of those they cannot record.

/// Index of the ingress counter.
pub const INGRESS: usize = 0;
/// Index of the egress counter.
pub const EGRESS: usize = 1;
/// Counters of packets seen, one for each direction.
pub const DIRECTIONS: usize = 2;

/// A segment without the window scale option. Shift counts end at 14 (RFC 7323, section 2.3).
pub const NO_WINDOW_SCALE: u8 = u8::MAX;

/// What holds of a packet; one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct PacketMarks(pub u8);

impl PacketMarks {
    pub const EGRESS: Self = Self(1);
    pub const IPV6: Self = Self(1 << 1);
    /// Offset 0 with more fragments to follow.
    pub const FIRST_FRAGMENT: Self = Self(1 << 2);
    /// A fragment without a transport header.
    pub const LATER_FRAGMENT: Self = Self(1 << 3);
    /// A TCP header was there in full, and its length can be.
    pub const TCP: Self = Self(1 << 4);
    /// The TCP timestamps option was there.
    pub const TIMESTAMPS: Self = Self(1 << 5);
    /// Every bit that has a meaning.
    pub const ALL: Self = Self(0x3f);

    pub const fn contains(self, marks: Self) -> bool {
        self.0 & marks.0 == marks.0
    }
}

/// The bytes of an address as on the wire, as two words; an IPv4 address is in the first four bytes, with
/// zeros behind it.
pub type Address = [u64; 2];

/// One packet. Numbers are in the host's byte order. What is not there (ports of ICMP, TCP fields of UDP) is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct PacketRecord {
    /// `bpf_ktime_get_ns`, which is `CLOCK_MONOTONIC`.
    pub time: u64,
    pub source: Address,
    pub destination: Address,
    /// Interface index in the network namespace that the program is attached in.
    pub interface: u32,
    /// Bytes from the IP header on, by the IP header.
    pub l3_length: u32,
    /// Bytes after the transport header, by the IP header.
    pub payload_length: u32,
    pub sequence: u32,
    pub acknowledgement: u32,
    /// TSval.
    pub timestamp: u32,
    /// TSecr.
    pub timestamp_echo: u32,
    /// Identification of the fragmented datagram; 0 where it is whole.
    pub fragment_id: u32,
    pub source_port: u16,
    pub destination_port: u16,
    /// As in the header, not scaled.
    pub window: u16,
    /// FIN lowest, AE (formerly NS) in bit 8.
    pub tcp_flags: u16,
    /// Segments of a super-packet; 0 where the packet is none, or the device did not count them.
    pub gso_segments: u16,
    /// Payload bytes of each segment of a super-packet but the last; 0 where the packet is none.
    pub gso_size: u16,
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Shift count of the window scale option, or [`NO_WINDOW_SCALE`].
    pub window_scale: u8,
    pub marks: PacketMarks,
}

/// Packets of one interface that were seen and have no record, per processor.
/// `seen = records + lost + unreadable + not_ip + not_sampled`, exactly; the last is counted by the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Unrecorded {
    /// The ring buffer had no room.
    pub lost: u64,
    /// The IP header was truncated or contradicts itself.
    pub unreadable: u64,
    /// ARP, LLDP and the like.
    pub not_ip: u64,
}

const _: () = assert!(size_of::<PacketRecord>() == 88);
const _: () = assert!(size_of::<Unrecorded>() == 24);
// The rings are arrays, whose values the kernel aligns to 8 bytes.
const _: () = assert!(align_of::<PacketRecord>() == 8);
