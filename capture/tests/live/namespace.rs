//! Network namespaces that live as long as their value, and a veth pair between two of them.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace without a name: the kernel drops it with the last file and process in it.
pub struct Namespace {
    file: File,
}

impl Namespace {
    pub fn new() -> Self {
        let file = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            // Addresses that are usable at once, and no packets of IPv6's own.
            std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/default/router_solicitations", "0").unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = Self { file: file.join().unwrap() };
        namespace.ip("link set lo up").unwrap();
        namespace
    }

    /// Runs `work` in a thread of the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// Runs `ip` with arguments separated by blanks.
    pub fn ip(&self, arguments: &str) -> Result<(), String> {
        self.run("ip", arguments)
    }

    pub fn run(&self, program: &str, arguments: &str) -> Result<(), String> {
        let output = self.enter(|| Command::new(program).args(arguments.split(' ')).output());
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() { Ok(()) } else { Err(format!("{program} {arguments}: {said}")) }
    }

    /// A path that `ip` knows the namespace by.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Opens a tun device, so that packets that leave by it have somewhere to go.
    pub fn open_tun(&self, name: &str) -> OwnedFd {
        /// `_IOW('T', 202, int)`
        const TUNSETIFF: u64 = 0x4004_54ca;
        /// `IFF_TUN | IFF_NO_PI`
        const FLAGS: [u8; 2] = 0x1001_u16.to_ne_bytes();
        // struct ifreq: the name in 16 bytes, then the flags.
        let mut request = [0_u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        request[16..18].copy_from_slice(&FLAGS);
        self.enter(|| {
            let device = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
            #[expect(unsafe_code, reason = "an ioctl without a safe wrapper")]
            // SAFETY: the request is as long as the kernel reads.
            let done = unsafe { nix::libc::ioctl(device.as_raw_fd(), TUNSETIFF, request.as_ptr()) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
            device.into()
        })
    }
}

/// `left0` in one namespace, `right0` in another.
pub struct Pair {
    pub left: Namespace,
    pub right: Namespace,
}

impl Pair {
    pub fn new() -> Self {
        let pair = Self { left: Namespace::new(), right: Namespace::new() };
        let peer = format!("link add left0 type veth peer name right0 netns {}", pair.right.path());
        pair.left.ip(&peer).unwrap();
        for (namespace, device, host) in [(&pair.left, "left0", 1), (&pair.right, "right0", 2)] {
            namespace.ip(&format!("address add 198.18.0.{host}/24 dev {device}")).unwrap();
            namespace.ip(&format!("address add fd12::{host}/64 dev {device} nodad")).unwrap();
            namespace.ip(&format!("link set {device} up")).unwrap();
        }
        pair
    }

    pub fn right_v4(&self, port: u16) -> SocketAddr {
        SocketAddr::from(([198, 18, 0, 2], port))
    }

    pub fn right_v6(&self, port: u16) -> SocketAddr {
        SocketAddr::from(([0xfd12, 0, 0, 0, 0, 0, 0, 2], port))
    }

    /// No neighbour or multicast messages of IPv6.
    pub fn without_ipv6(&self) {
        for namespace in [&self.left, &self.right] {
            namespace.enter(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap());
        }
    }

    /// Turns super-packets on or off on both sides.
    pub fn offloads(&self, state: &str) {
        for (namespace, device) in [(&self.left, "left0"), (&self.right, "right0")] {
            namespace.run("ethtool", &format!("-K {device} tso {state} gso {state} gro {state}")).unwrap();
        }
    }

    /// A VLAN within a VLAN on both sides: 198.18.9.1 and 198.18.9.2.
    pub fn add_vlans(&self) -> Result<(), String> {
        for (namespace, device, host) in [(&self.left, "left0", 1), (&self.right, "right0", 2)] {
            namespace.ip(&format!("link add link {device} name outer type vlan id 100"))?;
            namespace.ip("link add link outer name inner type vlan id 200")?;
            namespace.ip(&format!("address add 198.18.9.{host}/24 dev inner"))?;
            namespace.ip("link set outer up")?;
            namespace.ip("link set inner up")?;
        }
        Ok(())
    }
}

/// What this machine lacks for these tests.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    for tool in ["ip", "ethtool", "setpriv"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return Some(format!("needs {tool}"));
        }
    }
    let entered = thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join();
    match entered {
        Ok(Ok(())) => None,
        _ => Some("cannot make a network namespace".to_owned()),
    }
}
