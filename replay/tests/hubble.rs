//! The program on packets and Hubble's flows.

#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod program;

use std::collections::BTreeSet;
use std::path::Path;

use event::{
    Direction, Duration, Endpoint, Event, FiveTuple, Fragment, L7Type, NameOrigin, Naming, Packet, Protocol,
    Tcp, TcpFlags, Timestamp, Workload,
};
use program::{Run, replay_in};
use recording::{Header, Options, Writer};

/// 2024-01-02T03:04:05Z
const START: i64 = 1_704_164_645;

fn packet(time: Timestamp, five_tuple: FiveTuple) -> Packet {
    let is_tcp = five_tuple.protocol == Protocol::TCP;
    Packet {
        time,
        arrival: time,
        interface: 0,
        direction: Direction::Ingress,
        tap: event::Tap::Unknown,
        five_tuple,
        l3_length: 100,
        payload_length: 60,
        ttl: 64,
        fragment: Fragment::Whole,
        gso_segments: 1,
        gso_size: 0,
        tcp: is_tcp.then(|| Tcp { sequence: 1, flags: TcpFlags::ACK, window: 500, ..Tcp::default() }),
    }
}

/// A recording of these packets.
fn record(folder: &Path, packets: &[Packet]) {
    let mut writer = Writer::create(folder.join("a.mcap"), &Header::default(), Options::default()).unwrap();
    packets.iter().for_each(|packet| writer.write(&Event::Packet(*packet)).unwrap());
    writer.finish().unwrap();
}

fn tuple(source: (&str, u16), destination: (&str, u16), protocol: Protocol) -> FiveTuple {
    let end = |(address, port): (&str, u16)| Endpoint::new(address.parse().unwrap(), port);
    FiveTuple::new(end(source), end(destination), protocol)
}

/// A line of a flow between these two, with what a test is about.
fn line(second: &str, source: (&str, u16), destination: (&str, u16), rest: &str) -> String {
    format!(
        r#"{{"flow":{{"time":"2024-01-02T03:04:{second}Z","IP":{{"source":"{}","destination":"{}"}},"l4":{{"TCP":{{"source_port":{},"destination_port":{}}}}},{rest}}}}}"#,
        source.0, destination.0, source.1, destination.1
    )
}

const CLIENT: (&str, u16) = ("10.0.0.1", 40_000);
const SERVER: (&str, u16) = ("10.0.0.2", 80);

fn cell(run: &Run, column: &str) -> String {
    let cells: Vec<&str> = run.column(column).collect();
    assert_eq!(cells.len(), 1, "{cells:?}");
    cells[0].to_owned()
}

#[test]
fn flows_of_a_file_join_the_packets_and_bad_lines_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let start = Timestamp::from_secs(START);
    record(folder.path(), &[packet(start, tuple(CLIENT, SERVER, Protocol::TCP))]);
    let http =
        r#""http":{"code":503,"method":"GET","url":"http://h/cart?token=secret","protocol":"HTTP/1.1"}"#;
    let response = format!(
        r#""verdict":"FORWARDED","is_reply":true,"uuid":"u1","l7":{{"type":"RESPONSE","latency_ns":"2500000",{http}}},
        "destination":{{"namespace":"shop","pod_name":"web-1"}},"source":{{"namespace":"shop","labels":["k8s:app=cart"]}}"#
    )
    .replace('\n', "");
    let lines = [
        r#"level=info msg="an agent's log line" subsys=hubble"#.to_owned(),
        line("06", SERVER, CLIENT, &response),
        // The same report again, as a second client of the server would write it.
        line("06", SERVER, CLIENT, &response),
        line("07.5", CLIENT, SERVER, r#""verdict":"DROPPED","drop_reason_desc":"A_REASON_OF_TOMORROW","new_field":[1]"#),
        line("07.5", CLIENT, SERVER, r#""verdict":7.5"#),
        r#"{"flow":{"time":"not a time"}}"#.to_owned(),
        line("08", ("10.9.9.9", 1), ("10.9.9.8", 2), r#""verdict":"FORWARDED""#),
        r#"{"node_status":{"state_change":"NODE_CONNECTED","node_names":["a"]},"time":"2024-01-02T03:04:09Z"}"#.to_owned(),
        r#"{"lost_events":{"source":"PERF_EVENT_RING_BUFFER","num_events_lost":"4"},"time":"2024-01-02T03:04:09Z"}"#.to_owned(),
    ];
    std::fs::write(folder.path().join("flows.jsonl"), lines.join("\n")).unwrap();
    let run = replay_in(folder.path(), &["a.mcap", "--hubble", "flows.jsonl"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    for (column, expected) in [
        ("http_status_code", "503"),
        ("http_method", "GET"),
        ("http_url", "/cart"),
        ("http_latency_ms", "2.5"),
        ("namespace", "shop"),
        ("pod_name", "web-1"),
        ("service_name", "cart"),
        ("verdict", "DROPPED"),
        ("drop_reason", "A_REASON_OF_TOMORROW"),
        ("l7_protocol_detected", "http"),
    ] {
        assert_eq!(cell(&run, column), expected, "{column}: {}", run.stderr);
    }
    assert!(!String::from_utf8_lossy(&run.stdout).contains("secret"));
    for part in [
        "flows.jsonl: line 5: ",
        "flows.jsonl: line 6: ",
        "bad lines 2",
        "lines of other kinds 1",
        "Hubble lost 4 events in the kernel's ring",
        "3 L7 events: 2 joined (66.7 %",
        "1 told twice",
    ] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    let run = replay_in(folder.path(), &["a.mcap", "--hubble", "flows.jsonl", "--redact"]);
    assert_eq!((cell(&run, "http_status_code"), cell(&run, "http_url")), ("503".to_owned(), String::new()));
    let run = replay_in(folder.path(), &["a.mcap", "--hubble", "flows.jsonl", "--filter", "host 10.0.0.1"]);
    assert!(run.stderr.contains("0 packets and 1 L7 events outside"), "{}", run.stderr);
    let run = replay_in(folder.path(), &["a.mcap", "--hubble", "nowhere.jsonl"]);
    assert!(run.code == 1 && run.stderr.contains("cannot open nowhere.jsonl"), "{}", run.stderr);
}

#[test]
fn coverage_is_stored_for_each_window() {
    let folder = tempfile::tempdir().unwrap();
    let tuple = tuple(CLIENT, SERVER, Protocol::TCP);
    let packets = [0, 5].map(|second| packet(Timestamp::from_secs(START + second), tuple));
    record(folder.path(), &packets);
    let told = |second| line(second, CLIENT, SERVER, r#""verdict":"FORWARDED""#);
    // Two in the first window, of which one is of nobody's flow; one in the second; one where there are no packets.
    let lines =
        [told("06"), line("07", SERVER, ("10.9.9.8", 2), r#""verdict":"DROPPED""#), told("11"), told("40")];
    std::fs::write(folder.path().join("flows.jsonl"), lines.join("\n")).unwrap();
    let arguments = ["a.mcap", "--hubble", "flows.jsonl", "--coverage", "coverage.csv"];
    let run = replay_in(folder.path(), &arguments);
    assert!(run.stderr.contains("4 L7 events: 2 joined (50.0 %"), "{}", run.stderr);
    let stored = std::fs::read_to_string(folder.path().join("coverage.csv")).unwrap();
    assert_eq!(
        stored,
        "timestamp,l7_seen,l7_joined,by_five_tuple,by_translated_source,by_client,l7_unjoined,l7_repeated,\
         kernel_joined,kernel_unjoined\n\
         1704164645,2,1,1,0,0,1,0,0,0\n\
         1704164650,1,1,1,0,0,0,0,0,0\n\
         1704164680,1,0,0,0,0,1,0,0,0\n"
    );
    // As a live run it tells the same, one window after the other.
    let run = replay_in(folder.path(), &[&arguments[..], &["--as-live"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let live = std::fs::read_to_string(folder.path().join("coverage.csv")).unwrap();
    let sum = |text: &str| {
        text.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse::<u32>().unwrap()).sum::<u32>()
    };
    assert_eq!(sum(&live), 4, "{live}");
    let run = replay_in(folder.path(), &["a.mcap", "--coverage", "nowhere/coverage.csv"]);
    assert!(run.code == 1 && run.stderr.contains("cannot create nowhere/coverage.csv"), "{}", run.stderr);
}

#[test]
fn names_of_a_file_stand_where_nothing_else_names_a_flow() {
    let folder = tempfile::tempdir().unwrap();
    let start = Timestamp::from_secs(START);
    let other = ("10.0.0.3", 443);
    let packets = [tuple(CLIENT, SERVER, Protocol::TCP), tuple(CLIENT, other, Protocol::TCP)];
    let metadata = [(event::NAMES_KEY.to_owned(), "10.0.0.3 service=of-the-recording".to_owned())].into();
    let header = Header { metadata, ..Header::default() };
    let mut writer = Writer::create(folder.path().join("a.mcap"), &header, Options::default()).unwrap();
    packets.iter().for_each(|tuple| writer.write(&Event::Packet(packet(start, *tuple))).unwrap());
    writer.finish().unwrap();
    let names =
        "10.0.0.1 namespace=front pod=curl-1\n10.0.0.0/8 service=lan\n10.0.0.2 namespace=x service=web\n";
    std::fs::write(folder.path().join("names"), names).unwrap();
    let rest = r#""verdict":"FORWARDED","destination":{"namespace":"shop","pod_name":"told"}"#;
    std::fs::write(folder.path().join("flows.jsonl"), line("06", CLIENT, SERVER, rest)).unwrap();
    let cells = |run: &Run, column: &str| run.column(column).map(str::to_owned).collect::<Vec<_>>();

    let run = replay_in(folder.path(), &["a.mcap", "--names", "names", "--hubble", "flows.jsonl"]);
    assert_eq!(cells(&run, "namespace"), ["shop", "front"], "{}", run.stderr);
    assert_eq!(cells(&run, "pod_name"), ["told", "curl-1"]);
    assert_eq!(cells(&run, "service_name"), ["web", "lan"]);
    let run = replay_in(folder.path(), &["a.mcap"]);
    assert_eq!(cells(&run, "service_name"), ["", "of-the-recording"], "{}", run.stderr);
    std::fs::write(folder.path().join("names"), "10.0.0.1 pod=a\nnonsense").unwrap();
    let run = replay_in(folder.path(), &["a.mcap", "--names", "names"]);
    assert!(run.code == 1 && run.stderr.contains("line 2: `nonsense` is no IP address"), "{}", run.stderr);
}

/// From this second on the address belongs to the pod; to nobody where it has no name.
fn naming(second: i64, (address, _): (&str, u16), pod: &str, service: &str) -> Event {
    let of = |name: &str| (!name.is_empty()).then_some(NameOrigin::Kubernetes);
    let workload = Workload {
        namespace: if pod.is_empty() && service.is_empty() { String::new() } else { "shop".to_owned() },
        pod: pod.to_owned(),
        service: service.to_owned(),
        pod_origin: of(pod),
        service_origin: of(service),
    };
    let time = Timestamp::from_secs(START + second);
    Event::Naming(Box::new(Naming { time, arrival: time, address: address.parse().unwrap(), workload }))
}

#[test]
fn names_that_were_recorded_hold_from_their_time_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |second: i64| Timestamp::from_secs(START + second);
    let tuple = tuple(CLIENT, SERVER, Protocol::TCP);
    let mut writer =
        Writer::create(folder.path().join("a.mcap"), &Header::default(), Options::default()).unwrap();
    for event in [
        naming(0, CLIENT, "cart-1", ""),
        naming(0, SERVER, "", "web"),
        Event::Packet(packet(at(1), tuple)),
        Event::Packet(packet(at(6), tuple)),
        // The pod goes in the middle of the second window, and another gets its address: told late, of before.
        naming(7, CLIENT, "", ""),
        Event::Packet(packet(at(11), tuple)),
        Event::Packet(packet(at(16), tuple)),
        naming(16, CLIENT, "job-9", "jobs"),
        naming(20, SERVER, "", ""),
        Event::Packet(packet(at(21), tuple)),
    ] {
        writer.write(&event).unwrap();
    }
    writer.finish().unwrap();
    std::fs::write(folder.path().join("names"), "10.0.0.0/24 namespace=file service=of-the-file").unwrap();
    for arguments in [&["a.mcap"][..], &["a.mcap", "--threads", "1"], &["a.mcap", "--as-live"]] {
        let run = replay_in(folder.path(), arguments);
        let cells = |column| run.column(column).collect::<Vec<_>>();
        assert_eq!(cells("pod_name"), ["cart-1", "cart-1", "", "job-9", "job-9"], "{}", run.stderr);
        assert_eq!(cells("namespace"), ["shop"; 5], "{}", run.stderr);
        assert_eq!(cells("service_name"), ["web", "web", "web", "web", ""], "{}", run.stderr);
    }
    // Hubble's words come before, the file's after them.
    let told = line(
        "06",
        CLIENT,
        SERVER,
        r#""verdict":"FORWARDED","source":{"namespace":"shop","pod_name":"told"}"#,
    );
    std::fs::write(folder.path().join("flows.jsonl"), told).unwrap();
    let run = replay_in(folder.path(), &["a.mcap", "--names", "names", "--hubble", "flows.jsonl"]);
    let cells = |column| run.column(column).collect::<Vec<_>>();
    assert_eq!(cells("pod_name"), ["told", "cart-1", "", "job-9", "job-9"], "{}", run.stderr);
    assert_eq!(cells("namespace"), ["shop", "shop", "file", "shop", "shop"], "{}", run.stderr);
    assert_eq!(cells("service_name"), ["web", "web", "web", "web", "of-the-file"], "{}", run.stderr);
}

/// For each flow that names a connection a packet of it, at the flow's time. A response's packet runs the other
/// way, as the reporter says.
fn synthesised(flows: &[event::L7Flow]) -> Vec<Packet> {
    let mut packets: Vec<Packet> = flows.iter().map(|flow| packet(flow.time, flow.five_tuple)).collect();
    packets.sort_by_key(|packet| packet.time);
    packets
}

#[test]
fn the_collection_joins_packets_made_from_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/hubble/flows.jsonl");
    let Ok(text) = std::fs::read(&path) else {
        eprintln!("skipped: the_collection_joins_packets_made_from_it: no {}", path.display());
        return;
    };
    let mut reader = hubble::JsonReader::new(&text[..]);
    let mut converter = hubble::Converter::default();
    let mut flows = Vec::new();
    while let Some(line) = reader.next().unwrap() {
        if let Some(Event::L7(flow)) = converter.json_event(&line.unwrap()) {
            flows.push(*flow);
        }
    }
    let is_message = |flow: &&event::L7Flow| flow.kind != L7Type::None;
    let messages = flows.iter().filter(is_message).count();
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), &synthesised(&flows));
    let run = replay_in(folder.path(), &["a.mcap", "--hubble", path.to_str().unwrap()]);
    let line = run.stderr.lines().find(|line| line.contains("L7 events:")).unwrap();
    eprintln!("{} flows, {messages} with a message: {line}", flows.len());
    assert!(line.contains("joined (100.0 %"), "{line}");

    // Without the packets that run as the reports say, only those of the client's side: still all of them. And
    // told 40 ms late, over the edges of windows.
    let late = Duration::from_millis(40);
    let packets: Vec<Packet> = synthesised(&flows)
        .into_iter()
        .map(|packet| Packet { time: packet.time - late, arrival: packet.arrival - late, ..packet })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), &packets);
    let run = replay_in(folder.path(), &["a.mcap", "--hubble", path.to_str().unwrap()]);
    let line = run.stderr.lines().find(|line| line.contains("L7 events:")).unwrap();
    eprintln!("reported 40 ms late: {line}");
    assert!(line.contains("joined (100.0 %"), "{line}");

    // Where sockets are not balanced the packets name the backend and the reports the service: the client tells.
    let clients: BTreeSet<_> = flows.iter().filter(is_message).map(client_of).collect();
    let service = |flow: &event::L7Flow| {
        let (client, server) = (client_of(flow), "192.0.2.77".parse().unwrap());
        packet(flow.time, FiveTuple::new(client, Endpoint::new(server, 8080), flow.five_tuple.protocol))
    };
    let mut packets: Vec<Packet> = flows.iter().filter(is_message).map(service).collect();
    packets.sort_by_key(|packet| packet.time);
    let folder = tempfile::tempdir().unwrap();
    record(folder.path(), &packets);
    let run = replay_in(folder.path(), &["a.mcap", "--hubble", path.to_str().unwrap()]);
    let line = run.stderr.lines().find(|line| line.contains("L7 events:")).unwrap();
    eprintln!("{} clients, servers behind another address: {line}", clients.len());
    let by_client: usize =
        line.split(" by the client").next().unwrap().split(' ').next_back().unwrap().parse().unwrap();
    assert!(by_client >= messages, "{line}");
}

fn client_of(flow: &event::L7Flow) -> Endpoint {
    let is_reply = flow.kind == L7Type::Response || flow.is_reply == Some(true);
    if is_reply { flow.five_tuple.destination } else { flow.five_tuple.source }
}
