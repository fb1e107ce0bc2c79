//! Lines of JSON to events: any bytes are messages, bad lines or lines of other kinds, and each is counted.
#![no_main]

use hubble::{Converter, JsonReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (mut reader, mut converter) = (JsonReader::new(input), Converter::default());
    let (mut messages, mut bad) = (0, 0);
    while let Some(line) = reader.next().expect("bytes in memory can be read") {
        match line {
            Ok(message) => {
                messages += 1;
                let _ = converter.json_event(&message);
            }
            Err(_) => bad += 1,
        }
    }
    assert!(messages + bad + reader.other_lines() <= reader.lines());
    assert_eq!(converter.counts().read, messages);
});
