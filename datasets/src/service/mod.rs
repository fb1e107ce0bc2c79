//! The servers that every run talks to: real nginx and dnsmasq, and an application.

mod app;
mod dnsmasq;
mod nginx;

pub use app::{App, Knob, PORT as APP_PORT, serve_until_told};
pub use dnsmasq::{Dnsmasq, HOSTS, ZONE, Zone};
pub use nginx::{BULK, DOWNLOADS, Nginx, PAGES};

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// A server that does not answer by then has a wrong configuration.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Waits until `ready` holds.
fn await_start(what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    while !ready()? {
        if Instant::now() >= deadline {
            bail!("{what} did not start to listen within {START_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
