//! Recordings as batches of packets and single events.

use std::io::Read;

use anyhow::{Context as _, Result};
use cli::Interrupt;
use event::{Duration, Event, NAMES_KEY, NameMap, Packet, Source, Timestamp};
use features::{AFFECTED_KEY, Affected};
use recording::{End, Item as Recorded, Reader};

use super::follow::{self, Follow};
use super::{Item, Report};

/// What a recording says of itself that is to be told before its events.
#[derive(Clone, Debug)]
pub struct Told {
    /// The label that it was made with; false where another label overrides it.
    pub label: bool,
    /// The flows that its labels are for.
    pub affected: bool,
    /// That it has no end yet is no damage: it is still being written, and where it has one another file may follow.
    pub follow: Option<Interrupt>,
}

/// A recording, whole or damaged; where it is followed, in one file after the other.
pub struct RecordingInput {
    reader: Reader,
    told: Told,
    /// Of the files before.
    ended: Vec<Report>,
    /// The start of the recording's first window, once it is known.
    start: Option<Timestamp>,
    window: Duration,
    /// What was read to learn the recording's first time.
    first_packets: Vec<Packet>,
    first_event: Option<Event>,
}

impl RecordingInput {
    /// `window` is the length of a window: the recording's own label holds from the start of its first one.
    pub fn open(source: Box<dyn Read + Send>, name: &str, window: Duration, told: Told) -> Result<Self> {
        let reader = Reader::new(source, name)?;
        let (first_packets, first_event, ended) = Default::default();
        Ok(Self { reader, told, ended, start: None, window, first_packets, first_event })
    }

    pub fn next(&mut self) -> Result<Option<Item<'_>>> {
        if self.start.is_none() {
            let Some(first) = self.read_first()? else { return Ok(None) };
            self.start = Some(first.window_start(self.window));
        }
        if let Some(start) = self.start {
            if std::mem::take(&mut self.told.label) {
                return Ok(Some(Item::Label(start, self.reader.header().label)));
            }
            if std::mem::take(&mut self.told.affected) {
                return Ok(Some(Item::Affected(start, self.affected()?)));
            }
        }
        if !self.first_packets.is_empty() {
            return Ok(Some(Item::Taken(std::mem::take(&mut self.first_packets).into())));
        }
        if let Some(event) = self.first_event.take() {
            return Ok(Some(Item::Event(event)));
        }
        if self.told.follow.is_some() {
            return self.next_followed();
        }
        Ok(self.reader.next_item()?.map(|item| match item {
            Recorded::Packets(packets) => Item::Packets(packets.into()),
            Recorded::Event(event) => Item::Event(event),
        }))
    }

    /// The next packets or event of this file, or of those that follow it.
    fn next_followed(&mut self) -> Result<Option<Item<'static>>> {
        loop {
            let item = self.reader.next_item()?.map(|item| match item {
                Recorded::Packets(packets) => Item::Taken(packets.to_vec().into()),
                Recorded::Event(event) => Item::Event(event),
            });
            if item.is_some() || !self.go_on()? {
                return Ok(item);
            }
        }
    }

    /// Where this file is followed and has ended: on to the one that the recorder began after it. Its label and names
    /// are those of the files before, so that they are not told again.
    fn go_on(&mut self) -> Result<bool> {
        let Some(interrupt) = &self.told.follow else { return Ok(false) };
        if self.reader.report().end != Some(End::Complete) {
            return Ok(false);
        }
        let path = self.reader.path();
        let Some(next) = follow::successor(path, || interrupt.is_raised()) else {
            tracing::info!("{} has ended, and no file follows it", path.display());
            return Ok(false);
        };
        tracing::info!("{} has ended; going on with {}", path.display(), next.path.display());
        if next.missed > 0 {
            let gone = next.missed;
            tracing::warn!(
                gone,
                "files between them were removed before they were read: their rows are missing"
            );
        }
        let source = Follow::open(&next.path, interrupt.clone());
        let source = source.with_context(|| format!("cannot open {}", next.path.display()))?;
        match Reader::new(Box::new(source), &next.path) {
            Ok(reader) => {
                self.ended.push(self.report_of(&self.reader));
                self.reader = reader;
                Ok(true)
            }
            // The user ended it before anything was written there.
            Err(_) if interrupt.is_raised() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub fn node(&self) -> &str {
        &self.reader.header().node
    }

    pub fn interfaces(&self) -> Vec<String> {
        self.reader.header().interfaces.iter().map(|interface| interface.name.clone()).collect()
    }

    fn affected(&self) -> Result<Option<Affected>> {
        let Some(text) = self.reader.header().metadata.get(AFFECTED_KEY) else { return Ok(None) };
        let path = self.reader.path().display();
        let affected =
            text.parse().with_context(|| format!("{path}: its metadata has a bad {AFFECTED_KEY}"))?;
        Ok(Some(affected))
    }

    pub fn names(&self) -> Result<Option<NameMap>> {
        let Some(text) = self.reader.header().metadata.get(NAMES_KEY) else { return Ok(None) };
        let path = self.reader.path().display();
        let names = text.parse().with_context(|| format!("{path}: its metadata has bad {NAMES_KEY}"))?;
        Ok(Some(names))
    }

    fn read_first(&mut self) -> Result<Option<Timestamp>> {
        Ok(match self.next_followed()? {
            Some(Item::Taken(batch)) => {
                self.first_packets = batch.packets;
                self.first_packets.first().map(|packet| packet.time)
            }
            Some(Item::Event(event)) => {
                let time = event.time();
                self.first_event = Some(event);
                Some(time)
            }
            _ => None,
        })
    }

    /// One for each file.
    pub fn reports(&self) -> Vec<Report> {
        self.ended.iter().cloned().chain([self.report_of(&self.reader)]).collect()
    }

    fn report_of(&self, reader: &Reader) -> Report {
        let name = reader.path().display().to_string();
        let report = reader.report();
        let read = report.counts.total() + report.unknown;
        let mut damage: Vec<String> =
            report.damage.iter().map(|damage| format!("{name}: {damage}")).collect();
        let mut remarks = vec![report.counts.to_string()];
        if let Some(End::Cut { offset, .. }) = report.end
            && self.told.follow.is_some()
        {
            remarks.push(format!("followed up to byte {offset}"));
        } else if let Some(End::Cut { offset, time }) = report.end {
            let when = time.map_or("before its first event".to_owned(), |time| format!("after {time}"));
            damage.push(format!("{name}: cut at byte {offset}, {when}; everything before it was used"));
        }
        if report.lost.total() > 0 {
            damage.push(format!("{name}: not readable any more: {}", report.lost));
        }
        let mut skipped = Vec::new();
        for (count, what) in [
            (report.counts.get(Source::Loss), "notes of loss"),
            (report.unknown, "events of a newer version"),
        ] {
            if count > 0 {
                skipped.push((what.to_owned(), count));
            }
        }
        let used = report.counts.total() - report.counts.get(Source::Loss);
        let header = reader.header();
        remarks.extend(header.sample.map(|sample| format!("a sample of 1/{sample} of the flows")));
        remarks.extend(header.anonymized.then(|| "addresses anonymized".to_owned()));
        Report { name, read, used, skipped, remarks, damage }
    }
}
