//! One direction of a TCP connection, put in order as far as messages need it.

use event::Timestamp;

/// Bytes held behind a hole before it is given up: about 45 full segments.
const MAX_HELD: usize = 64 * 1024;
/// Segments held behind a hole; bounds what thousands of one-byte segments cost.
const MAX_HELD_SEGMENTS: usize = 256;

/// A segment that came before the bytes in front of it.
struct Held {
    sequence: u32,
    bytes: Vec<u8>,
    /// On the wire; more than `bytes` where the snap length cut it.
    length: u32,
    time: Timestamp,
}

/// What comes next in a direction.
pub(super) struct Piece {
    /// Bytes before it that the capture does not have.
    pub hole: u32,
    pub bytes: Vec<u8>,
    /// Bytes behind it that the snap length cut.
    pub cut: u32,
    pub time: Timestamp,
}

/// Sequence numbers and what waits behind a hole.
#[derive(Default)]
pub(super) struct Stream {
    /// The next byte's sequence number, once a segment was seen.
    next: Option<u32>,
    /// Of the SYN, where it was seen.
    first: Option<u32>,
    held: Vec<Held>,
    held_bytes: usize,
}

/// Where a segment stands against the bytes seen so far.
pub(super) enum Place {
    /// The next bytes begin at this offset into the segment.
    Next(usize),
    Old,
    /// Kept until the hole before it is filled, or given up.
    Ahead,
}

/// Signed distance modulo 2^32.
fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

impl Stream {
    /// A SYN: the first byte follows it.
    pub fn begin(&mut self, sequence: u32) {
        *self = Self { next: Some(sequence.wrapping_add(1)), first: Some(sequence), ..Self::default() };
    }

    /// Whether this is the SYN that was seen already.
    pub fn is_at_start(&self, sequence: u32) -> bool {
        self.first == Some(sequence)
    }

    pub fn is_drained(&self) -> bool {
        self.held.is_empty()
    }

    pub fn has_begun_with_syn(&self) -> bool {
        self.first.is_some()
    }

    pub fn has_begun(&self) -> bool {
        self.next.is_some()
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Sorts a segment of `length` bytes in.
    pub fn place(&mut self, sequence: u32, length: u32) -> Place {
        let next = *self.next.get_or_insert(sequence);
        let ahead = distance(next, sequence);
        if ahead > 0 {
            return Place::Ahead;
        }
        let old = ahead.unsigned_abs();
        if old >= length { Place::Old } else { Place::Next(old as usize) }
    }

    /// Steps over `length` bytes.
    pub fn advance(&mut self, length: u32) {
        self.next = self.next.map(|next| next.wrapping_add(length));
    }

    pub fn hold(&mut self, sequence: u32, bytes: &[u8], length: u32, time: Timestamp) {
        let is_known = self.held.iter().any(|held| held.sequence == sequence && held.length >= length);
        if !is_known {
            self.held_bytes += bytes.len();
            self.held.push(Held { sequence, bytes: bytes.to_vec(), length, time });
        }
    }

    pub fn is_full(&self) -> bool {
        self.held_bytes > MAX_HELD || self.held.len() > MAX_HELD_SEGMENTS
    }

    /// Whether the other side acknowledged bytes behind the hole: it has them, the capture never will. Captures
    /// may show an acknowledgement shortly before what it acknowledges, so the hole must have an age.
    pub fn is_hopeless(&self, acknowledged: u32, now: Timestamp) -> bool {
        const AGE: event::Duration = event::Duration::from_secs(1);
        let (Some(next), Some(first)) = (self.next, self.held.first()) else { return false };
        distance(next, acknowledged) > 0 && now - first.time > AGE
    }

    /// The next held bytes, where they follow directly; with `give_up` also across a hole.
    pub fn release(&mut self, now: Timestamp, give_up: bool) -> Option<Piece> {
        let next = self.next?;
        let nearest = (0..self.held.len()).min_by_key(|at| distance(next, self.held[*at].sequence))?;
        let ahead = distance(next, self.held[nearest].sequence);
        if ahead > 0 && !give_up {
            return None;
        }
        let held = self.held.swap_remove(nearest);
        self.held_bytes -= held.bytes.len();
        let (hole, old) = if ahead > 0 { (ahead.unsigned_abs(), 0) } else { (0, ahead.unsigned_abs()) };
        let fresh = held.bytes.get(old as usize..).unwrap_or_default().to_vec();
        let length = held.length.saturating_sub(old);
        self.advance(hole.wrapping_add(length));
        let cut = length.saturating_sub(u32::try_from(fresh.len()).unwrap_or(u32::MAX));
        Some(Piece { hole, bytes: fresh, cut, time: held.time.max(now) })
    }
}
