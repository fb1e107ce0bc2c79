//! Any text as a tracepoint's format, and any bytes as its records.
#![no_main]

use std::sync::LazyLock;

use capture::Clock;
use capture::source::kernel::decode::{Decoder, record};
use capture::source::kernel::format::Format;
use event::Timestamp;
use libfuzzer_sys::fuzz_target;
use wire::{KernelRecord, Tracepoint};

static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock::start().expect("there is a clock"));

fuzz_target!(|input: (u8, &str, &[u8])| {
    let (tracepoint, format, records) = input;
    let mut decoder = Decoder::default();
    let tracepoint = Tracepoint::ALL[usize::from(tracepoint) % Tracepoint::ALL.len()];
    // Of a victim's pid its process is looked up: no file here is anybody's input.
    if tracepoint == Tracepoint::MarkVictim {
        return;
    }
    decoder.learn(tracepoint, Format::parse(format));
    for bytes in records.chunks_exact(size_of::<KernelRecord>()) {
        let mut record = record(bytes).expect("as long as a record");
        record.tracepoint = tracepoint as u32;
        if let Some(event) = decoder.event(&record, &CLOCK, Timestamp::UNIX_EPOCH) {
            assert!(event.time <= event.arrival);
        }
    }
    assert!(record(&records[..records.len().min(7)]).is_err());
});
