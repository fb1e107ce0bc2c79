//! What receivers get, and what happens where they do not take it.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::Duration;

use infer::notify::{SigningKeys, Verifier, VerifyError};

use crate::binary::{Bench, stderr};
use crate::fixture::Script;
use crate::receiver::{Answer, Receiver, Request};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn statuses(requests: &[Request]) -> Vec<String> {
    requests.iter().map(|request| request.json()["data"]["status"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_incident_is_told_when_it_begins_and_when_it_is_over() {
    let bench = Bench::new(&Script::default());
    let receiver = Receiver::start(|_| Answer::Status(204));
    let output = bench.run(&["--webhook", &receiver.url]);
    assert!(output.status.success(), "{}", stderr(&output));
    let requests = receiver.requests();
    assert_eq!(statuses(&requests), ["firing", "resolved"]);
    let firing = requests[0].json();
    assert_eq!(requests[0].headers["content-type"], "application/cloudevents+json; charset=utf-8");
    assert_eq!(firing["specversion"], "1.0");
    assert_eq!(firing["id"], requests[0].id());
    assert_eq!(firing["type"], "io.faultline.incident.firing");
    assert_eq!(firing["source"], "faultline://node/node-1");
    assert_eq!(firing["subject"], "endpoint/198.18.1.1:80/6");
    // Windows 5, 6 and 7 vote; the third one's end is 40 s after the start.
    assert_eq!(firing["time"], "2023-11-14T22:14:00.000000000Z");
    let data = &firing["data"];
    assert_eq!(data["fault"], "packet-loss");
    assert_eq!(data["mode"], "dry-run");
    assert_eq!(data["rows"], serde_json::json!({"named_it": 4, "answered": 4}));
    assert_eq!(data["features"][0]["feature"], "retransmission_rate");
    // Four packets of twenty-four are repetitions; the model of the test draws the line at 0.05.
    assert_eq!(data["features"][0]["baseline"], 0.0);
    assert!(data["features"][0]["value"].as_f64().unwrap() > 0.15, "{data}");
    assert!((data["features"][0]["threshold"].as_f64().unwrap() - 0.05).abs() < 1e-6, "{data}");
    assert_eq!(data["recording"]["file"], "run.mcap");
    assert_eq!(data["window"]["start"], "2023-11-14T22:13:55.000000000Z");
    let resolved = requests[1].json();
    assert_eq!(resolved["data"]["incident"], data["incident"]);
    assert_ne!(requests[0].id(), requests[1].id());
}

#[test]
fn a_quiet_recording_tells_nobody_anything() {
    let bench = Bench::new(&Script { lossy: |_, _| false, ..Script::default() });
    let receiver = Receiver::start(|_| Answer::Status(200));
    assert!(bench.run(&["--webhook", &receiver.url]).status.success());
    assert_eq!(receiver.requests().len(), 0);
}

#[test]
fn windows_with_much_loss_neither_fire_nor_resolve() {
    // Of 5 x 2 x 4 x 20 packets more than one in a hundred is lost in every window from 7 on.
    let bench = Bench::new(&Script { unseen: |window| if window >= 7 { 5 } else { 0 }, ..Script::default() });
    let receiver = Receiver::start(|_| Answer::Status(200));
    assert!(bench.run(&["--webhook", &receiver.url]).status.success());
    assert_eq!(receiver.requests().len(), 0);
    // With the loss later, the incident is stale instead of resolved.
    let bench =
        Bench::new(&Script { unseen: |window| if window >= 12 { 5 } else { 0 }, ..Script::default() });
    assert!(bench.run(&["--webhook", &receiver.url]).status.success());
    assert_eq!(statuses(&receiver.requests()), ["firing", "stale"]);
}

#[test]
fn a_signed_message_is_verified_once() {
    let bench = Bench::new(&Script::default());
    std::fs::write(bench.path().join("key"), format!("{KEY}\n")).unwrap();
    let receiver = Receiver::start(|_| Answer::Status(200));
    let output = bench.run(&["--webhook", &receiver.url, "--webhook-secret-file", "key"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("MfKQ9r8"));
    let mut verifier = Verifier::new(SigningKeys::parse([KEY]).unwrap());
    let requests = receiver.requests();
    for request in &requests {
        let now = request.headers["webhook-timestamp"].parse().unwrap();
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        assert_eq!(verifier.verify(header, &request.body, now).as_deref(), Ok(request.id()));
        assert!(matches!(verifier.verify(header, &request.body, now), Err(VerifyError::Repeated { .. })));
        let mut changed = request.body.clone();
        changed[10] ^= 1;
        assert_eq!(verifier.verify(header, &changed, now), Err(VerifyError::Signature));
    }
    assert_eq!(requests.len(), 2);
}

#[test]
fn a_failed_delivery_is_tried_again_under_the_same_id() {
    let bench = Bench::new(&Script::default());
    let receiver = Receiver::start(|place| Answer::Status(if place < 2 { 500 } else { 200 }));
    let output = bench.run(&["--webhook", &receiver.url]);
    assert!(output.status.success(), "{}", stderr(&output));
    let requests = receiver.requests();
    assert_eq!(statuses(&requests), ["firing", "firing", "firing", "resolved"]);
    assert!(requests[..3].iter().all(|request| request.id() == requests[0].id()));
    assert!(stderr(&output).contains("not delivered"), "{}", stderr(&output));
}

#[test]
fn retry_after_is_heeded() {
    let bench = Bench::new(&Script::default());
    let receiver =
        Receiver::start(|place| if place == 0 { Answer::RetryAfter(429, 2) } else { Answer::Status(200) });
    let output = bench.run(&["--webhook", &receiver.url]);
    assert!(output.status.success(), "{}", stderr(&output));
    let requests = receiver.requests();
    assert!(requests[1].at - requests[0].at >= Duration::from_secs(2));
    assert_eq!(statuses(&requests), ["firing", "firing", "resolved"]);
}

#[test]
fn a_receiver_that_refuses_connections_costs_no_verdict() {
    let bench = Bench::new(&Script::default());
    let alone = bench.run(&[]);
    // A port that was free a moment ago: nobody listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = bench.run(&["--webhook", &format!("http://127.0.0.1:{port}/"), "--drain", "2s"]);
    assert_eq!(output.stdout, alone.stdout);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("messages were not delivered") && text.contains("cannot connect"), "{text}");
}

#[test]
fn what_a_receiver_will_never_take_becomes_a_dead_letter() {
    let bench = Bench::new(&Script::default());
    let receiver = Receiver::start(|place| Answer::Status(if place == 0 { 404 } else { 200 }));
    let output = bench.run(&["--webhook", &receiver.url]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(statuses(&receiver.requests()), ["firing", "resolved"]);
    assert!(stderr(&output).contains("404"), "{}", stderr(&output));
    let gone = Receiver::start(|_| Answer::Status(410));
    let output = bench.run(&["--webhook", &gone.url]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(gone.requests().len(), 1);
    let redirecting = Receiver::start(|_| Answer::Status(307));
    let output = bench.run(&["--webhook", &redirecting.url]);
    assert!(stderr(&output).contains("redirects are not followed"), "{}", stderr(&output));
}

#[test]
fn a_slow_receiver_delays_no_verdict() {
    let bench = Bench::new(&Script::default());
    let alone = bench.run(&[]);
    let receiver = Receiver::start(|_| Answer::Held);
    let mut child = bench.start(&["--webhook", &receiver.url]);
    let mut printed = vec![0; alone.stdout.len()];
    // Every line is there while the receiver has not answered anything.
    child.stdout.take().unwrap().read_exact(&mut printed).unwrap();
    assert_eq!(printed, alone.stdout);
    assert_eq!(receiver.accepted().len(), 0);
    receiver.release();
    assert!(child.wait().unwrap().success());
    assert_eq!(statuses(&receiver.accepted()), ["firing", "resolved"]);
}

#[test]
fn one_slow_receiver_does_not_delay_another() {
    let bench = Bench::new(&Script::default());
    let slow = Receiver::start(|_| Answer::Held);
    let quick = Receiver::start(|_| Answer::Status(200));
    let mut child = bench.start(&["--print", "none", "--webhook", &slow.url, "--webhook", &quick.url]);
    quick.wait_for(2);
    assert_eq!(slow.accepted().len(), 0);
    slow.release();
    assert!(child.wait().unwrap().success());
    assert_eq!((slow.accepted().len(), quick.accepted().len()), (2, 2));
}
