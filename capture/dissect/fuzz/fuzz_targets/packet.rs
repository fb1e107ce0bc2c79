//! Frames of any link type, one after the other through one dissector, cut or not.
#![no_main]

use dissect::{Dissector, Frame, LinkType, Tunnel};
use event::{Direction, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<(u16, u16, Vec<u8>)>)| {
    let (outer, frames) = input;
    let mut dissector = Dissector::new(if outer { Tunnel::Outer } else { Tunnel::Inner });
    for (link, more, captured) in &frames {
        let frame = Frame {
            time: Timestamp::UNIX_EPOCH,
            interface: 0,
            link: LinkType(link % 300),
            direction: Direction::Unknown,
            captured,
            length: captured.len() + usize::from(*more),
        };
        if let Ok(seen) = dissector.dissect(&frame) {
            assert!(seen.payload.len() <= seen.packet.payload_length as usize);
            assert!(seen.packet.payload_length <= seen.packet.l3_length);
            assert!(seen.packet.l3_length as usize <= frame.length);
        }
    }
});
