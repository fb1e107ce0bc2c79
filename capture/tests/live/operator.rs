//! What an operator does with a recorder, and what happens to it: a terminal, a signal, a full disk, other roots.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use event::{Event, Source};
use nix::sys::signal::{Signal, kill};

use super::namespace::Namespace;
use super::recorder::{Recorder, read};
use super::{pair, send_udp};

/// A shell in a namespace of networks and one of mounts, in which `$CAPTURE` is the program.
fn shell(namespace: &Namespace, folder: &Path, script: &str) -> Output {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).env("CAPTURE", env!("CARGO_BIN_EXE_capture"));
    namespace.enter(|| command.current_dir(folder).output().unwrap())
}

#[test]
fn a_signal_freezes_the_black_box() {
    const TEST: &str = "a_signal_freezes_the_black_box";
    let Some(pair) = pair(TEST) else { return };
    let mut recorder = Recorder::start(&pair.right, "root", "--keep 20s --system-interval 0.2 right0");
    send_udp(&pair, pair.right_v4(7601), 40, 10);
    thread::sleep(Duration::from_millis(300));
    kill(recorder.pid(), Signal::SIGUSR1).unwrap();
    let dump = |recorder: &Recorder| -> Option<PathBuf> {
        let is_dump = |path: &PathBuf| path.to_string_lossy().contains("live-dump-");
        recorder.files().into_iter().find(is_dump)
    };
    let started = Instant::now();
    while dump(&recorder).is_none() {
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", recorder.files());
        thread::sleep(Duration::from_millis(20));
    }
    // It goes on: what comes now is not in the dump.
    send_udp(&pair, pair.right_v4(7602), 1, 10);
    let output = recorder.stop();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let (header, events) = read(&dump(&recorder).unwrap());
    assert_eq!(header.interfaces[0].name, "right0");
    let to = |port| {
        let fits = |event: &&Event| {
            matches!(event, Event::Packet(packet)
            if packet.five_tuple.destination.port == port)
        };
        events.iter().filter(fits).count()
    };
    assert_eq!((to(7601), to(7602)), (40, 0));
    assert!(events.iter().any(|event| event.source() == Source::System));
}

#[test]
fn a_full_disk_ends_the_recording_and_leaves_it_whole() {
    const TEST: &str = "a_full_disk_ends_the_recording_and_leaves_it_whole";
    let _flood = crate::flood();
    let Some(pair) = pair(TEST) else { return };
    let folder = tempfile::tempdir().unwrap();
    // Barely more than is kept for the end of a file; the whole recording is brought out of the mount.
    let script = "mkdir disk && mount -t tmpfs -o size=8400k tmpfs disk && \
        $CAPTURE record right0 --duration 600 --system-interval 0.1 -o disk/full.mcap; code=$?; \
        cp disk/full.mcap full.mcap; exit $code";
    let stop = std::sync::atomic::AtomicBool::new(false);
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            // Each packet another flow, with ports and lengths in no order (xorshift): what repeats fills no disk.
            let mut number = 0x2545_u16;
            pair.left.enter(|| {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    number ^= number << 7;
                    number ^= number >> 9;
                    number ^= number << 8;
                    // Where the queue is full it was not sent, and is not missed.
                    let _ = socket
                        .send_to(&[0; 1400][..usize::from(number % 1400)], pair.right_v4(number | 1024));
                }
            });
        });
        let output = shell(&pair.right, folder.path(), script);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        output
    });
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("disk/full.mcap: no space is left on the disk"), "{said}");
    assert!(said.contains("could not be written any more") && said.contains("bytes_per_packet"), "{said}");
    let (_, events) = read(&folder.path().join("full.mcap"));
    assert!(events.iter().any(|event| event.source() == Source::Packets));
}

#[test]
fn other_roots_of_proc_and_cgroups_are_read() {
    const TEST: &str = "other_roots_of_proc_and_cgroups_are_read";
    let Some(pair) = pair(TEST) else { return };
    let folder = tempfile::tempdir().unwrap();
    // The node's own, at other places, with a line of the processor and one of memory that no kernel wrote.
    std::fs::write(folder.path().join("stat"), "cpu 11 22 33 44 55 66 77 88 0 0\n").unwrap();
    std::fs::write(folder.path().join("cgroups"), "0::/faultline-made\n").unwrap();
    std::fs::create_dir_all(folder.path().join("cg/faultline-made")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join("cg").join(name), text).unwrap();
    write("cgroup.controllers", "cpu memory\n");
    write("faultline-made/memory.current", "123456789\n");
    write("faultline-made/memory.max", "max\n");
    let script = "mkdir proc && mount --rbind /proc proc && mount --bind stat proc/stat && \
        mount --bind cgroups proc/$POD/cgroup && \
        $CAPTURE record right0 --duration 1 --system-interval 0.2 --proc-root $PWD/proc \
        --cgroup-root $PWD/cg -o roots.mcap";
    let mut pod = pair.left.enter(|| Command::new("sleep").arg("60").spawn().unwrap());
    let output = shell(&pair.right, folder.path(), &script.replace("$POD", &pod.id().to_string()));
    pod.kill().unwrap();
    pod.wait().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let (_, events) = read(&folder.path().join("roots.mcap"));
    let snapshots: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::System(snapshot) => Some(snapshot),
            _ => None,
        })
        .collect();
    assert!(snapshots.len() >= 3);
    for snapshot in snapshots {
        let cpu = snapshot.node.cpu.unwrap();
        assert_eq!((cpu.total, cpu.idle), (11 + 22 + 33 + 44 + 55 + 66 + 77 + 88, 44 + 55));
        let pod = snapshot.pods.iter().find(|pod| pod.interfaces == [0]).expect("the pod behind right0");
        assert_eq!(pod.memory.map(|memory| memory.working_set), Some(123_456_789));
    }
}

#[test]
fn cgroups_outside_of_our_namespace_are_named_once() {
    const TEST: &str = "cgroups_outside_of_our_namespace_are_named_once";
    let Some(pair) = pair(TEST) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut pod = pair.left.enter(|| Command::new("sleep").arg("60").spawn().unwrap());
    // Every hierarchy that there is: the recorder's groups become the roots of what it sees.
    let script = "groups=/sys/fs/cgroup; [ -e $groups/cgroup.procs ] || groups='/sys/fs/cgroup/*'
        for group in $groups; do
            [ -e $group/cgroup.procs ] || continue
            mkdir $group/faultline-outside-$$ 2>/dev/null && echo 0 > $group/faultline-outside-$$/cgroup.procs
        done
        unshare --cgroup $CAPTURE record right0 --duration 1 --system-interval 0.2 -o outside.mcap; code=$?
        for group in $groups; do
            [ -e $group/cgroup.procs ] && echo 0 > $group/cgroup.procs; rmdir $group/faultline-outside-$$
        done 2>/dev/null
        exit $code";
    let output = shell(&pair.right, folder.path(), script);
    pod.kill().unwrap();
    pod.wait().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    if !said.contains("cgroup namespace") && !Path::new("/proc/self/ns/cgroup").exists() {
        return eprintln!("skipped: {TEST}: this kernel has no cgroup namespaces");
    }
    assert_eq!(said.matches("outside of this process's cgroup namespace").count(), 1, "{said}");
}

#[test]
fn a_terminal_shows_every_interface() {
    const TEST: &str = "a_terminal_shows_every_interface";
    let Some(pair) = pair(TEST) else { return };
    if Command::new("script").arg("--version").output().is_err() {
        return eprintln!("skipped: {TEST}: needs script");
    }
    let folder = tempfile::tempdir().unwrap();
    let recorder = "$CAPTURE record right0 lo --duration 3.5 -o shown.mcap";
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", recorder, "typescript"]);
    command.env("CAPTURE", env!("CARGO_BIN_EXE_capture")).env("TERM", "xterm").stdin(Stdio::null());
    let output = thread::scope(|scope| {
        let shown = scope.spawn(|| pair.right.enter(|| command.current_dir(folder.path()).output().unwrap()));
        while !shown.is_finished() {
            send_udp(&pair, pair.right_v4(7603), 1, 10);
            thread::sleep(Duration::from_millis(10));
        }
        shown.join().unwrap()
    });
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(shown.contains("right0 ") && shown.contains("lo  "), "{shown}");
    assert!(shown.contains("bytes per packet on disk"), "{shown}");
}
