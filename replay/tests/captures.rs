//! The program itself on real captures: sums over the rows beside what tshark says of the whole file.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests stop at the first surprise")]

mod program;

use std::path::{Path, PathBuf};

use program::{Run, replay};
use serde_json::Value;

/// The captures next to the repository and what tshark says of them; `None` where they are absent.
fn captures(test: &str) -> Option<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    let Ok(text) = std::fs::read_to_string(folder.join("truth.json")) else {
        eprintln!("skipped: {test}: ../shared/pcaps is absent");
        return None;
    };
    Some((folder, serde_json::from_str(&text).unwrap()))
}

fn names(truth: &Value) -> Vec<String> {
    truth.as_object().unwrap().keys().filter(|name| *name != "_meta").cloned().collect()
}

fn run(folder: &Path, name: &str, more: &[&str]) -> Run {
    let file = folder.join(name);
    let mut args = vec![file.to_str().unwrap()];
    args.extend_from_slice(more);
    replay(&args)
}

#[test]
fn every_packet_is_counted_or_said_to_be_skipped() {
    let Some((folder, truth)) = captures("every_packet_is_counted_or_said_to_be_skipped") else { return };
    for name in names(&truth) {
        let run = run(&folder, &name, &[]);
        let line = run.stderr.lines().find(|line| line.contains(" read, ")).expect("a line on the input");
        let number = |end: &str| -> f64 {
            let head = &line[..line.find(end).unwrap()];
            head.rsplit([' ', ':']).next().unwrap().parse().unwrap()
        };
        assert_eq!(number(" read"), number(" used") + number(" skipped"), "{name}: {line}");
        assert_eq!(number(" used"), run.sum("packet_count"), "{name}: {line}");
        // tshark counts the custom blocks of this file as packets.
        if name != "test102.pcapng" {
            assert_eq!(number(" read"), truth[&name]["packets"].as_f64().unwrap(), "{name}: {line}");
        }
    }
}

#[test]
fn windows_are_reset_and_sum_to_the_whole_file() {
    let Some((folder, truth)) = captures("windows_are_reset_and_sum_to_the_whole_file") else { return };
    let columns = [
        "packet_count",
        "byte_count",
        "forward_packets",
        "backward_bytes",
        "syn_count",
        "ack_count",
        "retransmission_count",
        "out_of_order_count",
        "zero_window_count",
    ];
    for name in names(&truth) {
        let whole = run(&folder, &name, &["--window", "86400"]);
        for window in ["0.1", "1", "5"] {
            let parts = run(&folder, &name, &["--window", window]);
            for column in columns {
                assert_eq!(parts.sum(column), whole.sum(column), "{name}: {column} at {window} s");
            }
        }
    }
}

#[test]
fn handshake_round_trips_are_wiresharks_to_the_microsecond() {
    let Some((folder, truth)) = captures("handshake_round_trips_are_wiresharks_to_the_microsecond") else {
        return;
    };
    for name in names(&truth) {
        // Which of two connections on one five-tuple a row shows depends on the window.
        if ["tls-subjectaltname__input.pcap", "gre-aruba.pcap"].contains(&name.as_str()) {
            continue;
        }
        let mut want: Vec<i64> = truth[&name]["initial_rtt_s"]
            .as_object()
            .unwrap()
            .values()
            .map(|seconds| (seconds.as_f64().unwrap() * 1e6).round() as i64)
            .collect();
        let whole = run(&folder, &name, &["--window", "86400"]);
        let mut got: Vec<i64> = whole
            .column("rtt_estimate_ms")
            .filter_map(|cell| cell.parse::<f64>().ok())
            .map(|milliseconds| (milliseconds * 1e3).round() as i64)
            .collect();
        want.sort_unstable();
        got.sort_unstable();
        // The truth tells of the first 40 connections of a file.
        if want.len() < 40 {
            got.dedup();
            want.dedup();
            assert_eq!(got, want, "{name}");
        } else {
            assert!(want.iter().all(|rtt| got.binary_search(rtt).is_ok()), "{name}");
        }
    }
}

#[test]
fn rows_are_in_order_and_the_same_for_any_number_of_threads() {
    let Some((folder, truth)) = captures("rows_are_in_order_and_the_same_for_any_number_of_threads") else {
        return;
    };
    for name in names(&truth) {
        let one = run(&folder, &name, &["--window", "1", "--threads", "1"]);
        for threads in ["2", "8"] {
            let more = run(&folder, &name, &["--window", "1", "--threads", threads]);
            assert_eq!(one.stdout, more.stdout, "{name} with {threads} threads");
        }
        let keys: Vec<(f64, std::net::IpAddr, u16)> = one
            .rows()
            .map(|row| (row[0].parse().unwrap(), row[2].parse().unwrap(), row[4].parse().unwrap()))
            .collect();
        assert!(keys.is_sorted(), "{name}");
    }
}

#[test]
fn a_damaged_file_gives_what_was_good_and_exit_code_3() {
    let Some((folder, _)) = captures("a_damaged_file_gives_what_was_good_and_exit_code_3") else { return };
    let whole = std::fs::read(folder.join("fix2.pcap")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let cut = directory.path().join("cut.pcap");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let run = replay(&[cut.to_str().unwrap()]);
    assert_eq!(run.code, 3);
    assert!(run.sum("packet_count") > 1000.0);
    assert!(run.stderr.contains("cut.pcap") && run.stderr.contains("byte"), "{}", run.stderr);
}

#[test]
fn several_inputs_are_merged_by_time() {
    let Some((folder, _)) = captures("several_inputs_are_merged_by_time") else { return };
    let [a, b] = ["fix2.pcap", "tls-subjectaltname__input.pcap"].map(|name| folder.join(name));
    let [a, b] = [a.to_str().unwrap(), b.to_str().unwrap()];
    let (first, second) = (replay(&[a]), replay(&[b]));
    let (both, reversed) = (replay(&[a, b]), replay(&[b, a]));
    assert_eq!(both.sum("packet_count"), first.sum("packet_count") + second.sum("packet_count"));
    assert_eq!(both.stdout, reversed.stdout);
}

/// First 16 hex digits of the SHA-256 of the rows of each capture. Where a change of the rows is meant, run
/// the test with GOLDEN=write.
#[test]
fn rows_are_what_they_were() {
    use sha2::{Digest as _, Sha256};
    let Some((folder, truth)) = captures("rows_are_what_they_were") else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.tsv");
    let mut now = String::new();
    for name in names(&truth) {
        let hash = Sha256::digest(&run(&folder, &name, &["--window", "5"]).stdout);
        let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        now += &format!("{name}\t{hex}\n");
    }
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    assert_eq!(now, std::fs::read_to_string(&path).unwrap());
}

#[test]
fn application_columns_are_read_from_payload() {
    let Some((folder, truth)) = captures("application_columns_are_read_from_payload") else { return };
    let highest = |counts: &Value| -> Option<u64> {
        counts.as_object().unwrap().keys().map(|code| code.parse().unwrap()).max()
    };
    for name in names(&truth) {
        // HTTP/2's codes are no `http.response.code`, and a body that is not whole hides one from tshark.
        if name.starts_with("http2") || name == "accecn_handshake.pcap" {
            continue;
        }
        let with = run(&folder, &name, &["--window", "86400"]);
        let of = |column| with.column(column).filter_map(|cell| cell.parse::<u64>().ok()).max();
        assert_eq!(of("http_status_code"), highest(&truth[&name]["http_response_code"]), "{name}");
        assert_eq!(of("dns_response_code"), highest(&truth[&name]["dns_rcode"]), "{name}");
        let without = run(&folder, &name, &["--window", "86400", "--no-l7"]);
        assert!(without.column("l7_protocol_detected").all(str::is_empty), "{name}");
        assert_eq!(with.sum("packet_count"), without.sum("packet_count"), "{name}");
    }
}

#[test]
fn a_part_of_the_input_can_be_chosen() {
    let Some((folder, _)) = captures("a_part_of_the_input_can_be_chosen") else { return };
    let name = "tls-subjectaltname__input.pcap";
    let whole = run(&folder, name, &[]);
    let web = run(&folder, name, &["--filter", "tcp and port 443"]);
    let rest = run(&folder, name, &["--filter", "not (tcp and port 443)"]);
    assert!(web.column("dst_port").all(|port| port == "443"));
    assert_eq!(web.sum("packet_count") + rest.sum("packet_count"), whole.sum("packet_count"));
    let start: f64 = whole.column("timestamp").next().unwrap().parse().unwrap();
    let middle = (start + 10.0).to_string();
    let (early, late) = (run(&folder, name, &["--to", &middle]), run(&folder, name, &["--from", &middle]));
    assert!(early.sum("packet_count") > 0.0 && late.sum("packet_count") > 0.0);
    assert_eq!(early.sum("packet_count") + late.sum("packet_count"), whole.sum("packet_count"));
    let wrong = replay(&["--filter", "prot 1"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("portrange"), "{}", wrong.stderr);
}
