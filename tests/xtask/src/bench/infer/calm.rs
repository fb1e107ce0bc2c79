//! Normal traffic of the lab, in which nothing is to be told.

use super::Stage;
use super::watch::watch;
use crate::workspace::say;

/// Both workloads, half of the time each.
const WORKLOADS: [&str; 2] = ["web", "batch"];

pub fn run(stage: &Stage, duration: u32) -> anyhow::Result<()> {
    say("\n| normal traffic | seconds | rows taken for faulty | alarms |\n|---|---|---|---|")?;
    let each = duration / 2;
    for workload in WORKLOADS {
        let seconds = each.to_string();
        let lab = ["--fault", "normal", "--seed", "77", "--workload", workload, "--duration", &seconds];
        let watched = watch(stage, &lab, &[])?;
        let alarms = watched.messages.iter().filter(|(_, event)| event["data"]["status"] == "firing");
        let told: Vec<String> =
            alarms.map(|(_, event)| format!("{} {}", event["data"]["fault"], event["subject"])).collect();
        let told = if told.is_empty() { "none".to_owned() } else { told.join(", ") };
        say(&format!("| {workload} | {each} | {} | {told} |", watched.verdicts.len()))?;
    }
    Ok(())
}
