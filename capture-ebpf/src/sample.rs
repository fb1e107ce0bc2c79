//! A sample of the flows: whole flows, both directions, chosen before a record is made.

use aya_ebpf::{Global, macros::map, maps::LruHashMap};
use wire::{Address, PacketMarks, PacketRecord, flow_hash, sample_keeps};

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
///
/// # Safety
/// It is a record with all that its packet's headers say.
#[inline(always)]
pub unsafe fn keeps(record: *const PacketRecord) -> bool {
    let sample = SAMPLE.load();
    // SAFETY: the caller's.
    sample <= 1 || keeps_flow(unsafe { &*record }, sample)
}

/// A later fragment is kept where its first one was not seen; recording it will tell.
#[inline(always)]
fn keeps_flow(record: &PacketRecord, sample: u32) -> bool {
    let &PacketRecord { source, destination, protocol, marks, .. } = record;
    let datagram =
        Datagram { source, destination, identification: record.fragment_id, protocol: u32::from(protocol) };
    if marks.contains(PacketMarks::LATER_FRAGMENT) {
        // SAFETY: the value is read at once.
        return unsafe { KEPT.get(&datagram) }.is_none_or(|kept| *kept != 0);
    }
    let (source_port, destination_port) = (record.source_port, record.destination_port);
    let hash = flow_hash(source, source_port, destination, destination_port, protocol);
    let kept = sample_keeps(sample, hash);
    if marks.contains(PacketMarks::FIRST_FRAGMENT) {
        let _ = KEPT.insert(&datagram, u32::from(kept), 0);
    }
    kept
}
