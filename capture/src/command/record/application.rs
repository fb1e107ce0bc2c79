//! Application messages in a live recording: where they come from, and what is left out.

use std::path::PathBuf;

use anyhow::Context as _;
use capture::Clock;
use capture::source::hubble::{Address, Hubble, Options};
use capture::source::tc::{PayloadCounters, PayloadOptions};
use event::NameMap;

use crate::command::protocols::{self, Protocol};

/// Where application messages come from
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Application messages")]
pub(super) struct ApplicationArgs {
    /// Record Hubble's flows: DNS, HTTP, gRPC and Kafka messages as Cilium's proxy saw them, drops and policy
    /// verdicts. ADDR is unix:///PATH, HOST:PORT or tls://HOST:PORT; without it HUBBLE_SERVER, else the node's
    /// socket, else localhost:4245. The hubble command line's other variables hold too (HUBBLE_TLS,
    /// HUBBLE_TLS_CA_CERT_FILES, HUBBLE_TLS_CLIENT_CERT_FILE, HUBBLE_TLS_CLIENT_KEY_FILE, HUBBLE_TLS_SERVER_NAME,
    /// HUBBLE_TLS_ALLOW_INSECURE). Where Hubble is away that is said once, and everything else goes on
    #[arg(long, value_name = "ADDR", num_args = 0..=1)]
    hubble: Option<Option<Address>>,

    /// Read application messages from the payload of packets: codes, names and times are recorded, payload is not,
    /// nor are header values, query strings and bodies. `http` is HTTP/1, HTTP/2 and gRPC. Costs a copy of SNAP bytes
    /// for each packet of DNS (dns), TLS handshake (tls), or TCP with payload (http, kafka)
    #[arg(long, value_name = "PROTOCOLS", value_enum, value_delimiter = ',')]
    l7: Vec<Protocol>,

    /// With --l7: bytes of each packet's payload to look at; a longer head is read as far as it goes
    #[arg(long, value_name = "BYTES", default_value_t = 192, requires = "l7",
        value_parser = clap::value_parser!(u32).range(64..=i64::from(PayloadOptions::LONGEST)))]
    snap: u32,

    /// Names of addresses, written into the recording for flows that nothing else names: lines of
    /// `ADDRESS[/BITS] namespace=NAME pod=NAME service=NAME`, each of which may be left out
    #[arg(long, value_name = "FILE", conflicts_with = "anonymize")]
    names: Option<PathBuf>,

    /// Leave the names and paths out of application messages: query names, URL paths, topics, server names
    #[arg(long)]
    redact: bool,
}

impl ApplicationArgs {
    /// What to read from payload, if anything.
    pub fn payload(&self) -> Option<PayloadOptions> {
        let is_asked = self.l7.iter().any(|protocol| *protocol != Protocol::None);
        is_asked.then(|| PayloadOptions::new(self.snap, protocols::options(&self.l7, self.redact)))
    }

    /// The text of the file of names, which is as it should be.
    pub fn names(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.names else { return Ok(None) };
        let failed = || format!("cannot read {}", path.display());
        let text = std::fs::read_to_string(path).with_context(failed)?;
        text.parse::<NameMap>().with_context(|| path.display().to_string())?;
        Ok(Some(text))
    }

    /// Hubble's client, where it is asked for.
    pub fn hubble(&self, clock: Clock) -> anyhow::Result<Option<Hubble>> {
        let Some(given) = &self.hubble else { return Ok(None) };
        let (address, tls) = Address::or_environment(given.as_ref(), |name| std::env::var(name).ok())?;
        let options = Options { redact: self.redact, ..Options::new(address, tls) };
        Hubble::start(options, clock).context("cannot follow Hubble").map(Some)
    }
}

/// What became of Hubble's messages, as a line of the summary.
pub(super) fn report(hubble: &Hubble) {
    let counters = hubble.counters();
    tracing::info!(
        connections = counters.connections,
        received = counters.received,
        undecodable = counters.undecodable,
        repeated = counters.repeated,
        events = counters.events,
        dropped = counters.dropped,
        "Hubble: {}",
        counters.messages
    );
    if counters.dropped > 0 {
        tracing::warn!(dropped = counters.dropped, "Hubble's flows came faster than they could be written");
    }
}

/// What became of payload, as a line of the summary.
pub(super) fn report_payload(counters: &PayloadCounters) {
    let PayloadCounters { snapshots, lost, messages } = counters;
    tracing::info!(snapshots, lost, "application messages: {messages}");
    if *lost > 0 {
        tracing::warn!(lost, "payload came faster than it was read: messages are missing");
    }
}
