//! The kernel programs and the dissector of captures read the same bytes: they must say the same of them.

use std::path::{Path, PathBuf};

use aya::programs::{TestRun as _, TestRunOptions};
use dissect::{Dissector, Frame, LinkType, Reader, Tunnel};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder, TcpOptionElement};
use event::{Direction, Packet, Timestamp};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// The programs, loaded and attached to nothing.
struct Programs(Tc);

/// Most bytes that the kernel takes for a test run, headroom and tailroom aside, on every version.
const MAX_FRAME: usize = 3000;

impl Programs {
    /// `None` where rights or kernel do not suffice, which is said.
    fn load(test: &str) -> Option<Self> {
        let selection = Selection::parse(&["lo"]).unwrap();
        match Tc::without_interfaces(&selection, Clock::start().unwrap(), Options::default()) {
            Ok(source) => Some(Self(source)),
            Err(error) => {
                eprintln!("skipped: {test}: {error}");
                None
            }
        }
    }

    /// What the program says of the bytes; `None` within where it made no record, and without where the kernel
    /// refuses the frame, as it does with IP headers that are cut.
    fn read(&mut self, name: &'static str, bytes: &[u8]) -> Option<Option<Packet>> {
        let options = TestRunOptions { data_in: Some(bytes), ..TestRunOptions::default() };
        let result = program(&mut self.0.ebpf, name).unwrap().test_run(options).ok()?;
        assert_eq!(result.return_value.cast_signed(), -1, "TC_ACT_UNSPEC");
        let mut packets = Vec::new();
        let mut take = |event| match event {
            Event::Packet(packet) => packets.push(packet),
            other => panic!("{other:?}"),
        };
        self.0.records.hand_over(&mut take).unwrap();
        assert!(packets.len() <= 1);
        Some(packets.pop())
    }
}

/// Ethernet and up to three VLAN tags before the IP version that they announce: what the programs read.
fn is_ip(frame: &[u8]) -> bool {
    let ethertype = |at: usize| frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let mut at = 12;
    for _ in 0..3 {
        match ethertype(at) {
            Some(0x8100 | 0x88a8 | 0x9100) => at += 4,
            _ => break,
        }
    }
    let version = frame.get(at + 2).map(|byte| byte >> 4);
    matches!((ethertype(at), version), (Some(0x0800), Some(4)) | (Some(0x86dd), Some(6)))
}

/// What the dissector says of the bytes, as far as a kernel record tells it.
fn dissect(dissector: &mut Dissector, link: LinkType, bytes: &[u8]) -> Option<Packet> {
    let frame = Frame {
        time: Timestamp::UNIX_EPOCH,
        interface: u32::MAX,
        link,
        direction: Direction::Ingress,
        captured: bytes,
        length: bytes.len(),
    };
    let readable = link == LinkType::RAW || is_ip(bytes);
    readable.then(|| dissector.dissect(&frame).ok().map(|dissected| dissected.packet)).flatten()
}

/// Takes out what one of both cannot know.
fn comparable(packet: Option<Packet>) -> Option<Packet> {
    packet.map(|packet| Packet { time: Timestamp::UNIX_EPOCH, arrival: Timestamp::UNIX_EPOCH, ..packet })
}

/// An extension header that says it is longer than the packet: unreadable to the programs, the last thing in the
/// packet to the dissector.
fn runs_over(got: Option<Packet>, expected: Option<Packet>) -> bool {
    let is_empty = |packet: Packet| packet.payload_length == 0 && packet.five_tuple.source.port == 0;
    got.is_none() && expected.is_some_and(is_empty)
}

fn captures() -> Option<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "pcap" || end == "pcapng"))
        .collect();
    files.sort();
    Some(files)
}

/// Ethernet frames of a capture that are captured in full, at most so many.
fn frames(path: &Path, most: usize) -> Vec<Vec<u8>> {
    let Ok(mut reader) = Reader::open(path) else { return Vec::new() };
    let mut frames = Vec::new();
    while let Ok(Some(record)) = reader.advance() {
        let captured = reader.captured();
        let is_whole = record.link == Some(LinkType::ETHERNET) && captured.len() == record.length;
        if is_whole && (14..=MAX_FRAME).contains(&record.length) {
            frames.push(captured.to_vec());
        }
        if frames.len() == most {
            break;
        }
    }
    frames
}

#[test]
fn the_programs_agree_with_the_dissector_on_real_captures() {
    const TEST: &str = "the_programs_agree_with_the_dissector_on_real_captures";
    let Some(files) = captures() else {
        return eprintln!("skipped: {TEST}: no ../shared/pcaps beside the repository");
    };
    let Some(mut programs) = Programs::load(TEST) else { return };
    let mut compared = 0;
    for file in files {
        let mut dissector = Dissector::new(Tunnel::Outer);
        for (number, bytes) in frames(&file, 3000).iter().enumerate() {
            let expected = dissect(&mut dissector, LinkType::ETHERNET, bytes);
            let got = programs.read("tc_ingress", bytes).unwrap();
            assert_eq!(
                comparable(got),
                comparable(expected),
                "frame {number} of {}: {bytes:02x?}",
                file.display()
            );
            compared += 1;
        }
    }
    assert!(compared > 1000, "{compared}");
    let counters = programs.0.counters().unwrap();
    assert_eq!(counters.seen, counters.packets + counters.unreadable + counters.not_ip);
    assert_eq!((counters.seen, counters.lost), (compared, 0));
}

/// One well-formed frame of each kind that there is code for.
fn seeds() -> Vec<Vec<u8>> {
    const MSS: TcpOptionElement = TcpOptionElement::MaximumSegmentSize(1460);
    const NOP: TcpOptionElement = TcpOptionElement::Noop;
    const SCALE: TcpOptionElement = TcpOptionElement::WindowScale(6);
    const SELECTIVE: TcpOptionElement = TcpOptionElement::SelectiveAcknowledgementPermitted;
    const TIMESTAMPS: TcpOptionElement = TcpOptionElement::Timestamp(0x2122_2324, 0x2526_2728);
    let ethernet = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let (v4, v6) = ([[198, 18, 0, 1], [198, 18, 0, 2]], [[0x20; 16], [0x21; 16]]);
    let built = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        bytes
    };
    let data = [NOP, NOP, TcpOptionElement::Timestamp(0x1112_1314, 0x1516_1718)];
    let linux = vec![MSS, SELECTIVE, TIMESTAMPS, NOP, SCALE];
    let macos = vec![MSS, NOP, SCALE, NOP, NOP, TIMESTAMPS, SELECTIVE];
    let windows = vec![MSS, NOP, SCALE, NOP, NOP, SELECTIVE];
    let freebsd = vec![MSS, NOP, SCALE, SELECTIVE, TIMESTAMPS];
    let nobody = vec![TIMESTAMPS, SCALE, MSS];
    let gap =
        [NOP, NOP, TIMESTAMPS, NOP, NOP, TcpOptionElement::SelectiveAcknowledgement((3000, 4448), [None; 3])];
    let fragment = |offset: u16, more: bool| {
        let mut header = Ipv4Header::new(1480, 64, IpNumber::UDP, v4[0], v4[1]).unwrap();
        header.identification = 0x4711;
        header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        header.more_fragments = more;
        header.dont_fragment = false;
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        header.write(&mut bytes).unwrap();
        bytes.extend([0x1b, 0x58, 0x1b, 0x59, 0x0b, 0xb8, 0, 0]);
        bytes.resize(14 + 20 + 1480, 0x55);
        bytes
    };
    let extended = |chain: &[u8]| {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0];
        bytes.push(u8::try_from(chain.len() - 1 + 12).unwrap());
        bytes.extend([chain[0], 64]);
        bytes.extend([v6[0], v6[1]].concat());
        bytes.extend(&chain[1..]);
        bytes.extend([0x1b, 0x58, 0x1b, 0x59, 0, 12, 0, 0, 1, 2, 3, 4]);
        bytes
    };
    let handshakes = [linux, macos, windows, freebsd, nobody].into_iter().map(|options| {
        built(&|to| {
            let step = ethernet().ipv6(v6[0], v6[1], 60).tcp(1000, 80, 7, 64_240).syn();
            step.options(&options).unwrap().write(to, &[]).unwrap();
        })
    });
    let others = vec![
        built(&|to| {
            let step = ethernet().ipv6(v6[0], v6[1], 60).tcp(1000, 80, 8, 512).ack(9).psh();
            step.options(&data).unwrap().write(to, b"GET / HTTP/1.1").unwrap();
        }),
        built(&|to| {
            let step = ethernet().ipv4(v4[0], v4[1], 64).tcp(1000, 80, 8, 512).ack(9);
            step.options(&gap).unwrap().write(to, &[]).unwrap();
        }),
        built(&|to| {
            let step = ethernet().double_vlan(
                etherparse::VlanId::try_new(100).unwrap(),
                etherparse::VlanId::try_new(200).unwrap(),
            );
            step.ipv4(v4[0], v4[1], 64).udp(53, 53_000).write(to, &[1; 40]).unwrap();
        }),
        built(&|to| {
            ethernet().ipv4(v4[0], v4[1], 64).icmpv4_echo_request(1, 2).write(to, &[3; 20]).unwrap();
        }),
        fragment(0, true),
        fragment(185, false),
        // Hop-by-hop, destination options, routing; then UDP.
        extended(&[0, 60, 0, 1, 4, 0, 0, 0, 0, 43, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0]),
        // A first, a later and an atomic fragment.
        extended(&[44, 17, 0, 0, 1, 1, 2, 3, 4]),
        extended(&[44, 17, 0, 0, 8, 1, 2, 3, 4]),
        extended(&[44, 17, 0, 0, 0, 1, 2, 3, 4]),
        // Authentication header of 24 bytes.
        extended(&[51, 17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]),
    ];
    others.into_iter().chain(handshakes).collect()
}

#[test]
fn the_programs_agree_with_the_dissector_on_damaged_headers() {
    const TEST: &str = "the_programs_agree_with_the_dissector_on_damaged_headers";
    let Some(programs) = Programs::load(TEST) else { return };
    let programs = std::cell::RefCell::new(programs);
    let seeds = seeds();
    let damage = (
        proptest::sample::select(seeds),
        // Headers are where a change counts.
        proptest::collection::vec((0..80_usize, any::<u8>()), 0..4),
        proptest::option::of(any::<Index>()),
    );
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&damage, |(mut bytes, changes, cut)| {
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()).max(15));
            }
            let mut programs = programs.borrow_mut();
            // Each sees its own packets alone, so that no fragment is matched with one of another case.
            programs.0.records.decoder = Decoder::new(programs.0.clock);
            let expected = dissect(&mut Dissector::new(Tunnel::Outer), LinkType::ETHERNET, &bytes);
            let got = programs.read("tc_egress", &bytes);
            let expected = expected.map(|packet| Packet { direction: Direction::Egress, ..packet });
            if let Some(got) = got.filter(|got| !runs_over(*got, expected)) {
                prop_assert_eq!(comparable(got), comparable(expected), "{:02x?}", bytes);
            }
            // The same without its link layer.
            let ip = bytes.get(14..).unwrap_or_default();
            if ip.len() >= 20 && bytes[12..14] != [0x81, 0] {
                let expected = dissect(&mut Dissector::new(Tunnel::Outer), LinkType::RAW, ip);
                let got = programs.read("tc_ingress_ip", ip);
                if let Some(got) = got.filter(|got| !runs_over(*got, expected)) {
                    prop_assert_eq!(comparable(got), comparable(expected), "{:02x?}", ip);
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_sample_of_everything_leaves_no_code_behind() {
    const TEST: &str = "a_sample_of_everything_leaves_no_code_behind";
    let selection = Selection::parse(&["lo"]).unwrap();
    // Bytes of instructions that the verifier left, and what a packet costs, by the share.
    let load = |sample| {
        let options = Options { sample, ..Options::default() };
        let mut source = Tc::without_interfaces(&selection, Clock::start().unwrap(), options)?;
        let size =
            program(&mut source.ebpf, "tc_ingress")?.info().ok().and_then(|info| info.size_translated());
        Ok::<_, Error>((size, source.cost()))
    };
    // As good as every flow is left out.
    match (load(1), load(u32::MAX)) {
        (Ok((Some(all), all_cost)), Ok((Some(some), some_cost))) => {
            eprintln!(
                "{all} bytes, {all_cost:?} a packet; with a sample {some} bytes, {some_cost:?} for one left out"
            );
            assert!(all + 500 < some, "{all} bytes, {some} with a sample");
        }
        (Ok(_), Ok(_)) => eprintln!("skipped: {TEST}: the kernel does not tell the size of programs"),
        (Err(error), _) | (_, Err(error)) => eprintln!("skipped: {TEST}: {error}"),
    }
}
