//! Any bytes as a recording: read to the end, with a report that adds up.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use recording::Reader;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = Reader::new(Box::new(Cursor::new(bytes.to_vec())), "fuzz") else { return };
    let events = reader.events().map(|event| event.expect("memory can be read")).count();
    let report = reader.report();
    assert_eq!(report.counts.total(), events as u64);
    assert!(report.end.is_some());
    assert!(report.bytes <= bytes.len() as u64);
});
