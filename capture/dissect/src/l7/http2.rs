//! HTTP/2 and gRPC: request method and path, status and gRPC status, from HPACK header blocks.

use std::collections::BTreeMap;

use event::{HttpMessage, L7Message, Timestamp};
use loona_hpack::Decoder;

use super::connection::{Context, Side, Step};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Open streams of a connection; servers allow 100 to 250 at a time.
const MAX_STREAMS: usize = 1024;
/// A header block over several frames; servers accept 8 to 64 KiB.
const MAX_BLOCK: usize = 64 * 1024;
/// The largest dynamic table that a side may ask for; 4096 is the default, and few ask for more.
const MAX_TABLE: usize = 64 * 1024;
/// The largest frame that the format can say is 16 MiB; header frames are at most what is kept of a head.
const FRAME_HEADER: usize = 9;

mod frame_type {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RESET: u8 = 3;
    pub const PUSH_PROMISE: u8 = 5;
    pub const CONTINUATION: u8 = 9;
    /// Types above ORIGIN (12) and PRIORITY_UPDATE (16) are unknown: more likely no frame at all.
    pub const LAST: u8 = 16;
}

mod flag {
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

pub(super) fn may_start(bytes: &[u8]) -> bool {
    let shown = bytes.len().min(PREFACE.len());
    shown >= 4 && bytes[..shown] == PREFACE[..shown]
}

/// One call: what its headers said so far.
#[derive(Default)]
struct Call {
    method: String,
    path: String,
    is_grpc: bool,
    asked: Option<Timestamp>,
    status: Option<u16>,
    grpc_status: Option<u16>,
    /// When the response's headers came, and from which side.
    answered: Option<(Timestamp, Side)>,
}

/// A header block in the making.
struct Block {
    stream: u32,
    ends_stream: bool,
    /// A pushed request's headers change the table and are otherwise not used.
    is_promise: bool,
    bytes: Vec<u8>,
}

struct Direction {
    decoder: Decoder<'static>,
    block: Option<Block>,
    has_begun: bool,
}

impl Default for Direction {
    fn default() -> Self {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(MAX_TABLE);
        Self { decoder, block: None, has_begun: false }
    }
}

/// Both directions of a connection.
#[derive(Default)]
pub(super) struct Session {
    directions: [Direction; 2],
    /// By stream number, so that the oldest is first.
    calls: BTreeMap<u32, Call>,
}

/// What is kept of a header block.
#[derive(Default)]
struct Fields {
    method: Option<String>,
    path: Option<String>,
    status: Option<u16>,
    is_grpc: bool,
    grpc_status: Option<u16>,
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl Session {
    /// After an upgrade from HTTP/1: its request is stream 1.
    pub fn upgraded(method: String, path: String, time: Timestamp) -> Self {
        let call = Call { method, path, asked: Some(time), ..Call::default() };
        Self { calls: [(1, call)].into(), ..Self::default() }
    }

    /// Headers are compressed by what came before, so that only a side's very first bytes will do: the preface,
    /// or the settings that every side begins with.
    pub fn may_start(&self, side: Side, bytes: &[u8]) -> bool {
        const SETTINGS: u8 = 4;
        let is_settings =
            matches!(bytes, [_, _, length, SETTINGS, _, 0, 0, 0, 0, ..] if length.is_multiple_of(6));
        !self.directions[side as usize].has_begun && (may_start(bytes) || is_settings)
    }

    pub fn step(&mut self, side: Side, bytes: &[u8], time: Timestamp, context: &mut Context<'_>) -> Step {
        self.directions[side as usize].has_begun = true;
        if may_start(bytes) {
            return if bytes.len() < PREFACE.len() { Step::More } else { Step::Pass(PREFACE.len() as u64) };
        }
        let Some(header) = bytes.first_chunk::<FRAME_HEADER>() else { return Step::More };
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
        let (kind, flags) = (header[3], header[4]);
        if kind > frame_type::LAST {
            context.out.counts.malformed += 1;
            return Step::Lost;
        }
        let whole = Step::Pass((FRAME_HEADER + length) as u64);
        let is_kept =
            [frame_type::HEADERS, frame_type::CONTINUATION, frame_type::PUSH_PROMISE].contains(&kind);
        if !is_kept {
            if kind == frame_type::RESET || (kind == frame_type::DATA && flags & flag::END_STREAM != 0) {
                self.end(stream, side, kind == frame_type::RESET, time, context);
            }
            return whole;
        }
        let Some(payload) = bytes.get(FRAME_HEADER..FRAME_HEADER + length) else { return Step::More };
        match self.headers(side, &Frame { kind, flags, stream, payload }, time, context) {
            Some(()) => whole,
            None => {
                context.out.counts.malformed += 1;
                Step::Lost
            }
        }
    }

    /// A frame of a header block; nothing where it is malformed.
    fn headers(
        &mut self,
        side: Side,
        frame: &Frame<'_>,
        time: Timestamp,
        context: &mut Context<'_>,
    ) -> Option<()> {
        let direction = &mut self.directions[side as usize];
        if frame.kind == frame_type::CONTINUATION {
            let block = direction.block.as_mut()?;
            if block.bytes.len() + frame.payload.len() > MAX_BLOCK {
                return None;
            }
            block.bytes.extend_from_slice(frame.payload);
        } else {
            direction.block = Some(Block {
                stream: frame.stream,
                ends_stream: frame.flags & flag::END_STREAM != 0,
                is_promise: frame.kind == frame_type::PUSH_PROMISE,
                bytes: fragment(frame)?.to_vec(),
            });
        }
        if frame.flags & flag::END_HEADERS == 0 {
            return Some(());
        }
        let block = direction.block.take()?;
        let fields = decode(&mut direction.decoder, &block.bytes)?;
        if !block.is_promise {
            self.block(side, &block, fields, time, context);
        }
        Some(())
    }

    /// A request's, a response's or a trailer's headers.
    fn block(
        &mut self,
        side: Side,
        block: &Block,
        fields: Fields,
        time: Timestamp,
        context: &mut Context<'_>,
    ) {
        if let Some(method) = fields.method {
            let path = fields.path.unwrap_or_default();
            let call = Call { method, path, is_grpc: fields.is_grpc, asked: Some(time), ..Call::default() };
            context.out.request(context.from(side), time, call.message(None));
            self.open(block.stream, call, context);
            return;
        }
        if fields.status.is_some_and(|status| (100..200).contains(&status)) {
            return;
        }
        let is_new = !self.calls.contains_key(&block.stream);
        if is_new && fields.status.is_some() {
            self.open(block.stream, Call::default(), context);
        }
        let Some(call) = self.calls.get_mut(&block.stream) else { return };
        call.grpc_status = fields.grpc_status.or(call.grpc_status);
        call.is_grpc |= fields.is_grpc;
        if fields.status.is_some() {
            call.status = fields.status;
            call.answered = Some((time, side));
        }
        if call.status.is_some() && (block.ends_stream || !call.is_grpc) {
            // A call of gRPC is told when its status is known, others as soon as they are answered.
            self.answer(block.stream, time, context);
        }
    }

    fn open(&mut self, stream: u32, call: Call, context: &mut Context<'_>) {
        if self.calls.len() == MAX_STREAMS {
            self.calls.pop_first();
            context.out.counts.requests_forgotten += 1;
        }
        self.calls.insert(stream, call);
    }

    /// A stream that ended without trailers, or was reset.
    fn end(&mut self, stream: u32, side: Side, is_reset: bool, time: Timestamp, context: &mut Context<'_>) {
        let Some(call) = self.calls.get(&stream) else { return };
        match call.answered {
            Some((_, server)) if is_reset || server == side => self.answer(stream, time, context),
            None if is_reset => drop(self.calls.remove(&stream)),
            _ => {}
        }
    }

    fn answer(&mut self, stream: u32, time: Timestamp, context: &mut Context<'_>) {
        let Some(call) = self.calls.remove(&stream) else { return };
        let Some((answered, side)) = call.answered else { return };
        // The response time ends with the response's headers; a stream's end may be hours later.
        let asked = call.asked.map(|asked| time - (answered - asked));
        context.out.response(context.from(side), time, asked, call.message(call.status));
    }

    /// Calls that were answered and never ended.
    pub fn finish(&mut self, context: &mut Context<'_>) {
        while let Some((stream, call)) = self.calls.first_key_value().map(|(stream, call)| (*stream, call)) {
            match call.answered {
                Some((time, _)) => self.answer(stream, time, context),
                None => drop(self.calls.remove(&stream)),
            }
        }
    }
}

impl Call {
    fn message(&self, status: Option<u16>) -> L7Message {
        L7Message::Http(HttpMessage {
            status,
            method: self.method.clone(),
            path: self.path.clone(),
            protocol: "HTTP/2".to_owned(),
            is_grpc: self.is_grpc,
            grpc_status: self.grpc_status,
        })
    }
}

/// The header block in a frame: without padding, priority and the promised stream's number.
fn fragment<'a>(frame: &Frame<'a>) -> Option<&'a [u8]> {
    let mut block = frame.payload;
    if frame.flags & flag::PADDED != 0 {
        let (padding, rest) = block.split_first()?;
        block = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    }
    let skipped = match frame.kind {
        frame_type::PUSH_PROMISE => 4,
        _ if frame.flags & flag::PRIORITY != 0 => 5,
        _ => 0,
    };
    block.get(skipped..)
}

fn decode(decoder: &mut Decoder<'static>, block: &[u8]) -> Option<Fields> {
    let mut fields = Fields::default();
    let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
    let decoded = decoder.decode_with_cb(block, |name, value| match &*name {
        b":method" => fields.method = Some(event::bounded_text(&value)),
        b":path" => fields.path = Some(event::url_path(&value)),
        b":status" => fields.status = number(&value),
        b"content-type" => fields.is_grpc = value.starts_with(b"application/grpc"),
        b"grpc-status" => fields.grpc_status = number(&value),
        _ => {}
    });
    decoded.ok().map(|()| fields)
}
