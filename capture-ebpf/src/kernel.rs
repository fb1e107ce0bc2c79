//! Tracepoints: the start of the kernel's own record of each event, copied as it is.

use core::ffi::c_void;
use core::ptr::addr_of_mut;

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_kernel},
    macros::{map, raw_tracepoint},
    maps::{LruHashMap, PerCpuArray, RingBuf},
    programs::{RawTracePointContext, TracePointContext},
};
use wire::{COPIED, COPIED_PACKET, KernelRecord, MAX_REASONS, Probed, Traced, Tracepoint};

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

/// Offsets in `struct sock` of what names a connection, and in `struct tcp_sock` of its round-trip time: family,
/// own port, other's port, own and other's address of IPv4 and of IPv6, `srtt_us`.
#[unsafe(no_mangle)]
static SOCK: Global<[u32; 8]> = Global::new([0; 8]);

/// When a connection's round-trip time was last told, by its cookie, or by its socket's address where the socket itself
/// is read. A connection that falls out of it is told of once more; one whose socket stands where another's stood waits
/// for as long as that one would have.
#[map]
static PROBED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(16_384, 0);

/// What a program at a tracepoint returns: 0 would keep the event from everybody else who asked perf for it.
const PASS_ON: u32 = 1;

/// A program at a tracepoint. Not by aya's macro, whose programs return 0 whatever they are told to.
macro_rules! tracepoint {
    ($(#[$doc:meta])* $name:ident, $tracepoint:ident, $packet:literal, $is_wanted:expr) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[unsafe(link_section = "tracepoint")]
        pub fn $name(ctx: *mut c_void) -> u32 {
            observe::<$packet>(&TracePointContext::new(ctx), Tracepoint::$tracepoint, $is_wanted);
            PASS_ON
        }
    };
}

tracepoint!(tcp_retransmit_skb, RetransmitSkb, false, |_| true);
tracepoint!(tcp_send_reset, SendReset, false, |_| true);
tracepoint!(tcp_receive_reset, ReceiveReset, false, |_| true);
tracepoint!(kfree_skb, KfreeSkb, true, is_fault);
tracepoint!(inet_sock_set_state, SetState, false, |_| true);
tracepoint!(mark_victim, MarkVictim, false, |_| true);
tracepoint!(
    /// Where [`tcp_probe_raw`] cannot be: on a kernel that does not describe its sockets.
    tcp_probe,
    Probe,
    false,
    |ctx| {
        // SAFETY: as in `is_fault`.
        let cookie = unsafe { ctx.read_at::<u64>(COOKIE_OFFSET.load() as usize) };
        cookie.map_or(true, is_due)
    }
);

/// The same without the kernel's own record, which costs more than all of this program: it is made for each segment
/// that the node receives, and looked at for a few in a second.
#[raw_tracepoint(tracepoint = "tcp_probe")]
pub fn tcp_probe_raw(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the tracepoint's first argument is the socket.
    let sock = unsafe { *ctx.as_ptr().cast::<u64>() };
    // SAFETY: the record is the program's own.
    record(
        Tracepoint::Probe,
        || is_due(sock),
        |record| unsafe {
            let probed = addr_of_mut!((*record).bytes).cast::<Probed>();
            let [family, own_port, port, own_v4, v4, own_v6, v6, srtt] = SOCK.load();
            let at = |offset: u32| sock + u64::from(offset);
            // The kernel keeps eight times it.
            addr_of_mut!((*probed).srtt).write(read::<u32>(at(srtt)) >> 3);
            addr_of_mut!((*probed).family).write(read(at(family)));
            addr_of_mut!((*probed).sport).write(read(at(own_port)));
            addr_of_mut!((*probed).dport).write(u16::from_be(read(at(port))));
            addr_of_mut!((*probed).saddr).write(read(at(own_v4)));
            addr_of_mut!((*probed).daddr).write(read(at(v4)));
            addr_of_mut!((*probed).saddr_v6).write(read(at(own_v6)));
            addr_of_mut!((*probed).daddr_v6).write(read(at(v6)));
            addr_of_mut!((*record).packet_length).write(0);
        },
    );
    0
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
fn is_due(connection: u64) -> bool {
    // SAFETY: the helper reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(last) = PROBED.get_ptr_mut(connection) {
        // SAFETY: two processors may both find it due; then both tell.
        unsafe {
            if now.wrapping_sub(*last) < PROBE_INTERVAL.load() {
                return false;
            }
            *last = now;
        }
        return true;
    }
    // Full of others that are younger: told unbounded rather than not at all.
    let _ = PROBED.insert(connection, now, 0);
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
        let from = (head + u64::from(start)) as *const c_void;
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
    unsafe { bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, address as *const c_void) };
    value
}

/// Copies the kernel's record.
#[inline(always)]
fn observe<const PACKET: bool>(
    ctx: &TracePointContext,
    tracepoint: Tracepoint,
    is_wanted: impl Fn(&TracePointContext) -> bool,
) {
    // SAFETY: the record is the program's own.
    record(
        tracepoint,
        || is_wanted(ctx),
        |record| unsafe {
            let bytes = addr_of_mut!((*record).bytes);
            // Where it fails the kernel fills the bytes with zeros.
            bpf_probe_read_kernel(bytes.cast(), COPIED as u32, ctx.as_ptr());
            let packet_length =
                if PACKET { copy_packet(ctx, bytes.cast::<u8>().add(COPIED - COPIED_PACKET)) } else { 0 };
            addr_of_mut!((*record).packet_length).write(packet_length);
        },
    );
}

/// Counts the event, and hands it over where it is wanted and there is room; `fill` writes what it is beside its time.
#[inline(always)]
fn record(tracepoint: Tracepoint, is_wanted: impl Fn() -> bool, fill: impl FnOnce(*mut KernelRecord)) {
    let Some(traced) = TRACED.get_ptr_mut(tracepoint as u32) else { return };
    // SAFETY: the slot is this processor's and this tracepoint's own, and the kernel runs no program within itself.
    unsafe {
        (*traced).seen += 1;
        if !is_wanted() {
            (*traced).filtered += 1;
        } else if let Some(mut entry) = EVENTS.reserve::<KernelRecord>(0) {
            let record = entry.as_mut_ptr();
            addr_of_mut!((*record).time).write(bpf_ktime_get_ns());
            addr_of_mut!((*record).tracepoint).write(tracepoint as u32);
            fill(record);
            // The reader looks by itself every few milliseconds.
            entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        } else {
            (*traced).lost += 1;
        }
    }
}
