//! When a failed delivery is tried again.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// Bounds of one receiver's deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Ceiling of the first pause; each further one doubles it ...
    pub first_pause: Duration,
    /// ... up to this.
    pub longest_pause: Duration,
    /// Age at which a notification that could not be delivered becomes a dead letter.
    pub give_up: Duration,
    /// Messages that may wait; more are turned away, and counted.
    pub queue: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            give_up: Duration::from_secs(24 * 3600),
            queue: 10_000,
        }
    }
}

/// The pause before attempt `attempt` (the second is 1): full jitter, evenly between zero and a ceiling that
/// doubles. The draw is a hash of message and attempt, so that many senders spread and a test can repeat it.
pub fn full_jitter(limits: &Limits, id: &str, attempt: u32) -> Duration {
    let doubled = limits.first_pause.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let ceiling = doubled.min(limits.longest_pause);
    let mut hash = Sha256::new();
    hash.update(id.as_bytes());
    hash.update(attempt.to_be_bytes());
    let draw: [u8; 32] = hash.finalize().into();
    let fraction = f64::from(u16::from_be_bytes([draw[0], draw[1]])) / f64::from(u16::MAX);
    ceiling.mul_f64(fraction)
}

/// The pause that a `Retry-After` header asks for: seconds, or a date.
pub fn retry_after(header: &str, now_ms: i64) -> Option<Duration> {
    if let Ok(seconds) = header.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(header.trim()).ok()?;
    let date_ms = date.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
    let ahead = i64::try_from(date_ms).ok()?.saturating_sub(now_ms);
    Some(Duration::from_millis(u64::try_from(ahead).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        assert_eq!(retry_after("7", 0), Some(Duration::from_secs(7)));
        let date = "Thu, 01 Jan 1970 00:01:00 GMT";
        assert_eq!(retry_after(date, 10_000), Some(Duration::from_secs(50)));
        assert_eq!(retry_after(date, 90_000), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", 0), None);
        assert_eq!(retry_after("-1", 0), None);
    }

    #[test]
    fn pauses_spread_over_the_whole_range() {
        let limits = Limits::default();
        let pauses: Vec<Duration> =
            (0..200).map(|number| full_jitter(&limits, &format!("msg_{number}"), 20)).collect();
        assert!(pauses.iter().min() < Some(&Duration::from_secs(6)));
        assert!(pauses.iter().max() > Some(&Duration::from_secs(54)));
    }

    proptest! {
        #[test]
        fn a_pause_stays_below_its_ceiling(id in "\\PC{0,20}", attempt in 0u32..u32::MAX) {
            let limits = Limits::default();
            let pause = full_jitter(&limits, &id, attempt);
            prop_assert!(pause <= limits.longest_pause);
            if attempt <= 1 {
                prop_assert!(pause <= limits.first_pause);
            }
        }
    }
}
