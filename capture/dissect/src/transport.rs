//! TCP, UDP and SCTP headers: ports, lengths, and what a TCP header says.

use event::{Protocol, Tcp, TcpFlags};

use crate::layer::Layer;
use crate::skip::Skip;

/// What follows an IP header.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Transport<'a> {
    pub source_port: u16,
    pub destination_port: u16,
    /// Absent for other protocols, and for a TCP header that is cut or cannot be.
    pub tcp: Option<Tcp>,
    /// As on the wire.
    pub payload_length: usize,
    /// As far as captured.
    pub payload: &'a [u8],
    pub header: Header,
}

/// How much of a transport header could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Header {
    #[default]
    Read,
    /// The snap length ends within it: the ports are known, the rest is not.
    Cut,
    /// A TCP data offset below 20 bytes.
    Malformed,
}

#[inline(always)]
pub(crate) fn read(protocol: Protocol, segment: Layer<'_>) -> Result<Transport<'_>, Skip> {
    match protocol {
        Protocol::TCP => tcp(segment),
        Protocol::UDP => with_ports(segment, 8),
        Protocol::SCTP => with_ports(segment, 12),
        // ICMP's type and code are not ports.
        Protocol::ICMP | Protocol::ICMPV6 => Ok(without_ports(segment.skip_on_wire(8))),
        _ => Ok(without_ports(segment)),
    }
}

/// All of `payload` behind whatever header there was.
pub(crate) fn without_ports(payload: Layer<'_>) -> Transport<'_> {
    Transport { payload_length: payload.length, payload: payload.captured, ..Transport::default() }
}

#[inline(always)]
fn ports(segment: Layer<'_>) -> Result<(u16, u16), Skip> {
    match (segment.u16(0), segment.u16(2)) {
        (Some(source), Some(destination)) => Ok((source, destination)),
        _ if segment.length < 4 => Err(Skip::ShortTransport),
        _ => Err(Skip::CutInPorts),
    }
}

fn with_ports(segment: Layer<'_>, header: usize) -> Result<Transport<'_>, Skip> {
    let (source_port, destination_port) = ports(segment)?;
    let payload = segment.skip_on_wire(header);
    Ok(Transport {
        source_port,
        destination_port,
        payload_length: payload.length,
        payload: payload.captured,
        ..Transport::default()
    })
}

#[inline(always)]
fn tcp(segment: Layer<'_>) -> Result<Transport<'_>, Skip> {
    const HEADER: usize = 20;
    let (source_port, destination_port) = ports(segment)?;
    let ends = Transport { source_port, destination_port, ..Transport::default() };
    let Some(header) = segment.array::<HEADER>(0) else {
        // The data offset may still be there to tell the payload's length.
        let offset = segment.u8(12).map_or(HEADER, |byte| 4 * usize::from(byte >> 4)).max(HEADER);
        let is_cut = segment.length > segment.captured.len();
        return Ok(Transport {
            payload_length: segment.length.saturating_sub(offset),
            header: if is_cut { Header::Cut } else { Header::Malformed },
            ..ends
        });
    };
    let data_offset = 4 * usize::from(header[12] >> 4);
    if data_offset < HEADER {
        return Ok(Transport { header: Header::Malformed, ..ends });
    }
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let flags = TcpFlags(u16::from_be_bytes([header[12], header[13]]) & 0x1ff);
    let options = segment.captured.get(HEADER..data_offset.min(segment.captured.len())).unwrap_or_default();
    let (window_scale, timestamps) = tcp_options(options);
    let payload = segment.skip_on_wire(data_offset);
    Ok(Transport {
        tcp: Some(Tcp {
            sequence: word(4),
            acknowledgement: if flags.contains(TcpFlags::ACK) { word(8) } else { 0 },
            window: u16::from_be_bytes([header[14], header[15]]),
            flags,
            window_scale: window_scale.filter(|_| flags.contains(TcpFlags::SYN)),
            timestamps,
        }),
        payload_length: payload.length,
        payload: payload.captured,
        ..ends
    })
}

/// Window scale and timestamps.
#[inline]
fn tcp_options(mut options: &[u8]) -> (Option<u8>, Option<(u32, u32)>) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const WINDOW_SCALE: u8 = 3;
    const TIMESTAMPS: u8 = 8;
    // What nearly every segment of an established connection carries.
    if let [NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10, rest @ ..] = options
        && let Some(values) = timestamp_pair(rest)
        && rest.len() == 8
    {
        return (None, Some(values));
    }
    let (mut window_scale, mut timestamps) = (None, None);
    while let [kind, rest @ ..] = options {
        match *kind {
            END => break,
            NO_OPERATION => {
                options = rest;
                continue;
            }
            _ => {}
        }
        let Some(size) = rest.first().map(|size| usize::from(*size)).filter(|size| *size >= 2) else { break };
        let Some(body) = options.get(2..size) else { break };
        match (*kind, size) {
            // RFC 7323: a shift above 14 is read as 14.
            (WINDOW_SCALE, 3) => window_scale = Some(body[0].min(14)),
            (TIMESTAMPS, 10) => timestamps = timestamp_pair(body),
            _ => {}
        }
        options = &options[size..];
    }
    (window_scale, timestamps)
}

fn timestamp_pair(body: &[u8]) -> Option<(u32, u32)> {
    let bytes: [u8; 8] = *body.first_chunk()?;
    let both = u64::from_be_bytes(bytes);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of one number")]
    Some(((both >> 32) as u32, both as u32))
}
