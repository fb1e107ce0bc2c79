//! Response times: which segments await their ACK, and the samples of a window.

use crate::prefetch::bring;
use crate::tcp::{at_or_before, before};

/// Segments in flight that are timed per direction. Further ones are not timed until an ACK makes room, which
/// bounds the memory of a flow and keeps the cost of an ACK constant.
const IN_FLIGHT: usize = 8;

/// A data segment that no ACK covered yet.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    /// When it passed, in ns.
    time: i64,
    start: u32,
    end: u32,
}

/// The data segments of a connection that await an ACK, by the side that sent them, each side's in order of their
/// sequence. Few connections have many: the first of both sides stand together, in one or two cache lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct InFlight {
    lengths: [u8; 2],
    pending: [[Pending; 2]; IN_FLIGHT],
}

impl InFlight {
    pub fn is_empty(&self) -> bool {
        self.lengths == [0; 2]
    }

    pub fn clear(&mut self) {
        self.lengths = [0; 2];
    }

    /// Brings what is read of most connections into the cache.
    pub fn bring(&self) {
        bring(&self.lengths);
        bring(&self.pending[0]);
    }

    /// A segment with new data.
    pub fn sent(&mut self, side: usize, time: i64, start: u32, end: u32) {
        let length = usize::from(self.lengths[side]);
        if length < IN_FLIGHT {
            self.pending[length][side] = Pending { time, start, end };
            self.lengths[side] += 1;
        }
    }

    /// A segment that was sent again: by Karn's rule its ACK says nothing.
    pub fn sent_again(&mut self, side: usize, start: u32, end: u32) {
        self.retain(side, |pending| !(before(start, pending.end) && before(pending.start, end)));
    }

    /// An ACK of what `side` sent: gives the response time of every segment that it covers, in ns.
    pub fn acked(&mut self, side: usize, time: i64, ack: u32, mut sample: impl FnMut(u64)) {
        self.retain(side, |pending| {
            let covered = at_or_before(pending.end, ack);
            if covered {
                sample(u64::try_from(time - pending.time).unwrap_or(0));
            }
            !covered
        });
    }

    fn retain(&mut self, side: usize, mut keep: impl FnMut(&Pending) -> bool) {
        let mut kept = 0;
        for place in 0..usize::from(self.lengths[side]) {
            let pending = self.pending[place][side];
            if keep(&pending) {
                self.pending[kept][side] = pending;
                kept += 1;
            }
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most IN_FLIGHT")]
        {
            self.lengths[side] = kept as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acked(in_flight: &mut InFlight, time: i64, ack: u32) -> Vec<u64> {
        let mut samples = Vec::new();
        in_flight.acked(0, time, ack, |sample| samples.push(sample));
        samples
    }

    #[test]
    fn an_ack_times_every_segment_that_it_covers() {
        let mut in_flight = InFlight::default();
        in_flight.sent(0, 10, u32::MAX - 99, 0);
        in_flight.sent(0, 20, 0, 100);
        in_flight.sent(0, 30, 100, 200);
        assert_eq!(acked(&mut in_flight, 50, 100), [40, 30]);
        assert_eq!(acked(&mut in_flight, 60, 150), [0u64; 0]);
        assert_eq!(acked(&mut in_flight, 70, 200), [40]);
        assert!(in_flight.is_empty());
    }

    #[test]
    fn a_segment_sent_again_is_not_timed() {
        let mut in_flight = InFlight::default();
        in_flight.sent(0, 10, 0, 100);
        in_flight.sent(0, 11, 100, 200);
        in_flight.sent_again(0, 0, 100);
        assert_eq!(acked(&mut in_flight, 50, 200), [39]);
    }

    #[test]
    fn what_is_timed_is_bounded() {
        let mut in_flight = InFlight::default();
        for segment in 0..1000 {
            in_flight.sent(0, 0, segment * 10, segment * 10 + 10);
        }
        assert_eq!(acked(&mut in_flight, 1, 10_000).len(), IN_FLIGHT);
    }
}
