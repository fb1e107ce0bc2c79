//! From a link layer's frame to the IP packet in it: Ethernet, cooked captures, loopback, PPP, raw IP;
//! VLAN tags, MPLS labels and PPPoE on the way.

use event::Direction;

use crate::layer::Layer;
use crate::skip::Skip;

/// A link type by the numbers of the tcpdump group's registry, which pcap and pcapng files carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    pub const NULL: Self = Self(0);
    pub const ETHERNET: Self = Self(1);
    pub const PPP: Self = Self(9);
    /// BSD systems wrote their own numbers for raw IP into files.
    pub const RAW_BSD: Self = Self(12);
    pub const RAW_OPENBSD: Self = Self(14);
    pub const PPP_HDLC: Self = Self(50);
    pub const PPP_ETHER: Self = Self(51);
    pub const RAW: Self = Self(101);
    pub const LOOP: Self = Self(108);
    pub const LINUX_SLL: Self = Self(113);
    pub const IPV4: Self = Self(228);
    pub const IPV6: Self = Self(229);
    pub const LINUX_SLL2: Self = Self(276);
}

pub(crate) mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
    pub const TRANSPARENT_ETHERNET: u16 = 0x6558;
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad, and what switches used before it was a standard.
    pub const QINQ: [u16; 3] = [0x88a8, 0x9100, 0x9200];
    pub const PPPOE_SESSION: u16 = 0x8864;
    pub const MPLS: u16 = 0x8847;
    pub const MPLS_MULTICAST: u16 = 0x8848;
}

/// The IP packet of a frame, and the direction where the link layer tells it.
#[inline(always)]
pub(crate) fn network(link: LinkType, frame: Layer<'_>) -> Result<(Layer<'_>, Direction), Skip> {
    let unknown = Direction::Unknown;
    match link {
        LinkType::ETHERNET => Ok((ethernet(frame)?, unknown)),
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD | LinkType::IPV4 | LinkType::IPV6 => {
            Ok((frame, unknown))
        }
        LinkType::LINUX_SLL => {
            let kind = frame.u16(0).ok_or(Skip::CutInLink)?;
            let protocol = frame.u16(14).ok_or(Skip::CutInLink)?;
            Ok((by_ethertype(protocol, frame.skip(16).ok_or(Skip::CutInLink)?)?, cooked_direction(kind)))
        }
        LinkType::LINUX_SLL2 => {
            let protocol = frame.u16(0).ok_or(Skip::CutInLink)?;
            let kind = u16::from(frame.u8(10).ok_or(Skip::CutInLink)?);
            Ok((by_ethertype(protocol, frame.skip(20).ok_or(Skip::CutInLink)?)?, cooked_direction(kind)))
        }
        LinkType::NULL | LinkType::LOOP => Ok((loopback(frame)?, unknown)),
        LinkType::PPP | LinkType::PPP_HDLC => Ok((ppp(frame)?, unknown)),
        LinkType::PPP_ETHER => Ok((pppoe(frame)?, unknown)),
        _ => Err(Skip::LinkType),
    }
}

/// The packet type of Linux cooked captures: 4 was sent by this host, the others came to it.
fn cooked_direction(kind: u16) -> Direction {
    match kind {
        4 => Direction::Egress,
        0..=3 => Direction::Ingress,
        _ => Direction::Unknown,
    }
}

#[inline(always)]
pub(crate) fn ethernet(frame: Layer<'_>) -> Result<Layer<'_>, Skip> {
    let kind = frame.u16(12).ok_or(Skip::CutInLink)?;
    by_ethertype(kind, frame.skip(14).ok_or(Skip::CutInLink)?)
}

/// Follows tags and labels to the IP header. Each step uses up bytes, so their number needs no bound.
#[inline(always)]
pub(crate) fn by_ethertype(mut kind: u16, mut rest: Layer<'_>) -> Result<Layer<'_>, Skip> {
    loop {
        match kind {
            ethertype::IPV4 | ethertype::IPV6 => return Ok(rest),
            ethertype::VLAN => (),
            _ if ethertype::QINQ.contains(&kind) => (),
            ethertype::PPPOE_SESSION => return pppoe(rest),
            ethertype::MPLS | ethertype::MPLS_MULTICAST => return mpls(rest),
            ethertype::TRANSPARENT_ETHERNET => return ethernet(rest),
            // A length, not a type: 802.3 with LLC.
            0..=0x05ff => return llc(rest),
            _ => return Err(Skip::NotIp),
        }
        kind = rest.u16(2).ok_or(Skip::CutInLink)?;
        rest = rest.skip(4).ok_or(Skip::CutInLink)?;
    }
}

/// LLC with a SNAP header (aa aa 03 00 00 00); everything else in LLC is not IP.
pub(crate) fn llc(rest: Layer<'_>) -> Result<Layer<'_>, Skip> {
    const SNAP: [u8; 6] = [0xaa, 0xaa, 0x03, 0, 0, 0];
    if rest.array::<6>(0) != Some(SNAP) {
        return Err(Skip::NotIp);
    }
    match rest.u16(6).ok_or(Skip::CutInLink)? {
        kind @ 0x0600.. => by_ethertype(kind, rest.skip(8).ok_or(Skip::CutInLink)?),
        _ => Err(Skip::NotIp),
    }
}

/// The label stack, then IP by its version digit, or Ethernet behind a control word (whose first digit is 0).
pub(crate) fn mpls(mut rest: Layer<'_>) -> Result<Layer<'_>, Skip> {
    const BOTTOM_OF_STACK: u32 = 0x100;
    loop {
        let label = rest.u32(0).ok_or(Skip::CutInLink)?;
        rest = rest.skip(4).ok_or(Skip::CutInLink)?;
        if label & BOTTOM_OF_STACK != 0 {
            break;
        }
    }
    match rest.u8(0).ok_or(Skip::CutInLink)? >> 4 {
        4 | 6 => Ok(rest),
        0 => ethernet(rest.skip(4).ok_or(Skip::CutInLink)?),
        _ => Err(Skip::NotIp),
    }
}

fn pppoe(rest: Layer<'_>) -> Result<Layer<'_>, Skip> {
    let length = rest.u16(4).ok_or(Skip::CutInLink)?;
    ppp(rest.skip(6).ok_or(Skip::CutInLink)?.limit(length.into()))
}

/// PPP, with or without the address and control bytes (ff 03), the protocol in one byte or two.
pub(crate) fn ppp(rest: Layer<'_>) -> Result<Layer<'_>, Skip> {
    let start = if rest.u16(0) == Some(0xff03) { 2 } else { 0 };
    let first = rest.u8(start).ok_or(Skip::CutInLink)?;
    // A low bit of 1 ends the protocol number.
    let (protocol, size) =
        if first & 1 == 1 { (u16::from(first), 1) } else { (rest.u16(start).ok_or(Skip::CutInLink)?, 2) };
    let rest = rest.skip(start + size).ok_or(Skip::CutInLink)?;
    match protocol {
        0x0021 | 0x0057 => Ok(rest),
        0x0281 => mpls(rest),
        _ => Err(Skip::NotIp),
    }
}

/// BSD loopback: an address family in the byte order of the capturing machine (NULL) or of the network (LOOP).
fn loopback(frame: Layer<'_>) -> Result<Layer<'_>, Skip> {
    let family = frame.u32(0).ok_or(Skip::CutInLink)?;
    let family = if family > 0xffff { family.swap_bytes() } else { family };
    match family {
        // AF_INET; AF_INET6 of Linux, NetBSD, FreeBSD and Darwin. PF values below 0x600, ethertypes above.
        2 | 10 | 24 | 28 | 30 => frame.skip(4).ok_or(Skip::CutInLink),
        kind @ 0x0600..=0xffff =>
        {
            #[expect(clippy::cast_possible_truncation, reason = "the arm bounds it")]
            by_ethertype(kind as u16, frame.skip(4).ok_or(Skip::CutInLink)?)
        }
        _ => Err(Skip::NotIp),
    }
}

/// An 802.11 data frame with LLC inside; a protected one has no readable inside.
pub(crate) fn wlan(frame: Layer<'_>) -> Result<Layer<'_>, Skip> {
    let control = frame.u8(0).ok_or(Skip::CutInLink)?;
    let flags = frame.u8(1).ok_or(Skip::CutInLink)?;
    let (is_data, carries_none, is_qos) = (control & 0x0c == 0x08, control & 0x40 != 0, control & 0x80 != 0);
    let (is_protected, has_fourth_address) = (flags & 0x40 != 0, flags & 0x03 == 0x03);
    if !is_data || carries_none || is_protected {
        return Err(Skip::NotIp);
    }
    let has_ht_control = is_qos && flags & 0x80 != 0;
    let size =
        24 + 6 * usize::from(has_fourth_address) + 2 * usize::from(is_qos) + 4 * usize::from(has_ht_control);
    llc(frame.skip(size).ok_or(Skip::CutInLink)?)
}
