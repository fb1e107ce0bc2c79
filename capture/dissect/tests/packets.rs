//! Frames of every kind: built by another implementation (etherparse) or byte by byte, and read back.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod build;

use std::io::Cursor;
use std::net::IpAddr;

use build::{pcap, tcp_frame};
use dissect::{Capture, Dissector, Frame, LinkType, Skip, Tunnel};
use etherparse::{PacketBuilder, SingleVlanHeader, TcpOptionElement};
use event::{Direction, Fragment, Packet, Protocol, Tcp, TcpFlags, Timestamp};
use proptest::prelude::*;

fn frame(link: LinkType, captured: &[u8], length: usize) -> Frame<'_> {
    Frame {
        time: Timestamp::from_secs(1),
        interface: 0,
        link,
        direction: Direction::Unknown,
        captured,
        length,
    }
}

fn dissect_as(tunnel: Tunnel, link: LinkType, bytes: &[u8]) -> Result<Packet, Skip> {
    Dissector::new(tunnel).dissect(&frame(link, bytes, bytes.len())).map(|dissected| dissected.packet)
}

fn dissect(bytes: &[u8]) -> Result<Packet, Skip> {
    dissect_as(Tunnel::Inner, LinkType::ETHERNET, bytes)
}

fn ports(packet: &Packet) -> (u16, u16) {
    (packet.five_tuple.source.port, packet.five_tuple.destination.port)
}

/// The IPv4 packet of [`tcp_frame`]: 40 bytes of headers and 100 of payload.
fn tcp_packet() -> Vec<u8> {
    tcp_frame(40_000, 100)[14..].to_vec()
}

/// An IPv4 header in front of `payload`.
fn ipv4(protocol: u8, place: u16, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let [place, offset] = place.to_be_bytes();
    let first = [0x45, 0, total[0], total[1], 0, 77, place, offset, 9, protocol, 0, 0];
    [first.as_slice(), &[198, 18, 1, 1, 198, 18, 1, 2], payload].concat()
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], next, 5], [1; 16].as_slice(), &[2; 16], payload].concat()
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&[2; 12], kind.to_be_bytes().as_slice(), payload].concat()
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    [[50_000, port, length, 0].map(u16::to_be_bytes).concat(), payload.to_vec()].concat()
}

#[test]
fn every_link_type_leads_to_the_packet() {
    let ip = tcp_packet();
    let tagged = |tags: &[u16]| {
        let tags: Vec<u8> = tags.iter().flat_map(|kind| [kind.to_be_bytes(), [0, 42]].concat()).collect();
        [vec![2; 12], tags, vec![8, 0], ip.clone()].concat()
    };
    let ppp_size = u16::try_from(ip.len() + 2).unwrap().to_be_bytes();
    let pppoe = [&[0x11, 0, 0, 1], ppp_size.as_slice(), &[0, 0x21], &ip].concat();
    let sll = [&[0, 4], [0; 12].as_slice(), &[8, 0], &ip].concat();
    let sll2 = [&[8, 0], [0; 8].as_slice(), &[4], &[0; 9], &ip].concat();
    let cases = [
        (LinkType::ETHERNET, ethernet(0x0800, &ip)),
        (LinkType::ETHERNET, tagged(&[0x8100])),
        (LinkType::ETHERNET, tagged(&[0x88a8, 0x8100])),
        (LinkType::ETHERNET, tagged(&[0x9100, 0x88a8, 0x8100])),
        (LinkType::ETHERNET, ethernet(0x8864, &pppoe)),
        (LinkType::ETHERNET, ethernet(0x8847, &[&[0, 1, 0, 64, 0, 2, 1, 64], ip.as_slice()].concat())),
        (LinkType::ETHERNET, ethernet(148, &[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], ip.as_slice()].concat())),
        (LinkType::RAW, ip.clone()),
        (LinkType::RAW_BSD, ip.clone()),
        (LinkType::RAW_OPENBSD, ip.clone()),
        (LinkType::IPV4, ip.clone()),
        (LinkType::NULL, [&[2, 0, 0, 0], ip.as_slice()].concat()),
        (LinkType::NULL, [&[0, 0, 0, 2], ip.as_slice()].concat()),
        (LinkType::LOOP, [&[0, 0, 0, 2], ip.as_slice()].concat()),
        (LinkType::PPP, [&[0xff, 3, 0, 0x21], ip.as_slice()].concat()),
        (LinkType::PPP, [&[0x21], ip.as_slice()].concat()),
        (LinkType::PPP_HDLC, [&[0xff, 3, 0, 0x21], ip.as_slice()].concat()),
        (LinkType::PPP_ETHER, pppoe),
        (LinkType::LINUX_SLL, sll),
        (LinkType::LINUX_SLL2, sll2),
    ];
    for (link, bytes) in cases {
        let packet =
            dissect_as(Tunnel::Inner, link, &bytes).unwrap_or_else(|skip| panic!("{link:?}: {skip}"));
        assert_eq!(packet.five_tuple.to_string(), "198.18.0.1:40000->198.18.0.2:80:6", "{link:?}");
        assert_eq!((packet.l3_length, packet.payload_length), (140, 100), "{link:?}");
        let is_cooked = [LinkType::LINUX_SLL, LinkType::LINUX_SLL2].contains(&link);
        assert_eq!(packet.direction == Direction::Egress, is_cooked);
    }
    assert_eq!(dissect_as(Tunnel::Inner, LinkType(147), &ip), Err(Skip::LinkType));
    assert_eq!(dissect(&ethernet(0x0806, &[0; 46])), Err(Skip::NotIp));
    assert_eq!(dissect(&ethernet(0x0800, &[0x15; 46])), Err(Skip::MalformedIp));
}

#[test]
fn tunnels_show_the_inner_or_the_outer_packet() {
    let inner = tcp_packet();
    let inner_frame = ethernet(0x0800, &inner);
    let vxlan = [&[8, 0, 0, 0, 0, 0, 1, 0], inner_frame.as_slice()].concat();
    let cases = [
        ("IP in IP", ipv4(4, 0, &inner), 4, (0, 0)),
        ("GRE", ipv4(47, 0, &[&[0, 0, 8, 0], inner.as_slice()].concat()), 47, (0, 0)),
        (
            "GRE, keyed",
            ipv4(47, 0, &[&[0x30, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 2], inner.as_slice()].concat()),
            47,
            (0, 0),
        ),
        (
            "NVGRE",
            ipv4(47, 0, &[&[0x20, 0, 0x65, 0x58, 0, 0, 1, 0], inner_frame.as_slice()].concat()),
            47,
            (0, 0),
        ),
        (
            "ERSPAN",
            ipv4(47, 0, &[&[0x10, 0, 0x88, 0xbe], [0; 12].as_slice(), &inner_frame].concat()),
            47,
            (0, 0),
        ),
        ("MPLS", ipv4(137, 0, &[&[0, 1, 1, 64], inner.as_slice()].concat()), 137, (0, 0)),
        ("VXLAN", ipv4(17, 0, &udp(4789, &vxlan)), 17, (50_000, 4789)),
        ("VXLAN of Linux", ipv4(17, 0, &udp(8472, &vxlan)), 17, (50_000, 8472)),
        (
            "Geneve",
            ipv4(
                17,
                0,
                &udp(6081, &[&[1, 0, 0x65, 0x58, 0, 0, 1, 0, 9, 9, 9, 9], inner_frame.as_slice()].concat()),
            ),
            17,
            (50_000, 6081),
        ),
    ];
    for (name, ip, protocol, outer_ports) in cases {
        // Three bytes of padding: the inner lengths are still the inner header's.
        let bytes = [ip.as_slice(), &[0; 3]].concat();
        let packet = dissect_as(Tunnel::Inner, LinkType::RAW, &bytes).unwrap();
        assert_eq!((ports(&packet), packet.payload_length), ((40_000, 80), 100), "{name}");
        let packet = dissect_as(Tunnel::Outer, LinkType::RAW, &bytes).unwrap();
        let seen = (packet.five_tuple.protocol, ports(&packet), packet.l3_length as usize);
        assert_eq!(seen, (Protocol(protocol), outer_ports, ip.len()), "{name}");
    }
}

#[test]
fn a_tunnel_whose_inside_is_not_ip_counts_as_itself() {
    let arp = ipv4(47, 0, &[&[0, 0, 8, 6], [0; 28].as_slice()].concat());
    let mut dissector = Dissector::new(Tunnel::Inner);
    let packet = dissector.dissect(&frame(LinkType::RAW, &arp, arp.len())).unwrap().packet;
    assert_eq!((packet.five_tuple.protocol, dissector.imperfect().tunnels_unread), (Protocol(47), 1));
}

#[test]
fn nesting_has_a_bound() {
    let deep = (0..40).fold(tcp_packet(), |inner, _| ipv4(4, 0, &inner));
    let packet = dissect_as(Tunnel::Inner, LinkType::RAW, &deep).unwrap();
    assert_eq!(packet.five_tuple.protocol, Protocol(4));
}

#[test]
fn lengths_are_the_ip_headers() {
    let whole = tcp_frame(40_000, 1000);
    // As a snap length of 54 leaves it: the 20 bytes of a TCP header are just there.
    let packet = Dissector::default().dissect(&frame(LinkType::ETHERNET, &whole[..54], whole.len())).unwrap();
    assert_eq!(
        (packet.packet.l3_length, packet.packet.payload_length, packet.payload.len()),
        (1040, 1000, 0)
    );
    assert_eq!(packet.packet.tcp.unwrap().window, 1000);
    // Padded to the 60 bytes of the shortest Ethernet frame.
    let mut short = tcp_frame(40_000, 2);
    short.resize(60, 0xff);
    let packet = Dissector::default().dissect(&frame(LinkType::ETHERNET, &short, 60)).unwrap();
    assert_eq!((packet.packet.l3_length, packet.packet.payload_length), (42, 2));
    assert_eq!(packet.payload, b"xx");
    // A total length of 0: captured before the card cut it into segments.
    let mut offloaded = tcp_frame(40_000, 30_000);
    offloaded[16..18].fill(0);
    assert_eq!(dissect(&offloaded).unwrap().payload_length, 30_000);
}

#[test]
fn cut_headers_keep_what_they_show() {
    let whole = tcp_frame(40_000, 1000);
    let mut dissector = Dissector::default();
    for (captured, expected) in [
        (0, Err(Skip::CutInLink)),
        (13, Err(Skip::CutInLink)),
        (33, Err(Skip::CutInLink)),
        (37, Err(Skip::CutInPorts)),
        (38, Ok((40_000, 80))),
        (53, Ok((40_000, 80))),
    ] {
        let seen = dissector.dissect(&frame(LinkType::ETHERNET, &whole[..captured], whole.len()));
        assert_eq!(seen.map(|seen| ports(&seen.packet)), expected, "{captured}");
        if let Ok(seen) = seen {
            assert_eq!((seen.packet.tcp, seen.packet.payload_length), (None, 1000));
        }
    }
    assert_eq!(dissector.imperfect().transport_cut, 2);
    assert_eq!(dissect(&ethernet(0x0800, &ipv4(6, 0, &[1, 2]))), Err(Skip::ShortTransport));
}

#[test]
fn tcp_options_and_flags() {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([198, 18, 0, 1], [198, 18, 0, 2], 3)
        .tcp(1, 2, u32::MAX, 65_535)
        .syn()
        .ns()
        .ece()
        .options(&[
            TcpOptionElement::MaximumSegmentSize(1460),
            TcpOptionElement::SelectiveAcknowledgementPermitted,
            TcpOptionElement::Timestamp(5, 6),
            TcpOptionElement::Noop,
            TcpOptionElement::WindowScale(200),
        ])
        .unwrap();
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[]).unwrap();
    let tcp = dissect(&bytes).unwrap().tcp.unwrap();
    let expected = Tcp {
        sequence: u32::MAX,
        acknowledgement: 0,
        window: 65_535,
        flags: TcpFlags::SYN | TcpFlags::AE | TcpFlags::ECE,
        window_scale: Some(14),
        timestamps: Some((5, 6)),
    };
    assert_eq!(tcp, expected);
    // An option without a length, and one that runs over the end.
    for options in [[8, 0, 0, 0], [3, 9, 9, 9], [8, 10, 0, 0]] {
        let at = bytes.len() - 20;
        bytes[at..at + 4].copy_from_slice(&options);
        assert!(dissect(&bytes).unwrap().tcp.is_some());
    }
}

#[test]
fn extension_headers_and_authentication_are_stepped_over() {
    let tcp = &tcp_packet()[20..];
    let hop = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let routing = [60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let packet = ipv6(0, &[&hop(43), routing.as_slice(), &hop(6), tcp].concat());
    let seen = dissect(&ethernet(0x86dd, &packet)).unwrap();
    assert_eq!((ports(&seen), seen.payload_length, seen.ttl), ((40_000, 80), 100, 5));
    assert_eq!(seen.five_tuple.source.address, IpAddr::from([1_u8; 16]));
    let authenticated = ipv4(51, 0, &[&[6, 1, 0, 0], [0; 8].as_slice(), tcp].concat());
    assert_eq!(ports(&dissect(&ethernet(0x0800, &authenticated)).unwrap()), (40_000, 80));
    // A jumbogram says its length in an option, here over the 64 KiB that the header's field can say.
    let data = vec![0; 70_000];
    let length = u32::try_from(8 + tcp.len() + data.len()).unwrap().to_be_bytes();
    let option = [[6, 0, 0xc2, 4].as_slice(), &length, tcp, &data].concat();
    let jumbo = [&[0x60, 0, 0, 0, 0, 0, 0, 5], [1; 32].as_slice(), &option].concat();
    assert_eq!(dissect(&ethernet(0x86dd, &jumbo)).unwrap().payload_length, 70_100);
}

#[test]
fn later_fragments_have_the_ports_of_the_first() {
    const MORE: u16 = 0x2000;
    let datagram = udp(53, &[7; 92]);
    let first = ipv4(17, MORE, &datagram[..56]);
    let later = ipv4(17, 7, &datagram[56..]);
    let six = |offset: u16, more: u16, part: &[u8]| {
        let place = (offset << 3 | more).to_be_bytes();
        ipv6(44, &[&[17, 0, place[0], place[1], 0, 0, 0, 9], part].concat())
    };
    for (kind, packets) in [
        (0x0800, [later.clone(), first.clone(), later]),
        (0x86dd, [six(7, 0, &datagram[56..]), six(0, 1, &datagram[..56]), six(7, 0, &datagram[56..])]),
    ] {
        let frames = packets.map(|packet| ethernet(kind, &packet));
        let mut capture =
            Capture::new(Box::new(Cursor::new(pcap(1, &frames))), "fragments", Tunnel::Inner).unwrap();
        let mut seen = Vec::new();
        while let Some(found) = capture.next().unwrap() {
            seen.push((found.packet.fragment, ports(&found.packet), found.packet.payload_length));
        }
        assert_eq!(
            seen,
            [
                (Fragment::Later, (0, 0), 44),
                (Fragment::First, (50_000, 53), 48),
                (Fragment::Later, (50_000, 53), 44)
            ]
        );
        assert_eq!(capture.counts().imperfect.fragments_unmatched, 1);
    }
}

#[test]
fn protocols_without_ports_have_none() {
    for protocol in [1, 2, 47, 50, 58, 89] {
        let packet = dissect(&ethernet(0x0800, &ipv4(protocol, 0, &[8, 0, 1, 2, 3, 4, 5, 6, 7, 8]))).unwrap();
        assert_eq!((packet.five_tuple.protocol, ports(&packet)), (Protocol(protocol), (0, 0)));
    }
    let sctp = dissect(&ethernet(0x0800, &ipv4(132, 0, &udp(38_412, &[0; 20])))).unwrap();
    assert_eq!((ports(&sctp), sctp.payload_length), ((50_000, 38_412), 16));
}

/// A number for each link type that is read, and one that is not.
const LINKS: [u16; 14] = [0, 1, 9, 12, 14, 50, 51, 101, 108, 113, 228, 229, 276, 147];

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        link in prop::sample::select(&LINKS[..]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        more in 0..3000_usize,
        outer in any::<bool>(),
    ) {
        let tunnel = if outer { Tunnel::Outer } else { Tunnel::Inner };
        let mut dissector = Dissector::new(tunnel);
        if let Ok(seen) = dissector.dissect(&frame(LinkType(link), &bytes, bytes.len() + more)) {
            prop_assert!(seen.payload.len() <= seen.packet.payload_length as usize);
            prop_assert!(seen.packet.payload_length <= seen.packet.l3_length);
        }
    }

    #[test]
    fn damaged_tunnels_do_not_make_it_panic(at in 0..150_usize, value in any::<u8>(), cut in 0..200_usize) {
        let inner = ethernet(0x0800, &tcp_packet());
        let vxlan = udp(4789, &[&[8, 0, 0, 0, 0, 0, 1, 0], inner.as_slice()].concat());
        let mut bytes = ipv4(47, 0, &[&[0, 0, 8, 0], ipv4(17, 0, &vxlan).as_slice()].concat());
        bytes[at] = value;
        let captured = &bytes[..cut.min(bytes.len())];
        let _ = Dissector::default().dissect(&frame(LinkType::RAW, captured, bytes.len()));
    }

    #[test]
    fn built_packets_read_back(
        source in any::<[u8; 4]>(), destination in any::<[u8; 16]>(), six in any::<bool>(),
        ports_built in any::<(u16, u16)>(), sequence in any::<u32>(), window in any::<u16>(),
        payload in 0..1400_usize, vlan in any::<bool>(), snap in 0..100_usize, is_tcp in any::<bool>(), ttl in any::<u8>(),
    ) {
        // The tunnel ports would make it look inside.
        prop_assume!(![4789, 8472, 6081].contains(&ports_built.1));
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = |four: [u8; 4], sixteen: [u8; 16]| if six { IpAddr::from(sixteen) } else { IpAddr::from(four) };
        let tag = SingleVlanHeader { vlan_id: 7.try_into().unwrap(), ..SingleVlanHeader::default() };
        let headers: etherparse::IpHeaders = if six {
            let header = etherparse::Ipv6Header { source: [3; 16], destination, hop_limit: ttl, ..Default::default() };
            etherparse::IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
        } else {
            let mut header = etherparse::Ipv4Header::new(0, ttl, etherparse::IpNumber::TCP, source, [9; 4]).unwrap();
            header.options = [1; 8].into();
            etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
        };
        let builder = if vlan { ethernet.vlan(etherparse::VlanHeader::Single(tag)).ip(headers) } else { ethernet.ip(headers) };
        let mut bytes = Vec::new();
        let data = vec![b'd'; payload];
        if is_tcp {
            builder.tcp(ports_built.0, ports_built.1, sequence, window).fin().write(&mut bytes, &data).unwrap();
        } else {
            builder.udp(ports_built.0, ports_built.1).write(&mut bytes, &data).unwrap();
        }
        let headers_size = bytes.len() - payload;
        let captured = &bytes[..bytes.len().min(headers_size + snap)];
        let mut dissector = Dissector::default();
        let seen = dissector.dissect(&frame(LinkType::ETHERNET, captured, bytes.len())).unwrap();
        prop_assert_eq!(seen.payload.len(), payload.min(snap));
        let packet = seen.packet;
        prop_assert_eq!(ports(&packet), ports_built);
        prop_assert_eq!(packet.five_tuple.source.address, ip(source, [3; 16]));
        prop_assert_eq!(packet.five_tuple.destination.address, ip([9; 4], destination));
        prop_assert_eq!(packet.payload_length as usize, payload);
        prop_assert_eq!(packet.l3_length as usize, bytes.len() - if vlan { 18 } else { 14 });
        prop_assert_eq!(packet.ttl, ttl);
        let tcp = Tcp { sequence, window, flags: TcpFlags::FIN, ..Tcp::default() };
        prop_assert_eq!(packet.tcp, is_tcp.then_some(tcp));
    }
}
