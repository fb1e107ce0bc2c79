//! Each fault of the lab, from its beginning to the message that it is over.

use std::time::{Duration, SystemTime};

use event::Fault;

use super::Stage;
use super::watch::{Watched, time, watch};
use crate::workspace::say;

/// Five windows and more with the fault, and what a resolve takes: six windows and more without it.
const LASTS: &str = "40";
const AFTER: &str = "45";
/// Seconds that infer keeps a window open for what arrives late.
const LATENESS: f64 = 1.0;

pub fn run(stage: &Stage, faults: &[String]) -> anyhow::Result<()> {
    say(&format!(
        "\n| fault ({LASTS} s, severity high, web) | first vote, s | webhook, s | of it infer's own, ms | \
         target | others told of | resolved, s after the end |\n|---|---|---|---|---|---|---|"
    ))?;
    let is_wanted = |fault: &Fault| faults.is_empty() || faults.iter().any(|name| name == fault.name());
    for fault in Fault::ALL.into_iter().filter(|fault| *fault != Fault::Normal && is_wanted(fault)) {
        let lab = ["--fault", fault.name(), "--severity", "high", "--seed", "4242", "--duration", LASTS];
        let watched = watch(stage, &[&lab[..], &["--after", AFTER]].concat(), &[])?;
        say(&row(fault, &watched)?)?;
    }
    Ok(())
}

fn row(fault: Fault, watched: &Watched) -> anyhow::Result<String> {
    let Watched { began, ended, verdicts, decisions, messages } = watched;
    let entries = || decisions.iter().map(|line| &line["entry"]).filter(|entry| entry["kind"] == "incident");
    let of_fault = |entry: &&serde_json::Value| entry["fault"] == fault.name();
    // A window of that time holds the first faulty row; it is judged at its end.
    let votes = verdicts.iter().filter(|row| row["fault"] == fault.name());
    let votes = votes.filter_map(|row| Some((row["window"].as_str()?, row["window_seconds"].as_f64()?)));
    let votes = votes.map(|(start, length)| Ok(time(start)? + Duration::from_secs_f64(length)));
    let vote = votes.collect::<anyhow::Result<Vec<_>>>()?.into_iter().find(|end| end > began);
    let told = |status: &str| {
        let is_it = move |(_, event): &&(SystemTime, serde_json::Value)| {
            event["data"]["fault"] == fault.name() && event["data"]["status"] == status
        };
        messages.iter().find(is_it)
    };
    let others = messages
        .iter()
        .filter(|(_, event)| event["data"]["status"] == "firing" && event["data"]["fault"] != fault.name());
    let others: Vec<String> = others
        .map(|(_, event)| format!("{} {}", event["data"]["fault"].as_str().unwrap_or("?"), event["subject"]))
        .collect();
    let (firing, resolved) = (told("firing"), told("resolved"));
    // The decision's own time is the end of the window that fired; it is judged when nothing late can come any more.
    let decided = entries()
        .filter(of_fault)
        .find(|entry| entry["change"] == "fired")
        .and_then(|entry| entry["at"].as_str())
        .map(time)
        .transpose()?;
    let lag =
        firing.zip(decided).map(|((arrival, _), decided)| (seconds(decided, *arrival) - LATENESS) * 1e3);
    Ok(format!(
        "| {fault} | {} | {} | {} | {} | {} | {} |",
        shown(vote.map(|vote| seconds(*began, vote))),
        shown(firing.map(|(arrival, _)| seconds(*began, *arrival))),
        lag.map_or_else(|| "-".to_owned(), |lag| format!("{lag:.0}")),
        firing.map_or("none", |(_, event)| event["subject"].as_str().unwrap_or("?")),
        if others.is_empty() { "none".to_owned() } else { others.join(", ") },
        shown(resolved.map(|(arrival, _)| seconds(*ended, *arrival))),
    ))
}

fn shown(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}"))
}

/// From one time to the other; negative where the other was before.
fn seconds(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}
