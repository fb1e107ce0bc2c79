//! Tracepoints: the start of the kernel's own record of each event, copied as it is.

use core::ptr::addr_of_mut;

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_kernel},
    macros::{map, tracepoint},
    maps::{LruHashMap, PerCpuArray, RingBuf},
    programs::TracePointContext,
};
use wire::{COPIED, COPIED_PACKET, KernelRecord, MAX_REASONS, Traced, Tracepoint};

/// The loader sets its size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 12, 0);

#[map]
static TRACED: PerCpuArray<Traced> = PerCpuArray::with_max_entries(Tracepoint::ALL.len() as u32, 0);

/// Offset of kfree_skb's field `reason`; 0 where the kernel has none.
#[unsafe(no_mangle)]
static REASON_OFFSET: Global<u32> = Global::new(0);

/// A bit for each drop reason that is no fault.
#[unsafe(no_mangle)]
static NORMAL_REASONS: Global<[u64; MAX_REASONS / 64]> = Global::new([0; MAX_REASONS / 64]);

/// Offset of kfree_skb's field `skbaddr`; 0 where packets cannot be read, because the next three are not known.
#[unsafe(no_mangle)]
static SKB_OFFSET: Global<u32> = Global::new(0);

/// Offsets in `struct sk_buff` of `head`, where the packet's memory starts, and of `network_header` and `tail`, which
/// count from there.
#[unsafe(no_mangle)]
static SKB_HEAD: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_NETWORK_HEADER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_TAIL: Global<u32> = Global::new(0);

/// Offset of tcp_probe's field `sock_cookie`; 0 where the kernel has none.
#[unsafe(no_mangle)]
static COOKIE_OFFSET: Global<u32> = Global::new(0);

/// Nanoseconds between two round-trip times of one connection.
#[unsafe(no_mangle)]
static PROBE_INTERVAL: Global<u64> = Global::new(100_000_000);

/// When a connection's round-trip time was last told, by its cookie. A connection that falls out of it is told of
/// once more.
#[map]
static PROBED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(16_384, 0);

#[tracepoint]
pub fn tcp_retransmit_skb(ctx: TracePointContext) -> u32 {
    observe::<false>(&ctx, Tracepoint::RetransmitSkb, || true)
}

#[tracepoint]
pub fn tcp_send_reset(ctx: TracePointContext) -> u32 {
    observe::<false>(&ctx, Tracepoint::SendReset, || true)
}

#[tracepoint]
pub fn tcp_receive_reset(ctx: TracePointContext) -> u32 {
    observe::<false>(&ctx, Tracepoint::ReceiveReset, || true)
}

#[tracepoint]
pub fn kfree_skb(ctx: TracePointContext) -> u32 {
    observe::<true>(&ctx, Tracepoint::KfreeSkb, || is_fault(&ctx))
}

#[tracepoint]
pub fn inet_sock_set_state(ctx: TracePointContext) -> u32 {
    observe::<false>(&ctx, Tracepoint::SetState, || true)
}

#[tracepoint]
pub fn mark_victim(ctx: TracePointContext) -> u32 {
    observe::<false>(&ctx, Tracepoint::MarkVictim, || true)
}

#[tracepoint]
pub fn tcp_probe(ctx: TracePointContext) -> u32 {
    observe::<false>(&ctx, Tracepoint::Probe, || is_due(&ctx))
}

/// Whether a packet was dropped for a reason that is not part of normal work.
#[inline(always)]
fn is_fault(ctx: &TracePointContext) -> bool {
    // SAFETY: the kernel's own record, at an offset that its format file told.
    let reason = unsafe { ctx.read_at::<u32>(REASON_OFFSET.load() as usize) }.unwrap_or(0);
    let word = match reason / 64 {
        0 => NORMAL_REASONS.load()[0],
        1 => NORMAL_REASONS.load()[1],
        2 => NORMAL_REASONS.load()[2],
        3 => NORMAL_REASONS.load()[3],
        _ => 0,
    };
    word >> (reason & 63) & 1 == 0
}

/// Whether the connection's last round-trip time was told long enough ago.
#[inline(always)]
fn is_due(ctx: &TracePointContext) -> bool {
    // SAFETY: as in `is_fault`.
    let Ok(cookie) = (unsafe { ctx.read_at::<u64>(COOKIE_OFFSET.load() as usize) }) else { return true };
    // SAFETY: the helper reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(last) = PROBED.get_ptr_mut(cookie) {
        // SAFETY: two processors may both find it due; then both tell.
        unsafe {
            if now - *last < PROBE_INTERVAL.load() {
                return false;
            }
            *last = now;
        }
        return true;
    }
    // Full of others that are younger: told unbounded rather than not at all.
    let _ = PROBED.insert(cookie, now, 0);
    true
}

/// Copies the start of the dropped packet; how many bytes of it lie there, 0 where it cannot be read.
///
/// # Safety
/// There is room for [`COPIED_PACKET`] bytes at `to`.
#[inline(always)]
unsafe fn copy_packet(ctx: &TracePointContext, to: *mut u8) -> u32 {
    // SAFETY: the kernel's own record and structure, at offsets that its own descriptions told; what cannot be read
    // gives an error, and zeros.
    unsafe {
        let skb = match SKB_OFFSET.load() {
            0 => return 0,
            offset => ctx.read_at::<u64>(offset as usize).unwrap_or(0),
        };
        let head: u64 = read(skb + u64::from(SKB_HEAD.load()));
        let start = u32::from(read::<u16>(skb + u64::from(SKB_NETWORK_HEADER.load())));
        let end: u32 = read(skb + u64::from(SKB_TAIL.load()));
        // Behind the end of a packet's memory stands more of the kernel's that belongs to it: reading on does no
        // harm, and whoever decodes the bytes stops at the length.
        let from = (head + u64::from(start)) as *const core::ffi::c_void;
        if start >= end || bpf_probe_read_kernel(to.cast(), COPIED_PACKET as u32, from) != 0 {
            return 0;
        }
        end - start
    }
}

/// A value of the kernel; zeros where it cannot be read.
///
/// # Safety
/// Any bytes are valid for the type.
#[inline(always)]
unsafe fn read<T: Default>(address: u64) -> T {
    let mut value = T::default();
    let to: *mut T = &mut value;
    // SAFETY: as many bytes as the value has.
    unsafe { bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, address as *const core::ffi::c_void) };
    value
}

#[inline(always)]
fn observe<const PACKET: bool>(
    ctx: &TracePointContext,
    tracepoint: Tracepoint,
    is_wanted: impl Fn() -> bool,
) -> u32 {
    let Some(traced) = TRACED.get_ptr_mut(tracepoint as u32) else { return 0 };
    // SAFETY: the slot is this processor's own, and the kernel runs no other tracepoint's program in between.
    unsafe {
        (*traced).seen += 1;
        if !is_wanted() {
            (*traced).filtered += 1;
        } else if let Some(mut entry) = EVENTS.reserve::<KernelRecord>(0) {
            let record = entry.as_mut_ptr();
            addr_of_mut!((*record).time).write(bpf_ktime_get_ns());
            addr_of_mut!((*record).tracepoint).write(tracepoint as u32);
            let bytes = addr_of_mut!((*record).bytes);
            // Where it fails the kernel fills the bytes with zeros.
            bpf_probe_read_kernel(bytes.cast(), COPIED as u32, ctx.as_ptr());
            let packet_length =
                if PACKET { copy_packet(ctx, bytes.cast::<u8>().add(COPIED - COPIED_PACKET)) } else { 0 };
            addr_of_mut!((*record).packet_length).write(packet_length);
            // The reader looks by itself every few milliseconds.
            entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        } else {
            (*traced).lost += 1;
        }
    }
    0
}
