//! A row: one flow in one window, by the schema.

use std::fmt::Write as _;
use std::ops::{Index, IndexMut};

use event::{FiveTuple, Label, Protocol, Timestamp};
use md5::{Digest, Md5};

use crate::Value;
use crate::application::{self, Application};
use crate::endpoint::EndpointWindow;
use crate::names::Names;
use crate::samples::SampleStore;
use crate::schema::{FEATURES, Feature, LABEL, METADATA};
use crate::system::SystemWindow;
use crate::window::FlowWindow;

/// One flow in one window. `row[Feature::PacketCount]` is a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Start of the window.
    pub window: Timestamp,
    /// From the initiator to its peer.
    pub five_tuple: FiveTuple,
    /// First 8 hex digits of the MD5 of the five-tuple's text.
    pub flow_id: [u8; 8],
    /// 0 unknown, 1 HTTP, 2 HTTPS, 3 DNS, 4 gRPC, 5 Kafka.
    pub l7_protocol: u16,
    pub features: [Value; FEATURES],
    /// Absent where nobody gave one.
    pub label: Option<Label>,
}

impl Index<Feature> for Row {
    type Output = Value;
    fn index(&self, feature: Feature) -> &Value {
        &self.features[feature as usize]
    }
}

impl IndexMut<Feature> for Row {
    fn index_mut(&mut self, feature: Feature) -> &mut Value {
        &mut self.features[feature as usize]
    }
}

impl Row {
    /// The hex digits as text.
    pub fn flow_id(&self) -> &str {
        std::str::from_utf8(&self.flow_id).unwrap_or_default()
    }

    /// The cell at a place of [`crate::schema::COLUMNS`].
    ///
    /// # Panics
    /// Where there is no such column.
    pub fn cell(&self, place: usize) -> Value {
        let (source, destination) = (self.five_tuple.source, self.five_tuple.destination);
        match place {
            0 => Value::Float(self.window.as_nanos() as f64 / 1e9),
            1 => Value::Text(self.flow_id().into()),
            2 => Value::Text(source.address.to_string().into()),
            3 => Value::Text(destination.address.to_string().into()),
            4 => source.port.into(),
            5 => destination.port.into(),
            6 => u16::from(self.five_tuple.protocol.0).into(),
            7 => self.l7_protocol.into(),
            LABEL => self.label.map(|label| label.0).into(),
            feature => self.features[feature - METADATA].clone(),
        }
    }
}

/// The text that names a flow, reduced to 8 hex digits. `text` is scratch space.
fn flow_id(tuple: &FiveTuple, text: &mut String) -> [u8; 8] {
    text.clear();
    let _ = write!(text, "{tuple}");
    let digest = Md5::digest(text.as_bytes());
    let mut id = [0; 8];
    for (pair, byte) in id.chunks_exact_mut(2).zip(digest) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    id
}

/// The protocol that the server's port stands for, where nothing else is known.
fn l7_by_port(tuple: &FiveTuple) -> u16 {
    let of = |port| match port {
        80 | 8000 | 8080 => 1,
        443 | 8443 => 2,
        53 | 5353 => 3,
        50051 => 4,
        9092 => 5,
        _ => 0,
    };
    match of(tuple.destination.port) {
        0 => of(tuple.source.port),
        known => known,
    }
}

/// What a row is made of besides the flow's own record.
pub(crate) struct Surroundings<'a> {
    /// Start of the window.
    pub start: Timestamp,
    /// Length of the window in ns.
    pub length: i64,
    pub samples: &'a SampleStore,
    pub endpoint: EndpointWindow,
    pub label: Option<Label>,
    pub application: Option<&'a Application>,
    pub system: &'a SystemWindow,
    /// OOM kills that a probe saw in the window, where there was one.
    pub oom_events: Option<u64>,
    /// Whether anything reports drops.
    pub tells_drops: bool,
    /// Names of addresses, for what nobody else named.
    pub names: &'a Names,
}

const NANOS_PER_MS: f64 = 1e6;
const NANOS_PER_S: f64 = 1e9;

/// Makes the row of a flow's record.
pub(crate) fn row(record: &FlowWindow, around: &Surroundings<'_>, scratch: &mut String) -> Row {
    let five_tuple = record.key.five_tuple(record.initiator.into());
    let mut row = Row {
        window: around.start,
        five_tuple,
        flow_id: flow_id(&five_tuple, scratch),
        l7_protocol: l7_by_port(&five_tuple),
        features: [const { Value::Empty }; FEATURES],
        label: around.label,
    };
    traffic(&mut row, record, around.length);
    if five_tuple.protocol == Protocol::TCP {
        segments(&mut row, record);
        endpoint(&mut row, &around.endpoint);
    }
    timing(&mut row, record);
    responses(&mut row, record, around.samples);
    if around.tells_drops {
        row[Feature::IsBlockedFlow] = false.into();
    }
    application::fill_protocol(&mut row, record.protocol);
    if let Some(application) = around.application {
        application.fill(&mut row);
    }
    let first = Timestamp::from_nanos(record.first).max(around.start);
    let last = Timestamp::from_nanos(record.last);
    application::fill_names(&mut row, |address| around.names.get(address, first, last));
    around.system.fill(&mut row, record.interface, around.oom_events);
    row
}

fn traffic(row: &mut Row, record: &FlowWindow, length: i64) {
    let seconds = length as f64 / NANOS_PER_S;
    let (packets, bytes) = (record.packets(), record.bytes());
    let [forward, backward] = record.traffic;
    let bits = record.unique_bytes as f64 * 8.0;
    row[Feature::PacketCount] = packets.into();
    row[Feature::ByteCount] = bytes.into();
    row[Feature::PacketsPerSecond] = (packets as f64 / seconds).into();
    row[Feature::BytesPerSecond] = (bytes as f64 / seconds).into();
    row[Feature::AvgPacketSize] = (bytes as f64 / packets as f64).into();
    row[Feature::MinPacketSize] = record.smallest.into();
    row[Feature::MaxPacketSize] = record.largest.into();
    row[Feature::PacketSizeVariance] = record.size_variance().into();
    row[Feature::BidirectionalPackets] = packets.into();
    row[Feature::BidirectionalBytes] = bytes.into();
    row[Feature::ForwardPackets] = forward.packets.into();
    row[Feature::BackwardPackets] = backward.packets.into();
    row[Feature::ForwardBytes] = forward.bytes.into();
    row[Feature::BackwardBytes] = backward.bytes.into();
    row[Feature::ConnectionState] = record.state.name().into();
    row[Feature::ErrorRate] = (f64::from(record.errors) / packets as f64).into();
    row[Feature::GoodputMbps] = (bits / seconds / 1e6).into();
    row[Feature::OverheadRatio] = if bytes == 0 {
        0.0.into()
    } else {
        (bytes.saturating_sub(record.unique_bytes) as f64 / bytes as f64).into()
    };
}

fn segments(row: &mut Row, record: &FlowWindow) {
    let counts = &record.segments;
    row[Feature::RetransmissionCount] = counts.retransmitted.into();
    row[Feature::RetransmissionRate] = (f64::from(counts.retransmitted) / record.packets() as f64).into();
    row[Feature::ConsecutiveRetrans] = counts.longest_retransmission_run.into();
    row[Feature::OutOfOrderCount] = counts.out_of_order.into();
    row[Feature::ZeroWindowCount] = counts.zero_window.into();
    row[Feature::ZeroWindowDuration] = (record.zero_window as f64 / NANOS_PER_S).into();
    row[Feature::SynCount] = counts.syn.into();
    row[Feature::SynAckCount] = counts.syn_ack.into();
    row[Feature::FinCount] = counts.fin.into();
    row[Feature::RstCount] = counts.rst.into();
    row[Feature::PshCount] = counts.psh.into();
    row[Feature::AckCount] = counts.ack.into();
    row[Feature::UrgCount] = counts.urg.into();
    row[Feature::EceCount] = counts.ece.into();
    row[Feature::CwrCount] = counts.cwr.into();
}

fn endpoint(row: &mut Row, endpoint: &EndpointWindow) {
    row[Feature::TcpResets] = endpoint.resets.into();
    row[Feature::SynToSynackRatio] = endpoint.syn_to_syn_ack().into();
    row[Feature::HalfOpenConnections] = endpoint.half_open.into();
}

fn timing(row: &mut Row, record: &FlowWindow) {
    let (gaps, jitter) = (&record.gaps, &record.jitter);
    row[Feature::InterArrivalTimeMean] = gaps.mean().map(|mean| mean / NANOS_PER_MS).into();
    row[Feature::InterArrivalTimeStd] =
        gaps.sample_variance().map(|variance| variance.sqrt() / NANOS_PER_MS).into();
    row[Feature::FlowDuration] = ((record.last - record.first).max(0) as f64 / NANOS_PER_S).into();
    row[Feature::InterArrivalJitter] = jitter.mean().map(|mean| mean / NANOS_PER_MS).into();
    row[Feature::JitterVariance] = jitter.sample_variance().map(square_ms).into();
    row[Feature::FlowCompletionTime] =
        (record.completion >= 0).then(|| record.completion as f64 / NANOS_PER_S).into();
}

fn responses(row: &mut Row, record: &FlowWindow, samples: &SampleStore) {
    let latency = &record.latency;
    row[Feature::LatencyMeanMs] = latency.mean().map(|mean| mean / NANOS_PER_MS).into();
    row[Feature::LatencyStdMs] =
        latency.sample_variance().map(|variance| variance.sqrt() / NANOS_PER_MS).into();
    row[Feature::RttVariance] = latency.sample_variance().map(square_ms).into();
    row[Feature::RttEstimateMs] =
        (record.initial_rtt > 0).then(|| record.initial_rtt as f64 / NANOS_PER_MS).into();
    let Some([p50, p95, p99]) = samples.percentiles(record.samples, [50, 95, 99]) else { return };
    row[Feature::LatencyP50Ms] = (p50 / NANOS_PER_MS).into();
    row[Feature::LatencyP95Ms] = (p95 / NANOS_PER_MS).into();
    row[Feature::LatencyP99Ms] = (p99 / NANOS_PER_MS).into();
    // Response times of zero happen where a capture has a coarse clock.
    row[Feature::TailLatencyRatio] = if p50 > 0.0 { Value::Float(p99 / p50) } else { Value::Empty };
}

fn square_ms(square_ns: f64) -> f64 {
    square_ns / (NANOS_PER_MS * NANOS_PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use event::Endpoint;

    #[test]
    fn a_flow_is_named_by_the_md5_of_its_text() {
        let source = Endpoint::new("10.0.0.1".parse().unwrap(), 1234);
        let destination = Endpoint::new("10.0.0.2".parse().unwrap(), 80);
        let tuple = FiveTuple::new(source, destination, Protocol::TCP);
        // printf '10.0.0.1:1234->10.0.0.2:80:6' | md5sum
        assert_eq!(&flow_id(&tuple, &mut String::new()), b"2f15db68");
    }
}
