//! The TCP analysis beside tshark's own, packet by packet, on the captures next to the repository.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests stop at the first surprise")]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use event::FiveTuple;
use features::tcp::{Analysis, Segment, Verdict};

/// What is compared: tshark's field, and ours.
const VERDICTS: [(&str, Verdict); 13] = [
    ("tcp.analysis.retransmission", Verdict::ANY_RETRANSMISSION),
    ("tcp.analysis.fast_retransmission", Verdict::FAST_RETRANSMISSION),
    ("tcp.analysis.spurious_retransmission", Verdict::SPURIOUS_RETRANSMISSION),
    ("tcp.analysis.out_of_order", Verdict::OUT_OF_ORDER),
    ("tcp.analysis.zero_window", Verdict::ZERO_WINDOW),
    ("tcp.analysis.zero_window_probe", Verdict::ZERO_WINDOW_PROBE),
    ("tcp.analysis.zero_window_probe_ack", Verdict::ZERO_WINDOW_PROBE_ACK),
    ("tcp.analysis.keep_alive", Verdict::KEEP_ALIVE),
    ("tcp.analysis.keep_alive_ack", Verdict::KEEP_ALIVE_ACK),
    ("tcp.analysis.lost_segment", Verdict::LOST_SEGMENT),
    ("tcp.analysis.window_update", Verdict::WINDOW_UPDATE),
    ("tcp.analysis.window_full", Verdict::WINDOW_FULL),
    ("tcp.analysis.duplicate_ack", Verdict::DUPLICATE_ACK),
];

/// Differences that stay: repeats of a FIN that tshark calls fast retransmissions and we plain ones, although
/// the other side sent no duplicate ACK before. Both count as retransmissions.
const KNOWN: [(&str, u64); 3] = [("reassembly.pcap", 8), ("reassembly.pcap", 10), ("reassembly.pcap", 12)];

/// Per packet number: a line of flags, and the initial RTT in ns.
type Judged = BTreeMap<u64, (String, Option<i64>)>;

fn pcaps() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    folder.is_dir().then_some(folder)
}

fn by_tshark(file: &Path) -> Option<Judged> {
    let mut command = Command::new("tshark");
    command.args(["-r"]).arg(file).args(["-n", "-Y", "tcp", "-T", "fields", "-E", "occurrence=l"]);
    command.args(["-e", "frame.number", "-e", "tcp.analysis.initial_rtt"]);
    for (field, _) in VERDICTS {
        command.args(["-e", field]);
    }
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let mut cells = line.split('\t');
        let number = cells.next().unwrap().parse().unwrap();
        let rtt = cells.next().unwrap().parse::<f64>().ok().map(|seconds| (seconds * 1e9).round() as i64);
        let flags: Vec<&str> = VERDICTS
            .iter()
            .zip(cells)
            .filter(|(_, cell)| !cell.is_empty())
            .map(|((name, _), _)| *name)
            .collect();
        (number, (flags.join(" "), rtt))
    };
    Some(text.lines().map(line).collect())
}

fn by_us(file: &Path) -> Judged {
    let mut capture = dissect::Capture::open(file, dissect::Tunnel::Inner).unwrap();
    let mut connections: HashMap<FiveTuple, Analysis> = HashMap::new();
    let mut judged = Judged::new();
    while let Ok(Some(seen)) = capture.next() {
        let Some(tcp) = seen.packet.tcp else { continue };
        let tuple = seen.packet.five_tuple;
        let key = tuple.canonical();
        let segment = Segment::new(seen.packet.time.as_nanos(), &tcp, seen.packet.payload_length);
        let analysis = connections.entry(key).or_default();
        let outcome = analysis.segment(usize::from(key != tuple), &segment);
        let flags: Vec<&str> = VERDICTS
            .iter()
            .filter(|(_, verdict)| outcome.verdict.intersects(*verdict))
            .map(|(name, _)| *name)
            .collect();
        judged.insert(seen.number, (flags.join(" "), analysis.initial_rtt()));
    }
    judged
}

#[test]
fn every_segment_is_judged_as_wireshark_does() {
    let Some(folder) = pcaps() else {
        eprintln!("skipped: every_segment_is_judged_as_wireshark_does: ../shared/pcaps is absent");
        return;
    };
    if Command::new("tshark").arg("--version").output().is_err() {
        eprintln!("skipped: every_segment_is_judged_as_wireshark_does: tshark is not installed");
        return;
    }
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "pcap" || ending == "pcapng"));
    files.sort();
    let (mut same, mut differences) = (0, Vec::new());
    // Most of tshark's time goes into starting it.
    let theirs: Vec<Option<Judged>> = std::thread::scope(|scope| {
        let started: Vec<_> = files.iter().map(|file| scope.spawn(|| by_tshark(file))).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (file, theirs) in files.iter().zip(theirs) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let (theirs, ours) = (theirs.expect("tshark reads every capture"), by_us(file));
        for (number, (flags, rtt)) in &theirs {
            let Some((our_flags, our_rtt)) = ours.get(number) else { continue };
            // tshark shows the RTT on some segments of a connection alone.
            if flags == our_flags && (rtt.is_none() || rtt == our_rtt) {
                same += 1;
                continue;
            }
            eprintln!("{name} {number}: {flags} {rtt:?}, ours {our_flags} {our_rtt:?}");
            differences.push((name.clone(), *number));
        }
    }
    eprintln!("{same} segments are judged alike, {} are not", differences.len());
    assert!(same > 15_000, "most captures were not compared");
    let known: Vec<_> = KNOWN.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
    assert_eq!(differences, known);
}
