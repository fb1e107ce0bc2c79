//! The TC source on a real kernel: packets between two network namespaces of its own, counted one by one.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod anonymize;
mod drops;
mod kernel;
mod namespace;
mod operator;
mod payload;
mod recorder;
mod rights;
mod sample;
mod taps;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use capture::source::tc::{Counters, Options, Tc};
use capture::source::{Error, Source as _};
use capture::{Clock, Pace, Selection};
use event::{Direction, Event, Fragment, LossCause, Packet, Protocol, TcpFlags};
use namespace::{Namespace, Pair};

/// Held by tests that flood a namespace with datagrams that nobody takes, and by the one that no such drop may fill the
/// ring of: kernel events are told of all namespaces.
static FLOOD: Mutex<()> = Mutex::new(());

fn flood() -> MutexGuard<'static, ()> {
    FLOOD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a source told.
#[derive(Default)]
struct Told {
    packets: Vec<Packet>,
    losses: Vec<event::Loss>,
}

impl Told {
    fn take(&mut self, event: Event) {
        match event {
            Event::Packet(packet) => self.packets.push(packet),
            Event::Loss(loss) => self.losses.push(loss),
            other => panic!("{other:?}"),
        }
    }

    /// Packets to a port, in the order in which they were told.
    fn to(&self, protocol: Protocol, port: u16) -> Vec<Packet> {
        let fits = |packet: &&Packet| {
            packet.five_tuple.protocol == protocol && packet.five_tuple.destination.port == port
        };
        self.packets.iter().filter(fits).copied().collect()
    }

    fn lost(&self, cause: LossCause) -> u64 {
        self.losses.iter().filter(|loss| loss.cause == cause).map(|loss| loss.count).sum()
    }
}

/// Observes `interfaces` of a namespace while `traffic` runs; what it told, and the final counters.
fn observe(
    namespace: &Namespace,
    interfaces: &[&str],
    options: Options,
    traffic: impl FnOnce(&mut Tc, &mut Told),
) -> Result<(Told, Counters), Error> {
    let selection = Selection::parse(interfaces).unwrap();
    let mut source = namespace.enter(|| Tc::open(&selection, Clock::start().unwrap(), options))?;
    let mut told = Told::default();
    traffic(&mut source, &mut told);
    source.poll(&mut |event| told.take(event))?;
    source.stop(&mut |event| told.take(event))?;
    let counters = source.counters()?;
    assert_eq!(
        counters.seen,
        counters.packets + counters.lost + counters.unreadable + counters.not_ip + counters.not_sampled,
        "{counters:?}"
    );
    assert_eq!(counters.packets, told.packets.len() as u64);
    assert_eq!(counters.lost, told.lost(LossCause::RingFull));
    Ok((told, counters))
}

/// The pair of namespaces, or `None` after saying that the test is skipped.
fn pair(test: &str) -> Option<Pair> {
    let missing = namespace::missing();
    if let Some(reason) = missing {
        eprintln!("skipped: {test}: {reason}");
        return None;
    }
    Some(Pair::new())
}

/// Sends `count` datagrams of `size` bytes from one namespace to the other.
fn send_udp(pair: &Pair, to: SocketAddr, count: usize, size: usize) {
    pair.left.enter(|| {
        let local: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((local, 0)).unwrap();
        socket.connect(to).unwrap();
        let bytes = vec![0x5a; size];
        for _ in 0..count {
            // A closed port answers by ICMP, which the next send reports once.
            while socket.send(&bytes).is_err() {}
        }
    });
}

/// Waits until a first datagram has arrived: until neighbours are resolved, the kernel keeps what is sent back,
/// and it would come after the test has looked.
fn reach(pair: &Pair, sink: &UdpSocket, to: SocketAddr) {
    send_udp(pair, to, 1, 1);
    sink.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let received = loop {
        match sink.recv(&mut [0; 16]) {
            // A child of another test ended.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            received => break received,
        }
    };
    received.expect("the first datagram arrives");
}

#[test]
fn every_datagram_is_recorded_once_for_each_direction() {
    const TEST: &str = "every_datagram_is_recorded_once_for_each_direction";
    const SENT: usize = 700;
    let Some(pair) = pair(TEST) else { return };
    for to in [pair.right_v4(7001), pair.right_v6(7002)] {
        // A socket that takes them, so that no ICMP comes back.
        let sink = pair.right.enter(|| UdpSocket::bind(to).unwrap());
        reach(&pair, &sink, to);
        let (told, counters) = observe(&pair.right, &["right0"], Options::default(), |_, _| {
            send_udp(&pair, to, SENT, 300);
        })
        .unwrap();
        let packets = told.to(Protocol::UDP, to.port());
        assert_eq!((packets.len(), counters.lost), (SENT, 0));
        let header = if to.is_ipv4() { 28 } else { 48 };
        for packet in packets {
            assert_eq!(packet.direction, Direction::Ingress);
            assert_eq!(packet.five_tuple.destination.address, to.ip());
            assert_eq!((packet.payload_length, packet.l3_length), (300, 300 + header));
            assert_eq!((packet.ttl, packet.gso_segments, packet.interface), (64, 1, 0));
            assert!(packet.time <= packet.arrival);
        }
        // The sender's side of the same packets.
        let (told, _) = observe(&pair.left, &["left*"], Options::default(), |_, _| {
            send_udp(&pair, to, SENT, 20);
        })
        .unwrap();
        let packets = told.to(Protocol::UDP, to.port());
        assert_eq!(packets.len(), SENT);
        assert!(packets.iter().all(|packet| packet.direction == Direction::Egress));
        drop(sink);
    }
}

#[test]
fn a_tcp_transfer_is_recorded_byte_for_byte() {
    const TEST: &str = "a_tcp_transfer_is_recorded_byte_for_byte";
    const SENT: usize = 3_000_000;
    let Some(pair) = pair(TEST) else { return };
    // Super-packets as they leave, and segments as they arrive (TCP cuts behind the egress hook, whatever the
    // device can do); over both versions of IP.
    for (port, offloads) in [(7003, "on"), (7004, "off")] {
        pair.offloads(offloads);
        let (side, interface) =
            if offloads == "on" { (&pair.left, "left0") } else { (&pair.right, "right0") };
        for to in [pair.right_v4(port), pair.right_v6(port)] {
            let listener = pair.right.enter(|| TcpListener::bind(to).unwrap());
            let (told, counters) = observe(side, &[interface], Options::default(), |_, _| {
                transfer(&pair, &listener, to, SENT);
            })
            .unwrap();
            assert_eq!(counters.lost, 0);
            check_transfer(&told.to(Protocol::TCP, port), SENT, offloads == "on");
        }
    }
}

/// Sends `size` bytes over one connection, from the left to the listener on the right.
fn transfer(pair: &Pair, listener: &TcpListener, to: SocketAddr, size: usize) {
    let receiver = listener.try_clone().unwrap();
    let receiver = thread::spawn(move || {
        let (mut stream, _) = receiver.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap()
    });
    pair.left.enter(|| TcpStream::connect(to).unwrap().write_all(&vec![0x5a; size]).unwrap());
    assert_eq!(receiver.join().unwrap(), size);
}

fn check_transfer(packets: &[Packet], size: usize, super_packets: bool) {
    let syn = packets.iter().find_map(|packet| packet.tcp.filter(|tcp| tcp.flags.contains(TcpFlags::SYN)));
    let syn = syn.expect("the handshake was recorded");
    assert!(syn.window_scale.is_some() && syn.timestamps.is_some(), "{syn:?}");
    let mut covered = BTreeSet::new();
    let mut segments = 0;
    for packet in packets.iter().filter(|packet| packet.payload_length > 0) {
        let tcp = packet.tcp.unwrap();
        let start = tcp.sequence.wrapping_sub(syn.sequence).wrapping_sub(1);
        // The first byte of each packet; a retransmission covers nothing new.
        covered.extend((start..start + packet.payload_length).step_by(1));
        assert!(tcp.timestamps.is_some());
        let count = u32::from(packet.gso_segments);
        segments += count;
        if count > 1 {
            let each = u32::from(packet.gso_size);
            assert!(packet.payload_length <= count * each && packet.payload_length > (count - 1) * each);
        } else {
            assert!(packet.l3_length <= 1500, "{packet:?}");
        }
    }
    assert_eq!(covered.len(), size);
    let records = packets.len();
    if super_packets {
        assert!(segments as usize > 2 * records, "{segments} segments in {records} records");
    } else {
        assert!(packets.iter().all(|packet| packet.gso_segments == 1));
    }
}

#[test]
fn fragments_have_the_ports_of_their_datagram() {
    const TEST: &str = "fragments_have_the_ports_of_their_datagram";
    let Some(pair) = pair(TEST) else { return };
    for to in [pair.right_v4(7005), pair.right_v6(7006)] {
        let sink = pair.right.enter(|| UdpSocket::bind(to).unwrap());
        reach(&pair, &sink, to);
        let (told, counters) = observe(&pair.right, &["right0"], Options::default(), |_, _| {
            send_udp(&pair, to, 10, 4000);
        })
        .unwrap();
        let packets = told.to(Protocol::UDP, to.port());
        let count = |kind| packets.iter().filter(|packet| packet.fragment == kind).count();
        assert_eq!((count(Fragment::First), count(Fragment::Later)), (10, 20));
        assert_eq!(packets.iter().map(|packet| packet.payload_length).sum::<u32>(), 40_000);
        assert_eq!(counters.fragments_unmatched, 0);
    }
}

#[test]
fn tags_of_vlans_are_stepped_over() {
    const TEST: &str = "tags_of_vlans_are_stepped_over";
    let Some(pair) = pair(TEST) else { return };
    // 802.1Q within 802.1Q within the veth, on both sides.
    if let Err(reason) = pair.add_vlans() {
        return eprintln!("skipped: {TEST}: {reason}");
    }
    let to: SocketAddr = "198.18.9.2:7007".parse().unwrap();
    let sink = pair.right.enter(|| UdpSocket::bind(to).unwrap());
    reach(&pair, &sink, to);
    let (told, _) = observe(&pair.right, &["right0"], Options::default(), |_, _| {
        send_udp(&pair, to, 100, 50);
    })
    .unwrap();
    let packets = told.to(Protocol::UDP, 7007);
    assert_eq!(packets.len(), 100);
    assert!(packets.iter().all(|packet| (packet.l3_length, packet.payload_length) == (78, 50)));
}

#[test]
fn packets_without_a_link_layer_are_recorded() {
    const TEST: &str = "packets_without_a_link_layer_are_recorded";
    let Some(pair) = pair(TEST) else { return };
    if let Err(reason) = pair.left.ip("tuntap add dev tun0 mode tun") {
        return eprintln!("skipped: {TEST}: no tun device: {reason}");
    }
    pair.left.ip("address add 198.18.8.1/24 dev tun0").unwrap();
    pair.left.ip("link set tun0 up").unwrap();
    let _device = pair.left.open_tun("tun0");
    let (told, counters) = observe(&pair.left, &["tun0"], Options::default(), |_, _| {
        send_udp(&pair, "198.18.8.2:7008".parse().unwrap(), 50, 60);
    })
    .unwrap();
    let packets = told.to(Protocol::UDP, 7008);
    assert_eq!((packets.len(), counters.unreadable), (50, 0));
    assert!(packets.iter().all(|packet| packet.payload_length == 60));
}

#[test]
fn an_interface_that_appears_is_recorded_within_a_second() {
    const TEST: &str = "an_interface_that_appears_is_recorded_within_a_second";
    let Some(pair) = pair(TEST) else { return };
    let (told, _) = observe(&pair.left, &["left0", "late*"], Options::default(), |source, told| {
        assert_eq!(source.interfaces().count(), 1);
        pair.left.ip("link add late0 type veth peer name other0").unwrap();
        pair.left.ip("address add 198.18.7.1/24 dev late0").unwrap();
        pair.left.ip("link set late0 up").unwrap();
        pair.left.ip("link set other0 up").unwrap();
        let appeared = Instant::now();
        while source.interfaces().count() < 2 {
            assert!(appeared.elapsed() < Duration::from_secs(1));
            pair.left.enter(|| source.poll(&mut |event| told.take(event))).unwrap();
            thread::sleep(Pace::SHORTEST);
        }
        pair.left.ip("neighbour add 198.18.7.2 lladdr 02:00:00:00:00:07 dev late0").unwrap();
        send_udp(&pair, "198.18.7.2:7009".parse().unwrap(), 30, 10);
        pair.left.ip("link delete late0").unwrap();
        thread::sleep(Duration::from_millis(150));
        pair.left.enter(|| source.poll(&mut |event| told.take(event))).unwrap();
    })
    .unwrap();
    let packets = told.to(Protocol::UDP, 7009);
    assert_eq!(packets.len(), 30);
    assert!(packets.iter().all(|packet| packet.interface == 1));
    assert!(
        told.losses.iter().any(|loss| loss.cause == LossCause::InterfaceGone && loss.interface == Some(1))
    );
}

#[test]
fn a_starved_reader_loses_nothing_uncounted() {
    const TEST: &str = "a_starved_reader_loses_nothing_uncounted";
    const SENT: usize = 50_000;
    let _flood = flood();
    let Some(pair) = pair(TEST) else { return };
    pair.without_ipv6();
    let to = pair.right_v4(7010);
    let sink = pair.right.enter(|| UdpSocket::bind(to).unwrap());
    reach(&pair, &sink, to);
    // The least: 4096 slots for each processor that sends, one of them free; nobody reads until all was sent.
    let options = Options { ring_size: 64 << 10, ..Options::default() };
    let (told, counters) = observe(&pair.left, &["left0"], options, |_, _| {
        send_udp(&pair, to, SENT, 1);
    })
    .unwrap();
    let recorded = told.to(Protocol::UDP, 7010).len() as u64;
    // Nothing else is said in these namespaces but ARP, which is counted apart.
    assert_eq!(told.packets.len() as u64, recorded);
    assert_eq!(recorded + counters.lost, SENT as u64, "{counters:?}");
    assert!(told.packets.len() >= 4095 && counters.lost > 0, "{counters:?}");
    for loss in told.losses.iter().filter(|loss| loss.cause == LossCause::RingFull) {
        assert_eq!(loss.interface, Some(0));
        assert!(loss.first <= loss.last);
    }
    eprintln!("{counters:?}");
}

#[test]
fn the_recorder_closes_its_file_on_sigterm() {
    const TEST: &str = "the_recorder_closes_its_file_on_sigterm";
    let Some(pair) = pair(TEST) else { return };
    let to = pair.right_v4(7011);
    let sink = pair.right.enter(|| UdpSocket::bind(to).unwrap());
    reach(&pair, &sink, to);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("live.mcap");
    let mut recorder = pair.right.enter(|| {
        Command::new(env!("CARGO_BIN_EXE_capture"))
            .args(["record", "right0", "--duration", "0", "--label", "packet-loss", "--output"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let started = Instant::now();
    while !file.exists() {
        assert!(started.elapsed() < Duration::from_secs(20) && recorder.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(20));
    }
    send_udp(&pair, to, 250, 64);
    let id = nix::unistd::Pid::from_raw(recorder.id().cast_signed());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = recorder.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), file.to_str().unwrap());

    let mut reader = recording::Reader::open(&file).unwrap();
    assert_eq!(reader.header().label, Some("packet-loss".parse().unwrap()));
    let events: Vec<Event> = reader.events().collect::<Result<_, _>>().unwrap();
    let to_port =
        |event: &&Event| matches!(event, Event::Packet(packet) if packet.five_tuple.destination.port == 7011);
    assert_eq!(events.iter().filter(to_port).count(), 250);
    assert!(reader.report().is_whole());
    assert_eq!(reader.header().interfaces[0].name, "right0");
}

#[test]
fn without_rights_one_line_says_what_is_missing() {
    const TEST: &str = "without_rights_one_line_says_what_is_missing";
    if let Some(reason) = namespace::missing() {
        return eprintln!("skipped: {TEST}: {reason}");
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", env!("CARGO_BIN_EXE_capture"), "record", "lo"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!folder.path().join("recordings").exists());
}

#[test]
fn the_doctor_finds_what_recording_uses() {
    const TEST: &str = "the_doctor_finds_what_recording_uses";
    if let Some(reason) = namespace::missing() {
        return eprintln!("skipped: {TEST}: {reason}");
    }
    let doctor = |program: &mut Command| program.args(["doctor", "--json"]).output().unwrap();
    let healthy = doctor(&mut Command::new(env!("CARGO_BIN_EXE_capture")));
    let said = String::from_utf8(healthy.stdout).unwrap();
    assert_eq!(healthy.status.code(), Some(0), "{said}");
    let checks: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
    let state = |what: &str| checks.iter().find(|check| check["what"] == what).unwrap()["state"].clone();
    assert_eq!((state("capabilities"), state("packets")), ("ok".into(), "ok".into()));
    for what in ["kernel", "kernel events", "BTF", "pods", "cgroups", "pressure (PSI)", "clock", "disk"] {
        let check = checks.iter().find(|check| check["what"] == what).expect(what);
        // What is less than it can be says what that costs.
        assert!(check["state"] == "ok" || check["cost"] != "", "{check}");
    }
    let packets = checks.iter().find(|check| check["what"] == "packets").unwrap();
    assert!(packets["found"].as_str().unwrap().contains(" ns of one processor a packet"), "{packets}");

    let poor = doctor(Command::new("setpriv").args([
        "--bounding-set=-all",
        "--inh-caps=-all",
        env!("CARGO_BIN_EXE_capture"),
    ]));
    assert_eq!(poor.status.code(), Some(1));
    let checks: Vec<serde_json::Value> = serde_json::from_slice(&poor.stdout).unwrap();
    assert!(
        checks.iter().any(|check| check["what"] == "packets" && check["state"] == "missing"),
        "{checks:?}"
    );
}
