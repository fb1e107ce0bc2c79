//! Which tap counts for a packet: the first that saw its flow in its direction.

use std::collections::BTreeSet;

use event::{Direction, FiveTuple, Packet, Tap};
use foldhash::fast::RandomState;

type Flows = hashbrown::HashMap<FiveTuple, u32, RandomState>;

/// Flows in each of both generations; about 10 MB where both are full.
const GENERATION: usize = 1 << 16;

/// Remembers the primary tap of each direction of the flows seen last. A flow that was not seen while as many others
/// were is forgotten, and its next packet tells the primary tap anew.
#[derive(Default)]
pub struct Taps {
    /// Every flow of the older generation that is seen moves here.
    young: Flows,
    old: Flows,
    /// Interfaces that are gone: they count for nothing any more.
    gone: BTreeSet<u32>,
}

impl Taps {
    /// Whether the packet was seen at the primary tap of its direction.
    pub fn judge(&mut self, packet: &Packet) -> Tap {
        let tap = packet.interface << 1 | u32::from(packet.direction == Direction::Egress);
        let primary = match self.young.get_mut(&packet.five_tuple) {
            Some(primary) => primary,
            None => {
                let primary = self.old.remove(&packet.five_tuple).unwrap_or(tap);
                if self.young.len() >= GENERATION {
                    self.old = std::mem::take(&mut self.young);
                }
                self.young.entry(packet.five_tuple).or_insert(primary)
            }
        };
        if *primary != tap && self.gone.contains(&(*primary >> 1)) {
            *primary = tap;
        }
        if *primary == tap { Tap::Primary } else { Tap::Secondary }
    }

    /// No packet will come from this interface: where it counted, the next that sees a flow does.
    pub fn forget(&mut self, interface: u32) {
        self.gone.insert(interface);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use event::{Endpoint, Fragment, Protocol, Timestamp};

    fn packet(port: u16, interface: u32, direction: Direction) -> Packet {
        let end = |host: u8, port| Endpoint::new([198, 18, 0, host].into(), port);
        Packet {
            time: Timestamp::UNIX_EPOCH,
            arrival: Timestamp::UNIX_EPOCH,
            interface,
            direction,
            tap: Tap::Unknown,
            five_tuple: FiveTuple::new(end(1, port), end(2, 80), Protocol::TCP),
            l3_length: 40,
            payload_length: 0,
            ttl: 64,
            fragment: Fragment::Whole,
            gso_segments: 1,
            gso_size: 0,
            tcp: None,
        }
    }

    #[test]
    fn the_first_tap_counts_until_it_is_gone() {
        use Direction::{Egress, Ingress};
        let mut taps = Taps::default();
        let mut judge = |interface, direction| taps.judge(&packet(1, interface, direction));
        assert_eq!(judge(3, Ingress), Tap::Primary);
        assert_eq!((judge(0, Egress), judge(3, Ingress)), (Tap::Secondary, Tap::Primary));
        // Loopback shows each packet twice.
        assert_eq!(judge(3, Egress), Tap::Secondary);
        taps.forget(3);
        assert_eq!(taps.judge(&packet(1, 0, Egress)), Tap::Primary);
        assert_eq!(taps.judge(&packet(1, 4, Egress)), Tap::Secondary);
    }

    #[test]
    fn both_directions_have_a_tap_each() {
        let mut taps = Taps::default();
        let there = packet(1, 0, Direction::Ingress);
        let back = Packet { five_tuple: there.five_tuple.reversed(), ..packet(1, 1, Direction::Ingress) };
        assert_eq!((taps.judge(&there), taps.judge(&back)), (Tap::Primary, Tap::Primary));
    }

    #[test]
    fn flows_in_use_outlive_a_flood_and_memory_is_bounded() {
        let mut taps = Taps::default();
        assert_eq!(taps.judge(&packet(7, 0, Direction::Ingress)), Tap::Primary);
        for round in 0..5u32 {
            for port in 0..60_000u16 {
                let mut other = packet(port, 0, Direction::Ingress);
                other.five_tuple.destination.address = round.to_be_bytes().into();
                taps.judge(&other);
                if port % 1000 == 0 {
                    assert_eq!(taps.judge(&packet(7, 1, Direction::Ingress)), Tap::Secondary);
                }
            }
        }
        assert!(taps.young.len() + taps.old.len() <= 2 * GENERATION + 1);
    }
}
