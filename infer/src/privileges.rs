//! What a watching process keeps of root: the rights to attach to interfaces that come later, and nothing else.

use std::collections::HashSet;

use caps::{CapSet, Capability};
use tracing::{debug, warn};

/// Attaching (also to interfaces that come later), reading the kernel's maps, and other namespaces' counters.
const KEPT: [Capability; 4] =
    [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON, Capability::CAP_SYS_PTRACE];

/// Drops every other capability of this thread and of those it starts: call it before there are more threads. A
/// process that has none to drop goes on as it is.
pub fn drop_others() {
    let outcome = || -> Result<usize, caps::errors::CapsError> {
        let held = caps::read(None, CapSet::Permitted)?;
        let kept: HashSet<Capability> = held.iter().copied().filter(|held| KEPT.contains(held)).collect();
        let dropped = held.len() - kept.len();
        for other in held.difference(&kept) {
            if caps::has_cap(None, CapSet::Bounding, *other)? && held.contains(&Capability::CAP_SETPCAP) {
                caps::drop(None, CapSet::Bounding, *other)?;
            }
        }
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)?;
        Ok(dropped)
    }();
    match outcome {
        Ok(dropped) => debug!(dropped, "capabilities dropped"),
        Err(error) => warn!("capabilities could not be dropped: {error}"),
    }
}
