//! The pcap format: a header of 24 bytes, then records. Both byte orders, micro- and nanoseconds, the
//! modified format of old Linux kernels, and versions 2.0 to 2.4.

use event::{Direction, Timestamp};

use super::buffer::Buffer;
use super::order::ByteOrder;
use super::{DamageKind, Found, Interface, MAX_CAPTURED, OpenError};
use crate::link::LinkType;

const HEADER: usize = 24;
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Kuznetzov's format: 8 more bytes a record (interface index, protocol, packet type).
const MODIFIED: u32 = 0xa1b2_cd34;

pub(super) struct Pcap {
    order: ByteOrder,
    /// Nanoseconds in the unit of the fraction.
    unit: i64,
    record_header: usize,
    lengths: Lengths,
    interface: [Interface; 1],
}

/// The order of a record's two lengths, which changed with version 2.3.
#[derive(Clone, Copy)]
enum Lengths {
    CapturedFirst,
    /// Version 2.3 was written both ways: the captured length is the smaller.
    SmallerIsCaptured,
    OriginalFirst,
}

impl Pcap {
    pub fn open(buffer: &mut Buffer, name: &str) -> Result<Self, OpenError> {
        let name = || name.to_owned();
        let header = buffer.up_to(HEADER).map_err(|source| OpenError::Read { name: name(), source })?;
        let magic = header.first_chunk::<4>().copied().unwrap_or_default();
        let orders =
            [(ByteOrder::Little, u32::from_le_bytes(magic)), (ByteOrder::Big, u32::from_be_bytes(magic))];
        let known = |magic: &u32| [MICROSECONDS, NANOSECONDS, MODIFIED].contains(magic);
        let Some((order, magic)) = orders.into_iter().find(|(_, magic)| known(magic)) else {
            let start = header.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            return Err(OpenError::Unknown { name: name(), start });
        };
        if header.len() < HEADER {
            return Err(OpenError::CutHeader { name: name(), bytes: header.len() });
        }
        let (major, minor) = (order.u16(header, 4), order.u16(header, 6));
        let lengths = match (major, minor) {
            (2, 0..=2) | (543, _) => Lengths::OriginalFirst,
            (2, 3) => Lengths::SmallerIsCaptured,
            (2, _) => Lengths::CapturedFirst,
            _ => return Err(OpenError::Version { name: name(), major, minor }),
        };
        // The upper bits say whether and how long a frame check sequence is: lengths come from the IP header.
        #[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are the link type")]
        let link = LinkType(order.u32(header, 20) as u16);
        let snap_length = order.u32(header, 16);
        buffer.consume(HEADER);
        Ok(Self {
            order,
            unit: if magic == NANOSECONDS { 1 } else { 1000 },
            record_header: if magic == MODIFIED { 24 } else { 16 },
            lengths,
            interface: [Interface { name: String::new(), link, snap_length, lost: 0 }],
        })
    }

    pub fn interfaces(&self) -> &[Interface] {
        &self.interface
    }

    #[inline(always)]
    pub fn next(&mut self, buffer: &mut Buffer) -> Result<Option<Found>, DamageKind> {
        let start = self.record_header;
        let header = buffer.up_to(start)?;
        if header.len() < start {
            let present = header.len();
            return if present == 0 { Ok(None) } else { Err(DamageKind::Cut { needed: start, present }) };
        }
        let (first, second) = (self.order.u32(header, 8), self.order.u32(header, 12));
        let (captured, length) = match self.lengths {
            Lengths::CapturedFirst => (first, second),
            Lengths::SmallerIsCaptured => (first.min(second), first.max(second)),
            Lengths::OriginalFirst => (second, first),
        };
        if captured > MAX_CAPTURED {
            return Err(DamageKind::AbsurdLength { length: captured.into(), limit: MAX_CAPTURED.into() });
        }
        let seconds = i64::from(self.order.u32(header, 0)) * 1_000_000_000;
        let fraction = i64::from(self.order.u32(header, 4)) * self.unit;
        let captured = captured as usize;
        let size = start + captured;
        let present = buffer.up_to(size)?.len();
        if present < size {
            return Err(DamageKind::Cut { needed: size, present });
        }
        Ok(Some(Found {
            interface: 0,
            link: Some(self.interface[0].link),
            time: Some(Timestamp::from_nanos(seconds + fraction)),
            direction: Direction::Unknown,
            length,
            start,
            captured,
            size,
        }))
    }
}
