//! Hubble's messages: those fields that are used here, by their numbers, with the names they have in JSON.
//!
//! A oneof is written as its alternatives, which the wire does not tell apart. Enumerations stay numbers, so
//! that a server newer than this table loses nothing.

use std::fmt;

use serde::Deserialize;

use crate::json::fields;

/// Seconds and nanoseconds since the Unix epoch; text in JSON.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct GetFlowsRequest {
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(bool, tag = "3")]
    pub follow: bool,
    #[prost(message, repeated, tag = "6")]
    pub whitelist: Vec<FlowFilter>,
    #[prost(message, optional, tag = "7")]
    pub since: Option<Timestamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FlowFilter {
    #[prost(message, repeated, tag = "6")]
    pub event_type: Vec<EventTypeFilter>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct EventTypeFilter {
    #[prost(int32, tag = "1")]
    pub r#type: i32,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct GetFlowsResponse {
    #[prost(message, optional, boxed, tag = "1")]
    pub flow: Option<Box<Flow>>,
    #[prost(message, optional, tag = "2")]
    pub node_status: Option<NodeStatus>,
    #[prost(message, optional, tag = "3")]
    pub lost_events: Option<LostEvent>,
    #[prost(string, tag = "1000")]
    pub node_name: String,
    #[prost(message, optional, tag = "1001")]
    #[serde(deserialize_with = "fields::time")]
    pub time: Option<Timestamp>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    #[prost(int32, tag = "1")]
    #[serde(deserialize_with = "fields::node_state")]
    pub state_change: i32,
    #[prost(string, repeated, tag = "2")]
    pub node_names: Vec<String>,
    #[prost(string, tag = "3")]
    pub message: String,
}

impl fmt::Display for NodeStatus {
    /// `node-1, node-2 unavailable: connection refused`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state_change {
            1 => "connected",
            2 => "unavailable",
            3 => "gone",
            4 => "failed",
            _ => "in an unknown state",
        };
        write!(f, "{} {state}", self.node_names.join(", "))?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct LostEvent {
    #[prost(int32, tag = "1")]
    #[serde(deserialize_with = "fields::lost_source")]
    pub source: i32,
    #[prost(uint64, tag = "2")]
    #[serde(deserialize_with = "fields::number")]
    pub num_events_lost: u64,
    #[prost(message, optional, tag = "4")]
    #[serde(deserialize_with = "fields::time")]
    pub first: Option<Timestamp>,
    #[prost(message, optional, tag = "5")]
    #[serde(deserialize_with = "fields::time")]
    pub last: Option<Timestamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ServerStatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ServerStatus {
    #[prost(uint64, tag = "1")]
    pub num_flows: u64,
    #[prost(uint64, tag = "2")]
    pub max_flows: u64,
    #[prost(uint64, tag = "3")]
    pub seen_flows: u64,
    #[prost(uint64, tag = "4")]
    pub uptime_ns: u64,
    #[prost(string, tag = "8")]
    pub version: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Flow {
    #[prost(message, optional, tag = "1")]
    #[serde(deserialize_with = "fields::time")]
    pub time: Option<Timestamp>,
    #[prost(int32, tag = "2")]
    #[serde(deserialize_with = "fields::verdict")]
    pub verdict: i32,
    /// Deprecated in favour of `drop_reason_desc`; alone in old servers.
    #[prost(uint32, tag = "3")]
    #[serde(deserialize_with = "fields::number32")]
    pub drop_reason: u32,
    #[prost(message, optional, tag = "5")]
    #[serde(rename = "IP")]
    pub ip: Option<Ip>,
    #[prost(message, optional, tag = "6")]
    pub l4: Option<Layer4>,
    #[prost(message, optional, tag = "8")]
    pub source: Option<Endpoint>,
    #[prost(message, optional, tag = "9")]
    pub destination: Option<Endpoint>,
    #[prost(int32, tag = "10")]
    #[serde(rename = "Type", deserialize_with = "fields::flow_type")]
    pub r#type: i32,
    #[prost(string, tag = "11")]
    pub node_name: String,
    #[prost(message, optional, tag = "15")]
    pub l7: Option<Layer7>,
    /// Before `is_reply` there was.
    #[prost(bool, tag = "16")]
    pub reply: bool,
    #[prost(message, optional, tag = "19")]
    pub event_type: Option<EventType>,
    #[prost(message, optional, tag = "20")]
    pub source_service: Option<Service>,
    #[prost(message, optional, tag = "21")]
    pub destination_service: Option<Service>,
    #[prost(int32, tag = "25")]
    #[serde(deserialize_with = "fields::drop_reason")]
    pub drop_reason_desc: i32,
    #[prost(message, optional, tag = "26")]
    #[serde(deserialize_with = "fields::wrapped_bool")]
    pub is_reply: Option<BoolValue>,
    #[prost(string, tag = "34")]
    pub uuid: String,
}

/// A boolean that may be absent; bare in JSON.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct BoolValue {
    #[prost(bool, tag = "1")]
    pub value: bool,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Ip {
    #[prost(string, tag = "1")]
    pub source: String,
    #[prost(string, tag = "2")]
    pub destination: String,
    /// The source after translation.
    #[prost(string, tag = "5")]
    pub source_xlated: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Ports {
    #[prost(uint32, tag = "1")]
    pub source_port: u32,
    #[prost(uint32, tag = "2")]
    pub destination_port: u32,
}

/// Type and code, which are no ports.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Icmp {}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Layer4 {
    #[prost(message, optional, tag = "1")]
    #[serde(rename = "TCP")]
    pub tcp: Option<Ports>,
    #[prost(message, optional, tag = "2")]
    #[serde(rename = "UDP")]
    pub udp: Option<Ports>,
    #[prost(message, optional, tag = "3")]
    #[serde(rename = "ICMPv4")]
    pub icmp_v4: Option<Icmp>,
    #[prost(message, optional, tag = "4")]
    #[serde(rename = "ICMPv6")]
    pub icmp_v6: Option<Icmp>,
    #[prost(message, optional, tag = "5")]
    #[serde(rename = "SCTP")]
    pub sctp: Option<Ports>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(string, repeated, tag = "4")]
    pub labels: Vec<String>,
    #[prost(string, tag = "5")]
    pub pod_name: String,
    #[prost(message, repeated, tag = "6")]
    pub workloads: Vec<Workload>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Workload {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub kind: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Service {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message, Deserialize)]
#[serde(default)]
pub struct EventType {
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    #[prost(int32, tag = "2")]
    pub sub_type: i32,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Layer7 {
    #[prost(int32, tag = "1")]
    #[serde(deserialize_with = "fields::l7_type")]
    pub r#type: i32,
    #[prost(uint64, tag = "2")]
    #[serde(deserialize_with = "fields::number")]
    pub latency_ns: u64,
    #[prost(message, optional, tag = "100")]
    pub dns: Option<Dns>,
    #[prost(message, optional, tag = "101")]
    pub http: Option<Http>,
    #[prost(message, optional, tag = "102")]
    pub kafka: Option<Kafka>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Dns {
    #[prost(string, tag = "1")]
    pub query: String,
    #[prost(string, repeated, tag = "2")]
    pub ips: Vec<String>,
    /// [`Dns::NO_ANSWER`] where there was none.
    #[prost(uint32, tag = "3")]
    pub ttl: u32,
    #[prost(string, repeated, tag = "4")]
    pub cnames: Vec<String>,
    #[prost(uint32, tag = "6")]
    pub rcode: u32,
    #[prost(string, repeated, tag = "7")]
    pub qtypes: Vec<String>,
    /// One for each answer record.
    #[prost(string, repeated, tag = "8")]
    pub rrtypes: Vec<String>,
}

impl Dns {
    pub const NO_ANSWER: u32 = u32::MAX;
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Http {
    #[prost(uint32, tag = "1")]
    pub code: u32,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(string, tag = "3")]
    pub url: String,
    #[prost(string, tag = "4")]
    pub protocol: String,
    #[prost(message, repeated, tag = "5")]
    pub headers: Vec<Header>,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Header {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub struct Kafka {
    #[prost(int32, tag = "1")]
    pub error_code: i32,
    #[prost(int32, tag = "2")]
    pub api_version: i32,
    /// A name, or the number of one that has none.
    #[prost(string, tag = "3")]
    pub api_key: String,
    #[prost(int32, tag = "4")]
    pub correlation_id: i32,
    #[prost(string, tag = "5")]
    pub topic: String,
}
