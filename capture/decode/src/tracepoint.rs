//! Copies of tracepoint records to kernel events, by the running kernel's formats.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dissect::{Dissector, Frame, LinkType, Tunnel};
use event::{Direction, Duration, Endpoint, FiveTuple, KernelEvent, KernelEventKind, Protocol, Timestamp};
use wire::{COPIED, COPIED_PACKET, KernelRecord, Tracepoint};

use crate::{Clock, RecordError};

mod format;

pub use format::Format;

/// What the kernel calls a connection that found its listener's queue full.
const LISTEN_OVERFLOW: &str = "TCP_LISTEN_OVERFLOW";

/// The record in `bytes`.
///
/// # Errors
/// Where they are not as long as one.
#[expect(unsafe_code, reason = "the kernel program and this one share the record's layout")]
pub fn record(bytes: &[u8]) -> Result<KernelRecord, RecordError> {
    const EXPECTED: usize = size_of::<KernelRecord>();
    if bytes.len() != EXPECTED {
        return Err(RecordError { length: bytes.len(), expected: EXPECTED });
    }
    // SAFETY: as long as the record, which is `repr(C)`, without padding, and valid for any bytes.
    Ok(unsafe { bytes.as_ptr().cast::<KernelRecord>().read_unaligned() })
}

/// Reads records by their formats.
#[derive(Debug, Default)]
pub struct Decoder {
    formats: std::collections::BTreeMap<Tracepoint, Format>,
}

impl Decoder {
    pub fn learn(&mut self, tracepoint: Tracepoint, format: Format) {
        self.formats.insert(tracepoint, format);
    }

    pub fn names_listen_overflows(&self) -> bool {
        let format = self.formats.get(&Tracepoint::KfreeSkb);
        format.is_some_and(|format| format.reason_number(LISTEN_OVERFLOW).is_some())
    }

    /// The event of a record; `None` where the record does not say what its tracepoint is for.
    pub fn event(&self, record: &KernelRecord, clock: &Clock, arrival: Timestamp) -> Option<KernelEvent> {
        let index = usize::try_from(record.tracepoint).ok()?;
        let tracepoint = *Tracepoint::ALL.get(index)?;
        let format = self.formats.get(&tracepoint)?;
        let time = clock.at(record.time);
        let (bytes, packet) = match tracepoint {
            Tracepoint::KfreeSkb => record.bytes.split_at(COPIED - COPIED_PACKET),
            _ => (&record.bytes[..], &[][..]),
        };
        let length = usize::try_from(record.packet_length).unwrap_or(usize::MAX);
        let packet = &packet[..length.min(packet.len())];
        Some(KernelEvent {
            time,
            arrival: arrival.max(time),
            five_tuple: five_tuple(format, bytes).or_else(|| {
                let ethertype = format.number(bytes, "protocol")?;
                of_packet(packet, length).filter(|found| ethertype_of(found.source.address) == ethertype)
            }),
            kind: kind(tracepoint, format, bytes)?,
            count: 1,
        })
    }
}

fn kind(tracepoint: Tracepoint, format: &Format, record: &[u8]) -> Option<KernelEventKind> {
    let state = |name| format.number(record, name).and_then(|state| u8::try_from(state).ok());
    let reason = || {
        let number = u32::try_from(format.number(record, "reason")?).ok()?;
        Some(format.reason_name(number).map_or_else(|| number.to_string(), str::to_owned))
    };
    Some(match tracepoint {
        Tracepoint::RetransmitSkb => KernelEventKind::Retransmit { state: state("state")? },
        Tracepoint::SendReset => KernelEventKind::ResetSent { reason: reason() },
        Tracepoint::ReceiveReset => KernelEventKind::ResetReceived,
        Tracepoint::KfreeSkb => match reason()? {
            name if name == LISTEN_OVERFLOW => KernelEventKind::ListenOverflow,
            reason => KernelEventKind::Drop { reason },
        },
        Tracepoint::SetState => {
            KernelEventKind::SocketState { old: state("oldstate")?, new: state("newstate")? }
        }
        Tracepoint::MarkVictim => {
            let pid = u32::try_from(format.number(record, "pid")?).ok()?;
            let process = format.text(record, "comm").or_else(|| name_of(pid)).unwrap_or_default();
            KernelEventKind::OomKill { pid, process }
        }
        // In microseconds.
        Tracepoint::Probe => {
            let micros = i64::try_from(format.number(record, "srtt")?).ok()?;
            KernelEventKind::SmoothedRtt { rtt: Duration::from_micros(micros) }
        }
    })
}

/// Kernels before 6.11 tell the victim's pid alone.
fn name_of(pid: u32) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;

/// From the socket's own end to the other.
fn five_tuple(format: &Format, record: &[u8]) -> Option<FiveTuple> {
    let source = endpoint(format, record, "saddr", "saddr_v6", "sport")?;
    let destination = endpoint(format, record, "daddr", "daddr_v6", "dport")?;
    let protocol = format.number(record, "protocol").unwrap_or(u64::from(Protocol::TCP.0));
    Some(FiveTuple::new(source, destination, Protocol(u8::try_from(protocol).ok()?)))
}

const fn ethertype_of(address: IpAddr) -> u64 {
    if address.is_ipv4() { 0x0800 } else { 0x86dd }
}

/// The five-tuple of a packet whose IP header is at the start of `captured`; `length` bytes of it lie in one piece
/// there. The memory of a packet that is none of IP, or was dropped before its headers were found, has no header.
fn of_packet(captured: &[u8], length: usize) -> Option<FiveTuple> {
    let frame = Frame {
        time: Timestamp::UNIX_EPOCH,
        interface: 0,
        link: LinkType::RAW,
        direction: Direction::Unknown,
        captured,
        length,
    };
    Some(Dissector::new(Tunnel::Outer).dissect(&frame).ok()?.packet.five_tuple)
}

/// Address and port of one end. A socket of IPv6 that talks IPv4 has addresses of IPv4 in those of IPv6; its packets
/// have not. Some tracepoints have both as fields of their own and others as a `sockaddr_in6`.
fn endpoint(format: &Format, record: &[u8], v4: &str, v6: &str, port: &str) -> Option<Endpoint> {
    let address = format.bytes(record, v4)?;
    if let Ok(octets) = <[u8; 4]>::try_from(address) {
        let address: IpAddr = match format.number(record, "family")? {
            AF_INET => Ipv4Addr::from(octets).into(),
            AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(format.bytes(record, v6)?).ok()?).into(),
            _ => return None,
        };
        return Some(Endpoint::new(
            address.to_canonical(),
            u16::try_from(format.number(record, port)?).ok()?,
        ));
    }
    let family = u64::from(u16::from_ne_bytes(*address.first_chunk()?));
    let port = u16::from_be_bytes(*address.get(2..)?.first_chunk()?);
    let address: IpAddr = match family {
        AF_INET => Ipv4Addr::from(*address.get(4..)?.first_chunk::<4>()?).into(),
        AF_INET6 => Ipv6Addr::from(*address.get(8..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(Endpoint::new(address.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KFREE_SKB: &str = "\tfield:unsigned short protocol;\toffset:32;\tsize:2;\tsigned:0;
\tfield:enum skb_drop_reason reason;\toffset:36;\tsize:4;\tsigned:0;
print fmt: \"%s\", __print_symbolic(REC->reason, { 3, \"NO_SOCKET\" })
";

    fn decoder() -> Decoder {
        let mut decoder = Decoder::default();
        Tracepoint::ALL
            .into_iter()
            .for_each(|tracepoint| decoder.learn(tracepoint, Format::parse(KFREE_SKB)));
        decoder
    }

    /// A drop for want of a socket, whose packet starts with these bytes; `length` of them are its.
    fn drop_of(packet: &[u8], length: u32, ethertype: u16) -> Option<KernelEvent> {
        let mut bytes = [0; COPIED];
        bytes[32..34].copy_from_slice(&ethertype.to_ne_bytes());
        bytes[36] = 3;
        bytes[COPIED - COPIED_PACKET..][..packet.len()].copy_from_slice(packet);
        let tracepoint = Tracepoint::KfreeSkb as u32;
        let record = KernelRecord { time: 0, tracepoint, packet_length: length, bytes };
        decoder().event(&record, &Clock::start().unwrap(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_drop_has_its_packets_five_tuple_where_all_of_it_is_there() {
        let mut packet = [0; 28];
        packet[..4].copy_from_slice(&[0x45, 0, 0, 28]);
        packet[8..10].copy_from_slice(&[64, 17]);
        packet[12..20].copy_from_slice(&[198, 18, 0, 1, 198, 18, 0, 2]);
        packet[20..24].copy_from_slice(&[0x1f, 0x90, 0, 53]);
        let event = drop_of(&packet, 28, 0x0800).unwrap();
        assert_eq!(event.kind, KernelEventKind::Drop { reason: "NO_SOCKET".to_owned() });
        assert_eq!(event.five_tuple.unwrap().to_string(), "198.18.0.1:8080->198.18.0.2:53:17");
        // What stands behind the packet's memory is not its header, nor is one of another protocol.
        assert_eq!(drop_of(&packet, 19, 0x0800).unwrap().five_tuple, None);
        assert_eq!(drop_of(&packet, 28, 0x86dd).unwrap().five_tuple, None);
    }

    #[test]
    fn a_round_trip_time_of_our_own_has_its_connection() {
        let probed = wire::Probed {
            srtt: 1500,
            family: 10,
            sport: 8080,
            dport: 40_000,
            unused: 0,
            saddr: [0; 4],
            daddr: [0; 4],
            // IPv4 by a socket of IPv6, as its packets tell it.
            saddr_v6: "::ffff:198.18.0.1".parse::<Ipv6Addr>().unwrap().octets(),
            daddr_v6: "::ffff:198.18.0.2".parse::<Ipv6Addr>().unwrap().octets(),
        };
        let event = |probed: wire::Probed| {
            let mut bytes = [0; COPIED];
            let wire::Probed { srtt, family, sport, dport, unused, saddr, daddr, saddr_v6, daddr_v6 } =
                probed;
            let ports = [family, sport, dport, unused].map(u16::to_ne_bytes).concat();
            let parts = [&srtt.to_ne_bytes()[..], &ports, &saddr, &daddr, &saddr_v6, &daddr_v6].concat();
            bytes[..parts.len()].copy_from_slice(&parts);
            let tracepoint = Tracepoint::Probe as u32;
            let record = KernelRecord { time: 0, tracepoint, packet_length: 0, bytes };
            let mut decoder = Decoder::default();
            decoder.learn(Tracepoint::Probe, Format::probed());
            decoder.event(&record, &Clock::start().unwrap(), Timestamp::UNIX_EPOCH).unwrap()
        };
        let rtt = KernelEventKind::SmoothedRtt { rtt: Duration::from_micros(1500) };
        let mapped = event(probed);
        assert_eq!(mapped.kind, rtt);
        assert_eq!(mapped.five_tuple.unwrap().to_string(), "198.18.0.1:8080->198.18.0.2:40000:6");
        let plain =
            event(wire::Probed { family: 2, saddr: [198, 18, 0, 3], daddr: [198, 18, 0, 4], ..probed });
        assert_eq!(plain.five_tuple.unwrap().to_string(), "198.18.0.3:8080->198.18.0.4:40000:6");
        // A socket of some other family has no addresses here.
        assert_eq!(event(wire::Probed { family: 1, ..probed }).five_tuple, None);
    }

    proptest! {
        #[test]
        fn no_record_is_too_odd(
            tracepoint: u32, packet_length: u32, bytes in proptest::collection::vec(any::<u8>(), COPIED),
        ) {
            let mut record = KernelRecord { time: 0, tracepoint: tracepoint % 9, packet_length, bytes: [0; COPIED] };
            record.bytes.copy_from_slice(&bytes);
            let _ = decoder().event(&record, &Clock::start().unwrap(), Timestamp::UNIX_EPOCH);
        }
    }
}
