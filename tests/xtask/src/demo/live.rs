//! The demo's live round: a real fault between network namespaces, seen and reported while it happens.

use std::fs;
use std::io::{self, Write as _};
use std::time::SystemTime;

use anyhow::Context as _;
use cli::Exit;

use super::receiver::Receiver;
use super::{Stage, indented};
use crate::workspace::say;

/// Where the receiver listens, on the loopback of the lab's server node.
const ADDRESS: &str = "127.0.0.1:9000";
/// The fault lasts five windows; an incident takes three of them. The run takes some seconds more to warm up.
const SECONDS: &str = "25";

/// Prints each body that is posted to ADDRESS as a line, until it is ended.
#[derive(clap::Args)]
pub struct Receive {
    address: String,

    /// Before each body the time of its arrival, RFC 3339, and a space
    #[arg(long)]
    times: bool,
}

/// What `lab run --with` starts on the server node beside `infer`.
pub fn receive(args: &Receive) -> anyhow::Result<Exit> {
    let receiver = Receiver::listen(&args.address)?;
    for body in &receiver.bodies {
        let now = humantime::format_rfc3339_nanos(SystemTime::now());
        let time = if args.times { format!("{now} ") } else { String::new() };
        // One write a line: it may be ended between two.
        io::stdout().write_all(format!("{time}{}\n", body.replace('\n', " ")).as_bytes())?;
        io::stdout().flush()?;
    }
    Ok(Exit::Done)
}

/// Runs the round, or says in a line what keeps this machine from it.
pub fn run(stage: &Stage) -> anyhow::Result<()> {
    let doctor = stage.program("lab").arg("doctor").output().context("cannot start lab")?;
    if !doctor.status.success() {
        say("no live round here; `lab doctor` says why:")?;
        return indented(&String::from_utf8_lossy(&doctor.stdout));
    }
    let bodies = stage.folder.join("webhooks.jsonl");
    let receiver = std::env::current_exe().context("this program has no path")?;
    // This machine's memory, disks and load are not those of the recordings.
    let infer = "infer --model model.flm --iface server0 --l7 dns,http --max-outside 0.25";
    // The shell becomes infer, which the lab asks to stop; the receiver ends with the node.
    let with = format!(
        "'{}' receive {ADDRESS} > '{}' & exec '{}'/{infer} --webhook http://{ADDRESS}/ > verdicts.jsonl",
        receiver.display(),
        bodies.display(),
        stage.programs.display()
    );
    say(&format!(
        "$ lab run --fault syn-flood --severity high --duration {SECONDS} --with \"{infer} --webhook http://{ADDRESS}/\""
    ))?;
    let mut lab = stage.program("lab");
    lab.args(["run", "--fault", "syn-flood", "--severity", "high", "--seed", "7"]);
    lab.args(["--duration", SECONDS, "--with", &with]);
    let output = lab.output().context("cannot start lab")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "lab run ended with {}: {said}", output.status);
    let arrived = fs::read_to_string(&bodies).with_context(|| format!("cannot read {}", bodies.display()))?;
    let mut events = arrived.lines().map(serde_json::from_str::<serde_json::Value>);
    let first = events.next().context("the live round brought no webhook")??;
    let data = &first["data"];
    say(&format!(
        "  live: {} incidents reported while the fault lasted, the first {} ({}) of {}, confidence {:.2}",
        arrived.lines().count(),
        data["fault"].as_str().unwrap_or("?"),
        data["status"].as_str().unwrap_or("?"),
        first["subject"].as_str().unwrap_or("?"),
        data["confidence"].as_f64().unwrap_or(0.0),
    ))
}
