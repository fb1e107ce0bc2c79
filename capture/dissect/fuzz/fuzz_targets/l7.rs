//! Payload in both directions of a connection, cut and out of order, and DNS messages over UDP.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use dissect::L7;
use event::{
    Direction, Endpoint, FiveTuple, Fragment, Packet, Protocol, Tcp, TcpFlags, Timestamp,
};
use libfuzzer_sys::fuzz_target;

const CLIENT: Endpoint = Endpoint::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), 40_000);

fuzz_target!(|input: (u8, Vec<(bool, u16, u8, Vec<u8>)>)| {
    let (choice, pieces) = input;
    let port = [53, 80, 443, 9092, 5000][usize::from(choice % 5)];
    let protocol = if choice & 0x80 == 0 { Protocol::TCP } else { Protocol::UDP };
    let server = Endpoint::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2)), port);
    let there = FiveTuple::new(CLIENT, server, protocol);
    let (mut l7, mut found) = (L7::default(), Vec::new());
    let mut next = [1_u32; 2];
    for (number, (is_client, jump, cut, bytes)) in pieces.iter().enumerate() {
        let length = u32::try_from(bytes.len()).expect("inputs are short") + u32::from(*cut);
        let place = &mut next[usize::from(*is_client)];
        // Mostly the next bytes, sometimes others.
        let sequence = if jump % 8 == 0 { place.wrapping_add(u32::from(*jump)) } else { *place };
        *place = sequence.wrapping_add(length);
        let flags = if number < 2 && choice & 0x40 == 0 { TcpFlags::SYN } else { TcpFlags::ACK };
        let time = Timestamp::from_nanos(i64::try_from(number).unwrap_or_default() * 300_000_000);
        let packet = Packet {
            time,
            arrival: time,
            interface: 0,
            direction: Direction::Unknown,
            tap: event::Tap::Unknown,
            five_tuple: if *is_client { there } else { there.reversed() },
            l3_length: length + 40,
            payload_length: length,
            ttl: 64,
            fragment: Fragment::Whole,
            gso_segments: 1,
            gso_size: 0,
            tcp: Some(Tcp { sequence, flags, acknowledgement: next[usize::from(!*is_client)], ..Tcp::default() }),
        };
        l7.observe(&packet, bytes, &mut found);
    }
    l7.finish(&mut found);
});
