//! Any bytes as records of the TC programs, one after the other through one decoder: with payload and without.
#![no_main]

use std::sync::LazyLock;

use decode::packet::Decoder;
use decode::{Clock, payload};
use event::Timestamp;
use libfuzzer_sys::fuzz_target;
use wire::{PacketRecord, PayloadRecord};

static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock::start().expect("there is a clock"));

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = Decoder::new(*CLOCK);
    let mut check = |record: &PacketRecord| {
        let packet = decoder.packet(record, 0, Timestamp::UNIX_EPOCH);
        assert!(packet.time <= packet.arrival);
        assert!((packet.gso_segments > 1) == (packet.gso_size > 0));
    };
    for bytes in bytes.chunks_exact(size_of::<PacketRecord>()) {
        // SAFETY: as long as the record, which is `repr(C)`, without padding, and valid for any bytes.
        check(&unsafe { bytes.as_ptr().cast::<PacketRecord>().read_unaligned() });
    }
    for bytes in bytes.chunks(size_of::<PayloadRecord>()) {
        if let Ok((record, payload)) = payload::split(bytes) {
            assert!(payload.len() <= wire::MAX_PAYLOAD);
            check(&record);
        }
    }
});
