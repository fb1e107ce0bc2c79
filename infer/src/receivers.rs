//! The receivers of a run: their couriers, and the way from the pipeline into their queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::deliver::{Client, Courier, Enqueued, Limits, Message, Outbox, Store, StoreError};
use crate::incident::Snapshot;
use crate::policy::{Memory, Policy, ReceiverSettings};

/// Name under which the memory of incidents and decisions is kept.
const MEMORY: &str = "memory";
/// Messages that wait in memory while the state cannot be written; more are turned away.
const UNSAVED: usize = 10_000;

/// A message, and whom it is for.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub receiver: String,
    pub message: Message,
}

/// What a run remembers for the next one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    pub incidents: Snapshot,
    pub decisions: Memory,
}

/// One receiver at work.
struct Running {
    outbox: Outbox,
    limits: Limits,
    settings: ReceiverSettings,
    courier: JoinHandle<()>,
}

/// What is delivered to whom. Lives on threads of its own: nothing here waits for a receiver.
pub struct Receivers {
    runtime: Runtime,
    store: Arc<Store>,
    running: BTreeMap<String, Running>,
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
        Ok(Self { runtime, store, running: BTreeMap::new(), unsaved: Vec::new() })
    }

    /// Delivers to the receivers of a policy from now on, what an earlier run left in their queues first. Those
    /// that did not change go on undisturbed; the queues of those that are gone are kept.
    ///
    /// # Errors
    /// Where one cannot be set up; then nothing changes.
    pub fn apply(&mut self, policy: &Policy) -> anyhow::Result<()> {
        let mut clients = Vec::new();
        for (name, settings) in &policy.receivers {
            if self.running.get(name).is_some_and(|running| running.settings == *settings) {
                continue;
            }
            let client = settings.client().map_err(|error| anyhow!(error));
            let client = client.and_then(|client| {
                let keys = settings.keys().map_err(|error| anyhow!(error))?;
                Ok(Client::new(&client, keys)?)
            });
            clients.push((name, settings, client.with_context(|| format!("cannot use receiver {name}"))?));
        }
        self.running.retain(|name, running| {
            let stays = policy.receivers.contains_key(name);
            if !stays {
                running.courier.abort();
            }
            stays
        });
        for (name, settings, client) in clients {
            self.start(name, settings, client);
        }
        Ok(())
    }

    fn start(&mut self, name: &str, settings: &ReceiverSettings, client: Client) {
        let before = self.running.remove(name);
        if let Some(before) = &before {
            before.courier.abort();
        }
        let (outbox, limits) = (before.map(|before| before.outbox).unwrap_or_default(), settings.limits());
        let courier = Courier {
            receiver: name.to_owned(),
            client,
            limits,
            store: Arc::clone(&self.store),
            outbox: outbox.clone(),
        };
        let courier = self.runtime.spawn(courier.run());
        self.running.insert(name.to_owned(), Running { outbox, limits, settings: settings.clone(), courier });
    }

    pub const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// What an earlier run kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn kept(&self) -> Result<Option<Kept>, StoreError> {
        self.store.state(MEMORY)
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The receivers' names and boxes.
    pub fn outboxes(&self) -> impl Iterator<Item = (&str, &Outbox)> {
        self.running.iter().map(|(name, running)| (name.as_str(), &running.outbox))
    }

    /// Queues messages, together with the incidents' memory. Where the state cannot be written they wait in
    /// memory for the next window: neither the pipeline nor a receiver stops for it.
    pub fn send(&mut self, messages: Vec<Outgoing>, memory: Option<&Kept>) {
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
                    if let Some(Running { outbox, .. }) = self.running.get(&outgoing.receiver) {
                        outbox.wake.notify_one();
                    }
                }
            }
            Err(error) => {
                let over = self.unsaved.len().saturating_sub(UNSAVED);
                for outgoing in self.unsaved.drain(..over) {
                    if let Some(Running { outbox, .. }) = self.running.get(&outgoing.receiver) {
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

    fn commit(&self, memory: Option<&Kept>) -> Result<BTreeMap<String, u64>, StoreError> {
        let outcomes = self.store.write(|change| {
            if let Some(memory) = memory {
                change.keep(MEMORY, memory)?;
            }
            let mut outcomes = Vec::new();
            for outgoing in &self.unsaved {
                let room = self.running.get(&outgoing.receiver).map_or(0, |running| running.limits.queue);
                outcomes.push((outgoing, change.enqueue(&outgoing.receiver, &outgoing.message, room)?));
            }
            Ok(outcomes)
        })?;
        let mut turned_away = BTreeMap::new();
        for (outgoing, outcome) in outcomes {
            if matches!(outcome, Enqueued::TurnedAway | Enqueued::Disabled) {
                *turned_away.entry(outgoing.receiver.clone()).or_default() += 1;
                if let Some(Running { outbox, .. }) = self.running.get(&outgoing.receiver) {
                    outbox.counters.turned_away.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(turned_away)
    }

    /// Messages that wait, over all receivers.
    pub fn waiting(&self) -> u64 {
        let queued = self.running.keys().map(|name| self.store.waiting(name).unwrap_or_default());
        queued.sum::<u64>() + self.unsaved.len() as u64
    }

    /// Waits until everything is delivered or dead, or the time is over. Returns what is left.
    pub fn drain(&mut self, patience: Duration) -> u64 {
        let end = Instant::now() + patience;
        loop {
            self.send(Vec::new(), None);
            let left = self.waiting();
            if left == 0 || Instant::now() >= end {
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the couriers, each at a point where it waits; what is in their queues stays in the state.
    pub fn stop(self) {
        let couriers: Vec<JoinHandle<()>> =
            self.running.into_values().map(|running| running.courier).collect();
        self.runtime.block_on(async {
            for courier in &couriers {
                courier.abort();
            }
            for courier in couriers {
                // Its end is all that matters: it was told to end.
                let _ = courier.await;
            }
        });
        self.runtime.shutdown_timeout(Duration::from_secs(2));
    }
}
