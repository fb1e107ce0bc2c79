//! Names the kernel object that is embedded: the committed one, or one that was just rebuilt.

fn main() {
    println!("cargo::rerun-if-env-changed=CAPTURE_OBJECT");
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/capture.o").to_owned();
    let object = std::env::var("CAPTURE_OBJECT").unwrap_or(committed);
    println!("cargo::rerun-if-changed={object}");
    println!("cargo::rustc-env=CAPTURE_OBJECT={object}");
}
