//! The receivers of a run: their couriers, and the way from the pipeline into their queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tracing::warn;

use crate::deliver::{Client, Courier, Enqueued, Limits, Message, Outbox, Store, StoreError};
use crate::incident::Snapshot;

/// Name under which the incidents' memory is kept.
pub const TRACKER: &str = "tracker";
/// Messages that wait in memory while the state cannot be written; more are turned away.
const UNSAVED: usize = 10_000;

/// A message, and whom it is for.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub receiver: String,
    pub message: Message,
}

/// What is delivered to whom. Lives on threads of its own: nothing here waits for a receiver.
pub struct Receivers {
    runtime: Runtime,
    store: Arc<Store>,
    outboxes: BTreeMap<String, (Outbox, Limits)>,
    unsaved: Vec<Outgoing>,
}

impl Receivers {
    /// # Errors
    /// Where the threads cannot be started.
    pub fn new(store: Arc<Store>) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("deliver")
            .enable_all()
            .build()
            .context("cannot start the threads that deliver")?;
        Ok(Self { runtime, store, outboxes: BTreeMap::new(), unsaved: Vec::new() })
    }

    /// Delivers to a receiver from now on, what an earlier run left in its queue first.
    pub fn add(&mut self, name: &str, client: Client, limits: Limits) {
        let outbox = Outbox::default();
        let courier = Courier {
            receiver: name.to_owned(),
            client,
            limits,
            store: Arc::clone(&self.store),
            outbox: outbox.clone(),
        };
        self.runtime.spawn(courier.run());
        self.outboxes.insert(name.to_owned(), (outbox, limits));
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The receivers' names and boxes.
    pub fn outboxes(&self) -> impl Iterator<Item = (&str, &Outbox)> {
        self.outboxes.iter().map(|(name, (outbox, _))| (name.as_str(), outbox))
    }

    /// Queues messages, together with the incidents' memory. Where the state cannot be written they wait in
    /// memory for the next window: neither the pipeline nor a receiver stops for it.
    pub fn send(&mut self, messages: Vec<Outgoing>, memory: Option<&Snapshot>) {
        self.unsaved.extend(messages);
        if self.unsaved.is_empty() && memory.is_none() {
            return;
        }
        match self.commit(memory) {
            Ok(turned_away) => {
                for (receiver, count) in turned_away {
                    warn!(receiver, count, "turned away: the queue is full, or the receiver is gone");
                }
                for outgoing in self.unsaved.drain(..) {
                    if let Some((outbox, _)) = self.outboxes.get(&outgoing.receiver) {
                        outbox.wake.notify_one();
                    }
                }
            }
            Err(error) => {
                let over = self.unsaved.len().saturating_sub(UNSAVED);
                for outgoing in self.unsaved.drain(..over) {
                    if let Some((outbox, _)) = self.outboxes.get(&outgoing.receiver) {
                        outbox.counters.turned_away.fetch_add(1, Ordering::Relaxed);
                    }
                }
                let error = anyhow::Error::new(error);
                warn!(
                    waiting = self.unsaved.len(),
                    turned_away = over,
                    "{error:#}; tried again with the next window"
                );
            }
        }
    }

    fn commit(&self, memory: Option<&Snapshot>) -> Result<BTreeMap<String, u64>, StoreError> {
        let outcomes = self.store.write(|change| {
            if let Some(memory) = memory {
                change.keep(TRACKER, memory)?;
            }
            let mut outcomes = Vec::new();
            for outgoing in &self.unsaved {
                let room = self.outboxes.get(&outgoing.receiver).map_or(0, |(_, limits)| limits.queue);
                outcomes.push((outgoing, change.enqueue(&outgoing.receiver, &outgoing.message, room)?));
            }
            Ok(outcomes)
        })?;
        let mut turned_away = BTreeMap::new();
        for (outgoing, outcome) in outcomes {
            if matches!(outcome, Enqueued::TurnedAway | Enqueued::Disabled) {
                *turned_away.entry(outgoing.receiver.clone()).or_default() += 1;
                if let Some((outbox, _)) = self.outboxes.get(&outgoing.receiver) {
                    outbox.counters.turned_away.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(turned_away)
    }

    /// Messages that wait, over all receivers.
    pub fn waiting(&self) -> u64 {
        let queued = self.outboxes.keys().map(|name| self.store.waiting(name).unwrap_or_default());
        queued.sum::<u64>() + self.unsaved.len() as u64
    }

    /// Waits until everything is delivered or dead, or the time is over, or `stop` says so. Returns what is left.
    pub fn drain(&mut self, patience: Duration, stop: impl Fn() -> bool) -> u64 {
        let end = Instant::now() + patience;
        loop {
            self.send(Vec::new(), None);
            let left = self.waiting();
            if left == 0 || Instant::now() >= end || stop() {
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the couriers; what waits stays in the state.
    pub fn stop(self) {
        self.runtime.shutdown_timeout(Duration::from_secs(2));
    }
}
