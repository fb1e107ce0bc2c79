//! Policies: checked, tried on recordings, and never a reason to act on one.

use crate::binary::{Bench, infer, lines, stderr};
use crate::fixture::Script;
use crate::receiver::{Answer, Receiver};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn policy(bench: &Bench, url: &str, more: &str) {
    std::fs::write(bench.path().join("key"), KEY).unwrap();
    let text = format!(
        "{more}\n[receivers.ops]\nurl = \"{url}\"\nsecrets.files = [\"key\"]\n[[routes]]\nreceivers = [\"ops\"]\naction = \"restart\"\n"
    );
    std::fs::write(bench.path().join("policy.toml"), text).unwrap();
}

#[test]
fn check_says_what_is_wrong_and_what_a_policy_does() {
    let bench = Bench::new(&Script { windows: 1, ..Script::default() });
    policy(&bench, "http://127.0.0.1:9/", "mode = \"enforce\"");
    let check = || infer(bench.path()).args(["policy", "check", "policy.toml"]).output().unwrap();
    let output = check();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("mode enforce") && text.contains("action restart"), "{text}");
    policy(&bench, "http://169.254.169.254/", "[incident]\nquorum = 2.0\n[storm]\nshare = -1.0");
    let output = check();
    assert_eq!(output.status.code(), Some(1));
    for part in ["quorum", "share", "link-local", "3 problems"] {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
}

#[test]
fn a_recording_is_told_of_and_never_acted_on() {
    let bench = Bench::new(&Script::default());
    let receiver = Receiver::start(|_| Answer::Status(200));
    policy(&bench, &receiver.url, "mode = \"enforce\"\n[actions]\nhosts = true");
    let output = bench.run(&["--policy", "policy.toml", "--audit", "audit.jsonl"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    let firing = requests[0].json();
    assert_eq!(firing["type"], "io.faultline.incident.firing");
    assert_eq!(firing["data"]["mode"], "dry-run");
    assert_eq!(firing["data"]["action"]["requested"], false);
    assert_eq!(firing["data"]["action"]["guard"]["allowed"], true);
    let audit = std::fs::read_to_string(bench.path().join("audit.jsonl")).unwrap();
    assert!(audit.contains("\"outcome\":\"would-request\""), "{audit}");
    let verify = || infer(bench.path()).args(["audit", "verify", "audit.jsonl"]).output().unwrap();
    assert!(verify().status.success());
    std::fs::write(bench.path().join("audit.jsonl"), audit.replace("would-request", "requested")).unwrap();
    let output = verify();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("changed"), "{}", stderr(&output));
}

#[test]
fn alertmanager_and_template_receivers_get_their_own_form() {
    let bench = Bench::new(&Script {
        lossy: |window, server| server <= 2 && (5..15).contains(&window),
        ..Script::default()
    });
    let (alerts, chat) = (Receiver::start(|_| Answer::Status(200)), Receiver::start(|_| Answer::Status(200)));
    std::fs::write(
        bench.path().join("chat.j2"),
        "{\"text\": {{ (events | map(attribute=\"subject\") | join(\" and \")) | tojson }}}",
    )
    .unwrap();
    let text = format!(
        "[receivers.alerts]\nurl = \"{}\"\nformat = \"alertmanager\"\n\
         [receivers.chat]\nurl = \"{}\"\nformat = \"template\"\ntemplate = \"chat.j2\"\n\
         [[routes]]\nfaults = [\"packet-loss\"]\nreceivers = [\"alerts\", \"chat\"]\ngroup_by = [\"fault\"]\n",
        alerts.url, chat.url
    );
    std::fs::write(bench.path().join("policy.toml"), text).unwrap();
    let output = bench.run(&["--policy", "policy.toml"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let requests = alerts.requests();
    assert_eq!(requests.len(), 2, "two servers in one window are one message");
    let firing = requests[0].json();
    assert_eq!(firing["version"], "4");
    assert_eq!(firing["status"], "firing");
    assert_eq!(firing["groupLabels"], serde_json::json!({"fault": "packet-loss"}));
    assert_eq!(firing["alerts"].as_array().unwrap().len(), 2);
    assert_eq!(firing["alerts"][0]["labels"]["severity"], "warning");
    assert_eq!(requests[1].json()["status"], "resolved");
    let text = chat.requests()[0].json();
    assert_eq!(text["text"], "endpoint/198.18.1.1:80/6 and endpoint/198.18.1.2:80/6");
}

#[test]
fn a_backtest_tells_right_from_wrong() {
    let bench = Bench::new(&Script { label: Some(event::Fault::PacketLoss), ..Script::default() });
    let wrong = bench.path().join("wrong.mcap");
    Script { label: Some(event::Fault::ZeroWindow), ..Script::default() }.record(&wrong);
    policy(&bench, "http://127.0.0.1:9/", "[actions]\nhosts = true");
    let run = |more: &[&str]| {
        let output = infer(bench.path())
            .args(["backtest", "--policy", "policy.toml", "--model"])
            .arg(&bench.model)
            .arg(&bench.recording)
            .arg(&wrong)
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output
    };
    let incidents = lines(&run(&["--json"]));
    assert_eq!(incidents.len(), 2);
    assert_eq!(
        (&incidents[0]["fault"], &incidents[0]["label"]),
        (&"packet-loss".into(), &"packet-loss".into())
    );
    assert_eq!(incidents[1]["label"], "zero-window");
    assert_eq!(incidents[0]["outcome"], "would be asked for");
    let table = String::from_utf8(run(&[]).stdout).unwrap();
    let row = |name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row("packet-loss")[..5], ["packet-loss", "1", "1", "1", "2"]);
    assert_eq!(row("zero-window")[..4], ["zero-window", "1", "0", "0"]);
    assert!(table.contains("WRONG, it was zero-window"), "{table}");
}
