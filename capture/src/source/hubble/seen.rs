//! Flows that came already: after a new connection the server repeats the last seconds.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use hubble::proto::Flow;

/// Flows remembered: three seconds at 40,000 flows a second, in 3 MB.
const LIMIT: usize = 1 << 17;

/// The last flows, by hash.
#[derive(Default)]
pub struct Seen {
    known: HashSet<u64>,
    /// Oldest first.
    order: VecDeque<u64>,
}

impl Seen {
    /// Whether this flow is new; it is remembered.
    pub fn insert(&mut self, flow: &Flow) -> bool {
        let identity = identity(flow);
        if !self.known.insert(identity) {
            return false;
        }
        if self.order.len() == LIMIT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(identity);
        true
    }
}

/// The uuid; servers before 1.14 have none: then time, five-tuple and kind of record, which no two flows share.
fn identity(flow: &Flow) -> u64 {
    let mut hasher = DefaultHasher::new();
    if !flow.uuid.is_empty() {
        flow.uuid.hash(&mut hasher);
        return hasher.finish();
    }
    let time = flow.time.unwrap_or_default();
    (time.seconds, time.nanos).hash(&mut hasher);
    if let Some(ip) = &flow.ip {
        (&ip.source, &ip.destination).hash(&mut hasher);
    }
    let l4 = flow.l4.unwrap_or_default();
    for ports in [l4.tcp, l4.udp, l4.sctp] {
        ports.map(|ports| (ports.source_port, ports.destination_port)).hash(&mut hasher);
    }
    let event = flow.event_type.unwrap_or_default();
    let kind = flow.l7.as_ref().map(|l7| l7.r#type);
    (event.r#type, event.sub_type, kind, flow.verdict).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hubble::proto::{EventType, Layer7, Timestamp};

    #[test]
    fn a_flow_is_new_once_with_a_uuid_and_without() {
        let flow = |seconds: i64, uuid: &str| Flow {
            time: Some(Timestamp { seconds, nanos: 1 }),
            uuid: uuid.to_owned(),
            event_type: Some(EventType { r#type: 129, sub_type: 0 }),
            ..Flow::default()
        };
        let mut seen = Seen::default();
        assert!(seen.insert(&flow(1, "a")) && seen.insert(&flow(1, "b")));
        assert!(!seen.insert(&flow(2, "a")), "a uuid tells alone");
        assert!(seen.insert(&flow(1, "")) && !seen.insert(&flow(1, "")));
        let response = Flow { l7: Some(Layer7 { r#type: 2, ..Layer7::default() }), ..flow(1, "") };
        assert!(seen.insert(&response), "request and response of one instant");
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..LIMIT + 10 {
            assert!(seen.insert(&Flow { uuid: number.to_string(), ..Flow::default() }));
        }
        assert_eq!((seen.known.len(), seen.order.len()), (LIMIT, LIMIT));
        assert!(seen.insert(&Flow { uuid: "0".to_owned(), ..Flow::default() }), "the oldest is forgotten");
    }
}
