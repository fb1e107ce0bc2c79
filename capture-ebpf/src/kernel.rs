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
use wire::{COPIED, KernelRecord, MAX_REASONS, Traced, Tracepoint};

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
    observe(&ctx, Tracepoint::RetransmitSkb, || true)
}

#[tracepoint]
pub fn tcp_send_reset(ctx: TracePointContext) -> u32 {
    observe(&ctx, Tracepoint::SendReset, || true)
}

#[tracepoint]
pub fn tcp_receive_reset(ctx: TracePointContext) -> u32 {
    observe(&ctx, Tracepoint::ReceiveReset, || true)
}

#[tracepoint]
pub fn kfree_skb(ctx: TracePointContext) -> u32 {
    observe(&ctx, Tracepoint::KfreeSkb, || is_fault(&ctx))
}

#[tracepoint]
pub fn inet_sock_set_state(ctx: TracePointContext) -> u32 {
    observe(&ctx, Tracepoint::SetState, || true)
}

#[tracepoint]
pub fn mark_victim(ctx: TracePointContext) -> u32 {
    observe(&ctx, Tracepoint::MarkVictim, || true)
}

#[tracepoint]
pub fn tcp_probe(ctx: TracePointContext) -> u32 {
    observe(&ctx, Tracepoint::Probe, || is_due(&ctx))
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

#[inline(always)]
fn observe(ctx: &TracePointContext, tracepoint: Tracepoint, is_wanted: impl Fn() -> bool) -> u32 {
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
            addr_of_mut!((*record).reserved).write(0);
            // Where it fails the kernel fills the bytes with zeros.
            bpf_probe_read_kernel(addr_of_mut!((*record).bytes).cast(), COPIED as u32, ctx.as_ptr());
            // The reader looks by itself every few milliseconds.
            entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        } else {
            (*traced).lost += 1;
        }
    }
    0
}
