//! System, application and kernel events joined to the flows of their window.

#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod made;

use event::{
    CgroupCpu, CgroupMemory, CpuTimes, Direction, Disk, DnsMessage, Duration, Event, FiveTuple, HttpMessage,
    KernelEvent, KernelEventKind, L7Flow, L7Message, L7Origin, L7Type, Label, Mark, Memory, Node, Packet,
    Pod, Process, Protocol, SystemSnapshot, Timestamp, Verdict, Workload,
};
use features::{Engine, Feature, Row};
use made::{ACK, cell, config, finish, number, packet, segment, tcp_tuple, tuple};

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_millis(milliseconds)
}

fn flow(milliseconds: i64, five_tuple: FiveTuple, kind: L7Type, message: L7Message) -> L7Flow {
    L7Flow {
        time: at(milliseconds),
        arrival: at(milliseconds),
        origin: L7Origin::Hubble,
        kind,
        five_tuple,
        source_translated: None,
        is_reply: Some(kind == L7Type::Response),
        verdict: Some(Verdict::Forwarded),
        drop_reason: None,
        latency: None,
        source: Workload::default(),
        destination: Workload::default(),
        node: String::new(),
        uuid: String::new(),
        message,
    }
}

fn http(status: Option<u16>, method: &str, path: &str) -> L7Message {
    L7Message::Http(HttpMessage {
        status,
        method: method.to_owned(),
        path: path.to_owned(),
        protocol: "HTTP/1.1".to_owned(),
        is_grpc: false,
        grpc_status: None,
    })
}

fn dns(query: &str, rcode: Option<u16>, answers: u16) -> L7Message {
    let (query, query_types) = (query.to_owned(), vec!["A".to_owned()]);
    L7Message::Dns(DnsMessage { query, query_types, rcode, answers: rcode.map(|_| answers) })
}

fn engine(packets: &[Packet], events: Vec<Event>) -> Engine {
    let mut engine = Engine::new(config(5));
    events.iter().for_each(|event| engine.push(event));
    engine.push_packets(packets);
    engine
}

fn only(engine: Engine) -> Row {
    let rows = finish(engine);
    assert_eq!(rows.len(), 1);
    rows.into_iter().next().unwrap()
}

#[test]
fn without_sources_their_columns_are_empty() {
    let row = only(engine(&[packet(0, tcp_tuple(), 1)], Vec::new()));
    for feature in [
        Feature::IsBlockedFlow,
        Feature::HttpStatusCode,
        Feature::Verdict,
        Feature::CpuUsagePercent,
        Feature::OomKills,
        Feature::MemoryCritical,
    ] {
        assert_eq!(cell(&row, feature), "", "{}", feature.name());
    }
    assert_eq!(cell(&row, Feature::CpuNrPeriods), "0");
    assert_eq!(row.label, None);
}

#[test]
fn responses_join_the_flow_of_their_client() {
    let t = tcp_tuple();
    let packets = [segment(100, t, false, ACK, 1, 1, 10), segment(200, t, true, ACK, 1, 11, 10)];
    let mut bad = flow(210, t.reversed(), L7Type::Response, http(Some(503), "GET", "/slow?token=secret"));
    bad.latency = Some(Duration::from_millis(90));
    bad.source = Workload {
        namespace: "shop".into(),
        pod: "web-1".into(),
        service: "web".into(),
        ..Workload::default()
    };
    bad.destination = Workload { namespace: "front".into(), pod: "curl-1".into(), ..Workload::default() };
    let mut good = flow(220, t.reversed(), L7Type::Response, http(Some(200), "POST", "/"));
    good.latency = Some(Duration::from_millis(120));
    let request = flow(100, t, L7Type::Request, http(None, "GET", "/slow"));
    let events = [request, bad, good].map(|flow| Event::L7(Box::new(flow))).to_vec();
    let engine = engine(&packets, events);
    let row = only(engine);
    for (feature, want) in [
        (Feature::HttpStatusCode, "503"),
        (Feature::HttpMethod, "GET"),
        (Feature::HttpUrl, "/slow"),
        (Feature::HttpLatencyMs, "120"),
        (Feature::L7ProtocolDetected, "http"),
        (Feature::Verdict, "FORWARDED"),
        (Feature::Namespace, "front"),
        (Feature::PodName, "curl-1"),
        (Feature::ServiceName, "web"),
        (Feature::IsBlockedFlow, "0"),
        (Feature::DropReason, ""),
        (Feature::GrpcMethod, ""),
    ] {
        assert_eq!(cell(&row, feature), want, "{}", feature.name());
    }
    assert_eq!(row.l7_protocol, 1);
}

#[test]
fn a_protocol_once_detected_stays() {
    let t = tuple(1, 40_000, Protocol::TCP);
    let packets = [segment(100, t, false, ACK, 1, 1, 10), segment(6_000, t, false, ACK, 11, 1, 10)];
    let events = vec![Event::L7(Box::new(flow(100, t, L7Type::Request, http(None, "GET", "/"))))];
    let rows = finish(engine(&packets, events));
    assert_eq!(cell(&rows[1], Feature::L7ProtocolDetected), "http");
    assert_eq!(cell(&rows[1], Feature::HttpMethod), "");
}

#[test]
fn events_join_by_rule_and_what_does_not_is_counted() {
    let (t, other) = (tcp_tuple(), tuple(2, 41_000, Protocol::TCP));
    let packets = [segment(100, t, false, ACK, 1, 1, 10), segment(100, other, false, ACK, 1, 1, 10)];
    let mut service = t;
    service.destination.address = "10.96.0.1".parse().unwrap();
    let mut hidden = tuple(77, 1, Protocol::TCP);
    hidden.destination.port = 9;
    let mut translated = flow(100, hidden, L7Type::Request, http(None, "GET", "/a"));
    translated.source_translated = Some(other);
    let mut twice = flow(100, t, L7Type::Request, http(None, "GET", "/b"));
    twice.uuid = "one".into();
    let events = vec![
        twice.clone(),
        twice,
        translated,
        flow(100, service, L7Type::Request, http(None, "GET", "/c")),
        flow(100, hidden, L7Type::Request, http(None, "GET", "/d")),
        flow(90_000, t, L7Type::Request, http(None, "GET", "/e")),
    ];
    let mut engine = engine(&packets, events.into_iter().map(|flow| Event::L7(Box::new(flow))).collect());
    engine.finish();
    let coverage = engine.counts().coverage;
    assert_eq!((coverage.by_five_tuple, coverage.by_translated_source, coverage.by_client), (1, 1, 1));
    assert_eq!((coverage.unjoined, coverage.repeated, coverage.seen), (2, 1, 5));
}

#[test]
fn a_late_clock_at_a_windows_edge_finds_its_flow() {
    let t = tcp_tuple();
    let packets = [segment(4_990, t, false, ACK, 1, 1, 10)];
    let events = vec![Event::L7(Box::new(flow(5_010, t, L7Type::Request, http(None, "GET", "/"))))];
    let row = only(engine(&packets, events));
    assert_eq!(cell(&row, Feature::HttpMethod), "GET");
}

#[test]
fn names_that_the_search_list_found_later_did_not_fail() {
    let t = tuple(1, 5_000, Protocol::UDP);
    let packets = [packet(100, t, 30), packet(110, t.reversed(), 90)];
    let response = |time, name: &str, rcode| {
        Event::L7(Box::new(flow(time, t.reversed(), L7Type::Response, dns(name, Some(rcode), 2))))
    };
    let search = vec![
        response(110, "api.example.com.default.svc.cluster.local", 3),
        response(120, "api.example.com.svc.cluster.local", 3),
        response(130, "api.example.com", 0),
    ];
    let row = only(engine(&packets, search.clone()));
    assert_eq!(cell(&row, Feature::DnsResponseCode), "0");
    assert_eq!(cell(&row, Feature::DnsQueryName), "api.example.com");
    assert_eq!(cell(&row, Feature::DnsNumAnswers), "2");
    let failed = only(engine(&packets, search[..2].to_vec()));
    assert_eq!(cell(&failed, Feature::DnsResponseCode), "3");
    let query = vec![Event::L7(Box::new(flow(100, t, L7Type::Request, dns("a.b", None, 0))))];
    let unanswered = only(engine(&packets, query));
    assert_eq!(cell(&unanswered, Feature::DnsResponseCode), "");
    assert_eq!(cell(&unanswered, Feature::DnsQueryName), "a.b");
}

#[test]
fn drops_block_a_flow_where_a_policy_made_them() {
    let t = tcp_tuple();
    let packets = [segment(100, t, false, ACK, 1, 1, 10)];
    let kernel = |kind| {
        Event::Kernel(KernelEvent { time: at(101), arrival: at(101), five_tuple: Some(t), kind, count: 1 })
    };
    let drop = |reason: &str| kernel(KernelEventKind::Drop { reason: reason.into() });
    let row = only(engine(&packets, vec![drop("NETFILTER_DROP")]));
    assert_eq!(
        (cell(&row, Feature::IsBlockedFlow), cell(&row, Feature::DropReason)),
        ("1".into(), "NETFILTER_DROP".into())
    );
    let row = only(engine(&packets, vec![drop("TCP_INVALID_SEQUENCE")]));
    assert_eq!(cell(&row, Feature::IsBlockedFlow), "0");
    let rtt = |micros| kernel(KernelEventKind::SmoothedRtt { rtt: Duration::from_micros(micros) });
    let row = only(engine(&packets, vec![rtt(1_000), rtt(3_000)]));
    assert_eq!(number(&row, Feature::RttVariance), 2.0);
    let mut hubble = flow(100, t, L7Type::None, L7Message::None);
    hubble.verdict = Some(Verdict::Dropped);
    hubble.drop_reason = Some("POLICY_DENIED".into());
    let row = only(engine(&packets, vec![Event::L7(Box::new(hubble))]));
    assert_eq!(
        (cell(&row, Feature::IsBlockedFlow), cell(&row, Feature::Verdict)),
        ("1".into(), "DROPPED".into())
    );
    let oom = KernelEventKind::OomKill { pid: 7, process: "leak".into() };
    assert_eq!(cell(&only(engine(&packets, vec![kernel(oom)])), Feature::OomKills), "1");
}

fn snapshot(seconds: i64) -> SystemSnapshot {
    let n = u64::try_from(seconds).unwrap();
    let disk = |name: &str, rate: u64| Disk {
        name: name.into(),
        reads: n * rate,
        read_bytes: n * rate * 4096,
        read_time: Duration::from_millis(seconds * 20),
        weighted_time: Duration::from_millis(seconds * 1000 * i64::try_from(rate).unwrap()),
        ..Disk::default()
    };
    let memory = Memory { total: 1000 << 20, available: 250 << 20, swap_total: 100, swap_free: 75 };
    let process = |pid, name: &str, percent| Process {
        pid,
        start_time: 1,
        name: name.into(),
        cpu: Duration::from_millis(seconds * percent * 10),
    };
    let limit = CgroupMemory { working_set: 95, limit: Some(100), oom_kills: Some(n / 5) };
    SystemSnapshot {
        time: at(seconds * 1000),
        arrival: at(seconds * 1000),
        node: Node {
            cpu: Some(CpuTimes { total: n * 100, idle: n * 10 }),
            memory: Some(memory),
            disks: vec![disk("sda", 2), disk("sdb", 12)],
            zombies: Some(4),
            processes: vec![
                process(1, "nginx", 50),
                process(2, "init", 1),
                process(3, "java", 150),
                process(4, "cat", 10),
            ],
            ..Node::default()
        },
        pods: vec![Pod {
            interfaces: vec![9],
            network_namespace: 77,
            cpu: Some(CgroupCpu {
                periods: n * 10,
                throttled: n * 2,
                throttled_time: Duration::from_millis(seconds * 3),
            }),
            memory: Some(limit),
            ..Pod::default()
        }],
    }
}

#[test]
fn counters_grow_over_the_window_and_the_first_leaves_them_empty() {
    let t = tcp_tuple();
    let mut packets: Vec<Packet> =
        (0..10).map(|i: u32| segment(i64::from(i) * 1000, t, false, ACK, 1 + i, 1, 1)).collect();
    for packet in &mut packets {
        (packet.interface, packet.direction) = (9, Direction::Ingress);
    }
    let events = (0..=10).skip(1).map(|second| Event::System(Box::new(snapshot(second)))).collect();
    let rows = finish(engine(&packets, events));
    let [first, second] = &rows[..] else { panic!("{} rows", rows.len()) };
    for (feature, one, two) in [
        (Feature::CpuUsagePercent, "", "90"),
        (Feature::CpuContention, "", "1"),
        (Feature::MemoryUsagePercent, "95", "95"),
        (Feature::MemoryCritical, "1", "1"),
        (Feature::MemoryAvailableMb, "250", "250"),
        (Feature::DiskReadBytes, "", "286720"),
        (Feature::DiskReadCount, "", "70"),
        (Feature::DiskReadTimeMs, "", "200"),
        (Feature::DiskAvgLatencyUs, "", "2857.1428571428573"),
        (Feature::HighIoLatency, "", "0"),
        (Feature::DiskQueueDepth, "", "12"),
        (Feature::DiskSaturated, "", "1"),
        (Feature::OomKills, "", "1"),
        (Feature::ProcessCpuTop3, "", "java(150.0),nginx(50.0),cat(10.0)"),
        (Feature::CpuNrPeriods, "0", "50"),
        (Feature::CpuNrThrottled, "0", "10"),
        (Feature::CpuThrottledTimeMs, "0", "15"),
        (Feature::CpuThrottleRatio, "0", "0.2"),
        (Feature::CpuThrottled, "0", "1"),
        (Feature::SwapUsagePercent, "25", "25"),
        (Feature::ZombieProcesses, "4", "4"),
        (Feature::TcpListenDrops, "", ""),
    ] {
        assert_eq!(
            (cell(first, feature), cell(second, feature)),
            (one.into(), two.into()),
            "{}",
            feature.name()
        );
    }
}

#[test]
fn a_row_carries_the_label_of_most_of_its_window() {
    let t = tcp_tuple();
    let packets: Vec<Packet> =
        (0..4).map(|i: u32| segment(i64::from(i) * 5000 + 100, t, false, ACK, 1 + i, 1, 1)).collect();
    let mark = |milliseconds, label| {
        let note = String::new();
        Event::Mark(Mark { time: at(milliseconds), arrival: at(milliseconds), label, note })
    };
    let events = vec![mark(7_000, Some(Label(4))), mark(8_000, None), mark(16_000, Some(Label(0)))];
    let labels: Vec<Option<u16>> =
        finish(engine(&packets, events)).iter().map(|row| row.label.map(|label| label.0)).collect();
    assert_eq!(labels, [None, Some(4), Some(4), Some(0)]);
}
