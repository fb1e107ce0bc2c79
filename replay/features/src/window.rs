//! What one flow did in one window.

use event::{Fragment, Packet, TcpFlags};

use crate::application::Protocol;
use crate::key::Key;
use crate::samples::{Moments, SampleStore, Samples};
use crate::tcp::Verdict;

/// Where a flow stands in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionState {
    #[default]
    New,
    Established,
    Closing,
    Closed,
}

impl ConnectionState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Established => "ESTABLISHED",
            Self::Closing => "CLOSING",
            Self::Closed => "CLOSED",
        }
    }
}

/// Wire packets and their layer 3 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

/// Counts of segments by flag and verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentCounts {
    pub retransmitted: u32,
    pub out_of_order: u32,
    pub zero_window: u32,
    pub syn: u32,
    pub syn_ack: u32,
    pub fin: u32,
    pub rst: u32,
    pub psh: u32,
    pub ack: u32,
    pub urg: u32,
    pub ece: u32,
    pub cwr: u32,
    pub longest_retransmission_run: u32,
}

/// Identifies a flow's record in a window: the window's index and the place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub window: i64,
    pub index: u32,
}

impl Place {
    /// No record.
    pub const NONE: Self = Self { window: i64::MIN, index: u32::MAX };
}

/// What one flow did in one window. Complete in itself: a row is made from it alone, with what its endpoint
/// and its node did.
#[derive(Clone, Debug)]
pub struct FlowWindow {
    pub key: Key,
    /// The side of the key that opened the flow: its `src`.
    pub initiator: u8,
    pub state: ConnectionState,
    pub last_gap_known: bool,
    /// The flow in its shard, or `u32::MAX` where the flow was closed early.
    pub flow: u32,
    /// Interface of the flow's primary tap.
    pub interface: Option<u32>,
    /// What else is known of it: a place in the window's applications, or `u32::MAX`.
    pub application: u32,
    /// The application protocol, as far as known by the window's end.
    pub protocol: Option<Protocol>,
    /// The flow's record in another window.
    pub other: Place,

    /// The flow's first packet ever, in ns.
    pub first: i64,
    /// Its last packet in this window, in ns.
    pub last: i64,
    /// By direction: from the initiator, and back.
    pub traffic: [Traffic; 2],
    /// Sum of squares of the wire packets' layer 3 lengths.
    pub squares: u128,
    pub smallest: u32,
    pub largest: u32,
    /// Packets that are a retransmission, out of order, zero-window, RST or a fragment.
    pub errors: u32,
    pub segments: SegmentCounts,
    /// In ns.
    pub zero_window: u64,
    pub unique_bytes: u64,

    /// Gaps that end in this window, in ns.
    pub gaps: Moments,
    pub last_gap: u64,
    /// Differences of successive gaps, in ns.
    pub jitter: Moments,
    /// Response times, in ns.
    pub latency: Moments,
    pub samples: Samples,
    /// The handshake's round-trip time in ns, 0 where it was not seen.
    pub initial_rtt: i64,
    /// From the first packet to the FIN or RST that completed the flow, in ns; -1 where it did not here.
    pub completion: i64,
}

impl FlowWindow {
    pub fn new(key: Key, initiator: usize, flow: u32, first: i64, other: Place) -> Self {
        Self {
            key,
            initiator: u8::from(initiator != 0),
            state: ConnectionState::New,
            last_gap_known: false,
            flow,
            interface: None,
            application: u32::MAX,
            protocol: None,
            other,
            first,
            last: first,
            traffic: [Traffic::default(); 2],
            squares: 0,
            smallest: u32::MAX,
            largest: 0,
            errors: 0,
            segments: SegmentCounts::default(),
            zero_window: 0,
            unique_bytes: 0,
            gaps: Moments::default(),
            last_gap: 0,
            jitter: Moments::default(),
            latency: Moments::default(),
            samples: Samples::default(),
            initial_rtt: 0,
            completion: -1,
        }
    }

    /// Counts a packet sent by the initiator (`direction` 0) or by its peer (1), `gap` ns after the flow's
    /// packet before it.
    pub fn count(&mut self, packet: &Packet, direction: usize, gap: Option<u64>) {
        let segments = u64::from(packet.gso_segments.max(1));
        let bytes = packet.wire_length();
        let traffic = &mut self.traffic[direction];
        traffic.packets += segments;
        traffic.bytes += bytes;
        self.measure(packet, segments, bytes);
        self.last = self.last.max(packet.time.as_nanos());
        if let Some(gap) = gap {
            self.gaps.add(gap);
            if self.last_gap_known {
                self.jitter.add(gap.abs_diff(self.last_gap));
            }
            (self.last_gap, self.last_gap_known) = (gap, true);
        }
        if packet.fragment != Fragment::Whole {
            self.errors += u32::from(packet.gso_segments.max(1));
        }
    }

    /// The sizes of the wire packets that a packet stands for: all but the last are full.
    fn measure(&mut self, packet: &Packet, segments: u64, bytes: u64) {
        let (full, last) = if segments > 1 {
            let full = u64::from(packet.header_length()) + u64::from(packet.gso_size);
            (full, bytes.saturating_sub(full * (segments - 1)))
        } else {
            (bytes, bytes)
        };
        let square = |length: u64| u128::from(length) * u128::from(length);
        self.squares += square(full) * u128::from(segments - 1) + square(last);
        for length in [full, last] {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            self.smallest = self.smallest.min(length);
            self.largest = self.largest.max(length);
        }
    }

    /// Counts what a TCP segment's flags and verdict say. A super-packet's segments share what holds for all
    /// of them; FIN, PSH and CWR stand on one alone.
    pub fn count_segment(&mut self, packet: &Packet, flags: TcpFlags, verdict: Verdict, run: u32) {
        let segments = u32::from(packet.gso_segments.max(1));
        let each = |set: bool| if set { segments } else { 0 };
        let once = |set: bool| u32::from(set);
        let (has_syn, has_ack) = (flags.contains(TcpFlags::SYN), flags.contains(TcpFlags::ACK));
        let retransmitted = verdict.intersects(Verdict::ANY_RETRANSMISSION);
        let out_of_order = verdict.intersects(Verdict::OUT_OF_ORDER);
        let zero_window = verdict.intersects(Verdict::ZERO_WINDOW);
        let rst = flags.contains(TcpFlags::RST);
        let counts = &mut self.segments;
        counts.retransmitted += each(retransmitted);
        counts.out_of_order += each(out_of_order);
        counts.zero_window += each(zero_window);
        counts.syn += once(has_syn && !has_ack);
        counts.syn_ack += once(has_syn && has_ack);
        counts.fin += once(flags.contains(TcpFlags::FIN));
        counts.rst += once(rst);
        counts.psh += once(flags.contains(TcpFlags::PSH));
        counts.ack += each(has_ack);
        counts.urg += once(flags.contains(TcpFlags::URG));
        counts.ece += each(flags.contains(TcpFlags::ECE));
        counts.cwr += once(flags.contains(TcpFlags::CWR));
        counts.longest_retransmission_run = counts.longest_retransmission_run.max(run);
        if packet.fragment == Fragment::Whole {
            self.errors += each(retransmitted || out_of_order || zero_window || rst);
        }
    }

    pub fn respond(&mut self, store: &mut SampleStore, latency: u64) {
        self.latency.add(latency);
        store.add(&mut self.samples, latency);
    }

    pub fn packets(&self) -> u64 {
        self.traffic[0].packets + self.traffic[1].packets
    }

    pub fn bytes(&self) -> u64 {
        self.traffic[0].bytes + self.traffic[1].bytes
    }

    /// Population variance of the wire packets' lengths.
    pub fn size_variance(&self) -> f64 {
        let (n, sum) = (u128::from(self.packets()), u128::from(self.bytes()));
        (n * self.squares).saturating_sub(sum * sum) as f64 / (n * n) as f64
    }
}
