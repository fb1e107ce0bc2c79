//! Where the headers of a packet are: link layer, IP and transport, read in place from the packet's memory.
//!
//! Every function here is verified by the kernel for each path through it. What it finds goes into a map and
//! is read back from there: the verifier then forgets which path led to it, and does not try every path
//! through the rest of the program with every path through here.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes, macros::map, maps::PerCpuArray};
use wire::PacketMarks;

const ETHERNET: usize = 14;
const VLAN_TAG: usize = 4;
/// 802.1ad over 802.1Q, and one more where a provider tags twice.
const MAX_VLAN_TAGS: usize = 3;
pub const IPV4: usize = 20;
pub const IPV6: usize = 40;
/// There are eight kinds, and destination options may come twice; more is counted as the protocol that comes next.
const MAX_EXTENSION_HEADERS: usize = 10;
/// Bytes of extension headers; more is malformed. A bound for the verifier, three times what is ever seen.
const MAX_EXTENSIONS: u32 = 1023;
pub const TCP: usize = 20;
/// `NOP NOP timestamps(10)`: how nearly every stack lays out a data segment's options (RFC 7323, app. A).
const NOP_NOP_TIMESTAMPS: u32 = 0x0101_080a;
/// Bytes of a TCP header up to the end of timestamps laid out so.
pub const TCP_AND_TIMESTAMPS: usize = TCP + 12;

mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const SCTP: u8 = 132;
    pub const MOBILITY: u8 = 135;
    pub const HOST_IDENTITY: u8 = 139;
    pub const SHIM6: u8 = 140;
}

/// What a look at a packet came to.
pub type Outcome = u32;
pub const FOUND: Outcome = 0;
pub const NOT_IP: Outcome = 1;
pub const MALFORMED: Outcome = 2;
/// A header is beyond the directly readable memory, and more of the packet can be made readable.
pub const SHORT: Outcome = 3;

#[derive(Clone, Copy)]
pub struct Headers {
    /// Bytes from the start of the packet to the IP header.
    pub ip_offset: u32,
    /// Bytes of the IP header and its extensions.
    pub ip_length: u32,
    /// Bytes from the IP header on, by the IP header.
    pub length: u32,
    /// Bytes of the transport header; 0 where there is none.
    pub transport_length: u32,
    pub fragment_id: u32,
    pub protocol: u8,
    /// All but the direction, and the timestamps where the options have to be walked.
    pub marks: u8,
    pub transport: Transport,
    pub options: TcpOptions,
}

impl Headers {
    const NONE: Self = Self {
        ip_offset: 0,
        ip_length: 0,
        length: 0,
        transport_length: 0,
        fragment_id: 0,
        protocol: 0,
        marks: 0,
        transport: Transport::None,
        options: TcpOptions::None,
    };
}

/// Which part of the transport header is in the packet and worth reading.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Transport {
    None,
    Ports,
    Tcp,
}

/// Where the TCP options stand.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TcpOptions {
    None,
    /// TSval and TSecr are at their usual place.
    Timestamps,
    /// They have to be walked.
    Other,
}

/// The memory of a packet that can be read directly.
#[derive(Clone, Copy)]
pub struct Bytes {
    pub start: usize,
    pub end: usize,
}

impl Bytes {
    #[inline(always)]
    pub fn of(skb: *mut __sk_buff) -> Self {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe { Self { start: (*skb).data as usize, end: (*skb).data_end as usize } }
    }

    /// The comparison that the verifier asks for before anything is read.
    #[inline(always)]
    pub const fn holds(&self, address: usize, length: usize) -> bool {
        address + length <= self.end
    }
}

/// Reads a value at any address, as the packet has it.
///
/// # Safety
/// `address..address + size_of::<T>()` lies in the packet.
#[inline(always)]
pub unsafe fn load<T: Copy>(address: usize) -> T {
    unsafe { (address as *const T).read_unaligned() }
}

#[inline(always)]
pub unsafe fn load_u8(address: usize) -> u8 {
    unsafe { load(address) }
}

#[inline(always)]
pub unsafe fn load_u16(address: usize) -> u16 {
    u16::from_be(unsafe { load(address) })
}

#[inline(always)]
pub unsafe fn load_u32(address: usize) -> u32 {
    u32::from_be(unsafe { load(address) })
}

/// `byte & 15`, where the verifier can see it: knowing the upper nibble, the compiler subtracts it instead,
/// which is correct and yet leaves the verifier without a lower bound.
#[inline(always)]
fn low_nibble(byte: u8) -> u32 {
    let mut value = u64::from(byte);
    // SAFETY: one instruction on one register.
    unsafe { core::arch::asm!("{0} &= 15", inout(reg) value, options(pure, nomem, nostack)) };
    value as u32
}

/// Finds the headers of a packet, by way of `found`; where more of it can be made readable and has to be, it is.
#[inline(always)]
pub fn find<const ETHERNET_LINK: bool>(skb: *mut __sk_buff, found: *mut Headers) -> Result<Headers, Outcome> {
    /// Headers that lie outside the directly readable part of a packet are looked for in this many bytes.
    const PULLED: u32 = 256;
    let mut outcome = look::<ETHERNET_LINK>(skb, found, false);
    if outcome == SHORT {
        // Makes more bytes readable in place; the packet's content stays what it is. A failure (no memory)
        // leaves the bytes as they were.
        // SAFETY: the kernel hands a valid context to the program.
        unsafe {
            let length = (*skb).len;
            aya_ebpf::helpers::bpf_skb_pull_data(skb, if length < PULLED { length } else { PULLED });
        }
        outcome = look::<ETHERNET_LINK>(skb, found, true);
    }
    if outcome != FOUND {
        return Err(outcome);
    }
    // SAFETY: the slot is this processor's own, and the program is not interrupted by itself.
    Ok(unsafe { found.read_volatile() })
}

/// Fills `found`. What is beyond the readable memory is not there where `complete` is true.
#[inline(never)]
fn look<const ETHERNET_LINK: bool>(skb: *mut __sk_buff, found: *mut Headers, complete: bool) -> Outcome {
    let bytes = Bytes::of(skb);
    let missing = if complete { MALFORMED } else { SHORT };
    let mut headers = Headers::NONE;
    let mut ip = bytes.start;
    let is_ipv6;
    if ETHERNET_LINK {
        if !bytes.holds(ip, ETHERNET) {
            return missing;
        }
        // SAFETY: the check above.
        let mut ethertype = unsafe { load_u16(ip + ETHERNET - 2) };
        ip += ETHERNET;
        headers.ip_offset = ETHERNET as u32;
        for _ in 0..MAX_VLAN_TAGS {
            if !matches!(ethertype, 0x8100 | 0x88a8 | 0x9100) {
                break;
            }
            if !bytes.holds(ip, VLAN_TAG) {
                return missing;
            }
            // SAFETY: the check above.
            ethertype = unsafe { load_u16(ip + VLAN_TAG - 2) };
            ip += VLAN_TAG;
            headers.ip_offset += VLAN_TAG as u32;
        }
        is_ipv6 = match ethertype {
            0x0800 => false,
            0x86dd => true,
            _ => return NOT_IP,
        };
    } else {
        // The shorter of both headers: a comparison with a single byte compiles to one without an offset,
        // which tells the verifier nothing.
        if !bytes.holds(ip, IPV4) {
            return missing;
        }
        // SAFETY: the check above.
        is_ipv6 = match unsafe { load_u8(ip) } >> 4 {
            4 => false,
            6 => true,
            _ => return NOT_IP,
        };
    }
    let outcome =
        if is_ipv6 { ipv6(skb, bytes, ip, &mut headers) } else { ipv4(skb, bytes, ip, &mut headers) };
    if outcome == FOUND {
        // A packet of more than 65535 bytes has no length in its header (RFC 2675, and GSO of that size), and one
        // that was cut on its way is shorter than its header says.
        // SAFETY: the kernel hands a valid context to the program.
        let there = unsafe { (*skb).len }.saturating_sub(headers.ip_offset);
        if headers.length == 0 || headers.length > there {
            headers.length = there;
        }
        if headers.length < headers.ip_length {
            return MALFORMED;
        }
    }
    let outcome = if outcome == FOUND { transport(bytes, ip, &mut headers, complete) } else { outcome };
    if outcome == FOUND {
        // SAFETY: a slot of the map.
        unsafe { found.write_volatile(headers) };
        return FOUND;
    }
    if outcome == CUT { missing } else { outcome }
}

/// The IP header itself is beyond the readable memory.
const CUT: Outcome = 4;

#[inline(always)]
fn ipv4(skb: *mut __sk_buff, bytes: Bytes, ip: usize, headers: &mut Headers) -> Outcome {
    if !bytes.holds(ip, IPV4) {
        return CUT;
    }
    // SAFETY: the check above covers the fixed header.
    let (version, total_length, identification, fragment, protocol) =
        unsafe { (load_u8(ip), load_u16(ip + 2), load_u16(ip + 4), load_u16(ip + 6), load_u8(ip + 9)) };
    headers.ip_length = low_nibble(version) * 4;
    if version >> 4 != 4 || headers.ip_length < IPV4 as u32 {
        return MALFORMED;
    }
    headers.length = u32::from(total_length);
    headers.protocol = protocol;
    let (more, offset) = (fragment & 0x2000 != 0, fragment & 0x1fff);
    if more || offset != 0 {
        headers.fragment_id = u32::from(identification);
        headers.marks |=
            if offset == 0 { PacketMarks::FIRST_FRAGMENT.0 } else { PacketMarks::LATER_FRAGMENT.0 };
    }
    if protocol == protocol::AUTHENTICATION && offset == 0 { extensions(skb, headers) } else { FOUND }
}

#[inline(always)]
fn ipv6(skb: *mut __sk_buff, bytes: Bytes, ip: usize, headers: &mut Headers) -> Outcome {
    if !bytes.holds(ip, IPV6) {
        return CUT;
    }
    // SAFETY: the check above covers the fixed header.
    let (version, payload, protocol) = unsafe { (load_u8(ip), load_u16(ip + 4), load_u8(ip + 6)) };
    if version >> 4 != 6 {
        return MALFORMED;
    }
    headers.marks = PacketMarks::IPV6.0;
    headers.protocol = protocol;
    headers.ip_length = IPV6 as u32;
    headers.length = if payload == 0 { 0 } else { IPV6 as u32 + u32::from(payload) };
    if is_extension(protocol) { extensions(skb, headers) } else { FOUND }
}

/// Adds the headers between the IP header and the transport header.
#[inline(always)]
fn extensions(skb: *mut __sk_buff, headers: &mut Headers) -> Outcome {
    let chain = walk_extensions(skb, headers.ip_offset + headers.ip_length, headers.protocol);
    if chain == 0 {
        return MALFORMED;
    }
    headers.ip_length += chain as u32 & MAX_EXTENSIONS;
    headers.protocol = (chain >> 16) as u8;
    headers.marks |= (chain >> 24) as u8;
    headers.fragment_id |= (chain >> 32) as u32;
    FOUND
}

/// Adds what the transport header says of itself. It ends with the packet by its IP header: what stands behind
/// is padding.
#[inline(always)]
fn transport(bytes: Bytes, ip: usize, headers: &mut Headers, complete: bool) -> Outcome {
    /// Source and destination port.
    const PORTS: usize = 4;
    let length = match headers.protocol {
        _ if headers.marks & PacketMarks::LATER_FRAGMENT.0 != 0 => return FOUND,
        protocol::ICMP | protocol::ICMPV6 => {
            headers.transport_length = 8;
            return FOUND;
        }
        protocol::TCP => TCP,
        protocol::UDP => 8,
        protocol::SCTP => 12,
        _ => return FOUND,
    };
    let start = ip + headers.ip_length as usize;
    let is_tcp = headers.protocol == protocol::TCP;
    let stated = headers.length - headers.ip_length;
    headers.transport_length = length as u32;
    if is_tcp && stated >= TCP as u32 {
        if bytes.holds(start, TCP) {
            // SAFETY: the check above.
            return unsafe { tcp(bytes, start, stated, headers) };
        }
        if !complete {
            return SHORT;
        }
    }
    if stated < PORTS as u32 {
        return MALFORMED;
    }
    if !bytes.holds(start, PORTS) {
        return if complete { MALFORMED } else { SHORT };
    }
    headers.transport = Transport::Ports;
    FOUND
}

/// # Safety
/// The packet holds the fixed TCP header at `start`.
#[inline(always)]
unsafe fn tcp(bytes: Bytes, start: usize, stated: u32, headers: &mut Headers) -> Outcome {
    let length = u32::from(unsafe { load_u8(start + 12) } >> 4) * 4;
    if length < TCP as u32 {
        headers.transport = Transport::Ports;
        // Nobody knows where its payload starts.
        headers.transport_length = u32::from(u16::MAX);
        return FOUND;
    }
    headers.transport = Transport::Tcp;
    headers.transport_length = if length < stated { length } else { stated };
    headers.marks |= PacketMarks::TCP.0;
    if headers.transport_length > TCP as u32 {
        headers.options = TcpOptions::Other;
        if headers.transport_length == TCP_AND_TIMESTAMPS as u32
            && bytes.holds(start, TCP_AND_TIMESTAMPS)
            // SAFETY: the check before it.
            && unsafe { load_u32(start + TCP) } == NOP_NOP_TIMESTAMPS
        {
            headers.options = TcpOptions::Timestamps;
            headers.marks |= PacketMarks::TIMESTAMPS.0;
        }
    }
    FOUND
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    use protocol::{
        AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, HOST_IDENTITY, MOBILITY, ROUTING, SHIM6,
    };
    matches!(
        protocol,
        HOP_BY_HOP
            | ROUTING
            | FRAGMENT
            | AUTHENTICATION
            | DESTINATION_OPTIONS
            | MOBILITY
            | HOST_IDENTITY
            | SHIM6
    )
}

/// The state of a walk along extension headers.
#[derive(Clone, Copy)]
struct Extensions {
    length: u32,
    fragment_id: u32,
    protocol: u8,
    marks: u8,
}

/// Read afresh at every step of a walk, for the same reason as what [`find`] finds.
#[map]
static EXTENSIONS: PerCpuArray<Extensions> = PerCpuArray::with_max_entries(1, 0);

/// Walks the IPv6 extension headers from `offset` of the packet on, the first of which is `protocol`. Returns
/// their length, the protocol behind them, the marks and the fragment's id in bits 0, 16, 24 and 32; 0 where
/// they are malformed.
#[inline(never)]
fn walk_extensions(skb: *mut __sk_buff, offset: u32, protocol: u8) -> u64 {
    let Some(walk) = EXTENSIONS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the slot is this processor's own, and the program is not interrupted by itself.
    unsafe {
        walk.write_volatile(Extensions { length: 0, fragment_id: 0, protocol, marks: 0 });
        for _ in 0..MAX_EXTENSION_HEADERS {
            let mut at = walk.read_volatile();
            if !is_extension(at.protocol) || at.marks & PacketMarks::LATER_FRAGMENT.0 != 0 {
                break;
            }
            // Every extension header has at least 8 bytes.
            let mut header = 0u64;
            if bpf_skb_load_bytes(skb.cast(), offset + at.length, (&raw mut header).cast(), 8) != 0 {
                return 0;
            }
            let header = u64::from_be(header);
            let size = (header >> 48) as u32 & 0xff;
            at.length += match at.protocol {
                protocol::FRAGMENT => 8,
                protocol::AUTHENTICATION => (size + 2) * 4,
                _ => (size + 1) * 8,
            };
            if at.length > MAX_EXTENSIONS {
                return 0;
            }
            // An atomic fragment (RFC 6946) has offset 0 and none behind it: it is whole.
            if at.protocol == protocol::FRAGMENT && header & 0xfff9_0000_0000 != 0 {
                let first = header & 0xfff8_0000_0000 == 0;
                at.marks = if first { PacketMarks::FIRST_FRAGMENT.0 } else { PacketMarks::LATER_FRAGMENT.0 };
                at.fragment_id = header as u32;
            }
            at.protocol = (header >> 56) as u8;
            walk.write_volatile(at);
        }
        let end = walk.read_volatile();
        u64::from(end.fragment_id) << 32
            | u64::from(end.marks) << 24
            | u64::from(end.protocol) << 16
            | u64::from(end.length & MAX_EXTENSIONS)
    }
}
