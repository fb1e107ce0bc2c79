//! Hubble's flows as JSON lines, as single events.

use std::io::{BufReader, Read};

use anyhow::{Context as _, Result};
use event::Event;
use hubble::{Converter, JsonReader, Skip};

use super::{Item, Report};

/// Bad lines that the report names; the others are counted.
const NAMED: usize = 10;

/// A file of flows.
pub struct HubbleInput {
    name: String,
    reader: JsonReader<BufReader<Box<dyn Read + Send>>>,
    converter: Converter,
    redact: bool,
    bad_lines: u64,
    /// Number and reason of the first ones.
    named: Vec<String>,
}

impl HubbleInput {
    pub fn new(source: Box<dyn Read + Send>, name: &str, redact: bool) -> Self {
        Self {
            name: name.to_owned(),
            reader: JsonReader::new(BufReader::new(source)),
            converter: Converter::default(),
            redact,
            bad_lines: 0,
            named: Vec::new(),
        }
    }

    /// The next event; nothing at the end.
    pub fn next(&mut self) -> Result<Option<Item<'static>>> {
        loop {
            let line = self.reader.next().with_context(|| format!("cannot read {}", self.name))?;
            match line {
                None => return Ok(None),
                Some(Ok(message)) => {
                    if let Some(event) = self.converter.json_event(&message) {
                        return Ok(Some(Item::Event(self.redacted(event))));
                    }
                }
                Some(Err(bad)) => {
                    self.bad_lines += 1;
                    if self.named.len() < NAMED {
                        self.named.push(format!("{}: line {}: {}", self.name, bad.number, bad.reason));
                    }
                }
            }
        }
    }

    fn redacted(&self, mut event: Event) -> Event {
        if let Event::L7(flow) = &mut event
            && self.redact
        {
            flow.message.redact();
        }
        event
    }

    pub fn report(&self) -> Report {
        let counts = self.converter.counts();
        let skips = Skip::ALL.map(|reason| (reason.to_string(), counts.skipped(reason)));
        let others = [
            ("bad lines".to_owned(), self.bad_lines),
            ("lines of other kinds".to_owned(), self.reader.other_lines()),
        ];
        let mut remarks = Vec::new();
        if counts.lost.total() > 0 {
            remarks.push(counts.lost.to_string());
        }
        let mut damage = self.named.clone();
        let unnamed = self.bad_lines - self.named.len() as u64;
        if unnamed > 0 {
            damage.push(format!("{}: {unnamed} more bad lines", self.name));
        }
        Report {
            name: self.name.clone(),
            read: counts.read + self.bad_lines + self.reader.other_lines(),
            used: counts.used,
            skipped: skips.into_iter().chain(others).filter(|(_, count)| *count > 0).collect(),
            remarks,
            damage,
        }
    }
}
