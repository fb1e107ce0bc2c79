//! The state of one flow that outlives its windows.

use event::{Direction, Packet, Tap, TcpFlags};

use crate::application::Protocol;
use crate::key::Key;
use crate::tcp::{Analysis, NEVER, Segment, Verdict, at_or_before};
use crate::window::{ConnectionState, Place};

/// What was seen of a TCP connection's life, as bits of [`Flow::life`].
mod life {
    pub const SYN: u16 = 1;
    pub const SYN_ACK: u16 = 1 << 1;
    pub const ESTABLISHED: u16 = 1 << 2;
    pub const RST: u16 = 1 << 3;
    pub const COMPLETED: u16 = 1 << 4;
    /// Shifted by the side.
    pub const DATA: u16 = 1 << 8;
    pub const FIN: u16 = 1 << 10;
    pub const FIN_ACKED: u16 = 1 << 12;
    pub const BOTH_DATA: u16 = DATA | DATA << 1;
    pub const BOTH_FINS: u16 = FIN | FIN << 1;
    pub const BOTH_ACKED: u16 = FIN_ACKED | FIN_ACKED << 1;
}

/// No observation point yet.
const NO_TAP: u32 = u32::MAX;
/// No [`crate::latency::InFlight`] pair.
pub const NO_SLOT: u32 = u32::MAX;

/// One flow. All times are in ns of Unix time.
#[derive(Clone, Debug)]
pub struct Flow {
    pub key: Key,
    pub tcp: Analysis,
    pub first: i64,
    pub last: i64,
    /// Its record in the latest window it was counted in; the others follow from there, latest first.
    pub place: Place,
    /// Since when each side advertises a zero window, or [`NEVER`].
    pub zero_since: [i64; 2],
    /// First and last SYN of a handshake that is under way, or [`NEVER`].
    pub half_open: [i64; 2],
    /// The oldest request that nothing came back for, of a flow that is not TCP, or [`NEVER`].
    pub request: i64,
    /// Order of its last packet among all packets of its shard.
    pub touched: u64,
    fin_end: [u32; 2],
    /// Retransmitted segments since the last new data, by side.
    pub retransmission_run: [u32; 2],
    /// The observation point that counts, by side.
    taps: [u32; 2],
    /// Its pair of `InFlight` in the shard's slab.
    pub in_flight: u32,
    /// Tells the flows that had one place, one after the other, apart.
    pub birth: u32,
    life: u16,
    /// The application protocol that was detected.
    pub protocol: Option<Protocol>,
    pub initiator: u8,
    pub is_listed_half_open: bool,
    pub is_begun: bool,
    /// Closed early: its place in the table is free.
    pub is_closed: bool,
    is_answered: bool,
}

impl Flow {
    pub fn new(key: Key, packet: &Packet, side: usize, birth: u32) -> Self {
        let time = packet.time.as_nanos();
        Self {
            key,
            tcp: Analysis::default(),
            first: time,
            last: time,
            place: Place::NONE,
            zero_since: [NEVER; 2],
            half_open: [NEVER; 2],
            request: NEVER,
            touched: 0,
            fin_end: [0; 2],
            retransmission_run: [0; 2],
            taps: [NO_TAP; 2],
            in_flight: NO_SLOT,
            birth,
            life: 0,
            protocol: None,
            initiator: u8::from(initiator(&key, packet, side) != 0),
            is_listed_half_open: false,
            is_begun: false,
            is_closed: false,
            is_answered: false,
        }
    }

    /// Whether the packet passed the observation point that counts for its direction: the first that saw it.
    /// A node sees one packet at several interfaces, and on its way out of and into the same one (loopback). Where
    /// the recorder said which it was, that holds: it saw what came before this file, and what went away.
    pub fn is_primary_tap(&mut self, packet: &Packet, side: usize) -> bool {
        if packet.direction == Direction::Unknown {
            return true;
        }
        if packet.tap == Tap::Secondary {
            return false;
        }
        let tap = packet.interface << 1 | u32::from(packet.direction == Direction::Egress);
        if self.taps[side] == NO_TAP || packet.tap == Tap::Primary {
            self.taps[side] = tap;
        }
        self.taps[side] == tap
    }

    /// Interface of the primary tap, where the packets tell one.
    pub fn interface(&self) -> Option<u32> {
        self.taps.iter().find(|tap| **tap != NO_TAP).map(|tap| tap >> 1)
    }

    fn has(&self, what: u16) -> bool {
        self.life & what == what
    }

    /// A new connection on the five-tuple of an old one.
    pub fn begin_again(&mut self, time: i64) {
        self.first = time;
        self.life = 0;
        self.zero_since = [NEVER; 2];
        self.retransmission_run = [0; 2];
    }

    /// The SYN's sender is the initiator, whatever was assumed before the SYN was seen.
    pub fn orient(&mut self, segment: &Segment, side: usize) {
        if self.life & (life::SYN | life::SYN_ACK) == 0 && segment.flags.contains(TcpFlags::SYN) {
            self.initiator = u8::from((side != 0) == segment.is_syn());
        }
    }

    /// Follows the connection's life; gives the time from the first packet where this segment completed it.
    pub fn follow(&mut self, segment: &Segment, side: usize) -> Option<i64> {
        let flags = segment.flags;
        if segment.is_syn() {
            self.life |= life::SYN;
        } else if segment.is_syn_ack() {
            self.life |= life::SYN_ACK;
        } else if self.has(life::SYN_ACK)
            && flags.contains(TcpFlags::ACK)
            && side == usize::from(self.initiator)
        {
            self.life |= life::ESTABLISHED;
        }
        if segment.payload > 0 {
            self.life |= life::DATA << side;
            if self.has(life::BOTH_DATA) {
                self.life |= life::ESTABLISHED;
            }
        }
        self.follow_end(segment, side)
    }

    fn follow_end(&mut self, segment: &Segment, side: usize) -> Option<i64> {
        let other = 1 - side;
        if self.has(life::FIN << other)
            && segment.flags.contains(TcpFlags::ACK)
            && at_or_before(self.fin_end[other], segment.acknowledgement)
        {
            self.life |= life::FIN_ACKED << other;
        }
        if segment.flags.contains(TcpFlags::FIN) && !self.has(life::FIN << side) {
            self.life |= life::FIN << side;
            self.fin_end[side] = segment.end();
        }
        if segment.flags.contains(TcpFlags::RST) {
            self.life |= life::RST;
        }
        let completes = self.has(life::BOTH_FINS) || self.has(life::RST);
        if !completes || self.has(life::COMPLETED) {
            return None;
        }
        self.life |= life::COMPLETED;
        Some((segment.time - self.first).max(0))
    }

    /// Whether the handshake is neither completed nor refused.
    pub fn is_half_open(&self) -> bool {
        self.life & (life::SYN | life::ESTABLISHED | life::RST) == life::SYN
    }

    /// A packet of a flow that is not TCP.
    pub fn note_direction(&mut self, direction: usize) {
        self.is_answered |= direction == 1;
    }

    pub fn state(&self) -> ConnectionState {
        if self.key.protocol() != event::Protocol::TCP {
            return if self.is_answered { ConnectionState::Established } else { ConnectionState::New };
        }
        if self.has(life::RST) || self.has(life::BOTH_ACKED) {
            ConnectionState::Closed
        } else if self.life & life::BOTH_FINS != 0 {
            ConnectionState::Closing
        } else if self.has(life::ESTABLISHED) {
            ConnectionState::Established
        } else {
            ConnectionState::New
        }
    }

    /// Follows zero windows; gives the start of one that ended with this segment.
    pub fn follow_window(&mut self, segment: &Segment, side: usize, verdict: Verdict) -> Option<i64> {
        let since = &mut self.zero_since[side];
        if verdict.intersects(Verdict::ZERO_WINDOW) {
            if *since == NEVER {
                *since = segment.time;
            }
            return None;
        }
        let ends = segment.flags.contains(TcpFlags::RST)
            || segment.flags.contains(TcpFlags::ACK) && segment.window != 0;
        (ends && *since != NEVER).then(|| std::mem::replace(since, NEVER))
    }
}

/// The side that opened the flow, judged by its first packet.
fn initiator(key: &Key, packet: &Packet, side: usize) -> usize {
    match packet.tcp.map(|tcp| tcp.flags) {
        Some(flags) if flags.contains(TcpFlags::SYN) => {
            if flags.contains(TcpFlags::ACK) {
                1 - side
            } else {
                side
            }
        }
        _ => key.initiator_by_port().unwrap_or(side),
    }
}
