//! TLS hellos: the server's name and the version that was agreed on.

use event::{L7Message, Timestamp, TlsMessage};

use super::connection::{Context, Side, Step, Talk};
use crate::layer::Layer;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// A record's header, and a handshake message's.
const RECORD: usize = 5;
const MESSAGE: usize = 4;

/// What the client asked for.
#[derive(Default)]
pub(super) struct Handshake {
    asked: Option<(Timestamp, String)>,
}

pub(super) fn may_start(bytes: &[u8]) -> bool {
    matches!(bytes, [HANDSHAKE, 3, 0..=4, _, _, CLIENT_HELLO | SERVER_HELLO, ..])
}

impl Handshake {
    pub fn step(&mut self, side: Side, bytes: &[u8], time: Timestamp, context: &mut Context<'_>) -> Step {
        let Some(header) = bytes.first_chunk::<RECORD>() else { return Step::More };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != HANDSHAKE {
            // Whatever came before the hellos were complete, they come no more.
            return Step::Switch(Talk::Ignored, 0);
        }
        let Some(message) = bytes.get(RECORD..RECORD + length) else { return Step::More };
        if self.hello(side, message, time, context) {
            return Step::Switch(Talk::Ignored, 0);
        }
        Step::Pass((RECORD + length) as u64)
    }

    /// A hello whose end was not captured.
    pub fn cut(&mut self, side: Side, head: &[u8], time: Timestamp, context: &mut Context<'_>) {
        if may_start(head) {
            self.hello(side, &head[RECORD..], time, context);
        }
    }

    /// Whether that was the last of interest: the server's.
    fn hello(&mut self, side: Side, message: &[u8], time: Timestamp, context: &mut Context<'_>) -> bool {
        let Some(kind) = message.first() else { return false };
        let Some(hello) = Hello::read(*kind, message.get(MESSAGE..).unwrap_or_default()) else {
            return false;
        };
        let version = hello.version;
        match *kind {
            CLIENT_HELLO => {
                let server_name = hello.server_name;
                let message = TlsMessage { server_name: server_name.clone(), version };
                // After a HelloRetryRequest the client asks again: the first time counts.
                self.asked.get_or_insert((time, server_name));
                context.out.request(context.from(side), time, L7Message::Tls(message));
                false
            }
            SERVER_HELLO => {
                let (asked, server_name) = self.asked.take().unzip();
                let message = TlsMessage { server_name: server_name.unwrap_or_default(), version };
                context.out.response(context.from(side), time, asked, L7Message::Tls(message));
                true
            }
            _ => false,
        }
    }
}

#[derive(Default)]
struct Hello {
    version: u16,
    server_name: String,
}

impl Hello {
    /// As far as it goes: extensions behind a cut are missing.
    fn read(kind: u8, body: &[u8]) -> Option<Self> {
        const RANDOM: usize = 32;
        let body = Layer::new(body, body.len());
        let mut hello = Self { version: body.u16(0)?, ..Self::default() };
        let rest = body.skip(2 + RANDOM)?;
        let rest = rest.skip(1 + usize::from(rest.u8(0)?))?;
        let extensions = if kind == CLIENT_HELLO {
            // Cipher suites, then compression methods.
            let rest = rest.skip(2 + usize::from(rest.u16(0)?))?;
            rest.skip(1 + usize::from(rest.u8(0)?))
        } else {
            rest.skip(3)
        };
        if let Some(extensions) = extensions {
            hello.extensions(kind, extensions);
        }
        Some(hello)
    }

    fn extensions(&mut self, kind: u8, list: Layer<'_>) -> Option<()> {
        const SERVER_NAME: u16 = 0;
        const SUPPORTED_VERSIONS: u16 = 43;
        let mut rest = list.skip(2)?;
        loop {
            let (code, length) = (rest.u16(0)?, usize::from(rest.u16(2)?));
            let value = rest.skip(4)?;
            match code {
                SERVER_NAME if kind == CLIENT_HELLO => self.server_name = server_name(value)?,
                SUPPORTED_VERSIONS if kind == CLIENT_HELLO => self.version = highest(value.limit(length))?,
                SUPPORTED_VERSIONS => self.version = value.u16(0)?,
                _ => {}
            }
            rest = value.skip(length)?;
        }
    }
}

/// The first name of the list, which is a host's.
fn server_name(list: Layer<'_>) -> Option<String> {
    let length = usize::from(list.u16(3)?);
    let name = list.skip(5)?.captured;
    Some(event::bounded_text(name.get(..length)?))
}

/// The highest version that a client offers; the reserved ones (0x?a?a) are noise on purpose.
fn highest(list: Layer<'_>) -> Option<u16> {
    let count = usize::from(list.u8(0)?) / 2;
    let offered = (0..count).filter_map(|at| list.u16(1 + 2 * at));
    offered.filter(|version| version & 0x0f0f != 0x0a0a).max()
}
