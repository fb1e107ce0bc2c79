//! TC: one record for every IP packet that passes an interface, and a count of every one without a record.

use core::ptr::addr_of_mut;
use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    helpers::{bpf_ktime_get_ns, bpf_skb_load_bytes},
    macros::{classifier, map},
    maps::{PerCpuArray, PerCpuHashMap},
    programs::TcContext,
};
use wire::{EGRESS, INGRESS, PacketMarks, PacketRecord, Unrecorded};

use crate::headers::{self, MAX_WINDOW_SCALE, Place, set};
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
    let (record, place) = (ring.slot().ok_or(Cause::Lost)?, ring.scratch());
    match headers::read::<ETHERNET_LINK>(skb, record, place) {
        headers::FOUND => {}
        headers::OPTIONS => walk_options(skb, record, place),
        headers::NOT_IP => return Err(Cause::NotIp),
        _ => return Err(Cause::Unreadable),
    }
    // Nothing that was known on the way here is known behind it, so that all ways look alike to the verifier.
    compiler_fence(Ordering::SeqCst);
    // SAFETY: fields of the slot, which is this processor's.
    unsafe {
        if !sample::keeps(record) {
            ring.leave_out();
            return Ok(());
        }
        if DIRECTION == EGRESS {
            (*record).marks.0 |= PacketMarks::EGRESS.0;
        }
        set!(record,
            time: bpf_ktime_get_ns(),
            interface: (*skb).ifindex,
            gso_segments: (*skb).gso_segs as u16,
            gso_size: (*skb).gso_size as u16,
        );
        if !ring.has_room() {
            return Err(Cause::Lost);
        }
        payload::take(skb, record, place);
    }
    // The reader looks by itself every few milliseconds: waking it costs more than the record.
    ring.submit();
    Ok(())
}

/// The data offset has four bits: 60 bytes of header, 20 of them fixed.
const MAX_OPTIONS: usize = 40;

/// TCP options of unusual layouts, while they are walked. In a map: the stack allows aligned access alone, and what
/// the verifier knows of a register it tries with every path.
struct Walk {
    /// Room behind the last byte where an option may start, so that a masked index plus ten stays inside.
    bytes: [u8; 80],
    at: u32,
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

/// Walks the options up to the first that makes no sense, and writes what they say to the record.
#[inline(never)]
fn walk_options(skb: *mut __sk_buff, record: *mut PacketRecord, place: *const Place) {
    let Some(walk) = WALK.get_ptr_mut(0) else { return };
    // SAFETY: both slots are this processor's own, and the program is not interrupted by itself.
    let (walk, Place { options, options_length, .. }) = unsafe { (&mut *walk, place.read_volatile()) };
    // In this way, because Linux before 6.3 learns nothing from a comparison with zero.
    let above_one = less_one(options_length);
    if above_one >= MAX_OPTIONS as u64 {
        return;
    }
    let length = above_one as u32 + 1;
    // SAFETY: the buffer holds the longest options; a packet that ends before them gives an error.
    if unsafe { bpf_skb_load_bytes(skb.cast(), options, walk.bytes.as_mut_ptr().cast(), length) } != 0 {
        return;
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
        // SAFETY: fields of the record.
        unsafe {
            match (option[0], size) {
                (0, _) => break,
                (3, 3) => {
                    let scale = option[2];
                    set!(record, window_scale: if scale > MAX_WINDOW_SCALE { MAX_WINDOW_SCALE } else { scale });
                }
                (8, 10) => {
                    set!(record,
                        timestamp: u32::from_be_bytes([option[2], option[3], option[4], option[5]]),
                        timestamp_echo: u32::from_be_bytes([option[6], option[7], option[8], option[9]]),
                    );
                    (*record).marks.0 |= PacketMarks::TIMESTAMPS.0;
                }
                _ => {}
            }
        }
        next = at + size;
    }
}
