//! Packets on their way from an input to the engine, with as much of their payload as application messages need.

use event::{Packet, Protocol};

/// Where a packet's payload stands among the bytes of its batch.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// No payload is known: the packet came from a recording, or payload is not wanted.
    const UNKNOWN: Self = Self { start: u32::MAX, end: 0 };
}

/// Packets, and the payload that was captured of them.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub packets: Vec<Packet>,
    /// One for each packet, or none at all where no payload is known.
    spans: Vec<Span>,
    bytes: Vec<u8>,
}

/// The same, lent.
#[derive(Clone, Copy, Debug)]
pub struct Packets<'a> {
    pub packets: &'a [Packet],
    spans: &'a [Span],
    bytes: &'a [u8],
}

impl Batch {
    pub fn clear(&mut self) {
        self.packets.clear();
        self.spans.clear();
        self.bytes.clear();
    }

    /// Adds a packet, and its payload where it is known. A batch has a span for all of its packets or for none.
    #[inline]
    pub fn push(&mut self, packet: &Packet, payload: Option<&[u8]>) {
        self.add_span(packet.five_tuple.protocol, payload);
        self.packets.push(*packet);
    }

    /// Begins anew with places for so many packets, to be filled in where they stand. What was in them does not
    /// matter, so that a batch that is used again is not written twice.
    pub fn begin(&mut self, places: usize) {
        self.packets.resize(places, Packet::default());
        self.spans.clear();
        self.bytes.clear();
    }

    /// The place to be filled in next, where there is one left.
    #[inline]
    pub fn place(&mut self) -> Option<&mut Packet> {
        self.packets.get_mut(self.spans.len())
    }

    /// Keeps what was filled in.
    #[inline]
    pub fn keep(&mut self, payload: Option<&[u8]>) {
        let protocol = self.packets[self.spans.len()].five_tuple.protocol;
        self.add_span(protocol, payload);
    }

    /// Gives up the places that were not filled in.
    pub fn end(&mut self) {
        self.packets.truncate(self.spans.len());
    }

    #[inline]
    fn add_span(&mut self, protocol: Protocol, payload: Option<&[u8]>) {
        let span = payload.map_or(Span::UNKNOWN, |payload| {
            let start = self.bytes.len();
            // Messages are read from these two alone.
            if !payload.is_empty() && matches!(protocol, Protocol::TCP | Protocol::UDP) {
                self.bytes.extend_from_slice(payload);
            }
            let place = |at| u32::try_from(at).expect("a batch of packets is below 4 GiB");
            Span { start: place(start), end: place(self.bytes.len()) }
        });
        self.spans.push(span);
    }

    /// Whether it has no memory to be used again.
    pub fn is_unused(&self) -> bool {
        self.packets.capacity() == 0
    }

    /// Takes over what is lent.
    pub fn copy_from(&mut self, packets: Packets<'_>) {
        self.clear();
        self.packets.extend_from_slice(packets.packets);
        self.spans.extend_from_slice(packets.spans);
        self.bytes.extend_from_slice(packets.bytes);
    }

    pub fn lend(&self) -> Packets<'_> {
        Packets { packets: &self.packets, spans: &self.spans, bytes: &self.bytes }
    }
}

impl From<Vec<Packet>> for Batch {
    fn from(packets: Vec<Packet>) -> Self {
        Self { packets, ..Self::default() }
    }
}

impl<'a> From<&'a [Packet]> for Packets<'a> {
    fn from(packets: &'a [Packet]) -> Self {
        Self { packets, spans: &[], bytes: &[] }
    }
}

impl<'a> Packets<'a> {
    /// What was captured of a packet's payload, where that is known.
    #[inline]
    pub fn payload(&self, at: usize) -> Option<&'a [u8]> {
        let Span { start, end } = *self.spans.get(at)?;
        self.bytes.get(start as usize..end as usize)
    }

    /// The packets that pass a test.
    pub fn only(self, keep: impl Fn(&Packet) -> bool) -> Batch {
        let mut kept = Batch::default();
        for (at, packet) in self.packets.iter().enumerate() {
            if keep(packet) {
                kept.push(packet, self.payload(at));
            }
        }
        kept
    }
}
