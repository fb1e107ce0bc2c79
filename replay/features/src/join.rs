//! Application and kernel events to the flows of their window.
//!
//! An event belongs to the window of its own time. It is joined to the flow of its five-tuple, whichever
//! direction it runs in; else to that of the client's address before translation; else, where the service's
//! address hides the server, to the only flow of the client's endpoint in the window. A reporter's clock may
//! stand a little after the packets': an event within [`TOLERANCE`] of a window's edge that finds no flow in its
//! own window is tried in the neighbour.

use std::collections::{BTreeMap, HashSet};

use event::{Duration, KernelEvent, KernelEventKind, L7Flow, Timestamp};

use crate::application::SearchLists;
use crate::key::Key;
use crate::shard::{Routed, Shard};

/// How far a reporter's clock may be from the packets'.
const TOLERANCE: Duration = Duration::from_millis(50);

/// What became of the application events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Events taken in, repeats of one report left out.
    pub seen: u64,
    pub by_five_tuple: u64,
    pub by_translated_source: u64,
    pub by_client: u64,
    /// No flow of theirs had packets in the window.
    pub unjoined: u64,
    /// Reports that came twice.
    pub repeated: u64,
    /// Kernel events of a connection that joined a flow.
    pub kernel_joined: u64,
    pub kernel_unjoined: u64,
}

impl Coverage {
    pub fn joined(&self) -> u64 {
        self.by_five_tuple + self.by_translated_source + self.by_client
    }

    /// Adds what became of others.
    pub fn add(&mut self, other: &Self) {
        self.seen += other.seen;
        self.by_five_tuple += other.by_five_tuple;
        self.by_translated_source += other.by_translated_source;
        self.by_client += other.by_client;
        self.unjoined += other.unjoined;
        self.repeated += other.repeated;
        self.kernel_joined += other.kernel_joined;
        self.kernel_unjoined += other.kernel_unjoined;
    }
}

/// The events of one window that await its end.
#[derive(Debug, Default)]
struct Waiting {
    flows: Vec<L7Flow>,
    kernel: Vec<KernelEvent>,
}

/// Events that await the end of their window.
#[derive(Debug, Default)]
pub struct Joiner {
    waiting: BTreeMap<i64, Waiting>,
    /// OOM kills by window, where a probe told of any kernel event.
    oom_kills: BTreeMap<i64, u64>,
    has_kernel: bool,
    has_hubble: bool,
}

impl Joiner {
    pub fn flow(&mut self, window: i64, flow: L7Flow) {
        self.has_hubble |= flow.origin == event::L7Origin::Hubble;
        self.waiting.entry(window).or_default().flows.push(flow);
    }

    pub fn kernel(&mut self, window: i64, event: &KernelEvent) {
        self.has_kernel = true;
        if matches!(event.kind, KernelEventKind::OomKill { .. }) {
            *self.oom_kills.entry(window).or_default() += 1;
        }
        let is_used =
            matches!(event.kind, KernelEventKind::SmoothedRtt { .. } | KernelEventKind::Drop { .. });
        if is_used && event.five_tuple.is_some() {
            self.waiting.entry(window).or_default().kernel.push(event.clone());
        }
    }

    /// Whether anything that tells of drops reported so far.
    pub fn tells_drops(&self) -> bool {
        self.has_kernel || self.has_hubble
    }

    /// OOM kills in a window, where a probe reported anything so far.
    pub fn oom_kills(&mut self, window: i64) -> Option<u64> {
        let kills = self.oom_kills.remove(&window).unwrap_or(0);
        self.has_kernel.then_some(kills)
    }

    /// Whether Hubble, whose reports lag, told of anything so far.
    pub fn has_hubble(&self) -> bool {
        self.has_hubble
    }

    /// Gives up the events of windows before this one: no flow had packets there, or the window is closed.
    pub fn abandon(&mut self, before: i64) -> impl Iterator<Item = (i64, Coverage)> + use<> {
        let rest = self.waiting.split_off(&before);
        let given_up = std::mem::replace(&mut self.waiting, rest);
        given_up.into_iter().map(|(window, waiting)| {
            let unjoined = waiting.flows.len() as u64;
            let kernel_unjoined = waiting.kernel.len() as u64;
            (window, Coverage { seen: unjoined, unjoined, kernel_unjoined, ..Coverage::default() })
        })
    }

    /// Joins the events of a window that is about to be closed.
    pub fn join(&mut self, window: i64, length: i64, shards: &mut [Shard]) -> Coverage {
        let mut coverage = Coverage::default();
        let end = Timestamp::from_nanos((window + 1).saturating_mul(length));
        let mut waiting = self.waiting.remove(&window).unwrap_or_default();
        for event in &waiting.kernel {
            let joined = event.five_tuple.is_some_and(|tuple| {
                with_record(shards, &Key::new(&tuple).0, window, |record| record.take_kernel(&event.kind))
            });
            coverage.kernel_joined += u64::from(joined);
            coverage.kernel_unjoined += u64::from(!joined);
        }
        waiting.flows.extend(self.early(window, end, shards));
        waiting.flows.sort_by_key(|flow| flow.time);
        let outcomes = SearchLists::new(waiting.flows.iter());
        let (mut reports, mut unjoined) = (HashSet::new(), Vec::new());
        for flow in waiting.flows {
            if !flow.uuid.is_empty() && !reports.insert(flow.uuid.clone()) {
                coverage.repeated += 1;
                continue;
            }
            let rcode = outcomes.final_rcode(&flow);
            let mut take = |key: &Key| with_record(shards, key, window, |record| record.take(&flow, rcode));
            let translated = flow.source_translated.map(|tuple| Key::new(&tuple).0);
            if take(&Key::new(&flow.five_tuple).0) {
                coverage.by_five_tuple += 1;
            } else if translated.is_some_and(|key| take(&key)) {
                coverage.by_translated_source += 1;
            } else {
                unjoined.push((flow, rcode));
            }
        }
        self.join_by_client(window, end, shards, unjoined, &mut coverage);
        coverage.seen = coverage.joined() + coverage.unjoined;
        coverage
    }

    /// Events of the next window's first moments whose flow has packets in this window and none there so far.
    fn early(&mut self, window: i64, end: Timestamp, shards: &mut [Shard]) -> Vec<L7Flow> {
        let Some(next) = self.waiting.get_mut(&(window + 1)) else { return Vec::new() };
        let belongs = |flow: &mut L7Flow| {
            let key = Key::new(&flow.five_tuple).0;
            flow.time < end + TOLERANCE
                && has_record(shards, &key, window)
                && !has_record(shards, &key, window + 1)
        };
        next.flows.extract_if(.., belongs).collect()
    }

    fn join_by_client(
        &mut self,
        window: i64,
        end: Timestamp,
        shards: &mut [Shard],
        flows: Vec<(L7Flow, Option<u16>)>,
        coverage: &mut Coverage,
    ) {
        if flows.is_empty() {
            return;
        }
        let mut clients: BTreeMap<_, Option<Key>> = BTreeMap::new();
        for key in shards.iter().flat_map(|shard| shard.initiators(window)) {
            clients.entry(key.0).and_modify(|only| *only = None).or_insert(Some(key.1));
        }
        for (flow, rcode) in flows {
            let is_reply = flow.kind == event::L7Type::Response || flow.is_reply == Some(true);
            let (key, source) = Key::new(&flow.five_tuple);
            let client = key.endpoint(if is_reply { 1 - source } else { source });
            if let Some(Some(key)) = clients.get(&client) {
                with_record(shards, key, window, |record| record.take(&flow, rcode));
                coverage.by_client += 1;
            } else if flow.time + TOLERANCE >= end && flow.time < end {
                self.waiting.entry(window + 1).or_default().flows.push(flow);
            } else {
                coverage.unjoined += 1;
            }
        }
    }
}

fn with_record(
    shards: &mut [Shard],
    key: &Key,
    window: i64,
    take: impl FnOnce(&mut crate::application::Application),
) -> bool {
    let routed = Routed::of(*key);
    let shard = routed.shard(shards.len());
    shards[shard].application(&routed, window).map(take).is_some()
}

fn has_record(shards: &[Shard], key: &Key, window: i64) -> bool {
    let routed = Routed::of(*key);
    shards[routed.shard(shards.len())].has_record(&routed, window)
}
