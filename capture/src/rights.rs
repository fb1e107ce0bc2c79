//! What a recorder may still do once it has attached: the few capabilities that it goes on needing, and who it is.
//!
//! Attaching takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and as root there is everything else besides. What stays:
//!
//! - CAP_NET_ADMIN attaches to interfaces that appear later, and detaches where there is no TCX.
//! - CAP_BPF makes the counters of such an interface, and reads all counters on kernels before 5.19. Where the
//!   process has CAP_SYS_ADMIN alone, which held this right before 5.8, that stays in its place.
//! - CAP_SYS_PTRACE, with system snapshots: which network namespace a process of another user is in, and any of it
//!   where /proc is mounted with `hidepid`. No namespace is entered, so that CAP_SYS_ADMIN is not needed.
//! - CAP_DAC_OVERRIDE, for root alone and only where the folder of the recording belongs to somebody else and
//!   could not be written otherwise, as in a user's home.
//!
//! CAP_PERFMON goes: every program is loaded and every tracepoint attached by then.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caps::errors::CapsError;
use caps::{CapSet, Capability};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::prctl;
use nix::unistd::{AccessFlags, Uid, User, faccessat, initgroups, setresgid, setresuid};

/// Why rights could not be dropped. Recording does not go on with more than was promised.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no user `{0}`")]
    NoUser(String),
    #[error("cannot look up the user `{name}`")]
    Lookup { name: String, source: nix::Error },
    #[error("cannot become {user}: that takes CAP_SETUID and CAP_SETGID, which root has")]
    Become { user: String, source: nix::Error },
    #[error("cannot drop capabilities ({0})")]
    Capabilities(#[from] CapsError),
    #[error("cannot give up gaining rights by running programs")]
    NoNewPrivileges(#[source] nix::Error),
    #[error("cannot list the threads of this process")]
    Threads(#[source] io::Error),
    #[error("{0} threads run already, and each has rights of its own")]
    ThreadsRun(usize),
}

/// What goes on being needed.
#[derive(Clone, Debug)]
pub struct Needs {
    /// To see where processes of other users are.
    pub processes: bool,
    /// Where files are made.
    pub folder: PathBuf,
}

/// The user of a name or a number.
///
/// # Errors
/// [`Error::NoUser`], [`Error::Lookup`].
pub fn user(name: &str) -> Result<User, Error> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let found = found.map_err(|source| Error::Lookup { name: name.to_owned(), source })?;
    found.ok_or_else(|| Error::NoUser(name.to_owned()))
}

/// Drops every right but those of the needs, for good: nothing that this process runs gets one back. To be called
/// before there are threads, which have rights of their own and take over those of whoever starts them. Returns what
/// is kept.
///
/// # Errors
/// Any: some rights may be gone by then.
pub fn keep_only(needs: &Needs, user: Option<&User>) -> Result<Vec<Capability>, Error> {
    await_threads()?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let mut kept = needed(needs, &permitted);
    // What may be gained by running a program; to drop it takes a capability itself.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding)?;
    }
    let mut override_modes = HashSet::new();
    match user {
        Some(user) => become_user(user)?,
        None => override_modes.extend(permitted.get(&Capability::CAP_DAC_OVERRIDE)),
    }
    set(&kept.union(&override_modes).copied().collect(), &kept)?;
    if !override_modes.is_empty() && !is_writable(&needs.folder) {
        kept.extend(override_modes);
    }
    set(&kept, &kept)?;
    prctl::set_no_new_privs().map_err(Error::NoNewPrivileges)?;
    let mut kept: Vec<Capability> = kept.into_iter().collect();
    kept.sort_by_key(|capability| capability.index());
    Ok(kept)
}

/// Waits until there is no other thread: one that was joined is listed for a moment longer.
fn await_threads() -> Result<(), Error> {
    const MOMENTS: u32 = 200;
    let mut threads = 0;
    for _ in 0..MOMENTS {
        threads = std::fs::read_dir("/proc/self/task").map_err(Error::Threads)?.count();
        if threads == 1 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Error::ThreadsRun(threads))
}

/// What is needed of what there is.
fn needed(needs: &Needs, permitted: &HashSet<Capability>) -> HashSet<Capability> {
    let bpf = if permitted.contains(&Capability::CAP_BPF) {
        Capability::CAP_BPF
    } else {
        Capability::CAP_SYS_ADMIN
    };
    let processes = needs.processes.then_some(Capability::CAP_SYS_PTRACE);
    let needed: HashSet<Capability> = [bpf, Capability::CAP_NET_ADMIN].into_iter().chain(processes).collect();
    needed.intersection(permitted).copied().collect()
}

/// Sets what this process may and does use; no program that it runs inherits any of it.
fn set(permitted: &HashSet<Capability>, effective: &HashSet<Capability>) -> Result<(), CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    // Effective ones must be permitted, before and after.
    caps::clear(None, CapSet::Effective)?;
    caps::set(None, CapSet::Permitted, permitted)?;
    caps::set(None, CapSet::Effective, effective)
}

/// Changes user and groups; permitted capabilities stay.
fn become_user(user: &User) -> Result<(), Error> {
    let error = |source| Error::Become { user: user.name.clone(), source };
    let name = CString::new(user.name.as_str()).map_err(|_| error(nix::Error::EINVAL))?;
    prctl::set_keepcaps(true).map_err(error)?;
    initgroups(&name, user.gid).map_err(error)?;
    setresgid(user.gid, user.gid, user.gid).map_err(error)?;
    setresuid(user.uid, user.uid, user.uid).map_err(error)?;
    prctl::set_keepcaps(false).map_err(error)
}

/// Whether files can be made in a folder, or in the one that it is to be made in.
fn is_writable(folder: &Path) -> bool {
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    faccessat(AT_FDCWD, there, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(user("root").unwrap().uid, Uid::from_raw(0));
        assert_eq!(user("0").unwrap().name, "root");
        assert_eq!(
            user("nobody-of-that-name").unwrap_err().to_string(),
            "there is no user `nobody-of-that-name`"
        );
    }

    #[test]
    fn only_what_is_there_and_needed_is_kept() {
        use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE};
        let needs = |processes| Needs { processes, folder: PathBuf::new() };
        let check = |processes, permitted: &[Capability], expected: &[Capability]| {
            let kept = needed(&needs(processes), &permitted.iter().copied().collect());
            assert_eq!(kept, expected.iter().copied().collect());
        };
        let all = [CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE];
        check(true, &all, &[CAP_BPF, CAP_NET_ADMIN, CAP_SYS_PTRACE]);
        check(false, &all, &[CAP_BPF, CAP_NET_ADMIN]);
        check(true, &[CAP_SYS_ADMIN, CAP_NET_ADMIN], &[CAP_SYS_ADMIN, CAP_NET_ADMIN]);
        check(true, &[CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON], &[CAP_BPF, CAP_NET_ADMIN]);
    }
}
