//! The one clock of a recording: the kernel's monotonic time, moved by one offset to Unix time.

use std::io;

use event::{Duration, Timestamp};
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

/// Times of kernel records and of their arrival. The wall clock is read once, at the start: a step of it afterwards
/// moves nothing. Times are told in microseconds. Time stands still while the machine is suspended: the kernel's
/// clock that goes on costs every packet a tenth more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    monotonic: Duration,
    wall: Timestamp,
    is_fine: bool,
}

/// What times are told in. The nanoseconds below are noise to whoever looks at a network, and would be a third of a
/// recording.
const STEP: i64 = 1_000;

/// Readings of which the best is taken: a preemption between the two clocks spoils one, not all.
const READINGS: usize = 8;

impl Clock {
    /// Reads both clocks.
    ///
    /// # Errors
    /// Where a clock cannot be read.
    pub fn start() -> io::Result<Self> {
        let mut best = Self::read()?;
        for _ in 1..READINGS {
            let reading = Self::read()?;
            if reading.0 < best.0 {
                best = reading;
            }
        }
        Ok(best.1)
    }

    /// The same clock with all of its nanoseconds, instead of microseconds as in a pcap file.
    #[must_use]
    pub const fn in_nanoseconds(self) -> Self {
        Self { is_fine: true, ..self }
    }

    /// Both clocks, and how long reading them took.
    fn read() -> io::Result<(Duration, Self)> {
        let before = nanoseconds(ClockId::CLOCK_MONOTONIC)?;
        let wall = nanoseconds(ClockId::CLOCK_REALTIME)?;
        let after = nanoseconds(ClockId::CLOCK_MONOTONIC)?;
        let monotonic = Duration::from_nanos(before + (after - before) / 2);
        Ok((
            Duration::from_nanos(after - before),
            Self { monotonic, wall: Timestamp::from_nanos(wall), is_fine: false },
        ))
    }

    /// Monotonic and Unix time at the same instant.
    pub const fn pair(&self) -> (Duration, Timestamp) {
        (self.monotonic, self.wall)
    }

    /// The Unix time of a kernel record.
    pub fn at(&self, monotonic: u64) -> Timestamp {
        let monotonic = i64::try_from(monotonic).unwrap_or(i64::MAX);
        self.told(self.wall + (Duration::from_nanos(monotonic) - self.monotonic))
    }

    pub fn now(&self) -> Timestamp {
        // It was there when the clock was made.
        nanoseconds(ClockId::CLOCK_MONOTONIC).map_or(self.wall, |now| self.at(now.unsigned_abs()))
    }

    /// Rounded towards the past, all times alike, so that what came first stays first.
    const fn told(&self, time: Timestamp) -> Timestamp {
        let nanos = time.as_nanos();
        if self.is_fine { time } else { Timestamp::from_nanos(nanos - nanos.rem_euclid(STEP)) }
    }
}

fn nanoseconds(clock: ClockId) -> io::Result<i64> {
    Ok(clock_gettime(clock)?.num_nanoseconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_time_becomes_unix_time() {
        let (monotonic, wall) = (Duration::from_secs(100), Timestamp::from_secs(1_000_000));
        let clock = Clock { monotonic, wall, is_fine: false };
        assert_eq!(clock.at(101_000_001_995), Timestamp::from_nanos(1_000_001_000_001_000));
        assert_eq!(clock.at(99_000_000_000), Timestamp::from_secs(999_999));
        let fine = clock.in_nanoseconds();
        assert_eq!(fine.at(101_000_001_995), Timestamp::from_nanos(1_000_001_000_001_995));
    }

    #[test]
    fn the_clock_goes_forward_beside_the_wall_clock() {
        let clock = Clock::start().unwrap();
        let first = clock.now();
        let wall = nanoseconds(ClockId::CLOCK_REALTIME).unwrap();
        let second = clock.now();
        assert!(first <= second);
        // Generous: the wall clock may be slewed while this runs.
        assert!((Timestamp::from_nanos(wall) - first).as_nanos().abs() < 1_000_000_000);
    }
}
