//! What is written is read: every field of every event, in the same order, from any mixture.

#![allow(clippy::unwrap_used)] // Helpers of tests may stop at the first surprise.

mod arbitrary;

use arbitrary::{events, header};
use event::{Duration, Event};
use proptest::prelude::*;
use recording::{End, Header, Options, Reader, Writer};

fn write(header: &Header, events: &[Event], options: Options) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.mcap");
    let mut writer = Writer::create(&path, header, options).unwrap();
    for event in events {
        writer.write(event).unwrap();
    }
    let summary = writer.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert_eq!(summary.counts.total(), events.len() as u64);
    bytes
}

fn read(bytes: Vec<u8>) -> (Header, Vec<Event>) {
    let mut reader = Reader::new(Box::new(std::io::Cursor::new(bytes)), "memory").unwrap();
    let events: Vec<Event> = reader.events().map(Result::unwrap).collect();
    let report = reader.report();
    assert_eq!(report.end, Some(End::Complete));
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(report.counts.total(), events.len() as u64);
    (reader.header().clone(), events)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn events_come_back_as_they_were_written(
        header in header(),
        events in events(300),
        batch in 1..200usize,
        chunk in 1..5000usize,
        timed in any::<bool>(),
    ) {
        let flush_after = timed.then_some(Duration::from_millis(500));
        let options = Options { batch, chunk, flush_after, ..Options::default() };
        let bytes = write(&header, &events, options);
        prop_assert_eq!(&bytes, &write(&header, &events, options), "the same events make the same bytes");
        let (read_header, read_events) = read(bytes);
        prop_assert_eq!(read_header, header);
        prop_assert_eq!(read_events, events);
    }
}
