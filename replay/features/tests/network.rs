//! Network and latency features by their definitions, and the mistakes that other extractors make.

#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod made;

use event::{Direction, Duration, Fragment, Packet, Protocol, Tap};
use features::{Closing, Config, Engine, Feature, Row};
use made::{
    ACK, FIN, PSH, RST, SYN, cell, config, finish, number, packet, rows, segment, tcp_tuple, tuple,
    with_window,
};
use proptest::prelude::*;

/// Handshake, request, response, close: 100 ms of a connection, its packets 10 ms apart.
fn connection(start: i64, client: u32, base: u32) -> Vec<Packet> {
    let t = tuple(client, 40_000, Protocol::TCP);
    let (c, s) = (base, base.wrapping_add(77_777));
    let (c1, s1) = (c.wrapping_add(1), s.wrapping_add(1));
    let (c2, s2) = (c1.wrapping_add(100), s1.wrapping_add(500));
    vec![
        segment(start, t, false, SYN, c, 0, 0),
        segment(start + 10, t, true, SYN | ACK, s, c1, 0),
        segment(start + 20, t, false, ACK, c1, s1, 0),
        segment(start + 30, t, false, PSH | ACK, c1, s1, 100),
        segment(start + 40, t, true, ACK, s1, c2, 0),
        segment(start + 50, t, true, PSH | ACK, s1, c2, 500),
        segment(start + 60, t, false, ACK, c2, s2, 0),
        segment(start + 70, t, false, FIN | ACK, c2, s2, 0),
        segment(start + 80, t, true, FIN | ACK, s2, c2.wrapping_add(1), 0),
        segment(start + 90, t, false, ACK, c2.wrapping_add(1), s2.wrapping_add(1), 0),
    ]
}

#[test]
fn a_connection_gives_what_the_definitions_say() {
    let rows = rows(config(5), &connection(1, 1, 1000));
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    for (feature, want) in [
        (Feature::PacketCount, 10.0),
        (Feature::ByteCount, 10.0 * 40.0 + 600.0),
        (Feature::PacketsPerSecond, 2.0),
        (Feature::BytesPerSecond, 200.0),
        (Feature::AvgPacketSize, 100.0),
        (Feature::RetransmissionCount, 0.0),
        (Feature::SynCount, 1.0),
        (Feature::SynAckCount, 1.0),
        (Feature::FinCount, 2.0),
        (Feature::PshCount, 2.0),
        (Feature::AckCount, 9.0),
        (Feature::SynToSynackRatio, 1.0),
        (Feature::HalfOpenConnections, 0.0),
        (Feature::MinPacketSize, 40.0),
        (Feature::MaxPacketSize, 540.0),
        (Feature::InterArrivalTimeMean, 10.0),
        (Feature::InterArrivalTimeStd, 0.0),
        (Feature::InterArrivalJitter, 0.0),
        (Feature::FlowDuration, 0.09),
        (Feature::ForwardPackets, 6.0),
        (Feature::BackwardPackets, 4.0),
        (Feature::ForwardBytes, 340.0),
        (Feature::BackwardBytes, 660.0),
        (Feature::ErrorRate, 0.0),
        (Feature::LatencyMeanMs, 10.0),
        (Feature::LatencyP99Ms, 10.0),
        (Feature::TailLatencyRatio, 1.0),
        (Feature::RttEstimateMs, 20.0),
        (Feature::FlowCompletionTime, 0.08),
        (Feature::GoodputMbps, 600.0 * 8.0 / 5.0 / 1e6),
        (Feature::OverheadRatio, 0.4),
    ] {
        assert_eq!(number(row, feature), want, "{}", feature.name());
    }
    assert_eq!(cell(row, Feature::ConnectionState), "CLOSED");
    assert_eq!(
        number(row, Feature::PacketSizeVariance),
        (8.0 * 60.0f64.powi(2) + 40.0f64.powi(2) + 440.0f64.powi(2)) / 10.0
    );
}

#[test]
fn states_follow_the_connection() {
    let packets = connection(0, 1, 1000);
    for (seen, want) in
        [(2, "NEW"), (3, "ESTABLISHED"), (7, "ESTABLISHED"), (8, "CLOSING"), (9, "CLOSING"), (10, "CLOSED")]
    {
        assert_eq!(cell(&rows(config(5), &packets[..seen])[0], Feature::ConnectionState), want, "{seen}");
    }
    // From the middle: data in both directions.
    assert_eq!(cell(&rows(config(5), &packets[3..6])[0], Feature::ConnectionState), "ESTABLISHED");
}

#[test]
fn windows_are_reset() {
    let t = tcp_tuple();
    let packets: Vec<Packet> =
        (0..20).map(|i: u32| segment(i64::from(i) * 1000, t, false, ACK, 1 + i * 10, 1, 10)).collect();
    let rows = rows(config(5), &packets);
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert_eq!(number(row, Feature::PacketCount), 5.0);
        assert_eq!(number(row, Feature::ForwardBytes), 250.0);
    }
    let durations: Vec<f64> = rows.iter().map(|row| number(row, Feature::FlowDuration)).collect();
    assert_eq!(durations, [4.0, 9.0, 14.0, 19.0]);
    // The gap from the window before ends in this one.
    assert_eq!(number(&rows[1], Feature::InterArrivalTimeMean), 1000.0);
    assert_eq!(rows[1].window.as_secs(), 5);
}

#[test]
fn a_zero_window_is_not_counted_on_an_rst() {
    let t = tcp_tuple();
    let packets = [
        segment(0, t, false, ACK, 1, 1, 10),
        with_window(segment(1, t, true, ACK, 1, 11, 0), 0),
        with_window(segment(2, t, true, RST, 1, 0, 0), 0),
    ];
    let row = &rows(config(5), &packets)[0];
    assert_eq!(number(row, Feature::ZeroWindowCount), 1.0);
    assert_eq!(number(row, Feature::RstCount), 1.0);
    assert_eq!(number(row, Feature::TcpResets), 1.0);
    assert_eq!(number(row, Feature::ErrorRate), 2.0 / 3.0);
}

#[test]
fn a_zero_window_lasts_across_windows() {
    let t = tcp_tuple();
    let mut packets = vec![with_window(segment(4_000, t, true, ACK, 1, 1, 0), 0)];
    packets.extend((1..=3).map(|i| segment(4_000 + i * 2_000, t, false, ACK, 1, 1, 1)));
    packets.push(segment(11_000, t, true, ACK, 1, 1, 0));
    packets.push(segment(13_000, t, false, ACK, 1, 1, 10));
    let durations: Vec<f64> =
        rows(config(5), &packets).iter().map(|row| number(row, Feature::ZeroWindowDuration)).collect();
    assert_eq!(durations, [1.0, 5.0, 1.0]);
    let open: Vec<f64> =
        rows(config(5), &packets[..4]).iter().map(|row| number(row, Feature::ZeroWindowDuration)).collect();
    // Nothing is known of the time after the last packet.
    assert_eq!(open, [1.0, 5.0, 0.0]);
}

#[test]
fn retransmissions_are_told_from_new_data() {
    let t = tcp_tuple();
    let packets = [
        segment(0, t, false, ACK, 1, 1, 100),
        segment(300, t, false, ACK, 1, 1, 100),
        segment(900, t, false, ACK, 1, 1, 100),
        segment(1000, t, true, ACK, 1, 101, 0),
        segment(1010, t, false, ACK, 101, 1, 100),
        segment(1020, t, true, ACK, 1, 201, 0),
    ];
    let row = &rows(config(5), &packets)[0];
    assert_eq!(number(row, Feature::RetransmissionCount), 2.0);
    assert_eq!(number(row, Feature::ConsecutiveRetrans), 2.0);
    assert_eq!(number(row, Feature::RetransmissionRate), 2.0 / 6.0);
    // Karn: the first ACK says nothing; and repeated bytes are no goodput.
    assert_eq!(number(row, Feature::LatencyMeanMs), 10.0);
    assert_eq!(number(row, Feature::GoodputMbps), 200.0 * 8.0 / 5.0 / 1e6);
}

#[test]
fn a_filled_hole_is_out_of_order_and_good_put() {
    let t = tcp_tuple();
    let packets = [
        segment(0, t, false, ACK, 1, 1, 100),
        segment(10, t, false, ACK, 201, 1, 100),
        segment(11, t, false, ACK, 101, 1, 100),
    ];
    let row = &rows(config(5), &packets)[0];
    assert_eq!(number(row, Feature::OutOfOrderCount), 1.0);
    assert_eq!(number(row, Feature::RetransmissionCount), 0.0);
    assert_eq!(number(row, Feature::GoodputMbps), 300.0 * 8.0 / 5.0 / 1e6);
}

#[test]
fn super_packets_count_as_their_segments() {
    let t = tcp_tuple();
    let mut big = segment(0, t, false, ACK | PSH, 1, 1, 3000);
    (big.gso_segments, big.gso_size) = (3, 1448);
    let row = &rows(config(5), &[big])[0];
    assert_eq!(number(row, Feature::PacketCount), 3.0);
    assert_eq!(number(row, Feature::ByteCount), 3000.0 + 3.0 * 40.0);
    assert_eq!(number(row, Feature::MaxPacketSize), 1488.0);
    assert_eq!(number(row, Feature::MinPacketSize), f64::from(3000 - 2 * 1448 + 40));
    assert_eq!(number(row, Feature::AckCount), 3.0);
    assert_eq!(number(row, Feature::PshCount), 1.0);
}

#[test]
fn lengths_come_from_the_header_not_from_what_was_captured() {
    let row = &rows(config(5), &[segment(0, tcp_tuple(), false, ACK, 1, 1, 1448)])[0];
    assert_eq!(number(row, Feature::ByteCount), 1488.0);
    assert_eq!(number(row, Feature::GoodputMbps), 1448.0 * 8.0 / 5.0 / 1e6);
}

#[test]
fn endpoints_see_all_their_connections() {
    let mut packets = Vec::new();
    for client in 0..10 {
        packets.push(segment(i64::from(client), tuple(client, 1000, Protocol::TCP), false, SYN, 5, 0, 0));
    }
    packets.extend(connection(1_000, 99, 1));
    packets.push(segment(2_000, tuple(0, 1000, Protocol::TCP), true, RST | ACK, 0, 6, 0));
    // 60 s later the SYNs are too old to count; one was sent again meanwhile.
    packets.push(segment(50_000, tuple(5, 1000, Protocol::TCP), false, SYN, 5, 0, 0));
    packets.push(segment(62_000, tuple(98, 1000, Protocol::TCP), false, ACK, 5, 1, 0));
    packets.push(segment(66_000, tuple(98, 1000, Protocol::TCP), false, ACK, 5, 1, 0));
    let rows = rows(config(5), &packets);
    let first: Vec<&Row> = rows.iter().filter(|row| row.window.as_secs() == 0).collect();
    assert_eq!(first.len(), 11);
    for row in first {
        assert_eq!(number(row, Feature::SynToSynackRatio), 11.0);
        assert_eq!(number(row, Feature::HalfOpenConnections), 9.0);
        assert_eq!(number(row, Feature::TcpResets), 1.0);
    }
    let at = |seconds| rows.iter().find(|row| row.window.as_secs() == seconds).unwrap();
    assert_eq!(number(at(50), Feature::HalfOpenConnections), 9.0);
    assert_eq!(number(at(60), Feature::HalfOpenConnections), 1.0);
    assert_eq!(number(at(50), Feature::SynToSynackRatio), 1.0);
}

#[test]
fn half_open_counts_handshakes_that_end_in_a_later_window() {
    let packets: Vec<Packet> = connection(4_985, 1, 7);
    let rows = rows(config(5), &packets);
    let counts: Vec<f64> = rows.iter().map(|row| number(row, Feature::HalfOpenConnections)).collect();
    assert_eq!(counts, [1.0, 0.0]);
}

#[test]
fn a_request_is_timed_to_the_next_packet_back() {
    let t = tuple(1, 5353, Protocol::UDP);
    let packets =
        [packet(0, t, 30), packet(4, t.reversed(), 90), packet(5, t.reversed(), 90), packet(10, t, 30)];
    let row = &rows(config(5), &packets)[0];
    assert_eq!(number(row, Feature::LatencyP50Ms), 4.0);
    assert_eq!(cell(row, Feature::LatencyStdMs), "");
    assert_eq!(cell(row, Feature::SynCount), "");
    assert_eq!(cell(row, Feature::ConnectionState), "ESTABLISHED");
    assert_eq!(cell(&rows(config(5), &packets[..1])[0], Feature::ConnectionState), "NEW");
}

#[test]
fn a_new_connection_on_old_ports_begins_anew() {
    let mut packets = connection(0, 1, 1000);
    packets.extend(connection(1_000, 1, 5_000_000));
    let rows = rows(config(5), &packets);
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    assert_eq!(number(row, Feature::PacketCount), 20.0);
    assert_eq!(number(row, Feature::RetransmissionCount), 0.0);
    assert_eq!(cell(row, Feature::ConnectionState), "CLOSED");
    assert_eq!(number(row, Feature::FlowDuration), 0.09);
}

#[test]
fn fragments_are_errors_once() {
    let t = tuple(1, 9, Protocol::UDP);
    let first = Packet { fragment: Fragment::First, ..packet(0, t, 1400) };
    let later = Packet { fragment: Fragment::Later, ..packet(1, t, 100) };
    assert_eq!(number(&rows(config(5), &[first, later])[0], Feature::ErrorRate), 1.0);
}

#[test]
fn one_packet_at_two_taps_counts_once() {
    let t = tcp_tuple();
    let mut packets = Vec::new();
    for packet in connection(0, 1, 50) {
        let back = packet.five_tuple != t;
        // On loopback each packet goes out of the interface and comes in at it.
        for (interface, direction) in
            [(3, Direction::Egress), (3, Direction::Ingress), (7, Direction::Egress)]
        {
            packets.push(Packet { interface: interface + u32::from(back), direction, ..packet });
        }
    }
    let mut engine = Engine::new(config(5));
    engine.push_packets(&packets);
    assert_eq!(engine.counts().other_taps, 20);
    let row = &finish(engine)[0];
    assert_eq!(number(row, Feature::PacketCount), 10.0);
    assert_eq!(number(row, Feature::RetransmissionCount), 0.0);
}

#[test]
fn the_tap_that_the_recorder_counted_at_holds() {
    // A piece of a recording that begins with what the secondary tap saw, and whose primary tap changes.
    let taps = [(7, Tap::Secondary), (3, Tap::Primary), (7, Tap::Secondary), (7, Tap::Primary)];
    let packets = (0..).zip(taps).map(|(time, (interface, tap))| {
        let packet = packet(time, tuple(1, 9, Protocol::UDP), 100);
        Packet { interface, tap, direction: Direction::Ingress, ..packet }
    });
    let mut engine = Engine::new(config(5));
    engine.push_packets(&packets.collect::<Vec<_>>());
    assert_eq!(engine.counts().other_taps, 2);
    assert_eq!(number(&finish(engine)[0], Feature::PacketCount), 2.0);
}

#[test]
fn a_clock_that_steps_back_expires_nothing() {
    let t = tcp_tuple();
    let mut packets = vec![
        segment(100_000, t, false, ACK, 1, 1, 10),
        segment(40_000, t, false, ACK, 11, 1, 10),
        segment(100_001, t, false, ACK, 21, 1, 10),
    ];
    let rows_of = |packets: &[Packet]| {
        let mut engine = Engine::new(config(5));
        engine.push_packets(packets);
        (engine.counts().steps_back, finish(engine))
    };
    let (steps, rows) = rows_of(&packets);
    assert_eq!(steps, 1);
    let counts: Vec<(i64, f64)> =
        rows.iter().map(|row| (row.window.as_secs(), number(row, Feature::PacketCount))).collect();
    assert_eq!(counts, [(40, 1.0), (100, 2.0)]);
    assert!(rows.iter().all(|row| number(row, Feature::RetransmissionCount) == 0.0));
    packets.remove(1);
    assert_eq!(rows_of(&packets).0, 0);
}

#[test]
fn the_least_recently_active_flow_is_closed_early() {
    let of = |time, client| segment(time, tuple(client, 1000, Protocol::TCP), false, ACK, 1, 1, 10);
    let config = Config { max_flows: 2, ..config(5) };
    let mut engine = Engine::new(config);
    for (time, client) in [(0, 1), (1, 2), (2, 1), (3, 3), (4, 1), (5, 2)] {
        engine.push_packet(&of(time, client));
    }
    let counts = engine.counts();
    assert_eq!((counts.flows, counts.closed_early), (4, 2));
    let rows = finish(engine);
    // The second flow was forgotten and begins anew; nothing that it did before is lost.
    let packets: Vec<f64> = rows.iter().map(|row| number(row, Feature::PacketCount)).collect();
    assert_eq!(packets, [3.0, 1.0, 1.0, 1.0]);
}

#[test]
fn a_flood_of_sources_does_not_grow_the_memory() {
    let config = Config { max_flows: 5_000, closing: Closing::Patient { rows: 1_000 }, ..config(1) };
    let mut engine = Engine::new(config);
    let mut rows = 0;
    for batch in 0..100u32 {
        let packets: Vec<Packet> = (0..2_000u32)
            .map(|i| {
                let client = batch * 2_000 + i;
                segment(i64::from(client) / 10, tuple(client, 999, Protocol::TCP), false, SYN, client, 0, 0)
            })
            .collect();
        engine.push_packets(&packets);
        while let Some(window) = engine.next_closed() {
            rows += window.len();
        }
    }
    engine.finish();
    while let Some(window) = engine.next_closed() {
        rows += window.len();
    }
    let counts = engine.counts();
    assert_eq!((counts.flows, rows), (200_000, 200_000));
    assert!(counts.closed_early >= 195_000);
}

/// Ten million sources in one window, each with one SYN: rows are bounded, and what is in none is counted.
#[test]
fn ten_million_sources_in_one_window_are_bounded() {
    const SOURCES: u32 = 10_000_000;
    let config = Config { max_flows: 10_000, ..config(3600) };
    let mut engine = Engine::new(config);
    let mut packets = Vec::new();
    for client in 0..SOURCES {
        packets.push(segment(
            i64::from(client) / 10_000,
            tuple(client, 999, Protocol::TCP),
            false,
            SYN,
            1,
            0,
            0,
        ));
        if packets.len() == 10_000 {
            engine.push_packets(&packets);
            packets.clear();
        }
    }
    engine.finish();
    let window = engine.next_closed().unwrap();
    let counts = engine.counts();
    assert_eq!(counts.packets, u64::from(SOURCES));
    assert_eq!(counts.counted + counts.crowded_out, counts.packets);
    assert!(window.len() <= 256 * 1024, "{} rows", window.len());
    assert_eq!(counts.counted, window.len() as u64);
    assert!(counts.closed_early >= u64::from(SOURCES) - 10_000);
    // The peak of this whole process; a flow and its row take less than 1 KiB.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 512 * 1024, "{peak} KiB");
}

#[test]
fn live_windows_close_by_arrival_and_count_what_came_too_late() {
    let live = Config { closing: Closing::Live { lateness: Duration::from_secs(1) }, ..config(5) };
    let t = tcp_tuple();
    let mut engine = Engine::new(live);
    engine.push_packet(&segment(4_900, t, false, ACK, 1, 1, 10));
    engine.push_packet(&segment(5_500, t, false, ACK, 11, 1, 10));
    assert!(engine.next_closed().is_none());
    let mut late = segment(4_950, t, false, ACK, 21, 1, 10);
    late.arrival += Duration::from_secs(1);
    engine.push_packet(&late);
    engine.push_packet(&segment(6_000, t, false, ACK, 31, 1, 10));
    let first = engine.next_closed().unwrap();
    assert_eq!(number(&first.row(0), Feature::PacketCount), 2.0);
    engine.push_packet(&segment(4_960, t, false, ACK, 41, 1, 10));
    assert_eq!(engine.counts().late, 1);
    assert_eq!(number(&finish(engine)[0], Feature::PacketCount), 2.0);
}

/// Segments of a few connections, with losses, repeats and reordering.
fn traffic() -> impl Strategy<Value = Vec<Packet>> {
    let step = (
        0..4u32,
        any::<bool>(),
        0..3u32,
        0..6u32,
        0..400i64,
        prop::sample::select(vec![ACK, ACK, ACK | PSH, FIN | ACK, SYN, SYN | ACK, RST]),
    );
    prop::collection::vec(step, 1..200).prop_map(|steps| {
        let mut time = 0;
        steps
            .into_iter()
            .map(|(client, back, sequence, length, gap, flags)| {
                time += gap;
                let t = tuple(client, 4000, Protocol::TCP);
                let window = if length == 5 { 0 } else { 500 };
                with_window(segment(time, t, back, flags, 1000 + sequence * 100, 1100, length * 50), window)
            })
            .collect()
    })
}

fn shifted(packets: &[Packet], by: u32) -> Vec<Packet> {
    packets
        .iter()
        .map(|packet| {
            let mut packet = *packet;
            if let Some(tcp) = &mut packet.tcp {
                tcp.sequence = tcp.sequence.wrapping_add(by);
                if tcp.flags.0 & ACK != 0 {
                    tcp.acknowledgement = tcp.acknowledgement.wrapping_add(by);
                }
            }
            packet
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sequence_numbers_wrap(packets in traffic(), by in any::<u32>()) {
        prop_assert_eq!(rows(config(5), &packets), rows(config(5), &shifted(&packets, by)));
    }

    #[test]
    fn how_packets_are_handed_over_does_not_matter(packets in traffic(), at in 0..200usize) {
        let whole = rows(config(5), &packets);
        let mut engine = Engine::new(config(5));
        let (first, second) = packets.split_at(at.min(packets.len()));
        engine.push_packets(first);
        second.iter().for_each(|packet| engine.push_packet(packet));
        prop_assert_eq!(&whole, &finish(engine));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        prop_assert_eq!(&whole, &pool.install(|| rows(config(5), &packets)));
    }

    #[test]
    fn counts_of_windows_sum_to_the_whole(packets in traffic()) {
        let (parts, whole) = (rows(config(1), &packets), rows(config(86_400), &packets));
        for feature in [Feature::PacketCount, Feature::ByteCount, Feature::RetransmissionCount, Feature::OutOfOrderCount, Feature::ZeroWindowCount, Feature::SynCount, Feature::BackwardBytes] {
            let sum = |rows: &[Row]| rows.iter().map(|row| number(row, feature)).sum::<f64>();
            prop_assert_eq!(sum(&parts), sum(&whole), "{}", feature.name());
        }
        let zero = |rows: &[Row]| rows.iter().map(|row| number(row, Feature::ZeroWindowDuration)).sum::<f64>();
        prop_assert!(zero(&parts) <= zero(&whole) + 1e-9);
    }

    #[test]
    fn rows_do_not_tell_when_their_window_was_closed(packets in traffic()) {
        let mut engine = Engine::new(Config { closing: Closing::Patient { rows: 0 }, ..config(1) });
        packets.iter().for_each(|packet| engine.push_packet(packet));
        prop_assert_eq!(rows(config(1), &packets), finish(engine));
    }

    #[test]
    fn live_rows_are_the_patient_ones_where_nothing_is_late(packets in traffic()) {
        let live = Config { closing: Closing::Live { lateness: Duration::from_secs(2) }, ..config(5) };
        prop_assert_eq!(rows(live, &packets), rows(config(5), &packets));
    }
}
