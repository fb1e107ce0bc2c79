//! What is known of a flow in a window besides its packets: application messages, names, verdicts, kernel events.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use event::{
    DnsMessage, Duration, HttpMessage, KafkaMessage, KernelEventKind, L7Flow, L7Message, L7Origin, L7Type,
    Verdict, Workload,
};

use crate::Value;
use crate::row::Row;
use crate::samples::Moments;
use crate::schema::Feature;

/// Longest `http_url`, in bytes.
const MAX_URL: usize = 256;

/// Kernel drop reasons that are a policy's or a rate limit's doing, by the start of their names.
const BLOCKING: [&str; 9] = [
    "NETFILTER_DROP",
    "BPF_CGROUP_EGRESS",
    "SOCKET_FILTER",
    "TC_EGRESS",
    "TC_INGRESS",
    "QDISC_DROP",
    "QDISC_OVERLIMIT",
    "XDP",
    "XFRM_POLICY",
];

/// Application protocols, from the least telling to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tls,
    Http,
    Dns,
    Kafka,
    Grpc,
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Dns => "dns",
            Self::Kafka => "kafka",
            Self::Grpc => "grpc",
        }
    }

    /// Its number in the column `l7_protocol`.
    const fn number(self) -> u16 {
        match self {
            Self::Http => 1,
            Self::Tls => 2,
            Self::Dns => 3,
            Self::Grpc => 4,
            Self::Kafka => 5,
        }
    }

    fn of(message: &L7Message) -> Option<Self> {
        match message {
            L7Message::None => None,
            L7Message::Dns(_) => Some(Self::Dns),
            L7Message::Http(http) if http.is_grpc => Some(Self::Grpc),
            L7Message::Http(_) => Some(Self::Http),
            L7Message::Kafka(_) => Some(Self::Kafka),
            L7Message::Tls(_) => Some(Self::Tls),
        }
    }
}

/// One exchange that stands for the others of its window: the one whose outcome ranks highest, the latest of
/// several.
#[derive(Clone, Debug)]
struct Exchange<Rank, Data> {
    rank: Rank,
    data: Data,
}

fn outrank<Rank: Ord, Data>(
    best: &mut Option<Exchange<Rank, Data>>,
    rank: Rank,
    data: impl FnOnce() -> Data,
) {
    if best.as_ref().is_none_or(|best| rank >= best.rank) {
        *best = Some(Exchange { rank, data: data() });
    }
}

#[derive(Clone, Debug)]
struct Http {
    status: Option<u16>,
    method: Arc<str>,
    path: Arc<str>,
}

#[derive(Clone, Debug)]
struct Grpc {
    status: Option<u16>,
    method: Arc<str>,
}

#[derive(Clone, Debug)]
struct Kafka {
    api_key: i16,
    error: Option<i16>,
}

#[derive(Clone, Debug)]
struct Dns {
    rcode: Option<u16>,
    name: Arc<str>,
    answers: Option<u16>,
}

/// What is known of one flow in one window.
#[derive(Clone, Debug, Default)]
pub struct Application {
    pub protocol: Option<Protocol>,
    http: Option<Exchange<Option<u16>, Http>>,
    http_latency: Option<Duration>,
    grpc: Option<Exchange<Option<u16>, Grpc>>,
    dns: Option<Exchange<Option<u16>, Dns>>,
    /// A failure outranks any success.
    kafka: Option<Exchange<(bool, Option<i16>), Kafka>>,
    names: Workload,
    verdict: Option<Verdict>,
    drop_reason: Option<Arc<str>>,
    is_blocked: bool,
    /// The kernel's smoothed round-trip times, in ns.
    rtt: Moments,
}

impl Application {
    /// Takes in an application event. `final_rcode` is the outcome of a DNS response after the search list.
    pub fn take(&mut self, flow: &L7Flow, final_rcode: Option<u16>) {
        self.protocol = self.protocol.max(Protocol::of(&flow.message));
        match &flow.message {
            L7Message::None | L7Message::Tls(_) => {}
            L7Message::Http(http) if http.is_grpc => self.take_grpc(http),
            L7Message::Http(http) => self.take_http(http, flow),
            L7Message::Dns(dns) => self.take_dns(dns, final_rcode),
            L7Message::Kafka(kafka) => self.take_kafka(kafka),
        }
        self.take_names(flow);
        if flow.origin != L7Origin::Hubble {
            return;
        }
        self.verdict = self.verdict.max(flow.verdict);
        self.is_blocked |= flow.verdict == Some(Verdict::Dropped);
        if let Some(reason) = &flow.drop_reason {
            self.drop_reason = Some(reason.as_str().into());
        }
    }

    fn take_http(&mut self, http: &HttpMessage, flow: &L7Flow) {
        outrank(&mut self.http, http.status, || Http {
            status: http.status,
            method: http.method.as_str().into(),
            path: shortened(&http.path).into(),
        });
        if http.status.is_some() {
            self.http_latency = self.http_latency.max(flow.latency);
        }
    }

    fn take_grpc(&mut self, http: &HttpMessage) {
        outrank(&mut self.grpc, http.grpc_status, || Grpc {
            status: http.grpc_status,
            method: shortened(&http.path).into(),
        });
    }

    fn take_dns(&mut self, dns: &DnsMessage, final_rcode: Option<u16>) {
        let rcode = final_rcode.or(dns.rcode);
        outrank(&mut self.dns, rcode, || Dns {
            rcode,
            name: dns.query.as_str().into(),
            answers: dns.rcode.and(dns.answers),
        });
    }

    fn take_kafka(&mut self, kafka: &KafkaMessage) {
        // Kafka's errors are numbered from -1 up; 0 is none.
        let failed = kafka.error_code.is_some_and(|code| code != 0);
        outrank(&mut self.kafka, (failed, kafka.error_code), || Kafka {
            api_key: kafka.api_key,
            error: kafka.error_code,
        });
    }

    fn take_names(&mut self, flow: &L7Flow) {
        let is_reply = flow.is_reply == Some(true) || flow.kind == L7Type::Response;
        let (client, server) =
            if is_reply { (&flow.destination, &flow.source) } else { (&flow.source, &flow.destination) };
        let pod = if client.pod.is_empty() { server } else { client };
        for (known, told) in [
            (&mut self.names.namespace, &pod.namespace),
            (&mut self.names.pod, &pod.pod),
            (&mut self.names.service, &server.service),
        ] {
            if known.is_empty() {
                known.clone_from(told);
            }
        }
    }

    /// Takes in a kernel event of the flow's connection.
    pub fn take_kernel(&mut self, kind: &KernelEventKind) {
        match kind {
            KernelEventKind::SmoothedRtt { rtt } => self.rtt.add(u64::try_from(rtt.as_nanos()).unwrap_or(0)),
            KernelEventKind::Drop { reason } => {
                self.is_blocked |= BLOCKING.iter().any(|blocking| reason.starts_with(blocking));
                self.drop_reason = Some(reason.as_str().into());
            }
            KernelEventKind::Retransmit { .. }
            | KernelEventKind::ResetSent { .. }
            | KernelEventKind::ResetReceived
            | KernelEventKind::SocketState { .. }
            | KernelEventKind::ListenOverflow
            | KernelEventKind::OomKill { .. } => {}
        }
    }

    pub fn fill(&self, row: &mut Row) {
        if let Some(Exchange { data: http, .. }) = &self.http {
            row[Feature::HttpStatusCode] = http.status.into();
            row[Feature::HttpMethod] = text(&http.method);
            row[Feature::HttpUrl] = text(&http.path);
            row[Feature::HttpLatencyMs] = self.http_latency.map(Duration::as_millis_f64).into();
        }
        if let Some(Exchange { data: grpc, .. }) = &self.grpc {
            row[Feature::GrpcStatusCode] = grpc.status.into();
            row[Feature::GrpcMethod] = text(&grpc.method);
        }
        if let Some(Exchange { data: dns, .. }) = &self.dns {
            row[Feature::DnsResponseCode] = dns.rcode.into();
            row[Feature::DnsQueryName] = text(&dns.name);
            row[Feature::DnsNumAnswers] = dns.answers.into();
        }
        if let Some(Exchange { data: kafka, .. }) = &self.kafka {
            row[Feature::KafkaApiKey] = kafka.api_key.into();
            row[Feature::KafkaErrorCode] = kafka.error.into();
        }
        for (feature, name) in [
            (Feature::Namespace, &self.names.namespace),
            (Feature::PodName, &self.names.pod),
            (Feature::ServiceName, &self.names.service),
        ] {
            row[feature] = text(&name.as_str().into());
        }
        row[Feature::Verdict] = self.verdict.map(verdict_name).into();
        row[Feature::DropReason] = self.drop_reason.clone().into();
        if self.is_blocked {
            row[Feature::IsBlockedFlow] = true.into();
        }
        if let Some(variance) = self.rtt.sample_variance() {
            row[Feature::RttVariance] = (variance / 1e12).into();
        }
    }
}

/// Fills what a flow's protocol tells.
pub fn fill_protocol(row: &mut Row, protocol: Option<Protocol>) {
    if let Some(protocol) = protocol {
        row[Feature::L7ProtocolDetected] = protocol.name().into();
        row.l7_protocol = protocol.number();
    }
}

/// Fills the names that nobody told in the window: of the pod on the initiator's side, else on the other, and of
/// the service there. `whose` tells whom an address belongs to.
pub fn fill_names<'a>(row: &mut Row, whose: impl Fn(IpAddr) -> Option<&'a Workload>) {
    let (client, server) = (whose(row.five_tuple.source.address), whose(row.five_tuple.destination.address));
    let pod = client.filter(|client| client.pod_origin.is_some()).or(server);
    for (feature, name) in [
        (Feature::Namespace, pod.map(|pod| &pod.namespace)),
        (Feature::PodName, pod.map(|pod| &pod.pod)),
        (Feature::ServiceName, server.map(|server| &server.service)),
    ] {
        if let Some(name) = name
            && matches!(row[feature], Value::Empty)
        {
            row[feature] = text(&name.as_str().into());
        }
    }
}

fn text(text: &Arc<str>) -> Value {
    if text.is_empty() { Value::Empty } else { Value::Text(Arc::clone(text)) }
}

/// Cut to [`MAX_URL`] bytes at most, between characters, and without a query string.
fn shortened(path: &str) -> &str {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    &path[..path.floor_char_boundary(MAX_URL)]
}

const fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forwarded => "FORWARDED",
        Verdict::Translated => "TRANSLATED",
        Verdict::Traced => "TRACED",
        Verdict::Redirected => "REDIRECTED",
        Verdict::Audit => "AUDIT",
        Verdict::Error => "ERROR",
        Verdict::Dropped => "DROPPED",
    }
}

/// RCODE of a name that does not exist.
const NXDOMAIN: u16 = 3;

/// The DNS names that each client got an answer for in a window: a name that does not exist counts as answered
/// where a later one of the same search list was.
#[derive(Debug, Default)]
pub struct SearchLists {
    /// Client, name without the trailing dot, and when the answer came; sorted.
    answered: Vec<(IpAddr, String, event::Timestamp)>,
}

impl SearchLists {
    pub fn new<'a>(flows: impl Iterator<Item = &'a L7Flow>) -> Self {
        let mut answered: Vec<_> = flows
            .filter_map(|flow| match &flow.message {
                L7Message::Dns(dns) if dns.rcode == Some(0) => {
                    Some((client(flow), dns.query.to_ascii_lowercase(), flow.time))
                }
                _ => None,
            })
            .collect();
        answered.sort_by_key(|(client, _, time)| (*client, Reverse(*time)));
        Self { answered }
    }

    /// The RCODE that counts for a response: 0 where the name was found under another of its expansions.
    pub fn final_rcode(&self, flow: &L7Flow) -> Option<u16> {
        let L7Message::Dns(dns) = &flow.message else { return None };
        if dns.rcode != Some(NXDOMAIN) {
            return dns.rcode;
        }
        let (client, name) = (client(flow), dns.query.to_ascii_lowercase());
        let from = self.answered.partition_point(|(other, ..)| *other < client);
        let answered = self.answered[from..]
            .iter()
            .take_while(|(other, _, time)| *other == client && *time >= flow.time)
            .any(|(_, answered, _)| is_expansion(&name, answered));
        Some(if answered { 0 } else { NXDOMAIN })
    }
}

/// Whether `failed` may come from the search list that later gave `answered`: it is that name with a suffix
/// (the bare name is tried last), or both are one name under suffixes of which one ends with the other, as
/// `default.svc.cluster.local` ends with `svc.cluster.local`.
fn is_expansion(failed: &str, answered: &str) -> bool {
    if failed.strip_prefix(answered).is_some_and(|suffix| suffix.starts_with('.')) {
        return true;
    }
    answered.match_indices('.').any(|(dot, _)| {
        let (base, suffix) = (&answered[..dot], &answered[dot..]);
        suffix[1..].contains('.')
            && failed
                .strip_prefix(base)
                .is_some_and(|tried| tried.len() > suffix.len() && tried.ends_with(suffix))
    })
}

fn client(flow: &L7Flow) -> IpAddr {
    if flow.kind == L7Type::Response || flow.is_reply == Some(true) {
        flow.five_tuple.destination.address
    } else {
        flow.five_tuple.source.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_lists_are_told_from_chance() {
        assert!(is_expansion("example.com.default.svc.cluster.local", "example.com"));
        assert!(is_expansion("db.default.svc.cluster.local", "db.svc.cluster.local"));
        assert!(!is_expansion("www.google.com", "www.example.com"));
        assert!(!is_expansion("www.shop.com", "www.com"));
        assert!(!is_expansion("db.svc.cluster.local", "db.svc.cluster.local"));
        assert!(!is_expansion("exampleXcom", "example"));
    }

    #[test]
    fn urls_are_cut_between_characters() {
        assert_eq!(shortened("/a?token=1"), "/a");
        assert_eq!(shortened(&"é".repeat(200)).len(), 256);
        assert_eq!(shortened(&format!("/{}", "é".repeat(200))).len(), 255);
    }
}
