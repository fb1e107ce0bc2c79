//! The first bytes of payload, for packets that may carry an application message, where the loader asks for them.
//! They go to user space and no further: what is read there are names and codes.

use core::ptr::{addr_of_mut, read_volatile};

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, BPF_RB_NO_WAKEUP},
    helpers::bpf_skb_load_bytes,
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use wire::{MAX_PAYLOAD, PacketMarks, PacketRecord, PayloadRecord, PayloadSelect};

use crate::headers::Place;
use crate::tc::less_one;

/// Most bytes of a packet; 0: none, which is all that a packet then costs.
#[unsafe(no_mangle)]
static PAYLOAD_LENGTH: Global<u32> = Global::new(0);

/// Which packets.
#[unsafe(no_mangle)]
static PAYLOAD_SELECT: Global<u32> = Global::new(0);

/// The loader sets its size.
#[map]
static PAYLOADS: RingBuf = RingBuf::with_byte_size(1 << 12, 0);

/// Packets whose payload found no room.
#[map]
static PAYLOADS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

const UDP: u8 = 17;
const TCP: u8 = 6;
const SYN: u16 = 2;
const DNS_PORT: u16 = 53;
/// Type of a TLS record with a handshake message in it (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Sends the start of the payload behind a packet's record, which is complete.
///
/// # Safety
/// It is a record of the packet, and its place.
#[inline(always)]
pub unsafe fn take(skb: *mut __sk_buff, record: *const PacketRecord, place: *const Place) {
    let most = PAYLOAD_LENGTH.load();
    // SAFETY: the caller's.
    unsafe {
        if most != 0 && !(*record).marks.contains(PacketMarks::LATER_FRAGMENT) {
            copy(skb, (*place).ip, record, most);
        }
    }
}

/// Of its own, so that the verifier goes through it once.
#[inline(never)]
unsafe fn copy(skb: *mut __sk_buff, ip: u32, record: *const PacketRecord, most: u32) {
    // SAFETY: the kernel hands a valid context to the program, and the record is one.
    let (length, payload, flags) = unsafe { ((*skb).len, (*record).payload_length, (*record).tcp_flags) };
    // SAFETY: as above.
    let offset = ip + unsafe { (*record).l3_length } - payload;
    // A new connection between the same ends counts its bytes anew.
    let is_start = flags & SYN != 0;
    if !is_start && (payload == 0 || offset >= length) {
        return;
    }
    // SAFETY: as above.
    if !unsafe { is_selected(skb, offset, record, is_start) } {
        return;
    }
    let there = length.saturating_sub(offset);
    let mut size = if payload < there { payload } else { there };
    if size > most {
        size = most;
    }
    let Some(mut entry) = PAYLOADS.reserve::<PayloadRecord>(0) else {
        if let Some(lost) = PAYLOADS_LOST.get_ptr_mut(0) {
            // SAFETY: the slot is this processor's own.
            unsafe { *lost += 1 };
        }
        return;
    };
    let to = entry.as_mut_ptr();
    // A step that leaves the verifier with both bounds, whichever way the comparisons were compiled.
    let above_one = less_one(size) & (MAX_PAYLOAD as u64 - 1);
    // SAFETY: fields of the reserved records; the buffer holds what is loaded, which is from 1 to its length.
    let outcome = unsafe {
        let (from, into) = (record.cast::<u64>(), addr_of_mut!((*to).packet).cast::<u64>());
        let mut word = 0;
        while word < size_of::<PacketRecord>() / 8 {
            into.add(word).write_volatile(read_volatile(from.add(word)));
            word += 1;
        }
        if size == 0 {
            addr_of_mut!((*to).length).write(0);
            0
        } else {
            addr_of_mut!((*to).length).write(above_one + 1);
            bpf_skb_load_bytes(skb.cast(), offset, addr_of_mut!((*to).bytes).cast(), (above_one + 1) as u32)
        }
    };
    if outcome == 0 {
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    } else {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
    }
}

/// Ports tell DNS; any other message may come on any port, and TLS shows itself by its first byte.
///
/// # Safety
/// `record` is a record.
#[inline(always)]
unsafe fn is_selected(skb: *mut __sk_buff, offset: u32, record: *const PacketRecord, is_start: bool) -> bool {
    let select = PAYLOAD_SELECT.load();
    let has = |one: u32| select & one != 0;
    // SAFETY: the caller's.
    let (protocol, source, destination) =
        unsafe { ((*record).protocol, (*record).source_port, (*record).destination_port) };
    if source == DNS_PORT || destination == DNS_PORT {
        return has(PayloadSelect::DNS) && (protocol == UDP || protocol == TCP);
    }
    if protocol != TCP {
        return false;
    }
    if has(PayloadSelect::TCP) {
        return true;
    }
    if !has(PayloadSelect::TLS) || is_start {
        return has(PayloadSelect::TLS);
    }
    let mut first = 0u8;
    // SAFETY: one byte into one byte.
    let outcome = unsafe { bpf_skb_load_bytes(skb.cast(), offset, addr_of_mut!(first).cast(), 1) };
    outcome == 0 && first == TLS_HANDSHAKE
}
