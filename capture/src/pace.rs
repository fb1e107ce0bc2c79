//! How long a reader sleeps between two polls.

use std::time::Duration;

/// Sleeps that follow what comes. The kernel programs wake nobody, because a wake-up costs more than a record; and a
/// reader that wakes by itself takes a processor from somebody each time. So it sleeps as long as the rings allow while
/// little comes, and does not sleep while much does.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pause: Duration,
    longest: Duration,
}

impl Pace {
    pub const SHORTEST: Duration = Duration::from_millis(10);
    pub const LONGEST: Duration = Duration::from_millis(40);
    /// Packets a second on one processor at the onset of a flood that a sleep leaves room for.
    const ONSET: u32 = 800_000;
    /// Events of a poll before which a longer sleep is tried: a round of polls costs as much as some dozens of them.
    const FEW: usize = 1024;
    /// Events of a poll after which the next sleep is shorter.
    const MANY: usize = 2048;
    /// Events of a poll that fill a ring of the least size: more have come meanwhile.
    const FULL: usize = 4096;

    /// For rings that hold so many records each.
    pub(crate) fn of_rings(capacity: u32) -> Self {
        let longest = Duration::from_secs(1) * capacity / Self::ONSET;
        Self { pause: Self::SHORTEST, longest: longest.clamp(Self::SHORTEST, Self::LONGEST) }
    }

    /// How long to sleep after a poll that brought so many events.
    pub fn after(&mut self, events: usize) -> Duration {
        self.pause = match events {
            Self::FULL.. => Self::SHORTEST,
            Self::MANY.. => (self.pause / 2).max(Self::SHORTEST),
            Self::FEW.. => self.pause,
            _ => (self.pause * 2).min(self.longest),
        };
        if events < Self::FULL { self.pause } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sleeps of a reader of such rings at a steady rate of events a second, once they have settled.
    fn settled(capacity: u32, rate: f64) -> Vec<Duration> {
        let mut pace = Pace::of_rings(capacity);
        let mut sleep = Pace::SHORTEST;
        let mut next = || {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
            let events = (rate * sleep.max(Duration::from_millis(1)).as_secs_f64()) as usize;
            sleep = pace.after(events);
            sleep
        };
        for _ in 0..10 {
            next();
        }
        (0..10).map(|_| next()).collect()
    }

    #[test]
    fn sleeps_follow_what_comes() {
        assert_eq!(settled(1 << 15, 0.0), [Pace::LONGEST; 10]);
        assert_eq!(settled(1 << 15, 50_000.0), [Pace::LONGEST; 10]);
        assert_eq!(settled(1 << 15, 100_000.0), [Pace::LONGEST / 2; 10]);
        assert!(settled(1 << 15, 300_000.0).iter().all(|sleep| *sleep <= Pace::SHORTEST));
        assert_eq!(settled(1 << 14, 0.0), [Duration::from_micros(20_480); 10]);
        assert_eq!(settled(1 << 12, 0.0), [Pace::SHORTEST; 10]);
        let flood = settled(1 << 15, 5_000_000.0);
        assert!(flood.iter().all(Duration::is_zero), "{flood:?}");
    }
}
