//! How the recording goes: shown on a terminal, told by a line each minute elsewhere.

use std::time::{Duration, Instant};

use capture::output::Output;
use capture::source::tc;

/// Tells how the recording goes: each second on a terminal, else a line each minute.
pub(super) struct Live {
    bar: indicatif::ProgressBar,
    told_at: Instant,
    told: tc::Counters,
}

impl Live {
    pub fn new() -> Self {
        Self { bar: cli::counter(0, "recording"), told_at: Instant::now(), told: tc::Counters::default() }
    }

    pub fn tell(&mut self, source: &tc::Tc, output: &Output) -> anyhow::Result<()> {
        let span = self.told_at.elapsed();
        if span < Duration::from_secs(if self.bar.is_hidden() { 60 } else { 1 }) {
            return Ok(());
        }
        let counters = source.counters()?;
        let (bytes, events) = output.progress();
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let (rate, each) = (
            (counters.packets - self.told.packets) as f64 / span.as_secs_f64(),
            bytes as f64 / events.max(1) as f64,
        );
        let text = format!(
            "{rate:.0} packets/s, {} lost, {events} events, {bytes} bytes on disk, {each:.1} per event",
            counters.lost
        );
        if self.bar.is_hidden() {
            tracing::info!("{text}");
        } else {
            self.bar.set_message(text);
            self.bar.set_position(counters.packets);
        }
        (self.told_at, self.told) = (Instant::now(), counters);
        Ok(())
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
