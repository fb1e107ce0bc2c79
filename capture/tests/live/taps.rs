//! Two taps of one flow: a node that forwards sees every packet twice, and one of both counts.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use event::{Direction, Event, Packet, Tap};

use super::namespace::Namespace;
use super::pair;
use super::recorder::{Recorder, read};

const SENT: usize = 60;

/// Datagrams there and back, from the left through the right to the namespace behind it, over three seconds.
fn talk(left: &Namespace, far: &Namespace) {
    let server = far.enter(|| UdpSocket::bind("198.18.5.2:7201").unwrap());
    let client = left.enter(|| UdpSocket::bind("198.18.0.1:7202").unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    for _ in 0..SENT {
        client.send_to(b"question", "198.18.5.2:7201").unwrap();
        let mut bytes = [0; 16];
        let (_, from) = server.recv_from(&mut bytes).unwrap();
        server.send_to(b"answer", from).unwrap();
        client.recv(&mut bytes).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn of_two_taps_of_a_flow_the_first_counts_in_every_piece() {
    const TEST: &str = "of_two_taps_of_a_flow_the_first_counts_in_every_piece";
    let Some(pair) = pair(TEST) else { return };
    let far = Namespace::new();
    pair.right.ip(&format!("link add right1 type veth peer name far0 netns {}", far.path())).unwrap();
    pair.right.ip("address add 198.18.5.1/24 dev right1").unwrap();
    pair.right.ip("link set right1 up").unwrap();
    far.ip("address add 198.18.5.2/24 dev far0").unwrap();
    far.ip("link set far0 up").unwrap();
    far.ip("route add default via 198.18.5.1").unwrap();
    pair.left.ip("route add default via 198.18.0.2").unwrap();
    pair.right.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());

    let mut recorder = Recorder::start(&pair.right, "root", "--rotate-after 1s right0 right1");
    talk(&pair.left, &far);
    assert_eq!(recorder.stop().status.code(), Some(0));
    let files = recorder.files();
    assert!(files.len() >= 3, "{files:?}");
    let mut packets: Vec<Packet> = Vec::new();
    for file in &files {
        let events = read(file).1;
        let of_file = events.iter().filter_map(|event| match event {
            Event::Packet(packet) if [7201, 7202].contains(&packet.five_tuple.destination.port) => {
                Some(*packet)
            }
            _ => None,
        });
        packets.extend(of_file);
    }
    assert_eq!(packets.len(), 4 * SENT);
    for port in [7201, 7202] {
        let seen = |tap| {
            packets
                .iter()
                .filter(move |packet| packet.five_tuple.destination.port == port && packet.tap == tap)
        };
        assert_eq!((seen(Tap::Primary).count(), seen(Tap::Secondary).count()), (SENT, SENT));
        // A packet comes in before it goes out.
        assert!(seen(Tap::Primary).all(|packet| packet.direction == Direction::Ingress));
        assert!(seen(Tap::Secondary).all(|packet| packet.direction == Direction::Egress));
    }
}
