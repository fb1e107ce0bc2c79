//! What to watch besides packets, and how: the flags of every program that watches a node.

use std::path::PathBuf;
use std::time::Duration;

use crate::protocols::{self, Protocol};
use crate::source::hubble::{Address, Hubble, Options};
use crate::source::kubernetes::{self, Kubernetes};
use crate::source::tc::PayloadOptions;
use crate::source::{Error, kernel, system, tc};
use crate::{Clock, Sample, Selection};

use super::Watch;

/// What is watched, and how.
#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Leave out the kernel's events
    #[arg(long, help_heading = "Content")]
    no_kernel_events: bool,

    /// Room for packets between kernel and reader, in KiB; a power of two. It is shared among the processors, each of
    /// which has a ring of its own: at least 4095 packets for each, whatever is given here
    #[arg(long, value_name = "KIB", default_value_t = 8192, value_parser = ring_size, help_heading = "Bounds")]
    ring_size: u32,

    /// Seconds between two snapshots of processor, memory, disks, processes and pods; 0: none
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval, help_heading = "System")]
    system_interval: f64,

    /// Where the node's /proc is; /host/proc inside a container
    #[arg(long, value_name = "PATH", default_value = "/proc", help_heading = "System")]
    proc_root: PathBuf,

    /// Where the node's cgroups are mounted
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/cgroup", help_heading = "System")]
    cgroup_root: PathBuf,

    /// Follow Hubble's flows: DNS, HTTP, gRPC and Kafka messages as Cilium's proxy saw them, drops and policy
    /// verdicts. ADDR is unix:///PATH, HOST:PORT or tls://HOST:PORT; without it HUBBLE_SERVER, else the node's
    /// socket, else localhost:4245. The hubble command line's other variables hold too (HUBBLE_TLS,
    /// HUBBLE_TLS_CA_CERT_FILES, HUBBLE_TLS_CLIENT_CERT_FILE, HUBBLE_TLS_CLIENT_KEY_FILE, HUBBLE_TLS_SERVER_NAME,
    /// HUBBLE_TLS_ALLOW_INSECURE). Where Hubble is away that is said once, and everything else goes on
    #[arg(long, value_name = "ADDR", num_args = 0..=1, help_heading = "Application messages")]
    hubble: Option<Option<Address>>,

    /// Read application messages from the payload of packets: codes, names and times are taken, payload is not, nor
    /// are header values, query strings and bodies. `http` is HTTP/1, HTTP/2 and gRPC. Costs a copy of SNAP bytes
    /// for each packet of DNS (dns), TLS handshake (tls), or TCP with payload (http, kafka)
    #[arg(
        long,
        value_name = "PROTOCOLS",
        value_enum,
        value_delimiter = ',',
        help_heading = "Application messages"
    )]
    l7: Vec<Protocol>,

    /// With --l7: bytes of each packet's payload to look at; a longer head is read as far as it goes
    #[arg(long, value_name = "BYTES", default_value_t = 192, requires = "l7",
        value_parser = clap::value_parser!(u32).range(64..=i64::from(PayloadOptions::LONGEST)),
        help_heading = "Application messages")]
    snap: u32,

    /// Ask the Kubernetes API for the names of this node's pods and of services, where there is no Hubble. The cluster
    /// is found as kubectl finds it (KUBECONFIG, ~/.kube/config), else as a pod does (its service account, which has
    /// to be allowed to get, list and watch pods and services). Without a cluster that is said once, and everything
    /// else goes on
    #[arg(long, help_heading = "Application messages")]
    kube: bool,

    /// With --kube: the name that Kubernetes has for this node [default: NODE_NAME, else the host's name]
    #[arg(long, value_name = "NAME", requires = "kube", help_heading = "Application messages")]
    kube_node: Option<String>,

    /// Leave the names and paths out of application messages: query names, URL paths, topics, server names
    #[arg(long, help_heading = "Application messages")]
    redact: bool,
}

impl WatchArgs {
    /// Attaches to the interfaces and to the kernel's tracepoints: everything that takes rights. The other sources
    /// begin by [`WatchArgs::start`].
    ///
    /// # Errors
    /// As [`tc::Tc::open`]. Without the kernel's events packets are watched all the same, and that is said.
    pub fn attach(&self, interfaces: &Selection, sample: Sample, clock: Clock) -> Result<Watch, Error> {
        let options =
            tc::Options { ring_size: self.ring_size << 10, sample: sample.get(), payload: self.payload() };
        let packets = tc::Tc::open(interfaces, clock, options)?;
        let kernel = if self.no_kernel_events { None } else { kernel_events(clock) };
        Ok(Watch::new(packets, kernel, clock))
    }

    /// Whether the watch looks at processes of other users.
    pub fn reads_processes(&self) -> bool {
        self.system_interval > 0.0
    }

    /// Starts the sources that have threads of their own, which take over the rights of their starter.
    ///
    /// # Errors
    /// [`Error::Thread`], and where the environment's settings for Hubble cannot be used.
    pub fn start(&self, watch: &mut Watch) -> Result<(), Error> {
        let (system, hubble) = (self.system(watch.clock)?, self.hubble(watch.clock)?);
        watch.add(system, hubble, self.kubernetes(watch.clock)?);
        Ok(())
    }

    fn system(&self, clock: Clock) -> Result<Option<system::System>, Error> {
        if !self.reads_processes() {
            return Ok(None);
        }
        let options = system::Options {
            interval: Duration::from_secs_f64(self.system_interval),
            proc_root: self.proc_root.clone(),
            cgroup_root: self.cgroup_root.clone(),
        };
        system::System::start(options, clock).map(Some)
    }

    /// What to read from payload, if anything.
    fn payload(&self) -> Option<PayloadOptions> {
        let is_asked = self.l7.iter().any(|protocol| *protocol != Protocol::None);
        is_asked.then(|| PayloadOptions::new(self.snap, protocols::options(&self.l7, self.redact)))
    }

    fn hubble(&self, clock: Clock) -> Result<Option<Hubble>, Error> {
        let Some(given) = &self.hubble else { return Ok(None) };
        let (address, tls) = Address::or_environment(given.as_ref(), |name| std::env::var(name).ok())?;
        let options = Options { redact: self.redact, ..Options::new(address, tls) };
        Hubble::start(options, clock).map(Some)
    }

    fn kubernetes(&self, clock: Clock) -> Result<Option<Kubernetes>, Error> {
        if !self.kube {
            return Ok(None);
        }
        let node = self.kube_node.clone().unwrap_or_else(own_name);
        Kubernetes::start(kubernetes::Options { node, cluster: None }, clock).map(Some)
    }
}

fn own_name() -> String {
    // What the kubelet takes where nothing else is said.
    std::env::var("NODE_NAME").unwrap_or_else(|_| super::host().to_lowercase())
}

/// The kernel's events, or why there are none.
fn kernel_events(clock: Clock) -> Option<kernel::Kernel> {
    match kernel::Kernel::open(clock, kernel::Options::default()) {
        Ok(kernel) => {
            for missing in kernel.missing() {
                let kernel::Missing { tracepoint, tells, reason } = missing;
                tracing::warn!("not watched: {tells} ({tracepoint}: {reason})");
            }
            Some(kernel)
        }
        Err(error) => {
            tracing::warn!("no kernel events are watched: {:#}", anyhow::Error::from(error));
            None
        }
    }
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds == 0.0 || (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0, or a number of seconds from 0.1 to 3600".to_owned()),
    }
}

fn ring_size(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(kibibytes) if kibibytes.is_power_of_two() && (4..=1 << 20).contains(&kibibytes) => Ok(kibibytes),
        _ => Err("a power of two from 4 to 1048576".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_checked() {
        assert!(ring_size("8192").is_ok());
        assert!(ring_size("8191").is_err() && ring_size("2").is_err());
        assert!(interval("0").is_ok() && interval("0.5").is_ok());
        assert!(interval("0.01").is_err() && interval("nan").is_err());
    }
}
