//! Ports for the later fragments of a datagram: only the first carries them.

use std::net::IpAddr;

use event::Protocol;

/// Datagrams whose first fragment is remembered. Fragments of one datagram follow each other closely, so
/// few are open at a time; a flood of first fragments overwrites, and the later ones then count as unmatched.
const SLOTS: usize = 4096;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: Protocol,
    pub identification: u32,
}

impl FragmentKey {
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
pub struct Fragments {
    /// Empty until the first fragment comes: most captures have none.
    slots: Vec<Option<(FragmentKey, (u16, u16))>>,
}

impl Fragments {
    /// Keeps the source and destination port of a first fragment.
    pub fn remember(&mut self, first: FragmentKey, ports: (u16, u16)) {
        self.slots.resize(SLOTS, None);
        self.slots[first.slot()] = Some((first, ports));
    }

    /// The ports of the datagram that a later fragment belongs to, where its first fragment was seen.
    pub fn ports(&self, later: FragmentKey) -> Option<(u16, u16)> {
        let (owner, ports) = (*self.slots.get(later.slot())?)?;
        (owner == later).then_some(ports)
    }
}
