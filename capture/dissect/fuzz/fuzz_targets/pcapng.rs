//! A pcapng file behind a good section header: blocks, options, interfaces, packets.
#![no_main]

use std::io::Cursor;

use dissect::{Capture, Tunnel};
use libfuzzer_sys::fuzz_target;

const LITTLE: [u8; 28] = [
    0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255,
    255, 28, 0, 0, 0,
];
const BIG: [u8; 28] = [
    0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 28, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255,
    255, 0, 0, 0, 28,
];

fuzz_target!(|bytes: &[u8]| {
    let [choice, rest @ ..] = bytes else { return };
    let section = if choice & 1 == 0 { LITTLE } else { BIG };
    let file = [section.as_slice(), rest].concat();
    let Ok(mut capture) = Capture::new(Box::new(Cursor::new(file)), "fuzz", Tunnel::Inner) else { return };
    while let Ok(Some(seen)) = capture.next() {
        assert!(seen.payload.len() <= seen.packet.payload_length as usize);
    }
    let counts = capture.counts();
    assert_eq!(counts.read, counts.used + counts.skipped.total());
});
