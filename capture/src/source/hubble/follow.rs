//! Follows Hubble's flows through drops and restarts: connects anew with growing pauses, resumes two seconds before
//! the last flow, and leaves out what came already.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use event::{Event, Loss, LossCause, Timestamp};
use hubble::Converter;
use hubble::proto::{self, GetFlowsResponse, ServerStatus};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::Status;
use tonic::transport::Channel;

use super::connect::{ConnectError, Explained, connect};
use super::observer::{Decoded, Observer};
use super::seen::Seen;
use super::{Options, Shared};
use crate::Clock;

/// Flows come a little out of order, through a relay above all: so far before the last one a new stream begins.
const OVERLAP: event::Duration = event::Duration::from_secs(2);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no connection within {0:?}")]
    Silence(Duration),
    #[error("the server answered {:?}: {}", .0.code(), .0.message())]
    Refused(Status),
    #[error("the connection is lost")]
    Lost(#[source] Status),
    #[error("the connection is lost")]
    Broken(#[source] io::Error),
    #[error("the server ended the stream")]
    Ended,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // A server's answer has nothing behind it.
        if std::error::Error::source(&status).is_some() { Self::Lost(status) } else { Self::Refused(status) }
    }
}

/// The client, in its thread.
pub struct Follower {
    options: Options,
    clock: Clock,
    queue: SyncSender<Event>,
    shared: Arc<Shared>,
    converter: Converter,
    seen: Seen,
    /// From when on flows are wanted.
    start: Timestamp,
    /// Of the latest flow.
    last: Option<Timestamp>,
    /// What the server last said of itself.
    status: Option<ServerStatus>,
    /// A stream was resumed and has not yet shown whether something is missing: the cause if so.
    resumed: Option<LossCause>,
    /// What was said last of its being away, so that it is said once.
    told: Option<String>,
}

impl Follower {
    pub fn new(options: Options, clock: Clock, queue: SyncSender<Event>, shared: Arc<Shared>) -> Self {
        Self {
            options,
            start: clock.now(),
            clock,
            queue,
            shared,
            converter: Converter::default(),
            seen: Seen::default(),
            last: None,
            status: None,
            resumed: None,
            told: None,
        }
    }

    /// Follows until the other end of `stopped` is dropped.
    pub async fn run(mut self, stopped: oneshot::Receiver<()>) {
        let mut stopped = std::pin::pin!(stopped);
        let mut following = std::pin::pin!(self.follow());
        std::future::poll_fn(|context| {
            let is_stopped = stopped.as_mut().poll(context).is_ready();
            if is_stopped { std::task::Poll::Ready(()) } else { following.as_mut().poll(context) }
        })
        .await;
    }

    async fn follow(&mut self) {
        let timing = self.options.timing;
        let mut pause = timing.backoff;
        loop {
            let received = self.shared.with(|account| account.counters.received);
            if let Err(failure) = self.stream().await {
                self.tell_failure(&failure);
            }
            if self.shared.with(|account| account.counters.received) > received {
                pause = timing.backoff;
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(timing.longest_backoff);
        }
    }

    /// One stream, from connecting to its end, which is a failure too.
    async fn stream(&mut self) -> Result<(), Failure> {
        let timing = self.options.timing;
        let connecting = connect(&self.options.address, &self.options.tls);
        let connected = timeout(timing.answer, connecting).await;
        let (channel, failure) = connected.map_err(|_| Failure::Silence(timing.answer))??;
        let ended = self.observe(channel).await;
        // What happened below says more than what it looked like above.
        failure.take().map_or(ended, |error| Err(Failure::Broken(error)))
    }

    async fn observe(&mut self, channel: Channel) -> Result<(), Failure> {
        let timing = self.options.timing;
        let mut observer = Observer::new(channel, timing.answer);
        let status = observer.status().await?;
        self.resumed = self.last.map(|_| self.gap_cause(status.as_ref()));
        self.note_status(status);
        let since = self.last.map_or(self.start, |last| self.start.max(last - OVERLAP));
        let mut flows = observer.flows(proto_time(since)).await?;
        self.tell_connection();
        let mut check = Instant::now() + timing.check;
        loop {
            match timeout_at(check, flows.message()).await {
                Ok(Ok(Some(message))) => self.take(message),
                Ok(Ok(None)) => return Err(Failure::Ended),
                Ok(Err(status)) => return Err(status.into()),
                Err(_) => {}
            }
            if Instant::now() >= check {
                // A stream without flows and a dead server look the same.
                let status = observer.status().await?;
                self.note_status(status);
                check = Instant::now() + timing.check;
            }
        }
    }

    /// What is to blame where flows are missing after a new connection.
    fn gap_cause(&self, status: Option<&ServerStatus>) -> LossCause {
        let is_restart = match (&self.status, status) {
            (Some(before), Some(now)) => {
                now.uptime_ns < before.uptime_ns || now.seen_flows < before.seen_flows
            }
            _ => false,
        };
        if is_restart { LossCause::Disconnected } else { LossCause::UpstreamRing }
    }

    fn note_status(&mut self, status: Option<ServerStatus>) {
        if status.is_some() {
            self.status = status;
        }
    }

    fn take(&mut self, decoded: Decoded) {
        let arrival = self.clock.now();
        self.shared.with(|account| account.counters.received += 1);
        let message = match decoded {
            Ok(message) => message,
            Err(error) => {
                self.shared.with(|account| account.counters.undecodable += 1);
                tracing::debug!("a message of Hubble's cannot be decoded: {error}");
                return;
            }
        };
        if let Some(flow) = &message.flow
            && !self.seen.insert(flow)
        {
            // The stream goes on where the last one ended.
            self.resumed = None;
            self.shared.with(|account| account.counters.repeated += 1);
            return;
        }
        if let Some(status) = &message.node_status {
            tracing::info!("Hubble: {status}");
        }
        let time = message.flow.as_ref().and_then(|flow| flow.time).or(message.time).map(event_time);
        if message.flow.is_some()
            && let Some(time) = time
        {
            self.tell_gap(time, arrival);
            self.last = self.last.max(Some(time));
        }
        self.convert(&message, arrival);
    }

    /// The last flow before the connection ended comes again after it, unless the server lost it meanwhile: then
    /// flows behind it may be missing too.
    fn tell_gap(&mut self, time: Timestamp, arrival: Timestamp) {
        let (Some(last), Some(cause)) = (self.last, self.resumed) else { return };
        if time <= last {
            // Came late into the overlap; the last one may still come.
            return;
        }
        self.resumed = None;
        self.send(Event::Loss(Loss {
            first: last,
            last: time,
            arrival,
            source: event::Source::L7,
            cause,
            interface: None,
            count: 0,
        }));
    }

    fn convert(&mut self, message: &GetFlowsResponse, arrival: Timestamp) {
        let event = self.converter.event(message, Some(arrival));
        let messages = self.converter.counts();
        self.shared.with(|account| account.counters.messages = messages);
        let Some(mut event) = event else { return };
        if let Event::L7(flow) = &mut event
            && self.options.redact
        {
            flow.message.redact();
        }
        self.send(event);
    }

    fn send(&self, event: Event) {
        match self.queue.try_send(event) {
            // Without a reader the thread is about to be stopped.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(event)) => self.shared.with(|account| account.drop_event(event.time())),
        }
    }

    /// Says once for each reason that Hubble is away.
    fn tell_failure(&mut self, failure: &Failure) {
        let text = Explained(failure).to_string();
        // Times and counts in it change without a change of the reason.
        let reason: String = text.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        if self.told.as_ref() == Some(&reason) {
            return;
        }
        let address = &self.options.address;
        tracing::warn!(
            "no flows of Hubble's from {address}: {text}; the rest goes on, and it is tried again"
        );
        self.told = Some(reason);
    }

    fn tell_connection(&mut self) {
        let connections = self.shared.with(|account| {
            account.counters.connections += 1;
            account.counters.connections
        });
        let address = &self.options.address;
        let version = self.status.as_ref().map_or("", |status| status.version.as_str());
        let again = if connections > 1 { " again" } else { "" };
        tracing::info!(version, "following Hubble's flows at {address}{again}");
        self.told = None;
    }
}

/// Between half of it and all, so that a node's clients do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) >> 32;
    pause / 2 + pause.mul_f64(random as f64 / f64::from(u32::MAX) / 2.0)
}

fn proto_time(time: Timestamp) -> proto::Timestamp {
    let nanos = time.as_nanos().rem_euclid(1_000_000_000);
    proto::Timestamp { seconds: time.as_secs(), nanos: i32::try_from(nanos).unwrap_or(0) }
}

fn event_time(time: proto::Timestamp) -> Timestamp {
    Timestamp::from_secs(time.seconds) + event::Duration::from_nanos(time.nanos.into())
}
