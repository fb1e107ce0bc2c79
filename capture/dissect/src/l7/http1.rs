//! HTTP/1: request and status lines, and the headers that tell where the next message starts.

use std::collections::VecDeque;
use std::mem::MaybeUninit;

use event::{HttpMessage, L7Message, Timestamp};

use super::connection::{Context, Side, Step, Talk};
use super::http2;

/// Requests of a connection that wait for their responses: pipelining is rare and never this deep.
const MAX_WAITING: usize = 256;
/// Headers of a message; servers accept 100 or fewer.
const MAX_HEADERS: usize = 256;

struct Waiting {
    method: String,
    path: String,
    time: Timestamp,
}

/// What follows in a direction.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Head,
    ChunkSize,
    Trailer,
}

/// Both directions of a connection.
#[derive(Default)]
pub(super) struct Exchange {
    waiting: VecDeque<Waiting>,
    next: [Next; 2],
}

/// What headers say of the body and of the protocol.
#[derive(Clone, Copy, Default)]
struct Framing {
    length: Option<u64>,
    is_chunked: bool,
    upgrades_to_http2: bool,
}

/// A request line starts with a method (letters, for an unknown one too) and a blank; a response with HTTP/1.
pub(super) fn may_start(bytes: &[u8]) -> bool {
    const LONGEST_METHOD: usize = 20;
    let shown = &bytes[..bytes.len().min(LONGEST_METHOD)];
    if shown.starts_with(b"HTTP/") {
        return shown.len() < 7 || shown.starts_with(b"HTTP/1.");
    }
    let letters =
        shown.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-' || **byte == b'_');
    let letters = letters.count();
    match shown.get(letters) {
        Some(b' ') => letters >= 2 && is_request_line(bytes, letters),
        Some(_) => false,
        None => letters > 0 && letters < LONGEST_METHOD,
    }
}

/// A line that is there to its end must end with the version.
fn is_request_line(bytes: &[u8], method: usize) -> bool {
    let target = bytes.get(method + 1);
    let starts_well = target.is_none_or(|byte| byte.is_ascii_graphic());
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_complete = line.len() < bytes.len();
    let ends_well = || line.windows(7).any(|part| part == b"HTTP/1.");
    starts_well && (!is_complete || ends_well())
}

impl Exchange {
    pub fn step(&mut self, side: Side, bytes: &[u8], time: Timestamp, context: &mut Context<'_>) -> Step {
        match self.next[side as usize] {
            Next::ChunkSize => return self.chunk(side, bytes),
            Next::Trailer => return self.trailer(side, bytes),
            Next::Head => {}
        }
        if bytes.starts_with(b"\r\n") {
            return Step::Pass(2);
        }
        if http2::may_start(bytes) {
            let is_whole = bytes.len() >= http2::PREFACE.len();
            return if is_whole { Step::Switch(Talk::Http2(Box::default()), 0) } else { Step::More };
        }
        let step = if bytes.starts_with(b"HTTP/") {
            self.response(side, bytes, time, context)
        } else {
            self.request(side, bytes, time, context)
        };
        if matches!(step, Step::Lost) {
            context.out.counts.malformed += 1;
        }
        step
    }

    fn request(&mut self, side: Side, bytes: &[u8], time: Timestamp, context: &mut Context<'_>) -> Step {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut headers) {
            Ok(httparse::Status::Complete(head)) => {
                let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
                self.emit_request(side, method, target.as_bytes(), request.version, time, context);
                let framing = framing(request.headers);
                self.body(side, head, framing, Some(0))
            }
            Ok(httparse::Status::Partial) => Step::More,
            Err(_) => Step::Lost,
        }
    }

    fn emit_request(
        &mut self,
        side: Side,
        method: &str,
        target: &[u8],
        version: Option<u8>,
        time: Timestamp,
        context: &mut Context<'_>,
    ) {
        let waiting =
            Waiting { method: event::bounded_text(method.as_bytes()), path: event::url_path(target), time };
        let message = message(None, &waiting.method, &waiting.path, version);
        context.out.request(context.from(side), time, message);
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
            context.out.counts.requests_forgotten += 1;
        }
        self.waiting.push_back(waiting);
    }

    fn response(&mut self, side: Side, bytes: &[u8], time: Timestamp, context: &mut Context<'_>) -> Step {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
            Ok(httparse::Status::Complete(head)) => {
                let (status, version) = (response.code.unwrap_or_default(), response.version);
                let framing = framing(response.headers);
                self.answer(side, status, version, head, framing, time, context)
            }
            Ok(httparse::Status::Partial) => Step::More,
            Err(_) => Step::Lost,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a status line and its headers say")]
    fn answer(
        &mut self,
        side: Side,
        status: u16,
        version: Option<u8>,
        head: usize,
        framing: Framing,
        time: Timestamp,
        context: &mut Context<'_>,
    ) -> Step {
        const CONTINUE: std::ops::Range<u16> = 100..200;
        const SWITCHING: u16 = 101;
        if CONTINUE.contains(&status) && status != SWITCHING {
            // Interim: the answer is still to come.
            return Step::Pass(head as u64);
        }
        let asked = self.emit_response(side, status, version, time, context);
        match status {
            SWITCHING if framing.upgrades_to_http2 => {
                let session =
                    asked.map(|asked| http2::Session::upgraded(asked.method, asked.path, asked.time));
                Step::Switch(Talk::Http2(Box::new(session.unwrap_or_default())), head)
            }
            SWITCHING => Step::Switch(Talk::Ignored, head),
            200..300 if asked.as_ref().is_some_and(|asked| asked.method == "CONNECT") => {
                Step::Switch(Talk::Ignored, head)
            }
            204 | 304 => Step::Pass(head as u64),
            _ if asked.is_some_and(|asked| asked.method == "HEAD") => Step::Pass(head as u64),
            _ => self.body(side, head, framing, None),
        }
    }

    fn emit_response(
        &mut self,
        side: Side,
        status: u16,
        version: Option<u8>,
        time: Timestamp,
        context: &mut Context<'_>,
    ) -> Option<Waiting> {
        let asked = self.waiting.pop_front();
        let (method, path) =
            asked.as_ref().map_or(("", ""), |asked| (asked.method.as_str(), asked.path.as_str()));
        let message = message(Some(status), method, path, version);
        context.out.response(context.from(side), time, asked.as_ref().map(|asked| asked.time), message);
        asked
    }

    /// Where the next message starts; `otherwise` is the length where the headers tell none.
    fn body(&mut self, side: Side, head: usize, framing: Framing, otherwise: Option<u64>) -> Step {
        if framing.is_chunked {
            self.next[side as usize] = Next::ChunkSize;
            return Step::Pass(head as u64);
        }
        match framing.length.or(otherwise) {
            Some(length) => Step::Pass((head as u64).saturating_add(length)),
            // Up to the connection's end.
            None => Step::Pass(u64::MAX),
        }
    }

    fn chunk(&mut self, side: Side, bytes: &[u8]) -> Step {
        match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete((line, 0))) => {
                self.next[side as usize] = Next::Trailer;
                Step::Pass(line as u64)
            }
            // The chunk ends with a line break of its own.
            Ok(httparse::Status::Complete((line, length))) => {
                Step::Pass(length.saturating_add(line as u64).saturating_add(2))
            }
            Ok(httparse::Status::Partial) => Step::More,
            Err(_) => self.lost(side),
        }
    }

    fn trailer(&mut self, side: Side, bytes: &[u8]) -> Step {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        match httparse::parse_headers(bytes, &mut headers) {
            Ok(httparse::Status::Complete((length, _))) => {
                self.next[side as usize] = Next::Head;
                Step::Pass(length as u64)
            }
            Ok(httparse::Status::Partial) => Step::More,
            Err(_) => self.lost(side),
        }
    }

    fn lost(&mut self, side: Side) -> Step {
        self.next[side as usize] = Next::Head;
        Step::Lost
    }

    /// A head whose end was not captured: its first line may be there.
    pub fn cut(&mut self, side: Side, head: &[u8], time: Timestamp, context: &mut Context<'_>) {
        if std::mem::take(&mut self.next[side as usize]) != Next::Head {
            return;
        }
        let mut none = [httparse::EMPTY_HEADER; 0];
        if head.starts_with(b"HTTP/1.") {
            let mut response = httparse::Response::new(&mut none);
            // Headers are too many for none: the line was read by then.
            let _ = response.parse(head);
            if let Some(status) = response.code.filter(|status| !(100..200).contains(status)) {
                self.emit_response(side, status, response.version, time, context);
            }
        } else {
            let mut request = httparse::Request::new(&mut none);
            let _ = request.parse(head);
            if let (Some(method), Some(target)) = (request.method, request.path) {
                self.emit_request(side, method, target.as_bytes(), request.version, time, context);
            }
        }
    }
}

fn framing(headers: &[httparse::Header<'_>]) -> Framing {
    let mut framing = Framing::default();
    for header in headers {
        let value = || std::str::from_utf8(header.value).unwrap_or_default();
        if header.name.eq_ignore_ascii_case("content-length") {
            framing.length = value().trim().parse().ok();
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing.is_chunked |= value().to_ascii_lowercase().contains("chunked");
        } else if header.name.eq_ignore_ascii_case("upgrade") {
            framing.upgrades_to_http2 |= value().split(',').any(|name| name.trim() == "h2c");
        }
    }
    framing
}

fn message(status: Option<u16>, method: &str, path: &str, version: Option<u8>) -> L7Message {
    L7Message::Http(HttpMessage {
        status,
        method: method.to_owned(),
        path: path.to_owned(),
        protocol: format!("HTTP/1.{}", version.unwrap_or(1)),
        is_grpc: false,
        grpc_status: None,
    })
}
