//! Any bytes as a datagram of rtnetlink.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::link::changes_in(bytes);
});
