//! Dead letters and signatures from the command line.

use std::io::Write as _;
use std::process::Stdio;

use crate::binary::{Bench, infer, lines, stderr};
use crate::fixture::Script;
use crate::receiver::{Answer, Receiver};

#[test]
fn dead_letters_are_listed_and_sent_again() {
    let bench = Bench::new(&Script::default());
    let receiver = Receiver::start(|place| Answer::Status(if place == 0 { 404 } else { 200 }));
    let output = bench.run(&["--webhook", &receiver.url, "--state-dir", "state"]);
    assert_eq!(output.status.code(), Some(1));
    let dlq = |args: &[&str]| {
        let output =
            infer(bench.path()).arg("dlq").args(args).args(["--state-dir", "state"]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output
    };
    let letters = lines(&dlq(&["list"]));
    assert_eq!(letters.len(), 1);
    assert!(letters[0]["letter"]["reason"].as_str().unwrap().starts_with("404"));
    dlq(&["replay"]);
    assert_eq!(lines(&dlq(&["list"])).len(), 0);
    let output = bench.run(&["--webhook", &receiver.url, "--state-dir", "state"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let accepted = receiver.accepted();
    assert_eq!(accepted.len(), 2);
    assert_eq!(accepted[1].id(), letters[0]["letter"]["message"]["id"].as_str().unwrap());
}

#[test]
fn a_signature_is_checked_for_receivers_without_a_library() {
    let bench = Bench::new(&Script { windows: 1, ..Script::default() });
    std::fs::write(bench.path().join("key"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let verify = |body: &str, now: &str| {
        let mut child = infer(bench.path())
            .args(["webhook", "verify", "--secret-file", "key", "--id", "msg_p5jXN8AQM9LWM0D4loKWxJek"])
            .args(["--timestamp", "1614265330", "--now", now])
            .args(["--signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    assert!(verify("{\"test\": 2432232314}", "1614265400").status.success());
    let output = verify("{\"test\": 2432232314}", "1614275400");
    assert!(stderr(&output).contains("replay"), "{}", stderr(&output));
    assert_eq!(verify("{\"test\": 1}", "1614265400").status.code(), Some(1));
}
