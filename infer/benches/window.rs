//! What a window costs: the delay from its end to its verdicts and incidents, the processor's share at 10,000 packets
//! a second, and the memory. Run by `cargo bench -p infer`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench may stop at the first surprise, and prints"
)]

use std::convert::Infallible;
use std::time::{Duration, Instant};

use event::{Direction, Endpoint, FiveTuple, Fragment, Label, Packet, Protocol, Tcp, TcpFlags, Timestamp};
use features::schema;
use infer::classify::{Classifier, Doubts};
use infer::incident::{IncidentSettings, StormSettings, Tracker};
use infer::pipeline::{Judgement, Pipeline, Settings};
use model::{ClassInfo, ForestBuilder, Input, InputKind, Kind, Meta, Model, Node, Profile, Training, Tree};

const WINDOW: i64 = 5;
const TREES: u64 = 100;
/// Levels of each tree.
const DEPTH: u32 = 12;
const CLASSES: u16 = 12;

fn main() {
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/default.flm");
    let built_in = || Model::load(committed.as_ref()).unwrap();
    let models: [(String, &dyn Fn() -> Model); 2] = [
        (format!("forest of {TREES} trees of depth {DEPTH}, {CLASSES} classes"), &forest),
        ("the model that is built in".to_owned(), &built_in),
    ];
    for (name, model) in models {
        println!("{name}; times are wall time unless said otherwise");
        for rows in [1_000, 10_000, 100_000] {
            lag(rows, model());
        }
        share(model());
    }
}

/// From the packet that closes a window to its verdicts, explained and tallied.
fn lag(rows: u32, model: Model) {
    let mut pipeline = pipeline(rows as usize * 2, model);
    let mut delays = Vec::new();
    let mut judged = 0;
    for window in 0..8 {
        let packets: Vec<Packet> = (0..rows).flat_map(|flow| exchange(window, flow)).collect();
        push(&mut pipeline, &packets, &mut judged);
        let closing = packet(nanos(window + 1, 2_000_000_000), flow(0), 0);
        let begin = Instant::now();
        push(&mut pipeline, &[closing], &mut judged);
        delays.push(begin.elapsed());
    }
    delays.sort();
    println!(
        "{rows:>7} rows a window: {:>8.1?} from its end to its verdicts (median of {})",
        delays[delays.len() / 2],
        delays.len()
    );
    assert!(judged >= u64::from(rows) * 8);
}

/// A minute of 10,000 packets a second over 500 flows.
fn share(model: Model) {
    let mut pipeline = pipeline(100_000, model);
    let mut judged = 0;
    let begin = cpu_time();
    for second in 0..60i64 {
        let packets: Vec<Packet> = (0..10_000u32)
            .map(|place| {
                let at = nanos(0, second * 1_000_000_000 + i64::from(place) * 100_000);
                packet(at, flow(place % 500), place)
            })
            .collect();
        push(&mut pipeline, &packets, &mut judged);
    }
    let used = cpu_time() - begin;
    println!(
        "  10,000 packets/s, 500 flows: {:.2} % of one processor (CPU time), {judged} rows in 60 s; peak memory {} MB",
        used.as_secs_f64() / 60.0 * 100.0,
        peak_kilobytes() / 1024
    );
}

fn push(pipeline: &mut Pipeline, packets: &[Packet], judged: &mut u64) {
    let taken: Result<(), Infallible> = pipeline.push_packets(packets, &mut |judgement: Judgement, _| {
        *judged += judgement.verdicts.len() as u64;
        Ok(())
    });
    taken.unwrap();
}

fn nanos(window: i64, offset: i64) -> i64 {
    (1_700_000_000 + window * WINDOW) * 1_000_000_000 + offset
}

fn flow(number: u32) -> FiveTuple {
    let [_, _, high, low] = number.to_be_bytes();
    let client = format!("198.18.{high}.{low}").parse().unwrap();
    let port = 40_000 + u16::try_from(number >> 16).unwrap();
    let server = Endpoint::new("198.19.0.1".parse().unwrap(), 80);
    FiveTuple::new(Endpoint::new(client, port), server, Protocol::TCP)
}

/// Two packets there and one back.
fn exchange(window: i64, number: u32) -> [Packet; 3] {
    let (at, flow) = (nanos(window, i64::from(number)), flow(number));
    [packet(at, flow, 1), packet(at + 1_000_000, flow.reversed(), 2), packet(at + 2_000_000, flow, 3)]
}

fn packet(nanos: i64, five_tuple: FiveTuple, sequence: u32) -> Packet {
    let time = Timestamp::from_nanos(nanos);
    Packet {
        time,
        arrival: time,
        interface: 0,
        direction: Direction::Unknown,
        tap: event::Tap::Unknown,
        five_tuple,
        l3_length: 540,
        payload_length: 500,
        ttl: 64,
        fragment: Fragment::Whole,
        gso_segments: 1,
        gso_size: 0,
        tcp: Some(Tcp {
            sequence: sequence * 500,
            acknowledgement: 1,
            window: 1000,
            flags: TcpFlags::ACK,
            window_scale: None,
            timestamps: None,
        }),
    }
}

fn pipeline(max_flows: usize, model: Model) -> Pipeline {
    let classifier = Classifier::new(model, Doubts { margin: 0.0, outside: 1.0 }).unwrap();
    let length = classifier.window();
    let tracker = Tracker::new("bench", length, IncidentSettings::default(), StormSettings::default());
    let settings = Settings { lateness: event::Duration::from_secs(1), explained: 32, max_flows };
    Pipeline::new(vec![classifier], tracker, settings, None::<Label>)
}

/// Full trees over inputs and thresholds that a small generator draws: the cost of a forest, not its wisdom.
fn forest() -> Model {
    let inputs: Vec<Input> = schema::inputs()
        .map(|column| Input { name: column.name.to_owned(), kind: InputKind::Numeric })
        .collect();
    let mut state = 1u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut builder = ForestBuilder::new(usize::from(CLASSES));
    for _ in 0..TREES {
        let splits = (1usize << DEPTH) - 1;
        let mut tree = Tree::default();
        for place in 0..splits {
            let input = usize::try_from(draw(inputs.len() as u64)).unwrap();
            let threshold = f32::from(u16::try_from(draw(2_000)).unwrap()) / 2.0;
            tree.nodes.push(Node::split(input, threshold, false, place + 1).unwrap());
        }
        for leaf in 0..=u32::try_from(splits).unwrap() {
            tree.nodes.push(Node::leaf(leaf));
            let mut shares = vec![0; usize::from(CLASSES)];
            shares[usize::try_from(draw(u64::from(CLASSES))).unwrap()] = u16::MAX;
            tree.leaves.extend(shares);
        }
        builder.push(&tree);
    }
    let class = |label: u16| ClassInfo { label, name: label.to_string(), rows: 1, groups: 1 };
    let profile = vec![Profile::of(&[0.0, 1.0, f32::NAN], |_| true); inputs.len()];
    let meta = Meta {
        kind: Kind::RandomForest,
        schema: schema::fingerprint().to_owned(),
        window_ns: u64::try_from(WINDOW).unwrap() * 1_000_000_000,
        inputs,
        classes: (0..CLASSES).map(class).collect(),
        training: Training {
            version: String::new(),
            seed: 0,
            rng: String::new(),
            settings: [].into(),
            data: Vec::new(),
        },
        evaluation: None,
        calibration: None,
    };
    Model::new(&meta, &builder.finish(), &profile).unwrap()
}

/// CPU time of this process, all threads.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let own = stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let total: u64 = threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(total.max(own))
}

fn peak_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
