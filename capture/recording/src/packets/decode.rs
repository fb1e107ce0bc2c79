//! Columns into packets.

use event::{Direction, Endpoint, FiveTuple, Fragment, Packet, Protocol, Tap, Tcp, TcpFlags, Timestamp};
use prost::Message as _;

use super::MAX_BATCH;
use super::columns::Columns;
use super::foretell::{self, Cousins, Lane, NONE};
use crate::addresses::Addresses;
use crate::column::{Malformed, Steps, Walk, all_exhausted, narrow, unzigzag};
use crate::recent::Recent;

/// What the packets of a shape have in common.
#[derive(Clone, Copy)]
struct Shape {
    header_length: u32,
    fragment: Fragment,
    gso_size: u16,
    tcp: Option<Tcp>,
}

/// Unfolds batches; keeps its memory from one to the next.
#[derive(Default)]
pub(crate) struct Decoder {
    columns: Columns,
    addresses: Addresses,
    /// A packet per lane with all that the lane determines.
    templates: Vec<Packet>,
    /// Per lane: the one it answers, and its cousin.
    kin: Vec<(u32, u32)>,
    cousins: Cousins,
    lanes: Vec<Lane>,
    recent: Recent,
    shapes: Vec<Shape>,
}

/// The columns that are walked packet by packet.
struct Walks<'a> {
    steps: Steps<'a>,
    arrival_run: Walk<'a>,
    arrival: Walk<'a>,
    lane: Walk<'a>,
    shape: Walk<'a>,
    payload_length: Walk<'a>,
    gso_segments: Walk<'a>,
    sequence: Walk<'a>,
    acknowledgement: Walk<'a>,
    window: Walk<'a>,
    timestamp_value: Walk<'a>,
    timestamp_echo: Walk<'a>,
}

impl Decoder {
    /// Appends the packets of `message` to `packets`, or nothing where it is malformed.
    pub fn decode(&mut self, message: &[u8], packets: &mut Vec<Packet>) -> Result<(), Malformed> {
        self.columns.clear();
        self.columns.merge(message).map_err(Malformed::Protobuf)?;
        if self.columns.count as usize > MAX_BATCH {
            return Err(Malformed::TooMany { count: self.columns.count, most: MAX_BATCH });
        }
        self.addresses.read(&self.columns.ipv4, &self.columns.ipv6)?;
        self.read_lanes()?;
        self.read_shapes()?;
        let before = packets.len();
        let result = self.read_packets(packets);
        if result.is_err() {
            packets.truncate(before);
        }
        result
    }

    fn read_lanes(&mut self) -> Result<(), Malformed> {
        let columns = &self.columns;
        self.kin.clear();
        self.cousins.clear();
        self.templates.clear();
        if columns.lanes > columns.count {
            return Err(Malformed::Length("lanes"));
        }
        let mut reverse = Walk::new(&columns.lane_reverse);
        let mut source = Walk::new(&columns.lane_source);
        let mut destination = Walk::new(&columns.lane_destination);
        let mut source_port = Walk::new(&columns.lane_source_port);
        let mut destination_port = Walk::new(&columns.lane_destination_port);
        let mut protocol = Walk::new(&columns.lane_protocol);
        let mut interface = Walk::new(&columns.lane_interface);
        let mut direction = Walk::new(&columns.lane_direction);
        let mut ttl = Walk::new(&columns.lane_ttl);
        let mut tap = Walk::new(&columns.lane_tap);
        for lane in 0..columns.lanes as usize {
            let distance = reverse.next() as usize;
            let (five_tuple, kin) = if distance == 0 {
                let from = self.addresses.get(source.next(), "lane_source")?;
                let to = Endpoint::new(
                    self.addresses.get(destination.next(), "lane_destination")?,
                    narrow(destination_port.next(), "lane_destination_port")?,
                );
                let protocol = Protocol(narrow(protocol.next(), "lane_protocol")?);
                let cousin = self.cousins.replace(from, to, protocol, lane as u32);
                let cousin_port =
                    self.templates.get(cousin as usize).map_or(0, |lane| lane.five_tuple.source.port);
                let port = cousin_port.wrapping_add(source_port.next_signed() as u16);
                (FiveTuple::new(Endpoint::new(from, port), to, protocol), (NONE, cousin))
            } else {
                let answered = lane.checked_sub(distance).ok_or(Malformed::Value("lane_reverse"))?;
                (self.templates[answered].five_tuple.reversed(), (answered as u32, NONE))
            };
            self.kin.push(kin);
            self.templates.push(Packet {
                time: Timestamp::UNIX_EPOCH,
                arrival: Timestamp::UNIX_EPOCH,
                interface: narrow(interface.next(), "lane_interface")?,
                direction: match direction.next() {
                    0 => Direction::Unknown,
                    1 => Direction::Ingress,
                    2 => Direction::Egress,
                    _ => return Err(Malformed::Value("lane_direction")),
                },
                tap: match tap.next() {
                    0 => Tap::Unknown,
                    1 => Tap::Primary,
                    2 => Tap::Secondary,
                    _ => return Err(Malformed::Value("lane_tap")),
                },
                five_tuple,
                l3_length: 0,
                payload_length: 0,
                ttl: narrow(ttl.next(), "lane_ttl")?,
                fragment: Fragment::Whole,
                gso_segments: 0,
                gso_size: 0,
                tcp: None,
            });
        }
        all_exhausted([
            ("lane_reverse", reverse),
            ("lane_source", source),
            ("lane_destination", destination),
            ("lane_source_port", source_port),
            ("lane_destination_port", destination_port),
            ("lane_protocol", protocol),
            ("lane_interface", interface),
            ("lane_direction", direction),
            ("lane_ttl", ttl),
            ("lane_tap", tap),
        ])
    }

    fn read_shapes(&mut self) -> Result<(), Malformed> {
        let columns = &self.columns;
        self.shapes.clear();
        if columns.shapes > columns.count {
            return Err(Malformed::Length("shapes"));
        }
        let mut header_length = Walk::new(&columns.shape_header_length);
        let mut fragment = Walk::new(&columns.shape_fragment);
        let mut gso_size = Walk::new(&columns.shape_gso_size);
        let mut flags = Walk::new(&columns.shape_tcp_flags);
        let mut window_scale = Walk::new(&columns.shape_window_scale);
        let mut timestamps = Walk::new(&columns.shape_timestamps);
        for _ in 0..columns.shapes {
            let scale = match window_scale.next() {
                0 => None,
                scale => Some(narrow(scale - 1, "shape_window_scale")?),
            };
            let has_timestamps = timestamps.next() != 0;
            self.shapes.push(Shape {
                header_length: narrow(header_length.next(), "shape_header_length")?,
                fragment: match fragment.next() {
                    0 => Fragment::Whole,
                    1 => Fragment::First,
                    2 => Fragment::Later,
                    _ => return Err(Malformed::Value("shape_fragment")),
                },
                gso_size: narrow(gso_size.next(), "shape_gso_size")?,
                tcp: match flags.next() {
                    0 => None,
                    flags => Some(Tcp {
                        flags: TcpFlags(narrow(flags - 1, "shape_tcp_flags")?),
                        window_scale: scale,
                        timestamps: has_timestamps.then_some((0, 0)),
                        ..Tcp::default()
                    }),
                },
            });
        }
        all_exhausted([
            ("shape_header_length", header_length),
            ("shape_fragment", fragment),
            ("shape_gso_size", gso_size),
            ("shape_tcp_flags", flags),
            ("shape_window_scale", window_scale),
            ("shape_timestamps", timestamps),
        ])
    }

    fn read_packets(&mut self, packets: &mut Vec<Packet>) -> Result<(), Malformed> {
        let columns = &self.columns;
        let mut walks = Walks::new(columns);
        let unit = i64::from(columns.time_unit.max(1));
        let is_late = !columns.arrival_run.is_empty();
        let (mut time, mut arrival, mut run) = (columns.base_time, columns.base_time, 0);
        self.lanes.clear();
        self.recent.clear();
        packets.reserve(columns.count as usize);
        for _ in 0..columns.count {
            time = time.wrapping_add(walks.steps.next().wrapping_mul(unit));
            if is_late {
                if run == 0 {
                    run = walks.arrival_run.next();
                    arrival = arrival.wrapping_add(walks.arrival.next_signed());
                    if run == 0 {
                        return Err(Malformed::Value("arrival_run"));
                    }
                }
                run -= 1;
            } else {
                arrival = time;
            }
            let lane = next_lane(&mut self.lanes, &mut self.recent, &self.kin, walks.lane.next())?;
            let mut packet = self.templates[lane];
            packet.time = Timestamp::from_nanos(time);
            packet.arrival = Timestamp::from_nanos(arrival);
            if let Some(shape) = walks.shape.next().checked_sub(1) {
                self.lanes[lane].shape = narrow(shape, "shape")?;
            }
            let shape = self.shapes.get(self.lanes[lane].shape as usize).ok_or(Malformed::Value("shape"))?;
            packet.payload_length = narrow(walks.payload_length.next(), "payload_length")?;
            packet.l3_length = packet.payload_length.wrapping_add(shape.header_length);
            packet.fragment = shape.fragment;
            packet.gso_size = shape.gso_size;
            packet.gso_segments = foretell::segments(packet.payload_length, packet.gso_size)
                .wrapping_add(walks.gso_segments.next_signed() as u16);
            if let Some(mut tcp) = shape.tcp {
                walks.read_tcp(&mut tcp, &self.lanes, lane, time);
                foretell::learn(&mut self.lanes, lane, &tcp, packet.payload_length, time);
                packet.tcp = Some(tcp);
            }
            packets.push(packet);
        }
        if run != 0 {
            return Err(Malformed::Length("arrival_run"));
        }
        walks.finish()
    }
}

/// The lane of the next packet by its code: a new one, one that was used lately, or the one it names.
#[inline]
fn next_lane(
    lanes: &mut Vec<Lane>,
    recent: &mut Recent,
    kin: &[(u32, u32)],
    code: u64,
) -> Result<usize, Malformed> {
    const NAMED: u64 = 1 + Recent::MOST as u64;
    if code == 0 {
        let lane = lanes.len();
        let (reverse, cousin) = *kin.get(lane).ok_or(Malformed::Value("lane"))?;
        foretell::open(lanes, reverse, cousin);
        recent.insert(lane as u32);
        return Ok(lane);
    }
    if code < NAMED {
        let rank = code as usize - 1;
        let lane = recent.at(rank).ok_or(Malformed::Value("lane"))?;
        recent.promote(rank);
        return Ok(lane as usize);
    }
    let lane = usize::try_from(code - NAMED).unwrap_or(usize::MAX);
    if lane >= lanes.len() {
        return Err(Malformed::Value("lane"));
    }
    recent.insert(lane as u32);
    Ok(lane)
}

impl<'a> Walks<'a> {
    fn new(columns: &'a Columns) -> Self {
        Self {
            steps: Steps::new(&columns.time_high, &columns.time_middle, &columns.time_low),
            arrival_run: Walk::new(&columns.arrival_run),
            arrival: Walk::new(&columns.arrival),
            lane: Walk::new(&columns.lane),
            shape: Walk::new(&columns.shape),
            payload_length: Walk::new(&columns.payload_length),
            gso_segments: Walk::new(&columns.gso_segments),
            sequence: Walk::new(&columns.sequence),
            acknowledgement: Walk::new(&columns.acknowledgement),
            window: Walk::new(&columns.window),
            timestamp_value: Walk::new(&columns.timestamp_value),
            timestamp_echo: Walk::new(&columns.timestamp_echo),
        }
    }

    #[inline]
    fn read_tcp(&mut self, tcp: &mut Tcp, lanes: &[Lane], lane: usize, time: i64) {
        let expected = foretell::expect(lanes, lane, tcp.flags, time);
        tcp.sequence = expected.sequence.wrapping_add(self.sequence.next_signed() as u32);
        tcp.acknowledgement = unless_expected(
            self.acknowledgement.next(),
            expected.acknowledgement,
            expected.last_acknowledgement,
        );
        tcp.window = expected.window.wrapping_add(self.window.next_signed() as u16);
        if let Some((value, echo)) = &mut tcp.timestamps {
            *value = expected.timestamp_value.wrapping_add(self.timestamp_value.next_signed() as u32);
            *echo = unless_expected(
                self.timestamp_echo.next(),
                expected.timestamp_echo,
                expected.last_timestamp_echo,
            );
        }
    }

    fn finish(self) -> Result<(), Malformed> {
        self.steps.finish()?;
        all_exhausted([
            ("arrival_run", self.arrival_run),
            ("arrival", self.arrival),
            ("lane", self.lane),
            ("shape", self.shape),
            ("payload_length", self.payload_length),
            ("gso_segments", self.gso_segments),
            ("sequence", self.sequence),
            ("acknowledgement", self.acknowledgement),
            ("window", self.window),
            ("timestamp_value", self.timestamp_value),
            ("timestamp_echo", self.timestamp_echo),
        ])
    }
}

#[inline]
fn unless_expected(code: u64, expected: u32, last: u32) -> u32 {
    match code.checked_sub(1) {
        None => expected,
        Some(difference) => last.wrapping_add(unzigzag(difference) as u32),
    }
}
