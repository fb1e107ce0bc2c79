//! What the tests feed to `infer`: recordings of TCP flows whose loss is known packet by packet, and a model that
//! tells loss by its retransmissions.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use event::{
    Direction, Duration, Endpoint, Event, Fault, FiveTuple, Fragment, Label, Loss, LossCause, Packet,
    Protocol, Source, Tcp, TcpFlags, Timestamp,
};
use features::{Feature, schema};
use model::{ClassInfo, ForestBuilder, Input, InputKind, Kind, Meta, Model, Node, Profile, Training, Tree};
use recording::{Header, Options, Writer};

/// Start of every recording: a window's start.
pub const START: i64 = 1_700_000_000;
pub const WINDOW: i64 = 5;

/// A server of the recordings.
pub const fn server(host: u8) -> Endpoint {
    Endpoint::new(IpAddr::V4(Ipv4Addr::new(198, 18, 1, host)), 80)
}

/// What happens in a recording.
pub struct Script {
    pub node: &'static str,
    pub windows: i64,
    /// Flows to each server.
    pub flows: u16,
    pub servers: u8,
    /// Whether a server's packets are lost in a window.
    pub lossy: fn(window: i64, server: u8) -> bool,
    /// Packets that the recorder lost, per window.
    pub unseen: fn(window: i64) -> u64,
    /// Label of the whole recording.
    pub label: Option<Fault>,
}

impl Default for Script {
    /// 40 windows; loss at the first server in windows 5 to 14.
    fn default() -> Self {
        Self {
            node: "node-1",
            windows: 40,
            flows: 4,
            servers: 2,
            lossy: |window, server| server == 1 && (5..15).contains(&window),
            unseen: |_| 0,
            label: None,
        }
    }
}

impl Script {
    /// Writes the recording.
    pub fn record(&self, path: &Path) {
        let header =
            Header { node: self.node.to_owned(), label: self.label.map(Into::into), ..Header::default() };
        let mut writer = Writer::create(path, &header, Options::default()).unwrap();
        for event in self.events() {
            writer.write(&event).unwrap();
        }
        writer.finish().unwrap();
    }

    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for window in 0..self.windows {
            for host in 1..=self.servers {
                for flow in 0..self.flows {
                    self.exchange(window, host, flow, &mut events);
                }
            }
            let lost = (self.unseen)(window);
            if lost > 0 {
                events.push(loss(window, lost));
            }
        }
        events.sort_by_key(Event::arrival);
        events
    }

    /// One flow in one window: ten segments with their acknowledgements; where packets are lost, every third
    /// segment is sent twice, 300 ms apart.
    fn exchange(&self, window: i64, host: u8, flow: u16, events: &mut Vec<Event>) {
        let client = Endpoint::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2)), 40_000 + flow);
        let there = FiveTuple::new(client, server(host), Protocol::TCP);
        let start = (START + window * WINDOW) * 1_000_000_000 + i64::from(host) * 10_000 + i64::from(flow);
        for place in 0..10u32 {
            let turn = u32::try_from(window).unwrap() * 10 + place;
            let at = start + i64::from(place) * 400_000_000;
            let sequence = 1 + turn * 1000;
            events.push(packet(at, there, sequence, 1, 1000));
            if (self.lossy)(window, host) && place % 3 == 0 {
                events.push(packet(at + 300_000_000, there, sequence, 1, 1000));
            }
            events.push(packet(at + 350_000_000, there.reversed(), 1, sequence + 1000, 0));
        }
    }
}

fn loss(window: i64, count: u64) -> Event {
    let at = Timestamp::from_nanos((START + window * WINDOW + 2) * 1_000_000_000);
    Event::Loss(Loss {
        first: at,
        last: at,
        arrival: at,
        source: Source::Packets,
        cause: LossCause::RingFull,
        interface: None,
        count,
    })
}

fn packet(nanos: i64, five_tuple: FiveTuple, sequence: u32, acknowledgement: u32, payload: u32) -> Event {
    let time = Timestamp::from_nanos(nanos);
    Event::Packet(Packet {
        time,
        arrival: time + Duration::from_millis(2),
        interface: 0,
        direction: Direction::Unknown,
        tap: event::Tap::Unknown,
        five_tuple,
        l3_length: 40 + payload,
        payload_length: payload,
        ttl: 64,
        fragment: Fragment::Whole,
        gso_segments: 1,
        gso_size: 0,
        tcp: Some(Tcp {
            sequence,
            acknowledgement,
            window: 5000,
            flags: TcpFlags::ACK,
            window_scale: None,
            timestamps: None,
        }),
    })
}

/// A model of one split: a row goes by whether one feature is above 0.05.
pub struct Stump {
    pub name: &'static str,
    pub kind: Kind,
    pub schema: String,
    pub feature: Feature,
    /// What is not normal.
    pub fault: Label,
    pub window: i64,
    /// Probability of normal below the split, and above it.
    pub normal: [f32; 2],
}

impl Default for Stump {
    /// A flow with retransmissions is `packet-loss`, any other normal.
    fn default() -> Self {
        Self {
            name: "model.flm",
            kind: Kind::DecisionTree,
            schema: schema::fingerprint().to_owned(),
            feature: Feature::RetransmissionRate,
            fault: Fault::PacketLoss.into(),
            window: WINDOW,
            normal: [0.95, 0.04],
        }
    }
}

/// The model of most tests.
pub fn model(folder: &Path) -> PathBuf {
    Stump::default().save(folder)
}

/// The same model, of a schema that this program does not make.
pub fn foreign_model(folder: &Path) -> PathBuf {
    Stump { schema: "0".repeat(64), ..Stump::default() }.save(folder)
}

/// A model of windows of one second: a flow that was reset is `connection-churn`, any other normal.
pub fn quick_model(folder: &Path) -> PathBuf {
    let fault = Fault::ConnectionChurn.into();
    Stump { feature: Feature::RstCount, fault, window: 1, ..Stump::default() }.save(folder)
}

impl Stump {
    pub fn save(&self, folder: &Path) -> PathBuf {
        let inputs: Vec<Input> = schema::inputs()
            .map(|column| Input { name: column.name.to_owned(), kind: InputKind::Numeric })
            .collect();
        let input = inputs.iter().position(|input| input.name == self.feature.name()).unwrap();
        let mut forest = ForestBuilder::new(2);
        let share = |normal: f32| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of the whole"
            )]
            let normal = (normal * f32::from(u16::MAX)) as u16;
            [normal, u16::MAX - normal]
        };
        forest.push(&Tree {
            nodes: vec![Node::split(input, 0.05, false, 1).unwrap(), Node::leaf(0), Node::leaf(1)],
            leaves: self.normal.into_iter().flat_map(share).collect(),
        });
        let mut column = vec![0.0, 1e12];
        column.extend([f32::NAN; 2]);
        let mut profile = vec![Profile::of(&column, |_| true); inputs.len()];
        profile[input] = Profile::of(&[0.0, 0.0, 0.0, 1e6, f32::NAN], |row| row < 3);
        let class = |label: Label| ClassInfo { label: label.0, name: label.to_string(), rows: 4, groups: 2 };
        let meta = Meta {
            kind: self.kind,
            schema: self.schema.clone(),
            window_ns: u64::try_from(self.window).unwrap() * 1_000_000_000,
            inputs,
            classes: vec![class(Label::NORMAL), class(self.fault)],
            training: Training {
                version: "0.1.0".to_owned(),
                seed: 0,
                rng: "none".to_owned(),
                settings: [].into(),
                data: Vec::new(),
            },
            evaluation: None,
            calibration: None,
        };
        let path = folder.join(self.name);
        std::fs::write(&path, Model::new(&meta, &forest.finish(), &profile).unwrap().to_bytes()).unwrap();
        path
    }
}
