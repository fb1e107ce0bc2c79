//! What is printed, and how a run ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::process::Stdio;

use event::Label;
use model::Kind;

use crate::binary::{Bench, infer, lines, stderr};
use crate::fixture::{self, Script, Stump};

#[test]
fn every_row_gets_a_verdict_and_the_lossy_ones_are_named() {
    let bench = Bench::new(&Script::default());
    let output = bench.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = lines(&output);
    assert_eq!(lines.len(), 40 * 2 * 4);
    let faults: Vec<_> = lines.iter().filter(|line| line["verdict"] == "fault").collect();
    assert_eq!(faults.len(), 10 * 4);
    for fault in &faults {
        assert_eq!(fault["fault"], "packet-loss");
        assert_eq!(fault["dst_ip"], "198.18.1.1");
        assert_eq!(fault["runner_up"], "normal");
        assert!(fault["confidence"].as_f64().unwrap() > 0.9);
        assert_eq!(fault["model"], "decision-tree");
        assert_eq!(fault["model_hash"].as_str().unwrap().len(), 64);
        assert_eq!(fault["features"][0]["feature"], "retransmission_rate");
        assert_eq!(fault["features"][0]["baseline"], 0.0);
        assert!((fault["features"][0]["threshold"].as_f64().unwrap() - 0.05).abs() < 1e-6);
    }
    let windows: BTreeSet<&str> = faults.iter().map(|line| line["window"].as_str().unwrap()).collect();
    assert_eq!(windows.len(), 10);
    assert_eq!(windows.first().copied(), Some("2023-11-14T22:13:45.000000000Z"));
}

#[test]
fn the_same_recording_gives_the_same_bytes_with_any_number_of_threads() {
    let bench = Bench::new(&Script { flows: 200, windows: 10, ..Script::default() });
    let run = |threads: &str| bench.command(&[]).env("RAYON_NUM_THREADS", threads).output().unwrap().stdout;
    let one = run("1");
    assert!(one.len() > 100_000);
    assert!(one == run("4"), "the output depends on the number of threads");
}

#[test]
fn explanations_are_bounded_by_a_number_of_rows() {
    let bench = Bench::new(&Script { windows: 6, ..Script::default() });
    let output = bench.run(&["--explain", "1", "--print", "faults"]);
    let lines = lines(&output);
    assert_eq!(lines.len(), 4);
    assert_eq!(lines.iter().filter(|line| line.get("features").is_some()).count(), 1);
}

#[test]
fn a_damaged_recording_is_read_as_far_as_it_goes() {
    let bench = Bench::new(&Script::default());
    let whole = bench.run(&[]);
    let bytes = std::fs::read(&bench.recording).unwrap();
    std::fs::write(&bench.recording, &bytes[..bytes.len() / 2]).unwrap();
    let cut = bench.run(&[]);
    assert_eq!(cut.status.code(), Some(3), "{}", stderr(&cut));
    assert!(stderr(&cut).contains("damaged"), "{}", stderr(&cut));
    assert!(!cut.stdout.is_empty());
    // The last window may have been cut in its midst.
    let windows = |lines: Vec<serde_json::Value>| -> Vec<String> {
        let last = lines.last().unwrap()["window"].clone();
        lines.iter().filter(|line| line["window"] != last).map(ToString::to_string).collect()
    };
    let kept = windows(lines(&cut));
    assert_eq!(kept[..], windows(lines(&whole))[..kept.len()]);
}

#[test]
fn what_cannot_start_says_what_to_do() {
    let bench = Bench::new(&Script { windows: 1, ..Script::default() });
    let foreign = tempfile::tempdir().unwrap();
    let foreign_model = fixture::foreign_model(foreign.path());
    let run = |model: &std::path::Path, from: &std::path::Path, more: &[&str]| {
        let output = infer(bench.path())
            .arg("--model")
            .arg(model)
            .arg("--from")
            .arg(from)
            .args(more)
            .output()
            .unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, text) = run(&foreign_model, &bench.recording, &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("schema") && text.contains("train it again"), "{text}");
    let (code, text) = run(&bench.path().join("none.flm"), &bench.recording, &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("none.flm"), "{text}");
    let (code, text) = run(&bench.model, &bench.model, &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("model.flm"), "{text}");
    let (code, text) = run(&bench.model, &bench.recording, &["--webhook", "http://169.254.169.254/"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("link-local"), "{text}");
    let mut changed = std::fs::read(&bench.model).unwrap();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let path = bench.path().join("changed.flm");
    std::fs::write(&path, changed).unwrap();
    let (code, text) = run(&path, &bench.recording, &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("changed.flm") && text.contains("SHA-256"), "{text}");
    let (code, _) = run(&bench.model, &bench.recording, &["--lateness", "soon"]);
    assert_eq!(code, Some(2));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let bench = Bench::new(&Script { flows: 400, windows: 20, ..Script::default() });
    let mut child = bench.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn without_a_model_the_built_in_one_judges_or_is_asked_for() {
    let bench = Bench::new(&Script { windows: 2, ..Script::default() });
    let output = infer(bench.path()).arg("--from").arg(&bench.recording).output().unwrap();
    let default = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/default.flm");
    if default.exists() {
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(lines(&output).len(), 2 * 2 * 4);
    } else {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("--model FILE"), "{}", stderr(&output));
    }
}

/// The models of one run in the order in which they are asked, and what each row's verdict says of who decided.
#[test]
fn of_several_models_the_first_that_knows_an_answer_decides_and_is_named() {
    let bench = Bench::new(&Script::default());
    // Knows loss when it sees it, and of anything else little.
    let forest =
        Stump { name: "forest.flm", kind: Kind::RandomForest, normal: [0.55, 0.04], ..Stump::default() };
    let rules = Stump { name: "rules.flm", kind: Kind::Rules, normal: [0.95, 0.95], ..Stump::default() };
    let isolation = Stump {
        name: "isolation.flm",
        kind: Kind::IsolationForest,
        fault: Label::ANOMALY,
        normal: [0.1, 0.1],
        ..Stump::default()
    };
    let paths = [&forest, &rules, &isolation].map(|stump| stump.save(bench.path()));
    let decided = |models: &[usize]| {
        let mut command = infer(bench.path());
        command.arg("--from").arg(&bench.recording);
        for place in models {
            command.arg("--model").arg(&paths[*place]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let mut counts = BTreeMap::new();
        for line in lines(&output) {
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            *counts.entry((text("model"), text("verdict"), text("fault"))).or_insert(0) += 1;
        }
        counts
    };
    let said = |model: &str, verdict: &str, fault: &str, rows: u32| {
        ((model.to_owned(), verdict.to_owned(), fault.to_owned()), rows)
    };
    // 40 windows of 8 flows, 4 of them lossy in 10 windows.
    let loss = said("random-forest", "fault", "packet-loss", 40);
    assert_eq!(decided(&[0]), [loss.clone(), said("random-forest", "unknown", "normal", 280)].into());
    assert_eq!(decided(&[0, 1, 2]), [loss.clone(), said("rules", "normal", "normal", 280)].into());
    assert_eq!(decided(&[0, 2]), [loss, said("isolation-forest", "fault", "anomaly", 280)].into());
}
