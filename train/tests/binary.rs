//! The real `train` in a temporary directory.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod noise;
mod rows;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use model::{Kind, Model};
use noise::Noise;
use rows::recording;
use tempfile::TempDir;

fn train(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_train")).current_dir(folder).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Twelve recordings of three classes.
fn folder() -> (TempDir, Vec<String>) {
    let folder = TempDir::new().unwrap();
    let mut noise = Noise(7);
    let mut names = Vec::new();
    for (label, run) in [0, 2, 4].into_iter().flat_map(|label| (0..4).map(move |run| (label, run))) {
        let name = format!("run-{label}-{run}.csv");
        std::fs::write(folder.path().join(&name), recording(label, 1_000_000, 12, &mut noise)).unwrap();
        names.push(name);
    }
    (folder, names)
}

fn arguments<'a>(names: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    names.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn a_model_is_written_and_judged() {
    let (folder, names) = folder();
    let more = ["--model", "rf", "--trees", "40", "-o", "model.flm", "--metrics-json", "-"];
    let output = train(folder.path(), &arguments(&names, &more));
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stderr(&output);
    for expected in ["precision", "recall", "packet-loss", "confusion matrix", "macro F1", "12 recordings"] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    let model = Model::load(&folder.path().join("model.flm")).unwrap();
    let meta = model.meta();
    assert_eq!(meta.window_ns, 5_000_000_000);
    assert_eq!(meta.classes.iter().map(|class| class.label).collect::<Vec<_>>(), [0, 2, 4]);
    assert_eq!(meta.training.data.len(), 12);
    let names = features::schema::inputs().map(|column| column.name);
    model.check_schema(features::schema::fingerprint(), names).unwrap();
    let scores: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(scores["sha256"], model.hash().to_string());
    let f1 = scores["evaluation"]["macro_f1"].as_f64().unwrap();
    assert!(f1 > 0.9, "the classes are easily told apart, and macro F1 is {f1}");
    let evaluation = &scores["evaluation"];
    assert_eq!(evaluation["groups"], 3);
    assert_eq!(evaluation["folds"].as_array().unwrap().len(), 5);
    let judged = 9 * 12 * 8;
    assert_eq!(evaluation["out_of_bag"]["rows"], judged);
    assert!(evaluation["out_of_bag"]["macro_f1"].as_f64().unwrap() > 0.9);
    assert!(text.contains("too good for a new recording"), "{text}");
    // The two inputs that carry the labels, and no others, decide.
    let first: Vec<&str> = evaluation["importance"].as_array().unwrap()[..2]
        .iter()
        .map(|importance| importance["input"].as_str().unwrap())
        .collect();
    assert!(first.contains(&"retransmission_rate"), "{first:?}");
    let baselines = evaluation["baselines"].as_array().unwrap();
    let names: Vec<&str> = baselines.iter().map(|baseline| baseline["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["commonest class", "rules", "single tree"]);
    assert!(f1 > baselines[0]["macro_f1"].as_f64().unwrap() + 0.2);
    assert!(meta.calibration.is_some());
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let (folder, names) = folder();
    for (threads, name) in [("1", "one.flm"), ("2", "two.flm"), ("7", "seven.flm")] {
        let more = ["--trees", "30", "--threads", threads, "-o", name];
        let output = train(folder.path(), &arguments(&names, &more));
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("one.flm"), read("two.flm"));
    assert_eq!(read("one.flm"), read("seven.flm"));
    let output =
        train(folder.path(), &arguments(&names, &["--trees", "30", "--seed", "2", "-o", "seed.flm"]));
    assert!(output.status.success());
    assert_ne!(read("one.flm"), read("seed.flm"));
}

#[test]
fn every_kind_of_model_is_written_judged_and_the_same_twice() {
    let (folder, names) = folder();
    let kinds = [("tree", Kind::DecisionTree), ("rules", Kind::Rules), ("iforest", Kind::IsolationForest)];
    for (name, kind) in kinds {
        for (threads, output) in [("1", "a.flm"), ("3", "b.flm")] {
            let more = ["--model", name, "--trees", "50", "--threads", threads, "-o", output];
            let output = train(folder.path(), &arguments(&names, &more));
            assert!(output.status.success(), "{name}: {}", stderr(&output));
            assert!(stderr(&output).contains("macro F1"), "{}", stderr(&output));
        }
        let bytes = std::fs::read(folder.path().join("a.flm")).unwrap();
        assert_eq!(bytes, std::fs::read(folder.path().join("b.flm")).unwrap(), "{name}");
        let model = Model::from_bytes(&bytes).unwrap();
        assert_eq!(model.meta().kind, kind);
        let classes = match kind {
            Kind::Rules => 12,
            Kind::IsolationForest => 2,
            _ => 3,
        };
        assert_eq!(model.classes().len(), classes);
        assert!(model.meta().evaluation.is_some());
    }
}

#[test]
fn rules_refuse_labels_they_cannot_name() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("a.csv"), recording(99, 0, 3, &mut Noise(1))).unwrap();
    let output = train(folder.path(), &["a.csv", "--model", "rules"]);
    assert!(stderr(&output).contains("label 99"), "{}", stderr(&output));
}

#[test]
fn one_file_with_silences_holds_several_recordings_and_may_come_by_stdin() {
    let folder = TempDir::new().unwrap();
    let mut noise = Noise(3);
    let mut all = String::new();
    for (part, label) in [0, 2, 0, 2, 0, 2].into_iter().enumerate() {
        let text = recording(label, 1_000_000 + 1000 * i64::try_from(part).unwrap(), 6, &mut noise);
        all += if part == 0 { &text } else { text.split_once('\n').unwrap().1 };
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_train"))
        .current_dir(folder.path())
        .args(["-", "--trees", "10"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), all.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("6 recordings in 1 files"), "{}", stderr(&output));
    assert!(Model::load(&folder.path().join("model.flm")).is_ok());
}

#[test]
fn a_class_that_was_recorded_once_is_said_not_to_be_judged() {
    let folder = TempDir::new().unwrap();
    let mut noise = Noise(3);
    for (name, label) in [("a.csv", 0), ("b.csv", 0), ("c.csv", 4)] {
        std::fs::write(folder.path().join(name), recording(label, 0, 6, &mut noise)).unwrap();
    }
    let output = train(folder.path(), &["a.csv", "b.csv", "c.csv", "--trees", "5"]);
    assert!(output.status.success());
    assert!(
        stderr(&output).contains("class syn-flood is not judged: 1 recording holds it"),
        "{}",
        stderr(&output)
    );
    let output = train(folder.path(), &["a.csv", "c.csv", "--trees", "5"]);
    assert!(output.status.success());
    assert!(stderr(&output).contains("its quality is unknown"), "{}", stderr(&output));
}

#[test]
fn bad_input_is_refused_with_its_place_and_a_remedy() {
    let folder = TempDir::new().unwrap();
    let good = recording(0, 0, 3, &mut Noise(1));
    let header = good.lines().next().unwrap();
    let names: Vec<&str> = header.split(',').collect();
    let set = |line: usize, column: &str, cell: &str| {
        let position = names.iter().position(|name| *name == column).unwrap();
        let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
        let mut cells: Vec<&str> = lines[line - 1].split(',').collect();
        cells[position] = cell;
        lines[line - 1] = cells.join(",");
        lines.join("\n")
    };
    let leak = |text: &str| -> String { text.lines().map(|line| format!("{line},1\n")).collect() };
    let cases = [
        (String::new(), vec!["x.csv", "is empty", "replay --window 5"]),
        (format!("{header}\n"), vec!["x.csv", "no rows"]),
        (good.clone(), vec!["label 0 (normal)", "at least two classes"]),
        (set(3, "anomaly_label", "NaN"), vec!["x.csv, line 3, column 103", "`NaN` is not a label"]),
        (set(3, "anomaly_label", ""), vec!["line 3, column 103", "no label"]),
        (set(4, "packet_count", "many"), vec!["line 4, column 9 (`packet_count`)", "`many` is not a finite"]),
        (set(4, "byte_count", "inf"), vec!["line 4, column 10 (`byte_count`)", "`inf`"]),
        (set(4, "is_blocked_flow", "2"), vec!["line 4", "is_blocked_flow", "0 or 1"]),
        (set(4, "timestamp", "yesterday"), vec!["line 4, column 1 (`timestamp`)"]),
        (set(1, "packet_count", "paket_count"), vec!["line 1, column 9 (`paket_count`)", "no such column"]),
        (set(1, "packet_count", "byte_count"), vec!["column 10 (`byte_count`)", "twice"]),
        (
            leak(&good).replacen(",1\n", ",recording_id\n", 1),
            vec!["`recording_id`", "look better than they are"],
        ),
        (good.replacen(",anomaly_label", "", 1), vec!["x.csv", "`anomaly_label` is missing"]),
        (format!("{good}1,2,3\n"), vec!["x.csv", "line: 26"]),
    ];
    for (text, expected) in cases {
        std::fs::write(folder.path().join("x.csv"), text).unwrap();
        std::fs::write(folder.path().join("model.flm"), "the good old model").unwrap();
        let output = train(folder.path(), &["x.csv"]);
        assert_eq!(output.status.code(), Some(1), "{expected:?}");
        for expected in expected {
            assert!(stderr(&output).contains(expected), "{expected} is not in {}", stderr(&output));
        }
        let kept = std::fs::read_to_string(folder.path().join("model.flm")).unwrap();
        assert_eq!(kept, "the good old model");
    }
    std::fs::write(folder.path().join("x.csv"), &good).unwrap();
    std::fs::write(folder.path().join("y.csv"), &good).unwrap();
    let output = train(folder.path(), &["x.csv", "y.csv"]);
    assert!(stderr(&output).contains("y.csv has the same content as x.csv"), "{}", stderr(&output));
    assert!(stderr(&train(folder.path(), &["absent.csv"])).contains("cannot open absent.csv"));
    assert_eq!(train(folder.path(), &["x.csv", "--trees", "0"]).status.code(), Some(2));
}

#[test]
fn a_model_is_inspected_and_compared() {
    let (folder, names) = folder();
    for (kind, name) in [("rf", "a.flm"), ("tree", "b.flm")] {
        let more = ["--model", kind, "--trees", "20", "--keep-held-out", "-o", name];
        assert!(train(folder.path(), &arguments(&names, &more)).status.success());
    }
    let output = train(folder.path(), &["inspect", "a.flm"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in ["random-forest", "this release's", "packet-loss (288 rows of 3 recordings)", "macro F1"]
    {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    let output = train(folder.path(), &["inspect", "a.flm", "--json"]);
    let header: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(header["meta"]["kind"], "random-forest");
    assert_eq!(header["trees"], 20);
    let output = train(folder.path(), &["inspect", "b.flm", "--tree", "0"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("half_open_connections > ") || text.contains("retransmission_rate > "), "{text}");
    assert!(
        stderr(&train(folder.path(), &["inspect", "b.flm", "--tree", "1"])).contains("there is no tree 1")
    );
    assert!(stderr(&train(folder.path(), &["inspect", "absent.flm"])).contains("absent.flm"));
    std::fs::write(folder.path().join("not.flm"), "PK").unwrap();
    assert!(stderr(&train(folder.path(), &["inspect", "not.flm"])).contains("not a Faultline model"));

    std::fs::write(folder.path().join("new.csv"), recording(2, 5_000_000, 4, &mut Noise(99))).unwrap();
    let output = train(folder.path(), &["compare", "a.flm", "b.flm", "--data", "new.csv", &names[0]]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("packet-loss") && text.contains("both right"), "{text}");
    assert!(stderr(&output).contains(&format!("A was trained on {}", names[0])), "{}", stderr(&output));
    assert!(!stderr(&output).contains("trained on new.csv"));
}

#[test]
fn the_report_stands_alone_and_shows_its_plots() {
    let (folder, names) = folder();
    let more = ["--trees", "20", "--report", "report.html", "--card", "card.md"];
    let output = train(folder.path(), &arguments(&names, &more));
    assert!(output.status.success(), "{}", stderr(&output));
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    let plots = [
        ("pr-curve", 3),
        ("reliability-plot", 1),
        ("importance-plot", 1),
        ("baseline-plot", 1),
        ("drift-plot", 1),
        ("\"matrix\"", 1),
        // Nothing is known of the runs.
        ("severity-plot", 0),
    ];
    for (plot, count) in plots {
        assert_eq!(page.matches(&format!("class=\"{}", plot.trim_matches('"'))).count(), count, "{plot}");
    }
    for foreign in ["http://", "https://", "<script", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign} in the report");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "a number that is none");
    for tag in ["svg", "table", "tr", "figure", "div", "g", "h2", "p"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    let card = std::fs::read_to_string(folder.path().join("card.md")).unwrap();
    let model = Model::load(&folder.path().join("model.flm")).unwrap();
    assert!(card.contains(&model.hash().to_string()));
    assert!(
        card.contains("| packet-loss |") && card.contains("run-0-0.csv") && card.contains("src_ip"),
        "{card}"
    );
}

#[test]
fn a_search_goes_on_where_it_stopped() {
    let (folder, names) = folder();
    let search = |seconds: &str, output: &str| {
        let more =
            ["--trees", "10", "--folds", "2", "--search", seconds, "--search-log", "log.jsonl", "-o", output];
        let output = train(folder.path(), &arguments(&names, &more));
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let log = || std::fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
    assert!(
        search("0", "a.flm").contains("searched 1 of 45 combinations (0 known from before), 44 left out")
    );
    assert_eq!(log().lines().count(), 1);
    // A line that a stop cut is tried again.
    std::fs::write(folder.path().join("log.jsonl"), format!("{}{{\"basis\":", log())).unwrap();
    assert!(
        search("600", "b.flm").contains("searched 45 of 45 combinations (1 known from before), 0 left out")
    );
    assert_eq!(log().lines().count(), 45);
    assert!(search("0", "c.flm").contains("(45 known from before)"));
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("b.flm"), read("c.flm"));
}

#[test]
fn test_files_judge_and_are_never_fitted_on() {
    let (folder, names) = folder();
    std::fs::write(folder.path().join("test.csv"), recording(2, 5_000_000, 4, &mut Noise(99))).unwrap();
    let args =
        |more: &[&'static str]| arguments(&names, &[&["--trees", "10", "--folds", "0"], more].concat());
    let output = train(folder.path(), &args(&["--test", "test.csv", "-o", "a.flm"]));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("(test files test.csv)"), "{}", stderr(&output));
    // Other test rows change the scores, and not one node of the forest.
    std::fs::write(folder.path().join("test.csv"), recording(4, 5_000_000, 4, &mut Noise(1))).unwrap();
    assert!(train(folder.path(), &args(&["--test", "test.csv", "-o", "b.flm"])).status.success());
    let load = |name: &str| Model::load(&folder.path().join(name)).unwrap();
    assert_eq!(load("a.flm").forest(), load("b.flm").forest());
    assert_ne!(load("a.flm"), load("b.flm"));
    assert_eq!(load("a.flm").meta().training.data.len(), 12);
    assert_eq!(load("a.flm").classes().iter().map(|class| class.rows).sum::<u64>(), 12 * 12 * 8);
    std::fs::write(folder.path().join("test.csv"), recording(7, 5_000_000, 4, &mut Noise(1))).unwrap();
    let output = train(folder.path(), &args(&["--test", "test.csv"]));
    assert!(stderr(&output).contains("label 7 (backlog-overflow) stands in the test files alone"));
}

#[test]
fn a_sample_balances_what_is_fitted_on_and_says_what_it_leaves_out() {
    let (folder, names) = folder();
    let args =
        |more: &[&'static str]| arguments(&names, &[&["--trees", "10", "--folds", "2"], more].concat());
    let output = train(folder.path(), &args(&["--sample", "100", "--keep-held-out", "-o", "a.flm"]));
    assert!(output.status.success(), "{}", stderr(&output));
    // Of every class three of four recordings of 96 rows are fitted on.
    let text = stderr(&output);
    assert!(
        text.contains(
            "fitting on 300 of 864 rows; left out to balance the classes: normal 188 of 288, packet-loss 188 of 288, \
             syn-flood 188 of 288; scores are over all held-out rows"
        ),
        "{text}"
    );
    let model = Model::load(&folder.path().join("a.flm")).unwrap();
    for class in model.classes() {
        assert_eq!((class.rows, class.groups), (100, 3), "{}", class.name);
    }
    assert_eq!(model.meta().training.settings["sample"], "100");
    let evaluation = model.meta().evaluation.as_ref().unwrap();
    assert_eq!(evaluation.rows, 3 * 96);
    // A row is in every sample of ten with a probability of 0.632^10, about 0.01.
    let judged = evaluation.out_of_bag.as_ref().unwrap().rows;
    assert!((285..=300).contains(&judged), "{judged} rows out of the bag");
    let output =
        train(folder.path(), &args(&["--sample", "100", "--keep-held-out", "--threads", "1", "-o", "b.flm"]));
    assert!(output.status.success());
    assert_eq!(model, Model::load(&folder.path().join("b.flm")).unwrap());
    let output = train(folder.path(), &args(&["--sample", "100", "--model", "iforest"]));
    assert!(stderr(&output).contains("leave it out"), "{}", stderr(&output));
}

/// A manifest of the recordings, with keys that `train` does not know besides.
fn manifest(names: &[String]) -> String {
    let run = |(number, name): (usize, &String)| {
        let fault = ["normal", "packet-loss", "syn-flood"][number / 4];
        let severity = ["low", "medium", "high"][number % 4 % 3];
        let workload = if number % 4 == 3 { "batch" } else { "web" };
        format!(
            "[[recording]]\nfile = \"{}\"\nbytes = 1\nfault = \"{fault}\"\nseverity = \"{severity}\"\n\
             mechanism = \"none\"\nworkload = \"{workload}\"\naffected = []\n[recording.counters]\ndropped = 3\n\n",
            name.replace(".csv", ".mcap")
        )
    };
    names.iter().enumerate().map(run).collect()
}

#[test]
fn runs_of_a_manifest_are_judged_by_severity_and_held_out_by_workload() {
    let (folder, names) = folder();
    std::fs::write(folder.path().join("manifest.toml"), manifest(&names)).unwrap();
    let args = |more: &[&'static str]| {
        arguments(&names, &[&["--trees", "20", "--folds", "0", "--runs", "manifest.toml"], more].concat())
    };
    let more =
        ["--test-where", "workload=batch", "-o", "a.flm", "--card", "card.md", "--report", "report.html"];
    let output = train(folder.path(), &args(&more));
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains("the 3 of 12 recordings with workload=batch"), "{text}");
    assert!(text.contains("recall by severity of the run"), "{text}");
    let load = |name: &str| Model::load(&folder.path().join(name)).unwrap();
    let model = load("a.flm");
    let evaluation = model.meta().evaluation.as_ref().unwrap();
    assert_eq!((evaluation.groups, evaluation.rows), (3, 3 * 96));
    let severities: Vec<_> = evaluation.runs.iter().filter(|score| score.key == "severity").collect();
    assert_eq!(severities.len(), 3, "{:?}", evaluation.runs);
    assert!(severities.iter().all(|score| score.value == "low" && score.rows == 96 && score.recall > 0.9));
    // The files of held-out runs are not among those that the model was trained on.
    let trained: Vec<&str> = model.meta().training.data.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(trained.len(), 9);
    assert!(trained.iter().all(|name| !name.ends_with("-3.csv")), "{trained:?}");
    let card = std::fs::read_to_string(folder.path().join("card.md")).unwrap();
    assert!(
        card.contains("Recall by severity of the run") && !card.contains("Recall by mechanism"),
        "{card}"
    );

    // Either flag holds its runs out; a comma asks for both.
    let output =
        train(folder.path(), &args(&["--test-where", "workload=batch", "--test-where", "severity=high"]));
    assert!(stderr(&output).contains("the 6 of 12 recordings with workload=batch or severity=high"));
    let output = train(folder.path(), &args(&["--test-where", "workload=web,severity=high"]));
    assert!(stderr(&output).contains("the 3 of 12 recordings with workload=web,severity=high"));
    // Without a flag, whole recordings are drawn, and told by severity all the same.
    let output = train(folder.path(), &args(&[]));
    assert!(stderr(&output).contains("recall by severity of the run"), "{}", stderr(&output));
}

#[test]
fn a_manifest_that_does_not_fit_is_refused_with_a_remedy() {
    let (folder, names) = folder();
    let refused = |text: &str, more: &[&str], expected: &str| {
        std::fs::write(folder.path().join("manifest.toml"), text).unwrap();
        let args = [&["--trees", "2", "--folds", "0", "--runs", "manifest.toml"], more].concat();
        let output = train(folder.path(), &arguments(&names, &args));
        assert!(!output.status.success());
        let text = stderr(&output);
        assert!(text.contains("manifest.toml") && text.contains(expected), "{expected} is not in {text}");
    };
    let good = manifest(&names);
    refused("[[recording]]\nfault = \"normal\"\n", &[], "missing field `file`");
    refused("[[recording]]\nfile = \"other.mcap\"\n", &[], "knows none of the recordings of these rows");
    refused(
        "[[recording]]\nfile = \"run-0-0.mcap\"\nseverity = 3\n",
        &[],
        "`severity` of run-0-0.mcap is no text",
    );
    refused(&good.replace("syn-flood", "oom"), &[], "its fault is oom");
    refused(&format!("{good}[[recording]]\nfile = \"run-0-0.pcap\"\n"), &[], "have the same name");
    refused(&good, &["--test-where", "severity=extreme"], "has no run with severity=extreme; it knows");
    let more = ["--runs", "manifest.toml", "--test-where", "fault=syn-flood"];
    let output = train(folder.path(), &arguments(&names, &more));
    assert!(stderr(&output).contains("label 4 (syn-flood) stands in the runs with fault=syn-flood alone"));
    let output =
        train(folder.path(), &arguments(&names, &["--test-where", "seed=1", "--runs", "manifest.toml"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("`seed` is none of fault, severity"), "{}", stderr(&output));
    // A recording that the manifest does not have is said, and its rows are used.
    let without = good.replace("run-0-1.mcap", "elsewhere.mcap");
    std::fs::write(folder.path().join("manifest.toml"), without).unwrap();
    let more = ["--trees", "2", "--folds", "0", "--runs", "manifest.toml"];
    let output = train(folder.path(), &arguments(&names, &more));
    assert!(output.status.success());
    assert!(stderr(&output).contains("does not have 1 of 12 recordings (such as run-0-1.csv)"));
}
