//! A sample of the flows, as the kernel programs choose it, for events that other sources tell of the same flows.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;

use event::{Event, FiveTuple};

/// One flow in so many: all packets of both its directions, and everything else that is told of it, or nothing. The
/// choice is a hash of both ends and the protocol, the same at every node and at every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample(NonZeroU32);

impl Sample {
    pub const ALL: Self = Self(NonZeroU32::MIN);

    /// N of 1/N.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    pub fn keeps(self, five_tuple: FiveTuple) -> bool {
        let FiveTuple { source, destination, protocol } = five_tuple;
        let (from, to) = (words(source.address), words(destination.address));
        let hash = wire::flow_hash(from, source.port, to, destination.port, protocol.0);
        wire::sample_keeps(self.get(), hash)
    }

    /// Whether an event is of a flow that is kept, or of none.
    pub fn keeps_event(self, event: &Event) -> bool {
        let five_tuple = match event {
            Event::Packet(packet) => Some(packet.five_tuple),
            Event::Kernel(event) => event.five_tuple,
            Event::L7(flow) => Some(flow.five_tuple),
            Event::System(_) | Event::Mark(_) | Event::Loss(_) | Event::Naming(_) => None,
        };
        self == Self::ALL || five_tuple.is_none_or(|five_tuple| self.keeps(five_tuple))
    }
}

/// As the kernel programs read them.
fn words(address: IpAddr) -> wire::Address {
    match address {
        IpAddr::V4(address) => [u64::from(u32::from_ne_bytes(address.octets())), 0],
        IpAddr::V6(address) => {
            let octets = address.octets();
            let halves = octets.as_chunks::<8>().0;
            [halves[0], halves[1]].map(u64::from_ne_bytes)
        }
    }
}

/// Text that is no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a share of the flows such as 1/10")]
pub struct ParseSampleError;

impl FromStr for Sample {
    type Err = ParseSampleError;

    fn from_str(text: &str) -> Result<Self, ParseSampleError> {
        let number = text.strip_prefix("1/").ok_or(ParseSampleError)?;
        number.parse().map(Self).map_err(|_| ParseSampleError)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1/{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use event::{Endpoint, Protocol};
    use proptest::prelude::*;

    #[test]
    fn shares_are_read() {
        assert_eq!("1/10".parse::<Sample>().map(Sample::get), Ok(10));
        for text in ["10", "1/0", "1/", "2/3", "1/x", "0.1"] {
            assert_eq!(text.parse::<Sample>(), Err(ParseSampleError), "{text}");
        }
    }

    fn flow(number: u32) -> FiveTuple {
        let [a, b, c, d] = number.to_be_bytes();
        let from = Endpoint::new([198, 18, a, b].into(), u16::from_be_bytes([c, d]));
        FiveTuple::new(from, Endpoint::new([198, 19, 0, 1].into(), 80), Protocol::TCP)
    }

    #[test]
    fn as_many_flows_are_kept_as_the_share_says() {
        for share in [2, 10, 64] {
            let sample: Sample = format!("1/{share}").parse().unwrap();
            let kept = (0..100_000).filter(|number| sample.keeps(flow(*number))).count();
            let expected = 100_000 / share;
            // Five standard deviations of as many independent choices, rounded up.
            let most = (f64::from(expected)).sqrt() * 5.0;
            assert!((kept as f64 - f64::from(expected)).abs() < most, "{kept} of {expected}");
        }
    }

    proptest! {
        #[test]
        fn both_directions_are_kept_or_left_out(
            source in any::<(IpAddr, u16)>(), destination in any::<(IpAddr, u16)>(), protocol: u8, share in 1..50_u32,
        ) {
            let end = |(address, port)| Endpoint::new(address, port);
            let flow = FiveTuple::new(end(source), end(destination), Protocol(protocol));
            let sample: Sample = format!("1/{share}").parse().unwrap();
            prop_assert_eq!(sample.keeps(flow), sample.keeps(flow.reversed()));
            prop_assert!(Sample::ALL.keeps(flow));
        }
    }
}
