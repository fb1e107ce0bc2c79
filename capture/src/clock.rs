//! The one clock of a recording: nanoseconds since boot, moved by one offset to Unix time.

use std::io;

use event::{Duration, Timestamp};
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

/// Times of kernel records and of their arrival. The wall clock is read once, at the start: a step of it
/// afterwards moves nothing. Time goes on while the machine is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    since_boot: Duration,
    wall: Timestamp,
}

/// Readings of which the best is taken: a preemption between the two clocks spoils one, not all.
const READINGS: usize = 8;

impl Clock {
    /// Reads both clocks.
    ///
    /// # Errors
    /// Where the kernel has no `CLOCK_BOOTTIME` (before Linux 2.6.39).
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

    /// Both clocks, and how long reading them took.
    fn read() -> io::Result<(Duration, Self)> {
        let before = nanoseconds(ClockId::CLOCK_BOOTTIME)?;
        let wall = nanoseconds(ClockId::CLOCK_REALTIME)?;
        let after = nanoseconds(ClockId::CLOCK_BOOTTIME)?;
        let since_boot = Duration::from_nanos(before + (after - before) / 2);
        Ok((Duration::from_nanos(after - before), Self { since_boot, wall: Timestamp::from_nanos(wall) }))
    }

    /// Nanoseconds since boot and Unix time at the same instant.
    pub const fn pair(&self) -> (Duration, Timestamp) {
        (self.since_boot, self.wall)
    }

    /// The Unix time of a kernel record.
    pub fn at(&self, nanoseconds_since_boot: u64) -> Timestamp {
        let since_boot = i64::try_from(nanoseconds_since_boot).unwrap_or(i64::MAX);
        self.wall + (Duration::from_nanos(since_boot) - self.since_boot)
    }

    pub fn now(&self) -> Timestamp {
        // It was there when the clock was made.
        nanoseconds(ClockId::CLOCK_BOOTTIME)
            .map_or(self.wall, |now| self.wall + (Duration::from_nanos(now) - self.since_boot))
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
        let clock = Clock { since_boot: Duration::from_secs(100), wall: Timestamp::from_secs(1_000_000) };
        assert_eq!(clock.at(101_000_000_005), Timestamp::from_nanos(1_000_001_000_000_005));
        assert_eq!(clock.at(99_000_000_000), Timestamp::from_secs(999_999));
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
