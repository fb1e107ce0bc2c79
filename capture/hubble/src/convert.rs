//! A message of Hubble's to an event.

use std::fmt;
use std::net::IpAddr;

use event::{
    DnsMessage, Duration, Endpoint, Event, FiveTuple, HttpMessage, KafkaMessage, L7Flow, L7Message, L7Origin,
    L7Type, Loss, LossCause, Mark, NameOrigin, Protocol, Source, Timestamp, Verdict, Workload,
};

use crate::json::JsonMessage;
use crate::names;
use crate::pairs::Pairs;
use crate::proto::{self, Flow, GetFlowsResponse, LostEvent, NodeStatus};

/// Why a message gave no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    NoTime,
    /// Neither end, or one that is no IP address (policy on raw sockets, ARP).
    NoAddress,
    /// Neither TCP, UDP, SCTP nor ICMP.
    NoTransport,
    /// The second record of a packet that was dropped by policy.
    SecondRecord,
    /// Neither a flow, a loss nor a node's status: a kind of a newer server.
    UnknownKind,
}

impl Skip {
    pub const ALL: [Self; 5] =
        [Self::NoTime, Self::NoAddress, Self::NoTransport, Self::SecondRecord, Self::UnknownKind];
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTime => "without a time",
            Self::NoAddress => "without IP addresses",
            Self::NoTransport => "without a transport protocol",
            Self::SecondRecord => "second record of a drop",
            Self::UnknownKind => "of an unknown kind",
        })
    }
}

/// What became of the messages: `read` = `used` + skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub read: u64,
    pub used: u64,
    skipped: [u64; Skip::ALL.len()],
    /// What Hubble says that it lost.
    pub lost: Lost,
    /// Changes of a node's status, as a relay tells them.
    pub node_changes: u64,
}

/// Events that Hubble lost, before any filter, by the place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The kernel's ring, because the agent was too slow.
    pub kernel: u64,
    /// The agent's own queue.
    pub queue: u64,
    /// Its ring, which was overwritten before we read it.
    pub ring: u64,
    /// It does not say, or by a name that is not known here.
    pub elsewhere: u64,
}

impl Lost {
    /// The counter and the cause for a source as Hubble numbers it.
    fn of(&mut self, source: i32) -> (&mut u64, LossCause) {
        match source {
            1 => (&mut self.kernel, LossCause::UpstreamKernel),
            2 => (&mut self.queue, LossCause::UpstreamQueue),
            3 => (&mut self.ring, LossCause::UpstreamRing),
            _ => (&mut self.elsewhere, LossCause::Upstream),
        }
    }

    pub fn total(&self) -> u64 {
        self.kernel.saturating_add(self.queue).saturating_add(self.ring).saturating_add(self.elsewhere)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, queue, ring, elsewhere } = self;
        write!(
            f,
            "Hubble lost {kernel} events in the kernel's ring, {queue} in its queue, {ring} in its own ring"
        )?;
        if *elsewhere > 0 {
            write!(f, ", {elsewhere} elsewhere")?;
        }
        Ok(())
    }
}

impl Counts {
    pub fn skipped(&self, reason: Skip) -> u64 {
        self.skipped[reason as usize]
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages read, {} used", self.read, self.used)?;
        for reason in Skip::ALL.into_iter().filter(|reason| self.skipped(*reason) > 0) {
            write!(f, ", {} {reason}", self.skipped(reason))?;
        }
        if self.node_changes > 0 {
            write!(f, "; {} changes of a node's status", self.node_changes)?;
        }
        if self.lost.total() > 0 {
            write!(f, "; {}", self.lost)?;
        }
        Ok(())
    }
}

/// A query from a client: tuple, name, types.
type DnsKey = (FiveTuple, String, Vec<String>);

/// Turns messages into events, in the order in which they come.
#[derive(Default)]
pub struct Converter {
    queries: Pairs<DnsKey, Timestamp>,
    /// Packets that were dropped, with the event type of the record that told it first.
    drops: Pairs<FiveTuple, (i32, Timestamp)>,
    /// Of the last flow.
    last_time: Option<Timestamp>,
    counts: Counts,
}

impl Converter {
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The event of a line of JSON; it arrived when the flow was.
    pub fn json_event(&mut self, line: &JsonMessage) -> Option<Event> {
        let mut event = self.event(&line.message, None)?;
        if let Event::L7(flow) = &mut event
            && flow.verdict.is_some_and(is_drop)
            && let Some(name) = &line.drop_reason
        {
            flow.drop_reason = Some(name.clone());
        }
        Some(event)
    }

    /// `arrival` is when we learned of it; absent for files, where it is the message's own time.
    pub fn event(&mut self, message: &GetFlowsResponse, arrival: Option<Timestamp>) -> Option<Event> {
        self.counts.read += 1;
        let converted = if let Some(flow) = &message.flow {
            self.flow(flow, message, arrival).map(|flow| Event::L7(Box::new(flow)))
        } else if let Some(lost) = &message.lost_events {
            self.loss(lost, message, arrival).map(Event::Loss)
        } else if let Some(status) = &message.node_status {
            self.node_status(status, message, arrival).map(Event::Mark)
        } else {
            Err(Skip::UnknownKind)
        };
        match converted {
            Ok(event) => {
                self.counts.used += 1;
                Some(event)
            }
            Err(reason) => {
                self.counts.skipped[reason as usize] += 1;
                None
            }
        }
    }

    fn loss(
        &mut self,
        lost: &LostEvent,
        message: &GetFlowsResponse,
        arrival: Option<Timestamp>,
    ) -> Result<Loss, Skip> {
        let (count, cause) = self.counts.lost.of(lost.source);
        *count = count.saturating_add(lost.num_events_lost);
        // Older servers tell no time: the loss was after what came before it.
        let told = lost.last.or(message.time).and_then(timestamp);
        let last = told.or(arrival).or(self.last_time).ok_or(Skip::NoTime)?;
        Ok(Loss {
            first: lost.first.and_then(timestamp).unwrap_or(last),
            last,
            arrival: arrival.unwrap_or(last),
            source: Source::L7,
            cause,
            interface: None,
            count: lost.num_events_lost,
        })
    }

    /// A note in the recording: what that node saw is there, or no longer.
    fn node_status(
        &mut self,
        status: &NodeStatus,
        message: &GetFlowsResponse,
        arrival: Option<Timestamp>,
    ) -> Result<Mark, Skip> {
        let time = message.time.and_then(timestamp).or(arrival).or(self.last_time).ok_or(Skip::NoTime)?;
        self.counts.node_changes += 1;
        let note = format!("hubble: {status}");
        Ok(Mark { time, arrival: arrival.unwrap_or(time), label: None, note })
    }

    fn flow(
        &mut self,
        flow: &Flow,
        message: &GetFlowsResponse,
        arrival: Option<Timestamp>,
    ) -> Result<L7Flow, Skip> {
        let time = flow.time.or(message.time).and_then(timestamp).ok_or(Skip::NoTime)?;
        self.last_time = Some(time);
        let five_tuple = five_tuple(flow)?;
        let verdict = verdict(flow.verdict);
        let event_type = flow.event_type.unwrap_or_default().r#type;
        if verdict == Some(Verdict::Dropped) && self.is_second_record(five_tuple, event_type, time) {
            return Err(Skip::SecondRecord);
        }
        let layer7 = flow.l7.clone().unwrap_or_default();
        let kind = match layer7.r#type {
            1 => L7Type::Request,
            2 => L7Type::Response,
            3 => L7Type::Sample,
            _ => L7Type::None,
        };
        let l7 = l7_message(&layer7, kind);
        // 0 is a pair that could not be matched.
        let told = i64::try_from(layer7.latency_ns).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        let paired = self.dns_latency(&l7, kind, five_tuple, time);
        let is_response = kind == L7Type::Response;
        let node = if flow.node_name.is_empty() { &message.node_name } else { &flow.node_name };
        Ok(L7Flow {
            time,
            arrival: arrival.unwrap_or(time),
            origin: L7Origin::Hubble,
            kind,
            five_tuple,
            source_translated: translated(flow, five_tuple),
            // Servers before 1.10 have a plain boolean, of which only `true` tells something.
            is_reply: flow.is_reply.map(|is_reply| is_reply.value).or(flow.reply.then_some(true)),
            verdict,
            drop_reason: drop_reason(flow, verdict),
            latency: told.or(paired).filter(|_| is_response),
            source: workload(flow.source.as_ref(), flow.source_service.as_ref()),
            destination: workload(flow.destination.as_ref(), flow.destination_service.as_ref()),
            node: node.clone(),
            uuid: flow.uuid.clone(),
            message: l7,
        })
    }

    /// A packet that policy dropped is told twice: as a policy verdict and as a drop.
    fn is_second_record(&mut self, five_tuple: FiveTuple, event_type: i32, time: Timestamp) -> bool {
        const DROP: i32 = 1;
        const POLICY_VERDICT: i32 = 5;
        /// Both records are of one moment; a client that tries again waits longer.
        const TOGETHER: Duration = Duration::from_millis(100);
        if ![DROP, POLICY_VERDICT].contains(&event_type) {
            return false;
        }
        let earlier = self.drops.remove(&five_tuple);
        let is_second = earlier.is_some_and(|(other, at)| other != event_type && time - at < TOGETHER);
        if !is_second {
            self.drops.insert(five_tuple, (event_type, time));
        }
        is_second
    }

    /// From the query to its answer: Hubble's own latency of DNS is always 0.
    fn dns_latency(
        &mut self,
        message: &L7Message,
        kind: L7Type,
        five_tuple: FiveTuple,
        time: Timestamp,
    ) -> Option<Duration> {
        let L7Message::Dns(dns) = message else { return None };
        let key = |client| (client, dns.query.to_ascii_lowercase(), dns.query_types.clone());
        match kind {
            L7Type::Request => {
                self.queries.insert(key(five_tuple), time);
                None
            }
            L7Type::Response => {
                let asked = self.queries.remove(&key(five_tuple.reversed()))?;
                // Receive times of one agent; a reporter's queue may turn a short pair round.
                Some(time - asked).filter(|latency| *latency >= Duration::ZERO)
            }
            _ => None,
        }
    }
}

fn timestamp(time: proto::Timestamp) -> Option<Timestamp> {
    let nanos = time.seconds.checked_mul(1_000_000_000)?.checked_add(time.nanos.into())?;
    Some(Timestamp::from_nanos(nanos))
}

fn five_tuple(flow: &Flow) -> Result<FiveTuple, Skip> {
    let ip = flow.ip.as_ref().ok_or(Skip::NoAddress)?;
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| Skip::NoAddress);
    let (source, destination) = (address(&ip.source)?, address(&ip.destination)?);
    let l4 = flow.l4.unwrap_or_default();
    let none = proto::Ports::default();
    let (protocol, ports) = [
        (Protocol::TCP, l4.tcp),
        (Protocol::UDP, l4.udp),
        (Protocol::SCTP, l4.sctp),
        (Protocol::ICMP, l4.icmp_v4.map(|_| none)),
        (Protocol::ICMPV6, l4.icmp_v6.map(|_| none)),
    ]
    .into_iter()
    .find_map(|(protocol, ports)| Some((protocol, ports?)))
    .ok_or(Skip::NoTransport)?;
    let port = |number: u32| u16::try_from(number).map_err(|_| Skip::NoTransport);
    let source = Endpoint::new(source, port(ports.source_port)?);
    let destination = Endpoint::new(destination, port(ports.destination_port)?);
    Ok(FiveTuple::new(source, destination, protocol))
}

fn translated(flow: &Flow, five_tuple: FiveTuple) -> Option<FiveTuple> {
    let address = flow.ip.as_ref()?.source_xlated.parse().ok()?;
    Some(FiveTuple { source: Endpoint { address, ..five_tuple.source }, ..five_tuple })
}

fn verdict(number: i32) -> Option<Verdict> {
    Some(match number {
        1 => Verdict::Forwarded,
        2 => Verdict::Dropped,
        3 => Verdict::Error,
        4 => Verdict::Audit,
        5 => Verdict::Redirected,
        6 => Verdict::Traced,
        7 => Verdict::Translated,
        _ => return None,
    })
}

const fn is_drop(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Dropped | Verdict::Error)
}

/// A denied HTTP request is dropped without a reason.
fn drop_reason(flow: &Flow, verdict: Option<Verdict>) -> Option<String> {
    let told = [flow.drop_reason_desc, flow.drop_reason.cast_signed()].into_iter().find(|number| *number > 0);
    let number = told.filter(|_| verdict.is_some_and(is_drop))?;
    Some(names::name_of(names::DROP_REASON, number).map_or_else(|| number.to_string(), str::to_owned))
}

/// The service is mostly absent where sockets are balanced: then the application's label or its workload.
fn workload(endpoint: Option<&proto::Endpoint>, service: Option<&proto::Service>) -> Workload {
    const LABELS: [&str; 3] = ["k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app="];
    let Some(endpoint) = endpoint else { return Workload::default() };
    let label = || {
        LABELS.iter().find_map(|prefix| endpoint.labels.iter().find_map(|label| label.strip_prefix(prefix)))
    };
    let candidates = [
        (service.map(|service| service.name.as_str()), NameOrigin::Hubble),
        (label(), NameOrigin::HubbleLabel),
        (endpoint.workloads.first().map(|workload| workload.name.as_str()), NameOrigin::HubbleWorkload),
    ];
    let named = candidates
        .into_iter()
        .find_map(|(name, origin)| Some((name.filter(|name| !name.is_empty())?, origin)));
    let is_named = !(endpoint.namespace.is_empty() && endpoint.pod_name.is_empty());
    Workload {
        namespace: endpoint.namespace.clone(),
        pod: endpoint.pod_name.clone(),
        service: named.map(|(name, _)| name.to_owned()).unwrap_or_default(),
        pod_origin: is_named.then_some(NameOrigin::Hubble),
        service_origin: named.map(|(_, origin)| origin),
    }
}

/// Presence comes from the kind, never from a zero.
fn l7_message(layer7: &proto::Layer7, kind: L7Type) -> L7Message {
    let is_response = kind == L7Type::Response;
    if let Some(dns) = &layer7.dns {
        return L7Message::Dns(dns_message(dns, is_response));
    }
    if let Some(http) = &layer7.http {
        return L7Message::Http(http_message(http, is_response));
    }
    if let Some(kafka) = &layer7.kafka {
        return L7Message::Kafka(kafka_message(kafka, is_response));
    }
    L7Message::None
}

fn dns_message(dns: &proto::Dns, is_response: bool) -> DnsMessage {
    let records = match (dns.ttl, dns.rrtypes.len()) {
        (proto::Dns::NO_ANSWER, _) => 0,
        (_, 0) => dns.ips.len() + dns.cnames.len(),
        (_, records) => records,
    };
    DnsMessage {
        query: dns.query.strip_suffix('.').unwrap_or(&dns.query).to_owned(),
        query_types: dns.qtypes.clone(),
        rcode: u16::try_from(dns.rcode).ok().filter(|_| is_response),
        answers: u16::try_from(records).ok().filter(|_| is_response),
    }
}

/// gRPC has no record of its own: HTTP/2 with its content type. Its status shows only in replies without a
/// body; a missing one is unknown.
fn http_message(http: &proto::Http, is_response: bool) -> HttpMessage {
    let header = |name: &str| {
        let mut headers = http.headers.iter();
        headers.find(|header| header.key.eq_ignore_ascii_case(name)).map(|header| header.value.as_str())
    };
    let is_grpc = http.protocol.starts_with("HTTP/2")
        && header("content-type").is_some_and(|kind| kind.starts_with("application/grpc"));
    HttpMessage {
        status: u16::try_from(http.code).ok().filter(|code| is_response && *code > 0),
        method: http.method.clone(),
        path: event::url_path(http.url.as_bytes()),
        protocol: http.protocol.clone(),
        is_grpc,
        grpc_status: header("grpc-status").filter(|_| is_grpc).and_then(|status| status.trim().parse().ok()),
    }
}

fn kafka_message(kafka: &proto::Kafka, is_response: bool) -> KafkaMessage {
    let named = names::number_of(names::KAFKA_API, &kafka.api_key.to_ascii_lowercase());
    let number = named.or_else(|| kafka.api_key.parse().ok());
    let narrow = |number: i32| i16::try_from(number).ok();
    KafkaMessage {
        // -1 is no key of Kafka's: the name was not known.
        api_key: number.and_then(narrow).unwrap_or(-1),
        api_version: narrow(kafka.api_version).unwrap_or_default(),
        correlation_id: kafka.correlation_id,
        error_code: narrow(kafka.error_code).filter(|_| is_response),
        topic: kafka.topic.clone(),
    }
}
