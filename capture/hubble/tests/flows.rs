//! Real Hubble flows, and every form in which they are written.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::io::{BufReader, Cursor};
use std::path::Path;

use event::{Duration, Event, L7Flow, L7Message, L7Type, LossCause, Verdict};
use hubble::proto::GetFlowsResponse;
use hubble::{BadLine, Converter, JsonReader, Skip};
use proptest::prelude::*;
use prost::Message as _;

fn read(text: &[u8]) -> (Vec<GetFlowsResponse>, Vec<BadLine>, u64) {
    let mut reader = JsonReader::new(BufReader::new(Cursor::new(text)));
    let (mut messages, mut bad) = (Vec::new(), Vec::new());
    while let Some(line) = reader.next().unwrap() {
        match line {
            Ok(line) => messages.push(line.message),
            Err(line) => bad.push(line),
        }
    }
    (messages, bad, reader.other_lines())
}

fn events(messages: &[GetFlowsResponse]) -> (Vec<Event>, Converter) {
    let mut converter = Converter::default();
    let events = messages.iter().filter_map(|message| converter.event(message, None)).collect();
    (events, converter)
}

fn flow(line: &str) -> L7Flow {
    let (messages, bad, _) = read(line.as_bytes());
    assert_eq!(bad, []);
    match events(&messages).0.remove(0) {
        Event::L7(flow) => *flow,
        other => panic!("{other:?}"),
    }
}

/// What stands around the part that a test is about.
fn line(l7: &str) -> String {
    format!(
        r#"{{"flow":{{"time":"2024-01-02T03:04:05.5Z","verdict":"FORWARDED","IP":{{"source":"10.0.0.1","destination":"10.0.0.2"}},
        "l4":{{"TCP":{{"source_port":40000,"destination_port":80}}}},"Type":"L7","event_type":{{"type":129}},{l7}}}}}"#
    )
    .replace('\n', "")
}

#[test]
fn the_collection_reads_to_its_end_and_loses_nothing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/hubble/flows.jsonl");
    let Ok(text) = std::fs::read(&path) else {
        eprintln!("skipped: the_collection_reads_to_its_end_and_loses_nothing: no {}", path.display());
        return;
    };
    let (messages, bad, others) = read(&text);
    assert_eq!(bad, []);
    assert_eq!(messages.len() + usize::try_from(others).unwrap(), 620);
    let (events, converter) = events(&messages);
    let counts = converter.counts();
    let skipped: u64 = Skip::ALL.iter().map(|reason| counts.skipped(*reason)).sum();
    assert_eq!(counts.read, counts.used + skipped);
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for event in &events {
        let name = match event {
            Event::L7(flow) => match (&flow.message, flow.kind) {
                (L7Message::None, _) => "packets".to_owned(),
                (L7Message::Dns(_), kind) => format!("dns {kind:?}"),
                (L7Message::Http(_), kind) => format!("http {kind:?}"),
                (_, kind) => format!("other {kind:?}"),
            },
            Event::Mark(_) => "node status".to_owned(),
            _ => "loss".to_owned(),
        };
        *kinds.entry(name).or_default() += 1;
    }
    let of = |name: &str| kinds.get(name).copied().unwrap_or_default();
    assert_eq!((of("dns Request"), of("dns Response")), (92, 91), "{kinds:?}");
    assert_eq!((of("http Request"), of("http Response")), (100, 99), "{kinds:?}");
    assert_eq!((of("other Request"), of("loss")), (1, 4), "{kinds:?} {counts}");
    // The protobuf of each message says the same as its JSON.
    for message in &messages {
        let decoded = GetFlowsResponse::decode(message.encode_to_vec().as_slice()).unwrap();
        assert_eq!(&decoded, message);
    }
}

#[test]
fn a_response_runs_from_server_to_client_and_has_its_latency() {
    let text = line(
        r#""is_reply":true,"l7":{"type":"RESPONSE","latency_ns":"460125","http":{"code":503,"method":"GET",
        "url":"http://user:secret@host/a/b?token=secret","protocol":"HTTP/1.1"}}"#,
    );
    let flow = flow(&text);
    assert_eq!((flow.kind, flow.is_reply), (L7Type::Response, Some(true)));
    assert_eq!(flow.latency, Some(Duration::from_nanos(460_125)));
    assert_eq!(flow.time.to_string(), "1704164645.500000000");
    let L7Message::Http(http) = flow.message else { panic!() };
    assert_eq!((http.status, http.path.as_str(), http.is_grpc), (Some(503), "/a/b", false));
}

#[test]
fn grpc_is_http2_with_its_content_type_and_its_status_may_be_unknown() {
    let with = |headers: &str| {
        let text = line(&format!(
            r#""l7":{{"type":"RESPONSE","http":{{"code":200,"method":"POST","url":"http://h/p.Service/Call",
            "protocol":"HTTP/2","headers":[{{"key":"Content-Type","value":"application/grpc+proto"}}{headers}]}}}}"#
        ));
        match flow(&text).message {
            L7Message::Http(http) => (http.is_grpc, http.path, http.grpc_status),
            other => panic!("{other:?}"),
        }
    };
    let path = "/p.Service/Call".to_owned();
    assert_eq!(with(""), (true, path.clone(), None));
    assert_eq!(with(r#",{"key":"Grpc-Status","value":"14"}"#), (true, path, Some(14)));
}

#[test]
fn dns_answers_count_records_and_get_a_latency_from_their_query() {
    let ask = line(r#""l7":{"type":"REQUEST","dns":{"query":"a.example.","qtypes":["A"]}}"#);
    let answer = |dns: &str| {
        line(&format!(r#""l7":{{"type":"RESPONSE","dns":{{"query":"A.example.","qtypes":["A"],{dns}}}}}"#))
            .replace(
                r#""source":"10.0.0.1","destination":"10.0.0.2""#,
                r#""source":"10.0.0.2","destination":"10.0.0.1""#,
            )
            .replace(
                r#""source_port":40000,"destination_port":80"#,
                r#""source_port":80,"destination_port":40000"#,
            )
            .replace("05.5Z", "05.503Z")
    };
    for (dns, expected) in [
        (r#""rrtypes":["CNAME","A","A"],"ips":["1.1.1.1"]"#, (Some(0), Some(3))),
        (r#""ips":["1.1.1.1"],"cnames":["b"]"#, (Some(0), Some(2))),
        (r#""rcode":3,"ttl":4294967295"#, (Some(3), Some(0))),
    ] {
        let (messages, bad, _) = read(format!("{ask}\n{}\n", answer(dns)).as_bytes());
        assert_eq!(bad, []);
        let (events, _) = events(&messages);
        let Event::L7(flow) = &events[1] else { panic!() };
        let L7Message::Dns(message) = &flow.message else { panic!() };
        assert_eq!((message.rcode, message.answers), expected);
        assert_eq!(flow.latency, Some(Duration::from_millis(3)), "{dns}");
    }
}

#[test]
fn names_of_a_newer_server_keep_their_text_or_leave_the_rest_as_it_is() {
    let text = line(
        r#""drop_reason_desc":"EATEN_BY_BEES","l7":{"type":"HICCUP","kafka":{"api_key":"shrug","correlation_id":3}}"#,
    );
    let dropped = text.replace("FORWARDED", "DROPPED");
    let strange = text.replace("FORWARDED", "BAMBOOZLED");
    let mut reader = JsonReader::new(Cursor::new(format!("{dropped}\n{strange}\n")));
    let mut converter = Converter::default();
    let mut flows = Vec::new();
    while let Some(line) = reader.next().unwrap() {
        match converter.json_event(&line.unwrap()) {
            Some(Event::L7(flow)) => flows.push(flow),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(flows[0].drop_reason.as_deref(), Some("EATEN_BY_BEES"));
    assert_eq!((flows[0].verdict, flows[1].verdict), (Some(Verdict::Dropped), None));
    assert_eq!((flows[0].kind, flows[1].drop_reason.as_deref()), (L7Type::None, None));
    let L7Message::Kafka(kafka) = &flows[1].message else { panic!("{flows:?}") };
    assert_eq!((kafka.api_key, kafka.correlation_id), (-1, 3));
}

#[test]
fn a_packet_that_policy_dropped_counts_once() {
    let record = |kind: u8, time: &str| {
        line(r#""drop_reason_desc":"POLICY_DENIED""#)
            .replace("FORWARDED", "DROPPED")
            .replace(r#""type":129"#, &format!(r#""type":{kind}"#))
            .replace("05.5Z", time)
    };
    // A verdict and its drop; the same again a second later; a drop of an unknown reason alone.
    let alone = record(1, "09Z").replace(r#""POLICY_DENIED""#, "777");
    let lines = [record(5, "05.5Z"), record(1, "05.501Z"), record(5, "06.5Z"), record(1, "06.501Z"), alone];
    let (messages, _, _) = read(lines.join("\n").as_bytes());
    let (events, converter) = events(&messages);
    let reasons: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::L7(flow) => (flow.verdict, flow.drop_reason.clone().unwrap()),
            other => panic!("{other:?}"),
        })
        .collect();
    let dropped = |reason: &str| (Some(Verdict::Dropped), reason.to_owned());
    assert_eq!(reasons, [dropped("POLICY_DENIED"), dropped("POLICY_DENIED"), dropped("777")]);
    assert_eq!(converter.counts().skipped(Skip::SecondRecord), 2);
}

#[test]
fn what_hubble_lost_is_told_by_its_source() {
    let lost = |source: &str| {
        format!(
            r#"{{"lost_events":{{"source":{source},"num_events_lost":"40"}},"time":"2024-01-02T03:04:05Z"}}"#
        )
    };
    let text = [lost(r#""HUBBLE_RING_BUFFER""#), lost("2"), lost(r#""SOMETHING_NEW""#)].join("\n");
    let (messages, _, _) = read(text.as_bytes());
    let (events, converter) = events(&messages);
    let causes: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Loss(loss) => (loss.cause, loss.count),
            other => panic!("{other:?}"),
        })
        .collect();
    let causes_expected = [LossCause::UpstreamRing, LossCause::UpstreamQueue, LossCause::Upstream];
    assert_eq!(causes, causes_expected.map(|cause| (cause, 40)));
    let lost = converter.counts().lost;
    assert_eq!((lost.kernel, lost.queue, lost.ring, lost.elsewhere), (0, 40, 40, 40));
}

#[test]
fn bad_lines_are_numbered_and_stop_nothing() {
    let good = line(r#""l7":{"type":"REQUEST","http":{"method":"GET","url":"/"}}"#);
    let bare = &good[8..good.len() - 1];
    let text = format!(
        "level=info msg=\"starting\"\n{good}\n{{\"flow\":{{\"time\":\"yesterday\"}}}}\n\n{{\"level\":\"info\"}}\n{bare}\n{}",
        &good[..50]
    );
    let text = format!("{text}\n[{good}]\n");
    let (messages, bad, others) = read(text.as_bytes());
    assert_eq!((messages.len(), others), (2, 2));
    assert_eq!(bad.iter().map(|bad| bad.number).collect::<Vec<_>>(), [3, 7, 8]);
    assert!(bad[2].reason.starts_with("an array"));
    assert_eq!(messages[0].flow, messages[1].flow, "wrapped and bare");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..300_usize, value in any::<u8>()) {
        read(&bytes);
        let mut text = line(r#""l7":{"type":"RESPONSE","latency_ns":"1","dns":{"query":"a.","rcode":3,"qtypes":["A"]}}"#).into_bytes();
        let at = at % text.len();
        text[at] = value;
        let (messages, _, _) = read(&text);
        events(&messages);
        if let Ok(message) = GetFlowsResponse::decode(bytes.as_slice()) {
            events(&[message]);
        }
    }
}
