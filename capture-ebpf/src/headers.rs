//! The headers of a packet, link layer, IP and transport: read in place from the packet's memory, each field once, and
//! written to the packet's record.
//!
//! Every function here is verified by the kernel for each path through it. What whoever comes next needs is read back
//! from the record: the verifier then forgets which path led to it, and does not try every path through the rest of
//! the program with every path through here.

use core::ptr::addr_of_mut;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes, macros::map, maps::PerCpuArray};
use wire::{NO_WINDOW_SCALE, PacketMarks, PacketRecord};

/// Writes fields of a record.
macro_rules! set {
    ($record:expr, $($field:ident: $value:expr),+ $(,)?) => {{
        $( core::ptr::addr_of_mut!((*$record).$field).write($value); )+
    }};
}
pub(crate) use set;

const ETHERNET: usize = 14;
const VLAN_TAG: usize = 4;
/// 802.1ad over 802.1Q, and one more where a provider tags twice.
const MAX_VLAN_TAGS: usize = 3;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// There are eight kinds, and destination options may come twice; more is counted as the protocol that comes next.
const MAX_EXTENSION_HEADERS: usize = 10;
/// Bytes of extension headers; more is malformed. A bound for the verifier, three times what is ever seen.
const MAX_EXTENSIONS: u32 = 1023;
const TCP: usize = 20;
/// `NOP NOP timestamps(10)`: how nearly every stack starts a data segment's options (RFC 7323, app. A); selective
/// acknowledgements stand behind.
const NOP_NOP_TIMESTAMPS: u32 = 0x0101_080a;
/// Bytes of a TCP header up to the end of timestamps laid out so.
const TCP_AND_TIMESTAMPS: usize = TCP + 12;
/// What connections are opened with, by words of four bytes. Linux: `MSS(4) SACK permitted(2) timestamps(10) NOP window
/// scale(3)`. Others: `MSS(4) NOP window scale(3)`, and then FreeBSD `SACK permitted(2) timestamps(10)`, macOS `NOP NOP
/// timestamps(10) SACK permitted(2) END END`, Windows `NOP NOP SACK permitted(2)`.
const MSS: u32 = 0x0204;
const SACK_PERMITTED_TIMESTAMPS: u32 = 0x0402_080a;
const SACK_PERMITTED_END: u32 = 0x0402_0000;
const NOP_NOP_SACK_PERMITTED: u32 = 0x0101_0402;
const NOP_WINDOW_SCALE: u32 = 0x01_0303;
/// Shift counts end here (RFC 7323, section 2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;
const SYN: u16 = 1 << 1;

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
/// The IP header itself is beyond the readable memory.
const CUT: Outcome = 4;
/// Found, and there are TCP options that have to be walked: [`Place`] says where.
pub const OPTIONS: Outcome = 5;

/// Where in the packet to go on reading.
#[derive(Clone, Copy)]
pub struct Place {
    /// Bytes from the start of the packet to the IP header.
    pub ip: u32,
    /// Of [`OPTIONS`]: bytes from the start of the packet to them.
    pub options: u32,
    /// Their bytes.
    pub options_length: u32,
}

/// What one header says that the next needs.
struct Headers {
    /// Bytes from the start of the packet to the IP header.
    ip_offset: u32,
    /// Bytes of the IP header and its extensions.
    ip_length: u32,
    /// Bytes from the IP header on, by the IP header.
    length: u32,
    fragment_id: u32,
    protocol: u8,
    marks: u8,
}

/// The memory of a packet that can be read directly.
#[derive(Clone, Copy)]
struct Bytes {
    start: usize,
    end: usize,
}

impl Bytes {
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Self {
        // SAFETY: the kernel hands a valid context to the program.
        unsafe { Self { start: (*skb).data as usize, end: (*skb).data_end as usize } }
    }

    /// The comparison that the verifier asks for before anything is read.
    #[inline(always)]
    const fn holds(&self, address: usize, length: usize) -> bool {
        address + length <= self.end
    }
}

/// Reads a value at any address, as the packet has it.
///
/// # Safety
/// `address..address + size_of::<T>()` lies in the packet.
#[inline(always)]
unsafe fn load<T: Copy>(address: usize) -> T {
    unsafe { (address as *const T).read_unaligned() }
}

#[inline(always)]
unsafe fn load_u8(address: usize) -> u8 {
    unsafe { load(address) }
}

#[inline(always)]
unsafe fn load_u16(address: usize) -> u16 {
    u16::from_be(unsafe { load(address) })
}

#[inline(always)]
unsafe fn load_u32(address: usize) -> u32 {
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

/// Reads the headers of a packet into a record, direction and time aside; where more of the packet can be made
/// readable and has to be, it is. What the record says means something where the outcome is [`FOUND`] or [`OPTIONS`].
#[inline(always)]
pub fn read<const ETHERNET_LINK: bool>(
    skb: *mut __sk_buff,
    record: *mut PacketRecord,
    place: *mut Place,
) -> Outcome {
    /// Headers that lie outside the directly readable part of a packet are looked for in this many bytes.
    const PULLED: u32 = 256;
    let outcome = look::<ETHERNET_LINK>(skb, record, place, false);
    if outcome != SHORT {
        return outcome;
    }
    // Makes more bytes readable in place; the packet's content stays what it is. A failure (no memory)
    // leaves the bytes as they were.
    // SAFETY: the kernel hands a valid context to the program.
    unsafe {
        let length = (*skb).len;
        aya_ebpf::helpers::bpf_skb_pull_data(skb, if length < PULLED { length } else { PULLED });
    }
    look_again::<ETHERNET_LINK>(skb, record, place)
}

/// Of its own, and so a call: few packets need it.
#[inline(never)]
fn look_again<const ETHERNET_LINK: bool>(
    skb: *mut __sk_buff,
    record: *mut PacketRecord,
    place: *mut Place,
) -> Outcome {
    look::<ETHERNET_LINK>(skb, record, place, true)
}

/// What is beyond the readable memory is not there where `complete` is true.
#[inline(always)]
fn look<const ETHERNET_LINK: bool>(
    skb: *mut __sk_buff,
    record: *mut PacketRecord,
    place: *mut Place,
    complete: bool,
) -> Outcome {
    let bytes = Bytes::of(skb);
    let missing = if complete { MALFORMED } else { SHORT };
    let mut headers =
        Headers { ip_offset: 0, ip_length: 0, length: 0, fragment_id: 0, protocol: 0, marks: 0 };
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
    let outcome = if is_ipv6 {
        ipv6(skb, bytes, ip, record, &mut headers)
    } else {
        ipv4(skb, bytes, ip, record, &mut headers)
    };
    if outcome != FOUND {
        return if outcome == CUT { missing } else { outcome };
    }
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
    // SAFETY: the caller's record and place.
    unsafe {
        set!(record,
            l3_length: headers.length,
            fragment_id: headers.fragment_id,
            protocol: headers.protocol,
            marks: PacketMarks(headers.marks),
        );
        addr_of_mut!((*place).ip).write_volatile(headers.ip_offset);
    }
    transport(bytes, ip, record, place, &headers, complete)
}

#[inline(always)]
fn ipv4(
    skb: *mut __sk_buff,
    bytes: Bytes,
    ip: usize,
    record: *mut PacketRecord,
    headers: &mut Headers,
) -> Outcome {
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
    // SAFETY: the check above, and the caller's record.
    unsafe {
        let (source, destination) = (load::<u32>(ip + 12), load::<u32>(ip + 16));
        set!(record,
            source: [u64::from(source), 0],
            destination: [u64::from(destination), 0],
            ttl: load_u8(ip + 8),
        );
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
fn ipv6(
    skb: *mut __sk_buff,
    bytes: Bytes,
    ip: usize,
    record: *mut PacketRecord,
    headers: &mut Headers,
) -> Outcome {
    if !bytes.holds(ip, IPV6) {
        return CUT;
    }
    // SAFETY: the check above covers the fixed header.
    let (version, payload, protocol) = unsafe { (load_u8(ip), load_u16(ip + 4), load_u8(ip + 6)) };
    if version >> 4 != 6 {
        return MALFORMED;
    }
    // SAFETY: the check above, and the caller's record. Word by word: an array is copied byte by byte.
    unsafe {
        set!(record,
            source: [load(ip + 8), load(ip + 16)],
            destination: [load(ip + 24), load(ip + 32)],
            ttl: load_u8(ip + 7),
        );
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

/// Reads what the transport header says. It ends with the packet by its IP header: what stands behind is padding.
#[inline(always)]
fn transport(
    bytes: Bytes,
    ip: usize,
    record: *mut PacketRecord,
    place: *mut Place,
    headers: &Headers,
    complete: bool,
) -> Outcome {
    /// Source and destination port.
    const PORTS: usize = 4;
    let start = ip + headers.ip_length as usize;
    let stated = headers.length - headers.ip_length;
    let is_later = headers.marks & PacketMarks::LATER_FRAGMENT.0 != 0;
    if headers.protocol == protocol::TCP && !is_later && stated >= TCP as u32 {
        if bytes.holds(start, TCP) {
            // SAFETY: the check above, and the caller's record.
            return unsafe { tcp(bytes, start, stated, record, place, headers) };
        }
        if !complete {
            return SHORT;
        }
    }
    let (length, has_ports) = match headers.protocol {
        _ if is_later => (0, false),
        protocol::TCP => (TCP as u32, true),
        protocol::UDP => (8, true),
        protocol::SCTP => (12, true),
        protocol::ICMP | protocol::ICMPV6 => (8, false),
        _ => (0, false),
    };
    // SAFETY: the caller's record.
    unsafe {
        set!(record, payload_length: stated.saturating_sub(length), source_port: 0, destination_port: 0);
        no_tcp(record);
    }
    if !has_ports {
        return FOUND;
    }
    if stated < PORTS as u32 {
        return MALFORMED;
    }
    if !bytes.holds(start, PORTS) {
        return if complete { MALFORMED } else { SHORT };
    }
    // SAFETY: the check above, and the caller's record.
    unsafe { set!(record, source_port: load_u16(start), destination_port: load_u16(start + 2)) };
    FOUND
}

/// # Safety
/// It is a record.
#[inline(always)]
unsafe fn no_tcp(record: *mut PacketRecord) {
    unsafe {
        // One by one: the compiler makes a call of zeros in a row, which costs more than all of them.
        addr_of_mut!((*record).sequence).write_volatile(0);
        addr_of_mut!((*record).acknowledgement).write_volatile(0);
        addr_of_mut!((*record).timestamp).write_volatile(0);
        addr_of_mut!((*record).timestamp_echo).write_volatile(0);
        set!(record, tcp_flags: 0, window: 0, window_scale: NO_WINDOW_SCALE);
    }
}

/// # Safety
/// The packet holds the fixed TCP header at `start`.
#[inline(always)]
unsafe fn tcp(
    bytes: Bytes,
    start: usize,
    stated: u32,
    record: *mut PacketRecord,
    place: *mut Place,
    headers: &Headers,
) -> Outcome {
    unsafe {
        set!(record, source_port: load_u16(start), destination_port: load_u16(start + 2));
        let flags = load_u16(start + 12);
        let length = u32::from(flags >> 12) * 4;
        if length < TCP as u32 {
            // Nobody knows where its payload starts.
            set!(record, payload_length: 0);
            no_tcp(record);
            return FOUND;
        }
        let length = if length < stated { length } else { stated };
        let marks = headers.marks | PacketMarks::TCP.0;
        set!(record,
            payload_length: stated - length,
            sequence: load_u32(start + 4),
            acknowledgement: load_u32(start + 8),
            tcp_flags: flags & 0x1ff,
            window: load_u16(start + 14),
            timestamp: 0,
            timestamp_echo: 0,
            window_scale: NO_WINDOW_SCALE,
            marks: PacketMarks(marks),
        );
        if length == TCP as u32 {
            return FOUND;
        }
        let options =
            if flags & SYN == 0 { data(bytes, start, length) } else { handshake(bytes, start, length) };
        if let Some(Options { window_scale, timestamps }) = options {
            set!(record, window_scale: window_scale);
            if let Some((value, echo)) = timestamps {
                let marks = PacketMarks(marks | PacketMarks::TIMESTAMPS.0);
                set!(record, timestamp: value, timestamp_echo: echo, marks: marks);
            }
            return FOUND;
        }
        let fixed = TCP as u32;
        addr_of_mut!((*place).options).write_volatile(headers.ip_offset + headers.ip_length + fixed);
        addr_of_mut!((*place).options_length).write_volatile(length - fixed);
    }
    OPTIONS
}

/// What is read of TCP options.
struct Options {
    window_scale: u8,
    timestamps: Option<(u32, u32)>,
}

/// The options of a segment without SYN, where they start in the usual way; a window scale would mean nothing there.
///
/// # Safety
/// The packet holds the fixed TCP header at `start`.
#[inline(always)]
unsafe fn data(bytes: Bytes, start: usize, length: u32) -> Option<Options> {
    if length < TCP_AND_TIMESTAMPS as u32 || !bytes.holds(start, TCP_AND_TIMESTAMPS) {
        return None;
    }
    // SAFETY: the check above.
    unsafe {
        if load_u32(start + TCP) != NOP_NOP_TIMESTAMPS {
            return None;
        }
        let timestamps = Some((load_u32(start + 24), load_u32(start + 28)));
        Some(Options { window_scale: NO_WINDOW_SCALE, timestamps })
    }
}

/// The options of a SYN, where they are laid out in one of the usual ways.
///
/// # Safety
/// The packet holds the fixed TCP header at `start`.
#[inline(always)]
unsafe fn handshake(bytes: Bytes, start: usize, length: u32) -> Option<Options> {
    /// Bytes of a header with so many words of options.
    const fn with(words: usize) -> usize {
        TCP + words * 4
    }
    let is = |words| length == with(words) as u32 && bytes.holds(start, with(words));
    // SAFETY: `is` was asked for as many words before.
    let word = |number| unsafe { load_u32(start + with(number)) };
    let (timestamps, scale) = if is(5) {
        match (word(1), word(2)) {
            (SACK_PERMITTED_TIMESTAMPS, _) => (Some((word(2), word(3))), word(4)),
            (scale, SACK_PERMITTED_TIMESTAMPS) => (Some((word(3), word(4))), scale),
            _ => return None,
        }
    } else if is(6) && word(2) == NOP_NOP_TIMESTAMPS && word(5) == SACK_PERMITTED_END {
        (Some((word(3), word(4))), word(1))
    } else if is(3) && word(2) == NOP_NOP_SACK_PERMITTED {
        (None, word(1))
    } else {
        return None;
    };
    if word(0) >> 16 != MSS || scale >> 8 != NOP_WINDOW_SCALE {
        return None;
    }
    let shift = scale as u8;
    Some(Options {
        window_scale: if shift > MAX_WINDOW_SCALE { MAX_WINDOW_SCALE } else { shift },
        timestamps,
    })
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

/// Read afresh at every step of a walk, for the same reason as the record.
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
