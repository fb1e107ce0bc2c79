//! Progress on a terminal's stderr; nothing elsewhere.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress over a known number of bytes; 0 where it is not known.
pub fn of_bytes(total: u64, what: &str) -> ProgressBar {
    let template = if total > 0 {
        "{msg} {wide_bar} {bytes}/{total_bytes} {eta}"
    } else {
        "{msg} {spinner} {bytes} {bytes_per_sec}"
    };
    bar(total, template, what)
}

/// Progress over a known number of things; 0 where it is not known.
pub fn counter(total: u64, what: &str) -> ProgressBar {
    let template = if total > 0 {
        "{msg} {wide_bar} {human_pos}/{human_len} {eta}"
    } else {
        "{msg} {spinner} {human_pos}"
    };
    bar(total, template, what)
}

fn bar(total: u64, template: &str, what: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    // Ten redraws a second: fast enough to look alive, too slow to cost anything.
    let bar =
        ProgressBar::with_draw_target((total > 0).then_some(total), ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
