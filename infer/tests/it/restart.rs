//! Nothing is lost and nothing repeated over restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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

/// Killed fifty times at points that differ, with a receiver that fails every fifth time: in the end everything
/// that was due has come, and nothing under two ids.
#[test]
fn killed_at_any_point_nothing_is_lost() {
    let lossy = |window: i64, server: u8| (window + 3 * i64::from(server)) % 16 < 6;
    let bench = Bench::new(&Script { windows: 60, servers: 9, flows: 2, lossy, ..Script::default() });
    let due: BTreeSet<String> = {
        let receiver = Receiver::start(|_| Answer::Status(200));
        assert!(bench.run(&["--webhook", &receiver.url]).status.success());
        receiver.accepted().iter().map(|request| request.id().to_owned()).collect()
    };
    assert!(due.len() > 30, "{} messages are due", due.len());
    let receiver = Receiver::start(|place| Answer::Status(if place % 5 == 4 { 500 } else { 200 }));
    let args = ["--webhook", &receiver.url, "--state-dir", "state", "--print", "none"];
    let mut kills = 0;
    for round in 0..50u64 {
        let mut child = bench.start(&args);
        // From before the state is open to the midst of the deliveries.
        std::thread::sleep(Duration::from_millis(5 + round * 37 % 120));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
    }
    let output = bench.run(&[&args[..], &["--drain", "120s"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let mut came: BTreeMap<String, u64> = BTreeMap::new();
    for request in receiver.accepted() {
        *came.entry(request.id().to_owned()).or_default() += 1;
    }
    let repeated = came.values().filter(|count| **count > 1).count();
    eprintln!(
        "{kills} kills, {} messages due, {} came, {repeated} of them more than once",
        due.len(),
        came.len()
    );
    assert_eq!(came.into_keys().collect::<BTreeSet<String>>(), due);
}
