//! Nothing is lost and nothing repeated over restarts.

use crate::binary::{Bench, stderr};
use crate::fixture::Script;
use crate::receiver::{Answer, Receiver};

#[test]
fn what_was_delivered_is_not_sent_again() {
    let bench = Bench::new(&Script::default());
    let receiver = Receiver::start(|_| Answer::Status(200));
    for _ in 0..3 {
        let output = bench.run(&["--webhook", &receiver.url, "--state-dir", "state"]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn what_could_not_be_delivered_is_delivered_by_the_next_run() {
    let bench = Bench::new(&Script::default());
    let receiver = Receiver::start(|place| Answer::Status(if place == 0 { 503 } else { 200 }));
    let output = bench.run(&["--webhook", &receiver.url, "--state-dir", "state", "--drain", "0s"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("kept for the next run"), "{}", stderr(&output));
    let output = bench.run(&["--webhook", &receiver.url, "--state-dir", "state"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(receiver.accepted().len(), 2);
}
