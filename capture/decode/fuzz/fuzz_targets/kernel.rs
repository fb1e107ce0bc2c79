//! Any text as a tracepoint's format, and any bytes as its records: `TRACEPOINT FORMAT NUL RECORD...`.
#![no_main]

use std::sync::LazyLock;

use decode::Clock;
use decode::tracepoint::{Decoder, Format, record};
use event::Timestamp;
use libfuzzer_sys::fuzz_target;
use wire::{KernelRecord, Tracepoint};

static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock::start().expect("there is a clock"));

fuzz_target!(|input: &[u8]| {
    let Some((&number, input)) = input.split_first() else { return };
    let tracepoint = Tracepoint::ALL[usize::from(number) % Tracepoint::ALL.len()];
    // Of a victim's pid its process is looked up: no file here is anybody's input.
    if tracepoint == Tracepoint::MarkVictim {
        return;
    }
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (format, records) = input.split_at(end);
    let mut decoder = Decoder::default();
    decoder.learn(tracepoint, Format::parse(&String::from_utf8_lossy(format)));
    for bytes in records.get(1..).unwrap_or_default().chunks(size_of::<KernelRecord>()) {
        let Ok(mut record) = record(bytes) else {
            assert_ne!(bytes.len(), size_of::<KernelRecord>());
            return;
        };
        record.tracepoint = tracepoint as u32;
        if let Some(event) = decoder.event(&record, &CLOCK, Timestamp::UNIX_EPOCH) {
            assert!(event.time <= event.arrival);
        }
    }
});
