//! A share of the flows, chosen by the hash of their keys: flow table, their records in the open windows, and
//! what closing a window needs of them. Shards know nothing of each other.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use event::Packet;
use hashbrown::HashTable;

use crate::application::Application;
use crate::endpoint::Endpoints;
use crate::flow::{Flow, NO_SLOT};
use crate::key::{EndpointKey, Key};
use crate::latency::InFlight;
use crate::prefetch::bring;
use crate::samples::SampleStore;
use crate::tcp::{NEVER, Segment, Verdict};
use crate::window::{FlowWindow, Place};

/// How long an unanswered SYN counts as half open, in ns.
const HALF_OPEN: i64 = 60_000_000_000;

/// A packet on its way into a shard.
#[derive(Clone, Copy, Debug)]
pub struct Routed {
    pub key: Key,
    pub hash: u64,
    /// Where its flow probably is, as [`Shard::probable`] found it.
    pub hint: u32,
    /// The side of the key that sent it.
    pub side: u8,
}

/// Rows for which a window has room from its beginning, at most.
const EXPECTED_ROWS: usize = 4096;
/// Packets whose flows are looked up at once.
pub const GROUP: usize = 32;
/// No flow was found.
const NO_HINT: u32 = u32::MAX;

impl Routed {
    pub fn new(packet: &Packet) -> Self {
        let (key, side) = Key::new(&packet.five_tuple);
        Self { key, hash: key.hash(), hint: NO_HINT, side: u8::from(side != 0) }
    }

    /// For events that have no packet.
    pub fn of(key: Key) -> Self {
        Self { key, hash: key.hash(), hint: NO_HINT, side: 0 }
    }

    /// Bits of the hash that the table within the shard does not use first.
    pub fn shard(&self, shards: usize) -> usize {
        (self.hash >> 32) as usize & (shards - 1)
    }
}

/// An entry of the table. The tag stands in for the key, so that neither a search nor a table that grows has to read
/// the flows themselves: of several million there is hardly one that shares its tag with another.
#[derive(Clone, Copy)]
struct Slot {
    tag: u32,
    index: u32,
}

impl Slot {
    /// Other bits of the hash than those that choose the shard.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half")]
    fn new(hash: u64, index: u32) -> Self {
        Self { tag: hash as u32, index }
    }

    /// The table's hash of it: the table uses the lowest bits and the highest ones.
    fn hash(&self) -> u64 {
        u64::from(self.tag) << 32 | u64::from(self.tag)
    }
}

/// The records of one window.
#[derive(Default)]
pub struct ShardWindow {
    pub index: i64,
    pub flows: Vec<FlowWindow>,
    pub samples: SampleStore,
    pub applications: Vec<Application>,
}

/// A handshake that was under way across a window's end and is no more.
struct HalfOpen {
    endpoint: EndpointKey,
    from: i64,
    /// The last instant at which it counted.
    to: i64,
}

/// What became of the packets, for the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounts {
    pub counted: u64,
    pub other_taps: u64,
    /// Their window was closed: they count in no row.
    pub late: u64,
    /// Of flows that found no room among the rows of their window: they count in no row.
    pub crowded_out: u64,
    /// Rows that repeat a window already written, because the clock stepped far back.
    pub reopened: u64,
    pub flows: u64,
    pub closed_early: u64,
}

/// The segments in flight of the flows that have some: few have at a time.
#[derive(Default)]
struct Slab {
    places: Vec<InFlight>,
    free: Vec<u32>,
}

impl Slab {
    /// Times data against the ACK that covers it.
    #[inline]
    fn time_segment(
        &mut self,
        flow: &mut Flow,
        side: usize,
        segment: &Segment,
        verdict: Verdict,
        open: Option<(&mut FlowWindow, &mut SampleStore)>,
    ) {
        let is_repeat = Verdict(Verdict::ANY_RETRANSMISSION.0 | Verdict::OUT_OF_ORDER.0);
        if segment.payload > 0 {
            let in_flight = self.place(flow);
            let end = segment.sequence.wrapping_add(segment.payload);
            if verdict.intersects(is_repeat) {
                in_flight.sent_again(side, segment.sequence, end);
            } else if !verdict.intersects(Verdict(Verdict::KEEP_ALIVE.0 | Verdict::ZERO_WINDOW_PROBE.0)) {
                in_flight.sent(side, segment.time, segment.sequence, end);
            }
        }
        if flow.in_flight == NO_SLOT || !segment.flags.contains(event::TcpFlags::ACK) {
            return;
        }
        let in_flight = &mut self.places[flow.in_flight as usize];
        let (other, time, ack) = (1 - side, segment.time, segment.acknowledgement);
        match open {
            Some((record, samples)) => {
                in_flight.acked(other, time, ack, |latency| record.respond(samples, latency))
            }
            None => in_flight.acked(other, time, ack, |_| ()),
        }
        if in_flight.is_empty() {
            self.release(flow);
        }
    }

    /// The flow's own, given to it where it has none.
    fn place(&mut self, flow: &mut Flow) -> &mut InFlight {
        if flow.in_flight == NO_SLOT {
            flow.in_flight = self.free.pop().unwrap_or_else(|| {
                self.places.push(InFlight::default());
                u32::try_from(self.places.len() - 1).expect("as many as flows at most")
            });
            self.bring_free();
        }
        &mut self.places[flow.in_flight as usize]
    }

    /// Brings the place into the cache that is given away some flows later.
    fn bring_free(&self) {
        const AHEAD: usize = 4;
        if let Some(free) = self.free.len().checked_sub(AHEAD) {
            self.places[self.free[free] as usize].bring();
        }
    }

    fn bring(&self, flow: &Flow) {
        if let Some(in_flight) = self.places.get(flow.in_flight as usize) {
            in_flight.bring();
        }
    }

    fn release(&mut self, flow: &mut Flow) {
        let slot = std::mem::replace(&mut flow.in_flight, NO_SLOT);
        if slot != NO_SLOT {
            self.places[slot as usize].clear();
            self.free.push(slot);
        }
    }
}

/// A share of the flows.
pub struct Shard {
    table: HashTable<Slot>,
    flows: Vec<Flow>,
    free_flows: Vec<u32>,
    /// Flows by the activity they had when last looked at; stale entries are put right when popped.
    least_recent: BinaryHeap<Reverse<(u64, u32)>>,
    in_flight: Slab,
    half_open: Vec<u32>,
    half_open_past: Vec<HalfOpen>,
    windows: VecDeque<ShardWindow>,
    /// Windows before this one are closed and take nothing more.
    closed: i64,
    last_closed: Option<i64>,
    /// Rows of the window that was closed last: the next one is likely to have as many.
    rows_before: usize,
    /// Length of a window in ns.
    length: i64,
    max_flows: usize,
    /// Records that the open windows hold at most.
    max_rows: usize,
    sequence: u64,
    pub counts: ShardCounts,
}

impl Shard {
    pub fn new(length: i64, max_flows: usize, max_rows: usize) -> Self {
        Self {
            table: HashTable::new(),
            flows: Vec::new(),
            free_flows: Vec::new(),
            least_recent: BinaryHeap::new(),
            in_flight: Slab::default(),
            half_open: Vec::new(),
            half_open_past: Vec::new(),
            windows: VecDeque::new(),
            closed: i64::MIN,
            last_closed: None,
            rows_before: 0,
            length,
            max_flows: max_flows.max(1),
            max_rows,
            sequence: 0,
            counts: ShardCounts::default(),
        }
    }

    /// Where the flow of a packet to come probably is. Packets are looked up in groups, step by step for all of a
    /// group, so that the waits for memory overlap: this first, then [`Shard::bring_flow`], [`Shard::bring_record`]
    /// and [`Shard::bring_samples`], each of which finds what it reads brought by the one before it.
    pub fn probable(&self, routed: &Routed) -> u32 {
        let wanted = Slot::new(routed.hash, NO_HINT);
        self.table.find(wanted.hash(), |slot| slot.tag == wanted.tag).map_or(NO_HINT, |slot| slot.index)
    }

    /// Brings a flow into the cache.
    pub fn bring_flow(&self, hint: u32) {
        if let Some(flow) = self.flows.get(hint as usize) {
            bring(flow);
        }
    }

    /// Brings its record in the newest window, and its segments in flight.
    pub fn bring_record(&self, hint: u32) {
        let Some(flow) = self.flows.get(hint as usize) else { return };
        if let Some(record) = self.newest_record(flow) {
            bring(record);
        }
        self.in_flight.bring(flow);
    }

    /// Brings the place of the record's next sample.
    pub fn bring_samples(&self, hint: u32) {
        if let Some(flow) = self.flows.get(hint as usize)
            && let Some(record) = self.newest_record(flow)
            && let Some(window) = self.windows.back()
        {
            window.samples.bring(record.samples);
        }
    }

    fn newest_record(&self, flow: &Flow) -> Option<&FlowWindow> {
        let window = self.windows.back().filter(|window| window.index == flow.place.window)?;
        window.flows.get(flow.place.index as usize)
    }

    /// Takes in some of these packets, by their places; gives each one's flow as [`Shard::packet`] does.
    pub fn take_group(
        &mut self,
        group: &[(u32, Routed)],
        packets: &[Packet],
        mut found: impl FnMut(usize, (u32, u32)),
    ) {
        let mut hints = [NO_HINT; GROUP];
        let hints = &mut hints[..group.len()];
        for (hint, (_, routed)) in hints.iter_mut().zip(group) {
            *hint = self.probable(routed);
        }
        hints.iter().for_each(|hint| self.bring_flow(*hint));
        hints.iter().for_each(|hint| self.bring_record(*hint));
        hints.iter().for_each(|hint| self.bring_samples(*hint));
        for (hint, (at, routed)) in hints.iter().zip(group) {
            let at = *at as usize;
            found(at, self.packet(&packets[at], &Routed { hint: *hint, ..*routed }));
        }
    }

    /// Takes in a packet whose flow is in this shard; gives the flow's place and birth.
    pub fn packet(&mut self, packet: &Packet, routed: &Routed) -> (u32, u32) {
        let side = usize::from(routed.side);
        self.sequence += 1;
        let index = self.find_or_insert(packet, routed);
        let flow = &mut self.flows[index as usize];
        flow.touched = self.sequence;
        let found = (index, flow.birth);
        if !flow.is_primary_tap(packet, side) {
            self.counts.other_taps += 1;
            return found;
        }
        self.counts.counted += 1;
        match packet.tcp {
            Some(tcp) => {
                let segment = Segment::new(packet.time.as_nanos(), &tcp, packet.payload_length);
                self.segment(packet, index, side, &segment);
            }
            None => self.datagram(packet, index, side),
        }
        found
    }

    /// The flow's place.
    fn index(&self, routed: &Routed) -> Option<u32> {
        let wanted = Slot::new(routed.hash, NO_HINT);
        let is_it = |slot: &Slot| slot.tag == wanted.tag && self.flows[slot.index as usize].key == routed.key;
        self.table.find(wanted.hash(), is_it).map(|slot| slot.index)
    }

    fn find_or_insert(&mut self, packet: &Packet, routed: &Routed) -> u32 {
        let hinted = self.flows.get(routed.hint as usize);
        if hinted.is_some_and(|flow| flow.key == routed.key && !flow.is_closed) {
            return routed.hint;
        }
        if let Some(found) = self.index(routed) {
            return found;
        }
        if self.table.len() >= self.max_flows {
            self.close_least_recent();
        }
        #[allow(clippy::cast_possible_truncation, reason = "tells apart, no more")]
        let birth = self.counts.flows as u32;
        let flow = Flow::new(routed.key, packet, routed.side.into(), birth);
        let index = match self.free_flows.pop() {
            Some(index) => {
                let slot = &mut self.flows[index as usize];
                let is_listed_half_open = slot.is_listed_half_open;
                *slot = flow;
                slot.is_listed_half_open = is_listed_half_open;
                index
            }
            None => {
                self.flows.push(flow);
                u32::try_from(self.flows.len() - 1).expect("max_flows fits 32 bits")
            }
        };
        let slot = Slot::new(routed.hash, index);
        self.table.insert_unique(slot.hash(), slot, Slot::hash);
        self.least_recent.push(Reverse((self.sequence, index)));
        self.counts.flows += 1;
        index
    }

    /// Closes the least recently active flow. Its rows stay; a later packet of it begins a new flow.
    fn close_least_recent(&mut self) {
        while let Some(Reverse((looked_at, index))) = self.least_recent.pop() {
            let flow = &mut self.flows[index as usize];
            if flow.touched > looked_at {
                self.least_recent.push(Reverse((flow.touched, index)));
                continue;
            }
            let last = flow.last;
            for side in 0..2 {
                self.end_zero_window(index, side, last);
            }
            self.end_half_open(index, last);
            self.forget(index);
            self.counts.closed_early += 1;
            return;
        }
    }

    fn forget(&mut self, index: u32) {
        let (mut place, hash) = (self.flows[index as usize].place, self.flows[index as usize].key.hash());
        while let Some(record) = self.record(place) {
            record.flow = u32::MAX;
            place = record.other;
        }
        let flow = &mut self.flows[index as usize];
        self.in_flight.release(flow);
        flow.is_closed = true;
        if let Ok(entry) = self.table.find_entry(Slot::new(hash, index).hash(), |slot| slot.index == index) {
            entry.remove();
        }
        self.free_flows.push(index);
    }

    fn segment(&mut self, packet: &Packet, index: u32, side: usize, segment: &Segment) {
        let flow = &mut self.flows[index as usize];
        let outcome = flow.tcp.segment(side, segment);
        if outcome.verdict.intersects(Verdict::PORTS_REUSED) {
            for side in 0..2 {
                self.end_zero_window(index, side, segment.time);
            }
            self.end_half_open(index, segment.time);
            let flow = &mut self.flows[index as usize];
            self.in_flight.release(flow);
            flow.begin_again(segment.time);
        }
        let flow = &mut self.flows[index as usize];
        flow.orient(segment, side);
        let completion = flow.follow(segment, side);
        let run = &mut flow.retransmission_run[side];
        if outcome.verdict.intersects(Verdict::ANY_RETRANSMISSION) {
            *run = run.saturating_add(packet.gso_segments.max(1).into());
        } else if outcome.new_bytes > 0 {
            *run = 0;
        }
        let run = *run;
        let zero_since = flow.follow_window(segment, side, outcome.verdict);
        self.follow_handshake(index, segment);
        let (place, gap) = self.place(packet, index);
        let flow = &mut self.flows[index as usize];
        let mut open = open_record(&mut self.windows, place);
        if let Some((record, _)) = &mut open {
            note(record, flow, packet, side, gap);
            record.count_segment(packet, segment.flags, outcome.verdict, run);
            record.unique_bytes += u64::from(outcome.new_bytes);
            if let Some(completion) = completion {
                record.completion = completion;
            }
        }
        self.in_flight.time_segment(flow, side, segment, outcome.verdict, open);
        if let Some(since) = zero_since {
            self.spread_zero_window(index, since, segment.time);
        }
    }

    fn datagram(&mut self, packet: &Packet, index: u32, side: usize) {
        let time = packet.time.as_nanos();
        let flow = &mut self.flows[index as usize];
        let direction = side ^ usize::from(flow.initiator);
        flow.note_direction(direction);
        let mut latency = None;
        if direction == 0 {
            if flow.request == NEVER {
                flow.request = time;
            }
        } else if flow.request != NEVER {
            latency = Some(u64::try_from(time - std::mem::replace(&mut flow.request, NEVER)).unwrap_or(0));
        }
        let (place, gap) = self.place(packet, index);
        let flow = &self.flows[index as usize];
        if let Some((record, samples)) = open_record(&mut self.windows, place) {
            note(record, flow, packet, side, gap);
            record.unique_bytes += u64::from(packet.payload_length);
            if let Some(latency) = latency {
                record.respond(samples, latency);
            }
        }
    }

    /// Where the packet counts, or nowhere where its window is closed; and the gap that it ends.
    #[inline]
    fn place(&mut self, packet: &Packet, index: u32) -> (Place, Option<u64>) {
        let time = packet.time.as_nanos();
        let window = window_near(time, self.length, self.windows.back().map(|window| window.index));
        let place = self.place_in(index, window);
        let flow = &mut self.flows[index as usize];
        // A clock that stepped back makes no gap; the flow's very first packet ends none.
        let gap = flow.is_begun.then(|| u64::try_from(time - flow.last).unwrap_or(0));
        (flow.last, flow.is_begun) = (time, true);
        if place == Place::NONE {
            let is_late = window < self.closed;
            self.counts.late += u64::from(is_late);
            self.counts.crowded_out += u64::from(!is_late);
        }
        (place, gap)
    }

    /// The flow's record in a window, made where there is none yet.
    fn place_in(&mut self, index: u32, window: i64) -> Place {
        let flow = &self.flows[index as usize];
        let initiator = flow.initiator;
        let (mut later, mut place) = (Place::NONE, flow.place);
        while place.window >= window
            && let Some(record) = self.record(place)
        {
            if place.window == window && record.initiator == initiator {
                return place;
            }
            (later, place) = (place, record.other);
        }
        if window < self.closed || self.records() >= self.max_rows {
            return Place::NONE;
        }
        self.counts.reopened += u64::from(self.last_closed.is_some_and(|closed| window <= closed));
        let flow = &self.flows[index as usize];
        let record = FlowWindow::new(flow.key, initiator.into(), index, flow.first, place);
        let position = self.open(window);
        let flows = &mut self.windows[position].flows;
        flows.push(record);
        let made = Place {
            window,
            index: u32::try_from(flows.len() - 1).expect("fewer than 2^32 rows in a window"),
        };
        match self.record(later) {
            Some(record) => record.other = made,
            None => self.flows[index as usize].place = made,
        }
        made
    }

    /// Position of an open window, opened where it was not.
    fn open(&mut self, index: i64) -> usize {
        let position = self.windows.partition_point(|window| window.index < index);
        if self.windows.get(position).is_none_or(|window| window.index != index) {
            let flows = Vec::with_capacity(self.rows_before.min(EXPECTED_ROWS));
            self.windows.insert(position, ShardWindow { index, flows, ..ShardWindow::default() });
        }
        position
    }

    fn window(&mut self, index: i64) -> Option<&mut ShardWindow> {
        window_of(&mut self.windows, index)
    }

    fn record(&mut self, place: Place) -> Option<&mut FlowWindow> {
        self.window(place.window)?.flows.get_mut(place.index as usize)
    }

    fn end_zero_window(&mut self, index: u32, side: usize, time: i64) {
        let since = std::mem::replace(&mut self.flows[index as usize].zero_since[side], NEVER);
        if since != NEVER {
            self.spread_zero_window(index, since, time);
        }
    }

    /// Adds a zero-window period to the flow's records in the windows that it touches.
    fn spread_zero_window(&mut self, index: u32, since: i64, until: i64) {
        let (mut place, length) = (self.flows[index as usize].place, self.length);
        while let Some(record) = self.record(place) {
            record.zero_window += overlap(since, until, place.window, length);
            place = record.other;
        }
    }

    /// Begins, prolongs or ends the time in which the flow counts as half open.
    fn follow_handshake(&mut self, index: u32, segment: &Segment) {
        let flow = &mut self.flows[index as usize];
        if !flow.is_half_open() {
            if flow.half_open[0] != NEVER {
                self.end_half_open(index, segment.time);
            }
            return;
        }
        if !segment.is_syn() {
            return;
        }
        let [from, last] = flow.half_open;
        if from != NEVER && segment.time - last > HALF_OPEN {
            self.end_half_open(index, segment.time);
        }
        let flow = &mut self.flows[index as usize];
        if flow.half_open[0] == NEVER {
            flow.half_open[0] = segment.time;
        }
        flow.half_open[1] = segment.time;
        if !flow.is_listed_half_open {
            flow.is_listed_half_open = true;
            self.half_open.push(index);
        }
    }

    /// Keeps the period for the window ends that lie in it.
    fn end_half_open(&mut self, index: u32, time: i64) {
        let flow = &mut self.flows[index as usize];
        let [from, last] = std::mem::replace(&mut flow.half_open, [NEVER; 2]);
        let to = time.min(last.saturating_add(HALF_OPEN));
        if from != NEVER && from.div_euclid(self.length) != to.div_euclid(self.length) {
            let endpoint = flow.key.endpoint(1 - usize::from(flow.initiator));
            self.half_open_past.push(HalfOpen { endpoint, from, to });
        }
    }

    /// The flow's record in an open window.
    fn find(&self, routed: &Routed, window: i64) -> Option<(u32, Place)> {
        let index = self.index(routed)?;
        let mut place = self.flows[index as usize].place;
        while place.window > window {
            place = self.peek(place)?.other;
        }
        (place.window == window && self.peek(place).is_some()).then_some((index, place))
    }

    fn peek(&self, place: Place) -> Option<&FlowWindow> {
        let position = self.windows.binary_search_by_key(&place.window, |window| window.index).ok()?;
        self.windows[position].flows.get(place.index as usize)
    }

    pub fn has_record(&self, routed: &Routed, window: i64) -> bool {
        self.find(routed, window).is_some()
    }

    /// What else is known of a flow in an open window; nothing where it has no packets there.
    pub fn application(&mut self, routed: &Routed, window: i64) -> Option<&mut Application> {
        let (_, place) = self.find(routed, window)?;
        let window = self.window(place.window)?;
        let record = window.flows.get_mut(place.index as usize)?;
        if record.application == u32::MAX {
            record.application = u32::try_from(window.applications.len()).ok()?;
            window.applications.push(Application::default());
        }
        window.applications.get_mut(record.application as usize)
    }

    /// The initiators of the flows in an open window, and the flows' keys.
    pub fn initiators(&self, window: i64) -> impl Iterator<Item = (EndpointKey, Key)> + '_ {
        let position = self.windows.binary_search_by_key(&window, |window| window.index).ok();
        let flows = position.map_or(&[][..], |position| &self.windows[position].flows);
        flows.iter().map(|record| (record.key.endpoint(record.initiator.into()), record.key))
    }

    /// Number of records in all open windows.
    pub fn records(&self) -> usize {
        self.windows.iter().map(|window| window.flows.len()).sum()
    }

    /// Takes a window out. `seen` is the latest time of any event: nothing is known of what
    /// came after it. `take_no_more` refuses packets that would open the window again.
    pub fn close(&mut self, index: i64, seen: i64, take_no_more: bool) -> (ShardWindow, Endpoints) {
        if take_no_more {
            self.closed = self.closed.max(index + 1);
        }
        self.last_closed = self.last_closed.max(Some(index));
        let mut window = match self.windows.iter().position(|window| window.index == index) {
            Some(position) => self.windows.remove(position).unwrap_or_default(),
            None => ShardWindow { index, ..ShardWindow::default() },
        };
        let mut endpoints = Endpoints::default();
        for record in &mut window.flows {
            self.finish(record, &window.applications, index, seen);
            add_to_endpoint(&mut endpoints, record);
        }
        self.count_half_open((index + 1) * self.length, &mut endpoints);
        self.rows_before = window.flows.len();
        (window, endpoints)
    }

    /// A zero window that still lasts counts until the window's end; a protocol once detected stays so.
    fn finish(&mut self, record: &mut FlowWindow, applications: &[Application], index: i64, seen: i64) {
        let known = applications.get(record.application as usize);
        record.protocol = known.and_then(|application| application.protocol);
        if let Some(flow) = self.flows.get_mut(record.flow as usize) {
            flow.protocol = flow.protocol.max(record.protocol);
            record.protocol = flow.protocol;
            for since in flow.zero_since {
                if since != NEVER {
                    record.zero_window += overlap(since, seen, index, self.length);
                }
            }
        }
    }

    /// Adds the handshakes that are under way at `end`, and forgets those that can count no more.
    fn count_half_open(&mut self, end: i64, endpoints: &mut Endpoints) {
        self.half_open_past.retain(|past| {
            if past.from < end && end <= past.to {
                endpoints.entry(past.endpoint).half_open += 1;
            }
            past.to > end
        });
        let flows = &mut self.flows;
        self.half_open.retain(|index| {
            let flow = &mut flows[*index as usize];
            let [from, last] = flow.half_open;
            if from != NEVER && from < end && end <= last + HALF_OPEN {
                let endpoint = flow.key.endpoint(1 - usize::from(flow.initiator));
                endpoints.entry(endpoint).half_open += 1;
            }
            // A flow listed by the one that had its place before it is listed no less.
            flow.is_listed_half_open = from != NEVER && end < last + HALF_OPEN;
            if !flow.is_listed_half_open {
                flow.half_open = [NEVER; 2];
            }
            flow.is_listed_half_open
        });
    }
}

/// The window of a time; a division is spared where it is the one that is probable.
#[inline]
pub fn window_near(time: i64, length: i64, probable: Option<i64>) -> i64 {
    match probable {
        Some(window) if (0..length).contains(&time.wrapping_sub(window.wrapping_mul(length))) => window,
        _ => time.div_euclid(length),
    }
}

/// The record at a place and its window's samples, where that window is open.
#[inline(always)]
fn open_record(
    windows: &mut VecDeque<ShardWindow>,
    place: Place,
) -> Option<(&mut FlowWindow, &mut SampleStore)> {
    let window = window_of(windows, place.window)?;
    Some((window.flows.get_mut(place.index as usize)?, &mut window.samples))
}

/// Counts a packet in its flow's record.
#[inline(always)]
fn note(record: &mut FlowWindow, flow: &Flow, packet: &Packet, side: usize, gap: Option<u64>) {
    record.first = flow.first;
    record.state = flow.state();
    record.initial_rtt = flow.tcp.initial_rtt().unwrap_or(0);
    record.interface = flow.interface();
    record.count(packet, side ^ usize::from(flow.initiator), gap);
}

#[inline(always)]
fn window_of(windows: &mut VecDeque<ShardWindow>, index: i64) -> Option<&mut ShardWindow> {
    // Nearly every packet belongs to the newest window.
    let newest = windows.back()?.index;
    if newest == index {
        return windows.back_mut();
    }
    let position = windows.binary_search_by_key(&index, |window| window.index).ok()?;
    windows.get_mut(position)
}

fn add_to_endpoint(endpoints: &mut Endpoints, record: &FlowWindow) {
    let counts = &record.segments;
    if counts.syn == 0 && counts.syn_ack == 0 && counts.rst == 0 {
        return;
    }
    let endpoint = endpoints.entry(record.key.endpoint(1 - usize::from(record.initiator)));
    endpoint.syn += u64::from(counts.syn);
    endpoint.syn_ack += u64::from(counts.syn_ack);
    endpoint.resets += u64::from(counts.rst > 0);
}

/// Nanoseconds of `[since, until)` that lie in a window.
fn overlap(since: i64, until: i64, window: i64, length: i64) -> u64 {
    let start = window * length;
    u64::try_from(until.min(start + length) - since.max(start)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a flow takes while it is remembered, with its record in one open window, and no samples.
    #[test]
    fn a_flow_takes_less_than_a_kibibyte() {
        let in_tables = 2 * size_of::<Slot>() + size_of::<Reverse<(u64, u32)>>();
        let whole = size_of::<Flow>() + size_of::<FlowWindow>() + size_of::<InFlight>() + in_tables;
        assert!(whole < 1024, "{whole} bytes");
    }
}
