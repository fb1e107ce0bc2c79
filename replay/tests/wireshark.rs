//! The TCP analysis beside tshark's own, packet by packet and file by file, on the captures next to the repository.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tests stop at the first surprise"
)]

mod program;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use event::FiveTuple;
use features::tcp::{Analysis, Segment, Verdict};
use program::replay;

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

/// What a page of the guide shows of one capture: a column's name, tshark's figure, and ours.
type Figures = Vec<(&'static str, u64, u64)>;

const FLAGS: [(&str, &str); 9] = [
    ("SYN", "syn_count"),
    ("SYN_ACK", "syn_ack_count"),
    ("FIN", "fin_count"),
    ("RST", "rst_count"),
    ("PSH", "psh_count"),
    ("ACK", "ack_count"),
    ("URG", "urg_count"),
    ("ECE", "ece_count"),
    ("CWR", "cwr_count"),
];

/// Figures that differ, as the guide explains them: capture, column, tshark's, ours.
const EXPLAINED: [(&str, &str, u64, u64); 2] =
    [("ip_fragmented_garbage.pcap", "flags", 8, 0), ("test102.pcapng", "packets", 8, 5)];

/// Sums over all rows of a file, and what they do not tell, beside tshark's.
fn figures(file: &Path, truth: &serde_json::Value) -> Figures {
    let number = |key: &str| truth[key].as_u64().unwrap();
    let run = replay(&[file.to_str().unwrap(), "--window", "5"]);
    let damaged = truth["tshark_error"].as_array().is_some_and(|errors| !errors.is_empty());
    assert_eq!(run.code, if damaged { 3 } else { 0 }, "{}: {}", file.display(), run.stderr);
    let read = run.stderr.lines().find_map(|line| line.split_once(" read, ")).expect("a line on the input").0;
    let read = read.rsplit(' ').next().unwrap().parse().unwrap();
    // Each flag by itself; where all agree their sums do.
    let sum = |column: &str| run.sum(column) as u64;
    let agree = FLAGS.iter().all(|(key, column)| number(key) == sum(column));
    let theirs = FLAGS.iter().map(|(key, _)| number(key)).sum();
    let ours = FLAGS.iter().map(|(_, column)| sum(column)).sum();
    assert!(agree || theirs != ours, "{}: flags differ and their sums do not", file.display());
    let judged = by_us(file);
    let duplicates = judged.values().filter(|(flags, _)| flags.contains("duplicate_ack")).count() as u64;
    // To the microsecond. The truth tells of the first 40 connections of a file.
    let rtts: BTreeSet<i64> = judged.values().filter_map(|(_, rtt)| Some(((*rtt)? + 500) / 1_000)).collect();
    let timed = truth["initial_rtt_s"].as_object().unwrap();
    let same = |rtt: &&serde_json::Value| rtts.contains(&((rtt.as_f64().unwrap() * 1e6).round() as i64));
    vec![
        ("packets", number("packets"), read),
        ("flags", theirs, ours),
        ("zero windows", number("zero_window"), sum("zero_window_count")),
        ("duplicate ACKs", number("duplicate_ack"), duplicates),
        ("initial RTTs", timed.len() as u64, timed.values().filter(same).count() as u64),
        ("retransmissions", number("retransmission"), sum("retransmission_count")),
        ("out of order", number("out_of_order"), sum("out_of_order_count")),
    ]
}

/// A line per capture: a figure on which both agree, or both figures.
fn table(all: &[(String, Figures)]) -> String {
    let mut text = String::from("| capture |");
    all[0].1.iter().for_each(|(name, ..)| write!(text, " {name} |").unwrap());
    text += "\n|---|";
    all[0].1.iter().for_each(|_| text += "---|");
    for (name, figures) in all {
        write!(text, "\n| {name} |").unwrap();
        for (_, theirs, ours) in figures {
            if theirs == ours {
                write!(text, " {ours} |").unwrap();
            } else {
                write!(text, " tshark {theirs}, replay {ours} |").unwrap();
            }
        }
    }
    text
}

#[test]
fn the_guide_shows_the_agreement() {
    let Some(folder) = pcaps() else {
        eprintln!("skipped: the_guide_shows_the_agreement: ../shared/pcaps is absent");
        return;
    };
    let text = std::fs::read_to_string(folder.join("truth.json")).unwrap();
    let truth: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut all = Vec::new();
    for (name, truth) in truth.iter().filter(|(name, _)| *name != "_meta") {
        all.push((name.clone(), figures(&folder.join(name), truth)));
    }
    let different = all.iter().flat_map(|(name, figures)| {
        let different = figures.iter().filter(|(_, theirs, ours)| theirs != ours);
        different.map(move |(column, theirs, ours)| (name.as_str(), *column, *theirs, *ours))
    });
    assert_eq!(different.collect::<Vec<_>>(), EXPLAINED);

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/agreement.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (head, rest) = text.split_once("| capture | packets | flags").expect("the page has the table");
    let tail = rest.find("\n\n").map_or("\n", |end| &rest[end..]);
    let now = format!("{head}{}{tail}", table(&all));
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::write(&page, &now).unwrap();
        return;
    }
    assert!(now == text, "the page is not in step: run this test with GOLDEN=write");
}
