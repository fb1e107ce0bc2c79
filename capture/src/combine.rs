//! Recordings into one recording: merged by arrival, cut by time and flow, or saved from damage.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::str::FromStr;

use event::{Endpoint, Event, FiveTuple, Protocol, Timestamp};
use md5::{Digest as _, Md5};
use recording::{Error, Header, Interface, Options, Reader, Summary, Writer};

use crate::in_force::NamesInForce;

/// What of the inputs goes into the output.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Events before are left out.
    pub from: Option<Instant>,
    /// This instant and events after it are left out.
    pub to: Option<Instant>,
    /// Packets, kernel events and exchanges of other flows are left out.
    pub flow: Option<Flow>,
}

/// A point in time, or a span after the first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instant {
    At(Timestamp),
    After(event::Duration),
}

impl Instant {
    fn resolve(self, first: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::After(span) => first + span,
        }
    }
}

/// Text that names no instant or no flow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("`{0}` is no time: 2026-11-21T10:00:00Z, 1795257600.5 and +30s are")]
    Instant(String),
    #[error("`{0}` is no flow: 198.18.0.2:40000->198.18.1.2:80:6 and a flow_id of 8 hexadecimal digits are")]
    Flow(String),
}

impl FromStr for Instant {
    type Err = ParseError;

    /// RFC 3339, Unix seconds, or `+30s` and `+1m 30s` from the first event on.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::Instant(text.to_owned());
        let nanos = |nanos: i128| i64::try_from(nanos).map_err(|_| error());
        if let Some(span) = text.strip_prefix('+') {
            let span: jiff::SignedDuration = span.parse().map_err(|_| error())?;
            return Ok(Self::After(event::Duration::from_nanos(nanos(span.as_nanos())?)));
        }
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::At(Timestamp::from_nanos(nanos(time.as_nanosecond())?)));
        }
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = seconds.parse().map_err(|_| error())?;
        let fraction: i64 = match fraction.len() {
            0 => 0,
            1..=9 => format!("{fraction:0<9}").parse().map_err(|_| error())?,
            _ => return Err(error()),
        };
        Ok(Self::At(Timestamp::from_secs(seconds) + event::Duration::from_nanos(fraction)))
    }
}

/// A flow, both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    Tuple(FiveTuple),
    /// The first 4 bytes of the MD5 of the five-tuple's text, as in the column `flow_id`.
    Id([u8; 4]),
}

impl FromStr for Flow {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::Flow(text.to_owned());
        if let Some(tuple) = tuple(text) {
            return Ok(Self::Tuple(tuple));
        }
        let id = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 8).ok_or_else(error)?;
        Ok(Self::Id(id.to_be_bytes()))
    }
}

/// `src:sport->dst:dport:proto`; IPv6 addresses stand with or without brackets.
fn tuple(text: &str) -> Option<FiveTuple> {
    let (source, rest) = text.split_once("->")?;
    let (destination, protocol) = rest.rsplit_once(':')?;
    Some(FiveTuple::new(endpoint(source)?, endpoint(destination)?, Protocol(protocol.parse().ok()?)))
}

fn endpoint(text: &str) -> Option<Endpoint> {
    let (address, port) = text.rsplit_once(':')?;
    let address = address.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(Endpoint::new(address, port.parse().ok()?))
}

impl Flow {
    fn is(&self, five_tuple: FiveTuple) -> bool {
        match self {
            Self::Tuple(tuple) => tuple.canonical() == five_tuple.canonical(),
            Self::Id(id) => [five_tuple, five_tuple.reversed()].iter().any(|tuple| {
                let hash = Md5::digest(tuple.to_string().as_bytes());
                hash.starts_with(id)
            }),
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub struct Combined {
    pub summary: Summary,
    /// Events that were read and left out.
    pub left_out: u64,
}

/// Writes the chosen part of all inputs into a new recording, ordered by arrival; inputs keep their own order, and
/// of equal arrivals those of the first input come first. The readers tell afterwards what they could not read.
///
/// # Errors
/// [`Error::Read`], and as [`Writer::create`] and [`Writer::write`].
pub fn combine(readers: &mut [Reader], output: &Path, part: &Part) -> Result<Combined, Error> {
    let mut inputs: Vec<Input<'_>> = readers.iter_mut().map(Input::open).collect::<Result<_, Error>>()?;
    name_nodes(&mut inputs);
    let mut choice = Choice::new(part, inputs.iter().filter_map(|input| input.next.as_ref()));
    let mut header = header(&inputs);
    let mut sink = None;
    let (mut left_out, mut names) = (0, NamesInForce::default());
    while let Some(input) = earliest(&mut inputs) {
        let Some(mut event) = input.next.take() else { break };
        if choice.takes(&event) {
            // Created only now, when it is known which label was in force.
            let sink = match &mut sink {
                Some(sink) => sink,
                none => {
                    let sink = none.insert(Sink::create(output, &header)?);
                    for name in names.told(choice.from, event.arrival()) {
                        sink.writer.write(&name)?;
                    }
                    sink
                }
            };
            input.place(&mut event, sink)?;
            sink.writer.write(&event)?;
        } else {
            left_out += 1;
            if choice.is_before(&event) {
                names.note(&event);
            }
            if let Event::Mark(mark) = &event
                && choice.is_before(&event)
            {
                header.label = mark.label.or(header.label);
            }
        }
        input.next = input.reader.next_event()?;
    }
    let mut sink = match sink {
        Some(sink) => sink,
        None => Sink::create(output, &header)?,
    };
    sink.writer.add_metadata(complaints(&inputs))?;
    Ok(Combined { summary: sink.writer.finish()?, left_out })
}

/// The output, and the interfaces that it has.
struct Sink {
    writer: Writer,
    interfaces: Vec<Interface>,
}

impl Sink {
    fn create(output: &Path, header: &Header) -> Result<Self, Error> {
        // What is written here is safe in the inputs: chunks need not end early.
        let options = Options { flush_after: None, ..Options::default() };
        Ok(Self { writer: Writer::create(output, header, options)?, interfaces: Vec::new() })
    }

    /// The place of an interface, which is added where it is new.
    fn place(&mut self, interface: Interface) -> Result<u32, Error> {
        if let Some(place) = self.interfaces.iter().position(|other| *other == interface) {
            return Ok(u32::try_from(place).unwrap_or(u32::MAX));
        }
        let place = self.writer.add_interface(&interface)?;
        self.interfaces.push(interface);
        Ok(place)
    }
}

/// Events of several nodes: their interfaces take the node's name before theirs.
fn name_nodes(inputs: &mut [Input<'_>]) {
    let node = |input: &Input<'_>| input.reader.header().node.clone();
    let first = inputs.first().map(node);
    if inputs.iter().any(|input| Some(node(input)) != first) {
        for input in inputs {
            input.prefix = format!("{}/", node(input));
        }
    }
}

/// The first input's, with the labels and nodes on which not all agree taken back or joined.
fn header(inputs: &[Input<'_>]) -> Header {
    let headers = || inputs.iter().map(|input| input.reader.header());
    let Some(mut header) = headers().next().cloned() else { return Header::default() };
    header.interfaces.clear();
    header.metadata = metadata(inputs);
    let mut nodes: Vec<&str> = headers().map(|header| header.node.as_str()).collect();
    nodes.dedup();
    header.node = nodes.join(", ");
    // What is true of the whole: nothing of a sample is complete, and one open address is open.
    header.sample = headers().filter_map(|header| header.sample).max();
    header.anonymized = headers().all(|header| header.anonymized);
    if headers().any(|other| other.boot_id != header.boot_id) {
        // Their clocks do not start at one instant.
        header.boot_id.clear();
        header.clocks.clear();
    }
    header
}

/// All inputs' free metadata. It has to stand before the events, which readers label by it. Where inputs differ, what
/// each says is true of its own events alone: the key then takes the input's name.
fn metadata(inputs: &[Input<'_>]) -> BTreeMap<String, String> {
    let own = |input: &Input<'_>, key: &str| input.reader.header().metadata.get(key).cloned();
    let mut metadata = BTreeMap::new();
    for input in inputs {
        for (key, value) in &input.reader.header().metadata {
            let is_of_all = inputs.iter().all(|other| own(other, key).as_ref() == Some(value));
            let path = input.reader.path().display();
            metadata.insert(if is_of_all { key.clone() } else { format!("{key} of {path}") }, value.clone());
        }
    }
    let paths: Vec<String> = inputs.iter().map(|input| input.reader.path().display().to_string()).collect();
    metadata.insert("combined_from".to_owned(), paths.join(" "));
    metadata
}

/// What inputs lacked, which is known at their end.
fn complaints(inputs: &[Input<'_>]) -> BTreeMap<String, String> {
    let of = |input: &Input<'_>| {
        let complaints = input.reader.report().complaints();
        let key = format!("missing from {}", input.reader.path().display());
        (!complaints.is_empty()).then(|| (key, complaints.join("; ")))
    };
    inputs.iter().filter_map(of).collect()
}

/// Whose next event arrived first, the first input of equals.
fn earliest<'a, 'b>(inputs: &'a mut [Input<'b>]) -> Option<&'a mut Input<'b>> {
    inputs
        .iter_mut()
        .filter(|input| input.next.is_some())
        .min_by_key(|input| input.next.as_ref().map(Event::arrival))
}

/// Decides on events.
struct Choice {
    from: Timestamp,
    to: Timestamp,
    flow: Option<Flow>,
    /// Five-tuples that were decided on: a hash for each packet would be too much.
    decided: HashMap<FiveTuple, bool>,
}

impl Choice {
    fn new<'a>(part: &Part, firsts: impl Iterator<Item = &'a Event>) -> Self {
        let first = firsts.map(Event::time).min().unwrap_or(Timestamp::UNIX_EPOCH);
        Self {
            from: part.from.map_or(Timestamp::MIN, |from| from.resolve(first)),
            to: part.to.map_or(Timestamp::MAX, |to| to.resolve(first)),
            flow: part.flow.clone(),
            decided: HashMap::new(),
        }
    }

    fn is_before(&self, event: &Event) -> bool {
        event.time() < self.from
    }

    fn takes(&mut self, event: &Event) -> bool {
        if self.is_before(event) || event.time() >= self.to {
            return false;
        }
        match event {
            Event::Packet(packet) => self.takes_flow(packet.five_tuple),
            Event::Kernel(event) => event.five_tuple.is_none_or(|tuple| self.takes_flow(tuple)),
            Event::L7(flow) => self.takes_flow(flow.five_tuple),
            Event::System(_) | Event::Mark(_) | Event::Loss(_) | Event::Naming(_) => true,
        }
    }

    fn takes_flow(&mut self, five_tuple: FiveTuple) -> bool {
        match &self.flow {
            None => true,
            Some(flow) => *self.decided.entry(five_tuple).or_insert_with(|| flow.is(five_tuple)),
        }
    }
}

/// An input at its next event.
struct Input<'a> {
    reader: &'a mut Reader,
    next: Option<Event>,
    /// The place of each of its interfaces in the output.
    places: Vec<u32>,
    /// What tells its interfaces from those of other nodes.
    prefix: String,
}

impl<'a> Input<'a> {
    fn open(reader: &'a mut Reader) -> Result<Self, Error> {
        let next = reader.next_event()?;
        Ok(Self { reader, next, places: Vec::new(), prefix: String::new() })
    }

    /// Gives the event's interfaces their places in the output.
    fn place(&mut self, event: &mut Event, sink: &mut Sink) -> Result<(), Error> {
        for interface in self.reader.header().interfaces.iter().skip(self.places.len()) {
            let name = format!("{}{}", self.prefix, interface.name);
            self.places.push(sink.place(Interface { name, ..interface.clone() })?);
        }
        let place = |interface: &mut u32| {
            if let Some(place) = self.places.get(*interface as usize) {
                *interface = *place;
            }
        };
        match event {
            Event::Packet(packet) => place(&mut packet.interface),
            Event::System(snapshot) => {
                snapshot.pods.iter_mut().flat_map(|pod| &mut pod.interfaces).for_each(place);
            }
            Event::Loss(loss) => loss.interface.iter_mut().for_each(place),
            Event::Kernel(_) | Event::L7(_) | Event::Mark(_) | Event::Naming(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_in_three_ways() {
        let at = |nanos| Ok(Instant::At(Timestamp::from_nanos(nanos)));
        assert_eq!("1970-01-01T00:01:40.5Z".parse(), at(100_500_000_000));
        assert_eq!("100.5".parse(), at(100_500_000_000));
        assert_eq!("100".parse(), at(100_000_000_000));
        assert_eq!("+1m 30s".parse(), Ok(Instant::After(event::Duration::from_secs(90))));
        assert!("yesterday".parse::<Instant>().is_err());
    }

    #[test]
    fn flows_are_found_by_tuple_and_id_in_both_directions() {
        let tuple = tuple("198.18.0.2:40000->198.18.1.2:80:6").unwrap();
        // printf '198.18.0.2:40000->198.18.1.2:80:6' | md5sum
        let id: Flow = "0a6ea3ac".parse().unwrap();
        let named: Flow = "198.18.1.2:80->198.18.0.2:40000:6".parse().unwrap();
        for flow in [id, named] {
            assert!(flow.is(tuple) && flow.is(tuple.reversed()));
            let other = FiveTuple { protocol: Protocol::UDP, ..tuple };
            assert!(!flow.is(other));
        }
        assert!("[2001:db8::1]:1->2001:db8::2:2:17".parse::<Flow>().is_ok());
        assert!("12345".parse::<Flow>().is_err());
    }
}
