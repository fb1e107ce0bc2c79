//! What the packets before foretell of the next one: the same state, kept alike by encoder and decoder.

use event::{Endpoint, Protocol, Tcp, TcpFlags};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::net::IpAddr;

/// No lane.
pub(crate) const NONE: u32 = u32::MAX;

/// What is known of one lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    /// The lane of the other direction, or [`NONE`].
    pub reverse: u32,
    /// The lane that foretells this one's first packet, or [`NONE`].
    cousin: u32,
    pub shape: u32,
    /// Where the next segment starts if all goes well.
    next_sequence: u32,
    acknowledgement: u32,
    window: u16,
    timestamp_value: u32,
    timestamp_echo: u32,
    /// Time of the last timestamps option, in nanoseconds; 0 before the first.
    timestamp_time: i64,
}

impl Lane {
    const fn new(reverse: u32, cousin: u32) -> Self {
        Self {
            reverse,
            cousin,
            shape: 0,
            next_sequence: 0,
            acknowledgement: 0,
            window: 0,
            timestamp_value: 0,
            timestamp_echo: 0,
            timestamp_time: 0,
        }
    }
}

/// Adds a lane that answers the lane `reverse`, or none; `cousin` is its own, and that of an answer is the answer
/// of the answered lane's cousin.
pub(crate) fn open(lanes: &mut Vec<Lane>, reverse: u32, cousin: u32) {
    let index = lanes.len() as u32;
    let mut lane = Lane::new(reverse, cousin);
    if let Some(answered) = lanes.get(reverse as usize).copied() {
        lane.cousin = lanes.get(answered.cousin as usize).map_or(NONE, |cousin| cousin.reverse);
        lanes[reverse as usize].reverse = index;
    }
    if let Some(cousin) = lanes.get(lane.cousin as usize) {
        (lane.timestamp_value, lane.timestamp_time) = (cousin.timestamp_value, cousin.timestamp_time);
    }
    lanes.push(lane);
}

/// What is expected of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub sequence: u32,
    pub acknowledgement: u32,
    pub last_acknowledgement: u32,
    pub window: u16,
    pub timestamp_value: u32,
    pub timestamp_echo: u32,
    pub last_timestamp_echo: u32,
}

/// The expectation for the next segment of `lanes[index]` with these flags at this time.
#[inline]
pub(crate) fn expect(lanes: &[Lane], index: usize, flags: TcpFlags, time: i64) -> Expected {
    let lane = &lanes[index];
    let reverse = lanes.get(lane.reverse as usize);
    let acknowledges = flags.contains(TcpFlags::ACK);
    // Linux counts its timestamps in milliseconds.
    let elapsed =
        if lane.timestamp_time == 0 { 0 } else { time.wrapping_sub(lane.timestamp_time) / 1_000_000 };
    Expected {
        sequence: lane.next_sequence,
        acknowledgement: match reverse {
            _ if !acknowledges => 0,
            Some(reverse) => reverse.next_sequence,
            None => lane.acknowledgement,
        },
        last_acknowledgement: lane.acknowledgement,
        window: lane.window,
        timestamp_value: lane.timestamp_value.wrapping_add(elapsed as u32),
        timestamp_echo: reverse.map_or(lane.timestamp_echo, |reverse| reverse.timestamp_value),
        last_timestamp_echo: lane.timestamp_echo,
    }
}

/// Takes note of a segment.
#[inline]
pub(crate) fn learn(lanes: &mut [Lane], index: usize, tcp: &Tcp, payload_length: u32, time: i64) {
    let phantom = u32::from(tcp.flags.contains(TcpFlags::SYN)) + u32::from(tcp.flags.contains(TcpFlags::FIN));
    let lane = &mut lanes[index];
    lane.next_sequence = tcp.sequence.wrapping_add(payload_length).wrapping_add(phantom);
    lane.window = tcp.window;
    if let Some((value, echo)) = tcp.timestamps {
        (lane.timestamp_value, lane.timestamp_echo, lane.timestamp_time) = (value, echo, time);
    }
    if tcp.flags.contains(TcpFlags::ACK) {
        lane.acknowledgement = tcp.acknowledgement;
        let reverse = lane.reverse as usize;
        // The first segment of the other direction starts where this one acknowledged.
        if let Some(reverse) = lanes.get_mut(reverse)
            && reverse.next_sequence == 0
        {
            reverse.next_sequence = tcp.acknowledgement;
        }
    }
}

/// Wire packets that a payload of this length makes at this segment size.
#[inline]
pub(crate) fn segments(payload_length: u32, gso_size: u16) -> u16 {
    match gso_size {
        0 => 1,
        size => payload_length.div_ceil(u32::from(size)) as u16,
    }
}

/// Finds a new lane's cousin: the last lane before it between the same hosts to the same service. Hosts count up
/// their ports from connection to connection, and keep one timestamp clock towards each other.
#[derive(Default)]
pub(crate) struct Cousins {
    last: HashMap<(IpAddr, IpAddr, u16, Protocol), u32, RandomState>,
}

impl Cousins {
    pub fn clear(&mut self) {
        self.last.clear();
    }

    /// The cousin of `lane`, which takes its place.
    pub fn replace(&mut self, source: IpAddr, destination: Endpoint, protocol: Protocol, lane: u32) -> u32 {
        self.last.insert((source, destination.address, destination.port, protocol), lane).unwrap_or(NONE)
    }
}
