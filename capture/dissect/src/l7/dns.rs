//! DNS queries and answers, over UDP and TCP.

use event::{DnsMessage, FiveTuple, L7Message, Timestamp};
use hickory_proto::op::{Header, MessageType, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

use super::Emitter;
use super::connection::{Context, Side, Step};
use super::recent::Recent;

pub(super) const PORT: u16 = 53;

/// Queries that wait for an answer.
const MAX_QUERIES: usize = 65_536;

/// Queries by client, id and question, to find the latency of their answers.
pub(super) struct Queries {
    waiting: Recent<(FiveTuple, u16, String), Timestamp>,
    forgotten: u64,
}

impl Default for Queries {
    fn default() -> Self {
        Self { waiting: Recent::new(MAX_QUERIES), forgotten: 0 }
    }
}

impl Queries {
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// One message, of which the header and the question are needed; the rest may be cut.
    pub fn message(&mut self, from: FiveTuple, time: Timestamp, bytes: &[u8], out: &mut Emitter<'_>) {
        let Some((header, questions)) = read(bytes) else {
            out.counts.malformed += 1;
            return;
        };
        let is_response = header.message_type == MessageType::Response;
        let query = questions.first().map(|query| query.name().to_ascii()).unwrap_or_default();
        let message = DnsMessage {
            query: query.strip_suffix('.').unwrap_or(&query).to_owned(),
            query_types: questions.iter().map(|query| query.query_type().to_string()).collect(),
            rcode: is_response.then(|| rcode(&header, bytes)),
            answers: is_response.then_some(header.counts.answers),
        };
        // Names compare without case: some resolvers vary it to make answers harder to forge.
        let key = |client| (client, header.id, message.query.to_ascii_lowercase());
        if is_response {
            let asked = self.waiting.remove(&key(from.reversed()));
            out.response(from, time, asked, L7Message::Dns(message));
        } else {
            // A query that is sent again waits since its first time.
            self.waiting.get_or_insert_with(key(from), || time);
            self.forgotten += self.waiting.take_forgotten().len() as u64;
            out.request(from, time, L7Message::Dns(message));
        }
    }
}

/// The header and as many questions as it announces.
fn read(bytes: &[u8]) -> Option<(Header, Vec<Query>)> {
    /// More than one question is all but unknown.
    const MAX_QUESTIONS: u16 = 8;
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder).ok()?;
    if header.counts.queries > MAX_QUESTIONS {
        return None;
    }
    let questions =
        (0..header.counts.queries).map(|_| Query::read(&mut decoder).ok()).collect::<Option<_>>()?;
    Some((header, questions))
}

/// With the upper bits that EDNS adds, where the whole message is there.
fn rcode(header: &Header, bytes: &[u8]) -> u16 {
    let low = header.response_code;
    if header.counts.additionals == 0 {
        return low.into();
    }
    let whole = hickory_proto::op::Message::from_vec(bytes);
    whole.map_or(low, |message| -> ResponseCode { message.response_code }).into()
}

/// Messages over TCP have their length in front.
pub(super) fn over_tcp(side: Side, bytes: &[u8], time: Timestamp, context: &mut Context<'_>) -> Step {
    let Some(prefix) = bytes.first_chunk::<2>() else { return Step::More };
    let length = usize::from(u16::from_be_bytes(*prefix));
    let Some(message) = bytes.get(2..2 + length) else { return Step::More };
    let from = context.from(side);
    context.queries.message(from, time, message, &mut context.out);
    Step::Pass(2 + length as u64)
}
