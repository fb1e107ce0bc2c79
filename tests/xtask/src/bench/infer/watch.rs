//! A run of the lab with `infer` beside it, and what a receiver on the node's loopback was told.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Stage;

/// On the loopback of the lab's router.
const ADDRESS: &str = "127.0.0.1:9000";

/// What a run brought.
pub struct Watched {
    /// When the fault began and ended, by the lab.
    pub began: SystemTime,
    pub ended: SystemTime,
    /// Rows that were taken for faulty.
    pub verdicts: Vec<Value>,
    /// Lines of infer's audit log.
    pub decisions: Vec<Value>,
    /// CloudEvents in the order of their arrival.
    pub messages: Vec<(SystemTime, Value)>,
}

/// Runs the lab with these arguments.
pub fn watch(stage: &Stage, lab: &[&str], infer: &[&str]) -> anyhow::Result<Watched> {
    let [audit, bodies, verdicts] =
        ["audit.jsonl", "webhooks.txt", "verdicts.jsonl"].map(|name| stage.folder.join(name));
    for file in [&audit, &bodies, &verdicts] {
        let _ = fs::remove_file(file);
    }
    let this = std::env::current_exe().context("this program has no path")?;
    let quoted = |path: &Path| format!("'{}'", path.display());
    let model = stage.model.as_deref().map(|model| format!("--model {}", quoted(model))).unwrap_or_default();
    // The shell becomes infer, which the lab asks to stop; the receiver ends with the node. A run that does not take
    // is repeated: its receiver begins a new file, and so does infer.
    let with = format!(
        "rm -f {audit}; {this} receive --times {ADDRESS} > {bodies} & exec {infer} --iface server0 --l7 dns,http \
         {model} --webhook http://{ADDRESS}/ --audit {audit} --print faults {more} > {verdicts}",
        audit = quoted(&audit),
        this = quoted(&this),
        bodies = quoted(&bodies),
        infer = quoted(&stage.programs.join("infer")),
        more = infer.join(" "),
        verdicts = quoted(&verdicts),
    );
    let mut command = Command::new(stage.programs.join("lab"));
    command.args(["--log-format", "json", "run"]).args(lab).args(["--with", &with]);
    let output = command.output().context("cannot start lab")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "lab run {} ended with {}: {said}", lab.join(" "), output.status);
    // The last attempt is the one that took.
    let at = |what: &str| {
        let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut found = lines.filter(|line| line["message"].as_str().is_some_and(|text| text.contains(what)));
        let line = found.next_back().with_context(|| format!("lab does not say `{what}`: {said}"))?;
        time(line["timestamp"].as_str().unwrap_or_default())
    };
    let (began, ended) = (at(" begins")?, at(" has ended")?);
    let lines = |path: &Path| -> anyhow::Result<Vec<Value>> {
        let text = fs::read_to_string(path).with_context(|| format!("no {}; {said}", path.display()))?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let (verdicts, decisions) = (lines(&verdicts)?, lines(&audit)?);
    let text = fs::read_to_string(&bodies).context("the receiver wrote nothing")?;
    let messages = text.lines().map(message).collect::<anyhow::Result<_>>()?;
    Ok(Watched { began, ended, verdicts, decisions, messages })
}

/// A time of arrival, a space, and a CloudEvent.
fn message(line: &str) -> anyhow::Result<(SystemTime, Value)> {
    let (arrival, body) = line.split_once(' ').with_context(|| format!("no time in `{line}`"))?;
    Ok((time(arrival)?, serde_json::from_str(body)?))
}

/// RFC 3339.
pub fn time(text: &str) -> anyhow::Result<SystemTime> {
    humantime::parse_rfc3339(text).with_context(|| format!("`{text}` is no time"))
}
