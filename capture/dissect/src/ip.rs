//! IPv4 and IPv6 headers, options and extension headers included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use event::{Fragment, Protocol};

use crate::fragment::FragmentKey;
use crate::layer::Layer;
use crate::skip::Skip;

/// One IP packet: whence, whither, and what it carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'a> {
    pub addresses: Addresses<'a>,
    /// Of the payload: behind IPv6 extension headers and AH.
    pub protocol: Protocol,
    pub ttl: u8,
    /// Whole packet by the IP header, in bytes.
    pub length: usize,
    pub fragment: Fragment,
    /// Tells the fragments of one datagram from those of others.
    pub identification: u32,
    pub payload: Layer<'a>,
}

/// Source and destination, as they stand in the header one after the other. They become [`IpAddr`]s once, in the place
/// where they stay: to copy those is what a packet's dissection would spend most of its time on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses<'a>(&'a [u8]);

impl Addresses<'_> {
    #[inline(always)]
    pub fn read(self, source: &mut IpAddr, destination: &mut IpAddr) {
        if let Some([a, b, c, d, e, f, g, h]) = self.0.first_chunk::<8>()
            && self.0.len() == 8
        {
            *source = IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d));
            *destination = IpAddr::V4(Ipv4Addr::new(*e, *f, *g, *h));
        } else if let (Some(first), Some(last)) = (self.0.first_chunk::<16>(), self.0.last_chunk::<16>()) {
            *source = IpAddr::V6(Ipv6Addr::from(*first));
            *destination = IpAddr::V6(Ipv6Addr::from(*last));
        }
    }
}

impl Datagram<'_> {
    fn carries(&self, protocol: u8) -> bool {
        self.protocol.0 == protocol && self.fragment != Fragment::Later
    }

    pub fn fragment_key(&self) -> FragmentKey {
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let (mut source, mut destination) = (unknown, unknown);
        self.addresses.read(&mut source, &mut destination);
        FragmentKey { source, destination, protocol: self.protocol, identification: self.identification }
    }
}

const AUTHENTICATION: u8 = 51;

#[inline(always)]
pub(crate) fn read(packet: Layer<'_>) -> Result<Datagram<'_>, Skip> {
    let mut datagram = match packet.u8(0).ok_or(Skip::CutInLink)? >> 4 {
        4 => v4(packet)?,
        6 => v6(packet)?,
        _ => return Err(Skip::MalformedIp),
    };
    // IPv6 has followed it with its other extension headers.
    if datagram.carries(AUTHENTICATION) {
        follow_extensions(&mut datagram)?;
    }
    Ok(datagram)
}

#[inline(always)]
fn v4(packet: Layer<'_>) -> Result<Datagram<'_>, Skip> {
    const MORE_FRAGMENTS: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;
    let header: [u8; 20] = packet.array(0).ok_or(Skip::CutInLink)?;
    let header_length = 4 * usize::from(header[0] & 0x0f);
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // Captured before the card cut the super-packet into segments (TSO): the wire's length is all there is.
    let total = if total == 0 { packet.length } else { total };
    if header_length < 20 || total < header_length {
        return Err(Skip::MalformedIp);
    }
    let place = u16::from_be_bytes([header[6], header[7]]);
    let fragment = match (place & OFFSET, place & MORE_FRAGMENTS != 0) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    let packet = packet.limit(total);
    Ok(Datagram {
        addresses: Addresses(&packet.captured[12..20]),
        protocol: Protocol(header[9]),
        ttl: header[8],
        length: packet.length,
        fragment,
        identification: u32::from(u16::from_be_bytes([header[4], header[5]])),
        payload: packet.skip_on_wire(header_length),
    })
}

fn v6(packet: Layer<'_>) -> Result<Datagram<'_>, Skip> {
    const HEADER: usize = 40;
    let header: [u8; HEADER] = packet.array(0).ok_or(Skip::CutInLink)?;
    let next = Protocol(header[6]);
    let payload_length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let total = match payload_length {
        // A jumbogram, or a super-packet over 64 KiB (BIG TCP), or one captured before segmentation.
        0 => jumbo_length(next, packet).map_or(packet.length, |length| HEADER.saturating_add(length)),
        length => HEADER + length,
    };
    let packet = packet.limit(total);
    let mut datagram = Datagram {
        addresses: Addresses(&packet.captured[8..HEADER]),
        protocol: next,
        ttl: header[7],
        length: packet.length,
        fragment: Fragment::Whole,
        identification: 0,
        payload: packet.skip_on_wire(HEADER),
    };
    follow_extensions(&mut datagram)?;
    Ok(datagram)
}

/// The length in the jumbo payload option, which stands first in the hop-by-hop header.
fn jumbo_length(next: Protocol, packet: Layer<'_>) -> Option<usize> {
    const JUMBO: u16 = 0xc204;
    if next.0 != 0 || packet.u16(42)? != JUMBO {
        return None;
    }
    usize::try_from(packet.u32(44)?).ok()
}

/// Steps over the extension headers up to the transport header, or into a later fragment's payload.
fn follow_extensions(datagram: &mut Datagram<'_>) -> Result<(), Skip> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    const MOBILITY: u8 = 135;
    const HIP: u8 = 139;
    const SHIM6: u8 = 140;
    while datagram.fragment != Fragment::Later {
        let rest = datagram.payload;
        let size = match datagram.protocol.0 {
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | HIP | SHIM6 => {
                8 * (usize::from(rest.u8(1).ok_or(Skip::CutInPorts)?) + 1)
            }
            // In units of 4 bytes, less 2.
            AUTHENTICATION => 4 * (usize::from(rest.u8(1).ok_or(Skip::CutInPorts)?) + 2),
            FRAGMENT => {
                let place = rest.u16(2).ok_or(Skip::CutInPorts)?;
                datagram.identification = rest.u32(4).ok_or(Skip::CutInPorts)?;
                datagram.fragment = match (place >> 3, place & 1) {
                    // RFC 6946: an atomic fragment is whole.
                    (0, 0) => Fragment::Whole,
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
                8
            }
            _ => return Ok(()),
        };
        datagram.protocol = Protocol(rest.u8(0).ok_or(Skip::CutInPorts)?);
        datagram.payload = rest.skip_on_wire(size);
    }
    Ok(())
}
