//! CloudEvents 1.0 in structured JSON, the format of choice: everything that is known about an incident.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>

use event::{Duration, Timestamp};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::incident::{Change, Event, Incident, State, StormChange, Suppression, Target};
use crate::policy::{Mode, Severity};
use crate::time;
use crate::verdict::{Evidence, Judge, label};

/// Media type of a structured event.
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// What is asked to be done, or would be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActionPart {
    pub name: String,
    /// The same for every message that asks for this one execution.
    pub idempotency_key: String,
    /// Whether it is asked for now.
    #[serde(rename = "requested")]
    pub is_requested: bool,
    /// Not to be carried out after this; absent where it is not asked for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    pub guard: GuardPart,
}

/// What the policy's bounds said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuardPart {
    pub allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One thing to tell about one incident.
#[derive(Clone, Debug)]
pub struct Notice<'a> {
    pub change: Change,
    pub incident: &'a Incident,
    pub severity: Severity,
    pub mode: Mode,
    /// Length of the windows.
    pub window: Duration,
    /// File that holds what the node saw, where there is one.
    pub recording: Option<&'a str>,
    pub action: Option<ActionPart>,
    /// How often it was told before: 0, or more for a reminder.
    pub repetition: u32,
}

#[derive(Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: String,
    datacontenttype: &'static str,
    data: D,
}

#[derive(Serialize)]
struct Data<'a> {
    incident: &'a str,
    fingerprint: &'a str,
    status: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppression: Option<Suppression>,
    change: Change,
    repetition: u32,
    severity: Severity,
    mode: Mode,
    node: &'a str,
    target: &'a Target,
    fault: String,
    confidence: f32,
    #[serde(with = "label")]
    runner_up: event::Label,
    runner_up_confidence: f32,
    model: &'a Judge,
    opened: String,
    window: Window,
    rows: Rows,
    /// The flow whose row speaks most clearly.
    flow: Flow<'a>,
    features: &'a [Evidence],
    #[serde(skip_serializing_if = "Option::is_none")]
    recording: Option<Recording<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a ActionPart>,
}

#[derive(Serialize)]
struct Window {
    start: String,
    seconds: f64,
}

#[derive(Serialize)]
struct Rows {
    named_it: u64,
    answered: u64,
}

#[derive(Serialize)]
struct Flow<'a> {
    id: &'a str,
    five_tuple: &'a str,
}

#[derive(Serialize)]
struct Recording<'a> {
    file: &'a str,
    /// Where to look in it: recordings are indexed by time.
    at: String,
}

impl Notice<'_> {
    /// The id of the message: the same whenever the same thing is told, so that nobody is told twice.
    pub fn id(&self) -> String {
        // What a person agreed to is another message than the proposal before it.
        let is_requested = self.action.as_ref().is_some_and(|action| action.is_requested);
        let kind = if is_requested { "action" } else { "incident" };
        let parts = [kind, self.incident.id.as_str(), self.change.name()];
        message_id(&parts, self.incident.sequence, self.repetition)
    }

    /// `io.faultline.incident.firing`, `io.faultline.action.requested`, ...
    fn kind(&self) -> String {
        match (&self.action, self.mode) {
            (Some(action), _) if action.is_requested => "io.faultline.action.requested".to_owned(),
            (Some(action), Mode::Approve) if action.guard.allowed => {
                "io.faultline.action.proposed".to_owned()
            }
            _ => format!("io.faultline.incident.{}", self.incident.state.name()),
        }
    }
}

/// The id of a message about several incidents.
pub fn group_id(notices: &[Notice<'_>]) -> String {
    let ids: Vec<String> = notices.iter().map(Notice::id).collect();
    let parts: Vec<&str> = ids.iter().map(String::as_str).collect();
    message_id(&parts, 0, 0)
}

/// An id of 128 bits over what is told.
fn message_id(parts: &[&str], sequence: u32, repetition: u32) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(sequence.to_be_bytes());
    hash.update(repetition.to_be_bytes());
    let hex: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("msg_{hex}")
}

/// The event as JSON.
///
/// # Errors
/// Where a number is not finite.
pub fn cloud_event(notice: &Notice<'_>) -> serde_json::Result<String> {
    let incident = notice.incident;
    let finding = &incident.finding;
    let data = Data {
        incident: &incident.id,
        fingerprint: &incident.fingerprint,
        status: incident.state,
        suppression: incident.suppression,
        change: notice.change,
        repetition: notice.repetition,
        severity: notice.severity,
        mode: notice.mode,
        node: &incident.node,
        target: &incident.target,
        fault: incident.label.to_string(),
        confidence: finding.confidence,
        runner_up: finding.runner_up,
        runner_up_confidence: finding.runner_up_confidence,
        model: &finding.judge,
        opened: time::to_rfc3339(incident.opened),
        window: Window { start: time::to_rfc3339(finding.window), seconds: notice.window.as_secs_f64() },
        rows: Rows { named_it: incident.rows, answered: incident.answered },
        flow: Flow { id: &finding.flow_id, five_tuple: &finding.flow },
        features: &finding.features,
        recording: notice.recording.map(|file| Recording { file, at: time::to_rfc3339(finding.window) }),
        action: notice.action.as_ref(),
    };
    serde_json::to_string(&CloudEvent {
        specversion: "1.0",
        id: &notice.id(),
        source: source(&incident.node),
        kind: notice.kind(),
        subject: incident.target.to_string(),
        time: time::to_rfc3339(incident.changed),
        datacontenttype: "application/json",
        data,
    })
}

#[derive(Serialize)]
struct StormData<'a> {
    node: &'a str,
    change: StormChange,
    targets: usize,
    faulty: usize,
}

/// A storm's begin or end: its message id, and the event as JSON. Nothing where it is no storm that is told of.
///
/// # Errors
/// As [`cloud_event`].
pub fn storm_event(node: &str, event: &Event) -> serde_json::Result<Option<(String, String)>> {
    let Event::Storm { change, at, targets, faulty } = event else { return Ok(None) };
    let name = match change {
        StormChange::Began => "began",
        StormChange::Ended => "ended",
    };
    let when: Timestamp = *at;
    let id = message_id(&["storm", node, name, &when.as_nanos().to_string()], 0, 0);
    let json = serde_json::to_string(&CloudEvent {
        specversion: "1.0",
        id: &id,
        source: source(node),
        kind: format!("io.faultline.storm.{name}"),
        subject: "node".to_owned(),
        time: time::to_rfc3339(when),
        datacontenttype: "application/json",
        data: StormData { node, change: *change, targets: *targets, faulty: *faulty },
    })?;
    Ok(Some((id, json)))
}

/// A URI of the node; what a URI does not hold as it is, is replaced.
fn source(node: &str) -> String {
    let name: String =
        node.chars()
            .map(|character| {
                if character.is_ascii_alphanumeric() || "-._~".contains(character) { character } else { '_' }
            })
            .take(253)
            .collect();
    format!("faultline://node/{name}")
}
