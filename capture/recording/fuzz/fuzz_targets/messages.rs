//! Any bytes as messages of the six channels, in a container whose checksums are right.
#![no_main]

use std::collections::BTreeMap;
use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use mcap::records::MessageHeader;
use recording::Reader;

const CHANNELS: [(&str, &str); 6] = [
    ("packets", "faultline.Packets"),
    ("kernel", "faultline.Kernel"),
    ("l7", "faultline.L7"),
    ("system", "faultline.System"),
    ("marks", "faultline.Mark"),
    ("loss", "faultline.Loss"),
];

fuzz_target!(|messages: Vec<(u8, u8, Vec<u8>)>| {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer =
        mcap::WriteOptions::new().profile("faultline").compression(None).create(&mut bytes).expect("in memory");
    for (topic, schema) in CHANNELS {
        let schema = writer.add_schema(schema, "protobuf", &[]).expect("in memory");
        writer.add_channel(schema, topic, "protobuf", &BTreeMap::new()).expect("in memory");
    }
    for (channel, sequence, data) in &messages {
        let header = MessageHeader {
            channel_id: u16::from(channel % 6) + 1,
            sequence: u32::from(*sequence),
            log_time: 0,
            publish_time: 0,
        };
        writer.write_to_known_channel(&header, data).expect("in memory");
    }
    writer.finish().expect("in memory");
    drop(writer);
    let mut reader = Reader::new(Box::new(Cursor::new(bytes.into_inner())), "fuzz").expect("a recording");
    let events = reader.events().map(|event| event.expect("memory can be read")).count();
    assert_eq!(reader.report().counts.total(), events as u64);
});
