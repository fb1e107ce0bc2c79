//! Any bytes as packet records, one after the other through one decoder.
#![no_main]

use std::sync::LazyLock;

use capture::Clock;
use capture::source::tc::decode::Decoder;
use event::Timestamp;
use libfuzzer_sys::fuzz_target;
use wire::PacketRecord;

static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock::start().expect("there is a clock"));

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = Decoder::new(*CLOCK);
    for bytes in bytes.chunks_exact(size_of::<PacketRecord>()) {
        // SAFETY: as long as the record, which is `repr(C)`, without padding, and valid for any bytes.
        let record = unsafe { bytes.as_ptr().cast::<PacketRecord>().read_unaligned() };
        let packet = decoder.packet(&record, 0, Timestamp::UNIX_EPOCH);
        assert!(packet.time <= packet.arrival);
        assert!((packet.gso_segments > 1) == (packet.gso_size > 0));
    }
});
