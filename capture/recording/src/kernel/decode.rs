//! Columns into kernel events.

use std::collections::HashMap;

use event::{Duration, Endpoint, FiveTuple, KernelEvent, KernelEventKind, Protocol, Timestamp};
use foldhash::fast::RandomState;

use super::columns::Columns;
use super::{MAX_BATCH, code};
use crate::addresses::Addresses;
use crate::column::{Malformed, Steps, Walk, all_exhausted, narrow};
use crate::message;
use crate::recent::Recent;

/// A kernel event, or none where a newer minor version knows its kind; and where it stands in the recording.
pub(crate) struct Placed {
    pub event: Option<KernelEvent>,
    /// Packets that were recorded before it.
    pub packets_before: u64,
    /// Messages of other channels before it in the chunk.
    pub others_before: u64,
}

/// The events of a batch, in their order.
pub(crate) fn decode(columns: &Columns) -> Result<Vec<Placed>, Malformed> {
    if columns.count as usize > MAX_BATCH {
        return Err(Malformed::TooMany { count: columns.count, most: MAX_BATCH });
    }
    let flows = read_flows(columns)?;
    let kinds = read_kinds(columns)?;
    let unit = i64::from(columns.time_unit.max(1));
    let mut steps = Steps::new(&columns.time_high, &columns.time_middle, &columns.time_low);
    let mut arrivals = Arrivals::new(columns, unit);
    let mut used = Used { flows, next: 0, recent: Recent::default() };
    let mut rtts: HashMap<Option<FiveTuple>, i64, RandomState> = HashMap::default();
    let [mut kind, mut flow, mut repeats, mut rtt, mut packets, mut others] = [
        &columns.kind,
        &columns.flow,
        &columns.repeats,
        &columns.rtt,
        &columns.packets_before,
        &columns.others_before,
    ]
    .map(|column| Walk::new(column));
    let (mut time, mut packets_before, mut others_before) = (columns.base_time, 0u64, 0u64);
    let mut events = Vec::with_capacity(columns.count as usize);
    for _ in 0..columns.count {
        time = time.wrapping_add(steps.next().wrapping_mul(unit));
        let arrival = arrivals.next()?;
        packets_before = packets_before.wrapping_add(packets.next());
        others_before = others_before.wrapping_add(others.next());
        let five_tuple = used.flow(flow.next())?;
        let count = narrow(repeats.next_signed().wrapping_add(1) as u64, "repeats")?;
        let place = usize::try_from(kind.next()).ok();
        let mut told = place.and_then(|place| kinds.get(place)).ok_or(Malformed::Value("kind"))?.clone();
        if let Some(KernelEventKind::SmoothedRtt { rtt: told }) = &mut told {
            let last = rtts.entry(five_tuple).or_default();
            *last = last.wrapping_add(rtt.next_signed().wrapping_mul(unit));
            *told = Duration::from_nanos(*last);
        }
        events.push(Placed {
            event: told.map(|kind| KernelEvent {
                time: Timestamp::from_nanos(time),
                arrival,
                five_tuple,
                kind,
                count,
            }),
            packets_before,
            others_before,
        });
    }
    steps.finish()?;
    arrivals.finish()?;
    all_exhausted([
        ("kind", kind),
        ("flow", flow),
        ("repeats", repeats),
        ("rtt", rtt),
        ("packets_before", packets),
        ("others_before", others),
    ])?;
    Ok(events)
}

fn read_flows(columns: &Columns) -> Result<Vec<FiveTuple>, Malformed> {
    if columns.flows > columns.count {
        return Err(Malformed::Length("flows"));
    }
    let mut addresses = Addresses::default();
    addresses.read(&columns.ipv4, &columns.ipv6)?;
    let mut reverse = Walk::new(&columns.flow_reverse);
    let mut source = Walk::new(&columns.flow_source);
    let mut destination = Walk::new(&columns.flow_destination);
    let mut source_port = Walk::new(&columns.flow_source_port);
    let mut destination_port = Walk::new(&columns.flow_destination_port);
    let mut protocol = Walk::new(&columns.flow_protocol);
    let mut flows: Vec<FiveTuple> = Vec::with_capacity(columns.flows as usize);
    let mut port = 0u16;
    for flow in 0..columns.flows as usize {
        let distance = reverse.next() as usize;
        if distance > 0 {
            let other = flow.checked_sub(distance).ok_or(Malformed::Value("flow_reverse"))?;
            flows.push(flows[other].reversed());
            continue;
        }
        port = port.wrapping_add(source_port.next_signed() as u16);
        flows.push(FiveTuple::new(
            Endpoint::new(addresses.get(source.next(), "flow_source")?, port),
            Endpoint::new(
                addresses.get(destination.next(), "flow_destination")?,
                narrow(destination_port.next(), "flow_destination_port")?,
            ),
            Protocol(narrow(protocol.next(), "flow_protocol")?),
        ));
    }
    all_exhausted([
        ("flow_reverse", reverse),
        ("flow_source", source),
        ("flow_destination", destination),
        ("flow_source_port", source_port),
        ("flow_destination_port", destination_port),
        ("flow_protocol", protocol),
    ])?;
    Ok(flows)
}

/// `None` where only a newer version knows a kind.
fn read_kinds(columns: &Columns) -> Result<Vec<Option<KernelEventKind>>, Malformed> {
    if columns.kinds.len() > columns.count as usize {
        return Err(Malformed::Length("kinds"));
    }
    let kind = |told: &_| message::kernel_kind(told).map_err(|_| Malformed::Value("kinds"));
    columns.kinds.iter().map(kind).collect()
}

/// Arrivals, which stand in runs.
struct Arrivals<'a> {
    run: Walk<'a>,
    difference: Walk<'a>,
    unit: i64,
    arrival: i64,
    left: u64,
}

impl<'a> Arrivals<'a> {
    fn new(columns: &'a Columns, unit: i64) -> Self {
        Self {
            run: Walk::new(&columns.arrival_run),
            difference: Walk::new(&columns.arrival),
            unit,
            arrival: columns.base_time,
            left: 0,
        }
    }

    fn next(&mut self) -> Result<Timestamp, Malformed> {
        if self.left == 0 {
            self.left = self.run.next();
            self.arrival = self.arrival.wrapping_add(self.difference.next_signed().wrapping_mul(self.unit));
        }
        self.left = self.left.checked_sub(1).ok_or(Malformed::Value("arrival_run"))?;
        Ok(Timestamp::from_nanos(self.arrival))
    }

    fn finish(self) -> Result<(), Malformed> {
        if self.left != 0 {
            return Err(Malformed::Length("arrival_run"));
        }
        all_exhausted([("arrival_run", self.run), ("arrival", self.difference)])
    }
}

/// The flows of the batch, and those used lately.
struct Used {
    flows: Vec<FiveTuple>,
    /// The next that is new.
    next: u32,
    recent: Recent,
}

impl Used {
    fn flow(&mut self, code: u64) -> Result<Option<FiveTuple>, Malformed> {
        let bad = || Malformed::Value("flow");
        let flow = match code {
            code::NONE => return Ok(None),
            code::NEW => {
                self.next += 1;
                self.recent.insert(self.next - 1);
                self.next - 1
            }
            code::RECENT..code::NUMBERED => {
                let rank = (code - code::RECENT) as usize;
                let flow = self.recent.at(rank).ok_or_else(bad)?;
                self.recent.promote(rank);
                flow
            }
            _ => {
                let flow = u32::try_from(code - code::NUMBERED).map_err(|_| bad())?;
                self.recent.insert(flow);
                flow
            }
        };
        Ok(Some(*self.flows.get(flow as usize).filter(|_| flow < self.next).ok_or_else(bad)?))
    }
}
