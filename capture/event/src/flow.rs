//! Who talks to whom: endpoints, protocols and five-tuples.

use std::fmt;
use std::net::IpAddr;

/// An IANA protocol number, as in the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    pub const ICMP: Self = Self(1);
    pub const TCP: Self = Self(6);
    pub const UDP: Self = Self(17);
    pub const ICMPV6: Self = Self(58);
    pub const SCTP: Self = Self(132);
}

/// An address and a port; the port is 0 for protocols without ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: u16,
}

impl Endpoint {
    pub const fn new(address: IpAddr, port: u16) -> Self {
        Self { address, port }
    }
}

impl fmt::Display for Endpoint {
    /// `192.0.2.1:443` or `[2001:db8::1]:443`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// The five-tuple of one packet or flow, from source to destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    pub source: Endpoint,
    pub destination: Endpoint,
    pub protocol: Protocol,
}

impl FiveTuple {
    pub const fn new(source: Endpoint, destination: Endpoint, protocol: Protocol) -> Self {
        Self { source, destination, protocol }
    }

    /// The same conversation seen from the other side.
    pub const fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, protocol: self.protocol }
    }

    /// One value for both directions: the lower endpoint first.
    pub fn canonical(self) -> Self {
        if self.source <= self.destination { self } else { self.reversed() }
    }
}

impl fmt::Display for FiveTuple {
    /// `src:sport->dst:dport:proto`, the text whose MD5 names a flow; IPv6 addresses stand without brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, d) = (&self.source, &self.destination);
        write!(f, "{}:{}->{}:{}:{}", s.address, s.port, d.address, d.port, self.protocol.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_have_one_canonical_form() {
        let a = Endpoint::new("198.18.0.2".parse().unwrap(), 40000);
        let b = Endpoint::new("198.18.1.2".parse().unwrap(), 80);
        let there = FiveTuple::new(a, b, Protocol::TCP);
        assert_eq!(there.canonical(), there.reversed().canonical());
        assert_eq!(there.to_string(), "198.18.0.2:40000->198.18.1.2:80:6");
    }
}
