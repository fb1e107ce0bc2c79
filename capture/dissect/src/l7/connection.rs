//! One TCP connection: both directions in order, and the protocol spoken on it.

use event::{FiveTuple, Packet, Tcp, TcpFlags, Timestamp};

use super::stream::{Place, Stream};
use super::{Emitter, L7Options, dns, http1, http2, kafka, tls};

/// Bytes of an incomplete head that are kept: what servers accept as HTTP headers or a TLS hello, doubled.
const MAX_HEAD: usize = 32 * 1024;
/// Segments of a connection whose beginning was not captured that are tried for the start of a message.
const MAX_TRIES: u8 = 16;

/// What a step needs besides the connection.
pub(super) struct Context<'a> {
    pub key: FiveTuple,
    pub options: L7Options,
    pub queries: &'a mut dns::Queries,
    /// Whether there is room to keep incomplete heads.
    pub may_buffer: bool,
    pub out: Emitter<'a>,
}

impl Context<'_> {
    /// The five-tuple of what this side sends.
    pub fn from(&self, side: Side) -> FiveTuple {
        if side == Side::Lower { self.key } else { self.key.reversed() }
    }
}

/// A direction, by its sender: the lower or the upper endpoint of the canonical five-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Lower = 0,
    Upper = 1,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Lower, Self::Upper];

    pub fn other(self) -> Self {
        if self == Self::Lower { Self::Upper } else { Self::Lower }
    }
}

/// What a protocol makes of the bytes at hand.
pub(super) enum Step {
    /// Not enough to tell.
    More,
    /// These bytes are done with; may be more than are at hand, as a body is.
    Pass(u64),
    /// Not understood: the place is lost.
    Lost,
    /// Behind so many bytes, all of them at hand, another protocol is spoken.
    Switch(Talk, usize),
}

/// The protocol of a connection.
#[derive(Default)]
pub(super) enum Talk {
    #[default]
    Unknown,
    /// None that is read here.
    Ignored,
    Dns,
    Http1(Box<http1::Exchange>),
    Http2(Box<http2::Session>),
    Kafka(Box<kafka::Session>),
    Tls(Box<tls::Handshake>),
}

#[derive(Default)]
struct Direction {
    stream: Stream,
    /// The head of a message that is not complete.
    head: Vec<u8>,
    /// Bytes that belong to a body.
    pass: u64,
    /// The next byte does not start a message: look for one that does at the start of a segment.
    is_lost: bool,
}

#[derive(Default)]
pub(super) struct Connection {
    talk: Talk,
    directions: [Direction; 2],
    /// Segments tried in vain.
    tries: u8,
    /// Whether a side's first bytes were tried in vain.
    unknown: [bool; 2],
}

impl Connection {
    pub fn is_ignored(&self) -> bool {
        matches!(self.talk, Talk::Ignored)
    }

    /// Whether segments wait for the ones before them.
    pub fn holds(&self) -> bool {
        self.directions.iter().any(|direction| !direction.stream.is_drained())
    }

    /// Bytes kept.
    pub fn buffered(&self) -> usize {
        self.directions.iter().map(|direction| direction.head.len() + direction.stream.held_bytes()).sum()
    }

    pub fn segment(&mut self, packet: &Packet, tcp: &Tcp, payload: &[u8], context: &mut Context<'_>) {
        let side = if packet.five_tuple == context.key { Side::Lower } else { Side::Upper };
        let mut sequence = tcp.sequence;
        if tcp.flags.contains(TcpFlags::SYN) {
            self.begin(side, sequence, !tcp.flags.contains(TcpFlags::ACK));
            sequence = sequence.wrapping_add(1);
        } else if packet.payload_length > 0 && !self.directions[side as usize].stream.has_begun() {
            self.directions[side as usize].is_lost = true;
        }
        if packet.payload_length > 0 {
            self.sort_in(side, sequence, packet, payload, context);
        }
        if tcp.flags.contains(TcpFlags::ACK) {
            let other = side.other();
            if self.directions[other as usize].stream.is_hopeless(tcp.acknowledgement, packet.time) {
                self.release(other, packet.time, true, context);
            }
        }
    }

    /// A SYN opens a new connection, a SYN-ACK belongs to the one that is opening. One that is sent again
    /// changes nothing.
    fn begin(&mut self, side: Side, sequence: u32, is_new: bool) {
        if self.directions[side as usize].stream.is_at_start(sequence) {
            return;
        }
        if is_new {
            *self = Self::default();
        }
        self.directions[side as usize].stream.begin(sequence);
    }

    fn sort_in(
        &mut self,
        side: Side,
        sequence: u32,
        packet: &Packet,
        payload: &[u8],
        context: &mut Context<'_>,
    ) {
        let direction = &mut self.directions[side as usize];
        let length = packet.payload_length;
        match direction.stream.place(sequence, length) {
            Place::Old => return,
            Place::Next(offset) => {
                let fresh = payload.get(offset..).unwrap_or_default();
                let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                let cut = (length - offset).saturating_sub(u32::try_from(fresh.len()).unwrap_or(u32::MAX));
                direction.stream.advance(length - offset);
                self.bytes(side, fresh, packet.time, context);
                self.hole(side, cut.into(), packet.time, context);
            }
            Place::Ahead if context.may_buffer => {
                direction.stream.hold(sequence, payload, length, packet.time);
            }
            Place::Ahead => {
                self.release(side, packet.time, true, context);
                return;
            }
        }
        let is_full = self.directions[side as usize].stream.is_full();
        self.release(side, packet.time, is_full, context);
    }

    /// What is held and follows now; across the next hole too, where that one is given up.
    fn release(&mut self, side: Side, now: Timestamp, mut give_up: bool, context: &mut Context<'_>) {
        while let Some(piece) = self.directions[side as usize].stream.release(now, give_up) {
            give_up = false;
            self.hole(side, piece.hole.into(), piece.time, context);
            self.bytes(side, &piece.bytes, piece.time, context);
            self.hole(side, piece.cut.into(), piece.time, context);
        }
    }

    fn bytes(&mut self, side: Side, bytes: &[u8], time: Timestamp, context: &mut Context<'_>) {
        let direction = &mut self.directions[side as usize];
        let passed = usize::try_from(direction.pass).unwrap_or(usize::MAX).min(bytes.len());
        direction.pass -= passed as u64;
        let bytes = &bytes[passed..];
        let is_lost = direction.is_lost;
        if bytes.is_empty() || self.is_ignored() {
            return;
        }
        if is_lost && !self.talk.may_start(side, bytes) {
            self.count_try(side);
            return;
        }
        let direction = &mut self.directions[side as usize];
        direction.is_lost = false;
        if direction.head.is_empty() {
            let rest = self.follow(side, bytes, time, context);
            self.keep(side, &bytes[bytes.len() - rest..], context);
        } else {
            let mut head = std::mem::take(&mut direction.head);
            head.extend_from_slice(bytes);
            let rest = self.follow(side, &head, time, context);
            head.drain(..head.len() - rest);
            self.keep(side, &head, context);
        }
    }

    /// Steps through the messages in `bytes`; what it returns is left, the start of an incomplete one.
    fn follow(&mut self, side: Side, mut bytes: &[u8], time: Timestamp, context: &mut Context<'_>) -> usize {
        while !bytes.is_empty() {
            match self.talk.step(side, bytes, time, context) {
                Step::More => return bytes.len(),
                Step::Pass(length) => {
                    let here = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
                    self.directions[side as usize].pass = length - here as u64;
                    bytes = &bytes[here..];
                }
                Step::Lost => {
                    self.lose(side, context);
                    return 0;
                }
                Step::Switch(talk, passed) => {
                    self.talk = talk;
                    bytes = &bytes[passed..];
                    if self.is_ignored() {
                        self.directions.iter_mut().for_each(Direction::forget);
                        return 0;
                    }
                }
            }
        }
        0
    }

    fn keep(&mut self, side: Side, rest: &[u8], context: &mut Context<'_>) {
        if rest.is_empty() {
            self.directions[side as usize].head = Vec::new();
        } else if rest.len() > MAX_HEAD || !context.may_buffer {
            self.lose(side, context);
        } else {
            self.directions[side as usize].head = rest.to_vec();
        }
    }

    fn lose(&mut self, side: Side, context: &mut Context<'_>) {
        self.count_try(side);
        if !matches!(self.talk, Talk::Unknown | Talk::Ignored) && !self.directions[side as usize].is_lost {
            context.out.counts.places_lost += 1;
        }
        let direction = &mut self.directions[side as usize];
        direction.head = Vec::new();
        direction.is_lost = true;
    }

    /// Nothing that is known starts here. A connection that was seen from its beginning is given up when that
    /// holds for both sides: a server may answer in HTTP what its client did not say in it.
    fn count_try(&mut self, side: Side) {
        if !matches!(self.talk, Talk::Unknown) {
            return;
        }
        self.tries += 1;
        self.unknown[side as usize] = self.directions[side as usize].stream.has_begun_with_syn();
        if self.unknown == [true; 2] || self.tries >= MAX_TRIES {
            self.talk = Talk::Ignored;
            self.directions.iter_mut().for_each(Direction::forget);
        }
    }

    /// Bytes that the capture does not have. Inside a body they do no harm.
    fn hole(&mut self, side: Side, length: u64, time: Timestamp, context: &mut Context<'_>) {
        if length == 0 || self.is_ignored() {
            return;
        }
        let direction = &mut self.directions[side as usize];
        let passed = direction.pass.min(length);
        direction.pass -= passed;
        if passed == length {
            return;
        }
        let head = std::mem::take(&mut direction.head);
        if !direction.is_lost && !head.is_empty() {
            self.talk.cut(side, &head, time, context);
        }
        self.lose(side, context);
    }

    pub fn finish(&mut self, context: &mut Context<'_>) {
        for side in Side::BOTH {
            while !self.directions[side as usize].stream.is_drained() {
                self.release(side, Timestamp::MIN, true, context);
            }
        }
        if let Talk::Http2(session) = &mut self.talk {
            session.finish(context);
        }
    }
}

impl Direction {
    fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Talk {
    /// Whether a message may start with these bytes, at the start of a segment after the place was lost.
    fn may_start(&self, side: Side, bytes: &[u8]) -> bool {
        match self {
            Self::Unknown => true,
            Self::Http1(_) => http1::may_start(bytes),
            Self::Kafka(session) => session.may_start(side, bytes),
            Self::Http2(session) => session.may_start(side, bytes),
            // Hellos come once, and the length in front of a DNS message tells nothing.
            Self::Ignored | Self::Dns => false,
            Self::Tls(_) => tls::may_start(bytes),
        }
    }

    fn step(&mut self, side: Side, bytes: &[u8], time: Timestamp, context: &mut Context<'_>) -> Step {
        match self {
            Self::Unknown => detect(side, bytes, context),
            Self::Ignored => Step::Pass(u64::MAX),
            Self::Dns => dns::over_tcp(side, bytes, time, context),
            Self::Http1(exchange) => exchange.step(side, bytes, time, context),
            Self::Http2(session) => session.step(side, bytes, time, context),
            Self::Kafka(session) => session.step(side, bytes, time, context),
            Self::Tls(handshake) => handshake.step(side, bytes, time, context),
        }
    }

    /// A head of which the rest will never come.
    fn cut(&mut self, side: Side, head: &[u8], time: Timestamp, context: &mut Context<'_>) {
        if matches!(self, Self::Unknown)
            && let Step::Switch(talk, _) = detect(side, head, context)
        {
            *self = talk;
        }
        match self {
            Self::Http1(exchange) => exchange.cut(side, head, time, context),
            Self::Tls(handshake) => handshake.cut(side, head, time, context),
            _ => {}
        }
    }
}

/// Which protocol starts with these bytes. The ports decide for DNS alone; everything else shows itself.
fn detect(side: Side, bytes: &[u8], context: &Context<'_>) -> Step {
    let from = context.from(side);
    let options = context.options;
    if options.dns && [from.source.port, from.destination.port].contains(&dns::PORT) {
        return Step::Switch(Talk::Dns, 0);
    }
    if options.http && http2::may_start(bytes) {
        let is_whole = bytes.len() >= http2::PREFACE.len();
        return if is_whole { Step::Switch(Talk::Http2(Box::default()), 0) } else { Step::More };
    }
    if options.http && http1::may_start(bytes) {
        return Step::Switch(Talk::Http1(Box::default()), 0);
    }
    if options.tls && tls::may_start(bytes) {
        return Step::Switch(Talk::Tls(Box::default()), 0);
    }
    if options.kafka && kafka::may_start(bytes, from) {
        return Step::Switch(Talk::Kafka(Box::new(kafka::Session::new(side, from))), 0);
    }
    // The shortest start that tells is four bytes.
    if bytes.len() < 4 { Step::More } else { Step::Lost }
}
