//! A pcap file behind a good magic number in either byte order: records, lengths, packets.
#![no_main]

use std::io::Cursor;

use dissect::{Capture, Tunnel};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [choice, rest @ ..] = bytes else { return };
    let magic = [0xa1b2_c3d4_u32, 0xa1b2_3c4d, 0xa1b2_cd34][usize::from(choice % 3)];
    let magic = if choice & 0x80 == 0 { magic.to_le_bytes() } else { magic.to_be_bytes() };
    let file = [magic.as_slice(), rest].concat();
    let Ok(mut capture) = Capture::new(Box::new(Cursor::new(file)), "fuzz", Tunnel::Inner) else { return };
    while let Ok(Some(seen)) = capture.next() {
        assert!(seen.payload.len() <= seen.packet.payload_length as usize);
        assert!(seen.packet.payload_length <= seen.packet.l3_length);
    }
    let counts = capture.counts();
    assert_eq!(counts.read, counts.used + counts.skipped.total());
});
