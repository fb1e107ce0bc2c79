//! The end of a run on stderr: what was read, used, and skipped for what reason.

use cli::Exit;
use dissect::L7Counts;
use features::{Counts, Coverage};

use crate::input::Report;

/// What a run did.
pub struct Summary {
    pub inputs: Vec<Report>,
    /// Packets and application events outside `--from`, `--to` and `--filter`.
    pub left_out: (u64, u64),
    /// What was read from payload.
    pub l7: L7Counts,
    pub engine: Counts,
}

impl Summary {
    /// Says it, and gives the exit code's meaning.
    pub fn tell(&self) -> Exit {
        let exit = tell_inputs(&self.inputs);
        if self.left_out != (0, 0) {
            let (packets, flows) = self.left_out;
            tracing::info!(
                "{packets} packets and {flows} L7 events outside --from, --to and --filter left out"
            );
        }
        tracing::info!("{}", engine_line(&self.engine));
        if self.l7 != L7Counts::default() {
            tracing::info!("{}", self.l7);
        }
        if let Some(line) = coverage_line(&self.engine.coverage) {
            tracing::info!("{line}");
        }
        exit
    }
}

/// The end of a run that wrote packets.
pub fn tell_export(inputs: &[Report], written: u64, left_out: u64) -> Exit {
    let exit = tell_inputs(inputs);
    tracing::info!(
        "{written} packets written, headers alone; {left_out} outside --from, --to and --filter left out"
    );
    exit
}

fn tell_inputs(inputs: &[Report]) -> Exit {
    for input in inputs {
        tracing::info!("{}", input_line(input));
        for damage in &input.damage {
            tracing::warn!("damaged: {damage}");
        }
    }
    if inputs.iter().any(|input| !input.damage.is_empty()) { Exit::Damaged } else { Exit::Done }
}

fn input_line(input: &Report) -> String {
    let skipped: u64 = input.skipped.iter().map(|(_, count)| count).sum();
    let mut line = format!("{}: {} read, {} used, {skipped} skipped", input.name, input.read, input.used);
    let reasons: Vec<String> =
        input.skipped.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if !reasons.is_empty() {
        line += &format!(" ({})", reasons.join(", "));
    }
    for remark in &input.remarks {
        line += "; ";
        line += remark;
    }
    line
}

fn engine_line(counts: &Counts) -> String {
    let mut line = format!(
        "{} packets: {} counted in {} rows of {} flows in {} windows",
        counts.packets, counts.counted, counts.rows, counts.flows, counts.windows
    );
    for (count, what) in [
        (counts.other_taps, "seen before at another interface"),
        (counts.late, "too late for their window"),
        (counts.crowded_out, "of flows beyond the rows that --max-flows allows a window"),
        (counts.steps_back, "earlier than the one before"),
        (counts.reopened, "rows of windows that were written before, since the clock stepped far back"),
        (counts.closed_early, "flows closed early to stay within --max-flows"),
    ] {
        if count > 0 {
            line += &format!("; {count} {what}");
        }
    }
    line
}

fn coverage_line(coverage: &Coverage) -> Option<String> {
    if coverage.seen + coverage.kernel_joined + coverage.kernel_unjoined == 0 {
        return None;
    }
    let joined = coverage.joined();
    let share = joined as f64 * 100.0 / coverage.seen.max(1) as f64;
    Some(format!(
        "{} L7 events: {joined} joined ({share:.1} %: {} by five-tuple, {} by the source before translation, {} by \
         the client alone), {} without packets in their window, {} told twice; {} kernel events joined, {} not",
        coverage.seen,
        coverage.by_five_tuple,
        coverage.by_translated_source,
        coverage.by_client,
        coverage.unjoined,
        coverage.repeated,
        coverage.kernel_joined,
        coverage.kernel_unjoined,
    ))
}
