//! Where judged windows go: decisions, the audit log, the receivers, whoever looks on, and standard output.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use event::{Duration, Label, Timestamp};
use serde_json::json;
use tracing::{debug, error, info, warn};

use crate::args::{Print, Run};
use crate::audit::Audit;
use crate::deliver::Message;
use crate::incident::{Change, Event, Incident, State, Tracker};
use crate::notify::{self, CLOUD_EVENT_TYPE, Renderer};
use crate::observe::{Command, Observed};
use crate::pipeline::Judgement;
use crate::policy::{ActionState, Decider, Decision, Format, Mode, Policy};
use crate::receivers::{Kept, Outgoing, Receivers};
use crate::time;
use crate::verdict::{Answer, Verdict};

/// What a run did; a line of its summary.
#[derive(Debug, Default)]
pub struct Summary {
    windows: u64,
    verdicts: BTreeMap<&'static str, u64>,
    faults: BTreeMap<Label, u64>,
    fired: u64,
    resolved: u64,
}

impl Summary {
    pub fn say(&self) {
        let named = |parts: Vec<String>| if parts.is_empty() { "none".to_owned() } else { parts.join(", ") };
        info!(
            windows = self.windows,
            verdicts = named(self.verdicts.iter().map(|(name, count)| format!("{name} {count}")).collect()),
            faults = named(self.faults.iter().map(|(label, count)| format!("{label} {count}")).collect()),
            incidents_fired = self.fired,
            incidents_resolved = self.resolved,
            "judged"
        );
    }
}

/// Where judged windows go.
pub struct Sink<W> {
    out: W,
    print: Print,
    node: String,
    window: Duration,
    recording: Option<PathBuf>,
    /// Whether anything is kept for another run.
    is_kept: bool,
    decider: Decider,
    renderer: Renderer,
    audit: Option<Audit>,
    receivers: Receivers,
    observed: Observed,
    summary: Summary,
    /// When events were last polled, of a live run.
    polled: Option<Instant>,
}

/// What a sink is made of.
pub struct Parts {
    pub policy: Policy,
    pub node: String,
    /// Goes no further than this, whatever the policy says.
    pub limit: Mode,
    /// Length of the windows.
    pub window: Duration,
    pub receivers: Receivers,
    pub observed: Observed,
    pub audit: Option<Audit>,
}

impl<W: Write> Sink<W> {
    /// # Errors
    /// Where a template of the policy cannot be used.
    pub fn new(args: &Run, out: W, parts: Parts) -> anyhow::Result<Self> {
        let Parts { policy, node, limit, window, receivers, observed, audit } = parts;
        let renderer = Renderer::new(&policy, window)?;
        let own = own_targets(&policy, args.listen);
        let is_kept = args.state_dir.is_some() && args.from.is_none();
        let decider = Decider::new(policy, limit, own);
        let (print, summary) = (args.print, Summary::default());
        let mut sink = Self {
            out,
            print,
            node,
            window,
            recording: None,
            is_kept,
            decider,
            renderer,
            audit,
            receivers,
            observed,
            summary,
            polled: None,
        };
        sink.set_recording(args.from.as_deref());
        Ok(sink)
    }

    /// The file that holds what the node saw in the window that closes next.
    pub fn set_recording(&mut self, file: Option<&Path>) {
        if self.recording.as_deref() == file {
            return;
        }
        self.recording = file.map(Path::to_owned);
        self.name_recording();
    }

    fn name_recording(&mut self) {
        let name = self.recording.as_deref().and_then(Path::file_name);
        self.renderer.set_recording(name.map(|name| name.to_string_lossy().into_owned()));
    }

    /// Goes on where an earlier run stopped.
    pub fn restore(&mut self, tracker: &mut Tracker) -> anyhow::Result<()> {
        if let Some(kept) = self.receivers.kept()?.filter(|_| self.is_kept) {
            tracker.restore(kept.incidents);
            self.decider.restore(kept.decisions);
        }
        Ok(())
    }

    /// The run begins: sources are attached.
    pub fn ready(&mut self) {
        let mode = self.decider.policy().mode.name();
        let judges = self.observed.judges();
        self.log(&json!({"kind": "started", "version": env!("CARGO_PKG_VERSION"), "node": self.node, "mode": mode, "models": judges}));
        self.observed.ready();
    }

    pub fn stopping(&mut self) {
        self.observed.stopping();
    }

    /// Events were polled now; what they close is judged from here on.
    pub fn polled(&mut self) {
        self.polled = Some(Instant::now());
    }

    /// Takes a window: receivers first, then the lines, so that a slow reader of standard output delays no message
    /// of its window.
    pub fn take(&mut self, judgement: Judgement, tracker: &Tracker) -> anyhow::Result<()> {
        let at = judgement.window + self.window;
        for event in &judgement.events {
            self.note(event);
        }
        let current = || tracker.current().filter_map(|(_, _, _, incident)| incident);
        let decisions = self.decider.decide(&judgement.events, current(), at, tracker.storm().is_active());
        let mut messages = self.storm_messages(&judgement.events)?;
        messages.extend(self.carry_out(&decisions));
        let kept = self
            .is_kept
            .then(|| Kept { incidents: tracker.snapshot(), decisions: self.decider.memory().clone() });
        self.receivers.send(messages, kept.as_ref());
        self.sync_audit();
        if let Some(polled) = self.polled {
            self.observed.judged(polled);
        }
        self.count(&judgement);
        self.observed.window(
            &judgement,
            (at, self.window.as_secs_f64()),
            tracker,
            self.decider.proposals(),
            &self.receivers,
        );
        self.print(&judgement.verdicts)
    }

    /// Writes decisions down and makes their messages. A template that fails costs its own message alone.
    fn carry_out(&mut self, decisions: &[Decision]) -> Vec<Outgoing> {
        for decision in decisions {
            self.log_decision(decision);
        }
        match self.renderer.messages(decisions, self.decider.policy()) {
            Ok(messages) => messages,
            Err(error) => {
                error!("a message could not be made: {error:#}");
                Vec::new()
            }
        }
    }

    fn log_decision(&mut self, decision: &Decision) {
        let (action, outcome, reason) = match &decision.action {
            None => (None, if decision.repetition > 0 { "reminded" } else { "told" }, None),
            Some((name, _, state)) => {
                let (outcome, reason) = match state {
                    ActionState::Requested { .. } => ("requested", None),
                    ActionState::Proposed => ("proposed", None),
                    ActionState::WouldRequest => ("would-request", None),
                    ActionState::Refused(refusal) => {
                        self.observed.refused(refusal.name());
                        ("refused", Some(refusal.to_string()))
                    }
                };
                info!(incident = decision.incident.id, action = name, outcome, reason, "action");
                (Some(name), outcome, reason)
            }
        };
        self.log(&json!({
            "kind": "decision",
            "at": time::to_rfc3339(decision.incident.changed),
            "incident": decision.incident.id,
            "change": decision.change,
            "route": decision.route + 1,
            "mode": decision.mode,
            "action": action,
            "outcome": outcome,
            "reason": reason,
        }));
    }

    fn log(&mut self, entry: &serde_json::Value) {
        if let Some(Err(failure)) = self.audit.as_mut().map(|audit| audit.write(entry)) {
            error!("{:#}", anyhow::Error::new(failure));
            self.observed.audit_failed();
        }
    }

    fn sync_audit(&mut self) {
        if let Some(Err(failure)) = self.audit.as_ref().map(Audit::sync) {
            error!("{:#}", anyhow::Error::new(failure));
            self.observed.audit_failed();
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Incident { change, announced, incident } => {
                self.summary.fired += u64::from(*change == Change::Fired);
                self.summary.resolved += u64::from(*change == Change::Resolved);
                let (fault, target) = (incident.label.to_string(), incident.target.to_string());
                info!(incident = incident.id, fault, target, "{}", change.name());
                self.observed.changed(*change, incident);
                self.log_change(*change, *announced, incident);
            }
            Event::Storm { change, at, targets, faulty } => {
                warn!(faulty, targets, ?change, "storm: too much is faulty at once to act on each");
                self.log(&json!({
                    "kind": "storm", "at": time::to_rfc3339(*at), "change": change, "targets": targets,
                    "faulty": faulty,
                }));
            }
        }
    }

    fn log_change(&mut self, change: Change, announced: bool, incident: &Incident) {
        self.log(&json!({
            "kind": "incident",
            "at": time::to_rfc3339(incident.changed),
            "incident": incident.id,
            "target": incident.target.to_string(),
            "fault": incident.label.to_string(),
            "change": change,
            "state": incident.state,
            "suppression": incident.suppression,
            "announced": announced,
            "confidence": incident.finding.confidence,
            "model": incident.finding.judge.hash,
        }));
    }

    /// One message per storm for each receiver of CloudEvents.
    fn storm_messages(&self, events: &[Event]) -> anyhow::Result<Vec<Outgoing>> {
        let mut messages = Vec::new();
        for event in events {
            let Some((id, body)) = notify::storm_event(&self.node, event)? else { continue };
            for (receiver, settings) in &self.decider.policy().receivers {
                if settings.format == Format::Cloudevents {
                    let mut message = Message::notification(id.clone(), "storm".to_owned(), body.clone());
                    message.content_type = CLOUD_EVENT_TYPE.to_owned();
                    messages.push(Outgoing { receiver: receiver.clone(), message });
                }
            }
        }
        Ok(messages)
    }

    fn count(&mut self, judgement: &Judgement) {
        let (rows, loss) = (judgement.verdicts.len(), judgement.loss);
        debug!(window = %judgement.window, rows, loss, "judged");
        self.summary.windows += u64::from(rows > 0);
        for verdict in &judgement.verdicts {
            *self.summary.verdicts.entry(verdict.answer.name()).or_default() += 1;
            if verdict.answer == Answer::Fault {
                *self.summary.faults.entry(verdict.label).or_default() += 1;
            }
        }
    }

    fn print(&mut self, verdicts: &[Verdict]) -> anyhow::Result<()> {
        for verdict in verdicts {
            let is_printed = match self.print {
                Print::All => true,
                Print::Faults => verdict.answer == Answer::Fault,
                Print::None => false,
            };
            if !is_printed && !self.observed.has_listeners() {
                continue;
            }
            let line = verdict.to_json().context("a verdict is no JSON")?;
            if is_printed {
                writeln!(self.out, "{line}").context("cannot write to standard output")?;
            }
            self.observed.verdict(line);
        }
        self.out.flush().context("cannot write to standard output")
    }

    /// Another policy from now on.
    pub fn set_policy(&mut self, policy: Policy) -> anyhow::Result<()> {
        let renderer = Renderer::new(&policy, self.window)?;
        self.receivers.apply(&policy)?;
        self.renderer = renderer;
        self.name_recording();
        self.decider.set_policy(policy);
        Ok(())
    }

    pub fn note_reload(&mut self, failure: Option<&anyhow::Error>) {
        let reason = failure.map(|failure| format!("{failure:#}"));
        self.log(&json!({"kind": "policy", "taken": reason.is_none(), "reason": reason}));
        self.sync_audit();
    }

    pub fn next_command(&self) -> Option<Command> {
        self.observed.next_command()
    }

    /// A person agreed to an action; what became of it, or nothing where there is no such proposal.
    pub fn approve(&mut self, key: &str, tracker: &Tracker, at: Timestamp) -> anyhow::Result<Option<String>> {
        let firing = tracker.current().filter_map(|(_, _, _, incident)| incident);
        let firing = firing.filter(|incident| incident.state == State::Firing);
        let is_storm = tracker.storm().is_active();
        let Some(decision) = self.decider.approve(key, firing, at, is_storm) else {
            self.log(&json!({"kind": "approval", "action": key, "outcome": "no such proposal"}));
            return Ok(None);
        };
        self.log(&json!({"kind": "approval", "action": key, "incident": decision.incident.id}));
        let outcome = match &decision.action {
            Some((_, _, ActionState::Refused(refusal))) => format!("refused: {refusal}"),
            _ => "requested".to_owned(),
        };
        let messages = self.carry_out(std::slice::from_ref(&decision));
        self.keep(messages, tracker);
        Ok(Some(outcome))
    }

    /// Ends the quarantine of a target; false where there was none.
    pub fn clear(&mut self, target: &str) -> anyhow::Result<bool> {
        let was_known = self.decider.clear(target);
        self.log(&json!({"kind": "cleared", "target": target, "was_known": was_known}));
        self.sync_audit();
        Ok(was_known)
    }

    fn keep(&mut self, messages: Vec<Outgoing>, tracker: &Tracker) {
        let kept = self
            .is_kept
            .then(|| Kept { incidents: tracker.snapshot(), decisions: self.decider.memory().clone() });
        self.receivers.send(messages, kept.as_ref());
        self.sync_audit();
    }

    /// The end: what was done, and the receivers, who may still have messages to take.
    pub fn finish(mut self) -> (Summary, Receivers) {
        self.log(&json!({"kind": "stopped"}));
        self.sync_audit();
        (self.summary, self.receivers)
    }
}

/// Targets that nothing is done about: the pod that this runs in (by the downward API's POD_NAMESPACE and
/// POD_NAME), its HTTP endpoint, and those of the receivers.
fn own_targets(policy: &Policy, listen: Option<SocketAddr>) -> BTreeSet<String> {
    let mut own = BTreeSet::new();
    own.extend(listen.map(|address| format!("endpoint/{address}/6")));
    if let (Ok(namespace), Ok(pod)) = (std::env::var("POD_NAMESPACE"), std::env::var("POD_NAME")) {
        own.insert(format!("pod/{namespace}/{pod}"));
    }
    for receiver in policy.receivers.values() {
        let Ok(settings) = receiver.client() else { continue };
        let Ok(url) = url::Url::parse(&settings.url) else { continue };
        let address: Option<IpAddr> = match url.host() {
            Some(url::Host::Ipv4(address)) => Some(address.into()),
            Some(url::Host::Ipv6(address)) => Some(address.into()),
            _ => None,
        };
        if let (Some(address), Some(port)) = (address, url.port_or_known_default()) {
            own.insert(format!("endpoint/{}/6", event::Endpoint::new(address, port)));
        }
    }
    own
}
