//! The arrows between the crates: what analyses recordings builds without what makes them.

use std::collections::BTreeSet;
use std::process::Command;

/// Crates that reach the kernel or the network.
const LIVE: [&str; 8] = ["aya", "hyper", "mio", "reqwest", "rustls", "socket2", "tokio", "tonic"];

/// The names of all crates that a package is built from, itself included.
fn built_from(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{lib}"])
        .args(["--package", package])
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names: BTreeSet<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .filter(|l| !l.is_empty())
        .collect();
    assert!(names.contains(package), "cargo tree lists {package}, and what it is built from: {names:?}");
    names
}

#[test]
fn analysis_builds_without_kernel_and_network() {
    for package in ["event", "recording", "dissect", "features", "replay", "model", "train"] {
        let live: Vec<String> =
            built_from(package).into_iter().filter(|c| LIVE.contains(&c.as_str())).collect();
        assert!(live.is_empty(), "{package} is built from {live:?}");
    }
}

#[test]
fn arrows_point_along_the_data() {
    // What each crate of ours may be built from; whoever adds an arrow adds it here, and says why.
    let allowed: [(&str, &[&str]); 7] = [
        ("event", &[]),
        ("recording", &["event"]),
        ("dissect", &["event"]),
        ("features", &["event"]),
        ("model", &[]),
        ("replay", &["cli", "dissect", "event", "features", "hubble", "recording"]),
        ("train", &["cli", "event", "features", "model"]),
    ];
    let ours = [
        "capture",
        "cli",
        "dissect",
        "event",
        "features",
        "hubble",
        "infer",
        "model",
        "recording",
        "replay",
        "train",
        "wire",
    ];
    for (package, may) in allowed {
        let used = built_from(package);
        let strays: Vec<&str> = ours
            .into_iter()
            .filter(|name| *name != package && used.contains(*name) && !may.contains(name))
            .collect();
        assert!(strays.is_empty(), "{package} is built from {strays:?}");
    }
}
