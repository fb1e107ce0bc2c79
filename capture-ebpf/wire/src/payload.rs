//! The start of a packet's payload, which user space reads application messages from and then forgets.

use crate::PacketRecord;

/// Bytes of payload at most; a power of two.
pub const MAX_PAYLOAD: usize = 512;

/// Which payload is sent, and of which connections the start; bits.
pub struct PayloadSelect;

impl PayloadSelect {
    /// Of packets from and to port 53.
    pub const DNS: u32 = 1;
    /// Of every other TCP segment: messages that follow each other on a connection start anywhere.
    pub const TCP: u32 = 1 << 1;
    /// Of TCP segments that start with a TLS handshake.
    pub const TLS: u32 = 1 << 2;
}

/// A packet, again, and the start of its payload.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PayloadRecord {
    pub packet: PacketRecord,
    /// How many of the bytes are payload, 0 in a segment with SYN alone; those behind are left from another record.
    pub length: u64,
    pub bytes: [u8; MAX_PAYLOAD],
}

const _: () = assert!(MAX_PAYLOAD.is_power_of_two());
const _: () = assert!(size_of::<PayloadRecord>() == 88 + 8 + MAX_PAYLOAD);
