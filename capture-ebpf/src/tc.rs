//! TC: one record for every IP packet that passes an interface, and a count of every one without a record.

use core::ptr::addr_of_mut;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    helpers::{bpf_ktime_get_ns, bpf_skb_load_bytes},
    macros::{classifier, map},
    maps::{PerCpuArray, PerCpuHashMap},
    programs::TcContext,
};
use wire::{EGRESS, INGRESS, NO_WINDOW_SCALE, PacketMarks, PacketRecord, Unrecorded};

use crate::headers::{
    self, Bytes, Headers, IPV4, IPV6, TCP, TCP_AND_TIMESTAMPS, TcpOptions, Transport, load, load_u8,
    load_u16, load_u32,
};
use crate::payload;
use crate::ring::Own;
use crate::sample;

/// Packets without a record, by interface index. The loader makes an entry before it attaches to an
/// interface; entry 0 takes what has no entry of its own.
#[map]
static UNRECORDED: PerCpuHashMap<u32, Unrecorded> = PerCpuHashMap::with_max_entries(4096, 0);

#[classifier]
pub fn tc_ingress(ctx: TcContext) -> i32 {
    observe::<INGRESS, true>(&ctx)
}

#[classifier]
pub fn tc_egress(ctx: TcContext) -> i32 {
    observe::<EGRESS, true>(&ctx)
}

/// For interfaces without a link layer header (tun, wireguard, ipip).
#[classifier]
pub fn tc_ingress_ip(ctx: TcContext) -> i32 {
    observe::<INGRESS, false>(&ctx)
}

#[classifier]
pub fn tc_egress_ip(ctx: TcContext) -> i32 {
    observe::<EGRESS, false>(&ctx)
}

#[inline(always)]
fn observe<const DIRECTION: usize, const ETHERNET_LINK: bool>(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // There is a ring for every processor that the kernel can have.
    if let Some(ring) = Own::get() {
        ring.see::<DIRECTION>();
        if let Err(cause) = record::<DIRECTION, ETHERNET_LINK>(skb, ring) {
            count(skb, cause);
        }
    }
    // The verdict of whoever comes next stands.
    TC_ACT_UNSPEC
}

enum Cause {
    Lost,
    Unreadable,
    NotIp,
}

#[inline(always)]
fn count(skb: *mut __sk_buff, cause: Cause) {
    // SAFETY: the kernel hands a valid context to the program.
    let interface = unsafe { (*skb).ifindex };
    let Some(entry) = UNRECORDED.get_ptr_mut(interface).or_else(|| UNRECORDED.get_ptr_mut(0)) else {
        return;
    };
    // SAFETY: the slot is this processor's own, and the program is not interrupted by itself.
    unsafe {
        match cause {
            Cause::Lost => (*entry).lost += 1,
            Cause::Unreadable => (*entry).unreadable += 1,
            Cause::NotIp => (*entry).not_ip += 1,
        }
    }
}

#[inline(always)]
fn record<const DIRECTION: usize, const ETHERNET_LINK: bool>(
    skb: *mut __sk_buff,
    ring: Own,
) -> Result<(), Cause> {
    let headers = headers::find::<ETHERNET_LINK>(skb, ring.scratch()).map_err(|outcome| match outcome {
        headers::NOT_IP => Cause::NotIp,
        _ => Cause::Unreadable,
    })?;
    if !sample::keeps(skb, &headers) {
        ring.leave_out();
        return Ok(());
    }
    let mut marks = headers.marks | if DIRECTION == EGRESS { PacketMarks::EGRESS.0 } else { 0 };
    if headers.options == TcpOptions::Other {
        let fixed = TCP as u32;
        let options = headers.ip_offset + headers.ip_length + fixed;
        marks |= walk_options(skb, options, headers.transport_length - fixed);
    }
    let slot = ring.slot().ok_or(Cause::Lost)?;
    if fill(slot, skb, &headers, marks) {
        // SAFETY: the slot is this processor's, and filled by now.
        unsafe { payload::take(skb, &headers, slot) };
        // The reader looks by itself every few milliseconds: waking it costs more than the record.
        ring.submit();
        Ok(())
    } else {
        // The slot stays the next one's.
        Err(Cause::Unreadable)
    }
}

/// Writes every field. False where the packet's memory is not what it was when the headers were found, which
/// does not happen; the verifier cannot know.
#[inline(always)]
fn fill(record: *mut PacketRecord, skb: *mut __sk_buff, headers: &Headers, marks: u8) -> bool {
    macro_rules! set {
        ($($field:ident: $value:expr),+ $(,)?) => { $( addr_of_mut!((*record).$field).write($value); )+ };
    }
    let bytes = Bytes::of(skb);
    // The masks are bounds for the verifier, above every value that can be there.
    let ip = bytes.start + (headers.ip_offset as usize & 0x1f);
    let transport = ip + (headers.ip_length as usize & 0x7ff);
    // SAFETY: fields of the slot, and bytes that were compared with the end of the packet.
    unsafe {
        set! {
            time: bpf_ktime_get_ns(),
            interface: (*skb).ifindex,
            l3_length: headers.length,
            payload_length: headers.length.saturating_sub(headers.ip_length + headers.transport_length),
            fragment_id: headers.fragment_id,
            gso_segments: (*skb).gso_segs as u16,
            gso_size: (*skb).gso_size as u16,
            protocol: headers.protocol,
            marks: PacketMarks(marks),
        }
        if marks & PacketMarks::IPV6.0 != 0 {
            if !bytes.holds(ip, IPV6) {
                return false;
            }
            // Word by word: an array is copied byte by byte.
            set! {
                source: [load(ip + 8), load(ip + 16)],
                destination: [load(ip + 24), load(ip + 32)],
                ttl: load_u8(ip + 7),
            }
        } else {
            if !bytes.holds(ip, IPV4) {
                return false;
            }
            let (source, destination) = (load::<u32>(ip + 12), load::<u32>(ip + 16));
            set! {
                source: [u64::from(source), 0],
                destination: [u64::from(destination), 0],
                ttl: load_u8(ip + 8),
            }
        }
        if headers.transport == Transport::Tcp {
            if !bytes.holds(transport, TCP) {
                return false;
            }
            set! {
                source_port: load_u16(transport),
                destination_port: load_u16(transport + 2),
                sequence: load_u32(transport + 4),
                acknowledgement: load_u32(transport + 8),
                tcp_flags: load_u16(transport + 12) & 0x1ff,
                window: load_u16(transport + 14),
            }
        } else {
            set! { source_port: 0, destination_port: 0, sequence: 0, acknowledgement: 0, tcp_flags: 0, window: 0 }
            if headers.transport == Transport::Ports {
                if !bytes.holds(transport, 4) {
                    return false;
                }
                set! { source_port: load_u16(transport), destination_port: load_u16(transport + 2) }
            }
        }
        set! { timestamp: 0, timestamp_echo: 0, window_scale: NO_WINDOW_SCALE }
        if headers.options == TcpOptions::Timestamps {
            if !bytes.holds(transport, TCP_AND_TIMESTAMPS) {
                return false;
            }
            set! { timestamp: load_u32(transport + 24), timestamp_echo: load_u32(transport + 28) }
        } else if headers.options == TcpOptions::Other
            && let Some(walk) = WALK.get_ptr(0)
        {
            set! {
                timestamp: (*walk).timestamp,
                timestamp_echo: (*walk).timestamp_echo,
                window_scale: (*walk).window_scale,
            }
        }
    }
    true
}

/// The data offset has four bits: 60 bytes of header, 20 of them fixed.
const MAX_OPTIONS: usize = 40;

/// The TCP options of handshakes and of unusual layouts, while they are walked, and what they said. In a map:
/// the stack allows aligned access alone, and what the verifier knows of a register it tries with every path.
struct Walk {
    /// Room behind the last byte where an option may start, so that a masked index plus ten stays inside.
    bytes: [u8; 80],
    at: u32,
    timestamp: u32,
    timestamp_echo: u32,
    window_scale: u8,
}

#[map]
static WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

/// `value - 1`, which the compiler does not see through: it would undo a step that the verifier needs.
#[inline(always)]
pub fn less_one(value: u32) -> u64 {
    let mut value = u64::from(value);
    // SAFETY: one instruction on one register.
    unsafe { core::arch::asm!("{0} -= 1", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// Walks `length` bytes of options at `offset` of the packet, up to the first that makes no sense. Returns the
/// marks of what it found.
#[inline(never)]
fn walk_options(skb: *mut __sk_buff, offset: u32, length: u32) -> u8 {
    let mut marks = 0;
    let Some(walk) = WALK.get_ptr_mut(0) else { return marks };
    // SAFETY: the slot is this processor's own, and the program is not interrupted by itself.
    let walk = unsafe { &mut *walk };
    walk.timestamp = 0;
    walk.timestamp_echo = 0;
    walk.window_scale = NO_WINDOW_SCALE;
    // In this way, because Linux before 6.3 learns nothing from a comparison with zero.
    let above_one = less_one(length);
    if above_one >= MAX_OPTIONS as u64 {
        return marks;
    }
    let length = above_one as u32 + 1;
    // SAFETY: the buffer holds the longest options; a packet that ends before them gives an error.
    if unsafe { bpf_skb_load_bytes(skb.cast(), offset, walk.bytes.as_mut_ptr().cast(), length) } != 0 {
        return marks;
    }
    let position = addr_of_mut!(walk.at);
    let mut next = 0u32;
    for _ in 0..MAX_OPTIONS {
        // Through memory: each step then looks the same to the verifier, wherever it starts.
        // SAFETY: a field of the map's value.
        let at = unsafe {
            position.write_volatile(next);
            position.read_volatile() & 63
        };
        let option = &walk.bytes[at as usize..at as usize + 10];
        let size = if option[0] <= 1 { 1 } else { u32::from(option[1]) };
        // What stands behind the packet's last byte is left from another packet.
        if size < 1 + u32::from(option[0] > 1) || at + size > length {
            break;
        }
        match (option[0], size) {
            (0, _) => break,
            (3, 3) => walk.window_scale = if option[2] > 14 { 14 } else { option[2] },
            (8, 10) => {
                walk.timestamp = u32::from_be_bytes([option[2], option[3], option[4], option[5]]);
                walk.timestamp_echo = u32::from_be_bytes([option[6], option[7], option[8], option[9]]);
                marks = PacketMarks::TIMESTAMPS.0;
            }
            _ => {}
        }
        next = at + size;
    }
    marks
}
