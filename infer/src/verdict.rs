//! ROW -> VERDICT: what the model says of one flow in one window, and what speaks for it.

use std::net::IpAddr;
use std::sync::Arc;

use event::{Duration, FiveTuple, Label, Protocol, Timestamp};
use serde::{Deserialize, Serialize, Serializer};

use crate::time;

/// The kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Normal,
    Fault,
    Unknown(Doubt),
}

impl Answer {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Fault => "fault",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Why a model's answer is not taken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doubt {
    /// The runner-up is too close.
    Margin,
    /// Too many inputs lie outside what the model was trained on.
    Range,
}

/// Who judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judge {
    /// The kind of model.
    pub name: String,
    /// SHA-256 of the model file.
    pub hash: String,
}

/// One feature's part in a verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub feature: String,
    /// Null where it was not measured.
    pub value: Option<Reading>,
    /// What is usual without a fault; null where it is usually not measured.
    pub baseline: Option<Reading>,
    /// Where the model draws the line between the two: the middle one of the thresholds that tell them apart. Null
    /// where there is none, as between names.
    pub threshold: Option<f32>,
    /// Probability that the fault would lose if the feature had its baseline.
    pub weight: f32,
}

/// The value of a feature as a person reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reading {
    Number(f32),
    Name(String),
}

/// What the model says of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Start of the window, and its length.
    pub window: Timestamp,
    pub length: Duration,
    /// First 8 hex digits of the MD5 of the five-tuple.
    pub flow_id: String,
    /// From the initiator to its peer.
    pub five_tuple: FiveTuple,
    /// Namespace and pod, where a source told them.
    pub workload: Option<(Arc<str>, Arc<str>)>,
    pub answer: Answer,
    /// The most probable class, taken for an answer or not.
    pub label: Label,
    pub confidence: f32,
    pub runner_up: Label,
    pub runner_up_confidence: f32,
    pub judge: Arc<Judge>,
    /// The strongest first; empty where the row was not explained.
    pub evidence: Vec<Evidence>,
}

impl Verdict {
    /// Lead over the runner-up, 0 to 1.
    pub fn margin(&self) -> f32 {
        self.confidence - self.runner_up_confidence
    }

    /// Namespace and name of the pod that the row belongs to.
    pub fn pod(&self) -> Option<(&str, &str)> {
        self.workload.as_ref().map(|(namespace, pod)| (&**namespace, &**pod))
    }

    /// Address, port and protocol of the side that was called.
    pub fn server(&self) -> (IpAddr, u16, Protocol) {
        let server = self.five_tuple.destination;
        (server.address, server.port, self.five_tuple.protocol)
    }

    /// What an incident keeps of this row.
    pub fn finding(&self) -> Finding {
        Finding {
            window: self.window,
            flow_id: self.flow_id.clone(),
            flow: self.five_tuple.to_string(),
            confidence: self.confidence,
            runner_up: self.runner_up,
            runner_up_confidence: self.runner_up_confidence,
            judge: Judge::clone(&self.judge),
            features: self.evidence.clone(),
        }
    }

    /// The verdict as one line of JSON, without the line's end.
    ///
    /// # Errors
    /// Where a number is not finite.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let flow = &self.five_tuple;
        let doubt = match self.answer {
            Answer::Unknown(doubt) => Some(doubt),
            Answer::Normal | Answer::Fault => None,
        };
        serde_json::to_string(&Line {
            window: time::to_rfc3339(self.window),
            window_seconds: self.length.as_secs_f64(),
            flow_id: &self.flow_id,
            src_ip: flow.source.address,
            src_port: flow.source.port,
            dst_ip: flow.destination.address,
            dst_port: flow.destination.port,
            protocol: flow.protocol.0,
            namespace: self.pod().map(|pod| pod.0),
            pod: self.pod().map(|pod| pod.1),
            verdict: self.answer.name(),
            doubt,
            fault: self.label,
            confidence: self.confidence,
            runner_up: self.runner_up,
            runner_up_confidence: self.runner_up_confidence,
            model: &self.judge.name,
            model_hash: &self.judge.hash,
            features: &self.evidence,
        })
    }
}

/// A verdict line; the order of the fields is that of the text.
#[derive(Serialize)]
struct Line<'a> {
    window: String,
    window_seconds: f64,
    flow_id: &'a str,
    src_ip: IpAddr,
    src_port: u16,
    dst_ip: IpAddr,
    dst_port: u16,
    protocol: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    doubt: Option<Doubt>,
    #[serde(with = "label")]
    fault: Label,
    confidence: f32,
    #[serde(with = "label")]
    runner_up: Label,
    runner_up_confidence: f32,
    model: &'a str,
    model_hash: &'a str,
    #[serde(skip_serializing_if = "<[Evidence]>::is_empty")]
    features: &'a [Evidence],
}

/// The row that speaks most clearly for an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Start of the window.
    #[serde(with = "time::rfc3339")]
    pub window: Timestamp,
    pub flow_id: String,
    pub flow: String,
    pub confidence: f32,
    #[serde(with = "label")]
    pub runner_up: Label,
    pub runner_up_confidence: f32,
    pub judge: Judge,
    pub features: Vec<Evidence>,
}

/// Serde of a [`Label`] by name, or by number where it has none.
pub mod label {
    use super::{Label, Serializer};
    use serde::{Deserialize as _, Deserializer, de::Error as _};

    /// Writes it.
    pub fn serialize<S: Serializer>(label: &Label, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(label)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Label, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
