//! One courier per receiver: takes what waits in its queue, in order, and deals with how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use super::{Breaker, Client, DeadLetter, Kind, Limits, Message, Outcome, Store, StoreError, full_jitter};
use crate::time::now_ms;

/// Messages that are looked at for one that is due.
const LOOK_AHEAD: usize = 256;
/// The longest pause that a receiver may ask for by Retry-After.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// How often a queue is looked at without being told to: dead letters may be revived by another process.
const IDLE_LOOK: Duration = Duration::from_secs(2);

/// What became of one receiver's messages, since the start.
#[derive(Debug, Default)]
pub struct Counters {
    pub delivered: AtomicU64,
    pub retried: AtomicU64,
    pub dead: AtomicU64,
    pub turned_away: AtomicU64,
    /// Attempts by the answer's status; 0 where there was no answer.
    pub answers: Mutex<BTreeMap<u16, u64>>,
    pub last_error: Mutex<Option<String>>,
    pub breaker_open: AtomicU64,
}

impl Counters {
    fn answered(&self, status: u16) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry(status).or_default() += 1;
    }

    fn failed(&self, reason: &str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

/// The pipeline's side of a receiver: how it is told that something waits, and what became of it.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    pub wake: Arc<Notify>,
    pub counters: Arc<Counters>,
}

/// Delivers one receiver's messages.
pub struct Courier {
    pub receiver: String,
    pub client: Client,
    pub limits: Limits,
    pub store: Arc<Store>,
    pub outbox: Outbox,
}

impl Courier {
    /// Runs until it is dropped. An error of the state is said, and tried again: the receiver's queue is kept.
    pub async fn run(self) {
        let mut breaker = Breaker::default();
        if let Err(error) = self.settle_doubts() {
            warn!(receiver = self.receiver, "{}", chain(&error));
        }
        loop {
            match self.step(&mut breaker).await {
                Ok(None) => {}
                Ok(Some(pause)) => {
                    // Either ends the pause; a message that is not due yet is looked at again in time.
                    let _ = tokio::time::timeout(pause, self.outbox.wake.notified()).await;
                }
                Err(error) => {
                    warn!(receiver = self.receiver, "{}", chain(&error));
                    tokio::time::sleep(IDLE_LOOK).await;
                }
            }
        }
    }

    /// What was being sent when the process ended: a notification is sent again under its id; an action may have
    /// been carried out, and is not asked for twice.
    fn settle_doubts(&self) -> Result<(), StoreError> {
        for (sequence, message) in self.store.queue(&self.receiver, usize::MAX)? {
            if message.in_flight && message.kind == Kind::Action {
                self.bury(sequence, message, "in doubt: the process ended while it was being sent")?;
            }
        }
        Ok(())
    }

    /// Deals with one message; the pause until the next is due, or nothing where it may be now.
    async fn step(&self, breaker: &mut Breaker) -> Result<Option<Duration>, StoreError> {
        let now = now_ms();
        let queue = self.store.queue(&self.receiver, LOOK_AHEAD)?;
        for (sequence, message) in &queue {
            if message.expires_ms.is_some_and(|expires| expires <= now) {
                self.bury(*sequence, message.clone(), "expired before it could be delivered")?;
                return Ok(None);
            }
            let age = u64::try_from(now - message.created_ms).unwrap_or_default();
            if Duration::from_millis(age) >= self.limits.give_up {
                self.bury(*sequence, message.clone(), "could not be delivered in time")?;
                return Ok(None);
            }
        }
        if !breaker.allows(now) {
            return Ok(Some(until(breaker.open_until_ms(), now)));
        }
        match next_due(queue, now) {
            Ok((sequence, message)) => {
                self.deliver(sequence, message, breaker).await?;
                Ok(None)
            }
            Err(pause) => Ok(Some(pause)),
        }
    }

    async fn deliver(
        &self,
        sequence: u64,
        mut message: Message,
        breaker: &mut Breaker,
    ) -> Result<(), StoreError> {
        if message.kind == Kind::Action {
            message.in_flight = true;
            self.update(sequence, &message)?;
        }
        let outcome = self.client.send(&message).await;
        message.in_flight = false;
        message.attempts += 1;
        let counters = &self.outbox.counters;
        match outcome {
            Outcome::Delivered { status } => {
                breaker.succeeded();
                self.write(|change| change.delivered(&self.receiver, sequence))?;
                counters.answered(status);
                counters.delivered.fetch_add(1, Ordering::Relaxed);
                info!(receiver = self.receiver, id = message.id, status, "delivered");
            }
            Outcome::Retry { reason, status, after } => {
                let opened = breaker.failed(now_ms());
                counters.answered(status.unwrap_or_default());
                self.put_off(sequence, message, &reason, after)?;
                if opened {
                    warn!(receiver = self.receiver, reason, "fails again and again: paused, then probed");
                }
            }
            Outcome::Refused { reason, status } => {
                breaker.succeeded();
                counters.answered(status);
                self.bury(sequence, message, &reason)?;
            }
            Outcome::Gone { reason } => {
                counters.answered(410);
                self.give_up_receiver(&reason)?;
            }
        }
        counters.breaker_open.store(breaker.is_open().into(), Ordering::Relaxed);
        Ok(())
    }

    fn put_off(
        &self,
        sequence: u64,
        mut message: Message,
        reason: &str,
        after: Option<Duration>,
    ) -> Result<(), StoreError> {
        let jitter = full_jitter(&self.limits, &message.id, message.attempts);
        let pause = after.map_or(jitter, |after| after.min(LONGEST_RETRY_AFTER).max(jitter));
        message.not_before_ms = now_ms() + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        message.last_error = Some(reason.to_owned());
        self.outbox.counters.retried.fetch_add(1, Ordering::Relaxed);
        self.outbox.counters.failed(reason);
        warn!(
            receiver = self.receiver,
            id = message.id,
            attempt = message.attempts,
            again_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            reason,
            "not delivered"
        );
        self.update(sequence, &message)
    }

    /// The receiver said that it is gone: nothing is sent to it any more, and what waits is kept as dead letters.
    fn give_up_receiver(&self, reason: &str) -> Result<(), StoreError> {
        warn!(receiver = self.receiver, reason, "the receiver is gone: nothing more is sent to it");
        self.write(|change| change.set_disabled(&self.receiver, Some(reason.to_owned())))?;
        for (sequence, message) in self.store.queue(&self.receiver, usize::MAX)? {
            self.bury(sequence, message, reason)?;
        }
        Ok(())
    }

    fn bury(&self, sequence: u64, message: Message, reason: &str) -> Result<(), StoreError> {
        warn!(receiver = self.receiver, id = message.id, reason, "became a dead letter");
        let letter = DeadLetter {
            receiver: self.receiver.clone(),
            reason: reason.to_owned(),
            died_ms: now_ms(),
            message,
        };
        let dropped = self.write(|change| change.bury(sequence, &letter))?;
        if dropped > 0 {
            warn!(dropped, "too many dead letters: the oldest were dropped");
        }
        self.outbox.counters.failed(reason);
        self.outbox.counters.dead.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn update(&self, sequence: u64, message: &Message) -> Result<(), StoreError> {
        self.write(|change| change.update(&self.receiver, sequence, message))
    }

    /// A durable write waits for the disk; other tasks of this thread must not.
    fn write<T>(
        &self,
        work: impl FnOnce(&mut super::Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        tokio::task::block_in_place(|| self.store.write(work))
    }
}

/// The first message that is due and does not overtake an earlier one about the same subject; else the pause
/// until one is.
fn next_due(queue: Vec<(u64, Message)>, now: i64) -> Result<(u64, Message), Duration> {
    let mut waiting = BTreeSet::new();
    let mut pause = IDLE_LOOK;
    for (sequence, message) in queue {
        if waiting.contains(&message.subject) {
            continue;
        }
        if message.not_before_ms <= now {
            return Ok((sequence, message));
        }
        pause = pause.min(until(message.not_before_ms, now));
        waiting.insert(message.subject);
    }
    Err(pause)
}

fn until(later_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(later_ms - now_ms).unwrap_or_default())
}

/// An error with its causes in one line.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, subject: &str, not_before_ms: i64) -> Message {
        Message {
            id: id.to_owned(),
            kind: Kind::Notification,
            subject: subject.to_owned(),
            content_type: String::new(),
            body: String::new(),
            created_ms: 0,
            expires_ms: None,
            attempts: 0,
            not_before_ms,
            in_flight: false,
            last_error: None,
        }
    }

    #[test]
    fn a_resolve_never_overtakes_its_firing_but_others_go_ahead() {
        let queue = vec![(1, message("a", "x", 900)), (2, message("b", "x", 0)), (3, message("c", "y", 0))];
        assert_eq!(next_due(queue.clone(), 100).map(|(sequence, _)| sequence), Ok(3));
        assert_eq!(next_due(queue[..2].to_vec(), 100), Err(Duration::from_millis(800)));
        assert_eq!(next_due(queue[..2].to_vec(), 900).map(|(sequence, _)| sequence), Ok(1));
        assert_eq!(next_due(Vec::new(), 0), Err(IDLE_LOOK));
    }
}
