//! Names from the Kubernetes API, where there is no Hubble to tell them: one watch on the pods of this node, one on
//! the services. A thread of its own follows them; each change becomes the name of an address from a time on.

mod follow;
mod holders;

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use event::Event;

use crate::Clock;
use crate::source::background::Background;
use crate::source::{Error, Source};
use follow::Follower;

/// Names that may wait for the recorder; the watch waits where there are more.
const QUEUE: usize = 4096;

/// Whose pods to watch, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node, by the name that Kubernetes has for it.
    pub node: String,
    /// The cluster; without it as kubectl finds it, else as a pod does: `KUBECONFIG`, `~/.kube/config`, the service
    /// account.
    pub cluster: Option<kube::Config>,
}

/// What is known, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub pods: u64,
    pub services: u64,
    /// Addresses that belong to one pod or service.
    pub addresses: u64,
    /// Addresses that more than one claims, which name nobody.
    pub shared: u64,
    /// Pods that have the node's address, which names nobody.
    pub host_network: u64,
    /// Names told, changes of one counted anew.
    pub names: u64,
    /// Times that a list was complete.
    pub lists: u64,
}

/// Follows pods and services until it is stopped.
pub struct Kubernetes {
    /// Declared before the queue that it fills: it ends first.
    follower: Background,
    events: Receiver<Event>,
    counters: Arc<Mutex<Counters>>,
}

impl Kubernetes {
    /// Starts to look for the cluster, and goes on watching: one that is away is no error.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn start(options: Options, clock: Clock) -> Result<Self, Error> {
        let (queue, events) = sync_channel(QUEUE);
        let counters = Arc::new(Mutex::default());
        let follower = Follower::new(options, clock, queue, Arc::clone(&counters));
        let follower =
            Background::start("kubernetes", "the watch on Kubernetes", move |stopped| follower.run(stopped))?;
        Ok(Self { follower, events, counters })
    }

    /// What is known until now.
    pub fn counters(&self) -> Counters {
        // Counters hold no invariant that a panic could have broken.
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Kubernetes {
    fn poll(&mut self, take: &mut dyn FnMut(Event)) -> Result<usize, Error> {
        Ok(self.events.try_iter().take(QUEUE).map(take).count())
    }

    fn stop(&mut self, take: &mut dyn FnMut(Event)) -> Result<(), Error> {
        self.follower.stop();
        self.events.try_iter().for_each(take);
        Ok(())
    }
}
