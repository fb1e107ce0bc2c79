//! Events as protobuf messages and back, one file per channel; packets have a codec of their own.

mod kernel;
mod l7;
mod loss;
mod mark;
mod system;

use std::net::IpAddr;

use event::{Duration, Endpoint, Event, FiveTuple, Protocol, Source, Timestamp};
use prost::Message as _;

pub(crate) use kernel::kind as kernel_kind;

use crate::kernel::Columns;

/// The types that the build script makes of proto/recording.proto. `Packets` among them and `Kernel.Batch` describe what
/// [`crate::packets`] and [`crate::kernel`] code by hand; tests hold the two together.
#[allow(clippy::all, unused_qualifications, dead_code)]
pub(crate) mod proto {
    include!(concat!(env!("OUT_DIR"), "/faultline.rs"));
}

macro_rules! descriptors {
    ($message:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $message, ".fds"))
    };
}

/// The descriptors of a channel's message: the schema that stands in every recording.
pub(crate) const fn descriptors(source: Source) -> &'static [u8] {
    match source {
        Source::Packets => descriptors!("Packets"),
        Source::Kernel => descriptors!("Kernel"),
        Source::L7 => descriptors!("L7"),
        Source::System => descriptors!("System"),
        Source::Marks => descriptors!("Mark"),
        Source::Loss => descriptors!("Loss"),
    }
}

/// Why a message is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    #[error("not protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` is out of its range")]
    Range(&'static str),
}

/// A decoded event and the number of packets that were recorded before it; `None` where a newer minor version
/// knows a kind of event that this one does not.
pub(crate) type Placed = (Option<Event>, u64);

/// An event of the channels that have a message for each.
///
/// # Panics
/// On packets and kernel events: the writer puts them into batches.
pub(crate) fn encode(event: &Event, packets_before: u64) -> Vec<u8> {
    let stamp = Some(stamp(event.time(), event.arrival(), packets_before));
    match event {
        Event::Packet(_) | Event::Kernel(_) => unreachable!("they are written in batches"),
        Event::L7(event) => proto::L7 { stamp, ..event.as_ref().into() }.encode_to_vec(),
        Event::System(event) => proto::System { stamp, ..event.as_ref().into() }.encode_to_vec(),
        Event::Mark(event) => proto::Mark { stamp, ..event.into() }.encode_to_vec(),
        Event::Loss(event) => proto::Loss { stamp, ..event.into() }.encode_to_vec(),
        Event::Naming(event) => proto::L7 { stamp, ..event.as_ref().into() }.encode_to_vec(),
    }
}

/// A batch of kernel events. Readers of 1.1 find an event of a kind that they do not know, at this time.
pub(crate) fn encode_kernel(batch: Columns, first: (Timestamp, Timestamp), packets_before: u64) -> Vec<u8> {
    let stamp = Some(stamp(first.0, first.1, packets_before));
    proto::Kernel { stamp, batch: Some(batch), ..proto::Kernel::default() }.encode_to_vec()
}

/// What a message of the kernel channel holds.
pub(crate) enum KernelMessage {
    Batch(Box<Columns>),
    /// Before 1.2.
    One(Placed),
}

pub(crate) fn decode_kernel(data: &[u8]) -> Result<KernelMessage, BadMessage> {
    let mut message = proto::Kernel::decode(data)?;
    if let Some(batch) = message.batch.take() {
        return Ok(KernelMessage::Batch(Box::new(batch)));
    }
    let before = packets_before(message.stamp.as_ref());
    Ok(KernelMessage::One((kernel::decode(message)?.map(Event::Kernel), before)))
}

pub(crate) fn decode_l7(data: &[u8]) -> Result<Placed, BadMessage> {
    let message = proto::L7::decode(data)?;
    let before = packets_before(message.stamp.as_ref());
    Ok((l7::decode(message)?, before))
}

pub(crate) fn decode_system(data: &[u8]) -> Result<Placed, BadMessage> {
    let message = proto::System::decode(data)?;
    let before = packets_before(message.stamp.as_ref());
    Ok((Some(Event::System(Box::new(system::decode(message)?))), before))
}

pub(crate) fn decode_mark(data: &[u8]) -> Result<Placed, BadMessage> {
    let message = proto::Mark::decode(data)?;
    let before = packets_before(message.stamp.as_ref());
    Ok((Some(Event::Mark(mark::decode(message)?)), before))
}

pub(crate) fn decode_loss(data: &[u8]) -> Result<Placed, BadMessage> {
    let message = proto::Loss::decode(data)?;
    let before = packets_before(message.stamp.as_ref());
    Ok((loss::decode(message)?.map(Event::Loss), before))
}

fn stamp(time: Timestamp, arrival: Timestamp, packets_before: u64) -> proto::Stamp {
    let lateness = arrival.as_nanos().wrapping_sub(time.as_nanos());
    proto::Stamp { time: time.as_nanos(), lateness, packets_before }
}

fn packets_before(stamp: Option<&proto::Stamp>) -> u64 {
    stamp.map_or(0, |stamp| stamp.packets_before)
}

/// Time and arrival.
fn times(stamp: Option<proto::Stamp>) -> Result<(Timestamp, Timestamp), BadMessage> {
    let stamp = stamp.ok_or(BadMessage::Missing("stamp"))?;
    let arrival = stamp.time.wrapping_add(stamp.lateness);
    Ok((Timestamp::from_nanos(stamp.time), Timestamp::from_nanos(arrival)))
}

fn narrow<T: TryFrom<W>, W>(value: W, field: &'static str) -> Result<T, BadMessage> {
    T::try_from(value).map_err(|_| BadMessage::Range(field))
}

fn narrow_option<T: TryFrom<W>, W>(value: Option<W>, field: &'static str) -> Result<Option<T>, BadMessage> {
    value.map(|value| narrow(value, field)).transpose()
}

fn nanos(duration: Duration) -> i64 {
    duration.as_nanos()
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Result<IpAddr, BadMessage> {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(octets), _) => Ok(IpAddr::from(octets)),
        (_, Ok(octets)) => Ok(IpAddr::from(octets)),
        _ => Err(BadMessage::Range("address")),
    }
}

impl From<Endpoint> for proto::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self { address: address_bytes(endpoint.address), port: endpoint.port.into() }
    }
}

impl TryFrom<proto::Endpoint> for Endpoint {
    type Error = BadMessage;

    fn try_from(endpoint: proto::Endpoint) -> Result<Self, BadMessage> {
        Ok(Self::new(address(&endpoint.address)?, narrow(endpoint.port, "port")?))
    }
}

impl From<FiveTuple> for proto::FiveTuple {
    fn from(five_tuple: FiveTuple) -> Self {
        Self {
            source: Some(five_tuple.source.into()),
            destination: Some(five_tuple.destination.into()),
            protocol: five_tuple.protocol.0.into(),
        }
    }
}

impl TryFrom<proto::FiveTuple> for FiveTuple {
    type Error = BadMessage;

    fn try_from(five_tuple: proto::FiveTuple) -> Result<Self, BadMessage> {
        Ok(Self {
            source: five_tuple.source.ok_or(BadMessage::Missing("source"))?.try_into()?,
            destination: five_tuple.destination.ok_or(BadMessage::Missing("destination"))?.try_into()?,
            protocol: Protocol(narrow(five_tuple.protocol, "protocol")?),
        })
    }
}
