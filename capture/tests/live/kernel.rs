//! The kernel source: faults between two namespaces, and the events they must give.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use capture::Clock;
use capture::source::Source as _;
use capture::source::kernel::{Kernel, Missing, Options};
use event::{Event, KernelEvent, KernelEventKind};
use nix::sys::socket::{setsockopt, sockopt::Linger};

use super::{pair, transfer};

/// The events of connections to `port`, whoever they were told by.
fn of_port(events: &[KernelEvent], port: u16) -> Vec<&KernelEventKind> {
    let fits = |event: &&KernelEvent| {
        event.five_tuple.is_some_and(|flow| flow.source.port == port || flow.destination.port == port)
    };
    events.iter().filter(fits).map(|event| &event.kind).collect()
}

#[test]
fn faults_give_their_kernel_events() {
    const TEST: &str = "faults_give_their_kernel_events";
    let _flood = crate::flood();
    let Some(pair) = pair(TEST) else { return };
    let mut kernel = match Kernel::open(Clock::start().unwrap(), Options::default()) {
        Ok(kernel) => kernel,
        Err(error) => return eprintln!("skipped: {TEST}: {error}"),
    };
    for missing in kernel.missing() {
        eprintln!("skipped: {TEST} ({}): {}", missing.tells, missing.reason);
    }
    // Before Linux 6.10 nothing tells of a reset that no socket sends; one that a socket sends is told of anyway.
    let is_older = |missing: &Missing| missing.reason.contains("since Linux");
    let tells_all_resets = !kernel.missing().iter().any(is_older);
    let is_there =
        |name: &str| kernel.missing().iter().all(|missing| missing.tracepoint != name || is_older(missing));
    let there = [
        "tcp_retransmit_skb",
        "tcp_send_reset",
        "tcp_receive_reset",
        "kfree_skb",
        "inet_sock_set_state",
        "tcp_probe",
    ]
    .map(is_there);

    // A refused connection: a reset from the right to the left.
    let refused = pair.right_v4(7101);
    pair.left.enter(|| TcpStream::connect(refused)).unwrap_err();
    // A datagram that nobody takes.
    pair.left.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"?", pair.right_v4(7102)).unwrap();
    });
    // A transfer, over IPv6.
    let to = pair.right_v6(7103);
    let listener = pair.right.enter(|| TcpListener::bind(to).unwrap());
    transfer(&pair, &listener, to, 500_000);
    // A connection that its client aborts: closed with nothing waited for, it sends a reset.
    let aborted = pair.right_v4(7105);
    let listener = pair.right.enter(|| TcpListener::bind(aborted).unwrap());
    pair.left.enter(|| {
        let stream = TcpStream::connect(aborted).unwrap();
        setsockopt(&stream, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    });
    drop(listener);
    // A handshake that nobody answers: its SYN is sent again after a second.
    let lost: SocketAddr = "198.18.0.77:7104".parse().unwrap();
    pair.left.ip("neighbour add 198.18.0.77 lladdr 02:00:00:00:00:77 dev left0").unwrap();
    pair.left.enter(|| TcpStream::connect_timeout(&lost, Duration::from_millis(1600))).unwrap_err();

    let mut events = Vec::new();
    let mut take = |event| match event {
        Event::Kernel(event) => events.push(event),
        other => panic!("{other:?}"),
    };
    kernel.poll(&mut take).unwrap();
    kernel.stop(&mut take).unwrap();
    let counters = kernel.counters().unwrap();
    assert_eq!(counters.seen, counters.events + counters.lost + counters.filtered + counters.unreadable);
    let told: u64 = events.iter().map(|event| u64::from(event.count)).sum();
    assert_eq!((counters.events, counters.lost, counters.unreadable), (told, 0, 0));
    assert!(events.iter().all(|event| event.time <= event.arrival));

    let [retransmit, send_reset, receive_reset, kfree, state, probe] = there;
    let refused = of_port(&events, 7101);
    let has = |events: &[&KernelEventKind], fits: &dyn Fn(&KernelEventKind) -> bool| {
        events.iter().any(|kind| fits(kind))
    };
    let aborted = of_port(&events, 7105);
    let is_reset = |kind: &KernelEventKind| matches!(kind, KernelEventKind::ResetSent { .. });
    assert!(!send_reset || has(&aborted, &is_reset), "{aborted:?}");
    assert!(!(send_reset && tells_all_resets) || has(&refused, &is_reset), "{refused:?}");
    assert!(!receive_reset || has(&refused, &|kind| *kind == KernelEventKind::ResetReceived), "{refused:?}");
    // TCP_SYN_SENT to TCP_CLOSE.
    assert!(
        !state || has(&refused, &|kind| *kind == KernelEventKind::SocketState { old: 2, new: 7 }),
        "{refused:?}"
    );
    let dropped = |name: &str| {
        let fits =
            |event: &KernelEvent| matches!(&event.kind, KernelEventKind::Drop { reason } if reason == name);
        events.iter().any(fits)
    };
    assert!(!kfree || dropped("NO_SOCKET"));
    assert!(!dropped("NOT_SPECIFIED") && !dropped("SOCKET_CLOSE"));
    let transferred = of_port(&events, 7103);
    assert!(
        !probe
            || has(
                &transferred,
                &|kind| matches!(kind, KernelEventKind::SmoothedRtt { rtt } if rtt.as_nanos() > 0)
            ),
        "{transferred:?}"
    );
    let again = of_port(&events, 7104);
    assert!(
        !retransmit || has(&again, &|kind| *kind == KernelEventKind::Retransmit { state: 2 }),
        "{again:?}"
    );
}

/// Whoever else asks perf for one of these events has it while it is recorded.
#[test]
fn the_events_are_kept_from_nobody() {
    const TEST: &str = "the_events_are_kept_from_nobody";
    let Ok(kernel) = Kernel::open(Clock::start().unwrap(), Options::default()) else {
        return eprintln!("skipped: {TEST}: the kernel's events cannot be had");
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{}", listener.local_addr().unwrap().port());
    let counting = ["stat", "--field-separator", ",", "--event", "sock:inet_sock_set_state", "--"];
    let Ok(done) = Command::new("perf").args(counting).args(["bash", "-c", &connect]).output() else {
        return eprintln!("skipped: {TEST}: there is no perf here");
    };
    let said = String::from_utf8_lossy(&done.stderr);
    let count = said.lines().find(|line| line.contains("inet_sock_set_state"));
    let count = count.and_then(|line| line.split(',').next()?.parse::<u64>().ok());
    // At least from closed to connecting, and from there to connected.
    assert!(done.status.success() && count.is_some_and(|count| count >= 2), "{said}");
    drop(kernel);
}
