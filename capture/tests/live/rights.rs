//! What a recorder may do once it has attached: little, and enough to go on.

use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use event::{Event, Protocol};

use super::recorder::{Recorder, read, uid};
use super::{pair, send_udp};

const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_PTRACE: u64 = 1 << 19;
const CAP_BPF: u64 = 1 << 39;
const KEPT: u64 = CAP_NET_ADMIN | CAP_SYS_PTRACE | CAP_BPF;

/// Ends with the value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every thread has these rights and no way to others.
fn check_rights(recorder: &Recorder, capabilities: u64) {
    let sets = [
        ("CapPrm", capabilities),
        ("CapEff", capabilities),
        ("CapInh", 0),
        ("CapBnd", 0),
        ("CapAmb", 0),
        ("NoNewPrivs", 1),
    ];
    for (key, expected) in sets {
        let found = recorder.status(key);
        // The one that polls and the one that takes snapshots.
        assert!(found.len() >= 2, "{found:?}");
        for value in found {
            assert_eq!(u64::from_str_radix(&value, 16).unwrap(), expected, "{key}");
        }
    }
}

#[test]
fn another_user_goes_on_with_three_capabilities() {
    const TEST: &str = "another_user_goes_on_with_three_capabilities";
    let Some(pair) = pair(TEST) else { return };
    // The pod at the other end of right0, of another user than the recorder.
    let inhabitant = Process(pair.left.enter(|| Command::new("sleep").arg("60").spawn().unwrap()));
    let arguments = "--user nobody --rotate-after 1s --system-interval 0.2 right0 late*";
    let mut recorder = Recorder::start(&pair.right, "nobody", arguments);
    check_rights(&recorder, KEPT);
    let user = uid("nobody");
    for ids in recorder.status("Uid") {
        assert!(ids.split('\t').all(|id| id == user.to_string()), "{ids}");
    }
    for groups in recorder.status("Groups") {
        assert!(groups.split_ascii_whitespace().all(|group| group != "0"), "{groups}");
    }

    // An interface that appears now, and one without a link layer.
    pair.right.ip("link add late0 type veth peer name other0").unwrap();
    pair.right.ip("address add 198.18.7.1/24 dev late0").unwrap();
    pair.right.ip("link set late0 up").unwrap();
    pair.right.ip("link set other0 up").unwrap();
    pair.right.ip("neighbour add 198.18.7.2 lladdr 02:00:00:00:00:07 dev late0").unwrap();
    let has_tun = pair.right.ip("tuntap add dev late1 mode tun").is_ok();
    let mut tun = None;
    if has_tun {
        pair.right.ip("address add 198.18.6.1/24 dev late1").unwrap();
        pair.right.ip("link set late1 up").unwrap();
        tun = Some(pair.right.open_tun("late1"));
    }
    thread::sleep(Duration::from_millis(1000));
    let send = |to: &str| {
        pair.right.enter(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            (0..30).for_each(|_| assert!(socket.send_to(b"late", to).is_ok()));
        })
    };
    send("198.18.7.2:7101");
    if has_tun {
        send("198.18.6.2:7102");
    }
    // Over the end of two pieces.
    thread::sleep(Duration::from_millis(2200));
    let output = recorder.stop();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    drop((inhabitant, tun));

    let files = recorder.files();
    assert!(files.len() >= 3, "{files:?}");
    let mut events = Vec::new();
    for file in &files {
        assert_eq!(std::fs::metadata(file).unwrap().uid(), user.as_raw());
        events.extend(read(file).1);
    }
    let late = |port| {
        let fits = |event: &&Event| {
            matches!(event, Event::Packet(packet)
            if packet.five_tuple.destination.port == port && packet.five_tuple.protocol == Protocol::UDP)
        };
        events.iter().filter(fits).count()
    };
    assert_eq!(late(7101), 30);
    assert_eq!(late(7102), if has_tun { 30 } else { 0 });
    let is_pod = |event: &Event| {
        matches!(event, Event::System(snapshot)
        if snapshot.pods.iter().any(|pod| pod.interfaces == [0] && pod.listen_queue.is_some()))
    };
    assert!(events.iter().any(is_pod), "whose interface right0 is cannot be seen any more");
}

#[test]
fn root_keeps_what_the_folder_asks_for() {
    const TEST: &str = "root_keeps_what_the_folder_asks_for";
    let Some(pair) = pair(TEST) else { return };
    for (owner, kept) in [("root", KEPT), ("nobody", KEPT | CAP_DAC_OVERRIDE)] {
        let mut recorder = Recorder::start(&pair.right, owner, "--rotate-after 1s right0");
        check_rights(&recorder, kept);
        send_udp(&pair, pair.right_v4(7103), 1, 1);
        thread::sleep(Duration::from_millis(1300));
        let output = recorder.stop();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(recorder.files().len() >= 2);
    }
    let recorder = Recorder::start(&pair.right, "root", "--system-interval 0 --no-kernel-events right0");
    assert_eq!(recorder.status("CapPrm"), [format!("{:016x}", KEPT & !CAP_SYS_PTRACE)]);
}
