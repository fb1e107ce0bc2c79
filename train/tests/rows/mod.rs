//! Makes feature rows of a known pattern for the tests.

use std::fmt::Write as _;

use crate::noise::Noise;
use features::schema::{COLUMNS, Input, Profile, Type};

/// A recording's rows: `windows` windows of 5 s from `start`, eight flows each, with a label. The label shows
/// in a few features, with noise over them.
pub fn recording(label: u16, start: i64, windows: i64, noise: &mut Noise) -> String {
    let mut text = Profile::Full.header();
    for window in 0..windows {
        for flow in 0..8 {
            text.push('\n');
            let cells: Vec<String> = COLUMNS
                .iter()
                .map(|column| match column.name {
                    "timestamp" => (start + window * 5).to_string(),
                    "src_ip" => format!("198.18.0.{flow}"),
                    "anomaly_label" => label.to_string(),
                    "retransmission_rate" if label == 2 => format!("{:.4}", 0.02 + 0.1 * noise.next()),
                    "retransmission_rate" => format!("{:.4}", 0.03 * noise.next()),
                    "half_open_connections" if label == 4 => format!("{:.0}", 20.0 + 500.0 * noise.next()),
                    "half_open_connections" => format!("{:.0}", 25.0 * noise.next()),
                    "latency_mean_ms" if noise.next() < 0.3 => String::new(),
                    "connection_state" => if label == 4 { "NEW" } else { "ESTABLISHED" }.to_owned(),
                    _ if column.input == Input::Bool => "0".to_owned(),
                    _ if column.input != Input::Number => String::new(),
                    _ if matches!(column.kind, Type::F64) => format!("{:.3}", 100.0 * noise.next()),
                    _ => format!("{:.0}", 100.0 * noise.next()),
                })
                .collect();
            write!(text, "{}", cells.join(",")).unwrap();
        }
    }
    text.push('\n');
    text
}
