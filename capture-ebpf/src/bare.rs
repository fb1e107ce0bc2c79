//! The yardsticks of the benchmarks: reserve and submit a packet's record, without and with the time in it.

use core::ptr::addr_of_mut;

use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, TC_ACT_UNSPEC},
    helpers::bpf_ktime_get_ns,
    macros::classifier,
    programs::TcContext,
};
use wire::PacketRecord;

use crate::tc::PACKETS;

#[classifier]
pub fn tc_bare(_: TcContext) -> i32 {
    if let Some(entry) = PACKETS.reserve::<PacketRecord>(0) {
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
    TC_ACT_UNSPEC
}

#[classifier]
pub fn tc_bare_timed(_: TcContext) -> i32 {
    if let Some(mut entry) = PACKETS.reserve::<PacketRecord>(0) {
        // SAFETY: a field of the reserved record.
        unsafe { addr_of_mut!((*entry.as_mut_ptr()).time).write(bpf_ktime_get_ns()) };
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
    TC_ACT_UNSPEC
}
