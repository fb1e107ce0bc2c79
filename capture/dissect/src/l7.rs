//! Application messages from payload: DNS, HTTP/1, HTTP/2 with gRPC, Kafka and TLS hellos.
//!
//! Only the first bytes of a message are put together, in bounded memory. Kept are method, path, status, names
//! and codes; header values, query strings and bodies are never stored.

mod connection;
mod connections;
mod dns;
mod http1;
mod http2;
mod kafka;
mod recent;
mod stream;
mod tls;

use std::fmt;

use event::{
    Duration, FiveTuple, Fragment, L7Flow, L7Message, L7Origin, L7Type, Packet, Protocol, Tcp, TcpFlags,
    Timestamp, Workload,
};

pub use connections::FlowNumber;
use connections::{Connections, Forgotten, Known};
use recent::Recent;

/// Connections remembered at once; the least recently active are forgotten and counted.
const MAX_CONNECTIONS: usize = 65_536;
/// Bytes kept for all connections together: incomplete messages and segments behind a hole.
const MAX_BUFFERED: usize = 64 * 1024 * 1024;

/// Which protocols to look for, and what to leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L7Options {
    pub dns: bool,
    pub http: bool,
    pub kafka: bool,
    pub tls: bool,
    /// Leaves names and paths out: query names, paths, topics, server names.
    pub redact: bool,
}

impl Default for L7Options {
    fn default() -> Self {
        Self { dns: true, http: true, kafka: true, tls: true, redact: false }
    }
}

/// What was found, and what could not be followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L7Counts {
    pub requests: u64,
    pub responses: u64,
    /// Responses whose request was not seen: without a latency.
    pub unpaired: u64,
    /// Messages whose head was not understood.
    pub malformed: u64,
    /// Times that a direction of a connection lost its place: a hole in the capture, a snap length that cut a
    /// head, or a head longer than is kept. It is found again where a segment starts with a message.
    pub places_lost: u64,
    /// Connections forgotten because more than 65,536 were open.
    pub connections_forgotten: u64,
    /// Requests forgotten while they waited for their response.
    pub requests_forgotten: u64,
}

impl fmt::Display for L7Counts {
    /// One line: what was found, then only what did occur.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests and {} responses read from payload", self.requests, self.responses)?;
        let imperfect = [
            (self.unpaired, "responses without their request"),
            (self.malformed, "malformed heads"),
            (self.places_lost, "places lost"),
            (self.connections_forgotten, "connections forgotten"),
            (self.requests_forgotten, "requests forgotten"),
        ];
        for (count, what) in imperfect.iter().filter(|(count, _)| *count > 0) {
            write!(f, "; {count} {what}")?;
        }
        Ok(())
    }
}

/// Reads application messages out of packets, in the order in which the packets come.
pub struct L7 {
    options: L7Options,
    connections: Connections,
    /// The numbers of flows, where the caller has none.
    numbers: Numbers,
    queries: dns::Queries,
    buffered: usize,
    counts: L7Counts,
}

impl Default for L7 {
    fn default() -> Self {
        Self::new(L7Options::default())
    }
}

impl L7 {
    pub fn new(options: L7Options) -> Self {
        Self {
            options,
            connections: Connections::new(MAX_CONNECTIONS),
            numbers: Numbers::default(),
            queries: dns::Queries::default(),
            buffered: 0,
            counts: L7Counts::default(),
        }
    }

    /// Takes one packet in and appends the messages that it completes. Their time is the packet's, so that
    /// events come out in the order of the packets.
    pub fn observe(&mut self, packet: &Packet, payload: &[u8], found: &mut Vec<L7Flow>) {
        if packet.five_tuple.protocol == Protocol::TCP {
            let key = packet.five_tuple.canonical();
            if may_begin(packet) || self.numbers.known.contains(&key) {
                let (flow, forgotten) = self.numbers.of(key);
                self.segment(flow, packet, payload, found);
                forgotten.into_iter().for_each(|flow| self.connections.forget(flow));
                self.let_go();
            }
        } else {
            self.observe_flow(FlowNumber::default(), packet, payload, found);
        }
    }

    /// The same for a caller that has a table of flows: `flow` is the packet's.
    #[inline]
    pub fn observe_flow(
        &mut self,
        flow: FlowNumber,
        packet: &Packet,
        payload: &[u8],
        found: &mut Vec<L7Flow>,
    ) {
        match packet.five_tuple.protocol {
            Protocol::TCP => self.segment(flow, packet, payload, found),
            // Later fragments hold no head; the first one does.
            Protocol::UDP if packet.fragment != Fragment::Later => self.datagram(packet, payload, found),
            _ => {}
        }
    }

    fn datagram(&mut self, packet: &Packet, payload: &[u8], found: &mut Vec<L7Flow>) {
        let tuple = packet.five_tuple;
        let is_dns = tuple.source.port == dns::PORT || tuple.destination.port == dns::PORT;
        if self.options.dns && is_dns && !payload.is_empty() {
            let mut out = Emitter { found, counts: &mut self.counts, redact: self.options.redact };
            self.queries.message(tuple, packet.time, payload, &mut out);
        }
    }

    #[inline]
    fn segment(&mut self, flow: FlowNumber, packet: &Packet, payload: &[u8], found: &mut Vec<L7Flow>) {
        let known = self.connections.known(flow);
        let Some(tcp) = packet.tcp else { return };
        let is_syn = tcp.flags.contains(TcpFlags::SYN);
        if tcp.flags.contains(TcpFlags::RST) || packet.fragment != Fragment::Whole {
            return;
        }
        let place = match known {
            Known::Ignored if !is_syn => return,
            Known::Nothing if !may_begin(packet) => return,
            Known::Nothing | Known::Ignored => self.connections.follow(flow, packet.five_tuple.canonical()),
            // It can say no more than that what is held may be given up; half of all segments are of this kind.
            Known::Followed(place)
                if packet.payload_length == 0 && !is_syn && !self.connections.holds(place) =>
            {
                return;
            }
            Known::Followed(place) => place,
        };
        self.follow(place, packet, &tcp, payload, found);
        self.let_go();
    }

    fn follow(&mut self, place: u32, packet: &Packet, tcp: &Tcp, payload: &[u8], found: &mut Vec<L7Flow>) {
        let Some((connection, key)) = self.connections.get(place) else { return };
        let before = connection.buffered();
        let mut context = connection::Context {
            key,
            options: self.options,
            queries: &mut self.queries,
            may_buffer: self.buffered < MAX_BUFFERED,
            out: Emitter { found, counts: &mut self.counts, redact: self.options.redact },
        };
        connection.segment(packet, tcp, payload, &mut context);
        let (after, holds) = (connection.buffered(), connection.holds());
        self.buffered = (self.buffered + after).saturating_sub(before);
        if connection.is_ignored() {
            self.buffered = self.buffered.saturating_sub(after);
            self.connections.ignore(place);
        } else {
            self.connections.set_holds(place, holds);
        }
    }

    /// Counts connections that had to be forgotten.
    fn let_go(&mut self) {
        let Forgotten { connections, bytes } = self.connections.take_forgotten();
        self.counts.connections_forgotten += connections;
        self.buffered = self.buffered.saturating_sub(bytes);
    }

    /// At the end of the packets: messages that stand behind holes, and calls that never ended.
    pub fn finish(&mut self, found: &mut Vec<L7Flow>) {
        for (key, mut connection) in self.connections.drain() {
            let mut context = connection::Context {
                key,
                options: self.options,
                queries: &mut self.queries,
                may_buffer: true,
                out: Emitter { found, counts: &mut self.counts, redact: self.options.redact },
            };
            connection.finish(&mut context);
        }
        self.buffered = 0;
    }

    pub fn counts(&self) -> L7Counts {
        L7Counts {
            requests_forgotten: self.counts.requests_forgotten + self.queries.forgotten(),
            ..self.counts
        }
    }
}

/// Whether a connection of which nothing is known is followed from this packet on.
fn may_begin(packet: &Packet) -> bool {
    packet.payload_length > 0 || packet.tcp.is_some_and(|tcp| tcp.flags.contains(TcpFlags::SYN))
}

/// Numbers for the flows of a caller that has none.
struct Numbers {
    known: Recent<FiveTuple, FlowNumber>,
    next: u32,
    births: u32,
    free: Vec<u32>,
}

impl Default for Numbers {
    fn default() -> Self {
        // Of the ones that are forgotten here the connections are, too.
        Self { known: Recent::new(2 * MAX_CONNECTIONS), next: 0, births: 0, free: Vec::new() }
    }
}

impl Numbers {
    /// The flow of a five-tuple, and the flows that were forgotten for it.
    fn of(&mut self, key: FiveTuple) -> (FlowNumber, Vec<FlowNumber>) {
        let (next, births, free) = (&mut self.next, &mut self.births, &mut self.free);
        let flow = *self.known.get_or_insert_with(key, || {
            *births = births.wrapping_add(1);
            let place = free.pop().unwrap_or_else(|| {
                *next += 1;
                *next - 1
            });
            FlowNumber { place, birth: *births }
        });
        let forgotten = self.known.take_forgotten();
        self.free.extend(forgotten.iter().map(|flow| flow.place));
        (flow, forgotten)
    }
}

/// Where found messages go.
struct Emitter<'a> {
    found: &'a mut Vec<L7Flow>,
    counts: &'a mut L7Counts,
    redact: bool,
}

impl Emitter<'_> {
    fn request(&mut self, from: FiveTuple, time: Timestamp, message: L7Message) {
        self.counts.requests += 1;
        self.push(from, time, L7Type::Request, None, message);
    }

    /// `asked` is when the request was seen.
    fn response(&mut self, from: FiveTuple, time: Timestamp, asked: Option<Timestamp>, message: L7Message) {
        self.counts.responses += 1;
        self.counts.unpaired += u64::from(asked.is_none());
        self.push(from, time, L7Type::Response, asked.map(|asked| time - asked), message);
    }

    fn push(
        &mut self,
        five_tuple: FiveTuple,
        time: Timestamp,
        kind: L7Type,
        latency: Option<Duration>,
        mut message: L7Message,
    ) {
        if self.redact {
            message.redact();
        }
        self.found.push(L7Flow {
            time,
            arrival: time,
            origin: L7Origin::Wire,
            kind,
            five_tuple,
            source_translated: None,
            is_reply: Some(kind == L7Type::Response),
            verdict: None,
            drop_reason: None,
            latency,
            source: Workload::default(),
            destination: Workload::default(),
            node: String::new(),
            uuid: String::new(),
            message,
        });
    }
}
