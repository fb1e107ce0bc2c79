//! A run: source, pipeline, standard output and receivers put together.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use cli::{Exit, Interrupt};
use event::Label;
use model::Model;
use tracing::{debug, error, info, warn};

use crate::args::{Print, Run};
use crate::classify::{Classifier, Doubts};
use crate::deliver::{Client, ClientSettings, Kind, Limits, Message, Store};
use crate::incident::{Change, Event, IncidentSettings, StormSettings, Tracker};
use crate::notify::{self, Notice, SigningKeys};
use crate::pipeline::{Judgement, Pipeline, Settings};
use crate::policy::{Mode, Severity};
use crate::receivers::{Outgoing, Receivers};
use crate::source::{Item, Source};
use crate::time::now_ms;
use crate::verdict::{Answer, Verdict};

/// What a run did; the lines of its summary.
#[derive(Debug, Default)]
struct Summary {
    windows: u64,
    verdicts: BTreeMap<&'static str, u64>,
    faults: BTreeMap<Label, u64>,
    fired: u64,
    resolved: u64,
}

/// Runs until the input ends or the user stops it.
///
/// # Errors
/// What keeps it from starting, an unreadable input, and messages that could not be delivered in the end. A
/// receiver's failure ends nothing before that.
pub fn run(args: &Run) -> anyhow::Result<Exit> {
    let interrupt = Interrupt::install().context("cannot listen for Ctrl-C")?;
    let classifier = load(&args.model)?;
    let mut source = Source::open(&args.from)?;
    let node = args.node.clone().or_else(|| source.node().map(str::to_owned)).unwrap_or_default();
    let store = match &args.state_dir {
        Some(folder) => Store::open(folder)?,
        None => Store::in_memory()?,
    };
    let mut receivers = Receivers::new(Arc::new(store))?;
    let names = add_receivers(args, &mut receivers)?;
    let tracker =
        Tracker::new(&node, classifier.window(), IncidentSettings::default(), StormSettings::default());
    let settings = Settings {
        lateness: event::Duration::from_nanos(i64::try_from(args.lateness.as_nanos()).unwrap_or(i64::MAX)),
        explained: args.explain,
        max_flows: args.max_flows,
    };
    let recording = args.from.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut pipeline = Pipeline::new(classifier, tracker, settings, source.label());
    let mut sink = Sink {
        out: BufWriter::new(io::stdout().lock()),
        print: args.print,
        node,
        recording,
        names,
        window: pipeline.classifier().window(),
        summary: Summary::default(),
        receivers: &mut receivers,
    };
    let read = pump(&mut source, &mut pipeline, &mut sink, &interrupt);
    let finished = read.and_then(|()| pipeline.finish(&mut |judgement, _| sink.take(judgement)));
    let flushed = finished.and_then(|()| sink.out.flush().context("cannot write to standard output"));
    let summary = std::mem::take(&mut sink.summary);
    drop(sink);
    let left = receivers.drain(args.drain, || interrupt.is_raised());
    let exit = report(&source, &pipeline, &summary);
    let undelivered = report_receivers(&receivers, left, args.state_dir.is_some());
    receivers.stop();
    flushed?;
    undelivered?;
    Ok(exit)
}

/// Loads a model and checks that it fits.
fn load(path: &Path) -> anyhow::Result<Classifier> {
    let model = Model::load(path)?;
    let classifier = Classifier::new(model, Doubts::default())
        .with_context(|| format!("the model {} does not fit", path.display()))?;
    let judge = classifier.judge();
    info!(
        model = judge.name,
        hash = judge.hash,
        classes = classifier.model().classes().len(),
        "model loaded"
    );
    Ok(classifier)
}

fn add_receivers(args: &Run, receivers: &mut Receivers) -> anyhow::Result<Vec<String>> {
    let keys = match &args.webhook_secret_file {
        Some(path) => read_keys(path)?,
        None => SigningKeys::default(),
    };
    let mut names = Vec::new();
    for (place, url) in args.webhook.iter().enumerate() {
        let name =
            if args.webhook.len() == 1 { "webhook".to_owned() } else { format!("webhook{}", place + 1) };
        let settings = ClientSettings { url: url.clone(), ..ClientSettings::default() };
        let client =
            Client::new(&settings, keys.clone()).with_context(|| format!("cannot use --webhook {url}"))?;
        receivers.add(&name, client, Limits::default());
        names.push(name);
    }
    Ok(names)
}

fn read_keys(path: &Path) -> anyhow::Result<SigningKeys> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    SigningKeys::parse(lines).with_context(|| format!("in {}", path.display()))
}

fn pump<W: Write>(
    source: &mut Source,
    pipeline: &mut Pipeline,
    sink: &mut Sink<'_, W>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let take = &mut |judgement, _: &Tracker| sink.take(judgement);
    while !interrupt.is_raised() {
        match source.next()? {
            Some(Item::Packets(packets)) => pipeline.push_packets(packets, take)?,
            Some(Item::Event(event)) => pipeline.push(&event, take)?,
            None => break,
        }
    }
    Ok(())
}

/// Where judged windows go.
struct Sink<'r, W> {
    out: W,
    print: Print,
    node: String,
    recording: Option<String>,
    names: Vec<String>,
    window: event::Duration,
    summary: Summary,
    receivers: &'r mut Receivers,
}

impl<W: Write> Sink<'_, W> {
    /// Receivers first, then the lines: a reader of standard output that is slow delays no message of its window.
    fn take(&mut self, judgement: Judgement) -> anyhow::Result<()> {
        let mut messages = Vec::new();
        for event in &judgement.events {
            self.note(event);
            messages.extend(self.tell(event)?);
        }
        self.receivers.send(messages, None);
        let (rows, loss) = (judgement.verdicts.len(), judgement.loss);
        debug!(window = %judgement.window, rows, loss, "judged");
        self.summary.windows += u64::from(rows > 0);
        for verdict in &judgement.verdicts {
            *self.summary.verdicts.entry(verdict.answer.name()).or_default() += 1;
            if verdict.answer == Answer::Fault {
                *self.summary.faults.entry(verdict.label).or_default() += 1;
            }
        }
        self.print(&judgement.verdicts)
    }

    fn print(&mut self, verdicts: &[Verdict]) -> anyhow::Result<()> {
        for verdict in verdicts {
            let is_printed = match self.print {
                Print::All => true,
                Print::Faults => verdict.answer == Answer::Fault,
                Print::None => false,
            };
            if is_printed {
                let line = verdict.to_json().context("a verdict is no JSON")?;
                writeln!(self.out, "{line}").context("cannot write to standard output")?;
            }
        }
        self.out.flush().context("cannot write to standard output")
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Incident { change, incident, .. } => {
                self.summary.fired += u64::from(*change == Change::Fired);
                self.summary.resolved += u64::from(*change == Change::Resolved);
                let (fault, target) = (incident.label.to_string(), incident.target.to_string());
                info!(incident = incident.id, fault, target, "{}", change.name());
            }
            Event::Storm { change, targets, faulty, .. } => {
                warn!(faulty, targets, "storm {change:?}: too much is faulty at once to act on each");
            }
        }
    }

    /// What is sent about an event; what never fired is not reported as over.
    fn tell(&self, event: &Event) -> anyhow::Result<Vec<Outgoing>> {
        let (id, subject, body) = match event {
            Event::Incident { announced: false, .. } => return Ok(Vec::new()),
            Event::Incident { change, incident, .. } => {
                let notice = Notice {
                    change: *change,
                    incident,
                    severity: Severity::usual(incident.label),
                    mode: Mode::DryRun,
                    window: self.window,
                    recording: self.recording.as_deref(),
                    action: None,
                    repetition: 0,
                };
                (notice.id(), incident.id.clone(), notify::cloud_event(&notice)?)
            }
            Event::Storm { .. } => match notify::storm_event(&self.node, event)? {
                Some((id, body)) => (id, "storm".to_owned(), body),
                None => return Ok(Vec::new()),
            },
        };
        let message = Message {
            id,
            kind: Kind::Notification,
            subject,
            content_type: notify::CLOUD_EVENT_TYPE.to_owned(),
            body,
            created_ms: now_ms(),
            expires_ms: None,
            attempts: 0,
            not_before_ms: 0,
            in_flight: false,
            last_error: None,
        };
        let names = self.names.iter().cloned();
        Ok(names.map(|receiver| Outgoing { receiver, message: message.clone() }).collect())
    }
}

fn report(source: &Source, pipeline: &Pipeline, summary: &Summary) -> Exit {
    let report = source.report();
    let counts = pipeline.counts();
    for (reason, count) in &report.skipped {
        warn!(count, reason, "skipped");
    }
    for damage in &report.damage {
        warn!("damaged: {damage}");
    }
    info!(
        packets = report.packets,
        other_events = report.events,
        counted = counts.counted,
        late = counts.late,
        seen_at_other_taps = counts.other_taps,
        flows = counts.flows,
        flows_closed_early = counts.closed_early,
        "read"
    );
    let named = |map: Vec<String>| if map.is_empty() { "none".to_owned() } else { map.join(", ") };
    info!(
        windows = summary.windows,
        rows = counts.rows,
        verdicts = named(summary.verdicts.iter().map(|(name, count)| format!("{name} {count}")).collect()),
        faults = named(summary.faults.iter().map(|(label, count)| format!("{label} {count}")).collect()),
        incidents_fired = summary.fired,
        incidents_resolved = summary.resolved,
        "judged"
    );
    if report.damage.is_empty() { Exit::Done } else { Exit::Damaged }
}

/// Says what became of the messages; an error where some were neither delivered nor kept for another run.
fn report_receivers(receivers: &Receivers, left: u64, is_kept: bool) -> anyhow::Result<()> {
    use std::sync::atomic::Ordering::Relaxed;
    let mut lost = Vec::new();
    for (name, outbox) in receivers.outboxes() {
        let counters = &outbox.counters;
        let (dead, turned_away) = (counters.dead.load(Relaxed), counters.turned_away.load(Relaxed));
        let waiting = receivers.store().waiting(name).unwrap_or_default();
        let delivered = counters.delivered.load(Relaxed);
        let retried = counters.retried.load(Relaxed);
        info!(receiver = name, delivered, retried, dead, turned_away, waiting, "delivered");
        if dead + turned_away + waiting > 0 {
            let last = counters.last_error.lock().ok().and_then(|error| error.clone());
            lost.push(format!(
                "{name}: {} of {} ({})",
                dead + turned_away + waiting,
                delivered + dead + turned_away + waiting,
                last.unwrap_or_else(|| "no answer yet".to_owned())
            ));
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    if is_kept {
        error!(
            waiting = left,
            "not delivered, kept for the next run with the same --state-dir: {}",
            lost.join("; ")
        );
    }
    anyhow::bail!("messages were not delivered: {}", lost.join("; "))
}
