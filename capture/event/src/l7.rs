//! Application exchanges: requests and responses as a proxy, a DNS resolver or the wire showed them.

use crate::{Duration, FiveTuple, Timestamp};

/// Who reported an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L7Origin {
    Hubble,
    /// Read from payload by our own parsers.
    Wire,
}

/// Which half of an exchange this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L7Type {
    /// A flow without an application message: a verdict on packets.
    None,
    Request,
    Response,
    Sample,
}

/// What became of a flow, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Forwarded,
    Translated,
    Traced,
    Redirected,
    Audit,
    Error,
    Dropped,
}

/// Where a name came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameOrigin {
    /// Hubble named the pod or the service itself.
    Hubble,
    /// A label of the pod that Hubble told, such as `app.kubernetes.io/name`: no service was named.
    HubbleLabel,
    /// The workload that owns the pod, as Hubble told it: neither service nor label was.
    HubbleWorkload,
    /// The Kubernetes API.
    Kubernetes,
    /// A file that maps addresses to names.
    File,
}

/// The Kubernetes object behind an endpoint; empty strings are unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    pub namespace: String,
    pub pod: String,
    pub service: String,
    /// Who named namespace and pod; absent where nobody did.
    pub pod_origin: Option<NameOrigin>,
    /// Who named the service; absent where nobody did.
    pub service_origin: Option<NameOrigin>,
}

/// A DNS query or answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsMessage {
    /// Without the trailing dot.
    pub query: String,
    pub query_types: Vec<String>,
    /// Present in responses alone; 0 is NOERROR.
    pub rcode: Option<u16>,
    pub answers: Option<u16>,
}

/// An HTTP or gRPC request or response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMessage {
    /// Present in responses alone.
    pub status: Option<u16>,
    pub method: String,
    /// Without the query string.
    pub path: String,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: String,
    pub is_grpc: bool,
    /// Present only where the reply showed it; a missing status is unknown, never OK.
    pub grpc_status: Option<u16>,
}

/// A Kafka request or response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaMessage {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    /// Present in responses alone.
    pub error_code: Option<i16>,
    pub topic: String,
}

/// A TLS hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsMessage {
    pub server_name: String,
    /// As on the wire: 0x0303 is TLS 1.2, 0x0304 TLS 1.3.
    pub version: u16,
}

/// The application message of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L7Message {
    None,
    Dns(DnsMessage),
    Http(HttpMessage),
    Kafka(KafkaMessage),
    Tls(TlsMessage),
}

impl L7Message {
    /// Takes out names and paths; codes, methods and kinds stay.
    pub fn redact(&mut self) {
        match self {
            Self::None => {}
            Self::Dns(dns) => dns.query.clear(),
            Self::Http(http) => http.path.clear(),
            Self::Kafka(kafka) => kafka.topic.clear(),
            Self::Tls(tls) => tls.server_name.clear(),
        }
    }
}

/// One application event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L7Flow {
    pub time: Timestamp,
    pub arrival: Timestamp,
    pub origin: L7Origin,
    pub kind: L7Type,
    /// From the sender of this message; a response runs from server to client.
    pub five_tuple: FiveTuple,
    /// The client's address before translation, where the reporter told it.
    pub source_translated: Option<FiveTuple>,
    /// Whether the reporter marked it as a reply; absent is unknown.
    pub is_reply: Option<bool>,
    pub verdict: Option<Verdict>,
    pub drop_reason: Option<String>,
    /// Absent where the reporter could not pair request and response.
    pub latency: Option<Duration>,
    pub source: Workload,
    pub destination: Workload,
    pub node: String,
    /// Identifies one report; used to drop duplicates after a reconnect.
    pub uuid: String,
    pub message: L7Message,
}
