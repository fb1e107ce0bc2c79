//! Packets and rows for tests, made by hand.

#![allow(dead_code, reason = "each test file uses a part of it")]

use event::{Direction, Duration, Endpoint, FiveTuple, Fragment, Packet, Protocol, Tcp, TcpFlags, Timestamp};
use features::{Config, Engine, Feature, Row, Value};

pub const FIN: u16 = TcpFlags::FIN.0;
pub const SYN: u16 = TcpFlags::SYN.0;
pub const RST: u16 = TcpFlags::RST.0;
pub const PSH: u16 = TcpFlags::PSH.0;
pub const ACK: u16 = TcpFlags::ACK.0;

/// A client and a server of the benchmark net.
pub fn tuple(client: u32, port: u16, protocol: Protocol) -> FiveTuple {
    let client = std::net::Ipv4Addr::from_bits(0xc612_0000 + client);
    let server = std::net::Ipv4Addr::new(198, 19, 0, 1);
    FiveTuple::new(Endpoint::new(client.into(), port), Endpoint::new(server.into(), 80), protocol)
}

pub fn tcp_tuple() -> FiveTuple {
    tuple(1, 40_000, Protocol::TCP)
}

/// A packet of `milliseconds` after the epoch.
pub fn packet(milliseconds: i64, five_tuple: FiveTuple, payload: u32) -> Packet {
    let time = Timestamp::UNIX_EPOCH + Duration::from_millis(milliseconds);
    Packet {
        time,
        arrival: time,
        interface: 0,
        direction: Direction::Unknown,
        tap: event::Tap::Unknown,
        five_tuple,
        l3_length: 28 + payload,
        payload_length: payload,
        ttl: 64,
        fragment: Fragment::Whole,
        gso_segments: 1,
        gso_size: 0,
        tcp: None,
    }
}

/// A segment from the client, or from the server where `back`.
pub fn segment(
    milliseconds: i64,
    tuple: FiveTuple,
    back: bool,
    flags: u16,
    sequence: u32,
    acknowledgement: u32,
    payload: u32,
) -> Packet {
    let five_tuple = if back { tuple.reversed() } else { tuple };
    let tcp = Tcp { sequence, acknowledgement, window: 1000, flags: TcpFlags(flags), ..Tcp::default() };
    Packet { l3_length: 40 + payload, tcp: Some(tcp), ..packet(milliseconds, five_tuple, payload) }
}

/// The same with another window.
pub fn with_window(mut packet: Packet, window: u16) -> Packet {
    if let Some(tcp) = &mut packet.tcp {
        tcp.window = window;
    }
    packet
}

pub fn config(seconds: i64) -> Config {
    Config { window: Duration::from_secs(seconds), ..Config::default() }
}

/// All rows of an engine that gets no more events.
pub fn finish(mut engine: Engine) -> Vec<Row> {
    engine.finish();
    let mut rows = Vec::new();
    while let Some(window) = engine.next_closed() {
        rows.extend(window.rows());
    }
    rows
}

pub fn rows(config: Config, packets: &[Packet]) -> Vec<Row> {
    let mut engine = Engine::new(config);
    engine.push_packets(packets);
    finish(engine)
}

/// A cell as text, as it stands in a CSV file.
pub fn cell(row: &Row, feature: Feature) -> String {
    row[feature].to_string()
}

/// A cell as a number.
pub fn number(row: &Row, feature: Feature) -> f64 {
    match &row[feature] {
        Value::Unsigned(number) => *number as f64,
        Value::Float(number) => *number,
        other => panic!("{} is {other:?}", feature.name()),
    }
}
