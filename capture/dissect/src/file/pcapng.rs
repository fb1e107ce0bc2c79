//! The pcapng format: sections of blocks, each section with a byte order and interfaces of its own.

use event::{Direction, Timestamp};

use super::buffer::Buffer;
use super::order::ByteOrder;
use super::{DamageKind, Found, Interface, MAX_CAPTURED};
use crate::link::LinkType;

pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// A block's size at most, as Wireshark has it: more is a damaged length.
const MAX_BLOCK: u32 = 16 * 1024 * 1024;
/// Interfaces of all sections together: a file of nothing else must not fill the memory.
const MAX_INTERFACES: usize = 65_536;
/// Type and length before a block's body.
const PREFIX: usize = 8;
/// The length again behind it.
const SUFFIX: usize = 4;

mod block_type {
    pub const SECTION: u32 = 0x0a0d_0d0a;
    pub const INTERFACE: u32 = 1;
    pub const OBSOLETE_PACKET: u32 = 2;
    pub const SIMPLE_PACKET: u32 = 3;
    pub const STATISTICS: u32 = 5;
    pub const PACKET: u32 = 6;
}

#[derive(Default)]
pub(super) struct Pcapng {
    order: ByteOrder,
    /// Of all sections; a section's own start at `section_start`.
    interfaces: Vec<Interface>,
    clocks: Vec<Clock>,
    section_start: usize,
}

/// How an interface's timestamps become nanoseconds.
#[derive(Clone, Copy)]
struct Clock {
    resolution: Resolution,
    /// Seconds to add.
    offset: i64,
}

#[derive(Clone, Copy)]
enum Resolution {
    /// Nanoseconds in a unit.
    Nanos(u64),
    /// Units in a second.
    PerSecond(u128),
}

impl Resolution {
    /// if_tsresol: a negative power of 10, or of 2 where the top bit is set.
    fn new(value: u8) -> Self {
        match (value & 0x80 != 0, u32::from(value & 0x7f)) {
            (false, power @ 0..=9) => Self::Nanos(10_u64.pow(9 - power)),
            (false, power) => Self::PerSecond(10_u128.saturating_pow(power)),
            (true, power) => Self::PerSecond(1 << power),
        }
    }
}

impl Clock {
    /// Nothing where the time does not fit 64 bits of nanoseconds.
    #[inline]
    fn time(self, units: u64) -> Option<Timestamp> {
        let nanos = match self.resolution {
            Resolution::Nanos(unit) => i64::try_from(units.checked_mul(unit)?).ok()?,
            Resolution::PerSecond(rate) => nanos_at(units, rate)?,
        };
        Some(Timestamp::from_nanos(nanos.checked_add(self.offset.checked_mul(1_000_000_000)?)?))
    }
}

fn nanos_at(units: u64, rate: u128) -> Option<i64> {
    let units = u128::from(units);
    let seconds = i64::try_from(units / rate).ok()?;
    // The rate may be so high that the product does not fit; then the low bits are below a nanosecond.
    let fraction = match (units % rate).checked_mul(1_000_000_000) {
        Some(product) => product / rate,
        None => units % rate / (rate / 1_000_000_000),
    };
    seconds.checked_mul(1_000_000_000)?.checked_add(i64::try_from(fraction).ok()?)
}

impl Pcapng {
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The next packet; the blocks before it that describe interfaces and sections take effect.
    pub fn next(&mut self, buffer: &mut Buffer) -> Result<Option<Found>, DamageKind> {
        loop {
            let Some((kind, size)) = self.block(buffer)? else { return Ok(None) };
            let block = &buffer.ready()[..size];
            let body = &block[PREFIX..size - SUFFIX];
            let found = match kind {
                block_type::PACKET => Some(self.packet(body)?),
                block_type::SIMPLE_PACKET => Some(self.simple_packet(body)?),
                block_type::OBSOLETE_PACKET => Some(self.obsolete_packet(body)?),
                block_type::SECTION => {
                    self.section(body)?;
                    None
                }
                block_type::INTERFACE => {
                    self.interface(body)?;
                    None
                }
                block_type::STATISTICS => {
                    self.statistics(body);
                    None
                }
                // Names, secrets, a vendor's own: none of them is a packet.
                _ => None,
            };
            match found {
                Some(found) => return Ok(Some(Found { size, ..found })),
                None => buffer.consume(size),
            }
        }
    }

    /// Type and size of the block at the read position, all of which is then ready.
    #[inline]
    fn block(&mut self, buffer: &mut Buffer) -> Result<Option<(u32, usize)>, DamageKind> {
        const SHORTEST: usize = PREFIX + SUFFIX;
        let start = buffer.up_to(SHORTEST)?;
        if start.is_empty() {
            return Ok(None);
        }
        if start.len() < SHORTEST {
            return Err(DamageKind::Cut { needed: SHORTEST, present: start.len() });
        }
        if start.starts_with(&MAGIC) {
            self.order = byte_order(&start[8..]).ok_or(DamageKind::ByteOrder)?;
        }
        let (kind, length) = (self.order.u32(start, 0), self.order.u32(start, 4));
        if length > MAX_BLOCK {
            return Err(DamageKind::AbsurdLength { length: length.into(), limit: MAX_BLOCK.into() });
        }
        let size = length as usize;
        if size < SHORTEST || !size.is_multiple_of(4) {
            return Err(DamageKind::BlockLength { length });
        }
        let block = buffer.up_to(size)?;
        if block.len() < size {
            return Err(DamageKind::Cut { needed: size, present: block.len() });
        }
        let last = self.order.u32(block, size - SUFFIX);
        if last != length {
            return Err(DamageKind::BlockLengths { first: length, last });
        }
        Ok(Some((kind, size)))
    }

    fn section(&mut self, body: &[u8]) -> Result<(), DamageKind> {
        need(body, 16)?;
        let major = self.order.u16(body, 4);
        if major != 1 {
            return Err(DamageKind::SectionVersion(major));
        }
        self.section_start = self.interfaces.len();
        Ok(())
    }

    fn interface(&mut self, body: &[u8]) -> Result<(), DamageKind> {
        const NAME: u16 = 2;
        const RESOLUTION: u16 = 9;
        const OFFSET: u16 = 14;
        need(body, 8)?;
        if self.interfaces.len() == MAX_INTERFACES {
            return Err(DamageKind::TooManyInterfaces { limit: MAX_INTERFACES });
        }
        let mut clock = Clock { resolution: Resolution::new(6), offset: 0 };
        let mut name = String::new();
        for (code, value) in self.options(&body[8..]) {
            match (code, value) {
                (NAME, text) => name = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned(),
                (RESOLUTION, [resolution, ..]) => clock.resolution = Resolution::new(*resolution),
                (OFFSET, [_, _, _, _, _, _, _, _, ..]) => {
                    clock.offset = self.order.u64(value, 0).cast_signed()
                }
                _ => {}
            }
        }
        let (link, snap_length) = (LinkType(self.order.u16(body, 0)), self.order.u32(body, 4));
        self.interfaces.push(Interface { name, link, snap_length, lost: 0 });
        self.clocks.push(clock);
        Ok(())
    }

    /// Enhanced packet block.
    #[inline]
    fn packet(&self, body: &[u8]) -> Result<Found, DamageKind> {
        const FLAGS: u16 = 2;
        need(body, 20)?;
        let interface = self.order.u32(body, 0) as usize;
        self.timed(body, 20, interface, FLAGS)
    }

    /// The block that enhanced packets replaced: a shorter interface number, drops beside it.
    fn obsolete_packet(&self, body: &[u8]) -> Result<Found, DamageKind> {
        const FLAGS: u16 = 2;
        need(body, 20)?;
        let interface = usize::from(self.order.u16(body, 0));
        self.timed(body, 20, interface, FLAGS)
    }

    #[inline]
    fn timed(&self, body: &[u8], start: usize, interface: usize, flags: u16) -> Result<Found, DamageKind> {
        let word = |at| self.order.u32(body, at);
        let units = u64::from(word(4)) << 32 | u64::from(word(8));
        let (captured, length) = (word(12), word(16));
        let index = self.section_start + interface;
        let described = self.interfaces.get(index);
        let captured = captured_within(captured, body.len() - start)?;
        let options = body.get(start + captured.next_multiple_of(4)..).unwrap_or_default();
        Ok(Found {
            interface: u32::try_from(index).unwrap_or(u32::MAX),
            link: described.map(|interface| interface.link),
            time: self.clocks.get(index).and_then(|clock| clock.time(units)),
            direction: self.direction(options, flags),
            length,
            start: PREFIX + start,
            captured,
            size: 0,
        })
    }

    /// A packet of the section's first interface, without a time.
    fn simple_packet(&self, body: &[u8]) -> Result<Found, DamageKind> {
        const START: usize = 4;
        need(body, START)?;
        let length = self.order.u32(body, 0);
        let described = self.interfaces.get(self.section_start);
        let snap_length = described.map_or(0, |interface| interface.snap_length);
        let captured = if snap_length == 0 { length } else { length.min(snap_length) };
        Ok(Found {
            interface: u32::try_from(self.section_start).unwrap_or(u32::MAX),
            link: described.map(|interface| interface.link),
            time: None,
            direction: Direction::Unknown,
            length,
            start: PREFIX + START,
            captured: captured_within(captured, body.len() - START)?,
            size: 0,
        })
    }

    /// Interface statistics: what the capturing side lost.
    fn statistics(&mut self, body: &[u8]) {
        const DROPPED_BY_INTERFACE: u16 = 5;
        const DROPPED_BY_SYSTEM: u16 = 7;
        if body.len() < 12 {
            return;
        }
        let index = self.section_start + self.order.u32(body, 0) as usize;
        let lost = self
            .options(&body[12..])
            .filter(|(code, value)| {
                [DROPPED_BY_INTERFACE, DROPPED_BY_SYSTEM].contains(code) && value.len() == 8
            })
            .map(|(_, value)| self.order.u64(value, 0))
            .fold(0, u64::saturating_add);
        // Counted since the capture began: the last statistics of an interface tell all.
        if let Some(interface) = self.interfaces.get_mut(index) {
            interface.lost = lost;
        }
    }

    #[inline]
    fn direction(&self, options: &[u8], flags: u16) -> Direction {
        let value = self.options(options).find(|(code, value)| *code == flags && value.len() == 4);
        match value.map(|(_, value)| self.order.u32(value, 0) & 3) {
            Some(1) => Direction::Ingress,
            Some(2) => Direction::Egress,
            _ => Direction::Unknown,
        }
    }

    /// Code and value of each option, up to the end or the first that does not fit.
    #[inline]
    fn options<'a>(&self, mut rest: &'a [u8]) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        const END: u16 = 0;
        let order = self.order;
        std::iter::from_fn(move || {
            let header = rest.get(..4)?;
            let (code, size) = (order.u16(header, 0), usize::from(order.u16(header, 2)));
            if code == END {
                return None;
            }
            let value = rest.get(4..4 + size)?;
            rest = rest.get(4 + size.next_multiple_of(4)..).unwrap_or_default();
            Some((code, value))
        })
    }
}

fn byte_order(mark: &[u8]) -> Option<ByteOrder> {
    match mark.first_chunk()? {
        [0x4d, 0x3c, 0x2b, 0x1a] => Some(ByteOrder::Little),
        [0x1a, 0x2b, 0x3c, 0x4d] => Some(ByteOrder::Big),
        _ => None,
    }
}

/// A body that ends before its fixed fields is a damaged length.
#[inline]
fn need(body: &[u8], bytes: usize) -> Result<(), DamageKind> {
    let length = u32::try_from(body.len() + PREFIX + SUFFIX).unwrap_or(u32::MAX);
    if body.len() < bytes { Err(DamageKind::BlockLength { length }) } else { Ok(()) }
}

/// The captured length, which must fit the block.
#[inline]
fn captured_within(captured: u32, room: usize) -> Result<usize, DamageKind> {
    let limit = room.min(MAX_CAPTURED as usize);
    if captured as usize > limit {
        return Err(DamageKind::AbsurdLength { length: captured.into(), limit: limit as u64 });
    }
    Ok(captured as usize)
}
