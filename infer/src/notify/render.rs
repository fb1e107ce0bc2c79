//! Decisions to messages: each receiver's format, the incidents of one window grouped where it is asked for.

use std::collections::BTreeMap;

use event::Duration;

use super::{ActionPart, CLOUD_EVENT_TYPE, GuardPart, Notice, Template, alertmanager, cloud_event, labels};
use crate::deliver::{Kind, Message};
use crate::policy::{ActionState, Decision, Format, Policy};
use crate::receivers::Outgoing;
use crate::time;

/// Route, receiver, and the labels that the incidents of a group share.
type GroupKey<'p> = (usize, &'p str, BTreeMap<String, String>);

/// What messages are made by.
pub struct Renderer {
    templates: BTreeMap<String, Template>,
    /// Length of the windows.
    window: Duration,
    recording: Option<String>,
}

impl Renderer {
    /// # Errors
    /// Where a template cannot be used.
    pub fn new(policy: &Policy, window: Duration) -> anyhow::Result<Self> {
        let mut templates = BTreeMap::new();
        for (name, receiver) in &policy.receivers {
            if let Some(path) = &receiver.template {
                templates.insert(name.clone(), Template::load(path)?);
            }
        }
        Ok(Self { templates, window, recording: None })
    }

    /// The file that holds what the node saw, from now on.
    pub fn set_recording(&mut self, recording: Option<String>) {
        self.recording = recording;
    }

    /// The messages that the decisions of one window make, in their order.
    ///
    /// # Errors
    /// Where a template fails.
    pub fn messages(&self, decisions: &[Decision], policy: &Policy) -> anyhow::Result<Vec<Outgoing>> {
        let mut outgoing = Vec::new();
        let mut groups: BTreeMap<GroupKey<'_>, Vec<Notice<'_>>> = BTreeMap::new();
        for decision in decisions {
            let Some(route) = policy.routes.get(decision.route) else { continue };
            let notice = self.notice(decision);
            for receiver in &route.receivers {
                let Some(settings) = policy.receivers.get(receiver) else { continue };
                if settings.format == Format::Cloudevents {
                    outgoing.push(of_one(receiver, decision, &notice)?);
                } else {
                    let mut group = labels(&notice);
                    group.retain(|name, _| route.group_by.contains(name));
                    groups.entry((decision.route, receiver, group)).or_default().push(notice.clone());
                }
            }
        }
        for ((_, receiver, group), notices) in groups {
            let content_type =
                policy.receivers.get(receiver).map_or("application/json", |settings| &settings.content_type);
            outgoing.push(self.of_group(receiver, &group, &notices, content_type)?);
        }
        Ok(outgoing)
    }

    fn notice<'d>(&'d self, decision: &'d Decision) -> Notice<'d> {
        Notice {
            change: decision.change,
            incident: &decision.incident,
            severity: decision.severity,
            mode: decision.mode,
            window: self.window,
            recording: self.recording.as_deref(),
            action: decision.action.as_ref().map(|(name, key, state)| part(name, key, state)),
            repetition: decision.repetition,
        }
    }

    fn of_group(
        &self,
        receiver: &str,
        group: &BTreeMap<String, String>,
        notices: &[Notice<'_>],
        content_type: &str,
    ) -> anyhow::Result<Outgoing> {
        let body = match self.templates.get(receiver) {
            None => alertmanager(receiver, group, notices)?,
            Some(template) => {
                let events: Result<Vec<serde_json::Value>, serde_json::Error> = notices
                    .iter()
                    .map(|notice| cloud_event(notice).and_then(|event| serde_json::from_str(&event)))
                    .collect();
                template.render(receiver, group, &events?)?
            }
        };
        let id = super::group_id(notices);
        // Groups of one route arrive in order: a later one may end what an earlier one began.
        let key: Vec<String> = group.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let subject = format!("group {}", key.join(","));
        let content_type = content_type.to_owned();
        Ok(Outgoing {
            receiver: receiver.to_owned(),
            message: Message { content_type, ..Message::notification(id, subject, body) },
        })
    }
}

fn of_one(receiver: &str, decision: &Decision, notice: &Notice<'_>) -> anyhow::Result<Outgoing> {
    let body = cloud_event(notice)?;
    let mut message = Message::notification(notice.id(), decision.incident.id.clone(), body);
    message.content_type = CLOUD_EVENT_TYPE.to_owned();
    if let Some((_, _, ActionState::Requested { expires })) = &decision.action {
        message.kind = Kind::Action;
        message.expires_ms = Some(expires.as_nanos() / 1_000_000);
    }
    Ok(Outgoing { receiver: receiver.to_owned(), message })
}

fn part(name: &str, key: &str, state: &ActionState) -> ActionPart {
    let (expires, reason) = match state {
        ActionState::Requested { expires } => (Some(time::to_rfc3339(*expires)), None),
        ActionState::Refused(refusal) => (None, Some(refusal.to_string())),
        ActionState::Proposed | ActionState::WouldRequest => (None, None),
    };
    ActionPart {
        name: name.to_owned(),
        idempotency_key: key.to_owned(),
        is_requested: expires.is_some(),
        expires,
        guard: GuardPart { allowed: reason.is_none(), reason },
    }
}
