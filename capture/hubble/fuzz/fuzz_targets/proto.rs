//! Messages as they come over gRPC, to events.
#![no_main]

use hubble::{Converter, proto::GetFlowsResponse};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fuzz_target!(|input: Vec<Vec<u8>>| {
    let mut converter = Converter::default();
    for bytes in &input {
        if let Ok(message) = GetFlowsResponse::decode(bytes.as_slice()) {
            let _ = converter.event(&message, None);
            // What was understood is written as it is read.
            let again = GetFlowsResponse::decode(message.encode_to_vec().as_slice());
            assert_eq!(again.as_ref(), Ok(&message));
        }
    }
});
