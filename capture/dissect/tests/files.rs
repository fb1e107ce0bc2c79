//! Files in every form and every kind of damage.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod build;

use build::*;
use dissect::{Capture, DamageKind, OpenError, Skip, Tunnel};
use event::{Direction, Packet, Timestamp};
use proptest::prelude::*;
use std::io::{self, Read, Write};

/// All packets, and the damage in one line where there is some.
fn read(bytes: &[u8]) -> (Vec<Packet>, Option<String>, Capture) {
    let mut capture = open(bytes).unwrap();
    let mut packets = Vec::new();
    loop {
        match capture.next() {
            Ok(Some(seen)) => packets.push(seen.packet),
            Ok(None) => return (packets, None, capture),
            Err(damage) => return (packets, Some(damage.to_string()), capture),
        }
    }
}

fn times(bytes: &[u8]) -> Vec<i64> {
    let (packets, damage, _) = read(bytes);
    assert_eq!(damage, None);
    packets.iter().map(|packet| packet.time.as_nanos()).collect()
}

#[test]
fn pcap_in_both_byte_orders_and_resolutions() {
    for order in [Order::Little, Order::Big] {
        for (magic, nanos) in [(0xa1b2_c3d4, 7_000), (0xa1b2_3c4d, 7)] {
            let mut file = pcap_header(order, magic, (2, 4), 1);
            file.extend(pcap_record(order, 1000, 7, 1500, &tcp_frame(40_000, 3)));
            assert_eq!(times(&file), [1_000_000_000_000 + nanos], "{order:?} {magic:x}");
        }
    }
}

#[test]
fn old_and_modified_pcap() {
    let bytes = tcp_frame(40_000, 3);
    // Lengths stood the other way round before version 2.3, and either way in it.
    for (version, lengths) in
        [((2, 2), [1500, bytes.len()]), ((2, 3), [1500, bytes.len()]), ((2, 3), [bytes.len(), 1500])]
    {
        let mut file = pcap_header(Order::Big, 0xa1b2_c3d4, version, 1);
        file.extend([1, 0, size(lengths[0]), size(lengths[1])].map(u32::to_be_bytes).concat());
        file.extend(&bytes);
        assert_eq!(times(&file), [1_000_000_000], "{version:?}");
    }
    let mut modified = pcap_header(Order::Little, 0xa1b2_cd34, (2, 4), 1);
    for second in [1, 2] {
        modified.extend([second, 0, size(bytes.len()), 1500, 0, 0].map(u32::to_le_bytes).concat());
        modified.extend(&bytes);
    }
    assert_eq!(times(&modified), [1_000_000_000, 2_000_000_000]);
}

#[test]
fn a_link_type_may_carry_the_length_of_a_check_sequence() {
    let mut file = pcap_header(Order::Little, 0xa1b2_c3d4, (2, 4), 0x2400_0001);
    file.extend(pcap_record(Order::Little, 1, 0, 1500, &tcp_frame(1, 1)));
    assert_eq!(times(&file).len(), 1);
}

#[test]
fn compressed_captures_read_as_plain_ones() {
    let plain = pcap(1, &(0..500).map(|port| tcp_frame(port, 100)).collect::<Vec<_>>());
    let (expected, _, _) = read(&plain);
    assert_eq!(expected.len(), 500);
    // Two members, as appending to a compressed log makes them.
    let (first, second) = plain.split_at(plain.len() / 2);
    let gzip = |part: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    let zipped = [gzip(first), gzip(second)].concat();
    let zstd = [zstd::encode_all(first, 3).unwrap(), zstd::encode_all(second, 3).unwrap()].concat();
    for packed in [&zipped, &zstd] {
        let (packets, damage, _) = read(packed);
        assert_eq!((packets == expected, damage), (true, None));
        let (before, damage, _) = read(&packed[..packed.len() - packed.len() / 4]);
        assert!(!before.is_empty() && before.len() < 500 && expected.starts_with(&before));
        assert!(damage.unwrap().contains("of the decompressed data"));
    }
}

#[test]
fn a_cut_anywhere_keeps_what_is_whole_and_names_the_place() {
    let whole = pcap(1, &[tcp_frame(1, 5), tcp_frame(2, 50), tcp_frame(3, 500)]);
    let ng = [
        section(Order::Big),
        interface(Order::Big, 1, 0, &[]),
        enhanced(Order::Big, 0, 5, &tcp_frame(1, 5), &[]),
        enhanced(Order::Big, 0, 6, &tcp_frame(2, 50), &[]),
    ]
    .concat();
    for file in [&whole, &ng] {
        let (all, _, _) = read(file);
        let mut ends = 0;
        for cut in 0..file.len() {
            let mut capture = match open(&file[..cut]) {
                Ok(capture) => capture,
                Err(OpenError::Empty { .. } | OpenError::CutHeader { .. } | OpenError::Unknown { .. }) => {
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let mut count = 0;
            let damage = loop {
                match capture.next() {
                    Ok(Some(seen)) => assert_eq!(seen.packet, all[count]),
                    Ok(None) => break None,
                    Err(damage) => break Some(damage),
                }
                count += 1;
            };
            match damage {
                // Between two records nothing is wrong.
                None => ends += 1,
                Some(damage) => {
                    assert_eq!(damage.packets, u64::try_from(count).unwrap());
                    assert!(damage.offset < u64::try_from(cut).unwrap(), "{damage}");
                    assert!(matches!(damage.kind, DamageKind::Cut { .. }), "{damage}");
                }
            }
            assert!(matches!(capture.next(), Ok(None)), "after damage there is nothing more");
        }
        assert!(ends <= all.len() + 2, "{ends} cuts were taken for ends");
    }
}

#[test]
fn damage_is_named() {
    let cases: [(Vec<u8>, &str); 6] = [
        (
            [pcap(1, &[tcp_frame(1, 5)]), pcap_record(Order::Little, 1, 1, 1, &[0; 300_000])].concat(),
            "a length of 300000 bytes cannot be: at most 262144 are possible (in the record at byte 99, after packet 1);",
        ),
        (
            [section(Order::Little), [1, 0xffff_fff0, 0].map(u32::to_le_bytes).concat()].concat(),
            "a length of 4294967280 bytes cannot be: at most 16777216",
        ),
        (
            [section(Order::Little), [1, 14, 0, 0].map(u32::to_le_bytes).concat()].concat(),
            "length of 14 bytes is too short or no multiple of 4",
        ),
        (
            [section(Order::Little), [7, 16, 0, 20].map(u32::to_le_bytes).concat()].concat(),
            "says 16 bytes at its start and 20 at its end",
        ),
        (
            [
                section(Order::Little),
                interface(Order::Little, 1, 0, &[]),
                section(Order::Big)[..8].to_vec(),
                vec![9; 30],
            ]
            .concat(),
            "without a byte order mark",
        ),
        (
            [section(Order::Little), block(Order::Little, 6, &[0; 8])].concat(),
            "length of 20 bytes is too short",
        ),
    ];
    for (file, expected) in cases {
        let message = read(&file).1.unwrap();
        assert!(message.contains(expected), "{message}");
        assert!(message.starts_with("test input: ") && message.contains("everything before it was used"));
    }
}

#[test]
fn what_is_no_capture_is_refused_with_a_reason() {
    let cases: [(&[u8], &str); 4] = [
        (b"", "test input is empty"),
        (b"timestamp,flow_id\n", "is no pcap or pcapng file: it starts with 74 69 6d 65"),
        (&0xa1b2_c3d4_u32.to_le_bytes(), "ends in its file header, after 4 bytes"),
        (&pcap_header(Order::Little, 0xa1b2_c3d4, (9, 9), 1), "has pcap version 9.9"),
    ];
    for (bytes, expected) in cases {
        let message = open(bytes).err().unwrap().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let missing = Capture::open("/nonexistent/trace.pcap".as_ref(), Tunnel::Inner).err().unwrap();
    assert!(missing.to_string().starts_with("cannot open /nonexistent/trace.pcap: No such file"));
}

/// Fails once its bytes are used up.
struct Broken(io::Cursor<Vec<u8>>);

impl Read for Broken {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.0.read(room)? {
            0 => Err(io::Error::other("the disk is gone")),
            count => Ok(count),
        }
    }
}

#[test]
fn a_read_error_is_no_end_of_file() {
    let file = pcap(1, &[tcp_frame(1, 5), tcp_frame(2, 5)]);
    let mut capture = Capture::new(Box::new(Broken(io::Cursor::new(file))), "disk", Tunnel::Inner).unwrap();
    assert!(capture.next().unwrap().is_some() && capture.next().unwrap().is_some());
    let damage = capture.next().unwrap_err().to_string();
    assert!(damage.starts_with("disk: cannot read: the disk is gone"), "{damage}");
}

#[test]
fn pcapng_sections_have_byte_orders_interfaces_and_clocks_of_their_own() {
    let frame = tcp_frame(1, 5);
    let (little, big) = (Order::Little, Order::Big);
    let resolution = |order: Order, value: u8| option(order, 9, &[value]);
    let file = [
        section(little),
        // Microseconds by default; nanoseconds; 2^-10 s; picoseconds; an offset of one hour.
        interface(little, 1, 0, &option(little, 2, b"eth0")),
        interface(little, 1, 96, &[resolution(little, 9), option(little, 0, &[])].concat()),
        interface(little, 101, 0, &resolution(little, 0x8a)),
        interface(
            little,
            1,
            0,
            &[resolution(little, 12), option(little, 14, &3600_i64.to_le_bytes())].concat(),
        ),
        enhanced(little, 0, 1_500_000, &frame, &[]),
        enhanced(little, 1, 1_500_000_001, &frame, &[]),
        enhanced(little, 2, 1536, &frame[14..], &[]),
        enhanced(little, 3, 1_500_000_002_000, &frame, &[]),
        section(big),
        interface(big, 228, 0, &option(big, 2, b"tun7")),
        block(big, 0x0bad, b"a vendor's own"),
        enhanced(big, 0, 2_000_000, &frame[14..], &option(big, 2, &2_u32.to_be_bytes())),
    ]
    .concat();
    let (packets, damage, capture) = read(&file);
    assert_eq!(damage, None);
    let seen: Vec<_> = packets.iter().map(|packet| (packet.interface, packet.time.as_nanos())).collect();
    assert_eq!(
        seen,
        [
            (0, 1_500_000_000),
            (1, 1_500_000_001),
            (2, 1_500_000_000),
            (3, 3_601_500_000_002),
            (4, 2_000_000_000)
        ]
    );
    assert_eq!(packets[4].direction, Direction::Egress);
    assert_eq!(capture.counts().clock_steps_back, 2);
    let names: Vec<_> = capture.interfaces().iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["eth0", "", "", "", "tun7"]);
}

#[test]
fn packets_without_a_time_stand_at_the_time_before() {
    let frame = tcp_frame(1, 500);
    let order = Order::Little;
    let simple = block(order, 3, &[size(frame.len()).to_le_bytes().to_vec(), frame[..96].to_vec()].concat());
    let file = [
        section(order),
        interface(order, 1, 96, &[]),
        simple.clone(),
        enhanced(order, 0, 5_000_000, &frame, &[]),
        simple,
        // A time in the year 2554 does not fit; nor is there an interface 9.
        enhanced(order, 0, u64::MAX, &frame, &[]),
        enhanced(order, 9, 1, &frame, &[]),
    ]
    .concat();
    let (packets, damage, capture) = read(&file);
    assert_eq!(damage, None);
    let five = Timestamp::from_secs(5);
    let found: Vec<_> = packets.iter().map(|packet| (packet.time, packet.payload_length)).collect();
    assert_eq!(found, [(Timestamp::UNIX_EPOCH, 500), (five, 500), (five, 500), (five, 500)]);
    assert_eq!((capture.counts().untimed, capture.counts().skipped.get(Skip::UnknownInterface)), (4, 1));
}

#[test]
fn obsolete_packet_blocks_and_what_the_capturing_side_lost() {
    let frame = tcp_frame(1, 5);
    let order = Order::Little;
    let packet = [
        order.u16(0),
        order.u16(3),
        [0, 7_000_000, size(frame.len()), size(frame.len())].map(u32::to_le_bytes).concat(),
        frame.clone(),
    ];
    let lost = [option(order, 5, &30_u64.to_le_bytes()), option(order, 7, &4_u64.to_le_bytes())].concat();
    let file = [
        section(order),
        interface(order, 1, 0, &[]),
        block(order, 2, &packet.concat()),
        block(order, 5, &[vec![0; 12], lost].concat()),
    ]
    .concat();
    let (packets, damage, capture) = read(&file);
    assert_eq!((damage, packets[0].time), (None, Timestamp::from_secs(7)));
    assert_eq!(capture.interfaces()[0].lost, 34);
}

/// Reads all there is, by every path that takes bytes from outside.
fn read_all(bytes: &[u8]) {
    let Ok(mut capture) = open(bytes) else { return };
    while let Ok(Some(seen)) = capture.next() {
        assert!(seen.payload.len() <= seen.packet.payload_length as usize);
    }
    let counts = capture.counts();
    assert_eq!(counts.read, counts.used + counts.skipped.total());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0..5_usize) {
        let magics: [&[u8]; 5] = [
            &[],
            &pcap_header(Order::Little, 0xa1b2_c3d4, (2, 4), 1),
            &pcap_header(Order::Big, 0xa1b2_3c4d, (2, 4), 1),
            &section(Order::Little),
            &section(Order::Big),
        ];
        read_all(&[magics[start], &bytes].concat());
    }

    #[test]
    fn no_flipped_byte_makes_it_panic(at in 0..400_usize, value in any::<u8>(), ng in any::<bool>()) {
        let frame = tcp_frame(1, 40);
        let order = Order::Little;
        let mut file = if ng {
            [
                section(order),
                interface(order, 1, 0, &option(order, 9, &[9])),
                enhanced(order, 0, 5, &frame, &option(order, 2, &[1, 0, 0, 0])),
                enhanced(order, 0, 6, &frame, &[]),
            ]
            .concat()
        } else {
            pcap(1, &[frame.clone(), frame])
        };
        let at = at % file.len();
        file[at] = value;
        read_all(&file);
    }
}
