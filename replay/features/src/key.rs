//! Flow keys: the five-tuple packed into five words, the same for both directions.

use std::net::IpAddr;

use event::{Endpoint, FiveTuple, Protocol};
use foldhash::fast::FixedState;
use std::hash::{BuildHasher, Hash, Hasher};

/// A five-tuple with the lower endpoint first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    low: [u64; 2],
    high: [u64; 2],
    /// Ports of low and high, protocol, and whether the addresses are IPv6.
    rest: u64,
}

/// One (address, port, protocol), packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    address: [u64; 2],
    rest: u64,
}

const IS_V6: u64 = 1 << 40;

fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(v4) => [0, v4.to_bits().into()],
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            #[allow(clippy::cast_possible_truncation, reason = "the lower half")]
            [(bits >> 64) as u64, bits as u64]
        }
    }
}

fn address(words: [u64; 2], is_v6: bool) -> IpAddr {
    if is_v6 {
        IpAddr::V6((u128::from(words[0]) << 64 | u128::from(words[1])).into())
    } else {
        #[allow(clippy::cast_possible_truncation, reason = "an IPv4 address is 32 bits of it")]
        IpAddr::V4((words[1] as u32).into())
    }
}

impl Key {
    /// The key, and the side (0 low, 1 high) of the five-tuple's source.
    pub fn new(tuple: &FiveTuple) -> (Self, usize) {
        let (source, destination) = (words(tuple.source.address), words(tuple.destination.address));
        let (sport, dport) = (tuple.source.port, tuple.destination.port);
        let side = usize::from((source, sport) > (destination, dport));
        let (low, high, low_port, high_port) =
            if side == 0 { (source, destination, sport, dport) } else { (destination, source, dport, sport) };
        let family = if tuple.source.address.is_ipv6() { IS_V6 } else { 0 };
        let rest =
            family | u64::from(tuple.protocol.0) << 32 | u64::from(low_port) << 16 | u64::from(high_port);
        (Self { low, high, rest }, side)
    }

    /// The same for every run and machine, so that nothing that depends on it can differ.
    pub fn hash(&self) -> u64 {
        FixedState::with_seed(0x0fa1_711e).hash_one(self)
    }

    pub fn protocol(&self) -> Protocol {
        #[allow(clippy::cast_possible_truncation, reason = "eight bits of it")]
        Protocol((self.rest >> 32) as u8)
    }

    fn port(&self, side: usize) -> u16 {
        #[allow(clippy::cast_possible_truncation, reason = "sixteen bits of it")]
        let port = (self.rest >> (16 * (1 - side))) as u16;
        port
    }

    /// The five-tuple whose source is `side`.
    pub fn five_tuple(&self, side: usize) -> FiveTuple {
        let is_v6 = self.rest & IS_V6 != 0;
        let low = Endpoint::new(address(self.low, is_v6), self.port(0));
        let high = Endpoint::new(address(self.high, is_v6), self.port(1));
        let tuple = FiveTuple::new(low, high, self.protocol());
        if side == 0 { tuple } else { tuple.reversed() }
    }

    /// The endpoint on `side`.
    pub fn endpoint(&self, side: usize) -> EndpointKey {
        let address = if side == 0 { self.low } else { self.high };
        let rest = self.rest & !0xffff_ffff | u64::from(self.port(side));
        EndpointKey { address, rest }
    }

    /// Orders as the five-tuples whose sources are the given sides do.
    pub fn sort_key(&self, side: usize) -> impl Ord + use<> {
        let is_v6 = self.rest & IS_V6 != 0;
        let (source, destination) = if side == 0 { (self.low, self.high) } else { (self.high, self.low) };
        (is_v6, source, self.port(side), destination, self.port(1 - side), self.protocol().0)
    }

    /// The side that opened the flow, judged by ports alone: the one whose peer has the well-known port,
    /// else the lower one; `None` where the ports are equal.
    pub fn initiator_by_port(&self) -> Option<usize> {
        const WELL_KNOWN: u16 = 1024;
        let (low, high) = (self.port(0), self.port(1));
        let known = (low != 0 && low < WELL_KNOWN, high != 0 && high < WELL_KNOWN);
        match known {
            (true, false) => Some(1),
            (false, true) => Some(0),
            _ if low < high => Some(1),
            _ if high < low => Some(0),
            _ => None,
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // An IPv4 address leaves the first word of each pair empty; one word then holds both.
        if self.rest & IS_V6 != 0 {
            state.write_u64(self.low[0]);
            state.write_u64(self.high[0]);
            state.write_u64(self.low[1]);
            state.write_u64(self.high[1]);
        } else {
            state.write_u64(self.low[1] << 32 | self.high[1]);
        }
        state.write_u64(self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        (any::<IpAddr>(), any::<u16>()).prop_map(|(address, port)| Endpoint::new(address, port))
    }

    fn tuple() -> impl Strategy<Value = FiveTuple> {
        (endpoint(), endpoint(), any::<u8>())
            .prop_filter("one family", |(a, b, _)| a.address.is_ipv4() == b.address.is_ipv4())
            .prop_map(|(a, b, protocol)| FiveTuple::new(a, b, Protocol(protocol)))
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(tuple in tuple()) {
            let (key, side) = Key::new(&tuple);
            prop_assert_eq!(key.five_tuple(side), tuple);
            let (back, other) = Key::new(&tuple.reversed());
            prop_assert_eq!(key, back);
            prop_assert_eq!(key.hash(), back.hash());
            if tuple.source != tuple.destination {
                prop_assert_eq!(side, 1 - other);
            }
        }

        #[test]
        fn keys_sort_as_five_tuples(a in tuple(), b in tuple()) {
            let ((ka, sa), (kb, sb)) = (Key::new(&a), Key::new(&b));
            let packed = ka.sort_key(sa).partial_cmp(&kb.sort_key(sb)).unwrap();
            prop_assert_eq!(packed, a.cmp(&b));
        }
    }

    #[test]
    fn the_peer_of_the_well_known_port_is_the_initiator() {
        let make = |sport, dport| {
            let source = Endpoint::new("198.18.0.9".parse().unwrap(), sport);
            let destination = Endpoint::new("198.18.0.1".parse().unwrap(), dport);
            Key::new(&FiveTuple::new(source, destination, Protocol::TCP))
        };
        for (sport, dport, source_opened) in
            [(40000, 80, true), (80, 40000, false), (40000, 8080, true), (123, 53, true), (0, 53, true)]
        {
            let (key, side) = make(sport, dport);
            assert_eq!(key.initiator_by_port() == Some(side), source_opened, "{sport} {dport}");
        }
        assert_eq!(make(123, 123).0.initiator_by_port(), None);
    }
}
