//! TCP sequence analysis of one connection by Wireshark's rules (its 4.0 series), with sequence numbers
//! compared modulo 2^32 throughout and a fixed amount of memory.

use event::{Tcp, TcpFlags};

/// Out-of-order threshold where the handshake was not seen, in ns.
const DEFAULT_OUT_OF_ORDER: i64 = 3_000_000;
/// A fast retransmission follows its duplicate ACK within this time, in ns.
const FAST_RETRANSMISSION: i64 = 20_000_000;

/// A time that has not come: the Unix epoch itself is a time that captures have.
pub const NEVER: i64 = i64::MIN;

/// `a < b` in 32-bit serial arithmetic.
pub const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// `a <= b` in 32-bit serial arithmetic.
pub const fn at_or_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) <= 0
}

/// What the analysis says of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict(pub u16);

impl Verdict {
    /// Neither fast nor spurious.
    pub const RETRANSMISSION: Self = Self(1);
    pub const FAST_RETRANSMISSION: Self = Self(1 << 1);
    pub const SPURIOUS_RETRANSMISSION: Self = Self(1 << 2);
    pub const OUT_OF_ORDER: Self = Self(1 << 3);
    pub const ZERO_WINDOW: Self = Self(1 << 4);
    pub const ZERO_WINDOW_PROBE: Self = Self(1 << 5);
    pub const ZERO_WINDOW_PROBE_ACK: Self = Self(1 << 6);
    pub const KEEP_ALIVE: Self = Self(1 << 7);
    pub const KEEP_ALIVE_ACK: Self = Self(1 << 8);
    pub const LOST_SEGMENT: Self = Self(1 << 9);
    pub const WINDOW_UPDATE: Self = Self(1 << 10);
    pub const WINDOW_FULL: Self = Self(1 << 11);
    pub const DUPLICATE_ACK: Self = Self(1 << 12);
    /// The segment began a new connection on a five-tuple that had one.
    pub const PORTS_REUSED: Self = Self(1 << 13);
    /// A retransmission of any kind: Wireshark's `tcp.analysis.retransmission`.
    pub const ANY_RETRANSMISSION: Self =
        Self(Self::RETRANSMISSION.0 | Self::FAST_RETRANSMISSION.0 | Self::SPURIOUS_RETRANSMISSION.0);

    /// Whether any of `others` is set.
    pub const fn intersects(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    const fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A segment as the analysis reads it.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Nanoseconds of any epoch.
    pub time: i64,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub window: u16,
    pub flags: TcpFlags,
    pub window_scale: Option<u8>,
    pub payload: u32,
}

impl Segment {
    pub fn new(time: i64, tcp: &Tcp, payload: u32) -> Self {
        Self {
            time,
            sequence: tcp.sequence,
            acknowledgement: tcp.acknowledgement,
            window: tcp.window,
            flags: tcp.flags,
            window_scale: tcp.window_scale,
            payload,
        }
    }

    /// Sequence number after payload, SYN and FIN.
    pub fn end(&self) -> u32 {
        let control = TcpFlags(TcpFlags::SYN.0 | TcpFlags::FIN.0);
        self.sequence.wrapping_add(self.payload).wrapping_add(u32::from(self.flags.intersects(control)))
    }

    /// SYN without ACK.
    pub fn is_syn(&self) -> bool {
        self.flags.contains(TcpFlags::SYN) && !self.flags.contains(TcpFlags::ACK)
    }

    /// SYN with ACK.
    pub fn is_syn_ack(&self) -> bool {
        self.flags.contains(TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0))
    }
}

/// What is known of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    /// When `next_sequence` last advanced, in ns.
    advanced: i64,
    /// Time of the last segment of this direction, in ns.
    last_acked: i64,
    /// Highest sequence end seen, where `HAS_NEXT`.
    next_sequence: u32,
    /// The last acknowledgement sent, where `HAS_ACK`.
    last_ack: u32,
    /// Initial sequence number, where `HAS_BASE`.
    base: u32,
    /// Lowest sequence number that was jumped over and not seen since, where `missing` > 0.
    hole: u32,
    /// Bytes that were jumped over and not seen since.
    missing: u32,
    /// The last window, unscaled.
    window: u16,
    duplicate_acks: u16,
    /// Window scale of the handshake, where `HAS_SCALE`.
    scale: u8,
    known: u8,
}

const HAS_NEXT: u8 = 1;
const HAS_ACK: u8 = 1 << 1;
const HAS_BASE: u8 = 1 << 2;
const HAS_SCALE: u8 = 1 << 3;
/// The direction's last segment was a keep-alive.
const LAST_KEEP_ALIVE: u8 = 1 << 4;
/// The direction's last segment was a zero-window probe.
const LAST_PROBE: u8 = 1 << 5;

impl Half {
    const fn knows(&self, what: u8) -> bool {
        self.known & what != 0
    }
}

/// The state of one connection's analysis.
#[derive(Clone, Copy, Debug)]
pub struct Analysis {
    halves: [Half; 2],
    /// Time of the last SYN, in ns, or [`NEVER`].
    syn: i64,
    /// In ns; 0 where the handshake was not seen.
    initial_rtt: i64,
}

/// What one segment brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Payload bytes that were not seen before.
    pub new_bytes: u32,
}

impl Default for Analysis {
    fn default() -> Self {
        Self { halves: Default::default(), syn: NEVER, initial_rtt: 0 }
    }
}

impl Analysis {
    /// First SYN to the ACK that completes the handshake, in ns.
    pub fn initial_rtt(&self) -> Option<i64> {
        (self.initial_rtt > 0).then_some(self.initial_rtt)
    }

    /// The last acknowledgement that `side` sent.
    pub fn last_ack(&self, side: usize) -> Option<u32> {
        let half = &self.halves[side];
        half.knows(HAS_ACK).then_some(half.last_ack)
    }

    /// Takes in the next segment, sent by `side` (0 or 1).
    pub fn segment(&mut self, side: usize, segment: &Segment) -> Outcome {
        let mut verdict = Verdict::default();
        if segment.is_syn() && self.halves[side].knows(HAS_BASE) && self.halves[side].base != segment.sequence
        {
            *self = Self::default();
            verdict.set(Verdict::PORTS_REUSED);
        }
        self.note_handshake(side, segment);
        let (forward, reverse) = self.split(side);
        note_bases(forward, reverse, segment);
        let finished = judge_window(&mut verdict, forward, reverse, segment);
        if !finished && is_duplicate_ack(forward, segment) {
            forward.duplicate_acks = forward.duplicate_acks.saturating_add(1);
            verdict.set(Verdict::DUPLICATE_ACK);
        }
        if segment.acknowledgement != forward.last_ack {
            forward.duplicate_acks = 0;
        }
        let threshold = if self.initial_rtt > 0 { self.initial_rtt } else { DEFAULT_OUT_OF_ORDER };
        let (forward, reverse) = self.split(side);
        judge_sequence(&mut verdict, forward, reverse, segment, threshold);
        let new_bytes = account(forward, segment, verdict);
        advance(forward, segment, verdict);
        Outcome { verdict, new_bytes }
    }

    fn split(&mut self, side: usize) -> (&mut Half, &mut Half) {
        let [first, second] = &mut self.halves;
        if side == 0 { (first, second) } else { (second, first) }
    }

    fn note_handshake(&mut self, side: usize, segment: &Segment) {
        if segment.flags.contains(TcpFlags::SYN) {
            if let Some(scale) = segment.window_scale {
                let half = &mut self.halves[side];
                half.scale = scale.min(14);
                half.known |= HAS_SCALE;
            }
            // As in Wireshark, the epoch itself is the time of a packet without one: it times nothing.
            if !segment.flags.contains(TcpFlags::ACK) && segment.time != 0 {
                self.syn = segment.time;
            }
        } else if self.initial_rtt == 0 && self.syn != NEVER && segment.flags.contains(TcpFlags::ACK) {
            self.initial_rtt = segment.time - self.syn;
        }
    }
}

/// Learns the initial sequence numbers from SYN, or from the first segments seen.
fn note_bases(forward: &mut Half, reverse: &mut Half, segment: &Segment) {
    let syn = segment.flags.contains(TcpFlags::SYN);
    if !forward.knows(HAS_BASE) {
        forward.base = if syn { segment.sequence } else { segment.sequence.wrapping_sub(1) };
        forward.known |= HAS_BASE;
    }
    if !reverse.knows(HAS_BASE) && segment.flags.contains(TcpFlags::ACK) {
        reverse.base = segment.acknowledgement.wrapping_sub(1);
        reverse.known |= HAS_BASE;
    }
}

fn is_control(segment: &Segment) -> bool {
    segment.flags.intersects(TcpFlags(TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0))
}

/// Judges windows, probes and keep-alives; true where nothing about duplicate ACKs remains to be judged.
fn judge_window(verdict: &mut Verdict, forward: &Half, reverse: &Half, segment: &Segment) -> bool {
    let plain = !is_control(segment);
    let (empty, has_next) = (segment.payload == 0, forward.knows(HAS_NEXT));
    let at_next = has_next && segment.sequence == forward.next_sequence;
    let same_ack = forward.knows(HAS_ACK) && segment.acknowledgement == forward.last_ack;
    if segment.payload == 1 && at_next && reverse.knows(HAS_ACK) && reverse.window == 0 {
        verdict.set(Verdict::ZERO_WINDOW_PROBE);
        return true;
    }
    if segment.window == 0 && plain {
        verdict.set(Verdict::ZERO_WINDOW);
    }
    if has_next && before(forward.next_sequence, segment.sequence) && !segment.flags.contains(TcpFlags::RST) {
        verdict.set(Verdict::LOST_SEGMENT);
    }
    if plain && has_next && segment.payload <= 1 && segment.sequence == forward.next_sequence.wrapping_sub(1)
    {
        verdict.set(Verdict::KEEP_ALIVE);
    }
    let same_window = segment.window == forward.window;
    if plain && empty && segment.window != 0 && !same_window && at_next && same_ack {
        verdict.set(Verdict::WINDOW_UPDATE);
    }
    if plain && !empty && reverse.knows(HAS_SCALE) && reverse.knows(HAS_ACK) {
        let edge = reverse.last_ack.wrapping_add(u32::from(reverse.window) << reverse.scale);
        if segment.sequence.wrapping_add(segment.payload) == edge {
            verdict.set(Verdict::WINDOW_FULL);
        }
    }
    if plain && empty && same_window && at_next {
        if segment.window != 0 && same_ack && reverse.knows(LAST_KEEP_ALIVE) {
            verdict.set(Verdict::KEEP_ALIVE_ACK);
            return true;
        }
        let probe_acked =
            same_ack || forward.knows(HAS_ACK) && segment.acknowledgement == forward.last_ack.wrapping_add(1);
        if segment.window == 0 && probe_acked && reverse.knows(LAST_PROBE) {
            verdict.set(Verdict::ZERO_WINDOW_PROBE_ACK);
            return true;
        }
    }
    false
}

fn is_duplicate_ack(forward: &Half, segment: &Segment) -> bool {
    segment.payload == 0
        && segment.window != 0
        && segment.window == forward.window
        && forward.knows(HAS_NEXT)
        && segment.sequence == forward.next_sequence
        && forward.knows(HAS_ACK)
        && segment.acknowledgement == forward.last_ack
        && !is_control(segment)
}

/// Tells retransmissions from out-of-order segments.
fn judge_sequence(
    verdict: &mut Verdict,
    forward: &Half,
    reverse: &Half,
    segment: &Segment,
    out_of_order: i64,
) {
    let carries =
        segment.payload > 0 || segment.flags.intersects(TcpFlags(TcpFlags::SYN.0 | TcpFlags::FIN.0));
    if !carries || verdict.intersects(Verdict::KEEP_ALIVE) {
        return;
    }
    let end = segment.sequence.wrapping_add(segment.payload);
    if segment.payload > 0 && reverse.knows(HAS_ACK) && at_or_before(end, reverse.last_ack) {
        verdict.set(Verdict::SPURIOUS_RETRANSMISSION);
        return;
    }
    let probed = segment.payload > 1 && segment.sequence == forward.next_sequence.wrapping_sub(1);
    let behind = forward.knows(HAS_NEXT) && before(segment.sequence, forward.next_sequence) && !probed;
    if !behind {
        return;
    }
    if reverse.duplicate_acks >= 2
        && reverse.knows(HAS_ACK)
        && reverse.last_ack == segment.sequence
        && segment.time - reverse.last_acked < FAST_RETRANSMISSION
    {
        verdict.set(Verdict::FAST_RETRANSMISSION);
    } else if segment.time - forward.advanced < out_of_order && segment.end() != forward.next_sequence {
        verdict.set(Verdict::OUT_OF_ORDER);
    } else {
        verdict.set(Verdict::RETRANSMISSION);
    }
}

/// Counts the payload bytes that were not seen before, and keeps track of what was jumped over. Of several
/// holes only the lowest end and the total are kept, so that a repeat of data between two holes may count
/// as filling the second.
fn account(forward: &mut Half, segment: &Segment, verdict: Verdict) -> u32 {
    let (start, end) = (segment.sequence, segment.sequence.wrapping_add(segment.payload));
    if !forward.knows(HAS_NEXT) {
        return segment.payload;
    }
    if verdict.intersects(Verdict::LOST_SEGMENT) {
        if forward.missing == 0 {
            forward.hole = forward.next_sequence;
        }
        forward.missing = forward.missing.saturating_add(start.wrapping_sub(forward.next_sequence));
        return segment.payload;
    }
    if !before(start, forward.next_sequence) {
        return segment.payload;
    }
    let beyond = if before(forward.next_sequence, end) { end.wrapping_sub(forward.next_sequence) } else { 0 };
    let filled = if forward.missing > 0 && before(forward.hole, end) {
        let overlap = (segment.payload - beyond).min(forward.missing);
        forward.missing -= overlap;
        if at_or_before(start, forward.hole) {
            forward.hole = end;
        }
        overlap
    } else {
        0
    };
    beyond + filled
}

/// Remembers what the next segments are compared with.
fn advance(forward: &mut Half, segment: &Segment, verdict: Verdict) {
    let probe = verdict.intersects(Verdict::ZERO_WINDOW_PROBE);
    let end = segment.end();
    let rst = segment.flags.contains(TcpFlags::RST);
    if !probe && !rst && (!forward.knows(HAS_NEXT) || before(forward.next_sequence, end)) {
        forward.next_sequence = end;
        forward.advanced = segment.time;
        forward.known |= HAS_NEXT;
    }
    forward.window = segment.window;
    forward.last_ack = segment.acknowledgement;
    forward.last_acked = segment.time;
    forward.known &= !(HAS_ACK | LAST_KEEP_ALIVE | LAST_PROBE);
    if segment.flags.contains(TcpFlags::ACK) {
        forward.known |= HAS_ACK;
    }
    if verdict.intersects(Verdict::KEEP_ALIVE) {
        forward.known |= LAST_KEEP_ALIVE;
    }
    if probe {
        forward.known |= LAST_PROBE;
    }
}
