//! Recordings as batches of packets and single events.

use std::io::Read;

use anyhow::{Context as _, Result};
use event::{Duration, Event, NAMES_KEY, NameMap, Packet, Source, Timestamp};
use features::{AFFECTED_KEY, Affected};
use recording::{End, Item as Recorded, Reader};

use super::{Item, Report};

/// What a recording says of itself that is to be told before its events.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The label that it was made with; false where another label overrides it.
    pub label: bool,
    /// The flows that its labels are for.
    pub affected: bool,
    /// That it has no end yet is no damage: it is still being written.
    pub is_unfinished: bool,
}

/// A recording, whole or damaged.
pub struct RecordingInput {
    reader: Reader,
    told: Told,
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
        Ok(Self { reader, told, start: None, window, first_packets: Vec::new(), first_event: None })
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
        Ok(self.reader.next_item()?.map(|item| match item {
            Recorded::Packets(packets) => Item::Packets(packets.into()),
            Recorded::Event(event) => Item::Event(event),
        }))
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
        Ok(match self.reader.next_item()? {
            Some(Recorded::Packets(packets)) => {
                self.first_packets.extend_from_slice(packets);
                packets.first().map(|packet| packet.time)
            }
            Some(Recorded::Event(event)) => {
                let time = event.time();
                self.first_event = Some(event);
                Some(time)
            }
            None => None,
        })
    }

    pub fn report(&self) -> Report {
        let name = self.reader.path().display().to_string();
        let report = self.reader.report();
        let read = report.counts.total() + report.unknown;
        let mut damage: Vec<String> =
            report.damage.iter().map(|damage| format!("{name}: {damage}")).collect();
        let mut remarks = vec![report.counts.to_string()];
        if let Some(End::Cut { offset, .. }) = report.end
            && self.told.is_unfinished
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
        let header = self.reader.header();
        remarks.extend(header.sample.map(|sample| format!("a sample of 1/{sample} of the flows")));
        remarks.extend(header.anonymized.then(|| "addresses anonymized".to_owned()));
        Report { name, read, used, skipped, remarks, damage }
    }
}
