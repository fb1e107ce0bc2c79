//! Tunnels: the IP packet inside an IP packet (IP-in-IP, GRE, MPLS, VXLAN, Geneve).

use event::{Fragment, Protocol};

use crate::ip::Datagram;
use crate::layer::Layer;
use crate::link::{self, ethertype};
use crate::skip::Skip;

/// Which IP packet of a tunnelled one counts. An option of programs, too: what stands here is in their help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Tunnel {
    /// The innermost: the connections that ran through the tunnel, as Wireshark shows them
    #[default]
    Inner,
    /// The outermost: the tunnel itself
    Outer,
}

const IPV4: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;
const MPLS: u8 = 137;

/// The IP packet that `outer` carries; nothing where it is no tunnel, an error where its inside is not
/// readable IP. A fragment is no whole tunnel packet and counts as itself.
#[inline(always)]
pub(crate) fn inside<'a>(outer: &Datagram<'a>) -> Option<Result<Layer<'a>, Skip>> {
    if outer.fragment != Fragment::Whole {
        return None;
    }
    match outer.protocol {
        Protocol::TCP => None,
        Protocol::UDP => udp(outer.payload),
        Protocol(IPV4 | IPV6) => Some(Ok(outer.payload)),
        Protocol(GRE) => Some(gre(outer.payload)),
        Protocol(MPLS) => Some(link::mpls(outer.payload)),
        _ => None,
    }
}

/// VXLAN at its IANA port and at Linux's older default, Geneve at its own, told by their fixed bits.
fn udp(segment: Layer<'_>) -> Option<Result<Layer<'_>, Skip>> {
    const VXLAN: [u16; 2] = [4789, 8472];
    const GENEVE: u16 = 6081;
    const HEADER: usize = 8;
    let port = segment.u16(2)?;
    if VXLAN.contains(&port) {
        // The I flag: a network identifier is present. The lowest byte is reserved.
        let is_vxlan = segment.u8(HEADER)? & 0x08 != 0 && segment.u8(HEADER + 7)? == 0;
        return is_vxlan.then(|| link::ethernet(segment.skip(HEADER + 8).ok_or(Skip::CutInLink)?));
    }
    if port == GENEVE {
        let first = segment.u8(HEADER)?;
        let is_version_0 = first >> 6 == 0;
        let options = 4 * usize::from(first & 0x3f);
        let kind = segment.u16(HEADER + 2)?;
        return is_version_0
            .then(|| link::by_ethertype(kind, segment.skip(HEADER + 8 + options).ok_or(Skip::CutInLink)?));
    }
    None
}

fn gre(packet: Layer<'_>) -> Result<Layer<'_>, Skip> {
    const CHECKSUM: u16 = 0x8000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    /// Of version 1 (PPTP) alone.
    const ACKNOWLEDGEMENT: u16 = 0x0080;
    const PPP: u16 = 0x880b;
    const ERSPAN_1_2: u16 = 0x88be;
    const ERSPAN_3: u16 = 0x22eb;
    /// Aruba's access points tunnel the 802.11 frames of each of their queues under a number of its own.
    const ARUBA: std::ops::RangeInclusive<u16> = 0x8200..=0x8210;

    let flags = packet.u16(0).ok_or(Skip::CutInLink)?;
    let kind = packet.u16(2).ok_or(Skip::CutInLink)?;
    let has = |flag: u16| 4 * usize::from(flags & flag != 0);
    let is_version_1 = flags & 0x7 == 1;
    let size =
        4 + has(CHECKSUM) + has(KEY) + has(SEQUENCE) + if is_version_1 { has(ACKNOWLEDGEMENT) } else { 0 };
    let rest = packet.skip(size).ok_or(Skip::CutInLink)?;
    match kind {
        PPP => link::ppp(rest),
        // Type I has no sequence number and no header of its own, type II has 8 bytes.
        ERSPAN_1_2 if flags & SEQUENCE == 0 => link::ethernet(rest),
        ERSPAN_1_2 => link::ethernet(rest.skip(8).ok_or(Skip::CutInLink)?),
        ERSPAN_3 => {
            // The low bit of the 12-byte header says that 8 bytes specific to the platform follow.
            let extra = 8 * usize::from(rest.u8(11).ok_or(Skip::CutInLink)? & 1);
            link::ethernet(rest.skip(12 + extra).ok_or(Skip::CutInLink)?)
        }
        _ if ARUBA.contains(&kind) => link::wlan(rest),
        ethertype::TRANSPARENT_ETHERNET => link::ethernet(rest),
        0..=0x05ff => Err(Skip::NotIp),
        _ => link::by_ethertype(kind, rest),
    }
}
