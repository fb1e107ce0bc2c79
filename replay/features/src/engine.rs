//! The engine: events in, closed windows out. Packets are shared out over a fixed number of shards by the hash
//! of their flow, so that the number of threads cannot change a row.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use event::{Duration, Event, L7Flow, Label, Mark, NameMap, Packet, Timestamp};
use rayon::prelude::*;

use crate::affected::Affected;
use crate::endpoint::Endpoints;
use crate::join::{Coverage, Joiner};
use crate::names::Names;
use crate::row::{Row, Surroundings, row};
use crate::shard::{GROUP, Routed, Shard, ShardCounts, ShardWindow, window_near};
use crate::system::{System, SystemWindow};

/// Shards of the flow table; a power of two. Fixed, so that what `max_flows` closes early is the same for any
/// number of threads.
const SHARDS: usize = 8;
/// Below this many flows a shard's share would be too small to hold what is active.
const SHARED_OUT: usize = 4096;
/// Rows that the open windows may hold, per flow that may be remembered, and at least. What a flood of sources within
/// one window brings beyond that is counted, and in no row.
const ROWS_PER_FLOW: usize = 4;
const MIN_ROWS: usize = 256 * 1024;
/// Packets that are handed to the shards at once.
const BATCH: usize = 16 * 1024;

/// Patient closing waits this long for packets that come out of order.
const PATIENCE: Duration = Duration::from_secs(1);
/// And this long for the reports of application events.
const PATIENCE_WITH_L7: Duration = Duration::from_secs(30);

/// When a window is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// As late as the memory allows: all events are to find their window. A window stays open for as long as
    /// the open windows hold no more than this many rows, and in any case one second past its end, or thirty
    /// where there are application events, whose reporters lag.
    Patient { rows: usize },
    /// As soon as an event arrives this long after the window's end.
    Live { lateness: Duration },
}

impl Default for Closing {
    /// Few enough that their rows are made while what follows is read: what waits for the end of the input has nothing
    /// beside which it could be done.
    fn default() -> Self {
        Self::Patient { rows: 16 * 1024 }
    }
}

/// What the engine is to do.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Length of a window; positive.
    pub window: Duration,
    pub closing: Closing,
    /// Flows remembered at once; past it the least recently active one is closed early. The open windows hold at
    /// most four times as many rows, or 262,144 where that is more.
    pub max_flows: usize,
    /// The label of time that no mark covers.
    pub label: Option<Label>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(5),
            closing: Closing::default(),
            max_flows: 1_000_000,
            label: None,
        }
    }
}

/// What became of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets taken in: the sum of the four below.
    pub packets: u64,
    /// Packets that count in a row.
    pub counted: u64,
    /// Packets that another observation point had shown already.
    pub other_taps: u64,
    /// Packets whose window was closed.
    pub late: u64,
    /// Packets of flows that found no room among the rows of their window, in a flood of sources.
    pub crowded_out: u64,
    /// Packets earlier than the one before them.
    pub steps_back: u64,
    /// Rows of a window that was written before, because the clock stepped far back.
    pub reopened: u64,
    pub flows: u64,
    /// Flows that `max_flows` closed early.
    pub closed_early: u64,
    pub windows: u64,
    pub rows: u64,
    pub coverage: Coverage,
}

/// Names a flow for as long as the engine remembers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowId {
    /// Small: below the number of flows remembered at once, and a little more. Given again to a later flow.
    pub place: u32,
    /// Tells the flows that had one place, one after the other, apart.
    pub birth: u32,
}

impl FlowId {
    fn new(shard: usize, (index, birth): (u32, u32)) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "one of a few shards")]
        Self { place: index * SHARDS as u32 + shard as u32, birth }
    }
}

/// A part of the packets that are handed over at once: by shard, and each with its place in the part.
type Part = Vec<Vec<(u32, Routed)>>;

/// Events in, windows out.
pub struct Engine {
    config: Config,
    shards: Vec<Shard>,
    /// Scratch space.
    group: Vec<Routed>,
    parts: Vec<Part>,
    flows: Vec<FlowId>,
    /// Windows that some shard has open.
    open: BTreeSet<i64>,
    closed: VecDeque<ClosedWindow>,
    marks: Vec<(Timestamp, Option<Label>)>,
    joiner: Joiner,
    system: System,
    /// Which flows the labels are for, from when on; all where nothing is said.
    affected: Vec<(Timestamp, Option<Arc<Affected>>)>,
    names: Arc<Names>,
    last_time: Timestamp,
    latest_time: Timestamp,
    latest_arrival: Timestamp,
    /// Of windows, not yet asked for.
    coverage: Vec<(Timestamp, Coverage)>,
    counts: Counts,
}

impl Engine {
    /// # Panics
    /// Where the window's length is not positive.
    pub fn new(config: Config) -> Self {
        let length = config.window.as_nanos();
        assert!(length > 0, "a window has a positive length");
        let count = if config.max_flows >= SHARED_OUT { SHARDS } else { 1 };
        let max_rows = (ROWS_PER_FLOW * config.max_flows).max(MIN_ROWS) / count;
        let shards = (0..count).map(|_| Shard::new(length, config.max_flows / count, max_rows)).collect();
        Self {
            config,
            shards,
            group: Vec::new(),
            parts: Vec::new(),
            flows: Vec::new(),
            open: BTreeSet::new(),
            closed: VecDeque::new(),
            marks: Vec::new(),
            joiner: Joiner::default(),
            system: System::default(),
            affected: Vec::new(),
            names: Arc::default(),
            last_time: Timestamp::MIN,
            latest_time: Timestamp::MIN,
            latest_arrival: Timestamp::MIN,
            coverage: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Takes in the next event.
    pub fn push(&mut self, event: &Event) {
        self.arrive(event.arrival());
        match event {
            Event::Packet(packet) => self.push_packet(packet),
            Event::Mark(mark) => self.mark(mark),
            Event::Kernel(kernel) => self.joiner.kernel(self.window_of(kernel.time), kernel),
            Event::L7(flow) => self.joiner.flow(self.window_of(flow.time), (**flow).clone()),
            Event::System(snapshot) => self.system.push(snapshot),
            Event::Naming(naming) => Arc::make_mut(&mut self.names).tell(naming),
            Event::Loss(_) => {}
        }
    }

    /// Takes in the next application event; the same as [`Engine::push`] without a copy.
    pub fn push_flow(&mut self, flow: L7Flow) {
        self.arrive(flow.arrival);
        self.joiner.flow(self.window_of(flow.time), flow);
    }

    fn window_of(&self, time: Timestamp) -> i64 {
        time.as_nanos().div_euclid(self.config.window.as_nanos())
    }

    /// Takes in the next packet.
    pub fn push_packet(&mut self, packet: &Packet) {
        self.push_packets(std::slice::from_ref(packet));
    }

    /// Takes in the next packets, in order; faster than one by one, and by as many threads as the current
    /// rayon pool has.
    pub fn push_packets(&mut self, packets: &[Packet]) {
        let mut flows = std::mem::take(&mut self.flows);
        let mut taken = 0;
        while taken < packets.len() {
            taken += self.push_some(&packets[taken..], &mut flows);
        }
        self.flows = flows;
    }

    /// Takes in as many of the next packets as go in before a window is closed, at least one where there is
    /// any; gives their number, and their flows in `flows`. Application messages that are read out of them
    /// should be pushed before the packets that follow.
    pub fn push_some(&mut self, packets: &[Packet], flows: &mut Vec<FlowId>) -> usize {
        flows.clear();
        let Some(first) = packets.first() else { return 0 };
        self.relieve();
        self.arrive(first.arrival);
        let batch = &packets[..self.batch_length(packets)];
        self.route(batch, flows);
        batch.len()
    }

    /// How many packets may go in before a window has to be closed: up to the one whose arrival closes it.
    fn batch_length(&self, packets: &[Packet]) -> usize {
        let most = packets.len().min(BATCH);
        let Closing::Live { lateness } = self.config.closing else { return most };
        let length = self.config.window.as_nanos();
        let first = packets[0].time.as_nanos().div_euclid(length);
        let oldest = self.open.first().map_or(first, |open| first.min(*open));
        let due = Timestamp::from_nanos((oldest + 1) * length) + lateness;
        let mut end = 1;
        while end < most
            && packets[end].arrival < due
            && packets[end].time.as_nanos().div_euclid(length) >= oldest
        {
            end += 1;
        }
        end
    }

    /// Notes an arrival and closes the windows that it makes due.
    fn arrive(&mut self, arrival: Timestamp) {
        self.latest_arrival = self.latest_arrival.max(arrival);
        let Closing::Live { lateness } = self.config.closing else { return };
        while let Some(oldest) = self.open.first().copied()
            && self.end_of(oldest) + lateness <= self.latest_arrival
        {
            self.close(oldest);
        }
    }

    fn end_of(&self, window: i64) -> Timestamp {
        Timestamp::from_nanos((window + 1).saturating_mul(self.config.window.as_nanos()))
    }

    fn route(&mut self, packets: &[Packet], flows: &mut Vec<FlowId>) {
        let length = self.config.window.as_nanos();
        let mut newest = None;
        self.counts.packets += packets.len() as u64;
        for packet in packets {
            self.counts.steps_back += u64::from(packet.time < self.last_time);
            self.last_time = packet.time;
            self.latest_time = self.latest_time.max(packet.time);
            let window = window_near(packet.time.as_nanos(), length, newest);
            if newest != Some(window) {
                newest = Some(window);
                self.open.insert(window);
            }
        }
        if packets.len() > 1 && rayon::current_num_threads() > 1 {
            self.route_by_shard(packets, flows);
        } else {
            self.route_in_turn(packets, flows);
        }
    }

    fn route_in_turn(&mut self, packets: &[Packet], flows: &mut Vec<FlowId>) {
        let shards = self.shards.len();
        let mut group = std::mem::take(&mut self.group);
        for packets in packets.chunks(GROUP) {
            group.clear();
            group.extend(packets.iter().map(Routed::new));
            for routed in &mut group {
                routed.hint = self.shards[routed.shard(shards)].probable(routed);
            }
            for bring in [Shard::bring_flow, Shard::bring_record, Shard::bring_samples] {
                group.iter().for_each(|routed| bring(&self.shards[routed.shard(shards)], routed.hint));
            }
            for (packet, routed) in packets.iter().zip(&group) {
                let shard = routed.shard(shards);
                let flow = self.shards[shard].packet(packet, routed);
                flows.push(FlowId::new(shard, flow));
            }
        }
        self.group = group;
    }

    /// First the packets are sorted by their shards, each thread a part of them; then each shard takes its packets
    /// of all parts, in order.
    fn route_by_shard(&mut self, packets: &[Packet], flows: &mut Vec<FlowId>) {
        let count = self.shards.len();
        let length = packets.len().div_ceil(rayon::current_num_threads());
        let used = packets.len().div_ceil(length);
        self.parts.resize_with(used.max(self.parts.len()), Vec::new);
        let parts = &mut self.parts[..used];
        parts.par_iter_mut().zip(packets.par_chunks(length)).for_each(|(part, packets)| {
            part.resize_with(count, Vec::new);
            part.iter_mut().for_each(Vec::clear);
            for (at, packet) in (0..).zip(packets) {
                let routed = Routed::new(packet);
                part[routed.shard(count)].push((at, routed));
            }
        });
        // Each is written by one shard alone.
        let found: Vec<AtomicU64> = packets.iter().map(|_| AtomicU64::new(0)).collect();
        self.shards.par_iter_mut().enumerate().for_each(|(index, shard)| {
            let chunks = packets.chunks(length).zip(found.chunks(length));
            for (part, (packets, found)) in parts.iter().zip(chunks) {
                for group in part[index].chunks(GROUP) {
                    shard.take_group(group, packets, |at, flow| {
                        let FlowId { place, birth } = FlowId::new(index, flow);
                        found[at].store(u64::from(birth) << 32 | u64::from(place), Ordering::Relaxed);
                    });
                }
            }
        });
        #[allow(clippy::cast_possible_truncation, reason = "the two halves of it")]
        flows.extend(
            found
                .into_iter()
                .map(AtomicU64::into_inner)
                .map(|both| FlowId { place: both as u32, birth: (both >> 32) as u32 }),
        );
    }

    /// Closes the oldest windows where the open ones hold too many rows.
    fn relieve(&mut self) {
        let Closing::Patient { rows } = self.config.closing else { return };
        let patience = if self.joiner.has_hubble() { PATIENCE_WITH_L7 } else { PATIENCE };
        while self.shards.iter().map(Shard::records).sum::<usize>() > rows
            && let Some(oldest) = self.open.first().copied()
            && self.end_of(oldest) + patience <= self.latest_time
        {
            self.close(oldest);
        }
    }

    fn mark(&mut self, mark: &Mark) {
        if mark.label.is_some() {
            self.label_from(mark.time, mark.label);
        }
    }

    /// From this time on everything carries this label, or none, until a mark says otherwise.
    pub fn label_from(&mut self, time: Timestamp, label: Option<Label>) {
        let position = self.marks.partition_point(|(marked, _)| *marked <= time);
        self.marks.insert(position, (time, label));
    }

    /// From this time on labels are for these flows, all others being normal; `None`: labels are for all.
    pub fn affected_from(&mut self, time: Timestamp, affected: Option<Affected>) {
        let position = self.affected.partition_point(|(from, _)| *from <= time);
        self.affected.insert(position, (time, affected.map(Arc::new)));
    }

    /// Names of addresses, for flows that no application event names.
    pub fn set_names(&mut self, names: NameMap) {
        Arc::make_mut(&mut self.names).set_file(names);
    }

    fn close(&mut self, index: i64) {
        self.open.remove(&index);
        let coverage = self.joiner.join(index, self.config.window.as_nanos(), &mut self.shards);
        self.abandon(index);
        self.cover(index, coverage);
        let is_live = matches!(self.config.closing, Closing::Live { .. });
        let seen = self.latest_time.as_nanos();
        let parts: Vec<(ShardWindow, Endpoints)> =
            self.shards.par_iter_mut().map(|shard| shard.close(index, seen, is_live)).collect();
        let mut endpoints = Endpoints::default();
        let mut windows = Vec::with_capacity(parts.len());
        for (window, part) in parts {
            endpoints.merge(part);
            windows.push(window);
        }
        let rows: usize = windows.iter().map(|window| window.flows.len()).sum();
        if rows == 0 {
            return;
        }
        self.counts.windows += 1;
        self.counts.rows += rows as u64;
        let start = Timestamp::from_nanos(index * self.config.window.as_nanos());
        let label = self.label_of(start);
        let length = self.config.window;
        let before = self.affected.partition_point(|(from, _)| *from <= start);
        let affected = self.affected[..before].last().and_then(|(_, affected)| affected.clone());
        let system = self.system.window(start, start + length);
        let oom_events = self.joiner.oom_kills(index);
        let tells_drops = self.joiner.tells_drops();
        let oldest = self.open.first().copied().unwrap_or(index + 1);
        let oldest = Timestamp::from_nanos(oldest * length.as_nanos());
        self.system.forget_before(oldest);
        self.closed.push_back(ClosedWindow {
            start,
            length,
            label,
            affected,
            windows,
            endpoints,
            rows,
            order: OnceLock::new(),
            system,
            oom_events,
            tells_drops,
            coverage,
            names: Arc::clone(&self.names),
        });
        if self.names.has_past() {
            Arc::make_mut(&mut self.names).forget_before(oldest);
        }
    }

    /// Gives up the events of windows before this one.
    fn abandon(&mut self, before: i64) {
        for (window, coverage) in self.joiner.abandon(before) {
            self.cover(window, coverage);
        }
    }

    fn cover(&mut self, window: i64, coverage: Coverage) {
        if coverage != Coverage::default() {
            let start = Timestamp::from_nanos(window.saturating_mul(self.config.window.as_nanos()));
            self.counts.coverage.add(&coverage);
            self.coverage.push((start, coverage));
        }
    }

    /// What became of the application and kernel events since this was last asked, by the start of their window:
    /// also of windows in which nobody sent a packet. A window stands here again where something was told of it
    /// after it had been closed. All of them sum up to [`Counts::coverage`].
    pub fn take_coverage(&mut self) -> Vec<(Timestamp, Coverage)> {
        std::mem::take(&mut self.coverage)
    }

    /// The label in force for the longest part of a window; the later one where two are even.
    fn label_of(&self, start: Timestamp) -> Option<Label> {
        let end = start + self.config.window;
        let before = self.marks.partition_point(|(time, _)| *time <= start);
        let mut label = if before == 0 { self.config.label } else { self.marks[before - 1].1 };
        let (mut since, mut best) = (start, (Duration::ZERO, label));
        for (time, next) in self.marks[before..].iter().take_while(|(time, _)| *time < end) {
            if *time - since >= best.0 {
                best = (*time - since, label);
            }
            (since, label) = (*time, *next);
        }
        if end - since >= best.0 { label } else { best.1 }
    }

    /// Closes every window: no event will follow.
    pub fn finish(&mut self) {
        while let Some(oldest) = self.open.first().copied() {
            self.close(oldest);
        }
        self.abandon(i64::MAX);
    }

    /// The next closed window, oldest first.
    pub fn next_closed(&mut self) -> Option<ClosedWindow> {
        self.closed.pop_front()
    }

    pub fn counts(&self) -> Counts {
        let mut counts = self.counts;
        for ShardCounts { counted, other_taps, late, crowded_out, reopened, flows, closed_early } in
            self.shards.iter().map(|shard| shard.counts)
        {
            counts.counted += counted;
            counts.other_taps += other_taps;
            counts.late += late;
            counts.crowded_out += crowded_out;
            counts.reopened += reopened;
            counts.flows += flows;
            counts.closed_early += closed_early;
        }
        counts.counted -= counts.late + counts.crowded_out;
        counts
    }
}

/// A row's place: its shard, and its record there.
type RowPlace = (u8, u32);

/// Rows from which on several threads put them in order.
const MANY_ROWS: usize = 16 * 1024;

/// The rows of all shards in the order of their five-tuples.
fn order(windows: &[ShardWindow], rows: usize) -> Vec<RowPlace> {
    let mut order: Vec<RowPlace> = Vec::with_capacity(rows);
    for (shard, window) in (0u8..).zip(windows) {
        order.extend((0u32..).zip(&window.flows).map(|(index, _)| (shard, index)));
    }
    let key = |(shard, index): &RowPlace| {
        let record = &windows[usize::from(*shard)].flows[*index as usize];
        record.key.sort_key(record.initiator.into())
    };
    // Both are stable.
    if rows < MANY_ROWS {
        order.sort_by_cached_key(key);
    } else {
        order.par_sort_by_cached_key(key);
    }
    order
}

/// A window that takes no more events, its rows in the order of their five-tuples.
pub struct ClosedWindow {
    start: Timestamp,
    length: Duration,
    label: Option<Label>,
    affected: Option<Arc<Affected>>,
    windows: Vec<ShardWindow>,
    endpoints: Endpoints,
    rows: usize,
    /// Made by who asks for a row first, which may be another thread than the one that closed the window.
    order: OnceLock<Vec<RowPlace>>,
    system: SystemWindow,
    oom_events: Option<u64>,
    tells_drops: bool,
    coverage: Coverage,
    names: Arc<Names>,
}

impl ClosedWindow {
    /// What became of the window's application events.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// Number of rows; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a window without rows is never given out")]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// A row, by its place in the order. Rows may be made by several threads at once.
    ///
    /// # Panics
    /// Where there is no such row.
    pub fn row(&self, place: usize) -> Row {
        let (shard, index) = self.order.get_or_init(|| order(&self.windows, self.rows))[place];
        let window = &self.windows[usize::from(shard)];
        let record = &window.flows[index as usize];
        let surroundings = Surroundings {
            start: self.start,
            length: self.length.as_nanos(),
            samples: &window.samples,
            endpoint: self.endpoints.get(&record.key.endpoint(1 - usize::from(record.initiator))),
            label: self.label,
            application: window.applications.get(record.application as usize),
            system: &self.system,
            oom_events: self.oom_events,
            tells_drops: self.tells_drops,
            names: &self.names,
        };
        let mut row = row(record, &surroundings, &mut String::new());
        if row.label.is_some() && self.affected.as_ref().is_some_and(|affected| !affected.matches(&row)) {
            row.label = Some(Label::NORMAL);
        }
        row
    }

    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        (0..self.len()).map(|place| self.row(place))
    }
}
