//! A sample of the flows: whole flows, both directions, chosen before a record is made.

use aya_ebpf::{Global, bindings::__sk_buff, helpers::bpf_skb_load_bytes, macros::map, maps::LruHashMap};
use wire::{Address, PacketMarks, flow_hash, sample_keeps};

use crate::headers::{Headers, Transport};

/// One flow in so many is recorded. 1 is every flow: the loader's value is read-only, so that the verifier then
/// removes all of this.
#[unsafe(no_mangle)]
static SAMPLE: Global<u32> = Global::new(1);

/// A fragmented datagram.
#[derive(Clone, Copy)]
#[repr(C)]
struct Datagram {
    source: Address,
    destination: Address,
    identification: u32,
    protocol: u32,
}

/// Whether the datagram is kept, as its first fragment told: the others have no ports.
#[map]
static KEPT: LruHashMap<Datagram, u32> = LruHashMap::with_max_entries(4096, 0);

/// Whether the packet's flow is recorded.
#[inline(always)]
pub fn keeps(skb: *mut __sk_buff, headers: &Headers) -> bool {
    let sample = SAMPLE.load();
    sample <= 1 || keeps_flow(skb, headers, sample)
}

/// What cannot be read is kept; recording it will tell.
#[inline(always)]
fn keeps_flow(skb: *mut __sk_buff, headers: &Headers, sample: u32) -> bool {
    let mut source = [0; 2];
    let mut destination = [0; 2];
    let is_read = if headers.marks & PacketMarks::IPV6.0 != 0 {
        load(skb, headers.ip_offset + 8, &mut source) && load(skb, headers.ip_offset + 24, &mut destination)
    } else {
        let mut both = [0_u32; 2];
        let is_read = load(skb, headers.ip_offset + 12, &mut both);
        (source[0], destination[0]) = (u64::from(both[0]), u64::from(both[1]));
        is_read
    };
    if !is_read {
        return true;
    }
    let protocol = headers.protocol;
    let datagram =
        Datagram { source, destination, identification: headers.fragment_id, protocol: u32::from(protocol) };
    if headers.marks & PacketMarks::LATER_FRAGMENT.0 != 0 {
        // SAFETY: the value is read at once.
        return unsafe { KEPT.get(&datagram) }.is_none_or(|kept| *kept != 0);
    }
    let mut ports = [0_u16; 2];
    if headers.transport != Transport::None {
        load(skb, headers.ip_offset + headers.ip_length, &mut ports);
    }
    let hash = flow_hash(source, u16::from_be(ports[0]), destination, u16::from_be(ports[1]), protocol);
    let kept = sample_keeps(sample, hash);
    if headers.marks & PacketMarks::FIRST_FRAGMENT.0 != 0 {
        let _ = KEPT.insert(&datagram, u32::from(kept), 0);
    }
    kept
}

/// Copies bytes of the packet as they are; false where it ends before them.
#[inline(always)]
fn load<T>(skb: *mut __sk_buff, offset: u32, value: &mut T) -> bool {
    let to: *mut T = value;
    // SAFETY: as many bytes as the value has, which any bytes are valid for.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, to.cast(), size_of::<T>() as u32) == 0 }
}
