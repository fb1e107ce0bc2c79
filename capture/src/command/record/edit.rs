//! What becomes of events before they are written: left out with their flow, or without their addresses.

use capture::Sample;
use capture::anonymize::Anonymizer;
use event::{Event, Source};
use recording::Header;

pub(super) struct Edit {
    sample: Sample,
    anonymizer: Option<Anonymizer>,
    left_out: u64,
}

impl Edit {
    pub const fn new(sample: Sample, anonymizer: Option<Anonymizer>) -> Self {
        Self { sample, anonymizer, left_out: 0 }
    }

    /// Has the header say what is done.
    pub fn header(&mut self, header: &mut Header) {
        header.sample = (self.sample != Sample::ALL).then_some(self.sample.get());
        if let Some(anonymizer) = &mut self.anonymizer {
            anonymizer.header(header);
        }
    }

    /// The event as it is written; `None` where its flow is left out.
    pub fn event(&mut self, mut event: Event) -> Option<Event> {
        // The kernel chose among packets, by the same hash; a later fragment it had to keep has no ports to hash.
        if event.source() != Source::Packets && !self.sample.keeps_event(&event) {
            self.left_out += 1;
            return None;
        }
        if let Some(anonymizer) = &mut self.anonymizer {
            anonymizer.event(&mut event);
        }
        Some(event)
    }

    /// Kernel and application events of flows that the sample leaves out.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}
