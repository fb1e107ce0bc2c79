//! Hubble's flows, by gRPC: a thread of its own drains the server's stream into a bounded queue, so that a slow
//! recorder makes neither the server overwrite its ring nor the memory grow.
//!
//! What came is accounted for exactly: `received = undecodable + repeated + read`, and of what was read and used
//! `used = events + dropped`.

mod address;
mod connect;
mod follow;
mod observer;
mod seen;

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event::{Event, Loss, LossCause, Timestamp};

use crate::Clock;
use crate::source::background::Background;
use crate::source::{Error, Source};
pub use address::{Address, EnvironmentError, ParseAddressError, Tls};
use follow::Follower;

/// Where Hubble is, and how to ask it.
#[derive(Clone, Debug)]
pub struct Options {
    pub address: Address,
    /// Used where the address asks for TLS.
    pub tls: Tls,
    pub timing: Timing,
    /// Leaves names and paths out of application messages.
    pub redact: bool,
    /// Events that may wait for the recorder: at a kilobyte each, and 20,000 a second, the default is 16 MB and
    /// most of a second.
    pub queue: usize,
}

impl Options {
    pub fn new(address: Address, tls: Tls) -> Self {
        Self { address, tls, timing: Timing::default(), redact: false, queue: 16_384 }
    }
}

/// How patient the client is.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Before the second attempt to connect; doubled for each further one.
    pub backoff: Duration,
    pub longest_backoff: Duration,
    /// After this long the server is asked whether it is still there. gRPC's own pings are refused by Hubble
    /// where they come more often than every five minutes.
    pub check: Duration,
    /// How long connecting may take, and an answer.
    pub answer: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            backoff: Duration::from_millis(500),
            longest_backoff: Duration::from_secs(30),
            check: Duration::from_secs(10),
            answer: Duration::from_secs(5),
        }
    }
}

/// What became of the server's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times that a stream was begun.
    pub connections: u64,
    /// Messages that came.
    pub received: u64,
    /// Of these, not Hubble's protobuf.
    pub undecodable: u64,
    /// Came before: the server repeats the last seconds after a new connection.
    pub repeated: u64,
    /// What the others were, and what Hubble says that it lost.
    pub messages: hubble::Counts,
    /// Handed over.
    pub events: u64,
    /// The recorder was too slow: the queue was full.
    pub dropped: u64,
}

/// Most events handed over by one poll.
const MAX_BATCH: usize = 1 << 14;

/// Follows Hubble until it is stopped.
pub struct Hubble {
    /// Declared before the queue that it fills: it ends first.
    follower: Background,
    events: Receiver<Event>,
    shared: Arc<Shared>,
    clock: Clock,
    handed_over: u64,
}

/// What client and recorder share.
#[derive(Default)]
struct Shared(Mutex<Account>);

#[derive(Default)]
struct Account {
    counters: Counters,
    /// Events that found the queue full since that was last told.
    dropped: Option<Dropped>,
}

#[derive(Clone, Copy)]
struct Dropped {
    first: Timestamp,
    last: Timestamp,
    count: u64,
}

impl Shared {
    fn with<T>(&self, change: impl FnOnce(&mut Account) -> T) -> T {
        // Counters hold no invariant that a panic could have broken.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Account {
    fn drop_event(&mut self, time: Timestamp) {
        self.counters.dropped += 1;
        let dropped = self.dropped.get_or_insert(Dropped { first: time, last: time, count: 0 });
        dropped.first = dropped.first.min(time);
        dropped.last = dropped.last.max(time);
        dropped.count += 1;
    }
}

impl Hubble {
    /// Starts to connect, and goes on trying: a server that is not there yet is no error.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn start(options: Options, clock: Clock) -> Result<Self, Error> {
        let (queue, events) = sync_channel(options.queue);
        let shared = Arc::new(Shared::default());
        let follower = Follower::new(options, clock, queue, Arc::clone(&shared));
        let follower =
            Background::start("hubble", "the client of Hubble", move |stopped| follower.run(stopped))?;
        Ok(Self { follower, events, shared, clock, handed_over: 0 })
    }

    /// What became of the messages until now. Exact once [`Source::stop`] has returned.
    pub fn counters(&self) -> Counters {
        let counters = self.shared.with(|account| account.counters);
        Counters { events: self.handed_over, ..counters }
    }

    fn hand_over(&mut self, most: usize, take: &mut dyn FnMut(Event)) -> usize {
        let mut count = 0;
        while count < most
            && let Ok(event) = self.events.try_recv()
        {
            take(event);
            count += 1;
        }
        self.handed_over += count as u64;
        count + self.tell_loss(take)
    }

    fn tell_loss(&self, take: &mut dyn FnMut(Event)) -> usize {
        let Some(Dropped { first, last, count }) = self.shared.with(|account| account.dropped.take()) else {
            return 0;
        };
        take(Event::Loss(Loss {
            first,
            last,
            arrival: self.clock.now(),
            source: event::Source::L7,
            cause: LossCause::QueueFull,
            interface: None,
            count,
        }));
        1
    }
}

impl Source for Hubble {
    fn poll(&mut self, take: &mut dyn FnMut(Event)) -> Result<usize, Error> {
        Ok(self.hand_over(MAX_BATCH, take))
    }

    fn stop(&mut self, take: &mut dyn FnMut(Event)) -> Result<(), Error> {
        self.follower.stop();
        self.hand_over(usize::MAX, take);
        Ok(())
    }
}
