//! Drops with their five-tuple and reason, full listen queues, and victims of the OOM killer.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use capture::Clock;
use capture::source::Source as _;
use capture::source::kernel::{Kernel, Options, knows_dropped_packets};
use event::{Event, KernelEvent, KernelEventKind, Protocol};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, socket};

use super::namespace::Namespace;
use super::{pair, transfer};

/// What the kernel tells while `work` runs, or `None` after saying that the test is skipped.
fn told(test: &str, tracepoint: &str, work: impl FnOnce()) -> Option<Vec<KernelEvent>> {
    let mut kernel = match Kernel::open(Clock::start().unwrap(), Options::default()) {
        Ok(kernel) => kernel,
        Err(error) => {
            eprintln!("skipped: {test}: {error}");
            return None;
        }
    };
    if let Some(missing) = kernel.missing().iter().find(|missing| missing.tracepoint == tracepoint) {
        eprintln!("skipped: {test}: {}", missing.reason);
        return None;
    }
    work();
    let mut events = Vec::new();
    kernel
        .stop(&mut |event| match event {
            Event::Kernel(event) => events.push(event),
            other => panic!("{other:?}"),
        })
        .unwrap();
    Some(events)
}

/// The reasons of drops of packets to this address.
fn reasons(events: &[KernelEvent], to: SocketAddr, protocol: Protocol) -> Vec<&str> {
    let fits = |event: &&KernelEvent| {
        event.five_tuple.is_some_and(|tuple| {
            let end = tuple.destination;
            (end.address, end.port, tuple.protocol) == (to.ip(), to.port(), protocol)
        })
    };
    events
        .iter()
        .filter(fits)
        .filter_map(|event| match &event.kind {
            KernelEventKind::Drop { reason } => Some(reason.as_str()),
            _ => None,
        })
        .collect()
}

fn send(from: &Namespace, to: SocketAddr) {
    from.enter(|| {
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        UdpSocket::bind(any).unwrap().send_to(b"?", to).unwrap();
    });
}

#[test]
fn drops_tell_whose_packet_it_was() {
    const TEST: &str = "drops_tell_whose_packet_it_was";
    let Some(pair) = pair(TEST) else { return };
    if !knows_dropped_packets() {
        return eprintln!("skipped: {TEST}: this kernel has no BTF");
    }
    // Neighbours first: what waits for them is dropped for other reasons.
    for to in [pair.right_v4(7407), pair.right_v6(7407)] {
        let sink = pair.right.enter(|| UdpSocket::bind(to).unwrap());
        sink.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let started = Instant::now();
        while sink.recv(&mut [0; 16]).is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "{to} cannot be reached");
            send(&pair.left, to);
        }
    }
    let closed = [pair.right_v4(7401), pair.right_v6(7402)];
    let filtered = [pair.right_v4(7403), pair.right_v6(7404)];
    let rules = "table inet faultline {
        chain in { type filter hook input priority 0; udp dport { 7403, 7404 } drop; }
    }";
    let nft = |rules: &str| {
        let mut command = Command::new("nft");
        command.arg("-f").arg("-").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut nft = pair.right.enter(|| command.spawn()).ok()?;
        nft.stdin.take()?.write_all(rules.as_bytes()).ok()?;
        nft.wait_with_output().ok().filter(|output| output.status.success())
    };
    let has_filter = nft(rules).is_some();
    let Some(events) = told(TEST, "kfree_skb", || {
        closed.iter().chain(&filtered).for_each(|to| send(&pair.left, *to));
    }) else {
        return;
    };
    for to in closed {
        let found = reasons(&events, to, Protocol::UDP);
        assert!(found.contains(&"NO_SOCKET"), "{to}: {found:?}");
    }
    if !has_filter {
        return eprintln!("skipped: {TEST} (packet filter): nft cannot make one here");
    }
    for to in filtered {
        let found = reasons(&events, to, Protocol::UDP);
        assert!(found.contains(&"NETFILTER_DROP"), "{to}: {found:?}");
    }
}

#[test]
fn a_socket_of_ipv6_that_talks_ipv4_has_the_addresses_of_its_packets() {
    const TEST: &str = "a_socket_of_ipv6_that_talks_ipv4_has_the_addresses_of_its_packets";
    let Some(pair) = pair(TEST) else { return };
    let listener =
        pair.right.enter(|| std::net::TcpListener::bind(SocketAddr::from(([0_u16; 8], 7405))).unwrap());
    let Some(events) = told(TEST, "inet_sock_set_state", || {
        transfer(&pair, &listener, pair.right_v4(7405), 1000);
    }) else {
        return;
    };
    let of_port =
        events.iter().filter_map(|event| event.five_tuple).filter(|tuple| tuple.source.port == 7405);
    let addresses: Vec<_> = of_port.map(|tuple| tuple.source.address).collect();
    // Its own address is not known before there is a connection.
    assert!(addresses.contains(&pair.right_v4(7405).ip()), "{addresses:?}");
}

#[test]
fn a_full_listen_queue_is_told_with_who_found_it_full() {
    const TEST: &str = "a_full_listen_queue_is_told_with_who_found_it_full";
    let Some(pair) = pair(TEST) else { return };
    let to = pair.right_v4(7406);
    // A queue for one connection, which nobody accepts.
    let listener = pair.right.enter(|| {
        let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(listener.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        listener
    });
    let overflows = || {
        let text = pair.right.enter(|| std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap());
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("TcpExt:")).collect();
        let place = lines[0].split(' ').position(|name| name == "ListenOverflows").unwrap();
        lines[1].split(' ').nth(place).unwrap().parse::<u64>().unwrap()
    };
    let before = overflows();
    let events = told(TEST, "kfree_skb", || {
        let _connected: Vec<_> = pair
            .left
            .enter(|| (0..3).map(|_| TcpStream::connect_timeout(&to, Duration::from_millis(400))).collect());
    });
    let (Some(events), counted) = (events, overflows() - before) else { return };
    drop(listener);
    assert!(counted > 0, "the queue was full");
    let full: Vec<_> = events.iter().filter(|event| event.kind == KernelEventKind::ListenOverflow).collect();
    if full.is_empty() {
        return eprintln!("skipped: {TEST}: this kernel drops without the reason TCP_LISTEN_OVERFLOW");
    }
    if knows_dropped_packets() {
        let ends = full.iter().filter_map(|event| event.five_tuple).map(|tuple| tuple.destination);
        assert!(ends.clone().all(|end| (end.address, end.port) == (to.ip(), to.port())));
        assert!(ends.count() > 0);
        assert_eq!(full.iter().map(|event| u64::from(event.count)).sum::<u64>(), counted);
    }
}

#[test]
fn a_storm_of_drops_is_counted_and_told_in_few_events() {
    const TEST: &str = "a_storm_of_drops_is_counted_and_told_in_few_events";
    const PACKETS: u32 = 3000;
    let Some(pair) = pair(TEST) else { return };
    if !knows_dropped_packets() {
        return eprintln!("skipped: {TEST}: this kernel has no BTF");
    }
    let closed = pair.right_v4(7408);
    let mut slots = 0;
    let Some(events) = told(TEST, "kfree_skb", || {
        let started = Instant::now();
        pair.left.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            // Where the queue towards a neighbour is full the packet was not sent.
            let mut sent = 0;
            while sent < PACKETS {
                sent += u32::from(socket.send_to(b"?", closed).is_ok());
            }
        });
        slots = 2 + started.elapsed().as_millis() / 100;
    }) else {
        return;
    };
    let storm: Vec<_> = events
        .iter()
        .filter(|event| event.five_tuple.is_some_and(|tuple| tuple.destination.port == closed.port()))
        .filter(|event| matches!(&event.kind, KernelEventKind::Drop { reason } if reason == "NO_SOCKET"))
        .collect();
    // The first packets wait for the neighbour's address, in a queue that takes some of them.
    let counted: u32 = storm.iter().map(|event| event.count).sum();
    assert!((PACKETS / 2..=PACKETS).contains(&counted), "{counted} of {PACKETS}");
    assert!(storm.len() as u128 <= 2 * slots, "{} events in {slots} slots", storm.len());
}

/// A control group that goes with the value, with no more than 32 MiB of memory.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Self> {
        let name = format!("faultline-test-{}", std::process::id());
        let (parent, limits) = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"]
            .map(PathBuf::from)
            .into_iter()
            .zip([
                ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
                ["memory.max", "memory.swap.max"],
            ])
            .find(|(parent, _)| parent.join("cgroup.procs").exists())?;
        let group = Self(parent.join(name));
        std::fs::create_dir(&group.0).ok()?;
        std::fs::write(group.0.join(limits[0]), "33554432").ok()?;
        // Where there is no swap there is no limit of it.
        let _ = std::fs::write(
            group.0.join(limits[1]),
            if limits[1] == "memory.swap.max" { "0" } else { "33554432" },
        );
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_victim_of_the_oom_killer_is_named() {
    const TEST: &str = "a_victim_of_the_oom_killer_is_named";
    if let Some(reason) = super::namespace::missing() {
        return eprintln!("skipped: {TEST}: {reason}");
    }
    let Some(group) = Group::new() else {
        return eprintln!("skipped: {TEST}: no control group with a limit of memory can be made");
    };
    let mut victim = 0;
    let Some(events) = told(TEST, "mark_victim", || {
        // A line without an end, kept whole: 32 MiB are full in a moment.
        let script = format!("echo 0 > {}/cgroup.procs && exec tail /dev/zero", group.0.display());
        let mut child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        victim = child.id();
        let started = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if started.elapsed() > Duration::from_secs(20) {
                let _ = child.kill();
            }
            thread::sleep(Duration::from_millis(20));
        }
    }) else {
        return;
    };
    let killed: Vec<(u32, &str)> = events
        .iter()
        .filter_map(|event| match &event.kind {
            KernelEventKind::OomKill { pid, process } => Some((*pid, process.as_str())),
            _ => None,
        })
        .collect();
    assert!(killed.contains(&(victim, "tail")), "{killed:?}, not {victim}");
}
