//! `infer backtest`: what a policy would have done about recordings, against their labels.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use cli::Exit;
use event::{Label, Timestamp};
use serde_json::json;
use tracing::warn;

use crate::args::Backtest;
use crate::incident::{Change, Event};
use crate::pipeline::{Judgement, Pipeline};
use crate::policy::{ActionState, Decider, Mode, Policy};
use crate::run;
use crate::source::{Item, Source};
use crate::time;

/// One incident that fired in one recording.
struct Fired {
    recording: String,
    at: Timestamp,
    target: String,
    fault: Label,
    /// The recording's label in that window; none where nobody gave one.
    truth: Option<Label>,
    /// Seconds from the begin of that label to the incident.
    delay: Option<f64>,
    action: Option<(String, String)>,
}

/// What became of one fault over all recordings.
#[derive(Debug, Default, PartialEq)]
struct Score {
    /// Stretches of time with this label, and those in which it fired.
    episodes: u64,
    found: u64,
    /// Incidents of this fault where the label says otherwise.
    false_alarms: u64,
    actions: u64,
    delays: Vec<f64>,
}

/// Runs the policy over every recording.
///
/// # Errors
/// Where a model, the policy or a recording cannot be used.
pub fn backtest(args: &Backtest) -> anyhow::Result<Exit> {
    let policy = Policy::load(&args.policy)?;
    let (mut fired, mut scores) = (Vec::new(), BTreeMap::<Label, Score>::new());
    let mut exit = Exit::Done;
    for path in &args.recordings {
        let replayed = replay(args, &policy, path)?;
        if replayed.is_damaged {
            warn!("{} is damaged: judged as far as it goes", path.display());
            exit = Exit::Damaged;
        }
        score(&replayed, &mut scores);
        fired.extend(replayed.fired);
    }
    let mut out = io::stdout().lock();
    for incident in &fired {
        print(&mut out, incident, args.json)?;
    }
    if !args.json {
        summarize(&mut out, &scores)?;
    }
    Ok(exit)
}

struct Replayed {
    fired: Vec<Fired>,
    /// Stretches of one label.
    episodes: Vec<(Label, Timestamp)>,
    is_damaged: bool,
}

fn replay(args: &Backtest, policy: &Policy, path: &Path) -> anyhow::Result<Replayed> {
    let mut source = Source::open(path)?;
    let node = source.node().unwrap_or_default().to_owned();
    let classifiers = run::load(&args.model)?;
    let mut pipeline = run::pipeline(classifiers, &args.model, policy, &node, source.label());
    let mut decider = Decider::new(policy.clone(), Mode::DryRun, std::collections::BTreeSet::new());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut replayed = Replayed { fired: Vec::new(), episodes: Vec::new(), is_damaged: false };
    let mut current = None;
    let window = pipeline.window();
    let mut take = |judgement: Judgement, tracker: &crate::incident::Tracker| -> anyhow::Result<()> {
        if judgement.label != current && !judgement.verdicts.is_empty() {
            current = judgement.label;
            replayed.episodes.extend(judgement.label.map(|label| (label, judgement.window)));
        }
        let (at, is_storm) = (judgement.window + window, tracker.storm().is_active());
        let decisions = decider.decide(&judgement.events, [], at, is_storm);
        for event in &judgement.events {
            let Event::Incident { change: Change::Fired, incident, .. } = event else { continue };
            let action = decisions
                .iter()
                .filter(|decision| decision.incident.id == incident.id)
                .find_map(|decision| decision.action.as_ref())
                .map(|(name, _, state)| (name.clone(), outcome(state)));
            let since = replayed.episodes.last().filter(|(label, _)| *label == incident.label);
            replayed.fired.push(Fired {
                recording: name.clone(),
                at,
                target: incident.target.to_string(),
                fault: incident.label,
                truth: current,
                delay: since.map(|(_, begin)| (at - *begin).as_secs_f64()),
                action,
            });
        }
        Ok(())
    };
    pump(&mut source, &mut pipeline, &mut take)?;
    replayed.is_damaged = !source.report().damage.is_empty();
    Ok(replayed)
}

fn pump(
    source: &mut Source,
    pipeline: &mut Pipeline,
    take: &mut impl FnMut(Judgement, &crate::incident::Tracker) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    while let Some(item) = source.next()? {
        match item {
            Item::Packets(packets) => pipeline.push_packets(packets, take)?,
            Item::Event(event) => pipeline.push(&event, take)?,
        }
    }
    pipeline.finish(take)
}

fn outcome(state: &ActionState) -> String {
    match state {
        ActionState::Refused(refusal) => format!("refused: {refusal}"),
        ActionState::Requested { .. } | ActionState::Proposed | ActionState::WouldRequest => {
            "would be asked for".to_owned()
        }
    }
}

fn score(replayed: &Replayed, scores: &mut BTreeMap<Label, Score>) {
    for (place, (label, begin)) in replayed.episodes.iter().enumerate() {
        if *label == Label::NORMAL {
            continue;
        }
        let end = replayed.episodes.get(place + 1).map_or(Timestamp::MAX, |next| next.1);
        let score = scores.entry(*label).or_default();
        score.episodes += 1;
        let first = replayed.fired.iter().find(|fired| {
            fired.fault == *label
                && fired.at > *begin
                && fired.truth == Some(*label)
                && fired.at <= end + (end - *begin)
        });
        if let Some(first) = first {
            score.found += 1;
            score.delays.extend(first.delay);
        }
    }
    for fired in &replayed.fired {
        let score = scores.entry(fired.fault).or_default();
        score.false_alarms += u64::from(fired.truth.is_some_and(|truth| truth != fired.fault));
        let asked = fired.action.as_ref().is_some_and(|(_, outcome)| !outcome.starts_with("refused"));
        score.actions += u64::from(asked);
    }
}

fn print(out: &mut impl Write, fired: &Fired, as_json: bool) -> io::Result<()> {
    if as_json {
        let line = json!({
            "recording": fired.recording,
            "at": time::to_rfc3339(fired.at),
            "target": fired.target,
            "fault": fired.fault.to_string(),
            "label": fired.truth.map(|label| label.to_string()),
            "seconds_after_begin": fired.delay,
            "action": fired.action.as_ref().map(|(name, _)| name),
            "outcome": fired.action.as_ref().map(|(_, outcome)| outcome),
        });
        return writeln!(out, "{line}");
    }
    let truth = match fired.truth {
        None => "no label".to_owned(),
        Some(truth) if truth == fired.fault => "right".to_owned(),
        Some(truth) => format!("WRONG, it was {truth}"),
    };
    let action = match &fired.action {
        Some((name, outcome)) => format!("{name}: {outcome}"),
        None => "no action".to_owned(),
    };
    writeln!(
        out,
        "{}  {}  {} at {}  {truth}  {action}",
        fired.recording,
        time::to_rfc3339(fired.at),
        fired.fault,
        fired.target
    )
}

fn summarize(out: &mut impl Write, scores: &BTreeMap<Label, Score>) -> io::Result<()> {
    writeln!(
        out,
        "\n{:<20} {:>8} {:>6} {:>12} {:>8} {:>12}",
        "fault", "episodes", "found", "false alarms", "actions", "median delay"
    )?;
    for (label, score) in scores {
        let mut delays = score.delays.clone();
        delays.sort_by(f64::total_cmp);
        let median =
            delays.get(delays.len() / 2).map_or_else(|| "-".to_owned(), |delay| format!("{delay:.0} s"));
        writeln!(
            out,
            "{:<20} {:>8} {:>6} {:>12} {:>8} {:>12}",
            label.to_string(),
            score.episodes,
            score.found,
            score.false_alarms,
            score.actions,
            median
        )?;
    }
    Ok(())
}
