//! What the tracepoint programs copy of the kernel's own records.

/// Which tracepoint a record is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Tracepoint {
    RetransmitSkb,
    SendReset,
    ReceiveReset,
    KfreeSkb,
    SetState,
    MarkVictim,
    Probe,
}

impl Tracepoint {
    /// In the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::RetransmitSkb,
        Self::SendReset,
        Self::ReceiveReset,
        Self::KfreeSkb,
        Self::SetState,
        Self::MarkVictim,
        Self::Probe,
    ];
}

/// Bytes of a tracepoint's record that are copied. The longest fixed part known is 136 bytes (tcp_probe); texts
/// stand behind it.
pub const COPIED: usize = 192;

/// Of them, bytes at the end that a drop has for the start of its packet, from the IP header on. The record itself,
/// of 40 bytes, ends long before.
pub const COPIED_PACKET: usize = 96;

/// One event: the start of the tracepoint's record as the kernel laid it out. Which field stands where is read
/// from the kernel's `format` files by whoever decodes it; what is behind the record's end means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct KernelRecord {
    /// `bpf_ktime_get_ns`, which is `CLOCK_MONOTONIC`.
    pub time: u64,
    /// A [`Tracepoint`].
    pub tracepoint: u32,
    /// Of a drop: bytes of the packet, from its IP header on, that lie in one piece in memory; as many of them as
    /// [`COPIED_PACKET`] are at the end of `bytes`. 0 where there is none.
    pub packet_length: u32,
    pub bytes: [u8; COPIED],
}

/// Events of one tracepoint, per processor. `seen = records + lost + filtered`, exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Traced {
    pub seen: u64,
    /// The ring buffer had no room.
    pub lost: u64,
    /// Left out by rule: drops that belong to a normal close, and round-trip times in quick succession.
    pub filtered: u64,
}

/// A round-trip time, in the place of tcp_probe's own record: what the program that is given the socket itself
/// makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Probed {
    /// Smoothed round-trip time in us.
    pub srtt: u32,
    /// `AF_INET` or `AF_INET6`, of the addresses below.
    pub family: u16,
    /// The socket's own port, and the other's, in the host's byte order.
    pub sport: u16,
    pub dport: u16,
    pub unused: u16,
    pub saddr: [u8; 4],
    pub daddr: [u8; 4],
    pub saddr_v6: [u8; 16],
    pub daddr_v6: [u8; 16],
}

/// Drop reasons whose number is below this can be filtered.
pub const MAX_REASONS: usize = 256;

const _: () = assert!(size_of::<KernelRecord>() == 16 + COPIED);
const _: () = assert!(size_of::<Traced>() == 24);
const _: () = assert!(size_of::<Probed>() == 52 && size_of::<Probed>() <= COPIED);
