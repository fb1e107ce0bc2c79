//! The embedded kernel object, and in one line why it cannot be used where it cannot.

use std::io;

use aya::maps::{Map, MapError};
use aya::programs::ProgramError;
use aya::{Ebpf, EbpfError, EbpfLoader};
use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, setrlimit};

use crate::source::Error;

/// The kernel object, built from capture-ebpf by `cargo xtask ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("CAPTURE_OBJECT"));

/// What this process or this kernel lacks for recording live.
#[derive(Debug, thiserror::Error)]
pub enum Lack {
    #[error(
        "missing {}: run as root, or give the program these capabilities; importing and reading recordings \
         works without",
        list(.0)
    )]
    Capabilities(Vec<Capability>),
    #[error(
        "the kernel refuses eBPF here ({0}): a container's seccomp profile or kernel lockdown may forbid it; \
         importing and reading recordings works without"
    )]
    Refused(#[source] io::Error),
    #[error(
        "the kernel has no eBPF ring buffer: Linux 5.8 or newer is needed; importing and reading recordings \
         works without"
    )]
    RingBuffer,
    #[error("the kernel has no eBPF (CONFIG_BPF_SYSCALL): importing and reading recordings works without")]
    Bpf,
    #[error("the kernel programs cannot be loaded")]
    Load(#[source] EbpfError),
}

fn list(capabilities: &[Capability]) -> String {
    capabilities.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What recording needs; CAP_SYS_ADMIN holds what CAP_BPF and CAP_PERFMON were split from in Linux 5.8.
pub fn missing_capabilities() -> Vec<Capability> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let admin = has(Capability::CAP_SYS_ADMIN);
    let mut missing = vec![Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
    missing.retain(|capability| {
        let held = has(*capability) || (admin && *capability != Capability::CAP_NET_ADMIN);
        !held
    });
    missing
}

/// Creates the object's maps; loads no program yet. Ring buffers that `loader` sets no size for stay small.
pub fn load(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, Lack> {
    let missing = missing_capabilities();
    if !missing.is_empty() {
        return Err(Lack::Capabilities(missing));
    }
    match aya::sys::is_map_supported(aya::maps::MapType::RingBuf) {
        Ok(true) => {}
        Ok(false) => return Err(Lack::RingBuffer),
        Err(error) => return Err(refusal(error.io_error)),
    }
    // Kernels before 5.11 count maps as locked memory. Where the limit cannot be raised, loading says so.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, u64::MAX, u64::MAX);
    loader.load(OBJECT).map_err(Lack::Load)
}

/// Why a program could not be loaded: of the verifier's thousand lines the one that says it, and all of them in
/// the log.
pub fn not_loaded(name: &'static str, error: ProgramError) -> Error {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return Error::Program { name, source: error };
    };
    let log = verifier_log.to_string();
    tracing::debug!(program = name, "{log}");
    Error::Refused { name, reason: verdict(&log), source: io_error }
}

/// The last line of the verifier's log that is no figure of its own work.
fn verdict(log: &str) -> String {
    const FIGURES: [&str; 4] = ["verification time", "stack depth", "processed", "insns_cnt"];
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let verdict = lines.rfind(|line| FIGURES.iter().all(|figure| !line.starts_with(figure)));
    verdict.unwrap_or("it does not say why").to_owned()
}

/// Takes a map out of the object.
pub fn map<T>(
    ebpf: &mut Ebpf,
    name: &'static str,
    typed: impl FnOnce(Map) -> Result<T, MapError>,
) -> Result<T, Error> {
    let map = ebpf.take_map(name).ok_or(Error::Object { name })?;
    typed(map).map_err(|source| Error::Map { name, source })
}

fn refusal(error: io::Error) -> Lack {
    // ENOSYS
    if error.kind() == io::ErrorKind::Unsupported { Lack::Bpf } else { Lack::Refused(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_line_before_the_figures() {
        let log = "0: R1=ctx() R10=fp0\n782: (85) call bpf_skb_load_bytes#26\n\
                   R3 min value is outside of the allowed memory range\nverification time 21017 usec\n\
                   stack depth 80+80\nprocessed 697 insns (limit 1000000)\n\n";
        assert_eq!(verdict(log), "R3 min value is outside of the allowed memory range");
        assert_eq!(verdict(""), "it does not say why");
    }
}
