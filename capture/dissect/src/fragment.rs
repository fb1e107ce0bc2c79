//! Ports for the later fragments of a datagram: only the first carries them.

use std::net::IpAddr;

use event::Protocol;

use crate::ip::Datagram;

/// Datagrams whose first fragment is remembered. Fragments of one datagram follow each other closely, so
/// few are open at a time; a flood of first fragments overwrites, and the later ones then count as unmatched.
const SLOTS: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    identification: u32,
}

impl Key {
    fn of(datagram: &Datagram<'_>) -> Self {
        Self {
            source: datagram.source,
            destination: datagram.destination,
            protocol: datagram.protocol,
            identification: datagram.identification,
        }
    }

    /// The same on every machine and in every run, so that which datagram overwrites which is too.
    fn slot(&self) -> usize {
        let fold = |address: &IpAddr| match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let both = fold(&self.source).rotate_left(64) ^ fold(&self.destination);
        let both = (both ^ (both >> 64)) & u128::from(u64::MAX);
        let mixed = u64::try_from(both).unwrap_or_default()
            ^ (u64::from(self.identification) << 8)
            ^ u64::from(self.protocol.0);
        let hash = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        usize::try_from(hash).unwrap_or_default() % SLOTS
    }
}

/// The ports of recent first fragments, in bounded memory.
#[derive(Default)]
pub(crate) struct Fragments {
    /// Empty until the first fragment comes: most captures have none.
    slots: Vec<Option<(Key, (u16, u16))>>,
}

impl Fragments {
    pub fn remember(&mut self, first: &Datagram<'_>, ports: (u16, u16)) {
        self.slots.resize(SLOTS, None);
        let key = Key::of(first);
        self.slots[key.slot()] = Some((key, ports));
    }

    /// The ports of the datagram that `later` belongs to, where its first fragment was seen.
    pub fn ports(&self, later: &Datagram<'_>) -> Option<(u16, u16)> {
        let key = Key::of(later);
        let (owner, ports) = (*self.slots.get(key.slot())?)?;
        (owner == key).then_some(ports)
    }
}
