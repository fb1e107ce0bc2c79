//! A sample of the flows: whole flows, both directions, chosen before a record is made.

use aya_ebpf::{Global, bindings::__sk_buff, macros::map, maps::LruHashMap};
use wire::{Address, PacketMarks, flow_hash, sample_keeps};

use crate::headers::{Bytes, Headers, IPV4, IPV6, Transport, load, load_u16};

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
    let bytes = Bytes::of(skb);
    // The masks are bounds for the verifier, above every value that can be there.
    let ip = bytes.start + (headers.ip_offset as usize & 0x1f);
    let is_ipv6 = headers.marks & PacketMarks::IPV6.0 != 0;
    if !bytes.holds(ip, if is_ipv6 { IPV6 } else { IPV4 }) {
        return true;
    }
    // SAFETY: the check above.
    let (source, destination): (Address, Address) = unsafe {
        if is_ipv6 {
            ([load(ip + 8), load(ip + 16)], [load(ip + 24), load(ip + 32)])
        } else {
            ([u64::from(load::<u32>(ip + 12)), 0], [u64::from(load::<u32>(ip + 16)), 0])
        }
    };
    let protocol = headers.protocol;
    let identification = headers.fragment_id;
    let datagram = Datagram { source, destination, identification, protocol: u32::from(protocol) };
    if headers.marks & PacketMarks::LATER_FRAGMENT.0 != 0 {
        // SAFETY: the value is read at once.
        return unsafe { KEPT.get(&datagram) }.is_none_or(|kept| *kept != 0);
    }
    let transport = ip + (headers.ip_length as usize & 0x7ff);
    let mut ports = [0; 2];
    if headers.transport != Transport::None && bytes.holds(transport, 4) {
        // SAFETY: the check before it.
        ports = unsafe { [load_u16(transport), load_u16(transport + 2)] };
    }
    let kept = sample_keeps(sample, flow_hash(source, ports[0], destination, ports[1], protocol));
    if headers.marks & PacketMarks::FIRST_FRAGMENT.0 != 0 {
        let _ = KEPT.insert(&datagram, u32::from(kept), 0);
    }
    kept
}
