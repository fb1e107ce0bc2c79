//! The circuit breaker: a receiver that fails again and again is left alone for a while, then probed once.

use std::time::Duration;

/// Failures in a row after which a receiver is left alone.
const FAILURES: u32 = 5;
/// The first pause; it doubles with every probe that fails ...
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// ... up to this, so that a receiver that is back is found within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The state of one receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u32,
    /// Wall time in milliseconds before which nothing is sent.
    open_until_ms: i64,
}

impl Breaker {
    /// An answer came, whatever it said of the message.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The receiver could not be reached, or could not answer. True where this opened the breaker.
    pub fn failed(&mut self, now_ms: i64) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES {
            return false;
        }
        let probes = (self.failures - FAILURES).min(8);
        let pause = (FIRST_PAUSE * (1 << probes)).min(LONGEST_PAUSE);
        self.open_until_ms = now_ms + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        self.failures == FAILURES
    }

    /// Whether a message may be sent now; after the pause, one may, and its fate decides.
    pub const fn allows(&self, now_ms: i64) -> bool {
        now_ms >= self.open_until_ms
    }

    /// Wall time in milliseconds before which nothing is sent.
    pub const fn open_until_ms(&self) -> i64 {
        self.open_until_ms
    }

    pub const fn is_open(&self) -> bool {
        self.failures >= FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_five_failures_and_probes_with_growing_pauses() {
        let mut breaker = Breaker::default();
        for _ in 0..4 {
            assert!(!breaker.failed(0));
            assert!(breaker.allows(0));
        }
        assert!(breaker.failed(0));
        assert!(!breaker.allows(4_999) && breaker.allows(5_000));
        assert!(!breaker.failed(5_000));
        assert!(!breaker.allows(14_999) && breaker.allows(15_000));
        for _ in 0..20 {
            breaker.failed(15_000);
        }
        assert!(breaker.allows(75_000));
        breaker.succeeded();
        assert!(!breaker.is_open() && breaker.allows(0));
    }
}
