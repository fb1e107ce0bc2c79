//! One captured frame to one [`Packet`].

use event::{Direction, FiveTuple, Fragment, Packet, Tap, Timestamp};

use crate::fragment::Fragments;
use crate::ip::{self, Datagram};
use crate::layer::Layer;
use crate::link::{self, LinkType};
use crate::skip::Skip;
use crate::transport::{self, Header, Transport};
use crate::tunnel::{self, Tunnel};

/// Tunnels within tunnels that are followed. Real ones nest two or three deep; each level of a crafted
/// packet may take as few as 20 bytes.
const MAX_TUNNELS: usize = 8;

/// One frame as it was captured.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub time: Timestamp,
    /// Index into the interface table of the input.
    pub interface: u32,
    pub link: LinkType,
    pub direction: Direction,
    pub captured: &'a [u8],
    /// Bytes on the wire.
    pub length: usize,
}

/// A packet and the application's bytes in it.
#[derive(Clone, Copy, Debug)]
pub struct Dissected<'a> {
    pub packet: Packet,
    /// As far as captured: shorter than `packet.payload_length` where the snap length cut it.
    pub payload: &'a [u8],
}

/// What was used although something about it could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imperfect {
    /// TCP headers that the snap length cut behind the ports: no flags, no sequence number.
    pub transport_cut: u64,
    /// TCP headers with a length that cannot be: no flags, no sequence number.
    pub transport_malformed: u64,
    /// Tunnel packets without readable IP inside: used as the tunnel's own packets.
    pub tunnels_unread: u64,
    /// Later fragments whose first fragment was not seen: ports 0.
    pub fragments_unmatched: u64,
    /// Packets longer than the field for it (4 GiB).
    pub lengths_clamped: u64,
}

/// Reads frames one by one; remembers only what fragments need.
#[derive(Default)]
pub struct Dissector {
    tunnel: Tunnel,
    fragments: Fragments,
    imperfect: Imperfect,
}

impl Dissector {
    pub fn new(tunnel: Tunnel) -> Self {
        Self { tunnel, ..Self::default() }
    }

    pub fn imperfect(&self) -> Imperfect {
        self.imperfect
    }

    /// The packet of a frame. Lengths come from the IP header, never from the bytes captured.
    pub fn dissect<'a>(&mut self, frame: &Frame<'a>) -> Result<Dissected<'a>, Skip> {
        let mut packet = Packet::default();
        let payload = self.dissect_into(frame, &mut packet)?;
        Ok(Dissected { packet, payload })
    }

    /// The same into a place of the caller's, field by field; gives the payload.
    #[inline(always)]
    pub fn dissect_into<'a>(&mut self, frame: &Frame<'a>, packet: &mut Packet) -> Result<&'a [u8], Skip> {
        let (layer, told) = link::network(frame.link, Layer::new(frame.captured, frame.length))?;
        let mut datagram = ip::read(layer)?;
        if self.tunnel == Tunnel::Inner {
            datagram = self.innermost(datagram);
        }
        let transport = self.transport(&datagram)?;
        packet.time = frame.time;
        packet.arrival = frame.time;
        packet.interface = frame.interface;
        packet.direction = if told == Direction::Unknown { frame.direction } else { told };
        packet.tap = Tap::Unknown;
        let FiveTuple { source, destination, protocol } = &mut packet.five_tuple;
        datagram.addresses.read(&mut source.address, &mut destination.address);
        (source.port, destination.port) = (transport.source_port, transport.destination_port);
        *protocol = datagram.protocol;
        packet.l3_length = self.length(datagram.length);
        packet.payload_length = self.length(transport.payload_length);
        packet.ttl = datagram.ttl;
        packet.fragment = datagram.fragment;
        (packet.gso_segments, packet.gso_size) = (1, 0);
        packet.tcp = transport.tcp;
        Ok(transport.payload)
    }

    #[inline(always)]
    fn innermost<'a>(&mut self, outermost: Datagram<'a>) -> Datagram<'a> {
        let mut datagram = outermost;
        for _ in 0..MAX_TUNNELS {
            match tunnel::inside(&datagram).map(|inside| inside.and_then(ip::read)) {
                Some(Ok(inner)) => datagram = inner,
                Some(Err(_)) => {
                    self.imperfect.tunnels_unread += 1;
                    break;
                }
                None => break,
            }
        }
        datagram
    }

    #[inline(always)]
    fn transport<'a>(&mut self, datagram: &Datagram<'a>) -> Result<Transport<'a>, Skip> {
        if datagram.fragment == Fragment::Later {
            let ports = self.fragments.ports(datagram.fragment_key());
            self.imperfect.fragments_unmatched += u64::from(ports.is_none());
            let (source_port, destination_port) = ports.unwrap_or_default();
            return Ok(Transport {
                source_port,
                destination_port,
                ..transport::without_ports(datagram.payload)
            });
        }
        let transport = transport::read(datagram.protocol, datagram.payload)?;
        match transport.header {
            Header::Read => {}
            Header::Cut => self.imperfect.transport_cut += 1,
            Header::Malformed => self.imperfect.transport_malformed += 1,
        }
        if datagram.fragment == Fragment::First {
            self.fragments
                .remember(datagram.fragment_key(), (transport.source_port, transport.destination_port));
        }
        Ok(transport)
    }

    #[inline(always)]
    fn length(&mut self, length: usize) -> u32 {
        u32::try_from(length).unwrap_or_else(|_| {
            self.imperfect.lengths_clamped += 1;
            u32::MAX
        })
    }
}
