//! `cargo xtask ebpf`: the kernel object that `capture` embeds, and where it comes from.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use cli::Exit;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::workspace::{cargo, root, succeed};

/// Rebuilds the kernel programs into capture/bpf, with the hash of their sources and the versions of their
/// toolchain beside them. It needs Debian's packages rustc-web, libstd-rust-web-dev-bpf and llvm-22-dev, or a
/// rustup nightly with rust-src and an LLVM of the same major version; bpf-linker it installs itself.
#[derive(clap::Args)]
pub struct Args {
    /// Change nothing: rebuild and compare. With the recorded toolchain the bytes must be equal; with another
    /// the rebuilt object must load and pass the tests of `capture`
    #[arg(long)]
    check: bool,
}

/// The version that the object is linked with.
const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "22";
const TARGET: &str = "bpfel-unknown-none";

/// Where an object comes from: `capture/bpf/provenance.toml`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Provenance {
    /// SHA-256 over names and contents of the sources.
    sources: String,
    /// SHA-256 of the object.
    object: String,
    /// SHA-256 of what the benchmark measures it by.
    yardstick: String,
    toolchain: Toolchain,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Toolchain {
    rustc: String,
    bpf_linker: String,
    llvm: String,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let tools = Tools::find()?;
    tools.build()?;
    let (object, yardstick) = (tools.object("capture")?, tools.object("yardstick")?);
    let built = Provenance {
        sources: hash_sources()?,
        object: hash(&object),
        yardstick: hash(&yardstick),
        toolchain: tools.toolchain()?,
    };
    if args.check {
        check(&built, &object)?;
        return Ok(Exit::Done);
    }
    let text = format!("# Written by `cargo xtask ebpf`.\n{}", toml::to_string(&built)?);
    write(&object_path(), &object)?;
    write(&yardstick_path(), &yardstick)?;
    write(&provenance_path(), text.as_bytes())?;
    writeln!(std::io::stdout(), "{}: {} bytes, {}", object_path().display(), object.len(), built.object)?;
    Ok(Exit::Done)
}

fn check(built: &Provenance, object: &[u8]) -> anyhow::Result<()> {
    let recorded = recorded()?;
    ensure!(built.sources == recorded.sources, STALE);
    if built.toolchain == recorded.toolchain {
        ensure!(
            (&built.object, &built.yardstick) == (&recorded.object, &recorded.yardstick)
                && hash(&read(&object_path())?) == recorded.object
                && hash(&read(&yardstick_path())?) == recorded.yardstick,
            "the kernel object is not what its sources and its recorded toolchain give; run `cargo xtask ebpf`"
        );
        writeln!(std::io::stdout(), "the kernel object is what its sources give, byte for byte")?;
        return Ok(());
    }
    let path = root().join("target/xtask/capture.o");
    write(&path, object)?;
    let mut tests = cargo();
    tests.args(["test", "--quiet", "--package", "capture"]).env("CAPTURE_OBJECT", &path);
    succeed(&mut tests).context("the object that this toolchain gives does not pass the tests")?;
    writeln!(
        std::io::stdout(),
        "this toolchain is not the recorded one; what it gives loads and passes the tests\n  recorded: {:?}\n  here:     {:?}",
        recorded.toolchain,
        built.toolchain
    )?;
    Ok(())
}

const STALE: &str =
    "capture/bpf/capture.o is older than its sources; run `cargo xtask ebpf` and commit capture/bpf";

fn target() -> PathBuf {
    root().join("target/ebpf")
}

fn object_path() -> PathBuf {
    root().join("capture/bpf/capture.o")
}

fn yardstick_path() -> PathBuf {
    root().join("capture/bpf/yardstick.o")
}

fn provenance_path() -> PathBuf {
    root().join("capture/bpf/provenance.toml")
}

fn recorded() -> anyhow::Result<Provenance> {
    let path = provenance_path();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not a provenance", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The hash over everything that the object is built from, in the order of the files' names.
fn hash_sources() -> anyhow::Result<String> {
    let folder = root().join("capture-ebpf");
    let mut files =
        vec![folder.join("Cargo.toml"), folder.join("Cargo.lock"), folder.join("wire/Cargo.toml")];
    add_files(&folder.join("src"), &mut files)?;
    add_files(&folder.join("wire/src"), &mut files)?;
    files.sort();
    let mut text = String::new();
    for file in files {
        let name = file.strip_prefix(&folder).unwrap_or(&file);
        writeln!(text, "{} {}", hash(&read(&file)?), name.display())?;
    }
    Ok(hash(text.as_bytes()))
}

fn add_files(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            add_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// What the kernel programs are built with.
struct Tools {
    rustc: PathBuf,
    /// The compiler brings no `core` for the target: it is built with it.
    build_core: bool,
    bpf_linker: PathBuf,
    /// Where LLVM is installed.
    llvm: PathBuf,
}

impl Tools {
    fn find() -> anyhow::Result<Self> {
        let llvm = std::env::var_os("LLVM_PREFIX")
            .map_or_else(|| PathBuf::from(format!("/usr/lib/llvm-{LLVM}")), PathBuf::from);
        ensure!(
            llvm.join("bin/llvm-objcopy").is_file(),
            "no LLVM {LLVM} in {}: apt-get install -y llvm-{LLVM}-dev, or set LLVM_PREFIX",
            llvm.display()
        );
        let (rustc, build_core) = rustc()?;
        let bpf_linker = bpf_linker(&llvm)?;
        Ok(Self { rustc, build_core, bpf_linker, llvm })
    }

    fn toolchain(&self) -> anyhow::Result<Toolchain> {
        let rustc = output(Command::new(&self.rustc).arg("--version"))?;
        let bpf_linker = output(Command::new(&self.bpf_linker).arg("--version"))?;
        let llvm = output(Command::new(self.llvm.join("bin/llvm-config")).arg("--version"))?;
        Ok(Toolchain { rustc, bpf_linker, llvm })
    }

    /// Compiles and links the objects.
    fn build(&self) -> anyhow::Result<()> {
        let folder = root().join("capture-ebpf");
        let target = target();
        let mut build = cargo();
        build
            .current_dir(&folder)
            .args(["build", "--quiet", "--locked", "--release", "--target", TARGET, "--target-dir"])
            .arg(&target)
            .env("RUSTC", &self.rustc)
            // The target has no stable compiler; a stable one does as well.
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(&folder)?.join("\u{1f}"));
        if self.build_core {
            build.args(["-Z", "build-std=core"]);
        }
        succeed(&mut build)
    }

    /// An object that was built, stripped: the same bytes wherever the project is.
    fn object(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let linked = target().join(TARGET).join("release").join(name);
        let stripped = target().join(format!("{name}.o"));
        let mut strip = Command::new(self.llvm.join("bin/llvm-objcopy"));
        // BTF stays: the kernel names functions and maps by it, and the verifier points at lines.
        strip.arg("--strip-debug").args(self.plain_symbols(&linked)?).arg(&linked).arg(&stripped);
        succeed(&mut strip)?;
        read(&stripped)
    }

    fn flags(&self, folder: &Path) -> anyhow::Result<Vec<String>> {
        let home = std::env::var_os("CARGO_HOME").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
            PathBuf::from,
        );
        let sysroot = output(Command::new(&self.rustc).args(["--print", "sysroot"]))?;
        let mut flags = vec![
            format!("-Clinker={}", self.bpf_linker.display()),
            // Loops and 32-bit jumps: Linux 5.3. The ring buffer asks for 5.8.
            "-Ctarget-cpu=v3".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            // Headers stand at any address; every machine that runs eBPF by JIT reads them so.
            "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
            format!("--remap-path-prefix={}=capture-ebpf", folder.display()),
            format!("--remap-path-prefix={}=cargo", home.display()),
            format!("--remap-path-prefix={sysroot}=rust"),
        ];
        // A registry's folder is named after its address, which a mirror changes.
        if let Ok(registries) = fs::read_dir(home.join("registry/src")) {
            for registry in registries {
                flags.push(format!("--remap-path-prefix={}=crates", registry?.path().display()));
            }
        }
        Ok(flags)
    }

    /// Renames symbols so that they do not hold the hash by which cargo tells crates apart: it changes with
    /// cargo's version.
    fn plain_symbols(&self, object: &Path) -> anyhow::Result<Vec<String>> {
        let names =
            output(Command::new(self.llvm.join("bin/llvm-nm")).arg("--format=just-symbols").arg(object))?;
        Ok(names
            .lines()
            .filter_map(|name| Some((name, without_disambiguator(name)?)))
            .map(|(name, plain)| format!("--redefine-sym={name}={plain}"))
            .collect())
    }
}

/// `..CsdvPqWMAqZeK_7capture..` -> `..C7capture..` (the v0 mangling: `C [s base62 _] length name`).
fn without_disambiguator(name: &str) -> Option<String> {
    let (before, rest) = name.split_once("Cs")?;
    let (hash, after) = rest.split_once('_')?;
    let is_hash = hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_hash && after.starts_with(|c: char| c.is_ascii_digit())).then(|| format!("{before}C{after}"))
}

/// Debian's compiler with a prebuilt `core`, or the nightly of rustup with the sources of `core`.
fn rustc() -> anyhow::Result<(PathBuf, bool)> {
    let packaged = PathBuf::from("/usr/bin/rustc");
    if packaged.is_file() && Path::new("/usr/lib/rustlib").join(TARGET).is_dir() {
        return Ok((packaged, false));
    }
    if let Ok(sysroot) = output(Command::new("rustc").args(["+nightly", "--print", "sysroot"])) {
        let sysroot = PathBuf::from(sysroot);
        if sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
            return Ok((sysroot.join("bin/rustc"), true));
        }
    }
    bail!(
        "no compiler for {TARGET}: apt-get install -y rustc-web libstd-rust-web-dev-bpf, or \
         rustup toolchain install nightly --component rust-src"
    )
}

fn bpf_linker(llvm: &Path) -> anyhow::Result<PathBuf> {
    let own = root().join("target/tools");
    let wanted = format!("bpf-linker {BPF_LINKER}");
    let candidates = [own.join("bin/bpf-linker"), PathBuf::from("bpf-linker")];
    for path in &candidates {
        if output(Command::new(path).arg("--version")).is_ok_and(|version| version == wanted) {
            return Ok(path.clone());
        }
    }
    writeln!(std::io::stderr(), "installing bpf-linker {BPF_LINKER} into {} (minutes)", own.display())?;
    let mut install = cargo();
    install
        .args(["install", "--quiet", "--locked", "bpf-linker", "--version", BPF_LINKER])
        .args(["--no-default-features", "--features", &format!("llvm-{LLVM}"), "--root"])
        .arg(&own)
        .env("LLVM_PREFIX", llvm)
        .env("RUSTFLAGS", format!("-L {}", llvm.join("lib").display()));
    succeed(&mut install)?;
    let [path, _] = candidates;
    Ok(path)
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        done.status.success(),
        "{command:?} ended with {}: {}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_object_is_built_from_these_sources() {
        let recorded = recorded().unwrap();
        assert_eq!(hash_sources().unwrap(), recorded.sources, "{STALE}");
        assert_eq!(hash(&read(&object_path()).unwrap()), recorded.object, "{STALE}");
        assert_eq!(hash(&read(&yardstick_path()).unwrap()), recorded.yardstick, "{STALE}");
    }

    #[test]
    fn symbols_lose_their_hash() {
        assert_eq!(
            without_disambiguator("_RNvNtCsdvPqWMAqZeK_7capture2tc12walk_options").as_deref(),
            Some("_RNvNtC7capture2tc12walk_options")
        );
        assert_eq!(without_disambiguator("tc_ingress"), None);
        assert_eq!(without_disambiguator("tc_Cs_x"), None);
    }
}
