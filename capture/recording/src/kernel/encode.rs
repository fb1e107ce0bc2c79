//! Kernel events into columns.

use std::collections::HashMap;

use event::{Duration, FiveTuple, KernelEvent, KernelEventKind};
use foldhash::fast::RandomState;

use super::code;
use super::columns::Columns;
use crate::addresses::Numbers;
use crate::column::{put, put_signed, put_step};
use crate::message::proto;
use crate::recent::Recent;

/// An event whose times wait for the unit that all of the batch can be told in.
struct Seen {
    time: i64,
    arrival: i64,
    /// Difference to the flow's last, of a smoothed round-trip time.
    rtt: Option<i64>,
}

/// Collects events until their batch is taken. The maps are only ever looked up, so their order is no part of the
/// output.
#[derive(Default)]
pub(crate) struct Encoder {
    columns: Columns,
    seen: Vec<Seen>,
    addresses: Numbers,
    flow_of: HashMap<FiveTuple, u32, RandomState>,
    recent: Recent,
    /// The source port told last.
    port: u16,
    kind_of: HashMap<KernelEventKind, u32, RandomState>,
    /// By flow: the last round-trip time.
    rtts: HashMap<Option<FiveTuple>, Duration, RandomState>,
    packets_before: u64,
    others_before: u64,
}

impl Encoder {
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// `packets_before` counts from the start of the recording, `others_before` the messages of other channels in the
    /// chunk.
    pub fn push(&mut self, event: &KernelEvent, packets_before: u64, others_before: u64) {
        self.push_flow(event.five_tuple);
        let rtt = self.push_kind(event);
        let Self { columns, seen, .. } = self;
        seen.push(Seen { time: event.time.as_nanos(), arrival: event.arrival.as_nanos(), rtt });
        put_signed(&mut columns.repeats, i64::from(event.count) - 1);
        put(&mut columns.packets_before, packets_before - self.packets_before);
        put(&mut columns.others_before, others_before - self.others_before);
        (self.packets_before, self.others_before) = (packets_before, others_before);
    }

    fn push_flow(&mut self, five_tuple: Option<FiveTuple>) {
        let Some(five_tuple) = five_tuple else { return put(&mut self.columns.flow, code::NONE) };
        let Some(&flow) = self.flow_of.get(&five_tuple) else {
            put(&mut self.columns.flow, code::NEW);
            return self.add_flow(five_tuple);
        };
        let code = match self.recent.rank(flow) {
            Some(rank) => {
                self.recent.promote(rank);
                code::RECENT + rank as u64
            }
            None => {
                self.recent.insert(flow);
                code::NUMBERED + u64::from(flow)
            }
        };
        put(&mut self.columns.flow, code);
    }

    fn add_flow(&mut self, five_tuple: FiveTuple) {
        let columns = &mut self.columns;
        let flow = columns.flows;
        columns.flows += 1;
        if let Some(reverse) = self.flow_of.get(&five_tuple.reversed()) {
            put(&mut columns.flow_reverse, (flow - reverse).into());
        } else {
            let FiveTuple { source, destination, protocol } = five_tuple;
            let Columns { ipv4, ipv6, .. } = columns;
            let ends = [source, destination].map(|end| self.addresses.number(end.address, ipv4, ipv6));
            put(&mut columns.flow_reverse, 0);
            put(&mut columns.flow_source, ends[0].into());
            put(&mut columns.flow_destination, ends[1].into());
            put_signed(&mut columns.flow_source_port, i64::from(source.port) - i64::from(self.port));
            put(&mut columns.flow_destination_port, destination.port.into());
            put(&mut columns.flow_protocol, protocol.0.into());
            self.port = source.port;
        }
        self.flow_of.insert(five_tuple, flow);
        self.recent.insert(flow);
    }

    /// A round-trip time is a number beside its kind; of all other kinds everything stands in the kind.
    fn push_kind(&mut self, event: &KernelEvent) -> Option<i64> {
        let (kind, rtt) = match event.kind {
            KernelEventKind::SmoothedRtt { rtt } => {
                let last = self.rtts.insert(event.five_tuple, rtt).unwrap_or(Duration::ZERO);
                let difference = rtt.as_nanos().wrapping_sub(last.as_nanos());
                (&KernelEventKind::SmoothedRtt { rtt: Duration::ZERO }, Some(difference))
            }
            ref kind => (kind, None),
        };
        let place = match self.kind_of.get(kind) {
            Some(place) => *place,
            None => {
                let place = self.columns.kinds.len() as u32;
                self.columns
                    .kinds
                    .push(proto::Kernel { kind: Some(kind.into()), ..proto::Kernel::default() });
                self.kind_of.insert(kind.clone(), place);
                place
            }
        };
        put(&mut self.columns.kind, place.into());
        rtt
    }

    /// The batch, with the encoder empty for the next.
    pub fn take(&mut self) -> Columns {
        let Self { mut columns, seen, .. } = std::mem::take(self);
        columns.count = seen.len() as u32;
        columns.base_time = seen.first().map_or(0, |first| first.time);
        put_times(&mut columns, &seen);
        columns.trim();
        columns
    }
}

/// Times, arrivals and round-trip times, in microseconds where that loses nothing.
fn put_times(columns: &mut Columns, seen: &[Seen]) {
    let mut steps = Vec::with_capacity(seen.len());
    let mut runs: Vec<(u64, i64)> = Vec::new();
    let (mut time, mut arrival) = (columns.base_time, columns.base_time);
    for event in seen {
        steps.push(event.time.wrapping_sub(time));
        time = event.time;
        match runs.last_mut() {
            Some((run, _)) if event.arrival == arrival => *run += 1,
            _ => runs.push((1, event.arrival.wrapping_sub(arrival))),
        }
        arrival = event.arrival;
    }
    let rtts = || seen.iter().filter_map(|event| event.rtt);
    let mut spans = steps.iter().copied().chain(runs.iter().map(|(_, span)| *span)).chain(rtts());
    let unit = if spans.all(|span| span % 1000 == 0) { 1000 } else { 1 };
    columns.time_unit = unit as u32;
    for step in &steps {
        put_step([&mut columns.time_high, &mut columns.time_middle, &mut columns.time_low], step / unit);
    }
    for (run, span) in &runs {
        put(&mut columns.arrival_run, *run);
        put_signed(&mut columns.arrival, span / unit);
    }
    for rtt in rtts() {
        put_signed(&mut columns.rtt, rtt / unit);
    }
}
