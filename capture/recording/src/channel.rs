//! The channels of a recording and how many events each holds.

use std::fmt;

use event::Source;

/// A channel: where the events of one source stand. Its MCAP id is its place in [`CHANNELS`] plus 1.
pub(crate) struct Channel {
    pub source: Source,
    pub topic: &'static str,
    /// Name of the message type in the schema.
    pub schema: &'static str,
}

pub(crate) const CHANNELS: [Channel; 6] = [
    Channel { source: Source::Packets, topic: "packets", schema: "faultline.Packets" },
    Channel { source: Source::Kernel, topic: "kernel", schema: "faultline.Kernel" },
    Channel { source: Source::L7, topic: "l7", schema: "faultline.L7" },
    Channel { source: Source::System, topic: "system", schema: "faultline.System" },
    Channel { source: Source::Marks, topic: "marks", schema: "faultline.Mark" },
    Channel { source: Source::Loss, topic: "loss", schema: "faultline.Loss" },
];

/// Place in [`CHANNELS`].
pub(crate) const fn place(source: Source) -> usize {
    match source {
        Source::Packets => 0,
        Source::Kernel => 1,
        Source::L7 => 2,
        Source::System => 3,
        Source::Marks => 4,
        Source::Loss => 5,
    }
}

/// The channel's id in the files that this crate writes.
pub(crate) const fn id(source: Source) -> u16 {
    place(source) as u16 + 1
}

/// Events per channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; CHANNELS.len()]);

impl Counts {
    pub fn get(&self, source: Source) -> u64 {
        self.0[place(source)]
    }

    pub(crate) fn add(&mut self, source: Source, count: u64) {
        let sum = &mut self.0[place(source)];
        *sum = sum.saturating_add(count);
    }

    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Every channel with its count, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (Source, u64)> + '_ {
        CHANNELS.iter().map(|channel| (channel.source, self.get(channel.source)))
    }
}

impl fmt::Display for Counts {
    /// `1200 packets, 3 kernel`; channels without events are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut filled = self.iter().filter(|(_, count)| *count > 0).peekable();
        if filled.peek().is_none() {
            return f.write_str("no events");
        }
        let mut separator = "";
        for (source, count) in filled {
            write!(f, "{separator}{count} {source}")?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_its_place() {
        for (index, channel) in CHANNELS.iter().enumerate() {
            assert_eq!(place(channel.source), index);
            assert_eq!(channel.topic, channel.source.to_string());
        }
    }
}
