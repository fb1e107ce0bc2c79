//! Points and spans of time in integer nanoseconds; floats appear only where features are printed.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// Nanoseconds since the Unix epoch (1970-01-01T00:00:00Z). Covers the years 1678 to 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A span of time in nanoseconds; negative where a clock stepped back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(i64);

impl Timestamp {
    pub const MIN: Self = Self(i64::MIN);
    pub const MAX: Self = Self(i64::MAX);
    pub const UNIX_EPOCH: Self = Self(0);

    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded towards the past.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// The start of the window `[k*length, (k+1)*length)` of Unix time that holds this instant.
    ///
    /// # Panics
    /// Where `length` is not positive.
    pub fn window_start(self, length: Duration) -> Self {
        assert!(length.0 > 0, "a window has a positive length");
        Self(self.0.div_euclid(length.0).saturating_mul(length.0))
    }
}

impl Duration {
    pub const ZERO: Self = Self(0);

    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    pub const fn from_micros(micros: i64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// The nearest float of seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The nearest float of milliseconds.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Duration> for Timestamp {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl Sub for Timestamp {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Duration {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Duration {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Duration {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Timestamp {
    /// Unix seconds with nine decimals, as capture tools print them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.as_secs(), self.0.rem_euclid(1_000_000_000));
        write!(f, "{seconds}.{nanos:09}")
    }
}

impl fmt::Display for Duration {
    /// Seconds with up to nine decimals and the unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:09} s", magnitude / 1_000_000_000, magnitude % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_to_unix_time() {
        let five = Duration::from_secs(5);
        assert_eq!(Timestamp::from_nanos(9_999_999_999).window_start(five), Timestamp::from_secs(5));
        assert_eq!(Timestamp::from_secs(10).window_start(five), Timestamp::from_secs(10));
        assert_eq!(Timestamp::from_nanos(-1).window_start(five), Timestamp::from_secs(-5));
    }

    #[test]
    fn times_print_as_seconds() {
        assert_eq!(Timestamp::from_nanos(1_500_000_001).to_string(), "1.500000001");
        assert_eq!(Duration::from_millis(-1_250).to_string(), "-1.250000000 s");
    }
}
