//! Arbitrary events, in part as traffic has them (few flows, small steps) and in part without any rule.

use std::net::IpAddr;

use event::{
    CgroupCpu, CgroupMemory, CpuTimes, Direction, Disk, DnsMessage, Duration, Endpoint, Event, FiveTuple,
    Fragment, HttpMessage, KafkaMessage, KernelEvent, KernelEventKind, L7Flow, L7Message, L7Origin, L7Type,
    Label, ListenQueue, Loss, LossCause, Mark, Memory, NameOrigin, Naming, Node, Packet, Pod, Pressure,
    Process, Protocol, Source, SystemSnapshot, Tap, Tcp, TcpFlags, Timestamp, TlsMessage, Verdict, Workload,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use recording::{ClockPair, Header, Interface};

pub fn header() -> impl Strategy<Value = Header> {
    let interface = (".{0,12}", option::of(any::<u32>()), option::of(any::<u16>()))
        .prop_map(|(name, index, link_type)| Interface { name, index, link_type });
    let clock = (any::<i64>(), any::<i64>()).prop_map(|(monotonic, wall)| ClockPair {
        monotonic: Duration::from_nanos(monotonic),
        wall: Timestamp::from_nanos(wall),
    });
    (
        [".{0,8}", ".{0,8}", ".{0,8}", ".{0,8}", ".{0,8}"],
        (option::of(any::<u16>()), option::of(any::<u32>()), any::<bool>()),
        vec(interface, 0..4),
        vec(clock, 0..3),
        btree_map(".{0,6}", ".{0,6}", 0..4),
    )
        .prop_map(
            |(
                [node, boot_id, kernel, tool, command],
                (label, sample, anonymized),
                interfaces,
                clocks,
                metadata,
            )| {
                Header {
                    node,
                    boot_id,
                    kernel,
                    tool,
                    command,
                    label: label.map(Label),
                    clocks,
                    interfaces,
                    sample,
                    anonymized,
                    metadata,
                    ..Header::default()
                }
            },
        )
}

pub fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let one = prop_oneof![
        40 => usual_packet().prop_map(Event::Packet),
        4 => any_packet().prop_map(Event::Packet),
        3 => kernel().prop_map(Event::Kernel),
        2 => l7().prop_map(|flow| Event::L7(Box::new(flow))),
        1 => system().prop_map(|snapshot| Event::System(Box::new(snapshot))),
        1 => mark().prop_map(Event::Mark),
        1 => loss().prop_map(Event::Loss),
        1 => naming().prop_map(|naming| Event::Naming(Box::new(naming))),
    ];
    vec(one, 0..most)
}

fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        20 => (0..3_000_000_000i64).prop_map(|nanos| Timestamp::from_nanos(1_700_000_000_000_000_000 + nanos)),
        1 => any::<i64>().prop_map(Timestamp::from_nanos),
    ]
}

fn times() -> impl Strategy<Value = (Timestamp, Timestamp)> {
    (time(), option::weighted(0.5, time())).prop_map(|(time, arrival)| (time, arrival.unwrap_or(time)))
}

fn span() -> impl Strategy<Value = Duration> {
    any::<i64>().prop_map(Duration::from_nanos)
}

fn five_tuple() -> impl Strategy<Value = FiveTuple> {
    let end = (any::<IpAddr>(), any::<u16>()).prop_map(|(address, port)| Endpoint::new(address, port));
    (end.clone(), end, any::<u8>()).prop_map(|(a, b, protocol)| FiveTuple::new(a, b, Protocol(protocol)))
}

/// One of a few flows, in either direction.
fn usual_tuple() -> impl Strategy<Value = FiveTuple> {
    (0..4u16, any::<bool>(), any::<bool>()).prop_map(|(flow, reversed, wide)| {
        let address = |text: &str, wide_text: &str| if wide { wide_text } else { text }.parse().unwrap();
        let client = Endpoint::new(address("198.18.0.2", "2001:db8::2"), 40_000 + flow);
        let server = Endpoint::new(address("198.18.1.2", "2001:db8::1"), 80);
        let tuple = FiveTuple::new(client, server, Protocol::TCP);
        if reversed { tuple.reversed() } else { tuple }
    })
}

fn tap() -> impl Strategy<Value = Tap> {
    prop_oneof![Just(Tap::Unknown), Just(Tap::Primary), Just(Tap::Secondary)]
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Unknown), Just(Direction::Ingress), Just(Direction::Egress)]
}

fn tcp() -> impl Strategy<Value = Tcp> {
    (
        any::<u32>(),
        any::<u32>(),
        any::<u16>(),
        prop_oneof![Just(0x02), Just(0x10), Just(0x18), any::<u16>()],
        option::of(any::<u8>()),
        option::of(any::<(u32, u32)>()),
    )
        .prop_map(|(sequence, acknowledgement, window, flags, window_scale, timestamps)| Tcp {
            sequence,
            acknowledgement,
            window,
            flags: TcpFlags(flags),
            window_scale,
            timestamps,
        })
}

fn usual_packet() -> impl Strategy<Value = Packet> {
    (times(), 0..2u32, usual_tuple(), 0..1449u32, option::weighted(0.8, tcp())).prop_map(
        |((time, arrival), interface, five_tuple, payload_length, tcp)| Packet {
            time,
            arrival,
            interface,
            direction: Direction::Ingress,
            tap: Tap::Unknown,
            five_tuple,
            l3_length: payload_length + 52,
            payload_length,
            ttl: 64,
            fragment: Fragment::Whole,
            gso_segments: 1,
            gso_size: 0,
            tcp,
        },
    )
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let fragment = prop_oneof![Just(Fragment::Whole), Just(Fragment::First), Just(Fragment::Later)];
    (
        (times(), any::<u32>(), direction(), tap(), five_tuple()),
        (any::<u32>(), any::<u32>(), any::<u8>(), fragment),
        (any::<u16>(), any::<u16>(), option::of(tcp())),
    )
        .prop_map(
            |(
                ((time, arrival), interface, direction, tap, five_tuple),
                (l3_length, payload_length, ttl, fragment),
                (gso_segments, gso_size, tcp),
            )| Packet {
                time,
                arrival,
                interface,
                direction,
                tap,
                five_tuple,
                l3_length,
                payload_length,
                ttl,
                fragment,
                gso_segments,
                gso_size,
                tcp,
            },
        )
}

fn kernel() -> impl Strategy<Value = KernelEvent> {
    let kind = prop_oneof![
        any::<u8>().prop_map(|state| KernelEventKind::Retransmit { state }),
        option::of(".{0,9}").prop_map(|reason| KernelEventKind::ResetSent { reason }),
        Just(KernelEventKind::ResetReceived),
        ".{0,9}".prop_map(|reason| KernelEventKind::Drop { reason }),
        any::<(u8, u8)>().prop_map(|(old, new)| KernelEventKind::SocketState { old, new }),
        Just(KernelEventKind::ListenOverflow),
        (any::<u32>(), ".{0,9}").prop_map(|(pid, process)| KernelEventKind::OomKill { pid, process }),
        span().prop_map(|rtt| KernelEventKind::SmoothedRtt { rtt }),
    ];
    let tuple = option::of(prop_oneof![usual_tuple(), five_tuple()]);
    let count = prop_oneof![Just(1), any::<u32>()];
    (times(), tuple, kind, count).prop_map(|((time, arrival), five_tuple, kind, count)| KernelEvent {
        time,
        arrival,
        five_tuple,
        kind,
        count,
    })
}

fn l7_message() -> impl Strategy<Value = L7Message> {
    prop_oneof![
        Just(L7Message::None),
        (".{0,9}", vec(".{0,4}", 0..3), option::of(any::<u16>()), option::of(any::<u16>())).prop_map(
            |(query, query_types, rcode, answers)| L7Message::Dns(DnsMessage {
                query,
                query_types,
                rcode,
                answers
            })
        ),
        (option::of(any::<u16>()), ".{0,5}", ".{0,9}", ".{0,8}", any::<bool>(), option::of(any::<u16>()))
            .prop_map(|(status, method, path, protocol, is_grpc, grpc_status)| L7Message::Http(
                HttpMessage { status, method, path, protocol, is_grpc, grpc_status }
            )),
        (any::<i16>(), any::<i16>(), any::<i32>(), option::of(any::<i16>()), ".{0,9}").prop_map(
            |(api_key, api_version, correlation_id, error_code, topic)| L7Message::Kafka(KafkaMessage {
                api_key,
                api_version,
                correlation_id,
                error_code,
                topic
            })
        ),
        (".{0,9}", any::<u16>())
            .prop_map(|(server_name, version)| L7Message::Tls(TlsMessage { server_name, version })),
    ]
}

fn workload() -> impl Strategy<Value = Workload> {
    use NameOrigin::{File, Hubble, HubbleLabel, HubbleWorkload, Kubernetes};
    let origin =
        || option::of(proptest::sample::select(vec![Hubble, HubbleLabel, HubbleWorkload, Kubernetes, File]));
    (".{0,6}", ".{0,6}", ".{0,6}", origin(), origin()).prop_map(
        |(namespace, pod, service, pod_origin, service_origin)| Workload {
            namespace,
            pod,
            service,
            pod_origin,
            service_origin,
        },
    )
}

fn naming() -> impl Strategy<Value = Naming> {
    (times(), any::<IpAddr>(), workload()).prop_map(|((time, arrival), address, workload)| Naming {
        time,
        arrival,
        address,
        workload,
    })
}

fn l7() -> impl Strategy<Value = L7Flow> {
    use Verdict::{Audit, Dropped, Error, Forwarded, Redirected, Traced, Translated};
    let verdict =
        proptest::sample::select(vec![Forwarded, Translated, Traced, Redirected, Audit, Error, Dropped]);
    let kind =
        proptest::sample::select(vec![L7Type::None, L7Type::Request, L7Type::Response, L7Type::Sample]);
    (
        (times(), any::<bool>(), kind, five_tuple(), option::of(five_tuple()), option::of(any::<bool>())),
        (option::of(verdict), option::of(".{0,6}"), option::of(span()), workload(), workload()),
        (".{0,6}", ".{0,6}", l7_message()),
    )
        .prop_map(
            |(
                ((time, arrival), hubble, kind, five_tuple, source_translated, is_reply),
                (verdict, drop_reason, latency, source, destination),
                (node, uuid, message),
            )| L7Flow {
                time,
                arrival,
                origin: if hubble { L7Origin::Hubble } else { L7Origin::Wire },
                kind,
                five_tuple,
                source_translated,
                is_reply,
                verdict,
                drop_reason,
                latency,
                source,
                destination,
                node,
                uuid,
                message,
            },
        )
}

fn pressure() -> impl Strategy<Value = Pressure> {
    (option::of(span()), option::of(span()), option::of(span())).prop_map(|(cpu, memory, io)| Pressure {
        cpu,
        memory,
        io,
    })
}

fn listen_queue() -> impl Strategy<Value = ListenQueue> {
    any::<(u64, u64)>().prop_map(|(overflows, drops)| ListenQueue { overflows, drops })
}

fn pod() -> impl Strategy<Value = Pod> {
    let cpu = (any::<u64>(), any::<u64>(), span())
        .prop_map(|(periods, throttled, throttled_time)| CgroupCpu { periods, throttled, throttled_time });
    let memory = (any::<u64>(), option::of(any::<u64>()), option::of(any::<u64>()))
        .prop_map(|(working_set, limit, oom_kills)| CgroupMemory { working_set, limit, oom_kills });
    (
        vec(any::<u32>(), 0..3),
        any::<u64>(),
        ".{0,9}",
        vec(".{0,9}", 0..3),
        option::of(cpu),
        option::of(memory),
        option::of(listen_queue()),
        pressure(),
    )
        .prop_map(
            |(interfaces, network_namespace, uid, container_ids, cpu, memory, listen_queue, pressure)| Pod {
                interfaces,
                network_namespace,
                uid,
                container_ids,
                cpu,
                memory,
                listen_queue,
                pressure,
            },
        )
}

fn node() -> impl Strategy<Value = Node> {
    let memory = any::<(u64, u64, u64, u64)>().prop_map(|(total, available, swap_total, swap_free)| Memory {
        total,
        available,
        swap_total,
        swap_free,
    });
    let disk = (".{0,5}", any::<[u64; 5]>(), [span(), span(), span()]).prop_map(
        |(
            name,
            [reads, read_bytes, writes, write_bytes, in_flight],
            [read_time, write_time, weighted_time],
        )| Disk {
            name,
            reads,
            read_bytes,
            read_time,
            writes,
            write_bytes,
            write_time,
            in_flight,
            weighted_time,
        },
    );
    let process = (any::<u32>(), any::<u64>(), ".{0,9}", span())
        .prop_map(|(pid, start_time, name, cpu)| Process { pid, start_time, name, cpu });
    (
        option::of(any::<(u64, u64)>()),
        option::of(memory),
        vec(disk, 0..3),
        option::of(listen_queue()),
        pressure(),
        option::of(any::<u64>()),
        option::of(any::<u64>()),
        vec(process, 0..4),
    )
        .prop_map(|(cpu, memory, disks, listen_queue, pressure, oom_kills, zombies, processes)| Node {
            cpu: cpu.map(|(total, idle)| CpuTimes { total, idle }),
            memory,
            disks,
            listen_queue,
            pressure,
            oom_kills,
            zombies,
            processes,
        })
}

fn system() -> impl Strategy<Value = SystemSnapshot> {
    (times(), node(), vec(pod(), 0..3)).prop_map(|((time, arrival), node, pods)| SystemSnapshot {
        time,
        arrival,
        node,
        pods,
    })
}

fn mark() -> impl Strategy<Value = Mark> {
    (times(), option::of(any::<u16>()), ".{0,9}").prop_map(|((time, arrival), label, note)| Mark {
        time,
        arrival,
        label: label.map(Label),
        note,
    })
}

fn loss() -> impl Strategy<Value = Loss> {
    let source = proptest::sample::select(vec![
        Source::Marks,
        Source::System,
        Source::Kernel,
        Source::L7,
        Source::Packets,
        Source::Loss,
    ]);
    let cause = proptest::sample::select(vec![
        LossCause::RingFull,
        LossCause::QueueFull,
        LossCause::Unreadable,
        LossCause::InterfaceGone,
        LossCause::Upstream,
        LossCause::UpstreamKernel,
        LossCause::UpstreamQueue,
        LossCause::UpstreamRing,
        LossCause::Disconnected,
    ]);
    (times(), time(), source, cause, option::of(any::<u32>()), any::<u64>()).prop_map(
        |((last, arrival), first, source, cause, interface, count)| Loss {
            first,
            last,
            arrival,
            source,
            cause,
            interface,
            count,
        },
    )
}
