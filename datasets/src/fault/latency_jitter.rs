//! Latency jitter: the way between client and server takes a time that keeps changing.
//!
//! `relay`: the router hands every packet to a program that holds it back for a while; the delay changes a
//! hundred times a second, and packets keep their order (without it TCP would see loss). `bufferbloat`: a slow
//! link with a long queue, filled by one bulk download. `netem`: the kernel's emulator of networks delays.

use std::collections::VecDeque;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use event::Fault;
use features::Feature;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::{Dose, Injection, Recipe, netem};
use crate::evidence::Evidence;
use crate::load::{Session, connect};
use crate::scene::Scene;
use crate::service::BULK;
use crate::topology::{SERVER, Topology};

pub const RECIPE: Recipe = Recipe {
    fault: Fault::LatencyJitter,
    mechanisms: &["relay", "bufferbloat"],
    optional: &["netem"],
    // A flow that waited for nothing in a window, such as an idle connection, met no jitter there.
    affected: &["*/198.18.1.2:*?latency_mean_ms>=1", "*/198.18.1.2:*?rtt_estimate_ms>=1"],
    shows: &[(Feature::LatencyMeanMs, 2.0), (Feature::RttEstimateMs, 2.0)],
    own_drops: &[],
    inject,
};

/// Mean and largest deviation of the delay, each way, in ms.
const DELAY: [(f64, f64); 3] = [(6.0, 5.0), (20.0, 15.0), (60.0, 50.0)];
/// The delay is drawn anew so often.
const SLOT: Duration = Duration::from_millis(8);
/// Packets that the relay holds; more are dropped, and counted.
const RELAY_LIMIT: usize = 20_000;
/// Connections that measure an emulated delay, and how long they may take altogether.
const PROBES: usize = 20;
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// Mbit/s of the slow link and KiB of its queue: 40 ms, 130 ms and 400 ms when full.
const LINK: [(u32, u32); 3] = [(20, 100), (12, 200), (5, 250)];

fn inject(scene: &mut Scene, dose: Dose) -> Result<Box<dyn Injection>> {
    match dose.mechanism {
        "bufferbloat" => bufferbloat(scene, &dose),
        "netem" => emulated(scene, dose),
        _ => relay(scene, dose),
    }
}

/// The way through a TUN device whose other end is a thread of ours.
struct Relay {
    session: Session,
    thread: JoinHandle<io::Result<io::Result<Delays>>>,
}

/// What the relay did, by its own clock.
#[derive(Default)]
struct Delays {
    relayed: u64,
    dropped: u64,
    sum_ms: f64,
    sum_of_squares: f64,
}

fn relay(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    let (mean, deviation) = dose.severity.of(DELAY);
    let mean = mean * dose.draw.between(0.8, 1.25);
    let deviation = deviation.min(mean) * dose.draw.between(0.8, 1.0);
    let session = Session::new(dose.limit);
    let until = session.clone();
    let (ready, made) = std::sync::mpsc::channel();
    let router = &scene.topology.router;
    let thread = router.thread("relay", move || {
        let device = DeviceBuilder::new().name("wan0").layer(Layer::L3).build_sync()?;
        device.set_nonblocking(true)?;
        // The receiver waits for exactly this.
        let _ = ready.send(());
        forward(&device, &until, || dose.draw.between(mean - deviation, mean + deviation))
    })?;
    if made.recv().is_err() {
        let ended = thread.join().ok().context("the relay panicked")??;
        ended.context("cannot make a TUN device")?;
        anyhow::bail!("the relay ended before it began");
    }
    router.run("ip link set wan0 up")?;
    router.run("ip route add default dev wan0 table 100")?;
    for device in ["client0", "server0"] {
        router.run(&format!("ip rule add iif {device} lookup 100"))?;
    }
    Ok(Box::new(Relay { session, thread }))
}

/// A packet that is held back.
struct Held {
    packet: Vec<u8>,
    arrived: Instant,
    release: Instant,
}

/// Reads packets from the device and writes each back when its time has come, per direction in order.
fn forward(device: &SyncDevice, session: &Session, mut delay_ms: impl FnMut() -> f64) -> io::Result<Delays> {
    let mut directions: [VecDeque<Held>; 2] = Default::default();
    let (mut delays, mut slots, mut slot_ends) = (Delays::default(), [0.0; 2], Instant::now());
    let mut buffer = [0; 2048];
    while !session.is_over() {
        let now = Instant::now();
        if now >= slot_ends {
            slots = [delay_ms(), delay_ms()];
            slot_ends = now + SLOT;
        }
        while let Some(length) = received(device, &mut buffer)? {
            let packet = &buffer[..length];
            let direction = usize::from(packet.get(16..20) == Some(&SERVER.octets()));
            let held = &mut directions[direction];
            if held.len() >= RELAY_LIMIT {
                delays.dropped += 1;
                continue;
            }
            let due = now + Duration::from_secs_f64(slots[direction].max(0.0) / 1e3);
            let release = held.back().map_or(due, |last| last.release.max(due));
            held.push_back(Held { packet: packet.to_vec(), arrived: now, release });
        }
        for held in &mut directions {
            while let Some(next) = held.pop_front_if(|next| next.release <= Instant::now()) {
                device.send(&next.packet)?;
                delays.add(next.arrived.elapsed());
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(delays)
}

/// The length of the next IPv4 packet; none where there is no packet at the moment.
fn received(device: &SyncDevice, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match device.recv(buffer) {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

impl Delays {
    fn add(&mut self, delay: Duration) {
        let ms = delay.as_secs_f64() * 1e3;
        self.relayed += 1;
        self.sum_ms += ms;
        self.sum_of_squares += ms * ms;
    }

    /// Mean and standard deviation.
    fn moments_ms(&self) -> (f64, f64) {
        let count = (self.relayed as f64).max(1.0);
        let mean = self.sum_ms / count;
        let variance = (self.sum_of_squares / count - mean * mean).max(0.0);
        (mean, variance.sqrt())
    }
}

fn micros(ms: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(ms / 1e3).as_micros()).unwrap_or(u64::MAX)
}

impl Injection for Relay {
    fn end(self: Box<Self>, _: &mut Scene) -> Result<Evidence> {
        self.session.end();
        let delays = self.thread.join().ok().context("the relay panicked")??;
        let delays = delays.context("the relay failed")?;
        let (mean, deviation) = delays.moments_ms();
        let mut evidence = Evidence::default();
        evidence.at_least("packets_delayed", delays.relayed, 50);
        evidence.at_least("delay_mean_us", micros(mean), 2_000);
        evidence.at_least("delay_deviation_us", micros(deviation), 1_000);
        // Drops would make this packet loss.
        evidence.at_most("relay_drops", delays.dropped, 0);
        Ok(evidence)
    }
}

/// Delays of the kernel's emulator of networks.
struct Emulated {
    mean_ms: f64,
}

fn emulated(scene: &mut Scene, mut dose: Dose) -> Result<Box<dyn Injection>> {
    let (mean, deviation) = dose.severity.of(DELAY);
    let mean = mean * dose.draw.between(0.8, 1.25);
    // Slowly varying, so that few packets overtake others.
    netem::start(scene, &format!("limit {RELAY_LIMIT} delay {mean:.1}ms {deviation:.1}ms 75%"))?;
    Ok(Box::new(Emulated { mean_ms: mean }))
}

impl Injection for Emulated {
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        // While the delay is on: the lab's own measurement, there and back.
        let (mean, deviation) = round_trips(scene)?;
        let passed = netem::end(scene)?;
        let mut evidence = Evidence::default();
        evidence.at_least("packets_delayed", passed.packets, 50);
        evidence.at_least("round_trip_mean_us", micros(mean), micros(self.mean_ms));
        evidence.at_least("round_trip_deviation_us", micros(deviation), 1_000);
        // Drops would make this packet loss.
        evidence.at_most("netem_drops", passed.drops, 0);
        Ok(evidence)
    }
}

/// Mean and deviation in ms of what the client waits for a connection.
fn round_trips(scene: &Scene) -> Result<(f64, f64)> {
    let session = Session::new(PROBE_LIMIT);
    let probe = scene.topology.client.thread("probe", move || {
        let mut trips = Delays::default();
        for _ in 0..PROBES {
            let begin = Instant::now();
            connect(80, &session)?;
            trips.add(begin.elapsed());
        }
        io::Result::Ok(trips)
    })?;
    let trips = probe.join().ok().context("the probe panicked")??;
    Ok(trips?.moments_ms())
}

/// The slow link in front of the client, and the download that fills it.
struct Bufferbloat {
    session: Session,
    download: JoinHandle<io::Result<()>>,
}

fn bufferbloat(scene: &mut Scene, dose: &Dose) -> Result<Box<dyn Injection>> {
    let (rate, queue) = dose.severity.of(LINK);
    let Topology { client, router, .. } = &scene.topology;
    router.run(&format!("tc qdisc add dev client0 root tbf rate {rate}mbit burst 16kb limit {queue}kb"))?;
    let session = Session::new(dose.limit);
    let until = session.clone();
    let download = client.thread("bulk", move || {
        while !until.is_over() {
            // What the end of the session cuts short, or the slow link, is no failure of the lab.
            let _ = connect(80, &until).and_then(|mut c| c.exchange("GET", BULK, 0, true));
        }
    })?;
    Ok(Box::new(Bufferbloat { session, download }))
}

impl Injection for Bufferbloat {
    fn end(self: Box<Self>, scene: &mut Scene) -> Result<Evidence> {
        let router = &scene.topology.router;
        let json = router.run("tc -j -s qdisc show dev client0")?;
        self.session.end();
        self.download.join().ok().context("the bulk download panicked")??;
        router.run("tc qdisc del dev client0 root")?;
        let found: serde_json::Value =
            serde_json::from_str(&json).context("cannot parse the output of tc -j")?;
        let queue = found.as_array().and_then(|all| all.iter().find(|one| one["kind"] == "tbf"));
        let queue = queue.context("the slow link is gone")?;
        let count = |name: &str| queue[name].as_u64().unwrap_or_default();
        let mut evidence = Evidence::default();
        evidence.at_least("packets_queued", count("overlimits"), 100);
        evidence.note("queue_bytes_at_end", count("backlog"));
        evidence.note("queue_drops", count("drops"));
        Ok(evidence)
    }
}
