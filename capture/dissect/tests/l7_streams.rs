//! Conversations cut into segments in every way: the messages must come out the same.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use dissect::{L7, L7Options};
use event::{
    Direction, Duration, Endpoint, FiveTuple, Fragment, HttpMessage, L7Flow, L7Message, L7Type, Packet,
    Protocol, Tcp, TcpFlags, Timestamp,
};
use proptest::prelude::*;

const CLIENT: Endpoint = Endpoint::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1)), 40_000);
const SERVER: Endpoint = Endpoint::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 2)), 8000);

/// A segment from one side: relative sequence number and bytes.
#[derive(Clone, Debug)]
struct Segment {
    is_client: bool,
    sequence: u32,
    flags: TcpFlags,
    bytes: Vec<u8>,
}

fn packet(segment: &Segment, time: i64) -> Packet {
    let there = FiveTuple::new(CLIENT, SERVER, Protocol::TCP);
    let length = u32::try_from(segment.bytes.len()).unwrap();
    Packet {
        time: Timestamp::from_nanos(time),
        arrival: Timestamp::from_nanos(time),
        interface: 0,
        direction: Direction::Unknown,
        tap: event::Tap::Unknown,
        five_tuple: if segment.is_client { there } else { there.reversed() },
        l3_length: 40 + length,
        payload_length: length,
        ttl: 64,
        fragment: Fragment::Whole,
        gso_segments: 1,
        gso_size: 0,
        tcp: Some(Tcp { sequence: segment.sequence, flags: segment.flags, ..Tcp::default() }),
    }
}

/// Near the end of the sequence space, so that it wraps.
const START: u32 = u32::MAX - 100;

fn syn(is_client: bool) -> Segment {
    let flags = if is_client { TcpFlags::SYN } else { TcpFlags::SYN | TcpFlags::ACK };
    Segment { is_client, sequence: START, flags, bytes: Vec::new() }
}

fn segments(is_client: bool, stream: &[u8], sizes: &[usize]) -> Vec<Segment> {
    let (mut at, mut sizes) = (0, sizes.iter().cycle());
    let mut cut = Vec::new();
    while at < stream.len() {
        let size = (*sizes.next().unwrap()).min(stream.len() - at);
        let sequence = START.wrapping_add(1).wrapping_add(u32::try_from(at).unwrap());
        let bytes = stream[at..at + size].to_vec();
        cut.push(Segment { is_client, sequence, flags: TcpFlags::ACK, bytes });
        at += size;
    }
    cut
}

/// Runs segments through; only the first `snap` bytes of each were captured.
fn run(options: L7Options, segments: &[Segment], snap: usize) -> (Vec<L7Flow>, dissect::L7Counts) {
    let (mut l7, mut found) = (L7::new(options), Vec::new());
    for (number, segment) in segments.iter().enumerate() {
        let payload = &segment.bytes[..segment.bytes.len().min(snap)];
        l7.observe(&packet(segment, i64::try_from(number).unwrap()), payload, &mut found);
    }
    l7.finish(&mut found);
    (found, l7.counts())
}

fn http(flow: &L7Flow) -> &HttpMessage {
    match &flow.message {
        L7Message::Http(http) => http,
        other => panic!("{other:?}"),
    }
}

const REQUESTS: &str = "GET /a?token=secret HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hidden\r\n\r\n\
    HEAD /b HTTP/1.1\r\nHost: x\r\n\r\n\
    POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\nGET /not/a/request HTTP/1.1\r\n\r\n\
    PUT /d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHTTP/\r\n0\r\n\r\n\
    DELETE /e HTTP/1.1\r\nHost: x\r\n\r\n";
const RESPONSES: &str = "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\nHTTP/1.1 500 NOT\r\n\
    HTTP/1.1 404 Not Found\r\nContent-Length: 9000\r\n\r\n\
    HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n\
    HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nX: y\r\n\r\n\
    HTTP/1.1 204 No Content\r\n\r\n";

fn shown(found: &[L7Flow]) -> (Vec<String>, Vec<String>) {
    let of = |kind: L7Type| {
        let flows = found.iter().filter(move |flow| flow.kind == kind);
        flows.map(|flow| {
            let http = http(flow);
            format!("{} {} {:?}", http.method, http.path, http.status)
        })
    };
    (of(L7Type::Request).collect(), of(L7Type::Response).collect())
}

fn expected() -> (Vec<String>, Vec<String>) {
    let calls = [("GET /a", 200), ("HEAD /b", 404), ("POST /c", 201), ("PUT /d", 503), ("DELETE /e", 204)];
    let requests = calls.map(|(call, _)| format!("{call} None")).to_vec();
    let responses = calls.map(|(call, status)| format!("{call} Some({status})")).to_vec();
    (requests, responses)
}

proptest! {
    #[test]
    fn segmentation_reordering_and_repeats_change_nothing(
        sizes in prop::collection::vec(1..80_usize, 1..12),
        swaps in prop::collection::vec((0..200_usize, 1..6_usize), 0..30),
        repeats in prop::collection::vec(0..200_usize, 0..10),
    ) {
        let mut client = segments(true, REQUESTS.as_bytes(), &sizes);
        let mut server = segments(false, RESPONSES.as_bytes(), &sizes);
        for side in [&mut client, &mut server] {
            for (at, distance) in &swaps {
                let (at, length) = (at % side.len(), side.len());
                side.swap(at, (at + distance).min(length - 1));
            }
            for at in &repeats {
                let at = at % side.len();
                side.insert((at + 3).min(side.len()), side[at].clone());
            }
        }
        let all = [vec![syn(true), syn(false), syn(true)], client, server].concat();
        let (found, counts) = run(L7Options::default(), &all, usize::MAX);
        prop_assert_eq!(shown(&found), expected());
        prop_assert_eq!((counts.malformed, counts.places_lost, counts.unpaired), (0, 0, 0));
        // In the order of the packets.
        prop_assert!(found.is_sorted_by_key(|flow| flow.time));
        let text = format!("{found:?}");
        prop_assert!(!text.contains("secret") && !text.contains("hidden") && !text.contains("token"));
    }

    #[test]
    fn no_bytes_make_it_panic(
        pieces in prop::collection::vec((any::<bool>(), 0..3000_u32, prop::collection::vec(any::<u8>(), 0..60)), 0..40),
        start in 0..7_usize,
        snap in 0..60_usize,
    ) {
        let starts: [&[u8]; 7] = [
            b"", b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x00\x50\x01\x00\x00\x4c\x03\x03", b"\0\0\0\x40\0\0\0\x03\0\0\0\x01\0\x02ab", b"\0\x20",
        ];
        let mut all = vec![syn(true), syn(false)];
        let first = Segment { is_client: true, sequence: START.wrapping_add(1), flags: TcpFlags::ACK, bytes: starts[start].to_vec() };
        all.push(first);
        let offset = START.wrapping_add(1).wrapping_add(u32::try_from(starts[start].len()).unwrap());
        all.extend(pieces.into_iter().map(|(is_client, at, bytes)| {
            let sequence = offset.wrapping_add(at);
            Segment { is_client, sequence, flags: TcpFlags::ACK, bytes }
        }));
        run(L7Options::default(), &all, snap);
    }
}

/// One message a segment, as most are.
fn one_by_one() -> Vec<Segment> {
    let mut all = vec![syn(true), syn(false)];
    let (mut sent, mut answered) = (0, 0);
    for (path, status) in [("/one", 200), ("/two", 502), ("/three", 301)] {
        let filler = "x".repeat(400);
        let request = format!("GET {path}?q=1 HTTP/1.1\r\nCookie: {filler}\r\n\r\n");
        let response = format!("HTTP/1.1 {status} Reason\r\nContent-Length: 400\r\n\r\n{filler}");
        for (is_client, text, at) in [(true, request, &mut sent), (false, response, &mut answered)] {
            let sequence = START.wrapping_add(1).wrapping_add(*at);
            *at += u32::try_from(text.len()).unwrap();
            all.push(Segment { is_client, sequence, flags: TcpFlags::ACK, bytes: text.into_bytes() });
        }
    }
    all
}

#[test]
fn a_snap_length_that_cuts_heads_leaves_the_first_lines() {
    for snap in [60, 192, usize::MAX] {
        let (found, _) = run(L7Options::default(), &one_by_one(), snap);
        let (requests, responses) = shown(&found);
        assert_eq!(requests, ["GET /one None", "GET /two None", "GET /three None"], "{snap}");
        assert_eq!(responses, ["GET /one Some(200)", "GET /two Some(502)", "GET /three Some(301)"], "{snap}");
        let latency = found.iter().filter_map(|flow| flow.latency).collect::<Vec<_>>();
        assert_eq!(latency, [Duration::from_nanos(1); 3]);
    }
}

#[test]
fn a_connection_seen_from_its_middle_is_read_from_the_next_message_on() {
    // Without the SYNs, and starting within a body.
    let (found, counts) = run(L7Options::default(), &one_by_one()[3..], usize::MAX);
    assert_eq!(shown(&found).1, ["  Some(200)", "GET /two Some(502)", "GET /three Some(301)"]);
    assert_eq!((counts.unpaired, counts.malformed), (1, 0));
}

#[test]
fn a_lost_segment_costs_its_messages_alone() {
    let mut all = one_by_one();
    all.remove(4);
    let (found, counts) = run(L7Options::default(), &all, usize::MAX);
    assert_eq!(shown(&found).0, ["GET /one None", "GET /three None"]);
    assert_eq!((shown(&found).1.len(), counts.places_lost), (3, 1));
}

#[test]
fn redacted_messages_name_nothing() {
    let options = L7Options { redact: true, ..L7Options::default() };
    let (found, _) = run(options, &one_by_one(), usize::MAX);
    assert!(found.iter().all(|flow| http(flow).path.is_empty()));
    assert_eq!(found.iter().filter_map(|flow| http(flow).status).collect::<Vec<_>>(), [200, 502, 301]);
    let none = L7Options { http: false, dns: false, kafka: false, tls: false, redact: false };
    assert_eq!(run(none, &one_by_one(), usize::MAX).0, []);
}

/// What the two sides say in turn, a segment each.
fn conversation(turns: &[(bool, Vec<u8>)]) -> Vec<Segment> {
    let mut all = vec![syn(true), syn(false)];
    let mut sent = [START.wrapping_add(1); 2];
    for (is_client, bytes) in turns {
        let sequence = &mut sent[usize::from(*is_client)];
        let segment = Segment {
            is_client: *is_client,
            sequence: *sequence,
            flags: TcpFlags::ACK,
            bytes: bytes.clone(),
        };
        *sequence = sequence.wrapping_add(u32::try_from(bytes.len()).unwrap());
        all.push(segment);
    }
    all
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Literal header fields, never indexed (RFC 7541, 6.2.3).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0x10], text(name), text(value)].concat()).collect()
}

fn kafka(api_key: u8, correlation: u8, body: &[u8]) -> Vec<u8> {
    let client = b"SECRET-client";
    let head = [&[0, api_key, 0, 0, 0, 0, 0, correlation, 0, 13], &client[..]].concat();
    let length = u32::try_from(head.len() + body.len()).unwrap().to_be_bytes();
    [&length[..], &head, body].concat()
}

#[test]
fn grpc_is_read_from_headers_and_trailers() {
    let request = [
        (":method", "POST"),
        (":path", "/shop.Cart/Add?token=SECRET"),
        ("content-type", "application/grpc+proto"),
        ("authorization", "Bearer SECRET"),
    ];
    let reply = [(":status", "200"), ("content-type", "application/grpc"), ("set-cookie", "SECRET")];
    let trailers = [("grpc-status", "7"), ("grpc-message", "SECRET")];
    let (headers, data, settings) = (1, 0, 4);
    let asks = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(settings, 0, 0, &[]),
        frame(headers, 4, 1, &block(&request)),
    ];
    let turns = [
        (true, asks.concat()),
        (true, frame(data, 1, 1, b"SECRET")),
        (false, [frame(settings, 0, 0, &[]), frame(headers, 4, 1, &block(&reply))].concat()),
        (false, frame(data, 0, 1, b"SECRET")),
        (false, frame(headers, 5, 1, &block(&trailers))),
    ];
    let (found, counts) = run(L7Options::default(), &conversation(&turns), usize::MAX);
    assert_eq!((found.len(), counts.malformed, counts.places_lost), (2, 0, 0));
    for (flow, status, grpc) in [(&found[0], None, None), (&found[1], Some(200), Some(7))] {
        let http = http(flow);
        assert_eq!((http.method.as_str(), http.path.as_str()), ("POST", "/shop.Cart/Add"));
        assert_eq!((http.status, http.grpc_status, http.is_grpc), (status, grpc, true));
    }
    assert!(found[1].latency.is_some());
    assert!(!format!("{found:?}").contains("SECRET"), "{found:?}");
}

#[test]
fn bodies_passwords_and_names_of_clients_are_not_kept() {
    let sasl = kafka(36, 1, b"\0\0\0\x0e\0user\0SECRET-pw");
    // acks, timeout, one topic of one partition, and its records.
    let topic = b"\0\x01\0\0\x05\xdc\0\0\0\x01\0\x06orders\0\0\0\x01\0\0\0\0\0\0\0\x06SECRET";
    let produced = [
        &[0, 0, 0, 34, 0, 0, 0, 2][..],
        &[0, 0, 0, 1, 0, 6],
        b"orders",
        &[0, 0, 0, 1, 0, 0, 0, 0, 0, 3],
        &[0; 8],
    ];
    let turns = [
        (true, sasl),
        (false, [&[0, 0, 0, 16, 0, 0, 0, 1][..], b"\0\x3a\0\x06SECRET\0\0"].concat()),
        (true, kafka(0, 2, topic)),
        (false, produced.concat()),
    ];
    let (found, counts) = run(L7Options::default(), &conversation(&turns), usize::MAX);
    assert_eq!(counts.malformed, 0, "{found:?}");
    let said: Vec<_> = found
        .iter()
        .map(|flow| match &flow.message {
            L7Message::Kafka(kafka) => {
                (kafka.api_key, kafka.correlation_id, kafka.error_code, kafka.topic.as_str())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        said,
        [(36, 1, None, ""), (36, 1, None, ""), (0, 2, None, "orders"), (0, 2, Some(3), "orders")]
    );
    let http = "CONNECT user:SECRET@db:5432 HTTP/1.1\r\nProxy-Authorization: Basic SECRET\r\nContent-Length: 6\r\n\r\nSECRET";
    let turns = [
        (true, http.as_bytes().to_vec()),
        (false, b"HTTP/1.1 407 SECRET\r\nSet-Cookie: SECRET\r\nContent-Length: 6\r\n\r\nSECRET".to_vec()),
    ];
    let (answered, _) = run(L7Options::default(), &conversation(&turns), usize::MAX);
    assert_eq!(answered.len(), 2);
    assert!(!format!("{found:?} {answered:?}").contains("SECRET"), "{found:?} {answered:?}");
}
