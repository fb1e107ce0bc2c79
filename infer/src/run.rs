//! A run: source, pipeline, standard output, decisions and receivers put together.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use capture::watch::host;
use cli::{Exit, Interrupt};
use event::{Event, Packet};
use model::Model;
use tracing::{error, info, warn};

use crate::args::{ModelArgs, Run};
use crate::audit::Audit;
use crate::classify::{Classifier, Doubts};
use crate::deliver::Store;
use crate::incident::Tracker;
use crate::live::Live;
use crate::observe::{Command, Observed};
use crate::pipeline::{Pipeline, Settings};
use crate::policy::{Mode, Policy, ReceiverSettings, Route, Secrets};
use crate::receivers::Receivers;
use crate::sink::{Parts, Sink};
use crate::source::{Item, Source};

/// Runs until the input ends or the user stops it.
///
/// # Errors
/// What keeps it from starting, an unreadable input, and messages that could not be delivered in the end. A
/// receiver's failure ends nothing before that.
pub fn run(args: &Run) -> anyhow::Result<Exit> {
    let interrupt = Interrupt::install().context("cannot listen for Ctrl-C")?;
    let classifiers = load(&args.model)?;
    let policy = policy(args)?;
    // Files first: watching drops the rights to open those of others.
    let store = match &args.state_dir {
        Some(folder) => Store::open(folder)?,
        None => Store::in_memory()?,
    };
    let audit = args.audit.as_deref().map(Audit::open).transpose()?;
    let mut feed = Feed::open(args)?;
    let node = feed.node(args);
    let mut receivers = Receivers::new(Arc::new(store))?;
    receivers.apply(&policy)?;
    let mut pipeline = pipeline(classifiers, &args.model, &policy, &node, feed.label());
    if args.listen.is_some() {
        pipeline.sample(SAMPLE);
    }
    let observed = Observed::start(args, receivers.runtime(), pipeline.classifiers())?;
    let (limit, window) = (feed.limit(), pipeline.window());
    let out = BufWriter::new(io::stdout().lock());
    let mut sink = Sink::new(args, out, Parts { policy, node, limit, window, receivers, observed, audit })?;
    if feed.is_live() {
        sink.restore(pipeline.tracker_mut())?;
    }
    sink.ready();
    let read = match &mut feed {
        Feed::File(source) => read_file(source, &mut pipeline, &mut sink, &interrupt),
        Feed::Live(live) => watch(live, args, &mut pipeline, &mut sink, &interrupt),
    };
    let finished =
        read.and_then(|()| pipeline.finish(&mut |judgement, tracker| sink.take(judgement, tracker)));
    let (summary, mut receivers) = sink.finish();
    // A second Ctrl-C ends the process at once.
    let left = receivers.drain(args.drain);
    let exit = report(&feed, &pipeline);
    summary.say();
    let undelivered = report_receivers(&receivers, left, args.state_dir.is_some(), feed.is_live());
    receivers.stop();
    finished?;
    undelivered?;
    Ok(exit)
}

/// Rows of a window that drift is computed from, at most: at 86 inputs a row, a millisecond.
const SAMPLE: usize = 500;

/// The default model, or nothing where this was built without one.
const DEFAULT_MODEL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/default.flm"));

/// The model that was built in.
fn built_in(doubts: Doubts) -> anyhow::Result<Classifier> {
    if DEFAULT_MODEL.is_empty() {
        bail!("this infer was built without a default model: name one by --model FILE (`train` makes it)");
    }
    let model = Model::from_bytes(DEFAULT_MODEL).context("the built-in model cannot be used")?;
    let classifier = Classifier::new(model, doubts).context("the built-in model does not fit")?;
    let judge = classifier.judge();
    info!(model = judge.name, hash = judge.hash, "built-in model loaded");
    Ok(classifier)
}

/// Loads the models and checks that they fit.
pub fn load(args: &ModelArgs) -> anyhow::Result<Vec<Classifier>> {
    if args.model.is_empty() {
        return Ok(vec![built_in(args.doubts())?]);
    }
    let mut classifiers: Vec<Classifier> = Vec::new();
    for path in &args.model {
        let classifier = Classifier::new(Model::load(path)?, args.doubts())
            .with_context(|| format!("the model {} does not fit", path.display()))?;
        let judge = classifier.judge();
        let classes = classifier.model().classes().len();
        info!(model = judge.name, hash = judge.hash, classes, "model loaded");
        if let Some(first) = classifiers.first()
            && first.window() != classifier.window()
        {
            bail!(
                "{} was trained on windows of {}, {} on windows of {}: models that judge together need the same",
                args.model[0].display(),
                first.window(),
                path.display(),
                classifier.window()
            );
        }
        classifiers.push(classifier);
    }
    Ok(classifiers)
}

/// The policy that was named, or the one that `--webhook` stands for: everybody is told of everything, nothing is
/// done.
fn policy(args: &Run) -> anyhow::Result<Policy> {
    if let Some(path) = &args.policy {
        return Ok(Policy::load(path)?);
    }
    let mut policy = Policy::default();
    for (place, url) in args.webhook.iter().enumerate() {
        let name =
            if args.webhook.len() == 1 { "webhook".to_owned() } else { format!("webhook{}", place + 1) };
        let files = args.webhook_secret_file.iter().cloned().collect();
        let secrets = Secrets { files, env: Vec::new() };
        policy
            .receivers
            .insert(name, ReceiverSettings { url: url.clone(), secrets, ..ReceiverSettings::default() });
    }
    let receivers: Vec<String> = policy.receivers.keys().cloned().collect();
    if !receivers.is_empty() {
        policy.routes.push(Route { receivers, ..Route::default() });
    }
    Ok(policy)
}

/// A pipeline as the arguments and the policy want it.
pub fn pipeline(
    classifiers: Vec<Classifier>,
    args: &ModelArgs,
    policy: &Policy,
    node: &str,
    label: Option<event::Label>,
) -> Pipeline {
    let window = classifiers[0].window();
    let tracker = Tracker::new(node, window, policy.incident.clone(), policy.storm.clone());
    let lateness = i64::try_from(args.lateness.as_nanos()).unwrap_or(i64::MAX);
    let settings = Settings {
        lateness: event::Duration::from_nanos(lateness),
        explained: args.explain,
        max_flows: args.max_flows,
    };
    Pipeline::new(classifiers, tracker, settings, label)
}

/// Where events come from.
enum Feed {
    File(Source),
    Live(Box<Live>),
}

impl Feed {
    fn open(args: &Run) -> anyhow::Result<Self> {
        match &args.from {
            Some(path) => Ok(Self::File(Source::open(path)?)),
            None => {
                let node = args.node.clone().unwrap_or_else(host);
                Ok(Self::Live(Box::new(Live::open(args, &node)?)))
            }
        }
    }

    fn node(&self, args: &Run) -> String {
        let own = || match self {
            Self::File(source) => source.node().map(str::to_owned).unwrap_or_default(),
            Self::Live(_) => host(),
        };
        args.node.clone().unwrap_or_else(own)
    }

    fn label(&self) -> Option<event::Label> {
        match self {
            Self::File(source) => source.label(),
            Self::Live(_) => None,
        }
    }

    const fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }

    /// What was recorded is over: nothing is ever done about it.
    const fn limit(&self) -> Mode {
        match self {
            Self::File(_) => Mode::DryRun,
            Self::Live(_) => Mode::Enforce,
        }
    }
}

fn read_file<W: Write>(
    source: &mut Source,
    pipeline: &mut Pipeline,
    sink: &mut Sink<W>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    while !interrupt.is_raised() {
        match source.next()? {
            Some(Item::Packets(packets)) => {
                pipeline.push_packets(packets, &mut |judgement, tracker| sink.take(judgement, tracker))?;
            }
            Some(Item::Event(event)) => {
                pipeline.push(&event, &mut |judgement, tracker| sink.take(judgement, tracker))?;
            }
            None => break,
        }
    }
    Ok(())
}

fn watch<W: Write>(
    live: &mut Live,
    args: &Run,
    pipeline: &mut Pipeline,
    sink: &mut Sink<W>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let hangup = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&hangup))
        .context("cannot listen for SIGHUP")?;
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut pace = live.pace();
    while !interrupt.is_raised() && end.is_none_or(|end| Instant::now() < end) {
        // Taken before the poll: whatever the poll does not bring arrives later than this.
        let now = live.now();
        let closing = now - pipeline.lateness() - pipeline.window();
        sink.set_recording(live.file_at(closing.window_start(pipeline.window())));
        let pause = {
            let events = live.poll()?;
            sink.polled();
            let pause = pace.after(events.len());
            push_all(events, pipeline, sink)?;
            pause
        };
        pipeline.tick(now, &mut |judgement, tracker| sink.take(judgement, tracker))?;
        if hangup.swap(false, Ordering::Relaxed) {
            reload(args.policy.as_deref(), pipeline, sink);
        }
        obey(pipeline, sink, now)?;
        std::thread::sleep(pause);
    }
    sink.stopping();
    push_all(live.stop()?, pipeline, sink)
}

/// Packets go on in runs, which is faster than one by one.
fn push_all<W: Write>(events: &[Event], pipeline: &mut Pipeline, sink: &mut Sink<W>) -> anyhow::Result<()> {
    let mut packets: Vec<Packet> = Vec::new();
    let take = &mut |judgement, tracker: &Tracker| sink.take(judgement, tracker);
    for event in events {
        if let Event::Packet(packet) = event {
            packets.push(*packet);
            continue;
        }
        pipeline.push_packets(&packets, take)?;
        packets.clear();
        pipeline.push(event, take)?;
    }
    pipeline.push_packets(&packets, take)
}

/// Reads the policy again; an invalid one changes nothing.
fn reload<W: Write>(path: Option<&Path>, pipeline: &mut Pipeline, sink: &mut Sink<W>) {
    let Some(path) = path else {
        warn!("SIGHUP: there is no --policy to read again");
        return;
    };
    let outcome = Policy::load(path).map_err(anyhow::Error::new).and_then(|policy| {
        let (incident, storm) = (policy.incident.clone(), policy.storm.clone());
        sink.set_policy(policy)?;
        pipeline.tracker_mut().set_settings(incident, storm);
        Ok(())
    });
    sink.note_reload(outcome.as_ref().err());
    match outcome {
        Ok(()) => info!("policy {} read again", path.display()),
        Err(error) => error!("the old policy stays in force: {error:#}"),
    }
}

/// Does what came over HTTP.
fn obey<W: Write>(pipeline: &mut Pipeline, sink: &mut Sink<W>, now: event::Timestamp) -> anyhow::Result<()> {
    while let Some(command) = sink.next_command() {
        match command {
            Command::Approve { key, answer } => {
                let outcome = sink.approve(&key, pipeline.tracker(), now)?;
                // Who asked may have gone.
                let _ = answer.send(outcome);
            }
            Command::Clear { target, answer } => {
                let _ = answer.send(sink.clear(&target)?);
            }
        }
    }
    Ok(())
}

fn report(feed: &Feed, pipeline: &Pipeline) -> Exit {
    let counts = pipeline.counts();
    let mut exit = Exit::Done;
    let (mut packets, mut other_events) = (counts.packets, 0);
    if let Feed::File(source) = feed {
        let report = source.report();
        for (reason, count) in &report.skipped {
            warn!(count, reason, "skipped");
        }
        for damage in &report.damage {
            warn!("damaged: {damage}");
            exit = Exit::Damaged;
        }
        (packets, other_events) = (report.packets, report.events);
    }
    info!(
        packets,
        other_events,
        counted = counts.counted,
        late = counts.late,
        seen_at_other_taps = counts.other_taps,
        flows = counts.flows,
        flows_closed_early = counts.closed_early,
        rows = counts.rows,
        "read"
    );
    exit
}

/// Says what became of the messages; an error where some were not delivered, unless a daemon that will be started
/// again keeps them.
fn report_receivers(receivers: &Receivers, left: u64, is_kept: bool, is_live: bool) -> anyhow::Result<()> {
    let mut lost = Vec::new();
    for (name, outbox) in receivers.outboxes() {
        let counters = &outbox.counters;
        let (dead, turned_away) =
            (counters.dead.load(Ordering::Relaxed), counters.turned_away.load(Ordering::Relaxed));
        let waiting = receivers.store().waiting(name).unwrap_or_default();
        let delivered = counters.delivered.load(Ordering::Relaxed);
        let retried = counters.retried.load(Ordering::Relaxed);
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
        warn!(waiting = left, "what waits is kept for the next run with the same --state-dir");
    }
    if is_kept && is_live {
        return Ok(());
    }
    bail!("messages were not delivered: {}", lost.join("; "))
}
