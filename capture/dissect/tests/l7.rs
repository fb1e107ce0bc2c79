//! Application messages against what tshark reads in the same captures.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use dissect::{Capture, L7, Tunnel};
use event::{L7Flow, L7Message, L7Type};
use serde_json::Value;

fn collection(test: &str) -> Option<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pcaps");
    match std::fs::File::open(folder.join("truth.json")) {
        Ok(file) => Some((folder, serde_json::from_reader(file).unwrap())),
        Err(error) => {
            eprintln!("skipped: {test}: no captures at {}: {error}", folder.display());
            None
        }
    }
}

fn messages(file: &Path) -> Vec<L7Flow> {
    let mut capture = Capture::open(file, Tunnel::Inner).unwrap();
    let (mut l7, mut found) = (L7::default(), Vec::new());
    while let Ok(Some(seen)) = capture.next() {
        l7.observe(&seen.packet, seen.payload, &mut found);
    }
    l7.finish(&mut found);
    found
}

/// Where truth.json, made with tshark's defaults, has other numbers: by default tshark waits for whole bodies and
/// gives up where segments are out of order. The test after this one asks it without that.
const EXPLAINED: [(&str, &str, &str); 4] = [
    // The first body is never whole.
    ("206_example_b.pcap", "http_response_code", r#"{"206":3}"#),
    // The capture ends within the body.
    ("accecn_handshake.pcap", "http_response_code", r#"{"200":1}"#),
    // One body is not whole; packets 592 and 2005 fill a hole before the head.
    ("tls-subjectaltname__input.pcap", "http_response_code", r#"{"200":29,"301":5,"404":3}"#),
    // Packets 134 and 135 are LLMNR (port 5355), which asks neighbours and no server.
    ("tls-subjectaltname__input.pcap", "dns_queries", "37"),
];

/// HTTP/1 status codes and DNS answers by rcode, as truth.json has them.
#[test]
fn http_codes_and_dns_rcodes_are_tsharks() {
    let Some((folder, truth)) = collection("http_codes_and_dns_rcodes_are_tsharks") else { return };
    let mut differences = Vec::new();
    for (file, truth) in truth.as_object().unwrap().iter().filter(|(name, _)| *name != "_meta") {
        let (mut codes, mut rcodes): (BTreeMap<String, u64>, BTreeMap<String, u64>) = Default::default();
        let (mut queries, mut answers) = (0_u64, 0_u64);
        for flow in messages(&folder.join(file)) {
            match (flow.kind, flow.message) {
                (L7Type::Response, L7Message::Http(http)) if http.protocol != "HTTP/2" => {
                    *codes.entry(http.status.unwrap().to_string()).or_default() += 1;
                }
                (L7Type::Response, L7Message::Dns(dns)) => {
                    *rcodes.entry(dns.rcode.unwrap().to_string()).or_default() += 1;
                    answers += 1;
                }
                (L7Type::Request, L7Message::Dns(_)) => queries += 1,
                _ => {}
            }
        }
        for (name, found) in [
            ("http_response_code", serde_json::json!(codes)),
            ("dns_rcode", serde_json::json!(rcodes)),
            ("dns_queries", serde_json::json!(queries)),
            ("dns_responses", serde_json::json!(answers)),
        ] {
            let is_explained = EXPLAINED.contains(&(file.as_str(), name, found.to_string().as_str()));
            if truth[name] != found && !is_explained {
                differences.push(format!("{file}: {name}: {found}, tshark {}", truth[name]));
            }
        }
    }
    assert_eq!(differences, Vec::<String>::new());
}

/// How tshark is to reassemble, so that it shows heads whose bodies are not whole.
const HEADS: [&str; 4] = ["-o", "http.desegment_body:FALSE", "-o", "tcp.reassemble_out_of_order:TRUE"];

fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Option<Vec<Vec<String>>> {
    tshark_with(&HEADS, file, filter, fields)
}

/// Lines of tab-separated fields of the packets that `filter` takes; nothing where there is no tshark.
fn tshark_with(options: &[&str], file: &Path, filter: &str, fields: &[&str]) -> Option<Vec<Vec<String>>> {
    let output = Command::new("tshark")
        .arg("-n")
        .args(options)
        // The port of http2.pcapng, which is no port of HTTP/2 to tshark.
        .args(["-d", "tcp.port==29518,http2"])
        .args(["-T", "fields", "-E", "occurrence=a", "-E", "aggregator=|", "-Y", filter])
        .args(fields.iter().flat_map(|field| ["-e", field]))
        .arg("-r")
        .arg(file)
        .output()
        .ok()?;
    let without_query = |field: &str| field.split('?').next().unwrap_or_default().to_owned();
    let line = |line: &str| line.split('\t').map(without_query).collect();
    Some(String::from_utf8_lossy(&output.stdout).lines().map(line).collect())
}

/// What each message says, sorted, against tshark's fields, sorted; `show` gives nothing for other messages.
fn compare(
    test: &str,
    files: &[&str],
    filter: &str,
    fields: &[&str],
    expected: usize,
    show: impl Fn(&L7Flow) -> Option<Vec<String>>,
) {
    let Some((folder, _)) = collection(test) else { return };
    let mut compared = 0;
    for file in files {
        let file = folder.join(file);
        let Some(mut theirs) = tshark(&file, filter, fields) else {
            eprintln!("skipped: {test}: no tshark");
            return;
        };
        let mut ours: Vec<Vec<String>> = messages(&file).iter().filter_map(&show).collect();
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs, "{}", file.display());
        compared += ours.len();
    }
    assert_eq!(compared, expected, "messages compared");
}

#[test]
fn http_responses_are_tsharks_one_by_one() {
    // Not one_tcp_stream_max_seq.pcap, where the sequence number wraps: with these options tshark misses a
    // response that it shows without them.
    let files = [
        "206_example_b.pcap",
        "accecn_handshake.pcap",
        "methods.pcap",
        "syn_retransmit_with_ts.pcap",
        "tcp-fast-open.pcap",
        "tls-subjectaltname__input.pcap",
        "vlan-qinqinq.pcap",
        "vxlan-encapsulated-http.pcap",
    ];
    let fields = ["frame.time_epoch", "http.response.code"];
    let show = |flow: &L7Flow| match &flow.message {
        L7Message::Http(http) => http.status.map(|status| vec![flow.time.to_string(), status.to_string()]),
        _ => None,
    };
    compare("http_responses_are_tsharks_one_by_one", &files, "http.response", &fields, 95, show);
}

#[test]
fn http_requests_are_tsharks_one_by_one() {
    // methods.pcap holds requests that are none (`GET /HTTP/1.1`), which tshark shows and we count as malformed.
    let files = [
        "206_example_b.pcap",
        "gre-aruba.pcap",
        "ocs.pcap",
        "tcp-fast-open.pcap",
        "tls-subjectaltname__input.pcap",
        "vxlan-encapsulated-http.pcap",
    ];
    let fields = ["http.request.method", "http.request.uri"];
    let show = |flow: &L7Flow| match &flow.message {
        L7Message::Http(http) if http.status.is_none() => Some(vec![http.method.clone(), http.path.clone()]),
        _ => None,
    };
    compare("http_requests_are_tsharks_one_by_one", &files, "http.request", &fields, 101, show);
}

#[test]
fn http2_statuses_and_paths_are_tsharks() {
    let show = |flow: &L7Flow| match &flow.message {
        L7Message::Http(http) if http.protocol == "HTTP/2" => {
            let is_request = flow.kind == L7Type::Request;
            let asked = |text: &String| if is_request { text.clone() } else { String::new() };
            let status = http.status.map(|status| status.to_string()).unwrap_or_default();
            Some(vec![status, asked(&http.method), asked(&http.path)])
        }
        _ => None,
    };
    let fields = ["http2.headers.status", "http2.headers.method", "http2.headers.path"];
    let filter = "http2.headers.status or http2.headers.method";
    let files = ["http2-keywords2__input.pcap", "http2.pcapng"];
    compare("http2_statuses_and_paths_are_tsharks", &files, filter, &fields, 5, show);
}

#[test]
fn dns_answers_and_latencies_are_tsharks() {
    let files = [
        "dns-tcp-multirequest-buffer.pcap",
        "many_interfaces-1.pcapng",
        "tls-subjectaltname__input.pcap",
        "ocs.pcap",
    ];
    let fields = ["dns.qry.name", "dns.flags.rcode", "dns.count.answers", "dns.time"];
    let show = |flow: &L7Flow| match &flow.message {
        L7Message::Dns(dns) if flow.kind == L7Type::Response => {
            let latency =
                flow.latency.map(|latency| latency.to_string().replace(" s", "")).unwrap_or_default();
            let number = |value: Option<u16>| value.unwrap().to_string();
            Some(vec![dns.query.clone(), number(dns.rcode), number(dns.answers), latency])
        }
        _ => None,
    };
    compare("dns_answers_and_latencies_are_tsharks", &files, "dns.flags.response == 1", &fields, 64, show);
}

#[test]
fn tls_names_are_tsharks() {
    let files =
        ["tls-subjectaltname__input.pcap", "ocs.pcap", "pppoe-over-qinq.pcap", "http2-data-reassembly.pcap"];
    let show = |flow: &L7Flow| match &flow.message {
        L7Message::Tls(tls) if flow.kind == L7Type::Request => Some(vec![tls.server_name.clone()]),
        _ => None,
    };
    let filter = "tls.handshake.type == 1 and tcp";
    compare("tls_names_are_tsharks", &files, filter, &["tls.handshake.extensions_server_name"], 47, show);
}

#[test]
fn kafka_headers_are_tsharks() {
    let show = |flow: &L7Flow| match &flow.message {
        L7Message::Kafka(kafka) if flow.kind == L7Type::Request => {
            let numbers = [i32::from(kafka.api_key), kafka.api_version.into(), kafka.correlation_id];
            Some(numbers.map(|number| number.to_string()).to_vec())
        }
        _ => None,
    };
    let fields = ["kafka.api_key", "kafka.api_version", "kafka.correlation_id"];
    compare("kafka_headers_are_tsharks", &["kafka.pcapng"], "kafka.request_key", &fields, 14, show);
}

/// HTTP/1 codes, HTTP/2 statuses, DNS rcodes, and DNS latencies in ns of one capture.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcomes {
    http1: Vec<String>,
    http2: Vec<String>,
    rcodes: Vec<String>,
    latencies: Vec<i64>,
}

impl Outcomes {
    fn ours(file: &Path) -> Self {
        let mut outcomes = Self::default();
        for flow in messages(file).into_iter().filter(|flow| flow.kind == L7Type::Response) {
            match flow.message {
                L7Message::Http(http) if http.protocol == "HTTP/2" => {
                    outcomes.http2.extend(http.status.map(|status| status.to_string()));
                }
                L7Message::Http(http) => outcomes.http1.extend(http.status.map(|status| status.to_string())),
                L7Message::Dns(dns) => {
                    outcomes.rcodes.extend(dns.rcode.map(|rcode| rcode.to_string()));
                    outcomes.latencies.extend(flow.latency.map(|latency| latency.as_nanos()));
                }
                _ => {}
            }
        }
        outcomes.sorted()
    }

    fn tsharks(file: &Path, options: &[&str]) -> Option<Self> {
        let filter = "http.response or http2.headers.status or dns.flags.response == 1";
        let fields = ["http.response.code", "http2.headers.status", "dns.flags.rcode", "dns.time"];
        let mut columns: [Vec<String>; 4] = Default::default();
        for line in tshark_with(options, file, filter, &fields)? {
            for (column, values) in columns.iter_mut().zip(line) {
                column.extend(values.split('|').filter(|value| !value.is_empty()).map(str::to_owned));
            }
        }
        let [http1, http2, rcodes, seconds] = columns;
        #[expect(clippy::cast_possible_truncation, reason = "seconds of a capture as nanoseconds")]
        let latencies = seconds.iter().map(|text| (text.parse::<f64>().unwrap() * 1e9).round() as i64);
        let latencies = latencies.collect();
        Some(Self { http1, http2, rcodes, latencies }.sorted())
    }

    fn sorted(mut self) -> Self {
        for values in [&mut self.http1, &mut self.http2, &mut self.rcodes] {
            values.sort();
        }
        self.latencies.sort_unstable();
        self
    }

    /// A row of the table: `200 x 3, 404`.
    fn row(&self, file: &str, off: i64) -> String {
        let counted = |values: &[String]| {
            let runs = values.chunk_by(|a, b| a == b);
            let run = |run: &[String]| match run.len() {
                1 => run[0].clone(),
                count => format!("{} x {count}", run[0]),
            };
            runs.map(run).collect::<Vec<_>>().join(", ")
        };
        let [http1, http2, rcodes] = [&self.http1, &self.http2, &self.rcodes].map(|values| counted(values));
        let latency = match self.latencies.len() {
            0 => String::new(),
            count => format!("{count}, at most {off} ns off"),
        };
        format!("| {file} | {http1} | {http2} | {rcodes} | {latency} |")
            .replace("|  |", "| |")
            .replace("|  |", "| |")
    }
}

/// Every capture of the collection against tshark; the documentation has the table that this makes.
#[test]
fn every_capture_says_what_tshark_says() {
    const TEST: &str = "every_capture_says_what_tshark_says";
    let Some((folder, truth)) = collection(TEST) else { return };
    let mut table = Vec::new();
    for name in truth.as_object().unwrap().keys().filter(|name| *name != "_meta") {
        let file = folder.join(name);
        // Where the sequence number wraps, tshark shows a response only if it may wait for the whole body.
        let options = if name == "one_tcp_stream_max_seq.pcap" { &[][..] } else { &HEADS[..] };
        let Some(theirs) = Outcomes::tsharks(&file, options) else {
            eprintln!("skipped: {TEST}: no tshark");
            return;
        };
        let ours = Outcomes::ours(&file);
        assert_eq!(
            (&ours.http1, &ours.http2, &ours.rcodes, ours.latencies.len()),
            (&theirs.http1, &theirs.http2, &theirs.rcodes, theirs.latencies.len()),
            "{name}"
        );
        let off = ours.latencies.iter().zip(&theirs.latencies).map(|(a, b)| (a - b).abs()).max().unwrap_or(0);
        assert!(off < 1_000_000, "{name}: DNS latency is {off} ns off");
        if ours != Outcomes::default() {
            table.push(ours.row(name, off));
        }
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/l7.md");
    let page = std::fs::read_to_string(page).unwrap();
    let absent: Vec<&String> = table.iter().filter(|row| !page.contains(row.as_str())).collect();
    assert!(absent.is_empty(), "docs/src/l7.md has other rows than\n{}", table.join("\n"));
}
