//! Recordings of older minor versions are read as they were written.

#![allow(clippy::unwrap_used)] // Helpers of tests may stop at the first surprise.

use std::path::Path;

use event::{Event, Source};
use recording::{Reader, Version, Writer};

fn read(path: &Path) -> (Reader, Vec<Event>) {
    let mut reader = Reader::open(path).unwrap();
    let events: Vec<Event> = reader.events().map(Result::unwrap).collect();
    assert!(reader.report().is_whole(), "{:?}", reader.report());
    (reader, events)
}

#[test]
fn kernel_events_that_have_a_message_each_come_back_as_those_in_batches() {
    // An eighth of a second of the lab's web traffic, recorded live with messages of HTTP.
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/file/1.1.mcap");
    let (reader, events) = read(&old);
    assert_eq!(reader.header().version, Version { major: 1, minor: 1 });
    let count = |source| events.iter().filter(|event| event.source() == source).count();
    assert_eq!([Source::Packets, Source::Kernel, Source::L7].map(count), [161, 38, 24]);
    let is_one = |event: &Event| !matches!(event, Event::Kernel(event) if event.count != 1);
    assert!(events.iter().all(is_one));

    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new.mcap");
    let mut writer = Writer::create(&new, reader.header(), recording::Options::default()).unwrap();
    events.iter().for_each(|event| writer.write(event).unwrap());
    writer.finish().unwrap();
    let (reader, again) = read(&new);
    assert_eq!(reader.header().version, recording::VERSION);
    assert_eq!(again, events);
}
