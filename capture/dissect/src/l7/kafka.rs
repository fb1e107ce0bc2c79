//! Kafka: request and response headers, the topic and the error code where they stand near the front.

use std::collections::VecDeque;

use event::{FiveTuple, KafkaMessage, L7Message, Timestamp};

use super::connection::{Context, Side, Step};

/// The broker's usual port: there a request's fixed fields are enough to tell.
const PORT: u16 = 9092;
/// Bytes of a message that are looked at: headers, client id and the first topic.
const LOOKED_AT: usize = 1024;
/// Requests of a connection that wait for their responses.
const MAX_WAITING: usize = 1024;
/// What brokers accept at most by default (socket.request.max.bytes).
const MAX_LENGTH: i32 = 100 * 1024 * 1024;

mod api {
    pub const PRODUCE: i16 = 0;
    pub const FETCH: i16 = 1;
    pub const METADATA: i16 = 3;
    pub const SASL_HANDSHAKE: i16 = 17;
    pub const API_VERSIONS: i16 = 18;
    /// Keys in use end at about 90; versions of one key below 20.
    pub const LAST: i16 = 100;
    pub const LAST_VERSION: i16 = 25;
}

struct Waiting {
    api_key: i16,
    api_version: i16,
    correlation_id: i32,
    topic: String,
    time: Timestamp,
}

/// Both directions of a connection.
pub(super) struct Session {
    client: Side,
    waiting: VecDeque<Waiting>,
}

/// Reads fields one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*value)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    /// A length of -1 is no string.
    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.i16()?;
        self.bytes(usize::try_from(length).unwrap_or_default())
    }

    /// Unsigned, seven bits a byte, lowest first.
    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// One more than the length; 0 is no string.
    fn compact_string(&mut self) -> Option<&'a [u8]> {
        let length = self.varint()?;
        self.bytes(length.saturating_sub(1))
    }

    fn array(&mut self, is_flexible: bool) -> Option<usize> {
        if is_flexible { self.varint() } else { usize::try_from(self.i32()?).ok() }
    }

    fn text(&mut self, is_flexible: bool) -> Option<&'a [u8]> {
        if is_flexible { self.compact_string() } else { self.string() }
    }
}

struct Request<'a> {
    api_key: i16,
    api_version: i16,
    correlation_id: i32,
    client: &'a [u8],
    body: Fields<'a>,
}

/// The fixed fields; nothing where they cannot be a request's.
fn request(bytes: &[u8]) -> Option<Request<'_>> {
    let mut fields = Fields(bytes);
    let length = fields.i32()?;
    let (api_key, api_version) = (fields.i16()?, fields.i16()?);
    let correlation_id = fields.i32()?;
    let client = fields.i16()?;
    let is_plausible = (8..=MAX_LENGTH).contains(&length)
        && (0..=api::LAST).contains(&api_key)
        && (0..=api::LAST_VERSION).contains(&api_version)
        && (-1..=255).contains(&client);
    if !is_plausible {
        return None;
    }
    let client = fields.bytes(usize::try_from(client).unwrap_or_default())?;
    Some(Request { api_key, api_version, correlation_id, client, body: fields })
}

/// The length and the correlation id of a response; nothing else in it can be told without its request.
fn response(bytes: &[u8]) -> Option<i32> {
    let mut fields = Fields(bytes);
    fields.i32().filter(|length| (4..=MAX_LENGTH).contains(length))?;
    fields.i32().filter(|correlation_id| *correlation_id >= 0)
}

/// At the broker's port the fixed fields must be possible; elsewhere the client must also give a readable name.
pub(super) fn may_start(bytes: &[u8], from: FiveTuple) -> bool {
    if from.source.port == PORT {
        return response(bytes).is_some();
    }
    let Some(request) = request(bytes) else { return false };
    let is_named = !request.client.is_empty() && request.client.iter().all(u8::is_ascii_graphic);
    from.destination.port == PORT || is_named
}

impl Session {
    /// `from` sends the first message: a request, unless it is the broker's port that speaks.
    pub fn new(side: Side, from: FiveTuple) -> Self {
        let client = if from.source.port == PORT { side.other() } else { side };
        Self { client, waiting: VecDeque::new() }
    }

    pub fn may_start(&self, side: Side, bytes: &[u8]) -> bool {
        if side == self.client {
            return request(bytes).is_some();
        }
        let Some(id) = response(bytes) else { return false };
        self.waiting.is_empty() || self.waiting.iter().any(|waiting| waiting.correlation_id == id)
    }

    pub fn step(&mut self, side: Side, bytes: &[u8], time: Timestamp, context: &mut Context<'_>) -> Step {
        let Some(length) = Fields(bytes).i32() else { return Step::More };
        if !(4..=MAX_LENGTH).contains(&length) {
            context.out.counts.malformed += 1;
            return Step::Lost;
        }
        let size = 4 + usize::try_from(length).unwrap_or_default();
        if bytes.len() < size.min(LOOKED_AT) {
            return Step::More;
        }
        let shown = &bytes[..bytes.len().min(size)];
        let read = if self.client == side {
            self.request(side, shown, time, context)
        } else {
            self.response(side, shown, time, context)
        };
        if read.is_none() {
            context.out.counts.malformed += 1;
            return Step::Lost;
        }
        Step::Pass(size as u64)
    }

    fn request(
        &mut self,
        side: Side,
        bytes: &[u8],
        time: Timestamp,
        context: &mut Context<'_>,
    ) -> Option<()> {
        let Request { api_key, api_version, correlation_id, body, .. } = request(bytes)?;
        let topic = topic(api_key, api_version, body).map(event::bounded_text).unwrap_or_default();
        let waiting = Waiting { api_key, api_version, correlation_id, topic, time };
        context.out.request(context.from(side), time, waiting.message(None));
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
            context.out.counts.requests_forgotten += 1;
        }
        self.waiting.push_back(waiting);
        Some(())
    }

    /// Says nothing of the request but its number: without it the response cannot be read.
    fn response(
        &mut self,
        side: Side,
        bytes: &[u8],
        time: Timestamp,
        context: &mut Context<'_>,
    ) -> Option<()> {
        let correlation_id = response(bytes)?;
        let fields = Fields(bytes.get(8..)?);
        let Some(at) = self.waiting.iter().position(|waiting| waiting.correlation_id == correlation_id)
        else {
            context.out.counts.unpaired += 1;
            return Some(());
        };
        let waiting = self.waiting.remove(at)?;
        let error = error_code(waiting.api_key, waiting.api_version, fields);
        context.out.response(context.from(side), time, Some(waiting.time), waiting.message(error));
        Some(())
    }
}

impl Waiting {
    fn message(&self, error_code: Option<i16>) -> L7Message {
        L7Message::Kafka(KafkaMessage {
            api_key: self.api_key,
            api_version: self.api_version,
            correlation_id: self.correlation_id,
            error_code,
            topic: self.topic.clone(),
        })
    }
}

/// Versions from which on strings and arrays have variable-length sizes and tagged fields follow.
fn is_flexible(api_key: i16, version: i16) -> bool {
    let since = match api_key {
        api::PRODUCE | api::METADATA => 9,
        api::FETCH => 12,
        _ => i16::MAX,
    };
    version >= since
}

/// The first topic of a request that names topics.
fn topic(api_key: i16, version: i16, mut body: Fields<'_>) -> Option<&[u8]> {
    let is_flexible = is_flexible(api_key, version);
    if is_flexible {
        // The header's tagged fields; none are defined.
        body.varint().filter(|count| *count == 0)?;
    }
    match api_key {
        api::PRODUCE => {
            if version >= 3 {
                body.text(is_flexible)?;
            }
            // acks, timeout
            body.bytes(6)?;
        }
        api::FETCH => {
            // From 13 on topics are numbers.
            (version <= 12).then_some(())?;
            // replica, max_wait, min_bytes, then with later versions max_bytes, isolation, session
            let later = [(3, 4), (4, 1), (7, 8)].iter().filter(|(since, _)| version >= *since);
            body.bytes(12 + later.map(|(_, size)| size).sum::<usize>())?;
        }
        api::METADATA => {}
        _ => return None,
    }
    body.array(is_flexible).filter(|count| *count > 0)?;
    let topic = if api_key == api::METADATA && version >= 10 {
        body.bytes(16)?;
        body.text(is_flexible)?
    } else {
        body.text(is_flexible)?
    };
    (!topic.is_empty()).then_some(topic)
}

/// The error code of a whole response, where its place is known: first, or behind the throttle time.
fn error_code(api_key: i16, version: i16, mut body: Fields<'_>) -> Option<i16> {
    /// FindCoordinator, JoinGroup, Heartbeat, LeaveGroup, SyncGroup: the version that put the throttle time in
    /// front, and the one that put tagged fields before that.
    const GROUP: [(i16, i16, i16); 5] = [(10, 1, 3), (11, 2, 6), (12, 1, 4), (13, 1, 4), (14, 1, 4)];
    match api_key {
        api::SASL_HANDSHAKE | api::API_VERSIONS => body.i16(),
        api::PRODUCE => produce_error(version, body),
        api::FETCH if version >= 7 => {
            if version >= 12 {
                body.varint()?;
            }
            body.i32()?;
            body.i16()
        }
        _ => {
            let (_, throttle, tagged) = *GROUP.iter().find(|(key, ..)| *key == api_key)?;
            if version >= tagged {
                body.varint()?;
            }
            if version >= throttle {
                body.i32()?;
            }
            body.i16()
        }
    }
}

/// Of the first partition of the first topic.
fn produce_error(version: i16, mut body: Fields<'_>) -> Option<i16> {
    let is_flexible = is_flexible(api::PRODUCE, version);
    if is_flexible {
        body.varint()?;
    }
    body.array(is_flexible)?;
    body.text(is_flexible)?;
    body.array(is_flexible)?;
    let _partition = body.i32()?;
    body.i16()
}
