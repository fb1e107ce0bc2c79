//! The webhook format of Prometheus Alertmanager, version 4, for receivers that already speak it.
//! <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>

use std::collections::BTreeMap;

use serde::Serialize;

use super::Notice;
use crate::incident::{Change, Target};
use crate::time;

/// Alertmanager's way to say that an alert has not ended.
const NOT_ENDED: &str = "0001-01-01T00:00:00Z";

#[derive(Serialize)]
struct Webhook<'a> {
    version: &'static str,
    #[serde(rename = "groupKey")]
    group_key: String,
    #[serde(rename = "truncatedAlerts")]
    truncated_alerts: u64,
    status: &'static str,
    receiver: &'a str,
    #[serde(rename = "groupLabels")]
    group_labels: BTreeMap<String, String>,
    #[serde(rename = "commonLabels")]
    common_labels: BTreeMap<String, String>,
    #[serde(rename = "commonAnnotations")]
    common_annotations: BTreeMap<String, String>,
    #[serde(rename = "externalURL")]
    external_url: &'static str,
    alerts: Vec<Alert<'a>>,
}

#[derive(Serialize)]
struct Alert<'a> {
    status: &'static str,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    #[serde(rename = "startsAt")]
    starts_at: String,
    #[serde(rename = "endsAt")]
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'static str,
    fingerprint: &'a str,
}

/// Alertmanager knows two states: what is suppressed or stale still fires, and says so in an annotation.
const fn status(change: Change) -> &'static str {
    match change {
        Change::Resolved | Change::Forgotten => "resolved",
        Change::Fired | Change::Resumed | Change::Suppressed | Change::Stale => "firing",
    }
}

/// The notices of one group as JSON.
///
/// # Errors
/// Never, in practice: every value is text.
pub fn alertmanager(
    receiver: &str,
    group: &BTreeMap<String, String>,
    notices: &[Notice<'_>],
) -> serde_json::Result<String> {
    let alerts: Vec<Alert<'_>> = notices.iter().map(alert).collect();
    let key: Vec<String> = group.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    let firing = alerts.iter().any(|alert| alert.status == "firing");
    serde_json::to_string(&Webhook {
        version: "4",
        group_key: format!("{{}}:{{{}}}", key.join(", ")),
        truncated_alerts: 0,
        status: if firing { "firing" } else { "resolved" },
        receiver,
        group_labels: group.clone(),
        common_labels: shared(alerts.iter().map(|alert| &alert.labels)),
        common_annotations: shared(alerts.iter().map(|alert| &alert.annotations)),
        external_url: "",
        alerts,
    })
}

fn alert<'a>(notice: &Notice<'a>) -> Alert<'a> {
    let incident = notice.incident;
    let status = status(notice.change);
    let ends_at =
        if status == "resolved" { time::to_rfc3339(incident.changed) } else { NOT_ENDED.to_owned() };
    Alert {
        status,
        labels: labels(notice),
        annotations: annotations(notice),
        starts_at: time::to_rfc3339(incident.opened),
        ends_at,
        generator_url: "",
        fingerprint: &incident.fingerprint,
    }
}

/// What names the alert: the same for every message about one incident.
pub fn labels(notice: &Notice<'_>) -> BTreeMap<String, String> {
    let incident = notice.incident;
    let mut labels = BTreeMap::from([
        ("alertname".to_owned(), format!("faultline-{}", incident.label)),
        ("fault".to_owned(), incident.label.to_string()),
        ("severity".to_owned(), notice.severity.name().to_owned()),
        ("node".to_owned(), incident.node.clone()),
        ("target".to_owned(), incident.target.to_string()),
    ]);
    if let Target::Pod { namespace, pod } = &incident.target {
        labels.insert("namespace".to_owned(), namespace.clone());
        labels.insert("pod".to_owned(), pod.clone());
    }
    labels
}

fn annotations(notice: &Notice<'_>) -> BTreeMap<String, String> {
    let incident = notice.incident;
    let finding = &incident.finding;
    let features: Vec<&str> = finding.features.iter().map(|evidence| evidence.feature.as_str()).collect();
    BTreeMap::from([
        (
            "summary".to_owned(),
            format!("{} at {} of node {}", incident.label, incident.target, incident.node),
        ),
        (
            "description".to_owned(),
            format!(
                "confidence {:.2}, then {} with {:.2}; {} of {} rows; it shows in {}",
                finding.confidence,
                finding.runner_up,
                finding.runner_up_confidence,
                incident.rows,
                incident.answered,
                if features.is_empty() { "no single feature".to_owned() } else { features.join(", ") }
            ),
        ),
        ("incident".to_owned(), incident.id.clone()),
        ("state".to_owned(), incident.state.name().to_owned()),
        ("model_hash".to_owned(), finding.judge.hash.clone()),
    ])
}

/// The entries that all of the maps have with the same value.
fn shared<'a>(mut maps: impl Iterator<Item = &'a BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut common = maps.next().cloned().unwrap_or_default();
    for map in maps {
        common.retain(|name, value| map.get(name) == Some(value));
    }
    common
}
