//! Cut and damaged recordings: nothing panics, nothing is read that was not written, and what is missing is told.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // Helpers of tests may stop at the first surprise.

mod arbitrary;

use std::io::Cursor;

use event::Event;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rand_core::Rng as _;
use recording::{Damage, End, Error, Fault, Header, Options, Reader, Report, Writer};

/// A recording with chunks of a few kilobytes, and what it holds.
struct Original {
    bytes: Vec<u8>,
    header: Header,
    events: Vec<Event>,
    /// Length of the file after each flush, with the number of events before.
    flushes: Vec<(u64, usize)>,
}

impl Original {
    fn new() -> Self {
        let mut runner = TestRunner::deterministic();
        let header = arbitrary::header().new_tree(&mut runner).unwrap().current();
        let mut events = Vec::new();
        while events.len() < 3000 {
            events.extend(arbitrary::events(300).new_tree(&mut runner).unwrap().current());
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.mcap");
        let options = Options { batch: 50, flush_after: None, ..Options::default() };
        let mut writer = Writer::create(&path, &header, options).unwrap();
        let mut flushes = vec![(writer.bytes_written(), 0)];
        for (index, event) in events.iter().enumerate() {
            writer.write(event).unwrap();
            if index % 100 == 99 {
                writer.flush().unwrap();
                flushes.push((writer.bytes_written(), index + 1));
            }
        }
        writer.finish().unwrap();
        let bytes = std::fs::read(path).unwrap();
        Self { bytes, header, events, flushes }
    }
}

fn random() -> TestRng {
    TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32])
}

fn read(bytes: &[u8]) -> Result<(Header, Vec<Event>, Report), Error> {
    let mut reader = Reader::new(Box::new(Cursor::new(bytes.to_vec())), "memory")?;
    let events = reader.events().collect::<Result<Vec<Event>, Error>>()?;
    Ok((reader.header().clone(), events, reader.report().clone()))
}

/// Whether all of `part` stands in `whole`, in the same order.
fn is_subsequence(part: &[Event], whole: &[Event]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|event| rest.any(|other| other == event))
}

#[test]
fn a_file_cut_anywhere_yields_everything_up_to_the_last_whole_chunk() {
    let original = Original::new();
    let mut random = random();
    let length = original.bytes.len() as u64;
    let places = (0..100).map(|_| random.next_u64() % length);
    // The boundaries themselves, too.
    let borders = original.flushes.iter().flat_map(|(at, _)| [at - 1, *at, at + 1]);
    for at in places.chain(borders).chain([0, 1, 8, length - 1]) {
        let cut = &original.bytes[..at as usize];
        let (_, events, report) = match read(cut) {
            Ok(read) => read,
            Err(Error::WrongMagic { .. }) if at < 8 => continue,
            Err(error) => panic!("cut at {at}: {error}"),
        };
        let (whole, expected) =
            original.flushes.iter().rev().find(|(end, _)| *end <= at).copied().unwrap_or((0, 0));
        assert!(events.len() >= expected, "cut at {at}: {} events, not {expected}", events.len());
        assert!(events[..] == original.events[..events.len()], "cut at {at}");
        let Some(End::Cut { offset, time }) = report.end else { panic!("cut at {at}: {:?}", report.end) };
        assert!(
            (whole..=at).contains(&offset),
            "cut at {at}: told {offset}, last whole chunk ends at {whole}"
        );
        let latest = events.iter().map(|event| event.arrival().as_nanos().max(0)).max();
        assert_eq!(time.map(|time| time.as_nanos()), latest, "cut at {at}");
        let damage: Vec<&Damage> = report.damage.iter().filter(|d| d.fault != Fault::NoHeader).collect();
        assert!(damage.is_empty(), "cut at {at}: {damage:?}");
        assert_eq!(report.lost.total(), 0);
    }
}

#[test]
fn a_flipped_bit_is_never_silent() {
    let original = Original::new();
    let mut random = random();
    let length = original.bytes.len() as u64;
    let (mut told, mut refused) = (0, 0);
    for _ in 0..300 {
        let (at, bit) = ((random.next_u64() % length) as usize, random.next_u64() % 8);
        check_flip(&original, &original.bytes, at, bit as u8, &mut told, &mut refused);
    }
    // The bytes that are not compressed are few, and most is decided there.
    let heads = original.flushes.iter().step_by(8).flat_map(|(at, _)| *at as usize..*at as usize + 60);
    for at in (0..600).chain(heads) {
        check_flip(&original, &original.bytes, at, (at % 8) as u8, &mut told, &mut refused);
    }
    println!("{told} flips told, {refused} files refused");
    assert!(told > 800);
}

#[test]
fn a_flipped_bit_in_a_file_without_footer_is_never_silent() {
    let original = Original::new();
    let mut random = random();
    let (end, _) = original.flushes[original.flushes.len() - 2];
    let bytes = &original.bytes[..end as usize];
    let (mut told, mut refused) = (0, 0);
    for _ in 0..300 {
        let (at, bit) = ((random.next_u64() % end) as usize, random.next_u64() % 8);
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1 << bit;
        let Ok((_, events, report)) = read(&damaged) else {
            refused += 1;
            continue;
        };
        told += 1;
        assert!(is_subsequence(&events, &original.events), "flip at {at}");
        if events.len() < original.flushes[original.flushes.len() - 2].1 {
            assert!(
                !report.damage.is_empty()
                    || matches!(report.end, Some(End::Cut { offset, .. }) if offset < end),
                "flip at {at}: {report:?}"
            );
        }
    }
    println!("{told} flips read on, {refused} files refused");
}

fn check_flip(original: &Original, bytes: &[u8], at: usize, bit: u8, told: &mut u32, refused: &mut u32) {
    let mut damaged = bytes.to_vec();
    damaged[at] ^= 1 << bit;
    let (header, events, report) = match read(&damaged) {
        Ok(read) => read,
        Err(Error::WrongMagic { .. } | Error::NotARecording { .. }) if at < 60 => {
            *refused += 1;
            return;
        }
        Err(error) => panic!("bit {bit} of byte {at}: {error}"),
    };
    let place = format!("bit {bit} of byte {at}: {:?} {:?} {:?}", report.end, report.damage, report.lost);
    assert!(is_subsequence(&events, &original.events), "{place}");
    assert!(!report.is_whole(), "{place}");
    *told += 1;
    if events.len() < original.events.len() || header != original.header {
        assert!(
            report.damage.iter().any(|damage| damage.offset <= at as u64
                && at as u64 <= damage.offset + damage.length.max(1)
                || damage.length == 0),
            "{place}"
        );
    }
    if report.end == Some(End::Complete) {
        let missing = (original.events.len() - events.len()) as u64;
        assert_eq!(report.lost.total(), missing, "{place}");
    }
    // One flipped bit costs the chunk it is in, and no more.
    let chunk = original.flushes.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap();
    assert!(original.events.len() - events.len() <= chunk, "{place}: {} events", events.len());
}

#[test]
fn every_kind_of_wrong_file_has_an_error_of_its_own() {
    let original = Original::new();
    let error = |bytes: &[u8]| read(bytes).map(|_| ()).unwrap_err();
    assert!(matches!(error(b""), Error::WrongMagic { .. }));
    assert!(matches!(error(b"\xd4\xc3\xb2\xa1\x02\0\x04\0 a capture file"), Error::WrongMagic { .. }));

    let other = {
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = mcap::WriteOptions::new().profile("ros2").create(&mut bytes).unwrap();
        writer.finish().unwrap();
        drop(writer);
        bytes.into_inner()
    };
    assert!(matches!(error(&other), Error::NotARecording { profile, .. } if profile == "ros2"));

    // The version of a sealed record: the checksum has to be made anew.
    let text = b"format_version";
    let at = original.bytes.windows(text.len()).position(|window| window == text).unwrap() + text.len() + 4;
    assert_eq!(&original.bytes[at..at + 3], b"1.2");
    let newer = with_version(&original.header, "2.0");
    match error(&newer) {
        Error::UnknownVersion { offset, found, path } => {
            assert_eq!((found.major, found.minor), (2, 0));
            assert!(offset > 8);
            assert_eq!(path.to_str(), Some("memory"));
        }
        other => panic!("{other}"),
    }
    assert!(read(&with_version(&original.header, "1.7")).is_ok());

    // The unpacked size stated by the second chunk.
    let size = original.flushes[1].0 as usize + 9 + 16;
    let mut bomb = original.bytes.clone();
    bomb[size + 6] = 1;
    let (_, _, report) = read(&bomb).unwrap();
    assert!(
        matches!(report.damage[..], [Damage { offset, fault: Fault::Bomb { .. }, .. }] if offset == original.flushes[1].0),
        "{:?}",
        report.damage
    );
    let mut small = original.bytes.clone();
    small[size] ^= 1;
    let (_, _, report) = read(&small).unwrap();
    assert!(matches!(report.damage[0].fault, Fault::Decompress { .. }), "{:?}", report.damage);
    let mut crc = original.bytes.clone();
    crc[size + 8] ^= 1;
    let (_, _, report) = read(&crc).unwrap();
    assert!(matches!(report.damage[0].fault, Fault::BadCrc { .. }), "{:?}", report.damage);
}

/// An empty recording that states another version.
fn with_version(header: &Header, version: &str) -> Vec<u8> {
    let mut pairs: std::collections::BTreeMap<String, String> =
        [("format_version".to_owned(), version.to_owned()), ("node".to_owned(), header.node.clone())].into();
    let mut hasher = crc32fast::Hasher::new();
    for text in ["faultline", "format_version", version, "node", &header.node] {
        hasher.update(text.as_bytes());
        hasher.update(&[0]);
    }
    pairs.insert("#crc32".to_owned(), format!("{:08x}", hasher.finalize()));
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = mcap::WriteOptions::new().profile("faultline").create(&mut bytes).unwrap();
    writer
        .write_metadata(&mcap::records::Metadata { name: "faultline".to_owned(), metadata: pairs })
        .unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes.into_inner()
}
