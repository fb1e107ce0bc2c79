//! Watches pods and services, and watches anew where that ends, with growing pauses: the watcher of the client
//! library lists all of them again where it lost its place.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event::{Event, Naming};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config};
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;

use super::holders::{Change, Holders};
use super::{Counters, Options};
use crate::Clock;

/// How long to wait where the recorder does not take names.
const PAUSE: Duration = Duration::from_millis(50);

enum Seen {
    Pod(Box<watcher::Event<Pod>>),
    Service(Box<watcher::Event<Service>>),
    Failure(&'static str, watcher::Error),
}

/// The watch, in its thread.
pub struct Follower {
    options: Options,
    clock: Clock,
    queue: SyncSender<Event>,
    counters: Arc<Mutex<Counters>>,
    holders: Holders,
    /// What was said last of something not being told, so that it is said once.
    told: Option<String>,
}

impl Follower {
    pub fn new(
        options: Options,
        clock: Clock,
        queue: SyncSender<Event>,
        counters: Arc<Mutex<Counters>>,
    ) -> Self {
        let (_, begin) = clock.pair();
        Self { options, clock, queue, counters, holders: Holders::new(begin), told: None }
    }

    /// Watches until the other end of `stopped` is dropped.
    pub async fn run(mut self, stopped: oneshot::Receiver<()>) {
        tokio::select! {
            _ = stopped => {}
            () = self.follow() => {}
        }
    }

    /// Ends where there is no cluster.
    async fn follow(&mut self) {
        let client = match self.client().await {
            Ok(client) => client,
            Err(reason) => {
                tracing::warn!("no names from Kubernetes: {reason}; the rest goes on");
                return;
            }
        };
        let own = watcher::Config::default().fields(&format!("spec.nodeName={}", self.options.node));
        let pods = watcher(Api::<Pod>::all(client.clone()), own).default_backoff();
        let services = watcher(Api::<Service>::all(client), watcher::Config::default()).default_backoff();
        let failed = |what| move |error| Seen::Failure(what, error);
        let pods =
            pods.map(move |event| event.map_or_else(failed("pods"), |event| Seen::Pod(Box::new(event))));
        let services = services
            .map(move |event| event.map_or_else(failed("services"), |event| Seen::Service(Box::new(event))));
        let mut seen = std::pin::pin!(pods.merge(services));
        while let Some(seen) = seen.next().await {
            self.take(seen).await;
        }
    }

    async fn client(&self) -> Result<Client, String> {
        let config = match self.options.cluster.clone() {
            Some(config) => config,
            None => Config::infer().await.map_err(|error| whole(&error))?,
        };
        Client::try_from(config).map_err(|error| whole(&error))
    }

    async fn take(&mut self, seen: Seen) {
        let now = self.clock.now();
        let (names, is_list_end) = match seen {
            Seen::Pod(event) => {
                let change = change(*event);
                let is_list_end = matches!(change, Change::ListEnds);
                (self.holders.pod(change, now), is_list_end)
            }
            Seen::Service(event) => {
                let change = change(*event);
                let is_list_end = matches!(change, Change::ListEnds);
                (self.holders.service(change, now), is_list_end)
            }
            Seen::Failure(what, error) => return self.tell_failure(what, &error),
        };
        let count = names.len() as u64;
        for name in names {
            self.send(name).await;
        }
        self.count(|counters| {
            counters.names += count;
            counters.lists += u64::from(is_list_end);
        });
        if is_list_end {
            self.tell_list();
        }
    }

    /// Names are few and each of them matters: where the recorder does not take them, the watch waits.
    async fn send(&self, name: Naming) {
        let mut event = Event::Naming(Box::new(name));
        while let Err(TrySendError::Full(back)) = self.queue.try_send(event) {
            event = back;
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut counters);
        let (addresses, shared) = self.holders.addresses();
        counters.pods = self.holders.pods() as u64;
        counters.services = self.holders.services() as u64;
        counters.addresses = addresses as u64;
        counters.shared = shared as u64;
        counters.host_network = self.holders.on_host_network() as u64;
    }

    fn tell_list(&mut self) {
        let node = &self.options.node;
        let (pods, services) = (self.holders.pods(), self.holders.services());
        let again = if self.told.take().is_some() { " again" } else { "" };
        tracing::info!(pods, services, "names from Kubernetes{again}, of the pods of {node} and of services");
        if pods == 0 && self.holders.has_listed_pods() {
            tracing::warn!(
                "no pod runs on a node of the name {node}: --kube-node or NODE_NAME gives another"
            );
        }
    }

    /// Says once for each reason that something is not told.
    fn tell_failure(&mut self, what: &str, error: &watcher::Error) {
        let reason = format!("no names of {what} from Kubernetes: {}", whole(error));
        if self.told.as_ref() != Some(&reason) {
            tracing::warn!("{reason}; the rest goes on, and it is tried again");
            self.told = Some(reason);
        }
    }
}

fn change<K>(event: watcher::Event<K>) -> Change<K> {
    match event {
        watcher::Event::Init => Change::ListBegins,
        watcher::Event::InitApply(object) => Change::Listed(object),
        watcher::Event::InitDone => Change::ListEnds,
        watcher::Event::Apply(object) => Change::Applied(object),
        watcher::Event::Delete(object) => Change::Deleted(object),
    }
}

/// An error with what lies behind it, each part once: some repeat the text of what is behind them.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !text.contains(&part) {
            text += &format!(": {part}");
        }
        next = error.source();
    }
    text
}
