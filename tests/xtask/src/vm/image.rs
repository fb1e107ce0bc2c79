//! What the guest boots: Debian's kernel, and an initial RAM disk with the modules and programs it needs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::workspace::succeed;

/// Modules that the live tests use and Debian's cloud kernel does not build in.
const MODULES: [&str; 26] = [
    "veth",
    "dummy",
    "tun",
    "8021q",
    "vxlan",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "cls_matchall",
    "sch_htb",
    "sch_tbf",
    "sch_netem",
    "nf_tables",
    "nft_numgen",
    "nft_limit",
    "nft_ct",
    "nft_counter",
    "nft_reject_inet",
    "nft_log",
    "nft_hash",
    "loop",
    "ext4",
    "overlay",
    "tcp_bbr",
    "ipv6",
    "sctp",
];

/// A guest in the making: a folder that becomes its RAM disk.
pub struct Image {
    /// The kernel that QEMU loads.
    pub kernel: PathBuf,
    folder: PathBuf,
    tree: PathBuf,
    copied: BTreeSet<PathBuf>,
}

impl Image {
    /// Fetches the kernel package once, and lays out an empty guest with the modules of that kernel.
    pub fn new(folder: &Path, package: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let unpacked = fetch_kernel(folder, package)?;
        let kernel = only_file(&unpacked.join("boot"), "vmlinuz-")?;
        let version = kernel.to_string_lossy().split_once("vmlinuz-").map(|(_, v)| v.to_owned());
        let version = version.context("the kernel's name has no version")?;
        let tree = folder.join("tree");
        if tree.exists() {
            fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
        }
        for name in [
            "bin",
            "dev",
            "proc",
            "sys",
            "tmp",
            "run",
            "root",
            "etc",
            "modules",
            "var/tmp",
            "var/log/nginx",
            "var/lib/nginx",
        ] {
            let path = tree.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        // Whom recorders become.
        write(&tree.join("etc/passwd"), "root:x:0:0::/root:/bin/dash\nnobody:x:65534:65534::/:/bin/false\n")?;
        write(&tree.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        let image = Self { kernel, folder: folder.to_owned(), tree, copied: BTreeSet::new() };
        image.add_modules(&unpacked, &version)?;
        Ok(image)
    }

    /// Copies the modules in the order in which they load.
    fn add_modules(&self, unpacked: &Path, version: &str) -> anyhow::Result<()> {
        succeed(Command::new("depmod").arg("-b").arg(unpacked).arg(version))?;
        let mut order: Vec<String> = Vec::new();
        for module in MODULES {
            // A module that this kernel has built in, or lacks, lists nothing.
            let output = Command::new("modprobe")
                .args(["--show-depends", "--set-version", version, "--dirname"])
                .arg(unpacked)
                .arg(module)
                .stderr(Stdio::null())
                .output()
                .context("cannot start modprobe")?;
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                let Some(path) = line.strip_prefix("insmod ").and_then(|rest| rest.split(' ').next()) else {
                    continue;
                };
                let name = path.rsplit('/').next().unwrap_or(path).to_owned();
                if !order.contains(&name) {
                    copy(Path::new(path), &self.tree.join("modules").join(&name))?;
                    order.push(name);
                }
            }
        }
        write(&self.tree.join("modules/order"), &(order.join("\n") + "\n"))
    }

    /// Copies a program to its own path in the guest, the libraries it loads with it, and a link in /bin.
    pub fn add_program(&mut self, program: &Path) -> anyhow::Result<()> {
        self.add_file(program)?;
        let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
        // A static program has no libraries: ldd fails, and there is nothing to copy.
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) {
                self.add_file(Path::new(path))?;
            }
        }
        let name = program.file_name().context("a program has a name")?;
        let link = self.tree.join("bin").join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(program, &link)
                .with_context(|| format!("cannot link {}", link.display()))?;
        }
        Ok(())
    }

    fn add_file(&mut self, file: &Path) -> anyhow::Result<()> {
        if !self.copied.insert(file.to_owned()) {
            return Ok(());
        }
        let inside = self.tree.join(file.strip_prefix("/").unwrap_or(file));
        if inside.exists() { Ok(()) } else { copy(file, &inside) }
    }

    /// Packs the RAM disk; its init loads the modules, runs the script and powers off.
    pub fn finish(&mut self, script: &str) -> anyhow::Result<PathBuf> {
        copy(&super::which("busybox")?, &self.tree.join("bin/busybox"))?;
        let init = self.tree.join("init");
        write(&init, &init_script(script))?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", init.display()))?;
        let initrd = self.folder.join("initrd");
        let pack = format!("find . | busybox cpio -o -H newc 2>/dev/null > '{}'", initrd.display());
        succeed(Command::new("sh").args(["-c", &pack]).current_dir(&self.tree))?;
        Ok(initrd)
    }
}

/// The guest's first process. Not busybox's shell: that one prefers its own applets (ip, tc) to real tools.
fn init_script(script: &str) -> String {
    format!(
        "#!/bin/dash
/bin/busybox mkdir -p /applets /sys/fs/cgroup /sys/fs/bpf /sys/kernel/tracing /dev/shm
/bin/busybox --install -s /applets
export PATH=/bin:/usr/sbin:/sbin:/usr/bin:/applets HOME=/root RUST_BACKTRACE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /run/netns
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
while read -r module; do insmod /modules/$module 2>/dev/null; done < /modules/order
echo '+cpu +memory +io' > /sys/fs/cgroup/cgroup.subtree_control
ip link set lo up
{script}
sync
poweroff -f
"
    )
}

/// The unpacked kernel package, fetched by apt where it is not there yet.
fn fetch_kernel(folder: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let unpacked = folder.join(package);
    if unpacked.join("boot").is_dir() {
        return Ok(unpacked);
    }
    let depends =
        Command::new("apt-cache").args(["depends", package]).output().context("cannot start apt-cache")?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    // A metapackage names the real one.
    let real = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let real = real.filter(|name| name.starts_with("linux-image-")).unwrap_or(package);
    succeed(Command::new("apt-get").args(["download", "-q", real]).current_dir(folder))?;
    let archive = only_file(folder, &format!("{real}_"))?;
    succeed(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    Ok(unpacked)
}

fn only_file(folder: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut found = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    found.next().with_context(|| format!("no {prefix}* in {}", folder.display()))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
