//! An anonymized recording has no address that was seen, anywhere in the file.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use capture::anonymize::{Anonymizer, Key};
use event::{Event, FiveTuple};

use super::pair;
use super::recorder::{Recorder, read};

#[test]
fn no_address_that_was_seen_is_in_the_file() {
    const TEST: &str = "no_address_that_was_seen_is_in_the_file";
    let Some(pair) = pair(TEST) else { return };
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key-of-198.18.0.1");
    std::fs::write(&key, [7; 32]).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let arguments = format!("--anonymize {} right0", key.display());
    let mut recorder = Recorder::start(&pair.right, "root", &arguments);
    for to in [pair.right_v4(7501), pair.right_v6(7501)] {
        // Packets, resets, states and drops.
        pair.left.enter(|| TcpStream::connect(to)).unwrap_err();
        pair.left.enter(|| {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any).unwrap().send_to(b"?", to).unwrap();
        });
    }
    let live = recorder.folder.path().join("live.mcap");
    let mark = ["mark", live.to_str().unwrap(), "--note", "198.18.0.1 began, and ip-198-18-0-2 broke"];
    let marked = Command::new(env!("CARGO_BIN_EXE_capture")).args(mark).output().unwrap();
    assert_eq!(marked.status.code(), Some(0), "{marked:?}");
    std::thread::sleep(Duration::from_millis(300));
    let output = recorder.stop();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("others can read this key"), "{said}");

    let (header, events) = read(&live);
    assert!(header.anonymized && !header.command.contains("198.18.0.1"), "{}", header.command);
    let mut anonymizer = Anonymizer::new(&Key::read(&key).unwrap());
    let seen: Vec<IpAddr> =
        ["198.18.0.1", "198.18.0.2", "fd12::1", "fd12::2"].map(|address| address.parse().unwrap()).into();
    let hidden: BTreeSet<IpAddr> = seen.iter().map(|address| anonymizer.address(*address)).collect();
    let tuples: Vec<FiveTuple> = events
        .iter()
        .filter_map(|event| match event {
            Event::Packet(packet) => Some(packet.five_tuple),
            Event::Kernel(event) => event.five_tuple,
            _ => None,
        })
        .collect();
    let of_test = tuples.iter().filter(|tuple| [tuple.source.port, tuple.destination.port].contains(&7501));
    let found: BTreeSet<IpAddr> =
        of_test.flat_map(|tuple| [tuple.source.address, tuple.destination.address]).collect();
    assert!(found.is_subset(&hidden) && found.len() == hidden.len(), "{found:?}, not {hidden:?}");
    let notes: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::Mark(mark) => Some(mark.note.as_str()),
            _ => None,
        })
        .collect();
    let dashed = anonymizer.address(seen[1]).to_string().replace('.', "-");
    assert_eq!(notes, [format!("{} began, and ip-{dashed} broke", anonymizer.address(seen[0]))]);
    let shown = format!("{header:?} {events:?}");
    assert!(seen.iter().all(|address| !shown.contains(&address.to_string())));
}
