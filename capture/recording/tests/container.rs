//! Other MCAP tools open a recording, find it sound, and decode every message by the schema inside it.

#![allow(clippy::unwrap_used)] // Helpers of tests may stop at the first surprise.

mod arbitrary;

use event::{Event, Source};
use mcap::sans_io::linear_reader::{LinearReadEvent, LinearReader, LinearReaderOptions};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use recording::{Options, Writer};

fn recording() -> (Vec<u8>, Vec<Event>) {
    let mut runner = TestRunner::deterministic();
    let header = arbitrary::header().new_tree(&mut runner).unwrap().current();
    let mut events = Vec::new();
    while events.len() < 2000 {
        events.extend(arbitrary::events(300).new_tree(&mut runner).unwrap().current());
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mcap");
    let mut writer = Writer::create(&path, &header, Options { chunk: 20_000, ..Options::default() }).unwrap();
    for event in &events {
        writer.write(event).unwrap();
    }
    writer.finish().unwrap();
    (std::fs::read(path).unwrap(), events)
}

#[test]
fn the_mcap_library_finds_all_checksums_right() {
    let (bytes, _) = recording();
    let options = LinearReaderOptions::default()
        .with_check_finishes_after_end_magic(true)
        .with_prevalidate_chunk_crcs(true)
        .with_validate_data_section_crc(true)
        .with_validate_summary_section_crc(true);
    let mut reader = LinearReader::new_with_options(options);
    let mut rest = &bytes[..];
    let mut records = 0;
    while let Some(event) = reader.next_event() {
        match event.unwrap() {
            LinearReadEvent::ReadRequest(want) => {
                let count = want.min(rest.len());
                reader.insert(want)[..count].copy_from_slice(&rest[..count]);
                reader.notify_read(count);
                rest = &rest[count..];
            }
            LinearReadEvent::Record { opcode, data } => {
                mcap::parse_record(opcode, data).unwrap();
                records += 1;
            }
        }
    }
    assert!(records > 100);
    let summary = mcap::Summary::read(&bytes).unwrap().unwrap();
    assert_eq!(summary.channels.len(), 6);
    let stats = summary.stats.unwrap();
    assert_eq!(stats.chunk_count as usize, summary.chunk_indexes.len());
    assert!(summary.metadata_indexes.iter().any(|index| index.name == "faultline"));
}

#[test]
fn every_message_decodes_by_the_schema_inside_the_file() {
    let (bytes, events) = recording();
    let (mut packets, mut kernel, mut others) = (0, 0, 0);
    for message in mcap::MessageStream::new(&bytes).unwrap() {
        let message = message.unwrap();
        let schema = message.channel.schema.as_ref().unwrap();
        assert_eq!(
            (schema.encoding.as_str(), message.channel.message_encoding.as_str()),
            ("protobuf", "protobuf")
        );
        let pool = DescriptorPool::decode(&schema.data[..]).unwrap();
        let descriptor = pool.get_message_by_name(&schema.name).unwrap();
        let decoded = DynamicMessage::decode(descriptor, &message.data[..]).unwrap();
        assert_eq!(decoded.unknown_fields().count(), 0, "{}", schema.name);
        match schema.name.as_str() {
            "faultline.Packets" => packets += check_columns(&decoded),
            "faultline.Kernel" => {
                let batch = decoded.get_field_by_name("batch").unwrap();
                kernel += check_columns(batch.as_message().unwrap());
            }
            _ => others += 1,
        }
    }
    let written = |source| events.iter().filter(|event| event.source() == source).count();
    assert_eq!((packets, kernel), (written(Source::Packets), written(Source::Kernel)));
    assert_eq!(others, events.len() - packets - kernel);
}

/// The number of events, which no column exceeds.
fn check_columns(batch: &DynamicMessage) -> usize {
    let count = batch.get_field_by_name("count").unwrap().as_u32().unwrap() as usize;
    for (field, value) in batch.fields() {
        match value {
            Value::List(column) => assert!(column.len() <= count, "{}", field.name()),
            Value::Bytes(column) if field.name().starts_with("time") => {
                assert!(column.len() <= count, "{}", field.name());
            }
            _ => {}
        }
    }
    count
}
