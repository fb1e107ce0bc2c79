//! What the TC programs are measured by, in an object of its own that only the benchmark loads: nothing at all; a record
//! reserved in the kernel's ring buffer and submitted; the same with the time in it.
#![no_std]
#![no_main]

use core::ptr::addr_of_mut;

use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, TC_ACT_UNSPEC},
    helpers::bpf_ktime_get_ns,
    macros::{classifier, map},
    maps::RingBuf,
    programs::TcContext,
};
use wire::PacketRecord;

/// The loader sets its size.
#[map]
static PACKETS: RingBuf = RingBuf::with_byte_size(1 << 12, 0);

#[classifier]
pub fn nothing(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[classifier]
pub fn reserve_and_submit(_: TcContext) -> i32 {
    if let Some(entry) = PACKETS.reserve::<PacketRecord>(0) {
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
    TC_ACT_UNSPEC
}

#[classifier]
pub fn reserve_and_submit_time(_: TcContext) -> i32 {
    if let Some(mut entry) = PACKETS.reserve::<PacketRecord>(0) {
        // SAFETY: a field of the reserved record, and a helper that reads a clock.
        unsafe { addr_of_mut!((*entry.as_mut_ptr()).time).write(bpf_ktime_get_ns()) };
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
    TC_ACT_UNSPEC
}

/// The kernel reads the licence from here; helpers for GPL-compatible programs ask for it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier accepts no program that can get here.
    loop {}
}
