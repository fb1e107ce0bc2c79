//! How the recording goes: shown on a terminal, told by a line each minute elsewhere.

use std::time::{Duration, Instant};

use capture::output::Output;
use capture::source::tc;

/// Interfaces that are shown, the busiest of them; a node of a hundred pods has as many more.
const SHOWN: usize = 12;

/// Tells how the recording goes: each second on a terminal, else a line each minute.
pub(super) struct Live {
    bar: indicatif::ProgressBar,
    told_at: Instant,
    /// By interface, at that time.
    told: Vec<tc::Passed>,
}

/// What passed an interface since it was last told.
struct Rate {
    name: String,
    /// Packets a second.
    packets: f64,
    /// Lost or unreadable, since the start.
    lost: u64,
}

impl Live {
    pub fn new() -> Self {
        Self { bar: cli::counter(0, "recording"), told_at: Instant::now(), told: Vec::new() }
    }

    pub fn tell(&mut self, source: &tc::Tc, output: &Output) -> anyhow::Result<()> {
        let span = self.told_at.elapsed();
        if span < Duration::from_secs(if self.bar.is_hidden() { 60 } else { 1 }) {
            return Ok(());
        }
        let passed = source.passed()?;
        let packets: u64 = passed.iter().map(|one| one.packets).sum();
        let (bytes, events) = output.progress();
        let rates = self.rates(&passed, span);
        let text = overall(&rates, packets, bytes, events);
        if self.bar.is_hidden() {
            let each: Vec<String> = busiest(&rates).iter().map(ToString::to_string).collect();
            tracing::info!("{text}; {}", each.join("; "));
        } else {
            let mut lines: Vec<String> = busiest(&rates).iter().map(|rate| format!("{rate:#}")).collect();
            if rates.len() > SHOWN {
                lines.push(format!("  and {} more interfaces", rates.len() - SHOWN));
            }
            lines.push(text);
            self.bar.set_message(lines.join("\n"));
            self.bar.set_position(packets);
        }
        (self.told_at, self.told) = (Instant::now(), passed);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate is shown without decimals")]
    fn rates(&self, passed: &[tc::Passed], span: Duration) -> Vec<Rate> {
        let rate = |(place, one): (usize, &tc::Passed)| {
            let before = self.told.get(place).map_or(0, |before| before.packets);
            let packets = (one.packets - before) as f64 / span.as_secs_f64();
            Rate { name: one.interface.clone(), packets, lost: one.lost + one.unreadable }
        };
        passed.iter().enumerate().map(rate).collect()
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Those with the most packets a second, of equals those with the most losses.
fn busiest(rates: &[Rate]) -> Vec<&Rate> {
    let mut rates: Vec<&Rate> = rates.iter().collect();
    rates.sort_by(|a, b| b.packets.total_cmp(&a.packets).then(b.lost.cmp(&a.lost)));
    rates.truncate(SHOWN);
    rates
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn overall(rates: &[Rate], packets: u64, bytes: u64, events: u64) -> String {
    let rate: f64 = rates.iter().map(|rate| rate.packets).sum();
    let lost: u64 = rates.iter().map(|rate| rate.lost).sum();
    let each = bytes as f64 / packets.max(1) as f64;
    format!("{rate:.0} packets/s, {lost} lost, {each:.1} bytes per packet on disk, {events} events")
}

impl std::fmt::Display for Rate {
    /// `eth0 120/s` and its losses where there are any; as a line of a table with `#`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, packets, lost } = self;
        if f.alternate() {
            return write!(f, "  {name:<15} {packets:>9.0} packets/s {lost:>9} lost");
        }
        write!(f, "{name} {packets:.0}/s")?;
        if *lost > 0 { write!(f, " {lost} lost") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(interface: usize, packets: u64, lost: u64) -> tc::Passed {
        tc::Passed { interface: format!("lxc{interface}"), packets, lost, unreadable: 0 }
    }

    #[test]
    fn rates_are_of_the_time_since_they_were_told() {
        let mut live = Live::new();
        live.told = vec![passed(0, 100, 0)];
        let rates = live.rates(&[passed(0, 300, 7), passed(1, 50, 0)], Duration::from_secs(2));
        let lines: Vec<String> = busiest(&rates).iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["lxc0 100/s 7 lost", "lxc1 25/s"]);
        assert_eq!(
            overall(&rates, 350, 1750, 360),
            "125 packets/s, 7 lost, 5.0 bytes per packet on disk, 360 events"
        );
    }

    #[test]
    fn the_busiest_are_shown() {
        let live = Live::new();
        let all: Vec<tc::Passed> = (0..100).map(|number| passed(number, number as u64, 0)).collect();
        let rates = live.rates(&all, Duration::from_secs(1));
        let shown = busiest(&rates);
        assert_eq!((shown.len(), shown[0].name.as_str()), (SHOWN, "lxc99"));
    }
}
