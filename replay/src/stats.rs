//! `replay stats`: what a recording or capture holds, on a screen or as JSON.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::net::IpAddr;

use event::{L7Flow, L7Message, Protocol, Timestamp};
use features::{ClosedWindow, Feature, Row, Value};
use serde_json::json;

/// Addresses counted at once; past it the lesser half is forgotten, and the summary says so.
const MAX_TALKERS: usize = 200_000;
/// Columns of a sparkline.
const COLUMNS: usize = 60;

/// Sums over packets of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    packets: u64,
    bytes: u64,
}

impl Traffic {
    fn add(&mut self, packets: u64, bytes: u64) {
        self.packets += packets;
        self.bytes += bytes;
    }
}

/// One window's sums.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    traffic: Traffic,
    tcp_packets: u64,
    retransmissions: u64,
    flows: u64,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Stats {
    /// Print JSON.
    json: bool,
    /// Talkers to print.
    top: usize,
    name: String,
    moments: BTreeMap<Timestamp, Moment>,
    /// Length of a window in s.
    window: f64,
    protocols: BTreeMap<u8, Traffic>,
    talkers: HashMap<IpAddr, Traffic>,
    talkers_forgotten: u64,
    resets: u64,
    zero_windows: u64,
    out_of_order: u64,
    http: BTreeMap<u16, u64>,
    grpc: BTreeMap<u16, u64>,
    dns: BTreeMap<u16, u64>,
    kafka_errors: BTreeMap<i16, u64>,
    requests: BTreeMap<&'static str, u64>,
    /// Flows and packets by the engine's count.
    pub flows: u64,
}

impl Stats {
    pub fn new(name: String, window: event::Duration, top: usize, json: bool) -> Self {
        Self { json, top, name, window: window.as_nanos() as f64 / 1e9, ..Self::default() }
    }

    pub fn window(&mut self, window: &ClosedWindow) {
        let mut moment = Moment::default();
        for row in window.rows() {
            self.row(&row, &mut moment);
        }
        let sum = self.moments.entry(window.start()).or_default();
        sum.traffic.add(moment.traffic.packets, moment.traffic.bytes);
        sum.tcp_packets += moment.tcp_packets;
        sum.retransmissions += moment.retransmissions;
        sum.flows += moment.flows;
        self.bound_talkers();
    }

    fn row(&mut self, row: &Row, moment: &mut Moment) {
        let count = |feature| match row[feature] {
            Value::Unsigned(count) => count,
            _ => 0,
        };
        let (packets, bytes) = (count(Feature::PacketCount), count(Feature::ByteCount));
        let tuple = row.five_tuple;
        moment.traffic.add(packets, bytes);
        moment.flows += 1;
        self.protocols.entry(tuple.protocol.0).or_default().add(packets, bytes);
        for address in [tuple.source.address, tuple.destination.address] {
            self.talkers.entry(address).or_default().add(packets, bytes);
        }
        if tuple.protocol == Protocol::TCP {
            moment.tcp_packets += packets;
            moment.retransmissions += count(Feature::RetransmissionCount);
            self.resets += count(Feature::RstCount);
            self.zero_windows += count(Feature::ZeroWindowCount);
            self.out_of_order += count(Feature::OutOfOrderCount);
        }
    }

    /// Keeps the greater half where there are too many. Ties go by address, so that no order of a table decides.
    fn bound_talkers(&mut self) {
        if self.talkers.len() <= MAX_TALKERS {
            return;
        }
        let mut all: Vec<_> = self.talkers.drain().collect();
        all.sort_unstable_by_key(|(address, traffic)| (Reverse(traffic.bytes), *address));
        self.talkers_forgotten += (all.len() - MAX_TALKERS / 2) as u64;
        all.truncate(MAX_TALKERS / 2);
        self.talkers.extend(all);
    }

    /// Counts an application message.
    pub fn message(&mut self, flow: &L7Flow) {
        let (name, is_response) = match &flow.message {
            L7Message::None => return,
            L7Message::Dns(dns) => {
                dns.rcode.iter().for_each(|code| *self.dns.entry(*code).or_default() += 1);
                ("dns", dns.rcode.is_some())
            }
            L7Message::Http(http) if http.is_grpc => {
                http.grpc_status.iter().for_each(|code| *self.grpc.entry(*code).or_default() += 1);
                ("grpc", http.status.is_some() || http.grpc_status.is_some())
            }
            L7Message::Http(http) => {
                http.status.iter().for_each(|code| *self.http.entry(*code).or_default() += 1);
                ("http", http.status.is_some())
            }
            L7Message::Kafka(kafka) => {
                let error = kafka.error_code.filter(|code| *code != 0);
                error.iter().for_each(|code| *self.kafka_errors.entry(*code).or_default() += 1);
                ("kafka", kafka.error_code.is_some())
            }
            L7Message::Tls(_) => ("tls", flow.kind == event::L7Type::Response),
        };
        if !is_response {
            *self.requests.entry(name).or_default() += 1;
        }
    }

    fn whole(&self) -> Moment {
        self.moments.values().fold(Moment::default(), |mut sum, moment| {
            sum.traffic.add(moment.traffic.packets, moment.traffic.bytes);
            sum.tcp_packets += moment.tcp_packets;
            sum.retransmissions += moment.retransmissions;
            sum.flows += moment.flows;
            sum
        })
    }

    fn top_talkers(&self) -> Vec<(IpAddr, Traffic)> {
        let mut all: Vec<_> = self.talkers.iter().map(|(address, traffic)| (*address, *traffic)).collect();
        all.sort_unstable_by_key(|(address, traffic)| (Reverse(traffic.bytes), *address));
        all.truncate(self.top);
        all
    }

    pub fn print(&self, output: &mut impl Write) -> io::Result<()> {
        if self.json { self.print_json(output) } else { self.print_text(output) }
    }

    fn print_json(&self, output: &mut impl Write) -> io::Result<()> {
        let whole = self.whole();
        let first = self.moments.keys().next();
        let rate = (whole.tcp_packets > 0).then(|| whole.retransmissions as f64 / whole.tcp_packets as f64);
        let moments: Vec<_> = self
            .moments
            .iter()
            .map(|(start, moment)| {
                json!({
                    "start": start.as_nanos() as f64 / 1e9,
                    "packets": moment.traffic.packets,
                    "bytes": moment.traffic.bytes,
                    "flows": moment.flows,
                    "retransmissions": moment.retransmissions,
                })
            })
            .collect();
        let talkers: Vec<_> = self
            .top_talkers()
            .into_iter()
            .map(|(address, traffic)| {
                json!({ "address": address.to_string(), "packets": traffic.packets, "bytes": traffic.bytes })
            })
            .collect();
        let protocols: BTreeMap<String, _> = self
            .protocols
            .iter()
            .map(|(number, traffic)| {
                (protocol(*number), json!({ "packets": traffic.packets, "bytes": traffic.bytes }))
            })
            .collect();
        let summary = json!({
            "input": self.name,
            "start": first.map(|start| start.as_nanos() as f64 / 1e9),
            "window_s": self.window,
            "packets": whole.traffic.packets,
            "bytes": whole.traffic.bytes,
            "flows": self.flows,
            "protocols": protocols,
            "tcp": {
                "packets": whole.tcp_packets,
                "retransmissions": whole.retransmissions,
                "retransmission_rate": rate,
                "out_of_order": self.out_of_order,
                "resets": self.resets,
                "zero_windows": self.zero_windows,
            },
            "l7": {
                "requests": self.requests,
                "http_status": self.http,
                "grpc_status": self.grpc,
                "dns_rcode": self.dns,
                "kafka_errors": self.kafka_errors,
            },
            "top_talkers": talkers,
            "talkers_forgotten": self.talkers_forgotten,
            "windows": moments,
        });
        serde_json::to_writer_pretty(&mut *output, &summary)?;
        writeln!(output)
    }

    fn print_text(&self, output: &mut impl Write) -> io::Result<()> {
        let whole = self.whole();
        writeln!(output, "{}", self.name)?;
        if let (Some(first), Some(last)) = (self.moments.keys().next(), self.moments.keys().next_back()) {
            let seconds = (*last - *first).as_nanos() as f64 / 1e9 + self.window;
            writeln!(output, "  from {first}, {seconds} s in windows of {} s", self.window)?;
        }
        let Traffic { packets, bytes } = whole.traffic;
        writeln!(output, "  {packets} packets, {}, {} flows", size(bytes), self.flows)?;
        for (number, traffic) in &self.protocols {
            let name = protocol(*number);
            writeln!(output, "  {name:10} {:>12} packets {:>10}", traffic.packets, size(traffic.bytes))?;
        }
        self.print_lines(output)?;
        self.print_tcp(output, &whole)?;
        self.print_messages(output)?;
        writeln!(output, "\ntop talkers, by bytes sent and received")?;
        for (address, traffic) in self.top_talkers() {
            writeln!(output, "  {address:40} {:>10} {:>12} packets", size(traffic.bytes), traffic.packets)?;
        }
        if self.talkers_forgotten > 0 {
            writeln!(
                output,
                "  {} lesser ones were not kept: the sums above are lower bounds",
                self.talkers_forgotten
            )?;
        }
        Ok(())
    }

    fn print_lines(&self, output: &mut impl Write) -> io::Result<()> {
        writeln!(output)?;
        type Of = fn(&Moment) -> f64;
        let lines: [(&str, Of); 4] = [
            ("packets", |moment| moment.traffic.packets as f64),
            ("bytes", |moment| moment.traffic.bytes as f64),
            ("flows", |moment| moment.flows as f64),
            ("retransmissions", |moment| moment.retransmissions as f64),
        ];
        for (name, of) in lines {
            let (line, most) = self.sparkline(of);
            writeln!(output, "  {name:16} {line}  at most {} per s", rounded(most / self.window))?;
        }
        Ok(())
    }

    /// The course over time, and the highest value of a window. Windows without packets count as 0; where there
    /// are more windows than columns, a column shows its highest.
    fn sparkline(&self, of: fn(&Moment) -> f64) -> (String, f64) {
        const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let (Some(first), Some(last)) = (self.moments.keys().next(), self.moments.keys().next_back()) else {
            return (String::new(), 0.0);
        };
        let place = |start: &Timestamp| ((*start - *first).as_nanos() as f64 / 1e9 / self.window).round();
        let windows = place(last) + 1.0;
        let columns = windows.min(COLUMNS as f64);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most COLUMNS")]
        let mut heights = vec![0.0_f64; columns as usize];
        for (start, moment) in &self.moments {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most COLUMNS")]
            let column = (place(start) * columns / windows) as usize;
            if let Some(height) = heights.get_mut(column) {
                *height = height.max(of(moment));
            }
        }
        let most = heights.iter().copied().fold(0.0, f64::max);
        let bar = |height: &f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 8")]
            let step = if most > 0.0 { (height / most * 8.0).ceil() as usize } else { 0 };
            BARS[step.min(8)]
        };
        (heights.iter().map(bar).collect(), most)
    }

    fn print_tcp(&self, output: &mut impl Write, whole: &Moment) -> io::Result<()> {
        if whole.tcp_packets == 0 {
            return Ok(());
        }
        let rate = whole.retransmissions as f64 * 100.0 / whole.tcp_packets as f64;
        writeln!(
            output,
            "\ntcp\n  {} retransmissions ({rate:.2} % of packets), {} out of order, {} resets, {} zero windows",
            whole.retransmissions, self.out_of_order, self.resets, self.zero_windows
        )
    }

    fn print_messages(&self, output: &mut impl Write) -> io::Result<()> {
        if !self.requests.is_empty() {
            writeln!(output, "\nrequests\n  {}", listed(self.requests.iter()))?;
        }
        for (name, codes) in
            [("http status", &self.http), ("grpc status", &self.grpc), ("dns rcode", &self.dns)]
        {
            if !codes.is_empty() {
                writeln!(output, "{name}\n  {}", listed(codes.iter()))?;
            }
        }
        if !self.kafka_errors.is_empty() {
            writeln!(output, "kafka errors\n  {}", listed(self.kafka_errors.iter()))?;
        }
        Ok(())
    }
}

fn listed<'a, K: std::fmt::Display + 'a>(counts: impl Iterator<Item = (&'a K, &'a u64)>) -> String {
    counts.map(|(code, count)| format!("{code}: {count}")).collect::<Vec<_>>().join(", ")
}

fn rounded(number: f64) -> String {
    if number >= 100.0 { format!("{number:.0}") } else { format!("{number:.1}") }
}

/// Bytes with a binary unit.
fn size(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if number < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{number:.1} {unit}") };
        }
        number /= 1024.0;
    }
    format!("{number:.1} TiB")
}

fn protocol(number: u8) -> String {
    match Protocol(number) {
        Protocol::ICMP => "icmp".to_owned(),
        Protocol::TCP => "tcp".to_owned(),
        Protocol::UDP => "udp".to_owned(),
        Protocol::ICMPV6 => "icmpv6".to_owned(),
        Protocol::SCTP => "sctp".to_owned(),
        Protocol(number) => format!("protocol {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_shows_the_course() {
        let mut stats = Stats { window: 5.0, ..Stats::default() };
        for (at, packets) in [(0, 8), (5, 4), (15, 1)] {
            let traffic = Traffic { packets, bytes: 0 };
            stats.moments.insert(Timestamp::from_secs(at), Moment { traffic, ..Moment::default() });
        }
        let (line, most) = stats.sparkline(|moment| moment.traffic.packets as f64);
        assert_eq!((line.as_str(), most), ("█▄ ▁", 8.0));
    }

    #[test]
    fn talkers_are_bounded_and_the_greatest_stay() {
        let mut stats = Stats { top: 1, ..Stats::default() };
        for number in 0..=u32::try_from(MAX_TALKERS).unwrap() {
            let bytes = u64::from(number == 77) * 100 + 1;
            stats.talkers.entry(IpAddr::V4(number.into())).or_default().add(1, bytes);
        }
        stats.bound_talkers();
        assert_eq!(stats.talkers.len(), MAX_TALKERS / 2);
        assert_eq!(stats.talkers_forgotten, MAX_TALKERS as u64 / 2 + 1);
        assert_eq!(stats.top_talkers()[0].0, IpAddr::V4(77.into()));
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([size(12), size(2048), size(5 << 30)], ["12 B", "2.0 KiB", "5.0 GiB"]);
    }
}
