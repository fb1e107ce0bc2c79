//! Packets into columns.

use std::collections::HashMap;

use event::{Direction, Endpoint, FiveTuple, Fragment, Packet, Tap, Tcp, TcpFlags};
use foldhash::fast::RandomState;
use prost::Message as _;

use super::columns::Columns;
use super::foretell::{self, Cousins, Lane, NONE};
use crate::addresses::Numbers;
use crate::column::{put, put_signed, put_step, zigzag};
use crate::recent::Recent;

/// What distinguishes a lane.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct LaneKey {
    five_tuple: FiveTuple,
    interface: u32,
    direction: Direction,
    tap: Tap,
    ttl: u8,
}

/// What distinguishes a shape.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ShapeKey {
    header_length: u32,
    fragment: Fragment,
    gso_size: u16,
    flags: Option<TcpFlags>,
    window_scale: Option<u8>,
    timestamps: bool,
}

impl ShapeKey {
    fn of(packet: &Packet) -> Self {
        Self {
            header_length: packet.l3_length.wrapping_sub(packet.payload_length),
            fragment: packet.fragment,
            gso_size: packet.gso_size,
            flags: packet.tcp.map(|tcp| tcp.flags),
            window_scale: packet.tcp.and_then(|tcp| tcp.window_scale),
            timestamps: packet.tcp.is_some_and(|tcp| tcp.timestamps.is_some()),
        }
    }
}

/// Collects packets until their batch is taken. The maps are only ever looked up, so their order is no part
/// of the output.
#[derive(Default)]
pub(crate) struct Encoder {
    columns: Columns,
    lanes: Vec<Lane>,
    /// Each lane's source port.
    ports: Vec<u16>,
    lane_of: HashMap<LaneKey, u32, RandomState>,
    /// The latest lane of each five-tuple: its reverse is looked up here.
    lane_of_tuple: HashMap<FiveTuple, u32, RandomState>,
    recent: Recent,
    cousins: Cousins,
    addresses: Numbers,
    shape_of: HashMap<ShapeKey, u32, RandomState>,
    times: Vec<i64>,
    last_time: i64,
    /// The arrival that the packets of the current run share, and their number.
    arrival: i64,
    arrival_run: u32,
    last_arrival: i64,
    /// Whether any packet's arrival differs from its time.
    is_late: bool,
}

impl Encoder {
    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn push(&mut self, packet: &Packet) {
        self.push_time(packet);
        self.push_arrival(packet);
        let lane = self.push_lane(packet);
        self.push_shape(packet, lane);
        put(&mut self.columns.payload_length, packet.payload_length.into());
        let segments = foretell::segments(packet.payload_length, packet.gso_size);
        put_signed(
            &mut self.columns.gso_segments,
            i64::from(packet.gso_segments.wrapping_sub(segments) as i16),
        );
        if let Some(tcp) = &packet.tcp {
            self.push_tcp(tcp, lane, packet);
        }
    }

    /// The message, with the encoder empty for the next batch.
    pub fn take(&mut self) -> Vec<u8> {
        self.columns.count = self.times.len() as u32;
        self.columns.lanes = self.lanes.len() as u32;
        self.columns.shapes = self.shape_of.len() as u32;
        // Capture files often tell microseconds: three decimal digits that need not be stored.
        let unit = if self.times.iter().all(|step| step % 1000 == 0) { 1000 } else { 1 };
        self.columns.time_unit = if unit == 1 { 0 } else { 1000 };
        for step in &self.times {
            let Columns { time_high, time_middle, time_low, .. } = &mut self.columns;
            put_step([time_high, time_middle, time_low], step / unit);
        }
        if self.is_late {
            self.end_arrival_run();
        } else {
            self.columns.arrival.clear();
            self.columns.arrival_run.clear();
        }
        self.columns.trim();
        let message = self.columns.encode_to_vec();
        self.clear();
        message
    }

    fn clear(&mut self) {
        self.columns.clear();
        self.lanes.clear();
        self.ports.clear();
        self.lane_of.clear();
        self.lane_of_tuple.clear();
        self.recent.clear();
        self.cousins.clear();
        self.addresses.clear();
        self.shape_of.clear();
        self.times.clear();
        self.arrival_run = 0;
        self.is_late = false;
    }

    fn push_time(&mut self, packet: &Packet) {
        let time = packet.time.as_nanos();
        if self.times.is_empty() {
            (self.columns.base_time, self.last_time, self.last_arrival) = (time, time, time);
        }
        self.times.push(time.wrapping_sub(self.last_time));
        self.last_time = time;
    }

    fn push_arrival(&mut self, packet: &Packet) {
        let arrival = packet.arrival.as_nanos();
        self.is_late |= packet.arrival != packet.time;
        if self.arrival_run > 0 && arrival != self.arrival {
            self.end_arrival_run();
        }
        self.arrival = arrival;
        self.arrival_run += 1;
    }

    fn end_arrival_run(&mut self) {
        put(&mut self.columns.arrival_run, self.arrival_run.into());
        put_signed(&mut self.columns.arrival, self.arrival.wrapping_sub(self.last_arrival));
        self.last_arrival = self.arrival;
        self.arrival_run = 0;
    }

    fn push_lane(&mut self, packet: &Packet) -> usize {
        let key = LaneKey {
            five_tuple: packet.five_tuple,
            interface: packet.interface,
            direction: packet.direction,
            tap: packet.tap,
            ttl: packet.ttl,
        };
        let Some(&lane) = self.lane_of.get(&key) else {
            return self.add_lane(key);
        };
        let code = match self.recent.rank(lane) {
            Some(rank) => {
                self.recent.promote(rank);
                rank as u64 + 1
            }
            None => {
                self.recent.insert(lane);
                u64::from(lane) + 1 + Recent::MOST as u64
            }
        };
        put(&mut self.columns.lane, code);
        lane as usize
    }

    fn add_lane(&mut self, key: LaneKey) -> usize {
        put(&mut self.columns.lane, 0);
        let lane = self.lanes.len() as u32;
        let reverse = self.lane_of_tuple.get(&key.five_tuple.reversed()).copied();
        let mut cousin = NONE;
        match reverse {
            Some(reverse) => put(&mut self.columns.lane_reverse, (lane - reverse).into()),
            None => {
                put(&mut self.columns.lane_reverse, 0);
                let Columns { ipv4, ipv6, .. } = &mut self.columns;
                let source = self.addresses.number(key.five_tuple.source.address, ipv4, ipv6);
                let destination = self.addresses.number(key.five_tuple.destination.address, ipv4, ipv6);
                put(&mut self.columns.lane_source, source.into());
                put(&mut self.columns.lane_destination, destination.into());
                let FiveTuple { source: Endpoint { address, port }, destination, protocol } = key.five_tuple;
                cousin = self.cousins.replace(address, destination, protocol, lane);
                let cousin_port = self.ports.get(cousin as usize).copied().unwrap_or(0);
                put_signed(&mut self.columns.lane_source_port, i64::from(port) - i64::from(cousin_port));
                put(&mut self.columns.lane_destination_port, key.five_tuple.destination.port.into());
                put(&mut self.columns.lane_protocol, key.five_tuple.protocol.0.into());
            }
        }
        put(&mut self.columns.lane_interface, key.interface.into());
        let direction = match key.direction {
            Direction::Unknown => 0,
            Direction::Ingress => 1,
            Direction::Egress => 2,
        };
        put(&mut self.columns.lane_direction, direction);
        put(&mut self.columns.lane_ttl, key.ttl.into());
        let tap = match key.tap {
            Tap::Unknown => 0,
            Tap::Primary => 1,
            Tap::Secondary => 2,
        };
        put(&mut self.columns.lane_tap, tap);
        foretell::open(&mut self.lanes, reverse.unwrap_or(NONE), cousin);
        self.ports.push(key.five_tuple.source.port);
        self.recent.insert(lane);
        self.lane_of.insert(key, lane);
        self.lane_of_tuple.insert(key.five_tuple, lane);
        lane as usize
    }

    fn push_shape(&mut self, packet: &Packet, lane: usize) {
        let key = ShapeKey::of(packet);
        let fresh = self.shape_of.len() as u32;
        let columns = &mut self.columns;
        let shape = *self.shape_of.entry(key).or_insert_with(|| {
            put(&mut columns.shape_header_length, key.header_length.into());
            let fragment = match key.fragment {
                Fragment::Whole => 0,
                Fragment::First => 1,
                Fragment::Later => 2,
            };
            put(&mut columns.shape_fragment, fragment);
            put(&mut columns.shape_gso_size, key.gso_size.into());
            put(&mut columns.shape_tcp_flags, key.flags.map_or(0, |flags| u64::from(flags.0) + 1));
            put(&mut columns.shape_window_scale, key.window_scale.map_or(0, |scale| u64::from(scale) + 1));
            put(&mut columns.shape_timestamps, key.timestamps.into());
            fresh
        });
        let predicted = self.lanes[lane].shape;
        put(&mut self.columns.shape, if shape == predicted { 0 } else { u64::from(shape) + 1 });
        self.lanes[lane].shape = shape;
    }

    fn push_tcp(&mut self, tcp: &Tcp, lane: usize, packet: &Packet) {
        let time = packet.time.as_nanos();
        let expected = foretell::expect(&self.lanes, lane, tcp.flags, time);
        let columns = &mut self.columns;
        put_signed(&mut columns.sequence, difference(tcp.sequence, expected.sequence));
        put_unless_expected(
            &mut columns.acknowledgement,
            tcp.acknowledgement,
            expected.acknowledgement,
            expected.last_acknowledgement,
        );
        put_signed(&mut columns.window, i64::from(tcp.window) - i64::from(expected.window));
        if let Some((value, echo)) = tcp.timestamps {
            put_signed(&mut columns.timestamp_value, difference(value, expected.timestamp_value));
            put_unless_expected(
                &mut columns.timestamp_echo,
                echo,
                expected.timestamp_echo,
                expected.last_timestamp_echo,
            );
        }
        foretell::learn(&mut self.lanes, lane, tcp, packet.payload_length, time);
    }
}

/// The shorter way round from `from` to `to` on the circle of 2^32.
fn difference(to: u32, from: u32) -> i64 {
    i64::from(to.wrapping_sub(from) as i32)
}

fn put_unless_expected(column: &mut Vec<u8>, value: u32, expected: u32, last: u32) {
    put(column, if value == expected { 0 } else { zigzag(difference(value, last)) + 1 });
}
