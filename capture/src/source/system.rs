//! The state of node and pods, read from /proc and the cgroups at a fixed interval.
//!
//! A thread of its own reads: on a node with thousands of processes that takes tens of milliseconds, which the
//! packets must not wait for.

mod cgroup;
mod files;
mod node;
mod pod;
mod process;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use event::{Event, Loss, LossCause, SystemSnapshot, Timestamp};

use crate::Clock;
use crate::source::{Error, Source};
use cgroup::Hierarchies;
use files::Files;
use process::Processes;

/// What to read, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    pub interval: Duration,
    /// Where the node's /proc is; `/host/proc` inside a container.
    pub proc_root: PathBuf,
    /// Where the node's cgroups are mounted.
    pub cgroup_root: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            proc_root: "/proc".into(),
            cgroup_root: "/sys/fs/cgroup".into(),
        }
    }
}

/// Snapshots that may wait for the recorder.
const QUEUE: usize = 8;

/// Takes snapshots until it is stopped.
pub struct System {
    snapshots: Receiver<SystemSnapshot>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    clock: Clock,
    /// Interface index to place in the recording's table.
    places: BTreeMap<u32, u32>,
    /// Time of the last snapshot handed over.
    last: Timestamp,
}

/// What reader and recorder share.
#[derive(Default)]
struct Shared {
    stops: AtomicBool,
    /// Snapshots that found the queue full since that was last told.
    lost: AtomicU64,
}

impl System {
    /// Starts to read.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn start(options: Options, clock: Clock) -> Result<Self, Error> {
        let (sender, snapshots) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("system".to_owned())
            .spawn(move || run(&options, clock, &sender, &for_thread))
            .map_err(Error::Thread)?;
        let last = clock.now();
        Ok(Self { snapshots, shared, thread: Some(thread), clock, places: BTreeMap::new(), last })
    }

    /// Says which interfaces the recording has: pairs of the kernel's index and the place in its table. A pod's
    /// other interfaces are left out of the snapshots.
    pub fn set_places(&mut self, places: impl IntoIterator<Item = (u32, u32)>) {
        self.places = places.into_iter().collect();
    }

    fn hand_over(&mut self, take: &mut dyn FnMut(Event)) -> usize {
        let mut count = 0;
        while let Ok(mut snapshot) = self.snapshots.try_recv() {
            for pod in &mut snapshot.pods {
                pod.interfaces =
                    pod.interfaces.iter().filter_map(|index| self.places.get(index).copied()).collect();
            }
            self.last = snapshot.time;
            take(Event::System(Box::new(snapshot)));
            count += 1;
        }
        count + self.tell_loss(take)
    }

    fn tell_loss(&mut self, take: &mut dyn FnMut(Event)) -> usize {
        let count = self.shared.lost.swap(0, Ordering::Relaxed);
        if count == 0 {
            return 0;
        }
        let now = self.clock.now();
        take(Event::Loss(Loss {
            first: self.last,
            last: now,
            arrival: now,
            source: event::Source::System,
            cause: LossCause::QueueFull,
            interface: None,
            count,
        }));
        1
    }

    fn join(&mut self) {
        self.shared.stops.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the reader of system snapshots failed");
            }
        }
    }
}

impl Source for System {
    fn poll(&mut self, take: &mut dyn FnMut(Event)) -> Result<usize, Error> {
        Ok(self.hand_over(take))
    }

    fn stop(&mut self, take: &mut dyn FnMut(Event)) -> Result<(), Error> {
        self.join();
        self.hand_over(take);
        Ok(())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.join();
    }
}

fn run(options: &Options, clock: Clock, sender: &SyncSender<SystemSnapshot>, shared: &Shared) {
    let mut reader = Reader::new(options);
    let mut next = Instant::now();
    while !shared.stops.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now < next {
            std::thread::park_timeout(next - now);
            continue;
        }
        if sender.try_send(reader.read(clock)).is_err() {
            shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        // A reading that took longer than the interval is not caught up with.
        next = (next + options.interval).max(Instant::now());
    }
}

/// Reads one snapshot after the other.
struct Reader {
    files: Files,
    processes: Processes,
    hierarchies: Hierarchies,
}

impl Reader {
    fn new(options: &Options) -> Self {
        let hierarchies = Hierarchies::new(options.cgroup_root.clone());
        if !hierarchies.are_mounted() {
            let root = options.cgroup_root.display();
            tracing::warn!("{root}: no cgroups are mounted there; processor and memory of pods stay empty");
        }
        Self { files: Files::new(options.proc_root.clone()), processes: Processes::new(), hierarchies }
    }

    fn read(&mut self, clock: Clock) -> SystemSnapshot {
        let time = clock.now();
        self.processes.update(&self.files);
        let node = node::read(&mut self.files, &self.processes);
        let pods = pod::read(&self.files, &self.processes, &self.hierarchies);
        SystemSnapshot { time, arrival: clock.now(), node, pods }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_come_at_the_interval_until_the_end() {
        let clock = Clock::start().unwrap();
        let options = Options { interval: Duration::from_millis(50), ..Options::default() };
        let mut system = System::start(options, clock).unwrap();
        let mut snapshots = Vec::new();
        let mut take = |event| match event {
            Event::System(snapshot) => snapshots.push(snapshot),
            other => panic!("{other:?}"),
        };
        let end = Instant::now() + Duration::from_secs(30);
        let mut count = 0;
        while count < 3 && Instant::now() < end {
            count += system.poll(&mut take).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        system.stop(&mut take).unwrap();
        assert!(snapshots.len() >= 3);
        assert!(snapshots.is_sorted_by_key(|snapshot| snapshot.time));
        assert!(snapshots[0].node.processes.len() > snapshots[1].node.processes.len());
        assert!(snapshots.iter().all(|snapshot| snapshot.arrival >= snapshot.time));
    }

    #[test]
    fn a_recorder_that_does_not_come_is_told_what_it_missed() {
        let clock = Clock::start().unwrap();
        let options = Options { interval: Duration::from_millis(1), ..Options::default() };
        let mut system = System::start(options, clock).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while system.shared.lost.load(Ordering::Relaxed) == 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (mut snapshots, mut lost) = (0, 0);
        system
            .stop(&mut |event| match event {
                Event::System(_) => snapshots += 1,
                Event::Loss(loss) => lost += loss.count,
                other => panic!("{other:?}"),
            })
            .unwrap();
        assert_eq!(snapshots, QUEUE);
        assert!(lost > 0);
    }
}
